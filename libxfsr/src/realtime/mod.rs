//! The realtime section on a volume: what its bitmap says is free.

use crate::cache::{OnDamage, Want};
use crate::control::Control;
use crate::error::{Corruption, Error, ForkKind, Result, Rule};
use crate::format::realtime::{Words, block_types, extents_per_block};
use crate::inode::Inode;
use crate::units::{FileBlock, FsBlock, Ino, RtExtent};
use crate::volume::Volume;
use std::ops::ControlFlow;

/// Calls `each` with the free runs among the first `extents` realtime extents of a bitmap file, ascending, as long as they can be,
/// until it breaks: first extent and number of extents.
///
/// # Errors
/// When the file or its blocks cannot be read, break a rule, or do not cover these extents; [`Error::Stopped`].
pub fn free_runs(
    volume: &Volume,
    bitmap: Ino,
    extents: u64,
    control: &Control<'_>,
    each: &mut dyn FnMut(RtExtent, u64) -> ControlFlow<()>,
) -> Result<()> {
    let g = &volume.geometry;
    let per_block = extents_per_block(g).max(1);
    let blocks = extents.div_ceil(per_block);
    let inode = Inode::read(volume, bitmap, OnDamage::Fail)?;
    let short = |at: u64| -> Error {
        let c = Corruption::new("rtbitmap", "extents", Rule::Missing).in_inode(bitmap);
        c.in_fork(ForkKind::Data, Some(FileBlock(at))).expected(format_args!("{blocks} blocks")).into()
    };
    let want = Want::new(block_types(g).0, OnDamage::Fail).owned_by(bitmap);
    let mut run = (0u64, 0u64);
    let mut at = 0u64;
    for e in inode.extents(volume, ForkKind::Data)? {
        if e.offset != at {
            break;
        }
        for n in 0..e.count.min(blocks - at) {
            control.check()?;
            let block = volume.block(FsBlock(e.start.saturating_add(n)), &want)?;
            let first = (at + n) * per_block;
            let bits = per_block.min(extents - first) as usize;
            for (start, count) in Words::of(&block, g).runs(bits) {
                let (from, to) = (first + start as u64, first + (start + count) as u64);
                if run.0 < run.1 && run.1 == from {
                    run.1 = to;
                    continue;
                }
                if run.0 < run.1 && each(RtExtent(run.0), run.1 - run.0).is_break() {
                    return Ok(());
                }
                run = (from, to);
            }
        }
        at = at.saturating_add(e.count).min(blocks);
    }
    if at < blocks {
        return Err(short(at));
    }
    if run.0 < run.1 {
        let _ = each(RtExtent(run.0), run.1 - run.0);
    }
    Ok(())
}
