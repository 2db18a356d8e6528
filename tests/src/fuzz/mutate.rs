//! Structure-aware damage: the metadata blocks of an image are found, changed, and sealed again.

use super::kind_of;
use crate::memory::Memory;
use anyhow::{Context as _, Result};
use libxfsr::cache::OnDamage;
use libxfsr::error::ForkKind;
use libxfsr::format::inode::{Dinode, MAGIC as INODE_MAGIC};
use libxfsr::format::log::{HEADER_MAGIC, LOG_BLOCK, RecordHeader, seal_record};
use libxfsr::format::quota::{DquotSlot, MAGIC as DQUOT_MAGIC, SLOT_SIZE};
use libxfsr::format::realtime::{RtSuperblock, SUPER_MAGIC};
use libxfsr::format::superblock::{CRC_OFFSET, Superblock};
use libxfsr::format::{checksum, seal_checksum, stored_checksum};
use libxfsr::geometry::Geometry;
use libxfsr::inode::Inode;
use libxfsr::target::Target;
use libxfsr::units::{FsBlock, Ino};
use libxfsr::volume::Volume;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;
use std::sync::Arc;
use zerocopy::FromBytes;

/// Bytes of a log record that are one piece at most.
const MAX_RECORD: usize = 64 << 10;
/// Blocks of a realtime bitmap or summary that are taken.
const MAX_BARE: u64 = 64;

/// How a piece's checksum is made right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// It has none.
    No,
    /// It stands there.
    At(usize),
    /// Each quota record of the block has its own.
    Slots,
    /// That of a log record.
    Record,
}

/// A piece of metadata in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub name: &'static str,
    /// Where it lies.
    pub offset: u64,
    /// Its length.
    pub length: usize,
    /// Its checksum.
    pub seal: Seal,
    /// Whether it lies on the realtime device.
    pub rt: bool,
}

/// An image and where its metadata is.
#[derive(Debug)]
pub struct Base {
    /// Its bytes.
    pub memory: Memory,
    /// Those of its realtime device, where that has metadata.
    pub rt: Option<Memory>,
    /// Its numbers.
    pub geometry: &'static Geometry,
    /// Its metadata, by address.
    pub pieces: Vec<Piece>,
}

impl Base {
    /// Finds the metadata of an image: what carries a magic number and the right checksum.
    pub fn new(memory: Memory, rt: Option<Memory>) -> Result<Base> {
        let mut sector = [0; 512];
        memory.read_at(&mut sector, 0)?;
        let (sb, _) = Superblock::read_from_prefix(&sector).ok().context("a superblock")?;
        // One for each image of a test: never many.
        let geometry: &'static Geometry = Box::leak(Box::new(Geometry::new(&sb)?));
        let mut pieces = BTreeMap::new();
        let (block, sector) = (u64::from(geometry.block_size), u64::from(geometry.sector_size));
        let log = geometry.fsblock_to_daddr(geometry.log_start).filter(|_| geometry.log_start.0 != 0);
        let log = log.map_or(0..0, |d| d.bytes()..d.bytes() + u64::from(geometry.log_blocks) * block);
        let mut bytes = vec![0; geometry.dir_block_size.max(geometry.block_size) as usize];
        for page in memory.pages() {
            for offset in (page..page + 4096).step_by(512) {
                let length = bytes.len().min((memory.len() - offset) as usize);
                let bytes = &mut bytes[..length];
                memory.read_at(bytes, offset)?;
                if let Some(piece) = piece(bytes, offset, geometry, log.contains(&offset), (block, sector)) {
                    pieces.insert(offset, piece);
                }
            }
        }
        for piece in bare(&memory)? {
            pieces.insert(piece.offset, piece);
        }
        let mut pieces: Vec<Piece> = pieces.into_values().collect();
        if let Some(rt) = &rt {
            let mut bytes = [0; 4];
            rt.read_at(&mut bytes, 0)?;
            let length = geometry.block_size as usize;
            anyhow::ensure!(u32::from_be_bytes(bytes) == SUPER_MAGIC, "no realtime superblock");
            let seal = Seal::At(offset_of!(RtSuperblock, crc));
            pieces.push(Piece { name: "rgsuper", offset: 0, length, seal, rt: true });
        }
        Ok(Base { memory, rt, geometry, pieces })
    }

