//! Damage: fields changed by xfs_db with the CRC made right again, and whole blocks zeroed, filled with noise or swapped.
//!
//! A [`Case`] is a name for one change. [`Workbench::patch`] finds out once, by running xfs_db on a scratch copy, which bytes it
//! changes; after that a [`Patch`] is applied to a working copy and taken back by a few writes, so that many thousands of
//! cases run at the speed of the checker.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rand::seq::IndexedRandom as _;
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::corpus::{self, Entry};
use crate::oracle::{self, Devices};

/// The verbs of xfs_db's fuzz command that give the same result each time.
pub const VERBS: [&str; 7] = ["zeroes", "ones", "firstbit", "middlebit", "lastbit", "add", "sub"];

/// A structure, named by the xfs_db commands that lead to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it is, for tables: `agf`, `bnobt leaf`, `inode`...
    pub structure: String,
    /// The xfs_db commands that lead to it.
    pub commands: Vec<String>,
}

/// One change of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The structure.
    pub place: Place,
    /// The field, as xfs_db names it.
    pub field: String,
    /// What is done to it.
    pub verb: &'static str,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{}] {} {}", self.place.structure, self.place.commands.join("; "), self.field, self.verb)
    }
}

/// The bytes that a case changes: offset, old, new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Runs of changed bytes on the data device, by offset.
    pub runs: Vec<(u64, Vec<u8>, Vec<u8>)>,
}

impl Patch {
    /// Whether the case changes nothing, as zeroing a zero does.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Makes the damage in a copy of the image.
    pub fn apply(&self, file: &File) -> Result<()> {
        self.runs.iter().try_for_each(|(at, _, new)| Ok(file.write_all_at(new, *at)?))
    }

    /// Takes it back. Right only where nobody else wrote to the copy.
    pub fn undo(&self, file: &File) -> Result<()> {
        self.runs.iter().try_for_each(|(at, old, _)| Ok(file.write_all_at(old, *at)?))
    }

    /// What differs between two images of the same length within these ranges of bytes.
    fn difference(before: &File, after: &File, ranges: &[(u64, u64)]) -> Result<Patch> {
        const PIECE: usize = 1 << 20;
        let mut runs: Vec<(u64, Vec<u8>, Vec<u8>)> = Vec::new();
        for (start, length) in ranges {
            let (mut at, end) = (*start, start + length);
            while at < end {
                let n = (end - at).min(PIECE as u64) as usize;
                let (mut old, mut new) = (vec![0; n], vec![0; n]);
                before.read_exact_at(&mut old, at)?;
                after.read_exact_at(&mut new, at)?;
                if old != new {
                    for i in (0..n).filter(|i| old[*i] != new[*i]) {
                        let place = at + i as u64;
                        match runs.last_mut() {
                            Some((from, o, n)) if *from + o.len() as u64 == place => {
                                o.push(old[i]);
                                n.push(new[i]);
                            }
                            _ => runs.push((place, vec![old[i]], vec![new[i]])),
                        }
                    }
                }
                at += n as u64;
            }
        }
        Ok(Patch { runs })
    }
}

