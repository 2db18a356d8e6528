//! The inode: a core of 176 bytes, then the data fork, then (from `forkoff` on) the attribute fork.
//!
//! The core comes in the order in which it grew: what v1 had, the link and project numbers of v2, then from offset 100 on
//! what v5 added (checksum, version counter, LSN, second flag word, creation time, own number, UUID). Each inode carries its
//! own checksum, so a cluster of them has none. Book: chapters "On-disk Inode", "Data Extents".

mod fork;
mod verify;

pub use fork::{
    Extents, Fork, MAX_ATTR_EXTENTS, MAX_DATA_EXTENTS, Root, extents_in_fork, root_in_fork, root_pointers_offset,
};
pub use verify::{check_dinode, verify_dinode};

use super::{BlockType, put_lsn, seal_checksum};
use crate::error::ForkKind;
use crate::units::{Ino, Lsn, NULL_AGINO, halves};
use bitflags::bitflags;
use std::mem::offset_of;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::little_endian::U32 as Le32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `IN`.
pub const MAGIC: u16 = 0x494e;
/// The only version of a v5 filesystem.
pub const VERSION: u8 = 3;
/// Bytes before the data fork.
pub const CORE_SIZE: usize = 176;
/// Offset of the checksum.
pub const CRC_OFFSET: usize = offset_of!(Dinode, crc);
/// Offset of the pointer to the next unlinked inode.
pub const NEXT_UNLINKED_OFFSET: usize = offset_of!(Dinode, next_unlinked);
/// Largest link count.
pub const MAX_LINK: u32 = i32::MAX as u32;
/// Link count of a metadata directory tree's file that is in use.
pub const METADATA_LINK: u32 = 1;

/// The inode's core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct Dinode {
    pub magic: U16,
    pub mode: U16,
    pub version: u8,
    pub format: u8,
    /// Kind of metadata file; zero in all other inodes.
    pub metatype: U16,
    pub uid: U32,
    pub gid: U32,
    pub nlink: U32,
    pub projid_lo: U16,
    pub projid_hi: U16,
    /// With large counters: extents of the data fork. Else six bytes of padding and `flushiter`, which v3 leaves zero.
    pub big_nextents: U64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub size: U64,
    pub nblocks: U64,
    pub extsize: U32,
    /// Extents of the data fork; with large counters those of the attribute fork.
    pub nextents: U32,
    /// Extents of the attribute fork; with large counters padding.
    pub anextents: U16,
    pub forkoff: u8,
    pub aformat: u8,
    pub dmevmask: U32,
    pub dmstate: U16,
    pub flags: U16,
    pub generation: U32,
    pub next_unlinked: U32,
    pub crc: Le32,
    pub changecount: U64,
    pub lsn: U64,
    pub flags2: U64,
    pub cowextsize: U32,
    pub pad2: [u8; 12],
    pub crtime: Timestamp,
    pub ino: U64,
    pub uuid: [u8; 16],
}
const _: () = assert!(size_of::<Dinode>() == CORE_SIZE);
const _: () = assert!(CRC_OFFSET == 100);
const _: () = assert!(offset_of!(Dinode, forkoff) == 82);

/// A time on disk, whose meaning depends on the inode's bigtime flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Timestamp(pub U64);

const NANOS: u64 = 1_000_000_000;
/// Seconds by which bigtime counts from before 1970.
pub const BIGTIME_EPOCH: i64 = 1 << 31;
/// Last second that bigtime can hold: the kernel's limit, in July 2486.
pub const BIGTIME_MAX: i64 = ((u64::MAX / NANOS) & !3).cast_signed() - BIGTIME_EPOCH;

impl Timestamp {
    /// Seconds since 1970 and nanoseconds. A legacy time gives its nanoseconds as they stand, even where they are no fraction
    /// of a second.
    pub fn decode(self, bigtime: bool) -> (i64, u32) {
        let raw = self.0.get();
        if bigtime {
            ((raw / NANOS).cast_signed() - BIGTIME_EPOCH, halves(raw % NANOS).1)
        } else {
            let (seconds, nanos) = halves(raw);
            (i64::from(seconds.cast_signed()), nanos)
        }
    }
    /// Packs a time; none where it does not fit, for times are refused and never wrapped.
    pub fn encode(seconds: i64, nanos: u32, bigtime: bool) -> Option<Self> {
        if u64::from(nanos) >= NANOS {
            return None;
        }
        if bigtime {
            let s = u64::try_from(seconds.checked_add(BIGTIME_EPOCH)?).ok()?;
            return Some(Self(U64::new(s.checked_mul(NANOS)?.checked_add(u64::from(nanos))?)));
        }
        let s = i32::try_from(seconds).ok()?;
        Some(Self(U64::new(u64::from(s.cast_unsigned()) << 32 | u64::from(nanos))))
    }
}

