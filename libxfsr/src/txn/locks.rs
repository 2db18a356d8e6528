//! Locks of inodes. The cache locks blocks; inodes of one cluster are locked each by itself.

use crate::units::Ino;
use parking_lot::{ArcRwLockReadGuard, ArcRwLockWriteGuard, Mutex, RawRwLock, RwLock};
use std::collections::HashMap;
use std::sync::Arc;

type Table = Mutex<HashMap<Ino, Arc<RwLock<()>>>>;

/// The locks of those inodes that somebody has locked.
#[derive(Clone, Debug, Default)]
pub struct InodeLocks(Arc<Table>);

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
}

impl InodeLocks {
    fn slot(&self, ino: Ino) -> Arc<RwLock<()>> {
        self.0.lock().entry(ino).or_default().clone()
    }
    /// Waits for an inode and locks it against all others. Who locks several does so in ascending order, and before any block.
    pub fn lock(&self, ino: Ino) -> InodeLock {
        let held = Some(Held::Exclusive(self.slot(ino).write_arc()));
        InodeLock { ino, held, table: self.0.clone() }
    }
    /// Waits for an inode and locks it against changes.
    pub fn lock_shared(&self, ino: Ino) -> InodeLock {
        let held = Some(Held::Shared(self.slot(ino).read_arc()));
        InodeLock { ino, held, table: self.0.clone() }
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
