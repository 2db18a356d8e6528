//! Calls on a filesystem that Linux has mounted. Every error says which feature of the kernel is missing.

pub mod abi;
mod sys;

use crate::control::Control;
use crate::error::{Error, ForkKind, Result};
use crate::format::btree::Extent;
use crate::units::Ino;
use abi::{BmapBuffer, Bulkstat, BulkstatBuffer, FsGeometry, Fsmap, FsmapBuffer, Handle};
use rustix::io::Errno;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use zerocopy::FromZeros;

/// `f_type` of XFS in statfs.
pub const XFS_SUPER_MAGIC: u64 = 0x5846_5342;

/// A mounted filesystem, by an open file on it.
#[derive(Debug)]
pub struct Mounted {
    file: File,
    path: PathBuf,
    geometry: FsGeometry,
}

/// Range of a [`Mounted::fsmap`] query: a device and bytes on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FsmapRange {
    /// The kernel's number of the device; none for all devices.
    pub device: Option<u32>,
    /// First byte.
    pub first: u64,
    /// Last byte.
    pub last: u64,
}

impl FsmapRange {
    /// Everything.
    pub const ALL: Self = Self { device: None, first: 0, last: u64::MAX };
}

/// What an errno of one of these calls means. Only a call that is not there is [`Error::Unsupported`]: who then does without it must not do so
/// because of a missing right or a damaged filesystem.
fn refused(call: &'static str, since: &'static str, path: &Path, e: Errno) -> Error {
    use std::io::{Error as Cause, ErrorKind};
    let path = crate::text::escape(path.as_os_str().as_encoded_bytes());
    let cause = match e {
        Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS => {
            return Error::unsupported(format!("{path}: this kernel has no {call} on XFS (there {since})"));
        }
        Errno::PERM | Errno::ACCESS => Cause::new(
            ErrorKind::PermissionDenied,
            format!("{call} needs the capability CAP_SYS_ADMIN; run it as root"),
        ),
        Errno::IO => Cause::other(format!(
            "{call} failed with an I/O error: the filesystem is shut down or its metadata damaged; unmount it and run \
             xfsr-repair -n"
        )),
        _ => return Error::Open { path: format!("{path}: {call}"), cause: e.into() },
    };
    Error::Open { path, cause }
}

/// Opens what may turn out to be a pipe or a terminal, without waiting for its other end.
pub(crate) fn open(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    File::options().read(true).custom_flags(flags).open(path)
}

/// The directory that a file lies in, where that is on the same filesystem: some calls take no other file.
fn directory_of(path: &Path, file: &File) -> Option<File> {
    let of = file.metadata().ok().filter(|m| !m.is_dir())?;
    let directory = open(path.canonicalize().ok()?.parent()?).ok()?;
    (directory.metadata().ok()?.dev() == of.dev()).then_some(directory)
}

impl Mounted {
    /// Opens the filesystem that `path` is on.
    ///
    /// # Errors
    /// [`Error::Open`]; [`Error::Unsupported`] where it is not XFS or the kernel is older than 5.2.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = open(path).map_err(|e| Error::open(path, e))?;
        let fs = rustix::fs::fstatfs(&file).map_err(|e| Error::open(path, e))?;
        if fs.f_type as u64 & 0xffff_ffff != XFS_SUPER_MAGIC {
            let name = crate::text::escape(path.as_os_str().as_encoded_bytes());
            return Err(Error::unsupported(format!("{name}: neither an XFS image nor on a mounted XFS")));
        }
        let mut geometry = FsGeometry::new_zeroed();
        sys::geometry(file.as_fd(), &mut geometry)
            .map_err(|e| refused("XFS_IOC_FSGEOMETRY version 5", "since Linux 5.2", path, e))?;
        if geometry.version != abi::GEOMETRY_VERSION {
            let what = format!("XFS_IOC_FSGEOMETRY answers version {}, expected 5", geometry.version);
            return Err(Error::unsupported(what));
        }
        // What later code divides and shifts by.
        let sane = geometry.blocksize.is_power_of_two()
            && (512..=65_536).contains(&geometry.blocksize)
            && geometry.agblocks > 0
            && geometry.datablocks <= u64::MAX / u64::from(geometry.blocksize);
        if !sane {
            return Err(Error::unsupported("XFS_IOC_FSGEOMETRY answers an impossible geometry"));
        }
        Ok(Self { file: directory_of(path, &file).unwrap_or(file), path: path.to_owned(), geometry })
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// The filesystem's numbers when it was opened.
    pub fn geometry(&self) -> &FsGeometry {
        &self.geometry
    }
    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
    /// Whether a bit of [`abi::geometry_flag`] is set.
    pub fn has(&self, flag: u32) -> bool {
        self.geometry.flags & flag != 0
    }

