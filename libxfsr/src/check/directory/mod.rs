//! Directories of every form: entries against the inodes they name, the index against the entries, dots, who leads to whom.

mod blocks;
mod names;
mod tree;

use super::Findings;
use super::inodes::{Flag, Table};
use crate::control::Control;
use crate::error::{Corruption, Error, ForkKind, Result, Rule};
use crate::format::dir::{FileType, ShortDir, is_valid_name, verify_short};
use crate::format::inode::{Dinode, Format, fork_bytes};
use crate::inode::fork::all_extents;
use crate::units::{FileBlock, FsBlock, Ino};
use crate::volume::Volume;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Directories that one thread takes at a time, with one request for what is to be read.
const GROUP: usize = 8;
/// Blocks of a directory that are asked for before its turn comes.
const AHEAD: usize = 64;

/// The pass over all directories.
pub(super) struct Pass<'a> {
    pub volume: &'a Volume,
    pub found: &'a Findings<'a>,
    pub table: &'a Table<'a>,
    pub control: &'a Control<'a>,
}

/// What leads to each directory: its own `..`, and the directory that has an entry for it.
struct Parents {
    dirs: Vec<Ino>,
    dotdot: Vec<AtomicU64>,
    entry: Vec<AtomicU64>,
}

impl Parents {
    fn index(&self, ino: Ino) -> Option<usize> {
        self.dirs.binary_search(&ino).ok()
    }
}

/// One directory while it is examined.
struct Dir<'a> {
    pass: &'a Pass<'a>,
    parents: &'a Parents,
    ino: Ino,
    slot: usize,
    generation: u32,
    entries: u64,
    dot: bool,
    dotdot: bool,
    /// Whether everything could be read.
    whole: bool,
    /// A hash of each name.
    names: Vec<u64>,
    /// The inode chunk of the entry before.
    near: usize,
}

impl<'a> Dir<'a> {
    fn new(pass: &'a Pass<'a>, parents: &'a Parents, ino: Ino, slot: usize) -> Self {
        Self {
            pass,
            parents,
            ino,
            slot,
            generation: 0,
            entries: 0,
            dot: false,
            dotdot: false,
            whole: true,
            names: Vec::new(),
            near: 0,
        }
    }

    /// The same directory, for a thread that takes some of its blocks.
    fn part(&self) -> Self {
        Self { generation: self.generation, ..Self::new(self.pass, self.parents, self.ino, self.slot) }
    }

    /// Takes what such a thread found.
    fn join(&mut self, mut part: Self) {
        self.entries += part.entries;
        self.dot |= part.dot;
        self.dotdot |= part.dotdot;
        self.whole &= part.whole;
        if self.names.is_empty() {
            self.names = part.names;
        } else {
            self.names.append(&mut part.names);
        }
    }

    fn bad(&self, field: &'static str, rule: Rule, block: Option<u64>) -> Box<Corruption> {
        Corruption::new("directory", field, rule).in_inode(self.ino).in_fork(ForkKind::Data, block.map(FileBlock))
    }
    fn tell(&self, c: Box<Corruption>) {
        let offset = c.at.offset;
        self.pass.found.add(c.in_inode(self.ino).in_fork(ForkKind::Data, offset));
    }

    fn own_dot(&mut self) {
        self.dot = true;
        if let Some(slot) = self.pass.table.slot(self.ino) {
            self.pass.table.link(slot);
        }
    }

    fn parent(&mut self, parent: Ino) {
        self.dotdot = true;
        // Removed while it was open: its parent no longer counts it, and may itself be gone.
        if self.pass.table.is(self.slot, Flag::Orphan) {
            return;
        }
        if let Some(p) = self.parents.index(self.ino).and_then(|i| self.parents.dotdot.get(i)) {
            p.store(parent.0, Ordering::Relaxed);
        }
        match self.pass.table.slot(parent).filter(|s| self.pass.table.is_used(*s)) {
            Some(slot) => {
                self.pass.table.link(slot);
                if self.pass.table.kind(slot).is_some_and(|k| k != FileType::Directory) {
                    self.tell(self.bad("..", Rule::Mismatch, None).found(parent).expected("a directory"));
                }
            }
            None => self.tell(self.bad("..", Rule::Missing, None).found(parent).expected("an inode in use")),
        }
    }

