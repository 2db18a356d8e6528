//! Image files and block devices.

use super::usage::{InUse, in_use};
use super::{Io, Target, blkdev, check_range, io_error};
use crate::error::{Error, Result};
use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// How to open a [`FileTarget`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading. A mounted device is allowed; [`FileTarget::in_use`] tells.
    Read,
    /// Reading and writing, alone. A device in use is refused, and a file that backs a loop device in use: mounted, here or in
    /// another mount namespace, itself or by a partition, or held exclusively.
    Write,
}

/// An image file or a block device.
#[derive(Debug)]
pub struct FileTarget {
    name: String,
    file: File,
    len: u64,
    device: bool,
    access: Access,
    io: Io,
    in_use: Option<InUse>,
}

fn sys_number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A number from the device's queue directory in sysfs; a partition's is its disk's.
pub fn queue_attribute(rdev: u64, name: &str) -> Option<u64> {
    let dir = super::usage::sysfs(rdev);
    sys_number(&dir.join("queue").join(name)).or_else(|| sys_number(&dir.join("../queue").join(name)))
}

/// What the kernel demands for direct I/O on a file; 0 where it cannot, or (before Linux 6.1) does not say.
fn direct_align(file: &File) -> u32 {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    match statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
        Ok(s) if s.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => s.stx_dio_mem_align.max(s.stx_dio_offset_align),
        _ => 0,
    }
}

impl FileTarget {
    /// Opens an existing image file or block device.
    ///
    /// # Errors
    /// [`Error::Open`]; [`Error::Busy`] where a writer asks for something that is mounted or that another writer holds.
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        let path = path.as_ref();
        let meta = std::fs::metadata(path).map_err(|e| Error::open(path, e))?;
        let device = meta.file_type().is_block_device();
        if !device && !meta.is_file() {
            let why = std::io::Error::new(std::io::ErrorKind::InvalidInput, "neither a file nor a block device");
            return Err(Error::open(path, why));
        }
        let in_use = in_use(path);
        let name = path.display().to_string();
        let mut options = OpenOptions::new();
        options.read(true);
        if access == Access::Write {
            if let Some(by) = &in_use {
                return Err(Error::Busy { target: name, why: by.refusal() });
            }
            options.write(true);
            if device && sys_number(&super::usage::sysfs(meta.rdev()).join("ro")) == Some(1) {
                // The open would succeed, and the first write fail.
                return Err(Error::open(
                    path,
                    std::io::Error::new(std::io::ErrorKind::PermissionDenied, "it is read-only"),
                ));
            }
            if device {
                // On a block device O_EXCL without O_CREAT means: not while it is mounted or claimed.
                options.custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed());
            }
        }
        let file = options.open(path).map_err(|e| match Errno::from_io_error(&e) {
            Some(Errno::BUSY) => {
                Error::Busy { target: name.clone(), why: "another program or the kernel holds it".into() }
            }
            _ => Error::open(path, e),
        })?;
        Self::from_file(file, name, access, in_use)
    }

    /// Creates an image file of `len` bytes, or opens it if it exists and sets its length.
    ///
    /// # Errors
    /// As [`FileTarget::open`].
    pub fn create(path: impl AsRef<Path>, len: u64) -> Result<Self> {
        let path = path.as_ref();
        OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(|e| Error::open(path, e))?;
        let target = Self::open(path, Access::Write)?;
        target.file.set_len(len).map_err(|e| io_error("set length", &target.name, 0, len, e))?;
        Ok(target)
    }

    fn from_file(file: File, name: String, access: Access, in_use: Option<InUse>) -> Result<Self> {
        let meta = file.metadata().map_err(|e| Error::open(&name, e))?;
        let device = meta.file_type().is_block_device();
        if access == Access::Write && !device {
            // Files have no exclusive open; an advisory lock keeps two of our writers apart.
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| Error::Busy {
                target: name.clone(),
                why: "another program has locked it for writing".into(),
            })?;
        }
        let len = if device {
            use std::io::{Seek, SeekFrom};
            (&file).seek(SeekFrom::End(0)).map_err(|e| Error::open(&name, e))?
        } else {
            meta.len()
        };
        let sectors = |ask: fn(&File) -> rustix::io::Result<u32>| if device { ask(&file).ok() } else { None };
        let logical = sectors(|f| rustix::fs::ioctl_blksszget(f)).unwrap_or(512);
        let physical = sectors(|f| rustix::fs::ioctl_blkpbszget(f)).unwrap_or(logical);
        let io = Io { logical, physical, read_only: access == Access::Read, direct_align: direct_align(&file) };
        if device && in_use.is_some() {
            // A mounted filesystem writes past the device's page cache, which so may hold what stood there long ago.
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
        Ok(Self { name, file, len, device, access, io, in_use })
    }

    /// Whether this is a block device.
    pub fn is_device(&self) -> bool {
        self.device
    }
    /// Who used it when it was opened: what is read may then be inconsistent.
    pub fn in_use(&self) -> Option<&InUse> {
        self.in_use.as_ref()
    }
    /// Device number of a block device.
    pub fn device_number(&self) -> Option<u64> {
        self.device.then(|| self.file.metadata().map(|m| m.rdev()).ok()).flatten()
    }
    /// Bytes from the first byte of a block device to the next begin of a physical sector: 0 where it is aligned, negative where it consists
    /// of parts that are aligned differently.
    pub fn alignment_offset(&self) -> i32 {
        if self.device { blkdev::alignment_offset(&self.file).unwrap_or(0) } else { 0 }
    }
    /// Whether the first byte of a range can be had without waiting for the device.
    fn is_in_memory(&self, offset: u64) -> bool {
        let mut byte = [0];
        let mut bufs = [std::io::IoSliceMut::new(&mut byte)];
        rustix::io::preadv2(&self.file, &mut bufs, offset, rustix::io::ReadWriteFlags::NOWAIT).is_ok_and(|n| n == 1)
    }
    fn writable(&self, op: &'static str, offset: u64, len: u64) -> Result<()> {
        if self.access == Access::Read {
            return Err(io_error(op, &self.name, offset, len, Errno::ROFS));
        }
        check_range(op, &self.name, offset, len, self.len())
    }
    fn zero(&self, mut offset: u64, mut len: u64) -> Result<()> {
        let zeroes = vec![0; 1 << 20];
        while len > 0 {
            let n = len.min(zeroes.len() as u64);
            self.write_at(zeroes.get(..n as usize).unwrap_or(&zeroes), offset)?;
            offset += n;
            len -= n;
        }
        Ok(())
    }
}

