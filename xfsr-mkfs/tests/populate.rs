//! `-p`: the kernel mounts what was made, and its tree is that of the source; mkfs.xfs makes the same tree of the same prototype.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use xfsr_tests::corpus::{Entry, manifest};
use xfsr_tests::oracle::{self, Mount};

fn mkfs(words: &[&OsStr], env: &[(&str, &str)]) -> Output {
    let mut c = Command::new(env!("CARGO_BIN_EXE_xfsr-mkfs"));
    c.env_remove("SOURCE_DATE_EPOCH").args(["-q", "-f", "-d", "file,size=320m"]).args(words);
    c.envs(env.iter().copied()).output().expect("the program runs")
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// What the kernel shows, without what is the image's own: numbers of inodes, blocks, sizes of directories, times of change.
fn comparable(mut entries: Vec<Entry>, times: bool) -> Vec<Entry> {
    for e in &mut entries {
        (e.ino, e.ctime) = (0, 0);
        if e.kind == "dir" {
            e.size = 0;
        }
        e.blocks = 0;
        if !times {
            e.mtime = 0;
        }
    }
    entries
}

fn shown(image: &Path) -> Vec<Entry> {
    let v = oracle::xfs_repair_n(image, &[]).expect("xfs_repair");
    assert!(v.clean(), "{}", v.output);
    let mount = Mount::new(image, "ro").expect("a mount");
    let entries = manifest::walk(mount.path()).expect("a walk");
    mount.unmount().expect("unmounted");
    entries
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).expect("an attribute");
}

