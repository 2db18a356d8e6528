//! From record to record, over what is damaged.

use super::super::head::{LogState, header_of, log_state};
use super::super::records::{lsn_before, newest_whole, next_cycle};
use super::entries::{CrcState, Entry, GapEntry, LogEntry, Place, RecordEntry, State};
use super::{Listed, Lister, View};
use crate::error::{Corruption, Error, Rule, Verdict};
use crate::format::log::{FORMAT_IRIX_BE, FORMAT_LINUX_BE, FORMAT_LINUX_LE, LOG_BLOCK, RecordHeader, unpack};
use crate::units::{BASIC_BLOCK, Daddr, Lsn};
use crate::volume::Volume;

/// Blocks that are searched for a header at once.
const SEARCH: u64 = 64;

/// Blocks to go through.
struct Span {
    start: Lsn,
    blocks: u64,
    /// Whether each of them must belong to a record.
    dense: bool,
}

/// Where the records are that recovery looks at.
#[derive(Clone, Copy)]
struct Recovery {
    /// Block of the tail.
    first: u64,
    /// Blocks of records that it uses, and of all that were written.
    used: u64,
    all: u64,
}

fn bad(field: &'static str, rule: Rule) -> Box<Corruption> {
    Corruption::new("log", field, rule)
}

/// The header of a record that starts with this block. Blocks ahead of the head that were cleared look like records without anything in
/// them: observed, Linux 6.18.
fn record_of(block: &[u8]) -> Option<RecordHeader> {
    header_of(block).filter(|h| h.len.get() > 0 || h.num_logops.get() > 0)
}

