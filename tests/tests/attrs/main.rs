//! Attributes are set and removed in images that the kernel wrote, against a model; xfs_repair, the check and the kernel judge the end.

mod limits;
mod model;
mod parents;

use std::path::Path;

use libxfsr::control::Control;
use libxfsr::engine::replayed_view;
use libxfsr::format::features::LogIncompat;
use libxfsr::target::{Access, FileTarget};
use model::{State, World, digest, kernel, linux, read};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use xfsr_tests::changing::{Commits, assert_clean};
use xfsr_tests::corpus;
use xfsr_tests::oracle::Mount;

/// Clean for the check, for xfs_repair where it knows the features, and the kernel finds the same attributes.
fn judged(what: &str, name: &str, image: &Path, state: &State) {
    if corpus::recipe(name).stock_clean() {
        assert_clean(what, image);
    }
    let mount = Mount::new(image, "").expect("a mount");
    for (path, attrs) in state {
        let found = kernel(&mount.path().join(path));
        assert!(found == *attrs, "{what}: {}: the kernel sees other attributes", path.display());
    }
    mount.unmount().expect("an unmount");
}

/// Attributes of all files are changed at random: times of growth, times of shrinking, and at the end everything is removed from some.
fn random(name: &str, operations: u64, forms: &[&str]) {
    if corpus::obtain(name).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy(name, directory.path()).data;
    let mut world = World::open(&image, "attrs", Commits::Gathered, 21);
    world.compare();
    for i in 1..=operations {
        let n = match world.rng.random_range(0..3) {
            0 => 0,
            1 => 1 + (i as usize / 300) % (world.files.len() - 1),
            _ => world.rng.random_range(0..world.files.len()),
        };
        world.operation(n, i % 600 < 350);
        if i % 200 == 0 {
            world.compare();
        }
    }
    println!("{name}: forms {:?}", world.forms);
    for form in forms {
        assert!(world.forms.contains(*form), "{name}: no {form} among {:?}", world.forms);
    }
    world.compare();
    let state = world.state();
    world.changing.finish();
    judged(name, name, &image, &state);
}

#[test]
fn random_attributes() {
    random("default", xfsr_tests::knob("XFSR_ATTRS", 1500), &["none", "short", "leaf", "node1"]);
}

#[test]
fn random_attributes_of_small_blocks() {
    random("b1k-plain", xfsr_tests::knob("XFSR_ATTRS", 1500), &["none", "short", "leaf", "node1", "node2+btree"]);
}

#[test]
fn random_attributes_of_large_inodes() {
    random("i2k-n16k", xfsr_tests::knob("XFSR_ATTRS", 1500), &["short", "leaf", "node1"]);
}

#[test]
fn random_attributes_of_large_blocks() {
    random("b64k-i2k", xfsr_tests::knob("XFSR_ATTRS", 1000), &["short", "leaf"]);
}

#[test]
fn random_attributes_beside_parent_pointers() {
    random("parent", xfsr_tests::knob("XFSR_ATTRS", 1500), &["short", "leaf", "node1"]);
}

/// Crashes at sampled writes, in the middle of chains where every transaction is forced: the kernel and this library recover what some operation
/// left, and the same.
fn crashed(name: &str, seed: u64, commits: Commits, intents: bool) {
    if corpus::obtain(name).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy(name, directory.path()).data;
    let mut world = World::open(&image, "attrs", commits, seed);
    if intents {
        world.changing.scope.enable_log_incompat(LogIncompat::XATTRS).expect("a log feature");
    }
    let begin = world.changing.now();
    let mut states = vec![world.digest()];
    let mut durable = vec![(0, 0)];
    for n in 0..150u64 {
        // A few files, so that their forms change.
        let file = world.rng.random_range(0..world.files.len().min(6));
        if intents && n % 2 == 0 {
            world.deferred(file);
        } else {
            world.operation(file, n % 80 < 50);
        }
        states.push(world.digest());
        if commits == Commits::Forced || n % 20 == 0 {
            world.changing.journal.sync().expect("durable");
            durable.push((world.changing.now(), states.len() - 1));
        }
    }
    let end = world.changing.now();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let crash = directory.path().join("crash");
    let (mut finished, mut between) = (0, 0);
    for n in 0..xfsr_tests::knob("XFSR_CRASHES", 12) {
        let time = rng.random_range(begin..=end);
        world.changing.crash_to(time, n, &crash);
        let target = Arc::new(FileTarget::open(&crash, Access::Read).expect("an image"));
        let view = replayed_view(target, None, None, &Control::none()).expect("a view");
        assert!(view.unfinished.is_none(), "crash {n} at {time}: {:?}", view.unfinished);
        finished += view.recovered.intents.get("attri").copied().unwrap_or(0);
        let ours: Vec<u64> = world.files.iter().map(|f| digest(&linux(&read(&view.volume, f.ino)))).collect();
        let mount = Mount::new(&crash, "").expect("the kernel recovers it");
        let found: Vec<u64> = world.files.iter().map(|f| digest(&kernel(&mount.path().join(&f.path)))).collect();
        mount.unmount().expect("an unmount");
        if corpus::recipe(name).stock_clean() {
            assert_clean(&format!("crash {n} at {time}"), &crash);
        }
        assert!(ours == found, "crash {n} at {time} of {end}: the kernel recovers other attributes");
        let least = durable.iter().filter(|(t, _)| *t <= time).map(|(_, s)| *s).max().unwrap_or(0);
        assert!(states[least..].contains(&found), "crash {n} at {time} of {end}: no state from {least} on");
        between += usize::from(found != states[0] && found != states[states.len() - 1]);
    }
    println!("{name}: {between} crashes in between, {finished} changes of attributes were pending");
    assert!(between > 3);
}

#[test]
fn crashes_inside_of_chains_with_small_blocks() {
    crashed("b1k-plain", 31, Commits::Forced, false);
}

#[test]
fn crashes_of_gathered_commits() {
    crashed("default", 32, Commits::Gathered, false);
}

#[test]
fn crashes_with_changes_that_are_logged() {
    crashed("default", 33, Commits::Forced, true);
}

#[test]
fn crashes_with_changes_that_are_logged_beside_parent_pointers() {
    crashed("parent", 34, Commits::Forced, true);
}