    /// The kernel's number of the data device, as GETFSMAP tells it.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn device(&self) -> Result<u32> {
        let dev = rustix::fs::fstat(&self.file).map_err(|e| Error::open(&self.path, e))?.st_dev;
        let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
        Ok(minor & 0xff | major << 8 | (minor & !0xff) << 12)
    }

    /// Name of the data device, or the path where the system does not tell.
    pub fn device_name(&self) -> String {
        let name = rustix::fs::fstat(&self.file).ok().and_then(|s| {
            let (major, minor) = (rustix::fs::major(s.st_dev), rustix::fs::minor(s.st_dev));
            let link = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
            Some(format!("/dev/{}", link.file_name()?.to_str()?))
        });
        name.unwrap_or_else(|| self.path.display().to_string())
    }

    /// The label.
    ///
    /// # Errors
    /// [`Error::Unsupported`] before Linux 4.18; [`Error::Open`].
    pub fn label(&self) -> Result<Vec<u8>> {
        let mut label = [0; abi::LABEL_MAX];
        sys::label(self.fd(), &mut label)
            .map_err(|e| refused("FS_IOC_GETFSLABEL", "since Linux 4.18", &self.path, e))?;
        Ok(label.split(|b| *b == 0).next().unwrap_or(&[]).to_vec())
    }

    /// Calls `each` with the mappings of a range, in order of devices and addresses, until it breaks.
    ///
    /// # Errors
    /// [`Error::Unsupported`] before Linux 4.12; [`Error::Open`] without the right to, or where the filesystem is shut down;
    /// [`Error::Stopped`].
    pub fn fsmap(
        &self,
        range: FsmapRange,
        control: &Control<'_>,
        each: &mut dyn FnMut(&Fsmap) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut buffer = Box::new(FsmapBuffer::new_zeroed());
        let [low, high] = &mut buffer.head.keys;
        low.physical = range.first;
        low.device = range.device.unwrap_or(0);
        high.device = range.device.unwrap_or(u32::MAX);
        (high.flags, high.physical, high.owner, high.offset) = (u32::MAX, range.last, u64::MAX, u64::MAX);
        loop {
            control.check()?;
            sys::fsmap(self.fd(), &mut buffer)
                .map_err(|e| refused("FS_IOC_GETFSMAP", "since Linux 4.12", &self.path, e))?;
            let filled = buffer.records.get(..buffer.head.entries as usize).unwrap_or(&buffer.records);
            let Some(last) = filled.last().copied() else { return Ok(()) };
            for r in filled {
                if each(r).is_break() {
                    return Ok(());
                }
            }
            let before = buffer.head.keys[0];
            let stuck = (before.device, before.physical, before.owner, before.offset, before.length)
                == (last.device, last.physical, last.owner, last.offset, last.length);
            if last.flags & abi::fsmap_flag::LAST != 0 || stuck {
                return Ok(());
            }
            buffer.head.keys[0] = last;
        }
    }

    /// Calls `each` with every inode in use, ascending, until it breaks. Inodes of the filesystem's own metadata are left out.
    ///
    /// # Errors
    /// [`Error::Unsupported`] before Linux 5.3; [`Error::Open`] without the right to, or where the filesystem is shut down;
    /// [`Error::Stopped`].
    pub fn bulkstat(
        &self,
        first: Ino,
        control: &Control<'_>,
        each: &mut dyn FnMut(&Bulkstat) -> ControlFlow<()>,
    ) -> Result<()> {
        let flags = if self.has(abi::geometry_flag::NREXT64) { abi::BULK_NREXT64 } else { 0 };
        let mut buffer = Box::new(BulkstatBuffer::new_zeroed());
        (buffer.head.ino, buffer.head.flags) = (first.0, flags);
        let mut next = first.0;
        loop {
            control.check()?;
            sys::bulkstat(self.fd(), &mut buffer)
                .map_err(|e| refused("XFS_IOC_BULKSTAT version 5", "since Linux 5.3", &self.path, e))?;
            let filled = buffer.records.get(..buffer.head.ocount as usize).unwrap_or(&buffer.records);
            for r in filled {
                if each(r).is_break() {
                    return Ok(());
                }
            }
            // The kernel leaves the inode to go on from in the header; it must move.
            if filled.is_empty() || buffer.head.ino <= next {
                return Ok(());
            }
            next = buffer.head.ino;
        }
    }

    /// Opens regular files and directories by their numbers.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the kernel gives no handles.
    pub fn opener(&self) -> Result<Opener<'_>> {
        let refusal = |e| refused("XFS_IOC_FD_TO_HANDLE", "since Linux 2.6", &self.path, e);
        Ok(Opener { mounted: self, handle: sys::handle(self.fd()).map_err(refusal)? })
    }

    /// Calls `each` with the extents of an open file's fork, in order, until it breaks; in units of 512 bytes, holes and what is not
    /// allocated yet left out.
    ///
    /// # Errors
    /// [`Error::Unsupported`]; [`Error::Open`]; [`Error::Stopped`].
    pub fn extents(
        &self,
        file: &OwnedFd,
        kind: ForkKind,
        control: &Control<'_>,
        each: &mut dyn FnMut(&Extent) -> ControlFlow<()>,
    ) -> Result<()> {
        // What lies behind the end of the file is asked for too: its end must be named, or it would be the file's size.
        const END: i64 = 1 << 54;
        use abi::bmap_flag as flag;
        let mut buffer = Box::new(BmapBuffer::new_zeroed());
        let fork = if kind == ForkKind::Attr { flag::IF_ATTRFORK } else { 0 };
        buffer.head.iflags = flag::IF_PREALLOC | flag::IF_DELALLOC | flag::IF_NO_HOLES | fork;
        let mut next = 0i64;
        while next < END {
            control.check()?;
            (buffer.head.offset, buffer.head.length) = (next, END - next);
            sys::bmap(file.as_fd(), &mut buffer)
                .map_err(|e| refused("XFS_IOC_GETBMAPX", "since Linux 2.6", &self.path, e))?;
            let entries = usize::try_from(buffer.head.entries).unwrap_or(0);
            let filled = buffer.records.get(..entries).unwrap_or(&buffer.records);
            let Some(last) = filled.last().copied() else { return Ok(()) };
            for r in filled.iter().filter(|r| r.oflags & flag::OF_DELALLOC == 0) {
                let [offset, start, count] = [r.offset, r.block, r.length].map(|n| u64::try_from(n).unwrap_or(0));
                if each(&Extent { offset, start, count, unwritten: r.oflags & flag::OF_PREALLOC != 0 }).is_break() {
                    return Ok(());
                }
            }
            let after = last.offset.saturating_add(last.length);
            if last.oflags & flag::OF_LAST != 0 || after <= next {
                return Ok(());
            }
            next = after;
        }
        Ok(())
    }
}

