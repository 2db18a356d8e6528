//! Items of every type, as their layouts say: also those that no kernel at hand writes.

use super::{Detail, buffer_name, detail::detail};
use crate::format::log::items::{
    AttriFormat, BuiFormat, CuiFormat, DoneFormat, EfiExtent, EfiFormat, IcreateFormat, ItemType, MapExtent,
    PhysExtent, QuotaoffFormat, XmiFormat,
};
use zerocopy::{FromZeros as _, IntoBytes as _};

const ID: u64 = 0xffff_8885_1234_5670;

fn json(d: &Detail) -> String {
    // What programs print of it.
    format!("{d:?}")
}

fn with<T: zerocopy::IntoBytes + zerocopy::Immutable>(head: &[u8], extents: &[T]) -> Vec<Vec<u8>> {
    vec![[head, extents.as_bytes()].concat()]
}

fn map_extent(flags: u32) -> MapExtent {
    let mut e = MapExtent::new_zeroed();
    e.owner.set(-5i64 as u64);
    e.startblock.set(1000);
    e.startoff.set(77);
    e.len.set(3);
    e.flags.set(flags);
    e
}

#[test]
fn intents_of_every_type_say_what_they_are() {
    for kind in [ItemType::Efi, ItemType::Efd, ItemType::EfiRt, ItemType::EfdRt] {
        let mut f = EfiFormat::new_zeroed();
        f.id.set(ID);
        f.nextents.set(2);
        let mut e = EfiExtent::new_zeroed();
        e.start.set(9);
        e.len.set(4);
        let Detail::Free { id, extents } = detail(kind, &with(f.as_bytes(), &[e, e])) else { panic!("{kind:?}") };
        assert_eq!((id, extents.len(), extents[1].start, extents[1].blocks), (ID, 2, 9, 4));
    }
    let mut f = BuiFormat::new_zeroed();
    f.id.set(ID);
    f.nextents.set(1);
    for (kind, flags, operation, names) in [
        (ItemType::Rui, 1 << 31 | 6, "convertshared", "attr_fork"),
        (ItemType::RuiRt, 1 << 29 | 7, "alloc", "unwritten"),
        (ItemType::Bui, 1 << 29 | 2, "unmap", "realtime"),
        (ItemType::Bui, 0x200 | 1, "map", "0x200"),
        (ItemType::Rui, 99, "0x63", ""),
    ] {
        let Detail::Changes { id, changes } = detail(kind, &with(f.as_bytes(), &[map_extent(flags)])) else {
            panic!("{kind:?}")
        };
        let c = &changes[0];
        assert_eq!((id, c.operation.as_str(), c.flags.join(" ").as_str()), (ID, operation, names), "{kind:?}");
        assert_eq!((c.owner, c.offset, c.start, c.blocks), (Some(-5), Some(77), 1000, 3), "{kind:?}");
    }
    let mut f = CuiFormat::new_zeroed();
    f.nextents.set(1);
    for kind in [ItemType::Cui, ItemType::CuiRt] {
        let mut e = PhysExtent::new_zeroed();
        e.flags.set(4);
        let Detail::Changes { changes, .. } = detail(kind, &with(f.as_bytes(), &[e])) else { panic!("{kind:?}") };
        assert_eq!((changes[0].operation.as_str(), changes[0].owner), ("freecow", None));
    }
    let mut f = XmiFormat::new_zeroed();
    f.ino1.set(131);
    f.blockcount.set(8);
    f.flags.set(0b10010);
    let Detail::Exchange { ino1: 131, blocks: 8, flags, .. } = detail(ItemType::Xmi, &[f.as_bytes().to_vec()]) else {
        panic!("an exchange")
    };
    assert_eq!(flags, ["set_sizes", "clear_ino2_reflink"]);
    let mut f = AttriFormat::new_zeroed();
    f.op_flags.set(6);
    f.name_len.set(5 << 16 | 3);
    f.igen.set(7);
    f.attr_filter.set(8);
    // A region is padded, and a name from a disk is escaped.
    let regions = [f.as_bytes().to_vec(), b"a\x1bb\0".to_vec(), b"other\0\0\0".to_vec()];
    let Detail::Attribute { operation, name, new_name, generation, flags, .. } = detail(ItemType::Attri, &regions)
    else {
        panic!("an attribute")
    };
    assert_eq!((operation.as_str(), name.as_str(), new_name.as_deref()), ("pptrreplace", "a\\x1bb", Some("other")));
    assert_eq!((generation, flags), (Some(7), vec!["parent".to_owned()]));
    let mut f = DoneFormat::new_zeroed();
    f.id.set(ID);
    use ItemType::{Attrd, Bud, Cud, CudRt, Rud, RudRt, Xmd};
    for kind in [Rud, RudRt, Cud, CudRt, Bud, Attrd, Xmd] {
        assert_eq!(detail(kind, &[f.as_bytes().to_vec()]), Detail::Done { id: ID }, "{kind:?}");
    }
    let mut f = QuotaoffFormat::new_zeroed();
    f.flags.set(3);
    assert_eq!(detail(ItemType::Quotaoff, &[f.as_bytes().to_vec()]), Detail::Quotaoff { flags: 3 });
    let mut f = IcreateFormat::new_zeroed();
    f.count.set(64);
    let made = detail(ItemType::Icreate, &[f.as_bytes().to_vec()]);
    assert!(matches!(made, Detail::Icreate { count: 64, .. }), "{}", json(&made));
}

#[test]
fn what_is_too_short_is_unknown() {
    for kind in ItemType::ALL {
        for regions in [vec![], vec![vec![]], vec![vec![0xff; 3]], vec![vec![0xff; 15], vec![]]] {
            assert_eq!(detail(kind, &regions), Detail::Unknown {}, "{kind:?} {regions:?}");
        }
        // Counts that no region has room for.
        let made = detail(kind, &[vec![0xff; 4000], vec![0xff; 10]]);
        assert!(json(&made).len() < 1000, "{kind:?}: {}", json(&made));
    }
    assert_eq!((buffer_name(5), buffer_name(20), buffer_name(31)), ("agf", "rtsummary", "unknown"));
}
