//! Inodes on a volume: their forks, what maps to where, and file contents; [`map`] changes forks, [`data`] contents, [`chunk`], [`create`] and
//! [`unlinked`] inodes as such.

pub mod chunk;
pub mod create;
pub mod data;
pub mod file;
pub mod fork;
pub mod map;
pub mod scan;
pub mod unlinked;

pub use data::FileMut;
pub use file::{Inode, read_at, symlink_target};
pub use map::{ForkMut, MapStep};
