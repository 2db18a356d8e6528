//! Extents that copy on write had set aside when the machine stopped: nobody knows any more what they were for.

use crate::btree::{self, kinds::Refcount};
use crate::cache::OnDamage;
use crate::control::Control;
use crate::error::{Corruption, Result, Rule};
use crate::format::btree::REFCOUNT_COW;
use crate::format::log::items::RefcountOp;
use crate::space::{AgStore, AgTree, CountChange, CountChanges, FreeExtents, Space};
use crate::txn::{Reservation, Scope};
use crate::units::{AgBlock, AgNumber};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Frees them; says how many blocks that were.
pub(super) fn free(scope: &Scope, space: &Arc<Space>, control: &Control<'_>) -> Result<u64> {
    let g = &scope.volume().geometry;
    if !g.features.reflink() {
        return Ok(0);
    }
    let mut blocks = 0;
    for ag in g.ags() {
        for (at, count) in found(scope, ag, control)? {
            control.check()?;
            let start = g.join(ag, at);
            let mut t = scope.begin(Reservation::default())?;
            let change = CountChange { op: RefcountOp::FreeCow, start, blocks: count };
            t.defer(CountChanges::new(space.clone(), g, vec![change])?)?;
            t.defer(FreeExtents::new(space.clone(), g, vec![(start, count)], None)?)?;
            t.commit()?;
            blocks += u64::from(count);
        }
    }
    Ok(blocks)
}

/// Those of an AG.
fn found(scope: &Scope, ag: AgNumber, control: &Control<'_>) -> Result<Vec<(AgBlock, u32)>> {
    let g = &scope.volume().geometry;
    let store = AgStore::new(scope.volume(), ag, AgTree::Refcount, OnDamage::Fail)?;
    let mut all = Vec::new();
    btree::walk::<Refcount, _>(&store, control, &mut |r| {
        let (start, count) = (r.startblock.get(), r.blockcount.get());
        if start & REFCOUNT_COW != 0 {
            let at = AgBlock(start & !REFCOUNT_COW);
            if r.refcount.get() != 1 || !g.is_valid_agextent(ag, at, count) {
                let c = Corruption::new("refcountbt", "recs", Rule::Range).in_ag(ag, Some(at));
                let found = format_args!("{count} staged blocks, counted {} times", r.refcount);
                return Err(c.found(found).expected("an extent of the AG, counted once").into());
            }
            all.push((at, count));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(all)
}
