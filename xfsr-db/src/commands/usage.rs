//! Who owns which block: `blockget` asks the check, `blockuse` answers from what it kept.

use super::names::{self, Names};
use super::verbose::{self, About};
use crate::out::{complain, say};
use crate::session::{Outcome, Session, number};
use libxfsr::cache::OnDamage;
use libxfsr::check::{BlockOwner, Survey, survey};
use libxfsr::error::Severity;
use libxfsr::format::btree::{
    BNOBT_MAGIC, CNTBT_MAGIC, FINOBT_MAGIC, INOBT_MAGIC, RMAP_ATTR_FORK, RMAPBT_MAGIC, owner,
};
use libxfsr::format::inode::MetaType;
use libxfsr::inode::Inode;
use libxfsr::text::{escape, escape_word};
use libxfsr::units::{AgBlock, AgNumber, FsBlock, Ino};
use std::collections::HashSet;

/// What `blockget` leaves for the commands after it.
#[derive(Debug)]
pub(crate) struct Usage {
    owners: Vec<Group>,
    names: Option<Names>,
    /// Blocks on the free lists, which hold bytes of what was there before.
    listed: HashSet<(u32, u32)>,
}

/// The owners of an AG's blocks.
#[derive(Debug)]
struct Group {
    list: Vec<BlockOwner>,
    /// How far this extent or one before it reaches: a shared block has owners whose extents begin far before it.
    reach: Vec<u64>,
}

impl Group {
    fn new(list: Vec<BlockOwner>) -> Self {
        let mut far = 0;
        let reach = list.iter().map(|o| {
            far = end(o).max(far);
            far
        });
        Self { reach: reach.collect(), list }
    }
}

fn end(o: &BlockOwner) -> u64 {
    u64::from(o.start.0) + u64::from(o.count)
}

/// Most blocks about which `blockuse` tells at once are those of an AG; this is for a superblock that claims absurd ones.
const MAX_BLOCKS: u64 = 1 << 31;

/// `blockget [-npsv] [-b bno]... [-i ino]...`.
pub(crate) fn blockget(s: &mut Session, a: &[String]) -> Outcome {
    let (mut keep_names, mut prefixed, mut severe) = (false, false, false);
    let mut about = About::default();
    let mut rest = a.iter();
    while let Some(o) = rest.next() {
        let mut value = || number(rest.next().ok_or_else(|| format!("{o} needs a number"))?);
        match o.as_str() {
            "-n" => keep_names = true,
            "-p" => prefixed = true,
            "-s" => severe = true,
            "-b" => about.blocks.push(value()?),
            "-i" => about.inodes.push(value()?),
            "-v" => about.all = true,
            "-t" => return Err("-t is refused: there is no time to tell of".into()),
            o => return Err(format!("bad option for blockget: {}", escape(o.as_bytes()))),
        }
    }
    if s.usage.is_some() {
        return Err("already have block usage information".into());
    }
    let Survey { outcome, owners } = s.watched(|control| survey(&s.volume, control)).map_err(|e| e.to_string())?;
    let prefix =
        if prefixed { format!("{}: ", escape(s.device.as_os_str().as_encoded_bytes())) } else { String::new() };
    if outcome.dirty_log {
        complain!(s, "{prefix}the log is dirty: what it holds is not counted");
    }
    let names = if keep_names { Some(s.watched(|control| names::collect(s, control))?) } else { None };
    for n in &outcome.not_checked {
        complain!(s, "{prefix}not checked: {}: {}", escape(n.what.as_bytes()), escape(n.why.as_bytes()));
    }
    for f in &outcome.findings {
        if severe && f.severity < Severity::Corrupt {
            continue;
        }
        let name = names.as_ref().zip(f.at.ino).and_then(|(n, i)| n.path(i));
        let name = name.map_or_else(String::new, |p| format!(" ({})", escape_word(&p)));
        say!(s, "{prefix}{f}{name}");
    }
    if outcome.more_findings > 0 {
        complain!(s, "{prefix}{} more findings", outcome.more_findings);
    }
    let usage = Usage { owners: owners.into_iter().map(Group::new).collect(), names, listed: listed(s) };
    verbose::tell(s, &usage, &about)?;
    s.usage = Some(usage);
    let damage = if severe { 0 } else { outcome.count(Severity::CrossReference) } + outcome.count(Severity::Corrupt);
    if damage > 0 {
        s.status = 3;
        return Err(format!("{prefix}blockget: {damage} findings"));
    }
    if outcome.dirty_log || outcome.is_incomplete() {
        return Err(format!("{prefix}blockget: parts could not be checked"));
    }
    Ok(())
}

/// Blocks that stand in the AGs' free lists.
fn listed(s: &Session) -> HashSet<(u32, u32)> {
    let mut all = HashSet::new();
    for ag in s.volume.ags() {
        if let Ok(list) = super::space::free_list(s, ag) {
            all.extend(list.into_iter().map(|b| (ag.0, b)));
        }
    }
    all
}

/// `blockfree`.
pub(crate) fn blockfree(s: &mut Session) -> Outcome {
    s.usage.take().map(drop).ok_or_else(|| "there is no block usage information: blockget collects it".into())
}

