//! Names of blocks.

use crate::error::Result;
use crate::units::Daddr;

/// Number of a target in a cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TargetId(pub u8);

/// Where a block lies on its target: address and length in 512-byte units.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Parts {
    /// In one piece.
    One(Daddr, u32),
    /// In pieces: only directory blocks larger than a filesystem block.
    Many(Box<[(Daddr, u32)]>),
}

/// Names a block.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BlockKey {
    /// The target.
    pub target: TargetId,
    /// Where on it.
    pub parts: Parts,
}

/// Hashes for tables of blocks: a few multiplications with a number that nobody who makes an image knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        // Odd, so that nothing is lost by multiplication.
        Self(RandomState::new().hash_one(0) | 1)
    }
}

impl std::hash::BuildHasher for Seeded {
    type Hasher = SeededHasher;
    fn build_hasher(&self) -> SeededHasher {
        SeededHasher { seed: self.0, state: 0 }
    }
}

/// See [`Seeded`].
pub(super) struct SeededHasher {
    seed: u64,
    state: u64,
}

impl SeededHasher {
    fn mix(&mut self, v: u64) {
        let product =
            u128::from(self.state ^ v ^ self.seed).wrapping_mul(u128::from(self.seed ^ 0x9e37_79b9_7f4a_7c15));
        let (high, low) = ((product >> 64) as u64, product as u64);
        self.state = high ^ low.rotate_left(23);
    }
}

impl std::hash::Hasher for SeededHasher {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            self.mix(part.iter().fold(0, |v, b| v << 8 | u64::from(*b)));
        }
    }
    fn write_u8(&mut self, v: u8) {
        self.mix(v.into());
    }
    fn write_u32(&mut self, v: u32) {
        self.mix(v.into());
    }
    fn write_u64(&mut self, v: u64) {
        self.mix(v);
    }
    fn write_usize(&mut self, v: usize) {
        self.mix(v as u64);
    }
    fn finish(&self) -> u64 {
        self.state
    }
}

impl BlockKey {
    /// A block in one piece.
    pub fn one(target: TargetId, daddr: Daddr, sectors: u32) -> Self {
        Self { target, parts: Parts::One(daddr, sectors) }
    }
    /// A block in pieces; neighbouring pieces are joined.
    pub fn many(target: TargetId, pieces: impl IntoIterator<Item = (Daddr, u32)>) -> Self {
        let mut joined: Vec<(Daddr, u32)> = Vec::new();
        for (daddr, n) in pieces {
            match joined.last_mut() {
                Some((d, m)) if d.0 + u64::from(*m) == daddr.0 => *m += n,
                _ => joined.push((daddr, n)),
            }
        }
        let parts = match *joined {
            [(daddr, n)] => Parts::One(daddr, n),
            _ => Parts::Many(joined.into()),
        };
        Self { target, parts }
    }
    /// The address that the block itself carries: that of its first piece.
    pub fn daddr(&self) -> Daddr {
        match &self.parts {
            Parts::One(d, _) => *d,
            Parts::Many(p) => p.first().map_or(Daddr(0), |p| p.0),
        }
    }
    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        match &self.parts {
            Parts::One(_, n) => *n as usize * 512,
            Parts::Many(p) => p.iter().map(|p| p.1 as usize * 512).sum(),
        }
    }
    /// Hands each piece of `bytes` with its address to `each`.
    pub(super) fn split(&self, bytes: &[u8], mut each: impl FnMut(&[u8], Daddr) -> Result<()>) -> Result<()> {
        match &self.parts {
            Parts::One(d, _) => each(bytes, *d),
            Parts::Many(p) => {
                let mut rest = bytes;
                for (d, n) in p {
                    let (head, tail) = rest.split_at(rest.len().min(*n as usize * 512));
                    each(head, *d)?;
                    rest = tail;
                }
                Ok(())
            }
        }
    }
    /// As [`Self::split`], to fill.
    pub(super) fn split_mut(
        &self,
        bytes: &mut [u8],
        mut each: impl FnMut(&mut [u8], Daddr) -> Result<()>,
    ) -> Result<()> {
        match &self.parts {
            Parts::One(d, _) => each(bytes, *d),
            Parts::Many(p) => {
                let mut rest = bytes;
                for (d, n) in p {
                    let (head, tail) = rest.split_at_mut(rest.len().min(*n as usize * 512));
                    each(head, *d)?;
                    rest = tail;
                }
                Ok(())
            }
        }
    }
}
