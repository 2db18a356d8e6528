//! `logprint`: text and JSON, clean and dirty logs, external ones, in a restored metadump, damaged ones.

mod common;

use common::{Run, ours};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::FileExt as _;
use xfsr_tests::oracle::{self, Devices};
use xfsr_tests::{corpus, run};

/// Items that the summary counts.
fn counted(text: &str) -> BTreeMap<String, u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("items: ")).unwrap_or_default();
    let pairs = line.split(", ").filter_map(|p| p.split_once(' '));
    pairs.map(|(n, kind)| (kind.to_owned(), n.parse().expect("a number"))).collect()
}

fn print(devices: &Devices, options: &str) -> Run {
    ours(devices, &[format!("logprint {options}")])
}

#[test]
fn transactions_and_items_are_shown() {
    for name in ["dirty", "dirty-parent", "dirty-quota", "dirty-external-log"] {
        if name == "dirty-external-log" && !common::full() {
            continue;
        }
        let Some(devices) = corpus::obtain(name) else { continue };
        let made = print(&devices, "-t");
        assert_eq!(made.code, 0, "{name}: {}", made.err);
        let text = made.text();
        let lines = |start: &str| text.lines().filter(|l| l.starts_with(start)).count() as u64;
        let items = counted(&text);
        assert!(items.len() > 6 && items["buf"] > 1000, "{name}: {items:?}");
        for (kind, n) in &items {
            assert_eq!(lines(&format!("  {kind} ")), *n, "{name}: {kind}");
        }
        assert!(text.contains("state dirty, tail 1,") && lines("record ") > 100, "{name}");
        assert!(lines("transaction ") > 50 && lines("  inode ") > 1000, "{name}");
        // More is said of what is asked for only.
        assert!(!text.contains(" chunks ") && !text.contains("nlink") && !text.contains("    0000:"), "{name}");
        for (option, word) in [("-tb", " chunks 0+"), ("-ti", " nlink "), ("-to", "\n    0000: ")] {
            assert!(print(&devices, option).text().contains(word), "{name}: {option}");
        }
        if name == "dirty-quota" {
            assert!(print(&devices, "-tq").text().contains(" blk_hardlimit "));
        }
        // The same as data.
        let json = print(&devices, "-t -j").text();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{name}: {e}"));
        let entries = value["entries"].as_array().expect("entries");
        for (kind, n) in &items {
            let same = entries.iter().filter(|e| e["entry"] == "item" && e["kind"] == **kind).count();
            assert_eq!(same as u64, *n, "{name}: {kind}");
            assert_eq!(value["totals"]["items"][kind], *n, "{name}: {kind}");
        }
        let first = |kind: &str| entries.iter().find(|e| e["kind"] == kind).unwrap_or_else(|| panic!("{name}: {kind}"));
        assert!(first("buf")["daddr"].is_u64() && first("buf")["chunks"][0]["count"].is_u64());
        assert!(first("inode")["core"]["mode"].is_u64() && first("inode")["lsn"]["cycle"] == 1);
        assert!(first("efi")["id"].as_str().is_some_and(|id| id.starts_with("0x")));
        assert!(first("efi")["extents"][0]["blocks"].is_u64());
        if name == "dirty-parent" {
            assert!(first("attri")["operation"].as_str().is_some_and(|o| o.starts_with("pptr")));
            assert!(first("xmi")["ino1"].is_u64() && first("rui")["changes"][0]["owner"].is_i64());
        }
    }
}

