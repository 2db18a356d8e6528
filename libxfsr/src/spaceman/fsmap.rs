//! Who owns what, in the kernel's terms: `linux/fsmap.h`, `xfs/xfs_fs.h`.

use crate::btree::kinds::Refcount;
use crate::btree::{Store, query};
use crate::error::Result;
use crate::format::btree::{
    REFCOUNT_COW, RMAP_ATTR_FORK, RMAP_BMBT_BLOCK, RMAP_OFFSET_MASK, RMAP_UNWRITTEN, RefcountKey, RmapRec, owner,
};
use crate::units::{Device, Ino};
use serde::Serialize;
use std::ops::ControlFlow;
use zerocopy::big_endian::U32;

/// Who owns an extent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// Nobody.
    Free,
    /// Not known: there are no reverse mappings.
    Unknown,
    /// Superblocks and AG headers.
    Fs,
    /// The journal.
    Log,
    /// Free space trees, reverse mapping tree and free list.
    Ag,
    /// Inode trees.
    Inobt,
    /// Inode chunks.
    Inodes,
    /// Reference count tree.
    Refcount,
    /// Staging for copy on write.
    Cow,
    /// Damaged media.
    Defective,
    /// Some metadata.
    Metadata,
    /// A file.
    Inode(Ino),
    /// An owner that this library does not know, by its number.
    Other(u64),
}

impl Owner {
    /// From an owner in the rmapbt.
    pub fn from_rmap(o: u64) -> Self {
        match o {
            owner::FS => Self::Fs,
            owner::LOG => Self::Log,
            owner::AG => Self::Ag,
            owner::INOBT => Self::Inobt,
            owner::INODES => Self::Inodes,
            owner::REFC => Self::Refcount,
            owner::COW => Self::Cow,
            owner::UNKNOWN => Self::Unknown,
            o if owner::is_special(o) => Self::Other(o),
            o => Self::Inode(Ino(o)),
        }
    }

    /// From a special owner of GETFSMAP: a type in the upper half, a code in the lower.
    pub fn from_fsmap(o: u64) -> Self {
        const XFS: u64 = b'X' as u64;
        match (o >> 32, o & 0xffff_ffff) {
            (0, 1) => Self::Free,
            (0, 2) => Self::Unknown,
            (0, 3) => Self::Metadata,
            (XFS, 1) => Self::Fs,
            (XFS, 2) => Self::Log,
            (XFS, 3) => Self::Ag,
            (XFS, 4) => Self::Inobt,
            (XFS, 5) => Self::Inodes,
            (XFS, 6) => Self::Refcount,
            (XFS, 7) => Self::Cow,
            (XFS, 8) => Self::Defective,
            _ => Self::Other(o),
        }
    }

    /// The name that xfs_io's `fsmap` prints.
    pub fn name(&self) -> String {
        match self {
            Self::Free => "free space".into(),
            Self::Unknown => "unknown".into(),
            Self::Fs => "static fs metadata".into(),
            Self::Log => "journalling log".into(),
            Self::Ag => "per-AG metadata".into(),
            Self::Inobt => "inode btree".into(),
            Self::Inodes => "inodes".into(),
            Self::Refcount => "refcount btree".into(),
            Self::Cow => "cow reservation".into(),
            Self::Defective => "defective".into(),
            Self::Metadata => "metadata".into(),
            Self::Inode(i) => format!("inode {i}"),
            Self::Other(o) => format!("special {}:{}", o >> 32, o & 0xffff_ffff),
        }
    }
}

/// One extent of a device and its owner. An extent that several files share occurs once for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Mapping {
    /// The device.
    pub device: Device,
    /// First byte on it.
    pub physical: u64,
    /// Bytes.
    pub length: u64,
    /// Owner.
    pub owner: Owner,
    /// Byte in the owner's fork; 0 where the owner is no file.
    pub offset: u64,
    /// In the attribute fork.
    pub attr_fork: bool,
    /// A block of the fork's own extent btree.
    pub extent_map: bool,
    /// Allocated, not written.
    pub unwritten: bool,
    /// Other files own (part of) it too.
    pub shared: bool,
}

impl Mapping {
    /// From a reverse mapping at that byte of the device; whether it is shared is left open.
    pub(super) fn of_record(device: Device, physical: u64, r: &RmapRec, block_log: u8) -> Self {
        let owner = Owner::from_rmap(r.owner.get());
        let mut m = Self::special(device, physical, u64::from(r.blockcount.get()) << block_log, owner);
        if matches!(owner, Owner::Inode(_)) {
            let offset = r.offset.get();
            m.attr_fork = offset & RMAP_ATTR_FORK != 0;
            m.extent_map = offset & RMAP_BMBT_BLOCK != 0;
            m.unwritten = offset & RMAP_UNWRITTEN != 0;
            // What the kernel answers: a block of the extent map has no place in the file.
            m.offset =
                if m.extent_map { 0 } else { (offset & RMAP_OFFSET_MASK).checked_shl(block_log.into()).unwrap_or(0) };
        }
        m
    }
    /// Whether such an extent can be shared: written data of a file.
    pub(super) fn may_be_shared(&self) -> bool {
        matches!(self.owner, Owner::Inode(_)) && !self.attr_fork && !self.extent_map && !self.unwritten
    }
    /// An extent of an owner that is no file.
    pub(super) fn special(device: Device, physical: u64, length: u64, owner: Owner) -> Self {
        Self {
            device,
            physical,
            length,
            owner,
            offset: 0,
            attr_fork: false,
            extent_map: false,
            unwritten: false,
            shared: false,
        }
    }
}

/// Whether the reference counts have a shared extent among the blocks of a reverse mapping.
pub(super) fn is_shared<S: Store>(counts: &S, r: &RmapRec) -> Result<bool> {
    let key = |b: u32| RefcountKey { startblock: U32::new(b) };
    let start = r.startblock.get();
    let last = start.saturating_add(r.blockcount.get().saturating_sub(1));
    let mut shared = false;
    query::<Refcount, _>(counts, &key(start), &key(last), &mut |r| {
        shared = r.startblock.get() & REFCOUNT_COW == 0 && r.refcount.get() > 1;
        if shared { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(shared)
}
