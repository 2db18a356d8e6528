//! The realtime section: its size, and the files that say what of it is free.

use super::groups::Group;
use super::inodes::File;
use super::layout::{Draft, GIB, Plan, TIB, refuse};
use super::options::{Devices, Options};
use crate::error::{Error, Result};
use crate::format::btree::{Extent, MAX_EXTENT};
use crate::format::features::Features;
use crate::format::inode::MetaType;
use crate::format::realtime::{
    BITMAP_MAGIC, RT_BITMAP, RT_SUMMARY, RT_SUPER, RtBlockHeader, RtSuperblock, SUMMARY_MAGIC, SUPER_MAGIC, put_word,
    words_per_block,
};
use crate::geometry::Geometry;
use crate::target::Target;
use crate::units::{AgBlock, AgNumber, Daddr, FsBlock, Ino, Lsn};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Bytes of the bitmap that are written at once.
const BATCH: u64 = 1 << 20;
/// Extents that fit into an inode of the smallest size.
const MOST_EXTENTS: usize = 21;

pub(super) fn realtime(options: &Options, devices: &Devices, d: &mut Draft, warnings: &mut Vec<String>) -> Result<()> {
    let bs = u64::from(d.block_size);
    let o = &options.realtime;
    let width = devices.rt.map_or(0, |rt| if o.noalign { 0 } else { rt.stripe_width });
    let bytes = match o.extsize {
        Some(e) if !e.is_multiple_of(bs) => {
            return refuse("-r extsize", e, format_args!("it must be a multiple of the block size, {bs}"));
        }
        Some(e) if !(4096..=GIB).contains(&e) => return refuse("-r extsize", e, "it must be from 4 KiB to 1 GiB"),
        Some(e) => e,
        None if width > 0 && width.is_multiple_of(bs) && (4096..=GIB).contains(&width) => width,
        None => bs.max(4096),
    };
    d.rt_extsize = bytes / bs;
    let Some(rt) = devices.rt else {
        if let Some(s) = o.size {
            return refuse("-r size", s, "there is no realtime device; give -r rtdev");
        }
        return groups(d);
    };
    let size = match o.size {
        Some(s) if s > rt.size => return refuse("-r size", s, format_args!("the device has {} bytes", rt.size)),
        Some(s) => super::sizes::whole_blocks("-r size", s, d.block_log, warnings)? << d.block_log,
        None => rt.size,
    };
    if d.features.reflink() && d.rt_extsize != 1 {
        return refuse("-m reflink", 1, format_args!("it needs realtime extents of one block; give -r extsize={bs}"));
    }
    d.rt_blocks = size / bs;
    if d.rt_blocks / d.rt_extsize == 0 {
        return refuse("-r size", size, format_args!("a realtime section needs at least one extent, {bytes} bytes"));
    }
    groups(d)
}

/// Realtime groups, where there is a metadata directory tree: four, or more where they would be larger than 1 TiB.
fn groups(d: &mut Draft) -> Result<()> {
    if !d.features.metadir() {
        return Ok(());
    }
    let largest = (TIB >> d.block_log) / d.rt_extsize;
    let extents = d.rt_blocks / d.rt_extsize;
    if extents == 0 {
        d.rt_group_extents = largest;
        return Ok(());
    }
    d.rt_group_extents = extents.div_ceil(4).clamp(2, largest);
    d.rt_groups = extents.div_ceil(d.rt_group_extents);
    let files = d.rt_groups * group_files(&d.features).len() as u64;
    // All their names must fit into the directory's inode, and all inodes into the first chunk.
    let names = d.rt_groups * 66 + 6;
    if files + 3 > 64 || names > u64::from(d.inode_size) - 176 {
        return refuse(
            "-r size",
            d.rt_blocks << d.block_log,
            format_args!("this version makes few realtime groups; give at most {} bytes", 4 * TIB),
        );
    }
    Ok(())
}

/// The files that each group has, in the order in which they are made.
pub(super) fn group_files(f: &Features) -> Vec<MetaType> {
    let mut all = vec![MetaType::RtBitmap, MetaType::RtSummary];
    all.extend(f.rmapbt().then_some(MetaType::RtRmap));
    all.extend(f.reflink().then_some(MetaType::RtRefcount));
    all
}

