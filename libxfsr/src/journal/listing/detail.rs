//! What an item says, as data: the fields of its format by name.

use crate::format::attr::AttrFlags;
use crate::format::inode::Flags2;
use crate::format::log::items::{
    AttrOp, AttriFormat, BUF_CHUNK, BmapFlags, BmapOp, BufFlags, DoneFormat, DquotFormat, ExchangeFlags, IcreateFormat,
    InodeFields, ItemType, LogDinode, MapExtent, PhysExtent, QuotaoffFormat, RefcountOp, RmapFlags, RmapOp, XmiFormat,
    buf_item, buf_runs, efi_item, inode_item, intent_extents,
};
use crate::format::quota::DiskDquot;
use crate::text::escape;
use bitflags::Flags;
use serde::Serialize;
use zerocopy::FromBytes;

/// A run of chunks of 128 bytes of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Chunks {
    /// First chunk.
    pub first: usize,
    /// How many.
    pub count: usize,
}

/// Start and length of an extent of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Extent {
    /// First block, a number of the filesystem.
    pub start: u64,
    /// Blocks.
    pub blocks: u32,
}

/// A change of a reverse mapping, a reference count or a file's mapping.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Change {
    /// What is done, by the format's name; a number where that is unknown.
    pub operation: String,
    /// First block.
    pub start: u64,
    /// Blocks.
    pub blocks: u32,
    /// Owner: an inode, or a negative number for metadata. Reference counts have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<i64>,
    /// Block in the file. Reference counts have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Further flags by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// An inode's core.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct Core {
    pub ino: u64,
    pub mode: u16,
    pub version: u8,
    pub format: u8,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub projid: u32,
    /// Times in seconds and nanoseconds.
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    pub crtime: (i64, u32),
    pub size: u64,
    pub nblocks: u64,
    pub extsize: u32,
    /// With large counters those.
    pub nextents: u64,
    pub anextents: u32,
    pub forkoff: u8,
    pub aformat: u8,
    pub flags: u16,
    pub generation: u32,
    pub changecount: u64,
    pub flags2: u64,
    pub cowextsize: u32,
}

/// A quota record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct Quota {
    pub kind: u8,
    pub id: u32,
    pub blk_hardlimit: u64,
    pub blk_softlimit: u64,
    pub ino_hardlimit: u64,
    pub ino_softlimit: u64,
    pub bcount: u64,
    pub icount: u64,
    pub itimer: u32,
    pub btimer: u32,
    pub rtb_hardlimit: u64,
    pub rtb_softlimit: u64,
    pub rtbcount: u64,
    pub rtbtimer: u32,
}

/// The fields of an item.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub enum Detail {
    /// Pieces of a buffer.
    Buffer {
        daddr: i64,
        /// Length in 512 bytes.
        sectors: u16,
        /// What it holds, by name.
        holds: &'static str,
        flags: Vec<String>,
        /// Pieces that are logged.
        chunks: Vec<Chunks>,
    },
    /// An inode.
    Inode {
        ino: u64,
        /// What is logged of it.
        fields: Vec<String>,
        /// Where its cluster lies.
        daddr: i64,
        sectors: i32,
        offset: i32,
        data_bytes: u16,
        attr_bytes: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        core: Option<Box<Core>>,
    },
    /// A quota record.
    Dquot {
        id: u32,
        daddr: i64,
        /// Length of its block.
        length: i32,
        offset: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        record: Option<Box<Quota>>,
    },
    /// Quota was turned off.
    Quotaoff { flags: u32 },
    /// A new chunk of inodes.
    Icreate { ag: u32, agbno: u32, count: u32, inode_size: u32, blocks: u32, generation: u32 },
    /// Extents that are to be freed, or were.
    Free {
        #[serde(serialize_with = "hex")]
        id: u64,
        extents: Vec<Extent>,
    },
    /// Changes of reverse mappings, reference counts or mappings that are to be made.
    Changes {
        #[serde(serialize_with = "hex")]
        id: u64,
        changes: Vec<Change>,
    },
    /// An attribute is to be changed.
    Attribute {
        #[serde(serialize_with = "hex")]
        id: u64,
        ino: u64,
        operation: String,
        /// Names are escaped.
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        new_name: Option<String>,
        value_bytes: u32,
        /// Its namespace and kind.
        flags: Vec<String>,
        /// Of operations on parent pointers.
        #[serde(skip_serializing_if = "Option::is_none")]
        generation: Option<u32>,
    },
    /// Mappings of two inodes are to be exchanged.
    Exchange {
        #[serde(serialize_with = "hex")]
        id: u64,
        ino1: u64,
        ino2: u64,
        generation1: u32,
        generation2: u32,
        startoff1: u64,
        startoff2: u64,
        blocks: u64,
        flags: Vec<String>,
        isize1: i64,
        isize2: i64,
    },
    /// An intent is done.
    Done {
        #[serde(serialize_with = "hex")]
        id: u64,
    },
    /// Nothing could be read, or the type is no longer written.
    Unknown {},
}

