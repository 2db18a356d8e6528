//! Files that share blocks.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;

use anyhow::Result;
use rustix::fs::FallocateFlags;

use super::{Filler, share};

impl Filler {
    pub(super) fn reflink(&mut self) -> Result<()> {
        let dir = self.dir("reflink")?;
        let block = self.shape.block;
        let original = dir.join("original");
        fs::write(&original, self.bytes(60 * block))?;
        File::open(&original)?.sync_all()?;
        let clone = |name: &str| -> Result<File> {
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(dir.join(name))?;
            rustix::fs::ioctl_ficlone(&file, &File::open(&original)?)?;
            Ok(file)
        };
        for i in 0..5 {
            clone(&format!("clone-{i}"))?;
        }
        let cowed = clone("cowed")?;
        for i in 0..8 {
            cowed.write_all_at(&self.bytes(block), i * 7 * block)?;
            cowed.sync_all()?;
        }
        let punched = clone("punched")?;
        for i in 0..5 {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&punched, punch, (i * 10 + 3) * block, 2 * block)?;
        }
        let unshared = clone("unshared")?;
        rustix::fs::fallocate(&unshared, FallocateFlags::UNSHARE_RANGE, 10 * block, 20 * block)?;
        let hinted = clone("hinted")?;
        crate::oracle::xfs_io(&dir.join("hinted"), &["cowextsize 256k"])?;
        hinted.write_all_at(&self.bytes(block), 30 * block)?;
        hinted.sync_all()?;
        // Shared with itself.
        let own = clone("with-itself")?;
        rustix::fs::ftruncate(&own, 120 * block)?;
        share(&own, 0, &own, 70 * block, 20 * block)?;
        Ok(())
    }

    /// Single blocks of one file, every other one, shared with a second file: as many refcount and rmap records.
    pub(super) fn shared(&mut self, count: u32) -> Result<()> {
        let dir = self.dir("shared")?;
        let block = self.shape.block;
        let data = self.bytes(block);
        let source = OpenOptions::new().read(true).write(true).create_new(true).open(dir.join("source"))?;
        for i in 0..u64::from(count) * 2 {
            source.write_all_at(&data, i * block)?;
        }
        source.sync_all()?;
        let other = File::create_new(dir.join("other"))?;
        for i in 0..u64::from(count) {
            share(&source, 2 * i * block, &other, 3 * i * block, block)?;
            if i % 256 == 255 {
                other.sync_all()?;
            }
        }
        Ok(())
    }

    /// Whole files, ranges, and a file in many extents against one in few.
    pub(super) fn exchange(&mut self) -> Result<()> {
        let dir = self.dir("exchange")?;
        let block = self.shape.block;
        let make = |name: &str, data: &[u8]| -> Result<File> {
            let path = dir.join(name);
            fs::write(&path, data)?;
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            file.sync_all()?;
            Ok(file)
        };
        let swap = libxfsr::kernel::exchange_range;
        let (first, second) = (self.bytes(30 * block), self.bytes(30 * block));
        let whole = (make("whole-1", &first)?, make("whole-2", &second)?);
        swap((&whole.0, 0), (&whole.1, 0), 30 * block)?;
        let part = (make("part-1", &first)?, make("part-2", &second)?);
        swap((&part.0, 3 * block), (&part.1, 11 * block), 7 * block)?;
        let many = make("many-extents", b"")?;
        for i in 0..40 {
            many.write_all_at(&first[..block as usize], i * 2 * block)?;
            many.sync_all()?;
        }
        let few = make("few-extents", &self.bytes(80 * block))?;
        many.set_len(80 * block)?;
        swap((&many, 0), (&few, 0), 80 * block)?;
        let read = |name: &str| fs::read(dir.join(name));
        anyhow::ensure!(read("whole-1")? == second && read("whole-2")? == first, "nothing was exchanged");
        Ok(())
    }

    /// Writes to a clone with a large hint for copies: space is staged for more than is written.
    pub(in super::super) fn stage_copies(&mut self) -> Result<()> {
        let dir = self.dir("staged")?;
        let block = self.shape.block;
        let original = dir.join("original");
        fs::write(&original, self.bytes(200 * block))?;
        File::open(&original)?.sync_all()?;
        for i in 0..4 {
            let path = dir.join(format!("clone-{i}"));
            let clone = File::create_new(&path)?;
            rustix::fs::ioctl_ficlone(&clone, &File::open(&original)?)?;
            crate::oracle::xfs_io(&path, &[format!("cowextsize {}", 64 * block)])?;
            clone.write_all_at(&self.bytes(block), (20 + i * 30) * block)?;
            clone.sync_all()?;
        }
        Ok(())
    }
}
