//! Physical replay: what committed transactions changed is put where it belongs.
//!
//! Two passes. The first notes which buffers were freed later ("cancelled"), because what was logged of them before must not
//! overwrite what stands there now. The second replays, each transaction in this order: buffers and new inode chunks, then
//! inodes, quota records and intents, then inode clusters (of which only the unlinked pointers count), then cancellations.
//!
//! What the disk has is newer than an item where its LSN is a later one. Where both are the same the item is replayed: all
//! checkpoints that start in one record have one LSN, any of them may be the one that the disk has, and all that
//! follow it are still in the log. Blocks get an LSN, and go to the disk, when the last checkpoint with it is replayed.
//!
//! Intents that have no done item come back as data: to finish them takes allocation and btrees.

mod buffers;
mod inode;
mod objects;

use super::records::{End, whole_records};
use super::transactions::{Item, Transactions};
use crate::control::Control;
use crate::error::{Corruption, Result, Rule};
use crate::format::inode::{CRC_OFFSET, Dinode, INODE_CLUSTER, MAGIC, NEXT_UNLINKED_OFFSET};
use crate::format::log::items::{BUF_CHUNK, BufFlags, BufFormat, ItemType, buf_item, buf_runs};
use crate::format::seal_checksum;
use crate::target::Target;
use crate::units::{BASIC_BLOCK, Daddr, Ino, Lsn};
use crate::volume::Volume;
use buffers::Buffers;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

/// How the journal names the blocks that directories have; the last also the nodes of attribute forks.
const DIRECTORY_TYPES: std::ops::RangeInclusive<u8> = 10..=15;

/// An intent that nothing in the log says is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingIntent {
    /// Which kind.
    pub kind: ItemType,
    /// Its number.
    pub id: u64,
    /// The transaction that logged it.
    pub lsn: Lsn,
    /// Its regions.
    pub regions: Vec<Vec<u8>>,
}

/// What replay did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Done {
    /// Committed transactions.
    pub transactions: u64,
    /// Transactions without an end, left out.
    pub unfinished: u64,
    /// Buffers that were changed.
    pub buffers: u64,
    /// Inodes.
    pub inodes: u64,
    /// Quota records.
    pub dquots: u64,
    /// New chunks of inodes.
    pub chunks: u64,
    /// Items of which the disk had something newer.
    pub newer: u64,
    /// Items of blocks that were freed later.
    pub cancelled: u64,
}

/// What is left to do after replay.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Intents to finish, oldest first.
    pub pending: Vec<PendingIntent>,
    /// Where the log ends.
    pub end: End,
    /// What was done.
    pub done: Done,
    /// Transactions that begin with numbers from here on are none of those that a crash has left without an end.
    pub free_tid: u32,
    /// Buffers that may be pieces of a directory block, which has one checksum over all of them; with the LSN of the last change.
    pub pieces: BTreeMap<Daddr, Lsn>,
    /// Directories that were logged, where there are such pieces.
    pub directories: BTreeSet<Ino>,
}

struct Replay<'a> {
    buffers: Buffers<'a>,
    /// How often a buffer was cancelled in what is still to come.
    cancelled: HashMap<(u64, u64), u32>,
    /// In the order of the log. The numbers of intents are no order, and come again.
    pending: BTreeMap<u64, PendingIntent>,
    /// Where each number stands in it.
    by_id: HashMap<u64, u64>,
    logged: u64,
    done: Done,
    pieces: BTreeMap<Daddr, Lsn>,
    directories: BTreeSet<Ino>,
}

/// Replays the volume's log onto `target`, which shows the data device's contents: the device itself, or an overlay over it.
///
/// # Errors
/// [`Error::Corrupt`](crate::Error::Corrupt) where the log cannot be replayed as it is: nothing has been written then, unless an item
/// itself turns out to be wrong; [`Error::Unsupported`](crate::Error::Unsupported) for a log of a big-endian machine; I/O errors;
/// [`Error::Stopped`](crate::Error::Stopped).
pub fn replay(volume: &Volume, target: &dyn Target, control: &Control<'_>) -> Result<Replayed> {
    replay_if(volume, target, control, &mut |_| Ok(()))
}

