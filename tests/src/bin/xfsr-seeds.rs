//! Cuts seeds for fuzzing out of the corpus: a few blocks of each kind of each image, each with the head that its target expects.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use xfsr_tests::corpus;
use xfsr_tests::fuzz::{self, HEAD, image};

/// The images, which have together every kind of block.
const IMAGES: [&str; 6] = ["fuzz", "rmap-1k", "parent", "dirty", "quota", "realtime"];

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(to), None) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        bail!("one argument: the directory that gets the seeds, one directory for each target");
    };
    let mut written = 0;
    for name in IMAGES {
        let Some(devices) = corpus::obtain(name) else { continue };
        let base = image::load(&devices.data);
        // The geometry with the block size of the image.
        let same = fuzz::geometries().iter().position(|g| g.block_size == base.geometry.block_size);
        let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
        for piece in &base.pieces {
            let n = taken.entry(piece.name).or_default();
            *n += 1;
            if *n % 17 != 1 || *n > 170 {
                continue;
            }
            let directory = to.join(fuzz::target_of(piece.name));
            std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
            let mut seed = vec![same.unwrap_or(0) as u8, 0];
            seed.extend(((piece.offset / 512) as u32).to_be_bytes());
            ensure!(seed.len() == HEAD, "the head of an input is another one");
            seed.extend(base.bytes(piece));
            let path = directory.join(format!("{name}-{}-{}", piece.name, piece.offset));
            std::fs::write(&path, seed).with_context(|| path.display().to_string())?;
            written += 1;
        }
    }
    ensure!(written > 0, "no image of the corpus can be made here");
    println!("{written} seeds in {}", to.display());
    Ok(())
}
