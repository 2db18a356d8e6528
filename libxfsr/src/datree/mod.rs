//! The tree of hashes above the leaves of attributes and of large directories, changed in place.
//!
//! A *leaf* holds entries in the order of their hashes; a *node* holds, for each block below it, the highest hash there and the block's
//! place in the fork. The blocks of a level are chained both ways. The root stays where it is for ever: when it grows, what it held moves to a
//! new block; when one block is left below it, that moves into it. A tree of one leaf has no node.
//!
//! One hash may fill several leaves, so who looks for an entry looks at all leaves that may have its hash ([`each_with_hash`]). Hashes of
//! nodes are the highest *present*, so a change of a leaf's last entry is told to the blocks above ([`fix_hash`]).
//!
//! What a leaf holds is the [`Leaf`]'s business, where blocks live that of the [`Blocks`]: a fork that is changed in a transaction
//! ([`ForkBlocks`]). Blocks are joined below one parent only. Depth is bounded by the level of the root, and levels are checked on the way
//! down, so that no damage makes it go in circles. After an error in the middle the caller cancels its transaction.
//!
//! Book: chapters "Directories" (node directories), "Extended Attributes".

mod fork;
mod grow;
mod node;
mod path;
mod shrink;

pub use fork::ForkBlocks;
pub use grow::split;
pub use path::{Path, Step, each_with_hash, find, fix_hash, next};
pub use shrink::shrink;

use crate::error::{Corruption, Result};
use crate::format::BlockType;
use crate::units::FileBlock;

/// What is in the leaves of a tree. All functions take whole blocks that are verified.
pub trait Leaf {
    /// Type of a leaf.
    const KIND: &'static BlockType;
    /// Its magic number.
    const MAGIC: u16;
    /// Makes a leaf without entries of a block that is zero but for its [`BlockInfo`](crate::format::da::BlockInfo).
    fn init(leaf: &mut [u8]);
    /// The highest hash; none in a leaf without entries.
    fn last_hash(leaf: &[u8]) -> Option<u32>;
    /// Whether it has so few entries that it should be joined with a neighbour.
    fn is_small(leaf: &[u8]) -> bool;
    /// Whether the entries of both find room in one leaf, with some to spare.
    fn fit(left: &[u8], right: &[u8]) -> bool;
    /// Puts the entries of `right` behind those of `left`, for which there is room. The headers' siblings are not looked at.
    ///
    /// # Errors
    /// A leaf that is damaged.
    fn append(left: &mut [u8], right: &[u8]) -> Result<()>;
}

/// The blocks of a tree.
pub trait Blocks {
    /// Where the root is.
    fn root(&self) -> FileBlock;
    /// A block of the tree, verified.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) for a hole, and for a block that is damaged or of another kind; I/O errors.
    fn block(&mut self, at: FileBlock) -> Result<&[u8]>;
    /// The same to change.
    ///
    /// # Errors
    /// As [`Blocks::block`].
    fn block_mut(&mut self, at: FileBlock) -> Result<&mut [u8]>;
    /// A new block behind the root, zero but for its header: magic number, own address, UUID and owner.
    ///
    /// # Errors
    /// [`Error::NoSpace`](crate::Error::NoSpace); I/O errors.
    fn create(&mut self, kind: &'static BlockType, magic: u16) -> Result<FileBlock>;
    /// A block becomes one of another type. Its bytes are changed already.
    ///
    /// # Errors
    /// I/O errors.
    fn set_kind(&mut self, at: FileBlock, kind: &'static BlockType) -> Result<()>;
    /// Frees a block.
    ///
    /// # Errors
    /// As [`Blocks::block`].
    fn free(&mut self, at: FileBlock, kind: &'static BlockType) -> Result<()>;
    /// Says in a corruption where it was found.
    fn locate(&self, c: Box<Corruption>, at: FileBlock) -> Box<Corruption>;
}

#[cfg(test)]
mod tests;
