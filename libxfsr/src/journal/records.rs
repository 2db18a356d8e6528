//! Reading records: from the tail, which the newest record names, to the head.

use super::head::Log;
use crate::control::Control;
use crate::error::{Corruption, Error, Result, Rule, Severity, Verdict};
use crate::format::log::{
    CYCLE_BYTES, FORMAT_LINUX_BE, HEADER_MAGIC, LOG_BLOCK, MAX_RECORD, OpFlags, Ops, RecordHeader, checksum_matches,
    unpack,
};
use crate::units::{BASIC_BLOCK, Daddr, Device, Lsn};
use crate::volume::Volume;
use std::ops::ControlFlow;
use zerocopy::FromBytes;

/// A record whose header and checksum are right, with the words that the cycle numbers had replaced put back.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it starts.
    pub lsn: Lsn,
    /// Where the tail was when it was written.
    pub tail: Lsn,
    /// Blocks of 512 bytes that it takes, headers included.
    pub blocks: u64,
    /// Operations in it.
    pub operations: u32,
    /// Its data, padding included.
    pub data: Vec<u8>,
}

impl Record {
    /// Its operations.
    pub fn ops(&self) -> Ops<'_> {
        Ops::new(&self.data, self.operations)
    }
    /// Whether it says that the filesystem was unmounted.
    pub fn is_unmount(&self) -> bool {
        // Newer kernels count none of the operation's bytes, so its content is not looked at.
        self.ops().next().and_then(std::result::Result::ok).is_some_and(|(h, _)| h.flags().contains(OpFlags::UNMOUNT))
    }
}

fn bad(field: &'static str, rule: Rule) -> Box<Corruption> {
    Corruption::new("log", field, rule)
}

/// The cycle after this one; the number that would look like a record's first word is left out.
pub(super) fn next_cycle(cycle: u32) -> u32 {
    let next = cycle.wrapping_add(1);
    if next == HEADER_MAGIC { next.wrapping_add(1) } else { next }
}

impl Log {
    /// Adds the place of a record.
    pub(super) fn locate(&self, c: Box<Corruption>, lsn: Lsn) -> Box<Corruption> {
        c.at_daddr(Daddr(self.start / BASIC_BLOCK + u64::from(lsn.block())))
    }

    /// Blocks from `at` on, going on at the start where the log ends.
    pub(super) fn read_around(&self, at: u64, count: u64) -> Result<Vec<u8>> {
        let at = at % self.blocks;
        let first = count.min(self.blocks - at);
        let mut bytes = self.read(at, first)?;
        if first < count {
            bytes.extend(self.read(0, count - first)?);
        }
        Ok(bytes)
    }

    /// Whether a record's checksum is right. What mkfs writes has none: an unmount record, alone.
    pub(super) fn seal(&self, header: &RecordHeader, headers: &[u8], data: &[u8]) -> Verdict {
        let unsealed = header.crc.get() == 0 && header.num_logops.get() == 1;
        if unsealed || checksum_matches(headers, data) {
            return Ok(());
        }
        Err(bad("crc", Rule::Crc).found(format_args!("{:#010x}", header.crc.get())))
    }

    /// Whether all blocks of a record's data carry its cycle; behind the end of the log the next one begins.
    pub(super) fn cycles(&self, lsn: Lsn, heads: u64, data: &[u8]) -> Verdict {
        for (i, block) in data.chunks(LOG_BLOCK).enumerate() {
            let wrapped = u64::from(lsn.block()) + heads + i as u64 >= self.blocks;
            let cycle = if wrapped { next_cycle(lsn.cycle()) } else { lsn.cycle() };
            if block.first_chunk::<4>() != Some(&zerocopy::big_endian::U32::new(cycle).to_bytes()) {
                return Err(bad("cycle", Rule::Mismatch).found(format_args!("in data block {i}")).expected(cycle));
            }
        }
        Ok(())
    }

    /// The record that starts at a block; no longer than `room` blocks.
    fn record(&self, lsn: Lsn, room: u64) -> Result<(Record, u32)> {
        let at = u64::from(lsn.block());
        let place = |c: Box<Corruption>| Error::from(self.locate(c, lsn));
        let first = self.read_around(at, 1)?;
        let (header, _) = RecordHeader::read_from_prefix(&first).map_err(|_| Error::invalid("a short log block"))?;
        header.verify(&self.uuid).map_err(place)?;
        if header.lsn() != lsn {
            return Err(place(bad("lsn", Rule::Address).found(format_args!("{:#x}", header.lsn.get()))));
        }
        let (heads, blocks) = (u64::from(header.header_blocks()), u64::from(header.data_blocks()));
        if heads + blocks > room {
            return Err(place(bad("len", Rule::Range).found(heads + blocks).expected(format_args!("at most {room}"))));
        }
        let headers = self.read_around(at, heads)?;
        let mut data = self.read_around(at + heads, blocks)?;
        let length = (header.len.get() as usize).min(data.len());
        self.seal(&header, &headers, data.get(..length).unwrap_or(&data)).map_err(place)?;
        self.cycles(lsn, heads, &data).map_err(place)?;
        if !unpack(&headers, &mut data) {
            return Err(place(bad("len", Rule::Range).expected("as many words kept as there are blocks")));
        }
        data.truncate(length);
        let record = Record {
            lsn,
            tail: Lsn(header.tail_lsn.get()),
            blocks: heads + blocks,
            operations: header.num_logops.get(),
            data,
        };
        Ok((record, header.prev_block.get()))
    }
}

