//! Reference counts are changed in an image that the kernel wrote, against a model of single blocks.

use crate::{World, end, open, records, without_log};
use libxfsr::Error;
use libxfsr::btree::kinds::Refcount;
use libxfsr::format::btree::{REFCOUNT_COW, RefcountRec};
use libxfsr::format::log::items::{RefcountOp, RmapOp};
use libxfsr::space::{AgTree, Allocated, CountChange, CountChanges, MapChanges, Mapping, Place, Request};
use libxfsr::units::{AgBlock, AgNumber};
use libxfsr::volume::Volume;
use rand::Rng;
use xfsr_tests::corpus;

/// Counts of single blocks, in both domains.
type Counts = std::collections::BTreeMap<u32, u32>;

fn counts(volume: &Volume, ag: AgNumber) -> Counts {
    let all = records::<Refcount>(volume, ag, AgTree::Refcount).0;
    for w in all.windows(2) {
        let joined = w[0].startblock.get() + w[0].blockcount.get() == w[1].startblock.get();
        assert!(!joined || w[0].refcount != w[1].refcount, "AG {ag}: {w:?} could be one");
    }
    let blocks = |r: &RefcountRec| {
        (r.startblock.get()..r.startblock.get() + r.blockcount.get()).map(|b| (b, r.refcount.get())).collect::<Vec<_>>()
    };
    all.iter().flat_map(blocks).collect()
}

/// A model of the counts of one AG's blocks; those with one owner have none.
fn count(model: &mut [Counts], a: &Allocated, range: std::ops::Range<u32>, up: bool) {
    for block in range.map(|b| a.start.0 + b) {
        let counts = &mut model[a.ag.0 as usize];
        let now = counts.get(&block).copied().unwrap_or(1);
        match if up { now + 1 } else { now - 1 } {
            1 => counts.remove(&block),
            n => counts.insert(block, n),
        };
    }
}

impl World {
    fn adjust(&self, a: &Allocated, range: std::ops::Range<u32>, op: RefcountOp) {
        let mut at = range.start;
        while at < range.end {
            let mut t = self.scope.begin(self.room()).expect("room in the log");
            let start = self.volume.geometry.join(a.ag, AgBlock(a.start.0 + at));
            let (done, gone) = self.space.adjust_count(&mut t, start, range.end - at, op).expect("counted");
            t.commit().expect("committed");
            assert!(done > 0 && gone.is_empty(), "{done} {gone:?}");
            at += done;
        }
    }
}

#[test]
fn counts_of_shared_blocks_follow_a_model() {
    let name = "rmap-1k";
    if corpus::obtain(name).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy(name, directory.path()).data;
    let mut world = World::new(open(&image), without_log(), 17);
    let g = world.volume.geometry.clone();
    assert!(g.features.reflink());
    while world.held.len() < 24 {
        world.allocate(300);
    }
    let first: Vec<Counts> = g.ags().map(|ag| counts(&world.volume, ag)).collect();
    let mut model = first.clone();
    for n in 0..900 {
        let (a, _) = world.held[world.rng.random_range(0..world.held.len())];
        let start = world.rng.random_range(0..a.len);
        let end = world.rng.random_range(start + 1..=a.len);
        let up = world.rng.random_bool(if n < 500 { 0.7 } else { 0.3 });
        let shared = |b: u32| model[a.ag.0 as usize].contains_key(&(a.start.0 + b));
        if !up && !(start..end).all(shared) {
            continue;
        }
        world.adjust(&a, start..end, if up { RefcountOp::Increase } else { RefcountOp::Decrease });
        count(&mut model, &a, start..end, up);
        if n % 60 == 0 {
            world.check();
            assert!(g.ags().map(|ag| counts(&world.volume, ag)).eq(model.iter().cloned()), "after {n}");
        }
        if n % 50 == 7 {
            let mut t = world.scope.begin(world.room()).expect("room in the log");
            let found = world.space.find_shared(&mut t, g.join(a.ag, a.start), a.len).expect("looked up");
            let shared = |b: &u32| model[a.ag.0 as usize].contains_key(b);
            let from = (a.start.0..a.start.0 + a.len).find(shared);
            let len = from.map(|f| (f..a.start.0 + a.len).take_while(shared).count() as u32);
            assert_eq!(found, from.zip(len).map(|(f, n)| (g.join(a.ag, AgBlock(f)), n)));
        }
    }
    let most = model.iter().flat_map(|m| m.values()).max();
    println!("{} blocks are shared, up to {most:?} times", model.iter().map(Counts::len).sum::<usize>());
    // Staging extents, side by side with others.
    let mut staged = Vec::new();
    for _ in 0..30 {
        let mut t = world.scope.begin(world.room()).expect("room in the log");
        let request = Request::data(1, 9);
        let a = world.space.allocate(&mut t, Place::Within(AgNumber(0)), &request).expect("room");
        world.space.adjust_count(&mut t, g.join(a.ag, a.start), a.len, RefcountOp::AllocCow).expect("staged");
        t.commit().expect("committed");
        staged.push(a);
    }
    let in_tree = counts(&world.volume, AgNumber(0));
    assert!(staged.iter().all(|a| (0..a.len).all(|b| in_tree.get(&((a.start.0 + b) | REFCOUNT_COW)) == Some(&1))));
    for a in staged {
        let at = g.join(a.ag, a.start);
        let mut t = world.scope.begin(world.room()).expect("room in the log");
        let twice = world.space.adjust_count(&mut t, at, a.len, RefcountOp::AllocCow);
        assert!(matches!(twice, Err(Error::Corrupt(_))), "{twice:?}");
        drop(t);
        let mut t = world.scope.begin(world.room()).expect("room in the log");
        world.space.adjust_count(&mut t, at, a.len, RefcountOp::FreeCow).expect("taken back");
        world.space.free(&mut t, at, a.len, None).expect("freed");
        t.commit().expect("committed");
    }
    // Down to nobody: the mapping goes, then the counts, and what nobody has is freed by the chain.
    for (a, owner) in std::mem::take(&mut world.held) {
        while let Some(n) = (0..a.len).find(|n| model[a.ag.0 as usize].contains_key(&(a.start.0 + n))) {
            world.adjust(&a, n..n + 1, RefcountOp::Decrease);
            count(&mut model, &a, n..n + 1, false);
        }
        let (start, blocks) = (g.join(a.ag, a.start), a.len);
        let mut t = world.scope.begin(world.room()).expect("room in the log");
        let unmap = Mapping { op: RmapOp::Unmap, start, blocks, owner };
        t.defer(MapChanges::new(world.space.clone(), &g, vec![unmap]).expect("one")).expect("rmapbt");
        let last = CountChange { op: RefcountOp::Decrease, start, blocks };
        t.defer(CountChanges::new(world.space.clone(), &g, vec![last]).expect("one")).expect("reflink");
        t.commit().expect("committed");
    }
    assert!(g.ags().map(|ag| counts(&world.volume, ag)).eq(first));
    end(name, world, &image);
}
