//! Reading btrees against a model: trees of every kind built from random records; damaged pointers that must not be followed.

use libxfsr::btree::kinds::{Bmap, Bno, Cnt, Finobt, Inobt, Refcount, Rmap};
use libxfsr::btree::{self, Cursor, Kind, Lookup, Ptr, Root, Store, Width, query};
use libxfsr::cache::{BlockRef, Keep, OnDamage};
use libxfsr::control::Control;
use libxfsr::error::{Corruption, Result};
use libxfsr::format::BlockType;
use libxfsr::format::btree::{ALLOC, Layout};
use proptest::prelude::*;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering as AtomicOrdering};
use xfsr_tests::fuzz::{geometries, tree_stamps};
use xfsr_tests::sample::{Ordered, Sample, Seed};
use xfsr_tests::tree::MemoryTree;
use zerocopy::IntoBytes;

fn same<T: PartialEq + Debug>(what: &str, seen: T, expected: T) {
    assert_eq!(seen, expected, "{what}");
}

/// Everything that a tree can be asked, against a map of its records.
fn agrees<K: Sample>(seeds: &[Seed], fill: usize, probes: &[(u32, u64)])
where
    K::Record: Debug,
{
    let records = K::records(seeds);
    let mut tree = MemoryTree::small(&tree_stamps()[K::STAMP], K::LAYOUT);
    let levels = tree.build::<K>(&records, fill, 20);
    let model: BTreeMap<Ordered<K>, K::Record> = records.iter().map(|r| (Ordered(K::low(r)), *r)).collect();
    same("keys are distinct", model.len(), records.len());

    let mut findings = Vec::new();
    let mut seen = Vec::new();
    let report = btree::check::<K, _>(&tree, &Control::none(), &mut |_, _| (), &mut |r| seen.push(*r), &mut |c| {
        findings.push(c)
    });
    let report = report.expect("a readable tree");
    assert!(findings.is_empty(), "{}: {}", K::NAME, findings[0]);
    same("records of the check", &seen, &records);
    same("blocks of the check", report.blocks, levels.iter().map(|l| l.len() as u64).sum());

    let walk = |cursor: Option<Cursor<'_, K, MemoryTree>>, forward: bool| {
        let mut all = Vec::new();
        let Some(mut cursor) = cursor else { return all };
        loop {
            all.extend(cursor.record());
            if !if forward { cursor.advance() } else { cursor.retreat() }.expect("a sound tree") {
                return all;
            }
        }
    };
    let backwards = |mut all: Vec<K::Record>| {
        all.reverse();
        all
    };
    same("forward", walk(Cursor::first(&tree).expect("sound"), true), records.clone());
    same("backward", walk(Cursor::last(&tree).expect("sound"), false), backwards(records.clone()));

    // Random keys, and the keys of records themselves.
    let keys: Vec<K::Key> = probes.iter().map(|(place, free)| K::key(*place, *free)).collect();
    let own = probes.iter().filter_map(|(place, _)| records.get(*place as usize % records.len().max(1)).map(K::low));
    let keys: Vec<K::Key> = keys.into_iter().chain(own).collect();
    for key in &keys {
        let find = |which| Cursor::<K, _>::lookup(&tree, key, which).expect("a sound tree");
        let record = |which| find(which).and_then(|c| c.record());
        same("equal", record(Lookup::Equal), model.get(&Ordered(*key)).copied());
        let below: Vec<K::Record> = model.range(..=Ordered(*key)).map(|(_, r)| *r).collect();
        let above: Vec<K::Record> = model.range(Ordered(*key)..).map(|(_, r)| *r).collect();
        same("less or equal, and all before", walk(find(Lookup::LessOrEqual), false), backwards(below));
        same("greater or equal, and all after", walk(find(Lookup::GreaterOrEqual), true), above);
    }
    for pair in keys.windows(2) {
        let (low, high) = if K::compare(&pair[0], &pair[1]) == Ordering::Greater { (1, 0) } else { (0, 1) };
        let (low, high) = (&pair[low], &pair[high]);
        let touching = records.iter().filter(|r| {
            K::compare(&K::low(r), high) != Ordering::Greater && K::compare(&K::high(r), low) != Ordering::Less
        });
        let mut found = Vec::new();
        let all = query::<K, _>(&tree, low, high, &mut |r| {
            found.push(*r);
            ControlFlow::Continue(())
        });
        all.expect("a sound tree");
        same("range", found, touching.copied().collect());
    }
}

fn seeds(most: usize) -> impl Strategy<Value = Vec<Seed>> {
    prop::collection::vec(any::<Seed>(), 0..most)
}

