//! Files with what is mapped in them, block by block.

use libxfsr::Error;
use libxfsr::cache::OnDamage;
use libxfsr::error::ForkKind;
use libxfsr::format::btree::Extent;
use libxfsr::format::inode::{Dinode, Format, fork_bytes};
use libxfsr::geometry::Geometry;
use libxfsr::inode::{ForkMut, Inode, fork};
use libxfsr::space::Request;
use libxfsr::units::{FileBlock, FsBlock, Ino};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;
use xfsr_tests::changing::{Changing, Commits, assert_clean};
use xfsr_tests::oracle::Mount;

/// Blocks of a file in which extents are mapped.
const SPAN: u64 = 6000;
const FILES: usize = 3;

/// Per block of the file: block of the device, and whether it is unwritten.
type Map = BTreeMap<u64, (u64, bool)>;

/// Byte of the file, byte of the device, bytes, unwritten.
pub(crate) type KernelMap = Vec<(u64, u64, u64, bool)>;

/// Files of different forms, and some that take space.
pub(crate) fn fill(root: &Path) {
    for n in 0..FILES {
        let file = std::fs::File::create(root.join(format!("file-{n}"))).expect("a file");
        file.set_len(SPAN << 16).expect("a length");
        for i in 0..(n as u64 * 40) {
            file.write_all_at(&[n as u8 + 1; 3000], i * 16384).expect("written");
        }
        file.sync_all().expect("on the device");
    }
    std::fs::write(root.join("other"), vec![7; 3 << 20]).expect("a file");
}

struct File {
    ino: Ino,
    name: String,
    map: Map,
}

pub(crate) struct World {
    changing: Changing,
    kind: ForkKind,
    files: Vec<File>,
    rng: ChaCha8Rng,
    operations: usize,
}

fn by_block(extents: &[Extent]) -> Map {
    let blocks = extents.iter().flat_map(|e| (0..e.count).map(|i| (e.offset + i, (e.start + i, e.unwritten))));
    blocks.collect()
}

/// Takes a range out.
fn take(map: &mut Map, from: u64, to: u64) -> Map {
    let mut part = map.split_off(&from);
    map.append(&mut part.split_off(&to));
    part
}

/// The fewest extents that say the same.
fn extents_of(map: &Map) -> Vec<Extent> {
    let mut all: Vec<Extent> = Vec::new();
    for (&offset, &(start, unwritten)) in map {
        match all.last_mut() {
            Some(e) if e.offset + e.count == offset && e.start + e.count == start && e.unwritten == unwritten => {
                e.count += 1;
            }
            _ => all.push(Extent { offset, start, count: 1, unwritten }),
        }
    }
    all
}

impl World {
    pub(crate) fn open(image: &Path, commits: Commits, seed: u64, kind: ForkKind) -> World {
        let changing = Changing::open(image, commits);
        let mut files = Vec::new();
        let mount = libxfsr::dir::entries(
            &changing.volume,
            &Inode::read(&changing.volume, changing.volume.geometry.root_ino, OnDamage::Fail).expect("the root"),
        );
        for e in mount.expect("entries").into_iter().filter(|e| e.name.starts_with(b"file-")) {
            let inode = Inode::read(&changing.volume, e.ino, OnDamage::Fail).expect("an inode");
            let map = match kind {
                ForkKind::Data => by_block(&inode.extents(&changing.volume, kind).expect("extents")),
                ForkKind::Attr => Map::new(),
            };
            files.push(File { ino: e.ino, name: String::from_utf8(e.name).expect("text"), map });
        }
        let world = World { changing, kind, files, rng: ChaCha8Rng::seed_from_u64(seed), operations: 0 };
        if kind == ForkKind::Attr {
            for f in &world.files {
                let mut t = world.begin(1);
                let mut m = ForkMut::new(&mut t, &world.changing.space, f.ino, kind);
                m.add_attr_fork(100).expect("an attribute fork");
                t.commit().expect("committed");
            }
        }
        world
    }

