//! The blocks of a transaction.

use super::Transaction;
use super::buffer::{all_chunks, changed_chunks};
use super::rank::{Held, Rank};
use crate::cache::{BlockKey, BlockRef, BlockWrite, Want};
use crate::error::{Error, Result};
use crate::format::BlockType;
use crate::format::ag::{AGF, AGI};
use crate::format::inode::INODE_CLUSTER;
use crate::units::AgNumber;

/// A block that a transaction has joined.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) guard: BlockWrite,
    pub(super) kind: &'static BlockType,
    owner: Option<u64>,
    /// Its bytes before the first change.
    before: Option<Box<[u8]>>,
    /// Nothing of what the disk has of it counts.
    fresh: bool,
    /// The cache had it before.
    existed: bool,
    /// It is freed.
    pub(super) freed: bool,
    _rank: Option<Held>,
}

impl Joined {
    /// The chunks that changed; none where nothing did.
    pub(super) fn dirty(&self) -> Option<Vec<u32>> {
        if self.fresh || self.freed {
            return Some(all_chunks(self.guard.bytes.len()));
        }
        let before = self.before.as_ref()?;
        let chunks = changed_chunks(before, &self.guard.bytes);
        chunks.iter().any(|w| *w != 0).then_some(chunks)
    }
    /// Whether anything changed.
    pub(super) fn is_dirty(&self) -> bool {
        self.fresh || self.freed || self.before.as_ref().is_some_and(|before| **before != *self.guard.bytes)
    }
    /// Marks it as what was committed.
    pub(super) fn committed(&mut self, at: crate::cache::Checkpoint) {
        let block = &mut *self.guard;
        (block.kind, block.owner, block.damage) = (self.kind, self.owner, None);
        if self.fresh {
            block.objects.clear();
        }
        // Readers may verify it as something else, or for another owner: so its checksum is right already. The LSN is stamped when it is written.
        let lsn = (self.kind.lsn)(&block.bytes).unwrap_or_default();
        (self.kind.seal)(&mut block.bytes, lsn);
        block.changed(at);
    }
    fn keep_before(&mut self) {
        if self.before.is_none() {
            self.before = Some(self.guard.bytes.clone());
        }
    }
}

