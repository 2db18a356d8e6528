//! Shows the space of an XFS filesystem, unmounted or mounted.
#![forbid(unsafe_code)]

mod args;
mod render;
mod run;

use libxfsr::cli::Manual;
use std::process::ExitCode;

/// The program's arguments, exit statuses and examples.
pub fn manual() -> Manual {
    args::manual()
}

/// Runs the program.
pub fn main() -> ExitCode {
    ExitCode::from(run::main())
}
