//! What records hold: operations are put together to transactions, and those cut into items.

use super::items::verify_item;
use super::records::{Record, records};
use crate::control::Control;
use crate::error::{Corruption, Result, Rule};
use crate::format::log::items::{DoneFormat, EfiFormat, ItemHead, ItemType, TRANSACTION_MAGIC, TransactionHeader};
use crate::format::log::{CLIENT_TRANSACTION, OpFlags, OpHeader};
use crate::units::Lsn;
use crate::volume::Volume;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use zerocopy::FromBytes;

/// One item of a committed transaction: its regions, of which the first says what it is.
#[derive(Clone, Debug)]
pub struct Item<'a> {
    /// What it logs.
    pub kind: ItemType,
    /// The record in which its transaction starts: what replay compares with a block's own LSN.
    pub lsn: Lsn,
    /// Its regions.
    pub regions: &'a [Vec<u8>],
}

impl Item<'_> {
    fn head(&self) -> &[u8] {
        self.regions.first().map_or(&[], Vec::as_slice)
    }
    /// The number of an intent: all have it at the same place.
    pub fn id(&self) -> Option<u64> {
        let format = EfiFormat::ref_from_prefix(self.head()).ok().filter(|_| self.kind.is_intent());
        format.map(|(f, _)| f.id.get())
    }
    /// The number of the intent that this item says is done.
    pub fn done_id(&self) -> Option<u64> {
        let done = ItemType::ALL.iter().any(|t| t.done() == Some(self.kind));
        DoneFormat::ref_from_prefix(self.head()).ok().filter(|_| done).map(|(f, _)| f.id.get())
    }
}

#[derive(Debug)]
struct Open {
    lsn: Lsn,
    regions: Vec<Vec<u8>>,
    /// What it takes in memory, about.
    held: usize,
}

/// What a transaction that has started takes in memory beside its regions, and a region beside its bytes, about.
const OVERHEAD: usize = 64;
/// What may be open in the smallest log and in the largest. Linux begins to write a checkpoint at 32 MiB.
const LEAST: usize = 16 << 20;
const MOST: usize = 512 << 20;

/// A committed transaction before its regions are cut into items; the first is its header.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) tid: u32,
    /// The record in which it starts.
    pub(super) lsn: Lsn,
    pub(super) regions: Vec<Vec<u8>>,
}

/// Puts operations together to transactions.
#[derive(Debug)]
pub struct Transactions {
    open: HashMap<u32, Open>,
    held: usize,
    most: usize,
}

fn bad(field: &'static str, rule: Rule) -> Box<Corruption> {
    Corruption::new("log", field, rule)
}

impl Transactions {
    /// For the transactions of this volume's log.
    ///
    /// The kernel lets no checkpoint grow beyond an eighth of the log, and few are open at once: a log with much more of them is noise, which
    /// shall not take all memory.
    pub fn of(volume: &Volume) -> Self {
        let g = &volume.geometry;
        let bytes = usize::try_from(u64::from(g.log_blocks) << g.block_log).unwrap_or(usize::MAX);
        Self { open: HashMap::new(), held: 0, most: bytes.clamp(LEAST, MOST) }
    }

    fn take(&mut self, bytes: usize) -> Result<()> {
        self.held = self.held.saturating_add(bytes);
        if self.held <= self.most {
            return Ok(());
        }
        let c = bad("tid", Rule::Range).found(format_args!("{} transactions that are not committed", self.open.len()));
        Err(c.expected(format_args!("less than {} bytes of them", self.most)).into())
    }

