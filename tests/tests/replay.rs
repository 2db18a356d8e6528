//! The fuzz targets on stable: seeds and found cases from `fuzz/`, then bounded deterministic mutation of what the kernel wrote.

use libxfsr::control::Control;
use libxfsr::format::log::Ops;
use libxfsr::format::log::items::ItemType;
use libxfsr::format::metadump::{CompatV2, ExtentHeader, HeaderV2, IncompatV2};
use libxfsr::units::Daddr;
use libxfsr::volume::Volume;
use libxfsr::{dump, journal};
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use xfsr_tests::fuzz::mutate::{Base, change, seal};
use xfsr_tests::fuzz::{self, Input, TARGETS, image, kind_of};
use xfsr_tests::{corpus, oracle};
use zerocopy::IntoBytes as _;

/// What one case may take on a busy machine.
const CASE: Duration = Duration::from_secs(30);
/// Address space of this process. An allocation by a number from a disk is larger.
const SPACE: u64 = 12 << 30;

fn seconds(default: u64) -> Duration {
    Duration::from_secs(xfsr_tests::knob("XFSR_FUZZ_SECONDS", default))
}

fn bound_memory() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Rlimit { current: Some(SPACE), maximum: None };
    setrlimit(Resource::As, limit).expect("a lower limit is always allowed");
}

/// Runs a case in a thread and fails where it panics or does not end.
fn bounded<T: Send + 'static>(what: &str, case: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let result = case();
        // The other end waits, unless it has given up.
        let _ = tell.send(());
        result
    });
    match told.recv_timeout(CASE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: not done after {CASE:?}"),
        _ => thread.join().unwrap_or_else(|_| panic!("{what}: panicked")),
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(list) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut all: Vec<PathBuf> = list.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
    all.sort();
    all
}

#[test]
fn seeds_and_found_cases_pass() {
    bound_memory();
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for target in TARGETS {
        let mut n = 0;
        for file in ["seeds", "found"].iter().flat_map(|d| files(&fuzz.join(d).join(target.name))) {
            let data = std::fs::read(&file).expect("a file of the list");
            bounded(&format!("{}: {}", target.name, file.display()), move || target.run(&data));
            n += 1;
        }
        // A target without a seed is not replayed at all.
        assert!(n > 0, "{}: no seed in {}", target.name, fuzz.display());
    }
}

/// A seeded stream of edits, the same in each run.
fn edit(rng: &mut ChaCha8Rng) -> [u8; 8] {
    let mut edit = [0; 8];
    rng.fill_bytes(&mut edit);
    edit
}

/// Each kind of block of an image, a few of each, mutated and given to its target.
fn mutate_blocks(base: &Base, rng: &mut ChaCha8Rng, until: Instant) -> BTreeMap<&'static str, u64> {
    let mut kinds: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for piece in &base.pieces {
        kinds.entry(piece.name).or_default().push(*piece);
    }
    let mut tried = BTreeMap::new();
    while Instant::now() < until {
        for (name, pieces) in &kinds {
            let mut pick = || pieces[rng.random_range(0..pieces.len())];
            let (piece, other) = (pick(), pick());
            let (mut bytes, other) = (base.bytes(&piece), base.bytes(&other));
            let edits: Vec<[u8; 8]> = (0..rng.random_range(1..5)).map(|_| edit(rng)).collect();
            edits.iter().for_each(|e| change(&mut bytes, e, &other));
            seal(&piece, &mut bytes);
            let target = fuzz::target(fuzz::target_of(name));
            let daddr = Daddr(piece.offset / 512);
            let input = Input { geometry: base.geometry, choice: 0, daddr, bytes: &bytes };
            let case = std::panic::AssertUnwindSafe(|| {
                (target.body)(&input);
                if let Some(stamp) = kind_of(&bytes) {
                    let _ = fuzz::examine(stamp, &mut bytes.clone(), &input.at());
                }
                if *name == "inode" {
                    (fuzz::target("attribute_short").body)(&input);
                    (fuzz::target("directory_short").body)(&input);
                }
            });
            if let Err(e) = std::panic::catch_unwind(case) {
                panic!("{} of {name} at {}: {edits:?}: {e:?}", target.name, piece.offset);
            }
            *tried.entry(target.name).or_default() += 1;
        }
    }
    tried
}

#[test]
fn mutated_blocks_of_the_kernel_do_no_harm() {
    if oracle::require(oracle::MOUNT).is_none() {
        return;
    }
    bound_memory();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let names = ["default", "rmap-1k", "parent", "b64k", "b2k-i1k-n64k", "dirty", "quota", "realtime"];
    let share = seconds(8) / names.len() as u32;
    let mut tried: BTreeMap<&str, u64> = BTreeMap::new();
    for name in names {
        // Quota and realtime are written by the guest's kernel.
        let Some(devices) = corpus::obtain(name) else { continue };
        let base = image::load(&devices.data);
        assert!(base.pieces.len() > 100, "{name}: {} pieces", base.pieces.len());
        let mut count = |target, n| *tried.entry(target).or_default() += n;
        mutate_blocks(&base, &mut rng, Instant::now() + share).into_iter().for_each(|(target, n)| count(target, n));
        let needed: &[&str] = match name {
            "quota" => &["dquot"],
            "realtime" => &["realtime"],
            "dirty" => {
                count("log_item", mutate_items(&base, &mut rng, Instant::now() + share));
                &["log_record", "log_item"]
            }
            _ => &[],
        };
        for target in needed {
            assert!(tried.get(target).is_some_and(|n| *n > 10), "{target} was tried too seldom: {tried:?}");
        }
    }
    let groups = &image::bases().last().expect("one of our own");
    mutate_blocks(groups, &mut rng, Instant::now() + share)
        .into_iter()
        .for_each(|(target, n)| *tried.entry(target).or_default() += n);
    println!("{tried:?}");
    for target in ["superblock", "ag_headers", "btree_block", "inode", "directory_block", "attribute_block", "symlink"]
    {
        assert!(tried.get(target).is_some_and(|n| *n > 50), "{target} was tried too seldom: {tried:?}");
    }
}

