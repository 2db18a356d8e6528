//! Structures of the kernel's ioctl interface, in native byte order. Layouts: `xfs/xfs_fs.h` and `linux/fsmap.h`.

use std::mem::offset_of;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct xfs_fsop_geom`, version 5.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the names of xfs_fs.h")]
pub struct FsGeometry {
    pub blocksize: u32,
    pub rtextsize: u32,
    pub agblocks: u32,
    pub agcount: u32,
    pub logblocks: u32,
    pub sectsize: u32,
    pub inodesize: u32,
    pub imaxpct: u32,
    pub datablocks: u64,
    pub rtblocks: u64,
    pub rtextents: u64,
    pub logstart: u64,
    pub uuid: [u8; 16],
    pub sunit: u32,
    pub swidth: u32,
    pub version: i32,
    pub flags: u32,
    pub logsectsize: u32,
    pub rtsectsize: u32,
    pub dirblocksize: u32,
    pub logsunit: u32,
    pub sick: u32,
    pub checked: u32,
    pub reserved: [u64; 17],
}
const _: () = assert!(size_of::<FsGeometry>() == 256);
const _: () = assert!(offset_of!(FsGeometry, uuid) == 64);
const _: () = assert!(offset_of!(FsGeometry, reserved) == 120);

/// Version that [`FsGeometry::version`] must carry.
pub const GEOMETRY_VERSION: i32 = 5;

/// Bits of [`FsGeometry::flags`].
#[allow(missing_docs, reason = "named as the features are")]
pub mod geometry_flag {
    pub const QUOTA: u32 = 1 << 2;
    pub const ATTR2: u32 = 1 << 10;
    pub const PROJID32: u32 = 1 << 11;
    pub const DIRV2CI: u32 = 1 << 12;
    pub const LAZYSB: u32 = 1 << 14;
    pub const V5SB: u32 = 1 << 15;
    pub const FTYPE: u32 = 1 << 16;
    pub const FINOBT: u32 = 1 << 17;
    pub const SPINODES: u32 = 1 << 18;
    pub const RMAPBT: u32 = 1 << 19;
    pub const REFLINK: u32 = 1 << 20;
    pub const BIGTIME: u32 = 1 << 21;
    pub const INOBTCNT: u32 = 1 << 22;
    pub const NREXT64: u32 = 1 << 23;
    pub const EXCHANGE_RANGE: u32 = 1 << 24;
    pub const PARENT: u32 = 1 << 25;
    pub const METADIR: u32 = 1 << 26;
}

/// `struct fsmap`: one mapping of the device, or a key of the search.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the names of fsmap.h")]
pub struct Fsmap {
    pub device: u32,
    pub flags: u32,
    /// Bytes.
    pub physical: u64,
    pub owner: u64,
    /// Bytes.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    pub reserved: [u64; 3],
}
const _: () = assert!(size_of::<Fsmap>() == 64);

/// Bits of [`Fsmap::flags`].
#[allow(missing_docs, reason = "named as in fsmap.h")]
pub mod fsmap_flag {
    pub const PREALLOC: u32 = 0x1;
    pub const ATTR_FORK: u32 = 0x2;
    pub const EXTENT_MAP: u32 = 0x4;
    pub const SHARED: u32 = 0x8;
    pub const SPECIAL_OWNER: u32 = 0x10;
    pub const LAST: u32 = 0x20;
}

/// `struct fsmap_head` without its records.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the names of fsmap.h")]
pub struct FsmapHead {
    pub iflags: u32,
    pub oflags: u32,
    pub count: u32,
    pub entries: u32,
    pub reserved: [u64; 6],
    pub keys: [Fsmap; 2],
}
const _: () = assert!(size_of::<FsmapHead>() == 192);

/// `struct xfs_bulk_ireq`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the names of xfs_fs.h")]
pub struct BulkRequest {
    pub ino: u64,
    pub flags: u32,
    pub icount: u32,
    pub ocount: u32,
    pub agno: u32,
    pub reserved: [u64; 5],
}
const _: () = assert!(size_of::<BulkRequest>() == 64);

/// [`BulkRequest::flags`]: 64-bit extent counters, since Linux 5.19.
pub const BULK_NREXT64: u32 = 1 << 2;

/// `struct xfs_bulkstat`, version 5.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the names of xfs_fs.h")]
pub struct Bulkstat {
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub xflags: u64,
    pub atime: i64,
    pub mtime: i64,
    pub ctime: i64,
    pub btime: i64,
    pub generation: u32,
    pub uid: u32,
    pub gid: u32,
    pub projectid: u32,
    pub atime_nsec: u32,
    pub mtime_nsec: u32,
    pub ctime_nsec: u32,
    pub btime_nsec: u32,
    pub blksize: u32,
    pub rdev: u32,
    pub cowextsize_blks: u32,
    pub extsize_blks: u32,
    pub nlink: u32,
    pub extents: u32,
    pub aextents: u32,
    pub version: u16,
    pub forkoff: u16,
    pub sick: u16,
    pub checked: u16,
    pub mode: u16,
    pub pad2: u16,
    pub extents64: u64,
    pub pad: [u64; 6],
}
const _: () = assert!(size_of::<Bulkstat>() == 192);
const _: () = assert!(offset_of!(Bulkstat, extents64) == 136);

/// A header and room for `N` records behind it, as these calls want them.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct WithRecords<H, R, const N: usize> {
    /// The header.
    pub head: H,
    /// The records; the header tells how many the kernel filled in.
    pub records: [R; N],
}

/// Mappings fetched by one call.
pub const FSMAP_BATCH: usize = 512;
/// Inodes fetched by one call.
pub const BULKSTAT_BATCH: usize = 256;

/// Buffer of GETFSMAP.
pub type FsmapBuffer = WithRecords<FsmapHead, Fsmap, FSMAP_BATCH>;
/// Buffer of BULKSTAT.
pub type BulkstatBuffer = WithRecords<BulkRequest, Bulkstat, BULKSTAT_BATCH>;
const _: () = assert!(offset_of!(FsmapBuffer, records) == 192);
const _: () = assert!(offset_of!(BulkstatBuffer, records) == 64);

/// `struct getbmapx`: the request, or one extent of a fork. Offsets, addresses and lengths count 512 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the names of xfs_fs.h")]
pub struct BmapX {
    pub offset: i64,
    pub block: i64,
    pub length: i64,
    /// Of the request: elements of the array, the request among them.
    pub count: i32,
    pub entries: i32,
    pub iflags: i32,
    pub oflags: i32,
    pub unused: [i32; 2],
}
const _: () = assert!(size_of::<BmapX>() == 48);

/// Bits of [`BmapX::iflags`] and [`BmapX::oflags`].
#[allow(missing_docs, reason = "named as in xfs_fs.h")]
pub mod bmap_flag {
    pub const IF_ATTRFORK: i32 = 0x1;
    pub const IF_PREALLOC: i32 = 0x4;
    pub const IF_DELALLOC: i32 = 0x8;
    pub const IF_NO_HOLES: i32 = 0x10;
    pub const OF_PREALLOC: i32 = 0x1;
    pub const OF_DELALLOC: i32 = 0x2;
    pub const OF_LAST: i32 = 0x4;
}

/// Extents fetched by one call.
pub const BMAP_BATCH: usize = 256;
/// Buffer of GETBMAPX.
pub type BmapBuffer = WithRecords<BmapX, BmapX, BMAP_BATCH>;
const _: () = assert!(offset_of!(BmapBuffer, records) == 48);

/// `struct xfs_handle`: a file by its number, good for as long as the filesystem exists.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the names of xfs_fs.h")]
pub struct Handle {
    pub fsid: u64,
    pub fid_len: u16,
    pub fid_pad: u16,
    pub fid_gen: u32,
    pub fid_ino: u64,
}
const _: () = assert!(size_of::<Handle>() == 24);

/// `FSLABEL_MAX`: bytes that GETFSLABEL writes.
pub const LABEL_MAX: usize = 256;
/// Argument of XFS_IOC_EXCHANGE_RANGE, which is called on the second file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the kernel's own names")]
pub struct ExchangeRange {
    pub file1_fd: i32,
    pub pad: u32,
    pub file1_offset: u64,
    pub file2_offset: u64,
    pub length: u64,
    pub flags: u64,
}
const _: () = assert!(size_of::<ExchangeRange>() == 40);
