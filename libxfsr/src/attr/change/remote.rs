//! Values in blocks of their own, which are not logged: see the [module](super).

use crate::cache::BlockKey;
use crate::error::{Error, ForkKind, Result};
use crate::format::attr::{ATTR_REMOTE, REMOTE_MAGIC};
use crate::format::btree::Extent;
use crate::format::part::{self, PartHeader};
use crate::inode::map::ForkMut;
use crate::space::Request;
use crate::units::{Daddr, FileBlock, FsBlock, Lsn};
use std::ops::ControlFlow;
use zerocopy::{FromZeros, IntoBytes};

/// The first hole of so many blocks.
fn hole(fork: &mut ForkMut<'_, '_>, blocks: u64) -> Result<FileBlock> {
    let mut at = 0;
    fork.extents((0, u64::from(u32::MAX)), &mut |e| {
        if e.offset >= at + blocks {
            return ControlFlow::Break(());
        }
        at = e.offset.saturating_add(e.count);
        ControlFlow::Continue(())
    })?;
    if at + blocks > u64::from(u32::MAX) {
        return Err(Error::NoSpace(format!("inode {} has no place for a value of {blocks} blocks", fork.ino())));
    }
    Ok(FileBlock(at))
}

/// Allocates blocks for a value, writes it, and returns when it is durable. Returns the first file block.
pub(super) fn store(fork: &mut ForkMut<'_, '_>, value: &[u8]) -> Result<u32> {
    let g = fork.t().geometry();
    let length = u32::try_from(value.len()).map_err(|_| Error::invalid("a value that is too long"))?;
    let blocks = part::blocks(g, length);
    let first = hole(fork, blocks.into())?;
    let (mut done, mut rest, mut offset) = (0, value, 0);
    while done < blocks {
        let at = FileBlock(first.0 + u64::from(done));
        let e = fork.allocate(at, &Request::data(1, blocks - done), None, false)?;
        write(fork, &e, &mut rest, &mut offset)?;
        done += u32::try_from(e.count).unwrap_or(blocks);
    }
    // Whoever sees the attribute must find the value.
    fork.t().volume().data_target().flush()?;
    u32::try_from(first.0).map_err(|_| Error::invalid("a file block that is too high"))
}

/// Where an extent's blocks are.
fn places(fork: &mut ForkMut<'_, '_>, e: &Extent) -> Result<Vec<Daddr>> {
    let g = fork.t().geometry();
    let bad = || Error::invalid(format!("{} blocks at {} are no extent", e.count, e.start));
    if !g.is_valid_extent(FsBlock(e.start), e.count) {
        return Err(bad());
    }
    (0..e.count).map(|i| g.fsblock_to_daddr(FsBlock(e.start + i)).ok_or_else(bad)).collect()
}

/// Writes the next parts of a value into an extent.
fn write(fork: &mut ForkMut<'_, '_>, e: &Extent, rest: &mut &[u8], offset: &mut u32) -> Result<()> {
    let (places, owner) = (places(fork, e)?, fork.ino().0);
    let (g, volume) = (fork.t().geometry(), fork.t().volume());
    let room = g.block_size as usize - size_of::<PartHeader>();
    let mut bytes = Vec::with_capacity(places.len() << g.block_log);
    for place in &places {
        let (part, left) = rest.split_at(room.min(rest.len()));
        let length = u32::try_from(part.len()).map_err(|_| Error::invalid("a part that is too long"))?;
        let mut head = PartHeader::new_zeroed();
        head.magic.set(REMOTE_MAGIC);
        head.offset.set(*offset);
        head.bytes.set(length);
        head.uuid = g.meta_uuid;
        head.owner.set(owner);
        head.blkno.set(place.0);
        let mut block = [head.as_bytes(), part].concat();
        block.resize(g.block_size as usize, 0);
        (ATTR_REMOTE.seal)(&mut block, Lsn(u64::MAX));
        bytes.extend_from_slice(&block);
        *rest = left;
        *offset += length;
        // What the cache has of it is what it was before.
        volume.cache.invalidate(&BlockKey::one(volume.data, *place, g.block_size / 512));
    }
    match places.first() {
        Some(first) => volume.data_target().write_at(&bytes, first.bytes()),
        None => Ok(()),
    }
}

/// Has the cache forget what it has of values in a range of the fork.
pub(super) fn forget(fork: &mut ForkMut<'_, '_>, at: FileBlock, blocks: u64) -> Result<()> {
    let Some(last) = blocks.checked_sub(1) else { return Ok(()) };
    let mut extents = Vec::new();
    fork.extents((at.0, at.0.saturating_add(last)), &mut |e| {
        let (from, to) = (e.offset.max(at.0), (e.offset + e.count).min(at.0 + blocks));
        extents.push(Extent { offset: from, start: e.start + (from - e.offset), count: to - from, ..*e });
        ControlFlow::Continue(())
    })?;
    for e in extents {
        let places = places(fork, &e)?;
        let volume = fork.t().volume();
        let sectors = volume.geometry.block_size / 512;
        places.iter().for_each(|p| volume.cache.invalidate(&BlockKey::one(volume.data, *p, sectors)));
    }
    Ok(())
}

/// Frees the blocks of a value. Each must be a part of it: what a damaged name points to may be anybody's.
pub(super) fn free(fork: &mut ForkMut<'_, '_>, block: u32, length: u32) -> Result<()> {
    let at = FileBlock(block.into());
    crate::attr::remote_value_from(fork, at, length)?;
    debug_assert_eq!(fork.kind(), ForkKind::Attr);
    let blocks = u64::from(part::blocks(fork.t().geometry(), length));
    forget(fork, at, blocks)?;
    fork.free(at, blocks)
}
