//! Inodes that had no name any more when the machine stopped, and were open: nobody has them open now.
//!
//! Each is emptied in as many transactions as it takes, then taken off its list and freed in one. A crash in between leaves it on the list, shorter than
//! before.

use super::quota::{Quota, RECORDS};
use super::{Left, Recovered};
use crate::cache::{BlockKey, OnDamage, Want};
use crate::control::Control;
use crate::error::{Corruption, Error, ForkKind, Result, Rule};
use crate::format::BlockType;
use crate::format::ag::{AGI, Agi, UNLINKED_BUCKETS};
use crate::format::attr::ATTR_LEAF;
use crate::format::btree::{Extent, MAX_FILE_BLOCK};
use crate::format::inode::{Dinode, Format};
use crate::format::symlink::SYMLINK;
use crate::geometry::Geometry;
use crate::inode::{ForkMut, Inode, chunk};
use crate::space::{Space, header};
use crate::txn::{Reservation, Scope, Transaction};
use crate::units::{AgIno, AgNumber, FileBlock, FsBlock, Ino, NULL_AGINO};
use std::ops::ControlFlow;
use std::sync::Arc;
use zerocopy::FromBytes;

/// Extents of a file that one transaction frees.
const EXTENTS: u32 = 4;
/// Extents of metadata.
const PIECES: u32 = 16;
/// Blocks of metadata that one transaction frees: as many as an attribute fork usually has, so that it goes at once.
const BLOCKS: u64 = 512;
/// Bytes that it takes to log that one is freed.
const CANCEL: u32 = 96;

/// What all of it needs.
#[derive(Clone, Copy)]
struct Place<'a> {
    scope: &'a Scope,
    space: &'a Arc<Space>,
    quota: &'a Quota,
}

/// Frees all that nothing refers to. What cannot be freed, because it is damaged or of a kind that this library does not change, stays on its list and is told.
///
/// # Errors
/// When an AGI cannot be read; I/O errors; when the journal fails.
pub(super) fn free(scope: &Scope, space: &Arc<Space>, done: &mut Recovered, control: &Control<'_>) -> Result<()> {
    let quota = &Quota::of(scope.volume())?;
    let place = Place { scope, space, quota };
    for ag in scope.volume().geometry.ags() {
        // A copy: what is freed here changes the header.
        let agi = {
            let header = scope.volume().ag_header(ag, 2, &AGI, OnDamage::Fail)?;
            Agi::read_from_prefix(&header).map_err(|_| Error::invalid("an AG header is too short"))?.0
        };
        for head in agi.unlinked.iter().map(|n| n.get()).filter(|n| *n != NULL_AGINO) {
            bucket(place, (ag, head, agi.count.get()), done, control)?;
        }
    }
    Ok(())
}

