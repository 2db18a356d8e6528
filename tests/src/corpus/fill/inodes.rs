//! Inode chunks: many, with holes, and free inodes.

use std::fs::{self, File};

use anyhow::Result;
use rand::Rng as _;
use rustix::fs::FallocateFlags;

use super::Filler;

impl Filler {
    pub(super) fn churn(&mut self, count: u32) -> Result<()> {
        let dir = self.dir("churn")?;
        for i in 0..count {
            File::create_new(dir.join(format!("f{i}")))?;
        }
        rustix::fs::syncfs(File::open(&dir)?)?;
        // Whole chunks go, and single inodes of others.
        for i in 0..count {
            if (count / 4..count / 2).contains(&i) || self.rng.random_range(0..4) == 0 {
                fs::remove_file(dir.join(format!("f{i}")))?;
            }
        }
        Ok(())
    }

    pub(super) fn sparse_inodes(&mut self) -> Result<()> {
        let dir = self.dir("sparse")?;
        let block = self.shape.block;
        let chunk = 64 * self.shape.inode / block;
        // All free space into one file.
        let file = File::create_new(dir.join("ballast"))?;
        let length = self.all_space(&file)?;
        // Holes too short for a whole chunk, long enough for an aligned half, at all alignments.
        let (hole, stride) = ((chunk - 1) * block, (chunk + chunk / 2 + 1) * block);
        let end = length.min(4000 * stride);
        let punch = |from: u64, to: u64| -> Result<()> {
            for at in (from..to).step_by(stride as usize) {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&file, flags, at, hole)?;
            }
            file.sync_all()?;
            Ok(())
        };
        let middle = end / 2 / stride * stride;
        punch(0, middle)?;
        // What an AG reserves for its btrees is still free in one piece. A second file takes that, and leaves the AGs these holes.
        let second = File::create_new(dir.join("ballast-2"))?;
        self.all_space(&second)?;
        punch(middle, end)?;
        let files = dir.join("files");
        fs::create_dir(&files)?;
        // More than there are free inodes in whole chunks, and than what is reserved for btrees has room for.
        let count = 6500 * (4096 / block).clamp(1, 4);
        let mut made = 0;
        while made < count {
            match File::create_new(files.join(format!("{made}"))) {
                Ok(_) => made += 1,
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) => break,
                Err(e) => return Err(e.into()),
            }
        }
        for i in (0..made).step_by(3) {
            fs::remove_file(files.join(format!("{i}")))?;
        }
        // Most of the space is given back; the fragments at the front stay, so the free space trees are deep.
        file.set_len(end)?;
        fs::remove_file(dir.join("ballast-2"))?;
        file.sync_all()?;
        Ok(())
    }

    /// Preallocates all free space to a file, in steps that get smaller. Returns its length.
    pub(super) fn all_space(&self, file: &File) -> Result<u64> {
        let (mut at, mut step) = (0, 32 << 20);
        while step >= self.shape.block {
            match rustix::fs::fallocate(file, FallocateFlags::empty(), at, step) {
                Ok(()) => at += step,
                Err(rustix::io::Errno::NOSPC) => step /= 2,
                Err(e) => return Err(e.into()),
            }
        }
        file.sync_all()?;
        Ok(at)
    }
}
