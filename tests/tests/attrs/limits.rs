//! No space, space in small pieces, hashes that collide, devices that fail, blocks that are damaged.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use libxfsr::Error;
use libxfsr::attr::change::{self, How};
use libxfsr::attr::{self, Attr};
use libxfsr::cache::OnDamage;
use libxfsr::check::{self, Verdict};
use libxfsr::control::Control;
use libxfsr::error::ForkKind;
use libxfsr::format::attr::{ATTR_LEAF, AttrFlags, AttrLeaf, block_type_of};
use libxfsr::inode::Inode;
use libxfsr::space::Space;
use libxfsr::target::{Access, Fault, Faulty, FileTarget, On, Overlay, Target};
use libxfsr::txn::{DirtySink, Scope};
use libxfsr::units::{FsBlock, Ino, Lsn};
use libxfsr::volume::Volume;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use xfsr_tests::changing::{Changing, Commits, assert_clean, kernel_made};
use xfsr_tests::corpus;
use xfsr_tests::oracle::{MOUNT, Mount, require, xfs_io};

use crate::model::{World, kernel, read};

const USER: AttrFlags = AttrFlags::empty();

fn file(volume: &Volume, path: &str) -> Ino {
    path.split('/').filter(|p| !p.is_empty()).fold(volume.geometry.root_ino, |dir, part| {
        let inode = Inode::read(volume, dir, OnDamage::Fail).expect("a directory");
        libxfsr::dir::lookup(volume, &inode, part.as_bytes()).expect("a lookup").expect("a file")
    })
}

fn set(c: &Changing, ino: Ino, name: &[u8], value: &[u8]) -> Result<bool, Error> {
    let room = change::reservation(&c.volume.geometry, value.len() as u32);
    let mut t = c.scope.begin(room)?;
    let there = change::set(&mut t, &c.space, ino, (USER, name), value, How::Upsert)?;
    t.commit()?;
    Ok(there)
}

/// More names of one hash than any leaf holds, in an order of chance both ways.
#[test]
fn names_of_one_hash_fill_several_leaves() {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = kernel_made(directory.path(), 300, &["-b", "size=1024"], |root| {
        std::fs::write(root.join("file"), b"x").expect("a file");
    });
    let c = Changing::open(&image, Commits::Gathered);
    let ino = file(&c.volume, "/file");
    let mut names: Vec<Vec<u8>> = (0..256u32)
        .map(|n| (0..8).flat_map(|i| if n >> i & 1 == 1 { [b'`', 0xc1] } else { [b'a', b'A'] }).collect())
        .collect();
    let hash = libxfsr::format::da::hash_name(&names[0]);
    assert!(names.iter().all(|n| libxfsr::format::da::hash_name(n) == hash));
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    names.shuffle(&mut rng);
    let mut model = BTreeMap::new();
    for (i, name) in names.iter().enumerate() {
        // Others on both sides.
        for other in [format!("before-{i}"), format!("z{i}")] {
            assert!(!set(&c, ino, other.as_bytes(), b"other").expect("set"));
            model.insert((USER, other.into_bytes()), b"other".to_vec());
        }
        let value = vec![i as u8; 20 + i % 90];
        assert!(!set(&c, ino, name, &value).expect("set"));
        model.insert((USER, name.clone()), value);
    }
    assert!(read(&c.volume, ino) == model);
    names.shuffle(&mut rng);
    for name in &names[..200] {
        let mut t = c.scope.begin(change::reservation(&c.volume.geometry, 0)).expect("room");
        change::remove(&mut t, &c.space, ino, (USER, name)).expect("it was there");
        t.commit().expect("committed");
        model.remove(&(USER, name.clone()));
    }
    assert!(read(&c.volume, ino) == model);
    c.finish();
    assert_clean("names of one hash", &image);
    let mount = Mount::new(&image, "").expect("a mount");
    let path = mount.path().join("file");
    assert!(kernel(&path) == crate::model::linux(&model));
    for name in &names[200..] {
        rustix::fs::removexattr(&path, [b"user.", &name[..]].concat()).expect("the kernel finds it");
    }
    mount.unmount().expect("an unmount");
    assert_clean("after the kernel", &image);
}

