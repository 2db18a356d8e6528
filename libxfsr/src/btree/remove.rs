//! Taking a record out. A block that falls below the minimum gets entries from a neighbour, or is joined with one; a root that leads
//! to one block only gives way to it.

use super::balance::{Pair, Shift};
use super::insert::set_inline_root;
use super::node::Shape;
use super::position::{Position, lost, number};
use super::{Kind, Root, StoreMut, corrupt};
use crate::error::{Error, Result, Rule};

impl<K: Kind> Position<K> {
    /// Takes the record out that it is on, and is then where that was: [`Position::advance`] leads to the record behind it.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it is on no record; nothing is changed then. Another error may leave the tree half changed, see
    /// [`StoreMut`].
    pub fn remove<S: StoreMut>(&mut self, store: &mut S) -> Result<K::Record> {
        let leaf = self.node(&*store, 0)?;
        let index = self.step(0)?.index;
        let record = leaf.record::<K>(index).filter(|_| self.on);
        let record = record.ok_or_else(|| Error::invalid("a btree position that is on no record"))?;
        let empties = leaf.len() == 1 && self.height() > 2;
        drop(leaf);
        if empties {
            // Only a root may have one child, so whoever runs empty has a neighbour.
            let above = self.node(&*store, 1)?;
            if above.len() < 2 {
                let c = corrupt(&*store, above.at(), "numrecs", Rule::Count).found(above.len());
                return Err(c.expected("at least 2").into());
            }
        }
        let (last, inner) = (self.is_last(&*store)?, self.is_inner(&*store, &record)?);
        self.change(store, 0, &mut |leaf| leaf.remove(index..index + 1))?;
        self.on = false;
        self.settle(store, inner)?;
        store.record_changed(last)?;
        Ok(record)
    }

    /// Makes keys, filling and height right again after a record is gone. No key changes where that was an inner one.
    fn settle<S: StoreMut>(&mut self, store: &mut S, inner: bool) -> Result<()> {
        for level in 0..self.height().saturating_sub(1) {
            let len = self.node(&*store, level)?.len();
            if len > 0 && !inner {
                self.renew_keys(store, level)?;
            }
            let (_, min) = store.layout().limits(store.block_size(), number(level)?);
            let mut joined = false;
            if len < min.max(1) {
                if self.borrow(store, level)? {
                    return self.renew_keys(store, level + 1);
                }
                joined = self.join_one(store, level)?;
            }
            // What the root leads to may now fit into an inode, also where nothing was joined.
            if !joined && level + 2 < self.height() {
                return Ok(());
            }
        }
        self.shrink(store)
    }

    /// The path's node at `level` with its neighbours: it is the left one of the first pair, the right one of the second.
    fn pairs<S: StoreMut>(&self, store: &S, level: usize) -> Result<(Option<Pair>, Option<Pair>)> {
        let above = self.step(level + 1)?.index;
        let before = above.checked_sub(1).map(|a| self.pair(store, level, a)).transpose()?.flatten();
        Ok((self.pair(store, level, above)?, before))
    }

    /// Gets entries from a neighbour that has more than the minimum, so many that both have as many. False where none has.
    fn borrow<S: StoreMut>(&mut self, store: &mut S, level: usize) -> Result<bool> {
        let (_, min) = store.layout().limits(store.block_size(), number(level)?);
        let surplus = |rich: usize, poor: usize| rich.saturating_sub(min).min((rich.saturating_sub(poor) / 2).max(1));
        let (after, before) = self.pairs(&*store, level)?;
        let after = after.map(|p| (p, surplus(p.right_len, p.left_len))).filter(|(_, n)| *n > 0);
        let before = before.map(|p| (p, surplus(p.left_len, p.right_len))).filter(|(_, n)| *n > 0);
        match (after, before) {
            (Some((pair, n)), _) => self.shift(store, level, &pair, Shift::Left(n))?,
            (None, Some((pair, n))) => self.shift(store, level, &pair, Shift::Right(n))?,
            (None, None) => return Ok(false),
        }
        Ok(true)
    }

    fn join_one<S: StoreMut>(&mut self, store: &mut S, level: usize) -> Result<bool> {
        let (after, before) = self.pairs(&*store, level)?;
        for pair in after.into_iter().chain(before) {
            if self.join(store, level, &pair)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes levels away as long as the root leads to one block that can take its place.
    fn shrink<S: StoreMut>(&mut self, store: &mut S) -> Result<()> {
        while let Some(level) = self.height().checked_sub(1).filter(|l| *l > 0) {
            let root = self.node(&*store, level)?;
            let (at, Some(below)) = (root.at(), root.pointer(0).filter(|_| root.len() == 1)) else { return Ok(()) };
            drop(root);
            let node = self.node(&*store, level - 1)?;
            if node.at() != Some(below) {
                return Err(lost());
            }
            if let Some(sibling) = node.left().or(node.right()) {
                let c = corrupt(&*store, Some(below), "rightsib", Rule::Mismatch).found(sibling.0);
                return Err(c.expected("null").into());
            }
            let Some(at) = at else {
                let Root::Inline(bytes) = store.root()? else { return Err(lost()) };
                let shape = Shape::inline(&store.layout(), store.width(), bytes.len(), node.level());
                let records = node.level() == 0 && !node.is_empty();
                if node.len() > shape.max || records && !store.inline_records() {
                    return Ok(());
                }
                let all = node.entries(0..node.len()).ok_or_else(lost)?;
                drop(node);
                set_inline_root(store, level - 1, &all)?;
                self.steps.pop();
                self.step_mut(level - 1)?.at = None;
                store.free(below)?;
                continue;
            };
            drop(node);
            store.set_root(Root::Block { at: below, levels: u8::try_from(level).map_err(|_| lost())? })?;
            self.steps.pop();
            store.free(at)?;
        }
        Ok(())
    }
}
