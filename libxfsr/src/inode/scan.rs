//! All inodes in use, in the order of their numbers.

use crate::btree::kinds::Inobt;
use crate::btree::walk;
use crate::cache::OnDamage;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::btree::InobtRec;
use crate::space::{AgStore, AgTree};
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
    let mut bytes = vec![0; (CHUNK * g.inode_size) as usize];
    for ag in volume.ags() {
        control.check()?;
        let mut flow = ControlFlow::Continue(());
        let walked = AgStore::new(volume, ag, AgTree::Ino, OnDamage::Fail).and_then(|store| {
            walk::<Inobt, _>(&store, control, &mut |r| {
                // A chunk's inodes may have many extents: that is long enough to ask.
                control.check()?;
                control.tell("inodes", inodes.min(passed), Some(inodes));
                passed += u64::from(r.count(g.features.sparse_inodes()));
                let used = !r.free.get();
                flow = chunk(volume, ag, r, &mut bytes, |n, read| {
                    if used >> n & 1 == 0 {
                        return ControlFlow::Continue(());
                    }
                    let ino = g.join_ino(ag, AgIno(r.startino.get().saturating_add(n)));
                    match g.is_valid_ino(ino) {
                        true => each(read.map(|b| (ino, b))),
                        false => each(Err(Error::NotFound(format!("inode {ino}")))),
                    }
                });
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

/// Calls `each` with the number in the chunk and the bytes, unverified, of every inode of a chunk that is no hole, free ones too,
/// until it breaks. `bytes` is room for the whole chunk, which is read at once where that can be.
pub(crate) fn chunk(
    volume: &Volume,
    ag: AgNumber,
    r: &InobtRec,
    bytes: &mut [u8],
    mut each: impl FnMut(u32, Result<&[u8]>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let g = &volume.geometry;
    let holes = r.holes(g.features.sparse_inodes());
    let offset_of = |n: u32| {
        let (agbno, index) = g.agino_to_block(AgIno(r.startino.get().saturating_add(n)));
        g.agbno_to_daddr(ag, agbno).bytes() + u64::from(index) * u64::from(g.inode_size)
    };
    let together = holes == 0 && volume.data_target().read_at(bytes, offset_of(0)).is_ok();
    for (n, inode) in (0..CHUNK).zip(bytes.chunks_exact_mut(g.inode_size as usize)) {
        if holes >> n & 1 == 0 {
            let read = if together { Ok(()) } else { volume.data_target().read_at(inode, offset_of(n)) };
            each(n, read.map(|()| &*inode))?;
        }
    }
    ControlFlow::Continue(())
}
