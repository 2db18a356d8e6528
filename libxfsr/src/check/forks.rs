//! The extent maps of an inode's forks, and what they own.

use super::Findings;
use super::owners::{Batch, Observed};
use super::realtime::RtExtent;
use crate::btree::kinds::{Bmap, Refcount, Rmap};
use crate::btree::{self, Node, Ptr, Report};
use crate::error::{Corruption, ForkKind, Result, Rule};
use crate::format::btree::{Extent, RMAP_ATTR_FORK, RMAP_BMBT_BLOCK, RMAP_UNWRITTEN};
use crate::format::inode::{Dinode, Format, extents_in_fork, fork_bytes};
use crate::inode::fork::{ForkStore, MetaTree};
use crate::units::{AgNumber, FileBlock, FsBlock, Ino, RtBlock};
use crate::volume::Volume;

struct Fork<'a> {
    volume: &'a Volume,
    found: &'a Findings<'a>,
    ino: Ino,
    kind: ForkKind,
    core: &'a Dinode,
    end: u64,
    blocks: u64,
    count: u64,
}

impl Fork<'_> {
    fn bad(&self, field: &'static str, rule: Rule, offset: Option<u64>) -> Box<Corruption> {
        Corruption::new("bmap", field, rule).in_inode(self.ino).in_fork(self.kind, offset.map(FileBlock))
    }

    fn extent(&mut self, e: &Extent, batch: &mut Batch<'_>) {
        self.count += 1;
        let show = || format!("{} blocks at {} for file block {}", e.count, e.start, e.offset);
        let g = &self.volume.geometry;
        let realtime = self.kind == ForkKind::Data && self.core.is_realtime();
        let there = if realtime {
            g.is_valid_rt_extent(RtBlock(e.start), e.count)
        } else {
            g.is_valid_extent(FsBlock(e.start), e.count)
        };
        if !there {
            let c = self.bad("startblock", Rule::Range, Some(e.offset)).found(show());
            self.found.add(c.expected("an extent inside one AG, clear of its headers"));
            return;
        }
        self.blocks += e.count;
        // Extents lie below the largest file size; an attribute fork has 32 bits of blocks.
        let limit = if self.kind == ForkKind::Attr { 1 << 32 } else { (g.max_file_size() >> g.block_log) + 1 };
        let last = e.offset.checked_add(e.count).filter(|l| *l <= limit);
        if self.core.is_symlink() && self.kind == ForkKind::Data && e.offset != self.end {
            let c = self.bad("startoff", Rule::Order, Some(e.offset)).found(show());
            self.found.add(c.expected(format_args!("file block {}: a link's target has no holes", self.end)));
        } else if e.offset < self.end {
            self.found.add(
                self.bad("startoff", Rule::Order, Some(e.offset))
                    .found(show())
                    .expected(format_args!("from file block {}", self.end)),
            );
        }
        if last.is_none() {
            self.found.add(self.bad("startoff", Rule::Range, Some(e.offset)).found(show()));
        }
        self.end = self.end.max(last.unwrap_or(u64::MAX));
        if e.unwritten && (self.kind == ForkKind::Attr || !self.core.is_reg()) {
            self.found.add(self.bad("state", Rule::Flags, Some(e.offset)).found("unwritten").expected("written"));
        }
        let state = if e.unwritten { RMAP_UNWRITTEN } else { 0 };
        if realtime {
            let offset = e.offset | state;
            batch.realtime.push(RtExtent { start: e.start, count: e.count, owner: self.ino.0, offset });
        } else {
            let (ag, start) = g.split(FsBlock(e.start));
            let fork = if self.kind == ForkKind::Attr { RMAP_ATTR_FORK } else { 0 };
            let count = u32::try_from(e.count).unwrap_or(u32::MAX);
            batch.own(ag, Observed { start: start.0, count, owner: self.ino.0, offset: e.offset | fork | state });
        }
    }
}

