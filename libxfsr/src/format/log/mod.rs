//! The journal's records.
//!
//! The log is a ring of 512-byte blocks. A *record* is a header of one block (more, if its data is longer than 32 KiB: one *extended
//! header* for each further 32 KiB), then data. Data is a chain of *operations*, each with a header, which a transaction's
//! regions are cut into. So that the newest record can be found after a crash, the first word of every data block is replaced by
//! the cycle number; the header keeps the words that stood there.
//!
//! Headers are big-endian. What operations carry (transaction header, items) has the byte order of the machine that wrote it, which
//! the header's `fmt` names; this library reads little-endian logs. Book: chapter "Journaling Log".

mod core;
pub mod items;

use crate::error::{Corruption, Rule};
use crate::units::Lsn;
use bitflags::bitflags;
use std::mem::offset_of;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::little_endian::U32 as Le32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First word of a record.
pub const HEADER_MAGIC: u32 = 0xfeed_babe;
/// Bytes of the log's blocks.
pub const LOG_BLOCK: usize = 512;
/// Blocks whose first words one header keeps: 32 KiB.
pub const CYCLE_WORDS: usize = 64;
/// Bytes of data for which one header keeps first words.
pub const CYCLE_BYTES: usize = CYCLE_WORDS * LOG_BLOCK;
/// [`LOG_BLOCK`] and [`CYCLE_BYTES`] as the numbers on disk count.
const BLOCK_LEN: u32 = 512;
const CYCLE_LEN: u32 = 32 << 10;
const _: () = assert!(BLOCK_LEN as usize == LOG_BLOCK && CYCLE_LEN as usize == CYCLE_BYTES);
/// Largest record.
pub const MAX_RECORD: u32 = 256 << 10;
/// `h_fmt` of logs that this library reads: little-endian Linux.
pub const FORMAT_LINUX_LE: u32 = 1;
/// `h_fmt` of big-endian Linux.
pub const FORMAT_LINUX_BE: u32 = 2;
/// `h_fmt` of big-endian Irix.
pub const FORMAT_IRIX_BE: u32 = 3;
/// Type in an unmount record's only operation.
pub const UNMOUNT_TYPE: u16 = 0x556e;

/// Header of a record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct RecordHeader {
    pub magicno: U32,
    pub cycle: U32,
    pub version: U32,
    /// Bytes of data, padding included.
    pub len: U32,
    pub lsn: U64,
    pub tail_lsn: U64,
    pub crc: Le32,
    pub prev_block: U32,
    pub num_logops: U32,
    pub cycle_data: [U32; CYCLE_WORDS],
    pub fmt: U32,
    pub fs_uuid: [u8; 16],
    /// Size of the buffers with which the log was written: it says how many headers a record has.
    pub size: U32,
    /// On 64-bit machines the header ends here, on 32-bit ones before; both are covered by checksums. See [`record_checksum`].
    pub pad0: U32,
}
const _: () = assert!(size_of::<RecordHeader>() == 328);
const _: () = assert!(offset_of!(RecordHeader, crc) == 32);
const _: () = assert!(offset_of!(RecordHeader, size) == 320);

/// Extended header, a log block each.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct ExtendedHeader {
    pub cycle: U32,
    pub cycle_data: [U32; CYCLE_WORDS],
}
const _: () = assert!(size_of::<ExtendedHeader>() == 260);

bitflags! {
    /// Flags of an operation.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct OpFlags: u8 {
        /// First of a transaction.
        const START = 0x01;
        /// Last of a transaction.
        const COMMIT = 0x02;
        /// The region goes on in the next record.
        const CONTINUE = 0x04;
        /// The region began in an earlier record.
        const WAS_CONT = 0x08;
        /// The continued region ends here.
        const END = 0x10;
        /// Unmount record.
        const UNMOUNT = 0x20;
    }
}

/// Client of a transaction's operations.
pub const CLIENT_TRANSACTION: u8 = 0x69;
/// Client of an unmount record's operation.
pub const CLIENT_LOG: u8 = 0xaa;

/// Header of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct OpHeader {
    pub tid: U32,
    pub len: U32,
    pub clientid: u8,
    pub flags: u8,
    pub res2: U16,
}
const _: () = assert!(size_of::<OpHeader>() == 12);

