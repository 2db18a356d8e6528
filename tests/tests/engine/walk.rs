//! The tree as an open filesystem shows it, in the words of a corpus manifest.

use libxfsr::engine::{Filesystem, Handle, Time};
use libxfsr::format::inode::FileKind;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use xfsr_tests::corpus::{Entry, manifest};

fn sha256(file: &Handle) -> String {
    let (mut sum, mut buf, mut at) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let n = file.read_at(&mut buf, at).expect("contents");
        if n == 0 {
            return manifest::hex(&sum.finalize());
        }
        sum.update(&buf[..n]);
        at += n as u64;
    }
}

fn xattrs(file: &Handle) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut all = BTreeMap::new();
    for a in file.xattrs().expect("attributes") {
        if let Some(name) = a.acl_name() {
            all.insert(name.to_vec(), file.xattr(name).expect("an ACL").expect("that was listed"));
        }
        let name = a.linux_name().expect("no parent pointer");
        assert_eq!(file.xattr(&name).expect("an attribute"), Some(a.value.clone()));
        all.insert(name, a.value);
    }
    all
}

fn nanos(t: Time) -> i128 {
    i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos)
}

/// One file.
pub(crate) fn entry(file: &Handle, path: &[u8]) -> Entry {
    let s = file.stat().expect("an inode");
    let (kind, bits) = match s.kind {
        FileKind::Regular => ("file", 0o100_000),
        FileKind::Directory => ("dir", 0o040_000),
        FileKind::Symlink => ("symlink", 0o120_000),
        FileKind::Fifo => ("fifo", 0o010_000),
        FileKind::Socket => ("socket", 0o140_000),
        FileKind::CharDevice => ("char", 0o020_000),
        FileKind::BlockDevice => ("block", 0o060_000),
    };
    Entry {
        path: path.to_vec(),
        kind: kind.to_owned(),
        ino: s.ino.0,
        mode: u32::from(s.permissions) | bits,
        uid: s.uid,
        gid: s.gid,
        nlink: s.nlink.into(),
        size: s.size,
        blocks: s.allocated / 512,
        mtime: nanos(s.mtime),
        ctime: nanos(s.ctime),
        rdev: s.device,
        target: (kind == "symlink").then(|| file.readlink().expect("a target")),
        sha256: (kind == "file" && s.size <= manifest::HASH_LIMIT).then(|| sha256(file)),
        xattrs: xattrs(file),
    }
}

/// The whole tree: names in byte order, each directory before what is in it.
pub(crate) fn walk(fs: &Filesystem) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut stack = vec![(fs.root(), Vec::new())];
    while let Some((file, path)) = stack.pop() {
        let entry = entry(&file, &path);
        if entry.kind == "dir" {
            let names = file.read_dir().expect("a directory").map(|e| e.expect("an entry").name);
            let mut names: Vec<_> = names.filter(|n| n != b"." && n != b"..").collect();
            names.sort_unstable_by(|a, b| b.cmp(a));
            for name in names {
                let prefix = if path.is_empty() { Vec::new() } else { [&path[..], b"/"].concat() };
                stack.push((file.lookup(&name).expect("a name that was listed"), [prefix, name].concat()));
            }
        }
        all.push(entry);
    }
    all
}
