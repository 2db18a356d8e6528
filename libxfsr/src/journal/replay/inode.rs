//! Replay of inodes: the core comes in the byte order of the machine that wrote it, forks as they are on disk, roots of extent
//! btrees as full blocks.

use super::Replay;
use super::buffers::Buffers;
use crate::error::{Corruption, ForkKind, Result, Rule};
use crate::format::btree::{
    BMBT, BMBT_BLOCK, BMBT_MAGIC, InodeRoot, Layout, LongHeader, MAX_LEVELS, RTREFCOUNT, RTRMAP,
};
use crate::format::inode::{
    CRC_OFFSET, Dinode, FileKind, Fork, INODE_CLUSTER, MAGIC, MetaType, fork_bytes, fork_bytes_mut, root_in_fork,
    root_pointers_offset, seal_dinode,
};
use crate::format::log::items::{InodeFields, InodeFormat, LogDinode, inode_item};
use crate::format::{checksum, da, stored_checksum};
use crate::geometry::Geometry;
use crate::journal::Item;
use crate::units::{BASIC_BLOCK, Daddr, FsBlock, Ino, Lsn};
use std::collections::HashSet;
use zerocopy::FromBytes;
use zerocopy::big_endian::U64;

fn bad(field: &'static str, rule: Rule) -> Box<Corruption> {
    Corruption::new("log", field, rule)
}

/// Writes a logged btree root, a block with header, records or keys and pointers, into a fork.
fn put_root(block: &[u8], fork: &mut [u8], layout: &Layout) -> Result<()> {
    let short = || bad("broot", Rule::Truncated).found(format_args!("{} bytes", block.len()));
    let (header, rest) = LongHeader::ref_from_prefix(block).map_err(|_| short())?;
    let (n, level) = (usize::from(header.numrecs.get()), header.level.get());
    let head = size_of::<InodeRoot>();
    let mut root = [0; size_of::<InodeRoot>()];
    if let Ok(r) = InodeRoot::mut_from_bytes(&mut root) {
        r.level.set(level);
        r.numrecs.set(header.numrecs.get());
    }
    let room = fork.len().saturating_sub(head);
    let (max, parts) = if level == 0 {
        let records = rest.get(..n * layout.record).ok_or_else(short)?;
        (room / layout.record, [(0, &root[..]), (head, records), (head, &[])])
    } else {
        let from = rest.len() / (layout.key + layout.pointer) * layout.key;
        let keys = rest.get(..n * layout.key).ok_or_else(short)?;
        let pointers = rest.get(from..from + n * layout.pointer).ok_or_else(short)?;
        let max = room / (layout.key + layout.pointer);
        (max, [(0, &root[..]), (head, keys), (root_pointers_offset(layout, fork.len()), pointers)])
    };
    if n > max {
        return Err(bad("broot", Rule::Range).found(n).expected(format_args!("at most {max} entries")).into());
    }
    for (at, bytes) in parts {
        fork.get_mut(at..at + bytes.len()).ok_or_else(short)?.copy_from_slice(bytes);
    }
    Ok(())
}

/// Writes a logged fork into the inode.
fn put_fork(inode: &mut [u8], kind: ForkKind, region: &[u8], root: bool) -> Result<()> {
    let layout = match Dinode::from_bytes(inode).and_then(Dinode::metatype) {
        Some(MetaType::RtRmap) => RTRMAP,
        Some(MetaType::RtRefcount) => RTREFCOUNT,
        _ => BMBT,
    };
    let fork = fork_bytes_mut(inode, kind);
    if root {
        return put_root(region, fork, &layout);
    }
    let room = fork.len();
    let Some(to) = fork.get_mut(..region.len()) else {
        let found = format_args!("{} bytes", region.len());
        return Err(bad("fork", Rule::Range).found(found).expected(format_args!("at most {room}")).into());
    };
    to.copy_from_slice(region);
    Ok(())
}

