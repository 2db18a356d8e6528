//! Newtypes for the numbers that XFS mixes up.
//!
//! Conversion between them needs the filesystem's geometry and is therefore found only on
//! [`Geometry`](crate::geometry::Geometry), where it is checked.

use std::fmt;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(pub $raw);

        impl $name {
            /// The bare number.
            pub const fn get(self) -> $raw {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// Which device of a filesystem.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Device {
    /// Data device.
    Data = 0,
    /// External log.
    Log = 1,
    /// Realtime device.
    Realtime = 2,
}

unit! {
    /// Number of an allocation group, counted from 0.
    AgNumber(u32)
}
unit! {
    /// Block number inside an allocation group (agbno), in filesystem blocks.
    AgBlock(u32)
}
unit! {
    /// Block number in the filesystem (fsbno): AG number above `sb_agblklog` bits of agbno. Sparse: two
    /// neighbouring AGs are not neighbouring in this number space.
    FsBlock(u64)
}
unit! {
    /// Disk address in 512-byte units, dense from the start of a device.
    Daddr(u64)
}
unit! {
    /// Logical block in a file's fork, in filesystem blocks.
    FileBlock(u64)
}
unit! {
    /// Inode number in the filesystem.
    Ino(u64)
}
unit! {
    /// Inode number inside an allocation group.
    AgIno(u32)
}
unit! {
    /// Block number on the realtime device, in filesystem blocks. With realtime groups it is segmented as
    /// [`FsBlock`] is.
    RtBlock(u64)
}
unit! {
    /// Number of a realtime extent (`sb_rextsize` blocks each).
    RtExtent(u64)
}
unit! {
    /// Log sequence number: cycle in the upper 32 bits, 512-byte block of the log in the lower.
    Lsn(u64)
}

/// Bytes in one [`Daddr`] unit.
pub const BASIC_BLOCK: u64 = 512;

/// `NULLAGBLOCK`: "no block" in 32-bit pointers.
pub const NULL_AGBLOCK: u32 = u32::MAX;
/// `NULLFSBLOCK`: "no block" in 64-bit pointers.
pub const NULL_FSBLOCK: u64 = u64::MAX;
/// `NULLAGINO`: "no inode" in AGI fields and unlinked lists.
pub const NULL_AGINO: u32 = u32::MAX;
/// `NULLFSINO`: "no inode" in superblock fields.
pub const NULL_INO: u64 = u64::MAX;

impl Lsn {
    /// From cycle and block.
    pub const fn new(cycle: u32, block: u32) -> Self {
        Self((cycle as u64) << 32 | block as u64)
    }
    /// The log cycle, from 1.
    pub const fn cycle(self) -> u32 {
        halves(self.0).0
    }
    /// The 512-byte block in the log.
    pub const fn block(self) -> u32 {
        halves(self.0).1
    }
}

/// A number as a length or an index in memory. What is larger than memory can be is the largest there is, which nothing has.
pub(crate) fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// The upper and the lower half of a number that two are packed in.
#[expect(clippy::cast_possible_truncation, reason = "what is cut off is the other half")]
pub(crate) const fn halves(n: u64) -> (u32, u32) {
    ((n >> 32) as u32, n as u32)
}

impl Daddr {
    /// Byte offset on the device; saturates where the number cannot be an offset.
    pub const fn bytes(self) -> u64 {
        self.0.saturating_mul(BASIC_BLOCK)
    }
}
