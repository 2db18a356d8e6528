//! Usage of users, groups and projects is kept up by whatever changes inodes; the guest kernel, which enforces quota, counts the same.

use crate::used;
use libxfsr::attr::change::How;
use libxfsr::cache::OnDamage;
use libxfsr::check::{self, Verdict};
use libxfsr::control::Control;
use libxfsr::engine::{Filesystem, New, Options, SetAttr, Targets};
use libxfsr::error::{Error, ForkKind};
use libxfsr::format::features::QuotaFlags;
use libxfsr::format::inode::Dinode;
use libxfsr::format::quota::slots;
use libxfsr::format::superblock::Superblock;
use libxfsr::inode::create::{self, NewInode};
use libxfsr::inode::{ForkMut, Inode, chunk, file, unlinked};
use libxfsr::quota::{Kind, Owners, Quota};
use libxfsr::space::{Request, Space};
use libxfsr::target::{Access, FileTarget, Recorder, Target};
use libxfsr::txn::Reservation;
use libxfsr::units::{FileBlock, Ino};
use libxfsr::volume::Volume;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use xfsr_tests::changing::{Changing, Commits, assert_clean, save};
use xfsr_tests::corpus;
use xfsr_tests::oracle::{Guest, GuestJob};
use zerocopy::FromBytes;

type Sums = BTreeMap<(u8, u32), [u64; 2]>;

/// What the quota files say, of those who have something.
fn recorded(volume: &Volume) -> Sums {
    let mut all = Sums::new();
    for ino in [volume.superblock.uquotino, volume.superblock.gquotino, volume.superblock.pquotino] {
        let inode = Inode::read(volume, Ino(ino.get()), OnDamage::Fail).expect("a quota file");
        for e in inode.extents(volume, ForkKind::Data).expect("a map") {
            for n in e.offset..e.offset + e.count {
                let want = libxfsr::cache::Want::new(&libxfsr::format::quota::DQUOT_BLOCK, OnDamage::Fail);
                let pieces = file::map_blocks(volume, &inode, ForkKind::Data, FileBlock(n), 1).expect("mapped");
                let key = libxfsr::cache::BlockKey::many(volume.data, pieces.expect("no hole"));
                let block = volume.cache.read(&key, &want, &volume.geometry).expect("records");
                for s in slots(block.bytes()) {
                    let d = &s.diskdq;
                    if d.icount.get() + d.bcount.get() > 0 {
                        all.insert((d.kind & 7, d.id.get()), [d.icount.get(), d.bcount.get()]);
                    }
                }
            }
        }
    }
    all
}

/// What all inodes sum up to.
fn counted(volume: &Volume) -> Sums {
    let sb = &volume.superblock;
    let exempt = [sb.uquotino.get(), sb.gquotino.get(), sb.pquotino.get()];
    let mut all = Sums::new();
    for ino in used(volume).0.into_iter().filter(|i| !exempt.contains(&i.0)) {
        let bytes = volume.inode_bytes(ino).expect("an inode");
        let core = Dinode::from_bytes(&bytes).expect("long enough");
        for (kind, id) in [(1, core.uid.get()), (4, core.gid.get()), (2, core.project())] {
            let sum = all.entry((kind, id)).or_default();
            *sum = [sum[0] + 1, sum[1] + core.nblocks.get()];
        }
    }
    all
}

struct Owned {
    world: Changing,
    quota: Arc<Quota>,
    rng: ChaCha8Rng,
    ours: BTreeSet<Ino>,
}

impl Owned {
    fn open(image: &Path, commits: Commits, enforce: bool) -> Owned {
        let world = Changing::open(image, commits);
        let quota = Quota::open(&world.volume, world.space.clone(), enforce).expect("records").expect("quota");
        assert_eq!(quota.kinds(), Kind::ALL);
        assert!(world.scope.set_accountant(quota.clone()));
        Owned { world, quota, rng: ChaCha8Rng::seed_from_u64(51), ours: BTreeSet::new() }
    }

