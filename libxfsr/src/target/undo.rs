//! Saves what it overwrites, so that a run of a tool can be taken back, also after a crash in its middle.

use super::runs::Runs;
use super::{Io, Target, check_range};
use crate::error::{Corruption, Error, Result, Rule};
use parking_lot::Mutex;
use std::sync::Arc;
use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What is saved is rounded out to this, so that neighbouring changes of a block are saved once.
const UNIT: u64 = 4096;
/// Records begin at multiples of this.
const ALIGN: u64 = 512;
/// Longest record's data.
const MOST: u64 = 1 << 20;

const FILE_MAGIC: [u8; 8] = *b"XFSRUNDO";
const RECORD_MAGIC: u32 = 0x554e_444f;
const VERSION: u32 = 1;

/// First sector of the store: which target it belongs to is for the caller to know; the length tells a wrong one.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FileHeader {
    magic: [u8; 8],
    version: U32,
    /// Checksum of this header with this field zero.
    crc: U32,
    length: U64,
    run: [u8; 16],
}

/// In front of saved bytes. Run and number tell it from what an earlier run left in the same place.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RecordHeader {
    magic: U32,
    /// Checksum of header, with this field zero, and data.
    crc: U32,
    run: [u8; 16],
    number: U64,
    /// Records that were durable when this one was written: one of those that cannot be read was damaged later.
    durable: U64,
    offset: U64,
    length: U64,
}
const HEADER: u64 = size_of::<RecordHeader>() as u64;

impl FileHeader {
    fn sealed(mut self) -> Self {
        self.crc.set(0);
        self.crc.set(crc32c::crc32c(self.as_bytes()));
        self
    }
}

impl RecordHeader {
    fn sealed(mut self, data: &[u8]) -> Self {
        self.crc.set(0);
        self.crc.set(crc32c::crc32c_append(crc32c::crc32c(self.as_bytes()), data));
        self
    }
}

#[derive(Debug)]
struct Saved {
    /// Units that the store has.
    units: Runs,
    /// Where the next record goes.
    end: u64,
    number: u64,
    durable: u64,
}

/// A target that copies what is there to a store before it is overwritten, punched or discarded. The copy is durable before the
/// change begins. Each byte is saved once: [`restore`] brings back what was there at the start.
///
/// # Examples
/// ```
/// use libxfsr::target::{restore, Target, Undo, Xfile};
/// use std::sync::Arc;
/// let disk = Arc::new(Xfile::new("disk")?);
/// let store = Arc::new(Xfile::new("undo")?);
/// disk.write_at(b"before", 0)?;
/// let undo = Undo::new(disk.clone(), store.clone())?;
/// undo.write_at(b"after!", 0)?;
/// restore(&*disk, &*store)?;
/// let mut bytes = [0; 6];
/// disk.read_at(&mut bytes, 0)?;
/// assert_eq!(&bytes, b"before");
/// # Ok::<(), libxfsr::Error>(())
/// ```
#[derive(Debug)]
pub struct Undo {
    below: Arc<dyn Target>,
    store: Arc<dyn Target>,
    run: [u8; 16],
    saved: Mutex<Saved>,
}

/// What [`restore`] brought back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Restored {
    /// Ranges.
    pub ranges: u64,
    /// Their bytes.
    pub bytes: u64,
}

fn damaged(store: &dyn Target, at: u64, field: &'static str) -> Error {
    Corruption::new("undo", field, Rule::Crc).found(format_args!("byte {at} of {}", store.name())).into()
}

/// The store's header; none where it holds no run.
fn header(store: &dyn Target) -> Result<Option<FileHeader>> {
    let mut sector = [0; ALIGN as usize];
    if store.len() < ALIGN {
        return Ok(None);
    }
    store.read_at(&mut sector, 0)?;
    let Ok((h, _)) = FileHeader::read_from_prefix(&sector) else { return Ok(None) };
    if h.magic != FILE_MAGIC {
        return Ok(None);
    }
    if h.sealed().crc != h.crc || h.version.get() != VERSION {
        return Err(damaged(store, 0, "header"));
    }
    Ok(Some(h))
}

/// Writes to the store, which grows where it can.
fn append(store: &dyn Target, bytes: &[u8], offset: u64) -> Result<()> {
    let end = offset.saturating_add(bytes.len() as u64);
    if store.len() < end {
        store.set_len(end)?;
    }
    store.write_at(bytes, offset)?;
    store.flush()
}

/// Makes the store hold no run.
fn forget(store: &dyn Target) -> Result<()> {
    append(store, &[0; ALIGN as usize], 0)?;
    match store.set_len(0) {
        // A device stays as long as it is.
        Ok(()) | Err(Error::Unsupported(_)) => store.flush(),
        Err(e) => Err(e),
    }
}

