//! Changes of the filesystem: through its journal, one command at a time, so that each is there wholly or not at all whatever happens.

use crate::session::Session;
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
    /// Changes the filesystem: `act` commits one transaction, or a chain of them. What was read before is read anew.
    pub(crate) fn change<T>(
        &mut self,
        act: impl FnOnce(&Scope, &Arc<Space>) -> libxfsr::Result<T>,
    ) -> Result<T, String> {
        let devices = match &self.writing {
            Writing::Off => return Err("the filesystem may be changed only with -x".into()),
            Writing::ReadOnly => return Err("opened for reading only (-r)".into()),
            Writing::On(devices) => devices.clone(),
        };
        let done = journaled(&devices, act).map_err(|e| e.to_string())?;
        self.volume = Volume::open_with(&devices, &Control::none()).map_err(|e| e.to_string())?;
        self.usage = None;
        Ok(done)
    }

    /// An inode that can be used, to be changed.
    pub(crate) fn inode_in_use(&self) -> Result<Ino, String> {
        let ino = self.current.as_ref().and_then(|l| l.ino).ok_or("no current inode")?;
        let inode = Inode::read(&self.volume, ino, OnDamage::Fail).map_err(|e| e.to_string())?;
        if inode.core.is_free() { Err(format!("inode {ino} is free")) } else { Ok(ino) }
    }
}

/// Opens the devices to write, changes something, and closes the log.
fn journaled<T>(devices: &Devices, act: impl FnOnce(&Scope, &Arc<Space>) -> libxfsr::Result<T>) -> libxfsr::Result<T> {
    let open =
        |path: &Path| -> libxfsr::Result<Arc<dyn Target>> { Ok(Arc::new(FileTarget::open(path, Access::Write)?)) };
    let log = devices.log.as_deref().map(open).transpose()?;
    let rt = devices.realtime.as_deref().map(open).transpose()?;
    let volume = Arc::new(Volume::from_targets(open(&devices.data)?, log, rt, DEFAULT_CACHE)?);
    let journal = Journal::open(volume.clone(), &Options::default())?;
    let scope = Scope::new(volume.clone(), journal.clone());
    let space = Space::open(&volume)?;
    let result = act(&scope, &space);
    space.settle(&scope)?;
    journal.close()?;
    result
}
