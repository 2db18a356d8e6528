//! What a caller may ask for. All sizes are bytes unless a field says otherwise; `None` means "the default".

/// Everything that mkfs can be asked for. `Options::default()` is what mkfs.xfs 6.1 makes without options.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Bytes of a block: a power of two from 1024 to 65536. Default 4096.
    pub block_size: Option<u32>,
    /// Bytes of a sector: a power of two from 512 to 32768, at most a block. Default: the device's physical sector.
    pub sector_size: Option<u32>,
    /// Data section.
    pub data: DataOptions,
    /// Inodes.
    pub inode: InodeOptions,
    /// Journal.
    pub log: LogOptions,
    /// Features of all metadata.
    pub metadata: MetadataOptions,
    /// Directories.
    pub naming: NamingOptions,
    /// Realtime section.
    pub realtime: RealtimeOptions,
    /// Label, at most 12 bytes.
    pub label: Option<String>,
}

/// `-d`: the data section.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DataOptions {
    /// Bytes to use. Default: the whole device.
    pub size: Option<u64>,
    /// Number of allocation groups; excludes `agsize`.
    pub agcount: Option<u64>,
    /// Bytes of an allocation group; excludes `agcount`.
    pub agsize: Option<u64>,
    /// Stripe unit in bytes, with `sw`; excludes `sunit` and `swidth`.
    pub su: Option<u64>,
    /// Stripe width in stripe units.
    pub sw: Option<u64>,
    /// Stripe unit in 512-byte units, with `swidth`.
    pub sunit: Option<u64>,
    /// Stripe width in 512-byte units.
    pub swidth: Option<u64>,
    /// Ignore the device's stripe geometry.
    pub noalign: bool,
    /// Root directory passes the realtime flag to what is created in it.
    pub rtinherit: bool,
    /// Copy-on-write extent size hint of the inodes that mkfs makes, in blocks.
    pub cowextsize: Option<u32>,
    /// Extent size hint that the root directory passes on, in blocks.
    pub extszinherit: Option<u32>,
    /// Project id that the root directory passes on.
    pub projinherit: Option<u32>,
    /// Bytes of a sector, an older spelling of [`Options::sector_size`].
    pub sector_size: Option<u32>,
}

/// `-i`: inodes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InodeOptions {
    /// Bytes of an inode: a power of two from 512 to 2048, at most half a block. Default 512.
    pub size: Option<u32>,
    /// Inodes in a block, another way to give the size.
    pub perblock: Option<u32>,
    /// Largest share of the space for inodes, percent; 0 for the default.
    pub maxpct: Option<u8>,
    /// Sparse chunks. Default on.
    pub sparse: Option<bool>,
    /// Large extent counters. Default off.
    pub nrext64: Option<bool>,
    /// Exchange of mappings between files. Default off.
    pub exchange: Option<bool>,
}

/// `-l`: the journal.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogOptions {
    /// Bytes of the log.
    pub size: Option<u64>,
    /// Allocation group of an internal log. Default: the middle one.
    pub agnum: Option<u32>,
    /// Stripe unit in bytes.
    pub su: Option<u64>,
    /// Stripe unit in 512-byte units.
    pub sunit: Option<u64>,
    /// Bytes of a sector of an external log's device.
    pub sector_size: Option<u32>,
}

/// `-m`: features of all metadata.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetadataOptions {
    /// Free inode btree. Default on.
    pub finobt: Option<bool>,
    /// Inode btree block counts. Default: as finobt.
    pub inobtcount: Option<bool>,
    /// 64-bit timestamps. Default on.
    pub bigtime: Option<bool>,
    /// Shared extents. Default on without a realtime device.
    pub reflink: Option<bool>,
    /// Reverse mappings. Default off.
    pub rmapbt: Option<bool>,
    /// Metadata directory tree. Default off.
    pub metadir: Option<bool>,
    /// UUID. Default: random.
    pub uuid: Option<[u8; 16]>,
}

/// `-n`: directories.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NamingOptions {
    /// Bytes of a directory block. Default: 4096, or a block where that is larger.
    pub size: Option<u32>,
    /// Names that differ only in ASCII case are the same.
    pub ascii_ci: bool,
    /// Parent pointers. Default off.
    pub parent: Option<bool>,
}

/// `-r`: the realtime section.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RealtimeOptions {
    /// Bytes to use. Default: the whole device.
    pub size: Option<u64>,
    /// Bytes of a realtime extent.
    pub extsize: Option<u64>,
    /// Ignore the device's stripe geometry.
    pub noalign: bool,
}

/// What is known of one device or file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Topology {
    /// Bytes that it holds.
    pub size: u64,
    /// Bytes of the smallest I/O.
    pub logical_sector: u32,
    /// Bytes that it writes without reading first; of a misaligned device the logical sector, because no larger one begins where its own do.
    pub physical_sector: u32,
    /// Whether a physical sector begins elsewhere than at the first byte. mkfs.xfs refuses such devices unless it is forced.
    pub misaligned: bool,
    /// Stripe unit in bytes; 0 for none.
    pub stripe_unit: u64,
    /// Stripe width in bytes; 0 for none.
    pub stripe_width: u64,
}

impl Topology {
    /// A file of that size, or a device that tells nothing.
    pub fn plain(size: u64) -> Self {
        Self { size, logical_sector: 512, physical_sector: 512, misaligned: false, stripe_unit: 0, stripe_width: 0 }
    }
}

/// The devices of a filesystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Devices {
    /// Data.
    pub data: Topology,
    /// External log.
    pub log: Option<Topology>,
    /// Realtime.
    pub rt: Option<Topology>,
}

impl Devices {
    /// One file for everything.
    pub fn file(size: u64) -> Self {
        Self { data: Topology::plain(size), log: None, rt: None }
    }
}