/// Checks a realtime group's tree and notes its blocks; its records are looked at with the group. True where all of it was read.
fn metadata_tree(
    volume: &Volume,
    found: &Findings<'_>,
    ino: Ino,
    inode: &[u8],
    tree: MetaTree,
    own: &mut Vec<(AgNumber, Observed)>,
) -> bool {
    let store = ForkStore::metadata(volume, ino, inode, tree);
    let mut block = |p: Ptr, node: Option<&Node>| {
        let (ag, start) = volume.geometry.split(FsBlock(p.0));
        let name = if tree == MetaTree::Rmap { "rtrmapbt" } else { "rtrefcountbt" };
        let bad = || Corruption::new(name, "lsn", Rule::Lsn).in_inode(ino).in_ag(ag, Some(start));
        found.lsn(node.and_then(Node::lsn), bad);
        if volume.geometry.is_valid_fsblock(FsBlock(p.0)) {
            own.push((ag, Observed { start: start.0, count: 1, owner: ino.0, offset: RMAP_BMBT_BLOCK }));
        }
    };
    let mut tell = |c| found.add(c);
    let report = match tree {
        MetaTree::Rmap => btree::check::<Rmap, _>(&store, found.control(), &mut block, &mut |_| {}, &mut tell),
        MetaTree::Refcount => btree::check::<Refcount, _>(&store, found.control(), &mut block, &mut |_| {}, &mut tell),
    };
    whole(report, found, || Corruption::new("bmap", "root", Rule::Unreadable).in_inode(ino))
}

/// Whether all of a tree was read.
fn whole(report: Result<Report>, found: &Findings<'_>, bad: impl FnOnce() -> Box<Corruption>) -> bool {
    report.map_err(|e| found.add_error(e, bad)).is_ok_and(|r| !r.incomplete)
}

/// Checks both extent maps and the counts that the core has of them; returns how many blocks of the realtime device are mapped.
pub(super) fn check(
    volume: &Volume,
    found: &Findings<'_>,
    ino: Ino,
    inode: &[u8],
    core: &Dinode,
    batch: &mut Batch<'_>,
) -> u64 {
    let (mut blocks, mut realtime) = (0, 0);
    let mut complete = true;
    for kind in [ForkKind::Data, ForkKind::Attr] {
        if kind == ForkKind::Attr && !core.has_attr_fork() {
            continue;
        }
        let mut fork = Fork { volume, found, ino, kind, core, end: 0, blocks: 0, count: 0 };
        let mut tree = 0;
        match core.format(kind) {
            Some(Format::Extents) => {
                for e in extents_in_fork(fork_bytes(inode, kind), core.extents(kind)) {
                    fork.extent(&e, batch);
                }
            }
            Some(Format::Btree) => {
                let store = ForkStore::new(volume, ino, inode, kind);
                let flags = RMAP_BMBT_BLOCK | if kind == ForkKind::Attr { RMAP_ATTR_FORK } else { 0 };
                let mut own = Vec::new();
                let report = btree::check::<Bmap, _>(
                    &store,
                    found.control(),
                    &mut |p, node| {
                        let (ag, start) = volume.geometry.split(FsBlock(p.0));
                        let bad = || Corruption::new("bmbt", "lsn", Rule::Lsn).in_inode(ino).in_ag(ag, Some(start));
                        found.lsn(node.and_then(Node::lsn), bad);
                        if volume.geometry.is_valid_fsblock(FsBlock(p.0)) {
                            own.push((ag, Observed { start: start.0, count: 1, owner: ino.0, offset: flags }));
                        }
                    },
                    &mut |r| fork.extent(&r.extent(), batch),
                    &mut |c| found.add(c),
                );
                tree = own.len() as u64;
                fork.blocks += tree;
                own.into_iter().for_each(|(ag, o)| batch.own(ag, o));
                complete &= whole(report, found, || fork.bad("root", Rule::Unreadable, None));
            }
            Some(Format::MetaBtree) => match MetaTree::of(core) {
                Some(tree) => {
                    let mut own = Vec::new();
                    complete &= metadata_tree(volume, found, ino, inode, tree, &mut own);
                    fork.blocks += own.len() as u64;
                    own.into_iter().for_each(|(ag, o)| batch.own(ag, o));
                }
                None => complete = false,
            },
            _ => {}
        }
        if complete && fork.count != core.extents(kind) {
            let c = fork.bad("nextents", Rule::Count, None);
            found.add(c.found(core.extents(kind)).expected(fork.count));
        }
        blocks += fork.blocks;
        if kind == ForkKind::Data && core.is_realtime() {
            realtime = fork.blocks - tree;
        }
    }
    if complete && blocks != core.nblocks.get() {
        let c = Corruption::new("inode", "nblocks", Rule::Count).in_inode(ino);
        found.add(c.found(core.nblocks).expected(blocks));
    }
    realtime
}
