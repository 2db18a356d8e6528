//! Copying a tree into a new image: `xfsr-mkfs -p`, and mkfs.xfs, mount, `cp -a` and unmount. Both until it is on the disk.

use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use xfsr_tests::oracle::{Mount, mkfs_xfs, xfs_repair_n};

/// Files of a tree, and their sizes: most are small, few are large.
const SIZES: [u64; 8] = [700, 3000, 9000, 20_000, 60_000, 90_000, 200_000, 500_000];

/// Makes a tree of about so many bytes.
fn tree(root: &Path, bytes: u64) -> Result<()> {
    let _ = std::fs::remove_dir_all(root);
    let (mut left, mut n) = (bytes, 0u64);
    let contents: Vec<u8> = (0..500_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    while left > 0 {
        let directory = root.join(format!("d{}", n / 200));
        if n.is_multiple_of(200) {
            std::fs::create_dir_all(&directory)?;
        }
        let size = SIZES.get((n % 8) as usize).copied().unwrap_or(700).min(left);
        std::fs::write(directory.join(format!("file-{n}")), contents.get(..size as usize).unwrap_or_default())?;
        left -= size;
        n += 1;
    }
    Ok(())
}

fn run(program: &OsStr, arguments: &[&OsStr]) -> Result<()> {
    let done = Command::new(program).args(arguments).status().with_context(|| format!("{}", program.display()))?;
    ensure!(done.success(), "{}: {done}", program.display());
    Ok(())
}

/// Medians of the seconds that each took, in turn, with the tree in the page cache.
pub fn both(directory: &Path, mkfs: &Path, mib: u64, rounds: usize) -> Result<(f64, f64)> {
    std::fs::create_dir_all(directory)?;
    let (source, image) = (directory.join("populate-tree"), directory.join("populate.img"));
    tree(&source, mib << 20)?;
    let fresh = || -> Result<()> {
        let _ = std::fs::remove_file(&image);
        Ok(std::fs::File::create(&image)?.set_len((mib << 20) * 2 + (1 << 30))?)
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds.max(1) {
        fresh()?;
        rustix::fs::sync();
        let started = Instant::now();
        run(mkfs.as_ref(), &["-q".as_ref(), "-p".as_ref(), source.as_ref(), image.as_ref()])?;
        std::fs::File::open(&image)?.sync_all()?;
        ours.push(started.elapsed().as_secs_f64());
        let v = xfs_repair_n(&image, &[])?;
        ensure!(v.clean(), "{}", v.output);
        fresh()?;
        rustix::fs::sync();
        let started = Instant::now();
        mkfs_xfs(&[], &image)?;
        let mount = Mount::new(&image, "")?;
        run("cp".as_ref(), &["-a".as_ref(), source.join(".").as_ref(), mount.path().as_ref()])?;
        mount.unmount()?;
        std::fs::File::open(&image)?.sync_all()?;
        theirs.push(started.elapsed().as_secs_f64());
    }
    std::fs::remove_file(&image)?;
    std::fs::remove_dir_all(&source)?;
    Ok((crate::replay::median(&mut ours), crate::replay::median(&mut theirs)))
}
