//! Trees that the kernel wrote, taken apart and put together again by the engine: in an image, which xfs_repair, the check and the kernel
//! then judge, and in memory.

use libxfsr::btree::bulk::{self, Plan, Slack};
use libxfsr::btree::kinds::{Bmap, Bno, Cnt, Finobt, Inobt, Refcount, Rmap};
use libxfsr::btree::mem::MemTree;
use libxfsr::btree::{self, Kind, Lookup, Position, Ptr, Root, Store, StoreMut};
use libxfsr::cache::OnDamage;
use libxfsr::check::{self, Verdict};
use libxfsr::control::Control;
use libxfsr::error::ForkKind;
use libxfsr::format::btree::{BMBT, BMBT_BLOCK, BmbtRec};
use libxfsr::format::inode::{Format, fork_bytes};
use libxfsr::inode::Inode;
use libxfsr::inode::fork::{ForkStore, all_extents};
use libxfsr::space::{AgStore, AgTree};
use libxfsr::target::{Access, FileTarget};
use libxfsr::units::AgNumber;
use libxfsr::volume::Volume;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::sync::Arc;
use xfsr_tests::ag::{PoolTree, put_free_list, take_free_list, take_from_free_extent};
use xfsr_tests::corpus::{self, manifest};
use xfsr_tests::oracle::{Mount, xfs_repair_n};
use xfsr_tests::small::SmallTree;
use xfsr_tests::view;

/// A tree's records and blocks.
struct Contents<K: Kind> {
    records: Vec<K::Record>,
    blocks: Vec<Ptr>,
    root: Root,
}

fn contents<K: Kind, S: Store + Sync>(store: &S) -> Contents<K> {
    let (mut records, mut blocks) = (Vec::new(), Vec::new());
    let report = btree::check::<K, _>(
        store,
        &Control::none(),
        &mut |at, _| blocks.push(at),
        &mut |r| records.push(*r),
        &mut |c| panic!("{}: {c}", K::NAME),
    );
    assert!(!report.expect("not stopped").incomplete);
    Contents { records, blocks, root: store.root().expect("a root") }
}

fn same<K: Kind>(what: &str, found: &[K::Record], expected: &[K::Record])
where
    K::Record: PartialEq,
{
    assert!(found == expected, "{} {what}: {} records, {} before", K::NAME, found.len(), expected.len());
}

/// Takes all records out and puts them in again, both in random order.
fn again<K: Kind, S: StoreMut + Sync>(store: &mut S, records: &[K::Record], rng: &mut ChaCha8Rng)
where
    K::Record: PartialEq,
{
    let mut order = records.to_vec();
    order.shuffle(rng);
    for (i, r) in order.iter().enumerate() {
        let at = Position::<K>::lookup(&*store, &K::low(r), Lookup::Equal).expect("sound");
        let gone = at.expect("a record of the tree").remove(store).expect("removed");
        assert!(gone == *r);
        if i == order.len() / 2 {
            let mut left = order[i + 1..].to_vec();
            left.sort_by(|a, b| K::compare(&K::low(a), &K::low(b)));
            same::<K>("half of them", &contents::<K, S>(store).records, &left);
        }
    }
    assert_eq!(contents::<K, S>(store).blocks.len(), 1);
    order.shuffle(rng);
    for r in &order {
        Position::<K>::insert(store, r).expect("room");
    }
    same::<K>("again", &contents::<K, S>(store).records, records);
}

fn put_together<K: Kind>(volume: &Volume, ag: AgNumber, tree: AgTree, pool: &mut Vec<Ptr>, rng: &mut ChaCha8Rng)
where
    K::Record: PartialEq,
{
    let old = contents::<K, _>(&AgStore::new(volume, ag, tree, OnDamage::Fail).expect("a header"));
    let before = old.blocks.len() as u32;
    let mut store = PoolTree::new(volume, ag, tree, old.root, before);
    store.pool = std::mem::take(pool);
    again::<K, _>(&mut store, &old.records, rng);
    store.write_root(before).expect("a header");
    *pool = store.pool;
}

/// Makes a tree anew of as many blocks as it has, and of the same ones, in another order. False where no slack makes so many.
fn loaded<K: Kind>(volume: &Volume, ag: AgNumber, tree: AgTree, rng: &mut ChaCha8Rng) -> bool
where
    K::Record: PartialEq,
{
    let old = contents::<K, _>(&AgStore::new(volume, ag, tree, OnDamage::Fail).expect("a header"));
    let mut store = PoolTree::new(volume, ag, tree, old.root, 0);
    let slacks = (0..600).flat_map(|leaf| [0, 3, 20, 60].map(|node| Slack::Entries { leaf, node }));
    let plans = slacks.map(|slack| Plan::new(&store, old.records.len() as u64, slack).expect("a plan"));
    let Some(plan) = { plans }.find(|p| p.blocks() == old.blocks.len() as u64) else { return false };
    store.pool = old.blocks;
    store.pool.shuffle(rng);
    bulk::load::<K, _>(&mut store, &plan, old.records.iter().map(|r| Ok(*r))).expect("the blocks");
    assert!(store.pool.is_empty());
    same::<K>("loaded", &contents::<K, _>(&store).records, &old.records);
    store.write_root(store.blocks).expect("a header");
    plan.blocks() > 1
}

