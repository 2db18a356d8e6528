//! Every inode: its core, its forks, and a table of what later passes need.

use super::ag::AgState;
use super::owners::{Batch, Owners};
use super::parents::Pointers;
use super::{Counts, Findings, forks, quota, values};
use crate::cache::BlockKey;
use crate::control::Control;
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::Context;
use crate::format::btree::InobtRec;
use crate::format::dir::FileType;
use crate::format::inode::{Dinode, check_dinode, verify_dinode};
use crate::geometry::Geometry;
use crate::inode::scan;
use crate::units::{AgBlock, AgIno, AgNumber, Daddr, Ino, halves};
use crate::volume::Volume;
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// State of an inode in the table.
const FREE: u8 = 0xff;
/// Allocated, but its core cannot be trusted.
const BROKEN: u8 = 0xfe;

/// What is known of an inode beside its kind; bits of its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Flag {
    /// Its core has the reflink flag.
    Reflink = 0x10,
    /// Not all of its entries or attributes could be read.
    Partial = 0x20,
    /// On an unlinked list.
    Orphan = 0x40,
    /// Belongs to the metadata directory tree.
    Metadata = 0x80,
}
/// No links, and no directory.
const NOWHERE: u64 = (u32::MAX as u64) << 32;
const FLAGS: u8 = Flag::Reflink as u8 | Flag::Partial as u8 | Flag::Orphan as u8 | Flag::Metadata as u8;

struct Chunks {
    starts: Vec<u32>,
    base: usize,
}

/// What later passes need of every inode, in a few bytes each.
pub(super) struct Table<'a> {
    geometry: &'a Geometry,
    ags: Vec<Chunks>,
    kind: Vec<AtomicU8>,
    nlink: Vec<AtomicU32>,
    /// Links that were seen. In the upper half the slot of a directory that has an entry for the inode: the lowest, so that it
    /// does not depend on who came first.
    links: Vec<AtomicU64>,
    pub(super) pointers: Pointers,
}

impl<'a> Table<'a> {
    pub(super) fn new(geometry: &'a Geometry, ags: &[AgState]) -> Self {
        let mut base = 0;
        let mut chunks = Vec::with_capacity(ags.len());
        for a in ags {
            let mut starts: Vec<u32> = a.inobt.iter().map(|r| r.startino.get()).collect();
            starts.sort_unstable();
            starts.dedup();
            let n = starts.len();
            chunks.push(Chunks { starts, base });
            base += n * 64;
        }
        Self {
            geometry,
            ags: chunks,
            kind: (0..base).map(|_| AtomicU8::new(FREE)).collect(),
            nlink: (0..base).map(|_| AtomicU32::new(0)).collect(),
            links: (0..base).map(|_| AtomicU64::new(NOWHERE)).collect(),
            pointers: Pointers::new(if geometry.features.parent() { base } else { 0 }),
        }
    }

    /// Place of an inode in the table; none for one that no chunk holds.
    pub(super) fn slot(&self, ino: Ino) -> Option<usize> {
        let (ag, agino) = self.geometry.split_ino(ino);
        let chunks = self.ags.get(ag.0 as usize)?;
        let i = chunks.starts.partition_point(|s| *s <= agino.0).checked_sub(1)?;
        let within = agino.0 - chunks.starts.get(i)?;
        (within < 64).then(|| chunks.base + i * 64 + within as usize)
    }

    /// As [`Table::slot`], for who asks for inodes that mostly lie close to each other: `near` is the chunk of the one before.
    pub(super) fn slot_near(&self, ino: Ino, near: &mut usize) -> Option<usize> {
        let (ag, agino) = self.geometry.split_ino(ino);
        let chunks = self.ags.get(ag.0 as usize)?;
        for i in [*near, *near + 1] {
            if let Some(within) = chunks.starts.get(i).and_then(|s| agino.0.checked_sub(*s)).filter(|w| *w < 64) {
                *near = i;
                return Some(chunks.base + i * 64 + within as usize);
            }
        }
        let slot = self.slot(ino)?;
        *near = (slot - chunks.base) / 64;
        Some(slot)
    }

