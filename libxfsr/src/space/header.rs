//! The headers of an AG in a transaction.

use crate::cache::{BlockKey, OnDamage, Want};
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::BlockType;
use crate::format::ag::{AGF, AGFL, AGI, Agf, Agfl, Agi};
use crate::txn::Transaction;
use crate::units::{AgBlock, AgNumber};
use crate::volume::Volume;
use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Sectors of the headers.
pub(super) const AGF_SECTOR: u32 = 1;
pub(super) const AGI_SECTOR: u32 = 2;
const AGFL_SECTOR: u32 = 3;

pub(super) fn key(volume: &Volume, ag: AgNumber, sector: u32) -> BlockKey {
    let g = &volume.geometry;
    BlockKey::one(volume.data, g.header_daddr(ag, sector), g.sector_size / 512)
}

fn want(kind: &'static BlockType) -> Want {
    Want::new(kind, OnDamage::Fail)
}

fn short() -> Error {
    Error::invalid("an AG header is shorter than its structure")
}

fn read<T: FromBytes>(t: &Transaction<'_>, ag: AgNumber, sector: u32, kind: &'static BlockType) -> Result<T> {
    let block = t.read(&key(t.volume(), ag, sector), &want(kind))?;
    T::read_from_prefix(&block).map(|(h, _)| h).map_err(|_| short())
}

fn change<T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned, R>(
    t: &mut Transaction<'_>,
    (ag, sector): (AgNumber, u32),
    kind: &'static BlockType,
    change: impl FnOnce(&mut T, &mut [u8]) -> R,
) -> Result<R> {
    let key = key(t.volume(), ag, sector);
    let (header, rest) = T::mut_from_prefix(t.block_mut(&key, &want(kind))?).map_err(|_| short())?;
    Ok(change(header, rest))
}

/// Locks an AG's free space.
pub(super) fn lock_agf(t: &mut Transaction<'_>, ag: AgNumber) -> Result<()> {
    if ag.0 >= t.geometry().ag_count {
        return Err(Corruption::new("agf", "seqno", Rule::Range).in_ag(ag, None).found(ag).into());
    }
    let key = key(t.volume(), ag, AGF_SECTOR);
    t.block(&key, &want(&AGF)).map(|_| ())
}

pub(super) fn agf(t: &Transaction<'_>, ag: AgNumber) -> Result<Agf> {
    read(t, ag, AGF_SECTOR, &AGF)
}

pub(super) fn change_agf<R>(t: &mut Transaction<'_>, ag: AgNumber, act: impl FnOnce(&mut Agf) -> R) -> Result<R> {
    change(t, (ag, AGF_SECTOR), &AGF, |agf, _| act(agf))
}

/// Locks an AG's inodes.
pub(crate) fn lock_agi(t: &mut Transaction<'_>, ag: AgNumber) -> Result<()> {
    if ag.0 >= t.geometry().ag_count {
        return Err(Corruption::new("agi", "seqno", Rule::Range).in_ag(ag, None).found(ag).into());
    }
    let key = key(t.volume(), ag, AGI_SECTOR);
    t.block(&key, &want(&AGI)).map(|_| ())
}

pub(crate) fn agi(t: &Transaction<'_>, ag: AgNumber) -> Result<Agi> {
    read(t, ag, AGI_SECTOR, &AGI)
}

pub(crate) fn change_agi<R>(t: &mut Transaction<'_>, ag: AgNumber, act: impl FnOnce(&mut Agi) -> R) -> Result<R> {
    change(t, (ag, AGI_SECTOR), &AGI, |agi, _| act(agi))
}

/// A slot of the free list.
pub(super) fn agfl_slot(t: &mut Transaction<'_>, ag: AgNumber, slot: u32) -> Result<AgBlock> {
    let key = key(t.volume(), ag, AGFL_SECTOR);
    let slots = crate::format::ag::agfl_slots(t.block(&key, &want(&AGFL))?);
    slots.get(slot as usize).map(|b| AgBlock(b.get())).ok_or_else(short)
}

pub(super) fn set_agfl_slot(t: &mut Transaction<'_>, ag: AgNumber, slot: u32, block: AgBlock) -> Result<()> {
    change(t, (ag, AGFL_SECTOR), &AGFL, |_: &mut Agfl, rest| {
        let at = rest.chunks_exact_mut(4).nth(slot as usize).and_then(|b| b.first_chunk_mut::<4>());
        *at.ok_or_else(short)? = U32::new(block.0).to_bytes();
        Ok(())
    })?
}

/// Adds to one of a header's numbers.
pub(crate) fn add(structure: &'static str, field: &'static str, number: &mut U32, by: i64, ag: AgNumber) -> Result<()> {
    let sum = i64::from(number.get()).checked_add(by).and_then(|n| u32::try_from(n).ok());
    let sum = sum.ok_or_else(|| {
        let c = Corruption::new(structure, field, Rule::Count).in_ag(ag, None).found(*number);
        c.expected(format_args!("a number that can change by {by}"))
    })?;
    number.set(sum);
    Ok(())
}
