use super::{BlockKey, BufCache, Keep, NoLog, OnDamage, TargetId, Want};
use crate::format::BlockType;
use crate::geometry::test_geometry;
use crate::target::{Fault, Faulty, On, Recorder, Target, Xfile};
use crate::units::{Daddr, Ino};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

static ANY: BlockType = BlockType { name: "any", log_type: 0, lsn: |_| None, verify: |_, _| Ok(()), seal: |_, _| {} };

fn any() -> Want {
    Want::new(&ANY, OnDamage::Fail)
}

fn key(n: u64) -> BlockKey {
    BlockKey::one(TargetId(0), Daddr(n * 8), 8)
}

#[test]
fn clean_blocks_stay_within_the_budget_and_dirty_ones_reach_the_target() {
    let g = test_geometry();
    let x = Arc::new(Xfile::new("cache").unwrap());
    let cache = BufCache::new(64 * 4096);
    assert_eq!(cache.attach(x.clone(), Arc::new(NoLog)).unwrap(), TargetId(0));
    for n in 0..1000 {
        cache.read(&key(n), &any(), &g).unwrap();
    }
    let kept: usize = cache.shards.iter().map(|s| s.lock().bytes).sum();
    assert!(kept <= 2 * 64 * 4096, "{kept} bytes kept");
    for n in 0..100 {
        cache.fresh(&key(n), &any()).bytes.fill(n as u8 + 1);
    }
    cache.write_back(None).unwrap();
    let mut b = [0; 4096];
    x.read_at(&mut b, 99 * 4096).unwrap();
    assert_eq!(b, [100; 4096]);
}

#[derive(Debug)]
struct Hints(Xfile, parking_lot::Mutex<Vec<(u64, u64)>>, AtomicBool);