impl OpHeader {
    /// Flags; unknown bits are kept.
    pub fn flags(&self) -> OpFlags {
        OpFlags::from_bits_retain(self.flags)
    }
}

impl RecordHeader {
    /// Log blocks that headers take: those of the buffer size, which can be more than the data needs.
    pub fn header_blocks(&self) -> u32 {
        if self.version.get() & 2 != 0 && self.size.get() > CYCLE_LEN { self.size.get().div_ceil(CYCLE_LEN) } else { 1 }
    }
    /// Log blocks of data.
    pub fn data_blocks(&self) -> u32 {
        self.len.get().div_ceil(BLOCK_LEN)
    }
    /// LSN of the record.
    pub fn lsn(&self) -> Lsn {
        Lsn(self.lsn.get())
    }
    /// Checks the numbers that must be right before the record's data can be found. `uuid` is `sb_uuid`, also where metadata carries
    /// another.
    ///
    /// # Errors
    /// The first field that cannot be.
    pub fn verify(&self, uuid: &[u8; 16]) -> Result<(), Box<Corruption>> {
        const N: &str = "log";
        let bad = |field, rule| Corruption::new(N, field, rule);
        if self.magicno.get() != HEADER_MAGIC {
            return Err(bad("magicno", Rule::Magic).found(format_args!("{:#x}", self.magicno)).expected("0xfeedbabe"));
        }
        if !(1..=2).contains(&self.version.get()) {
            return Err(bad("version", Rule::Range).found(self.version).expected("1 or 2"));
        }
        if self.fmt.get() != FORMAT_LINUX_LE {
            return Err(bad("fmt", Rule::Range).found(self.fmt).expected("1: written on a little-endian machine"));
        }
        // Without one a record is of any filesystem, as Linux takes it.
        if self.fs_uuid != *uuid && self.fs_uuid != [0; 16] {
            return Err(bad("uuid", Rule::Uuid)
                .found(uuid::Uuid::from_bytes(self.fs_uuid))
                .expected(uuid::Uuid::from_bytes(*uuid)));
        }
        if self.cycle.get() == 0 || self.lsn().cycle() != self.cycle.get() {
            return Err(bad("cycle", Rule::Mismatch)
                .found(self.cycle)
                .expected("the cycle of the record's LSN, not 0"));
        }
        let (len, size) = (self.len.get(), self.size.get());
        if len == 0 || len > MAX_RECORD || (self.version.get() == 2 && size > MAX_RECORD) {
            return Err(bad("len", Rule::Range).found(len).expected("1 to 262144"));
        }
        if self.version.get() == 1 && len > CYCLE_LEN {
            return Err(bad("len", Rule::Range).found(len).expected("at most 32768 in a version 1 log"));
        }
        if self.data_blocks() > self.header_blocks() * (CYCLE_LEN / BLOCK_LEN) {
            return Err(bad("len", Rule::Range).found(len).expected(format_args!("at most h_size, {size}")));
        }
        Ok(())
    }
}

/// Sizes of the header that checksums are computed over: 64-bit and 32-bit machines differ.
pub const CHECKSUM_HEADER_SIZES: [usize; 2] = [328, 324];

/// The checksum of a record as it stands on disk, cycle numbers in its blocks: header (`header_size` bytes of it, checksum taken as
/// zero), extended headers that the data needs, data. `headers` are all header blocks, `data` the record's `len` bytes.
pub fn record_checksum(headers: &[u8], data: &[u8], header_size: usize) -> u32 {
    let head = headers.get(..header_size).unwrap_or(headers);
    let mut crc = super::checksum(head, offset_of!(RecordHeader, crc));
    let version2 = RecordHeader::ref_from_prefix(headers).is_ok_and(|(h, _)| h.version.get() & 2 != 0);
    if version2 {
        for ext in headers.chunks(LOG_BLOCK).take(data.len().div_ceil(CYCLE_BYTES)).skip(1) {
            crc = crc32c::crc32c_append(crc, ext.get(..size_of::<ExtendedHeader>()).unwrap_or(ext));
        }
    }
    crc32c::crc32c_append(crc, data)
}

/// Whether a record's checksum is right, whichever machine wrote it. False also for the record that mkfs writes, which stores 0
/// for "not computed": who reads a log that was never mounted must allow for that.
pub fn checksum_matches(headers: &[u8], data: &[u8]) -> bool {
    let Ok((h, _)) = RecordHeader::ref_from_prefix(headers) else { return false };
    CHECKSUM_HEADER_SIZES.iter().any(|&n| record_checksum(headers, data, n) == h.crc.get())
}

