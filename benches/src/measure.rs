//! Programs that take turns, and the medians of what they took.

use crate::usage::{self, Usage};
use anyhow::{Result, bail};
use rustix::fs::Advice;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program with its arguments.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Name in the table.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// What is done before each run, beside the clock.
    pub before: Before,
}

/// What is done before a run, beside the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// Nothing: the page cache has what the run before left in it.
    Warm,
    /// The file leaves the page cache.
    Cold(PathBuf),
    /// The file is made anew: empty, sparse, with that many bytes.
    Sparse(PathBuf, u64),
}

/// Medians of one contender.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Name in the table.
    pub name: String,
    /// Wall time in seconds: median.
    pub wall: f64,
    /// Wall time of every run.
    pub walls: Vec<f64>,
    /// Processor time in seconds: median.
    pub cpu: f64,
    /// Peak memory in MB (1,000,000 bytes): median.
    pub peak_mb: f64,
}

impl Before {
    fn prepare(&self) -> Result<()> {
        match self {
            Before::Warm => Ok(()),
            Before::Cold(file) => forget(file),
            Before::Sparse(file, length) => {
                if file.exists() {
                    std::fs::remove_file(file)?;
                }
                std::fs::File::create(file)?.set_len(*length)?;
                Ok(())
            }
        }
    }
}

/// Takes a file out of the page cache.
///
/// # Errors
/// When it cannot be opened or written back.
pub fn forget(file: &Path) -> Result<()> {
    let f = std::fs::File::open(file)?;
    f.sync_all()?;
    rustix::fs::fadvise(&f, 0, None, Advice::DontNeed)?;
    Ok(())
}

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied().unwrap_or(0.0)
}

/// Runs all contenders in turn, `rounds` times after one round that does not count. Each must end with exit code 0.
///
/// # Errors
/// When one cannot be started or fails.
pub fn take_turns(contenders: &[Contender], rounds: usize) -> Result<Vec<Measured>> {
    let mut taken: Vec<Vec<Usage>> = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for (c, list) in contenders.iter().zip(&mut taken) {
            let Some((program, arguments)) = c.command.split_first() else { bail!("{}: no program", c.name) };
            c.before.prepare()?;
            let used = usage::run(Command::new(program).args(arguments))?;
            if used.code != 0 {
                bail!("{}: {} ended with {}", c.name, c.command.join(" "), used.code);
            }
            if round > 0 {
                list.push(used);
            }
        }
    }
    Ok(contenders
        .iter()
        .zip(&taken)
        .map(|(c, list)| {
            let of = |f: fn(&Usage) -> f64| list.iter().map(f).collect::<Vec<_>>();
            Measured {
                name: c.name.clone(),
                wall: median(&of(|u| u.wall)),
                walls: of(|u| u.wall),
                cpu: median(&of(|u| u.cpu)),
                peak_mb: median(&of(|u| u.peak_kib as f64)) * 1024.0 / 1e6,
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::{Before, Contender, median, take_turns};

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[5.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn memory_and_time_are_those_of_the_child() {
        let command = |c: &str| vec!["/bin/sh".into(), "-c".into(), c.into()];
        let sleeper = Contender { name: "sleep".into(), command: command("sleep 0.05"), before: Before::Warm };
        let failing = Contender { name: "fail".into(), command: command("exit 3"), before: Before::Warm };
        let m = take_turns(&[sleeper], 3).unwrap();
        assert_eq!(m[0].walls.len(), 3);
        assert!(m[0].wall >= 0.05 && m[0].cpu < 0.05 && m[0].peak_mb > 0.5, "{m:?}");
        assert!(take_turns(&[failing], 1).is_err());
    }
}
