//! What the library reads equals what the kernel showed of the same image through a mount.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use libxfsr::cache::OnDamage;
use libxfsr::check::{Verdict, check};
use libxfsr::control::Control;
use libxfsr::engine::{View, replayed_view};
use libxfsr::format::inode::{Fork, device_numbers, fork_bytes};
use libxfsr::format::log::items::{AttriFormat, ItemType, MapExtent, XmiFormat, intent_extents};
use libxfsr::inode::{Inode, read_at, symlink_target};
use libxfsr::journal::PendingIntent;
use libxfsr::target::{Access, FileTarget, Target};
use libxfsr::units::Ino;
use libxfsr::volume::{Devices, Volume};
use libxfsr::{attr, dir, error::ForkKind};
use sha2::{Digest as _, Sha256};
use xfsr_tests::corpus::{self, Entry, manifest};
use zerocopy::FromBytes as _;

fn sha256(volume: &Volume, inode: &Inode) -> String {
    let (mut sum, mut buf, mut at) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let n = read_at(volume, inode, at, &mut buf).expect("contents");
        if n == 0 {
            return manifest::hex(&sum.finalize());
        }
        sum.update(&buf[..n]);
        at += n as u64;
    }
}

/// As Linux lists them: ACLs appear once more under the names that they have there, in Linux's own layout.
fn xattrs(volume: &Volume, inode: &Inode) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut all = BTreeMap::new();
    for a in attr::list(volume, inode).expect("attributes") {
        if let Some(name) = a.acl_name() {
            all.insert(name.to_vec(), a.acl_value().expect("an access control list"));
        }
        if let Some(name) = a.linux_name() {
            all.insert(name, a.value);
        }
    }
    all
}

fn nanos(t: libxfsr::format::inode::Timestamp, bigtime: bool) -> i128 {
    let (s, n) = t.decode(bigtime);
    i128::from(s) * 1_000_000_000 + i128::from(n)
}

fn seen(volume: &Volume, ino: Ino, path: &[u8], hashes: &mut BTreeMap<u64, String>) -> Entry {
    let inode = Inode::read(volume, ino, OnDamage::Fail).expect("a right inode");
    let c = &inode.core;
    use libxfsr::format::inode::FileKind as K;
    let kind = match c.kind().expect("an inode in use") {
        K::Regular => "file",
        K::Directory => "dir",
        K::Symlink => "symlink",
        K::Fifo => "fifo",
        K::Socket => "socket",
        K::CharDevice => "char",
        K::BlockDevice => "block",
    };
    let hash = c.is_reg() && inode.size() <= manifest::HASH_LIMIT;
    let sha256 = hash.then(|| hashes.entry(ino.0).or_insert_with(|| sha256(volume, &inode)).clone());
    let device = matches!(kind, "char" | "block");
    assert_eq!(
        device || matches!(kind, "fifo" | "socket"),
        matches!(Fork::of(&inode.bytes, ForkKind::Data), Ok(Fork::Dev(..)))
    );
    Entry {
        path: path.to_vec(),
        kind: kind.to_owned(),
        ino: ino.0,
        mode: u32::from(c.mode.get()),
        uid: c.uid.get(),
        gid: c.gid.get(),
        nlink: u64::from(c.nlink.get()),
        size: c.size.get(),
        blocks: c.nblocks.get() << volume.geometry.bb_shift(),
        mtime: nanos(c.mtime, c.bigtime()),
        ctime: nanos(c.ctime, c.bigtime()),
        rdev: device.then(|| device_numbers(fork_bytes(&inode.bytes, ForkKind::Data)).expect("a device number")),
        target: c.is_symlink().then(|| symlink_target(volume, &inode).expect("a target")),
        sha256,
        xattrs: xattrs(volume, &inode),
    }
}

/// The tree below the root, as the manifest has it: names in byte order, each directory before what is in it.
fn walk(volume: &Volume) -> Vec<Entry> {
    let (mut all, mut hashes) = (Vec::new(), BTreeMap::new());
    let mut stack = vec![(volume.geometry.root_ino, Vec::new())];
    while let Some((ino, path)) = stack.pop() {
        let entry = seen(volume, ino, &path, &mut hashes);
        if entry.kind == "dir" {
            let inode = Inode::read(volume, ino, OnDamage::Fail).expect("a directory");
            let mut names = dir::entries(volume, &inode).expect("its entries");
            names.retain(|e| e.name != b"." && e.name != b"..");
            names.sort_unstable_by(|a, b| b.name.cmp(&a.name));
            for e in names {
                let prefix = if path.is_empty() { Vec::new() } else { [&path[..], b"/"].concat() };
                stack.push((e.ino, [prefix, e.name].concat()));
            }
        }
        all.push(entry);
    }
    all
}

