//! Atomic change: a [`Transaction`] joins what it changes, and commits all of it or nothing.
//!
//! **Blocks** are locked from the first time that they are asked for until the end; from the first change on the state before is kept, and
//! what differs at the end is logged in chunks of 128 bytes. A transaction reads what it has joined from itself: a second lock on a
//! block of its own would wait for ever.
//!
//! **Inodes** and quota records share blocks with others of their kind, so they are locked each by itself ([`InodeLocks`]), and a transaction
//! changes a copy. Their clusters are locked only inside [`Transaction::commit`], in address order and behind all other blocks, and no
//! longer than it takes to copy bytes: who changes two inodes waits for nobody who changes others of the same cluster. What is
//! changed of a cluster as such goes by the same way: new chunks, freed clusters, unlinked pointers.
//!
//! **Deferred** steps are logged as intents with the transaction that asks for them, and run each in a transaction of its own. Over such a
//! roll inodes stay locked, for to all others a chain is one change of them; blocks do not, so that nobody waits for an AG longer than for
//! one transaction, and the room that the next step needs in the log can be had by writing any block back.
//!
//! **Order of locks**: room in the log ([`Scope::begin`], which may wait for blocks to be written, so whoever calls it holds none), inodes ascending, AGI, AGF
//! ascending, the blocks of a tree from the root down, at last clusters. Builds for development check it for inodes and headers ([`InodeLocks::check_order`]).
//!
//! Dropping a transaction takes everything back, whatever it changed.

mod blocks;
mod buffer;
mod commit;
mod inode;
mod intent;
mod item;
mod locks;
mod objects;
mod rank;
mod recovery;
mod sink;
mod superblock;

pub use intent::{Deferred, Intent};
pub use item::{CommitSet, ItemKey, LogItem, RegionWriter};
pub use locks::{InodeLock, InodeLocks};
pub use recovery::Unfinished;
pub use sink::{CommitSink, DirtySink};

use crate::cache::{BlockKey, Checkpoint};
use crate::error::Result;
use crate::format::features::LogIncompat;
use crate::geometry::Geometry;
use crate::units::{AgBlock, AgNumber, Ino};
use crate::volume::Volume;
use blocks::Joined;
use objects::{Dquot, LateBlocks, Pointer, Working};
use parking_lot::RwLock;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// What observers are told, with the locks of the transaction still held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Change {
    /// Blocks came to belong to an owner, or no longer do.
    Mapping {
        /// AG.
        ag: AgNumber,
        /// First block.
        start: AgBlock,
        /// Blocks.
        len: u32,
        /// As reverse mappings name owners.
        owner: u64,
        /// Came, or went.
        added: bool,
    },
    /// A name came or went.
    Dirent {
        /// Directory.
        dir: Ino,
        /// What it names.
        child: Ino,
        /// 1 or -1.
        delta: i8,
    },
    /// A link count changed.
    Nlink {
        /// Inode.
        ino: Ino,
        /// By how much.
        delta: i32,
    },
    /// A quota's usage changed.
    Quota {
        /// User, group or project.
        id: u32,
        /// `d_type` of its record.
        kind: u8,
        /// By how many blocks.
        blocks: i64,
    },
}

/// Who wants to know of changes: a scan that must not miss what happens behind it.
pub trait Observer: Send + Sync {
    /// Something is being committed.
    fn changed(&self, change: &Change);
}

