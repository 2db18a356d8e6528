//! Parent pointers are added, removed and replaced, at once and by steps of a chain that a crash interrupts.

use libxfsr::attr;
use libxfsr::attr::change::{self, Change};
use libxfsr::cache::OnDamage;
use libxfsr::check::{self, Verdict};
use libxfsr::control::Control;
use libxfsr::engine::replayed_view;
use libxfsr::error::Error;
use libxfsr::format::attr::{AttrFlags, ParentRec};
use libxfsr::inode::Inode;
use libxfsr::target::{Access, FileTarget};
use libxfsr::units::Ino;
use libxfsr::volume::Volume;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::sync::Arc;
use xfsr_tests::changing::{Changing, Commits};
use xfsr_tests::corpus;
use xfsr_tests::oracle::Mount;

/// Inodes with a parent pointer each, and their generations.
fn pointed(volume: &Volume, most: usize) -> Vec<(Ino, u32, Vec<u8>, ParentRec)> {
    let mut all = Vec::new();
    let mut stack = vec![volume.geometry.root_ino];
    while let Some(dir) = stack.pop().filter(|_| all.len() < most) {
        let inode = Inode::read(volume, dir, OnDamage::Fail).expect("a directory");
        for e in libxfsr::dir::entries(volume, &inode).expect("entries") {
            if e.name == b"." || e.name == b".." {
                continue;
            }
            let child = Inode::read(volume, e.ino, OnDamage::Fail).expect("an inode");
            let attrs = attr::list(volume, &child).expect("attributes");
            let a = attrs.iter().find(|a| a.flags.contains(AttrFlags::PARENT)).expect("a parent pointer");
            let parent = *ParentRec::from_value(&a.value).expect("a pointer");
            all.push((e.ino, child.core.generation.get(), a.name.clone(), parent));
            if child.core.is_dir() {
                stack.push(e.ino);
            }
        }
    }
    all.sort_by_key(|a| a.0);
    all.dedup_by_key(|a| a.0);
    all
}

fn names(volume: &Volume, ino: Ino) -> Vec<Vec<u8>> {
    let all = attr::list(volume, &Inode::read(volume, ino, OnDamage::Fail).expect("an inode")).expect("attributes");
    all.into_iter().filter(|a| a.flags.contains(AttrFlags::PARENT)).map(|a| a.name).collect()
}

fn clean(what: &str, volume: &Volume) {
    let outcome = check::check(volume, &Control::none()).expect("a check");
    assert!(outcome.verdict() == Verdict::Clean, "{what}: {:?}", outcome.findings.first());
}

fn opened(image: &Path) -> Volume {
    let target = Arc::new(FileTarget::open(image, Access::Read).expect("an image"));
    Volume::from_targets(target, None, None, 32 << 20).expect("a filesystem")
}

#[test]
fn pointers_are_added_removed_and_replaced() {
    let Some(devices) = corpus::obtain("parent") else { return };
    let c = Changing::open(&devices.data, Commits::Gathered);
    let g = &c.volume.geometry;
    let begin = || c.scope.begin(change::reservation(g, 0).and(change::reservation(g, 0))).expect("room in the log");
    for (ino, _, name, parent) in pointed(&c.volume, 40) {
        let before = names(&c.volume, ino);
        let mut t = begin();
        let twice = change::add_parent(&mut t, &c.space, ino, &name, &parent);
        assert!(matches!(twice, Err(Error::Exists(_))), "{twice:?}");
        drop(t);
        let mut t = begin();
        let elsewhere = ParentRec { ino: (parent.ino.get() ^ 0x40).into(), ..parent };
        let absent = change::remove_parent(&mut t, &c.space, ino, &name, &elsewhere);
        assert!(matches!(absent, Err(Error::NotFound(_) | Error::Invalid(_))), "{absent:?}");
        drop(t);
        let mut t = begin();
        change::replace_parent(&mut t, &c.space, ino, (&name, &parent), (b"another name", &parent)).expect("replaced");
        t.commit().expect("committed");
        let now = names(&c.volume, ino);
        assert!(now.iter().any(|n| n == b"another name") && now.len() == before.len());
        let mut t = begin();
        change::remove_parent(&mut t, &c.space, ino, b"another name", &parent).expect("removed");
        change::add_parent(&mut t, &c.space, ino, &name, &parent).expect("added");
        t.commit().expect("committed");
    }
    c.volume.cache.write_back(None).expect("a log");
    c.journal.close().expect("a clean log");
    clean("all is as it was", &c.volume);
}

/// A chain renames the pointers of three inodes, and another gives them their old names. Wherever they are cut off, recovery goes on to the end.
#[test]
fn chains_of_replacements_are_finished_by_the_kernel_and_by_us() {
    let Some(devices) = corpus::obtain("parent") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let c = Changing::open(&devices.data, Commits::Forced);
    let g = &c.volume.geometry;
    let begin = c.now();
    let other = &b"another name"[..];
    let all = pointed(&c.volume, 60);
    for three in all.chunks(3) {
        for back in [false, true] {
            let mut t = c.scope.begin(change::reservation(g, 0)).expect("room in the log");
            for (ino, generation, name, parent) in three {
                let who = (*ino, *generation);
                let step = match (back, ino.0 % 2) {
                    (false, 0) => Change::replace_parent(&c.space, g, who, (name, parent), (other, parent)),
                    (true, 0) => Change::replace_parent(&c.space, g, who, (other, parent), (name, parent)),
                    (false, _) => Change::add_parent(&c.space, g, who, other, parent),
                    (true, _) => Change::remove_parent(&c.space, g, who, other, parent),
                };
                t.defer(step.expect("a pointer")).expect("a filesystem with parent pointers");
            }
            t.commit().expect("committed");
        }
    }
    let end = c.now();
    assert!(all.iter().all(|(ino, ..)| !names(&c.volume, *ino).iter().any(|n| n == other)), "all is as it was");
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let crash = directory.path().join("crash");
    let (mut finished, mut renamed) = (0, 0);
    for n in 0..xfsr_tests::knob("XFSR_CRASHES", 9) {
        let (time, what) = (rng.random_range(begin..=end), format!("crash {n}"));
        c.crash_to(time, n, &crash);
        let target = Arc::new(FileTarget::open(&crash, Access::Read).expect("an image"));
        let view = replayed_view(target, None, None, &Control::none()).expect("a view");
        assert!(view.unfinished.is_none(), "{what}: {:?}", view.unfinished);
        finished += view.recovered.intents.get("attri").copied().unwrap_or(0);
        Mount::new(&crash, "").expect("the kernel recovers it").unmount().expect("an unmount");
        let kernel = opened(&crash);
        for three in all.chunks(3) {
            let has = |ino| names(&view.volume, ino).iter().any(|n| n == other);
            let ours: Vec<bool> = three.iter().map(|(ino, ..)| has(*ino)).collect();
            assert!(ours.iter().all(|h| *h == ours[0]), "{what}: a half of a chain");
            renamed += usize::from(ours[0]);
            for (ino, ..) in three {
                assert_eq!(names(&view.volume, *ino), names(&kernel, *ino), "{what}: inode {ino}");
            }
        }
    }
    println!("{finished} changes were pending, {renamed} times they were halfway");
    assert!(finished > 5 && renamed > 2);
}
