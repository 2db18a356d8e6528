//! The answers from the kernel, for a mounted filesystem.

use super::fsmap::{Mapping, Owner};
use super::{Device, EachFree, EachMapping, Frag, FragCounter, Shape, SpaceBackend, info};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::btree::Extent;
use crate::geometry::GeometryReport;
use crate::kernel::abi::{Fsmap, fsmap_flag, geometry_flag};
use crate::kernel::{FsmapRange, Mounted, data_extents};
use crate::units::{AgBlock, AgNumber, Ino};
use std::ops::ControlFlow;

fn mapping(r: &Fsmap, device: Device) -> Mapping {
    let has = |f: u32| r.flags & f != 0;
    let special = has(fsmap_flag::SPECIAL_OWNER);
    let owner = if special { Owner::from_fsmap(r.owner) } else { Owner::Inode(Ino(r.owner)) };
    Mapping {
        device,
        physical: r.physical,
        length: r.length,
        owner,
        offset: if special { 0 } else { r.offset },
        attr_fork: has(fsmap_flag::ATTR_FORK),
        extent_map: has(fsmap_flag::EXTENT_MAP),
        unwritten: has(fsmap_flag::PREALLOC),
        shared: has(fsmap_flag::SHARED),
    }
}

impl SpaceBackend for Mounted {
    fn shape(&self) -> Shape {
        let g = self.geometry();
        Shape {
            block_size: g.blocksize,
            ag_count: g.agcount,
            ag_blocks: g.agblocks,
            blocks: g.datablocks,
            rmapbt: self.has(geometry_flag::RMAPBT),
        }
    }

    fn info(&self) -> Result<GeometryReport> {
        info::info_of_mounted(self)
    }

    fn free_space(&self, ag: AgNumber, control: &Control<'_>, each: EachFree<'_>) -> Result<()> {
        let g = self.geometry();
        if ag.0 >= g.agcount {
            return Err(Error::invalid(format!("AG {ag} does not exist: there are {}", g.agcount)));
        }
        let block = u64::from(g.blocksize);
        let first = u64::from(ag.0) * u64::from(g.agblocks);
        let end = (first + u64::from(g.agblocks)).min(g.datablocks);
        if first >= end {
            return Ok(());
        }
        let range = FsmapRange { device: Some(self.device()?), first: first * block, last: end * block - 1 };
        self.fsmap(range, control, &mut |r| {
            if r.flags & fsmap_flag::SPECIAL_OWNER == 0 || Owner::from_fsmap(r.owner) != Owner::Free {
                return ControlFlow::Continue(());
            }
            let low = (r.physical / block).max(first);
            let high = (r.physical.saturating_add(r.length) / block).min(end);
            if low >= high {
                return ControlFlow::Continue(());
            }
            // Both lie in one AG, whose blocks are counted in 32 bits.
            each(ag, AgBlock((low - first) as u32), (high - low) as u32)
        })
    }

    fn fsmap(&self, only: Option<Device>, control: &Control<'_>, each: EachMapping<'_>) -> Result<()> {
        let data = self.device()?;
        let g = self.geometry();
        let total = g.datablocks.saturating_mul(g.blocksize.into());
        let mut broken = false;
        let mut steps = 0u64;
        let range = FsmapRange { device: Some(data), first: 0, last: u64::MAX };
        let mut take = |r: &Fsmap| {
            if steps.is_multiple_of(4096) {
                control.tell("mappings", r.physical, Some(total));
            }
            steps += 1;
            let flow = each(&mapping(r, Device::Data));
            broken = flow.is_break();
            flow
        };
        if only.is_none_or(|o| o == Device::Data) {
            self.fsmap(range, control, &mut take)?;
        }
        if broken || only == Some(Device::Data) || g.logstart != 0 && g.rtblocks == 0 {
            return Ok(());
        }
        self.fsmap(FsmapRange::ALL, control, &mut |r| {
            if r.device == data {
                return ControlFlow::Continue(());
            }
            let m = mapping(r, Device::Realtime);
            let device = if m.owner == Owner::Log { Device::Log } else { Device::Realtime };
            if only.is_some_and(|o| o != device) {
                return ControlFlow::Continue(());
            }
            each(&Mapping { device, ..m })
        })
    }

    fn frag(&self, control: &Control<'_>) -> Result<Frag> {
        let mut frag = Frag::default();
        let mut fragmented = Vec::new();
        self.bulkstat(Ino(0), control, &mut |s| {
            let (data, attr) = (data_extents(s), u64::from(s.aextents));
            frag.inodes += 1;
            frag.forks += u64::from(data > 0) + u64::from(attr > 0);
            frag.actual = frag.actual.saturating_add(data).saturating_add(attr);
            if data + attr > 0 {
                fragmented.push(s.ino);
            }
            if frag.inodes.is_multiple_of(4096) {
                control.tell("inodes", frag.inodes, None);
            }
            ControlFlow::Continue(())
        })?;
        if !self.has(geometry_flag::RMAPBT) || self.geometry().rtblocks > 0 {
            return Ok(frag);
        }
        let mut extents = Vec::new();
        SpaceBackend::fsmap(self, Some(Device::Data), control, &mut |m| {
            if let Owner::Inode(ino) = m.owner
                && !m.extent_map
                && fragmented.binary_search(&ino.0).is_ok()
            {
                extents.push((ino, m.attr_fork, m.offset, m.length));
            }
            ControlFlow::Continue(())
        })?;
        extents.sort_unstable();
        let mut counter = FragCounter::default();
        let mut fork = None;
        for (ino, attr, offset, count) in extents {
            if fork.replace((ino, attr)) != Some((ino, attr)) {
                counter.next_fork();
            }
            counter.add(&Extent { offset, start: 0, count, unwritten: false });
        }
        frag.ideal = Some(counter.ideal);
        Ok(frag)
    }
}
