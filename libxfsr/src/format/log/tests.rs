use super::items::{
    AttrOp, BufFlags, ItemType, LogDinode, MapExtent, PhysExtent, RmapOp, buf_item, buf_runs, efi_item, inode_item,
    intent_extents,
};
use super::{
    ExtendedHeader, OpFlags, Ops, RecordHeader, checksum_matches, cycle_word, pack, record_checksum, seal_record,
    unpack,
};
use crate::units::Lsn;
use proptest::prelude::{any, prop, proptest};
use zerocopy::{FromBytes, IntoBytes};

const UUID: [u8; 16] = *b"0123456789abcdef";

fn headers(size: u32, len: u32) -> Vec<u8> {
    let mut b = vec![0; (size.div_ceil(32768).max(1) * 512) as usize];
    let h = RecordHeader::mut_from_prefix(&mut b).expect("long enough").0;
    h.magicno.set(super::HEADER_MAGIC);
    h.cycle.set(7);
    h.version.set(2);
    h.len.set(len);
    h.lsn.set(Lsn::new(7, 100).0);
    h.fmt.set(1);
    h.fs_uuid = UUID;
    h.size.set(size);
    b
}

fn head(b: &[u8]) -> &RecordHeader {
    RecordHeader::ref_from_prefix(b).expect("long enough").0
}

#[test]
fn packing_keeps_every_first_word() {
    let original: Vec<u8> = (0..80 * 512u32).map(|i| (i / 7) as u8).collect();
    let (mut heads, mut data) = (headers(65536, 80 * 512), original.clone());
    assert!(pack(&mut heads, &mut data, 7));
    assert!(data.chunks(512).all(|b| b[..4] == [0, 0, 0, 7]));
    let word = |i: usize| original.get(i * 512..).and_then(|b| b.first_chunk()).map(|b| u32::from_be_bytes(*b));
    assert_eq!((cycle_word(&heads, 63), cycle_word(&heads, 64)), (word(63), word(64)));
    let ext = ExtendedHeader::ref_from_prefix(&heads[512..]).expect("long enough").0;
    assert_eq!(ext.cycle.get(), 7);
    seal_record(&mut heads, &data);
    assert!(checksum_matches(&heads, &data));
    // A 32-bit machine's checksum leaves the padding out.
    let crc = record_checksum(&heads, &data, 324);
    assert_ne!(crc, record_checksum(&heads, &data, 328));
    RecordHeader::mut_from_prefix(&mut heads).expect("long enough").0.crc.set(crc);
    assert!(checksum_matches(&heads, &data));
    heads[600] ^= 1;
    assert!(!checksum_matches(&heads, &data), "extended headers are covered");
    heads[600] ^= 1;
    assert!(unpack(&heads, &mut data));
    assert_eq!(data, original);
    assert!(!unpack(&heads[..512], &mut data), "no room for 80 words");
}

#[test]
fn record_headers_are_checked() {
    assert_eq!(head(&headers(32768, 512)).verify(&UUID), Ok(()));
    assert_eq!(head(&headers(262_144, 512)).header_blocks(), 8);
    for (want, offset, value) in [
        ("log.magicno.magic", 0, 0),
        ("log.version.range", 11, 3),
        ("log.fmt.range", 303, 2),
        ("log.uuid.uuid", 304, 0),
        ("log.cycle.mismatch", 7, 8),
        ("log.len.range", 12, 1),
        ("log.len.range", 13, 1),
        ("log.len.range", 320, 1),
    ] {
        let mut b = headers(32768, 512);
        b[offset] = value;
        assert_eq!(head(&b).verify(&UUID).map_err(|c| c.code()), Err(want.to_owned()), "byte {offset}");
    }
}

#[test]
fn operations_are_cut_out() {
    let data =
        [&[0, 0, 0, 9, 0, 0, 0, 3, 0x69, 1, 0, 0][..], b"abc", &[0, 0, 0, 9, 0, 0, 0, 0, 0x69, 2, 0, 0]].concat();
    let ops: Vec<_> = Ops::new(&data, 2).map(|o| o.map(|(h, r)| (h.flags(), r))).collect();
    assert_eq!(ops, [Ok((OpFlags::START, &b"abc"[..])), Ok((OpFlags::COMMIT, &b""[..]))]);
    let codes = |d: &[u8], n| Ops::new(d, n).last().and_then(Result::err).map(|c| c.code());
    assert_eq!(codes(&data, 3).as_deref(), Some("log.op.truncated"));
    assert_eq!(codes(&data[..14], 1).as_deref(), Some("log.op.truncated"));
    let mut wrong = data;
    wrong[8] = 0x70;
    assert_eq!(codes(&wrong, 2).as_deref(), Some("log.clientid.range"));
}

