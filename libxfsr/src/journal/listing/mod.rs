//! The log as a list: its records, the operations in them, transactions, and every item with its fields.
//!
//! What recovery refuses is listed as far as it goes: a record that is damaged is told with what is wrong about it, and the list goes on
//! with the next. Transactions are put together from whole records only.
//!
//! ```no_run
//! use libxfsr::control::Control;
//! use libxfsr::journal::listing::{self, Entry, Options, View};
//! use std::ops::ControlFlow;
//! # let devices = libxfsr::volume::Devices::data("image");
//! let volume = libxfsr::volume::Volume::open(&devices)?;
//! let options = Options { view: View::Recovery, ..Options::default() };
//! let totals = listing::list(&volume, &options, &Control::none(), &mut |entry| {
//!     if let Entry::Item(item) = entry {
//!         println!("{} {:?}", item.kind, item.detail);
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! assert_eq!(totals.findings, 0);
//! # Ok::<(), libxfsr::Error>(())
//! ```

mod detail;
mod entries;
mod walk;

pub use detail::{Change, Chunks, Core, Detail, Extent, Quota, buffer_name, chunk_bytes};
pub use entries::{
    CrcState, Entry, GapEntry, ItemEntry, LogEntry, OperationEntry, Part, Place, RecordEntry, State, Totals,
    TransactionEntry,
};

use super::head::Log;
use super::items::verify_item;
use super::transactions::{Committed, Transactions};
use crate::control::Control;
use crate::error::{Corruption, Error, Result, Severity};
use crate::format::log::items::{ItemHead, ItemType};
use crate::format::log::{CLIENT_LOG, CLIENT_TRANSACTION, OpFlags, OpHeader, Ops};
use crate::units::{Device, Lsn};
use crate::volume::Volume;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use zerocopy::FromBytes;

/// Which part of the log is listed, in which order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// From a block to the end of the log as it lies on the device, with what earlier cycles left.
    Blocks {
        /// First block of 512 bytes.
        from: u64,
    },
    /// What recovery looks at: from the tail to the head, around the log's end.
    Recovery,
}

/// What is listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Which part.
    pub view: View,
    /// Records, and blocks without one.
    pub records: bool,
    /// Operations of each record.
    pub operations: bool,
    /// Transactions and their items.
    pub items: bool,
    /// The bytes of each item's regions.
    pub bytes: bool,
}

impl Default for Options {
    /// All but the bytes.
    fn default() -> Self {
        Self { view: View::Recovery, records: true, operations: true, items: true, bytes: false }
    }
}

/// Why a list ends early.
enum Stop {
    /// Who listens has heard enough.
    Enough,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

type Listed<T = ()> = std::result::Result<T, Stop>;

/// Which region of which item comes next in a transaction.
#[derive(Default)]
struct Progress {
    header: bool,
    kind: Option<ItemType>,
    region: u16,
    regions: u16,
}

struct Lister<'a> {
    log: Log,
    options: Options,
    control: &'a Control<'a>,
    each: &'a mut dyn FnMut(Entry) -> ControlFlow<()>,
    totals: Totals,
    /// Where the record is that is being listed.
    place: Place,
    transactions: Transactions,
    progress: HashMap<u32, Progress>,
    /// Intents that are not done, in the order of the log, and where each number stands: numbers come again.
    pending: BTreeMap<u64, ItemEntry>,
    by_id: HashMap<u64, u64>,
    logged: u64,
}

/// Lists the volume's log and calls `each` with every entry until it breaks.
///
/// # Errors
/// [`Error::MissingDevice`] where the log's device was not given; I/O errors; [`Error::Stopped`]. Damage is no error, but an entry.
pub fn list(
    volume: &Volume,
    options: &Options,
    control: &Control<'_>,
    each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
) -> Result<Totals> {
    let log = Log::open(volume)?.ok_or(Error::MissingDevice { device: Device::Log })?;
    let mut lister = Lister {
        log,
        options: *options,
        control,
        each,
        totals: Totals::default(),
        place: Place::Active,
        transactions: Transactions::of(volume),
        progress: HashMap::new(),
        pending: BTreeMap::new(),
        by_id: HashMap::new(),
        logged: 0,
    };
    match lister.all(volume) {
        Ok(()) | Err(Stop::Enough) => Ok(lister.totals),
        Err(Stop::Failed(e)) => Err(e),
    }
}