/// The filesystem is filled until nothing fits: what is refused leaves no trace, what was there stays.
#[test]
fn without_space_nothing_is_half_done() {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = kernel_made(directory.path(), 300, &["-m", "rmapbt=1", "-d", "agcount=2"], |root| {
        for n in 0..8 {
            std::fs::write(root.join(format!("file-{n}")), b"x").expect("a file");
        }
        std::fs::File::create(root.join("rest")).expect("a file");
        let free = all_free(root);
        xfs_io(&root.join("rest"), &[format!("falloc 0 {}", (free.f_bavail - 400) * free.f_frsize)]).expect("space");
    });
    let c = Changing::open(&image, Commits::Gathered);
    let files: Vec<Ino> = (0..8).map(|n| file(&c.volume, &format!("/file-{n}"))).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut model: Vec<_> = files.iter().map(|i| read(&c.volume, *i)).collect();
    let (mut refused, mut done) = (0, 0);
    for round in 0..900u32 {
        let n = rng.random_range(0..files.len());
        let length = *[30, 900, 3500, 12_000, 65_536].choose(&mut rng).expect("one");
        let (name, value) = (format!("name-{}", rng.random_range(0..40)).into_bytes(), vec![round as u8; length]);
        match set(&c, files[n], &name, &value) {
            Ok(_) => {
                done += 1;
                model[n].insert((USER, name), value);
            }
            Err(Error::NoSpace(_)) => {
                refused += 1;
                assert!(read(&c.volume, files[n]) == model[n]);
            }
            Err(e) => panic!("{e}"),
        }
    }
    println!("{done} set, {refused} refused");
    assert!(refused > 100 && done > 100);
    for (ino, attrs) in files.iter().zip(&model) {
        assert!(read(&c.volume, *ino) == *attrs);
    }
    c.finish();
    assert_clean("a full filesystem", &image);
}

/// All that is free are single blocks.
#[test]
fn a_value_lies_in_as_many_pieces_as_space_has() {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = kernel_made(directory.path(), 300, &["-b", "size=1024", "-m", "rmapbt=0,reflink=0,finobt=0"], pieces);
    let c = Changing::open(&image, Commits::Gathered);
    let ino = file(&c.volume, "/file");
    let value: Vec<u8> = (0..65_536u32).map(|i| (i * 7) as u8).collect();
    assert!(!set(&c, ino, b"value", &value).expect("set"));
    assert!(!set(&c, ino, b"another", &value[..40_000]).expect("set"));
    let inode = Inode::read(&c.volume, ino, OnDamage::Fail).expect("an inode");
    let extents = inode.extents(&c.volume, ForkKind::Attr).expect("extents");
    println!("{} extents", extents.len());
    assert!(extents.len() > 90);
    assert!(set(&c, ino, b"value", &value[..50_000]).expect("replaced"));
    assert_eq!(read(&c.volume, ino)[&(USER, b"value".to_vec())], value[..50_000]);
    c.finish();
    assert_clean("pieces", &image);
    let mount = Mount::new(&image, "").expect("a mount");
    assert!(kernel(&mount.path().join("file"))[&b"user.value"[..]] == value[..50_000]);
    mount.unmount().expect("an unmount");
}

/// Free space, with what Linux keeps for itself.
fn all_free(root: &Path) -> rustix::fs::StatVfs {
    xfs_io(root, &["resblks 0"]).expect("no reserve");
    rustix::fs::statvfs(root).expect("sizes")
}

