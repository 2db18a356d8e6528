//! The bytes of a free index block while they change.

use super::data::put;
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::dir::{FREE_MAGIC, Free, FreeHeader, NULL_DATA_OFFSET};
use crate::geometry::Geometry;
use crate::units::{Daddr, Ino};
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

const HEADER: usize = size_of::<FreeHeader>();

fn bad(field: &'static str, rule: Rule) -> Error {
    Corruption::new("dirfree", field, rule).into()
}

fn be32(n: usize) -> Result<U32> {
    u32::try_from(n).map(U32::new).map_err(|_| bad("nvalid", Rule::Range))
}

/// A free index block that is being changed.
pub(super) struct FreeMut<'a> {
    bytes: &'a mut [u8],
}

impl<'a> FreeMut<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes }
    }

    /// Makes a block new, which knows of no data block; `first` is the number of the first that it is for.
    pub(super) fn init(bytes: &'a mut [u8], g: &Geometry, at: Daddr, owner: Ino, first: usize) -> Result<Self> {
        bytes.fill(0);
        let mut free = Self { bytes };
        let first = be32(first)?;
        let h = free.header_mut()?;
        h.hdr.magic.set(FREE_MAGIC);
        h.hdr.blkno.set(at.0);
        h.hdr.uuid = g.meta_uuid;
        h.hdr.owner.set(owner.0);
        h.firstdb = first;
        Ok(free)
    }

    fn header_mut(&mut self) -> Result<&mut FreeHeader> {
        FreeHeader::mut_from_prefix(self.bytes).map(|(h, _)| h).map_err(|_| bad("header", Rule::Truncated))
    }

    fn view(&self) -> Result<Free<'_>> {
        let free = Free::from_bytes(self.bytes).ok_or_else(|| bad("header", Rule::Truncated))?;
        let whole = u32::try_from(free.bests.len()).is_ok_and(|n| n == free.header.nvalid.get());
        if whole { Ok(free) } else { Err(bad("nvalid", Rule::Range)) }
    }

    /// Data blocks that there are.
    pub(super) fn used(&self) -> Result<u32> {
        Ok(self.view()?.header.nused.get())
    }

    /// The sizes that it knows.
    pub(super) fn bests(&self) -> Result<&[U16]> {
        Ok(self.view()?.bests)
    }

    /// Stores the largest unused piece of a data block, [`NULL_DATA_OFFSET`] where there is none any more. What lies behind the last
    /// data block is not kept.
    pub(super) fn set(&mut self, index: usize, best: u16) -> Result<()> {
        let count = self.bests()?.len();
        if index >= Free::capacity(self.bytes.len()) {
            return Err(bad("bests", Rule::Range));
        }
        let mut end = count.max(index + 1);
        for i in count..end {
            put(self.bytes, HEADER + 2 * i, U16::new(NULL_DATA_OFFSET).as_bytes())?;
        }
        let before = if index < count { self.bests()?.get(index).map(|b| b.get()) } else { None };
        put(self.bytes, HEADER + 2 * index, U16::new(best).as_bytes())?;
        let was = before.is_some_and(|b| b != NULL_DATA_OFFSET);
        let h = self.header_mut()?;
        h.nvalid = be32(end)?;
        match (was, best != NULL_DATA_OFFSET) {
            (false, true) => h.nused += 1,
            (true, false) => {
                let used = h.nused.get().checked_sub(1).ok_or_else(|| bad("nused", Rule::Count))?;
                h.nused.set(used);
            }
            _ => {}
        }
        while end > 0 && self.bests()?.get(end - 1).is_some_and(|b| b.get() == NULL_DATA_OFFSET) {
            end -= 1;
            self.header_mut()?.nvalid = be32(end)?;
        }
        Ok(())
    }
}

/// A data block with so much room: the last one.
pub(super) fn with_room(bests: &[U16], size: usize) -> Option<usize> {
    bests.iter().rposition(|b| usize::from(b.get()) >= size && b.get() != NULL_DATA_OFFSET)
}

/// The first data block that does not exist.
pub(super) fn hole(bests: &[U16]) -> Option<usize> {
    bests.iter().position(|b| b.get() == NULL_DATA_OFFSET)
}

#[cfg(test)]
mod tests {
    use super::{FreeMut, hole, with_room};
    use crate::format::Context;
    use crate::format::dir::{DIR_FREE, NULL_DATA_OFFSET};
    use crate::geometry::test_geometry;
    use crate::units::{Daddr, Ino, Lsn};

    #[test]
    fn sizes_come_and_go() {
        let g = test_geometry();
        let mut bytes = vec![0; g.dir_block_size as usize];
        FreeMut::init(&mut bytes, &g, Daddr(96), Ino(128), 2016).unwrap();
        let mut set = |index, best| {
            FreeMut::new(&mut bytes).set(index, best).unwrap();
            (DIR_FREE.seal)(&mut bytes, Lsn(1));
            (DIR_FREE.verify)(&bytes, &Context::new(&g, Daddr(96))).unwrap();
            let f = FreeMut::new(&mut bytes);
            let bests = f.bests().unwrap();
            (bests.len(), f.used().unwrap(), with_room(bests, 100), hole(bests))
        };
        assert_eq!(set(2, 100), (3, 1, Some(2), Some(0)));
        assert_eq!(set(0, 99), (3, 2, Some(2), Some(1)));
        assert_eq!(set(1, 0), (3, 3, Some(2), None));
        assert_eq!(set(1, NULL_DATA_OFFSET), (3, 2, Some(2), Some(1)));
        assert_eq!(set(2, NULL_DATA_OFFSET), (1, 1, None, None));
        assert_eq!(set(0, NULL_DATA_OFFSET), (0, 0, None, None));
        assert!(FreeMut::new(&mut bytes).set(2016, 1).is_err());
        bytes[52..56].fill(0xff);
        assert!(FreeMut::new(&mut bytes).set(0, 1).is_err());
    }
}
