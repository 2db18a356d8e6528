//! Blocks of the cache, how they are asked for and how they are seen.

use super::{BlockKey, Checkpoint, LogGate};
use crate::error::{Corruption, Rule, Verdict};
use crate::format::{BlockType, Context};
use crate::geometry::Geometry;
use crate::units::{Ino, Lsn};
use parking_lot::{ArcRwLockReadGuard, ArcRwLockWriteGuard, RawRwLock};

/// Whether a block equals what the target holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockState {
    /// Equal.
    Clean,
    /// Changed; first and last checkpoint that describe the change.
    Dirty {
        /// First.
        oldest: Checkpoint,
        /// Last.
        newest: Checkpoint,
    },
    /// Could not be read; nobody may use it.
    Failed,
}

/// A part of a block that has LSN and checksum of its own, and was changed: an inode of a cluster, a quota record.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// Its first byte in the block.
    pub at: usize,
    /// Its length.
    pub len: usize,
    /// Stamps LSN and CRC.
    pub seal: fn(&mut [u8], Lsn),
    /// The last checkpoint that describes a change of it.
    pub newest: Checkpoint,
}

/// A block in the cache.
#[derive(Debug)]
pub struct Block {
    /// Its bytes.
    pub bytes: Box<[u8]>,
    /// What it was verified as.
    pub kind: &'static BlockType,
    /// The inode that it was verified to belong to.
    pub owner: Option<u64>,
    /// Clean or dirty.
    pub state: BlockState,
    /// What verification found.
    pub damage: Option<Box<Corruption>>,
    /// Which of its parts changed since it was written, where parts carry their own LSN.
    pub objects: Vec<Object>,
}

impl Block {
    /// Marks it as changed by that checkpoint.
    pub fn changed(&mut self, at: Checkpoint) {
        self.state = match self.state {
            BlockState::Dirty { oldest, newest } => {
                BlockState::Dirty { oldest: oldest.min(at), newest: newest.max(at) }
            }
            _ => BlockState::Dirty { oldest: at, newest: at },
        };
    }
    /// Marks a part of it as changed.
    pub fn object_changed(&mut self, object: Object) {
        self.changed(object.newest);
        match self.objects.iter_mut().find(|o| o.at == object.at && o.len == object.len) {
            Some(o) => *o = object,
            None => self.objects.push(object),
        }
    }
    /// Stamps LSNs and checksums.
    pub(super) fn seal(&mut self, newest: Checkpoint, gate: &dyn LogGate) {
        (self.kind.seal)(&mut self.bytes, gate.lsn(newest));
        for o in self.objects.drain(..) {
            if let Some(part) = self.bytes.get_mut(o.at..o.at.saturating_add(o.len)) {
                (o.seal)(part, gate.lsn(o.newest));
            }
        }
    }
}

/// What to do with a block that fails its verifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnDamage {
    /// Return the corruption as an error.
    Fail,
    /// Return the bytes together with the corruption: check and repair want both.
    Keep,
}

/// Whether the cache keeps a block that it did not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// For the next who asks.
    Yes,
    /// This reader wants the block once: a pass over everything neither fills the cache nor drives out what others need.
    No,
}

/// What a reader wants of a block.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// What it is to be verified as.
    pub kind: &'static BlockType,
    /// The inode that it must belong to, where the reader knows.
    pub owner: Option<u64>,
    /// What to do with a damaged one.
    pub damage: OnDamage,
    /// Whether the cache keeps it.
    pub keep: Keep,
}

impl Want {
    /// A block of that type, whoever it belongs to; the cache keeps it.
    pub fn new(kind: &'static BlockType, damage: OnDamage) -> Self {
        Self { kind, owner: None, damage, keep: Keep::Yes }
    }
    /// One that must belong to `ino`.
    #[must_use]
    pub fn owned_by(self, ino: Ino) -> Self {
        Self { owner: Some(ino.0), ..self }
    }
    /// The same, kept or not.
    #[must_use]
    pub fn keep(self, keep: Keep) -> Self {
        Self { keep, ..self }
    }
    pub(super) fn verify(&self, bytes: &[u8], key: &BlockKey, g: &Geometry) -> Verdict {
        let at = Context { owner: self.owner, ..Context::new(g, key.daddr()) };
        (self.kind.verify)(bytes, &at)
    }
    /// What is wrong beside the owner, which a verifier looks at before the contents.
    pub(super) fn beside_owner(
        &self,
        found: Option<&Corruption>,
        bytes: &[u8],
        key: &BlockKey,
        g: &Geometry,
    ) -> Verdict {
        match found {
            Some(c) if c.rule == Rule::Owner => {
                (self.kind.verify)(bytes, &Context::new(g, key.daddr()).whoever_owns_it())
            }
            _ => Ok(()),
        }
    }
}

/// A shared block and what verification found.
#[derive(Debug)]
pub struct BlockRead {
    pub(super) guard: ArcRwLockReadGuard<RawRwLock, Block>,
    pub(super) damage: Option<Box<Corruption>>,
    pub(super) beside_owner: Option<Box<Corruption>>,
}

impl BlockRead {
    /// The block's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.guard.bytes
    }
    /// The LSN that it carries, where its type has one.
    pub fn lsn(&self) -> Option<Lsn> {
        (self.guard.kind.lsn)(&self.guard.bytes)
    }
    /// What its verifier found; always none with [`OnDamage::Fail`].
    pub fn damage(&self) -> Option<&Corruption> {
        self.damage.as_deref()
    }
    /// Where the block says that it belongs to somebody else: what its verifier finds in its contents.
    pub fn damage_beside_owner(&self) -> Option<&Corruption> {
        self.beside_owner.as_deref()
    }
}

impl std::ops::Deref for BlockRead {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.guard.bytes
    }
}

/// A block as a reader sees it: a shared one, or one that the reader's own transaction has locked to change it.
#[derive(Debug)]
pub enum BlockRef<'a> {
    /// The transaction's own, with what it has changed.
    Own(&'a Block),
    /// A shared one.
    Shared(BlockRead),
}

impl BlockRef<'_> {
    /// The LSN that it carries, where its type has one.
    pub fn lsn(&self) -> Option<Lsn> {
        match self {
            Self::Own(b) => (b.kind.lsn)(&b.bytes),
            Self::Shared(b) => b.lsn(),
        }
    }
    /// What its verifier found; always none with [`OnDamage::Fail`].
    pub fn damage(&self) -> Option<&Corruption> {
        match self {
            Self::Own(b) => b.damage.as_deref(),
            Self::Shared(b) => b.damage(),
        }
    }
    /// As [`BlockRead::damage_beside_owner`].
    pub fn damage_beside_owner(&self) -> Option<&Corruption> {
        match self {
            Self::Own(_) => None,
            Self::Shared(b) => b.damage_beside_owner(),
        }
    }
}

impl std::ops::Deref for BlockRef<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(b) => &b.bytes,
            Self::Shared(b) => b,
        }
    }
}

impl From<BlockRead> for BlockRef<'_> {
    fn from(b: BlockRead) -> Self {
        Self::Shared(b)
    }
}

/// An exclusively locked block.
pub type BlockWrite = ArcRwLockWriteGuard<RawRwLock, Block>;