bitflags! {
    /// `di_flags`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Flags: u16 {
        /// Data on the realtime device.
        const REALTIME = 1 << 0;
        /// Has preallocated blocks behind the end.
        const PREALLOC = 1 << 1;
        /// Realtime bitmap: its access time is the allocator's sequence number.
        const NEWRTBM = 1 << 2;
        /// Immutable.
        const IMMUTABLE = 1 << 3;
        /// Append only.
        const APPEND = 1 << 4;
        /// Written synchronously.
        const SYNC = 1 << 5;
        /// Access time is not kept.
        const NOATIME = 1 << 6;
        /// Skipped by dump.
        const NODUMP = 1 << 7;
        /// New files in this directory get REALTIME.
        const RTINHERIT = 1 << 8;
        /// New files in this directory get its project.
        const PROJINHERIT = 1 << 9;
        /// No symbolic links may be made here.
        const NOSYMLINKS = 1 << 10;
        /// `extsize` is set.
        const EXTSIZE = 1 << 11;
        /// New files in this directory get `extsize`.
        const EXTSZINHERIT = 1 << 12;
        /// Skipped by defragmentation.
        const NODEFRAG = 1 << 13;
        /// Filestreams allocator.
        const FILESTREAM = 1 << 14;
    }
    /// `di_flags2`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Flags2: u64 {
        /// Direct access to persistent memory.
        const DAX = 1 << 0;
        /// May share blocks.
        const REFLINK = 1 << 1;
        /// `cowextsize` is set.
        const COWEXTSIZE = 1 << 2;
        /// Times count nanoseconds since 1901.
        const BIGTIME = 1 << 3;
        /// Large extent counters.
        const NREXT64 = 1 << 4;
        /// Belongs to the metadata directory tree.
        const METADATA = 1 << 5;
    }
}

/// How a fork holds its contents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Format {
    /// A device number.
    Dev = 0,
    /// The contents themselves.
    Local = 1,
    /// Extent records.
    Extents = 2,
    /// Root of an extent btree.
    Btree = 3,
    /// Never used.
    Uuid = 4,
    /// Root of a realtime group's reverse mapping or reference count tree.
    MetaBtree = 5,
}

impl Format {
    /// From the byte on disk.
    pub fn from_u8(v: u8) -> Option<Self> {
        Some(match v {
            0 => Self::Dev,
            1 => Self::Local,
            2 => Self::Extents,
            3 => Self::Btree,
            4 => Self::Uuid,
            5 => Self::MetaBtree,
            _ => return None,
        })
    }
}

/// Kind of file, from the upper four bits of the mode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FileKind {
    /// Regular file.
    Regular,
    /// Directory.
    Directory,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Symbolic link.
    Symlink,
}

/// The bits of the mode that hold the kind.
pub const MODE_KIND: u16 = 0o170_000;

