//! Extents are allocated and freed in images that the kernel wrote, against a model; xfs_repair, the check and the kernel judge the end.

mod counts;

use libxfsr::Error;
use libxfsr::btree::kinds::{Bno, Cnt, Refcount, Rmap};
use libxfsr::btree::{self, Kind, Ptr};
use libxfsr::cache::OnDamage;
use libxfsr::check::{self, Verdict};
use libxfsr::control::Control;
use libxfsr::engine::replayed_view;
use libxfsr::error::ForkKind;
use libxfsr::format::ag::{AGF, AGFL, Agf, agfl_slots};
use libxfsr::format::btree::{AllocRec, RmapRec, owner};
use libxfsr::format::log::items::RmapOp;
use libxfsr::journal::{self, Journal};
use libxfsr::space::{AgStore, AgTree, Allocated, FreeExtents, MapChanges, Mapping, Place, Request, RmapOwner, Space};
use libxfsr::target::{Access, Fault, Faulty, FileTarget, On, Overlay, Recorder, Target};
use libxfsr::txn::{CommitSink, DirtySink, Reservation, Scope};
use libxfsr::units::{AgBlock, AgNumber, FileBlock, Ino, Lsn};
use libxfsr::volume::Volume;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::sync::Arc;
use xfsr_tests::corpus::{self, manifest};
use xfsr_tests::oracle::{Mount, xfs_repair_n};
use zerocopy::FromBytes;

struct World {
    volume: Arc<Volume>,
    scope: Scope,
    space: Arc<Space>,
    /// Blocks of each AG that are free, or belong to trees of the AG and its free list.
    budget: Vec<u64>,
    /// What was allocated, with its owner.
    held: Vec<(Allocated, RmapOwner)>,
    rng: ChaCha8Rng,
    next_owner: u64,
}

fn open(path: &Path) -> Arc<Volume> {
    let target = Arc::new(FileTarget::open(path, Access::Write).expect("an image"));
    Arc::new(Volume::from_targets(target, None, None, 64 << 20).expect("a filesystem"))
}

fn records<K: Kind>(volume: &Volume, ag: AgNumber, tree: AgTree) -> (Vec<K::Record>, Vec<Ptr>) {
    let store = AgStore::new(volume, ag, tree, OnDamage::Fail).expect("a header");
    let (mut records, mut blocks) = (Vec::new(), Vec::new());
    let report = btree::check::<K, _>(
        &store,
        &Control::none(),
        &mut |at, _| blocks.push(at),
        &mut |r| records.push(*r),
        &mut |c| panic!("AG {ag} {}: {c}", K::NAME),
    );
    assert!(!report.expect("not stopped").incomplete);
    (records, blocks)
}

/// What an AG's trees say, each against the others, by no means of the code under test.
struct Audit {
    agf: Agf,
    free: Vec<(u32, u32)>,
    /// Free, in the free list and in the trees that live on free space.
    budget: u64,
    rmaps: Vec<RmapRec>,
}

