//! What is read of a mounted device is what its filesystem wrote last, not what the device's page cache held before.

use libxfsr::target::{Access, FileTarget, Target};
use std::io::{Seek as _, SeekFrom, Write as _};
use xfsr_tests::interact::Mounted;
use xfsr_tests::oracle;

#[test]
fn a_mounted_device_is_not_read_from_an_old_page_cache() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.mount.path().join("written twice");
    let mut file = std::fs::File::create(&path).expect("a file");
    let mut write = |byte: u8| {
        file.seek(SeekFrom::Start(0)).expect("the start");
        file.write_all(&[byte; 256 << 10]).expect("written");
        file.sync_all().expect("on disk");
    };
    write(b'a');
    // `0: [0..511]: 96..607`, in units of 512 bytes.
    let said = oracle::verdict("xfs_io", &["-r".into(), "-c".into(), "bmap".into(), path.into()]).expect("it runs");
    let place = said.output.split("]: ").nth(1).and_then(|s| s.split("..").next()).and_then(|n| n.parse::<u64>().ok());
    let place = place.unwrap_or_else(|| panic!("the file's extent: {}", said.output)) * 512;
    let seen = || {
        let device = FileTarget::open(&mounted.paths[0], Access::Read).expect("the device");
        let mut bytes = vec![0; 4096];
        device.read_at(&mut bytes, place).expect("inside");
        bytes
    };
    assert_eq!(seen(), [b'a'; 4096]);
    write(b'b');
    assert_eq!(seen(), [b'b'; 4096]);
}
