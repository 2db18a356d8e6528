//! Opening and closing, what is durable when, and the filesystem as a whole.

use super::handle::{Handle, Users};
use super::quota;
use super::recover::{self, Recovered, Targets, recover, replayed_view};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::journal::{self, Journal, LogState, log_state};
use crate::quota::Quota;
use crate::space::Space;
use crate::target::{Access, FileTarget, Target};
use crate::txn::{DirtySink, InodeLocks, Reservation, Scope, Transaction};
use crate::units::{Ino, Lsn};
use crate::volume::{Devices, Volume};
use parking_lot::{ArcRwLockWriteGuard, Mutex, RawRwLock, RwLock, RwLockReadGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A time: seconds since 1970, and nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time {
    /// Seconds, before 1970 negative.
    pub seconds: i64,
    /// Nanoseconds of the second.
    pub nanos: u32,
}

impl Time {
    /// The system's clock.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }
}

impl From<SystemTime> for Time {
    fn from(t: SystemTime) -> Self {
        match t.duration_since(UNIX_EPOCH) {
            Ok(d) => Self { seconds: d.as_secs().cast_signed(), nanos: d.subsec_nanos() },
            Err(e) => {
                let d = e.duration();
                let whole = d.as_secs().cast_signed().saturating_neg();
                match d.subsec_nanos() {
                    0 => Self { seconds: whole, nanos: 0 },
                    n => Self { seconds: whole.saturating_sub(1), nanos: 1_000_000_000 - n },
                }
            }
        }
    }
}

/// How a filesystem is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of metadata that are kept in memory.
    pub cache: usize,
    /// How the log is written.
    pub journal: journal::Options,
    /// The time of all changes; none for the system's clock.
    pub now: Option<Time>,
    /// From what the generation numbers of new inodes are made: the same changes with the same seed make the same bytes. None for a random one.
    pub seed: Option<u64>,
    /// Limits of quota bind who works with it, where the superblock says that they are enforced. Else usage is counted only, as for root under Linux.
    pub enforce_quota: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache: 64 << 20, journal: journal::Options::default(), now: None, seed: None, enforce_quota: false }
    }
}

/// What changing needs.
pub(super) struct Writer {
    pub(super) scope: Scope,
    pub(super) space: Arc<Space>,
    /// None where nothing is logged: an image that is being made.
    journal: Option<Arc<Journal>>,
    /// None where nothing is counted.
    quota: Option<Arc<Quota>>,
}

/// What a filesystem and its handles share.
pub(super) struct Core {
    pub(super) volume: Arc<Volume>,
    pub(super) locks: InodeLocks,
    pub(super) users: Users,
    writer: Option<Writer>,
    now: Option<Time>,
    generation: AtomicU32,
    /// Held shared by each change, and exclusively while the filesystem is frozen.
    gate: Arc<RwLock<()>>,
    /// Held by the one who moves something from one directory to another.
    pub(super) moving: Mutex<()>,
    frozen: Mutex<Option<ArcRwLockWriteGuard<RawRwLock, ()>>>,
}

/// The right to change something, as long as it lives: a freeze waits for it.
pub(super) struct Entered<'c> {
    pub(super) writer: &'c Writer,
    _gate: RwLockReadGuard<'c, ()>,
}

impl<'c> Entered<'c> {
    /// Begins a transaction. The caller holds no block.
    pub(super) fn begin(&self, reservation: Reservation) -> Result<Transaction<'c>> {
        self.writer.scope.begin(reservation)
    }
}

impl Core {
    pub(super) fn geometry(&self) -> &Geometry {
        &self.volume.geometry
    }
    /// Quota, and the transactions in which room for its records is made.
    pub(super) fn quota(&self) -> Option<(&Scope, &Arc<Quota>)> {
        self.writer.as_ref().and_then(|w| Some((&w.scope, w.quota.as_ref()?)))
    }
    /// Waits while the filesystem is frozen.
    pub(super) fn enter(&self) -> Result<Entered<'_>> {
        let writer = self.writer.as_ref().ok_or(Error::ReadOnly)?;
        Ok(Entered { writer, _gate: self.gate.read_recursive() })
    }
    pub(super) fn now(&self) -> Time {
        self.now.unwrap_or_else(Time::now)
    }
    /// A number for a new inode, which no earlier one of its place had, most likely.
    pub(super) fn next_generation(&self) -> u32 {
        // Odd steps pass through all numbers.
        self.generation.fetch_add(0x9e37_79b1, Ordering::Relaxed)
    }
}

/// A filesystem that is open in this process. Many threads may use it, and copies of this value are the same filesystem. See the [module](super).
///
/// What was changed and not synced is lost when the process ends without [`Filesystem::close`]; the log then has what was synced, and who opens it next
/// recovers it.
#[derive(Clone)]
pub struct Filesystem {
    pub(super) core: Arc<Core>,
}

impl std::fmt::Debug for Filesystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filesystem").field("volume", &self.core.volume).finish_non_exhaustive()
    }
}

