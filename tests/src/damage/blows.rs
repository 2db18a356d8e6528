//! Damage to whole blocks, which are found by their magic.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, ensure};
use rand::seq::IndexedRandom as _;
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Patch, Workbench};

/// What is done to a whole block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// All zero.
    Zero,
    /// Random bytes.
    Noise,
    /// Random bytes behind the magic, and a right CRC.
    SealedNoise,
    /// A single bit flipped, and a right CRC.
    SealedBit,
    /// The contents of another block of the list.
    Swap,
}

/// A metadata block found by its magic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What its magic says.
    pub name: &'static str,
    /// Where it is, in bytes.
    pub offset: u64,
    /// Bytes that its CRC covers.
    pub length: usize,
    /// Where the CRC stands in it.
    pub crc: usize,
}

pub(super) struct Kind {
    pub(super) name: &'static str,
    crc: usize,
    /// 0 a sector, 1 a block, 2 a directory block.
    unit: u8,
}

/// Tells a block's type by its magic.
pub(super) fn kind(head: &[u8]) -> Option<Kind> {
    let short: &[(&[u8], &str, usize, u8)] = &[
        (b"XFSB", "sb", 224, 0),
        (b"XAGF", "agf", 216, 0),
        (b"XAGI", "agi", 312, 0),
        (b"XAFL", "agfl", 32, 0),
        (b"AB3B", "bnobt", 52, 1),
        (b"AB3C", "cntbt", 52, 1),
        (b"IAB3", "inobt", 52, 1),
        (b"FIB3", "finobt", 52, 1),
        (b"RMB3", "rmapbt", 52, 1),
        (b"R3FC", "refcntbt", 52, 1),
        (b"BMA3", "bmbt", 64, 1),
        (b"XDB3", "dir block", 4, 2),
        (b"XDD3", "dir data", 4, 2),
        (b"XDF3", "dir free", 4, 2),
        (b"XARM", "attr remote", 12, 1),
        (b"XSLM", "symlink remote", 12, 1),
    ];
    let long: &[(&[u8], &str, usize, u8)] = &[
        (&[0x3e, 0xbe], "da node", 12, 2),
        (&[0x3b, 0xee], "attr leaf", 12, 1),
        (&[0x3d, 0xf1], "dir leaf1", 12, 2),
        (&[0x3d, 0xff], "dir leafn", 12, 2),
    ];
    let find = |table: &[(&[u8], &'static str, usize, u8)], at: usize| {
        let row = table.iter().find(|(magic, ..)| head.get(at..).is_some_and(|h| h.starts_with(magic)))?;
        Some(Kind { name: row.1, crc: row.2, unit: row.3 })
    };
    find(short, 0).or_else(|| find(long, 8))
}

impl Workbench {
    /// The metadata blocks of the image by their magic. A da node may belong to a directory or to attributes, which have
    /// other lengths where directory blocks are large; the one whose CRC is right is taken.
    pub fn blocks(&self) -> Result<Vec<Block>> {
        let mut sb = [0; 512];
        self.pristine.read_exact_at(&mut sb, 0)?;
        let number = |at: usize, n: usize| sb[at..at + n].iter().fold(0_usize, |a, b| a << 8 | usize::from(*b));
        let (sector, block) = (number(102, 2), number(4, 4));
        ensure!(sector > 0 && block >= sector, "no superblock");
        let directory = block << sb[192];
        let mut all = Vec::new();
        let mut bytes = vec![0; directory];
        for (start, length) in &self.data {
            // The headers of an AG stand in its first sectors, everything else at blocks.
            let first = start / sector as u64 * sector as u64;
            for offset in (first..start + length).step_by(sector) {
                let mut head = [0; 16];
                self.pristine.read_exact_at(&mut head, offset)?;
                let Some(kind) = kind(&head) else { continue };
                if kind.unit > 0 && offset % block as u64 != 0 {
                    continue;
                }
                for length in BTreeSet::from([[sector, block, directory][usize::from(kind.unit)], block.max(sector)]) {
                    let bytes = &mut bytes[..length];
                    if self.pristine.read_exact_at(bytes, offset).is_ok()
                        && libxfsr::format::stored_checksum(bytes, kind.crc)
                            == libxfsr::format::checksum(bytes, kind.crc)
                    {
                        all.push(Block { name: kind.name, offset, length, crc: kind.crc });
                        break;
                    }
                }
            }
        }
        Ok(all)
    }

    /// What a blow to the block `index` of `blocks` changes.
    pub fn blow(&self, blocks: &[Block], index: usize, blow: Blow, seed: u64) -> Result<Patch> {
        let block = blocks.get(index).context("no such block")?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ block.offset);
        let mut old = vec![0; block.length];
        self.pristine.read_exact_at(&mut old, block.offset)?;
        let mut new = old.clone();
        match blow {
            Blow::Zero => new.fill(0),
            Blow::Noise => rng.fill_bytes(&mut new),
            Blow::SealedNoise => {
                // The magic stands in the first 16 bytes of every type.
                rng.fill_bytes(&mut new[16..]);
                libxfsr::format::seal_checksum(&mut new, block.crc);
            }
            Blow::SealedBit => {
                let bit = rng.next_u64() as usize % (block.length * 8);
                new[bit / 8] ^= 1 << (bit % 8);
                libxfsr::format::seal_checksum(&mut new, block.crc);
            }
            Blow::Swap => {
                let others: Vec<&Block> =
                    blocks.iter().filter(|b| b.length == block.length && b.offset != block.offset).collect();
                let other = others.choose(&mut rng).context("no other block of that length")?;
                self.pristine.read_exact_at(&mut new, other.offset)?;
            }
        }
        Ok(if old == new { Patch::default() } else { Patch { runs: vec![(block.offset, old, new)] } })
    }
}
