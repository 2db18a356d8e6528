use super::{
    DIR_ANY, DIR_BLOCK, DIR_DATA, DIR_FREE, DIR_LEAF1, DIR_LEAFN, DataItem, FileType, Free, Leaf, ShortDir,
    block_type_of, entries, entry_size, hash_name, items, join_address, split_address, verify_short,
};
use crate::error::Corruption;
use crate::format::{Context, da};
use crate::geometry::{Geometry, test_geometry};
use crate::units::{Daddr, FileBlock, Ino, Lsn};
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

const AT: Daddr = Daddr(96);

fn put(bytes: &mut [u8], offset: usize, v: impl IntoBytes + zerocopy::Immutable) {
    let v = v.as_bytes();
    bytes[offset..offset + v.len()].copy_from_slice(v);
}

fn be32(v: u32) -> U32 {
    U32::new(v)
}

fn be16(v: usize) -> U16 {
    U16::new(v as u16)
}

/// Header of data, block and free index blocks.
fn dir_header(g: &Geometry, magic: u32) -> Vec<u8> {
    let mut b = vec![0; g.dir_block_size as usize];
    put(&mut b, 0, be32(magic));
    put(&mut b, 8, U64::new(AT.0));
    b[24..40].copy_from_slice(&g.meta_uuid);
    put(&mut b, 40, U64::new(128));
    b
}

fn da_header(g: &Geometry, magic: u16) -> Vec<u8> {
    let mut b = vec![0; g.dir_block_size as usize];
    put(&mut b, 8, U16::new(magic));
    put(&mut b, 16, U64::new(AT.0));
    b[32..48].copy_from_slice(&g.meta_uuid);
    put(&mut b, 48, U64::new(128));
    b
}

/// A block-form directory with those names, sealed, and the rest unused.
fn block(g: &Geometry, names: &[&str]) -> Vec<u8> {
    let mut b = dir_header(g, super::BLOCK_MAGIC);
    let mut index = Vec::new();
    let mut o = 64;
    for (i, n) in names.iter().enumerate() {
        put(&mut b, o, U64::new(128 + i as u64));
        b[o + 8] = n.len() as u8;
        b[o + 9..o + 9 + n.len()].copy_from_slice(n.as_bytes());
        b[o + 9 + n.len()] = 1;
        let size = entry_size(n.len(), true);
        put(&mut b, o + size - 2, be16(o));
        index.push((hash_name(g, n.as_bytes()), o as u32 / 8));
        o += size;
    }
    index.sort_unstable();
    let leaf = b.len() - 8 - index.len() * 8;
    put(&mut b, o, U16::new(0xffff));
    put(&mut b, o + 2, be16(leaf - o));
    put(&mut b, leaf - 2, be16(o));
    put(&mut b, 48, be16(o));
    put(&mut b, 50, be16(leaf - o));
    for (i, (h, a)) in index.iter().enumerate() {
        put(&mut b, leaf + i * 8, be32(*h));
        put(&mut b, leaf + i * 8 + 4, be32(*a));
    }
    let end = b.len();
    put(&mut b, end - 8, be32(index.len() as u32));
    (DIR_BLOCK.seal)(&mut b, Lsn(5));
    b
}

fn code(g: &Geometry, b: &[u8]) -> Option<String> {
    (DIR_ANY.verify)(b, &Context::new(g, AT)).err().map(|c: Box<Corruption>| c.code())
}

