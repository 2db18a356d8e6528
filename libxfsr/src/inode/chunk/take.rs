//! A free inode is found and taken.

use super::record::{Record, key};
use crate::btree::kinds::{Finobt, Inobt};
use crate::btree::{Kind, Lookup, Position};
use crate::error::{Corruption, Result, Rule};
use crate::format::btree::{InobtKey, InobtRec};
use crate::format::inode::Dinode;
use crate::geometry::Geometry;
use crate::space::{AgTree, AgTreeMut, Space, header};
use crate::txn::{InodeLock, InodeLocks, Transaction};
use crate::units::{AgIno, AgNumber, Ino, NULL_AGINO};

/// Records on each side of the parent that are looked at in a tree in which most are full, before another place is tried.
const CLOSE: usize = 10;

/// Locks the first free inode of a record that nobody has locked: who frees one keeps its lock until all is done.
fn lock_one(locks: &InodeLocks, g: &Geometry, ag: AgNumber, r: &Record) -> Option<(AgIno, InodeLock)> {
    let valid = |a: &AgIno| g.is_valid_agino(ag, *a);
    r.candidates().filter(valid).find_map(|a| locks.try_lock(g.join_ino(ag, a)).map(|lock| (a, lock)))
}

/// What was found.
struct Found {
    record: Record,
    agino: AgIno,
    lock: InodeLock,
}

struct Search<'a, 't, 's> {
    tree: AgTreeMut<'t, 's>,
    ag: AgNumber,
    g: &'a Geometry,
    locks: &'a InodeLocks,
}

