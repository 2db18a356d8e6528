//! Space of an AG: where its trees live, and what its headers count.

mod store;
mod totals;

pub use store::{AgStore, AgTree};
pub use totals::Totals;
