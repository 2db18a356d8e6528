//! Intents that were found in the log: checked against the filesystem, and made the steps that they stand for.

use super::Recovered;
use crate::attr;
use crate::control::Control;
use crate::error::{Corruption, Error, ForkKind, Result, Rule};
use crate::format::btree::{Extent, MAX_EXTENT, MAX_FILE_BLOCK, owner};
use crate::format::log::items::{
    BmapFlags, BmapOp, ItemType, MapExtent, PhysExtent, RefcountOp, RmapOp, efi_item, intent_extents,
};
use crate::geometry::Geometry;
use crate::inode::MapStep;
use crate::inode::data::Exchange;
use crate::journal::PendingIntent;
use crate::space::{CountChange, CountChanges, FreeExtents, MapChanges, Mapping, RmapOwner, Space};
use crate::txn::{Deferred, Scope};
use crate::units::{FsBlock, Ino};
use std::sync::Arc;

/// Whether intents of a kind can be finished.
pub(super) fn is_known(kind: ItemType) -> bool {
    use ItemType::{Attri, Bui, Cui, Efi, Rui, Xmi};
    matches!(kind, Efi | Rui | Cui | Bui | Attri | Xmi)
}

/// The refusal of a kind.
pub(super) fn unknown(kind: ItemType) -> Error {
    Error::unsupported(format!(
        "the log holds intents ({}) that this program cannot finish: mount it with Linux",
        kind.name()
    ))
}

/// Begins all in the order of the log, then ends what they have left to do.
pub(super) fn finish(
    scope: &Scope,
    space: &Arc<Space>,
    pending: &[PendingIntent],
    done: &mut Recovered,
    control: &Control<'_>,
) -> Result<()> {
    let g = &scope.volume().geometry;
    // All are looked at before anything is changed.
    let steps: Vec<Box<dyn Deferred>> = pending.iter().map(|p| step(space, g, p)).collect::<Result<_>>()?;
    let mut begun = Vec::new();
    for (p, step) in pending.iter().zip(steps) {
        control.check()?;
        begun.push(scope.recover(p.id, step).map_err(|e| which(p, e))?);
    }
    for (p, rest) in pending.iter().zip(begun) {
        control.check()?;
        scope.finish(rest).map_err(|e| which(p, e))?;
        *done.intents.entry(p.kind.name()).or_default() += 1;
    }
    Ok(())
}

/// Says of a damage which intent it contradicts.
fn which(p: &PendingIntent, e: Error) -> Error {
    match e {
        Error::Corrupt(mut c) => {
            let before = if c.found.is_empty() { String::new() } else { format!("{}, ", c.found) };
            c.found = format!("{before}when {} {:#x} of the log was finished", p.kind.name(), p.id);
            Error::Corrupt(c)
        }
        e => e,
    }
}

/// A rule that an intent breaks.
fn bad(p: &PendingIntent, rule: Rule) -> Box<Corruption> {
    Corruption::new("log", p.kind.name(), rule)
}

/// Checks an extent.
fn extent(g: &Geometry, p: &PendingIntent, start: u64, count: u32) -> Result<FsBlock> {
    let at = FsBlock(start);
    let (ag, block) = g.split(at);
    if count > 0 && ag.0 < g.ag_count && g.is_valid_agextent(ag, block, count) {
        return Ok(at);
    }
    let c = bad(p, Rule::Range).found(format_args!("{count} blocks at {start} in intent {:#x}", p.id));
    Err(c.expected("an extent of an AG").into())
}

fn features(p: &PendingIntent, has: bool, what: &'static str) -> Result<()> {
    if has {
        return Ok(());
    }
    let c = bad(p, Rule::Extra).found(format_args!("intent {:#x}", p.id));
    Err(c.expected(format_args!("a filesystem with {what}")).into())
}

fn none(p: &PendingIntent) -> Error {
    bad(p, Rule::Count).found(format_args!("intent {:#x} of nothing", p.id)).expected("at least one extent").into()
}

