//! A tree of an AG that takes its blocks from a pool, over a volume and its cache: changes are written back to an image, past its log.

use libxfsr::Error;
use libxfsr::btree::kinds::{Bno, Cnt, Rmap};
use libxfsr::btree::{Change, Cursor, Lookup, Position, Ptr, Root, Store, StoreMut, Width};
use libxfsr::cache::{BlockKey, BlockRef, Checkpoint, Keep, OnDamage, Want};
use libxfsr::error::{Corruption, Result, Rule};
use libxfsr::format::BlockType;
use libxfsr::format::ag::{AGF, AGFL, AGI, Agf, Agfl, Agi};
use libxfsr::format::btree::{AllocRec, Identity, Layout, RmapRec, owner};
use libxfsr::space::{AgStore, AgTree};
use libxfsr::units::{AgBlock, AgNumber, Daddr, NULL_AGBLOCK};
use libxfsr::volume::Volume;
use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Header sectors of an AG.
const AGF_SECTOR: u32 = 1;
const AGI_SECTOR: u32 = 2;
const AGFL_SECTOR: u32 = 3;

/// A tree of an AG, to change.
#[derive(Debug)]
pub struct PoolTree<'v> {
    volume: &'v Volume,
    ag: AgNumber,
    tree: AgTree,
    root: Root,
    /// Blocks that it may take; what it frees comes here.
    pub pool: Vec<Ptr>,
    /// Blocks that it has.
    pub blocks: u32,
}

fn update_sector<T: FromBytes + IntoBytes + zerocopy::KnownLayout + zerocopy::Unaligned, R>(
    volume: &Volume,
    (ag, sector): (AgNumber, u32),
    kind: &'static BlockType,
    change: impl FnOnce(&mut T, &mut [u8]) -> R,
) -> Result<R> {
    let g = &volume.geometry;
    let key = BlockKey::one(volume.data, g.header_daddr(ag, sector), g.sector_size / 512);
    let mut block = volume.cache.write(&key, &Want::new(kind, OnDamage::Fail), g)?;
    block.changed(Checkpoint::default());
    let (header, rest) = T::mut_from_prefix(&mut block.bytes).map_err(|_| Error::invalid("a short header"))?;
    Ok(change(header, rest))
}

/// The blocks on an AG's free list, which is empty then.
pub fn take_free_list(volume: &Volume, ag: AgNumber) -> Result<Vec<Ptr>> {
    let ring = update_sector(volume, (ag, AGF_SECTOR), &AGF, |agf: &mut Agf, _| {
        let ring = (agf.flfirst.get() as usize, agf.flcount.get() as usize);
        agf.flcount.set(0);
        ring
    })?;
    update_sector(volume, (ag, AGFL_SECTOR), &AGFL, |_: &mut Agfl, slots| {
        let slots = <[U32]>::ref_from_bytes(slots).expect("whole numbers");
        (0..ring.1).map(|i| Ptr(slots[(ring.0 + i) % slots.len()].get().into())).collect()
    })
}

/// Makes these blocks an AG's free list.
pub fn put_free_list(volume: &Volume, ag: AgNumber, blocks: &[Ptr]) -> Result<()> {
    update_sector(volume, (ag, AGFL_SECTOR), &AGFL, |_: &mut Agfl, slots| {
        let slots = <[U32]>::mut_from_bytes(slots).expect("whole numbers");
        slots.fill(U32::new(NULL_AGBLOCK));
        for (slot, at) in slots[..blocks.len()].iter_mut().zip(blocks) {
            slot.set(at.0 as u32);
        }
    })?;
    update_sector(volume, (ag, AGF_SECTOR), &AGF, |agf: &mut Agf, _| {
        agf.flfirst.set(0);
        agf.fllast.set(blocks.len() as u32 - 1);
        agf.flcount.set(blocks.len() as u32);
    })
}