    /// One entry; `.` and `..` too, where the form has them.
    fn entry(&mut self, name: &[u8], child: Ino, ftype: u8, block: Option<u64>) {
        let table = self.pass.table;
        self.name(name);
        let dots = name == b"." || name == b"..";
        if dots && self.pass.volume.geometry.features.ftype() && ftype != FileType::Directory as u8 {
            let c = self.bad("filetype", Rule::Mismatch, block).expected(FileType::Directory as u8);
            self.tell(c.found(format_args!("{} has type {ftype}", crate::text::escape(name))));
        }
        if name == b"." {
            if child != self.ino {
                self.tell(self.bad(".", Rule::Mismatch, block).found(child).expected(self.ino));
            }
            return self.own_dot();
        }
        if name == b".." {
            return self.parent(child);
        }
        self.entries += 1;
        let shown = || crate::text::escape(name);
        if !is_valid_name(name) {
            self.tell(
                self.bad("name", Rule::Name, block).found(shown()).expected("1 to 255 bytes without slash and zero"),
            );
        }
        let Some(slot) = table.slot_near(child, &mut self.near).filter(|s| table.is_used(*s)) else {
            let c = self.bad("inumber", Rule::Missing, block).found(format_args!("{} names inode {child}", shown()));
            return self.tell(c.expected("an inode in use"));
        };
        table.enter(slot, self.slot);
        table.pointers.entry(slot, child, self.ino, self.generation, name);
        let Some(kind) = table.kind(slot) else { return };
        if self.pass.volume.geometry.features.ftype() && ftype != kind as u8 {
            let c = self.bad("filetype", Rule::Mismatch, block).found(format_args!("{} has type {ftype}", shown()));
            self.tell(c.expected(kind as u8));
        }
        let own = table.slot(self.ino).is_some_and(|s| table.is(s, Flag::Metadata));
        if table.is(slot, Flag::Metadata) != own {
            let (what, other) =
                if own { ("a file of users", "metadata files") } else { ("a metadata file", "files of users") };
            let c = self.bad("inumber", Rule::Flags, block).found(format_args!("{} names {what}", shown()));
            self.tell(c.expected(format_args!("{other} only in this directory")));
        }
        if kind == FileType::Directory {
            let before = self
                .parents
                .index(child)
                .and_then(|i| self.parents.entry.get(i))
                .map(|p| p.swap(self.ino.0, Ordering::Relaxed));
            if let Some(other) = before.filter(|b| *b != 0) {
                let c = self.bad("inumber", Rule::DoublyOwned, block);
                self.tell(c.found(format_args!("{} names directory {child}, which {other} names too", shown())));
            }
        }
    }

    fn short(&mut self, inode: &[u8], core: &Dinode) {
        let g = &self.pass.volume.geometry;
        let fork = fork_bytes(inode, ForkKind::Data);
        let Some(bytes) = usize::try_from(core.size.get()).ok().and_then(|n| fork.get(..n)) else {
            self.whole = false;
            return self.tell(
                self.bad("size", Rule::Range, None).found(core.size).expected(format_args!("at most {}", fork.len())),
            );
        };
        if let Err(c) = verify_short(bytes, self.ino, g) {
            self.whole = false;
            self.tell(c);
        }
        let Some(short) = ShortDir::from_bytes(bytes, g) else { return };
        self.own_dot();
        self.parent(short.parent);
        // Damage ends the list; `verify_short` has told of it.
        for e in short.entries().map_while(std::result::Result::ok) {
            self.entry(e.name, e.ino, e.ftype, None);
        }
        self.duplicates_in_short(&short);
    }
}

/// Directories that no entry needs to lead to.
pub(super) fn roots(volume: &Volume) -> Vec<Ino> {
    let mut roots = vec![volume.geometry.root_ino];
    roots.extend(volume.superblock.metadata_root());
    roots
}

