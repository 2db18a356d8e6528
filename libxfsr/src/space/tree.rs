//! The trees of an AG, to change in a transaction.

use super::allocate::{self, Request};
use super::owner::RmapOwner;
use super::{AgTree, Fill, Space, extent, free, freelist, header};
use crate::btree::{Change, Ptr, Root, Store, StoreMut, Width};
use crate::cache::{BlockKey, BlockRef, Keep, OnDamage, Want};
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::BlockType;
use crate::format::btree::{Identity, Layout};
use crate::txn::Transaction;
use crate::units::{AgBlock, AgNumber};

/// A tree of an AG, to change in a transaction.
///
/// The trees of free space and of reverse mappings take blocks from the AG's free list and give them back there; the others get theirs
/// from the free space of the AG. Who changes one of the first kind has filled the free list before ([`Space::prepare`]); who changes the
/// inode trees has locked the AGI first, by reading the tree through the transaction that holds it.
pub struct AgTreeMut<'t, 's> {
    t: &'t mut Transaction<'s>,
    space: &'t Space,
    ag: AgNumber,
    tree: AgTree,
}

impl std::fmt::Debug for AgTreeMut<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgTreeMut").field("ag", &self.ag).field("tree", &self.tree).finish_non_exhaustive()
    }
}

impl<'t, 's> AgTreeMut<'t, 's> {
    /// A tree of an AG, in a transaction.
    pub fn new(t: &'t mut Transaction<'s>, space: &'t Space, ag: AgNumber, tree: AgTree) -> Self {
        Self { t, space, ag, tree }
    }
    fn daddr_key(&self, at: Ptr) -> Result<BlockKey> {
        let g = self.t.geometry();
        let agbno = AgBlock(u32::try_from(at.0).unwrap_or(u32::MAX));
        if !g.is_valid_agbno(self.ag, agbno) {
            let c = Corruption::new(self.tree.block_type().name, "pointer", Rule::Range).in_ag(self.ag, Some(agbno));
            return Err(c.found(at.0).into());
        }
        Ok(BlockKey::one(self.t.volume().data, g.agbno_to_daddr(self.ag, agbno), g.block_size / 512))
    }
    fn want(&self) -> Want {
        Want::new(self.tree.block_type(), OnDamage::Fail)
    }
    /// Blocks come from the free list.
    fn on_list(&self) -> bool {
        matches!(self.tree, AgTree::Bno | AgTree::Cnt | AgTree::Rmap)
    }
    fn owner(&self) -> RmapOwner {
        match self.tree {
            AgTree::Refcount => RmapOwner::REFC,
            AgTree::Ino | AgTree::Fino => RmapOwner::INOBT,
            _ => RmapOwner::AG,
        }
    }
    /// Counts a block more or less.
    fn count(&mut self, by: i64) -> Result<()> {
        let (ag, tree) = (self.ag, self.tree);
        match tree {
            AgTree::Bno | AgTree::Cnt => {
                header::change_agf(self.t, ag, |agf| header::add("agf", "btreeblks", &mut agf.btreeblks, by, ag))?
            }
            AgTree::Rmap => header::change_agf(self.t, ag, |agf| {
                header::add("agf", "btreeblks", &mut agf.btreeblks, by, ag)?;
                header::add("agf", "rmap_blocks", &mut agf.rmap_blocks, by, ag)
            })?,
            AgTree::Refcount => header::change_agf(self.t, ag, |agf| {
                header::add("agf", "refcount_blocks", &mut agf.refcount_blocks, by, ag)
            })?,
            AgTree::Ino | AgTree::Fino => {
                if tree == AgTree::Fino {
                    self.space.free_inode_blocks_changed(self.t, ag, by);
                }
                if !self.t.geometry().features.inobtcnt() {
                    return Ok(());
                }
                header::change_agi(self.t, ag, |agi| match tree {
                    AgTree::Ino => header::add("agi", "iblocks", &mut agi.iblocks, by, ag),
                    _ => header::add("agi", "fblocks", &mut agi.fblocks, by, ag),
                })?
            }
        }
    }
}

