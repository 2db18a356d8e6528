//! Chains that another process began and did not end: their intents are in the log, and all of them are begun again before any is ended.
//!
//! What an intent leads to may be wanted by one that was logged behind it: so, as in Linux, each intent is done in one transaction,
//! which logs as intents what is left to do; and when all have been, those are done in the same order.

use super::commit::Pending;
use super::{Deferred, Scope};
use crate::cache::Checkpoint;
use crate::error::Result;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

/// What a recovered intent has left to do.
pub struct Unfinished {
    deferred: VecDeque<Pending>,
    at: Checkpoint,
}

impl std::fmt::Debug for Unfinished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unfinished").field("steps", &self.deferred.len()).finish_non_exhaustive()
    }
}

impl Scope {
    /// Begins with numbers for intents that none of those has which were found in the log.
    pub fn avoid_intents(&self, found: impl Iterator<Item = u64>) {
        const MANY: u64 = 1 << 48;
        let mut found: Vec<u64> = found.collect();
        found.sort_unstable();
        let first = |free: u64, id: u64| if id.wrapping_sub(free) < MANY { id.wrapping_add(1) } else { free };
        self.intents.store(found.into_iter().fold(1, first), Ordering::Relaxed);
    }

    /// Does what an intent says that was found in the log under that number, or the first part of it.
    ///
    /// # Errors
    /// As [`Deferred::run`] and [`Transaction::commit`](super::Transaction::commit); nothing can be committed any more then.
    pub fn recover(&self, id: u64, step: Box<dyn Deferred>) -> Result<Unfinished> {
        let run = || -> Result<Unfinished> {
            let mut t = self.unreserved();
            t.chain = true;
            let done = t.next_step(Pending::recovered(step, id))?;
            let at = t.commit_link(&done)?;
            Ok(Unfinished { deferred: std::mem::take(&mut t.deferred), at })
        };
        run().inspect_err(|_| self.sink().abort())
    }

    /// Does the rest.
    ///
    /// # Errors
    /// As [`Scope::recover`].
    pub fn finish(&self, rest: Unfinished) -> Result<Checkpoint> {
        let run = || -> Result<Checkpoint> {
            let mut t = self.unreserved();
            (t.deferred, t.chain) = (rest.deferred, true);
            t.run_chain(rest.at)
        };
        run().inspect_err(|_| self.sink().abort())
    }
}
