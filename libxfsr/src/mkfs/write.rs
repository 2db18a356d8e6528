//! Putting a [`Plan`] on its targets: only metadata is written, every other byte is left or punched.

use super::groups::Group;
use super::inodes::{self, File, Made};
use super::layout::Plan;
use super::record;
use crate::error::{Error, Result};
use crate::format::btree::Extent;
use crate::format::superblock::{SUPERBLOCK, Superblock};
use crate::geometry::Geometry;
use crate::target::Target;
use crate::units::{AgNumber, Lsn, NULL_INO};
use std::time::SystemTime;
use zerocopy::IntoBytes;
use zerocopy::big_endian::U64;

/// Bytes at either end of a device that are cleared, so that no older filesystem or partition table is found there.
const WIPE: u64 = 128 << 10;
/// AG headers are collected into writes of about this size.
const BATCH: usize = 1 << 20;

/// The targets of a filesystem.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// Data section.
    pub data: &'a dyn Target,
    /// External log.
    pub log: Option<&'a dyn Target>,
    /// Realtime section.
    pub rt: Option<&'a dyn Target>,
}

/// What to do beside writing the metadata.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteOptions {
    /// Tell the targets that their old contents are not needed.
    pub discard: bool,
    /// Time stamps of the inodes.
    pub now: SystemTime,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { discard: true, now: SystemTime::now() }
    }
}

/// Makes the filesystem. It counts as made when the primary superblock, written last, is whole.
///
/// # Errors
/// [`Error::Io`] of a target, [`Error::Invalid`] where the targets do not match the plan. After an error the primary superblock
/// still says that mkfs is in progress, or is zero.
pub fn write(plan: &Plan, targets: &Targets<'_>, options: &WriteOptions) -> Result<()> {
    let g = &plan.geometry;
    if targets.log.is_none() != plan.log_internal || targets.rt.is_none() == plan.has_rt {
        return Err(Error::invalid("the targets are not those of the plan: log and realtime device must match"));
    }
    if options.discard {
        for target in [Some(targets.data), targets.log, targets.rt].into_iter().flatten() {
            target.discard(0, target.len())?;
        }
    }
    let mut sb = plan.superblock;
    wipe(g, targets, &sb)?;
    let log = targets.log.unwrap_or(targets.data);
    let log_at = if plan.log_internal { g.fsblock_to_daddr(g.log_start).map_or(0, |d| d.bytes()) } else { 0 };
    let log_bytes = u64::from(g.log_blocks) << g.block_log;
    log.punch(log_at, log_bytes)?;
    log.write_at(&record::unmount(g, 1), log_at)?;

    let mut first = Group::new(g.block_size, g, AgNumber(0));
    let (files, inode_bytes) = first_chunk(plan, &mut first, options)?;
    groups(plan, targets.data, &first)?;
    targets.data.write_at(&inode_bytes, root_offset(g)?)?;
    realtime_files(g, targets.data, &files)?;

    let used = u64::from(g.chunk_blocks()) + files.iter().filter_map(|f| f.extent).map(|e| e.count).sum::<u64>();
    let inodes = u64::from(g.inodes_per_block().max(64));
    sb.icount = U64::new(inodes);
    sb.ifree = U64::new(inodes - 3);
    sb.fdblocks = U64::new(sb.fdblocks.get().saturating_sub(used));
    if g.features.metadir() {
        sb.metadirino = U64::new(g.root_ino.0 + 1);
    } else {
        sb.rbmino = U64::new(g.root_ino.0 + 1);
        sb.rsumino = U64::new(g.root_ino.0 + 2);
    }
    targets.data.flush()?;
    log.flush()?;
    targets.data.write_at(&sector(&sb, g), 0)?;
    targets.data.flush()
}

/// Clears both ends and makes files as long as their section.
fn wipe(g: &Geometry, targets: &Targets<'_>, sb: &Superblock) -> Result<()> {
    let clear = |target: &dyn Target, from: u64, len: u64| -> Result<()> {
        let len = len.min(target.len().saturating_sub(from));
        if len == 0 { Ok(()) } else { target.punch(from, len) }
    };
    let end = g.blocks << g.block_log;
    clear(targets.data, 0, WIPE)?;
    clear(targets.data, targets.data.len().saturating_sub(WIPE), WIPE)?;
    clear(targets.data, end.saturating_sub(WIPE), WIPE)?;
    if let Some(rt) = targets.rt {
        let end = sb.rblocks.get() << g.block_log;
        clear(rt, end.saturating_sub(u64::from(g.block_size)), u64::from(g.block_size))?;
    }
    Ok(())
}

fn root_offset(g: &Geometry) -> Result<u64> {
    g.ino_to_offset(g.root_ino).ok_or_else(|| Error::invalid("the root inode lies outside its AG"))
}

