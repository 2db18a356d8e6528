//! The answers from the bytes of an unmounted filesystem.

use super::fsmap::{Mapping, Owner};
use super::{Device, EachFree, EachMapping, Frag, FragCounter, Shape, SpaceBackend};
use crate::btree::kinds::{Bno, Refcount, Rmap};
use crate::btree::{query, walk};
use crate::cache::OnDamage;
use crate::control::Control;
use crate::error::{Corruption, Error, ForkKind, Result, Rule};
use crate::format::Context;
use crate::format::btree::{
    REFCOUNT_COW, RMAP_ATTR_FORK, RMAP_BMBT_BLOCK, RMAP_OFFSET_MASK, RMAP_UNWRITTEN, RefcountKey, RmapRec,
};
use crate::format::inode::{Dinode, verify_dinode};
use crate::geometry::GeometryReport;
use crate::inode::scan;
use crate::realtime;
use crate::space::{AgStore, AgTree};
use crate::units::{AgBlock, AgNumber, Ino};
use crate::volume::Volume;
use std::ops::ControlFlow;
use zerocopy::big_endian::U32;

/// An image or device, read directly.
#[derive(Debug)]
pub struct Image {
    volume: Volume,
    name: String,
}

/// Turns extents in ascending order into mappings without gaps.
struct Gaps<'a, 'e> {
    device: Device,
    next: u64,
    gap: Owner,
    broken: bool,
    each: &'a mut (dyn FnMut(&Mapping) -> ControlFlow<()> + 'e),
}

impl Gaps<'_, '_> {
    fn emit(&mut self, m: &Mapping) -> ControlFlow<()> {
        if m.physical > self.next {
            let gap = Mapping::special(self.device, self.next, m.physical - self.next, self.gap);
            if (self.each)(&gap).is_break() {
                self.broken = true;
                return ControlFlow::Break(());
            }
        }
        self.next = self.next.max(m.physical.saturating_add(m.length));
        if m.length > 0 && (self.each)(m).is_break() {
            self.broken = true;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
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

    /// Whether the refcountbt has a shared extent in that range.
    fn is_shared(&self, refcount: &AgStore<'_>, start: u32, count: u32) -> Result<bool> {
        let key = |b: u32| RefcountKey { startblock: U32::new(b) };
        let mut shared = false;
        let last = start.saturating_add(count.saturating_sub(1));
        query::<Refcount, _>(refcount, &key(start), &key(last), &mut |r| {
            shared = r.startblock.get() & REFCOUNT_COW == 0 && r.refcount.get() > 1;
            if shared { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(shared)
    }

    fn mapping(&self, ag: AgNumber, r: &RmapRec, refcount: Option<&AgStore<'_>>) -> Result<Mapping> {
        let log = self.volume.geometry.block_log;
        let (start, count) = (r.startblock.get(), r.blockcount.get());
        let length = u64::from(count) << log;
        let owner = Owner::from_rmap(r.owner.get());
        let mut m = Mapping::special(Device::Data, self.physical(ag, AgBlock(start)), length, owner);
        if matches!(owner, Owner::Inode(_)) {
            let offset = r.offset.get();
            m.attr_fork = offset & RMAP_ATTR_FORK != 0;
            m.extent_map = offset & RMAP_BMBT_BLOCK != 0;
            m.unwritten = offset & RMAP_UNWRITTEN != 0;
            // What the kernel answers: a block of the extent map has no place in the file.
            m.offset = if m.extent_map { 0 } else { (offset & RMAP_OFFSET_MASK).checked_shl(log.into()).unwrap_or(0) };
            if let Some(refcount) = refcount.filter(|_| !m.attr_fork && !m.extent_map && !m.unwritten) {
                m.shared = self.is_shared(refcount, start, count)?;
            }
        }
        Ok(m)
    }

    /// Mappings of the data device.
    fn data_map(&self, control: &Control<'_>, each: EachMapping<'_>) -> Result<ControlFlow<()>> {
        let g = &self.volume.geometry;
        let rmap = g.features.rmapbt();
        // A gap between reverse mappings is free; a gap between free extents belongs to somebody, and then also goes on
        // from one AG into the next.
        let gap = if rmap { Owner::Free } else { Owner::Unknown };
        let mut gaps = Gaps { device: Device::Data, next: 0, gap, broken: false, each };
        for ag in g.ags() {
            control.check()?;
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
            if gaps.broken {
                return Ok(ControlFlow::Break(()));
            }
        }
        let end = g.blocks << g.block_log;
        Ok(gaps.emit(&Mapping::special(Device::Data, end, 0, Owner::Free)))
    }

    /// Mappings of the realtime device: what the bitmap calls free; who has the rest is not known without reverse mappings.
    fn realtime_map(&self, control: &Control<'_>, each: EachMapping<'_>) -> Result<()> {
        let g = &self.volume.geometry;
        if g.rt_groups > 0 {
            return Err(Error::unsupported(
                "the mappings of realtime groups are not read from an image; mount it and ask the kernel, or ask for the \
                 data device alone",
            ));
        }
        control.check()?;
        let unit = u64::from(g.rt_extent_size) << g.block_log;
        let special = |start: u64, count: u64| {
            Mapping::special(Device::Realtime, start.saturating_mul(unit), count.saturating_mul(unit), Owner::Free)
        };
        let mut gaps = Gaps { device: Device::Realtime, next: 0, gap: Owner::Unknown, broken: false, each };
        let bitmap = Ino(self.volume.superblock.rbmino.get());
        realtime::free_runs(&self.volume, bitmap, g.rt_extents, &mut |start, count| {
            gaps.emit(&special(start.0, count))
        })?;
        if !gaps.broken {
            let _ = gaps.emit(&special(g.rt_extents, 0));
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

    fn fsmap(&self, only: Option<Device>, control: &Control<'_>, each: EachMapping<'_>) -> Result<()> {
        let g = &self.volume.geometry;
        let wanted = |d: Device| only.is_none_or(|o| o == d);
        if wanted(Device::Data) && self.data_map(control, each)?.is_break() {
            return Ok(());
        }
        if wanted(Device::Log) && g.log_start.0 == 0 {
            let length = u64::from(g.log_blocks) << g.block_log;
            if each(&Mapping::special(Device::Log, 0, length, Owner::Log)).is_break() {
                return Ok(());
            }
        }
        if wanted(Device::Realtime) && g.rt_blocks > 0 {
            return self.realtime_map(control, each);
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
