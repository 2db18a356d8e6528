//! A filesystem that this process has open: so far, what recovery makes of a dirty log.

mod recover;

pub use recover::{View, replayed_view};
