//! What the library writes to a journal, the kernel recovers as the library does: a filesystem that the kernel made is changed through the
//! journal until its log was gone round several times, and cut off at many places.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use libxfsr::cache::{BlockKey, Checkpoint, OnDamage, Want};
use libxfsr::control::Control;
use libxfsr::engine::replayed_view;
use libxfsr::error::ForkKind;
use libxfsr::format::dir::DIR_ANY;
use libxfsr::format::inode::{Dinode, FileKind, Fork, Format, Timestamp, fork_bytes, fork_bytes_mut};
use libxfsr::format::part::PartHeader;
use libxfsr::format::quota::{self, DQUOT_BLOCK, DquotSlot};
use libxfsr::format::superblock::{SUPERBLOCK, Superblock};
use libxfsr::format::symlink::{self, SYMLINK};
use libxfsr::inode::{Inode, scan};
use libxfsr::journal::{Journal, LogState, Options, log_state};
use libxfsr::target::{Access, Change, FileTarget, Overlay, Recorder, Target};
use libxfsr::txn::{CommitSink as _, Reservation, Scope, Transaction};
use libxfsr::units::{AgBlock, AgNumber, Daddr, Ino};
use libxfsr::volume::Volume;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use xfsr_tests::corpus::{self, directory};
use xfsr_tests::oracle::{self, Devices, Guest, GuestJob, Mount, xfs_repair_n};
use xfsr_tests::view;
use xfsr_tests::{copy_sparse, run};
use zerocopy::FromBytes as _;

const ROOM: Reservation = Reservation { blocks: 8, sectors: 2, inodes: 12, bytes: 400 };
/// Where nothing is: blocks of an AG that is as good as empty.
const EMPTY: AgNumber = AgNumber(3);
const CHUNKS: u32 = 3;

/// A small filesystem of the kernel's with files of many forms, and the smallest log that can be, perhaps on a device of its own.
fn kernel_image(at: &Path, log: &str, external: bool) -> anyhow::Result<Devices> {
    let image = at.join("image");
    std::fs::File::create(&image)?.set_len(300 << 20)?;
    let device = at.join("log");
    let mut log = log.to_owned();
    if external {
        std::fs::File::create(&device)?.set_len(16 << 20)?;
        log = format!("{log},logdev={}", device.display());
    }
    let devices = Devices { data: image.clone(), log: external.then_some(device), rt: None };
    // mkfs.xfs makes such a log only for those who test.
    let mut mkfs = Command::new("mkfs.xfs");
    mkfs.envs([("TEST_DIR", "1"), ("TEST_DEV", "1"), ("QA_CHECK_FS", "1")]);
    let out = mkfs.args(["-q", "-f", "-m", "rmapbt=0,reflink=0", "-l", &log]).arg(&image).output()?;
    anyhow::ensure!(out.status.success(), "mkfs.xfs: {}", String::from_utf8_lossy(&out.stderr));
    let mount = Mount::new(&devices, "")?;
    let script = r#"
        for d in short block leaf; do mkdir $d; done
        for i in 1 2 3; do echo $i > short/$i; done
        for i in $(seq 1 60); do echo $i > block/a-file-with-a-long-name-$i; done
        for i in $(seq 1 300); do : > leaf/another-file-with-a-long-name-$i; done
        for i in $(seq 1 9); do rm leaf/another-file-with-a-long-name-1$i; done
        for i in $(seq 1 20); do ln -s a-target-of-some-length-$i short/link$i; done
        for i in $(seq 1 40); do dd if=/dev/zero of=short/extents bs=4k seek=$((i * 2)) count=1 conv=notrunc status=none; done
        mknod short/device c 4 7; mkfifo short/fifo
        for i in $(seq 1 30); do setfattr -n user.value -v "what is here changes" block/a-file-with-a-long-name-$i; done
        sync
    "#;
    run("sh", &["-ec", &format!("cd '{}'; {script}", mount.path().display())])?;
    mount.unmount()?;
    Ok(devices)
}

