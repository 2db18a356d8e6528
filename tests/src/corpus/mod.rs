//! Images that the Linux kernel wrote, made on demand and kept under `target/xfsr-corpus/`.
//!
//! Ask with [`image`] (or [`obtain`], which says `SKIPPED` where the machine cannot make it). An image is read-only: work on a
//! [`copy`]. Beside each image lies a manifest of what the kernel showed of it ([`manifest()`]).
//!
//! The key of an image is a hash of its recipe and of the code that fills it, so a change of either makes it anew. Set
//! `XFSR_CORPUS_DIR` to share the images between checkouts.

mod build;
mod change;
pub mod crash;
pub mod fill;
pub mod forms;
pub mod manifest;
mod orphan;
mod recipes;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub(crate) use build::set_incompat;
pub use fill::Part;
pub use forms::Form;
pub use manifest::Entry;
pub use recipes::{Change, EXCHANGE, End, PARENT, Recipe};

use crate::oracle::{self, Devices};
use crate::{copy_sparse, target_dir};

/// Raise this to have all images made anew.
const VERSION: u32 = 1;

/// All recipes.
pub fn all() -> &'static [Recipe] {
    recipes::RECIPES
}

/// The recipes of this test run: the quick ones, or all of them with `XFSR_FULL=1`.
pub fn selected() -> impl Iterator<Item = &'static Recipe> {
    let full = std::env::var_os("XFSR_FULL").is_some_and(|v| v == "1");
    all().iter().filter(move |r| full || r.quick)
}

/// The recipe of this name.
///
/// # Panics
/// Where there is none.
pub fn recipe(name: &str) -> &'static Recipe {
    all().iter().find(|r| r.name == name).unwrap_or_else(|| panic!("no recipe {name}"))
}

impl Recipe {
    /// What [`oracle::require`] must find for this image.
    pub fn needs(&self) -> Vec<&'static str> {
        let mut needs = oracle::MOUNT.to_vec();
        if self.guest {
            needs.push("guest");
        }
        needs
    }

    /// Whether `xfs_repair -n` 6.1 knows all features and shall find nothing.
    pub fn stock_clean(&self) -> bool {
        self.incompat == 0 && !self.metadir && !matches!(self.end, End::Dirty | End::Orphans)
    }

    fn key(&self) -> String {
        use sha2::Digest as _;
        let mut sum = sha2::Sha256::new();
        sum.update(format!("{VERSION} {self:?}"));
        fill::SOURCES.iter().for_each(|s| sum.update(s));
        match self.end {
            End::Clean => {}
            End::Dirty => sum.update(include_str!("crash.rs")),
            End::Orphans => sum.update(include_str!("orphan.rs")),
            End::Changed(_) => sum.update(include_str!("change.rs")),
        }
        manifest::hex(&sum.finalize()[..6])
    }

    /// The paths that its finished files have.
    fn files(&self) -> Files {
        let stem = directory().join(format!("{}-{}", self.name, self.key()));
        let with = |suffix: &str| PathBuf::from(format!("{}{suffix}", stem.display()));
        Files {
            devices: Devices {
                data: with(".img"),
                log: (self.log > 0).then(|| with(".log.img")),
                rt: (self.rt > 0).then(|| with(".rt.img")),
            },
            manifest: with(".manifest.jsonl"),
        }
    }
}

/// The files of one image.
struct Files {
    devices: Devices,
    manifest: PathBuf,
}

/// Where the corpus is kept.
pub fn directory() -> PathBuf {
    std::env::var_os("XFSR_CORPUS_DIR").map_or_else(|| target_dir().join("xfsr-corpus"), PathBuf::from)
}

/// The files of an image, made where they are missing. Do not write to them.
///
/// # Panics
/// Where the image cannot be made.
pub fn devices(name: &str) -> Devices {
    ensure(recipe(name)).unwrap_or_else(|e| panic!("corpus image {name}: {e:#}")).devices
}

/// The data device of an image, made where it is missing. Do not write to it.
///
/// # Panics
/// Where the image cannot be made.
pub fn image(name: &str) -> PathBuf {
    devices(name).data
}

/// As [`devices`], but where an oracle that it needs is missing it says `SKIPPED` and returns `None`.
///
/// # Panics
/// As [`devices`] and [`oracle::require`].
pub fn obtain(name: &str) -> Option<Devices> {
    oracle::require(&recipe(name).needs())?;
    Some(devices(name))
}

/// What the kernel showed of an image. Of a dirty one: what it showed after its recovery.
///
/// # Panics
/// Where the image cannot be made.
pub fn manifest(name: &str) -> Vec<Entry> {
    let read = || -> Result<Vec<Entry>> {
        let path = ensure(recipe(name))?.manifest;
        manifest::parse(&std::fs::read_to_string(&path).with_context(|| path.display().to_string())?)
    };
    read().unwrap_or_else(|e| panic!("corpus manifest {name}: {e:#}"))
}

/// Copies an image, with its log and realtime device, into a directory; sparse, sharing blocks where that is possible.
///
/// # Panics
/// Where that fails.
pub fn copy(name: &str, to: &Path) -> Devices {
    let from = devices(name);
    let one = |path: &Path, suffix: &str| {
        let target = to.join(format!("{name}{suffix}"));
        copy_sparse(path, &target).unwrap_or_else(|e| panic!("copy of {name}: {e:#}"));
        target
    };
    Devices {
        data: one(&from.data, ".img"),
        log: from.log.as_deref().map(|p| one(p, ".log.img")),
        rt: from.rt.as_deref().map(|p| one(p, ".rt.img")),
    }
}

fn ensure(recipe: &Recipe) -> Result<Files> {
    let files = recipe.files();
    // The manifest is put in place last, so it stands for the whole.
    if !files.manifest.exists() {
        build::build(recipe, &files)?;
    }
    Ok(files)
}