/// The inode's bytes after the item.
fn apply(inode: &mut [u8], format: &InodeFormat, regions: &[Vec<u8>], lsn: Lsn) -> Result<()> {
    let fields = InodeFields::from_bits_retain(format.fields.get());
    let Some((first, forks)) = regions.split_first() else { return Ok(()) };
    let (log, _) = LogDinode::ref_from_prefix(first).map_err(|_| bad("core", Rule::Truncated).found(first.len()))?;
    let next_unlinked = Dinode::from_bytes(inode).map_or(u32::MAX, |d| d.next_unlinked.get());
    if let Some(d) = Dinode::from_bytes_mut(inode) {
        *d = log.to_disk(next_unlinked, lsn);
    }
    let mut forks = forks.iter();
    let mut next = |any: InodeFields| if fields.intersects(any) { forks.next() } else { None };
    if let Some(region) = next(InodeFields::DDATA | InodeFields::DEXT | InodeFields::DBROOT) {
        put_fork(inode, ForkKind::Data, region, fields.contains(InodeFields::DBROOT))?;
    }
    if fields.contains(InodeFields::DEV)
        && let Some(word) = format.u.first_chunk::<4>()
    {
        let number = zerocopy::little_endian::U32::from_bytes(*word).get();
        put_fork(inode, ForkKind::Data, &zerocopy::big_endian::U32::new(number).to_bytes(), false)?;
    }
    if let Some(region) = next(InodeFields::ADATA | InodeFields::AEXT | InodeFields::ABROOT) {
        put_fork(inode, ForkKind::Attr, region, fields.contains(InodeFields::ABROOT))?;
    }
    seal_dinode(inode, lsn);
    Ok(())
}

impl Replay<'_> {
    /// Replays an inode item.
    pub(super) fn inode(&mut self, item: &Item<'_>) -> Result<()> {
        let Some((first, rest)) = item.regions.split_first() else { return Ok(()) };
        let format = inode_item(first)?;
        let (at, sectors) = (daddr(format.blkno.get())?, length(format.len.get())?);
        if self.is_cancelled(at, sectors) {
            self.done.cancelled += 1;
            return Ok(());
        }
        let core = rest.first().and_then(|core| LogDinode::ref_from_prefix(core).ok());
        if core.is_some_and(|(c, _)| FileKind::from_mode(c.mode.get()) == Some(FileKind::Directory)) {
            self.directories.insert(Ino(format.ino.get()));
        }
        let size = self.buffers.geometry.inode_size as usize;
        let ino = Ino(format.ino.get());
        let place = |c: Box<Corruption>| c.at_daddr(at).in_inode(ino);
        let buffer = self.buffers.get(at, sectors)?;
        let offset = usize::try_from(format.boffset.get()).unwrap_or(usize::MAX);
        let range = offset..offset.saturating_add(size);
        let Some(inode) = buffer.get_mut(range).filter(|_| offset.is_multiple_of(size)) else {
            return Err(place(bad("boffset", Rule::Range).found(offset)).into());
        };
        let Some(disk) = Dinode::from_bytes(inode).filter(|d| d.magic.get() == MAGIC) else {
            return Err(place(bad("inode", Rule::Magic).expected("an inode where the journal has one")).into());
        };
        let written = Lsn(disk.lsn.get());
        let torn = checksum(inode, CRC_OFFSET) != stored_checksum(inode, CRC_OFFSET);
        if !torn && written.0 != 0 && written.0 != u64::MAX && written > item.lsn {
            self.done.newer += 1;
        } else {
            apply(inode, &format, rest, item.lsn).map_err(|e| match e {
                crate::Error::Corrupt(c) => place(c).into(),
                e => e,
            })?;
            self.buffers.changed(at, INODE_CLUSTER.log_type);
            self.done.inodes += 1;
        }
        // A change of owner is done even where the inode is newer: its blocks need not be.
        let fields = InodeFields::from_bits_retain(format.fields.get());
        for (flag, kind) in [(InodeFields::DOWNER, ForkKind::Data), (InodeFields::AOWNER, ForkKind::Attr)] {
            if fields.contains(flag) {
                let inode = self.buffers.get(at, sectors)?.get(offset..offset + size).unwrap_or(&[]).to_vec();
                change_owner(&mut self.buffers, &inode, ino, kind)?;
            }
        }
        Ok(())
    }
}

/// A disk address of the journal.
pub(super) fn daddr(raw: i64) -> Result<Daddr> {
    match u64::try_from(raw) {
        Ok(at) => Ok(Daddr(at)),
        Err(_) => Err(bad("blkno", Rule::Range).found(raw).expected("an address").into()),
    }
}

/// A length of the journal, in sectors.
pub(super) fn length(raw: i32) -> Result<u64> {
    match u64::try_from(raw) {
        Ok(n) => Ok(n),
        Err(_) => Err(bad("len", Rule::Range).found(raw).expected("a length").into()),
    }
}

