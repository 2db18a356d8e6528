//! Making a filesystem: [`Options`] in, a [`Plan`] of every number out, then [`write`](write::write) puts it on its targets.
//!
//! ```no_run
//! use libxfsr::mkfs::{self, Devices, Options};
//! let devices = Devices::file(1 << 30);
//! let plan = mkfs::plan(&Options::default(), &devices)?;
//! println!("{}", plan.report("image", None, None).render());
//! # Ok::<(), libxfsr::Error>(())
//! ```
//!
//! Planning touches no target: whatever is refused is refused there, before the first write. Defaults, geometry and the bytes
//! written follow what mkfs.xfs 6.1 was observed to do; the tests of the program `xfsr-mkfs` compare the two byte for byte.

mod agsize;
mod features;
mod groups;
mod inodes;
mod layout;
mod logsize;
mod options;
pub mod populate;
pub mod probe;
mod realtime;
mod signature;
mod sizes;
mod stripes;
mod superblock;
pub mod write;

pub use layout::{Plan, plan};
pub use options::{
    DataOptions, Devices, InodeOptions, LogOptions, MetadataOptions, NamingOptions, Options, RealtimeOptions, Topology,
};