/// The structures of an image that cases are made for, found through its manifest and xfs_db; the same each time.
pub fn places(devices: &Devices, manifest: &[Entry]) -> Result<Vec<Place>> {
    let mut all = Vec::new();
    let mut add = |structure: &str, commands: &[&str]| {
        let commands = commands.iter().map(|c| (*c).to_owned()).collect();
        all.push(Place { structure: structure.to_owned(), commands });
    };
    add("sb", &["sb 0"]);
    add("sb secondary", &["sb 1"]);
    for (name, command) in [("agf", "agf 0"), ("agi", "agi 0"), ("agfl", "agfl 0")] {
        add(name, &[command]);
    }
    let trees = [
        ("agf 0", "bnobt", "bnoroot", "bnolevel"),
        ("agf 0", "cntbt", "cntroot", "cntlevel"),
        ("agf 0", "rmapbt", "rmaproot", "rmaplevel"),
        ("agf 0", "refcntbt", "refcntroot", "refcntlevel"),
        ("agi 0", "inobt", "root", "level"),
        ("agi 0", "finobt", "free_root", "free_level"),
    ];
    for (header, tree, root, level) in trees {
        // A tree that the filesystem does not have has no such field, or no level.
        let levels = value(devices, &[header], level)?.and_then(|v| v.parse().ok()).unwrap_or(0);
        let root = format!("addr {root}");
        let mut path = vec![header, &root];
        for depth in 0..levels {
            let leaf = depth + 1 == levels;
            add(&format!("{tree} {}", if leaf { "leaf" } else { "node" }), &path);
            path.push("addr ptrs[1]");
        }
    }
    let (block, directory_blocks) = block_sizes(devices)?;
    // One file of each form: by kind and by the formats of both forks.
    let mut seen = BTreeSet::new();
    for chunk in manifest.chunks(400) {
        let mut commands = Vec::new();
        for entry in chunk {
            commands.push(format!("inode {}", entry.ino));
            commands.push("print core.format core.aformat core.forkoff core.size".to_owned());
        }
        let text = oracle::xfs_db(devices, &commands)?;
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
            if seen.insert(format!("{kind} {format} {attr}")) {
                let names = ["dev", "local", "extents", "btree"];
                let name = |f: u64| names.get(f as usize).copied().unwrap_or("other");
                let attribute = if attr == 0 { String::new() } else { format!(", attr {}", name(attr)) };
                add(&format!("inode {kind} {}{attribute}", name(format)), &[&inode]);
                if format == 3 {
                    add("bmbt", &[&inode, "addr u3.bmbt.ptrs[1]"]);
                }
                if attr == 3 {
                    add("bmbt attr", &[&inode, "addr a.bmbt.ptrs[1]"]);
                }
            }
            // Blocks of the forks, each type once, recognised by its magic.
            let directory = kind == "dir" && format >= 2;
            if directory || (kind == "symlink" && format == 2) {
                let (bytes, leaf) = (number(3), LEAF / block);
                for at in [0, directory_blocks, leaf, leaf + directory_blocks, 2 * leaf] {
                    if directory || at * block < bytes {
                        blocks(devices, &mut seen, &mut add, &inode, "dblock", at)?;
                    }
                }
            }
            if attr >= 2 && entry.xattrs.len() > 4 && seen.len() < 200 {
                for block in 0..6 {
                    blocks(devices, &mut seen, &mut add, &inode, "ablock", block)?;
                }
            }
        }
    }
    Ok(all)
}

/// Where a directory's leaves begin; twice that, where its free indexes begin.
const LEAF: u64 = 32 << 30;

/// The block size, and how many blocks a directory block has, read from the superblock.
fn block_sizes(devices: &Devices) -> Result<(u64, u64)> {
    let mut sb = [0; 193];
    File::open(&devices.data)?.read_exact_at(&mut sb, 0)?;
    Ok((sb[4..8].iter().fold(0, |a, b| a << 8 | u64::from(*b)), 1 << (sb[192] & 15)))
}

/// Adds a block of a fork as a place, where it is mapped and of a type not yet seen.
fn blocks(
    devices: &Devices,
    seen: &mut BTreeSet<String>,
    add: &mut impl FnMut(&str, &[&str]),
    inode: &str,
    command: &str,
    block: u64,
) -> Result<()> {
    let step = format!("{command} {block}");
    let text = oracle::xfs_db(devices, &[inode, &step, "addr"])?;
    let offset =
        text.lines().find_map(|l| l.trim().strip_prefix("byte offset ")?.split(',').next()?.parse::<u64>().ok());
    // Where nothing is mapped there, xfs_db stays at the inode.
    if let Some(offset) = offset.filter(|_| !text.contains("type inode")) {
        let mut head = [0; 16];
        File::open(&devices.data)?.read_exact_at(&mut head, offset)?;
        if let Some(kind) = kind(&head)
            && seen.insert(format!("block {} {command}", kind.name))
        {
            add(&format!("{}{}", kind.name, if command == "ablock" { " (attr)" } else { "" }), &[inode, &step]);
        }
    }
    Ok(())
}

fn value(devices: &Devices, commands: &[&str], field: &str) -> Result<Option<String>> {
    let text = oracle::xfs_db(devices, &[commands, &[&format!("print {field}")]].concat())?;
    Ok(text.trim().split_once(" = ").map(|(_, v)| v.to_owned()))
}

