//! The fields of a structure, as xfs_db's `print` names them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::Place;
use crate::oracle::{self, Devices};

/// All fields of a structure that xfs_db shows. Of an array the first, the last and three between; of the free list the ends of its
/// active part too.
pub fn fields(devices: &Devices, place: &Place) -> Result<Vec<String>> {
    let mut commands = place.commands.clone();
    commands.push("print".to_owned());
    let text = oracle::xfs_db(devices, &commands)?;
    let mut all = names(&text);
    if let Some(ag) = place.commands.last().and_then(|c| c.strip_prefix("agfl ")) {
        let text = oracle::xfs_db(devices, &[format!("agf {ag}"), "print flfirst fllast".to_owned()])?;
        let slots = text.lines().filter_map(|l| l.split_once(" = ")).map(|(_, slot)| format!("bno[{slot}]"));
        all.extend(slots.filter(|slot| !names(&text).contains(slot)));
        all.dedup();
    }
    Ok(all)
}

/// The names in what `print` shows.
fn names(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for line in text.lines() {
        // Lines of an array's members have no name of their own.
        let Some((name, rest)) = line.split_once(" = ") else { continue };
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || rest.starts_with("(empty)") {
            continue;
        }
        // An array of records names the members, and gives the values on the same line or on those that follow.
        let members = rest.trim_start().strip_prefix('[').and_then(|r| r.split_once(']')).map(|(list, _)| list);
        let names = match members.filter(|list| list.split(',').all(|m| !m.is_empty() && !m.contains([':', ' ']))) {
            Some(list) => list.split(',').map(|m| format!(".{m}")).collect(),
            None => vec![String::new()],
        };
        for index in indexes(name) {
            all.extend(names.iter().map(|member| format!("{index}{member}")));
        }
    }
    // Of a long list of entries (`bu[17].name`) the ends and the middle are enough.
    thin(all)
}

/// `name[3-11]` gives `name[3]`, `name[5]`, `name[7]`, `name[9]`, `name[11]`; a name without a range itself.
fn indexes(name: &str) -> Vec<String> {
    let range = || {
        let (base, range) = name.strip_suffix(']')?.rsplit_once('[')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        let middle = first.midpoint(last);
        let picks = BTreeSet::from([first, first.midpoint(middle), middle, middle.midpoint(last), last]);
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
    let mut groups: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for (base, index) in all.iter().filter_map(|f| split(f)) {
        groups.entry(base).or_default().insert(index);
    }
    let kept = |f: &String| match split(f) {
        Some((base, index)) => {
            let group: Vec<u64> = groups[&base].iter().copied().collect();
            group.len() <= 5 || [group.first(), group.get(group.len() / 2), group.last()].contains(&Some(&index))
        }
        None => true,
    };
    all.into_iter().filter(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn arrays_are_thinned_and_records_have_members() {
        let text = "level = 0\nrecs[1-9] = [startblock,blockcount] \n1:[12,1] \n9:[50,31]\n\
                    ptrs[1-2] = 1:2 2:3\nu3.bmx[0-1] = [startoff,flag] \n0:[1,0] \n1:[2,0]\nuuid = 1-2\nu3 = (empty)\n";
        let all = names(text);
        assert_eq!(all.len(), 1 + 5 * 2 + 2 + 2 * 2 + 1, "{all:?}");
        for want in ["level", "recs[1].startblock", "recs[5].blockcount", "recs[9].startblock", "ptrs[2]", "uuid"] {
            assert!(all.iter().any(|f| f == want), "{want} of {all:?}");
        }
    }
}
