//! Recovery: physical replay, and what it takes to make the result readable.

use crate::cache::OnDamage;
use crate::control::Control;
use crate::error::{Error, ForkKind, Result};
use crate::format::ag::{AGF, AGI, Agf, Agi};
use crate::format::dir;
use crate::format::superblock::{SUPERBLOCK, Superblock};
use crate::inode::{Inode, file, fork};
use crate::journal::{LogState, Replayed, close, log_state, replay};
use crate::realtime::free_runs;
use crate::target::{Overlay, Target};
use crate::units::{BASIC_BLOCK, Daddr, FileBlock, Ino, Lsn};
use crate::volume::{DEFAULT_CACHE, Volume};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use zerocopy::FromBytes;

/// A filesystem as it stands after replay of its log; the devices are untouched.
#[derive(Debug)]
pub struct View {
    /// The filesystem.
    pub volume: Volume,
    /// The data device with what replay changed.
    pub overlay: Arc<Overlay>,
    /// What was replayed, and the intents that are not finished in this view.
    pub replayed: Replayed,
}

/// Replays the log of a filesystem into an overlay; of a clean log nothing.
///
/// Deferred work that a crash cut off is not finished: [`Replayed::pending`] tells which.
///
/// # Errors
/// As [`Volume::from_targets_with`] and [`replay`].
pub fn replayed_view(
    data: Arc<dyn Target>,
    log: Option<Arc<dyn Target>>,
    rt: Option<Arc<dyn Target>>,
    control: &Control<'_>,
) -> Result<View> {
    let overlay = Arc::new(Overlay::new(data)?);
    let log: Option<Arc<dyn Target>> = match log {
        Some(log) => Some(Arc::new(Overlay::new(log)?)),
        None => None,
    };
    let open = || Volume::from_targets_with(overlay.clone(), log.clone(), rt.clone(), DEFAULT_CACHE, control);
    let volume = open()?;
    if matches!(log_state(&volume)?, LogState::Clean { .. }) {
        return Ok(View { volume, overlay, replayed: Replayed::default() });
    }
    let replayed = replay(&volume, &*overlay, control)?;
    // Opened anew: what was replayed may have changed the superblock.
    let volume = open()?;
    if !replayed.pieces.is_empty() {
        seal_pieces(&volume, &*overlay, &replayed, control)?;
    }
    close(&volume, &replayed.end)?;
    recount(&open()?, &*overlay, control)?;
    Ok(View { volume: open()?, overlay, replayed })
}

/// While a filesystem is in use the superblock's counters are kept in memory, and what the log has of them is of any time: they are the sums
/// of what the AGs say. Where an AG's headers cannot be used, or are not there, they stay as they are.
fn recount(volume: &Volume, target: &dyn Target, control: &Control<'_>) -> Result<()> {
    let g = &volume.geometry;
    if volume.shortfall().is_some() {
        return Ok(());
    }
    let (mut inodes, mut free, mut blocks) = (0, 0, 0);
    for ag in volume.ags() {
        control.check()?;
        let headers = (volume.ag_header(ag, 1, &AGF, OnDamage::Fail), volume.ag_header(ag, 2, &AGI, OnDamage::Fail));
        let (Ok(agf), Ok(agi)) = headers else { return Ok(()) };
        let (Ok((agf, _)), Ok((agi, _))) = (Agf::ref_from_prefix(&agf), Agi::ref_from_prefix(&agi)) else {
            return Ok(());
        };
        inodes += u64::from(agi.count.get());
        free += u64::from(agi.freecount.get());
        blocks += [agf.freeblks, agf.flcount, agf.btreeblks].iter().map(|v| u64::from(v.get())).sum::<u64>();
    }
    let mut sector = vec![0; g.sector_size as usize];
    target.read_at(&mut sector, 0)?;
    let Ok((sb, _)) = Superblock::mut_from_prefix(&mut sector) else { return Ok(()) };
    sb.icount.set(inodes);
    sb.ifree.set(free);
    sb.fdblocks.set(blocks);
    if g.rt_groups == 0 && g.rt_extents > 0 {
        let mut extents = 0;
        let bitmap = Ino(sb.rbmino.get());
        let counted = free_runs(volume, bitmap, g.rt_extents, &mut |_, n| {
            extents += n;
            ControlFlow::Continue(())
        });
        if counted.is_ok() {
            sb.frextents.set(extents);
        }
    }
    let lsn = Lsn(sb.lsn.get());
    (SUPERBLOCK.seal)(&mut sector, lsn);
    target.write_at(&sector, 0)
}

/// The journal logs the pieces of a directory block that is scattered over the device each by itself, and the checksum covers them all.
/// Whoever changes a directory logs its inode too, which leads to its blocks.
fn seal_pieces(volume: &Volume, target: &dyn Target, replayed: &Replayed, control: &Control<'_>) -> Result<()> {
    for ino in &replayed.directories {
        control.check()?;
        let Ok(inode) = Inode::read(volume, *ino, OnDamage::Keep) else { continue };
        if !inode.core.is_dir() {
            continue;
        }
        match seal_directory(volume, target, &inode, replayed) {
            // What is damaged is for a check to say.
            Err(Error::Corrupt(_)) => {}
            other => other?,
        }
    }
    Ok(())
}

fn seal_directory(volume: &Volume, target: &dyn Target, inode: &Inode, replayed: &Replayed) -> Result<()> {
    let step = 1u64 << volume.geometry.dir_block_log;
    let mut blocks = BTreeSet::new();
    fork::extents(volume, inode.ino, &inode.bytes, ForkKind::Data, (0, u64::MAX), &mut |e| {
        // A directory block lies in pieces where an extent ends inside it.
        blocks.insert(e.offset / step * step);
        blocks.insert((e.offset.saturating_add(e.count).saturating_sub(1)) / step * step);
        ControlFlow::Continue(())
    })?;
    for first in blocks {
        if let Some(pieces) = file::map_blocks(volume, inode, ForkKind::Data, FileBlock(first), step)? {
            seal_block(target, inode.ino, &pieces, replayed)?;
        }
    }
    Ok(())
}

fn seal_block(target: &dyn Target, ino: Ino, pieces: &[(Daddr, u32)], replayed: &Replayed) -> Result<()> {
    let lsns = pieces.iter().filter_map(|(at, _)| replayed.pieces.get(at).copied());
    let Some(lsn) = lsns.max().filter(|_| pieces.len() > 1) else { return Ok(()) };
    let length = |sectors: u32| (u64::from(sectors) * BASIC_BLOCK) as usize;
    let mut bytes = vec![0; pieces.iter().map(|(_, n)| length(*n)).sum()];
    let mut rest = bytes.as_mut_slice();
    for (at, n) in pieces {
        let (part, more) = rest.split_at_mut(length(*n));
        target.read_at(part, at.bytes())?;
        rest = more;
    }
    let Some(kind) = dir::block_type_of(&bytes).filter(|_| dir::owner_of(&bytes) == Some(ino)) else { return Ok(()) };
    let before = (kind.lsn)(&bytes).unwrap_or_default();
    (kind.seal)(&mut bytes, Lsn(before.0.max(lsn.0)));
    let mut rest = bytes.as_slice();
    for (at, n) in pieces {
        let (part, more) = rest.split_at(length(*n));
        target.write_at(part, at.bytes())?;
        rest = more;
    }
    Ok(())
}
