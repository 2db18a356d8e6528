//! What is mounted is never written to, whatever the path and with -f.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use xfsr_tests::corpus;
use xfsr_tests::interact::{self, Mounted};
use xfsr_tests::oracle::{self, Devices, Loop, Mount};

const PROGRAM: &str = env!("CARGO_BIN_EXE_xfsr-mkfs");

#[test]
fn a_mounted_filesystem_is_refused_by_every_path() {
    let Some(mounted) = Mounted::new() else { return };
    let before = mounted.superblock();
    for path in &mounted.paths {
        for options in [&[][..], &["-f"], &["-f", "-K"], &["-f", "-d", "size=300m"]] {
            let args: Vec<OsString> = options.iter().map(OsString::from).chain([path.into()]).collect();
            let said = oracle::verdict(PROGRAM, &args).expect("it runs");
            assert_eq!(said.code, 1, "{} {options:?}: {}", path.display(), said.output);
            assert!(said.output.contains("mounted on"), "{} {options:?}: {}", path.display(), said.output);
        }
    }
    assert_eq!(mounted.superblock(), before, "the superblock was written");
    let root = std::fs::read_dir(mounted.mount.path()).expect("a directory").count();
    assert!(root > 0, "the mounted filesystem is no longer what it was");
}

fn refused(path: &Path, why: &str) {
    for options in [&["-f"][..], &["-f", "-K"]] {
        let args: Vec<OsString> = options.iter().map(OsString::from).chain([path.into()]).collect();
        let said = oracle::verdict(PROGRAM, &args).expect("it runs");
        assert!(said.code == 1 && said.output.contains(why), "{} {options:?}: {}", path.display(), said.output);
    }
}

#[test]
fn a_mounted_file_that_was_renamed_or_replaced_is_still_known() {
    let Some(mounted) = Mounted::new() else { return };
    let image = &mounted.paths[1];
    let other = image.with_file_name("other");
    std::fs::rename(image, &other).expect("renaming");
    std::fs::write(image, b"the name that the loop device was given").expect("another file");
    refused(&other, "mounted on");
}

/// The only partition of a device, which goes with this.
struct Partitions<'a>(&'a Path);

impl Partitions<'_> {
    fn run(&self, program: &str, numbers: &[u64]) -> bool {
        let mut command = std::process::Command::new(program);
        command.arg(self.0).args(numbers.iter().map(u64::to_string)).stderr(std::process::Stdio::null());
        command.status().expect("it runs").success()
    }
}

impl Drop for Partitions<'_> {
    fn drop(&mut self) {
        self.run("delpart", &[1]);
    }
}