impl Target for FileTarget {
    fn name(&self) -> &str {
        &self.name
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buf, offset).map_err(|e| {
            let e = match e.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    std::io::Error::new(e.kind(), format!("it ends at byte {}", self.len))
                }
                _ => e,
            };
            io_error("read", &self.name, offset, buf.len() as u64, e)
        })
    }
    fn readahead(&self, ranges: &[(u64, u64)]) {
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return };
        // Where both ends are in the page cache, so is, most likely, what lies between: two quick probes instead of many hints.
        if self.is_in_memory(first.0) && self.is_in_memory(last.0 + last.1.saturating_sub(1)) {
            return;
        }
        for (offset, len) in ranges {
            // A hint: without it the reads only take longer.
            let len = std::num::NonZeroU64::new(*len);
            let _ = rustix::fs::fadvise(&self.file, *offset, len, rustix::fs::Advice::WillNeed);
        }
    }
    fn next_data(&self, offset: u64) -> u64 {
        if self.device { offset } else { super::next_data(&self.file, offset, self.len()) }
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.writable("write", offset, buf.len() as u64)?;
        self.file.write_all_at(buf, offset).map_err(|e| io_error("write", &self.name, offset, buf.len() as u64, e))
    }
    fn flush(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| io_error("flush", &self.name, 0, self.len, e))
    }
    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.writable("punch", offset, len)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if !self.device && rustix::fs::fallocate(&self.file, flags, offset, len).is_ok() {
            return Ok(());
        }
        if rustix::fs::fallocate(&self.file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, offset, len)
            .is_ok()
        {
            return Ok(());
        }
        self.zero(offset, len)
    }
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.writable("discard", offset, len)?;
        if self.device {
            // A hint: a device that cannot discard is as good as before. Other errors are the device's.
            return match blkdev::discard(&self.file, offset, len) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOTTY) => Ok(()),
                Err(e) => Err(io_error("discard", &self.name, offset, len, e)),
            };
        }
        let _ = rustix::fs::fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len);
        Ok(())
    }
    fn len(&self) -> u64 {
        if self.device { self.len } else { self.file.metadata().map_or(self.len, |m| m.len()) }
    }
    fn set_len(&self, len: u64) -> Result<()> {
        if self.device {
            return Err(Error::unsupported("a block device's length cannot be changed"));
        }
        self.file.set_len(len).map_err(|e| io_error("set length", &self.name, 0, len, e))
    }
    fn io(&self) -> Io {
        self.io
    }
}
