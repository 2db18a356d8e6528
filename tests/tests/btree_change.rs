//! Changing btrees against a model: every kind in trees of tiny blocks, with roots in blocks and in inodes; calls that fail; bulk loads.

use libxfsr::Error;
use libxfsr::btree::bulk::{self, Plan, Slack};
use libxfsr::btree::kinds::{Bmap, Bno, Cnt, Finobt, Inobt, Refcount, Rmap};
use libxfsr::btree::{self, Kind, Lookup, Position, Root, Store, query};
use libxfsr::control::Control;
use libxfsr::error::Rule;
use libxfsr::format::BlockType;
use libxfsr::format::btree::{self as format, Layout, RTREFCOUNT, RTRMAP};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use xfsr_tests::sample::{Ordered, Sample};
use xfsr_tests::small::SmallTree;

type Model<K> = BTreeMap<Ordered<K>, <K as Kind>::Record>;

/// What a tree must be after any change: sound, without lost blocks, and with the model's records.
fn sound<K: Sample>(tree: &SmallTree, model: &Model<K>) -> btree::Report {
    let (mut seen, mut findings) = (Vec::new(), Vec::new());
    let report =
        btree::check::<K, _>(tree, &Control::none(), &mut |_, _| (), &mut |r| seen.push(*r), &mut |c| findings.push(c))
            .expect("not stopped");
    assert!(findings.is_empty(), "{}: {}", K::NAME, findings[0]);
    assert!(seen.iter().eq(model.values()), "{}: {} records, {} in the model", K::NAME, seen.len(), model.len());
    assert_eq!(report.blocks as usize, tree.len(), "{}: blocks that nothing points to", K::NAME);
    report
}

fn low<K: Kind>(r: &K::Record) -> Ordered<K> {
    Ordered(K::low(r))
}

fn behind<'m, K: Sample>(model: &'m Model<K>, key: &Ordered<K>) -> Option<&'m K::Record> {
    let key = Ordered::<K>(key.0);
    model.range((Bound::Excluded(key), Bound::Unbounded)).next().map(|(_, r)| r)
}

fn before<'m, K: Sample>(model: &'m Model<K>, key: &Ordered<K>) -> Option<&'m K::Record> {
    let key = Ordered::<K>(key.0);
    model.range((Bound::Unbounded, Bound::Excluded(key))).next_back().map(|(_, r)| r)
}

/// The records on both sides of a place in the tree are the model's.
fn between<K: Sample>(tree: &SmallTree, at: &Position<K>, model: &Model<K>, key: &Ordered<K>) {
    let mut next = at.clone();
    let found = next.advance(tree).expect("a sound tree");
    assert_eq!(next.record(tree).expect("sound"), behind(model, key).copied(), "{}: behind", K::NAME);
    assert_eq!(found, behind(model, key).is_some());
    let mut previous = at.clone();
    let found = previous.retreat(tree).expect("a sound tree");
    assert_eq!(previous.record(tree).expect("sound"), before(model, key).copied(), "{}: before", K::NAME);
    assert_eq!(found, before(model, key).is_some());
}

fn is_corrupt<T>(result: &Result<T, Error>, rule: Rule) -> bool {
    matches!(result, Err(Error::Corrupt(c)) if c.rule == rule)
}

fn insert<K: Sample>(tree: &mut SmallTree, model: &mut Model<K>, r: K::Record) {
    let result = Position::<K>::insert(tree, &r);
    if model.contains_key(&low::<K>(&r)) {
        assert!(is_corrupt(&result, Rule::Duplicate), "{}", K::NAME);
        return;
    }
    model.insert(low::<K>(&r), r);
    let at = result.expect("room");
    assert_eq!(at.record(tree).expect("sound"), Some(r));
    between(tree, &at, model, &low::<K>(&r));
}

/// Removes the first record from `key` on.
fn remove<K: Sample>(tree: &mut SmallTree, model: &mut Model<K>, key: &K::Key) {
    let expected = model.range(Ordered(*key)..).next().map(|(_, r)| *r);
    let at = Position::<K>::lookup(tree, key, Lookup::GreaterOrEqual).expect("a sound tree");
    let (Some(r), Some(mut at)) = (expected, at) else { return assert!(expected.is_none()) };
    assert_eq!(at.record(tree).expect("sound"), Some(r));
    assert_eq!(at.remove(tree).expect("no call fails"), r);
    assert_eq!(at.record(tree).expect("sound"), None);
    assert!(matches!(at.remove(tree), Err(Error::Invalid(_))), "it is on no record");
    model.remove(&low::<K>(&r));
    between(tree, &at, model, &low::<K>(&r));
}

