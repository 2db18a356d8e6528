//! Data blocks and free index of a directory.

use super::{AHEAD, Dir};
use crate::cache::{BlockKey, BlockRead, Keep, OnDamage, Want};
use crate::error::{ForkKind, Result, Rule};
use crate::format::BlockType;
use crate::format::btree::Extent;
use crate::format::dir::{
    DIR_BLOCK, DIR_DATA, DIR_FREE, DataHeader, DataItem, Free, NULL_DATA_OFFSET, block_leaf, block_type_of, free_start,
    hash_name, items, join_address, leaf_start,
};
use crate::format::inode::Dinode;
use crate::inode::fork::extents;
use crate::units::{FileBlock, FsBlock, to_usize};
use rayon::prelude::*;
use std::ops::ControlFlow;
use zerocopy::FromBytes;

/// So many directory blocks behind the end, or that are none, are looked at before the map is to blame.
const MAX_UNUSABLE: u32 = 64;

/// An index entry: hash and address.
pub(super) type Indexed = (u32, u32);

/// Data blocks of a large directory that one thread reads at a time.
const PART: usize = 256;

/// What some data blocks of a directory gave.
struct Part<'a> {
    dir: Dir<'a>,
    index: Vec<Indexed>,
    /// The largest unused piece of each block.
    bests: Vec<(u64, u16)>,
    whole: bool,
}

/// The extents of a directory, and reading of its blocks through them.
pub(super) struct Map {
    extents: Vec<Extent>,
}

impl Map {
    fn find(&self, block: u64) -> Option<&Extent> {
        let i = self.extents.partition_point(|e| e.offset <= block).checked_sub(1)?;
        self.extents.get(i).filter(|e| block < e.offset.saturating_add(e.count))
    }
    /// The first block of `from..to` that is mapped.
    fn first_in(&self, from: u64, to: u64) -> Option<u64> {
        let i = self.extents.partition_point(|e| e.offset.saturating_add(e.count) <= from);
        self.extents.get(i).map(|e| e.offset.max(from)).filter(|b| *b < to)
    }
    /// First blocks of all directory blocks in `from..to`; each directory block is `step` blocks.
    fn blocks(&self, from: u64, to: u64, step: u64) -> impl Iterator<Item = u64> + '_ {
        let mut last = None;
        self.extents.iter().filter(move |e| e.offset >= from && e.offset < to).flat_map(move |e| {
            let first = e.offset / step * step;
            let end = e.offset.saturating_add(e.count).min(to);
            let blocks: Vec<u64> =
                (first..end).step_by(to_usize(step)).filter(|b| last.is_none_or(|l| *b > l)).collect();
            last = blocks.last().copied().or(last);
            blocks
        })
    }
}

/// Sorts an index by hash, then address: with all threads where it is large, with hardly any work where it is sorted by hash.
fn sort(index: &mut [Indexed]) {
    if index.is_sorted_by_key(|e| e.0) {
        index.chunk_by_mut(|a, b| a.0 == b.0).for_each(<[Indexed]>::sort_unstable);
    } else {
        index.par_sort_unstable_by_key(|e| u64::from(e.0) << 32 | u64::from(e.1));
    }
}

impl<'a> Dir<'a> {
    fn key(&self, map: &Map, at: u64) -> Result<BlockKey> {
        let v = self.pass.volume;
        let g = &v.geometry;
        let mut pieces = Vec::new();
        for b in at..at + (1 << g.dir_block_log) {
            let Some(daddr) = map.find(b).and_then(|e| g.fsblock_to_daddr(FsBlock(e.start + (b - e.offset)))) else {
                let c = self.bad("block", Rule::Missing, Some(b)).found("a hole").expected("a directory block");
                return Err(c.into());
            };
            pieces.push((daddr, g.block_size / 512));
        }
        Ok(BlockKey::many(v.data, pieces))
    }

    /// Reads the directory block at file block `at`, damaged or not, for who may come back to it.
    pub(super) fn load(&self, map: &Map, at: u64, kind: &'static BlockType) -> Result<BlockRead> {
        self.pass.found.go_on()?;
        let v = self.pass.volume;
        v.cache.read(&self.key(map, at)?, &Want::new(kind, OnDamage::Keep).owned_by(self.ino), &v.geometry)
    }

    /// Tells that the directory blocks at these file blocks will be read soon.
    pub(super) fn readahead(&self, map: &Map, blocks: impl Iterator<Item = u64>) {
        let keys: Vec<BlockKey> = blocks.filter_map(|at| self.key(map, at).ok()).collect();
        self.pass.volume.cache.readahead(&keys);
    }