/// Numbers of intents are addresses in the memory of a machine, larger than what readers of JSON may keep whole.
fn hex<S: serde::Serializer>(id: &u64, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&format_args!("{id:#x}"))
}

/// What a buffer of this type in the journal holds.
pub fn buffer_name(log_type: u8) -> &'static str {
    const NAMES: [&str; 21] = [
        "unknown",
        "udquot",
        "pdquot",
        "gdquot",
        "btree",
        "agf",
        "agfl",
        "agi",
        "dinode",
        "symlink",
        "dir_block",
        "dir_data",
        "dir_free",
        "dir_leaf1",
        "dir_leafn",
        "da_node",
        "attr_leaf",
        "attr_remote",
        "sb",
        "rtbitmap",
        "rtsummary",
    ];
    NAMES.get(usize::from(log_type)).copied().unwrap_or("unknown")
}

/// Set flags by name; bits without a name as a number.
pub(super) fn names<F: Flags<Bits: std::fmt::LowerHex + Copy>>(flags: F) -> Vec<String> {
    let mut iter = flags.iter_names();
    let mut names: Vec<String> = iter.by_ref().map(|(n, _)| n.to_ascii_lowercase()).collect();
    let rest = iter.remaining();
    if !rest.is_empty() {
        names.push(format!("{:#x}", rest.bits()));
    }
    names
}

fn operation<O: std::fmt::Debug>(known: Option<O>, flags: u32) -> String {
    known.map_or_else(|| format!("{:#x}", flags & 0xff), |o| format!("{o:?}").to_ascii_lowercase())
}

/// Reads an item's fields; what is too short or too long for its type is [`Detail::Unknown`].
pub(super) fn detail(kind: ItemType, regions: &[Vec<u8>]) -> Detail {
    let Some((first, rest)) = regions.split_first() else { return Detail::Unknown {} };
    let read = match kind {
        ItemType::Buf => buffer(first),
        ItemType::Inode => inode(first, rest),
        ItemType::Dquot => dquot(first, rest),
        ItemType::Quotaoff => {
            QuotaoffFormat::ref_from_prefix(first).ok().map(|(f, _)| Detail::Quotaoff { flags: f.flags.get() })
        }
        ItemType::Icreate => IcreateFormat::ref_from_prefix(first).ok().map(|(f, _)| Detail::Icreate {
            ag: f.ag.get(),
            agbno: f.agbno.get(),
            count: f.count.get(),
            inode_size: f.isize.get(),
            blocks: f.length.get(),
            generation: f.generation.get(),
        }),
        ItemType::Efi | ItemType::EfiRt | ItemType::Efd | ItemType::EfdRt => {
            efi_item(first).ok().map(|(f, extents)| Detail::Free {
                id: f.id.get(),
                extents: extents.into_iter().map(|(start, blocks)| Extent { start, blocks }).collect(),
            })
        }
        ItemType::Rui | ItemType::RuiRt => mappings(first, |flags| {
            (operation(RmapOp::from_flags(flags), flags), names(RmapFlags::from_bits_retain(flags & !0xff)))
        }),
        ItemType::Bui => mappings(first, |flags| {
            (operation(BmapOp::from_flags(flags), flags), names(BmapFlags::from_bits_retain(flags & !0xff)))
        }),
        ItemType::Cui | ItemType::CuiRt => counts(first),
        ItemType::Attri => attribute(first, rest),
        ItemType::Xmi => exchange(first),
        ItemType::Rud
        | ItemType::RudRt
        | ItemType::Cud
        | ItemType::CudRt
        | ItemType::Bud
        | ItemType::Attrd
        | ItemType::Xmd => DoneFormat::ref_from_prefix(first).ok().map(|(f, _)| Detail::Done { id: f.id.get() }),
        ItemType::Iunlink => None,
    };
    read.unwrap_or(Detail::Unknown {})
}

