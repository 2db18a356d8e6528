//! What the library shows of a filesystem, in the words of a corpus manifest.

use std::collections::BTreeMap;

use libxfsr::cache::OnDamage;
use libxfsr::format::inode::{Fork, device_numbers, fork_bytes};
use libxfsr::inode::{Inode, read_at, symlink_target};
use libxfsr::units::Ino;
use libxfsr::volume::{Devices, Volume};
use libxfsr::{attr, dir, error::ForkKind};
use sha2::{Digest as _, Sha256};

use crate::corpus::{Entry, manifest};

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
///
/// # Panics
/// Where anything cannot be read.
pub fn walk(volume: &Volume) -> Vec<Entry> {
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

/// Opens an image.
///
/// # Panics
/// Where that fails.
pub fn open(devices: &crate::oracle::Devices) -> Volume {
    let devices = Devices { data: devices.data.clone(), log: devices.log.clone(), realtime: devices.rt.clone() };
    Volume::open(&devices).expect("a volume")
}
