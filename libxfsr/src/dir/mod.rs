//! Directories on a volume: all entries, one name, a path.

mod change;
mod lookup;
mod path;

pub use change::{DirMut, Named};
pub use lookup::lookup;
pub use path::{MAX_COMPONENTS, resolve};

use crate::cache::{BlockRead, OnDamage, Want};
use crate::error::{Corruption, Error, ForkKind, Result, Rule};
use crate::format::BlockType;
use crate::format::dir::{self, Entry, ShortDir};
use crate::format::inode::{Format, fork_bytes};
use crate::inode::{Inode, file, fork};
use crate::units::{FileBlock, Ino};
use crate::volume::Volume;
use std::ops::ControlFlow;

/// An entry, copied out of its block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Its address: byte in the data section, divided by eight. In short form that which it would have in a block.
    pub address: u64,
    /// The inode that it names.
    pub ino: Ino,
    /// The byte for the kind of file.
    pub ftype: u8,
    /// Its name: raw bytes, to be escaped before they are shown.
    pub name: Vec<u8>,
}

/// What [`for_each`] hands to its caller: an entry with its address, or what keeps a part of the directory from being read.
pub type Seen<'a> = Result<(u64, Entry<'a>)>;

pub(crate) fn bad(ino: Ino, field: &'static str, rule: Rule) -> Box<Corruption> {
    Corruption::new("directory", field, rule).in_inode(ino).in_fork(ForkKind::Data, None)
}

fn require_directory(inode: &Inode) -> Result<()> {
    if inode.core.is_dir() { Ok(()) } else { Err(Error::invalid(format!("inode {} is no directory", inode.ino))) }
}

/// The directory's block that begins at a file block; none where there is a hole.
///
/// # Errors
/// As [`crate::cache::BufCache::read`]; a block that belongs to another inode is an [`Error::Corrupt`].
pub fn block(
    volume: &Volume,
    inode: &Inode,
    first: FileBlock,
    kind: &'static BlockType,
    damage: OnDamage,
) -> Result<Option<BlockRead>> {
    let count = 1u64 << volume.geometry.dir_block_log;
    file::block(volume, inode, ForkKind::Data, (first, count), &Want::new(kind, damage))
}

/// Calls `each` with every entry, `.` and `..` too, until it breaks. A block that cannot be read is handed over as an error,
/// and the next one follows. With [`OnDamage::Keep`] damaged blocks are read as far as they go.
///
/// # Errors
/// When the inode is no directory or its extent map cannot be read.
pub fn for_each(
    volume: &Volume,
    inode: &Inode,
    damage: OnDamage,
    each: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>,
) -> Result<()> {
    for_each_from(volume, inode, 0, damage, each)
}

/// The same from the block on in which that address lies; of a directory in short form all.
///
/// # Errors
/// As [`for_each`].
pub fn for_each_from(
    volume: &Volume,
    inode: &Inode,
    from: u64,
    damage: OnDamage,
    each: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>,
) -> Result<()> {
    require_directory(inode)?;
    if inode.core.format(ForkKind::Data) == Some(Format::Local) {
        return short(volume, inode, each);
    }
    let g = &volume.geometry;
    let step = 1u64 << g.dir_block_log;
    let end = dir::leaf_start(g).0;
    // Collected first, so that a corrupt map cannot revisit a block: the position only grows.
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let first = u32::try_from(from).map_or(end, |a| dir::split_address(g, a).0.0 & !(step - 1));
    if first >= end {
        return Ok(());
    }
    fork::extents(volume, inode.ino, &inode.bytes, ForkKind::Data, (first, end - 1), &mut |e| {
        runs.push((e.offset, e.offset.saturating_add(e.count).min(end)));
        ControlFlow::Continue(())
    })?;
    let mut next = first;
    for (from, to) in runs {
        next = next.max(from & !(step - 1));
        while next < to {
            let flow = match block(volume, inode, FileBlock(next), &dir::DIR_ANY, damage) {
                Ok(Some(b)) => block_entries(volume, inode, FileBlock(next), &b, each),
                Ok(None) => each(Err(bad(inode.ino, "block", Rule::Missing)
                    .in_fork(ForkKind::Data, Some(FileBlock(next)))
                    .into())),
                Err(e) => each(Err(e)),
            };
            if flow.is_break() {
                return Ok(());
            }
            next += step;
        }
    }
    Ok(())
}

fn block_entries(
    volume: &Volume,
    inode: &Inode,
    first: FileBlock,
    block: &[u8],
    each: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    for e in dir::entries(block, &volume.geometry) {
        let seen = match e {
            Ok(e) => {
                let address = dir::join_address(&volume.geometry, first, e.offset).map_or(u64::MAX, u64::from);
                Ok((address, e))
            }
            Err(c) => Err(c.in_inode(inode.ino).in_fork(ForkKind::Data, Some(first)).into()),
        };
        each(seen)?;
    }
    ControlFlow::Continue(())
}

fn short(volume: &Volume, inode: &Inode, each: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>) -> Result<()> {
    let g = &volume.geometry;
    let fork = fork_bytes(&inode.bytes, ForkKind::Data);
    let length = usize::try_from(inode.size()).unwrap_or(usize::MAX).min(fork.len());
    let Some(d) = ShortDir::from_bytes(fork.get(..length).unwrap_or(&[]), g) else {
        return Err(bad(inode.ino, "size", Rule::Truncated).found(length).into());
    };
    let ftype = if g.features.ftype() { dir::FileType::Directory as u8 } else { 0 };
    let dot = dir::DATA_HEADER_SIZE;
    let dotdot = dot + dir::entry_size(1, g.features.ftype());
    let dots = [(dot, inode.ino, &b"."[..]), (dotdot, d.parent, &b".."[..])];
    for (offset, ino, name) in dots {
        if each(Ok(((offset / dir::ALIGN) as u64, Entry { offset, ino, name, ftype }))).is_break() {
            return Ok(());
        }
    }
    for e in d.entries() {
        let seen = e.map(|e| ((e.offset / dir::ALIGN) as u64, e)).map_err(|c| Error::from(c.in_inode(inode.ino)));
        if each(seen).is_break() {
            break;
        }
    }
    Ok(())
}

/// All entries, `.` and `..` too.
///
/// # Errors
/// As [`for_each`], and the first part that cannot be read.
pub fn entries(volume: &Volume, inode: &Inode) -> Result<Vec<DirEntry>> {
    let mut all = Vec::new();
    let mut failed = None;
    for_each(volume, inode, OnDamage::Fail, &mut |seen| match seen {
        Ok((address, e)) => {
            all.push(DirEntry { address, ino: e.ino, ftype: e.ftype, name: e.name.to_vec() });
            ControlFlow::Continue(())
        }
        Err(e) => {
            failed = Some(e);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(all), Err)
}