/// The fields of a structure, as xfs_db names them. Of an array the first, the middle and the last member.
pub fn fields(devices: &Devices, place: &Place) -> Result<Vec<String>> {
    let mut commands = place.commands.clone();
    commands.push("print".to_owned());
    let mut all = Vec::new();
    let text = oracle::xfs_db(devices, &commands)?;
    for line in text.lines() {
        // Lines of an array's members have no name of their own.
        let Some((name, rest)) = line.split_once(" = ") else { continue };
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || rest.starts_with("(empty)") {
            continue;
        }
        let members = rest.trim().strip_prefix('[').and_then(|r| r.strip_suffix(']'));
        let names = match members {
            Some(list) => list.split(',').map(|m| format!(".{m}")).collect(),
            None => vec![String::new()],
        };
        for index in indexes(name) {
            all.extend(names.iter().map(|member| format!("{index}{member}")));
        }
    }
    // Of a long list of entries (`bu[17].name`) the ends and the middle are enough.
    Ok(thin(all))
}

/// `name[3-9]` gives `name[3]`, `name[6]`, `name[9]`; a name without a range itself.
fn indexes(name: &str) -> Vec<String> {
    let range = || {
        let (base, range) = name.strip_suffix(']')?.rsplit_once('[')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        let picks = BTreeSet::from([first, first.midpoint(last), last]);
        Some(picks.into_iter().map(|i| format!("{base}[{i}]")).collect())
    };
    range().unwrap_or_else(|| vec![name.to_owned()])
}

/// Keeps of fields that differ in their first index only those of the first, the middle and the last index.
fn thin(all: Vec<String>) -> Vec<String> {
    let split = |f: &str| -> Option<(String, u64)> {
        let (base, rest) = f.split_once('[')?;
        let (index, _) = rest.split_once(']')?;
        Some((base.to_owned(), index.parse().ok()?))
    };
    let mut groups: std::collections::BTreeMap<String, BTreeSet<u64>> = Default::default();
    for (base, index) in all.iter().filter_map(|f| split(f)) {
        groups.entry(base).or_default().insert(index);
    }
    let kept = |f: &String| match split(f) {
        Some((base, index)) => {
            let group: Vec<u64> = groups[&base].iter().copied().collect();
            [group.first(), group.get(group.len() / 2), group.last()].contains(&Some(&index))
        }
        None => true,
    };
    all.into_iter().filter(kept).collect()
}

/// All cases of an image, in an order that is the same each time.
pub fn cases(devices: &Devices, manifest: &[Entry]) -> Result<Vec<Case>> {
    let mut all = Vec::new();
    for place in places(devices, manifest)? {
        for field in fields(devices, &place)? {
            // A wrong CRC is a case of its own; making it right again would undo it.
            if field.ends_with("crc") {
                continue;
            }
            all.extend(VERBS.map(|verb| Case { place: place.clone(), field: field.clone(), verb }));
        }
    }
    Ok(all)
}

/// `count` cases drawn by a seed, without repetition, in the order of `all`.
pub fn sample(all: &[Case], count: usize, seed: u64) -> Vec<Case> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let indexes: Vec<usize> = (0..all.len()).collect();
    let mut picked: Vec<usize> = indexes.choose_multiple(&mut rng, count).copied().collect();
    picked.sort_unstable();
    picked.into_iter().map(|i| all[i].clone()).collect()
}

/// A private copy of an image on which cases are tried one after the other. One per thread.
#[derive(Debug)]
pub struct Workbench {
    devices: Devices,
    pristine: File,
    working: File,
    data: Vec<(u64, u64)>,
    _directory: tempfile::TempDir,
}

impl Workbench {
    /// Copies a corpus image.
    pub fn new(name: &str) -> Result<Workbench> {
        std::fs::create_dir_all(corpus::directory())?;
        let directory = tempfile::Builder::new().prefix(".workbench-").tempdir_in(corpus::directory())?;
        let devices = corpus::copy(name, directory.path());
        for path in [Some(&devices.data), devices.log.as_ref(), devices.rt.as_ref()].into_iter().flatten() {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        }
        let pristine = File::open(corpus::image(name))?;
        let working = OpenOptions::new().read(true).write(true).open(&devices.data)?;
        let data = data_ranges(&pristine)?;
        Ok(Workbench { devices, pristine, working, data, _directory: directory })
    }