    /// Reads the directory block at file block `at`; tells and gives none where it cannot be used.
    pub(super) fn read(&self, map: &Map, at: u64, kind: &'static BlockType) -> Option<BlockRead> {
        let v = self.pass.volume;
        let want = Want::new(kind, OnDamage::Keep).owned_by(self.ino).keep(Keep::No);
        let key = self.pass.found.go_on().and_then(|()| self.key(map, at));
        let read = key.and_then(|k| v.cache.read(&k, &want, &v.geometry));
        self.pass.found.usable(read, &|field, rule| self.bad(field, rule, Some(at)))
    }

    /// Reads one data block: notes its entries in `index`, and returns its largest unused piece.
    fn data(&mut self, at: u64, block: &BlockRead, index: &mut Vec<Indexed>) -> u16 {
        let g = &self.pass.volume.geometry;
        for item in items(block, g) {
            match item {
                Ok(DataItem::Entry(e)) => {
                    match join_address(g, FileBlock(at), e.offset) {
                        Some(a) => index.push((hash_name(g, e.name), a)),
                        None => self.tell(self.bad("address", Rule::Range, Some(at)).found(e.offset)),
                    }
                    self.entry(e.name, e.ino, e.ftype, Some(at));
                }
                Ok(DataItem::Unused { .. }) => {}
                // The block's verifier has told of it unless it stopped at something else before.
                Err(mut c) => {
                    if block.damage().is_none() {
                        c.at.offset = Some(FileBlock(at));
                        self.tell(c);
                    }
                }
            }
        }
        DataHeader::ref_from_prefix(block).map_or(0, |(h, _)| h.best_free[0].length.get())
    }

