//! Targets for blocks that have a type: stamp, verify, then read everything that accessors offer, whatever the verdict.

use super::Input;
use libxfsr::error::Verdict;
use libxfsr::format::ag::{self, AGF, AGFL, AGI, Agf, Agfl, Agi};
use libxfsr::format::attr::{self, ATTR_ANY, ATTR_LEAF, ATTR_REMOTE, AttrLeaf};
use libxfsr::format::btree::{self, LongHeader, ShortHeader};
use libxfsr::format::da::{BlockInfo, DA_NODE, Node};
use libxfsr::format::dir::{self, DIR_ANY, DIR_BLOCK, DIR_DATA, DIR_FREE, DIR_LEAF1, DIR_LEAFN, DirHeader, Free, Leaf};
use libxfsr::format::part::{self, PartHeader};
use libxfsr::format::realtime::{self, RT_BITMAP, RT_SUMMARY, RT_SUPER, RtBlockHeader};
use libxfsr::format::superblock::{SUPERBLOCK, Superblock};
use libxfsr::format::symlink::SYMLINK;
use libxfsr::format::{BlockType, Context, quota};
use libxfsr::geometry::Geometry;
use libxfsr::units::{AgBlock, AgIno, AgNumber, Daddr, FsBlock, Ino, Lsn, RtBlock};
use std::mem::offset_of;
use zerocopy::FromBytes;

/// How a type's blocks are made to pass the checks that hide all others.
#[derive(Debug)]
pub struct Stamp {
    /// The type.
    pub kind: &'static BlockType,
    /// Where the magic number stands, and what it is.
    pub magic: (usize, &'static [u8]),
    /// Where the UUID stands.
    pub uuid: usize,
    /// Where the own address stands.
    pub address: Option<usize>,
    /// Where the number of the AG stands that owns the block.
    pub ag: Option<usize>,
    /// Where the checksum stands.
    pub crc: usize,
    /// Whether it covers a sector and not a block.
    pub sector: bool,
}

const fn header(kind: &'static BlockType, magic: &'static [u8], uuid: usize, ag: usize, crc: usize) -> Stamp {
    Stamp { kind, magic: (0, magic), uuid, address: None, ag: Some(ag), crc, sector: true }
}

const fn short(kind: &'static BlockType, magic: &'static [u8]) -> Stamp {
    let (address, ag) = (Some(offset_of!(ShortHeader, blkno)), Some(offset_of!(ShortHeader, owner)));
    let (uuid, crc) = (offset_of!(ShortHeader, uuid), offset_of!(ShortHeader, crc));
    Stamp { kind, magic: (0, magic), uuid, address, ag, crc, sector: false }
}

const fn at(kind: &'static BlockType, magic: (usize, &'static [u8]), [uuid, address, crc]: [usize; 3]) -> Stamp {
    Stamp { kind, magic, uuid, address: Some(address), ag: None, crc, sector: false }
}

const fn long(kind: &'static BlockType, magic: &'static [u8]) -> Stamp {
    let h = [offset_of!(LongHeader, uuid), offset_of!(LongHeader, blkno), offset_of!(LongHeader, crc)];
    at(kind, (0, magic), h)
}

const fn index(kind: &'static BlockType, magic: &'static [u8]) -> Stamp {
    let h = [offset_of!(BlockInfo, uuid), offset_of!(BlockInfo, blkno), offset_of!(BlockInfo, crc)];
    at(kind, (offset_of!(BlockInfo, magic), magic), h)
}

const fn data(kind: &'static BlockType, magic: &'static [u8]) -> Stamp {
    let h = [offset_of!(DirHeader, uuid), offset_of!(DirHeader, blkno), offset_of!(DirHeader, crc)];
    at(kind, (0, magic), h)
}

static AG_HEADERS: [Stamp; 3] = [
    header(&AGF, b"XAGF", offset_of!(Agf, uuid), offset_of!(Agf, seqno), offset_of!(Agf, crc)),
    header(&AGI, b"XAGI", offset_of!(Agi, uuid), offset_of!(Agi, seqno), offset_of!(Agi, crc)),
    header(&AGFL, b"XAFL", offset_of!(Agfl, uuid), offset_of!(Agfl, seqno), offset_of!(Agfl, crc)),
];

