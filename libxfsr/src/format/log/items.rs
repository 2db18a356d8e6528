//! Formats of the log items: the first region of each item says what it is and how to read the regions behind it.
//!
//! All begin with type and number of regions (intents: always 1). They stand in the byte order of the machine, here
//! little-endian; only [`IcreateFormat`] is big-endian. Layouts are those of 64-bit machines; where 32-bit machines pad otherwise, a second
//! structure says so.

use crate::error::{Corruption, Rule};
use bitflags::bitflags;
use zerocopy::big_endian::U32 as Be32;
use zerocopy::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First word of a transaction header: "TRAN".
pub const TRANSACTION_MAGIC: u32 = 0x5452_414e;
/// Type of every transaction that today's kernels write.
pub const TRANSACTION_CHECKPOINT: u32 = 40;

/// Declares on-disk structures with their sizes.
macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident = $size:literal { $($(#[$fdoc:meta])* $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        #[allow(missing_docs, reason = "fields carry the format's own names")]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

/// What an item logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
#[allow(
    missing_docs,
    reason = "names are the format's own; the -i item is an intent, the -d item says that it is done"
)]
pub enum ItemType {
    Efi = 0x1236,
    Efd = 0x1237,
    /// Never written by today's kernels.
    Iunlink = 0x1238,
    Inode = 0x123b,
    Buf = 0x123c,
    Dquot = 0x123d,
    Quotaoff = 0x123e,
    Icreate = 0x123f,
    Rui = 0x1240,
    Rud = 0x1241,
    Cui = 0x1242,
    Cud = 0x1243,
    Bui = 0x1244,
    Bud = 0x1245,
    Attri = 0x1246,
    Attrd = 0x1247,
    Xmi = 0x1248,
    Xmd = 0x1249,
    EfiRt = 0x124a,
    EfdRt = 0x124b,
    RuiRt = 0x124c,
    RudRt = 0x124d,
    CuiRt = 0x124e,
    CudRt = 0x124f,
}

impl ItemType {
    /// All types.
    pub const ALL: [Self; 24] = [
        Self::Efi,
        Self::Efd,
        Self::Iunlink,
        Self::Inode,
        Self::Buf,
        Self::Dquot,
        Self::Quotaoff,
        Self::Icreate,
        Self::Rui,
        Self::Rud,
        Self::Cui,
        Self::Cud,
        Self::Bui,
        Self::Bud,
        Self::Attri,
        Self::Attrd,
        Self::Xmi,
        Self::Xmd,
        Self::EfiRt,
        Self::EfdRt,
        Self::RuiRt,
        Self::RudRt,
        Self::CuiRt,
        Self::CudRt,
    ];
    /// Its name, as the format writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Efi => "efi",
            Self::Efd => "efd",
            Self::Iunlink => "iunlink",
            Self::Inode => "inode",
            Self::Buf => "buf",
            Self::Dquot => "dquot",
            Self::Quotaoff => "quotaoff",
            Self::Icreate => "icreate",
            Self::Rui => "rui",
            Self::Rud => "rud",
            Self::Cui => "cui",
            Self::Cud => "cud",
            Self::Bui => "bui",
            Self::Bud => "bud",
            Self::Attri => "attri",
            Self::Attrd => "attrd",
            Self::Xmi => "xmi",
            Self::Xmd => "xmd",
            Self::EfiRt => "efi_rt",
            Self::EfdRt => "efd_rt",
            Self::RuiRt => "rui_rt",
            Self::RudRt => "rud_rt",
            Self::CuiRt => "cui_rt",
            Self::CudRt => "cud_rt",
        }
    }
    /// From the number in the log.
    pub fn from_u16(v: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|t| *t as u16 == v)
    }
    /// Of an item's first region.
    pub fn of(region: &[u8]) -> Option<Self> {
        Self::from_u16(ItemHead::ref_from_prefix(region).ok()?.0.kind.get())
    }
    /// Whether it is an intent that must be finished by a done item.
    pub fn is_intent(self) -> bool {
        self.done().is_some()
    }
    /// The done item of an intent.
    pub fn done(self) -> Option<Self> {
        Some(match self {
            Self::Efi => Self::Efd,
            Self::Rui => Self::Rud,
            Self::Cui => Self::Cud,
            Self::Bui => Self::Bud,
            Self::Attri => Self::Attrd,
            Self::Xmi => Self::Xmd,
            Self::EfiRt => Self::EfdRt,
            Self::RuiRt => Self::RudRt,
            Self::CuiRt => Self::CudRt,
            _ => return None,
        })
    }
}

