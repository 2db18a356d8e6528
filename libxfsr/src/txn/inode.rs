//! Inode items: the core in the byte order of the machine, and the forks that changed.

use super::item::{ItemKey, LogItem, RegionWriter};
use crate::cache::BlockKey;
use crate::error::ForkKind;
use crate::format::btree::{
    BMBT, BMBT_MAGIC, Layout, LongHeader, RTREFCOUNT, RTREFCOUNTBT_MAGIC, RTRMAP, RTRMAPBT_MAGIC,
};
use crate::format::inode::{Dinode, Format, MetaType, fork_bytes, root_in_fork};
use crate::format::log::items::{InodeFields, InodeFormat, ItemType, LogDinode};
use crate::units::Ino;
use zerocopy::big_endian::U32 as Be32;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Forks that a checkpoint logs.
const DATA: u32 = 1;
const ATTR: u32 = 2;

/// Whether a fork has to be logged: its bytes, its form or its length are others than before.
fn fork_changed(before: &[u8], after: &[u8], kind: ForkKind) -> bool {
    let (Some(b), Some(a)) = (Dinode::from_bytes(before), Dinode::from_bytes(after)) else { return true };
    let length = kind == ForkKind::Data && b.size != a.size && a.format(kind) == Some(Format::Local);
    b.forkoff != a.forkoff
        || b.format(kind) != a.format(kind)
        || b.extents(kind) != a.extents(kind)
        || length
        || fork_bytes(before, kind) != fork_bytes(after, kind)
}

/// The forks in which two states of an inode differ.
pub(super) fn changed_forks(before: &[u8], after: &[u8]) -> u32 {
    let flag = |kind, flag| if fork_changed(before, after, kind) { flag } else { 0 };
    flag(ForkKind::Data, DATA) | flag(ForkKind::Attr, ATTR)
}

/// A btree's root as the journal has it: a block with a header, and as much behind it as there is.
fn root_region(inode: &[u8], core: &Dinode, kind: ForkKind) -> Option<Vec<u8>> {
    let (layout, magic): (Layout, u32) = match core.metatype() {
        Some(MetaType::RtRmap) => (RTRMAP, RTRMAPBT_MAGIC),
        Some(MetaType::RtRefcount) => (RTREFCOUNT, RTREFCOUNTBT_MAGIC),
        _ => (BMBT, BMBT_MAGIC),
    };
    let root = root_in_fork(fork_bytes(inode, kind), &layout).ok()?;
    let mut header = LongHeader::new_zeroed();
    header.magic.set(magic);
    header.level.set(root.level);
    header.numrecs.set(root.numrecs);
    header.leftsib.set(u64::MAX);
    header.rightsib.set(u64::MAX);
    header.blkno.set(u64::MAX);
    header.owner.set(core.ino.get());
    header.uuid = core.uuid;
    Some([header.as_bytes(), root.records, root.keys, root.pointers.as_bytes()].concat())
}

/// The region of a fork, and the field that names it; none where there is nothing to log.
fn fork_region(inode: &[u8], core: &Dinode, kind: ForkKind) -> Option<(InodeFields, Vec<u8>)> {
    let data = kind == ForkKind::Data;
    let pick = |d, a| if data { d } else { a };
    let fork = fork_bytes(inode, kind);
    let cut = |n: usize| fork.get(..n.min(fork.len())).filter(|b| !b.is_empty()).map(<[u8]>::to_vec);
    match core.format(kind)? {
        Format::Extents => {
            let n = usize::try_from(core.extents(kind)).unwrap_or(usize::MAX).saturating_mul(16);
            Some((pick(InodeFields::DEXT, InodeFields::AEXT), cut(n)?))
        }
        Format::Local => {
            let n = if data {
                usize::try_from(core.size.get()).unwrap_or(usize::MAX)
            } else {
                // An attribute fork begins with its length.
                usize::from(zerocopy::big_endian::U16::read_from_prefix(fork).ok()?.0.get())
            };
            let n = n.min(fork.len()).next_multiple_of(4);
            Some((pick(InodeFields::DDATA, InodeFields::ADATA), cut(n)?))
        }
        Format::Btree | Format::MetaBtree => {
            Some((pick(InodeFields::DBROOT, InodeFields::ABROOT), root_region(inode, core, kind)?))
        }
        Format::Dev | Format::Uuid => None,
    }
}

/// An inode as it is to be logged.
pub(super) struct InodeItem<'a> {
    pub(super) ino: Ino,
    pub(super) cluster: &'a BlockKey,
    pub(super) at: usize,
    pub(super) bytes: &'a [u8],
    /// Which forks changed.
    pub(super) forks: u32,
}

impl LogItem for InodeItem<'_> {
    fn key(&self) -> ItemKey {
        ItemKey::Inode(self.ino)
    }
    fn format(&self, covered: &[u32], out: &mut RegionWriter) -> Vec<u32> {
        let forks = self.forks | covered.first().copied().unwrap_or(0);
        let Some(core) = Dinode::from_bytes(self.bytes) else { return Vec::new() };
        let wanted = |kind, flag| if forks & flag != 0 { fork_region(self.bytes, core, kind) } else { None };
        let (data, attr) = (wanted(ForkKind::Data, DATA), wanted(ForkKind::Attr, ATTR));
        let mut fields = InodeFields::CORE;
        let mut format = InodeFormat::new_zeroed();
        if core.format(ForkKind::Data) == Some(Format::Dev) && forks & DATA != 0 {
            fields |= InodeFields::DEV;
            let number = Be32::read_from_prefix(fork_bytes(self.bytes, ForkKind::Data)).map_or(0, |(v, _)| v.get());
            if let Some(word) = format.u.first_chunk_mut::<4>() {
                *word = zerocopy::little_endian::U32::new(number).to_bytes();
            }
        }
        let length = |f: &Option<(InodeFields, Vec<u8>)>| f.as_ref().map_or(0, |(_, b)| b.len() as u16);
        fields |= [&data, &attr].into_iter().flatten().map(|(f, _)| *f).collect();
        format.kind.set(ItemType::Inode as u16);
        format.size.set(2 + u16::from(data.is_some()) + u16::from(attr.is_some()));
        format.fields.set(fields.bits());
        format.dsize.set(length(&data));
        format.asize.set(length(&attr));
        format.ino.set(self.ino.0);
        format.blkno.set(self.cluster.daddr().0 as i64);
        format.len.set((self.cluster.bytes() / 512) as i32);
        format.boffset.set(self.at as i32);
        out.region(&[format.as_bytes()]);
        out.region(&[LogDinode::of(core).as_bytes()]);
        for (_, bytes) in [data, attr].into_iter().flatten() {
            out.region(&[&bytes]);
        }
        vec![forks]
    }
}
