//! A place in a tree that is being changed.

use super::node::{NodeMut, Shape};
use super::{Kind, Lookup, Node, Ptr, Root, Store, StoreMut, corrupt};
use crate::cache::{Keep, OnDamage};
use crate::error::{Error, Result, Rule};
use crate::format::btree::MAX_LEVELS;
use std::cmp::Ordering;
use std::marker::PhantomData;
use zerocopy::IntoBytes;

/// One level of a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step {
    /// The block; none for a root in an inode.
    pub(super) at: Option<Ptr>,
    /// In a node the entry that leads on, in the leaf the record.
    pub(super) index: usize,
}

/// A place in a tree: on a record, or between two.
///
/// Unlike a [`Cursor`](super::Cursor) it holds neither blocks nor the store, which every method is handed: who changes two trees of
/// one transaction in turn has a position in each. It stays right through its own changes ([`Position::insert`] is on the new record,
/// [`Position::remove`] between the neighbours of the old one), not through those that are made by others.
pub struct Position<K> {
    /// The leaf first.
    pub(super) steps: Vec<Step>,
    /// Whether it is on a record, not before it.
    pub(super) on: bool,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Position<K> {
    fn clone(&self) -> Self {
        Self { steps: self.steps.clone(), on: self.on, kind: PhantomData }
    }
}

impl<K> std::fmt::Debug for Position<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Position").field("steps", &self.steps).field("on", &self.on).finish_non_exhaustive()
    }
}

impl<K: Kind> Position<K> {
    /// The place behind all records whose key is not greater, and whether the last of them has this key.
    pub(super) fn gap<S: Store>(store: &S, key: &K::Key) -> Result<(Self, bool)> {
        let mut node = Node::root(store, OnDamage::Fail)?;
        let mut steps = Vec::new();
        loop {
            let behind = node.not_greater::<K>(key);
            if node.level() == 0 {
                if node.is_empty() && !steps.is_empty() {
                    return Err(corrupt(store, node.at(), "numrecs", Rule::Count)
                        .found(0)
                        .expected("at least 1")
                        .into());
                }
                let equal = |r: &K::Record| K::compare(&K::low(r), key) == Ordering::Equal;
                let exact = behind.checked_sub(1).and_then(|i| node.record::<K>(i)).is_some_and(|r| equal(&r));
                steps.push(Step { at: node.at(), index: behind });
                steps.reverse();
                return Ok((Self { steps, on: false, kind: PhantomData }, exact));
            }
            let index = behind.saturating_sub(1);
            steps.push(Step { at: node.at(), index });
            node = child(store, &node, index)?;
        }
    }

    /// Finds a record; none if the tree has no such.
    ///
    /// # Errors
    /// When a block on the way cannot be read or breaks a rule.
    pub fn lookup<S: Store>(store: &S, key: &K::Key, which: Lookup) -> Result<Option<Self>> {
        let (mut p, exact) = Self::gap(store, key)?;
        let found = match which {
            Lookup::Equal if !exact => false,
            Lookup::GreaterOrEqual if !exact => p.advance(store)?,
            _ => p.retreat(store)?,
        };
        Ok(found.then_some(p))
    }

    /// The first record of the tree.
    ///
    /// # Errors
    /// As [`Position::lookup`].
    pub fn first<S: Store>(store: &S) -> Result<Option<Self>> {
        Self::edge(store, false)
    }

    /// The last record of the tree.
    ///
    /// # Errors
    /// As [`Position::lookup`].
    pub fn last<S: Store>(store: &S) -> Result<Option<Self>> {
        Self::edge(store, true)
    }

    fn edge<S: Store>(store: &S, last: bool) -> Result<Option<Self>> {
        let root = Node::root(store, OnDamage::Fail)?;
        let height = usize::from(root.level()) + 1;
        let mut p = Self { steps: vec![Step { at: root.at(), index: 0 }; height], on: false, kind: PhantomData };
        let any = p.fall(store, root, last)?;
        p.on = any;
        Ok(any.then_some(p))
    }

