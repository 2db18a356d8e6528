//! Makes XFS filesystems, with the options of mkfs.xfs.
#![forbid(unsafe_code)]

mod args;
mod command;
mod config;
mod run;
mod values;

pub use command::manual;
use std::process::ExitCode;

/// Runs the program.
pub fn main() -> ExitCode {
    let done = args::parse(std::env::args_os().skip(1)).and_then(|a| run::run(&a));
    match done.and_then(|text| Ok(libxfsr::cli::print(&text)?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xfsr-mkfs: {e:#}");
            ExitCode::FAILURE
        }
    }
}
