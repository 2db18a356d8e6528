//! Names are shown so that they can be typed back, whatever bytes they hold.

mod common;

use common::ours;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use xfsr_tests::oracle::{self, Devices, Mount};

/// Names with each byte that a name may hold, alone and between others, and some that mean something to those who read commands.
fn names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = (1..=255u8).filter(|b| *b != b'/').map(|b| vec![b'a', b, b'z']).collect();
    names.extend((1..=255u8).filter(|b| !matches!(b, b'/' | b'.')).map(|b| vec![b]));
    for name in [
        "it's \"x\"",
        "\\x41",
        "\\",
        "\\\\",
        "two  blanks ",
        " ",
        "'",
        "\"\"",
        "# no remark",
        "-i",
        "...",
        "gr\u{fc}n \u{a0}\u{202e}",
    ] {
        names.push(name.as_bytes().to_vec());
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// What `ls` showed: the number of each inode and its name as it was printed.
fn listed(text: &str) -> Vec<(u64, String)> {
    let fields = |l: &str| {
        let (rest, name) = (l, l.split_whitespace().nth(5)?);
        let ino = rest.split_whitespace().nth(1)?.parse().ok()?;
        // The name is the rest of the line up to the verdict; how many bytes it has stands before it.
        let shown = rest.rsplit_once(" (")?.0;
        let length = rest.split_whitespace().nth(4)?;
        let at = shown.find(&format!(" {length} {name}"))? + length.len() + 2;
        Some((ino, shown.get(at..)?.to_owned()))
    };
    text.lines().filter_map(fields).collect()
}

#[test]
fn what_ls_and_ncheck_print_is_a_path_that_is_found() {
    if oracle::require(oracle::MOUNT).is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let image = dir.path().join("image");
    std::fs::File::create(&image).and_then(|f| f.set_len(300 << 20)).expect("a file");
    oracle::mkfs_xfs(&[], &image).expect("mkfs.xfs");
    let mut expected = BTreeMap::new();
    {
        let mount = Mount::new(&image, "").expect("a mount");
        let below = mount.path().join("with 'quotes' and\ttabs");
        std::fs::create_dir(&below).expect("a directory");
        for name in names() {
            let path = below.join(OsStr::from_bytes(&name));
            std::fs::write(&path, &name).expect("a file");
            expected.insert(std::fs::metadata(&path).expect("an inode").ino(), name);
        }
    }
    let devices = Devices { data: image, log: None, rt: None };
    let shown = ours(&devices, &["path 'with \\'quotes\\' and\\x09tabs'", "ls"]);
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    let mut seen = listed(&shown.text());
    seen.retain(|(_, name)| name != "." && name != "..");
    assert_eq!(seen.len(), expected.len(), "{}", shown.text());
    let by_ncheck: Vec<(u64, String)> = ours(&devices, &["ncheck"])
        .text()
        .lines()
        .filter_map(|l| l.trim_start().split_once(' ').map(|(i, p)| (i.parse().expect("a number"), p.to_owned())))
        .filter(|(i, _)| expected.contains_key(i))
        .collect();
    assert_eq!(by_ncheck.len(), expected.len());
    // All in one session: to each by its name in the directory and by its path, and what is in it.
    let mut commands = Vec::new();
    for ((ino, name), (by_path, path)) in seen.iter().zip(&by_ncheck) {
        let name = if name.starts_with('-') { format!("./{name}") } else { name.clone() };
        commands.extend([
            "path 'with \\'quotes\\' and\\x09tabs'".to_owned(),
            format!("ls -i {name}"),
            format!("path {name}"),
            "cat".to_owned(),
            format!("echo @{ino}"),
            format!("path /{path}"),
            "inode".to_owned(),
            format!("echo @{by_path}"),
        ]);
    }
    let script = dir.path().join("script");
    std::fs::write(&script, commands.join("\n")).expect("a script");
    let run = ours(&devices, &[format!("source {}", script.display())]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let mut rest = run.out.as_slice();
    for ((ino, _), (by_path, path)) in seen.iter().zip(&by_ncheck) {
        let content = &expected[ino];
        let wanted = [
            format!("{ino}\n").as_bytes(),
            content,
            format!("@{ino}\ncurrent inode number is {by_path}\n@{by_path}\n").as_bytes(),
        ]
        .concat();
        assert!(
            rest.starts_with(&wanted),
            "{path}: {:?}",
            libxfsr::text::escape(&rest[..wanted.len().min(rest.len())])
        );
        rest = &rest[wanted.len()..];
    }
    // What is given on the command line need not be text, and what cannot be a name is told.
    let raw = common::command(&[
        "-c".into(),
        OsStr::from_bytes(b"cat '/with \\'quotes\\' and\ttabs/\xff'").into(),
        devices.data.clone().into(),
    ])
    .output()
    .expect("xfsr-db starts");
    assert_eq!((raw.status.code(), raw.stdout.as_slice()), (Some(0), &b"\xff"[..]));
    for (bad, word) in
        [("ls \\x4", "hexadecimal"), ("ls a\\", "backslash"), ("ls 'a", "quote"), ("inode \\xff", "not text")]
    {
        let run = ours(&devices, &[bad]);
        assert!(run.code == 1 && run.err.contains(word), "{bad}: {}", run.err);
    }
    // Names on the way out and in of rdump, and in what is told of a directory by its name.
    let to = dir.path().join("to here");
    std::fs::create_dir(&to).expect("a directory");
    let line =
        format!("rdump with\\ \\'quotes\\'\\ and\\x09tabs {}", libxfsr::text::escape_word(to.as_os_str().as_bytes()));
    let run = ours(&devices, &[line.as_str(), "ls with\\ \\'quotes\\'\\ and\\x09tabs"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert!(run.text().starts_with("with\\ \\'quotes\\'\\ and\\x09tabs:\n"), "{}", run.text());
    for name in expected.values() {
        let path = to.join("with 'quotes' and\ttabs").join(OsStr::from_bytes(name));
        assert_eq!(std::fs::read(&path).ok().as_ref(), Some(name), "{path:?}");
    }
    // blockuse names files in the same way.
    let (ino, name) = expected.iter().find(|(_, n)| n.as_slice() == b"it's \"x\"").expect("a file");
    let run =
        ours(&devices, &["blockget -n".to_owned(), format!("inode {ino}"), "dblock 0".into(), "blockuse -n".into()]);
    assert!(run.text().trim_end().ends_with(&format!("/{}", libxfsr::text::escape_word(name))), "{}", run.text());
}
