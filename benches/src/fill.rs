//! Fills mounted filesystems, fast and the same way each time. Threads each fill directories of their own, in a fixed order.

use anyhow::{Context as _, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, XattrFlags};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

fn directory(root: &Path, name: &str) -> Result<OwnedFd> {
    let path = root.join(name);
    std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
    Ok(rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?)
}

fn create(dir: impl AsFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
    Ok(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644))?)
}

/// Makes `inodes` inodes in all, in directories of `per_directory` (the directory counted with them): empty files, every fourth
/// with a block of data, every sixteenth sharing a block with the directory's template, every 64th with an extended attribute,
/// every 32nd a symbolic link.
///
/// # Errors
/// What the kernel says.
pub fn many_inodes(root: &Path, inodes: u64, per_directory: u64, threads: u64) -> Result<()> {
    // The root directory and what mkfs makes are few; the count is that of what is added here.
    let directories = inodes.div_ceil(per_directory);
    let next = AtomicU64::new(0);
    std::thread::scope(|s| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                s.spawn(|| -> Result<()> {
                    loop {
                        let d = next.fetch_add(1, Ordering::Relaxed);
                        if d >= directories {
                            return Ok(());
                        }
                        let count = per_directory.min(inodes - d * per_directory);
                        one_directory(root, d, count.saturating_sub(1))?;
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|w| w.join().map_err(|_| anyhow::anyhow!("a filling thread panicked"))?)
    })
}

fn one_directory(root: &Path, number: u64, files: u64) -> Result<()> {
    let dir = directory(root, &format!("directory-{number:05}"))?;
    let block = [b'x'; 4096];
    let mut template: Option<OwnedFd> = None;
    for n in 0..files {
        let name = format!("file-{n:06}");
        if n % 32 == 31 {
            rustix::fs::symlinkat(format!("../directory-00000/{name}"), &dir, name.as_str())?;
            continue;
        }
        if n % 4 != 0 {
            rustix::fs::mknodat(&dir, name.as_str(), rustix::fs::FileType::RegularFile, Mode::from_raw_mode(0o644), 0)?;
            continue;
        }
        let file = create(&dir, &name)?;
        match &template {
            Some(t) if n % 16 == 0 => rustix::fs::ioctl_ficlone(&file, t)?,
            _ => {
                rustix::io::pwrite(&file, &block, 0)?;
            }
        }
        if n % 64 == 0 {
            rustix::fs::fsetxattr(&file, "user.note", b"an attribute", XattrFlags::empty())?;
        }
        if template.is_none() {
            rustix::fs::fsync(&file)?;
            template = Some(file);
        }
    }
    Ok(())
}

/// One directory with that many entries, each an empty file of its own.
///
/// # Errors
/// What the kernel says.
pub fn huge_directory(root: &Path, entries: u64) -> Result<()> {
    let dir = directory(root, "huge")?;
    let mode = Mode::from_raw_mode(0o644);
    for n in 0..entries {
        rustix::fs::mknodat(&dir, format!("entry-{n:09}").as_str(), rustix::fs::FileType::RegularFile, mode, 0)?;
    }
    Ok(())
}

/// One file with that many extents: allocated in one go, then every second block punched out.
///
/// # Errors
/// What the kernel says.
pub fn fragmented_file(root: &Path, extents: u64, block_size: u64) -> Result<()> {
    let dir = rustix::fs::openat(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let file = create(&dir, "fragmented")?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 2 * extents * block_size)?;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    for n in 0..extents {
        rustix::fs::fallocate(&file, flags, (2 * n + 1) * block_size, block_size)?;
    }
    rustix::fs::statat(&dir, "fragmented", AtFlags::empty())?;
    Ok(())
}