/// Finds room for bitmap and summary. `groups` are the first AGs; those that get something are added.
pub(super) fn place_files(plan: &Plan, groups: &mut Vec<Group>, near: AgBlock) -> Result<Vec<File>> {
    let g = &plan.geometry;
    let mut files = vec![File::default(); if g.features.metadir() { 2 * g.rt_groups as usize } else { 2 }];
    if g.rt_extents == 0 {
        return Ok(files);
    }
    let bitmap = u64::from(g.rt_bitmap_blocks);
    let levels = if g.features.metadir() { g.rt_group_extents.ilog2() } else { g.rt_extents_log.into() };
    let words = (u64::from(levels) + 1) * bitmap;
    let summary = words.div_ceil(words_per_block(g).into());
    // A file that fills a stripe unit starts on one.
    let stripe = plan.superblock.unit.get().max(1);
    // Reverse mappings of more than one extent are not made.
    let most = if g.features.metadir() { 1 } else { MOST_EXTENTS };
    for (file, count) in files.iter_mut().zip([bitmap, summary].into_iter().cycle()) {
        file.size = count << g.block_log;
        file.extents = place(g, groups, near, count, stripe)
            .filter(|list| list.iter().map(|e| e.count).sum::<u64>() == count && list.len() <= most)
            .ok_or_else(|| {
                Error::invalid(format!(
                    "there is no room for {count} blocks of realtime metadata; give a larger -r extsize, or larger AGs"
                ))
            })?;
    }
    Ok(files)
}

/// Extents for `count` blocks, as mkfs.xfs was seen to place them: whole in the first AG that has room, else in pieces, from each AG all
/// but one of the free blocks.
fn place(g: &Geometry, groups: &mut Vec<Group>, near: AgBlock, count: u64, stripe: u32) -> Option<Vec<Extent>> {
    if let Ok(whole) = u32::try_from(count)
        && count <= MAX_EXTENT
    {
        for ag in g.ags() {
            let group = group(g, groups, ag)?;
            if group.has_room(whole) {
                let align = if whole >= stripe { stripe } else { 1 };
                let near = if ag.0 == 0 { near.0 } else { 0 };
                let start = group.allocate(near, whole, align).or_else(|| group.allocate(near, whole, 1))?;
                return Some(vec![Extent { offset: 0, start: group.fsblock(g, start).0, count, unwritten: false }]);
            }
            // Those behind it have no more room.
            if group.is_plain(g) {
                break;
            }
        }
    }
    let mut list: Vec<Extent> = Vec::new();
    let mut offset = 0;
    for ag in g.ags() {
        let group = group(g, groups, ag)?;
        while offset < count {
            let most = (count - offset).min(MAX_EXTENT) as u32;
            let Some((start, taken)) = group.take_longest(most) else { break };
            let taken = u64::from(taken);
            list.push(Extent { offset, start: group.fsblock(g, start).0, count: taken, unwritten: false });
            offset += taken;
        }
        if offset == count || list.len() > MOST_EXTENTS {
            break;
        }
    }
    Some(list)
}

/// An AG, which is added to `groups` with those in front of it.
fn group<'a>(g: &Geometry, groups: &'a mut Vec<Group>, ag: AgNumber) -> Option<&'a mut Group> {
    while groups.len() <= ag.0 as usize {
        groups.push(Group::new(g.block_size, g, AgNumber(groups.len() as u32)));
    }
    groups.get_mut(ag.0 as usize)
}

