//! The command line: options with suboptions, as mkfs.xfs has them.

use crate::config;
use crate::contents::Contents;
use crate::values::{Given, Units};
use anyhow::{Context, Result, bail};
use clap::ValueEnum as _;
use libxfsr::cli::ProgressMode;
use libxfsr::mkfs::Options;
use std::ffi::OsString;
use std::path::PathBuf;

/// A parsed command line.
#[derive(Debug, Default)]
pub(crate) struct Args {
    pub(crate) options: Options,
    pub(crate) device: Option<PathBuf>,
    /// The target is to be a regular file of the given size, made where it is missing.
    pub(crate) file: bool,
    pub(crate) log_device: Option<PathBuf>,
    /// The log device is to be a regular file, made where it is missing.
    pub(crate) log_file: bool,
    pub(crate) rt_device: Option<PathBuf>,
    /// The realtime device is to be a regular file, made where it is missing.
    pub(crate) rt_file: bool,
    /// What it is filled with.
    pub(crate) contents: Option<Contents>,
    pub(crate) force: bool,
    pub(crate) quiet: bool,
    pub(crate) dry_run: bool,
    pub(crate) no_discard: bool,
    pub(crate) json: bool,
    pub(crate) progress: ProgressMode,
    /// Print this and do nothing.
    pub(crate) only: Option<String>,
}

/// Parses the arguments that follow the program's name.
pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Args> {
    let mut args = Args::default();
    let mut given = Given::default();
    let mut devices = Vec::new();
    let mut label = None;
    let mut words = words;
    let mut options_end = false;
    while let Some(word) = words.next() {
        let text = word.to_str().map(str::to_owned);
        let Some(text) = text.filter(|t| !options_end && t.len() > 1 && t.starts_with('-')) else {
            devices.push(PathBuf::from(word));
            continue;
        };
        match text.as_str() {
            "--" => options_end = true,
            "--json" => args.json = true,
            "--progress" => {
                let form = words.next().with_context(|| "--progress needs a value")?;
                args.progress = progress(&form.to_string_lossy())?;
            }
            long if long.starts_with("--progress=") => {
                args.progress = progress(long.trim_start_matches("--progress="))?;
            }
            "--help" | "-h" => args.only = Some(help()),
            "--version" => args.only = Some(version()),
            long if long.starts_with("--") => bail!("{long} is not an option; --help lists them"),
            _ => {
                let mut letters = text.chars().skip(1);
                while let Some(letter) = letters.next() {
                    let mut value = || -> Result<String> {
                        let rest: String = letters.by_ref().collect();
                        if !rest.is_empty() {
                            return Ok(rest);
                        }
                        let next = words.next().with_context(|| format!("-{letter} needs a value"))?;
                        next.into_string().map_err(|v| anyhow::anyhow!("-{letter} {}: not UTF-8", v.display()))
                    };
                    match letter {
                        // Both, as mkfs.xfs has it.
                        'f' | 'C' => args.force = true,
                        'q' => args.quiet = true,
                        'N' => args.dry_run = true,
                        'K' => args.no_discard = true,
                        'V' => args.only = Some(version()),
                        'L' => label = Some(value()?),
                        'c' => config::read(&value()?, &mut given)?,
                        'p' => args.contents = Some(Contents::parse(&value()?)?),
                        'b' | 'd' | 'i' | 'l' | 'm' | 'n' | 'r' | 's' => given.add_list(letter, &value()?)?,
                        _ => bail!("-{letter} is not an option; --help lists them"),
                    }
                }
            }
        }
    }
    if args.only.is_some() {
        return Ok(args);
    }
    let units = Units::new(&given)?;
    given.apply(&units, &mut args)?;
    args.options.label = label;
    devices.extend(args.device.take());
    if devices.len() > 1 {
        bail!("more than one device is named ({} and {})", devices[0].display(), devices[1].display());
    }
    args.device = devices.pop();
    if args.device.is_none() {
        bail!("no device is named; --help shows how");
    }
    Ok(args)
}

fn progress(form: &str) -> Result<ProgressMode> {
    ProgressMode::from_str(form, false)
        .map_err(|_| anyhow::anyhow!("--progress={form} is not possible: text, json or none"))
}

fn help() -> String {
    crate::command::manual().command.render_help().to_string()
}

fn version() -> String {
    format!("xfsr-mkfs version {}\n", env!("CARGO_PKG_VERSION"))
}
