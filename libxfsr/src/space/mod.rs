//! Space of an AG: where its trees live, and what its headers count.

mod counters;
mod store;

pub use counters::Counters;
pub use store::{AgStore, AgTree};
