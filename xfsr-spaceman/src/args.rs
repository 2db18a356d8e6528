//! The arguments: commands by `-c` as xfs_spaceman takes them, or one command as a subcommand.

use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand};
use libxfsr::cli::{Common, Manual, Units, parse_number, parse_size};
use libxfsr::units::AgNumber;
use std::path::PathBuf;

/// The definition, with exit statuses and examples.
pub(crate) fn manual() -> Manual {
    let exit = &[
        ("0", "done"),
        ("1", "failed: damage, an I/O error, a call that this kernel lacks"),
        ("2", "wrong usage"),
        ("130", "ended by Ctrl-C"),
    ];
    let examples = &[
        ("xfsr-spaceman -c 'freesp -s' -c frag disk.img", "free extents by size, and how fragmented files are"),
        ("xfsr-spaceman fsmap /mnt", "who owns each extent of a mounted filesystem"),
        ("xfsr-spaceman --json info /dev/sda1", "the geometry as JSON"),
    ];
    Manual::new(Cli::command(), exit, examples)
}

/// Shows the space of an XFS filesystem: an image, a device, or a mounted one
#[derive(Parser, Debug)]
#[command(name = "xfsr-spaceman", version, subcommand_negates_reqs = true)]
#[command(
    override_usage = "xfsr-spaceman [OPTIONS] -c <CMD>... <PATH>\n       xfsr-spaceman [OPTIONS] <COMMAND> [OPTIONS] <PATH>"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Run this command; may be given several times, and the answers of --json are then one array. Commands: freesp, fsmap, info, frag
    #[arg(short = 'c', value_name = "CMD", required = true)]
    pub(crate) commands: Vec<String>,
    /// Image, device, mount point, or any file on a mounted XFS
    #[arg(value_name = "PATH", required = true)]
    pub(crate) path: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) direct: Option<Direct>,
}

/// A command with its path.
#[derive(Subcommand, Debug)]
pub(crate) enum Direct {
    /// Histogram of free extents
    #[command(disable_help_flag = true)]
    Freesp {
        #[command(flatten)]
        options: Freesp,
        /// Image, device, mount point, or any file on a mounted XFS
        path: PathBuf,
    },
    /// Who owns each extent of the devices
    Fsmap {
        #[command(flatten)]
        options: Fsmap,
        /// Only what has part in the sectors of 512 bytes from this one on; needs -d, -l or -r
        #[arg(long, value_name = "SECTOR", requires = "device", value_parser = sector)]
        start: Option<u64>,
        /// Only what has part in the sectors up to this one
        #[arg(long, value_name = "SECTOR", requires = "device", value_parser = sector)]
        end: Option<u64>,
        /// Image, device, mount point, or any file on a mounted XFS
        path: PathBuf,
    },
    /// The geometry, in the layout of xfs_info
    Info {
        /// Image, device, mount point, or any file on a mounted XFS
        path: PathBuf,
    },
    /// How many extents files have, and how many they would need
    Frag {
        /// Image, device, mount point, or any file on a mounted XFS
        path: PathBuf,
    },
}

impl Direct {
    /// Splits into command and path.
    pub(crate) fn split(self) -> (Command, PathBuf) {
        match self {
            Self::Freesp { options, path } => (Command::Freesp(options), path),
            Self::Fsmap { options, start, end, path } => (Command::Fsmap { options, start, end }, path),
            Self::Info { path } => (Command::Info, path),
            Self::Frag { path } => (Command::Frag, path),
        }
    }
}

/// The text of a `-c`.
#[derive(Parser, Debug)]
#[command(name = "-c", no_binary_name = true, disable_help_subcommand = true)]
pub(crate) struct Line {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A command.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Histogram of free extents
    #[command(disable_help_flag = true)]
    Freesp(Freesp),
    /// Who owns each extent of the devices
    Fsmap {
        #[command(flatten)]
        options: Fsmap,
        /// Only what has part in the sectors of 512 bytes from this one on; needs -d, -l or -r
        #[arg(requires = "device", value_parser = sector)]
        start: Option<u64>,
        /// Only what has part in the sectors up to this one
        #[arg(value_parser = sector)]
        end: Option<u64>,
    },
    /// The geometry, in the layout of xfs_info
    Info,
    /// How many extents files have, and how many they would need
    Frag,
}

fn agno(text: &str) -> Result<AgNumber, String> {
    let number = parse_number(text)?;
    u32::try_from(number).map(AgNumber).map_err(|_| format!("there is no AG {number}"))
}

/// A sector that has a place in bytes.
fn sector(text: &str) -> Result<u64, String> {
    let number = parse_size(text, Units::default())?;
    if number >> 55 == 0 { Ok(number) } else { Err(format!("no device has a sector {number}")) }
}

/// Options of freesp.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub(crate) struct Freesp {
    /// Only this AG; may be given several times
    #[arg(short = 'a', value_name = "AGNO", value_parser = agno, conflicts_with = "realtime")]
    pub(crate) ags: Vec<AgNumber>,
    /// Bins that start at the powers of two (the default)
    #[arg(short = 'b', group = "bins")]
    pub(crate) powers: bool,
    /// Bins of this many blocks each
    #[arg(short = 'e', value_name = "BLOCKS", group = "bins", value_parser = parse_number)]
    pub(crate) equal: Option<u64>,
    /// A bin that starts at this many blocks; may be given several times
    #[arg(short = 'h', value_name = "BLOCKS", group = "bins", value_parser = parse_number)]
    pub(crate) from: Vec<u64>,
    /// Bins each this many times the one before
    #[arg(short = 'm', value_name = "FACTOR", group = "bins", value_parser = parse_number)]
    pub(crate) factor: Option<u64>,
    /// The realtime device instead of the AGs
    #[arg(short = 'r')]
    pub(crate) realtime: bool,
    /// Add totals
    #[arg(short = 's')]
    pub(crate) summary: bool,
    /// List each free extent: AG, block, blocks
    #[arg(short = 'd')]
    pub(crate) each: bool,
    /// Counts per AG instead of the histogram
    #[arg(short = 'g')]
    pub(crate) per_ag: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// Options of fsmap.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub(crate) struct Fsmap {
    /// Only the data device
    #[arg(short = 'd', group = "device")]
    pub(crate) data: bool,
    /// Only the external log
    #[arg(short = 'l', group = "device")]
    pub(crate) log: bool,
    /// Only the realtime device
    #[arg(short = 'r', group = "device")]
    pub(crate) realtime: bool,
}

/// The sectors of 512 bytes that fsmap tells of: the first and the last.
pub(crate) type Sectors = (Option<u64>, Option<u64>);