impl Undo {
    /// Over `below`, saving to `store`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the store still holds what an earlier run saved: it must be restored or emptied first.
    pub fn new(below: Arc<dyn Target>, store: Arc<dyn Target>) -> Result<Self> {
        if header(&*store)?.is_some() {
            let name = store.name().to_owned();
            return Err(Error::invalid(format!("{name} holds what an earlier run saved: restore it, or remove it")));
        }
        let run = *uuid::Uuid::new_v4().as_bytes();
        let (version, length) = (U32::new(VERSION), U64::new(below.len()));
        let head = FileHeader { magic: FILE_MAGIC, version, crc: U32::new(0), length, run }.sealed();
        let mut sector = [0; ALIGN as usize];
        if let Some(to) = sector.get_mut(..size_of::<FileHeader>()) {
            to.copy_from_slice(head.as_bytes());
        }
        append(&*store, &sector, 0)?;
        let saved = Mutex::new(Saved { units: Runs::default(), end: ALIGN, number: 0, durable: 0 });
        Ok(Self { below, store, run, saved })
    }

    /// Bytes that the store has.
    pub fn saved(&self) -> u64 {
        self.saved.lock().units.count().saturating_mul(UNIT)
    }

    /// Keeps the changes: makes them durable, then empties the store.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn keep(self) -> Result<()> {
        self.below.flush()?;
        forget(&*self.store)
    }

    /// Saves the units of a range that are not saved yet, and returns when they are durable. Where the change is to zero them, those
    /// that are zero already may be left out.
    fn save(&self, offset: u64, len: u64, zeroing: bool) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let mut saved = self.saved.lock();
        let mut new = Runs::default();
        for (mut at, end) in saved.units.gaps(offset / UNIT, (offset + len - 1) / UNIT + 1) {
            while at < end {
                if zeroing {
                    at = at.max(self.below.next_data(at * UNIT) / UNIT);
                }
                let stop = end.min(at.saturating_add(MOST / UNIT));
                if at >= stop {
                    break;
                }
                let n = (stop * UNIT).min(self.below.len()).saturating_sub(at * UNIT);
                self.append(&mut saved, at * UNIT, n)?;
                new.add(at, stop);
                at = stop;
            }
        }
        // One flush for all records of a change; only then do they count.
        if new.count() > 0 {
            self.store.flush()?;
            saved.durable = saved.number;
            new.iter().for_each(|(start, end)| saved.units.add(start, end));
        }
        Ok(())
    }

    fn append(&self, saved: &mut Saved, offset: u64, n: u64) -> Result<()> {
        let mut record = vec![0; (HEADER + n).next_multiple_of(ALIGN) as usize];
        let (head, data) = record.split_at_mut(HEADER as usize);
        let data = data.get_mut(..n as usize).unwrap_or(&mut []);
        self.below.read_at(data, offset)?;
        let (magic, run) = (U32::new(RECORD_MAGIC), self.run);
        let (number, durable) = (U64::new(saved.number), U64::new(saved.durable));
        let (at, length) = (U64::new(offset), U64::new(n));
        let h = RecordHeader { magic, crc: U32::new(0), run, number, durable, offset: at, length }.sealed(data);
        head.copy_from_slice(h.as_bytes());
        let end = saved.end + record.len() as u64;
        if self.store.len() < end {
            self.store.set_len(end)?;
        }
        self.store.write_at(&record, saved.end)?;
        (saved.end, saved.number) = (end, saved.number + 1);
        Ok(())
    }

    fn change(&self, op: &'static str, offset: u64, len: u64, zeroing: bool) -> Result<()> {
        check_range(op, self.below.name(), offset, len, self.below.len())?;
        self.save(offset, len, zeroing)
    }
}

/// One record: its header and data. None where there is no whole one.
fn record(store: &dyn Target, run: &[u8; 16], at: u64) -> Result<Option<(RecordHeader, Vec<u8>)>> {
    let left = store.len().saturating_sub(at);
    let mut head = [0; HEADER as usize];
    if left < HEADER {
        return Ok(None);
    }
    store.read_at(&mut head, at)?;
    let Ok((h, _)) = RecordHeader::read_from_prefix(&head) else { return Ok(None) };
    let n = h.length.get();
    if h.magic.get() != RECORD_MAGIC || h.run != *run || n == 0 || n > MOST || n > left - HEADER {
        return Ok(None);
    }
    let mut data = vec![0; n as usize];
    store.read_at(&mut data, at + HEADER)?;
    Ok((h.sealed(&data).crc == h.crc).then_some((h, data)))
}

