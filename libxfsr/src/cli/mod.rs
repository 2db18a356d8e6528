//! What the programs share: sizes, output, exit codes, progress and Ctrl-C. Behind the cargo feature `cli`; the rest of the
//! library never prints.

mod checker;
mod failure;
mod input;
mod interrupt;
mod manual;
mod output;
mod progress;
mod recovery;
mod size;

pub use checker::{CheckArguments, CheckJob, Mounts, note_view, peak_memory};
pub use failure::{ExitCodes, Failure, run, usage_error, wants_json};
pub use input::{read_file, standard_lines};
pub use interrupt::{interrupted, watch};
pub use manual::Manual;
pub use output::{exit, note, print, print_json, print_json_to};
pub use progress::{ProgressMode, Reporter};
pub use recovery::{is_dirty, recover_devices, recovered_view};
pub use size::{Units, parse_number, parse_size, show_size};

/// Options that every program has. Flatten it into the program's own.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct Common {
    /// Print answers as JSON, and a failure as {"error": {"kind", "message", "exit_status"}}, on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Tell the progress of long work on standard error: as text (only on a terminal), as JSON lines, or not
    #[arg(long, global = true, value_enum, value_name = "FORM", default_value = "text")]
    pub progress: ProgressMode,
}
