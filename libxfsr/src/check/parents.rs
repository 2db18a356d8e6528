//! Parent pointers against directory entries.
//!
//! Each entry should have one parent pointer in the file that it names, and each pointer its entry. Both sides are hashed with a
//! key that nobody can foresee and summed up per inode, entries with plus and pointers with minus: what is not zero in the end does
//! not match. Only then are directories and attributes read once more, to say which.

use super::Findings;
use super::inodes::{Flag, Table};
use crate::cache::OnDamage;
use crate::error::{Corruption, Error, ForkKind, Result, Rule, Severity};
use crate::format::attr::{AttrFlags, ParentRec};
use crate::format::dir::FileType;
use crate::inode::Inode;
use crate::text::escape;
use crate::units::Ino;
use crate::volume::Volume;
use crate::{attr, dir};
use rayon::prelude::*;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Inodes whose pointers are looked at one by one; of the others it is only said that they do not match.
const MAX_RESOLVED: usize = 1 << 16;

/// What was seen of both sides, summed up per inode.
pub(super) struct Pointers {
    key: RandomState,
    sums: Vec<AtomicU64>,
}

impl Pointers {
    /// For that many inodes: 0 where the filesystem has no parent pointers.
    pub(super) fn new(slots: usize) -> Self {
        Self { key: RandomState::new(), sums: (0..slots).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Whether the filesystem has them.
    pub(super) fn are_kept(&self) -> bool {
        !self.sums.is_empty()
    }

    fn print(&self, child: Ino, parent: Ino, generation: u32, name: &[u8]) -> u64 {
        let mut hasher = self.key.build_hasher();
        hasher.write_u64(child.0);
        hasher.write_u64(parent.0);
        hasher.write_u32(generation);
        hasher.write(name);
        hasher.finish()
    }

    /// Takes a directory entry.
    pub(super) fn entry(&self, slot: usize, child: Ino, parent: Ino, generation: u32, name: &[u8]) {
        if let Some(sum) = self.sums.get(slot) {
            sum.fetch_add(self.print(child, parent, generation, name), Ordering::Relaxed);
        }
    }

    /// Takes an attribute, which counts where it is a parent pointer.
    pub(super) fn attribute(&self, slot: usize, child: Ino, flags: AttrFlags, name: &[u8], value: &[u8]) {
        if let Some(sum) = self.sums.get(slot).filter(|_| flags.contains(AttrFlags::PARENT))
            && let Some(p) = ParentRec::from_value(value)
        {
            let print = self.print(child, Ino(p.ino.get()), p.generation.get(), name);
            sum.fetch_sub(print, Ordering::Relaxed);
        }
    }

    fn differ(&self, slot: usize) -> bool {
        self.sums.get(slot).is_some_and(|s| s.load(Ordering::Relaxed) != 0)
    }
}

/// The pointers of an inode that do not match, each with whether its entry was seen.
struct Suspect {
    ino: Ino,
    prints: Vec<(u64, AtomicBool)>,
}

impl Suspect {
    /// Marks one pointer of that print; false if there is none left.
    fn take(&self, print: u64) -> bool {
        let first = self.prints.partition_point(|p| p.0 < print);
        let equal = self.prints.get(first..).unwrap_or(&[]).iter().take_while(|p| p.0 == print);
        equal.into_iter().any(|p| !p.1.swap(true, Ordering::Relaxed))
    }
}

fn bad(ino: Ino, rule: Rule) -> Box<Corruption> {
    let c = Corruption::new("parent", "pointer", rule).in_inode(ino).in_fork(ForkKind::Attr, None);
    c.severity(Severity::CrossReference)
}

const DIFFERENT: &str = "parent pointers that are not those of its directory entries";

/// Compares both sides.
///
/// # Errors
/// Only when the caller's control says stop.
pub(super) fn check(volume: &Volume, table: &Table<'_>, found: &Findings<'_>) -> Result<()> {
    if !table.pointers.are_kept() {
        return Ok(());
    }
    let comparable = |slot: usize| table.kind(slot).is_some() && !table.is(slot, Flag::Partial);
    let mut differing = table.used().filter(|(_, s)| comparable(*s) && table.pointers.differ(*s)).map(|(ino, _)| ino);
    let first: Vec<Ino> = differing.by_ref().take(MAX_RESOLVED).collect();
    if first.is_empty() {
        return Ok(());
    }
    for ino in differing {
        found.add(bad(ino, Rule::Mismatch).found(DIFFERENT));
    }
    Resolve { volume, table, found }.run(&first)
}

struct Resolve<'a> {
    volume: &'a Volume,
    table: &'a Table<'a>,
    found: &'a Findings<'a>,
}

impl Resolve<'_> {
    fn run(&self, inodes: &[Ino]) -> Result<()> {
        let read = |ino: &Ino| {
            self.found.go_on().ok()?;
            let prints = match self.prints(*ino) {
                Ok(prints) => prints,
                Err(e) => {
                    // That they differ is known.
                    self.found.add(bad(*ino, Rule::Mismatch).found(DIFFERENT));
                    self.found.add_error(e, || bad(*ino, Rule::Unreadable));
                    return None;
                }
            };
            Some((ino.0, Suspect { ino: *ino, prints }))
        };
        let suspects: HashMap<u64, Suspect> = inodes.par_iter().filter_map(read).collect();
        let is_dir = |s: &usize| self.table.kind(*s) == Some(FileType::Directory);
        let dirs: Vec<Ino> = self.table.used().filter(|(_, s)| is_dir(s)).map(|(i, _)| i).collect();
        dirs.par_iter().try_for_each(|ino| {
            self.found.go_on()?;
            self.entries(*ino, &suspects);
            Ok::<(), Error>(())
        })?;
        suspects.par_iter().for_each(|(_, s)| self.left(s));
        self.found.go_on()
    }

