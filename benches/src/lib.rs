//! Benchmarks against the stock tools: the same images, the same run, taking turns.
//!
//! A case runs its programs in turn, so that what else the machine does falls on all of them alike, and compares medians of wall
//! time, processor time and peak memory. What a requirement demands is said with each case, as PASS or FAIL.

pub mod cases;
pub mod create;
pub mod fill;
pub mod images;
pub mod measure;
pub mod phases;
pub mod populate;
pub mod replay;
pub mod report;
pub mod usage;
