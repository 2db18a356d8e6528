//! Which devices are looked at: not those of a filesystem that is being written, and not those of another one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use xfsr_tests::corpus;
use xfsr_tests::oracle::{self, Devices, Loop, Mount, Verdict};

fn check(args: &[&str], devices: &Devices) -> Verdict {
    let words = args.iter().map(OsString::from).chain(devices.arguments()).chain([devices.data.clone().into()]);
    oracle::verdict(env!("CARGO_BIN_EXE_xfsr-repair"), &words.collect::<Vec<_>>()).expect("it runs")
}

fn file(dir: &Path, name: &str, mib: u64) -> PathBuf {
    let path = dir.join(name);
    std::fs::File::create(&path).and_then(|f| f.set_len(mib << 20)).expect("a file");
    path
}

fn json(v: &Verdict) -> serde_json::Value {
    serde_json::from_str(&v.output).unwrap_or_else(|e| panic!("{e}: {}", v.output))
}

#[test]
fn a_filesystem_mounted_writable_is_refused_and_one_mounted_read_only_is_checked() {
    if corpus::obtain("default").is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let image = corpus::copy("default", dir.path()).data;
    let device = Loop::attach(&image, false).expect("a loop device");
    let mount = Mount::new(device.path(), "").expect("a mount");
    let paths = [device.path().to_owned(), image.clone()];
    for path in paths.iter().chain([&mount.path().to_owned()]) {
        let v = check(&["-n"], &path.into());
        assert_eq!(v.code, 1, "{}: {}", path.display(), v.output);
        assert!(v.output.contains("nothing was checked; unmount"), "{}", v.output);
        let v = check(&["-n", "--json"], &path.into());
        let error = &json(&v)["error"];
        assert_eq!((v.code, error["kind"].as_str(), error["exit_status"].as_u64()), (1, Some("in-use"), Some(1)));
    }
    // The device's page cache now holds blocks that the kernel is about to change behind it.
    let held = std::fs::File::open(device.path()).expect("the device");
    std::io::copy(&mut &held, &mut std::io::sink()).expect("reading all of it");
    std::fs::create_dir(mount.path().join("new")).expect("a directory");
    for n in 0..500 {
        std::fs::write(mount.path().join(format!("new/{n}")), vec![7; 20_000]).expect("a file");
    }
    // What is on the device is seen, not what was read from it before.
    oracle::xfs_io(mount.path(), &["freeze", "thaw"]).expect("xfs_io");
    let volume = libxfsr::volume::Volume::open(&libxfsr::volume::Devices::data(device.path())).expect("a volume");
    let keep = libxfsr::cache::OnDamage::Keep;
    let root = libxfsr::inode::Inode::read(&volume, volume.geometry.root_ino, keep).expect("the root directory");
    assert!(libxfsr::dir::lookup(&volume, &root, b"new").expect("a directory").is_some(), "an old view");
    remount_read_only(&mount);
    for path in &paths {
        let v = check(&["-n"], &path.into());
        assert_eq!(v.code, 0, "{}: {}", path.display(), v.output);
        assert!(v.output.contains("clean, as far as can be told of a device in use"), "{}", v.output);
        assert!(v.output.contains(", read-only: what is seen may be inconsistent"), "{}", v.output);
    }
    mount.unmount().expect("unmounting");
    drop((held, device));
    let v = check(&["-n", "--json"], &Devices::from(&image));
    assert_eq!((v.code, json(&v)["verdict"].as_str()), (0, Some("clean")), "{}", v.output);
}

