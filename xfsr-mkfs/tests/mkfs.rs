//! The program against mkfs.xfs 6.1, xfs_repair and the kernel.
//!
//! Masked, because they are the time of day: mtime, ctime and crtime of the three inodes that mkfs makes, and these inodes'
//! checksums. The UUID is given to both. Everything else must be equal, byte for byte, over the whole device.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use xfsr_tests::oracle::{self, Mount};

const UUID: &str = "11111111-2222-3333-4444-555555555555";

fn ours(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xfsr-mkfs")).args(words).output().expect("the program runs")
}

fn sparse(path: &Path, size: u64) {
    let _ = std::fs::remove_file(path);
    File::create(path).and_then(|f| f.set_len(size)).expect("a sparse file");
}

/// Where the file has data.
fn extents(file: &File) -> Vec<(u64, u64)> {
    let (mut out, mut at) = (Vec::new(), 0);
    while let Ok(data) = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        let hole = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(data)).expect("a hole");
        out.push((data, hole));
        at = hole;
    }
    out
}

fn number(file: &File, offset: u64, bytes: usize) -> u64 {
    let mut b = vec![0; bytes];
    file.read_exact_at(&mut b, offset).expect("superblock");
    b.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// Ranges of bytes that hold the time of day.
fn masked(file: &File) -> Vec<(u64, u64)> {
    let (block, inode, root, per_block) =
        (number(file, 4, 4), number(file, 104, 2), number(file, 56, 8), number(file, 123, 1));
    let base = (root >> per_block) * block + (root & ((1 << per_block) - 1)) * inode;
    let fields = [(40, 16), (100, 4), (144, 8)];
    (0..3).flat_map(|n| fields.map(|(o, len)| (base + n * inode + o, len))).collect()
}

/// The first offsets at which the files differ; holes are zeros.
fn differences(a: &Path, b: &Path, mask: bool) -> Vec<u64> {
    let (a, b) = (File::open(a).expect("file"), File::open(b).expect("file"));
    assert_eq!(a.metadata().expect("size").len(), b.metadata().expect("size").len());
    let masks = if mask { masked(&a) } else { Vec::new() };
    let mut out = Vec::new();
    for (start, end) in extents(&a).into_iter().chain(extents(&b)) {
        let mut at = start;
        while at < end {
            let n = (end - at).min(1 << 20) as usize;
            let (mut x, mut y) = (vec![0; n], vec![0; n]);
            a.read_exact_at(&mut x, at).expect("read");
            b.read_exact_at(&mut y, at).expect("read");
            if x != y {
                for (i, (p, q)) in x.iter().zip(&y).enumerate() {
                    let here = at + i as u64;
                    if p != q && !masks.iter().any(|m| (m.0..m.0 + m.1).contains(&here)) && out.len() < 8 {
                        out.push(here);
                    }
                }
            }
            at += n as u64;
        }
    }
    out
}

const M: u64 = 1 << 20;
const G: u64 = 1 << 30;
const T: u64 = 1 << 40;

/// Sizes and options. `LOG` and `RT` stand for an external log and a realtime device, `RT9000G` for one of that size.
const TABLE: &[(u64, &str)] = &[
    (300 * M, ""),
    (333 * M, ""),
    (G, ""),
    (200 * G, ""),
    (T, ""),
    (10 * T, ""),
    (4 * T, ""),
    (16 * T - 4096, ""),
    (777 * M, "-b size=1k"),
    (2 * G, "-b size=2k"),
    (2 * G, "-b size=8k"),
    (2 * G, "-b size=16k"),
    (3 * G, "-b size=32k"),
    (4 * G, "-b size=64k"),
    (300 * M, "-b size=64k"),
    (3 * G, "-b size=64k -s size=32k"),
    (8 * T, "-b size=64k"),
    (2 * G, "-s size=1024"),
    (2 * G, "-s size=2k"),
    (2 * G, "-s size=4096"),
    (2 * G, "-b size=1k -s size=1k"),
    (2 * G, "-i size=1024"),
    (2 * G, "-i size=2048"),
    (2 * G, "-i perblock=4"),
    (2 * G, "-i maxpct=10"),
    (2 * G, "-i sparse=0"),
    (2 * G, "-i nrext64=1"),
    (2 * G, "-i attr=2,projid32bit=1,align=1"),
    (2 * G, "-m finobt=0"),
    (2 * G, "-m bigtime=0"),
    (2 * G, "-m inobtcount=0"),
    (2 * G, "-m reflink=0"),
    (2 * G, "-m rmapbt=1"),
    (15 * T, "-m rmapbt=1"),
    (2 * G, "-m reflink=0,rmapbt=1"),
    (2 * G, "-m rmapbt=1,finobt=0"),
    (2 * G, "-m bigtime=0,inobtcount=0,finobt=0,reflink=0 -i sparse=0"),
    (2 * G, "-n size=8k"),
    (2 * G, "-n size=64k"),
    (2 * G, "-n version=ci"),
    (2 * G, "-L twelve_chars"),
    (3 * G, "-d agcount=2"),
    (3 * G, "-d agcount=7"),
    (8 * G, "-d agcount=33"),
    // The largest log that an AG has room for, given and chosen.
    (300 * M, "-l size=19189b"),
    (300 * G, "-d agcount=1500 -m rmapbt=1 -l size=52417b"),
    (300 * G, "-d agcount=4000"),
    (3 * G, "-d agsize=500m"),
    (3 * G, "-b size=2k -d agsize=65536b"),
    (3 * G, "-d size=1g"),
    (3 * G, "-d su=64k,sw=4"),
    (3 * G, "-d su=64k,sw=1"),
    (3 * G, "-d su=512k,sw=3"),
    (3 * G, "-d su=12k,sw=3"),
    (3 * G, "-d sunit=128,swidth=512"),
    (100 * G, "-d su=64k,sw=4"),
    (600 * G, "-d su=64k,sw=4"),
    (5 * T, "-d su=128k,sw=10"),
    (3 * G, "-d su=64k,sw=4 -s size=4k"),
    (3 * G, "-d su=64k,sw=4 -m rmapbt=1"),
    (3 * G, "-d su=64k,sw=4 -i size=2048"),
    (3 * G, "-d su=64k,sw=4,agcount=6"),
    (3 * G, "-l size=100m"),
    (3 * G, "-l size=16384b"),
    (3 * G, "-l agnum=0"),
    (3 * G, "-l agnum=0 -m rmapbt=1"),
    (3 * G, "-l agnum=1 -d su=64k,sw=4"),
    (3 * G, "-l su=32k"),
    (3 * G, "-l su=256k"),
    (3 * G, "-l su=4k"),
    (1238 * M, "-m rmapbt=1 -b size=64k -i size=2048 -d su=512k,sw=3,agcount=8 -l agnum=1"),
    (20 * G, "-b size=64k -d su=320k,sw=3"),
    (3 * G, "-l agnum=0 -d su=64k,sw=4"),
    (3 * G, "-d cowextsize=16"),
    (3 * G, "-d rtinherit=1"),
    (3 * G, "-d extszinherit=8"),
    (3 * G, "-d projinherit=70000,extszinherit=4,cowextsize=8"),
    (2 * G, "-l logdev=LOG"),
    (2 * G, "-l logdev=LOG,size=64m,sectsize=4096"),
    (2 * G, "-l logdev=LOG,su=32k -d su=64k,sw=4"),
    (2 * G, "-l logdev=LOG -s size=4k"),
    (2 * G, "-m reflink=0 -r rtdev=RT"),
    (2 * G, "-r rtdev=RT,extsize=28k"),
    (2 * G, "-r rtdev=RT,size=700m"),
    (2 * G, "-b size=1k -r rtdev=RT"),
    (2 * G, "-d su=8k,sw=4 -r rtdev=RT"),
    (2 * G, "-b size=64k -i nrext64=1 -r rtdev=RT -l logdev=LOG"),
    // A bitmap that AG 0 has no room for: in pieces, or whole in AG 1.
    (400 * M, "-b size=64k -d agsize=16m -r rtdev=RT8192G -l logdev=LOG"),
    (400 * M, "-b size=64k -d agsize=16m -i nrext64=1 -r rtdev=RT15000G -l logdev=LOG"),
    (400 * M, "-b size=16k -d agsize=16m -r rtdev=RT2030G -l logdev=LOG"),
    (400 * M, "-b size=16k -d agsize=16m,su=64k,sw=5 -r rtdev=RT2300G -l logdev=LOG"),
];

/// Runs a program on fresh files and gives their paths and its output.
fn make(program: &str, dir: &Path, name: &str, size: u64, options: &str) -> (PathBuf, String) {
    let path = dir.join(name);
    let (log, rt) = (dir.join(format!("{name}.log")), dir.join(format!("{name}.rt")));
    sparse(&path, size);
    let mut words: Vec<String> = Vec::new();
    for word in options.split_whitespace() {
        if word.contains("LOG") {
            sparse(&log, 100 * M);
        }
        let mut device = "RT".to_owned();
        if let Some((_, size)) = word.split_once("RT") {
            let digits: String = size.chars().take_while(char::is_ascii_digit).collect();
            sparse(&rt, digits.parse::<u64>().map_or(1001 * M, |g| g * G));
            if !digits.is_empty() {
                device += &format!("{digits}G");
            }
        }
        words.push(word.replace("LOG", &log.display().to_string()).replace(&device, &rt.display().to_string()));
    }
    match words.iter().position(|w| w == "-m") {
        Some(at) => words[at + 1] += &format!(",uuid={UUID}"),
        None => words.extend(["-m".to_owned(), format!("uuid={UUID}")]),
    }
    let out = Command::new(program).args(&words).arg(&path).output().expect("mkfs runs");
    assert!(out.status.success(), "{program} {options}: {}", String::from_utf8_lossy(&out.stderr));
    let text =
        String::from_utf8_lossy(&out.stdout).replace(&dir.display().to_string(), "").replace(&format!("/{name}"), "/X");
    // Fields are padded to the name's length.
    (path, text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Sizes that only XFS itself can hold as a file.
const HUGE: &[(u64, &str)] = &[
    (64 * T, ""),
    (64 * T - 4096, "-m rmapbt=1,inobtcount=0"),
    (40 * T, "-m rmapbt=1"),
    (64 * T, "-b size=64k -d su=64k,sw=4"),
    (33 * T, "-b size=1k -i nrext64=1"),
    (50 * T, "-d agsize=1000g -s size=4k"),
    (17 * T, "-b size=2k -l logdev=LOG"),
];

/// Makes one row with both programs; empty where they agree.
fn compare(dir: &Path, size: u64, options: &str, repair: bool) -> Option<String> {
    let (theirs, their_text) = make("mkfs.xfs", dir, "a", size, options);
    let (mine, my_text) = make(env!("CARGO_BIN_EXE_xfsr-mkfs"), dir, "b", size, options);
    assert!(!extents(&File::open(&mine).expect("file")).is_empty(), "{options}: nothing was written");
    let mut found = differences(&theirs, &mine, true);
    for extra in ["log", "rt"] {
        if options.contains(&extra.to_uppercase()) {
            let (a, b) = (dir.join(format!("a.{extra}")), dir.join(format!("b.{extra}")));
            found.extend(differences(&a, &b, false));
        }
    }
    if !found.is_empty() || their_text != my_text {
        return Some(format!("{size} {options}: {found:?}\n{their_text}\n{my_text}"));
    }
    if repair {
        let out = oracle::xfs_repair_n(&mine, &[]).expect("xfs_repair runs");
        if !out.clean() {
            return Some(format!("xfs_repair -n, {size} {options}: {}", out.output));
        }
    }
    None
}

#[test]
fn bytes_equal_those_of_mkfs_xfs() {
    if oracle::require(&["mkfs.xfs", "xfs_repair"]).is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut bad = Vec::new();
    for (row, &(size, options)) in TABLE.iter().enumerate() {
        let plain = !options.contains("LOG") && !options.contains("RT");
        bad.extend(compare(dir.path(), size, options, row % 6 == 0 && plain && size < T));
    }
    assert!(bad.is_empty(), "{} of {} differ:\n{}", bad.len(), TABLE.len(), bad.join("\n"));
}

#[test]
fn bytes_equal_those_of_mkfs_xfs_up_to_64_tib() {
    if oracle::require(oracle::MOUNT).is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let host = dir.path().join("host");
    sparse(&host, 16 * G);
    oracle::mkfs_xfs(&[], &host).expect("mkfs.xfs runs");
    let mount = Mount::new(&host, "").expect("mounting");
    let bad: Vec<String> =
        HUGE.iter().filter_map(|&(size, options)| compare(mount.path(), size, options, false)).collect();
    assert!(bad.is_empty(), "{} of {} differ:\n{}", bad.len(), HUGE.len(), bad.join("\n"));
    mount.unmount().expect("unmounting");
}

/// The library's own check has no finding.
fn nothing_is_found(image: &Path, options: &str) {
    let volume = libxfsr::volume::Volume::open(&libxfsr::volume::Devices::data(image)).expect("a volume");
    let outcome = libxfsr::check::check(&volume, &libxfsr::control::Control::none()).expect("a check");
    assert!(outcome.findings.is_empty(), "{options}: {outcome}");
}

#[test]
fn the_kernel_mounts_and_uses_it() {
    if oracle::require(oracle::MOUNT).is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let cases = [
        "",
        "-b size=1k",
        "-b size=64k -n size=64k",
        "-m rmapbt=1 -i nrext64=1",
        "-n parent=1 -i exchange=1",
        "-d su=64k,sw=4 -L label",
        "-m metadir=1",
        "-m metadir=1,rmapbt=1 -n parent=1 -b size=1k",
        "-m metadir=1,bigtime=0 -b size=64k -i size=2048,nrext64=1",
    ];
    for options in cases {
        let image = dir.path().join("image");
        sparse(&image, 800 * M);
        let words: Vec<&str> = options.split_whitespace().chain([image.to_str().expect("UTF-8")]).collect();
        let out = ours(&words);
        assert!(out.status.success(), "{options}: {}", String::from_utf8_lossy(&out.stderr));
        nothing_is_found(&image, options);
        let mount = Mount::new(&image, "").unwrap_or_else(|e| panic!("{options}: {e:#}"));
        for n in 0..200 {
            let directory = mount.path().join(format!("d{n}"));
            std::fs::create_dir(&directory).expect("mkdir");
            std::fs::write(directory.join("f"), vec![n as u8; 10_000]).expect("write");
        }
        mount.unmount().expect("unmounting");
        let mount = Mount::new(&image, "").unwrap_or_else(|e| panic!("{options}, second mount: {e:#}"));
        let read = std::fs::read(mount.path().join("d77/f")).expect("read");
        assert_eq!(read, vec![77; 10_000], "{options}");
        mount.unmount().expect("unmounting");
        nothing_is_found(&image, options);
        // xfs_repair 6.1 does not know the features of later versions.
        if !options.contains("parent") && !options.contains("metadir") {
            let out = oracle::xfs_repair_n(&image, &[]).expect("xfs_repair runs");
            assert!(out.clean(), "{options}: {}", out.output);
        }
    }
}

#[test]
fn refusals_name_the_option_and_leave_the_target_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let image = dir.path().join("image");
    let rt = dir.path().join("realtime");
    let path = image.to_str().expect("UTF-8");
    let cases = [
        ("-b size=3000", "-b size=3000"),
        ("-b size=128k", "-b size=131072"),
        ("-b size=4x", "-b size=4x"),
        ("-b size=4k,size=4k", "given twice"),
        ("-s size=8k", "-s size=8192"),
        ("-m crc=0", "-m crc=0"),
        ("-m finobt=0,inobtcount=1", "-m inobtcount=1"),
        ("-m reflink=2", "-m reflink=2"),
        ("-m metadir=1 -i exchange=0", "-i exchange=0"),
        ("-m metadir=1,reflink=1 -r rtdev=RT,extsize=16k", "-m reflink=1"),
        ("-m metadir=1 -n parent=1 -r rtdev=RT", "-n parent=1"),
        ("-m uuid=123", "-m uuid=123"),
        ("-d su=64k", "given together"),
        ("-d su=5000,sw=2", "-d su=5000"),
        ("-d sunit=8,swidth=12", "-d swidth=12"),
        ("-d agcount=1", "-d agcount=1"),
        ("-d agcount=4,agsize=100m", "agsize gives the count too"),
        ("-d agsize=1m", "-d agsize=1048576"),
        ("-d size=1000000001", "-d size=1000000001"),
        ("-d size=5g", "-d size=5368709120"),
        ("-d size=100m", "-d size=104857600"),
        ("-d cowextsize=8 -m reflink=0", "-d cowextsize=8"),
        ("-d colour=1", "-d colour"),
        ("-i size=256", "-i size=256"),
        ("-i attr=1", "-i attr=1"),
        ("-i maxpct=101", "-i maxpct=101"),
        ("-l size=1m", "-l size=1048576"),
        ("-l size=10g", "-l size=10737418240"),
        ("-l su=512k", "-l su=524288"),
        ("-l agnum=4", "-l agnum=4"),
        ("-l agnum=0,su=64k -b size=16k", "-l agnum=0"),
        ("-l version=1", "-l version=1"),
        ("-n version=1", "-n version=1"),
        ("-n size=512", "-n size=512"),
        ("-n ftype=0", "-n ftype=0"),
        ("-r size=1g", "-r size=1073741824"),
        ("-r extsize=1k", "-r extsize=1024"),
        ("-L thirteen_chars", "-L=thirteen_chars"),
        ("-p not/there", "-p not/there: No such file"),
        ("-z", "-z"),
    ];
    for (options, part) in cases {
        sparse(&image, 1 << 30);
        sparse(&rt, 1 << 30);
        let named = options.replace("=RT", &format!("={}", rt.display()));
        let words: Vec<&str> = named.split_whitespace().chain([path]).collect();
        let out = ours(&words);
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{options}");
        assert!(text.contains(part), "{options}: {text}");
        assert_eq!(text.lines().count(), 1, "{options}: {text}");
        assert!(extents(&File::open(&image).expect("file")).is_empty(), "{options} wrote to the target");
    }
}

#[test]
fn what_is_there_is_kept_unless_forced() {
    let dir = tempfile::tempdir().expect("a directory");
    let image = dir.path().join("image");
    let path = image.to_str().expect("UTF-8");
    let marks: [(u64, &[u8], &str); 6] = [
        (0, b"XFSB", "xfs"),
        (1080, &[0x53, 0xef], "ext2"),
        (65600, b"_BHRfS_M", "btrfs"),
        (4086, b"SWAPSPACE2", "swap"),
        (0, b"LUKS\xba\xbe", "LUKS"),
        (512, b"EFI PART", "gpt"),
    ];
    for (offset, mark, word) in marks {
        sparse(&image, 1 << 30);
        let file = OpenOptions::new().write(true).open(&image).expect("file");
        file.write_all_at(mark, offset).expect("mark");
        let before = extents(&file);
        let out = ours(&[path]);
        assert_eq!(out.status.code(), Some(1), "{word}");
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(text.contains(word) && text.contains("-f"), "{text}");
        assert_eq!(extents(&File::open(&image).expect("file")), before, "{word}");
        assert!(ours(&["-f", "-q", path]).status.success(), "{word} with -f");
    }
    assert!(!ours(&["-d", "name=/nonexistent/x"]).status.success());
}

#[test]
fn config_file_json_dry_run_and_new_image() {
    let said = ours(&["-V", "-b", "size=4k", "/nonexistent"]);
    assert!(said.status.success() && said.stdout.starts_with(b"xfsr-mkfs version "), "{said:?}");
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("c.conf");
    std::fs::write(&config, "\u{feff}# a comment\r\n[block]\r\nsize: 1k ; small\r\n\n[metadata]\nrmapbt=1\n")
        .expect("config");
    let image = dir.path().join("image");
    let path = image.to_str().expect("UTF-8");
    let config_option = format!("options={}", config.display());
    let new = format!("name={path},file,size=1g");
    let out = ours(&["-c", &config_option, "-N", "--json", "-d", &new]);
    let text = String::from_utf8_lossy(&out.stdout);
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((report["bsize"].as_u64(), report["rmapbt"].as_u64()), (Some(1024), Some(1)));
    assert!(!image.exists(), "-N made a file");
    let out = ours(&["-c", &config_option, "-q", "-d", &new]);
    assert!(out.status.success() && out.stdout.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(std::fs::metadata(&image).expect("image").len(), 1 << 30);
    let out = ours(&["-c", &config_option, "-b", "size=4k", path]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("-b size is given twice"));
}

#[test]
fn a_config_that_is_no_file_of_options_is_refused_in_a_sentence() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("image"), "").expect("an image");
    std::fs::write(at("bytes"), [0xff, 0xfe, b'[']).expect("a file");
    std::fs::write(at("steering"), "[block]\nsize\u{1b}[2J=1k\n").expect("a file");
    std::fs::write(at("long"), format!("[block]\nsize={}\n", "1".repeat(5000))).expect("a file");
    xfsr_tests::run("mkfifo", &[at("pipe")]).expect("a pipe");
    for (config, part) in [
        (at(""), "Is a directory"),
        (at("none"), "No such file"),
        ("/dev/zero".into(), "longer than"),
        (at("pipe"), "nobody writes"),
        (at("bytes"), "not UTF-8"),
        (at("steering"), "line 2: neither control characters"),
        (at("long"), "line 2: neither control characters"),
    ] {
        let out = ours(&["-c", &format!("options={}", config.display()), at("image").to_str().expect("UTF-8")]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && said.contains(part), "{}: {said}", config.display());
        assert!(said.lines().count() == 1 && said.len() < 300 && !said.contains('\u{1b}'), "{said}");
    }
    assert_eq!(std::fs::metadata(at("image")).expect("an image").len(), 0);
    // What another program writes meanwhile is options like any other.
    let command = "exec \"$0\" -N -c options=<(sleep 0.3; printf '[block]\\nsize=1k\\n') -d file,size=1g \"$1\"";
    let out = std::process::Command::new("bash")
        .args(["-c", command, env!("CARGO_BIN_EXE_xfsr-mkfs")])
        .arg(at("new"))
        .output()
        .expect("bash");
    assert!(String::from_utf8_lossy(&out.stdout).contains("bsize=1024"), "{out:?}");
}
