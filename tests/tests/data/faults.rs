//! Damaged maps, and devices that fail: an error, nothing worse, and nothing that recovery cannot finish.

use super::SMALL;
use libxfsr::Error;
use libxfsr::btree::kinds::Bmap;
use libxfsr::btree::{self, Ptr};
use libxfsr::cache::OnDamage;
use libxfsr::check::{self, Verdict};
use libxfsr::control::Control;
use libxfsr::engine::replayed_view;
use libxfsr::error::{ForkKind, Result};
use libxfsr::format::btree::BMBT_BLOCK;
use libxfsr::format::inode::seal_dinode;
use libxfsr::inode::fork::ForkStore;
use libxfsr::inode::{FileMut, Inode};
use libxfsr::space::Space;
use libxfsr::target::{Access, Fault, Faulty, FileTarget, On, Overlay, Target};
use libxfsr::txn::{DirtySink, Scope};
use libxfsr::units::{FsBlock, Ino, Lsn};
use libxfsr::volume::Volume;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xfsr_tests::changing::{Changing, Commits, kernel_made};
use xfsr_tests::oracle::{MOUNT, require, xfs_io};

/// A file of many extents, one of few, and one that shares blocks with the first.
fn fill(root: &Path) {
    for (name, pieces) in [("many", 900), ("few", 8)] {
        let file = std::fs::File::create(root.join(name)).expect("a file");
        for i in 0..pieces {
            file.write_all_at(&[i as u8; 1024], i * 3072).expect("written");
        }
        file.sync_all().expect("on the device");
    }
    let shared = root.join("shared");
    std::fs::write(&shared, b"").expect("a file");
    xfs_io(&shared, &[format!("reflink {}", root.join("many").display())]).expect("xfs_io");
}

fn named(volume: &Volume, name: &str) -> Ino {
    let root = Inode::read(volume, volume.geometry.root_ino, OnDamage::Fail).expect("the root");
    let entries = libxfsr::dir::entries(volume, &root).expect("entries");
    entries.into_iter().find(|e| e.name == name.as_bytes()).expect("a name").ino
}

/// One change of `a`, with `b` as the other file where there is one.
fn act(scope: &Scope, space: &Arc<Space>, a: Ino, b: Ino, what: u32, at: u64) -> Result<()> {
    let (first, second) = (scope.contents().lock(a.min(b)), scope.contents().lock(a.max(b)));
    let (la, lb) = if a < b { (&first, &second) } else { (&second, &first) };
    let (file, other) = (FileMut::new(scope, space, la).at(1_800_000_000, 1), FileMut::new(scope, space, lb));
    match what {
        0 => file.write_at(at + 100, &[1; 5000]).map(drop),
        1 => file.truncate(at),
        2 => file.punch(at, 30_000),
        3 => file.allocate(at, 60_000, true),
        4 => file.zero(at, 40_000, false),
        5 => file.collapse(at, 8192),
        6 => file.insert(at, 4096),
        7 => file.clone_range(at, &other, 0, 8192),
        8 => file.unshare(0, 1 << 20),
        _ => file.truncate(0),
    }
}

