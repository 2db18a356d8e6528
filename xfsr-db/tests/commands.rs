//! Going about, arithmetic and lists: what xfs_db answers, xfsr-db answers; and how the program is started.

mod common;

use common::{command, difference, images, our_groups, ours, stock, stock_groups};
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
    for ((g, mine), theirs) in all.iter().zip(our_groups(&devices, all)).zip(stock_groups(&devices, all)) {
        assert_eq!(difference(&mine, &theirs), None, "{name}: {}", g.join("; "));
    }
}

fn lines(all: &[&str]) -> Vec<Vec<String>> {
    all.iter().map(|l| l.split("; ").map(str::to_owned).collect()).collect()
}

#[test]
fn positions_are_those_of_xfs_db() {
    let name = "default";
    if corpus::obtain(name).is_some() {
        let (dir, leaf) = (ino(name, "dirs"), ino(name, "dirs/block"));
        let text = [
            "sb 0; addr; crc; crc -v; type".to_owned(),
            "sb 1; addr; agf 1; addr; agi; addr; agfl; addr".into(),
            "agf 1; addr bnoroot; addr; crc; type".into(),
            "agi 0; addr root; addr; addr recs[1].startino; addr".into(),
            "agf 2; push; agi 1; addr; pop; addr".into(),
            format!("inode {leaf}; inode; addr; dblock 0; addr; crc; fsblock; daddr; type; inode"),
            format!("inode {leaf}; addr u3.bmx[0].startblock; addr; print bhdr"),
            format!("inode {dir}; push agf 1; stack; pop; addr"),
            "fsblock 100; addr; fsblock; daddr".into(),
            "daddr 200; addr; daddr; type text; addr; type; print".into(),
            "sb 0; addr rootino; addr; inode".into(),
            "sb 0; addr logstart; type".into(),
            "path /dirs/leaf; addr; path ..; inode; path /; inode".into(),
            "sb 0; version; info".into(),
            format!("inode {leaf}; bmap; bmap -d; bmap -a; bmap -d 0 1"),
            "path /; ls".into(),
            "ls /dirs; ls / /attrs; ls -i /dirs /attrs".into(),
            "hash x; hash some-name".into(),
        ];
        let known: Vec<&str> = text.iter().map(String::as_str).collect();
        compare(name, &lines(&known));
    }
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
        (&["crc -i"], "not available"),
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
        for e in common::spread(&entries, 10) {
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
    for accepted in [&["-r"][..], &["-f"], &["-i"], &["-p", "name"]] {
        let run = with(accepted, "sb 0\nprint agcount\nnonsense\n");
        assert_eq!((run.text().as_str(), run.code), ("agcount = 4\n", 1), "{accepted:?}");
        assert!(run.err.starts_with(if accepted[0] == "-p" { "name: " } else { "xfsr-db: " }), "{}", run.err);
    }
    for refused in ["-x", "-F"] {
        let run = ours_raw(&[refused.into(), "-c".into(), "sb 0".into(), image.clone()]);
        assert!(run.code == 1 && run.err.contains(refused), "{refused}: {}", run.err);
    }
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
        "ablock", "addr", "agf", "agfl", "agi", "back", "blockget", "blockuse", "bmap", "convert", "crc", "daddr",
        "dblock", "dquot", "echo", "forward", "frag", "freesp", "fsblock", "hash", "help", "info", "inode", "ls",
        "ncheck", "path", "pop", "print", "push", "quit", "ring", "sb", "source", "stack", "type", "version",
    ] {
        assert!(theirs.lines().any(|l| l.starts_with(name)), "xfs_db has no {name}");
        assert_eq!(ours(&devices, &[format!("help {name}")]).code, 0, "{name}");
    }
}
