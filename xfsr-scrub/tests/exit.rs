//! xfs_scrub's exit codes.

use std::ffi::OsString;
use xfsr_tests::{corpus, oracle};

fn scrub(args: &[OsString]) -> oracle::Verdict {
    oracle::verdict(env!("CARGO_BIN_EXE_xfsr-scrub"), args).unwrap()
}

#[test]
fn the_sum_says_what_was_found() {
    if corpus::obtain("default").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = corpus::copy("default", dir.path()).data;
    assert_eq!(scrub(&["-n".into(), image.clone().into()]).code, 0);
    oracle::xfs_db_write(&image, &["inode 128", "write -d core.nlinkv2 77"]).unwrap();
    let v = scrub(&["-n".into(), image.into()]);
    assert_eq!(v.code, 1, "{}", v.output);
    assert!(v.output.contains("nlinks.nlink.count at inode 128"), "{}", v.output);
}

#[test]
fn wrong_usage_and_missing_files_have_their_own_codes() {
    assert_eq!(scrub(&["--nonsense".into()]).code, 8);
    assert_eq!(scrub(&["/nonexistent".into()]).code, 8);
    assert_eq!(scrub(&["-n".into(), "/nonexistent".into()]).code, 4);
}
