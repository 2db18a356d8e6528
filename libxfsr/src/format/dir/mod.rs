//! Directories. Four forms, by size: *short* in the inode; *block*, one block that holds entries and their index; *leaf*, data
//! blocks and one index block that also says how much room each has; *node*, data blocks, a tree of index blocks and
//! free index blocks.
//!
//! The fork of a directory has three sections, each 32 GiB of its address space: data, index (leaves and nodes), free index. An
//! entry's place in the data section, divided by eight, is its 32-bit address. Book: chapter "Directories".

mod data;
mod leaf;
mod short;

pub(crate) use data::data_end;
pub use data::{
    BLOCK_MAGIC, BestFree, BlockTail, DATA_HEADER_SIZE, DATA_MAGIC, DIR_BLOCK, DIR_DATA, DataEntries, DataHeader,
    DataItem, DirHeader, FREE_TAG, block_leaf, entries, entry_at, entry_size, items,
};
pub use leaf::{
    DIR_FREE, DIR_LEAF1, DIR_LEAFN, FREE_MAGIC, Free, FreeHeader, LEAF1_MAGIC, LEAFN_MAGIC, Leaf, LeafEntry,
    LeafHeader, NULL_DATA_OFFSET,
};
pub use short::{ShortDir, ShortEntry, entry_size as short_entry_size, verify_short};

use super::inode::FileKind;
use super::{BlockType, Context, da};
use crate::error::{Corruption, Rule, Verdict};
use crate::geometry::Geometry;
use crate::units::{Daddr, FileBlock, Ino, to_usize};

/// Bytes of the file's address space for each section.
pub const SECTION: u64 = 1 << 35;
/// Longest name.
pub const MAX_NAME: usize = 255;
/// Entries are aligned to this; addresses count in it.
pub const ALIGN: usize = 8;

/// Kind of file in a directory entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum FileType {
    /// Not said.
    Unknown = 0,
    /// Regular file.
    Regular = 1,
    /// Directory.
    Directory = 2,
    /// Character device.
    CharDevice = 3,
    /// Block device.
    BlockDevice = 4,
    /// Named pipe.
    Fifo = 5,
    /// Socket.
    Socket = 6,
    /// Symbolic link.
    Symlink = 7,
    /// Whiteout of an overlay filesystem.
    Whiteout = 8,
}

impl FileType {
    /// From the byte on disk.
    pub fn from_u8(v: u8) -> Option<Self> {
        Some(match v {
            0 => Self::Unknown,
            1 => Self::Regular,
            2 => Self::Directory,
            3 => Self::CharDevice,
            4 => Self::BlockDevice,
            5 => Self::Fifo,
            6 => Self::Socket,
            7 => Self::Symlink,
            8 => Self::Whiteout,
            _ => return None,
        })
    }
    /// Of an inode's mode.
    pub fn from_mode(mode: u16) -> Self {
        FileKind::from_mode(mode).map_or(Self::Unknown, Self::from)
    }
    /// Its name, as xfs_db's `ls` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Regular => "regular",
            Self::Directory => "directory",
            Self::CharDevice => "chardev",
            Self::BlockDevice => "blkdev",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::Symlink => "symlink",
            Self::Whiteout => "whiteout",
        }
    }
}

impl From<FileKind> for FileType {
    fn from(kind: FileKind) -> Self {
        match kind {
            FileKind::Regular => Self::Regular,
            FileKind::Directory => Self::Directory,
            FileKind::CharDevice => Self::CharDevice,
            FileKind::BlockDevice => Self::BlockDevice,
            FileKind::Fifo => Self::Fifo,
            FileKind::Socket => Self::Socket,
            FileKind::Symlink => Self::Symlink,
        }
    }
}

/// The hash by which this filesystem's directories find a name.
pub fn hash_name(geometry: &Geometry, name: &[u8]) -> u32 {
    if geometry.features.ascii_ci() { da::hash_name_ci(name) } else { da::hash_name(name) }
}

/// Whether this filesystem takes two names as the same.
pub fn same_name(geometry: &Geometry, a: &[u8], b: &[u8]) -> bool {
    if geometry.features.ascii_ci() {
        a.len() == b.len() && a.iter().zip(b).all(|(x, y)| da::fold_case(*x) == da::fold_case(*y))
    } else {
        a == b
    }
}

/// Whether a name may stand in a directory: not empty, at most 255 bytes, no slash and no zero byte.
pub fn is_valid_name(name: &[u8]) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && !name.iter().any(|b| matches!(b, b'/' | 0))
}

/// Whether an inode number may stand in a directory entry: an inode could live there. That it is no quota or realtime inode
/// must be checked by who knows the superblock.
pub fn is_valid_entry_ino(geometry: &Geometry, ino: u64) -> bool {
    geometry.is_valid_ino(Ino(ino))
}

