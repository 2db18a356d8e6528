//! A filesystem that this process has open: what it shows and what it changes, against the kernel, a model, and crashes.

mod crash;
mod limits;
mod model;
mod random;
mod reading;
mod walk;
