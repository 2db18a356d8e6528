//! Going about, arithmetic and lists: what xfs_db answers, xfsr-db answers; and how the program is started.

mod common;

use common::{command, difference, images, our_groups, ours, spread, stock, stock_groups};
use libxfsr::units::{AgBlock, AgNumber};
use std::ffi::OsString;
use std::io::Write as _;
use std::process::Stdio;
use xfsr_tests::corpus;

/// An inode of each kind by its path in the corpus.
fn ino(name: &str, path: &str) -> u64 {
    let entry = corpus::manifest(name).into_iter().find(|e| e.path == path.as_bytes());
    entry.unwrap_or_else(|| panic!("{name} has no {path}")).ino
}

fn compare(name: &str, all: &[Vec<String>]) {
    let Some(devices) = corpus::obtain(name) else { return };
    let mut different = String::new();
    for ((g, mine), theirs) in all.iter().zip(our_groups(&devices, all)).zip(stock_groups(&devices, all)) {
        if let Some(d) = difference(&mine, &theirs) {
            different.push_str(&format!("{name}: {}\n{d}", g.join("; ")));
        }
    }
    assert!(different.is_empty(), "{different}");
}

fn lines(all: &[&str]) -> Vec<Vec<String>> {
    all.iter().map(|l| l.split("; ").map(str::to_owned).collect()).collect()
}

/// A session that goes about in an image, in groups that print where they are.
fn journey(name: &str, devices: &xfsr_tests::oracle::Devices) -> Vec<String> {
    let volume = common::volume(devices);
    let g = &volume.geometry;
    let (dirs, block, leaf, links) =
        (ino(name, "dirs"), ino(name, "dirs/block"), ino(name, "dirs/leaf"), ino(name, "links"));
    let multi = ino(name, "attrs");
    let last = g.ag_count - 1;
    // Addresses in each AG, its last block among them. Of bmap no part of an extent: xfs_db 6.1 does not come to an end there.
    let mut text = Vec::new();
    for ag in [0, 1, last] {
        let end = g.join(AgNumber(ag), AgBlock(g.ag_blocks(AgNumber(ag)) - 1));
        let d = g.fsblock_to_daddr(end).expect("a block").0;
        text.extend([
            format!("sb {ag}; addr; agf; addr; agi; addr; agfl; addr; crc; type"),
            format!("agf {ag}; addr bnoroot; addr; crc; type; fsblock; daddr"),
            format!("agi {ag}; addr root; addr; crc; type"),
            format!("fsblock {end}; addr; fsblock; daddr; agf; addr"),
            format!("daddr {d}; addr; daddr; fsblock; type text; addr; type"),
            format!("convert fsblock {end} daddr; convert daddr {d} agno; convert daddr {d} agblock; convert fsblock {end} byte"),
        ]);
    }
    if g.features.rmapbt() {
        text.push("agf 1; addr rmaproot; addr; crc; type; fsblock".into());
    }
    if g.features.reflink() {
        text.push("agf 1; addr refcntroot; addr; crc; type; daddr".into());
    }
    for i in [dirs, block, leaf, links, multi, ino(name, "links/symlink-1023"), ino(name, "links/fifo")] {
        text.push(format!("inode {i}; inode; addr; crc; type; fsblock; daddr; bmap; bmap -d; bmap -a"));
        text.push(format!(
            "convert ino {i} agno; convert ino {i} agino; convert ino {i} fsblock; convert ino {i} inoidx"
        ));
    }
    for e in spread(&corpus::manifest(name), 12).into_iter().filter(|e| e.kind == "file" && e.size > 0 && e.blocks > 0)
    {
        text.push(format!("inode {}; bmap; addr; inode", e.ino));
    }
    text.extend([
        "sb 0; addr; crc; crc -v; type; version; info; uuid; label".to_owned(),
        "agf 2; push; agi 1; addr; stack; pop; addr".into(),
        format!("inode {block}; dblock 0; addr; crc; fsblock; daddr; type; inode"),
        format!(
            "inode {leaf}; dblock 0; addr; fsblock; daddr; type; inode; dblock {}; addr",
            (32u64 << 30) >> g.block_log
        ),
        format!("inode {block}; addr u3.bmx[0].startblock; addr; print bhdr"),
        format!("inode {dirs}; push agf 1; stack; push fsblock 100; stack; pop; addr; pop; addr"),
        "fsblock 100; addr; fsblock; daddr".into(),
        "daddr 200; addr; daddr; type text; addr; type; print".into(),
        "daddr 7; type; addr; fsblock; daddr; type text; addr".into(),
        "sb 0; addr rootino; addr; inode".into(),
        "path /dirs/leaf; addr; path ..; inode; path /; inode; path /dirs/./../links; inode".into(),
        "path /; ls".into(),
        "ls /dirs; ls / /attrs; ls -i /dirs /attrs".into(),
        "hash x; hash some-name; hash 0123456789abcdef0; hash .".into(),
        "agresv; agresv 1; agresv 0 2".into(),
    ]);
    if name == "default" {
        text.push("agi 0; addr root; addr; addr recs[1].startino; addr; inode".into());
    }
    if g.log_start.0 != 0 {
        text.push("sb 0; addr logstart; type".into());
    }
    if g.features.rmapbt() {
        text.extend([
            "fsmap; fsmap 100; fsmap 100 200; fsmap 3 3".to_owned(),
            format!("fsmap 50 {}", g.join(AgNumber(1), AgBlock(77))),
        ]);
    }
    text
}

