//! What is mounted may change while it is looked at.

#[test]
fn it_says_that_a_mounted_filesystem_may_look_inconsistent() {
    xfsr_tests::interact::reader_warns(env!("CARGO_BIN_EXE_xfsr-db"), &["-c", "sb 0"]);
}

#[test]
fn it_says_that_a_log_is_dirty_and_that_an_image_is_cut_off() {
    xfsr_tests::interact::reader_tells_of_images(env!("CARGO_BIN_EXE_xfsr-db"), &["-c", "sb 0", "-c", "agf 0"]);
}

#[test]
fn a_dirty_log_is_recovered_to_be_looked_at_or_left_alone() {
    let Some(devices) = xfsr_tests::corpus::obtain("dirty") else { return };
    let before = std::fs::read(&devices.data).expect("an image");
    let run = |options: &[&str]| {
        let mut c = std::process::Command::new(env!("CARGO_BIN_EXE_xfsr-db"));
        c.args(options).args(["-c", "sb 0", "-c", "print ifree fdblocks lsn", "-c", "agi 0", "-c", "print lsn"]);
        let done = c.arg(&devices.data).output().expect("xfsr-db starts");
        assert!(done.status.success());
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (text(&done.stdout), text(&done.stderr))
    };
    let disk = xfsr_tests::oracle::xfs_db(&devices, &["sb 0", "print ifree fdblocks lsn", "agi 0", "print lsn"]);
    let (as_is, _) = run(&["--as-is"]);
    assert_eq!(as_is.trim(), disk.expect("xfs_db").trim());
    let (recovered, note) = run(&[]);
    assert_ne!(recovered, as_is);
    assert!(note.contains("log"), "{note}");
    assert!(std::fs::read(&devices.data).expect("an image") == before);
}