impl Search<'_, '_, '_> {
    fn try_record<K: Kind<Record = InobtRec, Key = InobtKey>>(
        &self,
        p: &Position<K>,
    ) -> Result<(AgIno, Option<Found>)> {
        let Some(r) = p.record(&self.tree)? else { return Ok((AgIno(NULL_AGINO), None)) };
        let record = Record::decode(K::NAME, self.ag, &r, self.g.features.sparse_inodes())?;
        let found = lock_one(self.locks, self.g, self.ag, &record);
        Ok((record.start, found.map(|(agino, lock)| Found { record, agino, lock })))
    }

    /// Looks at the records around a number, the nearest first, at most `limit` on each side.
    fn around<K: Kind<Record = InobtRec, Key = InobtKey>>(&self, from: AgIno, limit: usize) -> Result<Option<Found>> {
        let mut left = Position::<K>::lookup(&self.tree, &key(from), Lookup::LessOrEqual)?;
        let mut right = match &left {
            Some(p) => {
                let mut p = p.clone();
                if p.advance(&self.tree)? { Some(p) } else { None }
            }
            None => Position::<K>::first(&self.tree)?,
        };
        for _ in 0..limit {
            if left.is_none() && right.is_none() {
                break;
            }
            let mut sides = Vec::new();
            if let Some(p) = &mut left {
                let (start, found) = self.try_record(p)?;
                sides.push((start, found));
                if !p.retreat(&self.tree)? {
                    left = None;
                }
            }
            if let Some(p) = &mut right {
                let (start, found) = self.try_record(p)?;
                sides.push((start, found));
                if !p.advance(&self.tree)? {
                    right = None;
                }
            }
            sides.sort_by_key(|(start, _)| start.0.abs_diff(from.0));
            if let Some(found) = sides.into_iter().find_map(|(_, found)| found) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn at<K: Kind<Record = InobtRec, Key = InobtKey>>(&self, start: AgIno) -> Result<Option<Found>> {
        match Position::<K>::lookup(&self.tree, &key(start), Lookup::Equal)? {
            Some(p) => self.try_record(&p).map(|(_, found)| found),
            None => Ok(None),
        }
    }
}

fn find(t: &mut Transaction<'_>, space: &Space, ag: AgNumber, near: Option<AgIno>) -> Result<Option<Found>> {
    let (g, locks) = (t.geometry(), t.scope().locks());
    let newest = header::agi(t, ag)?.newino.get();
    let newest = Some(AgIno(newest)).filter(|n| n.0 != NULL_AGINO);
    if g.features.finobt() {
        let s = Search { tree: AgTreeMut::new(t, space, ag, AgTree::Fino), ag, g, locks };
        if near.is_none()
            && let Some(newest) = newest
            && let Some(found) = s.at::<Finobt>(newest)?
        {
            return Ok(Some(found));
        }
        return s.around::<Finobt>(near.unwrap_or(AgIno(0)), usize::MAX);
    }
    let s = Search { tree: AgTreeMut::new(t, space, ag, AgTree::Ino), ag, g, locks };
    if let Some(near) = near
        && let Some(found) = s.around::<Inobt>(near, CLOSE)?
    {
        return Ok(Some(found));
    }
    if let Some(newest) = newest
        && let Some(found) = s.at::<Inobt>(newest)?
    {
        return Ok(Some(found));
    }
    s.around::<Inobt>(near.unwrap_or(AgIno(0)), usize::MAX)
}

/// The record of a tree for an inode.
pub(super) fn covering<K: Kind<Record = InobtRec, Key = InobtKey>>(
    tree: &AgTreeMut<'_, '_>,
    g: &Geometry,
    ag: AgNumber,
    agino: AgIno,
) -> Result<Option<(Position<K>, Record)>> {
    let Some(p) = Position::<K>::lookup(tree, &key(agino), Lookup::LessOrEqual)? else { return Ok(None) };
    let Some(r) = p.record(tree)? else { return Ok(None) };
    let record = Record::decode(K::NAME, ag, &r, g.features.sparse_inodes())?;
    Ok(record.index(agino).map(|_| (p, record)))
}

/// The record of a tree that begins there.
pub(super) fn read<K: Kind<Record = InobtRec, Key = InobtKey>>(
    tree: &AgTreeMut<'_, '_>,
    g: &Geometry,
    ag: AgNumber,
    start: AgIno,
) -> Result<Option<(Position<K>, Record)>> {
    let Some(p) = Position::<K>::lookup(tree, &key(start), Lookup::Equal)? else { return Ok(None) };
    let Some(r) = p.record(tree)? else { return Ok(None) };
    let record = Record::decode(K::NAME, ag, &r, g.features.sparse_inodes())?;
    Ok(Some((p, record)))
}

/// Both trees must say the same of a chunk.
pub(super) fn same(ag: AgNumber, in_finobt: &Record, in_inobt: &Record) -> Result<()> {
    if in_finobt == in_inobt {
        return Ok(());
    }
    let c = Corruption::new("finobt", "recs", Rule::Mismatch).in_ag(ag, None);
    let c = c.found(format_args!("inodes {} free {:#x}", in_finobt.start, in_finobt.free));
    Err(c.expected(format_args!("{:#x} as in the inobt", in_inobt.free)).into())
}

/// A chunk is missing in a tree.
pub(super) fn missing(tree: &'static str, ag: AgNumber, start: AgIno) -> crate::Error {
    let c = Corruption::new(tree, "recs", Rule::Missing).in_ag(ag, None);
    c.expected(format_args!("the chunk of inode {start}")).into()
}

/// Takes a free inode of an AG whose AGI is locked, close to another where one is given; none where others have locked all that are free.
pub(super) fn take(t: &mut Transaction<'_>, space: &Space, ag: AgNumber, near: Option<AgIno>) -> Result<Option<Ino>> {
    let g = t.geometry();
    let sparse = g.features.sparse_inodes();
    let Some(Found { record, agino, lock }) = find(t, space, ag, near)? else { return Ok(None) };
    let ino = g.join_ino(ag, agino);
    t.keep(lock)?;
    let on_disk = t.inode(ino)?;
    if let Some(d) = Dinode::from_bytes(on_disk).filter(|d| !d.is_free()) {
        let c = Corruption::new("inode", "mode", Rule::Mismatch).in_inode(ino);
        let c = c.found(format_args!("{:#o}", d.mode)).expected("0, for the inode trees call it free");
        return Err(c.into());
    }
    let mut now = record;
    now.free &= !(1 << (agino.0 - record.start.0));
    if g.features.finobt() {
        let tree = &mut AgTreeMut::new(t, space, ag, AgTree::Fino);
        let (mut p, r) = read::<Finobt>(tree, g, ag, record.start)?.ok_or_else(|| missing("finobt", ag, agino))?;
        same(ag, &r, &record)?;
        match now.freecount() {
            0 => drop(p.remove(tree)?),
            _ => p.update(tree, &now.encode(sparse))?,
        }
    }
    let tree = &mut AgTreeMut::new(t, space, ag, AgTree::Ino);
    let (mut p, r) = read::<Inobt>(tree, g, ag, record.start)?.ok_or_else(|| missing("inobt", ag, agino))?;
    same(ag, &record, &r)?;
    p.update(tree, &now.encode(sparse))?;
    header::change_agi(t, ag, |agi| header::add("agi", "freecount", &mut agi.freecount, -1, ag))??;
    space.inodes_changed(t, 0, -1);
    Ok(Some(ino))
}
