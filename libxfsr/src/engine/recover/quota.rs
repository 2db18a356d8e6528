//! Quota records of the owners of what recovery frees. Linux counts them where the records are right when it mounts, and so does this; else they are counted anew
//! by the next mount that wants quota.

use crate::cache::{BlockKey, OnDamage};
use crate::error::{ForkKind, Result};
use crate::format::features::QuotaFlags;
use crate::format::inode::Dinode;
use crate::format::quota::{DiskDquot, SLOT_SIZE, slots_per_block};
use crate::inode::{Inode, fork};
use crate::quota::{Kind, Owners};
use crate::txn::Transaction;
use crate::units::{FsBlock, Ino};
use crate::volume::Volume;
use std::ops::ControlFlow;
use zerocopy::FromBytes;

/// Records that one inode is counted in.
pub(super) const RECORDS: u32 = 3;

/// The quota files whose records are right.
#[derive(Debug)]
pub(super) struct Quota(Vec<(Kind, Ino)>);

impl Quota {
    pub(super) fn of(volume: &Volume) -> Result<Self> {
        let flags = QuotaFlags::from_bits_retain(volume.superblock.qflags.get());
        let mut files = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|k| flags.contains(k.accounted() | k.counted())) {
            files.extend(kind.file(volume, OnDamage::Fail)?.map(|ino| (kind, ino)));
        }
        Ok(Self(files))
    }

    /// Takes blocks and inodes off the records of an inode's owners.
    pub(super) fn give_back(&self, t: &mut Transaction<'_>, owner: &Dinode, blocks: u64, inodes: u64) -> Result<()> {
        for (kind, file) in &self.0 {
            let id = Owners::of(owner).id(*kind);
            let Some((block, at)) = record(t.volume(), *file, id)? else { continue };
            if let Ok((d, _)) = DiskDquot::mut_from_prefix(t.dquot_mut(&block, at)?) {
                d.bcount.set(d.bcount.get().saturating_sub(blocks));
                d.icount.set(d.icount.get().saturating_sub(inodes));
                settle(d);
            }
        }
        Ok(())
    }
}

/// Who is below the limits again has as long as ever from the next time on.
fn settle(d: &mut DiskDquot) {
    let below = |n: u64, soft: u64, hard: u64| (soft == 0 || n <= soft) && (hard == 0 || n <= hard);
    if d.id.get() == 0 {
        return;
    }
    if below(d.bcount.get(), d.blk_softlimit.get(), d.blk_hardlimit.get()) {
        d.btimer.set(0);
    }
    if below(d.icount.get(), d.ino_softlimit.get(), d.ino_hardlimit.get()) {
        d.itimer.set(0);
    }
}

/// Where the record with that number stands; none where the file has no block for it.
fn record(volume: &Volume, file: Ino, id: u32) -> Result<Option<(BlockKey, usize)>> {
    let g = &volume.geometry;
    let each = slots_per_block(g.block_size as usize).max(1);
    let (block, slot) = (u64::from(id) / each as u64, id as usize % each);
    let inode = Inode::read(volume, file, OnDamage::Fail)?;
    let mut found = None;
    fork::extents(volume, file, &inode.bytes, ForkKind::Data, (block, block), &mut |e| {
        found = (!e.unwritten).then(|| FsBlock(e.start + (block - e.offset)));
        ControlFlow::Break(())
    })?;
    let at = found.and_then(|b| g.fsblock_to_daddr(b));
    Ok(at.map(|at| (BlockKey::one(volume.data, at, g.block_size / 512), slot * SLOT_SIZE)))
}