impl Target for Hints {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> crate::Result<()> {
        if self.2.swap(false, Ordering::Relaxed) {
            std::thread::sleep(std::time::Duration::from_millis(200));
            return Err(crate::target::io_error("read", "slow", offset, 0, rustix::io::Errno::IO));
        }
        self.0.read_at(buf, offset)
    }
    fn readahead(&self, ranges: &[(u64, u64)]) {
        self.1.lock().extend_from_slice(ranges);
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> crate::Result<()> {
        self.0.write_at(buf, offset)
    }
    fn flush(&self) -> crate::Result<()> {
        self.0.flush()
    }
    fn punch(&self, offset: u64, len: u64) -> crate::Result<()> {
        self.0.punch(offset, len)
    }
    fn discard(&self, offset: u64, len: u64) -> crate::Result<()> {
        self.0.discard(offset, len)
    }
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> crate::Result<()> {
        self.0.set_len(len)
    }
    fn io(&self) -> crate::target::Io {
        self.0.io()
    }
}

#[test]
fn readahead_asks_once_for_neighbours_in_address_order() {
    let hints = Arc::new(Hints(Xfile::new("cache").unwrap(), parking_lot::Mutex::default(), false.into()));
    let cache = BufCache::new(1 << 20);
    cache.attach(hints.clone(), Arc::new(NoLog)).unwrap();
    let parts = BlockKey::many(TargetId(0), [(Daddr(4000), 8), (Daddr(6000), 8)]);
    cache.readahead(&[key(9), key(1), key(2), parts, key(2)]);
    // Block 9 is 24 KiB behind block 2: too far to be read with it.
    assert_eq!(*hints.1.lock(), [(4096, 8192), (9 * 4096, 4096), (4000 * 512, 4096), (6000 * 512, 4096)]);
    assert_eq!(cache.reads(), 0);
    hints.1.lock().clear();
    cache.set_readahead(false);
    cache.readahead(&[key(9)]);
    assert!(hints.1.lock().is_empty(), "a hint that was not wanted");
}

#[test]
fn a_fresh_block_is_not_lost_when_reading_the_old_one_fails() {
    let g = test_geometry();
    let slow = Arc::new(Hints(Xfile::new("cache").unwrap(), parking_lot::Mutex::default(), true.into()));
    let cache = BufCache::new(1 << 20);
    cache.attach(slow.clone(), Arc::new(NoLog)).unwrap();
    std::thread::scope(|s| {
        let reader = s.spawn(|| cache.read(&key(3), &any(), &g).is_err());
        while cache.reads() == 0 {
            std::thread::yield_now();
        }
        // The reader has the slot and waits for the device; this one waits for the reader.
        cache.fresh(&key(3), &any()).bytes.fill(7);
        assert!(reader.join().unwrap());
    });
    cache.write_back(None).unwrap();
    let mut b = [0; 4096];
    slow.read_at(&mut b, 3 * 4096).unwrap();
    assert_eq!(b, [7; 4096]);
}

#[test]
fn more_targets_than_numbers_are_refused() {
    let cache = BufCache::new(1 << 20);
    let target = Arc::new(Xfile::new("cache").unwrap());
    for n in 0..=255 {
        assert_eq!(cache.attach(target.clone(), Arc::new(NoLog)).unwrap(), TargetId(n));
    }
    assert!(matches!(cache.attach(target, Arc::new(NoLog)), Err(crate::Error::Invalid(_))));
}

#[test]
fn a_block_read_once_is_not_kept_and_a_dirty_one_is_found() {
    let g = test_geometry();
    let cache = BufCache::new(1 << 20);
    cache.attach(Arc::new(Xfile::new("cache").unwrap()), Arc::new(NoLog)).unwrap();
    for _ in 0..2 {
        assert_eq!(cache.read(&key(3), &any().keep(Keep::No), &g).unwrap()[0], 0);
    }
    assert_eq!(cache.reads(), 2);
    cache.fresh(&key(3), &any()).bytes.fill(7);
    assert_eq!(cache.read(&key(3), &any().keep(Keep::No), &g).unwrap()[0], 7);
    assert_eq!(cache.reads(), 2);
}

#[test]
fn a_block_is_read_once_however_many_ask() {
    let g = test_geometry();
    let cache = BufCache::new(1 << 20);
    cache.attach(Arc::new(Xfile::new("cache").unwrap()), Arc::new(NoLog)).unwrap();
    std::thread::scope(|s| {
        for _ in 0..8 {
            s.spawn(|| (0..20).for_each(|n| drop(cache.read(&key(n), &any(), &g).unwrap())));
        }
    });
    assert_eq!(cache.reads(), 20);
}

static OWNED: BlockType = BlockType {
    name: "owned",
    log_type: 0,
    lsn: |_| None,
    verify: |b, at| crate::format::check_owner("owned", b.first().copied().unwrap_or(0).into(), at),
    seal: |_, _| {},
};

#[test]
fn the_owner_is_verified_for_each_reader() {
    let g = test_geometry();
    let x = Arc::new(Xfile::new("cache").unwrap());
    x.write_at(&[7; 4096], 3 * 4096).unwrap();
    let cache = BufCache::new(1 << 20);
    cache.attach(x, Arc::new(NoLog)).unwrap();
    for keep in [Keep::No, Keep::Yes, Keep::Yes] {
        let of = |n| cache.read(&key(3), &Want::new(&OWNED, OnDamage::Fail).owned_by(Ino(n)).keep(keep), &g);
        assert!(of(7).is_ok());
        assert!(matches!(of(8), Err(crate::Error::Corrupt(c)) if c.code() == "owned.owner.owner"));
    }
    assert_eq!(cache.reads(), 3);
}

#[test]
fn who_writes_a_block_has_it_verified_for_what_he_wants() {
    let g = test_geometry();
    let x = Arc::new(Xfile::new("cache").unwrap());
    x.write_at(&[7; 4096], 3 * 4096).unwrap();
    let cache = BufCache::new(1 << 20);
    cache.attach(x, Arc::new(NoLog)).unwrap();
    let of = |n| Want::new(&OWNED, OnDamage::Fail).owned_by(Ino(n));
    // It is cached as what it was read for first.
    drop(cache.read(&key(3), &any(), &g).unwrap());
    assert!(
        matches!(cache.write(&key(3), &of(8), &g), Err(crate::Error::Corrupt(c)) if c.code() == "owned.owner.owner")
    );
    assert!(cache.write(&key(3), &of(7), &g).is_ok());
}

#[test]
fn neighbours_are_written_together_and_a_failure_leaves_all_of_them_dirty() {
    let memory = Arc::new(Xfile::new("cache").unwrap());
    memory.set_len(1 << 24).unwrap();
    let recorder = Arc::new(Recorder::new(memory).unwrap());
    let faulty = Arc::new(Faulty::new(recorder.clone()));
    let cache = BufCache::new(1 << 20);
    cache.attach(faulty.clone(), Arc::new(NoLog)).unwrap();
    // 100 neighbours, which are two runs, and one for itself.
    for n in (0..100).chain([500]) {
        cache.fresh(&key(n), &any()).bytes.fill(n as u8 + 1);
    }
    faulty.add(On::Write, 0, Fault::Error);
    cache.write_back(None).unwrap_err();
    let before = recorder.events().len();
    // Somebody has one of them: those before it are written by then.
    let (locked, _) = cache.claim(&key(50), &any());
    std::thread::scope(|s| {
        s.spawn(|| cache.write_back(None).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(100));
        let first = recorder.events().len() - before;
        assert_eq!(first, 1);
        drop(locked);
    });
    let writes = recorder.events().len() - before;
    assert_eq!(writes, 3);
    for n in (0..100).chain([500]) {
        let mut b = [0; 4096];
        recorder.read_at(&mut b, n * 4096).unwrap();
        assert_eq!(b, [n as u8 + 1; 4096]);
    }
    cache.write_back(None).unwrap();
    assert_eq!(recorder.events().len() - before, writes);
}

#[test]
fn blocks_that_come_and_go_leave_nothing_in_the_clock() {
    let g = test_geometry();
    let cache = BufCache::new(64 * 4096);
    cache.attach(Arc::new(Xfile::new("cache").unwrap()), Arc::new(NoLog)).unwrap();
    for n in 0..100_000 {
        drop(cache.fresh(&key(n % 7), &any()));
        cache.invalidate(&key(n % 7));
    }
    let places: usize = cache.shards.iter().map(|s| s.lock().clock.len()).sum();
    assert!(places < 10_000, "{places}");
    cache.read(&key(3), &any(), &g).unwrap();
}
