//! Extended attributes: all of them, or one by name, on a volume or as a transaction sees them; [`change`] sets and removes them.

pub mod change;
pub mod linux;

use crate::cache::{BlockRead, BlockRef, OnDamage, Want};
use crate::error::{Corruption, Error, ForkKind, Result, Rule};
use crate::format::BlockType;
use crate::format::attr::{
    self as format, ATTR_ANY, ATTR_REMOTE, AttrFlags, AttrLeaf, LEAF_MAGIC, ParentRec, ShortAttrs, Value,
};
use crate::format::da::{self, Node};
use crate::format::inode::{Dinode, Format, fork_bytes};
use crate::format::part;
use crate::inode::{ForkMut, Inode, file};
use crate::units::{FileBlock, Ino};
use crate::volume::Volume;
use std::collections::HashSet;
use std::ops::ControlFlow;

/// An attribute with its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attr {
    /// Its flags, which say its namespace.
    pub flags: AttrFlags,
    /// Its name without the namespace: raw bytes, to be escaped before they are shown.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// Name of POSIX ACLs on disk (in the namespace `trusted`) and in Linux.
const ACLS: [(&[u8], &[u8]); 2] =
    [(b"SGI_ACL_FILE", b"system.posix_acl_access"), (b"SGI_ACL_DEFAULT", b"system.posix_acl_default")];

impl Attr {
    /// The name under which Linux shows it: with its namespace. None for a parent pointer, which it does not show.
    pub fn linux_name(&self) -> Option<Vec<u8>> {
        if self.flags.contains(AttrFlags::PARENT) {
            return None;
        }
        Some([self.flags.namespace().as_bytes(), b".", &self.name].concat())
    }
    /// Where it holds a POSIX ACL, the name under which Linux shows that.
    pub fn acl_name(&self) -> Option<&'static [u8]> {
        let root = self.flags.contains(AttrFlags::ROOT);
        ACLS.iter().find(|(disk, _)| root && *disk == self.name).map(|(_, linux)| *linux)
    }
    /// Where it holds a POSIX ACL, the value that Linux shows under [`Attr::acl_name`]: `linux/posix_acl_xattr.h`. None for another attribute, and
    /// for a value that is no ACL.
    ///
    /// On disk stand the number of entries, then tag and id (4 bytes each), permissions and padding (2 each), all big-endian. Linux shows its version (2), then
    /// of each entry tag and permissions (2 each) and the id, all little-endian; an entry that names nobody has an id of all ones there.
    pub fn acl_value(&self) -> Option<Vec<u8>> {
        self.acl_name()?;
        let (count, entries) = self.value.split_first_chunk::<4>()?;
        let (entries, rest) = entries.as_chunks::<12>();
        if !rest.is_empty()
            || usize::try_from(zerocopy::big_endian::U32::from_bytes(*count).get()).ok()? != entries.len()
        {
            return None;
        }
        let mut out = vec![2, 0, 0, 0];
        for [_, _, tag_high, tag, id @ .., permissions_high, permissions, _, _] in entries {
            // A user or a group by its number; of all others the number means nothing.
            let named = matches!((tag_high, tag), (0, 2 | 8));
            out.extend([*tag, *tag_high, *permissions, *permissions_high]);
            out.extend(if named { id.iter().rev().copied().collect() } else { vec![0xff; 4] });
        }
        Some(out)
    }
    /// The parent directory and its generation, where this is a parent pointer; its name is that of the entry there.
    pub fn parent(&self) -> Option<(Ino, u32)> {
        let p = ParentRec::from_value(&self.value).filter(|_| self.flags.contains(AttrFlags::PARENT))?;
        Some((Ino(p.ino.get()), p.generation.get()))
    }
}

fn bad(ino: Ino, field: &'static str, rule: Rule, at: Option<FileBlock>) -> Box<Corruption> {
    Corruption::new("xattr", field, rule).in_inode(ino).in_fork(ForkKind::Attr, at)
}

/// One block of the attribute fork.
///
/// # Errors
/// As [`crate::cache::BufCache::read`]; a hole, and a block that belongs to another inode, are an [`Error::Corrupt`].
pub fn block(
    volume: &Volume,
    inode: &Inode,
    at: FileBlock,
    kind: &'static BlockType,
    damage: OnDamage,
) -> Result<BlockRead> {
    file::block(volume, inode, ForkKind::Attr, (at, 1), &Want::new(kind, damage))?
        .ok_or_else(|| bad(inode.ino, "block", Rule::Missing, Some(at)).into())
}

