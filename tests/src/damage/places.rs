//! The structures of an image, found through xfs_db: every type that it knows, each form once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Result, ensure};

use super::Place;
use super::blows::kind;
use crate::corpus::Entry;
use crate::oracle::{self, Devices};

/// Where a directory's leaves begin; twice that, where its free indexes begin.
const LEAF: u64 = 32 << 30;

/// Collects places.
struct Finder<'a> {
    devices: &'a Devices,
    all: Vec<Place>,
    seen: BTreeSet<String>,
}

/// The structures of an image that cases are made for, found through its manifest and xfs_db; the same each time.
pub fn places(devices: &Devices, manifest: &[Entry]) -> Result<Vec<Place>> {
    let mut f = Finder { devices, all: Vec::new(), seen: BTreeSet::new() };
    f.add("sb", &["sb 0"]);
    f.add("sb secondary", &["sb 1"]);
    for header in ["agf", "agi", "agfl"] {
        f.add(header, &[&format!("{header} 0")]);
    }
    f.trees()?;
    f.named_by_superblock()?;
    f.dquots(manifest)?;
    f.free_inodes()?;
    f.files(manifest)?;
    Ok(f.all)
}

/// How many places there are of each type that xfs_db knows.
pub fn types(devices: &Devices, places: &[Place]) -> Result<BTreeMap<String, usize>> {
    let known = oracle::xfs_db(devices, &["type"])?;
    let known = known.split_once("supported types are:").map_or("", |(_, list)| list);
    let mut all: BTreeMap<String, usize> =
        known.split([',', ' ', '\n']).filter(|t| !t.is_empty()).map(|t| (t.to_owned(), 0)).collect();
    for place in places {
        let mut commands = place.commands.clone();
        commands.push("type".to_owned());
        let text = oracle::xfs_db(devices, &commands)?;
        if let Some(name) = text.split('"').nth(1) {
            *all.entry(name.to_owned()).or_default() += 1;
        }
    }
    Ok(all)
}

