//! Quota records and the usage in them.

use super::bench::Bench;

const USER: &str = "dquot -u 1001";

/// What is written, what must be found (where it is a warning only, the check still says clean), and whether the stock tool
/// says damaged.
const CASES: [(&[&str], &str, bool); 14] = [
    (&[USER, "write -d diskdq.bcount 5"], "usrquota.bcount.count", true),
    (&["dquot -g 500", "write -d diskdq.icount 77"], "grpquota.icount.count", true),
    (&["dquot -p 101", "write -d diskdq.rtbcount 3"], "prjquota.rtbcount.count", true),
    (&["dquot -u 0", "write -d diskdq.icount 0"], "usrquota.icount.count", true),
    (&[USER, "write -d diskdq.id 5"], "dquot.id.address", true),
    (&[USER, "write -d diskdq.type 2"], "dquot.type.flags", true),
    (&[USER, "write -d diskdq.magic 0"], "dquot.magic.magic", true),
    (&[USER, "write -c diskdq.bcount 5"], "dquot.crc.crc", true),
    // Over the soft limit, and no grace period runs.
    (&[USER, "write -d diskdq.blk_softlimit 1"], "dquot.btimer.missing", true),
    (&[USER, "write -d diskdq.blk_softlimit 99999"], "usrquota.blk_softlimit.range", false),
    (&[USER, "write -d diskdq.btimer 99999"], "usrquota.btimer.extra", false),
    (
        &[USER, "write -d diskdq.ino_softlimit 2", "write -d diskdq.ino_hardlimit 3", "write -d diskdq.itimer 99"],
        "usrquota.ino_hardlimit.range",
        false,
    ),
    (&["sb 0", "write -d gquotino 0"], "sb.qflags.mismatch", true),
    (&["sb 0", "addr uquotino", "write -d core.size 1"], "usrquota.size.range", true),
];

#[test]
fn damage_to_records_is_found() {
    for (commands, code, stock) in CASES {
        let Some(bench) = Bench::of("quota") else { return };
        bench.db(commands);
        let findings = bench.findings();
        assert!(findings.iter().any(|f| f.code == code), "{commands:?}: {findings:?}");
        assert_eq!(bench.stock_is_damaged(), stock, "{commands:?}");
    }
}

#[test]
fn usage_is_compared_with_the_owners_of_all_inodes() {
    let Some(bench) = Bench::of("quota") else { return };
    let ino = bench.find("/owners/1001-3");
    bench.db(&[&format!("inode {ino}"), "write -d core.uid 77777"]);
    let mut codes: Vec<String> = bench.findings().into_iter().map(|f| f.code).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["usrquota.bcount.count", "usrquota.icount.count", "usrquota.id.missing"]);
    assert!(bench.stock_is_damaged());
}

#[test]
fn usage_that_was_never_counted_is_not_compared() {
    let Some(bench) = Bench::of("quota") else { return };
    // All flags but the one that says that users' usage was counted.
    bench.db(&["sb 0", "write -d qflags 0x7cb"]);
    bench.db(&[USER, "write -d diskdq.bcount 5"]);
    assert!(bench.findings().is_empty());
    assert!(!bench.stock_is_damaged());
    let text = bench.check(&[]).output;
    assert!(text.contains("not applicable: quotacheck: user quota: not marked as counted"), "{text}");
}
