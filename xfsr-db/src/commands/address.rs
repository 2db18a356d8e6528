//! Going somewhere.

use crate::field::{Leaf, Link, select};
use crate::fields;
use crate::location::{Location, TYPES, Type};
use crate::out::{complain, say};
use crate::session::{Outcome, Session, number};
use libxfsr::cache::OnDamage;
use libxfsr::error::ForkKind;
use libxfsr::format::inode::MetaType;
use libxfsr::inode::Inode;
use libxfsr::inode::file::map_blocks;
use libxfsr::units::{AgBlock, AgIno, AgNumber, Daddr, FileBlock, FsBlock, Ino};

fn text(e: libxfsr::Error) -> String {
    e.to_string()
}

/// The AG of the current position, or the first.
pub(crate) fn current_ag(s: &Session) -> AgNumber {
    let at = s.current.as_ref().and_then(|l| s.volume.geometry.daddr_to_ag(l.daddr));
    at.map_or(AgNumber(0), |(ag, _)| ag)
}

/// Reads a buffer.
fn read(s: &Session, kind: Type, daddr: Daddr, sectors: u32) -> Result<Location, String> {
    let mut bytes = vec![0; sectors as usize * 512];
    s.volume.data_target().read_at(&mut bytes, daddr.bytes()).map_err(text)?;
    Ok(Location { kind, daddr, sectors, offset: 0, bytes, ino: None, dir: None, scattered: Vec::new() })
}

pub(crate) fn header(s: &mut Session, a: &[String], n: u32) -> Outcome {
    let ag = match a.first() {
        Some(a) => AgNumber(u32::try_from(number(a)?).unwrap_or(u32::MAX)),
        None => current_ag(s),
    };
    if ag.0 >= s.volume.geometry.ag_count {
        return Err(format!("bad allocation group number {ag}: 0 to {}", s.volume.geometry.ag_count - 1));
    }
    let kind = [Type::Sb, Type::Agf, Type::Agi, Type::Agfl][n.min(3) as usize];
    let to = read(s, kind, s.volume.geometry.header_daddr(ag, n), s.volume.geometry.sector_size / 512)?;
    s.go(to);
    Ok(())
}

/// Position of an inode.
pub(crate) fn at_inode(s: &Session, ino: Ino) -> Result<Location, String> {
    let inode = Inode::read(&s.volume, ino, OnDamage::Keep).map_err(text)?;
    if let Some(d) = &inode.damage {
        complain!(s, "{d}");
    }
    let g = &s.volume.geometry;
    let (ag, agino) = g.split_ino(ino);
    let (agbno, index) = g.agino_to_block(agino);
    let align = g.cluster_blocks().max(1);
    let first = AgBlock(agbno.0 / align * align);
    let offset = (u64::from(agbno.0 - first.0) << g.block_log) + u64::from(index) * u64::from(g.inode_size);
    Ok(Location {
        kind: Type::Inode,
        daddr: g.agbno_to_daddr(ag, first),
        sectors: align << g.bb_shift(),
        offset,
        dir: inode.core.is_dir().then_some(ino),
        bytes: inode.bytes,
        ino: Some(ino),
        scattered: Vec::new(),
    })
}

pub(crate) fn inode(s: &mut Session, a: &[String]) -> Outcome {
    let Some(n) = a.first() else {
        let ino = s.current.as_ref().and_then(|l| l.ino).ok_or("no current inode")?;
        say!(s, "current inode number is {ino}");
        return Ok(());
    };
    let to = at_inode(s, Ino(number(n)?))?;
    s.go(to);
    Ok(())
}

pub(crate) fn daddr(s: &mut Session, a: &[String]) -> Outcome {
    let Some(n) = a.first() else {
        say!(s, "current daddr is {}", s.here()?.byte() / 512);
        return Ok(());
    };
    let to = read(s, Type::Data, Daddr(number(n)?), 1)?;
    s.go(to);
    Ok(())
}

pub(crate) fn at_block(s: &Session, fsb: FsBlock, kind: Type) -> Result<Location, String> {
    let g = &s.volume.geometry;
    let daddr = g.fsblock_to_daddr(fsb).ok_or_else(|| format!("bad fsblock {fsb}"))?;
    read(s, kind, daddr, g.block_size / 512)
}

pub(crate) fn fsblock(s: &mut Session, a: &[String]) -> Outcome {
    let Some(n) = a.first() else {
        let at = Daddr(s.here()?.byte() / 512);
        let fsb = s.volume.geometry.daddr_to_fsblock(at).ok_or("the position is outside the filesystem")?;
        say!(s, "current fsblock is {fsb}");
        return Ok(());
    };
    let to = at_block(s, FsBlock(number(n)?), Type::Data)?;
    s.go(to);
    Ok(())
}

