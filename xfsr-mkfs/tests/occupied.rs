//! What is on a target keeps it from being overwritten, and what is no target is refused. Refused means: untouched.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use xfsr_tests::oracle::{self, Loop};

const PROGRAM: &str = env!("CARGO_BIN_EXE_xfsr-mkfs");
const SIZE: u64 = 400 << 20;

fn sparse(path: &Path, len: u64) {
    let _ = std::fs::remove_file(path);
    File::create(path).and_then(|f| f.set_len(len)).expect("a sparse file");
}

/// Length, and all blocks that are not zero: equal before and after, nothing was written.
fn content(path: &Path) -> (u64, Vec<(u64, Vec<u8>)>) {
    use rustix::fs::{SeekFrom, seek};
    let file = File::open(path).expect("a file");
    let (mut out, mut at) = (Vec::new(), 0);
    while let Ok(data) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(data)).expect("a hole");
        let mut bytes = vec![0; (at - data) as usize];
        file.read_exact_at(&mut bytes, data).expect("reading");
        let blocks = (data..).step_by(4096).zip(bytes.chunks(4096));
        out.extend(blocks.filter(|(_, b)| b.iter().any(|b| *b != 0)).map(|(n, b)| (n, b.to_vec())));
    }
    (file.metadata().expect("a file").len(), out)
}

fn run(program: &str, options: &[&str], path: &Path) -> oracle::Verdict {
    let words: Vec<OsString> = options.iter().map(OsString::from).chain([path.into()]).collect();
    oracle::verdict(program, &words).expect("it runs")
}

/// The type that a refusal names in parentheses.
fn named(text: &str) -> Option<&str> {
    let line = text.lines().find(|l| l.contains("appears to contain"))?;
    Some(line.split_once('(')?.1.split_once(')')?.0)
}

/// A target that `make` fills is refused, by the name that mkfs.xfs gives, and is as before; with -f a filesystem is made.
fn refused_as_mkfs_xfs_does(image: &Path, what: &str, make: &dyn Fn(&Path)) {
    sparse(image, SIZE);
    make(image);
    let before = content(image);
    let theirs = run("mkfs.xfs", &["-N"], image);
    let theirs = if named(&theirs.output).is_some() { theirs } else { run("mkfs.xfs", &[], image) };
    assert_eq!(theirs.code, 1, "{what}: mkfs.xfs refuses: {}", theirs.output);
    assert!(content(image) == before, "{what}: mkfs.xfs wrote");
    let ours = run(PROGRAM, &[], image);
    assert_eq!((ours.code, named(&ours.output)), (1, named(&theirs.output)), "{what}: {}", ours.output);
    assert!(ours.output.lines().count() == 1 && ours.output.contains("-f"), "{what}: {}", ours.output);
    assert!(content(image) == before, "{what}: the refused target was written");
    let forced = run(PROGRAM, &["-f", "-q"], image);
    assert_eq!((forced.code, &*forced.output), (0, ""), "{what} with -f");
    let found = run("blkid", &["-p", "-o", "value", "-s", "TYPE"], image);
    assert_eq!(found.output.trim(), "xfs", "{what}: what blkid sees after -f");
}

#[test]
fn what_tools_make_is_recognised_as_mkfs_xfs_does() {
    let needs = ["mkfs.xfs", "mke2fs", "mkswap", "mkfs.minix", "blkid"];
    if oracle::require(&needs).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = directory.path().join("image");
    let other = directory.path().join("other");
    let makers: &[(&str, &[&str])] = &[
        ("mke2fs", &["-q", "-F", "-t", "ext2"]),
        ("mke2fs", &["-q", "-F", "-t", "ext3"]),
        ("mke2fs", &["-q", "-F", "-t", "ext4"]),
        ("mke2fs", &["-q", "-F", "-O", "journal_dev"]),
        ("mkswap", &[]),
        ("mkswap", &["-p", "65536"]),
        ("mkfs.minix", &["-3"]),
        ("mkfs.minix", &["-2"]),
        ("mkfs.xfs", &["-q", "-f"]),
        ("mkfs.xfs", &["-q", "-f", "-m", "crc=0"]),
        (PROGRAM, &["-q"]),
    ];
    for (program, options) in makers {
        let make = |path: &Path| {
            let said = run(program, options, path);
            assert_eq!(said.code, 0, "{program} {options:?}: {}", said.output);
        };
        refused_as_mkfs_xfs_does(&image, &format!("{program} {options:?}"), &make);
    }
    for program in ["mkfs.xfs", PROGRAM] {
        let make = |path: &Path| {
            sparse(&other, SIZE);
            let log = format!("logdev={},size=64m", path.display());
            let said = run(program, &["-q", "-f", "-l", &log], &other);
            assert_eq!(said.code, 0, "{program}: {}", said.output);
        };
        refused_as_mkfs_xfs_does(&image, &format!("a log by {program}"), &make);
    }
}

/// CRC-32 as a GPT has it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

/// A GPT header at a sector, without partitions; `entries` is the sector of its table.
fn gpt_header(sector: u64, other: u64, entries: u64, last: u64) -> Vec<u8> {
    let mut h = b"EFI PART\0\0\x01\0\x5c\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    for number in [sector, other, 34, last] {
        h.extend(number.to_le_bytes());
    }
    h.extend([7; 16]);
    h.extend(entries.to_le_bytes());
    h.extend(128_u32.to_le_bytes());
    h.extend(128_u32.to_le_bytes());
    h.extend(crc32(&[0; 128 * 128]).to_le_bytes());
    let crc = crc32(&h);
    h.splice(16..20, crc.to_le_bytes());
    h
}

