use super::{
    ATTR_ANY, ATTR_LEAF, ATTR_REMOTE, AttrFlags, AttrLeaf, ShortAttrs, Value, block_type_of, hash_attr, parent_hash,
    verify_short,
};
use crate::error::Severity;
use crate::format::features::Incompat;
use crate::format::{Context, da, part};
use crate::geometry::{Geometry, test_geometry};
use crate::units::{Daddr, Ino, Lsn};
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use zerocopy::IntoBytes;
use zerocopy::big_endian::{U16, U32, U64};

const AT: Daddr = Daddr(96);

fn geometry() -> Geometry {
    let mut g = test_geometry();
    g.features.incompat |= Incompat::PARENT;
    g
}

fn put(bytes: &mut [u8], offset: usize, v: impl IntoBytes + zerocopy::Immutable) {
    let v = v.as_bytes();
    bytes[offset..offset + v.len()].copy_from_slice(v);
}

/// A leaf with `user` attributes of local value, and one remote one.
fn leaf(g: &Geometry) -> Vec<u8> {
    let mut b = vec![0; 4096];
    put(&mut b, 8, U16::new(super::LEAF_MAGIC));
    put(&mut b, 16, U64::new(AT.0));
    b[32..48].copy_from_slice(&g.meta_uuid);
    put(&mut b, 48, U64::new(131));
    let local = [&[0, 3, 2][..], b"abXYZ"].concat();
    let remote = [&[0, 0, 0, 1, 0, 0, 0x13, 0x88, 3][..], b"big"].concat();
    b[4088..4096].copy_from_slice(&local);
    b[4072..4084].copy_from_slice(&remote);
    let mut entries = [(da::hash_name(b"ab"), 4088u16, 1u8), (da::hash_name(b"big"), 4072, 0)];
    entries.sort_unstable();
    for (i, (h, n, f)) in entries.iter().enumerate() {
        put(&mut b, 80 + i * 8, U32::new(*h));
        put(&mut b, 84 + i * 8, U16::new(*n));
        b[86 + i * 8] = *f;
    }
    put(&mut b, 56, [U16::new(2), U16::new(24), U16::new(4072)]);
    put(&mut b, 64, [U16::new(96), U16::new(4072 - 96)]);
    (ATTR_LEAF.seal)(&mut b, Lsn(9));
    b
}

fn code(g: &Geometry, b: &[u8]) -> Option<String> {
    (ATTR_ANY.verify)(b, &Context::new(g, AT)).err().map(|c| c.code())
}

#[test]
fn a_leaf_reads_back_and_its_damage_is_named() {
    let g = geometry();
    let good = leaf(&g);
    assert_eq!(code(&g, &good), None);
    let l = AttrLeaf::from_bytes(&good).expect("long enough");
    let all: Vec<_> = l.attrs().map(|a| a.map(|a| (a.name.to_vec(), a.value))).collect();
    assert!(all.contains(&Ok((b"ab".to_vec(), Value::Local(b"XYZ")))));
    assert!(all.contains(&Ok((b"big".to_vec(), Value::Remote { block: 1, length: 5000 }))));
    assert_eq!(l.find(da::hash_name(b"ab")).count(), 1);
    let of = |n| (ATTR_ANY.verify)(&good, &Context::new(&g, AT).owned_by(Ino(n))).map_err(|c| c.code());
    assert_eq!((of(131), of(132)), (Ok(()), Err("attrleaf.owner.owner".into())));
    let cases: [(&str, usize, u8); 12] = [
        ("attrleaf.uuid.uuid", 40, 1),
        ("attrleaf.bno.address", 23, 1),
        ("attrleaf.count.range", 56, 9),
        ("attrleaf.usedbytes.count", 59, 4),
        ("attrleaf.firstused.range", 60, 0x1f),
        ("attrleaf.nameidx.range", 61, 0x10),
        ("attrleaf.hashval.mismatch", 83, 1),
        ("attrleaf.hashval.order", 80, 0xff),
        ("attrleaf.flags.flags", 86, 0x20),
        ("attrleaf.flags.flags", 86, 6),
        ("attrleaf.freemap.range", 65, 1),
        ("attrleaf.valueblk.range", 4075, 1),
    ];
    for (want, offset, flip) in cases {
        let mut b = good.clone();
        b[offset] ^= flip;
        (ATTR_LEAF.seal)(&mut b, Lsn(9));
        assert_eq!(code(&g, &b).as_deref(), Some(want), "byte {offset}");
    }
    assert_eq!(l.odd_free_map(), None);
    // Into the entries, and into a name.
    for (offset, flip) in [(65, 0x20), (67, 4)] {
        let mut b = good.clone();
        b[offset] ^= flip;
        (ATTR_LEAF.seal)(&mut b, Lsn(9));
        assert_eq!(code(&g, &b), None);
        let odd = AttrLeaf::from_bytes(&b).and_then(|l| l.odd_free_map()).expect("a range in use");
        assert_eq!((odd.code().as_str(), odd.severity), ("attrleaf.freemap.overlap", Severity::Preen));
    }
    let mut b = good;
    b[3000] ^= 1;
    assert_eq!(code(&g, &b).as_deref(), Some("attrleaf.crc.crc"));
}

