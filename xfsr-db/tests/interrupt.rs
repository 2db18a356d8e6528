//! Long commands as a person meets them: they show how far they are, and end when Ctrl-C says so.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use xfsr_tests::interact::{self, SLOW};
use xfsr_tests::{corpus, oracle};

const PROGRAM: &str = env!("CARGO_BIN_EXE_xfsr-db");
/// What each read takes: a look at the superblock and the log is then over in a second, the commands are not.
const MICROS: u32 = 20_000;

#[test]
fn long_commands_show_progress_and_stop() {
    let (Some(_), Some(devices)) = (oracle::require(SLOW), corpus::obtain("default")) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let rdump = format!("rdump / {}", directory.path().display());
    for command in ["blockget", "frag", "ncheck", &rdump] {
        let words: [OsString; 3] = ["-c".into(), command.into(), devices.data.clone().into()];
        let ended =
            interact::interrupt(Path::new(PROGRAM), &words, 2 * MICROS, Duration::from_millis(2500)).expect("it runs");
        assert_eq!(ended.code, Some(130), "{command}: {ended:?}");
        assert!(ended.took < Duration::from_secs(20), "{command}: Ctrl-C took {:?}", ended.took);
        assert!(ended.err.contains("stopped before the end"), "{command}: {}", ended.err);
    }
    let words: [OsString; 3] = ["-c".into(), "blockget".into(), devices.data.clone().into()];
    let shown = interact::at_terminal(Path::new(PROGRAM), &words, MICROS / 4).expect("it runs");
    assert!(shown.contains('\u{1b}'), "no progress at a terminal: {shown:?}");
}

fn signal(child: &std::process::Child, which: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), which).expect("it runs");
}

#[test]
fn one_signal_ends_what_waits_for_input() {
    let Some(devices) = corpus::obtain("default") else { return };
    let mut child = Command::new(PROGRAM)
        .arg(&devices.data)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(child.try_wait().expect("a child").is_none(), "it did not wait for commands");
    signal(&child, rustix::process::Signal::TERM);
    let since = Instant::now();
    let mut ended = None;
    while ended.is_none() && since.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(50));
        ended = child.try_wait().expect("a child");
    }
    let _ = child.kill();
    assert_eq!(ended.and_then(|e| e.code()), Some(130), "after {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(5), "one signal took {:?}", since.elapsed());
}

#[test]
fn commands_from_what_is_no_file_end_with_a_sentence() {
    let Some(devices) = corpus::obtain("default") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let pipe = directory.path().join("pipe");
    xfsr_tests::run("mkfifo", &[&pipe]).expect("a pipe");
    let run = |word: &str, input: &str| {
        let mut child = Command::new(PROGRAM)
            .args(if word.is_empty() { vec![] } else { vec!["-c", word] })
            .arg(&devices.data)
            .stdin(std::fs::File::open(input).expect("an input"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let since = Instant::now();
        while child.try_wait().expect("a child").is_none() && since.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let late = child.try_wait().expect("a child").is_none();
        let _ = child.kill();
        let ended = child.wait_with_output().expect("it ends");
        assert!(!late, "{word}{input} hangs");
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    for (path, part) in [
        (directory.path().display().to_string(), "Is a directory"),
        (directory.path().join("none").display().to_string(), "No such file"),
        ("/dev/zero".to_owned(), "longer than"),
        (pipe.display().to_string(), "nobody writes"),
    ] {
        let (code, said) = run(&format!("source {path}"), "/dev/null");
        assert!(code == Some(1) && said.contains(part) && said.contains(&path), "{path}: {code:?} {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let (code, said) = run("", "/dev/zero");
    assert!(code == Some(1) && said.contains("a line is longer than"), "{code:?} {said}");

    // An open pipe on which nothing comes is waited for, until Ctrl-C.
    let command = format!("source {}", pipe.display());
    let child = Command::new(PROGRAM).args(["-c", &command]).arg(&devices.data).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("it starts");
    let _writer = std::fs::File::options().read(true).write(true).open(&pipe).expect("the pipe");
    std::thread::sleep(Duration::from_millis(2500));
    assert!(child.try_wait().expect("a child").is_none(), "it did not wait");
    signal(&child, rustix::process::Signal::INT);
    let since = Instant::now();
    assert_eq!(child.wait().expect("a child").code(), Some(130));
    assert!(since.elapsed() < Duration::from_secs(5), "Ctrl-C took {:?}", since.elapsed());
}

#[test]
fn a_restore_shows_progress_and_leaves_nothing_when_stopped() {
    if oracle::require(&["xfs_metadump", "strace"]).is_none() {
        return;
    }
    let Some(devices) = corpus::obtain("default") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let [dump, image] = ["dump", "image"].map(|n| directory.path().join(n));
    xfsr_tests::run("xfs_metadump", &["-o".as_ref(), devices.data.as_os_str(), dump.as_os_str()]).expect("a dump");
    // Each write takes so long that all together take minutes.
    let slow = ["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e", "inject=pwrite64:delay_exit=50000"];
    let child = Command::new("strace")
        .args(slow)
        .args(["--", PROGRAM, "--progress=json", "--restore"])
        .args([&dump, &image])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    std::thread::sleep(Duration::from_secs(3));
    assert!(image.exists(), "nothing was begun");
    signal(&child, rustix::process::Signal::INT);
    let ended = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(!image.exists(), "the half image was left");
    let (lines, last): (Vec<&str>, Vec<&str>) = said.lines().partition(|l| l.starts_with('{'));
    assert!(lines.iter().any(|l| l.contains("\"phase\":\"restore\"")), "{said}");
    assert_eq!(last, ["xfsr-db: stopped before the end"], "{said}");
}