/// Who keeps sums of what transactions change, as quota does. It is asked when a transaction has made all its changes and before anything of them is
/// committed, also at each step of a chain, and adds changes of its own. It locks nothing but what only it locks.
pub trait Accountant: Send + Sync {
    /// Looks at [`Transaction::changed_cores`].
    ///
    /// # Errors
    /// Where the change is refused. `late` says that a part of the chain is committed already: then an error ends all work with the filesystem.
    fn account(&self, t: &mut Transaction<'_>, late: bool) -> Result<()>;
}

/// Room for what an [`Accountant`] adds to each transaction.
const ACCOUNTS: Reservation = Reservation { blocks: 0, sectors: 1, inodes: 6, bytes: 0 };

/// What a transaction may log at most: room in the log is reserved for so much before it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reservation {
    /// Blocks of the filesystem's block size, wholly.
    pub blocks: u32,
    /// Header sectors of AGs, and superblocks.
    pub sectors: u32,
    /// Inodes with both forks, quota records, and unlinked pointers.
    pub inodes: u32,
    /// Bytes of other items.
    pub bytes: u32,
}

impl Reservation {
    /// Sums.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            blocks: self.blocks.saturating_add(other.blocks),
            sectors: self.sectors.saturating_add(other.sectors),
            inodes: self.inodes.saturating_add(other.inodes),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
    /// In bytes of the log: the item's own regions, and the header of an operation for each; a block may change in every other chunk.
    fn in_log(&self, g: &Geometry) -> u64 {
        const OP: u64 = 12;
        let runs = |bytes: u32| u64::from(bytes) / 256 + 1;
        let buffer = |bytes: u32| u64::from(bytes) + runs(bytes) * OP + 20 + 4 * 17 + OP;
        let inode = 56 + 4 * OP + u64::from(g.inode_size) + 2 * 72 + 2 * (128 + 24 + 2 * OP);
        let fixed = u64::from(self.bytes) + u64::from(self.bytes) / 4 + 256;
        u64::from(self.blocks) * buffer(g.block_size)
            + u64::from(self.sectors) * buffer(g.sector_size)
            + u64::from(self.inodes) * inode
            + fixed
    }
}

/// All that the transactions of one filesystem share.
pub struct Scope {
    volume: Arc<Volume>,
    sink: Arc<dyn CommitSink>,
    locks: InodeLocks,
    contents: InodeLocks,
    observers: RwLock<Vec<Arc<dyn Observer>>>,
    accountant: OnceLock<Arc<dyn Accountant>>,
    intents: AtomicU64,
    log_incompat: AtomicU32,
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope").field("volume", &self.volume).finish_non_exhaustive()
    }
}

impl Scope {
    /// Transactions on a volume, committed to `sink`.
    pub fn new(volume: Arc<Volume>, sink: Arc<dyn CommitSink>) -> Self {
        let log_incompat = AtomicU32::new(volume.geometry.features.log_incompat.bits());
        Self {
            volume,
            sink,
            locks: InodeLocks::default(),
            contents: InodeLocks::default(),
            observers: RwLock::default(),
            accountant: OnceLock::new(),
            intents: AtomicU64::new(1),
            log_incompat,
        }
    }
    /// The volume.
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }
    /// Where commits go.
    pub fn sink(&self) -> &Arc<dyn CommitSink> {
        &self.sink
    }
    /// Locks of inodes, for those who read, or change one in several transactions: see [`Transaction::adopt`].
    pub fn locks(&self) -> &InodeLocks {
        &self.locks
    }
    /// Locks of files' contents, for operations that take several transactions. They come before room in the log, and so before all other locks;
    /// who needs two takes them in ascending order. Whoever holds one holds no inode's lock between his transactions.
    pub fn contents(&self) -> &InodeLocks {
        &self.contents
    }
    /// Has somebody told of all changes from now on.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.observers.write().push(observer);
    }
    /// Has an accountant look at all transactions from now on. False where there is one already.
    pub fn set_accountant(&self, accountant: Arc<dyn Accountant>) -> bool {
        self.accountant.set(accountant).is_ok()
    }
    /// What each transaction logs besides what it asks for.
    fn accounts(&self) -> Reservation {
        if self.accountant.get().is_some() { ACCOUNTS } else { Reservation::default() }
    }
    /// Log features that the superblock on the disk has now.
    pub fn log_incompat(&self) -> LogIncompat {
        LogIncompat::from_bits_retain(self.log_incompat.load(Ordering::Acquire))
    }
    fn set_log_incompat(&self, features: LogIncompat) {
        self.log_incompat.store(features.bits(), Ordering::Release);
    }
    /// Begins a transaction, when there is room in the log for what it may log. The caller holds no block, else the room may never come.
    ///
    /// # Errors
    /// As [`CommitSink::reserve`].
    pub fn begin(&self, reservation: Reservation) -> Result<Transaction<'_>> {
        let reserved = self.sink.reserve(reservation.and(self.accounts()).in_log(&self.volume.geometry))?;
        let mut t = self.unreserved();
        t.reserved = reserved;
        Ok(t)
    }

    /// One that has nothing reserved yet: the first of its steps does that.
    fn unreserved(&self) -> Transaction<'_> {
        Transaction {
            scope: self,
            reserved: 0,
            blocks: BTreeMap::new(),
            inodes: BTreeMap::new(),
            pointers: BTreeMap::new(),
            dquots: BTreeMap::new(),
            late: LateBlocks::default(),
            items: Vec::new(),
            deferred: VecDeque::new(),
            changes: Vec::new(),
            after: Vec::new(),
            locks: BTreeMap::new(),
            chain: false,
        }
    }
}

