//! The programs that check a whole filesystem: their common arguments, what they refuse, progress, Ctrl-C, and the outcome on standard
//! output.

use super::{
    Common, Failure, Reporter, interrupted, is_dirty, note, print, print_json, recover_devices, recovered_view, watch,
};
use crate::check::{self, Outcome};
use crate::control::Control;
use crate::error::Error;
use crate::geometry::GeometryReport;
use crate::journal::{LogState, log_state};
use crate::text::escape;
use crate::volume::{Devices, Volume};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Says of each device that is in use that what is read from it may be inconsistent, and what to do `instead`.
fn note_in_use(program: &str, volume: &Volume, instead: &str) {
    for (name, by) in volume.in_use() {
        let name = escape(name.as_bytes());
        note(program, &format!("{name} is {by}: what is seen may be inconsistent{instead}"));
    }
}

/// Says once of each reason why what a reader shows may not be the filesystem as it is: a device in use, with what to do `instead`; a
/// log that is to be replayed; a device that is shorter than the filesystem.
pub fn note_view(program: &str, volume: &Volume, instead: &str, control: &Control<'_>) {
    note_in_use(program, volume, instead);
    let name = escape(volume.data_target().name().as_bytes());
    // The log of a mounted filesystem is always being written.
    let state = if volume.in_use().is_empty() { log_state(volume, control) } else { Ok(LogState::Absent) };
    match state {
        Ok(LogState::Dirty { .. }) => {
            let what = "the log is dirty: what is shown lacks the changes in it";
            note(program, &format!("{name}: {what}; xfsr-repair replays them, as a mount does"));
        }
        Ok(_) | Err(Error::Stopped) => {}
        // That the device is too short, which is told below, may be why.
        Err(_) if volume.shortfall().is_some() => {}
        Err(e) => note(program, &format!("{name}: whether changes wait in the log cannot be told: {e}")),
    }
    if let Some(short) = volume.shortfall() {
        let what = "the device is shorter than the filesystem: what lay behind its end cannot be shown";
        note(program, &format!("{name}: {what} ({short})"));
    }
}

/// Arguments of every program that checks a whole filesystem. Flatten it into the program's own.
#[derive(clap::Args, Clone, Debug)]
pub struct CheckArguments {
    /// Only check; write nothing
    #[arg(short = 'n')]
    pub no_modify: bool,
    /// Device or file of an external log; refused for a filesystem with an internal one
    #[arg(short = 'l', value_name = "LOGDEV")]
    pub log: Option<PathBuf>,
    /// Realtime device or file; refused for a filesystem without realtime section
    #[arg(short = 'r', value_name = "RTDEV")]
    pub realtime: Option<PathBuf>,
    /// Say on standard error where the log stands, and of each part of the work how long it took; twice: the geometry too
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What all programs have.
    #[command(flatten)]
    pub common: Common,
    /// Device or image file
    pub device: PathBuf,
}

/// Which mounted filesystems a program looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mounts {
    /// None.
    Refused,
    /// Those that are mounted read-only.
    ReadOnly,
}

/// How a program wants the check to be made.
#[derive(Clone, Copy, Debug)]
pub struct CheckJob {
    /// Which mounted filesystems are looked at.
    pub mounts: Mounts,
    /// Without `-n` a dirty log is recovered on the disk first; else `-n` is demanded.
    pub recovers: bool,
    /// What a refusal says of asking the kernel instead.
    pub instead: &'static str,
    /// Bytes for the block cache, where they are limited.
    pub cache: Option<usize>,
    /// Whether to tell the kernel what will be read soon.
    pub readahead: bool,
    /// Whether quota usage is compared.
    pub quota_usage: bool,
    /// Threads; all cores where not given.
    pub threads: Option<usize>,
    /// A rest between two steps.
    pub pause: Duration,
    /// Time between two lines of progress.
    pub interval: Option<Duration>,
    /// Whether to tell how long each part took, and the memory.
    pub timing: bool,
}

impl Default for CheckJob {
    fn default() -> Self {
        Self {
            mounts: Mounts::Refused,
            recovers: false,
            instead: "",
            cache: None,
            readahead: true,
            quota_usage: true,
            threads: None,
            pause: Duration::ZERO,
            interval: None,
            timing: false,
        }
    }
}

/// The most memory that the process has held, in bytes.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Tells of each part of the work, when the next begins, how long it took.
struct Phases<'a> {
    program: &'a str,
    current: Mutex<Option<(&'static str, Instant)>>,
}

impl Phases<'_> {
    fn next(&self, name: Option<&'static str>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let next = name.map(|n| (n, Instant::now()));
        if let Some((name, since)) = std::mem::replace(&mut *current, next) {
            let memory = peak_memory().map_or(String::new(), |b| format!(", at most {} MiB so far", b >> 20));
            note(self.program, &format!("{name}: {:.3} s{memory}", since.elapsed().as_secs_f64()));
        }
    }
}

impl CheckArguments {
    fn devices(&self) -> Devices {
        Devices { data: self.device.clone(), log: self.log.clone(), realtime: self.realtime.clone() }
    }

