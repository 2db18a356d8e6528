mod world;

use super::{Journal, Options};
use crate::cache::{BlockKey, Checkpoint, OnDamage, Want};
use crate::control::Control;
use crate::engine::{Targets, physical_view, replayed_view};
use crate::format::counters::Counters;
use crate::format::features::LogIncompat;
use crate::format::inode::{Dinode, INODE_CLUSTER, MAGIC};
use crate::format::log::items::ItemType;
use crate::format::part::PartHeader;
use crate::format::superblock::{SUPERBLOCK, Superblock};
use crate::format::symlink::SYMLINK;
use crate::format::{identify, symlink};
use crate::inode::Inode;
use crate::journal::{LogState, log_state};
use crate::target::{Change, Recorder, Target};
use crate::txn::{CommitSink, Deferred, Intent, Reservation, Scope, Transaction};
use crate::units::{AgBlock, AgNumber, Ino, Lsn};
use crate::volume::Volume;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use world::*;
use zerocopy::FromBytes;

#[test]
fn a_crash_at_any_write_leaves_whole_transactions_and_all_that_was_forced() {
    // 2 MiB of log: it is gone round several times.
    let w = World::new(512, None, &Options::default());
    let h = work(&w, 1500, 0x1234_5678);
    assert!(w.journal.head().cycle() >= 3, "the log was not gone round: {:?}", w.journal.head());
    crashes(&w, &h, 53, 77);
}

#[test]
fn records_of_stripes_and_of_256_kib_are_replayed_too() {
    let wide = Options { record_size: Some(256 << 10), ..Options::default() };
    for (stripe, options) in [(Some(32 << 10), Options::default()), (None, wide), (Some(256 << 10), Options::default())]
    {
        let w = World::new(1536, stripe, &options);
        let h = work(&w, 300, 0x9abc_def1);
        crashes(&w, &h, 97, 5);
        w.journal.close().unwrap();
        assert!(matches!(log_state(&w.volume, &Control::none()), Ok(LogState::Clean { .. })), "{stripe:?}");
    }
}

#[test]
fn a_log_that_was_closed_or_recovered_is_gone_on_with() {
    let w = World::new(512, None, &Options::default());
    let mut h = work(&w, 200, 3);
    let World { recorder, volume, journal, scope, inodes } = w;
    journal.close().unwrap();
    assert!(scope.begin(ROOM).is_err(), "a journal that was closed takes nothing");
    drop((volume, scope, journal));
    let open = |target: Arc<Recorder>| {
        let volume = Arc::new(Volume::from_targets(target.clone(), None, None, 1 << 20).unwrap());
        let journal = Journal::open(volume.clone(), &Options::default()).unwrap();
        let scope = Scope::new(volume.clone(), journal.clone());
        World { recorder: target, volume, journal, scope, inodes: inodes.clone() }
    };
    let w = open(recorder);
    let closed = h.states.pop().unwrap();
    let mut random = Random(9);
    let mut again = History { states: vec![closed.clone()], forced: vec![(now(&w), 1)] };
    let mut state = closed;
    for n in 1000..1100 {
        let at = w.step(&mut random, n, &mut state);
        again.states.push(state.clone());
        if n % 7 == 0 && at > Checkpoint::default() {
            w.journal.force(at).unwrap();
            again.forced.push((now(&w), again.states.len()));
        }
    }
    crashes(&w, &again, 13, 11);
    // Dirty: it is refused, and after replay onto the target itself it is gone on with.
    w.journal.sync().unwrap();
    let image = Arc::new(w.recorder.crash(now(&w), &mut |_| true).unwrap());
    let dirty = Arc::new(Volume::from_targets(image.clone(), None, None, 1 << 20).unwrap());
    assert!(matches!(Journal::open(dirty, &Options::default()), Err(crate::Error::Invalid(_))));
    let view = replayed_view(image, None, None, &Control::none()).unwrap();
    let target = Arc::new(Recorder::new(view.overlay.clone()).unwrap());
    let w = open(target);
    let mut last = History { states: vec![state.clone()], forced: vec![(now(&w), 1)] };
    for n in 2000..2050 {
        let at = w.step(&mut random, n, &mut state);
        last.states.push(state.clone());
        if at > Checkpoint::default() {
            w.journal.force(at).unwrap();
            last.forced.push((now(&w), last.states.len()));
        }
    }
    crashes(&w, &last, 17, 12);
}

