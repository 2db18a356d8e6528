//! What each user, group and project uses, counted over all inodes.

use crate::cache::OnDamage;
use crate::format::features::QuotaFlags;
use crate::format::inode::Dinode;
use crate::quota::Kind;
use crate::units::Ino;
use crate::volume::Volume;
use parking_lot::Mutex;
use std::collections::HashMap;

/// What somebody uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Used {
    pub blocks: u64,
    pub realtime: u64,
    pub inodes: u64,
}

impl Used {
    fn add(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.realtime += other.realtime;
        self.inodes += other.inodes;
    }
}

/// Usage by kind and id. Nothing is counted where the superblock does not say that usage was counted before.
pub(in crate::check) struct Usage {
    counted: bool,
    /// Whether the caller wants usage to be compared.
    pub(super) wanted: bool,
    /// The quota files themselves, which nobody is charged for.
    files: Vec<Ino>,
    by_kind: [Mutex<HashMap<u32, Used>>; 3],
}

/// What some inodes add.
#[derive(Debug, Default)]
pub(in crate::check) struct Batch(Vec<(u8, u32, Used)>);

impl Usage {
    pub(in crate::check) fn new(volume: &Volume, wanted: bool) -> Self {
        let qflags = QuotaFlags::from_bits_retain(volume.superblock.qflags.get());
        let any = |of: fn(Kind) -> QuotaFlags| Kind::ALL.iter().any(|k| qflags.contains(of(*k)));
        let counted = wanted && any(Kind::counted) && any(Kind::accounted);
        let files = Kind::ALL.iter().filter_map(|k| k.file(volume, OnDamage::Keep).ok().flatten()).collect();
        Self { counted, wanted, files, by_kind: Default::default() }
    }

    /// Takes a batch.
    pub(in crate::check) fn add(&self, mut batch: Batch) {
        if batch.0.is_empty() {
            return;
        }
        batch.0.sort_unstable_by_key(|(kind, id, _)| (*kind, *id));
        for group in batch.0.chunk_by(|a, b| a.0 == b.0) {
            let Some(map) = group.first().and_then(|g| self.by_kind.get(usize::from(g.0))) else { continue };
            let mut map = map.lock();
            for same in group.chunk_by(|a, b| a.1 == b.1) {
                let mut sum = Used::default();
                same.iter().for_each(|s| sum.add(s.2));
                if let Some(first) = same.first() {
                    map.entry(first.1).or_default().add(sum);
                }
            }
        }
    }

    /// Hands over what was counted for a kind.
    pub(super) fn take(&self, kind: Kind) -> HashMap<u32, Used> {
        self.by_kind.get(kind as usize).map(|m| std::mem::take(&mut *m.lock())).unwrap_or_default()
    }
}

impl Batch {
    /// Counts an inode; `realtime` of its blocks lie on the realtime device.
    pub(in crate::check) fn inode(&mut self, usage: &Usage, ino: Ino, core: &Dinode, realtime: u64) {
        if !usage.counted || core.is_metadata() || usage.files.contains(&ino) {
            return;
        }
        let used = Used { blocks: core.nblocks.get().saturating_sub(realtime), realtime, inodes: 1 };
        for (kind, id) in [(Kind::User, core.uid.get()), (Kind::Group, core.gid.get()), (Kind::Project, core.project())]
        {
            self.0.push((kind as u8, id, used));
        }
    }
}
