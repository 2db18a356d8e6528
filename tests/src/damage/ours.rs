//! The library's verdict on a case, in memory: the patch lies over the image, nothing is written.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use libxfsr::check;
use libxfsr::control::Control;
use libxfsr::error::{Corruption, Severity};
use libxfsr::target::{Access, FileTarget, Overlay, Target};
use libxfsr::volume::{DEFAULT_CACHE, Volume};

use super::Patch;
use crate::oracle::Devices;

/// An image that is only read.
#[derive(Debug)]
pub struct Ours {
    data: Arc<dyn Target>,
    log: Option<Arc<dyn Target>>,
    rt: Option<Arc<dyn Target>>,
}

/// What the check said.
#[derive(Debug, Default)]
pub struct Found {
    /// What it found, preening and warnings too.
    pub findings: Vec<Corruption>,
    /// Why the filesystem could not be opened or checked; that counts as damage.
    pub refused: Option<String>,
    /// Whether the check panicked, which it never may.
    pub panicked: bool,
    /// Whether the log was said to be dirty.
    pub dirty: bool,
    /// How long it took.
    pub time: Duration,
}

impl Found {
    /// Whether the image was called damaged.
    pub fn damage(&self) -> bool {
        self.refused.is_some() || self.dirty || self.findings.iter().any(|f| f.severity >= Severity::CrossReference)
    }

    /// The findings that make it damaged.
    pub fn damages(&self) -> impl Iterator<Item = &Corruption> {
        self.findings.iter().filter(|f| f.severity >= Severity::CrossReference)
    }

    /// The first finding's code, or why there is none.
    pub fn first(&self) -> String {
        match (&self.refused, self.damages().next()) {
            (Some(why), _) => format!("refused: {why}"),
            (_, Some(c)) => c.code(),
            _ if self.dirty => "log is dirty".to_owned(),
            _ if self.panicked => "panic".to_owned(),
            _ => String::new(),
        }
    }
}

impl Ours {
    /// Opens an image.
    pub fn open(devices: &Devices) -> Result<Ours> {
        let open = |path| -> Result<Arc<dyn Target>> { Ok(Arc::new(FileTarget::open(path, Access::Read)?)) };
        Ok(Ours {
            data: open(&devices.data)?,
            log: devices.log.as_ref().map(open).transpose()?,
            rt: devices.rt.as_ref().map(open).transpose()?,
        })
    }

    /// What the check says of the image with this patch.
    pub fn check(&self, patch: &Patch) -> Result<Found> {
        let overlay = Overlay::new(self.data.clone())?;
        for (at, _, new) in &patch.runs {
            overlay.write_at(new, *at)?;
        }
        let started = Instant::now();
        let run = || -> libxfsr::error::Result<check::Outcome> {
            let volume = Volume::from_targets(Arc::new(overlay), self.log.clone(), self.rt.clone(), DEFAULT_CACHE)?;
            check::check(&volume, &Control::none())
        };
        let result = std::panic::catch_unwind(AssertUnwindSafe(run));
        let time = started.elapsed();
        Ok(match result {
            Err(_) => Found { panicked: true, time, ..Found::default() },
            Ok(Ok(o)) => Found { findings: o.findings, dirty: o.dirty_log, time, ..Found::default() },
            // A filesystem that cannot be opened is damaged too.
            Ok(Err(e)) => Found { refused: Some(e.to_string()), time, ..Found::default() },
        })
    }
}
