//! A filesystem that this process has open: so far, its recovery.

pub mod recover;

pub use recover::{Recovered, Targets, View, physical_view, recover, replayed_view};
