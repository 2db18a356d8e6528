//! The calls themselves: the one place where the compiler cannot check what the kernel does with a pointer.
//!
//! Each function fixes the pair of number and structure. Counts that tell the kernel how many records fit are set here from
//! the buffer's own type, so that no caller can get them wrong.

#![expect(unsafe_code, reason = "ioctls with structures that no crate wraps")]

use super::abi::{
    AgGeometry, BULKSTAT_BATCH, BulkRequest, BulkstatBuffer, ExchangeRange, FSMAP_BATCH, FsGeometry, FsmapBuffer,
    FsmapHead, INUMBERS_BATCH, InumbersBuffer, LABEL_MAX,
};
use rustix::io::Result;
use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};
use std::os::fd::BorrowedFd;

const FSGEOMETRY: Opcode = opcode::read::<FsGeometry>(b'X', 126);
const AG_GEOMETRY: Opcode = opcode::read_write::<AgGeometry>(b'X', 61);
const GETFSMAP: Opcode = opcode::read_write::<FsmapHead>(b'X', 59);
const BULKSTAT: Opcode = opcode::read::<BulkRequest>(b'X', 127);
const INUMBERS: Opcode = opcode::read::<BulkRequest>(b'X', 128);
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

pub(super) fn ag_geometry(fd: BorrowedFd<'_>, value: &mut AgGeometry) -> Result<()> {
    // SAFETY: XFS_IOC_AG_GEOMETRY reads and writes one struct xfs_ag_geometry (128 bytes, asserted in abi), of which every bit
    // pattern is valid.
    unsafe { ioctl(fd, Updater::<AG_GEOMETRY, AgGeometry>::new(value)) }
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

pub(super) fn inumbers(fd: BorrowedFd<'_>, value: &mut InumbersBuffer) -> Result<()> {
    value.head.icount = INUMBERS_BATCH as u32;
    // SAFETY: as for bulkstat, with struct xfs_inumbers as the record.
    unsafe { ioctl(fd, Updater::<INUMBERS, InumbersBuffer>::new(value)) }
}

pub(super) fn label(fd: BorrowedFd<'_>, value: &mut [u8; LABEL_MAX]) -> Result<()> {
    // SAFETY: FS_IOC_GETFSLABEL writes FSLABEL_MAX (256) bytes at most.
    unsafe { ioctl(fd, Updater::<GETFSLABEL, [u8; LABEL_MAX]>::new(value)) }
}
