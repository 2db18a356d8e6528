//! Directories in every form.

use std::fs::{self, File};

use anyhow::Result;
use rustix::fs::FallocateFlags;

use super::{Filler, remove};

impl Filler {
    pub(super) fn directories(&mut self) -> Result<()> {
        let base = self.dir("dirs")?;
        let block = self.shape.directory as usize;
        // Entries of 20-byte names take 32 bytes and 8 of hash, so these counts give a single block, a single leaf, a node.
        let forms = [("short", 4), ("block", block * 6 / 10 / 40), ("leaf", block * 3 / 40), ("node", block / 8 * 2)];
        fs::create_dir(base.join("empty"))?;
        for (form, count) in forms {
            let dir = base.join(form);
            fs::create_dir(&dir)?;
            self.entries(&dir, count, if form == "short" { 8 } else { 20 })?;
            // The same, then a run in the middle is removed, so that whole data blocks go, and then some single entries.
            let holes = base.join(format!("{form}-holes"));
            fs::create_dir(&holes)?;
            let all = self.entries(&holes, count, if form == "short" { 8 } else { 20 })?;
            let middle = all.len() / 4..all.len() * 3 / 4;
            for (i, path) in all.iter().enumerate() {
                if middle.contains(&i) || i % 5 == 3 {
                    remove(path)?;
                }
            }
        }
        // Once large and then almost emptied: blocks and leaves are given back.
        let shrunk = base.join("shrunk");
        fs::create_dir(&shrunk)?;
        for (i, path) in self.entries(&shrunk, block / 8 * 2, 30)?.iter().enumerate() {
            if i % 97 != 0 {
                remove(path)?;
            }
        }
        let mut deep = base.join("deep");
        for level in 0..40 {
            deep.push(format!("level-{level}"));
        }
        fs::create_dir_all(deep)?;
        Ok(())
    }

    pub(super) fn fragmented_directories(&mut self) -> Result<()> {
        let base = self.dir("dirs-btree")?;
        // Two directories that grow in turn take blocks in turn, so their extents do not join.
        let (first, second, filler) = (base.join("first"), base.join("second-holes"), base.join("filler"));
        let inline = (self.shape.inline() / 16 + 3) as usize;
        let per_block = self.shape.directory as usize / 224;
        let target = base.join("target");
        fs::write(&target, b"linked very often")?;
        for dir in [&first, &second] {
            fs::create_dir(dir)?;
        }
        let mut all = Vec::new();
        let spacer = File::create(filler)?;
        for i in 0..(inline * 2 + 4) * per_block.max(1) {
            for dir in [&first, &second] {
                let path = dir.join(self.name(i, 200));
                fs::hard_link(&target, &path)?;
                if dir == &second {
                    all.push(path);
                }
            }
            if i % per_block.max(1) == 0 {
                // A block of somebody else's in between.
                let at = (i / per_block.max(1)) as u64 * 2 * self.shape.block;
                rustix::fs::fallocate(&spacer, FallocateFlags::empty(), at, self.shape.block)?;
            }
        }
        let middle = all.len() / 3..all.len() / 2;
        for path in &all[middle] {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    pub(super) fn big_directory(&mut self, count: u32, length: u32) -> Result<()> {
        let dir = self.dir("big")?;
        self.entries(&dir, count as usize, length as usize)?;
        Ok(())
    }
}
