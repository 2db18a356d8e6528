use super::{
    BIGTIME_MAX, Dinode, FileKind, Flags, Flags2, Format, Timestamp, check_dinode, seal_dinode, verify_dinode,
};
use super::{Fork, extents_in_fork, fork_bytes, root_in_fork, root_pointers_offset};
use crate::error::{Corruption, ForkKind, Rule, Severity};
use crate::format::Context;
use crate::format::btree::{BMBT, BmbtRec, Extent, RTRMAP};
use crate::geometry::{Geometry, test_geometry};
use crate::units::{Daddr, Ino, Lsn, NULL_AGINO};
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use zerocopy::IntoBytes;

const INO: u64 = 131;

fn file(g: &Geometry, change: impl FnOnce(&mut Dinode)) -> Vec<u8> {
    let mut bytes = vec![0; g.inode_size as usize];
    let d = Dinode::from_bytes_mut(&mut bytes).expect("large enough");
    d.magic.set(super::MAGIC);
    d.version = 3;
    d.mode.set(0o100_644);
    d.format = Format::Extents as u8;
    d.aformat = Format::Extents as u8;
    d.nlink.set(1);
    d.next_unlinked.set(NULL_AGINO);
    d.ino.set(INO);
    d.uuid = g.meta_uuid;
    change(d);
    seal_dinode(&mut bytes, Lsn::new(1, 2));
    bytes
}

fn verdict(g: &Geometry, bytes: &[u8]) -> Result<(), Box<Corruption>> {
    verify_dinode(bytes, Ino(INO), &Context::new(g, Daddr(0)))
}

fn findings(g: &Geometry, bytes: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    check_dinode(bytes, Ino(INO), &Context::new(g, Daddr(0)), &mut |c| all.push(c.code()));
    all
}

#[test]
fn times_convert_both_ways() {
    for (s, n, big) in [(0, 0, true), (-(1 << 31), 0, true), (BIGTIME_MAX, 999_999_999, true), (-5, 7, false)] {
        assert_eq!(Timestamp::encode(s, n, big).map(|t| t.decode(big)), Some((s, n)), "{s} {n} {big}");
    }
    assert_eq!(Timestamp::encode(1 << 31, 0, false), None);
    assert_eq!(Timestamp::encode(-(1 << 31) - 1, 0, true), None);
    assert_eq!(Timestamp::encode(0, 1_000_000_000, true), None);
}

#[test]
fn a_good_file_has_no_findings() {
    let g = test_geometry();
    assert_eq!(findings(&g, &file(&g, |_| {})), Vec::<String>::new());
}

#[test]
fn each_broken_rule_is_named() {
    let g = test_geometry();
    type Change = fn(&mut Dinode);
    let cases: &[(&str, Change)] = &[
        ("inode.magic.magic", |d| d.magic.set(0x494f)),
        ("inode.version.range", |d| d.version = 2),
        ("inode.ino.address", |d| d.ino.set(132)),
        ("inode.uuid.uuid", |d| d.uuid[0] ^= 1),
        ("inode.mode.flags", |d| d.mode.set(0o030_644)),
        ("inode.size.range", |d| d.size.set(1 << 63)),
        ("inode.nblocks.count", |d| d.big_nextents.set(2)),
        ("inode.nextents.range", |d| {
            d.big_nextents.set(22);
            d.nblocks.set(22);
        }),
        ("inode.format.flags", |d| d.format = 1),
        ("inode.format.flags", |d| d.format = 9),
        ("inode.format.flags", |d| d.mode.set(0o010_644)),
        ("inode.format.flags", |d| {
            d.mode.set(0o040_755);
            d.size.set(6);
        }),
        ("inode.aformat.flags", |d| d.aformat = 1),
        ("inode.forkoff.range", |d| d.forkoff = 42),
        ("inode.flags.flags", |d| d.flags.set(Flags::EXTSZINHERIT.bits())),
        ("inode.flags.flags", |d| d.flags.set(Flags::REALTIME.bits())),
        ("inode.extsize.range", |d| d.extsize.set(8)),
        ("inode.extsize.range", |d| d.flags.set(Flags::EXTSIZE.bits())),
        ("inode.cowextsize.range", |d| d.cowextsize.set(1)),
        ("inode.flags2.flags", |d| d.flags2.set(d.flags2.get() | Flags2::METADATA.bits())),
        ("inode.metatype.flags", |d| d.metatype.set(1)),
        ("inode.nrext64_pad.range", |d| d.anextents.set(1)),
        ("inode.next_unlinked.range", |d| d.next_unlinked.set(1)),
        ("inode.pad2.range", |d| d.pad2[3] = 1),
        // A free inode of a new cluster, as mkfs and the kernel leave it, but for the offset.
        ("inode.aformat.flags", |d| {
            d.mode.set(0);
            d.nlink.set(0);
            (d.format, d.aformat, d.forkoff) = (0, 0, 1);
            d.flags2.set(0);
        }),
        ("inode.flags.flags", |d| d.flags.set(Flags::NOSYMLINKS.bits())),
    ];
    for (code, change) in cases {
        let bytes = file(&g, |d| {
            d.flags2.set((Flags2::NREXT64 | Flags2::BIGTIME).bits());
            change(d);
        });
        assert_eq!(findings(&g, &bytes), [*code]);
    }
    let mut bytes = file(&g, |_| {});
    bytes[57] ^= 1;
    assert_eq!(verdict(&g, &bytes).map_err(|e| e.rule), Err(Rule::Crc));
}

