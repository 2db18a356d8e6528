//! A session: the volume, the current position, the stack and the ring; which command does what.

use crate::commands::{
    address, attributes, btdump, btheight, convert, edit, files, frag, fsmap, limits, logprint, names, rdump, reserves,
    show, space, usage,
};
use crate::location::{Location, Ring};
use crate::out::{Out, complain, say};
use crate::writing::Writing;
use libxfsr::cache::OnDamage;
use libxfsr::cli::{ProgressMode, Reporter};
use libxfsr::control::{Control, Progress};
use libxfsr::inode::Inode;
use libxfsr::text::{escape, words};
use libxfsr::volume::Volume;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

/// What went wrong, in a sentence. Names in it are escaped.
pub(crate) type Outcome = Result<(), String>;

/// Whether to go on after a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    Continue,
    Quit,
}

/// The session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) volume: Volume,
    /// The disk as it is, where the volume is what recovery makes of it in memory.
    pub(crate) as_is: Option<Volume>,
    pub(crate) device: PathBuf,
    pub(crate) current: Option<Location>,
    pub(crate) stack: Vec<Location>,
    pub(crate) ring: Ring,
    pub(crate) out: Out,
    /// Files of commands that are being run.
    sources: u32,
    /// What `blockget` found out.
    pub(crate) usage: Option<usage::Usage>,
    /// How the progress of long commands is told.
    progress: ProgressMode,
    /// Whether commands may change the filesystem.
    pub(crate) writing: Writing,
    /// Exit status of a run in which something failed.
    pub(crate) status: u8,
}

/// A command: names, arguments, what it does, how.
type Command = (&'static [&'static str], &'static str, &'static str, How);

/// What a command takes: text, or bytes where the words may be names on the disk.
enum How {
    Text(fn(&mut Session, &[String]) -> Outcome),
    Bytes(fn(&mut Session, &[Vec<u8>]) -> Outcome),
}
use How::{Bytes, Text};

