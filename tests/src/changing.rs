//! A filesystem that the library changes through its journal, every write recorded: what remains of it after a crash at any write.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use libxfsr::cache::Checkpoint;
use libxfsr::check::{self, Verdict};
use libxfsr::control::Control;
use libxfsr::error::Result;
use libxfsr::journal::{self, Journal};
use libxfsr::space::Space;
use libxfsr::target::{Access, FileTarget, Overlay, Recorder, Target};
use libxfsr::txn::{CommitSet, CommitSink, Scope};
use libxfsr::volume::Volume;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::oracle::{self, Mount};

/// A sink that makes every transaction durable before the next begins, those inside of chains too: so a crash may fall between any two
/// of them, and intents are pending then.
pub struct Forcing(pub Arc<Journal>);

impl CommitSink for Forcing {
    fn reserve(&self, bytes: u64) -> Result<u64> {
        self.0.reserve(bytes)
    }
    fn reserve_step(&self, bytes: u64) -> Result<u64> {
        self.0.reserve_step(bytes)
    }
    fn release(&self, reserved: u64) {
        self.0.release(reserved);
    }
    fn commit(&self, set: &CommitSet<'_>) -> Result<Checkpoint> {
        self.0.commit(set)
    }
    fn relieve(&self) {
        // Where this fails the journal has, and the next who asks is told.
        let _ = self.0.sync();
        self.0.relieve();
    }
    fn wrote_contents(&self) {
        self.0.wrote_contents();
    }
    fn force(&self, upto: Checkpoint) -> Result<()> {
        self.0.force(upto)
    }
    fn is_durable(&self, upto: Checkpoint) -> bool {
        self.0.is_durable(upto)
    }
    fn has_log(&self) -> bool {
        true
    }
    fn is_old(&self, at: Checkpoint) -> bool {
        self.0.is_old(at)
    }
    fn abort(&self) {
        self.0.abort();
    }
}

/// When what was committed reaches the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Commits {
    /// As the journal likes.
    Gathered,
    /// Every transaction at once: [`Forcing`].
    Forced,
}

/// A filesystem that is being changed.
pub struct Changing {
    /// Every write to its device.
    pub recorder: Arc<Recorder>,
    /// What reads it.
    pub volume: Arc<Volume>,
    /// Its journal.
    pub journal: Arc<Journal>,
    /// Its transactions.
    pub scope: Scope,
    /// Its space.
    pub space: Arc<Space>,
    image: PathBuf,
}

impl Changing {
    /// Opens an image with a clean log. The file is not changed before [`Changing::finish`].
    pub fn open(image: &Path, commits: Commits) -> Changing {
        Self::open_with(image, commits, |recorder| recorder)
    }

    /// The same through a target of the caller's above the recorder: one that fails.
    pub fn open_with(image: &Path, commits: Commits, wrap: impl FnOnce(Arc<Recorder>) -> Arc<dyn Target>) -> Changing {
        let file = Arc::new(FileTarget::open(image, Access::Read).expect("an image"));
        let recorder = Arc::new(Recorder::new(file).expect("memory"));
        let volume = Volume::from_targets(wrap(recorder.clone()), None, None, 16 << 20).expect("a filesystem");
        let volume = Arc::new(volume);
        let journal = Journal::open(volume.clone(), &journal::Options::default()).expect("a clean log");
        let sink: Arc<dyn CommitSink> = match commits {
            Commits::Gathered => journal.clone(),
            Commits::Forced => Arc::new(Forcing(journal.clone())),
        };
        let space = Space::open(&volume).expect("headers");
        let scope = Scope::new(volume.clone(), sink);
        Changing { recorder, volume, journal, scope, space, image: image.to_path_buf() }
    }

    /// The time that the next write will have.
    pub fn now(&self) -> u64 {
        self.recorder.events().last().map_or(0, |e| e.time + 1)
    }

    /// What a crash leaves at that time. Of what was not flushed by then every third kind of `seed` keeps all, every third nothing, the others some.
    pub fn crash(&self, time: u64, seed: u64) -> Overlay {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut keep = |_: &libxfsr::target::Event| match seed % 3 {
            0 => true,
            1 => false,
            _ => rng.random_bool(0.5),
        };
        self.recorder.crash(time, &mut keep).expect("memory")
    }

    /// A crashed image in a file, as a copy of the one that was opened.
    pub fn crash_to(&self, time: u64, seed: u64, to: &Path) {
        crate::copy_sparse(&self.image, to).expect("a copy");
        save(&self.crash(time, seed), to);
    }

    /// Ends all work, closes the log and writes everything to the image's file.
    pub fn finish(self) {
        self.space.settle(&self.scope).expect("counters");
        self.journal.close().expect("closed");
        let whole = self.recorder.crash(self.now(), &mut |_| true).expect("memory");
        save(&whole, &self.image);
    }
}

/// Writes what an overlay has to a file that has what lies below it.
pub fn save(overlay: &Overlay, to: &Path) {
    let file = FileTarget::open(to, Access::Write).expect("an image");
    for (offset, len) in overlay.changed() {
        let mut bytes = vec![0; len as usize];
        overlay.read_at(&mut bytes, offset).expect("read");
        file.write_at(&bytes, offset).expect("written");
    }
    file.flush().expect("flushed");
}

/// Both xfs_repair, where it knows the features, and the check find nothing.
///
/// # Panics
/// Where they do.
pub fn assert_clean(what: &str, image: &Path) {
    let target = Arc::new(FileTarget::open(image, Access::Read).expect("an image"));
    let volume = Volume::from_targets(target, None, None, 64 << 20).expect("a filesystem");
    let outcome = check::check(&volume, &Control::none()).expect("a check");
    assert!(outcome.verdict() == Verdict::Clean, "{what}: {:?}", outcome.findings.first());
    let features = &volume.geometry.features;
    if features.exchange_range() || features.parent() || features.metadir() {
        return;
    }
    let verdict = oracle::xfs_repair_n(image, &[]).expect("xfs_repair");
    assert!(verdict.clean(), "{what}: xfs_repair: {}", verdict.output);
}

/// A new filesystem that mkfs.xfs makes and the kernel fills.
///
/// # Panics
/// Where that fails.
pub fn kernel_made(directory: &Path, mebibytes: u64, mkfs: &[&str], fill: impl FnOnce(&Path)) -> PathBuf {
    kernel_made_with(directory, mebibytes, (mkfs, 0), fill)
}

/// The same with incompatible features that mkfs.xfs 6.1 does not know: [`EXCHANGE`](crate::corpus::EXCHANGE), [`PARENT`](crate::corpus::PARENT).
///
/// # Panics
/// Where that fails.
pub fn kernel_made_with(
    directory: &Path,
    mebibytes: u64,
    (mkfs, incompat): (&[&str], u32),
    fill: impl FnOnce(&Path),
) -> PathBuf {
    let image = directory.join("image");
    std::fs::File::create(&image).and_then(|f| f.set_len(mebibytes << 20)).expect("a file");
    oracle::mkfs_xfs(mkfs, &image).expect("mkfs.xfs");
    if incompat != 0 {
        crate::corpus::set_incompat(&image, incompat).expect("superblocks");
    }
    let mount = Mount::new(&image, "").expect("a mount");
    fill(mount.path());
    mount.unmount().expect("an unmount");
    image
}
