//! How an image comes to a dirty log.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{FallocateFlags, XattrFlags};

use super::fill::{Filler, Part, Shape};
use super::recipes::{EXCHANGE, Recipe};
use crate::oracle;

/// A burst of every kind of change on a mounted filesystem, and in the middle of it the filesystem goes down.
pub fn crash(recipe: &Recipe, root: &Path, shape: Shape) -> Result<()> {
    // Inodes that are open and have no name any more.
    let mut open = Vec::new();
    for i in 0..70 {
        let path = root.join(format!("unlinked-{i}"));
        let file = File::create_new(&path)?;
        file.write_all_at(&vec![i; 5000], u64::from(i) * 4096)?;
        open.push((path, file));
    }
    rustix::fs::syncfs(File::open(root)?)?;
    // From here on most is only in the log.
    let burst = root.join("burst");
    fs::create_dir(&burst)?;
    let mut filler = Filler::new(&burst, Shape { seed: shape.seed ^ 1, ..shape });
    filler.part(Part::Attributes)?;
    filler.part(Part::Links)?;
    filler.part(Part::Churn(900))?;
    for part in [Part::Reflink, Part::Exchange, Part::Owners] {
        if recipe.parts.contains(&part) {
            filler.part(part)?;
        }
    }
    let shares = recipe.parts.contains(&Part::Reflink);
    if shares {
        filler.stage_copies()?;
    }
    for (path, _) in &open {
        fs::remove_file(path)?;
    }
    for i in 0..300 {
        fs::remove_file(root.join(format!("links/l{i}")))?;
        fs::rename(root.join(format!("links/l{}", 400 + i)), root.join(format!("links/renamed-{i}")))?;
    }
    fs::remove_file(root.join("files/btree-small"))?;
    OpenOptions::new().write(true).open(root.join("files/large"))?.set_len(100_001)?;
    // Data that is only in memory when the end comes: over nothing, over preallocated space, behind the end, over shared blocks.
    let block = shape.block;
    let delayed = File::create_new(burst.join("delayed"))?;
    delayed.write_all_at(&vec![3; 50 * block as usize], 5 * block)?;
    let unwritten = File::create_new(burst.join("delayed-unwritten"))?;
    rustix::fs::fallocate(&unwritten, FallocateFlags::empty(), 0, 40 * block)?;
    unwritten.write_all_at(&vec![4; block as usize], 0)?;
    unwritten.sync_all()?;
    unwritten.write_all_at(&vec![5; 9 * block as usize], 8 * block)?;
    if shares {
        let shared = OpenOptions::new().write(true).open(root.join("reflink/clone-0"))?;
        shared.write_all_at(&vec![6; 3 * block as usize], 12 * block)?;
    }
    storm(recipe, root, shape)?;
    drop((open, delayed, unwritten));
    Ok(())
}

/// Changes that take several transactions each, from several threads, while another forces the log all the time: so intents
/// and what finishes them come into different records. It ends with the filesystem shut down in the middle.
fn storm(recipe: &Recipe, root: &Path, shape: Shape) -> Result<()> {
    let dir = root.join("storm");
    fs::create_dir(&dir)?;
    let stop = AtomicBool::new(false);
    // When the end comes everything fails, and that is what ends the threads; what fails before is found by their results.
    let go_on = |job: &dyn Fn(u64) -> Result<()>| -> Result<u64> {
        for i in 0.. {
            if stop.load(Ordering::Relaxed) {
                return Ok(i);
            }
            if let Err(e) = job(i) {
                return if stop.load(Ordering::Relaxed) { Ok(i) } else { Err(e) };
            }
        }
        Ok(0)
    };
    let shares = recipe.parts.contains(&Part::Reflink);
    let extents = |i: u64| fragments(&dir.join(format!("extents-{}", i % 7)), shape.block, 90, shares);
    let names = |i: u64| rename(&dir, i);
    let (parents, others) = (parents(&dir, "parents")?, parents(&dir, "others")?);
    let move_first = |i: u64| move_about(&parents, i);
    let move_second = |i: u64| move_about(&others, i);
    let exchange = |i: u64| exchange(&dir, shape.block, i);
    let force = |_| {
        let file = File::create(dir.join("forced"))?;
        file.write_all_at(b"forced", 0)?;
        Ok(file.sync_all()?)
    };
    std::thread::scope(|scope| -> Result<()> {
        type Job<'a> = (&'a str, &'a (dyn Fn(u64) -> Result<()> + Sync));
        let mut jobs: Vec<Job<'_>> = vec![
            ("extents", &extents),
            ("names", &names),
            ("first to move", &move_first),
            ("second to move", &move_second),
            ("force", &force),
        ];
        if recipe.incompat & EXCHANGE != 0 {
            jobs.push(("exchange", &exchange));
        }
        let threads: Vec<_> = jobs.into_iter().map(|(name, job)| (name, scope.spawn(|| go_on(&|i| job(i))))).collect();
        std::thread::sleep(Duration::from_millis(1500));
        stop.store(true, Ordering::Relaxed);
        let down = oracle::xfs_io(root, &["shutdown -f"]);
        for (name, thread) in threads {
            let done =
                thread.join().map_err(|_| anyhow::anyhow!("{name} panicked"))?.with_context(|| name.to_owned())?;
            ensure!(done > 0, "{name} was never done");
        }
        down
    })
}

