//! The realtime device of an image, with realtime groups or without.

use super::Device;
use super::fsmap::{Mapping, is_shared};
use crate::btree::kinds::Rmap;
use crate::btree::walk;
use crate::cache::OnDamage;
use crate::control::Control;
use crate::dir;
use crate::error::{Corruption, Error, Result, Rule};
use crate::inode::Inode;
use crate::inode::fork::{ForkStore, MetaTree};
use crate::realtime;
use crate::units::Ino;
use crate::volume::Volume;
use std::ops::ControlFlow;

/// A realtime group.
struct Group<'v> {
    volume: &'v Volume,
    number: u32,
    /// Its first block, counted from the start of the device.
    first: u64,
    /// Its realtime extents.
    extents: u64,
}

impl Group<'_> {
    /// One of its files.
    fn file(&self, kind: &str) -> Result<Ino> {
        let root = Ino(self.volume.superblock.metadirino.get());
        dir::resolve(self.volume, root, format!("rtgroups/{}.{kind}", self.number).as_bytes())
    }

    fn tree(&self, kind: &str, tree: MetaTree) -> Result<ForkStore<'_>> {
        let ino = self.file(kind)?;
        let inode = Inode::read(self.volume, ino, OnDamage::Fail)?;
        if MetaTree::of(&inode.core) != Some(tree) {
            let c = Corruption::new("inode", "metatype", Rule::Mismatch).in_inode(ino);
            return Err(c.expected(format_args!("that of rtgroups/{}.{kind}", self.number)).into());
        }
        Ok(ForkStore::metadata(self.volume, ino, &inode.bytes, tree))
    }
}

fn groups(volume: &Volume) -> Result<impl Iterator<Item = Group<'_>>> {
    let g = &volume.geometry;
    if g.features.zoned() {
        return Err(Error::unsupported(
            "which blocks of a zoned device are free is not read from an image; ask for the data device alone",
        ));
    }
    let extents = u64::from(g.rt_group_extents);
    Ok((0..g.rt_groups).map(move |number| {
        let before = u64::from(number) * extents;
        Group {
            volume,
            number,
            first: before.saturating_mul(g.rt_extent_size.into()),
            extents: g.rt_extents.saturating_sub(before).min(extents),
        }
    }))
}

/// Calls `each` with what the bitmaps call free: first block and blocks.
pub(super) fn free(
    volume: &Volume,
    control: &Control<'_>,
    each: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<()> {
    let g = &volume.geometry;
    let unit = u64::from(g.rt_extent_size);
    control.check()?;
    if g.rt_blocks == 0 {
        return Ok(());
    }
    if g.rt_groups == 0 {
        let bitmap = Ino(volume.superblock.rbmino.get());
        return realtime::free_runs(volume, bitmap, g.rt_extents, control, &mut |start, count| {
            each(start.0.saturating_mul(unit), count.saturating_mul(unit))
        });
    }
    let mut broken = false;
    for group in groups(volume)? {
        control.check()?;
        control.tell("realtime groups", group.number.into(), Some(g.rt_groups.into()));
        realtime::free_runs(volume, group.file("bitmap")?, group.extents, control, &mut |start, count| {
            let start = group.first.saturating_add(start.0.saturating_mul(unit));
            let flow = each(start, count.saturating_mul(unit));
            broken = flow.is_break();
            flow
        })?;
        if broken {
            break;
        }
    }
    Ok(())
}

/// Calls `each` with the reverse mappings of all groups.
pub(super) fn mappings(
    volume: &Volume,
    control: &Control<'_>,
    each: &mut dyn FnMut(&Mapping) -> ControlFlow<()>,
) -> Result<()> {
    let g = &volume.geometry;
    let mut broken = false;
    for group in groups(volume)? {
        control.check()?;
        control.tell("realtime groups", group.number.into(), Some(g.rt_groups.into()));
        let store = group.tree("rmap", MetaTree::Rmap)?;
        let counts = if g.features.reflink() { Some(group.tree("refcount", MetaTree::Refcount)?) } else { None };
        let blocks = group.extents.saturating_mul(g.rt_extent_size.into());
        walk::<Rmap, _>(&store, control, &mut |r| {
            let (start, count) = (r.startblock.get(), r.blockcount.get());
            if count == 0 || u64::from(start) + u64::from(count) > blocks {
                let c = Corruption::new("rtrmapbt", "startblock", Rule::Range).found(format_args!("{start}+{count}"));
                let c = c.expected(format_args!("inside the {blocks} blocks of realtime group {}", group.number));
                return Err(c.into());
            }
            let physical = group.first.saturating_add(start.into()).saturating_mul(g.block_size.into());
            let mut m = Mapping::of_record(Device::Realtime, physical, r, g.block_log);
            if let Some(counts) = &counts {
                m.shared = m.may_be_shared() && is_shared(counts, r)?;
            }
            let flow = each(&m);
            broken = flow.is_break();
            Ok(flow)
        })?;
        if broken {
            break;
        }
    }
    Ok(())
}
