//! One allocation group: headers, trees, and how these agree.

use super::Findings;
use super::owners::Observed;
use super::records::Tree;
use crate::btree::{self, Kind, Node, Report, kinds};
use crate::cache::{BlockRead, OnDamage};
use crate::error::{Corruption, Rule, Severity};
use crate::format::ag::{AGF, AGFL, AGI, Agf, Agi, agfl_slots};
use crate::format::btree::{AllocRec, CHUNK_INODES, HOLEMASK_INODES, InobtRec, RefcountRec, RmapRec, owner};
use crate::space::{AgStore, AgTree};
use crate::units::{AgBlock, AgIno, AgNumber, NULL_AGBLOCK, NULL_AGINO};
use crate::volume::Volume;
use parking_lot::Mutex;
use zerocopy::FromBytes;

/// What later passes need of an AG.
pub(super) struct AgState {
    pub ag: AgNumber,
    pub agf: Option<Agf>,
    pub agi: Option<Agi>,
    pub observed: Mutex<Vec<Observed>>,
    /// Free extents, by block.
    pub free: Vec<AllocRec>,
    pub inobt: Vec<InobtRec>,
    pub inobt_complete: bool,
    pub refcounts: Vec<RefcountRec>,
    pub refcounts_complete: bool,
    pub rmaps: Vec<RmapRec>,
    pub rmaps_complete: bool,
    pub free_blocks: u64,
    pub space_complete: bool,
}

struct Ag<'a> {
    volume: &'a Volume,
    ag: AgNumber,
    found: &'a Findings<'a>,
    observed: Vec<Observed>,
}

