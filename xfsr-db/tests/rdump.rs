//! `rdump` and `cat`: what they get out is what the kernel shows, and nothing is ever written outside the destination.

mod common;

use common::{ours, spread};
use libxfsr::format::{inode, seal_checksum};
use libxfsr::units::Ino;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use xfsr_tests::corpus::{self, Entry, manifest};
use xfsr_tests::oracle::{self, Devices, Mount};

/// A filesystem to write to: XFS takes all attributes, owners, kinds of files and times that XFS can hold.
fn destination(directory: &Path) -> Mount {
    let image = directory.join("destination.img");
    std::fs::File::create(&image).and_then(|f| f.set_len(2 << 30)).expect("an image file");
    oracle::mkfs_xfs(&[], &image).expect("mkfs.xfs");
    Mount::new(&image, "").expect("a mount")
}

/// What must be the same in a copy.
fn comparable(mut e: Entry) -> Entry {
    (e.ino, e.ctime, e.blocks) = (0, 0, 0);
    if e.kind == "dir" {
        // A directory does not shrink when names go.
        e.size = 0;
    }
    e
}

fn accessed(root: &Path, path: &[u8]) -> (i64, i64) {
    let m = std::fs::symlink_metadata(root.join(OsStr::from_bytes(path))).expect("metadata");
    (m.atime(), m.atime_nsec())
}

#[test]
fn a_dumped_tree_is_the_one_that_the_kernel_shows() {
    for name in ["default", "parent"] {
        let Some(devices) = corpus::obtain(name) else { return };
        let temporary = tempfile::tempdir_in(xfsr_tests::damage::scratch().expect("a directory")).expect("a directory");
        let to = destination(temporary.path());
        let target = to.path().join("copy");
        std::fs::create_dir(&target).expect("a directory");
        let run = ours(&devices, &[format!("rdump / {}", target.display())]);
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{name}");
        let source = Mount::new(&devices, "ro,norecovery").expect("the image mounted");
        let (copied, shown) =
            (manifest::walk(&target).expect("the copy"), manifest::walk(source.path()).expect("the image"));
        assert_eq!(copied.len(), shown.len(), "{name}: number of files");
        let mut names: BTreeMap<u64, u64> = BTreeMap::new();
        for (c, s) in copied.into_iter().zip(shown) {
            let at = libxfsr::text::escape(&s.path);
            if c.path == s.path && c.kind != "dir" {
                // The same names lead to the same inode.
                assert_eq!(*names.entry(s.ino).or_insert(c.ino), c.ino, "{name}: {at}");
            }
            if c.kind == "file" {
                // Holes stay holes; a file of several extents may need a block of its own for their map.
                assert!(c.blocks <= s.blocks + 64, "{name}: {at}: {} blocks of {}", c.blocks, s.blocks);
            }
            if c.kind != "dir" {
                // Directories were read since by both walks.
                assert_eq!(accessed(&target, &c.path), accessed(source.path(), &s.path), "{name}: {at}: last access");
            }
            assert_eq!(comparable(c), comparable(s), "{name}: {at}");
        }
        source.unmount().expect("unmount");
        to.unmount().expect("unmount");
    }
}

#[test]
fn cat_writes_what_the_kernel_reads() {
    for name in ["default", "rmap-1k", "b64k"] {
        let Some(devices) = corpus::obtain(name) else { return };
        let files: Vec<Entry> = corpus::manifest(name)
            .into_iter()
            .filter(|e| {
                e.kind == "file" && e.sha256.is_some() && e.size < 1 << 24 && e.path.iter().all(u8::is_ascii_graphic)
            })
            .collect();
        for e in spread(&files, 40) {
            let path = String::from_utf8_lossy(&e.path).replace('\\', "\\\\").replace('\'', "\\'").replace('"', "\\\"");
            for command in [format!("cat /{path}"), format!("inode {}\ncat", e.ino)] {
                let run = ours(&devices, &command.lines().collect::<Vec<_>>());
                assert_eq!(run.code, 0, "{name}: {command}: {}", run.err);
                assert_eq!(Some(manifest::hex(&Sha256::digest(&run.out))), e.sha256, "{name}: {command}");
            }
        }
    }
}

/// A small filesystem, filled through the kernel and then changed by hand.
struct Hostile {
    devices: Devices,
    _directory: tempfile::TempDir,
}