/// As [`replay`], but before anything is written `accept` is told which kinds of intents will be pending.
///
/// # Errors
/// As [`replay`]; what `accept` returns.
pub fn replay_if(
    volume: &Volume,
    target: &dyn Target,
    control: &Control<'_>,
    accept: &mut dyn FnMut(&BTreeSet<ItemType>) -> Result<()>,
) -> Result<Replayed> {
    let mut replay = Replay {
        buffers: Buffers::new(target, &volume.geometry),
        cancelled: HashMap::new(),
        pending: BTreeMap::new(),
        by_id: HashMap::new(),
        logged: 0,
        done: Done::default(),
        pieces: BTreeMap::new(),
        directories: BTreeSet::new(),
    };
    const GO: ControlFlow<()> = ControlFlow::Continue(());
    let mut transactions = Transactions::of(volume);
    let mut intents: HashMap<u64, ItemType> = HashMap::new();
    whole_records(volume, control, &mut |record| {
        transactions.add(record, &mut |items| {
            replay.note_cancelled(items)?;
            for item in items {
                intents.extend(item.id().map(|id| (id, item.kind)));
                item.done_id().map(|id| intents.remove(&id));
            }
            Ok(GO)
        })
    })?;
    accept(&intents.into_values().collect())?;
    let mut transactions = Transactions::of(volume);
    let mut group = Lsn(0);
    let end = whole_records(volume, control, &mut |record| {
        transactions.add(record, &mut |items| {
            if let Some(first) = items.first()
                && first.lsn != group
            {
                replay.buffers.write(group)?;
                group = first.lsn;
            }
            replay.transaction(items)?;
            Ok(GO)
        })
    })?;
    replay.buffers.write(group)?;
    replay.done.unfinished = transactions.unfinished() as u64;
    Ok(Replayed {
        pending: replay.pending.into_values().collect(),
        end,
        free_tid: transactions.free_tid(),
        done: replay.done,
        directories: if replay.pieces.is_empty() { BTreeSet::new() } else { replay.directories },
        pieces: replay.pieces,
    })
}

fn buffer(format: &BufFormat) -> Result<(Daddr, u64)> {
    Ok((inode::daddr(format.blkno.get())?, u64::from(format.len.get())))
}

