//! The answers from the bytes of an unmounted filesystem.

use super::fsmap::{Mapping, Owner, is_shared};
use super::{
    Device, EachFree, EachFreeRealtime, EachMapping, Frag, FragCounter, MapRange, Shape, SpaceBackend, rtgroups,
};
use crate::btree::kinds::{Bno, Rmap};
use crate::btree::walk;
use crate::cache::OnDamage;
use crate::control::Control;
use crate::error::{Corruption, Error, ForkKind, Result, Rule};
use crate::format::Context;
use crate::format::btree::RmapRec;
use crate::format::inode::{Dinode, verify_dinode};
use crate::geometry::GeometryReport;
use crate::inode::scan;
use crate::space::{AgStore, AgTree};
use crate::units::{AgBlock, AgNumber, Ino};
use crate::volume::Volume;
use std::ops::ControlFlow;

/// An image or device, read directly.
#[derive(Debug)]
pub struct Image {
    volume: Volume,
    name: String,
}

/// Turns extents in ascending order into mappings without gaps, those of a range.
struct Gaps<'a, 'e> {
    device: Device,
    range: MapRange,
    next: u64,
    gap: Owner,
    /// The callback wants no more.
    broken: bool,
    /// There is no more to tell.
    over: bool,
    each: &'a mut (dyn FnMut(&Mapping) -> ControlFlow<()> + 'e),
}

impl Gaps<'_, '_> {
    fn emit(&mut self, m: &Mapping) -> ControlFlow<()> {
        // Only gaps are cut to the range, to the sector, as the kernel does.
        let (low, end) = (self.next.max(self.range.first), m.physical.min(self.range.last.saturating_add(1)));
        if end > low {
            self.tell(&Mapping::special(self.device, low, end - low, self.gap))?;
        }
        let after = m.physical.saturating_add(m.length);
        self.next = self.next.max(after);
        if m.physical > self.range.last {
            self.over = true;
            return ControlFlow::Break(());
        }
        if m.length > 0 && after > self.range.first { self.tell(m) } else { ControlFlow::Continue(()) }
    }

    fn tell(&mut self, m: &Mapping) -> ControlFlow<()> {
        let flow = (self.each)(m);
        self.broken = flow.is_break();
        self.over = self.broken;
        flow
    }
}

impl Image {
    /// Over a volume; `name` is what `info` calls it.
    pub fn new(volume: Volume, name: String) -> Self {
        Self { volume, name }
    }