layouts! {
    /// What every item's first region begins with.
    ItemHead = 4 { kind: U16, size: U16, }
    /// First region of a transaction.
    TransactionHeader = 16 { magic: U32, kind: U32, tid: I32, num_items: U32, }
    /// Buffer: behind it `map_size` words, a bit for each chunk of 128 bytes that is logged; each run of bits is a region.
    BufFormat = 20 { kind: U16, size: U16, flags: U16, len: U16, blkno: I64, map_size: U32, }
    /// Inode: regions behind it are the core ([`LogDinode`]), then those that `fields` names.
    InodeFormat = 56 {
        kind: U16, size: U16, fields: U32, asize: U16, dsize: U16, pad: U32, ino: U64,
        /// Device number in the first word, or a UUID.
        u: [u8; 16],
        blkno: I64, len: I32, boffset: I32,
    }
    /// Inode, as 32-bit machines write it.
    InodeFormat32 = 52 {
        kind: U16, size: U16, fields: U32, asize: U16, dsize: U16, ino: U64, u: [u8; 16], blkno: I64, len: I32, boffset: I32,
    }
    /// An inode's core in the log: as on disk, in host byte order; legacy times are two 32-bit words, seconds first.
    LogDinode = 176 {
        magic: U16, mode: U16, version: u8, format: u8, metatype: U16, uid: U32, gid: U32, nlink: U32, projid_lo: U16,
        projid_hi: U16, big_nextents: U64, atime: U64, mtime: U64, ctime: U64, size: U64, nblocks: U64, extsize: U32,
        nextents: U32, anextents: U16, forkoff: u8, aformat: u8, dmevmask: U32, dmstate: U16, flags: U16, generation: U32,
        /// Not valid: the field is logged with its buffer.
        next_unlinked: U32,
        /// Not valid.
        crc: U32,
        changecount: U64, lsn: U64, flags2: U64, cowextsize: U32, pad2: [u8; 12], crtime: U64, ino: U64, uuid: [u8; 16],
    }
    /// Quota record: the record itself is the second region, big-endian as on disk.
    DquotFormat = 24 { kind: U16, size: U16, id: U32, blkno: I64, len: I32, boffset: U32, }
    /// Quota was turned off; written by older kernels.
    QuotaoffFormat = 20 { kind: U16, size: U16, flags: U32, pad: [u8; 12], }
    /// Inode chunk that is to be initialised. Type and size in host order, the rest big-endian.
    IcreateFormat = 28 {
        kind: U16, size: U16, ag: Be32, agbno: Be32, count: Be32, isize: Be32, length: Be32, generation: Be32,
    }
    /// Head of extents to free; behind it `nextents` extents.
    EfiFormat = 16 { kind: U16, size: U16, nextents: U32, id: U64, }
    /// Extent of an EFI or EFD. As 64-bit machines pad it.
    EfiExtent = 16 { start: U64, len: U32, pad: U32, }
    /// Extent of an EFI or EFD on 32-bit machines.
    EfiExtent32 = 12 { start: U64, len: U32, }
    /// Head of reverse mapping changes; behind it `nextents` of [`MapExtent`].
    RuiFormat = 16 { kind: U16, size: U16, nextents: U32, id: U64, }
    /// A change of a reverse mapping or of a file's mapping.
    MapExtent = 32 { owner: U64, startblock: U64, startoff: U64, len: U32, flags: U32, }
    /// Head of reference count changes; behind it `nextents` of [`PhysExtent`].
    CuiFormat = 16 { kind: U16, size: U16, nextents: U32, id: U64, }
    /// A change of a reference count.
    PhysExtent = 16 { startblock: U64, len: U32, flags: U32, }
    /// Head of file mapping changes; behind it `nextents` (always 1) of [`MapExtent`].
    BuiFormat = 16 { kind: U16, size: U16, nextents: U32, id: U64, }
    /// Done item of a RUI, CUI, BUI, ATTRI or XMI. That of an EFI has extents: [`EfiFormat`].
    DoneFormat = 16 { kind: U16, size: U16, pad: U32, id: U64, }
    /// Change of an attribute: behind it a region for each of name, new name, value and new value that has a length.
    AttriFormat = 40 {
        kind: U16, size: U16,
        /// Generation of the inode, in the operations on parent pointers; else padding.
        igen: U32,
        id: U64, ino: U64, op_flags: U32,
        /// Length of the name; in [`AttrOp::PptrReplace`] that of the old in the lower and of the new in the upper half.
        name_len: U32,
        value_len: U32, attr_filter: U32,
    }
    /// Exchange of mappings of two inodes.
    XmiFormat = 88 {
        kind: U16, size: U16, pad: U32, id: U64, ino1: U64, ino2: U64, igen1: U32, igen2: U32, startoff1: U64, startoff2: U64,
        blockcount: U64, flags: U64, isize1: I64, isize2: I64,
    }
}

