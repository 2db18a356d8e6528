//! Fills a mounted filesystem so that every on-disk form occurs. Works through system calls on the mount, so it runs in the
//! guest too. A file per activity.

mod attributes;
mod directories;
mod files;
mod guest;
mod inodes;
mod names;
mod sharing;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::fs::{CWD, FileType, Mode};

/// The code that fills: an image is made anew when it changes.
pub(super) const SOURCES: [&str; 8] = [
    include_str!("mod.rs"),
    include_str!("attributes.rs"),
    include_str!("directories.rs"),
    include_str!("files.rs"),
    include_str!("guest.rs"),
    include_str!("inodes.rs"),
    include_str!("names.rs"),
    include_str!("sharing.rs"),
];

/// One part of the contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Directories in short, block, leaf and node form, with holes.
    Directories,
    /// Directories whose extent map is a btree.
    FragmentedDirectories,
    /// A directory of this many entries, whose names have that length.
    BigDirectory(u32, u32),
    /// Files: empty, small, sparse, preallocated, unwritten, in many extents.
    Files,
    /// A file of this many extents.
    Extents(u32),
    /// Attributes in short, leaf, node, remote and btree form, all namespaces, ACLs.
    Attributes,
    /// Hard links by thousands, symbolic links, device nodes, FIFOs, sockets.
    Links,
    /// Odd names, owners, modes and times; project ids and inode flags.
    Odd,
    /// Files that share blocks, and copies that were written to after sharing.
    Reflink,
    /// This many single shared blocks.
    Shared(u32),
    /// Files that exchanged their contents, whole and in part.
    Exchange,
    /// Many inodes made and partly removed.
    Churn(u32),
    /// Inode chunks with holes, in a filesystem without room for whole ones.
    SparseInodes,
    /// Files with owners of all kinds, for quota.
    Owners,
    /// Realtime files: several extent sizes, holes, unwritten extents.
    Realtime,
    /// Names that ascii-ci folds.
    Cases,
}

/// What the filler must know of the filesystem.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Block size.
    pub block: u64,
    /// Directory block size.
    pub directory: u64,
    /// Inode size.
    pub inode: u64,
    /// Seed of all that is random.
    pub seed: u64,
}

/// Fills one filesystem.
#[derive(Debug)]
pub struct Filler {
    root: PathBuf,
    shape: Shape,
    rng: ChaCha8Rng,
}

impl Filler {
    /// A filler for the filesystem mounted at `root`.
    pub fn new(root: &Path, shape: Shape) -> Filler {
        Filler { root: root.to_path_buf(), shape, rng: ChaCha8Rng::seed_from_u64(shape.seed) }
    }

    /// Makes one part.
    pub fn part(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Directories => self.directories(),
            Part::FragmentedDirectories => self.fragmented_directories(),
            Part::BigDirectory(n, length) => self.big_directory(n, length),
            Part::Files => self.files(),
            Part::Extents(n) => self.extents(n),
            Part::Attributes => self.attributes(),
            Part::Links => self.links(),
            Part::Odd => self.odd(),
            Part::Reflink => self.reflink(),
            Part::Shared(n) => self.shared(n),
            Part::Exchange => self.exchange(),
            Part::Churn(n) => self.churn(n),
            Part::SparseInodes => self.sparse_inodes(),
            Part::Owners => self.owners(),
            Part::Realtime => self.realtime(),
            Part::Cases => self.cases(),
        }
        .with_context(|| format!("filling {part:?}"))
    }

    fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        let mut data = vec![0; length as usize];
        self.rng.fill_bytes(&mut data);
        data
    }

    fn name(&mut self, number: usize, length: usize) -> String {
        let mut name = format!("{number:06}-");
        while name.len() < length {
            name.push(char::from(self.rng.random_range(b'a'..=b'z')));
        }
        name
    }

    /// `count` entries in a directory: mostly links to one file, because links are quick, and some of every other kind.
    fn entries(&mut self, dir: &Path, count: usize, length: usize) -> Result<Vec<PathBuf>> {
        let target = dir.join("t");
        fs::write(&target, b"target")?;
        let mut all = Vec::with_capacity(count);
        for i in 1..count {
            let path = dir.join(self.name(i, length));
            match i % 64 {
                10 => fs::write(&path, format!("{i}"))?,
                20 => symlink("t", &path)?,
                30 => fs::create_dir(&path)?,
                40 => node(&path, FileType::Fifo, 0)?,
                _ => fs::hard_link(&target, &path)?,
            }
            all.push(path);
        }
        Ok(all)
    }
}

impl Shape {
    /// Bytes of an inode's literal area: what a data fork may have when there are no attributes.
    fn inline(&self) -> u64 {
        self.inode - 176
    }
}

fn remove(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir(path)?
    } else {
        fs::remove_file(path)?
    }
    Ok(())
}

fn node(path: &Path, kind: FileType, device: u64) -> Result<()> {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device)?;
    Ok(())
}

/// Shares blocks: on XFS a copy of whole blocks within one filesystem clones them.
fn share(from: &File, at: u64, to: &File, to_at: u64, length: u64) -> Result<()> {
    let (mut from_at, mut to_at, end) = (at, to_at, at + length);
    while from_at < end {
        let rest = (end - from_at) as usize;
        let n = rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), rest)?;
        anyhow::ensure!(n > 0, "copy_file_range came to an end early");
    }
    Ok(())
}
