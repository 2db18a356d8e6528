//! Looking at the space of a filesystem, the same way for an unmounted image and for one that Linux has mounted.
//!
//! [`SpaceBackend`] is the seam: [`Image`] answers from the bytes, [`kernel::Mounted`](crate::kernel::Mounted) from the kernel's calls. The reports
//! (histogram, fragmentation) are written once above it. Both backends give the same answer for the same bytes.

mod frag;
mod fsmap;
mod histogram;
mod image;
mod info;
mod mounted;
mod rtgroups;

pub use crate::units::Device;
pub use frag::{Frag, FragCounter};
pub use fsmap::{Mapping, Owner};
pub use histogram::{AgFree, Bin, Bins, FreeExtent, FreeSpace, Freesp, collect};
pub use image::Image;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::geometry::GeometryReport;
use crate::kernel::Mounted;
use crate::units::{AgBlock, AgNumber};
use crate::volume::{Devices, Volume};
use std::ops::ControlFlow;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// The numbers that the reports need of a filesystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Shape {
    /// Bytes in a block.
    pub block_size: u32,
    /// Allocation groups.
    pub ag_count: u32,
    /// Blocks in each AG but the last.
    pub ag_blocks: u32,
    /// Blocks of the data device.
    pub blocks: u64,
    /// Blocks of the realtime device.
    pub rt_blocks: u64,
    /// Whether reverse mappings tell owners.
    pub rmapbt: bool,
}

/// Callback for free extents: AG, first block, blocks.
pub type EachFree<'a> = &'a mut dyn FnMut(AgNumber, AgBlock, u32) -> ControlFlow<()>;
/// Callback for free extents of the realtime device: first block, counted from its start, and blocks.
pub type EachFreeRealtime<'a> = &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>;
/// Callback for mappings.
pub type EachMapping<'a> = &'a mut dyn FnMut(&Mapping) -> ControlFlow<()>;

/// Which mappings are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapRange {
    /// The device; none for all.
    pub device: Option<Device>,
    /// First byte on it.
    pub first: u64,
    /// Last byte on it.
    pub last: u64,
}

impl MapRange {
    /// All devices, whole.
    pub const ALL: Self = Self { device: None, first: 0, last: u64::MAX };

    /// One device, whole.
    pub const fn of(device: Device) -> Self {
        Self { device: Some(device), ..Self::ALL }
    }

    fn wants(&self, device: Device) -> bool {
        self.device.is_none_or(|d| d == device)
    }
}

/// What the reports ask of a filesystem.
pub trait SpaceBackend {
    /// Its numbers.
    fn shape(&self) -> Shape;
    /// The numbers that `info` prints.
    ///
    /// # Errors
    /// When they cannot be read.
    fn info(&self) -> Result<GeometryReport>;
    /// Free extents of an AG, ascending.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an AG that does not exist; damage; a kernel that lacks the call; [`Error::Stopped`].
    fn free_space(&self, ag: AgNumber, control: &Control<'_>, each: EachFree<'_>) -> Result<()>;
    /// Free extents of the realtime device, ascending; none where there is no such device.
    ///
    /// # Errors
    /// As [`SpaceBackend::free_space`]; [`Error::Unsupported`] for zoned devices of an image.
    fn free_realtime(&self, control: &Control<'_>, each: EachFreeRealtime<'_>) -> Result<()>;
    /// Who owns each extent that has part in the range, ascending. Without reverse mappings what is not free has an unknown owner. What
    /// is recorded is told whole; what lies between (free with reverse mappings, unknown without) is cut off where the range ends.
    ///
    /// # Errors
    /// As [`SpaceBackend::free_space`]; [`Error::Unsupported`] for zoned devices of an image, after the other devices.
    fn fsmap(&self, range: MapRange, control: &Control<'_>, each: EachMapping<'_>) -> Result<()>;
    /// Extents that files have and those they would need.
    ///
    /// # Errors
    /// As [`SpaceBackend::free_space`].
    fn frag(&self, control: &Control<'_>) -> Result<Frag>;
}

/// Where a path leads.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of it in a program")]
pub enum Source {
    /// An image or a device, read directly.
    Image(Box<Image>),
    /// A mounted filesystem, asked through the kernel.
    Mounted(Box<Mounted>),
}

impl Source {
    /// Opens an image, a device, or a mount point. Any file on a mounted XFS names that filesystem, unless it is itself an image:
    /// a regular file that starts with a superblock.
    ///
    /// # Errors
    /// As [`Volume::open_with`] and [`Mounted::open`].
    pub fn open(path: &Path, control: &Control<'_>) -> Result<Self> {
        let meta = std::fs::metadata(path).map_err(|e| Error::open(path, e))?;
        if !may_be_opened(meta.file_type()) {
            return Err(Error::open(path, neither()));
        }
        let direct = meta.file_type().is_block_device() || meta.is_file() && (!on_xfs(path) || looks_like_image(path));
        if !direct {
            return Ok(Self::Mounted(Box::new(Mounted::open(path)?)));
        }
        let volume = Volume::open_with(&Devices::data(path), control)?;
        Ok(Self::Image(Box::new(Image::new(volume, path.display().to_string()))))
    }

    /// The image or device that is read directly; none where the kernel is asked.
    pub fn volume(&self) -> Option<&Volume> {
        match self {
            Self::Image(i) => Some(i.volume()),
            Self::Mounted(_) => None,
        }
    }

    /// The backend.
    pub fn backend(&self) -> &dyn SpaceBackend {
        match self {
            Self::Image(i) => &**i,
            Self::Mounted(m) => &**m,
        }
    }
}

fn on_xfs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|s| s.f_type as u64 & 0xffff_ffff == crate::kernel::XFS_SUPER_MAGIC)
}

/// Whether it is of a kind that answers at once: to open a pipe waits for its other end, and to open a device may do things.
fn may_be_opened(kind: std::fs::FileType) -> bool {
    kind.is_file() || kind.is_dir() || kind.is_block_device()
}

fn neither() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidInput, "neither a file, a directory nor a block device")
}

fn looks_like_image(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    crate::kernel::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok() && magic == *b"XFSB"
}
