//! Changes of attributes as steps of a chain, and as the log has them.

use super::{How, Key, remove_key, set};
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::attr::{AttrFlags, MAX_NAME, MAX_VALUE, NAMESPACE, ParentRec};
use crate::format::inode::Dinode;
use crate::format::log::items::{AttrOp, AttriFormat, ItemType};
use crate::geometry::Geometry;
use crate::space::Space;
use crate::txn::{Deferred, Intent, Reservation, Transaction};
use crate::units::Ino;
use std::sync::Arc;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// A change of an attribute that is a step of a chain: it happens as surely as the transaction that defers it. Doing it twice is doing it once, for
/// recovery cannot know how far somebody got.
///
/// It may be deferred where the filesystem has parent pointers, or the log's feature for attributes was enabled
/// ([`Scope::enable_log_incompat`](crate::txn::Scope::enable_log_incompat)); where not, [`Transaction::defer`] refuses it.
pub struct Change {
    space: Arc<Space>,
    ino: Ino,
    /// Of the inode, where the operation says it.
    generation: Option<u32>,
    op: AttrOp,
    flags: AttrFlags,
    name: Vec<u8>,
    value: Vec<u8>,
    new_name: Vec<u8>,
    new_value: Vec<u8>,
    reservation: Reservation,
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut f = f.debug_struct("Change");
        f.field("ino", &self.ino).field("op", &self.op).field("name", &crate::text::escape(&self.name)).finish()
    }
}

fn bad(field: &'static str, rule: Rule) -> Box<Corruption> {
    Corruption::new("attri", field, rule)
}

impl Change {
    fn new(
        space: &Arc<Space>,
        g: &Geometry,
        ino: Ino,
        op: AttrOp,
        flags: AttrFlags,
        name: &[u8],
        value: &[u8],
    ) -> Result<Box<Self>> {
        Key::new(g, flags, name, value)?;
        let reservation = super::reservation(g, u32::try_from(value.len()).unwrap_or(MAX_VALUE));
        let (name, value) = (name.to_vec(), value.to_vec());
        let (new_name, new_value) = (Vec::new(), Vec::new());
        let space = space.clone();
        Ok(Box::new(Self { space, ino, generation: None, op, flags, name, value, new_name, new_value, reservation }))
    }
    /// Sets an attribute, whether there is one or not.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name or a value that cannot be.
    pub fn set(
        space: &Arc<Space>,
        g: &Geometry,
        ino: Ino,
        (flags, name): (AttrFlags, &[u8]),
        value: &[u8],
    ) -> Result<Box<Self>> {
        Self::new(space, g, ino, AttrOp::Replace, flags, name, value)
    }
    /// Removes an attribute, if there is one.
    ///
    /// # Errors
    /// As [`Change::set`].
    pub fn remove(space: &Arc<Space>, g: &Geometry, ino: Ino, (flags, name): (AttrFlags, &[u8])) -> Result<Box<Self>> {
        Self::new(space, g, ino, AttrOp::Remove, flags, name, &[])
    }
    /// Adds a parent pointer of an inode of that generation.
    ///
    /// # Errors
    /// As [`Change::set`].
    pub fn add_parent(
        space: &Arc<Space>,
        g: &Geometry,
        (ino, generation): (Ino, u32),
        name: &[u8],
        parent: &ParentRec,
    ) -> Result<Box<Self>> {
        let change = Self::new(space, g, ino, AttrOp::PptrSet, AttrFlags::PARENT, name, parent.as_bytes())?;
        Ok(Box::new(Self { generation: Some(generation), ..*change }))
    }
    /// Removes a parent pointer.
    ///
    /// # Errors
    /// As [`Change::set`].
    pub fn remove_parent(
        space: &Arc<Space>,
        g: &Geometry,
        (ino, generation): (Ino, u32),
        name: &[u8],
        parent: &ParentRec,
    ) -> Result<Box<Self>> {
        let change = Self::new(space, g, ino, AttrOp::PptrRemove, AttrFlags::PARENT, name, parent.as_bytes())?;
        Ok(Box::new(Self { generation: Some(generation), ..*change }))
    }
    /// Replaces a parent pointer by another.
    ///
    /// # Errors
    /// As [`Change::set`].
    pub fn replace_parent(
        space: &Arc<Space>,
        g: &Geometry,
        (ino, generation): (Ino, u32),
        (name, parent): (&[u8], &ParentRec),
        (new_name, new_parent): (&[u8], &ParentRec),
    ) -> Result<Box<Self>> {
        Key::new(g, AttrFlags::PARENT, new_name, new_parent.as_bytes())?;
        let change = Self::new(space, g, ino, AttrOp::PptrReplace, AttrFlags::PARENT, name, parent.as_bytes())?;
        let (new_name, new_value) = (new_name.to_vec(), new_parent.as_bytes().to_vec());
        let reservation = change.reservation.and(super::reservation(g, 0));
        Ok(Box::new(Self { generation: Some(generation), new_name, new_value, reservation, ..*change }))
    }

