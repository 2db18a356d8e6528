//! Log records, the items in them, and metadumps.

use super::Input;
use crate::memory::Memory;
use libxfsr::dump::{read_dump, restore};
use libxfsr::format::log::items::{
    self, AttrOp, BmapOp, BuiFormat, CuiFormat, DoneFormat, ItemHead, ItemType, MapExtent, PhysExtent, RefcountOp,
    RmapOp, TransactionHeader,
};
use libxfsr::format::log::{
    HEADER_MAGIC, LOG_BLOCK, Ops, RecordHeader, checksum_matches, cycle_word, pack, seal_record, unpack,
};
use libxfsr::format::metadump::{BLOCK, ExtentHeader, HeaderV2, Index};
use zerocopy::FromBytes;

/// Most bytes of a record's headers and data that are looked at.
const MOST: usize = 1 << 20;

/// A log record: its headers, then its data.
pub(super) fn record(input: &Input<'_>) {
    let data = input.bytes;
    let data = &data[..data.len().min(MOST)];
    let Ok((header, _)) = RecordHeader::read_from_prefix(data) else { return };
    let _ = header.verify(&header.fs_uuid);
    let mut sound = header;
    sound.magicno.set(HEADER_MAGIC);
    let verdict = sound.verify(&header.fs_uuid);
    let _ = (header.lsn(), header.data_blocks(), cycle_word(data, usize::MAX));
    // What cannot be right may say any size; a reader stops there.
    if verdict.is_err() {
        return;
    }
    let at = sound.header_blocks() as usize * LOG_BLOCK;
    let (Some(headers), Some(body)) = (data.get(..at), data.get(at..)) else { return };
    let (mut headers, mut body) = (headers.to_vec(), body.to_vec());
    body.truncate(sound.len.get() as usize);
    let _ = checksum_matches(&headers, &body);
    seal_record(&mut headers, &body);
    assert!(checksum_matches(&headers, &body), "a sealed record");
    let packed = body.clone();
    if unpack(&headers, &mut body) {
        operations(&body, header.num_logops.get());
        let cycle = packed.first_chunk::<4>().map_or(0, |b| u32::from_be_bytes(*b));
        let _ = pack(&mut headers, &mut body, cycle);
    }
}

fn operations(data: &[u8], count: u32) {
    let mut n = 0;
    for op in Ops::new(data, count) {
        n += 1;
        let Ok((header, region)) = op else { break };
        let _ = header.flags();
        regions(region);
    }
    assert!(n <= data.len() / 12 + 1, "{n} operations in {} bytes", data.len());
}

/// A region that may begin an item.
pub(super) fn item(input: &Input<'_>) {
    let data = input.bytes;
    regions(data);
    if let Some((first, rest)) = data.split_first() {
        // Each type in turn sees the same bytes.
        let mut region = rest.to_vec();
        let kind = ItemType::ALL[usize::from(*first) % ItemType::ALL.len()];
        if let Some(head) = region.first_chunk_mut::<2>() {
            *head = [kind as u16 as u8, (kind as u16 >> 8) as u8];
        }
        regions(&region);
    }
}

fn regions(region: &[u8]) {
    let _ = (TransactionHeader::read_from_prefix(region), ItemHead::read_from_prefix(region));
    let Some(kind) = ItemType::of(region) else { return };
    assert!(kind.is_intent() == kind.done().is_some());
    let maps = |region: &[u8]| {
        for e in items::intent_extents::<MapExtent>(region).map(|(_, e)| e).unwrap_or(&[]) {
            let flags = e.flags.get();
            let _ = (RmapOp::from_flags(flags), BmapOp::from_flags(flags), AttrOp::from_flags(flags));
        }
    };
    match kind {
        ItemType::Buf => {
            if let Ok((format, map)) = items::buf_item(region) {
                let runs = items::buf_runs(map);
                let set: u32 = map.iter().map(|w| w.get().count_ones()).sum();
                assert_eq!(runs.iter().map(|r| r.1).sum::<usize>(), set as usize, "runs of a buffer's map");
                let _ = (format.flags(), format.block_type());
            }
        }
        ItemType::Inode => drop(items::inode_item(region)),
        ItemType::Efi | ItemType::Efd | ItemType::EfiRt | ItemType::EfdRt => {
            if let Ok((_, extents)) = items::efi_item(region) {
                assert!(extents.len() <= region.len() / 12, "more extents than there is room for");
            }
        }
        ItemType::Rui | ItemType::RuiRt => maps(region),
        ItemType::Bui => {
            let _ = BuiFormat::read_from_prefix(region);
            maps(region);
        }
        ItemType::Cui | ItemType::CuiRt => {
            let _ = CuiFormat::read_from_prefix(region);
            for e in items::intent_extents::<PhysExtent>(region).map(|(_, e)| e).unwrap_or(&[]) {
                let _ = RefcountOp::from_flags(e.flags.get());
            }
        }
        ItemType::Attri => {
            let _ = items::AttriFormat::read_from_prefix(region).map(|(f, _)| AttrOp::from_flags(f.op_flags.get()));
        }
        ItemType::Icreate => drop(items::IcreateFormat::read_from_prefix(region)),
        ItemType::Dquot => drop(items::DquotFormat::read_from_prefix(region)),
        ItemType::Xmi => drop(items::XmiFormat::read_from_prefix(region)),
        _ => drop(DoneFormat::read_from_prefix(region)),
    }
}

/// A metadump of either version: indexes and blocks, or headers and extents, to the end.
pub(super) fn metadump(input: &Input<'_>) {
    let data = input.bytes;
    let mut pieces = 0;
    let _ = read_dump(&mut &*data, &mut |_, _, bytes| {
        pieces += bytes.len();
        Ok(())
    });
    assert!(pieces <= data.len(), "more blocks than bytes");
    let devices = [(); 3].map(|()| Memory::new(1 << 40));
    let _ = restore(&mut &*data, &devices[0], Some(&devices[1]), Some(&devices[2]), &libxfsr::control::Control::none());
    let mut at = 0;
    while let Ok(index) = Index::from_bytes(data.get(at..).unwrap_or(&[])) {
        let _ = (index.info, index.daddrs.iter().map(|d| d.get() >> 1).max());
        if index.is_last() {
            break;
        }
        at += BLOCK * (1 + index.daddrs.len());
    }
    let Ok((header, mut rest)) = HeaderV2::ref_from_prefix(data) else { return };
    let _ = header.verify();
    while let Ok((extent, more)) = ExtentHeader::ref_from_prefix(rest) {
        let Ok(_) = extent.place() else { break };
        let length = (extent.len.get() as usize).saturating_mul(BLOCK);
        let Some(next) = more.get(length..) else { break };
        rest = next;
    }
}
