//! What kernels of other times leave on disk, and what neither the kernel nor the stock tool takes for damage.

use super::bench::Bench;
use libxfsr::attr;
use libxfsr::error::ForkKind;
use libxfsr::format::inode::{Dinode, Flags};
use libxfsr::format::seal_checksum;
use libxfsr::units::FsBlock;
use rustix::fs::XattrFlags;

#[test]
fn remote_values_may_carry_the_number_of_a_transaction() {
    let value: Vec<u8> = (0..20_000).map(|i| i as u8).collect();
    let fill = |root: &std::path::Path| {
        std::fs::write(root.join("file"), "x").unwrap();
        rustix::fs::setxattr(root.join("file"), "user.large", &value, XattrFlags::empty()).unwrap();
    };
    let Some(bench) = Bench::filled(fill) else { return };
    let volume = bench.volume();
    let ino = bench.find("/file");
    let mut changed = 0;
    for extent in bench.inode(ino).extents(&volume, ForkKind::Attr).unwrap() {
        for block in extent.start..extent.start + extent.count {
            let offset = volume.geometry.fsblock_to_daddr(FsBlock(block)).unwrap().bytes();
            let mut bytes = vec![0; 4096];
            volume.data_target().read_at(&mut bytes, offset).unwrap();
            if bytes.starts_with(b"XARM") {
                // Kernels before 4.3 did so.
                bytes[48..56].copy_from_slice(&0x1_0000_0002_u64.to_be_bytes());
                seal_checksum(&mut bytes, 12);
                bench.write(offset, &bytes);
                changed += 1;
            }
        }
    }
    assert_eq!(changed, 5);
    assert!(!bench.stock_is_damaged());
    let findings = bench.findings();
    assert!(findings.is_empty(), "{findings:?}");
    let all = attr::list(&bench.volume(), &bench.inode(ino)).unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].value, value);
}

#[test]
fn slots_of_the_free_list_that_are_not_in_use_may_hold_what_a_shrunk_ag_has_lost() {
    let Some(bench) = Bench::made(&["-d", "agsize=90m"], |_| {}) else { return };
    let g = bench.volume().geometry;
    let last = g.ag_count - 1;
    let place = format!("agfl {last}");
    bench.db(&[&place, &format!("write -d bno[100] {}", g.agblocks - 1)]);
    assert!(!bench.stock_is_damaged());
    let findings = bench.findings();
    assert!(findings.is_empty(), "{findings:?}");
    bench.db(&[&place, &format!("write -d bno[100] {}", g.agblocks)]);
    assert_eq!(bench.findings().iter().map(|f| f.code.as_str()).collect::<Vec<_>>(), ["agfl.bno.range"]);
}

#[test]
fn flags_that_newer_kernels_set_on_special_files_are_no_damage() {
    let fill = |root: &std::path::Path| std::os::unix::fs::symlink("target", root.join("link")).unwrap();
    let Some(bench) = Bench::filled(fill) else { return };
    let ino = bench.find("/link");
    bench
        .edit_inode(ino, |b| Dinode::from_bytes_mut(b).unwrap().flags.set((Flags::IMMUTABLE | Flags::PREALLOC).bits()));
    assert!(!bench.stock_is_damaged());
    let findings = bench.findings();
    assert_eq!(findings.iter().map(|f| f.code.as_str()).collect::<Vec<_>>(), ["inode.flags.flags"; 2]);
    assert_eq!(bench.check(&[]).code, 0);
}
