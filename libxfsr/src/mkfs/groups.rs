//! One allocation group of a new filesystem: which blocks go where, and the header and root blocks that say so.

use crate::format::BlockType;
use crate::format::ag::{self, Agf, Agfl, Agi};
use crate::format::btree::{self, AllocRec, InobtRec, RmapRec, ShortHeader, owner};
use crate::geometry::Geometry;
use crate::units::{AgBlock, AgNumber, FsBlock, Lsn, NULL_AGBLOCK, NULL_AGINO};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// Where everything of one AG lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Group {
    number: AgNumber,
    length: u32,
    /// Free extents by block, disjoint.
    free: Vec<(u32, u32)>,
    /// Owned extents by block; only what is no inode's.
    owned: Vec<(u32, u32, u64)>,
    bnobt: u32,
    cntbt: u32,
    inobt: u32,
    finobt: Option<u32>,
    rmapbt: Option<u32>,
    refcountbt: Option<u32>,
    free_list: Vec<u32>,
    chunk: Option<(u32, u32)>,
    /// What stays behind the last record of bnobt and cntbt where an extent was used up: mkfs.xfs does not clear the slot.
    left_over: Option<((u32, u32), (u32, u32))>,
}

impl Group {
    /// The AG as it stands before the first inode: headers, roots, free list, and the log where it lies here.
    pub(super) fn new(block_size: u32, g: &Geometry, number: AgNumber) -> Self {
        let headers = (4 * g.sector_size).div_ceil(block_size);
        let mut next = headers;
        let mut take = || {
            next += 1;
            next - 1
        };
        let (bnobt, cntbt, inobt) = (take(), take(), take());
        let finobt = g.features.finobt().then(&mut take);
        let rmapbt = g.features.rmapbt().then(&mut take);
        let refcountbt = g.features.reflink().then(&mut take);
        let length = g.ag_blocks(number);
        let mut group = Self {
            number,
            length,
            free: vec![(next, length.saturating_sub(next))],
            owned: vec![(0, headers, owner::FS), (bnobt, 2, owner::AG), (inobt, 1, owner::INOBT)],
            bnobt,
            cntbt,
            inobt,
            finobt,
            rmapbt,
            refcountbt,
            free_list: Vec::new(),
            chunk: None,
            left_over: None,
        };
        for (block, who) in [(finobt, owner::INOBT), (rmapbt, owner::AG), (refcountbt, owner::REFC)] {
            if let Some(b) = block {
                group.own(b, 1, who);
            }
        }
        let (log_ag, log_block) = g.split(g.log_start);
        if g.log_start.0 != 0 && log_ag == number {
            group.take(log_block.0, g.log_blocks);
            group.own(log_block.0, g.log_blocks, owner::LOG);
            group.left_over = None;
        }
        // Room for each free space tree to grow by one level.
        let grow = |levels: u8| u32::from(levels.min(2));
        let need = 2 * grow(g.max_levels.bno) + if rmapbt.is_some() { grow(g.max_levels.rmap) } else { 0 };
        if let Some(start) = group.smallest_fit(need) {
            group.take(start, need);
            group.own(start, need, owner::AG);
            group.free_list = (start..start + need).collect();
        }
        group
    }

    /// Notes the owner of an extent: no inode, or the inode whose data begins there.
    pub(super) fn own(&mut self, start: u32, count: u32, who: u64) {
        let at = self.owned.partition_point(|o| o.0 < start);
        self.owned.insert(at, (start, count, who));
        self.owned.dedup_by(|b, a| {
            let joins = a.0 + a.1 == b.0 && a.2 == b.2;
            if joins {
                a.1 += b.1;
            }
            joins
        });
    }