#[test]
fn remote_values_are_checked() {
    let g = geometry();
    assert_eq!((part::blocks(&g, 4040), part::blocks(&g, 4041), part::blocks(&g, 65536)), (1, 2, 17));
    let mut b = vec![0xaa; 4096];
    put(&mut b, 0, [U32::new(super::REMOTE_MAGIC), U32::new(4040), U32::new(960)]);
    b[16..32].copy_from_slice(&g.meta_uuid);
    put(&mut b, 32, [U64::new(131), U64::new(AT.0)]);
    (ATTR_REMOTE.seal)(&mut b, Lsn(9));
    assert_eq!(code(&g, &b), None);
    assert_eq!(part::payload(&b).map(|(o, v)| (o, v.len())), Some((4040, 960)));
    let at = Context::new(&g, AT);
    assert_eq!((ATTR_ANY.verify)(&b, &at.owned_by(Ino(131))), Ok(()));
    assert_eq!(
        (ATTR_ANY.verify)(&b, &at.owned_by(Ino(132))).map_err(|e| e.code()),
        Err("attrremote.owner.owner".into())
    );
    for (want, offset, value) in
        [("attrremote.bytes.range", 10, 0xff), ("attrremote.offset.range", 7, 1), ("attrremote.bno.address", 47, 1)]
    {
        let mut bad = b.clone();
        bad[offset] = value;
        (ATTR_REMOTE.seal)(&mut bad, Lsn(9));
        assert_eq!(code(&g, &bad).as_deref(), Some(want));
    }
    // Kernels before 4.3 stamped the LSN of a transaction.
    put(&mut b, 48, U64::new(0x1_0000_0020));
    crate::format::seal_checksum(&mut b, 12);
    assert_eq!(code(&g, &b), None);
}

#[test]
fn short_forms_and_parent_pointers() {
    let g = geometry();
    let parent = [0u8, 0, 0, 0, 0, 0, 0, 128, 0, 0, 0, 7];
    let good = [&[0, 27, 2, 0, 2, 2, 0][..], b"abXY", &[1, 12, 8], b"f", &parent[..], &[0xee; 9]].concat();
    assert_eq!(verify_short(&good, Ino(131), &g), Ok(()));
    let all: Vec<_> = ShortAttrs::new(&good).map(|a| a.map(|a| (a.name, a.value, a.flags))).collect();
    assert_eq!(all, [Ok((&b"ab"[..], &b"XY"[..], AttrFlags::empty())), Ok((b"f", &parent[..], AttrFlags::PARENT))]);
    assert_eq!(hash_attr(&g, AttrFlags::PARENT, b"f", &parent), Some(u32::from(b'f') ^ 128));
    assert_eq!(parent_hash(&g, b"f", Ino(0x1_0000_0080)), u32::from(b'f') ^ 128 ^ 1);
    for (offset, value, want) in [
        (1, 28, "xattr.totsize.mismatch"),
        (1, 99, "xattr.totsize.range"),
        (2, 3, "xattr.list.truncated"),
        (4, 0, "xattr.namelen.range"),
        (6, 1, "xattr.flags.flags"),
        (6, 6, "xattr.flags.flags"),
        (7, 0, "xattr.name.name"),
        (14, b'/', "xattr.name.name"),
        (22, 1, "xattr.parent.range"),
    ] {
        let mut b = good.clone();
        b[offset] = value;
        assert_eq!(verify_short(&b, Ino(131), &g).map_err(|e| e.code()), Err(want.to_owned()), "byte {offset}");
    }
    assert_eq!(verify_short(&good, Ino(131), &test_geometry()).map_err(|e| e.code()), Err("xattr.flags.flags".into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn no_bytes_make_it_panic(mut b in prop::collection::vec(any::<u8>(), 0..500), kind in 0u8..3, count in 0u8..9) {
        let g = geometry();
        if b.len() >= 80 {
            if kind == 0 {
                let head = leaf(&g);
                b[..56].copy_from_slice(&head[..56]);
                b[56..58].copy_from_slice(&[0, count]);
                b[60..62].copy_from_slice(&[0, 80 + count * 8]);
            } else if kind == 1 {
                b[..4].copy_from_slice(b"XARM");
                b[4..8].fill(0);
                b[8..10].fill(0);
                b[16..32].copy_from_slice(&g.meta_uuid);
                b[40..48].copy_from_slice(&AT.0.to_be_bytes());
            }
            if let Some(t) = block_type_of(&b) {
                (t.seal)(&mut b, Lsn(0));
            }
        }
        let at = Context::new(&g, AT);
        let _ = (ATTR_ANY.verify)(&b, &at);
        let _ = (ATTR_LEAF.verify)(&b, &at);
        let _ = (ATTR_REMOTE.verify)(&b, &at);
        let _ = part::payload(&b);
        let _ = verify_short(&b, Ino(131), &g);
        if let Some(l) = AttrLeaf::from_bytes(&b) {
            let _ = l.attrs().count();
        }
    }
}
