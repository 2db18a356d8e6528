//! What is remembered of the cases of an image, beside the corpus: which bytes xfs_db changed, and what xfs_repair said of them.
//!
//! Both are decided by the bytes of the image and the versions of those tools, which name the file; so an interrupted run goes on,
//! and a run with another state of the library costs only its own check.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::Digest as _;

use super::bench::data_ranges;
use super::{Case, Patch, Workbench};
use crate::corpus::{self, manifest::hex};
use crate::oracle::{self, Devices};

/// What xfs_repair -n said of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stock {
    /// Its exit status.
    pub code: i32,
    /// The first lines that tell of damage.
    pub said: Vec<String>,
}

impl Stock {
    /// Whether it called the image anything but clean.
    pub fn damaged(&self) -> bool {
        self.code != 0
    }
}

/// What was remembered of one image.
pub(super) struct Ledger {
    patches: Mutex<HashMap<String, Patch>>,
    stock: Mutex<HashMap<String, Stock>>,
    file: Mutex<File>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok()).collect()
}

fn fingerprint(patch: &Patch) -> String {
    let mut sum = sha2::Sha256::new();
    for (at, _, new) in &patch.runs {
        sum.update(at.to_le_bytes());
        sum.update((new.len() as u64).to_le_bytes());
        sum.update(new);
    }
    hex(&sum.finalize()[..12])
}

/// A hash of what the devices of a filesystem hold, whichever of their zeroes are holes.
fn content(devices: &Devices) -> Result<String> {
    const PIECE: usize = 64 << 10;
    let mut sum = sha2::Sha256::new();
    for path in [Some(&devices.data), devices.log.as_ref(), devices.rt.as_ref()].into_iter().flatten() {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        sum.update(length.to_le_bytes());
        let mut piece = vec![0; PIECE];
        let mut last = None;
        for (start, count) in data_ranges(&file)? {
            let first = start / PIECE as u64;
            for index in first..(start + count).div_ceil(PIECE as u64) {
                let at = index * PIECE as u64;
                let n = (length - at).min(PIECE as u64) as usize;
                file.read_exact_at(&mut piece[..n], at)?;
                if last < Some(index) && piece[..n].iter().any(|b| *b != 0) {
                    sum.update(at.to_le_bytes());
                    sum.update(&piece[..n]);
                }
                last = last.max(Some(index));
            }
        }
    }
    Ok(hex(&sum.finalize()[..8]))
}

fn path(image: &str) -> Result<PathBuf> {
    let directory = corpus::directory().join("damage");
    std::fs::create_dir_all(&directory)?;
    let version: String = versions()?.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
    Ok(directory.join(format!("{image}-{}-{version}.jsonl", content(&corpus::devices(image))?)))
}

/// The versions of the tools whose answers are remembered.
pub fn versions() -> Result<String> {
    let text = crate::output("xfs_repair", &["-V"])?;
    Ok(String::from_utf8_lossy(&text.stdout).trim().to_owned())
}

/// The lines of xfs_repair's output that are no headings.
fn complaints(output: &str) -> Vec<String> {
    let heading = |l: &str| {
        l.is_empty() || ["Phase ", "- ", "No modify flag set", "Maximum metadata LSN"].iter().any(|h| l.starts_with(h))
    };
    output.lines().map(str::trim).filter(|l| !heading(l)).take(2).map(str::to_owned).collect()
}

impl Ledger {
    pub(super) fn open(image: &str) -> Result<Ledger> {
        Ledger::read(&path(image)?)
    }

    fn read(path: &Path) -> Result<Ledger> {
        let (mut patches, mut stock) = (HashMap::new(), HashMap::new());
        if let Ok(file) = File::open(path) {
            for line in BufReader::new(file).lines() {
                // The last line may be cut off.
                let Ok(v) = serde_json::from_str::<Value>(&line?) else { continue };
                if let (Some(case), Some(runs)) = (v["case"].as_str(), v["runs"].as_array()) {
                    let run = |r: &Value| Some((r[0].as_u64()?, bytes(r[1].as_str()?)?, bytes(r[2].as_str()?)?));
                    let runs: Option<Vec<_>> = runs.iter().map(run).collect();
                    patches.insert(case.to_owned(), Patch { runs: runs.context("ledger")? });
                } else if let (Some(patch), Some(code)) = (v["patch"].as_str(), v["code"].as_i64()) {
                    let said = v["said"].as_array().into_iter().flatten().filter_map(Value::as_str);
                    let said = said.map(str::to_owned).collect();
                    stock.insert(patch.to_owned(), Stock { code: i32::try_from(code)?, said });
                }
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Ledger { patches: Mutex::new(patches), stock: Mutex::new(stock), file: Mutex::new(file) })
    }

    fn note(&self, line: &Value) -> Result<()> {
        Ok(lock(&self.file).write_all(format!("{line}\n").as_bytes())?)
    }

    /// What a case changes.
    pub(super) fn patch(&self, bench: &Workbench, case: &Case) -> Result<Patch> {
        let name = case.to_string();
        if let Some(patch) = lock(&self.patches).get(&name) {
            return Ok(patch.clone());
        }
        let patch = bench.patch(case)?;
        let runs: Vec<_> = patch.runs.iter().map(|(at, old, new)| json!([at, hex(old), hex(new)])).collect();
        self.note(&json!({"case": name, "runs": runs}))?;
        lock(&self.patches).insert(name, patch.clone());
        Ok(patch)
    }

    /// What xfs_repair says of a patch; where it need not be asked, only what it said before.
    pub(super) fn stock(&self, bench: &Workbench, patch: &Patch, needed: bool) -> Result<Option<Stock>> {
        let print = fingerprint(patch);
        let known = lock(&self.stock).get(&print).cloned();
        if known.is_some() || !needed {
            return Ok(known);
        }
        patch.apply(bench.file())?;
        let verdict = oracle::xfs_repair_n(bench.devices(), &["-P"]);
        patch.undo(bench.file())?;
        let verdict = verdict?;
        let stock = Stock { code: verdict.code, said: complaints(&verdict.output) };
        self.note(&json!({"patch": print, "code": stock.code, "said": stock.said}))?;
        lock(&self.stock).insert(print, stock.clone());
        Ok(Some(stock))
    }
}

#[cfg(test)]
mod tests {
    use super::{Ledger, complaints};

    #[test]
    fn what_was_noted_is_read_again_and_a_torn_line_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        std::fs::write(
            &path,
            "{\"case\":\"a\",\"runs\":[[8,\"00\",\"ff\"]]}\n{\"patch\":\"p\",\"code\":1,\"said\":[\"x\"]}\n{\"patch\":\"q",
        )
        .unwrap();
        let ledger = Ledger::read(&path).unwrap();
        assert_eq!(super::lock(&ledger.patches)["a"].runs, [(8, vec![0], vec![0xff])]);
        assert!(super::lock(&ledger.stock)["p"].damaged());
        assert_eq!(super::lock(&ledger.stock).len(), 1);
    }

    #[test]
    fn headings_are_no_complaints() {
        let said = complaints("Phase 1 - find\n        - agno = 0\nbad magic\n\nPhase 2 - x\nNo modify flag set, y\n");
        assert_eq!(said, ["bad magic"]);
    }
}
