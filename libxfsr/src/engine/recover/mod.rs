//! Recovery: what a crash cut off is done to its end, as Linux does it when it mounts.
//!
//! 1. **Physical replay.** What committed transactions changed is put in its place ([`crate::journal::replay`]), and is durable before
//!    anything else is written: from then on the log is needed for the intents only that nothing says are done.
//! 2. **Intents.** The journal goes on behind what was replayed ([`Journal::resume`](crate::journal::Journal::resume)); each intent is begun in a transaction that
//!    says that it is done, and when all have been begun, what they led to is ended.
//! 3. **Leftovers.** Staging extents of copy on write belong to nobody who is still there; inodes without a name and without an opener are freed.
//! 4. The superblock gets the sums of the AGs, the log features that only a log in use needs go, and an unmount record makes the log clean.
//!
//! A crash anywhere in this leaves a log that recovery, this or Linux's, begins with again: what was replayed and is newer on the disk is
//! left out by its LSN, the intents are there until the transactions that end them are, and the log is closed last.
//!
//! Readers do the same in an [`Overlay`](crate::target::Overlay) over each device: [`replayed_view`].

mod finish;
mod intents;
mod physical;
mod quota;
mod staging;
mod unlinked;
mod view;

pub use view::{View, physical_view, replayed_view};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::log::items::ItemType;
use crate::journal::{Done, LogState, log_state, may_write};
use crate::target::Target;
use crate::units::Device;
use crate::volume::{DEFAULT_CACHE, Volume};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where the parts of a filesystem are.
#[derive(Clone, Debug)]
pub struct Targets {
    /// The data device.
    pub data: Arc<dyn Target>,
    /// The external log.
    pub log: Option<Arc<dyn Target>>,
    /// The realtime device.
    pub rt: Option<Arc<dyn Target>>,
}

impl Targets {
    /// Those of a volume.
    ///
    /// # Errors
    /// None for a volume as it was opened.
    pub fn of(volume: &Volume) -> Result<Self> {
        let log = volume.log.filter(|id| *id != volume.data);
        Ok(Self {
            data: volume.cache.target(volume.data)?,
            log: log.map(|id| volume.cache.target(id)).transpose()?,
            rt: volume.rt.map(|id| volume.cache.target(id)).transpose()?,
        })
    }
    fn open(&self, control: &Control<'_>) -> Result<Volume> {
        self.volume(DEFAULT_CACHE, control)
    }
    /// The volume on them, with so many bytes of cache.
    pub(super) fn volume(&self, cache: usize, control: &Control<'_>) -> Result<Volume> {
        Volume::from_targets_with(self.data.clone(), self.log.clone(), self.rt.clone(), cache, control)
    }
    /// Everything that was written is durable.
    fn flush(&self) -> Result<()> {
        [Some(&self.data), self.rt.as_ref()].into_iter().flatten().try_for_each(|t| t.flush())
    }
}

/// How to recover.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Before a repair: a filesystem that is marked as in need of one is recovered, and stays marked.
    pub repairs: bool,
}

/// What recovery did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Recovered {
    /// The log held nothing: nothing was written.
    pub clean: bool,
    /// What was replayed.
    pub replayed: Done,
    /// Intents that were finished, by the format's name of their kind.
    pub intents: BTreeMap<&'static str, u64>,
    /// Blocks that copy on write had set aside, now free.
    pub staging_blocks: u64,
    /// Inodes that had no name any more, now free.
    pub inodes: u64,
    /// Those that could not be freed: they stay on their lists, which lead to them with every mount and repair.
    pub left: Vec<Left>,
}

/// An unlinked inode that was left as it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Left {
    /// Its number.
    pub ino: u64,
    /// Why.
    pub why: String,
}

impl std::fmt::Display for Recovered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.clean {
            return f.write_str("the log is clean");
        }
        let d = &self.replayed;
        write!(f, "{} transactions replayed", d.transactions)?;
        write!(
            f,
            " ({} buffers, {} inodes, {} quota records, {} inode chunks)",
            d.buffers, d.inodes, d.dquots, d.chunks
        )?;
        let intents: u64 = self.intents.values().sum();
        write!(f, ", {intents} intents finished")?;
        for (kind, n) in &self.intents {
            write!(f, " {kind}:{n}")?;
        }
        if self.staging_blocks > 0 {
            write!(f, ", {} blocks of copy on write freed", self.staging_blocks)?;
        }
        if self.inodes > 0 {
            write!(f, ", {} unlinked inodes freed", self.inodes)?;
        }
        for Left { ino, why } in &self.left {
            write!(f, ", unlinked inode {ino} is left: {why}")?;
        }
        Ok(())
    }
}

/// Recovers a filesystem on its devices, as a mount does; where the log is clean it does nothing.
///
/// # Errors
/// [`Error::Unsupported`] for what this library cannot recover, by name: features that it does not know, intents that it cannot finish, a log of a
/// big-endian machine. Nothing was written then. [`Error::MissingDevice`] for an external log that was not given. [`Error::Corrupt`] for a log or an intent that
/// breaks rules, or metadata that contradict an intent: what was replayed by then is on the disk, the log is as dirty as before, and the filesystem
/// must be repaired. I/O errors and [`Error::Stopped`]: it may be tried again.
pub fn recover(targets: &Targets, options: &Options, control: &Control<'_>) -> Result<Recovered> {
    let volume = targets.open(control)?;
    match log_state(&volume, control)? {
        LogState::Clean { .. } => return Ok(Recovered { clean: true, ..Recovered::default() }),
        LogState::Absent => return Err(Error::MissingDevice { device: Device::Log }),
        LogState::Dirty { .. } => {}
    }
    may_write(&volume, options.repairs)?;
    finish::possible(&volume)?;
    drop(volume);
    let replayed = physical::replay_onto(targets, &mut known, control)?;
    targets.flush()?;
    finish::finish(targets, &replayed, options, control)
}

/// Whether all kinds of intents can be finished.
fn known(kinds: &BTreeSet<ItemType>) -> Result<()> {
    match kinds.iter().find(|k| !intents::is_known(**k)) {
        None => Ok(()),
        Some(kind) => Err(intents::unknown(*kind)),
    }
}
