//! How a caller steers long work: a time budget, a stop request, and where to tell the progress.

use crate::error::{Error, Result};
use std::time::Instant;

/// How far long work is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Progress {
    /// What is being done, in a word or two.
    pub phase: &'static str,
    /// Units of this phase that are done.
    pub done: u64,
    /// Units of this phase, where that is known.
    pub total: Option<u64>,
}

fn go_on() -> bool {
    false
}

/// What long work asks between two of its steps. Shared by all threads that do the work.
///
/// # Examples
/// ```
/// use libxfsr::control::Control;
/// use std::sync::atomic::{AtomicBool, Ordering};
/// let interrupted = AtomicBool::new(true);
/// let stop = || interrupted.load(Ordering::Relaxed);
/// let control = Control { stop: &stop, ..Control::none() };
/// assert!(matches!(control.check(), Err(libxfsr::Error::Stopped)));
/// ```
#[derive(Clone, Copy)]
pub struct Control<'a> {
    /// When to give up.
    pub deadline: Option<Instant>,
    /// Whether the caller wants the work to end.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Told how far the work is, from any thread and often: it must be quick.
    pub progress: Option<&'a (dyn Fn(&Progress) + Sync)>,
    /// Told when a part of the work begins, and with it the part before ends: for those who want to know where time goes.
    pub phase: Option<&'a (dyn Fn(&'static str) + Sync)>,
}

impl Control<'static> {
    /// Never stops, tells nobody.
    pub const fn none() -> Self {
        Self { deadline: None, stop: &go_on, progress: None, phase: None }
    }
}

impl Control<'_> {
    /// Whether to go on.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the caller asked to stop or the deadline has passed.
    pub fn check(&self) -> Result<()> {
        if (self.stop)() || self.deadline.is_some_and(|d| Instant::now() >= d) {
            return Err(Error::Stopped);
        }
        Ok(())
    }

    /// Tells that a part of the work begins.
    pub fn begin(&self, phase: &'static str) {
        if let Some(tell) = self.phase {
            tell(phase);
        }
    }

    /// Tells how far the work is.
    pub fn tell(&self, phase: &'static str, done: u64, total: Option<u64>) {
        if let Some(progress) = self.progress {
            progress(&Progress { phase, done, total });
        }
    }
}

impl Default for Control<'_> {
    fn default() -> Self {
        Control::none()
    }
}

impl std::fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Control;
    use crate::Error;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    #[test]
    fn a_passed_deadline_stops() {
        let now = Instant::now();
        assert!(Control::none().check().is_ok());
        let late = Control { deadline: Some(now), ..Control::none() };
        assert!(matches!(late.check(), Err(Error::Stopped)));
        let early = Control { deadline: Some(now + Duration::from_secs(3600)), ..Control::none() };
        assert!(early.check().is_ok());
    }

    #[test]
    fn progress_reaches_the_caller() {
        let seen = AtomicU64::new(0);
        let note = |p: &super::Progress| seen.store(p.done, Ordering::Relaxed);
        let control = Control { progress: Some(&note), ..Control::none() };
        control.tell("inodes", 7, None);
        assert_eq!(seen.load(Ordering::Relaxed), 7);
    }
}
