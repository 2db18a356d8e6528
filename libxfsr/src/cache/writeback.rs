//! Writing dirty blocks to their places.

use super::{BlockKey, BlockState, BufCache, Checkpoint, Slot, TargetId};
use crate::error::Result;
use std::collections::HashMap;

impl BufCache {
    /// Blocks that are dirty, or locked so that nobody can tell, in address order; and the newest change among them by target.
    fn dirty(&self, up_to: Option<Checkpoint>) -> (Vec<(BlockKey, Slot)>, HashMap<TargetId, Checkpoint>) {
        let (mut all, mut newest) = (Vec::new(), HashMap::new());
        for shard in &self.shards {
            all.extend(shard.lock().map.iter().map(|(k, e)| (k.clone(), e.slot.clone())));
        }
        all.retain(|(key, slot): &(BlockKey, Slot)| {
            let Some(block) = slot.try_read() else { return true };
            let BlockState::Dirty { oldest, newest: last } = block.state else { return false };
            if up_to.is_some_and(|u| oldest > u) {
                return false;
            }
            let most: &mut Checkpoint = newest.entry(key.target).or_default();
            *most = last.max(*most);
            true
        });
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        (all, newest)
    }

    /// Writes dirty blocks in address order: all, or those whose first change is not newer than `up_to`. Does not flush. It waits for
    /// blocks that somebody has locked; who calls it must hold none.
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
        for (key, slot) in all {
            let mut block = slot.write();
            let BlockState::Dirty { oldest, newest } = block.state else { continue };
            if up_to.is_some_and(|u| oldest > u) {
                continue;
            }
            let Some((target, gate)) = attached(key.target) else { return self.target(key.target).map(drop) };
            gate.before_write(newest)?;
            block.seal(newest, &*gate);
            key.split(&block.bytes, |piece, daddr| target.write_at(piece, daddr.bytes()))?;
            block.state = BlockState::Clean;
            gate.after_write(&key, oldest);
        }
        Ok(())
    }
}
