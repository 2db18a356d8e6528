//! Btrees in memory, built bottom-up from records: what lookups, walks and checks are compared with.

use crate::fuzz::{Stamp, geometries};
use crate::memory::Memory;
use libxfsr::btree::{Kind, Ptr, Root, Store, Width};
use libxfsr::cache::{BlockKey, BlockRef, BufCache, Keep, NoLog, OnDamage, TargetId, Want};
use libxfsr::error::{Corruption, Result, Rule};
use libxfsr::format::btree::Layout;
use libxfsr::format::{BlockType, Context};
use libxfsr::geometry::Geometry;
use libxfsr::target::Target;
use libxfsr::units::{AgBlock, AgNumber, Daddr, FsBlock};
use std::cmp::Ordering;
use std::sync::Arc;
use zerocopy::{Immutable, IntoBytes};

/// Owner of the blocks of trees with long pointers.
pub const OWNER: u64 = 131;

/// A tree of blocks of AG 0 in memory.
#[derive(Debug)]
pub struct MemoryTree {
    geometry: &'static Geometry,
    memory: Arc<Memory>,
    cache: BufCache,
    target: TargetId,
    stamp: &'static Stamp,
    layout: Layout,
    /// Where it starts.
    pub root: Root,
}

impl MemoryTree {
    /// No tree yet: its root leads nowhere.
    pub fn new(geometry: &'static Geometry, stamp: &'static Stamp, layout: Layout) -> MemoryTree {
        let memory = Arc::new(Memory::new(u64::from(geometry.agblocks) << geometry.block_log));
        let cache = BufCache::new(8 << 20);
        let target = cache.attach(memory.clone(), Arc::new(NoLog)).expect("a free number");
        let root = Root::Block { at: Ptr(u64::MAX), levels: 1 };
        MemoryTree { geometry, memory, cache, target, stamp, layout, root }
    }

    /// With small blocks, so that few records make many levels.
    pub fn small(stamp: &'static Stamp, layout: Layout) -> MemoryTree {
        let geometry = geometries().iter().find(|g| g.block_size == 1024).expect("one of them");
        MemoryTree::new(geometry, stamp, layout)
    }

