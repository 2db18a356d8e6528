//! What replay makes of a dirty log equals what the kernel's recovery makes of it.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use libxfsr::check::{Verdict, check};
use libxfsr::control::Control;
use libxfsr::engine::{View, replayed_view};
use libxfsr::format::log::items::{AttriFormat, ItemType, MapExtent, XmiFormat, intent_extents};
use libxfsr::journal::{self, PendingIntent};
use libxfsr::target::{Access, FileTarget, Target};
use libxfsr::units::Lsn;
use xfsr_tests::corpus::{self, Entry, manifest};
use xfsr_tests::oracle::{Devices, Mount};
use xfsr_tests::view::{open, walk};
use zerocopy::FromBytes as _;

/// What physical replay makes of the log, seen through an overlay.
fn recovered(devices: &Devices) -> View {
    let target =
        |p: &std::path::Path| -> Arc<dyn Target> { Arc::new(FileTarget::open(p, Access::Read).expect("a target")) };
    let [log, rt] = [&devices.log, &devices.rt].map(|d| d.as_deref().map(target));
    replayed_view(target(&devices.data), log, rt, &Control::none()).expect("replay")
}

/// Inodes whose contents deferred work still changes.
fn unfinished(pending: &[PendingIntent]) -> BTreeSet<u64> {
    let mut inodes = BTreeSet::new();
    for p in pending {
        let first = p.regions.first().map_or(&[][..], Vec::as_slice);
        match p.kind {
            ItemType::Bui => {
                let (_, extents) = intent_extents::<MapExtent>(first).expect("a verified item");
                inodes.extend(extents.iter().map(|e| e.owner.get()));
            }
            ItemType::Xmi => {
                let (x, _) = XmiFormat::read_from_prefix(first).expect("a verified item");
                inodes.extend([x.ino1.get(), x.ino2.get()]);
            }
            ItemType::Attri => {
                let (a, _) = AttriFormat::read_from_prefix(first).expect("a verified item");
                inodes.insert(a.ino.get());
            }
            _ => {}
        }
    }
    inodes
}

/// The tree that replay gives against the one that the kernel showed; what is unfinished may differ.
fn same(name: &str, view: &View, expected: &[Entry], torn: bool) {
    assert!(view.uncounted.is_none(), "{name}: {:?}", view.uncounted);
    let unfinished = unfinished(&view.replayed.pending);
    let found = walk(&view.volume);
    assert_eq!(found.len(), expected.len(), "{name}: number of files");
    for (f, e) in found.iter().zip(expected) {
        if !unfinished.contains(&e.ino) {
            assert_eq!(f, e, "{name}: {}", libxfsr::text::escape(&f.path));
        }
    }
    let outcome = check(&view.volume, &Control::none()).expect("a check");
    assert_ne!(outcome.verdict(), Verdict::DirtyLog, "{name}");
    // What the disk has newer than the log's records came from a record that a test tore afterwards, as no power cut does.
    let torn_late = torn && view.replayed.done.newer > 0;
    assert!(view.unfinished.is_none(), "{name}: {:?}", view.unfinished);
    assert!(view.replayed.pending.is_empty() && view.recovered.left.is_empty(), "{name}: {}", view.recovered);
    let codes: BTreeSet<String> = outcome.findings.iter().map(|f| f.code()).collect();
    let judged = if torn_late { "not judged" } else { "judged" };
    println!("{name}: {}; {} findings {judged}: {codes:?}", view.recovered, outcome.findings.len());
    // Linux leaves it, too: an attribute that was being set and has no value yet is not there for anybody.
    let mut left = outcome.findings.iter().filter(|f| f.code() != "xattr.flags.flags");
    if let Some(f) = left.next().filter(|_| !torn_late) {
        panic!("{name}: {f}");
    }
}

#[test]
fn dirty_images_read_after_replay_as_the_kernel_showed_them_after_its_own() {
    for recipe in corpus::selected().filter(|r| r.end == corpus::End::Dirty) {
        let Some(devices) = corpus::obtain(recipe.name) else { continue };
        let view = recovered(&devices);
        println!("{}: {:?}, {} intents pending", recipe.name, view.replayed.done, view.replayed.pending.len());
        let done = &view.replayed.done;
        assert!(done.transactions > 10 && done.inodes > 100, "{}: too little to show", recipe.name);
        same(recipe.name, &view, &corpus::manifest(recipe.name), false);
    }
}

