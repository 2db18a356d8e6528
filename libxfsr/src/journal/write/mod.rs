//! Writing the journal.
//!
//! What transactions commit is gathered in memory, in the checkpoint that is open. An item that is committed again replaces what is there of it. Who needs
//! something durable closes the checkpoint and writes it, with all that others have committed to it: many threads that wait
//! share one write. A checkpoint begins a record of its own, so that no two have the same LSN: recovery tells by it whether a block is older
//! than an item.
//!
//! No more records are under way without a flush than finding the head can cope with ([`UNFLUSHED`]). A block goes to the disk only when
//! its last change is durable in the log ([`LogGate`]), and the tail moves past a change only when the block is durable: the data
//! device is flushed before a record names a later tail.
//!
//! Room in the log is promised before a transaction begins. Who finds none writes back the blocks that hold the tail. There is no thread of
//! the journal's own.

mod checkpoint;
pub(super) mod cut;
mod space;

use super::close::unmount_record_of;
use super::head::{Log, LogState, log_state};
use super::records::clean_end;
use super::replay::Replayed;
use crate::cache::{BlockKey, Checkpoint, LogGate};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::counters::Counters;
use crate::format::features::{LogIncompat, RoCompat};
use crate::geometry::Geometry;
use crate::target::Target;
use crate::txn::{CommitSet, CommitSink, RegionWriter, Reservation, Scope};
use crate::units::{BASIC_BLOCK, Device, Lsn};
use crate::volume::Volume;
use checkpoint::{Open, cost};
use cut::{Place, Shape, cut, record};
use parking_lot::{Condvar, Mutex, RwLock};
use space::Space;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Records that may be under way without a flush: as many as Linux has, and as recovery looks back from the head.
const UNFLUSHED: usize = 8;

/// A checkpoint is written at the latest when it has an eighth of the log, or so many bytes.
const LARGEST_CHECKPOINT: u64 = 8 << 20;

/// How a log is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Bytes of the longest record: up to 256 KiB, a multiple of the log's stripe unit. Where none is given 32 KiB, or the stripe unit if that
    /// is longer.
    pub record_size: Option<u32>,
    /// It is written to repair the filesystem, which may be marked as in need of that.
    pub repairs: bool,
}

/// What the cache's gate needs of the journal; it does not own the cache.
struct Core {
    log: Log,
    geometry: Geometry,
    shape: Shape,
    /// The number of the transaction that a checkpoint is in the log: this and the checkpoint's own.
    first_tid: u32,
    /// Targets that dirty blocks are written to.
    targets: Vec<Arc<dyn Target>>,
    /// Committers hold it shared while they add to the open checkpoint, who closes it exclusively.
    closing: RwLock<()>,
    open: Mutex<Open>,
    space: Mutex<Space>,
    /// Room has come, or may have.
    room: Condvar,
    /// Held by the one who writes.
    writer: Mutex<()>,
    /// Contents of files were written that are not durable, and must be before the next checkpoint is.
    contents: AtomicBool,
}

/// The journal of a filesystem that this process changes: where transactions commit to.
pub struct Journal {
    core: Arc<Core>,
    volume: Arc<Volume>,
    /// Held by the one who makes room.
    making_room: Mutex<()>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("space", &self.core.space).finish_non_exhaustive()
    }
}

fn failed() -> Error {
    Error::invalid("the journal has failed: the filesystem must be opened anew, which recovers it")
}

/// Whether a filesystem may be changed at all; one that is marked as in need of a repair only by what repairs it.
///
/// # Errors
/// [`Error::Unsupported`] that says what forbids it; [`Error::Corrupt`] where the device is too short.
pub fn may_write(volume: &Volume, repairs: bool) -> Result<()> {
    let features = &volume.geometry.features;
    let unknown = features.ro_compat.difference(RoCompat::all()).bits();
    if unknown != 0 {
        let what = "this program does not know, and may only be read";
        return Err(Error::unsupported(format!(
            "the filesystem has features (read-only compatible {unknown:#x}) that {what}"
        )));
    }
    let unknown = features.log_incompat.difference(LogIncompat::all()).bits();
    if unknown != 0 {
        return Err(Error::unsupported(format!("the log has features ({unknown:#x}) that this program does not know")));
    }
    if features.needs_repair() && !repairs {
        return Err(Error::unsupported("the filesystem is marked as in need of repair: repair it first"));
    }
    if volume.superblock_from.0 != 0 {
        return Err(Error::unsupported("the primary superblock cannot be used: repair it first"));
    }
    match volume.shortfall() {
        Some(c) => Err(c.into()),
        None => Ok(()),
    }
}

