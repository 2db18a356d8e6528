//! All cases of an image, tried on the library's check and on xfs_repair, with a ledger so that an interrupted run goes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use libxfsr::error::Severity;

use super::ledger::Ledger;
use super::{Case, Checksum, Ours, Patch, Workbench};
use crate::corpus;

pub use super::ledger::{Stock, versions};

/// What is asked of xfs_repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Every case.
    All,
    /// Every case until then, afterwards only those in which the library finds nothing.
    Until(Instant),
    /// Only those in which the library finds nothing: enough to say what it misses.
    Quiet,
    /// Every case, and not the library: to have the answers later.
    Alone,
}

/// One case and both verdicts.
#[derive(Debug)]
pub struct Verdict {
    /// The case.
    pub case: Case,
    /// What xfs_repair -n said, where it was asked.
    pub stock: Option<Stock>,
    /// Whether the library calls it damaged.
    pub ours: bool,
    /// The library's answer in a word, or the sentence with which it refused.
    pub word: String,
    /// The codes of the library's findings that count as damage.
    pub codes: Vec<String>,
    /// Of them, how many are corruptions and not only disagreements.
    pub corruptions: usize,
    /// Whether the library panicked.
    pub panicked: bool,
    /// How long the library took.
    pub time: Duration,
}

/// Tries cases of an image with `workers` copies, and returns the verdicts of those that change something, in the order of the
/// cases. Progress goes to `tell`: cases done.
///
/// # Errors
/// Where a tool cannot be run, or a case could not be taken back.
pub fn run(
    image: &str,
    cases: &[Case],
    ask: Ask,
    workers: usize,
    tell: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Verdict>> {
    let ledger = Ledger::open(image)?;
    let ours = Ours::open(&corpus::devices(image))?;
    let clean = ours.check(&Patch::default())?;
    ensure!(clean.unblemished(), "{image} is not clean to begin with: {}", clean.word());
    // Where xfs_repair does not know a feature, every answer of it is that one.
    let knows = corpus::recipe(image).stock_clean();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let worker = || -> Result<Vec<(usize, Verdict)>> {
        let bench = Workbench::new(image)?;
        let mut verdicts = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(index) else { break };
            let patch = ledger.patch(&bench, case)?;
            if !patch.is_empty() && ask == Ask::Alone {
                ledger.stock(&bench, &patch, knows)?;
            } else if !patch.is_empty() {
                let found = ours.check(&patch).with_context(|| format!("{image}: {case}"))?;
                // A stale checksum is damage by definition; the stock tool is asked where we are silent.
                let asks = match ask {
                    Ask::All | Ask::Alone => true,
                    Ask::Until(end) => Instant::now() < end,
                    Ask::Quiet => false,
                };
                let damage = found.found(&clean, &case.field);
                let needed = knows && (!damage || (asks && case.checksum == Checksum::Right));
                let stock = ledger.stock(&bench, &patch, needed)?;
                let mut codes: Vec<String> = found.damages().map(libxfsr::error::Corruption::code).collect();
                let corruptions = found.damages().filter(|c| c.severity == Severity::Corrupt).count();
                codes.truncate(20);
                let (word, panicked) = (found.word(), found.panicked);
                let (case, time) = (case.clone(), found.time);
                let verdict = Verdict { case, stock, ours: damage, word, codes, corruptions, panicked, time };
                verdicts.push((index, verdict));
            }
            tell(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
        ensure!(bench.is_pristine()?, "a case was not taken back");
        Ok(verdicts)
    };
    let mut all = std::thread::scope(|scope| -> Result<Vec<(usize, Verdict)>> {
        let handles: Vec<_> = (0..workers.max(1)).map(|_| scope.spawn(worker)).collect();
        let mut all = Vec::new();
        for handle in handles {
            all.extend(handle.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked")))?);
        }
        Ok(all)
    })?;
    all.sort_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, v)| v).collect())
}

/// The prefixes of codes that name a structure, by the first word that fits.
fn names(structure: &str) -> &'static [&'static str] {
    let table: &[(&str, &[&str])] = &[
        ("sb", &["sb.", "fscounters."]),
        ("agfl", &["agfl.", "agf."]),
        ("agf", &["agf.", "fscounters."]),
        ("agi", &["agi.", "fscounters."]),
        ("bnobt", &["bnobt."]),
        ("cntbt", &["cntbt."]),
        ("rmapbt", &["rmapbt."]),
        ("refcntbt", &["refcountbt."]),
        ("inobt", &["inobt."]),
        ("finobt", &["finobt."]),
        ("bmbt", &["bmbt.", "bmap."]),
        ("inode of rbmino", &["inode.", "bmap.", "rtbitmap.", "sb."]),
        ("inode of rsumino", &["inode.", "bmap.", "rtsummary.", "sb."]),
        ("inode of", &["inode.", "bmap.", "quota.", "dquot.", "sb."]),
        ("inode", &["inode.", "bmap.", "bmbt.", "directory.", "xattr.", "symlink.", "nlinks.", "parent."]),
        ("dir", &["directory.", "dir"]),
        ("da node (attr)", &["xattr.", "danode."]),
        ("da node", &["directory.", "danode."]),
        ("attr", &["xattr.", "attr"]),
        ("symlink", &["symlink."]),
        ("dquot", &["quota.", "dquot."]),
        ("rtbitmap", &["rtbitmap."]),
        ("rtsummary", &["rtsummary."]),
    ];
    table.iter().find(|(prefix, _)| structure.starts_with(prefix)).map_or(&[], |(_, codes)| codes)
}

