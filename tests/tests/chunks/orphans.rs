//! Inodes without a name are made and freed through a journal: the lists of unlinked inodes, and crashes at sampled writes, after which the kernel
//! finds nothing of them.

use crate::{audit, used};
use libxfsr::Error;
use libxfsr::cache::OnDamage;
use libxfsr::control::Control;
use libxfsr::engine::replayed_view;
use libxfsr::error::ForkKind;
use libxfsr::format::ag::{AGI, Agi};
use libxfsr::format::inode::{Dinode, FileKind};
use libxfsr::inode::create::{self, NewInode};
use libxfsr::inode::{ForkMut, Inode, chunk, symlink_target, unlinked};
use libxfsr::txn::{Reservation, Scope};
use libxfsr::units::{AgIno, Ino, NULL_AGINO};
use libxfsr::volume::Volume;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xfsr_tests::changing::{Changing, Commits, assert_clean};
use xfsr_tests::corpus::{self, manifest};
use xfsr_tests::oracle::Mount;
use zerocopy::FromBytes;

/// What the lists hold, each once.
fn listed(volume: &Volume) -> BTreeSet<Ino> {
    let g = &volume.geometry;
    let mut all = BTreeSet::new();
    for ag in volume.ags() {
        let header = volume.ag_header(ag, 2, &AGI, OnDamage::Fail).expect("an AGI");
        let agi = Agi::read_from_prefix(&header).expect("long enough").0;
        for (bucket, head) in agi.unlinked.iter().enumerate() {
            let mut next = head.get();
            while next != NULL_AGINO {
                assert_eq!(next as usize % 64, bucket);
                let ino = g.join_ino(ag, AgIno(next));
                assert!(all.insert(ino), "{ino} twice");
                let bytes = volume.inode_bytes(ino).expect("an inode");
                next = Dinode::from_bytes(&bytes).expect("long enough").next_unlinked.get();
            }
        }
    }
    all
}

struct Orphans {
    world: Changing,
    rng: ChaCha8Rng,
    /// Inodes that were in use at first.
    theirs: BTreeSet<Ino>,
    /// Ours, with the targets of links.
    ours: BTreeMap<Ino, (u16, Vec<u8>)>,
}

const KINDS: [u16; 7] = [0o100_644, 0o040_755, 0o120_777, 0o020_600, 0o060_600, 0o010_600, 0o140_600];

impl Orphans {
    fn room(&self) -> Reservation {
        let g = &self.world.volume.geometry;
        let pointers = Reservation { inodes: 4, ..Reservation::default() };
        chunk::reservation(g).and(ForkMut::reservation(g, ForkKind::Data, 2)).and(pointers)
    }

    fn make(&mut self) {
        let mode = KINDS[self.rng.random_range(0..KINDS.len())];
        let new = NewInode {
            mode,
            uid: self.rng.random_range(0..5),
            gid: self.rng.random_range(0..5),
            device: (7, self.rng.random_range(0..70_000)),
            now: (1_700_000_000 + self.rng.random_range(0..1000), 5),
            generation: self.rng.random(),
            unnamed: true,
        };
        let parent = *self.theirs.iter().nth(self.rng.random_range(0..self.theirs.len())).expect("the root directory");
        let mut t = self.world.scope.begin(self.room()).expect("room in the log");
        let ino = create::create(&mut t, &self.world.space, parent, &new).expect("an inode");
        assert!(!self.theirs.contains(&ino) && !self.ours.contains_key(&ino));
        let mut target = Vec::new();
        if FileKind::from_mode(mode) == Some(FileKind::Symlink) {
            let length = if self.rng.random_bool(0.5) { 20 } else { self.rng.random_range(400..1024) };
            target = (0..length).map(|_| self.rng.random_range(b'a'..=b'z')).collect();
            create::set_target(&mut t, &self.world.space, ino, &target).expect("a target");
        }
        unlinked::add(&mut t, &self.world.space, ino).expect("on its list");
        if self.rng.random_bool(0.1) {
            // Nothing of it stays.
            drop(t);
            return;
        }
        t.commit().expect("committed");
        self.ours.insert(ino, (mode, target));
    }

    fn end(&mut self, ino: Ino) {
        self.ours.remove(&ino);
        let mut t = self.world.scope.begin(self.room()).expect("room in the log");
        let link = Dinode::from_bytes(t.inode(ino).expect("ours")).is_some_and(Dinode::is_symlink);
        if link {
            create::remove_target(&mut t, &self.world.space, ino).expect("its target goes");
        }
        unlinked::remove(&mut t, &self.world.space, ino).expect("off its list");
        chunk::free(&mut t, &self.world.space, ino).expect("freed");
        t.commit().expect("committed");
    }

    fn step(&mut self, grow: bool) {
        if self.ours.is_empty() || self.rng.random_bool(if grow { 0.8 } else { 0.3 }) {
            self.make();
        } else {
            let n = self.rng.random_range(0..self.ours.len());
            let ino = *self.ours.keys().nth(n).expect("one of ours");
            self.end(ino);
        }
    }

    fn check(&self) {
        let volume = &self.world.volume;
        let model: BTreeSet<Ino> = self.theirs.iter().chain(self.ours.keys()).copied().collect();
        assert!(used(volume).0 == model, "inodes in use");
        assert!(listed(volume) == self.ours.keys().copied().collect(), "inodes on lists");
        for (ino, (mode, target)) in &self.ours {
            let inode = Inode::read(volume, *ino, OnDamage::Fail);
            // A directory without contents is none.
            let inode = inode.unwrap_or_else(|e| panic!("{ino} of mode {mode:#o}: {e}"));
            assert_eq!((inode.core.mode.get(), inode.core.nlink.get()), (*mode, 0));
            if !target.is_empty() {
                assert_eq!(symlink_target(volume, &inode).expect("a target"), *target);
            }
        }
    }
}

