//! A btree from the current block downwards, level by level.

use super::address::{at_block, at_file_block};
use crate::field::{Leaf, Link, select};
use crate::fields;
use crate::location::{Location, Type};
use crate::out::say;
use crate::session::{Outcome, Session};
use libxfsr::control::Control;
use libxfsr::error::ForkKind;
use libxfsr::format::attr::LEAF_MAGIC;
use libxfsr::format::da::NODE_MAGIC;
use libxfsr::format::dir::{LEAF1_MAGIC, LEAFN_MAGIC};
use libxfsr::text::escape;
use libxfsr::units::{AgBlock, FileBlock, FsBlock, NULL_AGBLOCK, NULL_FSBLOCK};
use std::collections::HashSet;

/// No btree has so many levels.
const MAX_LEVELS: u64 = 16;

/// `btdump [-a] [-i]`.
pub(crate) fn btdump(s: &mut Session, a: &[String]) -> Outcome {
    let (mut attr, mut internal) = (false, false);
    for o in a {
        match o.as_str() {
            "-a" => attr = true,
            "-i" => internal = true,
            "-ai" | "-ia" => (attr, internal) = (true, true),
            o => return Err(format!("bad option for btdump: {}", escape(o.as_bytes()))),
        }
    }
    let s = &*s;
    let here = s.here()?;
    let dump = Dump { s, internal };
    match here.kind {
        Type::Inode => {
            let root = dump.inode(here, attr)?;
            s.watched(|control| dump.tree(root, control))
        }
        _ if attr => Err("attr forks only exist for inodes".into()),
        Type::Dir3 | Type::Attr3 => s.watched(|control| dump.names(here.clone(), control)),
        kind if pointer_size(kind).is_some() => s.watched(|control| dump.tree(here.clone(), control)),
        kind => Err(format!("type \"{}\" is not a btree type or inode", kind.name())),
    }
}

/// Bytes of a pointer in this type of btree; none for what is none.
fn pointer_size(kind: Type) -> Option<usize> {
    match kind {
        Type::Bnobt | Type::Cntbt | Type::Inobt | Type::Finobt | Type::Rmapbt | Type::Refcntbt => Some(4),
        Type::Bmapbtd | Type::Bmapbta => Some(8),
        _ => None,
    }
}

/// A big-endian number in a block.
fn big(bytes: &[u8], at: usize, size: usize) -> u64 {
    let field = bytes.get(at..at + size).unwrap_or_default();
    field.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

struct Dump<'a> {
    s: &'a Session,
    /// Nodes too.
    internal: bool,
}