/// Writes bitmap and summary: everything is one free extent.
pub(super) fn write_files(g: &Geometry, target: &dyn Target, files: &[File]) -> Result<()> {
    let offset = |e: &Extent| g.fsblock_to_daddr(FsBlock(e.start)).map_or(0, |d| d.bytes());
    let [bitmap, summary] = files else { return Ok(()) };
    let mut left = g.rt_extents;
    for e in &bitmap.extents {
        let (mut at, mut bytes_left) = (offset(e), e.count << g.block_log);
        while bytes_left > 0 {
            let n = bytes_left.min(BATCH);
            let mut bytes = vec![0xff; n as usize];
            let full = (left / 8).min(n) as usize;
            if let Some(tail) = bytes.get_mut(full..) {
                tail.fill(0);
                if let Some(partial) = tail.first_mut() {
                    *partial = ((1u16 << (left % 8)) - 1) as u8;
                }
            }
            left -= left.min(n * 8);
            target.write_at(&bytes, at)?;
            at += n;
            bytes_left -= n;
        }
    }
    // One extent of 2^rextslog or more, starting in the first bitmap block. The counter is in the host's order.
    let counter = u64::from(g.rt_extents_log) * u64::from(g.rt_bitmap_blocks) * 4;
    for e in &summary.extents {
        target.punch(offset(e), e.count << g.block_log)?;
        let first = e.offset << g.block_log;
        if let Some(within) = counter.checked_sub(first).filter(|w| *w < e.count << g.block_log) {
            target.write_at(&[1, 0, 0, 0], offset(e) + within)?;
        }
    }
    Ok(())
}

/// Writes bitmaps and summaries of all groups: each is one free extent, but for the first extent of the first group. `inode` tells the
/// number of a group's bitmap; that of its summary is the next.
pub(super) fn write_groups(
    g: &Geometry,
    target: &dyn Target,
    files: &[File],
    inode: &dyn Fn(u32) -> Ino,
) -> Result<()> {
    for (number, pair) in (0..).zip(files.chunks_exact(2)) {
        let [bitmap, summary] = pair else { continue };
        let before = u64::from(number) * u64::from(g.rt_group_extents);
        let extents = g.rt_extents.saturating_sub(before).min(g.rt_group_extents.into());
        let used = u64::from(number == 0);
        let ino = inode(number);
        blocks(g, target, bitmap, (BITMAP_MAGIC, ino), &|word| {
            (0..32).fold(0, |w, bit| {
                let at = word * 32 + bit;
                w | u32::from((used..extents).contains(&at)) << bit
            })
        })?;
        // One free extent, which begins in the first bitmap block.
        let level = (extents - used).checked_ilog2();
        let counter = level.map(|l| u64::from(l) * u64::from(g.rt_bitmap_blocks));
        blocks(g, target, summary, (SUMMARY_MAGIC, Ino(ino.0 + 1)), &|word| u32::from(Some(word) == counter))?;
    }
    Ok(())
}

/// Writes a file of blocks with headers, word by word.
fn blocks(
    g: &Geometry,
    target: &dyn Target,
    file: &File,
    (magic, owner): (u32, Ino),
    word: &dyn Fn(u64) -> u32,
) -> Result<()> {
    let per_block = words_per_block(g);
    let mut index = 0u64;
    for e in &file.extents {
        for n in 0..e.count {
            let at = g.fsblock_to_daddr(FsBlock(e.start + n)).unwrap_or(Daddr(0));
            let mut block = vec![0; g.block_size as usize];
            if let Ok((h, _)) = RtBlockHeader::mut_from_prefix(&mut block) {
                h.magic.set(magic);
                h.owner.set(owner.0);
                h.blkno.set(at.0);
                h.uuid = g.meta_uuid;
            }
            for i in 0..per_block {
                let stored = put_word(&mut block, g, i as usize, word(index));
                debug_assert!(stored, "a block has room for its words");
                index += 1;
            }
            let kind = if magic == BITMAP_MAGIC { &RT_BITMAP } else { &RT_SUMMARY };
            (kind.seal)(&mut block, Lsn(0));
            target.write_at(&block, at.bytes())?;
        }
    }
    Ok(())
}

/// The superblock of a realtime device that has groups: its first block.
pub(super) fn write_superblock(plan: &Plan, target: &dyn Target) -> Result<()> {
    let g = &plan.geometry;
    let mut sb = RtSuperblock::new_zeroed();
    sb.magicnum.set(SUPER_MAGIC);
    (sb.fname, sb.uuid, sb.meta_uuid) = (plan.superblock.fname, g.uuid, g.meta_uuid);
    let mut block = sb.as_bytes().to_vec();
    block.resize(g.block_size as usize, 0);
    (RT_SUPER.seal)(&mut block, Lsn(0));
    target.write_at(&block, 0)
}
