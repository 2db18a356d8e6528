//! Ctrl-C and SIGTERM as a flag that long work asks for.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
/// Whether somebody has asked for the flag since it was set.
static HEARD: AtomicBool = AtomicBool::new(false);

/// How long after a signal somebody must have asked for it. Steps between two questions are shorter, but for what waits on something that
/// may never come: a pipe, a terminal, a device that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// From now on a first Ctrl-C (or SIGTERM) only sets the flag. The program ends with exit code 130 at the second one, or where nobody asks
/// for the flag for ten seconds: it then waits in a system call that the system starts again after a signal.
///
/// # Errors
/// When the system refuses the handlers.
pub fn watch() -> std::io::Result<()> {
    if FLAG.get().is_some() {
        return Ok(());
    }
    let flag = FLAG.get_or_init(|| Arc::new(AtomicBool::new(false)));
    let (mut woken, wake) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // In this order: the second signal finds the flag already set by the first.
        signal_hook::flag::register_conditional_shutdown(signal, super::exit::INTERRUPTED.into(), flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
        signal_hook::low_level::pipe::register(signal, wake.try_clone()?)?;
    }
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        // The other end lives as long as the handlers, so this returns only when a signal has come.
        if woken.read_exact(&mut [0]).is_ok() {
            std::thread::sleep(PATIENCE);
            if !HEARD.load(Ordering::Relaxed) {
                signal_hook::low_level::exit(super::exit::INTERRUPTED.into());
            }
        }
    })?;
    Ok(())
}

/// Whether a signal has come since [`watch`].
pub fn interrupted() -> bool {
    let come = FLAG.get().is_some_and(|f| f.load(Ordering::Relaxed));
    if come {
        HEARD.store(true, Ordering::Relaxed);
    }
    come
}
