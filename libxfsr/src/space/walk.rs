//! All records of a tree, in order.

use crate::btree::{Cursor, Kind, Store};
use crate::control::Control;
use crate::error::{Corruption, Result, Rule};
use std::ops::ControlFlow;

/// Steps between two looks at the control.
const CHECK_EVERY: u64 = 1024;

/// Calls `each` with the records of a tree, in order. Records that are not in order end the walk, so it is finite.
///
/// # Errors
/// Those of reading; [`Rule::Order`] where the records are not in order; those of `each`; [`crate::Error::Stopped`].
pub fn walk<K: Kind, S: Store>(
    store: &S,
    control: &Control<'_>,
    each: &mut dyn FnMut(&K::Record) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let Some(mut cursor) = Cursor::<K, S>::first(store)? else { return Ok(()) };
    let mut before: Option<K::Record> = None;
    for step in 0u64.. {
        if step % CHECK_EVERY == 0 {
            control.check()?;
        }
        let Some(r) = cursor.record() else { break };
        if before.as_ref().is_some_and(|b| !K::in_order(b, &r)) {
            let c = Corruption::new(K::NAME, "recs", Rule::Order).found(K::show(&K::low(&r)));
            return Err(store.locate(c, None).into());
        }
        if each(&r)?.is_break() || !cursor.advance()? {
            break;
        }
        before = Some(r);
    }
    Ok(())
}
