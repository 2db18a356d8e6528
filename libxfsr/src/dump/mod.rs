//! Whole metadumps: each block of version 1 and each extent of version 2 in order, and a filesystem restored from them.

use crate::control::Control;
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::metadump::{
    BLOCK, CompatV2, DEVICE_SHIFT, ExtentHeader, HeaderV2, IncompatV2, Index, InfoV1, MAGIC_V1, MAGIC_V2,
};
use crate::target::Target;
use crate::units::{Daddr, Device};
use std::io::{ErrorKind, Read};
use zerocopy::FromBytes;
use zerocopy::big_endian::U32;

/// Bytes that one piece of a dump is read in.
const PIECE: usize = 1 << 20;

/// How a dump was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Header {
    /// Version 1.
    V1(InfoV1),
    /// Version 2.
    V2(CompatV2, IncompatV2),
}

/// What was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Dumped {
    /// How it was made.
    pub header: Header,
    /// Indices of version 1, or extents of version 2.
    pub parts: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
}

/// Receives a piece of a dump: the device, the address on it, and the bytes, a multiple of 512.
pub type EachPiece<'a> = &'a mut dyn FnMut(Device, Daddr, &[u8]) -> Result<()>;

fn bad(field: &'static str, rule: Rule) -> Box<Corruption> {
    Corruption::new("metadump", field, rule)
}

fn failed(e: std::io::Error) -> Error {
    match e.kind() {
        ErrorKind::UnexpectedEof => bad("length", Rule::Truncated).found("the end in the middle of a part").into(),
        _ => Error::open("metadump", e),
    }
}