    /// The volume.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    fn store(&self, ag: AgNumber, tree: AgTree) -> Result<AgStore<'_>> {
        AgStore::new(&self.volume, ag, tree, OnDamage::Fail)
    }

    /// Byte address of a block of an AG.
    fn physical(&self, ag: AgNumber, agbno: AgBlock) -> u64 {
        self.volume.geometry.agbno_to_daddr(ag, agbno).bytes()
    }

    fn require_inside(&self, tree: &'static str, ag: AgNumber, start: u32, count: u32) -> Result<()> {
        let end = u64::from(start) + u64::from(count);
        if count > 0 && end <= u64::from(self.volume.geometry.ag_blocks(ag)) {
            return Ok(());
        }
        let c = Corruption::new(tree, "startblock", Rule::Range);
        let range = format_args!("blocks up to {}", self.volume.geometry.ag_blocks(ag));
        Err(c.in_ag(ag, Some(AgBlock(start))).found(format_args!("{count} blocks")).expected(range).into())
    }

    fn mapping(&self, ag: AgNumber, r: &RmapRec, refcount: Option<&AgStore<'_>>) -> Result<Mapping> {
        let physical = self.physical(ag, AgBlock(r.startblock.get()));
        let mut m = Mapping::of_record(Device::Data, physical, r, self.volume.geometry.block_log);
        if let Some(refcount) = refcount {
            m.shared = m.may_be_shared() && is_shared(refcount, r)?;
        }
        Ok(m)
    }

    /// Mappings of the data device.
    fn data_map(&self, range: MapRange, control: &Control<'_>, each: EachMapping<'_>) -> Result<ControlFlow<()>> {
        let g = &self.volume.geometry;
        let rmap = g.features.rmapbt();
        // A gap between reverse mappings is free; a gap between free extents belongs to somebody, and then also goes on
        // from one AG into the next.
        let gap = if rmap { Owner::Free } else { Owner::Unknown };
        let mut gaps = Gaps { device: Device::Data, range, next: 0, gap, broken: false, over: false, each };
        for ag in g.ags() {
            control.check()?;
            // An AG that ends before the range has no part in it; the gap before the next one begins where it ends at the latest.
            let after = self.physical(ag, AgBlock(g.ag_blocks(ag)));
            if after <= range.first {
                gaps.next = after;
                continue;
            }
            control.tell("mappings", ag.0.into(), Some(g.ag_count.into()));
            if rmap {
                let store = self.store(ag, AgTree::Rmap)?;
                let refcount = if g.features.reflink() { Some(self.store(ag, AgTree::Refcount)?) } else { None };
                walk::<Rmap, _>(&store, control, &mut |r| {
                    self.require_inside("rmapbt", ag, r.startblock.get(), r.blockcount.get())?;
                    Ok(gaps.emit(&self.mapping(ag, r, refcount.as_ref())?))
                })?;
            } else {
                self.free_space(ag, control, &mut |ag, agbno, count| {
                    let length = u64::from(count) << g.block_log;
                    gaps.emit(&Mapping::special(Device::Data, self.physical(ag, agbno), length, Owner::Free))
                })?;
            }
            if gaps.over {
                break;
            }
        }
        if gaps.over {
            return Ok(if gaps.broken { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
        }
        let end = g.blocks << g.block_log;
        let _ = gaps.emit(&Mapping::special(Device::Data, end, 0, Owner::Free));
        Ok(if gaps.broken { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// Mappings of the realtime device: what reverse mappings tell; without them what the bitmap calls free, and who has the rest
    /// is not known.
    fn realtime_map(&self, range: MapRange, control: &Control<'_>, each: EachMapping<'_>) -> Result<()> {
        let g = &self.volume.geometry;
        let mapped = g.rt_groups > 0 && g.features.rmapbt();
        let gap = if mapped { Owner::Free } else { Owner::Unknown };
        let mut gaps = Gaps { device: Device::Realtime, range, next: 0, gap, broken: false, over: false, each };
        let bytes = |blocks: u64| blocks.saturating_mul(g.block_size.into());
        if mapped {
            rtgroups::mappings(&self.volume, control, &mut |m| gaps.emit(m))?;
        } else {
            rtgroups::free(&self.volume, control, &mut |start, count| {
                gaps.emit(&Mapping::special(Device::Realtime, bytes(start), bytes(count), Owner::Free))
            })?;
        }
        if !gaps.over {
            let end = g.rt_extents.saturating_mul(g.rt_extent_size.into());
            let _ = gaps.emit(&Mapping::special(Device::Realtime, bytes(end), 0, Owner::Free));
        }
        Ok(())
    }

    /// Whether the inode belongs to the filesystem itself and not to a user.
    fn is_internal(&self, ino: Ino, core: &Dinode) -> bool {
        core.is_metadata() || self.volume.superblock.metadata_kind(ino).is_some()
    }
}

impl SpaceBackend for Image {
    fn shape(&self) -> Shape {
        let g = &self.volume.geometry;
        Shape {
            block_size: g.block_size,
            ag_count: g.ag_count,
            ag_blocks: g.agblocks,
            blocks: g.blocks,
            rt_blocks: g.rt_blocks,
            rmapbt: g.features.rmapbt(),
        }
    }

    fn info(&self) -> Result<GeometryReport> {
        Ok(GeometryReport::of(&self.name, &self.volume.geometry, &self.volume.superblock))
    }

    fn free_space(&self, ag: AgNumber, control: &Control<'_>, each: EachFree<'_>) -> Result<()> {
        let count = self.volume.geometry.ag_count;
        if ag.0 >= count {
            return Err(Error::invalid(format!("AG {ag} does not exist: there are {count}")));
        }
        walk::<Bno, _>(&self.store(ag, AgTree::Bno)?, control, &mut |r| {
            let (start, count) = (r.startblock.get(), r.blockcount.get());
            self.require_inside("bnobt", ag, start, count)?;
            Ok(each(ag, AgBlock(start), count))
        })
    }

    fn free_realtime(&self, control: &Control<'_>, each: EachFreeRealtime<'_>) -> Result<()> {
        rtgroups::free(&self.volume, control, each)
    }

    fn fsmap(&self, range: MapRange, control: &Control<'_>, each: EachMapping<'_>) -> Result<()> {
        let g = &self.volume.geometry;
        if range.wants(Device::Data) && self.data_map(range, control, each)?.is_break() {
            return Ok(());
        }
        if range.wants(Device::Log) && g.log_start.0 == 0 {
            let length = u64::from(g.log_blocks) << g.block_log;
            if range.first < length && each(&Mapping::special(Device::Log, 0, length, Owner::Log)).is_break() {
                return Ok(());
            }
        }
        if range.wants(Device::Realtime) && g.rt_blocks > 0 {
            return self.realtime_map(range, control, each);
        }
        Ok(())
    }

    fn frag(&self, control: &Control<'_>) -> Result<Frag> {
        let g = &self.volume.geometry;
        let (mut frag, mut counter) = (Frag::default(), FragCounter::default());
        let mut one = |ino: Ino, bytes: &[u8]| -> Result<()> {
            let Some(core) = Dinode::from_bytes(bytes) else { return Ok(()) };
            let (ag, agino) = g.split_ino(ino);
            verify_dinode(bytes, ino, &Context::new(g, g.agbno_to_daddr(ag, g.agino_to_block(agino).0)))?;
            if self.is_internal(ino, core) {
                return Ok(());
            }
            frag.inodes += 1;
            for kind in [ForkKind::Data, ForkKind::Attr] {
                let before = counter.actual;
                if kind == ForkKind::Data || core.has_attr_fork() {
                    counter.fork(&self.volume, (ino, bytes), kind, control)?;
                }
                frag.forks += u64::from(counter.actual > before);
            }
            Ok(())
        };
        let mut failed = None;
        scan::for_each_used(&self.volume, control, &mut |seen| match seen.and_then(|(ino, bytes)| one(ino, bytes)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                failed = Some(e);
                ControlFlow::Break(())
            }
        })?;
        if let Some(e) = failed {
            return Err(e);
        }
        frag.actual = counter.actual;
        frag.ideal = Some(counter.ideal);
        Ok(frag)
    }
}