#[test]
fn positions_are_those_of_xfs_db() {
    let mut all = vec!["default", "rmap-1k", "b2k-i1k-n64k", "b64k", "plain"];
    if common::full() {
        all.extend([
            "external-log",
            "b16k-n64k",
            "s4k-i1k",
            "many-ags",
            "stripes",
            "i2k-n16k",
            "b1k-n8k",
            "b64k-i2k",
            "b1k-plain",
        ]);
    }
    for name in all {
        let Some(devices) = corpus::obtain(name) else { return };
        let text = journey(name, &devices);
        let known: Vec<&str> = text.iter().map(String::as_str).collect();
        compare(name, &lines(&known));
    }
}

#[test]
fn sizes_of_btrees_are_those_of_xfs_db() {
    let all = "bnobt cntbt inobt finobt bmapbt refcountbt rmapbt";
    let mut text =
        vec!["btheight -w absmax all".to_owned(), format!("btheight -w absmax {all}"), "btheight -n 1000 all".into()];
    for options in [
        "-n 1",
        "-n 505",
        "-n 506",
        "-n 1000000000000",
        "-w max -n 100000",
        "-w min -n 99999",
        "-b 512 -n 4000",
        "-b 64k -n 0x12345",
    ] {
        text.push(format!("btheight {options} {all}"));
    }
    for header in ["short", "long", "shortcrc", "longcrc"] {
        text.push(format!("btheight -n 5000 16:8:8:{header} 24:40:4:{header}"));
    }
    let known: Vec<&str> = text.iter().map(String::as_str).collect();
    for name in ["default", "rmap-1k", "b64k"] {
        compare(name, &lines(&known));
    }
    let Some(devices) = corpus::obtain("default") else { return };
    for (bad, word) in [
        ("btheight bnobt", "number of records"),
        ("btheight -n 10", "type of a btree"),
        ("btheight -n 10 nonsense", "nonsense"),
        ("btheight -n 10 16:8:4", "record:key"),
        ("btheight -n 10 16:8:4:x", "shortcrc"),
        ("btheight -n 10 0:8:4:short", "at least 1"),
        ("btheight -n 10 3000:8:4:short", "worst case"),
        ("btheight -n 10 -b 100 bnobt", "128"),
        ("btheight -n 10 -w x bnobt", "absmax"),
        ("btheight -w absmax 16:8:4:short", "own"),
        ("agresv 9", "0 to 3"),
        ("fsmap", "no reverse mappings"),
        ("uuid generate", "-x"),
        ("label x", "-x"),
        ("blockfree", "blockget"),
    ] {
        let run = ours(&devices, &[bad]);
        assert!(run.code == 1 && run.err.contains(word), "{bad}: {}", run.err);
    }
    let Some(devices) = corpus::obtain("rmap-1k") else { return };
    for bad in ["fsmap 99999999", "fsmap 5 4"] {
        assert_eq!(ours(&devices, &[bad]).code, 1, "{bad}");
    }
}