/// Takes `n` blocks out of the middle of the largest free extent, for the free list: what an allocation does, in each tree of the AG.
/// Blocks that the trees may need on the way come from `pool`.
pub fn take_from_free_extent(volume: &Volume, ag: AgNumber, n: u32, pool: &mut Vec<Ptr>) -> Result<Vec<Ptr>> {
    let mut taken = (0, AllocRec::new_zeroed());
    for tree in [AgTree::Cnt, AgTree::Bno, AgTree::Rmap] {
        let agf = update_sector(volume, (ag, AGF_SECTOR), &AGF, |agf: &mut Agf, _| *agf)?;
        let (root, levels) = match tree {
            AgTree::Cnt => (agf.cnt_root, agf.cnt_level),
            AgTree::Bno => (agf.bno_root, agf.bno_level),
            _ if !volume.geometry.features.rmapbt() => break,
            _ => (agf.rmap_root, agf.rmap_level),
        };
        let root = Root::Block { at: Ptr(root.get().into()), levels: levels.get() as u8 };
        let before = agf.rmap_blocks.get();
        let mut store = PoolTree::new(volume, ag, tree, root, before);
        store.pool = std::mem::take(pool);
        let free = |start: u32, end: u32| AllocRec { startblock: start.into(), blockcount: (end - start).into() };
        let missing = || Error::unsupported("no free extent is large enough");
        match tree {
            AgTree::Cnt => {
                let mut at = Position::<Cnt>::last(&store)?.ok_or_else(missing)?;
                let whole = at.remove(&mut store)?;
                let (start, len) = (whole.startblock.get(), whole.blockcount.get());
                let middle = start + len.checked_sub(n).filter(|rest| *rest > 1).ok_or_else(missing)? / 2;
                taken = (middle, whole);
                Position::<Cnt>::insert(&mut store, &free(start, middle))?;
                Position::<Cnt>::insert(&mut store, &free(middle + n, start + len))?;
            }
            AgTree::Bno => {
                let (middle, whole) = taken;
                let (start, len) = (whole.startblock.get(), whole.blockcount.get());
                let mut at = Position::<Bno>::lookup(&store, &whole, Lookup::Equal)?.ok_or_else(missing)?;
                at.update(&mut store, &free(start, middle))?;
                Position::<Bno>::insert(&mut store, &free(middle + n, start + len))?;
            }
            _ => {
                let mut r = RmapRec::new_zeroed();
                r.startblock.set(taken.0);
                r.blockcount.set(n);
                r.owner.set(owner::AG);
                Position::<Rmap>::insert(&mut store, &r)?;
            }
        }
        store.write_root(before)?;
        *pool = store.pool;
    }
    let cnt = AgStore::new(volume, ag, AgTree::Cnt, OnDamage::Fail)?;
    let longest = Cursor::<Cnt, _>::last(&cnt)?.and_then(|c| c.record()).map_or(0, |r| r.blockcount.get());
    update_sector(volume, (ag, AGF_SECTOR), &AGF, |agf: &mut Agf, _| {
        agf.freeblks.set(agf.freeblks.get() - n);
        agf.longest.set(longest);
    })?;
    Ok((taken.0..taken.0 + n).map(|b| Ptr(b.into())).collect())
}