impl FileKind {
    /// From a mode; none where the bits name no kind (also in a free inode, whose mode is zero).
    pub fn from_mode(mode: u16) -> Option<Self> {
        Some(match mode & MODE_KIND {
            0o010_000 => Self::Fifo,
            0o020_000 => Self::CharDevice,
            0o040_000 => Self::Directory,
            0o060_000 => Self::BlockDevice,
            0o100_000 => Self::Regular,
            0o120_000 => Self::Symlink,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }
    /// Devices, pipes and sockets: their data fork is a device number.
    pub fn is_special(self) -> bool {
        matches!(self, Self::CharDevice | Self::BlockDevice | Self::Fifo | Self::Socket)
    }
}

/// Kind of a file in the metadata directory tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
pub enum MetaType {
    /// Not said.
    Unknown = 0,
    /// Directory.
    Dir = 1,
    /// User quota.
    UserQuota = 2,
    /// Group quota.
    GroupQuota = 3,
    /// Project quota.
    ProjectQuota = 4,
    /// Free space bitmap of a realtime group.
    RtBitmap = 5,
    /// Summary of that bitmap.
    RtSummary = 6,
    /// Reverse mappings of a realtime group.
    RtRmap = 7,
    /// Reference counts of a realtime group.
    RtRefcount = 8,
}

impl MetaType {
    /// From the number on disk.
    pub fn from_u16(v: u16) -> Option<Self> {
        Some(match v {
            0 => Self::Unknown,
            1 => Self::Dir,
            2 => Self::UserQuota,
            3 => Self::GroupQuota,
            4 => Self::ProjectQuota,
            5 => Self::RtBitmap,
            6 => Self::RtSummary,
            7 => Self::RtRmap,
            8 => Self::RtRefcount,
            _ => return None,
        })
    }
}

impl Dinode {
    /// All zero.
    pub fn zeroed() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }
    /// View of the start of an inode's bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<&Self> {
        Self::ref_from_prefix(bytes).ok().map(|(d, _)| d)
    }
    /// View of the start of an inode's bytes, for change.
    pub fn from_bytes_mut(bytes: &mut [u8]) -> Option<&mut Self> {
        Self::mut_from_prefix(bytes).ok().map(|(d, _)| d)
    }
    /// `di_flags`; unknown bits are kept.
    pub fn flags(&self) -> Flags {
        Flags::from_bits_retain(self.flags.get())
    }
    /// `di_flags2`; unknown bits are kept.
    pub fn flags2(&self) -> Flags2 {
        Flags2::from_bits_retain(self.flags2.get())
    }
    /// Kind of file; none in a free inode.
    pub fn kind(&self) -> Option<FileKind> {
        FileKind::from_mode(self.mode.get())
    }
    /// Not in use.
    pub fn is_free(&self) -> bool {
        self.mode.get() == 0
    }
    /// Directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == Some(FileKind::Directory)
    }
    /// Regular file.
    pub fn is_reg(&self) -> bool {
        self.kind() == Some(FileKind::Regular)
    }
    /// Symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind() == Some(FileKind::Symlink)
    }
    /// Device, pipe or socket.
    pub fn is_special(&self) -> bool {
        self.kind().is_some_and(FileKind::is_special)
    }
    /// Data lives on the realtime device.
    pub fn is_realtime(&self) -> bool {
        self.flags().contains(Flags::REALTIME)
    }
    /// May share blocks.
    pub fn is_reflink(&self) -> bool {
        self.flags2().contains(Flags2::REFLINK)
    }
    /// Belongs to the metadata directory tree.
    pub fn is_metadata(&self) -> bool {
        self.flags2().contains(Flags2::METADATA)
    }
    /// Times are bigtime.
    pub fn bigtime(&self) -> bool {
        self.flags2().contains(Flags2::BIGTIME)
    }
    /// Extent counters are large.
    pub fn nrext64(&self) -> bool {
        self.flags2().contains(Flags2::NREXT64)
    }
    /// Kind of metadata file; none where the inode is not one, or the number is unknown.
    pub fn metatype(&self) -> Option<MetaType> {
        if self.is_metadata() { MetaType::from_u16(self.metatype.get()) } else { None }
    }
    /// Project.
    pub fn project(&self) -> u32 {
        u32::from(self.projid_hi.get()) << 16 | u32::from(self.projid_lo.get())
    }
    /// Access time, modification time, change time and creation time, in that order: seconds and nanoseconds.
    pub fn times(&self) -> [(i64, u32); 4] {
        let big = self.bigtime();
        [self.atime, self.mtime, self.ctime, self.crtime].map(|t| t.decode(big))
    }
    /// Extents of a fork.
    pub fn extents(&self, fork: ForkKind) -> u64 {
        match (fork, self.nrext64()) {
            (ForkKind::Data, true) => self.big_nextents.get(),
            (ForkKind::Data, false) => u64::from(self.nextents.get()),
            (ForkKind::Attr, true) => u64::from(self.nextents.get()),
            (ForkKind::Attr, false) => u64::from(self.anextents.get()),
        }
    }
    /// Sets a fork's number of extents; false, and no change, where the field is too small.
    #[must_use]
    pub fn set_extents(&mut self, fork: ForkKind, count: u64) -> bool {
        let (word, half) = (u32::try_from(count), u16::try_from(count));
        match (fork, self.nrext64(), word, half) {
            (ForkKind::Data, true, ..) if count <= MAX_DATA_EXTENTS.1 => self.big_nextents.set(count),
            (ForkKind::Data, false, Ok(n), _) if count <= MAX_DATA_EXTENTS.0 => self.nextents.set(n),
            (ForkKind::Attr, true, Ok(n), _) if count <= MAX_ATTR_EXTENTS.1 => self.nextents.set(n),
            (ForkKind::Attr, false, _, Ok(n)) if count <= MAX_ATTR_EXTENTS.0 => self.anextents.set(n),
            _ => return false,
        }
        true
    }
    /// Most extents that the fork's counter may hold.
    pub fn max_extents(&self, fork: ForkKind) -> u64 {
        let (small, large) = if fork == ForkKind::Data { MAX_DATA_EXTENTS } else { MAX_ATTR_EXTENTS };
        if self.nrext64() { large } else { small }
    }
    /// Whether there is an attribute fork.
    pub fn has_attr_fork(&self) -> bool {
        self.forkoff != 0
    }
    /// Format of a fork; none where the byte means nothing, or there is no attribute fork.
    pub fn format(&self, fork: ForkKind) -> Option<Format> {
        match fork {
            ForkKind::Data => Format::from_u8(self.format),
            ForkKind::Attr if self.has_attr_fork() => Format::from_u8(self.aformat),
            ForkKind::Attr => None,
        }
    }
    /// Byte range of a fork in an inode of `inode_size` bytes; empty where it does not exist or `forkoff` is out of range.
    pub fn fork_range(&self, fork: ForkKind, inode_size: usize) -> std::ops::Range<usize> {
        let split = match usize::from(self.forkoff) * 8 {
            0 => inode_size,
            n => CORE_SIZE + n,
        };
        match fork {
            ForkKind::Data => CORE_SIZE.min(inode_size)..split.min(inode_size).max(CORE_SIZE.min(inode_size)),
            ForkKind::Attr => split.min(inode_size)..inode_size,
        }
    }
    /// Bytes of a fork in an inode of `inode_size` bytes.
    pub fn fork_size(&self, fork: ForkKind, inode_size: usize) -> usize {
        self.fork_range(fork, inode_size).len()
    }
}