impl Finder<'_> {
    fn add(&mut self, structure: &str, commands: &[&str]) {
        let commands = commands.iter().map(|c| (*c).to_owned()).collect();
        self.all.push(Place { structure: structure.to_owned(), commands });
    }

    /// The fields of one structure with their values.
    fn print(&self, commands: &[&str], what: &str) -> Result<BTreeMap<String, String>> {
        let text = oracle::xfs_db(self.devices, &[commands, &[&format!("print {what}")]].concat())?;
        let fields = text.lines().filter_map(|l| l.split_once(" = "));
        Ok(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    fn number(&self, commands: &[&str], field: &str) -> Result<Option<u64>> {
        let fields = self.print(commands, field)?;
        Ok(fields.get(field).and_then(|v| v.split(' ').next()?.parse().ok()))
    }

    /// Every tree that an AG header has a root of, in the AG where it is deepest: of each level the first block, of the lowest
    /// the last block too.
    fn trees(&mut self) -> Result<()> {
        let ags = self.number(&["sb 0"], "agcount")?.unwrap_or(1).min(8);
        let mut deepest: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for ag in 0..ags {
            for header in ["agf", "agi"] {
                let fields = self.print(&[&format!("{header} {ag}")], "")?;
                for root in fields.keys().filter(|f| f.ends_with("root")) {
                    let level = format!("{}level", root.trim_end_matches("root"));
                    let levels = fields.get(&level).and_then(|v| v.parse().ok()).unwrap_or(0);
                    let best = deepest.entry((header.to_owned(), root.clone())).or_default();
                    if levels > best.0 {
                        *best = (levels, ag);
                    }
                }
            }
        }
        for ((header, root), (levels, ag)) in deepest {
            let name = match root.as_str() {
                "root" => "inobt".to_owned(),
                "free_root" => "finobt".to_owned(),
                other => format!("{}bt", other.trim_end_matches("root")),
            };
            self.tree(&name, &[format!("{header} {ag}"), format!("addr {root}")], levels)?;
        }
        Ok(())
    }

    fn tree(&mut self, name: &str, root: &[String], levels: u64) -> Result<()> {
        for (end, last) in [("", false), (", last", true)] {
            let mut path: Vec<String> = root.to_vec();
            for depth in 0..levels {
                let commands: Vec<&str> = path.iter().map(String::as_str).collect();
                let leaf = depth + 1 == levels;
                // Both ends of a single block are that block.
                if !last || (leaf && levels > 1) {
                    self.add(&format!("{name} {}{end}", if leaf { "leaf" } else { "node" }), &commands);
                }
                if !leaf {
                    let n = if last { self.number(&commands, "numrecs")?.unwrap_or(1) } else { 1 };
                    path.push(format!("addr ptrs[{n}]"));
                }
            }
        }
        Ok(())
    }

    /// The inodes that the superblock names, and the first block of those that have one.
    fn named_by_superblock(&mut self) -> Result<()> {
        for (field, value) in self.print(&["sb 0"], "")? {
            let Some(ino) = value.parse::<u64>().ok().filter(|i| *i != 0) else { continue };
            if !field.ends_with("ino") || field == "rootino" {
                continue;
            }
            let inode = format!("inode {ino}");
            self.add(&format!("inode of {field}"), &[&inode]);
            let text = oracle::xfs_db(self.devices, &[&inode, "dblock 0", "type"])?;
            if let Some(kind) = text.split('"').nth(1).filter(|t| *t == "rtbitmap" || *t == "rtsummary") {
                self.add(kind, &[&inode, "dblock 0"]);
            }
        }
        Ok(())
    }

    /// Dquots of root, and of the first owner that has one, of each kind.
    fn dquots(&mut self, manifest: &[Entry]) -> Result<()> {
        for (flag, name) in [("-u", "user"), ("-g", "group"), ("-p", "project")] {
            let mut ids = BTreeSet::from([0, 1, 1000]);
            ids.extend(manifest.iter().map(|e| if flag == "-u" { e.uid } else { e.gid }).take(64));
            let mut found = 0;
            for id in ids {
                let command = format!("dquot {flag} {id}");
                let text = oracle::xfs_db(self.devices, &[&command, "type"]).unwrap_or_default();
                if found < 2 && text.contains("\"dqblk\"") {
                    self.add(&format!("dquot {name}"), &[&command]);
                    found += 1;
                }
            }
        }
        Ok(())
    }

    /// A free inode that was used before, and one that never was.
    fn free_inodes(&mut self) -> Result<()> {
        let levels = self.number(&["agi 0"], "level")?.unwrap_or(1);
        let mut path = vec!["agi 0", "addr root"];
        path.extend((1..levels).map(|_| "addr ptrs[1]"));
        path.push("print recs");
        let text = oracle::xfs_db(self.devices, &path)?;
        let mut free = Vec::new();
        for piece in text.split('[').filter_map(|p| p.split(']').next()) {
            let numbers: Vec<&str> = piece.split(',').collect();
            let (Some(Ok(start)), Some(Some(mask))) = (
                numbers.first().map(|n| n.parse::<u64>()),
                numbers.last().map(|n| u64::from_str_radix(n.strip_prefix("0x").unwrap_or(n), 16).ok()),
            ) else {
                continue;
            };
            // The index of a single record is no record.
            if numbers.len() < 3 {
                continue;
            }
            // With holes there are as many as the second number's bits; no inode is there.
            if numbers.len() == 5 && numbers[1] != "0" {
                continue;
            }
            free.extend((0..64).filter(|i| mask >> i & 1 == 1).map(|i| start + i));
        }
        let mut wanted = BTreeSet::from([false, true]);
        for ino in free.iter().take(200) {
            let inode = format!("inode {ino}");
            let used = self.number(&[&inode], "v3.change_count")?.unwrap_or(0) > 0;
            if wanted.remove(&used) {
                self.add(if used { "inode free" } else { "inode never used" }, &[&inode]);
            }
            if wanted.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// One file of each form, by kind and by the formats of both forks, and the blocks of the forks, each type once.
    fn files(&mut self, manifest: &[Entry]) -> Result<()> {
        let (block, directory_blocks) = block_sizes(self.devices)?;
        let mut attribute_files = 0;
        for chunk in manifest.chunks(400) {
            let mut commands = Vec::new();
            for entry in chunk {
                commands.push(format!("inode {}", entry.ino));
                commands.push("print core.format core.aformat core.forkoff core.size".to_owned());
            }
            let text = oracle::xfs_db(self.devices, &commands)?;
            let lines: Vec<&str> = text.lines().collect();
            ensure!(lines.len() == chunk.len() * 4, "xfs_db told of {} fields of {} inodes", lines.len(), chunk.len());
            for (entry, fields) in chunk.iter().zip(lines.chunks(4)) {
                let number = |i: usize| {
                    let value = fields[i].split_once(" = ").map_or("", |(_, v)| v);
                    value.split(' ').next().unwrap_or_default().parse::<u64>().unwrap_or(0)
                };
                let (format, forkoff) = (number(0), number(2));
                let attr = if forkoff > 0 { number(1) } else { 0 };
                let inode = format!("inode {}", entry.ino);
                let kind = entry.kind.as_str();
                if self.seen.insert(format!("{kind} {format} {attr}")) {
                    let names = ["dev", "local", "extents", "btree"];
                    let name = |f: u64| names.get(f as usize).copied().unwrap_or("other");
                    let attribute = if attr == 0 { String::new() } else { format!(", attr {}", name(attr)) };
                    self.add(&format!("inode {kind} {}{attribute}", name(format)), &[&inode]);
                }
                for (is, fork, name) in [(format == 3, "u3", "bmbt"), (attr == 3, "a", "bmbt attr")] {
                    if is
                        && let Some(levels) = self.number(&[&inode], &format!("{fork}.bmbt.level"))?
                        && self.seen.insert(format!("{name} {levels}"))
                    {
                        let root = [inode.clone(), format!("addr {fork}.bmbt.ptrs[1]")];
                        self.tree(name, &root, levels)?;
                    }
                }
                // Blocks of the forks, recognised by their magic.
                let directory = kind == "dir" && format >= 2;
                if directory || (kind == "symlink" && format == 2) {
                    let (bytes, leaf) = (number(3), LEAF / block);
                    for at in [0, directory_blocks, leaf, leaf + directory_blocks, 2 * leaf] {
                        if directory || at * block < bytes {
                            self.block(&inode, "dblock", at)?;
                        }
                    }
                }
                if attr >= 2 && attribute_files < 60 {
                    attribute_files += 1;
                    for at in 0..6 {
                        self.block(&inode, "ablock", at)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds a block of a fork as a place, where it is mapped and of a type not yet seen.
    fn block(&mut self, inode: &str, command: &str, block: u64) -> Result<()> {
        let step = format!("{command} {block}");
        let text = oracle::xfs_db(self.devices, &[inode, &step, "addr"])?;
        let offset =
            text.lines().find_map(|l| l.trim().strip_prefix("byte offset ")?.split(',').next()?.parse::<u64>().ok());
        // Where nothing is mapped there, xfs_db stays at the inode.
        if let Some(offset) = offset.filter(|_| !text.contains("type inode")) {
            let mut head = [0; 16];
            File::open(&self.devices.data)?.read_exact_at(&mut head, offset)?;
            if let Some(kind) = kind(&head)
                && self.seen.insert(format!("block {} {command}", kind.name))
            {
                let name = format!("{}{}", kind.name, if command == "ablock" { " (attr)" } else { "" });
                self.add(&name, &[inode, &step]);
            }
        }
        Ok(())
    }
}

/// The block size, and how many blocks a directory block has, read from the superblock.
fn block_sizes(devices: &Devices) -> Result<(u64, u64)> {
    let mut sb = [0; 193];
    File::open(&devices.data)?.read_exact_at(&mut sb, 0)?;
    Ok((sb[4..8].iter().fold(0, |a, b| a << 8 | u64::from(*b)), 1 << (sb[192] & 15)))
}
