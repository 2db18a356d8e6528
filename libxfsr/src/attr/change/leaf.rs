//! The bytes of a leaf: entries are added, removed and moved.
//!
//! What is free is told anew from the entries with every change, and never believed: kernels before 2026 write maps of free ranges that are wrong. The map
//! gets the three largest ranges; where there are more, `holes` says so.

use crate::datree;
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::BlockType;
use crate::format::attr::{
    ATTR_LEAF, AttrEntry, AttrFlags, AttrLeaf, AttrLeafHeader, FreeRange, LEAF_HEADER_SIZE, LEAF_MAGIC, LocalHeader,
    RemoteName, entry_size_local, entry_size_remote,
};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of an entry beside its name and value.
const ENTRY: usize = size_of::<AttrEntry>();

/// The value of a new entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payload<'a> {
    Local(&'a [u8]),
    Remote { block: u32, length: u32 },
}

/// An entry that is to be added.
#[derive(Clone, Copy, Debug)]
pub(super) struct New<'a> {
    pub(super) hash: u32,
    /// Of its namespace; where the value is, is added.
    pub(super) flags: AttrFlags,
    pub(super) name: &'a [u8],
    pub(super) payload: Payload<'a>,
}

impl New<'_> {
    fn entry(&self) -> Result<Owned> {
        let too_long = || Error::invalid("a name or a value that is too long for a leaf");
        let namelen = u8::try_from(self.name.len()).map_err(|_| too_long())?;
        let (mut raw, size, place) = match self.payload {
            Payload::Local(value) => {
                let valuelen = u16::try_from(value.len()).map_err(|_| too_long())?.into();
                let head = LocalHeader { valuelen, namelen };
                let size = entry_size_local(self.name.len(), value.len());
                ([head.as_bytes(), self.name, value].concat(), size, AttrFlags::LOCAL)
            }
            Payload::Remote { block, length } => {
                let head = RemoteName { valueblk: block.into(), valuelen: length.into(), namelen };
                let size = entry_size_remote(self.name.len());
                ([head.as_bytes(), self.name].concat(), size, AttrFlags::empty())
            }
        };
        raw.resize(size, 0);
        Ok(Owned { hash: self.hash, flags: ((self.flags - AttrFlags::LOCAL) | place).bits(), raw })
    }
}

/// An entry with the bytes of its name and value.
struct Owned {
    hash: u32,
    flags: u8,
    raw: Vec<u8>,
}

fn damaged(field: &'static str) -> Error {
    Corruption::new("attrleaf", field, Rule::Range).into()
}

fn view(leaf: &[u8]) -> Result<AttrLeaf<'_>> {
    AttrLeaf::from_bytes(leaf).ok_or_else(|| damaged("length"))
}

/// Where the name of an entry lies, and behind it.
fn extent(leaf: &AttrLeaf<'_>, e: &AttrEntry) -> Result<(usize, usize)> {
    let at = usize::from(e.nameidx.get());
    Ok((at, at + leaf.attr(e)?.size()))
}

/// Where names lie, in order.
fn used(leaf: &[u8]) -> Result<Vec<(usize, usize)>> {
    let l = view(leaf)?;
    let mut used = l.entries.iter().map(|e| extent(&l, e)).collect::<Result<Vec<_>>>()?;
    used.sort_unstable();
    Ok(used)
}

/// Free ranges between the entries, of which there are so many, and the names; the first one in front of all names. The names must not
/// overlap.
fn gaps(used: &[(usize, usize)], count: usize, length: usize) -> Vec<(usize, usize)> {
    let mut at = LEAF_HEADER_SIZE + count * ENTRY;
    let mut gaps = Vec::new();
    for &(start, end) in used.iter().chain(&[(length, length)]) {
        if start > at {
            gaps.push((at, start));
        }
        at = at.max(end);
    }
    gaps
}

fn half(n: usize) -> Result<u16> {
    u16::try_from(n).map_err(|_| damaged("usedbytes"))
}

