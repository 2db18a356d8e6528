//! What the tests of the library and of the five programs share: images that the Linux kernel wrote ([`corpus`]), the
//! tools whose verdicts count ([`oracle`]), and a generator of damage ([`damage`]).
//!
//! Everything here needs root, loop devices, a kernel with XFS and xfsprogs. Where one is missing, [`oracle::require`] says so
//! and the test is skipped; with `XFSR_REQUIRE_ORACLES=1` it fails instead.

pub mod ag;
pub mod changing;
pub mod corpus;
pub mod damage;
pub mod fuzz;
pub mod interact;
pub mod memory;
pub mod oracle;
pub mod sample;
pub mod small;
pub mod stress;
pub mod tree;
pub mod view;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};

/// cargo's target directory: `CARGO_TARGET_DIR`, else where this executable lies, else `target` in the workspace.
pub fn target_dir() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR") {
        return workspace.join(dir);
    }
    if let Ok(exe) = std::env::current_exe()
        && let Some(dir) = exe.ancestors().find(|d| d.join("CACHEDIR.TAG").exists())
    {
        return dir.to_path_buf();
    }
    workspace.join("target")
}

/// Runs a command to its end. An exit status that is not 0 is not an error here.
pub fn output<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<Output> {
    Command::new(program).args(args).output().with_context(|| format!("{program} could not be started"))
}

/// Runs a command that has to succeed, and returns what it wrote to its standard output.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String> {
    let out = output(program, args)?;
    if !out.status.success() {
        let args: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy()).collect();
        bail!("{program} {}: {}\n{}", args.join(" "), out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The number in an environment variable.
///
/// # Panics
/// Where it is no number: whoever set it meant something.
pub fn knob(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Err(std::env::VarError::NotPresent) => default,
        set => set.map_or(None, |v| v.parse().ok()).unwrap_or_else(|| panic!("{name} is not a number")),
    }
}

/// How many cases a test has: the number in an environment variable, else `quick`, and with `XFSR_FULL=1` so many times as many.
///
/// # Panics
/// As [`knob`].
pub fn cases(name: &str, quick: u64, times: u64) -> u64 {
    let full = std::env::var_os("XFSR_FULL").is_some_and(|v| v == "1");
    knob(name, if full { quick * times } else { quick })
}

/// Copies a file, keeping its holes, and sharing its blocks where the filesystem below can.
pub fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let options = ["--reflink=auto", "--sparse=always", "--"].map(OsStr::new);
    run("cp", &[&options[..], &[from.as_os_str(), to.as_os_str()]].concat())?;
    Ok(())
}

/// An exclusive lock between processes, held until dropped.
pub struct FileLock(#[expect(dead_code, reason = "held for its lock")] std::fs::File);

impl FileLock {
    /// Waits for the lock on `path`, which is made where it is missing.
    pub fn take(path: &Path) -> Result<FileLock> {
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = file.with_context(|| format!("lock file {}", path.display()))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(FileLock(file))
    }
}
