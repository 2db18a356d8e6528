//! What a transaction hands to the journal: items, each a few regions of bytes.

use crate::cache::BlockKey;
use crate::units::{AgBlock, AgNumber, Ino};

/// Names what an item describes. In one checkpoint an item stands for all earlier ones of the same name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ItemKey {
    /// A block.
    Buffer(BlockKey),
    /// An inode.
    Inode(Ino),
    /// A quota record: the place of its block, its first byte there.
    Dquot(BlockKey, usize),
    /// A new chunk of inodes.
    Chunk(AgNumber, AgBlock),
    /// An intent.
    Intent(u64),
    /// That an intent is done.
    Done(u64),
}

/// Regions that are being put together.
#[derive(Clone, Debug, Default)]
pub struct RegionWriter {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl RegionWriter {
    /// Adds a region. Lengths in the log are multiples of four: zeroes fill it up.
    pub fn region(&mut self, pieces: &[&[u8]]) {
        let start = self.bytes.len();
        pieces.iter().for_each(|p| self.bytes.extend_from_slice(p));
        let length = self.bytes.len() - start;
        self.bytes.resize(start + length.next_multiple_of(4), 0);
        self.ends.push(self.bytes.len());
    }
    /// The regions.
    pub fn regions(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(s, e)| self.bytes.get(s..*e).unwrap_or(&[])).collect::<Vec<_>>().into_iter()
    }
    /// Bytes of all regions.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    /// How many there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// Anything that XFS logs as an item: blocks, inodes, quota records, intents.
pub trait LogItem: Send {
    /// Its name.
    fn key(&self) -> ItemKey;
    /// Writes its regions as they are to stand in the log. `covered` is what this returned for the item of the same name that is
    /// in the checkpoint already, and that this one replaces: parts of it that were logged must be logged again.
    fn format(&self, covered: &[u32], out: &mut RegionWriter) -> Vec<u32>;
}

/// Union of two bitmaps.
pub(super) fn union(a: &[u32], b: &[u32]) -> Vec<u32> {
    let word = |v: &[u32], i: usize| v.get(i).copied().unwrap_or(0);
    (0..a.len().max(b.len())).map(|i| word(a, i) | word(b, i)).collect()
}

/// What one commit hands to its sink.
pub struct CommitSet<'a> {
    /// What is to be logged, in order.
    pub items: &'a [&'a dyn LogItem],
    /// Blocks that are dirty from now on.
    pub dirty: &'a [&'a BlockKey],
    /// Blocks that are freed: what the log has of them must not be replayed.
    pub freed: &'a [&'a BlockKey],
    /// Intents that are logged, by number.
    pub intents: &'a [u64],
    /// Intents that are done.
    pub done: &'a [u64],
    /// What the transaction had reserved.
    pub reserved: u64,
}