impl Replay<'_> {
    fn is_cancelled(&self, at: Daddr, sectors: u64) -> bool {
        self.cancelled.contains_key(&(at.0, sectors))
    }

    fn note_cancelled(&mut self, items: &[Item<'_>]) -> Result<()> {
        for item in items.iter().filter(|i| i.kind == ItemType::Buf) {
            let (format, _) = buf_item(item.regions.first().map_or(&[], Vec::as_slice))?;
            if format.flags().contains(BufFlags::CANCEL) {
                let (at, sectors) = buffer(format)?;
                *self.cancelled.entry((at.0, sectors)).or_default() += 1;
            }
        }
        Ok(())
    }

    fn transaction(&mut self, items: &[Item<'_>]) -> Result<()> {
        self.done.transactions += 1;
        let rank = |item: &Item<'_>| -> Result<u8> {
            Ok(match item.kind {
                ItemType::Icreate => 0,
                ItemType::Buf => {
                    let (format, _) = buf_item(item.regions.first().map_or(&[], Vec::as_slice))?;
                    match format.flags() {
                        f if f.contains(BufFlags::CANCEL) => 3,
                        f if f.contains(BufFlags::INODE_BUF) => 2,
                        _ => 0,
                    }
                }
                _ => 1,
            })
        };
        let ranks = items.iter().map(rank).collect::<Result<Vec<u8>>>()?;
        for now in 0..4 {
            for (item, _) in items.iter().zip(&ranks).filter(|(_, r)| **r == now) {
                self.item(item)?;
            }
        }
        Ok(())
    }

    fn item(&mut self, item: &Item<'_>) -> Result<()> {
        match item.kind {
            ItemType::Buf => self.buffer(item),
            ItemType::Inode => self.inode(item),
            ItemType::Dquot => self.dquot(item),
            ItemType::Icreate => self.chunk(item),
            kind if kind.is_intent() => {
                if let Some(id) = item.id() {
                    let regions = item.regions.to_vec();
                    self.logged += 1;
                    self.pending.insert(self.logged, PendingIntent { kind, id, lsn: item.lsn, regions });
                    self.by_id.insert(id, self.logged);
                }
                Ok(())
            }
            _ => {
                if let Some(at) = item.done_id().and_then(|id| self.by_id.remove(&id)) {
                    self.pending.remove(&at);
                }
                Ok(())
            }
        }
    }

    fn buffer(&mut self, item: &Item<'_>) -> Result<()> {
        let Some((first, regions)) = item.regions.split_first() else { return Ok(()) };
        let (format, map) = buf_item(first)?;
        let (at, sectors) = buffer(format)?;
        let flags = format.flags();
        if flags.contains(BufFlags::CANCEL) {
            // From here on the block may be anything else.
            if let Some(n) = self.cancelled.get_mut(&(at.0, sectors)) {
                *n -= 1;
                if *n == 0 {
                    self.cancelled.remove(&(at.0, sectors));
                }
            }
            return Ok(());
        }
        if self.is_cancelled(at, sectors) {
            self.done.cancelled += 1;
            return Ok(());
        }
        if self.buffers.written_with(at, sectors)?.is_some_and(|l| l > item.lsn) {
            self.done.newer += 1;
            return Ok(());
        }
        let logged: Vec<u8> = regions.concat();
        let mut logged = logged.as_slice();
        let inode_size = self.buffers.geometry.inode_size as usize;
        let bytes = self.buffers.get(at, sectors)?;
        for (chunk, count) in buf_runs(map) {
            let (start, length) = (chunk * BUF_CHUNK, count * BUF_CHUNK);
            let range = || Corruption::new("log", "map", Rule::Range).at_daddr(at).found(chunk + count);
            let (region, rest) = logged.split_at_checked(length).ok_or_else(range)?;
            logged = rest;
            // The last chunk may reach over the end of a buffer that does not divide by chunks; no buffer of whole sectors does.
            let to = bytes.get_mut(start..start + length).ok_or_else(range)?;
            if flags.contains(BufFlags::INODE_BUF) {
                unlinked_pointers(bytes, start, region, inode_size);
            } else {
                to.copy_from_slice(region);
            }
        }
        let kind = if flags.contains(BufFlags::INODE_BUF) { INODE_CLUSTER.log_type } else { format.block_type() };
        self.buffers.changed(at, kind);
        let g = self.buffers.geometry;
        let length = sectors * BASIC_BLOCK;
        if DIRECTORY_TYPES.contains(&kind) && g.dir_block_size > g.block_size && length < u64::from(g.dir_block_size) {
            self.pieces.insert(at, item.lsn);
        }
        self.done.buffers += 1;
        Ok(())
    }
}

/// Of a logged piece of an inode cluster only the unlinked pointers are taken: all else is logged with the inodes.
fn unlinked_pointers(cluster: &mut [u8], start: usize, region: &[u8], inode_size: usize) {
    for inode in cluster.chunks_mut(inode_size.max(1)).enumerate() {
        let (n, inode) = inode;
        let at = n * inode_size + NEXT_UNLINKED_OFFSET;
        let Some(from) = at.checked_sub(start).and_then(|o| region.get(o..o + 4)) else { continue };
        if Dinode::from_bytes(inode).is_none_or(|d| d.magic.get() != MAGIC) {
            continue;
        }
        if let Some(to) = inode.get_mut(NEXT_UNLINKED_OFFSET..NEXT_UNLINKED_OFFSET + 4) {
            to.copy_from_slice(from);
            seal_checksum(inode, CRC_OFFSET);
        }
    }
}
