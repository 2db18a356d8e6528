//! The images of the benchmarks: made once by the stock mkfs and the kernel, kept in a directory.

use crate::fill;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::time::Instant;
use xfsr_tests::oracle::{self, Mount};

/// How an image is made. Change `VERSION` when any of it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// So many inodes, 500 to a directory.
    Inodes(u64),
    /// A directory of a million entries and a file of half a million extents.
    Huge,
}

const VERSION: u32 = 1;

impl Image {
    /// Name of the file.
    pub fn name(self) -> String {
        match self {
            Image::Inodes(n) => format!("inodes-{n}.v{VERSION}.img"),
            Image::Huge => format!("huge.v{VERSION}.img"),
        }
    }

    /// Length of the sparse file, and what it takes on the disk at most.
    fn sizes(self) -> (u64, u64) {
        match self {
            // Measured: 1.6 KiB an inode with its share of data, directories and btrees, and the log.
            Image::Inodes(n) => ((8 << 30).max(n * 8192), (2 << 30) + n * 3 * 1024),
            Image::Huge => (16 << 30, 4 << 30),
        }
    }

    fn fill(self, root: &Path) -> Result<()> {
        match self {
            Image::Inodes(n) => fill::many_inodes(root, n, 500, 4),
            Image::Huge => {
                fill::huge_directory(root, 1_000_000)?;
                fill::fragmented_file(root, 500_000, 4096)
            }
        }
    }

    /// The image, built if it is not there yet.
    ///
    /// # Errors
    /// Where the disk is too small, or making, mounting or filling fails.
    pub fn obtain(self) -> Result<PathBuf> {
        let dir = directory();
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let path = dir.join(self.name());
        let _lock = xfsr_tests::FileLock::take(&dir.join(format!("{}.lock", self.name())))?;
        if path.exists() {
            return Ok(path);
        }
        let (length, taken) = self.sizes();
        let disk = rustix::fs::statvfs(&dir)?;
        let free = disk.f_bavail * disk.f_frsize;
        if free < taken + (4 << 30) {
            bail!("{} needs {} GB in {}, which has {} GB", self.name(), taken >> 30, dir.display(), free >> 30);
        }
        let start = Instant::now();
        eprintln!("building {} ...", self.name());
        let new = dir.join(format!("{}.new", self.name()));
        std::fs::File::create(&new)?.set_len(length)?;
        let arguments = ["-m", "rmapbt=1,reflink=1", "-l", "size=512m", "-d", "agcount=8"];
        oracle::mkfs_xfs(&arguments, &new)?;
        let mount = Mount::new(&new, "")?;
        self.fill(mount.path())?;
        mount.unmount()?;
        std::fs::rename(&new, &path)?;
        let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path)?);
        eprintln!("built {} in {:.0} s, {} MB", self.name(), start.elapsed().as_secs_f64(), blocks * 512 / 1_000_000);
        Ok(path)
    }
}

/// Where images and results are kept: `XFSR_BENCH_DIR`, or under cargo's target directory.
pub fn directory() -> PathBuf {
    std::env::var_os("XFSR_BENCH_DIR").map_or_else(|| xfsr_tests::target_dir().join("xfsr-bench"), PathBuf::from)
}
