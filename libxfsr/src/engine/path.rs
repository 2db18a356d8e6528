//! Paths, relative to a directory.

use super::Handle;
use crate::dir::MAX_COMPONENTS;
use crate::error::{Error, Result};
use crate::format::inode::FileKind;
use crate::text::escape;

/// Symbolic links that a path may lead through, as in Linux.
const MAX_LINKS: usize = 40;

/// Whether a symbolic link at the end of a path is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follow {
    /// It is: what it leads to is meant.
    Yes,
    /// It is not: the link itself is meant.
    No,
}

impl Handle {
    /// What a path leads to: from this directory, or from the root where it begins with a slash. Symbolic links on the way are followed.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::NotDirectory`]; [`Error::Invalid`] for too many links or components; what is damaged.
    pub fn resolve(&self, path: &[u8], follow: Follow) -> Result<Handle> {
        let root = || self.core.handle(self.core.geometry().root_ino);
        let mut at = if path.starts_with(b"/") { root() } else { self.clone() };
        // What is still to be walked, the last first.
        let mut rest = components(path);
        let (mut steps, mut links) = (0, 0);
        while let Some(part) = rest.pop() {
            steps += 1;
            if steps > MAX_COMPONENTS {
                return Err(Error::invalid(format!("a path of more than {MAX_COMPONENTS} components")));
            }
            let next = at.lookup(&part)?;
            let last = rest.is_empty();
            if (!last || follow == Follow::Yes) && next.stat()?.kind == FileKind::Symlink {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::invalid(format!("{} leads through too many symbolic links", escape(path))));
                }
                let target = next.readlink()?;
                if target.starts_with(b"/") {
                    at = root();
                }
                rest.extend(components(&target));
            } else {
                at = next;
            }
        }
        if path.ends_with(b"/") && at.stat()?.kind != FileKind::Directory {
            return Err(Error::NotDirectory(escape(path)));
        }
        Ok(at)
    }
}

/// The parts of a path, the last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".");
    let mut parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    parts.reverse();
    parts
}