#[test]
fn btrees_are_dumped_as_by_xfs_db() {
    for name in ["default", "rmap-1k", "b2k-i1k-n64k", "plain"] {
        let Some(devices) = corpus::obtain(name) else { return };
        let volume = common::volume(&devices);
        let g = &volume.geometry;
        let mut text = Vec::new();
        for (header, root) in [("agf 1", "bnoroot"), ("agf 1", "cntroot"), ("agi 0", "root"), ("agi 0", "free_root")] {
            if root == "free_root" && !g.features.finobt() {
                continue;
            }
            text.push(format!("{header}; addr {root}; btdump; btdump -i; addr"));
        }
        if g.features.rmapbt() {
            text.push("agf 1; addr rmaproot; btdump -i".into());
            text.push("agf 1; addr rmaproot; addr ptrs[2]; btdump; btdump -i".into());
        }
        if g.features.reflink() {
            text.push("agf 1; addr refcntroot; btdump; btdump -i".into());
        }
        // Files with btrees in a fork, directories and attributes with nodes.
        let (mut extents, mut nodes) = (0, 0);
        let leaves = (32u64 << 30) >> g.block_log;
        for e in corpus::manifest(name) {
            let inode =
                libxfsr::inode::Inode::read(&volume, libxfsr::units::Ino(e.ino), libxfsr::cache::OnDamage::Fail);
            let core = inode.expect("an inode").core;
            if core.format == 3 && extents < 3 {
                extents += 1;
                text.push(format!("inode {}; btdump; btdump -i; addr", e.ino));
            }
            if core.aformat == 3 {
                text.push(format!("inode {}; btdump -a; btdump -a -i", e.ino));
            }
            if e.kind == "dir" && core.format != 1 && e.size > u64::from(g.dir_block_size) && nodes < 6 {
                nodes += 1;
                text.push(format!("inode {}; dblock {leaves}; btdump; btdump -i; addr", e.ino));
            }
            if e.xattrs.len() > 20 {
                text.push(format!("inode {}; ablock 0; btdump; btdump -i; addr", e.ino));
            }
        }
        assert!(extents > 0 && nodes > 2, "{name}: {extents} {nodes}");
        let known: Vec<&str> = text.iter().map(String::as_str).collect();
        let all = lines(&known);
        for ((g, mine), theirs) in all.iter().zip(our_groups(&devices, &all)).zip(stock_groups(&devices, &all)) {
            let g = g.join("; ");
            // Of a directory's leaves xfs_db 6.1 shows the first only, as it looks for a field that they do not have.
            if let Some((shown, _)) = theirs.split_once("field forw not found\n") {
                assert!(g.contains("dblock") && mine.starts_with(shown) && mine.len() > shown.len(), "{name}: {g}");
                let nodes = mine.split("dir3 level 1 block 1 ").nth(1).expect("a node");
                let (nodes, leaves) = nodes.split_once("dir3 level 0 block 1 ").expect("leaves");
                let pointers = nodes.lines().filter(|l| l.contains(":[0x")).count();
                assert_eq!(leaves.matches("dir3 level 0 block ").count() + 1, pointers, "{name}: {g}");
                continue;
            }
            // Where a block is empty it says so; behind a finobt's first block it takes the others for those of an inobt.
            let theirs = theirs.replace("field recs not found\n", "").replace("finobt level", "inobt level");
            let mine = mine.replace("finobt level", "inobt level");
            assert!(
                difference(&mine, &theirs).is_none(),
                "{name}: {g}\n{}",
                difference(&mine, &theirs).unwrap_or_default()
            );
        }
    }
    let Some(devices) = corpus::obtain("default") else { return };
    for (bad, word) in [
        ("sb 0; btdump", "\"sb\""),
        ("inode 128; btdump", "data fork"),
        ("inode 128; btdump -a", "attr fork"),
        ("agf 0; addr bnoroot; btdump -x", "-x"),
        ("agf 0; addr bnoroot; btdump -a", "inodes"),
        ("agf 0; type dir3; btdump", "not part"),
        ("agf 0; type bnobt; btdump", "fsblock"),
    ] {
        let run = ours(&devices, &bad.split("; ").collect::<Vec<_>>());
        assert!(run.code == 1 && run.err.contains(word), "{bad}: {}", run.err);
    }
}