/// The step that an intent stands for.
fn step(space: &Arc<Space>, g: &Geometry, p: &PendingIntent) -> Result<Box<dyn Deferred>> {
    let first = p.regions.first().map_or(&[][..], Vec::as_slice);
    match p.kind {
        ItemType::Efi => {
            let (_, logged) = efi_item(first)?;
            let extents = logged.iter().map(|(start, n)| Ok((extent(g, p, *start, *n)?, *n)));
            let mut extents: Vec<(FsBlock, u32)> = extents.collect::<Result<_>>()?;
            extents.sort_unstable();
            if extents.is_empty() {
                return Err(none(p));
            }
            // Whose they were is not logged, and whether the mapping is gone already neither.
            Ok(FreeExtents::any(space.clone(), g, extents, Some(RmapOwner::UNKNOWN)))
        }
        ItemType::Rui => {
            features(p, g.features.rmapbt(), "reverse mappings")?;
            let (_, logged) = intent_extents::<MapExtent>(first)?;
            let changes: Vec<Mapping> = logged.iter().map(|m| mapping(g, p, m)).collect::<Result<_>>()?;
            if changes.is_empty() { Err(none(p)) } else { Ok(MapChanges::any(space.clone(), g, changes)) }
        }
        ItemType::Cui => {
            features(p, g.features.reflink(), "reference counts")?;
            let (_, logged) = intent_extents::<PhysExtent>(first)?;
            let changes = logged.iter().map(|e| {
                let op = RefcountOp::from_flags(e.flags.get()).ok_or_else(|| bad(p, Rule::Flags))?;
                let start = extent(g, p, e.startblock.get(), e.len.get())?;
                Ok(CountChange { op, start, blocks: e.len.get() })
            });
            let changes: Vec<CountChange> = changes.collect::<Result<_>>()?;
            if changes.is_empty() { Err(none(p)) } else { Ok(CountChanges::any(space.clone(), g, changes)) }
        }
        ItemType::Attri => Ok(attr::change::Change::from_logged(space, g, &p.regions)?),
        ItemType::Bui => {
            let (_, logged) = intent_extents::<MapExtent>(first)?;
            let [change] = logged else {
                let c = bad(p, Rule::Count).found(format_args!("{} changes in intent {:#x}", logged.len(), p.id));
                return Err(c.expected(1).into());
            };
            file_map(space, g, p, change)
        }
        ItemType::Xmi => {
            features(p, g.features.exchange_range(), "exchange of ranges")?;
            Ok(Exchange::from_logged(space.clone(), g, first)?)
        }
        kind => Err(unknown(kind)),
    }
}

/// A change of a file's map.
fn file_map(space: &Arc<Space>, g: &Geometry, p: &PendingIntent, m: &MapExtent) -> Result<Box<dyn Deferred>> {
    let op = BmapOp::from_flags(m.flags.get()).ok_or_else(|| bad(p, Rule::Flags))?;
    let flags = BmapFlags::from_bits_truncate(m.flags.get());
    if flags.contains(BmapFlags::REALTIME) {
        return Err(Error::unsupported(
            "the log holds intents (bui) of files on the realtime device: mount it with Linux",
        ));
    }
    let ino = inode(g, p, m.owner.get())?;
    let (start, offset, count) = (extent(g, p, m.startblock.get(), m.len.get())?, m.startoff.get(), m.len.get().into());
    if count > MAX_EXTENT || offset.checked_add(count).is_none_or(|end| end > MAX_FILE_BLOCK) {
        let c = bad(p, Rule::Range).found(format_args!("{count} blocks at file block {offset} in intent {:#x}", p.id));
        return Err(c.expected("an extent of a file").into());
    }
    let kind = if flags.contains(BmapFlags::ATTR_FORK) { ForkKind::Attr } else { ForkKind::Data };
    let extent = Extent { offset, start: start.0, count, unwritten: flags.contains(BmapFlags::UNWRITTEN) };
    Ok(MapStep::new(space.clone(), g, (ino, kind), op, extent))
}

/// The number of an inode that there can be.
fn inode(g: &Geometry, p: &PendingIntent, number: u64) -> Result<Ino> {
    if g.is_valid_ino(Ino(number)) {
        return Ok(Ino(number));
    }
    let c = bad(p, Rule::Owner).found(format_args!("inode {number} in intent {:#x}", p.id));
    Err(c.expected("a number that an inode can have").into())
}

/// A change of a reverse mapping, whose owner there can be.
fn mapping(g: &Geometry, p: &PendingIntent, m: &MapExtent) -> Result<Mapping> {
    let op = RmapOp::from_flags(m.flags.get()).ok_or_else(|| bad(p, Rule::Flags))?;
    extent(g, p, m.startblock.get(), m.len.get())?;
    let who = m.owner.get();
    let special = (owner::MIN + 1..=owner::FS).contains(&who);
    if !special {
        inode(g, p, who)?;
    }
    let end = m.startoff.get().checked_add(m.len.get().into());
    if end.is_none_or(|e| e > 1 << 54) {
        let c = bad(p, Rule::Range).found(format_args!("offset {} in intent {:#x}", m.startoff, p.id));
        return Err(c.expected("less than 2^54").into());
    }
    Ok(Mapping::from_logged(m, op))
}
