//! Numbers of the superblock, wrong in all copies alike, so that no copy tells.

use super::bench::Bench;

impl Bench {
    fn in_all_superblocks(&self, field: &str, value: u32) {
        for ag in 0..4 {
            self.db(&[&format!("sb {ag}"), &format!("write -d {field} {value}")]);
        }
    }
}

#[test]
fn alignment_and_log_sectors_that_no_kernel_mounts_are_refused() {
    let Some(bench) = Bench::filled(|_| {}) else { return };
    let cases = [("inoalignmt", 4, 8), ("spino_align", 8, 4), ("logsectlog", 9, 0), ("logsectsize", 512, 0)];
    for (field, wrong, right) in cases {
        bench.in_all_superblocks(field, wrong);
        let v = bench.check(&[]);
        assert_eq!(v.code, 1, "{field}: {}", v.output);
        assert!(v.output.contains(&format!("sb.{field}.range")), "{field}: {}", v.output);
        assert!(bench.stock_is_damaged(), "{field}");
        bench.in_all_superblocks(field, right);
        let findings = bench.findings();
        assert!(findings.is_empty(), "{field}: {findings:?}");
    }
}

#[test]
fn without_sparse_inodes_an_alignment_that_mkfs_never_makes_is_a_finding() {
    let Some(bench) = Bench::made(&["-i", "sparse=0"], |_| {}) else { return };
    assert!(bench.findings().is_empty());
    bench.in_all_superblocks("inoalignmt", 3);
    assert!(bench.findings().iter().any(|f| f.code == "sb.inoalignmt.range"));
    assert!(bench.stock_is_damaged());
}