/// One of the things that are changed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Place {
    /// Owner and times of an inode.
    Core(Ino),
    /// A character in a link's target or in an attribute's value.
    Fork(Ino, ForkKind),
    /// The map of a file that only the journal knows.
    Map(Ino),
    /// Bytes of a directory block that nothing uses.
    Directory(u64, usize),
    /// A block that is free.
    Free(u32),
    Label,
}

type State = BTreeMap<Place, Option<u32>>;

struct World {
    recorder: Arc<Recorder>,
    /// Of an external log.
    log: Option<Arc<Recorder>>,
    volume: Arc<Volume>,
    journal: Arc<Journal>,
    scope: Scope,
    places: Vec<Place>,
    /// First inode of the chunks that only the journal knows.
    made: Vec<Ino>,
}

/// The longest unused part of a block of a directory's data, clear of its tag and length.
fn unused(block: &[u8]) -> Option<usize> {
    let u16_at = |at: usize| block.get(at..at + 2).map(|b| usize::from(u16::from_be_bytes([b[0], b[1]])));
    // The best free parts stand in the header.
    let (at, length) = (u16_at(48)?, u16_at(50)?);
    (length >= 64).then_some(at + 16)
}

fn places(volume: &Volume) -> Vec<Place> {
    let mut places = vec![Place::Label];
    let mut inodes = Vec::new();
    scan::for_each_used(volume, &Control::none(), &mut |seen| {
        let (ino, bytes) = seen.unwrap();
        inodes.push((ino, bytes.to_vec()));
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    for (ino, bytes) in inodes {
        let core = Dinode::from_bytes(&bytes).unwrap();
        places.push(Place::Core(ino));
        if core.kind() == Some(FileKind::Symlink) {
            places.extend([Place::Fork(ino, ForkKind::Data), Place::Fork(ino, ForkKind::Data)]);
        }
        if matches!(Fork::of(&bytes, ForkKind::Attr), Ok(Fork::Local(b)) if b.windows(4).any(|w| w == b"what")) {
            places.extend([Place::Fork(ino, ForkKind::Attr), Place::Fork(ino, ForkKind::Attr)]);
        }
        if core.is_dir() {
            let inode = Inode::read(volume, ino, OnDamage::Fail).unwrap();
            for e in inode.extents(volume, ForkKind::Data).unwrap() {
                let at = volume.geometry.fsblock_to_daddr(libxfsr::units::FsBlock(e.start)).unwrap();
                for n in 0..e.count {
                    let daddr = at.0 + n * 8;
                    let mut block = vec![0; 4096];
                    volume.data_target().read_at(&mut block, daddr * 512).unwrap();
                    if block.starts_with(b"XDB3") || block.starts_with(b"XDD3") {
                        places.extend(unused(&block).map(|at| Place::Directory(daddr, at)));
                    }
                }
            }
        }
    }
    places.extend((0..120).map(Place::Free));
    places
}

impl World {
    fn new(devices: &Devices) -> World {
        let clock = Arc::new(AtomicU64::new(0));
        let over = |p: &Path| {
            let below = Arc::new(FileTarget::open(p, Access::Read).unwrap());
            Arc::new(Recorder::with_clock(below, clock.clone()).unwrap())
        };
        let (recorder, log) = (over(&devices.data), devices.log.as_deref().map(over));
        let other = log.clone().map(|l| l as Arc<dyn Target>);
        let volume = Arc::new(Volume::from_targets(recorder.clone(), other, None, 8 << 20).unwrap());
        let journal = Journal::open(volume.clone(), &Options::default()).unwrap();
        let scope = Scope::new(volume.clone(), journal.clone());
        let g = &volume.geometry;
        let (mut places, mut made) = (places(&volume), Vec::new());
        for n in 0..CHUNKS {
            let at = AgBlock(1024 + 8 * n);
            let mut t = scope.begin(Reservation { inodes: 80, ..ROOM }).unwrap();
            t.create_chunk(EMPTY, at, 8, 40 + n).unwrap();
            let first = g.join_ino(EMPTY, g.block_to_agino(at));
            made.push(first);
            for i in (0..64).step_by(3) {
                let d = Dinode::from_bytes_mut(t.inode_mut(Ino(first.0 + i)).unwrap()).unwrap();
                (d.format, d.aformat) = (2, 2);
                d.mode.set(0o100_600);
                d.nlink.set(1);
                places.push(Place::Map(Ino(first.0 + i)));
            }
            t.commit().unwrap();
        }
        journal.sync().unwrap();
        World { recorder, log, volume, journal, scope, places, made }
    }

    fn free(&self, n: u32) -> (BlockKey, Want) {
        let at = self.volume.geometry.agbno_to_daddr(EMPTY, AgBlock(2000 + n));
        (BlockKey::one(self.volume.data, at, 8), Want::new(&SYMLINK, OnDamage::Fail))
    }

    fn change(&self, t: &mut Transaction<'_>, place: &Place, value: Option<u32>, was: Option<u32>) {
        let v = value.unwrap_or(0);
        let text = format!("{v:08x}");
        match place {
            Place::Core(ino) => {
                let d = Dinode::from_bytes_mut(t.inode_mut(*ino).unwrap()).unwrap();
                let big = d.bigtime();
                d.uid.set(v);
                d.mtime = Timestamp::encode(i64::from(v) * 1000, v % 1_000_000, big).unwrap();
                d.atime = Timestamp::encode(-i64::from(v), 1, big).unwrap();
            }
            Place::Fork(ino, kind) => {
                let fork = fork_bytes_mut(t.inode_mut(*ino).unwrap(), *kind);
                let at = place_in_fork(fork, *kind);
                fork[at..at + 8].copy_from_slice(text.as_bytes());
            }
            Place::Map(ino) => {
                let g = t.geometry();
                let start = g.join(EMPTY, AgBlock(3000)).0;
                let inode = t.inode_mut(*ino).unwrap();
                // Extents up to what fits, then a btree's root: the blocks are made up, and nobody follows them.
                let (n, tree) = (u64::from(v % 24), v % 24 > 21);
                let extents = if tree { 40 } else { n };
                let d = Dinode::from_bytes_mut(inode).unwrap();
                d.gid.set(v);
                d.format = if tree { Format::Btree as u8 } else { Format::Extents as u8 };
                assert!(d.set_extents(ForkKind::Data, extents));
                d.nblocks.set(if tree { 42 } else { n });
                d.size.set(0);
                let fork = fork_bytes_mut(inode, ForkKind::Data);
                fork.fill(0);
                if tree {
                    fork[..4].copy_from_slice(&[0, 1, 0, 2]);
                    let pointers = 4 + (fork.len() - 4) / 16 * 8;
                    for i in 0..2u64 {
                        let at = i as usize * 8;
                        fork[4 + at..12 + at].copy_from_slice(&(i * 1000).to_be_bytes());
                        let block = start + u64::from(v % 1000) + i;
                        fork[pointers + at..pointers + at + 8].copy_from_slice(&block.to_be_bytes());
                    }
                } else {
                    for i in 0..n {
                        let block = start + u64::from(v % 1000) + i * 3;
                        let raw = u128::from(i * 2) << 73 | u128::from(block) << 21 | 1;
                        fork[i as usize * 16..][..16].copy_from_slice(&raw.to_be_bytes());
                    }
                }
            }
            Place::Directory(daddr, at) => {
                let key = BlockKey::one(self.volume.data, Daddr(*daddr), 8);
                let b = t.block_mut(&key, &Want::new(&DIR_ANY, OnDamage::Fail)).unwrap();
                b[*at..*at + 8].copy_from_slice(text.as_bytes());
            }
            Place::Label => {
                let key = BlockKey::one(self.volume.data, Daddr(0), 1);
                let b = t.block_mut(&key, &Want::new(&SUPERBLOCK, OnDamage::Fail)).unwrap();
                Superblock::mut_from_prefix(b).unwrap().0.fname[..8].copy_from_slice(text.as_bytes());
            }
            Place::Free(n) => {
                let (key, want) = self.free(*n);
                if value.is_none() {
                    return t.invalidate(&key, &want).unwrap();
                }
                let b = if was.is_none() { t.fresh(&key, &want).unwrap() } else { t.block_mut(&key, &want).unwrap() };
                let (h, rest) = PartHeader::mut_from_prefix(b).unwrap();
                h.magic.set(symlink::MAGIC);
                h.bytes.set(8);
                h.uuid = self.volume.geometry.meta_uuid;
                h.owner.set(131);
                h.blkno.set(key.daddr().0);
                rest[..8].copy_from_slice(text.as_bytes());
                rest[600..].fill(v as u8);
            }
        }
    }

    /// Commits transactions; the states after each, and how many were durable at which time.
    fn work(&self, transactions: u32, seed: u64) -> History {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut h = History { states: vec![State::new()], forced: vec![(self.now(), 1)] };
        let mut state = State::new();
        for n in 1..=transactions {
            let mut t = self.scope.begin(ROOM).unwrap();
            let mut changes = State::new();
            for _ in 0..random.random_range(1..=6) {
                let free = Place::Free(random.random_range(0..120));
                let any = &self.places[random.random_range(0..self.places.len())];
                let place = if random.random_range(0..3) == 0 { &free } else { any };
                let used = state.get(place).is_some_and(Option::is_some);
                let frees = matches!(place, Place::Free(_)) && used && random.random_range(0..3) == 0;
                changes.insert(place.clone(), if frees { None } else { Some(n) });
            }
            for (place, value) in &changes {
                self.change(&mut t, place, *value, state.get(place).copied().flatten());
            }
            if random.random_range(0..10) == 0 {
                drop(t);
                continue;
            }
            let at: Checkpoint = t.commit().unwrap();
            state.extend(changes);
            h.states.push(state.clone());
            if random.random_range(0..9) == 0 {
                self.journal.force(at).unwrap();
                h.forced.push((self.now(), h.states.len()));
            }
        }
        h
    }

    fn now(&self) -> u64 {
        let last = |r: &Recorder| r.events().last().map_or(0, |e| e.time + 1);
        self.log.as_deref().map_or(0, last).max(last(&self.recorder))
    }

    /// What a crash leaves of the data device and of the log's.
    fn crash(&self, time: u64, how: u64) -> (Arc<Overlay>, Option<Arc<Overlay>>) {
        let left = |r: &Arc<Recorder>| Arc::new(r.crash(time, &mut keep(how, time)).unwrap());
        (left(&self.recorder), self.log.as_ref().map(left))
    }

    /// A sample of what stands where something was changed, as a state shows it.
    fn seen(&self, volume: &Volume, h: &History) -> State {
        let places = h.states.last().unwrap().keys();
        places.map(|place| (place.clone(), self.read(volume, place))).collect()
    }

    fn read(&self, volume: &Volume, place: &Place) -> Option<u32> {
        let hex = |b: &[u8]| u32::from_str_radix(std::str::from_utf8(b).ok()?, 16).ok();
        let inode = |ino: Ino| Inode::read(volume, ino, OnDamage::Fail).unwrap();
        match place {
            Place::Core(ino) => {
                let core = inode(*ino).core;
                let v = core.uid.get();
                let time = core.mtime.decode(core.bigtime());
                (time == (i64::from(v) * 1000, v % 1_000_000)).then_some(v)
            }
            Place::Fork(ino, kind) => {
                let inode = inode(*ino);
                let fork = fork_bytes(&inode.bytes, *kind);
                let at = place_in_fork(fork, *kind);
                hex(&fork[at..at + 8])
            }
            Place::Map(ino) => Some(inode(*ino).core.gid.get()),
            Place::Directory(daddr, at) => {
                let key = BlockKey::one(volume.data, Daddr(*daddr), 8);
                let b = volume.cache.read(&key, &Want::new(&DIR_ANY, OnDamage::Fail), &volume.geometry).unwrap();
                hex(&b[*at..*at + 8])
            }
            Place::Label => hex(&volume.superblock.fname[..8]),
            Place::Free(n) => {
                let (key, want) = self.free(*n);
                let b = volume.cache.read(&key, &want, &volume.geometry).ok()?;
                hex(&b[56..64])
            }
        }
    }

    /// All bytes that the changes of a state cover, by address.
    fn bytes(&self, target: &dyn Target, state: &State) -> BTreeMap<u64, Vec<u8>> {
        let g = &self.volume.geometry;
        let mut all = BTreeMap::new();
        let mut add = |at: u64, len: usize| {
            let mut b = vec![0; len];
            target.read_at(&mut b, at).unwrap();
            all.insert(at, b);
        };
        for (place, value) in state {
            match place {
                Place::Core(ino) | Place::Fork(ino, _) => add(g.ino_to_offset(*ino).unwrap(), g.inode_size as usize),
                Place::Directory(daddr, _) => add(daddr * 512, 4096),
                Place::Free(n) if value.is_some() => add(self.free(*n).0.daddr().bytes(), 4096),
                _ => {}
            }
        }
        for first in &self.made {
            add(g.ino_to_offset(*first).unwrap(), 64 * g.inode_size as usize);
        }
        all
    }
}

fn place_in_fork(fork: &[u8], kind: ForkKind) -> usize {
    match kind {
        ForkKind::Data => 2,
        // Header of the fork and of its first attribute, and the name.
        ForkKind::Attr => 4 + 3 + "value".len() + 4,
    }
    .min(fork.len() - 8)
}

struct History {
    states: Vec<State>,
    forced: Vec<(u64, usize)>,
}

impl History {
    /// The state that is seen: not older than what was forced by then.
    fn find(&self, seen: &State, time: u64) -> Option<&State> {
        let forced = self.forced.iter().take_while(|(t, _)| *t <= time).last().map_or(1, |(_, n)| *n);
        self.states[forced - 1..].iter().find(|s| {
            seen.iter().all(|(place, found)| match (place, s.get(place).copied().flatten()) {
                (_, Some(v)) => *found == Some(v),
                (Place::Map(_), None) => *found == Some(0),
                // What stood there first, or anything where it is free.
                (_, None) => found.is_none() || matches!(place, Place::Free(_) | Place::Core(_)),
            })
        })
    }
}

/// Writes a crashed image to files.
fn save(base: &Devices, left: &(Arc<Overlay>, Option<Arc<Overlay>>), at: &Path) -> Devices {
    let one = |base: &Path, overlay: &Overlay, name: &str| {
        let to = at.join(name);
        copy_sparse(base, &to).unwrap();
        let file = FileTarget::open(&to, Access::Write).unwrap();
        for (at, len) in overlay.changed() {
            let mut bytes = vec![0; usize::try_from(len).unwrap()];
            overlay.read_at(&mut bytes, at).unwrap();
            file.write_at(&bytes, at).unwrap();
        }
        file.flush().unwrap();
        to
    };
    let data = one(&base.data, &left.0, "crashed");
    let log = base.log.as_deref().zip(left.1.as_deref()).map(|(base, overlay)| one(base, overlay, "crashed-log"));
    Devices { data, log, rt: None }
}

fn full() -> bool {
    std::env::var_os("XFSR_FULL").is_some_and(|v| v == "1")
}

/// What a device may have kept of what was not flushed.
fn keep(how: u64, seed: u64) -> impl FnMut(&libxfsr::target::Event) -> bool {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    move |e| match how {
        0 => true,
        1 => random.random_range(0..2) == 0,
        _ => e.change == Change::Flush,
    }
}

#[test]
fn the_kernel_recovers_what_was_written_to_the_journal_as_the_library_does() {
    recovered_alike("size=900b", false, 42);
}

#[test]
fn the_kernel_recovers_records_of_stripes_too() {
    recovered_alike("size=1800b,su=32k", false, 43);
}

#[test]
fn the_kernel_recovers_a_log_on_its_own_device_too() {
    recovered_alike("size=900b", true, 44);
}

fn recovered_alike(log: &str, external: bool, seed: u64) {
    if oracle::require(&[oracle::MOUNT, &["xfs_logprint", "setfattr"]].concat()).is_none() {
        return;
    }
    std::fs::create_dir_all(directory()).unwrap();
    let scratch = tempfile::tempdir_in(directory()).unwrap();
    let base = kernel_image(scratch.path(), log, external).unwrap();
    let w = World::new(&base);
    let h = w.work(if full() { 9000 } else { 2500 }, seed);
    assert!(w.journal.head().cycle() > 2, "the log was not gone round: {:?}", w.journal.head());
    let (from, to) = (h.forced[0].0, w.now());
    let (ours, kernel) = if full() { (1000, 200) } else { (60, 6) };
    let mut random = ChaCha8Rng::seed_from_u64(seed + 7);
    for n in 0..ours {
        let (time, how) = (random.random_range(from..=to), n % 3);
        let (data, log) = w.crash(time, how);
        let log = log.map(|l| l as Arc<dyn Target>);
        let view = replayed_view(data, log, None, &Control::none()).unwrap();
        let seen = w.seen(&view.volume, &h);
        let state = h.find(&seen, time);
        let state = state.unwrap_or_else(|| panic!("crashed at {time}, {how}: no state is {seen:?}"));
        if n % (ours / kernel) == 0 {
            let image = save(&base, &w.crash(time, how), scratch.path());
            if n == 0 {
                printed(&image);
            }
            let what = format!("crashed at {time}, {how}");
            as_the_kernel_does(&w, &h, &image, &*view.overlay, state, &seen, &what);
        }
    }
    println!("{} events, {} states, {ours} crashes, of which the kernel recovered {kernel}", to, h.states.len());
    // Closed, it needs no recovery, and is in order.
    let last = h.states.last().unwrap().clone();
    w.journal.close().unwrap();
    let image = save(&base, &w.crash(w.now(), 2), scratch.path());
    let volume = view::open(&image);
    assert!(matches!(log_state(&volume, &Control::none()), Ok(LogState::Clean { .. })));
    assert_eq!(h.find(&w.seen(&volume, &h), to), Some(&last));
    assert!(xfs_repair_n(&image, &[]).unwrap().clean());
    let mount = Mount::new(&image, "").unwrap();
    std::fs::write(mount.path().join("made by the kernel"), "behind our log").unwrap();
    mount.unmount().unwrap();
    assert!(xfs_repair_n(&image, &[]).unwrap().clean());
}

/// The stock tool reads the log without complaint.
fn printed(image: &Devices) {
    let mut args = Vec::new();
    if let Some(log) = &image.log {
        args.extend(["-l".into(), log.into()]);
    }
    args.push(image.data.clone().into());
    let out = oracle::verdict("xfs_logprint", &args).unwrap();
    assert!(out.clean(), "xfs_logprint: {}", out.output);
    for word in ["ERROR", "BAD", "Bad"] {
        assert!(!out.output.contains(word), "xfs_logprint: {word}");
    }
    assert!(out.output.contains("INODE CORE") && out.output.contains("BUF DATA"), "{}", out.output);
}

/// The kernel's recovery ends with the same bytes.
fn as_the_kernel_does(
    w: &World,
    h: &History,
    image: &Devices,
    ours: &dyn Target,
    state: &State,
    seen: &State,
    what: &str,
) {
    Mount::new(image, "").expect("a mount, which recovers").unmount().expect("an unmount");
    let verdict = xfs_repair_n(image, &[]).unwrap();
    assert!(verdict.clean(), "{what}: {}", verdict.output);
    let theirs = FileTarget::open(&image.data, Access::Read).unwrap();
    let (a, b) = (w.bytes(ours, state), w.bytes(&theirs, state));
    for (at, bytes) in a {
        let differs = bytes.iter().zip(&b[&at]).position(|(x, y)| x != y);
        assert_eq!(differs, None, "{what}: a byte behind {at} is another one after the kernel's recovery");
    }
    let volume = view::open(image);
    assert!(matches!(log_state(&volume, &Control::none()), Ok(LogState::Clean { .. })));
    assert_eq!(w.seen(&volume, h), *seen, "{what}");
}

/// Where the records of a quota file stand that are in use, but for the one of id 0.
fn quota_records(volume: &Volume) -> Vec<(BlockKey, usize)> {
    let mut all = Vec::new();
    for ino in [volume.superblock.uquotino.get(), volume.superblock.gquotino.get(), volume.superblock.pquotino.get()] {
        let inode = Inode::read(volume, Ino(ino), OnDamage::Fail).unwrap();
        for e in inode.extents(volume, ForkKind::Data).unwrap() {
            for n in 0..e.count {
                let at = volume.geometry.fsblock_to_daddr(libxfsr::units::FsBlock(e.start + n)).unwrap();
                let key = BlockKey::one(volume.data, at, volume.geometry.block_size / 512);
                let block =
                    volume.cache.read(&key, &Want::new(&DQUOT_BLOCK, OnDamage::Fail), &volume.geometry).unwrap();
                let used = quota::slots(&block).iter().enumerate();
                let used = used.filter(|(_, s)| s.diskdq.id.get() > 0 && s.diskdq.icount.get() > 0);
                all.extend(used.map(|(i, _)| (key.clone(), i * quota::SLOT_SIZE)));
            }
        }
    }
    all
}

#[test]
fn a_kernel_with_quota_recovers_quota_records_as_the_library_does() {
    if oracle::require(&[oracle::MOUNT, &["guest"]].concat()).is_none() {
        return;
    }
    let Some(base) = corpus::obtain("quota") else { return };
    let below = Arc::new(FileTarget::open(&base.data, Access::Read).unwrap());
    let recorder = Arc::new(Recorder::new(below).unwrap());
    let volume = Arc::new(Volume::from_targets(recorder.clone(), None, None, 8 << 20).unwrap());
    let journal = Journal::open(volume.clone(), &Options::default()).unwrap();
    let scope = Scope::new(volume.clone(), journal.clone());
    let records = quota_records(&volume);
    assert!(records.len() > 10, "{} records", records.len());
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for n in 1..=300u64 {
        let mut t = scope.begin(ROOM).unwrap();
        for _ in 0..3 {
            let (key, at) = &records[random.random_range(0..records.len())];
            let (slot, _) = DquotSlot::mut_from_prefix(t.dquot_mut(key, *at).unwrap()).unwrap();
            slot.diskdq.ino_softlimit.set(n * 100 + 50);
            slot.diskdq.ino_hardlimit.set(n * 1000 + 5000);
        }
        let at = t.commit().unwrap();
        match n % 60 {
            0 => journal.settle().unwrap(),
            7 => journal.force(at).unwrap(),
            _ => {}
        }
    }
    journal.sync().unwrap();
    let time = recorder.events().last().map_or(0, |e| e.time + 1);
    let left = || Arc::new(recorder.crash(time, &mut |_| false).unwrap());
    let view = replayed_view(left(), None, None, &Control::none()).unwrap();
    assert!(view.replayed.done.dquots > 5, "{:?}", view.replayed.done);
    let scratch = tempfile::tempdir_in(directory()).unwrap();
    let image = save(&base, &(left(), None), scratch.path());
    let guest = Guest::find().expect("the guest kernel");
    let job = GuestJob { disks: vec![&image.data], ..Default::default() };
    let run = guest.run(&job, "mount -o uquota,gquota,pquota /dev/vda /mnt && umount /mnt").unwrap();
    assert!(run.clean(), "{}", run.output);
    let theirs = FileTarget::open(&image.data, Access::Read).unwrap();
    for (key, at) in records {
        let slot = |target: &dyn Target| {
            let mut bytes = [0; quota::SLOT_SIZE];
            target.read_at(&mut bytes, key.daddr().bytes() + at as u64).unwrap();
            bytes
        };
        let [ours, theirs] = [slot(&*view.overlay), slot(&theirs)].map(|b| DquotSlot::read_from_bytes(&b).unwrap());
        assert!(ours.diskdq.ino_hardlimit.get() > 5000 || ours.diskdq == theirs.diskdq);
        assert_eq!(ours.diskdq, theirs.diskdq, "the record {at} bytes behind {}", key.daddr());
    }
    assert!(xfs_repair_n(&image, &[]).unwrap().clean());
}
