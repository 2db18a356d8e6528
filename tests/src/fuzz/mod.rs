//! Fuzz targets: one function per parser, and one for whole images. `fuzz/` hands them to libFuzzer; `tests/tests/replay.rs` runs
//! them on stable with the seeds, the found cases and mutated blocks that the kernel wrote.
//!
//! A target takes any bytes and must return: no panic, no endless loop, no memory that grows with a number in the bytes. What
//! it finds wrong is not looked at. Blocks are stamped (magic, UUID, own address, checksum) before they are verified, so that a
//! mutation is not stopped by the checksum alone.

mod blocks;
mod forks;
pub mod image;
mod log;
pub mod mutate;
mod trees;

use libxfsr::format::Context;
use libxfsr::format::features::Incompat;
use libxfsr::format::superblock::Superblock;
use libxfsr::geometry::Geometry;
use libxfsr::mkfs::{Devices, Options, plan};
use libxfsr::units::Daddr;
use std::sync::OnceLock;

pub use blocks::{Stamp, examine, kind_of, tree_stamps};

/// A named target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also that of its directory of seeds.
    pub name: &'static str,
    /// Runs it.
    pub body: fn(&Input<'_>),
}

impl Target {
    /// Runs it on any bytes.
    pub fn run(&self, data: &[u8]) {
        if let Some(input) = Input::new(data) {
            (self.body)(&input);
        }
    }
}

/// All targets.
pub static TARGETS: &[Target] = &[
    Target { name: "superblock", body: blocks::superblock },
    Target { name: "ag_headers", body: blocks::ag_headers },
    Target { name: "btree_block", body: blocks::btree_block },
    Target { name: "btree", body: trees::btree },
    Target { name: "inode", body: forks::inode },
    Target { name: "directory_block", body: blocks::directory_block },
    Target { name: "directory_short", body: forks::directory_short },
    Target { name: "attribute_block", body: blocks::attribute_block },
    Target { name: "attribute_short", body: forks::attribute_short },
    Target { name: "symlink", body: blocks::symlink },
    Target { name: "dquot", body: blocks::dquot },
    Target { name: "realtime", body: blocks::realtime },
    Target { name: "log_record", body: log::record },
    Target { name: "log_item", body: log::item },
    Target { name: "metadump", body: log::metadump },
    Target { name: "image", body: image::run },
];

/// The target of this name.
///
/// # Panics
/// Where there is none.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no fuzz target {name}"))
}

/// The target that a piece of an image, by the name of its structure, is a seed of.
pub fn target_of(name: &str) -> &'static str {
    match name {
        "sb" => "superblock",
        "agf" | "agi" | "agfl" => "ag_headers",
        "inode" => "inode",
        "log" => "log_record",
        "symlink" => "symlink",
        "attrleaf" | "attrremote" => "attribute_block",
        "dquot" => "dquot",
        "rtbitmap" | "rtsummary" | "rtbitmap-bare" | "rtsummary-bare" | "rgsuper" => "realtime",
        "bnobt" | "cntbt" | "inobt" | "finobt" | "rmapbt" | "refcountbt" | "bmbt" | "rtrmapbt" | "rtrefcountbt" => {
            "btree_block"
        }
        _ => "directory_block",
    }
}

/// Bytes in front of a target's input: geometry, choice, and the address in 512-byte units.
pub const HEAD: usize = 6;

/// What the first bytes of an input choose.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The filesystem that the block is said to belong to.
    pub geometry: &'static Geometry,
    /// A number that the target uses as it likes.
    pub choice: u8,
    /// Where the block is said to lie.
    pub daddr: Daddr,
    /// The rest.
    pub bytes: &'a [u8],
}

impl<'a> Input<'a> {
    /// From any bytes; none where there are too few.
    pub fn new(data: &'a [u8]) -> Option<Self> {
        let (head, bytes) = data.split_at_checked(HEAD)?;
        let all = geometries();
        let geometry = all.get(usize::from(head[0]) % all.len())?;
        let daddr = head[2..].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        Some(Self { geometry, choice: head[1], daddr: Daddr(daddr), bytes })
    }

    /// The block's place.
    pub fn at(&self) -> Context<'static> {
        Context::new(self.geometry, self.daddr)
    }
}

/// Geometries of different kinds: block sizes, features on and off, realtime groups.
pub fn geometries() -> &'static [Geometry] {
    static ALL: OnceLock<Vec<Geometry>> = OnceLock::new();
    ALL.get_or_init(|| {
        let make = |change: &dyn Fn(&mut Options), more: &dyn Fn(&mut Superblock)| {
            let mut options = Options::default();
            options.metadata.uuid = Some(*b"xfsr-fuzz-volume");
            change(&mut options);
            let plan = plan(&options, &Devices::file(600 << 20)).expect("options that mkfs takes");
            let mut sb = plan.superblock;
            more(&mut sb);
            Geometry::new(&sb).expect("a superblock that mkfs makes")
        };
        let full = |o: &mut Options| {
            o.metadata.rmapbt = Some(true);
            o.inode.nrext64 = Some(true);
            o.naming.parent = Some(true);
            o.inode.exchange = Some(true);
        };
        let bare = |o: &mut Options| {
            o.metadata.reflink = Some(false);
            o.metadata.finobt = Some(false);
            o.metadata.bigtime = Some(false);
            o.inode.sparse = Some(false);
            o.naming.ascii_ci = true;
        };
        let sized = |block: u32, dir: u32| {
            move |o: &mut Options| {
                full(o);
                o.block_size = Some(block);
                o.naming.size = Some(dir);
            }
        };
        let groups = |sb: &mut Superblock| {
            sb.features_incompat.set(sb.features_incompat.get() | Incompat::METADIR.bits());
            sb.rgextents.set(4096);
            sb.rblocks.set(10_000);
            sb.rextents.set(10_000);
            sb.rgcount.set(3);
            (sb.rextslog, sb.rgblklog) = (13, 12);
        };
        vec![
            make(&full, &|_| ()),
            make(&bare, &|_| ()),
            make(&sized(1024, 4096), &|_| ()),
            make(&sized(65536, 65536), &|_| ()),
            make(&sized(2048, 65536), &|_| ()),
            make(&full, &groups),
        ]
    })
}
