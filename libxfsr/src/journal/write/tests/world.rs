//! A small filesystem that is changed through a journal, and what is found in it after a crash.

use super::super::{Journal, Options};
use crate::cache::{BlockKey, Checkpoint, OnDamage, Want};
use crate::control::Control;
use crate::engine::replayed_view;
use crate::format::inode::Dinode;
use crate::format::part::PartHeader;
use crate::format::superblock::{SUPERBLOCK, Superblock};
use crate::format::symlink;
use crate::format::symlink::SYMLINK;
use crate::inode::Inode;
use crate::mkfs;
use crate::target::{Event, Overlay, Recorder, Target, Xfile};
use crate::txn::{CommitSink, Reservation, Scope, Transaction};
use crate::units::{AgBlock, AgNumber, Ino, Lsn};
use crate::volume::Volume;
use std::collections::BTreeMap;
use std::sync::Arc;
use zerocopy::FromBytes;

pub(super) const ROOM: Reservation = Reservation { blocks: 6, sectors: 2, inodes: 8, bytes: 200 };
pub(super) const CHUNKS: u32 = 4;

/// What a test changes, and finds again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    Owner(Ino),
    Pointer(Ino),
    Label,
    Link(u32),
}

/// What stands there; none where it is free.
pub(super) type State = BTreeMap<Place, Option<u32>>;

pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }
}

pub(super) struct World {
    pub(super) recorder: Arc<Recorder>,
    pub(super) volume: Arc<Volume>,
    pub(super) journal: Arc<Journal>,
    pub(super) scope: Scope,
    pub(super) inodes: Vec<Ino>,
}

/// An empty filesystem whose log is cut down to so many blocks.
pub(super) fn image(log_blocks: u32, stripe: Option<u64>) -> Arc<Xfile> {
    let target = Arc::new(Xfile::new("journal").unwrap());
    target.set_len(320 << 20).unwrap();
    let mut options = mkfs::Options::default();
    options.log.su = stripe;
    let plan = mkfs::plan(&options, &mkfs::Devices::file(target.len())).unwrap();
    let targets = mkfs::write::Targets { data: &*target, log: None, rt: None };
    mkfs::write::write(&plan, &targets, &mkfs::write::WriteOptions::default(), &Control::none()).unwrap();
    let mut sector = vec![0; 512];
    target.read_at(&mut sector, 0).unwrap();
    Superblock::mut_from_prefix(&mut sector).unwrap().0.logblocks.set(log_blocks);
    (SUPERBLOCK.seal)(&mut sector, Lsn(0));
    target.write_at(&sector, 0).unwrap();
    target
}

impl World {
    pub(super) fn new(log_blocks: u32, stripe: Option<u64>, options: &Options) -> Self {
        let recorder = Arc::new(Recorder::new(image(log_blocks, stripe)).unwrap());
        Self::over(recorder.clone(), recorder, options)
    }

    /// On a target that writes to the recorder.
    pub(super) fn over(recorder: Arc<Recorder>, target: Arc<dyn Target>, options: &Options) -> Self {
        let volume = Arc::new(Volume::from_targets(target, None, None, 1 << 20).unwrap());
        let journal = Journal::open(volume.clone(), options).unwrap();
        let scope = Scope::new(volume.clone(), journal.clone());
        let g = &volume.geometry;
        let mut inodes = Vec::new();
        for n in 0..CHUNKS {
            let at = AgBlock(1024 + 8 * n);
            let mut t = scope.begin(ROOM.and(Reservation { inodes: 64, ..Reservation::default() })).unwrap();
            t.create_chunk(AgNumber(1), at, 8, n).unwrap();
            let first = g.join_ino(AgNumber(1), g.block_to_agino(at));
            for i in 0..64 {
                let d = Dinode::from_bytes_mut(t.inode_mut(Ino(first.0 + i)).unwrap()).unwrap();
                d.mode.set(0o100_644);
                d.format = 2;
                d.aformat = 2;
                d.nlink.set(1);
                inodes.push(Ino(first.0 + i));
            }
            t.commit().unwrap();
        }
        journal.sync().unwrap();
        Self { recorder, volume, journal, scope, inodes }
    }

    pub(super) fn link(&self, n: u32) -> (BlockKey, Want) {
        let g = &self.volume.geometry;
        let key = BlockKey::one(self.volume.data, g.agbno_to_daddr(AgNumber(2), AgBlock(2000 + n)), 8);
        (key, Want::new(&SYMLINK, OnDamage::Fail))
    }

    pub(super) fn change(&self, t: &mut Transaction<'_>, place: Place, value: Option<u32>, was: Option<u32>) {
        let v = value.unwrap_or(0);
        match place {
            Place::Owner(ino) => {
                let d = Dinode::from_bytes_mut(t.inode_mut(ino).unwrap()).unwrap();
                d.uid.set(v);
            }
            Place::Pointer(ino) => t.set_next_unlinked(ino, 8192 + v % 64).unwrap(),
            Place::Label => {
                let key = BlockKey::one(self.volume.data, crate::units::Daddr(0), 1);
                let b = t.block_mut(&key, &Want::new(&SUPERBLOCK, OnDamage::Fail)).unwrap();
                Superblock::mut_from_prefix(b).unwrap().0.fname[..8].copy_from_slice(format!("{v:08x}").as_bytes());
            }
            Place::Link(n) => {
                let (key, want) = self.link(n);
                match (value, was) {
                    (None, _) => t.invalidate(&key, &want).unwrap(),
                    (Some(_), None) => {
                        let b = t.fresh(&key, &want).unwrap();
                        let (h, rest) = PartHeader::mut_from_prefix(b).unwrap();
                        h.magic.set(symlink::MAGIC);
                        h.bytes.set(8);
                        h.uuid = self.volume.geometry.meta_uuid;
                        h.owner.set(131);
                        h.blkno.set(key.daddr().0);
                        rest[..8].copy_from_slice(format!("{v:08x}").as_bytes());
                        rest[8..].fill(v as u8);
                    }
                    _ => {
                        let b = t.block_mut(&key, &want).unwrap();
                        b[56..64].copy_from_slice(format!("{v:08x}").as_bytes());
                        b[64..].fill(v as u8);
                    }
                }
            }
        }
    }

