//! The trees of free space and of owners of an AG inside a transaction, with blocks of the free list: what btrees are tested with.

use libxfsr::Error;
use libxfsr::btree::kinds::Cnt;
use libxfsr::btree::{Change, Cursor, Ptr, Root, Store, StoreMut, Width};
use libxfsr::cache::{BlockKey, BlockRef, Keep, OnDamage, Want};
use libxfsr::error::{Corruption, Result, Rule};
use libxfsr::format::BlockType;
use libxfsr::format::ag::{AGF, AGFL, Agf, Agfl};
use libxfsr::format::btree::{Identity, Layout};
use libxfsr::space::AgTree;
use libxfsr::txn::Transaction;
use libxfsr::units::{AgBlock, AgNumber, Daddr};
use zerocopy::FromBytes;
use zerocopy::big_endian::U32;

/// bnobt, cntbt or rmapbt. The transaction has the AGF already.
#[derive(Debug)]
pub struct LoggedTree<'t, 's> {
    t: &'t mut Transaction<'s>,
    ag: AgNumber,
    tree: AgTree,
}

fn header(t: &Transaction<'_>, ag: AgNumber, sector: u32) -> BlockKey {
    let g = t.geometry();
    BlockKey::one(t.volume().data, g.header_daddr(ag, sector), g.sector_size / 512)
}

fn agf(t: &Transaction<'_>, ag: AgNumber) -> Result<Agf> {
    let b = t.read(&header(t, ag, 1), &Want::new(&AGF, OnDamage::Fail))?;
    Ok(*Agf::ref_from_prefix(&b).expect("a sector").0)
}

/// Locks an AG's header, and with it its trees.
pub fn lock(t: &mut Transaction<'_>, ag: AgNumber) -> Result<()> {
    t.block(&header(t, ag, 1), &Want::new(&AGF, OnDamage::Fail)).map(drop)
}

fn change_agf<T>(t: &mut Transaction<'_>, ag: AgNumber, change: impl FnOnce(&mut Agf) -> T) -> Result<T> {
    let b = t.block_mut(&header(t, ag, 1), &Want::new(&AGF, OnDamage::Fail))?;
    Ok(change(Agf::mut_from_prefix(b).expect("a sector").0))
}

fn slot<T>(t: &mut Transaction<'_>, ag: AgNumber, n: u32, change: impl FnOnce(&mut U32) -> T) -> Result<T> {
    let b = t.block_mut(&header(t, ag, 3), &Want::new(&AGFL, OnDamage::Fail))?;
    let (_, slots) = Agfl::mut_from_prefix(b).expect("a sector");
    Ok(change(&mut <[U32]>::mut_from_bytes(slots).expect("whole numbers")[n as usize]))
}

impl<'t, 's> LoggedTree<'t, 's> {
    /// A tree of an AG.
    pub fn new(t: &'t mut Transaction<'s>, ag: AgNumber, tree: AgTree) -> LoggedTree<'t, 's> {
        LoggedTree { t, ag, tree }
    }

    fn daddr(&self, at: Ptr) -> Result<Daddr> {
        let agbno = u32::try_from(at.0).map(AgBlock).ok().filter(|b| self.t.geometry().is_valid_agbno(self.ag, *b));
        let outside = || self.locate(Corruption::new(self.block_type().name, "pointer", Rule::Range), Some(at));
        Ok(self.t.geometry().agbno_to_daddr(self.ag, agbno.ok_or_else(outside)?))
    }

    fn key(&self, at: Ptr) -> Result<BlockKey> {
        Ok(BlockKey::one(self.t.volume().data, self.daddr(at)?, self.t.geometry().block_size / 512))
    }

    fn want(&self, damage: OnDamage, keep: Keep) -> Want {
        Want::new(self.tree.block_type(), damage).keep(keep)
    }

    /// Counts a block more or less of the tree; the free list has one less or more.
    fn count(&mut self, delta: i32) -> Result<()> {
        let tree = self.tree;
        change_agf(self.t, self.ag, |agf| {
            let add =
                |n: &mut U32, delta: i32| n.set(n.get().checked_add_signed(delta).expect("a block that was counted"));
            add(&mut agf.btreeblks, delta);
            add(&mut agf.flcount, -delta);
            if tree == AgTree::Rmap {
                add(&mut agf.rmap_blocks, delta);
            }
        })
    }
}

