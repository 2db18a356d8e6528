//! The first inode chunk: root directory, then realtime bitmap and summary or the metadata directories, then free inodes.

use super::layout::{Hints, Plan};
use super::realtime::group_files;
use crate::format::attr::AttrFlags;
use crate::format::btree::{BmbtRec, Extent, RmapRec, owner};
use crate::format::dir::FileType;
use crate::format::inode::{Flags, Flags2, MetaType};
use crate::format::seal_checksum;
use crate::units::{AgIno, AgNumber, NULL_AGINO};
use std::mem::offset_of;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::little_endian::U32 as Le32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The fields that a new inode sets, in their places; what a new inode leaves zero is not named.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Core {
    magic: U16,
    mode: U16,
    version: u8,
    format: u8,
    metatype: U16,
    zero1: [u8; 8],
    nlink: U32,
    projid_lo: U16,
    projid_hi: U16,
    big_nextents: U64,
    atime: U64,
    mtime: U64,
    ctime: U64,
    size: U64,
    nblocks: U64,
    extsize: U32,
    nextents: U32,
    anextents: U16,
    forkoff: u8,
    aformat: u8,
    zero2: [u8; 6],
    flags: U16,
    generation: U32,
    next_unlinked: U32,
    crc: Le32,
    changecount: U64,
    lsn: U64,
    flags2: U64,
    cowextsize: U32,
    zero3: [u8; 12],
    crtime: U64,
    ino: U64,
    uuid: [u8; 16],
}
const _: () = assert!(size_of::<Core>() == 176);
const _: () = assert!(offset_of!(Core, crc) == 100);

/// `di_flags` and `di_flags2` that mkfs sets.
const NEWRTBM: u16 = 1 << 2;
const RTINHERIT: u16 = 1 << 8;
const PROJINHERIT: u16 = 1 << 9;
const EXTSZINHERIT: u16 = 1 << 12;
const COWEXTSIZE: u64 = 1 << 2;
const BIGTIME: u64 = 1 << 3;
const NREXT64: u64 = 1 << 4;
/// Seconds from the start of bigtime to 1970.
const BIGTIME_OFFSET: i128 = 1 << 31;

/// Forks of an inode hold local data or extents.
const LOCAL: u8 = 1;
const EXTENTS: u8 = 2;
/// Root of a metadata btree.
const META_BTREE: u8 = 5;

/// Name of the directory of the realtime groups' files.
const GROUPS: &[u8] = b"rtgroups";
/// Where the attribute fork begins that a parent pointer needs, in units of 8 bytes.
const ATTR_FORK: u8 = 24;
/// `di_flags` of a directory in the metadata tree.
const METADATA_DIRECTORY: Flags = Flags::IMMUTABLE
    .union(Flags::SYNC)
    .union(Flags::NOATIME)
    .union(Flags::NODUMP)
    .union(Flags::NODEFRAG)
    .union(Flags::NOSYMLINKS);

/// Contents of one of the realtime section's files.
#[derive(Clone, Default, Debug)]
pub(super) struct File {
    pub(super) size: u64,
    pub(super) extents: Vec<Extent>,
}