fn pieces(root: &Path) {
    std::fs::write(root.join("file"), b"x").expect("a file");
    let rest = root.join("rest");
    std::fs::File::create(&rest).expect("a file");
    let free = all_free(root);
    let bytes = (free.f_bavail - 40) * free.f_frsize;
    xfs_io(&rest, &[format!("falloc 0 {bytes}")]).expect("space");
    // Single blocks in several AGs.
    let place = |i: u64| i % 8 * (bytes / 8 / 4096 * 4096) + i / 8 * 2048;
    let commands: Vec<String> = (0..1600).map(|i| format!("fpunch {} 1024", place(i))).collect();
    for some in commands.chunks(200) {
        xfs_io(&rest, some).expect("holes");
    }
}

fn overlaid(below: &Arc<dyn Target>) -> (Arc<Overlay>, Scope, Arc<Space>) {
    let overlay = Arc::new(Overlay::new(below.clone()).expect("memory"));
    let volume = Volume::from_targets(overlay.clone(), None, None, 8 << 20).expect("a filesystem");
    let volume = Arc::new(volume);
    let space = Space::open(&volume).expect("headers");
    let scope = Scope::new(volume, Arc::new(DirtySink { lsn: Lsn::new(1, 8) }));
    (overlay, scope, space)
}

fn all(volume: &Volume, ino: Ino) -> Vec<Attr> {
    attr::list(volume, &Inode::read(volume, ino, OnDamage::Fail).expect("an inode")).expect("attributes")
}

/// Every read fails once: a clean error, and nothing is changed.
#[test]
fn a_device_that_fails_at_any_read_leaves_nothing_half_done() {
    let Some(devices) = corpus::obtain("b1k-plain") else { return };
    let disk = Arc::new(Faulty::new(Arc::new(FileTarget::open(&devices.data, Access::Read).expect("an image"))));
    let below: Arc<dyn Target> = disk.clone();
    let mut failures = 0;
    for (path, name) in [("/attrs/node", "node-0003"), ("/attrs/btree", "value-012"), ("/attrs/leaf", "leaf-0001")] {
        for kind in 0..3 {
            for pass in 0.. {
                let (_, before, _) = overlaid(&below);
                let ino = file(before.volume(), path);
                let before = all(before.volume(), ino);
                // Another one, for what is read once would not fail.
                let (_overlay, scope, space) = overlaid(&below);
                let mut t = scope.begin(change::reservation(&scope.volume().geometry, 65_536)).expect("no log");
                disk.add(On::Read, pass, Fault::Error);
                let result = match kind {
                    0 => change::remove(&mut t, &space, ino, (USER, name.as_bytes())),
                    1 => change::set(&mut t, &space, ino, (USER, b"new"), &[7; 600], How::Create).map(drop),
                    _ => change::set(&mut t, &space, ino, (USER, name.as_bytes()), &[7; 9000], How::Replace).map(drop),
                };
                drop(t);
                match result {
                    Ok(()) => {
                        let mut byte = [0; 512];
                        while disk.read_at(&mut byte, 0).is_ok() {}
                        break;
                    }
                    Err(Error::Io { .. }) => failures += 1,
                    Err(e) => panic!("{e}"),
                }
                assert!(all(scope.volume(), ino) == before);
                scope.volume().cache.write_back(None).expect("written");
                let outcome = check::check(scope.volume(), &Control::none()).expect("a check");
                if pass % 8 == 0 {
                    assert!(outcome.verdict() == Verdict::Clean, "{:?}", outcome.findings.first());
                }
            }
        }
    }
    println!("{failures} reads failed");
    assert!(failures > 30);
}