    fn state(&self, slot: usize) -> u8 {
        self.kind.get(slot).map_or(FREE, |k| k.load(Ordering::Relaxed))
    }
    /// Whether the inode is in use, as far as its chunk says.
    pub(super) fn is_used(&self, slot: usize) -> bool {
        self.state(slot) != FREE
    }
    /// Kind of file; none where the inode is free or broken.
    pub(super) fn kind(&self, slot: usize) -> Option<FileType> {
        match self.state(slot) {
            FREE | BROKEN => None,
            k => FileType::from_u8(k & !FLAGS),
        }
    }
    /// Whether the flag is set; never of an inode that is free or broken.
    pub(super) fn is(&self, slot: usize, flag: Flag) -> bool {
        let s = self.state(slot);
        s < BROKEN && s & flag as u8 != 0
    }
    pub(super) fn set(&self, slot: usize, flag: Flag) {
        if let Some(k) = self.kind.get(slot).filter(|k| k.load(Ordering::Relaxed) < BROKEN) {
            k.fetch_or(flag as u8, Ordering::Relaxed);
        }
    }
    /// Link count that the inode carries.
    pub(super) fn nlink(&self, slot: usize) -> u32 {
        self.nlink.get(slot).map_or(0, |n| n.load(Ordering::Relaxed))
    }
    /// Links that were seen.
    pub(super) fn links(&self, slot: usize) -> u32 {
        self.links.get(slot).map_or(0, |n| halves(n.load(Ordering::Relaxed)).1)
    }
    /// Notes a link that is no entry of another directory.
    pub(super) fn link(&self, slot: usize) {
        self.enter(slot, usize::MAX);
    }
    /// Notes an entry of the directory in slot `above`.
    pub(super) fn enter(&self, slot: usize, above: usize) {
        let above = u64::from(u32::try_from(above).unwrap_or(u32::MAX));
        let Some(n) = self.links.get(slot) else { return };
        let next = |old: u64| Some((old >> 32).min(above) << 32 | u64::from(halves(old).1.saturating_add(1)));
        let _ = n.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
    /// A directory that has an entry for it.
    pub(super) fn above(&self, slot: usize) -> Option<Ino> {
        let (above, _) = halves(self.links.get(slot)?.load(Ordering::Relaxed));
        self.ino(Some(above).filter(|a| *a != u32::MAX)? as usize)
    }
    /// The inode of a slot.
    fn ino(&self, slot: usize) -> Option<Ino> {
        // An AG without chunks has the base of the next one.
        let ag = self.ags.partition_point(|c| c.base <= slot).checked_sub(1)?;
        let chunks = self.ags.get(ag)?;
        let within = slot - chunks.base;
        let agino = chunks.starts.get(within / 64)?.checked_add(u32::try_from(within % 64).ok()?)?;
        Some(self.geometry.join_ino(AgNumber(u32::try_from(ag).ok()?), AgIno(agino)))
    }
    /// Whether an inode is in use whose core cannot be trusted.
    pub(super) fn is_broken(&self, slot: usize) -> bool {
        self.state(slot) == BROKEN
    }
    fn fill(&self, slot: usize, kind: u8, nlink: u32) {
        if let (Some(k), Some(n)) = (self.kind.get(slot), self.nlink.get(slot)) {
            k.store(kind, Ordering::Relaxed);
            n.store(nlink, Ordering::Relaxed);
        }
    }

    /// Every inode in use, with its slot.
    pub(super) fn used(&self) -> impl Iterator<Item = (Ino, usize)> + '_ {
        self.ags.iter().zip(0u32..).flat_map(move |(c, ag)| {
            c.starts.iter().enumerate().flat_map(move |(i, s)| {
                (0..64u32).filter_map(move |n| {
                    let slot = c.base + i * 64 + n as usize;
                    let ino = self.geometry.join_ino(AgNumber(ag), AgIno(s.saturating_add(n)));
                    self.is_used(slot).then_some((ino, slot))
                })
            })
        })
    }

    pub(super) fn count(&self, counts: &mut Counts) {
        for slot in 0..self.kind.len() {
            if self.is_used(slot) {
                counts.inodes += 1;
                counts.directories += u64::from(self.kind(slot) == Some(FileType::Directory));
            } else {
                counts.free_inodes += 1;
            }
        }
    }
}

/// Inode chunks that are read ahead together: with inodes of 512 bytes 1 MiB.
const GROUP: usize = 32;

/// The pass over all inodes.
pub(super) struct Scan<'a> {
    pub volume: &'a Volume,
    pub found: &'a Findings<'a>,
    pub owners: &'a Owners<'a>,
    pub table: &'a Table<'a>,
    pub usage: &'a quota::Usage,
    pub control: &'a Control<'a>,
    /// Directories whose inode cannot be trusted.
    pub unread: AtomicU64,
}