    /// Takes the operations of the next record and calls `each` with all items of each transaction that it commits, in the order in
    /// which they were logged.
    ///
    /// # Errors
    /// The first operation or item that breaks a rule; what `each` returns.
    pub fn add(
        &mut self,
        record: &Record,
        each: &mut dyn FnMut(&[Item<'_>]) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        for op in record.ops() {
            let (header, region) = op?;
            if let Some(whole) = self.step(record.lsn, header, region)?
                && each(&items(&whole)?)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Takes the next operation, of the record with this LSN. Returns the transaction that it commits.
    pub(super) fn step(&mut self, lsn: Lsn, header: &OpHeader, region: &[u8]) -> Result<Option<Committed>> {
        let (tid, flags) = (header.tid.get(), header.flags());
        if header.clientid != CLIENT_TRANSACTION {
            return Ok(None);
        }
        if flags.contains(OpFlags::START) {
            self.take(OVERHEAD)?;
            if self.open.insert(tid, Open { lsn, regions: Vec::new(), held: OVERHEAD }).is_some() {
                return Err(bad("tid", Rule::Extra).found(format_args!("{tid:#x}, which has started")).into());
            }
            return Ok(None);
        }
        if flags.contains(OpFlags::COMMIT) {
            let whole = self.open.remove(&tid);
            self.held = self.held.saturating_sub(whole.as_ref().map_or(0, |w| w.held));
            return Ok(whole.map(|w| Committed { tid, lsn: w.lsn, regions: w.regions }));
        }
        // What started before the tail is on the disk already.
        if !self.open.contains_key(&tid) {
            return Ok(None);
        }
        let held = region.len() + OVERHEAD;
        self.take(held)?;
        let Some(open) = self.open.get_mut(&tid) else { return Ok(None) };
        open.held += held;
        if flags.contains(OpFlags::WAS_CONT) {
            let last = open.regions.last_mut();
            last.ok_or_else(|| bad("flags", Rule::Flags).found("a region goes on that never began"))?
                .extend_from_slice(region);
        } else {
            open.regions.push(region.to_vec());
        }
        Ok(None)
    }

    /// Forgets what has started and is not committed; returns how many those were.
    pub(super) fn forget(&mut self) -> usize {
        self.held = 0;
        self.open.drain().count()
    }

    /// Transactions that have started and are not committed: replay drops them.
    pub fn unfinished(&self) -> usize {
        self.open.len()
    }

    /// A number so that none of those has that or one of the many behind it: what they began must not be taken for the beginning of others.
    pub(super) fn free_tid(&self) -> u32 {
        const MANY: u32 = 1 << 24;
        let mut tids: Vec<u32> = self.open.keys().copied().collect();
        tids.sort_unstable();
        // They are taken in order, so that one pass suffices.
        tids.into_iter()
            .fold(0, |free: u32, tid| if tid.wrapping_sub(free) < MANY { tid.wrapping_add(1) } else { free })
    }
}

impl Committed {
    /// The regions behind the header, which must be as many as it counts.
    pub(super) fn contents(&self) -> Result<&[Vec<u8>]> {
        let Some((head, rest)) = self.regions.split_first() else { return Ok(&[]) };
        let (header, _) = TransactionHeader::read_from_prefix(head)
            .map_err(|_| bad("th_magic", Rule::Truncated).found(format_args!("{} bytes", head.len())))?;
        if header.magic.get() != TRANSACTION_MAGIC {
            return Err(bad("th_magic", Rule::Magic).found(format_args!("{:#x}", header.magic.get())).into());
        }
        // The header counts regions: observed, Linux 6.12 and 6.18 write so.
        if rest.len() as u64 != u64::from(header.num_items.get()) {
            return Err(bad("num_items", Rule::Count).found(rest.len()).expected(header.num_items.get()).into());
        }
        Ok(rest)
    }

    /// The item that begins with the first of these regions, and the regions behind it. Its contents are not verified.
    pub(super) fn next_item<'a>(&self, rest: &'a [Vec<u8>]) -> Result<(Item<'a>, &'a [Vec<u8>])> {
        let first = rest.first().map_or(&[][..], Vec::as_slice);
        let (head, _) = ItemHead::ref_from_prefix(first)
            .map_err(|_| bad("item", Rule::Truncated).found(format_args!("{} bytes", first.len())))?;
        let (number, size) = (head.kind.get(), usize::from(head.size.get()));
        let kind = ItemType::from_u16(number)
            .ok_or_else(|| bad("item", Rule::Flags).found(format_args!("{number:#x}")).expected("a known type"))?;
        let Some((regions, more)) = rest.split_at_checked(size).filter(|_| size > 0) else {
            let found = format_args!("{size} regions");
            return Err(bad("size", Rule::Range).found(found).expected(format_args!("1 to {}", rest.len())).into());
        };
        Ok((Item { kind, lsn: self.lsn, regions }, more))
    }
}

/// Cuts a transaction's regions into items, each of which is verified.
fn items(whole: &Committed) -> Result<Vec<Item<'_>>> {
    let mut items = Vec::new();
    let mut rest = whole.contents()?;
    while !rest.is_empty() {
        let (item, more) = whole.next_item(rest)?;
        verify_item(item.kind, item.regions)?;
        items.push(item);
        rest = more;
    }
    Ok(items)
}

/// What a log holds between tail and head.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Summary {
    /// Records.
    pub records: u64,
    /// Operations.
    pub operations: u64,
    /// Transactions that are committed.
    pub transactions: u64,
    /// Transactions that have no end: replay drops them.
    pub unfinished: u64,
    /// Items by type, under the format's names.
    pub items: BTreeMap<String, u64>,
    /// Intents without a done item: recovery has to finish them.
    pub pending: u64,
}