/// Opens files of a mounted filesystem by their numbers.
#[derive(Debug)]
pub struct Opener<'m> {
    mounted: &'m Mounted,
    handle: Handle,
}

impl Opener<'_> {
    /// Opens a regular file or directory for reading; none where it is gone meanwhile. Other kinds of file cannot be opened so.
    ///
    /// # Errors
    /// [`Error::Open`], also without the right to.
    pub fn open(&self, ino: Ino, generation: u32) -> Result<Option<OwnedFd>> {
        let handle = Handle { fid_ino: ino.0, fid_gen: generation, ..self.handle };
        match sys::open_by_handle(self.mounted.fd(), &handle) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT | Errno::STALE | Errno::INVAL) => Ok(None),
            Err(e) => Err(refused("XFS_IOC_OPEN_BY_HANDLE", "since Linux 2.6", &self.mounted.path, e)),
        }
    }
}

/// Exchanges the contents of `length` bytes of two files of one filesystem, in one step that a crash does not cut.
///
/// # Errors
/// [`Error::Unsupported`] before Linux 6.10 and on a filesystem without the exchange-range feature.
pub fn exchange_range(first: (&File, u64), second: (&File, u64), length: u64) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    let value = abi::ExchangeRange {
        file1_fd: first.0.as_raw_fd(),
        pad: 0,
        file1_offset: first.1,
        file2_offset: second.1,
        length,
        flags: 0,
    };
    let since = "since Linux 6.10, with the exchange-range feature";
    sys::exchange_range(second.0.as_fd(), value)
        .map_err(|e| refused("XFS_IOC_EXCHANGE_RANGE", since, Path::new("exchange of two files"), e))
}

/// Extents of an inode's data fork, whichever counter carries them.
pub fn data_extents(stat: &Bulkstat) -> u64 {
    u64::from(stat.extents).max(stat.extents64)
}

#[cfg(test)]
mod tests {
    use super::{Errno, Error, Path, refused};

    #[test]
    fn only_a_missing_call_is_unsupported() {
        let told = |e| refused("XFS_IOC_TEST", "since Linux 9", Path::new("/a\tb"), e);
        for (errno, unsupported, part) in [
            (Errno::NOTTY, true, "(there since Linux 9)"),
            (Errno::OPNOTSUPP, true, "no XFS_IOC_TEST"),
            (Errno::PERM, false, "run it as root"),
            (Errno::ACCESS, false, "CAP_SYS_ADMIN"),
            (Errno::IO, false, "shut down"),
            (Errno::NOMEM, false, "XFS_IOC_TEST"),
        ] {
            let e = told(errno);
            assert_eq!(matches!(e, Error::Unsupported(_)), unsupported, "{e}");
            assert!(e.to_string().contains(part) && e.to_string().starts_with("/a\\"), "{e}");
        }
    }
}
