//! Logs that the kernel wrote: every record, operation and item is understood, as many as xfs_logprint sees; and damage to a
//! log is told.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use libxfsr::control::Control;
use libxfsr::format::log::items::ItemType;
use libxfsr::journal::{self, LogState, Record};
use libxfsr::target::{Access, FileTarget, Overlay, Target};
use libxfsr::volume::{self, Volume};
use rand::{Rng as _, SeedableRng as _};
use xfsr_tests::corpus::{self, End, Recipe};
use xfsr_tests::oracle::{self, Devices};
use xfsr_tests::view::open;

fn selected(wanted: impl Fn(&Recipe) -> bool) -> impl Iterator<Item = (&'static Recipe, Devices)> {
    corpus::selected().filter(move |r| wanted(r)).filter_map(|r| Some((r, corpus::obtain(r.name)?)))
}

/// What xfs_logprint tells of one record: length of the data, then each operation's number, length and flags.
#[derive(Debug, Default, PartialEq, Eq)]
struct Printed {
    length: u64,
    operations: Vec<(u32, u32, String)>,
}

/// The records of the whole log by LSN. It starts at the log's first block, so what an older cycle left is among them.
fn logprint(devices: &Devices) -> BTreeMap<(u32, u32), Printed> {
    let mut args = vec!["-n".into()];
    if let Some(log) = &devices.log {
        args.extend(["-l".into(), log.into()]);
    }
    args.push(devices.data.clone().into());
    let text = oracle::verdict("xfs_logprint", &args).unwrap().output;
    let mut all = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["cycle:", _, "version:", _, "lsn:", lsn, ..] => {
                let (cycle, block) = lsn.split_once(',').unwrap();
                let key = (cycle.parse().unwrap(), block.parse().unwrap());
                all.insert(key, Printed::default());
                current = all.get_mut(&key);
            }
            ["length", "of", "Log", "Record:", length, ..] => {
                current.as_mut().unwrap().length = length.parse().unwrap();
            }
            ["Oper", _, "tid:", tid, "len:", length, "clientid:", _, "flags:", ..] => {
                let tid = u32::from_str_radix(tid, 16).unwrap();
                let flags = words[9..].join(" ");
                current.as_mut().unwrap().operations.push((tid, length.parse().unwrap(), flags));
            }
            _ => {}
        }
    }
    all
}

fn flags(f: libxfsr::format::log::OpFlags) -> String {
    use libxfsr::format::log::OpFlags as F;
    let names = [
        (F::START, "START"),
        (F::COMMIT, "COMMIT"),
        (F::WAS_CONT, "WAS_CONT"),
        (F::UNMOUNT, "UNMOUNT"),
        (F::CONTINUE, "CONTINUE"),
        (F::END, "END"),
    ];
    let set: Vec<_> = names.iter().filter(|(bit, _)| f.contains(*bit)).map(|(_, n)| *n).collect();
    if set.is_empty() { "none".to_owned() } else { set.join(" ") }
}