#[test]
fn partition_tables_are_recognised_as_mkfs_xfs_does() {
    if oracle::require(&["mkfs.xfs", "blkid"]).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = directory.path().join("image");
    let write = |path: &Path, pieces: &[(u64, &[u8])]| {
        let file = File::options().write(true).open(path).expect("the image");
        pieces.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).expect("writing"));
    };
    let boot: (u64, &[u8]) = (510, &[0x55, 0xaa]);
    let mut partition = [0; 16];
    partition[4] = 0x83;
    partition[8..12].copy_from_slice(&2048_u32.to_le_bytes());
    partition[12..16].copy_from_slice(&100_000_u32.to_le_bytes());
    refused_as_mkfs_xfs_does(&image, "dos", &|p| write(p, &[(440, &[1, 2, 3, 4]), (446, &partition), boot]));
    refused_as_mkfs_xfs_does(&image, "dos, empty", &|p| write(p, &[(440, &[1, 2, 3, 4]), boot]));
    let sectors = SIZE / 512;
    let mut protective = partition;
    protective[4] = 0xee;
    protective[8..12].copy_from_slice(&1_u32.to_le_bytes());
    protective[12..16].copy_from_slice(&(sectors as u32 - 1).to_le_bytes());
    let first = gpt_header(1, sectors - 1, 2, sectors - 34);
    let second = gpt_header(sectors - 1, 1, sectors - 33, sectors - 34);
    let end = SIZE - 512;
    refused_as_mkfs_xfs_does(&image, "gpt", &|p| write(p, &[(446, &protective), boot, (512, &first), (end, &second)]));

    // Its second copy alone: mkfs.xfs asks for the protective table in front, we do not.
    sparse(&image, SIZE);
    write(&image, &[(end, &second)]);
    let ours = run(PROGRAM, &[], &image);
    assert!(ours.code == 1 && ours.output.contains("gpt, its second copy"), "{}", ours.output);
}

#[test]
fn what_is_no_target_is_refused_in_a_sentence() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let (small, empty, fifo, broken) = (at("small"), at("empty"), at("fifo"), at("broken"));
    std::fs::write(&small, vec![0xa5; 10 << 20]).expect("a file");
    std::fs::write(&empty, "").expect("a file");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("it runs").success());
    std::os::unix::fs::symlink("nothing", &broken).expect("a link");
    let before = (content(&small), std::fs::read_dir(directory.path()).expect("a directory").count());
    let cases: [(PathBuf, &str); 8] = [
        (small.clone(), "10485760 bytes, and a data section needs at least 314572800"),
        (empty, "0 bytes, and a data section needs"),
        (fifo, "neither a file nor a block device"),
        ("/dev/null".into(), "neither a file nor a block device"),
        (directory.path().into(), "neither a file nor a block device"),
        (broken, "no such file or device"),
        (at("missing"), "no such file or device"),
        (at("no/such/directory"), "no such file or device"),
    ];
    for (path, why) in &cases {
        for options in [&[][..], &["-f"], &["-N"], &["-f", "-K", "-q"]] {
            let said = run(PROGRAM, options, path);
            assert_eq!(said.code, 1, "{} {options:?}: {}", path.display(), said.output);
            let sentence = said.output.lines().count() == 1 && said.output.starts_with("xfsr-mkfs: ");
            assert!(sentence && said.output.contains(why), "{} {options:?}: {}", path.display(), said.output);
        }
    }
    let said = run(PROGRAM, &["-d", "file,size=5m,name="], &at("unused"));
    assert_eq!(said.code, 1, "{}", said.output);
    assert!((content(&small), std::fs::read_dir(directory.path()).expect("a directory").count()) == before);
}

#[test]
fn a_read_only_device_is_refused_before_the_first_write() {
    if oracle::require(&["root", "loop", "losetup"]).is_none() {
        return;
    }
    let image = tempfile::NamedTempFile::new().expect("a file");
    image.as_file().set_len(SIZE).expect("a length");
    let device = Loop::attach(image.path(), true).expect("a loop device");
    for options in [&["-f"][..], &[]] {
        let said = run(PROGRAM, options, device.path());
        assert!(said.code == 1 && said.output.contains("read-only"), "{options:?}: {}", said.output);
        assert_eq!(said.output.lines().count(), 1, "{}", said.output);
    }
    assert!(content(image.path()).1.is_empty(), "it was written");
    assert_eq!(run(PROGRAM, &["-N"], device.path()).code, 0, "looking is allowed");
}

#[test]
fn one_file_cannot_be_two_sections() {
    let directory = tempfile::tempdir().expect("a directory");
    let image = directory.path().join("image");
    sparse(&image, SIZE);
    let link = directory.path().join("link");
    std::fs::hard_link(&image, &link).expect("a link");
    for option in ["-llogdev=", "-rrtdev="] {
        let said = run(PROGRAM, &[&format!("{option}{}", link.display())], &image);
        assert!(said.code == 1 && said.output.contains("the data section is there"), "{}", said.output);
        assert!(content(&image).1.is_empty());
    }
}
