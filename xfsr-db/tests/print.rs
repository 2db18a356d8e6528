//! `print` says of every kind of object, word for word, what xfs_db 6.1 says of it.
//!
//! What differs, and why, is what [`without_parents`] and [`with_signed_ids`] say: nothing else.

mod common;

use common::{images, our_groups, spread, stock_groups};
use libxfsr::cache::OnDamage;
use libxfsr::error::ForkKind;
use libxfsr::inode::Inode;
use libxfsr::units::{FsBlock, Ino};
use libxfsr::volume::Volume;
use std::collections::BTreeMap;
use xfsr_tests::corpus;
use xfsr_tests::oracle::Devices;

/// Objects of each kind that are compared in each image.
const SAMPLE: usize = 20;

/// Kinds of objects, each with the ways to go there.
type Objects = BTreeMap<String, Vec<Vec<String>>>;

fn add(all: &mut Objects, kind: impl Into<String>, way: &[&str]) {
    all.entry(kind.into()).or_default().push(way.iter().map(|s| (*s).to_owned()).collect());
}

fn headers(volume: &Volume, all: &mut Objects) {
    for ag in 0..volume.geometry.ag_count {
        for header in ["sb", "agf", "agi", "agfl"] {
            add(all, header, &[&format!("{header} {ag}")]);
        }
    }
}

/// The value of a field in printed text.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(" = ")?.parse().ok())
}

/// Blocks of trees at each level, found level by level through what xfs_db prints.
fn trees(devices: &Devices, all: &mut Objects, mut level: Vec<(String, Vec<String>)>) {
    // No tree of the corpus is deeper.
    for _ in 0..6 {
        let groups: Vec<Vec<String>> = level.iter().map(|(_, w)| [&w[..], &["print".to_owned()]].concat()).collect();
        let mut next: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
        for ((kind, way), text) in level.iter().zip(stock_groups(devices, &groups)) {
            let (Some(height), Some(records)) = (field(&text, "level"), field(&text, "numrecs")) else { continue };
            all.entry(format!("{kind} level {height}")).or_default().push(way.clone());
            if height > 0 {
                for i in 1..=records {
                    let mut to = way.clone();
                    to.push(format!("addr ptrs[{i}]"));
                    next.entry(kind.clone()).or_default().push(to);
                }
            }
        }
        level = next.iter().flat_map(|(k, ways)| spread(ways, SAMPLE).into_iter().map(|w| (k.clone(), w))).collect();
    }
}

fn ag_trees(volume: &Volume, devices: &Devices, all: &mut Objects) {
    let f = &volume.geometry.features;
    let mut roots = Vec::new();
    for ag in 0..volume.geometry.ag_count {
        for (header, field, kind, present) in [
            ("agf", "bnoroot", "bnobt", true),
            ("agf", "cntroot", "cntbt", true),
            ("agf", "rmaproot", "rmapbt", f.rmapbt()),
            ("agf", "refcntroot", "refcntbt", f.reflink()),
            ("agi", "root", "inobt", true),
            ("agi", "free_root", "finobt", f.finobt()),
        ] {
            if present {
                roots.push((kind.to_owned(), vec![format!("{header} {ag}"), format!("addr {field}")]));
            }
        }
    }
    trees(devices, all, roots);
}

/// File offsets of the mapped blocks of a fork, one per directory block.
fn mapped(volume: &Volume, inode: &Inode, fork: ForkKind) -> Vec<(u64, FsBlock)> {
    let step = if fork == ForkKind::Data && inode.core.is_dir() { 1 << volume.geometry.dir_block_log } else { 1 };
    let extents = inode.extents(volume, fork).unwrap_or_default();
    let blocks =
        extents.iter().filter(|e| !e.unwritten).flat_map(|e| (0..e.count).map(move |i| (e.offset + i, e.start + i)));
    blocks.filter(|(at, _)| at.is_multiple_of(step)).map(|(at, b)| (at, FsBlock(b))).collect()
}

/// What a block of a directory or an attribute fork is, by its magic.
fn block_kind(volume: &Volume, at: FsBlock, fork: &str) -> String {
    let Some(daddr) = volume.geometry.fsblock_to_daddr(at) else { return "nothing".into() };
    let mut head = [0; 16];
    volume.data_target().read_at(&mut head, daddr.bytes()).expect("a block");
    let magic = match &head {
        [b'X', ..] => String::from_utf8_lossy(&head[..4]).into_owned(),
        _ => format!("{:02x}{:02x}", head[8], head[9]),
    };
    format!("{fork} block {magic}")
}

