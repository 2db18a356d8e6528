//! Inodes are taken and given back in images that the kernel wrote, against a model; xfs_repair, the check and the kernel judge the end.

mod created;
mod limits;
mod orphans;
mod quota;

use libxfsr::Error;
use libxfsr::btree::kinds::{Finobt, Inobt};
use libxfsr::btree::{self, Kind};
use libxfsr::cache::OnDamage;
use libxfsr::check::{self, Verdict};
use libxfsr::control::Control;
use libxfsr::format::ag::{AGI, Agi};
use libxfsr::format::btree::InobtRec;
use libxfsr::format::inode::Dinode;
use libxfsr::inode::chunk::{self, Wanted};
use libxfsr::space::{AgStore, AgTree, Counters, Space};
use libxfsr::target::{Access, FileTarget};
use libxfsr::txn::{CommitSink, DirtySink, Scope};
use libxfsr::units::{AgIno, AgNumber, Ino, Lsn};
use libxfsr::volume::Volume;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use xfsr_tests::corpus::{self, manifest};
use xfsr_tests::oracle::{Mount, xfs_repair_n};
use zerocopy::FromBytes;

struct World {
    volume: Arc<Volume>,
    scope: Scope,
    space: Arc<Space>,
    rng: ChaCha8Rng,
    /// Inodes that were in use at first.
    theirs: BTreeSet<Ino>,
    /// Inodes that we took.
    ours: BTreeSet<Ino>,
}

fn open(path: &Path) -> Arc<Volume> {
    let target = Arc::new(FileTarget::open(path, Access::Write).expect("an image"));
    Arc::new(Volume::from_targets(target, None, None, 64 << 20).expect("a filesystem"))
}

fn without_log() -> Arc<dyn CommitSink> {
    Arc::new(DirtySink { lsn: Lsn::new(1, 8) })
}

fn records<K: Kind<Record = InobtRec>>(volume: &Volume, ag: AgNumber, tree: AgTree) -> (Vec<InobtRec>, u32) {
    let store = AgStore::new(volume, ag, tree, OnDamage::Fail).expect("a header");
    let (mut records, mut blocks) = (Vec::new(), 0);
    let report =
        btree::check::<K, _>(&store, &Control::none(), &mut |_, _| blocks += 1, &mut |r| records.push(*r), &mut |c| {
            panic!("AG {ag} {}: {c}", K::NAME)
        });
    assert!(!report.expect("not stopped").incomplete);
    (records, blocks)
}

/// What an AG's inode trees say, each against the others, by no means of the code under test: the inodes in use.
fn audit(volume: &Volume, ag: AgNumber, used: &mut BTreeSet<Ino>) -> (u64, u64) {
    let g = &volume.geometry;
    let sparse = g.features.sparse_inodes();
    let header = volume.ag_header(ag, 2, &AGI, OnDamage::Fail).expect("an AGI");
    let agi = Agi::read_from_prefix(&header).expect("long enough").0;
    drop(header);
    let (inobt, iblocks) = records::<Inobt>(volume, ag, AgTree::Ino);
    let (mut count, mut free) = (0, 0);
    for r in &inobt {
        let holes = r.holes(sparse);
        assert_eq!(r.count(sparse), 64 - holes.count_ones(), "AG {ag}: {r:?}");
        assert_eq!(r.freecount(sparse), (r.free.get() & !holes).count_ones(), "AG {ag}: {r:?}");
        assert_eq!(r.free.get() & holes, holes);
        count += r.count(sparse);
        free += r.freecount(sparse);
        for n in (0..64).filter(|n| holes >> n & 1 == 0) {
            let ino = g.join_ino(ag, AgIno(r.startino.get() + n));
            let in_use = r.free.get() >> n & 1 == 0;
            let bytes = volume.inode_bytes(ino).expect("an inode");
            let core = Dinode::from_bytes(&bytes).expect("long enough");
            assert_eq!((core.ino.get(), core.magic.get()), (ino.0, 0x494e), "inode {ino}");
            if in_use {
                used.insert(ino);
            } else {
                assert!(core.is_free(), "inode {ino} is not in use");
            }
        }
    }
    if g.features.finobt() {
        let (finobt, fblocks) = records::<Finobt>(volume, ag, AgTree::Fino);
        let some: Vec<InobtRec> = inobt.iter().copied().filter(|r| r.freecount(sparse) > 0).collect();
        assert_eq!(finobt, some, "AG {ag}: finobt");
        if g.features.inobtcnt() {
            assert_eq!((agi.iblocks.get(), agi.fblocks.get()), (iblocks, fblocks), "AG {ag}");
        }
    }
    assert_eq!((agi.count.get(), agi.freecount.get()), (count, free), "AG {ag}: the AGI");
    (count.into(), free.into())
}

fn used(volume: &Volume) -> (BTreeSet<Ino>, Counters) {
    let (mut inodes, mut counters) = (BTreeSet::new(), Counters::default());
    for ag in volume.ags() {
        let (count, free) = audit(volume, ag, &mut inodes);
        counters.inodes += count;
        counters.free_inodes += free;
    }
    (inodes, counters)
}

