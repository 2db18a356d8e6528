//! Numbers of inodes and blocks replaced by other valid ones: no rule of a range can tell, only a relation.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::{Case, Checksum, Place, fields};
use crate::corpus::Entry;
use crate::oracle::{self, Devices};

/// The verb of these cases: xfs_db's `write` instead of its `fuzz`.
pub const VALID: &str = "valid";

/// What a field counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counts {
    /// An inode of the filesystem.
    Ino,
    /// An inode of AG 0.
    Agino,
    /// A block of AG 0, which has the same number in the filesystem.
    Block,
    /// A block's own place, in sectors.
    Daddr,
    /// An AG.
    Ag,
    /// A block of a file.
    FileBlock,
    /// The owner of a dquot.
    Id,
    /// Something else, of which only other values of the same array are valid.
    Sibling,
}

/// A field's name without array indexes: `recs[3].startblock` gives `recs.startblock`.
fn base(field: &str) -> String {
    let mut inside = false;
    let keep = |c: &char| {
        inside = (inside || *c == '[') && *c != ']';
        !inside && *c != ']'
    };
    field.chars().filter(keep).collect()
}

fn counts(structure: &str, field: &str) -> Option<Counts> {
    let short = ["bnobt", "cntbt", "rmapbt", "refcntbt", "inobt", "finobt"].iter().any(|t| structure.starts_with(t));
    let base = base(field);
    let last = base.trim_end_matches(".i4").trim_end_matches(".i8").rsplit('.').next()?;
    Some(match last {
        "inumber" | "parent" => Counts::Ino,
        "owner" if short && base == "owner" => Counts::Ag,
        "seqno" => Counts::Ag,
        "owner" => Counts::Ino,
        "ino" | "rootino" | "rbmino" | "rsumino" | "uquotino" | "gquotino" | "pquotino" => Counts::Ino,
        "next_unlinked" | "newino" | "dirino" | "unlinked" => Counts::Agino,
        "bno" if structure == "agfl" => Counts::Block,
        "bno" | "blkno" => Counts::Daddr,
        "startblock" | "ptrs" | "leftsib" | "rightsib" | "root" | "free_root" | "bnoroot" | "cntroot" | "rmaproot"
        | "refcntroot" | "logstart" => Counts::Block,
        "forw" | "back" | "before" | "valueblk" => Counts::FileBlock,
        "id" if structure.starts_with("dquot") => Counts::Id,
        "startoff" | "startino" | "address" | "hashval" | "offset" => Counts::Sibling,
        _ => return None,
    })
}

