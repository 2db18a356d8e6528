//! Offline check of an XFS filesystem; counterpart of xfs_repair.
#![forbid(unsafe_code)]

use clap::Parser;
use libxfsr::cli::{self, Common};
use libxfsr::volume::Devices;
use std::path::PathBuf;
use std::process::ExitCode;

/// Checks an unmounted XFS filesystem and says what is wrong with it, and where.
///
/// Exit status with -n: 0 clean, 1 damaged (or the check could not be made), 2 the log is dirty and was not replayed.
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
    Ok(match () {
        () if outcome.is_damaged() => 1,
        () if outcome.dirty_log => 2,
        () => 0,
    })
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            cli::note("xfsr-repair", &format!("{e:#}"));
            ExitCode::from(if cli::interrupted() { cli::exit::INTERRUPTED } else { 1 })
        }
    }
}
