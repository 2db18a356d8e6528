//! Which unlinked inode is before which in its list: hints, kept in memory, because the lists are linked one way.

use crate::units::{AgIno, Ino};
use parking_lot::Mutex;
use std::collections::HashMap;

/// The hints of a filesystem.
#[derive(Debug, Default)]
pub(crate) struct Before(Mutex<HashMap<Ino, AgIno>>);

impl Before {
    pub(crate) fn get(&self, ino: Ino) -> Option<AgIno> {
        self.0.lock().get(&ino).copied()
    }
    pub(crate) fn set(&self, ino: Ino, before: Option<AgIno>) {
        match before {
            Some(before) => self.0.lock().insert(ino, before),
            None => self.0.lock().remove(&ino),
        };
    }
}
