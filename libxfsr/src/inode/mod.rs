//! Inodes on a volume: their forks, what maps to where, and file contents.

pub mod file;
pub mod fork;
pub mod scan;

pub use file::{Inode, read_at, symlink_target};
