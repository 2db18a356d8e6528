//! Finding the log's head.
//!
//! Every 512-byte block of the log starts with the number of the cycle that wrote it, or is a record header, which has it in its
//! second word. Going round, the log overwrites itself, so blocks up to the head carry one cycle and those behind it the cycle
//! before. The log is clean when the record before the head is an unmount record. Book: chapter "Journaling Log".

use crate::control::Control;
use crate::error::{Corruption, Result, Rule};
use crate::format::log::{CYCLE_BYTES, HEADER_MAGIC, LOG_BLOCK, MAX_RECORD, OpFlags, OpHeader, RecordHeader};
use crate::target::Target;
use crate::units::{BASIC_BLOCK, Daddr, Lsn};
use crate::volume::Volume;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use zerocopy::FromBytes;
use zerocopy::big_endian::U32;

/// Header blocks of the longest record.
const MAX_HEADER_BLOCKS: u64 = MAX_RECORD as u64 / CYCLE_BYTES as u64;
/// Blocks before the head among which its record starts, and some more.
const SEARCH_BLOCKS: u64 = MAX_RECORD as u64 / BASIC_BLOCK + 2 * MAX_HEADER_BLOCKS;

/// Blocks of all records that can be under way at once: eight of the longest.
pub(super) const IN_FLIGHT_BLOCKS: u64 = 8 * MAX_RECORD as u64 / BASIC_BLOCK;

/// Blocks that are looked at together, and how many such parts of a log.
const SCAN_BLOCKS: u64 = 128;
const SCAN_CHUNKS: u64 = 1024;

/// What the log says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
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
    pub(super) target: Arc<dyn Target>,
    /// Its first byte on its device.
    pub(super) start: u64,
    /// Its length in blocks of 512 bytes.
    pub(super) blocks: u64,
    /// The UUID that its records carry.
    pub(super) uuid: [u8; 16],
}

/// The header of a record that starts with this block; none where it is another block.
pub(super) fn header_of(block: &[u8]) -> Option<RecordHeader> {
    RecordHeader::read_from_prefix(block).ok().map(|(h, _)| h).filter(|h| h.magicno.get() == HEADER_MAGIC)
}