type After = Box<dyn FnOnce(Checkpoint) + Send>;

/// A change that happens wholly or not at all. See the [module](self).
pub struct Transaction<'s> {
    scope: &'s Scope,
    reserved: u64,
    blocks: BTreeMap<BlockKey, Joined>,
    inodes: BTreeMap<Ino, Working>,
    pointers: BTreeMap<Ino, Pointer>,
    dquots: BTreeMap<(BlockKey, usize), Dquot>,
    late: LateBlocks,
    items: Vec<Box<dyn LogItem>>,
    deferred: VecDeque<commit::Pending>,
    changes: Vec<Change>,
    after: Vec<After>,
    locks: BTreeMap<Ino, Option<InodeLock>>,
    /// A part of its chain is committed already.
    chain: bool,
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let blocks = self.blocks.keys();
        f.debug_struct("Transaction")
            .field("blocks", &blocks)
            .field("inodes", &self.inodes.keys())
            .finish_non_exhaustive()
    }
}

impl<'s> Transaction<'s> {
    /// What it shares with others.
    pub fn scope(&self) -> &'s Scope {
        self.scope
    }
    /// The volume. Who reads through it what this transaction has joined waits for ever: see [`Transaction::read`].
    pub fn volume(&self) -> &'s Volume {
        &self.scope.volume
    }
    /// The filesystem's numbers.
    pub fn geometry(&self) -> &'s Geometry {
        &self.scope.volume.geometry
    }
    /// Logs an item that is neither block nor inode.
    pub fn log(&mut self, item: Box<dyn LogItem>) {
        self.items.push(item);
    }
    /// Has observers told, if this is committed.
    pub fn emit(&mut self, change: Change) {
        self.changes.push(change);
    }
    /// Has that done with the number of the checkpoint when this is committed, its blocks still locked: for what is kept in memory
    /// and must not change before the log does. It must lock nothing that others hold while they wait for a block.
    pub fn after_commit(&mut self, act: impl FnOnce(Checkpoint) + Send + 'static) {
        self.after.push(Box::new(act));
    }
    /// Does that when this is committed, in a transaction of its own which happens as well, whatever comes in between.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) where the filesystem's features do not allow such an intent.
    pub fn defer(&mut self, step: Box<dyn Deferred>) -> Result<()> {
        if self.scope.sink.has_log() {
            let mut features = self.geometry().features;
            features.log_incompat = self.scope.log_incompat();
            intent::allowed(step.kind(), &features)?;
        }
        self.deferred.push_back(commit::Pending::new(step));
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        self.release_blocks_unchanged();
        self.scope.sink.release(self.reserved);
    }
}

#[cfg(test)]
mod tests;
