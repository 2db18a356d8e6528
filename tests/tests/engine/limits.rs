//! Several threads at once, no space, a filesystem that is frozen meanwhile.

use crate::random::verify;
use libxfsr::Error;
use libxfsr::cache::{BlockKey, OnDamage, Want};
use libxfsr::engine::{Filesystem, Handle, New, Options};
use libxfsr::format::ag::{AGF, AGI};
use libxfsr::units::AgNumber;
use libxfsr::volume::Devices;
use std::sync::mpsc;
use std::time::Duration;
use xfsr_tests::oracle::{self, require};

fn image(dir: &std::path::Path, mib: u64) -> std::path::PathBuf {
    let path = dir.join("image");
    std::fs::File::create(&path).and_then(|f| f.set_len(mib << 20)).expect("a file");
    oracle::mkfs_xfs(&["-m", "rmapbt=1"], &path).expect("mkfs.xfs");
    path
}

/// While somebody holds all of one AG, others make and write files in another.
#[test]
fn ags_are_changed_side_by_side() {
    if require(oracle::MOUNT).is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = image(dir.path(), 400);
    let fs = Filesystem::open(&Devices::data(&path), &Options::default()).expect("a filesystem");
    let g = fs.geometry().clone();
    // Directories are spread over the AGs.
    let made: Vec<Handle> =
        (0..8).map(|n| fs.root().mkdir(format!("d{n}").as_bytes(), &New::mode(0o755)).expect("made")).collect();
    let one = made.into_iter().find(|d| g.split_ino(d.ino()).0 == AgNumber(1)).expect("a directory in AG 1");
    one.create(b"first", &New::mode(0o644)).expect("a file, and its chunk");
    let volume = fs.volume();
    let lock = |n, kind| {
        let key = BlockKey::one(volume.data, g.header_daddr(AgNumber(0), n), g.sector_size / 512);
        volume.cache.write(&key, &Want::new(kind, OnDamage::Fail), &g).expect("a header")
    };
    let held = (lock(2, &AGI), lock(1, &AGF));
    let (done, wait) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        for n in 0..50 {
            let file = one.create(format!("f{n}").as_bytes(), &New::mode(0o644)).expect("made");
            file.write_at(&[7; 5000], 0).expect("written");
        }
        one.unlink(b"first").expect("unlinked");
        done.send(()).expect("somebody waits");
    });
    wait.recv_timeout(Duration::from_secs(60)).expect("it does not wait for the other AG");
    drop(held);
    worker.join().expect("a thread");
    fs.close().expect("closed");
}

/// A change waits while the filesystem is frozen, and goes on then.
#[test]
fn changes_wait_for_a_thaw() {
    if require(oracle::MOUNT).is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = image(dir.path(), 320);
    let fs = Filesystem::open(&Devices::data(&path), &Options::default()).expect("a filesystem");
    fs.root().create(b"before", &New::mode(0o644)).expect("made");
    fs.freeze().expect("frozen");
    let (done, wait) = mpsc::channel();
    let other = fs.clone();
    let worker = std::thread::spawn(move || {
        other.root().create(b"after", &New::mode(0o644)).expect("made");
        done.send(()).expect("somebody waits");
    });
    assert!(wait.recv_timeout(Duration::from_millis(300)).is_err(), "it was changed while it was frozen");
    let v = oracle::xfs_repair_n(&path, &[]).expect("xfs_repair");
    assert!(v.clean(), "{}", v.output);
    assert!(fs.root().lookup(b"before").is_ok(), "it can be read");
    fs.thaw().expect("thawed");
    worker.join().expect("a thread");
    fs.close().expect("closed");
}

/// Where there is no space that is said, nothing is left of what failed, and there is space again when something goes.
#[test]
fn no_space_leaves_no_trace() {
    if require(oracle::MOUNT).is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = image(dir.path(), 300);
    let fs = Filesystem::open(&Devices::data(&path), &Options::default()).expect("a filesystem");
    let free = fs.statfs().free;
    let root = fs.root();
    let big = root.create(b"big", &New::mode(0o644)).expect("made");
    let (chunk, mut at) = (vec![3; 4 << 20], 0);
    loop {
        match big.write_at(&chunk, at) {
            Ok(n) => at += n as u64,
            Err(Error::NoSpace(_)) => break,
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(big.stat().expect("an inode").size, at);
    let mut made = 0;
    let failed = loop {
        let name = format!("{made:06}{}", "n".repeat(200));
        match root.create(name.as_bytes(), &New::mode(0o644)) {
            Ok(_) => made += 1,
            Err(e) => break (e, name),
        }
        assert!(made < 200_000, "it does not get full");
    };
    assert!(matches!(failed.0, Error::NoSpace(_)), "{}", failed.0);
    assert!(matches!(root.lookup(failed.1.as_bytes()), Err(Error::NotFound(_))));
    assert_eq!(root.read_dir().expect("a directory").count(), made + 3);
    big.truncate(0).expect("truncated");
    // What was freed may be used for contents when that is durable.
    fs.sync().expect("synced");
    root.create(failed.1.as_bytes(), &New::mode(0o644)).expect("there is space again");
    root.unlink(b"big").expect("unlinked");
    for n in 0..=made {
        root.unlink(format!("{n:06}{}", "n".repeat(200)).as_bytes()).expect("unlinked");
    }
    drop((big, root));
    let now = fs.statfs().free;
    assert!(now + 100 > free, "{free} blocks were free, {now} are");
    fs.close().expect("closed");
    verify(&path, &Default::default(), true);
}