/// Gives the blocks of a fork's btree to this inode.
fn change_owner(buffers: &mut Buffers<'_>, inode: &[u8], ino: Ino, kind: ForkKind) -> Result<()> {
    let geometry: &Geometry = buffers.geometry;
    let Ok(Fork::Btree(_)) = Fork::of(inode, kind) else { return Ok(()) };
    let root = root_in_fork(fork_bytes(inode, kind), &BMBT)?;
    let sectors = u64::from(geometry.block_size) / BASIC_BLOCK;
    let mut level = root.level.min(u16::from(MAX_LEVELS));
    let mut blocks: Vec<u64> = root.pointers.iter().map(|p| p.get()).collect();
    // A tree holds no block twice.
    let mut seen: HashSet<u64> = blocks.iter().copied().collect();
    while level > 0 && !blocks.is_empty() {
        level -= 1;
        let mut below = Vec::new();
        for block in std::mem::take(&mut blocks) {
            let Some(at) = geometry.fsblock_to_daddr(FsBlock(block)) else { continue };
            let bytes = buffers.get(at, sectors)?;
            let Ok((header, _)) = LongHeader::mut_from_prefix(bytes) else { continue };
            if header.magic.get() != BMBT_MAGIC || header.level.get() != level {
                continue;
            }
            let n = usize::from(header.numrecs.get());
            let other = header.owner.get() != ino.0;
            header.owner.set(ino.0);
            if level > 0 {
                let from = BMBT.header + BMBT.node_max(bytes.len()) * BMBT.key;
                let n = n.min(BMBT.node_max(bytes.len()));
                let pointers = da::array::<U64>(bytes.get(from..).unwrap_or(&[]), n).iter().map(|p| p.get());
                below.extend(pointers.filter(|p| geometry.is_valid_fsblock(FsBlock(*p)) && seen.insert(*p)));
            }
            if other {
                buffers.changed(at, BMBT_BLOCK.log_type);
            }
        }
        blocks = below;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::change_owner;
    use crate::error::ForkKind;
    use crate::format::inode::{CORE_SIZE, Dinode};
    use crate::format::log::items::LogDinode;
    use crate::journal::replay::buffers::Buffers;
    use crate::journal::replay::buffers::tests::{btree_block, device, owner_and_lsn};
    use crate::units::{Ino, Lsn};
    use proptest::prelude::*;
    use zerocopy::FromBytes;

    /// An inode whose data fork is a btree of this level with one pointer in its root.
    fn inode(level: u16, pointer: u64) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..2].copy_from_slice(b"IN");
        bytes[2..4].copy_from_slice(&0o100_644u16.to_be_bytes());
        (bytes[4], bytes[5]) = (3, 3);
        bytes[176..178].copy_from_slice(&level.to_be_bytes());
        bytes[178..180].copy_from_slice(&1u16.to_be_bytes());
        // Behind the places of twenty keys.
        bytes[180 + 20 * 8..][..8].copy_from_slice(&pointer.to_be_bytes());
        bytes
    }

    #[test]
    fn a_tree_of_loops_gets_its_owner_in_no_time() {
        let (g, target) = device();
        // Each node has nothing but pointers to itself and the one below: walked one by one they are more than 10^12.
        for level in (0..6u16).rev() {
            let own = 1000 + u64::from(level);
            let all: Vec<u64> = [own, own - 1].into_iter().cycle().take(250).collect();
            btree_block(&g, &target, own, level, if level == 0 { &[] } else { &all });
        }
        let mut buffers = Buffers::new(&target, &g);
        change_owner(&mut buffers, &inode(6, 1005), Ino(77), ForkKind::Data).unwrap();
        buffers.write(Lsn::new(2, 9)).unwrap();
        for block in 1000..1006 {
            assert_eq!(owner_and_lsn(&g, &target, block), (77, Lsn::new(2, 9)), "{block}");
        }
    }

    proptest! {
        /// What is written of an inode is what replay reads, for both kinds of times.
        #[test]
        fn a_core_that_is_logged_comes_back(bytes in prop::collection::vec(any::<u8>(), CORE_SIZE)) {
            let mut disk = Dinode::read_from_bytes(&bytes).unwrap();
            let log = LogDinode::of(&disk);
            disk.crc.set(0);
            let back = log.to_disk(disk.next_unlinked.get(), Lsn(disk.lsn.get()));
            prop_assert_eq!(back, disk);
        }
    }
}
