//! Reverse mappings as the rmapbt has them.

use crate::out::say;
use crate::session::{Outcome, Session, number};
use libxfsr::btree::kinds::Rmap;
use libxfsr::btree::walk;
use libxfsr::cache::OnDamage;
use libxfsr::format::btree::{RMAP_ATTR_FORK, RMAP_BMBT_BLOCK, RMAP_OFFSET_MASK, RMAP_UNWRITTEN};
use libxfsr::space::{AgStore, AgTree};
use libxfsr::units::{AgBlock, AgNumber, FsBlock};
use std::ops::ControlFlow;

/// `fsmap [start_fsb [end_fsb]]`: the mappings that touch these blocks, all in one AG or in several.
pub(crate) fn fsmap(s: &mut Session, a: &[String]) -> Outcome {
    let g = &s.volume.geometry;
    if !g.features.rmapbt() {
        return Err("this filesystem has no reverse mappings; blockget and blockuse tell owners".into());
    }
    let place = |n: &String| -> Result<(AgNumber, AgBlock), String> {
        let fsb = FsBlock(number(n)?);
        g.fsblock_to_daddr(fsb).map(|_| g.split(fsb)).ok_or_else(|| format!("bad fsblock {fsb}"))
    };
    let last = AgNumber(g.ag_count.saturating_sub(1));
    let first = a.first().map_or(Ok((AgNumber(0), AgBlock(0))), place)?;
    let last = a.get(1).map_or(Ok((last, AgBlock(g.ag_blocks(last).saturating_sub(1)))), place)?;
    if first > last {
        return Err("the last block lies before the first".into());
    }
    let s = &*s;
    let mut number = 0u64;
    s.watched(|control| {
        for ag in (first.0.0..=last.0.0).map(AgNumber) {
            let low = if ag == first.0 { first.1.0 } else { 0 };
            let high = if ag == last.0 { last.1.0 } else { u32::MAX };
            let store = AgStore::new(&s.volume, ag, AgTree::Rmap, OnDamage::Fail)?;
            walk::<Rmap, _>(&store, control, &mut |r| {
                let (start, count) = (r.startblock.get(), r.blockcount.get());
                if start > high || s.out.broken() {
                    return Ok(ControlFlow::Break(()));
                }
                if u64::from(start) + u64::from(count) > u64::from(low) {
                    let (owner, offset) = (r.owner.get().cast_signed(), r.offset.get());
                    let bit = |flag: u64| u8::from(offset & flag != 0);
                    say!(
                        s,
                        "{number}: {ag}/{start} len {count} owner {owner} offset {} bmbt {} attrfork {} extflag {}",
                        offset & RMAP_OFFSET_MASK,
                        bit(RMAP_BMBT_BLOCK),
                        bit(RMAP_ATTR_FORK),
                        bit(RMAP_UNWRITTEN)
                    );
                    number += 1;
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(())
    })
    .map_err(|e: libxfsr::Error| e.to_string())
}
