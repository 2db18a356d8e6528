//! Room in the log: where head and tail are, what holds the tail, what is promised to transactions.

use super::cut::Shape;
use crate::cache::BlockKey;
use crate::error::{Error, Result};
use crate::journal::records::{End, next_cycle};
use crate::units::{BASIC_BLOCK, Lsn};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What is changed under one lock.
#[derive(Debug)]
pub(super) struct Space {
    /// Blocks of the log.
    pub(super) blocks: u64,
    /// Where the next record goes, and how many blocks were written before it.
    pub(super) head: Lsn,
    pub(super) written: u64,
    /// Where the tail is that the last durable record names: a crash now makes recovery begin there.
    named: u64,
    /// The block of the record before the head.
    pub(super) previous: Option<u32>,
    /// Bytes that transactions under way may log.
    pub(super) reserved: u64,
    /// Bytes of operations in the checkpoint that is open, and in that which is being written.
    pub(super) open_bytes: u64,
    pub(super) closing_bytes: u64,
    /// The last checkpoint that is durable.
    pub(super) durable: u64,
    /// Where the checkpoints begin that something still needs.
    starts: BTreeMap<u64, (Lsn, u64)>,
    /// Dirty blocks, and the first checkpoint that changed them.
    dirty: HashMap<BlockKey, u64>,
    /// Intents that are not done.
    intents: HashMap<u64, u64>,
    /// How many hold each checkpoint in the log.
    holders: BTreeMap<u64, u64>,
    /// Checkpoints that blocks held which were written, but need not be durable.
    unflushed: Vec<u64>,
    /// Why nothing can be written any more.
    pub(super) failed: bool,
}

impl Space {
    pub(super) fn new(blocks: u64, head: Lsn, previous: u32) -> Self {
        Self {
            blocks,
            head,
            written: 0,
            named: 0,
            previous: Some(previous),
            reserved: 0,
            open_bytes: 0,
            closing_bytes: 0,
            durable: 0,
            starts: BTreeMap::new(),
            dirty: HashMap::new(),
            intents: HashMap::new(),
            holders: BTreeMap::new(),
            unflushed: Vec::new(),
            failed: false,
        }
    }

    /// Behind what was replayed, which reaches from `tail` to the head and is on its devices: only intents that are not done, each in
    /// the checkpoint that begins with that record, are still needed of it. Returns the number of the next checkpoint too.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an intent whose record is not there.
    pub(super) fn resumed(blocks: u64, end: &End, intents: &[(u64, Lsn)]) -> Result<(Self, u64)> {
        let place = |lsn: Lsn| (u64::from(lsn.block()) + blocks - u64::from(end.tail.block())) % blocks;
        let mut space = Self::new(blocks, end.head, end.newest.block());
        space.written = place(end.head);
        if space.written == 0 && end.head != end.tail {
            space.written = blocks;
        }
        let begin: BTreeSet<(u64, Lsn)> = intents.iter().map(|(_, lsn)| (place(*lsn), *lsn)).collect();
        for ((at, lsn), checkpoint) in begin.into_iter().zip(1..) {
            if at >= space.written {
                return Err(Error::invalid(format!("no record of the log that was replayed begins at {lsn:?}")));
            }
            space.starts.insert(checkpoint, (lsn, at));
            space.durable = checkpoint;
            for (id, _) in intents.iter().filter(|(_, l)| *l == lsn) {
                space.intent(*id, checkpoint);
            }
        }
        let next = space.durable + 1;
        Ok((space, next))
    }

    /// The log's length in bytes, without what keeps the head from the tail.
    pub(super) fn capacity(&self, shape: &Shape) -> u64 {
        (self.blocks * BASIC_BLOCK).saturating_sub(2 * shape.round as u64)
    }

    /// Where the oldest checkpoint begins that must stay, as a number of blocks; the head where there is none.
    pub(super) fn tail(&self) -> u64 {
        self.oldest().and_then(|(_, s)| s).map_or(self.written, |(_, at)| at)
    }

    /// The oldest checkpoint that is held, and where it begins, if it was written.
    fn oldest(&self) -> Option<(u64, Option<(Lsn, u64)>)> {
        self.holders.keys().next().map(|c| (*c, self.starts.get(c).copied()))
    }

    /// The tail, as records name it.
    pub(super) fn tail_lsn(&self) -> Lsn {
        self.oldest().and_then(|(_, s)| s).map_or(self.head, |(lsn, _)| lsn)
    }

    /// Bytes between tail and head.
    pub(super) fn used(&self) -> u64 {
        (self.written - self.tail()) * BASIC_BLOCK
    }

