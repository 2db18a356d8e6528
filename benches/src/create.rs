//! Creating files through the library, one thread: a hundred directories, files of no bytes.

use anyhow::Result;
use libxfsr::engine::{Filesystem, New, Options};
use libxfsr::volume::Devices;
use std::path::Path;
use std::time::Instant;

/// Files in each directory.
const IN_ONE: u64 = 5000;

/// Creates files on an image and says how many there were in a second, closing included.
pub fn here(image: &Path, files: u64) -> Result<f64> {
    let started = Instant::now();
    let fs = Filesystem::open(&Devices::data(image), &Options { cache: 256 << 20, ..Options::default() })?;
    let new = New::mode(0o644);
    let mut left = files;
    for d in 0.. {
        if left == 0 {
            break;
        }
        let dir = fs.root().mkdir(format!("d{d}").as_bytes(), &New::mode(0o755))?;
        for n in 0..left.min(IN_ONE) {
            dir.create(format!("file-{n:06}").as_bytes(), &new)?;
        }
        left -= left.min(IN_ONE);
    }
    fs.close()?;
    Ok(files as f64 / started.elapsed().as_secs_f64())
}

/// The same through the kernel, on a mounted filesystem that the caller unmounts; says seconds.
pub fn mounted(root: &Path, files: u64) -> Result<f64> {
    use std::os::unix::fs::OpenOptionsExt;
    let started = Instant::now();
    let mut left = files;
    for d in 0.. {
        if left == 0 {
            break;
        }
        let dir = root.join(format!("d{d}"));
        std::fs::create_dir(&dir)?;
        for n in 0..left.min(IN_ONE) {
            let path = dir.join(format!("file-{n:06}"));
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
        }
        left -= left.min(IN_ONE);
    }
    Ok(started.elapsed().as_secs_f64())
}

/// Both, on images of their own in that directory: files a second, with closing and unmounting.
pub fn both(directory: &Path, files: u64) -> Result<(f64, f64)> {
    std::fs::create_dir_all(directory)?;
    let image = |name: &str| -> Result<std::path::PathBuf> {
        let path = directory.join(name);
        let _ = std::fs::remove_file(&path);
        std::fs::File::create(&path)?.set_len(4 << 30)?;
        xfsr_tests::oracle::mkfs_xfs(&[], &path)?;
        Ok(path)
    };
    let (ours, theirs) = (image("create-library.img")?, image("create-kernel.img")?);
    let library = here(&ours, files)?;
    let started = Instant::now();
    let mount = xfsr_tests::oracle::Mount::new(&theirs, "")?;
    mounted(mount.path(), files)?;
    mount.unmount()?;
    let kernel = files as f64 / started.elapsed().as_secs_f64();
    let v = xfsr_tests::oracle::xfs_repair_n(&ours, &[])?;
    anyhow::ensure!(v.clean(), "{}", v.output);
    for path in [ours, theirs] {
        std::fs::remove_file(path)?;
    }
    Ok((library, kernel))
}
