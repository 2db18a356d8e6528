//! Inodes as they are read: contents at an offset, target of a symbolic link.

use super::fork;
use crate::cache::{BlockKey, BlockRead, OnDamage, TargetId, Want};
use crate::error::{Corruption, Error, ForkKind, Result, Rule};
use crate::format::btree::Extent;
use crate::format::inode::{Dinode, Format, fork_bytes, verify_dinode};
use crate::format::symlink::{MAX_TARGET, SYMLINK};
use crate::format::{Context, part};
use crate::units::{Daddr, Device, FileBlock, FsBlock, Ino, RtBlock};
use crate::volume::Volume;
use std::ops::ControlFlow;

/// An inode: its number, its bytes and a copy of its core.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Its number.
    pub ino: Ino,
    /// Core and forks, as they are on disk.
    pub bytes: Vec<u8>,
    /// The core.
    pub core: Dinode,
    /// What verification found; always none with [`OnDamage::Fail`].
    pub damage: Option<Box<Corruption>>,
}

impl Inode {
    /// Reads and verifies an inode. A free one is read as well: see [`Dinode::is_free`].
    ///
    /// # Errors
    /// [`Error::NotFound`] for a number that cannot exist; [`Error::Io`]; with [`OnDamage::Fail`] the first rule that it breaks.
    pub fn read(volume: &Volume, ino: Ino, damage: OnDamage) -> Result<Self> {
        let bytes = volume.inode_bytes(ino)?;
        let offset = volume.geometry.ino_to_offset(ino).unwrap_or(0);
        let at = Context::new(&volume.geometry, Daddr(offset / 512));
        let found = verify_dinode(&bytes, ino, &at).err();
        let core = Dinode::from_bytes(&bytes)
            .copied()
            .ok_or_else(|| Corruption::new("inode", "core", Rule::Truncated).in_inode(ino))?;
        match found {
            Some(c) if damage == OnDamage::Fail => Err(c.into()),
            found => Ok(Self { ino, bytes, core, damage: found }),
        }
    }
    /// Bytes of the contents.
    pub fn size(&self) -> u64 {
        self.core.size.get()
    }
    /// The extents of a fork.
    ///
    /// # Errors
    /// As [`fork::all_extents`].
    pub fn extents(&self, volume: &Volume, kind: ForkKind) -> Result<Vec<Extent>> {
        fork::all_extents(volume, self.ino, &self.bytes, kind)
    }
    fn bad(&self, field: &'static str, rule: Rule) -> Box<Corruption> {
        Corruption::new("inode", field, rule).in_inode(self.ino).in_fork(ForkKind::Data, None)
    }
}

