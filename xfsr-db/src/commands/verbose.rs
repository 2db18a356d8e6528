//! What `blockget` tells of blocks and inodes by `-v`, `-b` and `-i`, in the lines of xfs_db.

use super::usage::{Usage, kind};
use crate::out::{complain, say};
use crate::session::{Outcome, Session};
use libxfsr::cache::OnDamage;
use libxfsr::control::Control;
use libxfsr::error::ForkKind;
use libxfsr::format::btree::{Extent, RMAP_BMBT_BLOCK, RMAP_OFFSET_MASK, owner};
use libxfsr::format::inode::{Dinode, Flags, Format};
use libxfsr::inode::{Inode, fork, scan};
use libxfsr::text::escape_word;
use libxfsr::units::{AgBlock, AgIno, AgNumber, FsBlock, Ino};
use std::ops::ControlFlow;

/// About what to tell.
#[derive(Debug, Default)]
pub(super) struct About {
    /// All blocks and inodes.
    pub(super) all: bool,
    /// These blocks.
    pub(super) blocks: Vec<u64>,
    /// These inodes.
    pub(super) inodes: Vec<u64>,
}

/// Tells it.
pub(super) fn tell(s: &Session, usage: &Usage, about: &About) -> Outcome {
    let g = &s.volume.geometry;
    for b in &about.blocks {
        let fsb = FsBlock(*b);
        let exists = g.fsblock_to_daddr(fsb).is_some();
        if !exists && *b >= realtime_length(s) {
            return Err(format!("-b: there is no block {b}"));
        }
        if exists && !about.all {
            let (ag, at) = g.split(fsb);
            block(s, usage, ag, at);
            places(s, usage, ag, at);
        }
    }
    if !about.all {
        s.watched(|control| realtime_places(s, &about.blocks, control)).map_err(|e| e.to_string())?;
    }
    if about.all {
        return s.watched(|control| everything(s, usage, control)).map_err(|e| e.to_string());
    }
    for i in &about.inodes {
        let read = Inode::read(&s.volume, Ino(*i), OnDamage::Keep).map_err(|e| e.to_string())?;
        inode(s, usage, (Ino(*i), &read.bytes), false)?;
        s.watched(|control| blocks_of(s, usage, *i, control)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The blocks that an inode owns.
fn blocks_of(s: &Session, usage: &Usage, ino: u64, control: &Control<'_>) -> Result<(), libxfsr::Error> {
    for ag in s.volume.ags() {
        control.check()?;
        for o in usage.extents(ag).iter().filter(|o| o.owner == ino) {
            for at in o.start.0..o.start.0.saturating_add(o.count) {
                if at.is_multiple_of(4096) {
                    control.check()?;
                }
                if s.out.broken() {
                    return Ok(());
                }
                say!(s, "setting inode to {ino} for block {ag}/{at}");
            }
        }
    }
    Ok(())
}

/// All blocks, then all inodes in use.
fn everything(s: &Session, usage: &Usage, control: &Control<'_>) -> Result<(), libxfsr::Error> {
    let g = &s.volume.geometry;
    for ag in s.volume.ags() {
        control.tell("blocks", ag.0.into(), Some(s.volume.ags().count() as u64));
        for at in 0..g.ag_blocks(ag) {
            if at.is_multiple_of(4096) {
                control.check()?;
            }
            if s.out.broken() {
                return Ok(());
            }
            block(s, usage, ag, AgBlock(at));
        }
    }
    if g.rt_blocks > 0 && g.rt_groups == 0 {
        let bitmap = Ino(s.volume.superblock.rbmino.get());
        libxfsr::realtime::free_runs(&s.volume, bitmap, g.rt_extents, control, &mut |start, count| {
            let unit = u64::from(g.rt_extent_size);
            for b in start.0.saturating_mul(unit)..start.0.saturating_add(count).saturating_mul(unit) {
                if s.out.broken() || b.is_multiple_of(4096) && control.check().is_err() {
                    return ControlFlow::Break(());
                }
                say!(s, "setting rtblock {b} to rtfree");
            }
            ControlFlow::Continue(())
        })?;
    }
    scan::for_each_used(&s.volume, control, &mut |seen| {
        let told = seen.map_err(|e| e.to_string()).and_then(|seen| inode(s, usage, seen, true));
        if let Err(e) = told {
            complain!(s, "blockget: {e}");
        }
        if s.out.broken() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

/// What a block is used for, and each inode that has it.
fn block(s: &Session, usage: &Usage, ag: AgNumber, at: AgBlock) {
    let owners = usage.of(ag, at);
    say!(s, "setting block {ag}/{at} to {}", kind(s, usage, ag, at, &owners).0);
    for o in owners.iter().filter(|o| !owner::is_special(o.owner)) {
        say!(s, "setting inode to {} for block {ag}/{at}", o.owner);
    }
}

/// Where in the files a block is, or which inodes in use are in it.
fn places(s: &Session, usage: &Usage, ag: AgNumber, at: AgBlock) {
    if usage.of(ag, at).iter().any(|o| o.owner == owner::INODES) {
        let g = &s.volume.geometry;
        for i in 0..g.inodes_per_block() {
            let ino = g.join_ino(ag, AgIno(g.block_to_agino(at).0.saturating_add(i)));
            let read = Inode::read(&s.volume, ino, OnDamage::Keep);
            if let Some(inode) = read.ok().filter(|i| !i.core.is_free()) {
                core(s, ino, &inode.core);
            }
        }
    }
    for o in usage.of(ag, at).into_iter().filter(|o| !owner::is_special(o.owner) && o.offset & RMAP_BMBT_BLOCK == 0) {
        let offset = (o.offset & RMAP_OFFSET_MASK).saturating_add(u64::from(at.0.saturating_sub(o.start.0)));
        say!(s, "inode {} block {} at offset {offset}", o.owner, s.volume.geometry.join(ag, at));
    }
}

/// Blocks of the realtime device that have a number of their own; those of realtime groups are not told about.
fn realtime_length(s: &Session) -> u64 {
    let g = &s.volume.geometry;
    if g.rt_groups == 0 { g.rt_blocks } else { 0 }
}

/// What those blocks of the realtime device are used for that have one of these numbers, and where in the files they are.
fn realtime_places(s: &Session, blocks: &[u64], control: &Control<'_>) -> Result<(), libxfsr::Error> {
    let (g, length) = (&s.volume.geometry, realtime_length(s));
    let mut wanted: Vec<u64> = blocks.iter().copied().filter(|b| *b < length).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    wanted.sort_unstable();
    wanted.dedup();
    let among = |start: u64, count: u64| {
        let from = wanted.partition_point(|b| *b < start);
        wanted.iter().copied().skip(from).take_while(move |b| b - start < count)
    };
    let unit = u64::from(g.rt_extent_size);
    let bitmap = Ino(s.volume.superblock.rbmino.get());
    libxfsr::realtime::free_runs(&s.volume, bitmap, g.rt_extents, control, &mut |start, count| {
        among(start.0.saturating_mul(unit), count.saturating_mul(unit))
            .for_each(|b| say!(s, "setting rtblock {b} to rtfree"));
        ControlFlow::Continue(())
    })?;
    scan::for_each_used(&s.volume, control, &mut |seen| {
        let told = seen.and_then(|(ino, bytes)| {
            if !Dinode::from_bytes(bytes).is_some_and(Dinode::is_realtime) {
                return Ok(());
            }
            fork::extents(&s.volume, ino, bytes, ForkKind::Data, (0, u64::MAX), &mut |e| {
                for b in among(e.start, e.count) {
                    say!(s, "setting rtblock {b} to rtdata");
                    say!(s, "setting inode to {ino} for rtblock {b}");
                    say!(s, "inode {ino} block {b} at offset {}", e.offset.saturating_add(b - e.start));
                }
                ControlFlow::Continue(())
            })
        });
        if let Err(e) = told {
            complain!(s, "blockget: {e}");
        }
        if s.out.broken() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

fn format_name(f: Option<Format>) -> &'static str {
    match f {
        Some(Format::Dev) => "dev",
        Some(Format::Local) => "local",
        Some(Format::Extents) => "extents",
        Some(Format::Btree) => "btree",
        Some(Format::Uuid) => "uuid",
        Some(Format::MetaBtree) => "meta-btree",
        None => "unknown",
    }
}

/// An inode's core.
fn core(s: &Session, ino: Ino, c: &Dinode) {
    let flags: String = [
        (Flags::REALTIME, " rt"),
        (Flags::PREALLOC, " pre"),
        (Flags::IMMUTABLE, " imm"),
        (Flags::APPEND, " app"),
        (Flags::SYNC, " syn"),
        (Flags::NOATIME, " noa"),
        (Flags::NODUMP, " nod"),
    ]
    .into_iter()
    .filter(|(f, _)| c.flags().contains(*f))
    .map(|(_, name)| name)
    .collect();
    say!(
        s,
        "inode {ino} mode 0{:o} fmt {} afmt {} nex {} anex {} nblk {} sz {}{flags}",
        c.mode.get(),
        format_name(Format::from_u8(c.format)),
        format_name(Format::from_u8(c.aformat)),
        c.extents(ForkKind::Data),
        c.extents(ForkKind::Attr),
        c.nblocks,
        c.size
    );
}

/// An inode: its core, its name where names were asked for, its extents; with `blocks` also what those on the realtime device are used
/// for.
fn inode(s: &Session, usage: &Usage, (ino, bytes): (Ino, &[u8]), blocks: bool) -> Outcome {
    let c = Dinode::from_bytes(bytes).ok_or_else(|| format!("inode {ino} is cut short"))?;
    core(s, ino, c);
    say!(s, "inode {ino} nlink {} {}", c.nlink, if c.is_dir() { "is dir" } else { "not dir" });
    if let Some(path) = usage.name(ino) {
        say!(s, "inode {ino} name {}", escape_word(&path));
    }
    for kind in [ForkKind::Data, ForkKind::Attr] {
        let realtime = kind == ForkKind::Data && c.is_realtime();
        if kind == ForkKind::Attr && !c.has_attr_fork() {
            continue;
        }
        fork::extents(&s.volume, ino, bytes, kind, (0, u64::MAX), &mut |e| {
            say!(s, "inode {ino} extent [{},{},{},{}]", e.offset, e.start, e.count, u8::from(e.unwritten));
            if realtime {
                realtime_blocks(s, ino, e, blocks);
            }
            if s.out.broken() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The blocks of an extent on the realtime device.
fn realtime_blocks(s: &Session, ino: Ino, e: &Extent, used: bool) {
    for b in e.start..e.start.saturating_add(e.count) {
        if s.out.broken() {
            return;
        }
        if used {
            say!(s, "setting rtblock {b} to rtdata");
        }
        say!(s, "setting inode to {ino} for rtblock {b}");
    }
}