    /// Whether so many bytes fit beside all that is promised.
    pub(super) fn fits(&self, shape: &Shape, bytes: u64, limit: u64) -> bool {
        let promised = shape.checkpoint(self.open_bytes) + shape.checkpoint(self.closing_bytes) + self.reserved;
        self.used() + promised + bytes <= limit
    }

    /// A checkpoint up to which all must be written back, so that the log is no more than half full; at least the oldest.
    pub(super) fn target(&self) -> Option<u64> {
        let (oldest, _) = self.oldest()?;
        let limit = self.written.saturating_sub(self.blocks / 2);
        let older = self.starts.iter().take_while(|(_, (_, at))| *at < limit).last().map_or(0, |(c, _)| *c);
        Some(oldest.max(older))
    }

    /// Whether a checkpoint begins in the older half of a log.
    pub(super) fn is_old(&self, checkpoint: u64) -> bool {
        self.starts.get(&checkpoint).is_some_and(|(_, at)| self.written - at > self.blocks / 4)
    }

    fn hold(&mut self, checkpoint: u64) {
        *self.holders.entry(checkpoint).or_default() += 1;
    }

    fn release(&mut self, checkpoint: u64) {
        if let Some(n) = self.holders.get_mut(&checkpoint) {
            *n -= 1;
            if *n == 0 {
                self.holders.remove(&checkpoint);
            }
        }
    }

    /// Forgets where checkpoints began that nothing needs.
    fn prune(&mut self) {
        let from = self.oldest().map_or(self.durable, |(c, _)| c.min(self.durable));
        self.starts = self.starts.split_off(&from);
    }

    pub(super) fn block_dirty(&mut self, key: &BlockKey, checkpoint: u64) {
        if !self.dirty.contains_key(key) {
            self.dirty.insert(key.clone(), checkpoint);
            self.hold(checkpoint);
        }
    }
    /// A block was freed: what held the log for it does so until the checkpoint that says so is durable.
    pub(super) fn block_freed(&mut self, key: &BlockKey) -> Option<u64> {
        self.dirty.remove(key)
    }
    pub(super) fn block_written(&mut self, key: &BlockKey) {
        self.unflushed.extend(self.dirty.remove(key));
    }
    pub(super) fn intent(&mut self, id: u64, checkpoint: u64) {
        self.intents.insert(id, checkpoint);
        self.hold(checkpoint);
    }
    pub(super) fn intent_done(&mut self, id: u64) -> Option<u64> {
        self.intents.remove(&id)
    }
    /// What blocks held that were written since this was asked last.
    pub(super) fn take_unflushed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.unflushed)
    }
    /// Lets go of checkpoints.
    pub(super) fn let_go(&mut self, held: Vec<u64>) {
        held.into_iter().for_each(|c| self.release(c));
        self.prune();
    }
    /// Holds on, where a flush failed.
    pub(super) fn keep(&mut self, held: Vec<u64>) {
        self.unflushed.extend(held);
    }
    /// Whether all was written back.
    pub(super) fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.open_bytes == 0
    }

    pub(super) fn begin_checkpoint(&mut self, checkpoint: u64) {
        self.starts.insert(checkpoint, (self.head, self.written));
    }
    pub(super) fn lsn(&self, checkpoint: u64) -> Lsn {
        let known = self.starts.get(&checkpoint).or_else(|| self.starts.values().next());
        known.map_or(self.head, |(lsn, _)| *lsn)
    }

    /// Moves the head behind a record of so many blocks.
    ///
    /// # Errors
    /// Where it would run into the tail.
    pub(super) fn advance(&mut self, blocks: u64) -> Result<()> {
        self.room_for(blocks)?;
        let next = u64::from(self.head.block()) + blocks;
        let cycle = if next >= self.blocks { next_cycle(self.head.cycle()) } else { self.head.cycle() };
        self.previous = Some(self.head.block());
        self.head = Lsn::new(cycle, u32::try_from(next % self.blocks).unwrap_or(0));
        self.written += blocks;
        Ok(())
    }

    /// Whether so many blocks fit before the tail that recovery begins with after a crash, not only before that which the next record names.
    pub(super) fn spares_named(&self, blocks: u64) -> bool {
        self.written - self.named + blocks < self.blocks
    }

    /// Whether it is the tail as it is now.
    pub(super) fn is_named(&self) -> bool {
        self.named >= self.tail()
    }

    /// A record that names a tail there is durable.
    pub(super) fn tail_named(&mut self, at: u64) {
        self.named = self.named.max(at);
    }

    /// Whether so many blocks fit before the tail.
    ///
    /// # Errors
    /// Where they do not.
    pub(super) fn room_for(&self, blocks: u64) -> Result<()> {
        if self.written - self.tail() + blocks < self.blocks {
            return Ok(());
        }
        Err(Error::invalid(format!("no room for {blocks} blocks before the log's tail")))
    }
}
