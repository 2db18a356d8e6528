//! The tools whose verdicts count: the kernel's own XFS, xfsprogs, and a guest kernel with quota and realtime.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::{FileLock, output, run, target_dir};

/// Proof that the oracles a test asked for are there.
#[derive(Clone, Copy, Debug)]
pub struct Ready(());

/// Asks for oracles: names of programs, and `root`, `loop` (loop devices), `xfs` (this kernel mounts XFS), `guest` (the guest kernel
/// of `XFSR_TEST_KERNEL`). Where one is missing it prints `SKIPPED: needs ...` and returns `None`, and the test shall return.
///
/// # Panics
/// With `XFSR_REQUIRE_ORACLES=1`, where one is missing.
pub fn require(needs: &[&str]) -> Option<Ready> {
    let missing: Vec<&str> = needs.iter().copied().filter(|n| !present(n)).collect();
    if missing.is_empty() {
        return Some(Ready(()));
    }
    let missing = missing.join(", ");
    assert!(std::env::var_os("XFSR_REQUIRE_ORACLES").is_none_or(|v| v != "1"), "an oracle is missing: {missing}");
    println!("SKIPPED: needs {missing}");
    None
}

/// What mounting an image needs, for [`require`].
pub const MOUNT: &[&str] = &["root", "loop", "xfs", "losetup", "mkfs.xfs", "xfs_io", "xfs_db", "xfs_repair"];

fn present(need: &str) -> bool {
    match need {
        "root" => rustix::process::geteuid().is_root(),
        "loop" => Path::new("/dev/loop-control").exists(),
        "xfs" => std::fs::read_to_string("/proc/filesystems").is_ok_and(|s| s.lines().any(|l| l.trim() == "xfs")),
        "guest" => Guest::find().is_some(),
        program => in_path(program),
    }
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).any(|dir| dir.join(program).is_file())
}

/// The files or devices of one filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// The data device.
    pub data: PathBuf,
    /// The external log, where there is one.
    pub log: Option<PathBuf>,
    /// The realtime device, where there is one.
    pub rt: Option<PathBuf>,
}

impl From<&Path> for Devices {
    fn from(data: &Path) -> Devices {
        Devices { data: data.to_path_buf(), log: None, rt: None }
    }
}

impl From<&PathBuf> for Devices {
    fn from(data: &PathBuf) -> Devices {
        Devices::from(data.as_path())
    }
}

impl From<&Devices> for Devices {
    fn from(devices: &Devices) -> Devices {
        devices.clone()
    }
}

impl Devices {
    /// The arguments `-l LOG -r RT` that xfsprogs takes.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut args = Vec::new();
        for (flag, path) in [("-l", &self.log), ("-r", &self.rt)] {
            if let Some(path) = path {
                args.extend([flag.into(), path.into()]);
            }
        }
        args
    }
}

/// Runs `mkfs.xfs -q -f ARGS DATA`, with the external log and realtime device where given.
pub fn mkfs_xfs(args: &[&str], devices: impl Into<Devices>) -> Result<()> {
    let devices = devices.into();
    let mut all: Vec<OsString> = ["-q", "-f"].iter().chain(args).map(OsString::from).collect();
    for (option, key, path) in [("-l", "logdev=", &devices.log), ("-r", "rtdev=", &devices.rt)] {
        if let Some(path) = path {
            let mut value = OsString::from(key);
            value.push(path);
            if let Ok(length) = std::fs::metadata(path).map(|m| m.len()) {
                value.push(format!(",size={length}"));
            }
            all.extend([option.into(), value]);
        }
    }
    all.push(devices.data.into());
    run("mkfs.xfs", &all)?;
    Ok(())
}

/// A checker's exit code and all that it printed.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output, then standard error.
    pub output: String,
}

impl Verdict {
    /// Exit code 0.
    pub fn clean(&self) -> bool {
        self.code == 0
    }
}

/// Runs `xfs_repair -n -f EXTRA`.
pub fn xfs_repair_n(devices: impl Into<Devices>, extra: &[&str]) -> Result<Verdict> {
    let devices = devices.into();
    let mut args: Vec<OsString> = ["-n", "-f"].iter().chain(extra).map(OsString::from).collect();
    args.extend(devices.arguments());
    args.push(devices.data.into());
    verdict("xfs_repair", &args)
}

/// Runs a program and takes its exit code and output as a verdict.
pub fn verdict(program: &str, args: &[OsString]) -> Result<Verdict> {
    let out = output(program, args)?;
    let mut text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&out.stderr));
    Ok(Verdict { code: out.status.code().unwrap_or(-1), output: text })
}

