//! Runs the benchmarks: `cargo run --release -p xfsr-benches -- [CASE...]`.

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use xfsr_benches::cases::{self, Case, Settings};
use xfsr_benches::{create, images, phases, populate, replay};
use xfsr_tests::oracle;

/// Times our release programs and the stock ones in turn, on images that the kernel filled.
///
/// Needs root, loop devices, a kernel with XFS, and xfsprogs. Images and results.json are kept in XFSR_BENCH_DIR (else
/// target/xfsr-bench). Exit status: 0 all that is demanded holds, 1 something does not, 2 it could not be measured.
#[derive(Parser)]
#[command(name = "xfsr-benches", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Internal>,
    /// Cases; all without any.
    cases: Vec<Case>,
    /// Runs of each program that count.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Growth up to 5,000,000 inodes: builds an image of about 10 GB, which takes long.
    #[arg(long)]
    soak: bool,
    /// Keep that image.
    #[arg(long)]
    keep: bool,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Internal {
    /// Check an image in this process and print what each phase took
    #[command(hide = true)]
    Phases { image: PathBuf },
    /// Create files through the library on one new image and through the kernel on another, and print files a second
    Create { files: u64 },
    /// Copy a tree of so many MiB into a new image by xfsr-mkfs -p, and by mkfs.xfs, mount, cp -a and unmount; medians of --rounds runs
    Populate {
        mib: u64,
        /// Runs of each
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// Recover a full log of so many MiB by the library and by the kernel's mount, and print the medians of --rounds runs
    Replay {
        log_mib: u64,
        /// Runs of each
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
}

fn run(a: &Arguments) -> Result<bool> {
    if let Some(Internal::Phases { image }) = &a.command {
        println!("{}", serde_json::to_string(&phases::here(image)?)?);
        return Ok(true);
    }
    if let Some(Internal::Create { files }) = &a.command {
        let (ours, kernel) = create::both(&images::directory(), *files)?;
        println!("library {ours:.0} files/s, kernel {kernel:.0} files/s");
        return Ok(ours >= kernel);
    }
    if let Some(Internal::Populate { mib, rounds }) = &a.command {
        let mkfs = cases::programs()?.join("xfsr-mkfs");
        let (ours, kernel) = populate::both(&images::directory(), &mkfs, *mib, *rounds)?;
        println!("xfsr-mkfs -p {ours:.2} s, mkfs.xfs + mount + cp -a + umount {kernel:.2} s");
        return Ok(ours < kernel);
    }
    if let Some(Internal::Replay { log_mib, rounds }) = &a.command {
        let r = replay::both(&images::directory(), *log_mib, *rounds)?;
        let (ours, kernel) = r.seconds;
        println!(
            "library {ours:.3} s, kernel's mount {kernel:.3} s ({} transactions, {} items)",
            r.transactions, r.items
        );
        return Ok(ours <= kernel);
    }
    if oracle::require(oracle::MOUNT).is_none() {
        anyhow::bail!("nothing was measured");
    }
    let settings = Settings { rounds: a.rounds, soak: a.soak, keep: a.keep, programs: cases::programs()? };
    let chosen = if a.cases.is_empty() { Case::value_variants() } else { &a.cases };
    let mut results = Vec::new();
    for case in chosen {
        let result = case.run(&settings)?;
        if !a.json {
            println!("{result}");
        }
        results.push(result);
    }
    let json = serde_json::to_string_pretty(&results)?;
    std::fs::create_dir_all(images::directory())?;
    std::fs::write(images::directory().join("results.json"), &json)?;
    if a.json {
        println!("{json}");
    }
    Ok(results.iter().all(|r| r.pass()))
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(e) => {
            eprintln!("xfsr-benches: {e:#}");
            ExitCode::from(2)
        }
    }
}