impl Usage {
    /// The extents of an AG with their owners.
    pub(super) fn extents(&self, ag: AgNumber) -> &[BlockOwner] {
        self.owners.get(ag.0 as usize).map_or(&[], |g| &g.list)
    }
    /// The path of an inode, where names were asked for.
    pub(super) fn name(&self, ino: Ino) -> Option<Vec<u8>> {
        self.names.as_ref()?.path(ino)
    }
    /// The owners of a block.
    pub(super) fn of(&self, ag: AgNumber, at: AgBlock) -> Vec<&BlockOwner> {
        let Some(group) = self.owners.get(ag.0 as usize) else { return Vec::new() };
        let before = group.list.partition_point(|o| o.start <= at);
        let candidates = group.list.iter().zip(&group.reach).take(before).rev();
        let near = candidates.take_while(|(_, reach)| **reach > u64::from(at.0)).map(|(o, _)| o);
        let mut all: Vec<&BlockOwner> = near.filter(|o| end(o) > u64::from(at.0)).collect();
        all.reverse();
        all
    }
}

/// `blockuse [-n] [-c count]`.
pub(crate) fn blockuse(s: &mut Session, a: &[String]) -> Outcome {
    let (mut named, mut count) = (false, 1);
    let mut rest = a.iter();
    while let Some(o) = rest.next() {
        match o.as_str() {
            "-n" => named = true,
            "-c" => count = number(rest.next().ok_or("-c needs a number")?)?,
            o => return Err(format!("bad option for blockuse: {}", escape(o.as_bytes()))),
        }
    }
    let usage = s.usage.as_ref().ok_or("must run blockget first")?;
    if named && usage.names.is_none() {
        return Err("must run blockget -n first".into());
    }
    let g = &s.volume.geometry;
    let at = s.current.as_ref().map_or(libxfsr::units::Daddr(0), |l| libxfsr::units::Daddr(l.byte() / 512));
    let (ag, first) = g.daddr_to_ag(at).ok_or("the position is outside the filesystem")?;
    let last = u64::from(first.0).saturating_add(count);
    if count == 0 || count > MAX_BLOCKS || last > u64::from(g.ag_blocks(ag)) {
        return Err(format!("bad blockuse count {count}: AG {ag} has {} blocks from here", g.ag_blocks(ag) - first.0));
    }
    for b in first.0..last as u32 {
        describe(s, usage, g.join(ag, AgBlock(b)), named);
    }
    Ok(())
}

fn describe(s: &Session, usage: &Usage, fsb: FsBlock, named: bool) {
    let (ag, at) = s.volume.geometry.split(fsb);
    let owners = usage.of(ag, at);
    let (kind, ino) = kind(s, usage, ag, at, &owners);
    let inode = ino.map_or_else(String::new, |i| format!(" inode {i}"));
    let name = usage.names.as_ref().filter(|_| named).zip(ino).and_then(|(n, i)| n.path(i));
    let name = name.map_or_else(String::new, |n| format!(" {}", escape_word(&n)));
    say!(s, "block {fsb} ({ag}/{at}) type {kind}{inode}{name}");
}

/// The kind of a block, in xfs_db's words, and the inode that owns it.
pub(super) fn kind(
    s: &Session,
    usage: &Usage,
    ag: AgNumber,
    at: AgBlock,
    owners: &[&BlockOwner],
) -> (&'static str, Option<Ino>) {
    let Some(first) = owners.first() else { return ("unknown", None) };
    let plain = match first.owner {
        owner::NULL => "free2",
        owner::FS => {
            let g = &s.volume.geometry;
            let sector = (u64::from(at.0) << g.block_log) / u64::from(g.sector_size);
            match sector {
                0 => "sb",
                1 => "agf",
                2 => "agi",
                _ => "agfl",
            }
        }
        owner::LOG => "log",
        owner::AG if usage.listed.contains(&(ag.0, at.0)) => "freelist",
        owner::AG | owner::INOBT => tree(s, ag, at),
        owner::INODES => "inode",
        owner::REFC => "btrefcnt",
        owner::COW => "cow",
        o if owner::is_special(o) => "unknown",
        _ => "",
    };
    if !plain.is_empty() {
        return (plain, None);
    }
    // Of a shared block xfs_db names the owner that it meets last.
    let last = owners.iter().filter(|o| !owner::is_special(o.owner)).max_by_key(|o| o.owner).unwrap_or(first);
    let ino = Ino(last.owner);
    let kind = match s.volume.superblock.metadata_kind(ino) {
        _ if last.offset & RMAP_ATTR_FORK != 0 => "attr",
        Some(MetaType::RtBitmap) => "rtbitmap",
        Some(MetaType::RtSummary) => "rtsum",
        Some(_) => "quota",
        None => match Inode::read(&s.volume, ino, OnDamage::Keep) {
            Ok(i) if i.core.is_dir() => "dir",
            Ok(i) if i.core.is_symlink() => "symlink",
            Ok(i) if i.core.is_realtime() => "rtdata",
            Ok(_) if owners.len() > 1 => "rldata",
            Ok(_) => "data",
            Err(_) => "unknown",
        },
    };
    (kind, Some(ino))
}

/// Which of the trees that share an owner a block belongs to.
fn tree(s: &Session, ag: AgNumber, at: AgBlock) -> &'static str {
    let mut magic = [0; 4];
    let g = &s.volume.geometry;
    if s.volume.data_target().read_at(&mut magic, g.agbno_to_daddr(ag, at).bytes()).is_err() {
        return "unknown";
    }
    match u32::from_be_bytes(magic) {
        BNOBT_MAGIC => "btbno",
        CNTBT_MAGIC => "btcnt",
        RMAPBT_MAGIC => "btrmap",
        INOBT_MAGIC => "btino",
        FINOBT_MAGIC => "btfino",
        _ => "unknown",
    }
}
