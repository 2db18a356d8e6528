//! Looks inside an XFS filesystem.
#![forbid(unsafe_code)]

mod bits;
#[cfg(test)]
mod blows;
mod cli;
mod commands;
mod field;
mod fields;
mod location;
mod out;
mod restore;
mod session;
mod writing;

/// The program's arguments, exit statuses and examples.
pub fn manual() -> libxfsr::cli::Manual {
    cli::manual()
}

/// Runs the program.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