impl<'v> PoolTree<'v> {
    /// A tree whose root and number of blocks are known.
    pub fn new(volume: &'v Volume, ag: AgNumber, tree: AgTree, root: Root, blocks: u32) -> PoolTree<'v> {
        PoolTree { volume, ag, tree, root, pool: Vec::new(), blocks }
    }

    /// Puts root, height and number of blocks into the AG's header.
    pub fn write_root(&self, blocks_before: u32) -> Result<()> {
        let Root::Block { at, levels } = self.root else { return Err(Error::invalid("a root in an inode")) };
        let (root, levels) = (U32::new(at.0 as u32), U32::new(levels.into()));
        let (ag, counts) = (self.ag, self.volume.geometry.features.inobtcnt());
        if matches!(self.tree, AgTree::Ino | AgTree::Fino) {
            return update_sector(self.volume, (ag, AGI_SECTOR), &AGI, |agi: &mut Agi, _| {
                let (to, level, count) = match self.tree {
                    AgTree::Ino => (&mut agi.root, &mut agi.level, &mut agi.iblocks),
                    _ => (&mut agi.free_root, &mut agi.free_level, &mut agi.fblocks),
                };
                (*to, *level) = (root, levels);
                if counts {
                    count.set(self.blocks);
                }
            });
        }
        update_sector(self.volume, (ag, AGF_SECTOR), &AGF, |agf: &mut Agf, _| {
            let (to, level) = match self.tree {
                AgTree::Bno => (&mut agf.bno_root, &mut agf.bno_level),
                AgTree::Cnt => (&mut agf.cnt_root, &mut agf.cnt_level),
                AgTree::Rmap => (&mut agf.rmap_root, &mut agf.rmap_level),
                _ => (&mut agf.refcount_root, &mut agf.refcount_level),
            };
            (*to, *level) = (root, levels);
            match self.tree {
                AgTree::Rmap => agf.rmap_blocks.set(self.blocks),
                AgTree::Refcount => return agf.refcount_blocks.set(self.blocks),
                _ => {}
            }
            agf.btreeblks.set(agf.btreeblks.get() + self.blocks - blocks_before);
        })
    }

    fn daddr(&self, at: Ptr) -> Result<Daddr> {
        let agbno = AgBlock(u32::try_from(at.0).unwrap_or(u32::MAX));
        if !self.volume.geometry.is_valid_agbno(self.ag, agbno) {
            return Err(Corruption::new(self.tree.block_type().name, "pointer", Rule::Range).found(at.0).into());
        }
        Ok(self.volume.geometry.agbno_to_daddr(self.ag, agbno))
    }

    fn key(&self, at: Ptr) -> Result<BlockKey> {
        Ok(BlockKey::one(self.volume.data, self.daddr(at)?, self.volume.geometry.block_size / 512))
    }

    fn want(&self, damage: OnDamage, keep: Keep) -> Want {
        Want::new(self.tree.block_type(), damage).keep(keep)
    }
}

impl Store for PoolTree<'_> {
    fn width(&self) -> Width {
        Width::Short
    }
    fn block_type(&self) -> &'static BlockType {
        self.tree.block_type()
    }
    fn layout(&self) -> Layout {
        self.tree.layout()
    }
    fn block_size(&self) -> usize {
        self.volume.geometry.block_size as usize
    }
    fn root(&self) -> Result<Root> {
        Ok(self.root.clone())
    }
    fn read(&self, at: Ptr, damage: OnDamage, keep: Keep) -> Result<BlockRef<'_>> {
        let key = self.key(at)?;
        Ok(self.volume.cache.read(&key, &self.want(damage, keep), &self.volume.geometry)?.into())
    }
    fn locate(&self, c: Box<Corruption>, at: Option<Ptr>) -> Box<Corruption> {
        c.in_ag(self.ag, at.map(|p| AgBlock(p.0 as u32)))
    }
}

impl StoreMut for PoolTree<'_> {
    fn identity(&self, at: Ptr) -> Result<Identity> {
        let (g, daddr) = (&self.volume.geometry, self.daddr(at)?);
        let identity = Identity::new(self.tree.block_type(), g, daddr, self.ag.0.into());
        Ok(identity.expect("a type of btree blocks"))
    }
    fn reserve(&mut self, blocks: u32) -> Result<()> {
        if self.pool.len() < blocks as usize { Err(Error::unsupported("no block is left")) } else { Ok(()) }
    }
    fn allocate(&mut self, _: Option<Ptr>) -> Result<Ptr> {
        self.blocks += 1;
        self.pool.pop().ok_or_else(|| Error::unsupported("no block is left"))
    }
    fn free(&mut self, at: Ptr) -> Result<()> {
        self.volume.cache.invalidate(&self.key(at)?);
        self.blocks -= 1;
        self.pool.push(at);
        Ok(())
    }
    fn fresh(&mut self, at: Ptr, change: Change<'_>) -> Result<()> {
        let key = self.key(at)?;
        change(&mut self.volume.cache.fresh(&key, &self.want(OnDamage::Fail, Keep::Yes)).bytes)
    }
    fn update(&mut self, at: Ptr, change: Change<'_>) -> Result<()> {
        let key = self.key(at)?;
        let mut block = self.volume.cache.write(&key, &self.want(OnDamage::Fail, Keep::Yes), &self.volume.geometry)?;
        block.changed(Checkpoint::default());
        change(&mut block.bytes)
    }
    fn set_root(&mut self, root: Root) -> Result<()> {
        self.root = root;
        Ok(())
    }
}
