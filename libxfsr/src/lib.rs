//! The XFS v5 filesystem as a library: what the bytes mean, where they live, and whether they agree.
//!
//! The floors, from the bottom; a module uses only floors below its own:
//! [`units`], [`error`], [`control`], [`geometry`], [`mod@format`] (no I/O); [`target`] (where bytes live); [`cache`] and [`volume`]
//! (verified blocks); [`txn`] (atomic change), [`journal`]; [`btree`] (one engine for every tree); [`space`], [`inode`], [`realtime`], [`quota`], [`dir`], [`attr`]
//! (one structure each); [`engine`] (a filesystem open in this process, and recovery), [`kernel`] (what Linux has mounted); [`mkfs`], [`dump`], [`check`](mod@check), [`spaceman`] (whole jobs).
//!
//! ```
//! use libxfsr::cache::OnDamage;
//! use libxfsr::target::{Target, Xfile};
//! use libxfsr::{check, control::Control, dir, inode::Inode, mkfs, volume::Volume};
//! use std::sync::Arc;
//!
//! // A filesystem in memory; FileTarget is for files and devices.
//! let plan = mkfs::plan(&mkfs::Options::default(), &mkfs::Devices::file(1 << 30))?;
//! let image = Arc::new(Xfile::new("image")?);
//! image.set_len(1 << 30)?;
//! let targets = mkfs::write::Targets { data: &*image, log: None, rt: None };
//! mkfs::write::write(&plan, &targets, &mkfs::write::WriteOptions::default(), &Control::none())?;
//!
//! let volume = Volume::from_targets(image, None, None, 32 << 20)?;
//! assert_eq!(check::check(&volume, &Control::none())?.verdict(), check::Verdict::Clean);
//! let root = Inode::read(&volume, volume.geometry.root_ino, OnDamage::Fail)?;
//! let names: Vec<_> = dir::entries(&volume, &root)?.into_iter().map(|entry| entry.name).collect();
//! assert_eq!(names, [&b"."[..], b".."]);
//! # Ok::<(), libxfsr::Error>(())
//! ```
//!
//! The library never prints and never exits, and nothing that it reads from a disk makes it panic.

// What could panic on a disk's bytes does not compile outside tests, or says in its place why it cannot. Arithmetic is checked in
// builds for development, in tests, and in the profile `checked`, with which the damage matrix and the fuzzers run; a release wraps, and
// what it computed is checked again before it is used.
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

// Where disk bytes are decoded and compared a conversion that cuts a number off says why it may.
#[cfg_attr(not(test), deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss))]
pub mod attr;
pub mod btree;
pub mod cache;
#[cfg_attr(not(test), deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss))]
pub mod check;
#[cfg(feature = "cli")]
pub mod cli;
pub mod control;
#[cfg_attr(not(test), deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss))]
pub mod datree;
#[cfg_attr(not(test), deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss))]
pub mod dir;
pub mod dump;
pub mod engine;
pub mod error;
#[cfg_attr(not(test), deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss))]
pub mod format;
pub mod geometry;
pub mod inode;
pub mod journal;
pub mod kernel;
pub mod mkfs;
#[cfg_attr(not(test), deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss))]
pub mod quota;
pub mod realtime;
pub mod space;
pub mod spaceman;
pub mod target;
pub mod text;
pub mod txn;
pub mod units;
pub mod volume;

pub use error::{Corruption, Error, Result};
