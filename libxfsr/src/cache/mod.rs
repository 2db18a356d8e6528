//! Blocks in memory: read and verified once, locked while used, bounded.
//!
//! A block is found by target and address. Guards are owned, so that a transaction can hold them. What is dirty stays until
//! [`BufCache::write_back`], which writes in address order and asks the target's [`LogGate`] first.

mod block;
mod key;
mod writeback;

pub use block::{Block, BlockRead, BlockRef, BlockState, BlockWrite, Keep, Object, OnDamage, Want};
use key::Seeded;
pub use key::{BlockKey, Parts, TargetId};

use crate::error::{Corruption, Result};
use crate::geometry::Geometry;
use crate::target::Target;
use crate::units::{Daddr, Lsn};
use parking_lot::{ArcRwLockWriteGuard, Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// A checkpoint of a journal: all that was committed between two of its writes. They are counted, because what goes into one has no
/// [`Lsn`] before it is written. Where there is no journal the number is the LSN itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Checkpoint(pub u64);

/// The write-ahead rule. Declared here, implemented by the journal; [`NoLog`] serves xfiles, mkfs and overlays.
pub trait LogGate: Send + Sync {
    /// Returns when the log is durable up to `newest`.
    ///
    /// # Errors
    /// When the log cannot be written; the block then must not be.
    fn before_write(&self, newest: Checkpoint) -> Result<()>;
    /// The LSN of a checkpoint that is durable, and that a dirty block belongs to.
    fn lsn(&self, of: Checkpoint) -> Lsn;
    /// Lets the log's tail move past `oldest` for this block, which was written, though it need not be durable yet.
    fn after_write(&self, key: &BlockKey, oldest: Checkpoint);
}

/// No log: write at any time.
#[derive(Clone, Copy, Debug)]
pub struct NoLog;

impl LogGate for NoLog {
    fn before_write(&self, _newest: Checkpoint) -> Result<()> {
        Ok(())
    }
    fn lsn(&self, of: Checkpoint) -> Lsn {
        Lsn(of.0)
    }
    fn after_write(&self, _key: &BlockKey, _oldest: Checkpoint) {}
}

type Slot = Arc<RwLock<Block>>;

#[derive(Debug)]
struct Entry {
    slot: Slot,
    used: AtomicBool,
    /// Which turn of the clock is this entry's: a block that was dropped and read again has another.
    turn: u64,
}

#[derive(Debug, Default)]
struct Shard {
    map: HashMap<BlockKey, Entry, Seeded>,
    clock: VecDeque<(BlockKey, u64)>,
    turns: u64,
    bytes: usize,
}

impl Shard {
    fn has(&self, key: &BlockKey, turn: u64) -> bool {
        self.map.get(key).is_some_and(|e| e.turn == turn)
    }
}

struct Attached {
    target: Arc<dyn Target>,
    gate: Arc<dyn LogGate>,
}

const SHARDS: usize = 32;

/// How far the clock goes for each new block, where there are too many.
const TURNS: usize = 32;

/// Blocks that lie no further apart than this many bytes are asked for in one piece: less work than two requests.
const READAHEAD_GAP: u64 = 16 << 10;

/// The block cache; one for the whole process budget, with many targets.
pub struct BufCache {
    shards: [Mutex<Shard>; SHARDS],
    targets: RwLock<Vec<Attached>>,
    shard_budget: AtomicUsize,
    readahead: AtomicBool,
    reads: AtomicU64,
}

impl std::fmt::Debug for BufCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BufCache").field("reads", &self.reads).finish_non_exhaustive()
    }
}

