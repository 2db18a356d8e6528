//! A new inode is what the kernel makes in the same directory: flags, hints, groups and projects that are handed down, forks, link counts.

use libxfsr::control::Control;
use libxfsr::engine::{Filesystem, New, Node, Options, Targets};
use libxfsr::error::ForkKind;
use libxfsr::format::inode::{Dinode, fork_bytes};
use libxfsr::target::{Access, FileTarget};
use std::path::Path;
use std::sync::Arc;
use xfsr_tests::changing::{assert_clean, kernel_made};
use xfsr_tests::oracle::{require, xfs_io};
use xfsr_tests::run;

const DIRECTORIES: [&str; 5] = ["plain", "hints", "flags", "group", "project"];

/// Directories of all sorts, and in each what the kernel makes there.
fn fill(root: &Path) {
    for name in DIRECTORIES {
        std::fs::create_dir(root.join(name)).expect("a directory");
    }
    xfs_io(&root.join("hints"), &["extsize 64k", "cowextsize 32k"]).expect("hints");
    xfs_io(&root.join("flags"), &["chattr +Adsf"]).expect("flags");
    xfs_io(&root.join("project"), &["chproj 70001", "chattr +P"]).expect("a project");
    let group = root.join("group");
    run("chgrp", &["77", group.to_str().expect("a name")]).expect("chgrp");
    run("chmod", &["2775", group.to_str().expect("a name")]).expect("chmod");
    for name in DIRECTORIES {
        let within = |what: &str| root.join(name).join(what).to_str().expect("a name").to_owned();
        run("mkdir", &["-m", "755", &within("k-dir")]).expect("mkdir");
        run("mknod", &["-m", "644", &within("k-char"), "c", "5", "300"]).expect("mknod");
        run("mknod", &["-m", "644", &within("k-block"), "b", "7", "70000"]).expect("mknod");
        run("mkfifo", &["-m", "644", &within("k-fifo")]).expect("mkfifo");
        run("ln", &["-s", "where", &within("k-short")]).expect("ln");
        run("ln", &["-s", &"x".repeat(500), &within("k-long")]).expect("ln");
        std::fs::write(within("k-file"), b"").expect("a file");
        run("chmod", &["644", &within("k-file")]).expect("chmod");
    }
}

/// What may not differ.
fn told(bytes: &[u8]) -> Vec<(&'static str, u64)> {
    let d = Dinode::from_bytes(bytes).expect("long enough");
    let dev = if d.is_special() { fork_bytes(bytes, ForkKind::Data)[..4].to_vec() } else { vec![0; 4] };
    vec![
        ("mode", d.mode.get().into()),
        ("version", d.version.into()),
        ("format", d.format.into()),
        ("uid", d.uid.get().into()),
        ("gid", d.gid.get().into()),
        ("nlink", d.nlink.get().into()),
        ("project", d.project().into()),
        ("size", d.size.get()),
        ("nblocks", d.nblocks.get()),
        ("extsize", d.extsize.get().into()),
        ("cowextsize", d.cowextsize.get().into()),
        ("forkoff", d.forkoff.into()),
        ("aformat", d.aformat.into()),
        ("flags", d.flags.get().into()),
        ("flags2", d.flags2.get()),
        ("extents", d.extents(ForkKind::Data)),
        ("device", u32::from_be_bytes([dev[0], dev[1], dev[2], dev[3]]).into()),
    ]
}

#[test]
fn new_inodes_are_what_the_kernel_makes() {
    if require(&["mkfs.xfs", "xfs_io"]).is_none() {
        return;
    }
    for mkfs in
        [&["-m", "rmapbt=1", "-i", "nrext64=1"][..], &["-m", "bigtime=0,finobt=0,inobtcount=0", "-i", "size=1024"]]
    {
        let directory = tempfile::tempdir().expect("a directory");
        let image = kernel_made(directory.path(), 320, mkfs, fill);
        let data = Arc::new(FileTarget::open(&image, Access::Write).expect("an image"));
        let targets = Targets { data, log: None, rt: None };
        let (fs, _) = Filesystem::from_targets(&targets, &Options::default(), &Control::none()).expect("a filesystem");
        let new = |permissions| New { permissions, uid: 0, gid: 0 };
        let mut different = Vec::new();
        for name in DIRECTORIES {
            let parent = fs.root().lookup(name.as_bytes()).expect("a directory");
            let char_device = Node::Char(5, 300);
            let block_device = Node::Block(7, 70_000);
            let ours = [
                ("dir", parent.mkdir(b"o-dir", &new(0o755))),
                ("char", parent.mknod(b"o-char", char_device, &new(0o644))),
                ("block", parent.mknod(b"o-block", block_device, &new(0o644))),
                ("fifo", parent.mknod(b"o-fifo", Node::Fifo, &new(0o644))),
                ("short", parent.symlink(b"o-short", b"where", &new(0o777))),
                ("long", parent.symlink(b"o-long", &[b'x'; 500], &new(0o777))),
                ("file", parent.create(b"o-file", &new(0o644))),
            ];
            for (kind, made) in ours {
                let made = made.unwrap_or_else(|e| panic!("{name} {kind}: {e}"));
                let theirs = parent.lookup(format!("k-{kind}").as_bytes()).expect("the kernel's");
                let bytes = |ino| fs.volume().inode_bytes(ino).expect("an inode");
                let (a, b) = (told(&bytes(made.ino())), told(&bytes(theirs.ino())));
                let other = a.iter().zip(&b).filter(|(a, b)| a != b);
                different
                    .extend(other.map(|(a, b)| format!("{name} {kind}: {} {:#x}, the kernel's {:#x}", a.0, a.1, b.1)));
            }
        }
        assert!(different.is_empty(), "{mkfs:?}: {different:#?}");
        fs.close().expect("closed");
        assert_clean("created", &image);
    }
}