/// What a filesystem has of space, as `statfs` tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statfs {
    /// Bytes of a block.
    pub block_size: u32,
    /// Blocks without those of the log.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Those of them that files may have: the others are kept for the filesystem's own trees.
    pub available: u64,
    /// Inodes that have a place.
    pub inodes: u64,
    /// Free ones among them.
    pub free_inodes: u64,
}

impl Filesystem {
    /// Opens devices or image files, exclusively.
    ///
    /// # Errors
    /// As [`Filesystem::from_targets`]; [`Error::Open`]; [`Error::Busy`] for what is mounted or otherwise in use.
    pub fn open(devices: &Devices, options: &Options) -> Result<Self> {
        Self::from_targets(&targets(devices, Access::Write)?, options, &Control::none()).map(|(fs, _)| fs)
    }

    /// Opens targets of any kind. A dirty log is recovered first; what that did is told.
    ///
    /// # Errors
    /// As [`Volume::from_targets_with`], [`recover()`] and [`Journal::open`].
    pub fn from_targets(targets: &Targets, options: &Options, control: &Control<'_>) -> Result<(Self, Recovered)> {
        let recovered = recover(targets, &recover::Options::default(), control)?;
        let volume = Arc::new(targets.volume(options.cache, control)?);
        let journal = Journal::open(volume.clone(), &options.journal)?;
        let space = Space::open(&volume)?;
        let scope = Scope::new(volume.clone(), journal.clone());
        let quota = quota::keep_up(&volume, &scope, &space, options.enforce_quota)?;
        let fs = Self::assemble(volume, Some(Writer { scope, space, journal: Some(journal), quota }), options);
        Ok((fs, recovered))
    }

    /// Opens an image that is being made: what is changed goes to its place without a log, so a crash leaves it unusable. Its log is clean.
    ///
    /// # Errors
    /// As [`Volume::from_targets_with`]; [`Error::Invalid`] where the log is not clean.
    pub fn open_unlogged(targets: &Targets, options: &Options, control: &Control<'_>) -> Result<Self> {
        let volume = Arc::new(targets.volume(options.cache, control)?);
        journal::may_write(&volume, false)?;
        let lsn = match log_state(&volume, control)? {
            LogState::Clean { .. } | LogState::Absent => Lsn(volume.superblock.lsn.get()).max(Lsn::new(1, 0)),
            LogState::Dirty { .. } => {
                return Err(Error::invalid("the log holds changes that must be replayed before others are made"));
            }
        };
        let space = Space::open(&volume)?;
        let scope = Scope::new(volume.clone(), Arc::new(DirtySink { lsn }));
        let quota = quota::keep_up(&volume, &scope, &space, options.enforce_quota)?;
        Ok(Self::assemble(volume, Some(Writer { scope, space, journal: None, quota }), options))
    }

    /// Opens devices or image files for reading. A dirty log is replayed in memory; the devices are untouched, and may be in use.
    ///
    /// # Errors
    /// As [`replayed_view`]; [`Error::Open`].
    pub fn open_read_only(devices: &Devices, options: &Options) -> Result<Self> {
        Self::read_only(&targets(devices, Access::Read)?, options, &Control::none())
    }

    /// The same of targets of any kind.
    ///
    /// # Errors
    /// As [`replayed_view`].
    pub fn read_only(targets: &Targets, options: &Options, control: &Control<'_>) -> Result<Self> {
        let view = replayed_view(targets.data.clone(), targets.log.clone(), targets.rt.clone(), control)?;
        view.volume.cache.set_budget(options.cache);
        Ok(Self::assemble(Arc::new(view.volume), None, options))
    }

    fn assemble(volume: Arc<Volume>, writer: Option<Writer>, options: &Options) -> Self {
        let locks = writer.as_ref().map(|w| w.scope.locks().clone()).unwrap_or_default();
        locks.check_order();
        let seed = options.seed.unwrap_or_else(|| {
            let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
            high ^ low
        });
        Self {
            core: Arc::new(Core {
                volume,
                locks,
                users: Users::default(),
                writer,
                now: options.now,
                generation: AtomicU32::new((seed ^ seed >> 32) as u32),
                gate: Arc::default(),
                moving: Mutex::default(),
                frozen: Mutex::default(),
            }),
        }
    }

    /// The filesystem's numbers.
    pub fn geometry(&self) -> &Geometry {
        self.core.geometry()
    }
    /// Its blocks, to look at what this interface does not show. What others change at the same time may be seen half done.
    pub fn volume(&self) -> &Arc<Volume> {
        &self.core.volume
    }
    /// Whether it is open for reading only.
    pub fn is_read_only(&self) -> bool {
        self.core.writer.is_none()
    }
    /// The root directory.
    pub fn root(&self) -> Handle {
        self.core.handle(self.geometry().root_ino)
    }
    /// An inode by its number, and by its generation where that is known.
    ///
    /// # Errors
    /// [`Error::NotFound`] for one that is free, or of another generation; what is damaged.
    pub fn inode(&self, ino: Ino, generation: Option<u32>) -> Result<Handle> {
        let gone = || Error::NotFound(format!("inode {ino}"));
        if !self.geometry().is_valid_ino(ino) {
            return Err(gone());
        }
        // First counted as used, then looked at: so it is not freed in between.
        let handle = self.core.handle(ino);
        let (_lock, inode) = handle.read()?;
        let right = generation.is_none_or(|g| g == inode.core.generation.get());
        if right && inode.core.nlink.get() > 0 { Ok(handle.clone()) } else { Err(gone()) }
    }

