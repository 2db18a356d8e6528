//! Trees that the kernel wrote, changed in transactions through the log: cancelled, crashed at any write, recovered by us and by the kernel.

use libxfsr::Error;
use libxfsr::btree::kinds::{Bno, Cnt, Rmap};
use libxfsr::btree::{self, Kind, Lookup, Position, Store};
use libxfsr::cache::{BlockKey, OnDamage, Want};
use libxfsr::check::{Verdict, check};
use libxfsr::control::Control;
use libxfsr::engine::replayed_view;
use libxfsr::format::ag::AGF;
use libxfsr::journal::{Journal, Options};
use libxfsr::space::{AgStore, AgTree, AgTreeMut, Space};
use libxfsr::target::{Access, Event, FileTarget, Overlay, Recorder, Target};
use libxfsr::txn::{Reservation, Scope, Transaction};
use libxfsr::units::AgNumber;
use libxfsr::volume::Volume;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::sync::Arc;
use xfsr_tests::corpus;
use xfsr_tests::oracle::{Mount, xfs_repair_n};

/// More than one transaction here logs.
const ROOM: Reservation = Reservation { blocks: 120, sectors: 3, inodes: 0, bytes: 0 };

/// The records of a tree.
fn records<K: Kind, S: Store + Sync>(store: &S) -> Vec<K::Record> {
    let mut all = Vec::new();
    btree::check::<K, _>(store, &Control::none(), &mut |_, _| (), &mut |r| all.push(*r), &mut |c| panic!("{c}"))
        .expect("not stopped");
    all
}

fn of_image<K: Kind>(volume: &Volume, ag: AgNumber, tree: AgTree) -> Vec<K::Record> {
    records::<K, _>(&AgStore::new(volume, ag, tree, OnDamage::Fail).expect("a header"))
}

/// Locks an AG's header, and with it its trees; the free list is left as it is.
fn lock(t: &mut Transaction<'_>, ag: AgNumber) -> libxfsr::Result<()> {
    let g = t.geometry();
    let key = BlockKey::one(t.volume().data, g.header_daddr(ag, 1), g.sector_size / 512);
    t.block(&key, &Want::new(&AGF, OnDamage::Fail)).map(drop)
}