static TREES: [Stamp; 9] = [
    short(&btree::BNOBT_BLOCK, b"AB3B"),
    short(&btree::CNTBT_BLOCK, b"AB3C"),
    short(&btree::INOBT_BLOCK, b"IAB3"),
    short(&btree::FINOBT_BLOCK, b"FIB3"),
    short(&btree::RMAPBT_BLOCK, b"RMB3"),
    short(&btree::REFCOUNTBT_BLOCK, b"R3FC"),
    long(&btree::BMBT_BLOCK, b"BMA3"),
    long(&btree::RTRMAPBT_BLOCK, b"MAPR"),
    long(&btree::RTREFCOUNTBT_BLOCK, b"RCNT"),
];

static DIRECTORIES: [Stamp; 6] = [
    data(&DIR_BLOCK, b"XDB3"),
    data(&DIR_DATA, b"XDD3"),
    data(&DIR_FREE, b"XDF3"),
    index(&DIR_LEAF1, &[0x3d, 0xf1]),
    index(&DIR_LEAFN, &[0x3d, 0xff]),
    index(&DA_NODE, &[0x3e, 0xbe]),
];

static ATTRIBUTES: [Stamp; 3] = [
    index(&ATTR_LEAF, &[0x3b, 0xee]),
    index(&DA_NODE, &[0x3e, 0xbe]),
    at(
        &ATTR_REMOTE,
        (0, b"XARM"),
        [offset_of!(PartHeader, uuid), offset_of!(PartHeader, blkno), offset_of!(PartHeader, crc)],
    ),
];

static SYMLINKS: [Stamp; 1] = [at(
    &SYMLINK,
    (0, b"XSLM"),
    [offset_of!(PartHeader, uuid), offset_of!(PartHeader, blkno), offset_of!(PartHeader, crc)],
)];

static REALTIME: [Stamp; 2] = [
    at(
        &RT_BITMAP,
        (0, b"BMPZ"),
        [offset_of!(RtBlockHeader, uuid), offset_of!(RtBlockHeader, blkno), offset_of!(RtBlockHeader, crc)],
    ),
    at(
        &RT_SUMMARY,
        (0, b"SUMY"),
        [offset_of!(RtBlockHeader, uuid), offset_of!(RtBlockHeader, blkno), offset_of!(RtBlockHeader, crc)],
    ),
];

/// The type of a block that carries a magic number.
pub fn kind_of(bytes: &[u8]) -> Option<&'static Stamp> {
    let mut all =
        AG_HEADERS.iter().chain(&TREES).chain(&DIRECTORIES).chain(&ATTRIBUTES).chain(&SYMLINKS).chain(&REALTIME);
    all.find(|s| bytes.get(s.magic.0..).is_some_and(|b| b.starts_with(s.magic.1)))
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    if let Some(to) = bytes.get_mut(offset..).and_then(|b| b.get_mut(..value.len())) {
        to.copy_from_slice(value);
    }
}

impl Stamp {
    /// Writes magic number, UUID, address and checksum into a block.
    pub fn stamp(&self, bytes: &mut [u8], at: &Context<'_>) {
        put(bytes, self.magic.0, self.magic.1);
        put(bytes, self.uuid, &at.geometry.meta_uuid);
        if let Some(offset) = self.address {
            put(bytes, offset, &at.daddr.0.to_be_bytes());
        }
        if let (Some(offset), Some((ag, _))) = (self.ag, at.geometry.daddr_to_ag(at.daddr)) {
            put(bytes, offset, &ag.0.to_be_bytes());
        }
        (self.kind.seal)(bytes, Lsn(1 << 32));
    }
}

fn pick<'a>(stamps: &'a [Stamp], input: &Input<'_>) -> &'a Stamp {
    // What carries a magic number chooses for itself, so that blocks cut from an image are seeds as they are.
    let own = stamps.iter().find(|s| input.bytes.get(s.magic.0..).is_some_and(|b| b.starts_with(s.magic.1)));
    own.unwrap_or(&stamps[usize::from(input.choice) % stamps.len()])
}

fn run(stamps: &[Stamp], input: &Input<'_>) {
    let stamp = pick(stamps, input);
    // As it came, then as a block of the right length that passes the outer checks.
    let _ = examine(stamp, &mut input.bytes.to_vec(), &input.at());
    let g = input.geometry;
    let directory = std::ptr::eq(stamps.as_ptr(), DIRECTORIES.as_ptr());
    let length = if stamp.sector {
        g.sector_size
    } else if directory {
        g.dir_block_size
    } else {
        g.block_size
    };
    let mut bytes = input.bytes.to_vec();
    bytes.resize(length as usize, 0);
    stamp.stamp(&mut bytes, &input.at());
    let _ = examine(stamp, &mut bytes, &input.at());
}