    /// Refuses what is in use, but for what the job allows.
    fn refuse_used(volume: &Volume, job: &CheckJob) -> Result<(), Failure> {
        let mut used = volume.in_use().iter();
        let Some((name, by)) = used.find(|(_, by)| job.mounts == Mounts::Refused || by.writable) else {
            return Ok(());
        };
        let way = match job.mounts {
            _ if by.mount.is_none() => "end that",
            Mounts::ReadOnly => "unmount it, or mount it read-only",
            Mounts::Refused => "unmount it",
        };
        let name = escape(name.as_bytes());
        Err(Failure::new(
            "in-use",
            format!(
                "{name} is {by}: what is seen may be inconsistent, so nothing was checked; {way}{instead}",
                instead = job.instead
            ),
        ))
    }

    /// Tells what `-v` asks for.
    fn describe(&self, program: &str, volume: &Volume, control: &Control<'_>) {
        if self.verbose == 0 {
            return;
        }
        let place = |head: crate::units::Lsn| format!("cycle {}, block {}", head.cycle(), head.block());
        match log_state(volume, control) {
            Ok(LogState::Clean { head }) => note(program, &format!("the log is clean, its head at {}", place(head))),
            Ok(LogState::Dirty { head }) => note(program, &format!("the log is dirty, its head at {}", place(head))),
            Ok(LogState::Absent) | Err(_) => {}
        }
        if self.verbose > 1 {
            let name = escape(self.device.as_os_str().as_encoded_bytes());
            for line in GeometryReport::of(&name, &volume.geometry, &volume.superblock).render().lines() {
                note(program, line);
            }
        }
    }

    /// What is checked of a filesystem whose log is dirty: with `-n` what recovery makes of it in memory, if it can do all of it; else what it makes of it
    /// on the disk.
    fn recovered(&self, program: &str, volume: Volume, control: &Control<'_>) -> Result<Volume, Failure> {
        if !self.no_modify {
            drop(volume);
            recover_devices(program, self, control)?;
            return Ok(Volume::open_with(&self.devices(), control)?);
        }
        match recovered_view(program, &volume, control) {
            Ok(view) if view.unfinished.is_none() => Ok(view.volume),
            // Why was told: what is not finished must not be called damage.
            Ok(_) => Ok(volume),
            Err(e @ (Error::Stopped | Error::Io { .. })) => Err(e.into()),
            // The check tells what is wrong with the log.
            Err(_) => Ok(volume),
        }
    }

    /// Checks, prints the outcome as text or JSON, and returns it for the exit code.
    ///
    /// # Errors
    /// Where the devices cannot be opened or are refused, and after Ctrl-C.
    pub fn check(&self, program: &str, job: &CheckJob) -> Result<Outcome, Failure> {
        if !self.no_modify && !job.recovers {
            return Err(Failure::usage("this version only checks: give -n (nothing was written)"));
        }
        watch().map_err(|e| Error::open("signal handlers", e))?;
        let reporter = Reporter::every(self.common.progress, job.interval);
        let tell = |p: &crate::control::Progress| reporter.tell(p);
        let phases = Phases { program, current: Mutex::new(None) };
        let begin = |name: &'static str| phases.next(Some(name));
        let stop = || {
            if !job.pause.is_zero() {
                std::thread::sleep(job.pause);
            }
            interrupted()
        };
        let timing = job.timing || self.verbose > 0;
        let control =
            Control { deadline: None, stop: &stop, progress: Some(&tell), phase: timing.then_some(&begin as _) };
        if self.device.is_dir() {
            // Nothing that could be read, but a mount point deserves to be told of.
            refuse_mount_point(&self.device, job)?;
        }
        let mut volume = Volume::open_with(&self.devices(), &control)?;
        reporter.clear();
        Self::refuse_used(&volume, job)?;
        note_in_use(program, &volume, "");
        self.describe(program, &volume, &control);
        if is_dirty(&volume, &control) {
            volume = self.recovered(program, volume, &control)?;
            reporter.clear();
        }
        if let Some(bytes) = job.cache {
            volume.cache.set_budget(bytes);
        }
        volume.cache.set_readahead(job.readahead);
        let options = check::Options { quota_usage: job.quota_usage };
        let work = || check::check_with(&volume, options, &control);
        let outcome = match job.threads {
            None => work(),
            Some(n) => {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build();
                pool.map_err(|e| Failure::new("failed", format!("threads: {e}")))?.install(work)
            }
        };
        reporter.clear();
        let outcome = outcome?;
        phases.next(None);
        if self.common.json {
            print_json(&outcome).map_err(|e| Error::open("standard output", e))?;
        } else {
            print(&outcome.to_string())?;
        }
        Ok(outcome)
    }
}

/// Where the filesystem is mounted that a directory is in.
fn mount_point(directory: &Path) -> PathBuf {
    let mut point = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let number = |path: &Path| std::fs::metadata(path).map(|m| m.dev()).ok();
    while let Some(above) = point.parent().filter(|above| number(above) == number(&point)) {
        point = above.to_owned();
    }
    point
}

fn refuse_mount_point(path: &Path, job: &CheckJob) -> Result<(), Failure> {
    let name = escape(path.as_os_str().as_encoded_bytes());
    let what = match crate::kernel::Mounted::open(path) {
        Ok(mounted) => {
            let device = escape(mounted.device_name().as_bytes());
            let point = escape(mount_point(path).as_os_str().as_encoded_bytes());
            format!(
                "{device} is mounted on {point}: nothing was checked; unmount it and name {device} instead of {name}"
            )
        }
        Err(_) => return Ok(()),
    };
    Err(Failure::new("in-use", format!("{what}{}", job.instead)))
}