    fn each_pointer(&self, ino: Ino, each: &mut dyn FnMut(u64, &attr::Attr, Ino, u32)) -> Result<()> {
        let inode = Inode::read(self.volume, ino, OnDamage::Keep)?;
        let mut failed = None;
        attr::for_each(self.volume, &inode, OnDamage::Keep, &mut |a| {
            match a {
                Ok(a) => {
                    if let Some((parent, generation)) = a.parent() {
                        each(self.table.pointers.print(ino, parent, generation, &a.name), &a, parent, generation);
                    }
                }
                Err(e) => failed = Some(e),
            }
            ControlFlow::Continue(())
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn prints(&self, ino: Ino) -> Result<Vec<(u64, AtomicBool)>> {
        let mut prints = Vec::new();
        self.each_pointer(ino, &mut |print, _, _, _| prints.push((print, AtomicBool::new(false))))?;
        prints.sort_unstable_by_key(|p| p.0);
        Ok(prints)
    }

    /// Looks for entries without a pointer.
    fn entries(&self, parent: Ino, suspects: &HashMap<u64, Suspect>) {
        let Ok(inode) = Inode::read(self.volume, parent, OnDamage::Keep) else { return };
        let generation = inode.core.generation.get();
        // What cannot be read was told of by the pass over directories.
        let _ = dir::for_each(self.volume, &inode, OnDamage::Keep, &mut |seen| {
            if let Ok((_, e)) = seen
                && e.name != b"."
                && e.name != b".."
                && let Some(s) = suspects.get(&e.ino.0)
                && !s.take(self.table.pointers.print(e.ino, parent, generation, e.name))
            {
                let c = bad(s.ino, Rule::Missing).found("none");
                let name = escape(e.name);
                self.found.add(c.expected(format_args!(
                    "a pointer to the entry {name} of directory {parent} (generation {generation})"
                )));
            }
            if self.found.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }

    /// Tells of pointers without an entry.
    fn left(&self, s: &Suspect) {
        let mut left: Vec<u64> = s.prints.iter().filter(|p| !p.1.load(Ordering::Relaxed)).map(|p| p.0).collect();
        if left.is_empty() || self.found.stopped() {
            return;
        }
        // Read well a moment ago.
        let _ = self.each_pointer(s.ino, &mut |print, a, parent, generation| {
            let Ok(i) = left.binary_search(&print) else { return };
            left.remove(i);
            let slot = self.table.slot(parent);
            let unread = |s| self.table.is_broken(s) || self.table.is(s, Flag::Partial);
            if slot.is_some_and(unread) {
                return;
            }
            let name = escape(&a.name);
            let c = bad(s.ino, Rule::Extra)
                .found(format_args!("a pointer to the entry {name} of directory {parent} (generation {generation})"));
            self.found.add(c.expected("an entry of that directory that leads here"));
        });
    }
}
