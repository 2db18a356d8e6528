//! Attributes are shown, set and removed as xfs_db does it; the kernel and xfs_repair judge the end.

mod common;

use common::{Run, command};
use std::collections::BTreeMap;
use std::path::Path;
use xfsr_tests::corpus;
use xfsr_tests::oracle::{MOUNT, Mount, require, xfs_db, xfs_db_write, xfs_repair_n};

fn ours(options: &[&str], image: &Path, commands: &[&str]) -> Run {
    let mut all: Vec<std::ffi::OsString> = options.iter().map(Into::into).collect();
    for c in commands {
        all.extend(["-c".into(), c.into()]);
    }
    all.push(image.into());
    command(&all).output().expect("xfsr-db starts").into()
}

fn kernel(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).expect("a list");
    let names = list[..length].split(|b| *b == 0).filter(|n| !n.is_empty() && !n.starts_with(b"system."));
    let value = |name: &[u8]| {
        let mut value = vec![0; 65536];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("a value");
        value.truncate(length);
        value
    };
    names.map(|n| (n.to_vec(), value(n))).collect()
}

/// What both programs understand.
const SCRIPT: &[&str] = &[
    "path /attrs/short",
    "attr_set -v 10 ten",
    "attr_set -r -v 3 rooted",
    "attr_set -s -v 1 small",
    "attr_remove bin",
    "path /attrs/leaf",
    "attr_set -v 5000 remote",
    "attr_set -R -v 7 leaf-0001",
    "attr_remove leaf-0000",
    "path /attrs/node",
    "attr_set -C -v 700 new",
    "attr_set -v 65536 large",
    "attr_remove node-0003",
    "path /attrs/emptied",
    "attr_set -u -v 40 first",
    "path /",
    "attr_set -v 100 of-the-root",
];
const PATHS: &[&str] = &["attrs/short", "attrs/leaf", "attrs/node", "attrs/emptied", ""];

#[test]
fn attributes_are_set_and_removed_as_by_xfs_db() {
    if require(MOUNT).is_none() {
        return;
    }
    for name in ["default", "b1k-plain"] {
        let (mine, theirs) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let mine = (corpus::copy(name, mine.path()).data, mine);
        let theirs = (corpus::copy(name, theirs.path()).data, theirs);
        let done = ours(&["-x"], &mine.0, SCRIPT);
        assert_eq!((done.code, done.err.as_str(), done.text().as_str()), (0, "", ""), "{name}");
        xfs_db_write(&*theirs.0, SCRIPT).expect("xfs_db");
        let verdict = xfs_repair_n(&*mine.0, &[]).expect("xfs_repair");
        assert!(verdict.clean(), "{name}: {}", verdict.output);
        for form in ["path /attrs/short", "path /attrs/emptied"] {
            let printed = [form, "print a"];
            let stock = xfs_db(&*theirs.0, &printed).expect("xfs_db");
            assert_eq!(xfs_db(&*mine.0, &printed).expect("xfs_db"), stock, "{name}: {form}");
        }
        let seen = |image: &Path| -> Vec<_> {
            let mount = Mount::new(image, "ro").expect("a mount");
            let seen = PATHS.iter().map(|p| kernel(&mount.path().join(p))).collect();
            mount.unmount().expect("an unmount");
            seen
        };
        let (mine, theirs) = (seen(&mine.0), seen(&theirs.0));
        assert!(mine == theirs, "{name}: other attributes than xfs_db's");
        assert_eq!(mine[0].get(&b"user.ten"[..]).map(Vec::as_slice), Some(&b"vvvvvvvvvv"[..]));
    }
}

#[test]
fn attributes_are_shown() {
    let Some(devices) = corpus::obtain("default") else { return };
    let shown =
        ours(&[], &devices.data, &["path /attrs/short", "attr_list", "attr_list -r", "attr_get a", "attr_get -s s"]);
    let all = "user.a (1 bytes)\ntrusted.t (3 bytes)\nsecurity.s (0 bytes)\nuser.bin (3 bytes)\n";
    assert_eq!((shown.text(), shown.code), (format!("{all}trusted.t (3 bytes)\n1\n\"\"\n"), 0));
    for bad in ["attr_get none", "attr_get -r a", "attr_get", "attr_list -x", "attr_list a", "attr_get -r -s a"] {
        let run = ours(&[], &devices.data, &["path /attrs/short", bad]);
        assert!(run.code == 1 && !run.err.is_empty() && run.text().is_empty(), "{bad}: {run:?}");
    }
    let Some(devices) = corpus::obtain("parent") else { return };
    let shown = ours(&[], &devices.data, &["path /attrs/short", "attr_list -p", "attr_get -p short"]).text();
    assert!(shown.starts_with("parent.short (inode "), "{shown}");
}

#[test]
fn what_cannot_be_changed_is_left_alone() {
    let Some(devices) = corpus::obtain("default") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy("default", directory.path()).data;
    let before = std::fs::read(&image).expect("the image");
    let set = "attr_set -v 3 name";
    for (options, command, why) in [
        (&[][..], set, "-x"),
        (&["-x", "-r"], set, "-r"),
        (&["-x"], "attr_set -C a", "exists"),
        (&["-x"], "attr_set -R none", "not found"),
        (&["-x"], "attr_remove none", "not found"),
        (&["-x"], "attr_set -n a", "-n"),
        (&["-x"], "attr_set -v 65537 a", "65537"),
        (&["-x"], "attr_set -C -R a", "exclude"),
        (&["-x"], "attr_set -v 3 a value", "not both"),
        (&["-x"], "attr_set -r -u a", "namespace"),
        (&["-x"], "inode 5000000000; attr_set a", ""),
    ] {
        let run = ours(options, &image, &["path /attrs/short", command]);
        assert!(run.code == 1 && run.err.contains(why), "{command}: {}", run.err);
    }
    let dirty = corpus::obtain("dirty").expect("an image that is there with the others");
    let refused = directory.path().join("dirty");
    std::fs::copy(&dirty.data, &refused).expect("a copy");
    let run = ours(&["-x"], &refused, &["path /", set]);
    assert!(run.code == 1 && run.err.contains("log"), "{}", run.err);
    assert!(std::fs::read(&refused).expect("it") == std::fs::read(&dirty.data).expect("it"));
    // Opening the log to write erases what is stale in front of its head, and nothing else is written.
    let after = std::fs::read(&image).expect("the image");
    let text = ours(&[], &image, &["path /attrs/short", "attr_list"]).text();
    assert_eq!(text.lines().count(), 4);
    assert_eq!(before.len(), after.len());
    assert!(xfs_repair_n(&*image, &[]).expect("xfs_repair").clean());
    drop(devices);
}
