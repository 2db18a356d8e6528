//! What is mounted is never written to, whatever the path and with -f.

use std::ffi::OsString;
use xfsr_tests::corpus;
use xfsr_tests::interact::{self, Mounted};
use xfsr_tests::oracle::{self, Devices, Loop, Mount};

const PROGRAM: &str = env!("CARGO_BIN_EXE_xfsr-mkfs");

#[test]
fn a_mounted_filesystem_is_refused_by_every_path() {
    let Some(mounted) = Mounted::new() else { return };
    let before = mounted.superblock();
    for path in &mounted.paths {
        for options in [&[][..], &["-f"], &["-f", "-K"], &["-f", "-d", "size=300m"]] {
            let args: Vec<OsString> = options.iter().map(OsString::from).chain([path.into()]).collect();
            let said = oracle::verdict(PROGRAM, &args).expect("it runs");
            assert_eq!(said.code, 1, "{} {options:?}: {}", path.display(), said.output);
            assert!(said.output.contains("mounted on"), "{} {options:?}: {}", path.display(), said.output);
        }
    }
    assert_eq!(mounted.superblock(), before, "the superblock was written");
    let root = std::fs::read_dir(mounted.mount.path()).expect("a directory").count();
    assert!(root > 0, "the mounted filesystem is no longer what it was");
}

#[test]
fn looking_at_a_mounted_filesystem_says_so() {
    interact::reader_warns(PROGRAM, &["-N"]);
}

#[test]
fn a_loop_device_on_a_loop_device_is_seen_through() {
    if corpus::obtain("default").is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy("default", directory.path()).data;
    let lower = Loop::attach(&image, false).expect("a loop device");
    let mount = Mount::new(Devices::from(lower.path()), "").expect("a mount");
    for path in [&image, &lower.path().to_owned()] {
        let said = oracle::verdict(PROGRAM, &["-f".into(), path.into()]).expect("it runs");
        assert!(said.code == 1 && said.output.contains("mounted on"), "{}: {}", path.display(), said.output);
    }
    mount.unmount().expect("unmounting");
}
