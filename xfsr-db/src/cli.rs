//! Arguments, and where commands come from: `-c`, a terminal, or standard input.

use crate::out::Out;
use crate::session::{Flow, Session};
use crate::writing::Writing;
use clap::{CommandFactory as _, Parser};
use libxfsr::cli::{self, Manual, ProgressMode, Reporter};
use libxfsr::control::{Control, Progress};
use libxfsr::error::Error;
use libxfsr::text::escape;
use libxfsr::volume::{Devices, Volume};
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// The definition, with exit statuses and examples.
pub(crate) fn manual() -> Manual {
    let exit =
        &[("0", "all commands were done"), ("1", "a command failed, or wrong usage"), ("130", "ended by Ctrl-C")];
    let examples = &[
        ("xfsr-db -c 'sb 0' -c print disk.img", "the primary superblock, field by field"),
        ("xfsr-db -c 'path /etc/fstab' -c cat disk.img", "a file's contents from an image that cannot be mounted"),
        ("xfsr-db -c 'rdump / /srv/saved' /dev/sda1", "all files, owners and attributes into a directory"),
        ("xfsr-db --restore dump.metadump disk.img", "a new image out of what xfs_metadump wrote"),
        ("xfsr-db -c help disk.img", "the commands"),
    ];
    let long = format!(
        "Runs a command instead of asking for them; may be repeated. `help` lists the commands.\n\n{}",
        crate::session::SYNTAX
    );
    Manual::new(Arguments::command().mut_arg("commands", |a| a.long_help(long)), exit, examples)
}

/// Looks inside an XFS filesystem, mountable or not, and gets files out of it. It writes only with -x.
#[derive(Debug, Parser)]
#[command(name = "xfsr-db", version, disable_version_flag = true)]
struct Arguments {
    /// Runs a command instead of asking for them; may be repeated.
    #[arg(short = 'c', value_name = "COMMAND")]
    commands: Vec<OsString>,
    /// Makes the new, sparse file DEVICE out of a metadump, to be looked at; there must be no such file yet.
    #[arg(long, value_name = "DUMP", conflicts_with_all = ["commands", "log", "realtime"])]
    restore: Option<PathBuf>,
    /// Reads only, also with -x.
    #[arg(short = 'r')]
    read_only: bool,
    /// Says that DEVICE is an image file.
    #[arg(short = 'f')]
    file: bool,
    /// The external log.
    #[arg(short = 'l', value_name = "LOGDEV")]
    log: Option<PathBuf>,
    /// The realtime device.
    #[arg(short = 'R', value_name = "RTDEV")]
    realtime: Option<PathBuf>,
    /// Allows commands that write: of files through the journal, which must be clean; of fields at once and past it. Each has the device for itself.
    #[arg(short = 'x')]
    expert: bool,
    /// Shows the disk as it is where the log is dirty, as xfs_db does. Without it what is shown is as it is after recovery of the log, in memory.
    #[arg(long)]
    as_is: bool,
    /// Looks at a mounted filesystem only where it is mounted read-only.
    #[arg(short = 'i')]
    consistent: bool,
    /// Would go on without any superblock: refused, because then nothing can be found.
    #[arg(short = 'F')]
    force: bool,
    /// Name to put before errors.
    #[arg(short = 'p', value_name = "PROGNAME", default_value = "xfsr-db")]
    program: String,
    /// Tell the progress of long work on standard error: as text (only on a terminal), as JSON lines, or not
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    progress: ProgressMode,
    /// Shows the version.
    #[arg(short = 'V')]
    version: bool,
    /// Device or image file.
    #[arg(required_unless_present = "version")]
    device: Option<PathBuf>,
}

/// Bytes of a line on standard input.
const LONGEST_LINE: u64 = 1 << 20;

/// The exit status, unless Ctrl-C has come.
fn exit(status: u8) -> u8 {
    if cli::interrupted() { cli::exit::INTERRUPTED } else { status }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("xfsr-db: {message}");
    ExitCode::from(1)
}

