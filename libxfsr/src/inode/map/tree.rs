//! The extent btree of a fork, to change in a transaction. Its root is in the inode, its blocks come from free space.

use crate::btree::kinds::Bmap;
use crate::btree::{Change, Node, Ptr, Root, Store, StoreMut, Width};
use crate::cache::{BlockKey, BlockRef, Keep, OnDamage, Want};
use crate::error::{Corruption, Error, ForkKind, Result, Rule};
use crate::format::BlockType;
use crate::format::btree::{BMBT, BMBT_BLOCK, Extent, Identity, Layout};
use crate::format::inode::{Dinode, fork_bytes, fork_bytes_mut};
use crate::space::{FreeExtents, Place, Request, RmapOwner, Space};
use crate::txn::Transaction;
use crate::units::{AgNumber, FsBlock, Ino};
use std::sync::Arc;

/// The tree, for one change.
pub(super) struct ForkTree<'w, 's> {
    t: &'w mut Transaction<'s>,
    space: &'w Arc<Space>,
    ino: Ino,
    kind: ForkKind,
    root: Box<[u8]>,
    /// Where blocks were reserved.
    ag: Option<AgNumber>,
}

impl<'w, 's> ForkTree<'w, 's> {
    /// Of a fork in btree format.
    pub(super) fn new(t: &'w mut Transaction<'s>, space: &'w Arc<Space>, ino: Ino, kind: ForkKind) -> Result<Self> {
        let root = fork_bytes(t.inode(ino)?, kind).into();
        Ok(Self { t, space, ino, kind, root, ag: None })
    }

    fn key(&self, at: Ptr) -> Result<BlockKey> {
        let g = self.t.geometry();
        let daddr = g.fsblock_to_daddr(FsBlock(at.0)).ok_or_else(|| {
            let c = self.locate(Corruption::new(BMBT_BLOCK.name, "pointer", Rule::Range), None);
            c.found(at.0).expected("a block of the filesystem")
        })?;
        Ok(BlockKey::one(self.t.volume().data, daddr, g.block_size / 512))
    }

    fn want(&self, damage: OnDamage) -> Want {
        Want::new(&BMBT_BLOCK, damage).owned_by(self.ino)
    }

    /// Close to another block of the tree, else to the inode.
    fn start(&self, near: Option<Ptr>) -> FsBlock {
        let g = self.t.geometry();
        let near = near.map(|p| FsBlock(p.0)).filter(|b| g.is_valid_fsblock(*b));
        near.unwrap_or_else(|| {
            let (ag, agino) = g.split_ino(self.ino);
            g.join(ag, g.agino_to_block(agino).0)
        })
    }

    fn count(&mut self, by: i64) -> Result<()> {
        let bad = || Corruption::new("inode", "nblocks", Rule::Count).in_inode(self.ino);
        let core = Dinode::from_bytes_mut(self.t.inode_mut(self.ino)?).ok_or_else(bad)?;
        let now = core.nblocks.get();
        core.nblocks.set(now.checked_add_signed(by).ok_or_else(|| bad().found(now))?);
        Ok(())
    }

    /// The extents of a tree that has one leaf, and that leaf. None where it has more.
    pub(super) fn only_leaf(&mut self) -> Result<Option<(Ptr, Vec<Extent>)>> {
        let tree = &*self;
        let root = Node::root(tree, OnDamage::Fail)?;
        let (1, 1, Some(at)) = (root.level(), root.len(), root.pointer(0)) else { return Ok(None) };
        let leaf = Node::read(tree, at, 0, OnDamage::Fail, Keep::Yes)?;
        Ok(Some((at, leaf.records::<Bmap>().iter().map(|r| r.extent()).collect())))
    }

    /// Frees a block of the tree.
    pub(super) fn give_back(&mut self, at: Ptr) -> Result<()> {
        let (key, want) = (self.key(at)?, self.want(OnDamage::Fail));
        self.t.invalidate(&key, &want)?;
        self.count(-1)?;
        let owner = RmapOwner::extent_tree(self.ino, self.kind);
        let free = FreeExtents::new(self.space.clone(), self.t.geometry(), vec![(FsBlock(at.0), 1)], Some(owner))?;
        self.t.defer(free)
    }
}

impl Store for ForkTree<'_, '_> {
    fn width(&self) -> Width {
        Width::Long
    }
    fn block_type(&self) -> &'static BlockType {
        &BMBT_BLOCK
    }
    fn layout(&self) -> Layout {
        BMBT
    }
    fn block_size(&self) -> usize {
        self.t.geometry().block_size as usize
    }
    fn root(&self) -> Result<Root> {
        Ok(Root::Inline(self.root.clone()))
    }
    fn read(&self, at: Ptr, damage: OnDamage, keep: Keep) -> Result<BlockRef<'_>> {
        self.t.read(&self.key(at)?, &self.want(damage).keep(keep))
    }
    fn locate(&self, c: Box<Corruption>, at: Option<Ptr>) -> Box<Corruption> {
        let c = c.in_inode(self.ino).in_fork(self.kind, None);
        match at {
            Some(p) => {
                let (ag, agbno) = self.t.geometry().split(FsBlock(p.0));
                c.in_ag(ag, Some(agbno))
            }
            None => c,
        }
    }
}

impl StoreMut for ForkTree<'_, '_> {
    fn identity(&self, at: Ptr) -> Result<Identity> {
        let daddr = self.key(at)?.daddr();
        let identity = Identity::new(&BMBT_BLOCK, self.t.geometry(), daddr, self.ino.0);
        identity.ok_or_else(|| Error::invalid("a type of blocks that is no btree's"))
    }
    fn reserve(&mut self, blocks: u32) -> Result<()> {
        let near = self.start(None);
        self.ag = Some(self.space.room(self.t, near, blocks)?);
        Ok(())
    }
    fn allocate(&mut self, near: Option<Ptr>) -> Result<Ptr> {
        let near = self.start(near);
        let place = match self.ag {
            Some(ag) if self.t.geometry().split(near).0 != ag => Place::Within(ag),
            _ => Place::Near(near),
        };
        let request = Request::metadata(1, RmapOwner::extent_tree(self.ino, self.kind));
        let a = self.space.allocate(self.t, place, &request)?;
        self.count(1)?;
        Ok(Ptr(self.t.geometry().join(a.ag, a.start).0))
    }
    fn free(&mut self, at: Ptr) -> Result<()> {
        self.give_back(at)
    }
    fn fresh(&mut self, at: Ptr, change: Change<'_>) -> Result<()> {
        let (key, want) = (self.key(at)?, self.want(OnDamage::Fail));
        change(self.t.fresh(&key, &want)?)
    }
    fn update(&mut self, at: Ptr, change: Change<'_>) -> Result<()> {
        let (key, want) = (self.key(at)?, self.want(OnDamage::Fail));
        change(self.t.block_mut(&key, &want)?)
    }
    fn set_root(&mut self, root: Root) -> Result<()> {
        let Root::Inline(bytes) = root else {
            return Err(Error::invalid("the root of a fork's tree outside of the inode"));
        };
        let fork = fork_bytes_mut(self.t.inode_mut(self.ino)?, self.kind);
        if fork.len() != bytes.len() {
            return Err(Error::invalid("a root that is not as long as its fork"));
        }
        fork.copy_from_slice(&bytes);
        self.root = bytes;
        Ok(())
    }
}
