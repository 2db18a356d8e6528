//! How much of the log a transaction reserves before it begins.
//!
//! A transaction reserves room for each buffer that it may dirty (all its bytes and a log item's header) and for each inode. One
//! that rolls (see [`Reservation::permanent`]) reserves that as often as it may roll. A log must hold the largest of them: the kernel
//! refuses to mount one that is shorter than [`minimum_log_blocks`].
//!
//! Compared with what Linux 6.18 computes at mount (its trace point tells) and `logres` of xfs_db 6.1 prints, and with the smallest log
//! that mkfs.xfs 6.1 and Linux 6.18 name when they refuse a smaller one.
//!
//! Where it comes from: which blocks an operation can change follows from the format (a path of each btree, the blocks of a directory's
//! index, both inodes of a rename); how many operations of which kind a rolling transaction covers, and which of two readings counts,
//! was settled by those observed numbers. Terms that look odd are there because the numbers cannot be had without them.

mod sizes;

use crate::geometry::Geometry;
use serde::Serialize;
use sizes::{OP_HEADER, Sizes};

/// Header of a transaction.
const TRANSACTION_HEADER: u64 = 16;
/// Largest log record and the space that its headers take.
const RECORD: u64 = 256 << 10;
const RECORD_HEADERS: u64 = 8 * 512;
/// The log is as many times the largest transaction.
const FACTOR: u64 = 3;

/// A kind of transaction, in the order in which xfs_db's `logres` numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Blocks are mapped into a file.
    Write,
    /// Blocks are unmapped.
    Truncate,
    /// Rename.
    Rename,
    /// Hard link.
    Link,
    /// A name is removed.
    Remove,
    /// Symbolic link.
    Symlink,
    /// A file is created.
    Create,
    /// A file without a name.
    CreateTmpfile,
    /// Directory.
    Mkdir,
    /// An inode is freed.
    FreeInode,
    /// Mode, owner, times of an inode.
    ChangeInode,
    /// The data device grows.
    GrowData,
    /// The inode gets an attribute fork.
    AddAttrFork,
    /// What a write changes in the inode only.
    WriteId,
    /// The attribute fork is dropped.
    AttrInvalidate,
    /// An attribute is set.
    AttrSet,
    /// What each block of an attribute that is set asks beside.
    AttrSetBlock,
    /// An attribute is removed.
    AttrRemove,
    /// A bucket of unlinked inodes is cleared.
    ClearAgiBucket,
    /// Blocks of the realtime bitmap or summary are allocated.
    GrowRealtime,
    /// They are zeroed.
    GrowRealtimeZero,
    /// New realtime extents are freed.
    GrowRealtimeFree,
    /// Quota limits.
    QuotaLimit,
    /// A block of quota records is allocated.
    QuotaAllocate,
    /// The superblock.
    Superblock,
    /// Times that fsync writes.
    Timestamps,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 26] = [
        Self::Write,
        Self::Truncate,
        Self::Rename,
        Self::Link,
        Self::Remove,
        Self::Symlink,
        Self::Create,
        Self::CreateTmpfile,
        Self::Mkdir,
        Self::FreeInode,
        Self::ChangeInode,
        Self::GrowData,
        Self::AddAttrFork,
        Self::WriteId,
        Self::AttrInvalidate,
        Self::AttrSet,
        Self::AttrSetBlock,
        Self::AttrRemove,
        Self::ClearAgiBucket,
        Self::GrowRealtime,
        Self::GrowRealtimeZero,
        Self::GrowRealtimeFree,
        Self::QuotaLimit,
        Self::QuotaAllocate,
        Self::Superblock,
        Self::Timestamps,
    ];
}

/// What one kind of transaction reserves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Reservation {
    /// Which kind.
    pub kind: Kind,
    /// Bytes that it may log, without headers of records: [`log_space`] adds them.
    pub bytes: u64,
    /// How often it is expected to roll; 0 where nobody says.
    pub rolls: u32,
    /// Whether it keeps its reservation when it rolls.
    pub permanent: bool,
}