/// The records of an image's log, oldest first: where each starts, and its length in blocks.
fn records(devices: &Devices) -> Vec<(Lsn, u64)> {
    let mut all = Vec::new();
    journal::records(&open(devices), &Control::none(), &mut |r| {
        all.push((r.lsn, r.blocks));
        Ok(ControlFlow::Continue(()))
    })
    .expect("a log to read");
    all
}

/// What a power cut can do to the last records of a log: each is one change of bytes, (block of the record, what is written there).
fn cuts(all: &[(Lsn, u64)]) -> Vec<(&'static str, Lsn, u64, Cut)> {
    let [.., (older, older_blocks), (newest, blocks)] = *all else { panic!("two records at least") };
    vec![
        ("the newest record's last block is of the cycle before", newest, blocks - 1, Cut::Before),
        ("the newest record's header is of the cycle before", newest, 0, Cut::Before),
        ("a byte of the newest record is another one", newest, blocks / 2, Cut::Flip),
        ("a block of the record before the newest is of the cycle before", older, older_blocks / 2, Cut::Before),
        ("a byte of the record before the newest is another one", older, older_blocks - 1, Cut::Flip),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The block as the cycle before left it.
    Before,
    Flip,
}

/// Does that to an image.
fn cut(devices: &Devices, record: Lsn, block: u64, how: Cut) {
    let volume = open(devices);
    let g = &volume.geometry;
    let (path, start) = match &devices.log {
        Some(log) => (log, 0),
        None => (&devices.data, g.fsblock_to_daddr(g.log_start).expect("a log").bytes()),
    };
    let blocks = u64::from(g.log_blocks) << g.bb_shift();
    let at = u64::from(record.block()) + block;
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the log's device");
    let offset = start + at % blocks * 512;
    let mut bytes = [0; 512];
    file.read_exact_at(&mut bytes, offset).expect("a block");
    match how {
        Cut::Before => {
            let cycle = if at < blocks { record.cycle() - 1 } else { record.cycle() };
            bytes = [0; 512];
            bytes[..4].copy_from_slice(&cycle.to_be_bytes());
        }
        Cut::Flip => bytes[300] ^= 0x10,
    }
    file.write_all_at(&bytes, offset).expect("a block");
}

/// What the kernel makes of an image: it mounts it, which recovers it, and shows it.
fn recovered_by_kernel(devices: &Devices) -> Vec<Entry> {
    Mount::new(devices, "").expect("a mount").unmount().expect("an unmount");
    let mount = Mount::new(devices, "ro").expect("a mount");
    let entries = manifest::walk(mount.path()).expect("a walk");
    mount.unmount().expect("an unmount");
    entries
}

/// Replays a torn copy, and has the kernel recover another.
fn torn(name: &str, what: &str, record: Lsn, block: u64, how: Cut) -> u64 {
    let scratch = tempfile::tempdir_in(corpus::directory()).expect("a directory");
    let ours = corpus::copy(name, scratch.path());
    cut(&ours, record, block, how);
    let view = recovered(&ours);
    let expected = recovered_by_kernel(&ours);
    same(&format!("{name}, {what}"), &view, &expected, true);
    view.replayed.done.transactions
}

#[test]
fn torn_records_at_the_head_are_left_out_as_the_kernel_leaves_them_out() {
    let full = std::env::var_os("XFSR_FULL").is_some_and(|v| v == "1");
    for name in if full { &["dirty", "dirty-1k", "dirty-external-log", "dirty-stripes"][..] } else { &["dirty"] } {
        let Some(devices) = corpus::obtain(name) else { return };
        let whole = recovered(&devices).replayed.done.transactions;
        let all = records(&devices);
        let cuts = cuts(&all);
        for (what, record, block, how) in cuts.into_iter().take(if full { 5 } else { 3 }) {
            let transactions = torn(name, what, record, block, how);
            println!("{name}: {what}: {transactions} of {whole} transactions");
            assert!(transactions < whole, "{name}: {what}");
        }
    }
}