#[test]
fn items_are_read_in_both_layouts() {
    let mut efi = vec![0; 16 + 32];
    efi[..16].copy_from_slice(&[0x36, 0x12, 1, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    (efi[16], efi[24], efi[32], efi[40]) = (100, 8, 200, 9);
    assert_eq!(efi_item(&efi).map(|(_, e)| e), Ok(vec![(100, 8), (200, 9)]));
    let mut narrow = efi[..40].to_vec();
    (narrow[28], narrow[32], narrow[36]) = (200, 0, 9);
    assert_eq!(efi_item(&narrow).map(|(_, e)| e), Ok(vec![(100, 8), (200, 9)]));
    assert!(efi_item(&efi[..39]).is_err());
    assert_eq!(ItemType::of(&efi), Some(ItemType::Efi));
    assert_eq!(ItemType::Efi.done(), Some(ItemType::Efd));
    assert!(!ItemType::Buf.is_intent());
    let mut inode = vec![0; 56];
    (inode[0], inode[1], inode[16], inode[40]) = (0x3b, 0x12, 131, 64);
    let wide = inode_item(&inode).expect("56 bytes");
    let thin = inode_item(&[&inode[..12], &inode[16..]].concat()).expect("52 bytes");
    assert_eq!((wide.ino.get(), wide.blkno.get()), (131, 64));
    assert_eq!(wide, thin);
    assert!(inode_item(&inode[..54]).is_err());
}

#[test]
fn buffer_maps_give_runs() {
    let mut b = vec![0; 28];
    (b[0], b[1], b[4], b[5], b[16]) = (0x3c, 0x12, 1, 8 << 3, 2);
    (b[20], b[23], b[24]) = (0b11, 0x80, 1);
    let (format, map) = buf_item(&b).expect("28 bytes");
    assert_eq!((format.block_type(), format.flags()), (8, BufFlags::INODE_BUF));
    assert_eq!(buf_runs(map), [(0, 2), (31, 2)]);
    b[16] = 3;
    assert_eq!(buf_item(&b).map_err(|c| c.code()), Err("log.map.truncated".to_owned()));
    b[17] = 1;
    assert_eq!(buf_item(&b).map_err(|c| c.code()), Err("log.map_size.range".to_owned()));
}

#[test]
fn intents_count_their_extents() {
    let mut b = vec![0; 16 + 32];
    (b[0], b[1], b[4], b[16], b[44]) = (0x40, 0x12, 1, 77, 7);
    let (_, e) = intent_extents::<MapExtent>(&b).expect("one extent");
    assert_eq!((e[0].owner.get(), RmapOp::from_flags(e[0].flags.get())), (77, Some(RmapOp::Alloc)));
    assert!(intent_extents::<PhysExtent>(&b).is_err(), "two extents of that size");
    assert_eq!(AttrOp::from_flags(0x106), Some(AttrOp::PptrReplace));
    assert_eq!(AttrOp::from_flags(7), None);
    for t in ItemType::ALL {
        assert_eq!(ItemType::from_u16(t as u16), Some(t));
    }
    assert_eq!(size_of::<LogDinode>(), size_of::<crate::format::inode::Dinode>());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(b in prop::collection::vec(any::<u8>(), 0..1200), mut d in prop::collection::vec(any::<u8>(), 0..1200)) {
        if let Ok((h, _)) = RecordHeader::ref_from_prefix(&b) {
            let _ = (h.verify(&UUID), h.header_blocks(), h.data_blocks());
        }
        let _ = checksum_matches(&b, &d);
        let _ = unpack(&b, &mut d);
        let mut heads = b.clone();
        let _ = pack(&mut heads, &mut d, 3);
        assert!(Ops::new(&b, u32::MAX).count() <= b.len() / 12 + 1);
        let _ = efi_item(&b);
        let _ = inode_item(&b);
        let _ = buf_item(&b).map(|(_, m)| buf_runs(m));
        let _ = intent_extents::<MapExtent>(&b).map(|(f, _)| f.as_bytes().len());
        let _ = ItemType::of(&b);
    }
}
