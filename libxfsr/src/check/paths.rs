//! Paths of damaged inodes, for people.
//!
//! The pass over directories noted for each inode a directory that has an entry for it. From there the way up is known, and each
//! directory on it is read once more for the names.

use super::Findings;
use super::inodes::Table;
use crate::cache::OnDamage;
use crate::dir;
use crate::error::Result;
use crate::inode::Inode;
use crate::units::Ino;
use crate::volume::Volume;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;

/// Damaged inodes whose paths are looked for.
const MAX_INODES: usize = 1000;
/// Directories between the root and an inode.
const MAX_DEPTH: usize = 512;
/// Bytes of a path.
const MAX_PATH: usize = 4096;
/// Entries that are looked at for all paths together.
const MAX_ENTRIES: u64 = 4_000_000;

struct Paths<'a> {
    volume: &'a Volume,
    table: &'a Table<'a>,
    found: &'a Findings<'a>,
    /// Per inode: a directory and the name there.
    names: HashMap<Ino, (Ino, Vec<u8>)>,
    entries: u64,
}

/// Fills in the paths of the first damaged inodes.
///
/// # Errors
/// Only when the caller's control says stop.
pub(super) fn fill(volume: &Volume, table: &Table<'_>, found: &Findings<'_>) -> Result<()> {
    let mut all: BTreeSet<Ino> = BTreeSet::new();
    found.change(|kept| all.extend(kept.filter_map(|c| c.at.ino)));
    let wanted: Vec<Ino> = all.into_iter().take(MAX_INODES).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut paths = Paths { volume, table, found, names: HashMap::new(), entries: 0 };
    paths.find_names(&wanted)?;
    let known: HashMap<Ino, Vec<u8>> = wanted.iter().filter_map(|i| Some((*i, paths.path(*i)?))).collect();
    found.change(|kept| kept.for_each(|c| c.at.path = c.at.ino.and_then(|i| known.get(&i)).cloned()));
    Ok(())
}

impl Paths<'_> {
    fn root(&self, ino: Ino) -> Option<&'static [u8]> {
        let metadir = self.volume.superblock.metadata_root();
        if ino == self.volume.geometry.root_ino { Some(b"") } else { (Some(ino) == metadir).then_some(b"(metadata)") }
    }

    /// Goes up from all inodes at once, so that a directory is read once for all that lie in it.
    fn find_names(&mut self, wanted: &[Ino]) -> Result<()> {
        let mut level: BTreeSet<Ino> = wanted.iter().copied().collect();
        let mut done: HashSet<Ino> = HashSet::new();
        for _ in 0..MAX_DEPTH {
            let mut by_parent: BTreeMap<Ino, HashSet<Ino>> = BTreeMap::new();
            for ino in std::mem::take(&mut level) {
                if self.root(ino).is_some() || !done.insert(ino) {
                    continue;
                }
                if let Some(parent) = self.table.slot(ino).and_then(|s| self.table.above(s)) {
                    by_parent.entry(parent).or_default().insert(ino);
                    level.insert(parent);
                }
            }
            if by_parent.is_empty() {
                break;
            }
            for (parent, children) in by_parent {
                self.found.go_on()?;
                self.scan(parent, children);
            }
        }
        Ok(())
    }

    fn scan(&mut self, parent: Ino, mut children: HashSet<Ino>) {
        let Ok(inode) = Inode::read(self.volume, parent, OnDamage::Keep) else { return };
        // A directory that cannot be read gives no names; the damage has been told of.
        let _ = dir::for_each(self.volume, &inode, OnDamage::Keep, &mut |seen| {
            self.entries += 1;
            if let Ok((_, e)) = seen
                && e.name != b"."
                && e.name != b".."
                && children.remove(&e.ino)
            {
                self.names.insert(e.ino, (parent, e.name.to_vec()));
            }
            if children.is_empty() || self.entries > MAX_ENTRIES || self.found.stopped() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
    }

    fn path(&self, ino: Ino) -> Option<Vec<u8>> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut at = ino;
        let mut length = 0;
        let top = loop {
            if let Some(top) = self.root(at) {
                break top;
            }
            let (parent, name) = self.names.get(&at)?;
            length += name.len() + 1;
            if parts.len() >= MAX_DEPTH || length > MAX_PATH {
                return None;
            }
            parts.push(name);
            at = *parent;
        };
        let mut path = top.to_vec();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        if parts.is_empty() {
            path.push(b'/');
        }
        Some(path)
    }
}