#[test]
fn a_label_is_shown_escaped() {
    if xfsr_tests::oracle::require(&["mkfs.xfs", "xfs_db"]).is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let image = dir.path().join("image");
    std::fs::File::create(&image).and_then(|f| f.set_len(300 << 20)).expect("a file");
    let uuid = "uuid=01234567-89ab-cdef-0123-456789abcdef";
    xfsr_tests::oracle::mkfs_xfs(&["-L", "twelve chars", "-m", uuid], &image).expect("mkfs.xfs");
    let devices = xfsr_tests::oracle::Devices { data: image, log: None, rt: None };
    let commands = ["label", "uuid", "agresv"];
    let (mine, theirs) = (ours(&devices, &commands).text(), stock(&devices, &commands).text());
    assert_eq!(mine, theirs);
    assert!(mine.starts_with("label = \"twelve chars\"\nUUID = 01234567-89ab-cdef-0123-456789abcdef\n"), "{mine}");
}

#[test]
fn addresses_are_converted_as_by_xfs_db() {
    let from = [
        "agno 1 agblock 5",
        "agno 2 agino 77",
        "agno 1",
        "fsblock 300",
        "ino 137",
        "ino 137 inooff 9",
        "daddr 5000",
        "daddr 100 bboff 7",
        "byte 123456789",
        "fsblock 20 blkoff 700",
        "fsblock 20 inoidx 1",
        "fsblock 20 inoidx 1 inooff 30",
        "agno 1 agblock 9 blkoff 5",
        "agno 1 agblock 9 inoidx 1",
        "agno 0 agino 130 inooff 5",
    ];
    let to = [
        "agblock", "agbno", "agino", "aginode", "agnumber", "agno", "bboff", "daddroff", "blkoff", "fsboff", "agboff",
        "byte", "fsbyte", "daddr", "bb", "fsblock", "fsb", "fsbno", "ino", "inode", "inoidx", "offset", "inooff",
        "inodeoff",
    ];
    let all: Vec<Vec<String>> =
        from.iter().flat_map(|f| to.iter().map(move |t| vec![format!("convert {f} {t}")])).collect();
    for name in ["default", "rmap-1k", "b64k", "b2k-i1k-n64k"] {
        let Some(devices) = corpus::obtain(name) else { return };
        let mut same = 0;
        for ((g, mine), theirs) in all.iter().zip(our_groups(&devices, &all)).zip(stock_groups(&devices, &all)) {
            let (mine, theirs) = (mine.trim(), theirs.trim());
            // What says nothing new is refused by one or by both, in words of their own.
            if theirs.starts_with("0x") {
                assert_eq!(mine, theirs, "{name}: {}", g.join(" "));
                same += 1;
            }
        }
        assert!(same > 200, "{name}: {same} conversions");
    }
    let Some(devices) = corpus::obtain("default") else { return };
    for bad in [
        "convert",
        "convert ino 137",
        "convert agblock 7 byte",
        "convert fsblock 99999999 daddr",
        "convert x 1 ino",
        "convert ino 5 ino 6 byte",
    ] {
        let run = ours(&devices, &[bad]);
        assert_eq!((run.code, run.out.len()), (1, 0), "{bad}");
    }
}

