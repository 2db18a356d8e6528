//! Contents of files are changed in images that the kernel wrote, against a model of their bytes; xfs_repair, the check and the kernel judge the end.

mod faults;
mod model;

use libxfsr::check::{self, Verdict};
use libxfsr::control::Control;
use libxfsr::engine::replayed_view;
use libxfsr::target::Overlay;
use model::{STALE, World};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use xfsr_tests::changing::{Commits, assert_clean};
use xfsr_tests::corpus::EXCHANGE;
use xfsr_tests::oracle::{MOUNT, Mount, require};

type Made = (&'static [&'static str], u32);
const SMALL: Made = (&["-b", "size=1024", "-m", "rmapbt=1", "-d", "agcount=3"], 0);
const PLAIN: Made = (&["-m", "reflink=0,finobt=0"], 0);
const REFLINK: Made = (&["-m", "reflink=1"], 0);
const LARGE: Made = (&["-b", "size=16384", "-m", "rmapbt=1", "-i", "nrext64=1,size=1024"], 0);
const EXCHANGED: Made = (&["-b", "size=1024", "-m", "rmapbt=1"], EXCHANGE);

/// Contents of some files are changed at random.
fn random(mkfs: Made, seed: u64, operations: usize) {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut world = World::open(directory.path(), mkfs, seed + xfsr_tests::knob("XFSR_SEED", 0), Commits::Gathered);
    let operations = operations * xfsr_tests::cases("XFSR_OPERATIONS", 1, 10) as usize;
    for n in 1..=operations {
        world.operation();
        if n % 50 == 0 {
            world.compare();
        }
    }
    println!("{}", world.told());
    world.end();
}

#[test]
fn random_contents_of_small_blocks() {
    random(SMALL, 21, 800);
}

#[test]
fn random_contents_without_reverse_mappings() {
    random(PLAIN, 22, 800);
}

#[test]
fn random_contents_that_share_blocks() {
    random(REFLINK, 28, 600);
}

#[test]
fn random_contents_with_exchanges() {
    random(EXCHANGED, 29, 700);
}

#[test]
fn random_contents_of_large_blocks() {
    random(LARGE, 23, 600);
}

/// The files of the model, as our own recovery leaves them in a filesystem that the check finds clean.
fn recovered(crashed: Overlay) -> Vec<(String, Vec<u8>)> {
    let view = replayed_view(Arc::new(crashed), None, None, &Control::none()).expect("a view");
    assert!(view.unfinished.is_none(), "{:?}", view.unfinished);
    let outcome = check::check(&view.volume, &Control::none()).expect("a check");
    assert!(outcome.verdict() == Verdict::Clean, "{:?}", outcome.findings.first());
    model::files(&view.volume).into_iter().map(|f| (f.name, f.bytes)).collect()
}

/// What happens before a crash.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Changes of one file, in which nothing moves.
    InPlace,
    /// The same, and files that share blocks.
    Shared,
    /// Exchanges, each of which happens wholly or not at all.
    Exchanges,
}

