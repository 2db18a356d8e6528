//! `xfsr-repair -n` on filesystems that the kernel wrote: clean ones, damaged ones, ones with a dirty log.

use std::ffi::OsString;
use std::os::unix::fs::FileExt;
use std::path::Path;
use xfsr_tests::corpus::{self, Change, End};
use xfsr_tests::oracle::{self, Devices, Verdict};

fn check(devices: &Devices, extra: &[&str]) -> Verdict {
    let mut args: Vec<OsString> = ["-n"].iter().chain(extra).map(OsString::from).collect();
    args.extend(devices.arguments());
    args.push(devices.data.clone().into());
    oracle::verdict(env!("CARGO_BIN_EXE_xfsr-repair"), &args).unwrap()
}

fn code(finding: &serde_json::Value) -> String {
    ["structure", "field", "rule"].map(|part| finding[part].as_str().unwrap()).join(".")
}

#[test]
fn nothing_is_found_on_clean_images_and_dirty_logs_are_told() {
    let mut seen = 0;
    for recipe in corpus::selected() {
        let Some(devices) = corpus::obtain(recipe.name) else { continue };
        let v = check(&devices, &["--json"]);
        // What is said on standard error comes behind it.
        let mut documents = serde_json::Deserializer::from_str(&v.output).into_iter::<serde_json::Value>();
        let report = documents.next().unwrap().unwrap();
        let codes: Vec<String> = report["findings"].as_array().unwrap().iter().map(code).collect();
        let (verdict, status, expected) = match recipe.end {
            // Its copies of the superblock have the old numbers, which is told and no damage.
            End::Changed(Change::Restriped) => ("clean", 0, Some("sb.unit.mismatch sb.width.mismatch")),
            End::Clean | End::Changed(_) => ("clean", 0, None),
            End::Orphans => ("clean", 0, Some("agi.unlinked.extra")),
            // As it is after recovery. Like Linux's that leaves attributes that were being set, where there are any.
            End::Dirty if codes.iter().any(|c| c == "xattr.flags.flags") => ("damaged", 1, None),
            End::Dirty => ("clean", 0, None),
        };
        assert_eq!((report["verdict"].as_str(), v.code), (Some(verdict), status), "{}:\n{}", recipe.name, v.output);
        let preened = recipe.end == End::Changed(Change::Restriped);
        assert_eq!(report["totals"]["preen"] != 0, preened, "{}: {}", recipe.name, v.output);
        if recipe.end == End::Dirty {
            let said = check(&devices, &[]).output;
            assert!(said.contains("the log is dirty: what is seen is as it is after its recovery"), "{said}");
            assert!(codes.iter().all(|c| c == "xattr.flags.flags"), "{}: {codes:?}", recipe.name);
        } else {
            assert_eq!(report["not_checked"].as_array().map(Vec::len), Some(0), "{}: {}", recipe.name, v.output);
            assert!(
                codes.iter().all(|c| expected.is_some_and(|e| e.split(' ').any(|e| e == c))),
                "{}: {codes:?}",
                recipe.name
            );
            assert_eq!(codes.is_empty(), expected.is_none(), "{}", recipe.name);
        }
        seen += 1;
    }
    assert!(seen > 0 || std::env::var_os("XFSR_REQUIRE_ORACLES").is_none(), "no image was checked");
}

#[test]
fn the_report_is_json_on_request() {
    let Some(devices) = corpus::obtain("default") else { return };
    let v = check(&devices, &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&v.output).unwrap();
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(0));
    assert!(report["counts"]["inodes"].as_u64() > Some(64));
}

fn damaged(name: &str, change: impl Fn(&Path)) -> Option<Verdict> {
    corpus::obtain(name)?;
    let dir = tempfile::tempdir().unwrap();
    let devices = corpus::copy(name, dir.path());
    change(&devices.data);
    assert_eq!(oracle::xfs_repair_n(&devices, &[]).unwrap().code, 1, "the stock tool does not see the damage");
    let v = check(&devices, &["--json"]);
    assert_eq!(v.code, 1, "{}", v.output);
    Some(v)
}

