//! The bytes of a data block, or of a block form, while they change: unused pieces are taken and given back, and the header's table of
//! the three largest is kept.

use crate::error::{Corruption, Error, Result, Rule};
use crate::format::dir::{
    ALIGN, BestFree, DATA_HEADER_SIZE, DataHeader, DataItem, FREE_TAG, data_end, entry_at, entry_size, items,
};
use crate::geometry::Geometry;
use crate::units::{Daddr, Ino};
use zerocopy::big_endian::{U16, U64};
use zerocopy::{FromBytes, IntoBytes};

/// What an entry says beside its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Target {
    pub ino: Ino,
    pub ftype: u8,
}

/// A data or block-form block that is being changed. What it was read as has been verified.
pub(super) struct DataMut<'a> {
    pub bytes: &'a mut [u8],
    g: &'a Geometry,
}

fn bad(field: &'static str, rule: Rule) -> Box<Corruption> {
    Corruption::new("dirdata", field, rule)
}

/// A number that fits because directory blocks have at most 64 KiB.
pub(super) fn be16(n: usize) -> Result<U16> {
    let n = u16::try_from(n).map_err(|_| Error::invalid(format!("{n} does not fit in a directory block")))?;
    Ok(U16::new(n))
}

fn read16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(U16::from_bytes(*bytes.get(at..)?.first_chunk()?).get())
}

/// Writes `v` at a place that lies in the block.
pub(super) fn put(bytes: &mut [u8], at: usize, v: &[u8]) -> Result<()> {
    let place = bytes.get_mut(at..at.saturating_add(v.len()));
    place.ok_or_else(|| bad("offset", Rule::Range).found(at))?.copy_from_slice(v);
    Ok(())
}

impl<'a> DataMut<'a> {
    pub(super) fn new(bytes: &'a mut [u8], g: &'a Geometry) -> Self {
        Self { bytes, g }
    }

    /// Makes a block new, without an entry: all up to `end` is one unused piece.
    pub(super) fn init(
        bytes: &'a mut [u8],
        g: &'a Geometry,
        magic: u32,
        at: Daddr,
        owner: Ino,
        end: usize,
    ) -> Result<Self> {
        bytes.fill(0);
        let mut block = Self { bytes, g };
        let h = block.header()?;
        h.hdr.magic.set(magic);
        h.hdr.blkno.set(at.0);
        h.hdr.uuid = g.meta_uuid;
        h.hdr.owner.set(owner.0);
        let length = end.saturating_sub(DATA_HEADER_SIZE);
        block.unused(DATA_HEADER_SIZE, length)?;
        block.set_best([Some((DATA_HEADER_SIZE, length)), None, None])?;
        Ok(block)
    }

    pub(super) fn header(&mut self) -> Result<&mut DataHeader> {
        let (h, _) = DataHeader::mut_from_prefix(self.bytes).map_err(|_| bad("header", Rule::Truncated))?;
        Ok(h)
    }

    /// The largest unused piece: offset and length, 0 where there is none.
    pub(super) fn best(&self) -> (usize, usize) {
        let h = DataHeader::ref_from_prefix(self.bytes).map(|(h, _)| h.best_free[0]).unwrap_or_default();
        (usize::from(h.offset.get()), usize::from(h.length.get()))
    }

    /// The largest unused piece as free indexes have it.
    pub(super) fn longest(&self) -> u16 {
        DataHeader::ref_from_prefix(self.bytes).map_or(0, |(h, _)| h.best_free[0].length.get())
    }

    /// The pieces that the header lists, the largest first.
    pub(super) fn listed(&mut self) -> Result<Vec<(usize, usize)>> {
        let best = self.header()?.best_free.map(|b| (usize::from(b.offset.get()), usize::from(b.length.get())));
        Ok(best.into_iter().filter(|b| b.1 > 0).collect())
    }

    /// Whether it has no entry.
    pub(super) fn is_empty(&self) -> bool {
        self.best() == (DATA_HEADER_SIZE, self.bytes.len().saturating_sub(DATA_HEADER_SIZE))
    }

    /// The end of the entries.
    pub(super) fn end(&self) -> usize {
        data_end(self.bytes).unwrap_or(self.bytes.len())
    }

    /// The unused piece that ends where the entries end, if there is one.
    pub(super) fn last_unused(&self) -> Option<(usize, usize)> {
        let end = self.end();
        let offset = usize::from(read16(self.bytes, end.checked_sub(2)?)?);
        self.unused_at(offset, end).filter(|(o, n)| o + n == end)
    }

    fn unused_at(&self, offset: usize, end: usize) -> Option<(usize, usize)> {
        if offset < DATA_HEADER_SIZE || read16(self.bytes, offset)? != FREE_TAG {
            return None;
        }
        let length = usize::from(read16(self.bytes, offset.checked_add(2)?)?);
        (length >= ALIGN && length.is_multiple_of(ALIGN) && offset.checked_add(length)? <= end)
            .then_some((offset, length))
    }