/// First block of the index section.
pub fn leaf_start(geometry: &Geometry) -> FileBlock {
    FileBlock(SECTION >> geometry.block_log)
}

/// First block of the free index section.
pub fn free_start(geometry: &Geometry) -> FileBlock {
    FileBlock((2 * SECTION) >> geometry.block_log)
}

/// First file block of the data block that an entry's address lies in, and the entry's offset in that block.
pub fn split_address(geometry: &Geometry, address: u32) -> (FileBlock, usize) {
    let byte = u64::from(address) * ALIGN as u64;
    let size = u64::from(geometry.dir_block_size);
    let block = byte / size;
    (FileBlock(block << geometry.dir_block_log), to_usize(byte % size))
}

/// Address of the entry at `offset` of the data block that begins at file block `block`; none where it is outside the section.
pub fn join_address(geometry: &Geometry, block: FileBlock, offset: usize) -> Option<u32> {
    let byte = block.0.checked_mul(u64::from(geometry.block_size))?.checked_add(offset as u64)?;
    u32::try_from(byte / ALIGN as u64).ok()
}

/// One directory entry, name and all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Offset in the block; in short form the offset that the entry would have in a block.
    pub offset: usize,
    /// The inode it names.
    pub ino: Ino,
    /// Its name: raw bytes, to be escaped before they are shown.
    pub name: &'a [u8],
    /// The byte for the kind of file; 0 without that feature. See [`FileType::from_u8`].
    pub ftype: u8,
}

/// The type of a directory's block, by its magic number.
pub fn block_type_of(bytes: &[u8]) -> Option<&'static BlockType> {
    if let Some(m) = bytes.first_chunk::<4>() {
        match zerocopy::big_endian::U32::from_bytes(*m).get() {
            BLOCK_MAGIC => return Some(&DIR_BLOCK),
            DATA_MAGIC => return Some(&DIR_DATA),
            FREE_MAGIC => return Some(&DIR_FREE),
            _ => {}
        }
    }
    match da::magic_of(bytes)? {
        LEAF1_MAGIC => Some(&DIR_LEAF1),
        LEAFN_MAGIC => Some(&DIR_LEAFN),
        da::NODE_MAGIC => Some(&da::DA_NODE),
        _ => None,
    }
}

fn verify_any(bytes: &[u8], at: &Context<'_>) -> Verdict {
    match block_type_of(bytes) {
        Some(t) => (t.verify)(bytes, at),
        None => {
            Err(Corruption::new("dirblock", "magic", Rule::Magic).at_daddr(at.daddr).expected("a directory's block"))
        }
    }
}

/// Any block of a directory, for reading one before it is known which it is. To change it, use the type that [`block_type_of`]
/// gives: only that has a type for the journal.
pub static DIR_ANY: BlockType = BlockType {
    name: "dirany",
    log_type: 0,
    lsn: |b| (block_type_of(b)?.lsn)(b),
    verify: verify_any,
    seal: |b, lsn| {
        if let Some(t) = block_type_of(b) {
            (t.seal)(b, lsn);
        }
    },
};

/// Who a directory's block says it belongs to; none where it is too short or no such block.
pub fn owner_of(bytes: &[u8]) -> Option<Ino> {
    use zerocopy::FromBytes;
    let t = block_type_of(bytes)?;
    if [&DIR_BLOCK, &DIR_DATA, &DIR_FREE].contains(&t) {
        DirHeader::ref_from_prefix(bytes).ok().map(|(h, _)| Ino(h.owner.get()))
    } else {
        da::BlockInfo::ref_from_prefix(bytes).ok().map(|(h, _)| Ino(h.owner.get()))
    }
}

/// Whether this is one of the types that [`block_type_of`] gives.
pub fn is_type(t: &BlockType) -> bool {
    [&DIR_BLOCK, &DIR_DATA, &DIR_FREE, &DIR_LEAF1, &DIR_LEAFN, &da::DA_NODE].contains(&t)
}

/// Where a directory's block says that it lives; none where it is too short or no such block.
pub fn address_of(bytes: &[u8]) -> Option<Daddr> {
    use zerocopy::FromBytes;
    let t = block_type_of(bytes)?;
    if [&DIR_BLOCK, &DIR_DATA, &DIR_FREE].contains(&t) {
        DirHeader::ref_from_prefix(bytes).ok().map(|(h, _)| Daddr(h.blkno.get()))
    } else {
        da::BlockInfo::ref_from_prefix(bytes).ok().map(|(h, _)| Daddr(h.blkno.get()))
    }
}

#[cfg(test)]
mod tests;