    fn begin(&self, extents: u32) -> libxfsr::txn::Transaction<'_> {
        let g = &self.changing.volume.geometry;
        self.changing.scope.begin(ForkMut::reservation(g, self.kind, extents)).expect("room in the log")
    }

    /// Something is mapped, unmapped or converted.
    pub(crate) fn operation(&mut self) {
        // One of them gets most.
        let n = if self.rng.random_bool(0.6) { 0 } else { self.rng.random_range(0..self.files.len()) };
        let at = self.rng.random_range(0..SPAN);
        let long = if self.rng.random_bool(0.03) { 200 } else { 6 };
        let blocks = self.rng.random_range(1..=long);
        let what = self.rng.random_range(0..100);
        // Times of growth and of shrinking, so that forms change both ways.
        self.operations += 1;
        let grow = if self.operations % 3000 < 2000 { 65 } else { 30 };
        let (ino, kind, space) = (self.files[n].ino, self.kind, self.changing.space.clone());
        let (changing, rng) = (&self.changing, &mut self.rng);
        let room = ForkMut::reservation(&changing.volume.geometry, kind, blocks.min(40) as u32 + 2);
        let mut t = changing.scope.begin(room).expect("room in the log");
        let mut m = ForkMut::new(&mut t, &space, ino, kind);
        let map = &mut self.files[n].map;
        if what < grow {
            if map.contains_key(&at) {
                assert!(matches!(m.allocate(FileBlock(at), &Request::data(1, 1), None, false), Err(Error::Invalid(_))));
                return;
            }
            let unwritten = kind == ForkKind::Data && rng.random_bool(0.4);
            let near = if rng.random_bool(0.5) { None } else { Some(m.near(FileBlock(0)).expect("a place")) };
            let e = m.allocate(FileBlock(at), &Request::data(1, blocks as u32), near, unwritten).expect("space");
            assert!(e.offset == at && e.count <= blocks);
            map.extend(by_block(&[e]));
        } else if what < 75 || kind == ForkKind::Attr {
            // A few extents at once.
            let mut gone = BTreeMap::new();
            if rng.random_bool(0.5) {
                m.free(FileBlock(at), blocks).expect("freed");
                gone.extend(take(map, at, at + blocks));
            } else {
                let left = m.free_last(FileBlock(at), blocks, 2).expect("freed").0;
                assert!(left >= at && (left == at || left < at + blocks));
                gone.extend(take(map, left, at + blocks));
                assert!(extents_of(&gone).len() <= 2 && (left > at || map.range(at..at + blocks).next().is_none()));
            }
        } else {
            let unwritten = rng.random_bool(0.5);
            m.convert(FileBlock(at), blocks, unwritten).expect("converted");
            map.range_mut(at..at + blocks).for_each(|(_, b)| b.1 = unwritten);
        }
        t.commit().expect("committed");
    }

    pub(crate) fn extents(&self) -> usize {
        self.files.iter().map(|f| extents_of(&f.map).len()).sum()
    }

    /// The filesystem that is changed.
    pub(crate) fn changing(&self) -> &Changing {
        &self.changing
    }

    /// The files.
    pub(crate) fn inodes(&self) -> Vec<Ino> {
        self.files.iter().map(|f| f.ino).collect()
    }

    /// All maps as the kernel tells them, by name.
    pub(crate) fn state(&self) -> Vec<(String, KernelMap)> {
        let g = &self.changing.volume.geometry;
        self.files.iter().map(|f| (f.name.clone(), as_kernel(g, &f.map))).collect()
    }

    /// The files are those of the model. Returns the levels of the largest tree.
    pub(crate) fn compare(&self) -> u16 {
        let mut most = 0;
        for f in &self.files {
            let mut t = self.begin(1);
            let mut m = ForkMut::new(&mut t, &self.changing.space, f.ino, self.kind);
            let mut found = Vec::new();
            m.extents((0, u64::MAX), &mut |e| {
                found.push(*e);
                ControlFlow::Continue(())
            })
            .expect("extents");
            assert_eq!(found, extents_of(&f.map), "{}", f.name);
            assert_eq!(m.end().expect("an end").0, f.map.last_key_value().map_or(0, |(b, _)| b + 1));
            for at in [0, 17, SPAN / 2, SPAN] {
                let here = m.mapped(FileBlock(at)).expect("mapped");
                let model = found.iter().find(|e| e.offset <= at && at < e.offset + e.count);
                assert_eq!(here.as_ref(), model);
            }
            drop(t);
            let inode = Inode::read(&self.changing.volume, f.ino, OnDamage::Fail).expect("an inode");
            let all = fork::all_extents(&self.changing.volume, f.ino, &inode.bytes, self.kind).expect("extents");
            assert_eq!(all, found);
            let core: &Dinode = &inode.core;
            assert_eq!(core.extents(self.kind), found.len() as u64);
            let bytes = fork_bytes(&inode.bytes, self.kind);
            assert_eq!(core.format(self.kind) == Some(Format::Extents), found.len() <= bytes.len() / 16);
            if core.format(self.kind) == Some(Format::Btree) {
                most = most.max(u16::from_be_bytes([bytes[0], bytes[1]]) + 1);
            }
        }
        most
    }

    /// Everything is written; the judges look at it, and the kernel maps what the model maps.
    pub(crate) fn end(mut self, image: &Path) {
        self.compare();
        if self.kind == ForkKind::Attr {
            for f in &mut self.files {
                for at in (0..=SPAN).rev().step_by(64) {
                    let mut t = self
                        .changing
                        .scope
                        .begin(ForkMut::reservation(&self.changing.volume.geometry, self.kind, 64))
                        .expect("room");
                    let mut m = ForkMut::new(&mut t, &self.changing.space, f.ino, self.kind);
                    m.free(FileBlock(at.saturating_sub(63)), 300).expect("freed");
                    t.commit().expect("committed");
                }
                f.map.clear();
            }
            self.compare();
            for f in &self.files {
                let mut t = self.begin(1);
                let mut m = ForkMut::new(&mut t, &self.changing.space, f.ino, self.kind);
                m.remove_attr_fork().expect("it is empty");
                t.commit().expect("committed");
            }
        }
        let World { changing, files, kind, .. } = self;
        let g = changing.volume.geometry.clone();
        changing.finish();
        assert_clean("changed", image);
        let mount = Mount::new(image, "").expect("a mount");
        if kind == ForkKind::Data {
            for f in &files {
                let path = mount.path().join(&f.name);
                let ours = as_kernel(&g, &f.map);
                assert_eq!(kernel_map(&path), ours, "{}", f.name);
            }
        }
        for n in 0..20 {
            std::fs::write(mount.path().join(format!("new-{n}")), vec![n as u8; 9000]).expect("a file");
        }
        for f in &files {
            std::fs::remove_file(mount.path().join(&f.name)).expect("removed");
        }
        mount.unmount().expect("an unmount");
        assert_clean("used by the kernel", image);
    }
}