fn audit(volume: &Volume, ag: AgNumber) -> Audit {
    let g = &volume.geometry;
    let agf =
        Agf::read_from_prefix(&volume.ag_header(ag, 1, &AGF, OnDamage::Fail).expect("an AGF")).expect("long enough").0;
    let agfl = volume.ag_header(ag, 3, &AGFL, OnDamage::Fail).expect("an AGFL");
    let slots = agfl_slots(&agfl);
    let ring = |i: u32| slots[((agf.flfirst.get() + i) as usize) % slots.len()].get();
    let mut own: Vec<u32> = (0..agf.flcount.get()).map(ring).collect();
    if agf.flcount.get() > 0 {
        assert_eq!((agf.flfirst.get() + agf.flcount.get() - 1) % g.agfl_slots(), agf.fllast.get());
    }
    let (bno, bno_blocks) = records::<Bno>(volume, ag, AgTree::Bno);
    let (cnt, cnt_blocks) = records::<Cnt>(volume, ag, AgTree::Cnt);
    let pair = |r: &AllocRec| (r.startblock.get(), r.blockcount.get());
    let free: Vec<(u32, u32)> = bno.iter().map(pair).collect();
    let mut by_size: Vec<(u32, u32)> = cnt.iter().map(pair).collect();
    by_size.sort_unstable();
    assert_eq!(free, by_size, "AG {ag}: both trees of free space");
    assert!(free.windows(2).all(|w| w[0].0 + w[0].1 < w[1].0), "AG {ag}: free neighbours are one extent");
    let sum: u64 = free.iter().map(|f| u64::from(f.1)).sum();
    assert_eq!(u64::from(agf.freeblks.get()), sum, "AG {ag}: freeblks");
    assert_eq!(agf.longest.get(), free.iter().map(|f| f.1).max().unwrap_or(0), "AG {ag}: longest");
    own.extend(bno_blocks.iter().chain(&cnt_blocks).map(|p| p.0 as u32));
    let mut btrees = bno_blocks.len() + cnt_blocks.len() - 2;
    let mut rmaps = Vec::new();
    if g.features.rmapbt() {
        let (records, blocks) = records::<Rmap>(volume, ag, AgTree::Rmap);
        own.extend(blocks.iter().map(|p| p.0 as u32));
        btrees += blocks.len() - 1;
        assert_eq!(agf.rmap_blocks.get() as usize, blocks.len(), "AG {ag}: rmap_blocks");
        let mut mapped: Vec<u32> = records
            .iter()
            .filter(|r| r.owner.get() == owner::AG)
            .flat_map(|r| r.startblock.get()..r.startblock.get() + r.blockcount.get())
            .collect();
        mapped.sort_unstable();
        own.sort_unstable();
        assert_eq!(mapped, own, "AG {ag}: mappings of its trees and free list");
        rmaps = records;
    }
    let before = own.len();
    own.sort_unstable();
    own.dedup();
    assert_eq!(before, own.len(), "AG {ag}: a block twice in trees and free list");
    assert_eq!(agf.btreeblks.get() as usize, btrees, "AG {ag}: btreeblks");
    let mut refcount = 0;
    if g.features.reflink() {
        refcount = records::<Refcount>(volume, ag, AgTree::Refcount).1.len() as u64;
        assert_eq!(u64::from(agf.refcount_blocks.get()), refcount, "AG {ag}: refcount_blocks");
    }
    for b in &own {
        assert!(!free.iter().any(|f| (f.0..f.0 + f.1).contains(b)), "AG {ag}: block {b} is free and in use");
    }
    Audit { agf, budget: sum + own.len() as u64 + refcount, free, rmaps }
}

fn overlap(a: (u32, u32), b: (u32, u32)) -> bool {
    a.0 < b.0 + b.1 && b.0 < a.0 + a.1
}

impl World {
    fn new(volume: Arc<Volume>, sink: Arc<dyn CommitSink>, seed: u64) -> Self {
        let space = Space::open(&volume).expect("headers");
        let budget = volume.ags().map(|ag| audit(&volume, ag).budget).collect();
        let scope = Scope::new(volume.clone(), sink);
        let rng = ChaCha8Rng::seed_from_u64(seed);
        World { volume, scope, space, budget, held: Vec::new(), rng, next_owner: 1 << 40 }
    }

    fn room(&self) -> Reservation {
        Space::reservation(&self.volume.geometry, 1)
    }

    /// A file that is not there, with its data at random places.
    fn owner(&mut self) -> RmapOwner {
        self.next_owner += self.rng.random_range(0..2);
        let at = FileBlock(self.rng.random_range(0..4) * 8);
        RmapOwner::file(Ino(self.next_owner), ForkKind::Data, at, self.rng.random_bool(0.3))
    }

