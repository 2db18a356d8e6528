//! Programs as a person meets them: on a slow device, at a terminal, ended by Ctrl-C, pointed at what is mounted.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal};

use crate::corpus;
use crate::oracle::{self, Devices, Mount};

/// What slow devices need, for [`oracle::require`].
pub const SLOW: &[&str] = &["strace", "script"];

/// A program whose reads at an offset take so many microseconds longer each. The process that is started is the program itself.
fn slowed(program: &Path, args: &[OsString], micros: u32) -> Vec<OsString> {
    let inject = format!("inject=pread64:delay_exit={micros}");
    let mut all: Vec<OsString> =
        ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pread64", "-e", &inject, "--"]
            .map(Into::into)
            .into();
    all.push(program.into());
    all.extend_from_slice(args);
    all
}

fn start(words: &[OsString]) -> Result<Running> {
    let (first, rest) = words.split_first().context("a program")?;
    Running::start(Command::new(first).args(rest).stdin(Stdio::null()))
}

/// How a program ended: exit status, standard output, standard error, and how long it took.
#[derive(Debug)]
pub struct Ended {
    /// Exit status; none where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// From its start, or from the signal that it was sent.
    pub took: Duration,
}

/// What a pipe has given so far.
struct Gathered {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Gathered {
    fn new(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut piece) {
                shared.lock().expect("nobody panics with it").extend_from_slice(&piece[..n]);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("nobody panics with it")).into_owned()
    }

    fn whole(self) -> Result<String> {
        let Self { bytes, reader } = self;
        reader.join().ok().context("a reader")?;
        Ok(String::from_utf8_lossy(&bytes.lock().expect("nobody panics with it")).into_owned())
    }
}

/// A program while it runs; what it writes is kept. Ended where it is dropped before its end.
pub struct Running {
    child: Child,
    out: Option<Gathered>,
    err: Option<Gathered>,
    since: Instant,
}