    /// Takes the extent from the free space that holds it.
    fn take(&mut self, start: u32, count: u32) {
        let mut left = Vec::with_capacity(self.free.len() + 1);
        for &(s, c) in &self.free {
            let (end, cut) = (s + c, start.saturating_add(count));
            if start >= end || cut <= s {
                left.push((s, c));
                continue;
            }
            if start > s {
                left.push((s, start - s));
            }
            if end > cut {
                left.push((cut, end - cut));
            }
        }
        if left.len() < self.free.len() {
            let by_size = self.free.iter().max_by_key(|f| (f.1, f.0)).copied();
            self.left_over = self.free.last().copied().zip(by_size);
        } else if left.len() > self.free.len() {
            self.left_over = None;
        }
        self.free = left;
    }

    fn smallest_fit(&self, count: u32) -> Option<u32> {
        self.free.iter().filter(|f| f.1 >= count).min_by_key(|f| (f.1, f.0)).map(|f| f.0)
    }

    /// Where an inode chunk goes: on a stripe unit where inode alignment divides it, else on its own alignment.
    pub(super) fn chunk_place(&self, g: &Geometry, stripe_unit: u32) -> Option<AgBlock> {
        let own = g.cluster_align().max(1);
        let striped = stripe_unit > 0 && g.inode_align > 1 && stripe_unit.is_multiple_of(g.inode_align);
        let find = |align: u32| {
            self.free.iter().find_map(|&(s, c)| {
                let at = s.checked_next_multiple_of(align)?;
                (at - s + g.chunk_blocks() <= c).then_some(AgBlock(at))
            })
        };
        striped.then(|| find(stripe_unit)).flatten().or_else(|| find(own))
    }

    /// Where the root's chunk lies if everything in front of it is packed without gaps.
    pub(super) fn expected_chunk(&self, g: &Geometry, stripe_unit: u32) -> Option<AgBlock> {
        let packed = self.owned.iter().try_fold(0_u32, |sum, o| sum.checked_add(o.1))?;
        let striped = stripe_unit > 0 && g.inode_align > 1 && stripe_unit.is_multiple_of(g.inode_align);
        packed.checked_next_multiple_of(if striped { stripe_unit } else { g.cluster_align().max(1) }).map(AgBlock)
    }

    /// Puts the first inode chunk there; `used` of its inodes are in use.
    pub(super) fn place_chunk(&mut self, g: &Geometry, at: AgBlock, used: u32) {
        self.take(at.0, g.chunk_blocks());
        self.own(at.0, g.chunk_blocks(), owner::INODES);
        self.chunk = Some((at.0, used));
    }

    /// Takes blocks for a file near `near`, as the allocator of mkfs.xfs does: of the free extents that are long enough the one
    /// whose start is nearest.
    pub(super) fn allocate(&mut self, near: u32, count: u32, align: u32) -> Option<u32> {
        let fits = |&(s, c): &(u32, u32)| {
            let at = s.checked_next_multiple_of(align.max(1))?;
            (at - s).checked_add(count).is_some_and(|need| need <= c).then_some(at)
        };
        let at = self.free.iter().filter_map(fits).min_by_key(|at| at.abs_diff(near))?;
        self.take(at, count);
        Some(at)
    }

    /// Whether a free extent has `count` blocks and one more block stays free, which an allocation keeps back.
    pub(super) fn has_room(&self, count: u32) -> bool {
        self.free.iter().any(|f| f.1 >= count) && self.free_blocks() > count
    }

    /// Whether the AG is as long as others and nothing was placed in it but what all have.
    pub(super) fn is_plain(&self, g: &Geometry) -> bool {
        self.chunk.is_none() && self.length == g.agblocks && g.split(g.log_start).0 != self.number
    }

    /// Takes up to `most` blocks from the longest free extent, as much as leaves one block free; its start and length.
    pub(super) fn take_longest(&mut self, most: u32) -> Option<(u32, u32)> {
        let (start, length) = self.free.iter().copied().max_by_key(|f| (f.1, std::cmp::Reverse(f.0)))?;
        let count = length.min(most).min(self.free_blocks().saturating_sub(1));
        if count == 0 {
            return None;
        }
        self.take(start, count);
        Some((start, count))
    }

    /// Blocks that are free and not in the free list.
    fn free_blocks(&self) -> u32 {
        self.free.iter().map(|f| f.1).sum()
    }

