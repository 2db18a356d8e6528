//! What only block devices are asked.

#![expect(unsafe_code, reason = "ioctls that no crate wraps")]

use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};
use std::fs::File;
use std::os::fd::AsFd;

const DISCARD: Opcode = opcode::none(0x12, 119);
const ALIGNMENT: Opcode = opcode::none(0x12, 122);

/// Tells a block device that a range's contents are not needed; offset and length in bytes, multiples of the sector size.
///
/// Unlike punching, this never writes zeroes: a device that cannot discard says so.
pub(super) fn discard(device: &File, offset: u64, len: u64) -> Result<(), Errno> {
    // SAFETY: BLKDISCARD reads two u64, which is what it is given, and writes no memory. What is no block device refuses it.
    unsafe { ioctl(device.as_fd(), Setter::<DISCARD, [u64; 2]>::new([offset, len])) }
}

/// Bytes from the first byte of a block device to the next begin of a physical sector; negative where no single number tells.
pub(super) fn alignment_offset(device: &File) -> Result<i32, Errno> {
    // SAFETY: BLKALIGNOFF writes one int, for which there is room. What is no block device refuses it.
    unsafe { ioctl(device.as_fd(), Getter::<ALIGNMENT, i32>::new()) }
}
