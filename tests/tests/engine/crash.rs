//! Crashes at writes that a seed chooses: what was synced is there, and each operation happened wholly or not at all; recovered by this library and by
//! the kernel, with the same tree.

use crate::walk::walk;
use libxfsr::attr::change::How;
use libxfsr::check::{self, Verdict};
use libxfsr::control::Control;
use libxfsr::engine::{Filesystem, Handle, New, Options, Rename, Targets, recover};
use libxfsr::target::{Access, FileTarget, Overlay, Recorder, Target};
use libxfsr::volume::Volume;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use xfsr_tests::corpus::{Entry, manifest};
use xfsr_tests::oracle::{self, Mount};
use xfsr_tests::{knob, oracle::require};

/// What is compared: contents, names, kinds, links, attributes.
type Tree = BTreeMap<Vec<u8>, (String, u64, u64, Option<String>, BTreeMap<Vec<u8>, Vec<u8>>)>;

fn tree(entries: Vec<Entry>) -> Tree {
    let size = |e: &Entry| if e.kind == "dir" { 0 } else { e.size };
    entries.into_iter().map(|e| (e.path.clone(), (e.kind.clone(), e.nlink, size(&e), e.sha256, e.xattrs))).collect()
}

/// One operation of a workload.
type Step = Box<dyn Fn(&Handle)>;

fn file(root: &Handle, name: &str) -> Handle {
    root.lookup(name.as_bytes()).expect("a file")
}

fn workload(kind: usize, rng: &mut ChaCha8Rng) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for n in 0..24u8 {
        let (name, other) = (format!("f{n}-{}", "x".repeat(rng.random_range(0..60))), format!("g{n}"));
        let (len, byte): (usize, u8) = (rng.random_range(1..40_000), rng.random());
        let created = name.clone();
        steps.push(Box::new(move |r| drop(r.create(created.as_bytes(), &New::mode(0o644)).expect("created"))));
        match kind {
            0 => {
                steps.push(Box::new(move |r| drop(r.mkdir(other.as_bytes(), &New::mode(0o755)).expect("made"))));
                if n % 2 == 1 {
                    steps.push(Box::new(move |r| r.unlink(name.as_bytes()).expect("unlinked")));
                }
            }
            1 => {
                let how = if n % 3 == 0 { Rename::Whiteout } else { Rename::Replace };
                let to = format!("g{}", n / 2);
                steps.push(Box::new(move |r| r.rename(name.as_bytes(), r, to.as_bytes(), how).expect("renamed")));
            }
            2 => {
                let attr = format!("user.a{}", n % 4);
                steps.push(Box::new(move |r| {
                    file(r, &name).set_xattr(attr.as_bytes(), &vec![byte; len / 8], How::Upsert).expect("set");
                }));
            }
            _ => {
                // A write of one extent is one operation; a truncation, too.
                let written = name.clone();
                steps.push(Box::new(move |r| {
                    assert_eq!(file(r, &written).append(&vec![byte; len]).expect("appended").1, len);
                }));
                if n % 2 == 0 {
                    steps.push(Box::new(move |r| file(r, &name).truncate(len as u64 / 3).expect("truncated")));
                }
            }
        }
    }
    steps
}

fn open(data: Arc<dyn Target>) -> Filesystem {
    let targets = Targets { data, log: None, rt: None };
    Filesystem::from_targets(&targets, &Options::default(), &Control::none()).expect("a filesystem").0
}

/// Recovers an image and says what is in it.
fn recovered(image: &Arc<Overlay>) -> Tree {
    let targets = Targets { data: image.clone(), log: None, rt: None };
    recover(&targets, &recover::Options::default(), &Control::none()).expect("recovered");
    let volume = Volume::from_targets(image.clone(), None, None, 8 << 20).expect("a volume");
    let outcome = check::check(&volume, &Control::none()).expect("a check");
    assert_eq!(outcome.verdict(), Verdict::Clean, "{outcome}");
    let targets = Targets { data: image.clone(), log: None, rt: None };
    tree(walk(&Filesystem::read_only(&targets, &Options::default(), &Control::none()).expect("a view")))
}

/// The kernel's recovery of the same image.
fn by_the_kernel(image: &Overlay, base: &Path, to: &Path) -> Tree {
    xfsr_tests::copy_sparse(base, to).expect("a copy");
    let target = FileTarget::open(to, Access::Write).expect("a target");
    let mut buf = vec![0; 1 << 20];
    for at in (0..image.len()).step_by(1 << 20) {
        let n = (image.len() - at).min(1 << 20) as usize;
        image.read_at(&mut buf[..n], at).expect("read");
        let mut old = vec![0; n];
        target.read_at(&mut old, at).expect("read");
        if old != buf[..n] {
            target.write_at(&buf[..n], at).expect("written");
        }
    }
    drop(target);
    let mount = Mount::new(to, "").expect("a mount");
    let entries = manifest::walk(mount.path()).expect("a walk");
    mount.unmount().expect("unmounted");
    let v = oracle::xfs_repair_n(to, &[]).expect("xfs_repair");
    assert!(v.clean(), "{}", v.output);
    tree(entries)
}