#[test]
fn the_ring_and_the_stack_lead_back() {
    // Going back and on to somewhere else, more positions than the ring has, numbers, the stack beside it.
    let mut steps = vec!["sb 0; agf 1; agi 2; ring; back; ring; agf 3; ring; back; back; agf 2; ring; forward; ring"];
    steps.push(
        "ring 0; ring; sb 2; forward; ring; push; agf 1; ring; pop; addr; ring; ring 1; addr; ring; type text; ring",
    );
    let many: String =
        (1..=30).map(|i| format!("fsblock {i}; {}", if i % 7 == 0 { "back; ring; " } else { "" })).collect();
    let many = format!("{many}ring; back; back; back; ring 5; ring; agf 3; ring; forward; ring; addr");
    steps.push(&many);
    compare("default", &lines(&steps));
    let Some(devices) = corpus::obtain("default") else { return };
    let run = ours(
        &devices,
        &["sb 0", "agf 1", "agi 2", "back", "addr", "back", "addr", "forward", "addr", "ring 0", "addr", "ring"],
    );
    assert_eq!(run.code, 0, "{}", run.err);
    let kinds: Vec<String> = run.text().lines().filter_map(|l| Some(l.split_once(", type ")?.1.to_owned())).collect();
    assert_eq!(kinds, ["agf", "sb", "agf", "sb"]);
    assert!(run.text().lines().any(|l| l.starts_with("* 0: sb")), "{}", run.text());
    for (commands, word) in [
        (&["back"][..], "no previous"),
        (&["forward"], "no further"),
        (&["pop"], "empty"),
        (&["print"], "no current"),
        (&["addr"], "no current"),
        (&["sb 9"], "0 to 3"),
        (&["inode 5", "print"], "inode"),
        (&["nonsense"], "not found"),
        (&["type nonsense"], "no such type"),
        (&["sb 0", "print nonsense"], "not found"),
        (&["sb 0", "addr blocksize"], "no next type"),
        (&["fsblock 999999999"], "bad fsblock"),
        (&["path /not/there"], "not found"),
        (&["cat /dirs"], "no regular file"),
        (&["crc -i"], "-x"),
        (&["ls 'open"], "quote"),
        (&["version quota"], "not available"),
        (&["rdump"], "directory"),
        (&["source /not/there"], "/not/there"),
    ] {
        let run = ours(&devices, commands);
        assert_eq!(run.code, 1, "{commands:?}");
        assert!(run.err.contains(word), "{commands:?}: {}", run.err);
    }
    let usage = ours(&devices, &["help"]).text();
    for name in ["blockget", "rdump", "freesp", "dquot", "sb"] {
        assert!(usage.lines().any(|l| l.starts_with(name)), "help says nothing of {name}");
        assert_eq!(ours(&devices, &[format!("help {name}")]).text().lines().count(), 1);
    }
}

#[test]
fn stat_says_what_the_kernel_says() {
    for name in images() {
        let Some(devices) = corpus::obtain(name) else { continue };
        let entries = corpus::manifest(name);
        for e in spread(&entries, 10) {
            let text = ours(&devices, &[format!("inode {}", e.ino), "stat".into()]).text();
            let value = |k: &str| {
                text.lines().find_map(|l| l.strip_prefix(k)?.strip_prefix(" = ").map(str::to_owned)).unwrap_or_default()
            };
            let time = |t: i128| format!("{}.{:09}", t.div_euclid(1_000_000_000), t.rem_euclid(1_000_000_000));
            assert_eq!(value("mode"), format!("0{:o}", e.mode), "{name}: {}", e.ino);
            assert_eq!((value("uid"), value("gid")), (e.uid.to_string(), e.gid.to_string()));
            assert_eq!(
                (value("nlink"), value("size"), value("blocks")),
                (e.nlink.to_string(), e.size.to_string(), e.blocks.to_string())
            );
            assert_eq!((value("mtime"), value("ctime")), (time(e.mtime), time(e.ctime)));
        }
    }
}