/// Single bits of blocks are wrong under a right checksum: an error without a trace, or no use of the damaged part.
#[test]
fn damaged_attributes_are_refused_without_a_trace() {
    for name in ["b1k-plain", "default"] {
        let Some(devices) = corpus::obtain(name) else { return };
        let file_target: Arc<dyn Target> = Arc::new(FileTarget::open(&devices.data, Access::Read).expect("an image"));
        let world = World::open(&devices.data, "attrs", Commits::Gathered, 1);
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let (mut refused, mut accepted) = (0, 0);
        for _ in 0..xfsr_tests::knob("XFSR_DAMAGE", 250) {
            let f = world.files.choose(&mut rng).expect("a file");
            let g = &world.changing.volume.geometry;
            let inode = Inode::read(&world.changing.volume, f.ino, OnDamage::Fail).expect("an inode");
            let extents = inode.extents(&world.changing.volume, ForkKind::Attr).expect("extents");
            let Some(e) = extents.choose(&mut rng) else { continue };
            let block = FsBlock(e.start + rng.random_range(0..e.count));
            let at = g.fsblock_to_daddr(block).expect("a block").bytes();
            let damaged: Arc<dyn Target> = Arc::new(Overlay::new(file_target.clone()).expect("memory"));
            let mut bytes = vec![0; g.block_size as usize];
            damaged.read_at(&mut bytes, at).expect("a block");
            let Some(kind) = block_type_of(&bytes) else { continue };
            let lsn = (kind.lsn)(&bytes).unwrap_or_default();
            for _ in 0..rng.random_range(1..4) {
                let limit = *[12, 80, 200, bytes.len()].choose(&mut rng).expect("one");
                let place = rng.random_range(0..limit);
                bytes[place] ^= 1 << rng.random_range(0..8);
            }
            (kind.seal)(&mut bytes, lsn);
            damaged.write_at(&bytes, at).expect("memory");
            let (overlay, scope, space) = overlaid(&damaged);
            let names: Vec<_> = f.attrs.keys().collect();
            for _ in 0..6 {
                let mut t = scope.begin(change::reservation(&scope.volume().geometry, 700)).expect("no log");
                let known =
                    names.choose(&mut rng).map_or((USER, &b"none"[..]), |(flags, name)| (*flags, name.as_slice()));
                let result = match rng.random_range(0..3) {
                    0 => change::remove(&mut t, &space, f.ino, known),
                    1 => change::set(&mut t, &space, f.ino, (USER, b"new"), &[7; 600], How::Upsert).map(drop),
                    _ => change::set(&mut t, &space, f.ino, known, &[7; 60], How::Upsert).map(drop),
                };
                match result {
                    Ok(()) => accepted += 1,
                    Err(Error::Corrupt(_)) => refused += 1,
                    // A name that the damage has made another.
                    Err(Error::NotFound(_)) => {}
                    Err(e) => panic!("{name}: {e}"),
                }
            }
            scope.volume().cache.write_back(None).expect("written");
            assert!(overlay.changed().is_empty(), "{name}: what was not committed is on the disk");
        }
        println!("{name}: {refused} refused, {accepted} accepted");
        assert!(refused > 100 && accepted > 100);
    }
}