fn probes() -> impl Strategy<Value = Vec<(u32, u64)>> {
    prop::collection::vec((0..20_000u32, any::<u64>()), 2..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn trees_agree_with_a_map(seeds in seeds(2500), fill in 1usize..200, probes in probes()) {
        agrees::<Bno>(&seeds, fill, &probes);
        agrees::<Cnt>(&seeds, fill, &probes);
        agrees::<Inobt>(&seeds, fill, &probes);
        agrees::<Finobt>(&seeds, fill, &probes);
        agrees::<Rmap>(&seeds, fill, &probes);
        agrees::<Refcount>(&seeds, fill, &probes);
        agrees::<Bmap>(&seeds, fill, &probes);
    }

    #[test]
    fn damaged_pointers_are_found_and_not_followed(
        level in 0usize..9,
        node in any::<u16>(),
        slot in any::<u16>(),
        how in 0u8..4,
    ) {
        harmed::<Bno>(level, node, slot, how);
        harmed::<Inobt>(level, node, slot, how);
        harmed::<Rmap>(level, node, slot, how);
        harmed::<Bmap>(level, node, slot, how);
    }
}

/// What a reader gets of a whole tree, one way: the records, and whether it was told of damage.
fn read<K: Kind>(tree: &MemoryTree, forward: bool) -> (usize, bool) {
    let cursor = if forward { Cursor::<K, _>::first(tree) } else { Cursor::<K, _>::last(tree) };
    let Ok(cursor) = cursor else { return (0, true) };
    let Some(mut cursor) = cursor else { return (0, false) };
    let mut n = 1;
    loop {
        match if forward { cursor.advance() } else { cursor.retreat() } {
            Ok(true) => n += 1,
            Ok(false) => return (n, false),
            Err(_) => return (n, true),
        }
    }
}

fn pointer_of(tree: &MemoryTree, layout: &Layout, slot: usize) -> std::ops::Range<usize> {
    let at = layout.header + layout.node_max(tree.block_size()) * layout.key + slot * layout.pointer;
    at..at + layout.pointer
}

fn harmed<K: Sample>(level: usize, node: u16, slot: u16, how: u8) {
    let seeds: Vec<Seed> = (0..6000u32).map(|i| (i * 7 % 2000, i % 13, u64::from(i) << 16 | u64::from(i))).collect();
    let records = K::records(&seeds);
    let mut tree = MemoryTree::small(&tree_stamps()[K::STAMP], K::LAYOUT);
    let levels = tree.build::<K>(&records, 1, 20);
    assert!(levels.len() >= 3, "{}: {} levels", K::NAME, levels.len());
    let total: usize = levels.iter().map(Vec::len).sum();
    let level = 1 + level % (levels.len() - 1);
    let at = levels[level][usize::from(node) % levels[level].len()];
    let mut bytes = tree.bytes(at);
    let count = usize::from(u16::from_be_bytes([bytes[6], bytes[7]]));
    let slot = usize::from(slot) % count;
    let place = pointer_of(&tree, &K::LAYOUT, slot);
    let root = *levels.last().and_then(|l| l.first()).expect("a root");
    let other = pointer_of(&tree, &K::LAYOUT, (slot + 1) % count);
    let target = |at: Ptr| at.0.to_be_bytes()[8 - K::LAYOUT.pointer..].to_vec();
    let new = match how {
        // To itself, back to the root, to a block that another pointer has, out of the AG.
        0 => target(at),
        1 => target(root),
        2 => bytes[other].to_vec(),
        _ => target(Ptr(0xff_ffff)),
    };
    bytes[place].copy_from_slice(&new);
    tree.put(at, &bytes);

    let mut findings = 0;
    let report = btree::check::<K, _>(&tree, &Control::none(), &mut |_, _| (), &mut |_| (), &mut |_| findings += 1)
        .expect("findings");
    assert!(report.incomplete && findings > 0, "{} {how}: {report:?}", K::NAME);
    assert!(report.blocks < total as u64 + 1, "{}: {} of {total} blocks", K::NAME, report.blocks);
    for forward in [true, false] {
        let (n, told) = read::<K>(&tree, forward);
        assert!(told, "{} {how}: a walk noticed nothing", K::NAME);
        assert!(n <= records.len(), "{} {how}: {n} records of {}", K::NAME, records.len());
    }
}

/// A few blocks that share their children would be an endless tree to who follows every pointer.
fn bomb<K: Sample>(empty: bool) {
    let record = K::records(&[(5, 5, 1)]);
    let mut tree = MemoryTree::small(&tree_stamps()[K::STAMP], K::LAYOUT);
    tree.build::<K>(&record, 1, 20);
    let mut leaf = tree.bytes(Ptr(20));
    if empty {
        leaf[6..8].fill(0);
        tree.put(Ptr(20), &leaf);
    }
    let (low, layout) = (K::low(&record[0]), K::LAYOUT);
    let depth = 3u16;
    for level in 1..=depth {
        let mut block = vec![0; tree.block_size()];
        block[..layout.header].copy_from_slice(&leaf[..layout.header]);
        let most = layout.node_max(tree.block_size());
        block[4..6].copy_from_slice(&level.to_be_bytes());
        block[6..8].copy_from_slice(&(most as u16).to_be_bytes());
        for slot in 0..most {
            let key = layout.header + slot * layout.key;
            for part in block[key..key + layout.key].chunks_mut(size_of::<K::Key>()) {
                part.copy_from_slice(low.as_bytes());
            }
            let below = (19 + u64::from(level)).to_be_bytes();
            block[pointer_of(&tree, &layout, slot)].copy_from_slice(&below[8 - layout.pointer..]);
        }
        tree.put(Ptr(20 + u64::from(level)), &block);
    }
    tree.root = Root::Block { at: Ptr(20 + u64::from(depth)), levels: depth as u8 + 1 };
    for forward in [true, false] {
        let (n, told) = read::<K>(&tree, forward);
        assert!(n <= 1 && told, "{}: {n} records, told: {told}", K::NAME);
    }
    let mut n = 0;
    let result = query::<K, _>(&tree, &low, &K::high(&record[0]), &mut |_| {
        n += 1;
        ControlFlow::Continue(())
    });
    // Where records do not overlap, a query begins at the last path to its first record, and may end there.
    assert!(n <= 1 && (result.is_err() || !K::OVERLAPPING), "{}: {n} records of a query, {result:?}", K::NAME);
    let mut findings = 0;
    let report = btree::check::<K, _>(&tree, &Control::none(), &mut |_, _| (), &mut |_| (), &mut |_| findings += 1)
        .expect("findings");
    assert!(report.incomplete && report.blocks == u64::from(depth) + 1, "{}: {report:?}", K::NAME);
}

#[test]
fn shared_children_do_not_make_an_endless_tree() {
    for empty in [false, true] {
        bomb::<Bno>(empty);
        bomb::<Inobt>(empty);
        bomb::<Rmap>(empty);
        bomb::<Refcount>(empty);
        bomb::<Bmap>(empty);
    }
}

#[test]
fn a_root_of_impossible_height_is_refused() {
    let seeds: Vec<Seed> = (0..500).map(|i| (i, i, 0)).collect();
    let mut tree = MemoryTree::small(&tree_stamps()[Bno::STAMP], ALLOC);
    let levels = tree.build::<Bno>(&Bno::records(&seeds), 60, 20);
    let Root::Block { at, .. } = tree.root.clone() else { panic!("a root in a block") };
    for wrong in [0, levels.len() as u8 - 1, levels.len() as u8 + 1, 9, 10, 200, 255] {
        tree.root = Root::Block { at, levels: wrong };
        assert_eq!(read::<Bno>(&tree, true), (0, true), "{wrong} levels");
        let mut findings = 0;
        let report =
            btree::check::<Bno, _>(&tree, &Control::none(), &mut |_, _| (), &mut |_| (), &mut |_| findings += 1);
        assert!(report.expect("findings").incomplete && findings > 0, "{wrong} levels");
    }
}

/// Counts blocks that were read and not yet handed over.
struct Held {
    tree: MemoryTree,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Store for Held {
    fn width(&self) -> Width {
        self.tree.width()
    }
    fn block_type(&self) -> &'static BlockType {
        self.tree.block_type()
    }
    fn layout(&self) -> Layout {
        self.tree.layout()
    }
    fn block_size(&self) -> usize {
        self.tree.block_size()
    }
    fn root(&self) -> Result<Root> {
        self.tree.root()
    }
    fn read(&self, at: Ptr, damage: OnDamage, keep: Keep) -> Result<BlockRef<'_>> {
        let now = self.now.fetch_add(1, AtomicOrdering::SeqCst) + 1;
        self.most.fetch_max(now, AtomicOrdering::SeqCst);
        self.tree.read(at, damage, keep)
    }
    fn locate(&self, c: Box<Corruption>, at: Option<Ptr>) -> Box<Corruption> {
        self.tree.locate(c, at)
    }
}