    fn room(&self) -> Reservation {
        let g = &self.world.volume.geometry;
        chunk::reservation(g).and(ForkMut::reservation(g, ForkKind::Data, 4)).and(Space::reservation(g, 1))
    }

    fn create(&mut self, owners: Owners, blocks: u32) -> libxfsr::error::Result<Ino> {
        self.quota.prepare(&self.world.scope, &owners).expect("prepared");
        let new = NewInode {
            mode: 0o100_644,
            uid: owners.user,
            gid: owners.group,
            device: (0, 0),
            now: (1_700_000_000, 0),
            generation: self.rng.random(),
            unnamed: true,
        };
        let mut t = self.world.scope.begin(self.room())?;
        let ino = create::create(&mut t, &self.world.space, self.world.volume.geometry.root_ino, &new)?;
        let core = Dinode::from_bytes_mut(t.inode_mut(ino)?).expect("long enough");
        core.projid_lo.set(owners.project as u16);
        unlinked::add(&mut t, &self.world.space, ino)?;
        if blocks > 0 {
            let mut fork = ForkMut::new(&mut t, &self.world.space, ino, ForkKind::Data);
            fork.allocate(FileBlock(0), &Request::data(blocks, blocks), None, true)?;
        }
        t.commit()?;
        self.ours.insert(ino);
        Ok(ino)
    }

    fn some(&mut self) -> Ino {
        let n = self.rng.random_range(0..self.ours.len());
        *self.ours.iter().nth(n).expect("one of ours")
    }

    fn owners(&mut self) -> Owners {
        let mut id = |most: u32| {
            if self.rng.random_bool(0.1) {
                self.rng.random_range(100_000..100_400)
            } else {
                self.rng.random_range(0..most)
            }
        };
        Owners { user: id(40), group: id(20), project: id(9) % 60_000 }
    }

    fn chown(&mut self, ino: Ino, owners: Owners) -> libxfsr::error::Result<()> {
        self.quota.prepare(&self.world.scope, &owners).expect("prepared");
        let mut t = self.world.scope.begin(self.room())?;
        let core = Dinode::from_bytes_mut(t.inode_mut(ino)?).expect("long enough");
        core.uid.set(owners.user);
        core.gid.set(owners.group);
        core.projid_lo.set(owners.project as u16);
        t.commit().map(|_| ())
    }

    fn free(&mut self, ino: Ino) {
        self.ours.remove(&ino);
        let mut t = self.world.scope.begin(self.room()).expect("room");
        ForkMut::new(&mut t, &self.world.space, ino, ForkKind::Data).free(FileBlock(0), 1 << 20).expect("unmapped");
        unlinked::remove(&mut t, &self.world.space, ino).expect("off its list");
        chunk::free(&mut t, &self.world.space, ino).expect("freed");
        t.commit().expect("committed");
    }

    fn step(&mut self) {
        match self.rng.random_range(0..10) {
            0..5 => {
                let (owners, blocks) = (self.owners(), self.rng.random_range(0..9));
                self.create(owners, blocks).expect("created");
            }
            5..8 if !self.ours.is_empty() => {
                let (ino, owners) = (self.some(), self.owners());
                self.chown(ino, owners).expect("given away");
            }
            _ if !self.ours.is_empty() => {
                let ino = self.some();
                self.free(ino);
            }
            _ => {}
        }
    }
}

fn same(volume: &Volume, what: &str) {
    let (claimed, real) = (recorded(volume), counted(volume));
    for (who, sums) in &real {
        assert_eq!(claimed.get(who), Some(sums), "{what}: {who:?}");
    }
    assert_eq!(claimed.len(), real.len(), "{what}");
}