const COMMANDS: &[Command] = &[
    (&["ablock"], "filoff", "go to a block of the inode's attribute fork", Text(address::ablock)),
    (&["addr", "a"], "[field]", "show the position, or follow a field", Text(address::addr)),
    (&["agf"], "[agno]", "go to an AG's free space header", Text(|s, a| address::header(s, a, 1))),
    (&["agfl"], "[agno]", "go to an AG's free list", Text(|s, a| address::header(s, a, 3))),
    (&["agi"], "[agno]", "go to an AG's inode header", Text(|s, a| address::header(s, a, 2))),
    (&["agresv"], "[agno...]", "blocks kept for the growth of an AG's btrees", Text(reserves::agresv)),
    (&["attr_get"], "[-r|-s|-u|-p] name", "show an attribute of the current inode", Bytes(attributes::attr_get)),
    (&["attr_list"], "[-r|-s|-u|-p]", "list the attributes of the current inode", Bytes(attributes::attr_list)),
    (
        &["attr_remove"],
        "[-r|-s|-u] name",
        "remove an attribute from the current inode (with -x)",
        Bytes(attributes::attr_remove),
    ),
    (
        &["attr_set"],
        "[-r|-s|-u] [-R|-C] [-v length] name [value]",
        "set an attribute of the current inode (with -x): -R one that is there, -C one that is not; -v to so many letters v",
        Bytes(attributes::attr_set),
    ),
    (&["back", "b"], "", "go back in the ring", Text(|s, _| address::step(s, false))),
    (&["blockfree"], "", "forget what blockget found out", Text(|s, _| usage::blockfree(s))),
    (
        &["blockget", "check"],
        "[-npsv] [-b block]... [-i inode]...",
        "find out who owns which block",
        Text(usage::blockget),
    ),
    (
        &["blocktrash"],
        "-z [-o [+]offset] [-n count] [-x min] [-y max] [-s seed] [-0|-1|-2|-3]",
        "change random bits at the current position (-x only)",
        Text(edit::blocktrash),
    ),
    (&["blockuse"], "[-n] [-c count]", "show what the current blocks are used for", Text(usage::blockuse)),
    (&["bmap"], "[-ad]", "show the current inode's extents", Text(files::bmap)),
    (
        &["btdump"],
        "[-a] [-i]",
        "the btree from the current block or inode on: its records, with -i nodes too",
        Text(btdump::btdump),
    ),
    (
        &["btheight"],
        "[-b blksz] [-n recs] [-w max|min|absmax] type...",
        "blocks and levels of btrees (bnobt cntbt inobt finobt bmapbt refcountbt rmapbt all, or record:key:pointer:header)",
        Text(btheight::btheight),
    ),
    (&["cat"], "[path...]", "write the contents of files to standard output", Bytes(files::cat)),
    (&["convert"], "type number [type number...] type", "convert between kinds of addresses", Text(convert::convert)),
    (
        &["crc"],
        "[-i|-r|-v]",
        "verify the current structure's checksum; -r makes it right, -i wrong (-x only)",
        Text(show::crc),
    ),
    (&["daddr"], "[d]", "go to a disk address", Text(address::daddr)),
    (&["dblock"], "filoff", "go to a block of the inode's data fork", Text(address::dblock)),
    (&["dquot"], "[-g|-p|-u] id", "go to a quota record", Text(address::dquot)),
    (&["echo"], "[word...]", "write words", Bytes(echo)),
    (&["forward", "f"], "", "go forward in the ring", Text(|s, _| address::step(s, true))),
    (&["frag"], "[-adflqRrv]", "extents that files have, and the fewest they need", Text(frag::frag)),
    (
        &["freesp"],
        "[-bcds] [-A alignment] [-a agno] [-e size] [-h start] [-m factor]",
        "histogram of free extents",
        Text(space::freesp),
    ),
    (&["fsblock", "fsb"], "[fsb]", "go to a filesystem block", Text(address::fsblock)),
    (&["fsmap"], "[start_fsb] [end_fsb]", "owners of blocks by the reverse mapping btree", Text(fsmap::fsmap)),
    (
        &["fuzz"],
        "[-c|-d] field zeroes|ones|firstbit|middlebit|lastbit|add|sub|random",
        "change a field at random or not (-x only)",
        Text(edit::fuzz),
    ),
    (&["hash"], "name", "the hash by which a name is found", Bytes(convert::hash)),
    (&["help", "?"], "[command]", "this list", Text(help)),
    (&["info"], "", "the geometry, as mkfs.xfs prints it", Text(show::info)),
    (&["inode"], "[number]", "go to an inode", Text(address::inode)),
    (&["label"], "[label]", "the label, or set it, -- to nothing (-x only)", Text(show::label)),
    (
        &["logprint"],
        "[-dej] [-s block] | -t[beijoq]",
        "the log: records and operations as they lie there, from a block (-s) or records only (-d); or transactions and items between tail and \
         head (-t), with chunks of buffers (-b), inodes (-i), quota records (-q), all bytes (-o); -e ends with the first damage, -j is JSON",
        Text(logprint::logprint),
    ),
    (
        &["logres"],
        "[-k]",
        "what each type of transaction reserves of the log; -k as today's kernels compute it",
        Text(limits::logres),
    ),
    (&["ls"], "[-i] [path...]", "list directories", Bytes(files::ls)),
    (&["ncheck"], "[-s] [-i number]...", "names of inodes", Text(names::ncheck)),
    (&["path"], "path", "go to the inode at a path", Bytes(files::path)),
    (&["pop"], "", "take the position from the stack", Text(|s, _| address::pop(s))),
    (&["print", "p"], "[field...]", "show fields of the current structure", Text(show::print)),
    (&["push"], "[command [argument...]]", "put the position on the stack", Bytes(address::push)),
    (&["quit", "q"], "", "leave", Text(|_, _| Ok(()))),
    (&["rdump"], "[-s] [path...] directory", "copy files and directories out of the filesystem", Bytes(rdump::command)),
    (&["ring"], "[index]", "show the ring, or go to one of its positions", Text(address::ring)),
    (&["source"], "file", "run the commands in a file", Bytes(source)),
    (&["sb"], "[agno]", "go to a superblock", Text(|s, a| address::header(s, a, 0))),
    (&["stack"], "", "show the stack", Text(|s, _| address::stack(s))),
    (&["stat"], "[path...]", "show what stat(1) would show of inodes", Bytes(files::stat)),
    (
        &["timelimit"],
        "[--classic|--bigtime] [--pretty] [--compact]",
        "limits of times of inodes and of quota timers and grace periods, pretty ones in UTC",
        Text(limits::timelimit),
    ),
    (&["type"], "[type]", "show or set how the bytes are understood", Text(address::kind)),
    (&["uuid"], "[uuid|generate|restore|rewrite|nil]", "the UUID, or set it (-x only)", Text(show::uuid)),
    (&["version"], "[feature...]", "names of the features; setting one is not available", Text(show::version)),
    (
        &["write"],
        "[-c|-d] field value",
        "write a field, data or text (-x only); -d whatever it breaks, -c with the old checksum too",
        Text(edit::write),
    ),
];