impl Pass<'_> {
    /// Examines all directories and returns the number of entries.
    pub(super) fn run(&self) -> Result<u64> {
        let dirs: Vec<Ino> = self
            .table
            .used()
            .filter(|(_, s)| self.table.kind(*s) == Some(FileType::Directory))
            .map(|(i, _)| i)
            .collect();
        let zeroes = |n| (0..n).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let parents = Parents { dotdot: zeroes(dirs.len()), entry: zeroes(dirs.len()), dirs };
        let (entries, done) = (AtomicU64::new(0), AtomicU64::new(0));
        parents.dirs.par_chunks(GROUP).try_for_each(|group| {
            let inodes: Vec<_> = group.iter().map(|ino| self.volume.inode_bytes(*ino)).collect();
            self.readahead(group, &inodes);
            for (ino, inode) in group.iter().zip(inodes) {
                self.found.go_on()?;
                entries.fetch_add(self.one(*ino, inode, &parents), Ordering::Relaxed);
                let n = done.fetch_add(1, Ordering::Relaxed) + 1;
                self.control.tell("directories", n, Some(parents.dirs.len() as u64));
            }
            Ok::<(), Error>(())
        })?;
        self.found.go_on()?;
        self.reachable(&parents);
        Ok(entries.into_inner())
    }

    /// Tells that the blocks of these directories will be read soon, as far as their inodes say which.
    fn readahead(&self, group: &[Ino], inodes: &[Result<Vec<u8>>]) {
        let inodes = group.iter().zip(inodes).filter_map(|(ino, bytes)| Some((*ino, bytes.as_ref().ok()?)));
        let mut blocks = Vec::new();
        for (ino, bytes) in inodes {
            let Some(core) = Dinode::from_bytes(bytes) else { continue };
            if core.format(ForkKind::Data) == Some(Format::Extents)
                && let Ok(extents) = all_extents(self.volume, ino, bytes, ForkKind::Data)
            {
                let each = extents.iter().flat_map(|e| e.start..e.start.saturating_add(e.count));
                blocks.extend(each.take(AHEAD).map(|b| self.volume.geometry.split(FsBlock(b))));
            }
        }
        self.volume.readahead(blocks.into_iter());
    }

    fn one(&self, ino: Ino, inode: Result<Vec<u8>>, parents: &Parents) -> u64 {
        let Some(slot) = self.table.slot(ino) else { return 0 };
        let mut dir = Dir::new(self, parents, ino, slot);
        let inode = match inode {
            Ok(b) => b,
            Err(e) => {
                self.table.set(slot, Flag::Partial);
                self.found.add_error(e, || dir.bad("inode", Rule::Unreadable, None));
                return 0;
            }
        };
        let Some(core) = Dinode::from_bytes(&inode) else { return 0 };
        dir.generation = core.generation.get();
        match core.format(ForkKind::Data) {
            Some(Format::Local) => dir.short(&inode, core),
            Some(Format::Extents | Format::Btree) => dir.blocks(&inode, core),
            _ => {
                dir.whole = false;
                dir.tell(dir.bad("format", Rule::Flags, None).found(core.format).expected("local, extents or btree"));
            }
        }
        if !dir.whole {
            self.table.set(slot, Flag::Partial);
        }
        if !dir.dot {
            dir.tell(dir.bad(".", Rule::Missing, None));
        }
        if !dir.dotdot {
            dir.tell(dir.bad("..", Rule::Missing, None));
        }
        dir.entries
    }

    /// Compares `..` with the entries, and finds rings of directories that hang together apart from the tree. Those that no entry
    /// leads to are told with the link counts.
    fn reachable(&self, parents: &Parents) {
        if self.found.totals().incomplete > 0 {
            // What the device did not give would be missed here; that it was not compared is said with the links.
            return;
        }
        let roots = roots(self.volume);
        for root in &roots {
            if parents.index(*root).is_none() {
                let c = Corruption::new("directory", "root", Rule::Missing).in_inode(*root);
                self.found.add(c.found("not a usable directory").expected("the root directory"));
            }
        }
        let value = |list: &[AtomicU64], i: usize| list.get(i).map_or(0, |v| v.load(Ordering::Relaxed));
        // 0 unknown, 1 on the way, 2 reaches a root, 3 does not.
        let mut state = vec![0u8; parents.dirs.len()];
        for (i, ino) in parents.dirs.iter().enumerate() {
            let (dotdot, entry) = (value(&parents.dotdot, i), value(&parents.entry, i));
            let expected = if roots.contains(ino) { ino.0 } else { entry };
            if dotdot != 0 && expected != 0 && dotdot != expected {
                let c = Corruption::new("directory", "..", Rule::Mismatch).in_inode(*ino);
                self.found.add(c.found(dotdot).expected(expected));
            }
            let mut path = Vec::new();
            let mut at = Some(i);
            let end = loop {
                let Some(j) = at else { break 3 };
                match state.get(j).copied().unwrap_or(3) {
                    0 if parents.dirs.get(j).is_some_and(|d| roots.contains(d)) => {
                        path.push(j);
                        break 2;
                    }
                    0 => {
                        if let Some(s) = state.get_mut(j) {
                            *s = 1;
                        }
                        path.push(j);
                        at = parents.index(Ino(value(&parents.entry, j)));
                    }
                    1 => {
                        let c = Corruption::new("directory", "path", Rule::Loop).in_inode(*ino);
                        self.found.add(c.found("a ring of directories that the root does not reach"));
                        break 3;
                    }
                    done => break done,
                }
            };
            for j in path {
                if let Some(s) = state.get_mut(j) {
                    *s = end;
                }
            }
        }
    }
}