fn crashes(name: &str, operations: usize, sample: u64, commits: Commits) {
    if corpus::obtain(name).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy(name, directory.path()).data;
    let world = Changing::open(&image, commits);
    let theirs = used(&world.volume).0;
    let mut o = Orphans { world, rng: ChaCha8Rng::seed_from_u64(21), theirs, ours: BTreeMap::new() };
    for n in 0..operations {
        o.step(n / 150 % 2 == 0);
        if n % 60 == 0 {
            o.check();
        }
        if n % 90 == 50 {
            o.world.journal.sync().expect("durable");
        }
    }
    o.check();
    let finish = o.world.now();
    let mut rng = ChaCha8Rng::seed_from_u64(22);
    let (mut left, mut pending) = (0, 0);
    for n in 0..sample {
        let time = rng.random_range(0..=finish);
        let view = replayed_view(Arc::new(o.world.crash(time, n)), None, None, &Control::none()).expect("recovered");
        let mut seen = BTreeSet::new();
        for ag in view.volume.ags() {
            audit(&view.volume, ag, &mut seen);
        }
        pending += usize::from(!view.replayed.pending.is_empty());
        let orphans = listed(&view.volume);
        let ours: BTreeSet<Ino> = seen.difference(&o.theirs).copied().collect();
        // Recovery may have finished them already.
        assert!(orphans == ours, "crash {n} at {time}: {} on lists, {} in use", orphans.len(), ours.len());
        left += ours.len();
        if n % 4 == 0 {
            let crashed = directory.path().join("crashed");
            o.world.crash_to(time, n, &crashed);
            let mount = Mount::new(&crashed, "").expect("a mount");
            assert!(manifest::walk(mount.path()).expect("a walk") == corpus::manifest(name), "{name}: other files");
            mount.unmount().expect("an unmount");
            assert_clean(&format!("{name}: the kernel after crash {n} at {time}"), &crashed);
        }
    }
    println!(
        "{name}: {operations} operations, {finish} events; after {sample} crashes {left} orphans, {pending} times chains"
    );
    for ino in o.ours.keys().copied().collect::<Vec<_>>() {
        o.end(ino);
    }
    o.check();
    o.world.finish();
    assert_clean(name, &image);
}

#[test]
fn crashes_with_unlinked_inodes() {
    crashes("default", 500, 24, Commits::Gathered);
}

#[test]
fn crashes_with_unlinked_inodes_of_small_blocks() {
    crashes("rmap-1k", 500, 24, Commits::Forced);
}

#[test]
fn crashes_with_unlinked_inodes_without_a_tree_of_free_ones() {
    crashes("plain", 300, 12, Commits::Forced);
}

#[test]
fn lists_that_are_damaged_give_errors() {
    if corpus::obtain("default").is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy("default", directory.path()).data;
    let world = Changing::open(&image, Commits::Gathered);
    let g = world.volume.geometry.clone();
    let theirs = used(&world.volume).0;
    let mut o = Orphans { world, rng: ChaCha8Rng::seed_from_u64(23), theirs, ours: BTreeMap::new() };
    for _ in 0..300 {
        o.make();
    }
    // Three of one list: a comes before b comes before c.
    let agi_of = |ino: &Ino| (g.split_ino(*ino).0, g.split_ino(*ino).1.0 % 64);
    let mut lists: BTreeMap<_, Vec<Ino>> = BTreeMap::new();
    for ino in o.ours.keys() {
        lists.entry(agi_of(ino)).or_default().push(*ino);
    }
    let list = lists.values().find(|l| l.len() >= 3).expect("a list of three").clone();
    let next = |scope: &Scope, ino: Ino| {
        let t = scope.begin(Reservation::default()).expect("room");
        let next = t.next_unlinked(ino).expect("a pointer");
        (next != NULL_AGINO).then(|| g.join_ino(g.split_ino(ino).0, AgIno(next)))
    };
    let last = *list.iter().find(|i| next(&o.world.scope, **i).is_none()).expect("an end");
    let before = *list.iter().find(|i| next(&o.world.scope, **i) == Some(last)).expect("one before the end");
    let agino = |ino: Ino| g.split_ino(ino).1.0;
    for (what, at, to) in [
        ("a loop", before, agino(before)),
        ("a loop of all", last, agino(before)),
        ("another bucket", before, agino(last) ^ 1),
        ("outside", before, u32::MAX - 1),
        ("cut off", before, NULL_AGINO),
    ] {
        let mut t = o.world.scope.begin(o.room()).expect("room in the log");
        t.set_next_unlinked(at, to).expect("damaged");
        // What is remembered of the lists does not lead to the end any more, where it was the damage that led there.
        let result = unlinked::remove(&mut t, &o.world.space, last);
        let ok = matches!(&result, Err(Error::Corrupt(_))) || what == "a loop of all" && result.is_ok();
        assert!(ok, "{what}: {result:?}");
        drop(t);
    }
    let mut t = o.world.scope.begin(o.room()).expect("room in the log");
    assert!(matches!(unlinked::add(&mut t, &o.world.space, before), Err(Error::Corrupt(_))), "it is on a list");
    drop(t);
    let root = g.root_ino;
    let mut t = o.world.scope.begin(o.room()).expect("room in the log");
    assert!(matches!(unlinked::remove(&mut t, &o.world.space, root), Err(Error::Corrupt(_))), "it is on none");
    drop(t);
    o.check();
    for ino in o.ours.keys().copied().collect::<Vec<_>>() {
        o.end(ino);
    }
    o.world.finish();
    assert_clean("lists", &image);
}
