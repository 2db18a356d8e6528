//! The extent map of a fork, whichever form it has.

use crate::btree::{self, Ptr, Root, Store, Width, kinds::Bmap};
use crate::cache::{BlockRef, Keep, OnDamage, Want};
use crate::error::{Corruption, ForkKind, Result, Rule};
use crate::format::BlockType;
use crate::format::btree::{
    BMBT, BMBT_BLOCK, BmbtKey, Extent, Layout, RTREFCOUNT, RTREFCOUNTBT_BLOCK, RTRMAP, RTRMAPBT_BLOCK,
};
use crate::format::inode::{Dinode, Format, MetaType, extents_in_fork, fork_bytes};
use crate::units::{FsBlock, Ino};
use crate::volume::Volume;
use std::ops::ControlFlow;
use zerocopy::big_endian::U64;

/// A btree of a realtime group, whose root is in a metadata file's inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetaTree {
    /// Reverse mappings.
    Rmap,
    /// Reference counts.
    Refcount,
}

impl MetaTree {
    /// The tree that an inode holds; none where it is another kind of file.
    pub fn of(core: &Dinode) -> Option<Self> {
        match core.metatype()? {
            MetaType::RtRmap => Some(Self::Rmap),
            MetaType::RtRefcount => Some(Self::Refcount),
            _ => None,
        }
    }
}

/// A btree whose root is in the inode: the extents of a fork, or a realtime group's tree.
#[derive(Debug)]
pub struct ForkStore<'v> {
    volume: &'v Volume,
    ino: Ino,
    kind: ForkKind,
    root: Box<[u8]>,
    block_type: &'static BlockType,
    layout: Layout,
}

impl<'v> ForkStore<'v> {
    /// From the inode's bytes; whether its format is `Btree` is for the caller to know.
    pub fn new(volume: &'v Volume, ino: Ino, inode: &[u8], kind: ForkKind) -> Self {
        Self { volume, ino, kind, root: fork_bytes(inode, kind).into(), block_type: &BMBT_BLOCK, layout: BMBT }
    }
    /// A realtime group's tree, from the bytes of the inode that holds it in its data fork.
    pub fn metadata(volume: &'v Volume, ino: Ino, inode: &[u8], tree: MetaTree) -> Self {
        let (block_type, layout) = match tree {
            MetaTree::Rmap => (&RTRMAPBT_BLOCK, RTRMAP),
            MetaTree::Refcount => (&RTREFCOUNTBT_BLOCK, RTREFCOUNT),
        };
        Self { block_type, layout, ..Self::new(volume, ino, inode, ForkKind::Data) }
    }
}

impl Store for ForkStore<'_> {
    fn width(&self) -> Width {
        Width::Long
    }
    fn block_type(&self) -> &'static BlockType {
        self.block_type
    }
    fn layout(&self) -> Layout {
        self.layout
    }
    fn block_size(&self) -> usize {
        self.volume.geometry.block_size as usize
    }
    fn root(&self) -> Result<Root> {
        Ok(Root::Inline(self.root.clone()))
    }
    fn read(&self, at: Ptr, damage: OnDamage, keep: Keep) -> Result<BlockRef<'_>> {
        let want = Want::new(self.block_type, damage).owned_by(self.ino).keep(keep);
        Ok(self.volume.block(FsBlock(at.0), &want)?.into())
    }
    fn readahead(&self, blocks: &mut dyn Iterator<Item = Ptr>) {
        self.volume.readahead(blocks.map(|p| self.volume.geometry.split(FsBlock(p.0))));
    }
    fn locate(&self, c: Box<Corruption>, at: Option<Ptr>) -> Box<Corruption> {
        let c = c.in_inode(self.ino).in_fork(self.kind, None);
        match at {
            Some(p) => {
                let (ag, agbno) = self.volume.geometry.split(FsBlock(p.0));
                c.in_ag(ag, Some(agbno))
            }
            None => c,
        }
    }
}

/// Calls `each` with the extents of a fork that touch file blocks `first..=last`, in order, until it breaks. A fork without
/// extents (local, device) has none.
///
/// # Errors
/// When the extent btree cannot be read or breaks a rule.
pub fn extents(
    volume: &Volume,
    ino: Ino,
    inode: &[u8],
    kind: ForkKind,
    (first, last): (u64, u64),
    each: &mut dyn FnMut(&Extent) -> ControlFlow<()>,
) -> Result<()> {
    let core =
        Dinode::from_bytes(inode).ok_or_else(|| Corruption::new("inode", "core", Rule::Truncated).in_inode(ino))?;
    match core.format(kind) {
        Some(Format::Extents) => {
            for e in extents_in_fork(fork_bytes(inode, kind), core.extents(kind)) {
                if e.offset <= last && e.offset.saturating_add(e.count) > first && each(&e).is_break() {
                    break;
                }
            }
            Ok(())
        }
        Some(Format::Btree) => {
            let store = ForkStore::new(volume, ino, inode, kind);
            let key = |b| BmbtKey { startoff: U64::new(b) };
            btree::query::<Bmap, _>(&store, &key(first), &key(last), &mut |r| each(&r.extent()))
        }
        _ => Ok(()),
    }
}

/// All extents of a fork.
///
/// # Errors
/// As [`extents`].
pub fn all_extents(volume: &Volume, ino: Ino, inode: &[u8], kind: ForkKind) -> Result<Vec<Extent>> {
    let mut all = Vec::new();
    extents(volume, ino, inode, kind, (0, u64::MAX), &mut |e| {
        all.push(*e);
        ControlFlow::Continue(())
    })?;
    Ok(all)
}