/// The newest LSN that a block carries.
fn lsn_of(bytes: &[u8]) -> Option<Lsn> {
    let inode = |b: &[u8]| Dinode::from_bytes(b).filter(|d| d.magic.get() == MAGIC).map(|d| Lsn(d.lsn.get()));
    if let Some(first) = inode(bytes) {
        return bytes.chunks(512).filter_map(inode).max().or(Some(first));
    }
    identify(bytes).and_then(|t| (t.lsn)(bytes))
}

#[test]
fn no_block_reaches_the_disk_before_its_checkpoint_is_durable() {
    use crate::format::log::{LOG_BLOCK, OpFlags, Ops, RecordHeader, unpack};
    let w = World::new(512, None, &Options::default());
    work(&w, 600, 0xfeed);
    w.journal.close().unwrap();
    let g = &w.volume.geometry;
    let start = g.fsblock_to_daddr(g.log_start).unwrap().bytes();
    let log = start..start + u64::from(g.log_blocks) * u64::from(g.block_size);
    // Checkpoints by the LSN of their first record; committed, but perhaps not flushed; durable.
    let (mut current, mut committed, mut durable) = (Lsn(0), Vec::new(), Vec::new());
    let (mut blocks, mut records, mut unflushed, mut tail) = (0, 0, Vec::new(), Lsn(0));
    for event in w.recorder.events() {
        match event.change {
            Change::Flush => {
                durable.append(&mut committed);
                unflushed.clear();
            }
            Change::Write(at, bytes) if log.contains(&at) => {
                let Ok((h, _)) = RecordHeader::read_from_prefix(&bytes) else { continue };
                if h.magicno.get() != crate::format::log::HEADER_MAGIC {
                    continue;
                }
                records += 1;
                let heads = h.header_blocks() as usize * LOG_BLOCK;
                // What goes on at the start of the log is another write.
                if bytes.len() < heads + h.len.get() as usize {
                    continue;
                }
                let mut data = bytes[heads..].to_vec();
                assert!(unpack(&bytes[..heads], &mut data));
                for op in Ops::new(&data, h.num_logops.get()) {
                    let flags = op.unwrap().0.flags();
                    if flags.contains(OpFlags::START) {
                        current = h.lsn();
                    }
                    if flags.contains(OpFlags::COMMIT) {
                        committed.push(current);
                    }
                }
                // A record that names a later tail says that what was before it is on the disk.
                let named = Lsn(h.tail_lsn.get());
                if named > tail && tail > Lsn(0) {
                    assert!(unflushed.is_empty(), "the tail moves from {tail:?} to {named:?} past {unflushed:?}");
                }
                tail = named;
            }
            Change::Write(at, bytes) => {
                blocks += 1;
                unflushed.push(at);
                if let Some(lsn) = lsn_of(&bytes).filter(|l| l.0 > 0) {
                    let known = durable.contains(&lsn) || durable.last().is_some_and(|d| lsn <= *d);
                    assert!(known, "the block at {at} has {lsn:?}, and {:?} is durable", durable.last());
                }
            }
            Change::Punch(..) => panic!("nothing is punched"),
        }
    }
    assert!(blocks > 300 && records > 100, "{blocks} blocks, {records} records");
}

