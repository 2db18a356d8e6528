//! Recovery onto the disk: what it leaves is what Linux leaves, and a crash at any of its writes can be recovered again, by either.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use libxfsr::check::check;
use libxfsr::control::Control;
use libxfsr::engine::recover::{Options, recover};
use libxfsr::engine::{Recovered, Targets, replayed_view};
use libxfsr::journal::{LogState, log_state};
use libxfsr::target::{Access, Change, FileTarget, Overlay, Recorder, Target};
use libxfsr::volume::Volume;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use xfsr_tests::corpus::{self, Entry, manifest};
use xfsr_tests::oracle::{self, Devices, Mount};
use xfsr_tests::stress::work;
use xfsr_tests::view::{open, walk};

fn full() -> bool {
    std::env::var_os("XFSR_FULL").is_some_and(|v| v == "1")
}

fn file(path: &Path, access: Access) -> Arc<dyn Target> {
    Arc::new(FileTarget::open(path, access).expect("a target"))
}

fn targets(devices: &Devices, access: Access) -> Targets {
    let data = file(&devices.data, access);
    let [log, rt] = [&devices.log, &devices.rt].map(|d| d.as_deref().map(|p| file(p, access)));
    Targets { data, log, rt }
}

fn recovered(targets: &Targets) -> Recovered {
    recover(targets, &Options::default(), &Control::none()).expect("recovery")
}

/// Clean log, and nothing wrong but for attributes that were being set.
fn in_order(what: &str, volume: &Volume) {
    assert!(matches!(log_state(volume, &Control::none()), Ok(LogState::Clean { .. })), "{what}");
    let outcome = check(volume, &Control::none()).expect("a check");
    let wrong = outcome.findings.iter().find(|f| f.code() != "xattr.flags.flags");
    assert!(wrong.is_none(), "{what}: {}", wrong.map_or(String::new(), ToString::to_string));
}

/// What the kernel shows of it, and what the superblock counts when it is unmounted.
fn shown(devices: &Devices) -> (Vec<Entry>, [u64; 3]) {
    // Mounted writable it recovers; and what it shows must not change because of that.
    Mount::new(devices, "").expect("a mount").unmount().expect("an unmount");
    let mount = Mount::new(devices, "ro").expect("a mount");
    let entries = manifest::walk(mount.path()).expect("a walk");
    mount.unmount().expect("an unmount");
    (entries, counted(&open(devices)))
}

fn counted(volume: &Volume) -> [u64; 3] {
    let sb = &volume.superblock;
    [sb.icount.get(), sb.ifree.get(), sb.fdblocks.get()]
}

fn same(what: &str, found: &[Entry], expected: &[Entry]) {
    assert_eq!(found.len(), expected.len(), "{what}: number of files");
    for (f, e) in found.iter().zip(expected) {
        assert_eq!(f, e, "{what}: {}", libxfsr::text::escape(&f.path));
    }
}

#[test]
fn what_is_recovered_on_the_disk_is_what_the_kernel_recovers() {
    for recipe in corpus::selected().filter(|r| r.end == corpus::End::Dirty) {
        let Some(_) = corpus::obtain(recipe.name) else { continue };
        let scratch = tempfile::tempdir_in(corpus::directory()).expect("a directory");
        let [ours, theirs] = ["ours", "theirs"].map(|name| {
            let to = scratch.path().join(name);
            std::fs::create_dir(&to).expect("a directory");
            corpus::copy(recipe.name, &to)
        });
        let done = recovered(&targets(&ours, Access::Write));
        println!("{}: {done}", recipe.name);
        assert!(done.inodes >= 70 && done.left.is_empty(), "{}: {done}", recipe.name);
        let volume = open(&ours);
        in_order(recipe.name, &volume);
        same(recipe.name, &walk(&volume), &corpus::manifest(recipe.name));
        if recipe.stock_clean() {
            let verdict = oracle::xfs_repair_n(&ours, &[]).expect("xfs_repair");
            assert!(verdict.clean(), "{}: {}", recipe.name, verdict.output);
        }
        let left = counted(&volume);
        // Once more there is nothing to do.
        assert!(recovered(&targets(&ours, Access::Write)).clean, "{}", recipe.name);
        let (entries, counts) = shown(&theirs);
        assert_eq!(left, counts, "{}: inodes, free inodes, free blocks", recipe.name);
        let (again, _) = shown(&ours);
        same(recipe.name, &again, &entries);
    }
}

