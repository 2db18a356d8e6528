//! Targets of symbolic links that do not fit into the inode: blocks of the data fork, each with a header that says which part of
//! the target it holds. Book: chapter "Symbolic Links".

use super::part::{self, PartHeader, payload};
use super::{BlockType, Context, lsn_at};
use crate::error::{Corruption, Rule, Verdict};
use std::mem::offset_of;

/// `XSLM`.
pub const MAGIC: u32 = 0x5853_4c4d;
/// Longest target.
pub const MAX_TARGET: u32 = 1024;

fn verify(bytes: &[u8], at: &Context<'_>) -> Verdict {
    const N: &str = "symlink";
    let h = part::verify(N, (MAGIC, MAX_TARGET), bytes, at)?;
    let bad = |field, rule| Corruption::new(N, field, rule).at_daddr(at.daddr);
    if h.owner.get() == 0 && !at.owner_judged {
        return Err(bad("owner", Rule::Owner).found(0).expected("an inode"));
    }
    if payload(bytes).is_some_and(|(_, target)| target.contains(&0)) {
        return Err(bad("target", Rule::Name).found("a zero byte").expected("none inside the target"));
    }
    Ok(())
}

/// One filesystem block of a link's target.
pub static SYMLINK: BlockType = BlockType {
    name: "symlink",
    log_type: 9,
    lsn: |b| lsn_at(b, offset_of!(PartHeader, lsn)),
    verify,
    seal: part::seal,
};

#[cfg(test)]
mod tests {
    use super::{PartHeader, SYMLINK, payload};
    use crate::format::Context;
    use crate::geometry::test_geometry;
    use crate::units::{Daddr, Lsn};
    use proptest::prelude::{any, prop, proptest};
    use zerocopy::FromBytes;

    fn block(target: &[u8]) -> Vec<u8> {
        let mut b = vec![0; 4096];
        let h = PartHeader::mut_from_prefix(&mut b).expect("long enough").0;
        h.magic.set(super::MAGIC);
        h.bytes.set(target.len() as u32);
        h.uuid = test_geometry().meta_uuid;
        h.owner.set(140);
        h.blkno.set(96);
        b[56..56 + target.len()].copy_from_slice(target);
        (SYMLINK.seal)(&mut b, Lsn(3));
        b
    }

    fn code(b: &[u8]) -> Option<String> {
        (SYMLINK.verify)(b, &Context::new(&test_geometry(), Daddr(96))).err().map(|c| c.code())
    }

    #[test]
    fn targets_are_checked() {
        let good = block(b"a/b/c");
        assert_eq!(code(&good), None);
        assert_eq!(payload(&good), Some((0, &b"a/b/c"[..])));
        for (want, offset, value) in [
            ("symlink.magic.magic", 0, 0),
            ("symlink.bytes.range", 10, 0xff),
            ("symlink.offset.range", 6, 4),
            ("symlink.owner.owner", 39, 0),
            ("symlink.target.name", 57, 0),
            ("symlink.bno.address", 47, 0),
        ] {
            let mut b = good.clone();
            b[offset] = value;
            (SYMLINK.seal)(&mut b, Lsn(3));
            assert_eq!(code(&b).as_deref(), Some(want));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut b in prop::collection::vec(any::<u8>(), 0..200), sound in any::<bool>()) {
            if sound && b.len() >= 56 {
                b[..12].copy_from_slice(&block(b"x")[..12]);
                b[16..48].copy_from_slice(&block(b"x")[16..48]);
                (SYMLINK.seal)(&mut b, Lsn(3));
            }
            code(&b);
            let _ = payload(&b);
        }
    }
}
