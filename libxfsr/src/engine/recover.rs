//! Recovery: physical replay, and what it takes to make the result readable.

use crate::cache::OnDamage;
use crate::control::Control;
use crate::error::{ForkKind, Result};
use crate::format::dir;
use crate::inode::{Inode, file, fork};
use crate::journal::{Replayed, close, replay};
use crate::target::{Overlay, Target};
use crate::units::{BASIC_BLOCK, Daddr, FileBlock, Ino, Lsn};
use crate::volume::{DEFAULT_CACHE, Volume};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

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

/// Replays the log of a filesystem into an overlay.
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
    let replayed = replay(&open()?, &*overlay, control)?;
    // Opened anew: what was replayed may have changed the superblock.
    let volume = open()?;
    if !replayed.pieces.is_empty() {
        seal_pieces(&volume, &*overlay, &replayed, control)?;
    }
    close(&volume, &replayed.end)?;
    Ok(View { volume: open()?, overlay, replayed })
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
        let step = 1u64 << volume.geometry.dir_block_log;
        let mut blocks = BTreeSet::new();
        fork::extents(volume, *ino, &inode.bytes, ForkKind::Data, (0, u64::MAX), &mut |e| {
            // A directory block lies in pieces where an extent ends inside it.
            blocks.insert(e.offset / step * step);
            blocks.insert((e.offset.saturating_add(e.count).saturating_sub(1)) / step * step);
            ControlFlow::Continue(())
        })?;
        for first in blocks {
            if let Some(pieces) = file::map_blocks(volume, &inode, ForkKind::Data, FileBlock(first), step)? {
                seal_block(target, *ino, &pieces, replayed)?;
            }
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