/// Blocks that the trees of free space and of owners need beyond those that they have, when records come in random order.
fn room_for_disorder(volume: &Volume, ag: AgNumber) -> usize {
    let more = |tree: AgTree, (records, blocks): (usize, usize)| {
        let leaf = tree.layout().leaf_max(volume.geometry.block_size as usize);
        if records <= leaf { 0 } else { (records * 4 / 3 / leaf + 3).saturating_sub(blocks) }
    };
    let count = |tree| {
        let store = AgStore::new(volume, ag, tree, OnDamage::Fail).expect("a header");
        let count = |records, blocks: &[Ptr]| (records, blocks.len());
        match tree {
            AgTree::Rmap => {
                let c = contents::<Rmap, _>(&store);
                more(tree, count(c.records.len(), &c.blocks))
            }
            _ => {
                let c = contents::<Cnt, _>(&store);
                more(tree, count(c.records.len(), &c.blocks))
            }
        }
    };
    let rmap = if volume.geometry.features.rmapbt() { count(AgTree::Rmap) } else { 0 };
    2 * count(AgTree::Cnt) + rmap + 4
}

fn open(path: &Path) -> Volume {
    let target = Arc::new(FileTarget::open(path, Access::Write).expect("an image"));
    Volume::from_targets(target, None, None, 64 << 20).expect("a filesystem")
}

fn judged_clean(what: &str, image: &Path) {
    let verdict = xfs_repair_n(image, &[]).expect("xfs_repair");
    assert!(verdict.clean(), "{what}: {}", verdict.output);
    let outcome = check::check(&open(image), &Control::none()).expect("a check");
    assert!(outcome.verdict() == Verdict::Clean, "{what}: {:?}", outcome.findings.first());
}

/// What every AG's trees hold is taken out and put in again; the kernel then uses them.
fn rebuilt(name: &str) -> Option<()> {
    let _ = corpus::obtain(name)?;
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy(name, directory.path()).data;
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let volume = open(&image);
    let rmap = volume.geometry.features.rmapbt();
    let mut large = 0;
    for ag in volume.ags() {
        let mut pool = take_free_list(&volume, ag).expect("a free list");
        let need = room_for_disorder(&volume, ag);
        let have = pool.len();
        if need > have {
            let more = take_from_free_extent(&volume, ag, (need - have) as u32, &mut pool).expect("space");
            pool.extend(more);
        }
        put_together::<Bno>(&volume, ag, AgTree::Bno, &mut pool, &mut rng);
        put_together::<Cnt>(&volume, ag, AgTree::Cnt, &mut pool, &mut rng);
        if rmap {
            put_together::<Rmap>(&volume, ag, AgTree::Rmap, &mut pool, &mut rng);
        }
        put_free_list(&volume, ag, &pool).expect("no more than fit");
        large += u32::from(loaded::<Inobt>(&volume, ag, AgTree::Ino, &mut rng));
        large += u32::from(loaded::<Finobt>(&volume, ag, AgTree::Fino, &mut rng));
        large += u32::from(loaded::<Refcount>(&volume, ag, AgTree::Refcount, &mut rng));
    }
    volume.cache.write_back(None).expect("written");
    drop(volume);
    println!("{name}: {large} trees of inodes and reference counts with more than one block");
    judged_clean(name, &image);
    let mount = Mount::new(&*image, "").expect("a mount");
    assert!(manifest::walk(mount.path()).expect("a walk") == corpus::manifest(name), "{name}: other files");
    for n in 0..400 {
        let path = mount.path().join(format!("new-{n}"));
        std::fs::write(&path, vec![n as u8; 3000 + 700 * (n % 40)]).expect("a file");
        if n % 3 == 0 {
            std::fs::remove_file(mount.path().join(format!("new-{}", n / 2)))
                .or_else(|e| match e.kind() {
                    std::io::ErrorKind::NotFound => Ok(()),
                    _ => Err(e),
                })
                .expect("a removal");
        }
    }
    mount.unmount().expect("an unmount");
    judged_clean("used by the kernel", &image);
    Some(())
}