/// Entries that Linux was about to write or to remove: as good as absent, and gone when their name is used again.
#[test]
fn what_a_crash_left_incomplete_goes_with_the_name() {
    let Some(devices) = corpus::obtain("default") else { return };
    let below: Arc<dyn Target> = Arc::new(FileTarget::open(&devices.data, Access::Read).expect("an image"));
    for (path, name, value) in [
        ("/attrs/remote", "user.remote-3", 20),
        ("/attrs/leaf", "user.leaf-0003", 70),
        ("/attrs/node", "user.node-0006", 9000),
    ] {
        let damaged: Arc<dyn Target> = Arc::new(Overlay::new(below.clone()).expect("memory"));
        let (_, before, _) = overlaid(&below);
        let ino = file(before.volume(), path);
        let name = name.strip_prefix("user.").expect("a name").as_bytes();
        let inode = Inode::read(before.volume(), ino, OnDamage::Fail).expect("an inode");
        let g = &before.volume().geometry;
        let mut marked = 0;
        for e in inode.extents(before.volume(), ForkKind::Attr).expect("extents") {
            for i in 0..e.count {
                let at = g.fsblock_to_daddr(FsBlock(e.start + i)).expect("a block").bytes();
                let mut bytes = vec![0; g.block_size as usize];
                damaged.read_at(&mut bytes, at).expect("a block");
                if block_type_of(&bytes) != Some(&ATTR_LEAF) {
                    continue;
                }
                let leaf = AttrLeaf::from_bytes(&bytes).expect("a leaf");
                let found =
                    leaf.attrs().position(|a| a.is_ok_and(|a| a.name == name && a.flags - AttrFlags::LOCAL == USER));
                let Some(index) = found else { continue };
                let place = usize::from(leaf.entries[index].nameidx.get());
                let local = AttrFlags::from_bits_retain(leaf.entries[index].flags).contains(AttrFlags::LOCAL);
                bytes[80 + index * 8 + 6] |= AttrFlags::INCOMPLETE.bits();
                if !local {
                    bytes[place..place + 8].fill(0);
                }
                (ATTR_LEAF.seal)(&mut bytes, Lsn(0));
                damaged.write_at(&bytes, at).expect("memory");
                marked += 1;
            }
        }
        assert_eq!(marked, 1, "{path}");
        let (_overlay, scope, space) = overlaid(&damaged);
        let had = all(scope.volume(), ino).len();
        let begin = || scope.begin(change::reservation(&scope.volume().geometry, 9000)).expect("no log");
        let mut t = begin();
        assert_eq!(change::get(&mut t, &space, ino, (USER, name)).expect("a lookup"), None);
        let gone = change::remove(&mut t, &space, ino, (USER, name));
        assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");
        drop(t);
        let mut t = begin();
        let there = change::set(&mut t, &space, ino, (USER, name), &vec![5; value], How::Create).expect("set");
        t.commit().expect("committed");
        assert!(!there && all(scope.volume(), ino).len() == had + 1);
        scope.volume().cache.write_back(None).expect("written");
        let outcome = check::check(scope.volume(), &Control::none()).expect("a check");
        let incomplete = outcome.findings.iter().find(|f| f.code() == "xattr.flags.flags");
        assert!(incomplete.is_none(), "{path}: {incomplete:?}");
    }
}

