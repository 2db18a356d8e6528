//! What a new inode holds, as Linux writes it: owner, times, flags and hints of its directory, and the place of an attribute fork.

use super::chunk::{self, Wanted, new_flags2};
use super::map::ForkMut;
use crate::cache::{BlockKey, OnDamage, Want};
use crate::error::{Corruption, Error, ForkKind, Result};
use crate::format::btree::Extent;
use crate::format::inode::{
    CORE_SIZE, Dinode, FileKind, Flags, Flags2, Format, MAGIC, Timestamp, VERSION, seal_dinode, verify_dinode,
};
use crate::format::part::{self, PartHeader};
use crate::format::symlink::{self, SYMLINK};
use crate::format::{Context, inode};
use crate::space::{Fill, Request, Space};
use crate::txn::Transaction;
use crate::units::{Daddr, FileBlock, FsBlock, Ino, Lsn, NULL_AGINO};
use std::ops::ControlFlow;
use std::sync::Arc;
use zerocopy::FromBytes;

/// Permission bit by which a directory hands its group down.
const SETGID: u16 = 0o2000;
/// Where attribute forks begin, in units of 8 bytes: behind a device number, and else.
const DEVICE_FORK: u8 = 1;
const ATTR_FORK: u8 = 24;

/// What a new inode is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewInode {
    /// Kind and permissions.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group, where its directory does not hand down its own.
    pub gid: u32,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Now: seconds since 1970 and nanoseconds.
    pub now: (i64, u32),
    /// A random number, also for the inodes of a new chunk.
    pub generation: u32,
    /// It gets no name yet: its link count is 0, and the caller puts it on its [unlinked list](super::unlinked).
    pub unnamed: bool,
}

/// Takes a free inode and fills it. The transaction has locked the directory, in which it reads what is handed down, and nothing else.
/// A directory has no contents then, a link no target; see [`set_target`].
///
/// # Errors
/// As [`chunk::allocate`]; [`Error::Invalid`] for what no inode can hold.
pub fn create(t: &mut Transaction<'_>, space: &Space, parent: Ino, new: &NewInode) -> Result<Ino> {
    let kind = kind_of(new)?;
    // Before anything is changed.
    times(new, t.geometry().features.bigtime())?;
    let above = core_of(t.inode(parent)?)?;
    let wanted = Wanted { parent, directory: kind == FileKind::Directory, generation: new.generation };
    let ino = chunk::allocate(t, space, &wanted)?;
    fill(t, ino, Some(&above), new)?;
    Ok(ino)
}

fn kind_of(new: &NewInode) -> Result<FileKind> {
    let none = || Error::invalid(format!("mode {:#o} names no kind of file", new.mode));
    FileKind::from_mode(new.mode).ok_or_else(none)
}

fn core_of(bytes: &[u8]) -> Result<Dinode> {
    Dinode::from_bytes(bytes).copied().ok_or_else(|| Error::invalid("an inode shorter than its core"))
}

fn times(new: &NewInode, bigtime: bool) -> Result<Timestamp> {
    let (seconds, nanos) = new.now;
    let none =
        || Error::invalid(format!("{seconds} seconds and {nanos} ns since 1970 are no time that inodes can hold"));
    Timestamp::encode(seconds, nanos, bigtime).ok_or_else(none)
}

/// A device number as inodes hold it.
fn device_number((major, minor): (u32, u32)) -> Result<u32> {
    if major >= 1 << 14 || minor >= 1 << 18 {
        return Err(Error::invalid(format!("device {major}:{minor}: less than 16384:262144 fit into an inode")));
    }
    Ok(major << 18 | minor)
}

