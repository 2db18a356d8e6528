//! Lists of inodes that no name leads to and that are in use still: open files, and what is being freed. Recovery finds them there.
//!
//! The AGI has 64 buckets by inode number, each the head of a list that is linked one way, by a pointer in each inode. The AGI guards the lists; the
//! pointers are logged with the inodes' clusters. Who takes one out of the middle needs the one before it: [`Space`] remembers it, and what it
//! remembers is looked at before it is believed; else the list is walked.

use crate::error::{Corruption, Error, Result, Rule};
use crate::format::ag::UNLINKED_BUCKETS;
use crate::geometry::Geometry;
use crate::space::{self, Space, header};
use crate::txn::Transaction;
use crate::units::{AgIno, AgNumber, Ino, NULL_AGINO};
use std::sync::Arc;

fn bucket_of(agino: AgIno) -> usize {
    agino.0 as usize % UNLINKED_BUCKETS
}

fn bad(ag: AgNumber, rule: Rule) -> Box<Corruption> {
    Corruption::new("agi", "unlinked", rule).in_ag(ag, None)
}

fn lock(t: &mut Transaction<'_>, ino: Ino) -> Result<(AgNumber, AgIno)> {
    let g = t.geometry();
    if !g.is_valid_ino(ino) {
        return Err(Error::NotFound(format!("inode {ino}")));
    }
    let (ag, agino) = g.split_ino(ino);
    if !space::may_lock_inodes(t, ag) {
        return Err(Error::invalid(format!("the unlinked list of inode {ino} is wanted by who has locked other AGs")));
    }
    header::lock_agi(t, ag)?;
    Ok((ag, agino))
}

fn head(t: &Transaction<'_>, ag: AgNumber, bucket: usize) -> Result<u32> {
    let agi = header::agi(t, ag)?;
    Ok(agi.unlinked.get(bucket).map_or(NULL_AGINO, |n| n.get()))
}

fn set_head(t: &mut Transaction<'_>, ag: AgNumber, bucket: usize, to: u32) -> Result<()> {
    header::change_agi(t, ag, |agi| agi.unlinked.get_mut(bucket).map_or((), |head| head.set(to)))
}

/// The number behind an inode in its list, which must belong there.
fn behind(t: &Transaction<'_>, ag: AgNumber, agino: AgIno) -> Result<u32> {
    let g = t.geometry();
    let next = t.next_unlinked(g.join_ino(ag, agino))?;
    if next != NULL_AGINO && (!g.is_valid_agino(ag, AgIno(next)) || bucket_of(AgIno(next)) != bucket_of(agino)) {
        let c = Corruption::new("inode", "next_unlinked", Rule::Range).in_inode(g.join_ino(ag, agino)).found(next);
        return Err(c.expected(format_args!("an inode of bucket {}", bucket_of(agino))).into());
    }
    Ok(next)
}

fn remember(t: &mut Transaction<'_>, space: &Space, changes: Vec<(Ino, Option<AgIno>)>) {
    let space: Option<Arc<Space>> = space.itself();
    t.after_commit(move |_| {
        if let Some(space) = space {
            changes.into_iter().for_each(|(ino, before)| space.unlinked.set(ino, before));
        }
    });
}

fn named(g: &Geometry, ag: AgNumber, agino: u32) -> Option<Ino> {
    (agino != NULL_AGINO).then(|| g.join_ino(ag, AgIno(agino)))
}

/// Puts an inode on its list: its last name is gone, or it never had one. The transaction has locked the inode, and the AGI of its AG
/// or no AGF and no AGI of a higher one.
///
/// # Errors
/// [`Error::Corrupt`] where it is on a list already, or the list is damaged; I/O errors. The transaction is dropped then.
pub fn add(t: &mut Transaction<'_>, space: &Space, ino: Ino) -> Result<()> {
    let g = t.geometry();
    let (ag, agino) = lock(t, ino)?;
    let bucket = bucket_of(agino);
    let first = head(t, ag, bucket)?;
    let next = t.next_unlinked(ino)?;
    if first == agino.0 || next != NULL_AGINO {
        let c = Corruption::new("inode", "next_unlinked", Rule::Loop).in_inode(ino).found(next);
        return Err(c.expected("an inode on no list").into());
    }
    if first != NULL_AGINO {
        if bucket_of(AgIno(first)) != bucket {
            return Err(bad(ag, Rule::Mismatch)
                .found(first)
                .expected(format_args!("a number of bucket {bucket}"))
                .into());
        }
        t.set_next_unlinked(ino, first)?;
    }
    set_head(t, ag, bucket, agino.0)?;
    let changes = [(Some(ino), None), (named(g, ag, first), Some(agino))];
    remember(t, space, changes.into_iter().filter_map(|(ino, before)| ino.map(|i| (i, before))).collect());
    Ok(())
}

/// The inode before another in a list of which that is not the first.
fn before(t: &Transaction<'_>, space: &Space, ag: AgNumber, agino: AgIno) -> Result<AgIno> {
    let g = t.geometry();
    if let Some(hint) = space.unlinked.get(g.join_ino(ag, agino))
        && bucket_of(hint) == bucket_of(agino)
        && t.next_unlinked(g.join_ino(ag, hint)).is_ok_and(|next| next == agino.0)
    {
        return Ok(hint);
    }
    let agi = header::agi(t, ag)?;
    let bucket = bucket_of(agino);
    let mut at = agi.unlinked.get(bucket).map_or(NULL_AGINO, |n| n.get());
    for _ in 0..agi.count.get() {
        if at == NULL_AGINO {
            let c = bad(ag, Rule::Missing).expected(format_args!("inode {agino} in bucket {bucket}"));
            return Err(c.into());
        }
        let next = behind(t, ag, AgIno(at))?;
        if next == agino.0 {
            return Ok(AgIno(at));
        }
        at = next;
    }
    let expected = format!("at most {} inodes in bucket {bucket}", agi.count);
    Err(bad(ag, Rule::Loop).found(at).expected(expected).into())
}

/// Takes an inode off its list: it is freed, or gets a name. The transaction has locked the inode, and the AGI of its AG or no AGF and no AGI of a
/// higher one.
///
/// # Errors
/// [`Error::Corrupt`] where it is on no list, or the list is damaged or endless; I/O errors. The transaction is dropped then.
pub fn remove(t: &mut Transaction<'_>, space: &Space, ino: Ino) -> Result<()> {
    let g = t.geometry();
    let (ag, agino) = lock(t, ino)?;
    let bucket = bucket_of(agino);
    let first = head(t, ag, bucket)?;
    let next = behind(t, ag, agino)?;
    if next == agino.0 {
        let c = Corruption::new("inode", "next_unlinked", Rule::Loop).in_inode(ino).found(next);
        return Err(c.expected("another inode").into());
    }
    let before = if first == agino.0 { None } else { Some(before(t, space, ag, agino)?) };
    match before {
        None => set_head(t, ag, bucket, next)?,
        Some(before) => t.set_next_unlinked(g.join_ino(ag, before), next)?,
    }
    if next != NULL_AGINO {
        t.set_next_unlinked(ino, NULL_AGINO)?;
    }
    let changes = [(Some(ino), None), (named(g, ag, next), before)];
    remember(t, space, changes.into_iter().filter_map(|(ino, before)| ino.map(|i| (i, before))).collect());
    Ok(())
}