fn block(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Lister<'_> {
    pub(super) fn all(&mut self, volume: &Volume) -> Listed {
        let mut problems = Vec::new();
        let mut note = |e: Error| match e {
            Error::Corrupt(c) => {
                problems.push(*c);
                Ok(())
            }
            e => Err(e),
        };
        let written = match self.log.head(self.control) {
            Ok(head) => Some(head),
            Err(e) => note(e).map(|()| None)?,
        };
        let newest = match newest_whole(&self.log, self.control) {
            Ok(n) => Some(n),
            // Where there is no head, that was told.
            Err(Error::Corrupt(_)) if written.is_none() => None,
            Err(e) => note(e).map(|()| None)?,
        };
        let lsn_of = |(head, cycle): (u64, u32)| Lsn::new(cycle, block(head));
        let blocks = self.log.blocks;
        let distance = |from: u64, to: u64| (to + blocks - from % blocks) % blocks;
        let mut entry = LogEntry {
            internal: volume.geometry.log_start.0 != 0,
            daddr: Daddr(self.log.start / BASIC_BLOCK),
            blocks,
            state: State::Damaged,
            tail: None,
            head: None,
            written: written.map(lsn_of),
        };
        let mut recovery = None;
        if let (Some(newest), Some(written)) = (&newest, written) {
            let head = Lsn::new(self.cycle_at(newest.lsn, newest.head), block(newest.head));
            // Records lie between the tail and themselves.
            let (at, tail) = (u64::from(newest.lsn.block()), newest.tail);
            let same = tail.cycle() == newest.lsn.cycle() && tail.block() <= newest.lsn.block();
            let before = next_cycle(tail.cycle()) == newest.lsn.cycle() && u64::from(tail.block()) > at;
            let right = (same || before) && u64::from(tail.block()) < blocks;
            if !right {
                let c = bad("tail_lsn", Rule::Range).found(format_args!("{:#x}", tail.0));
                problems.push(*self.log.locate(c.expected("between the head and the newest record"), newest.lsn));
            }
            let start = if right { tail } else { newest.lsn };
            entry.state = match (right, log_state(volume, self.control)) {
                (_, Ok(LogState::Clean { .. })) => State::Clean,
                (true, Ok(_)) => State::Dirty,
                _ => State::Damaged,
            };
            (entry.tail, entry.head) = (right.then_some(tail), Some(head));
            // The tail may be where the head is: then the log is full.
            let whole = |n: u64| if n == 0 { blocks } else { n };
            let used = whole(distance(start.block().into(), newest.head));
            let all = whole(distance(start.block().into(), written.0)).max(used);
            recovery = Some((start, Recovery { first: start.block().into(), used, all }));
        } else if let Some((head, cycle)) = written {
            // No record can be used: the last is told, as far as it can be read.
            if let Some((at, _)) = self.log.record_before(head, self.control)? {
                let all = Some(distance(at, head)).filter(|n| *n > 0).unwrap_or(blocks);
                recovery = Some((lsn_before(at, head, cycle), Recovery { first: at, used: 0, all }));
            }
        }
        self.tell(Entry::Log(entry))?;
        for problem in problems {
            self.finding(problem)?;
        }
        let span = match (self.options.view, &recovery) {
            (View::Blocks { from }, _) if from >= blocks => {
                let why = format!("the log has {blocks} blocks: it cannot be listed from block {from} on");
                return Err(Error::invalid(why).into());
            }
            (View::Blocks { from }, _) => Span { start: Lsn::new(0, block(from)), blocks: blocks - from, dense: false },
            (View::Recovery, Some((start, r))) => Span { start: *start, blocks: r.all, dense: true },
            (View::Recovery, None) => return Ok(()),
        };
        let recovery = recovery.map(|(_, r)| r);
        self.walk(&span, &|at| {
            let Some(r) = recovery else { return Place::Old };
            match distance(r.first, at) {
                d if d < r.used => Place::Active,
                d if d < r.all => Place::Torn,
                _ => Place::Old,
            }
        })?;
        self.lose();
        if span.dense {
            self.totals.pending = self.pending.len() as u64;
            for intent in std::mem::take(&mut self.pending).into_values() {
                self.tell(Entry::Pending(intent))?;
            }
        }
        Ok(())
    }

    /// The cycle of a block behind a record: the next one behind the log's end.
    fn cycle_at(&self, record: Lsn, at: u64) -> u32 {
        if at <= u64::from(record.block()) { next_cycle(record.cycle()) } else { record.cycle() }
    }

    fn walk(&mut self, span: &Span, place: &dyn Fn(u64) -> Place) -> Listed {
        let first = u64::from(span.start.block());
        let mut done = 0;
        let mut before: Option<Lsn> = None;
        while done < span.blocks {
            self.control.check()?;
            self.control.tell("log", done, Some(span.blocks));
            let at = (first + done) % self.log.blocks;
            let bytes = self.log.read(at, 1)?;
            self.place = place(at);
            let Some(header) = record_of(&bytes) else {
                let gap = self.next_header(at, span.blocks - done)?;
                if self.options.records {
                    self.tell(Entry::Gap(GapEntry { block: at, blocks: gap }))?;
                }
                if span.dense {
                    let c = bad("record", Rule::Missing).found(format_args!("no record's header for {gap} blocks"));
                    let c = self.log.locate(c, Lsn::new(0, block(at)));
                    self.finding(*c)?;
                }
                if self.place != Place::Torn {
                    self.lose();
                }
                done += gap;
                continue;
            };
            let expected = span.dense.then(|| {
                let wrapped = first + done >= self.log.blocks;
                Lsn::new(if wrapped { next_cycle(span.start.cycle()) } else { span.start.cycle() }, block(at))
            });
            // In the order of the blocks what an earlier cycle left follows what a later one wrote.
            if before.is_some_and(|b| header.lsn() < b) {
                self.lose();
            }
            before = Some(header.lsn());
            // What the last blocks hold may go on at the start of the log.
            let room = if span.dense { span.blocks - done } else { self.log.blocks };
            done += self.record(at, expected, room, &header)?;
        }
        Ok(())
    }

    /// Blocks up to the next record's header, `most` if there is none. The first is not looked at.
    fn next_header(&self, at: u64, most: u64) -> Listed<u64> {
        let mut skipped = 1;
        while skipped < most {
            self.control.check()?;
            let n = SEARCH.min(most - skipped);
            // Holes need not be read.
            let block = (at + skipped) % self.log.blocks;
            let data = self.log.target.next_data(self.log.start + block * BASIC_BLOCK);
            let hole = (data / BASIC_BLOCK).saturating_sub(self.log.start / BASIC_BLOCK + block);
            if hole >= n {
                skipped += hole.min(most - skipped).min(self.log.blocks - block);
                continue;
            }
            let bytes = self.log.read_around(at + skipped, n)?;
            if let Some(i) = bytes.chunks(LOG_BLOCK).position(|b| record_of(b).is_some()) {
                return Ok(skipped + i as u64);
            }
            skipped += n;
        }
        Ok(most)
    }

    /// Lists the record with that header. Returns how many blocks further the next one is to be looked for.
    fn record(&mut self, at: u64, expected: Option<Lsn>, room: u64, header: &RecordHeader) -> Listed<u64> {
        let lsn = Lsn::new(header.cycle.get(), block(at));
        let foreign = [FORMAT_LINUX_BE, FORMAT_IRIX_BE].contains(&header.fmt.get());
        let mut native = *header;
        if foreign {
            native.fmt.set(FORMAT_LINUX_LE);
        }
        let numbers = || -> Verdict {
            native.verify(&self.log.uuid)?;
            if header.lsn() != expected.unwrap_or(lsn) {
                let wanted = expected.unwrap_or(lsn);
                let c = bad("lsn", Rule::Address).found(format_args!("{:#x}", header.lsn.get()));
                return Err(c.expected(format_args!("{:#x}", wanted.0)));
            }
            let blocks = u64::from(header.header_blocks()) + u64::from(header.data_blocks());
            if blocks > room {
                return Err(bad("len", Rule::Range).found(blocks).expected(format_args!("at most {room}")));
            }
            Ok(())
        };
        let mut entry = RecordEntry {
            lsn,
            tail: Lsn(header.tail_lsn.get()),
            previous: Some(header.prev_block.get()).filter(|p| *p != u32::MAX),
            version: header.version.get(),
            length: header.len.get(),
            size: header.size.get(),
            header_blocks: header.header_blocks(),
            operations: header.num_logops.get(),
            crc: header.crc.get(),
            crc_state: CrcState::Unknown,
            format: header.fmt.get(),
            uuid: uuid::Uuid::from_bytes(header.fs_uuid).to_string(),
            whole: false,
            place: self.place,
        };
        self.totals.records += 1;
        self.totals.torn += u64::from(self.place == Place::Torn);
        if let Err(c) = numbers() {
            let c = self.log.locate(c, lsn);
            self.broken(entry, *c)?;
            return self.next_header(at, room);
        }
        let (heads, blocks) = (u64::from(header.header_blocks()), u64::from(header.data_blocks()));
        let headers = self.log.read_around(at, heads)?;
        let mut data = self.log.read_around(at + heads, blocks)?;
        let length = (header.len.get() as usize).min(data.len());
        let seal = self.log.seal(header, &headers, data.get(..length).unwrap_or(&data));
        entry.crc_state = match (&seal, header.crc.get()) {
            (Err(_), _) => CrcState::Wrong,
            (Ok(()), 0) => CrcState::Absent,
            (Ok(()), _) => CrcState::Right,
        };
        let verdict = seal.and_then(|()| self.log.cycles(header.lsn(), heads, &data)).and_then(|()| {
            let words = || bad("len", Rule::Range).expected("as many words kept as there are blocks");
            if unpack(&headers, &mut data) { Ok(()) } else { Err(words()) }
        });
        if let Err(c) = verdict {
            let c = self.log.locate(c, lsn);
            self.broken(entry, *c)?;
            return self.next_header(at, room);
        }
        data.truncate(length);
        entry.whole = true;
        if self.options.records {
            self.tell(Entry::Record(entry))?;
        }
        if foreign {
            let c = bad("fmt", Rule::Range).found(header.fmt.get()).expected("1: items of other machines are not read");
            let c = self.log.locate(c, lsn);
            self.finding(*c)?;
        }
        self.operations(header.lsn(), &data, header.num_logops.get(), !foreign && self.place != Place::Torn)?;
        Ok(heads + blocks)
    }

    /// Tells a record with which something is wrong.
    fn broken(&mut self, entry: RecordEntry, c: Corruption) -> Listed {
        if self.options.records {
            self.tell(Entry::Record(entry))?;
        }
        if self.place != Place::Torn {
            self.lose();
        }
        self.finding(c)
    }
}
