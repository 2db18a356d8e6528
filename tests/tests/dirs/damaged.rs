//! Directories with damage behind right checksums, without space, and on devices that fail: a clear error, and no trace of what was begun.

use crate::model::{self, Form, TARGETS};
use libxfsr::Error;
use libxfsr::cache::{BlockKey, OnDamage, Want};
use libxfsr::dir::DirMut;
use libxfsr::error::ForkKind;
use libxfsr::format::dir::{DIR_ANY, block_type_of};
use libxfsr::geometry::Geometry;
use libxfsr::inode::{ForkMut, Inode};
use libxfsr::space::{Request, Space};
use libxfsr::target::{Access, FileTarget, Overlay, Target};
use libxfsr::txn::{CommitSink, DirtySink, Scope};
use libxfsr::units::{FileBlock, FsBlock, Ino, Lsn};
use libxfsr::volume::Volume;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::sync::Arc;
use xfsr_tests::changing;
use xfsr_tests::oracle::{MOUNT, require};

const MADE: &[(&str, usize)] = &[("dir-1", 4), ("dir-2", 30), ("dir-3", 250), ("dir-4", 2500)];

struct Open {
    volume: Arc<Volume>,
    scope: Scope,
    space: Arc<Space>,
}

fn open(target: Arc<dyn Target>) -> Open {
    let volume = Arc::new(Volume::from_targets(target, None, None, 64 << 20).expect("a filesystem"));
    let sink: Arc<dyn CommitSink> = Arc::new(DirtySink { lsn: Lsn::new(1, 8) });
    let space = Space::open(&volume).expect("headers");
    Open { scope: Scope::new(volume.clone(), sink), volume, space }
}

fn base(image: &Path) -> Arc<dyn Target> {
    Arc::new(FileTarget::open(image, Access::Read).expect("an image"))
}

/// Keys of all blocks of a directory.
fn keys(volume: &Volume, ino: Ino) -> Vec<BlockKey> {
    let g: &Geometry = &volume.geometry;
    let inode = Inode::read(volume, ino, OnDamage::Fail).expect("an inode");
    let extents = inode.extents(volume, ForkKind::Data).unwrap_or_default();
    let blocks = extents.iter().flat_map(|e| (e.offset..e.offset + e.count).map(|b| e.start + (b - e.offset)));
    let all: Vec<u64> = blocks.collect();
    let parts = all.chunks(1 << g.dir_block_log);
    let piece = |b: &u64| (g.fsblock_to_daddr(FsBlock(*b)).expect("a block"), g.block_size / 512);
    parts.map(|p| BlockKey::many(volume.data, p.iter().map(piece))).collect()
}

fn bytes(volume: &Volume, key: &BlockKey) -> Vec<u8> {
    volume.cache.read(key, &Want::new(&DIR_ANY, OnDamage::Keep), &volume.geometry).expect("bytes").to_vec()
}

/// All that a directory is: its inode and its blocks.
fn all_bytes(volume: &Volume, ino: Ino, keys: &[BlockKey]) -> Vec<Vec<u8>> {
    let inode = volume.inode_bytes(ino).expect("an inode");
    std::iter::once(inode).chain(keys.iter().map(|k| bytes(volume, k))).collect()
}

/// One name added, removed, or led elsewhere.
fn operation(world: &Open, dir: Ino, target: Ino, rng: &mut ChaCha8Rng) -> Result<(), Error> {
    let mut t = world.scope.begin(DirMut::reservation(&world.volume.geometry)).expect("no log");
    let mut d = DirMut::new(&mut t, &world.space, dir);
    let n = rng.random_range(0..2600);
    let known = format!("{n:0width$}", width = 1 + n * 7 % 60).into_bytes();
    match rng.random_range(0..4) {
        0 => d.add(&[known, vec![b'x'; rng.random_range(1..180)]].concat(), target, TARGETS[0].1)?,
        1 => drop(d.replace(&known, target, TARGETS[0].1)?),
        2 => drop(d.is_empty()?),
        _ => drop(d.remove(&known)?),
    }
    t.commit().map(drop)
}

