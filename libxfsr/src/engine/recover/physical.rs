//! Physical replay, and what it takes to make the result readable.

use super::Targets;
use crate::cache::OnDamage;
use crate::control::Control;
use crate::error::{Error, ForkKind, Result};
use crate::format::ag::{AGF, AGI, Agf, Agi};
use crate::format::counters::Counters;
use crate::format::dir;
use crate::format::log::items::ItemType;
use crate::format::superblock::{SUPERBLOCK, Superblock};
use crate::inode::{Inode, file, fork};
use crate::journal::{Replayed, replay_if};
use crate::realtime::free_runs;
use crate::target::Target;
use crate::units::{AgNumber, BASIC_BLOCK, Daddr, FileBlock, Ino, Lsn};
use crate::volume::Volume;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use zerocopy::FromBytes;

/// Replays the log onto the data device, and seals what the journal could not. Nothing is flushed.
///
/// # Errors
/// As [`replay_if`].
pub(super) fn replay_onto(targets: &Targets, accept: Accept<'_>, control: &Control<'_>) -> Result<Replayed> {
    let replayed = replay_if(&targets.open(control)?, &*targets.data, control, accept)?;
    if !replayed.pieces.is_empty() {
        // Opened anew: what was replayed may have changed the superblock.
        seal_pieces(&targets.open(control)?, &*targets.data, &replayed, control)?;
    }
    Ok(replayed)
}

/// What decides, by the kinds of intents that will be pending, whether anything is written.
pub(super) type Accept<'a> = &'a mut dyn FnMut(&BTreeSet<ItemType>) -> Result<()>;

/// While a filesystem is in use the superblock's counters are kept in memory, and what the log has of them is of any time: they are the sums
/// of what the AGs say. Where these, or the bitmap of the realtime device, cannot be used, the counters stay as they are, and the answer is why.
pub(super) fn recount(volume: &Volume, target: &dyn Target, control: &Control<'_>) -> Result<Option<Error>> {
    let g = &volume.geometry;
    if volume.superblock_from != AgNumber(0) {
        // It would get a checksum that hides what is wrong with it.
        return Ok(Some(Error::unsupported("the primary superblock cannot be used")));
    }
    let sums = match counters(volume, control) {
        Err(Error::Stopped) => return Err(Error::Stopped),
        sums => sums,
    };
    let extents = match free_extents(volume, control) {
        Err(Error::Stopped) => return Err(Error::Stopped),
        extents => extents,
    };
    let mut sector = vec![0; g.sector_size as usize];
    target.read_at(&mut sector, 0)?;
    let Ok((sb, _)) = Superblock::mut_from_prefix(&mut sector) else {
        return Ok(Some(Error::invalid("a sector that holds no superblock")));
    };
    if let Ok(sums) = &sums {
        sb.set_counters(sums);
    }
    if let Ok(Some(extents)) = extents {
        sb.frextents.set(extents);
    }
    let lsn = Lsn(sb.lsn.get());
    (SUPERBLOCK.seal)(&mut sector, lsn);
    target.write_at(&sector, 0)?;
    Ok(sums.err().or(extents.err()))
}

/// What all AGs count.
pub(super) fn counters(volume: &Volume, control: &Control<'_>) -> Result<Counters> {
    if let Some(short) = volume.shortfall() {
        return Err(short.into());
    }
    let mut sums = Counters::default();
    for ag in volume.ags() {
        control.check()?;
        let (agf, agi) =
            (volume.ag_header(ag, 1, &AGF, OnDamage::Fail)?, volume.ag_header(ag, 2, &AGI, OnDamage::Fail)?);
        let short = || Error::invalid("a sector that holds no AG header");
        let (agf, _) = Agf::ref_from_prefix(&agf).map_err(|_| short())?;
        let (agi, _) = Agi::ref_from_prefix(&agi).map_err(|_| short())?;
        sums += Counters::of(agf, agi);
    }
    Ok(sums)
}

