//! Check of an XFS filesystem; counterpart of xfs_scrub.
#![forbid(unsafe_code)]

use clap::{CommandFactory as _, Parser};
use libxfsr::check::Verdict;
use libxfsr::cli::{self, CheckArguments, CheckJob, ExitCodes, Failure, Manual};
use libxfsr::error::Severity;
use std::process::ExitCode;
use std::time::Duration;

const PROGRAM: &str = "xfsr-scrub";
const CODES: ExitCodes = ExitCodes { usage: 8, failed: 4 };

/// What to do about errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum OnErrors {
    /// Only tell of them
    Continue,
}

/// Checks an unmounted XFS filesystem, with the exit statuses of xfs_scrub
///
/// A mounted filesystem is refused. One with a dirty log is checked as it is after its recovery, in memory. Of xfs_scrub's options those are missing that need one: -C, -m, -x and -a.
#[derive(Parser)]
#[command(name = PROGRAM, version)]
struct Arguments {
    #[command(flatten)]
    check: CheckArguments,
    /// In the background: one thread. Twice: with a rest of 100 microseconds between two steps
    #[arg(short = 'b', action = clap::ArgAction::Count)]
    background: u8,
    /// What to do where errors are found. An unmounted filesystem cannot be shut down
    #[arg(short = 'e', value_name = "BEHAVIOUR", value_enum, default_value = "continue")]
    errors: OnErrors,
    /// Do not trim free space, which with -n never happens
    #[arg(short = 'k')]
    no_trim: bool,
    /// Tell on standard error how long each part took, and the memory
    #[arg(short = 'T')]
    timing: bool,
}

fn run(a: &Arguments) -> Result<u8, Failure> {
    let OnErrors::Continue = a.errors;
    let job = CheckJob {
        instead: ", or ask the kernel with xfs_scrub -n",
        threads: (a.background > 0).then_some(1),
        pause: Duration::from_micros(if a.background > 1 { 100 } else { 0 }),
        timing: a.timing,
        ..CheckJob::default()
    };
    let outcome = a.check.check(PROGRAM, &job)?;
    let mut code = u8::from(outcome.verdict() == Verdict::Damaged);
    code |= if outcome.count(Severity::Preen) > 0 { 2 } else { 0 };
    code |= if outcome.dirty_log || outcome.is_incomplete() { 4 } else { 0 };
    Ok(code)
}

/// The program's arguments, exit statuses and examples.
pub fn manual() -> Manual {
    let exit = &[
        ("0", "nothing is wrong; else a sum of the following"),
        ("1", "damage was found and left"),
        ("2", "something could be optimised"),
        (
            "4",
            "the check or a part of it could not be made: an error, a dirty log that cannot be recovered in memory to the end, a mounted filesystem",
        ),
        ("8", "wrong usage, a wrong or missing log device among it"),
        ("130", "ended by Ctrl-C"),
    ];
    let examples = &[
        ("xfsr-scrub -n /dev/sda1", "check an unmounted device"),
        ("xfsr-scrub -n --progress=json disk.img", "tell the progress as JSON lines on standard error"),
    ];
    Manual::new(Arguments::command(), exit, examples)
}

/// Runs the program.
pub fn main() -> ExitCode {
    cli::run(&manual(), CODES, run)
}
