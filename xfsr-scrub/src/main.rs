//! Placeholder until the library below it is in place.
#![forbid(unsafe_code)]
fn main() {}
