//! The superblock: one sector at the start of every AG. AG 0 holds the primary; the others are copies that only mkfs, growfs
//! and repair write.
//!
//! Book: chapter "Superblocks". Order on disk: geometry of the three devices first (what a mount needs), then the roots
//! of everything else, feature words and quota, then what v5 added.

use super::features::{Features, Features2, Incompat, LogIncompat, RoCompat, Version};
use super::inode::MetaType;
use super::{BlockType, Context, check_crc, seal_checksum, view};
use crate::error::{Corruption, Rule, Verdict};
use crate::units::{AgNumber, Ino, NULL_INO};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::little_endian::U32 as Le32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `XFSB`.
pub const MAGIC: u32 = 0x5846_5342;
/// Offset of the CRC.
pub const CRC_OFFSET: usize = std::mem::offset_of!(Superblock, crc);
/// Largest superblock sector.
pub const MAX_SECTOR: usize = 32768;

/// The superblock's bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "fields carry the format's own names, which the book explains")]
pub struct Superblock {
    pub magicnum: U32,
    pub blocksize: U32,
    pub dblocks: U64,
    pub rblocks: U64,
    pub rextents: U64,
    pub uuid: [u8; 16],
    pub logstart: U64,
    pub rootino: U64,
    pub rbmino: U64,
    pub rsumino: U64,
    pub rextsize: U32,
    pub agblocks: U32,
    pub agcount: U32,
    pub rbmblocks: U32,
    pub logblocks: U32,
    pub versionnum: U16,
    pub sectsize: U16,
    pub inodesize: U16,
    pub inopblock: U16,
    pub fname: [u8; 12],
    pub blocklog: u8,
    pub sectlog: u8,
    pub inodelog: u8,
    pub inopblog: u8,
    pub agblklog: u8,
    pub rextslog: u8,
    pub inprogress: u8,
    pub imax_pct: u8,
    pub icount: U64,
    pub ifree: U64,
    pub fdblocks: U64,
    pub frextents: U64,
    pub uquotino: U64,
    pub gquotino: U64,
    pub qflags: U16,
    pub flags: u8,
    pub shared_vn: u8,
    pub inoalignmt: U32,
    pub unit: U32,
    pub width: U32,
    pub dirblklog: u8,
    pub logsectlog: u8,
    pub logsectsize: U16,
    pub logsunit: U32,
    pub features2: U32,
    pub bad_features2: U32,
    pub features_compat: U32,
    pub features_ro_compat: U32,
    pub features_incompat: U32,
    pub features_log_incompat: U32,
    pub crc: Le32,
    pub spino_align: U32,
    pub pquotino: U64,
    pub lsn: U64,
    pub meta_uuid: [u8; 16],
    pub metadirino: U64,
    pub rgcount: U32,
    pub rgextents: U32,
    pub rgblklog: u8,
    pub pad: [u8; 7],
    pub rtstart: U64,
    pub rtreserved: U64,
}

const _: () = assert!(size_of::<Superblock>() == 304);
const _: () = assert!(CRC_OFFSET == 224);

impl Superblock {
    /// All zero.
    pub fn zeroed() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }
    /// The version number, 5 for everything that this library reads.
    pub fn version(&self) -> u16 {
        self.versionnum.get() & 0xf
    }
    /// The feature words; bits that have no name are kept.
    pub fn features(&self) -> Features {
        Features {
            version: Version::from_bits_retain(self.versionnum.get() & !0xf),
            features2: Features2::from_bits_retain(self.features2.get()),
            compat: self.features_compat.get(),
            ro_compat: RoCompat::from_bits_retain(self.features_ro_compat.get()),
            incompat: Incompat::from_bits_retain(self.features_incompat.get()),
            log_incompat: LogIncompat::from_bits_retain(self.features_log_incompat.get()),
        }
    }
    /// The metadata files that the superblock names: bitmap and summary of the realtime section, and the quota files. None with
    /// metadata directories, which name them instead: see [`Superblock::metadata_root`].
    pub fn metadata_inodes(&self) -> impl Iterator<Item = (MetaType, Ino)> + use<> {
        let f = self.features();
        let quota = f.version.contains(Version::QUOTA);
        let all = [
            (MetaType::RtBitmap, self.rbmino, true),
            (MetaType::RtSummary, self.rsumino, true),
            (MetaType::UserQuota, self.uquotino, quota),
            (MetaType::GroupQuota, self.gquotino, quota),
            (MetaType::ProjectQuota, self.pquotino, quota),
        ];
        let named = move |ino: u64, there| there && !f.metadir() && ino != 0 && ino != NULL_INO;
        all.into_iter()
            .filter(move |(_, ino, there)| named(ino.get(), *there))
            .map(|(kind, ino, _)| (kind, Ino(ino.get())))
    }
    /// The one of [`Superblock::metadata_inodes`] that is of this kind.
    pub fn metadata_inode(&self, kind: MetaType) -> Option<Ino> {
        self.metadata_inodes().find(|(k, _)| *k == kind).map(|(_, ino)| ino)
    }
    /// Which of [`Superblock::metadata_inodes`] an inode is.
    pub fn metadata_kind(&self, ino: Ino) -> Option<MetaType> {
        self.metadata_inodes().find(|(_, i)| *i == ino).map(|(kind, _)| kind)
    }
    /// Root of the metadata directories; none without that feature.
    pub fn metadata_root(&self) -> Option<Ino> {
        self.features().metadir().then(|| Ino(self.metadirino.get()))
    }
}

fn verify(bytes: &[u8], at: &Context<'_>) -> Verdict {
    let sb: &Superblock = view("sb", bytes, at)?;
    super::check_magic("sb", sb.magicnum.get(), MAGIC, at)?;
    check_crc("sb", bytes, CRC_OFFSET, at)?;
    if sb.version() != 5 {
        return Err(Corruption::new("sb", "versionnum", Rule::Range)
            .in_ag(AgNumber(0), None)
            .found(sb.version())
            .expected(5));
    }
    Ok(())
}

/// One sector.
pub static SUPERBLOCK: BlockType = BlockType {
    name: "sb",
    log_type: 18,
    lsn: |b| super::lsn_at(b, std::mem::offset_of!(Superblock, lsn)),
    verify,
    seal: |b, lsn| {
        super::put_lsn(b, std::mem::offset_of!(Superblock, lsn), lsn);
        seal_checksum(b, CRC_OFFSET);
    },
};