    /// The filesystem's numbers.
    pub fn geometry(&self) -> &'static Geometry {
        self.geometry
    }

    fn daddr(&self, at: Ptr) -> Option<Daddr> {
        let agbno = AgBlock(u32::try_from(at.0).ok()?);
        self.geometry.is_valid_agbno(AgNumber(0), agbno).then(|| self.geometry.agbno_to_daddr(AgNumber(0), agbno))
    }

    /// The bytes of a block, as they are.
    pub fn bytes(&self, at: Ptr) -> Vec<u8> {
        let mut bytes = vec![0; self.block_size()];
        self.memory.read_at(&mut bytes, self.daddr(at).expect("a block of the AG").bytes()).expect("inside");
        bytes
    }

    /// Puts a block in place, with magic number, UUID, address and checksum made right.
    pub fn put(&self, at: Ptr, bytes: &[u8]) {
        let daddr = self.daddr(at).expect("a block of the AG");
        let mut block = bytes.to_vec();
        block.resize(self.block_size(), 0);
        self.stamp.stamp(&mut block, &Context::new(self.geometry, daddr));
        self.memory.write_at(&block, daddr.bytes()).expect("inside");
        self.cache.invalidate(&self.key(daddr));
    }

    fn key(&self, daddr: Daddr) -> BlockKey {
        BlockKey::one(self.target, daddr, self.geometry.block_size / 512)
    }

    fn null(&self) -> Vec<u8> {
        vec![0xff; self.pointer_size()]
    }

    fn pointer_size(&self) -> usize {
        if self.width() == Width::Short { 4 } else { 8 }
    }

    fn pointer(&self, at: Option<u64>) -> Vec<u8> {
        match at {
            None => self.null(),
            Some(at) if self.width() == Width::Short => (at as u32).to_be_bytes().to_vec(),
            Some(at) => at.to_be_bytes().to_vec(),
        }
    }

    /// Writes a block: its level, its siblings, and what it holds. Entries are a record each, or a key (both keys) and a pointer.
    fn write(&self, at: u64, level: u16, sides: (Option<u64>, Option<u64>), entries: &[(Vec<u8>, Option<u64>)]) {
        let layout = self.layout;
        let mut block = vec![0; self.block_size()];
        block[4..6].copy_from_slice(&level.to_be_bytes());
        block[6..8].copy_from_slice(&(entries.len() as u16).to_be_bytes());
        let width = self.pointer_size();
        block[8..8 + width].copy_from_slice(&self.pointer(sides.0));
        block[8 + width..8 + 2 * width].copy_from_slice(&self.pointer(sides.1));
        if self.width() == Width::Long {
            // Owner of a block with long pointers: behind siblings, address, LSN and UUID.
            block[56..64].copy_from_slice(&OWNER.to_be_bytes());
        }
        let room = layout.node_max(self.block_size());
        for (i, (bytes, pointer)) in entries.iter().enumerate() {
            let stride = if level == 0 { layout.record } else { layout.key };
            let place = layout.header + i * stride;
            block[place..place + bytes.len()].copy_from_slice(bytes);
            if let Some(pointer) = pointer {
                let place = layout.header + room * layout.key + i * width;
                block[place..place + width].copy_from_slice(&self.pointer(Some(*pointer)));
            }
        }
        self.put(Ptr(at), &block);
    }

    /// Builds a tree of records that are in order, with `fill` entries in a block (no fewer than a block must have, no more than
    /// it can), from block `first` on. Returns its blocks by level.
    pub fn build<K: Kind>(&mut self, records: &[K::Record], fill: usize, first: u64) -> Vec<Vec<Ptr>>
    where
        K::Record: IntoBytes + Immutable,
        K::Key: IntoBytes + Immutable,
    {
        let mut next = first;
        let mut all = Vec::new();
        let highest = |a: K::Key, b: K::Key| if K::compare(&a, &b) == Ordering::Less { b } else { a };
        // Of each block of the level below: low key, high key, address.
        let mut below: Vec<(K::Key, K::Key, u64)> = Vec::new();
        let groups = spread(records.len(), self.layout.limits(self.block_size(), 0), fill);
        let mut start = 0;
        for (i, n) in groups.iter().enumerate() {
            let part = &records[start..start + n];
            start += n;
            let entries: Vec<_> = part.iter().map(|r| (r.as_bytes().to_vec(), None)).collect();
            let at = next + i as u64;
            let right = (i + 1 < groups.len()).then_some(at + 1);
            self.write(at, 0, ((i > 0).then(|| at - 1), right), &entries);
            if let (Some(low), Some(high)) = (part.first().map(K::low), part.iter().map(K::high).reduce(highest)) {
                below.push((low, high, at));
            }
        }
        all.push((next..next + groups.len() as u64).map(Ptr).collect::<Vec<_>>());
        next += groups.len() as u64;
        let mut level = 0;
        while all.last().is_some_and(|l| l.len() > 1) {
            level += 1;
            let groups = spread(below.len(), self.layout.limits(self.block_size(), level), fill);
            let mut above = Vec::new();
            let mut start = 0;
            for (i, n) in groups.iter().enumerate() {
                let part = &below[start..start + n];
                start += n;
                let entries: Vec<_> = part
                    .iter()
                    .map(|(low, high, at)| {
                        let mut keys = low.as_bytes().to_vec();
                        if K::OVERLAPPING {
                            keys.extend_from_slice(high.as_bytes());
                        }
                        (keys, Some(*at))
                    })
                    .collect();
                let at = next + i as u64;
                let right = (i + 1 < groups.len()).then_some(at + 1);
                self.write(at, level, ((i > 0).then(|| at - 1), right), &entries);
                let high = part.iter().map(|p| p.1).reduce(highest);
                above.extend(high.map(|high| (part[0].0, high, at)));
            }
            all.push((next..next + groups.len() as u64).map(Ptr).collect());
            next += groups.len() as u64;
            below = above;
        }
        let root = all.last().and_then(|l| l.first()).copied().expect("at least one block");
        self.root = Root::Block { at: root, levels: u8::try_from(all.len()).expect("few levels") };
        all
    }
}

/// Divides `n` entries among blocks of `fill`, none below the fewest or above the most that a block may have, but a single one.
fn spread(n: usize, (max, min): (usize, usize), fill: usize) -> Vec<usize> {
    let fill = fill.clamp(min.max(1), max);
    let blocks = (n / fill).max(1).max(n.div_ceil(max));
    (0..blocks).map(|i| n / blocks + usize::from(i < n % blocks)).collect()
}

impl Store for MemoryTree {
    fn width(&self) -> Width {
        if self.layout.header == 56 { Width::Short } else { Width::Long }
    }
    fn block_type(&self) -> &'static BlockType {
        self.stamp.kind
    }
    fn layout(&self) -> Layout {
        self.layout
    }
    fn block_size(&self) -> usize {
        self.geometry.block_size as usize
    }
    fn root(&self) -> Result<Root> {
        Ok(self.root.clone())
    }
    fn read(&self, at: Ptr, damage: OnDamage, keep: Keep) -> Result<BlockRef<'_>> {
        let Some(daddr) = self.daddr(at) else {
            return Err(self.locate(Corruption::new(self.stamp.kind.name, "pointer", Rule::Range), Some(at)).into());
        };
        let owner = (self.width() == Width::Long).then_some(OWNER);
        let want = Want { kind: self.stamp.kind, owner, damage, keep };
        Ok(self.cache.read(&self.key(daddr), &want, self.geometry)?.into())
    }
    fn locate(&self, c: Box<Corruption>, at: Option<Ptr>) -> Box<Corruption> {
        match at {
            Some(at) => c.at_daddr(self.geometry.fsblock_to_daddr(FsBlock(at.0)).unwrap_or(Daddr(at.0))),
            None => c,
        }
    }
}
