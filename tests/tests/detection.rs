//! Damage to single fields: whatever `xfs_repair -n` calls damaged, the library's check calls damaged.
//!
//! `XFSR_DAMAGE_CASES` sets how many cases are drawn from each image (all of them with a large number), `XFSR_DAMAGE_SEED` which.

use std::collections::BTreeMap;

use libxfsr::check;
use libxfsr::control::Control;
use libxfsr::volume::{Devices, Volume};
use xfsr_tests::damage::{self, Workbench};
use xfsr_tests::{corpus, oracle};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn ours(devices: &oracle::Devices) -> bool {
    let devices = Devices { data: devices.data.clone(), log: devices.log.clone(), realtime: devices.rt.clone() };
    // A filesystem that cannot be opened is damaged too.
    let Ok(volume) = Volume::open(&devices) else { return true };
    let outcome = check::check(&volume, &Control::none()).unwrap();
    outcome.is_damaged() || outcome.dirty_log
}

#[derive(Default)]
struct Row {
    both: usize,
    ours: usize,
    neither: usize,
    missed: Vec<String>,
}

#[test]
fn what_the_stock_tool_finds_is_found() {
    let mut table: BTreeMap<String, Row> = BTreeMap::new();
    let mut tried = 0;
    for image in ["rmap-1k", "default"] {
        let Some(devices) = corpus::obtain(image) else { continue };
        let all = damage::cases(&devices, &corpus::manifest(image)).unwrap();
        let bench = Workbench::new(image).unwrap();
        let count = usize::try_from(number("XFSR_DAMAGE_CASES", 60)).unwrap();
        for case in damage::sample(&all, count.min(all.len()), number("XFSR_DAMAGE_SEED", 11)) {
            let patch = bench.patch(&case).unwrap();
            if patch.is_empty() {
                continue;
            }
            tried += 1;
            patch.apply(bench.file()).unwrap();
            let stock = !oracle::xfs_repair_n(bench.devices(), &[]).unwrap().clean();
            let seen = ours(bench.devices());
            patch.undo(bench.file()).unwrap();
            let row = table.entry(case.place.structure.clone()).or_default();
            match (stock, seen) {
                (true, true) => row.both += 1,
                (false, true) => row.ours += 1,
                (false, false) => row.neither += 1,
                (true, false) => row.missed.push(format!("{image}: {case}")),
            }
        }
        assert!(!ours(bench.devices()), "a case was not taken back");
    }
    println!("{:24} {:>5} {:>9} {:>8} {:>6}", "structure", "both", "only ours", "neither", "missed");
    for (name, r) in &table {
        println!("{name:24} {:5} {:9} {:8} {:6}", r.both, r.ours, r.neither, r.missed.len());
    }
    let missed: Vec<&String> = table.values().flat_map(|r| &r.missed).collect();
    assert!(missed.is_empty(), "found by xfs_repair -n alone, of {tried}:\n{missed:#?}");
}
