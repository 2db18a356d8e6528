//! Blocks in memory: read and verified once, locked while used, bounded.
//!
//! A block is found by target and address. Guards are owned, so that a transaction can hold them. What is dirty stays until
//! [`BufCache::write_back`], which writes in address order and asks the target's [`LogGate`] first.

mod key;

pub use key::{BlockKey, Parts, TargetId};

use crate::error::{Corruption, Result};
use crate::format::{BlockType, Context};
use crate::geometry::Geometry;
use crate::target::Target;
use crate::units::{Daddr, Lsn};
use parking_lot::{ArcRwLockReadGuard, ArcRwLockWriteGuard, Mutex, RawRwLock, RwLock};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// The write-ahead rule. Declared here, implemented by the journal; [`NoLog`] serves xfiles, mkfs and overlays.
pub trait LogGate: Send + Sync {
    /// Returns when the log is durable up to `newest`.
    ///
    /// # Errors
    /// When the log cannot be written; the block then must not be.
    fn before_write(&self, newest: Lsn) -> Result<()>;
    /// Lets the log's tail move past `oldest` for this block.
    fn after_write(&self, key: &BlockKey, oldest: Lsn);
}

/// No log: write at any time.
#[derive(Clone, Copy, Debug)]
pub struct NoLog;

impl LogGate for NoLog {
    fn before_write(&self, _newest: Lsn) -> Result<()> {
        Ok(())
    }
    fn after_write(&self, _key: &BlockKey, _oldest: Lsn) {}
}

/// Whether a block equals what the target holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockState {
    /// Equal.
    Clean,
    /// Changed; first and last log position that describe the change.
    Dirty {
        /// First.
        oldest: Lsn,
        /// Last.
        newest: Lsn,
    },
    /// Could not be read; nobody may use it.
    Failed,
}

/// A block in the cache.
#[derive(Debug)]
pub struct Block {
    /// Its bytes.
    pub bytes: Box<[u8]>,
    /// What it was verified as.
    pub kind: &'static BlockType,
    /// Clean or dirty.
    pub state: BlockState,
    /// What verification found.
    pub damage: Option<Box<Corruption>>,
}

/// What to do with a block that fails its verifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnDamage {
    /// Return the corruption as an error.
    Fail,
    /// Return the bytes together with the corruption: check and repair want both.
    Keep,
}

/// A shared block and what verification found.
#[derive(Debug)]
pub struct BlockRead {
    guard: ArcRwLockReadGuard<RawRwLock, Block>,
    damage: Option<Box<Corruption>>,
}

impl BlockRead {
    /// The block's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.guard.bytes
    }
    /// The LSN that it carries, where its type has one.
    pub fn lsn(&self) -> Option<Lsn> {
        (self.guard.kind.lsn)(&self.guard.bytes)
    }
    /// What its verifier found; always none with [`OnDamage::Fail`].
    pub fn damage(&self) -> Option<&Corruption> {
        self.damage.as_deref()
    }
}

impl std::ops::Deref for BlockRead {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.guard.bytes
    }
}

/// An exclusively locked block.
pub type BlockWrite = ArcRwLockWriteGuard<RawRwLock, Block>;

type Slot = Arc<RwLock<Block>>;

#[derive(Debug)]
struct Entry {
    slot: Slot,
    used: AtomicBool,
}

#[derive(Debug, Default)]
struct Shard {
    map: HashMap<BlockKey, Entry>,
    clock: VecDeque<BlockKey>,
    bytes: usize,
}

struct Attached {
    target: Arc<dyn Target>,
    gate: Arc<dyn LogGate>,
}

