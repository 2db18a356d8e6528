//! What is measured, and what is demanded of it.

use crate::images::{self, Image};
use crate::measure::{Before, Contender, Measured, take_turns};
use crate::phases;
use crate::report::{CaseResult, Requirement};
use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use std::path::{Path, PathBuf};
use std::process::Command;
use xfsr_tests::oracle::{self, Mount};

/// A case, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// 500,000 inodes in 1,000 directories, page cache warm
    Inodes,
    /// The same with the image out of the page cache before each run
    Cold,
    /// A directory of 1,000,000 entries and a file of 500,000 extents
    Huge,
    /// The same, cold
    HugeCold,
    /// Time per inode at 50,000 and 500,000 inodes, and 5,000,000 with --soak
    Growth,
    /// Making filesystems in sparse files of 1 TiB and 64 TiB
    Mkfs,
}

/// How to run cases.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Runs of each program that count.
    pub rounds: usize,
    /// Whether growth goes to 5,000,000 inodes.
    pub soak: bool,
    /// Whether the image of 5,000,000 inodes stays.
    pub keep: bool,
    /// Directory of our programs.
    pub programs: PathBuf,
}

/// Builds our release programs and returns their directory.
///
/// # Errors
/// When cargo fails.
pub fn programs() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = xfsr_tests::target_dir();
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "-p", "xfsr-repair", "-p", "xfsr-mkfs", "--target-dir"])
        .arg(&target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .status()
        .context("cargo build")?;
    if !status.success() {
        bail!("cargo build: {status}");
    }
    Ok(target.join("release"))
}

impl Settings {
    fn ours(&self, program: &str) -> String {
        self.programs.join(program).display().to_string()
    }

    fn repair(&self, name: &str, image: &Path, before: Before) -> Contender {
        let command = vec![self.ours("xfsr-repair"), "-n".into(), image.display().to_string()];
        Contender { name: name.to_owned(), command, before }
    }
}

fn stock_repair(image: &Path, before: Before) -> Contender {
    let command = vec!["xfs_repair".into(), "-n".into(), "-f".into(), image.display().to_string()];
    Contender { name: "xfs_repair -n".into(), command, before }
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { f64::INFINITY }
}

/// A third of the time and memory of the peer.
const THIRD: f64 = 1.0 / 3.0;

impl Case {
    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
    }

    /// Measures.
    ///
    /// # Errors
    /// When an image cannot be made or a program fails.
    pub fn run(self, s: &Settings) -> Result<CaseResult> {
        let title = self.to_possible_value().and_then(|v| v.get_help().map(ToString::to_string)).unwrap_or_default();
        let (measured, requirements, phases) = match self {
            Case::Inodes => checks(s, Image::Inodes(500_000), false)?,
            Case::Cold => checks(s, Image::Inodes(500_000), true)?,
            Case::Huge => checks(s, Image::Huge, false)?,
            Case::HugeCold => checks(s, Image::Huge, true)?,
            Case::Growth => growth(s)?,
            Case::Mkfs => mkfs(s)?,
        };
        Ok(CaseResult { case: self.name(), title, measured, requirements, phases })
    }
}

type Parts = (Vec<Measured>, Vec<Requirement>, Vec<phases::Phase>);

fn checks(s: &Settings, image: Image, cold: bool) -> Result<Parts> {
    let path = image.obtain()?;
    let before = if cold { Before::Cold(path.clone()) } else { Before::Warm };
    let contenders = [s.repair("xfsr-repair -n", &path, before.clone()), stock_repair(&path, before)];
    let measured = take_turns(&contenders, s.rounds)?;
    let requirements = match &measured[..] {
        // Cold runs are told, not judged: they time the disk.
        [ours, stock] if !cold => vec![
            Requirement::at_most("wall time against xfs_repair -n", ratio(ours.wall, stock.wall), THIRD),
            Requirement::at_most("peak memory against xfs_repair -n", ratio(ours.peak_mb, stock.peak_mb), THIRD),
        ],
        _ => Vec::new(),
    };
    Ok((measured, requirements, phases::of(&path)?))
}

fn growth(s: &Settings) -> Result<Parts> {
    let mut sizes = vec![50_000u64, 500_000];
    if s.soak {
        sizes.push(5_000_000);
    }
    let mut contenders = Vec::new();
    let mut images = Vec::new();
    for n in &sizes {
        let path = Image::Inodes(*n).obtain()?;
        contenders.push(s.repair(&format!("xfsr-repair -n, {n} inodes"), &path, Before::Warm));
        images.push(path);
    }
    let mut measured = take_turns(&contenders, s.rounds)?;
    let mut requirements = Vec::new();
    for (m, n) in measured.windows(2).zip(sizes.windows(2)) {
        if let ([small, large], [few, many]) = (m, n) {
            let per_inode = |m: &Measured, n: u64| m.wall / n as f64;
            let what = format!(
                "time per inode at {many} ({:.0} ns) against {few} ({:.0} ns)",
                per_inode(large, *many) * 1e9,
                per_inode(small, *few) * 1e9
            );
            requirements.push(Requirement::at_most(what, ratio(per_inode(large, *many), per_inode(small, *few)), 1.2));
        }
    }
    let phases = images.last().map_or(Ok(Vec::new()), |p| phases::of(p))?;
    if s.soak
        && let Some(path) = images.last()
    {
        // Once: it takes long, and nothing is demanded of it here.
        measured.extend(take_turns(&[stock_repair(path, Before::Warm)], 1)?);
        if !s.keep {
            std::fs::remove_file(path)?;
        }
    }
    Ok((measured, requirements, phases))
}

fn mkfs(s: &Settings) -> Result<Parts> {
    let directory = images::directory();
    std::fs::create_dir_all(&directory)?;
    // The filesystem of the directory may not hold files of 64 TiB; XFS does.
    let host = directory.join("host.img");
    let _lock = xfsr_tests::FileLock::take(&directory.join("host.img.lock"))?;
    std::fs::File::create(&host)?.set_len(8 << 30)?;
    oracle::mkfs_xfs(&[], &host)?;
    let mount = Mount::new(&host, "")?;
    let file = mount.path().join("sparse");
    let (mut measured, mut requirements) = (Vec::new(), Vec::new());
    for tib in [1u64, 64] {
        let contender = |name: &str, program: String| Contender {
            name: format!("{name}, {tib} TiB"),
            command: vec![program, "-q".into(), "-f".into(), file.display().to_string()],
            before: Before::Sparse(file.clone(), tib << 40),
        };
        let both = [contender("xfsr-mkfs", s.ours("xfsr-mkfs")), contender("mkfs.xfs", "mkfs.xfs".into())];
        // A run lasts milliseconds: more of them, for a steady median.
        let m = take_turns(&both, 8 * s.rounds)?;
        if let [ours, stock] = &m[..] {
            let what = format!("wall time against mkfs.xfs, {tib} TiB");
            requirements.push(Requirement::at_most(what, ratio(ours.wall, stock.wall), 1.0));
        }
        measured.extend(m);
    }
    mount.unmount()?;
    std::fs::remove_file(&host)?;
    Ok((measured, requirements, Vec::new()))
}