/// Records that can be under way at once: a crash may leave any of them half written.
const IN_FLIGHT: u64 = 8;

/// A record so near to the head is wrong after any crash, and recovery leaves it out: then that is no damage.
fn torn(e: impl Into<Error>, distance: u64, header: &RecordHeader) -> Error {
    let headers = u64::from(MAX_RECORD) / CYCLE_BYTES as u64;
    let longest = u64::from(header.size.get().min(MAX_RECORD)) / BASIC_BLOCK + headers;
    match e.into() {
        Error::Corrupt(c) if distance <= IN_FLIGHT * longest => Error::Corrupt(c.severity(Severity::Warning)),
        e => e,
    }
}

/// The newest record, and where the log ends with it.
pub(super) struct Newest {
    pub(super) lsn: Lsn,
    header: RecordHeader,
    pub(super) tail: Lsn,
    /// The block behind it.
    pub(super) head: u64,
    /// Its length.
    room: u64,
}

fn open(volume: &Volume) -> Result<Log> {
    Log::open(volume)?.ok_or(Error::MissingDevice { device: Device::Log })
}

/// The LSN of a record that starts at `at`, where the log's head is in `cycle`.
pub(super) fn lsn_before(at: u64, head: u64, cycle: u32) -> Lsn {
    // The head lies in the cycle that follows where it is behind the log's last block.
    Lsn::new(if at < head { cycle } else { cycle.wrapping_sub(1) }, u32::try_from(at).unwrap_or(u32::MAX))
}

/// The newest record, which must be right and end at the head.
fn newest(log: &Log, control: &Control<'_>) -> Result<Newest> {
    let (head, cycle) = log.head(control)?;
    let (at, header) =
        log.record_before(head, control)?.ok_or_else(|| bad("record", Rule::Missing).found("none before the head"))?;
    let lsn = lsn_before(at, head, cycle);
    let room = (head + log.blocks - at - 1) % log.blocks + 1;
    if header.fmt.get() == FORMAT_LINUX_BE {
        return Err(big_endian());
    }
    if header.lsn() != lsn {
        let c = bad("lsn", Rule::Address).found(format_args!("{:#x}", header.lsn.get()));
        return Err(torn(log.locate(c, lsn), room, &header));
    }
    let (record, _) = log.record(lsn, room).map_err(|e| torn(e, room, &header))?;
    if record.blocks != room {
        let c = bad("head", Rule::Mismatch).found(format_args!("{} blocks", record.blocks));
        // Data whose header did not reach the disk stands between this record and the head.
        return Err(torn(log.locate(c.expected(format_args!("{room}, up to the head")), lsn), room, &header));
    }
    Ok(Newest { lsn, header, tail: tail_of(&record), head, room })
}

/// Where replay would start. An unmount record needs none of those before it, and that of a log that xfs_repair made
/// names a tail where there is no record.
fn tail_of(record: &Record) -> Lsn {
    if record.is_unmount() { record.lsn } else { record.tail }
}

fn big_endian() -> Error {
    Error::unsupported("the log was written on a big-endian machine, where it must be replayed")
}

/// Where a log ends that is clean, and how many blocks its last record takes.
pub(super) fn clean_end(log: &Log, control: &Control<'_>) -> Result<(End, u64)> {
    let newest = newest(log, control)?;
    let wrapped = newest.head <= u64::from(newest.lsn.block());
    let cycle = if wrapped { next_cycle(newest.lsn.cycle()) } else { newest.lsn.cycle() };
    let head = Lsn::new(cycle, u32::try_from(newest.head).unwrap_or(u32::MAX));
    Ok((End { head, newest: newest.lsn, tail: newest.tail }, newest.room))
}