    /// Goes down to the first or last record below a node of the path. False if there is none, as only an empty tree may have it.
    fn fall<'s, S: Store>(&mut self, store: &'s S, mut node: Node<'s>, last: bool) -> Result<bool> {
        loop {
            let index = if last { node.len().saturating_sub(1) } else { 0 };
            let level = usize::from(node.level());
            if let Some(step) = self.steps.get_mut(level) {
                *step = Step { at: node.at(), index };
            }
            if level == 0 {
                if node.is_empty() && self.steps.len() > 1 {
                    return Err(corrupt(store, node.at(), "numrecs", Rule::Count)
                        .found(0)
                        .expected("at least 1")
                        .into());
                }
                return Ok(!node.is_empty());
            }
            node = child(store, &node, index)?;
        }
    }

    pub(super) fn height(&self) -> usize {
        self.steps.len()
    }

    pub(super) fn step(&self, level: usize) -> Result<Step> {
        self.steps.get(level).copied().ok_or_else(lost)
    }

    pub(super) fn step_mut(&mut self, level: usize) -> Result<&mut Step> {
        self.steps.get_mut(level).ok_or_else(lost)
    }

    /// The node of the path at `level`.
    pub(super) fn node<'s, S: Store>(&self, store: &'s S, level: usize) -> Result<Node<'s>> {
        node_at(store, self.step(level)?.at, level)
    }

    /// The record; none between two records.
    ///
    /// # Errors
    /// As [`Position::lookup`].
    pub fn record<S: Store>(&self, store: &S) -> Result<Option<K::Record>> {
        if !self.on {
            return Ok(None);
        }
        Ok(self.node(store, 0)?.record::<K>(self.step(0)?.index))
    }

    /// Goes to the next record. False at the end; it is then behind the last record.
    ///
    /// # Errors
    /// As [`Position::lookup`].
    pub fn advance<S: Store>(&mut self, store: &S) -> Result<bool> {
        self.walk(store, true)
    }

    /// Goes to the record before. False at the start; it is then before the first record.
    ///
    /// # Errors
    /// As [`Position::lookup`].
    pub fn retreat<S: Store>(&mut self, store: &S) -> Result<bool> {
        self.walk(store, false)
    }

    fn walk<S: Store>(&mut self, store: &S, forward: bool) -> Result<bool> {
        let leaf = self.node(store, 0)?;
        let Step { index, .. } = self.step(0)?;
        let before = if self.on { leaf.record::<K>(index) } else { None };
        let to = self.beside(0, forward)?.filter(|i| *i < leaf.len());
        let now = match to {
            Some(to) => {
                *self.step_mut(0)? = Step { at: leaf.at(), index: to };
                self.on = true;
                leaf.record::<K>(to)
            }
            None if self.neighbour(store, forward)? => self.record(store)?,
            None => return Ok(false),
        };
        if let (Some(b), Some(r)) = (before, now) {
            let (b, now) = (K::low(&b), K::low(&r));
            let order = if forward { Ordering::Greater } else { Ordering::Less };
            if K::compare(&now, &b) != order {
                let way = if forward { "after" } else { "before" };
                let c = corrupt(store, self.step(0)?.at, "recs", Rule::Order).found(K::show(&now));
                return Err(c.expected(format_args!("{way} {}", K::show(&b))).into());
            }
        }
        Ok(true)
    }

    /// The entry beside that of the path at `level`; it may be one too many.
    fn beside(&self, level: usize, forward: bool) -> Result<Option<usize>> {
        let index = self.step(level)?.index;
        let in_gap = level == 0 && !self.on;
        Ok(if forward { Some(index + usize::from(!in_gap)) } else { index.checked_sub(1) })
    }

    /// Goes to the leaf beside this one.
    fn neighbour<S: Store>(&mut self, store: &S, forward: bool) -> Result<bool> {
        for level in 1..self.height() {
            let node = self.node(store, level)?;
            let Some(to) = self.beside(level, forward)?.filter(|i| *i < node.len()) else { continue };
            self.step_mut(level)?.index = to;
            self.on = true;
            let below = child(store, &node, to)?;
            return self.fall(store, below, !forward);
        }
        if forward && self.on {
            self.step_mut(0)?.index += 1;
        }
        self.on = false;
        Ok(false)
    }

    /// Puts another record in place of the one it is on. Its key may be another, but not beyond the neighbours'.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it is on no record; a key beyond the neighbours' is an [`Error::Corrupt`]. Nothing is changed then. An
    /// error of the store may leave the tree half changed, see [`StoreMut`].
    pub fn update<S: StoreMut>(&mut self, store: &mut S, record: &K::Record) -> Result<()> {
        let old = self.record(&*store)?.ok_or_else(|| Error::invalid("a btree position that is on no record"))?;
        if old.as_bytes() == record.as_bytes() {
            return Ok(());
        }
        if K::compare(&K::low(&old), &K::low(record)) != Ordering::Equal {
            self.check_between(&*store, record)?;
        }
        let Step { index, .. } = self.step(0)?;
        self.change(store, 0, &mut |leaf| leaf.replace(index, record.as_bytes()))?;
        if K::low(&old).as_bytes() != K::low(record).as_bytes()
            || K::OVERLAPPING && K::high(&old).as_bytes() != K::high(record).as_bytes()
        {
            self.renew_keys(store, 0)?;
        }
        let last = self.is_last(&*store)?;
        store.record_changed(last)
    }

    /// Refuses a record that does not belong between the neighbours of this one.
    fn check_between<S: Store>(&self, store: &S, record: &K::Record) -> Result<()> {
        for (forward, order) in [(false, Ordering::Less), (true, Ordering::Greater)] {
            let mut other = self.clone();
            if !other.walk(store, forward)? {
                continue;
            }
            if let Some(r) = other.record(store)?
                && K::compare(&K::low(&r), &K::low(record)) != order
            {
                let way = if forward { "before" } else { "after" };
                let c = corrupt(store, self.step(0)?.at, "recs", Rule::Order).found(K::show(&K::low(record)));
                return Err(c.expected(format_args!("{way} {}", K::show(&K::low(&r)))).into());
            }
        }
        Ok(())
    }

    /// Whether nothing follows the record that it is on.
    pub(super) fn is_last<S: Store>(&self, store: &S) -> Result<bool> {
        let leaf = self.node(store, 0)?;
        Ok(leaf.right().is_none() && self.step(0)?.index + 1 >= leaf.len())
    }

    /// Changes the node of the path at `level`.
    pub(super) fn change<S: StoreMut>(
        &self,
        store: &mut S,
        level: usize,
        change: &mut dyn FnMut(&mut NodeMut<'_>) -> Result<()>,
    ) -> Result<()> {
        match self.step(level)?.at {
            Some(at) => change_block(store, at, level, change),
            None => {
                let Root::Inline(mut bytes) = store.root()? else { return Err(lost()) };
                let shape = Shape::inline(&store.layout(), store.width(), bytes.len(), number(level)?);
                change(&mut NodeMut::new(&mut bytes, shape)?)?;
                store.set_root(Root::Inline(bytes))
            }
        }
    }

    /// Makes what the nodes above say of the path's node at `level` and of each other right again.
    pub(super) fn renew_keys<S: StoreMut>(&self, store: &mut S, level: usize) -> Result<()> {
        for above in level + 1..self.height() {
            let Step { at, index } = self.step(above - 1)?;
            // A low key is that of the first entry.
            if index > 0 && !K::OVERLAPPING {
                break;
            }
            if !self.renew_entry(store, above, self.step(above)?.index, at)? {
                break;
            }
        }
        Ok(())
    }

    /// Makes the nodes above say of the path that it holds a record that it did not hold before.
    pub(super) fn widen_keys<S: StoreMut>(&self, store: &mut S, record: &K::Record) -> Result<()> {
        let (low, high) = (K::low(record), K::high(record));
        for above in 1..self.height() {
            let Step { index, .. } = self.step(above)?;
            if !K::OVERLAPPING && self.step(above - 1)?.index > 0 {
                break;
            }
            let node = self.node(&*store, above)?;
            let old = node.key::<K>(index).ok_or_else(lost)?;
            let new = if K::compare(&low, &old) == Ordering::Less { low } else { old };
            let mut keys = new.as_bytes().to_vec();
            if K::OVERLAPPING {
                let old = node.high_key::<K>(index).ok_or_else(lost)?;
                let new = if K::compare(&high, &old) == Ordering::Greater { high } else { old };
                keys.extend_from_slice(new.as_bytes());
            }
            if node.entry(index) == Some(&*keys) {
                break;
            }
            drop(node);
            self.change(store, above, &mut |node| node.replace(index, &keys))?;
        }
        Ok(())
    }

    /// Whether the nodes above say the same of the path without the record that it is on.
    pub(super) fn is_inner<S: Store>(&self, store: &S, record: &K::Record) -> Result<bool> {
        if self.step(0)?.index == 0 || !K::OVERLAPPING || self.height() == 1 {
            return Ok(self.step(0)?.index > 0);
        }
        let high = self.node(store, 1)?.high_key::<K>(self.step(1)?.index);
        Ok(high.is_some_and(|h| K::compare(&K::high(record), &h) == Ordering::Less))
    }

    /// Makes the keys of an entry of the path's node at `above` those of the block that it leads to. False where they were.
    pub(super) fn renew_entry<S: StoreMut>(
        &self,
        store: &mut S,
        above: usize,
        index: usize,
        below: Option<Ptr>,
    ) -> Result<bool> {
        let child = node_at(&*store, below, above.saturating_sub(1))?;
        let keys = child.keys_for_parent::<K>().ok_or_else(lost)?;
        drop(child);
        if self.node(&*store, above)?.entry(index) == Some(&*keys) {
            return Ok(false);
        }
        self.change(store, above, &mut |node| node.replace(index, &keys))?;
        Ok(true)
    }
}

