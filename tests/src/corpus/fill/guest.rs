//! What only the guest kernel can make: quota owners, realtime files, folded names.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};
use rustix::fs::FallocateFlags;

use super::Filler;

impl Filler {
    pub(super) fn owners(&mut self) -> Result<()> {
        let dir = self.dir("owners")?;
        for (i, id) in [0, 1001, 1002, 5000, 65_000, 3_000_000_000].into_iter().enumerate() {
            for number in 0..5 + i as u64 {
                let path = dir.join(format!("{id}-{number}"));
                fs::write(&path, self.bytes(number * 3000))?;
                std::os::unix::fs::lchown(&path, Some(id), Some(id / 2))?;
            }
            let project = dir.join(format!("project-{i}"));
            fs::create_dir(&project)?;
            crate::oracle::xfs_io(&project, &[format!("chproj {}", 100 + i).as_str(), "chattr +P"])?;
            fs::write(project.join("counted"), self.bytes(20_000))?;
        }
        Ok(())
    }

    pub(super) fn realtime(&mut self) -> Result<()> {
        let dir = self.dir("rt")?;
        crate::oracle::xfs_io(&dir, &["chattr +t"])?;
        let block = self.shape.block;
        for (i, length) in [0, 1, block, 10 * block + 3, 500_000, 3_000_000].into_iter().enumerate() {
            fs::write(dir.join(format!("file-{i}")), self.bytes(length))?;
        }
        let sparse = File::create_new(dir.join("sparse"))?;
        for i in 0..60 {
            sparse.write_all_at(&self.bytes(block), i * 300_000)?;
            sparse.sync_data()?;
        }
        let unwritten = File::create_new(dir.join("unwritten"))?;
        rustix::fs::fallocate(&unwritten, FallocateFlags::empty(), 0, 5 << 20)?;
        unwritten.write_all_at(&self.bytes(5 * block), 1 << 20)?;
        for i in 0..40 {
            fs::write(dir.join(format!("small-{i}")), self.bytes(9000))?;
        }
        for i in (0..40).step_by(3) {
            fs::remove_file(dir.join(format!("small-{i}")))?;
        }
        Ok(())
    }

    pub(super) fn cases(&mut self) -> Result<()> {
        let dir = self.dir("cases")?;
        for name in ["lower", "UPPER", "MiXeD", "with space", "Zz[\\]^_", "na\u{ef}ve", "NA\u{cf}VE2"] {
            fs::write(dir.join(name), name)?;
            let other: String =
                name.chars().map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c }).collect();
            fs::metadata(dir.join(other)).context("the other case of a name")?;
        }
        let many = dir.join("Many");
        fs::create_dir(&many)?;
        for i in 0..2000 {
            fs::hard_link(dir.join("lower"), many.join(format!("Name-{i}-ABCdef")))?;
        }
        Ok(())
    }
}