impl Scan<'_> {
    pub(super) fn run(&self, ags: &[AgState]) -> Result<()> {
        let chunks: Vec<(AgNumber, InobtRec)> = ags.iter().flat_map(|a| a.inobt.iter().map(|r| (a.ag, *r))).collect();
        let done = AtomicU64::new(0);
        // Some chunks at a time: one request for what is read next, and lists of owners are handed over in batches.
        chunks.par_chunks(GROUP).enumerate().try_for_each(|(i, group)| {
            self.found.go_on()?;
            // With the group behind, which is most likely this thread's next: it is on its way while this one is worked on.
            let ahead = chunks.get(i * GROUP..).unwrap_or(group);
            self.readahead(ahead.get(..2 * GROUP).unwrap_or(ahead));
            let mut batch = Batch::new(self.owners);
            let mut bytes = vec![0; 64 * self.volume.geometry.inode_size as usize];
            for (ag, r) in group {
                self.found.go_on()?;
                self.chunk(*ag, r, &mut bytes, &mut batch);
            }
            self.usage.add(std::mem::take(&mut batch.used));
            drop(batch);
            let n = done.fetch_add(group.len() as u64, Ordering::Relaxed) + group.len() as u64;
            self.control.tell("inode chunks", n, Some(chunks.len() as u64));
            Ok::<(), Error>(())
        })?;
        let unread = self.unread.load(Ordering::Relaxed);
        if unread > 0 {
            self.found.skip("directories", format_args!("the entries of {unread}, whose inodes cannot be trusted"));
        }
        Ok(())
    }

    fn readahead(&self, group: &[(AgNumber, InobtRec)]) {
        let g = &self.volume.geometry;
        let sectors = 64 * g.inode_size / 512;
        let keys = group.iter().map(|(ag, r)| {
            let (agbno, index) = g.agino_to_block(AgIno(r.startino.get()));
            let within = u64::from(index) * u64::from(g.inode_size) / 512;
            BlockKey::one(self.volume.data, Daddr(g.agbno_to_daddr(*ag, agbno).0 + within), sectors)
        });
        self.volume.cache.readahead(&keys.collect::<Vec<_>>());
    }

    fn chunk(&self, ag: AgNumber, r: &InobtRec, bytes: &mut [u8], batch: &mut Batch<'_>) {
        let g = &self.volume.geometry;
        // It never breaks.
        let _ = scan::chunk(self.volume, ag, r, bytes, |n, read| {
            let agino = AgIno(r.startino.get() + n);
            let (ino, free) = (g.join_ino(ag, agino), r.free.get() >> n & 1 == 1);
            match read {
                Ok(inode) => self.inode(ino, ag, g.agino_to_block(agino).0, inode, free, batch),
                Err(e) => {
                    self.found.add_error(e, || Corruption::new("inode", "core", Rule::Unreadable).in_inode(ino));
                    // In use, for all that the btree says; what its bytes say nobody knows.
                    if let Some(slot) = self.table.slot(ino).filter(|_| !free) {
                        self.table.fill(slot, BROKEN, 0);
                    }
                }
            }
            ControlFlow::Continue(())
        });
    }

    fn inode(&self, ino: Ino, ag: AgNumber, agbno: AgBlock, bytes: &[u8], free: bool, batch: &mut Batch<'_>) {
        let at = Context::new(&self.volume.geometry, self.volume.geometry.agbno_to_daddr(ag, agbno));
        let mut sound = true;
        check_dinode(bytes, ino, &at, &mut |c| {
            sound = false;
            self.found.add(c.in_inode(ino));
        });
        // Only what the kernel would not load is kept from the later passes: a wrong flag says nothing against the entries below.
        let mut broken = !sound && verify_dinode(bytes, ino, &at).is_err();
        let slot = self.table.slot(ino);
        let Some(core) = Dinode::from_bytes(bytes) else { return };
        let bad = |field, rule| Corruption::new("inode", field, rule).in_inode(ino);
        if free {
            if core.mode.get() != 0 {
                self.found.add(
                    bad("mode", Rule::Mismatch)
                        .found(format_args!("{:o}", core.mode))
                        .expected("0: the inode btree says free"),
                );
            }
            return;
        }
        let Some(slot) = slot else { return };
        let kind = FileType::from_mode(core.mode.get());
        if core.mode.get() == 0 {
            self.found.add(bad("mode", Rule::Mismatch).found(0).expected("a file: the inode btree says in use"));
            broken = true;
        }
        if broken && kind == FileType::Directory {
            self.unread.fetch_add(1, Ordering::Relaxed);
        }
        self.table.fill(slot, if broken { BROKEN } else { kind as u8 }, core.nlink.get());
        let realtime = forks::check(self.volume, self.found, ino, bytes, core, batch);
        if !broken {
            if core.is_reflink() {
                self.table.set(slot, Flag::Reflink);
            }
            if core.is_metadata() {
                self.table.set(slot, Flag::Metadata);
            }
            batch.used.inode(self.usage, ino, core, realtime);
            values::check(self.volume, self.found, self.table, slot, ino, bytes, core);
        }
    }
}