/// Access control lists that we set, as Linux gives them, are those that Linux shows.
#[test]
fn access_control_lists_are_those_of_linux() {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy("default", directory.path()).data;
    let c = Changing::open(&image, Commits::Gathered);
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in
        [(1u16, 6u16, u32::MAX), (2, 5, 1000), (2, 7, 70_000), (4, 4, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)]
    {
        list.extend(tag.to_le_bytes());
        list.extend(perm.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    for (path, name) in [
        ("/attrs/short", "system.posix_acl_access"),
        ("/attrs/acl-dir", "system.posix_acl_default"),
        ("/attrs/node", "system.posix_acl_access"),
    ] {
        let disk = attr::linux::to_disk(name.as_bytes(), &list).expect("a list").expect("more than a mode");
        let mut t = c.scope.begin(change::reservation(&c.volume.geometry, 200)).expect("room");
        change::set(&mut t, &c.space, file(&c.volume, path), (disk.flags, &disk.name), &disk.value, How::Upsert)
            .expect("set");
        t.commit().expect("committed");
    }
    c.finish();
    let mount = Mount::new(&image, "").expect("a mount");
    for (path, name) in [
        ("attrs/short", "system.posix_acl_access"),
        ("attrs/acl-dir", "system.posix_acl_default"),
        ("attrs/node", "system.posix_acl_access"),
    ] {
        let mut value = vec![0; 1000];
        let length = rustix::fs::getxattr(mount.path().join(path), name, &mut value[..]).expect("a list");
        assert_eq!(value[..length], list, "{path}");
    }
    mount.unmount().expect("an unmount");
    assert_clean("access control lists", &image);
}

/// Files whose data fork fills the inode in every form, and gets an attribute fork beside it.
#[test]
fn a_new_fork_pushes_out_what_fills_the_inode() {
    if require(MOUNT).is_none() {
        return;
    }
    for length in [1usize, 60, 250, 3000, 20_000] {
        let directory = tempfile::tempdir().expect("a directory");
        let image = kernel_made(directory.path(), 300, &["-m", "rmapbt=1"], full_inodes);
        let c = Changing::open(&image, Commits::Forced);
        let root = Inode::read(&c.volume, c.volume.geometry.root_ino, OnDamage::Fail).expect("the root");
        let entries = libxfsr::dir::entries(&c.volume, &root).expect("entries");
        let entries: Vec<_> = entries.into_iter().filter(|e| e.name != b"." && e.name != b"..").collect();
        assert!(entries.len() > 40);
        let value = vec![b'x'; length];
        for e in &entries {
            let mut t = c.scope.begin(change::reservation(&c.volume.geometry, length as u32)).expect("room");
            let key = (AttrFlags::ROOT, &b"new"[..]);
            change::set(&mut t, &c.space, e.ino, key, &value, How::Create).unwrap_or_else(|x| panic!("{e:?}: {x}"));
            t.commit().expect("committed");
        }
        c.finish();
        assert_clean(&format!("{length} bytes"), &image);
        let mount = Mount::new(&image, "").expect("a mount");
        for e in &entries {
            let name = String::from_utf8(e.name.clone()).expect("text");
            let path = mount.path().join(&name);
            assert_eq!(kernel(&path), BTreeMap::from([(b"trusted.new".to_vec(), value.clone())]), "{name}");
            let (what, n) = name.split_once('-').expect("a kind and a number");
            let n: usize = n.parse().expect("a number");
            match what {
                "link" => assert_eq!(std::fs::read_link(&path).expect("a target").as_os_str().len(), n),
                "dir" => assert_eq!(std::fs::read_dir(&path).expect("a directory").count(), n),
                "file" => {
                    let text = std::fs::read(&path).expect("contents");
                    assert!((0..n).all(|i| text[i * 16_384..][..4096].iter().all(|b| *b == i as u8)), "{name}");
                }
                _ => {}
            }
            // Linux makes such a link unreadable so.
            if what != "link" {
                rustix::fs::lremovexattr(&path, "trusted.new").expect("the kernel removes it");
            }
        }
        mount.unmount().expect("an unmount");
        let c = Changing::open(&image, Commits::Gathered);
        for e in entries.iter().filter(|e| e.name.starts_with(b"link")) {
            let mut t = c.scope.begin(change::reservation(&c.volume.geometry, length as u32)).expect("room");
            change::remove(&mut t, &c.space, e.ino, (AttrFlags::ROOT, b"new")).expect("removed");
            t.commit().expect("committed");
        }
        c.finish();
        assert_clean(&format!("{length} bytes, removed"), &image);
    }
}

fn full_inodes(root: &Path) {
    use std::os::unix::fs::FileExt as _;
    for n in [1, 50, 180, 192, 193, 240, 280, 300, 301, 320, 335, 336, 337, 500, 1000] {
        std::os::unix::fs::symlink("t".repeat(n), root.join(format!("link-{n}"))).expect("a link");
    }
    for n in 0..18 {
        let dir = root.join(format!("dir-{n}"));
        std::fs::create_dir(&dir).expect("a directory");
        (0..n).for_each(|i| std::fs::write(dir.join(format!("entry-{i:04}")), b"").expect("a file"));
    }
    for n in [0usize, 1, 5, 9, 12, 13, 17, 18, 19, 20, 21, 22, 40, 300] {
        let file = std::fs::File::create(root.join(format!("file-{n}"))).expect("a file");
        for i in 0..n {
            file.write_all_at(&[i as u8; 4096], i as u64 * 16_384).expect("written");
        }
        file.sync_all().expect("on the device");
    }
    for (n, kind) in [(0, rustix::fs::FileType::Fifo), (1, rustix::fs::FileType::CharacterDevice)] {
        let path = root.join(format!("special-{n}"));
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, 0o600.into(), rustix::fs::makedev(1, 3)).expect("a node");
    }
}
