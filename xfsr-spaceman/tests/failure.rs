//! Failures as programs read them: with `--json` one document says why, also where a stream of mappings breaks off.

use anyhow::{Context as _, Result, ensure};
use libxfsr::control::Control;
use libxfsr::mkfs::{self, Devices, Options, write};
use libxfsr::target::{Access, FileTarget};
use serde_json::{Deserializer, Value};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Output};

const SIZE: u64 = 320 << 20;
const GROUP: u64 = SIZE / 4;

fn spaceman(words: &[&str], path: &Path) -> Result<Output> {
    let words: Vec<OsString> = words.iter().map(OsString::from).chain([path.into()]).collect();
    Ok(Command::new(env!("CARGO_BIN_EXE_xfsr-spaceman")).args(words).output()?)
}

fn documents(out: &Output) -> Result<Vec<Value>> {
    Ok(Deserializer::from_slice(&out.stdout).into_iter().collect::<Result<_, _>>()?)
}

/// An image of four groups with reverse mappings, whose third has lost the root of the btree that this field of its AGF leads to.
fn damaged(directory: &Path, field: u64) -> Result<std::path::PathBuf> {
    let path = directory.join("image");
    File::create(&path)?.set_len(SIZE)?;
    let mut options = Options::default();
    options.metadata.rmapbt = Some(true);
    let plan = mkfs::plan(&options, &Devices::file(SIZE))?;
    let target = FileTarget::open(&path, Access::Write)?;
    let targets = write::Targets { data: &target, log: None, rt: None };
    write::write(&plan, &targets, &write::WriteOptions::default(), &Control::none())?;
    let file = File::options().read(true).write(true).open(&path)?;
    let mut root = [0; 4];
    file.read_exact_at(&mut root, 2 * GROUP + 512 + field)?;
    file.write_all_at(&[0xff; 64], 2 * GROUP + u64::from(u32::from_be_bytes(root)) * 4096)?;
    Ok(path)
}

#[test]
fn a_stream_that_breaks_off_says_so_and_why() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = damaged(directory.path(), 24)?;
    let out = spaceman(&["--json", "-c", "fsmap"], &path)?;
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let all = documents(&out)?;
    let [stream] = &all[..] else { anyhow::bail!("{} documents: {all:?}", all.len()) };
    assert_eq!((stream["command"].as_str(), &stream["complete"]), (Some("fsmap"), &Value::Bool(false)));
    let told = stream["result"].as_array().context("mappings")?;
    ensure!(told.len() > 10, "only {} mappings came before the damage", told.len());
    let error = &stream["error"];
    assert_eq!((error["kind"].as_str(), error["exit_status"].as_u64()), (Some("corrupt"), Some(1)), "{error}");
    assert_eq!(error["finding"]["structure"].as_str(), Some("rmapbt"), "{error}");
    assert!(error["message"].as_str().is_some_and(|m| m.contains("magic")), "{error}");
    assert!(out.stderr.is_empty(), "told twice: {out:?}");

    // For people: what was found, then the reason on standard error, in one sentence.
    let out = spaceman(&["-c", "fsmap"], &path)?;
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(String::from_utf8(out.stdout)?.lines().count(), told.len());
    let said = String::from_utf8(out.stderr)?;
    assert!(said.lines().count() == 1 && said.starts_with("xfsr-spaceman: ") && said.contains("rmapbt"), "{said}");

    // What does not need that btree still answers, and a whole stream says so.
    let out = spaceman(&["--json", "-c", "freesp -s"], &path)?;
    assert!(out.status.success(), "{out:?}");
    assert_eq!(documents(&out)?.len(), 1);
    let out = spaceman(&["--json", "-c", "fsmap -l"], &path)?;
    let all = documents(&out)?;
    assert_eq!((all.len(), &all[0]["complete"]), (1, &Value::Bool(true)));

    // Several answers are one array, which ends with the one that failed.
    let out = spaceman(&["--json", "-c", "info", "-c", "freesp"], &path)?;
    assert!(out.status.success(), "{out:?}");
    assert_eq!(commands(&out)?, ["info", "freesp"]);
    let out = spaceman(&["--json", "-c", "info", "-c", "fsmap", "-c", "freesp"], &path)?;
    assert_eq!((out.status.code(), commands(&out)?), (Some(1), vec!["info".to_owned(), "fsmap".to_owned()]));
    let out = spaceman(&["--json", "-c", "info", "-c", "freesp -a 9", "-c", "info"], &path)?;
    assert_eq!((out.status.code(), commands(&out)?), (Some(2), vec!["info".to_owned(), "error".to_owned()]));
    Ok(())
}

/// What the elements of the one array are that was printed: commands, or an error.
fn commands(out: &Output) -> Result<Vec<String>> {
    let all: Vec<Value> = serde_json::from_slice(&out.stdout).context("one array")?;
    Ok(all
        .iter()
        .map(|v| v["command"].as_str().unwrap_or(if v["error"].is_object() { "error" } else { "?" }).to_owned())
        .collect())
}

#[test]
fn a_pipe_is_refused_at_once() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)?;
    let socket = directory.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket)?;
    for path in [&*pipe, &*socket, Path::new("/dev/zero")] {
        let out = Command::new("timeout")
            .args(["-k", "1", "30", env!("CARGO_BIN_EXE_xfsr-spaceman"), "--json", "-c", "info"])
            .arg(path)
            .output()?;
        assert_eq!(out.status.code(), Some(1), "{}: {out:?}", path.display());
        let document = documents(&out)?;
        assert_eq!(document[0]["error"]["kind"], "open", "{document:?}");
    }
    Ok(())
}

#[test]
fn a_failure_is_one_document() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = damaged(directory.path(), 16)?;
    let empty = directory.path().join("empty");
    File::create(&empty)?.set_len(SIZE)?;
    let missing = directory.path().join("missing");
    let cases: [(&[&str], &Path, &str, i32); 8] = [
        (&["-c", "freesp"], &path, "corrupt", 1),
        (&["-c", "freesp -a 2"], &path, "corrupt", 1),
        (&["-c", "info"], &empty, "no-filesystem", 1),
        (&["-c", "info"], &missing, "open", 1),
        (&["info"], &missing, "open", 1),
        (&["-c", "colour"], &path, "usage", 2),
        (&["-c", "freesp -b -e 4"], &path, "usage", 2),
        (&["--colour", "info"], &path, "usage", 2),
    ];
    for (words, path, kind, status) in cases {
        let all: Vec<&str> = ["--json"].iter().chain(words).copied().collect();
        let out = spaceman(&all, path)?;
        assert_eq!(out.status.code(), Some(status), "{words:?}: {out:?}");
        let documents = documents(&out)?;
        let [document] = &documents[..] else { anyhow::bail!("{words:?}: {documents:?}") };
        let error = &document["error"];
        assert_eq!(
            (error["kind"].as_str(), error["exit_status"].as_i64()),
            (Some(kind), Some(status.into())),
            "{words:?}: {error}"
        );
        assert!(error["message"].as_str().is_some_and(|m| m.len() > 10), "{words:?}: {error}");
        assert!(out.stderr.is_empty(), "{words:?}: {out:?}");
    }
    // The group without damage answers.
    let out = spaceman(&["--json", "-c", "freesp -a 1"], &path)?;
    assert!(out.status.success(), "{out:?}");
    Ok(())
}
