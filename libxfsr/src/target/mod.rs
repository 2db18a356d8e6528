//! Where bytes live: files and devices, and what wraps them.
//!
//! A [`Target`] is positional and shared: every method takes `&self` and may be called from many threads.
//!
//! [`FileTarget`] and [`Xfile`] hold bytes. The others wrap a target: [`Overlay`] keeps writes in memory, [`Undo`] saves what is
//! overwritten, and for tests [`Recorder`] makes the images that a crash would leave, [`Faulty`] fails as devices do.

mod blkdev;
mod faulty;
mod file;
mod loopdev;
mod overlay;
mod recorder;
mod runs;
mod undo;
mod usage;
mod xfile;

pub use faulty::{Fault, Faulty, On};
pub use file::{Access, FileTarget, queue_attribute};
pub use overlay::Overlay;
pub use recorder::{Change, Event, Recorder};
pub use undo::{Restored, Undo, restore};
pub use usage::InUse;
pub use xfile::Xfile;

use crate::error::{Error, Result};

/// What a target can do and wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Io {
    /// Smallest unit of I/O in bytes.
    pub logical: u32,
    /// Unit that is written without reading first, in bytes.
    pub physical: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// Alignment of offsets, lengths and memory in bytes for I/O past the page cache; 0 where that is not possible.
    pub direct_align: u32,
}

/// Bytes at positions.
pub trait Target: Send + Sync + std::fmt::Debug {
    /// Name for errors.
    fn name(&self) -> &str;
    /// Fills `buf` from `offset`, wholly or not at all.
    ///
    /// # Errors
    /// [`Error::Io`], also beyond the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;
    /// Tells that these ranges (offset and length, in address order) will be read soon. A hint that waits for nothing and may
    /// do nothing.
    fn readahead(&self, _ranges: &[(u64, u64)]) {}
    /// The first byte at or behind `offset` that may be other than zero; the length where there is none. A target that cannot tell
    /// says `offset`.
    fn next_data(&self, offset: u64) -> u64 {
        offset
    }
    /// Writes all of `buf` at `offset`.
    ///
    /// # Errors
    /// [`Error::Io`]; then any part may have been written.
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()>;
    /// Writes pieces one after the other from `offset` on.
    ///
    /// # Errors
    /// As [`Target::write_at`].
    fn write_vectored_at(&self, pieces: &[&[u8]], offset: u64) -> Result<()> {
        let mut at = offset;
        for piece in pieces {
            self.write_at(piece, at)?;
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(())
    }
    /// Returns when everything written before is durable, through the device's own cache too.
    ///
    /// # Errors
    /// [`Error::Io`]; then nothing is known of what was written since the last flush.
    fn flush(&self) -> Result<()>;
    /// Makes a range read as zeroes, giving back its space where the target can.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn punch(&self, offset: u64, len: u64) -> Result<()>;
    /// Tells that a range's contents are not needed. They are undefined afterwards; may do nothing.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn discard(&self, offset: u64, len: u64) -> Result<()>;
    /// Bytes in the target.
    fn len(&self) -> u64;
    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Changes the length of a target that is a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Unsupported`] for a device.
    fn set_len(&self, len: u64) -> Result<()>;
    /// What it can do.
    fn io(&self) -> Io;
}

/// An [`Error::Io`].
pub(crate) fn io_error(
    op: &'static str,
    target: &str,
    offset: u64,
    len: u64,
    source: impl Into<std::io::Error>,
) -> Error {
    Error::Io { op, target: target.to_owned(), offset, len, cause: source.into() }
}

/// [`Target::next_data`] of a file.
fn next_data(file: &std::fs::File, offset: u64, len: u64) -> u64 {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => data,
        Err(rustix::io::Errno::NXIO) => len.max(offset),
        Err(_) => offset,
    }
}

/// Refuses a range that does not lie inside a target of `size` bytes.
pub(crate) fn check_range(op: &'static str, target: &str, offset: u64, len: u64, size: u64) -> Result<()> {
    if offset.checked_add(len).is_some_and(|end| end <= size) {
        return Ok(());
    }
    let why = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, format!("the target ends at byte {size}"));
    Err(io_error(op, target, offset, len, why))
}