#[test]
fn trees_of_many_levels_put_together_again_are_used_by_the_kernel() {
    rebuilt("rmap-1k");
}

#[test]
fn trees_without_reverse_mappings_put_together_again_are_used_by_the_kernel() {
    rebuilt("default");
}

/// In memory: put in one after the other, and loaded at once.
fn in_memory<K: Kind>(volume: &Volume, records: &[K::Record], rng: &mut ChaCha8Rng)
where
    K::Record: PartialEq,
{
    let mut tree = MemTree::new::<K>("test", &volume.geometry).expect("memory");
    let mut order = records.to_vec();
    order.shuffle(rng);
    for r in &order {
        Position::<K>::insert(&mut tree, r).expect("memory");
    }
    let all = contents::<K, _>(&tree);
    same::<K>("in memory", &all.records, records);
    assert_eq!(all.blocks.len() as u64, tree.blocks());
    order.shuffle(rng);
    for r in &order {
        let at = Position::<K>::lookup(&tree, &K::low(r), Lookup::Equal).expect("sound");
        at.expect("a record").remove(&mut tree).expect("memory");
    }
    assert_eq!(tree.blocks(), 1);
    let plan = Plan::new(&tree, records.len() as u64, Slack::Half).expect("a plan");
    bulk::load::<K, _>(&mut tree, &plan, records.iter().map(|r| Ok(*r))).expect("memory");
    same::<K>("loaded in memory", &contents::<K, _>(&tree).records, records);
}

#[test]
fn records_of_the_kernel_in_memory() {
    let Some(devices) = corpus::obtain("rmap-1k") else { return };
    let volume = view::open(&devices);
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut most = 0;
    for ag in volume.ags() {
        macro_rules! each {
            ($($kind:ident $tree:ident),*) => {$({
                let store = AgStore::new(&volume, ag, AgTree::$tree, OnDamage::Fail).expect("a header");
                let records = contents::<$kind, _>(&store).records;
                most = most.max(records.len());
                in_memory::<$kind>(&volume, &records, &mut rng);
            })*};
        }
        each!(Bno Bno, Cnt Cnt, Inobt Ino, Finobt Fino, Rmap Rmap, Refcount Refcount);
    }
    assert!(most > 5000, "{most} records");
}

#[test]
fn extent_maps_of_the_kernel_put_together_again() {
    let Some(devices) = corpus::obtain("rmap-1k") else { return };
    let volume = view::open(&devices);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut heights = Vec::new();
    for ino in btree_files(&volume) {
        let inode = volume.inode_bytes(ino).expect("an inode");
        let store = ForkStore::new(&volume, ino, &inode, ForkKind::Data);
        let records = contents::<Bmap, _>(&store).records;
        let extents = all_extents(&volume, ino, &inode, ForkKind::Data).expect("extents");
        assert!(records.iter().map(BmbtRec::extent).eq(extents));
        let (room, fork) = (BMBT.leaf_max(store.block_size()), fork_bytes(&inode, ForkKind::Data).len());
        let mut tree = SmallTree::new(&BMBT_BLOCK, BMBT, room, Some(fork));
        let mut order = records.clone();
        order.shuffle(&mut rng);
        for r in &order {
            Position::<Bmap>::insert(&mut tree, r).expect("room");
        }
        same::<Bmap>("again", &contents::<Bmap, _>(&tree).records, &records);
        heights.push(contents::<Bmap, _>(&tree).blocks.len());
        order.shuffle(&mut rng);
        for r in &order {
            let at = Position::<Bmap>::lookup(&tree, &Bmap::low(r), Lookup::Equal).expect("sound");
            at.expect("a record").remove(&mut tree).expect("removed");
        }
        assert!(tree.is_empty());
        let plan = Plan::new(&tree, records.len() as u64, Slack::Half).expect("a plan");
        bulk::load::<Bmap, _>(&mut tree, &plan, records.iter().map(|r| Ok(*r))).expect("room");
        same::<Bmap>("loaded", &contents::<Bmap, _>(&tree).records, &records);
    }
    assert!(heights.len() > 2 && heights.iter().any(|n| *n > 59), "{heights:?}");
}

/// Files whose data fork is a btree.
fn btree_files(volume: &Volume) -> Vec<libxfsr::units::Ino> {
    let mut all = Vec::new();
    let named = corpus::manifest("rmap-1k");
    for ino in named.iter().map(|e| libxfsr::units::Ino(e.ino)) {
        let inode = Inode::read(volume, ino, OnDamage::Fail).expect("an inode");
        if inode.core.format(ForkKind::Data) == Some(Format::Btree) && !all.contains(&ino) {
            all.push(ino);
        }
    }
    all
}
