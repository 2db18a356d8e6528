//! The command line: options with suboptions, as mkfs.xfs has them.

use crate::config;
use crate::values::{Given, Units};
use anyhow::{Context, Result, bail};
use libxfsr::mkfs::Options;
use std::ffi::OsString;
use std::path::PathBuf;

/// What `--help` prints.
const HELP: &str = "\
Usage: xfsr-mkfs [options] DEVICE
Makes an XFS v5 filesystem on a device or in an image file. Options are those of mkfs.xfs:
  -b size=NUM                    block size, 1024 to 65536
  -c options=FILE                read options from a configuration file (INI)
  -d name=PATH,file[=0|1],size=NUM,agcount=N,agsize=NUM,su=NUM,sw=N,sunit=N,swidth=N,
     noalign,sectsize=NUM,unwritten=1,rtinherit[=0|1],cowextsize=N,extszinherit=N,
     projinherit=N               data section
  -f                             overwrite what is there
  -i size=NUM,perblock=N,maxpct=N,align=1,attr=2,projid32bit=1,sparse[=0|1],
     nrext64[=0|1],exchange[=0|1]   inodes
  -K                             do not discard
  -l internal[=0|1],logdev=PATH,size=NUM,agnum=N,su=NUM,sunit=N,sectsize=NUM,version=2,
     lazy-count=1                log
  -L LABEL                       label, at most 12 bytes
  -m crc=1,finobt=0|1,inobtcount=0|1,bigtime=0|1,reflink=0|1,rmapbt=0|1,metadir=0|1,
     uuid=UUID                   features
  -n size=NUM,version=2|ci,ftype=1,parent[=0|1]   directories
  -N                             print the geometry, make nothing
  -q                             print nothing
  -r rtdev=PATH,size=NUM,extsize=NUM,noalign      realtime section
  -s size=NUM                    sector size, 512 to 32768
  -V                             print the version
  --json                         print the geometry as JSON
NUM is bytes, or takes a suffix: s (sectors), b (blocks), k, m, g, t, p, e.
";

/// A parsed command line.
#[derive(Debug, Default)]
pub(crate) struct Args {
    pub(crate) options: Options,
    pub(crate) device: Option<PathBuf>,
    /// The target is to be a regular file of the given size, made where it is missing.
    pub(crate) file: bool,
    pub(crate) log_device: Option<PathBuf>,
    pub(crate) rt_device: Option<PathBuf>,
    pub(crate) force: bool,
    pub(crate) quiet: bool,
    pub(crate) dry_run: bool,
    pub(crate) no_discard: bool,
    pub(crate) json: bool,
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
            "--help" | "-h" => args.only = Some(HELP.to_owned()),
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
                        'f' => args.force = true,
                        'q' => args.quiet = true,
                        'N' => args.dry_run = true,
                        'K' => args.no_discard = true,
                        'V' => args.only = Some(version()),
                        'L' if label.is_some() => bail!("-L is given twice"),
                        'L' => label = Some(value()?),
                        'c' => config::read(&value()?, &mut given)?,
                        'p' => bail!("-p is not supported: a filesystem from a prototype file cannot be made yet"),
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

fn version() -> String {
    format!("xfsr-mkfs version {}\n", env!("CARGO_PKG_VERSION"))
}
