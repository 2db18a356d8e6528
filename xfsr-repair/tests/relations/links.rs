//! Directories that nothing leads to, and those that were removed while somebody had them open.

use super::bench::Bench;
use libxfsr::error::ForkKind;
use libxfsr::format::inode::{Dinode, fork_bytes_mut};

#[test]
fn a_directory_that_no_entry_leads_to_is_unreachable() {
    let fill = |root: &std::path::Path| std::fs::create_dir_all(root.join("above/lost/below")).unwrap();
    let Some(bench) = Bench::filled(fill) else { return };
    assert!(bench.findings().is_empty() && !bench.stock_is_damaged());
    let lost = bench.find("/above/lost");
    // The only entry goes, and the link count with it: no count is wrong.
    bench.edit_inode(bench.find("/above"), |bytes| {
        let core = Dinode::from_bytes_mut(bytes).unwrap();
        core.size.set(6);
        core.nlink.set(2);
        fork_bytes_mut(bytes, ForkKind::Data)[0] = 0;
    });
    bench.edit_inode(lost, |bytes| Dinode::from_bytes_mut(bytes).unwrap().nlink.set(3));
    let findings = bench.findings();
    assert!(findings.iter().any(|f| f.code == "nlinks.inode.unreachable"), "{findings:?}");
    assert!(bench.stock_is_damaged());
}

#[test]
fn of_inodes_on_unlinked_lists_there_are_warnings_only() {
    let Some(bench) = Bench::of("orphans") else { return };
    let findings = bench.findings();
    // 150 files, 10 temporary ones, and 20 directories.
    assert_eq!(findings.len(), 180, "{findings:?}");
    assert!(findings.iter().all(|f| f.code == "agi.unlinked.extra"), "{findings:?}");
}
