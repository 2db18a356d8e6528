//! The metadata directory tree: which names it has, what they lead to, and what it does not lead to.
//!
//! What holds for every directory (dots, types, link counts) is checked with all the others; here follows what is special: a
//! fixed set of paths, each with its type of metadata file.

use super::Findings;
use super::inodes::{Flag, Table};
use crate::cache::OnDamage;
use crate::dir;
use crate::error::{Corruption, Rule, Severity};
use crate::format::inode::MetaType;
use crate::inode::Inode;
use crate::units::Ino;
use crate::volume::Volume;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Directory of the quota files.
const QUOTA: &str = "quota";
/// Directory of the realtime groups' files.
const GROUPS: &str = "rtgroups";

/// The files of the tree, by path.
#[derive(Debug, Default)]
pub(super) struct Files {
    by_path: BTreeMap<String, Ino>,
}

impl Files {
    /// The realtime groups that have a file: no more than there are files, whatever the superblock says.
    pub(super) fn groups(&self) -> BTreeSet<u32> {
        let number = |path: &String| path.strip_prefix(GROUPS)?.strip_prefix('/')?.split_once('.')?.0.parse().ok();
        self.by_path.keys().filter_map(number).collect()
    }
    /// The file of a realtime group; none where it was not found.
    pub(super) fn of_group(&self, group: u32, kind: MetaType) -> Option<Ino> {
        self.by_path.get(&format!("{GROUPS}/{group}.{}", suffix(kind)?)).copied()
    }
}

fn suffix(kind: MetaType) -> Option<&'static str> {
    Some(match kind {
        MetaType::RtBitmap => "bitmap",
        MetaType::RtSummary => "summary",
        MetaType::RtRmap => "rmap",
        MetaType::RtRefcount => "refcount",
        _ => return None,
    })
}

/// The type that the file at a path must have; none for a path that does not belong there.
fn expected(path: &str, groups: u32) -> Option<MetaType> {
    match path.split_once('/') {
        None if path == QUOTA || path == GROUPS => Some(MetaType::Dir),
        Some((QUOTA, "user")) => Some(MetaType::UserQuota),
        Some((QUOTA, "group")) => Some(MetaType::GroupQuota),
        Some((QUOTA, "project")) => Some(MetaType::ProjectQuota),
        Some((GROUPS, name)) => {
            let (number, kind) = name.split_once('.')?;
            let n: u32 = number.parse().ok()?;
            // The number is written in one way only.
            if n >= groups || n.to_string() != number {
                return None;
            }
            [MetaType::RtBitmap, MetaType::RtSummary, MetaType::RtRmap, MetaType::RtRefcount]
                .into_iter()
                .find(|k| suffix(*k) == Some(kind))
        }
        _ => None,
    }
}

struct Walk<'a> {
    volume: &'a Volume,
    found: &'a Findings<'a>,
    files: Files,
    seen: BTreeSet<Ino>,
}

