//! `--restore` makes of a metadump what xfs_mdrestore makes, and writes to nothing that exists.

mod common;

use common::{Run, command};
use std::ffi::OsStr;
use std::path::Path;
use xfsr_tests::{corpus, oracle, run};

fn restore(dump: &Path, image: &Path) -> Run {
    command(&["--restore".into(), dump.into(), image.into()]).output().expect("xfsr-db starts").into()
}

#[test]
fn a_dump_becomes_the_image_that_xfs_mdrestore_makes() {
    if oracle::require(&["xfs_metadump", "xfs_mdrestore", "cmp"]).is_none() {
        return;
    }
    for name in ["default", "b64k"] {
        let Some(devices) = corpus::obtain(name) else { return };
        let dir = tempfile::tempdir().expect("a directory");
        let [dump, theirs, ours, cut] = ["dump", "theirs", "ours", "cut"].map(|n| dir.path().join(n));
        run("xfs_metadump", &[OsStr::new("-o"), devices.data.as_os_str(), dump.as_os_str()]).expect("a dump");
        run("xfs_mdrestore", &[&dump, &theirs]).expect("an image");
        let made = restore(&dump, &ours);
        assert_eq!((made.code, made.err.as_str()), (0, ""), "{name}");
        let same = xfsr_tests::output("cmp", &[OsStr::new("-s"), ours.as_os_str(), theirs.as_os_str()]);
        assert!(same.expect("cmp starts").status.success(), "{name}: another image than xfs_mdrestore's");
        let listed = command(&["-c".into(), "ls /dirs".into(), ours.clone().into()]).output().expect("xfsr-db starts");
        assert!(String::from_utf8_lossy(&listed.stdout).contains(" leaf (good)"), "{listed:?}");
        // What exists stays as it is, and what fails leaves nothing.
        let again = restore(&dump, &ours);
        assert!(again.code == 1 && again.err.contains("ours"), "{}", again.err);
        let bytes = std::fs::read(&dump).expect("the dump");
        let half = bytes.get(..bytes.len() / 2 / 512 * 512 + 7).expect("a half");
        std::fs::write(&cut, half).expect("a file");
        let image = dir.path().join("of-cut");
        let failed = restore(&cut, &image);
        assert!(failed.code == 1 && failed.err.contains("metadump"), "{}", failed.err);
        assert!(!common::exists(&image));
        let failed = restore(&devices.data, &image);
        assert!(failed.code == 1 && !common::exists(&image), "{}", failed.err);
    }
}
