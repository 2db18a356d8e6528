//! Btrees in memory, of any kind: pages of an [`Xfile`], with long pointers. What a repair gathers and looks up again.

use super::{Bytes, Change, Kind, Ptr, Root, Store, StoreMut, Width, bulk};
use crate::cache::{BlockKey, BlockRef, BufCache, Checkpoint, Keep, NoLog, OnDamage, TargetId, Want};
use crate::error::{Corruption, Error, Result, Rule, Verdict};
use crate::format::btree::{Identity, Layout, LongHeader};
use crate::format::{BlockType, Context, check_address, check_magic, view};
use crate::geometry::Geometry;
use crate::target::{Target, Xfile};
use crate::units::Daddr;
use std::sync::Arc;

/// Bytes of a block: a page.
pub const BLOCK: usize = 4096;
/// `XFMT`: found in memory only.
const MAGIC: u32 = 0x5846_4d54;
/// Bytes of blocks that are kept beside the xfile, which is memory itself.
const CACHE: usize = 8 << 20;
/// Changes between two times that the cache gives its blocks to the xfile.
const WRITE_BACK: u32 = 512;

fn verify(bytes: &[u8], at: &Context<'_>) -> Verdict {
    let header: &LongHeader = view("membt", bytes, at)?;
    check_magic("membt", header.magic.get(), MAGIC, at)?;
    check_address("membt", "bno", header.blkno.get(), at)
}

/// What such a block must look like. It has no checksum: it does not outlive the process.
static MEM_BLOCK: BlockType = BlockType { name: "membt", log_type: 0, lsn: |_| None, verify, seal: |_, _| () };

/// A tree in memory.
///
/// A change that fails in the middle, as when memory ends, leaves it unusable: there is no transaction to cancel.
///
/// # Examples
/// ```
/// use libxfsr::btree::{Position, kinds::Bno, mem::MemTree};
/// use libxfsr::format::btree::AllocRec;
/// # use libxfsr::{mkfs, geometry::Geometry};
/// # let geometry = Geometry::new(&mkfs::plan(&mkfs::Options::default(), &mkfs::Devices::file(1 << 30))?.superblock)?;
/// let mut tree = MemTree::new::<Bno>("free space", &geometry)?;
/// let free = AllocRec { startblock: 7.into(), blockcount: 3.into() };
/// Position::<Bno>::insert(&mut tree, &free)?;
/// assert_eq!(Position::<Bno>::last(&tree)?.map(|p| p.record(&tree)).transpose()?.flatten(), Some(free));
/// # Ok::<(), libxfsr::Error>(())
/// ```
#[derive(Debug)]
pub struct MemTree {
    geometry: Geometry,
    file: Arc<Xfile>,
    cache: BufCache,
    target: TargetId,
    layout: Layout,
    root: Root,
    /// Blocks that the file has, used or not.
    length: u64,
    unused: Vec<Ptr>,
    changes: u32,
}

/// Sizes in a block: header, records, one key or two, pointers.
const fn layout<R: Bytes, K: Bytes>(overlapping: bool) -> Layout {
    let key = if overlapping { 2 * size_of::<K>() } else { size_of::<K>() };
    Layout { header: size_of::<LongHeader>(), record: size_of::<R>(), key, pointer: 8 }
}

impl MemTree {
    /// An empty tree.
    ///
    /// # Errors
    /// When memory cannot be had; [`Error::Invalid`] for records of which few fit into a page.
    pub fn new<K: Kind>(name: &str, geometry: &Geometry) -> Result<Self> {
        Self::in_file::<K>(Xfile::new(name)?, geometry)
    }

