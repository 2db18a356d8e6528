use super::{Change, Deferred, DirtySink, Intent, Observer, Reservation, Scope, Transaction};
use crate::cache::{BlockKey, Checkpoint, OnDamage, Want};
use crate::control::Control;
use crate::format::ag::{AGF, AGI, Agf};
use crate::format::btree::BNOBT_BLOCK;
use crate::format::inode::Dinode;
use crate::format::log::items::ItemType;
use crate::inode::Inode;
use crate::mkfs::{Devices, Options, plan, write};
use crate::target::{Target, Xfile};
use crate::units::{AgBlock, AgNumber, Ino, Lsn};
use crate::volume::Volume;
use crate::{Error, Result};
use parking_lot::Mutex;
use std::sync::Arc;
use zerocopy::FromBytes;

const ROOM: Reservation = Reservation { blocks: 8, sectors: 4, inodes: 4, bytes: 100 };

fn filesystem() -> (Arc<Xfile>, Arc<Volume>) {
    let target = Arc::new(Xfile::new("txn").unwrap());
    target.set_len(320 << 20).unwrap();
    let plan = plan(&Options::default(), &Devices::file(target.len())).unwrap();
    let targets = write::Targets { data: &*target, log: None, rt: None };
    write::write(&plan, &targets, &write::WriteOptions::default(), &Control::none()).unwrap();
    let volume = Volume::from_targets(target.clone(), None, None, 1 << 20).unwrap();
    (target, Arc::new(volume))
}

fn scope(volume: &Arc<Volume>) -> Scope {
    Scope::new(volume.clone(), Arc::new(DirtySink { lsn: Lsn::new(1, 8) }))
}

fn agf(volume: &Volume) -> BlockKey {
    let g = &volume.geometry;
    BlockKey::one(volume.data, g.header_daddr(AgNumber(1), 1), g.sector_size / 512)
}

fn bytes(target: &Xfile) -> Vec<u8> {
    let mut all = vec![0; 48 << 20];
    target.read_at(&mut all[..24 << 20], 0).unwrap();
    target.read_at(&mut all[24 << 20..], 80 << 20).unwrap();
    all
}

fn free_blocks(volume: &Volume) -> u32 {
    let b = volume.ag_header(AgNumber(1), 1, &AGF, OnDamage::Fail).unwrap();
    Agf::ref_from_prefix(&b).unwrap().0.freeblks.get()
}

fn take_one(t: &mut Transaction<'_>) -> u32 {
    let key = agf(t.volume());
    let b = t.block_mut(&key, &Want::new(&AGF, OnDamage::Fail)).unwrap();
    let (agf, _) = Agf::mut_from_prefix(b).unwrap();
    agf.freeblks.set(agf.freeblks.get() - 1);
    agf.longest.set(agf.longest.get() - 1);
    agf.freeblks.get()
}

#[test]
fn what_is_committed_is_seen_at_once_and_reaches_the_disk_sealed() {
    let (target, volume) = filesystem();
    let scope = scope(&volume);
    let before = free_blocks(&volume);
    let mut t = scope.begin(ROOM).unwrap();
    take_one(&mut t);
    let own = t.read(&agf(&volume), &Want::new(&AGF, OnDamage::Fail)).unwrap();
    assert_eq!(Agf::ref_from_prefix(&own).unwrap().0.freeblks.get(), before - 1, "it reads through itself");
    drop(own);
    assert_eq!(t.commit().unwrap(), Checkpoint(Lsn::new(1, 8).0));
    // As another type its checksum would be looked at: it is right before it is written.
    assert_eq!(free_blocks(&volume), before - 1);
    volume.cache.write_back(None).unwrap();
    let again = Volume::from_targets(target, None, None, 1 << 20).unwrap();
    assert_eq!(free_blocks(&again), before - 1);
    let b = again.ag_header(AgNumber(1), 1, &AGF, OnDamage::Fail).unwrap();
    assert_eq!(b.lsn(), Some(Lsn::new(1, 8)));
}