#[test]
fn a_mounted_partition_of_an_image_is_seen() {
    let (Some(_), Some(_)) = (corpus::obtain("default"), oracle::require(&["addpart"])) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy("default", directory.path()).data;
    let inner = std::fs::metadata(&image).expect("an image").len();
    let disk = directory.path().join("disk");
    let mut whole = std::fs::File::create(&disk).expect("a file");
    whole.seek(SeekFrom::Start(1 << 20)).expect("seeking");
    std::io::copy(&mut std::fs::File::open(&image).expect("the image"), &mut whole).expect("copying");
    let device = Loop::attach(&disk, false).expect("a loop device");
    let partitions = Partitions(device.path());
    // A loop device keeps partitions that were added by hand when it gets another file: those of a test that was killed.
    partitions.run("delpart", &[1]);
    assert!(partitions.run("addpart", &[1, 2048, inner / 512]), "addpart");
    let partition = PathBuf::from(format!("{}p1", device.path().display()));
    for _ in 0..100 {
        if partition.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mount = Mount::new(Devices::from(&partition), "").expect("a mount");
    refused(&disk, "mounted on");
    refused(device.path(), "mounted on");
    mount.unmount().expect("unmounting");
}

#[test]
fn a_mount_in_another_namespace_is_seen() {
    let (Some(_), Some(_)) = (corpus::obtain("default"), oracle::require(&["unshare"])) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy("default", directory.path()).data;
    let at = directory.path().join("at");
    std::fs::create_dir(&at).expect("a directory");
    let device = Loop::attach(&image, false).expect("a loop device");
    let script = "mount -t xfs -o nouuid \"$0\" \"$1\" && echo ready && read end; umount \"$1\"";
    let mut child = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .args([device.path(), &at])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    let seen = std::panic::catch_unwind(|| {
        refused(&image, "in use");
        let said = oracle::verdict(PROGRAM, &["-N".into(), (&image).into()]).expect("it runs");
        assert!(said.output.contains("inconsistent"), "{}", said.output);
    });
    drop(child.stdin.take());
    child.wait().expect("it ends");
    if let Err(e) = seen {
        std::panic::resume_unwind(e);
    }
}

#[test]
fn looking_at_a_mounted_filesystem_says_so() {
    interact::reader_warns(PROGRAM, &["-N"]);
}

#[test]
fn a_loop_device_on_a_loop_device_is_seen_through() {
    if corpus::obtain("default").is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy("default", directory.path()).data;
    let lower = Loop::attach(&image, false).expect("a loop device");
    let mount = Mount::new(Devices::from(lower.path()), "").expect("a mount");
    for path in [&image, &lower.path().to_owned()] {
        let said = oracle::verdict(PROGRAM, &["-f".into(), path.into()]).expect("it runs");
        assert!(said.code == 1 && said.output.contains("mounted on"), "{}: {}", path.display(), said.output);
    }
    mount.unmount().expect("unmounting");
}

#[test]
fn a_log_or_realtime_device_in_use_is_refused() {
    if oracle::require(oracle::MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, mib: u64| {
        let path = directory.path().join(name);
        std::fs::File::create(&path).and_then(|f| f.set_len(mib << 20)).expect("a file");
        path
    };
    let devices = Devices { data: file("data", 300), log: Some(file("log", 64)), rt: None };
    oracle::mkfs_xfs(&[], &devices).expect("mkfs.xfs");
    let mount = Mount::new(&devices, "").expect("a mount");
    let other = file("other", 400);
    let log = devices.log.clone().expect("a log");
    let value = |name: &str, path: &Path| format!("{name}={}", path.display());
    let before = [&log, &devices.data].map(|p| std::fs::read(p).expect("a file"));
    for arguments in [
        vec!["-l".to_owned(), value("logdev", &log)],
        vec!["-l".to_owned(), value("logdev", &log) + ",file,size=64m"],
        vec!["-m".into(), "reflink=0".into(), "-r".into(), value("rtdev", &devices.data)],
        vec!["-m".into(), "reflink=0".into(), "-r".into(), value("rtdev", &log)],
        vec!["-l".to_owned(), value("logdev", &devices.data)],
    ] {
        let mut words: Vec<OsString> = vec!["-f".into()];
        words.extend(arguments.iter().map(OsString::from));
        words.push((&other).into());
        let said = oracle::verdict(PROGRAM, &words).expect("it runs");
        assert!(said.code == 1 && said.output.contains("mounted on"), "{arguments:?}: {}", said.output);
    }
    let said = oracle::verdict(PROGRAM, &["-f".into(), (&log).into()]).expect("it runs");
    assert!(said.code == 1 && said.output.contains("mounted on"), "{}", said.output);
    let after = [&log, &devices.data].map(|p| std::fs::read(p).expect("a file"));
    assert!(before == after, "a device in use was written");
    mount.unmount().expect("unmounting");
}

#[test]
fn a_new_log_file_is_made_and_a_failure_is_json() {
    let directory = tempfile::tempdir().expect("a directory");
    let [data, log] = ["data", "log"].map(|n| directory.path().join(n));
    let run = |words: &[String]| {
        let out = std::process::Command::new(PROGRAM).args(words).output().expect("it runs");
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (d, l) = (data.display(), log.display());
    let words = list(&format!("-q -d name={d},file,size=300m -l file,logdev={l},size=64m"));
    assert_eq!(run(&words), (Some(0), String::new()));
    assert_eq!(std::fs::metadata(&log).expect("a log").len(), 64 << 20);
    let volume = libxfsr::volume::Volume::open(&libxfsr::volume::Devices {
        data: data.clone(),
        log: Some(log.clone()),
        realtime: None,
    });
    let outcome =
        libxfsr::check::check(&volume.expect("a volume"), &libxfsr::control::Control::none()).expect("a check");
    assert_eq!(outcome.verdict(), libxfsr::check::Verdict::Clean, "{outcome}");
    for (words, kind) in [
        (format!("--json {d}"), "occupied"),
        (format!("--json -b size=3 {d}"), "usage"),
        ("--json /nonexistent".to_owned(), "usage"),
        ("--json --colour".to_owned(), "usage"),
    ] {
        let (code, out) = run(&list(&words));
        let document: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{words}: {e}: {out}"));
        let error = &document["error"];
        assert_eq!(
            (code, error["kind"].as_str(), error["exit_status"].as_u64()),
            (Some(1), Some(kind), Some(1)),
            "{words}"
        );
    }
}
