//! What loop devices lie on. The kernel is asked for the backing file's numbers: the name that sysfs keeps is that of the moment
//! when the device was attached, and the file may since have been renamed, or lie below another root.

#![expect(unsafe_code, reason = "an ioctl with a structure that no crate wraps")]

use super::usage;
use rustix::ioctl::{Opcode, Updater, ioctl};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

const GET_STATUS64: Opcode = 0x4c05;

/// `struct loop_info64` of linux/loop.h; of what stands behind the numbers nothing is needed.
#[repr(C)]
struct Status {
    device: u64,
    inode: u64,
    rdevice: u64,
    rest: [u64; 26],
}

const _: () = assert!(size_of::<Status>() == 232);

/// What a loop device lies on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Backing {
    /// As the kernel tells: the encoded numbers of the file's device, of the file, and of the device that the file is.
    Numbers { device: u64, inode: u64, rdevice: u64 },
    /// Where the kernel may not be asked: the name that sysfs has.
    Name(PathBuf),
}

/// As the kernel gives device numbers to programs.
fn encoded(number: u64) -> u64 {
    let (major, minor) = (u64::from(rustix::fs::major(number)), u64::from(rustix::fs::minor(number)));
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

impl Backing {
    pub(super) fn is_file(&self, dev: u64, ino: u64) -> bool {
        match self {
            Self::Numbers { device, inode, .. } => *device == encoded(dev) && *inode == ino,
            Self::Name(p) => std::fs::metadata(p).is_ok_and(|m| m.dev() == dev && m.ino() == ino),
        }
    }
    pub(super) fn is_device(&self, number: u64) -> bool {
        match self {
            Self::Numbers { rdevice, .. } => *rdevice == encoded(number),
            Self::Name(p) => std::fs::metadata(p).is_ok_and(|m| m.file_type().is_block_device() && m.rdev() == number),
        }
    }
}

/// A loop device that something is attached to.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) backing: Backing,
}

fn status(path: &Path) -> Option<Backing> {
    let file = File::open(path).ok()?;
    let mut s = Status { device: 0, inode: 0, rdevice: 0, rest: [0; 26] };
    // SAFETY: LOOP_GET_STATUS64 writes one struct loop_info64 (232 bytes, asserted above), of which every bit pattern is valid. The
    // caller has opened what sysfs calls a loop device.
    unsafe { ioctl(file.as_fd(), Updater::<GET_STATUS64, Status>::new(&mut s)) }.ok()?;
    let _ = s.rest;
    Some(Backing::Numbers { device: s.device, inode: s.inode, rdevice: s.rdevice })
}

/// All loop devices in use.
pub(super) fn attached() -> Vec<Attached> {
    let Ok(entries) = std::fs::read_dir("/sys/block") else { return Vec::new() };
    let one = |directory: PathBuf| {
        let name = std::fs::read_to_string(directory.join("loop/backing_file")).ok()?;
        let path = usage::device_path(&directory);
        let backing = status(&path).unwrap_or_else(|| Backing::Name(name.trim_end_matches('\n').into()));
        Some(Attached { number: usage::number_of(&directory)?, path, backing })
    };
    entries.flatten().filter_map(|e| one(e.path())).collect()
}