impl Lister<'_> {
    fn tell(&mut self, entry: Entry) -> Listed {
        if (self.each)(entry).is_break() { Err(Stop::Enough) } else { Ok(()) }
    }

    fn finding(&mut self, c: Corruption) -> Listed {
        // What recovery does not look at is no damage.
        let c = if self.place == Place::Active { c } else { *Box::new(c).severity(Severity::Warning) };
        if c.severity == Severity::Warning {
            self.totals.warnings += 1;
        } else {
            self.totals.findings += 1;
        }
        self.tell(Entry::Finding { finding: c })
    }

    /// Damage is told; other errors end the list.
    fn damage(&mut self, e: Error) -> Listed {
        match e {
            Error::Corrupt(c) => self.finding(*c),
            e => Err(e.into()),
        }
    }

    /// Operations of a record. Transactions go on through whole records only.
    fn operations(&mut self, lsn: Lsn, data: &[u8], count: u32, whole: bool) -> Listed {
        for (number, op) in (0..).zip(Ops::new(data, count)) {
            let (header, region) = match op {
                Ok(op) => op,
                Err(c) => {
                    let c = self.log.locate(c, lsn);
                    self.lose();
                    return self.finding(*c);
                }
            };
            self.totals.operations += 1;
            if self.options.operations {
                let entry = self.operation(lsn, number, header, region);
                self.tell(Entry::Operation(entry))?;
            }
            if !whole {
                continue;
            }
            match self.transactions.step(lsn, header, region) {
                Ok(Some(committed)) => self.transaction(&committed, lsn)?,
                Ok(None) => {}
                Err(Error::Corrupt(c)) => {
                    let c = self.log.locate(c, lsn);
                    self.finding(*c)?;
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// What has begun cannot be put together any more.
    fn lose(&mut self) {
        self.totals.unfinished += self.transactions.forget() as u64;
        self.progress.clear();
    }

    fn operation(&mut self, lsn: Lsn, number: u32, header: &OpHeader, region: &[u8]) -> OperationEntry {
        let (tid, flags) = (header.tid.get(), header.flags());
        OperationEntry {
            record: lsn,
            number,
            tid,
            length: header.len.get(),
            client: match header.clientid {
                CLIENT_TRANSACTION => "transaction",
                CLIENT_LOG => "log",
                _ => "unknown",
            },
            flags: detail::names(flags),
            part: if header.clientid == CLIENT_TRANSACTION { self.part(tid, flags, region) } else { None },
        }
    }

    /// Which part of its transaction an operation is.
    fn part(&mut self, tid: u32, flags: OpFlags, region: &[u8]) -> Option<Part> {
        if flags.contains(OpFlags::START) {
            self.progress.insert(tid, Progress::default());
            return None;
        }
        if flags.contains(OpFlags::COMMIT) {
            self.progress.remove(&tid);
            return None;
        }
        let p = self.progress.get_mut(&tid)?;
        if !flags.contains(OpFlags::WAS_CONT) {
            if !p.header {
                p.header = true;
                return Some(Part { of: "transaction", region: 0, regions: 1 });
            }
            if p.region + 1 < p.regions {
                p.region += 1;
            } else {
                let head = ItemHead::ref_from_prefix(region).ok();
                p.kind = head.and_then(|(h, _)| ItemType::from_u16(h.kind.get()));
                (p.region, p.regions) = (0, head.map_or(1, |(h, _)| h.size.get().max(1)));
            }
        } else if p.regions == 0 {
            return Some(Part { of: "transaction", region: 0, regions: 1 });
        }
        Some(Part { of: p.kind.map_or("unknown", ItemType::name), region: p.region, regions: p.regions })
    }

    fn transaction(&mut self, whole: &Committed, commit: Lsn) -> Listed {
        self.totals.transactions += 1;
        let place = |log: &Log, e: Error| match e {
            Error::Corrupt(c) => Error::Corrupt(log.locate(c, whole.lsn)),
            e => e,
        };
        if self.options.items {
            let regions = whole.regions.len().saturating_sub(1);
            self.tell(Entry::Transaction(TransactionEntry { tid: whole.tid, start: whole.lsn, commit, regions }))?;
        }
        let mut rest = match whole.contents() {
            Ok(rest) => rest,
            Err(e) => {
                let e = place(&self.log, e);
                self.damage(e)?;
                // The items may be right all the same.
                whole.regions.get(1..).unwrap_or_default()
            }
        };
        while !rest.is_empty() {
            self.control.check()?;
            let (item, more) = match whole.next_item(rest) {
                Ok(next) => next,
                Err(e) => {
                    let e = place(&self.log, e);
                    return self.damage(e);
                }
            };
            rest = more;
            *self.totals.items.entry(item.kind.name()).or_default() += 1;
            let entry = ItemEntry {
                tid: whole.tid,
                lsn: whole.lsn,
                kind: item.kind.name(),
                detail: detail::detail(item.kind, item.regions),
                regions: item.regions.iter().map(Vec::len).collect(),
                bytes: self.options.bytes.then(|| item.regions.to_vec()),
            };
            if let Some(id) = item.id() {
                self.logged += 1;
                self.pending.insert(self.logged, ItemEntry { bytes: None, ..entry.clone() });
                self.by_id.insert(id, self.logged);
            } else if let Some(at) = item.done_id().and_then(|id| self.by_id.remove(&id)) {
                self.pending.remove(&at);
            }
            if self.options.items {
                self.tell(Entry::Item(entry))?;
            }
            if let Err(c) = verify_item(item.kind, item.regions) {
                let c = self.log.locate(c, whole.lsn);
                self.finding(*c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