/// Puts `new` in place of the last record up to `key`.
fn update<K: Sample>(tree: &mut SmallTree, model: &mut Model<K>, key: &K::Key, new: K::Record) {
    let expected = model.range(..=Ordered(*key)).next_back().map(|(_, r)| *r);
    let at = Position::<K>::lookup(tree, key, Lookup::LessOrEqual).expect("a sound tree");
    let (Some(old), Some(mut at)) = (expected, at) else { return assert!(expected.is_none()) };
    let inside = before(model, &low::<K>(&old)).is_none_or(|r| low::<K>(r) < low::<K>(&new))
        && behind(model, &low::<K>(&old)).is_none_or(|r| low::<K>(r) > low::<K>(&new));
    let result = at.update(tree, &new);
    if !inside {
        return assert!(is_corrupt(&result, Rule::Order), "{}: {result:?}", K::NAME);
    }
    result.expect("no call fails");
    model.remove(&low::<K>(&old));
    model.insert(low::<K>(&new), new);
    assert_eq!(at.record(tree).expect("sound"), Some(new));
    between(tree, &at, model, &low::<K>(&new));
}

fn range<K: Sample>(tree: &SmallTree, model: &Model<K>, a: K::Key, b: K::Key) {
    let (low, high) = if Ordered::<K>(a) > Ordered(b) { (b, a) } else { (a, b) };
    let touches = |r: &&K::Record| K::compare(&K::low(r), &high).is_le() && K::compare(&K::high(r), &low).is_ge();
    let mut found = Vec::new();
    let all = query::<K, _>(tree, &low, &high, &mut |r| {
        found.push(*r);
        ControlFlow::Continue(())
    });
    all.expect("a sound tree");
    assert!(found.iter().eq(model.values().filter(touches)), "{}: range", K::NAME);
}

/// A place where a tree may live.
#[derive(Clone, Copy, Debug)]
struct Home {
    kind: &'static BlockType,
    layout: Layout,
    /// Entries of a block.
    entries: usize,
    /// Bytes of a root in an inode; whether it may hold records.
    fork: Option<(usize, bool)>,
}

impl Home {
    fn tree(&self) -> SmallTree {
        let tree = SmallTree::new(self.kind, self.layout, self.entries, self.fork.map(|f| f.0));
        if self.fork.is_some_and(|f| f.1) { tree.with_inline_records() } else { tree }
    }
    fn empty<K: Kind>(&self) -> SmallTree {
        let mut tree = self.tree();
        load::<K>(&mut tree, &[], Slack::Half);
        tree
    }
}

fn load<K: Kind>(tree: &mut SmallTree, records: &[K::Record], slack: Slack) -> Plan {
    let plan = Plan::new(tree, records.len() as u64, slack).expect("a tree for them");
    bulk::load::<K, _>(tree, &plan, records.iter().map(|r| Ok(*r))).expect("no call fails");
    tree.commit();
    plan
}

/// Every kind, where it lives: the roots of the last three are in an inode, with room for `fork` children.
macro_rules! everywhere {
    ($function:ident, $entries:expr, $fork:expr $(, $argument:expr)*) => {{
        let block = |kind, layout| Home { kind, layout, entries: $entries, fork: None };
        let fork = |kind, layout: Layout, records| {
            let bytes = 4 + $fork * (layout.key + layout.pointer);
            Home { kind, layout, entries: $entries, fork: Some((bytes, records)) }
        };
        $function::<Bno>(block(&format::BNOBT_BLOCK, Bno::LAYOUT) $(, $argument)*);
        $function::<Cnt>(block(&format::CNTBT_BLOCK, Cnt::LAYOUT) $(, $argument)*);
        $function::<Inobt>(block(&format::INOBT_BLOCK, Inobt::LAYOUT) $(, $argument)*);
        $function::<Finobt>(block(&format::FINOBT_BLOCK, Finobt::LAYOUT) $(, $argument)*);
        $function::<Rmap>(block(&format::RMAPBT_BLOCK, Rmap::LAYOUT) $(, $argument)*);
        $function::<Refcount>(block(&format::REFCOUNTBT_BLOCK, Refcount::LAYOUT) $(, $argument)*);
        $function::<Bmap>(fork(&format::BMBT_BLOCK, Bmap::LAYOUT, false) $(, $argument)*);
        $function::<Rmap>(fork(&format::RTRMAPBT_BLOCK, RTRMAP, true) $(, $argument)*);
        $function::<Refcount>(fork(&format::RTREFCOUNTBT_BLOCK, RTREFCOUNT, true) $(, $argument)*);
    }};
}