fn cycle_of(block: &[u8]) -> u32 {
    let word = |b: &[u8]| U32::read_from_prefix(b).map_or(0, |(w, _)| w.get());
    let first = word(block);
    if first == HEADER_MAGIC { block.get(4..).map_or(0, word) } else { first }
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
            g.fsblock_to_daddr(g.log_start)
                .ok_or_else(|| {
                    Corruption::new("log", "start", Rule::Range).found(g.log_start).expected("a block of the device")
                })?
                .bytes()
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
    ///
    /// Records under way when a machine stops reach the disk in any order, so blocks of the cycle before may stand between those of the
    /// newest: what lies behind the first such hole was never acknowledged, and the head is there.
    pub(super) fn head(&self, control: &Control<'_>) -> Result<(u64, u32)> {
        let (first, last) = (self.cycle(0)?, self.cycle(self.blocks - 1)?);
        if first == 0 {
            return Err(Corruption::new("log", "cycle", Rule::Range)
                .found(0)
                .expected("a log that mkfs has started")
                .into());
        }
        if first == last {
            let from = self.blocks.saturating_sub(IN_FLIGHT_BLOCKS);
            let hole = self.hole(from..self.blocks, first.wrapping_sub(1), control)?;
            return Ok(hole.map_or((0, first.wrapping_add(1)), |h| (h, first)));
        }
        // Blocks with the first's cycle come before those of earlier ones. What is of none that there can be is noise; the kernel's search
        // goes on behind it, and so does this, for where they differed one would call dirty what the other calls clean.
        let (mut low, mut high) = (0, self.blocks - 1);
        while high - low > 1 {
            control.check()?;
            let mid = low.midpoint(high);
            let found = self.cycle(mid)?;
            if found == last || found < first { high = mid } else { low = mid }
        }
        // What is under way may have begun before the end of the log.
        if let Some(before) = IN_FLIGHT_BLOCKS.checked_sub(high).filter(|n| *n > 0 && first > 1) {
            let from = self.blocks.saturating_sub(before).max(high);
            if let Some(hole) = self.hole(from..self.blocks, first.wrapping_sub(2), control)? {
                return Ok((hole, first.wrapping_sub(1)));
            }
        }
        let hole = self.hole(high.saturating_sub(IN_FLIGHT_BLOCKS)..high, last, control)?;
        Ok((hole.unwrap_or(high), first))
    }

    /// The first of these blocks that an earlier cycle wrote.
    fn hole(&self, among: Range<u64>, cycle: u32, control: &Control<'_>) -> Result<Option<u64>> {
        let mut at = among.start;
        while at < among.end {
            control.check()?;
            let n = (among.end - at).min(64);
            let bytes = self.read(at, n)?;
            let found = bytes.chunks(LOG_BLOCK).position(|b| cycle_of(b) == cycle);
            if let Some(i) = found {
                return Ok(Some(at + i as u64));
            }
            at += n;
        }
        Ok(None)
    }

    /// The first of the blocks looked at whose cycle is another than its place says: up to the head they are of one, behind it of an
    /// earlier one (xfs_repair, which makes new logs, leaves zeroes there). Of a long log parts are looked at, and where a search for the
    /// head by halves comes by.
    fn stray(&self, head: u64, cycle: u32, control: &Control<'_>) -> Result<Option<(u64, u32)>> {
        let chunks = self.blocks.div_ceil(SCAN_BLOCKS);
        let step = chunks.div_ceil(SCAN_CHUNKS).max(1);
        let mut starts: Vec<u64> = (0..chunks).step_by(step as usize).chain([chunks - 1]).collect();
        let (mut low, mut high) = (0, self.blocks - 1);
        while high - low > 1 {
            let mid = low.midpoint(high);
            starts.push(mid / SCAN_BLOCKS);
            if mid < head { low = mid } else { high = mid }
        }
        starts.extend([head / SCAN_BLOCKS, (head + SCAN_BLOCKS) / SCAN_BLOCKS].into_iter().filter(|c| *c < chunks));
        starts.sort_unstable();
        starts.dedup();
        // Holes are no blocks of an earlier cycle, and need not be read to know it.
        let mut data = 0;
        starts.retain(|chunk| {
            let offset = self.start + chunk * SCAN_BLOCKS * BASIC_BLOCK;
            if chunk * SCAN_BLOCKS >= head && data <= offset {
                data = self.target.next_data(offset);
            }
            data < offset + SCAN_BLOCKS * BASIC_BLOCK
        });
        // One small buffer a thread, which stays in its processor's cache: a copy of the whole log would not.
        let look = |bytes: &mut Vec<u8>, chunk: u64| -> Result<Option<(u64, u32)>> {
            control.check()?;
            let at = chunk * SCAN_BLOCKS;
            bytes.resize((SCAN_BLOCKS.min(self.blocks - at) * BASIC_BLOCK) as usize, 0);
            self.target.read_at(bytes, self.start + at * BASIC_BLOCK)?;
            let mut blocks = bytes.chunks(LOG_BLOCK).zip(at..).map(|(b, i)| (i, cycle_of(b)));
            Ok(blocks.find(|(i, c)| if *i < head { *c != cycle } else { *c >= cycle }))
        };
        let strays = starts.into_par_iter().map_init(Vec::new, |bytes, chunk| look(bytes, chunk).transpose());
        strays.find_map_first(|found| found).transpose()
    }

    /// The last record header before `head`, going back through the end of the log.
    pub(super) fn record_before(&self, head: u64, control: &Control<'_>) -> Result<Option<(u64, RecordHeader)>> {
        let window = SEARCH_BLOCKS.min(self.blocks);
        let mut left = window;
        let mut end = head;
        while left > 0 {
            control.check()?;
            if end == 0 {
                end = self.blocks;
            }
            let n = end.min(left).min(64);
            let bytes = self.read(end - n, n)?;
            for (i, block) in bytes.chunks(LOG_BLOCK).enumerate().rev() {
                if let Some(header) = header_of(block) {
                    return Ok(Some((end - n + i as u64, header)));
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
/// [`crate::Error::Io`]; [`crate::Error::Corrupt`] where the log holds no log; [`crate::Error::Stopped`].
pub fn log_state(volume: &Volume, control: &Control<'_>) -> Result<LogState> {
    let Some(log) = Log::open(volume)? else { return Ok(LogState::Absent) };
    let blocks = log.blocks;
    let (head, cycle) = log.head(control)?;
    let Some((at, header)) = log.record_before(head, control)? else {
        return Err(Corruption::new("log", "record", Rule::Missing).found("no record before the head").into());
    };
    let head = Lsn::new(cycle, u32::try_from(head).unwrap_or(u32::MAX));
    if header.fs_uuid != log.uuid && header.fs_uuid != [0; 16] {
        return Err(Corruption::new("log", "uuid", Rule::Uuid).expected(uuid::Uuid::from_bytes(log.uuid)).into());
    }
    let (headers, length) = (u64::from(header.header_blocks()), u64::from(header.data_blocks()));
    let data = log.read((at + headers.min(MAX_HEADER_BLOCKS)) % blocks, 1)?;
    let operation = OpHeader::ref_from_prefix(&data).is_ok_and(|(op, _)| op.flags().contains(OpFlags::UNMOUNT));
    let unmount = header.num_logops.get() == 1 && operation;
    // The unmount record must end at the head, or it is one of an earlier time.
    let ends = (at + headers + length) % blocks == u64::from(head.block()) % blocks;
    Ok(if unmount && ends { LogState::Clean { head } } else { LogState::Dirty { head } })
}

/// Whether the blocks of a clean log, whose head [`log_state`] has told, are of the cycles that their places say. Where they are not, who
/// looks for the head may take another block for it. Of a log longer than 64 MiB only 1,024 parts of 64 KiB are looked at, the
/// surroundings of the head and of every block that a search by halves asks among them.
///
/// # Errors
/// [`Error::Corrupt`](crate::Error::Corrupt) with the first that is not; as [`log_state`]; [`Error::Stopped`](crate::Error::Stopped).
pub fn verify_cycles(volume: &Volume, head: Lsn, control: &Control<'_>) -> Result<()> {
    let Some(log) = Log::open(volume)? else { return Ok(()) };
    let (head, cycle) = (u64::from(head.block()), head.cycle());
    let Some((at, found)) = log.stray(head, cycle, control)? else { return Ok(()) };
    let expected = if at < head { "" } else { "less than " };
    let c = Corruption::new("log", "cycle", Rule::Mismatch).at_daddr(Daddr(log.start / BASIC_BLOCK + at));
    Err(c
        .found(format_args!("cycle {found} in block {at}"))
        .expected(format_args!("{expected}{cycle}, the head is at {head}"))
        .into())
}
