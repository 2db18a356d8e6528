//! Check of an XFS filesystem; counterpart of xfs_scrub.
#![forbid(unsafe_code)]

use clap::{CommandFactory as _, Parser};
use libxfsr::check::Verdict;
use libxfsr::cli::{self, Common, Manual};
use libxfsr::error::Severity;
use libxfsr::target::{Access, FileTarget, InUse};
use libxfsr::volume::Devices;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Checks an unmounted XFS filesystem, with the exit statuses of xfs_scrub
#[derive(Parser)]
#[command(name = "xfsr-scrub", version)]
struct Arguments {
    /// Only check; write nothing.
    #[arg(short = 'n')]
    no_modify: bool,
    /// Device or file of an external log.
    #[arg(short = 'l', value_name = "LOGDEV")]
    log: Option<PathBuf>,
    /// Realtime device or file.
    #[arg(short = 'r', value_name = "RTDEV")]
    realtime: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    /// Device or image file.
    device: PathBuf,
}

fn escape(path: &Path) -> String {
    libxfsr::text::escape(path.as_os_str().as_encoded_bytes())
}

/// By whom the device, image or directory is used.
fn in_use(path: &Path) -> Option<InUse> {
    if path.is_dir() {
        let by = |_| InUse { device: path.to_owned(), mount: Some(path.to_owned()) };
        return libxfsr::kernel::Mounted::open(path).ok().map(by);
    }
    FileTarget::open(path, Access::Read).ok()?.in_use().cloned()
}

fn run(a: &Arguments) -> anyhow::Result<u8> {
    let used = |path: &PathBuf| in_use(path).map(|by| (path.clone(), by));
    if let Some((path, by)) =
        [Some(&a.device), a.log.as_ref(), a.realtime.as_ref()].into_iter().flatten().find_map(used)
    {
        anyhow::bail!(
            "{} is {by}: this version checks unmounted filesystems only, and what is seen under a mount may be \
             inconsistent; unmount it, or ask the kernel with xfs_scrub -n (nothing was checked)",
            escape(&path)
        );
    }
    let devices = Devices { data: a.device.clone(), log: a.log.clone(), realtime: a.realtime.clone() };
    let outcome = cli::check_and_print("xfsr-scrub", &devices, &a.common)?;
    let mut code = u8::from(outcome.verdict() == Verdict::Damaged);
    code |= if outcome.count(Severity::Preen) > 0 { 2 } else { 0 };
    code |= if outcome.dirty_log || outcome.is_incomplete() { 4 } else { 0 };
    Ok(code)
}

/// The program's arguments, exit statuses and examples.
pub fn manual() -> Manual {
    let exit = &[
        ("0", "nothing is wrong; else a sum of the following"),
        ("1", "damage was found and left"),
        ("2", "something could be optimised"),
        ("4", "the check or a part of it could not be made: an error, a dirty log, a mounted filesystem"),
        ("8", "wrong usage"),
        ("130", "ended by Ctrl-C"),
    ];
    let examples = &[
        ("xfsr-scrub -n /dev/sda1", "check an unmounted device"),
        ("xfsr-scrub -n --progress=json disk.img", "tell the progress as JSON lines on standard error"),
    ];
    Manual::new(Arguments::command(), exit, examples)
}

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = match manual().parse::<Arguments>() {
        Ok(a) => a,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 8 } else { 0 });
        }
    };
    if !arguments.no_modify {
        eprintln!("xfsr-scrub: this version only checks: give -n (nothing was written)");
        return ExitCode::from(8);
    }
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            cli::note("xfsr-scrub", &format!("{e:#}"));
            ExitCode::from(if cli::interrupted() { cli::exit::INTERRUPTED } else { 4 })
        }
    }
}