    /// Allocates something; none where there is no room.
    fn allocate(&mut self, largest: u32) -> Option<Allocated> {
        let g = &self.volume.geometry;
        let ag = AgNumber(self.rng.random_range(0..g.ag_count));
        let at = AgBlock(self.rng.random_range(g.header_blocks()..g.ag_blocks(ag)));
        let max = self.rng.random_range(1..=largest);
        let min = if self.rng.random_bool(0.5) { max } else { self.rng.random_range(1..=max) };
        let place = match self.rng.random_range(0..8) {
            0..3 => Place::Near(g.join(ag, at)),
            3..6 => Place::From(ag),
            6 => Place::Within(ag),
            _ => Place::Exact(g.join(ag, at)),
        };
        let align = if self.rng.random_bool(0.3) { 1 << self.rng.random_range(0..5) } else { 1 };
        let owner = self.owner();
        let unlogged = self.rng.random_bool(0.5);
        let request = Request { align, unlogged, owner: Some(owner), ..Request::data(min, max) };
        let before: Vec<Agf> = self.volume.ags().map(|ag| self.agf(ag)).collect();
        let mut t = self.scope.begin(self.room()).expect("room in the log");
        match self.space.allocate(&mut t, place, &request) {
            Ok(a) => {
                t.commit().expect("committed");
                let right =
                    a.len >= min && a.len <= max && (matches!(place, Place::Exact(_)) || a.start.0 % align == 0);
                assert!(right, "{request:?} {place:?}: {a:?}");
                match place {
                    Place::Exact(fsb) => assert_eq!(self.volume.geometry.join(a.ag, a.start), fsb),
                    Place::Within(ag) => assert_eq!(a.ag, ag),
                    _ => {}
                }
                for (other, _) in self.held.iter().filter(|(o, _)| o.ag == a.ag) {
                    assert!(!overlap((other.start.0, other.len), (a.start.0, a.len)), "{a:?} and {other:?}");
                }
                self.held.push((a, owner));
                Some(a)
            }
            Err(Error::NoSpace(_)) => {
                drop(t);
                for (ag, before) in self.volume.ags().zip(&before) {
                    assert_eq!(zerocopy::IntoBytes::as_bytes(&self.agf(ag)), zerocopy::IntoBytes::as_bytes(before));
                }
                None
            }
            Err(e) => panic!("{request:?} {place:?}: {e}"),
        }
    }

    fn agf(&self, ag: AgNumber) -> Agf {
        let b = self.volume.ag_header(ag, 1, &AGF, OnDamage::Fail).expect("an AGF");
        Agf::read_from_prefix(&b).expect("long enough").0
    }

    /// Frees an extent, or a part of it.
    fn free(&mut self, part: bool) {
        let at = self.rng.random_range(0..self.held.len());
        let (a, owner) = self.held.swap_remove(at);
        let from = if part { self.rng.random_range(0..a.len) } else { 0 };
        let len = if part { self.rng.random_range(1..=a.len - from) } else { a.len };
        let fsb = |start| self.volume.geometry.join(a.ag, AgBlock(a.start.0 + start));
        let mut t = self.scope.begin(self.room()).expect("room in the log");
        self.space.free(&mut t, fsb(from), len, Some(&owner.behind(from))).expect("freed");
        t.commit().expect("committed");
        if from > 0 {
            self.held.push((Allocated { len: from, ..a }, owner));
        }
        let end = from + len;
        if end < a.len {
            let rest = Allocated { start: AgBlock(a.start.0 + end), len: a.len - end, ..a };
            self.held.push((rest, owner.behind(end)));
        }
    }

    /// The AGs agree with the model.
    fn check(&self) {
        let g = &self.volume.geometry;
        let (mut inodes_blocks, counters) = (0, self.space.counters());
        for ag in self.volume.ags() {
            let a = audit(&self.volume, ag);
            let ours: Vec<_> = self.held.iter().filter(|(h, _)| h.ag == ag).collect();
            let blocks: u64 = ours.iter().map(|(h, _)| u64::from(h.len)).sum();
            assert_eq!(a.budget + blocks, self.budget[ag.0 as usize], "AG {ag}: blocks that are free, in use and ours");
            for (h, owner) in ours {
                let span = (h.start.0, h.len);
                let next = a.free.partition_point(|f| f.0 + f.1 <= span.0);
                assert!(a.free.get(next).is_none_or(|f| !overlap(*f, span)), "AG {ag}: {h:?} is free");
                if g.features.rmapbt() {
                    let covers = |r: &RmapRec| {
                        let (start, count) = (r.startblock.get(), r.blockcount.get());
                        let at = RmapOwner { owner: r.owner.get(), offset: r.offset.get() };
                        start <= span.0 && span.0 + span.1 <= start + count && at.behind(span.0 - start) == *owner
                    };
                    let behind = a.rmaps.partition_point(|r| r.startblock.get() <= span.0);
                    assert!(a.rmaps[..behind].last().is_some_and(covers), "AG {ag}: the mapping of {h:?}");
                }
            }
            inodes_blocks += u64::from(a.agf.freeblks.get() + a.agf.flcount.get() + a.agf.btreeblks.get());
        }
        assert_eq!(counters.free_blocks, inodes_blocks, "fdblocks");
    }

    fn give_all_back(&mut self) {
        while !self.held.is_empty() {
            self.free(false);
        }
    }
}

