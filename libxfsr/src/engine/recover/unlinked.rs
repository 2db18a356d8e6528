//! Inodes that had no name any more when the machine stopped, and were open: nobody has them open now.

use crate::cache::OnDamage;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::ag::{AGI, Agi};
use crate::space::Space;
use crate::txn::Scope;
use std::sync::Arc;
use zerocopy::FromBytes;

/// Frees them; says how many those were.
pub(super) fn free(scope: &Scope, _space: &Arc<Space>, control: &Control<'_>) -> Result<u64> {
    for ag in scope.volume().geometry.ags() {
        control.check()?;
        let agi = scope.volume().ag_header(ag, 2, &AGI, OnDamage::Fail)?;
        let (agi, _) = Agi::ref_from_prefix(&agi).map_err(|_| Error::invalid("an AG header is too short"))?;
        if agi.unlinked.iter().any(|first| first.get() != u32::MAX) {
            return Err(Error::unsupported("unlinked inodes wait to be freed: mount it with Linux"));
        }
    }
    Ok(0)
}
