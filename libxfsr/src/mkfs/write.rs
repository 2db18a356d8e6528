//! Putting a [`Plan`] on its targets: only metadata is written, every other byte is left or punched.

use super::groups::Group;
use super::inodes::{self, File, Made};
use super::layout::Plan;
use super::realtime;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::inode::MetaType;
use crate::format::superblock::{SUPERBLOCK, Superblock};
use crate::geometry::Geometry;
use crate::journal::unmount_record;
use crate::target::Target;
use crate::units::{AgNumber, FsBlock, Ino, Lsn, NULL_INO};
use std::time::SystemTime;
use zerocopy::IntoBytes;
use zerocopy::big_endian::U64;

/// Bytes at either end of a device that are cleared, so that no older filesystem or partition table is found there.
const WIPE: u64 = 128 << 10;
/// Bytes that are discarded at once: a device takes a while for them, and cannot be stopped meanwhile.
const PIECE: u64 = 2 << 30;
/// Bytes of the log that are cleared at once: a device that has to write zeroes for them takes a while too.
const LOG_PIECE: u64 = 64 << 20;
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
/// [`Error::Io`] of a target, [`Error::Invalid`] where the targets do not match the plan, [`Error::Stopped`]. After an error of the
/// first or last kind the primary superblock says that mkfs is in progress, or is zero: what was there before is lost.
pub fn write(plan: &Plan, targets: &Targets<'_>, options: &WriteOptions, control: &Control<'_>) -> Result<()> {
    let g = &plan.geometry;
    if targets.log.is_none() != plan.log_internal || targets.rt.is_none() == plan.has_rt {
        return Err(Error::invalid("the targets are not those of the plan: log and realtime device must match"));
    }
    // Whatever finds no room is refused before anything is written or discarded.
    let placed = Placed::new(plan)?;
    if options.discard {
        for target in [Some(targets.data), targets.log, targets.rt].into_iter().flatten() {
            discard(target, control)?;
        }
    }
    let mut sb = plan.superblock;
    wipe(g, targets, &sb)?;
    let log = targets.log.unwrap_or(targets.data);
    let log_at = if plan.log_internal { g.fsblock_to_daddr(g.log_start).map_or(0, |d| d.bytes()) } else { 0 };
    let log_bytes = u64::from(g.log_blocks) << g.block_log;
    for done in (0..log_bytes).step_by(LOG_PIECE as usize) {
        control.check()?;
        control.tell("log", done, Some(log_bytes));
        log.punch(log_at + done, (log_bytes - done).min(LOG_PIECE))?;
    }
    log.write_at(&unmount_record(g, Lsn::new(1, 0), None)?, log_at)?;

    groups(plan, targets.data, &placed.groups, control)?;
    targets.data.write_at(&first_chunk(plan, &placed, options), root_offset(g)?)?;
    if g.features.metadir() {
        let kinds = realtime::group_files(&g.features).len();
        realtime::write_groups(g, targets.data, &placed.files, &|n| group_inode(g, n, kinds))?;
        if let Some(rt) = targets.rt {
            realtime::write_superblock(plan, rt)?;
            rt.flush()?;
        }
    } else {
        realtime::write_files(g, targets.data, &placed.files)?;
    }

    let used = u64::from(g.chunk_blocks()) + placed.files.iter().flat_map(|f| &f.extents).map(|e| e.count).sum::<u64>();
    let inodes = u64::from(g.inodes_per_block().max(64));
    sb.icount = U64::new(inodes);
    sb.ifree = U64::new(inodes - u64::from(placed.inodes));
    sb.fdblocks = U64::new(sb.fdblocks.get().saturating_sub(used));
    if g.features.metadir() {
        sb.metadirino = U64::new(g.root_ino.0 + 1);
    } else {
        sb.rbmino = U64::new(g.root_ino.0 + 1);
        sb.rsumino = U64::new(g.root_ino.0 + 2);
    }
    targets.data.flush()?;
    if let Some(log) = targets.log {
        log.flush()?;
    }
    targets.data.write_at(&sector(&sb, g), 0)?;
    targets.data.flush()
}

