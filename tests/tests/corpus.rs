//! The corpus is what it claims to be: stock xfs_repair finds nothing, and the forms occur.

use std::collections::BTreeSet;

use libxfsr::volume::Volume;
use xfsr_tests::corpus::{self, End, Form, Recipe};
use xfsr_tests::oracle::{self, Devices};

fn selected(wanted: impl Fn(&Recipe) -> bool) -> impl Iterator<Item = (&'static Recipe, Devices)> {
    corpus::selected().filter(move |r| wanted(r)).filter_map(|r| Some((r, corpus::obtain(r.name)?)))
}

#[test]
fn clean_images_are_clean_to_xfs_repair() {
    for (recipe, devices) in selected(Recipe::stock_clean) {
        let verdict = oracle::xfs_repair_n(&devices, &[]).unwrap();
        assert!(verdict.clean(), "{}: {}", recipe.name, verdict.output);
    }
}

#[test]
fn dirty_images_have_a_dirty_log() {
    for (recipe, devices) in selected(|r| r.end == End::Dirty && r.incompat == 0) {
        let verdict = oracle::xfs_repair_n(&devices, &[]).unwrap();
        assert!(verdict.output.contains("valuable metadata changes in a log"), "{}: {}", recipe.name, verdict.output);
    }
}

#[test]
fn orphans_are_the_only_damage_of_the_orphan_image() {
    for (recipe, devices) in selected(|r| r.end == End::Orphans) {
        let verdict = oracle::xfs_repair_n(&devices, &[]).unwrap();
        assert!(!verdict.output.contains("in a log"), "{}: {}", recipe.name, verdict.output);
        let unlinked = verdict.output.lines().filter(|l| l.starts_with("agi unlinked bucket")).count();
        assert!(unlinked >= 64, "{}: each bucket has a list: {}", recipe.name, verdict.output);
        let orphans = |what| verdict.output.lines().filter(|l| l.starts_with(what)).count();
        assert_eq!(orphans("disconnected inode"), 160, "{}: {}", recipe.name, verdict.output);
        assert_eq!(orphans("disconnected dir inode"), 20, "{}: {}", recipe.name, verdict.output);
        assert!(!verdict.output.contains("sb_"), "{}: {}", recipe.name, verdict.output);
    }
}

#[test]
fn the_forms_occur() {
    let mut lacking = Vec::new();
    for (recipe, devices) in selected(|r| r.end != End::Dirty) {
        let volume = Volume::open(&libxfsr::volume::Devices {
            data: devices.data.clone(),
            log: devices.log.clone(),
            realtime: devices.rt.clone(),
        });
        let counts = corpus::forms::count(&volume.unwrap()).unwrap_or_else(|e| panic!("{}: {e:#}", recipe.name));
        let missing: Vec<_> =
            recipe.forms.iter().copied().flatten().filter(|f| !counts.contains_key(f)).copied().collect();
        if !missing.is_empty() {
            lacking.push(format!("{} lacks {missing:?}; it has {counts:?}", recipe.name));
        }
    }
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));
    // Too large for every run: an index of directory entries two nodes high has more than 120,000 of them.
    let full_only = BTreeSet::from([Form::DeepDirectoryIndex]);
    let promised = |wanted: &dyn Fn(&Recipe) -> bool| -> BTreeSet<Form> {
        let recipes = corpus::all().iter().filter(|r| wanted(r));
        recipes.flat_map(|r| r.forms.iter().copied().flatten()).copied().collect()
    };
    let missing: Vec<_> = promised(&|_| true).difference(&promised(&|r| r.quick)).copied().collect();
    assert_eq!(missing, Vec::from_iter(full_only), "the quick images hold every other form");
}

/// What xfs_db says of the forms, for those that can be asked for in a few commands.
#[test]
fn xfs_db_sees_the_same_forms() {
    let known = [
        Form::BtreeFork,
        Form::BtreeAttrFork,
        Form::BtreeDirectory,
        Form::DeepExtents,
        Form::SparseChunks,
        Form::DeepFreeSpace,
        Form::DeepInodes,
        Form::DeepRmap,
        Form::RmapLevel3,
        Form::DeepRefcount,
        Form::RefcountLevel3,
    ];
    for (recipe, devices) in selected(|r| r.end == End::Clean && !r.forms.is_empty()) {
        let found = forms(&devices);
        let wanted = recipe.forms.iter().copied().flatten().filter(|f| known.contains(f));
        let missing: Vec<_> = wanted.filter(|f| !found.contains(f)).collect();
        assert!(missing.is_empty(), "{} lacks {missing:?} to xfs_db, which sees {found:?}", recipe.name);
    }
}

