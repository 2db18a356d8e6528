//! Where inodes come to an end: the share of space that they may have, full AGs, free space in pieces, trees that are damaged.

use crate::{World, end, judged_clean, open, records, without_log};
use libxfsr::Error;
use libxfsr::btree::kinds::Inobt;
use libxfsr::cache::OnDamage;
use libxfsr::format::ag::{AGI, Agi};
use libxfsr::format::btree::{FINOBT_BLOCK, INOBT_BLOCK};
use libxfsr::inode::chunk::{self, Wanted};
use libxfsr::space::{AgTree, Place, Request, Space};
use libxfsr::target::{Access, FileTarget, Overlay, Target};
use libxfsr::txn::Scope;
use libxfsr::units::{AgBlock, AgNumber, FsBlock, Ino, Lsn};
use libxfsr::volume::Volume;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use xfsr_tests::changing::kernel_made;
use xfsr_tests::corpus;
use xfsr_tests::oracle::{Mount, require};
use zerocopy::FromBytes;

#[test]
fn inodes_take_the_share_of_space_that_they_may_have() {
    if require(&["mkfs.xfs"]).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let fill = |root: &std::path::Path| std::fs::create_dir(root.join("a")).expect("a directory");
    let image = kernel_made(directory.path(), 300, &["-m", "rmapbt=1", "-i", "maxpct=1"], fill);
    let mut world = World::new(open(&image), without_log(), 41);
    let g = world.volume.geometry.clone();
    let most = chunk::most_inodes(&g).expect("a limit");
    assert_eq!(most, 76_800 / 100 / 8 * 64);
    while world.take().is_some() {}
    let all = world.space.counters();
    assert!(all.inodes <= most && all.inodes + 64 > most && all.free_inodes == 0, "{all:?} of {most}");
    world.check();
    world.give();
    assert!(world.take().is_some() && world.take().is_none());
    for ino in std::mem::take(&mut world.ours) {
        world.give_this(ino);
    }
    world.check();
    assert!(world.space.counters().inodes <= 256, "empty chunks are gone: {:?}", world.space.counters());
    world.space.settle(&world.scope).expect("counters");
    world.volume.cache.write_back(None).expect("written");
    drop(world);
    judged_clean("limit", &image);
    Mount::new(&image, "").expect("a mount").unmount().expect("an unmount");
}

/// Takes all space and gives it back in aligned pieces of half a chunk: only parts of chunks fit, and two of them become a whole one.
fn pieces(name: &str) {
    if corpus::obtain(name).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy(name, directory.path()).data;
    let mut world = World::new(open(&image), without_log(), 42);
    let g = world.volume.geometry.clone();
    let (half, whole) = (g.sparse_align, g.chunk_blocks());
    assert!(g.features.sparse_inodes() && half * 2 == whole);
    let mut held: Vec<(FsBlock, u32)> = Vec::new();
    for ag in g.ags() {
        let mut most = 1 << 20;
        while most > 0 {
            let mut t = world.scope.begin(Space::reservation(&g, 1)).expect("room");
            match world.space.allocate(&mut t, Place::Within(ag), &Request::data(1, most)) {
                Ok(a) => {
                    t.commit().expect("committed");
                    held.push((g.join(a.ag, a.start), a.len));
                }
                Err(Error::NoSpace(_)) => most /= 2,
                Err(e) => panic!("{e}"),
            }
        }
    }
    while world.take().is_some() {}
    let full = world.space.counters();
    assert_eq!(full.free_inodes, 0);
    // The lower halves of aligned ranges in one AG, later the upper ones.
    let mut rest = Vec::new();
    let (mut lower, mut upper) = (Vec::new(), Vec::new());
    for (start, len) in held {
        let (ag, at) = g.split(start);
        let first = at.0.next_multiple_of(whole);
        let ranges = if ag == AgNumber(1) { (at.0 + len).saturating_sub(first) / whole } else { 0 }.min(60);
        for n in 0..ranges {
            lower.push(g.join(ag, AgBlock(first + n * whole)));
            upper.push(g.join(ag, AgBlock(first + n * whole + half)));
        }
        if ranges > 0 {
            let behind = first + ranges * whole;
            rest.push((start, first - at.0));
            rest.push((g.join(ag, AgBlock(behind)), at.0 + len - behind));
        } else {
            rest.push((start, len));
        }
    }
    let give = |world: &World, some: &[(FsBlock, u32)]| {
        for (start, len) in some.iter().filter(|(_, len)| *len > 0) {
            let mut t = world.scope.begin(Space::reservation(&g, 1)).expect("room");
            world.space.free(&mut t, *start, *len, None).expect("freed");
            t.commit().expect("committed");
        }
    };
    let mut sparse = Vec::new();
    for halves in [&lower, &upper] {
        give(&world, &halves.iter().map(|at| (*at, half)).collect::<Vec<_>>());
        while world.take().is_some() {}
        world.check();
        let all = records::<Inobt>(&world.volume, AgNumber(1), AgTree::Ino).0;
        sparse.push(all.iter().filter(|r| r.holemask(true) != 0).count());
    }
    println!("{name}: {} pieces; parts of chunks: {sparse:?}; {:?}", lower.len(), world.space.counters());
    assert!(sparse[0] > 20 && sparse[1] < sparse[0], "parts become whole: {sparse:?}");
    assert!(world.space.counters().inodes >= full.inodes + 20 * 64, "{:?}", world.space.counters());
    for ino in std::mem::take(&mut world.ours) {
        world.give_this(ino);
    }
    world.check();
    give(&world, &rest);
    end(name, world, &image);
}