pub(crate) fn main() -> ExitCode {
    let arguments = match manual().parse::<Arguments>() {
        Ok(a) => a,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(u8::from(e.use_stderr()));
        }
    };
    if arguments.version {
        return match libxfsr::cli::print(concat!("xfsr-db version ", env!("CARGO_PKG_VERSION"), "\n")) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => fail(&e.to_string()),
        };
    }
    if arguments.force {
        return fail("-F is refused: without any usable superblock nothing can be found");
    }
    let Some(data) = arguments.device else { return fail("no device") };
    if let Err(e) = cli::watch() {
        eprintln!("xfsr-db: Ctrl-C will end it at once: {e}");
    }
    let reporter = Reporter::new(arguments.progress);
    let tell = |p: &Progress| reporter.tell(p);
    let control = Control { deadline: None, stop: &cli::interrupted, progress: Some(&tell), phase: None };
    if let Some(dump) = arguments.restore {
        let restored = crate::restore::into_image(&dump, &data, &control);
        reporter.clear();
        let told = restored.and_then(|d| cli::print(&crate::restore::summary(&data, &d)));
        return match told {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("xfsr-db: {e}");
                let stopped = matches!(e, libxfsr::Error::Stopped);
                ExitCode::from(if stopped { cli::exit::INTERRUPTED } else { 1 })
            }
        };
    }
    if arguments.file && !data.is_file() {
        return fail(&format!("-f: {} is no regular file", escape(data.as_os_str().as_encoded_bytes())));
    }
    let devices = Devices { data: data.clone(), log: arguments.log, realtime: arguments.realtime };
    let opened = Volume::open_with(&devices, &control);
    reporter.clear();
    let volume = match opened {
        Ok(v) => v,
        Err(e) => {
            eprintln!("xfsr-db: {e}");
            return ExitCode::from(exit(1));
        }
    };
    if arguments.consistent && volume.in_use().iter().any(|(_, by)| by.writable) {
        return fail("-i: mounted, and not read-only");
    }
    let mut as_is = None;
    let mut volume = volume;
    // What is written goes to the disk, so who writes sees the disk.
    let writes = arguments.expert && !arguments.read_only;
    if !arguments.as_is && !writes && cli::is_dirty(&volume, &control) {
        match cli::recovered_view("xfsr-db", &volume, &control) {
            Ok(view) => as_is = Some(std::mem::replace(&mut volume, view.volume)),
            Err(Error::Stopped) => return ExitCode::from(exit(1)),
            Err(e) => eprintln!("xfsr-db: the log cannot be replayed, not even in memory: {e}"),
        }
        reporter.clear();
    }
    cli::note_view("xfsr-db", &volume, "", &control);
    if volume.superblock_from.0 != 0 {
        eprintln!("xfsr-db: the primary superblock is unusable; using that of AG {}", volume.superblock_from);
    }
    let mut session = Session::new(volume, data, Out::standard(&arguments.program), arguments.progress);
    session.writing = match (arguments.expert, arguments.read_only) {
        (false, _) => Writing::Off,
        (true, true) => Writing::ReadOnly,
        (true, false) => Writing::On(devices),
    };
    session.as_is = as_is;
    let mut failed = false;
    let mut run = |line: &[u8]| {
        let flow = session.run(line).unwrap_or_else(|e| {
            session.out.complain(format_args!("{e}"));
            failed = true;
            Flow::Continue
        });
        session.out.flush();
        if session.out.broken() || cli::interrupted() { Flow::Quit } else { flow }
    };
    if !arguments.commands.is_empty() {
        let _ = arguments.commands.iter().any(|c| run(c.as_bytes()) == Flow::Quit);
    } else if std::io::stdin().is_terminal() {
        let Ok(mut editor) = rustyline::DefaultEditor::new() else { return fail("the terminal cannot be used") };
        while let Ok(line) = editor.readline("xfsr-db> ") {
            let _ = editor.add_history_entry(&line);
            if run(line.as_bytes()) == Flow::Quit {
                break;
            }
        }
        // Who sits at the terminal has seen the errors.
        return ExitCode::from(exit(0));
    } else {
        for line in cli::standard_lines(LONGEST_LINE) {
            match line {
                Ok(line) if run(&line) == Flow::Quit => break,
                Ok(_) => {}
                Err(e) => {
                    eprintln!("xfsr-db: {e}");
                    return ExitCode::from(exit(1));
                }
            }
        }
    }
    ExitCode::from(exit(if failed || session.out.lost() { session.status } else { 0 }))
}
