//! Commit: what changed is cut into items, handed to the sink, and marked as dirty; then the next step of the chain.

use super::buffer::{BufferItem, flags_of};
use super::inode::{InodeItem, changed_forks};
use super::intent::{Deferred, Intent};
use super::item::{CommitSet, LogItem};
use super::objects::{DquotItem, Pointer, Working, fill_cluster, unlinked_chunks};
use super::{Reservation, Transaction};
use crate::cache::{BlockKey, BlockWrite, Checkpoint, Object, OnDamage, Want};
use crate::error::Result;
use crate::format::inode::{Dinode, INODE_CLUSTER, NEXT_UNLINKED_OFFSET, seal_dinode};
use crate::format::log::items::{BUF_TYPE_SHIFT, BufFlags};
use crate::format::quota::{self, DQUOT_BLOCK, DquotSlot};
use crate::units::{Ino, Lsn};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use zerocopy::FromBytes;

/// A step that is still to be done.
pub(super) struct Pending {
    step: Box<dyn Deferred>,
    /// Its intent, and where that was committed; none yet where it belongs to the transaction under way.
    logged: Option<(u64, Option<Checkpoint>)>,
}

impl Pending {
    /// One whose intent is in the log already.
    pub(super) fn recovered(step: Box<dyn Deferred>, id: u64) -> Self {
        Self { step, logged: Some((id, Some(Checkpoint::default()))) }
    }
    pub(super) fn new(step: Box<dyn Deferred>) -> Self {
        Self { step, logged: None }
    }
}

/// Room for the items of the chain itself in each of its transactions.
const CHAIN: Reservation = Reservation { blocks: 0, sectors: 0, inodes: 0, bytes: 2048 };

/// A block that is locked for the commit only.
struct Late {
    guard: BlockWrite,
    existed: bool,
    freed: bool,
    /// Its bytes before, where they were replaced already.
    before: Option<Box<[u8]>>,
}

/// Whether two states of an inode differ in what its item logs: all but pointer to the next unlinked, checksum and LSN.
fn differs(before: &[u8], after: &[u8]) -> bool {
    const PARTS: [(usize, usize); 3] = [(0, NEXT_UNLINKED_OFFSET), (104, 112), (120, usize::MAX)];
    PARTS.into_iter().any(|(from, to)| {
        let part = |b: &[u8]| b.get(from..to.min(b.len())).map(<[u8]>::to_vec);
        part(before) != part(after)
    })
}
const _: () = assert!(std::mem::offset_of!(Dinode, changecount) == 104);
const _: () = assert!(std::mem::offset_of!(Dinode, lsn) == 112);
const _: () = assert!(std::mem::offset_of!(Dinode, flags2) == 120);

