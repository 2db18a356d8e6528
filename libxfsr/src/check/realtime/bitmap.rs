//! The bitmap of free realtime extents and its summary: each against what files own, and against each other.

use super::Section;
use super::owners::Used;
use crate::cache::{BlockRead, OnDamage, Want};
use crate::error::{Corruption, Error, ForkKind, Rule, Severity};
use crate::format::BlockType;
use crate::format::btree::Extent;
use crate::format::inode::{Flags, Format};
use crate::format::realtime::{Words, block_types, extents_per_block, summary_index, words_per_block};
use crate::inode::Inode;
use crate::units::{FileBlock, FsBlock, Ino, to_usize};

/// What the bitmap says.
pub(super) struct Bitmap {
    /// Free realtime extents.
    pub(super) free: u64,
    /// Counters of the summary as the bitmap makes them; only those that are not zero.
    counters: std::collections::BTreeMap<u64, u32>,
}

/// A file whose blocks are bitmap or summary.
struct Words32<'a> {
    section: &'a Section<'a>,
    ino: Ino,
    kind: &'static BlockType,
    extents: Vec<Extent>,
}

impl Words32<'_> {
    fn bad(&self, field: &'static str, rule: Rule, block: Option<u64>) -> Box<Corruption> {
        let name = self.kind.name.trim_end_matches("-bare");
        Corruption::new(name, field, rule).in_inode(self.ino).in_fork(ForkKind::Data, block.map(FileBlock))
    }

    /// How many of the first `blocks` blocks may be looked at: a map that leads on and on in a damaged file is not followed.
    fn mapped(&self, blocks: u64) -> u64 {
        let end = self.extents.last().map_or(0, |e| e.offset.saturating_add(e.count));
        blocks.min(end).min(self.section.volume.geometry.blocks)
    }

    /// Block `at` of the file; none where it cannot be used, which is then told.
    fn block(&self, at: u64) -> Option<BlockRead> {
        let i = self.extents.partition_point(|e| e.offset <= at).checked_sub(1)?;
        let e = self.extents.get(i).filter(|e| at - e.offset < e.count)?;
        let fsb = FsBlock(e.start.checked_add(at - e.offset)?);
        let found = self.section.found;
        let want = Want::new(self.kind, OnDamage::Keep).owned_by(self.ino);
        let read = found.go_on().and_then(|()| self.section.volume.block(fsb, &want));
        found.usable(read, &|field, rule| self.bad(field, rule, Some(at)))
    }
}

/// Walks what files use beside what the bitmap says, both ascending.
struct Compare<'a> {
    section: &'a Section<'a>,
    file: &'a Words32<'a>,
    used: &'a [Used],
    next: usize,
    per_block: u64,
}

impl Compare<'_> {
    fn bad(&self, rule: Rule, at: u64) -> Box<Corruption> {
        self.file.bad("bits", rule, Some(at / self.per_block.max(1))).severity(Severity::CrossReference)
    }

    /// The bitmap calls `from..to` free.
    fn free(&mut self, from: u64, to: u64) {
        while let Some(u) = self.used.get(self.next).filter(|u| u.start < to) {
            let (a, b) = (u.start.max(from), u.end.min(to));
            if a < b {
                let c = self.bad(Rule::DoublyOwned, a);
                let c = c.found(format_args!("{} realtime extents at {a} marked free", b - a));
                self.section
                    .found
                    .add(c.expected(format_args!("in use: they belong to {}", self.section.show(u.owner))));
            }
            if u.end > to {
                break;
            }
            self.next += 1;
        }
    }

    /// The bitmap calls `from..to` in use.
    fn in_use(&mut self, from: u64, to: u64) {
        let mut at = from;
        let mut lost = Vec::new();
        while let Some(u) = self.used.get(self.next).filter(|u| u.start < to) {
            if u.start > at {
                lost.push((at, u.start));
            }
            at = at.max(u.end);
            if u.end > to {
                break;
            }
            self.next += 1;
        }
        if at < to {
            lost.push((at, to));
        }
        for (a, b) in lost {
            let c = self.bad(Rule::Unowned, a);
            let c = c.found(format_args!("{} realtime extents at {a} marked in use", b - a));
            self.section.found.add(c.expected("free: no file owns them"));
        }
    }

    /// Nothing is known of `from..to`.
    fn skip(&mut self, to: u64) {
        self.next += self.used.get(self.next..).unwrap_or(&[]).partition_point(|u| u.end <= to);
    }
}

