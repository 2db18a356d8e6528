//! Makes XFS filesystems, with the options of mkfs.xfs.
#![forbid(unsafe_code)]

mod args;
mod command;
mod config;
mod contents;
mod run;
mod values;

pub use command::manual;
use libxfsr::cli::{ExitCodes, Failure, wants_json};
use std::process::ExitCode;

const PROGRAM: &str = "xfsr-mkfs";
const CODES: ExitCodes = ExitCodes { usage: 1, failed: 1 };

/// Runs the program.
pub fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)).and_then(|a| run::run(&a)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => ExitCode::from(failure(&e).report(PROGRAM, wants_json(), CODES)),
    }
}

/// What went wrong, with all that was put in front of it.
fn failure(error: &anyhow::Error) -> Failure {
    let of = |cause: &(dyn std::error::Error + 'static)| {
        let library = cause.downcast_ref::<libxfsr::Error>().map(Failure::from);
        library.or_else(|| cause.downcast_ref::<Failure>().cloned())
    };
    let kind = error.chain().find_map(of).map_or("usage", |f| f.kind());
    Failure::new(kind, format!("{error:#}"))
}