#[test]
fn a_dropped_transaction_leaves_no_trace() {
    let (target, volume) = filesystem();
    let scope = scope(&volume);
    let before = bytes(&target);
    let g = &volume.geometry;
    let key = |n| BlockKey::one(volume.data, g.agbno_to_daddr(AgNumber(1), AgBlock(n)), g.block_size / 512);
    let want = Want::new(&BNOBT_BLOCK, OnDamage::Fail);
    // One of them is known to the cache before.
    volume.ag_block(AgNumber(1), AgBlock(1), &want).unwrap();
    for known in [true, false] {
        let mut t = scope.begin(ROOM).unwrap();
        take_one(&mut t);
        t.fresh(&key(if known { 1 } else { 700 }), &want).unwrap().fill(7);
        t.invalidate(&key(2), &want).unwrap();
        let root = t.inode_mut(g.root_ino).unwrap();
        Dinode::from_bytes_mut(root).unwrap().uid.set(77);
        t.create_chunk(AgNumber(1), AgBlock(1024), 8, 5).unwrap();
        let lock = Arc::new(Mutex::new(0));
        let hook = lock.clone();
        t.after_commit(move |_| *hook.lock() += 1);
        drop(t);
        assert_eq!(*lock.lock(), 0);
    }
    volume.cache.write_back(None).unwrap();
    assert_eq!(bytes(&target), before);
    volume.ag_block(AgNumber(1), AgBlock(1), &want).unwrap();
    assert!(volume.ag_block(AgNumber(1), AgBlock(700), &want).is_err());
}

#[test]
fn inodes_of_one_cluster_are_changed_side_by_side() {
    let (target, volume) = filesystem();
    let scope = scope(&volume);
    let root = volume.geometry.root_ino;
    let (a, b) = (Ino(root.0), Ino(root.0 + 1));
    let mut first = scope.begin(ROOM).unwrap();
    let mut second = scope.begin(ROOM).unwrap();
    Dinode::from_bytes_mut(first.inode_mut(a).unwrap()).unwrap().uid.set(11);
    Dinode::from_bytes_mut(second.inode_mut(b).unwrap()).unwrap().gid.set(22);
    second.set_next_unlinked(b, 140).unwrap();
    let changes = Dinode::from_bytes(first.inode(a).unwrap()).unwrap().changecount.get();
    second.commit().unwrap();
    first.commit().unwrap();
    for written in [false, true] {
        if written {
            volume.cache.write_back(None).unwrap();
        }
        let v = if written { &Volume::from_targets(target.clone(), None, None, 1 << 20).unwrap() } else { &*volume };
        let [a, b] = [a, b].map(|i| Inode::read(v, i, OnDamage::Fail).unwrap().core);
        assert_eq!((a.uid.get(), a.changecount.get()), (11, changes + 1));
        assert_eq!((b.gid.get(), b.next_unlinked.get()), (22, 140));
        let lsn = if written { Lsn::new(1, 8).0 } else { 0 };
        assert_eq!([a.lsn.get(), b.lsn.get()], [lsn; 2], "each has the LSN of its own change");
    }
}