#[test]
fn commands_come_from_standard_input_too() {
    let Some(devices) = corpus::obtain("default") else { return };
    let image = OsString::from(&devices.data);
    let with = |arguments: &[&str], input: &str| {
        let all: Vec<OsString> = arguments.iter().map(OsString::from).chain([image.clone()]).collect();
        let mut child = command(&all)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("xfsr-db starts");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("commands are taken");
        common::Run::from(child.wait_with_output().expect("an end"))
    };
    let run = with(&[], "sb 0\nprint magicnum\n\n# a remark\nnonsense\nprint blocksize\nquit\nprint agcount\n");
    assert_eq!((run.text().as_str(), run.code), ("magicnum = 0x58465342\nblocksize = 4096\n", 1));
    assert!(run.err.contains("nonsense"));
    for accepted in [&["-r"][..], &["-f"], &["-i"], &["-x"], &["-p", "name"]] {
        let run = with(accepted, "sb 0\nprint agcount\nnonsense\n");
        assert_eq!((run.text().as_str(), run.code), ("agcount = 4\n", 1), "{accepted:?}");
        assert!(run.err.starts_with(if accepted[0] == "-p" { "name: " } else { "xfsr-db: " }), "{}", run.err);
    }
    let run = ours_raw(&["-F".into(), "-c".into(), "sb 0".into(), image.clone()]);
    assert!(run.code == 1 && run.err.contains("-F"), "{}", run.err);
    for bad in [&["-l", "/not/there"][..], &["-R", "/not/there"], &["-f", "/dev"], &["-z"]] {
        let all: Vec<OsString> = bad.iter().map(OsString::from).chain([image.clone()]).collect();
        assert_ne!(ours_raw(&all).code, 0, "{bad:?}");
    }
    assert!(ours_raw(&["-V".into()]).text().starts_with("xfsr-db version "));
    assert_ne!(ours_raw(&[]).code, 0);
}

fn ours_raw(arguments: &[OsString]) -> common::Run {
    command(arguments).output().expect("xfsr-db starts").into()
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let Some(devices) = corpus::obtain("default") else { return };
    let mut child = command(&["-c".into(), "ncheck".into(), "-c".into(), "ncheck".into(), devices.data.into()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("xfsr-db starts");
    drop(child.stdout.take());
    let end = child.wait_with_output().expect("an end");
    assert!(!String::from_utf8_lossy(&end.stderr).contains("panicked"), "{end:?}");
}

#[test]
fn a_terminal_gets_a_prompt() {
    let Some(devices) = corpus::obtain("default") else { return };
    if xfsr_tests::oracle::require(&["script"]).is_none() {
        return;
    }
    let program = format!("{} {}", env!("CARGO_BIN_EXE_xfsr-db"), devices.data.display());
    let mut child = std::process::Command::new("script")
        .args(["-qec", &program, "/dev/null"])
        .env("TERM", "dumb")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script starts");
    child.stdin.take().expect("a pipe").write_all(b"sb 0\nprint blocksize\nquit\n").expect("commands are taken");
    let text = String::from_utf8_lossy(&child.wait_with_output().expect("an end").stdout).into_owned();
    assert!(text.contains("xfsr-db> ") && text.contains("blocksize = 4096"), "{text:?}");
}

#[test]
fn xfs_db_agrees_that_the_names_of_commands_exist() {
    let Some(devices) = corpus::obtain("default") else { return };
    let theirs = stock(&devices, &["help"]).text();
    for name in [
        "ablock",
        "addr",
        "agf",
        "agfl",
        "agi",
        "agresv",
        "back",
        "blockfree",
        "blockget",
        "blockuse",
        "bmap",
        "btdump",
        "btheight",
        "convert",
        "crc",
        "daddr",
        "dblock",
        "dquot",
        "echo",
        "forward",
        "frag",
        "freesp",
        "fsblock",
        "fsmap",
        "hash",
        "help",
        "info",
        "inode",
        "label",
        "logres",
        "ls",
        "ncheck",
        "path",
        "pop",
        "print",
        "push",
        "quit",
        "ring",
        "sb",
        "source",
        "stack",
        "timelimit",
        "type",
        "uuid",
        "version",
    ] {
        assert!(theirs.lines().any(|l| l.starts_with(name)), "xfs_db has no {name}");
        assert_eq!(ours(&devices, &[format!("help {name}")]).code, 0, "{name}");
    }
}