fn damaged(g: &Geometry, good: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Option<String> {
    let mut b = good.to_vec();
    change(&mut b);
    if let Some(t) = block_type_of(&b) {
        (t.seal)(&mut b, Lsn(5));
    }
    code(g, &b)
}

#[test]
fn a_block_directory_reads_back() {
    let g = test_geometry();
    let b = block(&g, &[".", "..", "hello", "a rather long name"]);
    assert_eq!(code(&g, &b), None);
    let names: Vec<_> = entries(&b, &g).map(|e| e.map(|e| (e.name.to_vec(), e.ino, e.offset))).collect();
    assert_eq!(names.len(), 4);
    assert_eq!(names[2], Ok((b"hello".to_vec(), Ino(130), 96)));
    let of = |n| (DIR_ANY.verify)(&b, &Context::new(&g, AT).owned_by(Ino(n))).map_err(|c| c.code());
    assert_eq!((of(128), of(129)), (Ok(()), Err("dirblock.owner.owner".into())));
}

#[test]
fn damage_in_a_block_directory_is_named() {
    let g = test_geometry();
    let good = block(&g, &[".", "..", "hello", "there"]);
    let end = good.len();
    let cases: [(&str, usize, u8); 11] = [
        ("dirblock.uuid.uuid", 24, 1),
        ("dirblock.bno.address", 15, 1),
        ("dirblock.tag.mismatch", 64 + 15, 1),
        ("dirblock.inumber.range", 64, 1),
        ("dirblock.filetype.flags", 64 + 10, 0x20),
        ("dirblock.name.name", 96 + 10, b'e' ^ b'/'),
        ("dirblock.leaf.missing", 96 + 10, 1),
        ("dirblock.bestfree.mismatch", 51, 8),
        ("dirblock.bestfree.mismatch", 55, 8),
        ("dirblock.btail.count.range", end - 8, 1),
        ("dirblock.btail.stale.count", end - 1, 1),
    ];
    for (want, offset, flip) in cases {
        assert_eq!(damaged(&g, &good, |b| b[offset] ^= flip).as_deref(), Some(want), "byte {offset}");
    }
    // Index entries in the wrong order.
    let swapped = damaged(&g, &good, |b| b[end - 40..end - 8].rotate_left(8));
    assert_eq!(swapped.as_deref(), Some("dirblock.hashval.order"));
    // One index entry more than entries.
    let twice = damaged(&g, &good, |b| b.copy_within(end - 40..end - 32, end - 32));
    assert_eq!(twice.as_deref(), Some("dirblock.leaf.missing"));
    let mut b = good.clone();
    b[100] ^= 1;
    assert_eq!(code(&g, &b).as_deref(), Some("dirblock.crc.crc"));
}

#[test]
fn two_unused_pieces_side_by_side_are_found() {
    let g = test_geometry();
    let mut b = dir_header(&g, super::DATA_MAGIC);
    for (o, len) in [(64usize, 1000usize), (1064, 4096 - 1064)] {
        put(&mut b, o, U16::new(0xffff));
        put(&mut b, o + 2, be16(len));
        put(&mut b, o + len - 2, be16(o));
    }
    assert_eq!(items(&b, &g).filter(|i| matches!(i, Ok(DataItem::Unused { .. }))).count(), 2);
    assert_eq!(damaged(&g, &b, |_| {}).as_deref(), Some("dirdata.length.unmerged"));
    // One piece of all, listed: a data block without entries.
    let whole = damaged(&g, &b, |b| {
        put(b, 66, be16(4096 - 64));
        put(b, 4094, be16(64));
        put(b, 48, be16(64));
        put(b, 50, be16(4096 - 64));
    });
    assert_eq!(whole, None);
    assert_eq!(DIR_DATA.log_type, 11);
}

#[test]
fn leaves_and_free_blocks_are_checked() {
    let g = test_geometry();
    let mut b = da_header(&g, super::LEAF1_MAGIC);
    put(&mut b, 56, be16(3));
    put(&mut b, 58, be16(1));
    for (i, (h, a)) in [(5u32, 9u32), (7, 0), (7, 11)].iter().enumerate() {
        put(&mut b, 64 + i * 8, be32(*h));
        put(&mut b, 68 + i * 8, be32(*a));
    }
    put(&mut b, 4092, be32(2));
    put(&mut b, 4088, be16(40));
    put(&mut b, 4090, be16(48));
    (DIR_LEAF1.seal)(&mut b, Lsn(1));
    assert_eq!(code(&g, &b), None);
    let leaf = Leaf::from_bytes(&b).expect("long enough");
    assert_eq!(leaf.bests.iter().map(|b| b.get()).collect::<Vec<_>>(), [40, 48]);
    assert_eq!(leaf.find(7).map(|e| e.address.get()).collect::<Vec<_>>(), [11]);
    assert_eq!(damaged(&g, &b, |b| b[59] = 0).as_deref(), Some("dirleaf1.stale.count"));
    assert_eq!(damaged(&g, &b, |b| b[57] = 4).as_deref(), Some("dirleaf1.hashval.order"));
    assert_eq!(damaged(&g, &b, |b| b[56] = 9).as_deref(), Some("dirleaf1.count.range"));
    assert_eq!(damaged(&g, &b, |b| b[4092] = 9).as_deref(), Some("dirleaf1.bestcount.range"));
    assert_eq!(damaged(&g, &b, |b| b[3] = 9).as_deref(), Some("dirleaf1.forw.range"));
    assert_eq!(damaged(&g, &b, |b| b[9] = 0xff), None, "as a leafn it has siblings and no sizes");

    let mut f = dir_header(&g, super::FREE_MAGIC);
    put(&mut f, 52, be32(3));
    put(&mut f, 56, be32(2));
    put(&mut f, 64, [be16(8), be16(0xffff), be16(16)]);
    (DIR_FREE.seal)(&mut f, Lsn(1));
    assert_eq!(code(&g, &f), None);
    assert_eq!(Free::from_bytes(&f).map(|f| f.bests.len()), Some(3));
    assert_eq!(damaged(&g, &f, |b| b[59] = 3).as_deref(), Some("dirfree.nused.count"));
    assert_eq!(damaged(&g, &f, |b| b[51] = 3).as_deref(), Some("dirfree.firstdb.range"));
    assert_eq!(damaged(&g, &f, |b| b[53] = 1).as_deref(), Some("dirfree.nvalid.range"));
}

#[test]
fn nodes_are_checked() {
    let g = test_geometry();
    let mut b = da_header(&g, da::NODE_MAGIC);
    put(&mut b, 56, [be16(2), be16(1)]);
    put(&mut b, 64, [be32(10), be32(1), be32(20), be32(2)]);
    (da::DA_NODE.seal)(&mut b, Lsn(1));
    assert_eq!(code(&g, &b), None);
    let node = da::Node::from_bytes(&b).expect("long enough");
    assert_eq!((node.find(10), node.find(11), node.find(21)), (Some(0), Some(1), None));
    assert_eq!(damaged(&g, &b, |b| b[59] = 6).as_deref(), Some("danode.level.range"));
    assert_eq!(damaged(&g, &b, |b| b[57] = 0).as_deref(), Some("danode.count.range"));
    assert_eq!(damaged(&g, &b, |b| b[72] = 0xff), None);
    assert_eq!(damaged(&g, &b, |b| b[64] = 0xff).as_deref(), Some("danode.hashval.order"));
}

#[test]
fn short_directories() {
    let g = test_geometry();
    // Two entries, as mkfs and the kernel write them: 96 and 120 are their places in a block.
    let good = [&[2, 0, 0, 0, 0, 128, 3, 0, 96][..], b"foo", &[1, 0, 0, 0, 131, 2, 0, 112], b"ba", &[2, 0, 0, 0, 132]]
        .concat();
    assert_eq!(verify_short(&good, Ino(128), &g), Ok(()));
    let dir = ShortDir::from_bytes(&good, &g).expect("long enough");
    let all: Vec<_> = dir.entries().map(|e| e.map(|e| (e.name, e.ino, e.ftype, e.offset))).collect();
    assert_eq!(all, [Ok((&b"foo"[..], Ino(131), 1, 96)), Ok((&b"ba"[..], Ino(132), 2, 112))]);
    for (offset, value, want) in [
        (0, 3, "directory.entry.truncated"),
        (0, 1, "directory.size.mismatch"),
        (5, 1, "directory.parent.range"),
        (8, 88, "directory.offset.order"),
        (8, 97, "directory.offset.order"),
        (9, b'/', "directory.name.name"),
        (12, 9, "directory.filetype.flags"),
        (16, 1, "directory.inumber.range"),
        (19, 104, "directory.offset.order"),
        (18, 16, "directory.offset.range"),
    ] {
        let mut b = good.clone();
        b[offset] = value;
        assert_eq!(verify_short(&b, Ino(128), &g).map_err(|e| e.code()), Err(want.to_owned()), "byte {offset}");
    }
    // Eight-byte numbers that no entry needs.
    let wide = [1, 1, 0, 0, 0, 0, 0, 0, 0, 128, 1, 0, 96, b'x', 1, 0, 0, 0, 0, 0, 0, 0, 131];
    assert_eq!(verify_short(&wide, Ino(128), &g).map_err(|e| e.code()), Err("directory.i8count.count".to_owned()));
}

#[test]
fn addresses_convert_both_ways() {
    let g = test_geometry();
    assert_eq!(split_address(&g, 8 + 512), (FileBlock(1), 64));
    assert_eq!(join_address(&g, FileBlock(1), 64), Some(520));
    assert_eq!(join_address(&g, FileBlock(u64::MAX), 64), None);
    assert_eq!(FileType::from_mode(0o120_777), FileType::Symlink);
    assert_eq!(FileType::from_u8(9), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_bytes_make_it_panic(mut b in prop::collection::vec(any::<u8>(), 0..700), kind in 0usize..6, long in any::<bool>()) {
        let g = test_geometry();
        if b.len() >= 64 {
            let head = match kind {
                0 => dir_header(&g, super::BLOCK_MAGIC),
                1 => dir_header(&g, super::DATA_MAGIC),
                2 => dir_header(&g, super::FREE_MAGIC),
                3 => da_header(&g, super::LEAF1_MAGIC),
                4 => da_header(&g, super::LEAFN_MAGIC),
                _ => da_header(&g, da::NODE_MAGIC),
            };
            let n = if kind < 3 { 48 } else { 56 };
            b[..n].copy_from_slice(&head[..n]);
            if kind == 0 {
                let end = b.len();
                b[end - 8..end - 5].fill(0);
            }
            if long {
                b[n..64].fill(0);
            }
            if let Some(t) = block_type_of(&b) {
                (t.seal)(&mut b, Lsn(0));
            }
        }
        let at = Context::new(&g, AT);
        for t in [&DIR_ANY, &DIR_BLOCK, &DIR_DATA, &DIR_LEAF1, &DIR_LEAFN, &DIR_FREE, &da::DA_NODE] {
            let _ = (t.verify)(&b, &at);
        }
        assert!(items(&b, &g).count() <= b.len() / 8 + 1);
        let _ = super::DataHeader::ref_from_prefix(&b);
        let _ = super::data::entry_at(&b, kind * 8, &g);
        let _ = verify_short(&b, Ino(128), &g);
        let _ = Leaf::from_bytes(&b).map(|l| l.find(7).count());
    }
}
