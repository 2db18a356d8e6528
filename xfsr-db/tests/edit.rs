//! Writing in expert mode: the same bytes as xfs_db 6.1 writes, refusals, and label and UUID as the kernel and xfs_repair take them.

mod common;

use common::{Run, command};
use libxfsr::check::{Verdict, check};
use libxfsr::control::Control;
use libxfsr::engine::identity::{NewUuid, set_uuid};
use libxfsr::target::{Access, FileTarget, Recorder, Target};
use libxfsr::volume::Volume;
use std::path::Path;
use std::sync::Arc;
use xfsr_tests::corpus;
use xfsr_tests::damage::{Checksum, Workbench, cases, places, sample, stale_cases_of};
use xfsr_tests::oracle::{MOUNT, Mount, mkfs_xfs, require, xfs_db, xfs_db_write, xfs_repair_n};

/// Runs commands in xfsr-db with some options.
fn ours(options: &[&str], image: &Path, commands: &[impl AsRef<str>]) -> Run {
    let mut all: Vec<std::ffi::OsString> = options.iter().map(Into::into).collect();
    for c in commands {
        all.extend(["-c".into(), c.as_ref().into()]);
    }
    all.push(image.into());
    command(&all).output().expect("xfsr-db starts").into()
}

#[test]
fn fields_are_changed_as_by_xfs_db() {
    let full = std::env::var_os("XFSR_FULL").is_some();
    for (image, count) in [("default", 60), ("rmap-1k", 50), ("b1k-n8k", 20)] {
        let Some(devices) = corpus::obtain(image) else { return };
        let manifest = corpus::manifest(image);
        let bench = Workbench::new(image).expect("a copy");
        let all = cases(&devices, &manifest).expect("cases");
        let stale = stale_cases_of(&devices, &places(&devices, &manifest).expect("places")).expect("cases");
        let (count, stale_count) = if full { (all.len() / 4, stale.len() / 20) } else { (count, 8) };
        let mut changed = 0;
        for case in sample(&all, count, 11).iter().chain(&sample(&stale, stale_count, 12)) {
            let patch = bench.patch(case).expect("xfs_db");
            let flag = if case.checksum == Checksum::Right { "-d" } else { "-c" };
            let mut commands = case.place.commands.clone();
            commands.push(format!("fuzz {flag} {} {}", case.field, case.verb));
            let run = ours(&["-x"], &bench.devices().data, &commands);
            assert!(patch.is_applied(bench.file()).expect("a file"), "{case}: {}{}", run.text(), run.err);
            // A verb that a field does not have is an error of both.
            assert!(run.code == 0 || patch.is_empty(), "{case}: {}", run.err);
            changed += usize::from(!patch.is_empty());
            patch.undo(bench.file()).expect("a file");
        }
        // Nothing was written beside.
        assert!(bench.is_pristine().expect("a copy"), "{image}");
        assert!(changed > count * 3 / 4, "{changed} of {count}");
    }
}

/// An empty filesystem of mkfs.xfs.
fn fresh(directory: &Path, name: &str) -> std::path::PathBuf {
    let path = directory.join(name);
    std::fs::File::create(&path).and_then(|f| f.set_len(300 << 20)).expect("a file");
    mkfs_xfs(&["-L", "before", "-m", "uuid=6c3a0f1e-51d7-4c2b-9a55-3f7c9be1d001"], path.as_path()).expect("mkfs.xfs");
    path
}

#[test]
fn values_data_and_checksums_are_written_as_by_xfs_db() {
    let Some(_) = require(MOUNT) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let groups: &[&[&str]] = &[
        &[
            "sb 0",
            "write fname \"hello\"",
            "write icount 0x40",
            "write uuid 12345678-1234-1234-1234-123456789abc",
            "write sectlog 011",
        ],
        &["sb 1", "write fname #616263", "crc -i"],
        &["sb 2", "crc -i", "crc -r"],
        &["agf 1", "write -d flcount 9", "write -c longest 7", "write -d bnoroot 0xffffffff"],
        &[
            "inode 128",
            "write core.mode 040700",
            "write -d v3.reflink 1",
            "write core.uid 0x12345",
            "write u3.sfdir3.hdr.parent.i4 77",
        ],
        &["agi 0", "write -d unlinked[3] 5"],
        &["fsblock 1", "type bnobt", "write -d recs[1].startblock 33"],
        &[
            "fsblock 2000",
            "write fill 3 10 200",
            "write fill 0xa5 40 7",
            "write lshift 5",
            "write rrot 3 8 100",
            "write fill 7 16 32",
            "write lrot 2",
            "write rshift 9 4 60",
        ],
    ];
    for (i, commands) in groups.iter().enumerate() {
        let (a, b) = (fresh(directory.path(), "stock"), directory.path().join("ours"));
        std::fs::copy(&a, &b).expect("a copy");
        xfs_db_write(a.as_path(), commands).expect("xfs_db");
        let run = ours(&["-x"], &b, commands);
        assert_eq!(run.code, 0, "{commands:?}: {}", run.err);
        let bytes = |p: &Path| std::fs::read(p).expect("an image");
        let (stock, ours) = (bytes(&a), bytes(&b));
        let differ = stock.iter().zip(&ours).position(|(a, b)| a != b);
        assert_eq!(differ, None, "group {i}: {commands:?}");
    }
}

