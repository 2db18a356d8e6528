//! A dirty filesystem as it would be after recovery, for readers.

use super::{Options, Recovered, Targets, finish, known, physical};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::journal::{LogState, Replayed, close, log_state, may_write};
use crate::target::{Overlay, Target};
use crate::volume::Volume;
use std::sync::Arc;

/// A filesystem as it stands after recovery; the devices are untouched.
#[derive(Debug)]
pub struct View {
    /// The filesystem.
    pub volume: Volume,
    /// The data device with what recovery changed.
    pub overlay: Arc<Overlay>,
    /// What was done; none where the log was clean.
    pub recovered: Recovered,
    /// What was replayed, and the intents that are not finished in this view: none, or all of them where something could not be done.
    pub replayed: Replayed,
    /// Why more than physical replay was not possible; none where it was. Then files are as the last transactions left them, but what these had
    /// promised, and unlinked inodes, are as the crash left them.
    pub unfinished: Option<Error>,
    /// Why counters of the superblock are those that the log had of them, of any time, and not the sums that they should be; none where they
    /// are the sums.
    pub uncounted: Option<Error>,
}

/// Recovers a filesystem in overlays over its devices; where the log is clean nothing is done.
///
/// What keeps recovery from being completed, damage for example, is no error: the view is then what physical replay gives.
///
/// # Errors
/// As [`Volume::from_targets_with`] and [`replay`](crate::journal::replay).
pub fn replayed_view(
    data: Arc<dyn Target>,
    log: Option<Arc<dyn Target>>,
    rt: Option<Arc<dyn Target>>,
    control: &Control<'_>,
) -> Result<View> {
    view(&Targets { data, log, rt }, None, control)
}

/// The same without anything but physical replay: what the log itself says.
///
/// # Errors
/// As [`replayed_view`].
pub fn physical_view(targets: &Targets, control: &Control<'_>) -> Result<View> {
    view(targets, Some(Error::unsupported("only physical replay was asked for")), control)
}

/// Recovers in overlays, unless something forbids more than physical replay.
fn view(below: &Targets, forbids: Option<Error>, control: &Control<'_>) -> Result<View> {
    let (overlay, targets) = overlaid(below)?;
    let volume = targets.open(control)?;
    if matches!(log_state(&volume, control)?, LogState::Clean { .. }) {
        let recovered = Recovered { clean: true, ..Recovered::default() };
        return Ok(View {
            volume,
            overlay,
            recovered,
            replayed: Replayed::default(),
            unfinished: None,
            uncounted: None,
        });
    }
    let options = Options { repairs: true };
    let possible = || may_write(&volume, options.repairs).and_then(|()| finish::possible(&volume)).err();
    let mut why = forbids.or_else(possible);
    drop(volume);
    let mut accept = |kinds: &_| {
        if why.is_none() {
            why = known(kinds).err();
        }
        Ok(())
    };
    let mut replayed = physical::replay_onto(&targets, &mut accept, control)?;
    let (mut overlay, mut targets) = (overlay, targets);
    if why.is_none() {
        match finish::finish(&targets, &replayed, &options, control) {
            Ok(recovered) => {
                replayed.pending.clear();
                let volume = targets.open(control)?;
                return Ok(View { volume, overlay, recovered, replayed, unfinished: None, uncounted: None });
            }
            Err(Error::Stopped) => return Err(Error::Stopped),
            Err(e) => why = Some(e),
        }
        // What was begun is of no use.
        (overlay, targets) = overlaid(below)?;
        replayed = physical::replay_onto(&targets, &mut |_| Ok(()), control)?;
    }
    close(&targets.open(control)?, &replayed.end)?;
    let uncounted = physical::recount(&targets.open(control)?, &*overlay, control)?;
    let recovered = Recovered { replayed: replayed.done.clone(), ..Recovered::default() };
    let volume = targets.open(control)?;
    Ok(View { volume, overlay, recovered, replayed, unfinished: why, uncounted })
}

/// Overlays over all devices; that of the data device apart.
fn overlaid(below: &Targets) -> Result<(Arc<Overlay>, Targets)> {
    let data = Arc::new(Overlay::new(below.data.clone())?);
    let over = |t: &Option<Arc<dyn Target>>| -> Result<Option<Arc<dyn Target>>> {
        let Some(below) = t else { return Ok(None) };
        Ok(Some(Arc::new(Overlay::new(below.clone())?)))
    };
    let targets = Targets { data: data.clone(), log: over(&below.log)?, rt: over(&below.rt)? };
    Ok((data, targets))
}