/// Enforcement is for who is not root: limits and timers stay as they are where nobody looks at them.
#[test]
fn usage_follows_what_changes() {
    if corpus::obtain("quota").is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy("quota", directory.path()).data;
    let mut o = Owned::open(&image, Commits::Forced, false);
    same(&o.world.volume, "at first");
    let mut crashes = Vec::new();
    for n in 0..240 {
        o.step();
        assert_eq!(o.quota.kinds(), Kind::ALL, "nothing was given up at {n}");
        if n % 24 == 3 {
            same(&o.world.volume, "while it changes");
            crashes.push(o.world.now());
        }
    }
    assert_eq!(o.quota.kinds(), Kind::ALL, "nothing was given up");
    // The kernel recovers a crash, finishes what nobody has a name for, and finds that it need not count.
    let guest = Guest::find();
    let crashed = directory.path().join("crashed");
    for (n, time) in crashes.iter().enumerate().filter(|(n, _)| n % 4 == 2) {
        let Some(guest) = &guest else { break };
        o.world.crash_to(*time, n as u64, &crashed);
        let job = GuestJob { disks: vec![&crashed], ..GuestJob::default() };
        let script = "mount -o uquota,gquota,pquota /dev/vda /mnt && dmesg | grep -i quotacheck; umount /mnt";
        let said = guest.run(&job, script).expect("a guest");
        assert!(!said.output.contains("uotacheck needed"), "{}", said.output);
        let target = Arc::new(FileTarget::open(&crashed, Access::Read).expect("an image"));
        let volume = Volume::from_targets(target, None, None, 16 << 20).expect("a filesystem");
        let flags = QuotaFlags::from_bits_retain(volume.superblock.qflags.get());
        assert!(flags.contains(QuotaFlags::UQUOTA_CHKD | QuotaFlags::GQUOTA_CHKD | QuotaFlags::PQUOTA_CHKD));
        same(&volume, &format!("the kernel after a crash at {time}"));
        drop(volume);
        assert_clean("crashed", &crashed);
    }
    for ino in std::mem::take(&mut o.ours) {
        o.free(ino);
    }
    same(&o.world.volume, "at the end");
    o.world.finish();
    assert_clean("quota", &image);
}

/// Users 1001 has limits in the image: 90 inodes and 9 MiB, and group 500 8 MiB.
#[test]
fn limits_are_enforced() {
    if corpus::obtain("quota").is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy("quota", directory.path()).data;
    let mut o = Owned::open(&image, Commits::Gathered, true);
    let mut sector = [0; 512];
    o.world.recorder.read_at(&mut sector, 0).expect("a superblock");
    let sb = Superblock::read_from_prefix(&sector).expect("long enough").0;
    assert!(QuotaFlags::from_bits_retain(sb.qflags.get()).contains(QuotaFlags::UQUOTA_ENFD));
    let limited = Owners { user: 1001, group: 7, project: 0 };
    let has = |o: &Owned| recorded(&o.world.volume).get(&(1, 1001)).map_or(0, |s| s[0]);
    let at_first = has(&o);
    let refused = loop {
        if let Err(e) = o.create(limited, 0) {
            break e;
        }
    };
    assert!(matches!(refused, Error::QuotaExceeded(_)), "{refused}");
    println!("{refused}");
    assert!(at_first <= 90 && has(&o) == 90.max(at_first), "{at_first} then {}", has(&o));
    same(&o.world.volume, "after a refusal");
    // Given to somebody else there is room again; not for more blocks than are allowed.
    if has(&o) > at_first {
        let ino = o.some();
        o.chown(ino, Owners { user: 5, ..limited }).expect("given away");
        assert!(matches!(o.create(limited, 9 << 8), Err(Error::QuotaExceeded(_))), "9 MiB");
        o.create(limited, 3).expect("room again");
    }
    same(&o.world.volume, "after all");
    for ino in std::mem::take(&mut o.ours) {
        o.free(ino);
    }
    o.world.finish();
    assert_clean("limits", &image);
}