#[test]
fn without_x_nothing_is_written_and_rules_and_values_are_checked() {
    let Some(_) = require(MOUNT) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let image = fresh(directory.path(), "image");
    let before = std::fs::read(&image).expect("an image");
    let writes = ["write icount 1", "fuzz icount add", "crc -r", "crc -i", "blocktrash -z", "label x", "uuid generate"];
    for w in writes {
        let run = ours(&[], &image, &["sb 0", w]);
        assert!(run.code == 1 && run.err.contains("-x"), "{w}: {}", run.err);
    }
    for (commands, says) in [
        (["sb 0", "write nosuch 3"], "nosuch not found"),
        (["sb 0", "write icount abc"], "unable to convert"),
        (["agf 0", "write flcount 4294967296"], "32 bits"),
        (["agf 0", "write flcount -2147483649"], "32 bits"),
        (["agf 0", "write length 7"], "not written"),
        (["agf 0", "fuzz uuid add"], "no number"),
        (["agf 0", "fuzz flcount burn"], "unknown fuzz command"),
        (["sb 0", "write fname abcdefghijklm"], "13 bytes"),
        (["inode 128", "write core 4"], "name one"),
        (["fsblock 9", "write sequence 9 3"], "sequence from 9"),
        (["fsblock 9", "write shift"], "write takes"),
        (["sb 0", "blocktrash"], "-z"),
        (["sb 0", "uuid zzz"], "invalid UUID"),
        (["sb 0", "label averyverylonglabel"], "at most 12"),
    ] {
        let run = ours(&["-x"], &image, &commands);
        assert!(run.code == 1 && run.err.contains(says), "{commands:?}: {}{}", run.text(), run.err);
    }
    assert!(std::fs::read(&image).expect("an image") == before);
    let mount = Mount::new(image.as_path(), "").expect("a mount");
    let run = ours(&["-x"], &image, &["sb 0", "write icount 1"]);
    assert!(run.code == 1 && run.err.contains("in use"), "{}", run.err);
    mount.shutdown_now().expect("a shutdown");
    mount.unmount().expect("unmounted");
    let run = ours(&["-x", "-r"], &image, &["sb 0", "write icount 1"]);
    assert_eq!(run.code, 1);
}

#[test]
fn blocktrash_changes_what_it_says_and_the_same_with_the_same_seed() {
    let Some(_) = require(MOUNT) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let image = fresh(directory.path(), "image");
    let before = std::fs::read(&image).expect("an image");
    let trash = |mode: &str| {
        std::fs::write(&image, &before).expect("an image");
        let run = ours(&["-x"], &image, &["agf 1", &format!("blocktrash -z -n 3 -x 8 -y 64 -s 5 {mode}")]);
        assert!(run.code == 0 && run.text().matches("blocktrash: daddr").count() == 3, "{}{}", run.text(), run.err);
        std::fs::read(&image).expect("an image")
    };
    let at = (300 << 20) / 4 + 512;
    for mode in ["-0", "-1", "-2", "-3"] {
        let after = trash(mode);
        assert!(after == trash(mode));
        let changed: Vec<usize> = (0..before.len()).filter(|i| before[*i] != after[*i]).collect();
        assert!(mode == "-0" || !changed.is_empty(), "{mode}");
        assert!(changed.iter().all(|i| (at..at + 512).contains(i)), "{changed:?}");
        let risen = changed.iter().any(|i| after[*i] & !before[*i] != 0);
        let fallen = changed.iter().any(|i| before[*i] & !after[*i] != 0);
        assert!(!(mode == "-0" && risen || mode == "-1" && fallen), "{mode}");
    }
}