/// Type of the blocks of a file that holds metadata: bitmap and summary of the realtime section, quota. None for other files.
fn metadata_type(s: &Session, ino: Ino) -> Option<Type> {
    Some(match s.volume.superblock.metadata_kind(ino)? {
        MetaType::RtBitmap => Type::Rtbitmap,
        MetaType::RtSummary => Type::Rtsummary,
        _ => Type::Dqblk,
    })
}

/// `dquot [-g|-p|-u] id`.
pub(crate) fn dquot(s: &mut Session, a: &[String]) -> Outcome {
    let (option, id) = match a {
        [id] => ("-u", id),
        [option, id] => (option.as_str(), id),
        _ => return Err("dquot takes [-g|-p|-u] and an id".into()),
    };
    let (name, kind) = match option {
        "-u" => ("user", MetaType::UserQuota),
        "-g" => ("group", MetaType::GroupQuota),
        "-p" => ("project", MetaType::ProjectQuota),
        o => return Err(format!("bad option for dquot: {}", libxfsr::text::escape(o.as_bytes()))),
    };
    let id = number(id)?;
    let ino = s.volume.superblock.metadata_inode(kind).ok_or_else(|| format!("there is no {name} quota file"))?;
    if id > u64::from(u32::MAX) {
        return Err(format!("{id} is no id: 0 to {}", u32::MAX));
    }
    let g = &s.volume.geometry;
    let slot = libxfsr::format::quota::SLOT_SIZE as u64;
    let per_block = u64::from(g.block_size) / slot;
    let inode = Inode::read(&s.volume, ino, OnDamage::Keep).map_err(text)?;
    let pieces = map_blocks(&s.volume, &inode, ForkKind::Data, FileBlock(id / per_block), 1).map_err(text)?;
    let (daddr, sectors) =
        *pieces.as_ref().and_then(|p| p.first()).ok_or_else(|| format!("no {name} quota data for id {id}"))?;
    let mut to = read(s, Type::Dqblk, daddr, sectors)?;
    to.offset = id % per_block * slot;
    let at = to.offset as usize;
    to.bytes = to.bytes.get(at..at + slot as usize).map(<[u8]>::to_vec).unwrap_or_default();
    s.go(to);
    Ok(())
}

pub(crate) fn at_file_block(s: &Session, at: FileBlock, kind: ForkKind) -> Result<Location, String> {
    let inode = s.current_inode()?;
    let is_dir = inode.core.is_dir() && kind == ForkKind::Data;
    let count = if is_dir { 1 << s.volume.geometry.dir_block_log } else { 1 };
    let pieces = map_blocks(&s.volume, &inode, kind, at, count).map_err(text)?;
    let what = if kind == ForkKind::Data { "data" } else { "attribute" };
    let pieces = pieces.ok_or_else(|| format!("file {what} block is unmapped"))?;
    let kind = match (kind, metadata_type(s, inode.ino)) {
        (ForkKind::Attr, _) => Type::Attr3,
        _ if inode.core.is_dir() => Type::Dir3,
        (_, Some(metadata)) => metadata,
        _ if inode.core.is_symlink() => Type::Symlink,
        _ if inode.core.is_realtime() => {
            return Err("realtime blocks are not available here; use cat".into());
        }
        _ => Type::Data,
    };
    let mut location = Location {
        kind,
        daddr: pieces.first().map_or(Daddr(0), |p| p.0),
        sectors: pieces.iter().map(|p| p.1).sum(),
        offset: 0,
        bytes: Vec::new(),
        ino: Some(inode.ino),
        dir: inode.core.is_dir().then_some(inode.ino),
        scattered: if pieces.len() > 1 { pieces.clone() } else { Vec::new() },
    };
    for (daddr, sectors) in pieces {
        let mut part = vec![0; sectors as usize * 512];
        s.volume.data_target().read_at(&mut part, daddr.bytes()).map_err(text)?;
        location.bytes.append(&mut part);
    }
    Ok(location)
}

fn file_block(s: &mut Session, a: &[String], kind: ForkKind) -> Outcome {
    let n = a.first().ok_or("which block of the fork?")?;
    let to = at_file_block(s, FileBlock(number(n)?), kind)?;
    s.go(to);
    Ok(())
}

pub(crate) fn dblock(s: &mut Session, a: &[String]) -> Outcome {
    file_block(s, a, ForkKind::Data)
}

pub(crate) fn ablock(s: &mut Session, a: &[String]) -> Outcome {
    file_block(s, a, ForkKind::Attr)
}

fn show(l: &Location, s: &Session) {
    let g = &s.volume.geometry;
    say!(s, "\tbyte offset {}, length {}", l.byte(), l.bytes.len());
    let fsb = g.daddr_to_fsblock(l.daddr).map_or(-1, |f| f.0.cast_signed());
    let plural = if l.sectors == 1 { "" } else { "s" };
    say!(s, "\tbuffer block {} (fsbno {fsb}), {} bb{plural}", l.daddr, l.sectors);
    let ino = |i: Option<Ino>| i.map_or(-1, |i| i.0.cast_signed());
    say!(s, "\tinode {}, dir inode {}, type {}", ino(l.ino), ino(l.dir), l.kind.name());
}

