//! Finding a record and walking from it in both directions; queries over ranges, also where records overlap.

use super::{Kind, Node, Store, corrupt};
use crate::cache::{Keep, OnDamage};
use crate::error::{Corruption, Error, Result, Rule};
use std::cmp::Ordering;
use std::marker::PhantomData;
use std::ops::ControlFlow;

/// Which record to find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// The one with that key.
    Equal,
    /// The last with that key or a smaller one.
    LessOrEqual,
    /// The first with that key or a greater one.
    GreaterOrEqual,
}

/// A position in a tree: the path from the root to a record.
#[derive(Debug)]
pub struct Cursor<'s, K, S> {
    store: &'s S,
    path: Vec<(Node<'s>, usize)>,
    kind: PhantomData<K>,
}

/// A record that does not lie beyond the one that was seen before: a leaf that is pointed to twice, or records in disorder. Who
/// walks on would walk long: a tree of a few blocks that share their children has more paths than anyone can follow.
fn disorder<K: Kind, S: Store>(store: &S, leaf: &Node<'_>, found: &K::Key, after: &K::Key, forward: bool) -> Error {
    let way = if forward { "after" } else { "before" };
    let c = corrupt(store, leaf.at(), "recs", Rule::Order).found(K::show(found));
    c.expected(format_args!("{way} {}", K::show(after))).into()
}

impl<'s, K: Kind, S: Store> Cursor<'s, K, S> {
    /// Finds a record; none if the tree has no such.
    ///
    /// # Errors
    /// When a block on the way cannot be read or breaks a rule.
    pub fn lookup(store: &'s S, key: &K::Key, which: Lookup) -> Result<Option<Self>> {
        let mut cursor = Self { store, path: Vec::new(), kind: PhantomData };
        let mut node = Node::root(store, OnDamage::Fail)?;
        loop {
            // The last entry whose key is not greater, or the first of all.
            let position = node.not_greater::<K>(key);
            if node.level() == 0 {
                return cursor.settle(node, position, key, which);
            }
            let at = position.saturating_sub(1);
            node = cursor.descend(node, at)?;
        }
    }

    fn settle(mut self, leaf: Node<'s>, after: usize, key: &K::Key, which: Lookup) -> Result<Option<Self>> {
        if !self.has_records(&leaf)? {
            return Ok(None);
        }
        let exact =
            after > 0 && leaf.record::<K>(after - 1).is_some_and(|r| K::compare(&K::low(&r), key) == Ordering::Equal);
        let len = leaf.len();
        match which {
            Lookup::Equal if !exact => return Ok(None),
            Lookup::GreaterOrEqual if !exact => {
                self.path.push((leaf, after));
                if after < len {
                    return Ok(Some(self));
                }
                if let Some(top) = self.path.last_mut() {
                    top.1 = len - 1;
                }
                return Ok(self.step(true)?.then_some(self));
            }
            _ if after == 0 => return Ok(None),
            _ => self.path.push((leaf, after - 1)),
        }
        Ok(Some(self))
    }

    /// The first record of the tree.
    ///
    /// # Errors
    /// As [`Cursor::lookup`].
    pub fn first(store: &'s S) -> Result<Option<Self>> {
        Self::edge(store, false)
    }

    /// The last record of the tree.
    ///
    /// # Errors
    /// As [`Cursor::lookup`].
    pub fn last(store: &'s S) -> Result<Option<Self>> {
        Self::edge(store, true)
    }

    fn edge(store: &'s S, last: bool) -> Result<Option<Self>> {
        let mut cursor = Self { store, path: Vec::new(), kind: PhantomData };
        let node = Node::root(store, OnDamage::Fail)?;
        Ok(cursor.fall(node, last)?.then_some(cursor))
    }

