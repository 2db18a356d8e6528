//! Btrees of tiny blocks in memory, which few records make high; with a transaction, and with calls that fail.

use libxfsr::Error;
use libxfsr::btree::{Change, Ptr, Root, Store, StoreMut, Width};
use libxfsr::cache::{Block, BlockRef, BlockState, Keep, OnDamage};
use libxfsr::error::{Corruption, Result, Rule};
use libxfsr::format::BlockType;
use libxfsr::format::btree::{Identity, Layout};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// A tree, and what has to be put back where a change is cancelled.
#[derive(Debug)]
pub struct SmallTree {
    kind: &'static BlockType,
    layout: Layout,
    size: usize,
    inline_records: bool,
    blocks: HashMap<Ptr, Block>,
    root: Root,
    next: u64,
    /// Blocks that there are.
    pub room: usize,
    reserved: u32,
    /// Calls until one fails.
    left: AtomicU64,
    before: HashMap<Ptr, Option<Box<[u8]>>>,
    root_before: Root,
    /// Records that were said to have changed, and how many of them as the last.
    pub told: (u64, u64),
}

/// No call fails.
const NEVER: u64 = u64::MAX;

impl SmallTree {
    /// No tree yet. In its blocks is room for `entries` records and as many children; where `fork` is given, the root is in so many
    /// bytes of an inode.
    pub fn new(kind: &'static BlockType, layout: Layout, entries: usize, fork: Option<usize>) -> SmallTree {
        let size = layout.header + entries * layout.record.max(layout.key + layout.pointer);
        let root = match fork {
            Some(n) => Root::Inline(vec![0; n].into()),
            None => Root::Block { at: Ptr(u64::MAX), levels: 1 },
        };
        SmallTree {
            kind,
            layout,
            size,
            inline_records: false,
            blocks: HashMap::new(),
            root_before: root.clone(),
            root,
            next: 20,
            room: usize::MAX,
            reserved: 0,
            left: AtomicU64::new(NEVER),
            before: HashMap::new(),
            told: (0, 0),
        }
    }

    /// Lets a root in an inode hold records.
    #[must_use]
    pub fn with_inline_records(self) -> SmallTree {
        SmallTree { inline_records: true, ..self }
    }

    /// Blocks that it has.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether it has no blocks.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Changes a byte of a block, which is taken modulo the blocks that there are, or of a root in an inode.
    pub fn damage(&mut self, block: usize, byte: usize, bits: u8) {
        let mut all: Vec<Ptr> = self.blocks.keys().copied().collect();
        all.sort_unstable();
        let bytes = match &mut self.root {
            Root::Inline(bytes) if block % (all.len() + 1) == all.len() => bytes,
            _ => &mut self.blocks.get_mut(&all[block % all.len()]).expect("one of them").bytes,
        };
        let n = bytes.len();
        bytes[byte % n] ^= bits;
    }

    /// After so many more calls one fails, once.
    pub fn fail_after(&mut self, calls: u64) {
        self.left = AtomicU64::new(calls);
    }

    /// What was changed since the last call of this or of [`SmallTree::cancel`] stays.
    pub fn commit(&mut self) {
        self.left = AtomicU64::new(NEVER);
        self.reserved = 0;
        self.before.clear();
        self.root_before = self.root.clone();
    }

    /// Puts everything back as it was.
    pub fn cancel(&mut self) {
        self.left = AtomicU64::new(NEVER);
        self.reserved = 0;
        self.root = self.root_before.clone();
        for (at, bytes) in std::mem::take(&mut self.before) {
            match bytes {
                Some(bytes) => self.put(at, bytes),
                None => drop(self.blocks.remove(&at)),
            }
        }
    }

    fn put(&mut self, at: Ptr, bytes: Box<[u8]>) {
        let block =
            Block { bytes, kind: self.kind, owner: None, state: BlockState::Clean, damage: None, objects: Vec::new() };
        self.blocks.insert(at, block);
    }

    fn call(&self) -> Result<()> {
        let left = self.left.load(Ordering::Relaxed);
        if left == NEVER {
            return Ok(());
        }
        self.left.store(left.checked_sub(1).unwrap_or(NEVER), Ordering::Relaxed);
        if left == 0 { Err(Error::unsupported("this call fails")) } else { Ok(()) }
    }

    fn missing(&self, at: Ptr) -> Error {
        Corruption::new(self.kind.name, "pointer", Rule::Range).found(at.0).into()
    }

    fn remember(&mut self, at: Ptr) {
        let now = self.blocks.get(&at).map(|b| b.bytes.clone());
        self.before.entry(at).or_insert(now);
    }
}

impl Store for SmallTree {
    fn width(&self) -> Width {
        if self.layout.pointer == 4 { Width::Short } else { Width::Long }
    }
    fn block_type(&self) -> &'static BlockType {
        self.kind
    }
    fn layout(&self) -> Layout {
        self.layout
    }
    fn block_size(&self) -> usize {
        self.size
    }
    fn root(&self) -> Result<Root> {
        self.call()?;
        Ok(self.root.clone())
    }
    fn read(&self, at: Ptr, _: OnDamage, _: Keep) -> Result<BlockRef<'_>> {
        self.call()?;
        self.blocks.get(&at).map(BlockRef::Own).ok_or_else(|| self.missing(at))
    }
    fn locate(&self, c: Box<Corruption>, _: Option<Ptr>) -> Box<Corruption> {
        c
    }
}

impl StoreMut for SmallTree {
    fn identity(&self, at: Ptr) -> Result<Identity> {
        Ok(Identity { magic: 0x1234_5678, blkno: at.0 * 8, uuid: *b"sixteen octets..", owner: 7 })
    }
    fn reserve(&mut self, blocks: u32) -> Result<()> {
        self.call()?;
        if self.blocks.len() + blocks as usize > self.room {
            return Err(Error::unsupported("no space left"));
        }
        self.reserved = blocks;
        Ok(())
    }
    fn allocate(&mut self, _: Option<Ptr>) -> Result<Ptr> {
        self.call()?;
        self.reserved = self.reserved.checked_sub(1).expect("blocks are reserved before they are allocated");
        let at = Ptr(self.next);
        self.next += 1;
        self.remember(at);
        self.put(at, vec![0xa5; self.size].into());
        Ok(at)
    }
    fn free(&mut self, at: Ptr) -> Result<()> {
        self.call()?;
        self.remember(at);
        self.blocks.remove(&at).map(drop).ok_or_else(|| self.missing(at))
    }
    fn fresh(&mut self, at: Ptr, change: Change<'_>) -> Result<()> {
        self.update(at, change)
    }
    fn update(&mut self, at: Ptr, change: Change<'_>) -> Result<()> {
        self.call()?;
        self.remember(at);
        match self.blocks.get_mut(&at) {
            Some(block) => change(&mut block.bytes),
            None => Err(self.missing(at)),
        }
    }
    fn set_root(&mut self, root: Root) -> Result<()> {
        self.call()?;
        if let (Root::Inline(old), Root::Inline(new)) = (&self.root, &root) {
            assert_eq!(old.len(), new.len(), "bytes in the inode");
        }
        self.root = root;
        Ok(())
    }
    fn inline_records(&self) -> bool {
        self.inline_records
    }
    fn record_changed(&mut self, last: bool) -> Result<()> {
        self.call()?;
        self.told.0 += 1;
        self.told.1 += u64::from(last);
        Ok(())
    }
}
