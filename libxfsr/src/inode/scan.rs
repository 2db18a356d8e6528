//! All inodes in use, in the order of their numbers.

use crate::btree::kinds::Inobt;
use crate::cache::OnDamage;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::btree::InobtRec;
use crate::space::{AgStore, AgTree, walk};
use crate::units::{AgIno, AgNumber, Ino};
use crate::volume::Volume;
use std::ops::ControlFlow;

/// Inodes in a chunk.
const CHUNK: u32 = 64;

/// What a scan hands over: the number and the bytes of an inode, unverified, or why a part could not be read.
pub type Seen<'a> = Result<(Ino, &'a [u8])>;

/// Calls `each` with every inode that the inode btrees call used. A tree that cannot be read is handed over as an error, and the
/// scan goes on with the next AG.
///
/// # Errors
/// [`Error::Stopped`] when the caller's [`Control`] says so.
pub fn for_each_used(
    volume: &Volume,
    control: &Control<'_>,
    each: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>,
) -> Result<()> {
    let g = &volume.geometry;
    // The superblock's count is that of the last unmount: good enough to tell how far this is.
    let (mut passed, inodes) = (0, volume.superblock.icount.get());
    for ag in volume.ags() {
        control.check()?;
        let mut flow = ControlFlow::Continue(());
        let walked = AgStore::new(volume, ag, AgTree::Ino, OnDamage::Fail).and_then(|store| {
            walk::<Inobt, _>(&store, control, &mut |r| {
                // A chunk's inodes may have many extents: that is long enough to ask.
                control.check()?;
                control.tell("inodes", inodes.min(passed), Some(inodes));
                passed += u64::from(r.count(g.features.sparse_inodes()));
                flow = chunk(volume, ag, r, each);
                Ok(flow)
            })
        });
        if flow.is_continue() {
            flow = match walked {
                Ok(()) => continue,
                Err(Error::Stopped) => return Err(Error::Stopped),
                Err(e) => each(Err(e)),
            };
        }
        if flow.is_break() {
            break;
        }
    }
    Ok(())
}

fn chunk(
    volume: &Volume,
    ag: AgNumber,
    r: &InobtRec,
    each: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let g = &volume.geometry;
    let size = g.inode_size as usize;
    let holes = r.holes(g.features.sparse_inodes());
    let used = !r.free.get() & !holes;
    let start = r.startino.get();
    let mut bytes = vec![0; size * CHUNK as usize];
    let offset = g.ino_to_offset(g.join_ino(ag, AgIno(start)));
    let together =
        holes == 0 && used != 0 && offset.is_some_and(|o| volume.data_target().read_at(&mut bytes, o).is_ok());
    for i in (0..CHUNK).filter(|i| used >> i & 1 == 1) {
        let ino = g.join_ino(ag, AgIno(start.saturating_add(i)));
        let at = i as usize * size;
        match bytes.get(at..at + size).filter(|_| together) {
            Some(b) => each(Ok((ino, b)))?,
            None => match volume.inode_bytes(ino) {
                Ok(b) => each(Ok((ino, &b)))?,
                Err(e) => each(Err(e))?,
            },
        }
    }
    ControlFlow::Continue(())
}
