//! The record that makes a log clean, and what must be done before it can be written.

use super::head::{IN_FLIGHT_BLOCKS, Log, LogState, log_state};
use super::records::{End, clean_end};
use super::write::cut::{Data, Place, Shape, record};
use crate::control::Control;
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::log::{CLIENT_LOG, LOG_BLOCK, OpFlags, OpHeader, UNMOUNT_TYPE, Unmount};
use crate::geometry::Geometry;
use crate::units::{BASIC_BLOCK, Device, Lsn};
use crate::volume::Volume;
use zerocopy::FromBytes;
use zerocopy::big_endian::U32;

/// Transaction id that mkfs.xfs gives the record.
const TID: u32 = 0xb0c0_d0d0;

/// A record that says that the filesystem was unmounted, as it stands on disk. With a stripe unit it fills one. `previous` is the
/// block of the record before it; none in a log that was never used, where the record has no checksum either. Where it reaches over the end of
/// the log it goes on at the start.
pub(crate) fn unmount_record(g: &Geometry, at: Lsn, previous: Option<u32>) -> Result<Vec<u8>> {
    let shape = Shape::shortest(g);
    unmount_record_of(g, &shape, at, previous)
}

/// The same, in a log whose records are of that shape.
pub(super) fn unmount_record_of(g: &Geometry, shape: &Shape, at: Lsn, previous: Option<u32>) -> Result<Vec<u8>> {
    let mut data = vec![0; size_of::<OpHeader>() + size_of::<Unmount>()];
    let (op, content) = OpHeader::mut_from_prefix(&mut data).map_err(|_| Error::invalid("a short log record"))?;
    op.tid.set(TID);
    op.len.set(size_of::<Unmount>() as u32);
    op.clientid = CLIENT_LOG;
    op.flags = OpFlags::UNMOUNT.bits();
    let (unmount, _) = Unmount::mut_from_prefix(content).map_err(|_| Error::invalid("a short log record"))?;
    unmount.magic.set(UNMOUNT_TYPE);
    record(g, shape, &Place { at, tail: at, previous }, Data { bytes: data, operations: 1 })
}

impl Log {
    /// Writes blocks from `at` on, going on at the start where the log ends.
    pub(super) fn write_around(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let first = ((self.blocks - at) * BASIC_BLOCK).min(bytes.len() as u64) as usize;
        let (head, tail) = bytes.split_at(first);
        self.target.write_at(head, self.start + at * BASIC_BLOCK)?;
        if tail.is_empty() { Ok(()) } else { self.target.write_at(tail, self.start) }
    }

    /// Gives all blocks that a torn write can have left ahead of the head the cycle before: else who looks for the head next time takes
    /// them for newer than what is written over part of them. The last `kept` blocks before the head stay.
    pub(super) fn clear_ahead(&self, head: Lsn, kept: u64) -> Result<()> {
        let at = u64::from(head.block());
        let count = IN_FLIGHT_BLOCKS.min(self.blocks.saturating_sub(kept));
        let mut bytes = vec![0; (count * BASIC_BLOCK) as usize];
        for (block, i) in bytes.chunks_mut(LOG_BLOCK).zip(0..) {
            // Behind the end of the log the head's cycle has begun.
            let cycle = if at + i < self.blocks { head.cycle().saturating_sub(1) } else { head.cycle() };
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
#[doc(hidden)] // until a program writes to a log
pub fn close(volume: &Volume, end: &End) -> Result<()> {
    let Some(log) = Log::open(volume)? else {
        return Err(Error::MissingDevice { device: Device::Log });
    };
    let record = unmount_record(&volume.geometry, end.head, Some(end.newest.block()))?;
    if record.len() as u64 > log.blocks * BASIC_BLOCK || u64::from(end.head.block()) >= log.blocks {
        let c = Corruption::new("log", "length", Rule::Range).found(format_args!("{} blocks of 512 bytes", log.blocks));
        return Err(c.expected(format_args!("room for {} bytes at block {}", record.len(), end.head.block())).into());
    }
    log.clear_ahead(end.head, 1)?;
    log.target.flush()?;
    log.write_around(u64::from(end.head.block()), &record)?;
    log.target.flush()
}

/// Writes another unmount record, behind the last, that names a filesystem of that UUID: all that is looked at of a clean log. All zero is
/// none, which every filesystem takes for its own.
///
/// # Errors
/// [`Error::Invalid`] where the log is not clean; as [`close`].
pub fn restamp(volume: &Volume, uuid: [u8; 16], control: &Control<'_>) -> Result<()> {
    if !matches!(log_state(volume, control)?, LogState::Clean { .. }) {
        return Err(Error::invalid("the log holds changes that must be replayed first"));
    }
    let log = Log::open(volume)?.ok_or(Error::MissingDevice { device: Device::Log })?;
    let (end, kept) = clean_end(&log, control)?;
    let g = Geometry { uuid, ..volume.geometry.clone() };
    let record = unmount_record(&g, end.head, Some(end.newest.block()))?;
    log.clear_ahead(end.head, kept)?;
    log.target.flush()?;
    log.write_around(u64::from(end.head.block()), &record)?;
    log.target.flush()
}

#[cfg(test)]
mod tests {
    use super::{End, Log, close};
    use crate::control::Control;
    use crate::journal::{LogState, log_state, records};
    use crate::mkfs::{Devices, Options, plan, write};
    use crate::target::{Target, Xfile};
    use crate::units::Lsn;
    use crate::volume::Volume;
    use std::ops::ControlFlow;
    use std::sync::Arc;

    fn volume(stripe: bool) -> Volume {
        let target = Arc::new(Xfile::new("closed").unwrap());
        target.set_len(320 << 20).unwrap();
        let mut options = Options::default();
        if stripe {
            options.log.su = Some(256 << 10);
        }
        let plan = plan(&options, &Devices::file(target.len())).unwrap();
        let targets = write::Targets { data: &*target, log: None, rt: None };
        write::write(&plan, &targets, &write::WriteOptions::default(), &Control::none()).unwrap();
        Volume::from_targets(target, None, None, 1 << 20).unwrap()
    }

    #[test]
    fn a_closed_log_is_clean_wherever_its_head_is() {
        for (stripe, step) in [(false, 1), (true, 512)] {
            let v = volume(stripe);
            let log = Log::open(&v).unwrap().unwrap();
            for back in 0..6 {
                // A log that was gone round twice: all its blocks are of cycle 3 up to the head.
                let at = log.blocks - 1 - back * step;
                let head = Lsn::new(3, u32::try_from(at / step * step).unwrap());
                let mut all = vec![0; usize::try_from(log.blocks * 512).unwrap()];
                for (block, i) in all.chunks_mut(512).zip(0..) {
                    let cycle: u32 = if i < u64::from(head.block()) { 3 } else { 2 };
                    block[..4].copy_from_slice(&cycle.to_be_bytes());
                }
                log.write_around(0, &all).unwrap();
                let newest = Lsn::new(3, head.block() - 2);
                close(&v, &End { head, newest, tail: newest }).unwrap();
                assert!(
                    matches!(log_state(&v, &Control::none()), Ok(LogState::Clean { .. })),
                    "{head:?}: {:?}",
                    log_state(&v, &Control::none())
                );
                let mut unmounts = 0;
                records(&v, &Control::none(), &mut |r| {
                    unmounts += u32::from(r.is_unmount());
                    Ok(ControlFlow::Continue(()))
                })
                .unwrap();
                assert_eq!(unmounts, 1, "{head:?}");
            }
        }
    }
}
