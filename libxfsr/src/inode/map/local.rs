//! Bytes that stand in the inode itself, and where one fork ends and the other begins.

use super::ForkMut;
use crate::error::{Error, ForkKind, Result, Rule};
use crate::format::btree::{BMBT, InodeRoot};
use crate::format::inode::{CORE_SIZE, Dinode, Format, fork_bytes, fork_bytes_mut, root_in_fork, root_pointers_offset};
use zerocopy::IntoBytes;
use zerocopy::big_endian::U16;

/// Fewest entries for which a root of a data fork's btree has room, and one of an attribute fork's.
const MIN_DATA_ROOT: usize = 3;
const MIN_ATTR_ROOT: usize = 2;

/// Bytes of a root with so many entries.
const fn root(entries: usize) -> usize {
    size_of::<InodeRoot>() + entries * (BMBT.key + BMBT.pointer)
}

/// Where Linux puts an attribute fork of which it does not know how large it must be: in units of eight bytes, rounded down.
fn usual_forkoff(inode_size: usize) -> usize {
    let room = inode_size.saturating_sub(CORE_SIZE);
    if inode_size == 256 { room.saturating_sub(root(MIN_ATTR_ROOT)) / 8 } else { root(6 * MIN_ATTR_ROOT) / 8 }
}

impl ForkMut<'_, '_> {
    fn inode_size(&self) -> usize {
        self.t.geometry().inode_size as usize
    }