/// An inode that mkfs makes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Made<'a> {
    /// The root directory.
    Root,
    /// The realtime bitmap.
    Bitmap(&'a File),
    /// Its summary.
    Summary(&'a File),
    /// Root of the metadata directory tree.
    MetadataRoot,
    /// The directory of the realtime groups' files, in that tree.
    Groups,
    /// Bitmap or summary of a realtime group.
    GroupFile(MetaType, &'a File),
    /// A tree of a realtime group; that of reverse mappings in the first group has the realtime superblock.
    GroupTree(MetaType, u32),
}

/// The whole chunk's bytes; `made` are its first inodes, the others are free.
pub(super) fn chunk(plan: &Plan, now: std::time::SystemTime, made: &[Made<'_>]) -> Vec<u8> {
    let g = &plan.geometry;
    let count = g.inodes_per_block().max(64);
    let (_, first) = g.split_ino(g.root_ino);
    let mut out = Vec::with_capacity((count * g.inode_size) as usize);
    for n in 0..count {
        let mut core = Core::new_zeroed();
        core.magic = U16::new(0x494e);
        core.version = 3;
        core.next_unlinked = U32::new(NULL_AGINO);
        core.ino = U64::new(g.join_ino(AgNumber(0), AgIno(first.0 + n)).0);
        core.uuid = g.meta_uuid;
        let this = made.get(n as usize);
        let fork = match this {
            Some(Made::Root) => root_directory(plan, &mut core),
            Some(Made::Bitmap(f)) => file(plan, &mut core, f, NEWRTBM),
            Some(Made::Summary(f)) => file(plan, &mut core, f, 0),
            Some(Made::MetadataRoot) => metadata_root(&mut core),
            Some(Made::Groups) => groups_directory(plan, &mut core),
            Some(Made::GroupFile(kind, f)) => {
                let fork = file(plan, &mut core, f, 0);
                metadata_file(&mut core, *kind);
                fork
            }
            Some(Made::GroupTree(kind, group)) => {
                metadata_file(&mut core, *kind);
                core.mode = U16::new(0o100000);
                core.nlink = U32::new(1);
                core.format = META_BTREE;
                tree_root(plan, *kind, *group)
            }
            None => Vec::new(),
        };
        if this.is_some() {
            used(plan, &mut core, now);
        }
        let mut bytes = core.as_bytes().to_vec();
        bytes.extend(fork);
        bytes.resize(g.inode_size as usize, 0);
        seal_checksum(&mut bytes, offset_of!(Core, crc));
        out.extend(bytes);
    }
    out
}

/// What every inode in use carries.
fn used(plan: &Plan, core: &mut Core, now: std::time::SystemTime) {
    let f = &plan.geometry.features;
    let nanos = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128);
    let stamp = |nanos: i128| {
        if f.bigtime() {
            U64::new((nanos + BIGTIME_OFFSET * 1_000_000_000) as u64)
        } else {
            U64::new(((nanos / 1_000_000_000) as u64 & 0xffff_ffff) << 32 | (nanos % 1_000_000_000) as u64)
        }
    };
    core.atime = stamp(0);
    (core.mtime, core.ctime, core.crtime) = (stamp(nanos), stamp(nanos), stamp(nanos));
    if core.aformat == 0 {
        core.aformat = EXTENTS;
    }
    if core.changecount.get() == 0 {
        core.changecount = U64::new(2);
    }
    let mut flags2 = core.flags2.get();
    if f.bigtime() {
        flags2 |= BIGTIME;
    }
    if f.nrext64() {
        flags2 |= NREXT64;
    }
    core.flags2 = U64::new(flags2);
}

fn root_directory(plan: &Plan, core: &mut Core) -> Vec<u8> {
    let g = &plan.geometry;
    let Hints { rtinherit, cowextsize, extsize, projid } = plan.hints;
    core.mode = U16::new(0o40755);
    core.format = LOCAL;
    core.nlink = U32::new(2);
    let mut flags = if rtinherit { RTINHERIT } else { 0 };
    if extsize > 0 {
        flags |= EXTSZINHERIT;
        core.extsize = U32::new(extsize);
    }
    if projid > 0 {
        flags |= PROJINHERIT;
        (core.projid_lo, core.projid_hi) = (U16::new(projid as u16), U16::new((projid >> 16) as u16));
    }
    core.flags = U16::new(flags);
    if cowextsize > 0 {
        core.flags2 = U64::new(COWEXTSIZE);
        core.cowextsize = U32::new(cowextsize);
    }
    directory(core, g.root_ino.0, &[])
}

/// Contents of a directory in short form: names, inodes and types. The inodes of the first chunk fit 32 bits.
fn directory(core: &mut Core, parent: u64, entries: &[(&[u8], u64, FileType)]) -> Vec<u8> {
    let mut fork = vec![entries.len() as u8, 0];
    fork.extend(U32::new(parent as u32).as_bytes());
    // Where the entry would lie in a block: behind its header and the two dots.
    let mut offset = 0x60;
    for (name, ino, kind) in entries {
        fork.push(name.len() as u8);
        fork.extend(U16::new(offset).as_bytes());
        fork.extend(*name);
        fork.push(*kind as u8);
        fork.extend(U32::new(*ino as u32).as_bytes());
        offset += (name.len() as u16 + 12).next_multiple_of(8);
    }
    core.size = U64::new(fork.len() as u64);
    fork
}

/// What all directories of the metadata tree have in common.
fn metadata_directory(core: &mut Core, links: u32) {
    core.mode = U16::new(0o40000);
    core.format = LOCAL;
    core.nlink = U32::new(links);
    core.metatype = U16::new(MetaType::Dir as u16);
    core.flags = U16::new(METADATA_DIRECTORY.bits());
    core.flags2 = U64::new(Flags2::METADATA.bits());
}

fn metadata_root(core: &mut Core) -> Vec<u8> {
    metadata_directory(core, 3);
    let own = core.ino.get();
    directory(core, own, &[(GROUPS, own + 1, FileType::Directory)])
}

fn groups_directory(plan: &Plan, core: &mut Core) -> Vec<u8> {
    metadata_directory(core, 2);
    let parent = core.ino.get() - 1;
    let g = &plan.geometry;
    let kinds = if g.rt_groups > 0 { group_files(&g.features) } else { Vec::new() };
    let mut names = Vec::new();
    for group in 0..g.rt_groups {
        names.extend(kinds.iter().map(|k| format!("{group}.{}", suffix(*k))));
    }
    let first = core.ino.get() + 1;
    let entries: Vec<_> = names.iter().zip(first..).map(|(n, i)| (n.as_bytes(), i, FileType::Regular)).collect();
    let mut fork = directory(core, parent, &entries);
    if plan.geometry.features.parent() {
        core.forkoff = ATTR_FORK;
        core.aformat = LOCAL;
        fork.resize(usize::from(ATTR_FORK) * 8, 0);
        // One attribute, a parent pointer: the name in the parent; the parent's number and generation, which is 0.
        let length = 4 + 3 + GROUPS.len() + 12;
        fork.extend([0, length as u8, 1, 0, GROUPS.len() as u8, 12, AttrFlags::PARENT.bits()]);
        fork.extend(GROUPS);
        fork.extend(U64::new(parent).as_bytes());
        fork.extend([0; 4]);
    }
    fork
}

/// What a file of a realtime group is called behind the group's number.
fn suffix(kind: MetaType) -> &'static str {
    match kind {
        MetaType::RtSummary => "summary",
        MetaType::RtRmap => "rmap",
        MetaType::RtRefcount => "refcount",
        _ => "bitmap",
    }
}

/// What all files of the metadata tree have in common.
fn metadata_file(core: &mut Core, kind: MetaType) {
    core.metatype = U16::new(kind as u16);
    core.flags = U16::new(METADATA_DIRECTORY.difference(Flags::NOSYMLINKS).bits());
    core.flags2 = U64::new(Flags2::METADATA.bits());
}

/// Root of a group's tree: a leaf, with the realtime superblock's record or none.
fn tree_root(plan: &Plan, kind: MetaType, group: u32) -> Vec<u8> {
    let record = kind == MetaType::RtRmap && group == 0;
    let mut fork = vec![0, 0, 0, record.into()];
    if record {
        let r = RmapRec {
            startblock: U32::new(0),
            blockcount: U32::new(plan.geometry.rt_extent_size),
            owner: U64::new(owner::FS),
            offset: U64::new(0),
        };
        fork.extend(r.as_bytes());
    }
    fork
}

fn file(plan: &Plan, core: &mut Core, file: &File, flags: u16) -> Vec<u8> {
    core.mode = U16::new(0o100000);
    core.format = EXTENTS;
    core.nlink = U32::new(1);
    core.size = U64::new(file.size);
    core.flags = U16::new(flags);
    if file.extents.is_empty() {
        return Vec::new();
    }
    core.nblocks = U64::new(file.extents.iter().map(|e| e.count).sum());
    // Each transaction that changed the file counted: mapping it, and for the bitmap also setting its size.
    core.changecount = U64::new(if flags & NEWRTBM != 0 { 4 } else { 3 });
    if plan.geometry.features.nrext64() {
        core.big_nextents = U64::new(file.extents.len() as u64);
    } else {
        core.nextents = U32::new(file.extents.len() as u32);
    }
    file.extents.iter().flat_map(|e| BmbtRec::pack(e).as_bytes().to_vec()).collect()
}
