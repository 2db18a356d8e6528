//! What is left to do when the log is replayed.

use super::physical::{counters, free_extents};
use super::{Options, Recovered, Targets, intents, staging, unlinked};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::journal::{self, Journal, Replayed};
use crate::space::Space;
use crate::txn::{Reservation, Scope};
use crate::volume::Volume;
use std::sync::Arc;

/// Whether a filesystem of that kind can be recovered at all.
///
/// # Errors
/// [`Error::Unsupported`].
pub(super) fn possible(volume: &Volume) -> Result<()> {
    if volume.geometry.rt_groups > 0 {
        return Err(Error::unsupported("recovery of a filesystem with realtime groups is left to Linux"));
    }
    Ok(())
}

/// Finishes what was replayed and is durable: intents, leftovers, sums, and the log.
pub(super) fn finish(
    targets: &Targets,
    replayed: &Replayed,
    options: &Options,
    control: &Control<'_>,
) -> Result<Recovered> {
    let volume = Arc::new(targets.open(control)?);
    // What replay has changed may forbid what was allowed before.
    possible(&volume)?;
    let open = journal::Options { repairs: options.repairs, ..journal::Options::default() };
    let journal = Journal::resume(volume.clone(), &open, replayed)?;
    let scope = Scope::new(volume.clone(), journal.clone());
    scope.avoid_intents(replayed.pending.iter().map(|p| p.id));
    let space = Space::open(&volume)?;
    let mut done = Recovered { replayed: replayed.done.clone(), ..Recovered::default() };
    intents::finish(&scope, &space, &replayed.pending, &mut done, control)?;
    // What is done need not be done again after a crash.
    journal.sync()?;
    done.staging_blocks = staging::free(&scope, &space, control)?;
    journal.sync()?;
    unlinked::free(&scope, &space, &mut done, control)?;
    journal.settle()?;
    let sums = counters(&volume, control)?;
    if let Some(extents) = free_extents(&volume, control)? {
        let mut t = scope.begin(Reservation { sectors: 1, ..Reservation::default() })?;
        t.superblock_mut()?.frextents.set(extents);
        t.commit()?;
    }
    journal.finish(&scope, Some(&sums))?;
    targets.flush()?;
    Ok(done)
}
