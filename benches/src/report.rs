//! Results as a table and as JSON.

use crate::measure::Measured;
use crate::phases::Phase;
use serde::Serialize;
use std::fmt;

/// One thing that is demanded.
#[derive(Clone, Debug, Serialize)]
pub struct Requirement {
    /// What is demanded.
    pub what: String,
    /// The measured ratio.
    pub ratio: f64,
    /// What it may be at most.
    pub limit: f64,
    /// Whether it holds.
    pub pass: bool,
}

impl Requirement {
    /// Holds where `ratio` is at most `limit`.
    pub fn at_most(what: impl Into<String>, ratio: f64, limit: f64) -> Self {
        Self { what: what.into(), ratio, limit, pass: ratio <= limit }
    }
}

/// What a case gave.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    /// Its name.
    pub case: String,
    /// What it measures.
    pub title: String,
    /// Medians, one a contender.
    pub measured: Vec<Measured>,
    /// What is demanded.
    pub requirements: Vec<Requirement>,
    /// Where our check's time goes.
    pub phases: Vec<Phase>,
}

impl CaseResult {
    /// Whether all that is demanded holds.
    pub fn pass(&self) -> bool {
        self.requirements.iter().all(|r| r.pass)
    }
}

impl fmt::Display for CaseResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.case, self.title)?;
        writeln!(f, "  {:<34} {:>9} {:>9} {:>10}   wall time of each run", "", "wall s", "cpu s", "peak MB")?;
        for m in &self.measured {
            let all: Vec<String> = m.walls.iter().map(|w| format!("{w:.3}")).collect();
            let all = if all.len() > 10 { format!("{} runs", all.len()) } else { all.join(" ") };
            writeln!(f, "  {:<34} {:>9.3} {:>9.3} {:>10.1}   {all}", m.name, m.wall, m.cpu, m.peak_mb)?;
        }
        if !self.phases.is_empty() {
            writeln!(f, "  where our time goes (one more run; peak so far):")?;
            for p in &self.phases {
                writeln!(f, "    {:<32} {:>9.3} {:>9.3} {:>10.1}", p.name, p.wall, p.cpu, p.peak_mb)?;
            }
        }
        for r in &self.requirements {
            let verdict = if r.pass { "PASS" } else { "FAIL" };
            writeln!(f, "  {verdict}  {}: {:.3}, at most {:.3}", r.what, r.ratio, r.limit)?;
        }
        Ok(())
    }
}
