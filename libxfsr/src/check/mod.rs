//! Check of a whole unmounted filesystem, reading only.
//!
//! The order: superblocks and log; then each AG's headers and trees; then every inode with its forks; then directories and
//! links; last what only the whole can tell: owners of all blocks, counters. AGs and inode chunks are worked on by all cores.
//! A part that could not be examined is said in [`Outcome::not_checked`], never passed over.

mod ag;
mod counters;
mod datree;
mod directory;
mod findings;
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
mod records;
mod report;
mod superblock;
mod values;

use crate::control::Control;
use crate::error::{Corruption, Error, Result, Rule, Severity};
use crate::format::features::{LogIncompat, RoCompat};
use crate::journal::{LogState, log_state, verify_cycles};
use crate::units::{AgBlock, AgNumber, Device, Lsn};
use crate::volume::Volume;
use findings::Findings;
use rayon::prelude::*;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};

/// Findings kept; the others are counted.
pub const MAX_FINDINGS: usize = 100_000;

/// What was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[non_exhaustive]
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
#[non_exhaustive]
pub struct NotChecked {
    /// The structure.
    pub what: &'static str,
    /// The reason.
    pub why: String,
}

/// What a check says in one word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Verdict {
    /// Everything was examined, and nothing must be repaired.
    Clean,
    /// Something must be repaired.
    Damaged,
    /// The log must be replayed before anything can be said. No damage was found in what does not depend on it.
    DirtyLog,
    /// No damage was found, but a part could not be examined: the device failed, or this library does not know it.
    Incomplete,
}

/// All findings by severity, those too that were not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// Structures that break a rule.
    pub corrupt: u64,
    /// Structures that disagree.
    pub cross_reference: u64,
    /// What the device did not give.
    pub incomplete: u64,
    /// What could be better.
    pub preen: u64,
    /// What an administrator should look at.
    pub warnings: u64,
}

/// What a caller may leave out of a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Whether the usage that quota files claim is compared with what all inodes use. What is left out stands in
    /// [`Outcome::not_applicable`].
    pub quota_usage: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { quota_usage: true }
    }
}

/// A device that was in use when it was opened: what was read from it may be inconsistent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct UsedDevice {
    /// The device or file, escaped.
    pub device: String,
    /// By whom.
    pub by: String,
}

/// What a check found.
#[derive(Debug, Default)]
#[must_use]
#[non_exhaustive]
pub struct Outcome {
    /// Findings: first what breaks a rule of its own, then what disagrees with something else; then in the order of the place.
    /// Of more than [`MAX_FINDINGS`] the worse ones are kept.
    pub findings: Vec<Corruption>,
    /// Findings beyond [`MAX_FINDINGS`], only counted.
    pub more_findings: u64,
    /// All findings, counted.
    pub totals: Totals,
    /// Whether the log must be replayed first; nothing but superblocks and log was then checked.
    pub dirty_log: bool,
    /// Parts that could not be examined.
    pub not_checked: Vec<NotChecked>,
    /// Parts that there is nothing to compare with, as the usage of a quota that the kernel has not counted yet.
    pub not_applicable: Vec<NotChecked>,
    /// Devices that somebody used meanwhile: both findings and their absence may then be an illusion.
    pub in_use: Vec<UsedDevice>,
    /// What was looked at.
    pub counts: Counts,
}

impl Outcome {
    /// What all this amounts to. Damage outweighs a dirty log, and that parts that could not be examined.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match () {
            () if self.is_damaged() => Verdict::Damaged,
            () if self.dirty_log => Verdict::DirtyLog,
            () if self.is_incomplete() => Verdict::Incomplete,
            () => Verdict::Clean,
        }
    }
    /// Whether something must be repaired.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.totals.corrupt + self.totals.cross_reference > 0
    }
    /// Whether a part could not be examined; there may be damage all the same.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        !self.not_checked.is_empty() || self.totals.incomplete > 0
    }
    /// Findings of that severity, those too that were not kept.
    #[must_use]
    pub fn count(&self, s: Severity) -> u64 {
        match s {
            Severity::Warning => self.totals.warnings,
            Severity::Preen => self.totals.preen,
            Severity::Incomplete => self.totals.incomplete,
            Severity::CrossReference => self.totals.cross_reference,
            Severity::Corrupt => self.totals.corrupt,
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut o = s.serialize_struct("Outcome", 9)?;
        o.serialize_field("verdict", &self.verdict())?;
        o.serialize_field("findings", &self.findings)?;
        o.serialize_field("more_findings", &self.more_findings)?;
        o.serialize_field("totals", &self.totals)?;
        o.serialize_field("dirty_log", &self.dirty_log)?;
        o.serialize_field("not_checked", &self.not_checked)?;
        o.serialize_field("not_applicable", &self.not_applicable)?;
        o.serialize_field("in_use", &self.in_use)?;
        o.serialize_field("counts", &self.counts)?;
        o.end()
    }
}