/// Asserts that a program refuses a v4 filesystem in a sentence. `args` come before the path.
///
/// # Panics
/// Where it does not.
pub fn v4_is_refused(program: &str, args: &[&str], code: i32) {
    if require(&["mkfs.xfs"]).is_none() {
        return;
    }
    let image = tempfile::NamedTempFile::new().expect("a file");
    image.as_file().set_len(300 << 20).expect("a length");
    mkfs_xfs(&["-m", "crc=0"], image.path()).expect("a v4 filesystem");
    let words: Vec<OsString> = args.iter().map(OsString::from).chain([image.path().into()]).collect();
    let v = verdict(program, &words).expect("it runs");
    assert_eq!(v.code, code, "{}", v.output);
    assert!(v.output.contains("XFS v4 filesystem"), "{}", v.output);
}

/// Runs xfs_db read-only with these commands and returns what it printed on its standard output.
pub fn xfs_db<S: AsRef<str>>(devices: impl Into<Devices>, commands: &[S]) -> Result<String> {
    db(devices.into(), "-r", commands)
}

/// Runs xfs_db in expert mode, so that its commands may write.
pub fn xfs_db_write<S: AsRef<str>>(devices: impl Into<Devices>, commands: &[S]) -> Result<String> {
    db(devices.into(), "-x", commands)
}

fn db<S: AsRef<str>>(devices: Devices, mode: &str, commands: &[S]) -> Result<String> {
    let mut args: Vec<OsString> = vec![mode.into(), "-f".into()];
    if let Some(log) = &devices.log {
        args.extend(["-l".into(), log.into()]);
    }
    for command in commands {
        args.extend(["-c".into(), command.as_ref().into()]);
    }
    args.push(devices.data.into());
    run("xfs_db", &args)
}

/// A filesystem mounted through loop devices; unmounted and detached when dropped, also when a test panics.
#[derive(Debug)]
pub struct Mount {
    directory: PathBuf,
    mounted: bool,
}

