//! The damage generator damages: what it changes is changed on disk, with a right CRC, and can be taken back.

use std::collections::BTreeMap;

use xfsr_tests::damage::{self, Blow, Workbench};
use xfsr_tests::{corpus, oracle};

#[test]
fn xfs_repair_calls_most_field_damage_damage() {
    let Some(devices) = corpus::obtain("rmap-1k") else { return };
    let manifest = corpus::manifest("rmap-1k");
    let all = damage::cases(&devices, &manifest).unwrap();
    let mut structures: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &all {
        *structures.entry(&case.place.structure).or_default() += 1;
    }
    println!("{} cases in {structures:?}", all.len());
    for wanted in ["sb", "agf", "agi", "agfl", "bnobt node", "bnobt leaf", "cntbt leaf", "inobt leaf", "rmapbt leaf"] {
        assert!(structures.contains_key(wanted), "no case of {wanted}");
    }
    for wanted in ["bmbt leaf", "bmbt attr leaf", "dir block", "dir data", "dir leafn", "da node", "attr leaf (attr)"] {
        assert!(structures.contains_key(wanted), "no case of {wanted}");
    }
    let bench = Workbench::new("rmap-1k").unwrap();
    let (mut tried, mut found) = (0, 0);
    for case in damage::sample(&all, 60, 7) {
        let patch = bench.patch(&case).unwrap();
        if patch.is_empty() {
            continue;
        }
        patch.apply(bench.file()).unwrap();
        let verdict = oracle::xfs_repair_n(bench.devices(), &[]).unwrap();
        patch.undo(bench.file()).unwrap();
        tried += 1;
        found += usize::from(!verdict.clean());
    }
    println!("xfs_repair -n found {found} of {tried}");
    assert!(tried >= 30, "only {tried} of 60 cases change something");
    assert!(found * 3 >= tried, "xfs_repair -n found {found} of {tried}");
    let verdict = oracle::xfs_repair_n(bench.devices(), &[]).unwrap();
    assert!(verdict.clean(), "a case was not taken back: {}", verdict.output);
}

#[test]
fn blows_to_blocks_are_damage() {
    if corpus::obtain("default").is_none() {
        return;
    }
    let bench = Workbench::new("default").unwrap();
    let blocks = bench.blocks().unwrap();
    let leaf = blocks.iter().position(|b| b.name == "dir data").expect("no directory data block");
    for blow in [Blow::Zero, Blow::Noise, Blow::SealedNoise, Blow::Swap] {
        let patch = bench.blow(&blocks, leaf, blow, 1).unwrap();
        assert!(!patch.is_empty());
        patch.apply(bench.file()).unwrap();
        let verdict = oracle::xfs_repair_n(bench.devices(), &[]).unwrap();
        assert!(!verdict.clean(), "{blow:?} of {:?} went unnoticed", blocks[leaf]);
        bench.restore().unwrap();
    }
    assert!(oracle::xfs_repair_n(bench.devices(), &[]).unwrap().clean());
}