/// A tree with everything that a tree can have; on XFS, which keeps all of it.
fn build(top: &Path) {
    let write = |name: &[u8], bytes: &[u8]| std::fs::write(top.join(OsStr::from_bytes(name)), bytes).expect("a file");
    for dir in ["etc", "var/deep/deeper", "many", "empty"] {
        std::fs::create_dir_all(top.join(dir)).expect("a directory");
    }
    write(b"etc/hosts", b"127.0.0.1 localhost\n");
    write(b"name with\nnewline \x1b[31m and \xff", b"hostile");
    write(b"etc/empty", b"");
    write(b"large", &(0..3_000_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect::<Vec<_>>()[..9_000_001]);
    for n in 0..3000 {
        write(format!("many/file-{n:05}-with-a-longer-name").as_bytes(), format!("{n}").as_bytes());
    }
    std::fs::hard_link(top.join("etc/hosts"), top.join("var/hosts")).expect("a link");
    std::fs::hard_link(top.join("etc/hosts"), top.join("zz-hosts")).expect("a link");
    symlink("../etc/hosts", top.join("var/link")).expect("a link");
    symlink("t".repeat(900), top.join("long-link")).expect("a link");
    let sparse = std::fs::File::create(top.join("sparse")).expect("a file");
    sparse.set_len(1 << 33).expect("a length");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 5 << 30).expect("written");
    let node = |name: &str, kind, device| {
        let mode = rustix::fs::Mode::from_raw_mode(0o640);
        rustix::fs::mknodat(rustix::fs::CWD, top.join(name), kind, mode, device).expect("a node");
    };
    node("pipe", rustix::fs::FileType::Fifo, 0);
    node("null", rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node("disk", rustix::fs::FileType::BlockDevice, rustix::fs::makedev(250, 1000));
    node("socket", rustix::fs::FileType::Socket, 0);
    std::os::unix::fs::lchown(top.join("etc/hosts"), Some(1000), Some(70_000)).expect("an owner");
    std::os::unix::fs::lchown(top.join("var/link"), Some(12), Some(34)).expect("an owner");
    std::fs::set_permissions(top.join("etc/empty"), PermissionsExt::from_mode(0o6711)).expect("a mode");
    std::fs::set_permissions(top.join("empty"), PermissionsExt::from_mode(0o1777)).expect("a mode");
    std::fs::set_permissions(top.join("var"), PermissionsExt::from_mode(0o2750)).expect("a mode");
    set_xattr(&top.join("etc/hosts"), "user.note", b"hello");
    set_xattr(&top.join("large"), "user.big", &[7; 30_000]);
    set_xattr(&top.join("etc"), "trusted.t", b"");
    set_xattr(&top.join("null"), "trusted.of-a-device", b"1");
    set_xattr(&top.join("long-link"), "trusted.of-a-link", b"2");
    // Version 2; owner, user 1000, group, mask, others.
    let none = u32::MAX;
    let acl: Vec<u8> = [(1u16, 7u16, none), (2, 6, 1000), (4, 5, none), (0x10, 7, none), (0x20, 0, none)].iter().fold(
        vec![2, 0, 0, 0],
        |mut all, (tag, p, id)| {
            all.extend([tag.to_le_bytes(), p.to_le_bytes()].concat());
            all.extend(id.to_le_bytes());
            all
        },
    );
    set_xattr(&top.join("etc/hosts"), "system.posix_acl_access", &acl);
    set_xattr(&top.join("etc"), "system.posix_acl_default", &acl);
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    let times = std::fs::FileTimes::new().set_modified(old).set_accessed(old);
    for name in ["large", "etc", "var/deep"] {
        std::fs::File::open(top.join(name)).expect("it opens").set_times(times).expect("times");
    }
}

#[test]
fn a_tree_is_copied_in() {
    if oracle::require(oracle::MOUNT).is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (from, image) = (dir.path().join("source.img"), dir.path().join("image"));
    std::fs::File::create(&from).and_then(|f| f.set_len(400 << 20)).expect("a file");
    oracle::mkfs_xfs(&[], &from).expect("a filesystem");
    let mount = Mount::new(&from, "").expect("a mount");
    build(mount.path());
    let expected = manifest::walk(mount.path()).expect("a walk");
    let all: [&[&str]; 3] = [&[], &["-m", "rmapbt=1", "-i", "nrext64"], &["-b", "size=1k", "-m", "reflink=0,finobt=0"]];
    for options in all {
        let _ = std::fs::remove_file(&image);
        let mut words: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
        words.extend([OsStr::new("-p"), mount.path().as_os_str(), image.as_os_str()]);
        let out = mkfs(&words, &[]);
        assert!(out.status.success(), "{}", said(&out));
        let (found, expected) = (comparable(shown(&image), true), comparable(expected.clone(), true));
        for (f, e) in found.iter().zip(&expected) {
            assert_eq!(f, e, "{options:?}");
        }
        assert_eq!(found.len(), expected.len());
        let sparse = xfsr_tests::view::walk(&xfsr_tests::view::open(&(&image).into()));
        let sparse = sparse.iter().find(|e| e.path == b"sparse").expect("that file");
        assert!(sparse.blocks < 100, "holes stay: {} sectors", sparse.blocks);
    }
    mount.unmount().expect("unmounted");
}

#[test]
fn the_same_input_makes_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("source");
    std::fs::create_dir(&source).expect("a directory");
    for n in 0..500 {
        std::fs::write(source.join(format!("f{n}")), vec![n as u8; n * 37]).expect("a file");
    }
    std::fs::create_dir(source.join("sub")).expect("a directory");
    let make = |name: &str, seed: &str| {
        let image = dir.path().join(name);
        let from = format!("{},seed={seed}", source.display());
        let out = mkfs(&["-p".as_ref(), from.as_ref(), image.as_os_str()], &[("SOURCE_DATE_EPOCH", "1600000000")]);
        assert!(out.status.success(), "{}", said(&out));
        // Reading a file may change its time of access.
        std::fs::read(source.join("f3")).expect("a file");
        std::fs::read(image).expect("an image")
    };
    let first = make("a", "5");
    assert!(first == make("b", "5"), "two images of one tree differ");
    assert!(first != make("c", "6"), "the seed does not count");
}

const PROTOTYPE: &str = "/boot\n\
    4872 110\n\
    d--755 3 1\n\
    : a comment, with $ and d--777 in it\n\
    usr\td-g775 3 7\n\
    sh   -u-755 3 1 CONTENTS\n\
    ken  d--755 6 1\n\
    $\n\
    a/b  ---600 0 0 CONTENTS\n\
    b0 b--644 3 1 0 5\n\
    c0 c--644 3 1 4 64\n\
    $\n\
    fifo p--644 3 1\n\
    slink l--777 3 1 /a/symbolic/link\n\
    $\n";