/// Checks a whole filesystem.
///
/// A dirty log is reported and ends the check, because what is on the disk is then not yet what the filesystem holds.
///
/// # Errors
/// [`Error::MissingDevice`] where the log is on a device that was not given; [`Error::Stopped`] when the caller's [`Control`] says so. Damage is no error.
///
/// # Examples
/// ```no_run
/// use libxfsr::{check, control::Control, volume::{Devices, Volume}};
/// let volume = Volume::open(&Devices::data("disk.img"))?;
/// let outcome = check::check(&volume, &Control::none())?;
/// for finding in &outcome.findings {
///     println!("{finding}");
/// }
/// // A list without findings is not enough: the log may be dirty, or a part not examined.
/// assert_eq!(outcome.verdict(), check::Verdict::Clean);
/// # Ok::<(), libxfsr::Error>(())
/// ```
pub fn check(volume: &Volume, control: &Control<'_>) -> Result<Outcome> {
    check_with(volume, Options::default(), control)
}

/// As [`check`], without what the options leave out.
///
/// # Errors
/// As [`check`].
pub fn check_with(volume: &Volume, options: Options, control: &Control<'_>) -> Result<Outcome> {
    run(volume, options, control, None)
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
    let outcome = run(volume, Options::default(), control, Some(&mut owners))?;
    Ok(Survey { outcome, owners })
}

fn run(
    volume: &Volume,
    options: Options,
    control: &Control<'_>,
    keep: Option<&mut Vec<Vec<BlockOwner>>>,
) -> Result<Outcome> {
    let mut found = Findings::new(control);
    let used = volume.in_use().iter();
    let used =
        used.map(|(device, by)| UsedDevice { device: crate::text::escape(device.as_bytes()), by: by.to_string() });
    let mut outcome = Outcome { in_use: used.collect(), ..Outcome::default() };
    control.begin("superblocks and log");
    let state = log_state(volume, control);
    if matches!(state, Err(Error::Stopped)) {
        return Err(Error::Stopped);
    }
    let readable = matches!(state, Ok(LogState::Clean { .. } | LogState::Dirty { .. }));
    superblock::check(volume, matches!(state, Ok(LogState::Dirty { .. })), &found)?;
    features(volume, matches!(state, Ok(LogState::Dirty { .. })), &found);
    match state {
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
            if let Err(e) = verify_cycles(volume, head, control) {
                found.add_error(e, || Corruption::new("log", "cycle", Rule::Unreadable));
            }
        }
        Ok(LogState::Absent) => {
            // It could be dirty.
            return Err(Error::MissingDevice { device: Device::Log });
        }
        Err(e) => found.add_error(e, || Corruption::new("log", "head", Rule::Unreadable)),
    }
    // Where no head was found, the records would only be missed once more.
    if readable && let Err(e) = crate::journal::read(volume, control) {
        match e {
            Error::Stopped => return Err(e),
            // Of a clean log nobody needs more than that it is clean.
            Error::Unsupported(_) if !outcome.dirty_log => {}
            Error::Unsupported(why) => found.skip("log records", why),
            e => found.add_error(e, || Corruption::new("log", "record", Rule::Unreadable)),
        }
    }
    if !outcome.dirty_log || keep.is_some() {
        outcome.counts = everything(volume, options, control, &found, keep)?;
    }
    outcome.totals = found.totals();
    outcome.not_checked = std::mem::take(&mut *found.not_checked.lock());
    outcome.not_applicable = std::mem::take(&mut *found.not_applicable.lock());
    let all = Severity::ALL.iter().map(|s| outcome.count(*s)).sum::<u64>();
    outcome.findings = found.take();
    outcome.more_findings = all - outcome.findings.len() as u64;
    outcome.findings.sort_by(|a, b| {
        let place =
            |c: &Corruption| (c.at.ag, c.at.agbno, c.at.ino, c.at.offset, c.structure, c.field, c.found.clone());
        (cause(a), place(a)).cmp(&(cause(b), place(b)))
    });
    Ok(outcome)
}