/// Whose arithmetic is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rules {
    /// That of today's kernels: what a writer of the journal reserves.
    Linux,
    /// That of xfsprogs 6.1, which takes reverse mapping trees to be lower than they can get and does not know parent pointers.
    Xfsprogs6_1,
    /// That of the first versions with shared extents, by which the smallest log is still computed.
    Oldest,
}

/// What a kind of transaction reserves in this geometry, as today's kernels compute it.
pub fn reservation(g: &Geometry, kind: Kind) -> Reservation {
    Sizes::new(g, Rules::Linux).reservation(kind)
}

/// What all kinds reserve, in the order of [`Kind::ALL`].
pub fn reservations(g: &Geometry, rules: Rules) -> Vec<Reservation> {
    let sizes = Sizes::new(g, rules);
    Kind::ALL.into_iter().map(|kind| sizes.reservation(kind)).collect()
}

/// The reservation that asks most of the log, by which its smallest size is computed: bytes, and how often it may roll.
///
/// The kernel keeps the sizes that its first versions with shared extents computed, so that a filesystem that it once made stays
/// mountable; only with parent pointers it computes what is really needed. So does this.
pub fn largest(g: &Geometry) -> (u64, u64) {
    largest_by(g, if g.features.parent() { Rules::Linux } else { Rules::Oldest })
}

/// As [`largest`], by the rules that are given.
pub fn largest_by(g: &Geometry, rules: Rules) -> (u64, u64) {
    let sizes = Sizes::new(g, rules);
    let all = Kind::ALL.into_iter().map(|kind| sizes.reservation(kind));
    let all = all.map(|r| (r.bytes, u64::from(r.rolls).max(1)));
    let best = all.fold((0, 1), |best, new| if new.0 * new.1 > best.0 * best.1 { new } else { best });
    // The largest attribute has to be larger than all rolls of the others, and then counts with its own.
    let attribute = sizes.attribute();
    if attribute.0 > best.0 * best.1 { attribute } else { best }
}

/// Bytes of the log that a transaction of so many bytes takes at most, headers of records, operations and padding to the log's stripe
/// unit (0 or 1 for none) included.
pub fn log_space(bytes: u64, stripe_unit: u64) -> u64 {
    let mut unit = bytes + 3 * OP_HEADER + TRANSACTION_HEADER;
    let space = RECORD - RECORD_HEADERS;
    let mut headers = unit.div_ceil(space);
    unit += headers * OP_HEADER;
    while unit.div_ceil(space) > headers {
        unit += OP_HEADER;
        headers += 1;
    }
    unit + (headers + 1) * RECORD_HEADERS + if stripe_unit > 1 { 2 * stripe_unit } else { 2 * 512 }
}

/// Fewest blocks of a log with a stripe unit of `stripe_unit` bytes (0 or 1 for none).
pub fn minimum_log_blocks(g: &Geometry, stripe_unit: u64) -> u64 {
    let (bytes, count) = largest(g);
    let sectors = (log_space(bytes, stripe_unit) * count).div_ceil(512);
    let least = if stripe_unit > 1 {
        let unit = stripe_unit / 512;
        sectors.next_multiple_of(unit) + 2 * unit
    } else {
        sectors + 2 * 512
    };
    (FACTOR * least).div_ceil(u64::from(g.block_size) / 512)
}

#[cfg(test)]
mod tests {
    use super::{Kind, Rules, log_space, reservation, reservations};
    use crate::geometry::Geometry;
    use crate::mkfs::{Devices, Options, plan};

    fn geometry(size: u64, change: impl Fn(&mut Options)) -> Geometry {
        let mut options = Options::default();
        change(&mut options);
        Geometry::new(&plan(&options, &Devices::file(size)).unwrap().superblock).unwrap()
    }

