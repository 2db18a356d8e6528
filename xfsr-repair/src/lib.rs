//! Offline check of an XFS filesystem; counterpart of xfs_repair.
#![forbid(unsafe_code)]

use clap::{CommandFactory as _, Parser};
use libxfsr::check::Verdict;
use libxfsr::cli::{self, Common, Manual};
use libxfsr::volume::Devices;
use std::path::PathBuf;
use std::process::ExitCode;

/// Checks an unmounted XFS filesystem and says what is wrong with it, and where
#[derive(Parser)]
#[command(name = "xfsr-repair", version)]
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
    /// The device is a regular file. Files are recognised without it; with it, a device is refused.
    #[arg(short = 'f')]
    file: bool,
    #[command(flatten)]
    common: Common,
    /// Device or image file.
    device: PathBuf,
}

fn run(a: &Arguments) -> anyhow::Result<u8> {
    if !a.no_modify {
        anyhow::bail!("this version only checks: give -n (nothing was written)");
    }
    if a.file && !a.device.is_file() {
        anyhow::bail!("-f: {} is not a regular file", a.device.display());
    }
    let devices = Devices { data: a.device.clone(), log: a.log.clone(), realtime: a.realtime.clone() };
    let outcome = cli::check_and_print("xfsr-repair", &devices, &a.common)?;
    Ok(match outcome.verdict() {
        Verdict::Clean => 0,
        Verdict::DirtyLog => 2,
        _ => 1,
    })
}

/// The program's arguments, exit statuses and examples.
pub fn manual() -> Manual {
    let exit = &[
        ("0", "nothing is wrong"),
        ("1", "damage was found, the check or a part of it could not be made, or wrong usage"),
        ("2", "the log is dirty: mount and unmount the filesystem, then check again"),
        ("130", "ended by Ctrl-C"),
    ];
    let examples = &[
        ("xfsr-repair -n disk.img", "check an image with all cores"),
        ("xfsr-repair -n -l /dev/sdb1 /dev/sda1", "check a filesystem whose log is on another device"),
        ("xfsr-repair -n --json /dev/sda1 | jq -r .verdict", "clean, damaged, dirty-log or incomplete"),
    ];
    Manual::new(Arguments::command(), exit, examples)
}

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = match manual().parse::<Arguments>() {
        Ok(a) => a,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(u8::from(e.use_stderr()));
        }
    };
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            cli::note("xfsr-repair", &format!("{e:#}"));
            ExitCode::from(if cli::interrupted() { cli::exit::INTERRUPTED } else { 1 })
        }
    }
}
