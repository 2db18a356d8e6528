//! Check of a whole unmounted filesystem, reading only.
//!
//! The order: superblocks and log; then each AG's headers and trees; then every inode with its forks; then directories and
//! links; last what only the whole can tell: owners of all blocks, counters. AGs and inode chunks are worked on by all cores.
//! A part that could not be examined is said in [`Outcome::not_checked`], never passed over.

mod ag;
mod counters;
mod datree;
mod directory;
mod forks;
mod inodes;
mod links;
mod metadir;
mod owned;
mod owners;
mod parents;
mod paths;
mod quota;
mod realtime;
mod report;
mod superblock;
mod values;

use crate::cache::BlockRead;
use crate::control::Control;
use crate::error::{Corruption, Error, Result, Rule, Severity};
use crate::journal::{LogState, log_state};
use crate::units::{AgBlock, AgNumber, Ino, Lsn};
use crate::volume::Volume;
use parking_lot::Mutex;
use rayon::prelude::*;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};

/// Findings kept; the others are counted.
pub const MAX_FINDINGS: usize = 100_000;

/// What was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// Allocation groups.
    pub ags: u64,
    /// Inodes in use.
    pub inodes: u64,
    /// Free inodes.
    pub free_inodes: u64,
    /// Directories.
    pub directories: u64,
    /// Directory entries, without dots.
    pub entries: u64,
    /// Extents that inodes own, blocks of their extent btrees too.
    pub extents: u64,
    /// Free blocks.
    pub free_blocks: u64,
}

/// A part that was not examined, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NotChecked {
    /// The structure.
    pub what: &'static str,
    /// The reason.
    pub why: String,
}

/// What a check found.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// Findings: first what breaks a rule of its own, then what disagrees with something else; then in the order of the place.
    pub findings: Vec<Corruption>,
    /// Findings beyond [`MAX_FINDINGS`], only counted.
    pub more_findings: u64,
    /// Whether the log must be replayed first; nothing else was then checked.
    pub dirty_log: bool,
    /// Parts that were not examined.
    pub not_checked: Vec<NotChecked>,
    /// What was looked at.
    pub counts: Counts,
}

impl Outcome {
    /// Whether something must be repaired.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|f| f.severity >= Severity::CrossReference)
    }
    /// Findings of that severity.
    pub fn count(&self, s: Severity) -> usize {
        self.findings.iter().filter(|f| f.severity == s).count()
    }
}

/// Who a block says it belongs to.
pub(crate) type OwnerOf = fn(&[u8]) -> Option<Ino>;

/// Collects findings from all threads.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    kept: Mutex<Vec<Corruption>>,
    total: AtomicU64,
    not_checked: Mutex<Vec<NotChecked>>,
    /// The head of the log, where it is known and nothing waits to be replayed.
    head: Option<Lsn>,
}