    /// One transaction: what it changes comes into `state`.
    pub(super) fn step(&self, random: &mut Random, number: u32, state: &mut State) -> Checkpoint {
        self.try_step(random, number, state).unwrap()
    }

    pub(super) fn try_step(&self, random: &mut Random, number: u32, state: &mut State) -> crate::Result<Checkpoint> {
        let mut t = self.scope.begin(ROOM)?;
        let mut changes = State::new();
        for _ in 0..=random.below(4) {
            let ino = self.inodes[random.below(self.inodes.len() as u64) as usize];
            let place = match random.below(8) {
                0 => Place::Label,
                1 => Place::Pointer(ino),
                2..6 => Place::Link(random.below(400) as u32),
                _ => Place::Owner(ino),
            };
            let frees = matches!(place, Place::Link(n) if state.get(&place).is_some_and(Option::is_some) && !(n + number).is_multiple_of(3));
            changes.insert(place, if frees { None } else { Some(number) });
        }
        for (place, value) in &changes {
            self.change(&mut t, *place, *value, state.get(place).copied().flatten());
        }
        // Some think better of it.
        if random.below(8) == 0 {
            drop(t);
            return Ok(Checkpoint::default());
        }
        let at = t.commit()?;
        state.extend(changes);
        Ok(at)
    }

    /// What a crashed image shows after replay.
    pub(super) fn seen(&self, image: Overlay, places: impl Iterator<Item = Place>) -> State {
        let view = replayed_view(Arc::new(image), None, None, &Control::none()).unwrap();
        let v = &view.volume;
        let read = |place: Place| match place {
            Place::Owner(ino) => Some(Inode::read(v, ino, OnDamage::Fail).unwrap().core.uid.get()),
            Place::Pointer(ino) => Some(Inode::read(v, ino, OnDamage::Fail).unwrap().core.next_unlinked.get()),
            Place::Label => hex(&v.superblock.fname[..8]),
            Place::Link(n) => {
                let (key, want) = self.link(n);
                let b = v.cache.read(&key, &want, &v.geometry).ok()?;
                let value = hex(&b[56..64])?;
                assert!(b[64..].iter().all(|x| *x == value as u8), "all of a block or nothing");
                Some(value)
            }
        };
        places.map(|p| (p, read(p))).collect()
    }
}

pub(super) fn hex(text: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

/// Whether an image shows a state. What is free may hold anything.
pub(super) fn shows(seen: &State, state: &State) -> bool {
    seen.iter().all(|(place, found)| match (place, state.get(place).copied().flatten()) {
        (Place::Link(_), None) => true,
        (Place::Pointer(_), None) => *found == Some(u32::MAX),
        (Place::Pointer(_), Some(v)) => *found == Some(8192 + v % 64),
        (Place::Owner(_), None) => *found == Some(0),
        (Place::Label, None) => found.is_none(),
        (_, want) => *found == want,
    })
}

/// What was committed, and what was forced, at which time.
pub(super) struct History {
    pub(super) states: Vec<State>,
    /// Time, and how many states are durable from then on.
    pub(super) forced: Vec<(u64, usize)>,
}

pub(super) fn now(w: &World) -> u64 {
    w.recorder.events().last().map_or(0, |e| e.time + 1)
}

pub(super) fn work(w: &World, transactions: u32, seed: u64) -> History {
    let mut random = Random(seed);
    let mut history = History { states: vec![State::new()], forced: vec![(now(w), 1)] };
    let mut state = State::new();
    for n in 1..=transactions {
        let at = w.step(&mut random, n, &mut state);
        history.states.push(state.clone());
        match random.below(12) {
            0..3 => w.journal.force(at).unwrap(),
            3 if random.below(10) == 0 => w.journal.settle().unwrap(),
            _ => continue,
        }
        if at > Checkpoint::default() {
            history.forced.push((now(w), history.states.len()));
        }
    }
    history
}

/// Crashes at a time, and checks that what is there then is what there was at some time not before the last force.
pub(super) fn crash(w: &World, h: &History, time: u64, keep: &mut dyn FnMut(&Event) -> bool, what: &str) {
    let image = w.recorder.crash(time, keep).unwrap();
    let places: Vec<Place> = h.states.last().unwrap().keys().copied().collect();
    let seen = w.seen(image, places.into_iter());
    let forced = h.forced.iter().take_while(|(t, _)| *t <= time).last().map_or(0, |(_, n)| *n);
    let from = forced.saturating_sub(1);
    let found = h.states.get(from..).unwrap_or(&[]).iter().any(|s| shows(&seen, s));
    assert!(found, "{what}, crashed at {time}: no state from {from} on is {seen:?}");
}

/// Every so many a prefix, and torn, dropped and reordered writes.
pub(super) fn crashes(w: &World, h: &History, step: usize, seed: u64) {
    let (from, to) = (h.forced[0].0, now(w));
    for time in (from..=to).step_by(step) {
        crash(w, h, time, &mut |_| true, "all written");
        let mut random = Random(seed ^ (time + 1));
        crash(w, h, time, &mut |_| random.below(2) == 0, "half of what was not flushed lost");
        crash(w, h, time, &mut |_| false, "all that was not flushed lost");
    }
}
