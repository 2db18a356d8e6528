//! What transactions change in the primary superblock.

use super::{Reservation, Scope, Transaction};
use crate::cache::{BlockKey, Checkpoint, OnDamage, Want};
use crate::error::{Error, Result};
use crate::format::features::LogIncompat;
use crate::format::superblock::{SUPERBLOCK, Superblock};
use crate::units::AgNumber;
use zerocopy::FromBytes;

const ROOM: Reservation = Reservation { blocks: 0, sectors: 1, inodes: 0, bytes: 0 };

impl Transaction<'_> {
    /// Changes the primary superblock.
    ///
    /// # Errors
    /// As [`Transaction::block_mut`].
    pub fn superblock_mut(&mut self) -> Result<&mut Superblock> {
        let g = self.geometry();
        let key = BlockKey::one(self.volume().data, g.header_daddr(AgNumber(0), 0), g.sector_size / 512);
        let bytes = self.block_mut(&key, &Want::new(&SUPERBLOCK, OnDamage::Fail))?;
        Superblock::mut_from_prefix(bytes).map(|(sb, _)| sb).map_err(|_| Error::invalid("a short superblock"))
    }
}

impl Scope {
    fn write_log_incompat(&self, features: LogIncompat) -> Result<Checkpoint> {
        let mut t = self.begin(ROOM)?;
        t.superblock_mut()?.features_log_incompat.set(features.bits());
        t.commit()
    }

    /// Says in the superblock that the log may hold items that only some kernels know. When this returns, it is on the disk, and they may be
    /// logged. The caller holds no block.
    ///
    /// # Errors
    /// I/O errors; then they may not be logged.
    pub fn enable_log_incompat(&self, features: LogIncompat) -> Result<()> {
        let all = self.log_incompat() | features;
        if all == self.log_incompat() {
            return Ok(());
        }
        let at = self.write_log_incompat(all)?;
        self.sink().force(at)?;
        self.volume().cache.write_back(Some(at))?;
        self.volume().data_target().flush()?;
        self.set_log_incompat(all);
        Ok(())
    }

    /// Takes that back. Nothing that was logged may be needed any more.
    ///
    /// # Errors
    /// I/O errors.
    pub fn clear_log_incompat(&self) -> Result<()> {
        if !self.log_incompat().is_empty() {
            self.write_log_incompat(LogIncompat::empty())?;
            self.set_log_incompat(LogIncompat::empty());
        }
        Ok(())
    }
}
