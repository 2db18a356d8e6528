//! The internal rules of an item: lengths and counts of its regions.

use crate::error::{Corruption, Rule, Verdict};
use crate::format::log::items::{
    AttrOp, AttriFormat, BUF_CHUNK, BmapFlags, BmapOp, BufFlags, DoneFormat, DquotFormat, ExchangeFlags, IcreateFormat,
    ItemType, LogDinode, MapExtent, PhysExtent, QuotaoffFormat, RefcountOp, RmapFlags, RmapOp, XmiFormat, buf_item,
    buf_runs, efi_item, inode_item, intent_extents,
};
use crate::format::quota::DiskDquot;
use zerocopy::FromBytes;

fn bad(field: &'static str, rule: Rule) -> Box<Corruption> {
    Corruption::new("log", field, rule)
}

fn whole<T>(field: &'static str, region: &[u8]) -> Verdict {
    if region.len() == size_of::<T>() {
        return Ok(());
    }
    let found = format_args!("a region of {} bytes", region.len());
    Err(bad(field, Rule::Range).found(found).expected(size_of::<T>()))
}

/// Checks a word of flags with a kind of change in its low byte.
fn known(field: &'static str, flags: u32, kind: bool, others: u32) -> Verdict {
    if kind && flags & !(0xff | others) == 0 {
        return Ok(());
    }
    Err(bad(field, Rule::Flags).found(format_args!("{flags:#x}")).expected("a known kind and known flags"))
}

/// Checks an item: that its regions are as many and as long as its format says, and that its codes are known.
///
/// # Errors
/// The first broken rule.
pub(super) fn verify_item(kind: ItemType, regions: &[Vec<u8>]) -> Verdict {
    let Some((first, rest)) = regions.split_first() else { return Err(bad("size", Rule::Range).found(0)) };
    let alone = || {
        if rest.is_empty() { Ok(()) } else { Err(bad("size", Rule::Count).found(regions.len()).expected(1)) }
    };
    match kind {
        ItemType::Buf => buffer(first, rest),
        ItemType::Inode => inode(first, rest),
        ItemType::Dquot => {
            DquotFormat::ref_from_bytes(first).map_err(|_| bad("dquot", Rule::Truncated).found(first.len()))?;
            match rest {
                [record] if record.len() >= size_of::<DiskDquot>() => Ok(()),
                _ => Err(bad("dquot", Rule::Count).found(rest.len()).expected("one region with the record")),
            }
        }
        ItemType::Quotaoff => whole::<QuotaoffFormat>("quotaoff", first).and_then(|()| alone()),
        ItemType::Icreate => whole::<IcreateFormat>("icreate", first).and_then(|()| alone()),
        ItemType::Efi | ItemType::Efd | ItemType::EfiRt | ItemType::EfdRt => {
            efi_item(first)?;
            alone()
        }
        ItemType::Rui | ItemType::RuiRt => {
            let (_, extents) = intent_extents::<MapExtent>(first)?;
            for e in extents {
                let flags = e.flags.get();
                known("rui", flags, RmapOp::from_flags(flags).is_some(), RmapFlags::all().bits())?;
            }
            alone()
        }
        ItemType::Cui | ItemType::CuiRt => {
            let (_, extents) = intent_extents::<PhysExtent>(first)?;
            for e in extents {
                known("cui", e.flags.get(), RefcountOp::from_flags(e.flags.get()).is_some(), 0)?;
            }
            alone()
        }
        ItemType::Bui => {
            let (_, extents) = intent_extents::<MapExtent>(first)?;
            for e in extents {
                let flags = e.flags.get();
                known("bui", flags, BmapOp::from_flags(flags).is_some(), BmapFlags::all().bits())?;
            }
            alone()
        }
        ItemType::Attri => attribute(first, rest),
        ItemType::Xmi => exchange(first).and_then(|()| alone()),
        ItemType::Rud
        | ItemType::RudRt
        | ItemType::Cud
        | ItemType::CudRt
        | ItemType::Bud
        | ItemType::Attrd
        | ItemType::Xmd => whole::<DoneFormat>("done", first).and_then(|()| alone()),
        ItemType::Iunlink => Err(bad("item", Rule::Flags).found("iunlink").expected("a type that is still written")),
    }
}

/// The chunks that the map names are what the regions hold; one run of chunks may be cut into several.
fn buffer(first: &[u8], rest: &[Vec<u8>]) -> Verdict {
    let (format, map) = buf_item(first)?;
    if format.flags().contains(BufFlags::CANCEL) {
        return Ok(());
    }
    let chunks: usize = buf_runs(map).iter().map(|(_, n)| n).sum();
    let bytes: usize = rest.iter().map(Vec::len).sum();
    if chunks * BUF_CHUNK != bytes {
        return Err(bad("buf", Rule::Count).found(format_args!("{bytes} bytes")).expected(chunks * BUF_CHUNK));
    }
    Ok(())
}

