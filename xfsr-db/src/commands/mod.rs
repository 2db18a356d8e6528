//! The commands.

pub(crate) mod address;
pub(crate) mod attributes;
pub(crate) mod btdump;
pub(crate) mod btheight;
pub(crate) mod convert;
pub(crate) mod edit;
pub(crate) mod files;
pub(crate) mod frag;
pub(crate) mod fsmap;
pub(crate) mod limits;
pub(crate) mod logprint;
pub(crate) mod names;
pub(crate) mod rdump;
pub(crate) mod reserves;
pub(crate) mod show;
pub(crate) mod space;
pub(crate) mod usage;
mod verbose;
