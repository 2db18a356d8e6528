//! Block devices: their geometry, what is discarded, and what is left when it is interrupted.

use rustix::process::Signal;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use xfsr_tests::interact::{Ended, Running};
use xfsr_tests::oracle::{self, Guest, GuestJob, Loop};

const PROGRAM: &str = env!("CARGO_BIN_EXE_xfsr-mkfs");
const UUID: &str = "uuid=11111111-2222-3333-4444-555555555555";

fn run(program: &str, options: &[&str], path: &Path) -> oracle::Verdict {
    let words: Vec<OsString> = options.iter().map(OsString::from).chain([path.into()]).collect();
    oracle::verdict(program, &words).expect("it runs")
}

/// A loop device with sectors of 4096 bytes.
struct Large(PathBuf);

impl Large {
    fn attach(file: &Path) -> Self {
        let args = ["-f", "--show", "--sector-size", "4096"].map(OsString::from);
        let words: Vec<OsString> = args.into_iter().chain([file.into()]).collect();
        for _ in 0..20 {
            if let Ok(name) = xfsr_tests::run("losetup", &words) {
                return Self(name.trim().into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no loop device");
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).output();
    }
}

fn whole(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut f| f.read_to_end(&mut bytes)).expect("reading");
    bytes
}

/// Bytes in which two filesystems of one UUID may not differ: all but the times of the first three inodes and these inodes' checksums.
fn differences(a: &[u8], b: &[u8]) -> Vec<usize> {
    let number = |at: usize, len: usize| a[at..at + len].iter().fold(0, |n, b| n << 8 | usize::from(*b));
    let (block, inode, root, per_block) = (number(4, 4), number(104, 2), number(56, 8), number(123, 1));
    let base = (root >> per_block) * block + (root & ((1 << per_block) - 1)) * inode;
    let fields = [(40, 16), (100, 4), (144, 8)];
    let masks: Vec<_> =
        (0..3).flat_map(|n| fields.map(|(o, l)| base + n * inode + o..base + n * inode + o + l)).collect();
    assert_eq!(a.len(), b.len());
    let differ = (0..a.len()).step_by(4096).filter(|n| a[*n..*n + 4096] != b[*n..*n + 4096]);
    let bytes = differ.flat_map(|n| n..n + 4096).filter(|n| a[*n] != b[*n]);
    bytes.filter(|n| !masks.iter().any(|m| m.contains(n))).collect()
}

#[test]
fn large_sectors_are_taken_from_the_device() {
    if oracle::require(&["root", "loop", "losetup", "mkfs.xfs"]).is_none() {
        return;
    }
    let image = tempfile::NamedTempFile::new().expect("a file");
    image.as_file().set_len(320 << 20).expect("a length");
    let device = Large::attach(image.path());
    for options in ["", "-s size=8k -b size=16k", "-d sectsize=4096", "-i size=1024 -n size=8k"] {
        let words: Vec<&str> = options.split_whitespace().chain(["-f", "-K", "-m", UUID]).collect();
        let theirs = run("mkfs.xfs", &words, &device.0);
        let their_bytes = whole(&device.0);
        let ours = run(PROGRAM, &words, &device.0);
        assert_eq!((ours.code, &ours.output), (0, &theirs.output), "{options}");
        assert!(options.contains("8k -b") || ours.output.contains("sectsz=4096"), "{}", ours.output);
        assert_eq!(differences(&their_bytes, &whole(&device.0)), [0_usize; 0], "{options}");
    }
    let before = whole(&device.0);
    for (options, part) in [
        ("-s size=512", "-s size=512 is not possible: the device's sectors have 4096 bytes"),
        ("-s size=2k -b size=2k", "-s size=2048 is not possible"),
        ("-d sectsize=1024", "=1024 is not possible"),
        ("-b size=1024", "a sector is at most a block"),
    ] {
        let words: Vec<&str> = options.split_whitespace().chain(["-f"]).collect();
        assert_eq!(run("mkfs.xfs", &words, &device.0).code, 1, "{options}: mkfs.xfs");
        let ours = run(PROGRAM, &words, &device.0);
        assert!(ours.code == 1 && ours.output.contains(part), "{options}: {}", ours.output);
        assert_eq!(ours.output.lines().count(), 1, "{}", ours.output);
    }
    assert!(whole(&device.0) == before, "a refused option wrote");
}

/// Fills a file with bytes that no metadata looks like.
fn garbage(path: &Path, len: u64) {
    let mut file = File::create(path).expect("a file");
    let piece = vec![0xa5; 1 << 20];
    for _ in 0..len >> 20 {
        file.write_all(&piece).expect("writing");
    }
    file.sync_all().expect("writing");
}

#[test]
fn metadata_is_whole_whatever_the_device_held() {
    if oracle::require(&["mkfs.xfs", "xfs_repair"]).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let [theirs, ours] = ["theirs", "ours"].map(|n| directory.path().join(n));
    for options in ["", "-b size=1k -m rmapbt=1", "-b size=64k"] {
        for (program, path) in [("mkfs.xfs", &theirs), (PROGRAM, &ours)] {
            garbage(path, 320 << 20);
            // What a device discards is undefined; not discarding leaves the worst.
            let uuid = format!("rmapbt={},{UUID}", u8::from(options.contains("rmapbt=1")));
            let options = options.replace("-m rmapbt=1", "");
            let words: Vec<&str> = options.split_whitespace().chain(["-q", "-f", "-K", "-m", &uuid]).collect();
            let said = run(program, &words, path);
            assert_eq!(said.code, 0, "{program} {options}: {}", said.output);
        }
        let (a, b) = (whole(&theirs), whole(&ours));
        let number = |at: usize| a[at..at + 4].iter().fold(0, |n, b| n << 8 | usize::from(*b));
        let (block, group) = (number(4), number(4) * number(84));
        // Behind the four headers of an AG their block is unused: mkfs.xfs leaves what was there, we clear it.
        let wrong: Vec<usize> =
            differences(&a, &b).into_iter().filter(|n| n % group < 2048 || n % group >= block || b[*n] != 0).collect();
        assert_eq!(wrong, [0_usize; 0], "{options}");
        let volume = libxfsr::volume::Volume::open(&libxfsr::volume::Devices::data(&ours)).expect("a volume");
        let outcome = libxfsr::check::check(&volume, &libxfsr::control::Control::none()).expect("a check");
        assert_eq!(outcome.verdict(), libxfsr::check::Verdict::Clean, "{options}: {outcome}");
        let theirs = oracle::xfs_repair_n(&ours, &[]).expect("xfs_repair runs");
        assert!(theirs.clean(), "{options}: {}", theirs.output);
    }
}

#[test]
fn discarding_gives_back_what_the_device_took() {
    if oracle::require(&["root", "loop", "losetup", "mkfs.xfs"]).is_none() {
        return;
    }
    let image = tempfile::NamedTempFile::new().expect("a file");
    garbage(image.path(), 400 << 20);
    let used = || File::open(image.path()).and_then(|f| f.sync_all().and(f.metadata())).expect("a file").blocks() * 512;
    let device = Loop::attach(image.path(), false).expect("a loop device");
    let full = used();
    assert!(full >= 400 << 20, "{full}");
    let kept = run(PROGRAM, &["-q", "-f", "-K"], device.path());
    assert_eq!((kept.code, &*kept.output), (0, ""));
    assert!(used() >= full - (1 << 20), "-K gave back {} of {full}", full - used());
    let given = run(PROGRAM, &["-q", "-f"], device.path());
    assert_eq!((given.code, &*given.output), (0, ""));
    // The log is 64 MiB, and may take its space.
    assert!(used() < 70 << 20, "{} of {full} still taken", used());
    let back = oracle::xfs_repair_n(device.path(), &[]).expect("xfs_repair runs");
    assert!(back.clean(), "{}", back.output);
}

/// The program with each discard (of a device) and each punch (of a file) taking longer.
fn slowed(path: &Path, micros: u32) -> Command {
    let mut command = Command::new("strace");
    let inject = format!("inject=ioctl,fallocate:delay_exit={micros}");
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=ioctl,fallocate", "-e", &inject, "--"]);
    command.arg(PROGRAM).args(["-q", "-f", "--progress=json"]).arg(path);
    command.stdin(Stdio::null());
    command
}

#[test]
fn a_long_discard_tells_its_progress_and_can_be_interrupted() {
    if oracle::require(&["root", "loop", "losetup", "strace", "mkfs.xfs", "blkid"]).is_none() {
        return;
    }
    let image = tempfile::NamedTempFile::new().expect("a file");
    image.as_file().set_len(30 << 30).expect("a length");
    let device = Loop::attach(image.path(), false).expect("a loop device");
    let made = run("mkfs.xfs", &["-q", "-f"], device.path());
    assert_eq!(made.code, 0, "{}", made.output);
    let mark = |byte: u8| image.as_file().write_all_at(&[byte; 4096], 29 << 30).expect("writing");
    mark(0xa5);

    let mut running = Running::start(&mut slowed(device.path(), 250_000)).expect("it starts");
    running.wait_for(|_, err| err.contains("\"phase\":\"discard\"")).expect("progress");
    running.signal(Signal::INT).expect("a signal");
    let Ended { code, err: said, took, .. } = running.finish().expect("it ends");
    assert_eq!(code, Some(130), "{said}");
    assert!(took < Duration::from_secs(5), "Ctrl-C took {took:?}");
    assert!(said.contains("holds no filesystem now") && said.contains("make it again"), "{said}");
    let mut last = [0; 4096];
    image.as_file().read_exact_at(&mut last, 29 << 30).expect("reading");
    assert_eq!(last, [0xa5; 4096], "it was not interrupted in the middle");
    let found = run("blkid", &["-p"], device.path());
    assert!(!found.output.contains("xfs"), "half a filesystem looks whole: {}", found.output);

    let again = run(PROGRAM, &["-q"], device.path());
    assert_eq!((again.code, &*again.output), (0, ""), "nothing is in the way of another run");
    let clean = oracle::xfs_repair_n(device.path(), &[]).expect("xfs_repair runs");
    assert!(clean.clean(), "{}", clean.output);
}

/// Asks both programs of one device with several options, and says what they answer.
const LOOK: &str = r#"
cd /tmp
look() { device=$1; shift; for p in mkfs.xfs xfsr-mkfs; do $p -N -f "$@" $device >$p.out 2>/dev/null; echo "status $?" >>$p.out; done
 if cmp -s mkfs.xfs.out xfsr-mkfs.out; then echo "equal: $(grep -o 'sectsz=[0-9]*' xfsr-mkfs.out | head -1) $(grep -m1 -o 'sunit=.*' xfsr-mkfs.out | tr -s ' ') $device $*"
 else echo "DIFFERENT $device $*"; cat mkfs.xfs.out xfsr-mkfs.out; fi; }
echo 1 >/sys/bus/pseudo/drivers/scsi_debug/add_host; while [ ! -b /dev/sda ]; do sleep 0.1; done
look /dev/sda; look /dev/sda -b size=1k; look /dev/sda -d noalign; look /dev/sda -s size=512; look /dev/sda -d size=600m
for n in 1 2 3; do truncate -s 2G file$n; done
a=$(losetup -f --show file1); b=$(losetup -f --show --sector-size 4096 file2); c=$(losetup -f --show file3)
for unit in 128 24 4096; do
 dmsetup create striped --table "0 6144000 striped 2 $unit $a 0 $c 0"; dmsetup mknodes
 look /dev/mapper/striped; look /dev/mapper/striped -b size=16k; look /dev/mapper/striped -d su=32k,sw=2
 dmsetup remove striped
done
dmsetup create linear --table "0 3072000 linear $a 0
3072000 3072000 linear $b 0"; dmsetup mknodes
look /dev/mapper/linear; look /dev/mapper/linear -s size=512
dmsetup remove linear
truncate -s 320M log; d=$(losetup -f --show log); e=$(losetup -f --show --sector-size 4096 file2)
look -l logdev=/dev/sda,size=100m $a; look -l logdev=$e,size=100m $a; look -l logdev=$d,size=100m -s size=4k $a; look -l logdev=$d,size=100m /dev/sda
echo done
"#;

/// The same on devices whose first byte is not where a physical sector begins: shifted, a partition, of unequal parts.
const MISALIGNED: &str = r#"
cd /tmp
told() { for p in mkfs.xfs xfsr-mkfs; do $p -N "$@" >$p.out 2>$p.err; echo "status $?" >>$p.out; echo "$p says $(grep -c align $p.err)" >$p.say; done
 cmp -s mkfs.xfs.out xfsr-mkfs.out && echo "equal: $(grep -o 'sectsz=[0-9]*' xfsr-mkfs.out | sort -u | xargs) $(grep status mkfs.xfs.out), $(cat mkfs.xfs.say), $(cat xfsr-mkfs.say): $*" ||
 { echo "DIFFERENT $*"; cat mkfs.xfs.out xfsr-mkfs.out; }; [ -s xfsr-mkfs.out ] && sed 's/^/  /' xfsr-mkfs.err; }
echo 1 >/sys/bus/pseudo/drivers/scsi_debug/add_host; while [ ! -b /dev/sda ]; do sleep 0.1; done
truncate -s 2G file; a=$(losetup -f --show file)
dmsetup create shifted --table "0 3072000 linear /dev/sda 7"; dmsetup mknodes
for o in "" "-f" "-f -s size=4096" "-s size=512" "-f -b size=1k"; do told $o /dev/mapper/shifted; done
told -r rtdev=/dev/mapper/shifted $a; told -f -r rtdev=/dev/mapper/shifted $a; told -l logdev=/dev/mapper/shifted,size=100m $a
dmsetup remove shifted
dmsetup create parts --table "0 16 linear /dev/sda 9
16 700000 linear $a 0"; dmsetup mknodes
told /dev/mapper/parts; told -f /dev/mapper/parts
u="-f -m uuid=11111111-2222-3333-4444-555555555555 /dev/mapper/parts"
for p in mkfs.xfs xfsr-mkfs; do dd if=/dev/zero of=/dev/mapper/parts bs=1M count=1 2>/dev/null; $p $u >/dev/null 2>&1 || echo "$p failed"
 for o in sb\ 0 agf\ 1 agi\ 1 sb\ 2; do xfs_db -r -c "$o" -c print /dev/mapper/parts; done >$p.fields 2>&1; done
cmp mkfs.xfs.fields xfsr-mkfs.fields && grep -q '^logblocks' mkfs.xfs.fields && echo "fields are equal"
xfs_repair -n /dev/mapper/parts >repair.out 2>&1 && echo "xfs_repair is content" || cat repair.out
xfsr-mkfs /dev/mapper/parts 2>&1 | grep -c 'use -f'
dmsetup remove parts
printf 'n\np\n1\n63\n3000000\nw\n' | fdisk -u /dev/sda >/dev/null 2>&1; told /dev/sda1; told -f /dev/sda1
echo done
"#;

#[test]
fn the_geometry_of_devices_is_what_mkfs_xfs_sees() {
    if oracle::require(&["guest", "mkfs.xfs", "dmsetup"]).is_none() {
        return;
    }
    let guest = Guest::find().expect("the guest kernel");
    // Sectors of 512 bytes in physical ones of 4096, stripes of 64 KiB and 512 KiB; most of the device wraps around in a little memory.
    let parameters = "scsi_debug.dev_size_mb=8 scsi_debug.virtual_gb=3 scsi_debug.physblk_exp=3 scsi_debug.opt_blks=1024 \
                      scsi_debug.opt_xferlen_exp=7";
    let job = GuestJob { programs: vec![Path::new(PROGRAM)], parameters, ..Default::default() };
    let said = guest.run(&job, LOOK).expect("the guest runs").output;
    let equal = said.lines().filter(|l| l.starts_with("equal: ")).count();
    assert!(equal == 20 && said.contains("done") && !said.contains("DIFFERENT"), "{equal}: {said}");
    for line in [
        "equal: sectsz=4096 sunit=16 swidth=128 blks /dev/sda",
        "equal: sectsz=4096 sunit=0 swidth=0 blks /dev/sda -d size=600m",
        "equal: sectsz=512 sunit=3 swidth=6 blks /dev/mapper/striped",
        "equal: sectsz=512 sunit=0 swidth=0 blks /dev/mapper/striped -b size=16k",
        "equal: sectsz=4096 sunit=0 swidth=0 blks /dev/mapper/linear",
    ] {
        assert!(said.lines().any(|l| l.trim() == line), "{line}: {said}");
    }
}

#[test]
fn misaligned_devices_need_force_and_get_logical_sectors() {
    if oracle::require(&["guest", "mkfs.xfs", "dmsetup"]).is_none() {
        return;
    }
    let guest = Guest::find().expect("the guest kernel");
    let parameters = "scsi_debug.dev_size_mb=8 scsi_debug.virtual_gb=3 scsi_debug.physblk_exp=3";
    let job = GuestJob { programs: vec![Path::new(PROGRAM)], parameters, ..Default::default() };
    let said = guest.run(&job, MISALIGNED).expect("the guest runs").output;
    let equal = said.lines().filter(|l| l.starts_with("equal: ")).count();
    assert!(equal == 12 && said.contains("done") && !said.contains("DIFFERENT"), "{equal}: {said}");
    for line in [
        "equal:  status 1, mkfs.xfs says 2, xfsr-mkfs says 1: /dev/mapper/shifted",
        "equal: sectsz=512 status 0, mkfs.xfs says 1, xfsr-mkfs says 1: -f /dev/mapper/shifted",
        "equal: sectsz=4096 status 0, mkfs.xfs says 1, xfsr-mkfs says 1: -f -s size=4096 /dev/mapper/shifted",
        "equal:  status 1, mkfs.xfs says 2, xfsr-mkfs says 1: -r rtdev=/dev/mapper/shifted /dev/loop0",
        "equal: sectsz=512 status 0, mkfs.xfs says 0, xfsr-mkfs says 0: -l logdev=/dev/mapper/shifted,size=100m /dev/loop0",
        "equal:  status 1, mkfs.xfs says 2, xfsr-mkfs says 1: /dev/sda1",
        "equal: sectsz=512 status 0, mkfs.xfs says 1, xfsr-mkfs says 1: -f /dev/sda1",
        "xfsr-mkfs: /dev/mapper/shifted is misaligned: its first byte is not where a physical sector of 4096 bytes begins \
         (alignment offset 512); use -f for a filesystem with sectors of 512 bytes there",
        // What both made there is the same, and what we say without -f is all that we do.
        "fields are equal",
        "xfs_repair is content",
        "1",
    ] {
        assert!(said.lines().any(|l| l.trim() == line), "{line}: {said}");
    }
}