impl Ag<'_> {
    fn bad(&self, structure: &'static str, field: &'static str, rule: Rule) -> Box<Corruption> {
        Corruption::new(structure, field, rule).in_ag(self.ag, None)
    }

    fn header<T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable>(
        &self,
        n: u32,
        kind: &'static crate::format::BlockType,
    ) -> Option<T> {
        let block = self.header_block(n, kind)?;
        T::read_from_prefix(&block).ok().map(|(t, _)| t)
    }

    fn header_block(&self, n: u32, kind: &'static crate::format::BlockType) -> Option<BlockRead> {
        let read = self.volume.ag_header(self.ag, n, kind, OnDamage::Keep);
        self.found.usable(read, &|field, rule| self.bad(kind.name, field, rule))
    }

    fn tree<K: Kind>(&mut self, tree: AgTree, owner: u64) -> (Vec<K::Record>, Option<Report>) {
        let mut records = Vec::new();
        let store = match AgStore::new(self.volume, self.ag, tree, OnDamage::Keep) {
            Ok(s) => s,
            Err(e) => {
                self.found.add_error(e, || self.bad(K::NAME, "root", Rule::Unreadable));
                return (records, None);
            }
        };
        let (observed, found, ag, g) = (&mut self.observed, self.found, self.ag, &self.volume.geometry);
        let report = btree::check::<K, _>(
            &store,
            found.control(),
            &mut |p, node| {
                let at = AgBlock(u32::try_from(p.0).unwrap_or(u32::MAX));
                if g.is_valid_agbno(ag, at) {
                    observed.push(Observed { start: at.0, count: 1, owner, offset: 0 });
                }
                let bad = || Corruption::new(K::NAME, "lsn", Rule::Lsn).in_ag(ag, Some(at));
                found.lsn(node.and_then(Node::lsn), bad);
            },
            &mut |r| records.push(*r),
            &mut |c| found.add(c),
        );
        let report = report.map_err(|e| found.add_error(e, || self.bad(K::NAME, "root", Rule::Unreadable)));
        (records, report.ok())
    }

    fn valid_extent(&self, structure: &'static str, start: u32, count: u32) -> bool {
        let ok = self.volume.geometry.is_valid_agextent(self.ag, AgBlock(start), count);
        if !ok {
            let c = Corruption::new(structure, "recs", Rule::Range).in_ag(self.ag, Some(AgBlock(start)));
            self.found.add(
                c.found(format_args!("{count} blocks at {start}"))
                    .expected("an extent of this AG, clear of its headers"),
            );
        }
        ok
    }

    fn equal(&self, structure: &'static str, field: &'static str, found: u64, expected: u64) {
        if found != expected {
            self.found.add(self.bad(structure, field, Rule::Count).found(found).expected(expected));
        }
    }

    fn free_space(&mut self, agf: &Agf, state: &mut AgState) {
        let (mut bno, bno_report) = self.tree::<kinds::Bno>(AgTree::Bno, owner::AG);
        let (cnt, cnt_report) = self.tree::<kinds::Cnt>(AgTree::Cnt, owner::AG);
        let complete = |r: &Option<Report>| r.is_some_and(|r| !r.incomplete);
        let (mut longest, mut valid) = (0, true);
        let mut before: Option<AllocRec> = None;
        for r in &bno {
            let (start, count) = (r.startblock.get(), r.blockcount.get());
            longest = longest.max(count);
            state.free_blocks += u64::from(count);
            valid &= self.valid_extent("bnobt", start, count);
            if before.is_some_and(|b| u64::from(b.startblock.get()) + u64::from(b.blockcount.get()) == u64::from(start))
            {
                let c = Corruption::new("bnobt", "recs", Rule::Unmerged).in_ag(self.ag, Some(AgBlock(start)));
                self.found.add(c.found("a free extent that touches the one before"));
            }
            before = Some(*r);
        }
        let mut by_block = cnt;
        by_block.sort_unstable_by_key(|r| (r.startblock.get(), r.blockcount.get()));
        if complete(&bno_report) && complete(&cnt_report) && by_block != bno {
            let differs = by_block.iter().zip(&bno).find(|(a, b)| a != b).map(|(_, b)| AgBlock(b.startblock.get()));
            let c = Corruption::new("cntbt", "recs", Rule::Mismatch).in_ag(self.ag, differs);
            let n = (by_block.len(), bno.len());
            self.found.add(c.found(format_args!("{} records", n.0)).expected(format_args!("the {} of bnobt", n.1)));
        }
        let (ag, g) = (self.ag, &self.volume.geometry);
        if !valid {
            bno.retain(|r| g.is_valid_agextent(ag, AgBlock(r.startblock.get()), r.blockcount.get()));
        }
        if !bno.is_sorted_by_key(|r| r.startblock.get()) {
            bno.sort_unstable_by_key(|r| r.startblock.get());
        }
        bno.shrink_to_fit();
        state.free = bno;
        state.space_complete = complete(&bno_report);
        if complete(&bno_report) {
            self.equal("agf", "freeblks", agf.freeblks.get().into(), state.free_blocks);
            self.equal("agf", "longest", agf.longest.get().into(), longest.into());
        }
        let rmap_blocks = if self.volume.geometry.features.rmapbt() {
            let (mut rmaps, report) = self.tree::<kinds::Rmap>(AgTree::Rmap, owner::AG);
            state.rmaps_complete = complete(&report);
            rmaps.shrink_to_fit();
            state.rmaps = rmaps;
            report.filter(|r| !r.incomplete).map(|r| r.blocks)
        } else {
            Some(1)
        };
        if let (Some(b), Some(c), Some(r)) = (bno_report, cnt_report, rmap_blocks) {
            if !b.incomplete && !c.incomplete {
                let expected = (b.blocks + c.blocks + r).saturating_sub(3);
                self.equal("agf", "btreeblks", agf.btreeblks.get().into(), expected);
            }
            if self.volume.geometry.features.rmapbt() {
                self.equal("agf", "rmap_blocks", agf.rmap_blocks.get().into(), r);
            }
        }
    }

    fn free_list(&mut self, agf: &Agf) {
        let (first, last, count) = (agf.flfirst.get(), agf.fllast.get(), agf.flcount.get());
        let slots = self.volume.geometry.agfl_slots();
        let Some(block) = self.header_block(3, &AGFL) else { return };
        if first >= slots || last >= slots || count > slots {
            return;
        }
        let active = if count == 0 { 0 } else { (last + slots - first) % slots + 1 };
        if active != count {
            self.found.add(self.bad("agf", "flcount", Rule::Count).found(count).expected(active));
        }
        let list = agfl_slots(&block);
        for i in 0..count.min(active) {
            let Some(b) = list.get(((first + i) % slots) as usize).map(|b| b.get()) else { break };
            if b == NULL_AGBLOCK || !self.volume.geometry.is_valid_agbno(self.ag, AgBlock(b)) {
                self.found.add(self.bad("agfl", "bno", Rule::Range).found(b).expected("a block of this AG"));
            } else {
                self.observed.push(Observed { start: b, count: 1, owner: owner::AG, offset: 0 });
            }
        }
    }

    fn refcounts(&mut self, agf: &Agf, state: &mut AgState) {
        if !self.volume.geometry.features.reflink() {
            return;
        }
        let (records, report) = self.tree::<kinds::Refcount>(AgTree::Refcount, owner::REFC);
        state.refcounts_complete = report.is_some_and(|r| !r.incomplete);
        if let Some(r) = report.filter(|r| !r.incomplete) {
            self.equal("agf", "refcount_blocks", agf.refcount_blocks.get().into(), r.blocks);
        }
        let ag = self.ag;
        let place = |c: Box<Corruption>, start| c.in_ag(ag, Some(AgBlock(start)));
        let tree = Tree { name: "refcountbt", place: &place, found: self.found };
        let staging = tree.reference_counts(&records, |start, count| self.valid_extent("refcountbt", start, count));
        let observed = |(start, count)| Observed { start, count, owner: owner::COW, offset: 0 };
        self.observed.extend(staging.into_iter().map(observed));
        state.refcounts = records;
    }

    /// Checks one chunk record and notes the blocks of its inodes. False where its place is impossible.
    fn chunk(&mut self, tree: &'static str, r: &InobtRec, observe: bool) -> bool {
        let g = &self.volume.geometry;
        let sparse = g.features.sparse_inodes();
        let start = r.startino.get();
        let place = AgBlock(start >> g.inopb_log);
        let bad = |field, rule| Corruption::new(tree, field, rule).in_ag(self.ag, Some(place));
        let holes = r.holes(sparse);
        let first = start.saturating_add(holes.trailing_ones().min(60));
        let last = start.saturating_add(63 - holes.leading_ones().min(63));
        if start & (CHUNK_INODES - 1) & (g.inodes_per_block() - 1) != 0
            || holes == u64::MAX
            || !g.is_valid_agino(self.ag, AgIno(first))
            || !g.is_valid_agino(self.ag, AgIno(last))
        {
            self.found.add(bad("startino", Rule::Range).found(start).expected("a chunk inside this AG"));
            return false;
        }
        // Also a chunk with holes starts where a whole one would; of free inodes only the chunk is required.
        let align = if tree == "finobt" { g.cluster_align().min(g.chunk_blocks()) } else { g.cluster_align() };
        if !place.0.is_multiple_of(align) {
            self.found
                .add(bad("startino", Rule::Range).found(start).expected(format_args!("aligned to {align} blocks")));
        }
        if r.count(sparse) != 64 - holes.count_ones() {
            self.found.add(bad("count", Rule::Count).found(r.count(sparse)).expected(64 - holes.count_ones()));
        }
        if r.freecount(sparse) != (r.free.get() & !holes).count_ones() {
            self.found.add(
                bad("freecount", Rule::Count).found(r.freecount(sparse)).expected((r.free.get() & !holes).count_ones()),
            );
        }
        // Inodes are made and freed in clusters.
        let cluster = (g.cluster_blocks() << g.inopb_log).min(CHUNK_INODES);
        let part = |i: u32| holes >> i & (u64::MAX >> (64 - cluster));
        if (0..CHUNK_INODES).step_by(cluster as usize).any(|i| ![0, u64::MAX >> (64 - cluster)].contains(&part(i))) {
            let c = bad("holemask", Rule::Range).found(format_args!("{holes:#x}"));
            self.found.add(c.expected(format_args!("holes of whole clusters of {cluster} inodes")));
        }
        if r.free.get() & holes != holes {
            self.found
                .add(bad("free", Rule::Mismatch).found(format_args!("{:#x}", r.free)).expected("holes marked as free"));
        }
        if observe {
            let per_block = g.inodes_per_block();
            let mut blocks = Vec::new();
            for i in (0..64).step_by(HOLEMASK_INODES as usize) {
                if holes >> i & 1 == 0 {
                    let b = (start + i) / per_block;
                    if blocks.last() != Some(&b) {
                        blocks.push(b);
                    }
                    let end = (start + i + HOLEMASK_INODES - 1) / per_block;
                    if end != b {
                        blocks.push(end);
                    }
                }
            }
            for b in blocks {
                // A chunk may start in the middle of a block when blocks hold more than 64 inodes.
                let again = self.observed.last().is_some_and(|o| {
                    o.owner == owner::INODES && (o.start..o.start.saturating_add(o.count)).contains(&b)
                });
                match self.observed.last_mut() {
                    _ if again => {}
                    Some(o) if o.owner == owner::INODES && o.start.checked_add(o.count) == Some(b) => o.count += 1,
                    _ => self.observed.push(Observed { start: b, count: 1, owner: owner::INODES, offset: 0 }),
                }
            }
        }
        true
    }

    fn inodes(&mut self, agi: &Agi, state: &mut AgState) {
        let g = &self.volume.geometry;
        let sparse = g.features.sparse_inodes();
        let (records, report) = self.tree::<kinds::Inobt>(AgTree::Ino, owner::INOBT);
        for (field, ino) in [("newino", agi.newino.get()), ("dirino", agi.dirino.get())] {
            if ino != NULL_AGINO && !g.is_valid_agino(self.ag, AgIno(ino)) {
                let c = self.bad("agi", field, Rule::Range).severity(Severity::CrossReference);
                self.found.add(c.found(ino).expected("an inode of this AG, or none"));
            }
        }
        let (mut count, mut free) = (0u64, 0u64);
        let mut kept = Vec::with_capacity(records.len());
        for r in &records {
            count += u64::from(r.count(sparse));
            free += u64::from(r.freecount(sparse));
            if self.chunk("inobt", r, true) {
                kept.push(*r);
            }
        }
        let whole = report.filter(|r| !r.incomplete);
        state.inobt_complete = whole.is_some();
        if let Some(r) = whole {
            self.equal("agi", "count", agi.count.get().into(), count);
            self.equal("agi", "freecount", agi.freecount.get().into(), free);
            if g.features.inobtcnt() {
                self.equal("agi", "iblocks", agi.iblocks.get().into(), r.blocks);
            }
        }
        if g.features.finobt() {
            let (free_records, report) = self.tree::<kinds::Finobt>(AgTree::Fino, owner::INOBT);
            for r in &free_records {
                self.chunk("finobt", r, false);
            }
            if let Some(r) = report.filter(|r| !r.incomplete) {
                if g.features.inobtcnt() {
                    self.equal("agi", "fblocks", agi.fblocks.get().into(), r.blocks);
                }
                let expected: Vec<InobtRec> = records.iter().filter(|r| r.freecount(sparse) > 0).copied().collect();
                if whole.is_some() && expected != free_records {
                    let differs = free_records.iter().zip(&expected).find(|(a, b)| a != b);
                    let at = differs.map(|(_, b)| AgBlock(b.startino.get() >> g.inopb_log));
                    let c = Corruption::new("finobt", "recs", Rule::Mismatch).in_ag(self.ag, at);
                    let n = (free_records.len(), expected.len());
                    self.found.add(
                        c.found(format_args!("{} records", n.0))
                            .expected(format_args!("the {} of inobt with free inodes", n.1)),
                    );
                }
            }
        }
        state.inobt = kept;
    }
}