impl Core {
    /// Writes checkpoints until that one is durable.
    fn push(&self, upto: u64) -> Result<()> {
        let _writer = self.writer.lock();
        if self.space.lock().durable >= upto {
            return Ok(());
        }
        if self.space.lock().failed {
            return Err(failed());
        }
        let closed = {
            let _closing = self.closing.write();
            let mut open = self.open.lock();
            if open.is_empty() {
                return Ok(());
            }
            let mut space = self.space.lock();
            space.closing_bytes = std::mem::take(&mut space.open_bytes);
            let next = Open::new(open.number + 1);
            std::mem::replace(&mut *open, next)
        };
        let result = self.write(&closed);
        let mut space = self.space.lock();
        space.closing_bytes = 0;
        match result {
            Ok(()) => {
                space.durable = closed.number;
                space.let_go(closed.held);
            }
            // What is in the log of it nobody knows, so nothing may follow.
            Err(_) => space.failed = true,
        }
        drop(space);
        self.room.notify_all();
        result
    }

    /// Lets go of what blocks held that were written back, when they are durable.
    fn settle_written(&self) -> Result<()> {
        let held = self.space.lock().take_unflushed();
        if held.is_empty() {
            return Ok(());
        }
        let flushed = self.targets.iter().try_for_each(|t| t.flush());
        let mut space = self.space.lock();
        match flushed {
            Ok(()) => space.let_go(held),
            // Nobody knows what the device has lost.
            Err(_) => {
                space.keep(held);
                space.failed = true;
            }
        }
        drop(space);
        self.room.notify_all();
        flushed
    }

    /// Writes a checkpoint to the head of the log.
    fn write(&self, checkpoint: &Open) -> Result<()> {
        // Who writes contents tells it before the commit, which came before this checkpoint was closed.
        if self.contents.swap(false, Ordering::AcqRel) {
            self.targets.iter().try_for_each(|t| t.flush())?;
        }
        self.settle_written()?;
        let tid = self.first_tid.wrapping_add(checkpoint.number as u32);
        let count = u32::try_from(checkpoint.count()).map_err(|_| Error::invalid("too many regions"))?;
        let records = cut(&self.shape, tid, count, checkpoint.regions());
        let blocks = records.iter().map(|d| self.length(d)).sum();
        self.name_tail(tid, blocks)?;
        let (tail, at) = {
            let mut space = self.space.lock();
            space.begin_checkpoint(checkpoint.number);
            space.room_for(blocks)?;
            (space.tail_lsn(), space.tail())
        };
        let mut unflushed = 0;
        for data in records {
            self.append(tail, |place| record(&self.geometry, &self.shape, place, data))?;
            unflushed += 1;
            if unflushed == UNFLUSHED {
                self.log.target.flush()?;
                unflushed = 0;
            }
        }
        if unflushed > 0 {
            self.log.target.flush()?;
        }
        self.space.lock().tail_named(at);
        Ok(())
    }

    /// Blocks that a record with that data takes.
    fn length(&self, data: &cut::Data) -> u64 {
        (self.shape.headers() + data.bytes.len()).next_multiple_of(self.shape.round) as u64 / BASIC_BLOCK
    }

    /// Where the next records would overwrite some that recovery begins with, if they are torn, an empty checkpoint names the tail first: it
    /// needs as little room as there can be.
    fn name_tail(&self, tid: u32, blocks: u64) -> Result<()> {
        let (tail, at) = {
            let space = self.space.lock();
            if space.spares_named(blocks) || space.is_named() {
                return Ok(());
            }
            (space.tail_lsn(), space.tail())
        };
        for data in cut(&self.shape, tid, 0, std::iter::empty()) {
            self.append(tail, |place| record(&self.geometry, &self.shape, place, data))?;
        }
        self.log.target.flush()?;
        self.space.lock().tail_named(at);
        Ok(())
    }

