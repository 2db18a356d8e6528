//! The journal, as far as reading a filesystem needs it: where its head is, and whether it is clean.

mod head;

pub use head::{LogState, log_state};
