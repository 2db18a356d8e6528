//! Which images there are.

use super::fill::Part::{self, *};
use super::forms::Form::{self, *};

/// How an image is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Unmounted.
    Clean,
    /// Shut down in the middle of work with the log flushed: the log must be replayed.
    Dirty,
    /// The log is clean, but the unlinked lists hold inodes that were open when the image was taken.
    Orphans,
    /// Unmounted, after the superblock was changed in a way that administrators know.
    Changed(Change),
}

/// How the superblock was changed after the image was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Another UUID, so that the metadata's own is a second one.
    Uuid,
    /// Grown by the kernel into further AGs.
    Grown,
    /// Shrunk by the kernel by a part of its last AG.
    Shrunk,
    /// Mounted with other stripe numbers, which the kernel writes into the primary superblock alone.
    Restriped,
}

/// How one image of the corpus is made.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// Size of the data device in MiB.
    pub size: u64,
    /// Arguments of mkfs.xfs.
    pub mkfs: &'static [&'static str],
    /// Incompatible features set after mkfs, which mkfs.xfs 6.1 does not know.
    pub incompat: u32,
    /// Made by the library's own mkfs, with a metadata directory tree and reverse mappings; `mkfs` is empty then.
    pub metadir: bool,
    /// Size of an external log in MiB; 0 for an internal one.
    pub log: u64,
    /// Size of a realtime device in MiB; 0 for none.
    pub rt: u64,
    /// Mount options.
    pub mount: &'static str,
    /// What is put into it.
    pub parts: &'static [Part],
    /// How it is left.
    pub end: End,
    /// Made by the guest kernel: this host's kernel lacks something that it needs.
    pub guest: bool,
    /// One of the small set that every test run uses.
    pub quick: bool,
    /// What must occur in it, in groups.
    pub forms: &'static [&'static [Form]],
}

/// Exchange-range.
pub const EXCHANGE: u32 = 0x40;
/// Parent pointers.
pub const PARENT: u32 = 0x80;

/// What [`Directories`] makes.
const DIRECTORIES: &[Form] = &[ShortDirectory, BlockDirectory, LeafDirectory, NodeDirectory];
/// What [`Attributes`] makes.
const ATTRIBUTES: &[Form] = &[ShortAttributes, LeafAttributes, NodeAttributes, RemoteAttributes, BtreeAttrFork];
/// What [`Links`] makes; a remote link only where an inode has no room for it.
const LINKS: &[Form] = &[LocalSymlink, Device, Fifo, Socket, ManyLinks];
/// What [`Files`] and [`Odd`] make.
const FILES: &[Form] = &[BtreeFork, UnwrittenExtents, Projects, SizeHints];
/// All of these.
const ALL: &[&[Form]] = &[DIRECTORIES, ATTRIBUTES, LINKS, FILES, &[RemoteSymlink]];

const BASIC: &[Part] = &[Directories, FragmentedDirectories, Files, Attributes, Links, Odd];
/// Little, for images that differ in their superblock.
const SMALL: &[Part] = &[Files, Attributes, Links];
const SHARED: &[Part] = &[
    Directories,
    FragmentedDirectories,
    Files,
    Attributes,
    Links,
    Odd,
    Reflink,
    Shared(200),
    Churn(600),
    SparseInodes,
];

/// What a filesystem with exchange-range and parent pointers can hold more.
const EXCHANGED: &[Part] = &[
    Directories,
    FragmentedDirectories,
    Files,
    Attributes,
    Links,
    Odd,
    Reflink,
    Shared(200),
    Exchange,
    Churn(600),
    SparseInodes,
];

const PLAIN: Recipe = Recipe {
    name: "",
    size: 300,
    mkfs: &[],
    incompat: 0,
    metadir: false,
    log: 0,
    rt: 0,
    mount: "",
    parts: SHARED,
    end: End::Clean,
    guest: false,
    quick: false,
    forms: &[],
};

