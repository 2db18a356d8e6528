//! A check's outcome in words.

use super::{Outcome, Verdict};
use crate::error::Severity;
use std::fmt;

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let word = match finding.severity {
                Severity::Corrupt => "corrupt",
                Severity::CrossReference => "disagreement",
                Severity::Incomplete => "not readable",
                Severity::Preen => "could be better",
                Severity::Warning => "warning",
            };
            writeln!(f, "{word}: {finding}")?;
        }
        if self.more_findings > 0 {
            writeln!(f, "... and {} more findings", self.more_findings)?;
        }
        for n in &self.not_checked {
            writeln!(f, "not checked: {}: {}", n.what, n.why)?;
        }
        for n in &self.not_applicable {
            writeln!(f, "not applicable: {}: {}", n.what, n.why)?;
        }
        if self.dirty_log {
            return writeln!(f, "log is dirty, not checked");
        }
        let used = if self.in_use.is_empty() { "" } else { ", as far as can be told of a device in use" };
        let c = &self.counts;
        writeln!(
            f,
            "{} AGs, {} inodes in use ({} directories, {} entries), {} extents, {} free blocks",
            c.ags, c.inodes, c.directories, c.entries, c.extents, c.free_blocks
        )?;
        match self.verdict() {
            Verdict::Damaged => {
                let bad = self.count(Severity::Corrupt) + self.count(Severity::CrossReference);
                writeln!(f, "damaged: {bad} findings{used}")
            }
            Verdict::Incomplete => writeln!(f, "no damage in what was checked, but not everything could be{used}"),
            Verdict::DirtyLog | Verdict::Clean => writeln!(f, "clean{used}"),
        }
    }
}