    /// Writes one record at the head.
    fn append(&self, tail: Lsn, make: impl FnOnce(&Place) -> Result<Vec<u8>>) -> Result<()> {
        let (at, previous) = {
            let space = self.space.lock();
            (space.head, space.previous)
        };
        let bytes = make(&Place { at, tail, previous })?;
        self.log.write_around(u64::from(at.block()), &bytes)?;
        self.space.lock().advance(bytes.len() as u64 / BASIC_BLOCK)
    }
}

impl LogGate for Core {
    fn before_write(&self, newest: Checkpoint) -> Result<()> {
        {
            let space = self.space.lock();
            if space.failed {
                return Err(failed());
            }
            if space.durable >= newest.0 {
                return Ok(());
            }
        }
        self.push(newest.0)
    }
    fn lsn(&self, of: Checkpoint) -> Lsn {
        self.space.lock().lsn(of.0)
    }
    fn after_write(&self, key: &BlockKey, _oldest: Checkpoint) {
        self.space.lock().block_written(key);
    }
}

impl Journal {
    /// Opens the journal of a volume whose log is clean, to write. From now on the volume's blocks wait for the log.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the log must be replayed first; [`Error::MissingDevice`]; [`Error::Unsupported`] where the filesystem has
    /// features that this library does not know and may therefore only read; I/O errors.
    pub fn open(volume: Arc<Volume>, options: &Options) -> Result<Arc<Self>> {
        may_write(&volume, options.repairs)?;
        match log_state(&volume, &Control::none())? {
            LogState::Clean { .. } => {}
            LogState::Absent => return Err(Error::MissingDevice { device: Device::Log }),
            LogState::Dirty { .. } => {
                return Err(Error::invalid("the log holds changes that must be replayed before others are made"));
            }
        }
        let log = Log::open(&volume)?.ok_or(Error::MissingDevice { device: Device::Log })?;
        let (end, kept) = clean_end(&log, &Control::none())?;
        let space = Space::new(log.blocks, end.head, end.newest.block());
        // A log that mkfs has cut short of a stripe begins its records where the stripe does.
        log.clear_ahead(end.head, kept)?;
        Self::start(volume, options, log, (space, 1), 0)
    }

    /// Opens the journal of a volume whose log was replayed, all of which is durable in its place. It goes on behind that; the intents that are not
    /// done stay in it until transactions that say so are: a crash in between makes recovery begin with them again.
    ///
    /// # Errors
    /// As [`Journal::open`]; [`Error::Invalid`] where something else was replayed.
    pub fn resume(volume: Arc<Volume>, options: &Options, replayed: &Replayed) -> Result<Arc<Self>> {
        may_write(&volume, options.repairs)?;
        let log = Log::open(&volume)?.ok_or(Error::MissingDevice { device: Device::Log })?;
        let intents: Vec<_> = replayed.pending.iter().map(|p| (p.id, p.lsn)).collect();
        let space = Space::resumed(log.blocks, &replayed.end, &intents)?;
        // What was torn at the end of the log is no part of it.
        log.clear_ahead(replayed.end.head, space.0.written)?;
        Self::start(volume, options, log, space, replayed.free_tid)
    }

    fn start(
        volume: Arc<Volume>,
        options: &Options,
        log: Log,
        (space, next): (Space, u64),
        first_tid: u32,
    ) -> Result<Arc<Self>> {
        log.target.flush()?;
        let shape = Shape::new(&volume.geometry, options.record_size)?;
        let targets: Vec<Arc<dyn Target>> = [Some(volume.data), volume.rt]
            .into_iter()
            .flatten()
            .map(|id| volume.cache.target(id))
            .collect::<Result<_>>()?;
        let core = Arc::new(Core {
            log,
            geometry: volume.geometry.clone(),
            shape,
            first_tid,
            targets,
            closing: RwLock::default(),
            open: Mutex::new(Open::new(next)),
            space: Mutex::new(space),
            room: Condvar::new(),
            writer: Mutex::default(),
            contents: AtomicBool::new(false),
        });
        for id in [Some(volume.data), volume.rt].into_iter().flatten() {
            volume.cache.set_gate(id, core.clone())?;
        }
        Ok(Arc::new(Self { core, volume, making_room: Mutex::default() }))
    }