/// Tells in the header what is used and what is free.
fn settle(leaf: &mut [u8]) -> Result<()> {
    let (used, length) = (used(leaf)?, leaf.len());
    let count = view(leaf)?.entries.len();
    let mut free = gaps(&used, count, length);
    let ranges = free.len();
    free.sort_by_key(|g| std::cmp::Reverse(g.1 - g.0));
    let (header, _) = AttrLeafHeader::mut_from_prefix(leaf).map_err(|_| damaged("length"))?;
    header.usedbytes.set(half(used.iter().map(|u| u.1 - u.0).sum())?);
    let first = used.first().map_or(length, |u| u.0);
    header.firstused.set(if first == 1 << 16 { 0 } else { half(first)? });
    header.holes = u8::from(ranges > header.freemap.len());
    for (i, place) in header.freemap.iter_mut().enumerate() {
        *place = match free.get(i) {
            Some((start, end)) => FreeRange { base: half(*start)?.into(), size: half(end - start)?.into() },
            None => FreeRange::default(),
        };
    }
    Ok(())
}

fn entries_mut(leaf: &mut [u8], count: usize) -> Result<&mut [AttrEntry]> {
    let rest = leaf.get_mut(LEAF_HEADER_SIZE..).ok_or_else(|| damaged("length"))?;
    <[AttrEntry]>::mut_from_prefix_with_elems(rest, count).map(|(e, _)| e).map_err(|_| damaged("count"))
}

fn set_count(leaf: &mut [u8], count: usize) -> Result<()> {
    let (header, _) = AttrLeafHeader::mut_from_prefix(leaf).map_err(|_| damaged("length"))?;
    header.count.set(half(count)?);
    Ok(())
}

/// All entries.
fn take(leaf: &[u8]) -> Result<Vec<Owned>> {
    let l = view(leaf)?;
    let owned = |e: &AttrEntry| {
        let (start, end) = extent(&l, e)?;
        let raw = leaf.get(start..end).ok_or_else(|| damaged("nameidx"))?.to_vec();
        Ok(Owned { hash: e.hashval.get(), flags: e.flags, raw })
    };
    l.entries.iter().map(owned).collect()
}

/// Makes these the only entries, with all that is free in one piece.
fn fill(leaf: &mut [u8], entries: &[Owned]) -> Result<()> {
    let rest = leaf.get_mut(size_of::<crate::format::da::BlockInfo>()..).ok_or_else(|| damaged("length"))?;
    rest.fill(0);
    set_count(leaf, entries.len())?;
    let mut at = leaf.len();
    for (i, e) in entries.iter().enumerate() {
        at = at
            .checked_sub(e.raw.len())
            .filter(|at| *at >= LEAF_HEADER_SIZE + entries.len() * ENTRY)
            .ok_or_else(full)?;
        leaf.get_mut(at..at + e.raw.len()).ok_or_else(full)?.copy_from_slice(&e.raw);
        let place = entries_mut(leaf, entries.len())?.get_mut(i).ok_or_else(full)?;
        *place = AttrEntry { hashval: e.hash.into(), nameidx: half(at)?.into(), flags: e.flags, pad2: 0 };
    }
    settle(leaf)
}

fn full() -> Error {
    Error::invalid("a leaf has no room for its entries")
}

/// Adds an entry before that of an index. False, and no change, where there is no room.
pub(super) fn insert(leaf: &mut [u8], index: usize, new: &New<'_>) -> Result<bool> {
    put(leaf, index, &new.entry()?)
}

fn put(leaf: &mut [u8], index: usize, new: &Owned) -> Result<bool> {
    let (names, length) = (used(leaf)?, leaf.len());
    let count = view(leaf)?.entries.len() + 1;
    let size = new.raw.len();
    let taken: usize = names.iter().map(|u| u.1 - u.0).sum();
    if LEAF_HEADER_SIZE + count * ENTRY + taken + size > length || index >= count {
        return Ok(false);
    }
    let table = LEAF_HEADER_SIZE + count * ENTRY;
    let mut fits: Vec<(usize, usize)> = gaps(&names, count, length).into_iter().filter(|g| g.1 - g.0 >= size).collect();
    // The tightest; the table of entries must not grow into a name.
    fits.sort_by_key(|g| g.1 - g.0);
    let lowest = names.first().map_or(length, |u| u.0);
    let Some((_, end)) = fits.first().copied().filter(|_| table <= lowest) else {
        let mut all = take(leaf)?;
        all.insert(index, Owned { hash: new.hash, flags: new.flags, raw: new.raw.clone() });
        fill(leaf, &all)?;
        return Ok(true);
    };
    let at = end - size;
    leaf.get_mut(at..end).ok_or_else(full)?.copy_from_slice(&new.raw);
    set_count(leaf, count)?;
    let entries = entries_mut(leaf, count)?;
    entries.copy_within(index..count - 1, index + 1);
    let place = entries.get_mut(index).ok_or_else(full)?;
    *place = AttrEntry { hashval: new.hash.into(), nameidx: half(at)?.into(), flags: new.flags, pad2: 0 };
    settle(leaf)?;
    Ok(true)
}