/// Whatever is done through the library's own interface is charged to whom it belongs, and after a crash at any write as well.
#[test]
fn operations_on_files_are_charged() {
    if corpus::obtain("quota").is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy("quota", directory.path()).data;
    let below: Arc<dyn Target> = Arc::new(FileTarget::open(&image, Access::Read).expect("an image"));
    let recorder = Arc::new(Recorder::new(below).expect("memory"));
    let targets = |data: Arc<dyn Target>| Targets { data, log: None, rt: None };
    let options = Options { enforce_quota: true, ..Options::default() };
    let open = |data| Filesystem::from_targets(&targets(data), &options, &Control::none()).expect("a filesystem").0;
    let fs = open(recorder.clone() as Arc<dyn Target>);
    let root = fs.root();
    let mut rng = ChaCha8Rng::seed_from_u64(61);
    let (mut names, mut refused): (BTreeSet<u32>, u32) = (BTreeSet::new(), 0);
    for n in 0..260u32 {
        let some = names.iter().nth(rng.random_range(0..names.len().max(1))).copied();
        let name = |n: u32| format!("quota-{n}").into_bytes();
        let new =
            New { permissions: 0o644, uid: [5, 1001, 2_000_000][n as usize % 3], gid: rng.random_range(499..503) };
        let done = match (rng.random_range(0..10), some) {
            (0..3, _) | (_, None) => root.create(&name(n), &new).map(|_| names.insert(n)).map(|_| ()),
            (3, _) => {
                let target = vec![b'x'; rng.random_range(5..900)];
                root.symlink(&name(n), &target, &new).map(|_| names.insert(n)).map(|_| ())
            }
            (4..6, Some(s)) => {
                let file = root.lookup(&name(s)).expect("a file");
                let bytes = vec![7; rng.random_range(1..60_000)];
                file.write_at(&bytes, rng.random_range(0..100_000)).map(|_| ())
            }
            (6, Some(s)) => {
                let file = root.lookup(&name(s)).expect("a file");
                file.truncate(rng.random_range(0..50_000))
            }
            (7, Some(s)) => {
                let file = root.lookup(&name(s)).expect("a file");
                let uid = rng.random_bool(0.5).then(|| rng.random_range(5..9));
                let project = rng.random_bool(0.5).then(|| rng.random_range(0..3_000));
                file.set_attr(&SetAttr { uid, project, ..SetAttr::default() })
            }
            (8, Some(s)) => {
                let file = root.lookup(&name(s)).expect("a file");
                file.set_xattr(b"user.x", &vec![3; rng.random_range(1..9_000)], How::Upsert)
            }
            (_, Some(s)) => root.unlink(&name(s)).map(|()| names.remove(&s)).map(|_| ()),
        };
        match done {
            Ok(()) | Err(Error::Invalid(_) | Error::IsDirectory(_) | Error::NotPermitted(_)) => {}
            Err(Error::QuotaExceeded(_)) => refused += 1,
            Err(e) => panic!("{n}: {e}"),
        }
        if n % 30 == 11 {
            fs.sync().expect("durable");
        }
    }
    drop(root);
    fs.close().expect("closed");
    let finish = recorder.events().last().map_or(0, |e| e.time + 1);
    println!("{} files, {refused} refused by quota, {finish} events", names.len());
    let judge = |volume: &Volume, what: &str| {
        let flags = QuotaFlags::from_bits_retain(volume.superblock.qflags.get());
        assert!(flags.contains(QuotaFlags::UQUOTA_CHKD | QuotaFlags::GQUOTA_CHKD | QuotaFlags::PQUOTA_CHKD), "{what}");
        same(volume, what);
    };
    for n in 0..12 {
        let time = rng.random_range(0..=finish);
        let crashed = recorder.crash(time, &mut |_| n % 3 != 0 && (n % 3 == 1 || rng.random_bool(0.5)));
        let crashed: Arc<dyn Target> = Arc::new(crashed.expect("memory"));
        open(crashed.clone()).close().expect("closed");
        let volume = Volume::from_targets(crashed, None, None, 16 << 20).expect("a filesystem");
        judge(&volume, &format!("crash {n} at {time}"));
        let outcome = check::check(&volume, &Control::none()).expect("a check");
        assert!(outcome.verdict() == Verdict::Clean, "crash {n} at {time}: {:?}", outcome.findings.first());
    }
    save(&recorder.crash(finish, &mut |_| true).expect("memory"), &image);
    let target = Arc::new(FileTarget::open(&image, Access::Read).expect("an image"));
    judge(&Volume::from_targets(target, None, None, 16 << 20).expect("a filesystem"), "at the end");
    assert_clean("used through the library", &image);
}