/// Reads the contents of a file from `offset` on and returns how many bytes of `buf` were filled: fewer only at the end of
/// the file. Holes and unwritten extents read as zeroes.
///
/// # Errors
/// [`Error::Io`]; [`Error::Unsupported`] for a realtime file without its device; [`Error::Corrupt`] where the extent map
/// breaks a rule or leads outside the device.
pub fn read_at(volume: &Volume, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<usize> {
    // A larger one is damage, and no map reaches there.
    let size = inode.size().min(volume.geometry.max_file_size());
    let length = size.saturating_sub(offset).min(buf.len() as u64) as usize;
    let Some(buf) = buf.get_mut(..length) else { return Ok(0) };
    if length == 0 {
        return Ok(0);
    }
    if inode.core.format(ForkKind::Data) == Some(Format::Local) {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = fork_bytes(&inode.bytes, ForkKind::Data).get(from..).and_then(|b| b.get(..length));
        buf.copy_from_slice(bytes.ok_or_else(|| inode.bad("size", Rule::Range).found(size))?);
        return Ok(length);
    }
    buf.fill(0);
    let log = volume.geometry.block_log;
    let end = offset + length as u64;
    let (first, last) = (offset >> log, (end - 1) >> log);
    let mut failed = None;
    fork::extents(volume, inode.ino, &inode.bytes, ForkKind::Data, (first, last), &mut |e| {
        if e.unwritten {
            return ControlFlow::Continue(());
        }
        let (from, to) = (e.offset.max(first), e.offset.saturating_add(e.count).min(last + 1));
        if from >= to {
            return ControlFlow::Continue(());
        }
        let (start, stop) = ((from << log).max(offset), (to << log).min(end));
        let part = buf.get_mut((start - offset) as usize..(stop - offset) as usize);
        let part = part.ok_or_else(|| inode.bad("startoff", Rule::Range).found(e.offset).into());
        match part.and_then(|part| read_extent(volume, inode, e, start - (e.offset << log), part)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                failed = Some(e);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(length), Err)
}

/// Fills `buf` from `skip` bytes after the start of an extent.
fn read_extent(volume: &Volume, inode: &Inode, e: &Extent, skip: u64, buf: &mut [u8]) -> Result<()> {
    let g = &volume.geometry;
    let outside = || {
        inode
            .bad("startblock", Rule::Range)
            .in_fork(ForkKind::Data, Some(FileBlock(e.offset)))
            .found(format_args!("{} blocks at {}", e.count, e.start))
            .expected("an extent of the device")
    };
    if inode.core.is_realtime() {
        let Some(rt) = volume.rt else {
            return Err(Error::MissingDevice { device: Device::Realtime });
        };
        if !g.is_valid_rt_extent(RtBlock(e.start), e.count) {
            return Err(outside().into());
        }
        return volume.cache.target(rt)?.read_at(buf, g.rt_block_offset(RtBlock(e.start)).saturating_add(skip));
    }
    match g.fsblock_to_daddr(FsBlock(e.start)) {
        Some(d) if g.is_valid_extent(FsBlock(e.start), e.count) => volume.data_target().read_at(buf, d.bytes() + skip),
        _ => Err(outside().into()),
    }
}

/// The target of a symbolic link: raw bytes, to be escaped before they are shown.
///
/// # Errors
/// [`Error::Corrupt`] where length, headers or checksums are wrong; [`Error::Invalid`] for an inode that is no symbolic link.
pub fn symlink_target(volume: &Volume, inode: &Inode) -> Result<Vec<u8>> {
    if !inode.core.is_symlink() {
        return Err(Error::invalid(format!("inode {} is no symbolic link", inode.ino)));
    }
    let size = inode.size();
    if size == 0 || size > u64::from(MAX_TARGET) {
        return Err(inode.bad("size", Rule::Range).found(size).expected("1 to 1024").into());
    }
    let length = size as usize;
    if inode.core.format(ForkKind::Data) == Some(Format::Local) {
        let fork = fork_bytes(&inode.bytes, ForkKind::Data);
        let target =
            fork.get(..length).ok_or_else(|| inode.bad("size", Rule::Range).found(size).expected(fork.len()))?;
        return Ok(target.to_vec());
    }
    let mut target = Vec::with_capacity(length);
    link_blocks(volume, inode, &mut |_, daddr, block| {
        let part = link_part(volume, inode, block, daddr, target.len())?;
        if part.len() > length - target.len() {
            let expected = target.len() + part.len();
            return Err(inode.bad("size", Rule::Mismatch).found(size).expected(expected).into());
        }
        target.extend_from_slice(part);
        Ok(if target.len() < length { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    if target.len() < length {
        return Err(inode.bad("size", Rule::Truncated).found(target.len()).expected(length).into());
    }
    Ok(target)
}

/// Receives a block of a symbolic link: where it is in the link, where on the device, and its bytes.
pub(crate) type EachLinkBlock<'a> = &'a mut dyn FnMut(FileBlock, Daddr, &[u8]) -> Result<ControlFlow<()>>;

/// Calls `each` with the blocks of a symbolic link, unverified, until it breaks: each extent is one, with its own header.
///
/// # Errors
/// As [`Inode::extents`]; [`Error::Corrupt`] for an extent that is too long or outside the device; [`Error::Io`]; what `each` returns.
pub(crate) fn link_blocks(volume: &Volume, inode: &Inode, each: EachLinkBlock<'_>) -> Result<()> {
    for e in inode.extents(volume, ForkKind::Data)? {
        // 1024 bytes and a header each need two blocks at most.
        if e.count > 4 {
            return Err(inode.bad("blockcount", Rule::Range).found(e.count).expected("at most 4").into());
        }
        let mut block = vec![0; (e.count as usize) << volume.geometry.block_log];
        let daddr = volume.geometry.fsblock_to_daddr(FsBlock(e.start)).unwrap_or(Daddr(0));
        // One that was made since the filesystem was opened may not be on the device yet.
        let key = BlockKey::one(volume.data, daddr, (block.len() / 512) as u32);
        if inode.core.is_realtime() || !volume.cache.peek(&key, 0, &mut block) {
            read_extent(volume, inode, &e, 0, &mut block)?;
        }
        if each(FileBlock(e.offset), daddr, &block)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn link_part<'b>(volume: &Volume, inode: &Inode, block: &'b [u8], daddr: Daddr, done: usize) -> Result<&'b [u8]> {
    let place = |c: Box<Corruption>| Error::from(c.in_inode(inode.ino).at_daddr(daddr));
    (SYMLINK.verify)(block, &Context::new(&volume.geometry, daddr).owned_by(inode.ino)).map_err(place)?;
    let bad = |field, rule| Corruption::new(SYMLINK.name, field, rule);
    let (offset, part) = part::payload(block).ok_or_else(|| place(bad("bytes", Rule::Range)))?;
    if offset as usize != done {
        return Err(place(bad("offset", Rule::Mismatch).found(offset).expected(done)));
    }
    Ok(part)
}

/// Where the block of a fork lies: target and pieces of `count` blocks from `first` on. None if any of them is a hole.
///
/// # Errors
/// As [`fork::extents`]; [`Error::Corrupt`] where the map leads outside the device.
pub fn map_blocks(
    volume: &Volume,
    inode: &Inode,
    kind: ForkKind,
    first: FileBlock,
    count: u64,
) -> Result<Option<Vec<(Daddr, u32)>>> {
    let sectors = volume.geometry.block_size / 512;
    let mut next = first.0;
    let mut pieces = Vec::new();
    let mut outside = None;
    let last = first.0.saturating_add(count.saturating_sub(1));
    fork::extents(volume, inode.ino, &inode.bytes, kind, (first.0, last), &mut |e| {
        while next <= last && next >= e.offset && next - e.offset < e.count {
            let block = FsBlock(e.start.saturating_add(next - e.offset));
            let valid = volume.geometry.is_valid_extent(FsBlock(e.start), e.count);
            let Some(d) = volume.geometry.fsblock_to_daddr(block).filter(|_| valid) else {
                outside = Some(*e);
                return ControlFlow::Break(());
            };
            pieces.push((d, sectors));
            next += 1;
        }
        ControlFlow::Continue(())
    })?;
    if let Some(e) = outside {
        return Err(inode
            .bad("startblock", Rule::Range)
            .in_fork(kind, Some(FileBlock(e.offset)))
            .found(format_args!("{} blocks at {}", e.count, e.start))
            .into());
    }
    Ok((next > last).then_some(pieces))
}

/// A block of a fork, `count` blocks of the filesystem from `first` on, which must belong to the inode. None if any of them is a hole.
///
/// # Errors
/// As [`map_blocks`] and [`crate::cache::BufCache::read`]; what is corrupt says where in the file it is.
pub fn block(
    volume: &Volume,
    inode: &Inode,
    fork: ForkKind,
    (first, count): (FileBlock, u64),
    want: &Want,
) -> Result<Option<BlockRead>> {
    let Some(pieces) = map_blocks(volume, inode, fork, first, count)? else { return Ok(None) };
    let want = want.owned_by(inode.ino);
    volume.cache.read(&BlockKey::many(volume.data, pieces), &want, &volume.geometry).map(Some).map_err(|e| match e {
        Error::Corrupt(c) => Error::Corrupt(c.in_inode(inode.ino).in_fork(fork, Some(first))),
        e => e,
    })
}

/// The target on which a file's data lies; none for a realtime file without its device.
pub fn data_target(volume: &Volume, inode: &Inode) -> Option<TargetId> {
    if inode.core.is_realtime() { volume.rt } else { Some(volume.data) }
}