impl Running {
    /// Starts it; standard input is as the command says.
    pub fn start(command: &mut Command) -> Result<Running> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} could not be started", command.get_program().display()))?;
        let out = child.stdout.take().map(Gathered::new);
        let err = child.stderr.take().map(Gathered::new);
        Ok(Running { child, out, err, since: Instant::now() })
    }

    /// The process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits until what it has written to standard output and standard error says that it is where a test wants it.
    ///
    /// # Errors
    /// It ended before, or a minute is over.
    pub fn wait_for(&mut self, ready: impl Fn(&str, &str) -> bool) -> Result<()> {
        let text = |g: &Option<Gathered>| g.as_ref().map(Gathered::text).unwrap_or_default();
        let since = Instant::now();
        loop {
            let ended = self.child.try_wait()?;
            let (out, err) = (text(&self.out), text(&self.err));
            ensure!(ended.is_none(), "it ended before it was interrupted: {out}{err}");
            if ready(&out, &err) {
                return Ok(());
            }
            ensure!(since.elapsed() < Duration::from_secs(60), "it does not come so far: {out}{err}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends it a signal; what it takes counts from here.
    pub fn signal(&mut self, which: Signal) -> Result<()> {
        self.since = Instant::now();
        Ok(rustix::process::kill_process(Pid::from_child(&self.child), which)?)
    }

    /// Waits for its end, a minute at most.
    ///
    /// # Errors
    /// It does not end.
    pub fn finish(mut self) -> Result<Ended> {
        self.child.stdin.take();
        let limit = Instant::now() + Duration::from_secs(60);
        let code = loop {
            if let Some(status) = self.child.try_wait()? {
                break status.code();
            }
            ensure!(Instant::now() < limit, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let took = self.since.elapsed();
        let (out, err) = (self.out.take().context("a pipe")?.whole()?, self.err.take().context("a pipe")?.whole()?);
        Ok(Ended { code, out, err, took })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program on a slow device to its end.
pub fn run_slowly(program: &Path, args: &[OsString], micros: u32) -> Result<Ended> {
    start(&slowed(program, args, micros))?.finish()
}

/// Runs a program on a slow device with progress as JSON, and sends it a signal when it has told how far it is.
pub fn interrupt(program: &Path, args: &[OsString], micros: u32) -> Result<Ended> {
    let mut words: Vec<OsString> = vec!["--progress=json".into()];
    words.extend_from_slice(args);
    let mut running = start(&slowed(program, &words, micros))?;
    running.wait_for(|_, err| err.contains("\"phase\""))?;
    running.signal(Signal::INT)?;
    running.finish()
}

/// Runs a program on a slow device with a terminal for its output, and returns all that it would have shown there.
pub fn at_terminal(program: &Path, args: &[OsString], micros: u32) -> Result<String> {
    let quoted: Vec<String> = slowed(program, args, micros)
        .iter()
        .map(|w| format!("'{}'", w.to_string_lossy().replace('\'', "'\\''")))
        .collect();
    let out = Command::new("script").args(["-qec", &quoted.join(" "), "/dev/null"]).stdin(Stdio::null()).output()?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Progress and Ctrl-C of a program that reads the whole image, as every program does it. `args` come before the image's path.
pub fn progress_and_interrupt(program: &str, args: &[&str], interrupted: i32) {
    if oracle::require(SLOW).is_none() {
        return;
    }
    let Some(devices) = corpus::obtain("default") else { return };
    let program = Path::new(program);
    let words = |extra: &[&str]| -> Vec<OsString> {
        let mut all: Vec<OsString> = args.iter().chain(extra).map(OsString::from).collect();
        all.push(devices.data.clone().into());
        all
    };
    // So slow that it takes some seconds, however many reads the program needs and however fast the machine is.
    let (mut micros, mut told) = (400, None);
    for _ in 0..4 {
        let ended = run_slowly(program, &words(&["--progress=json"]), micros).expect("it runs");
        let enough = ended.took > Duration::from_millis(2000);
        let took = ended.took.as_secs_f64();
        told = Some(ended);
        if enough {
            break;
        }
        micros = (f64::from(micros) * (2.5 / took).max(1.5)) as u32;
    }
    let told = told.expect("at least one run");
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.took > Duration::from_secs(1), "the device was not slow: {told:?}");
    let lines: Vec<serde_json::Value> =
        told.err.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{l}: {e}"))).collect();
    assert!(!lines.is_empty(), "no progress in {:?}", told.took);
    let mut last = 0.0;
    for line in &lines {
        assert!(line["phase"].is_string() && line["done"].is_u64(), "{line}");
        let seconds = line["seconds"].as_f64().expect("a time");
        assert!(seconds >= last && seconds >= 1.0, "{line}: before a second has passed, or going backwards");
        last = seconds;
    }

    // Into a pipe nothing is drawn; what the answer is, does not depend on who watches.
    let quiet = run_slowly(program, &words(&[]), micros).expect("it runs");
    assert!(quiet.err.is_empty(), "progress text into a pipe: {:?}", quiet.err);
    assert_eq!(quiet.out, told.out, "progress changed the answer");
    let shown = at_terminal(program, &words(&[]), micros).expect("it runs");
    assert!(shown.contains('\r') || shown.contains('\u{1b}'), "no progress at a terminal: {shown:?}");
    let shown = at_terminal(program, &words(&["--progress=none"]), micros).expect("it runs");
    assert!(!shown.contains('\u{1b}'), "progress that was refused: {shown:?}");

    let before = names(&devices);
    let ended = interrupt(program, &words(&[]), 4 * micros).expect("it runs");
    assert_eq!(ended.code, Some(interrupted), "{ended:?}");
    assert!(ended.took < Duration::from_secs(20), "Ctrl-C took {:?}", ended.took);
    assert!(ended.out.is_empty(), "half an answer: {}", ended.out);
    assert!(ended.err.contains("stopped before the end"), "{}", ended.err);
    assert_eq!(names(&devices), before, "something is left behind");
}

/// What lies beside an image and in the working directory.
fn names(devices: &Devices) -> Vec<PathBuf> {
    let beside = devices.data.parent().map(Path::to_owned).unwrap_or_default();
    let stem = devices.data.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let list = |d: &Path| std::fs::read_dir(d).map(|l| l.flatten().map(|e| e.path()).collect::<Vec<_>>());
    let mut all = list(&beside).unwrap_or_default();
    // Other tests make other images there.
    all.retain(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&stem)));
    all.extend(list(Path::new(".")).unwrap_or_default());
    all.sort();
    all
}

/// A mounted filesystem, and the paths by which a program could reach its bytes past the kernel.
#[derive(Debug)]
pub struct Mounted {
    /// The loop device, the file behind it, a symbolic and a hard link to that file.
    pub paths: Vec<PathBuf>,
    /// The mount.
    pub mount: Mount,
    image: PathBuf,
    _directory: tempfile::TempDir,
}

impl Mounted {
    /// A copy of the default image, mounted; none where that is not possible here.
    ///
    /// # Panics
    /// Where it should be possible and is not.
    pub fn new() -> Option<Mounted> {
        corpus::obtain("default")?;
        let directory = tempfile::tempdir().expect("a directory");
        let image = corpus::copy("default", directory.path()).data;
        let mount = Mount::new(&image, "").expect("a mount");
        let device = device_of(mount.path()).expect("a mounted device");
        let (symbolic, hard) = (directory.path().join("symbolic"), directory.path().join("hard"));
        std::os::unix::fs::symlink(&image, &symbolic).expect("a symbolic link");
        std::fs::hard_link(&image, &hard).expect("a hard link");
        let paths = vec![device, image.clone(), symbolic, hard];
        Some(Mounted { paths, mount, image, _directory: directory })
    }

    /// The bytes of the primary superblock, read past the page cache's view of the device.
    pub fn superblock(&self) -> Vec<u8> {
        use std::os::unix::fs::FileExt as _;
        let mut sector = vec![0; 512];
        let file = std::fs::File::open(&self.image).expect("the image");
        file.read_exact_at(&mut sector, 0).expect("a sector");
        sector
    }
}

/// The device that is mounted there.
fn device_of(mount: &Path) -> Option<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = table.lines().find(|l| l.split(' ').nth(4).is_some_and(|at| Path::new(at) == mount))?;
    line.split(" - ").nth(1)?.split(' ').nth(1).map(PathBuf::from)
}

/// Asserts that a reader of images says once of a dirty log and of an image that is cut off, and nothing of a whole one. `args` come
/// before the path and must not need what is cut off.
pub fn reader_tells_of_images(program: &str, args: &[&str]) {
    let run = |path: &Path| {
        let words: Vec<OsString> = args.iter().map(OsString::from).chain([path.into()]).collect();
        let out = Command::new(program).args(&words).output().expect("it runs");
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{}: {err}", path.display());
        err
    };
    for (name, saying) in [("default", None), ("dirty", Some("the log is dirty"))] {
        let Some(devices) = corpus::obtain(name) else { continue };
        let said = run(&devices.data);
        assert_eq!(said.lines().count(), usize::from(saying.is_some()), "{name}: {said}");
        assert!(saying.is_none_or(|s| said.contains(s)), "{name}: {said}");
    }
    if corpus::obtain("default").is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = corpus::copy("default", directory.path()).data;
    let file = std::fs::OpenOptions::new().write(true).open(&image).expect("the copy");
    let length = file.metadata().expect("its length").len();
    // By a block, and by an AG or two.
    for length in [length - 4096, length * 5 / 8] {
        file.set_len(length).expect("cutting it off");
        let said = run(&image);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("shorter than the filesystem") && said.contains(&length.to_string()), "{said}");
    }
}

/// Asserts that a reader says of each path that leads past the mount that the view may be inconsistent, and of nothing else.
pub fn reader_warns(program: &str, args: &[&str]) {
    let Some(mounted) = Mounted::new() else { return };
    let run = |path: &Path| {
        let words: Vec<OsString> = args.iter().map(OsString::from).chain([path.into()]).collect();
        oracle::verdict(program, &words).expect("it runs")
    };
    for path in &mounted.paths {
        let said = run(path).output;
        assert!(said.contains("inconsistent") && said.contains("mounted on"), "{}: {said}", path.display());
        assert_eq!(said.matches("inconsistent").count(), 1, "{}: {said}", path.display());
    }
    let image = mounted.paths[1].clone();
    let Mounted { mount, _directory, .. } = mounted;
    mount.unmount().expect("unmounting");
    let mut said = run(&image).output;
    for _ in 0..50 {
        if !said.contains("inconsistent") {
            break;
        }
        // The loop device goes when its last user has closed it.
        std::thread::sleep(Duration::from_millis(50));
        said = run(&image).output;
    }
    assert!(!said.contains("inconsistent"), "{said}");
}
