//! A filesystem that this process has open.
//!
//! [`Filesystem`] is shared by threads; [`Handle`]s are inodes in use, through which everything is read and changed. Each change is one chain of
//! transactions, which a crash leaves wholly or not at all; it is durable after [`Filesystem::sync`].
//!
//! **Order of locks** (checked in builds for development): the gate that a freeze closes, contents of files ascending, room in the log, inodes ascending, AGIs ascending, AGFs
//! ascending, blocks of a tree from the root down, clusters. Who reads an inode locks it shared, and takes no second inode with it.
//! Names are looked up under the directory's lock, and what they lead to is counted as used before that is let go: whoever then locks inodes in their
//! order, and finds under the locks that names have changed, begins anew.

mod attributes;
mod change;
mod data;
mod filesystem;
mod handle;
pub mod identity;
mod names;
mod path;
mod quota;
mod reading;
pub mod recover;
mod remove;
mod rename;

pub use attributes::SetAttr;
pub use filesystem::{Filesystem, Options, Statfs, Time};
pub use handle::{Handle, Stat};
pub use names::{New, Node};
pub use path::Follow;
pub use reading::{Entries, ReadDir};
pub use recover::{Recovered, Targets, View, physical_view, recover, replayed_view};
pub use rename::Rename;