/// How words are written and shown.
pub(crate) const SYNTAX: &str = "\
Names: a backslash takes the next character as it is, \\xHH is the byte with that number (two hexadecimal digits), and blanks part words
unless they stand behind a backslash or inside quotes, where backslashes mean the same. Names are shown in the same way, so that what ls,
ncheck, blockuse and stat show can be typed back. A path that begins with a minus sign is written ./-name.";

fn help(s: &mut Session, arguments: &[String]) -> Outcome {
    let wanted = arguments.first();
    let mut found = false;
    for (names, usage, what, _) in COMMANDS {
        if wanted.is_none_or(|w| names.contains(&w.as_str())) {
            found = true;
            let space = if usage.is_empty() { "" } else { " " };
            say!(s, "{}{space}{usage} -- {what}", names.join(", "));
        }
    }
    if wanted.is_none() {
        say!(s, "\n{SYNTAX}");
    }
    if found {
        Ok(())
    } else {
        Err(format!("no such command: {}", wanted.map_or_else(String::new, |w| escape(w.as_bytes()))))
    }
}

/// Files of commands inside each other.
const MAX_SOURCES: u32 = 16;
/// Bytes of a file of commands.
const MAX_SOURCE: u64 = 16 << 20;

fn echo(s: &mut Session, words: &[Vec<u8>]) -> Outcome {
    say!(s, "{}", words.iter().map(|w| escape(w)).collect::<Vec<_>>().join(" "));
    Ok(())
}

fn source(s: &mut Session, arguments: &[Vec<u8>]) -> Outcome {
    let [path] = arguments else { return Err("source takes one file".into()) };
    let name = escape(path);
    if s.sources >= MAX_SOURCES {
        return Err(format!("{name}: more than {MAX_SOURCES} files of commands inside each other"));
    }
    let text = libxfsr::cli::read_file(std::ffi::OsStr::from_bytes(path), MAX_SOURCE).map_err(|e| e.to_string())?;
    s.sources += 1;
    let mut failed = 0;
    for line in text.split(|b| *b == b'\n') {
        match s.run(line) {
            Ok(Flow::Quit) => break,
            Ok(Flow::Continue) => {}
            Err(e) => {
                complain!(s, "{e}");
                failed += 1;
            }
        }
        if s.out.broken() || libxfsr::cli::interrupted() {
            break;
        }
    }
    s.sources -= 1;
    if failed == 0 { Ok(()) } else { Err(format!("{name}: {failed} commands failed")) }
}

/// How many arguments a usage allows: one for each word, fewer by those in brackets. None where it has options or repeats.
fn allowed_arguments(usage: &str) -> Option<std::ops::RangeInclusive<usize>> {
    let plain = !usage.contains('-') && !usage.contains("...");
    let words = usage.split_whitespace();
    plain.then(|| words.clone().filter(|w| !w.starts_with('[')).count()..=words.count())
}