fn open(devices: &xfsr_tests::oracle::Devices) -> Volume {
    let devices = Devices { data: devices.data.clone(), log: devices.log.clone(), realtime: devices.rt.clone() };
    Volume::open(&devices).expect("a volume")
}

#[test]
fn every_image_reads_as_the_kernel_showed_it() {
    for recipe in corpus::selected().filter(|r| r.end != corpus::End::Dirty) {
        let Some(devices) = corpus::obtain(recipe.name) else { continue };
        let volume = open(&devices);
        let mut acls = 0;
        let (found, expected) = (walk(&volume), corpus::manifest(recipe.name));
        assert_eq!(found.len(), expected.len(), "{}: number of files", recipe.name);
        for (f, e) in found.iter().zip(expected) {
            acls += e.xattrs.keys().filter(|n| n.starts_with(b"system.posix_acl_")).count();
            assert_eq!(*f, e, "{}: {}", recipe.name, libxfsr::text::escape(&f.path));
        }
        assert!(
            acls > 0 || !recipe.parts.contains(&corpus::Part::Attributes),
            "{}: no access control list",
            recipe.name
        );
    }
}

#[test]
fn every_path_is_found_through_the_index() {
    for recipe in corpus::selected().filter(|r| r.end != corpus::End::Dirty) {
        let Some(devices) = corpus::obtain(recipe.name) else { continue };
        let volume = open(&devices);
        let root = volume.geometry.root_ino;
        for e in corpus::manifest(recipe.name) {
            let found = dir::resolve(&volume, root, &e.path);
            assert_eq!(found.ok(), Some(Ino(e.ino)), "{}: {}", recipe.name, libxfsr::text::escape(&e.path));
        }
        assert!(dir::resolve(&volume, root, b"/there is no such name").is_err());
    }
}

#[test]
fn names_are_handed_over_until_the_caller_breaks() {
    let Some(devices) = corpus::obtain("default") else { return };
    let volume = open(&devices);
    let root = Inode::read(&volume, volume.geometry.root_ino, OnDamage::Fail).expect("the root directory");
    let mut n = 0;
    dir::for_each(&volume, &root, OnDamage::Keep, &mut |_| {
        n += 1;
        if n == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .expect("entries");
    assert_eq!(n, 3);
}

/// What physical replay makes of the log, seen through an overlay.
fn recovered(devices: &xfsr_tests::oracle::Devices) -> View {
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

#[test]
fn dirty_images_read_after_replay_as_the_kernel_showed_them_after_its_own() {
    for recipe in corpus::selected().filter(|r| r.end == corpus::End::Dirty) {
        let Some(devices) = corpus::obtain(recipe.name) else { continue };
        let View { volume, replayed, .. } = recovered(&devices);
        println!("{}: {:?}, {} intents pending", recipe.name, replayed.done, replayed.pending.len());
        assert!(replayed.done.transactions > 10 && replayed.done.inodes > 100, "{}: too little to show", recipe.name);
        let unfinished = unfinished(&replayed.pending);
        let (found, expected) = (walk(&volume), corpus::manifest(recipe.name));
        assert_eq!(found.len(), expected.len(), "{}: number of files", recipe.name);
        for (f, e) in found.iter().zip(expected) {
            if !unfinished.contains(&e.ino) {
                assert_eq!(*f, e, "{}: {}", recipe.name, libxfsr::text::escape(&f.path));
            }
        }
        let outcome = check(&volume, &Control::none()).expect("a check");
        assert_ne!(outcome.verdict(), Verdict::DirtyLog, "{}", recipe.name);
        // What the mount after replay frees, and what its deferred work ends, is there.
        let cut_off = ["agi.unlinked.extra", "xattr.flags.flags", "refcountbt.recs.extra"];
        for f in outcome.findings.iter().filter(|_| replayed.pending.is_empty()) {
            assert!(cut_off.contains(&f.code().as_str()), "{}: {f}", recipe.name);
        }
    }
}