impl Verdict {
    /// Whether xfs_repair called it damaged, where it was asked.
    pub fn stock_damaged(&self) -> Option<bool> {
        self.stock.as_ref().map(Stock::damaged)
    }
    /// Whether xfs_repair alone called it damaged, which must not be.
    pub fn is_missed(&self) -> bool {
        self.stock_damaged() == Some(true) && !self.ours
    }
    /// Whether this code names the structure that was damaged.
    pub fn is_named_by(&self, code: &str) -> bool {
        names(&self.case.place.structure).iter().any(|p| code.starts_with(p))
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Cases that change something, with a right checksum.
    pub cases: usize,
    /// Found by both.
    pub both: usize,
    /// Found by the library, and not by xfs_repair.
    pub ours: usize,
    /// Found by xfs_repair alone: must be none.
    pub stock: usize,
    /// Found by neither.
    pub neither: usize,
    /// Found by the library; xfs_repair was not asked.
    pub not_asked: usize,
    /// Of those that the library found: the first finding names the damaged structure.
    pub first: usize,
    /// Any finding names it.
    pub any: usize,
    /// Cases with a stale checksum.
    pub stale: usize,
    /// Of them, those that the library found.
    pub stale_found: usize,
    /// Of them, those that it found by the checksum.
    pub stale_by_checksum: usize,
    /// Of them, those that the library did not find though xfs_repair did: must be none.
    pub stale_missed: usize,
    /// The longest time of one check.
    pub slowest: Duration,
}

impl Row {
    /// Adds a verdict.
    pub fn count(&mut self, v: &Verdict) {
        self.slowest = self.slowest.max(v.time);
        if v.case.checksum == Checksum::Stale {
            self.stale += 1;
            self.stale_found += usize::from(v.ours);
            self.stale_by_checksum += usize::from(v.codes.iter().any(|c| c.ends_with(".crc")));
            self.stale_missed += usize::from(v.is_missed());
            return;
        }
        self.cases += 1;
        match (v.stock_damaged(), v.ours) {
            (Some(true), true) => self.both += 1,
            (Some(false), true) => self.ours += 1,
            (Some(true), false) => self.stock += 1,
            (_, false) => self.neither += 1,
            (None, true) => self.not_asked += 1,
        }
        // A refusal without findings that was counted as found names the field.
        let refused = v.ours && v.codes.is_empty();
        self.first += usize::from(refused || v.codes.first().is_some_and(|c| v.is_named_by(c)));
        self.any += usize::from(refused || v.codes.iter().any(|c| v.is_named_by(c)));
    }

    /// Adds another row, for a sum.
    pub fn add(&mut self, other: &Row) {
        let pairs = [
            (&mut self.cases, other.cases),
            (&mut self.both, other.both),
            (&mut self.ours, other.ours),
            (&mut self.stock, other.stock),
            (&mut self.neither, other.neither),
            (&mut self.not_asked, other.not_asked),
            (&mut self.first, other.first),
            (&mut self.any, other.any),
            (&mut self.stale, other.stale),
            (&mut self.stale_found, other.stale_found),
            (&mut self.stale_by_checksum, other.stale_by_checksum),
            (&mut self.stale_missed, other.stale_missed),
        ];
        for (sum, n) in pairs {
            *sum += n;
        }
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// The rows of a table by structure, the sum last under `all`.
pub fn rows<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> Vec<(String, Row)> {
    let mut table: BTreeMap<String, Row> = BTreeMap::new();
    for v in verdicts {
        let structure = &v.case.place.structure;
        let row = if v.case.value.is_some() { "another valid number" } else { structure };
        table.entry(row.to_owned()).or_default().count(v);
    }
    let mut sum = Row::default();
    for row in table.values() {
        sum.add(row);
    }
    let mut rows: Vec<_> = table.into_iter().collect();
    rows.push(("all".to_owned(), sum));
    rows
}

/// The table in Markdown, without columns in which there is nothing. `what` heads the first column.
pub fn table(what: &str, rows: &[(String, Row)]) -> String {
    let percent = |r: &Row, n: usize| {
        let found = r.both + r.ours + r.not_asked;
        (n * 100).checked_div(found).map_or("-".to_owned(), |p| format!("{p} %"))
    };
    type Column<'a> = (&'a str, bool, &'a dyn Fn(&Row) -> String);
    let stale = rows.iter().any(|(_, r)| r.stale > 0);
    let right = rows.iter().any(|(_, r)| r.cases > 0);
    let not_asked = rows.iter().any(|(_, r)| r.not_asked > 0);
    let columns: [Column<'_>; 13] = [
        ("cases", right, &|r| r.cases.to_string()),
        ("both", right, &|r| r.both.to_string()),
        ("only xfsr", right, &|r| r.ours.to_string()),
        ("xfsr, other not asked", not_asked, &|r| r.not_asked.to_string()),
        ("only xfs_repair", right, &|r| r.stock.to_string()),
        ("neither", right, &|r| r.neither.to_string()),
        ("first names it", right, &|r| percent(r, r.first)),
        ("any names it", right, &|r| percent(r, r.any)),
        ("stale checksum", stale, &|r| r.stale.to_string()),
        ("found", stale, &|r| r.stale_found.to_string()),
        ("by the checksum", stale, &|r| r.stale_by_checksum.to_string()),
        ("missed", stale, &|r| r.stale_missed.to_string()),
        ("slowest", true, &|r| format!("{} ms", r.slowest.as_millis())),
    ];
    let shown: Vec<_> = columns.iter().filter(|c| c.1).collect();
    let heads: Vec<&str> = shown.iter().map(|c| c.0).collect();
    let mut text = format!("| {what} | {} |\n|---|{}\n", heads.join(" | "), "--:|".repeat(heads.len()));
    for (name, row) in rows {
        let values: Vec<String> = shown.iter().map(|c| c.2(row)).collect();
        text.push_str(&format!("| {name} | {} |\n", values.join(" | ")));
    }
    text
}