/// Bytes of a chunk of a buffer, one bit of the map.
pub const BUF_CHUNK: usize = 128;
/// Bits 11 to 15 of a buffer's flags are its type: see [`BlockType::log_type`](crate::format::BlockType).
pub const BUF_TYPE_SHIFT: u32 = 11;
/// Most words of a buffer's map: 64 KiB, and one for a buffer that is not aligned.
pub const BUF_MAP_WORDS: usize = 17;

bitflags! {
    /// Flags of a buffer item below its type.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct BufFlags: u16 {
        /// Cluster of inodes: only the unlinked pointers count.
        const INODE_BUF = 1 << 0;
        /// Freed: earlier items of the buffer must not be replayed.
        const CANCEL = 1 << 1;
        /// User quota records.
        const UDQUOT = 1 << 2;
        /// Project quota records.
        const PDQUOT = 1 << 3;
        /// Group quota records.
        const GDQUOT = 1 << 4;
    }
    /// `ilf_fields`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct InodeFields: u32 {
        /// Core.
        const CORE = 0x1;
        /// Local data fork.
        const DDATA = 0x2;
        /// Extents of the data fork.
        const DEXT = 0x4;
        /// Btree root of the data fork.
        const DBROOT = 0x8;
        /// Device number.
        const DEV = 0x10;
        /// UUID; never used.
        const UUID = 0x20;
        /// Local attribute fork.
        const ADATA = 0x40;
        /// Extents of the attribute fork.
        const AEXT = 0x80;
        /// Btree root of the attribute fork.
        const ABROOT = 0x100;
        /// Owner of the data fork's btree blocks changes.
        const DOWNER = 0x200;
        /// Owner of the attribute fork's btree blocks changes.
        const AOWNER = 0x400;
        /// Only times changed.
        const TIMESTAMP = 0x4000;
        /// The change counter changed.
        const IVERSION = 0x8000;
    }
    /// Flags of an exchange.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct ExchangeFlags: u64 {
        /// Attribute forks.
        const ATTR_FORK = 1 << 0;
        /// File sizes too.
        const SET_SIZES = 1 << 1;
        /// Only mappings that are written in the first inode.
        const INO1_WRITTEN = 1 << 2;
        /// Clear the first inode's reflink flag.
        const CLEAR_INO1_REFLINK = 1 << 3;
        /// Clear the second inode's reflink flag.
        const CLEAR_INO2_REFLINK = 1 << 4;
    }
    /// Flags of a reverse mapping change above the kind of change in the low byte.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RmapFlags: u32 {
        /// Unwritten.
        const UNWRITTEN = 1 << 29;
        /// Block of an extent btree.
        const BMBT_BLOCK = 1 << 30;
        /// Attribute fork.
        const ATTR_FORK = 1 << 31;
    }
    /// Flags of a file mapping change above the kind of change in the low byte.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct BmapFlags: u32 {
        /// On the realtime device.
        const REALTIME = 1 << 29;
        /// Unwritten.
        const UNWRITTEN = 1 << 30;
        /// Attribute fork.
        const ATTR_FORK = 1 << 31;
    }
}

/// Kind of change in the low byte of a reverse mapping change's flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "names are the format's own")]
pub enum RmapOp {
    Map = 1,
    MapShared = 2,
    Unmap = 3,
    UnmapShared = 4,
    Convert = 5,
    ConvertShared = 6,
    Alloc = 7,
    Free = 8,
}

/// Kind of change in the low byte of a reference count change's flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "names are the format's own")]
pub enum RefcountOp {
    Increase = 1,
    Decrease = 2,
    AllocCow = 3,
    FreeCow = 4,
}

/// Kind of change in the low byte of a file mapping change's flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "names are the format's own")]
pub enum BmapOp {
    Map = 1,
    Unmap = 2,
}

/// Operation of an attribute change, in the low byte of its flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "names are the format's own")]
pub enum AttrOp {
    Set = 1,
    Remove = 2,
    Replace = 3,
    PptrSet = 4,
    PptrRemove = 5,
    PptrReplace = 6,
}

macro_rules! from_low_byte {
    ($($name:ident: $($variant:ident)*;)*) => {$(
        impl $name {
            /// From a flag word.
            pub fn from_flags(flags: u32) -> Option<Self> {
                [$(Self::$variant),*].into_iter().find(|v| *v as u32 == flags & 0xff)
            }
        }
    )*};
}

from_low_byte! {
    RmapOp: Map MapShared Unmap UnmapShared Convert ConvertShared Alloc Free;
    RefcountOp: Increase Decrease AllocCow FreeCow;
    BmapOp: Map Unmap;
    AttrOp: Set Remove Replace PptrSet PptrRemove PptrReplace;
}

