//! What a transaction changed is charged to the owners of its inodes.

use super::limits::{Delta, allowed, apply, place};
use super::{File, Kind, Owners, Quota};
use crate::cache::BlockKey;
use crate::error::{Corruption, Error, ForkKind, Result, Rule};
use crate::format::inode::Dinode;
use crate::format::quota::{DiskDquot, MAGIC};
use crate::inode::ForkMut;
use crate::txn::{Accountant, Change, Transaction};
use crate::units::Ino;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use zerocopy::FromBytes;

type Deltas = BTreeMap<(Kind, u32), Delta>;

impl Quota {
    /// What an inode counts for: itself, its blocks, those of them on the realtime device.
    fn usage(&self, t: &mut Transaction<'_>, ino: Ino, core: &Dinode) -> Result<[i64; 3]> {
        if core.is_free() {
            return Ok([0; 3]);
        }
        let all = core.nblocks.get();
        let mut realtime = 0u64;
        if core.is_realtime() && all > 0 {
            ForkMut::new(t, &self.space, ino, ForkKind::Data).extents((0, u64::MAX), &mut |e| {
                realtime = realtime.saturating_add(e.count);
                ControlFlow::Continue(())
            })?;
        }
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Ok([1, number(all.saturating_sub(realtime)), number(realtime)])
    }

    fn deltas(&self, t: &mut Transaction<'_>) -> Result<Deltas> {
        let mut deltas = Deltas::new();
        for (ino, before, after) in t.changed_cores() {
            if self.exempt.contains(&ino) || before.is_metadata() || after.is_metadata() {
                continue;
            }
            let (from, to) = (Owners::of(&before), Owners::of(&after));
            if from == to && before.is_free() == after.is_free() {
                // Blocks of realtime files' data are not allocated or freed by this library.
                let more = i64::try_from(i128::from(after.nblocks.get()) - i128::from(before.nblocks.get()));
                let change = [0, more.unwrap_or(0), 0];
                Kind::ALL.iter().for_each(|k| deltas.entry((*k, to.id(*k))).or_default().add(change, 1));
                continue;
            }
            // The map is that of now; who gives a file away does not change what it has on the realtime device.
            let now = self.usage(t, ino, &after)?;
            let was = if before.is_free() {
                [0; 3]
            } else {
                let realtime = if after.is_free() { 0 } else { now[2] };
                let rest = i64::try_from(before.nblocks.get()).unwrap_or(i64::MAX);
                [1, rest.saturating_sub(realtime), realtime]
            };
            for kind in Kind::ALL {
                deltas.entry((kind, from.id(kind))).or_default().add(was, -1);
                deltas.entry((kind, to.id(kind))).or_default().add(now, 1);
            }
        }
        deltas.retain(|_, d| !d.is_none());
        Ok(deltas)
    }

    /// The record of a number; none where its file has no place for it yet.
    pub(super) fn find(&self, t: &Transaction<'_>, file: &File, id: u32) -> Option<(BlockKey, usize)> {
        place(t.volume(), &file.map.read(), id)
    }

    fn charge(&self, t: &mut Transaction<'_>, file: &File, id: u32, delta: &Delta, late: bool) -> Result<()> {
        let who = || format!("{} {id}", file.kind.name());
        let lock = self.locks.lock(Ino((file.kind as u64) << 32 | u64::from(id)));
        // Held until the record is in its block, or the transaction is given up.
        t.after_commit(move |_| drop(lock));
        let Some((block, at)) = self.find(t, file, id) else {
            return Err(Error::NotFound(format!("the quota record of {}", who())));
        };
        let bytes = t.dquot_mut(&block, at)?;
        let short = || Error::invalid("a quota record that is too short");
        let (record, _) = DiskDquot::mut_from_prefix(bytes).map_err(|_| short())?;
        let bad = |field, rule| Corruption::new("dquot", field, rule).in_inode(file.ino);
        if record.magic.get() != MAGIC || record.id.get() != id || !record.kind().contains(file.kind.record()) {
            return Err(bad("id", Rule::Address).found(record.id).expected(who()).into());
        }
        let now = (self.now)();
        if self.enforce && file.enforced && !late && id != 0 {
            allowed(record, &file.graces, delta, now, &who())?;
        }
        let sums = apply(record, &file.graces, delta, now);
        sums.ok_or_else(|| bad("bcount", Rule::Count).found(who()).expected(format_args!("{:?} fits", delta.of)))?;
        let [_, blocks, _] = delta.of;
        t.emit(Change::Quota { id, kind: file.kind.record().bits(), blocks });
        Ok(())
    }

    /// Says in the superblock that usage of a kind is not counted right any more: it will be counted anew.
    fn give_up(&self, t: &mut Transaction<'_>, file: &File) -> Result<()> {
        let [_, counted, _] = file.kind.flags();
        let sb = t.superblock_mut()?;
        sb.qflags.set(sb.qflags.get() & !counted.bits());
        let flag = file.counted.clone();
        t.after_commit(move |_| flag.store(false, Ordering::Release));
        Ok(())
    }
}

impl Accountant for Quota {
    fn account(&self, t: &mut Transaction<'_>, late: bool) -> Result<()> {
        if !self.files.iter().any(|f| f.counted.load(Ordering::Acquire)) {
            return Ok(());
        }
        let deltas = self.deltas(t)?;
        // Records are locked in the order of kinds and numbers.
        for ((kind, id), delta) in &deltas {
            let file = self.files.iter().find(|f| f.kind == *kind && f.counted.load(Ordering::Acquire));
            let Some(file) = file else { continue };
            match self.charge(t, file, *id, delta, late) {
                Ok(()) => {}
                // A chain cannot stop half-way because of a record.
                Err(Error::Corrupt(_) | Error::NotFound(_)) if late => self.give_up(t, file)?,
                Err(Error::NotFound(_)) => self.give_up(t, file)?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
