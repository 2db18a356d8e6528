//! Names of inodes: one walk through the directories, used by `ncheck` and by `blockget -n`.

use super::files::load;
use crate::out::{complain, say};
use crate::session::{Outcome, Session, number};
use libxfsr::cache::OnDamage;
use libxfsr::control::Control;
use libxfsr::dir;
use libxfsr::format::inode::FileKind;
use libxfsr::inode::Inode;
use libxfsr::text::{escape, escape_word};
use libxfsr::units::Ino;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

/// Where each inode was seen first: the directory above and the name in it.
#[derive(Debug, Default)]
pub(crate) struct Names {
    first: HashMap<Ino, (Ino, Vec<u8>)>,
    root: Ino,
}

/// Directories above each other that a path may have: a loop of damage is longer.
const MAX_DEPTH: usize = 4096;

impl Names {
    /// The path of an inode below the root; none where no directory names it.
    pub(crate) fn path(&self, ino: Ino) -> Option<Vec<u8>> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut at = ino;
        while at != self.root {
            let (above, name) = self.first.get(&at)?;
            parts.push(name);
            at = *above;
            if parts.len() > MAX_DEPTH {
                return None;
            }
        }
        parts.reverse();
        Some(parts.join(&b'/'))
    }
}

/// What the walk meets: an entry with the directory above and what the inode is, or what cannot be read.
enum Met<'a> {
    Entry { above: Ino, path: &'a [u8], name: &'a [u8], ino: Ino, is_dir: bool, set_id: bool },
    Failed(String),
}

fn walk(s: &Session, control: &Control<'_>, each: &mut dyn FnMut(Met<'_>)) -> Outcome {
    let mut visited = HashSet::new();
    let mut entries = 0;
    let mut stack = vec![(s.volume.geometry.root_ino, Vec::new())];
    while let Some((above, path)) = stack.pop() {
        // A directory that is reached twice is damage, and would be an endless walk.
        if !visited.insert(above) {
            each(Met::Failed(format!("directory {above} is reached twice, at {}", escape_word(&path))));
            continue;
        }
        let inode = match load(s, above) {
            Ok(i) => i,
            Err(e) => {
                each(Met::Failed(e));
                continue;
            }
        };
        let walked = dir::for_each(&s.volume, &inode, OnDamage::Keep, &mut |seen| {
            if control.check().is_err() {
                return ControlFlow::Break(());
            }
            entries += 1;
            control.tell("names", entries, None);
            match seen {
                Ok((_, e)) if matches!(e.name, b"." | b"..") => {}
                Ok((_, e)) => {
                    let child = Inode::read(&s.volume, e.ino, OnDamage::Keep);
                    let is_dir = child.as_ref().is_ok_and(|c| c.core.is_dir());
                    // As xfs_db has it: what could give rights away, so devices, pipes and sockets too.
                    let set_id = child.as_ref().is_ok_and(|c| match c.core.kind() {
                        Some(FileKind::Regular) => c.core.mode.get() & 0o6000 != 0,
                        Some(FileKind::Directory | FileKind::Symlink) | None => false,
                        _ => true,
                    });
                    each(Met::Entry { above, path: &path, name: e.name, ino: e.ino, is_dir, set_id });
                    match child {
                        Err(e) => each(Met::Failed(e.to_string())),
                        Ok(_) if is_dir => stack.push((e.ino, join(&path, e.name))),
                        Ok(_) => {}
                    }
                }
                Err(e) => each(Met::Failed(e.to_string())),
            }
            ControlFlow::Continue(())
        });
        if let Err(e) = walked {
            each(Met::Failed(e.to_string()));
        }
        control.check().map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// Collects where each inode is.
pub(crate) fn collect(s: &Session, control: &Control<'_>) -> Result<Names, String> {
    let mut names = Names { root: s.volume.geometry.root_ino, ..Names::default() };
    walk(s, control, &mut |met| match met {
        Met::Entry { above, name, ino, .. } => {
            names.first.entry(ino).or_insert_with(|| (above, name.to_vec()));
        }
        Met::Failed(e) => complain!(s, "{e}"),
    })?;
    Ok(names)
}

/// `ncheck [-s] [-i number]...`.
pub(crate) fn ncheck(s: &mut Session, a: &[String]) -> Outcome {
    let (mut wanted, mut only_set_id) = (HashSet::new(), false);
    let mut rest = a.iter();
    while let Some(o) = rest.next() {
        match o.as_str() {
            "-s" => only_set_id = true,
            "-i" => drop(wanted.insert(number(rest.next().ok_or("-i needs an inode number")?)?)),
            o => return Err(format!("bad option for ncheck: {}", escape(o.as_bytes()))),
        }
    }
    let mut failed = Vec::new();
    let mut each = |met: Met<'_>| match met {
        Met::Entry { path, name, ino, is_dir, set_id, .. } => {
            if (wanted.is_empty() || wanted.contains(&ino.0)) && (!only_set_id || set_id) {
                say!(s, "{ino:>11} {}{}", escape_word(&join(path, name)), if is_dir { "/." } else { "" });
            }
        }
        Met::Failed(e) => failed.push(e),
    };
    s.watched(|control| walk(s, control, &mut each))?;
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\nxfsr-db: ")) }
}
