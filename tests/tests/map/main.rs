//! Extent maps are changed in images that the kernel wrote, against a model; xfs_repair, the check and the kernel judge the end.

mod model;

use libxfsr::Error;
use libxfsr::cache::OnDamage;
use libxfsr::error::ForkKind;
use libxfsr::format::inode::{Dinode, Flags2};
use libxfsr::inode::{ForkMut, Inode};
use libxfsr::space::Request;
use libxfsr::units::FileBlock;
use model::{World, kernel_map};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use xfsr_tests::changing::{self, Commits, assert_clean};
use xfsr_tests::oracle::{MOUNT, Mount, require};
use xfsr_tests::{cases, knob};

const SMALL: &[&str] = &["-b", "size=1024", "-m", "rmapbt=1", "-d", "agcount=3"];
const PLAIN: &[&str] = &["-m", "reflink=0,finobt=0"];
const LARGE: &[&str] = &["-m", "rmapbt=1", "-i", "nrext64=1,size=1024"];

/// Maps of some files are changed at random, by so many operations, and get trees of at least so many levels.
fn random(mkfs: &[&str], seed: u64, operations: usize, kind: ForkKind, least: u16) {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = changing::kernel_made(directory.path(), 300, mkfs, model::fill);
    let mut world = World::open(&image, Commits::Gathered, seed + knob("XFSR_SEED", 0), kind);
    let mut levels = 0;
    let operations = operations * cases("XFSR_OPERATIONS", 1, 5) as usize;
    for n in 1..=operations {
        world.operation();
        if n % 100 == 0 {
            levels = levels.max(world.compare());
        }
    }
    println!("{levels} levels at most, {} extents", world.extents());
    assert!(levels >= least, "{levels} levels");
    world.end(&image);
}

#[test]
fn random_maps_of_small_blocks() {
    random(SMALL, 1, 4000, ForkKind::Data, 3);
}

#[test]
fn random_maps_without_reverse_mappings() {
    random(PLAIN, 2, 1500, ForkKind::Data, 2);
}

#[test]
fn random_maps_with_large_counters() {
    random(LARGE, 3, 1500, ForkKind::Data, 2);
}

#[test]
fn random_maps_of_attribute_forks() {
    random(SMALL, 4, 2500, ForkKind::Attr, 2);
}

/// Crashes at sampled writes, in the middle of chains where every transaction is forced: the kernel recovers what some operation left.
fn crashed(mkfs: &[&str], seed: u64, commits: Commits) {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = changing::kernel_made(directory.path(), 300, mkfs, model::fill);
    let mut world = World::open(&image, commits, seed + knob("XFSR_SEED", 0), ForkKind::Data);
    let mut states = vec![world.state()];
    let mut durable = vec![(0, 0)];
    for n in 0..150 {
        world.operation();
        states.push(world.state());
        if commits == Commits::Forced || n % 20 == 0 {
            world.changing().journal.sync().expect("durable");
            durable.push((world.changing().now(), states.len() - 1));
        }
    }
    let end = world.changing().now();
    let mut rng = ChaCha8Rng::seed_from_u64(seed + knob("XFSR_SEED", 0));
    let crash = directory.path().join("crash");
    for n in 0..cases("XFSR_CRASHES", 4, 20) {
        let time = rng.random_range(0..=end);
        world.changing().crash_to(time, n, &crash);
        let mount = Mount::new(&crash, "").expect("the kernel recovers it");
        let found: Vec<_> =
            states[0].iter().map(|(name, _)| (name.clone(), kernel_map(&mount.path().join(name)))).collect();
        mount.unmount().expect("an unmount");
        assert_clean(&format!("crash {n} at {time}"), &crash);
        let least = durable.iter().filter(|(t, _)| *t <= time).map(|(_, s)| *s).max().unwrap_or(0);
        assert!(states[least..].contains(&found), "crash {n} at {time} of {end}: no state from {least} on");
    }
}

#[test]
fn the_kernel_recovers_crashes_inside_of_chains() {
    crashed(SMALL, 5, Commits::Forced);
}

#[test]
fn the_kernel_recovers_crashes_of_gathered_commits() {
    crashed(SMALL, 6, Commits::Gathered);
}

#[test]
fn the_kernel_recovers_crashes_without_reverse_mappings() {
    crashed(PLAIN, 7, Commits::Forced);
}

