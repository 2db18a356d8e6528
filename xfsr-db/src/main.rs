//! Looks inside an XFS filesystem.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod field;
mod fields;
mod location;
mod out;
mod session;

fn main() -> std::process::ExitCode {
    cli::main()
}