/// The value that `print` shows; `null` is none.
fn value(text: &str) -> Option<u64> {
    let word = text.trim().split([' ', '\t']).next()?;
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

/// Numbers that are valid in an image.
struct Valid {
    inos: BTreeSet<u64>,
    aginos: BTreeSet<u64>,
    blocks: BTreeSet<u64>,
    file_blocks: BTreeSet<u64>,
    sectors_per_block: u64,
}

impl Valid {
    fn of(devices: &Devices, manifest: &[Entry]) -> Result<Valid> {
        let one = |commands: &[&str]| -> Result<u64> {
            let text = oracle::xfs_db(devices, commands)?;
            Ok(text.lines().find_map(|l| value(l.split_once(" = ")?.1)).unwrap_or(0))
        };
        let ag_bits = one(&["sb 0", "print agblklog"])? + one(&["sb 0", "print inopblog"])?;
        let block = one(&["sb 0", "print blocksize"])?.max(512);
        let directory_blocks = 1 << one(&["sb 0", "print dirblklog"])?;
        let of_kind = |kind: &'static str| manifest.iter().filter(move |e| e.kind == kind).map(|e| e.ino);
        // A file, a directory and another of each, which AG 0 has.
        let mut inos = BTreeSet::from([one(&["sb 0", "print rootino"])?]);
        for kind in ["file", "dir"] {
            inos.extend(of_kind(kind).filter(|i| i >> ag_bits == 0).take(2));
            inos.extend(of_kind(kind).find(|i| i >> ag_bits == 1));
        }
        let aginos = inos.iter().copied().filter(|i| i >> ag_bits == 0).collect();
        let blocks = BTreeSet::from([
            one(&["agf 0", "print bnoroot"])?,
            one(&["agi 0", "print root"])?,
            // A block of an inode chunk, and the first and the last free one.
            inos.first().copied().unwrap_or(0) >> one(&["sb 0", "print inopblog"])?,
            one(&["agf 0", "addr bnoroot", "print recs[1].startblock"])?,
            one(&["agf 0", "print length"])? - 1,
        ]);
        let leaf = (32 << 30) / block;
        let file_blocks = BTreeSet::from([1, directory_blocks, leaf, leaf + directory_blocks]);
        Ok(Valid { inos, aginos, blocks, file_blocks, sectors_per_block: block / 512 })
    }

    fn others(&self, counts: Counts, siblings: &BTreeSet<u64>, now: Option<u64>) -> BTreeSet<u64> {
        let mut all: BTreeSet<u64> = match counts {
            Counts::Ino => self.inos.clone(),
            Counts::Agino => self.aginos.clone(),
            Counts::Block => self.blocks.clone(),
            Counts::Daddr => self.blocks.iter().map(|b| b * self.sectors_per_block).collect(),
            Counts::Ag => BTreeSet::from([0, 1]),
            Counts::FileBlock => self.file_blocks.clone(),
            Counts::Id => BTreeSet::from([0, 1, 1000]),
            Counts::Sibling => BTreeSet::new(),
        };
        // The first and the last of the array; what lies beside the number may be valid too.
        let near = now.filter(|_| counts == Counts::Sibling).map(|n| n + 1);
        all.extend(siblings.first().into_iter().chain(siblings.last()).copied().chain(near));
        all.retain(|v| Some(*v) != now);
        all
    }
}

/// All cases of these places that set a number of an inode or a block to another valid one, with the checksum made right.
///
/// # Errors
/// Where xfs_db cannot be run.
pub fn valid_cases_of(devices: &Devices, manifest: &[Entry], places: &[Place]) -> Result<Vec<Case>> {
    let valid = Valid::of(devices, manifest)?;
    let mut all = Vec::new();
    for place in places {
        let fields: Vec<(String, Counts)> = fields(devices, place)?
            .into_iter()
            .filter_map(|field| counts(&place.structure, &field).map(|c| (field, c)))
            .collect();
        let mut commands = place.commands.clone();
        commands.extend(fields.iter().map(|(field, _)| format!("print {field}")));
        let text = oracle::xfs_db(devices, &commands)?;
        let values: BTreeMap<&str, &str> = text.lines().filter_map(|l| l.split_once(" = ")).collect();
        let mut siblings: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for (field, _) in &fields {
            if let Some(now) = values.get(field.as_str()).and_then(|v| value(v)) {
                siblings.entry(base(field)).or_default().insert(now);
            }
        }
        for (field, counts) in fields {
            let now = values.get(field.as_str()).and_then(|v| value(v));
            let none = BTreeSet::new();
            for value in valid.others(counts, siblings.get(&base(&field)).unwrap_or(&none), now) {
                let (place, checksum) = (place.clone(), Checksum::Right);
                all.push(Case { place, field: field.clone(), verb: VALID, value: Some(value), checksum });
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::{base, value};

    #[test]
    fn names_lose_their_indexes_and_values_their_words() {
        assert_eq!(base("u3.sfdir3.list[10].inumber.i4"), "u3.sfdir3.list.inumber.i4");
        assert_eq!(base("ptrs[1]"), "ptrs");
        assert_eq!((value("0x1f"), value("12 (extents)"), value("null")), (Some(31), Some(12), None));
    }
}
