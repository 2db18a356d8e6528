//! Metadumps: files with a filesystem's metadata and nothing else.
//!
//! Version 1 is a chain of groups, each an index block and the 512-byte blocks that it lists; an index that is not full is the last.
//! Version 2 is a header, then extents, each with a small head that says which device and where. Source: the xfs_metadump(8)
//! man page and what xfs_metadump 6.1 (version 1) writes; version 2 as the format's book describes it.

use crate::error::{Corruption, Rule};
use crate::units::{Daddr, Device};
use bitflags::bitflags;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `XFSM`.
pub const MAGIC_V1: u32 = 0x5846_534d;
/// `XMD2`.
pub const MAGIC_V2: u32 = 0x584d_4432;
/// The version number in a version 2 header.
pub const VERSION_2: u32 = 2;
/// Bytes of version 1's blocks, and the unit of version 2's addresses and lengths.
pub const BLOCK: usize = 512;
/// `blocklog` of version 1: blocks of 512 bytes.
pub const BLOCK_LOG: u8 = 9;
/// Most blocks that one index lists.
pub const INDEX_SLOTS: usize = (BLOCK - size_of::<IndexHeader>()) / size_of::<U64>();

/// Head of an index block of version 1; behind it the disk addresses of the blocks that follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct IndexHeader {
    pub magic: U32,
    pub count: U16,
    pub blocklog: u8,
    pub info: u8,
}
const _: () = assert!(size_of::<IndexHeader>() == 8);
const _: () = assert!(INDEX_SLOTS == 63);

/// Header of version 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct HeaderV2 {
    pub magic: U32,
    pub version: U32,
    pub compat_flags: U32,
    pub incompat_flags: U32,
    pub reserved: U64,
}
const _: () = assert!(size_of::<HeaderV2>() == 24);

/// Head of an extent of version 2: device and address, length in blocks of 512 bytes. The bytes follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct ExtentHeader {
    pub addr: U64,
    pub len: U32,
}
const _: () = assert!(size_of::<ExtentHeader>() == 12);

bitflags! {
    /// How version 1 was made.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct InfoV1: u8 {
        /// The other bits mean something.
        const VALID = 1 << 0;
        /// Names are obscured, attribute values zeroed.
        const OBFUSCATED = 1 << 1;
        /// Unused parts of blocks were kept.
        const FULL_BLOCKS = 1 << 2;
        /// The log was dirty.
        const DIRTY_LOG = 1 << 3;
    }
    /// How version 2 was made.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct CompatV2: u32 {
        /// Names are obscured, attribute values zeroed.
        const OBFUSCATED = 1 << 0;
        /// Unused parts of blocks were kept.
        const FULL_BLOCKS = 1 << 1;
        /// The log was dirty.
        const DIRTY_LOG = 1 << 2;
        /// Holds an external log.
        const EXTERNAL_LOG = 1 << 3;
    }
    /// What a reader of version 2 must understand.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct IncompatV2: u32 {
        /// Holds metadata of the realtime device.
        const RT_DEVICE = 1 << 0;
    }
}

/// Bits of an address of version 2 below the device.
pub const DEVICE_SHIFT: u32 = 54;

impl ExtentHeader {
    /// For an extent of `blocks` blocks of 512 bytes; none where the address is too large.
    pub fn new(device: Device, daddr: Daddr, blocks: u32) -> Option<Self> {
        (daddr.0 >> DEVICE_SHIFT == 0)
            .then(|| Self { addr: U64::new((device as u64) << DEVICE_SHIFT | daddr.0), len: U32::new(blocks) })
    }
    /// Device and address.
    ///
    /// # Errors
    /// An unknown device, or a length of zero, with which no dump goes on.
    pub fn place(&self) -> Result<(Device, Daddr), Box<Corruption>> {
        let bad = |field, rule| Corruption::new("metadump", field, rule);
        let device = match self.addr.get() >> DEVICE_SHIFT {
            0 => Device::Data,
            1 => Device::Log,
            2 => Device::Realtime,
            d => return Err(bad("xme_addr", Rule::Range).found(d).expected("device 0, 1 or 2")),
        };
        if self.len.get() == 0 {
            return Err(bad("xme_len", Rule::Range).found(0).expected("more than 0"));
        }
        Ok((device, Daddr(self.addr.get() & ((1 << DEVICE_SHIFT) - 1))))
    }
}

