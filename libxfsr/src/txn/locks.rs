//! Locks of inodes. The cache locks blocks; inodes of one cluster are locked each by itself.

use super::rank::{Held as Ranked, Rank};
use crate::units::Ino;
use parking_lot::{ArcRwLockReadGuard, ArcRwLockWriteGuard, Mutex, RawRwLock, RwLock};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

type Table = Mutex<HashMap<Ino, Arc<RwLock<()>>>>;

/// The locks of those inodes that somebody has locked.
#[derive(Clone, Debug, Default)]
pub struct InodeLocks {
    table: Arc<Table>,
    checked: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Held {
    Exclusive(ArcRwLockWriteGuard<RawRwLock, ()>),
    Shared(ArcRwLockReadGuard<RawRwLock, ()>),
}

/// A locked inode.
#[derive(Debug)]
pub struct InodeLock {
    ino: Ino,
    held: Option<Held>,
    table: Arc<Table>,
    _rank: Option<Ranked>,
}

impl InodeLocks {
    fn slot(&self, ino: Ino) -> Arc<RwLock<()>> {
        self.table.lock().entry(ino).or_default().clone()
    }
    /// From now on builds for development check the order in which each thread locks inodes and headers: a filesystem that many threads change.
    pub fn check_order(&self) {
        self.checked.store(true, Ordering::Relaxed);
    }
    pub(super) fn rank(&self, rank: Rank) -> Option<Ranked> {
        self.checked.load(Ordering::Relaxed).then(|| Ranked::take(rank))
    }
    /// Waits for an inode and locks it against all others. Who locks several does so in ascending order, and before any block.
    pub fn lock(&self, ino: Ino) -> InodeLock {
        let _rank = self.rank(Rank::Inode(ino));
        let held = Some(Held::Exclusive(self.slot(ino).write_arc()));
        InodeLock { ino, held, table: self.table.clone(), _rank }
    }
    /// Locks an inode against all others, if nobody has locked it: who holds blocks already may not wait for one.
    pub fn try_lock(&self, ino: Ino) -> Option<InodeLock> {
        let held = self.slot(ino).try_write_arc().map(Held::Exclusive);
        let _rank = held.as_ref().and_then(|_| self.rank(Rank::Inode(ino)));
        // Where it fails, dropping the lock takes the slot back.
        let lock = InodeLock { ino, held, table: self.table.clone(), _rank };
        lock.held.is_some().then_some(lock)
    }
    /// Waits for an inode and locks it against changes.
    pub fn lock_shared(&self, ino: Ino) -> InodeLock {
        let _rank = self.rank(Rank::Inode(ino));
        let held = Some(Held::Shared(self.slot(ino).read_arc()));
        InodeLock { ino, held, table: self.table.clone(), _rank }
    }
}

impl InodeLock {
    /// The inode.
    pub fn ino(&self) -> Ino {
        self.ino
    }
    /// Whether it may be changed under this lock.
    pub fn is_exclusive(&self) -> bool {
        matches!(self.held, Some(Held::Exclusive(_)))
    }
}

impl Drop for InodeLock {
    fn drop(&mut self) {
        match self.held.take() {
            Some(Held::Exclusive(guard)) => drop(guard),
            Some(Held::Shared(guard)) => drop(guard),
            None => {}
        }
        let mut table = self.table.lock();
        // Whoever waits has taken its own reference under the table's lock.
        if table.get(&self.ino).is_some_and(|slot| Arc::strong_count(slot) == 1) {
            table.remove(&self.ino);
        }
    }
}
