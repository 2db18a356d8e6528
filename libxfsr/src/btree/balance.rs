//! Moving entries between two neighbours below the same parent, and joining them. The path stays on its entry.

use super::position::{Position, Step, change_block, lost, node_at};
use super::{Kind, Node, Ptr, Store, StoreMut, corrupt};
use crate::error::{Result, Rule};

/// Two neighbours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    left: Ptr,
    right: Ptr,
    pub(super) left_len: usize,
    pub(super) right_len: usize,
    /// Entries that each has room for.
    pub(super) capacity: usize,
    /// The sibling on the right of both.
    beyond: Option<Ptr>,
    /// The parent's entry that leads to the left one.
    above: usize,
}

/// Which way entries go between two neighbours, and how many.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shift {
    /// The first of the right one become the last of the left one.
    Left(usize),
    /// The last of the left one become the first of the right one.
    Right(usize),
}

impl<K: Kind> Position<K> {
    /// Whether the entry at hand, or the place for a new record, is behind the first `n` entries of the path's node.
    pub(super) fn is_behind(&self, level: usize, n: usize) -> Result<bool> {
        let index = self.step(level)?.index;
        Ok(if level == 0 { index > n } else { index >= n })
    }

    /// Leads the path to another block, to which the entry at hand was moved.
    pub(super) fn go(&mut self, level: usize, at: Ptr, index: usize, above: usize) -> Result<()> {
        *self.step_mut(level)? = Step { at: Some(at), index };
        self.step_mut(level + 1)?.index = above;
        Ok(())
    }

    /// The blocks that entry `above` of the path's node over `level` and the entry behind it lead to; none where it has no such.
    pub(super) fn pair<S: Store>(&self, store: &S, level: usize, above: usize) -> Result<Option<Pair>> {
        let parent = self.node(store, level + 1)?;
        let (Some(left), Some(right)) = (parent.pointer(above), parent.pointer(above + 1)) else { return Ok(None) };
        if left == right {
            let twice = "a block that its parent has twice";
            return Err(corrupt(store, Some(left), "pointer", Rule::Loop).found(twice).into());
        }
        let (l, r) = (node_at(store, Some(left), level)?, node_at(store, Some(right), level)?);
        check_siblings(store, &l, &r)?;
        Ok(Some(Pair {
            left,
            right,
            left_len: l.len(),
            right_len: r.len(),
            capacity: l.capacity(),
            beyond: r.right(),
            above,
        }))
    }

    /// Whether the path goes through the right one of a pair.
    fn is_right(&self, level: usize, pair: &Pair) -> Result<bool> {
        Ok(self.step(level + 1)?.index > pair.above)
    }

    /// Moves entries between two neighbours.
    pub(super) fn shift<S: StoreMut>(&mut self, store: &mut S, level: usize, pair: &Pair, way: Shift) -> Result<()> {
        let index = self.step(level)?.index;
        match way {
            Shift::Left(n) => {
                let moved = node_at(&*store, Some(pair.right), level)?.entries(0..n).ok_or_else(lost)?;
                change_block(store, pair.left, level, &mut |node| node.insert(pair.left_len, &moved))?;
                change_block(store, pair.right, level, &mut |node| node.remove(0..n))?;
                if self.is_right(level, pair)? {
                    match index.checked_sub(n) {
                        Some(index) => self.step_mut(level)?.index = index,
                        None => self.go(level, pair.left, pair.left_len + index, pair.above)?,
                    }
                }
            }
            Shift::Right(n) => {
                let keep = pair.left_len.checked_sub(n).ok_or_else(lost)?;
                let moved = node_at(&*store, Some(pair.left), level)?.entries(keep..pair.left_len).ok_or_else(lost)?;
                change_block(store, pair.right, level, &mut |node| node.insert(0, &moved))?;
                change_block(store, pair.left, level, &mut |node| node.remove(keep..pair.left_len))?;
                if self.is_right(level, pair)? {
                    self.step_mut(level)?.index += n;
                } else if self.is_behind(level, keep)? {
                    self.go(level, pair.right, index - keep, pair.above + 1)?;
                }
            }
        }
        self.renew_entry(store, level + 1, pair.above, Some(pair.left))?;
        self.renew_entry(store, level + 1, pair.above + 1, Some(pair.right))?;
        Ok(())
    }

    /// Moves all entries of the right one to the left one, and gives the right one back. False where they do not fit.
    pub(super) fn join<S: StoreMut>(&mut self, store: &mut S, level: usize, pair: &Pair) -> Result<bool> {
        if pair.left_len + pair.right_len > pair.capacity {
            return Ok(false);
        }
        if let Some(beyond) = pair.beyond {
            let right = node_at(&*store, Some(pair.right), level)?;
            check_siblings(&*store, &right, &node_at(&*store, Some(beyond), level)?)?;
        }
        let moved = node_at(&*store, Some(pair.right), level)?.entries(0..pair.right_len).ok_or_else(lost)?;
        change_block(store, pair.left, level, &mut |node| {
            node.insert(pair.left_len, &moved)?;
            node.link(None, Some(pair.beyond))
        })?;
        if let Some(beyond) = pair.beyond {
            change_block(store, beyond, level, &mut |node| node.link(Some(Some(pair.left)), None))?;
        }
        self.change(store, level + 1, &mut |node| node.remove(pair.above + 1..pair.above + 2))?;
        if self.is_right(level, pair)? {
            let index = self.step(level)?.index;
            self.go(level, pair.left, pair.left_len + index, pair.above)?;
        }
        self.renew_entry(store, level + 1, pair.above, Some(pair.left))?;
        store.free(pair.right)?;
        Ok(true)
    }
}

/// Refuses neighbours that are not each other's siblings.
pub(super) fn check_siblings<S: Store>(store: &S, left: &Node<'_>, right: &Node<'_>) -> Result<()> {
    let null = |p: Option<Ptr>| p.map_or("null".to_string(), |p| p.0.to_string());
    if left.right() != right.at() {
        let c = corrupt(store, left.at(), "rightsib", Rule::Mismatch).found(null(left.right()));
        return Err(c.expected(null(right.at())).into());
    }
    if right.left() != left.at() {
        let c = corrupt(store, right.at(), "leftsib", Rule::Mismatch).found(null(right.left()));
        return Err(c.expected(null(left.at())).into());
    }
    Ok(())
}