impl HeaderV2 {
    /// A header for a dump.
    pub fn new(compat: CompatV2, incompat: IncompatV2) -> Self {
        Self {
            magic: U32::new(MAGIC_V2),
            version: U32::new(VERSION_2),
            compat_flags: U32::new(compat.bits()),
            incompat_flags: U32::new(incompat.bits()),
            reserved: U64::new(0),
        }
    }
    /// Flags; unknown compatible bits are kept.
    ///
    /// # Errors
    /// Another magic number or version, unknown incompatible flags.
    pub fn verify(&self) -> Result<(CompatV2, IncompatV2), Box<Corruption>> {
        let bad = |field, rule| Corruption::new("metadump", field, rule);
        if self.magic.get() != MAGIC_V2 {
            return Err(bad("magic", Rule::Magic)
                .found(format_args!("{:#x}", self.magic))
                .expected("0x584d4432 (XMD2)"));
        }
        if self.version.get() != VERSION_2 {
            return Err(bad("version", Rule::Range).found(self.version).expected(VERSION_2));
        }
        let Some(incompat) = IncompatV2::from_bits(self.incompat_flags.get()) else {
            return Err(bad("incompat_flags", Rule::Flags)
                .found(format_args!("{:#x}", self.incompat_flags))
                .expected("known bits: a newer version of this program is needed"));
        };
        if self.reserved.get() != 0 {
            return Err(bad("reserved", Rule::Range).found(self.reserved).expected(0));
        }
        Ok((CompatV2::from_bits_retain(self.compat_flags.get()), incompat))
    }
}

/// An index block of version 1.
#[derive(Clone, Copy, Debug)]
pub struct Index<'a> {
    /// How the dump was made.
    pub info: InfoV1,
    /// Where the blocks that follow belong.
    pub daddrs: &'a [U64],
}

impl<'a> Index<'a> {
    /// From a block of 512 bytes.
    ///
    /// # Errors
    /// Another magic number or block size, or more entries than there is room for.
    pub fn from_bytes(block: &'a [u8]) -> Result<Self, Box<Corruption>> {
        let bad = |field, rule| Corruption::new("metadump", field, rule);
        let (h, rest) = IndexHeader::ref_from_prefix(block.get(..BLOCK).unwrap_or(block))
            .map_err(|_| bad("index", Rule::Truncated).found(block.len()).expected(BLOCK))?;
        if h.magic.get() != MAGIC_V1 {
            return Err(bad("magic", Rule::Magic).found(format_args!("{:#x}", h.magic)).expected("0x5846534d (XFSM)"));
        }
        if h.blocklog != BLOCK_LOG {
            return Err(bad("mb_blocklog", Rule::Range).found(h.blocklog).expected(BLOCK_LOG));
        }
        let (count, room) = (usize::from(h.count.get()), rest.len() / size_of::<U64>());
        if count > room {
            return Err(bad("mb_count", Rule::Range).found(count).expected(format_args!("at most {room}")));
        }
        Ok(Self { info: InfoV1::from_bits_retain(h.info), daddrs: super::da::array(rest, count) })
    }
    /// Whether no other index follows.
    pub fn is_last(&self) -> bool {
        self.daddrs.len() < INDEX_SLOTS
    }
}