    /// The inode.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// From the regions of an intent that is not done.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for one that no kernel logs.
    pub fn from_logged(space: &Arc<Space>, g: &Geometry, regions: &[Vec<u8>]) -> Result<Box<Self>> {
        let (first, rest) = regions.split_first().ok_or_else(|| bad("size", Rule::Range))?;
        let (f, _) =
            AttriFormat::ref_from_prefix(first).map_err(|_| bad("size", Rule::Truncated).found(first.len()))?;
        let flags = f.op_flags.get();
        let op = AttrOp::from_flags(flags).filter(|_| flags & !0xff == 0);
        let op = op.ok_or_else(|| bad("op_flags", Rule::Flags).found(format_args!("{flags:#x}")))?;
        let parent = matches!(op, AttrOp::PptrSet | AttrOp::PptrRemove | AttrOp::PptrReplace);
        let filter = f.attr_filter.get();
        let space_flags = u8::try_from(filter).ok().and_then(AttrFlags::from_bits).map(|f| f - AttrFlags::INCOMPLETE);
        let space_flags = space_flags.filter(|f| NAMESPACE.contains(*f) && f.contains(AttrFlags::PARENT) == parent);
        let space_flags =
            space_flags.ok_or_else(|| bad("attr_filter", Rule::Flags).found(format_args!("{filter:#x}")))?;
        let (name_len, new_len) = match op {
            AttrOp::PptrReplace => (f.name_len.get() & 0xffff, f.name_len.get() >> 16),
            _ => (f.name_len.get(), 0),
        };
        let value_len = f.value_len.get();
        if name_len as usize > MAX_NAME || new_len as usize > MAX_NAME || value_len > MAX_VALUE {
            return Err(bad("name_len", Rule::Range).found(f.name_len).into());
        }
        let mut rest = rest.iter();
        let mut region = |length: u32, field| -> Result<Vec<u8>> {
            if length == 0 {
                return Ok(Vec::new());
            }
            let bytes = rest.next().and_then(|r| r.get(..length as usize));
            Ok(bytes.ok_or_else(|| bad(field, Rule::Truncated).expected(length))?.to_vec())
        };
        let name = region(name_len, "name_len")?;
        let new_name = region(new_len, "name_len")?;
        let value = region(value_len, "value_len")?;
        let new_value = if op == AttrOp::PptrReplace { region(value_len, "value_len")? } else { Vec::new() };
        let ino = Ino(f.ino.get());
        if g.ino_to_offset(ino).is_none() {
            return Err(bad("ino", Rule::Range).found(ino).into());
        }
        let broken = |e: Error| match e {
            Error::Invalid(what) => bad("name", Rule::Name).found(what).into(),
            other => other,
        };
        let mut change = Self::new(space, g, ino, op, space_flags, &name, &value).map_err(broken)?;
        if op == AttrOp::PptrReplace {
            Key::new(g, space_flags, &new_name, &new_value).map_err(broken)?;
            change.reservation = change.reservation.and(super::reservation(g, 0));
        }
        change.generation = parent.then(|| f.igen.get());
        (change.new_name, change.new_value) = (new_name, new_value);
        Ok(change)
    }

    /// Does it. An inode that is not there any more, or is another by now, has nothing to be changed.
    fn apply(&self, t: &mut Transaction<'_>) -> Result<()> {
        let core = Dinode::from_bytes(t.inode(self.ino)?).copied();
        let core = core.ok_or_else(|| bad("ino", Rule::Truncated).in_inode(self.ino))?;
        if core.is_free() || self.generation.is_some_and(|g| g != core.generation.get()) {
            return Ok(());
        }
        match self.op {
            AttrOp::Set | AttrOp::Replace | AttrOp::PptrSet => self.put(t, &self.name, &self.value),
            AttrOp::Remove | AttrOp::PptrRemove => self.take(t),
            AttrOp::PptrReplace => {
                self.take(t)?;
                self.put(t, &self.new_name, &self.new_value)
            }
        }
    }

    fn put(&self, t: &mut Transaction<'_>, name: &[u8], value: &[u8]) -> Result<()> {
        set(t, &self.space, self.ino, (self.flags, name), value, How::Upsert).map(|_| ())
    }

    fn take(&self, t: &mut Transaction<'_>) -> Result<()> {
        let key = Key::new(t.geometry(), self.flags, &self.name, &self.value)?;
        match remove_key(t, &self.space, self.ino, &key) {
            Err(Error::NotFound(_)) => Ok(()),
            other => other,
        }
    }
}

impl Deferred for Change {
    fn kind(&self) -> ItemType {
        ItemType::Attri
    }
    fn intent(&self, id: u64) -> Intent {
        let mut f = AttriFormat::new_zeroed();
        let length = |b: &[u8]| u32::try_from(b.len()).unwrap_or(u32::MAX);
        let regions = [&self.name, &self.new_name, &self.value, &self.new_value];
        let present = regions.into_iter().filter(|r| !r.is_empty());
        f.kind = U16::new(ItemType::Attri as u16);
        f.igen = U32::new(self.generation.unwrap_or(0));
        f.id = U64::new(id);
        f.ino = U64::new(self.ino.0);
        f.op_flags = U32::new(self.op as u32);
        f.name_len = U32::new(length(&self.name) | length(&self.new_name) << 16);
        f.value_len = U32::new(length(&self.value));
        f.attr_filter = U32::new(self.flags.bits().into());
        let mut all = vec![Vec::new()];
        all.extend(present.cloned());
        f.size = U16::new(u16::try_from(all.len()).unwrap_or(u16::MAX));
        if let Some(first) = all.first_mut() {
            *first = f.as_bytes().to_vec();
        }
        Intent::from_regions(ItemType::Attri, id, all)
    }
    fn done(&self, id: u64) -> Intent {
        Intent::finished(ItemType::Attrd, id)
    }
    fn reservation(&self) -> Reservation {
        self.reservation
    }
    fn run(self: Box<Self>, t: &mut Transaction<'_>) -> Result<Option<Box<dyn Deferred>>> {
        self.apply(t)?;
        Ok(None)
    }
}
