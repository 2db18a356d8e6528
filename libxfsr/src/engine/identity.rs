//! Label and UUID of a filesystem that nobody has open: in every copy of the superblock, and in the log.

use crate::cache::OnDamage;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::features::Incompat;
use crate::format::superblock::{SUPERBLOCK, Superblock};
use crate::journal::{LogState, log_state, restamp};
use crate::units::{AgNumber, Device, Lsn};
use crate::volume::Volume;
use zerocopy::FromBytes;

/// Bytes of a label.
pub const LABEL: usize = 12;

/// What the UUID becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewUuid {
    /// That one.
    Set([u8; 16]),
    /// That which its metadata carry: of a filesystem whose UUID was changed the first one.
    Restore,
    /// What the primary superblock says, in all copies.
    Rewrite,
}

/// Changes all copies of the superblock, the primary first. A copy that cannot be used is left as it is; how many are is the answer.
fn change_copies(volume: &Volume, change: &dyn Fn(&mut Superblock)) -> Result<u32> {
    let g = &volume.geometry;
    let target = volume.cache.target(volume.data)?;
    let mut unusable = 0;
    for ag in volume.ags() {
        let Ok(block) = volume.ag_header(ag, 0, &SUPERBLOCK, OnDamage::Fail) else {
            if ag == AgNumber(0) {
                return Err(Error::unsupported("the primary superblock cannot be used: repair it first"));
            }
            unusable += 1;
            continue;
        };
        let mut sector = block.to_vec();
        drop(block);
        let (sb, _) = Superblock::mut_from_prefix(&mut sector).map_err(|_| Error::invalid("a short superblock"))?;
        change(sb);
        let lsn = Lsn(sb.lsn.get());
        (SUPERBLOCK.seal)(&mut sector, lsn);
        target.write_at(&sector, g.header_daddr(ag, 0).bytes())?;
        if ag == AgNumber(0) {
            target.flush()?;
        }
    }
    target.flush()?;
    Ok(unusable)
}

/// Sets the label; without bytes behind the first that is zero. The volume shows the old one until it is opened anew.
///
/// Returns how many copies of the superblock could not be used and were left alone.
///
/// # Errors
/// [`Error::Invalid`] for a label that is too long; I/O errors.
pub fn set_label(volume: &Volume, label: &[u8]) -> Result<u32> {
    if label.len() > LABEL {
        return Err(Error::invalid(format!("a label of {} bytes; at most {LABEL}", label.len())));
    }
    let mut bytes = [0; LABEL];
    bytes.iter_mut().zip(label).for_each(|(to, from)| *to = *from);
    change_copies(volume, &|sb| sb.fname = bytes)
}

/// Sets the UUID that users see. All other metadata keep the one that they were made with: a feature says that the two differ.
///
/// Between any two writes the filesystem can be mounted: the log's last record names no filesystem while the superblock changes.
/// Returns the new UUID, and how many copies of the superblock could not be used and were left alone.
///
/// # Errors
/// [`Error::Invalid`] where the log is not clean; [`Error::MissingDevice`] without the log's device; I/O errors.
pub fn set_uuid(volume: &mut Volume, new: NewUuid, control: &Control<'_>) -> Result<([u8; 16], u32)> {
    match log_state(volume, control)? {
        LogState::Clean { .. } => {}
        LogState::Absent => return Err(Error::MissingDevice { device: Device::Log }),
        LogState::Dirty { .. } => return Err(Error::invalid("the log holds changes: replay it first")),
    }
    let metadata = volume.geometry.meta_uuid;
    let uuid = match new {
        NewUuid::Set(uuid) => uuid,
        NewUuid::Restore => metadata,
        NewUuid::Rewrite => volume.geometry.uuid,
    };
    restamp(volume, [0; 16], control)?;
    let unusable = change_copies(volume, &|sb| {
        let incompat = Incompat::from_bits_retain(sb.features_incompat.get());
        let differs = uuid != metadata;
        let incompat = if differs { incompat | Incompat::META_UUID } else { incompat - Incompat::META_UUID };
        sb.features_incompat.set(incompat.bits());
        sb.uuid = uuid;
        sb.meta_uuid = if differs { metadata } else { [0; 16] };
    })?;
    volume.geometry.uuid = uuid;
    restamp(volume, uuid, control)?;
    Ok((uuid, unusable))
}
