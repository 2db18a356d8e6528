//! Free space, fragmentation and owners of blocks: the numbers are those of xfs_db.

mod common;

use common::{images, our_groups, ours, spread, stock, stock_groups};
use libxfsr::units::{AgBlock, AgNumber};
use std::collections::BTreeSet;
use xfsr_tests::corpus::{self, Entry};

#[test]
fn histograms_of_free_space_are_those_of_xfs_db() {
    let options = [
        "",
        "-s",
        "-d",
        "-b -s",
        "-c -s",
        "-c -d",
        "-e 7 -s",
        "-e 4000 -s",
        "-h 1 -h 10 -h 1000 -s",
        "-h 10 -h 1000",
        "-m 3 -s",
        "-A 4 -s",
        "-A 8 -d",
        "-a 1 -s",
        "-a 0 -a 2 -d -c -s",
        "-a 3 -m 10",
    ];
    for name in images() {
        let Some(devices) = corpus::obtain(name) else { continue };
        // Each in a session of its own: xfs_db remembers an alignment from one freesp to the next.
        for o in options {
            let command = [format!("freesp {o}")];
            let (mine, theirs) = (ours(&devices, &command).text(), stock(&devices, &command).text());
            assert_eq!(common::difference(&mine, &theirs), None, "{name}: freesp {o}");
        }
        for bad in ["-f", "-m 1", "-e 0", "-a 99", "-b -e 5", "-h"] {
            let run = ours(&devices, &[format!("freesp {bad}")]);
            assert_eq!((run.code, run.out.len()), (1, 0), "freesp {bad} is accepted");
        }
    }
}

#[test]
fn fragmentation_is_what_xfs_db_counts() {
    // Of quota, realtime control and realtime files xfs_db counts nothing unless regular files are wanted too.
    let options = ["", "-a", "-d", "-f", "-l", "-q -f", "-R -f", "-r -f", "-d -f", "-al", "-v -d", "-v -a", "-v"];
    let groups: Vec<Vec<String>> = options.iter().map(|o| vec![format!("frag {o}")]).collect();
    for name in images() {
        let Some(devices) = corpus::obtain(name) else { continue };
        for ((o, mine), theirs) in
            options.iter().zip(our_groups(&devices, &groups)).zip(stock_groups(&devices, &groups))
        {
            assert!(theirs.contains("actual "), "{name}: xfs_db says nothing");
            // Of no extents at all xfs_db gives "-nan" as the average.
            let theirs = theirs.replace("average -nan", "average 0.00");
            assert_eq!(common::difference(&mine, &theirs), None, "{name}: frag {o}");
        }
        assert_eq!(ours(&devices, &["frag -s"]).code, 1);
    }
}

#[test]
fn owners_of_all_blocks_are_those_of_xfs_db() {
    for name in images() {
        let Some(devices) = corpus::obtain(name) else { continue };
        let volume = common::volume(&devices);
        let g = &volume.geometry;
        let mut commands = vec!["blockget".to_owned()];
        for ag in 0..g.ag_count {
            commands.push(format!("fsblock {}", g.join(AgNumber(ag), AgBlock(0))));
            commands.push(format!("blockuse -c {}", g.ag_blocks(AgNumber(ag))));
        }
        let (mine, theirs) = (ours(&devices, &commands), stock(&devices, &commands));
        assert_eq!((mine.code, mine.err.as_str()), (0, ""), "{name}");
        let lines = theirs.text().lines().filter(|l| l.starts_with("block ")).count() as u64;
        assert_eq!(lines, g.blocks, "{name}: xfs_db tells of all blocks");
        // xfs_db 6.1 complains of what it does not know in images with parent pointers; what it says of blocks is compared.
        let only =
            |t: &str| -> String { t.lines().filter(|l| l.starts_with("block ")).map(|l| format!("{l}\n")).collect() };
        assert_eq!(common::difference(&only(&mine.text()), &only(&theirs.text())), None, "{name}");
    }
}