/// Visits the records of a store in order.
fn records(store: &dyn Target, run: &[u8; 16], each: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    let (mut at, mut number) = (ALIGN, 0);
    while let Some((h, data)) = record(store, run, at)?.filter(|(h, _)| h.number.get() == number) {
        each(h.offset.get(), &data)?;
        at += (HEADER + data.len() as u64).next_multiple_of(ALIGN);
        number += 1;
    }
    // A crash tears only records that were not durable, whose changes had not begun. If one behind says that this one was, then the
    // store itself is damaged, and what it lacks cannot be brought back.
    let mut behind = at;
    while behind < store.len() {
        if record(store, run, behind)?.is_some_and(|(h, _)| h.durable.get() > number) {
            return Err(damaged(store, at, "record"));
        }
        behind += ALIGN;
    }
    Ok(())
}

/// Brings back what a store's run has overwritten, makes that durable and empties the store. A store without a run brings back
/// nothing. After a crash it can be called again.
///
/// # Errors
/// [`Error::Corrupt`] where the store is damaged, [`Error::Invalid`] where it belongs to a target of another length; then nothing was
/// changed. [`Error::Io`].
pub fn restore(target: &dyn Target, store: &dyn Target) -> Result<Restored> {
    let Some(head) = header(store)? else { return Ok(Restored::default()) };
    if target.len() != head.length.get() {
        return Err(Error::invalid(format!(
            "{} was saved from a target of {} bytes, and {} has {}",
            store.name(),
            head.length,
            target.name(),
            target.len()
        )));
    }
    // All of it is looked at before any of it is used.
    records(store, &head.run, &mut |offset, data| {
        check_range("restore", target.name(), offset, data.len() as u64, target.len())
    })?;
    let mut restored = Restored::default();
    records(store, &head.run, &mut |offset, data| {
        restored.ranges += 1;
        restored.bytes += data.len() as u64;
        target.write_at(data, offset)
    })?;
    target.flush()?;
    forget(store)?;
    Ok(restored)
}

impl Target for Undo {
    fn name(&self) -> &str {
        self.below.name()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.below.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.change("write", offset, buf.len() as u64, false)?;
        self.below.write_at(buf, offset)
    }
    fn next_data(&self, offset: u64) -> u64 {
        self.below.next_data(offset)
    }
    fn flush(&self) -> Result<()> {
        self.below.flush()
    }
    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.change("punch", offset, len, true)?;
        self.below.punch(offset, len)
    }
    fn discard(&self, _offset: u64, _len: u64) -> Result<()> {
        // A discard is a hint. Following it would mean to save what nobody wants; not following it costs nothing.
        Ok(())
    }
    fn len(&self) -> u64 {
        self.below.len()
    }
    fn set_len(&self, _len: u64) -> Result<()> {
        Err(Error::unsupported("a target whose changes can be taken back keeps its length"))
    }
    fn io(&self) -> Io {
        self.below.io()
    }
}

#[cfg(test)]
mod tests {
    use super::{ALIGN, Undo, restore};
    use crate::error::Error;
    use crate::target::{Fault, Faulty, On, Recorder, Target, Xfile};
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    const SIZE: usize = 20_000;

    fn disk() -> Arc<Xfile> {
        let x = Xfile::new("disk").unwrap();
        x.write_at(&(0..SIZE as u32).map(|i| (i % 251) as u8).collect::<Vec<u8>>(), 0).unwrap();
        Arc::new(x)
    }

    fn bytes(t: &dyn Target) -> Vec<u8> {
        let mut b = vec![0; SIZE];
        t.read_at(&mut b, 0).unwrap();
        b
    }

