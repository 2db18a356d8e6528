//! The internal rules of an item: lengths and counts of its regions.

use crate::error::{Corruption, Rule, Verdict};
use crate::format::log::items::{
    AttrOp, AttriFormat, BUF_CHUNK, BmapOp, BufFlags, DoneFormat, DquotFormat, IcreateFormat, ItemType, LogDinode,
    MapExtent, PhysExtent, QuotaoffFormat, RefcountOp, RmapOp, XmiFormat, buf_item, buf_runs, efi_item, inode_item,
    intent_extents,
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

fn known(field: &'static str, flags: u32, known: bool) -> Verdict {
    if known { Ok(()) } else { Err(bad(field, Rule::Flags).found(format_args!("{flags:#x}")).expected("a known kind")) }
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
                known("rui", e.flags.get(), RmapOp::from_flags(e.flags.get()).is_some())?;
            }
            alone()
        }
        ItemType::Cui | ItemType::CuiRt => {
            let (_, extents) = intent_extents::<PhysExtent>(first)?;
            for e in extents {
                known("cui", e.flags.get(), RefcountOp::from_flags(e.flags.get()).is_some())?;
            }
            alone()
        }
        ItemType::Bui => {
            let (_, extents) = intent_extents::<MapExtent>(first)?;
            for e in extents {
                known("bui", e.flags.get(), BmapOp::from_flags(e.flags.get()).is_some())?;
            }
            alone()
        }
        ItemType::Attri => attribute(first, rest),
        ItemType::Xmi => whole::<XmiFormat>("xmi", first).and_then(|()| alone()),
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

/// The name, then a new name, value and new value, each where it has a length. Only the sum of regions is certain from the
/// numbers in the head.
fn attribute(first: &[u8], rest: &[Vec<u8>]) -> Verdict {
    let format = AttriFormat::ref_from_bytes(first).map_err(|_| bad("attri", Rule::Truncated).found(first.len()))?;
    let op = AttrOp::from_flags(format.op_flags.get());
    known("attri", format.op_flags.get(), op.is_some())?;
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