impl Hostile {
    fn new(fill: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir_in(xfsr_tests::damage::scratch().expect("a directory")).expect("a directory");
        let image = directory.path().join("hostile.img");
        std::fs::File::create(&image).and_then(|f| f.set_len(300 << 20)).expect("an image file");
        oracle::mkfs_xfs(&[], &image).expect("mkfs.xfs");
        let mount = Mount::new(&image, "").expect("a mount");
        fill(mount.path());
        mount.unmount().expect("unmount");
        Self { devices: Devices::from(&image), _directory: directory }
    }

    /// Replaces bytes in an inode, everywhere that they occur in it, and makes its checksum right again.
    fn patch(&self, ino: u64, old: &[u8], new: &[u8]) {
        assert_eq!(old.len(), new.len());
        let volume = common::volume(&self.devices);
        let at = volume.geometry.ino_to_offset(Ino(ino)).expect("an inode");
        let mut bytes = volume.inode_bytes(Ino(ino)).expect("its bytes");
        let places: Vec<usize> = bytes.windows(old.len()).enumerate().filter(|w| w.1 == old).map(|w| w.0).collect();
        assert!(!places.is_empty(), "{} is not in inode {ino}", libxfsr::text::escape(old));
        for p in places {
            bytes[p..p + new.len()].copy_from_slice(new);
        }
        seal_checksum(&mut bytes, inode::CRC_OFFSET);
        let file = std::fs::OpenOptions::new().write(true).open(&self.devices.data).expect("the image");
        file.write_all_at(&bytes, at).expect("a write");
    }
}

fn ino(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).expect("metadata").ino()
}

/// Everything about a tree that a stray write would change.
fn state(root: &Path) -> Vec<Entry> {
    manifest::walk(root).expect("a tree")
}

/// Runs rdump into `T/dest` beside `T/outside`, and proves that only `T/dest` changed.
fn dump(image: &Devices, to: &Path, options: &str) -> common::Run {
    let outside = state(&to.join("outside"));
    let run = ours(image, &[format!("rdump {options} {}", to.join("dest").display())]);
    assert_eq!(state(&to.join("outside")), outside, "something outside the destination changed");
    let mut names: Vec<OsString> =
        std::fs::read_dir(to).expect("a list").map(|e| e.expect("a name").file_name()).collect();
    names.sort();
    assert_eq!(names, ["dest", "outside"], "something was made beside the destination");
    let raw = run.err.bytes().filter(|b| *b != b'\n' && (*b < 0x20 || *b == 0x7f)).count();
    assert_eq!(raw, 0, "control characters reached the terminal: {:?}", run.err);
    run
}

/// `T` with a destination and something to protect.
fn stage() -> (tempfile::TempDir, PathBuf) {
    let temporary = tempfile::tempdir_in(xfsr_tests::damage::scratch().expect("a directory")).expect("a directory");
    let to = temporary.path().to_owned();
    std::fs::create_dir_all(to.join("dest")).expect("a directory");
    std::fs::create_dir_all(to.join("outside/inner")).expect("a directory");
    std::fs::write(to.join("outside/precious"), "do not touch").expect("a file");
    (temporary, to)
}

