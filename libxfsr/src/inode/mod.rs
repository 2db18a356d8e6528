//! Inodes on a volume: their forks, what maps to where, and file contents; [`map`] changes forks, [`chunk`] allocates inodes.

pub mod chunk;
pub mod file;
pub mod fork;
pub mod map;
pub mod scan;

pub use file::{Inode, read_at, symlink_target};
pub use map::ForkMut;
