//! Chores: `cargo xtask man`, `cargo xtask completions`, `cargo xtask ci`.
#![forbid(unsafe_code)]

mod pages;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Chores of the workspace.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Writes the programs' man pages
    Man {
        /// Where to
        #[arg(default_value = "target/man")]
        directory: PathBuf,
    },
    /// Writes completions for bash, zsh and fish
    Completions {
        /// Where to
        #[arg(default_value = "target/completions")]
        directory: PathBuf,
    },
    /// Runs everything that must pass before a change lands
    Ci,
}

fn run(chore: &Chore) -> Result<()> {
    let files = match chore {
        Chore::Man { directory } => pages::man(directory)?,
        Chore::Completions { directory } => pages::completions(directory)?,
        Chore::Ci => {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/run");
            let status = Command::new(&script).status().with_context(|| script.display().to_string())?;
            ensure!(status.success(), ".ci/run: {status}");
            return Ok(());
        }
    };
    for file in files {
        println!("{}", file.display());
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}
