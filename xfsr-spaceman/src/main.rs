//! Shows the space of an XFS filesystem, unmounted or mounted.
#![forbid(unsafe_code)]

mod args;
mod render;
mod run;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(run::main())
}