const SHARDS: usize = 32;

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

    fn evict(&self, shard: &mut Shard) {
        let mut turns = shard.clock.len().saturating_mul(2);
        while shard.bytes > self.shard_budget.load(Ordering::Relaxed) && turns > 0 {
            turns -= 1;
            let Some(key) = shard.clock.pop_front() else { break };
            let Some(entry) = shard.map.get(&key) else { continue };
            let idle = Arc::strong_count(&entry.slot) == 1
                && !entry.used.swap(false, Ordering::Relaxed)
                && entry.slot.try_read().is_some_and(|b| !matches!(b.state, BlockState::Dirty { .. }));
            if idle {
                shard.bytes = shard.bytes.saturating_sub(key.bytes());
                shard.map.remove(&key);
            } else {
                shard.clock.push_back(key);
            }
        }
    }

    /// Finds the slot, or makes one that is locked for loading.
    fn slot(&self, key: &BlockKey, kind: &'static BlockType) -> (Slot, Option<BlockWrite>) {
        let mut shard = self.shard(key).lock();
        if let Some(e) = shard.map.get(key) {
            e.used.store(true, Ordering::Relaxed);
            return (e.slot.clone(), None);
        }
        let block = Block { bytes: vec![0; key.bytes()].into(), kind, state: BlockState::Failed, damage: None };
        let slot = Arc::new(RwLock::new(block));
        let guard = slot.write_arc();
        shard.bytes += key.bytes();
        shard.map.insert(key.clone(), Entry { slot: slot.clone(), used: AtomicBool::new(false) });
        shard.clock.push_back(key.clone());
        self.evict(&mut shard);
        (slot, Some(guard))
    }

    fn forget(&self, key: &BlockKey, slot: &Slot) {
        let mut shard = self.shard(key).lock();
        if shard.map.get(key).is_some_and(|e| Arc::ptr_eq(&e.slot, slot)) {
            shard.map.remove(key);
            shard.bytes = shard.bytes.saturating_sub(key.bytes());
            shard.clock.retain(|k| k != key);
        }
    }

    fn fill(
        &self,
        key: &BlockKey,
        slot: &Slot,
        block: &mut Block,
        kind: &'static BlockType,
        g: &Geometry,
    ) -> Result<()> {
        if let Err(e) = self.load(key, &mut block.bytes) {
            self.forget(key, slot);
            return Err(e);
        }
        block.damage = (kind.verify)(&block.bytes, &Context { geometry: g, daddr: key.daddr() }).err();
        block.kind = kind;
        block.state = BlockState::Clean;
        Ok(())
    }

    /// A block to read.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); with [`OnDamage::Fail`] also [`Error::Corrupt`](crate::Error::Corrupt).
    pub fn read(&self, key: &BlockKey, kind: &'static BlockType, g: &Geometry, damage: OnDamage) -> Result<BlockRead> {
        let guard = loop {
            let (slot, loading) = self.slot(key, kind);
            if let Some(mut w) = loading {
                self.fill(key, &slot, &mut w, kind, g)?;
                break ArcRwLockWriteGuard::downgrade(w);
            }
            let r = slot.read_arc();
            if r.state != BlockState::Failed {
                break r;
            }
            drop(r);
            self.forget(key, &slot);
        };
        let found = if guard.kind == kind {
            guard.damage.clone()
        } else {
            // Two structures claim the block. It stays cached as what it was read as first.
            (kind.verify)(&guard.bytes, &Context { geometry: g, daddr: key.daddr() }).err()
        };
        match (found, damage) {
            (Some(c), OnDamage::Fail) => Err(c.into()),
            (found, _) => Ok(BlockRead { guard, damage: found }),
        }
    }

    /// A block that this reader wants once: it is not kept, so that a pass over everything neither fills the cache nor drives
    /// out what others need. A block that the cache holds is taken from there.
    ///
    /// # Errors
    /// As [`BufCache::read`].
    pub fn read_once(
        &self,
        key: &BlockKey,
        kind: &'static BlockType,
        g: &Geometry,
        damage: OnDamage,
    ) -> Result<BlockRead> {
        if self.shard(key).lock().map.contains_key(key) {
            return self.read(key, kind, g, damage);
        }
        let mut bytes: Box<[u8]> = vec![0; key.bytes()].into();
        self.load(key, &mut bytes)?;
        let found = (kind.verify)(&bytes, &Context { geometry: g, daddr: key.daddr() }).err();
        match (found, damage) {
            (Some(c), OnDamage::Fail) => Err(c.into()),
            (found, _) => {
                let block = Block { bytes, kind, state: BlockState::Clean, damage: None };
                Ok(BlockRead { guard: Arc::new(RwLock::new(block)).read_arc(), damage: found })
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

    /// A block to change, from the target.
    ///
    /// # Errors
    /// As [`BufCache::read`] with [`OnDamage::Fail`].
    pub fn write(&self, key: &BlockKey, kind: &'static BlockType, g: &Geometry) -> Result<BlockWrite> {
        loop {
            let (slot, loading) = self.slot(key, kind);
            let guard = match loading {
                Some(mut w) => {
                    self.fill(key, &slot, &mut w, kind, g)?;
                    w
                }
                None => slot.write_arc(),
            };
            if guard.state == BlockState::Failed {
                drop(guard);
                self.forget(key, &slot);
                continue;
            }
            return match &guard.damage {
                Some(c) => Err(c.clone().into()),
                None => Ok(guard),
            };
        }
    }

    /// A block whose old contents do not matter, zeroed.
    pub fn fresh(&self, key: &BlockKey, kind: &'static BlockType) -> BlockWrite {
        let mut guard = loop {
            let (slot, loading) = self.slot(key, kind);
            if let Some(w) = loading {
                break w;
            }
            let w = slot.write_arc();
            if w.state != BlockState::Failed {
                break w;
            }
            // Whoever was loading it has failed and taken it out of the map, or will: what is written there would be lost.
            drop(w);
            self.forget(key, &slot);
        };
        guard.bytes.fill(0);
        guard.kind = kind;
        guard.damage = None;
        guard.state = BlockState::Dirty { oldest: Lsn(0), newest: Lsn(0) };
        guard
    }

    /// Drops a block, dirty or not.
    pub fn invalidate(&self, key: &BlockKey) {
        let slot = self.shard(key).lock().map.get(key).map(|e| e.slot.clone());
        if let Some(slot) = slot {
            self.forget(key, &slot);
        }
    }

    /// Writes dirty blocks in address order: all, or those whose first change is not newer than `up_to`. Does not flush.
    ///
    /// # Errors
    /// The log's or the target's; what was not written stays dirty.
    pub fn write_back(&self, up_to: Option<Lsn>) -> Result<()> {
        let mut all: Vec<(BlockKey, Slot)> = Vec::new();
        for shard in &self.shards {
            all.extend(shard.lock().map.iter().map(|(k, e)| (k.clone(), e.slot.clone())));
        }
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (key, slot) in all {
            let mut block = slot.write();
            let BlockState::Dirty { oldest, newest } = block.state else { continue };
            if up_to.is_some_and(|u| oldest > u) {
                continue;
            }
            let (target, gate) = {
                let targets = self.targets.read();
                let Some(a) = targets.get(usize::from(key.target.0)) else { continue };
                (a.target.clone(), a.gate.clone())
            };
            gate.before_write(newest)?;
            (block.kind.seal)(&mut block.bytes, newest);
            key.split(&block.bytes, |piece, daddr| target.write_at(piece, daddr.bytes()))?;
            block.state = BlockState::Clean;
            gate.after_write(&key, oldest);
        }
        Ok(())
    }
}
#[cfg(test)]
mod tests {
    use super::{BlockKey, BufCache, NoLog, OnDamage, TargetId};
    use crate::format::BlockType;
    use crate::geometry::test_geometry;
    use crate::target::{Target, Xfile};
    use crate::units::Daddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    static ANY: BlockType =
        BlockType { name: "any", log_type: 0, lsn: |_| None, verify: |_, _| Ok(()), seal: |_, _| {} };

    fn key(n: u64) -> BlockKey {
        BlockKey::one(TargetId(0), Daddr(n * 8), 8)
    }

    #[test]
    fn clean_blocks_stay_within_the_budget_and_dirty_ones_reach_the_target() {
        let g = test_geometry();
        let x = Arc::new(Xfile::new("cache").unwrap());
        let cache = BufCache::new(64 * 4096);
        assert_eq!(cache.attach(x.clone(), Arc::new(NoLog)).unwrap(), TargetId(0));
        for n in 0..1000 {
            cache.read(&key(n), &ANY, &g, OnDamage::Fail).unwrap();
        }
        let kept: usize = cache.shards.iter().map(|s| s.lock().bytes).sum();
        assert!(kept <= 2 * 64 * 4096, "{kept} bytes kept");
        for n in 0..100 {
            cache.fresh(&key(n), &ANY).bytes.fill(n as u8 + 1);
        }
        cache.write_back(None).unwrap();
        let mut b = [0; 4096];
        x.read_at(&mut b, 99 * 4096).unwrap();
        assert_eq!(b, [100; 4096]);
    }

    #[derive(Debug)]
    struct Hints(Xfile, parking_lot::Mutex<Vec<(u64, u64)>>, AtomicBool);

    impl Target for Hints {
        fn name(&self) -> &str {
            self.0.name()
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> crate::Result<()> {
            if self.2.swap(false, Ordering::Relaxed) {
                std::thread::sleep(std::time::Duration::from_millis(200));
                return Err(crate::target::io_error("read", "slow", offset, 0, rustix::io::Errno::IO));
            }
            self.0.read_at(buf, offset)
        }
        fn readahead(&self, ranges: &[(u64, u64)]) {
            self.1.lock().extend_from_slice(ranges);
        }
        fn write_at(&self, buf: &[u8], offset: u64) -> crate::Result<()> {
            self.0.write_at(buf, offset)
        }
        fn flush(&self) -> crate::Result<()> {
            self.0.flush()
        }
        fn punch(&self, offset: u64, len: u64) -> crate::Result<()> {
            self.0.punch(offset, len)
        }
        fn discard(&self, offset: u64, len: u64) -> crate::Result<()> {
            self.0.discard(offset, len)
        }
        fn len(&self) -> u64 {
            self.0.len()
        }
        fn set_len(&self, len: u64) -> crate::Result<()> {
            self.0.set_len(len)
        }
        fn io(&self) -> crate::target::Io {
            self.0.io()
        }
    }

    #[test]
    fn readahead_asks_once_for_neighbours_in_address_order() {
        let hints = Arc::new(Hints(Xfile::new("cache").unwrap(), parking_lot::Mutex::default(), false.into()));
        let cache = BufCache::new(1 << 20);
        cache.attach(hints.clone(), Arc::new(NoLog)).unwrap();
        let parts = BlockKey::many(TargetId(0), [(Daddr(4000), 8), (Daddr(6000), 8)]);
        cache.readahead(&[key(9), key(1), key(2), parts, key(2)]);
        // Block 9 is 24 KiB behind block 2: too far to be read with it.
        assert_eq!(*hints.1.lock(), [(4096, 8192), (9 * 4096, 4096), (4000 * 512, 4096), (6000 * 512, 4096)]);
        assert_eq!(cache.reads(), 0);
        hints.1.lock().clear();
        cache.set_readahead(false);
        cache.readahead(&[key(9)]);
        assert!(hints.1.lock().is_empty(), "a hint that was not wanted");
    }

    #[test]
    fn a_fresh_block_is_not_lost_when_reading_the_old_one_fails() {
        let g = test_geometry();
        let slow = Arc::new(Hints(Xfile::new("cache").unwrap(), parking_lot::Mutex::default(), true.into()));
        let cache = BufCache::new(1 << 20);
        cache.attach(slow.clone(), Arc::new(NoLog)).unwrap();
        std::thread::scope(|s| {
            let reader = s.spawn(|| cache.read(&key(3), &ANY, &g, OnDamage::Fail).is_err());
            while cache.reads() == 0 {
                std::thread::yield_now();
            }
            // The reader has the slot and waits for the device; this one waits for the reader.
            cache.fresh(&key(3), &ANY).bytes.fill(7);
            assert!(reader.join().unwrap());
        });
        cache.write_back(None).unwrap();
        let mut b = [0; 4096];
        slow.read_at(&mut b, 3 * 4096).unwrap();
        assert_eq!(b, [7; 4096]);
    }

    #[test]
    fn more_targets_than_numbers_are_refused() {
        let cache = BufCache::new(1 << 20);
        let target = Arc::new(Xfile::new("cache").unwrap());
        for n in 0..=255 {
            assert_eq!(cache.attach(target.clone(), Arc::new(NoLog)).unwrap(), TargetId(n));
        }
        assert!(matches!(cache.attach(target, Arc::new(NoLog)), Err(crate::Error::Invalid(_))));
    }

    #[test]
    fn a_block_read_once_is_not_kept_and_a_dirty_one_is_found() {
        let g = test_geometry();
        let cache = BufCache::new(1 << 20);
        cache.attach(Arc::new(Xfile::new("cache").unwrap()), Arc::new(NoLog)).unwrap();
        for _ in 0..2 {
            assert_eq!(cache.read_once(&key(3), &ANY, &g, OnDamage::Fail).unwrap()[0], 0);
        }
        assert_eq!(cache.reads(), 2);
        cache.fresh(&key(3), &ANY).bytes.fill(7);
        assert_eq!(cache.read_once(&key(3), &ANY, &g, OnDamage::Fail).unwrap()[0], 7);
        assert_eq!(cache.reads(), 2);
    }

    #[test]
    fn a_block_is_read_once_however_many_ask() {
        let g = test_geometry();
        let cache = BufCache::new(1 << 20);
        cache.attach(Arc::new(Xfile::new("cache").unwrap()), Arc::new(NoLog)).unwrap();
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| (0..20).for_each(|n| drop(cache.read(&key(n), &ANY, &g, OnDamage::Fail).unwrap())));
            }
        });
        assert_eq!(cache.reads(), 20);
    }
}
