//! Putting a record in. What does not fit goes to a neighbour; where both are full a block is split, at the top the tree grows.
//!
//! Neighbours are those below the same parent, which knows both: nothing above it changes when they share out their entries.

use super::balance::{Shift, check_siblings};
use super::node::{Entries, NodeMut, Shape};
use super::position::{Position, Step, change_block, lost, node_at, number};
use super::{Kind, Ptr, Root, Store, StoreMut, Width, corrupt};
use crate::error::{Error, Result, Rule};
use crate::format::btree::MAX_LEVELS;
use zerocopy::IntoBytes;

impl<K: Kind> Position<K> {
    /// Puts a record in where it belongs, and is on it then.
    ///
    /// # Errors
    /// A record of that key that is there already is an [`Error::Corrupt`]; where the blocks that it may take cannot be reserved, the
    /// store's. Nothing is changed then. Another error of the store may leave the tree half changed, see [`StoreMut`].
    pub fn insert<S: StoreMut>(store: &mut S, record: &K::Record) -> Result<Self> {
        let key = K::low(record);
        let (mut p, exact) = Self::gap(&*store, &key)?;
        if exact {
            return Err(corrupt(&*store, p.step(0)?.at, "recs", Rule::Duplicate).found(K::show(&key)).into());
        }
        let need = p.blocks_to_insert(&*store)?;
        if need > 0 {
            store.reserve(need)?;
            p.make_room(store, 0)?;
        }
        let index = p.step(0)?.index;
        let new = Entries::record::<K>(record);
        p.change(store, 0, &mut |leaf| leaf.insert(index, &new))?;
        p.on = true;
        p.widen_keys(store, record)?;
        let last = p.is_last(&*store)?;
        store.record_changed(last)?;
        Ok(p)
    }

    /// Blocks that putting one record in here may take.
    fn blocks_to_insert<S: Store>(&self, store: &S) -> Result<u32> {
        let mut need = 0;
        for level in 0..self.height() {
            let node = self.node(store, level)?;
            if node.len() < node.capacity() {
                return Ok(need);
            }
            need += 1;
            if level + 1 == self.height() && node.at().is_some() {
                need += 1;
            }
        }
        if self.height() >= usize::from(MAX_LEVELS) {
            return Err(Error::invalid("a btree of too many levels"));
        }
        Ok(need)
    }

    /// Makes room for one more entry in the path's node at `level`: in the leaf at the position, in a node behind the entry that leads
    /// on. The path stays what it was. Depth is bounded by the tree's height.
    fn make_room<S: StoreMut>(&mut self, store: &mut S, level: usize) -> Result<()> {
        let node = self.node(&*store, level)?;
        let (at, full) = (node.at(), node.len() >= node.capacity());
        if !full {
            return Ok(());
        }
        drop(node);
        if level + 1 == self.height() {
            match at {
                None => return self.grow_out_of_inode(store, level),
                Some(at) => self.grow(store, at, level)?,
            }
        }
        if self.share(store, level)? {
            return Ok(());
        }
        self.make_room(store, level + 1)?;
        self.split(store, level)
    }

    /// Moves entries of a full node to a neighbour: half of the room there. False where there is none, or where the place for the new
    /// entry would move to a node that is then full.
    fn share<S: StoreMut>(&mut self, store: &mut S, level: usize) -> Result<bool> {
        let above = self.step(level + 1)?.index;
        if let Some(pair) = self.pair(&*store, level, above)? {
            let room = pair.capacity.saturating_sub(pair.right_len);
            let n = room.div_ceil(2).min(pair.left_len.saturating_sub(1));
            if n > 0 && !(n == room && self.is_behind(level, pair.left_len - n)?) {
                self.shift(store, level, &pair, Shift::Right(n))?;
                return Ok(true);
            }
        }
        let Some(pair) = above.checked_sub(1).map(|a| self.pair(&*store, level, a)).transpose()?.flatten() else {
            return Ok(false);
        };
        let room = pair.capacity.saturating_sub(pair.left_len);
        let n = room.div_ceil(2).min(pair.right_len.saturating_sub(1));
        if n == 0 || n == room && self.step(level)?.index < n {
            return Ok(false);
        }
        self.shift(store, level, &pair, Shift::Left(n))?;
        Ok(true)
    }

