//! What no block tells by itself: names that occur twice, parent pointers, quota, sharing. Each is damaged on an image that the
//! kernel wrote, so that all checksums are right, and must be found; where the stock tool knows it, it must say the same.

mod bench;
mod blocks;
mod links;
mod log;
mod numbers;
mod old_kernels;
mod parents;
mod quota;

use bench::{Bench, Finding};
use libxfsr::error::ForkKind;
use libxfsr::format::dir::hash_name;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

fn has(findings: &[Finding], code: &str, path: &str) -> bool {
    findings.iter().any(|f| f.code == code && f.path == path)
}

/// Two names with one hash, so that the index stays right when one becomes the other.
const FIRST: &str = "aaaaaaab";
const SECOND: &str = "aaaqaaac";

#[test]
fn equal_names_are_found_in_every_form() {
    let forms = [("short", 2), ("block", 40), ("leaf", 400), ("node", 4000)];
    let fill = |root: &std::path::Path| {
        for (dir, count) in forms {
            std::fs::create_dir(root.join(dir)).unwrap();
            for name in [FIRST, SECOND] {
                std::fs::write(root.join(dir).join(name), name).unwrap();
            }
            for i in 0..count {
                std::fs::hard_link(root.join(dir).join(FIRST), root.join(dir).join(format!("{i:05}-other"))).unwrap();
            }
        }
    };
    let Some(bench) = Bench::filled(fill) else { return };
    let g = bench.volume().geometry;
    assert_eq!(hash_name(&g, FIRST.as_bytes()), hash_name(&g, SECOND.as_bytes()));
    assert!(bench.findings().is_empty() && !bench.stock_is_damaged());
    for (dir, _) in forms {
        let ino = bench.find(&format!("/{dir}"));
        bench.replace(ino, ForkKind::Data, SECOND.as_bytes(), FIRST.as_bytes());
        let findings = bench.findings();
        assert_eq!(findings.len(), 1, "{dir}: {findings:?}");
        assert!(has(&findings, "directory.name.duplicate", &format!("/{dir}")), "{findings:?}");
        assert!(bench.stock_is_damaged(), "{dir}");
        bench.replace(ino, ForkKind::Data, FIRST.as_bytes(), SECOND.as_bytes());
        // The first of the two may have become the second; both are there again.
        let findings = bench.findings();
        assert!(findings.is_empty(), "{dir}: {findings:?}");
    }
}

#[test]
fn names_that_differ_in_case_only_are_equal_to_ascii_ci() {
    let Some(bench) = Bench::of("ascii-ci") else { return };
    let ino = bench.find("/cases");
    bench.replace(ino, ForkKind::Data, b"UPPER", b"LoWeR");
    let findings = bench.findings();
    assert!(has(&findings, "directory.name.duplicate", "/cases"), "{findings:?}");
}

#[test]
fn a_path_is_told_and_cannot_steer_a_terminal() {
    let name = OsStr::from_bytes(b"\x1b[31mred\n\xff\\");
    let fill = |root: &std::path::Path| {
        let dir = root.join("one/two three");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(name), "x").unwrap();
    };
    let Some(bench) = Bench::filled(fill) else { return };
    let volume = bench.volume();
    let dir = bench.inode(bench.find("/one/two three"));
    let ino = libxfsr::dir::lookup(&volume, &dir, name.as_bytes()).unwrap().unwrap();
    bench.edit_inode(ino, |b| libxfsr::format::inode::Dinode::from_bytes_mut(b).unwrap().nlink.set(7));
    let shown = "/one/two three/\\x1b[31mred\\x0a\\xff\\\\";
    let findings = bench.findings();
    assert!(has(&findings, "nlinks.nlink.count", shown), "{findings:?}");
    let text = bench.check(&[]).output;
    assert!(text.contains(shown) && !text.contains('\x1b'), "{text}");
    assert!(bench.stock_is_damaged());
}

#[test]
fn a_file_that_shares_blocks_has_the_reflink_flag() {
    let Some(bench) = Bench::of("default") else { return };
    let ino = bench.find("/reflink/clone-0");
    bench.db(&[&format!("inode {ino}"), "write -d v3.reflink 0"]);
    let findings = bench.findings();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(has(&findings, "inode.flags2.flags", "/reflink/clone-0"), "{findings:?}");
    assert!(bench.stock_is_damaged());
}

#[test]
fn what_is_staged_for_copy_on_write_belongs_to_nobody() {
    let Some(bench) = Bench::of("default") else { return };
    let number = |ag: u32, commands: &[&str]| -> u32 {
        let all: Vec<String> =
            std::iter::once(format!("agf {ag}")).chain(commands.iter().map(|c| c.to_string())).collect();
        let text = xfsr_tests::oracle::xfs_db(&bench.devices, &all).unwrap();
        text.trim().rsplit(' ').next().unwrap().parse().unwrap()
    };
    let count = |ag| match number(ag, &["print refcntlevel"]) {
        1 => number(ag, &["addr refcntroot", "print numrecs"]),
        _ => 0,
    };
    let ag = (0..4).find(|ag| count(*ag) > 0).expect("an AG whose refcount btree is one leaf");
    // Staged extents come last in the tree, so that the order stays right.
    let last = count(ag);
    let (flag, refs) = (format!("write -d recs[{last}].cowflag 1"), format!("write -d recs[{last}].refcount 1"));
    bench.db(&[&format!("agf {ag}"), "addr refcntroot", &flag, &refs]);
    let findings = bench.findings();
    let double =
        findings.iter().find(|f| f.code == "block.owner.doubly-owned").unwrap_or_else(|| panic!("{findings:?}"));
    assert!(double.text.contains("CoW staging"), "{double:?}");
    assert!(bench.stock_is_damaged());
}
