//! Quota of a filesystem that is open: kept up by [`Quota`], which the operations tell beforehand of whom they may charge.

use super::attributes::SetAttr;
use super::filesystem::Core;
use super::names::New;
use crate::error::{Error, Result};
use crate::format::features::QuotaFlags;
use crate::format::inode::{Dinode, Flags};
use crate::quota::{Kind, Owners, Quota};
use crate::space::Space;
use crate::txn::{Reservation, Scope};
use crate::units::Ino;
use crate::volume::Volume;
use std::sync::Arc;

/// Permission bit by which a directory hands its group down.
const SETGID: u16 = 0o2000;

fn checked(kind: Kind) -> QuotaFlags {
    match kind {
        Kind::User => QuotaFlags::UQUOTA_CHKD,
        Kind::Group => QuotaFlags::GQUOTA_CHKD,
        Kind::Project => QuotaFlags::PQUOTA_CHKD,
    }
}

/// Has quota kept up from now on. What is not kept up, because its file is damaged or nobody accounts it, is said to be unknown, so that who enforces it
/// next counts anew.
pub(super) fn keep_up(volume: &Volume, scope: &Scope, space: &Arc<Space>, enforce: bool) -> Result<Option<Arc<Quota>>> {
    let quota = match Quota::open(volume, space.clone(), enforce) {
        Err(Error::Corrupt(_)) => None,
        other => other?,
    };
    let kept = quota.as_ref().map(|q| q.kinds()).unwrap_or_default();
    let stale: QuotaFlags = Kind::ALL.into_iter().filter(|k| !kept.contains(k)).map(checked).collect();
    if volume.superblock.qflags.get() & stale.bits() != 0 {
        let mut t = scope.begin(Reservation { sectors: 1, ..Reservation::default() })?;
        let sb = t.superblock_mut()?;
        sb.qflags.set(sb.qflags.get() & !stale.bits());
        let at = t.commit()?;
        scope.sink().force(at)?;
    }
    if let Some(quota) = &quota {
        scope.set_accountant(quota.clone());
    }
    Ok(quota)
}

impl Core {
    fn owners_of(&self, ino: Ino) -> Result<(Owners, Dinode)> {
        let bytes = self.volume.inode_bytes(ino)?;
        let core = Dinode::from_bytes(&bytes).copied().ok_or_else(|| Error::NotFound(format!("inode {ino}")))?;
        Ok((Owners::of(&core), core))
    }

    /// Makes room for the records of those to whom a new inode in that directory may belong. The caller holds no locks, so the directory may be another
    /// one when the inode is made; then what it costs is counting anew.
    pub(super) fn prepare_quota_of_new(&self, above: Ino, new: &New) -> Result<()> {
        let Some((scope, quota)) = self.quota() else { return Ok(()) };
        let (mut owners, core) = self.owners_of(above)?;
        owners.user = new.uid;
        if core.mode.get() & SETGID == 0 {
            owners.group = new.gid;
        }
        if !core.flags().contains(Flags::PROJINHERIT) {
            owners.project = 0;
        }
        quota.prepare(scope, &owners)
    }

    /// The same for who gets an inode.
    pub(super) fn prepare_quota_of_changed(&self, ino: Ino, set: &SetAttr) -> Result<()> {
        let Some((scope, quota)) = self.quota() else { return Ok(()) };
        if set.uid.is_none() && set.gid.is_none() && set.project.is_none() {
            return Ok(());
        }
        let (before, _) = self.owners_of(ino)?;
        let owners = Owners {
            user: set.uid.unwrap_or(before.user),
            group: set.gid.unwrap_or(before.group),
            project: set.project.unwrap_or(before.project),
        };
        quota.prepare(scope, &owners)
    }
}
