//! Inodes and quota records of a transaction: copies, which commit puts into their blocks.

use super::buffer::set_chunk;
use super::item::{ItemKey, LogItem, RegionWriter};
use super::{InodeLock, Transaction};
use crate::cache::{BlockKey, BlockWrite, OnDamage, Want};
use crate::error::{Error, Result};
use crate::format::Context;
use crate::format::inode::{Dinode, INODE_CLUSTER, NEXT_UNLINKED_OFFSET, init_free, verify_dinode};
use crate::format::log::items::{BUF_CHUNK, DquotFormat, IcreateFormat, ItemType};
use crate::format::quota::{DQUOT_BLOCK, DiskDquot, SLOT_SIZE};
use crate::units::{AgBlock, AgNumber, Daddr, Ino, NULL_AGINO};
use std::collections::{BTreeMap, BTreeSet};
use zerocopy::little_endian::{I32, I64, U16, U32};
use zerocopy::{FromZeros, IntoBytes};

/// An inode that a transaction works on.
#[derive(Debug)]
pub(super) struct Working {
    pub(super) cluster: BlockKey,
    pub(super) at: usize,
    pub(super) before: Vec<u8>,
    pub(super) bytes: Vec<u8>,
}

/// A new value of an inode's pointer to the next unlinked one.
#[derive(Debug)]
pub(super) struct Pointer {
    pub(super) cluster: BlockKey,
    /// The inode's first byte in its cluster.
    pub(super) at: usize,
    pub(super) next: u32,
}

/// A quota record that a transaction works on.
#[derive(Debug)]
pub(super) struct Dquot {
    pub(super) before: Vec<u8>,
    pub(super) bytes: Vec<u8>,
}

/// A new chunk of inodes, or a part of one.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    ag: AgNumber,
    at: AgBlock,
    blocks: u32,
    generation: u32,
    inode_size: u32,
    inodes: u32,
}

/// Inode clusters as such, which are locked at the end of a transaction.
#[derive(Debug, Default)]
pub(super) struct LateBlocks {
    /// Made new: the cluster's first inode, and the generation.
    pub(super) made: BTreeMap<BlockKey, (Ino, u32)>,
    pub(super) freed: BTreeSet<BlockKey>,
}

impl LateBlocks {
    pub(super) fn free(&mut self, key: &BlockKey) {
        self.freed.insert(key.clone());
    }
}

impl LogItem for Chunk {
    fn key(&self) -> ItemKey {
        ItemKey::Chunk(self.ag, self.at)
    }
    fn format(&self, _covered: &[u32], out: &mut RegionWriter) -> Vec<u32> {
        let mut f = IcreateFormat::new_zeroed();
        f.kind.set(ItemType::Icreate as u16);
        f.size.set(1);
        f.ag.set(self.ag.0);
        f.agbno.set(self.at.0);
        f.count.set(self.inodes);
        f.isize.set(self.inode_size);
        f.length.set(self.blocks);
        f.generation.set(self.generation);
        out.region(&[f.as_bytes()]);
        Vec::new()
    }
}

/// A quota record as it is to be logged.
pub(super) struct DquotItem<'a> {
    pub(super) block: &'a BlockKey,
    pub(super) at: usize,
    pub(super) bytes: &'a [u8],
    /// Blocks of the filesystem that its block takes.
    pub(super) blocks: u32,
}

impl LogItem for DquotItem<'_> {
    fn key(&self) -> ItemKey {
        ItemKey::Dquot(self.block.clone(), self.at)
    }
    fn format(&self, _covered: &[u32], out: &mut RegionWriter) -> Vec<u32> {
        let record = self.bytes.get(..size_of::<DiskDquot>()).unwrap_or(self.bytes);
        let id = zerocopy::FromBytes::read_from_prefix(record).map_or(0, |(d, _): (DiskDquot, _)| d.id.get());
        let format = DquotFormat {
            kind: U16::new(ItemType::Dquot as u16),
            size: U16::new(2),
            id: U32::new(id),
            blkno: I64::new(self.block.daddr().0 as i64),
            len: I32::new(self.blocks as i32),
            boffset: U32::new(self.at as u32),
        };
        out.region(&[format.as_bytes()]);
        out.region(&[record]);
        Vec::new()
    }
}