/// Bytes of a map are changed, its checksums are right.
#[test]
fn damaged_maps_are_told() {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = kernel_made(directory.path(), 300, SMALL.0, fill);
    let file: Arc<dyn Target> = Arc::new(FileTarget::open(&image, Access::Read).expect("an image"));
    let mut rng = ChaCha8Rng::seed_from_u64(41);
    let (mut told, mut done) = (0, 0);
    for n in 0..xfsr_tests::cases("XFSR_DAMAGES", 45, 20) {
        let overlay = Arc::new(Overlay::new(file.clone()).expect("memory"));
        let open = || Arc::new(Volume::from_targets(overlay.clone(), None, None, 8 << 20).expect("a filesystem"));
        let volume = open();
        let many = named(&volume, if n % 3 == 0 { "few" } else { "many" });
        let other = named(&volume, "shared");
        let inode = Inode::read(&volume, many, OnDamage::Fail).expect("an inode");
        let mut blocks: Vec<Ptr> = Vec::new();
        if n % 3 != 0 {
            let store = ForkStore::new(&volume, many, &inode.bytes, ForkKind::Data);
            let control = Control::none();
            btree::check::<Bmap, _>(&store, &control, &mut |at, _| blocks.push(at), &mut |_| {}, &mut |_| {})
                .expect("a tree");
        }
        let change = |bytes: &mut [u8], from: usize, rng: &mut ChaCha8Rng| {
            for _ in 0..rng.random_range(1..4) {
                // The header or the first entries, most of the time.
                let to = if rng.random_bool(0.7) { (from + 80).min(bytes.len()) } else { bytes.len() };
                bytes[rng.random_range(from..to)] ^= 1 << rng.random_range(0..8);
            }
        };
        if n % 4 == 0 || blocks.is_empty() {
            let mut bytes = inode.bytes.clone();
            // Extent counters and size of the core, or the fork.
            if rng.random_bool(0.4) {
                change(&mut bytes[..84], 56, &mut rng);
            } else {
                change(&mut bytes, 176, &mut rng);
            }
            seal_dinode(&mut bytes, Lsn(inode.core.lsn.get()));
            let at = volume.geometry.ino_to_offset(many).expect("a place");
            overlay.write_at(&bytes, at).expect("memory");
        } else {
            let at = blocks[rng.random_range(0..blocks.len())];
            let offset = volume.geometry.fsblock_to_daddr(FsBlock(at.0)).expect("a block").bytes();
            let mut bytes = vec![0; volume.geometry.block_size as usize];
            overlay.read_at(&mut bytes, offset).expect("read");
            change(&mut bytes, 4, &mut rng);
            let lsn = (BMBT_BLOCK.lsn)(&bytes).expect("an LSN");
            (BMBT_BLOCK.seal)(&mut bytes, lsn);
            overlay.write_at(&bytes, offset).expect("memory");
        }
        let volume = open();
        let space = Space::open(&volume).expect("headers");
        let scope = Scope::new(volume.clone(), Arc::new(DirtySink { lsn: Lsn::new(1, 8) }));
        for _ in 0..6 {
            let (what, at) = (rng.random_range(0..10), rng.random_range(0..600) * 4096);
            match act(&scope, &space, many, other, what, at) {
                Ok(()) => done += 1,
                Err(Error::Corrupt(_) | Error::Invalid(_) | Error::NoSpace(_)) => told += 1,
                Err(e) => panic!("damage {n}: {e}"),
            }
        }
        // Another file is none the worse.
        let few = named(&volume, if n % 3 == 0 { "many" } else { "few" });
        act(&scope, &space, few, other, 0, 4096).expect("written");
    }
    println!("{told} told, {done} done");
    assert!(told > 50 && done > 50);
}

/// One call of the device fails, at every kind of operation: recovery then finds a filesystem that the check calls clean.
#[test]
fn a_device_that_fails_leaves_what_recovery_finishes() {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image: PathBuf = kernel_made(directory.path(), 300, SMALL.0, fill);
    let mut rng = ChaCha8Rng::seed_from_u64(42);
    let mut failures = 0;
    for n in 0..xfsr_tests::cases("XFSR_FAULTS", 16, 20) {
        let mut faulty = None;
        let commits = if n % 2 == 0 { Commits::Forced } else { Commits::Gathered };
        let changing = Changing::open_with(&image, commits, |recorder| {
            let f = Arc::new(Faulty::new(recorder));
            faulty = Some(f.clone());
            f
        });
        let faulty = faulty.expect("made");
        let (many, shared) = (named(&changing.volume, "many"), named(&changing.volume, "shared"));
        let (on, most) = [(On::Read, 30), (On::Write, 60), (On::Flush, 20)][rng.random_range(0..3)];
        faulty.add(on, rng.random_range(0..most), if rng.random_bool(0.5) { Fault::Error } else { Fault::Gone });
        let mut failed = None;
        for _ in 0..12 {
            let (what, at) = (rng.random_range(0..9), rng.random_range(0..600) * 4096);
            match act(&changing.scope, &changing.space, many, shared, what, at) {
                Ok(()) | Err(Error::Invalid(_)) if changing.journal.sync().is_ok() => {}
                other => {
                    failed = Some(other);
                    break;
                }
            }
        }
        failures += usize::from(failed.is_some());
        let end = changing.now();
        for kind in 0..3 {
            let view =
                replayed_view(Arc::new(changing.crash(end, kind)), None, None, &Control::none()).expect("a view");
            assert!(view.unfinished.is_none(), "{:?} after {failed:?}", view.unfinished);
            let outcome = check::check(&view.volume, &Control::none()).expect("a check");
            let first = outcome.findings.first();
            assert!(outcome.verdict() == Verdict::Clean, "fault {n} {on:?}, {failed:?}: {first:?}");
        }
    }
    println!("{failures} failures");
    assert!(failures > 8);
}
