//! The answers from the kernel, for a mounted filesystem.

use super::fsmap::{Mapping, Owner};
use super::{Device, EachFree, EachFreeRealtime, EachMapping, Frag, FragCounter, MapRange, Shape, SpaceBackend, info};
use crate::control::Control;
use crate::error::{Error, ForkKind, Result};
use crate::format::btree::Extent;
use crate::geometry::GeometryReport;
use crate::kernel::abi::{Bulkstat, Fsmap, fsmap_flag, geometry_flag};
use crate::kernel::{FsmapRange, Mounted, Opener, data_extents};
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
            rt_blocks: g.rtblocks,
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

    fn free_realtime(&self, control: &Control<'_>, each: EachFreeRealtime<'_>) -> Result<()> {
        let block = u64::from(self.geometry().blocksize);
        SpaceBackend::fsmap(self, MapRange::of(Device::Realtime), control, &mut |m| match m.owner {
            Owner::Free => each(m.physical / block, m.length / block),
            _ => ControlFlow::Continue(()),
        })
    }

    fn fsmap(&self, range: MapRange, control: &Control<'_>, each: EachMapping<'_>) -> Result<()> {
        let data = self.device()?;
        let g = self.geometry();
        let total = g.datablocks.saturating_mul(g.blocksize.into());
        let mut broken = false;
        let mut steps = 0u64;
        let of = |device: u32| FsmapRange { device: Some(device), first: range.first, last: range.last };
        let mut take = |r: &Fsmap| {
            if steps.is_multiple_of(4096) {
                control.tell("mappings", r.physical, Some(total));
            }
            steps += 1;
            let flow = each(&mapping(r, Device::Data));
            broken = flow.is_break();
            flow
        };
        if range.wants(Device::Data) {
            self.fsmap(of(data), control, &mut take)?;
        }
        if broken || range.device == Some(Device::Data) || g.logstart != 0 && g.rtblocks == 0 {
            return Ok(());
        }
        // The kernel's numbers of the other devices are found out from what it tells of them.
        let mut others: Vec<(u32, Device)> = Vec::new();
        self.fsmap(FsmapRange::ALL, control, &mut |r| {
            if r.device != data && others.last().is_none_or(|(d, _)| *d != r.device) {
                let log = mapping(r, Device::Log).owner == Owner::Log;
                others.push((r.device, if log { Device::Log } else { Device::Realtime }));
            }
            ControlFlow::Continue(())
        })?;
        others.retain(|(_, d)| range.wants(*d));
        others.sort_unstable_by_key(|(_, d)| *d);
        for (number, device) in others {
            self.fsmap(of(number), control, &mut |r| {
                let flow = each(&mapping(r, device));
                broken = flow.is_break();
                flow
            })?;
            if broken {
                break;
            }
        }
        Ok(())
    }

    fn frag(&self, control: &Control<'_>) -> Result<Frag> {
        let opener = self.opener()?;
        let mut frag = Frag::default();
        let mut ideal = Ideal { mounted: self, opener, counter: FragCounter::default(), closed: Vec::new() };
        let mut failed = Ok(());
        self.bulkstat(Ino(0), control, &mut |s| {
            let (data, attr) = (data_extents(s), u64::from(s.aextents));
            frag.inodes += 1;
            frag.forks += u64::from(data > 0) + u64::from(attr > 0);
            frag.actual = frag.actual.saturating_add(data).saturating_add(attr);
            failed = ideal.take(s, control);
            if frag.inodes.is_multiple_of(4096) {
                control.tell("inodes", frag.inodes, None);
            }
            if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        failed?;
        frag.ideal = ideal.total(control)?;
        Ok(frag)
    }
}

/// Counts the fewest extents that files need. Those of one extent need it; of the others the kernel is asked where they are.
struct Ideal<'m> {
    mounted: &'m Mounted,
    opener: Opener<'m>,
    counter: FragCounter,
    /// Inodes with more than one extent of attributes that cannot be opened: links, sockets, devices.
    closed: Vec<u64>,
}

impl Ideal<'_> {
    fn take(&mut self, s: &Bulkstat, control: &Control<'_>) -> Result<()> {
        const TYPE: u16 = 0o170_000;
        let openable = matches!(s.mode & TYPE, 0o100_000 | 0o040_000);
        let mut file = None;
        for (kind, extents) in [(ForkKind::Data, data_extents(s)), (ForkKind::Attr, s.aextents.into())] {
            if extents <= 1 || !openable && kind == ForkKind::Data {
                // What is not a file or directory has no holes.
                self.counter.ideal += extents.min(1);
                continue;
            }
            if !openable {
                self.closed.push(s.ino);
                continue;
            }
            if file.is_none() {
                file = self.opener.open(Ino(s.ino), s.generation)?;
            }
            let Some(file) = &file else {
                self.counter.ideal += 1;
                continue;
            };
            let counter = &mut self.counter;
            self.mounted.extents(file, kind, control, &mut |e| {
                counter.add(e);
                ControlFlow::Continue(())
            })?;
            counter.next_fork();
        }
        Ok(())
    }

    /// The sum; none where it cannot be told: reverse mappings alone know of the files that cannot be opened.
    fn total(mut self, control: &Control<'_>) -> Result<Option<u64>> {
        if self.closed.is_empty() {
            return Ok(Some(self.counter.ideal));
        }
        if !self.mounted.has(geometry_flag::RMAPBT) {
            return Ok(None);
        }
        self.closed.sort_unstable();
        let mut extents = Vec::new();
        SpaceBackend::fsmap(self.mounted, MapRange::of(Device::Data), control, &mut |m| {
            if let Owner::Inode(ino) = m.owner
                && m.attr_fork
                && !m.extent_map
                && self.closed.binary_search(&ino.0).is_ok()
            {
                extents.push((ino, m.offset, m.length));
            }
            ControlFlow::Continue(())
        })?;
        extents.sort_unstable();
        let mut last = None;
        for (ino, offset, count) in extents {
            if last.replace(ino) != Some(ino) {
                self.counter.next_fork();
            }
            self.counter.add(&Extent { offset, start: 0, count, unwritten: false });
        }
        Ok(Some(self.counter.ideal))
    }
}
