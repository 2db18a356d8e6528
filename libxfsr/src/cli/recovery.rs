//! What programs do about a dirty log: readers see the filesystem as it is after recovery, in memory; a repair recovers it on the disk.

use super::{CheckArguments, Failure, note};
use crate::control::Control;
use crate::engine::recover::{Options, recover};
use crate::engine::{Recovered, Targets, View, replayed_view};
use crate::error::{Error, Result};
use crate::journal::{LogState, log_state};
use crate::target::{Access, FileTarget, Target};
use crate::text::escape;
use crate::volume::Volume;
use std::path::Path;
use std::sync::Arc;

/// Whether there is something to recover. The log of a filesystem that is in use is always being written.
pub fn is_dirty(volume: &Volume, control: &Control<'_>) -> bool {
    volume.in_use().is_empty() && matches!(log_state(volume, control), Ok(LogState::Dirty { .. }))
}

/// A filesystem with a dirty log as it is after recovery, in memory: nothing is written. Says so, and what is missing in it, if anything is.
///
/// # Errors
/// As [`replayed_view`].
pub fn recovered_view(program: &str, volume: &Volume, control: &Control<'_>) -> Result<View> {
    let t = Targets::of(volume)?;
    let view = replayed_view(t.data, t.log, t.rt, control)?;
    let name = escape(volume.data_target().name().as_bytes());
    let what = match &view.unfinished {
        None => {
            format!("what is seen is as it is after its recovery in memory; nothing is written ({})", view.recovered)
        }
        Some(e) => {
            format!("what is seen is as it is after physical replay in memory, without the rest of recovery: {e}")
        }
    };
    note(program, &format!("{name}: the log is dirty: {what}"));
    Ok(view)
}

/// Recovers a filesystem on its devices, which must not be in use, and says what was done. Of a clean log nothing is written.
///
/// # Errors
/// Those of opening the devices to write; as [`recover`].
pub fn recover_devices(
    program: &str,
    arguments: &CheckArguments,
    control: &Control<'_>,
) -> std::result::Result<Recovered, Failure> {
    let open = |p: &Path| -> Result<Arc<dyn Target>> { Ok(Arc::new(FileTarget::open(p, Access::Write)?)) };
    let [log, rt] = [&arguments.log, &arguments.realtime].map(|p| p.as_deref().map(open).transpose());
    let targets = Targets { data: open(&arguments.device)?, log: log?, rt: rt? };
    let name = escape(arguments.device.as_os_str().as_encoded_bytes());
    let done = recover(&targets, &Options { repairs: true }, control).map_err(|e| match e {
        Error::Stopped => Failure::from(e),
        e => Failure::from(e).context(format_args!("{name}: the log could not be recovered, and is as it was")),
    })?;
    if !done.clean {
        note(program, &format!("{name}: the log was dirty and is recovered: {done}"));
    }
    Ok(done)
}