fn told(run: &common::Run, what: &[&str]) {
    for w in what {
        assert!(run.err.contains(w), "{w:?} is not told of:\n{}", run.err);
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused_and_the_rest_is_restored() {
    if oracle::require(oracle::MOUNT).is_none() {
        return;
    }
    let mut root = 0;
    let long = "n".repeat(255);
    let image = Hostile::new(|m| {
        root = ino(m);
        for name in ["xslashx", "..uuutside/".trim_end_matches('/'), "zz", "~", "nul0nul", "fine"] {
            std::fs::write(m.join(name), name).expect("a file");
        }
        // What the kernel itself allows.
        for name in ["new\nline", "esc\x1b[2J", "tab\tquote\"back\\slash", "\x7f"] {
            std::fs::write(m.join(name), name).expect("a file");
        }
        std::fs::create_dir(m.join("long")).expect("a directory");
        std::fs::write(m.join("long").join(&long), "long").expect("a file");
    });
    image.patch(root, b"xslashx", b"../lash");
    image.patch(root, b"..uuutside", b"../outside");
    image.patch(root, b"zz", b"..");
    image.patch(root, b"~", b".");
    image.patch(root, b"nul0nul", b"nul\0nul");
    let (_keep, to) = stage();
    let run = dump(&image.devices, &to, "/");
    assert_eq!(run.code, 1);
    told(&run, &["../lash", "../outside", "nul", "rdump: ..: ", "rdump: .: "]);
    let dest = to.join("dest");
    for name in ["fine", "new\nline", "esc\x1b[2J", "tab\tquote\"back\\slash", "\x7f"] {
        assert_eq!(std::fs::read(dest.join(name)).expect(name), name.as_bytes());
    }
    assert_eq!(std::fs::read(dest.join("long").join(&long)).expect("a long name"), b"long");
    assert_eq!(std::fs::read_dir(&dest).expect("a list").count(), 6, "only the good names were made");
    // Listings do not hand control characters to the terminal either.
    for command in ["ls /", "ncheck", "print"] {
        let run = ours(&image.devices, &["sb 0", "path /", command]);
        assert!(run.out.iter().all(|b| *b >= 0x20 || matches!(b, b'\n' | b'\t')), "{command}: {:?}", run.text());
    }
}

#[test]
fn a_link_is_never_a_way_out() {
    if oracle::require(oracle::MOUNT).is_none() {
        return;
    }
    let (_keep, to) = stage();
    let outside = to.join("outside");
    let mut root = 0;
    let image = Hostile::new(|m| {
        root = ino(m);
        // A link first, then a directory, a file, a pipe and a link of the same name.
        for (n, target) in [
            ("a", outside.clone()),
            ("b", outside.join("precious")),
            ("c", "../outside/new".into()),
            ("d", outside.join("inner")),
        ] {
            symlink(target, m.join(format!("trap{n}1"))).expect("a link");
        }
        std::fs::create_dir(m.join("trapa2")).expect("a directory");
        std::fs::write(m.join("trapa2/precious"), "evil").expect("a file");
        std::fs::write(m.join("trapb2"), "evil").expect("a file");
        rustix::fs::mknodat(rustix::fs::CWD, m.join("trapc2"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .expect("a pipe");
        symlink("elsewhere", m.join("trapd2")).expect("a link");
        // A directory first, then a link of the same name.
        std::fs::create_dir(m.join("trape1")).expect("a directory");
        std::fs::write(m.join("trape1/inside"), "good").expect("a file");
        symlink(&outside, m.join("trape2")).expect("a link");
        // Hard links to a link that leads outside.
        std::fs::hard_link(m.join("trapa1"), m.join("hard")).expect("a hard link");
        std::fs::write(m.join("fine"), "fine").expect("a file");
    });
    for n in ["a", "b", "c", "d", "e"] {
        image.patch(root, format!("trap{n}2").as_bytes(), format!("trap{n}1").as_bytes());
    }
    let run = dump(&image.devices, &to, "/");
    assert_eq!(run.code, 1);
    told(&run, &["trapa1", "trapb1", "trapc1", "trapd1", "trape1", "twice"]);
    let dest = to.join("dest");
    assert_eq!(std::fs::read(dest.join("fine")).expect("a file"), b"fine");
    assert_eq!(std::fs::read(dest.join("trape1/inside")).expect("a file"), b"good");
    assert_eq!(std::fs::read_link(dest.join("trapa1")).expect("a link"), outside);
    assert_eq!(ino(&dest.join("trapa1")), ino(&dest.join("hard")));
    // Into a destination where such links lie already: nothing is followed, nothing replaced, each failure told.
    let again = dump(&image.devices, &to, "/");
    assert_eq!(again.code, 1);
    told(&again, &["rdump: fine: ", "rdump: trapa1: ", "rdump: hard: "]);
    std::fs::remove_dir_all(dest.join("trape1")).expect("removed");
    symlink(&outside, dest.join("trape1")).expect("a link");
    let planted = dump(&image.devices, &to, "/");
    told(&planted, &["rdump: trape1: "]);
    // -s ends at the first failure.
    let strict = dump(&image.devices, &to, "-s /");
    assert_eq!((strict.code, strict.err.matches("rdump: ").count()), (1, 2), "{}", strict.err);
}

#[test]
fn loops_end_and_devices_are_restored() {
    if oracle::require(oracle::MOUNT).is_none() {
        return;
    }
    let (mut root, mut a, mut b, mut other, mut file) = (0, 0, 0, 0, 0);
    let image = Hostile::new(|m| {
        root = ino(m);
        std::fs::create_dir_all(m.join("a/b/c")).expect("directories");
        std::fs::create_dir_all(m.join("a/again")).expect("directories");
        std::fs::create_dir_all(m.join("a/top")).expect("directories");
        std::fs::write(m.join("a/b/file"), "contents").expect("a file");
        let device = |name: &str, kind, major, minor| {
            let number = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(rustix::fs::CWD, m.join(name), kind, 0o640.into(), number).expect("a device");
        };
        device("null", rustix::fs::FileType::CharacterDevice, 1, 3);
        device("disk", rustix::fs::FileType::BlockDevice, 259, 200_000);
        (a, b, other, file) =
            (ino(&m.join("a")), ino(&m.join("a/b")), ino(&m.join("a/again")), ino(&m.join("a/b/file")));
    });
    let number = |i: u64| u32::try_from(i).expect("a small inode number").to_be_bytes();
    // a/again leads to a/b, a/top to the root, a/b/c to a, and `..` of b to a file.
    let top = ours(&image.devices, &["path /a/top", "inode"]).text();
    let top: u64 = top.trim().rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    image.patch(a, &number(other), &number(b));
    image.patch(a, &number(top), &number(root));
    let c = ours(&image.devices, &["path /a/b/c", "inode"]).text();
    let c: u64 = c.trim().rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    image.patch(b, &number(a), &number(file));
    image.patch(b, &number(c), &number(a));
    let (_keep, to) = stage();
    let run = dump(&image.devices, &to, "/");
    assert_eq!(run.code, 1);
    told(&run, &["a/again: ", "a/top: ", "a/b/c: ", "two names"]);
    let dest = to.join("dest");
    assert_eq!(std::fs::read(dest.join("a/b/file")).expect("a file"), b"contents");
    for (name, mode, number) in [("null", 0o020_640, (1, 3)), ("disk", 0o060_640, (259, 200_000))] {
        let m = std::fs::symlink_metadata(dest.join(name)).expect("a device");
        assert_eq!((m.mode(), (rustix::fs::major(m.rdev()), rustix::fs::minor(m.rdev()))), (mode, number));
    }
    // A file that cannot be read whole is told of, and so is the exit status; what follows is restored.
    let volume = common::volume(&image.devices);
    let bytes = volume.inode_bytes(Ino(file)).expect("an inode");
    image.patch(file, &bytes[176..192], &[0, 0, 0, 0, 0, 0, 0, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xe0, 0, 1]);
    std::fs::remove_dir_all(&dest).expect("removed");
    std::fs::create_dir(&dest).expect("a directory");
    let run = dump(&image.devices, &to, "/");
    assert_eq!(run.code, 1);
    told(&run, &["a/b/file: "]);
    assert!(common::exists(&dest.join("null")));
}

#[test]
fn what_cannot_be_set_makes_the_status() {
    if oracle::require(oracle::MOUNT).and(oracle::require(&["mkfs.ext4"])).is_none() {
        return;
    }
    // tmpfs holds no attribute of the namespace `user` of 60 KiB, XFS does.
    let image = Hostile::new(|m| {
        std::fs::write(m.join("file"), "contents").expect("a file");
        let value = vec![7; 60_000];
        for i in 0..20 {
            rustix::fs::setxattr(m.join("file"), format!("user.a{i}"), &value, rustix::fs::XattrFlags::empty())
                .expect("an attribute");
        }
    });
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let limited = directory.path().join("to");
    std::fs::create_dir(&limited).expect("a directory");
    let image4 = directory.path().join("ext4.img");
    std::fs::File::create(&image4).and_then(|f| f.set_len(16 << 20)).expect("an image file");
    xfsr_tests::run("mkfs.ext4", &[OsStr::new("-q"), image4.as_os_str()]).expect("an ext4 filesystem");
    let device = oracle::Loop::attach(&image4, false).expect("a loop device");
    rustix::mount::mount(device.path(), &limited, "ext4", rustix::mount::MountFlags::empty(), None).expect("a mount");
    let run = ours(&image.devices, &[format!("rdump /file {}", limited.display())]);
    let contents = std::fs::read(limited.join("file"));
    rustix::mount::unmount(&limited, rustix::mount::UnmountFlags::DETACH).expect("unmount");
    assert_eq!(run.code, 1, "{}", run.err);
    told(&run, &["attribute user.a0"]);
    assert_eq!(contents.expect("the file"), b"contents");
}
