//! Collects findings from all threads.

use super::{MAX_FINDINGS, NotChecked, Totals};
use crate::cache::BlockRead;
use crate::control::Control;
use crate::error::{Corruption, Error, Result, Rule, Severity};
use crate::units::Lsn;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Records between two looks at whether to go on.
const PATIENCE: usize = 4096;

/// What was found so far. Every finding is counted; of more than [`MAX_FINDINGS`] the worse ones are kept.
///
/// Also knows whether the caller wants the check to end, as it is at hand in each loop. Once that was said, parts end as they like
/// and may add nonsense: [`Findings::go_on`] has to be asked before anything is made of it.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    control: &'a Control<'a>,
    stopped: AtomicBool,
    /// By severity, the least first.
    kept: Mutex<[Vec<Corruption>; Severity::ALL.len()]>,
    totals: [AtomicU64; Severity::ALL.len()],
    pub(super) not_checked: Mutex<Vec<NotChecked>>,
    pub(super) not_applicable: Mutex<Vec<NotChecked>>,
    /// The head of the log, where it is known and nothing waits to be replayed.
    pub(super) head: Option<Lsn>,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(control: &'a Control<'a>) -> Self {
        Self {
            control,
            stopped: AtomicBool::new(false),
            kept: Mutex::default(),
            totals: Default::default(),
            not_checked: Mutex::default(),
            not_applicable: Mutex::default(),
            head: None,
        }
    }
    /// Who is asked whether to go on.
    pub(crate) fn control(&self) -> &'a Control<'a> {
        self.control
    }
    /// Whether the check shall end.
    pub(crate) fn stopped(&self) -> bool {
        if !self.stopped.load(Ordering::Relaxed) && self.control.check().is_err() {
            self.stopped.store(true, Ordering::Relaxed);
        }
        self.stopped.load(Ordering::Relaxed)
    }
    /// [`Error::Stopped`] where the check shall end.
    pub(crate) fn go_on(&self) -> Result<()> {
        if self.stopped() { Err(Error::Stopped) } else { Ok(()) }
    }
    /// These records, until the check shall end.
    pub(crate) fn until_stopped<T>(&self, records: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        let going = |(i, _): &(usize, T)| !i.is_multiple_of(PATIENCE) || !self.stopped();
        records.enumerate().take_while(going).map(|(_, r)| r)
    }
    #[allow(clippy::boxed_local, reason = "corruptions are boxed from birth")]
    pub(crate) fn add(&self, c: Box<Corruption>) {
        let at = c.severity as usize;
        if let Some(n) = self.totals.get(at) {
            n.fetch_add(1, Ordering::Relaxed);
        }
        let mut kept = self.kept.lock();
        if kept.iter().map(Vec::len).sum::<usize>() >= MAX_FINDINGS {
            // What matters less makes room.
            let Some(less) = kept.iter_mut().take(at).find(|list| !list.is_empty()) else { return };
            less.pop();
        }
        if let Some(list) = kept.get_mut(at) {
            list.push(*c);
        }
    }
    /// Notes a part that could not be examined.
    pub(crate) fn skip(&self, what: &'static str, why: impl ToString) {
        self.not_checked.lock().push(NotChecked { what, why: why.to_string() });
    }
    /// Notes a part that there is nothing to compare with.
    pub(crate) fn not_applicable(&self, what: &'static str, why: impl ToString) {
        self.not_applicable.lock().push(NotChecked { what, why: why.to_string() });
    }
    /// Tells where an LSN lies ahead of the log: the kernel refuses such a block, because a later replay could not tell which of
    /// both is newer.
    pub(crate) fn lsn(&self, lsn: Option<Lsn>, bad: impl FnOnce() -> Box<Corruption>) {
        // All ones are no LSN.
        if let (Some(lsn), Some(head)) = (lsn.filter(|l| l.0 != u64::MAX), self.head)
            && lsn > head
        {
            let show = |l: Lsn| format!("cycle {} block {}", l.cycle(), l.block());
            self.add(bad().found(show(lsn)).expected(format_args!("at most the log's head, {}", show(head))));
        }
    }
    /// Takes a block of metadata that was read damaged or not: tells what is wrong with it, and gives none where it is not what was
    /// looked for. `bad` makes a corruption of the structure with its place.
    pub(crate) fn usable(
        &self,
        read: Result<BlockRead>,
        bad: &dyn Fn(&'static str, Rule) -> Box<Corruption>,
    ) -> Option<BlockRead> {
        let block = match read {
            Ok(block) => block,
            Err(e) => {
                self.add_error(e, || bad("block", Rule::Unreadable));
                return None;
            }
        };
        for c in block.damage().into_iter().chain(block.damage_beside_owner()) {
            let mut c = Box::new(c.clone());
            c.at.complete(bad("block", c.rule).at);
            self.add(c);
        }
        if block.damage().is_some_and(|c| c.rule.is_foreign()) {
            return None;
        }
        self.lsn(block.lsn(), || bad("lsn", Rule::Lsn));
        Some(block)
    }
    /// Adds an error: a corruption as it is, anything else as "unreadable". A device that fails says nothing of the filesystem; one
    /// that ends too early does.
    pub(crate) fn add_error(&self, e: Error, otherwise: impl FnOnce() -> Box<Corruption>) {
        match e {
            Error::Corrupt(c) => self.add(c),
            Error::Stopped => self.stopped.store(true, Ordering::Relaxed),
            e => {
                let severity = e.severity();
                self.add(otherwise().found(e).severity(severity));
            }
        }
    }
    pub(super) fn totals(&self) -> Totals {
        let of = |s: Severity| self.totals.get(s as usize).map_or(0, |n| n.load(Ordering::Relaxed));
        Totals {
            corrupt: of(Severity::Corrupt),
            cross_reference: of(Severity::CrossReference),
            incomplete: of(Severity::Incomplete),
            preen: of(Severity::Preen),
            warnings: of(Severity::Warning),
        }
    }
    /// All that were kept, in no order, to be changed.
    pub(super) fn change(&self, each: impl FnOnce(&mut dyn Iterator<Item = &mut Corruption>)) {
        each(&mut self.kept.lock().iter_mut().flatten());
    }
    /// Takes out all that were kept, in no order.
    pub(super) fn take(&self) -> Vec<Corruption> {
        self.kept.lock().iter_mut().flat_map(std::mem::take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Findings;
    use crate::check::{MAX_FINDINGS, Outcome, Verdict};
    use crate::control::Control;
    use crate::error::{Corruption, Error, Rule, Severity};

    const NEVER: Control<'static> = Control::none();

    fn outcome(found: &Findings<'_>) -> Outcome {
        Outcome { totals: found.totals(), findings: found.take(), ..Outcome::default() }
    }

    #[test]
    fn damage_behind_a_flood_of_warnings_is_counted_and_kept() {
        let found = Findings::new(&NEVER);
        for _ in 0..MAX_FINDINGS + 7 {
            found.add(Corruption::new("agi", "unlinked", Rule::Extra).severity(Severity::Warning));
        }
        assert_eq!(outcome(&found).verdict(), Verdict::Clean);
        for _ in 0..MAX_FINDINGS {
            found.add(Corruption::new("agi", "unlinked", Rule::Extra).severity(Severity::Warning));
        }
        found.add(Corruption::new("agf", "freeblks", Rule::Count));
        let o = outcome(&found);
        assert_eq!(o.verdict(), Verdict::Damaged);
        assert_eq!((o.count(Severity::Warning), o.count(Severity::Corrupt)), (2 * MAX_FINDINGS as u64 + 7, 1));
        assert_eq!(o.findings.len(), MAX_FINDINGS);
        assert!(o.findings.iter().any(|c| c.severity == Severity::Corrupt), "the damage was dropped");
        // Nothing makes room for what is not worse.
        for _ in 0..2 * MAX_FINDINGS {
            found.add(Corruption::new("agf", "freeblks", Rule::Count));
        }
        found.add(Corruption::new("agi", "unlinked", Rule::Extra).severity(Severity::Warning));
        assert!(outcome(&found).findings.iter().all(|c| c.severity == Severity::Corrupt));
    }

    #[test]
    fn a_device_that_fails_is_no_damage_and_one_that_ends_is() {
        let error = |kind: std::io::ErrorKind| crate::target::io_error("read", "disk", 0, 512, kind);
        let bad = || Corruption::new("agf", "block", Rule::Unreadable);
        let found = Findings::new(&NEVER);
        found.add_error(error(std::io::ErrorKind::Other), bad);
        assert_eq!(outcome(&found).verdict(), Verdict::Incomplete);
        let found = Findings::new(&NEVER);
        found.add_error(error(std::io::ErrorKind::UnexpectedEof), bad);
        assert_eq!(outcome(&found).verdict(), Verdict::Damaged);
        found.add_error(Error::Corrupt(bad()), bad);
        assert_eq!(outcome(&found).count(Severity::Corrupt), 2);
    }
}
