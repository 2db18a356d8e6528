//! A v4 filesystem is refused in a sentence.

use xfsr_tests::oracle;

#[test]
fn v4_is_refused_in_a_sentence() {
    if oracle::require(&["mkfs.xfs"]).is_none() {
        return;
    }
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(300 << 20).unwrap();
    oracle::mkfs_xfs(&["-m", "crc=0"], image.path()).unwrap();
    let args = ["-c".into(), "sb 0".into(), image.path().into()];
    let v = oracle::verdict(env!("CARGO_BIN_EXE_xfsr-db"), &args).unwrap();
    assert_eq!(v.code, 1, "{}", v.output);
    assert!(v.output.contains("XFS v4 filesystem"), "{}", v.output);
}
