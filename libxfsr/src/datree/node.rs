//! Blocks of the tree by their bytes: levels, entries of nodes, siblings.

use super::{Blocks, Leaf};
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::da::{self, BlockInfo, MAX_DEPTH, NODE_MAGIC, Node, NodeEntry, NodeHeader};
use crate::units::FileBlock;
use zerocopy::{FromBytes, IntoBytes};

pub(super) fn bad<B: Blocks>(b: &B, field: &'static str, rule: Rule, at: FileBlock) -> Error {
    b.locate(Corruption::new("datree", field, rule), at).into()
}

fn short() -> Error {
    Error::invalid("a block that is too short for its header")
}

/// A file block as blocks name each other.
pub(super) fn word(at: FileBlock) -> Result<u32> {
    u32::try_from(at.0).map_err(|_| Error::NoSpace(format!("no block of a tree can be at file block {at}")))
}

/// The level of a block: 0 for a leaf.
pub(super) fn level<L: Leaf>(bytes: &[u8]) -> Option<u16> {
    match da::magic_of(bytes)? {
        NODE_MAGIC => Node::from_bytes(bytes).map(|n| n.header.level.get()).filter(|l| (1..=MAX_DEPTH).contains(l)),
        m if m == L::MAGIC => Some(0),
        _ => None,
    }
}

/// Most entries of a node of so many bytes.
pub(super) fn capacity(bytes: usize) -> usize {
    bytes.saturating_sub(size_of::<NodeHeader>()) / size_of::<NodeEntry>()
}

/// A copy of a node's entries.
pub(super) fn entries(bytes: &[u8]) -> Vec<NodeEntry> {
    Node::from_bytes(bytes).map(|n| n.entries.to_vec()).unwrap_or_default()
}

/// Gives a node other entries.
pub(super) fn set_entries(bytes: &mut [u8], entries: &[NodeEntry]) -> Result<()> {
    let (header, rest) = NodeHeader::mut_from_prefix(bytes).map_err(|_| short())?;
    let count = u16::try_from(entries.len()).map_err(|_| Error::invalid("too many entries for a node"))?;
    let room = rest.get_mut(..size_of_val(entries)).ok_or_else(|| Error::invalid("too many entries for a node"))?;
    room.copy_from_slice(entries.as_bytes());
    header.count.set(count);
    Ok(())
}

/// Makes a node of that level with one entry of a block that has a header.
pub(super) fn make_root(bytes: &mut [u8], level: u16, only: NodeEntry) -> Result<()> {
    bytes.get_mut(size_of::<BlockInfo>()..).ok_or_else(short)?.fill(0);
    let (header, _) = NodeHeader::mut_from_prefix(bytes).map_err(|_| short())?;
    header.info.magic.set(NODE_MAGIC);
    header.info.forw.set(0);
    header.info.back.set(0);
    header.level.set(level);
    set_entries(bytes, &[only])
}

/// The siblings of a block: the one before it and the one behind it; 0 for none.
pub(super) fn siblings(bytes: &[u8]) -> (u32, u32) {
    BlockInfo::ref_from_prefix(bytes).map_or((0, 0), |(i, _)| (i.back.get(), i.forw.get()))
}

/// Changes siblings.
pub(super) fn set_siblings(bytes: &mut [u8], back: Option<u32>, forw: Option<u32>) -> Result<()> {
    let (info, _) = BlockInfo::mut_from_prefix(bytes).map_err(|_| short())?;
    if let Some(back) = back {
        info.back.set(back);
    }
    if let Some(forw) = forw {
        info.forw.set(forw);
    }
    Ok(())
}

/// Replaces all of a block but what says who it is: what stands behind its header, and the magic number.
pub(super) fn copy_contents(to: &mut [u8], from: &[u8]) -> Result<()> {
    let magic = da::magic_of(from).ok_or_else(short)?;
    let at = size_of::<BlockInfo>();
    let (Some(to_rest), Some(from_rest)) = (to.get_mut(at..), from.get(at..)) else { return Err(short()) };
    if to_rest.len() != from_rest.len() {
        return Err(Error::invalid("blocks of one tree have one size"));
    }
    to_rest.copy_from_slice(from_rest);
    let (info, _) = BlockInfo::mut_from_prefix(to).map_err(|_| short())?;
    info.magic.set(magic);
    Ok(())
}

/// Puts a block into the chain of its level, behind `left`.
pub(super) fn link<B: Blocks>(b: &mut B, left: FileBlock, new: FileBlock) -> Result<()> {
    let (_, forw) = siblings(b.block(left)?);
    set_siblings(b.block_mut(left)?, None, Some(word(new)?))?;
    set_siblings(b.block_mut(new)?, Some(word(left)?), Some(forw))?;
    if forw != 0 {
        neighbour(b, left, FileBlock(forw.into()), |bytes| siblings(bytes).0)?;
        set_siblings(b.block_mut(FileBlock(forw.into()))?, Some(word(new)?), None)?;
    }
    Ok(())
}

/// Takes a block out of the chain of its level.
pub(super) fn unlink<B: Blocks>(b: &mut B, at: FileBlock) -> Result<()> {
    let (back, forw) = siblings(b.block(at)?);
    if back != 0 {
        neighbour(b, at, FileBlock(back.into()), |bytes| siblings(bytes).1)?;
        set_siblings(b.block_mut(FileBlock(back.into()))?, None, Some(forw))?;
    }
    if forw != 0 {
        neighbour(b, at, FileBlock(forw.into()), |bytes| siblings(bytes).0)?;
        set_siblings(b.block_mut(FileBlock(forw.into()))?, Some(back), None)?;
    }
    Ok(())
}

/// That the neighbour of a block has the block for its own, and is of its level.
fn neighbour<B: Blocks>(b: &mut B, at: FileBlock, other: FileBlock, pointer: fn(&[u8]) -> u32) -> Result<()> {
    let level = |bytes: &[u8]| (da::magic_of(bytes), Node::from_bytes(bytes).map(|n| n.header.level.get()));
    let mine = level(b.block(at)?);
    let bytes = b.block(other)?;
    let (found, theirs) = (pointer(bytes), level(bytes));
    let same = mine.0 == theirs.0 && (mine.0 != Some(NODE_MAGIC) || mine.1 == theirs.1);
    if u64::from(found) == at.0 && same {
        return Ok(());
    }
    let c = Corruption::new("datree", "sibling", Rule::Mismatch).found(found).expected(at);
    Err(b.locate(c, other).into())
}
