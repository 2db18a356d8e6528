//! Exchange of ranges between files: their mappings change places, all of them or none, whatever comes in between.

use super::FileMut;
use crate::error::{Error, ForkKind, Result};
use crate::format::btree::{BMBT, Extent};
use crate::format::inode::{Dinode, Flags2, Timestamp};
use crate::format::log::items::{ExchangeFlags, ItemType, XmiFormat};
use crate::geometry::Geometry;
use crate::inode::{ForkMut, fork};
use crate::space::Space;
use crate::txn::{Deferred, Intent, Reservation, Transaction};
use crate::units::{FileBlock, Ino};
use std::ops::ControlFlow;
use std::sync::Arc;
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// The exchange of mappings of two files, step by step: each step exchanges one extent on either side. What is left is logged anew.
pub struct Exchange {
    space: Arc<Space>,
    inodes: [Ino; 2],
    generations: [u32; 2],
    offsets: [u64; 2],
    blocks: u64,
    flags: ExchangeFlags,
    sizes: [i64; 2],
    reservation: Reservation,
}

impl Exchange {
    fn kind_of_fork(&self) -> ForkKind {
        if self.flags.contains(ExchangeFlags::ATTR_FORK) { ForkKind::Attr } else { ForkKind::Data }
    }

    fn reserve(g: &Geometry) -> Reservation {
        // Of either file one extent goes and one comes.
        ForkMut::reservation(g, ForkKind::Data, 4).and(ForkMut::reservation(g, ForkKind::Data, 4))
    }

    /// From the region of an intent.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no exchange of two files here.
    pub fn from_logged(space: Arc<Space>, g: &Geometry, region: &[u8]) -> Result<Box<Self>> {
        let bad = |what: &str| Error::invalid(format!("an intent to exchange {what}"));
        let (x, _) = XmiFormat::read_from_prefix(region).map_err(|_| bad("that is cut short"))?;
        let flags = ExchangeFlags::from_bits(x.flags.get()).ok_or_else(|| bad("with unknown flags"))?;
        let inodes = [Ino(x.ino1.get()), Ino(x.ino2.get())];
        let (offsets, blocks) = ([x.startoff1.get(), x.startoff2.get()], x.blockcount.get());
        if inodes.iter().any(|i| !g.is_valid_ino(*i)) || inodes[0] == inodes[1] {
            return Err(bad("of inodes that cannot be"));
        }
        let most = crate::format::btree::MAX_FILE_BLOCK;
        if offsets.iter().any(|o| o.checked_add(blocks).is_none_or(|end| end > most)) {
            return Err(bad("beyond the largest file"));
        }
        let sizes = [x.isize1.get(), x.isize2.get()];
        if flags.contains(ExchangeFlags::SET_SIZES) && sizes.iter().any(|s| *s < 0) {
            return Err(bad("of sizes that cannot be"));
        }
        let generations = [x.igen1.get(), x.igen2.get()];
        let reservation = Self::reserve(g);
        Ok(Box::new(Self { space, inodes, generations, offsets, blocks, flags, sizes, reservation }))
    }

    /// The inodes, which a chain keeps locked: recovery locks both before it begins.
    pub fn inodes(&self) -> [Ino; 2] {
        self.inodes
    }

    /// What lies at the start of what is left, on both sides and of one length.
    fn sides(&self, t: &mut Transaction<'_>) -> Result<([Option<Extent>; 2], u64)> {
        let (mut sides, mut count) = ([None, None], self.blocks);
        for ((side, ino), offset) in sides.iter_mut().zip(self.inodes).zip(self.offsets) {
            let mut fork = ForkMut::new(t, &self.space, ino, self.kind_of_fork());
            match fork.at_or_next(FileBlock(offset))? {
                Some(e) if e.offset <= offset => {
                    let skip = offset - e.offset;
                    count = count.min(e.count - skip);
                    *side = Some(Extent { offset, start: e.start + skip, ..e });
                }
                Some(e) => count = count.min(e.offset - offset),
                None => {}
            }
        }
        for e in sides.iter_mut().flatten() {
            e.count = count;
        }
        Ok((sides, count))
    }

    fn core<'t>(t: &'t mut Transaction<'_>, ino: Ino) -> Result<&'t mut Dinode> {
        let core = Dinode::from_bytes_mut(t.inode_mut(ino)?);
        core.ok_or_else(|| Error::invalid("an inode that is shorter than its core"))
    }

