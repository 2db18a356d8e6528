//! The journal: where its head is, whether it is clean, what its records hold, replay; and writing ([`Journal`]).

mod close;
mod head;
mod items;
pub mod listing;
mod records;
mod replay;
pub mod reservation;
mod transactions;
mod write;

pub(crate) use close::unmount_record;
pub use close::{close, restamp};
pub use head::{LogState, log_state, verify_cycles};
pub use records::{End, Record, records, whole_records};
pub use replay::{Done, PendingIntent, Replayed, replay, replay_if};
pub use transactions::{Item, Summary, Transactions, read};
pub use write::{Journal, Options, may_write};