/// Tells a target that nothing on it is needed any more, in pieces between which the work can be stopped.
fn discard(target: &dyn Target, control: &Control<'_>) -> Result<()> {
    let len = target.len();
    if target.next_data(0) < WIPE.min(len) {
        // First what makes it a filesystem or a table of partitions: who stops halfway must not find one whose contents are gone.
        target.punch(0, WIPE.min(len))?;
        target.flush()?;
    }
    let mut at = 0;
    loop {
        // Holes of a file have nothing to give back.
        at = target.next_data(at);
        if at >= len {
            return Ok(());
        }
        control.check()?;
        control.tell("discard", at, Some(len));
        let piece = (len - at).min(PIECE);
        target.discard(at, piece)?;
        at += piece;
    }
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

/// Where everything goes that mkfs makes beside what all AGs start with.
struct Placed {
    /// The first AGs, as many as hold any of it.
    groups: Vec<Group>,
    files: Vec<File>,
    /// Inodes in use.
    inodes: u32,
}

impl Placed {
    fn new(plan: &Plan) -> Result<Self> {
        let g = &plan.geometry;
        let (_, agino) = g.split_ino(g.root_ino);
        let (at, _) = g.agino_to_block(agino);
        let mut first = Group::new(g.block_size, g, AgNumber(0));
        let kinds = realtime::group_files(&g.features);
        let inodes = 3 + g.rt_groups * kinds.len() as u32;
        first.place_chunk(g, at, inodes);
        let mut groups = vec![first];
        let files = realtime::place_files(plan, &mut groups, at)?;
        if g.features.metadir() {
            // Bitmap and summary come first in each group.
            for (n, file) in files.iter().enumerate() {
                let ino = group_inode(g, n as u32 / 2, kinds.len()).0 + n as u64 % 2;
                for e in &file.extents {
                    let (ag, block) = g.split(FsBlock(e.start));
                    if let Some(group) = groups.get_mut(ag.0 as usize) {
                        group.own(block.0, e.count as u32, ino);
                    }
                }
            }
        }
        Ok(Self { groups, files, inodes })
    }
}

/// First inode of a realtime group's files.
fn group_inode(g: &Geometry, group: u32, kinds: usize) -> Ino {
    Ino(g.root_ino.0 + 3 + u64::from(group) * kinds as u64)
}

/// The bytes of the first inode chunk.
fn first_chunk(plan: &Plan, placed: &Placed, options: &WriteOptions) -> Vec<u8> {
    let g = &plan.geometry;
    let mut made = vec![Made::Root];
    if g.features.metadir() {
        made.extend([Made::MetadataRoot, Made::Groups]);
        for (group, pair) in (0..).zip(placed.files.chunks_exact(2)) {
            for kind in realtime::group_files(&g.features) {
                made.push(match (kind, pair) {
                    (MetaType::RtBitmap, [bitmap, _]) => Made::GroupFile(kind, bitmap),
                    (MetaType::RtSummary, [_, summary]) => Made::GroupFile(kind, summary),
                    _ => Made::GroupTree(kind, group),
                });
            }
        }
    } else if let [bitmap, summary] = &*placed.files {
        made.extend([Made::Bitmap(bitmap), Made::Summary(summary)]);
    }
    inodes::chunk(plan, options.now, &made)
}

/// Headers and roots of all AGs, and the secondary superblocks, which stay as they were before the first inode was made.
fn groups(plan: &Plan, target: &dyn Target, placed: &[Group], control: &Control<'_>) -> Result<()> {
    let g = &plan.geometry;
    // The last AG and the middle one also tell where the root is, for a repair that has lost the primary.
    let tell = [(g.ag_count - 1) / 2, g.ag_count - 1];
    for ag in g.ags() {
        control.check()?;
        control.tell("allocation groups", ag.0.into(), Some(g.ag_count.into()));
        let fresh;
        let group = match placed.get(ag.0 as usize) {
            Some(group) => group,
            None => {
                fresh = Group::new(g.block_size, g, ag);
                &fresh
            }
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

#[cfg(test)]
mod tests {
    use super::{LOG_PIECE, Targets, WriteOptions, write};
    use crate::control::{Control, Progress};
    use crate::error::Error;
    use crate::mkfs::{Devices, Options, plan};
    use crate::target::{Target, Xfile};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    #[test]
    fn clearing_the_log_can_be_stopped() {
        let target = Xfile::new("image").unwrap();
        target.set_len(8 << 30).unwrap();
        let mut options = Options::default();
        options.log.size = Some(1 << 30);
        let plan = plan(&options, &Devices::file(target.len())).unwrap();
        let g = &plan.geometry;
        let log = g.fsblock_to_daddr(g.log_start).unwrap().bytes();
        let marks = [log, log + LOG_PIECE, log + 2 * LOG_PIECE, log + 3 * LOG_PIECE];
        marks.iter().for_each(|at| target.write_at(&[7; 512], *at).unwrap());
        // Stopped as soon as two pieces are said to be done.
        let stopped = AtomicBool::new(false);
        let tell = |p: &Progress| {
            stopped.fetch_or(p.phase == "log" && p.done >= 2 * LOG_PIECE, Relaxed);
        };
        let control = Control { stop: &|| stopped.load(Relaxed), progress: Some(&tell), ..Control::none() };
        let targets = Targets { data: &target, log: None, rt: None };
        let options = WriteOptions { discard: false, ..WriteOptions::default() };
        assert!(matches!(write(&plan, &targets, &options, &control), Err(Error::Stopped)));
        let left = marks.map(|at| {
            let mut sector = [0; 512];
            target.read_at(&mut sector, at).unwrap();
            sector[0]
        });
        assert_eq!(left, [0, 0, 0, 7], "a piece more is cleared before anybody asks again");
        write(&plan, &targets, &options, &Control::none()).unwrap();
    }
}