#[test]
fn records_and_operations_are_shown() {
    let Some(devices) = corpus::obtain("dirty") else { return };
    let (all, records) = (print(&devices, "").text(), print(&devices, "-d").text());
    let count = |text: &str, start: &str| text.lines().filter(|l| l.starts_with(start)).count();
    let records = count(&records, "record ");
    assert!(records > 300 && count(&all, "record ") == records, "{records}");
    assert!(count(&all, "  0 tid ") == records && all.contains("(inode 2 of ") && all.contains(" commit\n"));
    // From a block on, at which a record starts.
    let block = all.lines().filter_map(|l| l.strip_prefix("record 1,")).nth(20).and_then(|l| l.split(' ').next());
    let rest = print(&devices, &format!("-d -s {}", block.expect("a record"))).text();
    assert_eq!(count(&rest, "record "), records - 20);
    for (bad, word) in [
        ("-x", "-x"),
        ("block", "options"),
        ("-s", "block"),
        ("-s 99999999", "131072 blocks"),
        ("-t -s 5", "-s"),
        ("-td", "-d"),
        ("-i", "-t"),
    ] {
        let run = print(&devices, bad);
        assert!(run.code == 1 && run.err.contains(word), "{bad}: {}", run.err);
    }
}

#[test]
fn a_clean_log_and_one_that_was_not_given() {
    let Some(devices) = corpus::obtain("default") else { return };
    let made = print(&devices, "-t");
    assert!(made.code == 0 && made.text().contains("state clean") && made.text().contains("records 1 "), "{made:?}");
    if oracle::require(&["mkfs.xfs"]).is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, size: u64| {
        let path = dir.path().join(name);
        std::fs::File::create(&path).and_then(|f| f.set_len(size)).expect("a file");
        path
    };
    let devices = Devices { data: file("data", 300 << 20), log: Some(file("log", 70 << 20)), rt: None };
    oracle::mkfs_xfs(&[], &devices).expect("mkfs.xfs");
    let made = print(&devices, "");
    assert!(made.code == 0 && made.text().starts_with("external log at daddr 0, 143360 blocks"), "{made:?}");
    assert!(made.text().contains("crc 00000000 absent") && made.text().contains("unmount"), "{made:?}");
    let without = print(&Devices { log: None, ..devices }, "");
    assert!(without.code == 1 && without.err.contains("log"), "{without:?}");
}

#[test]
fn a_log_in_a_restored_dump() {
    if oracle::require(&["xfs_metadump", "xfs_mdrestore"]).is_none() {
        return;
    }
    let Some(devices) = corpus::obtain("dirty") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let [dump, image] = ["dump", "image"].map(|n| dir.path().join(n));
    run("xfs_metadump", &[OsStr::new("-o"), devices.data.as_os_str(), dump.as_os_str()]).expect("a dump");
    run("xfs_mdrestore", &[&dump, &image]).expect("an image");
    let restored = print(&Devices::from(&image), "-t").text();
    assert!(restored.contains("transaction ") && restored == print(&devices, "-t").text());
}

#[test]
fn a_damaged_log_is_shown_as_far_as_it_goes() {
    let Some(_) = corpus::obtain("dirty") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let devices = corpus::copy("dirty", dir.path());
    let sound = print(&devices, "-t").text();
    let blocks: Vec<u64> =
        sound.lines().filter_map(|l| l.strip_prefix("record 1,")?.split(' ').next()?.parse().ok()).collect();
    let daddr: u64 =
        sound.split_whitespace().nth(4).and_then(|w| w.trim_end_matches(',').parse().ok()).expect("a daddr");
    let image = std::fs::OpenOptions::new().write(true).open(&devices.data).expect("the copy");
    image.write_all_at(&[0x5a; 700], (daddr + blocks[blocks.len() / 2]) * 512 + 600).expect("a write");
    let made = print(&devices, "-t");
    assert!(made.code == 1 && made.err.contains("1 findings"), "{}", made.err);
    let text = made.text();
    assert!(
        text.contains("damage: log.crc") && text.contains(" wrong active"),
        "{}",
        text.lines().last().unwrap_or_default()
    );
    let records = |text: &str| text.lines().filter(|l| l.starts_with("record ")).count();
    assert_eq!(records(&text), records(&sound));
    // With -e the list ends there.
    let ended = print(&devices, "-t -e");
    assert!(ended.code == 1 && records(&ended.text()) == blocks.len() / 2 + 1, "{}", ended.err);
    let json: serde_json::Value = serde_json::from_str(&print(&devices, "-tj").text()).expect("JSON");
    assert_eq!(json["totals"]["findings"], 1);
}
