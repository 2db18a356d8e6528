//! The XFS v5 filesystem as a library: what the bytes mean, where they live, and whether they agree.
//!
//! The floors, from the bottom: [`units`], [`error`], [`geometry`], [`mod@format`] (no I/O); [`target`] (where bytes live);
//! [`cache`] and [`volume`] (verified blocks); [`btree`] (one engine for every tree). A module uses only floors below its own.
//!
//! The library never prints and never exits, and nothing that it reads from a disk makes it panic.

// What could panic on a disk's bytes does not compile outside tests, or says in its place why it cannot. Arithmetic is checked at run
// time, in release builds too.
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::get_unwrap,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

pub mod attr;
pub mod btree;
pub mod cache;
pub mod check;
#[cfg(feature = "cli")]
pub mod cli;
pub mod control;
pub mod dir;
pub mod dump;
pub mod engine;
pub mod error;
pub mod format;
pub mod geometry;
pub mod inode;
pub mod journal;
pub mod kernel;
pub mod mkfs;
pub mod realtime;
pub mod space;
pub mod spaceman;
pub mod target;
pub mod text;
pub mod units;
pub mod volume;

pub use error::{Corruption, Error, Result};