/// Chunks of a cluster in which the unlinked pointers of those inodes stand.
pub(super) fn unlinked_chunks(len: usize, inodes: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut map = vec![0; len.div_ceil(BUF_CHUNK).div_ceil(32)];
    inodes.for_each(|at| set_chunk(&mut map, (at + NEXT_UNLINKED_OFFSET) / BUF_CHUNK));
    map
}

/// Fills a new cluster with free inodes.
pub(super) fn fill_cluster(block: &mut BlockWrite, first: Ino, generation: u32, inode_size: u32, uuid: &[u8; 16]) {
    for (inode, n) in block.bytes.chunks_mut(inode_size as usize).zip(first.0..) {
        init_free(inode, Ino(n), generation, uuid);
    }
    (block.kind, block.owner, block.damage) = (&INODE_CLUSTER, None, None);
    block.objects.clear();
}

impl<'s> Transaction<'s> {
    /// Locks an inode until the end, the whole chain of deferred steps included. Who locks several does so in ascending order.
    pub fn lock_inode(&mut self, ino: Ino) {
        let locks = self.scope.locks();
        self.locks.entry(ino).or_insert_with(|| Some(locks.lock(ino)));
    }

    /// Works under a lock that the caller keeps.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a lock that does not allow changes.
    pub fn adopt(&mut self, lock: &'s InodeLock) -> Result<()> {
        if !lock.is_exclusive() {
            return Err(Error::invalid(format!("inode {} is locked by readers", lock.ino())));
        }
        self.locks.entry(lock.ino()).or_insert(None);
        Ok(())
    }

    /// Keeps a lock until the end, the whole chain of deferred steps included.
    ///
    /// # Errors
    /// As [`Transaction::adopt`].
    pub fn keep(&mut self, lock: InodeLock) -> Result<()> {
        if !lock.is_exclusive() {
            return Err(Error::invalid(format!("inode {} is locked by readers", lock.ino())));
        }
        self.locks.entry(lock.ino()).or_insert(Some(lock));
        Ok(())
    }

    fn working(&mut self, ino: Ino) -> Result<&mut Working> {
        if !self.inodes.contains_key(&ino) {
            let (cluster, at) = self.volume().inode_cluster(ino)?;
            self.lock_inode(ino);
            let g = self.geometry();
            let size = g.inode_size as usize;
            let mut bytes = vec![0; size];
            if let Some((_, generation)) = self.late.made.get(&cluster) {
                init_free(&mut bytes, ino, *generation, &g.meta_uuid);
            } else {
                let block = self.volume().cache.read(&cluster, &Want::new(&INODE_CLUSTER, OnDamage::Fail), g)?;
                let inode = block.bytes().get(at..at + size);
                bytes.copy_from_slice(inode.ok_or_else(|| Error::NotFound(format!("inode {ino}")))?);
                drop(block);
                let place = Daddr(cluster.daddr().0 + at as u64 / 512);
                verify_dinode(&bytes, ino, &Context::new(g, place))?;
            }
            if let Some(p) = self.pointers.get(&ino)
                && let Some(d) = Dinode::from_bytes_mut(&mut bytes)
            {
                d.next_unlinked.set(p.next);
            }
            let before = bytes.clone();
            self.inodes.insert(ino, Working { cluster, at, before, bytes });
        }
        self.inodes.get_mut(&ino).ok_or_else(|| Error::NotFound(format!("inode {ino}")))
    }

    /// The bytes of an inode, core and forks, locked from now on. Its LSN and checksum mean nothing here.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a number that cannot exist; a damaged inode; I/O errors.
    pub fn inode(&mut self, ino: Ino) -> Result<&[u8]> {
        Ok(&self.working(ino)?.bytes)
    }

    /// The bytes of an inode, to change. What differs at the end is logged, and unless that was done already, the change counter of an inode in use is raised. The
    /// pointer to the next unlinked inode is not changed so: [`Transaction::set_next_unlinked`].
    ///
    /// # Errors
    /// As [`Transaction::inode`].
    pub fn inode_mut(&mut self, ino: Ino) -> Result<&mut [u8]> {
        Ok(&mut self.working(ino)?.bytes)
    }

