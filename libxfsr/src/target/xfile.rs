//! Memory behind a file descriptor, which grows and is not bound to one address.

use super::{Io, Target, io_error};
use crate::error::{Error, Result};
use rustix::fs::{FallocateFlags, MemfdFlags};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A memfd, or an unnamed temporary file where memory is short. Reads beyond the end give zeroes; writes extend it.
#[derive(Debug)]
pub struct Xfile {
    name: String,
    file: File,
}

impl Xfile {
    /// In memory.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn new(name: &str) -> Result<Self> {
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map_err(|e| Error::open(name, e))?;
        Ok(Self { name: name.to_owned(), file: File::from(fd) })
    }

    /// As an unnamed file in `directory`, which must be on another disk than the one that is being repaired.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn on_disk(name: &str, directory: &Path) -> Result<Self> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(directory, flags, Mode::from_raw_mode(0o600)).map_err(|e| Error::open(directory, e))?;
        Ok(Self { name: name.to_owned(), file: File::from(fd) })
    }

    /// Bytes that really take memory.
    pub fn used(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        self.file.metadata().map_or(0, |m| m.blocks() * 512)
    }
}

impl Target for Xfile {
    fn name(&self) -> &str {
        &self.name
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (mut done, len) = (0, buf.len() as u64);
        while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
            match self.file.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => {
                    rest.fill(0);
                    break;
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(io_error("read", &self.name, offset, len, e)),
            }
        }
        Ok(())
    }
    fn next_data(&self, offset: u64) -> u64 {
        super::next_data(&self.file, offset, self.len())
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(buf, offset).map_err(|e| io_error("write", &self.name, offset, buf.len() as u64, e))
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        rustix::fs::fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)
            .map_err(|e| io_error("punch", &self.name, offset, len, e))
    }
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.punch(offset, len)
    }
    fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |m| m.len())
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|e| io_error("set length", &self.name, 0, len, e))
    }
    fn io(&self) -> Io {
        Io { logical: 1, physical: 4096, read_only: false, direct_align: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::{Target, Xfile};

    #[test]
    fn reads_beyond_the_end_are_zero_and_punches_forget() {
        let directory = tempfile::tempdir().unwrap();
        for x in [Xfile::new("test").unwrap(), Xfile::on_disk("test", directory.path()).unwrap()] {
            x.write_at(b"hello", 10_000).unwrap();
            let mut b = [1; 8];
            x.read_at(&mut b, 9_998).unwrap();
            assert_eq!(&b, b"\0\0hello\0");
            x.punch(8192, 4096).unwrap();
            x.read_at(&mut b, 10_000).unwrap();
            assert_eq!(b, [0; 8]);
        }
        assert_eq!(directory.path().read_dir().unwrap().count(), 0, "the file has a name");
    }
}