    /// AGF sector.
    pub(super) fn agf(&self, g: &Geometry) -> Vec<u8> {
        let mut agf = Agf::new_zeroed();
        agf.magicnum = U32::new(ag::AGF_MAGIC);
        agf.versionnum = U32::new(ag::VERSION);
        agf.seqno = U32::new(self.number.0);
        agf.length = U32::new(self.length);
        agf.bno_root = U32::new(self.bnobt);
        agf.cnt_root = U32::new(self.cntbt);
        (agf.bno_level, agf.cnt_level) = (U32::new(1), U32::new(1));
        if let Some(root) = self.rmapbt {
            (agf.rmap_root, agf.rmap_level, agf.rmap_blocks) = (U32::new(root), U32::new(1), U32::new(1));
        }
        if let Some(root) = self.refcountbt {
            (agf.refcount_root, agf.refcount_level, agf.refcount_blocks) = (U32::new(root), U32::new(1), U32::new(1));
        }
        // The ring's first slot stays empty: mkfs.xfs fills from slot 1.
        agf.flfirst = U32::new(1);
        agf.fllast = U32::new(self.free_list.len() as u32);
        agf.flcount = U32::new(self.free_list.len() as u32);
        agf.freeblks = U32::new(self.free_blocks());
        agf.longest = U32::new(self.free.iter().map(|f| f.1).max().unwrap_or(0));
        agf.uuid = g.meta_uuid;
        sealed(agf.as_bytes(), g.sector_size, &ag::AGF)
    }

    /// AGI sector.
    pub(super) fn agi(&self, g: &Geometry) -> Vec<u8> {
        let mut agi = Agi::new_zeroed();
        agi.magicnum = U32::new(ag::AGI_MAGIC);
        agi.versionnum = U32::new(ag::VERSION);
        agi.seqno = U32::new(self.number.0);
        agi.length = U32::new(self.length);
        agi.root = U32::new(self.inobt);
        agi.level = U32::new(1);
        agi.newino = U32::new(NULL_AGINO);
        agi.dirino = U32::new(NULL_AGINO);
        if let Some((start, used)) = self.chunk {
            let count = g.inodes_per_block().max(64);
            agi.count = U32::new(count);
            agi.freecount = U32::new(count - used);
            agi.newino = U32::new(g.block_to_agino(AgBlock(start)).0);
        }
        agi.unlinked = [U32::new(NULL_AGINO); ag::UNLINKED_BUCKETS];
        agi.uuid = g.meta_uuid;
        if let Some(root) = self.finobt {
            (agi.free_root, agi.free_level) = (U32::new(root), U32::new(1));
        }
        if g.features.inobtcnt() {
            (agi.iblocks, agi.fblocks) = (U32::new(1), U32::new(1));
        }
        sealed(agi.as_bytes(), g.sector_size, &ag::AGI)
    }

    /// AGFL sector.
    pub(super) fn agfl(&self, g: &Geometry) -> Vec<u8> {
        let mut agfl = Agfl::new_zeroed();
        agfl.magicnum = U32::new(ag::AGFL_MAGIC);
        agfl.seqno = U32::new(self.number.0);
        agfl.uuid = g.meta_uuid;
        let mut bytes = agfl.as_bytes().to_vec();
        bytes.extend(U32::new(NULL_AGBLOCK).as_bytes());
        for b in &self.free_list {
            bytes.extend(U32::new(*b).as_bytes());
        }
        bytes.resize(g.sector_size as usize, 0xff);
        (ag::AGFL.seal)(&mut bytes, Lsn(0));
        bytes
    }

