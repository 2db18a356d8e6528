//! The calls themselves: the one place where the compiler cannot check what the kernel does with a pointer.
//!
//! Each function fixes the pair of number and structure. Counts that tell the kernel how many records fit are set here from
//! the buffer's own type, so that no caller can get them wrong.

#![expect(unsafe_code, reason = "ioctls with structures that no crate wraps")]

use super::abi::{
    BMAP_BATCH, BULKSTAT_BATCH, BmapBuffer, BulkRequest, BulkstatBuffer, ExchangeRange, FSMAP_BATCH, FsGeometry,
    FsmapBuffer, FsmapHead, Handle, LABEL_MAX,
};
use rustix::io::{Errno, Result};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Setter, Updater, ioctl, opcode};
use std::ffi::c_void;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;

const FSGEOMETRY: Opcode = opcode::read::<FsGeometry>(b'X', 126);
const GETFSMAP: Opcode = opcode::read_write::<FsmapHead>(b'X', 59);
const BULKSTAT: Opcode = opcode::read::<BulkRequest>(b'X', 127);
/// The number tells the size of struct getbmap, the older and shorter one.
const GETBMAPX: Opcode = opcode::read_write::<[u64; 4]>(b'X', 56);
const FD_TO_HANDLE: Opcode = opcode::read_write::<HandleRequest>(b'X', 106);
const OPEN_BY_HANDLE: Opcode = opcode::read_write::<HandleRequest>(b'X', 107);
const GETFSLABEL: Opcode = opcode::read::<[u8; LABEL_MAX]>(0x94, 49);
const EXCHANGE_RANGE: Opcode = opcode::write::<ExchangeRange>(b'X', 129);

pub(super) fn exchange_range(fd: BorrowedFd<'_>, value: ExchangeRange) -> Result<()> {
    // SAFETY: XFS_IOC_EXCHANGE_RANGE reads one struct xfs_exchange_range (40 bytes, asserted in abi) and writes nothing.
    unsafe { ioctl(fd, Setter::<EXCHANGE_RANGE, ExchangeRange>::new(value)) }
}

pub(super) fn geometry(fd: BorrowedFd<'_>, value: &mut FsGeometry) -> Result<()> {
    // SAFETY: XFS_IOC_FSGEOMETRY writes one struct xfs_fsop_geom (256 bytes, asserted in abi), of which every bit pattern is
    // valid. Another filesystem that used the number would find the same size encoded in it.
    unsafe { ioctl(fd, Updater::<FSGEOMETRY, FsGeometry>::new(value)) }
}

pub(super) fn fsmap(fd: BorrowedFd<'_>, value: &mut FsmapBuffer) -> Result<()> {
    value.head.count = FSMAP_BATCH as u32;
    // SAFETY: FS_IOC_GETFSMAP reads the head and writes it and at most `count` records behind it; `count` is the length of the
    // buffer's array, the array starts right behind the head (asserted in abi), every bit pattern is valid.
    unsafe { ioctl(fd, Updater::<GETFSMAP, FsmapBuffer>::new(value)) }
}

pub(super) fn bulkstat(fd: BorrowedFd<'_>, value: &mut BulkstatBuffer) -> Result<()> {
    value.head.icount = BULKSTAT_BATCH as u32;
    // SAFETY: XFS_IOC_BULKSTAT reads and writes the header and writes at most `icount` records behind it; `icount` is the length
    // of the buffer's array, which starts right behind the header (asserted in abi); every bit pattern is valid.
    unsafe { ioctl(fd, Updater::<BULKSTAT, BulkstatBuffer>::new(value)) }
}

pub(super) fn bmap(fd: BorrowedFd<'_>, value: &mut BmapBuffer) -> Result<()> {
    value.head.count = 1 + BMAP_BATCH as i32;
    // SAFETY: XFS_IOC_GETBMAPX reads and writes the request and writes at most `count - 1` records behind it; that is the length of
    // the buffer's array, which starts right behind the request (asserted in abi); every bit pattern is valid.
    unsafe { ioctl(fd, Updater::<GETBMAPX, BmapBuffer>::new(value)) }
}

/// `struct xfs_fsop_handlereq`.
#[repr(C)]
struct HandleRequest {
    fd: u32,
    path: *const c_void,
    oflags: u32,
    ihandle: *const Handle,
    ihandlen: u32,
    ohandle: *mut Handle,
    ohandlen: *mut u32,
}

/// The handle of an open file.
pub(super) fn handle(fd: BorrowedFd<'_>) -> Result<Handle> {
    let mut handle = Handle { fsid: 0, fid_len: 0, fid_pad: 0, fid_gen: 0, fid_ino: 0 };
    let mut length = size_of::<Handle>() as u32;
    let mut request = HandleRequest {
        fd: fd.as_raw_fd() as u32,
        path: ptr::null(),
        oflags: 0,
        ihandle: ptr::null(),
        ihandlen: 0,
        ohandle: &raw mut handle,
        ohandlen: &raw mut length,
    };
    // SAFETY: XFS_IOC_FD_TO_HANDLE reads one struct xfs_fsop_handlereq and writes one struct xfs_handle (24 bytes, asserted in abi) and
    // its length where the request points: both live until after the call, and every bit pattern of them is valid.
    unsafe { ioctl(fd, Updater::<FD_TO_HANDLE, HandleRequest>::new(&mut request)) }?;
    if length as usize == size_of::<Handle>() { Ok(handle) } else { Err(Errno::INVAL) }
}

/// The call that answers with a new file descriptor.
struct OpenByHandle(HandleRequest);

// SAFETY: the opcode carries the size of the request, which is what the pointer leads to; the kernel only reads it and the handle that
// it points to. What the call returns is a file descriptor that nobody else has.
unsafe impl Ioctl for OpenByHandle {
    type Output = OwnedFd;
    const IS_MUTATING: bool = true;
    fn opcode(&self) -> Opcode {
        OPEN_BY_HANDLE
    }
    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }
    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> Result<OwnedFd> {
        if out < 0 {
            return Err(Errno::BADF);
        }
        // SAFETY: the call succeeded, and then returns a descriptor that it opened for us.
        Ok(unsafe { OwnedFd::from_raw_fd(out) })
    }
}

/// Opens a regular file or directory for reading by its handle; `fd` is any file of the filesystem.
pub(super) fn open_by_handle(fd: BorrowedFd<'_>, handle: &Handle) -> Result<OwnedFd> {
    let request = HandleRequest {
        fd: 0,
        path: ptr::null(),
        oflags: 0,
        ihandle: handle,
        ihandlen: size_of::<Handle>() as u32,
        ohandle: ptr::null_mut(),
        ohandlen: ptr::null_mut(),
    };
    // SAFETY: see the implementation; the handle lives until after the call.
    unsafe { ioctl(fd, OpenByHandle(request)) }
}

pub(super) fn label(fd: BorrowedFd<'_>, value: &mut [u8; LABEL_MAX]) -> Result<()> {
    // SAFETY: FS_IOC_GETFSLABEL writes FSLABEL_MAX (256) bytes at most.
    unsafe { ioctl(fd, Updater::<GETFSLABEL, [u8; LABEL_MAX]>::new(value)) }
}
