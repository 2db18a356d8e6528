//! Finding one name, through the index where there is one.

use super::{bad, block, for_each, require_directory};
use crate::cache::OnDamage;
use crate::error::{Error, ForkKind, Result, Rule};
use crate::format::da::{self, Node};
use crate::format::dir::{self, DIR_ANY, Leaf};
use crate::format::inode::Format;
use crate::inode::Inode;
use crate::units::{FileBlock, Ino};
use crate::volume::Volume;
use std::collections::HashSet;
use std::ops::ControlFlow;

/// The inode that a name leads to; none if the directory has no such name.
///
/// # Errors
/// When the inode is no directory, or a block on the way cannot be read or breaks a rule.
pub fn lookup(volume: &Volume, inode: &Inode, name: &[u8]) -> Result<Option<Ino>> {
    require_directory(inode)?;
    let g = &volume.geometry;
    if inode.core.format(ForkKind::Data) == Some(Format::Local) {
        return scan(volume, inode, name);
    }
    let hash = dir::hash_name(g, name);
    let start = dir::leaf_start(g);
    let Some(mut index) = block(volume, inode, start, &DIR_ANY, OnDamage::Fail)? else {
        // No index section: a single block.
        return scan(volume, inode, name);
    };
    let mut level = None;
    while da::magic_of(&index) == Some(da::NODE_MAGIC) {
        let bad_node = |field| bad(inode.ino, field, Rule::Range);
        let node = Node::from_bytes(&index).ok_or_else(|| bad_node("node"))?;
        let found = node.header.level.get();
        // Each level is one below its parent, so that nobody descends for ever.
        let right = level.map_or(found <= da::MAX_DEPTH, |l: u16| found + 1 == l);
        if !right || found == 0 {
            return Err(bad_node("level").found(found).into());
        }
        level = Some(found);
        let Some(entry) = node.find(hash).and_then(|i| node.entries.get(i)) else { return Ok(None) };
        let next = FileBlock(u64::from(entry.before.get()));
        index = read_index(volume, inode, next)?;
    }
    // Whatever the siblings say, no leaf is looked at twice.
    let mut seen = HashSet::new();
    loop {
        let leaf = Leaf::from_bytes(&index).ok_or_else(|| bad(inode.ino, "leaf", Rule::Truncated))?;
        for e in leaf.find(hash) {
            if let Some(ino) = matches(volume, inode, e.address.get(), name)? {
                return Ok(Some(ino));
            }
        }
        // Equal hashes may run on into the next leaf.
        let forw = leaf.header.info.forw.get();
        let last = leaf.entries.last().map(|e| e.hashval.get());
        if forw == 0 || last != Some(hash) {
            return Ok(None);
        }
        if !seen.insert(forw) {
            return Err(bad(inode.ino, "forw", Rule::Loop).into());
        }
        index = read_index(volume, inode, FileBlock(u64::from(forw)))?;
    }
}

fn read_index(volume: &Volume, inode: &Inode, at: FileBlock) -> Result<crate::cache::BlockRead> {
    let missing = || bad(inode.ino, "before", Rule::Missing).in_fork(ForkKind::Data, Some(at));
    if at < dir::leaf_start(&volume.geometry) {
        return Err(missing().into());
    }
    block(volume, inode, at, &DIR_ANY, OnDamage::Fail)?.ok_or_else(|| Error::from(missing()))
}

fn matches(volume: &Volume, inode: &Inode, address: u32, name: &[u8]) -> Result<Option<Ino>> {
    let g = &volume.geometry;
    let (at, offset) = dir::split_address(g, address);
    let Some(data) = block(volume, inode, at, &DIR_ANY, OnDamage::Fail)? else {
        return Err(bad(inode.ino, "address", Rule::Missing).in_fork(ForkKind::Data, Some(at)).into());
    };
    let e = dir::entry_at(&data, offset, g).map_err(|c| c.in_inode(inode.ino))?;
    Ok(dir::same_name(g, e.name, name).then_some(e.ino))
}

fn scan(volume: &Volume, inode: &Inode, name: &[u8]) -> Result<Option<Ino>> {
    let mut found = None;
    for_each(volume, inode, OnDamage::Fail, &mut |seen| {
        match seen {
            Ok((_, e)) if dir::same_name(&volume.geometry, e.name, name) => found = Some(Ok(e.ino)),
            Ok(_) => return ControlFlow::Continue(()),
            Err(e) => found = Some(Err(e)),
        }
        ControlFlow::Break(())
    })?;
    found.transpose()
}