#[test]
fn of_large_blocks_only_some_are_held_at_a_time() {
    let geometry = geometries().iter().find(|g| g.block_size == 65536).expect("one of them");
    let seeds: Vec<Seed> =
        (0..300_000u32).map(|i| (i % 2000, i % 5, u64::from(i / 2000) << 16 | u64::from(i % 20))).collect();
    let mut tree = MemoryTree::new(geometry, &tree_stamps()[Rmap::STAMP], Rmap::LAYOUT);
    let records = Rmap::records(&seeds);
    let levels = tree.build::<Rmap>(&records, 1400, 20);
    assert!(levels.len() == 2 && levels[0].len() > 150, "{} leaves", levels[0].len());
    let held = Held { tree, now: AtomicUsize::new(0), most: AtomicUsize::new(0) };
    let mut block = |_: Ptr, _: Option<&btree::Node>| {
        held.now.fetch_sub(1, AtomicOrdering::SeqCst);
    };
    let (mut seen, mut findings) = (0, 0);
    let report =
        btree::check::<Rmap, _>(&held, &Control::none(), &mut block, &mut |_| seen += 1, &mut |_| findings += 1);
    assert!(!report.expect("findings").incomplete);
    assert_eq!((seen, findings), (records.len(), 0));
    // 4 MiB.
    let most = held.most.load(AtomicOrdering::SeqCst);
    assert!((32..=65).contains(&most), "{most} blocks of 64 KiB were held");
}
