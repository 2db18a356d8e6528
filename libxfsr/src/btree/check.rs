//! Examining a whole tree: every block once, in order, with siblings, levels, counts and keys.

use super::{Kind, Node, Ptr, Store, Width, corrupt};
use crate::cache::{Keep, OnDamage};
use crate::control::Control;
use crate::error::{Corruption, Error, Result, Rule};
use rayon::prelude::*;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::ops::Range;

/// Leaves below one node that are worth more than one thread.
const PARALLEL: usize = 32;
/// Bytes of children of one node that are held at a time.
const PART: usize = 4 << 20;

/// What an examination saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Blocks, without a root in an inode.
    pub blocks: u64,
    /// Records.
    pub records: u64,
    /// Findings.
    pub findings: u64,
    /// Whether part of the tree could not be followed, so that records are missing.
    pub incomplete: bool,
}

struct Walk<'a, K: Kind, S> {
    store: &'a S,
    control: &'a Control<'a>,
    seen: HashSet<Ptr>,
    /// For each level: the last block there, and what it said of its right sibling.
    last: Vec<Option<(Ptr, Option<Ptr>)>>,
    previous: Option<K::Record>,
    report: Report,
    block: &'a mut dyn FnMut(Ptr, Option<&Node<'_>>),
    record: &'a mut dyn FnMut(&K::Record),
    found: &'a mut dyn FnMut(Box<Corruption>),
}

