//! What an inode's forks hold beside extents: extended attributes and targets of symbolic links.

use super::Findings;
use super::datree::{self, Owner};
use super::inodes::{Flag, Table};
use crate::attr;
use crate::cache::{BlockRead, OnDamage};
use crate::error::{Corruption, Error, ForkKind, Rule, Severity};
use crate::format::Context;
use crate::format::attr::{
    ATTR_ANY, AttrFlags, AttrLeaf, LEAF_MAGIC, ShortAttrs, Value, hash_attr, verify_acl, verify_short,
};
use crate::format::inode::{Dinode, Format, fork_bytes};
use crate::format::symlink::SYMLINK;
use crate::inode::{Inode, file};
use crate::units::{Daddr, FileBlock, Ino};
use crate::volume::Volume;
use std::ops::ControlFlow;

/// Blocks with a header that a link's target of 1024 bytes needs at most.
const MOST_LINK_BLOCKS: u32 = 2;

struct Attrs<'a> {
    volume: &'a Volume,
    found: &'a Findings<'a>,
    table: &'a Table<'a>,
    slot: usize,
    inode: &'a Inode,
}

impl Owner for Attrs<'_> {
    const LEAF: u16 = LEAF_MAGIC;
    fn read(&self, at: u64) -> Option<BlockRead> {
        let read = self.found.go_on();
        let read = read.and_then(|()| attr::block(self.volume, self.inode, FileBlock(at), &ATTR_ANY, OnDamage::Keep));
        self.found.usable(read, &|field, rule| self.bad(field, rule, at))
    }
    fn bad(&self, field: &'static str, rule: Rule, at: u64) -> Box<Corruption> {
        Corruption::new("xattr", field, rule).in_inode(self.inode.ino).in_fork(ForkKind::Attr, Some(FileBlock(at)))
    }
    fn tell(&self, c: Box<Corruption>) {
        self.found.add(c.in_inode(self.inode.ino));
    }
    fn leaf(&mut self, at: u64, block: &BlockRead) -> Option<u32> {
        let leaf = AttrLeaf::from_bytes(block)?;
        if let Some(c) = leaf.odd_free_map() {
            self.tell(c.in_fork(ForkKind::Attr, Some(FileBlock(at))));
        }
        for e in leaf.entries {
            let a = match leaf.attr(e) {
                Ok(a) => a,
                Err(c) => {
                    self.table.set(self.slot, Flag::Partial);
                    self.tell(c.in_fork(ForkKind::Attr, Some(FileBlock(at))));
                    continue;
                }
            };
            if a.flags.contains(AttrFlags::INCOMPLETE) {
                // Left by a crash, invisible, and holding its blocks.
                let c = self.bad("flags", Rule::Flags, at).severity(Severity::CrossReference);
                self.tell(c.found(format_args!("{} is incomplete", crate::text::escape(a.name))).expected("complete"));
                continue;
            }
            let value = match a.value {
                Value::Local(v) => v.to_vec(),
                Value::Remote { block, length } => {
                    match attr::remote_value(self.volume, self.inode, FileBlock(block.into()), length) {
                        Ok(v) => v,
                        Err(e) => {
                            self.table.set(self.slot, Flag::Partial);
                            self.found.add_error(e, || self.bad("value", Rule::Unreadable, block.into()));
                            continue;
                        }
                    }
                }
            };
            self.table.pointers.attribute(self.slot, self.inode.ino, a.flags, a.name, &value);
            if let Err(c) = verify_acl(a.flags, a.name, &value) {
                self.tell(c.in_fork(ForkKind::Attr, Some(FileBlock(at))));
            }
            match hash_attr(&self.volume.geometry, a.flags, a.name, &value) {
                Some(h) if h != e.hashval.get() => {
                    let c = self.bad("hashval", Rule::Mismatch, at).found(format_args!("{:#x}", e.hashval));
                    self.tell(c.expected(format_args!("{h:#x} for {}", crate::text::escape(a.name))));
                }
                Some(_) => {}
                None => self.tell(self.bad("value", Rule::Range, at).found("a parent pointer of another size")),
            }
        }
        leaf.entries.last().map(|e| e.hashval.get())
    }
}

/// Checks attributes, and the target of a symbolic link.
pub(super) fn check(
    volume: &Volume,
    found: &Findings<'_>,
    table: &Table<'_>,
    slot: usize,
    ino: Ino,
    bytes: &[u8],
    core: &Dinode,
) {
    let attr = if core.has_attr_fork() { core.format(ForkKind::Attr) } else { None };
    if attr == Some(Format::Local) {
        let fork = fork_bytes(bytes, ForkKind::Attr);
        if let Err(c) = verify_short(fork, ino, &volume.geometry) {
            table.set(slot, Flag::Partial);
            found.add(c.in_inode(ino));
        }
        for a in ShortAttrs::new(fork).map_while(Result::ok) {
            if let Err(c) = verify_acl(a.flags, a.name, a.value) {
                found.add(c.in_inode(ino).in_fork(ForkKind::Attr, None));
            }
            table.pointers.attribute(slot, ino, a.flags, a.name, a.value);
        }
    }
    let blocks = matches!(attr, Some(Format::Extents | Format::Btree)) && core.extents(ForkKind::Attr) > 0;
    if !blocks && !core.is_symlink() {
        return;
    }
    let inode = Inode { ino, bytes: bytes.to_vec(), core: *core, damage: None };
    if blocks {
        let whole = datree::walk(&mut Attrs { volume, found, table, slot, inode: &inode }, 0);
        if !whole {
            table.set(slot, Flag::Partial);
        }
    }
    if core.is_symlink() {
        let at = |c: Box<Corruption>| c.in_inode(ino).in_fork(ForkKind::Data, None);
        match file::symlink_target(volume, &inode) {
            Ok(target) if target.contains(&0) => {
                let c = at(Corruption::new("symlink", "target", Rule::Name));
                found.add(c.found("a zero byte").expected("none inside the target"));
            }
            Ok(_) => each_link_block(volume, found, &inode, &mut |offset, _, block| {
                let bad = || Corruption::new("symlink", "lsn", Rule::Lsn).in_inode(ino);
                found.lsn((SYMLINK.lsn)(block), || bad().in_fork(ForkKind::Data, Some(offset)));
            }),
            Err(Error::Corrupt(c)) if c.rule == Rule::Owner => {
                found.add(at(c));
                each_link_block(volume, found, &inode, &mut |_, daddr, block| {
                    let place = Context::new(&volume.geometry, daddr).whoever_owns_it();
                    if let Err(c) = (SYMLINK.verify)(block, &place) {
                        found.add(at(c));
                    }
                });
            }
            Err(Error::Corrupt(c)) => found.add(at(c)),
            Err(other) => found.add_error(other, || at(Corruption::new("symlink", "target", Rule::Unreadable))),
        }
    }
}

/// Calls `each` with the blocks of a link's target, of which a target has at most as many; one that lies in the inode has none.
fn each_link_block(
    volume: &Volume,
    found: &Findings<'_>,
    inode: &Inode,
    each: &mut dyn FnMut(FileBlock, Daddr, &[u8]),
) {
    if inode.core.format(ForkKind::Data) == Some(Format::Local) {
        return;
    }
    let mut left = MOST_LINK_BLOCKS;
    let read = file::link_blocks(volume, inode, &mut |offset, daddr, block| {
        each(offset, daddr, block);
        left -= 1;
        Ok(if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    });
    if let Err(e) = read {
        found.add_error(e, || Corruption::new("symlink", "block", Rule::Unreadable).in_inode(inode.ino));
    }
}
