//! Finding the log's head.
//!
//! Every 512-byte block of the log starts with the number of the cycle that wrote it, or is a record header, which has it in its
//! second word. Going round, the log overwrites itself, so blocks up to the head carry one cycle and those behind it the cycle
//! before. The log is clean when the record before the head is an unmount record. Book: chapter "Journaling Log".

use crate::error::{Corruption, Error, Result, Rule};
use crate::target::Target;
use crate::units::{BASIC_BLOCK, Lsn};
use crate::volume::Volume;
use std::sync::Arc;

const RECORD_MAGIC: u32 = 0xfeed_babe;
const UNMOUNT_FLAG: u8 = 0x20;
/// Longest record: 256 KiB and its headers.
const MAX_RECORD_BLOCKS: u64 = 512 + 16;

/// What the log says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogState {
    /// Nothing to replay.
    Clean {
        /// Where the next record would go.
        head: Lsn,
    },
    /// It must be replayed.
    Dirty {
        /// Where the next record would go.
        head: Lsn,
    },
    /// Its device was not given.
    Absent,
}

/// Where a log lies.
#[derive(Clone, Debug)]
pub(super) struct Log {
    target: Arc<dyn Target>,
    /// Its first byte on its device.
    pub(super) start: u64,
    /// Its length in blocks of 512 bytes.
    pub(super) blocks: u64,
    /// The UUID that its records carry.
    pub(super) uuid: [u8; 16],
}

fn word(b: &[u8], at: usize) -> u32 {
    b.get(at..).and_then(|b| b.first_chunk::<4>()).map_or(0, |c| zerocopy::big_endian::U32::from_bytes(*c).get())
}

fn cycle_of(block: &[u8]) -> u32 {
    if word(block, 0) == RECORD_MAGIC { word(block, 4) } else { word(block, 0) }
}

impl Log {
    /// The volume's log; none where its device was not given.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where it does not lie inside its device.
    pub(super) fn open(volume: &Volume) -> Result<Option<Self>> {
        let g = &volume.geometry;
        let Some(id) = volume.log else { return Ok(None) };
        let target = volume.cache.target(id)?;
        let blocks = u64::from(g.log_blocks) << g.bb_shift();
        let start = if g.log_start.0 == 0 {
            0
        } else {
            g.fsblock_to_daddr(g.log_start).ok_or_else(|| Error::invalid("the log lies outside the device"))?.bytes()
        };
        if blocks == 0 || start.saturating_add(blocks * BASIC_BLOCK) > target.len() {
            return Err(Corruption::new("log", "length", Rule::Range)
                .found(blocks)
                .expected("inside its device")
                .into());
        }
        Ok(Some(Self { target, start, blocks, uuid: g.uuid }))
    }
    pub(super) fn read(&self, block: u64, count: u64) -> Result<Vec<u8>> {
        let mut b = vec![0; (count * BASIC_BLOCK) as usize];
        self.target.read_at(&mut b, self.start + block * BASIC_BLOCK)?;
        Ok(b)
    }
    fn cycle(&self, block: u64) -> Result<u32> {
        Ok(cycle_of(&self.read(block, 1)?))
    }

    /// The first block behind the last that was written, and the cycle of the next write there.
    pub(super) fn head(&self) -> Result<(u64, u32)> {
        let (first, last) = (self.cycle(0)?, self.cycle(self.blocks - 1)?);
        if first == 0 {
            return Err(Corruption::new("log", "cycle", Rule::Range)
                .found(0)
                .expected("a log that mkfs has started")
                .into());
        }
        if first == last {
            return Ok((0, first.wrapping_add(1)));
        }
        // Blocks with the first's cycle come before those with the cycle before it.
        let (mut low, mut high) = (0, self.blocks - 1);
        while high - low > 1 {
            let mid = low.midpoint(high);
            if self.cycle(mid)? == first { low = mid } else { high = mid }
        }
        Ok((high, first))
    }

    /// The last record header before `head`, going back through the end of the log.
    pub(super) fn record_before(&self, head: u64) -> Result<Option<(u64, Vec<u8>)>> {
        let window = MAX_RECORD_BLOCKS.min(self.blocks);
        let mut left = window;
        let mut end = head;
        while left > 0 {
            if end == 0 {
                end = self.blocks;
            }
            let n = end.min(left).min(64);
            let bytes = self.read(end - n, n)?;
            for (i, b) in bytes.chunks(512).enumerate().rev() {
                if word(b, 0) == RECORD_MAGIC {
                    return Ok(Some((end - n + i as u64, b.to_vec())));
                }
            }
            end -= n;
            left -= n;
        }
        Ok(None)
    }
}

/// Whether the volume's log is clean.
///
/// # Errors
/// [`Error::Io`]; [`Error::Corrupt`] where the log holds no log.
pub fn log_state(volume: &Volume) -> Result<LogState> {
    let Some(log) = Log::open(volume)? else { return Ok(LogState::Absent) };
    let blocks = log.blocks;
    let (head, cycle) = log.head()?;
    let Some((at, header)) = log.record_before(head)? else {
        return Err(Corruption::new("log", "record", Rule::Missing).found("no record before the head").into());
    };
    let head = Lsn::new(cycle, u32::try_from(head).unwrap_or(u32::MAX));
    if header.get(304..320) != Some(log.uuid.as_slice())
        && !header.get(304..320).is_some_and(|u| u.iter().all(|b| *b == 0))
    {
        return Err(Corruption::new("log", "uuid", Rule::Uuid).expected(uuid::Uuid::from_bytes(log.uuid)).into());
    }
    // h_num_logops is at 40; an operation header has its flags in byte 9.
    let size = word(&header, 320);
    let headers = if word(&header, 8) & 2 != 0 && size > 32768 { u64::from(size.div_ceil(32768)) } else { 1 };
    let first = (at + headers.min(8)) % blocks;
    let operation = log.read(first, 1)?;
    let unmount = word(&header, 40) == 1 && operation.get(9).is_some_and(|f| f & UNMOUNT_FLAG != 0);
    let length = u64::from(word(&header, 12)).div_ceil(BASIC_BLOCK);
    // The unmount record must end at the head, or it is one of an earlier time.
    let ends = (at + headers + length) % blocks == u64::from(head.block()) % blocks;
    Ok(if unmount && ends { LogState::Clean { head } } else { LogState::Dirty { head } })
}