fn judged_clean(what: &str, image: &Path) {
    let verdict = xfs_repair_n(image, &[]).expect("xfs_repair");
    assert!(verdict.clean(), "{what}: {}", verdict.output);
    let outcome = check::check(&open(image), &Control::none()).expect("a check");
    assert!(outcome.verdict() == Verdict::Clean, "{what}: {:?}", outcome.findings.first());
}

fn without_log() -> Arc<dyn CommitSink> {
    Arc::new(DirtySink { lsn: Lsn::new(1, 8) })
}

/// Everything back in its place: xfs_repair and the check find it clean, the kernel finds its files and goes on.
fn end(name: &str, mut world: World, image: &Path) {
    world.give_all_back();
    world.check();
    world.space.settle(&world.scope).expect("counters");
    world.volume.cache.write_back(None).expect("written");
    drop(world);
    judged_clean(name, image);
    let mount = Mount::new(image, "").expect("a mount");
    assert!(manifest::walk(mount.path()).expect("a walk") == corpus::manifest(name), "{name}: other files");
    for n in 0..200 {
        let path = mount.path().join(format!("new-{n}"));
        std::fs::write(&path, vec![n as u8; 3000 + 700 * (n % 40)]).expect("a file");
    }
    mount.unmount().expect("an unmount");
    judged_clean("used by the kernel", image);
}

fn random(name: &str, operations: usize, largest: u32) {
    if corpus::obtain(name).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy(name, directory.path()).data;
    let mut world = World::new(open(&image), without_log(), 11);
    world.check();
    let mut refused = 0;
    for n in 1..=operations {
        let grow = (n / 400) % 2 == 0;
        if world.held.is_empty() || world.rng.random_bool(if grow { 0.7 } else { 0.3 }) {
            refused += usize::from(world.allocate(largest).is_none());
        } else {
            let part = world.rng.random_bool(0.4);
            world.free(part);
        }
        if n % 100 == 0 {
            world.check();
        }
    }
    println!("{name}: {} extents held, {refused} of {operations} refused", world.held.len());
    end(name, world, &image);
}

#[test]
fn random_extents_without_reverse_mappings() {
    random("default", 3000, 64);
}

#[test]
fn random_extents_with_reverse_mappings() {
    random("rmap-1k", 3000, 64);
}

#[test]
fn random_extents_of_large_blocks() {
    random("b64k", 1500, 16);
}

/// An AG is filled to the last block that may be given away, and emptied again.
fn filled(name: &str) {
    if corpus::obtain(name).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy(name, directory.path()).data;
    let mut world = World::new(open(&image), without_log(), 12);
    let ag = AgNumber(world.volume.geometry.ag_count - 1);
    let free_before = world.agf(ag).freeblks.get();
    let mut most = 1 << 20;
    while most > 0 {
        let owner = world.owner();
        let request = Request { owner: Some(owner), ..Request::data(1, most) };
        let mut t = world.scope.begin(world.room()).expect("room in the log");
        match world.space.allocate(&mut t, Place::Within(ag), &request) {
            Ok(a) => {
                t.commit().expect("committed");
                world.held.push((a, owner));
                // Pieces, so that there is something to join again.
                most = (most / 2).max(world.rng.random_range(1..40));
            }
            Err(Error::NoSpace(_)) if most > 1 => most = 1,
            Err(Error::NoSpace(_)) => break,
            Err(e) => panic!("{e}"),
        }
    }
    world.check();
    let left = world.agf(ag).freeblks.get();
    println!("{name}: {free_before} blocks were free, {left} are kept; {} extents", world.held.len());
    assert!(left < free_before / 8, "{left} of {free_before} blocks");
    let features = &world.volume.geometry.features;
    assert!(!features.rmapbt() || left > world.volume.geometry.ag_blocks(ag) / 200, "space is kept for the trees");
    // The others still have room: it is found there.
    let full = Place::Near(world.volume.geometry.join(ag, AgBlock(1000)));
    let owner = world.owner();
    let request = Request { owner: Some(owner), ..Request::data(1, 8) };
    let mut t = world.scope.begin(world.room()).expect("room in the log");
    let elsewhere = world.space.allocate(&mut t, full, &request).expect("room in another AG");
    t.commit().expect("committed");
    assert_ne!(elsewhere.ag, ag);
    world.held.push((elsewhere, owner));
    end(name, world, &image);
}

#[test]
fn a_full_group_and_an_empty_one_without_reverse_mappings() {
    filled("default");
}