    /// An empty tree in a file of its own.
    ///
    /// # Errors
    /// As [`MemTree::new`].
    pub fn in_file<K: Kind>(file: Xfile, geometry: &Geometry) -> Result<Self> {
        let layout = layout::<K::Record, K::Key>(K::OVERLAPPING);
        if layout.leaf_max(BLOCK) < 4 || layout.node_max(BLOCK) < 4 {
            return Err(Error::invalid("records that are too large for a btree in memory"));
        }
        let (file, cache) = (Arc::new(file), BufCache::new(CACHE));
        let target = cache.attach(file.clone(), Arc::new(NoLog))?;
        let root = Root::Block { at: Ptr(0), levels: 1 };
        let (length, unused, changes) = (0, Vec::new(), 0);
        let mut tree = Self { geometry: geometry.clone(), file, cache, target, layout, root, length, unused, changes };
        let plan = bulk::Plan::new(&tree, 0, bulk::Slack::default())?;
        bulk::load::<K, Self>(&mut tree, &plan, [])?;
        Ok(tree)
    }

    /// Blocks that it has.
    pub fn blocks(&self) -> u64 {
        self.length.saturating_sub(self.unused.len() as u64)
    }

    fn key(&self, at: Ptr) -> Result<BlockKey> {
        if at.0 >= self.length {
            let c = Corruption::new("membt", "pointer", Rule::Range).found(at.0);
            return Err(c.expected(format_args!("less than {}", self.length)).into());
        }
        let sectors = BLOCK as u32 / 512;
        Ok(BlockKey::one(self.target, Daddr(at.0 * u64::from(sectors)), sectors))
    }

    fn want(damage: OnDamage, keep: Keep) -> Want {
        Want::new(&MEM_BLOCK, damage).keep(keep)
    }

    /// Counts changes: what is dirty stays in the cache, so now and then it is given to the file.
    fn changed(&mut self) -> Result<()> {
        self.changes += 1;
        if self.changes < WRITE_BACK {
            return Ok(());
        }
        self.changes = 0;
        self.cache.write_back(None)
    }
}

impl Store for MemTree {
    fn width(&self) -> Width {
        Width::Long
    }
    fn block_type(&self) -> &'static BlockType {
        &MEM_BLOCK
    }
    fn layout(&self) -> Layout {
        self.layout
    }
    fn block_size(&self) -> usize {
        BLOCK
    }
    fn root(&self) -> Result<Root> {
        Ok(self.root.clone())
    }
    fn read(&self, at: Ptr, damage: OnDamage, keep: Keep) -> Result<BlockRef<'_>> {
        Ok(self.cache.read(&self.key(at)?, &Self::want(damage, keep), &self.geometry)?.into())
    }
    fn locate(&self, c: Box<Corruption>, _at: Option<Ptr>) -> Box<Corruption> {
        c
    }
}

impl StoreMut for MemTree {
    fn identity(&self, at: Ptr) -> Result<Identity> {
        let blkno = at.0.saturating_mul(BLOCK as u64 / 512);
        Ok(Identity { magic: MAGIC, blkno, uuid: self.geometry.meta_uuid, owner: 0 })
    }
    fn reserve(&mut self, _blocks: u32) -> Result<()> {
        Ok(())
    }
    fn allocate(&mut self, _near: Option<Ptr>) -> Result<Ptr> {
        if let Some(at) = self.unused.pop() {
            return Ok(at);
        }
        let at = Ptr(self.length);
        self.length += 1;
        Ok(at)
    }
    fn free(&mut self, at: Ptr) -> Result<()> {
        let key = self.key(at)?;
        self.cache.invalidate(&key);
        self.file.punch(key.daddr().bytes(), BLOCK as u64)?;
        self.unused.push(at);
        Ok(())
    }
    fn fresh(&mut self, at: Ptr, change: Change<'_>) -> Result<()> {
        let key = self.key(at)?;
        change(&mut self.cache.fresh(&key, &Self::want(OnDamage::Fail, Keep::Yes)).bytes)?;
        self.changed()
    }
    fn update(&mut self, at: Ptr, change: Change<'_>) -> Result<()> {
        let key = self.key(at)?;
        {
            let mut block = self.cache.write(&key, &Self::want(OnDamage::Fail, Keep::Yes), &self.geometry)?;
            block.changed(Checkpoint::default());
            change(&mut block.bytes)?;
        }
        self.changed()
    }
    fn set_root(&mut self, root: Root) -> Result<()> {
        self.root = root;
        Ok(())
    }
}