impl<'a> Section<'a> {
    /// Opens bitmap or summary and checks the file; none where its contents cannot be told.
    fn file(&'a self, ino: Ino, kind: &'static BlockType, blocks: u64, bitmap: bool) -> Option<Words32<'a>> {
        let mut file = Words32 { section: self, ino, kind, extents: Vec::new() };
        let (volume, found) = (self.volume, self.found);
        let inode = match Inode::read(volume, ino, OnDamage::Keep) {
            // What is wrong with it was told when all inodes were read.
            Ok(i) if i.damage.is_some() => return None,
            Ok(i) => i,
            Err(Error::NotFound(_)) => return None,
            Err(e) => {
                found.add_error(e, || file.bad("inode", Rule::Unreadable, None));
                return None;
            }
        };
        let core = &inode.core;
        if !core.is_reg() {
            found.add(
                file.bad("mode", Rule::Flags, None).found(format_args!("{:o}", core.mode)).expected("a regular file"),
            );
            return None;
        }
        if core.is_realtime() {
            found.add(file.bad("flags", Rule::Flags, None).found("realtime").expected("blocks of the data device"));
            return None;
        }
        if bitmap && self.group.is_none() && self.extents > 0 && !core.flags().contains(Flags::NEWRTBM) {
            let c = file.bad("newrtbm", Rule::Flags, None).severity(Severity::Warning);
            found.add(c.found(0).expected("1: the allocator keeps its sequence number in the access time"));
        }
        let size = blocks.saturating_mul(volume.geometry.block_size.into());
        if inode.size() != size {
            found.add(file.bad("size", Rule::Mismatch, None).found(inode.size()).expected(size));
        }
        if !matches!(core.format(ForkKind::Data), Some(Format::Extents | Format::Btree)) {
            found.add(file.bad("format", Rule::Flags, None).found(core.format).expected("extents or btree"));
            return None;
        }
        match inode.extents(volume, ForkKind::Data) {
            Ok(list) => file.extents = list,
            // The pass over all inodes told of it.
            Err(_) => return None,
        }
        let mut next = 0;
        for e in &file.extents {
            if e.offset != next && next < blocks {
                found.add(file.bad("extents", Rule::Missing, Some(next)).found("a hole").expected("blocks"));
            }
            if e.unwritten {
                found.add(file.bad("extents", Rule::Flags, Some(e.offset)).found("unwritten").expected("written"));
            }
            next = e.offset.saturating_add(e.count);
        }
        if next < blocks {
            found.add(
                file.bad("extents", Rule::Missing, Some(next))
                    .found("the end")
                    .expected(format_args!("{blocks} blocks")),
            );
        } else if next > blocks {
            let c = file.bad("extents", Rule::Extra, Some(blocks));
            found.add(c.found(format_args!("blocks up to {next}")).expected(format_args!("{blocks} blocks")));
        }
        Some(file)
    }

    /// Compares the bitmap with what files use; none where it could not be read as a whole.
    pub(super) fn bitmap(&self, used: &[Used]) -> Option<Bitmap> {
        let g = &self.volume.geometry;
        let per_block = extents_per_block(g).max(1);
        let blocks = self.covered.div_ceil(per_block);
        let file = self.file(self.bitmap, block_types(g).0, blocks, true)?;
        let there = file.mapped(blocks);
        let mut compare = Compare { section: self, file: &file, used, next: 0, per_block };
        let mut out = Bitmap { free: 0, counters: std::collections::BTreeMap::new() };
        let mut whole = true;
        // The free run that may go on into the next block, and where the last one ended.
        let (mut run, mut known) = ((0u64, 0u64), 0u64);
        let mut finish = |run: (u64, u64), known: &mut u64, compare: &mut Compare<'_>| {
            if run.0 < run.1 {
                compare.in_use(*known, run.0);
                compare.free(run.0, run.1);
                *known = run.1;
                out.free += run.1 - run.0;
                let log = (run.1 - run.0).ilog2();
                if let Some(i) = summary_index(log, run.0 / per_block, blocks) {
                    *out.counters.entry(i).or_insert(0) += 1;
                }
            }
        };
        for n in 0..there {
            let first = n * per_block;
            let bits = per_block.min(self.extents.saturating_sub(first));
            let Some(block) = file.block(n) else {
                whole = false;
                finish(run, &mut known, &mut compare);
                compare.in_use(known, first);
                compare.skip(first + bits);
                (run, known) = ((first + bits, first + bits), first + bits);
                continue;
            };
            let words = Words::of(&block, g);
            for (start, count) in words.runs(to_usize(bits)) {
                let (a, b) = (first + start as u64, first + (start + count) as u64);
                if run.1 == a && run.0 < run.1 {
                    run.1 = b;
                } else {
                    finish(run, &mut known, &mut compare);
                    run = (a, b);
                }
            }
            if words.runs(to_usize(per_block)).any(|(s, c)| (s + c) as u64 > bits) {
                let c = file.bad("bits", Rule::Extra, Some(n)).severity(Severity::CrossReference);
                self.found.add(c.found("bits behind the last realtime extent").expected("zeroes"));
            }
        }
        finish(run, &mut known, &mut compare);
        if there == blocks {
            compare.in_use(known, self.extents);
        }
        (whole && there == blocks).then_some(out)
    }

    /// Compares the summary with the counters that the bitmap makes.
    pub(super) fn summary(&self, bitmap: Option<&Bitmap>) {
        let g = &self.volume.geometry;
        let bitmap_blocks = self.covered.div_ceil(extents_per_block(g).max(1));
        let levels = self.covered.checked_ilog2().map_or(0, |l| u64::from(l) + 1);
        let per_block = u64::from(words_per_block(g)).max(1);
        let blocks = (levels * bitmap_blocks).div_ceil(per_block);
        let Some(file) = self.file(self.summary, block_types(g).1, blocks, false) else { return };
        let Some(bitmap) = bitmap else { return };
        for n in 0..file.mapped(blocks) {
            let Some(block) = file.block(n) else { continue };
            for (i, stored) in (n * per_block..).zip(Words::of(&block, g).iter()) {
                let real = bitmap.counters.get(&i).copied().unwrap_or(0);
                if stored != real {
                    let (log, at) = (i / bitmap_blocks.max(1), i % bitmap_blocks.max(1));
                    let c = file.bad("counter", Rule::Count, Some(n)).severity(Severity::CrossReference);
                    self.found.add(c.found(stored).expected(format_args!(
                        "{real} free runs of 2^{log} extents that begin in block {at} of the bitmap"
                    )));
                }
            }
        }
    }
}