impl Findings {
    #[allow(clippy::boxed_local, reason = "corruptions are boxed from birth")]
    pub(crate) fn add(&self, c: Box<Corruption>) {
        if self.total.fetch_add(1, Ordering::Relaxed) < MAX_FINDINGS as u64 {
            self.kept.lock().push(*c);
        }
    }
    pub(crate) fn skip(&self, what: &'static str, why: impl ToString) {
        self.not_checked.lock().push(NotChecked { what, why: why.to_string() });
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
    /// looked for. `bad` makes a corruption of the structure with its place; `owner` is who the block says it belongs to, and who
    /// must be.
    pub(crate) fn usable(
        &self,
        read: Result<BlockRead>,
        owner: Option<(OwnerOf, Ino)>,
        bad: &dyn Fn(&'static str, Rule) -> Box<Corruption>,
    ) -> Option<BlockRead> {
        let block = match read {
            Ok(block) => block,
            Err(e) => {
                self.add_error(e, || bad("block", Rule::Unreadable));
                return None;
            }
        };
        if let Some(c) = block.damage() {
            let foreign = c.rule.is_foreign();
            let mut c = Box::new(c.clone());
            c.at.complete(bad("block", c.rule).at);
            self.add(c);
            if foreign {
                return None;
            }
        }
        self.lsn(block.lsn(), || bad("lsn", Rule::Lsn));
        if let Some((of, wanted)) = owner
            && let Some(o) = of(&block).filter(|o| *o != wanted)
        {
            self.add(bad("owner", Rule::Owner).found(o).expected(wanted));
        }
        Some(block)
    }
    /// Adds an error: a corruption as it is, anything else as "unreadable".
    pub(crate) fn add_error(&self, e: Error, otherwise: impl FnOnce() -> Box<Corruption>) {
        match e {
            Error::Corrupt(c) => self.add(c),
            other => self.add(otherwise().found(other)),
        }
    }
}

/// Checks a whole filesystem.
///
/// A dirty log is reported and ends the check, because what is on the disk is then not yet what the filesystem holds.
///
/// # Errors
/// [`Error::Invalid`] where the log is on a device that was not given; [`Error::Stopped`] when the caller's [`Control`] says so. Damage is no error.
///
/// # Examples
/// ```no_run
/// use libxfsr::{check, control::Control, volume::{Devices, Volume}};
/// let volume = Volume::open(&Devices::data("disk.img"))?;
/// for finding in check::check(&volume, &Control::none())?.findings {
///     println!("{finding}");
/// }
/// # Ok::<(), libxfsr::Error>(())
/// ```
pub fn check(volume: &Volume, control: &Control<'_>) -> Result<Outcome> {
    run(volume, control, None)
}

/// An extent of an AG and one of its owners, as the check's forward scan saw them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockOwner {
    /// First block.
    pub start: AgBlock,
    /// Blocks.
    pub count: u32,
    /// The owner of a reverse mapping ([`owner`](mod@crate::format::btree::owner)), or `NULL` for free space.
    pub owner: u64,
    /// The offset of a reverse mapping, with its flags.
    pub offset: u64,
}

/// Who owns which block, and what a check found on the way.
#[derive(Debug)]
pub struct Survey {
    /// What [`check`] would return. The log's state does not end it: `dirty_log` then says that this is what lies on the disk.
    pub outcome: Outcome,
    /// By AG, sorted by first block. Blocks of several owners stand in several extents.
    pub owners: Vec<Vec<BlockOwner>>,
}

/// Checks a whole filesystem and keeps the owners of all blocks, for who wants to ask about them.
///
/// # Errors
/// As [`check`].
pub fn survey(volume: &Volume, control: &Control<'_>) -> Result<Survey> {
    let mut owners = Vec::new();
    let outcome = run(volume, control, Some(&mut owners))?;
    Ok(Survey { outcome, owners })
}

fn run(volume: &Volume, control: &Control<'_>, keep: Option<&mut Vec<Vec<BlockOwner>>>) -> Result<Outcome> {
    let mut found = Findings::default();
    let mut outcome = Outcome::default();
    control.begin("superblocks and log");
    superblock::check(volume, &found);
    match log_state(volume) {
        Ok(LogState::Dirty { .. }) => {
            outcome.dirty_log = true;
            let what = if keep.is_some() { "what the log holds" } else { "everything but superblocks" };
            found.skip(what, "the log is dirty: mount and unmount the filesystem to replay it");
        }
        Ok(LogState::Clean { head }) => {
            found.head = Some(head);
            let primary = volume.superblock.lsn.get();
            let bad = || Corruption::new("sb", "lsn", Rule::Lsn).in_ag(AgNumber(0), None);
            found.lsn(Some(Lsn(primary)).filter(|_| volume.superblock_from == AgNumber(0)), bad);
        }
        Ok(LogState::Absent) => {
            return Err(Error::invalid("the log is on a device of its own, which was not given: it could be dirty"));
        }
        Err(e) => found.add_error(e, || Corruption::new("log", "head", Rule::Unreadable)),
    }
    if volume.log.is_some()
        && let Err(e) = crate::journal::read(volume, control)
    {
        match e {
            Error::Stopped => return Err(e),
            // Of a clean log nobody needs more than that it is clean.
            Error::Unsupported(_) if !outcome.dirty_log => {}
            Error::Unsupported(why) => found.skip("log records", why),
            e => found.add_error(e, || Corruption::new("log", "record", Rule::Unreadable)),
        }
    }
    if !outcome.dirty_log || keep.is_some() {
        outcome.counts = everything(volume, control, &found, keep)?;
    }
    outcome.more_findings = found.total.load(Ordering::Relaxed).saturating_sub(MAX_FINDINGS as u64);
    outcome.findings = found.kept.into_inner();
    outcome.findings.sort_by(|a, b| {
        let place =
            |c: &Corruption| (c.at.ag, c.at.agbno, c.at.ino, c.at.offset, c.structure, c.field, c.found.clone());
        (cause(a), place(a)).cmp(&(cause(b), place(b)))
    });
    outcome.not_checked = found.not_checked.into_inner();
    Ok(outcome)
}

/// Rank in the list of findings: what breaks a rule of its own stands before what only disagrees with something else, and so is
/// more often a consequence; of these, what much depends on stands first.
fn cause(c: &Corruption) -> (bool, u8) {
    let disagrees = matches!(
        c.rule,
        Rule::Mismatch
            | Rule::Count
            | Rule::Missing
            | Rule::Extra
            | Rule::DoublyOwned
            | Rule::Unowned
            | Rule::Unreachable
            | Rule::Unmerged
    );
    let floor = match c.structure {
        "sb" => 0,
        "agf" | "agi" | "agfl" => 1,
        "bnobt" | "cntbt" | "rmapbt" | "refcountbt" | "inobt" | "finobt" => 2,
        "inode" => 3,
        "bmap" | "bmbt" => 4,
        "nlinks" | "block" | "fscounters" | "quota" => 6,
        _ => 5,
    };
    // That an AG header's count is off says less than what is wrong with the tree.
    (disagrees, if disagrees && floor == 1 { 3 } else { floor })
}

fn everything(
    volume: &Volume,
    control: &Control<'_>,
    found: &Findings,
    keep: Option<&mut Vec<Vec<BlockOwner>>>,
) -> Result<Counts> {
    let g = &volume.geometry;
    control.begin("AG btrees");
    let ags_done = AtomicU64::new(0);
    let ags: Vec<ag::AgState> = g
        .ags()
        .collect::<Vec<_>>()
        .par_iter()
        .map(|&ag| {
            control.check()?;
            let state = ag::check(volume, ag, found);
            control.tell(
                "allocation groups",
                ags_done.fetch_add(1, Ordering::Relaxed) + 1,
                Some(u64::from(g.ag_count)),
            );
            Ok(state)
        })
        .collect::<Result<_>>()?;
    control.begin("inodes");
    let owners = owners::Owners::new(&ags);
    let table = inodes::Table::new(g, &ags);
    let mut counts = Counts { ags: u64::from(g.ag_count), ..Counts::default() };
    let usage = quota::Usage::new(volume);
    let scan = inodes::Scan { volume, found, owners: &owners, table: &table, usage: &usage, control };
    scan.run(&ags)?;
    quota::check(volume, &table, &ags, &usage, found, control)?;
    control.begin("directories");
    links::unlinked(volume, &table, &ags, found);
    let dirs = directory::Pass { volume, found, table: &table, control };
    counts.entries = dirs.run()?;
    control.begin("links");
    let metadata = metadir::check(volume, &table, found);
    links::check(volume, &table, found);
    control.check()?;
    parents::check(volume, &table, found, control)?;
    control.begin("owners of blocks");
    let all = owners.check(volume, &table, &ags, found, keep.is_some());
    if let Some(keep) = keep {
        *keep = all;
    }
    realtime::check(volume, &metadata, owners.take_realtime(), found);
    counters::check(volume, &ags, found);
    table.count(&mut counts);
    counts.extents = owners.extents();
    counts.free_blocks = ags.iter().map(|a| a.free_blocks).sum();
    paths::fill(volume, &table, found, control)?;
    Ok(counts)
}