/// The items that the log of an image holds, mutated.
fn mutate_items(base: &Base, rng: &mut ChaCha8Rng, until: Instant) -> u64 {
    let volume = Volume::from_targets(Arc::new(base.memory.clone()), None, None, 1 << 20).expect("a volume");
    let mut items: Vec<Vec<u8>> = Vec::new();
    journal::records(&volume, &Control::none(), &mut |record| {
        let regions = Ops::new(&record.data, record.operations).map_while(Result::ok).map(|(_, region)| region);
        items.extend(regions.filter(|r| ItemType::of(r).is_some()).map(<[u8]>::to_vec));
        Ok(ControlFlow::Continue(()))
    })
    .expect("a sound log");
    let kinds: BTreeSet<String> = items.iter().filter_map(|i| Some(format!("{:?}", ItemType::of(i)?))).collect();
    assert!(kinds.len() >= 5, "few kinds of items: {kinds:?}");
    let target = fuzz::target("log_item");
    let mut n = 0;
    while Instant::now() < until {
        let mut pick = || &items[rng.random_range(0..items.len())];
        let (mut bytes, other) = (pick().clone(), pick().clone());
        let edits: Vec<[u8; 8]> = (0..rng.random_range(1..5)).map(|_| edit(rng)).collect();
        edits.iter().for_each(|e| change(&mut bytes, e, &other));
        bytes.truncate(bytes.len() - usize::from(edits[0][1]) % 16 % (bytes.len() + 1));
        let input = Input { geometry: base.geometry, choice: 0, daddr: Daddr(0), bytes: &bytes };
        let case = std::panic::AssertUnwindSafe(|| (target.body)(&input));
        if let Err(e) = std::panic::catch_unwind(case) {
            panic!("log_item: {bytes:02x?}: {e:?}");
        }
        n += 1;
    }
    n
}

/// A dump of version 2 with the blocks of one of version 1.
fn version_2(dump: &[u8]) -> Vec<u8> {
    let mut all = HeaderV2::new(CompatV2::empty(), IncompatV2::empty()).as_bytes().to_vec();
    // It is cut off somewhere, which ends the reading.
    let _ = dump::read_dump(&mut &*dump, &mut |device, at, bytes| {
        let blocks = (bytes.len() / 512) as u32;
        all.extend(ExtentHeader::new(device, at, blocks).expect("one block").as_bytes());
        all.extend(bytes);
        Ok(())
    });
    all
}

#[test]
fn mutated_dumps_do_no_harm() {
    if oracle::require(&["xfs_metadump"]).is_none() {
        return;
    }
    let Some(devices) = corpus::obtain("fuzz") else { return };
    bound_memory();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("dump");
    xfsr_tests::run("xfs_metadump", &[OsStr::new("-ao"), devices.data.as_os_str(), path.as_os_str()]).expect("a dump");
    // Several indices and what they list; the end is missing, as it is of a dump that was cut off.
    let mut version_1 = std::fs::read(&path).expect("the dump");
    version_1.truncate(100_000);
    let dumps = [version_2(&version_1), version_1];
    assert!(dumps.iter().all(|d| d.len() > 50_000), "small dumps");
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    let until = Instant::now() + seconds(3);
    let target = fuzz::target("metadump");
    let mut n = 0;
    while Instant::now() < until {
        for dump in &dumps {
            let mut bytes = dump.clone();
            // Where a part begins: an index lists 63 blocks; an extent is one block and its head.
            let starts = if n % 2 == 0 { 524 } else { 512 * 64 };
            let edits: Vec<[u8; 8]> = (0..rng.random_range(1..5)).map(|_| edit(&mut rng)).collect();
            for e in &edits {
                let from = starts * rng.random_range(0..bytes.len() / starts);
                change(&mut bytes[from..], e, dump);
            }
            let input = Input { geometry: &fuzz::geometries()[0], choice: 0, daddr: Daddr(0), bytes: &bytes };
            let case = std::panic::AssertUnwindSafe(|| (target.body)(&input));
            if let Err(e) = std::panic::catch_unwind(case) {
                panic!("metadump: {edits:?}: {e:?}");
            }
            n += 1;
        }
    }
    println!("{n} dumps");
    assert!(n > 100, "only {n} dumps");
}

#[test]
fn mutated_images_do_no_harm() {
    bound_memory();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let more: Vec<Base> = ["quota", "realtime", "dirty"]
        .iter()
        .filter_map(|name| corpus::obtain(name))
        .map(|devices| image::load(&devices.data))
        .collect();
    let until = Instant::now() + seconds(20);
    let (mut n, mut slowest) = (0u64, (Duration::ZERO, String::new()));
    let bases = image::bases();
    while Instant::now() < until {
        for base in bases.iter().chain(&more) {
            // Each edit: two pieces, then eight bytes. One edit finds most; a few together find what needs two lies.
            let mut edits = vec![0; 12 * rng.random_range(1..6)];
            rng.fill_bytes(&mut edits);
            let (data, rt, done) = image::edited(base, &edits);
            let started = Instant::now();
            bounded(&format!("{done:#?}"), move || image::exercise(data, rt));
            slowest = slowest.max((started.elapsed(), done.join("; ")));
            n += 1;
        }
    }
    println!("{n} images; the slowest took {:?}: {}", slowest.0, slowest.1);
    assert!(n >= 2 * bases.len() as u64, "only {n} images");
}
