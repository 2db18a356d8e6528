//! Reading: contents, names, targets of links, attributes. Many read one inode at once; who changes it waits for them, and they for it.

use super::Handle;
use crate::attr::{self, Attr};
use crate::cache::OnDamage;
use crate::dir::{self, DirEntry};
use crate::error::{Error, Result};
use crate::format::attr::AttrFlags;
use crate::format::dir::MAX_NAME;
use crate::format::inode::FileKind;
use crate::inode::{self, file};
use crate::text::escape;
use std::ops::ControlFlow;

/// Entries that [`ReadDir`] takes at once.
const BATCH: usize = 512;

/// A part of a directory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entries {
    /// Entries, `.` and `..` too.
    pub entries: Vec<DirEntry>,
    /// Where the next part begins; none at the end.
    pub next: Option<u64>,
}

/// The entries of a directory, one after the other. See [`Handle::read_dir`].
#[derive(Debug)]
pub struct ReadDir {
    directory: Handle,
    batch: std::vec::IntoIter<DirEntry>,
    next: Option<u64>,
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.batch.next() {
                return Some(Ok(entry));
            }
            let from = self.next.take()?;
            match self.directory.entries(from, BATCH) {
                Ok(part) => (self.batch, self.next) = (part.entries.into_iter(), part.next),
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

/// Flags and name on disk of an attribute that Linux calls so.
///
/// # Errors
/// [`Error::Invalid`] for a name without a namespace that XFS has; [`Error::NameTooLong`].
pub(super) fn attr_name(name: &[u8]) -> Result<(AttrFlags, &[u8])> {
    const PREFIXES: [(&[u8], AttrFlags); 3] =
        [(b"user.", AttrFlags::empty()), (b"trusted.", AttrFlags::ROOT), (b"security.", AttrFlags::SECURE)];
    const ACLS: [(&[u8], &[u8]); 2] =
        [(b"system.posix_acl_access", b"SGI_ACL_FILE"), (b"system.posix_acl_default", b"SGI_ACL_DEFAULT")];
    if let Some((_, disk)) = ACLS.iter().find(|(linux, _)| *linux == name) {
        return Ok((AttrFlags::ROOT, disk));
    }
    let found = PREFIXES.iter().find_map(|(prefix, flags)| Some((*flags, name.strip_prefix(*prefix)?)));
    match found {
        Some((_, rest)) if rest.len() > MAX_NAME => Err(Error::NameTooLong(escape(name))),
        Some((flags, rest)) if !rest.is_empty() => Ok((flags, rest)),
        _ => Err(Error::invalid(format!(
            "{} is no name of an attribute: it begins with user., trusted., security. or is that of an ACL",
            escape(name)
        ))),
    }
}

impl Handle {
    /// Reads contents from `offset` on and returns how many bytes of `buf` were filled: fewer only at the end of the file.
    ///
    /// # Errors
    /// [`Error::IsDirectory`]; [`Error::Invalid`] for what is no regular file; as [`inode::read_at`].
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let (_lock, inode) = self.read()?;
        match inode.core.kind() {
            Some(FileKind::Regular) => inode::read_at(&self.core.volume, &inode, offset, buf),
            Some(FileKind::Directory) => Err(Error::IsDirectory(format!("inode {}", self.ino))),
            _ => Err(Error::invalid(format!("inode {} is no regular file", self.ino))),
        }
    }

    /// The whole contents of a file that fits into memory.
    ///
    /// # Errors
    /// As [`Handle::read_at`]; [`Error::Invalid`] for a file of more than 2 GiB.
    pub fn read_all(&self) -> Result<Vec<u8>> {
        const MOST: u64 = 2 << 30;
        let size = self.stat()?.size;
        if size > MOST {
            return Err(Error::invalid(format!("a file of {size} bytes is not read at once")));
        }
        let mut all = vec![0; size as usize];
        let n = self.read_at(&mut all, 0)?;
        all.truncate(n);
        Ok(all)
    }

    /// What a name leads to. `.` and `..` are names, too.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::NotDirectory`]; what is damaged.
    pub fn lookup(&self, name: &[u8]) -> Result<Handle> {
        let (_lock, inode) = self.read_directory()?;
        let found = dir::lookup(&self.core.volume, &inode, name)?;
        // Under the directory's lock the name cannot go, and what it leads to is not freed.
        found
            .map(|ino| self.core.handle(ino))
            .ok_or_else(|| Error::NotFound(format!("{} in directory {}", escape(name), self.ino)))
    }

    /// Up to `most` entries of a directory, `.` and `..` too, from a place that an earlier call gave as the next; 0 for the first. The places keep
    /// their meaning while names come and go: whoever goes on finds each name that was there all the time once.
    ///
    /// # Errors
    /// [`Error::NotDirectory`]; what is damaged.
    pub fn entries(&self, from: u64, most: usize) -> Result<Entries> {
        let (_lock, inode) = self.read_directory()?;
        let (mut part, mut failed) = (Entries::default(), None);
        dir::for_each_from(&self.core.volume, &inode, from, OnDamage::Fail, &mut |seen| {
            match seen {
                Ok((address, _)) if address < from => return ControlFlow::Continue(()),
                Ok((address, _)) if part.entries.len() >= most => part.next = Some(address),
                Ok((address, e)) => {
                    part.entries.push(DirEntry { address, ino: e.ino, ftype: e.ftype, name: e.name.to_vec() });
                    return ControlFlow::Continue(());
                }
                Err(e) => failed = Some(e),
            }
            ControlFlow::Break(())
        })?;
        failed.map_or(Ok(part), Err)
    }

    /// The entries of a directory, `.` and `..` too. Others may change it meanwhile: see [`Handle::entries`].
    ///
    /// # Errors
    /// [`Error::NotDirectory`]; what is damaged.
    pub fn read_dir(&self) -> Result<ReadDir> {
        drop(self.read_directory()?);
        Ok(ReadDir { directory: self.clone(), batch: Vec::new().into_iter(), next: Some(0) })
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is none; what is damaged.
    pub fn readlink(&self) -> Result<Vec<u8>> {
        let (_lock, inode) = self.read()?;
        file::symlink_target(&self.core.volume, &inode)
    }

    /// All extended attributes, in no order; without parent pointers.
    ///
    /// # Errors
    /// What is damaged.
    pub fn xattrs(&self) -> Result<Vec<Attr>> {
        let (_lock, inode) = self.read()?;
        let mut all = attr::list(&self.core.volume, &inode)?;
        all.retain(|a| !a.flags.contains(AttrFlags::PARENT));
        Ok(all)
    }

    /// The value of an attribute that Linux calls so, as Linux shows it; none where there is no such.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name without a namespace; what is damaged.
    pub fn xattr(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let (flags, disk) = attr_name(name)?;
        let (_lock, inode) = self.read()?;
        let Some(value) = attr::get(&self.core.volume, &inode, flags, disk)? else { return Ok(None) };
        if !name.starts_with(b"system.") {
            return Ok(Some(value));
        }
        let found = Attr { flags, name: disk.to_vec(), value };
        let shown = found.acl_value();
        shown.map(Some).ok_or_else(|| Error::invalid(format!("{} of inode {} is no ACL", escape(name), self.ino)))
    }
}