/// Fills an inode that was free, and is locked.
///
/// # Errors
/// [`Error::Invalid`] for what no inode can hold.
pub fn fill(t: &mut Transaction<'_>, ino: Ino, above: Option<&Dinode>, new: &NewInode) -> Result<()> {
    let (g, kind) = (t.geometry(), kind_of(new)?);
    let flags2 = new_flags2(g);
    let now = times(new, flags2.contains(Flags2::BIGTIME))?;
    let device = if kind.is_special() { Some(device_number(new.device)?) } else { None };
    let mut core = Dinode::zeroed();
    core.magic.set(MAGIC);
    core.version = VERSION;
    core.mode.set(new.mode);
    core.uid.set(new.uid);
    core.gid.set(new.gid);
    core.nlink.set(match kind {
        _ if new.unnamed => 0,
        FileKind::Directory => 2,
        _ => 1,
    });
    (core.atime, core.mtime, core.ctime, core.crtime) = (now, now, now, now);
    core.generation.set(new.generation);
    core.changecount.set(1);
    core.flags2.set(flags2.bits());
    core.next_unlinked.set(NULL_AGINO);
    core.ino.set(ino.0);
    core.uuid = g.meta_uuid;
    core.format = if device.is_some() { Format::Dev } else { Format::Extents } as u8;
    core.aformat = Format::Extents as u8;
    if kind != FileKind::Symlink || g.features.parent() {
        core.forkoff = if device.is_some() { DEVICE_FORK } else { ATTR_FORK };
    }
    if let Some(above) = above {
        inherit(&mut core, kind, above, g.rt_blocks > 0);
    }
    let bytes = t.inode_mut(ino)?;
    if let Some(forks) = bytes.get_mut(CORE_SIZE..) {
        forks.fill(0);
    }
    let place = Dinode::from_bytes_mut(bytes).ok_or_else(|| Error::invalid("an inode shorter than its core"))?;
    // The pointer is the cluster's affair.
    core.next_unlinked = place.next_unlinked;
    *place = core;
    if let Some(device) = device
        && let Some(word) = inode::fork_bytes_mut(bytes, ForkKind::Data).first_chunk_mut::<4>()
    {
        *word = zerocopy::big_endian::U32::new(device).to_bytes();
    }
    if core.flags().intersects(Flags::EXTSIZE | Flags::EXTSZINHERIT) || core.flags2().contains(Flags2::COWEXTSIZE) {
        drop_bad_hints(t, ino)?;
    }
    Ok(())
}

/// What a directory hands down.
fn inherit(core: &mut Dinode, kind: FileKind, above: &Dinode, realtime: bool) {
    if above.mode.get() & SETGID != 0 {
        core.gid = above.gid;
        if kind == FileKind::Directory {
            core.mode.set(core.mode.get() | SETGID);
        }
    }
    let of = above.flags();
    if of.contains(Flags::PROJINHERIT) {
        (core.projid_lo, core.projid_hi) = (above.projid_lo, above.projid_hi);
    }
    let directory = kind == FileKind::Directory;
    if !directory && kind != FileKind::Regular {
        return;
    }
    let mut flags = of & (Flags::NOATIME | Flags::NODUMP | Flags::SYNC | Flags::NODEFRAG | Flags::FILESTREAM);
    if directory {
        flags |= of & (Flags::RTINHERIT | Flags::EXTSZINHERIT | Flags::PROJINHERIT);
    } else {
        flags.set(Flags::REALTIME, of.contains(Flags::RTINHERIT) && realtime);
        flags.set(Flags::EXTSIZE, of.contains(Flags::EXTSZINHERIT));
    }
    core.flags.set(flags.bits());
    if of.contains(Flags::EXTSZINHERIT) {
        core.extsize = above.extsize;
    }
    let handed = above.flags2() & (Flags2::COWEXTSIZE | Flags2::DAX);
    core.flags2.set(core.flags2.get() | handed.bits());
    if handed.contains(Flags2::COWEXTSIZE) {
        core.cowextsize = above.cowextsize;
    }
}

/// A hint that is right for a directory may not be for what is in it: that goes without.
fn drop_bad_hints(t: &mut Transaction<'_>, ino: Ino) -> Result<()> {
    let g = t.geometry();
    let verify = |bytes: &[u8]| {
        let mut copy = bytes.to_vec();
        // A directory without contents is not finished, and would be found so.
        if let Some(d) = Dinode::from_bytes_mut(&mut copy) {
            d.size.set(1);
            d.format = Format::Extents as u8;
        }
        seal_dinode(&mut copy, Lsn(0));
        verify_dinode(&copy, ino, &Context::new(g, Daddr(0)))
    };
    let about = |c: Corruption, field: &str| c.field == field || c.field == "flags" || c.field == "flags2";
    let bytes = t.inode_mut(ino)?;
    for field in ["extsize", "cowextsize"] {
        let Err(c) = verify(bytes) else { return Ok(()) };
        if !about(*c, field) {
            continue;
        }
        let core = Dinode::from_bytes_mut(bytes).ok_or_else(|| Error::invalid("an inode shorter than its core"))?;
        if field == "extsize" {
            core.flags.set((core.flags() - Flags::EXTSIZE - Flags::EXTSZINHERIT).bits());
            core.extsize.set(0);
        } else {
            core.flags2.set((core.flags2() - Flags2::COWEXTSIZE).bits());
            core.cowextsize.set(0);
        }
    }
    Ok(())
}

/// Blocks that a link's target takes outside of the inode, at most.
pub fn target_blocks(g: &crate::geometry::Geometry, length: usize) -> u32 {
    part::blocks(g, u32::try_from(length).unwrap_or(u32::MAX))
}