/// Computes and stores a record's checksum as 64-bit machines do.
pub fn seal_record(headers: &mut [u8], data: &[u8]) {
    let crc = record_checksum(headers, data, CHECKSUM_HEADER_SIZES[0]);
    if let Ok((h, _)) = RecordHeader::mut_from_prefix(headers) {
        h.crc.set(crc);
    }
}

/// The kept first word of data block `block` of a record.
pub fn cycle_word(headers: &[u8], block: usize) -> Option<u32> {
    let index = block % CYCLE_WORDS;
    let words = if block < CYCLE_WORDS {
        &RecordHeader::ref_from_prefix(headers).ok()?.0.cycle_data
    } else {
        let at = (block / CYCLE_WORDS).checked_mul(LOG_BLOCK)?;
        &ExtendedHeader::ref_from_prefix(headers.get(at..)?).ok()?.0.cycle_data
    };
    words.get(index).map(|w| w.get())
}

/// Puts the kept words back, so that the data can be read. False where the headers have fewer words than there are blocks.
#[must_use]
pub fn unpack(headers: &[u8], data: &mut [u8]) -> bool {
    data.chunks_mut(LOG_BLOCK).enumerate().all(|(i, block)| {
        match (cycle_word(headers, i), block.first_chunk_mut::<4>()) {
            (Some(w), Some(b)) => {
                *b = U32::new(w).to_bytes();
                true
            }
            _ => false,
        }
    })
}

/// Takes the first word of each data block into the headers and stamps the cycle in its place: the opposite of [`unpack`]. False,
/// with part of it done, where the headers have no room.
#[must_use]
pub fn pack(headers: &mut [u8], data: &mut [u8], cycle: u32) -> bool {
    for (i, block) in data.chunks_mut(LOG_BLOCK).enumerate() {
        let Some(b) = block.first_chunk_mut::<4>() else { return false };
        let (part, index) = (i / CYCLE_WORDS, i % CYCLE_WORDS);
        let Some(head) = headers.get_mut(part * LOG_BLOCK..) else { return false };
        let word = if part == 0 {
            RecordHeader::mut_from_prefix(head).ok().and_then(|(h, _)| h.cycle_data.get_mut(index))
        } else {
            ExtendedHeader::mut_from_prefix(head).ok().and_then(|(h, _)| {
                h.cycle.set(cycle);
                h.cycle_data.get_mut(index)
            })
        };
        let Some(word) = word else { return false };
        *word = U32::from_bytes(*b);
        *b = U32::new(cycle).to_bytes();
    }
    true
}

/// Iterator over the operations of a record whose data was unpacked.
#[derive(Clone, Debug)]
pub struct Ops<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Ops<'a> {
    /// The `count` operations (`h_num_logops`) in `data`.
    pub fn new(data: &'a [u8], count: u32) -> Self {
        Self { rest: data, left: count }
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Result<(&'a OpHeader, &'a [u8]), Box<Corruption>>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let op = OpHeader::ref_from_prefix(self.rest).ok().and_then(|(h, rest)| {
            let (region, rest) = rest.split_at_checked(usize::try_from(h.len.get()).ok()?)?;
            self.rest = rest;
            Some((h, region))
        });
        let Some(op) = op else {
            self.left = 0;
            return Some(Err(
                Corruption::new("log", "op", Rule::Truncated).found(format_args!("{} bytes left", self.rest.len()))
            ));
        };
        if ![CLIENT_TRANSACTION, CLIENT_LOG].contains(&op.0.clientid) {
            self.left = 0;
            return Some(Err(Corruption::new("log", "clientid", Rule::Range)
                .found(format_args!("{:#x}", op.0.clientid))
                .expected("0x69 (transaction) or 0xaa (log)")));
        }
        Some(Ok(op))
    }
}

/// Content of an unmount record's only operation. Host byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names")]
pub struct Unmount {
    pub magic: zerocopy::little_endian::U16,
    pub pad1: zerocopy::little_endian::U16,
    pub pad2: Le32,
}
const _: () = assert!(size_of::<Unmount>() == 8);

#[cfg(test)]
mod tests;
