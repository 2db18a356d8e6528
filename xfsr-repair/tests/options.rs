//! Options of xfs_repair: each changes what it says it changes, or is refused by name.

use std::ffi::OsString;
use std::process::{Command, Output};
use xfsr_tests::{corpus, oracle};

fn run(options: &str, devices: &oracle::Devices) -> (Option<i32>, String, String) {
    let words = options.split_whitespace().map(OsString::from).chain([devices.data.clone().into()]);
    let out: Output = Command::new(env!("CARGO_BIN_EXE_xfsr-repair")).args(words).output().expect("it runs");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn what_is_accepted_does_what_it_says() {
    let Some(devices) = corpus::obtain("default") else { return };
    let (code, answer, quiet) = run("-n", &devices);
    assert_eq!((code, quiet.as_str()), (Some(0), ""), "{answer}");
    for options in
        ["-n -P", "-n -d", "-n -f", "-n -o noquota", "-n -o force_geometry,bhash=16", "-n -m 4000", "-n -t 5"]
    {
        assert_eq!(run(options, &devices), (Some(0), answer.clone(), String::new()), "{options}");
    }
    let (code, same, said) = run("-n -v", &devices);
    assert_eq!((code, &same), (Some(0), &answer));
    assert!(said.contains("the log is clean, its head at") && !said.contains("isize="), "{said}");
    for phase in ["superblocks and log", "AG btrees", "inodes", "directories", "links", "owners of blocks"] {
        assert!(said.contains(&format!("xfsr-repair: {phase}: 0.")), "{phase}: {said}");
    }
    let (_, _, said) = run("-n -v -v", &devices);
    assert!(said.contains("isize="), "{said}");
    let (code, same, said) = run("-n -m 1", &devices);
    assert_eq!((code, &same), (Some(0), &answer));
    assert!(said.contains("-m 1: the check needed"), "{said}");
    let (code, out, _) = run("-n -V", &devices);
    assert_eq!((code, out.as_str()), (Some(0), concat!("xfsr-repair ", env!("CARGO_PKG_VERSION"), "\n")));
}

#[test]
fn what_is_refused_is_named() {
    let Some(devices) = corpus::obtain("default") else { return };
    for (options, part) in [
        ("-n -e", "-e is refused"),
        ("-n -L", "-L is refused"),
        ("-n -c lazycount=1", "-c is refused"),
        ("-n -o ag_stride=4", "-o ag_stride is refused"),
        ("-n -o bhash=x", "-o bhash=x"),
        ("-n -o noquota=1", "-o noquota=1"),
        ("-n -o colour", "-o colour"),
        ("-n -m 0", "'-m <MAXMEM>'"),
        ("-n -t x", "'-t <INTERVAL>'"),
        ("-n -z", "'-z'"),
    ] {
        let (code, out, said) = run(options, &devices);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{options}: {said}");
        assert!(said.contains(part), "{options}: {said}");
        let (code, out, said) = run(&format!("--json {options}"), &devices);
        assert_eq!((code, said.as_str()), (Some(1), ""), "{options}: {out}");
        let error = serde_json::from_str::<serde_json::Value>(&out).expect("JSON")["error"].clone();
        assert_eq!((error["kind"].as_str(), error["exit_status"].as_u64()), (Some("usage"), Some(1)), "{out}");
        assert!(error["message"].as_str().is_some_and(|m| m.contains(part)), "{options}: {out}");
    }
}

#[test]
fn quota_usage_is_left_out_on_request() {
    let Some(devices) = corpus::obtain("quota") else { return };
    let (code, out, _) = run("-n", &devices);
    assert!(code == Some(0) && !out.contains("quotacheck"), "{out}");
    let (code, out, _) = run("-n -o noquota", &devices);
    assert!(code == Some(0) && out.contains("not applicable: quotacheck: user quota: it was not asked for"), "{out}");
}

#[test]
fn progress_is_told_at_the_interval_that_was_asked_for() {
    use xfsr_tests::interact;
    if oracle::require(interact::SLOW).is_none() {
        return;
    }
    let Some(devices) = corpus::obtain("default") else { return };
    let words = ["-n", "-t", "1"].iter().map(OsString::from).chain([devices.data.into()]).collect::<Vec<_>>();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_xfsr-repair"));
    let mut micros = 500;
    for _ in 0..5 {
        let ended = interact::run_slowly(program, &words, micros).expect("it runs");
        let seconds = ended.took.as_secs();
        if seconds >= 3 {
            let lines = ended.err.lines().filter(|l| l.contains(" after ")).count() as u64;
            // Nothing is told between two steps that take long.
            assert!((1..=seconds).contains(&lines), "{lines} lines in {seconds} s: {}", ended.err);
            return;
        }
        micros *= 2;
    }
    panic!("the device was never slow");
}