    /// The device that a piece lies on.
    fn device(&self, piece: &Piece) -> &Memory {
        self.rt.as_ref().filter(|_| piece.rt).unwrap_or(&self.memory)
    }

    /// A piece of one of the kinds that there are. Rare kinds are as likely as those of which there are thousands.
    pub fn pick(&self, kind: u8, number: u8) -> Option<&Piece> {
        let names: BTreeSet<&str> = self.pieces.iter().map(|p| p.name).collect();
        let name = names.iter().nth(usize::from(kind) % names.len().max(1))?;
        let of_kind: Vec<&Piece> = self.pieces.iter().filter(|p| p.name == *name).collect();
        of_kind.get(usize::from(number) * 257 % of_kind.len()).copied()
    }

    /// The bytes of a piece.
    pub fn bytes(&self, piece: &Piece) -> Vec<u8> {
        let mut bytes = vec![0; piece.length];
        self.device(piece).read_at(&mut bytes, piece.offset).expect("found there");
        bytes
    }
}

/// Blocks of bitmap and summary of a realtime section without groups, which carry no magic number.
fn bare(memory: &Memory) -> Result<Vec<Piece>> {
    let mut all = Vec::new();
    let volume = Volume::from_targets(Arc::new(memory.clone()), None, None, 1 << 20)?;
    let (g, sb) = (&volume.geometry, &volume.superblock);
    if g.rt_blocks == 0 || g.features.metadir() {
        return Ok(all);
    }
    for (name, ino) in [("rtbitmap-bare", sb.rbmino.get()), ("rtsummary-bare", sb.rsumino.get())] {
        let extents = Inode::read(&volume, Ino(ino), OnDamage::Fail)?.extents(&volume, ForkKind::Data)?;
        for block in extents.iter().flat_map(|e| e.start..e.start + e.count.min(MAX_BARE)) {
            let offset = g.fsblock_to_daddr(FsBlock(block)).context("a block of the volume")?.bytes();
            all.push(Piece { name, offset, length: g.block_size as usize, seal: Seal::No, rt: false });
        }
    }
    Ok(all)
}

fn piece(bytes: &[u8], offset: u64, g: &Geometry, log: bool, (block, sector): (u64, u64)) -> Option<Piece> {
    let sound = |name, length: u32, crc| {
        let bytes = bytes.get(..length as usize)?;
        (stored_checksum(bytes, crc) == checksum(bytes, crc)).then_some(Piece {
            name,
            offset,
            length: bytes.len(),
            seal: Seal::At(crc),
            rt: false,
        })
    };
    if log {
        let header = RecordHeader::read_from_prefix(bytes).ok()?.0;
        if header.magicno.get() != HEADER_MAGIC || header.verify(&header.fs_uuid).is_err() {
            return None;
        }
        let length = header.header_blocks() as usize * LOG_BLOCK + header.len.get() as usize;
        return Some(Piece { name: "log", offset, length: length.min(MAX_RECORD), seal: Seal::Record, rt: false });
    }
    if bytes.starts_with(&DQUOT_MAGIC.to_be_bytes()) && offset.is_multiple_of(block) {
        let slot = bytes.get(..SLOT_SIZE)?;
        let crc = offset_of!(DquotSlot, crc);
        let sound = stored_checksum(slot, crc) == checksum(slot, crc);
        return sound.then_some(Piece { name: "dquot", offset, length: block as usize, seal: Seal::Slots, rt: false });
    }
    if bytes.starts_with(b"XFSB") && offset.is_multiple_of(sector) {
        return sound("sb", g.sector_size, CRC_OFFSET);
    }
    if bytes.starts_with(&INODE_MAGIC.to_be_bytes()) && offset.is_multiple_of(g.inode_size.into()) {
        return sound("inode", g.inode_size, offset_of!(Dinode, crc));
    }
    let stamp = kind_of(bytes)?;
    if stamp.sector {
        return sound(stamp.kind.name, g.sector_size, stamp.crc).filter(|_| offset.is_multiple_of(sector));
    }
    if !offset.is_multiple_of(block) {
        return None;
    }
    // A node is a directory's or an attribute fork's: its checksum tells how long it is.
    sound(stamp.kind.name, g.block_size, stamp.crc).or_else(|| sound(stamp.kind.name, g.dir_block_size, stamp.crc))
}

