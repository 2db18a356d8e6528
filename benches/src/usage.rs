//! A program's processor time and peak memory, which only `wait4` tells.

use anyhow::{Context as _, Result};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Exit code; -1 where a signal ended it.
    pub code: i32,
    /// Wall time in seconds.
    pub wall: f64,
    /// Processor time in seconds, of user and system.
    pub cpu: f64,
    /// Peak resident memory in KiB.
    pub peak_kib: u64,
}

/// Runs a command to its end, its output thrown away.
///
/// # Errors
/// When it cannot be started.
#[allow(unsafe_code, reason = "no crate in use wraps wait4, and nothing else tells one child's peak memory")]
pub fn run(command: &mut Command) -> Result<Usage> {
    let program = command.get_program().to_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("{} could not be started", program.display()))?;
    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which zeroes are a value; wait4 fills it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to locals that outlive the call. The child is ours and waited for only here.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if waited == pid {
            break;
        }
        let e = std::io::Error::last_os_error();
        if e.kind() != std::io::ErrorKind::Interrupted {
            return Err(e).with_context(|| format!("waiting for {}", program.display()));
        }
    }
    let wall = start.elapsed().as_secs_f64();
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    Ok(Usage {
        code: if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 },
        wall,
        cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        peak_kib: usage.ru_maxrss.unsigned_abs(),
    })
}
