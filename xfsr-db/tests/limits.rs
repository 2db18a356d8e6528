//! What the geometry allows: log reservations and limits of times are those that xfs_db prints.

mod common;

use common::{ours, stock};
use xfsr_tests::corpus;
use xfsr_tests::oracle::{self, Devices};

/// Geometries that mkfs.xfs makes: size in MiB, of the log device (0 for none), options.
const MADE: &[(u64, u64, &[&str])] = &[
    (300, 0, &["-b", "size=1024", "-m", "reflink=0"]),
    (300, 0, &["-b", "size=2048", "-n", "size=32k", "-i", "size=1024"]),
    (400, 0, &["-m", "rmapbt=1,reflink=0", "-s", "size=4096"]),
    (2344, 0, &["-m", "rmapbt=1"]),
    (1 << 20, 0, &["-m", "rmapbt=1,bigtime=0"]),
    (900, 0, &["-b", "size=1024", "-m", "rmapbt=1", "-i", "nrext64=1"]),
    (300, 70, &["-m", "finobt=0,reflink=0,bigtime=0", "-i", "sparse=0"]),
    (300, 70, &["-m", "rmapbt=1", "-n", "size=65536"]),
    (900, 0, &["-d", "su=64k,sw=4", "-l", "su=256k"]),
    (600, 0, &["-b", "size=65536", "-m", "rmapbt=1"]),
    (300, 0, &["-b", "size=16384", "-i", "maxpct=50"]),
    (1 << 14, 0, &["-m", "reflink=0", "-r", "size=1g,extsize=64k"]),
];

/// All filesystems whose numbers are compared.
fn each(run: impl Fn(&str, &Devices)) {
    if oracle::require(&["mkfs.xfs", "xfs_db"]).is_none() {
        return;
    }
    for (size, log, options) in MADE {
        let dir = tempfile::tempdir().expect("a directory");
        let make = |name: &str, size: u64| {
            let path = dir.path().join(name);
            std::fs::File::create(&path).and_then(|f| f.set_len(size << 20)).expect("a file");
            path
        };
        let mut devices = Devices::from(&make("data", *size));
        devices.log = (*log > 0).then(|| make("log", *log));
        devices.rt = options.contains(&"-r").then(|| make("rt", 1024));
        let options: Vec<&str> = options.iter().copied().filter(|o| !o.starts_with("size=1g")).collect();
        let options: Vec<&str> = options.into_iter().filter(|o| *o != "-r").collect();
        oracle::mkfs_xfs(&options, &devices).unwrap_or_else(|e| panic!("{options:?}: {e:#}"));
        run(&format!("{size} MiB {options:?}"), &devices);
    }
    for name in ["default", "rmap-1k", "b2k-i1k-n64k", "b64k", "plain", "parent", "external-log", "many-ags"] {
        if name == "many-ags" && !common::full() {
            continue;
        }
        if let Some(devices) = corpus::obtain(name) {
            run(name, &devices);
        }
    }
}

#[test]
fn reservations_and_limits_are_those_of_xfs_db() {
    let commands = [
        "logres",
        "timelimit",
        "timelimit --compact",
        "timelimit --pretty",
        "timelimit --classic",
        "timelimit --compact --bigtime --pretty",
        "timelimit --pretty --compact --classic",
    ];
    let mut kernel_differs = 0;
    each(|name, devices| {
        let (mine, theirs) = (ours(devices, &commands), stock(devices, &commands).text());
        assert_eq!((mine.text(), mine.code), (theirs, 0), "{name}: {}", mine.err);
        assert!(mine.text().lines().count() > 40, "{name}: {}", mine.text());
    });
    for (name, differs) in [("default", false), ("rmap-1k", true), ("parent", true)] {
        let Some(devices) = corpus::obtain(name) else { return };
        let (now, then) = (ours(&devices, &["logres -k"]).text(), ours(&devices, &["logres"]).text());
        assert_eq!((now.lines().count(), now != then), (27, differs), "{name}: {now}");
        kernel_differs += u32::from(differs);
    }
    assert_eq!(kernel_differs, 2);
    let Some(devices) = corpus::obtain("default") else { return };
    for (bad, word) in
        [("logres -x", "-x"), ("logres 1", "logres"), ("timelimit --x", "--x"), ("timelimit x", "timelimit")]
    {
        let run = ours(&devices, &[bad]);
        assert!(run.code == 1 && run.err.contains(word) && run.out.is_empty(), "{bad}: {}", run.err);
    }
}