#[test]
fn names_of_inodes_are_those_of_xfs_db() {
    // xfs_db tells one name of each inode, xfsr-db all. Names with control characters, blanks or quotes are written differently, so that they cannot
    // steer a terminal and can be typed back: of those the number is compared.
    let numbers = |t: &str| -> BTreeSet<u64> {
        t.lines().filter_map(|l| l.trim_start().split(' ').next()?.parse().ok()).collect()
    };
    for name in images() {
        let Some(devices) = corpus::obtain(name) else { continue };
        let entries = corpus::manifest(name);
        let is_plain = |e: &&Entry| e.path.iter().all(|b| (0x21..0x7f).contains(b) && !b"\\\"'".contains(b));
        let odd: BTreeSet<u64> = entries.iter().filter(|e| !is_plain(e)).map(|e| e.ino).collect();
        let plain = |t: &str| -> BTreeSet<String> {
            let number = |l: &str| l.trim_start().split(' ').next().and_then(|n| n.parse::<u64>().ok());
            t.lines().filter(|l| number(l).is_some_and(|n| !odd.contains(&n))).map(str::to_owned).collect()
        };
        let some = spread(&entries, 5);
        let some = format!("ncheck {}", some.iter().map(|e| format!("-i {} ", e.ino)).collect::<String>());
        for command in ["ncheck", "ncheck -s", some.trim()] {
            let (mine, theirs) = (ours(&devices, &[command]), stock(&devices, &["blockget -n", command]));
            assert_eq!((mine.code, mine.err.as_str()), (0, ""), "{name}");
            let (mine, theirs) = (mine.text(), theirs.text());
            let missing: Vec<_> = plain(&theirs).difference(&plain(&mine)).take(5).cloned().collect();
            assert!(missing.is_empty(), "{name}: {command}: {missing:?}");
            assert!(!numbers(&mine).is_empty() || command.contains("-s"), "{name}: {command} says nothing");
            assert_eq!(numbers(&mine), numbers(&theirs), "{name}: {command}");
        }
    }
}

#[test]
fn block_usage_is_asked_for_and_named() {
    let Some(devices) = corpus::obtain("default") else { return };
    let entry = corpus::manifest("default")
        .into_iter()
        .find(|e| e.kind == "file" && e.nlink == 1 && e.size > 0 && e.blocks > 0);
    let entry = entry.expect("a file with a block");
    let path = libxfsr::text::escape(&entry.path).to_string();
    let to = [format!("inode {}", entry.ino), "dblock 0".to_owned()];
    let early = ours(&devices, &[&to[..], &["blockuse".to_owned()]].concat());
    assert!(early.code == 1 && early.err.contains("must run blockget first"), "{}", early.err);
    let unnamed = ours(&devices, &["blockget", "blockuse -n"]);
    assert!(unnamed.code == 1 && unnamed.err.contains("blockget -n"), "{}", unnamed.err);
    let twice = ours(&devices, &["blockget", "blockget"]);
    assert!(twice.code == 1 && twice.err.contains("already"), "{}", twice.err);
    let commands = [&["blockget -n".to_owned()][..], &to, &["blockuse -n".to_owned()]].concat();
    let (mine, theirs) = (ours(&devices, &commands), stock(&devices, &commands));
    assert_eq!(mine.text(), theirs.text());
    assert!(mine.text().trim().ends_with(&path), "{}", mine.text());
    let again = ours(&devices, &["blockget", "blockfree", "blockget -n", "blockuse -n", "sb 0", "blockuse -n"]);
    assert!(again.code == 0 && again.text().ends_with("block 0 (0/0) type sb\n"), "{again:?}");
    for refused in ["blockget -t", "blockget -b", "blockuse -c 0", "blockuse -c 99999999"] {
        assert_eq!(ours(&devices, &[refused]).code, 1, "{refused} is accepted");
    }
}

/// What xfs_db tells of each block, inode and extent by `blockget -v`, `-b` or `-i`, sorted. Of a block it tells each use as it meets it: what is in
/// both free space btrees first as free1, what is shared first as data; the last word counts. It tells also of each step on its way
/// (links counted so far, parents, directories' entries), which are not compared.
fn told(text: &str) -> Vec<String> {
    let mut uses = std::collections::BTreeMap::new();
    let mut lines = BTreeSet::new();
    for l in text.lines() {
        let words: Vec<&str> = l.split(' ').collect();
        match words.as_slice() {
            ["setting", "block" | "rtblock", at, "to", what] => {
                // That it is shared is not always told; the tests of blockuse compare it.
                let what = if *what == "rldata" { "data" } else { what };
                uses.insert((words[1].to_owned(), (*at).to_owned()), what.to_owned());
            }
            ["setting", "inode", ..] => drop(lines.insert(l.to_owned())),
            ["inode", _, "mode" | "nlink" | "extent", ..] => drop(lines.insert(l.to_owned())),
            ["inode", _, "block", _, "at", "offset", _] => drop(lines.insert(l.to_owned())),
            _ => {}
        }
    }
    let uses = uses.into_iter().map(|((what, at), to)| format!("setting {what} {at} to {to}"));
    uses.chain(lines).collect()
}