fn remount_read_only(mount: &Mount) {
    let out = std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(mount.path()).output();
    let out = out.expect("mount runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn a_log_in_use_is_refused_like_its_filesystem() {
    if oracle::require(oracle::MOUNT).is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let devices = Devices { data: file(dir.path(), "data", 300), log: Some(file(dir.path(), "log", 64)), rt: None };
    oracle::mkfs_xfs(&[], &devices).expect("mkfs.xfs");
    let mount = Mount::new(&devices, "").expect("a mount");
    // The log alone is in use: beside another filesystem's data device.
    let other = Devices { data: file(dir.path(), "other", 300), ..devices.clone() };
    std::fs::copy(&devices.data, &other.data).expect("a copy");
    let v = check(&["-n"], &other);
    assert_eq!(v.code, 1, "{}", v.output);
    assert!(v.output.contains("/log is mounted on") && v.output.contains("nothing was checked"), "{}", v.output);
    remount_read_only(&mount);
    let v = check(&["-n"], &devices);
    assert_eq!(v.code, 0, "{}", v.output);
    assert_eq!(v.output.matches("read-only: what is seen may be inconsistent").count(), 2, "{}", v.output);
    mount.unmount().expect("unmounting");
}

#[test]
fn devices_that_are_not_the_filesystems_are_wrong_usage() {
    if oracle::require(&["mkfs.xfs", "xfs_db"]).is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let made = ["a", "b"].map(|name| {
        let log = Some(file(dir.path(), &format!("{name}.log"), 64));
        let devices = Devices { data: file(dir.path(), name, 300), log, rt: None };
        oracle::mkfs_xfs(&[], &devices).expect("mkfs.xfs");
        devices
    });
    let plain = Devices::from(&file(dir.path(), "plain", 300));
    oracle::mkfs_xfs(&[], &plain).expect("mkfs.xfs");
    let refused = |devices: &Devices, why: &str| {
        let v = check(&["-n"], devices);
        assert_eq!(v.code, 1, "{}", v.output);
        assert!(v.output.contains(why), "{why}: {}", v.output);
        assert_eq!(v.output.lines().count(), 1, "more than a sentence: {}", v.output);
        let v = check(&["-n", "--json"], devices);
        assert_eq!((v.code, json(&v)["error"]["kind"].as_str()), (1, Some("usage")), "{}", v.output);
    };
    let [a, b] = &made;
    refused(&Devices { log: a.log.clone(), ..plain.clone() }, "is internal");
    refused(&Devices { rt: a.log.clone(), ..plain.clone() }, "has no realtime section");
    refused(&Devices { log: None, ..a.clone() }, "was not given");
    refused(&Devices { log: b.log.clone(), ..a.clone() }, "the log of another filesystem (UUID");
    refused(&Devices { log: Some(plain.data.clone()), ..a.clone() }, "holds a filesystem");
    assert_eq!(check(&["-n"], a).code, 0);
    // A log without records is damage, told once.
    let empty = Devices { log: Some(file(dir.path(), "empty", 64)), ..b.clone() };
    let v = check(&["-n", "--json"], &empty);
    assert_eq!((v.code, json(&v)["findings"].as_array().map(Vec::len)), (1, Some(1)), "{}", v.output);
    // Where the superblock's copies know better, it is the superblock that is wrong.
    oracle::xfs_db_write(a, &["sb 0", "write -d logstart 65542"]).expect("xfs_db");
    let v = check(&["-n"], a);
    assert!(v.code == 1 && v.output.contains("sb.logstart"), "{}", v.output);
    oracle::xfs_db_write(b, &["sb 0", "fuzz -d uuid middlebit"]).expect("xfs_db");
    let v = check(&["-n"], b);
    assert!(v.code == 1 && v.output.contains("sb.uuid") && !v.output.contains("another filesystem"), "{}", v.output);
}

#[test]
fn a_wiped_log_is_told_of_once() {
    if corpus::obtain("default").is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let image = corpus::copy("default", dir.path()).data;
    let volume = libxfsr::volume::Volume::open(&libxfsr::volume::Devices::data(&image)).expect("a volume");
    let start = volume.geometry.fsblock_to_daddr(volume.geometry.log_start).expect("the log").bytes();
    let length = u64::from(volume.geometry.log_blocks) << volume.geometry.block_log;
    for byte in [0, 0x5a] {
        use std::os::unix::fs::FileExt as _;
        let bytes = vec![byte; 1 << 20];
        let f = std::fs::OpenOptions::new().write(true).open(&image).expect("the image");
        for at in (0..length).step_by(bytes.len()) {
            let n = (length - at).min(bytes.len() as u64) as usize;
            f.write_all_at(&bytes[..n], start + at).expect("writing");
        }
        let v = check(&["-n", "--json"], &Devices::from(&image));
        let outcome = json(&v);
        let log = outcome["findings"].as_array().expect("findings").iter().filter(|f| f["structure"] == "log").count();
        assert_eq!((v.code, log), (1, 1), "{}", v.output);
    }
}
