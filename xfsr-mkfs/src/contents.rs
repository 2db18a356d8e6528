//! `-p`: what the new filesystem is filled with.

use crate::PROGRAM;
use anyhow::{Context, Result, bail};
use libxfsr::cli::{ProgressMode, Reporter, interrupted, note};
use libxfsr::control::{Control, Progress};
use libxfsr::engine::{Targets, Time};
use libxfsr::mkfs::populate::{Options, Source, populate};
use libxfsr::text::escape;
use std::path::PathBuf;

/// What `-p` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Contents {
    path: PathBuf,
    slashes_are_spaces: bool,
    /// From what generation numbers and, where none is given, the UUID are made.
    pub(crate) seed: Option<u64>,
}

impl Contents {
    /// `[file=]PATH[,slashes_are_spaces[=0|1]][,seed=N]`. A path with a comma must stand alone.
    pub(crate) fn parse(value: &str) -> Result<Self> {
        let (mut path, mut slashes_are_spaces, mut seed) = (None, false, None);
        for part in value.split(',') {
            match part.split_once('=') {
                Some(("slashes_are_spaces", "1")) => slashes_are_spaces = true,
                Some(("slashes_are_spaces", "0")) => slashes_are_spaces = false,
                Some(("slashes_are_spaces", other)) => bail!("-p slashes_are_spaces={other} is not possible: 0 or 1"),
                None if part == "slashes_are_spaces" && path.is_some() => slashes_are_spaces = true,
                Some(("seed", n)) => {
                    seed =
                        Some(n.parse().with_context(|| format!("-p seed={n} is not possible: a number is expected"))?);
                }
                Some(("file", p)) if path.is_none() => path = Some(p),
                _ if path.is_none() => path = Some(part),
                _ => bail!("-p {part} is not an option: file=PATH, slashes_are_spaces=0|1, seed=N"),
            }
        }
        let path = PathBuf::from(path.filter(|p| !p.is_empty()).context("-p needs a prototype file or a directory")?);
        Ok(Self { path, slashes_are_spaces, seed })
    }

    /// Where it comes from; a prototype is read at once, so that nothing is made where it cannot be.
    pub(crate) fn source(&self) -> Result<Source> {
        let shown = escape(self.path.as_os_str().as_encoded_bytes());
        let meta = std::fs::metadata(&self.path).with_context(|| format!("-p {shown}"))?;
        if meta.is_dir() {
            if self.slashes_are_spaces {
                bail!("-p slashes_are_spaces=1 is for prototype files, and {shown} is a directory");
            }
            return Ok(Source::Tree(self.path.clone()));
        }
        let text = std::fs::read(&self.path).with_context(|| format!("-p {shown}"))?;
        Ok(Source::Prototype { path: self.path.clone(), text, slashes_are_spaces: self.slashes_are_spaces })
    }
}

/// A UUID that is made from a seed, of the form of a random one.
pub(crate) fn uuid(seed: u64) -> [u8; 16] {
    // splitmix64.
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        u128::from(z ^ z >> 31)
    };
    let random = next() << 64 | next();
    let mut bytes = [0; 16];
    for (i, b) in bytes.iter_mut().enumerate() {
        *b = (random >> (120 - 8 * i) & 0xff) as u8;
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

/// The time that `SOURCE_DATE_EPOCH` says; none where it is not set.
pub(crate) fn fixed_time() -> Result<Option<Time>> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(e) => Err(e).context("SOURCE_DATE_EPOCH"),
        Ok(text) => {
            let seconds =
                text.parse().with_context(|| format!("SOURCE_DATE_EPOCH={text}: seconds since 1970 are expected"))?;
            Ok(Some(Time { seconds, nanos: 0 }))
        }
    }
}

/// Fills the filesystem. What could not be copied is told, each by its name; then it is a failure.
pub(crate) fn fill(
    targets: &Targets,
    source: &Source,
    seed: Option<u64>,
    now: Option<Time>,
    form: ProgressMode,
) -> Result<()> {
    let reporter = Reporter::new(form);
    let tell = |p: &Progress| reporter.tell(p);
    let control = Control { deadline: None, stop: &interrupted, progress: Some(&tell), phase: None };
    let done = populate(targets, source, &Options { now, seed }, &control);
    reporter.clear();
    let name = escape(targets.data.name().as_bytes());
    let done = done.map_err(|e| {
        anyhow::Error::from(e).context(format!("{name} holds a filesystem that is not complete: make it again"))
    })?;
    for s in &done.skipped {
        note(PROGRAM, &format!("{}: {}", escape(&s.path), s.why));
    }
    if !done.skipped.is_empty() {
        bail!("the filesystem was made, but {} things could not be copied", done.skipped.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Contents, uuid};

    #[test]
    fn the_option_is_taken_apart() {
        let c = Contents::parse("file=/a/b,slashes_are_spaces=1,seed=7").expect("an option");
        assert_eq!((c.path.to_str(), c.slashes_are_spaces, c.seed), (Some("/a/b"), true, Some(7)));
        assert_eq!(Contents::parse("dir").expect("a path").path.to_str(), Some("dir"));
        for bad in ["", "a,b", "a,slashes_are_spaces=2", "a,seed=x", "a,what=1"] {
            assert!(Contents::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_uuid_from_a_seed_has_the_form_of_a_random_one() {
        let id = uuid(1);
        assert_eq!((id[6] >> 4, id[8] >> 6), (4, 2));
        assert_eq!((uuid(1), uuid(1) == uuid(2)), (id, false));
    }
}
