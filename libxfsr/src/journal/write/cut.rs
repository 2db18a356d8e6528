//! Checkpoints are cut into records, and records made as they stand on the disk.

use crate::error::{Error, Result};
use crate::format::log::items::{TRANSACTION_CHECKPOINT, TRANSACTION_MAGIC, TransactionHeader};
use crate::format::log::{
    CLIENT_TRANSACTION, CYCLE_BYTES, FORMAT_LINUX_LE, HEADER_MAGIC, LOG_BLOCK, MAX_RECORD, OpFlags, OpHeader,
    RecordHeader, pack, seal_record,
};
use crate::geometry::Geometry;
use crate::journal::records::next_cycle;
use crate::units::Lsn;
use zerocopy::big_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

/// Bytes of an operation's header.
const OP: usize = size_of::<OpHeader>();

/// Sizes of a log's records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::journal) struct Shape {
    /// Bytes of the longest record, headers included: `h_size`, which also says how many headers each has.
    pub(in crate::journal) buffer: usize,
    /// A record's length is a multiple of this.
    pub(in crate::journal) round: usize,
}

impl Shape {
    /// Records of at most `wanted` bytes: 32 KiB where the caller does not say, more where the stripe unit is longer.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no multiple of the stripe unit, too short or too long.
    pub(in crate::journal) fn new(g: &Geometry, wanted: Option<u32>) -> Result<Self> {
        let round = if g.log_stripe_unit > 1 { g.log_stripe_unit as usize } else { LOG_BLOCK };
        let usual = if round > CYCLE_BYTES { round } else { CYCLE_BYTES / round * round };
        let buffer = wanted.map_or(usual, |w| w as usize);
        if buffer < usual || !buffer.is_multiple_of(round) || buffer > MAX_RECORD as usize {
            return Err(Error::invalid(format!(
                "log records of {buffer} bytes: a multiple of {round} from {usual} to {MAX_RECORD} is needed"
            )));
        }
        Ok(Self { buffer, round })
    }
    /// The record that mkfs writes, which fills a stripe unit.
    pub(in crate::journal) fn shortest(g: &Geometry) -> Self {
        let unit = if g.log_stripe_unit > 1 { g.log_stripe_unit as usize } else { 0 };
        Self { buffer: unit.max(CYCLE_BYTES), round: unit.max(LOG_BLOCK) }
    }
    /// Bytes of headers.
    pub(in crate::journal) fn headers(&self) -> usize {
        self.buffer.div_ceil(CYCLE_BYTES) * LOG_BLOCK
    }
    /// Bytes of data that the longest record holds.
    fn room(&self) -> usize {
        self.buffer - self.headers()
    }
    /// Bytes that a checkpoint whose operations take `bytes` takes in the log at most.
    pub(super) fn checkpoint(&self, bytes: u64) -> u64 {
        if bytes == 0 {
            return 0;
        }
        // Start, transaction header, commit; in each record a header of an operation that goes on, and what is too short for one.
        let bytes = bytes + 4 * OP as u64 + size_of::<TransactionHeader>() as u64;
        let room = (self.room() - 2 * OP - 8) as u64;
        let rest = (self.headers() as u64 + bytes % room + 2 * OP as u64 + 8).next_multiple_of(self.round as u64);
        bytes / room * self.buffer as u64 + rest
    }
    /// What a transaction that logs `bytes` adds to a checkpoint at most, or takes by itself.
    pub(super) fn transaction(&self, bytes: u64) -> u64 {
        bytes + bytes / 32 + (self.headers() + self.round + 16 * OP) as u64
    }
}

/// The data of a record.
#[derive(Clone, Debug, Default)]
pub(in crate::journal) struct Data {
    pub(in crate::journal) bytes: Vec<u8>,
    pub(in crate::journal) operations: u32,
}

struct Cutter<'a> {
    shape: &'a Shape,
    tid: u32,
    done: Vec<Data>,
    open: Data,
}

impl Cutter<'_> {
    /// Adds an operation; a region that does not fit goes on in the next record.
    fn operation(&mut self, flags: OpFlags, region: &[u8]) {
        let (mut rest, mut first) = (region, true);
        loop {
            let room = self.shape.room() - self.open.bytes.len();
            if room < OP + rest.len().min(4) {
                self.done.push(std::mem::take(&mut self.open));
                continue;
            }
            let (now, later) = rest.split_at(rest.len().min(room - OP));
            let place = match (first, later.is_empty()) {
                (true, true) => OpFlags::empty(),
                (true, false) => OpFlags::CONTINUE,
                (false, false) => OpFlags::WAS_CONT | OpFlags::CONTINUE,
                (false, true) => OpFlags::WAS_CONT | OpFlags::END,
            };
            let mut op = OpHeader::new_zeroed();
            op.tid.set(self.tid);
            op.len.set(now.len() as u32);
            op.clientid = CLIENT_TRANSACTION;
            op.flags = (flags | place).bits();
            self.open.bytes.extend_from_slice(op.as_bytes());
            self.open.bytes.extend_from_slice(now);
            self.open.operations += 1;
            if later.is_empty() {
                return;
            }
            (rest, first) = (later, false);
        }
    }
}