/// What a position does not find where it was: somebody else has changed the tree.
pub(super) fn lost() -> Error {
    Error::invalid("a btree was changed behind the position that is in use")
}

/// A level as blocks hold it.
pub(super) fn number(level: usize) -> Result<u16> {
    u16::try_from(level)
        .ok()
        .filter(|l| *l < u16::from(MAX_LEVELS))
        .ok_or_else(|| Error::invalid("a btree of too many levels"))
}

/// A block of the tree, or its root in an inode.
pub(super) fn node_at<S: Store>(store: &S, at: Option<Ptr>, level: usize) -> Result<Node<'_>> {
    match at {
        Some(at) => Node::read(store, at, number(level)?, OnDamage::Fail, Keep::Yes),
        None => {
            let root = Node::root(store, OnDamage::Fail)?;
            if root.at().is_some() || usize::from(root.level()) != level { Err(lost()) } else { Ok(root) }
        }
    }
}

/// The block that an entry leads to.
pub(super) fn child<'s, S: Store>(store: &'s S, node: &Node<'_>, index: usize) -> Result<Node<'s>> {
    let missing = || corrupt(store, node.at(), "numrecs", Rule::Range).found(node.len());
    let at = node.pointer(index).ok_or_else(missing)?;
    Node::read(store, at, node.level().saturating_sub(1), OnDamage::Fail, Keep::Yes)
}

/// Changes a block of the tree.
pub(super) fn change_block<S: StoreMut>(
    store: &mut S,
    at: Ptr,
    level: usize,
    change: &mut dyn FnMut(&mut NodeMut<'_>) -> Result<()>,
) -> Result<()> {
    let shape = Shape::block(&store.layout(), store.width(), store.block_size(), number(level)?);
    store.update(at, &mut |bytes| change(&mut NodeMut::new(bytes, shape)?))
}
