//! Making a whole tree of records that are in order: each block is written once, at the bottom first.

use super::insert::{set_inline_root, write_fresh};
use super::node::{Entries, Shape};
use super::position::{lost, node_at, number};
use super::{Kind, Ptr, Root, StoreMut, corrupt};
use crate::error::{Error, Result, Rule};
use crate::format::btree::{Layout, MAX_LEVELS};
use std::cmp::Ordering;

/// How much room is left in each block, so that the first changes need not split them all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Slack {
    /// Blocks are filled halfway between the fewest and the most entries that they may have.
    #[default]
    Half,
    /// Two entries: where space is short.
    Little,
    /// So many entries in each leaf and in each node; fewer where a block would have less than its minimum.
    Entries {
        /// In a leaf.
        leaf: usize,
        /// In a node.
        node: usize,
    },
}

impl Slack {
    /// Entries that a block at `level` gets.
    pub fn fill(self, layout: &Layout, block_size: usize, level: u16) -> usize {
        let (max, min) = layout.limits(block_size, level);
        let slack = match self {
            Self::Half => (max - min) / 2,
            Self::Little => 2,
            Self::Entries { leaf, .. } if level == 0 => leaf,
            Self::Entries { node, .. } => node,
        };
        max.saturating_sub(slack).max(min).max(1)
    }
}

/// What a tree will look like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    records: u64,
    /// Blocks of each level that has some, the leaves first; at the top stands one, unless the root is in an inode.
    rows: Vec<u64>,
    /// Entries of a root in an inode.
    inline: Option<u64>,
}

impl Plan {
    /// For so many records in a store. Where the root is, in a block or in an inode, is what [`Store::root`](super::Store::root) says; whether it is a usable
    /// one does not matter.
    ///
    /// # Errors
    /// When the root cannot be got; [`Error::Invalid`] for records that no tree can hold.
    pub fn new<S: StoreMut>(store: &S, records: u64, slack: Slack) -> Result<Self> {
        let (layout, size) = (store.layout(), store.block_size());
        let fork = match store.root()? {
            Root::Inline(bytes) => Some(bytes.len()),
            Root::Block { .. } => None,
        };
        let mut plan = Self { records, rows: Vec::new(), inline: None };
        let mut entries = records;
        for level in 0..u16::from(MAX_LEVELS) {
            if let Some(fork) = fork {
                let most = Shape::inline(&layout, store.width(), fork, level).max as u64;
                if entries <= most && (level > 0 || store.inline_records() || entries == 0) {
                    plan.inline = Some(entries);
                    return Ok(plan);
                }
            }
            let blocks = blocks(entries, layout.limits(size, level), slack.fill(&layout, size, level));
            plan.rows.push(blocks);
            if blocks == 1 && fork.is_none() {
                return Ok(plan);
            }
            // A root in an inode that has no room for one pointer would never be reached.
            if blocks == 1 && entries == 1 && level > 0 {
                break;
            }
            entries = blocks;
        }
        Err(Error::invalid(format!("{records} records do not fit into a btree")))
    }

    /// Blocks that it takes.
    pub fn blocks(&self) -> u64 {
        self.rows.iter().sum()
    }

    /// Its height, with a root in an inode.
    pub fn levels(&self) -> u8 {
        let levels = self.rows.len() + usize::from(self.inline.is_some());
        u8::try_from(levels).unwrap_or(MAX_LEVELS)
    }
}

/// Blocks for so many entries: `fill` in each, or a little more where one more block would make all too empty.
fn blocks(entries: u64, (max, min): (usize, usize), fill: usize) -> u64 {
    let (fill, min) = (fill.clamp(1, max.max(1)) as u64, min as u64);
    let enough = entries.div_ceil(fill).max(1);
    if enough > 1 && entries / enough < min { (entries / fill).max(1) } else { enough }
}