impl Transaction<'_> {
    /// Commits, and does all that was deferred, each step in a transaction of its own. It is durable when the sink says so:
    /// [`CommitSink::force`](super::CommitSink::force).
    ///
    /// # Errors
    /// Before the first transaction of a chain is committed nothing has happened, and everything is taken back. If a later one
    /// fails, nothing can be committed any more, and recovery finishes the chain.
    pub fn commit(mut self) -> Result<Checkpoint> {
        let result = self.commit_chain();
        if result.is_err() && self.chain {
            self.scope.sink.abort();
        }
        result
    }

    fn commit_chain(&mut self) -> Result<Checkpoint> {
        let at = self.commit_link(&[])?;
        self.run_chain(at)
    }

    /// Commits one transaction of a chain, which ends those intents and begins those of the steps that have none yet.
    pub(super) fn commit_link(&mut self, done: &[u64]) -> Result<Checkpoint> {
        if let Some(accountant) = self.scope.accountant.get() {
            accountant.account(self, self.chain)?;
        }
        let intents = self.log_intents();
        // The last of a chain may have changed nothing.
        let at = self.commit_once(&intents, done)?;
        for pending in &mut self.deferred {
            if let Some((_, place @ None)) = &mut pending.logged {
                *place = Some(at);
            }
        }
        Ok(at)
    }

    /// Does all that was deferred.
    pub(super) fn run_chain(&mut self, mut last: Checkpoint) -> Result<Checkpoint> {
        while let Some(next) = self.deferred.pop_front() {
            self.chain = true;
            let done = self.next_step(next)?;
            last = last.max(self.commit_link(&done)?);
        }
        Ok(last)
    }

    fn next_intent(&self) -> u64 {
        self.scope.intents.fetch_add(1, Ordering::Relaxed)
    }

    /// Logs the intents of all steps that have none, and returns their numbers.
    fn log_intents(&mut self) -> Vec<u64> {
        if !self.scope.sink.has_log() {
            return Vec::new();
        }
        let mut ids = Vec::new();
        for i in 0..self.deferred.len() {
            let id = self.next_intent();
            let Some(pending) = self.deferred.get_mut(i).filter(|p| p.logged.is_none()) else { continue };
            pending.logged = Some((id, None));
            self.items.push(Box::new(pending.step.intent(id)));
            ids.push(id);
        }
        ids
    }

    /// Begins the next transaction of the chain and runs a step in it; returns the intents that are done with it.
    pub(super) fn next_step(&mut self, next: Pending) -> Result<Vec<u64>> {
        let need = next.step.reservation().and(CHAIN).and(self.scope.accounts());
        self.reserved = self.scope.sink.reserve_step(need.in_log(self.geometry()))?;
        let mut done = Vec::new();
        let mut finish = |items: &mut Vec<Box<dyn LogItem>>, p: &Pending| {
            if let Some((id, _)) = p.logged {
                let item: Intent = p.step.done(id);
                items.push(Box::new(item));
                done.push(id);
            }
        };
        finish(&mut self.items, &next);
        let mut waiting = std::mem::take(&mut self.deferred);
        let again = next.step.run(self)?;
        // What waits in a long chain is logged anew, so that the log's tail can move; and all behind it, and behind what is only half done, because
        // recovery goes by the order in the log: an extent is freed after its mapping is gone.
        let mut renew = again.is_some();
        for pending in &mut waiting {
            if let Some((_, Some(at))) = pending.logged
                && (renew || self.scope.sink.is_old(at))
            {
                renew = true;
                finish(&mut self.items, pending);
                pending.logged = None;
            }
        }
        // What the step has asked for comes first, then the rest of it, then what was there before.
        let asked = std::mem::take(&mut self.deferred);
        self.deferred = asked.into_iter().chain(again.map(Pending::new)).chain(waiting).collect();
        Ok(done)
    }

    /// Inodes that this transaction has looked at to change them, as they were before it and as they are now.
    pub fn changed_cores(&self) -> Vec<(Ino, Dinode, Dinode)> {
        let core = |bytes: &[u8]| Dinode::from_bytes(bytes).copied();
        let both = |(ino, w): (&Ino, &Working)| Some((*ino, core(&w.before)?, core(&w.bytes)?));
        self.inodes.iter().filter_map(both).filter(|(_, before, after)| before != after).collect()
    }

    /// Inodes that changed, their counters raised.
    fn changed_inodes(&mut self) -> Vec<Ino> {
        let mut changed = Vec::new();
        for (ino, w) in &mut self.inodes {
            if self.late.freed.contains(&w.cluster) || !differs(&w.before, &w.bytes) {
                continue;
            }
            let before = Dinode::from_bytes(&w.before).map(|d| d.changecount.get());
            if let Some(d) = Dinode::from_bytes_mut(&mut w.bytes)
                && !d.is_free()
                && before == Some(d.changecount.get())
            {
                d.changecount.set(d.changecount.get().wrapping_add(1));
            }
            changed.push(*ino);
        }
        changed
    }

    /// Locks clusters and blocks of quota records, in address order.
    fn lock_late(&self, changed: &[Ino]) -> Result<BTreeMap<BlockKey, Late>> {
        let (g, cache) = (self.geometry(), &self.volume().cache);
        let cluster = Want::new(&INODE_CLUSTER, OnDamage::Fail);
        let mut wanted: BTreeMap<&BlockKey, Want> = BTreeMap::new();
        let inodes = self.inodes.iter().filter(|(i, _)| changed.contains(i));
        wanted.extend(inodes.map(|(_, w)| (&w.cluster, cluster)));
        wanted.extend(self.pointers.values().map(|p| (&p.cluster, cluster)));
        wanted.extend(self.late.made.keys().map(|k| (k, cluster)));
        wanted.extend(self.late.freed.iter().map(|k| (k, cluster)));
        for ((key, _), d) in &self.dquots {
            if d.before != d.bytes && !self.has(key) {
                wanted.insert(key, Want::new(&DQUOT_BLOCK, OnDamage::Fail));
            }
        }
        let mut late = BTreeMap::new();
        let mut lock = |key: &BlockKey, want: &Want| -> Result<()> {
            let (made, freed) = (self.late.made.get(key), self.late.freed.contains(key));
            let (mut guard, existed) = match made.is_some() || freed {
                true => cache.claim(key, want),
                false => (cache.write(key, want, g)?, true),
            };
            let mut before = None;
            if let Some((first, generation)) = made {
                before = Some(guard.bytes.clone());
                fill_cluster(&mut guard, *first, *generation, g.inode_size, &g.meta_uuid);
            }
            late.insert(key.clone(), Late { guard, existed, freed, before });
            Ok(())
        };
        for (key, want) in wanted {
            if let Err(e) = lock(key, &want) {
                self.unlock_late(late);
                return Err(e);
            }
        }
        Ok(late)
    }

    /// Unlocks them as they were.
    fn unlock_late(&self, late: BTreeMap<BlockKey, Late>) {
        for (key, mut l) in late {
            if !l.existed {
                self.volume().cache.abandon(&key, l.guard);
            } else if let Some(before) = l.before {
                l.guard.bytes = before;
            }
        }
    }

    fn commit_once(&mut self, intents: &[u64], done: &[u64]) -> Result<Checkpoint> {
        let changed = self.changed_inodes();
        let mut late = self.lock_late(&changed)?;
        let at = match self.hand_over(&late, &changed, intents, done) {
            Ok(at) => at,
            Err(e) => {
                self.unlock_late(late);
                return Err(e);
            }
        };
        self.reserved = 0;
        for joined in self.blocks.values_mut() {
            if !joined.freed && joined.is_dirty() {
                joined.committed(at);
            }
        }
        for ino in &changed {
            let Some(w) = self.inodes.get(ino) else { continue };
            if let Some(l) = late.get_mut(&w.cluster).filter(|l| !l.freed) {
                put_inode(&mut l.guard, w, at);
            }
        }
        for p in self.pointers.values() {
            if let Some(l) = late.get_mut(&p.cluster).filter(|l| !l.freed) {
                put_pointer(&mut l.guard, p, self.geometry().inode_size as usize, at);
            }
        }
        for key in self.late.made.keys() {
            if let Some(l) = late.get_mut(key) {
                l.guard.changed(at);
            }
        }
        for ((key, place), d) in self.dquots.iter().filter(|(_, d)| d.before != d.bytes) {
            let guard = match self.blocks.get_mut(key) {
                Some(j) => Some(&mut j.guard),
                None => late.get_mut(key).map(|l| &mut l.guard),
            };
            if let Some(guard) = guard {
                put_dquot(guard, *place, &d.bytes, at);
            }
        }
        self.after.drain(..).for_each(|act| act(at));
        let observers = self.scope.observers.read();
        for change in self.changes.drain(..) {
            observers.iter().for_each(|o| o.changed(&change));
        }
        drop(observers);
        for (key, l) in late {
            if l.freed {
                self.volume().cache.abandon(&key, l.guard);
            }
        }
        self.release_blocks();
        (self.inodes, self.dquots, self.pointers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        self.late = super::LateBlocks::default();
        self.items.clear();
        self.scope.sink.relieve();
        Ok(at)
    }

    /// Cuts all into items and gives them to the sink.
    fn hand_over(
        &self,
        late: &BTreeMap<BlockKey, Late>,
        changed: &[Ino],
        intents: &[u64],
        done: &[u64],
    ) -> Result<Checkpoint> {
        const CLUSTER: u16 = (INODE_CLUSTER.log_type as u16) << BUF_TYPE_SHIFT;
        let (mut dirty, mut freed, mut buffers) = (Vec::new(), Vec::new(), Vec::new());
        for (key, joined) in &self.blocks {
            let Some(chunks) = joined.dirty() else { continue };
            let bytes = &joined.guard.bytes;
            let mut flags = flags_of(joined.kind, bytes);
            if joined.freed {
                flags |= BufFlags::CANCEL.bits();
                freed.push(key);
            } else {
                dirty.push(key);
            }
            buffers.push(BufferItem { key, bytes, dirty: chunks, flags, patches: Vec::new() });
        }
        let mut pointers: BTreeMap<&BlockKey, Vec<(usize, [u8; 4])>> = BTreeMap::new();
        for p in self.pointers.values() {
            let word = zerocopy::big_endian::U32::new(p.next).to_bytes();
            pointers.entry(&p.cluster).or_default().push((p.at + NEXT_UNLINKED_OFFSET, word));
        }
        for (key, l) in late {
            let bytes = &l.guard.bytes;
            if l.freed {
                freed.push(key);
                let flags = CLUSTER | BufFlags::CANCEL.bits();
                buffers.push(BufferItem { key, bytes, dirty: Vec::new(), flags, patches: Vec::new() });
                continue;
            }
            dirty.push(key);
            if let Some(patches) = pointers.remove(key) {
                let places = patches.iter().map(|(at, _)| at - NEXT_UNLINKED_OFFSET);
                let (dirty, flags) = (unlinked_chunks(bytes.len(), places), CLUSTER | BufFlags::INODE_BUF.bits());
                buffers.push(BufferItem { key, bytes, dirty, flags, patches });
            }
        }
        let inodes = self.inodes.iter().filter(|(ino, _)| changed.contains(ino));
        let inodes: Vec<InodeItem<'_>> = inodes
            .map(|(ino, w)| {
                let forks = changed_forks(&w.before, &w.bytes);
                InodeItem { ino: *ino, cluster: &w.cluster, at: w.at, bytes: &w.bytes, forks }
            })
            .collect();
        let blocks = self.geometry().block_size as usize;
        let dquots = self.dquots.iter().filter(|(_, d)| d.before != d.bytes);
        let dquots: Vec<DquotItem<'_>> = dquots
            .map(|((block, at), d)| DquotItem {
                block,
                at: *at,
                bytes: &d.bytes,
                blocks: (block.bytes() / blocks) as u32,
            })
            .collect();
        let mut items: Vec<&dyn LogItem> = Vec::new();
        items.extend(buffers.iter().map(|b| b as &dyn LogItem));
        items.extend(self.items.iter().map(|i| &**i));
        items.extend(inodes.iter().map(|i| i as &dyn LogItem));
        items.extend(dquots.iter().map(|d| d as &dyn LogItem));
        let reserved = self.reserved;
        if items.is_empty() && dirty.is_empty() {
            self.scope.sink.release(reserved);
            return Ok(Checkpoint::default());
        }
        let set = CommitSet { items: &items, dirty: &dirty, freed: &freed, intents, done, reserved };
        self.scope.sink.commit(&set)
    }
}

