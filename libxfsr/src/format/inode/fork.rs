//! What the inode's forks hold: extent records, or the root of a btree.

use super::{Dinode, Format};
use crate::error::{Corruption, ForkKind, Rule};
use crate::format::btree::{BmbtRec, Extent, InodeRoot, Layout};
use zerocopy::FromBytes;
use zerocopy::big_endian::U64;

/// Most extents of a data fork: with small and with large counters.
pub const MAX_DATA_EXTENTS: (u64, u64) = (i32::MAX as u64, (1 << 48) - 1);
/// Most extents of an attribute fork: with small and with large counters.
pub const MAX_ATTR_EXTENTS: (u64, u64) = (i16::MAX as u64, u32::MAX as u64);

/// Iterator over the extents of a fork in extents format.
#[derive(Clone, Debug)]
pub struct Extents<'a>(std::slice::Iter<'a, BmbtRec>);

impl Iterator for Extents<'_> {
    type Item = Extent;
    fn next(&mut self) -> Option<Extent> {
        self.0.next().map(BmbtRec::extent)
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for Extents<'_> {
    fn next_back(&mut self) -> Option<Extent> {
        self.0.next_back().map(BmbtRec::extent)
    }
}

impl ExactSizeIterator for Extents<'_> {}

/// The first `count` extents of a fork in extents format; fewer where the fork is too small for them. Order and addresses are
/// not checked.
pub fn extents_in_fork(fork: &[u8], count: u64) -> Extents<'_> {
    let fits = fork.len() / size_of::<BmbtRec>();
    let n = usize::try_from(count).unwrap_or(usize::MAX).min(fits);
    Extents(<[BmbtRec]>::ref_from_prefix_with_elems(fork, n).map(|(r, _)| r).unwrap_or(&[]).iter())
}

/// Root of a btree in a fork. Level 0 (only in metadata btrees) holds records, others keys and pointers.
#[derive(Clone, Copy, Debug)]
pub struct Root<'a> {
    /// Level; the blocks that it points to are one lower.
    pub level: u16,
    /// Records, or keys and pointers.
    pub numrecs: u16,
    /// Records of a root of level 0, else empty.
    pub records: &'a [u8],
    /// Keys of a root above level 0, else empty.
    pub keys: &'a [u8],
    /// Pointers of a root above level 0, else empty.
    pub pointers: &'a [U64],
}

/// Offset of the pointers in a root of `fork` bytes: behind the keys that it has room for.
pub const fn root_pointers_offset(layout: &Layout, fork: usize) -> usize {
    let room = fork.saturating_sub(size_of::<InodeRoot>());
    size_of::<InodeRoot>() + room / (layout.key + layout.pointer) * layout.key
}

/// The btree root in a fork of format btree or metadata btree. `layout` is the tree's; its header does not count here.
///
/// # Errors
/// The fork is smaller than what the root claims.
pub fn root_in_fork<'a>(fork: &'a [u8], layout: &Layout) -> Result<Root<'a>, Box<Corruption>> {
    let short = |field| Corruption::new("inode", field, Rule::Truncated).found(format_args!("{} bytes", fork.len()));
    let (head, rest) = InodeRoot::ref_from_prefix(fork).map_err(|_| short("bmbt"))?;
    let (level, numrecs) = (head.level.get(), head.numrecs.get());
    let n = usize::from(numrecs);
    let mut root = Root { level, numrecs, records: &[], keys: &[], pointers: &[] };
    if level == 0 {
        root.records = rest.get(..n * layout.record).ok_or_else(|| short("numrecs"))?;
        return Ok(root);
    }
    let max = rest.len() / (layout.key + layout.pointer);
    if n > max {
        return Err(Corruption::new("inode", "numrecs", Rule::Range)
            .found(numrecs)
            .expected(format_args!("at most {max} in {} bytes", fork.len())));
    }
    root.keys = rest.get(..n * layout.key).ok_or_else(|| short("numrecs"))?;
    let at = fork.get(root_pointers_offset(layout, fork.len())..).unwrap_or(&[]);
    root.pointers = <[U64]>::ref_from_prefix_with_elems(at, n).map(|(p, _)| p).map_err(|_| short("numrecs"))?;
    Ok(root)
}

/// A fork, as its format says.
#[derive(Clone, Debug)]
pub enum Fork<'a> {
    /// There is none.
    None,
    /// Device number: major and minor.
    Dev(u32, u32),
    /// The contents. In a data fork cut to the file's size; an attribute fork says itself how long it is.
    Local(&'a [u8]),
    /// Extent records.
    Extents(Extents<'a>),
    /// Bytes of an extent btree's root: see [`root_in_fork`] with [`BMBT`](crate::format::btree::BMBT).
    Btree(&'a [u8]),
    /// Bytes of a metadata btree's root: see [`root_in_fork`].
    MetaBtree(&'a [u8]),
}

impl<'a> Fork<'a> {
    /// Fork of a whole inode. It trusts nothing; a fork that is shorter than it claims is a corruption.
    ///
    /// # Errors
    /// Unknown format, or contents that do not fit.
    pub fn of(inode: &'a [u8], kind: ForkKind) -> Result<Self, Box<Corruption>> {
        let bad = |field, rule| Corruption::new("inode", field, rule).in_fork(kind, None);
        let Some(core) = Dinode::from_bytes(inode) else { return Err(bad("core", Rule::Truncated)) };
        if kind == ForkKind::Attr && !core.has_attr_fork() {
            return Ok(Self::None);
        }
        let bytes = super::fork_bytes(inode, kind);
        let count = core.extents(kind);
        match core.format(kind) {
            Some(Format::Dev) => match super::device_numbers(bytes) {
                Some((major, minor)) => Ok(Self::Dev(major, minor)),
                None => Err(bad("dev", Rule::Truncated)),
            },
            Some(Format::Local) if kind == ForkKind::Attr => Ok(Self::Local(bytes)),
            Some(Format::Local) => {
                usize::try_from(core.size.get()).ok().and_then(|n| bytes.get(..n)).map(Self::Local).ok_or_else(|| {
                    bad("size", Rule::Range).found(core.size).expected(format_args!("at most {}", bytes.len()))
                })
            }
            Some(Format::Extents) => {
                let e = extents_in_fork(bytes, count);
                if e.len() as u64 != count {
                    return Err(bad("nextents", Rule::Range)
                        .found(count)
                        .expected(format_args!("at most {}", e.len())));
                }
                Ok(Self::Extents(e))
            }
            Some(Format::Btree) => Ok(Self::Btree(bytes)),
            Some(Format::MetaBtree) => Ok(Self::MetaBtree(bytes)),
            Some(Format::Uuid) | None => {
                Err(bad("format", Rule::Flags).found(if kind == ForkKind::Data { core.format } else { core.aformat }))
            }
        }
    }
}