/// Free extents of the realtime device; none where there is none.
pub(super) fn free_extents(volume: &Volume, control: &Control<'_>) -> Result<Option<u64>> {
    let g = &volume.geometry;
    if g.rt_groups > 0 {
        return Err(Error::unsupported("the free extents of realtime groups are not counted"));
    }
    if g.rt_extents == 0 {
        return Ok(None);
    }
    let mut extents = 0;
    free_runs(volume, Ino(volume.superblock.rbmino.get()), g.rt_extents, control, &mut |_, n| {
        extents += n;
        ControlFlow::Continue(())
    })?;
    Ok(Some(extents))
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

#[cfg(test)]
mod tests {
    use super::recount;
    use crate::control::Control;
    use crate::error::{Error, Rule};
    use crate::format::superblock::{SUPERBLOCK, Superblock};
    use crate::mkfs::{Devices, Options, plan, write};
    use crate::target::{Target, Xfile};
    use crate::units::{AgNumber, Lsn};
    use crate::volume::Volume;
    use std::sync::Arc;
    use zerocopy::FromBytes;

    const SECTOR: usize = 512;

    /// A filesystem whose superblock says that ten times as many inodes are free.
    fn stale() -> (Arc<Xfile>, Superblock) {
        let target = Arc::new(Xfile::new("recount").unwrap());
        target.set_len(320 << 20).unwrap();
        let plan = plan(&Options::default(), &Devices::file(target.len())).unwrap();
        let targets = write::Targets { data: &*target, log: None, rt: None };
        write::write(&plan, &targets, &write::WriteOptions::default(), &Control::none()).unwrap();
        let right = counters(&*target);
        let mut sector = [0; SECTOR];
        target.read_at(&mut sector, 0).unwrap();
        let (sb, _) = Superblock::mut_from_prefix(&mut sector).unwrap();
        sb.icount.set(right.icount.get() * 10);
        sb.ifree.set(right.ifree.get() * 10);
        sb.fdblocks.set(1);
        (SUPERBLOCK.seal)(&mut sector, Lsn(0));
        target.write_at(&sector, 0).unwrap();
        (target, right)
    }

    fn counters(target: &dyn Target) -> Superblock {
        let mut sector = [0; SECTOR];
        target.read_at(&mut sector, 0).unwrap();
        Superblock::read_from_prefix(&sector).unwrap().0
    }

    fn open(target: &Arc<Xfile>) -> Volume {
        Volume::from_targets(target.clone(), None, None, 1 << 20).unwrap()
    }

    #[test]
    fn the_superblock_gets_the_sums_of_the_ags() {
        let (target, right) = stale();
        assert!(recount(&open(&target), &*target, &Control::none()).unwrap().is_none());
        let new = counters(&*target);
        assert_eq!((new.icount, new.ifree, new.fdblocks), (right.icount, right.ifree, right.fdblocks));
        open(&target);
    }

    #[test]
    fn where_a_header_cannot_be_used_that_is_told() {
        let (target, _) = stale();
        let volume = open(&target);
        let agi = volume.geometry.header_daddr(AgNumber(2), 2).bytes();
        target.write_at(&[0; SECTOR], agi).unwrap();
        let why = recount(&volume, &*target, &Control::none()).unwrap();
        assert!(matches!(&why, Some(Error::Corrupt(c)) if c.structure == "agi" && c.rule == Rule::Magic), "{why:?}");
        assert_eq!(counters(&*target).fdblocks.get(), 1);
    }

    #[test]
    fn a_superblock_that_cannot_be_used_is_left_alone() {
        let (target, _) = stale();
        target.write_at(&[0xff; 8], 64).unwrap();
        let volume = open(&target);
        assert_eq!(volume.superblock_from, AgNumber(1));
        assert!(recount(&volume, &*target, &Control::none()).unwrap().is_some());
        assert_eq!(counters(&*target).fdblocks.get(), 1);
    }
}
