//! Extents that were freed a moment ago. Until the checkpoint that frees them is durable a crash may bring their owner back, so nothing
//! may be written there that is not logged.

use super::extent::Span;
use crate::cache::Checkpoint;
use crate::txn::{CommitSink, Transaction};
use crate::units::{AgBlock, AgNumber};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Not committed yet.
const PENDING: u64 = 0;
/// Taken back.
const CANCELLED: u64 = u64::MAX;

/// When it was freed: [`PENDING`], a checkpoint's number and one, [`CANCELLED`].
type When = Arc<AtomicU64>;

/// Tells what has become of the transaction that freed something, also where it is dropped.
struct Fate(When);

impl Fate {
    fn committed(self, at: Checkpoint) {
        self.0.store(at.0.saturating_add(1).min(CANCELLED - 1), Ordering::Release);
    }
}

impl Drop for Fate {
    fn drop(&mut self) {
        let _ = self.0.compare_exchange(PENDING, CANCELLED, Ordering::AcqRel, Ordering::Acquire);
    }
}

#[derive(Debug, Default)]
struct InAg {
    /// By start and number: an extent that was freed, used for metadata and freed again is there twice.
    extents: BTreeMap<(u32, u64), (u32, When)>,
    next: u64,
    longest: u32,
    /// Where it is time to look what can go.
    full: usize,
}

/// What was freed and is not durable yet, by AG.
#[derive(Debug)]
pub(super) struct Busy(Vec<Mutex<InAg>>);

/// Extents of an AG from which what is durable is taken out.
const SWEEP: usize = 256;

fn is_busy(when: &AtomicU64, sink: &dyn CommitSink) -> bool {
    match when.load(Ordering::Acquire) {
        PENDING => true,
        CANCELLED => false,
        n => !sink.is_durable(Checkpoint(n - 1)),
    }
}

impl Busy {
    pub(super) fn new(ags: u32) -> Self {
        Self((0..ags).map(|_| Mutex::default()).collect())
    }

    /// An extent is being freed.
    pub(super) fn freed(&self, t: &mut Transaction<'_>, ag: AgNumber, span: Span) {
        let Some(here) = self.0.get(ag.0 as usize) else { return };
        let when: When = Arc::new(AtomicU64::new(PENDING));
        let fate = Fate(when.clone());
        t.after_commit(move |at| fate.committed(at));
        let mut here = here.lock();
        if here.extents.len() > here.full.max(SWEEP) {
            let sink = t.scope().sink();
            here.extents.retain(|_, (_, when)| is_busy(when, &**sink));
            here.longest = here.extents.values().map(|(n, _)| *n).max().unwrap_or(0);
            here.full = here.extents.len() * 2;
        }
        let number = here.next;
        here.next += 1;
        here.longest = here.longest.max(span.1);
        here.extents.insert((span.0.0, number), (span.1, when));
    }

    /// The parts of an extent that are not busy, in order.
    pub(super) fn clear_parts(&self, sink: &dyn CommitSink, ag: AgNumber, span: Span) -> Vec<Span> {
        let (mut from, end) = (span.0.0, span.0.0 + span.1);
        let Some(here) = self.0.get(ag.0 as usize) else { return vec![span] };
        let here = here.lock();
        let mut parts = Vec::new();
        for ((start, _), (count, when)) in here.extents.range((from.saturating_sub(here.longest), 0)..(end, 0)) {
            if start + count <= from || !is_busy(when, sink) {
                continue;
            }
            if *start > from {
                parts.push((AgBlock(from), start - from));
            }
            from = start + count;
            if from >= end {
                break;
            }
        }
        if from < end {
            parts.push((AgBlock(from), end - from));
        }
        parts
    }

    /// The newest checkpoint that something waits for which others have freed in this AG.
    pub(super) fn newest(&self, sink: &dyn CommitSink, ag: AgNumber) -> Option<Checkpoint> {
        let here = self.0.get(ag.0 as usize)?.lock();
        let waiting = here.extents.values().map(|(_, when)| when.load(Ordering::Acquire));
        let committed = waiting.filter(|n| ![PENDING, CANCELLED].contains(n)).map(|n| Checkpoint(n - 1));
        committed.filter(|c| !sink.is_durable(*c)).max()
    }
}