impl Session {
    pub(crate) fn new(volume: Volume, device: PathBuf, out: Out, progress: ProgressMode) -> Self {
        Self {
            volume,
            as_is: None,
            device,
            current: None,
            stack: Vec::new(),
            ring: Ring::default(),
            out,
            sources: 0,
            usage: None,
            progress,
            writing: Writing::Off,
            status: 1,
        }
    }

    /// Runs a line.
    pub(crate) fn run(&mut self, line: &[u8]) -> Result<Flow, String> {
        // A remark need not be made of words.
        if line.trim_ascii_start().starts_with(b"#") {
            return Ok(Flow::Continue);
        }
        self.run_words(&words(line)?)
    }

    /// Runs the command that is the first of these words.
    pub(crate) fn run_words(&mut self, words: &[Vec<u8>]) -> Result<Flow, String> {
        let Some((name, arguments)) = words.split_first() else { return Ok(Flow::Continue) };
        let Some(command) = COMMANDS.iter().find(|c| c.0.iter().any(|n| n.as_bytes() == name)) else {
            return Err(format!("command {} not found", escape(name)));
        };
        let name = escape(name);
        if let Some(allowed) = allowed_arguments(command.1)
            && !allowed.contains(&arguments.len())
        {
            let wanted = if command.1.is_empty() { "no arguments" } else { command.1 };
            return Err(format!("{name} takes {wanted}, and {} arguments were given", arguments.len()));
        }
        match command.3 {
            Bytes(run) => run(self, arguments)?,
            Text(run) => {
                let text = |w: &Vec<u8>| {
                    String::from_utf8(w.clone()).map_err(|_| format!("{name}: {} is not text", escape(w)))
                };
                run(self, &arguments.iter().map(text).collect::<Result<Vec<_>, _>>()?)?;
            }
        }
        Ok(if command.0.contains(&"quit") { Flow::Quit } else { Flow::Continue })
    }

    /// Does what may take long: shows how far it is, and lets Ctrl-C end it.
    pub(crate) fn watched<T>(&self, work: impl FnOnce(&Control<'_>) -> T) -> T {
        let reporter = Arc::new(Reporter::new(self.progress));
        self.out.watch(Some(reporter.clone()));
        let tell = |p: &Progress| reporter.tell(p);
        let result =
            work(&Control { deadline: None, stop: &libxfsr::cli::interrupted, progress: Some(&tell), phase: None });
        self.out.watch(None);
        result
    }

    /// The current position.
    pub(crate) fn here(&self) -> Result<&Location, String> {
        self.current.as_ref().ok_or_else(|| "no current position: go somewhere first, for example with sb 0".to_owned())
    }

    /// The current inode.
    pub(crate) fn current_inode(&self) -> Result<Inode, String> {
        let ino = self.current.as_ref().and_then(|l| l.ino).ok_or("no current inode")?;
        Inode::read(&self.volume, ino, OnDamage::Keep).map_err(|e| e.to_string())
    }

    /// Makes a position the current one.
    pub(crate) fn go(&mut self, mut to: Location) {
        to.ino = to.ino.or_else(|| self.current.as_ref()?.ino);
        to.dir = to.dir.or_else(|| self.current.as_ref()?.dir);
        self.ring.add(&to);
        self.current = Some(to);
    }
}

/// An unsigned number: decimal, `0x` or `0` octal as C writes them.
pub(crate) fn number(s: &str) -> Result<u64, String> {
    libxfsr::cli::parse_number(s)
}

#[cfg(test)]
mod tests {
    use super::{allowed_arguments, number};

    #[test]
    fn a_usage_says_how_many_arguments() {
        assert_eq!(allowed_arguments(""), Some(0..=0));
        assert_eq!(allowed_arguments("filoff"), Some(1..=1));
        assert_eq!(allowed_arguments("[agno]"), Some(0..=1));
        assert_eq!((allowed_arguments("[-v]"), allowed_arguments("[path...]")), (None, None));
    }

    #[test]
    fn numbers_are_those_of_c() {
        assert_eq!((number("0x10"), number("010"), number("10"), number("0")), (Ok(16), Ok(8), Ok(10), Ok(0)));
        assert!(number("-1").is_err());
    }
}