/// What is done: which change, where, and with what.
type Step = (u8, u32, u64);

/// Many changes; most of the first half put records in, most of the second take them out.
fn changes<K: Sample>(home: Home, steps: &[Step], places: u32) {
    let (mut tree, mut model) = (home.empty::<K>(), Model::<K>::new());
    let mut height = 0;
    for (i, &(what, place, free)) in steps.iter().enumerate() {
        let place = place % places;
        let filling = i < steps.len() / 2;
        match what % 10 {
            0..=5 if filling => insert(&mut tree, &mut model, K::record(place, free)),
            0..=6 if !filling => remove(&mut tree, &mut model, &K::low(&K::record(place, free))),
            6 => remove(&mut tree, &mut model, &K::low(&K::record(place, free))),
            7 => insert(&mut tree, &mut model, K::record(place, free)),
            8 => update(&mut tree, &mut model, &K::low(&K::record(place, u64::MAX)), K::record(place, free)),
            _ => range(&tree, &model, K::key(place * 20, free), K::low(&K::record((free % 977) as u32 % places, free))),
        }
        tree.commit();
        if i % 16 == 0 {
            sound(&tree, &model);
            height = height.max(btree::Node::root(&tree, libxfsr::cache::OnDamage::Fail).expect("a root").level());
        }
    }
    sound(&tree, &model);
    assert!(height >= 2 || steps.len() < 600, "{}: {} levels", K::NAME, height + 1);
    // To the end, from somewhere in the middle.
    while let Some((_, r)) = model.iter().nth(model.len() * 2 / 3) {
        let key = K::low(r);
        remove(&mut tree, &mut model, &key);
        tree.commit();
        if model.len() % 8 == 0 {
            sound(&tree, &model);
        }
    }
    assert_eq!(tree.len(), usize::from(home.fork.is_none()), "{}: blocks of an empty tree", K::NAME);
    if let Root::Inline(bytes) = tree.root().expect("a root") {
        assert_eq!(bytes[..4], [0; 4], "{}: a root without records", K::NAME);
    }
}

/// As many cases, or fifty times as many with `XFSR_FULL=1`.
fn cases(quick: u32) -> u32 {
    if std::env::var_os("XFSR_FULL").is_some_and(|v| v == "1") { quick * 50 } else { quick }
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any::<Step>(), most / 2..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(24)))]

    #[test]
    fn changed_trees_agree_with_a_map(steps in steps(1600), entries in 4usize..8, fork in 1usize..4) {
        everywhere!(changes, entries, fork, &steps, 700);
    }
}

/// In order and in reverse: as files and free space are often changed. Blocks get nearly full in order.
fn one_after_the_other<K: Sample>(home: Home, reverse: bool) {
    let (mut tree, mut model) = (home.empty::<K>(), Model::<K>::new());
    let mut all: Vec<K::Record> = (0..400).map(|n| K::record(n, 0x1_0001)).collect();
    all.sort_by(|a, b| K::compare(&K::low(a), &K::low(b)));
    if reverse {
        all.reverse();
    }
    for r in &all {
        insert(&mut tree, &mut model, *r);
        tree.commit();
    }
    let full = sound(&tree, &model);
    let leaves = all.len() / home.layout.leaf_max(tree.block_size());
    assert!(full.blocks as usize <= leaves * 2, "{}: {} blocks for {leaves} full leaves", K::NAME, full.blocks);
    // Each was the last, in order.
    assert_eq!(tree.told, (400, if reverse { 1 } else { 400 }), "{}", K::NAME);
    for r in &all {
        remove(&mut tree, &mut model, &K::low(r));
        tree.commit();
        if model.len() % 16 == 0 {
            sound(&tree, &model);
        }
    }
    assert_eq!(tree.told, (800, 401), "{}", K::NAME);
}

#[test]
fn records_come_and_go_in_order() {
    for reverse in [false, true] {
        for entries in [4, 5, 16] {
            everywhere!(one_after_the_other, entries, 3, reverse);
        }
    }
}