/// Removes an entry.
pub(super) fn remove(leaf: &mut [u8], index: usize) -> Result<()> {
    let l = view(leaf)?;
    let count = l.entries.len();
    let (start, end) = extent(&l, l.entries.get(index).ok_or_else(|| damaged("count"))?)?;
    leaf.get_mut(start..end).ok_or_else(|| damaged("nameidx"))?.fill(0);
    let entries = entries_mut(leaf, count)?;
    entries.copy_within(index + 1..count, index);
    if let Some(last) = entries.last_mut() {
        last.as_mut_bytes().fill(0);
    }
    set_count(leaf, count - 1)?;
    settle(leaf)
}

/// Shares the entries of a leaf and a new one, which belongs before that of an index, out between the leaf and an empty one. False where the new one finds
/// room in neither: then it stands between the two.
pub(super) fn share(left: &mut [u8], right: &mut [u8], index: usize, new: &New<'_>) -> Result<bool> {
    let mut all = take(left)?;
    let room = left.len().saturating_sub(LEAF_HEADER_SIZE);
    let new = new.entry()?;
    let mut sizes: Vec<usize> = all.iter().map(|e| e.raw.len() + ENTRY).collect();
    sizes.insert(index.min(sizes.len()), new.raw.len() + ENTRY);
    let total: usize = sizes.iter().sum();
    let mut best: Option<(usize, usize)> = None;
    let mut lower = 0;
    for (n, size) in sizes.iter().enumerate() {
        if n > 0 && lower <= room && total - lower <= room {
            let off = lower.abs_diff(total - lower);
            if best.is_none_or(|b| off < b.1) {
                best = Some((n, off));
            }
        }
        lower += size;
    }
    let Some((cut, _)) = best else {
        let upper = all.split_off(index.min(all.len()));
        fill(left, &all)?;
        fill(right, &upper)?;
        return Ok(false);
    };
    all.insert(index.min(all.len()), new);
    let upper = all.split_off(cut);
    fill(left, &all)?;
    fill(right, &upper)?;
    Ok(true)
}

/// Bytes of a leaf that are taken.
fn taken(leaf: &[u8]) -> usize {
    AttrLeaf::from_bytes(leaf)
        .map_or(leaf.len(), |l| LEAF_HEADER_SIZE + l.entries.len() * ENTRY + usize::from(l.header.usedbytes.get()))
}

/// Leaves of attributes.
pub(super) struct Leaves;

impl datree::Leaf for Leaves {
    const KIND: &'static BlockType = &ATTR_LEAF;
    const MAGIC: u16 = LEAF_MAGIC;
    fn init(leaf: &mut [u8]) {
        // A leaf without entries cannot be damaged.
        let _ = settle(leaf);
    }
    fn last_hash(leaf: &[u8]) -> Option<u32> {
        AttrLeaf::from_bytes(leaf)?.entries.last().map(|e| e.hashval.get())
    }
    fn is_small(leaf: &[u8]) -> bool {
        taken(leaf) <= leaf.len() / 2
    }
    fn fit(left: &[u8], right: &[u8]) -> bool {
        taken(left) + taken(right) <= left.len() - left.len() / 4 + LEAF_HEADER_SIZE
    }
    fn append(left: &mut [u8], right: &[u8]) -> Result<()> {
        let mut all = take(left)?;
        all.extend(take(right)?);
        fill(left, &all)
    }
}

#[cfg(test)]
mod tests {
    use super::{Leaves, New, Payload, insert, remove, share};
    use crate::datree::Leaf;
    use crate::format::Context;
    use crate::format::attr::{ATTR_LEAF, AttrFlags, AttrLeaf, LEAF_MAGIC, Value, entry_size_local};
    use crate::format::da::{BlockInfo, hash_name};
    use crate::geometry::test_geometry;
    use crate::units::{Daddr, Ino, Lsn};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use zerocopy::FromBytes;

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    fn empty(length: usize) -> Vec<u8> {
        let mut leaf = vec![0; length];
        let (info, _) = BlockInfo::mut_from_prefix(&mut leaf).unwrap();
        info.magic.set(LEAF_MAGIC);
        info.blkno.set(80);
        info.uuid = test_geometry().meta_uuid;
        info.owner.set(131);
        Leaves::init(&mut leaf);
        leaf
    }