/// Where an inode's attributes are read: on a volume, or through a transaction.
trait Source {
    fn ino(&self) -> Ino;
    fn core(&mut self) -> Result<Dinode>;
    /// The bytes of the fork in the inode.
    fn fork(&mut self) -> Result<Vec<u8>>;
    fn block(&mut self, at: FileBlock, kind: &'static BlockType, damage: OnDamage) -> Result<BlockRef<'_>>;
}

struct OnVolume<'a>(&'a Volume, &'a Inode);

impl Source for OnVolume<'_> {
    fn ino(&self) -> Ino {
        self.1.ino
    }
    fn core(&mut self) -> Result<Dinode> {
        Ok(self.1.core)
    }
    fn fork(&mut self) -> Result<Vec<u8>> {
        Ok(fork_bytes(&self.1.bytes, ForkKind::Attr).to_vec())
    }
    fn block(&mut self, at: FileBlock, kind: &'static BlockType, damage: OnDamage) -> Result<BlockRef<'_>> {
        block(self.0, self.1, at, kind, damage).map(BlockRef::from)
    }
}

impl Source for ForkMut<'_, '_> {
    fn ino(&self) -> Ino {
        ForkMut::ino(self)
    }
    fn core(&mut self) -> Result<Dinode> {
        ForkMut::core(self)
    }
    fn fork(&mut self) -> Result<Vec<u8>> {
        let ino = ForkMut::ino(self);
        Ok(fork_bytes(self.t().inode(ino)?, ForkKind::Attr).to_vec())
    }
    fn block(&mut self, at: FileBlock, kind: &'static BlockType, damage: OnDamage) -> Result<BlockRef<'_>> {
        let (ino, key) = (ForkMut::ino(self), self.block_key(at, 1)?);
        self.t().read(&key, &Want::new(kind, damage).owned_by(ino))
    }
}

type Each<'e> = &'e mut dyn FnMut(Result<Attr>) -> ControlFlow<()>;

/// Calls `each` with every attribute until it breaks; incomplete ones are left out. What cannot be read is handed over as an
/// error; what can still be found follows.
///
/// # Errors
/// When the attribute fork's format or extent map breaks a rule.
pub fn for_each(
    volume: &Volume,
    inode: &Inode,
    damage: OnDamage,
    each: &mut dyn FnMut(Result<Attr>) -> ControlFlow<()>,
) -> Result<()> {
    for_each_from(&mut OnVolume(volume, inode), damage, each)
}

fn for_each_from(source: &mut impl Source, damage: OnDamage, each: Each<'_>) -> Result<()> {
    let (core, ino) = (source.core()?, source.ino());
    match core.format(ForkKind::Attr) {
        None if !core.has_attr_fork() => Ok(()),
        Some(Format::Local) => {
            for a in ShortAttrs::new(&source.fork()?) {
                let a = a
                    .map(|a| Attr { flags: a.flags, name: a.name.to_vec(), value: a.value.to_vec() })
                    .map_err(|c| Error::from(c.in_inode(ino)));
                if each(a).is_break() {
                    break;
                }
            }
            Ok(())
        }
        Some(Format::Extents | Format::Btree) => {
            if core.extents(ForkKind::Attr) > 0 {
                leaves(source, damage, each)?;
            }
            Ok(())
        }
        _ => Err(bad(ino, "aformat", Rule::Flags, None).found(core.aformat).into()),
    }
}

/// Goes down to the first leaf, then along the leaves.
fn leaves(source: &mut impl Source, damage: OnDamage, each: Each<'_>) -> Result<()> {
    let (mut at, ino) = (FileBlock(0), source.ino());
    let mut level = None;
    let mut seen = HashSet::new();
    loop {
        // Whatever the pointers say, no block is visited twice.
        if !seen.insert(at) {
            return Err(bad(ino, "forw", Rule::Loop, Some(at)).into());
        }
        // A copy, for values are read through the same source.
        let b = source.block(at, &ATTR_ANY, damage)?.to_vec();
        match da::magic_of(&b) {
            Some(da::NODE_MAGIC) => {
                let node = Node::from_bytes(&b).ok_or_else(|| bad(ino, "node", Rule::Truncated, Some(at)))?;
                let found = node.header.level.get();
                if level.is_some_and(|l: u16| found.checked_add(1) != Some(l)) || found == 0 {
                    return Err(bad(ino, "level", Rule::Range, Some(at)).found(found).into());
                }
                level = Some(found);
                let first = node.entries.first().ok_or_else(|| bad(ino, "count", Rule::Range, Some(at)))?;
                at = FileBlock(u64::from(first.before.get()));
            }
            Some(LEAF_MAGIC) => {
                let leaf = AttrLeaf::from_bytes(&b).ok_or_else(|| bad(ino, "leaf", Rule::Truncated, Some(at)))?;
                level = Some(1);
                for a in leaf.attrs() {
                    let a = match a {
                        Ok(a) if a.flags.contains(AttrFlags::INCOMPLETE) => continue,
                        Ok(a) => match a.value {
                            Value::Local(v) => Ok(v.to_vec()),
                            Value::Remote { block, length } => {
                                remote_value_from(source, FileBlock(u64::from(block)), length)
                            }
                        }
                        .map(|value| Attr {
                            flags: a.flags - AttrFlags::LOCAL,
                            name: a.name.to_vec(),
                            value,
                        }),
                        Err(c) => Err(c.in_inode(ino).in_fork(ForkKind::Attr, Some(at)).into()),
                    };
                    if each(a).is_break() {
                        return Ok(());
                    }
                }
                match leaf.header.info.forw.get() {
                    0 => return Ok(()),
                    forw => at = FileBlock(u64::from(forw)),
                }
            }
            _ => return Err(bad(ino, "magic", Rule::Magic, Some(at)).into()),
        }
    }
}

/// A value that lies in blocks of its own.
///
/// # Errors
/// [`Error::Corrupt`] where a block is missing or is not the part that is expected there.
pub fn remote_value(volume: &Volume, inode: &Inode, first: FileBlock, length: u32) -> Result<Vec<u8>> {
    remote_value_from(&mut OnVolume(volume, inode), first, length)
}

fn remote_value_from(source: &mut impl Source, first: FileBlock, length: u32) -> Result<Vec<u8>> {
    let ino = source.ino();
    if length > format::MAX_VALUE {
        return Err(bad(ino, "valuelen", Rule::Range, None).found(length).expected("at most 65536").into());
    }
    let length = length as usize;
    let mut value = Vec::with_capacity(length);
    let mut at = first;
    while value.len() < length {
        let b = source.block(at, &ATTR_REMOTE, OnDamage::Fail)?;
        let (offset, part) = part::payload(&b).ok_or_else(|| bad(ino, "bytes", Rule::Range, Some(at)))?;
        if offset as usize != value.len() || part.is_empty() || part.len() > length - value.len() {
            return Err(bad(ino, "offset", Rule::Mismatch, Some(at)).found(offset).expected(value.len()).into());
        }
        value.extend_from_slice(part);
        at = FileBlock(at.0 + 1);
    }
    Ok(value)
}

/// All attributes, parent pointers too.
///
/// # Errors
/// As [`for_each`], and the first attribute that cannot be read.
pub fn list(volume: &Volume, inode: &Inode) -> Result<Vec<Attr>> {
    list_from(&mut OnVolume(volume, inode))
}

fn list_from(source: &mut impl Source) -> Result<Vec<Attr>> {
    let (mut all, mut failed) = (Vec::new(), None);
    for_each_from(source, OnDamage::Fail, &mut |a| match a {
        Ok(a) => {
            all.push(a);
            ControlFlow::Continue(())
        }
        Err(e) => {
            failed = Some(e);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(all), Err)
}

/// The value of one attribute; none if there is no such. `flags` are those of its namespace.
///
/// # Errors
/// As [`list`].
pub fn get(volume: &Volume, inode: &Inode, flags: AttrFlags, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut found = None;
    for_each(volume, inode, OnDamage::Fail, &mut |a| {
        match a {
            Ok(a) if a.name == name && a.flags & format::NAMESPACE == flags & format::NAMESPACE => {
                found = Some(Ok(a.value));
            }
            Ok(_) => return ControlFlow::Continue(()),
            Err(e) => found = Some(Err(e)),
        }
        ControlFlow::Break(())
    })?;
    found.transpose()
}