#[test]
fn what_allocation_sets_anyway_is_no_damage_in_a_free_inode() {
    let g = test_geometry();
    let severities = |change: fn(&mut Dinode)| {
        let bytes = file(&g, |d| {
            d.mode.set(0);
            d.nlink.set(0);
            change(d);
        });
        let mut all = Vec::new();
        check_dinode(&bytes, Ino(INO), &Context::new(&g, Daddr(0)), &mut |c| all.push(c.severity));
        all
    };
    assert_eq!(severities(|_| ()), []);
    assert_eq!(severities(|d| d.nlink.set(1)), [Severity::Warning]);
    assert_eq!(severities(|d| d.flags.set((Flags::APPEND | Flags::RTINHERIT).bits())), [Severity::Warning]);
    assert_eq!(severities(|d| d.flags.set(Flags::NEWRTBM.bits())), [Severity::Corrupt]);
    assert_eq!(severities(|d| d.nblocks.set(1)), [Severity::Corrupt]);
}

#[test]
fn forks_lie_where_forkoff_says() {
    let g = test_geometry();
    let bytes = file(&g, |d| {
        d.forkoff = 15;
        d.aformat = 1;
    });
    let d = Dinode::from_bytes(&bytes).expect("long enough");
    assert_eq!(d.fork_range(ForkKind::Data, 512), 176..296);
    assert_eq!(d.fork_range(ForkKind::Attr, 512), 296..512);
    assert_eq!(fork_bytes(&bytes, ForkKind::Attr).len(), 216);
    assert_eq!(d.kind(), Some(FileKind::Regular));
}

#[test]
fn extents_and_roots_are_found_in_forks() {
    let e = [
        Extent { offset: 0, start: 9, count: 3, unwritten: false },
        Extent { offset: 7, start: 1, count: 1, unwritten: true },
    ];
    let bytes: Vec<u8> = e.iter().flat_map(|e| BmbtRec::pack(e).as_bytes().to_vec()).collect();
    assert_eq!(extents_in_fork(&bytes, 2).collect::<Vec<_>>(), e);
    assert_eq!(extents_in_fork(&bytes, 99).len(), 2);

    // A data fork of 336 bytes has room for 20 keys and pointers.
    let mut fork = vec![0; 336];
    fork[..12].copy_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5]);
    assert_eq!(root_pointers_offset(&BMBT, 336), 164);
    fork[171] = 77;
    let root = root_in_fork(&fork, &BMBT).expect("fits");
    assert_eq!((root.level, root.keys.len(), root.pointers[0].get()), (1, 8, 77));
    fork[3] = 21;
    assert!(root_in_fork(&fork, &BMBT).is_err());
    assert!(root_in_fork(&[0, 0, 0, 2, 1], &RTRMAP).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600), sound in any::<bool>()) {
        let g = test_geometry();
        if sound && bytes.len() >= 176 {
            let good = file(&g, |_| {});
            bytes[..2].copy_from_slice(&good[..2]);
            bytes[4] = 3;
            bytes[5] %= 6;
            bytes[83] %= 6;
            bytes[152..176].copy_from_slice(&good[152..176]);
            bytes[96..100].fill(0xff);
            seal_dinode(&mut bytes, Lsn(0));
        }
        findings(&g, &bytes);
        for k in [ForkKind::Data, ForkKind::Attr] {
            let _ = Fork::of(&bytes, k);
            let _ = root_in_fork(fork_bytes(&bytes, k), &BMBT);
        }
        let _ = (super::INODE_CLUSTER.verify)(&bytes, &Context::new(&g, Daddr(128)));
    }
}