pub(super) fn check(volume: &Volume, ag: AgNumber, found: &Findings<'_>) -> AgState {
    let g = &volume.geometry;
    let mut a = Ag { volume, ag, found, observed: Vec::new() };
    a.observed.push(Observed { start: 0, count: g.header_blocks(), owner: owner::FS, offset: 0 });
    if g.log_start.0 != 0 {
        let (log_ag, start) = g.split(g.log_start);
        if log_ag == ag {
            a.observed.push(Observed { start: start.0, count: g.log_blocks, owner: owner::LOG, offset: 0 });
        }
    }
    let agf: Option<Agf> = a.header(1, &AGF);
    let agi: Option<Agi> = a.header(2, &AGI);
    let mut state = AgState {
        ag,
        agf,
        agi,
        observed: Mutex::default(),
        free: Vec::new(),
        inobt: Vec::new(),
        inobt_complete: false,
        refcounts: Vec::new(),
        refcounts_complete: false,
        rmaps: Vec::new(),
        rmaps_complete: false,
        free_blocks: 0,
        space_complete: false,
    };
    if let Some(agf) = &agf {
        a.free_space(agf, &mut state);
        a.free_list(agf);
        a.refcounts(agf, &mut state);
    }
    if let Some(agi) = &agi {
        a.inodes(agi, &mut state);
    }
    state.observed = Mutex::new(a.observed);
    state
}
