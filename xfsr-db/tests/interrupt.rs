//! Long commands as a person meets them: they show how far they are, and end when Ctrl-C says so.

use rustix::process::Signal;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use xfsr_tests::interact::{self, Ended, Running, SLOW};
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
        let ended = interact::interrupt(Path::new(PROGRAM), &words, 2 * MICROS).expect("it runs");
        assert_eq!(ended.code, Some(130), "{command}: {ended:?}");
        assert!(ended.took < Duration::from_secs(20), "{command}: Ctrl-C took {:?}", ended.took);
        assert!(ended.err.contains("stopped before the end"), "{command}: {}", ended.err);
    }
    let words: [OsString; 3] = ["-c".into(), "blockget".into(), devices.data.clone().into()];
    let shown = interact::at_terminal(Path::new(PROGRAM), &words, MICROS / 4).expect("it runs");
    assert!(shown.contains('\u{1b}'), "no progress at a terminal: {shown:?}");
}

#[test]
fn one_signal_ends_what_waits_for_input() {
    let Some(devices) = corpus::obtain("default") else { return };
    let mut command = Command::new(PROGRAM);
    let mut running = Running::start(command.arg(&devices.data).stdin(Stdio::piped())).expect("it starts");
    // When it has answered, it waits for the next command.
    let mut input = running.child().stdin.take().expect("a pipe");
    input.write_all(b"sb 0\nprint magicnum\n").expect("it reads");
    running.wait_for(|out, _| out.contains("0x58465342")).expect("an answer");
    running.signal(Signal::TERM).expect("it runs");
    let ended = running.finish().expect("it ends");
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.took < Duration::from_secs(5), "one signal took {:?}", ended.took);
    drop(input);
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
    let mut running =
        Running::start(Command::new(PROGRAM).args(["-c", &command]).arg(&devices.data)).expect("it starts");
    let _writer = std::fs::File::options().read(true).write(true).open(&pipe).expect("the pipe");
    let fds = format!("/proc/{}/fd", running.child().id());
    let reads = |_: &str, _: &str| {
        let links = std::fs::read_dir(&fds).into_iter().flatten().flatten();
        links.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|to| to == pipe)
    };
    running.wait_for(reads).expect("it opens the pipe");
    running.signal(Signal::INT).expect("it waits");
    let ended = running.finish().expect("it ends");
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.took < Duration::from_secs(5), "Ctrl-C took {:?}", ended.took);
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
    let mut command = Command::new("strace");
    command.args(slow).args(["--", PROGRAM, "--progress=json", "--restore"]).args([&dump, &image]).stdin(Stdio::null());
    let mut running = Running::start(&mut command).expect("it starts");
    running.wait_for(|_, err| err.contains("\"phase\":\"restore\"")).expect("progress");
    assert!(image.exists(), "nothing was begun");
    running.signal(Signal::INT).expect("it runs");
    let Ended { code, err: said, .. } = running.finish().expect("it ends");
    assert_eq!(code, Some(130), "{said}");
    assert!(!image.exists(), "the half image was left");
    let last: Vec<&str> = said.lines().filter(|l| !l.starts_with('{')).collect();
    assert_eq!(last, ["xfsr-db: stopped before the end"], "{said}");
}
