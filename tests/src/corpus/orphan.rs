//! What an interrupted kernel leaves behind where its log is gone: inodes that are in use and have no name.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{Mode, OFlags};

use super::build::{Superblock, shape};
use super::fill::Filler;
use super::recipes::Recipe;
use crate::copy_sparse;
use crate::oracle::{self, Devices, Mount};

/// Leaves inodes on the unlinked lists of an image with a clean log: a frozen filesystem is copied while files and directories
/// without names are open, and the copy gets a new log.
pub(super) fn orphan(recipe: &Recipe, devices: &Devices, aside: &Path) -> Result<()> {
    ensure!(recipe.log == 0, "orphans are made with an internal log only");
    let mount = Mount::new(devices, recipe.mount)?;
    let mut open = Vec::new();
    for i in 0..150 {
        let path = mount.path().join(format!("unlinked-{i}"));
        let file = File::create_new(&path)?;
        file.write_all_at(&vec![7; 300 * i], 0)?;
        open.push(file);
        fs::remove_file(&path)?;
    }
    // Not linked from the start, as temporary files are.
    for i in 0..10 {
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        let file = File::from(rustix::fs::open(mount.path(), flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all_at(&vec![8; 3000 * i], 0)?;
        open.push(file);
    }
    // Directories, alone and together with the one that they were in.
    let parent = mount.path().join("parent-of-removed");
    fs::create_dir(&parent)?;
    for i in 0..10 {
        let outer =
            if i % 2 == 0 { parent.join(format!("removed-{i}")) } else { mount.path().join(format!("removed-{i}")) };
        let inner = outer.join("inner");
        fs::create_dir_all(&inner)?;
        for path in [inner, outer] {
            open.push(File::open(&path)?);
            fs::remove_dir(&path)?;
        }
    }
    if recipe.parts.contains(&super::Part::Reflink) {
        Filler::new(mount.path(), shape(recipe, &devices.data)?).stage_copies()?;
    }
    rustix::fs::syncfs(File::open(mount.path())?)?;
    oracle::xfs_io(mount.path(), &["freeze"])?;
    let frozen = aside.join("frozen");
    let copied = copy_sparse(&devices.data, &frozen);
    oracle::xfs_io(mount.path(), &["thaw"])?;
    drop(open);
    mount.unmount()?;
    copied?;
    zero_log(&frozen)?;
    // Above every cycle that the filling can have used.
    oracle::xfs_db_write(&frozen, &["logformat -c 1000"])?;
    // The counters in a superblock are brought up to date by a clean unmount only.
    for _ in 0..2 {
        let verdict = oracle::xfs_repair_n(&frozen, &[])?;
        for line in verdict.output.lines().filter(|l| l.starts_with("sb_")) {
            let mut words = line[3..].split([' ', ',']).filter(|w| !w.is_empty());
            if let (Some(field), Some(_), Some("counted"), Some(counted)) =
                (words.next(), words.next(), words.next(), words.next())
            {
                oracle::xfs_db_write(&frozen, &["sb 0", &format!("write {field} {counted}")])?;
            }
        }
    }
    fs::rename(&frozen, &devices.data).context("the frozen copy")?;
    Ok(())
}

fn zero_log(image: &Path) -> Result<()> {
    let sb = Superblock::read(image)?;
    let (block, start, blocks) = (u64::from(sb.u32(4)), sb.u64(48), u64::from(sb.u32(96)));
    let (ag_blocks, aglog) = (u64::from(sb.u32(84)), sb.bytes[124]);
    let linear = (start >> aglog) * ag_blocks + (start & ((1 << aglog) - 1));
    let file = OpenOptions::new().write(true).open(image)?;
    let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, linear * block, blocks * block)?;
    Ok(())
}