#[test]
fn label_and_uuid_are_those_that_the_kernel_and_xfs_repair_see() {
    let Some(_) = require(MOUNT) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let image = fresh(directory.path(), "image");
    let path = image.as_path();
    let clean = |what: &str, uuid: &str, label: &str| {
        let v = xfs_repair_n(path, &[]).expect("xfs_repair");
        assert!(v.clean(), "{what}: {}", v.output);
        let volume = Volume::open(&libxfsr::volume::Devices::data(path)).expect("a filesystem");
        assert_eq!(check(&volume, &Control::none()).expect("a check").verdict(), Verdict::Clean, "{what}");
        drop(volume);
        let said = xfs_db(path, &["uuid", "label", "version"]).expect("xfs_db");
        assert!(said.contains(uuid) && said.contains(&format!("\"{label}\"")), "{what}: {said}");
        let mount = Mount::new(path, "").expect("the kernel mounts it");
        std::fs::write(mount.path().join(what), what).expect("a file");
        mount.unmount().expect("unmounted");
        said.contains("META_UUID")
    };
    let (first, second) = ("6c3a0f1e-51d7-4c2b-9a55-3f7c9be1d001", "12345678-1234-1234-1234-123456789abc");
    let run = |command: &str| {
        let r = ours(&["-x"], path, &[command]);
        assert_eq!(r.code, 0, "{command}: {}", r.err);
        r.text()
    };
    assert!(!clean("a", first, "before"));
    run("label after");
    assert!(!clean("b", first, "after"));
    run(&format!("uuid {second}"));
    assert!(clean("c", second, "after"));
    let new = run("uuid generate");
    let new = new.split("new UUID = ").nth(1).expect("a UUID").trim().to_owned();
    assert!(clean("d", &new, "after"));
    // A copy that says otherwise.
    xfs_db_write(path, &["sb 1", "write -d uuid 00000000-1111-2222-3333-444444444444"]).expect("xfs_db");
    run("uuid rewrite");
    assert!(clean("e", &new, "after"));
    run("uuid restore");
    assert!(!clean("f", first, "after"));
    run("label --");
    assert!(!clean("g", first, ""));
    // A log that must be replayed first.
    let mount = Mount::new(path, "").expect("a mount");
    std::fs::write(mount.path().join("late"), "late").expect("a file");
    mount.shutdown().expect("a shutdown");
    mount.unmount().expect("unmounted");
    let r = ours(&["-x"], path, &[format!("uuid {second}")]);
    assert!(r.code == 1 && r.err.contains("replay"), "{}", r.err);
}

#[test]
fn a_crash_while_the_uuid_changes_leaves_what_can_be_mounted_and_begun_anew() {
    let Some(_) = require(MOUNT) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let image = fresh(directory.path(), "image");
    // A log that was in use.
    let mount = Mount::new(image.as_path(), "").expect("a mount");
    std::fs::write(mount.path().join("file"), "contents").expect("a file");
    mount.unmount().expect("unmounted");
    let below = Arc::new(FileTarget::open(&image, Access::Read).expect("an image"));
    let recorder = Arc::new(Recorder::new(below).expect("memory"));
    let open = |t: Arc<dyn Target>| Volume::from_targets(t, None, None, 4 << 20).expect("a filesystem");
    set_uuid(&mut open(recorder.clone()), NewUuid::Set([7; 16]), &Control::none()).expect("a new UUID");
    let last = recorder.events().last().map_or(0, |e| e.time + 1);
    assert!(last > 8, "{last} writes");
    for time in 0..=last {
        let crashed = Arc::new(recorder.crash(time, &mut |_| true).expect("memory"));
        let copy = directory.path().join("crashed");
        std::fs::copy(&image, &copy).expect("a copy");
        let target = FileTarget::open(&copy, Access::Write).expect("a copy");
        for (offset, length) in crashed.changed() {
            let mut bytes = vec![0; length as usize];
            crashed.read_at(&mut bytes, offset).expect("memory");
            target.write_at(&bytes, offset).expect("a file");
        }
        drop(target);
        let mount = Mount::new(copy.as_path(), "").unwrap_or_else(|e| panic!("crashed at {time}: {e:#}"));
        assert_eq!(std::fs::read(mount.path().join("file")).expect("a file"), b"contents");
        mount.unmount().expect("unmounted");
        // Begun anew it ends as it should have.
        let mut volume = open(crashed.clone());
        set_uuid(&mut volume, NewUuid::Set([7; 16]), &Control::none())
            .unwrap_or_else(|e| panic!("crashed at {time}: {e}"));
        let volume = open(crashed);
        assert_eq!(volume.geometry.uuid, [7; 16]);
        assert_eq!(check(&volume, &Control::none()).expect("a check").verdict(), Verdict::Clean, "crashed at {time}");
    }
}