#[test]
fn a_new_chunk_holds_free_inodes_and_those_that_were_taken() {
    let (_, volume) = filesystem();
    let scope = scope(&volume);
    let g = &volume.geometry;
    let ino = g.join_ino(AgNumber(1), g.block_to_agino(AgBlock(1024)));
    let mut t = scope.begin(ROOM).unwrap();
    assert!(t.create_chunk(AgNumber(1), AgBlock(1025), 8, 5).is_err(), "not aligned");
    t.create_chunk(AgNumber(1), AgBlock(1024), 8, 5).unwrap();
    let d = Dinode::from_bytes_mut(t.inode_mut(ino).unwrap()).unwrap();
    assert_eq!((d.ino.get(), d.generation.get(), d.mode.get()), (ino.0, 5, 0));
    d.mode.set(0o100_644);
    d.format = 2;
    t.commit().unwrap();
    let all: Vec<u16> =
        (0..64).map(|n| Inode::read(&volume, Ino(ino.0 + n), OnDamage::Fail).unwrap().core.mode.get()).collect();
    assert_eq!((all[0], &all[1..]), (0o100_644, &[0; 63][..]));
    // Its clusters are freed again, and are read from the disk, where they never were.
    let mut t = scope.begin(ROOM).unwrap();
    for n in 0..2 {
        let (key, _) = volume.inode_cluster(Ino(ino.0 + 32 * n)).unwrap();
        t.invalidate(&key, &Want::new(&crate::format::inode::INODE_CLUSTER, OnDamage::Fail)).unwrap();
    }
    t.commit().unwrap();
    assert!(Inode::read(&volume, ino, OnDamage::Fail).is_err());
}

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<Change>>);

impl Observer for Seen {
    fn changed(&self, change: &Change) {
        self.0.lock().push(*change);
    }
}

/// Takes so many blocks, one in each transaction.
struct Take(u32);

impl Deferred for Take {
    fn kind(&self) -> ItemType {
        ItemType::Efi
    }
    fn intent(&self, id: u64) -> Intent {
        Intent::extents(ItemType::Efi, id, &[(1, self.0)])
    }
    fn done(&self, id: u64) -> Intent {
        Intent::extents(ItemType::Efd, id, &[(1, self.0)])
    }
    fn reservation(&self) -> Reservation {
        ROOM
    }
    fn run(self: Box<Self>, t: &mut Transaction<'_>) -> Result<Option<Box<dyn Deferred>>> {
        take_one(t);
        t.emit(Change::Nlink { ino: Ino(u64::from(self.0)), delta: 0 });
        Ok(if self.0 > 1 { Some(Box::new(Take(self.0 - 1))) } else { None })
    }
}

#[test]
fn deferred_steps_run_each_in_a_transaction_of_its_own_and_observers_are_told() {
    let (_, volume) = filesystem();
    let scope = scope(&volume);
    let seen = Arc::new(Seen::default());
    scope.observe(seen.clone());
    let before = free_blocks(&volume);
    let mut t = scope.begin(ROOM).unwrap();
    take_one(&mut t);
    t.lock_inode(volume.geometry.root_ino);
    t.defer(Box::new(Take(2))).unwrap();
    t.defer(Box::new(Take(1))).unwrap();
    t.emit(Change::Nlink { ino: Ino(0), delta: 1 });
    t.commit().unwrap();
    assert_eq!(free_blocks(&volume), before - 4);
    let order: Vec<u64> =
        seen.0.lock().iter().map(|c| if let Change::Nlink { ino, .. } = c { ino.0 } else { 99 }).collect();
    assert_eq!(order, [0, 2, 1, 1]);
    drop(scope.locks().lock(volume.geometry.root_ino));
}

#[test]
fn damaged_blocks_and_wrong_types_are_not_joined() {
    let (_, volume) = filesystem();
    let scope = scope(&volume);
    let shared = scope.locks().lock_shared(Ino(500));
    let mut t = scope.begin(ROOM).unwrap();
    // What the cache has as one type is not handed out as another.
    t.read(&agf(&volume), &Want::new(&AGF, OnDamage::Fail)).unwrap();
    assert!(matches!(t.block_mut(&agf(&volume), &Want::new(&AGI, OnDamage::Fail)), Err(Error::Corrupt(_))));
    let (cluster, _) = volume.inode_cluster(volume.geometry.root_ino).unwrap();
    let want = Want::new(&crate::format::inode::INODE_CLUSTER, OnDamage::Fail);
    assert!(matches!(t.block_mut(&cluster, &want), Err(Error::Invalid(_))));
    assert!(t.adopt(&shared).is_err());
}