/// A counter that is full is told, and becomes a large one where the filesystem has those.
#[test]
fn extents_are_counted_to_the_last() {
    if require(MOUNT).is_none() {
        return;
    }
    for (mkfs, large) in [(PLAIN, false), (LARGE, true)] {
        let directory = tempfile::tempdir().expect("a directory");
        let image = changing::kernel_made(directory.path(), 300, mkfs, model::fill);
        let world = World::open(&image, Commits::Gathered, 8, ForkKind::Data);
        let (changing, ino) = (world.changing(), world.inodes()[2]);
        let room = ForkMut::reservation(&changing.volume.geometry, ForkKind::Data, 2);
        let mut t = changing.scope.begin(room).expect("room in the log");
        // As if it had as many as a small counter holds; its tree has a few.
        let core = Dinode::from_bytes_mut(t.inode_mut(ino).expect("an inode")).expect("a core");
        let attr = core.extents(ForkKind::Attr);
        core.flags2.set(core.flags2.get() & !Flags2::NREXT64.bits());
        core.big_nextents.set(0);
        core.nextents.set(i32::MAX as u32);
        core.anextents.set(7);
        let mut m = ForkMut::new(&mut t, &changing.space, ino, ForkKind::Data);
        let end = FileBlock(m.end().expect("an end").0 + 10);
        let result = m.allocate(end, &Request::data(1, 1), None, true);
        let core = m.core().expect("a core");
        if large {
            result.expect("a large counter");
            assert!(core.nrext64());
            assert_eq!(core.extents(ForkKind::Data), i32::MAX as u64 + 1);
            assert_eq!(core.extents(ForkKind::Attr), 7);
        } else {
            assert!(matches!(result, Err(Error::Invalid(_))), "{result:?}");
        }
        drop(t);
        let inode = Inode::read(&changing.volume, ino, OnDamage::Fail).expect("an inode");
        assert_eq!(inode.core.extents(ForkKind::Attr), attr);
        world.end(&image);
    }
}

/// Where the border between the forks moves, the data fork takes the form that fits: what the kernel does when an attribute comes.
#[test]
fn forks_make_room_for_each_other() {
    if require(MOUNT).is_none() {
        return;
    }
    let fill = |root: &std::path::Path| {
        use std::os::unix::fs::FileExt;
        for n in [0u64, 3, 14, 15, 18, 21, 22, 60, 61] {
            let file = std::fs::File::create(root.join(format!("file-{n}"))).expect("a file");
            for i in 0..n {
                file.write_all_at(&[n as u8; 1024], i * 4096).expect("written");
            }
            file.set_len(1 << 30).expect("a length");
            file.sync_all().expect("on the device");
        }
    };
    let directory = tempfile::tempdir().expect("a directory");
    let image = changing::kernel_made(directory.path(), 300, SMALL, fill);
    let mut world = World::open(&image, Commits::Gathered, 9, ForkKind::Data);
    let (mut became, mut went_back) = (0, 0);
    for round in 0..2 {
        for ino in world.inodes() {
            let changing = world.changing();
            let read = || Inode::read(&changing.volume, ino, OnDamage::Fail).expect("an inode").core;
            let before = read();
            let room = ForkMut::reservation(&changing.volume.geometry, ForkKind::Attr, 2);
            let begin = || changing.scope.begin(room).expect("room in the log");
            if before.has_attr_fork() {
                // The kernel makes some files with an empty one.
                let mut t = begin();
                ForkMut::new(&mut t, &changing.space, ino, ForkKind::Attr).remove_attr_fork().expect("it is empty");
                t.commit().expect("committed");
            }
            let before = read();
            let mut t = begin();
            let mut m = ForkMut::new(&mut t, &changing.space, ino, ForkKind::Attr);
            let most = m.room().expect("room");
            // The head of an empty list of attributes, and as many bytes as a few would take.
            let bytes = if round == 0 { 100 } else { most };
            m.add_attr_fork(bytes).expect("a fork");
            let size = m.core().expect("a core").fork_size(ForkKind::Attr, 512);
            assert!(size >= bytes, "{size} bytes of {bytes}");
            t.commit().expect("committed");
            let with = read();
            became += usize::from(with.format != before.format);
            assert_eq!(with.nblocks.get() > before.nblocks.get(), with.format != before.format);
            let mut t = begin();
            let mut m = ForkMut::new(&mut t, &changing.space, ino, ForkKind::Attr);
            let too_long = m.set_local(&[0; 400]);
            assert!(matches!(too_long, Err(Error::NoSpace(_))), "{too_long:?}");
            m.remove_attr_fork().expect("it is empty");
            t.commit().expect("committed");
            let after = read();
            went_back += usize::from(after.format != with.format);
            assert_eq!((after.format, after.nblocks, after.forkoff), (before.format, before.nblocks, 0));
        }
        world.compare();
    }
    assert!(became > 3 && went_back == became, "{became} and {went_back}");
    // Files of which every third block is mapped, with the fork that a kernel gives them.
    for ino in world.inodes() {
        let changing = world.changing();
        let room = ForkMut::reservation(&changing.volume.geometry, ForkKind::Attr, 2);
        let mut t = changing.scope.begin(room).expect("room in the log");
        ForkMut::new(&mut t, &changing.space, ino, ForkKind::Attr).add_attr_fork(60).expect("a fork");
        t.commit().expect("committed");
    }
    for _ in 0..200 {
        world.operation();
    }
    world.end(&image);
}
