//! Whole images: open, check, look at the log, read everything, ask for space.

use super::Input;
use super::mutate::{Base, change, seal};
use crate::corpus;
use crate::memory::Memory;
use libxfsr::cache::OnDamage;
use libxfsr::check::survey;
use libxfsr::control::Control;
use libxfsr::dir;
use libxfsr::engine::replayed_view;
use libxfsr::error::ForkKind;
use libxfsr::inode::file::{self, Inode};
use libxfsr::journal::LogState;
use libxfsr::journal::listing::{self, View};
use libxfsr::mkfs::write::{Targets, WriteOptions, write};
use libxfsr::mkfs::{Devices, Options, Topology, plan};
use libxfsr::spaceman::{Bins, Device, Freesp, Image, MapRange, SpaceBackend, collect};
use libxfsr::target::Target;
use libxfsr::units::Ino;
use libxfsr::volume::Volume;
use libxfsr::{attr, journal};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Edits of an image by one input, at most.
const EDITS: usize = 32;
/// Bytes of an edit: which piece, from which other piece, and what [`change`] takes.
const EDIT: usize = 12;
/// Inodes that are read at most.
const INODES: usize = 4000;

/// An empty filesystem that the library itself makes, for machines without kernel and xfsprogs.
pub fn own() -> Memory {
    let size = 300 << 20;
    let mut options = Options::default();
    options.metadata.uuid = Some(*b"xfsr-fuzz-volume");
    options.metadata.rmapbt = Some(true);
    let plan = plan(&options, &Devices::file(size)).expect("plain options");
    let memory = Memory::new(size);
    let when = WriteOptions { discard: false, now: std::time::UNIX_EPOCH };
    write(&plan, &Targets { data: &memory, log: None, rt: None }, &when, &Control::none()).expect("writing to memory");
    memory
}

/// As [`own`], with a metadata directory tree and realtime groups; with its realtime device.
pub fn groups() -> (Memory, Memory) {
    let size = 400 << 20;
    let mut options = Options::default();
    options.metadata.uuid = Some(*b"xfsr-fuzz-groups");
    options.metadata.metadir = Some(true);
    options.metadata.rmapbt = Some(true);
    let rt = Topology::plain(size);
    let plan = plan(&options, &Devices { rt: Some(rt), ..Devices::file(size) }).expect("plain options");
    let (data, rt) = (Memory::new(size), Memory::new(size));
    let when = WriteOptions { discard: false, now: std::time::UNIX_EPOCH };
    write(&plan, &Targets { data: &data, log: None, rt: Some(&rt) }, &when, &Control::none())
        .expect("writing to memory");
    (data, rt)
}

/// The images that inputs change: that of `XFSR_FUZZ_IMAGE`, else the corpus' smallest where it can be made, and two empty ones.
pub fn bases() -> &'static [Base] {
    static BASES: OnceLock<Vec<Base>> = OnceLock::new();
    BASES.get_or_init(|| {
        let path = std::env::var_os("XFSR_FUZZ_IMAGE").map(Into::into);
        let path = path.or_else(|| corpus::obtain("fuzz").map(|d| d.data));
        let kernel = path.map(|p: std::path::PathBuf| load(&p));
        let (data, rt) = groups();
        let own = [Base::new(own(), None), Base::new(data, Some(rt))];
        kernel.into_iter().chain(own.map(|b| b.expect("an image of our own"))).collect()
    })
}

/// The metadata of an image file.
///
/// # Panics
/// Where it is no image.
pub fn load(path: &Path) -> Base {
    Memory::load(path).and_then(|m| Base::new(m, None)).unwrap_or_else(|e| panic!("{}: {e:#}", path.display()))
}

/// A copy of a base with the edits that `bytes` describe, and what was edited.
pub fn edited(base: &Base, bytes: &[u8]) -> (Memory, Option<Memory>, Vec<String>) {
    let (data, rt) = (base.memory.clone(), base.rt.clone());
    let mut done = Vec::new();
    for edit in bytes.chunks_exact(EDIT).take(EDITS) {
        let pick = |i: usize| base.pick(edit[i], edit[i + 1]);
        let (Some(piece), Some(other)) = (pick(0), pick(2)) else { continue };
        let mut bytes = vec![0; piece.length];
        let memory = rt.as_ref().filter(|_| piece.rt).unwrap_or(&data);
        memory.read_at(&mut bytes, piece.offset).expect("inside");
        let how = edit[4..].first_chunk().expect("eight bytes");
        change(&mut bytes, how, &base.bytes(other));
        seal(piece, &mut bytes);
        memory.write_at(&bytes, piece.offset).expect("inside");
        done.push(format!("{} at {}: {how:?} with {} at {}", piece.name, piece.offset, other.name, other.offset));
    }
    (data, rt, done)
}

