//! Space of an AG: where its trees live.

mod store;
mod walk;

pub use store::{AgStore, AgTree};
pub use walk::walk;
