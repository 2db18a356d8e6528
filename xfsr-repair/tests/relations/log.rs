//! Logs that hold what no log holds, and those that xfs_repair made.

use super::bench::Bench;
use libxfsr::format::inode::Dinode;

/// Byte at which the log starts, and its length in blocks of 512 bytes.
fn place(bench: &Bench) -> (u64, u64) {
    let g = bench.volume().geometry;
    (g.fsblock_to_daddr(g.log_start).unwrap().bytes(), u64::from(g.log_blocks) << g.bb_shift())
}

fn noise(blocks: usize) -> Vec<u8> {
    (0..blocks * 512).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8 | 1).collect()
}

#[test]
fn noise_in_a_clean_log_is_found_ahead_of_the_head_and_behind_it() {
    let Some(bench) = Bench::filled(|root| std::fs::write(root.join("file"), "content").unwrap()) else { return };
    let (start, blocks) = place(&bench);
    assert!(bench.findings().is_empty() && !bench.stock_is_damaged());
    // Where a search by halves comes by; at the end; and a lot of it where nobody else looks.
    for (at, count, stock) in [(blocks / 2 - 100, 200, true), (blocks - 1, 1, true), (blocks / 3, 5000, false)] {
        let mut old = vec![0; count * 512];
        bench.volume().data_target().read_at(&mut old, start + at * 512).unwrap();
        bench.write(start + at * 512, &noise(count));
        let findings = bench.findings();
        assert!(findings.iter().any(|f| f.code.starts_with("log.")), "{at}: {findings:?}");
        assert_eq!(bench.check(&[]).code, 1, "{at}");
        assert_eq!(bench.stock_is_damaged(), stock, "{at}");
        bench.write(start + at * 512, &old);
        assert!(bench.findings().is_empty());
    }
}

#[test]
fn of_a_long_log_parts_are_looked_at() {
    let options = ["-d", "agcount=2", "-l", "size=140m"];
    let fill = |root: &std::path::Path| std::fs::write(root.join("file"), "content").unwrap();
    let Some(bench) = Bench::made(&options, fill) else { return };
    let (start, blocks) = place(&bench);
    assert!(blocks > 2 * 1024 * 128 && bench.findings().is_empty());
    // As much as lies between the starts of two parts; and one block, at the end and where a search by halves comes by.
    for (at, count) in [(blocks / 3, 3 * 128), (blocks - 1, 1), ((blocks - 1) / 4, 1)] {
        bench.write(start + at * 512, &noise(count));
        let findings = bench.findings();
        assert!(findings.iter().any(|f| f.code.starts_with("log.")), "{at}: {findings:?}");
        bench.write(start + at * 512, &vec![0; count * 512]);
        assert!(bench.findings().is_empty());
    }
}

#[test]
fn a_log_that_xfs_repair_made_anew_is_clean() {
    let fill = |root: &std::path::Path| {
        for i in 0..3000 {
            std::fs::write(root.join(format!("file-{}", i % 700)), vec![1; i]).unwrap();
        }
    };
    let Some(bench) = Bench::filled(fill) else { return };
    xfsr_tests::run("xfs_repair", &["-L", bench.devices.data.to_str().unwrap()]).unwrap();
    let findings = bench.findings();
    assert!(findings.is_empty() && !bench.stock_is_damaged(), "{findings:?}");
}

#[test]
fn a_link_whose_size_is_less_than_its_blocks_hold_is_damage() {
    let fill = |root: &std::path::Path| std::os::unix::fs::symlink("x".repeat(1000), root.join("link")).unwrap();
    let Some(bench) = Bench::filled(fill) else { return };
    let ino = bench.find("/link");
    for size in [999, 500, 337, 1001] {
        bench.edit_inode(ino, |bytes| Dinode::from_bytes_mut(bytes).unwrap().size.set(size));
        let findings = bench.findings();
        assert!(findings.iter().any(|f| f.code.starts_with("inode.size")), "{size}: {findings:?}");
        assert!(bench.stock_is_damaged(), "{size}");
    }
}