/// The target: which base, then edits.
pub(super) fn run(input: &Input<'_>) {
    let all = bases();
    let base = &all[usize::from(input.choice) % all.len()];
    let (data, rt, _) = edited(base, input.bytes);
    exercise(data, rt);
}

/// Does with an image all that the library can do with one.
pub fn exercise(data: Memory, rt: Option<Memory>) {
    let rt = rt.map(|rt| Arc::new(rt) as Arc<dyn Target>);
    let data: Arc<dyn Target> = Arc::new(data);
    let Ok(volume) = Volume::from_targets(data.clone(), None, rt.clone(), 8 << 20) else { return };
    log(&volume);
    let dirty = matches!(journal::log_state(&volume, &Control::none()), Ok(LogState::Dirty { .. }));
    examine(volume);
    // What damage in the log makes of the rest.
    if dirty && let Ok(view) = replayed_view(data, None, rt, &Control::none()) {
        examine(view.volume);
    }
}

/// Lists the log: as much as there can be at most, and each entry is data.
fn log(volume: &Volume) {
    let length = u64::from(volume.geometry.log_blocks) << volume.geometry.block_log;
    for view in [View::Recovery, View::Blocks { from: 0 }] {
        let options = listing::Options { view, bytes: true, ..listing::Options::default() };
        let (mut entries, mut told) = (0, 0);
        let listed = listing::list(volume, &options, &Control::none(), &mut |e| {
            entries += 1;
            if entries % 16 == 0 {
                told += serde_json::to_string(&e).expect("data").len() as u64;
            }
            ControlFlow::Continue(())
        });
        // An operation has twelve bytes at least, an item four; pending intents come twice.
        assert!(entries <= length && told <= 64 * length, "{entries} entries, {told} bytes of a log of {length}");
        if let Ok(totals) = listed {
            assert!(totals.records <= length / 512 && totals.pending <= totals.items.values().sum(), "{totals:?}");
        }
    }
}

fn examine(volume: Volume) {
    if let Ok(survey) = survey(&volume, &Control::none()) {
        for f in &survey.outcome.findings {
            assert!(!f.to_string().is_empty() && !f.code().is_empty());
        }
    }
    read_all(&volume);
    space(volume);
}

fn read_all(volume: &Volume) {
    let mut seen = BTreeSet::new();
    let mut todo = vec![volume.geometry.root_ino];
    while let Some(ino) = todo.pop() {
        if !seen.insert(ino) || seen.len() > INODES {
            continue;
        }
        for damage in [OnDamage::Fail, OnDamage::Keep] {
            let Ok(inode) = Inode::read(volume, ino, damage) else { continue };
            read(volume, &inode, damage, &mut todo);
        }
    }
}

fn read(volume: &Volume, inode: &Inode, damage: OnDamage, todo: &mut Vec<Ino>) {
    for kind in [ForkKind::Data, ForkKind::Attr] {
        let _ = inode.extents(volume, kind).map(|all| all.len());
    }
    let _ = attr::list(volume, inode);
    let _ = file::symlink_target(volume, inode);
    if inode.core.is_dir() {
        let mut names = 0;
        let _ = dir::for_each(volume, inode, damage, &mut |seen| {
            if let Ok((_, e)) = seen {
                todo.push(e.ino);
                if names < 20 {
                    let _ = dir::lookup(volume, inode, e.name);
                }
            }
            names += 1;
            if names < 20_000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        return;
    }
    let mut piece = [0; 10_000];
    for offset in [0, inode.size() / 2, inode.size().saturating_sub(100), u64::MAX - 50] {
        let _ = file::read_at(volume, inode, offset, &mut piece);
    }
}

fn space(volume: Volume) {
    let image = Image::new(volume, "image".into());
    let none = Control::none();
    let _ = image.info().map(|i| i.render());
    let _ = image.frag(&none).map(|f| f.factor() + f.average());
    for realtime in [false, true] {
        let what = Freesp { realtime, ags: Vec::new(), bins: Bins::Powers(2), each_extent: false };
        let _ = collect(&image, &what, &none).map(|s| s.average());
    }
    let part = |device| MapRange { device: Some(device), first: 1 << 20, last: (20 << 20) + 511 };
    for range in [MapRange::ALL, MapRange::of(Device::Realtime), part(Device::Data), part(Device::Realtime)] {
        let mut mappings = 0u64;
        let _ = image.fsmap(range, &none, &mut |m| {
            mappings += 1;
            let _ = m.owner.name();
            ControlFlow::Continue(())
        });
    }
}
