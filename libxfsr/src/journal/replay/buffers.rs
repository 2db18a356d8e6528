//! The blocks that replay changes: read once, changed in memory, written when all checkpoints of one LSN are done.

use crate::error::{Corruption, Result, Rule};
use crate::format::inode::INODE_CLUSTER;
use crate::format::quota::DQUOT_BLOCK;
use crate::format::{BlockType, Context, dir, identify};
use crate::geometry::Geometry;
use crate::target::Target;
use crate::units::{BASIC_BLOCK, Daddr, Lsn};
use std::collections::BTreeMap;

/// Longest buffer in sectors: 64 KiB.
const MAX_SECTORS: u64 = 128;
/// Bytes that are kept after they were written, for items that come back to them.
const KEPT: usize = 64 << 20;
/// Bytes that one checkpoint may change in memory.
const MOST: usize = 256 << 20;

#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    dirty: bool,
    /// The type to seal it as; none where its parts carry their own checksums, or it is a part of something longer.
    seal: Option<&'static BlockType>,
}

impl Buffer {
    /// Writes it with the LSN that it has.
    fn write_as_it_is(&mut self, target: &dyn Target, at: u64) -> Result<()> {
        if !self.dirty {
            return Ok(());
        }
        if let Some(t) = self.seal {
            let lsn = (t.lsn)(&self.bytes).unwrap_or_default();
            (t.seal)(&mut self.bytes, lsn);
        }
        target.write_at(&self.bytes, at * BASIC_BLOCK)
    }
}

/// Buffers by address.
#[derive(Debug)]
pub(super) struct Buffers<'a> {
    target: &'a dyn Target,
    pub(super) geometry: &'a Geometry,
    by_address: BTreeMap<u64, Buffer>,
    bytes: usize,
    /// How many they may be before all are let go.
    most: usize,
}

impl<'a> Buffers<'a> {
    pub(super) fn new(target: &'a dyn Target, geometry: &'a Geometry) -> Self {
        Self { target, geometry, by_address: BTreeMap::new(), bytes: 0, most: MOST }
    }

    /// The bytes of a buffer, to be changed.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) where there can be no such buffer; an I/O error.
    pub(super) fn get(&mut self, at: Daddr, sectors: u64) -> Result<&mut Vec<u8>> {
        let bad = |field: &'static str| Corruption::new("log", field, Rule::Range).at_daddr(at);
        if sectors == 0 || sectors > MAX_SECTORS {
            return Err(bad("blf_len").found(sectors).expected(format_args!("1 to {MAX_SECTORS}")).into());
        }
        let len = sectors * BASIC_BLOCK;
        if at.bytes().saturating_add(len) > self.target.len() {
            return Err(bad("blkno").found(at).expected("inside the device").into());
        }
        self.drop_overlapping(at, sectors)?;
        if self.bytes > self.most {
            self.spill()?;
        }
        if !self.by_address.contains_key(&at.0) {
            let mut bytes = vec![0; len as usize];
            self.target.read_at(&mut bytes, at.bytes())?;
            self.bytes += bytes.len();
            self.by_address.insert(at.0, Buffer { bytes, dirty: false, seal: None });
        }
        match self.by_address.get_mut(&at.0) {
            Some(b) => Ok(&mut b.bytes),
            None => Err(bad("blkno").into()),
        }
    }

    /// A block that was freed may have come back with another length. The older buffer goes to the disk as it is.
    fn drop_overlapping(&mut self, at: Daddr, sectors: u64) -> Result<()> {
        let from = at.0.saturating_sub(MAX_SECTORS - 1);
        let other = |(start, b): (&u64, &Buffer)| {
            let end = start + b.bytes.len() as u64 / BASIC_BLOCK;
            let same = *start == at.0 && end == at.0 + sectors;
            (!same && end > at.0).then_some(*start)
        };
        let overlapping: Vec<u64> = self.by_address.range(from..at.0 + sectors).filter_map(other).collect();
        for start in overlapping {
            if let Some(mut b) = self.by_address.remove(&start) {
                self.bytes -= b.bytes.len();
                b.write_as_it_is(self.target, start)?;
            }
        }
        Ok(())
    }

    /// Lets all go in the middle of a checkpoint that changes more than memory is meant to hold. With the LSNs that they had the blocks
    /// are replayed again if this ends before its time.
    fn spill(&mut self) -> Result<()> {
        for (at, b) in &mut self.by_address {
            b.write_as_it_is(self.target, *at)?;
        }
        self.by_address.clear();
        self.bytes = 0;
        Ok(())
    }

    /// The LSN with which the block was last written; none where it is no block that has one, or is damaged. A write that was cut off
    /// leaves a block that is part old and part new, and all that was to be written is in the log still: such a block is damaged, and
    /// replayed.
    pub(super) fn written_with(&mut self, at: Daddr, sectors: u64) -> Result<Option<Lsn>> {
        let geometry = self.geometry;
        let bytes = self.get(at, sectors)?;
        let Some(t) = identify(bytes) else { return Ok(None) };
        let lsn = (t.lsn)(bytes).filter(|l| l.0 != 0 && l.0 != u64::MAX);
        Ok(lsn.filter(|_| (t.verify)(bytes, &Context::new(geometry, at)).is_ok()))
    }