    type Step = (u64, usize, u8, bool);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec((0u64..18_000, 1usize..2000, any::<u8>(), any::<bool>()), 1..12)
    }

    fn run(t: &dyn Target, steps: &[Step]) -> crate::Result<()> {
        for (at, len, byte, punch) in steps {
            if *punch { t.punch(*at, *len as u64)? } else { t.write_at(&vec![*byte; *len], *at)? }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn brings_back_what_was_there(steps in steps()) {
            let (disk, store) = (disk(), Arc::new(Xfile::new("store").unwrap()));
            let before = bytes(&*disk);
            let undo = Undo::new(disk.clone(), store.clone()).unwrap();
            run(&undo, &steps).unwrap();
            let plain = super::tests::disk();
            run(&*plain, &steps).unwrap();
            prop_assert_eq!(bytes(&undo), bytes(&*plain));
            prop_assert!(undo.saved() > 0);
            prop_assert!(Undo::new(disk.clone(), store.clone()).is_err(), "a second run would forget the first");
            let restored = restore(&*disk, &*store).unwrap();
            prop_assert!(restored.bytes <= undo.saved() && restored.ranges > 0);
            prop_assert_eq!(bytes(&*disk), before);
            prop_assert_eq!(restore(&*disk, &*store).unwrap().ranges, 0);
        }

        /// Power is cut at any point, and what was not flushed may be lost, on the disk and in the store, each write by chance.
        #[test]
        fn survives_a_crash_at_any_point(steps in steps(), cut in 0u64..80, lose in any::<u64>()) {
            let base = disk();
            let empty = Xfile::new("store").unwrap();
            empty.set_len(200_000).unwrap();
            let clock = Arc::new(AtomicU64::new(0));
            let disk = Arc::new(Recorder::with_clock(base.clone(), clock.clone()).unwrap());
            let store = Arc::new(Recorder::with_clock(Arc::new(empty), clock.clone()).unwrap());
            run(&Undo::new(disk.clone(), store.clone()).unwrap(), &steps).unwrap();
            let mut luck = lose;
            let mut keep = |_: &_| {
                luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                luck >> 63 == 1
            };
            let (disk, store) = (disk.crash(cut, &mut keep).unwrap(), store.crash(cut, &mut keep).unwrap());
            restore(&disk, &store).unwrap();
            prop_assert_eq!(bytes(&disk), bytes(&*base));
        }
    }

    #[test]
    fn punching_a_large_hole_saves_only_data() {
        let (disk, store) = (Arc::new(Xfile::new("disk").unwrap()), Arc::new(Xfile::new("store").unwrap()));
        disk.set_len(1 << 40).unwrap();
        let spot = (1 << 39) + 12_345;
        disk.write_at(b"data", spot).unwrap();
        let undo = Undo::new(disk.clone(), store.clone()).unwrap();
        undo.punch(0, 1 << 40).unwrap();
        assert!((1..=2 << 20).contains(&undo.saved()), "{} bytes saved", undo.saved());
        let mut seen = [1; 4];
        disk.read_at(&mut seen, spot).unwrap();
        assert_eq!(seen, [0; 4]);
        undo.write_at(b"more", 1 << 20).unwrap();
        restore(&*disk, &*store).unwrap();
        disk.read_at(&mut seen, spot).unwrap();
        assert_eq!(&seen, b"data");
        disk.read_at(&mut seen, 1 << 20).unwrap();
        assert_eq!(seen, [0; 4]);
    }

    #[test]
    fn keeping_empties_the_store() {
        let (disk, store) = (disk(), Arc::new(Xfile::new("store").unwrap()));
        let undo = Undo::new(disk.clone(), store.clone()).unwrap();
        undo.write_at(&[9; 100], 50).unwrap();
        undo.keep().unwrap();
        assert_eq!(restore(&*disk, &*store).unwrap().ranges, 0);
        assert_eq!(bytes(&*disk)[50..150], [9; 100]);
    }

    #[test]
    fn nothing_is_overwritten_that_could_not_be_saved() {
        for on in [On::Write, On::Flush] {
            let disk = disk();
            let before = bytes(&*disk);
            let store = Arc::new(Faulty::new(Arc::new(Xfile::new("store").unwrap())));
            let undo = Undo::new(disk.clone(), store.clone()).unwrap();
            store.add(on, 0, Fault::Error);
            assert!(undo.write_at(&[1; 5000], 100).is_err());
            assert_eq!(bytes(&*disk), before);
            // The next attempt saves again what did not count.
            undo.write_at(&[2; 5000], 100).unwrap();
            restore(&*disk, &*store).unwrap();
            assert_eq!(bytes(&*disk), before);
        }
    }

    #[test]
    fn a_damaged_store_is_refused_and_a_torn_end_is_not() {
        let (disk, store) = (disk(), Arc::new(Xfile::new("store").unwrap()));
        let undo = Undo::new(disk.clone(), store.clone()).unwrap();
        undo.write_at(&[1; 10], 0).unwrap();
        undo.write_at(&[2; 10], 9000).unwrap();
        let changed = bytes(&*disk);
        let mut first = [0; 1];
        let spot = ALIGN + 600;
        store.read_at(&mut first, spot).unwrap();
        store.write_at(&[!first[0]], spot).unwrap();
        assert!(matches!(restore(&*disk, &*store), Err(Error::Corrupt(_))));
        assert_eq!(bytes(&*disk), changed);
        store.write_at(&first, spot).unwrap();
        store.set_len(store.len() - 1000).unwrap();
        assert_eq!(restore(&*disk, &*store).unwrap().ranges, 1);
        let other = Xfile::new("other").unwrap();
        let undo = Undo::new(disk.clone(), store.clone()).unwrap();
        undo.write_at(&[1], 0).unwrap();
        assert!(matches!(restore(&other, &*store), Err(Error::Invalid(_))));
    }
}