/// A checkpoint's records: start, header, regions, commit.
pub(super) fn cut<'r>(shape: &Shape, tid: u32, count: u32, regions: impl Iterator<Item = &'r [u8]>) -> Vec<Data> {
    let mut cutter = Cutter { shape, tid, done: Vec::new(), open: Data::default() };
    let mut header = TransactionHeader::new_zeroed();
    header.magic.set(TRANSACTION_MAGIC);
    header.kind.set(TRANSACTION_CHECKPOINT);
    header.tid.set(tid as i32);
    header.num_items.set(count);
    cutter.operation(OpFlags::START, &[]);
    cutter.operation(OpFlags::empty(), header.as_bytes());
    regions.for_each(|r| cutter.operation(OpFlags::empty(), r));
    cutter.operation(OpFlags::COMMIT, &[]);
    cutter.done.push(cutter.open);
    cutter.done
}

/// Where a record goes, and what its header says of the others.
#[derive(Clone, Copy, Debug)]
pub(in crate::journal) struct Place {
    pub(in crate::journal) at: Lsn,
    pub(in crate::journal) tail: Lsn,
    /// The block of the record before; none in a log that was never used.
    pub(in crate::journal) previous: Option<u32>,
}

/// A record as it stands on disk. Where it reaches over the end of the log it goes on at the start. One that mkfs writes has no
/// checksum.
pub(in crate::journal) fn record(g: &Geometry, shape: &Shape, place: &Place, data: Data) -> Result<Vec<u8>> {
    let short = || Error::invalid("a short log record");
    let Data { bytes: mut data, operations } = data;
    let mut headers = vec![0; shape.headers()];
    data.resize((headers.len() + data.len()).next_multiple_of(shape.round) - headers.len(), 0);
    let mut h = RecordHeader::new_zeroed();
    h.magicno.set(HEADER_MAGIC);
    h.cycle.set(place.at.cycle());
    h.version.set(2);
    h.len.set(u32::try_from(data.len()).map_err(|_| short())?);
    h.lsn.set(place.at.0);
    h.tail_lsn.set(place.tail.0);
    h.prev_block.set(place.previous.unwrap_or(u32::MAX));
    h.num_logops.set(operations);
    h.fmt.set(FORMAT_LINUX_LE);
    h.fs_uuid = g.uuid;
    h.size.set(u32::try_from(shape.buffer).map_err(|_| short())?);
    h.write_to_prefix(&mut headers).map_err(|_| short())?;
    if !pack(&mut headers, &mut data, place.at.cycle()) {
        return Err(short());
    }
    // The extended headers that the data does not need carry their cycle all the same.
    for ext in headers.chunks_mut(LOG_BLOCK).skip(1) {
        if let Some(word) = ext.first_chunk_mut::<4>() {
            *word = U32::new(place.at.cycle()).to_bytes();
        }
    }
    // Behind the end of the log the next cycle begins. A header block has its cycle in its first word as well, but for the first.
    let blocks = u64::from(g.log_blocks) << g.bb_shift();
    let parts = headers.chunks_mut(LOG_BLOCK).chain(data.chunks_mut(LOG_BLOCK));
    for (block, _) in parts.zip(u64::from(place.at.block())..).filter(|(_, i)| *i >= blocks) {
        if let Some(word) = block.first_chunk_mut::<4>() {
            *word = U32::new(next_cycle(place.at.cycle())).to_bytes();
        }
    }
    if place.previous.is_some() {
        seal_record(&mut headers, &data);
    }
    headers.append(&mut data);
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::{Shape, cut};
    use crate::format::log::{OpFlags, Ops};
    use proptest::prelude::*;

    proptest! {
        /// What is cut is put together again, no record is too long, and the room is what was foretold.
        #[test]
        fn regions_are_cut_and_put_together(
            lengths in prop::collection::vec(0usize..9000, 0..60), wide in any::<bool>(), round in 9u32..16,
        ) {
            let shape = Shape { buffer: if wide { 262_144 } else { 32_768 }, round: 1 << round };
            let regions: Vec<Vec<u8>> =
                lengths.iter().enumerate().map(|(i, n)| vec![i as u8 + 1; n / 4 * 4]).collect();
            let records = cut(&shape, 9, regions.len() as u32, regions.iter().map(Vec::as_slice));
            let (mut together, mut flags): (Vec<Vec<u8>>, Vec<OpFlags>) = Default::default();
            for r in &records {
                prop_assert!(shape.headers() + r.bytes.len() <= shape.buffer);
                for op in Ops::new(&r.bytes, r.operations) {
                    let (h, bytes) = op.unwrap();
                    if h.flags().contains(OpFlags::WAS_CONT) {
                        prop_assert!(flags.last().unwrap().contains(OpFlags::CONTINUE));
                        together.last_mut().unwrap().extend_from_slice(bytes);
                    } else {
                        together.push(bytes.to_vec());
                    }
                    flags.push(h.flags());
                }
            }
            prop_assert_eq!((flags[0], *flags.last().unwrap()), (OpFlags::START, OpFlags::COMMIT));
            prop_assert_eq!(&together[2..together.len() - 1], &regions[..]);
            let taken: usize =
                records.iter().map(|r| (shape.headers() + r.bytes.len()).next_multiple_of(shape.round)).sum();
            let bytes: usize = regions.iter().map(|r| r.len() + 12).sum();
            prop_assert!(bytes == 0 || taken as u64 <= shape.checkpoint(bytes as u64), "{} of {}", taken, bytes);
            prop_assert!(taken as u64 <= shape.transaction(bytes as u64) || shape.round > 512);
        }
    }
}