/// An index block of version 1; none where there are more addresses than it has room for.
pub fn index_block(info: InfoV1, daddrs: &[Daddr]) -> Option<[u8; BLOCK]> {
    let count = u16::try_from(daddrs.len()).ok().filter(|n| usize::from(*n) <= INDEX_SLOTS)?;
    let mut block = [0; BLOCK];
    let (h, rest) = IndexHeader::mut_from_prefix(&mut block).ok()?;
    *h = IndexHeader { magic: U32::new(MAGIC_V1), count: U16::new(count), blocklog: BLOCK_LOG, info: info.bits() };
    let (slots, _) = <[U64]>::mut_from_prefix_with_elems(rest, daddrs.len()).ok()?;
    for (slot, d) in slots.iter_mut().zip(daddrs) {
        slot.set(d.0);
    }
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, CompatV2, ExtentHeader, HeaderV2, IncompatV2, Index, InfoV1, index_block};
    use crate::units::{Daddr, Device};
    use proptest::prelude::{any, prop, proptest};
    use zerocopy::FromBytes;

    #[test]
    fn version_1_is_read_as_xfs_metadump_writes_it() {
        // Observed: the head of what `xfs_metadump` 6.1 makes of a fresh filesystem.
        let mut block = vec![0; BLOCK];
        block[..16].copy_from_slice(&[0x58, 0x46, 0x53, 0x4d, 0, 63, 9, 3, 0, 0, 0, 0, 0, 0, 0, 0]);
        block[23] = 1;
        let index = Index::from_bytes(&block).expect("observed");
        assert_eq!((index.daddrs.len(), index.daddrs[1].get(), index.is_last()), (63, 1, false));
        assert_eq!(index.info, InfoV1::VALID | InfoV1::OBFUSCATED);
        let code = |b: &[u8]| Index::from_bytes(b).err().map(|c| c.code());
        for (want, offset, value) in
            [("metadump.magic.magic", 0, 0), ("metadump.mb_count.range", 5, 64), ("metadump.mb_blocklog.range", 6, 12)]
        {
            let mut b = block.clone();
            b[offset] = value;
            assert_eq!(code(&b).as_deref(), Some(want));
        }
        assert_eq!(code(&block[..500]).as_deref(), Some("metadump.mb_count.range"));
        let made = index_block(InfoV1::VALID, &[Daddr(5), Daddr(9)]).expect("two fit");
        let read = Index::from_bytes(&made).expect("own");
        assert_eq!((read.daddrs[1].get(), read.is_last()), (9, true));
        assert!(index_block(InfoV1::VALID, &[Daddr(0); 64]).is_none());
    }

    #[test]
    fn version_2_names_devices() {
        let h = HeaderV2::new(CompatV2::DIRTY_LOG, IncompatV2::RT_DEVICE);
        assert_eq!(h.verify(), Ok((CompatV2::DIRTY_LOG, IncompatV2::RT_DEVICE)));
        let mut unknown = h;
        unknown.incompat_flags.set(2);
        assert_eq!(unknown.verify().map_err(|c| c.code()), Err("metadump.incompat_flags.flags".to_owned()));
        let e = ExtentHeader::new(Device::Log, Daddr(77), 8).expect("small");
        assert_eq!(e.addr.get(), 1 << 54 | 77);
        assert_eq!(e.place(), Ok((Device::Log, Daddr(77))));
        assert_eq!(ExtentHeader::new(Device::Data, Daddr(1 << 54), 8), None);
        let wrong = ExtentHeader { addr: (3 << 54).into(), ..e };
        assert_eq!(wrong.place().map_err(|c| c.code()), Err("metadump.xme_addr.range".to_owned()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut b in prop::collection::vec(any::<u8>(), 0..600), sound in any::<bool>()) {
            if sound && b.len() > 8 {
                b[..4].copy_from_slice(b"XFSM");
                b[6] = 9;
            }
            let _ = Index::from_bytes(&b).map(|i| i.is_last());
            let _ = HeaderV2::ref_from_prefix(&b).map(|(h, _)| h.verify());
            let _ = ExtentHeader::ref_from_prefix(&b).map(|(h, _)| h.place());
        }
    }
}
