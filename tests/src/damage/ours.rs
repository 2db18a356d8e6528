//! The library's verdict on a case, in memory: the patch lies over the image, nothing is written.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use libxfsr::check;
use libxfsr::control::Control;
use libxfsr::error::{Corruption, Error, Severity};
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
    /// The check's outcome; none where the filesystem was refused or the check panicked.
    pub outcome: Option<check::Outcome>,
    /// Why the filesystem could not be opened or checked.
    pub refused: Option<Error>,
    /// Whether the check panicked, which it never may.
    pub panicked: bool,
    /// How long it took.
    pub time: Duration,
}

/// Sentences that refuse a filesystem for what a field says, by the field's name.
const REFUSALS: &[(&str, &str)] =
    &[("versionnum", "v4"), ("features_incompat", "incompatible"), ("logstart", "log is on a device of its own")];

impl Found {
    fn verdict(&self) -> Option<check::Verdict> {
        self.outcome.as_ref().map(check::Outcome::verdict)
    }

    /// Whether nothing was found, and nothing is in the way of finding something.
    pub fn unblemished(&self) -> bool {
        !self.panicked && matches!(self.verdict(), Some(check::Verdict::Clean | check::Verdict::Incomplete))
    }

    /// Whether damage to this field was found: the verdict says so; or a part could not be examined that could be `before`; or the
    /// filesystem was refused in words that tell which damage.
    pub fn found(&self, before: &Found, field: &str) -> bool {
        let parts = |f: &Found| f.outcome.as_ref().map(|o| o.not_checked.clone()).unwrap_or_default();
        match (&self.refused, self.verdict()) {
            (Some(Error::Corrupt(_) | Error::NoFilesystem { .. }), _) | (_, Some(check::Verdict::Damaged)) => true,
            (Some(e), _) => REFUSALS.iter().any(|(name, word)| field == *name && e.to_string().contains(word)),
            (_, Some(check::Verdict::Incomplete)) => parts(self).iter().any(|p| !parts(before).contains(p)),
            _ => false,
        }
    }

    /// The findings that make it damaged.
    pub fn damages(&self) -> impl Iterator<Item = &Corruption> {
        let all = self.outcome.iter().flat_map(|o| &o.findings);
        all.filter(|f| f.severity >= Severity::CrossReference)
    }

    /// The answer in a word; of a part that was not examined and of a refusal the sentence.
    pub fn word(&self) -> String {
        match (&self.refused, &self.outcome) {
            (Some(e), _) => format!("refused: {e}"),
            (_, Some(o)) if o.verdict() == check::Verdict::Incomplete => {
                let parts: Vec<String> = o.not_checked.iter().map(|p| format!("{}: {}", p.what, p.why)).collect();
                format!("incomplete: {}", parts.join("; "))
            }
            (_, Some(o)) => format!("{:?}", o.verdict()).to_lowercase(),
            _ => "panic".to_owned(),
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
            Ok(Ok(outcome)) => Found { outcome: Some(outcome), time, ..Found::default() },
            Ok(Err(e)) => Found { refused: Some(e), time, ..Found::default() },
        })
    }
}