    /// The bytes of a fork in local format: of a data fork as many as the file's size says, of an attribute fork as many as its first two bytes say.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another format; [`Error::Corrupt`] where it claims more bytes than there are.
    pub fn local_bytes(&mut self) -> Result<Vec<u8>> {
        if self.format()? != Format::Local {
            return Err(Error::invalid(format!("a fork of inode {} is not in the inode itself", self.ino)));
        }
        let (size, ino, kind) = (self.core()?.size.get(), self.ino, self.kind);
        let fork = fork_bytes(self.t.inode(ino)?, kind);
        let length = match kind {
            ForkKind::Data => usize::try_from(size).unwrap_or(usize::MAX),
            ForkKind::Attr => fork.first_chunk::<2>().map_or(0, |b| usize::from(U16::from_bytes(*b).get())),
        };
        match fork.get(..length) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => {
                let room = fork.len();
                Err(self.bad("size", Rule::Range).found(length).expected(format_args!("at most {room}")).into())
            }
        }
    }

    /// Puts bytes into the fork, in local format, and sets the size where it is a data fork. An attribute fork is made where there is none, and made larger
    /// where that is possible. The fork has no extents.
    ///
    /// # Errors
    /// [`Error::NoSpace`] where they do not fit: [`ForkMut::room`].
    pub fn set_local(&mut self, bytes: &[u8]) -> Result<()> {
        let core = self.core()?;
        let (ino, kind) = (self.ino, self.kind);
        if core.extents(kind) != 0 {
            return Err(Error::invalid(format!("a fork of inode {ino} that has extents is put into the inode")));
        }
        if kind == ForkKind::Attr && bytes.len() > core.fork_size(kind, self.inode_size()) {
            let forkoff = self.forkoff_for(bytes.len())?.ok_or_else(|| self.too_long(bytes.len()))?;
            self.set_forkoff(forkoff)?;
        }
        let fork = fork_bytes_mut(self.t.inode_mut(ino)?, kind);
        let (head, rest) = match fork.split_at_mut_checked(bytes.len()) {
            Some(parts) => parts,
            None => return Err(self.too_long(bytes.len())),
        };
        head.copy_from_slice(bytes);
        rest.fill(0);
        let core = self.core_mut()?;
        match kind {
            ForkKind::Data => {
                core.format = Format::Local as u8;
                core.size.set(bytes.len() as u64);
            }
            ForkKind::Attr => core.aformat = Format::Local as u8,
        }
        Ok(())
    }

    fn too_long(&self, bytes: usize) -> Error {
        Error::NoSpace(format!("{bytes} bytes do not fit into a fork of inode {}", self.ino))
    }

    /// Bytes that the fork may have in the inode: for a data fork what it has, for an attribute fork what the data fork may leave it.
    ///
    /// # Errors
    /// As [`ForkMut::core`].
    pub fn room(&mut self) -> Result<usize> {
        let (core, size) = (self.core()?, self.inode_size());
        if self.kind == ForkKind::Data {
            return Ok(core.fork_size(ForkKind::Data, size));
        }
        let (least, _) = self.forkoff_limits()?;
        let now = core.fork_size(ForkKind::Attr, size);
        let now = if core.has_attr_fork() { now } else { 0 };
        Ok(least.map_or(now, |least| size.saturating_sub(CORE_SIZE + least * 8).max(now)))
    }

    /// Least and greatest `forkoff` that the data fork and a btree in the attribute fork allow; least is none where it cannot move.
    fn forkoff_limits(&mut self) -> Result<(Option<usize>, usize)> {
        let (core, size, ino) = (self.core()?, self.inode_size(), self.ino);
        let most = size.saturating_sub(CORE_SIZE + root(MIN_ATTR_ROOT)) / 8;
        let has = core.has_attr_fork();
        let extents = usize::try_from(core.extents(ForkKind::Data)).unwrap_or(usize::MAX).saturating_mul(16);
        let bytes = match core.format(ForkKind::Data) {
            Some(Format::Dev) => return Ok((Some(1), 1)),
            Some(Format::Local) => usize::try_from(core.size.get()).unwrap_or(usize::MAX),
            // They become a btree, which Linux does only where the attribute fork is new.
            Some(Format::Extents) if !has && extents > usual_forkoff(size) * 8 => 0,
            Some(Format::Extents) => extents,
            Some(Format::Btree) if has => return Ok((None, most)),
            _ => {
                let head = fork_bytes(self.t.inode(ino)?, ForkKind::Data).get(2..).unwrap_or(&[]).first_chunk::<2>();
                root(head.map_or(0, |b| usize::from(U16::from_bytes(*b).get())))
            }
        };
        Ok((Some(bytes.max(root(MIN_DATA_ROOT)).div_ceil(8)), most))
    }

    /// The `forkoff` for an attribute fork of so many bytes; none where the data fork does not leave as many.
    fn forkoff_for(&mut self, bytes: usize) -> Result<Option<usize>> {
        let core = self.core()?;
        let room = self.inode_size().saturating_sub(CORE_SIZE);
        let Some(wanted) = room.checked_sub(bytes).map(|n| n / 8) else { return Ok(None) };
        if core.has_attr_fork() && bytes <= core.fork_size(ForkKind::Attr, self.inode_size()) {
            return Ok(Some(core.forkoff.into()));
        }
        let (Some(least), most) = self.forkoff_limits()? else { return Ok(None) };
        let forkoff = wanted.min(most);
        Ok((forkoff >= least).then_some(forkoff))
    }

    /// Makes an attribute fork without extents, for `bytes` bytes if they fit, else as large as Linux makes it. Extents of the data fork that no longer
    /// fit become a btree. Where there is one already nothing happens.
    ///
    /// # Errors
    /// [`Error::NoSpace`] where the data fork has bytes that no longer fit (a directory or a link in the inode, which its owner moves out first), or
    /// where there is no block for a btree.
    pub fn add_attr_fork(&mut self, bytes: usize) -> Result<()> {
        if self.core()?.has_attr_fork() {
            return Ok(());
        }
        let forkoff = match self.forkoff_for(bytes)? {
            Some(forkoff) => forkoff,
            None => usual_forkoff(self.inode_size()),
        };
        self.set_forkoff(forkoff)?;
        self.core_mut()?.aformat = Format::Extents as u8;
        Ok(())
    }

    /// Takes the attribute fork away, which is empty.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it has extents.
    pub fn remove_attr_fork(&mut self) -> Result<()> {
        if self.core()?.extents(ForkKind::Attr) != 0 {
            return Err(Error::invalid(format!("the attribute fork of inode {} has extents", self.ino)));
        }
        self.set_forkoff(0)?;
        self.core_mut()?.aformat = Format::Extents as u8;
        Ok(())
    }

    /// Moves the border between the forks. What the attribute fork has is gone.
    fn set_forkoff(&mut self, forkoff: usize) -> Result<()> {
        let (ino, size) = (self.ino, self.inode_size());
        let mut data = ForkMut::new(self.t, self.space, ino, ForkKind::Data);
        let core = data.core()?;
        let moved = Dinode { forkoff: u8::try_from(forkoff).map_err(|_| data.too_long(forkoff * 8))?, ..core };
        let room = moved.fork_size(ForkKind::Data, size);
        let format = core.format(ForkKind::Data);
        let list = if format == Some(Format::Extents) { Some(data.list()?) } else { None };
        if format == Some(Format::Local) && core.size.get() > room as u64 {
            return Err(data.too_long(usize::try_from(core.size.get()).unwrap_or(usize::MAX)));
        }
        let inode = data.t.inode_mut(ino)?;
        let old = fork_bytes(inode, ForkKind::Data).to_vec();
        fork_bytes_mut(inode, ForkKind::Attr).fill(0);
        if let Some(core) = Dinode::from_bytes_mut(inode) {
            core.forkoff = moved.forkoff;
        }
        let fork = fork_bytes_mut(inode, ForkKind::Data);
        if format == Some(Format::Btree) {
            move_root(&old, fork)?;
        } else {
            let kept = old.len().min(fork.len());
            fork.fill(0);
            if let (Some(to), Some(from)) = (fork.get_mut(..kept), old.get(..kept)) {
                to.copy_from_slice(from);
            }
        }
        fork_bytes_mut(inode, ForkKind::Attr).fill(0);
        match (list, format) {
            (Some(list), _) => data.set_list(&list),
            (None, Some(Format::Btree)) => data.settle(),
            (None, _) => Ok(()),
        }
    }
}

/// A btree's root into a fork of another length: its pointers lie behind the keys that there is room for.
fn move_root(old: &[u8], fork: &mut [u8]) -> Result<()> {
    let found = root_in_fork(old, &BMBT)?;
    let short = || Error::invalid("a btree root does not fit into its fork");
    let mut bytes = vec![0; fork.len()];
    let head = InodeRoot { level: U16::new(found.level), numrecs: U16::new(found.numrecs) };
    let pointers = root_pointers_offset(&BMBT, fork.len());
    let keys_end = size_of::<InodeRoot>() + found.keys.len();
    if keys_end > pointers {
        return Err(short());
    }
    let parts = [(0, head.as_bytes()), (size_of::<InodeRoot>(), found.keys), (pointers, found.pointers.as_bytes())];
    for (at, part) in parts {
        bytes.get_mut(at..at + part.len()).ok_or_else(short)?.copy_from_slice(part);
    }
    fork.copy_from_slice(&bytes);
    Ok(())
}
