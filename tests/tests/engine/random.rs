//! Random operations by several threads, compared with a model; and what is on the disk then, with checkers and with the kernel.

use crate::model::{Model, Seen};
use crate::walk::walk;
use libxfsr::check::{self, Verdict};
use libxfsr::control::Control;
use libxfsr::engine::{Filesystem, New, Options};
use libxfsr::volume::{Devices, Volume};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::path::Path;
use xfsr_tests::corpus::{Entry, manifest};
use xfsr_tests::oracle::{self, Mount};
use xfsr_tests::{knob, oracle::require};

fn seen(entries: &[Entry]) -> BTreeMap<Vec<u8>, Seen> {
    entries.iter().filter(|e| !e.path.is_empty()).map(|e| (e.path.clone(), Seen::from(e))).collect()
}

fn compare(what: &str, found: &BTreeMap<Vec<u8>, Seen>, expected: &BTreeMap<Vec<u8>, Seen>) {
    for (path, e) in expected {
        assert_eq!(found.get(path), Some(e), "{what}: {}", libxfsr::text::escape(path));
    }
    assert_eq!(found.len(), expected.len(), "{what}: number of files");
}

/// Our check, theirs, and the kernel's view.
pub(crate) fn verify(image: &Path, expected: &BTreeMap<Vec<u8>, Seen>, known: bool) {
    let volume = Volume::open(&Devices::data(image)).expect("a volume");
    let outcome = check::check(&volume, &Control::none()).expect("a check");
    assert_eq!(outcome.verdict(), Verdict::Clean, "{outcome}");
    drop(volume);
    if known {
        let v = oracle::xfs_repair_n(image, &[]).expect("xfs_repair");
        assert!(v.clean(), "{}", v.output);
    }
    let mount = Mount::new(image, "ro").expect("a mount");
    compare("the kernel", &seen(&manifest::walk(mount.path()).expect("a walk")), expected);
    mount.unmount().expect("unmounted");
}

fn run(mkfs: &[&str], parent: bool, threads: u64, steps: u64, seed: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let image = dir.path().join("image");
    let file = std::fs::File::create(&image).expect("a file");
    file.set_len(600 << 20).expect("a length");
    if parent {
        let mut options = libxfsr::mkfs::Options::default();
        options.naming.parent = Some(true);
        options.metadata.rmapbt = Some(true);
        let plan = libxfsr::mkfs::plan(&options, &libxfsr::mkfs::Devices::file(600 << 20)).expect("a plan");
        let target = libxfsr::target::FileTarget::open(&image, libxfsr::target::Access::Write).expect("a target");
        let targets = libxfsr::mkfs::write::Targets { data: &target, log: None, rt: None };
        libxfsr::mkfs::write::write(&plan, &targets, &Default::default(), &Control::none()).expect("a filesystem");
    } else {
        oracle::mkfs_xfs(mkfs, &image).expect("mkfs.xfs");
    }
    // Little memory, so that blocks are written back while others are changed.
    let options = Options { cache: 2 << 20, ..Options::default() };
    let fs = Filesystem::open(&Devices::data(&image), &options).expect("a filesystem");
    let models: Vec<Model> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|n| {
                let fs = &fs;
                scope.spawn(move || {
                    let mut rng = ChaCha8Rng::seed_from_u64(seed * 1000 + n);
                    let root = fs.root().mkdir(format!("t{n}").as_bytes(), &New::mode(0o755)).expect("a directory");
                    let mut model = Model::new(0o755);
                    for step in 0..steps {
                        let what = model.step(&root, &mut rng);
                        if std::env::var_os("XFSR_TRACE").is_some() {
                            eprintln!("{n}.{step}: {what}");
                        }
                        if step.is_multiple_of(97) {
                            fs.sync().expect("synced");
                        }
                    }
                    model
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("a thread")).collect()
    });
    let mut expected = BTreeMap::new();
    for (n, model) in models.iter().enumerate() {
        expected.extend(model.seen(format!("t{n}").as_bytes()));
    }
    compare("open", &seen(&walk(&fs)), &expected);
    fs.close().expect("closed");
    if let Some(to) = std::env::var_os("XFSR_KEEP") {
        xfsr_tests::copy_sparse(&image, Path::new(&to)).expect("a copy");
    }
    verify(&image, &expected, !parent);
    let fs = Filesystem::open(&Devices::data(&image), &options).expect("a filesystem");
    compare("opened again", &seen(&walk(&fs)), &expected);
    fs.close().expect("closed");
}

#[test]
fn random_operations_leave_what_a_model_says() {
    if require(oracle::MOUNT).is_none() {
        return;
    }
    let full = std::env::var_os("XFSR_FULL").is_some();
    let steps = knob("XFSR_STEPS", if full { 20_000 } else { 1500 });
    let seed = knob("XFSR_SEED", 1);
    run(&["-m", "rmapbt=1"], false, 1, steps, seed);
    run(&["-b", "size=1024", "-m", "rmapbt=0,reflink=0,finobt=0"], false, 3, steps, seed + 1);
    run(&["-m", "rmapbt=1", "-i", "nrext64=1", "-n", "size=8192"], false, 4, steps, seed + 2);
}

#[test]
fn parent_pointers_are_kept() {
    if require(oracle::MOUNT).is_none() {
        return;
    }
    run(&[], true, 3, knob("XFSR_STEPS", 1500), knob("XFSR_SEED", 5));
}