/// Each call of a change fails once: the change tells it, and a cancelled transaction leaves the tree as it was.
fn each_call_fails<K: Sample>(home: Home) {
    let mut tree = home.tree();
    let mut records: Vec<K::Record> = (0..60).map(|n| K::record(n * 2, 0x2_0001)).collect();
    records.sort_by(|a, b| K::compare(&K::low(a), &K::low(b)));
    let mut model: Model<K> = records.iter().map(|r| (low::<K>(r), *r)).collect();
    // Full blocks, so that one record splits up to the root; then emptier and emptier ones, which are joined.
    load::<K>(&mut tree, &records, Slack::Entries { leaf: 0, node: 0 });
    let mut failures = 0;
    for round in 0..50u32 {
        let (new, old) = (K::record(61 + 2 * round, 0x2_0001), records[round as usize]);
        for way in [0, 1] {
            for calls in 0.. {
                tree.fail_after(calls);
                let result = match way {
                    0 if round > 5 => break,
                    0 => Position::<K>::insert(&mut tree, &new).map(drop),
                    _ => Position::<K>::lookup(&tree, &K::low(&old), Lookup::Equal)
                        .and_then(|at| at.expect("the record").remove(&mut tree))
                        .map(drop),
                };
                let Err(e) = result else { break };
                assert_eq!(e.to_string(), "this call fails", "{}", K::NAME);
                failures += 1;
                tree.cancel();
                sound(&tree, &model);
            }
            tree.commit();
            match way {
                0 if round > 5 => None,
                0 => model.insert(low::<K>(&new), new),
                _ => model.remove(&low::<K>(&old)),
            };
            sound(&tree, &model);
        }
    }
    assert!(failures > 600, "{}: {failures}", K::NAME);
}

#[test]
fn a_call_that_fails_leaves_the_tree_as_it_was() {
    everywhere!(each_call_fails, 4, 2);
}

/// Without room for the blocks that a change may take nothing is changed, transaction or not.
fn no_space<K: Sample>(home: Home) {
    let (mut tree, mut model) = (home.empty::<K>(), Model::<K>::new());
    tree.room = 9;
    let mut refused = 0;
    for n in 0..200u32 {
        let r = K::record(n * 37 % 200, 0x3_0001);
        match Position::<K>::insert(&mut tree, &r) {
            Ok(_) => drop(model.insert(low::<K>(&r), r)),
            Err(e) => {
                assert_eq!(e.to_string(), "no space left");
                refused += 1;
            }
        }
        sound(&tree, &model);
    }
    assert!(refused > 50 && !model.is_empty(), "{}: {refused}", K::NAME);
}

#[test]
fn a_lack_of_space_is_told_before_the_first_change() {
    everywhere!(no_space, 4, 2);
}

/// So many records at such a slack: sound, and as full as asked.
fn loaded<K: Sample>(home: Home, count: usize, slack: Slack) {
    let mut tree = home.tree();
    let mut records: Vec<K::Record> = (0..count as u32).map(|n| K::record(n, 0x4_0001)).collect();
    records.sort_by(|a, b| K::compare(&K::low(a), &K::low(b)));
    let plan = load::<K>(&mut tree, &records, slack);
    let model: Model<K> = records.iter().map(|r| (low::<K>(r), *r)).collect();
    let mut rows: Vec<Vec<usize>> = Vec::new();
    let mut block = |_, node: Option<&btree::Node<'_>>| {
        let node = node.expect("a readable block");
        let level = usize::from(node.level());
        rows.resize(rows.len().max(level + 1), Vec::new());
        rows[level].push(node.len());
    };
    let report = btree::check::<K, _>(&tree, &Control::none(), &mut block, &mut |_| (), &mut |c| panic!("{c}"));
    assert_eq!(report.expect("not stopped").blocks, plan.blocks());
    sound(&tree, &model);
    let root = btree::Node::root(&tree, libxfsr::cache::OnDamage::Fail).expect("a root");
    assert_eq!(plan.levels(), root.level() as u8 + 1);
    for (level, row) in rows.iter().enumerate() {
        let fill = slack.fill(&home.layout, tree.block_size(), level as u16);
        let (max, _) = home.layout.limits(tree.block_size(), level as u16);
        let all: usize = row.iter().sum();
        // Evenly, and no block more than needed; one less only where each would fall below the minimum.
        assert!(row.iter().all(|n| *n <= max && n.abs_diff(all / row.len()) <= 1), "{}: {row:?}", K::NAME);
        let blocks = all.div_ceil(fill).max(1);
        assert!(
            row.len() == blocks || row.len() + 1 == blocks && all / blocks < max / 2,
            "{} {fill}: {row:?}",
            K::NAME
        );
    }
    // It can be changed at once.
    let mut model = model;
    insert(&mut tree, &mut model, K::record(count as u32, 0x4_0001));
    tree.commit();
    sound(&tree, &model);
}