/// Random bytes of random blocks become others, and the checksum is made right.
#[test]
fn damage_is_an_error_that_leaves_no_trace() {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mkfs = &["-b", "size=1024", "-m", "rmapbt=1"];
    let image = changing::kernel_made(directory.path(), 320, mkfs, |root| model::fill(root, MADE));
    let mut rng = ChaCha8Rng::seed_from_u64(21);
    let (mut refused, mut done) = (0, 0);
    let whole = open(base(&image));
    let at = |name: &str| {
        libxfsr::dir::resolve(&whole.volume, whole.volume.geometry.root_ino, name.as_bytes()).expect("a name")
    };
    let target = at("/target-0");
    let dirs: Vec<Ino> = MADE.iter().map(|(name, _)| at(name)).collect();
    for _ in 0..xfsr_tests::knob("XFSR_DAMAGES", 150) {
        let ino = dirs[rng.random_range(0..dirs.len())];
        let overlay = Arc::new(Overlay::new(base(&image)).expect("memory"));
        let keys = keys(&whole.volume, ino);
        for _ in 0..rng.random_range(1..4) {
            if keys.is_empty() {
                break;
            }
            // Indexes are few among many data blocks, and come last.
            let from = if rng.random_bool(0.6) { keys.len() - keys.len().min(8) } else { 0 };
            let key = &keys[rng.random_range(from..keys.len())];
            let mut b = bytes(&whole.volume, key);
            let Some(kind) = block_type_of(&b) else { continue };
            for _ in 0..rng.random_range(1..4) {
                // Mostly the header and the ends, which say most.
                let near = if rng.random_bool(0.5) { 130.min(b.len()) } else { b.len() };
                let place = rng.random_range(40..near);
                let place = if rng.random_bool(0.2) { b.len() + 39 - place } else { place };
                b[place] = rng.random();
            }
            (kind.seal)(&mut b, Lsn::new(1, 8));
            let piece = match &key.parts {
                libxfsr::cache::Parts::One(d, n) => vec![(*d, *n)],
                libxfsr::cache::Parts::Many(p) => p.to_vec(),
            };
            let mut from = 0;
            for (daddr, sectors) in piece {
                let len = sectors as usize * 512;
                overlay.write_at(&b[from..from + len], daddr.bytes()).expect("memory");
                from += len;
            }
        }
        let world = open(overlay);
        for _ in 0..12 {
            let blocks: Vec<BlockKey> = self::keys(&world.volume, ino);
            let before = all_bytes(&world.volume, ino, &blocks);
            match operation(&world, ino, target, &mut rng) {
                Ok(()) => done += 1,
                Err(Error::NotFound(_) | Error::Exists(_)) => {}
                Err(Error::Corrupt(_) | Error::Invalid(_) | Error::NoSpace(_)) => {
                    refused += 1;
                    assert!(all_bytes(&world.volume, ino, &blocks) == before, "a trace of what was refused");
                }
                Err(e) => panic!("{e}"),
            }
        }
    }
    println!("{done} operations done, {refused} refused");
    assert!(refused > 30 && done > 30);
}

/// A filesystem is filled until nothing can be allocated: names are added as long as they find room, and then refused; removing goes on.
#[test]
fn without_space_nothing_is_half_done() {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mkfs = &["-b", "size=1024", "-n", "size=8192", "-m", "reflink=0,finobt=0", "-d", "agcount=2"];
    let image = changing::kernel_made(directory.path(), 320, mkfs, |root| {
        model::fill(root, MADE);
        std::fs::write(root.join("large"), b"large").expect("a file");
    });
    let mut world = model::World::open(&image, changing::Commits::Gathered, 23);
    let volume = world.changing.volume.clone();
    let large = libxfsr::dir::resolve(&volume, volume.geometry.root_ino, b"/large").expect("a name");
    let room = ForkMut::reservation(&volume.geometry, ForkKind::Data, 2);
    loop {
        let mut t = world.changing.scope.begin(room).expect("room in the log");
        let mut m = ForkMut::new(&mut t, &world.changing.space, large, ForkKind::Data);
        let end = m.end().expect("an end");
        match m.allocate(end, &Request::data(1, 1 << 20), None, true) {
            Ok(_) => t.commit().expect("committed"),
            Err(Error::NoSpace(_)) => break,
            Err(e) => panic!("{e}"),
        };
    }
    // Single blocks are given back, so that a directory's block is in eight pieces.
    for n in 0..300 {
        let mut t = world.changing.scope.begin(room).expect("room in the log");
        let mut m = ForkMut::new(&mut t, &world.changing.space, large, ForkKind::Data);
        m.free(FileBlock(1000 + 2 * n), 1).expect("freed");
        t.commit().expect("committed");
    }
    let mut refused = 0;
    for n in 0..20_000 {
        let some = n % MADE.len();
        match world.try_operation(some, 90, 0.9) {
            Ok(()) => {}
            Err(Error::NoSpace(_)) => refused += 1,
            Err(e) => panic!("{e}"),
        }
        if n % 500 == 0 {
            world.compare();
        }
        if refused > 40 {
            break;
        }
    }
    println!("{refused} names found no room");
    assert!(refused > 40);
    let scattered = world.dirs.iter().flat_map(|d| keys(&world.changing.volume, d.1));
    let most = scattered.map(|k| if let libxfsr::cache::Parts::Many(p) = &k.parts { p.len() } else { 1 }).max();
    assert!(most.is_some_and(|n| n > 3), "{most:?} pieces at most");
    for n in 0..MADE.len() {
        world.shrink(n, 2);
        world.compare();
    }
    assert!(world.forms.contains(&Form::Short));
    // The kernel adds names, too.
    let mut t = world.changing.scope.begin(room).expect("room in the log");
    let mut m = ForkMut::new(&mut t, &world.changing.space, large, ForkKind::Data);
    m.free(FileBlock(100_000), 30_000).expect("freed");
    t.commit().expect("committed");
    world.end(&image);
}