#[test]
fn a_full_group_and_an_empty_one_with_reverse_mappings() {
    filled("rmap-1k");
}

#[test]
fn what_is_free_or_somebody_elses_or_nowhere_is_not_freed() {
    for name in ["default", "rmap-1k"] {
        if corpus::obtain(name).is_none() {
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let image = corpus::copy(name, directory.path()).data;
        let mut world = World::new(open(&image), without_log(), 13);
        while world.held.iter().all(|(a, _)| a.len < 8) {
            world.allocate(16);
        }
        let (a, owner) = *world.held.iter().find(|(a, _)| a.len >= 8).expect("one of eight blocks");
        let g = world.volume.geometry.clone();
        let free = audit(&world.volume, a.ag).free[0];
        let rmap = g.features.rmapbt();
        let other = RmapOwner::file(Ino(77), ForkKind::Data, FileBlock(3), false);
        let mut cases = vec![
            ("free", AgBlock(free.0), 1, None),
            ("partly free", AgBlock(free.0 - 1), 2, None),
            ("headers", AgBlock(0), 1, None),
            ("behind the end", AgBlock(g.ag_blocks(a.ag) - 1), 2, None),
            ("nothing", a.start, 0, None),
        ];
        if rmap {
            cases.push(("of somebody else", a.start, 4, Some(other)));
            cases.push(("of another place", a.start, 4, Some(owner.behind(1))));
            cases.push(("more than there is", a.start, a.len + 1, Some(owner)));
        }
        for (what, start, blocks, owner) in cases {
            let mut t = world.scope.begin(world.room()).expect("room in the log");
            let result = world.space.free(&mut t, g.join(a.ag, start), blocks, owner.as_ref());
            assert!(matches!(result, Err(Error::Corrupt(_))), "{name} {what}: {result:?}");
            drop(t);
            world.check();
        }
        let mut t = world.scope.begin(world.room()).expect("room in the log");
        if rmap {
            let twice = world.space.map(&mut t, g.join(a.ag, a.start), 1, &RmapOwner::INODES);
            assert!(matches!(twice, Err(Error::Corrupt(_))), "{name}: mapped twice: {twice:?}");
        }
        drop(t);
        world.check();
        end(name, world, &image);
    }
}

fn fingerprint(volume: &Volume) -> Vec<Vec<AllocRec>> {
    volume.ags().map(|ag| records::<Bno>(volume, ag, AgTree::Bno).0).collect()
}

/// Every read fails once: a clean error, and nothing is changed.
#[test]
fn a_device_that_fails_at_any_read_leaves_nothing_half_done() {
    if corpus::obtain("rmap-1k").is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy("rmap-1k", directory.path()).data;
    let mut world = World::new(open(&image), without_log(), 14);
    while world.held.len() < 40 {
        world.allocate(20);
    }
    world.volume.cache.write_back(None).expect("written");
    let held = std::mem::take(&mut world.held);
    let free: Vec<_> = world.volume.ags().map(|ag| audit(&world.volume, ag).free).collect();
    let counters = world.space.counters();
    drop(world);
    let disk = Arc::new(Faulty::new(Arc::new(FileTarget::open(&image, Access::Read).expect("an image"))));
    let mut failures = 0;
    for (n, (a, owner)) in held.iter().enumerate().step_by(7) {
        for pass in 0.. {
            // Blocks that were read before would not fail.
            let target = Arc::new(Overlay::new(disk.clone()).expect("memory"));
            let volume = Arc::new(Volume::from_targets(target, None, None, 64 << 20).expect("a filesystem"));
            let space = Space::open(&volume).expect("headers");
            let scope = Scope::new(volume.clone(), without_log());
            disk.add(On::Read, pass, Fault::Error);
            let at = volume.geometry.join(a.ag, a.start);
            let mut t = scope.begin(Space::reservation(&volume.geometry, 1)).expect("no log");
            let result = if n % 2 == 0 {
                space.free(&mut t, at, a.len, Some(owner))
            } else {
                let request = Request { owner: Some(owner.behind(1 << 20)), ..Request::data(3, 3) };
                space.allocate(&mut t, Place::Near(at), &request).map(|_| ())
            };
            match result {
                Ok(()) => {
                    // The fault that nothing met is for somebody else.
                    drop(t);
                    let mut byte = [0; 512];
                    while disk.read_at(&mut byte, 0).is_ok() {}
                    break;
                }
                Err(Error::Io { .. }) => failures += 1,
                Err(e) => panic!("{e}"),
            }
            drop(t);
            assert_eq!(audit(&volume, a.ag).free, free[a.ag.0 as usize]);
            assert_eq!(space.counters(), counters);
        }
    }
    println!("{failures} reads failed");
    assert!(failures > 12);
}

/// Through a journal, and a crash at sampled places: what is recovered is what some transaction left.
#[test]
fn a_crash_leaves_what_a_transaction_left() {
    if corpus::obtain("rmap-1k").is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy("rmap-1k", directory.path()).data;
    let recorder =
        Arc::new(Recorder::new(Arc::new(FileTarget::open(&image, Access::Read).expect("an image"))).expect("memory"));
    let volume = Arc::new(Volume::from_targets(recorder.clone(), None, None, 4 << 20).expect("a filesystem"));
    let journal = Journal::open(volume.clone(), &journal::Options::default()).expect("a clean log");
    let mut world = World::new(volume.clone(), journal.clone(), 15);
    let now = |r: &Recorder| r.events().last().map_or(0, |e| e.time + 1);
    let mut states = vec![fingerprint(&volume)];
    let mut forced = vec![(0, 0)];
    for n in 0..240 {
        match world.rng.random_range(0..10) {
            0..6 => drop(world.allocate(40)),
            _ if world.held.len() < 12 => continue,
            6..8 => world.free(true),
            // A chain: mappings of some extents go, then the extents, in transactions of their own.
            _ => {
                let g = &volume.geometry;
                let gone: Vec<_> =
                    (0..4).map(|_| world.held.swap_remove(world.rng.random_range(0..world.held.len()))).collect();
                let mut t = world.scope.begin(world.room()).expect("room in the log");
                let unmapped = gone.iter().map(|(a, owner)| Mapping {
                    op: RmapOp::Unmap,
                    start: g.join(a.ag, a.start),
                    blocks: a.len,
                    owner: *owner,
                });
                t.defer(MapChanges::new(world.space.clone(), g, unmapped.collect()).expect("some")).expect("rmapbt");
                let freed = gone.iter().map(|(a, _)| (g.join(a.ag, a.start), a.len)).collect();
                t.defer(FreeExtents::new(world.space.clone(), g, freed, None).expect("some")).expect("always");
                t.commit().expect("committed");
            }
        }
        states.push(fingerprint(&volume));
        if n % 40 == 17 {
            journal.sync().expect("durable");
            forced.push((now(&recorder), states.len() - 1));
        }
    }
    world.check();
    let finish = now(&recorder);
    let (mut rng, mut pending) = (ChaCha8Rng::seed_from_u64(16), 0);
    for n in 0..24 {
        let time = rng.random_range(0..=finish);
        let crashed =
            recorder.crash(time, &mut |_| n % 3 != 0 && (n % 3 == 1 || rng.random_bool(0.5))).expect("memory");
        let view = replayed_view(Arc::new(crashed), None, None, &Control::none()).expect("recovered");
        let least = forced.iter().filter(|(t, _)| *t <= time).map(|(_, s)| *s).max().unwrap_or(0);
        for ag in view.volume.ags() {
            audit(&view.volume, ag);
        }
        if view.replayed.pending.is_empty() {
            let seen = fingerprint(&view.volume);
            assert!(states[least..].contains(&seen), "crash {n} at {time}: no state from {least} on");
        } else {
            pending += 1;
        }
    }
    println!("{} states, {finish} events, {pending} crashes inside of a chain", states.len());
    world.give_all_back();
    world.check();
    world.space.settle(&world.scope).expect("counters");
    journal.close().expect("closed");
    drop(world);
    let whole = recorder.crash(now(&recorder), &mut |_| true).expect("memory");
    let file = FileTarget::open(&image, Access::Write).expect("an image");
    for (offset, len) in whole.changed() {
        let mut bytes = vec![0; len as usize];
        whole.read_at(&mut bytes, offset).expect("read");
        file.write_at(&bytes, offset).expect("written");
    }
    file.flush().expect("flushed");
    drop(file);
    judged_clean("through the journal", &image);
    let mount = Mount::new(&*image, "").expect("a mount");
    assert!(manifest::walk(mount.path()).expect("a walk") == corpus::manifest("rmap-1k"), "other files");
    std::fs::write(mount.path().join("new"), b"new").expect("a file");
    mount.unmount().expect("an unmount");
    judged_clean("used by the kernel", &image);
}
