//! The short form while it changes. It is small: it is taken apart and put together again.

use super::data::Target;
use crate::error::{Error, Result};
use crate::format::dir::{
    ALIGN, BlockTail, DATA_HEADER_SIZE, LeafEntry, ShortDir, entry_size, same_name, short_entry_size, verify_short,
};
use crate::geometry::Geometry;
use crate::units::Ino;
use zerocopy::IntoBytes;
use zerocopy::big_endian::{U16, U32, U64};

/// An entry, and the offset that it has in a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Item {
    pub offset: usize,
    pub name: Vec<u8>,
    pub to: Target,
}

/// A short directory, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Short {
    pub parent: Ino,
    /// In the order of their offsets.
    pub items: Vec<Item>,
}

fn is_wide(ino: Ino) -> bool {
    ino.0 > u64::from(u32::MAX)
}

/// Offset in a block behind `.` and `..`.
pub(super) fn first_offset(g: &Geometry) -> usize {
    let ftype = g.features.ftype();
    DATA_HEADER_SIZE + entry_size(1, ftype) + entry_size(2, ftype)
}

impl Short {
    /// From the local fork of directory `ino`.
    pub(super) fn parse(bytes: &[u8], ino: Ino, g: &Geometry) -> Result<Self> {
        verify_short(bytes, ino, g)?;
        let Some(short) = ShortDir::from_bytes(bytes, g) else { return Err(Error::invalid("no directory")) };
        let item = |e: crate::format::dir::ShortEntry<'_>| Item {
            offset: e.offset,
            name: e.name.to_vec(),
            to: Target { ino: e.ino, ftype: e.ftype },
        };
        let items = short.entries().map(|e| Ok(item(e?))).collect::<Result<_>>()?;
        Ok(Self { parent: short.parent, items })
    }

    fn wide(&self) -> usize {
        usize::from(is_wide(self.parent)) + self.items.iter().filter(|i| is_wide(i.to.ino)).count()
    }

    /// Bytes in the inode.
    pub(super) fn size(&self, g: &Geometry) -> usize {
        let wide = self.wide() > 0;
        let ftype = g.features.ftype();
        let entries = self.items.iter().map(|i| short_entry_size(i.name.len(), wide, ftype));
        entries.sum::<usize>() + if wide { 10 } else { 6 }
    }

    /// The bytes of the fork.
    pub(super) fn encode(&self, g: &Geometry) -> Result<Vec<u8>> {
        let many = |_| Error::invalid("too much for a directory in the inode");
        let wide = self.wide();
        let mut out = Vec::with_capacity(self.size(g));
        out.push(u8::try_from(self.items.len()).map_err(many)?);
        out.push(u8::try_from(wide).map_err(many)?);
        let number = |out: &mut Vec<u8>, ino: Ino| {
            if wide > 0 {
                out.extend_from_slice(U64::new(ino.0).as_bytes());
            } else {
                out.extend_from_slice(U32::new(u32::try_from(ino.0).unwrap_or(u32::MAX)).as_bytes());
            }
        };
        number(&mut out, self.parent);
        for i in &self.items {
            out.push(u8::try_from(i.name.len()).map_err(many)?);
            out.extend_from_slice(U16::new(u16::try_from(i.offset).map_err(many)?).as_bytes());
            out.extend_from_slice(&i.name);
            if g.features.ftype() {
                out.push(i.to.ftype);
            }
            number(&mut out, i.to.ino);
        }
        Ok(out)
    }

    /// Index of a name.
    pub(super) fn find(&self, name: &[u8], g: &Geometry) -> Option<usize> {
        self.items.iter().position(|i| same_name(g, &i.name, name))
    }

    /// Adds an entry, at the first offset where a block has room for it. False where a block could not hold it together with its index, or
    /// the short form cannot count it; then nothing has changed.
    pub(super) fn add(&mut self, name: &[u8], to: Target, g: &Geometry) -> bool {
        let ftype = g.features.ftype();
        let size = entry_size(name.len(), ftype);
        let mut low = first_offset(g);
        let mut at = self.items.len();
        for (n, i) in self.items.iter().enumerate() {
            if i.offset >= low + size {
                at = n;
                break;
            }
            low = i.offset + entry_size(i.name.len(), ftype);
        }
        let last = self.items.last().map_or(0, |i| i.offset + entry_size(i.name.len(), ftype));
        let end = last.max(low + size);
        let index = (self.items.len() + 3) * size_of::<LeafEntry>() + size_of::<BlockTail>();
        if end + index > g.dir_block_size as usize || self.items.len() >= usize::from(u8::MAX) {
            return false;
        }
        debug_assert!(low.is_multiple_of(ALIGN));
        self.items.insert(at, Item { offset: low, name: name.to_vec(), to });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Short, Target};
    use crate::format::dir::verify_short;
    use crate::geometry::test_geometry;
    use crate::units::Ino;
    use proptest::prelude::{any, prop, proptest};

    proptest! {
        #[test]
        fn entries_keep_their_places(ops in prop::collection::vec((any::<bool>(), 1usize..60, any::<u32>()), 1..200)) {
            let g = test_geometry();
            let mut short = Short { parent: g.root_ino, items: Vec::new() };
            for (n, (add, length, pick)) in ops.into_iter().enumerate() {
                let before = short.clone();
                if add {
                    let name: Vec<u8> = format!("{n:0length$}").into();
                    assert!(short.find(&name, &g).is_none());
                    if !short.add(&name, Target { ino: g.root_ino, ftype: 2 }, &g) {
                        assert_eq!(short, before);
                    }
                } else if !short.items.is_empty() {
                    short.items.remove(pick as usize % short.items.len());
                }
                assert!(before.items.iter().filter(|i| !short.items.contains(i)).count() <= 1);
                let bytes = short.encode(&g).unwrap();
                assert_eq!(bytes.len(), short.size(&g));
                verify_short(&bytes, Ino(128), &g).unwrap();
                assert_eq!(Short::parse(&bytes, Ino(128), &g).unwrap(), short);
            }
        }
    }

    #[test]
    fn one_wide_number_widens_all() {
        let g = test_geometry();
        let mut short = Short { parent: Ino(128), items: Vec::new() };
        let to = |ino| Target { ino: Ino(ino), ftype: 1 };
        assert!(short.add(b"a", to(131), &g));
        assert_eq!(short.size(&g), 6 + 9);
        assert!(short.add(b"b", to(1 << 33), &g));
        assert_eq!(short.size(&g), 10 + 13 + 13);
        assert_eq!(&short.encode(&g).unwrap()[..2], &[2, 1]);
        short.items.pop();
        assert_eq!(short.encode(&g).unwrap().len(), 6 + 9);
    }
}