impl Dump<'_> {
    /// The first value of a field, as a place to go to.
    fn link(&self, l: &Location, field: &str) -> Result<Link, String> {
        let lines = fields::lines(&self.s.volume, l.kind, &l.bytes).ok_or("the block has no fields")?;
        let found = select(&lines.0, field)?;
        match found.first().map(|l| &l.leaf) {
            Some(Leaf::One(v)) => Ok(v.link),
            Some(Leaf::List { items, .. }) => items.first().map(|v| v.link).ok_or_else(|| format!("no {field}")),
            _ => Err(format!("no {field}")),
        }
    }

    fn print(&self, l: &Location, names: &[&str]) {
        let Some(lines) = fields::lines(&self.s.volume, l.kind, &l.bytes) else { return };
        let mut out = String::new();
        // A block without records has no such field.
        for found in names.iter().filter_map(|n| select(&lines.0, n).ok()) {
            found.iter().for_each(|l| l.render(&mut out));
        }
        self.s.out.text(&out);
    }

    fn head(&self, l: &Location, level: u64, number: usize) {
        say!(self.s, "{} level {level} block {number} daddr {}", l.kind.name(), l.daddr);
    }

    /// The block below the root in an inode.
    fn inode(&self, here: &Location, attr: bool) -> Result<Location, String> {
        let (fork, name) = if attr { ("a.bmbt", "attr") } else { ("u3.bmbt", "data") };
        let Ok(Link::FsBlock(block, kind)) = self.link(here, &format!("{fork}.ptrs[1]")) else {
            return Err(format!("{name} fork not in btree format"));
        };
        if self.internal {
            self.print(here, &[&format!("{fork}.keys"), &format!("{fork}.ptrs")]);
        }
        at_block(self.s, FsBlock(block), kind)
    }

    /// All levels from that block down: in each the first block and those to its right.
    fn tree(&self, mut first: Location, control: &Control<'_>) -> Outcome {
        let Some(size) = pointer_size(first.kind) else { return Err("the inode's root points to no btree".into()) };
        let g = &self.s.volume.geometry;
        let magic = big(&first.bytes, 0, 4);
        let level_of = |l: &Location| big(&l.bytes, 4, 2);
        let mut level = level_of(&first);
        if level >= MAX_LEVELS {
            return Err(format!("level {level} in block at daddr {}: no btree is so high", first.daddr));
        }
        loop {
            let mut block = first.clone();
            let mut seen = HashSet::new();
            let shown = level == 0 || self.internal;
            loop {
                if !shown {
                    break;
                }
                control.check().map_err(|e| e.to_string())?;
                if self.s.out.broken() {
                    return Ok(());
                }
                if !seen.insert(block.daddr) {
                    return Err(format!("the blocks of level {level} go round at daddr {}", block.daddr));
                }
                self.head(&block, level, seen.len());
                self.print(&block, if level > 0 { &["keys", "ptrs"] } else { &["recs"] });
                let right = big(&block.bytes, 8 + size, size);
                if right == if size == 4 { u64::from(NULL_AGBLOCK) } else { NULL_FSBLOCK } {
                    break;
                }
                let fsb = match g.daddr_to_ag(block.daddr) {
                    Some((ag, _)) if size == 4 => g.join(ag, AgBlock(u32::try_from(right).unwrap_or(u32::MAX))),
                    _ => FsBlock(right),
                };
                block = self.below(fsb, first.kind, magic, level)?;
            }
            if level == 0 {
                return Ok(());
            }
            level -= 1;
            let fsb = match self.link(&first, "ptrs[1]")? {
                Link::FsBlock(b, _) => FsBlock(b),
                Link::AgBlock(b, _) => {
                    let (ag, _) = g.daddr_to_ag(first.daddr).ok_or("the block lies outside the filesystem")?;
                    g.join(ag, AgBlock(u32::try_from(b).unwrap_or(u32::MAX)))
                }
                _ => return Err("a pointer that leads nowhere".into()),
            };
            first = self.below(fsb, first.kind, magic, level)?;
        }
    }

    fn below(&self, fsb: FsBlock, kind: Type, magic: u64, level: u64) -> Result<Location, String> {
        let l = at_block(self.s, fsb, kind)?;
        if big(&l.bytes, 0, 4) != magic || big(&l.bytes, 4, 2) != level {
            return Err(format!("fsblock {fsb} is no block of level {level} of this {}", kind.name()));
        }
        Ok(l)
    }

    /// As [`Self::tree`], for the hashes of names of a directory or of attributes.
    fn names(&self, mut first: Location, control: &Control<'_>) -> Outcome {
        let (fork, node, leaf): (_, _, &[&str]) = match first.kind {
            Type::Dir3 => (ForkKind::Data, "nbtree", &["lents"]),
            _ => (ForkKind::Attr, "btree", &["entries", "nvlist"]),
        };
        let level_of = |l: &Location| match u16::try_from(big(&l.bytes, 8, 2)) {
            Ok(NODE_MAGIC) => Some(big(&l.bytes, 58, 2)).filter(|n| (1..16).contains(n)),
            Ok(LEAF1_MAGIC | LEAFN_MAGIC | LEAF_MAGIC) => Some(0),
            _ => None,
        };
        let mut level = level_of(&first).ok_or("Current location is not part of a dir/attr btree.")?;
        let read = |block: FileBlock, level: u64| -> Result<Location, String> {
            let l = at_file_block(self.s, block, fork)?;
            if level_of(&l) == Some(level) {
                return Ok(l);
            }
            Err(format!("file block {block} is no block of level {level} of this tree"))
        };
        loop {
            let mut block = first.clone();
            let mut seen = HashSet::new();
            let shown = level == 0 || self.internal;
            loop {
                if !shown {
                    break;
                }
                control.check().map_err(|e| e.to_string())?;
                if self.s.out.broken() {
                    return Ok(());
                }
                if !seen.insert(block.daddr) {
                    return Err(format!("the blocks of level {level} go round at daddr {}", block.daddr));
                }
                self.head(&block, level, seen.len());
                self.print(&block, if level > 0 { std::slice::from_ref(&node) } else { leaf });
                match big(&block.bytes, 0, 4) {
                    0 => break,
                    right => block = read(FileBlock(right), level)?,
                }
            }
            if level == 0 {
                return Ok(());
            }
            level -= 1;
            first = match self.link(&first, &format!("{node}[0].before"))? {
                Link::Data(b) | Link::Attr(b) => read(b, level)?,
                _ => return Err("a pointer that leads nowhere".into()),
            };
        }
    }
}
