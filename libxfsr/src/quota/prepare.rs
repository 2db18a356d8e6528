//! Records for those who never had anything.

use super::limits::{place, slots};
use super::{File, Owners, Quota, slot_of};
use crate::cache::{BlockKey, OnDamage, Want};
use crate::error::{Error, ForkKind, Result};
use crate::format::btree::Extent;
use crate::format::quota::{DQUOT_BLOCK, DquotSlot, DquotType, MAGIC, SLOT_SIZE, VERSION, seal_slot};
use crate::inode::ForkMut;
use crate::space::{Fill, Request};
use crate::txn::{Scope, Transaction};
use crate::units::{FileBlock, Lsn};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use zerocopy::FromBytes;

impl Quota {
    /// Makes room for the records of those whom the next operation may charge, in transactions of its own. The caller holds no locks. Without
    /// it an operation on somebody new gives up counting, and the next mount with quota counts anew.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; damage of a quota file; I/O errors.
    pub fn prepare(&self, scope: &Scope, owners: &Owners) -> Result<()> {
        for file in self.files.iter().filter(|f| f.counted.load(Ordering::Acquire)) {
            let id = owners.id(file.kind);
            if place(scope.volume(), &file.map.read(), id).is_none() {
                self.add_block(scope, file, id)?;
            }
        }
        Ok(())
    }

    fn add_block(&self, scope: &Scope, file: &File, id: u32) -> Result<()> {
        let g = &scope.volume().geometry;
        let (block, _) = slot_of(id, g.block_size);
        let mut t = scope.begin(ForkMut::reservation(g, ForkKind::Data, 1))?;
        t.lock_inode(file.ino);
        // Somebody else may have been faster.
        if self.find(&t, file, id).is_some() {
            return Ok(());
        }
        let request = Request { min: 1, max: 1, align: 1, left: 0, unlogged: false, owner: None, fill: Fill::Free };
        let mut fork = ForkMut::new(&mut t, &self.space, file.ino, ForkKind::Data);
        fork.allocate(FileBlock(block), &request, None, false)?;
        let key = fork.block_key(FileBlock(block), 1)?;
        let mut map: Vec<Extent> = Vec::new();
        fork.extents((0, u64::MAX), &mut |e| {
            map.push(*e);
            ControlFlow::Continue(())
        })?;
        self.fill(&mut t, file, &key, block)?;
        t.commit()?;
        *file.map.write() = map;
        Ok(())
    }

    /// Empty records of all numbers of a new block.
    fn fill(&self, t: &mut Transaction<'_>, file: &File, key: &BlockKey, block: u64) -> Result<()> {
        let g = t.geometry();
        let first = u32::try_from(block.saturating_mul(slots(g) as u64));
        let first = first.map_err(|_| Error::invalid("a quota record behind the last number"))?;
        let bytes = t.fresh(key, &Want::new(&DQUOT_BLOCK, OnDamage::Fail))?;
        for (slot, id) in bytes.chunks_exact_mut(SLOT_SIZE).zip(first..=u32::MAX) {
            if let Ok((s, _)) = DquotSlot::mut_from_prefix(slot) {
                s.diskdq.magic.set(MAGIC);
                s.diskdq.version = VERSION;
                s.diskdq.id.set(id);
                let mut kind = file.kind.record();
                kind.set(DquotType::BIGTIME, g.features.bigtime() && id != 0);
                s.diskdq.kind = kind.bits();
                s.uuid = g.meta_uuid;
            }
            seal_slot(slot, Lsn(0));
        }
        Ok(())
    }
}
