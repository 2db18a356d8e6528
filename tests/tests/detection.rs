//! Damage to single fields: whatever `xfs_repair -n` calls damaged, the library's check calls damaged.
//!
//! Here a seeded sample, and cases that once were missed; the whole matrix is run by `xfsr-damage` (see CONTRIBUTING.md).
//! `XFSR_DAMAGE_CASES` sets how many cases are drawn from each image, `XFSR_DAMAGE_SEED` which.

use libxfsr::check::Verdict;
use libxfsr::error::Rule;
use xfsr_tests::damage::{self, Case, Checksum, Ours, Patch, Place, VALID, Workbench, matrix};
use xfsr_tests::{corpus, knob, oracle};

fn try_cases(image: &str, cases: &[Case]) -> Vec<matrix::Verdict> {
    let verdicts = matrix::run(image, cases, matrix::Ask::All, 2, &|_| ()).unwrap();
    let panics: Vec<String> = verdicts.iter().filter(|v| v.panicked).map(|v| v.case.to_string()).collect();
    assert!(panics.is_empty(), "{image}: the check panicked:\n{panics:#?}");
    verdicts
}

fn missed<'a>(image: &str, verdicts: impl IntoIterator<Item = &'a matrix::Verdict>) -> Vec<String> {
    let missed = verdicts.into_iter().filter(|v| v.is_missed());
    missed.map(|v| format!("{image}: {}", v.case)).collect()
}

#[test]
fn what_the_stock_tool_finds_is_found() {
    let (mut whole, mut alone) = (Vec::new(), Vec::new());
    for image in ["rmap-1k", "default"] {
        let Some(devices) = corpus::obtain(image) else { continue };
        let places = damage::places(&devices, &corpus::manifest(image)).unwrap();
        let count = usize::try_from(knob("XFSR_DAMAGE_CASES", 60)).unwrap();
        let seed = knob("XFSR_DAMAGE_SEED", 11);
        let draw = |all: Vec<Case>| damage::sample(&all, count.min(all.len()), seed);
        let mut cases = draw(damage::cases_of(&devices, &places).unwrap());
        cases.extend(draw(damage::stale_cases_of(&devices, &places).unwrap()));
        let verdicts = try_cases(image, &cases);
        assert!(verdicts.len() * 3 > cases.len(), "{} of {} cases change something", verdicts.len(), cases.len());
        alone.extend(missed(image, &verdicts));
        whole.extend(verdicts);
    }
    println!("{}", matrix::table("structure", &matrix::rows(&whole)));
    assert!(alone.is_empty(), "found by xfs_repair -n alone, of {}:\n{alone:#?}", whole.len());
}

#[test]
fn another_valid_number_is_found() {
    for image in ["rmap-1k", "quota", "realtime"] {
        let Some(devices) = corpus::obtain(image) else { continue };
        let manifest = corpus::manifest(image);
        let places = damage::places(&devices, &manifest).unwrap();
        let all = damage::valid_cases_of(&devices, &manifest, &places).unwrap();
        assert!(all.len() > 100, "{image} has only {} cases", all.len());
        let cases = damage::sample(&all, 60, knob("XFSR_DAMAGE_SEED", 11));
        let verdicts = try_cases(image, &cases);
        let alone = missed(image, &verdicts);
        assert!(alone.is_empty(), "found by xfs_repair -n alone:\n{alone:#?}");
        let found = verdicts.iter().filter(|v| v.ours).count();
        assert!(found * 2 > verdicts.len(), "{image}: found {found} of {}", verdicts.len());
    }
}