/// The forms that xfs_db sees in an image.
fn forms(devices: &Devices) -> BTreeSet<Form> {
    let mut found = BTreeSet::new();
    let mut add = |form: Form| found.insert(form);
    let ags = number(&oracle::xfs_db(devices, &["sb 0", "print agcount"]).unwrap());
    for ag in 0..ags {
        let headers = oracle::xfs_db(
            devices,
            &[
                format!("agf {ag}"),
                "print bnolevel cntlevel rmaplevel refcntlevel".to_owned(),
                format!("agi {ag}"),
                "print level".to_owned(),
            ],
        );
        if sparse_chunks(devices, ag) {
            add(Form::SparseChunks);
        }
        for line in headers.unwrap().lines() {
            match line.split_once(" = ") {
                Some(("bnolevel", n)) if number(n) > 1 => _ = add(Form::DeepFreeSpace),
                Some(("rmaplevel", n)) if number(n) > 1 => {
                    add(Form::DeepRmap);
                    if number(n) > 2 {
                        add(Form::RmapLevel3);
                    }
                }
                Some(("refcntlevel", n)) if number(n) > 1 => {
                    add(Form::DeepRefcount);
                    if number(n) > 2 {
                        add(Form::RefcountLevel3);
                    }
                }
                Some(("level", n)) if number(n) > 1 => _ = add(Form::DeepInodes),
                _ => {}
            }
        }
    }
    let manifest = devices.data.to_string_lossy().replace(".img", ".manifest.jsonl");
    let manifest = corpus::manifest::parse(&std::fs::read_to_string(manifest).unwrap()).unwrap();
    let inodes: BTreeSet<u64> =
        manifest.iter().filter(|e| e.kind == "dir" || e.kind == "file").map(|e| e.ino).collect();
    let directories: BTreeSet<u64> = manifest.iter().filter(|e| e.kind == "dir").map(|e| e.ino).collect();
    for chunk in inodes.iter().collect::<Vec<_>>().chunks(500) {
        let mut commands = Vec::new();
        for ino in chunk {
            commands.push(format!("inode {ino}"));
            commands.extend(["print core.format core.aformat".to_owned(), "print u3.bmbt.level".to_owned()]);
        }
        let text = oracle::xfs_db(devices, &commands).unwrap();
        let mut numbers = chunk.iter();
        let mut ino = 0;
        for line in text.lines() {
            match line.split_once(" = ") {
                Some(("core.format", format)) => {
                    ino = **numbers.next().unwrap();
                    if format.starts_with("3 ") {
                        add(Form::BtreeFork);
                        if directories.contains(&ino) {
                            add(Form::BtreeDirectory);
                        }
                    }
                }
                Some(("core.aformat", format)) if format.starts_with("3 ") => _ = add(Form::BtreeAttrFork),
                Some(("u3.bmbt.level", n)) if number(n) > 1 => _ = add(Form::DeepExtents),
                _ => {}
            }
        }
        assert_eq!(numbers.next(), None, "xfs_db told nothing of an inode after {ino}");
    }
    found
}

/// Whether an inode record of this AG has a hole mask.
fn sparse_chunks(devices: &Devices, ag: u64) -> bool {
    let root = [format!("agi {ag}"), "addr root".to_owned()];
    let at = |more: &[String]| oracle::xfs_db(devices, &[&root[..], more].concat()).unwrap();
    let header = at(&["print level".to_owned(), "print numrecs".to_owned()]);
    let mut numbers = header.lines().map(number);
    let mut commands = vec!["print recs".to_owned()];
    let (level, count) = (numbers.next().unwrap(), numbers.next().unwrap());
    assert!(level < 2, "the test reads two levels");
    if level == 1 {
        let leaf = |i| [format!("agi {ag}"), "addr root".into(), format!("addr ptrs[{i}]"), "print recs".into()];
        commands = (1..=count).flat_map(leaf).collect();
    }
    let text = at(&commands);
    if !text.contains("holemask") {
        return false;
    }
    // `1:[startino,holemask,count,...]`
    let records = text.lines().filter_map(|l| l.split_once(":[")).map(|(_, r)| r.split(',').nth(1) != Some("0"));
    records.into_iter().any(|holes| holes)
}

fn number(text: &str) -> u64 {
    text.rsplit(' ').next().unwrap_or_default().trim().parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

#[test]
fn the_guest_makes_quota_realtime_and_case_folding() {
    for (recipe, devices) in selected(|r| r.guest && r.end == End::Clean) {
        let sb = oracle::xfs_db(&devices, &["sb 0", "print uquotino gquotino pquotino rextents versionnum"]).unwrap();
        let value = |field: &str| {
            let line = sb.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(" = ")).unwrap();
            line.to_owned()
        };
        let entries = corpus::manifest(recipe.name);
        assert!(entries.len() > 10, "{}: {} entries", recipe.name, entries.len());
        match recipe.name {
            "quota" => assert!(["uquotino", "gquotino", "pquotino"].iter().all(|f| number(&value(f)) > 100), "{sb}"),
            "realtime" => assert!(number(&value("rextents")) > 1000, "{sb}"),
            "ascii-ci" => assert!(u32::from_str_radix(&value("versionnum")[2..], 16).unwrap() & 0x4000 != 0, "{sb}"),
            other => panic!("what must {other} have?"),
        }
    }
}
