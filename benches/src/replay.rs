//! Recovering a full log: this library on a copy of the image, and the kernel's mount of another.

use anyhow::{Result, ensure};
use libxfsr::control::Control;
use libxfsr::engine::recover::{Options, Targets, recover};
use libxfsr::target::{Access, FileTarget};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use xfsr_tests::oracle::{Mount, mkfs_xfs, xfs_repair_n};

/// Seconds that each took, median first, and what was recovered.
#[derive(Debug)]
pub struct Replay {
    /// The library, and the kernel.
    pub seconds: (f64, f64),
    /// Transactions that were replayed.
    pub transactions: u64,
    /// Buffers and inodes among their items.
    pub items: u64,
}

/// Makes an image whose log is as full as the kernel lets it become: files are created and named anew until all of it was gone round.
fn dirty(directory: &Path, log_mib: u64) -> Result<PathBuf> {
    let path = directory.join(format!("replay-{log_mib}.img"));
    let _ = std::fs::remove_file(&path);
    std::fs::File::create(&path)?.set_len(16 << 30)?;
    let size = format!("size={log_mib}m");
    mkfs_xfs(&["-l", &size], &path)?;
    let mount = Mount::new(&path, "logbsize=256k")?;
    // A file costs about a KiB of the log.
    let files = log_mib * 1200;
    super::create::mounted(mount.path(), files)?;
    mount.shutdown()?;
    mount.unmount()?;
    Ok(path)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let done = std::process::Command::new("cp").arg("--sparse=always").args([from, to]).status()?;
    ensure!(done.success(), "cp: {done}");
    std::fs::File::open(to)?.sync_all()?;
    Ok(())
}

/// The one in the middle.
pub(crate) fn median(v: &mut [f64]) -> f64 {
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied().unwrap_or_default()
}

/// Both, `rounds` times in turn, each on a fresh copy in the page cache.
pub fn both(directory: &Path, log_mib: u64, rounds: usize) -> Result<Replay> {
    std::fs::create_dir_all(directory)?;
    let image = dirty(directory, log_mib)?;
    let work = directory.join("replay-copy.img");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut transactions, mut items) = (0, 0);
    for _ in 0..rounds.max(1) {
        copy(&image, &work)?;
        let started = Instant::now();
        let data = Arc::new(FileTarget::open(&work, Access::Write)?);
        let done = recover(&Targets { data, log: None, rt: None }, &Options::default(), &Control::none())?;
        ours.push(started.elapsed().as_secs_f64());
        ensure!(!done.clean, "the log was clean");
        (transactions, items) = (done.replayed.transactions, done.replayed.buffers + done.replayed.inodes);
        let v = xfs_repair_n(&work, &[])?;
        ensure!(v.clean(), "{}", v.output);
        copy(&image, &work)?;
        let started = Instant::now();
        let mount = Mount::new(&work, "")?;
        theirs.push(started.elapsed().as_secs_f64());
        mount.unmount()?;
    }
    for path in [image, work] {
        std::fs::remove_file(path)?;
    }
    Ok(Replay { seconds: (median(&mut ours), median(&mut theirs)), transactions, items })
}