pub(crate) fn addr(s: &mut Session, a: &[String]) -> Outcome {
    let here = s.here()?;
    let Some(expression) = a.first() else {
        say!(s, "current");
        show(here, s);
        return Ok(());
    };
    let lines = fields::lines(&s.volume, here.kind, &here.bytes).ok_or("the current type has no fields")?;
    let chosen = select(&lines.0, expression)?;
    let scalar = match chosen.first().map(|l| &l.leaf) {
        Some(Leaf::One(v)) if chosen.len() == 1 => Some(v),
        Some(Leaf::List { items, .. }) => items.first(),
        _ => None,
    };
    let scalar = scalar.ok_or_else(|| format!("{expression} is not one value"))?;
    let ag = current_ag(s);
    let g = &s.volume.geometry;
    let to = match scalar.link {
        Link::None => return Err(format!("no next type for field {expression}")),
        Link::AgBlock(b, kind) => {
            let b = AgBlock(u32::try_from(b).unwrap_or(u32::MAX));
            if b.0 >= g.ag_blocks(ag) {
                return Err(format!("block {b} is outside AG {ag}"));
            }
            at_block(s, g.join(ag, b), kind)?
        }
        // A block of a directory may be several of the filesystem's; they lie together where one extent has them.
        Link::FsBlock(b, Type::Dir3) => {
            let daddr = g.fsblock_to_daddr(FsBlock(b)).ok_or_else(|| format!("bad fsblock {b}"))?;
            read(s, Type::Dir3, daddr, g.dir_block_size / 512)?
        }
        Link::FsBlock(b, kind) => at_block(s, FsBlock(b), kind)?,
        Link::Ino(i) => at_inode(s, Ino(i))?,
        Link::AgIno(i) => at_inode(s, g.join_ino(ag, AgIno(u32::try_from(i).unwrap_or(u32::MAX))))?,
        Link::Data(b) => at_file_block(s, b, ForkKind::Data)?,
        Link::Attr(b) => at_file_block(s, b, ForkKind::Attr)?,
    };
    s.go(to);
    Ok(())
}

pub(crate) fn kind(s: &mut Session, a: &[String]) -> Outcome {
    let Some(name) = a.first() else {
        match &s.current {
            Some(l) => say!(s, "current type is \"{}\"", l.kind.name()),
            None => say!(s, "no current type"),
        }
        let rows = TYPES.chunks(8).map(|row| row.iter().map(|t| t.0).collect::<Vec<_>>().join(", "));
        say!(s, "\n supported types are:\n {}", rows.collect::<Vec<_>>().join(", \n "));
        return Ok(());
    };
    let kind = Type::parse(name).ok_or_else(|| format!("no such type {}", libxfsr::text::escape(name.as_bytes())))?;
    let l = s.current.as_mut().ok_or("no current position")?;
    l.kind = kind;
    Ok(())
}

pub(crate) fn push(s: &mut Session, a: &[Vec<u8>]) -> Outcome {
    let here = s.here()?.clone();
    s.stack.push(here);
    if a.is_empty() { Ok(()) } else { s.run_words(a).map(drop) }
}

pub(crate) fn pop(s: &mut Session) -> Outcome {
    s.current = Some(s.stack.pop().ok_or("the stack is empty")?);
    Ok(())
}

pub(crate) fn stack(s: &mut Session) -> Outcome {
    let all = s.stack.iter().chain(&s.current).enumerate();
    for (i, l) in all.collect::<Vec<_>>().into_iter().rev() {
        say!(s, "{}: ", i + 1);
        show(l, s);
    }
    Ok(())
}

pub(crate) fn ring(s: &mut Session, a: &[String]) -> Outcome {
    if let Some(n) = a.first() {
        let at = usize::try_from(number(n)?).unwrap_or(usize::MAX);
        s.current = Some(s.ring.go(at).ok_or_else(|| format!("no position {at} in the ring"))?.clone());
        return Ok(());
    }
    say!(s, "      type    bblock  bblen    fsbno     inode");
    for (i, is_current, l) in s.ring.all() {
        let mark = if is_current { '*' } else { ' ' };
        let fsb = s.volume.geometry.daddr_to_fsblock(l.daddr).map_or(-1, |f| f.0.cast_signed());
        let ino = l.ino.map_or(-1, |i| i.0.cast_signed());
        say!(s, "{mark}{i:>2}: {:<7.7} {:>8} {:>5} {fsb:>8} {ino:>9}", l.kind.name(), l.daddr, l.sectors);
    }
    Ok(())
}

pub(crate) fn step(s: &mut Session, forward: bool) -> Outcome {
    let to = s.ring.step(forward).ok_or(if forward { "no further entries" } else { "no previous entries" })?;
    s.current = Some(to.clone());
    Ok(())
}