/// Frees the inodes of a list, which has at most so many.
fn bucket(
    place: Place<'_>,
    (ag, head, most): (AgNumber, u32, u32),
    done: &mut Recovered,
    control: &Control<'_>,
) -> Result<()> {
    let scope = place.scope;
    let g = &scope.volume().geometry;
    let (mut next, mut before) = (head, None);
    for _ in 0..most {
        if next == NULL_AGINO {
            return Ok(());
        }
        control.check()?;
        let ino = g.join_ino(ag, AgIno(next));
        if !g.is_valid_agino(ag, AgIno(next)) {
            let c = Corruption::new("agi", "unlinked", Rule::Range).in_ag(ag, None).found(next);
            done.left.push(Left { ino: ino.0, why: Error::from(c).to_string() });
            return Ok(());
        }
        let inode = match Inode::read(scope.volume(), ino, OnDamage::Fail) {
            Ok(inode) => inode,
            Err(e @ (Error::Corrupt(_) | Error::NotFound(_))) => {
                done.left.push(Left { ino: ino.0, why: e.to_string() });
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        next = inode.core.next_unlinked.get();
        match free_one(place, (ino, before), &inode.core, control) {
            Ok(()) => done.inodes += 1,
            Err(e @ (Error::Corrupt(_) | Error::NotFound(_) | Error::Unsupported(_) | Error::Invalid(_))) => {
                // Where a chain broke, nothing can follow.
                drop(scope.begin(Reservation::default())?);
                done.left.push(Left { ino: ino.0, why: e.to_string() });
                before = Some(ino);
            }
            Err(e) => return Err(e),
        }
    }
    if next != NULL_AGINO {
        let c = Corruption::new("agi", "unlinked", Rule::Loop).in_ag(ag, None).found(next);
        let why = Error::from(c.expected(format_args!("at most {most} inodes in a list"))).to_string();
        done.left.push(Left { ino: g.join_ino(ag, AgIno(next)).0, why });
    }
    Ok(())
}

/// Frees one, which comes behind `before` on its list.
fn free_one(place: Place<'_>, (ino, before): (Ino, Option<Ino>), core: &Dinode, control: &Control<'_>) -> Result<()> {
    if core.is_free() || core.nlink.get() != 0 {
        let c = Corruption::new("inode", "nlink", Rule::Mismatch).in_inode(ino);
        let c = c.found(format_args!("mode {:o}, {} links", core.mode, core.nlink));
        return Err(c.expected("an inode in use, without a link").into());
    }
    empty(place, (ino, ForkKind::Data), core, control)?;
    empty(place, (ino, ForkKind::Attr), core, control)?;
    let Place { scope, space, quota } = place;
    let g = &scope.volume().geometry;
    let list = Reservation { sectors: 1, inodes: 2 + RECORDS, ..Reservation::default() };
    let mut t = scope.begin(chunk::reservation(g).and(list))?;
    t.lock_inode(ino);
    off_list(&mut t, ino, before)?;
    chunk::free(&mut t, space, ino)?;
    quota.give_back(&mut t, core, 0, 1)?;
    t.commit().map(|_| ())
}

/// Takes all out of a fork.
fn empty(
    Place { scope, space, quota }: Place<'_>,
    (ino, kind): (Ino, ForkKind),
    core: &Dinode,
    control: &Control<'_>,
) -> Result<()> {
    let mapped = matches!(core.format(kind), Some(Format::Extents | Format::Btree));
    if !mapped || kind == ForkKind::Attr && !core.has_attr_fork() {
        return Ok(());
    }
    let logged = match kind {
        ForkKind::Attr => Some(&ATTR_LEAF),
        ForkKind::Data if core.is_reg() => None,
        ForkKind::Data if core.is_symlink() => Some(&SYMLINK),
        ForkKind::Data => return Err(Error::unsupported(format!("inode {ino} is no file and has blocks"))),
    };
    let mut left = FileBlock(MAX_FILE_BLOCK);
    while left.0 > 0 {
        control.check()?;
        let mut t = scope.begin(reservation(&scope.volume().geometry, kind, logged.is_some()))?;
        let blocks = ForkMut::new(&mut t, space, ino, kind).core()?.nblocks.get();
        left = match logged {
            None => ForkMut::new(&mut t, space, ino, kind).free_last(FileBlock(0), left.0, EXTENTS as usize)?,
            Some(of) => free_blocks(&mut t, space, (ino, kind), left, of)?,
        };
        let freed = blocks.saturating_sub(ForkMut::new(&mut t, space, ino, kind).core()?.nblocks.get());
        quota.give_back(&mut t, core, freed, 0)?;
        t.commit()?;
    }
    Ok(())
}

/// Takes an inode off its list, on which it comes behind `before`, or first.
fn off_list(t: &mut Transaction<'_>, ino: Ino, before: Option<Ino>) -> Result<()> {
    let (ag, agino) = t.geometry().split_ino(ino);
    header::lock_agi(t, ag)?;
    let next = t.next_unlinked(ino)?;
    let bucket = agino.0 as usize % UNLINKED_BUCKETS;
    let points = match before {
        Some(before) => t.next_unlinked(before)?,
        None => header::agi(t, ag)?.unlinked.get(bucket).map_or(NULL_AGINO, |n| n.get()),
    };
    if points != agino.0 || next == agino.0 {
        let c = Corruption::new("agi", "unlinked", Rule::Mismatch).in_ag(ag, None).found(points);
        return Err(c.expected(format_args!("inode {agino} in bucket {bucket}")).into());
    }
    match before {
        Some(before) => t.set_next_unlinked(before, next)?,
        None => header::change_agi(t, ag, |agi| agi.unlinked.get_mut(bucket).map_or((), |n| n.set(next)))?,
    }
    if next == NULL_AGINO { Ok(()) } else { t.set_next_unlinked(ino, NULL_AGINO) }
}

fn reservation(g: &Geometry, kind: ForkKind, logged: bool) -> Reservation {
    let (extents, cancels) = if logged { (PIECES, BLOCKS as u32 * CANCEL) } else { (EXTENTS, 0) };
    ForkMut::reservation(g, kind, extents + 1).and(Reservation {
        bytes: cancels,
        inodes: RECORDS,
        ..Reservation::default()
    })
}

/// Frees the last blocks of a fork that holds metadata: what was logged of them must not be replayed over what they become. Says where it got.
fn free_blocks(
    t: &mut Transaction<'_>,
    space: &Arc<Space>,
    (ino, kind): (Ino, ForkKind),
    end: FileBlock,
    of: &'static BlockType,
) -> Result<FileBlock> {
    let mut fork = ForkMut::new(t, space, ino, kind);
    let (mut extents, mut from, mut blocks) = (Vec::<Extent>::new(), FileBlock(0), 0);
    fork.extents((0, end.0), &mut |e| {
        extents.push(*e);
        ControlFlow::Continue(())
    })?;
    for (e, pieces) in extents.iter().rev().zip(1..) {
        let some = e.count.min(BLOCKS - blocks);
        blocks += some;
        from = FileBlock(e.offset + e.count - some);
        let last = extents.first() == Some(e) && some == e.count;
        if last {
            from = FileBlock(0);
        }
        let g = fork.t().geometry();
        for n in e.count - some..e.count {
            let at = g.fsblock_to_daddr(FsBlock(e.start + n));
            let at =
                at.ok_or_else(|| Corruption::new("inode", "startblock", Rule::Range).in_inode(ino).found(e.start))?;
            let key = BlockKey::one(fork.t().volume().data, at, g.block_size / 512);
            fork.t().invalidate(&key, &Want::new(of, OnDamage::Keep).owned_by(ino))?;
        }
        if blocks == BLOCKS || pieces == PIECES {
            break;
        }
    }
    fork.free(from, end.0 - from.0)?;
    Ok(from)
}