impl BufCache {
    /// A cache that keeps about `budget` bytes of clean blocks. Dirty and used blocks may exceed it.
    pub fn new(budget: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            targets: RwLock::default(),
            shard_budget: AtomicUsize::new(budget / SHARDS),
            readahead: AtomicBool::new(true),
            reads: AtomicU64::new(0),
        }
    }

    /// Keeps about so many bytes of clean blocks from now on.
    pub fn set_budget(&self, budget: usize) {
        self.shard_budget.store(budget / SHARDS, Ordering::Relaxed);
    }

    /// Whether [`BufCache::readahead`] does anything; it does unless told otherwise.
    pub fn set_readahead(&self, on: bool) {
        self.readahead.store(on, Ordering::Relaxed);
    }

    /// Adds a target.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) where there are 256 already.
    pub fn attach(&self, target: Arc<dyn Target>, gate: Arc<dyn LogGate>) -> Result<TargetId> {
        let mut targets = self.targets.write();
        let id =
            u8::try_from(targets.len()).map_err(|_| crate::Error::invalid("a cache serves 256 targets at most"))?;
        targets.push(Attached { target, gate });
        Ok(TargetId(id))
    }

    /// The target with that number.
    ///
    /// # Errors
    /// When there is none.
    pub fn target(&self, id: TargetId) -> Result<Arc<dyn Target>> {
        let targets = self.targets.read();
        let found = targets.get(usize::from(id.0)).map(|a| a.target.clone());
        found.ok_or_else(|| crate::Error::invalid("no such target in the cache"))
    }

    /// Has a target's blocks wait for another log from now on.
    ///
    /// # Errors
    /// When there is no such target.
    pub fn set_gate(&self, id: TargetId, gate: Arc<dyn LogGate>) -> Result<()> {
        match self.targets.write().get_mut(usize::from(id.0)) {
            Some(a) => a.gate = gate,
            None => return Err(crate::Error::invalid("no such target in the cache")),
        }
        Ok(())
    }

    /// Blocks read from targets so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    #[expect(clippy::indexing_slicing, reason = "five bits index 32 shards")]
    fn shard(&self, key: &BlockKey) -> &Mutex<Shard> {
        let d = key.daddr().0;
        let hash = ((d >> 1) ^ (d >> 11) ^ (u64::from(key.target.0) << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.shards[(hash >> 59) as usize]
    }

    fn load(&self, key: &BlockKey, bytes: &mut [u8]) -> Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let target = self.target(key.target)?;
        key.split_mut(bytes, |piece, daddr| target.read_at(piece, daddr.bytes()))
    }

    /// Drops what was not used lately, as far as a few turns of the clock go: what is dirty or in use costs each new block only those.
    fn evict(&self, shard: &mut Shard) {
        let budget = self.shard_budget.load(Ordering::Relaxed);
        for _ in 0..TURNS {
            if shard.bytes <= budget {
                break;
            }
            let Some((key, turn)) = shard.clock.pop_front() else { break };
            let Some(entry) = shard.map.get(&key).filter(|e| e.turn == turn) else { continue };
            let idle = Arc::strong_count(&entry.slot) == 1
                && !entry.used.swap(false, Ordering::Relaxed)
                && entry.slot.try_read().is_some_and(|b| !matches!(b.state, BlockState::Dirty { .. }));
            if idle {
                shard.bytes = shard.bytes.saturating_sub(key.bytes());
                shard.map.remove(&key);
            } else {
                shard.clock.push_back((key, turn));
            }
        }
    }

    /// Finds the slot, or makes one that is locked for loading.
    fn slot(&self, key: &BlockKey, want: &Want) -> (Slot, Option<BlockWrite>) {
        let mut shard = self.shard(key).lock();
        if let Some(e) = shard.map.get(key) {
            e.used.store(true, Ordering::Relaxed);
            return (e.slot.clone(), None);
        }
        let block = Block {
            bytes: vec![0; key.bytes()].into(),
            kind: want.kind,
            owner: want.owner,
            state: BlockState::Failed,
            damage: None,
            objects: Vec::new(),
        };
        let slot = Arc::new(RwLock::new(block));
        let guard = slot.write_arc();
        shard.bytes += key.bytes();
        shard.turns += 1;
        let turn = shard.turns;
        shard.map.insert(key.clone(), Entry { slot: slot.clone(), used: AtomicBool::new(false), turn });
        shard.clock.push_back((key.clone(), turn));
        self.evict(&mut shard);
        (slot, Some(guard))
    }

    fn forget(&self, key: &BlockKey, slot: &Slot) {
        let mut shard = self.shard(key).lock();
        if shard.map.get(key).is_some_and(|e| Arc::ptr_eq(&e.slot, slot)) {
            shard.map.remove(key);
            shard.bytes = shard.bytes.saturating_sub(key.bytes());
            // Its place in the clock is passed over later, and cleared away when half of them are such.
            if shard.clock.len() > 2 * shard.map.len() + TURNS {
                let mut clock = std::mem::take(&mut shard.clock);
                clock.retain(|(k, turn)| shard.has(k, *turn));
                shard.clock = clock;
            }
        }
    }

    fn fill(&self, key: &BlockKey, slot: &Slot, block: &mut Block, want: &Want, g: &Geometry) -> Result<()> {
        if let Err(e) = self.load(key, &mut block.bytes) {
            self.forget(key, slot);
            return Err(e);
        }
        block.damage = want.verify(&block.bytes, key, g).err();
        (block.kind, block.owner) = (want.kind, want.owner);
        block.state = BlockState::Clean;
        Ok(())
    }

    /// What is wrong with a cached block for who wants it so.
    fn found(block: &Block, key: &BlockKey, want: &Want, g: &Geometry) -> Option<Box<Corruption>> {
        let same = block.kind == want.kind || block.damage.is_none() && block.kind.implies(want.kind, &block.bytes);
        if same && block.owner == want.owner {
            block.damage.clone()
        } else {
            // Two structures claim the block. It stays cached as what it was read as first.
            want.verify(&block.bytes, key, g).err()
        }
    }

    /// A block to read. One that the cache holds is taken from there, also where the reader wants it once.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); with [`OnDamage::Fail`] also [`Error::Corrupt`](crate::Error::Corrupt).
    pub fn read(&self, key: &BlockKey, want: &Want, g: &Geometry) -> Result<BlockRead> {
        if want.keep == Keep::No && !self.shard(key).lock().map.contains_key(key) {
            return self.read_past(key, want, g);
        }
        let guard = loop {
            let (slot, loading) = self.slot(key, want);
            if let Some(mut w) = loading {
                self.fill(key, &slot, &mut w, want, g)?;
                break ArcRwLockWriteGuard::downgrade(w);
            }
            let r = slot.read_arc();
            if r.state != BlockState::Failed {
                break r;
            }
            drop(r);
            self.forget(key, &slot);
        };
        match (Self::found(&guard, key, want, g), want.damage) {
            (Some(c), OnDamage::Fail) => Err(c.into()),
            (found, _) => {
                let beside_owner = want.beside_owner(found.as_deref(), &guard.bytes, key, g).err();
                Ok(BlockRead { guard, damage: found, beside_owner })
            }
        }
    }

    /// A block that is not kept.
    fn read_past(&self, key: &BlockKey, want: &Want, g: &Geometry) -> Result<BlockRead> {
        let mut bytes: Box<[u8]> = vec![0; key.bytes()].into();
        self.load(key, &mut bytes)?;
        let found = want.verify(&bytes, key, g).err();
        match (found, want.damage) {
            (Some(c), OnDamage::Fail) => Err(c.into()),
            (found, _) => {
                let (kind, owner) = (want.kind, want.owner);
                let beside_owner = want.beside_owner(found.as_deref(), &bytes, key, g).err();
                let block = Block { bytes, kind, owner, state: BlockState::Clean, damage: None, objects: Vec::new() };
                Ok(BlockRead { guard: Arc::new(RwLock::new(block)).read_arc(), damage: found, beside_owner })
            }
        }
    }

    /// Tells the targets that these blocks will be read soon: one hint for each run of neighbours, in address order. Nothing is
    /// read into this cache, and nothing waits.
    pub fn readahead(&self, keys: &[BlockKey]) {
        if !self.readahead.load(Ordering::Relaxed) {
            return;
        }
        let mut pieces: Vec<(TargetId, u64, u64)> = Vec::with_capacity(keys.len());
        for key in keys {
            let mut add = |d: Daddr, sectors: u32| pieces.push((key.target, d.bytes(), u64::from(sectors) * 512));
            match &key.parts {
                Parts::One(d, n) => add(*d, *n),
                Parts::Many(parts) => parts.iter().for_each(|(d, n)| add(*d, *n)),
            }
        }
        pieces.sort_unstable();
        for group in pieces.chunk_by(|a, b| a.0 == b.0) {
            let Some(target) = group.first().and_then(|p| self.target(p.0).ok()) else { continue };
            let mut runs: Vec<(u64, u64)> = Vec::new();
            for (_, offset, len) in group {
                match runs.last_mut() {
                    Some((start, n)) if *offset <= *start + *n + READAHEAD_GAP => *n = (*n).max(offset - *start + len),
                    _ => runs.push((*offset, *len)),
                }
            }
            target.readahead(&runs);
        }
    }

    /// A block to change, from the target. A damaged one is refused, whatever is wanted.
    ///
    /// # Errors
    /// As [`BufCache::read`] with [`OnDamage::Fail`].
    pub fn write(&self, key: &BlockKey, want: &Want, g: &Geometry) -> Result<BlockWrite> {
        loop {
            let (slot, loading) = self.slot(key, want);
            let guard = match loading {
                Some(mut w) => {
                    self.fill(key, &slot, &mut w, want, g)?;
                    w
                }
                None => slot.write_arc(),
            };
            if guard.state == BlockState::Failed {
                drop(guard);
                self.forget(key, &slot);
                continue;
            }
            return match Self::found(&guard, key, want, g) {
                Some(c) => Err(c.into()),
                None => Ok(guard),
            };
        }
    }

    /// A block whose old contents do not matter, locked as it is, and whether the cache has it: a new one is zeroed and cannot be used by
    /// anybody before its state is set. Who gives up on a new one calls [`BufCache::abandon`].
    pub fn claim(&self, key: &BlockKey, want: &Want) -> (BlockWrite, bool) {
        loop {
            let (slot, loading) = self.slot(key, want);
            if let Some(w) = loading {
                return (w, false);
            }
            let w = slot.write_arc();
            if w.state != BlockState::Failed {
                return (w, true);
            }
            // Whoever was loading it has failed and taken it out of the map, or will: what is written there would be lost.
            drop(w);
            self.forget(key, &slot);
        }
    }

    /// Drops a block that is locked, dirty or not: those who wait for it read it anew.
    pub fn abandon(&self, key: &BlockKey, mut block: BlockWrite) {
        block.state = BlockState::Failed;
        let slot = ArcRwLockWriteGuard::rwlock(&block).clone();
        self.forget(key, &slot);
    }

    /// Copies a part of a block, if the cache has it.
    pub fn peek(&self, key: &BlockKey, at: usize, to: &mut [u8]) -> bool {
        let slot = self.shard(key).lock().map.get(key).map(|e| e.slot.clone());
        let Some(slot) = slot else { return false };
        let block = slot.read();
        match block.bytes.get(at..at.saturating_add(to.len())) {
            Some(from) if block.state != BlockState::Failed => {
                to.copy_from_slice(from);
                true
            }
            _ => false,
        }
    }

    /// A block whose old contents do not matter, zeroed.
    pub fn fresh(&self, key: &BlockKey, want: &Want) -> BlockWrite {
        let (mut guard, _) = self.claim(key, want);
        guard.bytes.fill(0);
        (guard.kind, guard.owner) = (want.kind, want.owner);
        guard.damage = None;
        guard.objects.clear();
        guard.state = BlockState::Dirty { oldest: Checkpoint(0), newest: Checkpoint(0) };
        guard
    }

    /// Drops a block, dirty or not.
    pub fn invalidate(&self, key: &BlockKey) {
        let slot = self.shard(key).lock().map.get(key).map(|e| e.slot.clone());
        if let Some(slot) = slot {
            self.forget(key, &slot);
        }
    }
}

#[cfg(test)]
mod tests;