    /// What the trace point `xfs_trans_resv_calc` of Linux 6.18 tells at mount.
    #[test]
    fn reservations_are_those_of_the_kernel() {
        let rmap = |o: &mut Options| o.metadata.rmapbt = Some(true);
        let parent = |o: &mut Options| (o.metadata.rmapbt, o.naming.parent) = (Some(true), Some(true));
        let large = |o: &mut Options| o.inode.nrext64 = Some(true);
        type Case = (&'static str, Geometry, [(u64, u32); 26]);
        let table: [Case; 3] = [
            (
                "rmapbt",
                geometry(300 << 20, rmap),
                [
                    (134392, 5),
                    (226176, 5),
                    (308696, 2),
                    (187760, 2),
                    (171376, 2),
                    (223600, 3),
                    (222448, 2),
                    (201216, 2),
                    (222448, 3),
                    (219512, 2),
                    (2168, 0),
                    (56832, 2),
                    (83064, 2),
                    (760, 0),
                    (225408, 1),
                    (23288, 3),
                    (13312, 0),
                    (113792, 3),
                    (640, 0),
                    (78072, 2),
                    (4224, 0),
                    (6512, 0),
                    (232, 1),
                    (138615, 5),
                    (640, 1),
                    (760, 0),
                ],
            ),
            (
                "parent",
                geometry(300 << 20, |o| {
                    parent(o);
                    large(o)
                }),
                [
                    (142840, 5),
                    (226176, 5),
                    (428160, 5),
                    (247204, 5),
                    (230820, 5),
                    (283044, 6),
                    (281892, 5),
                    (201216, 2),
                    (281892, 6),
                    (219512, 2),
                    (2168, 0),
                    (56832, 2),
                    (91512, 2),
                    (760, 0),
                    (225408, 1),
                    (23288, 3),
                    (21760, 0),
                    (113792, 3),
                    (640, 0),
                    (86520, 2),
                    (4224, 0),
                    (6512, 0),
                    (232, 1),
                    (147063, 5),
                    (640, 1),
                    (760, 0),
                ],
            ),
            (
                "parent-1k",
                geometry(300 << 20, |o| {
                    parent(o);
                    o.block_size = Some(1024)
                }),
                [
                    (59896, 5),
                    (103296, 5),
                    (169344, 5),
                    (117796, 5),
                    (101412, 5),
                    (114852, 6),
                    (113700, 5),
                    (99072, 2),
                    (113700, 6),
                    (120440, 2),
                    (2168, 0),
                    (26112, 2),
                    (39288, 2),
                    (760, 0),
                    (102528, 1),
                    (7928, 3),
                    (5248, 0),
                    (52352, 3),
                    (640, 0),
                    (34296, 2),
                    (1152, 0),
                    (3440, 0),
                    (232, 1),
                    (61047, 5),
                    (640, 1),
                    (760, 0),
                ],
            ),
        ];
        let all = |g: &Geometry| -> Vec<(u64, u32)> {
            reservations(g, Rules::Linux).iter().map(|r| (r.bytes, r.rolls)).collect()
        };
        for (name, g, numbers) in table {
            assert_eq!(all(&g), numbers, "{name}");
        }
    }

    #[test]
    fn the_log_takes_more_than_is_logged() {
        let g = geometry(300 << 20, |_| ());
        let create = reservation(&g, Kind::Create);
        assert!(create.permanent && create.rolls == 2);
        // Three headers of operations, that of the transaction, a record's headers before and behind, and a sector at both ends.
        assert_eq!(log_space(1000, 0), 1000 + 4 * 12 + 16 + 2 * 4096 + 1024);
        assert_eq!(log_space(1000, 256 << 10) - log_space(1000, 1), 2 * (256 << 10) - 1024);
        assert!(log_space(1 << 20, 0) > (1 << 20) + 4 * 4096);
    }
}