fn crash(kind: usize, seed: u64, samples: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let (base, copy) = (dir.path().join("base"), dir.path().join("copy"));
    std::fs::File::create(&base).and_then(|f| f.set_len(320 << 20)).expect("a file");
    oracle::mkfs_xfs(&["-m", "rmapbt=1"], &base).expect("mkfs.xfs");
    let below: Arc<dyn Target> = Arc::new(FileTarget::open(&base, Access::Read).expect("a target"));
    let recorder = Arc::new(Recorder::new(below).expect("a recorder"));
    let fs = open(recorder.clone());
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // What the tree was after each operation, and how much had been written when it was known to be durable.
    let (mut states, mut synced) = (vec![tree(walk(&fs))], vec![(0, 0)]);
    let root = fs.root();
    for step in workload(kind, &mut rng) {
        step(&root);
        states.push(tree(walk(&fs)));
        if rng.random_range(0..3) == 0 {
            fs.sync().expect("synced");
            synced.push((recorder.events().len() as u64, states.len() - 1));
        }
    }
    fs.sync().expect("synced");
    synced.push((recorder.events().len() as u64, states.len() - 1));
    drop(root);
    let written = recorder.events().len() as u64;
    for sample in 0..samples {
        let time = rng.random_range(0..=written);
        // What was not flushed is there or not, as it comes.
        let mut lost = ChaCha8Rng::seed_from_u64(sample);
        let image = Arc::new(recorder.crash(time, &mut |_| lost.random()).expect("an image"));
        let again = Overlay::new(image.clone()).expect("an overlay");
        let kernel = (sample % 4 == 0).then(|| by_the_kernel(&again, &base, &copy));
        let found = recovered(&image);
        let least = synced.iter().filter(|(at, _)| *at <= time).map(|(_, n)| *n).max().expect("the first");
        let at = states.iter().skip(least).position(|s| *s == found);
        assert!(
            at.is_some(),
            "workload {kind}, seed {seed}, sample {sample}: after {time} of {written} writes the tree is none that was"
        );
        if let Some(kernel) = kernel {
            assert!(
                kernel == found,
                "workload {kind}, seed {seed}, sample {sample}: the kernel recovers something else"
            );
        }
    }
}

#[test]
fn what_was_synced_is_there_and_operations_are_whole() {
    if require(oracle::MOUNT).is_none() {
        return;
    }
    let full = std::env::var_os("XFSR_FULL").is_some();
    let samples = knob("XFSR_SAMPLES", if full { 400 } else { 8 });
    for kind in 0..4 {
        crash(kind, knob("XFSR_SEED", 1) + kind as u64, samples);
    }
}

/// Files that nobody has open any more, and those that somebody had: after a crash both are gone.
#[test]
fn orphans_go_with_their_last_user() {
    let dir = tempfile::tempdir().expect("a directory");
    let base = dir.path().join("base");
    std::fs::File::create(&base).and_then(|f| f.set_len(320 << 20)).expect("a file");
    if require(oracle::MOUNT).is_none() {
        return;
    }
    oracle::mkfs_xfs(&[], &base).expect("mkfs.xfs");
    let below: Arc<dyn Target> = Arc::new(FileTarget::open(&base, Access::Read).expect("a target"));
    let recorder = Arc::new(Recorder::new(below).expect("a recorder"));
    let fs = open(recorder.clone());
    let free = fs.statfs().free;
    let handles: Vec<Handle> = (0..200u32)
        .map(|n| {
            let f = fs.root().create(format!("{n}").as_bytes(), &New::mode(0o600)).expect("created");
            f.write_at(&vec![n as u8; 9000], 0).expect("written");
            fs.root().unlink(format!("{n}").as_bytes()).expect("unlinked");
            assert_eq!(f.stat().expect("an inode").nlink, 0);
            let mut back = [0; 10];
            f.read_at(&mut back, 8000).expect("read");
            assert_eq!(back, [n as u8; 10]);
            f
        })
        .collect();
    fs.sync().expect("synced");
    let time = recorder.events().len() as u64;
    let image = Arc::new(recorder.crash(time, &mut |_| true).expect("an image"));
    assert_eq!(recovered(&image).len(), 1);
    // From the middle, the ends, and in no order.
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut handles = handles;
    while !handles.is_empty() {
        drop(handles.swap_remove(rng.random_range(0..handles.len())));
    }
    let after = fs.statfs();
    assert!(after.free >= free - 60, "{} blocks were free, {} are", free, after.free);
    fs.close().expect("closed");
    let image = Arc::new(recorder.crash(u64::MAX, &mut |_| true).expect("an image"));
    assert_eq!(recovered(&image).len(), 1);
}