    fn descend(&mut self, node: Node<'s>, at: usize) -> Result<Node<'s>> {
        let Some(p) = node.pointer(at) else {
            let c = Corruption::new(K::NAME, "numrecs", Rule::Range).found(node.len());
            return Err(self.store.locate(c, node.at()).into());
        };
        let level = node.level() - 1;
        self.path.push((node, at));
        Node::read(self.store, p, level, OnDamage::Fail, Keep::Yes)
    }

    /// Goes down to the first or last record below `node`. False if there is none.
    fn fall(&mut self, mut node: Node<'s>, last: bool) -> Result<bool> {
        loop {
            let at = if last { node.len().saturating_sub(1) } else { 0 };
            if node.level() == 0 {
                let any = self.has_records(&node)?;
                self.path.push((node, at));
                return Ok(any);
            }
            node = self.descend(node, at)?;
        }
    }

    /// Whether a leaf has records. Only that of a tree without any may have none: another would look like the end of the tree.
    fn has_records(&self, leaf: &Node<'s>) -> Result<bool> {
        if leaf.is_empty() && !self.path.is_empty() {
            let c = corrupt(self.store, leaf.at(), "numrecs", Rule::Count).found(0).expected("at least 1");
            return Err(c.into());
        }
        Ok(!leaf.is_empty())
    }

    /// The record.
    pub fn record(&self) -> Option<K::Record> {
        self.path.last().and_then(|(n, i)| n.record::<K>(*i))
    }

    /// Goes to the next record. False at the end; the position is then undefined.
    ///
    /// # Errors
    /// As [`Cursor::lookup`].
    pub fn advance(&mut self) -> Result<bool> {
        self.step(true)
    }

    /// Goes to the record before. False at the start; the position is then undefined.
    ///
    /// # Errors
    /// As [`Cursor::lookup`].
    pub fn retreat(&mut self) -> Result<bool> {
        self.step(false)
    }

    fn step(&mut self, forward: bool) -> Result<bool> {
        let Some(before) = self.record() else { return Ok(false) };
        if !self.neighbour(forward)? {
            return Ok(false);
        }
        let (Some((leaf, _)), Some(now)) = (self.path.last(), self.record()) else { return Ok(false) };
        let (before, now) = (K::low(&before), K::low(&now));
        let order = if forward { Ordering::Greater } else { Ordering::Less };
        if K::compare(&now, &before) == order {
            return Ok(true);
        }
        Err(disorder::<K, S>(self.store, leaf, &now, &before, forward))
    }

    fn neighbour(&mut self, forward: bool) -> Result<bool> {
        while let Some((node, i)) = self.path.pop() {
            let to = if forward { Some(i + 1).filter(|i| *i < node.len()) } else { i.checked_sub(1) };
            let Some(to) = to else { continue };
            if node.level() == 0 {
                self.path.push((node, to));
                return Ok(true);
            }
            let below = self.descend(node, to)?;
            return self.fall(below, !forward);
        }
        Ok(false)
    }
}

/// Calls `each` with every record that touches `low..=high`, in order of low keys, until it breaks.
///
/// # Errors
/// As [`Cursor::lookup`].
pub fn query<K: Kind, S: Store>(
    store: &S,
    low: &K::Key,
    high: &K::Key,
    each: &mut dyn FnMut(&K::Record) -> ControlFlow<()>,
) -> Result<()> {
    if K::OVERLAPPING {
        let root = Node::root(store, OnDamage::Fail)?;
        let _ = query_overlapping::<K, S>(store, &root, (low, high), &mut None, each)?;
        return Ok(());
    }
    // The record before may reach into the range.
    let mut cursor = match Cursor::<K, S>::lookup(store, low, Lookup::LessOrEqual)? {
        Some(c) => Some(c),
        None => Cursor::lookup(store, low, Lookup::GreaterOrEqual)?,
    };
    while let Some(c) = &mut cursor {
        let Some(r) = c.record() else { break };
        if K::compare(&K::low(&r), high) == Ordering::Greater {
            break;
        }
        if K::compare(&K::high(&r), low) != Ordering::Less && each(&r).is_break() {
            break;
        }
        if !c.advance()? {
            break;
        }
    }
    Ok(())
}

/// Depth is bounded: [`Node::read`] demands that each level is one below its parent. So is the number of blocks: every leaf must
/// have records, beyond those seen before.
fn query_overlapping<K: Kind, S: Store>(
    store: &S,
    node: &Node<'_>,
    (low, high): (&K::Key, &K::Key),
    last: &mut Option<K::Key>,
    each: &mut dyn FnMut(&K::Record) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let touches =
        |l: &K::Key, h: &K::Key| K::compare(l, high) != Ordering::Greater && K::compare(h, low) != Ordering::Less;
    if node.level() == 0 {
        for r in node.records::<K>() {
            let key = K::low(r);
            if let Some(before) = last.replace(key).filter(|b| K::compare(&key, b) != Ordering::Greater) {
                return Err(disorder::<K, S>(store, node, &key, &before, true));
            }
            if touches(&key, &K::high(r)) && each(r).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        return Ok(ControlFlow::Continue(()));
    }
    for i in 0..node.len() {
        let (Some(l), Some(h), Some(p)) = (node.key::<K>(i), node.high_key::<K>(i), node.pointer(i)) else { break };
        if touches(&l, &h) {
            let child = Node::read(store, p, node.level() - 1, OnDamage::Fail, Keep::Yes)?;
            if child.is_empty() {
                return Err(corrupt(store, Some(p), "numrecs", Rule::Count).found(0).expected("at least 1").into());
            }
            if query_overlapping::<K, S>(store, &child, (low, high), last, each)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}
