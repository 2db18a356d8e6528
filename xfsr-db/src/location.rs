//! Where the session stands: what is read there, and as what it is understood.

use libxfsr::units::{Daddr, Ino};

/// How the current bytes are understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Type {
    Agf,
    Agfl,
    Agi,
    Attr3,
    Bmapbta,
    Bmapbtd,
    Bnobt,
    Cntbt,
    Rmapbt,
    Refcntbt,
    Data,
    Dir3,
    Dqblk,
    Finobt,
    Inobt,
    Inodata,
    Inode,
    Log,
    Rtbitmap,
    Rtsummary,
    Sb,
    Symlink,
    Text,
}

/// All types with their names.
pub(crate) const TYPES: &[(&str, Type)] = &[
    ("agf", Type::Agf),
    ("agfl", Type::Agfl),
    ("agi", Type::Agi),
    ("attr3", Type::Attr3),
    ("bmapbta", Type::Bmapbta),
    ("bmapbtd", Type::Bmapbtd),
    ("bnobt", Type::Bnobt),
    ("cntbt", Type::Cntbt),
    ("rmapbt", Type::Rmapbt),
    ("refcntbt", Type::Refcntbt),
    ("data", Type::Data),
    ("dir3", Type::Dir3),
    ("dqblk", Type::Dqblk),
    ("inobt", Type::Inobt),
    ("inodata", Type::Inodata),
    ("inode", Type::Inode),
    ("log", Type::Log),
    ("rtbitmap", Type::Rtbitmap),
    ("rtsummary", Type::Rtsummary),
    ("sb", Type::Sb),
    ("symlink", Type::Symlink),
    ("text", Type::Text),
    ("finobt", Type::Finobt),
];

impl Type {
    pub(crate) fn name(self) -> &'static str {
        TYPES.iter().find(|t| t.1 == self).map_or("data", |t| t.0)
    }
    pub(crate) fn parse(name: &str) -> Option<Self> {
        TYPES.iter().find(|t| t.0 == name).map(|t| t.1)
    }
    /// Bytes of a structure of which a block holds several, so that its checksum does not cover the rest.
    pub(crate) fn part(self, bytes: &[u8]) -> &[u8] {
        match self {
            Self::Dqblk => bytes.get(..libxfsr::format::quota::SLOT_SIZE).unwrap_or(bytes),
            _ => bytes,
        }
    }
    /// Offset of the checksum in a structure of this type.
    pub(crate) fn crc_offset(self, bytes: &[u8]) -> Option<usize> {
        Some(match self {
            Self::Sb => 224,
            Self::Agf => 216,
            Self::Agi => 312,
            Self::Agfl => 32,
            Self::Inode => libxfsr::format::inode::CRC_OFFSET,
            Self::Bnobt | Self::Cntbt | Self::Inobt | Self::Finobt | Self::Rmapbt | Self::Refcntbt => 52,
            Self::Bmapbta | Self::Bmapbtd => 64,
            Self::Symlink => 12,
            Self::Dir3 | Self::Attr3 => match bytes.first_chunk::<4>() {
                Some(b"XDB3" | b"XDD3" | b"XDF3") => 4,
                _ => 12,
            },
            Self::Dqblk => std::mem::offset_of!(libxfsr::format::quota::DquotSlot, crc),
            Self::Data | Self::Inodata | Self::Log | Self::Rtbitmap | Self::Rtsummary | Self::Text => return None,
        })
    }
}

/// A position.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    pub(crate) kind: Type,
    /// The buffer: address and length in 512-byte units.
    pub(crate) daddr: Daddr,
    pub(crate) sectors: u32,
    /// Where in the buffer the structure begins.
    pub(crate) offset: u64,
    /// The structure.
    pub(crate) bytes: Vec<u8>,
    /// The current inode.
    pub(crate) ino: Option<Ino>,
    /// The last directory that was the current inode.
    pub(crate) dir: Option<Ino>,
    /// Where the buffer lies, if not in one piece.
    pub(crate) scattered: Vec<(Daddr, u32)>,
}

impl Location {
    /// Byte address on the device.
    pub(crate) fn byte(&self) -> u64 {
        self.daddr.bytes() + self.offset
    }
    /// Where the buffer lies.
    pub(crate) fn pieces(&self) -> Vec<(Daddr, u32)> {
        if self.scattered.is_empty() { vec![(self.daddr, self.sectors)] } else { self.scattered.clone() }
    }
}

/// The positions that were visited, to go back and forth. Each has a place that keeps its number; the oldest makes room for the newest.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    entries: Vec<Location>,
    newest: usize,
    at: usize,
}

/// Positions that are remembered.
const RING: usize = 20;

impl Ring {
    /// Puts a position behind the current one: in the place of what one would go forward to, where there is such.
    pub(crate) fn add(&mut self, l: &Location) {
        let is_newest = self.entries.is_empty() || self.at == self.newest;
        let next = if self.entries.is_empty() { 0 } else { (self.at + 1) % RING };
        match self.entries.get_mut(next) {
            Some(place) => *place = l.clone(),
            None => self.entries.push(l.clone()),
        }
        self.at = next;
        if is_newest {
            self.newest = next;
        }
    }

    /// The position before or behind the current one, which it becomes.
    pub(crate) fn step(&mut self, forward: bool) -> Option<&Location> {
        let count = self.entries.len().max(1);
        let end = if forward { self.newest } else { (self.newest + 1) % count };
        if self.at == end {
            return None;
        }
        self.go(if forward { (self.at + 1) % count } else { (self.at + count - 1) % count })
    }

    /// The position of this number, which becomes the current one.
    pub(crate) fn go(&mut self, to: usize) -> Option<&Location> {
        let found = self.entries.get(to)?;
        self.at = to;
        Some(found)
    }

    /// All, newest first: number, whether it is the current one, position.
    pub(crate) fn all(&self) -> impl Iterator<Item = (usize, bool, &Location)> {
        let count = self.entries.len();
        let numbers = (0..count).map(move |i| (self.newest + count - i) % count);
        numbers.filter_map(|n| Some((n, n == self.at, self.entries.get(n)?)))
    }
}