fn buffer(first: &[u8]) -> Option<Detail> {
    let (f, map) = buf_item(first).ok()?;
    Some(Detail::Buffer {
        daddr: f.blkno.get(),
        sectors: f.len.get(),
        holds: buffer_name(f.block_type()),
        flags: names(BufFlags::from_bits_truncate(f.flags.get())),
        chunks: buf_runs(map).into_iter().map(|(first, count)| Chunks { first, count }).collect(),
    })
}

/// Bytes that the chunks of a buffer item have.
pub fn chunk_bytes(chunks: &[Chunks]) -> usize {
    chunks.iter().map(|c| c.count * BUF_CHUNK).sum()
}

fn core(region: &[u8]) -> Option<Box<Core>> {
    let (d, _) = LogDinode::ref_from_prefix(region).ok()?;
    let flags2 = Flags2::from_bits_retain(d.flags2.get());
    let big = flags2.contains(Flags2::BIGTIME);
    let time = |raw| LogDinode::time(raw, big).decode(big);
    let large = flags2.contains(Flags2::NREXT64);
    Some(Box::new(Core {
        ino: d.ino.get(),
        mode: d.mode.get(),
        version: d.version,
        format: d.format,
        uid: d.uid.get(),
        gid: d.gid.get(),
        nlink: d.nlink.get(),
        projid: u32::from(d.projid_hi.get()) << 16 | u32::from(d.projid_lo.get()),
        atime: time(d.atime),
        mtime: time(d.mtime),
        ctime: time(d.ctime),
        crtime: time(d.crtime),
        size: d.size.get(),
        nblocks: d.nblocks.get(),
        extsize: d.extsize.get(),
        nextents: if large { d.big_nextents.get() } else { d.nextents.get().into() },
        anextents: if large { d.nextents.get() } else { d.anextents.get().into() },
        forkoff: d.forkoff,
        aformat: d.aformat,
        flags: d.flags.get(),
        generation: d.generation.get(),
        changecount: d.changecount.get(),
        flags2: d.flags2.get(),
        cowextsize: d.cowextsize.get(),
    }))
}

fn inode(first: &[u8], rest: &[Vec<u8>]) -> Option<Detail> {
    let f = inode_item(first).ok()?;
    Some(Detail::Inode {
        ino: f.ino.get(),
        fields: names(InodeFields::from_bits_retain(f.fields.get())),
        daddr: f.blkno.get(),
        sectors: f.len.get(),
        offset: f.boffset.get(),
        data_bytes: f.dsize.get(),
        attr_bytes: f.asize.get(),
        core: rest.first().and_then(|r| core(r)),
    })
}