/// Gives a new symbolic link its target: in the inode where it fits, else in blocks.
///
/// # Errors
/// [`Error::Invalid`] for a target that is empty, contains a zero byte or is longer than 1023 bytes; as [`ForkMut::allocate`].
pub fn set_target(t: &mut Transaction<'_>, space: &Arc<Space>, ino: Ino, target: &[u8]) -> Result<()> {
    let length = target.len();
    if length == 0 || length >= symlink::MAX_TARGET as usize || target.contains(&0) {
        return Err(Error::invalid(format!("a link's target has 1 to 1023 bytes and no zero: this one has {length}")));
    }
    let g = t.geometry();
    let bytes = t.inode_mut(ino)?;
    let core = Dinode::from_bytes_mut(bytes).ok_or_else(|| Error::invalid("an inode shorter than its core"))?;
    if !core.is_symlink() || core.size.get() != 0 {
        return Err(Error::invalid(format!("inode {ino} is no new symbolic link")));
    }
    core.size.set(length as u64);
    if length <= core.fork_size(ForkKind::Data, g.inode_size as usize) {
        core.format = Format::Local as u8;
        if let Some(place) = inode::fork_bytes_mut(bytes, ForkKind::Data).get_mut(..length) {
            place.copy_from_slice(target);
        }
        return Ok(());
    }
    let blocks = u64::from(target_blocks(g, length));
    let mut fork = ForkMut::new(t, space, ino, ForkKind::Data);
    let mut next = 0;
    while next < blocks {
        let max = u32::try_from(blocks - next).unwrap_or(1);
        let request = Request { min: 1, max, align: 1, left: 0, unlogged: false, owner: None, fill: Fill::Free };
        next += fork.allocate(FileBlock(next), &request, None, false)?.count;
    }
    let mut rest = target;
    for e in extents(&mut fork)? {
        if rest.is_empty() {
            break;
        }
        rest = write_part(t, ino, &e, rest, length - rest.len())?;
    }
    Ok(())
}

fn extents(fork: &mut ForkMut<'_, '_>) -> Result<Vec<Extent>> {
    let mut all = Vec::new();
    fork.extents((0, u64::MAX), &mut |e| {
        all.push(*e);
        ControlFlow::Continue(())
    })?;
    Ok(all)
}

/// The block of an extent of a link: each is one, with one header.
fn part_key(t: &Transaction<'_>, ino: Ino, e: &Extent) -> Result<BlockKey> {
    let g = t.geometry();
    let bad = || Corruption::new("inode", "startblock", crate::error::Rule::Range).in_inode(ino).found(e.start);
    let valid = g.is_valid_extent(FsBlock(e.start), e.count) && e.count <= 4;
    let daddr = g.fsblock_to_daddr(FsBlock(e.start)).filter(|_| valid).ok_or_else(bad)?;
    let sectors = u32::try_from(e.count << g.bb_shift()).map_err(|_| bad())?;
    Ok(BlockKey::one(t.volume().data, daddr, sectors))
}

/// Writes as much of a target as fits into an extent, and returns the rest.
fn write_part<'b>(t: &mut Transaction<'_>, ino: Ino, e: &Extent, target: &'b [u8], offset: usize) -> Result<&'b [u8]> {
    let (g, key) = (t.geometry(), part_key(t, ino, e)?);
    let bytes = t.fresh(&key, &Want::new(&SYMLINK, OnDamage::Fail).owned_by(ino))?;
    let (header, room) = PartHeader::mut_from_prefix(bytes).map_err(|_| Error::invalid("a block without a header"))?;
    let (now, rest) = target.split_at(target.len().min(room.len()));
    header.magic.set(symlink::MAGIC);
    header.offset.set(offset as u32);
    header.bytes.set(now.len() as u32);
    header.uuid = g.meta_uuid;
    header.owner.set(ino.0);
    header.blkno.set(key.daddr().0);
    if let Some(place) = room.get_mut(..now.len()) {
        place.copy_from_slice(now);
    }
    Ok(rest)
}

/// Takes the target of a symbolic link that is being freed away, with its blocks.
///
/// # Errors
/// As [`ForkMut::free`].
pub fn remove_target(t: &mut Transaction<'_>, space: &Arc<Space>, ino: Ino) -> Result<()> {
    let mut fork = ForkMut::new(t, space, ino, ForkKind::Data);
    if fork.format()? == Format::Extents {
        for e in extents(&mut fork)? {
            let key = part_key(fork.t(), ino, &e)?;
            fork.t().invalidate(&key, &Want::new(&SYMLINK, OnDamage::Fail).owned_by(ino))?;
            fork.free(FileBlock(e.offset), e.count)?;
        }
    }
    let bytes = t.inode_mut(ino)?;
    if let Some(core) = Dinode::from_bytes_mut(bytes) {
        (core.format, core.size) = (Format::Extents as u8, 0.into());
    }
    inode::fork_bytes_mut(bytes, ForkKind::Data).fill(0);
    Ok(())
}
