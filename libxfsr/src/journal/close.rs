//! The record that makes a log clean, and what must be done before it can be written.

use super::head::{IN_FLIGHT_BLOCKS, Log};
use super::records::End;
use crate::error::{Error, Result};
use crate::format::log::{
    CLIENT_LOG, CYCLE_BYTES, FORMAT_LINUX_LE, HEADER_MAGIC, LOG_BLOCK, OpFlags, OpHeader, RecordHeader, UNMOUNT_TYPE,
    Unmount, pack, seal_record,
};
use crate::geometry::Geometry;
use crate::units::{BASIC_BLOCK, Device, Lsn};
use crate::volume::Volume;
use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Transaction id that mkfs.xfs gives the record.
const TID: u32 = 0xb0c0_d0d0;

/// A record that says that the filesystem was unmounted, as it stands on disk. With a stripe unit it fills one. `previous` is the
/// block of the record before it; none in a log that was never used, where the record has no checksum either.
pub(crate) fn unmount_record(g: &Geometry, at: Lsn, previous: Option<u32>) -> Result<Vec<u8>> {
    let unit = if g.log_stripe_unit > 1 { g.log_stripe_unit as usize } else { 0 };
    let mut headers = vec![0; unit.div_ceil(CYCLE_BYTES).max(1) * LOG_BLOCK];
    let mut data = vec![0; unit.saturating_sub(headers.len()).max(LOG_BLOCK)];
    let short = |_| Error::invalid("a short log record");
    let (op, content) = OpHeader::mut_from_prefix(&mut data).map_err(|_| Error::invalid("a short log record"))?;
    op.tid.set(TID);
    op.len.set(size_of::<Unmount>() as u32);
    op.clientid = CLIENT_LOG;
    op.flags = OpFlags::UNMOUNT.bits();
    let (unmount, _) = Unmount::mut_from_prefix(content).map_err(|_| Error::invalid("a short log record"))?;
    unmount.magic.set(UNMOUNT_TYPE);
    let mut h = RecordHeader::new_zeroed();
    h.magicno.set(HEADER_MAGIC);
    h.cycle.set(at.cycle());
    h.version.set(2);
    h.len.set(u32::try_from(data.len()).unwrap_or(u32::MAX));
    h.lsn.set(at.0);
    h.tail_lsn.set(at.0);
    h.prev_block.set(previous.unwrap_or(u32::MAX));
    h.num_logops.set(1);
    h.fmt.set(FORMAT_LINUX_LE);
    h.fs_uuid = g.uuid;
    h.size.set(u32::try_from(unit.max(CYCLE_BYTES)).unwrap_or(u32::MAX));
    h.write_to_prefix(&mut headers).map_err(short)?;
    if !pack(&mut headers, &mut data, at.cycle()) {
        return Err(Error::invalid("a short log record"));
    }
    if previous.is_some() {
        seal_record(&mut headers, &data);
    }
    headers.append(&mut data);
    Ok(headers)
}

impl Log {
    /// Writes blocks from `at` on, going on at the start where the log ends.
    fn write_around(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let first = ((self.blocks - at) * BASIC_BLOCK).min(bytes.len() as u64) as usize;
        let (head, tail) = bytes.split_at(first);
        self.target.write_at(head, self.start + at * BASIC_BLOCK)?;
        if tail.is_empty() { Ok(()) } else { self.target.write_at(tail, self.start) }
    }

    /// Gives all blocks that a torn write can have left ahead of the head the cycle before: else who looks for the head next time takes
    /// them for newer than what is written over part of them.
    fn clear_ahead(&self, head: Lsn) -> Result<()> {
        let at = u64::from(head.block());
        let count = IN_FLIGHT_BLOCKS.min(self.blocks - 1);
        let mut bytes = vec![0; (count * BASIC_BLOCK) as usize];
        for (block, i) in bytes.chunks_mut(LOG_BLOCK).zip(0..) {
            // Behind the end of the log the head's cycle has begun.
            let cycle = if at + i < self.blocks { head.cycle().wrapping_sub(1) } else { head.cycle() };
            if let Some(word) = block.first_chunk_mut::<4>() {
                *word = U32::new(cycle).to_bytes();
            }
        }
        self.write_around(at % self.blocks, &bytes)
    }
}

/// Makes the log clean: an unmount record at the head. All that was replayed must be durable by then.
///
/// # Errors
/// [`Error::MissingDevice`] where the log's device was not given; I/O errors.
pub fn close(volume: &Volume, end: &End) -> Result<()> {
    let Some(log) = Log::open(volume)? else {
        return Err(Error::MissingDevice { device: Device::Log });
    };
    log.clear_ahead(end.head)?;
    log.target.flush()?;
    let record = unmount_record(&volume.geometry, end.head, Some(end.newest.block()))?;
    log.write_around(u64::from(end.head.block()), &record)?;
    log.target.flush()
}