    /// Marks a buffer as changed; it is sealed as what it is now, where the journal names that type.
    pub(super) fn changed(&mut self, at: Daddr, log_type: u8) {
        if let Some(b) = self.by_address.get_mut(&at.0) {
            b.dirty = true;
            b.seal = match log_type {
                t if t == INODE_CLUSTER.log_type || (1..=3).contains(&t) || t == DQUOT_BLOCK.log_type => None,
                // The pieces of a scattered directory block begin with anything, which may look like a magic number.
                t => identify(&b.bytes)
                    .filter(|k| k.log_type == t && (!dir::is_type(k) || dir::address_of(&b.bytes) == Some(at))),
            };
        }
    }

    /// Writes all that changed, with the LSN of the checkpoints that changed it.
    pub(super) fn write(&mut self, lsn: Lsn) -> Result<()> {
        for (at, b) in self.by_address.iter_mut().filter(|(_, b)| b.dirty) {
            if let Some(t) = b.seal {
                (t.seal)(&mut b.bytes, lsn);
            }
            self.target.write_at(&b.bytes, at * BASIC_BLOCK)?;
            b.dirty = false;
        }
        if self.bytes > KEPT {
            self.by_address.clear();
            self.bytes = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::Buffers;
    use crate::format::btree::{BMBT, BMBT_BLOCK, BMBT_MAGIC, LongHeader};
    use crate::geometry::Geometry;
    use crate::mkfs::{Devices, Options, plan};
    use crate::target::{Target, Xfile};
    use crate::units::{Daddr, FsBlock, Lsn};
    use zerocopy::FromBytes;

    /// Length of a block.
    const LENGTH: usize = 4096;
    /// The LSN with which the blocks of [`btree_block`] were written.
    const OLD: Lsn = Lsn::new(1, 7);

    /// A geometry, and a target that is long enough for its first AG.
    pub(in super::super) fn device() -> (Geometry, Xfile) {
        let target = Xfile::new("buffers").unwrap();
        target.set_len(300 << 20).unwrap();
        (plan(&Options::default(), &Devices::file(300 << 20)).unwrap().geometry, target)
    }

    pub(in super::super) fn address(g: &Geometry, block: u64) -> Daddr {
        g.fsblock_to_daddr(FsBlock(block)).unwrap()
    }

    /// Puts a block of an extent btree there, which belongs to inode 1.
    pub(in super::super) fn btree_block(g: &Geometry, target: &Xfile, block: u64, level: u16, pointers: &[u64]) {
        let mut bytes = vec![0; LENGTH];
        let (header, _) = LongHeader::mut_from_prefix(&mut bytes).unwrap();
        header.magic.set(BMBT_MAGIC);
        header.level.set(level);
        header.numrecs.set(pointers.len().try_into().unwrap());
        header.blkno.set(address(g, block).0);
        header.owner.set(1);
        let from = BMBT.header + BMBT.node_max(LENGTH) * BMBT.key;
        for (to, pointer) in bytes[from..].chunks_mut(8).zip(pointers) {
            to.copy_from_slice(&pointer.to_be_bytes());
        }
        (BMBT_BLOCK.seal)(&mut bytes, OLD);
        target.write_at(&bytes, address(g, block).bytes()).unwrap();
    }

    /// Owner and LSN of such a block.
    pub(in super::super) fn owner_and_lsn(g: &Geometry, target: &Xfile, block: u64) -> (u64, Lsn) {
        let mut bytes = vec![0; LENGTH];
        target.read_at(&mut bytes, address(g, block).bytes()).unwrap();
        let (header, _) = LongHeader::ref_from_prefix(&bytes).unwrap();
        (header.owner.get(), Lsn(header.lsn.get()))
    }

    #[test]
    fn what_is_too_much_for_memory_goes_to_the_disk_as_not_replayed_yet() {
        let (g, target) = device();
        let blocks = 1000..1010;
        blocks.clone().for_each(|b| btree_block(&g, &target, b, 0, &[]));
        let mut buffers = Buffers::new(&target, &g);
        buffers.most = 2 * LENGTH;
        for b in blocks.clone() {
            let bytes = buffers.get(address(&g, b), 8).unwrap();
            LongHeader::mut_from_prefix(bytes).unwrap().0.owner.set(b);
            buffers.changed(address(&g, b), BMBT_BLOCK.log_type);
            assert!(buffers.bytes <= 3 * LENGTH, "{} bytes are held", buffers.bytes);
        }
        // Changed, with the LSN of before: if replay ended here, it would begin with them again.
        assert_eq!(owner_and_lsn(&g, &target, 1000), (1000, OLD));
        let new = Lsn::new(2, 9);
        buffers.write(new).unwrap();
        let after: Vec<(u64, Lsn)> = blocks.clone().map(|b| owner_and_lsn(&g, &target, b)).collect();
        let expected: Vec<(u64, Lsn)> = blocks.map(|b| (b, if b < 1009 { OLD } else { new })).collect();
        assert_eq!(after, expected);
    }
}
