//! Filling a filesystem that was just made: from a directory tree, or from a prototype file.
//!
//! Both use the operations that an open filesystem has ([`crate::engine`]), without a log: what a crash leaves is no filesystem, as with mkfs itself. Nothing is
//! mounted, and no privilege is needed but to read the source. With a fixed time and a seed the same input makes the same bytes.

mod protofile;
mod tree;

use crate::control::Control;
use crate::engine::{Filesystem, Handle, Options as EngineOptions, SetAttr, Targets, Time};
use crate::error::{Error, Result};
use serde::Serialize;
use std::path::PathBuf;

/// What a filesystem is filled with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A directory, whose contents become those of the root, with owners, permissions, times, hard links, holes, extended attributes and ACLs.
    Tree(PathBuf),
    /// A prototype file, as mkfs.xfs takes it.
    Prototype {
        /// Its path, for messages.
        path: PathBuf,
        /// Its text.
        text: Vec<u8>,
        /// Slashes in names stand for spaces.
        slashes_are_spaces: bool,
    },
}

/// How it is filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// The time of creation of all inodes, and the latest that any has: `SOURCE_DATE_EPOCH`. None for now, and times as the source has them.
    pub now: Option<Time>,
    /// From what generation numbers are made; none for a random one.
    pub seed: Option<u64>,
}

/// Something of the source that is not in the image as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Skipped {
    /// Its path in the source: raw bytes, to be escaped before they are shown.
    #[serde(serialize_with = "escaped")]
    pub path: Vec<u8>,
    /// What was left out, and why.
    pub why: String,
}

fn escaped<S: serde::Serializer>(path: &[u8], s: S) -> std::result::Result<S::Ok, S::Error> {
    s.serialize_str(&crate::text::escape(path))
}

/// What was put into a filesystem.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Populated {
    /// Names in it.
    pub names: u64,
    /// Bytes of contents, without holes.
    pub bytes: u64,
    /// What could not be copied, in the order in which it was met.
    pub skipped: Vec<Skipped>,
}

/// Changes after which all that is dirty is written.
const AT_ONCE: u64 = 20_000;

/// A filesystem that is being filled.
struct Filling<'a> {
    fs: &'a Filesystem,
    options: Options,
    control: &'a Control<'a>,
    done: Populated,
}

impl Filling<'_> {
    /// A name was made.
    fn count(&mut self) -> Result<()> {
        self.control.check()?;
        self.done.names += 1;
        if self.done.names.is_multiple_of(1000) {
            self.control.tell("files", self.done.names, None);
        }
        if self.done.names.is_multiple_of(AT_ONCE) {
            self.fs.sync()?;
        }
        Ok(())
    }
    fn skip(&mut self, path: &[u8], why: impl std::fmt::Display) {
        self.done.skipped.push(Skipped { path: path.to_vec(), why: why.to_string() });
    }
    /// A time that is not later than all may be.
    fn time(&self, time: Time) -> Time {
        self.options.now.map_or(time, |now| time.min(now))
    }
    /// Writes contents; what does not fit is no space.
    fn write(&mut self, file: &Handle, bytes: &[u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|r| !r.is_empty()) {
            let n = file.write_at(rest, offset + done as u64)?;
            if n == 0 {
                return Err(Error::NoSpace("contents do not fit".into()));
            }
            done += n;
        }
        self.done.bytes += bytes.len() as u64;
        Ok(())
    }
    /// Owner, permissions and times of an inode.
    fn attributes(&self, file: &Handle, set: SetAttr) -> Result<()> {
        let (atime, mtime) = (set.atime.map(|t| self.time(t)), set.mtime.map(|t| self.time(t)));
        file.set_attr(&SetAttr { atime, mtime, ..set })
    }
}

/// Fills a filesystem that holds nothing yet. It is whole when this returns.
///
/// # Errors
/// [`Error::Invalid`] for a prototype that cannot be understood, with its line; [`Error::Open`] where the source cannot be read at all; [`Error::NoSpace`];
/// [`Error::Stopped`]; I/O errors of the targets. The filesystem is not usable then.
pub fn populate(targets: &Targets, source: &Source, options: &Options, control: &Control<'_>) -> Result<Populated> {
    let engine = EngineOptions { cache: 256 << 20, now: options.now, seed: options.seed, ..EngineOptions::default() };
    let fs = Filesystem::open_unlogged(targets, &engine, control)?;
    let mut filling = Filling { fs: &fs, options: *options, control, done: Populated::default() };
    match source {
        Source::Tree(path) => tree::copy(&mut filling, path)?,
        Source::Prototype { path, text, slashes_are_spaces } => {
            protofile::run(&mut filling, path, text, *slashes_are_spaces)?;
        }
    }
    let done = filling.done;
    fs.close()?;
    Ok(done)
}