impl BufFormat {
    /// Flags without the type.
    pub fn flags(&self) -> BufFlags {
        BufFlags::from_bits_truncate(self.flags.get())
    }
    /// Type of the buffer.
    pub fn block_type(&self) -> u8 {
        (self.flags.get() >> BUF_TYPE_SHIFT) as u8
    }
}

fn short(field: &'static str, region: &[u8]) -> Box<Corruption> {
    Corruption::new("log", field, Rule::Truncated).found(format_args!("a region of {} bytes", region.len()))
}

/// A buffer item's format and map.
///
/// # Errors
/// The map is longer than a map can be, or than the region.
pub fn buf_item(region: &[u8]) -> Result<(&BufFormat, &[U32]), Box<Corruption>> {
    let (format, rest) = BufFormat::ref_from_prefix(region).map_err(|_| short("buf", region))?;
    let n = usize::try_from(format.map_size.get()).unwrap_or(usize::MAX);
    if n > BUF_MAP_WORDS {
        return Err(Corruption::new("log", "map_size", Rule::Range)
            .found(n)
            .expected(format_args!("at most {BUF_MAP_WORDS}")));
    }
    let (map, _) = <[U32]>::ref_from_prefix_with_elems(rest, n).map_err(|_| short("map", region))?;
    Ok((format, map))
}

/// Runs of set bits in a buffer's map: first chunk and number of chunks. Each is one region of the item.
pub fn buf_runs(map: &[U32]) -> Vec<(usize, usize)> {
    let bit = |i: usize| map.get(i / 32).is_some_and(|w| w.get() >> (i % 32) & 1 == 1);
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for i in (0..map.len() * 32).filter(|i| bit(*i)) {
        match runs.last_mut() {
            Some((first, len)) if *first + *len == i => *len += 1,
            _ => runs.push((i, 1)),
        }
    }
    runs
}

/// An inode item's format, whichever machine wrote it.
///
/// # Errors
/// The region has another length.
pub fn inode_item(region: &[u8]) -> Result<InodeFormat, Box<Corruption>> {
    if let Ok(f) = InodeFormat::ref_from_bytes(region) {
        return Ok(*f);
    }
    let f = InodeFormat32::ref_from_bytes(region).map_err(|_| short("inode", region))?;
    Ok(InodeFormat {
        kind: f.kind,
        size: f.size,
        fields: f.fields,
        asize: f.asize,
        dsize: f.dsize,
        pad: U32::new(0),
        ino: f.ino,
        u: f.u,
        blkno: f.blkno,
        len: f.len,
        boffset: f.boffset,
    })
}

/// Start and length of an extent.
pub type StartLen = (u64, u32);

/// An EFI's or EFD's extents, whichever machine wrote them: the region's length tells. Kernels have also written
/// EFDs with one extent more than they count; so more room is no error.
///
/// # Errors
/// The region has room for fewer extents than it counts.
pub fn efi_item(region: &[u8]) -> Result<(&EfiFormat, Vec<StartLen>), Box<Corruption>> {
    let (format, rest) = EfiFormat::ref_from_prefix(region).map_err(|_| short("efi", region))?;
    let n = usize::try_from(format.nextents.get()).unwrap_or(usize::MAX);
    if n.checked_mul(size_of::<EfiExtent>()).is_some_and(|b| b <= rest.len()) {
        let e = crate::format::da::array::<EfiExtent>(rest, n);
        return Ok((format, e.iter().map(|e| (e.start.get(), e.len.get())).collect()));
    }
    if n.checked_mul(size_of::<EfiExtent32>()).is_some_and(|b| b <= rest.len()) {
        let e = crate::format::da::array::<EfiExtent32>(rest, n);
        return Ok((format, e.iter().map(|e| (e.start.get(), e.len.get())).collect()));
    }
    Err(Corruption::new("log", "nextents", Rule::Range)
        .found(n)
        .expected(format_args!("what fits into {} bytes", region.len())))
}

/// The extents behind the head of a RUI or BUI ([`MapExtent`]) or a CUI ([`PhysExtent`]).
///
/// # Errors
/// The region's length is not that of so many extents.
pub fn intent_extents<T>(region: &[u8]) -> Result<(&RuiFormat, &[T]), Box<Corruption>>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned,
{
    let (format, rest) = RuiFormat::ref_from_prefix(region).map_err(|_| short("intent", region))?;
    let n = usize::try_from(format.nextents.get()).unwrap_or(usize::MAX);
    let extents = <[T]>::ref_from_bytes(rest).map_err(|_| short("extents", region))?;
    if extents.len() != n {
        return Err(Corruption::new("log", "nextents", Rule::Count).found(n).expected(extents.len()));
    }
    Ok((format, extents))
}