/// Visits every block and record of a tree and tells of everything that breaks a rule.
///
/// `block` gets each block that a pointer leads to, with its contents where they can be used, before what is in and below it;
/// `record` each record in the order of the tree, `found` each finding. Blocks that cannot be used (unreadable, of another kind or
/// level, seen before) are reported and not followed. A pointer may lead anywhere.
///
/// # Errors
/// [`Error::Stopped`] when `control`, which is asked before each block, says so. I/O errors become findings.
pub fn check<K: Kind, S: Store + Sync>(
    store: &S,
    control: &Control<'_>,
    block: &mut dyn FnMut(Ptr, Option<&Node<'_>>),
    record: &mut dyn FnMut(&K::Record),
    found: &mut dyn FnMut(Box<Corruption>),
) -> Result<Report> {
    let mut walk = Walk::<K, S> {
        store,
        control,
        seen: HashSet::new(),
        last: Vec::new(),
        previous: None,
        report: Report::default(),
        block,
        record,
        found,
    };
    match Node::root(store, OnDamage::Keep) {
        Ok(root) => {
            walk.last = vec![None; usize::from(root.level()) + 1];
            if let Some(at) = root.at() {
                walk.enter(at);
                (walk.block)(at, Some(&root));
            }
            walk.node(&root, true, false)?;
            for (at, right) in std::mem::take(&mut walk.last).into_iter().flatten() {
                if let Some(r) = right {
                    walk.tell(corrupt(store, Some(at), "rightsib", Rule::Mismatch).found(r.0).expected("null"));
                }
            }
        }
        Err(e) => walk.unusable(e, None),
    }
    Ok(walk.report)
}

impl<'a, K: Kind, S: Store + Sync> Walk<'a, K, S> {
    fn tell(&mut self, c: Box<Corruption>) {
        self.report.findings += 1;
        (self.found)(c);
    }

    fn unusable(&mut self, e: Error, at: Option<Ptr>) {
        self.report.incomplete = true;
        let c = match e {
            Error::Corrupt(c) => c,
            other => {
                let severity = other.severity();
                corrupt(self.store, at, "block", Rule::Unreadable).found(other).severity(severity)
            }
        };
        let c = self.store.locate(c, at);
        self.tell(c);
    }

    fn enter(&mut self, at: Ptr) -> bool {
        if !self.seen.insert(at) {
            self.report.incomplete = true;
            self.tell(corrupt(self.store, Some(at), "pointer", Rule::Loop).found("a block that this tree already has"));
            return false;
        }
        self.report.blocks += 1;
        true
    }

    fn siblings(&mut self, node: &Node<'_>) {
        let Some(at) = node.at() else { return };
        let Some(slot) = self.last.get_mut(usize::from(node.level())) else { return };
        let before = slot.replace((at, node.right()));
        if before.map(|b| b.0) != node.left() {
            let c = corrupt(self.store, Some(at), "leftsib", Rule::Mismatch)
                .found(node.left().map_or("null".into(), |p| p.0.to_string()))
                .expected(before.map_or("null".into(), |b| b.0.0.to_string()));
            self.tell(c);
        }
        if let Some((left, right)) = before.filter(|b| b.1 != Some(at)) {
            let c = corrupt(self.store, Some(left), "rightsib", Rule::Mismatch)
                .found(right.map_or("null".into(), |p| p.0.to_string()))
                .expected(at.0);
            self.tell(c);
        }
    }

    /// Depth is bounded: each call goes down one level from a root whose level was checked.
    fn node(&mut self, node: &Node<'_>, is_root: bool, only_child_of_inode: bool) -> Result<()> {
        if let Some(c) = node.damage() {
            let c = self.store.locate(Box::new(c.clone()), node.at());
            // What belongs to another inode says nothing of this one. The owner of a block with short pointers is just its AG.
            let foreign = c.rule.is_foreign() || c.rule == Rule::Owner && self.store.width() == Width::Long;
            self.tell(c);
            if let Some(c) = node.damage_beside_owner() {
                self.tell(self.store.locate(Box::new(c.clone()), node.at()));
            }
            if foreign {
                self.report.incomplete = true;
                return Ok(());
            }
        }
        self.siblings(node);
        let (_, min) = self.store.layout().limits(self.store.block_size(), node.level());
        if node.at().is_some() && !is_root && !only_child_of_inode && node.len() < min {
            let c = corrupt(self.store, node.at(), "numrecs", Rule::Count).found(node.len());
            self.tell(c.expected(format_args!("at least {min}")));
        }
        if is_root && node.level() > 0 && node.at().is_some() && node.len() < 2 {
            self.tell(corrupt(self.store, node.at(), "numrecs", Rule::Count).found(node.len()).expected("at least 2"));
        }
        if node.level() > 0 {
            return self.inner(node);
        }
        self.leaf(node);
        Ok(())
    }

    fn leaf(&mut self, node: &Node<'_>) {
        for r in node.records::<K>() {
            self.report.records += 1;
            if let Some(p) = self.previous.filter(|p| !K::in_order(p, r)) {
                let c = corrupt(self.store, node.at(), "recs", Rule::Order);
                let c = c.found(K::show(&K::low(r))).expected(format_args!("after {}", K::show(&K::high(&p))));
                self.tell(c);
            }
            self.previous = Some(*r);
            (self.record)(r);
        }
    }

    /// Reads and verifies some leaves below a node with all threads: most of the work on a large tree, and none of it depends on
    /// order. A few are not worth it.
    fn leaves(&self, node: &Node<'_>, some: Range<usize>) -> Vec<Option<Result<Node<'a>>>> {
        if node.level() != 1 || some.len() < PARALLEL {
            return Vec::new();
        }
        let read = |i| {
            let p = node.pointer(i).filter(|_| self.control.check().is_ok())?;
            Some(Node::read(self.store, p, 0, OnDamage::Keep, Keep::No))
        };
        some.into_par_iter().with_min_len(PARALLEL / 2).map(read).collect()
    }

    fn inner(&mut self, node: &Node<'_>) -> Result<()> {
        let part = (PART / self.store.block_size().max(1)).max(PARALLEL);
        let store = self.store;
        let ahead = |from: usize| {
            let some = from..from.saturating_add(part).min(node.len());
            store.readahead(&mut some.filter_map(|i| node.pointer(i)));
        };
        ahead(0);
        let mut leaves = Vec::new();
        for i in 0..node.len() {
            self.control.check()?;
            if i.is_multiple_of(part) {
                let next = i.saturating_add(part);
                ahead(next);
                leaves = self.leaves(node, i..next.min(node.len()));
            }
            let (Some(key), Some(p)) = (node.key::<K>(i), node.pointer(i)) else { break };
            if let Some(before) = i.checked_sub(1).and_then(|j| node.key::<K>(j))
                && K::compare(&before, &key) != Ordering::Less
            {
                let c = corrupt(self.store, node.at(), "keys", Rule::Order);
                self.tell(c.found(K::show(&key)).expected(format_args!("after {}", K::show(&before))));
            }
            if !self.enter(p) {
                continue;
            }
            let read = || Node::read(self.store, p, node.level() - 1, OnDamage::Keep, Keep::No);
            let child = match leaves.get_mut(i % part).and_then(Option::take).unwrap_or_else(read) {
                Ok(c) => c,
                Err(e) => {
                    (self.block)(p, None);
                    self.unusable(e, Some(p));
                    continue;
                }
            };
            (self.block)(p, Some(&child));
            self.keys(node, i, &key, &child);
            self.node(&child, false, node.at().is_none() && node.len() == 1)?;
        }
        Ok(())
    }

    fn keys(&mut self, node: &Node<'_>, i: usize, key: &K::Key, child: &Node<'_>) {
        match child.lowest::<K>() {
            Some(low) if K::compare(&low, key) != Ordering::Equal => {
                let c = corrupt(self.store, node.at(), "keys", Rule::Mismatch);
                self.tell(c.found(K::show(key)).expected(K::show(&low)));
            }
            None => self.tell(corrupt(self.store, child.at(), "numrecs", Rule::Count).found(0)),
            _ => {}
        }
        if let (Some(high), Some(real)) = (node.high_key::<K>(i), child.highest::<K>())
            && K::compare(&high, &real) != Ordering::Equal
        {
            let c = corrupt(self.store, node.at(), "high keys", Rule::Mismatch);
            self.tell(c.found(K::show(&high)).expected(K::show(&real)));
        }
    }
}