impl Store for LoggedTree<'_, '_> {
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
        self.t.geometry().block_size as usize
    }
    fn root(&self) -> Result<Root> {
        let agf = agf(self.t, self.ag)?;
        let (at, levels) = match self.tree {
            AgTree::Bno => (agf.bno_root, agf.bno_level),
            AgTree::Cnt => (agf.cnt_root, agf.cnt_level),
            _ => (agf.rmap_root, agf.rmap_level),
        };
        Ok(Root::Block { at: Ptr(at.get().into()), levels: u8::try_from(levels.get()).unwrap_or(u8::MAX) })
    }
    fn read(&self, at: Ptr, damage: OnDamage, keep: Keep) -> Result<BlockRef<'_>> {
        self.t.read(&self.key(at)?, &self.want(damage, keep))
    }
    fn locate(&self, c: Box<Corruption>, at: Option<Ptr>) -> Box<Corruption> {
        c.in_ag(self.ag, at.map(|p| AgBlock(p.0 as u32)))
    }
}

impl StoreMut for LoggedTree<'_, '_> {
    fn identity(&self, at: Ptr) -> Result<Identity> {
        let other = || Error::invalid("a block that is no btree's");
        Identity::new(self.block_type(), self.t.geometry(), self.daddr(at)?, self.ag.0.into()).ok_or_else(other)
    }
    fn reserve(&mut self, blocks: u32) -> Result<()> {
        if agf(self.t, self.ag)?.flcount.get() < blocks { Err(Error::unsupported("no block is left")) } else { Ok(()) }
    }
    fn allocate(&mut self, _: Option<Ptr>) -> Result<Ptr> {
        let slots = self.t.geometry().agfl_slots();
        let first = change_agf(self.t, self.ag, |agf| {
            let first = agf.flfirst.get();
            agf.flfirst.set((first + 1) % slots);
            first
        })?;
        self.count(1)?;
        slot(self.t, self.ag, first, |s| Ptr(s.get().into()))
    }
    fn free(&mut self, at: Ptr) -> Result<()> {
        let (key, want) = (self.key(at)?, self.want(OnDamage::Fail, Keep::Yes));
        self.t.invalidate(&key, &want)?;
        let slots = self.t.geometry().agfl_slots();
        let last = change_agf(self.t, self.ag, |agf| {
            let last = (agf.fllast.get() + 1) % slots;
            agf.fllast.set(last);
            last
        })?;
        self.count(-1)?;
        slot(self.t, self.ag, last, |s| s.set(at.0 as u32))
    }
    fn fresh(&mut self, at: Ptr, change: Change<'_>) -> Result<()> {
        let (key, want) = (self.key(at)?, self.want(OnDamage::Fail, Keep::Yes));
        change(self.t.fresh(&key, &want)?)
    }
    fn update(&mut self, at: Ptr, change: Change<'_>) -> Result<()> {
        let (key, want) = (self.key(at)?, self.want(OnDamage::Fail, Keep::Yes));
        change(self.t.block_mut(&key, &want)?)
    }
    fn set_root(&mut self, root: Root) -> Result<()> {
        let Root::Block { at, levels } = root else { return Err(Error::invalid("an AG has no roots in inodes")) };
        let (root, levels) = (U32::new(at.0 as u32), U32::new(levels.into()));
        let tree = self.tree;
        change_agf(self.t, self.ag, |agf| match tree {
            AgTree::Bno => (agf.bno_root, agf.bno_level) = (root, levels),
            AgTree::Cnt => (agf.cnt_root, agf.cnt_level) = (root, levels),
            _ => (agf.rmap_root, agf.rmap_level) = (root, levels),
        })
    }
    fn record_changed(&mut self, last: bool) -> Result<()> {
        if self.tree != AgTree::Cnt || !last {
            return Ok(());
        }
        let longest = Cursor::<Cnt, _>::last(self)?.and_then(|c| c.record()).map_or(0, |r| r.blockcount.get());
        change_agf(self.t, self.ag, |agf| agf.longest.set(longest))
    }
}