#[test]
fn threads_that_wait_share_a_write() {
    let w = World::new(1024, None, &Options::default());
    let before = w.recorder.events().iter().filter(|e| e.change == Change::Flush).count();
    let (done, threads, each) = (AtomicUsize::new(0), 4, 60);
    let order: Mutex<Vec<(Ino, u32)>> = Mutex::default();
    std::thread::scope(|s| {
        for n in 0..threads {
            let (w, done, order) = (&w, &done, &order);
            s.spawn(move || {
                for i in 1..=each {
                    // Neighbours: the inodes of all threads are in one cluster.
                    let ino = w.inodes[n + threads * (i % 3)];
                    let mut t = w.scope.begin(ROOM).unwrap();
                    Dinode::from_bytes_mut(t.inode_mut(ino).unwrap()).unwrap().uid.set(i as u32);
                    let at = t.commit().unwrap();
                    order.lock().push((ino, i as u32));
                    w.journal.force(at).unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let flushes = w.recorder.events().iter().filter(|e| e.change == Change::Flush).count() - before;
    assert_eq!(done.into_inner(), threads * each);
    assert!(flushes <= threads * each, "{flushes} flushes");
    let image = w.recorder.crash(now(&w), &mut |_| false).unwrap();
    let last: BTreeMap<Ino, u32> = order.into_inner().into_iter().collect();
    let seen = w.seen(image, last.keys().map(|i| Place::Owner(*i)));
    assert!(last.iter().all(|(i, v)| seen[&Place::Owner(*i)] == Some(*v)), "{seen:?}");
}

#[test]
fn a_device_that_fails_stops_everything_and_harms_nothing() {
    use crate::target::{Fault, Faulty, On};
    for (on, pass, fault) in [
        (On::Write, 0, Fault::Error),
        (On::Write, 7, Fault::Torn(700)),
        (On::Write, 40, Fault::Gone),
        (On::Flush, 0, Fault::Error),
        (On::Flush, 9, Fault::Error),
    ] {
        let recorder = Arc::new(Recorder::new(image(512, None)).unwrap());
        let faulty = Arc::new(Faulty::new(recorder.clone()));
        let w = World::over(recorder, faulty.clone(), &Options::default());
        faulty.add(on, pass, fault);
        let (mut random, mut state) = (Random(u64::from(pass as u32) + 5), State::new());
        let mut h = History { states: vec![State::new()], forced: vec![(now(&w), 1)] };
        let mut failed = false;
        for n in 1..2000 {
            let result = w.try_step(&mut random, n, &mut state);
            h.states.push(state.clone());
            let result = result.and_then(|at| if n % 3 == 0 { w.journal.force(at).map(|()| at) } else { Ok(at) });
            match result {
                Ok(at) if n % 3 == 0 && at > Checkpoint::default() => h.forced.push((now(&w), h.states.len())),
                Ok(_) => {}
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        assert!(failed, "{on:?} {pass} {fault:?} was not met");
        if on == On::Flush || fault == Fault::Gone || matches!(fault, Fault::Torn(_)) {
            assert!(w.scope.begin(ROOM).is_err(), "nothing may follow {fault:?} on {on:?} {pass}");
        }
        let time = now(&w);
        crash(&w, &h, time, &mut |_| true, "all written");
        crash(&w, &h, time, &mut |_| false, "all that was not flushed lost");
    }
}

#[test]
fn more_than_the_log_holds_is_refused_and_leaves_no_trace() {
    let w = World::new(512, None, &Options::default());
    assert!(w.scope.begin(Reservation { blocks: 600, ..ROOM }).is_err(), "more than the log");
    // Many more changes than the log holds at once, and never a force: room is made.
    let mut state = State::new();
    let mut random = Random(1);
    for n in 1..3000 {
        w.step(&mut random, n, &mut state);
    }
    assert!(w.journal.head().cycle() > 2);
    w.journal.close().unwrap();
    let places: Vec<Place> = state.keys().copied().collect();
    let image = w.recorder.crash(now(&w), &mut |_| false).unwrap();
    assert!(shows(&w.seen(image, places.into_iter()), &state));
}

/// Puts its number into the label and, in further transactions, into so many owners.
struct Owners {
    number: u32,
    left: Vec<Ino>,
}

impl Deferred for Owners {
    fn kind(&self) -> ItemType {
        ItemType::Efi
    }
    fn intent(&self, id: u64) -> Intent {
        Intent::extents(ItemType::Efi, id, &[(u64::from(self.number), self.left.len() as u32)])
    }
    fn done(&self, id: u64) -> Intent {
        Intent::extents(ItemType::Efd, id, &[(u64::from(self.number), self.left.len() as u32)])
    }
    fn reservation(&self) -> Reservation {
        ROOM
    }
    fn run(mut self: Box<Self>, t: &mut Transaction<'_>) -> crate::Result<Option<Box<dyn Deferred>>> {
        // Now and then what was committed of the chain so far is durable before it goes on.
        if (self.left.len() as u32 + self.number).is_multiple_of(5) {
            t.scope().sink().force(Checkpoint(u64::MAX))?;
        }
        let Some(ino) = self.left.pop() else { return Err(crate::Error::invalid("nothing left")) };
        Dinode::from_bytes_mut(t.inode_mut(ino)?).unwrap().uid.set(self.number);
        Ok(if self.left.is_empty() { None } else { Some(self) })
    }
}

#[test]
fn a_chain_that_a_crash_cuts_off_comes_back_as_what_is_left_of_it() {
    let w = World::new(512, None, &Options::default());
    let mut random = Random(4);
    let from = now(&w);
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        // Somebody else wants what is committed durable, in the middle of chains too.
        s.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                w.journal.sync().unwrap();
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
        });
        for number in 1..=400 {
            let mut t = w.scope.begin(ROOM).unwrap();
            w.change(&mut t, Place::Label, Some(number), None);
            // Something large, so that the log is gone round; and every tenth is a chain whose intents are logged anew as the log goes on.
            (0..4).for_each(|_| w.change(&mut t, Place::Link(random.below(300) as u32), Some(number), None));
            let first = random.below(200) as usize;
            let count = if u32::is_multiple_of(number, 10) { 40 } else { 3 };
            t.defer(Box::new(Owners { number, left: w.inodes[first..first + count].to_vec() })).unwrap();
            let at = t.commit().unwrap();
            if number % 4 == 0 {
                w.journal.force(at).unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(w.journal.head().cycle() >= 2);
    let mut cut_off = 0;
    for time in (from..=now(&w)).step_by(5) {
        let image = Arc::new(w.recorder.crash(time, &mut |e| e.time % 3 > 0).unwrap());
        let targets = Targets { data: image, log: None, rt: None };
        let view = physical_view(&targets, &Control::none()).unwrap();
        let label = hex(&view.volume.superblock.fname[..8]).unwrap_or(0);
        let owners = w.inodes.iter().map(|i| Inode::read(&view.volume, *i, OnDamage::Fail).unwrap().core.uid.get());
        let done = owners.filter(|o| *o == label).count();
        let left = match &view.replayed.pending[..] {
            [] => 0,
            [p] => {
                let (_, extents) = crate::format::log::items::efi_item(&p.regions[0]).unwrap();
                assert_eq!(extents[0].0, u64::from(label), "crashed at {time}");
                cut_off += 1;
                extents[0].1 as usize
            }
            more => panic!("crashed at {time}: {} intents", more.len()),
        };
        let whole = if label.is_multiple_of(10) { 40 } else { 3 };
        assert!(label == 0 || done + left == whole, "crashed at {time}: {done} done and {left} left of {label}");
    }
    assert!(cut_off > 3, "{cut_off} chains were cut off");
    w.journal.close().unwrap();
}

#[test]
fn a_chain_that_fails_half_way_stops_the_journal_and_is_left_to_recovery() {
    let w = World::new(512, None, &Options::default());
    let mut t = w.scope.begin(ROOM).unwrap();
    t.defer(Box::new(Owners { number: 7, left: Vec::new() })).unwrap();
    assert!(t.commit().is_err());
    assert!(w.scope.begin(ROOM).is_err() && w.journal.close().is_err());
    assert!(w.journal.sync().is_err());
    // Other intents than the features allow are refused before anything happens.
    let w = World::new(512, None, &Options::default());
    let mut t = w.scope.begin(ROOM).unwrap();
    struct Exchange;
    impl Deferred for Exchange {
        fn kind(&self) -> ItemType {
            ItemType::Xmi
        }
        fn intent(&self, id: u64) -> Intent {
            Intent::finished(ItemType::Xmi, id)
        }
        fn done(&self, id: u64) -> Intent {
            Intent::finished(ItemType::Xmd, id)
        }
        fn reservation(&self) -> Reservation {
            ROOM
        }
        fn run(self: Box<Self>, _: &mut Transaction<'_>) -> crate::Result<Option<Box<dyn Deferred>>> {
            Ok(None)
        }
    }
    assert!(matches!(t.defer(Box::new(Exchange)), Err(crate::Error::Unsupported(_))));
    drop(t);
    w.journal.close().unwrap();
}

#[test]
fn freed_clusters_become_other_blocks_and_inodes_again() {
    let w = World::new(512, None, &Options::default());
    let g = &w.volume.geometry;
    let at = AgBlock(4096);
    let first = g.join_ino(AgNumber(2), g.block_to_agino(at));
    let block = BlockKey::one(w.volume.data, g.agbno_to_daddr(AgNumber(2), at), 8);
    let link = Want::new(&SYMLINK, OnDamage::Fail);
    let mut random = Random(8);
    let from = now(&w);
    for round in 1..60 {
        let maybe = |random: &mut Random, at: Checkpoint| {
            if random.below(3) == 0 {
                w.journal.force(at).unwrap();
            }
        };
        let mut t = w.scope.begin(ROOM).unwrap();
        t.create_chunk(AgNumber(2), at, 8, round).unwrap();
        let d = Dinode::from_bytes_mut(t.inode_mut(first).unwrap()).unwrap();
        (d.format, d.aformat) = (2, 2);
        d.mode.set(0o100_644);
        d.uid.set(round);
        maybe(&mut random, t.commit().unwrap());
        let mut t = w.scope.begin(ROOM).unwrap();
        Dinode::from_bytes_mut(t.inode_mut(first).unwrap()).unwrap().gid.set(round);
        maybe(&mut random, t.commit().unwrap());
        let mut t = w.scope.begin(ROOM).unwrap();
        for n in 0..2 {
            let (key, _) = w.volume.inode_cluster(Ino(first.0 + 32 * n)).unwrap();
            t.invalidate(&key, &Want::new(&INODE_CLUSTER, OnDamage::Fail)).unwrap();
        }
        maybe(&mut random, t.commit().unwrap());
        let mut t = w.scope.begin(ROOM).unwrap();
        let b = t.fresh(&block, &link).unwrap();
        let (h, rest) = PartHeader::mut_from_prefix(b).unwrap();
        h.magic.set(symlink::MAGIC);
        h.bytes.set(8);
        h.uuid = g.meta_uuid;
        h.owner.set(131);
        h.blkno.set(block.daddr().0);
        rest[..8].copy_from_slice(format!("{round:08x}").as_bytes());
        maybe(&mut random, t.commit().unwrap());
        if random.below(8) == 0 {
            w.journal.settle().unwrap();
        }
        let mut t = w.scope.begin(ROOM).unwrap();
        t.invalidate(&block, &link).unwrap();
        maybe(&mut random, t.commit().unwrap());
    }
    let (mut inodes, mut links) = (0, 0);
    for time in (from..=now(&w)).step_by(3) {
        let image = Arc::new(w.recorder.crash(time, &mut |e| e.time % 2 > 0).unwrap());
        let view = replayed_view(image, None, None, &Control::none()).unwrap();
        let v = &view.volume;
        // It is one or the other, or nothing.
        if let Ok(inode) = Inode::read(v, first, OnDamage::Fail) {
            let c = inode.core;
            assert!(c.mode.get() == 0 || [c.uid.get() - 1, c.uid.get()].contains(&c.gid.get()) || c.gid.get() == 0);
            inodes += 1;
        } else if v.cache.read(&block, &link, &v.geometry).is_ok() {
            links += 1;
        }
    }
    assert!(inodes > 10 && links > 10, "{inodes} and {links}");
}

#[test]
fn log_features_are_on_the_disk_before_they_are_used_and_gone_after_the_end() {
    let w = World::new(512, None, &Options::default());
    let features = |w: &World| {
        let image = Arc::new(w.recorder.crash(now(w), &mut |_| false).unwrap());
        Volume::from_targets(image, None, None, 1 << 20).unwrap()
    };
    w.scope.enable_log_incompat(LogIncompat::XATTRS).unwrap();
    // As it is, without the log.
    assert_eq!(features(&w).geometry.features.log_incompat, LogIncompat::XATTRS);
    let counters = Counters { inodes: 64, free_inodes: 61, free_blocks: 1000 };
    w.journal.finish(&w.scope, Some(&counters)).unwrap();
    let v = features(&w);
    assert!(v.geometry.features.log_incompat.is_empty());
    assert_eq!(v.superblock.fdblocks.get(), 1000);
    assert!(matches!(log_state(&v, &Control::none()), Ok(LogState::Clean { .. })));
}

#[test]
fn what_may_only_be_read_is_not_opened_to_be_changed() {
    use crate::format::features::Incompat;
    let open = |change: &dyn Fn(&mut Superblock)| {
        let target = image(512, None);
        let mut sector = vec![0; 512];
        target.read_at(&mut sector, 0).unwrap();
        change(Superblock::mut_from_prefix(&mut sector).unwrap().0);
        (SUPERBLOCK.seal)(&mut sector, Lsn(0));
        target.write_at(&sector, 0).unwrap();
        let volume = Arc::new(Volume::from_targets(target, None, None, 1 << 20).unwrap());
        Journal::open(volume, &Options::default()).map(|_| ())
    };
    open(&|_| {}).unwrap();
    let newer = open(&|sb| sb.features_ro_compat.set(sb.features_ro_compat.get() | 1 << 20));
    assert!(matches!(newer, Err(crate::Error::Unsupported(_))));
    let broken = open(&|sb| sb.features_incompat.set(sb.features_incompat.get() | Incompat::NEEDSREPAIR.bits()));
    assert!(matches!(broken, Err(crate::Error::Unsupported(_))));
    let volume = Arc::new(Volume::from_targets(image(512, None), None, None, 1 << 20).unwrap());
    let odd = Options { record_size: Some(40_000), ..Options::default() };
    assert!(matches!(Journal::open(volume, &odd), Err(crate::Error::Invalid(_))));
}
