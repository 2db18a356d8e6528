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
    match args::parse(std::env::args_os().skip(1)).and_then(|a| run::run(&a)) {
        Ok(text) => {
            // A reader that has gone away is no failure of the filesystem that was made.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("xfsr-mkfs: {e:#}");
            ExitCode::FAILURE
        }
    }
}