impl Transaction<'_> {
    /// A block to read, this transaction's own where it has joined it.
    ///
    /// # Errors
    /// As [`BufCache::read`](crate::cache::BufCache::read).
    pub fn read(&self, key: &BlockKey, want: &Want) -> Result<BlockRef<'_>> {
        match self.blocks.get(key) {
            Some(j) if j.freed => Err(freed(key)),
            Some(j) => Ok(BlockRef::Own(&j.guard)),
            None => Ok(self.volume().cache.read(key, want, self.geometry())?.into()),
        }
    }

    /// Whether it has joined a block.
    pub fn has(&self, key: &BlockKey) -> bool {
        self.blocks.contains_key(key)
    }

    /// The last block of that type, by address, that it has joined: who must lock them in ascending order asks what comes next.
    pub fn last_of(&self, kind: &BlockType) -> Option<&BlockKey> {
        self.blocks.iter().rev().find(|(_, j)| j.kind == kind).map(|(key, _)| key)
    }

    /// Unlocks a block in which nothing was changed: who looked in vain. False where it was, and where it is not joined.
    pub fn let_go(&mut self, key: &BlockKey) -> bool {
        let unchanged = self.blocks.get(key).is_some_and(|j| j.dirty().is_none());
        if unchanged && let Some(joined) = self.blocks.remove(key) {
            drop(joined);
        }
        unchanged
    }

    /// The place of a block among the locks, where it is checked.
    fn rank(&self, key: &BlockKey, want: &Want) -> Option<Held> {
        let make: fn(AgNumber) -> Rank = match want.kind {
            kind if kind == &AGI => Rank::Agi,
            kind if kind == &AGF => Rank::Agf,
            _ => return None,
        };
        let (ag, _) = self.geometry().daddr_to_ag(key.daddr())?;
        self.scope.locks().rank(make(ag))
    }

    fn join(&mut self, key: &BlockKey, want: &Want) -> Result<&mut Joined> {
        if want.kind == &INODE_CLUSTER {
            return Err(Error::invalid("inodes are changed one by one, not by their cluster"));
        }
        if !self.blocks.contains_key(key) {
            let _rank = self.rank(key, want);
            let guard = self.volume().cache.write(key, want, self.geometry())?;
            let (kind, owner) = (want.kind, want.owner.or(guard.owner));
            let joined = Joined { guard, kind, owner, before: None, fresh: false, existed: true, freed: false, _rank };
            self.blocks.insert(key.clone(), joined);
        }
        match self.blocks.get_mut(key) {
            Some(j) if !j.freed => Ok(j),
            _ => Err(freed(key)),
        }
    }

    /// A block that nobody else may change until the end, to read first and change perhaps.
    ///
    /// # Errors
    /// As [`BufCache::write`](crate::cache::BufCache::write); a block that this transaction has freed.
    pub fn block(&mut self, key: &BlockKey, want: &Want) -> Result<&[u8]> {
        Ok(&self.join(key, want)?.guard.bytes)
    }

    /// A block to change.
    ///
    /// # Errors
    /// As [`Transaction::block`].
    pub fn block_mut(&mut self, key: &BlockKey, want: &Want) -> Result<&mut [u8]> {
        let joined = self.join(key, want)?;
        joined.keep_before();
        Ok(&mut joined.guard.bytes)
    }

    /// A block of which nothing that the disk has counts, zeroed; all of it is logged. One that was freed in this transaction may come back
    /// so.
    ///
    /// # Errors
    /// For an inode cluster: see [`Transaction::create_chunk`].
    pub fn fresh(&mut self, key: &BlockKey, want: &Want) -> Result<&mut [u8]> {
        if want.kind == &INODE_CLUSTER {
            return Err(Error::invalid("inode clusters are made as chunks"));
        }
        if !self.blocks.contains_key(key) {
            let (guard, existed) = self.volume().cache.claim(key, want);
            let (kind, owner) = (want.kind, want.owner);
            let joined = Joined { guard, kind, owner, before: None, fresh: true, existed, freed: false, _rank: None };
            self.blocks.insert(key.clone(), joined);
        }
        let Some(joined) = self.blocks.get_mut(key) else { return Err(freed(key)) };
        joined.keep_before();
        (joined.kind, joined.owner, joined.fresh, joined.freed) = (want.kind, want.owner, true, false);
        joined.guard.bytes.fill(0);
        Ok(&mut joined.guard.bytes)
    }

    /// A block that is joined becomes one of another type: a directory block that grows into a data block.
    pub fn set_kind(&mut self, key: &BlockKey, want: &Want) {
        if let Some(j) = self.blocks.get_mut(key) {
            (j.kind, j.owner) = (want.kind, want.owner);
        }
    }

    /// Metadata that is freed: whatever was logged of the block must not be replayed over what it becomes. It need not be readable.
    ///
    /// # Errors
    /// None today; for an inode cluster it happens at the end.
    pub fn invalidate(&mut self, key: &BlockKey, want: &Want) -> Result<()> {
        if want.kind == &INODE_CLUSTER {
            self.late.free(key);
            return Ok(());
        }
        if !self.blocks.contains_key(key) {
            let (guard, existed) = self.volume().cache.claim(key, want);
            let (kind, owner) = (want.kind, want.owner);
            let joined = Joined { guard, kind, owner, before: None, fresh: false, existed, freed: true, _rank: None };
            self.blocks.insert(key.clone(), joined);
        }
        if let Some(j) = self.blocks.get_mut(key) {
            j.freed = true;
        }
        Ok(())
    }

    /// Takes all changes of blocks back and unlocks them.
    pub(super) fn release_blocks_unchanged(&mut self) {
        for (key, mut joined) in std::mem::take(&mut self.blocks) {
            if !joined.existed {
                self.scope.volume.cache.abandon(&key, joined.guard);
            } else if let Some(before) = joined.before.take() {
                joined.guard.bytes = before;
            }
        }
    }

    /// Unlocks the blocks of a transaction that was committed.
    pub(super) fn release_blocks(&mut self) {
        for (key, joined) in std::mem::take(&mut self.blocks) {
            if joined.freed {
                self.scope.volume.cache.abandon(&key, joined.guard);
            }
        }
    }
}

fn freed(key: &BlockKey) -> Error {
    Error::invalid(format!("the block at {} was freed in this transaction", key.daddr()))
}
