//! Writing dirty blocks to their places.

use super::{BlockKey, BlockState, BlockWrite, BufCache, Checkpoint, LogGate, Parts, Slot, TargetId};
use crate::error::Result;
use crate::target::Target;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;

/// Neighbours are written together up to so many bytes.
const RUN: usize = 256 << 10;

/// Sealed neighbours, still locked, which one write brings to their places.
struct Run {
    target: Arc<dyn Target>,
    gate: Arc<dyn LogGate>,
    id: TargetId,
    /// Where it begins and where the next block would have to.
    start: u64,
    end: u64,
    blocks: Vec<(BlockKey, BlockWrite, Checkpoint)>,
}

impl Run {
    fn new(target: Arc<dyn Target>, gate: Arc<dyn LogGate>, key: &BlockKey) -> Self {
        let start = key.daddr().bytes();
        Self { target, gate, id: key.target, start, end: start, blocks: Vec::new() }
    }

    /// Whether that block comes next. One in several pieces is written for itself.
    fn takes(&self, key: &BlockKey) -> bool {
        let whole = |k: &BlockKey| matches!(k.parts, Parts::One(..));
        let all_whole = whole(key) && self.blocks.last().is_none_or(|(k, ..)| whole(k));
        let room = (self.end - self.start) as usize + key.bytes() <= RUN;
        self.id == key.target && self.end == key.daddr().bytes() && all_whole && room
    }

    fn add(&mut self, key: BlockKey, block: BlockWrite, oldest: Checkpoint) {
        self.end += key.bytes() as u64;
        self.blocks.push((key, block, oldest));
    }

    /// Where it fails all of them stay dirty.
    fn write(self) -> Result<()> {
        match &*self.blocks {
            [(key, block, _)] => key.split(&block.bytes, |p, daddr| self.target.write_at(p, daddr.bytes()))?,
            blocks => {
                let bytes: Vec<&[u8]> = blocks.iter().map(|(_, b, _)| &*b.bytes).collect();
                self.target.write_at(&bytes.concat(), self.start)?;
            }
        }
        for (key, mut block, oldest) in self.blocks {
            block.state = BlockState::Clean;
            self.gate.after_write(&key, oldest);
        }
        Ok(())
    }
}

impl BufCache {
    /// Blocks that are dirty, or locked so that nobody can tell, in address order; and the newest change among them by target.
    fn dirty(&self, up_to: Option<Checkpoint>) -> (Vec<(BlockKey, Slot)>, HashMap<TargetId, Checkpoint>) {
        let (mut all, mut newest) = (Vec::new(), HashMap::new());
        for shard in &self.shards {
            let shard = shard.lock();
            all.extend(shard.map.iter().filter_map(|(key, e)| {
                let Some(block) = e.slot.try_read() else { return Some((key.clone(), e.slot.clone())) };
                let BlockState::Dirty { oldest, newest: last } = block.state else { return None };
                if up_to.is_some_and(|u| oldest > u) {
                    return None;
                }
                let most: &mut Checkpoint = newest.entry(key.target).or_default();
                *most = last.max(*most);
                Some((key.clone(), e.slot.clone()))
            }));
        }
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        (all, newest)
    }

    /// Writes dirty blocks in address order, neighbours together: all, or those whose first change is not newer than `up_to`. Does not
    /// flush. It waits for blocks that somebody has locked; who calls it must hold none.
    ///
    /// # Errors
    /// The log's or the target's; what was not written stays dirty.
    pub fn write_back(&self, up_to: Option<Checkpoint>) -> Result<()> {
        let (all, newest) = self.dirty(up_to);
        let attached = |id: TargetId| {
            let targets = self.targets.read();
            targets.get(usize::from(id.0)).map(|a| (a.target.clone(), a.gate.clone()))
        };
        // Once for all, and not with a block locked for which others wait; what changes from here on asks again.
        for (id, newest) in newest {
            if let Some((_, gate)) = attached(id) {
                gate.before_write(newest)?;
            }
        }
        let mut run: Option<Run> = None;
        for (key, slot) in all {
            // Who has the block may wait for one of the run: so nobody waits here with a block locked.
            let guard = match &run {
                Some(r) if r.takes(&key) => RwLock::try_write_arc(&slot),
                _ => None,
            };
            let mut block = match guard {
                Some(block) => block,
                None => {
                    run.take().map_or(Ok(()), Run::write)?;
                    RwLock::write_arc(&slot)
                }
            };
            let BlockState::Dirty { oldest, newest } = block.state else { continue };
            if up_to.is_some_and(|u| oldest > u) {
                continue;
            }
            let open = match &mut run {
                Some(open) => open,
                none => {
                    let Some((target, gate)) = attached(key.target) else { return self.target(key.target).map(drop) };
                    none.insert(Run::new(target, gate, &key))
                }
            };
            open.gate.before_write(newest)?;
            block.seal(newest, &*open.gate);
            open.add(key, block, oldest);
        }
        run.map_or(Ok(()), Run::write)
    }
}