/// All recipes; the quick ones first.
pub(super) static RECIPES: &[Recipe] = &[
    Recipe {
        name: "default",
        quick: true,
        forms: &[
            DIRECTORIES,
            ATTRIBUTES,
            LINKS,
            FILES,
            &[RemoteSymlink, BtreeDirectory, SparseChunks, DeepFreeSpace, SharedExtents, LateTimes],
        ],
        ..PLAIN
    },
    Recipe {
        name: "rmap-1k",
        mkfs: &["-b", "size=1024", "-m", "rmapbt=1"],
        parts: &[
            Directories,
            FragmentedDirectories,
            BigDirectory(9000, 24),
            Files,
            Extents(3000),
            Attributes,
            Links,
            Odd,
            Reflink,
            Shared(12000),
            Churn(9000),
            SparseInodes,
        ],
        quick: true,
        forms: &[
            DIRECTORIES,
            ATTRIBUTES,
            LINKS,
            FILES,
            &[RemoteSymlink, SplitSymlink, BtreeDirectory, DeepAttributeIndex, DeepExtents],
            &[DeepFreeSpace, DeepInodes, SparseChunks, RmapLevel3, DeepRefcount, RefcountLevel3, LateTimes],
        ],
        ..PLAIN
    },
    Recipe {
        name: "parent",
        mkfs: &["-m", "rmapbt=1", "-i", "nrext64=1"],
        incompat: EXCHANGE | PARENT,
        parts: EXCHANGED,
        quick: true,
        forms: &[
            DIRECTORIES,
            ATTRIBUTES,
            LINKS,
            FILES,
            &[RemoteSymlink, BtreeDirectory, SparseChunks, DeepRmap, ParentPointers, LargeCounters],
        ],
        ..PLAIN
    },
    Recipe {
        name: "plain",
        mkfs: &["-m", "finobt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0"],
        parts: &[
            Directories,
            FragmentedDirectories,
            BigDirectory(32000, 250),
            Files,
            Attributes,
            Links,
            Odd,
            Churn(2000),
        ],
        quick: true,
        forms: &[DIRECTORIES, ATTRIBUTES, LINKS, FILES, &[RemoteSymlink, BtreeDirectory, SeveralFreeBlocks]],
        ..PLAIN
    },
    Recipe {
        name: "b64k",
        size: 600,
        mkfs: &["-b", "size=65536", "-s", "size=4096", "-m", "rmapbt=1"],
        parts: &[Directories, Files, Attributes, Links, Odd, Reflink, Shared(40), Churn(600)],
        quick: true,
        forms: ALL,
        ..PLAIN
    },
    Recipe {
        name: "b2k-i1k-n64k",
        mkfs: &["-b", "size=2048", "-i", "size=1024,nrext64=1", "-n", "size=65536"],
        parts: &[Directories, Files, Attributes, Links, Odd, Reflink, Shared(200), Churn(600), SparseInodes],
        quick: true,
        forms: &[DIRECTORIES, ATTRIBUTES, LINKS, FILES, &[RemoteSymlink, SparseChunks, DeepFreeSpace, LargeCounters]],
        ..PLAIN
    },
    Recipe {
        name: "metadir",
        metadir: true,
        parts: &[Directories, Files, Attributes, Links, Odd, Reflink, Shared(100), Churn(600)],
        quick: true,
        ..PLAIN
    },
    Recipe { name: "dirty", mkfs: &["-m", "rmapbt=1"], end: End::Dirty, quick: true, ..PLAIN },
    Recipe {
        name: "dirty-parent",
        mkfs: &["-m", "rmapbt=1", "-i", "nrext64=1"],
        incompat: EXCHANGE | PARENT,
        parts: EXCHANGED,
        end: End::Dirty,
        quick: true,
        ..PLAIN
    },
    Recipe {
        name: "dirty-quota",
        mkfs: &["-m", "rmapbt=1"],
        mount: "uquota,gquota,pquota",
        parts: &[Owners, Files, Links],
        end: End::Dirty,
        guest: true,
        quick: true,
        ..PLAIN
    },
    Recipe {
        name: "orphans",
        parts: &[Directories, Files, Links, Reflink],
        end: End::Orphans,
        quick: true,
        forms: &[&[BtreeFork, Orphans, CowLeftovers, SharedExtents]],
        ..PLAIN
    },
    Recipe {
        name: "quota",
        mkfs: &["-m", "rmapbt=1"],
        mount: "uquota,gquota,pquota",
        parts: &[Owners, Files, Links],
        guest: true,
        quick: true,
        forms: &[&[QuotaLimits, OverLimit, Projects]],
        ..PLAIN
    },
    Recipe {
        name: "realtime",
        mkfs: &["-m", "reflink=0", "-r", "extsize=64k"],
        rt: 200,
        parts: &[Realtime, Files],
        guest: true,
        quick: true,
        forms: &[&[RealtimeFile, FragmentedRealtime, UnwrittenExtents]],
        ..PLAIN
    },
    Recipe {
        name: "ascii-ci",
        mkfs: &["-n", "version=ci"],
        parts: &[Cases, Files],
        guest: true,
        quick: true,
        forms: &[&[CaseFolding, NodeDirectory]],
        ..PLAIN
    },
    Recipe {
        name: "uuid",
        mkfs: &["-m", "rmapbt=1"],
        parts: SMALL,
        end: End::Changed(Change::Uuid),
        quick: true,
        ..PLAIN
    },
    Recipe {
        name: "grown",
        size: 500,
        mkfs: &["-m", "rmapbt=1", "-d", "size=300m"],
        parts: SMALL,
        end: End::Changed(Change::Grown),
        quick: true,
        ..PLAIN
    },
    Recipe { name: "shrunk", parts: SMALL, end: End::Changed(Change::Shrunk), quick: true, ..PLAIN },
    Recipe {
        name: "restriped",
        size: 400,
        mkfs: &["-d", "agcount=4,su=64k,sw=4"],
        parts: SMALL,
        end: End::Changed(Change::Restriped),
        quick: true,
        ..PLAIN
    },
    Recipe {
        name: "parent-1k",
        mkfs: &["-b", "size=1024", "-m", "rmapbt=1"],
        incompat: EXCHANGE | PARENT,
        parts: EXCHANGED,
        forms: &[
            DIRECTORIES,
            ATTRIBUTES,
            LINKS,
            FILES,
            &[BtreeDirectory, RmapLevel3, DeepRefcount, ParentPointers, SparseChunks],
        ],
        ..PLAIN
    },
    Recipe {
        name: "b16k-n64k",
        size: 500,
        mkfs: &["-b", "size=16384", "-m", "rmapbt=1", "-i", "nrext64=1", "-n", "size=65536"],
        parts: &[Directories, FragmentedDirectories, Files, Attributes, Links, Odd, Reflink, Shared(100), Churn(600)],
        forms: ALL,
        ..PLAIN
    },
    Recipe {
        name: "b64k-i2k",
        size: 600,
        mkfs: &["-b", "size=65536", "-i", "size=2048,nrext64=1", "-m", "rmapbt=1"],
        parts: &[Directories, Files, Attributes, Links, Odd, Reflink, Shared(40), Churn(600)],
        forms: &[
            DIRECTORIES,
            LINKS,
            FILES,
            &[ShortAttributes, LeafAttributes, NodeAttributes, RemoteAttributes, LargeCounters],
        ],
        ..PLAIN
    },
    Recipe {
        name: "external-log",
        mkfs: &["-m", "rmapbt=1"],
        log: 64,
        forms: &[DIRECTORIES, ATTRIBUTES, LINKS, FILES, &[BtreeDirectory, SparseChunks]],
        ..PLAIN
    },
    Recipe {
        name: "stripes",
        mkfs: &["-d", "agcount=4,su=64k,sw=4", "-l", "su=64k", "-m", "rmapbt=1"],
        size: 400,
        forms: ALL,
        ..PLAIN
    },
    Recipe {
        name: "many-ags",
        size: 1600,
        mkfs: &["-d", "agcount=18", "-m", "rmapbt=1", "-s", "size=512"],
        forms: &[DIRECTORIES, ATTRIBUTES, LINKS, FILES, &[BtreeDirectory]],
        ..PLAIN
    },
    Recipe {
        name: "s4k-i1k",
        mkfs: &["-s", "size=4096", "-i", "size=1024", "-m", "rmapbt=1,reflink=0"],
        parts: &[Directories, FragmentedDirectories, Files, Attributes, Links, Odd, Churn(600), SparseInodes],
        forms: &[DIRECTORIES, ATTRIBUTES, LINKS, FILES, &[RemoteSymlink, BtreeDirectory, SparseChunks]],
        ..PLAIN
    },
    Recipe {
        name: "i2k-n16k",
        mkfs: &["-i", "size=2048,nrext64=1", "-n", "size=16384", "-m", "rmapbt=1"],
        forms: &[DIRECTORIES, LINKS, FILES, &[BtreeDirectory, SparseChunks]],
        ..PLAIN
    },
    Recipe {
        name: "b1k-n8k",
        mkfs: &["-b", "size=1024", "-n", "size=8192", "-i", "nrext64=1", "-m", "rmapbt=1"],
        forms: &[DIRECTORIES, ATTRIBUTES, LINKS, FILES, &[DeepRmap, SparseChunks]],
        ..PLAIN
    },
    Recipe {
        name: "b1k-plain",
        mkfs: &["-b", "size=1024", "-m", "finobt=0,reflink=0,bigtime=0", "-i", "sparse=0"],
        parts: BASIC,
        forms: &[DIRECTORIES, ATTRIBUTES, LINKS, FILES, &[BtreeDirectory, SplitSymlink]],
        ..PLAIN
    },
    Recipe {
        name: "inodes",
        mkfs: &["-d", "agcount=2", "-m", "rmapbt=1"],
        size: 400,
        parts: &[Churn(24000), Extents(6000), Shared(1200)],
        forms: &[&[DeepInodes, DeepExtents, DeepRmap, DeepRefcount]],
        ..PLAIN
    },
    Recipe {
        name: "big-directory",
        mkfs: &["-m", "rmapbt=1"],
        parts: &[BigDirectory(220_000, 20)],
        forms: &[&[NodeDirectory, DeepDirectoryIndex]],
        ..PLAIN
    },
    Recipe { name: "dirty-1k", mkfs: &["-b", "size=1024", "-m", "rmapbt=1"], end: End::Dirty, ..PLAIN },
    Recipe { name: "dirty-external-log", log: 64, end: End::Dirty, ..PLAIN },
    Recipe { name: "dirty-stripes", mkfs: &["-l", "su=256k", "-s", "size=4096"], end: End::Dirty, ..PLAIN },
    // Small, for it is opened many thousand times.
    Recipe {
        name: "fuzz",
        mkfs: &["-m", "rmapbt=1", "-d", "agcount=2"],
        parts: &[Directories, Files, Attributes, Links, Reflink],
        ..PLAIN
    },
];