    fn map(&self, inode: &[u8]) -> Result<Map> {
        let mut map = Map { extents: Vec::new() };
        let found = self.pass.found;
        extents(self.pass.volume, self.ino, inode, ForkKind::Data, (0, u64::MAX), &mut |e| {
            map.extents.push(*e);
            if found.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        found.go_on()?;
        Ok(map)
    }

    /// A directory that has blocks.
    pub(super) fn blocks(&mut self, inode: &[u8], core: &Dinode) {
        let pass = self.pass;
        let g = &pass.volume.geometry;
        let map = match self.map(inode) {
            Ok(m) => m,
            // The pass over inodes has told of a broken map.
            Err(e) => {
                self.whole = false;
                return self.pass.found.add_error(e, || self.bad("map", Rule::Unreadable, None));
            }
        };
        let step = 1u64 << g.dir_block_log;
        let (leaf, free) = (leaf_start(g).0, free_start(g).0);
        let single = core.size.get() == u64::from(g.dir_block_size) && map.find(leaf).is_none();
        let mut index: Vec<Indexed> = Vec::new();
        let mut bests: Vec<u16> = Vec::new();
        // Far behind the end the map is to blame, and nothing there is read.
        let end = (core.size.get() >> g.block_log).saturating_add(step.saturating_mul(MAX_UNUSABLE.into()));
        let blocks: Vec<u64> = map.blocks(0, leaf.min(end), step).collect();
        let mut whole = true;
        if let Some(far) = map.first_in(end, leaf) {
            whole = false;
            self.tell(
                self.bad("block", Rule::Extra, Some(far)).expected(format_args!("none far behind {} bytes", core.size)),
            );
        }
        let kind = if single { &DIR_BLOCK } else { &DIR_DATA };
        for part in self.parts(&map, &blocks, kind, single) {
            whole &= part.whole;
            index.extend_from_slice(&part.index);
            for (at, best) in part.bests {
                let n = to_usize(at / step);
                if n >= bests.len() && n < (1 << 24) {
                    bests.resize(n + 1, NULL_DATA_OFFSET);
                }
                if let Some(b) = bests.get_mut(n) {
                    *b = best;
                }
            }
            self.join(part.dir);
        }
        if blocks.first() != Some(&0) {
            self.tell(self.bad("block", Rule::Missing, Some(0)));
        }
        let size = bests.len() as u64 * u64::from(g.dir_block_size);
        if core.size.get() != size {
            self.tell(self.bad("size", Rule::Mismatch, None).found(core.size).expected(size));
        }
        self.whole &= whole;
        self.duplicates(&map, kind, &index);
        if !single {
            let node_form = self.index(&map, index, &bests, whole);
            if node_form {
                self.free_index(&map, &bests, free, step);
            } else if map.blocks(free, u64::MAX, step).next().is_some() {
                self.tell(self.bad("free", Rule::Extra, Some(free)).found("a free index in leaf form"));
            }
        }
    }

    /// Reads the data blocks; those of a large directory in several parts at once, which come in their order.
    fn parts(&self, map: &Map, blocks: &[u64], kind: &'static BlockType, single: bool) -> Vec<Part<'a>> {
        let one = |blocks: &[u64]| {
            let mut part = Part { dir: self.part(), index: Vec::new(), bests: Vec::new(), whole: true };
            // Of small ones the pass has told already.
            if blocks.len() > AHEAD / 4 {
                self.readahead(map, blocks.iter().copied());
            }
            for &at in blocks {
                let block = self.read(map, at, kind);
                part.whole &= block.as_ref().is_some_and(|b| b.damage().is_none());
                let best = match &block {
                    Some(b) => part.dir.data(at, b, &mut part.index),
                    None => NULL_DATA_OFFSET,
                };
                part.bests.push((at, best));
                if let Some(b) = block.filter(|_| single) {
                    self.block_form(&b, &mut part.index, part.whole);
                }
            }
            part
        };
        if blocks.len() <= PART { vec![one(blocks)] } else { blocks.par_chunks(PART).map(one).collect() }
    }

    fn block_form(&self, block: &BlockRead, index: &mut [Indexed], whole: bool) {
        if block_type_of(block) != Some(&DIR_BLOCK) {
            return;
        }
        let Some((tail, leaf)) = block_leaf(block) else {
            return self.tell(self.bad("tail", Rule::Range, Some(0)));
        };
        let stale = leaf.iter().filter(|l| l.is_stale()).count();
        if tail.stale.get() as usize != stale {
            self.tell(self.bad("stale", Rule::Count, Some(0)).found(tail.stale).expected(stale));
        }
        let stored = leaf.iter().filter(|l| !l.is_stale()).map(|l| (l.hashval.get(), l.address.get())).collect();
        self.compare_index(stored, index, whole);
    }

    /// Compares the index with the entries that were seen.
    pub(super) fn compare_index(&self, mut stored: Vec<Indexed>, seen: &mut [Indexed], whole: bool) {
        if !whole || self.pass.found.stopped() {
            return;
        }
        sort(&mut stored);
        sort(seen);
        if stored == seen {
            return;
        }
        let differs = stored.iter().zip(seen.iter()).find(|(a, b)| a != b);
        let c = self.bad("index", Rule::Mismatch, None);
        self.tell(match differs {
            Some((a, b)) => c
                .found(format_args!("hash {:#x} address {:#x}", a.0, a.1))
                .expected(format_args!("hash {:#x} address {:#x}", b.0, b.1)),
            None => c.found(format_args!("{} entries", stored.len())).expected(seen.len()),
        });
    }

    /// Free index blocks against the data blocks.
    fn free_index(&self, map: &Map, bests: &[u16], free: u64, step: u64) {
        let g = &self.pass.volume.geometry;
        let capacity = Free::capacity(g.dir_block_size as usize);
        let (mut next, mut unusable) = (0, 0);
        for at in map.blocks(free, u64::MAX, step) {
            // A block mapped far behind all others would be for data blocks that no directory has.
            let first = usize::try_from((at - free) / step).unwrap_or(usize::MAX).saturating_mul(capacity);
            // Where data blocks are gone, their free block may be gone too.
            let lost = |from: usize| bests.get(from..first.min(bests.len())).unwrap_or(&[]);
            if let Some(i) = lost(next).iter().position(|b| *b != NULL_DATA_OFFSET) {
                let c = self.bad("free", Rule::Missing, Some(at));
                self.tell(
                    c.found(format_args!("data blocks from {first}")).expected(format_args!("from {}", next + i)),
                );
            }
            next = first.saturating_add(capacity);
            let Some(block) = self.read(map, at, &DIR_FREE) else {
                unusable += 1;
                if unusable >= MAX_UNUSABLE {
                    break;
                }
                continue;
            };
            let Some(index) = Free::from_bytes(&block) else { continue };
            if index.header.firstdb.get() as usize != first {
                self.tell(self.bad("firstdb", Rule::Mismatch, Some(at)).found(index.header.firstdb).expected(first));
            }
            let used = index.bests.iter().filter(|b| b.get() != NULL_DATA_OFFSET).count();
            if used != index.header.nused.get() as usize {
                self.tell(self.bad("nused", Rule::Count, Some(at)).found(index.header.nused).expected(used));
            }
            next = first.saturating_add(index.bests.len());
            for (i, best) in index.bests.iter().enumerate() {
                let expected = bests.get(first.saturating_add(i)).copied().unwrap_or(NULL_DATA_OFFSET);
                if best.get() != expected {
                    let c = self.bad("bests", Rule::Mismatch, Some(at));
                    self.tell(
                        c.found(format_args!("{} for data block {}", best.get(), first.saturating_add(i)))
                            .expected(expected),
                    );
                    break;
                }
            }
        }
        if bests.len() > next {
            self.tell(
                self.bad("free", Rule::Missing, Some(free))
                    .found(format_args!("{next} data blocks"))
                    .expected(bests.len()),
            );
        }
    }
}