fn records(volume: &Volume) -> Vec<Record> {
    let mut all = Vec::new();
    journal::records(volume, &Control::none(), &mut |r| {
        all.push(r.clone());
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    all
}

#[test]
fn records_and_operations_are_those_that_xfs_logprint_prints() {
    if oracle::require(&["xfs_logprint"]).is_none() {
        return;
    }
    for (recipe, devices) in selected(|r| r.end == End::Dirty) {
        let volume = open(&devices);
        assert!(matches!(journal::log_state(&volume, &Control::none()), Ok(LogState::Dirty { .. })), "{}", recipe.name);
        let (ours, theirs) = (records(&volume), logprint(&devices));
        assert!(ours.len() > 3, "{}: {} records", recipe.name, ours.len());
        for r in ours {
            let key = (r.lsn.cycle(), r.lsn.block());
            let printed = theirs.get(&key).unwrap_or_else(|| panic!("{}: xfs_logprint has no {key:?}", recipe.name));
            let operations: Vec<_> =
                r.ops().map(|op| op.map(|(h, _)| (h.tid.get(), h.len.get(), flags(h.flags()))).unwrap()).collect();
            assert_eq!(*printed, Printed { length: r.data.len() as u64, operations }, "{}: {key:?}", recipe.name);
        }
    }
}

#[test]
fn every_item_is_understood() {
    let mut seen = BTreeSet::new();
    for (recipe, devices) in selected(|r| r.end == End::Dirty) {
        let summary =
            journal::read(&open(&devices), &Control::none()).unwrap_or_else(|e| panic!("{}: {e}", recipe.name));
        println!("{}: {summary:?}", recipe.name);
        seen.extend(summary.items.into_keys());
    }
    if seen.is_empty() {
        return;
    }
    let names = |types: &[ItemType]| types.iter().map(|t| format!("{t:?}")).collect::<BTreeSet<_>>();
    let wanted = names(&[
        ItemType::Inode,
        ItemType::Buf,
        ItemType::Icreate,
        ItemType::Efi,
        ItemType::Efd,
        ItemType::Rui,
        ItemType::Rud,
        ItemType::Cui,
        ItemType::Cud,
        ItemType::Bui,
        ItemType::Bud,
        ItemType::Attri,
        ItemType::Attrd,
        ItemType::Xmi,
        ItemType::Xmd,
        ItemType::Dquot,
    ]);
    let missing: Vec<_> = wanted.difference(&seen).collect();
    assert!(missing.is_empty(), "not provoked: {missing:?}");
    // No kernel at hand writes these: quota is no longer turned off through the log, and the others need realtime groups.
    let never = names(&[
        ItemType::Iunlink,
        ItemType::Quotaoff,
        ItemType::EfiRt,
        ItemType::EfdRt,
        ItemType::RuiRt,
        ItemType::RudRt,
        ItemType::CuiRt,
        ItemType::CudRt,
    ]);
    assert_eq!(seen.union(&never).count(), ItemType::ALL.len(), "each of the 24 types is accounted for");
    assert!(seen.is_disjoint(&never), "{seen:?}: say so in the documentation");
}

#[test]
fn a_clean_log_ends_with_an_unmount_record() {
    for (recipe, devices) in selected(|r| r.end != End::Dirty) {
        let all = records(&open(&devices));
        assert!(all.last().is_some_and(Record::is_unmount), "{}: {} records", recipe.name, all.len());
        journal::read(&open(&devices), &Control::none()).unwrap();
    }
}

/// A view of an image that changes only in memory.
fn scratch(devices: &Devices) -> (Volume, Arc<dyn Target>) {
    let lower = Arc::new(FileTarget::open(&devices.data, Access::Read).unwrap());
    let data: Arc<dyn Target> = Arc::new(Overlay::new(lower).unwrap());
    (Volume::from_targets(data.clone(), None, None, volume::DEFAULT_CACHE).unwrap(), data)
}

#[test]
fn damage_to_a_log_is_told() {
    let Some(devices) = corpus::obtain("dirty") else { return };
    let (volume, target) = scratch(&devices);
    let all = records(&volume);
    let start = volume.geometry.fsblock_to_daddr(volume.geometry.log_start).unwrap().bytes();
    let at = |r: &Record| start + u64::from(r.lsn.block()) * 512;
    let (oldest, newest) = (all.first().unwrap(), all.last().unwrap());
    // Every byte of the header of the oldest and of the newest record, then any byte of their data.
    let mut places: Vec<u64> = [oldest, newest].iter().flat_map(|r| (0..328).map(|i| at(r) + i)).collect();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(4);
    for _ in 0..300 {
        let r = &all[rng.random_range(0..all.len())];
        places.push(at(r) + 512 + rng.random_range(0..r.data.len() as u64));
    }
    let mut codes = BTreeMap::new();
    for place in places {
        let mut byte = [0];
        target.read_at(&mut byte, place).unwrap();
        for flip in [1, 0x80, 0xff] {
            target.write_at(&[byte[0] ^ flip], place).unwrap();
            let told = journal::read(&volume, &Control::none()).map_err(|e| e.to_string());
            target.write_at(&byte, place).unwrap();
            let told = match told {
                // A block without the cycle's number is where the head is: then the newest record was never there.
                Ok(summary) if (at(newest)..at(newest) + 8).contains(&place) => {
                    assert_eq!(summary.records, all.len() as u64 - 1);
                    continue;
                }
                Ok(summary) => panic!("byte {place} changed by {flip:#x}: {summary:?}"),
                Err(told) => told,
            };
            *codes.entry(told.split(' ').next().unwrap_or_default().to_owned()).or_insert(0u32) += 1;
        }
    }
    println!("{codes:?}");
    assert!(codes.len() > 5, "{codes:?}");
    // The check passes it on: a record in the middle cannot be torn by a crash.
    let place = at(&all[all.len() / 4]) + 700;
    let mut byte = [0];
    target.read_at(&mut byte, place).unwrap();
    let outcome = libxfsr::check::check(&volume, &Control::none()).unwrap();
    assert!(outcome.dirty_log && !outcome.is_damaged(), "{:?}", outcome.findings);
    target.write_at(&[byte[0] ^ 4], place).unwrap();
    let outcome = libxfsr::check::check(&volume, &Control::none()).unwrap();
    assert!(outcome.dirty_log && outcome.is_damaged(), "{:?}", outcome.findings);
    target.write_at(&byte, place).unwrap();
    journal::read(&volume, &Control::none()).unwrap();
}

#[test]
fn data_without_its_header_before_the_head_is_an_ordinary_crash() {
    let Some(devices) = corpus::obtain("dirty") else { return };
    let (volume, target) = scratch(&devices);
    let all = records(&volume);
    let newest = all.last().unwrap();
    let start = volume.geometry.fsblock_to_daddr(volume.geometry.log_start).unwrap().bytes();
    // The header's block keeps what the log held there, which does not start a record.
    let mut block = [0; 512];
    block[..4].copy_from_slice(&newest.lsn.cycle().to_be_bytes());
    target.write_at(&block, start + u64::from(newest.lsn.block()) * 512).unwrap();
    let told = journal::read(&volume, &Control::none()).unwrap_err().to_string();
    assert!(told.starts_with("log.head.mismatch"), "{told}");
    let outcome = libxfsr::check::check(&volume, &Control::none()).unwrap();
    assert!(outcome.dirty_log && !outcome.is_damaged(), "{:?}", outcome.findings);
}

#[test]
fn a_clean_log_of_a_big_endian_machine_is_clean() {
    let Some(devices) = corpus::obtain("default") else { return };
    let (volume, target) = scratch(&devices);
    let last = records(&volume).pop().unwrap();
    let start = volume.geometry.fsblock_to_daddr(volume.geometry.log_start).unwrap().bytes();
    target.write_at(&[0, 0, 0, 2], start + u64::from(last.lsn.block()) * 512 + 300).unwrap();
    assert!(matches!(journal::log_state(&volume, &Control::none()), Ok(LogState::Clean { .. })));
    assert!(matches!(journal::read(&volume, &Control::none()), Err(libxfsr::Error::Unsupported(_))));
    let outcome = libxfsr::check::check(&volume, &Control::none()).unwrap();
    assert!(outcome.findings.is_empty() && outcome.not_checked.is_empty(), "{:?}", outcome.findings);
}