    /// The files of the copy.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The copy's data device.
    pub fn file(&self) -> &File {
        &self.working
    }

    /// What a case changes; the copy is as before afterwards. An empty patch where xfs_db changes nothing, or has no such verb
    /// for a field of that type.
    pub fn patch(&self, case: &Case) -> Result<Patch> {
        let fuzz = format!("fuzz -d {} {}", case.field, case.verb);
        let mut commands = case.place.commands.clone();
        commands.extend([fuzz, "addr".to_owned()]);
        let text = oracle::xfs_db_write(&self.devices, &commands).with_context(|| case.to_string())?;
        let patch = Patch::difference(&self.pristine, &self.working, &self.ranges(&text))?;
        patch.undo(&self.working)?;
        Ok(patch)
    }

    /// Where xfs_db can have written: its buffer; or all data, where a block may have several parts.
    fn ranges(&self, address: &str) -> Vec<(u64, u64)> {
        let buffer = || {
            let line = address.lines().find_map(|l| l.trim().strip_prefix("buffer block "))?;
            let (daddr, rest) = line.split_once(' ')?;
            let count = rest.rsplit_once(", ")?.1.split(' ').next()?;
            Some((daddr.parse::<u64>().ok()? * 512, count.parse::<u64>().ok()? * 512))
        };
        match buffer() {
            Some(range) if !["dir3", "attr3", "data"].iter().any(|t| address.contains(&format!("type {t}"))) => {
                vec![range]
            }
            _ => self.data.clone(),
        }
    }

    /// Puts back everything that differs from the pristine image, whoever wrote it.
    pub fn restore(&self) -> Result<()> {
        Patch::difference(&self.pristine, &self.working, &data_ranges(&self.working)?)?.undo(&self.working)
    }
}

/// The ranges of a file that are not holes, as offset and length.
fn data_ranges(file: &File) -> Result<Vec<(u64, u64)>> {
    use rustix::fs::SeekFrom;
    let (mut all, mut at) = (Vec::new(), 0);
    loop {
        match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => {
                at = rustix::fs::seek(file, SeekFrom::Hole(start))?;
                all.push((start, at - start));
            }
            Err(rustix::io::Errno::NXIO) => return Ok(all),
            Err(e) => return Err(e.into()),
        }
    }
}

/// What is done to a whole block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// All zero.
    Zero,
    /// Random bytes.
    Noise,
    /// Random bytes behind the magic, and a right CRC.
    SealedNoise,
    /// A single bit flipped, and a right CRC.
    SealedBit,
    /// The contents of another block of the list.
    Swap,
}

/// A metadata block found by its magic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What its magic says.
    pub name: &'static str,
    /// Where it is, in bytes.
    pub offset: u64,
    /// Bytes that its CRC covers.
    pub length: usize,
    /// Where the CRC stands in it.
    pub crc: usize,
}

struct Kind {
    name: &'static str,
    crc: usize,
    /// 0 a sector, 1 a block, 2 a directory block.
    unit: u8,
}