fn inodes(volume: &Volume, devices: &Devices, name: &str, all: &mut Objects) {
    let mut roots = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let sb = &volume.superblock;
    let special = [sb.rbmino.get(), sb.rsumino.get(), sb.uquotino.get(), sb.gquotino.get(), sb.pquotino.get()];
    let listed = corpus::manifest(name).into_iter().map(|e| e.ino);
    // The chunk of the root holds inodes that were never used.
    let near = (0..64).map(|i| volume.geometry.root_ino.0 + i);
    for ino in listed.chain(near).chain(special).filter(|i| *i != 0 && *i != u64::MAX) {
        if !seen.insert(ino) {
            continue;
        }
        let inode = Inode::read(volume, Ino(ino), OnDamage::Keep).expect("an inode");
        let go = format!("inode {ino}");
        let kind = inode.core.kind().map_or("free".to_owned(), |k| format!("{k:?}").to_lowercase());
        let attr = inode.core.has_attr_fork().then(|| inode.core.format(ForkKind::Attr));
        add(all, format!("inode {kind} {:?} {attr:?}", inode.core.format(ForkKind::Data)), &[&go]);
        for (fork, root) in [(ForkKind::Data, "u3.bmbt"), (ForkKind::Attr, "a.bmbt")] {
            if inode.core.format(fork) == Some(libxfsr::format::inode::Format::Btree) {
                let kind = if fork == ForkKind::Data { "bmapbtd" } else { "bmapbta" };
                for i in 1..=3 {
                    roots.push((kind.to_owned(), vec![go.clone(), format!("addr {root}.ptrs[{i}]")]));
                }
            }
        }
        if inode.core.is_dir() || inode.core.is_symlink() {
            for (at, b) in mapped(volume, &inode, ForkKind::Data) {
                add(all, block_kind(volume, b, &kind), &[&go, &format!("dblock {at}")]);
            }
        } else if special.contains(&ino) {
            let kind = ["rtbitmap", "rtsummary", "dquot", "dquot", "dquot"]
                [special.iter().position(|s| *s == ino).unwrap_or(0)];
            for (at, _) in spread(&mapped(volume, &inode, ForkKind::Data), 5) {
                add(all, kind, &[&go, &format!("dblock {at}")]);
            }
        } else if inode.core.is_reg() && !inode.core.is_realtime() {
            for (at, _) in mapped(volume, &inode, ForkKind::Data).into_iter().take(1) {
                add(all, "file block", &[&go, &format!("dblock {at}")]);
            }
        }
        for (at, b) in mapped(volume, &inode, ForkKind::Attr) {
            add(all, block_kind(volume, b, "attr"), &[&go, &format!("ablock {at}")]);
        }
    }
    let chosen: Vec<_> = ["bmapbtd", "bmapbta"]
        .iter()
        .flat_map(|k| spread(&roots.iter().filter(|r| r.0 == *k).cloned().collect::<Vec<_>>(), SAMPLE))
        .collect();
    trees(devices, all, chosen);
}

fn quotas(volume: &Volume, name: &str, all: &mut Objects) {
    for (field, option) in
        [(volume.superblock.uquotino, "-u"), (volume.superblock.gquotino, "-g"), (volume.superblock.pquotino, "-p")]
    {
        if matches!(field.get(), 0 | u64::MAX) {
            continue;
        }
        let mut ids: Vec<u32> = Vec::new();
        for e in corpus::manifest(name) {
            let core = Inode::read(volume, Ino(e.ino), OnDamage::Keep).expect("an inode").core;
            ids.push(match option {
                "-u" => core.uid.get(),
                "-g" => core.gid.get(),
                _ => core.project(),
            });
        }
        ids.sort_unstable();
        ids.dedup();
        for id in spread(&ids, SAMPLE) {
            add(all, format!("dquot {option}"), &[&format!("dquot {option} {id}")]);
        }
    }
}

/// xfs_db shows the upper half of the quota ids as negative numbers.
fn with_signed_ids(text: &str) -> String {
    let signed =
        |l: &str| Some(format!("diskdq.id = {}", l.strip_prefix("diskdq.id = ")?.parse::<u32>().ok()?.cast_signed()));
    text.lines().map(|l| signed(l).unwrap_or_else(|| l.to_owned()) + "\n").collect()
}

/// Takes from our text what may differ: parent pointers, which xfs_db 6.1 does not know. Of an attribute leaf's entries the last column
/// says whether the entry is one; of an inode's short attributes a line does.
fn without_parents(text: &str) -> String {
    let mut out = String::new();
    let mut rows = false;
    for line in text.lines() {
        if line.starts_with("a.sfattr.list[") && line.contains(".parent = ") {
            continue;
        }
        if let Some(head) = line.strip_suffix(",parent] ") {
            rows = true;
            out.push_str(&format!("{head}] \n"));
            continue;
        }
        rows = rows && line.contains(":[");
        let cut = if rows { line.trim_end().strip_suffix(']').and_then(|l| l.rsplit_once(',')) } else { None };
        match cut {
            Some((row, _)) => out.push_str(&format!("{row}]{}\n", if line.ends_with(' ') { " " } else { "" })),
            None => out.push_str(&format!("{line}\n")),
        }
    }
    out
}

fn compare(name: &str) -> Result<(), String> {
    let Some(devices) = corpus::obtain(name) else { return Ok(()) };
    let volume = common::volume(&devices);
    let mut all = Objects::new();
    headers(&volume, &mut all);
    ag_trees(&volume, &devices, &mut all);
    inodes(&volume, &devices, name, &mut all);
    quotas(&volume, name, &mut all);
    let mut groups = Vec::new();
    let mut labels = Vec::new();
    for (kind, ways) in &all {
        let few = spread(ways, SAMPLE);
        println!("{name}: {kind}: {} of {}", few.len(), ways.len());
        for way in few {
            labels.push(format!("{kind}: {}", way.join("; ")));
            groups.push([&way[..], &["print".to_owned()]].concat());
        }
    }
    let (mine, theirs) = (our_groups(&devices, &groups), stock_groups(&devices, &groups));
    let mut wrong = String::new();
    let mut count = 0;
    for ((label, a), b) in labels.iter().zip(&mine).zip(&theirs) {
        let parents = volume.geometry.features.parent();
        let a = if parents { &without_parents(a) } else { a };
        let a = if label.starts_with("dquot") { &with_signed_ids(a) } else { a };
        if a != b {
            count += 1;
            if wrong.len() < 20_000 {
                wrong.push_str(&format!("{label}\n{}", common::difference(a, b).unwrap_or_else(|| "line ends".into())));
            }
        }
    }
    if count == 0 {
        return Ok(());
    }
    Err(format!("{name}: {count} of {} objects are printed differently\n{wrong}", labels.len()))
}

#[test]
fn every_kind_of_object_is_printed_as_xfs_db_prints_it() {
    let wrong: Vec<String> = images().into_iter().filter_map(|name| compare(name).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