impl Walk<'_> {
    fn bad(&self, field: &'static str, rule: Rule, ino: Ino) -> Box<Corruption> {
        Corruption::new("metapath", field, rule).in_inode(ino).severity(Severity::CrossReference)
    }

    /// One directory of the tree; two levels below the root there is none.
    fn directory(&mut self, ino: Ino, path: &str) {
        if !self.seen.insert(ino) {
            return;
        }
        // Damage in the directory or its inode was told by the passes over them.
        let Ok(inode) = Inode::read(self.volume, ino, OnDamage::Keep) else { return };
        self.file(&inode, path, MetaType::Dir);
        let mut entries = Vec::new();
        let end = dir::for_each(self.volume, &inode, OnDamage::Keep, &mut |e| {
            if let Ok((_, e)) = e
                && e.name != b"."
                && e.name != b".."
            {
                entries.push((e.name.to_vec(), e.ino));
            }
            if self.found.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if end.is_err() {
            return;
        }
        for (name, child) in self.found.until_stopped(entries.into_iter()) {
            let name = String::from_utf8_lossy(&name).into_owned();
            let below = if path.is_empty() { name } else { format!("{path}/{name}") };
            match expected(&below, self.volume.geometry.rt_groups) {
                Some(MetaType::Dir) => self.directory(child, &below),
                Some(kind) => {
                    self.seen.insert(child);
                    let Ok(inode) = Inode::read(self.volume, child, OnDamage::Keep) else { continue };
                    self.file(&inode, &below, kind);
                    self.files.by_path.insert(below, child);
                }
                None => {
                    self.seen.insert(child);
                    let c = self.bad("name", Rule::Extra, child).found(crate::text::escape(below.as_bytes()));
                    self.found.add(c.expected("a path that the metadata directories have"));
                }
            }
        }
    }

    fn file(&self, inode: &Inode, path: &str, kind: MetaType) {
        if inode.core.is_free() {
            return;
        }
        if !inode.core.is_metadata() {
            let c = self.bad("flags2", Rule::Flags, inode.ino).found("no metadata flag");
            self.found.add(c.expected(format_args!("a metadata file, as it is /{path}")));
        } else if inode.core.metatype() != Some(kind) {
            let c = self.bad("metatype", Rule::Mismatch, inode.ino).found(inode.core.metatype);
            self.found.add(c.expected(format_args!("{} ({kind:?}), as it is /{path}", kind as u16)));
        }
    }

    /// What each realtime group must have.
    fn groups(&self) {
        let g = &self.volume.geometry;
        let needed = [
            (MetaType::RtBitmap, !g.features.zoned()),
            (MetaType::RtSummary, !g.features.zoned()),
            (MetaType::RtRmap, g.features.rmapbt()),
            (MetaType::RtRefcount, g.features.reflink()),
        ];
        // Where the superblock claims far more groups than there are files, some are enough to tell of.
        let some = u32::try_from(self.files.by_path.len()).unwrap_or(u32::MAX).saturating_add(1000);
        for group in 0..g.rt_groups.min(some) {
            for (kind, _) in needed.into_iter().filter(|(k, n)| *n && self.files.of_group(group, *k).is_none()) {
                let path = format!("{GROUPS}/{group}.{}", suffix(kind).unwrap_or_default());
                let root = Ino(self.volume.superblock.metadirino.get());
                self.found.add(self.bad("file", Rule::Missing, root).found("no such path").expected(path));
            }
        }
    }
}

/// Walks the tree and says what does not belong there, what is missing, and which metadata files it does not lead to.
pub(super) fn check(volume: &Volume, table: &Table<'_>, found: &Findings<'_>) -> Files {
    let Some(root) = volume.superblock.metadata_root() else { return Files::default() };
    let mut walk = Walk { volume, found, files: Files::default(), seen: BTreeSet::new() };
    walk.directory(root, "");
    walk.groups();
    for (ino, _) in table.used().filter(|(_, s)| table.is(*s, Flag::Metadata)) {
        if !walk.seen.contains(&ino) {
            let c = Corruption::new("metapath", "inode", Rule::Unreachable).in_inode(ino);
            found.add(c.severity(Severity::CrossReference).found("a metadata file that no metadata directory has"));
        }
    }
    walk.files
}

#[cfg(test)]
mod tests {
    use super::{MetaType, expected};

    #[test]
    fn only_known_paths_belong_to_the_tree() {
        assert_eq!(expected("quota", 0), Some(MetaType::Dir));
        assert_eq!(expected("quota/project", 0), Some(MetaType::ProjectQuota));
        assert_eq!(expected("rtgroups/3.rmap", 4), Some(MetaType::RtRmap));
        for path in
            ["rtgroups/3.rmap2", "rtgroups/4.rmap", "rtgroups/03.rmap", "user", "quota/user/x", "rtgroups/x", ""]
        {
            assert_eq!(expected(path, 4), None, "{path}");
        }
    }
}