impl Mount {
    /// Mounts `devices`; `options` is a comma-separated list, in which `ro` is understood. Copies of one image may be mounted
    /// at the same time: their equal UUIDs are not checked.
    pub fn new(devices: impl Into<Devices>, options: &str) -> Result<Mount> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let devices = devices.into();
        let readonly = options.split(',').any(|o| o == "ro");
        let mut data: Vec<String> =
            options.split(',').filter(|o| !o.is_empty() && *o != "ro").map(String::from).collect();
        data.push("nouuid".into());
        let device = Loop::attach(&devices.data, readonly)?;
        let log = devices.log.as_deref().map(|p| Loop::attach(p, readonly)).transpose()?;
        let rt = devices.rt.as_deref().map(|p| Loop::attach(p, readonly)).transpose()?;
        for (key, other) in [("logdev", &log), ("rtdev", &rt)] {
            if let Some(other) = other {
                data.push(format!("{key}={}", other.0));
            }
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("xfsr-mount-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory)?;
        let mut mount = Mount { directory, mounted: false };
        let flags = if readonly { MountFlags::RDONLY | MountFlags::NOATIME } else { MountFlags::NOATIME };
        let text = std::ffi::CString::new(data.join(","))?;
        rustix::mount::mount(device.0.as_str(), &mount.directory, "xfs", flags, text.as_c_str())
            .with_context(|| format!("mount {} ({})", devices.data.display(), data.join(",")))?;
        mount.mounted = true;
        // The loop devices are released here already; the kernel detaches them when the unmount closes them.
        Ok(mount)
    }

    /// The root directory of the mounted filesystem.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Flushes the log and shuts the filesystem down, so that what follows the unmount is a crashed image.
    pub fn shutdown(&self) -> Result<()> {
        xfs_io(&self.directory, &["shutdown -f"])
    }

    /// Shuts the filesystem down without flushing the log.
    pub fn shutdown_now(&self) -> Result<()> {
        xfs_io(&self.directory, &["shutdown"])
    }

    /// Unmounts and says where that failed, which dropping cannot.
    pub fn unmount(mut self) -> Result<()> {
        self.detach()
    }

    fn detach(&mut self) -> Result<()> {
        if std::mem::take(&mut self.mounted) {
            let mut tries = 0;
            while let Err(e) = rustix::mount::unmount(&self.directory, UnmountFlags::empty()) {
                tries += 1;
                if tries == 50 {
                    rustix::mount::unmount(&self.directory, UnmountFlags::DETACH)?;
                    bail!("unmount {}: {e}", self.directory.display());
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
        std::fs::remove_dir(&self.directory)?;
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted || self.directory.exists() {
            // Nothing can be done about a failure here.
            let _ = self.detach();
        }
    }
}

/// Runs xfs_io in expert mode on a file with these commands.
pub fn xfs_io<S: AsRef<str>>(file: &Path, commands: &[S]) -> Result<()> {
    let mut args: Vec<OsString> = vec!["-x".into()];
    if file.is_dir() {
        args.push("-r".into());
    }
    for command in commands {
        args.extend(["-c".into(), command.as_ref().into()]);
    }
    args.push(file.into());
    run("xfs_io", &args)?;
    Ok(())
}

/// A loop device. Dropping it asks the kernel to detach it, which happens when the last user has closed it.
#[derive(Debug)]
pub struct Loop(String);

impl Loop {
    /// Attaches a file.
    pub fn attach(file: &Path, readonly: bool) -> Result<Loop> {
        let mut args: Vec<OsString> = vec!["-f".into(), "--show".into()];
        if readonly {
            args.push("-r".into());
        }
        args.push(file.into());
        // Between finding a free device and taking it another process may be faster.
        let mut tries = 0;
        loop {
            match run("losetup", &args) {
                Ok(name) => return Ok(Loop(name.trim().to_owned())),
                Err(_) if tries < 20 => tries += 1,
                Err(e) => return Err(e),
            }
            std::thread::sleep(std::time::Duration::from_millis(10 * tries));
        }
    }

    /// The device's path.
    pub fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = output("losetup", &["-d", &self.0]);
    }
}

/// The guest kernel: Linux with online scrub, quota, realtime and ascii-ci, run by the `run.sh` in `XFSR_TEST_KERNEL`.
#[derive(Clone, Debug)]
pub struct Guest {
    directory: PathBuf,
}

/// What the guest prints before it runs a command.
const BEGUN: &str = "xfsr-guest-has-begun";

/// What to run in the guest.
#[derive(Clone, Debug, Default)]
pub struct GuestJob<'a> {
    /// Images, seen as /dev/vda, /dev/vdb...
    pub disks: Vec<&'a Path>,
    /// Programs of the host to have in the guest's PATH.
    pub programs: Vec<&'a Path>,
    /// A host directory to share as /host.
    pub share: Option<&'a Path>,
    /// Use the kernel with XFS_DEBUG.
    pub debug: bool,
    /// Parameters of the guest kernel beside its own.
    pub parameters: &'a str,
    /// Seconds until the guest is ended; 0 for 120.
    pub timeout: u32,
}

impl Guest {
    /// The guest kernel, where it and qemu are present.
    pub fn find() -> Option<Guest> {
        let directory = PathBuf::from(std::env::var_os("XFSR_TEST_KERNEL")?);
        let tools = ["qemu-system-x86_64", "busybox", "cpio"];
        (directory.join("run.sh").is_file() && tools.iter().all(|t| in_path(t))).then_some(Guest { directory })
    }

    /// Runs a shell command in the guest; the output is that of the command, the code 124 a time-out, 125 a guest that died.
    ///
    /// A guest that ends before the command begins has said nothing about the images: it is started again, twice at most.
    pub fn run(&self, job: &GuestJob<'_>, command: &str) -> Result<Verdict> {
        let base = self.base()?;
        let begun = format!("echo {BEGUN}; {command}");
        let mut verdict = self.boot(&base, job, &begun)?;
        for _ in 0..2 {
            if verdict.output.contains(BEGUN) {
                break;
            }
            eprintln!("the guest did not come up (code {}), it is started again", verdict.code);
            verdict = self.boot(&base, job, &begun)?;
        }
        verdict.output = verdict.output.replacen(&format!("{BEGUN}\n"), "", 1);
        Ok(verdict)
    }

    /// The directory with the initial RAM disk that all guests share; made at first use.
    fn base(&self) -> Result<PathBuf> {
        let base = target_dir().join("xfsr-guest");
        std::fs::create_dir_all(&base)?;
        let _lock = FileLock::take(&base.join("lock"))?;
        if !base.join("base.cpio").exists() {
            // Built aside, so that an interrupted build leaves nothing that looks whole.
            let aside = tempfile::tempdir_in(&base)?;
            let out = Command::new(self.directory.join("mkinitrd.sh")).arg(aside.path()).output()?;
            if !out.status.success() {
                bail!("mkinitrd.sh: {}", String::from_utf8_lossy(&out.stderr));
            }
            std::fs::rename(aside.path().join("base.cpio"), base.join("base.cpio"))?;
        }
        Ok(base)
    }

    fn boot(&self, base: &Path, job: &GuestJob<'_>, command: &str) -> Result<Verdict> {
        let mut c = Command::new(self.directory.join("run.sh"));
        c.env("GUEST_BASE", base);
        // One processor: the kernel patches its own code while it boots, and emulated processors that run it meanwhile can trap on the
        // half-made change.
        c.args(["-c", "1"]);
        c.arg("-t").arg(if job.timeout == 0 { 120 } else { job.timeout }.to_string());
        if job.debug {
            c.arg("-k").arg(self.directory.join("bzImage-debug"));
        }
        if !job.parameters.is_empty() {
            c.args(["-A", job.parameters]);
        }
        for program in &job.programs {
            c.arg("-b").arg(program);
        }
        if let Some(share) = job.share {
            c.arg("-s").arg(share);
        }
        for disk in job.disks.iter().skip(1) {
            c.arg("-d").arg(disk);
        }
        match job.disks.first() {
            Some(disk) => c.arg(disk),
            None => c.arg("none"),
        };
        let out = c.arg(command).output().context("run.sh")?;
        let mut text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&out.stderr));
        Ok(Verdict { code: out.status.code().unwrap_or(-1), output: text })
    }
}