/// Puts an inode into its cluster. Its checksum is right at once, for whoever reads it; the LSN is stamped when the cluster is written.
fn put_inode(block: &mut BlockWrite, w: &Working, at: Checkpoint) {
    let len = w.bytes.len();
    let Some(inode) = block.bytes.get_mut(w.at..w.at + len) else { return };
    let Some(disk) = Dinode::from_bytes(inode).copied() else { return };
    inode.copy_from_slice(&w.bytes);
    if let Some(d) = Dinode::from_bytes_mut(inode) {
        d.next_unlinked = disk.next_unlinked;
    }
    seal_dinode(inode, Lsn(disk.lsn.get()));
    block.object_changed(Object { at: w.at, len, seal: seal_dinode, newest: at });
}

/// Puts a pointer to the next unlinked inode into its cluster. The inode's LSN stays: what its own item says of it is as old as it was.
fn put_pointer(block: &mut BlockWrite, p: &Pointer, len: usize, at: Checkpoint) {
    let Some(inode) = block.bytes.get_mut(p.at..p.at + len) else { return };
    let Some(d) = Dinode::from_bytes_mut(inode) else { return };
    d.next_unlinked.set(p.next);
    let lsn = Lsn(d.lsn.get());
    seal_dinode(inode, lsn);
    block.changed(at);
}

/// The same for a quota record.
fn put_dquot(block: &mut BlockWrite, place: usize, bytes: &[u8], at: Checkpoint) {
    let Some(slot) = block.bytes.get_mut(place..place + bytes.len()) else { return };
    let lsn = DquotSlot::ref_from_prefix(slot).map_or(0, |(s, _)| s.lsn.get());
    slot.copy_from_slice(bytes);
    quota::seal_slot(slot, Lsn(lsn));
    block.object_changed(Object { at: place, len: bytes.len(), seal: quota::seal_slot, newest: at });
}