    /// What comes when all is exchanged.
    fn end(&self, t: &mut Transaction<'_>) -> Result<()> {
        const CLEAR: [ExchangeFlags; 2] = [ExchangeFlags::CLEAR_INO1_REFLINK, ExchangeFlags::CLEAR_INO2_REFLINK];
        for ((ino, size), clear) in self.inodes.into_iter().zip(self.sizes).zip(CLEAR) {
            let core = Self::core(t, ino)?;
            if self.flags.contains(ExchangeFlags::SET_SIZES) {
                core.size.set(size.unsigned_abs());
            }
            if self.flags.contains(clear) {
                core.flags2.set(core.flags2.get() & !Flags2::REFLINK.bits());
            }
        }
        Ok(())
    }
}

impl Deferred for Exchange {
    fn kind(&self) -> ItemType {
        ItemType::Xmi
    }
    fn intent(&self, id: u64) -> Intent {
        let mut x = XmiFormat::new_zeroed();
        x.kind = U16::new(ItemType::Xmi as u16);
        x.size = U16::new(1);
        x.id = U64::new(id);
        (x.ino1, x.ino2) = (U64::new(self.inodes[0].0), U64::new(self.inodes[1].0));
        (x.igen1, x.igen2) = (U32::new(self.generations[0]), U32::new(self.generations[1]));
        (x.startoff1, x.startoff2) = (U64::new(self.offsets[0]), U64::new(self.offsets[1]));
        x.blockcount = U64::new(self.blocks);
        x.flags = U64::new(self.flags.bits());
        (x.isize1, x.isize2) = (I64::new(self.sizes[0]), I64::new(self.sizes[1]));
        Intent::from_regions(ItemType::Xmi, id, vec![x.as_bytes().to_vec()])
    }
    fn done(&self, id: u64) -> Intent {
        Intent::finished(ItemType::Xmd, id)
    }
    fn reservation(&self) -> Reservation {
        self.reservation
    }
    fn run(mut self: Box<Self>, t: &mut Transaction<'_>) -> Result<Option<Box<dyn Deferred>>> {
        let [a, b] = self.inodes;
        t.lock_inode(a.min(b));
        t.lock_inode(a.max(b));
        for (ino, generation) in self.inodes.into_iter().zip(self.generations) {
            if Self::core(t, ino)?.generation.get() != generation {
                return Err(Error::invalid(format!("inode {ino} of an exchange is another one now")));
            }
        }
        let written = self.flags.contains(ExchangeFlags::INO1_WRITTEN);
        // What stays as it is costs nothing, so it is passed over at once; how many extents that may be is bounded.
        for _ in 0..64 {
            if self.blocks == 0 {
                break;
            }
            let ([one, two], count) = self.sides(t)?;
            let [mut at, mut other] = self.offsets;
            std::mem::swap(&mut at, &mut other);
            self.offsets = self.offsets.map(|o| o + count);
            self.blocks -= count;
            let same = one.map(|e| (e.start, e.unwritten)) == two.map(|e| (e.start, e.unwritten));
            if same || written && one.is_none_or(|e| e.unwritten) {
                continue;
            }
            // `at` is the place in the second file, `other` that in the first.
            let moves = [(self.inodes[0], one, two, other), (self.inodes[1], two, one, at)];
            for (ino, old, _, _) in moves {
                if let Some(e) = old {
                    ForkMut::new(t, &self.space, ino, self.kind_of_fork()).unmap(FileBlock(e.offset), e.count)?;
                }
            }
            for (ino, _, new, offset) in moves {
                if let Some(e) = new {
                    let e = Extent { offset, ..e };
                    ForkMut::new(t, &self.space, ino, self.kind_of_fork()).map(&e)?;
                }
            }
            break;
        }
        if self.blocks > 0 {
            return Ok(Some(self));
        }
        self.end(t)?;
        Ok(None)
    }
}

/// Blocks that a map may take when so many extents come in, one after the other.
fn map_growth(g: &Geometry, extents: u64) -> u64 {
    let (_, least) = BMBT.limits(g.block_size as usize, 0);
    let leaves = extents / (least.max(1) as u64) + 1;
    // Above so many leaves there are fewer nodes than leaves; and every level may be split once.
    leaves.saturating_mul(2).saturating_add(u64::from(g.max_levels.bmap_data))
}

/// What a file was when it was looked at: to exchange it later only if nobody has changed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Freshness {
    ino: Ino,
    generation: u32,
    size: u64,
    mtime: Timestamp,
    ctime: Timestamp,
    changes: u64,
}

/// How ranges are exchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExchangeOptions {
    /// To the ends of both files, whose sizes are exchanged too. Both ranges begin at the same offset then: Linux, should it have to finish the
    /// exchange, gives each file the other's size.
    pub to_end: bool,
    /// Only what is written in this file.
    pub written: bool,
    /// Only if the other file is still what it was.
    pub unchanged: Option<Freshness>,
}