#[test]
fn what_blockget_tells_in_detail_is_what_xfs_db_tells() {
    for name in images() {
        let Some(devices) = corpus::obtain(name) else { continue };
        let volume = common::volume(&devices);
        let g = &volume.geometry;
        let some = spread(&corpus::manifest(name), 4);
        let blocks = [0, 1, u64::from(g.agblocks) / 3, g.join(AgNumber(1), AgBlock(40)).0];
        let blocks: String = blocks.iter().map(|b| format!("-b {b} ")).collect();
        let inodes: String = some.iter().map(|e| format!("-i {} ", e.ino)).collect();
        let mut commands = vec![
            format!("blockget {blocks}"),
            format!("blockget {inodes}"),
            format!("blockget -n -s {blocks}{inodes}"),
        ];
        if matches!(name, "default" | "plain" | "b64k" | "realtime") || common::full() {
            commands.push("blockget -v".into());
        }
        for command in commands {
            let mine = ours(&devices, &[&command]);
            assert_eq!((mine.code, mine.err.as_str()), (0, ""), "{name}: {command}");
            let (mine, theirs) = (told(&mine.text()), told(&stock(&devices, &[&command]).text()));
            assert!(mine.len() > 3, "{name}: {command}: {mine:?}");
            assert_eq!(common::difference(&mine.join("\n"), &theirs.join("\n")), None, "{name}: {command}");
        }
    }
}

#[test]
fn blockget_tells_of_damage() {
    let Some(_) = corpus::obtain("default") else { return };
    let bench = xfsr_tests::damage::Workbench::new("default").expect("a workbench");
    let place = xfsr_tests::damage::Place { structure: "agf".into(), commands: vec!["agf 0".into()] };
    let case = xfsr_tests::damage::Case {
        place,
        field: "freeblks".into(),
        verb: "add",
        value: None,
        checksum: xfsr_tests::damage::Checksum::Right,
    };
    let patch = bench.patch(&case).expect("a patch");
    assert!(!patch.is_empty());
    patch.apply(bench.file()).expect("damage");
    let (mine, theirs) = (ours(bench.devices(), &["blockget"]), stock(bench.devices(), &["blockget"]));
    assert_eq!((mine.code, theirs.code), (3, 3), "{}", mine.err);
    assert!(mine.text().contains("freeblks"), "{}", mine.text());
    let prefixed = ours(bench.devices(), &["blockget -p -s"]).text();
    assert!(prefixed.lines().all(|l| l.starts_with(&format!("{}: ", bench.devices().data.display()))), "{prefixed}");
}

#[test]
fn blockget_tells_what_it_did_not_check() {
    let Some(_) = corpus::obtain("default") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let devices = corpus::copy("default", directory.path());
    let before = ours(&devices, &["blockget"]);
    assert_eq!((before.code, before.err.as_str()), (0, ""));
    // A feature that nobody knows, in all superblocks.
    let shown = ours(&devices, &["sb 0", "print agcount features_ro_compat"]).text();
    let numbers: Vec<&str> = shown.lines().filter_map(|l| l.split(" = ").nth(1)).collect();
    let [count, features] = numbers[..] else { panic!("{shown}") };
    let features = libxfsr::cli::parse_number(features).expect("a number") | 0x80;
    let groups = 0..libxfsr::cli::parse_number(count).expect("a number");
    let write = groups.flat_map(|ag| [format!("sb {ag}"), format!("write -d features_ro_compat {features:#x}")]);
    xfsr_tests::oracle::xfs_db_write(&devices, &write.collect::<Vec<_>>()).expect("it is written");
    let run = ours(&devices, &["blockget"]);
    assert_eq!(run.code, 1, "{} {}", run.text(), run.err);
    assert!(run.err.contains("not checked: ") && run.err.contains("ro_compat bits 0x80"), "{}", run.err);
}