#[test]
fn a_wrong_free_count_is_found_with_its_place() {
    let set = |image: &Path| {
        oracle::xfs_db_write(image, &["agf 1", "write -d freeblks 77"]).unwrap();
    };
    let Some(v) = damaged("default", set) else { return };
    let report: serde_json::Value = serde_json::from_str(&v.output).unwrap();
    let hit = report["findings"].as_array().unwrap().iter().find(|f| f["field"] == "freeblks").unwrap();
    assert_eq!(
        (hit["structure"].as_str(), hit["at"]["ag"].as_u64(), hit["found"].as_str()),
        (Some("agf"), Some(1), Some("77"))
    );
}

#[test]
fn a_zeroed_primary_superblock_does_not_stop_the_check() {
    let zero = |image: &Path| {
        let f = std::fs::OpenOptions::new().write(true).open(image).unwrap();
        f.write_all_at(&[0; 512], 0).unwrap();
    };
    let Some(v) = damaged("default", zero) else { return };
    assert!(v.output.contains("\"primary\""), "{}", v.output);
}

#[test]
fn what_could_not_be_examined_is_no_success() {
    let name = "default";
    if corpus::obtain(name).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let devices = corpus::copy(name, dir.path());
    let volume = libxfsr::volume::Volume::open(&libxfsr::volume::Devices::data(&devices.data)).unwrap();
    let known = volume.superblock.features_ro_compat.get();
    for ag in 0..volume.geometry.ag_count {
        let change = format!("write -d features_ro_compat {:#x}", known | 0x80);
        oracle::xfs_db_write(&devices, &[format!("sb {ag}"), change]).unwrap();
    }
    let v = check(&devices, &[]);
    assert_eq!(v.code, 1, "{}", v.output);
    assert!(v.output.contains("not checked: features: unknown ro_compat bits 0x80"), "{}", v.output);
    assert!(v.output.contains("not everything could be"), "{}", v.output);
}

#[test]
fn what_is_no_filesystem_is_refused_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("noise.img");
    std::fs::write(&path, vec![0x5a; 1 << 20]).unwrap();
    let v = check(&Devices::from(path.as_path()), &[]);
    assert_eq!(v.code, 1);
    assert!(v.output.contains("sb.magicnum.magic"), "{}", v.output);
}

#[test]
fn without_n_a_dirty_log_is_replayed_onto_the_disk() {
    if corpus::obtain("dirty").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = corpus::copy("dirty", dir.path()).data;
    let run = |args: &[&str]| {
        let args: Vec<OsString> = args.iter().map(OsString::from).chain([image.clone().into()]).collect();
        oracle::verdict(env!("CARGO_BIN_EXE_xfsr-repair"), &args).unwrap()
    };
    let before = std::fs::read(&image).unwrap();
    let v = run(&["-L"]);
    assert!(v.code == 1 && v.output.contains("would be lost"), "{}", v.output);
    let v = run(&["-n"]);
    assert!(v.code == 0 && v.output.contains("nothing is written"), "{}", v.output);
    assert!(std::fs::read(&image).unwrap() == before, "-n has written");
    let v = run(&[]);
    assert!(v.code == 0 && v.output.contains("was dirty and is recovered"), "{}", v.output);
    for args in [&[][..], &["-n"]] {
        let v = run(args);
        assert!(v.code == 0 && !v.output.contains("dirty"), "{}", v.output);
    }
    let v = oracle::verdict(env!("CARGO_BIN_EXE_xfsr-repair"), &["/nonexistent".into()]).unwrap();
    assert_eq!(v.code, 1);
}

#[test]
fn v4_is_refused_in_a_sentence() {
    oracle::v4_is_refused(env!("CARGO_BIN_EXE_xfsr-repair"), &["-n"], 1);
}