/// Makes a tree of `plan.records` records that come in order, and makes it the store's. What the store had before is neither read nor
/// freed: its blocks are the caller's affair. The records are asked for one after the other; how many there are was said in the plan.
///
/// # Errors
/// Those of the records; [`Error::Invalid`] where there are more or fewer of them; an [`Error::Corrupt`] where they are not in order;
/// the store's, which is asked to reserve all blocks first. [`StoreMut::set_root`] comes last: after an error the store has the tree
/// that it had, and the blocks that were allocated are lost unless the caller cancels what the store writes to.
pub fn load<K: Kind, S: StoreMut>(
    store: &mut S,
    plan: &Plan,
    records: impl IntoIterator<Item = Result<K::Record>>,
) -> Result<()> {
    let mut records = records.into_iter();
    store.reserve(u32::try_from(plan.blocks()).map_err(|_| Error::invalid("a btree of too many blocks"))?)?;
    let mut before: Option<K::Key> = None;
    let mut take = |store: &S, n: usize| {
        let mut some = Entries::default();
        for _ in 0..n {
            let Some(record) = records.next().transpose()? else {
                return Err(Error::invalid(format!("fewer than {} records for a btree", plan.records)));
            };
            let key = K::low(&record);
            if let Some(before) = before.replace(key).filter(|b| K::compare(b, &key) != Ordering::Less) {
                let c = corrupt(store, None, "recs", Rule::Order).found(K::show(&key));
                return Err(c.expected(format_args!("after {}", K::show(&before))).into());
            }
            some.push_record::<K>(&record);
        }
        Ok(some)
    };
    let mut below = Row { entries: plan.records, children: Entries::default(), first: None };
    for (level, blocks) in plan.rows.iter().enumerate() {
        let mut done = 0;
        let Row { entries, children, .. } = below;
        let stride = store.layout().key;
        let mut next = |store: &S, n: usize| {
            if level == 0 {
                return take(store, n);
            }
            let some = children.part(done..done + n, stride, store.width()).ok_or_else(lost);
            done += n;
            some
        };
        below = row::<K, S>(store, level, (entries, *blocks), &mut next)?;
    }
    let top = match plan.inline {
        None => None,
        Some(n) if plan.rows.is_empty() => Some(take(&*store, usize::try_from(n).map_err(|_| lost())?)?),
        Some(_) => Some(below.children),
    };
    if records.next().transpose()?.is_some() {
        return Err(Error::invalid(format!("more than {} records for a btree", plan.records)));
    }
    match top {
        Some(entries) => set_inline_root(store, plan.rows.len(), &entries),
        None => store.set_root(Root::Block { at: below.first.ok_or_else(lost)?, levels: plan.levels() }),
    }
}

/// A level that is written.
struct Row {
    entries: u64,
    /// What the level above holds.
    children: Entries,
    first: Option<Ptr>,
}

/// Writes the blocks of a level.
fn row<K: Kind, S: StoreMut>(
    store: &mut S,
    level: usize,
    (entries, blocks): (u64, u64),
    next: &mut dyn FnMut(&S, usize) -> Result<Entries>,
) -> Result<Row> {
    let mut row = Row { entries: blocks, children: Entries::default(), first: None };
    let (mut left, mut here) = (None, Some(store.allocate(None)?));
    for i in 0..blocks {
        let at = here.ok_or_else(lost)?;
        row.first = row.first.or(here);
        let n = entries / blocks + u64::from(i < entries % blocks);
        let some = next(&*store, usize::try_from(n).map_err(|_| lost())?)?;
        let right = if i + 1 < blocks { Some(store.allocate(here)?) } else { None };
        write_fresh(store, at, level, (left, right), &some)?;
        let keys = node_at(&*store, Some(at), level)?.keys_for_parent::<K>();
        // The only leaf of an empty tree has none, and no parent.
        if let Some(keys) = keys {
            row.children.push_child(&keys, at, store.width())?;
        }
        (left, here) = (here, right);
    }
    number(level)?;
    Ok(row)
}
