//! Work on a mounted filesystem, drawn from a seed, that leaves every kind of item in its log: files grow, shrink, are cloned, named anew, linked
//! and removed while they are open, and get attributes of all sizes.

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const NAMES: u32 = 300;
const DIRECTORIES: u32 = 8;
const FILE: u64 = 1 << 20;

struct Work<'r> {
    root: &'r Path,
    rng: ChaCha8Rng,
    /// Removed, and still open.
    held: Vec<File>,
}

impl Work<'_> {
    fn path(&mut self) -> PathBuf {
        let directory = self.rng.random_range(0..=DIRECTORIES);
        let long = if self.rng.random_bool(0.2) { self.rng.random_range(0..120) } else { 0 };
        let name = format!("n{}{}", self.rng.random_range(0..NAMES), "x".repeat(long));
        if directory == DIRECTORIES { self.root.join(name) } else { self.root.join(format!("d{directory}")).join(name) }
    }

    /// One operation. What does not work, because a name is there or is not, does not matter.
    fn step(&mut self) -> std::io::Result<()> {
        let (a, b) = (self.path(), self.path());
        let (at, some) = (self.rng.random_range(0..FILE), self.rng.random_range(1..90_000));
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        match self.rng.random_range(0..13) {
            0..4 => {
                let mut bytes = vec![0; some];
                self.rng.fill(&mut bytes[..]);
                let file = OpenOptions::new().write(true).create(true).truncate(false).open(a)?;
                file.write_all_at(&bytes, at)
            }
            4 => fs::remove_file(a),
            5 => fs::rename(a, b),
            6 => fs::hard_link(a, b),
            7 => std::os::unix::fs::symlink("t".repeat(some % 600 + 1), a),
            8 => {
                let length = *[3, 50, 300, 3000, 20_000].choose(&mut self.rng).unwrap_or(&3);
                let mut value = vec![0; length];
                self.rng.fill(&mut value[..]);
                let name = format!("user.{}", self.rng.random_range(0..20));
                Ok(rustix::fs::setxattr(a, name, &value, rustix::fs::XattrFlags::empty())?)
            }
            9 => open(&a)?.set_len(at),
            10 => {
                let (from, to) = (File::open(a)?, File::create(b)?);
                Ok(rustix::fs::ioctl_ficlone(to, from)?)
            }
            11 => {
                self.held.push(File::open(&a)?);
                if self.held.len() > 20 {
                    self.held.remove(0);
                }
                fs::remove_file(a)
            }
            _ => Ok(rustix::fs::fallocate(open(&a)?, rustix::fs::FallocateFlags::empty(), at, some as u64)?),
        }
    }
}

/// Works for so long in a mounted filesystem. What was removed while it was open is given back, to be closed when all is over.
///
/// # Panics
/// Where the directories cannot be made.
pub fn work(root: &Path, seed: u64, time: Duration) -> Vec<File> {
    for d in 0..DIRECTORIES {
        fs::create_dir_all(root.join(format!("d{d}"))).expect("a directory");
    }
    let end = Instant::now() + time;
    let mut work = Work { root, rng: ChaCha8Rng::seed_from_u64(seed), held: Vec::new() };
    while Instant::now() < end {
        let _ = work.step();
        if work.rng.random_bool(0.01) {
            let _ = File::open(root).and_then(|d| d.sync_all());
        }
    }
    work.held
}