    fn new<'a>(name: &'a [u8], value: &'a [u8]) -> New<'a> {
        New { hash: hash_name(name), flags: AttrFlags::empty(), name, payload: Payload::Local(value) }
    }

    fn index(leaf: &[u8], hash: u32) -> usize {
        AttrLeaf::from_bytes(leaf).unwrap().entries.partition_point(|e| e.hashval.get() < hash)
    }

    fn all(leaf: &[u8]) -> Model {
        let l = AttrLeaf::from_bytes(leaf).unwrap();
        l.attrs()
            .map(|a| match a.unwrap() {
                a if a.flags == AttrFlags::LOCAL => match a.value {
                    Value::Local(v) => (a.name.to_vec(), v.to_vec()),
                    Value::Remote { .. } => panic!("local"),
                },
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn verify(leaf: &[u8]) {
        let mut leaf = leaf.to_vec();
        (ATTR_LEAF.seal)(&mut leaf, Lsn(1));
        (ATTR_LEAF.verify)(&leaf, &Context::new(&test_geometry(), Daddr(80)).owned_by(Ino(131))).unwrap();
        let l = AttrLeaf::from_bytes(&leaf).unwrap();
        assert_eq!(l.odd_free_map(), None);
        let free: usize = l.header.freemap.iter().map(|f| usize::from(f.size.get())).sum();
        let taken = 80 + l.entries.len() * 8 + usize::from(l.header.usedbytes.get());
        assert!(if l.header.holes == 0 { free + taken == leaf.len() } else { free + taken < leaf.len() });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_leaf_holds_what_a_map_holds(
            big in any::<bool>(),
            steps in prop::collection::vec((0u16..400, 0usize..60, any::<bool>(), any::<u8>()), 1..400),
        ) {
            let mut leaf = empty(if big { 65536 } else { 1024 });
            let mut model = Model::new();
            for (n, size, add, fill) in steps {
                let name = format!("name{n}").into_bytes();
                let hash = hash_name(&name);
                if add && !model.contains_key(&name) {
                    let value = vec![fill; if big { size * 100 } else { size }];
                    let before = leaf.clone();
                    let at = index(&leaf, hash);
                    let needed = entry_size_local(name.len(), value.len()) + 8;
                    let used: usize = model.iter().map(|(n, v)| entry_size_local(n.len(), v.len()) + 8).sum();
                    let fits = 80 + used + needed <= leaf.len();
                    prop_assert_eq!(insert(&mut leaf, at, &new(&name, &value)).unwrap(), fits);
                    if fits {
                        model.insert(name, value);
                    } else {
                        prop_assert_eq!(&before, &leaf);
                        let mut right = empty(leaf.len());
                        prop_assert!(share(&mut leaf, &mut right, at, &new(&name, &value)).unwrap());
                        verify(&leaf);
                        verify(&right);
                        model.insert(name, value);
                        let mut both = all(&leaf);
                        both.extend(all(&right));
                        prop_assert_eq!(&both, &model);
                        if Leaves::fit(&leaf, &right) {
                            Leaves::append(&mut leaf, &right).unwrap();
                        } else {
                            model = all(&leaf);
                        }
                    }
                } else if model.remove(&name).is_some() {
                    let l = AttrLeaf::from_bytes(&leaf).unwrap();
                    let at = l.attrs().position(|a| a.unwrap().name == name).unwrap();
                    remove(&mut leaf, at).unwrap();
                }
                verify(&leaf);
                prop_assert_eq!(&all(&leaf), &model);
            }
        }
    }

    #[test]
    fn between_two_that_are_large_a_third_has_no_room() {
        let mut left = empty(1024);
        let mut names: Vec<Vec<u8>> = (0..3).map(|n| format!("n{n}").into_bytes()).collect();
        names.sort_by_key(|n| hash_name(n));
        let value = vec![7; 440];
        assert!(insert(&mut left, 0, &new(&names[0], &value)).unwrap());
        assert!(insert(&mut left, 1, &new(&names[2], &value)).unwrap());
        let mut right = empty(1024);
        let large = vec![8; 700];
        assert!(!share(&mut left, &mut right, 1, &new(&names[1], &large)).unwrap());
        assert_eq!((all(&left).len(), all(&right).len()), (1, 1));
        let mut middle = empty(1024);
        assert!(share(&mut left, &mut middle, 1, &new(&names[1], &large)).unwrap());
        assert_eq!(all(&middle).into_values().collect::<Vec<_>>(), [large]);
        [left, middle, right].iter().for_each(|l| verify(l));
    }
}
