//! Who else uses a device or an image file: mounts here and in other namespaces, through partitions and stacked loop devices.

use super::loopdev::{self, Backing};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fmt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Somebody else's use of a target: what is read may be inconsistent, and writing would destroy it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InUse {
    /// The device that is in use: the target itself, a partition of it, or what lies above it.
    pub device: PathBuf,
    /// Where it is mounted, if that can be seen from here.
    pub mount: Option<PathBuf>,
    /// Whether it may be written meanwhile: not under a mount that is read-only.
    pub writable: bool,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = |p: &Path| crate::text::escape(p.as_os_str().as_encoded_bytes());
        match &self.mount {
            Some(m) => write!(f, "mounted on {}{}", escape(m), if self.writable { "" } else { ", read-only" }),
            None => write!(
                f,
                "in use: {} is held by a mount that cannot be seen from here, by another device or by a program",
                escape(&self.device)
            ),
        }
    }
}

impl InUse {
    /// Why nobody else may write, and what to do.
    pub(super) fn refusal(&self) -> String {
        if self.mount.is_some() {
            return format!("{self}; unmount it first");
        }
        let device = crate::text::escape(self.device.as_os_str().as_encoded_bytes());
        format!(
            "{device} is held by a mount that cannot be seen from here, as swap space, by another device or by a program; end that first"
        )
    }
}

/// Loop devices that are stacked deeper than this are not followed.
const MOST_LOOPS: u32 = 8;

/// Who uses this file or device.
pub(super) fn in_use(path: &Path) -> Option<InUse> {
    let meta = std::fs::metadata(path).ok()?;
    if meta.file_type().is_block_device() {
        return above_device(meta.rdev(), path, MOST_LOOPS);
    }
    above_loops(|b| b.is_file(meta.dev(), meta.ino()), MOST_LOOPS)
}

/// What lies on the loop devices whose backing is the one that `wanted` knows.
fn above_loops(wanted: impl Fn(&Backing) -> bool, depth: u32) -> Option<InUse> {
    let depth = depth.checked_sub(1)?;
    let loops = loopdev::attached().into_iter().filter(|l| wanted(&l.backing));
    loops.into_iter().find_map(|l| above_device(l.number, &l.path, depth))
}

fn above_device(number: u64, path: &Path, depth: u32) -> Option<InUse> {
    let mut all = vec![(number, path.to_owned())];
    all.extend(partitions(number));
    let mounts = all.iter().filter_map(|(n, device)| {
        let (mount, writable) = mount_of_device(*n)?;
        Some(InUse { device: device.clone(), mount: Some(mount), writable })
    });
    // Of several partitions one that is written matters more.
    if let Some(by) = mounts.max_by_key(|by| by.writable) {
        return Some(by);
    }
    above_loops(|b| all.iter().any(|(n, _)| b.is_device(*n)), depth)
        .or_else(|| is_claimed(path).then(|| InUse { device: path.to_owned(), mount: None, writable: true }))
}

/// The directory of a device in sysfs.
pub(super) fn sysfs(number: u64) -> PathBuf {
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
}

/// Number of the device whose directory in sysfs that is.
pub(super) fn number_of(directory: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(directory.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// A device's path, from its name in sysfs, where a slash stands as an exclamation mark.
pub(super) fn device_path(directory: &Path) -> PathBuf {
    let name = directory.file_name().map(|n| n.to_string_lossy().replace('!', "/")).unwrap_or_default();
    Path::new("/dev").join(name)
}

fn partitions(number: u64) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(sysfs(number)) else { return Vec::new() };
    let inside = entries.flatten().map(|e| e.path()).filter(|p| p.join("partition").exists());
    inside.filter_map(|p| Some((number_of(&p)?, device_path(&p)))).collect()
}

/// Whether the kernel or a program holds the device, or a partition of it, exclusively: a mount anywhere, device mapper, swap.
fn is_claimed(path: &Path) -> bool {
    for attempt in 0..3 {
        if attempt > 0 {
            // Another program may have been asking the same.
            std::thread::sleep(Duration::from_millis(20));
        }
        let flags = (OFlags::EXCL | OFlags::NONBLOCK).bits().cast_signed();
        match std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Err(e) if Errno::from_io_error(&e) == Some(Errno::BUSY) => {}
            _ => return false,
        }
    }
    true
}

fn device_number(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().filter(|m| m.file_type().is_block_device()).map(|m| m.rdev())
}

/// Undoes the octal escapes of a line of mountinfo.
fn unescape_mountinfo(s: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let (bytes, mut out, mut i) = (s.as_bytes(), Vec::new(), 0);
    while let Some(&b) = bytes.get(i) {
        let digits = bytes.get(i + 1..i + 4).and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(v) if b == b'\\' => {
                out.push(v);
                i += 4;
            }
            _ => {
                out.push(b);
                i += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

/// Where the device with this number is mounted, in this mount namespace, and whether the filesystem is writable: a mount point may be
/// read-only where the filesystem is not.
fn mount_of_device(rdev: u64) -> Option<(PathBuf, bool)> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let separator = fields.iter().position(|f| *f == "-")?;
        let source = unescape_mountinfo(fields.get(separator + 2)?);
        let same = device_number(&source) == Some(rdev)
            || *fields.get(2)? == format!("{}:{}", rustix::fs::major(rdev), rustix::fs::minor(rdev))
            || other_devices(fields.get(separator + 3)?).any(|path| device_number(&path) == Some(rdev));
        let read_only = fields.get(separator + 3).is_some_and(|o| o.split(',').any(|o| o == "ro"));
        same.then(|| fields.get(4).map(|m| (unescape_mountinfo(m), !read_only))).flatten()
    })
}

/// Log and realtime devices that a mount's options name.
fn other_devices(options: &str) -> impl Iterator<Item = PathBuf> + '_ {
    let value = |o: &str| o.strip_prefix("logdev=").or_else(|| o.strip_prefix("rtdev=")).map(unescape_mountinfo);
    options.split(',').filter_map(value)
}
