//! Buffer items: the chunks of a block that a transaction changed.

use super::item::{ItemKey, LogItem, RegionWriter, union};
use crate::cache::{BlockKey, Parts};
use crate::format::log::items::{BUF_CHUNK, BUF_TYPE_SHIFT, BufFlags, BufFormat, ItemType, buf_runs};
use crate::format::quota::{self, DquotType};
use crate::format::{BlockType, identify};
use crate::units::Daddr;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{I64, U16, U32};

/// A block, or the unlinked pointers of an inode cluster, as they are to be logged.
pub(super) struct BufferItem<'a> {
    pub(super) key: &'a BlockKey,
    pub(super) bytes: &'a [u8],
    /// Chunks that changed.
    pub(super) dirty: Vec<u32>,
    /// `blf_flags`, type included.
    pub(super) flags: u16,
    /// Bytes that differ from `bytes`: where, and what stands there.
    pub(super) patches: Vec<(usize, [u8; 4])>,
}

/// The chunks in which two states of a block differ.
pub(super) fn changed_chunks(before: &[u8], after: &[u8]) -> Vec<u32> {
    let mut map = vec![0; after.len().div_ceil(BUF_CHUNK).div_ceil(32)];
    for (i, (b, a)) in before.chunks(BUF_CHUNK).zip(after.chunks(BUF_CHUNK)).enumerate() {
        if b != a {
            set_chunk(&mut map, i);
        }
    }
    map
}

/// All chunks of a block of so many bytes.
pub(super) fn all_chunks(len: usize) -> Vec<u32> {
    let mut map = vec![0; len.div_ceil(BUF_CHUNK).div_ceil(32)];
    (0..len.div_ceil(BUF_CHUNK)).for_each(|i| set_chunk(&mut map, i));
    map
}

pub(super) fn set_chunk(map: &mut [u32], i: usize) {
    if let Some(w) = map.get_mut(i / 32) {
        *w |= 1 << (i % 32);
    }
}

/// `blf_flags` of a block: what recovery takes it for.
pub(super) fn flags_of(kind: &BlockType, bytes: &[u8]) -> u16 {
    let typed = |t: u8| u16::from(t) << BUF_TYPE_SHIFT;
    if kind.log_type == quota::DQUOT_BLOCK.log_type {
        let owner = quota::slots(bytes).first().map_or(DquotType::USER, |s| s.diskdq.kind());
        let flag = match owner {
            o if o.contains(DquotType::PROJECT) => BufFlags::PDQUOT,
            o if o.contains(DquotType::GROUP) => BufFlags::GDQUOT,
            _ => BufFlags::UDQUOT,
        };
        return typed(quota::log_type(owner)) | flag.bits();
    }
    // A type that stands for several is told by the block itself.
    let log_type = if kind.log_type == 0 { identify(bytes).map_or(0, |t| t.log_type) } else { kind.log_type };
    typed(log_type)
}

impl BufferItem<'_> {
    fn format_part(&self, at: Daddr, sectors: u32, first: usize, map: &[u32], out: &mut RegionWriter) {
        let chunks = sectors as usize * 512 / BUF_CHUNK;
        let mut own = vec![U32::new(0); chunks.div_ceil(32)];
        for i in (0..chunks).filter(|i| map.get((first + i) / 32).is_some_and(|w| w >> ((first + i) % 32) & 1 == 1)) {
            if let Some(w) = own.get_mut(i / 32) {
                w.set(w.get() | 1 << (i % 32));
            }
        }
        let cancel = self.flags & BufFlags::CANCEL.bits() != 0;
        let runs = if cancel { Vec::new() } else { buf_runs(&own) };
        if runs.is_empty() && !cancel {
            return;
        }
        if cancel {
            own.fill(U32::new(0));
        }
        let format = BufFormat {
            kind: U16::new(ItemType::Buf as u16),
            size: U16::new(1 + runs.len() as u16),
            flags: U16::new(self.flags),
            len: U16::new(sectors as u16),
            blkno: I64::new(at.0 as i64),
            map_size: U32::new(own.len() as u32),
        };
        out.region(&[format.as_bytes(), own.as_bytes()]);
        for (run, count) in runs {
            let (start, len) = ((first + run) * BUF_CHUNK, count * BUF_CHUNK);
            let mut region = self.bytes.get(start..start + len).unwrap_or(&[]).to_vec();
            for (at, word) in &self.patches {
                if let Some(to) = at.checked_sub(start).and_then(|o| region.get_mut(o..o + 4)) {
                    to.copy_from_slice(word);
                }
            }
            out.region(&[&region]);
        }
    }
}

