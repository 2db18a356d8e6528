//! Changes of the filesystem: through its journal, one command at a time, so that each is there wholly or not at all whatever happens.

use crate::location::Location;
use crate::out::complain;
use crate::session::{Outcome, Session};
use libxfsr::cache::OnDamage;
use libxfsr::control::Control;
use libxfsr::inode::Inode;
use libxfsr::journal::{Journal, Options};
use libxfsr::space::Space;
use libxfsr::target::{Access, FileTarget, Target};
use libxfsr::txn::Scope;
use libxfsr::units::Ino;
use libxfsr::volume::{DEFAULT_CACHE, Devices, Volume};
use std::path::Path;
use std::sync::Arc;

/// Whether commands may change the filesystem.
#[derive(Clone, Debug)]
pub(crate) enum Writing {
    /// Not without `-x`.
    Off,
    /// `-x` was given, and `-r` too.
    ReadOnly,
    /// These devices.
    On(Devices),
}

impl Session {
    /// The devices, where they may be written to.
    pub(crate) fn writable(&self) -> Result<Devices, String> {
        match &self.writing {
            Writing::Off => Err("writing needs expert mode: start the program with -x".into()),
            Writing::ReadOnly => Err("opened for reading only (-r)".into()),
            Writing::On(devices) => Ok(devices.clone()),
        }
    }

    /// Changes the filesystem: `act` commits one transaction, or a chain of them. What was read before is read anew.
    pub(crate) fn change<T>(
        &mut self,
        act: impl FnOnce(&Scope, &Arc<Space>) -> libxfsr::Result<T>,
    ) -> Result<T, String> {
        let devices = self.writable()?;
        let done = journaled(&devices, act).map_err(|e| e.to_string());
        self.reopen(&devices);
        done
    }

    /// Does something to the whole filesystem past its journal.
    pub(crate) fn with_volume<T>(
        &mut self,
        act: impl FnOnce(&mut Volume, &Control<'_>) -> libxfsr::Result<T>,
    ) -> Result<T, String> {
        let devices = self.writable()?;
        let done = self.watched(|control| act(&mut open(&devices, control)?, control)).map_err(|e| e.to_string());
        self.reopen(&devices);
        done
    }

    /// Writes the bytes of a position, durably, past the journal.
    pub(crate) fn write(&mut self, to: &Location, bytes: &[u8]) -> Outcome {
        let devices = self.writable()?;
        let put = || -> libxfsr::Result<()> {
            let target = FileTarget::open(&devices.data, Access::Write)?;
            let (mut rest, mut skip) = (bytes, to.offset);
            for (daddr, sectors) in to.pieces() {
                let room = u64::from(sectors) * 512;
                let left = room.saturating_sub(skip);
                let (head, tail) = rest.split_at(rest.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                if !head.is_empty() {
                    target.write_at(head, daddr.bytes() + skip)?;
                }
                (rest, skip) = (tail, skip.saturating_sub(room));
            }
            target.flush()
        };
        put().map_err(|e| e.to_string())?;
        self.reopen(&devices);
        Ok(())
    }

    /// What was written may be what the filesystem was opened by. Where it can no longer be opened, it goes on as it was.
    fn reopen(&mut self, devices: &Devices) {
        match self.watched(|control| Volume::open_with(devices, control)) {
            Ok(volume) => self.volume = volume,
            Err(e) => complain!(self, "the filesystem cannot be opened as it is now: {e}"),
        }
        self.usage = None;
    }

    /// An inode that can be used, to be changed.
    pub(crate) fn inode_in_use(&self) -> Result<Ino, String> {
        let ino = self.current.as_ref().and_then(|l| l.ino).ok_or("no current inode")?;
        let inode = Inode::read(&self.volume, ino, OnDamage::Fail).map_err(|e| e.to_string())?;
        if inode.core.is_free() { Err(format!("inode {ino} is free")) } else { Ok(ino) }
    }
}

/// Opens the devices to write.
fn open(devices: &Devices, control: &Control<'_>) -> libxfsr::Result<Volume> {
    let open =
        |path: &Path| -> libxfsr::Result<Arc<dyn Target>> { Ok(Arc::new(FileTarget::open(path, Access::Write)?)) };
    let log = devices.log.as_deref().map(open).transpose()?;
    let rt = devices.realtime.as_deref().map(open).transpose()?;
    Volume::from_targets_with(open(&devices.data)?, log, rt, DEFAULT_CACHE, control)
}

/// Opens the devices to write, changes something, and closes the log.
fn journaled<T>(devices: &Devices, act: impl FnOnce(&Scope, &Arc<Space>) -> libxfsr::Result<T>) -> libxfsr::Result<T> {
    let volume = Arc::new(open(devices, &Control::none())?);
    let journal = Journal::open(volume.clone(), &Options::default())?;
    let scope = Scope::new(volume.clone(), journal.clone());
    let space = Space::open(&volume)?;
    let result = act(&scope, &space);
    space.settle(&scope)?;
    journal.close()?;
    result
}