/// Places the root's chunk and the realtime section's files in AG 0; the chunk's bytes.
fn first_chunk(plan: &Plan, group: &mut Group, options: &WriteOptions) -> Result<([File; 2], Vec<u8>)> {
    let g = &plan.geometry;
    let (_, agino) = g.split_ino(g.root_ino);
    let (at, _) = g.agino_to_block(agino);
    group.place_chunk(g, at, 3);
    let mut files = [File::default(); 2];
    // A file that fills a stripe unit starts on one.
    let stripe = plan.superblock.unit.get().max(1);
    if g.rt_extents > 0 {
        let bitmap = u64::from(g.rt_bitmap_blocks);
        let words = (u64::from(g.rt_extents_log) + 1) * bitmap;
        let summary = (words * 4).div_ceil(u64::from(g.block_size));
        for (file, count) in files.iter_mut().zip([bitmap, summary]) {
            file.size = count << g.block_log;
            let count32 = u32::try_from(count).ok().filter(|c| u64::from(*c) < 1 << 21);
            let Some(start) = count32.and_then(|c| group.allocate(at.0, c, if c >= stripe { stripe } else { 1 }))
            else {
                return Err(Error::invalid(format!(
                    "AG 0 has no room for {count} blocks of realtime metadata; give a larger -r extsize"
                )));
            };
            file.extent = Some(Extent { offset: 0, start: group.fsblock(g, start).0, count, unwritten: false });
        }
    }
    let made = if g.features.metadir() {
        [Made::Root, Made::MetadataRoot, Made::Groups]
    } else {
        [Made::Root, Made::Bitmap(files[0]), Made::Summary(files[1])]
    };
    let bytes = inodes::chunk(plan, options.now, &made);
    Ok((files, bytes))
}

/// Headers and roots of all AGs, and the secondary superblocks, which stay as they were before the first inode was made.
fn groups(plan: &Plan, target: &dyn Target, first: &Group) -> Result<()> {
    let g = &plan.geometry;
    // The last AG and the middle one also tell where the root is, for a repair that has lost the primary.
    let tell = [(g.ag_count - 1) / 2, g.ag_count - 1];
    for ag in g.ags() {
        let fresh;
        let group = if ag.0 == 0 {
            first
        } else {
            fresh = Group::new(g.block_size, g, ag);
            &fresh
        };
        let mut sb = plan.superblock;
        sb.inprogress = 1;
        sb.frextents = U64::new(0);
        if !(g.ag_count > 1 && tell.contains(&ag.0)) || ag.0 == 0 {
            sb.rootino = U64::new(NULL_INO);
        } else if g.features.metadir() {
            sb.metadirino = U64::new(g.root_ino.0 + 1);
        }
        let mut bytes = Vec::with_capacity(BATCH.min(64 << 10));
        bytes.extend(sector(&sb, g));
        bytes.extend(group.agf(g));
        bytes.extend(group.agi(g));
        bytes.extend(group.agfl(g));
        bytes.resize((u64::from(g.header_blocks()) << g.block_log) as usize, 0);
        bytes.extend(group.roots(g));
        target.write_at(&bytes, g.header_daddr(ag, 0).bytes())?;
    }
    Ok(())
}

fn sector(sb: &Superblock, g: &Geometry) -> Vec<u8> {
    let mut out = sb.as_bytes().to_vec();
    out.resize(g.sector_size as usize, 0);
    (SUPERBLOCK.seal)(&mut out, Lsn(0));
    out
}

/// Contents of bitmap and summary: everything is one free extent.
fn realtime_files(g: &Geometry, target: &dyn Target, files: &[File; 2]) -> Result<()> {
    let offset = |f: &File| {
        let e = f.extent.unwrap_or_default();
        g.fsblock_to_daddr(crate::units::FsBlock(e.start)).map_or(0, |d| d.bytes())
    };
    let [bitmap, summary] = files;
    if bitmap.extent.is_none() {
        return Ok(());
    }
    let mut at = offset(bitmap);
    let (mut left, mut bytes_left) = (g.rt_extents, bitmap.size);
    while bytes_left > 0 {
        let n = bytes_left.min(BATCH as u64) as usize;
        let mut bytes = vec![0xff; n];
        let full = (left / 8).min(n as u64) as usize;
        if let Some(tail) = bytes.get_mut(full..) {
            tail.fill(0);
            if let Some(partial) = tail.first_mut() {
                *partial = ((1u16 << (left % 8)) - 1) as u8;
            }
        }
        left -= left.min(n as u64 * 8);
        target.write_at(&bytes, at)?;
        at += n as u64;
        bytes_left -= n as u64;
    }
    target.punch(offset(summary), summary.size)?;
    // One extent of 2^rextslog or more, starting in the first bitmap block. The counter is in the host's order.
    let index = u64::from(g.rt_extents_log) * u64::from(g.rt_bitmap_blocks);
    target.write_at(&[1, 0, 0, 0], offset(summary) + index * 4)
}