/// The same as the kernel tells it.
fn as_kernel(g: &Geometry, map: &Map) -> KernelMap {
    let daddr = |b: u64| g.fsblock_to_daddr(FsBlock(b)).expect("a block").0;
    let bytes = |e: &Extent| (e.offset << g.block_log, daddr(e.start) << 9, e.count << g.block_log, e.unwritten);
    extents_of(map).iter().map(bytes).collect()
}

/// What the kernel maps: byte of the file, byte of the device, bytes, unwritten.
pub(crate) fn kernel_map(path: &Path) -> KernelMap {
    let out =
        xfsr_tests::run("xfs_io", &["-r".as_ref(), "-c".as_ref(), "bmap -elpvn 1000000".as_ref(), path.as_os_str()])
            .expect("xfs_io");
    let mut all = Vec::new();
    for line in out.lines().filter(|l| l.contains('[')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let range = |w: &str| -> Option<(u64, u64)> {
            let w = w.trim_matches(|c| "[](): ".contains(c));
            let (a, b) = w.split_once("..")?;
            Some((a.parse().ok()?, b.parse().ok()?))
        };
        let mut ranges = words.iter().filter_map(|w| range(w));
        let file = ranges.next().expect("a range of the file");
        if line.contains("hole") {
            continue;
        }
        let device = ranges.next().expect("a range of the device");
        let flags = u32::from_str_radix(words.last().expect("flags"), 8).unwrap_or(0);
        all.push((file.0 << 9, device.0 << 9, (file.1 - file.0 + 1) << 9, flags & 0o10000 != 0));
    }
    all
}
