//! All records of a tree, in order.

use super::{Cursor, Kind, Store};
use crate::control::Control;
use crate::error::Result;
use std::ops::ControlFlow;

/// Steps between two looks at the control.
const CHECK_EVERY: u64 = 1024;

/// Calls `each` with the records of a tree, in order, until it breaks. The walk is finite: the cursor refuses records that are not
/// in order.
///
/// # Errors
/// As [`Cursor::advance`]; those of `each`; [`Error::Stopped`](crate::Error::Stopped).
pub fn walk<K: Kind, S: Store>(
    store: &S,
    control: &Control<'_>,
    each: &mut dyn FnMut(&K::Record) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let Some(mut cursor) = Cursor::<K, S>::first(store)? else { return Ok(()) };
    for step in 0u64.. {
        if step % CHECK_EVERY == 0 {
            control.check()?;
        }
        let Some(r) = cursor.record() else { break };
        if each(&r)?.is_break() || !cursor.advance()? {
            break;
        }
    }
    Ok(())
}