    /// Everything that was committed becomes durable in the log.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn sync(&self) -> Result<()> {
        let newest = self.core.open.lock().number;
        self.core.push(newest)
    }

    /// Writes everything to its place, so that the log holds nothing that is needed.
    ///
    /// # Errors
    /// I/O errors.
    pub fn settle(&self) -> Result<()> {
        self.sync()?;
        self.volume.cache.write_back(None)?;
        self.core.settle_written()
    }

    /// Where the log's head is.
    pub fn head(&self) -> Lsn {
        self.core.space.lock().head
    }

    /// Ends all work on a filesystem: everything is written to its place, the superblock gets its sums and loses the features that only a log in use
    /// needs, and the log is closed.
    ///
    /// # Errors
    /// As [`Journal::close`].
    pub fn finish(&self, scope: &Scope, counters: Option<&Counters>) -> Result<()> {
        self.wind_up(scope, counters)?;
        self.close()
    }

    fn wind_up(&self, scope: &Scope, counters: Option<&Counters>) -> Result<()> {
        self.settle()?;
        if let Some(counters) = counters {
            let mut t = scope.begin(Reservation { sectors: 1, ..Reservation::default() })?;
            t.superblock_mut()?.set_counters(counters);
            t.commit()?;
        }
        scope.clear_log_incompat()
    }

    /// Writes everything to its place and an unmount record behind it: the log is clean. What the superblock counts must be right by then.
    ///
    /// # Errors
    /// [`Error::Invalid`] while transactions are under way, or intents are not done; I/O errors.
    pub fn close(&self) -> Result<()> {
        self.rest()?;
        // Nothing may follow.
        self.core.space.lock().failed = true;
        Ok(())
    }

    /// As [`Journal::finish`], but others may begin transactions again: a filesystem that is frozen, whose disk is to be copied.
    ///
    /// # Errors
    /// As [`Journal::finish`].
    pub fn pause(&self, scope: &Scope, counters: Option<&Counters>) -> Result<()> {
        self.wind_up(scope, counters)?;
        self.rest()
    }

    /// Everything to its place, and an unmount record.
    fn rest(&self) -> Result<()> {
        self.settle()?;
        let core = &self.core;
        let _writer = core.writer.lock();
        let tid = core.first_tid.wrapping_add(core.open.lock().number as u32);
        core.name_tail(tid, core.length(&cut::Data::default()))?;
        let (head, previous) = {
            let space = core.space.lock();
            if space.failed {
                return Err(failed());
            }
            if space.reserved > 0 || !space.is_empty() {
                return Err(Error::invalid("the journal is closed while something is still being changed"));
            }
            (space.head, space.previous)
        };
        core.append(head, |place| unmount_record_of(&core.geometry, &core.shape, place.at, previous))?;
        core.log.target.flush()
    }

    /// Writes back what holds the log's tail.
    fn make_room(&self) -> Result<()> {
        let _one = self.making_room.lock();
        self.sync()?;
        let target = self.core.space.lock().target();
        if let Some(target) = target {
            self.volume.cache.write_back(Some(Checkpoint(target)))?;
        }
        self.core.settle_written()
    }

    fn reserve_within(&self, bytes: u64, step: bool) -> Result<u64> {
        let core = &self.core;
        let bytes = core.shape.transaction(bytes);
        let mut idle = 0;
        loop {
            let mut space = core.space.lock();
            if space.failed {
                return Err(failed());
            }
            let whole = space.capacity(&core.shape);
            // A chain that has begun holds the log's tail: it gets what others may not have.
            let limit = if step { whole } else { whole / 4 * 3 };
            if bytes > limit {
                return Err(Error::invalid(format!(
                    "a log of {whole} bytes has no room for a change of {bytes} bytes"
                )));
            }
            if space.fits(&core.shape, bytes, limit) {
                space.reserved += bytes;
                return Ok(bytes);
            }
            let before = (space.used(), space.reserved);
            drop(space);
            self.make_room()?;
            let mut space = core.space.lock();
            if (space.used(), space.reserved) == before && !space.fits(&core.shape, bytes, limit) {
                // Others hold what could be written: they are at work, and tell.
                idle += 1;
                if idle > 600 {
                    return Err(Error::invalid("no room in the log: what holds it is not given back"));
                }
                core.room.wait_for(&mut space, Duration::from_millis(100));
            } else {
                idle = 0;
            }
        }
    }
}