fn inode(first: &[u8], rest: &[Vec<u8>]) -> Verdict {
    let format = inode_item(first)?;
    let Some(core) = rest.first() else { return Err(bad("inode", Rule::Count).found(1).expected("2 to 4 regions")) };
    if rest.len() > 3 {
        return Err(bad("inode", Rule::Count).found(rest.len() + 1).expected("2 to 4 regions"));
    }
    let (core, _) = LogDinode::ref_from_prefix(core).map_err(|_| bad("inode", Rule::Truncated).found(core.len()))?;
    if core.magic.get() != crate::format::inode::MAGIC {
        return Err(bad("inode", Rule::Magic).found(format_args!("{:#x}", core.magic.get())));
    }
    if core.version >= 3 && core.ino.get() != format.ino.get() {
        return Err(bad("ino", Rule::Mismatch).found(core.ino.get()).expected(format.ino.get()));
    }
    Ok(())
}

fn exchange(first: &[u8]) -> Verdict {
    let format = XmiFormat::ref_from_bytes(first).map_err(|_| bad("xmi", Rule::Truncated).found(first.len()))?;
    let flags = format.flags.get();
    if ExchangeFlags::from_bits(flags).is_none() {
        return Err(bad("xmi", Rule::Flags).found(format_args!("{flags:#x}")).expected("known flags"));
    }
    Ok(())
}

/// The name, then a new name, value and new value, each where it has a length. Only the sum of regions is certain from the
/// numbers in the head.
fn attribute(first: &[u8], rest: &[Vec<u8>]) -> Verdict {
    let format = AttriFormat::ref_from_bytes(first).map_err(|_| bad("attri", Rule::Truncated).found(first.len()))?;
    let op = AttrOp::from_flags(format.op_flags.get());
    known("attri", format.op_flags.get(), op.is_some(), 0)?;
    let (name, other) = match op {
        Some(AttrOp::PptrReplace) => (format.name_len.get() & 0xffff, format.name_len.get() >> 16),
        _ => (format.name_len.get(), 0),
    };
    // Regions are padded to four bytes.
    let holds = |region: Option<&Vec<u8>>, length: u32| {
        region.is_some_and(|r| r.len() >= length as usize && r.len() - (length as usize) < 4)
    };
    let regions = 1 + usize::from(other > 0);
    if !holds(rest.first(), name) || other > 0 && !holds(rest.get(1), other) {
        return Err(bad("name_len", Rule::Range).found(format.name_len.get()).expected("the length of its region"));
    }
    if format.value_len.get() > 0 && !holds(rest.get(regions), format.value_len.get()) {
        return Err(bad("value_len", Rule::Range).found(format.value_len.get()).expected("the length of its region"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::verify_item;
    use crate::error::Rule;
    use crate::format::log::items::{AttriFormat, BuiFormat, ItemType, MapExtent, PhysExtent, XmiFormat};
    use zerocopy::{FromZeros, IntoBytes};

    /// An intent with one change that has these flags.
    fn intent<E: FromZeros + IntoBytes + zerocopy::Immutable>(kind: ItemType, set: impl Fn(&mut E)) -> Vec<Vec<u8>> {
        let mut head = BuiFormat::new_zeroed();
        head.kind.set(kind as u16);
        head.size.set(1);
        head.nextents.set(1);
        let mut extent = E::new_zeroed();
        set(&mut extent);
        vec![[head.as_bytes(), extent.as_bytes()].concat()]
    }

    #[test]
    fn unknown_flags_of_intents_are_told() {
        use ItemType::{Attri, Bui, Cui, Rui, Xmi};
        let map = |kind, flags: u32| (kind, intent::<MapExtent>(kind, |e| e.flags.set(flags)));
        let count = |flags: u32| (Cui, intent::<PhysExtent>(Cui, |e| e.flags.set(flags)));
        let exchange = |flags: u64| {
            let mut x = XmiFormat::new_zeroed();
            x.flags.set(flags);
            (Xmi, vec![x.as_bytes().to_vec()])
        };
        let attribute = |flags: u32| {
            let mut a = AttriFormat::new_zeroed();
            a.op_flags.set(flags);
            (Attri, vec![a.as_bytes().to_vec(), Vec::new()])
        };
        let good = [map(Rui, 0xe000_0008), map(Bui, 0xe000_0002), count(4), exchange(0x1f), attribute(2)];
        for (kind, regions) in good {
            assert_eq!(verify_item(kind, &regions), Ok(()), "{kind:?}");
        }
        let kinds = [map(Rui, 9), map(Bui, 3), count(5), attribute(7)];
        let flags = [map(Rui, 0x101), map(Bui, 0x1000_0001), count(0x8000_0001), exchange(0x20), attribute(0x101)];
        for (kind, regions) in kinds.into_iter().chain(flags) {
            assert_eq!(verify_item(kind, &regions).unwrap_err().rule, Rule::Flags, "{kind:?}");
        }
    }
}
