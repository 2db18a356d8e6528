//! Where the time of a check goes: the library's own phases, in a process of its own.

use anyhow::{Context as _, Result};
use libxfsr::control::Control;
use libxfsr::volume::{Devices, Volume};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

/// What one phase took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Wall time in seconds.
    pub wall: f64,
    /// Processor time in seconds, of all threads.
    pub cpu: f64,
    /// Peak memory of the process at its end, in MB.
    pub peak_mb: f64,
}

fn cpu_seconds() -> f64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0 / 1e6
}

/// Checks an image in this process and times the phases.
///
/// # Errors
/// When it cannot be opened or is not clean.
pub fn here(image: &Path) -> Result<Vec<Phase>> {
    struct State {
        done: Vec<Phase>,
        current: (&'static str, Instant, f64),
    }
    impl State {
        fn next(&mut self, name: &'static str) {
            let (before, since, cpu) = std::mem::replace(&mut self.current, (name, Instant::now(), cpu_seconds()));
            self.done.push(Phase {
                name: before.to_owned(),
                wall: since.elapsed().as_secs_f64(),
                cpu: self.current.2 - cpu,
                peak_mb: peak_mb(),
            });
        }
    }
    let state = Mutex::new(State { done: Vec::new(), current: ("open", Instant::now(), cpu_seconds()) });
    let lock = || state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let volume = Volume::open(&Devices::data(image))?;
    let begins = |name: &'static str| lock().next(name);
    let control = Control { phase: Some(&begins), ..Control::none() };
    let outcome = libxfsr::check::check(&volume, &control)?;
    lock().next("");
    anyhow::ensure!(outcome.findings.is_empty(), "{}: {} findings", image.display(), outcome.findings.len());
    let done = std::mem::take(&mut lock().done);
    Ok(done)
}

/// As [`here`], in a child, so that its memory is its own. The child is this program with the arguments `phases IMAGE`.
///
/// # Errors
/// As [`here`].
pub fn of(image: &Path) -> Result<Vec<Phase>> {
    let out = Command::new(std::env::current_exe()?).arg("phases").arg(image).output()?;
    anyhow::ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).context("phases")
}