/// Cases that xfs_repair found and the library once did not: structure (or how its name begins), end of the field's name, verb.
const ONCE_MISSED: &[(&str, &str, &str)] = &[
    ("sb", "frextents", "add"),
    ("sb secondary", "frextents", "add"),
    ("sb secondary", "qflags", "lastbit"),
    ("sb secondary", "unit", "add"),
    ("sb secondary", "width", "lastbit"),
    ("attr leaf", "hdr.freemap[0].size", "sub"),
    ("inode of rbmino", "core.size", "lastbit"),
    ("inode of rsumino", "core.size", "add"),
    ("inode free", "core.realtime", "lastbit"),
    ("inode free", "core.newrtbm", "lastbit"),
    ("inode free", "v3.flags2", "middlebit"),
    ("inode fifo", "next_unlinked", "add"),
    ("inode dir", "next_unlinked", "add"),
    ("inode file extents", "u3.bmx[0].startoff", "firstbit"),
    ("bmbt leaf", ".startoff", "firstbit"),
    ("inode file extents, attr local", "a.sfattr.list[0].value", "firstbit"),
    ("inode dir extents", "u3.bmx[0].startoff", "ones"),
    ("inode symlink extents", "u3.bmx[0].startoff", "lastbit"),
    ("inode symlink local", "u3.symlink", "zeroes"),
    ("attr leaf", "hdr.firstused", "middlebit"),
    ("attr leaf", "hdr.freemap[1].base", "lastbit"),
    ("attr leaf", "entries[0].incomplete", "lastbit"),
    ("attr leaf", "nvlist[0].value", "firstbit"),
    ("dir data", "du[0].filetype", "lastbit"),
    ("dir block", "bu[0].filetype", "zeroes"),
];

/// The same of images whose places the others do not have.
const ONCE_MISSED_ON: &[(&str, &str, &str, &str)] = &[
    ("quota", "inode never used", "core.forkoff", "lastbit"),
    ("quota", "agf", "lsn", "add"),
    ("quota", "dir block", "bhdr.hdr.lsn", "add"),
];

#[test]
fn what_was_missed_once_on_one_image_is_found() {
    for (image, structure, field, verb) in ONCE_MISSED_ON {
        let Some(devices) = corpus::obtain(image) else { continue };
        let all = damage::cases(&devices, &corpus::manifest(image)).unwrap();
        let fits = |c: &&Case| c.place.structure == *structure && c.field == *field && c.verb == *verb;
        let case = all.iter().find(fits).unwrap_or_else(|| panic!("{image} has no {structure} {field}"));
        let verdicts = try_cases(image, std::slice::from_ref(case));
        assert!(verdicts.iter().all(|v| v.ours && v.stock_damaged() == Some(true)), "{verdicts:?}");
        assert_eq!(verdicts.len(), 1);
    }
}

#[test]
fn what_was_missed_once_is_found() {
    for image in ["rmap-1k", "default"] {
        let Some(devices) = corpus::obtain(image) else { continue };
        let all = damage::cases(&devices, &corpus::manifest(image)).unwrap();
        let wanted = |(structure, field, verb): &(&str, &str, &str)| {
            let fits =
                |c: &&Case| c.place.structure.starts_with(structure) && c.field.ends_with(field) && c.verb == *verb;
            all.iter().find(fits).cloned()
        };
        let cases: Vec<Case> = ONCE_MISSED.iter().filter_map(wanted).collect();
        assert!(cases.len() + 3 >= ONCE_MISSED.len(), "{image} has only {} of these cases", cases.len());
        let verdicts = try_cases(image, &cases);
        let alone = missed(image, &verdicts);
        assert!(alone.is_empty(), "found by xfs_repair -n alone:\n{alone:#?}");
        let both = verdicts.iter().filter(|v| v.stock_damaged() == Some(true) && v.ours).count();
        assert!(both * 2 > verdicts.len(), "{image}: only {both} of {} are damage", verdicts.len());
    }
}

