//! Runs the commands.

use crate::args::{Cli, Command, Freesp, Fsmap, Line, Sectors};
use crate::render;
use clap::Parser;
use libxfsr::Error;
use libxfsr::cli::{self, ExitCodes, Failure, Reporter, exit};
use libxfsr::control::Control;
use libxfsr::spaceman::{self, Bins, Device, MapRange, Source, SpaceBackend};
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;

const PROGRAM: &str = "xfsr-spaceman";
const CODES: ExitCodes = ExitCodes { usage: exit::USAGE, failed: exit::FAILED };

/// Cuts a command into words. Quotes and escapes are not needed: no argument of a command holds a blank.
fn parse_line(text: &str) -> Result<Command, clap::Error> {
    Line::try_parse_from(text.split_whitespace()).map(|l| l.command)
}

/// The program; gives its exit code.
pub(crate) fn main() -> u8 {
    let cli = match crate::args::manual().parse::<Cli>() {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    let common = cli.common;
    let (commands, path) = match (cli.direct, cli.path) {
        (Some(_), _) if !cli.commands.is_empty() => {
            return wrong("give either -c or a subcommand, not both");
        }
        (Some(direct), None) => {
            let (command, path) = direct.split();
            (vec![command], path)
        }
        (None, Some(path)) => match cli.commands.iter().map(|c| parse_line(c)).collect() {
            Ok(commands) => (commands, path),
            Err(e) => return usage(&e),
        },
        (Some(_), Some(path)) => {
            let path = libxfsr::text::escape(path.as_os_str().as_encoded_bytes());
            return wrong(&format!("{path}: the path comes after the subcommand"));
        }
        (None, None) => return wrong("no path is given"),
    };
    if let Err(e) = cli::watch() {
        cli::note(PROGRAM, &format!("Ctrl-C will end it at once: {e}"));
    }
    let reporter = Reporter::new(common.progress);
    let tell = |p: &libxfsr::control::Progress| reporter.tell(p);
    let control = Control { deadline: None, stop: &cli::interrupted, progress: Some(&tell), phase: None };
    let opened = Source::open(&path, &control);
    reporter.clear();
    let source = match opened {
        Ok(s) => s,
        Err(e) => return Failure::from(e).report(PROGRAM, common.json, CODES),
    };
    if let Some(volume) = source.volume() {
        cli::note_view(PROGRAM, volume, "; give the mount point to ask the kernel", &control);
    }
    // Several answers are the elements of one array, so that standard output is one document whatever is asked.
    let several = common.json && commands.len() > 1;
    let mut status = exit::OK;
    for (number, command) in commands.iter().enumerate() {
        if several && let Err(e) = cli::print(if number == 0 { "[\n" } else { ",\n" }) {
            return Failure::from(e).report(PROGRAM, false, CODES);
        }
        let reporter = Reporter::new(common.progress);
        let tell = |p: &libxfsr::control::Progress| reporter.tell(p);
        let control = Control { deadline: None, stop: &cli::interrupted, progress: Some(&tell), phase: None };
        status = run(command, source.backend(), common.json, &control, &reporter).unwrap_or_else(|e| {
            reporter.clear();
            Failure::from(e).report(PROGRAM, common.json, CODES)
        });
        if status != exit::OK {
            break;
        }
    }
    if several && let Err(e) = cli::print("]\n") {
        return Failure::from(e).report(PROGRAM, false, CODES);
    }
    status
}

fn usage(e: &clap::Error) -> u8 {
    cli::usage_error(PROGRAM, e, CODES)
}

fn wrong(sentence: &str) -> u8 {
    Failure::usage(sentence).report(PROGRAM, cli::wants_json(), CODES)
}

fn run(
    command: &Command,
    backend: &dyn SpaceBackend,
    json: bool,
    control: &Control<'_>,
    reporter: &Reporter,
) -> Result<u8, Error> {
    let (name, value, text) = match command {
        Command::Fsmap { options, start, end } => {
            let range = range(options, (*start, *end))?;
            return fsmap(range, backend, json, control, reporter);
        }
        Command::Freesp(options) => {
            let free = spaceman::collect(backend, &wanted(options), control)?;
            ("freesp", json!(free), render::freesp(&free, options.per_ag, options.summary))
        }
        Command::Info => {
            let report = backend.info()?;
            ("info", json!(report), report.render())
        }
        Command::Frag => {
            let frag = backend.frag(control)?;
            ("frag", json!(frag), render::frag(&frag))
        }
    };
    reporter.clear();
    if json {
        cli::print_json(&json!({ "command": name, "result": value })).map_err(written)?;
    } else {
        cli::print(&text)?;
    }
    Ok(exit::OK)
}

fn wanted(options: &Freesp) -> spaceman::Freesp {
    let bins = match (options.equal, options.factor) {
        _ if options.powers => Bins::Powers(2),
        (Some(width), _) => Bins::Equal(width),
        (None, Some(factor)) => Bins::Powers(factor),
        (None, None) if !options.from.is_empty() => Bins::From(options.from.clone()),
        _ => Bins::Powers(2),
    };
    spaceman::Freesp { realtime: options.realtime, ags: options.ags.clone(), bins, each_extent: options.each }
}

fn written(e: std::io::Error) -> Error {
    Error::Open { path: "standard output".to_owned(), cause: e }
}

/// Which mappings are asked for.
fn range(options: &Fsmap, (start, end): Sectors) -> Result<MapRange, Error> {
    let device = match options {
        Fsmap { data: true, .. } => Some(Device::Data),
        Fsmap { log: true, .. } => Some(Device::Log),
        Fsmap { realtime: true, .. } => Some(Device::Realtime),
        _ => None,
    };
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        return Err(Error::Invalid(format!("the range ends at sector {end}, before it starts at {start}").into()));
    }
    let last = end.map_or(u64::MAX, |e| (e << 9) + 511);
    Ok(MapRange { device, first: start.unwrap_or(0) << 9, last })
}

/// Prints mappings while they come: there may be more than fit in memory. Where they break off, their document says why; the status is
/// that of the program.
fn fsmap(
    range: MapRange,
    backend: &dyn SpaceBackend,
    json: bool,
    control: &Control<'_>,
    reporter: &Reporter,
) -> Result<u8, Error> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut number = 0u64;
    let mut result = if json { out.write_all(b"{\"command\":\"fsmap\",\"result\":[") } else { Ok(()) };
    let told = backend.fsmap(range, control, &mut |m| {
        let line = if json {
            let separator = if number == 0 { "\n" } else { ",\n" };
            format!("{separator}{}", json!(m))
        } else {
            render::fsmap(number, m)
        };
        number += 1;
        if result.is_ok() {
            result = out.write_all(line.as_bytes());
        }
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    reporter.clear();
    let mut status = exit::OK;
    match told {
        Err(e) if json => {
            let failure = Failure::from(e);
            status = failure.status(CODES);
            let error = json!(failure.document(CODES));
            result = result.and_then(|()| write!(out, "\n],\"complete\":false,\"error\":{error}}}\n"));
        }
        Err(e) => {
            // What came before it belongs before the reason, which is told whether or not that can be written.
            let _ = result.and_then(|()| out.flush());
            return Err(e);
        }
        Ok(()) if json => result = result.and_then(|()| out.write_all(b"\n],\"complete\":true}\n")),
        Ok(()) => {}
    }
    match result.and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(status),
        other => other.map(|()| status).map_err(written),
    }
}