/// The bytes of a fork in a whole inode.
pub fn fork_bytes(inode: &[u8], fork: ForkKind) -> &[u8] {
    Dinode::from_bytes(inode).and_then(|d| inode.get(d.fork_range(fork, inode.len()))).unwrap_or(&[])
}

/// The bytes of a fork in a whole inode, for change.
pub fn fork_bytes_mut(inode: &mut [u8], fork: ForkKind) -> &mut [u8] {
    let len = inode.len();
    match Dinode::from_bytes(inode).map(|d| d.fork_range(fork, len)) {
        Some(r) => inode.get_mut(r).unwrap_or(&mut []),
        None => &mut [],
    }
}

/// Device number in a data fork of format [`Format::Dev`]: major and minor number as XFS packs them (14 and 18 bits).
pub fn device_numbers(fork: &[u8]) -> Option<(u32, u32)> {
    let v = U32::ref_from_prefix(fork).ok()?.0.get();
    Some((v >> 18 & 0x3fff, v & 0x3_ffff))
}

/// Stamps an inode's LSN and checksum. `inode` is the whole inode, core and forks.
pub fn seal_dinode(inode: &mut [u8], lsn: Lsn) {
    put_lsn(inode, offset_of!(Dinode, lsn), lsn);
    seal_checksum(inode, CRC_OFFSET);
}

/// Makes a free inode of a new chunk, with the checksum that it has before anything is stamped. `inode` is the whole inode.
pub fn init_free(inode: &mut [u8], ino: Ino, generation: u32, uuid: &[u8; 16]) {
    inode.fill(0);
    if let Some(d) = Dinode::from_bytes_mut(inode) {
        d.magic.set(MAGIC);
        d.version = VERSION;
        d.generation.set(generation);
        d.next_unlinked.set(NULL_AGINO);
        d.ino.set(ino.0);
        d.uuid = *uuid;
    }
    seal_dinode(inode, Lsn(0));
}

/// A cluster of inodes. The cluster has no checksum of its own: verifying it looks at what the kernel looks at (magic, version
/// and unlinked pointer of each inode), [`verify_dinode`] at one inode. Sealing does nothing, because it may not mend
/// the checksums of inodes that nobody changed: who changes an inode calls [`seal_dinode`].
pub static INODE_CLUSTER: BlockType =
    BlockType { name: "inode", log_type: 8, lsn: |_| None, verify: verify::verify_cluster, seal: |_, _| {} };

#[cfg(test)]
mod tests;