/// The newest record of those that recovery can use: the last before the first that is not whole.
pub(super) fn newest_whole(log: &Log, control: &Control<'_>) -> Result<Newest> {
    let (head, cycle) = log.head(control)?;
    // Record headers that can belong to records under way, newest first, and one more, which must be right.
    let (mut starts, mut end, mut span) = (Vec::new(), head, 0);
    while starts.len() as u64 <= IN_FLIGHT && span < log.blocks {
        let Some((at, header)) = log.record_before(end, control)? else { break };
        let length = (end + log.blocks - at - 1) % log.blocks + 1;
        span += length;
        // Before the head begins what the cycle before has left.
        let lsn = lsn_before(at, head, cycle);
        if span > log.blocks || header.lsn() != lsn {
            break;
        }
        starts.push((lsn, header, length));
        end = at;
    }
    let mut whole: Option<Newest> = None;
    let mut first_error = None;
    for (lsn, header, room) in starts.into_iter().rev() {
        match log.record(lsn, room) {
            Ok((record, _)) => {
                let end = (u64::from(lsn.block()) + record.blocks) % log.blocks;
                let gap = record.blocks != room;
                whole = Some(Newest { lsn, header, tail: tail_of(&record), head: end, room: record.blocks });
                if gap {
                    break;
                }
            }
            Err(e @ Error::Corrupt(_)) => {
                first_error = Some(e);
                break;
            }
            Err(e) => return Err(e),
        }
    }
    match (whole, first_error) {
        (Some(n), _) => Ok(n),
        (None, Some(e)) => Err(e),
        (None, None) => Err(bad("record", Rule::Missing).found("none before the head").into()),
    }
}

/// Where the log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct End {
    /// Where the next record goes.
    pub head: Lsn,
    /// The record before it.
    pub newest: Lsn,
    /// Where replay starts: the tail that the newest record names.
    pub tail: Lsn,
}

/// As [`records`], but for recovery: where a machine stopped, the last records may be torn, and are left out with all behind them.
/// Returns where it ends without them.
///
/// # Errors
/// As [`records`].
pub fn whole_records(
    volume: &Volume,
    control: &Control<'_>,
    each: &mut dyn FnMut(&Record) -> Result<ControlFlow<()>>,
) -> Result<End> {
    let log = open(volume)?;
    let newest = newest_whole(&log, control)?;
    walk(&log, &newest, control, each)?;
    let wrapped = newest.head <= u64::from(newest.lsn.block());
    let cycle = if wrapped { next_cycle(newest.lsn.cycle()) } else { newest.lsn.cycle() };
    let head = Lsn::new(cycle, u32::try_from(newest.head).unwrap_or(u32::MAX));
    Ok(End { head, newest: newest.lsn, tail: newest.tail })
}

/// Calls `each` with the records from the tail to the head, oldest first, until it breaks or fails. Of a clean log the
/// newest is the unmount record; what else there is needs no replay.
///
/// # Errors
/// [`Error::MissingDevice`] where the log's device was not given; [`Error::Unsupported`] for a log of a big-endian machine;
/// [`Error::Corrupt`] for the first record that breaks a rule, or where the newest record does not end at the head; [`Error::Stopped`]; what `each` returns.
pub fn records(
    volume: &Volume,
    control: &Control<'_>,
    each: &mut dyn FnMut(&Record) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let log = open(volume)?;
    let newest = newest(&log, control)?;
    walk(&log, &newest, control, each)
}

/// Calls `each` with the records from the tail that the newest names up to the newest.
fn walk(
    log: &Log,
    newest: &Newest,
    control: &Control<'_>,
    each: &mut dyn FnMut(&Record) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let Newest { lsn: newest, header, tail, head, room } = newest;
    let (tail, head, room, at) = (*tail, *head, *room, u64::from(newest.block()));
    let older = tail.cycle() == newest.cycle() && tail.block() <= newest.block()
        || tail.cycle().wrapping_add(1) == newest.cycle() && u64::from(tail.block()) >= head % log.blocks;
    if !older || u64::from(tail.block()) >= log.blocks {
        let c = bad("tail_lsn", Rule::Range).found(format_args!("{:#x}", tail.0));
        return Err(torn(log.locate(c.expected("between the head and the newest record"), *newest), room, header));
    }
    let (mut lsn, mut done) = (tail, 0);
    let whole = (at + log.blocks - u64::from(tail.block())) % log.blocks + room;
    let mut before: Option<Lsn> = None;
    while done < whole {
        control.check()?;
        let (record, previous) = log.record(lsn, whole - done).map_err(|e| torn(e, whole - done, header))?;
        // The first record of a mount knows of none before it.
        if previous != u32::MAX && before.is_some_and(|b| b.block() != previous) {
            return Err(log.locate(bad("prev_block", Rule::Mismatch).found(previous), lsn).into());
        }
        done += record.blocks;
        if each(&record)?.is_break() {
            break;
        }
        before = Some(lsn);
        let next = u64::from(lsn.block()) + record.blocks;
        let cycle = if next >= log.blocks { next_cycle(lsn.cycle()) } else { lsn.cycle() };
        lsn = Lsn::new(cycle, u32::try_from(next % log.blocks).unwrap_or(u32::MAX));
    }
    Ok(())
}