#[test]
fn a_prototype_makes_the_tree_that_mkfs_xfs_makes() {
    if oracle::require(oracle::MOUNT).is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (ours, theirs, proto) = (dir.path().join("ours"), dir.path().join("theirs"), dir.path().join("proto"));
    let contents = dir.path().join("contents");
    std::fs::write(&contents, vec![b'x'; 70_000]).expect("a file");
    let text = PROTOTYPE.replace("CONTENTS", contents.to_str().expect("a path")).replace("a/b", "ab");
    std::fs::write(&proto, &text).expect("a file");
    let out = mkfs(&["-p".as_ref(), proto.as_os_str(), ours.as_os_str()], &[]);
    assert!(out.status.success(), "{}", said(&out));
    std::fs::File::create(&theirs).and_then(|f| f.set_len(320 << 20)).expect("a file");
    oracle::mkfs_xfs(&["-p", proto.to_str().expect("a path")], &theirs).expect("mkfs.xfs");
    let (found, expected) = (comparable(shown(&ours), false), comparable(shown(&theirs), false));
    assert_eq!(found.len(), 9);
    for (f, e) in found.iter().zip(&expected) {
        assert_eq!(f, e);
    }
    assert_eq!(found.len(), expected.len());
    // What later versions of mkfs.xfs have.
    std::fs::write(&proto, text.replace("\nab ", "\na/b ")).expect("a file");
    let with = format!("file={},slashes_are_spaces=1", proto.display());
    let out = mkfs(&["-p".as_ref(), with.as_ref(), ours.as_os_str()], &[]);
    assert!(out.status.success(), "{}", said(&out));
    assert!(shown(&ours).iter().any(|e| e.path == b"usr/a b"));
}

/// Wrong prototypes are told with their line, and what cannot be copied by its name.
#[test]
fn what_is_wrong_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let (image, proto) = (dir.path().join("image"), dir.path().join("proto"));
    let cases = [
        ("x\n1 2\nd--755 0 0\nname\n", "line 5: it ends where the mode of a file is expected"),
        ("x\n1 2\nd--755 0 0\nf q--644 0 0\n", "line 4: q is no kind of file"),
        ("x\n1 2\nd--755 0 0\nf -x-644 0 0\n", "line 4: -x-644 is no mode"),
        ("x\n1 2\nd--755 0 0\nf b--644 0 0 1\n$\n", "line 5: $ is not a minor number"),
        ("x\n1 2\n---755 0 0 f\n", "the first file must be the root directory"),
        ("x\n1\nd--755\n", "line 3: d--755 is not a number of inodes"),
        ("x\n1 2\nd--755 0 0\na p--644 0 0\na p--644 0 0\n$\n", "line 5: a in directory 128 exists already"),
        ("x\n1 2\nd--755 0 0\nf ---644 0 0 /nonexistent/file\n$\n", "/nonexistent/file: No such file"),
    ];
    for (text, expected) in cases {
        std::fs::write(&proto, text).expect("a file");
        let out = mkfs(&["-p".as_ref(), proto.as_os_str(), image.as_os_str()], &[]);
        assert!(!out.status.success() && said(&out).contains(expected), "{text:?}: {}", said(&out));
    }
    // Nothing is touched where the source is not there.
    std::fs::remove_file(&image).expect("an image");
    let out = mkfs(&["-p".as_ref(), "/nonexistent".as_ref(), image.as_os_str()], &[]);
    assert!(!out.status.success() && !image.exists(), "{}", said(&out));
    // A target that is too long for XFS, where the source can hold it.
    let source = dir.path().join("source");
    std::fs::create_dir(&source).expect("a directory");
    std::fs::write(source.join("good"), "good").expect("a file");
    symlink("t".repeat(2000), source.join("long\n")).expect("a link");
    let out = mkfs(&["-p".as_ref(), source.as_os_str(), image.as_os_str()], &[]);
    let text = said(&out);
    assert!(!out.status.success() && text.contains("source/long\\x0a: XFS has no links"), "{text}");
    let made = xfsr_tests::view::walk(&xfsr_tests::view::open(&(&image).into()));
    assert_eq!(made.iter().filter(|e| e.path == b"good" && e.size == 4).count(), 1);
}