impl Store for AgTreeMut<'_, '_> {
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
        Ok(if self.tree.is_of_inodes() {
            self.tree.in_agi(&mut header::agi(self.t, self.ag)?).read()
        } else {
            self.tree.in_agf(&mut header::agf(self.t, self.ag)?).read()
        })
    }
    fn read(&self, at: Ptr, damage: OnDamage, keep: Keep) -> Result<BlockRef<'_>> {
        let want = Want::new(self.tree.block_type(), damage).keep(keep);
        self.t.read(&self.daddr_key(at)?, &want)
    }
    fn locate(&self, c: Box<Corruption>, at: Option<Ptr>) -> Box<Corruption> {
        c.in_ag(self.ag, at.map(|p| AgBlock(u32::try_from(p.0).unwrap_or(u32::MAX))))
    }
}

impl StoreMut for AgTreeMut<'_, '_> {
    fn identity(&self, at: Ptr) -> Result<Identity> {
        let daddr = self.daddr_key(at)?.daddr();
        let identity = Identity::new(self.tree.block_type(), self.t.geometry(), daddr, self.ag.0.into());
        identity.ok_or_else(|| Error::invalid("a type of blocks that is no btree's"))
    }
    fn reserve(&mut self, blocks: u32) -> Result<()> {
        if self.on_list() {
            let have = header::agf(self.t, self.ag)?.flcount.get();
            return if have < blocks {
                Err(Error::NoSpace(format!("the free list of AG {} has {have} blocks of {blocks}", self.ag)))
            } else {
                Ok(())
            };
        }
        header::lock_agf(self.t, self.ag)?;
        // Each of them may empty the free list anew.
        let more = if blocks > 1 { freelist::minimum(self.t, self.ag)? } else { 0 };
        let agf = header::agf(self.t, self.ag)?;
        allocate::fits(self.t.geometry(), self.space, self.ag, &agf, Fill::Tree, blocks.saturating_add(more), 1)
    }
    fn allocate(&mut self, near: Option<Ptr>) -> Result<Ptr> {
        let at = if self.on_list() {
            freelist::take(self.t, self.ag)?
        } else {
            let near = near.and_then(|p| u32::try_from(p.0).ok()).map(AgBlock);
            let request = Request { fill: Fill::Tree, ..Request::metadata(1, self.owner()) };
            allocate::in_ag(self.t, self.space, self.ag, near, &request)?.start
        };
        self.count(1)?;
        Ok(Ptr(at.0.into()))
    }
    fn free(&mut self, at: Ptr) -> Result<()> {
        let (key, want) = (self.daddr_key(at)?, self.want());
        self.t.invalidate(&key, &want)?;
        self.count(-1)?;
        let agbno = AgBlock(u32::try_from(at.0).unwrap_or(u32::MAX));
        if self.on_list() {
            freelist::put(self.t, self.ag, agbno)
        } else {
            let owner = self.owner();
            free::in_ag(self.t, self.space, self.ag, (agbno, 1), Some(&owner))
        }
    }
    fn fresh(&mut self, at: Ptr, change: Change<'_>) -> Result<()> {
        let (key, want) = (self.daddr_key(at)?, self.want());
        change(self.t.fresh(&key, &want)?)
    }
    fn update(&mut self, at: Ptr, change: Change<'_>) -> Result<()> {
        let (key, want) = (self.daddr_key(at)?, self.want());
        change(self.t.block_mut(&key, &want)?)
    }
    fn set_root(&mut self, root: Root) -> Result<()> {
        let Root::Block { at, levels } = root else {
            return Err(Error::invalid("the root of an AG's tree in an inode"));
        };
        let at = u32::try_from(at.0).map_err(|_| Error::invalid("a root outside of its AG"))?;
        let tree = self.tree;
        if tree.is_of_inodes() {
            header::change_agi(self.t, self.ag, |agi| tree.in_agi(agi).write(at, levels))
        } else {
            header::change_agf(self.t, self.ag, |agf| tree.in_agf(agf).write(at, levels))
        }
    }
    fn record_changed(&mut self, last: bool) -> Result<()> {
        if self.tree != AgTree::Cnt || !last {
            return Ok(());
        }
        let longest = extent::longest(&*self)?;
        header::change_agf(self.t, self.ag, |agf| agf.longest.set(longest))
    }
}
