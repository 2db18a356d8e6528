//! Images whose superblock was changed after it was made: another UUID, another size, another stripe.

use std::path::Path;

use anyhow::{Result, ensure};

use super::build::{Superblock, shape};
use super::fill::{Filler, Part, Shape};
use super::recipes::{Change, Recipe};
use crate::oracle::{self, Devices, Mount};
use crate::run;

/// Changes a filled filesystem and fills it further, so that it holds what was written before and after.
pub(super) fn change(recipe: &Recipe, change: Change, devices: &Devices) -> Result<()> {
    let xfs_growfs = |mount: &Mount, arguments: &[&str]| -> Result<()> {
        let path = mount.path().to_string_lossy().into_owned();
        run("xfs_growfs", &[arguments, &[path.as_str()]].concat())?;
        Ok(())
    };
    let before = Superblock::read(&devices.data)?;
    let mount = match change {
        Change::Uuid => {
            // What xfs_admin -U calls: the old UUID stays in the metadata, and the superblock says which one that is.
            oracle::xfs_db_write(devices, &["uuid 6f7c9d2e-3b1a-4c58-9e07-d4a2b8c6e1f0"])?;
            Mount::new(devices, recipe.mount)?
        }
        Change::Grown => {
            let mount = Mount::new(devices, recipe.mount)?;
            xfs_growfs(&mount, &[])?;
            mount
        }
        Change::Shrunk => {
            let mount = Mount::new(devices, recipe.mount)?;
            // A quarter of an AG less.
            let blocks = (before.u64(8) - u64::from(before.u32(84)) / 4).to_string();
            xfs_growfs(&mount, &["-D", &blocks])?;
            mount
        }
        // Half of the recipe's, in sectors: the kernel takes what leaves the root inode at the place where xfs_repair expects it.
        Change::Restriped => Mount::new(devices, "sunit=64,swidth=256")?,
    };
    fill(recipe, &devices.data, mount.path())?;
    mount.unmount()?;
    let now = Superblock::read(&devices.data)?;
    let differs = |range: std::ops::Range<usize>| now.bytes[range.clone()] != before.bytes[range];
    // UUID, number of blocks, stripe unit.
    let done = match change {
        Change::Uuid => differs(32..48) && now.bytes[248..264] == before.bytes[32..48],
        Change::Grown | Change::Shrunk => differs(8..16),
        Change::Restriped => differs(184..188),
    };
    ensure!(done, "{}: the superblock is as before", recipe.name);
    Ok(())
}

fn fill(recipe: &Recipe, image: &Path, root: &Path) -> Result<()> {
    let shape = shape(recipe, image)?;
    let after = root.join("after");
    std::fs::create_dir(&after)?;
    let mut filler = Filler::new(&after, Shape { seed: shape.seed ^ 1, ..shape });
    filler.part(Part::Links)?;
    filler.part(Part::Churn(300))
}
