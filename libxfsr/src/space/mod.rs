//! Space of an AG: where its trees live.

mod store;

pub use store::{AgStore, AgTree};
