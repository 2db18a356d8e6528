//! Freeing extents.

use super::extent::Span;
use super::owner::RmapOwner;
use super::{Space, extent, freelist, header, rmap};
use crate::error::Result;
use crate::txn::Transaction;
use crate::units::AgNumber;

/// Frees blocks of an AG. With an owner its mapping goes too; without one it is gone already.
pub(super) fn in_ag(
    t: &mut Transaction<'_>,
    space: &Space,
    ag: AgNumber,
    span: Span,
    owner: Option<&RmapOwner>,
) -> Result<()> {
    header::lock_agf(t, ag)?;
    freelist::fill(t, space, ag)?;
    if let Some(owner) = owner {
        rmap::remove(t, space, ag, span, owner)?;
    }
    extent::give(t, space, ag, span)?;
    space.blocks_changed(t, ag, span.1.into())
}