/// Recorders over all devices, which share a clock.
fn recorded(below: &Targets) -> (Arc<Recorder>, Option<Arc<Recorder>>, Targets) {
    let clock = Arc::new(AtomicU64::new(0));
    let over = |t: &Arc<dyn Target>| Arc::new(Recorder::with_clock(t.clone(), clock.clone()).expect("memory"));
    let (data, log) = (over(&below.data), below.log.as_ref().map(over));
    let targets = Targets { data: data.clone(), log: log.clone().map(|l| l as Arc<dyn Target>), rt: below.rt.clone() };
    (data, log, targets)
}

/// A copy of an image with what an overlay has changed.
fn save(from: &Path, overlay: &Overlay, to: &Path) {
    std::fs::copy(from, to).expect("a copy");
    let target = FileTarget::open(to, Access::Write).expect("a target");
    for (at, len) in overlay.changed() {
        let mut bytes = vec![0; len as usize];
        overlay.read_at(&mut bytes, at).expect("bytes");
        target.write_at(&bytes, at).expect("bytes");
    }
    target.flush().expect("a flush");
}

/// Recovers an image, and crashes that at `crashes` times; the kernel recovers `kernel` of these, and this library all.
fn crashed(name: &str, crashes: u64, kernel: u64) {
    let Some(devices) = corpus::obtain(name) else { return };
    let below = targets(&devices, Access::Read);
    let (data, log, over) = recorded(&below);
    let done = recovered(&over);
    let count = |r: &Arc<Recorder>| r.events().last().map_or(0, |e| e.time);
    let last = count(&data).max(log.as_ref().map_or(0, count)) + 1;
    let writes = data.events().iter().filter(|e| matches!(e.change, Change::Write { .. })).count();
    let flushed = data.events().into_iter().find(|e| e.change == Change::Flush).map_or(0, |e| e.time);
    println!("{name}: {done}; {writes} writes to the data device, {last} events");
    let expected = corpus::manifest(name);
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut kinds = BTreeSet::new();
    let scratch = tempfile::tempdir_in(corpus::directory()).expect("a directory");
    for n in 0..crashes {
        // Most after physical replay: while intents are finished, and until the log is closed.
        let from = if n % 4 == 0 { 0 } else { flushed };
        let (time, how) = (random.random_range(from..=last), n % 3);
        let what = format!("{name}, crash {n} at {time} of {last}, {how}");
        let seed = random.random();
        let crash = |r: &Arc<Recorder>| {
            let mut lost = ChaCha8Rng::seed_from_u64(seed);
            let mut keep = |_: &_| match how {
                0 => true,
                1 => lost.random_bool(0.5),
                _ => false,
            };
            Arc::new(r.crash(time, &mut keep).expect("an image"))
        };
        let (data, log) = (crash(&data), log.as_ref().map(crash));
        if n < kernel {
            let [to, to_log] = ["crashed", "crashed-log"].map(|n| scratch.path().join(n));
            save(&devices.data, &data, &to);
            let log = devices.log.as_ref().zip(log.as_ref());
            let log = log.map(|(from, overlay)| save(from, overlay, &to_log)).map(|()| to_log);
            let (entries, _) = shown(&Devices { data: to, log, rt: None });
            same(&format!("{what}, by the kernel"), &entries, &expected);
        }
        let targets = Targets { data, log: log.map(|l| l as Arc<dyn Target>), rt: below.rt.clone() };
        let again = recover(&targets, &Options::default(), &Control::none());
        let again = again.unwrap_or_else(|e| panic!("{what}: {e}"));
        kinds.insert((again.clean, again.intents.values().sum::<u64>(), again.inodes));
        let view = replayed_view(targets.data, targets.log, targets.rt, &Control::none()).expect("a view");
        in_order(&what, &view.volume);
        same(&what, &walk(&view.volume), &expected);
    }
    println!("{name}: (clean, intents, unlinked inodes) that the second recovery found: {kinds:?}");
    assert!(kinds.len() > 1, "{name}: all crashes left the same: {kinds:?}");
}

