//! Prototype files: `mkfs.xfs(8)`, option `-p`.
//!
//! Words between white space. First one that says nothing, then two numbers that say nothing either, then the root directory. A file is a mode of six
//! characters (kind, set-user-id, set-group-id, three octal digits), owner and group, and what its kind needs; a directory goes on with names and
//! files until a `$`. A word that begins with a colon begins a comment up to the end of its line.

use super::Filling;
use crate::engine::{Handle, New, Node, SetAttr};
use crate::error::{Error, Result};
use crate::text::escape;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Directories inside of each other, at most: no path could be longer.
const DEEPEST: usize = 2048;

struct Words<'a> {
    path: &'a Path,
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl<'a> Words<'a> {
    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        let name = escape(self.path.as_os_str().as_bytes());
        Error::invalid(format!("{name}, line {}: {what}", self.line))
    }
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }
    fn step(&mut self) {
        if self.peek() == Some(b'\n') {
            self.line += 1;
        }
        self.at += 1;
    }
    /// The next word, comments left out; none at the end.
    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
                self.step();
            }
            if self.peek()? != b':' {
                break;
            }
            while self.peek().is_some_and(|b| b != b'\n') {
                self.step();
            }
        }
        let start = self.at;
        while self.peek().is_some_and(|b| !b.is_ascii_whitespace()) {
            self.at += 1;
        }
        self.text.get(start..self.at)
    }
    fn word(&mut self, what: &str) -> Result<&'a [u8]> {
        self.next().ok_or_else(|| self.wrong(format_args!("it ends where {what} is expected")))
    }
    fn number(&mut self, what: &str) -> Result<u32> {
        let word = self.word(what)?;
        let number = std::str::from_utf8(word).ok().and_then(|w| w.parse().ok());
        number.ok_or_else(|| self.wrong(format_args!("{} is not {what}: a decimal number is expected", escape(word))))
    }
}

/// A file as its line begins.
struct Spec {
    kind: u8,
    new: New,
}

fn spec(words: &mut Words<'_>) -> Result<Spec> {
    let word = words.word("the mode of a file")?;
    let [kind, setuid, setgid, digits @ ..] = word else {
        return Err(words.wrong(format_args!("{} is no mode of six characters", escape(word))));
    };
    let bit = |c: u8, letter: u8, bit: u16| match c {
        b'-' => Some(0),
        c if c == letter => Some(bit),
        _ => None,
    };
    let octal = match digits {
        [a, b, c] if digits.iter().all(|d| (b'0'..=b'7').contains(d)) => {
            Some(u16::from(a - b'0') << 6 | u16::from(b - b'0') << 3 | u16::from(c - b'0'))
        }
        _ => None,
    };
    let parts = (bit(*setuid, b'u', 0o4000), bit(*setgid, b'g', 0o2000), octal);
    let (Some(setuid), Some(setgid), Some(octal)) = parts else {
        return Err(words.wrong(format_args!("{} is no mode: as in d-g755", escape(word))));
    };
    if !b"-bcdpl".contains(kind) {
        let kind = escape(&[*kind]);
        return Err(words.wrong(format_args!("{kind} is no kind of file: one of -bcdpl is expected")));
    }
    let (uid, gid) = (words.number("an owner")?, words.number("a group")?);
    Ok(Spec { kind: *kind, new: New { permissions: octal | setuid | setgid, uid, gid } })
}

/// Makes what the prototype says.
pub(super) fn run(f: &mut Filling<'_>, path: &Path, text: &[u8], slashes_are_spaces: bool) -> Result<()> {
    let words = &mut Words { path, text, at: 0, line: 1 };
    words.word("a first word, which says nothing,")?;
    words.number("a number of blocks, which says nothing,")?;
    words.number("a number of inodes, which says nothing,")?;
    let first = spec(words)?;
    if first.kind != b'd' {
        return Err(words.wrong("the first file must be the root directory"));
    }
    let root = f.fs.root();
    let new = first.new;
    let set =
        SetAttr { permissions: Some(new.permissions), uid: Some(new.uid), gid: Some(new.gid), ..SetAttr::default() };
    root.set_attr(&set)?;
    let mut open = vec![root];
    // The last `$` may be missing, as mkfs.xfs has it too.
    while let (Some(directory), Some(word)) = (open.last().cloned(), words.next()) {
        if word == b"$" {
            open.pop();
            continue;
        }
        let mut name = word.to_vec();
        if slashes_are_spaces {
            name.iter_mut().filter(|b| **b == b'/').for_each(|b| *b = b' ');
        }
        let line = words.line;
        let made = make(f, words, &directory, &name).map_err(|e| match e {
            Error::Exists(_) | Error::NameTooLong(_) => {
                let file = escape(path.as_os_str().as_bytes());
                Error::invalid(format!("{file}, line {line}: {e}"))
            }
            e => e,
        })?;
        f.count()?;
        if let Some(below) = made {
            if open.len() >= DEEPEST {
                return Err(words.wrong(format_args!("more than {DEEPEST} directories in each other")));
            }
            open.push(below);
        }
    }
    if open.is_empty() && words.next().is_some() {
        return Err(words.wrong("something follows the end of the root directory"));
    }
    Ok(())
}

/// Makes one file. A directory is given back: what follows is in it.
fn make(f: &mut Filling<'_>, words: &mut Words<'_>, dir: &Handle, name: &[u8]) -> Result<Option<Handle>> {
    let Spec { kind, new } = spec(words)?;
    let owned = |file: &Handle| -> Result<()> {
        // A directory with set-group-id hands that and its group down; the prototype says whose the file is, and mkfs.xfs keeps the bit.
        let made = file.stat()?;
        if made.gid == new.gid {
            return Ok(());
        }
        file.set_attr(&SetAttr { gid: Some(new.gid), ..SetAttr::default() })
    };
    let made = match kind {
        b'd' => dir.mkdir(name, &new)?,
        b'p' => dir.mknod(name, Node::Fifo, &new)?,
        b'l' => {
            let target = words.word("the target of a link")?;
            dir.symlink(name, target, &new)?
        }
        b'b' | b'c' => {
            let (major, minor) = (words.number("a major number")?, words.number("a minor number")?);
            let node = if kind == b'b' { Node::Block(major, minor) } else { Node::Char(major, minor) };
            dir.mknod(name, node, &new)?
        }
        _ => {
            let from = words.word("the path of a file's contents")?;
            let from = Path::new(std::ffi::OsStr::from_bytes(from));
            let file = dir.create(name, &new)?;
            contents(f, from, &file)?;
            file
        }
    };
    owned(&made)?;
    Ok((kind == b'd').then_some(made))
}

fn contents(f: &mut Filling<'_>, from: &Path, to: &Handle) -> Result<()> {
    let mut source = std::fs::File::open(from).map_err(|e| Error::open(from, e))?;
    if !source.metadata().map_err(|e| Error::open(from, e))?.is_file() {
        return Err(Error::invalid(format!("{} is no regular file", escape(from.as_os_str().as_bytes()))));
    }
    let (mut buf, mut at) = (vec![0; 1 << 20], 0);
    loop {
        let n = source.read(&mut buf).map_err(|e| Error::open(from, e))?;
        if n == 0 {
            return Ok(());
        }
        f.write(to, buf.get(..n).unwrap_or(&[]), at)?;
        at += n as u64;
    }
}
