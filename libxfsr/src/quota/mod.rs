//! Quota of users, groups and projects: what each uses is counted in the transaction that changes it.
//!
//! [`Quota`] is the [`Accountant`](crate::txn::Accountant) of a filesystem. Whatever an operation did to inodes (made, freed, grew, shrank, given to somebody else), it sees when
//! the transaction is about to be committed, and the records of their owners change with it. So no operation charges anybody itself. It only says beforehand
//! whom it may charge that never had anything ([`Quota::prepare`]), because a new record may need a block of its own.
//!
//! Kinds are kept up whose counts the superblock calls right; the others are counted anew by whoever mounts with quota next. Records are locked by
//! number, behind everything else and only until the transaction is committed.

mod account;
mod limits;
mod prepare;

use crate::cache::OnDamage;
use crate::dir;
use crate::error::{ForkKind, Result};
use crate::format::btree::Extent;
use crate::format::features::QuotaFlags;
use crate::format::inode::{Dinode, MetaType};
use crate::format::quota::{DquotType, slots_per_block};
use crate::inode::Inode;
use crate::space::Space;
use crate::txn::InodeLocks;
use crate::units::Ino;
use crate::volume::Volume;
use limits::Graces;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whose quota.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Users.
    User,
    /// Groups.
    Group,
    /// Projects.
    Project,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::User, Self::Group, Self::Project];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Project => "project",
        }
    }
    /// `d_type` of its records.
    pub fn record(self) -> DquotType {
        match self {
            Self::User => DquotType::USER,
            Self::Group => DquotType::GROUP,
            Self::Project => DquotType::PROJECT,
        }
    }
    pub(crate) fn metatype(self) -> MetaType {
        match self {
            Self::User => MetaType::UserQuota,
            Self::Group => MetaType::GroupQuota,
            Self::Project => MetaType::ProjectQuota,
        }
    }
    /// Flags: accounted, counted, enforced.
    fn flags(self) -> [QuotaFlags; 3] {
        match self {
            Self::User => [QuotaFlags::UQUOTA_ACCT, QuotaFlags::UQUOTA_CHKD, QuotaFlags::UQUOTA_ENFD],
            Self::Group => [QuotaFlags::GQUOTA_ACCT, QuotaFlags::GQUOTA_CHKD, QuotaFlags::GQUOTA_ENFD],
            Self::Project => [QuotaFlags::PQUOTA_ACCT, QuotaFlags::PQUOTA_CHKD, QuotaFlags::PQUOTA_ENFD],
        }
    }
    /// Whose inodes and blocks are counted.
    pub(crate) fn accounted(self) -> QuotaFlags {
        let [accounted, _, _] = self.flags();
        accounted
    }
    /// Whose counts are right.
    pub(crate) fn counted(self) -> QuotaFlags {
        let [_, counted, _] = self.flags();
        counted
    }
    /// The quota file: named by the superblock, or in the metadata directory tree under `/quota`.
    pub(crate) fn file(self, volume: &Volume, damage: OnDamage) -> Result<Option<Ino>> {
        if let Some(root) = volume.superblock.metadata_root() {
            let root = Inode::read(volume, root, damage)?;
            let Some(quota) = dir::lookup(volume, &root, b"quota")? else { return Ok(None) };
            let quota = Inode::read(volume, quota, damage)?;
            return dir::lookup(volume, &quota, self.name().as_bytes());
        }
        Ok(volume.superblock.metadata_inode(self.metatype()))
    }
}

/// Who owns something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Owners {
    /// User.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Project.
    pub project: u32,
}

impl Owners {
    /// Of an inode.
    pub fn of(core: &Dinode) -> Self {
        Self { user: core.uid.get(), group: core.gid.get(), project: core.project() }
    }
    /// The number of that kind.
    pub fn id(&self, kind: Kind) -> u32 {
        match kind {
            Kind::User => self.user,
            Kind::Group => self.group,
            Kind::Project => self.project,
        }
    }
}

/// A quota file.
struct File {
    kind: Kind,
    ino: Ino,
    enforced: bool,
    /// Usage is kept up.
    counted: Arc<AtomicBool>,
    /// Where its blocks are: they stay there.
    map: RwLock<Vec<Extent>>,
    /// How long soft limits may be exceeded, and limits of who has none of his own.
    graces: Graces,
}

/// Quota of a filesystem that is being changed.
pub struct Quota {
    space: Arc<Space>,
    files: Vec<File>,
    /// All quota files: nobody is charged for them.
    exempt: Vec<Ino>,
    /// By kind and number.
    locks: InodeLocks,
    /// Whether limits bind who works here.
    enforce: bool,
    now: fn() -> u64,
}

impl std::fmt::Debug for Quota {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds: Vec<Kind> = self.files.iter().map(|f| f.kind).collect();
        f.debug_struct("Quota").field("kinds", &kinds).field("enforce", &self.enforce).finish_non_exhaustive()
    }
}

fn clock() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl Quota {
    /// Quota of a filesystem; none where no usage is counted. The log is clean, or replayed. With `enforce` limits are enforced of the
    /// kinds for which the superblock says so; without, as for root under Linux, usage is counted only.
    ///
    /// # Errors
    /// When a quota file cannot be read.
    pub fn open(volume: &Volume, space: Arc<Space>, enforce: bool) -> Result<Option<Arc<Self>>> {
        let flags = QuotaFlags::from_bits_retain(volume.superblock.qflags.get());
        let (mut files, mut exempt) = (Vec::new(), Vec::new());
        for kind in Kind::ALL {
            let Some(ino) = kind.file(volume, OnDamage::Fail)? else { continue };
            exempt.push(ino);
            let [accounted, counted, enforced] = kind.flags();
            if !flags.contains(accounted | counted) {
                continue;
            }
            let map = Inode::read(volume, ino, OnDamage::Fail)?.extents(volume, ForkKind::Data)?;
            let graces = Graces::read(volume, kind, &map)?;
            files.push(File {
                kind,
                ino,
                enforced: flags.contains(enforced),
                counted: Arc::new(AtomicBool::new(true)),
                map: RwLock::new(map),
                graces,
            });
        }
        let quota = Self { space, files, exempt, locks: InodeLocks::default(), enforce, now: clock };
        Ok((!quota.files.is_empty()).then(|| Arc::new(quota)))
    }

    /// Another clock, by which grace periods begin and end: seconds since 1970.
    #[must_use]
    pub fn with_clock(self: Arc<Self>, now: fn() -> u64) -> Arc<Self> {
        match Arc::try_unwrap(self) {
            Ok(quota) => Arc::new(Self { now, ..quota }),
            Err(shared) => shared,
        }
    }

    /// The kinds that are kept up.
    pub fn kinds(&self) -> Vec<Kind> {
        self.files.iter().filter(|f| f.counted.load(Ordering::Acquire)).map(|f| f.kind).collect()
    }
}

/// Block of a quota file, and byte in it, where the record of a number is.
fn slot_of(id: u32, block_size: u32) -> (u64, usize) {
    let per = slots_per_block(block_size as usize).max(1);
    let id = id as usize;
    ((id / per) as u64, id % per * crate::format::quota::SLOT_SIZE)
}