impl World {
    fn new(volume: Arc<Volume>, sink: Arc<dyn CommitSink>, seed: u64) -> Self {
        let space = Space::open(&volume).expect("headers");
        let theirs = used(&volume).0;
        let scope = Scope::new(volume.clone(), sink);
        World { volume, scope, space, rng: ChaCha8Rng::seed_from_u64(seed), theirs, ours: BTreeSet::new() }
    }

    fn some(&mut self, theirs: bool) -> Option<Ino> {
        let all = if theirs { &self.theirs } else { &self.ours };
        let n = self.rng.random_range(0..all.len().max(1));
        all.iter().nth(n).copied()
    }

    fn wanted(&mut self) -> Wanted {
        let theirs = self.ours.is_empty() || self.rng.random_bool(0.5);
        let parent = self.some(theirs).expect("a root directory");
        Wanted { parent, directory: self.rng.random_bool(0.3), generation: self.rng.random() }
    }

    /// Takes an inode; none where there is no room.
    fn take(&mut self) -> Option<Ino> {
        let wanted = self.wanted();
        let g = &self.volume.geometry;
        let mut t = self.scope.begin(chunk::reservation(g)).expect("room in the log");
        let ino = match chunk::allocate(&mut t, &self.space, &wanted) {
            Ok(ino) => ino,
            Err(Error::NoSpace(_)) => return None,
            Err(e) => panic!("{wanted:?}: {e}"),
        };
        assert!(g.is_valid_ino(ino) && !self.theirs.contains(&ino) && self.ours.insert(ino), "{ino} is in use");
        let inode = t.inode_mut(ino).expect("an inode");
        let core = Dinode::from_bytes_mut(inode).expect("long enough");
        core.mode.set(0o100_600);
        core.format = 2;
        core.aformat = 2;
        t.commit().expect("committed");
        Some(ino)
    }

    fn give(&mut self) {
        if let Some(ino) = self.some(false) {
            self.ours.remove(&ino);
            self.give_this(ino);
        }
    }

    fn give_this(&self, ino: Ino) {
        let before = self.volume.inode_bytes(ino).expect("an inode");
        let mut t = self.scope.begin(chunk::reservation(&self.volume.geometry)).expect("room in the log");
        chunk::free(&mut t, &self.space, ino).expect("given back");
        t.commit().expect("committed");
        let after = self.volume.inode_bytes(ino).expect("an inode");
        let generation = |b: &[u8]| Dinode::from_bytes(b).map(|d| d.generation.get());
        assert!(generation(&before) != generation(&after) || before == after, "inode {ino}");
    }

    fn check(&self) {
        let (all, counters) = used(&self.volume);
        let model: BTreeSet<Ino> = self.theirs.union(&self.ours).copied().collect();
        assert!(all == model, "inodes in use");
        let shared = self.space.counters();
        assert_eq!((shared.inodes, shared.free_inodes), (counters.inodes, counters.free_inodes));
    }
}

fn judged_clean(what: &str, image: &Path) {
    let verdict = xfs_repair_n(image, &[]).expect("xfs_repair");
    assert!(verdict.clean(), "{what}: {}", verdict.output);
    let outcome = check::check(&open(image), &Control::none()).expect("a check");
    assert!(outcome.verdict() == Verdict::Clean, "{what}: {:?}", outcome.findings.first());
}

/// Everything given back: xfs_repair and the check find it clean, the kernel finds its files and goes on.
fn end(name: &str, mut world: World, image: &Path) {
    for ino in std::mem::take(&mut world.ours) {
        world.give_this(ino);
    }
    world.check();
    world.space.settle(&world.scope).expect("counters");
    world.volume.cache.write_back(None).expect("written");
    drop(world);
    judged_clean(name, image);
    let mount = Mount::new(image, "").expect("a mount");
    assert!(manifest::walk(mount.path()).expect("a walk") == corpus::manifest(name), "{name}: other files");
    for n in 0..200 {
        std::fs::write(mount.path().join(format!("new-{n}")), vec![n as u8; 3000]).expect("a file");
    }
    mount.unmount().expect("an unmount");
    judged_clean("used by the kernel", image);
}

fn random(name: &str, operations: usize) {
    if corpus::obtain(name).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy(name, directory.path()).data;
    let mut world = World::new(open(&image), without_log(), 5);
    world.check();
    let (mut refused, mut most) = (0, 0);
    for n in 1..=operations {
        let grow = (n / 600) % 2 == 0;
        if world.ours.is_empty() || world.rng.random_bool(if grow { 0.85 } else { 0.2 }) {
            refused += usize::from(world.take().is_none());
        } else {
            world.give();
        }
        most = most.max(world.ours.len());
        if n % 200 == 0 {
            world.check();
        }
    }
    println!("{name}: {most} inodes held, {refused} of {operations} refused");
    end(name, world, &image);
}

#[test]
fn random_inodes() {
    random("default", 2400);
}

#[test]
fn random_inodes_of_small_blocks() {
    random("rmap-1k", 2400);
}

#[test]
fn random_inodes_of_large_blocks() {
    random("b64k", 1200);
}

#[test]
fn random_inodes_without_a_tree_of_free_ones() {
    random("plain", 2400);
}