fn dquot(first: &[u8], rest: &[Vec<u8>]) -> Option<Detail> {
    let (f, _) = DquotFormat::ref_from_prefix(first).ok()?;
    let record = rest.first().and_then(|r| DiskDquot::ref_from_prefix(r).ok()).map(|(d, _)| {
        Box::new(Quota {
            kind: d.kind,
            id: d.id.get(),
            blk_hardlimit: d.blk_hardlimit.get(),
            blk_softlimit: d.blk_softlimit.get(),
            ino_hardlimit: d.ino_hardlimit.get(),
            ino_softlimit: d.ino_softlimit.get(),
            bcount: d.bcount.get(),
            icount: d.icount.get(),
            itimer: d.itimer.get(),
            btimer: d.btimer.get(),
            rtb_hardlimit: d.rtb_hardlimit.get(),
            rtb_softlimit: d.rtb_softlimit.get(),
            rtbcount: d.rtbcount.get(),
            rtbtimer: d.rtbtimer.get(),
        })
    });
    Some(Detail::Dquot { id: f.id.get(), daddr: f.blkno.get(), length: f.len.get(), offset: f.boffset.get(), record })
}

fn mappings(first: &[u8], read: impl Fn(u32) -> (String, Vec<String>)) -> Option<Detail> {
    let (f, extents) = intent_extents::<MapExtent>(first).ok()?;
    let change = |e: &MapExtent| {
        let (operation, flags) = read(e.flags.get());
        Change {
            operation,
            start: e.startblock.get(),
            blocks: e.len.get(),
            owner: Some(e.owner.get().cast_signed()),
            offset: Some(e.startoff.get()),
            flags,
        }
    };
    Some(Detail::Changes { id: f.id.get(), changes: extents.iter().map(change).collect() })
}

fn counts(first: &[u8]) -> Option<Detail> {
    let (f, extents) = intent_extents::<PhysExtent>(first).ok()?;
    let change = |e: &PhysExtent| Change {
        operation: operation(RefcountOp::from_flags(e.flags.get()), e.flags.get()),
        start: e.startblock.get(),
        blocks: e.len.get(),
        owner: None,
        offset: None,
        flags: Vec::new(),
    };
    Some(Detail::Changes { id: f.id.get(), changes: extents.iter().map(change).collect() })
}

fn attribute(first: &[u8], rest: &[Vec<u8>]) -> Option<Detail> {
    let (f, _) = AttriFormat::ref_from_prefix(first).ok()?;
    let op = AttrOp::from_flags(f.op_flags.get());
    let (name, other) = match op {
        Some(AttrOp::PptrReplace) => (f.name_len.get() & 0xffff, f.name_len.get() >> 16),
        _ => (f.name_len.get(), 0),
    };
    let text = |region: Option<&Vec<u8>>, length: u32| {
        let bytes = region.map_or(&[][..], Vec::as_slice);
        escape(bytes.get(..length as usize).unwrap_or(bytes))
    };
    let parent = matches!(op, Some(AttrOp::PptrSet | AttrOp::PptrRemove | AttrOp::PptrReplace));
    Some(Detail::Attribute {
        id: f.id.get(),
        ino: f.ino.get(),
        operation: operation(op, f.op_flags.get()),
        name: text(rest.first(), name),
        new_name: (other > 0).then(|| text(rest.get(1), other)),
        value_bytes: f.value_len.get(),
        flags: names(AttrFlags::from_bits_retain(f.attr_filter.get() as u8)),
        generation: parent.then(|| f.igen.get()),
    })
}

fn exchange(first: &[u8]) -> Option<Detail> {
    let (f, _) = XmiFormat::ref_from_prefix(first).ok()?;
    Some(Detail::Exchange {
        id: f.id.get(),
        ino1: f.ino1.get(),
        ino2: f.ino2.get(),
        generation1: f.igen1.get(),
        generation2: f.igen2.get(),
        startoff1: f.startoff1.get(),
        startoff2: f.startoff2.get(),
        blocks: f.blockcount.get(),
        flags: names(ExchangeFlags::from_bits_retain(f.flags.get())),
        isize1: f.isize1.get(),
        isize2: f.isize2.get(),
    })
}
