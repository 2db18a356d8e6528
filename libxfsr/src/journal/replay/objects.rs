//! Replay of what is neither a buffer nor an inode in use: new chunks of inodes and quota records.

use super::Replay;
use super::inode::{daddr, length};
use crate::error::{Corruption, Result, Rule};
use crate::format::inode::{INODE_CLUSTER, init_free};
use crate::format::log::items::{DquotFormat, IcreateFormat};
use crate::format::quota::{self, DQUOT_BLOCK, DquotSlot, SLOT_SIZE};
use crate::format::seal_checksum;
use crate::journal::Item;
use crate::units::{AgBlock, AgNumber, Daddr, Ino, Lsn};
use zerocopy::FromBytes;

fn bad(field: &'static str, rule: Rule) -> Box<Corruption> {
    Corruption::new("log", field, rule)
}

impl Replay<'_> {
    /// Makes the free inodes of a new chunk. Nothing on the disk tells whether that was done already; it is right all the same, as
    /// every inode that came to use since is in the log behind it.
    pub(super) fn chunk(&mut self, item: &Item<'_>) -> Result<()> {
        let g = self.buffers.geometry;
        let first = item.regions.first().map_or(&[][..], Vec::as_slice);
        let (f, _) = IcreateFormat::read_from_prefix(first).map_err(|_| bad("icreate", Rule::Truncated))?;
        let (ag, at, blocks) = (AgNumber(f.ag.get()), AgBlock(f.agbno.get()), f.length.get());
        let inodes = u64::from(blocks) << g.block_log >> g.inode_size.trailing_zeros();
        let right = ag.0 < g.ag_count
            && g.is_valid_agextent(ag, at, blocks)
            && f.isize.get() == g.inode_size
            && u64::from(f.count.get()) == inodes
            && (1..=64.max(g.inodes_per_block())).contains(&f.count.get());
        if !right {
            let found = format_args!("{} inodes in {blocks} blocks at {at} of AG {ag}", f.count);
            return Err(bad("icreate", Rule::Range).found(found).into());
        }
        let step = g.cluster_blocks().min(blocks.max(1));
        let sectors = u64::from(step) << g.bb_shift();
        let clusters: Vec<(AgBlock, Daddr)> =
            (0..blocks / step).map(|i| AgBlock(at.0 + i * step)).map(|b| (b, g.agbno_to_daddr(ag, b))).collect();
        if clusters.iter().any(|(_, at)| self.is_cancelled(*at, sectors)) {
            self.done.cancelled += 1;
            return Ok(());
        }
        for (block, at) in clusters {
            let base = g.join_ino(ag, g.block_to_agino(block));
            let bytes = self.buffers.get(at, sectors)?;
            for (inode, n) in bytes.chunks_mut(g.inode_size as usize).zip(0..) {
                init_free(inode, Ino(base.0 + n), f.generation.get(), &g.meta_uuid);
            }
            self.buffers.changed(at, INODE_CLUSTER.log_type);
        }
        self.done.chunks += 1;
        Ok(())
    }

    /// Puts a quota record back.
    pub(super) fn dquot(&mut self, item: &Item<'_>) -> Result<()> {
        let [first, record] = item.regions else { return Ok(()) };
        let (f, _) = DquotFormat::read_from_prefix(first).map_err(|_| bad("dquot", Rule::Truncated))?;
        // Unlike all others this length counts filesystem blocks: observed, Linux 6.12.
        let (at, blocks) = (daddr(f.blkno.get())?, length(f.len.get())?);
        let sectors = blocks << self.buffers.geometry.bb_shift();
        if self.is_cancelled(at, sectors) {
            self.done.cancelled += 1;
            return Ok(());
        }
        let buffer = self.buffers.get(at, sectors)?;
        let offset = f.boffset.get() as usize;
        let Some(slot) = buffer.get_mut(offset..offset.saturating_add(SLOT_SIZE)) else {
            return Err(bad("boffset", Rule::Range).at_daddr(at).found(offset).into());
        };
        let newer = DquotSlot::ref_from_bytes(slot).is_ok_and(|s| {
            let lsn = s.lsn.get();
            let whole =
                s.diskdq.magic.get() == quota::MAGIC && crate::format::checksum(slot, quota::CRC_OFFSET) == s.crc.get();
            whole && lsn != 0 && lsn != u64::MAX && Lsn(lsn) > item.lsn
        });
        if newer {
            self.done.newer += 1;
            return Ok(());
        }
        let record = record.get(..size_of::<quota::DiskDquot>()).unwrap_or(record);
        if let Some(to) = slot.get_mut(..record.len()) {
            to.copy_from_slice(record);
        }
        seal_checksum(slot, quota::CRC_OFFSET);
        self.buffers.changed(at, DQUOT_BLOCK.log_type);
        self.done.dquots += 1;
        Ok(())
    }
}
