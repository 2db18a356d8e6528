//! The journal, as far as reading a filesystem needs it: where its head is, whether it is clean, and what its records hold.

mod head;
mod items;
mod records;
mod transactions;

pub use head::{LogState, log_state};
pub use records::{Record, records};
pub use transactions::{Item, Summary, Transactions, read};
