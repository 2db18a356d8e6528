//! Ctrl-C and SIGTERM as a flag that long work asks for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on a first Ctrl-C (or SIGTERM) only sets the flag, a second one ends the program with exit code 130.
///
/// # Errors
/// When the system refuses the handlers.
pub fn watch() -> std::io::Result<()> {
    let flag = FLAG.get_or_init(|| Arc::new(AtomicBool::new(false)));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // In this order: the second signal finds the flag already set by the first.
        signal_hook::flag::register_conditional_shutdown(signal, super::exit::INTERRUPTED.into(), flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(())
}

/// Whether a signal has come since [`watch`].
pub fn interrupted() -> bool {
    FLAG.get().is_some_and(|f| f.load(Ordering::Relaxed))
}
