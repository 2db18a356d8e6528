//! Where commits go.

use super::item::CommitSet;
use crate::cache::Checkpoint;
use crate::error::Result;
use crate::units::Lsn;

/// Where commits go: the journal, or straight to dirty blocks.
pub trait CommitSink: Send + Sync {
    /// Reserves room for a transaction that logs so many bytes, and returns what was reserved. May wait for blocks to be written: who
    /// calls it holds none.
    ///
    /// # Errors
    /// When there can never be room, or the journal has failed.
    fn reserve(&self, bytes: u64) -> Result<u64>;
    /// The same for the next step of a chain, whose intent holds the log's tail: it may have what others may not.
    ///
    /// # Errors
    /// As [`CommitSink::reserve`].
    fn reserve_step(&self, bytes: u64) -> Result<u64> {
        self.reserve(bytes)
    }
    /// Gives back what a transaction did not use.
    fn release(&self, reserved: u64);
    /// Takes what a transaction changed, wholly or not at all, and with it what it had reserved. All its blocks are locked.
    ///
    /// # Errors
    /// When there is no room for more than was reserved, or the journal has failed; then nothing was taken.
    fn commit(&self, set: &CommitSet<'_>) -> Result<Checkpoint>;
    /// A transaction was committed and its blocks are unlocked: the time to write what is too much to be kept.
    fn relieve(&self) {}
    /// Contents of files were written to a device, which must be durable before anything is that is committed from now on: who maps blocks, or
    /// makes a file longer, tells it first.
    fn wrote_contents(&self) {}
    /// Returns when all up to that checkpoint is durable.
    ///
    /// # Errors
    /// When it cannot be.
    fn force(&self, upto: Checkpoint) -> Result<()>;
    /// Whether all up to that checkpoint is durable, as far as it is known without waiting.
    fn is_durable(&self, _upto: Checkpoint) -> bool {
        true
    }
    /// Whether intents are logged here.
    fn has_log(&self) -> bool;
    /// Whether an intent of that checkpoint keeps the log from going on, so that it should be logged anew.
    fn is_old(&self, _at: Checkpoint) -> bool {
        false
    }
    /// A chain of transactions broke in the middle: nothing may be committed any more, and recovery has to finish it.
    fn abort(&self);
}

/// No journal: mkfs, the overlay of a repair. Blocks become dirty in the cache.
#[derive(Clone, Copy, Debug)]
pub struct DirtySink {
    /// The LSN that blocks get when they are written.
    pub lsn: Lsn,
}

impl CommitSink for DirtySink {
    fn reserve(&self, _bytes: u64) -> Result<u64> {
        Ok(0)
    }
    fn release(&self, _reserved: u64) {}
    fn commit(&self, _set: &CommitSet<'_>) -> Result<Checkpoint> {
        Ok(Checkpoint(self.lsn.0))
    }
    fn force(&self, _upto: Checkpoint) -> Result<()> {
        Ok(())
    }
    fn has_log(&self) -> bool {
        false
    }
    fn abort(&self) {}
}