impl LogItem for BufferItem<'_> {
    fn key(&self) -> ItemKey {
        ItemKey::Buffer(self.key.clone())
    }
    fn format(&self, covered: &[u32], out: &mut RegionWriter) -> Vec<u32> {
        let map = union(&self.dirty, covered);
        match &self.key.parts {
            Parts::One(at, sectors) => self.format_part(*at, *sectors, 0, &map, out),
            // The journal names each piece by itself.
            Parts::Many(parts) => {
                let mut first = 0;
                for (at, sectors) in parts {
                    self.format_part(*at, *sectors, first, &map, out);
                    first += *sectors as usize * 512 / BUF_CHUNK;
                }
            }
        }
        if self.flags & BufFlags::CANCEL.bits() != 0 { Vec::new() } else { map }
    }
}

#[cfg(test)]
mod tests {
    use super::{BufferItem, changed_chunks};
    use crate::cache::{BlockKey, TargetId};
    use crate::format::log::items::{BufFlags, buf_item, buf_runs};
    use crate::txn::{LogItem, RegionWriter};
    use crate::units::Daddr;

    fn regions(item: &BufferItem<'_>, covered: &[u32]) -> (Vec<Vec<u8>>, Vec<u32>) {
        let mut out = RegionWriter::default();
        let covers = item.format(covered, &mut out);
        (out.regions().map(<[u8]>::to_vec).collect(), covers)
    }

    #[test]
    fn each_piece_of_a_scattered_block_is_an_item_of_its_own() {
        let before = vec![0; 8192];
        let mut after = before.clone();
        // The last chunk of the first piece, the first two of the second, and the last of all.
        (after[4000], after[4096], after[4300], after[8191]) = (1, 2, 3, 4);
        let key = BlockKey::many(TargetId(0), [(Daddr(800), 8), (Daddr(96), 8)]);
        let mut item = BufferItem {
            key: &key,
            bytes: &after,
            dirty: changed_chunks(&before, &after),
            flags: 11 << 11,
            patches: vec![(4300, [9; 4])],
        };
        let (all, covers) = regions(&item, &[]);
        let head = |r: &[u8]| buf_item(r).map(|(f, m)| (f.blkno.get(), f.size.get(), buf_runs(m))).unwrap();
        assert_eq!(head(&all[0]), (800, 2, vec![(31, 1)]));
        assert_eq!(all[1], after[3968..4096]);
        assert_eq!(head(&all[2]), (96, 3, vec![(0, 2), (31, 1)]));
        assert_eq!((all[3].len(), all[3][204..208].to_vec(), all[4].len(), all.len()), (256, vec![9; 4], 128, 5));
        // What an earlier item of the checkpoint has logged is logged again, as it is now.
        item.dirty = vec![0, 1];
        let (again, union) = regions(&item, &covers);
        assert_eq!((again, union), (all, covers.clone()));
        // A piece that did not change is not logged; all are freed.
        item.dirty = vec![1, 0];
        assert_eq!(regions(&item, &[]).0.len(), 2);
        item.flags |= BufFlags::CANCEL.bits();
        let (freed, covers) = regions(&item, &covers);
        assert!(covers.is_empty());
        assert_eq!(freed.iter().map(|r| head(r)).collect::<Vec<_>>(), [(800, 1, vec![]), (96, 1, vec![])]);
    }
}