/// Verifies a block as it stands and reads all that is in it.
pub fn examine(stamp: &Stamp, bytes: &mut [u8], at: &Context<'_>) -> Verdict {
    let verdict = (stamp.kind.verify)(bytes, at);
    match stamp.kind.name {
        "agfl" => {
            ag::agfl_slots(bytes).iter().for_each(|s| assert!(s.get() >> 31 <= 1));
        }
        "agf" | "agi" => {}
        name if TREES.iter().any(|t| t.kind.name == name) => super::trees::records(name, bytes),
        _ => {
            directory(bytes, at);
            attribute(bytes, at);
            let _ = part::payload(bytes);
            words(bytes, at.geometry);
        }
    }
    verdict
}

fn directory(bytes: &[u8], at: &Context<'_>) {
    let g = at.geometry;
    let _ = (DIR_ANY.verify)(bytes, at);
    let _ = (dir::block_type_of(bytes), dir::block_leaf(bytes));
    for e in dir::entries(bytes, g).take(1 << 16).flatten() {
        let hash = dir::hash_name(g, e.name);
        let _ = dir::entry_at(bytes, e.offset, g).map(|again| assert_eq!(again.name, e.name));
        let _ = dir::join_address(g, dir::leaf_start(g), e.offset);
        let _ = Leaf::from_bytes(bytes).map(|l| l.find(hash).count());
        let _ = (dir::is_valid_name(e.name), dir::is_valid_entry_ino(g, e.ino.0));
        let _ = libxfsr::text::escape(e.name);
    }
    assert!(dir::items(bytes, g).count() <= bytes.len() / 8 + 1, "more pieces than there is room for");
    if let Some(l) = Leaf::from_bytes(bytes) {
        for e in l.entries {
            let (_, offset) = dir::split_address(g, e.address.get());
            let _ = dir::entry_at(bytes, offset, g);
        }
    }
    let _ = Free::from_bytes(bytes).map(|f| f.bests.len());
    if let Some(n) = Node::from_bytes(bytes) {
        n.entries.iter().for_each(|e| assert!(n.find(e.hashval.get()).is_none_or(|i| i < n.entries.len())));
    }
}

fn attribute(bytes: &[u8], at: &Context<'_>) {
    let g = at.geometry;
    let _ = (ATTR_ANY.verify)(bytes, at);
    let _ = attr::block_type_of(bytes);
    if let Some(leaf) = AttrLeaf::from_bytes(bytes) {
        let _ = leaf.first_used();
        for a in leaf.attrs().flatten() {
            let _ = (a.size(), leaf.find(a.hash).count());
            if let attr::Value::Local(value) = a.value {
                let _ = attr::hash_attr(g, a.flags, a.name, value);
                let _ = attr::ParentRec::from_value(value).map(|_| attr::parent_hash(g, a.name, Ino(1)));
            }
        }
    }
}

fn words(bytes: &[u8], g: &Geometry) {
    let words = realtime::Words::of(bytes, g);
    let set: usize = words.iter().map(|w| w.count_ones() as usize).sum();
    let runs: usize = words.runs(usize::MAX).map(|(_, n)| n).sum();
    assert_eq!(set, runs, "runs of a bitmap");
}

/// Superblock and geometry: every conversion with the numbers that a hostile superblock gives.
pub(super) fn superblock(input: &Input<'_>) {
    let mut bytes = input.bytes.to_vec();
    bytes.resize(512, 0);
    put(&mut bytes, 0, b"XFSB");
    let _ = (SUPERBLOCK.verify)(&bytes, &input.at());
    (SUPERBLOCK.seal)(&mut bytes, Lsn(0));
    let _ = (SUPERBLOCK.verify)(&bytes, &input.at());
    let Ok((sb, _)) = Superblock::read_from_prefix(&bytes) else { return };
    let _ = (sb.version(), sb.features());
    let Ok(g) = Geometry::new(&sb) else { return };
    let _ = (SUPERBLOCK.verify)(&bytes, &Context::new(&g, input.daddr));
    let number = input.daddr.0 | u64::from(input.choice) << 56;
    for n in [0, 1, number, number >> 24, g.blocks, g.blocks.wrapping_sub(1), u64::MAX] {
        numbers(&g, n);
    }
}