/// Features that this library does not know and that do not forbid reading.
fn features(volume: &Volume, dirty: bool, found: &Findings<'_>) {
    let f = &volume.geometry.features;
    let unknown = f.ro_compat.difference(RoCompat::all()).bits();
    if unknown != 0 {
        found.skip(
            "features",
            format_args!(
                "unknown ro_compat bits {unknown:#x}: what they add is not checked, and what else is said may be a \
                 misunderstanding; a newer version of this program is needed"
            ),
        );
    }
    let unknown = f.log_incompat.difference(LogIncompat::all()).bits();
    if dirty && unknown != 0 {
        found.skip(
            "log",
            format_args!("unknown log_incompat bits {unknown:#x}: only a kernel that knows them can replay it"),
        );
    }
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
    options: Options,
    control: &Control<'_>,
    found: &Findings<'_>,
    keep: Option<&mut Vec<Vec<BlockOwner>>>,
) -> Result<Counts> {
    let g = &volume.geometry;
    control.begin("AG btrees");
    let ags_done = AtomicU64::new(0);
    // What lies behind the end of a device that is too short has been told of once.
    let groups: Vec<AgNumber> = volume.ags().collect();
    let ags: Vec<ag::AgState> = groups
        .par_iter()
        .map(|&ag| {
            found.go_on()?;
            let state = ag::check(volume, ag, found);
            found.go_on()?;
            let done = ags_done.fetch_add(1, Ordering::Relaxed) + 1;
            control.tell("allocation groups", done, Some(groups.len() as u64));
            Ok(state)
        })
        .collect::<Result<_>>()?;
    control.begin("inodes");
    let owners = owners::Owners::new(&ags);
    let table = inodes::Table::new(g, &ags);
    let mut counts = Counts { ags: groups.len() as u64, ..Counts::default() };
    let usage = quota::Usage::new(volume, options.quota_usage);
    let unread = AtomicU64::new(0);
    let scan = inodes::Scan { volume, found, owners: &owners, table: &table, usage: &usage, control, unread };
    scan.run(&ags)?;
    // Where the device failed, what was not read would be missed everywhere else: comparing would take that for damage.
    let failed = || found.totals().incomplete > 0;
    let unread = "a part of the device could not be read, so counts and owners would differ";
    if failed() {
        found.skip("quotacheck", unread);
    } else {
        quota::check(volume, &table, &ags, &usage, found, control)?;
    }
    control.begin("directories");
    links::unlinked(volume, &table, &ags, found);
    let dirs = directory::Pass { volume, found, table: &table, control };
    counts.entries = dirs.run()?;
    control.begin("links");
    let apart = Findings::new(control);
    let compared = if failed() {
        found.skip("links, parent pointers, owners of blocks, realtime section and counters", unread);
        &apart
    } else {
        found
    };
    let metadata = metadir::check(volume, &table, compared);
    links::check(volume, &table, compared);
    compared.go_on()?;
    parents::check(volume, &table, compared)?;
    control.begin("owners of blocks");
    let all = owners.check(volume, &table, &ags, compared, keep.is_some());
    if let Some(keep) = keep {
        *keep = all;
    }
    realtime::check(volume, &metadata, owners.take_realtime(), compared);
    counters::check(volume, &ags, compared);
    table.count(&mut counts);
    counts.extents = owners.extents();
    counts.free_blocks = ags.iter().map(|a| a.free_blocks).sum();
    compared.go_on()?;
    paths::fill(volume, &table, found)?;
    // Whatever part was left early, what was made of it is not returned.
    found.go_on()?;
    Ok(counts)
}