/// Makes a file of many extents, shares it, writes to the copy, and removes both.
fn fragments(path: &Path, block: u64, count: u64, shares: bool) -> Result<()> {
    let copy = path.with_extension("copy");
    for old in [path, &copy] {
        if old.exists() {
            fs::remove_file(old)?;
        }
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    let data = vec![7; block as usize];
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, count * 2 * block)?;
    for i in 0..count {
        file.write_all_at(&data, 2 * i * block)?;
    }
    file.sync_data()?;
    if shares {
        let clone = File::create_new(&copy)?;
        rustix::fs::ioctl_ficlone(&clone, &file)?;
        for i in (0..count).step_by(9) {
            clone.write_all_at(&data, 2 * i * block)?;
        }
        clone.sync_data()?;
        clone.set_len(count * block)?;
    }
    file.set_len(0)?;
    Ok(())
}

/// Makes, links, renames and removes names; sets and replaces an attribute outside the inode.
fn rename(dir: &Path, i: u64) -> Result<()> {
    let sub = dir.join(format!("names-{}", i % 3));
    fs::create_dir_all(&sub)?;
    let (name, other) = (dir.join(format!("name-{i}")), sub.join(format!("other-{i}")));
    fs::write(&name, b"named")?;
    fs::hard_link(&name, dir.join(format!("link-{i}")))?;
    fs::rename(&name, &other)?;
    for value in [vec![1; 3000], vec![2; 5000]] {
        rustix::fs::setxattr(&other, "user.value", &value, XattrFlags::empty())?;
    }
    if i.is_multiple_of(2) {
        fs::remove_file(dir.join(format!("link-{i}")))?;
        fs::remove_file(&other)?;
    }
    Ok(())
}

/// A directory with a file whose attributes need an index: with parent pointers, a change of its name takes long.
fn parents(dir: &Path, name: &str) -> Result<PathBuf> {
    let sub = dir.join(name);
    fs::create_dir(&sub)?;
    let file = sub.join("0");
    fs::write(&file, b"moved about")?;
    for i in 0..300 {
        rustix::fs::setxattr(&file, format!("user.attribute-{i:04}"), &[5; 40], XattrFlags::empty())?;
    }
    Ok(sub)
}

/// Gives that file another name, and a second one that goes again.
fn move_about(sub: &Path, i: u64) -> Result<()> {
    let next = sub.join((i + 1).to_string());
    fs::rename(sub.join(i.to_string()), &next)?;
    let second = sub.join(format!("{}{i}", "long".repeat(50)));
    fs::hard_link(&next, &second)?;
    Ok(fs::remove_file(&second)?)
}

/// Exchanges two files of many extents.
fn exchange(dir: &Path, block: u64, i: u64) -> Result<()> {
    let length = 160 * block;
    let make = |name: String, first: u64| -> Result<File> {
        let path = dir.join(name);
        if path.exists() {
            return Ok(OpenOptions::new().read(true).write(true).open(path)?);
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length)?;
        for n in 0..80 {
            file.write_all_at(&vec![n as u8; block as usize], (2 * n + first) * block)?;
        }
        file.sync_all()?;
        Ok(file)
    };
    let (first, second) = (make(format!("exchange-{}", i % 2), 0)?, make(format!("exchanged-{}", i % 2), 1)?);
    libxfsr::kernel::exchange_range((&first, 0), (&second, 0), length)?;
    Ok(())
}