    /// An inode's pointer to the next unlinked one. The AGI of its AG must be joined: it guards the lists, not the locks of the inodes on them, which are
    /// not taken, for their order is any.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a number that cannot exist; a cluster that cannot be read.
    pub fn next_unlinked(&self, ino: Ino) -> Result<u32> {
        if let Some(p) = self.pointers.get(&ino) {
            return Ok(p.next);
        }
        let (cluster, at) = self.volume().inode_cluster(ino)?;
        if self.late.made.contains_key(&cluster) {
            return Ok(NULL_AGINO);
        }
        let want = Want::new(&INODE_CLUSTER, OnDamage::Fail);
        let block = self.volume().cache.read(&cluster, &want, self.geometry())?;
        let core = block.bytes().get(at..).and_then(Dinode::from_bytes);
        core.map(|d| d.next_unlinked.get()).ok_or_else(|| Error::NotFound(format!("inode {ino}")))
    }

    /// Changes an inode's pointer to the next unlinked one. It is logged with the cluster, not with the inode; as
    /// [`Transaction::next_unlinked`] this takes no lock of the inode.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a number that cannot exist.
    pub fn set_next_unlinked(&mut self, ino: Ino, next: u32) -> Result<()> {
        let (cluster, at) = self.volume().inode_cluster(ino)?;
        if let Some(d) = self.inodes.get_mut(&ino).and_then(|w| Dinode::from_bytes_mut(&mut w.bytes)) {
            d.next_unlinked.set(next);
        }
        self.pointers.insert(ino, Pointer { cluster, at, next });
        Ok(())
    }

    /// A quota record (its whole slot), at that byte of its block, to change. The caller has locked it.
    ///
    /// # Errors
    /// As [`BufCache::read`](crate::cache::BufCache::read); a slot outside its block.
    pub fn dquot_mut(&mut self, block: &BlockKey, at: usize) -> Result<&mut [u8]> {
        let key = (block.clone(), at);
        if !self.dquots.contains_key(&key) {
            let read = self.read(block, &Want::new(&DQUOT_BLOCK, OnDamage::Fail))?;
            let slot = read.get(at..at.saturating_add(SLOT_SIZE)).map(<[u8]>::to_vec);
            let bytes = slot.ok_or_else(|| Error::NotFound(format!("quota record at byte {at}")))?;
            drop(read);
            self.dquots.insert(key.clone(), Dquot { before: bytes.clone(), bytes });
        }
        match self.dquots.get_mut(&key) {
            Some(d) => Ok(&mut d.bytes),
            None => Err(Error::NotFound(format!("quota record at byte {at}"))),
        }
    }

    /// Makes free inodes in `blocks` blocks, a whole chunk or a part of a sparse one. They are logged as one item that says so, not by
    /// their bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] where those blocks cannot be whole clusters.
    pub fn create_chunk(&mut self, ag: AgNumber, at: AgBlock, blocks: u32, generation: u32) -> Result<()> {
        let g = self.geometry();
        let step = g.cluster_blocks();
        let whole = blocks > 0 && blocks.is_multiple_of(step) && at.0.is_multiple_of(step.min(g.cluster_align()));
        if !whole || !g.is_valid_agextent(ag, at, blocks) {
            return Err(Error::invalid(format!("{blocks} blocks at {at} of AG {ag} are no clusters of inodes")));
        }
        for n in (0..blocks).step_by(step as usize) {
            let block = AgBlock(at.0 + n);
            let key = BlockKey::one(self.volume().data, g.agbno_to_daddr(ag, block), step << g.bb_shift());
            self.late.freed.remove(&key);
            self.late.made.insert(key, (g.join_ino(ag, g.block_to_agino(block)), generation));
        }
        let inodes = blocks << g.inopb_log;
        self.items.push(Box::new(Chunk { ag, at, blocks, generation, inode_size: g.inode_size, inodes }));
        Ok(())
    }
}