const INTERESTING: [u64; 12] =
    [0, 1, 2, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0xffff_fffe, 0x8000_0000, u64::MAX, i64::MAX as u64];

/// One change of a piece's bytes, described by eight bytes as a fuzzer gives them: what, where, with what. `other` is another piece,
/// to copy from.
pub fn change(bytes: &mut [u8], edit: &[u8; 8], other: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let [what, place_low, place_high, width, value @ ..] = *edit;
    let value = u32::from_be_bytes(value);
    // Half of the changes fall into the first 128 bytes, where headers are.
    let reach = if place_high & 0x80 == 0 { bytes.len().min(128) } else { bytes.len() };
    let at = (usize::from(place_high & 0x7f) << 8 | usize::from(place_low)) % reach;
    let width = (1usize << (width % 4)).min(bytes.len() - at);
    let at = at / width * width;
    let field = &mut bytes[at..at + width];
    let number = |n: u64| n.to_be_bytes()[8 - width..].to_vec();
    let old = field.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
    match what % 8 {
        0 => field[0] = value as u8,
        1 => field[value as usize / 8 % width] ^= 1 << (value % 8),
        2 => field.copy_from_slice(&number(old.wrapping_add(u64::from(value % 64)).wrapping_sub(32))),
        3 => field.copy_from_slice(&number(INTERESTING[value as usize % INTERESTING.len()])),
        4 => field.copy_from_slice(&number(u64::from(value))),
        5 => {
            // A field of the same piece, such as a pointer to a sibling or to itself.
            let from = value as usize % (bytes.len() - width + 1) / width * width;
            bytes.copy_within(from..from + width, at);
        }
        6 => {
            // A field of another piece, at the same place.
            if let Some(from) = other.get(at..at + width) {
                field.copy_from_slice(from);
            }
        }
        _ => {
            // A run of another piece.
            let n = (value as usize % 512).min(bytes.len() - at).min(other.len().saturating_sub(at));
            if let Some(from) = other.get(at..at + n) {
                bytes[at..at + n].copy_from_slice(from);
            }
        }
    }
}

/// Makes a piece's checksum right.
pub fn seal(piece: &Piece, bytes: &mut [u8]) {
    match piece.seal {
        Seal::No => {}
        Seal::At(crc) => seal_checksum(bytes, crc),
        Seal::Slots => {
            bytes.chunks_exact_mut(SLOT_SIZE).for_each(|slot| seal_checksum(slot, offset_of!(DquotSlot, crc)));
        }
        Seal::Record => {
            let Ok((header, _)) = RecordHeader::read_from_prefix(bytes) else { return };
            // What cannot be a header says nothing of where the data begins.
            let sound = header.verify(&header.fs_uuid).is_ok();
            let at = header.header_blocks() as usize * LOG_BLOCK;
            if let Some((headers, data)) = bytes.split_at_mut_checked(at).filter(|_| sound) {
                let end = data.len().min(header.len.get() as usize);
                seal_record(headers, &data[..end]);
            }
        }
    }
}