impl CommitSink for Journal {
    fn reserve(&self, bytes: u64) -> Result<u64> {
        self.reserve_within(bytes, false)
    }
    fn reserve_step(&self, bytes: u64) -> Result<u64> {
        self.reserve_within(bytes, true)
    }
    fn release(&self, reserved: u64) {
        if reserved > 0 {
            let mut space = self.core.space.lock();
            space.reserved = space.reserved.saturating_sub(reserved);
            drop(space);
            self.core.room.notify_all();
        }
    }

    fn commit(&self, set: &CommitSet<'_>) -> Result<Checkpoint> {
        let core = &self.core;
        loop {
            let closing = core.closing.read();
            let (number, covered) = {
                let open = core.open.lock();
                if open.frees_any(set.dirty) {
                    // What is freed and used again needs a checkpoint between: recovery leaves out all that one which frees it says of a block.
                    let number = open.number;
                    drop((open, closing));
                    core.push(number)?;
                    continue;
                }
                let covered: Vec<Vec<u32>> = set.items.iter().map(|i| open.covered(&i.key()).to_vec()).collect();
                (open.number, covered)
            };
            // All these items belong to this transaction, and the checkpoint is not closed before they are in.
            let formatted: Vec<(Vec<u32>, RegionWriter)> = set
                .items
                .iter()
                .zip(&covered)
                .map(|(item, covered)| {
                    let mut out = RegionWriter::default();
                    (item.format(covered, &mut out), out)
                })
                .collect();
            let mut open = core.open.lock();
            let mut space = core.space.lock();
            if space.failed {
                return Err(failed());
            }
            let added: u64 = formatted.iter().map(|(_, r)| cost(r)).sum();
            let replaced: u64 = set.items.iter().map(|i| open.cost_of(&i.key())).sum();
            let whole = space.capacity(&core.shape);
            let (reserved, bytes) = (space.reserved, space.open_bytes);
            space.reserved = reserved.saturating_sub(set.reserved);
            space.open_bytes = (bytes + added).saturating_sub(replaced);
            if !space.fits(&core.shape, 0, whole) {
                (space.reserved, space.open_bytes) = (reserved, bytes);
                return Err(Error::invalid(format!(
                    "a change of {added} bytes of log, more than the {} that were reserved",
                    set.reserved
                )));
            }
            for (item, (covered, regions)) in set.items.iter().zip(formatted) {
                open.put(item.key(), covered, regions);
            }
            set.dirty.iter().for_each(|key| space.block_dirty(key, number));
            for key in set.freed {
                open.free(key);
                open.held.extend(space.block_freed(key));
            }
            set.intents.iter().for_each(|id| space.intent(*id, number));
            open.held.extend(set.done.iter().filter_map(|id| space.intent_done(*id)));
            return Ok(Checkpoint(number));
        }
    }

    fn relieve(&self) {
        let (bytes, limit) = {
            let space = self.core.space.lock();
            (space.open_bytes, (space.capacity(&self.core.shape) / 8).min(LARGEST_CHECKPOINT))
        };
        if bytes > limit {
            // Where this fails the journal has, and the next who asks is told.
            let _ = self.sync();
        }
    }

    fn wrote_contents(&self) {
        self.core.contents.store(true, Ordering::Release);
    }
    fn force(&self, upto: Checkpoint) -> Result<()> {
        self.core.before_write(upto)
    }
    fn is_durable(&self, upto: Checkpoint) -> bool {
        self.core.space.lock().durable >= upto.0
    }
    fn has_log(&self) -> bool {
        true
    }
    fn is_old(&self, at: Checkpoint) -> bool {
        self.core.space.lock().is_old(at.0)
    }
    fn abort(&self) {
        self.core.space.lock().failed = true;
        self.core.room.notify_all();
    }
}

#[cfg(test)]
mod tests;