fn numbers(g: &Geometry, n: u64) {
    let ag = AgNumber(n as u32);
    let _ = (g.ag_blocks(ag), g.bb_shift(), g.inodes_per_block(), g.cluster_blocks(), g.chunk_blocks());
    let _ = (g.cluster_align(), g.header_blocks(), g.agfl_slots(), g.agino_bits(), g.max_file_size());
    let _ = g.is_valid_agextent(ag, AgBlock(n as u32), (n >> 32) as u32);
    let _ = (g.split(FsBlock(n)), g.is_valid_fsblock(FsBlock(n)), g.is_valid_extent(FsBlock(n), n));
    if let Some(d) = g.fsblock_to_daddr(FsBlock(n)) {
        assert_eq!(g.daddr_to_fsblock(d), Some(FsBlock(n)), "block to address and back");
    }
    let _ = (g.daddr_to_ag(Daddr(n)), g.daddr_to_fsblock(Daddr(n)));
    let (a, agino) = g.split_ino(Ino(n));
    let _ = (g.is_valid_agino(a, agino), g.is_valid_ino(Ino(n)), g.ino_to_offset(Ino(n)));
    let _ = (g.agino_to_block(agino), g.is_valid_agino(ag, AgIno(n as u32)));
    let _ = g.is_valid_rt_extent(RtBlock(n), n >> 20);
    let _ = (realtime::words_per_block(g), realtime::extents_per_block(g), realtime::summary_index(63, n, n));
    let _ = (part::blocks(g, n as u32), dir::leaf_start(g), dir::free_start(g));
    let _ = (dir::split_address(g, n as u32), quota::slots_per_block(g.block_size as usize));
    for ag in g.ags().take(3).chain(g.ags().rev().take(3)) {
        let last = AgBlock(g.ag_blocks(ag).saturating_sub(1));
        assert!(g.is_valid_fsblock(g.join(ag, last)), "the last block of an AG");
        let _ = (g.header_daddr(ag, 3), g.agbno_to_daddr(ag, last), g.join_ino(ag, g.block_to_agino(last)));
    }
}

/// AGF, AGI, AGFL.
pub(super) fn ag_headers(input: &Input<'_>) {
    run(&AG_HEADERS, input);
}

/// The stamps of btree blocks: bnobt, cntbt, inobt, finobt, rmapbt, refcountbt, bmbt, rtrmapbt, rtrefcountbt.
pub fn tree_stamps() -> &'static [Stamp; 9] {
    &TREES
}

/// A block of any btree.
pub(super) fn btree_block(input: &Input<'_>) {
    run(&TREES, input);
}

/// Directory blocks of every form.
pub(super) fn directory_block(input: &Input<'_>) {
    run(&DIRECTORIES, input);
}

/// Attribute leaf, node, remote value.
pub(super) fn attribute_block(input: &Input<'_>) {
    run(&ATTRIBUTES, input);
}

/// A part of a symbolic link's target.
pub(super) fn symlink(input: &Input<'_>) {
    run(&SYMLINKS, input);
}

/// Realtime bitmap, summary and superblock.
pub(super) fn realtime(input: &Input<'_>) {
    run(&REALTIME, input);
    let (bitmap, summary) = realtime::block_types(input.geometry);
    let mut bytes = input.bytes.to_vec();
    for kind in [bitmap, summary, &RT_SUPER] {
        let _ = (kind.verify)(&bytes, &input.at());
        (kind.seal)(&mut bytes, Lsn(7));
        let _ = (kind.verify)(&bytes, &input.at());
    }
    let _ = realtime::put_word(&mut bytes, input.geometry, usize::from(input.choice), 7);
}

/// Quota records.
pub(super) fn dquot(input: &Input<'_>) {
    let mut bytes = input.bytes.to_vec();
    let _ = (quota::DQUOT_BLOCK.verify)(&bytes, &input.at());
    for slot in bytes.chunks_mut(quota::SLOT_SIZE) {
        put(slot, 0, &quota::MAGIC.to_be_bytes());
        put(slot, offset_of!(quota::DquotSlot, uuid), &input.geometry.meta_uuid);
        quota::seal_slot(slot, Lsn(1 << 32));
    }
    let _ = (quota::DQUOT_BLOCK.verify)(&bytes, &input.at());
    for s in quota::slots(&bytes) {
        let _ = (s.diskdq.kind(), s.diskdq.timer(s.diskdq.btimer), quota::log_type(s.diskdq.kind()));
    }
}