#[test]
fn parts_of_chunks_and_whole_ones_made_of_them() {
    pieces("default");
}

/// Blocks that say something wrong, with a right checksum: errors, and nothing is changed; whatever they say, nothing panics.
#[test]
fn damaged_trees_give_errors_and_leave_no_trace() {
    for name in ["default", "plain"] {
        if corpus::obtain(name).is_none() {
            return;
        }
        let below: Arc<dyn Target> = Arc::new(FileTarget::open(corpus::image(name), Access::Read).expect("an image"));
        let mut rng = ChaCha8Rng::seed_from_u64(43);
        let (mut errors, mut fine) = (0, 0);
        for n in 0..120 {
            let disk = Arc::new(Overlay::new(below.clone()).expect("memory"));
            let volume = Volume::from_targets(disk.clone(), None, None, 8 << 20).expect("a filesystem");
            let g = volume.geometry.clone();
            let ag = AgNumber(rng.random_range(0..g.ag_count));
            let header = volume.ag_header(ag, 2, &AGI, OnDamage::Fail).expect("an AGI");
            let agi = Agi::read_from_prefix(&header).expect("long enough").0;
            drop(header);
            let block = |at: u32| (g.agbno_to_daddr(ag, AgBlock(at)).bytes(), g.block_size as usize);
            let ((offset, len), kind) = match n % 3 {
                0 => ((g.header_daddr(ag, 2).bytes(), g.sector_size as usize), &AGI),
                1 => (block(agi.root.get()), &INOBT_BLOCK),
                _ if g.features.finobt() => (block(agi.free_root.get()), &FINOBT_BLOCK),
                _ => (block(agi.root.get()), &INOBT_BLOCK),
            };
            let mut bytes = vec![0; len];
            disk.read_at(&mut bytes, offset).expect("read");
            // Counts and roots of the AGI; levels, counts and the first records of a tree.
            let span = if n % 3 == 0 {
                16..40
            } else if rng.random_bool(0.3) {
                4..8
            } else {
                56..120
            };
            for _ in 0..rng.random_range(1..4) {
                bytes[rng.random_range(span.clone())] ^= 1 << rng.random_range(0..8);
            }
            (kind.seal)(&mut bytes, Lsn(0));
            disk.write_at(&bytes, offset).expect("written");
            let before = disk.changed();
            let volume = Arc::new(Volume::from_targets(disk.clone(), None, None, 8 << 20).expect("a filesystem"));
            let Ok(space) = Space::open(&volume) else {
                errors += 1;
                continue;
            };
            let counters = space.counters();
            let scope = Scope::new(volume.clone(), without_log());
            for _ in 0..4 {
                let mut t = scope.begin(chunk::reservation(&g)).expect("no log");
                let start = g.join_ino(ag, libxfsr::units::AgIno(rng.random_range(64..4000)));
                let wanted = Wanted { parent: start, directory: false, generation: 1 };
                let result = match rng.random_bool(0.5) {
                    true => chunk::allocate(&mut t, &space, &wanted).map(|_| ()),
                    false => {
                        let wide: Vec<Ino> = (0..64).map(|n| Ino(start.0 + n)).collect();
                        wide.iter().try_for_each(|ino| chunk::free(&mut t, &space, *ino))
                    }
                };
                match result {
                    Ok(()) => fine += 1,
                    Err(Error::Corrupt(_) | Error::NoSpace(_) | Error::Invalid(_) | Error::NotFound(_)) => errors += 1,
                    Err(e) => panic!("{e}"),
                }
            }
            assert_eq!(space.counters(), counters);
            volume.cache.write_back(None).expect("written");
            assert_eq!(disk.changed(), before, "{name} {n}: a transaction that was dropped left something");
        }
        println!("{name}: {errors} errors, {fine} times not met");
        assert!(errors > 150);
    }
}
