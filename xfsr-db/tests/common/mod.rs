//! Runs the same commands in xfsr-db and in xfs_db, and sets what they print side by side.
#![allow(dead_code, reason = "each test uses a part")]

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use xfsr_tests::oracle::Devices;

/// Standard output, standard error and exit code of a run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
    pub(crate) code: i32,
}

impl Run {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

impl From<Output> for Run {
    fn from(o: Output) -> Self {
        Self {
            out: o.stdout,
            err: String::from_utf8_lossy(&o.stderr).into_owned(),
            code: o.status.code().unwrap_or(-1),
        }
    }
}

/// The program under test with these arguments, in UTC.
pub(crate) fn command(arguments: &[OsString]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_xfsr-db"));
    c.args(arguments).env("TZ", "UTC").stdin(Stdio::null());
    c
}

fn arguments<S: AsRef<str>>(mut all: Vec<OsString>, devices: &Devices, commands: &[S]) -> Vec<OsString> {
    if let Some(log) = &devices.log {
        all.extend(["-l".into(), log.into()]);
    }
    for c in commands {
        all.extend(["-c".into(), c.as_ref().into()]);
    }
    all.push(devices.data.clone().into());
    all
}

/// Runs commands in xfsr-db.
pub(crate) fn ours<S: AsRef<str>>(devices: &Devices, commands: &[S]) -> Run {
    let mut all = vec!["-f".into()];
    if let Some(rt) = &devices.rt {
        all.extend(["-R".into(), rt.into()]);
    }
    command(&arguments(all, devices, commands)).output().expect("xfsr-db starts").into()
}

/// Runs commands in xfs_db. It tells errors on its standard output, or on the other: both are taken, the first as the text.
pub(crate) fn stock<S: AsRef<str>>(devices: &Devices, commands: &[S]) -> Run {
    let all = arguments(vec!["-r".into(), "-f".into()], devices, commands);
    let mut c = Command::new("xfs_db");
    c.args(all).env("TZ", "UTC").stdin(Stdio::null());
    c.output().expect("xfs_db starts").into()
}

const MARK: &str = "@@@";

/// Runs groups of commands in one session and gives what each group printed. Groups shall not depend on one another.
fn groups(devices: &Devices, groups: &[Vec<String>], run: impl Fn(&Devices, &[String]) -> Run) -> Vec<String> {
    let script = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut text = String::new();
    for (i, g) in groups.iter().enumerate() {
        text.push_str(&format!("echo {MARK}{i}\n"));
        for c in g {
            text.push_str(&format!("{c}\n"));
        }
    }
    std::fs::write(script.path(), text).expect("a script");
    let done = run(devices, &[format!("source {}", script.path().display())]);
    let text = done.text();
    let mut found = Vec::new();
    for part in text.split(MARK).skip(1) {
        let (number, rest) = part.split_once('\n').unwrap_or((part, ""));
        assert_eq!(number.trim(), found.len().to_string(), "output out of order; stderr: {}", done.err);
        found.push(rest.to_owned());
    }
    assert_eq!(found.len(), groups.len(), "the session ended early: {}\n{}", done.code, done.err);
    found
}

pub(crate) fn our_groups(devices: &Devices, all: &[Vec<String>]) -> Vec<String> {
    groups(devices, all, ours)
}

pub(crate) fn stock_groups(devices: &Devices, all: &[Vec<String>]) -> Vec<String> {
    groups(devices, all, stock)
}

/// Up to `n` members of a list, evenly spread, the first and the last among them.
pub(crate) fn spread<T: Clone>(all: &[T], n: usize) -> Vec<T> {
    if all.len() <= n {
        return all.to_vec();
    }
    (0..n).map(|i| all[i * (all.len() - 1) / (n - 1).max(1)].clone()).collect()
}

/// Opens the image in the library, to find out where things are.
pub(crate) fn volume(devices: &Devices) -> libxfsr::volume::Volume {
    let devices =
        libxfsr::volume::Devices { data: devices.data.clone(), log: devices.log.clone(), realtime: devices.rt.clone() };
    libxfsr::volume::Volume::open(&devices).expect("a volume")
}

/// The first lines that differ.
pub(crate) fn difference(ours: &str, stock: &str) -> Option<String> {
    let (mut a, mut b) = (ours.lines(), stock.lines());
    let mut shown = String::new();
    for line in 1.. {
        match (a.next(), b.next()) {
            (None, None) => break,
            (x, y) if x == y => {}
            (x, y) => {
                let same = x.unwrap_or("").bytes().zip(y.unwrap_or("").bytes()).take_while(|(a, b)| a == b).count();
                let side = |l: Option<&str>| match l {
                    None => "(nothing)".to_owned(),
                    Some(l) => {
                        let shown: String = l.chars().skip(same.saturating_sub(40)).take(160).collect();
                        format!("{shown:?}")
                    }
                };
                shown.push_str(&format!("  line {line}\n    xfsr-db {}\n    xfs_db  {}\n", side(x), side(y)));
                if shown.len() > 400 {
                    break;
                }
            }
        }
    }
    (!shown.is_empty()).then_some(shown)
}

/// The images that the comparisons use: a few that the host's kernel makes, with `XFSR_FULL=1` those of the guest too.
pub(crate) fn images() -> Vec<&'static str> {
    let mut all = vec!["default", "rmap-1k", "b2k-i1k-n64k", "b64k", "parent", "plain"];
    if full() {
        all.extend(["quota", "realtime", "ascii-ci"]);
    }
    all
}

/// Whether everything is to be tested, which takes longer.
pub(crate) fn full() -> bool {
    std::env::var_os("XFSR_FULL").is_some_and(|v| v == "1")
}

pub(crate) fn exists(p: &Path) -> bool {
    std::fs::symlink_metadata(p).is_ok()
}
