//! Inodes on a volume: their forks and what maps to where.

pub mod fork;