    /// The roots of all trees, by block.
    pub(super) fn roots(&self, g: &Geometry) -> Vec<u8> {
        let mut out = Vec::new();
        let mut by_size = self.free.clone();
        by_size.sort_by_key(|f| (f.1, f.0));
        let alloc = |list: &[(u32, u32)]| -> Vec<u8> {
            let record = |&(s, c): &(u32, u32)| AllocRec { startblock: U32::new(s), blockcount: U32::new(c) };
            list.iter().flat_map(|f| record(f).as_bytes().to_vec()).collect()
        };
        let inodes = self.chunk_records(g);
        let chunks: Vec<u8> = inodes.iter().flat_map(|r| r.as_bytes().to_vec()).collect();
        let root = |magic, at, count: usize, body: &[u8], kind| self.leaf(g, magic, at, count, body, kind);
        let (mut free, mut sized) = (alloc(&self.free), alloc(&by_size));
        if let Some((last, largest)) = self.left_over {
            free.extend(alloc(&[last]));
            sized.extend(alloc(&[largest]));
        }
        out.extend(root(btree::BNOBT_MAGIC, self.bnobt, self.free.len(), &free, &btree::BNOBT_BLOCK));
        out.extend(root(btree::CNTBT_MAGIC, self.cntbt, by_size.len(), &sized, &btree::CNTBT_BLOCK));
        out.extend(root(btree::INOBT_MAGIC, self.inobt, inodes.len(), &chunks, &btree::INOBT_BLOCK));
        if let Some(at) = self.finobt {
            out.extend(root(btree::FINOBT_MAGIC, at, inodes.len(), &chunks, &btree::FINOBT_BLOCK));
        }
        if let Some(at) = self.rmapbt {
            let record = |&(s, c, who): &(u32, u32, u64)| RmapRec {
                startblock: U32::new(s),
                blockcount: U32::new(c),
                owner: U64::new(who),
                offset: U64::new(0),
            };
            let body: Vec<u8> = self.owned.iter().flat_map(|o| record(o).as_bytes().to_vec()).collect();
            out.extend(root(btree::RMAPBT_MAGIC, at, self.owned.len(), &body, &btree::RMAPBT_BLOCK));
        }
        if let Some(at) = self.refcountbt {
            out.extend(root(btree::REFCOUNTBT_MAGIC, at, 0, &[], &btree::REFCOUNTBT_BLOCK));
        }
        out
    }

    fn chunk_records(&self, g: &Geometry) -> Vec<InobtRec> {
        let Some((start, used)) = self.chunk else { return Vec::new() };
        let first = g.block_to_agino(AgBlock(start)).0;
        let chunks = (g.inodes_per_block() / 64).max(1);
        (0..chunks)
            .map(|n| {
                let used = if n == 0 { used } else { 0 };
                let free = 64 - used;
                let middle = if g.features.sparse_inodes() { [0, 0, 64, free as u8] } else { [0, 0, 0, free as u8] };
                InobtRec {
                    startino: U32::new(first + 64 * n),
                    middle,
                    free: U64::new(u64::MAX.checked_shl(used).unwrap_or(0)),
                }
            })
            .collect()
    }

    fn leaf(&self, g: &Geometry, magic: u32, at: u32, count: usize, body: &[u8], kind: &BlockType) -> Vec<u8> {
        let mut h = ShortHeader::new_zeroed();
        h.magic = U32::new(magic);
        h.numrecs = U16::new(count as u16);
        (h.leftsib, h.rightsib) = (U32::new(NULL_AGBLOCK), U32::new(NULL_AGBLOCK));
        h.blkno = U64::new(g.agbno_to_daddr(self.number, AgBlock(at)).0);
        h.uuid = g.meta_uuid;
        h.owner = U32::new(self.number.0);
        let mut bytes = h.as_bytes().to_vec();
        bytes.extend(body);
        sealed(&bytes, g.block_size, kind)
    }

    /// The filesystem's number of a block of this AG.
    pub(super) fn fsblock(&self, g: &Geometry, block: u32) -> FsBlock {
        g.join(self.number, AgBlock(block))
    }
}

/// The bytes, padded with zeros to `size`, with checksum.
fn sealed(bytes: &[u8], size: u32, kind: &BlockType) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out.resize(size as usize, 0);
    (kind.seal)(&mut out, Lsn(0));
    out
}
