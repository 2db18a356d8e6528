//! Feature bits of the superblock.

use bitflags::bitflags;

bitflags! {
    /// `sb_features_ro_compat`: unknown bits allow reading only.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RoCompat: u32 {
        /// Free inode btree.
        const FINOBT = 1 << 0;
        /// Reverse mapping btree.
        const RMAPBT = 1 << 1;
        /// Reference count btree, shared extents.
        const REFLINK = 1 << 2;
        /// AGI counts the blocks of its btrees.
        const INOBTCNT = 1 << 3;
    }
    /// `sb_features_incompat`: unknown bits forbid everything.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Incompat: u32 {
        /// Directory entries carry the file type.
        const FTYPE = 1 << 0;
        /// Sparse inode chunks.
        const SPINODES = 1 << 1;
        /// Metadata carries `sb_meta_uuid`.
        const META_UUID = 1 << 2;
        /// 64-bit timestamps.
        const BIGTIME = 1 << 3;
        /// Must be repaired before it is mounted.
        const NEEDSREPAIR = 1 << 4;
        /// Large extent counters.
        const NREXT64 = 1 << 5;
        /// Exchange of mappings, logged.
        const EXCHRANGE = 1 << 6;
        /// Parent pointers.
        const PARENT = 1 << 7;
        /// Metadata directory tree, realtime groups.
        const METADIR = 1 << 8;
        /// Zoned realtime device.
        const ZONED = 1 << 9;
        /// Gaps between hardware zones.
        const ZONE_GAPS = 1 << 10;
    }
    /// `sb_features_log_incompat`: unknown bits forbid log recovery.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct LogIncompat: u32 {
        /// Logged xattr operations.
        const XATTRS = 1 << 0;
    }
    /// `sb_versionnum` above the version number in its low four bits.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Version: u16 {
        /// Some inode has attributes.
        const ATTR = 0x10;
        /// 32-bit link counts.
        const NLINK = 0x20;
        /// Quota was on at some time.
        const QUOTA = 0x40;
        /// Aligned inode chunks.
        const ALIGN = 0x80;
        /// Stripe unit and width are set.
        const DALIGN = 0x100;
        /// Never supported.
        const SHARED = 0x200;
        /// Version 2 log.
        const LOGV2 = 0x400;
        /// Sector size other than 512.
        const SECTOR = 0x800;
        /// Unwritten extents.
        const EXTFLG = 0x1000;
        /// Version 2 directories.
        const DIRV2 = 0x2000;
        /// ASCII case-insensitive names.
        const BORG = 0x4000;
        /// `sb_features2` is used.
        const MOREBITS = 0x8000;
    }
    /// `sb_features2`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Features2: u32 {
        /// Lazy superblock counters.
        const LAZYSBCOUNT = 0x2;
        /// Flexible attribute fork offset.
        const ATTR2 = 0x8;
        /// Never used.
        const PARENT = 0x10;
        /// 32-bit project ids.
        const PROJID32 = 0x80;
        /// v5, with CRCs.
        const CRC = 0x100;
        /// v4's form of the file type feature.
        const FTYPE = 0x200;
    }
    /// `sb_qflags`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct QuotaFlags: u16 {
        /// User quota accounted.
        const UQUOTA_ACCT = 0x1;
        /// User quota enforced.
        const UQUOTA_ENFD = 0x2;
        /// User quota checked.
        const UQUOTA_CHKD = 0x4;
        /// Project quota accounted.
        const PQUOTA_ACCT = 0x8;
        /// v4: other quota enforced.
        const OQUOTA_ENFD = 0x10;
        /// v4: other quota checked.
        const OQUOTA_CHKD = 0x20;
        /// Group quota accounted.
        const GQUOTA_ACCT = 0x40;
        /// Group quota enforced.
        const GQUOTA_ENFD = 0x80;
        /// Group quota checked.
        const GQUOTA_CHKD = 0x100;
        /// Project quota enforced.
        const PQUOTA_ENFD = 0x200;
        /// Project quota checked.
        const PQUOTA_CHKD = 0x400;
    }
}

/// All feature words of one superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// `sb_versionnum` bits.
    pub version: Version,
    /// `sb_features2`.
    pub features2: Features2,
    /// `sb_features_compat`, of which no bit is defined.
    pub compat: u32,
    /// `sb_features_ro_compat`.
    pub ro_compat: RoCompat,
    /// `sb_features_incompat`.
    pub incompat: Incompat,
    /// `sb_features_log_incompat`.
    pub log_incompat: LogIncompat,
}

impl Features {
    /// Free inode btree.
    pub fn finobt(&self) -> bool {
        self.ro_compat.contains(RoCompat::FINOBT)
    }
    /// Reverse mapping btree.
    pub fn rmapbt(&self) -> bool {
        self.ro_compat.contains(RoCompat::RMAPBT)
    }
    /// Reference count btree.
    pub fn reflink(&self) -> bool {
        self.ro_compat.contains(RoCompat::REFLINK)
    }
    /// Inode btree block counts in the AGI.
    pub fn inobtcnt(&self) -> bool {
        self.ro_compat.contains(RoCompat::INOBTCNT)
    }
    /// File type in directory entries.
    pub fn ftype(&self) -> bool {
        self.incompat.contains(Incompat::FTYPE)
    }
    /// Sparse inode chunks.
    pub fn sparse_inodes(&self) -> bool {
        self.incompat.contains(Incompat::SPINODES)
    }
    /// Metadata UUID differs from the user-visible one.
    pub fn meta_uuid(&self) -> bool {
        self.incompat.contains(Incompat::META_UUID)
    }
    /// 64-bit timestamps.
    pub fn bigtime(&self) -> bool {
        self.incompat.contains(Incompat::BIGTIME)
    }
    /// Needs repair before mounting.
    pub fn needs_repair(&self) -> bool {
        self.incompat.contains(Incompat::NEEDSREPAIR)
    }
    /// Large extent counters.
    pub fn nrext64(&self) -> bool {
        self.incompat.contains(Incompat::NREXT64)
    }
    /// Atomic exchange of mappings.
    pub fn exchange_range(&self) -> bool {
        self.incompat.contains(Incompat::EXCHRANGE)
    }
    /// Parent pointers.
    pub fn parent(&self) -> bool {
        self.incompat.contains(Incompat::PARENT)
    }
    /// Metadata directory tree (and with it realtime groups).
    pub fn metadir(&self) -> bool {
        self.incompat.contains(Incompat::METADIR)
    }
    /// Zoned realtime device.
    pub fn zoned(&self) -> bool {
        self.incompat.contains(Incompat::ZONED)
    }
    /// ASCII case-insensitive names.
    pub fn ascii_ci(&self) -> bool {
        self.version.contains(Version::BORG)
    }
    /// Lazy superblock counters.
    pub fn lazy_count(&self) -> bool {
        self.features2.contains(Features2::LAZYSBCOUNT)
    }
    /// Unwritten extents.
    pub fn unwritten(&self) -> bool {
        self.version.contains(Version::EXTFLG)
    }
    /// Sector size field in use.
    pub fn sector(&self) -> bool {
        self.version.contains(Version::SECTOR)
    }
}
