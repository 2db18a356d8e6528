//! Regular files: sparse, preallocated, in many extents.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::Result;
use rustix::fs::FallocateFlags;

use super::Filler;

impl Filler {
    pub(super) fn files(&mut self) -> Result<()> {
        let dir = self.dir("files")?;
        let block = self.shape.block;
        for (name, length) in [
            ("empty", 0),
            ("one", 1),
            ("block", block),
            ("block+1", block + 1),
            ("block-1", block - 1),
            ("large", 777_777),
        ] {
            fs::write(dir.join(name), self.bytes(length))?;
        }
        let make = |name: &str| File::create_new(dir.join(name));
        let hole = make("only-hole")?;
        hole.set_len(10 * block + 5)?;
        let unwritten = make("unwritten")?;
        rustix::fs::fallocate(&unwritten, FallocateFlags::empty(), 0, 40 * block)?;
        unwritten.write_all_at(&self.bytes(block), 7 * block)?;
        let beyond = make("beyond-eof")?;
        beyond.write_all_at(&self.bytes(3 * block + 17), 0)?;
        rustix::fs::fallocate(&beyond, FallocateFlags::KEEP_SIZE, 0, 64 * block)?;
        let sparse = make("sparse")?;
        for i in 0..12 {
            sparse.write_all_at(&self.bytes(block * 3 / 2), i * 5 * block)?;
        }
        let truncated = make("truncated")?;
        truncated.write_all_at(&self.bytes(9 * block), 0)?;
        truncated.set_len(4 * block + 1)?;
        let far = make("far")?;
        far.write_all_at(b"far away", 1 << 42)?;
        let collapsed = make("collapsed")?;
        collapsed.write_all_at(&self.bytes(20 * block), 0)?;
        rustix::fs::fallocate(&collapsed, FallocateFlags::COLLAPSE_RANGE, 5 * block, 3 * block)?;
        rustix::fs::fallocate(&collapsed, FallocateFlags::INSERT_RANGE, 2 * block, 4 * block)?;
        rustix::fs::fallocate(&collapsed, FallocateFlags::ZERO_RANGE, 9 * block, 2 * block)?;
        // Just more extents than fit into the inode, written and unwritten in turn.
        self.extents_at(&dir.join("btree-small"), (self.shape.inline() / 16 + 20) as u32)
    }

    pub(super) fn extents(&mut self, count: u32) -> Result<()> {
        let path = self.dir("files")?.join("btree-large");
        self.extents_at(&path, count)
    }

    /// A file of at least `count` extents: every other block of a preallocated range is punched out, and some are written.
    pub(super) fn extents_at(&mut self, path: &Path, count: u32) -> Result<()> {
        let block = self.shape.block;
        let file = File::create_new(path)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, u64::from(count) * 2 * block)?;
        let written = self.bytes(block);
        for i in 0..u64::from(count) {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, punch, (2 * i + 1) * block, block)?;
            if i % 16 == 5 {
                file.write_all_at(&written, 2 * i * block)?;
            }
            if i % 1024 == 1023 {
                file.sync_all()?;
            }
        }
        file.sync_all()?;
        Ok(())
    }
}