    /// Writes the marks of an unused piece.
    fn unused(&mut self, offset: usize, length: usize) -> Result<()> {
        if length < ALIGN {
            return Err(bad("length", Rule::Range).found(length).into());
        }
        put(self.bytes, offset, [U16::new(FREE_TAG), be16(length)?].as_bytes())?;
        put(self.bytes, offset + length - 2, be16(offset)?.as_bytes())
    }

    fn set_best(&mut self, best: [Option<(usize, usize)>; 3]) -> Result<()> {
        let mut table = [BestFree::default(); 3];
        for (slot, (offset, length)) in table.iter_mut().zip(best.into_iter().flatten()) {
            *slot = BestFree { offset: be16(offset)?, length: be16(length)? };
        }
        self.header()?.best_free = table;
        Ok(())
    }

    /// The table follows: the pieces at `gone` are no more, and `new` has come. Looks at all pieces only where an unlisted one may now be
    /// among the largest.
    fn best_changed(&mut self, gone: &[usize], new: Option<(usize, usize)>) -> Result<()> {
        let listed = self.listed()?;
        let limit = listed.get(2).map(|b| b.1);
        let mut kept = listed.into_iter().filter(|b| !gone.contains(&b.0));
        let mut best = [kept.next(), kept.next(), kept.next()];
        insert(&mut best, new);
        let certain = limit.is_none_or(|limit| best[2].is_some_and(|b| b.1 >= limit));
        if certain { self.set_best(best) } else { self.rescan() }
    }

    /// Makes the table of the largest unused pieces anew.
    pub(super) fn rescan(&mut self) -> Result<()> {
        let mut best = [None; 3];
        for item in items(self.bytes, self.g) {
            if let DataItem::Unused { offset, length } = item? {
                insert(&mut best, Some((offset, length)));
            }
        }
        self.set_best(best)
    }

    /// Writes an entry at `from`, which lies in the unused piece at `piece`.
    pub(super) fn place(&mut self, piece: usize, from: usize, name: &[u8], to: Target) -> Result<()> {
        let Some((_, has)) = self.unused_at(piece, self.bytes.len()) else {
            return Err(bad("freetag", Rule::Mismatch).found(piece).expected("an unused piece").into());
        };
        let length = entry_size(name.len(), self.g.features.ftype());
        let (before, end) = (from.saturating_sub(piece), from.saturating_add(length));
        let Some(after) = (piece + has).checked_sub(end).filter(|_| from >= piece) else {
            return Err(bad("length", Rule::Range)
                .found(has)
                .expected(format_args!("{length} bytes at {from}"))
                .into());
        };
        self.write(from, name, to)?;
        let mut rest = None;
        if before > 0 {
            self.unused(piece, before)?;
            rest = Some((piece, before));
        }
        if after > 0 {
            self.unused(end, after)?;
            if rest.is_some() {
                return self.rescan();
            }
            rest = Some((end, after));
        }
        self.best_changed(&[piece], rest)
    }

    /// The unused piece at `piece` has only so many bytes left: what follows has become something else than entries.
    pub(super) fn shorten(&mut self, piece: usize, length: usize) -> Result<()> {
        if length == 0 {
            return self.best_changed(&[piece], None);
        }
        self.unused(piece, length)?;
        self.best_changed(&[piece], Some((piece, length)))
    }

    /// Gives bytes back; neighbours that are unused become one piece with them. `end` is the end of the entries.
    pub(super) fn give(&mut self, offset: usize, length: usize, end: usize) -> Result<()> {
        let (mut from, mut to) = (offset, offset.saturating_add(length));
        if to > end || from < DATA_HEADER_SIZE {
            return Err(bad("offset", Rule::Range).found(offset).into());
        }
        let mut gone = [0; 2];
        let tag = from.checked_sub(2).filter(|_| from > DATA_HEADER_SIZE).and_then(|t| read16(self.bytes, t));
        if let Some((o, _)) = tag.and_then(|t| self.unused_at(t.into(), from)).filter(|(o, n)| o + n == from) {
            (gone[0], from) = (o, o);
        }
        if to < end
            && let Some((o, n)) = self.unused_at(to, end)
        {
            (gone[1], to) = (o, o + n);
        }
        self.unused(from, to - from)?;
        self.best_changed(&gone, Some((from, to - from)))
    }

    fn write(&mut self, offset: usize, name: &[u8], to: Target) -> Result<()> {
        let ftype = self.g.features.ftype();
        let size = entry_size(name.len(), ftype);
        let namelen = u8::try_from(name.len()).map_err(|_| Error::invalid("a name of more than 255 bytes"))?;
        let place = self.bytes.get_mut(offset..offset.saturating_add(size));
        let entry = place.ok_or_else(|| bad("offset", Rule::Range).found(offset))?;
        entry.fill(0);
        put(entry, 0, U64::new(to.ino.0).as_bytes())?;
        put(entry, 8, &[namelen])?;
        put(entry, 9, name)?;
        if ftype {
            put(entry, 9 + name.len(), &[to.ftype])?;
        }
        put(entry, size - 2, be16(offset)?.as_bytes())
    }