#[test]
fn a_pointer_out_of_its_group_is_no_owner_of_blocks_there() {
    let Some(devices) = corpus::obtain("rmap-1k") else { return };
    let (bench, ours) = (Workbench::new("rmap-1k").unwrap(), Ours::open(&devices).unwrap());
    for (tree, root, level) in [("bnobt", "bnoroot", "bnolevel"), ("rmapbt", "rmaproot", "rmaplevel")] {
        let high = |ag: &u32| {
            let text = oracle::xfs_db(&devices, &[format!("agf {ag}"), format!("print {level}")]).unwrap();
            text.trim() != format!("{level} = 1")
        };
        let ag = (0..4).find(high).unwrap_or_else(|| panic!("no {tree} has a node"));
        let commands = vec![format!("agf {ag}"), format!("addr {root}")];
        let place = Place { structure: format!("{tree} node"), commands };
        let (value, checksum) = (Some(0xffff_fff0), Checksum::Right);
        let case = Case { place, field: "ptrs[2]".to_owned(), verb: VALID, value, checksum };
        let patch = bench.patch(&case).unwrap();
        assert!(!patch.is_empty(), "{case} changes nothing");
        let outcome = ours.check(&patch).unwrap().outcome.expect("an outcome");
        assert_eq!(outcome.verdict(), Verdict::Damaged, "{case}");
        assert!(outcome.findings.iter().any(|f| f.structure == tree), "{case}: {outcome}");
        for f in outcome.findings.iter().filter(|f| f.rule == Rule::Unowned) {
            // `12 blocks that nothing owns`: the AGs have 75 MiB in blocks of 1 KiB.
            let count = f.found.split(' ').next().and_then(|n| n.parse::<u64>().ok());
            assert!(count.is_some_and(|n| n < 76_800) && f.at.agbno.is_some_and(|b| b.0 < 76_800), "{case}: {f}");
        }
    }
}

#[test]
fn a_free_index_block_that_is_missing_before_another_is_found() {
    if corpus::obtain("plain").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let devices = corpus::copy("plain", dir.path());
    let big = corpus::manifest("plain").into_iter().filter(|e| e.kind == "dir").max_by_key(|e| e.size).unwrap();
    let number = |commands: &[String], field: &str| -> u64 {
        let text = oracle::xfs_db(&devices, &[commands, &[format!("print {field}")]].concat()).unwrap();
        let value = text.lines().find_map(|l| l.strip_prefix(field)?.trim().strip_prefix("= "));
        value.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("no {field} in {text}"))
    };
    // The last leaf of its extent map, where the free index stands last.
    let mut leaf = vec![format!("inode {}", big.ino)];
    assert_eq!(number(&leaf, "u3.bmbt.level"), 1);
    let last = number(&leaf, "u3.bmbt.numrecs");
    leaf.push(format!("addr u3.bmbt.ptrs[{last}]"));
    let last = number(&leaf, "numrecs");
    let field = |back: u64, what: &str| format!("recs[{}].{what}", last - back);
    // 64 GiB in blocks of 4 KiB.
    const FREE: u64 = 16 << 20;
    let (first, second) = (number(&leaf, &field(1, "startblock")), number(&leaf, &field(0, "startblock")));
    assert_eq!((number(&leaf, &field(1, "startoff")), number(&leaf, &field(0, "startoff"))), (FREE, FREE + 1));
    // The second stays where it is; the first moves behind it.
    for (what, value) in [
        (field(1, "startoff"), FREE + 1),
        (field(1, "startblock"), second),
        (field(0, "startoff"), FREE + 2),
        (field(0, "startblock"), first),
    ] {
        leaf.push(format!("write -d {what} {value}"));
    }
    oracle::xfs_db_write(&devices, &leaf).unwrap();
    let found = Ours::open(&devices).unwrap().check(&Patch::default()).unwrap();
    let told = |f: &&libxfsr::error::Corruption| {
        (f.code().as_str(), f.at.ino.map(|i| i.0)) == ("directory.free.missing", Some(big.ino))
    };
    let told = found.damages().find(told).unwrap_or_else(|| panic!("{:?}", found.outcome)).to_string();
    assert!(told.contains("from 0"), "{told}");
}
