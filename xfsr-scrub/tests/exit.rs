//! xfs_scrub's exit codes.

use std::ffi::OsString;
use xfsr_tests::{corpus, oracle};

fn scrub(args: &[OsString]) -> oracle::Verdict {
    oracle::verdict(env!("CARGO_BIN_EXE_xfsr-scrub"), args).unwrap()
}

fn check(devices: &oracle::Devices) -> oracle::Verdict {
    let mut args: Vec<OsString> = vec!["-n".into()];
    args.extend(devices.arguments());
    args.push(devices.data.clone().into());
    scrub(&args)
}

#[test]
fn the_sum_says_what_was_found() {
    if corpus::obtain("default").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = corpus::copy("default", dir.path()).data;
    assert_eq!(scrub(&["-n".into(), image.clone().into()]).code, 0);
    // Another label in a copy of the superblock is no damage.
    oracle::xfs_db_write(&image, &["sb 1", "write fname \"another\""]).unwrap();
    let v = scrub(&["-n".into(), image.clone().into()]);
    assert_eq!(v.code, 2, "{}", v.output);
    assert!(v.output.contains("sb.fname.mismatch at ag 1"), "{}", v.output);
    oracle::xfs_db_write(&image, &["inode 128", "write -d core.nlinkv2 77"]).unwrap();
    let v = scrub(&["-n".into(), image.into()]);
    assert_eq!(v.code, 1 + 2, "{}", v.output);
    assert!(v.output.contains("nlinks.nlink.count at inode 128"), "{}", v.output);
}

#[test]
fn with_a_dirty_log_what_recovery_makes_of_it_is_checked() {
    for recipe in corpus::selected().filter(|r| r.end == corpus::End::Dirty) {
        let Some(devices) = corpus::obtain(recipe.name) else { continue };
        let v = check(&devices);
        // Like Linux's recovery that leaves attributes that were being set, where there are any.
        let left = v.output.lines().filter(|l| l.contains("xattr.flags.flags")).count();
        assert!(left == 0 || v.output.contains(&format!("damaged: {left} findings")), "{}: {}", recipe.name, v.output);
        assert_eq!(v.code, i32::from(left > 0), "{}: {}", recipe.name, v.output);
        assert!(v.output.contains("the log is dirty: what is seen is as it is after its recovery"), "{}", v.output);
    }
}

#[test]
fn other_devices_are_taken_and_missed() {
    if oracle::require(oracle::MOUNT).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, mib: u64| {
        let path = dir.path().join(name);
        std::fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
        path
    };
    let devices = oracle::Devices { data: make("data", 300), log: Some(make("log", 64)), rt: Some(make("rt", 64)) };
    oracle::mkfs_xfs(&["-m", "reflink=0"], &devices).unwrap();
    let v = check(&devices);
    assert_eq!(v.code, 0, "{}", v.output);
    // Without its log nothing can be said; with a device that it does not have neither.
    let v = check(&oracle::Devices { log: None, ..devices.clone() });
    assert_eq!(v.code, 8, "{}", v.output);
    assert!(v.output.contains("log is on a device of its own"), "{}", v.output);
    let v = check(&oracle::Devices { log: devices.rt.clone(), ..devices.clone() });
    assert_eq!(v.code, 1, "an empty log is damage: {}", v.output);
    let v = check(&oracle::Devices { log: Some(devices.data.clone()), ..devices.clone() });
    assert_eq!(v.code, 8, "{}", v.output);
    assert!(v.output.contains("holds a filesystem"), "{}", v.output);
}

#[test]
fn what_is_mounted_is_never_called_clean() {
    if corpus::obtain("default").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let devices = corpus::copy("default", dir.path());
    let mount = oracle::Mount::new(&devices, "").unwrap();
    for path in [mount.path(), &devices.data] {
        let v = scrub(&["-n".into(), path.into()]);
        assert_eq!(v.code, 4, "{}: {}", path.display(), v.output);
        assert!(v.output.contains("is mounted on") && v.output.contains("nothing was checked"), "{}", v.output);
    }
    mount.unmount().unwrap();
    assert_eq!(check(&devices).code, 0);
}

#[test]
fn options_change_how_it_is_done_and_not_what_is_found() {
    let Some(devices) = corpus::obtain("default") else { return };
    let run = |options: &[&str]| {
        let words = options.iter().map(OsString::from).chain([devices.data.clone().into()]).collect::<Vec<_>>();
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_xfsr-scrub")).args(words).output().expect("it runs");
        assert_eq!(out.status.code(), Some(0), "{options:?}");
        [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned())
    };
    let [answer, quiet] = run(&["-n"]);
    assert!(answer.ends_with("clean\n") && quiet.is_empty(), "{answer} {quiet}");
    for options in [&["-n", "-b"][..], &["-n", "-bb", "-k"], &["-n", "-e", "continue"], &["-n", "-T"], &["-n", "-v"]] {
        let [out, said] = run(options);
        assert_eq!(out, answer, "{options:?}");
        let timed = said.lines().filter(|l| l.contains("inodes: ") && l.contains(" MiB so far")).count();
        assert_eq!(timed, usize::from(options.contains(&"-T") || options.contains(&"-v")), "{options:?}: {said}");
    }
    let [_, said] = run(&["-n", "-vv"]);
    assert!(said.contains("the log is clean, its head at cycle") && said.contains("meta-data="), "{said}");
}

#[test]
fn v4_is_refused_in_a_sentence() {
    oracle::v4_is_refused(env!("CARGO_BIN_EXE_xfsr-scrub"), &["-n"], 4);
}

#[test]
fn wrong_usage_and_missing_files_have_their_own_codes() {
    assert_eq!(scrub(&["--nonsense".into()]).code, 8);
    assert_eq!(scrub(&["/nonexistent".into()]).code, 8);
    assert_eq!(scrub(&["-n".into(), "-x".into(), "/nonexistent".into()]).code, 8);
    assert_eq!(scrub(&["-n".into(), "-e".into(), "shutdown".into(), "/nonexistent".into()]).code, 8);
    assert_eq!(scrub(&["-n".into(), "/nonexistent".into()]).code, 4);
}

#[test]
fn it_tells_its_version() {
    let v = scrub(&["-V".into()]);
    assert_eq!((v.code, v.output.trim_end()), (0, concat!("xfsr-scrub ", env!("CARGO_PKG_VERSION"))));
}