    /// Adds an entry at the largest unused piece; returns its offset, none where there is no room.
    pub(super) fn add(&mut self, name: &[u8], to: Target) -> Result<Option<usize>> {
        let size = entry_size(name.len(), self.g.features.ftype());
        let (offset, room) = self.best();
        if room < size {
            return Ok(None);
        }
        self.place(offset, offset, name, to)?;
        Ok(Some(offset))
    }

    /// Removes the entry at `offset`.
    pub(super) fn remove(&mut self, offset: usize) -> Result<()> {
        let size = entry_size(entry_at(self.bytes, offset, self.g)?.name.len(), self.g.features.ftype());
        let end = self.end();
        self.give(offset, size, end)
    }

    /// Has the entry at `offset` name another inode.
    pub(super) fn set(&mut self, offset: usize, to: Target) -> Result<()> {
        let namelen = entry_at(self.bytes, offset, self.g)?.name.len();
        put(self.bytes, offset, U64::new(to.ino.0).as_bytes())?;
        if self.g.features.ftype() { put(self.bytes, offset + 9 + namelen, &[to.ftype]) } else { Ok(()) }
    }
}

/// Puts a piece where it belongs among the largest; the smallest may fall out.
fn insert(best: &mut [Option<(usize, usize)>; 3], new: Option<(usize, usize)>) {
    let mut next = new;
    for slot in best {
        if next.map_or(0, |p| p.1) > slot.map_or(0, |p| p.1) {
            std::mem::swap(slot, &mut next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DataMut, Target};
    use crate::format::Context;
    use crate::format::dir::{BLOCK_MAGIC, DATA_HEADER_SIZE, DATA_MAGIC, DIR_DATA, entries, entry_size};
    use crate::geometry::{Geometry, test_geometry};
    use crate::units::{Daddr, Ino, Lsn};
    use proptest::prelude::{any, prop, proptest};
    use std::collections::BTreeMap;

    fn verify(g: &Geometry, bytes: &mut [u8]) {
        (DIR_DATA.seal)(bytes, Lsn(1));
        (DIR_DATA.verify)(bytes, &Context::new(g, Daddr(96)).owned_by(Ino(128))).unwrap();
    }

    proptest! {
        #[test]
        fn a_block_takes_and_gives(ops in prop::collection::vec((any::<bool>(), 1usize..256, any::<u16>()), 1..300)) {
            let g = test_geometry();
            let mut bytes = vec![0; g.dir_block_size as usize];
            let size = bytes.len();
            DataMut::init(&mut bytes, &g, DATA_MAGIC, Daddr(96), Ino(128), size).unwrap();
            let mut model: BTreeMap<usize, (Vec<u8>, u64)> = BTreeMap::new();
            for (n, (add, length, pick)) in ops.into_iter().enumerate() {
                let mut block = DataMut::new(&mut bytes, &g);
                if add || model.is_empty() {
                    let name: Vec<u8> = (0..length).map(|i| b'a' + ((i + n) % 26) as u8).collect();
                    let to = Target { ino: Ino(128 + n as u64), ftype: 1 };
                    let room = block.best().1;
                    match block.add(&name, to).unwrap() {
                        Some(at) => assert!(model.insert(at, (name, to.ino.0)).is_none()),
                        None => assert!(room < entry_size(length, true)),
                    }
                } else {
                    let at = *model.keys().nth(usize::from(pick) % model.len()).unwrap();
                    if pick % 3 == 0 {
                        block.set(at, Target { ino: Ino(200), ftype: 2 }).unwrap();
                        model.get_mut(&at).unwrap().1 = 200;
                    } else {
                        block.remove(at).unwrap();
                        model.remove(&at);
                    }
                }
                assert_eq!(DataMut::new(&mut bytes, &g).is_empty(), model.is_empty());
                verify(&g, &mut bytes);
                let seen: BTreeMap<usize, (Vec<u8>, u64)> =
                    entries(&bytes, &g).map(|e| e.unwrap()).map(|e| (e.offset, (e.name.to_vec(), e.ino.0))).collect();
                assert_eq!(seen, model);
            }
        }
    }

    #[test]
    fn damaged_marks_are_told() {
        let g = test_geometry();
        let mut bytes = vec![0; g.dir_block_size as usize];
        let size = bytes.len();
        let mut block = DataMut::init(&mut bytes, &g, BLOCK_MAGIC, Daddr(96), Ino(128), size - 24).unwrap();
        let to = Target { ino: Ino(128), ftype: 1 };
        assert!(block.place(DATA_HEADER_SIZE + 8, DATA_HEADER_SIZE + 8, b"name", to).is_err());
        assert!(block.place(DATA_HEADER_SIZE, size - 32, b"name", to).is_err());
        assert!(block.remove(DATA_HEADER_SIZE).is_err());
        assert!(block.give(size - 8, 16, size).is_err());
        block.bytes[48..60].fill(0xff);
        assert!(block.add(b"name", Target { ino: Ino(128), ftype: 1 }).is_err());
        assert!(DataMut::new(&mut [0; 10], &g).rescan().is_err());
    }
}