/// Whether the input is at its end; otherwise the first bytes of the next part are in `buf`.
fn at_end(from: &mut dyn Read, buf: &mut [u8]) -> Result<bool> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|r| !r.is_empty()) {
        match from.read(rest) {
            Ok(0) if filled == 0 => return Ok(true),
            Ok(0) => return Err(bad("length", Rule::Truncated).found("the end in the middle of a part").into()),
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(false)
}

/// Reads a dump of either version from its start and hands over its pieces in the dump's order.
///
/// # Errors
/// [`Error::Corrupt`] for a dump that breaks a rule or ends early; what `each` returns.
pub fn read_dump(from: &mut dyn Read, each: EachPiece<'_>) -> Result<Dumped> {
    let mut magic = [0; 4];
    from.read_exact(&mut magic).map_err(failed)?;
    match U32::from_bytes(magic).get() {
        MAGIC_V1 => version_1(from, magic, each),
        MAGIC_V2 => version_2(from, magic, each),
        other => Err(bad("magic", Rule::Magic).found(format_args!("{other:#x}")).expected("XFSM or XMD2").into()),
    }
}

fn version_1(from: &mut dyn Read, magic: [u8; 4], each: EachPiece<'_>) -> Result<Dumped> {
    let mut index = [0; BLOCK];
    let (first, rest) = index.split_at_mut(4);
    first.copy_from_slice(&magic);
    from.read_exact(rest).map_err(failed)?;
    let mut dumped: Option<Dumped> = None;
    loop {
        let head = Index::from_bytes(&index)?;
        let info = head.info;
        let seen = dumped.get_or_insert(Dumped { header: Header::V1(info), parts: 0, blocks: 0 });
        if seen.header != Header::V1(info) {
            return Err(bad("mb_info", Rule::Mismatch).found(info.bits()).into());
        }
        // The superblock comes first, so that a reader knows at once what it has.
        if seen.parts == 0 && head.daddrs.first().is_none_or(|d| d.get() != 0) {
            return Err(bad("daddr", Rule::Missing).expected("the superblock as the first block").into());
        }
        for d in head.daddrs {
            let mut block = [0; BLOCK];
            from.read_exact(&mut block).map_err(failed)?;
            if d.get() >> DEVICE_SHIFT != 0 {
                return Err(bad("daddr", Rule::Range).found(d.get()).into());
            }
            each(Device::Data, Daddr(d.get()), &block)?;
            seen.blocks += 1;
        }
        seen.parts += 1;
        let result = *seen;
        if head.is_last() || at_end(from, &mut index)? {
            return Ok(result);
        }
    }
}

fn version_2(from: &mut dyn Read, magic: [u8; 4], each: EachPiece<'_>) -> Result<Dumped> {
    let mut head = [0; size_of::<HeaderV2>()];
    let (first, rest) = head.split_at_mut(4);
    first.copy_from_slice(&magic);
    from.read_exact(rest).map_err(failed)?;
    let header = HeaderV2::read_from_bytes(&head).map_err(|_| bad("header", Rule::Truncated))?;
    let (compat, incompat) = header.verify()?;
    let mut dumped = Dumped { header: Header::V2(compat, incompat), parts: 0, blocks: 0 };
    let mut extent = [0; size_of::<ExtentHeader>()];
    let mut buf = vec![0; PIECE];
    while !at_end(from, &mut extent)? {
        let extent = ExtentHeader::read_from_bytes(&extent).map_err(|_| bad("extent", Rule::Truncated))?;
        let (device, mut at) = extent.place()?;
        if dumped.parts == 0 && (device, at) != (Device::Data, Daddr(0)) {
            return Err(bad("xme_addr", Rule::Missing).expected("the superblock as the first extent").into());
        }
        let allowed = match device {
            Device::Data => true,
            Device::Log => compat.contains(CompatV2::EXTERNAL_LOG),
            Device::Realtime => incompat.contains(IncompatV2::RT_DEVICE),
        };
        if !allowed {
            return Err(bad("xme_addr", Rule::Flags)
                .found(format_args!("{device:?}"))
                .expected("a device of the header")
                .into());
        }
        let mut left = u64::from(extent.len.get());
        while left > 0 {
            let n = left.min((PIECE / BLOCK) as u64);
            let piece = buf.get_mut(..n as usize * BLOCK).unwrap_or(&mut []);
            from.read_exact(piece).map_err(failed)?;
            each(device, at, piece)?;
            at = Daddr(at.0.checked_add(n).ok_or_else(|| bad("xme_addr", Rule::Range).found(extent.addr.get()))?);
            left -= n;
        }
        dumped.parts += 1;
        dumped.blocks += u64::from(extent.len.get());
    }
    Ok(dumped)
}

/// Restores a dump to targets, which must be large enough; what the dump does not hold is left as it is.
///
/// The sector of the primary superblock is wiped first and written last, behind a flush: a restore that was cut off does not
/// look like a filesystem.
///
/// Tells `control` how many blocks of 512 bytes have been restored: how many there will be, the dump does not say before its end.
///
/// # Errors
/// As [`read_dump`]; [`Error::MissingDevice`]; [`Error::Io`]; [`Error::Stopped`] between two pieces.
pub fn restore(
    from: &mut dyn Read,
    data: &dyn Target,
    log: Option<&dyn Target>,
    realtime: Option<&dyn Target>,
    control: &Control<'_>,
) -> Result<Dumped> {
    let mut blocks = 0u64;
    let mut superblock: Option<Vec<u8>> = None;
    let dumped = read_dump(from, &mut |device, at, bytes| {
        control.check()?;
        control.tell("restore", blocks, None);
        blocks = blocks.saturating_add((bytes.len() / BLOCK) as u64);
        let target = match device {
            Device::Data => Some(data),
            Device::Log => log,
            Device::Realtime => realtime,
        };
        let target = target.ok_or(Error::MissingDevice { device })?;
        let offset = at.0.checked_mul(BLOCK as u64).ok_or_else(|| bad("xme_addr", Rule::Range).found(at))?;
        if let (Device::Data, 0, Some((first, rest))) = (device, offset, bytes.split_at_checked(BLOCK)) {
            superblock = Some(first.to_vec());
            data.write_at(&[0; BLOCK], 0)?;
            data.flush()?;
            return if rest.is_empty() { Ok(()) } else { data.write_at(rest, BLOCK as u64) };
        }
        target.write_at(bytes, offset)
    })?;
    for target in [Some(data), log, realtime].into_iter().flatten() {
        target.flush()?;
    }
    if let Some(bytes) = superblock {
        data.write_at(&bytes, 0)?;
        data.flush()?;
    }
    Ok(dumped)
}

#[cfg(test)]
mod tests {
    use super::{Header, read_dump, restore};
    use crate::Error;
    use crate::control::Control;
    use crate::format::metadump::{BLOCK, CompatV2, ExtentHeader, HeaderV2, IncompatV2, InfoV1, index_block};
    use crate::target::{Target, Xfile};
    use crate::units::{Daddr, Device};
    use proptest::prelude::{any, prop, proptest};
    use zerocopy::IntoBytes;

    fn version_1(blocks: u64) -> Vec<u8> {
        let daddrs: Vec<Daddr> = (0..blocks).map(|i| Daddr(i * 3)).collect();
        let mut dump = Vec::new();
        let mut chunks: Vec<&[Daddr]> = daddrs.chunks(63).collect();
        // An index that is not full ends the dump, so a full last one is followed by an empty one.
        if blocks.is_multiple_of(63) {
            chunks.push(&[]);
        }
        for chunk in chunks {
            dump.extend(index_block(InfoV1::VALID, chunk).expect("at most 63"));
            for d in chunk {
                dump.extend([d.0 as u8; BLOCK]);
            }
        }
        dump
    }

    fn version_2() -> Vec<u8> {
        let mut dump =
            HeaderV2::new(CompatV2::EXTERNAL_LOG | CompatV2::DIRTY_LOG, IncompatV2::RT_DEVICE).as_bytes().to_vec();
        for (device, at, blocks) in
            [(Device::Data, 0, 1), (Device::Data, 80, 3000), (Device::Log, 5, 2), (Device::Realtime, 0, 8)]
        {
            dump.extend(ExtentHeader::new(device, Daddr(at), blocks).expect("small").as_bytes());
            dump.extend(vec![at as u8 + 1; blocks as usize * BLOCK]);
        }
        dump
    }

    #[test]
    fn all_blocks_of_version_1_are_listed() {
        for blocks in [1, 62, 63, 64, 126, 200] {
            let mut seen = Vec::new();
            let dumped = read_dump(&mut &version_1(blocks)[..], &mut |device, at, bytes| {
                assert_eq!((device, bytes), (Device::Data, &[at.0 as u8; BLOCK][..]));
                seen.push(at.0);
                Ok(())
            })
            .expect("own");
            assert_eq!(seen, (0..blocks).map(|i| i * 3).collect::<Vec<_>>());
            assert_eq!((dumped.header, dumped.blocks), (Header::V1(InfoV1::VALID), blocks));
        }
    }

    #[test]
    fn version_2_goes_to_its_devices() {
        let dump = version_2();
        let make = || {
            let x = Xfile::new("target").expect("memory");
            x.set_len(2 << 20).expect("memory");
            x
        };
        let (data, log, rt) = (make(), make(), make());
        let dumped = restore(&mut &dump[..], &data, Some(&log), Some(&rt), &Control::none()).expect("own");
        assert_eq!((dumped.parts, dumped.blocks), (4, 1 + 3000 + 2 + 8));
        let byte = |t: &Xfile, at: u64| {
            let mut b = [0];
            t.read_at(&mut b, at * BLOCK as u64).expect("inside");
            b[0]
        };
        assert_eq!((byte(&data, 0), byte(&data, 1), byte(&data, 80), byte(&data, 3079)), (1, 0, 81, 81));
        assert_eq!((byte(&log, 5), byte(&log, 6), byte(&log, 7), byte(&rt, 7)), (6, 6, 0, 1));
        let e = restore(&mut &dump[..], &data, None, Some(&rt), &Control::none()).expect_err("no log was given");
        assert!(matches!(e, Error::MissingDevice { device: Device::Log }), "{e}");
    }

    #[test]
    fn dumps_that_end_early_or_lie_are_refused() {
        let code = |dump: &[u8]| match read_dump(&mut &dump[..], &mut |_, _, _| Ok(())) {
            Err(crate::Error::Corrupt(c)) => c.code(),
            other => panic!("{other:?}"),
        };
        let (one, two) = (version_1(70), version_2());
        for end in [2, 300, 520, 63 * 512 + 513, one.len() - 1] {
            assert_eq!(code(&one[..end]), "metadump.length.truncated", "version 1 cut at {end}");
        }
        for end in [10, 30, 24 + 12 + 100, two.len() - 1] {
            assert_eq!(code(&two[..end]), "metadump.length.truncated", "version 2 cut at {end}");
        }
        let changed = |dump: &[u8], at: usize, value: u8| {
            let mut d = dump.to_vec();
            d[at] = value;
            d
        };
        assert_eq!(code(&changed(&one, 0, 0)), "metadump.magic.magic");
        assert_eq!(code(&changed(&one, 15, 1)), "metadump.daddr.missing");
        assert_eq!(code(&changed(&one, 64 * 512 + 7, 0)), "metadump.mb_info.mismatch");
        assert_eq!(code(&changed(&two, 11, 0)), "metadump.xme_addr.flags");
        assert_eq!(code(&changed(&two, 24 + 7, 9)), "metadump.xme_addr.missing");
        assert_eq!(code(&changed(&two, 24 + 11, 0)), "metadump.xme_len.range");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut b in prop::collection::vec(any::<u8>(), 0..3000), which in 0..3) {
            let magic: &[u8] = [&b""[..], b"XFSM\0\x05\x09\x01", b"XMD2\0\0\0\x02"][which as usize];
            b.splice(..magic.len().min(b.len()), magic.iter().copied());
            let _ = read_dump(&mut &b[..], &mut |_, _, _| Ok(()));
        }
    }

    #[test]
    fn a_restore_that_is_cut_off_leaves_no_superblock() {
        let dump = version_2();
        let target = Xfile::new("restore").expect("memory");
        target.set_len(4 << 20).expect("length");
        target.write_at(&[7; BLOCK], 0).expect("old");
        restore(&mut dump.get(..dump.len() / 2).expect("half"), &target, None, None, &Control::none())
            .expect_err("cut off");
        let mut first = [1; BLOCK];
        target.read_at(&mut first, 0).expect("read");
        assert_eq!(first, [0; BLOCK]);
    }
}
