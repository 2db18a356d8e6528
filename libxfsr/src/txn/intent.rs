//! Intents: what a transaction promises that later ones will do, and that recovery does where they did not.

use super::item::{ItemKey, LogItem, RegionWriter};
use super::{Reservation, Transaction};
use crate::error::{Error, Result};
use crate::format::features::{Features, LogIncompat};
use crate::format::log::items::{DoneFormat, EfiExtent, EfiFormat, ItemType, MapExtent, PhysExtent, RuiFormat};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

/// One step of a chain, and what is still to do after it. The intent is logged with the transaction that defers it, so that either all of
/// the chain happens or nothing; each step runs in a transaction of its own, which logs that the intent is done.
pub trait Deferred: Send {
    /// Which intent logs it.
    fn kind(&self) -> ItemType;
    /// The intent, under that number.
    fn intent(&self, id: u64) -> Intent;
    /// The item that says that it is done.
    fn done(&self, id: u64) -> Intent;
    /// What its transaction may log.
    fn reservation(&self) -> Reservation;
    /// Does it, or a part: what is left is logged anew and goes on in the next transaction. Blocks of the transaction before are unlocked by
    /// then, inodes are not.
    ///
    /// # Errors
    /// Whatever happens; as the intent is logged already, no transaction can be committed after that, and recovery has to finish the chain.
    fn run(self: Box<Self>, t: &mut Transaction<'_>) -> Result<Option<Box<dyn Deferred>>>;
}

/// An intent or its done item, as it is to be logged.
#[derive(Clone, Debug)]
pub struct Intent {
    kind: ItemType,
    id: u64,
    regions: Vec<Vec<u8>>,
}

impl LogItem for Intent {
    fn key(&self) -> ItemKey {
        if self.kind.is_intent() { ItemKey::Intent(self.id) } else { ItemKey::Done(self.id) }
    }
    fn format(&self, _covered: &[u32], out: &mut RegionWriter) -> Vec<u32> {
        self.regions.iter().for_each(|r| out.region(&[r]));
        Vec::new()
    }
}

impl Intent {
    /// From regions that are right already, of which the first says what it is.
    pub fn from_regions(kind: ItemType, id: u64, regions: Vec<Vec<u8>>) -> Self {
        Self { kind, id, regions }
    }

    fn with_extents<T: IntoBytes + Immutable>(kind: ItemType, id: u64, extents: &[T]) -> Self {
        let n = U32::new(extents.len() as u32);
        let head = RuiFormat { kind: U16::new(kind as u16), size: U16::new(1), nextents: n, id: U64::new(id) };
        Self { kind, id, regions: vec![[head.as_bytes(), extents.as_bytes()].concat()] }
    }

    /// Extents to free, or that were freed: [`ItemType::Efi`], [`ItemType::Efd`] and those of the realtime device. Start and length in
    /// filesystem blocks.
    pub fn extents(kind: ItemType, id: u64, extents: &[(u64, u32)]) -> Self {
        let n = U32::new(extents.len() as u32);
        let head = EfiFormat { kind: U16::new(kind as u16), size: U16::new(1), nextents: n, id: U64::new(id) };
        let extent = |e: &(u64, u32)| EfiExtent { start: U64::new(e.0), len: U32::new(e.1), pad: U32::new(0) };
        let extents: Vec<EfiExtent> = extents.iter().map(extent).collect();
        Self { kind, id, regions: vec![[head.as_bytes(), extents.as_bytes()].concat()] }
    }
    /// Changes of mappings: [`ItemType::Rui`], [`ItemType::Bui`].
    pub fn mappings(kind: ItemType, id: u64, extents: &[MapExtent]) -> Self {
        Self::with_extents(kind, id, extents)
    }
    /// Changes of reference counts: [`ItemType::Cui`].
    pub fn refcounts(kind: ItemType, id: u64, extents: &[PhysExtent]) -> Self {
        Self::with_extents(kind, id, extents)
    }
    /// That an intent is done: all kinds but [`ItemType::Efd`] and that of the realtime device.
    pub fn finished(kind: ItemType, id: u64) -> Self {
        let done = DoneFormat { kind: U16::new(kind as u16), size: U16::new(1), pad: U32::new(0), id: U64::new(id) };
        Self { kind, id, regions: vec![done.as_bytes().to_vec()] }
    }
}

/// Whether a filesystem with those features may have that intent in its log: an older kernel, which may recover it, must know it.
///
/// # Errors
/// [`Error::Unsupported`] with the missing feature.
pub(super) fn allowed(kind: ItemType, features: &Features) -> Result<()> {
    let (has, feature) = match kind {
        ItemType::Rui => (features.rmapbt(), "reverse mappings"),
        ItemType::Cui => (features.reflink(), "reference counts"),
        ItemType::Bui => (features.rmapbt() || features.reflink(), "reverse mappings or reference counts"),
        ItemType::Attri => (
            features.parent() || features.log_incompat.contains(LogIncompat::XATTRS),
            "parent pointers or logged attributes",
        ),
        ItemType::Xmi => (features.exchange_range(), "exchange of mappings"),
        ItemType::EfiRt | ItemType::RuiRt | ItemType::CuiRt => (features.metadir(), "realtime groups"),
        _ => (true, ""),
    };
    if has { Ok(()) } else { Err(Error::unsupported(format!("the filesystem has no {feature}"))) }
}