    /// Moves the upper half of a block to a new one. The parent has room.
    fn split<S: StoreMut>(&mut self, store: &mut S, level: usize) -> Result<()> {
        let node = self.node(&*store, level)?;
        let at = node.at().ok_or_else(lost)?;
        let (len, keep, right) = (node.len(), node.len() - node.len() / 2, node.right());
        let moved = node.entries(keep..len).ok_or_else(lost)?;
        if let Some(right) = right {
            check_siblings(&*store, &node, &node_at(&*store, Some(right), level)?)?;
        }
        drop(node);
        let new = store.allocate(Some(at))?;
        write_fresh(store, new, level, (Some(at), right), &moved)?;
        self.change(store, level, &mut |n| {
            n.remove(keep..len)?;
            n.link(None, Some(Some(new)))
        })?;
        if let Some(right) = right {
            change_block(store, right, level, &mut |n| n.link(Some(Some(new)), None))?;
        }
        let above = self.step(level + 1)?.index;
        self.renew_entry(store, level + 1, above, Some(at))?;
        let keys = node_at(&*store, Some(new), level)?.keys_for_parent::<K>().ok_or_else(lost)?;
        let entry = Entries::child(&keys, new, store.width())?;
        self.change(store, level + 1, &mut |n| n.insert(above + 1, &entry))?;
        if self.is_behind(level, keep)? {
            let index = self.step(level)?.index - keep;
            self.go(level, new, index, above + 1)?;
        }
        Ok(())
    }

    /// Puts a root above the root block.
    fn grow<S: StoreMut>(&mut self, store: &mut S, at: Ptr, level: usize) -> Result<()> {
        let keys = node_at(&*store, Some(at), level)?.keys_for_parent::<K>().ok_or_else(lost)?;
        let entry = Entries::child(&keys, at, store.width())?;
        let new = store.allocate(Some(at))?;
        write_fresh(store, new, level + 1, (None, None), &entry)?;
        let levels = number(level + 1)?.saturating_add(1);
        store.set_root(Root::Block { at: new, levels: u8::try_from(levels).map_err(|_| lost())? })?;
        self.steps.push(Step { at: Some(new), index: 0 });
        Ok(())
    }

    /// Moves what the root in the inode holds to a block, to which it then leads.
    fn grow_out_of_inode<S: StoreMut>(&mut self, store: &mut S, level: usize) -> Result<()> {
        let root = self.node(&*store, level)?;
        let all = root.entries(0..root.len()).ok_or_else(lost)?;
        let near = root.pointer(0);
        let keys = root.keys_for_parent::<K>().ok_or_else(lost)?;
        drop(root);
        let shape = Shape::block(&store.layout(), store.width(), store.block_size(), number(level)?);
        if all.len() >= shape.max {
            return Err(Error::invalid("a btree root in an inode that is as large as a block"));
        }
        let new = store.allocate(near)?;
        write_fresh(store, new, level, (None, None), &all)?;
        let entry = Entries::child(&keys, new, store.width())?;
        set_inline_root(store, level + 1, &entry)?;
        self.step_mut(level)?.at = Some(new);
        self.steps.push(Step { at: None, index: 0 });
        Ok(())
    }
}

/// Makes a block of the tree.
pub(super) fn write_fresh<S: StoreMut>(
    store: &mut S,
    at: Ptr,
    level: usize,
    (left, right): (Option<Ptr>, Option<Ptr>),
    entries: &Entries,
) -> Result<()> {
    let (identity, width) = (store.identity(at)?, store.width());
    let shape = Shape::block(&store.layout(), width, store.block_size(), number(level)?);
    store.fresh(at, &mut |bytes| {
        let header = match width {
            Width::Short => identity.short_header().write_to_prefix(bytes).is_ok(),
            Width::Long => identity.long_header().write_to_prefix(bytes).is_ok(),
        };
        if !header {
            return Err(lost());
        }
        let mut node = NodeMut::fresh(bytes, shape)?;
        node.link(Some(left), Some(right))?;
        node.insert(0, entries)
    })
}

/// Fills the root in the inode.
pub(super) fn set_inline_root<S: StoreMut>(store: &mut S, level: usize, entries: &Entries) -> Result<()> {
    let Root::Inline(old) = store.root()? else { return Err(lost()) };
    let mut bytes = vec![0; old.len()].into_boxed_slice();
    let shape = Shape::inline(&store.layout(), store.width(), bytes.len(), number(level)?);
    NodeMut::fresh(&mut bytes, shape)?.insert(0, entries)?;
    store.set_root(Root::Inline(bytes))
}
