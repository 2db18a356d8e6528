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