/// Takes neighbours out and puts them in again, in another order: so many that blocks are joined and split.
fn shuffled<K: Kind>(
    (t, space): (&mut Transaction<'_>, &Space),
    ag: AgNumber,
    tree: AgTree,
    all: &[K::Record],
    rng: &mut ChaCha8Rng,
) -> libxfsr::Result<()>
where
    K::Record: PartialEq,
{
    let mut store = AgTreeMut::new(t, space, ag, tree);
    let from = rng.random_range(0..all.len());
    let mut some = all[from..all.len().min(from + rng.random_range(1..90))].to_vec();
    some.shuffle(rng);
    for r in &some {
        let at = Position::<K>::lookup(&store, &K::low(r), Lookup::Equal)?;
        assert!(at.expect("a record of the tree").remove(&mut store)? == *r);
    }
    some.shuffle(rng);
    for r in &some {
        Position::<K>::insert(&mut store, r)?;
    }
    Ok(())
}

/// What the trees of each AG hold, and always hold.
struct Contents {
    bno: Vec<<Bno as Kind>::Record>,
    cnt: Vec<<Cnt as Kind>::Record>,
    rmap: Vec<<Rmap as Kind>::Record>,
}

impl Contents {
    fn of(volume: &Volume, ag: AgNumber) -> Contents {
        Contents {
            bno: of_image::<Bno>(volume, ag, AgTree::Bno),
            cnt: of_image::<Cnt>(volume, ag, AgTree::Cnt),
            rmap: of_image::<Rmap>(volume, ag, AgTree::Rmap),
        }
    }
    fn assert_in(&self, what: &str, volume: &Volume, ag: AgNumber) {
        let now = Contents::of(volume, ag);
        assert!(now.bno == self.bno && now.cnt == self.cnt && now.rmap == self.rmap, "{what}, {ag:?}: other records");
    }
}

/// Writes what an overlay has changed to a copy of what is below it.
fn write_out(overlay: &Overlay, to: &Path) {
    let target = FileTarget::open(to, Access::Write).expect("a copy");
    for (offset, length) in overlay.changed() {
        let mut bytes = vec![0; length as usize];
        overlay.read_at(&mut bytes, offset).expect("memory");
        target.write_at(&bytes, offset).expect("a file");
    }
    target.flush().expect("a file");
}

#[test]
fn trees_changed_through_the_log_survive_crashes_at_any_write() {
    let Some(devices) = corpus::obtain("rmap-1k") else { return };
    let below = Arc::new(FileTarget::open(&devices.data, Access::Read).expect("an image"));
    let recorder = Arc::new(Recorder::new(below).expect("memory"));
    let volume = Arc::new(Volume::from_targets(recorder.clone(), None, None, 4 << 20).expect("a filesystem"));
    let contents: Vec<Contents> = volume.ags().map(|ag| Contents::of(&volume, ag)).collect();
    let journal = Journal::open(volume.clone(), &Options::default()).expect("a clean log");
    let scope = Scope::new(volume.clone(), journal.clone());
    let space = Space::open(&volume).expect("headers");
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let (mut committed, mut cancelled, mut short) = (0, 0, 0);
    for round in 0..240 {
        let ag = AgNumber(rng.random_range(0..contents.len() as u32));
        let all = &contents[ag.0 as usize];
        let mut t = scope.begin(ROOM).expect("room in the log");
        lock(&mut t, ag).expect("an AGF");
        let changed = match round % 3 {
            0 => shuffled::<Rmap>((&mut t, &space), ag, AgTree::Rmap, &all.rmap, &mut rng),
            _ => shuffled::<Bno>((&mut t, &space), ag, AgTree::Bno, &all.bno, &mut rng)
                .and_then(|()| shuffled::<Cnt>((&mut t, &space), ag, AgTree::Cnt, &all.cnt, &mut rng)),
        };
        match changed {
            // Where the free list ended in the middle of a change, and now and then without reason, all of it is taken back.
            Err(e) => {
                assert!(matches!(e, Error::NoSpace(_)), "{e}");
                drop(t);
                short += 1;
            }
            Ok(()) if round % 7 == 6 => {
                drop(t);
                cancelled += 1;
            }
            Ok(()) => {
                t.commit().expect("a commit");
                committed += 1;
            }
        }
        match round % 20 {
            9 => journal.sync().expect("a log"),
            19 => journal.settle().expect("a log"),
            _ => {}
        }
        if round % 40 == 5 {
            all.assert_in("as it goes", &volume, ag);
        }
    }
    println!("{committed} transactions committed, {cancelled} cancelled, {short} without a block");
    assert!(committed > 150 && cancelled > 20);
    let before_close = recorder.events().len() as u64;
    journal.close().expect("nothing is under way");
    drop((scope, journal));

    let directory = tempfile::tempdir().expect("a directory");
    let end = recorder.events().len() as u64 + 1;
    let mut times: Vec<u64> = (0..23).map(|_| rng.random_range(1..before_close)).collect();
    times.push(end);
    for (n, time) in times.into_iter().enumerate() {
        let lose = [0, 50, 100].choose(&mut rng).copied().unwrap_or(0);
        let mut keep = |_: &Event| rng.random_range(0..100) >= lose;
        let crashed = Arc::new(recorder.crash(time, &mut keep).expect("memory"));
        let what = format!("crash {n} at {time} of {end}, {lose} % of what was not flushed lost");
        let view = replayed_view(crashed.clone(), None, None, &Control::none()).expect("replay");
        for (ag, all) in view.volume.ags().zip(&contents) {
            all.assert_in(&what, &view.volume, ag);
        }
        let outcome = check(&view.volume, &Control::none()).expect("a check");
        assert!(outcome.verdict() == Verdict::Clean, "{what}: {:?}", outcome.findings.first());
        if n % 6 == 5 {
            let copy = corpus::copy("rmap-1k", directory.path()).data;
            write_out(&crashed, &copy);
            Mount::new(&*copy, "").expect("a mount").unmount().expect("an unmount");
            let verdict = xfs_repair_n(&*copy, &[]).expect("xfs_repair");
            assert!(verdict.clean(), "{what}, recovered by the kernel: {}", verdict.output);
            let volume = Volume::open(&libxfsr::volume::Devices::data(&copy)).expect("a filesystem");
            for (ag, all) in volume.ags().zip(&contents) {
                all.assert_in(&what, &volume, ag);
            }
        }
    }
}
