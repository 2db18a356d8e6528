//! Damage: fields changed by xfs_db, and whole blocks zeroed, filled with noise or swapped.
//!
//! A [`Case`] is a name for one change of one field that xfs_db can reach ([`places()`] and [`fields()`] ask it for all of them).
//! [`Workbench::patch`] finds out once, by running xfs_db on a scratch copy, which bytes it changes; after that a [`Patch`] is
//! applied and taken back at the speed of the checker: in memory for ours ([`Ours`]), on a working copy for xfs_repair.
//! [`matrix`] tries all cases of an image on both and makes the table.

mod bench;
mod blows;
mod fields;
mod ledger;
pub mod matrix;
mod ours;
mod places;
mod valid;

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::Result;
use rand::SeedableRng as _;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;

pub use bench::{Workbench, scratch};
pub use blows::{Block, Blow};
pub use fields::fields;
pub use ours::{Found, Ours};
pub use places::{places, types};
pub use valid::{VALID, valid_cases_of};

use crate::corpus::Entry;
use crate::oracle::Devices;

/// The verbs of xfs_db's fuzz command that give the same result each time.
pub const VERBS: [&str; 7] = ["zeroes", "ones", "firstbit", "middlebit", "lastbit", "add", "sub"];

/// A structure, named by the xfs_db commands that lead to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it is, for tables: `agf`, `bnobt leaf`, `inode file extents`...
    pub structure: String,
    /// The xfs_db commands that lead to it.
    pub commands: Vec<String>,
}

/// What becomes of the checksum of the block that is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checksum {
    /// Made right again (`fuzz -d`): only the contents can tell.
    Right,
    /// Left as it was (`fuzz -c`).
    Stale,
}

/// One change of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The structure.
    pub place: Place,
    /// The field, as xfs_db names it.
    pub field: String,
    /// What is done to it: a verb of xfs_db, or [`VALID`].
    pub verb: &'static str,
    /// What it is set to, where the verb is [`VALID`].
    pub value: Option<u64>,
    /// What becomes of the checksum.
    pub checksum: Checksum,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stale = if self.checksum == Checksum::Stale { " with a stale checksum" } else { "" };
        let commands = self.place.commands.join("; ");
        let value = self.value.map(|v| format!(" {v}")).unwrap_or_default();
        write!(f, "{} [{commands}] {} {}{value}{stale}", self.place.structure, self.field, self.verb)
    }
}

/// The bytes that a case changes: offset, old, new.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Patch {
    /// Runs of changed bytes on the data device, by offset.
    pub runs: Vec<(u64, Vec<u8>, Vec<u8>)>,
}

impl Patch {
    /// Whether the case changes nothing, as zeroing a zero does.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Makes the damage in a copy of the image.
    pub fn apply(&self, file: &File) -> Result<()> {
        self.runs.iter().try_for_each(|(at, _, new)| Ok(file.write_all_at(new, *at)?))
    }

    /// Takes it back. Right only where nobody else wrote to the copy.
    pub fn undo(&self, file: &File) -> Result<()> {
        self.runs.iter().try_for_each(|(at, old, _)| Ok(file.write_all_at(old, *at)?))
    }

    /// Whether a file holds what it would put there.
    pub fn is_applied(&self, file: &File) -> Result<bool> {
        for (at, _, new) in &self.runs {
            let mut found = vec![0; new.len()];
            file.read_exact_at(&mut found, *at)?;
            if found != *new {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What differs between two images of the same length within these ranges of bytes.
    fn difference(before: &File, after: &File, ranges: &[(u64, u64)]) -> Result<Patch> {
        const PIECE: usize = 1 << 20;
        let mut runs: Vec<(u64, Vec<u8>, Vec<u8>)> = Vec::new();
        for (start, length) in ranges {
            let (mut at, end) = (*start, start + length);
            while at < end {
                let n = (end - at).min(PIECE as u64) as usize;
                let (mut old, mut new) = (vec![0; n], vec![0; n]);
                before.read_exact_at(&mut old, at)?;
                after.read_exact_at(&mut new, at)?;
                if old != new {
                    for i in (0..n).filter(|i| old[*i] != new[*i]) {
                        let place = at + i as u64;
                        match runs.last_mut() {
                            Some((from, o, n)) if *from + o.len() as u64 == place => {
                                o.push(old[i]);
                                n.push(new[i]);
                            }
                            _ => runs.push((place, vec![old[i]], vec![new[i]])),
                        }
                    }
                }
                at += n as u64;
            }
        }
        Ok(Patch { runs })
    }
}

fn combine(
    devices: &Devices,
    places: &[Place],
    checksum: Checksum,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Case>> {
    let mut all = Vec::new();
    for place in places {
        for field in fields(devices, place)?.into_iter().filter(|f| wanted(f)) {
            let case = |verb| Case { place: place.clone(), field: field.clone(), verb, value: None, checksum };
            all.extend(VERBS.map(case));
        }
    }
    Ok(all)
}

/// All cases of these places with the checksum made right, in an order that is the same each time.
pub fn cases_of(devices: &Devices, places: &[Place]) -> Result<Vec<Case>> {
    // Making a wrong checksum right again would undo it.
    combine(devices, places, Checksum::Right, |field| !field.ends_with("crc"))
}

/// All cases of these places with the checksum left as it was.
pub fn stale_cases_of(devices: &Devices, places: &[Place]) -> Result<Vec<Case>> {
    combine(devices, places, Checksum::Stale, |_| true)
}

/// All cases of an image with its checksums made right.
pub fn cases(devices: &Devices, manifest: &[Entry]) -> Result<Vec<Case>> {
    cases_of(devices, &places(devices, manifest)?)
}

/// `count` cases drawn by a seed, without repetition, in the order of `all`.
pub fn sample(all: &[Case], count: usize, seed: u64) -> Vec<Case> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let indexes: Vec<usize> = (0..all.len()).collect();
    let mut picked: Vec<usize> = indexes.choose_multiple(&mut rng, count).copied().collect();
    picked.sort_unstable();
    picked.into_iter().map(|i| all[i].clone()).collect()
}