/// A tree of as many records as a leaf, or a root in an inode, holds, and some more.
fn loads<K: Sample>(home: Home) {
    let leaf = home.layout.leaf_max(home.tree().block_size());
    let fork = home.fork.map_or(0, |f| (f.0 - 4) / home.layout.record);
    for slack in [Slack::Half, Slack::Little, Slack::Entries { leaf: 0, node: 0 }, Slack::Entries { leaf: 99, node: 1 }]
    {
        for count in [0, 1, fork, fork + 1, leaf - 1, leaf, leaf + 1, 2 * leaf, 2 * leaf + 1, 100, 1000, 3001] {
            loaded::<K>(home, count, slack);
        }
    }
}

#[test]
fn bulk_loads_are_as_full_as_asked() {
    for entries in [4, 7] {
        everywhere!(loads, entries, 2);
    }
}

#[test]
fn bulk_loads_refuse_what_was_not_said() {
    let home = Home { kind: &format::BNOBT_BLOCK, layout: Bno::LAYOUT, entries: 6, fork: None };
    let records: Vec<_> = (0..50).map(|n| Bno::record(n, 1)).collect();
    let old: Vec<_> = (0..9).map(|n| Bno::record(n, 7)).collect();
    let model: Model<Bno> = old.iter().map(|r| (low::<Bno>(r), *r)).collect();
    let attempt = |said: u64, given: &mut dyn Iterator<Item = libxfsr::Result<format::AllocRec>>| {
        let mut tree = home.tree();
        load::<Bno>(&mut tree, &old, Slack::Half);
        let plan = Plan::new(&tree, said, Slack::Half).expect("a plan");
        let e = bulk::load::<Bno, _>(&mut tree, &plan, given).expect_err("not what was said");
        tree.cancel();
        sound(&tree, &model);
        e
    };
    let all = || records.iter().map(|r| Ok(*r));
    assert!(attempt(51, &mut all()).to_string().contains("fewer than 51"));
    assert!(attempt(49, &mut all()).to_string().contains("more than 49"));
    let swapped = all().take(20).chain(all().skip(10)).take(50);
    assert!(matches!(attempt(50, &mut { swapped }), Error::Corrupt(c) if c.rule == Rule::Order));
    let broken = all().take(20).chain([Err(Error::Stopped)]);
    assert!(matches!(attempt(50, &mut { broken }), Error::Stopped));
}

/// Any bytes of any blocks: no panic and no endless loop, and now and then an error.
fn damaged<K: Sample>(home: Home, blows: &[(usize, usize, u8)], told: &mut u32) {
    let mut tree = home.tree();
    let mut records: Vec<K::Record> = (0..150).map(|n| K::record(n * 2, 0x5_0001)).collect();
    records.sort_by(|a, b| K::compare(&K::low(a), &K::low(b)));
    load::<K>(&mut tree, &records, Slack::Entries { leaf: 1, node: 1 });
    for (block, byte, bits) in blows {
        tree.damage(*block, *byte, *bits);
    }
    tree.room = 400;
    for (n, r) in records.iter().enumerate().step_by(7) {
        let key = K::low(r);
        let removed = Position::<K>::lookup(&tree, &key, Lookup::GreaterOrEqual)
            .and_then(|at| at.map(|mut at| at.remove(&mut tree)).transpose());
        *told += u32::from(!matches!(removed, Ok(Some(_))));
        let new = K::record(n as u32 * 2 + 1, 0x5_0001);
        *told += u32::from(Position::<K>::insert(&mut tree, &new).is_err());
        if let Ok(Some(mut at)) = Position::<K>::lookup(&tree, &key, Lookup::LessOrEqual) {
            let _ = at.update(&mut tree, &K::record(n as u32 * 2, 0x5_0007));
            for forward in [true, true, false, false, false] {
                let _ = if forward { at.advance(&tree) } else { at.retreat(&tree) };
            }
        }
    }
}

#[test]
fn damage_is_told_and_not_followed() {
    let blows = prop::collection::vec((0usize..200, 0usize..400, any::<u8>()), 0..60);
    let headers = prop::collection::vec((0usize..200, 4usize..24, 0u8..16), 0..9);
    let told = std::cell::Cell::new(0);
    let mut runner =
        TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(200)) });
    let all = runner.run(&(blows, headers, 4usize..7), |(blows, headers, entries)| {
        let mut here = 0;
        everywhere!(damaged, entries, 2, &[&blows[..], &headers[..]].concat(), &mut here);
        told.set(told.get() + u64::from(here));
        Ok(())
    });
    all.unwrap_or_else(|e| panic!("{e}"));
    assert!(told.get() > u64::from(cases(200)) * 20, "{}", told.get());
}