/// Reads the whole log from tail to head and verifies each record, operation and item.
///
/// # Errors
/// As [`records`]; the first operation or item that breaks a rule.
pub fn read(volume: &Volume, control: &Control<'_>) -> Result<Summary> {
    let (mut summary, mut transactions) = (Summary::default(), Transactions::of(volume));
    let mut pending = BTreeSet::new();
    records(volume, control, &mut |record| {
        summary.records += 1;
        summary.operations += u64::from(record.operations);
        let flow = transactions.add(record, &mut |items| {
            for item in items {
                *summary.items.entry(format!("{:?}", item.kind)).or_default() += 1;
                if item.kind.is_intent() {
                    pending.extend(item.id());
                } else if let Some(id) = item.done_id() {
                    pending.remove(&id);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let commits = record.ops().filter_map(std::result::Result::ok);
        summary.transactions += commits.filter(|(h, _)| h.flags().contains(OpFlags::COMMIT)).count() as u64;
        Ok(flow)
    })?;
    summary.unfinished = transactions.unfinished() as u64;
    summary.pending = pending.len() as u64;
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::{CLIENT_TRANSACTION, LEAST, OVERHEAD, OpFlags, Record, Transactions};
    use crate::format::log::OpHeader;
    use crate::units::Lsn;
    use std::collections::HashMap;
    use std::ops::ControlFlow;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    fn started(tids: std::ops::Range<u32>) -> Record {
        let mut data = Vec::new();
        for tid in tids.clone() {
            let mut op = OpHeader::new_zeroed();
            (op.clientid, op.flags) = (CLIENT_TRANSACTION, OpFlags::START.bits());
            op.tid.set(tid);
            data.extend_from_slice(op.as_bytes());
        }
        Record { lsn: Lsn(1), tail: Lsn(1), blocks: 0, operations: tids.len() as u32, data }
    }

    #[test]
    fn what_is_never_committed_does_not_take_all_memory() {
        let mut transactions = Transactions { open: HashMap::new(), held: 0, most: LEAST };
        let most = (LEAST / OVERHEAD) as u32;
        let each = &mut |_: &[super::Item<'_>]| Ok(ControlFlow::Continue(()));
        assert!(transactions.add(&started(0..most), each).is_ok());
        let refused = transactions.add(&started(most..most + 1), each);
        assert!(matches!(refused, Err(crate::Error::Corrupt(c)) if c.code() == "log.tid.range"));
    }
}
