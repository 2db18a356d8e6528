//! Walking a path.

use super::lookup;
use crate::cache::OnDamage;
use crate::error::{Error, Result};
use crate::inode::Inode;
use crate::text::escape;
use crate::units::Ino;
use crate::volume::Volume;

/// Most components of a path.
pub const MAX_COMPONENTS: usize = 4096;

/// The inode at the end of a path, from the root directory or, for a path that does not begin with a slash, from `from`.
/// Symbolic links are not followed.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Invalid`] for a path of more than [`MAX_COMPONENTS`] parts or one that leads through something
/// that is no directory; what [`lookup`] says.
pub fn resolve(volume: &Volume, from: Ino, path: &[u8]) -> Result<Ino> {
    let mut at = if path.starts_with(b"/") { volume.geometry.root_ino } else { from };
    let parts = path.split(|b| *b == b'/').filter(|p| !p.is_empty());
    for (n, part) in parts.enumerate() {
        if n >= MAX_COMPONENTS {
            return Err(Error::invalid(format!("a path of more than {MAX_COMPONENTS} components")));
        }
        let inode = Inode::read(volume, at, OnDamage::Fail)?;
        if !inode.core.is_dir() {
            return Err(Error::invalid(format!("{}: inode {at} on the way is no directory", escape(path))));
        }
        at = lookup(volume, &inode, part)?
            .ok_or_else(|| Error::NotFound(format!("{} in directory {at}", escape(part))))?;
    }
    Ok(at)
}
