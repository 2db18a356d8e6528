//! The whole-filesystem check as a program runs it: with progress, Ctrl-C, and the outcome on standard output.

use super::{Common, Reporter, interrupted, note, print, print_json, watch};
use crate::check::{self, Outcome};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::volume::{Devices, Volume};

/// Says of each device that is in use that what is read from it may be inconsistent.
pub fn note_in_use(program: &str, volume: &Volume) {
    for (name, by) in volume.in_use() {
        note(program, &format!("{} is {by}: what is seen may be inconsistent", crate::text::escape(name.as_bytes())));
    }
}

/// Checks, prints the outcome as text or JSON, and returns it for the exit code.
///
/// # Errors
/// As [`Volume::open`] and [`check::check`]; [`Error::Stopped`] after Ctrl-C.
pub fn check_and_print(program: &str, devices: &Devices, common: &Common) -> Result<Outcome> {
    watch().map_err(|e| Error::open("signal handlers", e))?;
    let reporter = Reporter::new(common.progress);
    let tell = |p: &crate::control::Progress| reporter.tell(p);
    let control = Control { deadline: None, stop: &interrupted, progress: Some(&tell), phase: None };
    let volume = Volume::open_with(devices, &control)?;
    reporter.clear();
    note_in_use(program, &volume);
    let outcome = check::check(&volume, &control);
    reporter.clear();
    let outcome = outcome?;
    if common.json {
        print_json(&outcome).map_err(|e| Error::open("standard output", e))?;
    } else {
        print(&outcome.to_string())?;
    }
    Ok(outcome)
}
