//! Offline recovery and check of an XFS filesystem; counterpart of xfs_repair.
#![forbid(unsafe_code)]

use clap::{CommandFactory as _, Parser};
use libxfsr::check::Verdict;
use libxfsr::cli::{self, CheckArguments, CheckJob, ExitCodes, Failure, Manual, Mounts};
use std::process::ExitCode;
use std::time::Duration;

const PROGRAM: &str = "xfsr-repair";
const CODES: ExitCodes = ExitCodes { usage: 1, failed: 1 };

/// Recovers the log of an unmounted XFS filesystem, checks it and says what is wrong with it, and where
///
/// Without -n a dirty log is replayed onto the disk first, and what a crash cut off is done to its end, as a mount would; then the filesystem is checked. Damage is
/// not repaired yet. With -n nothing is written: a filesystem with a dirty log is checked as it is after its recovery, in memory.
///
/// A filesystem that is mounted writable is refused: while it changes, what is read from its device is partly old, and the check would
/// report damage that is not there. One that is mounted read-only is checked, with a warning. Options of xfs_repair that only a
/// repair could honour are refused.
#[derive(Parser)]
#[command(name = PROGRAM, version)]
struct Arguments {
    #[command(flatten)]
    check: CheckArguments,
    /// The device is a regular file. Files are recognised without it; with it, a device is refused
    #[arg(short = 'f')]
    file: bool,
    /// Would repair a filesystem that is mounted read-only. Nothing is repaired yet, and with -n such a filesystem is checked anyway
    #[arg(short = 'd')]
    dangerous: bool,
    /// Do not tell the kernel what will be read soon
    #[arg(short = 'P')]
    no_prefetch: bool,
    /// MiB for the block cache, 32 without this option. What must be held of the filesystem comes on top; where it exceeds this number,
    /// that is said
    #[arg(short = 'm', value_name = "MAXMEM", value_parser = clap::value_parser!(u32).range(1..))]
    memory: Option<u32>,
    /// noquota: do not compare the usage that quota files claim. force_geometry: go on where the geometry cannot be confirmed by a copy
    /// of the superblock, as is always done with -n. bhash=N: at most 8 * N blocks in the cache
    #[arg(short = 'o', value_name = "SUBOPTION", value_delimiter = ',')]
    overrides: Vec<String>,
    /// Seconds between two lines of progress, which are then written where standard error is no terminal, too
    #[arg(short = 't', value_name = "INTERVAL", value_parser = clap::value_parser!(u32).range(1..))]
    interval: Option<u32>,
    /// Would tell by the exit status that something was repaired: refused, as nothing is
    #[arg(short = 'e')]
    tell_repaired: bool,
    /// Would throw the changes in the log away: refused, as they are replayed
    #[arg(short = 'L')]
    zero_log: bool,
    /// Would change the filesystem: refused
    #[arg(short = 'c', value_name = "SUBOPTION")]
    change: Option<String>,
}

/// What `-o` overrides.
#[derive(Debug, Default)]
struct Overrides {
    no_quota: bool,
    cache: Option<u64>,
}

fn overrides(list: &[String]) -> Result<Overrides, Failure> {
    let mut all = Overrides::default();
    for text in list {
        let (name, value) = text.split_once('=').map_or((text.as_str(), None), |(n, v)| (n, Some(v)));
        match (name, value) {
            ("noquota", None) => all.no_quota = true,
            ("force_geometry", None) => {}
            ("bhash", Some(n)) => {
                let entries = n.parse::<u64>().ok().filter(|n| *n > 0).and_then(|n| n.checked_mul(8 * 4096));
                all.cache = Some(entries.ok_or_else(|| {
                    Failure::usage(format!("-o {text} is not possible: it must be a number from 1 on"))
                })?);
            }
            ("ag_stride", _) => {
                return Err(Failure::usage(
                    "-o ag_stride is refused: allocation groups are always worked on by all cores",
                ));
            }
            _ => {
                let text = libxfsr::text::escape(text.as_bytes());
                return Err(Failure::usage(format!(
                    "-o {text} is not possible: it takes noquota, force_geometry and bhash=N"
                )));
            }
        }
    }
    Ok(all)
}

fn run(a: &Arguments) -> Result<u8, Failure> {
    let refused = [(a.tell_repaired, "-e"), (a.change.is_some(), "-c")];
    if let Some((_, option)) = refused.iter().find(|r| r.0) {
        let what = "this version replays a log and checks, so nothing else can be changed";
        return Err(Failure::usage(format!("{option} is refused: {what}")));
    }
    if a.zero_log {
        let what = "the changes in the log would be lost; without -L they are replayed, with -n shown";
        return Err(Failure::usage(format!("-L is refused: {what}")));
    }
    if a.file && !a.check.device.is_file() {
        let name = libxfsr::text::escape(a.check.device.as_os_str().as_encoded_bytes());
        return Err(Failure::usage(format!("-f: {name} is not a regular file")));
    }
    let o = overrides(&a.overrides)?;
    let limit = a.memory.map(|m| u64::from(m) << 20);
    let most = libxfsr::volume::DEFAULT_CACHE as u64;
    let job = CheckJob {
        mounts: if a.check.no_modify { Mounts::ReadOnly } else { Mounts::Refused },
        recovers: true,
        instead: ", or ask the kernel with xfs_scrub -n",
        cache: [limit, o.cache].into_iter().flatten().min().map(|b| b.min(most) as usize),
        readahead: !a.no_prefetch,
        quota_usage: !o.no_quota,
        interval: a.interval.map(|s| Duration::from_secs(s.into())),
        ..CheckJob::default()
    };
    let outcome = a.check.check(PROGRAM, &job)?;
    if let (Some(limit), Some(peak)) = (limit, cli::peak_memory())
        && peak > limit
    {
        cli::note(PROGRAM, &format!("-m {}: the check needed {} MiB", limit >> 20, peak.div_ceil(1 << 20)));
    }
    if !a.check.no_modify && outcome.verdict() == Verdict::Damaged {
        cli::note(PROGRAM, "damage is not repaired yet: it was only found");
    }
    Ok(match outcome.verdict() {
        Verdict::Clean => 0,
        Verdict::DirtyLog => 2,
        _ => 1,
    })
}

/// The program's arguments, exit statuses and examples.
pub fn manual() -> Manual {
    let exit = &[
        ("0", "nothing is wrong; of a filesystem that is mounted read-only: as far as can be told"),
        (
            "1",
            "damage was found (and left), the check or a part of it could not be made (a filesystem that is mounted writable, a log that cannot be recovered on the disk), or wrong usage",
        ),
        (
            "2",
            "with -n: the log is dirty and could not be recovered in memory to the end, so the filesystem was not checked; what is missing is told",
        ),
        ("130", "ended by Ctrl-C"),
    ];
    let examples = &[
        ("xfsr-repair disk.img", "replay the log if it is dirty, as a mount would, and check"),
        ("xfsr-repair -n disk.img", "check an image with all cores"),
        ("xfsr-repair -n -l /dev/sdb1 /dev/sda1", "check a filesystem whose log is on another device"),
        ("xfsr-repair -n --json /dev/sda1 | jq -r .verdict", "clean, damaged, dirty-log or incomplete"),
    ];
    Manual::new(Arguments::command(), exit, examples)
}

/// Runs the program.
pub fn main() -> ExitCode {
    cli::run(&manual(), CODES, run)
}