/// Tells a block's type by its magic.
fn kind(head: &[u8]) -> Option<Kind> {
    let short: &[(&[u8], &str, usize, u8)] = &[
        (b"XFSB", "sb", 224, 0),
        (b"XAGF", "agf", 216, 0),
        (b"XAGI", "agi", 312, 0),
        (b"XAFL", "agfl", 32, 0),
        (b"AB3B", "bnobt", 52, 1),
        (b"AB3C", "cntbt", 52, 1),
        (b"IAB3", "inobt", 52, 1),
        (b"FIB3", "finobt", 52, 1),
        (b"RMB3", "rmapbt", 52, 1),
        (b"R3FC", "refcntbt", 52, 1),
        (b"BMA3", "bmbt", 64, 1),
        (b"XDB3", "dir block", 4, 2),
        (b"XDD3", "dir data", 4, 2),
        (b"XDF3", "dir free", 4, 2),
        (b"XARM", "attr remote", 12, 1),
        (b"XSLM", "symlink remote", 12, 1),
    ];
    let long: &[(&[u8], &str, usize, u8)] = &[
        (&[0x3e, 0xbe], "da node", 12, 2),
        (&[0x3b, 0xee], "attr leaf", 12, 1),
        (&[0x3d, 0xf1], "dir leaf1", 12, 2),
        (&[0x3d, 0xff], "dir leafn", 12, 2),
    ];
    let find = |table: &[(&[u8], &'static str, usize, u8)], at: usize| {
        let row = table.iter().find(|(magic, ..)| head.get(at..).is_some_and(|h| h.starts_with(magic)))?;
        Some(Kind { name: row.1, crc: row.2, unit: row.3 })
    };
    find(short, 0).or_else(|| find(long, 8))
}

impl Workbench {
    /// The metadata blocks of the image by their magic. A da node may belong to a directory or to attributes, which have
    /// other lengths where directory blocks are large; the one whose CRC is right is taken.
    pub fn blocks(&self) -> Result<Vec<Block>> {
        let mut sb = [0; 512];
        self.pristine.read_exact_at(&mut sb, 0)?;
        let number = |at: usize, n: usize| sb[at..at + n].iter().fold(0_usize, |a, b| a << 8 | usize::from(*b));
        let (sector, block) = (number(102, 2), number(4, 4));
        ensure!(sector > 0 && block >= sector, "no superblock");
        let directory = block << sb[192];
        let mut all = Vec::new();
        let mut bytes = vec![0; directory];
        for (start, length) in &self.data {
            // The headers of an AG stand in its first sectors, everything else at blocks.
            let first = start / sector as u64 * sector as u64;
            for offset in (first..start + length).step_by(sector) {
                let mut head = [0; 16];
                self.pristine.read_exact_at(&mut head, offset)?;
                let Some(kind) = kind(&head) else { continue };
                if kind.unit > 0 && offset % block as u64 != 0 {
                    continue;
                }
                for length in BTreeSet::from([[sector, block, directory][usize::from(kind.unit)], block.max(sector)]) {
                    let bytes = &mut bytes[..length];
                    if self.pristine.read_exact_at(bytes, offset).is_ok()
                        && libxfsr::format::stored_checksum(bytes, kind.crc)
                            == libxfsr::format::checksum(bytes, kind.crc)
                    {
                        all.push(Block { name: kind.name, offset, length, crc: kind.crc });
                        break;
                    }
                }
            }
        }
        Ok(all)
    }

    /// What a blow to the block `index` of `blocks` changes.
    pub fn blow(&self, blocks: &[Block], index: usize, blow: Blow, seed: u64) -> Result<Patch> {
        let block = blocks.get(index).context("no such block")?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ block.offset);
        let mut old = vec![0; block.length];
        self.pristine.read_exact_at(&mut old, block.offset)?;
        let mut new = old.clone();
        match blow {
            Blow::Zero => new.fill(0),
            Blow::Noise => rng.fill_bytes(&mut new),
            Blow::SealedNoise => {
                // The magic stands in the first 16 bytes of every type.
                rng.fill_bytes(&mut new[16..]);
                libxfsr::format::seal_checksum(&mut new, block.crc);
            }
            Blow::SealedBit => {
                let bit = rng.next_u64() as usize % (block.length * 8);
                new[bit / 8] ^= 1 << (bit % 8);
                libxfsr::format::seal_checksum(&mut new, block.crc);
            }
            Blow::Swap => {
                let others: Vec<&Block> =
                    blocks.iter().filter(|b| b.length == block.length && b.offset != block.offset).collect();
                let other = others.choose(&mut rng).context("no other block of that length")?;
                self.pristine.read_exact_at(&mut new, other.offset)?;
            }
        }
        Ok(if old == new { Patch::default() } else { Patch { runs: vec![(block.offset, old, new)] } })
    }
}

/// Where a working copy of another program may lie: beside the corpus, so that blocks can be shared.
pub fn scratch() -> Result<PathBuf> {
    let directory: &Path = &corpus::directory().join("scratch");
    std::fs::create_dir_all(directory)?;
    Ok(directory.to_path_buf())
}
