//! A record of the inode trees, decoded and checked.

use crate::error::{Corruption, Result, Rule};
use crate::format::btree::{CHUNK_INODES, HOLEMASK_INODES, InobtKey, InobtRec};
use crate::units::{AgIno, AgNumber};
use zerocopy::big_endian::{U32, U64};

/// Inodes for which there is a bit.
const ALL: u64 = u64::MAX;

/// 64 inode numbers of an AG, of which some may have no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) start: AgIno,
    /// A bit for every four inodes that have no place.
    pub(super) holemask: u16,
    /// A bit for each that is not in use; those without place count as free.
    pub(super) free: u64,
}

/// The key of a record that begins there.
pub(super) fn key(start: AgIno) -> InobtKey {
    InobtKey { startino: U32::new(start.0) }
}

/// The first number of the 64 among which an inode is, where chunks are aligned to that, as they are with sparse ones.
pub(super) fn start_of(agino: AgIno) -> AgIno {
    AgIno(agino.0 / CHUNK_INODES * CHUNK_INODES)
}

impl Record {
    /// A new one, all free.
    pub(super) fn new(start: AgIno, holemask: u16) -> Self {
        Self { start, holemask, free: ALL }
    }
    /// From a tree, where its counts agree with its bits.
    pub(super) fn decode(tree: &'static str, ag: AgNumber, r: &InobtRec, sparse: bool) -> Result<Self> {
        let start = AgIno(r.startino.get());
        let bad = |field, rule| Corruption::new(tree, field, rule).in_ag(ag, None);
        if sparse && start != start_of(start) {
            return Err(bad("startino", Rule::Range).found(start).expected("a multiple of 64").into());
        }
        let record = Self { start, holemask: r.holemask(sparse), free: r.free.get() };
        if record.free & record.holes() != record.holes() {
            return Err(bad("free", Rule::Mismatch).found(format_args!("{:#x}", record.free)).into());
        }
        let (count, free) = (r.count(sparse), r.freecount(sparse));
        if count != record.count() || count == 0 {
            return Err(bad("count", Rule::Mismatch).found(count).expected(record.count()).into());
        }
        if free != record.freecount() {
            return Err(bad("freecount", Rule::Mismatch).found(free).expected(record.freecount()).into());
        }
        Ok(record)
    }
    /// As it is in a tree.
    pub(super) fn encode(&self, sparse: bool) -> InobtRec {
        let free = self.freecount();
        let middle = if sparse {
            let [high, low] = self.holemask.to_be_bytes();
            [high, low, self.count().to_le_bytes()[0], free.to_le_bytes()[0]]
        } else {
            U32::new(free).to_bytes()
        };
        InobtRec { startino: U32::new(self.start.0), middle, free: U64::new(self.free) }
    }
    /// A bit for each inode that has no place.
    pub(super) fn holes(&self) -> u64 {
        let bits = |n: u32| if self.holemask >> n & 1 == 1 { 0xf << (n * HOLEMASK_INODES) } else { 0 };
        (0..16).fold(0, |all, n| all | bits(n))
    }
    /// Inodes that have a place.
    pub(super) fn count(&self) -> u32 {
        CHUNK_INODES - self.holes().count_ones()
    }
    /// A bit for each inode that has a place and is not in use.
    pub(super) fn available(&self) -> u64 {
        self.free & !self.holes()
    }
    /// How many these are.
    pub(super) fn freecount(&self) -> u32 {
        self.available().count_ones()
    }
    /// Whether none is in use.
    pub(super) fn is_empty(&self) -> bool {
        self.free == ALL
    }
    /// Number in the record; none where the inode is none of these.
    pub(super) fn index(&self, agino: AgIno) -> Option<u32> {
        agino.0.checked_sub(self.start.0).filter(|n| *n < CHUNK_INODES)
    }
    /// Free inodes.
    pub(super) fn candidates(&self) -> impl Iterator<Item = AgIno> + use<> {
        let (start, free) = (self.start.0, self.available());
        (0..CHUNK_INODES).filter(move |n| free >> n & 1 == 1).filter_map(move |n| start.checked_add(n)).map(AgIno)
    }
    /// Both of the same numbers; none where one has a place for an inode of the other.
    pub(super) fn merged(&self, other: &Self) -> Option<Self> {
        let disjoint = self.start == other.start && !self.holes() & !other.holes() == 0;
        disjoint.then_some(Self {
            start: self.start,
            holemask: self.holemask & other.holemask,
            free: self.free & other.free,
        })
    }
    /// Runs of inodes that have a place: the first, and how many.
    pub(super) fn runs(&self) -> Vec<(AgIno, u32)> {
        let holes = self.holes();
        let mut runs: Vec<(AgIno, u32)> = Vec::new();
        for n in (0..CHUNK_INODES).filter(|n| holes >> n & 1 == 0) {
            let agino = AgIno(self.start.0.saturating_add(n));
            match runs.last_mut() {
                Some((first, count)) if first.0.saturating_add(*count) == agino.0 => *count += 1,
                _ => runs.push((agino, 1)),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::Record;
    use crate::format::btree::InobtRec;
    use crate::units::{AgIno, AgNumber};

    fn decoded(r: &Record, sparse: bool) -> Record {
        Record::decode("inobt", AgNumber(0), &r.encode(sparse), sparse).unwrap()
    }

    #[test]
    fn records_survive_encoding() {
        let mut r = Record::new(AgIno(128), 0);
        r.free &= !0b1011;
        assert_eq!((r.count(), r.freecount()), (64, 61));
        assert_eq!(decoded(&r, false), r);
        assert_eq!(decoded(&r, true), r);
        let sparse = Record::new(AgIno(64), 0xfff0);
        assert_eq!((sparse.count(), sparse.freecount(), sparse.runs()), (16, 16, vec![(AgIno(64), 16)]));
        assert_eq!(decoded(&sparse, true), sparse);
    }

    #[test]
    fn sparse_records_merge_where_they_do_not_overlap() {
        let mut low = Record::new(AgIno(64), 0xff00);
        low.free &= !1;
        let high = Record::new(AgIno(64), 0x00ff);
        let both = low.merged(&high).unwrap();
        assert_eq!((both.holemask, both.count(), both.freecount()), (0, 64, 63));
        assert_eq!(both.candidates().next(), Some(AgIno(65)));
        assert!(low.merged(&low).is_none());
        assert_eq!(Record::new(AgIno(0), 0x0f0f).runs(), [(AgIno(16), 16), (AgIno(48), 16)]);
    }

    #[test]
    fn records_that_contradict_themselves_are_refused() {
        let r = Record::new(AgIno(64), 0xfff0);
        let changes: [fn(&mut InobtRec); 4] = [
            |e| e.startino.set(65),
            |e| e.middle[2] = 20,
            |e| e.middle[3] = 15,
            |e| e.free.set(e.free.get() & !(1 << 40)),
        ];
        for change in changes {
            let mut e = r.encode(true);
            change(&mut e);
            assert!(Record::decode("inobt", AgNumber(0), &e, true).is_err());
        }
    }
}