impl FileMut<'_> {
    /// What the file is now.
    ///
    /// # Errors
    /// As [`FileMut::read_at`].
    pub fn freshness(&self) -> Result<Freshness> {
        let core = self.inode()?.core;
        Ok(Freshness {
            ino: self.ino(),
            generation: core.generation.get(),
            size: core.size.get(),
            mtime: core.mtime,
            ctime: core.ctime,
            changes: core.changecount.get(),
        })
    }

    /// Exchanges `len` bytes at `offset` with as many of another file, all or nothing. Whole blocks; the last part of a file only with that of the other.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the filesystem has not the feature; [`Error::Busy`] where the other file has changed; [`Error::Invalid`] for
    /// ranges that cannot be exchanged.
    pub fn exchange(
        &self,
        offset: u64,
        other: &FileMut<'_>,
        other_offset: u64,
        len: u64,
        how: &ExchangeOptions,
    ) -> Result<()> {
        let g = &self.volume().geometry;
        if !g.features.exchange_range() {
            return Err(Error::unsupported("the filesystem has not the feature to exchange ranges (exchange)"));
        }
        if self.ino() == other.ino() {
            return Err(Error::invalid("a file is exchanged with itself"));
        }
        if let Some(then) = how.unchanged
            && then != other.freshness()?
        {
            let why = "it was changed since it was looked at".to_owned();
            return Err(Error::Busy { target: format!("inode {}", other.ino()), why });
        }
        let (a, b) = (self.inode()?.core, other.inode()?.core);
        let (size, other_size) = (a.size.get(), b.size.get());
        let mask = (1u64 << self.log()) - 1;
        let (end, other_end) = if how.to_end {
            (size.max(offset), other_size.max(other_offset))
        } else {
            (self.checked_end(offset, len)?, other.checked_end(other_offset, len)?)
        };
        let tails = how.to_end || len & mask == 0 || end == size && other_end == other_size;
        if offset & mask != 0 || other_offset & mask != 0 || !tails {
            return Err(Error::invalid(format!("ranges at {offset} and {other_offset} are no whole blocks")));
        }
        if !how.to_end && (end > size || other_end > other_size) {
            return Err(Error::invalid("a range reaches behind the end of its file"));
        }
        if how.to_end && (offset != other_offset || size < offset || other_size < offset) {
            return Err(Error::invalid("files are exchanged to their ends from one offset on, which lies in both"));
        }
        if a.is_reflink() != b.is_reflink() {
            self.mark_reflink(other)?;
        }
        let length = (end - offset).max(other_end - other_offset);
        let mut flags = ExchangeFlags::empty();
        let mut sizes = [-1, -1];
        if how.to_end {
            flags |= ExchangeFlags::SET_SIZES;
            sizes = [other_size.cast_signed(), size.cast_signed()];
        }
        if how.written {
            flags |= ExchangeFlags::INO1_WRITTEN;
        }
        let blocks = length.div_ceil(mask + 1);
        // A chain that has begun must not end for want of a block of a map.
        let most = self.extents_in(offset, blocks)? + other.extents_in(other_offset, blocks)?;
        let _held = self.space.hold(g, map_growth(g, most).saturating_mul(2))?;
        let mut t = self.begin_with(other, 1)?;
        self.touch(&mut t, 0)?;
        other.touch_in(&mut t, self.now)?;
        t.defer(Box::new(Exchange {
            space: self.space.clone(),
            inodes: [self.ino(), other.ino()],
            generations: [a.generation.get(), b.generation.get()],
            offsets: [offset >> self.log(), other_offset >> self.log()],
            blocks,
            flags,
            sizes,
            reservation: Exchange::reserve(g),
        }))?;
        t.commit().map(drop)
    }

    /// Extents that touch a range.
    fn extents_in(&self, offset: u64, blocks: u64) -> Result<u64> {
        let (first, mut count) = (offset >> self.log(), 0);
        let range = (first, first.saturating_add(blocks));
        let _still = self.scope.locks().lock_shared(self.ino());
        fork::extents(self.volume(), self.ino(), &self.inode()?.bytes, ForkKind::Data, range, &mut |_| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// Stamps the times of this file in a transaction of another.
    fn touch_in(&self, t: &mut Transaction<'_>, now: Option<(i64, u32)>) -> Result<()> {
        let Some((seconds, nanos)) = now else { return Ok(()) };
        let core = Exchange::core(t, self.ino())?;
        let time = Timestamp::encode(seconds, nanos, core.bigtime());
        let time = time.ok_or_else(|| Error::invalid("a time that an inode cannot hold"))?;
        (core.mtime, core.ctime) = (time, time);
        Ok(())
    }
}