/// Crashes at sampled writes. Whatever the kernel recovers has at each place what some state since the last sync has there, and never what
/// others left in a block.
fn crashed(mkfs: Made, seed: u64, commits: Commits, before: Before) {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut world = World::open(directory.path(), mkfs, seed + xfsr_tests::knob("XFSR_SEED", 0), commits);
    if before != Before::InPlace {
        for _ in 0..80 {
            world.operation();
        }
        world.changing().journal.sync().expect("durable");
        world.changing().volume.data_target().flush().expect("durable");
    }
    let start = world.changing().now();
    let mut states = vec![(start, world.state())];
    let mut durable = vec![(0, 0)];
    let operations = if before == Before::Exchanges { 25 } else { 120 };
    for n in 0..operations {
        match before {
            Before::Exchanges => world.exchange(),
            Before::Shared if n % 3 == 0 => world.share(),
            _ => world.operation_in_place(),
        }
        states.push((world.changing().now(), world.state()));
        if n % 15 == 0 {
            world.changing().journal.sync().expect("durable");
            world.changing().volume.data_target().flush().expect("durable");
            durable.push((world.changing().now(), states.len() - 1));
        }
    }
    let end = world.changing().now();
    let mut rng = ChaCha8Rng::seed_from_u64(seed + xfsr_tests::knob("XFSR_SEED", 0));
    let crash = directory.path().join("crash");
    for n in 0..xfsr_tests::cases("XFSR_CRASHES", 4, 20) {
        let time = rng.random_range(start..=end);
        world.changing().crash_to(time, n, &crash);
        let least = durable.iter().filter(|(t, _)| *t <= time).map(|(_, s)| *s).max().unwrap_or(0);
        let most = states.iter().position(|(t, _)| *t > time).unwrap_or(states.len() - 1);
        let mount = Mount::new(&crash, "").expect("the kernel recovers it");
        let ours = recovered(world.changing().crash(time, n));
        for (name, bytes) in &ours {
            assert!(
                std::fs::read(mount.path().join(name)).expect("read") == *bytes,
                "crash {n} at {time}: {name} differs"
            );
        }
        if before == Before::Exchanges {
            let read = |name: &str| std::fs::read(mount.path().join(name)).expect("read");
            let found: Vec<_> = states[0].1.iter().map(|(name, _)| (name.clone(), read(name))).collect();
            let whole = states[least..=most].iter().any(|(_, s)| *s == found);
            assert!(whole, "crash {n} at {time}: an exchange is half done");
        }
        for (i, (name, _)) in states[0].1.iter().enumerate() {
            let found = std::fs::read(mount.path().join(name)).expect("read");
            let here: Vec<&Vec<u8>> = states[least..=most].iter().map(|(_, s)| &s[i].1).collect();
            let longest = here.iter().map(|b| b.len()).max().unwrap_or(0);
            let shortest = here.iter().map(|b| b.len()).min().unwrap_or(0);
            assert!(found.len() >= shortest && found.len() <= longest, "crash {n}: {name} has {}", found.len());
            for (at, byte) in found.iter().enumerate() {
                let known = here.iter().any(|b| b.get(at).copied().unwrap_or(0) == *byte);
                assert!(known && *byte != STALE, "crash {n} at {time}: byte {at} of {name} is {byte}");
            }
        }
        mount.unmount().expect("an unmount");
        assert_clean(&format!("crash {n} at {time}"), &crash);
    }
}

#[test]
fn a_crash_inside_of_chains_shows_nothing_of_others() {
    crashed(SMALL, 24, Commits::Forced, Before::InPlace);
}

#[test]
fn a_crash_of_gathered_commits_shows_nothing_of_others() {
    crashed(PLAIN, 25, Commits::Gathered, Before::InPlace);
}

#[test]
fn a_crash_while_files_share_blocks_loses_nothing() {
    crashed(SMALL, 30, Commits::Forced, Before::Shared);
}

#[test]
fn a_crash_while_files_share_blocks_without_reverse_mappings_loses_nothing() {
    crashed(REFLINK, 36, Commits::Gathered, Before::Shared);
}

#[test]
fn the_kernel_finishes_exchanges() {
    crashed(EXCHANGED, 31, Commits::Forced, Before::Exchanges);
}

/// With a few free blocks here and there: what does not fit changes nothing.
#[test]
fn no_space_leaves_no_trace() {
    for (mkfs, seed) in [(SMALL, 26), (PLAIN, 27)] {
        if require(MOUNT).is_none() {
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let mut world = World::open(directory.path(), mkfs, seed, Commits::Gathered);
        for _ in 0..100 {
            world.operation();
        }
        let (mut refused, mut done) = (0, 0);
        for but in [0, 1, 2, 5, 9, 14] {
            world.fill_up(but);
            for _ in 0..30 {
                *if world.tight() { &mut refused } else { &mut done } += 1;
            }
            world.compare();
        }
        println!("{refused} refused, {done} done");
        assert!(refused > 10 && done > 10);
        world.end();
    }
}

/// Files are changed by many threads at once, and the log written at the same time.
#[test]
fn many_threads_change_files() {
    for (mkfs, seed) in [(SMALL, 32), (REFLINK, 33)] {
        if require(MOUNT).is_none() {
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let mut world = World::open(directory.path(), mkfs, seed, Commits::Gathered);
        for _ in 0..3 {
            world.threads(80);
            world.compare();
        }
        world.end();
    }
}

/// Only what is written in the first file goes over, and what is no whole blocks stays.
#[test]
fn exchanges_of_what_is_written() {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut world = World::open(directory.path(), EXCHANGED, 34, Commits::Gathered);
    world.exchange_written();
    world.end();
    let mut world = World::open(directory.path(), SMALL, 35, Commits::Gathered);
    world.exchange_refused();
}