    /// All that was changed before is durable when this returns.
    ///
    /// # Errors
    /// I/O errors.
    pub fn sync(&self) -> Result<()> {
        let Some(w) = &self.core.writer else { return Ok(()) };
        match &w.journal {
            Some(journal) => {
                // Contents are in their place, but perhaps only in the device's memory.
                self.flush_data()?;
                journal.sync()
            }
            None => self.write_all(w),
        }
    }

    fn flush_data(&self) -> Result<()> {
        let v = &self.core.volume;
        [Some(v.data), v.rt.filter(|rt| *rt != v.data)]
            .into_iter()
            .flatten()
            .try_for_each(|id| v.cache.target(id).and_then(|t| t.flush()))
    }

    fn write_all(&self, w: &Writer) -> Result<()> {
        w.space.settle(&w.scope)?;
        self.core.volume.cache.write_back(None)?;
        self.flush_data()
    }

    /// What is free.
    pub fn statfs(&self) -> Statfs {
        let (g, sb) = (self.geometry(), &self.core.volume.superblock);
        let log = if g.log_start.0 != 0 { u64::from(g.log_blocks) } else { 0 };
        let (free, available, inodes, free_inodes) = match &self.core.writer {
            Some(w) => {
                let c = w.space.counters();
                (c.free_blocks, w.space.available(g), c.inodes, c.free_inodes)
            }
            None => (sb.fdblocks.get(), sb.fdblocks.get(), sb.icount.get(), sb.ifree.get()),
        };
        let blocks = g.blocks.saturating_sub(log);
        Statfs { block_size: g.block_size, blocks, free, available, inodes, free_inodes }
    }

    /// Waits for the changes that are under way, keeps others from beginning, and writes everything to its place: the disk holds a filesystem with a
    /// clean log until [`Filesystem::thaw`]. Whoever changes something waits; a thread that has frozen it must not.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]; [`Error::Invalid`] where it is frozen already; I/O errors.
    pub fn freeze(&self) -> Result<()> {
        let w = self.core.writer.as_ref().ok_or(Error::ReadOnly)?;
        let mut frozen = self.core.frozen.lock();
        if frozen.is_some() {
            return Err(Error::invalid("the filesystem is frozen already"));
        }
        let guard = self.core.gate.write_arc();
        match &w.journal {
            Some(journal) => {
                w.space.settle(&w.scope)?;
                journal.pause(&w.scope, None)?;
            }
            None => self.write_all(w)?,
        }
        *frozen = Some(guard);
        Ok(())
    }

    /// Ends a freeze.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it is not frozen.
    pub fn thaw(&self) -> Result<()> {
        match self.core.frozen.lock().take() {
            Some(guard) => {
                drop(guard);
                Ok(())
            }
            None => Err(Error::invalid("the filesystem is not frozen")),
        }
    }

    /// Writes everything to its place and closes the log: it is clean. Nothing can be changed any more, also not through copies of this value.
    ///
    /// # Errors
    /// [`Error::Busy`] while there are handles; [`Error::Invalid`] while it is frozen; I/O errors, after which the log must be recovered.
    pub fn close(self) -> Result<()> {
        let Some(w) = &self.core.writer else { return Ok(()) };
        let users = self.core.users.count();
        if users > 0 {
            let why = format!("{users} of its inodes are still in use: drop their handles first");
            return Err(Error::Busy { target: self.core.volume.data_target().name().to_owned(), why });
        }
        let frozen = self.core.frozen.lock();
        if frozen.is_some() {
            return Err(Error::invalid("the filesystem is frozen: thaw it before it is closed"));
        }
        let _guard = self.core.gate.write_arc();
        match &w.journal {
            Some(journal) => {
                self.flush_data()?;
                w.space.settle(&w.scope)?;
                journal.finish(&w.scope, None)
            }
            None => self.write_all(w),
        }
    }
}

/// Opens the targets of a filesystem.
fn targets(devices: &Devices, access: Access) -> Result<Targets> {
    let open = |p: &std::path::PathBuf| -> Result<Arc<dyn Target>> { Ok(Arc::new(FileTarget::open(p, access)?)) };
    Ok(Targets {
        data: open(&devices.data)?,
        log: devices.log.as_ref().map(open).transpose()?,
        rt: devices.realtime.as_ref().map(open).transpose()?,
    })
}