#[test]
fn a_crash_of_recovery_is_recovered() {
    if oracle::require(oracle::MOUNT).is_none() {
        return;
    }
    crashed("dirty", if full() { 100 } else { 4 }, if full() { 20 } else { 2 });
    crashed("dirty-parent", if full() { 200 } else { 8 }, if full() { 40 } else { 3 });
    if full() {
        for name in ["dirty-quota", "dirty-1k", "dirty-external-log", "dirty-stripes"] {
            crashed(name, 100, 0);
        }
    }
}

/// What mkfs.xfs is told, in turn.
const GEOMETRIES: [&[&str]; 6] = [
    &["-m", "rmapbt=1"],
    &[],
    &["-b", "size=1024", "-m", "rmapbt=1"],
    &["-i", "nrext64=1", "-n", "size=16384"],
    &["-m", "reflink=0", "-l", "su=64k"],
    &["-b", "size=1024", "-m", "finobt=0,reflink=0"],
];

/// A filesystem that was cut off under load, or whose file was copied while it was in use: from the same bytes both end with the same.
fn under_load(seed: u64) {
    let scratch = tempfile::tempdir().expect("a directory");
    let [image, ours, theirs] = ["image", "ours", "theirs"].map(|n| scratch.path().join(n));
    std::fs::File::create(&image).and_then(|f| f.set_len(320 << 20)).expect("a file");
    let options = GEOMETRIES[(seed % 6) as usize];
    oracle::mkfs_xfs(options, &image).expect("mkfs.xfs");
    let copy = |from: &Path, to: &Path| {
        let done = std::process::Command::new("cp").arg("--sparse=always").args([from, to]).status().expect("cp");
        assert!(done.success());
    };
    let mount = Mount::new(&image, "").expect("a mount");
    let time = Duration::from_millis(700);
    match seed / 6 % 3 {
        0 => {
            let held = work(mount.path(), seed, time);
            mount.shutdown().expect("a shutdown");
            drop(held);
        }
        1 => {
            let held = work(mount.path(), seed, time);
            mount.shutdown_now().expect("a shutdown");
            drop(held);
        }
        // Nothing is at work while it is copied: a copy of some writes without earlier ones is what no crash leaves.
        _ => {
            let held = work(mount.path(), seed, time);
            copy(&image, &ours);
            drop(held);
        }
    }
    mount.unmount().expect("an unmount");
    if !ours.exists() {
        copy(&image, &ours);
    }
    copy(&ours, &theirs);
    let what = format!("seed {seed}, {options:?}");
    let [ours, theirs] = [ours, theirs].map(|p| Devices::from(p.as_path()));
    println!("{what}: {}", recovered(&targets(&ours, Access::Write)));
    in_order(&what, &open(&ours));
    let v = oracle::xfs_repair_n(&ours, &[]).expect("xfs_repair");
    assert!(v.clean(), "{what}: {}", v.output);
    let (found, counts) = shown(&ours);
    let (expected, expected_counts) = shown(&theirs);
    same(&what, &found, &expected);
    assert_eq!(counts, expected_counts, "{what}");
}

/// 18 of them, or as many as `XFSR_DIRTY` says; `XFSR_FULL=1` takes 300.
#[test]
fn what_was_cut_off_under_load_is_recovered_as_by_the_kernel() {
    if oracle::require(oracle::MOUNT).is_none() {
        return;
    }
    let asked = std::env::var("XFSR_DIRTY").ok().and_then(|n| n.parse().ok());
    let count = asked.unwrap_or(if full() { 300 } else { 18 });
    let first: u64 = std::env::var("XFSR_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    (first..first + count).for_each(under_load);
}
