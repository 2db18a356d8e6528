//! The realtime section: its size, and the files that say what of it is free.

use super::groups::Group;
use super::inodes::File;
use super::layout::{Draft, GIB, Plan, refuse};
use super::options::{Devices, Options};
use crate::error::{Error, Result};
use crate::format::btree::{Extent, MAX_EXTENT};
use crate::geometry::Geometry;
use crate::target::Target;
use crate::units::{AgBlock, AgNumber, FsBlock};

/// Bytes of the bitmap that are written at once.
const BATCH: u64 = 1 << 20;
/// Extents that fit into an inode of the smallest size.
const MOST_EXTENTS: usize = 21;

pub(super) fn realtime(options: &Options, devices: &Devices, d: &mut Draft) -> Result<()> {
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
        return Ok(());
    };
    let size = match o.size {
        Some(s) if s > rt.size => return refuse("-r size", s, format_args!("the device has {} bytes", rt.size)),
        Some(s) if !s.is_multiple_of(bs) => {
            return refuse("-r size", s, format_args!("it must be a multiple of the block size, {bs}"));
        }
        s => s.unwrap_or(rt.size),
    };
    d.rt_blocks = size / bs;
    if d.rt_blocks / d.rt_extsize == 0 {
        return refuse("-r size", size, format_args!("a realtime section needs at least one extent, {bytes} bytes"));
    }
    Ok(())
}

/// Finds room for bitmap and summary. `groups` are the first AGs; those that get something are added.
pub(super) fn place_files(plan: &Plan, groups: &mut Vec<Group>, near: AgBlock) -> Result<[File; 2]> {
    let g = &plan.geometry;
    let mut files = [File::default(), File::default()];
    if g.rt_extents == 0 || g.features.metadir() {
        return Ok(files);
    }
    let bitmap = u64::from(g.rt_bitmap_blocks);
    let words = (u64::from(g.rt_extents_log) + 1) * bitmap;
    let summary = (words * 4).div_ceil(u64::from(g.block_size));
    // A file that fills a stripe unit starts on one.
    let stripe = plan.superblock.unit.get().max(1);
    for (file, count) in files.iter_mut().zip([bitmap, summary]) {
        file.size = count << g.block_log;
        file.extents = place(g, groups, near, count, stripe)
            .filter(|list| list.iter().map(|e| e.count).sum::<u64>() == count && list.len() <= MOST_EXTENTS)
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
pub(super) fn write_files(g: &Geometry, target: &dyn Target, files: &[File; 2]) -> Result<()> {
    let offset = |e: &Extent| g.fsblock_to_daddr(FsBlock(e.start)).map_or(0, |d| d.bytes());
    let [bitmap, summary] = files;
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
