//! Getting files out. Nothing is ever created outside the destination: each name is checked, and every path is opened below a
//! descriptor with the kernel forbidden to leave it or to follow a symbolic link.

use super::files::{find, load};
use crate::out::complain;
use crate::session::{Outcome, Session};
use libxfsr::attr;
use libxfsr::cache::OnDamage;
use libxfsr::control::Control;
use libxfsr::error::ForkKind;
use libxfsr::format::dir::is_valid_name;
use libxfsr::format::inode::{FileKind, device_numbers, fork_bytes};
use libxfsr::inode::{Inode, read_at, symlink_target};
use libxfsr::text::{escape, escape_word};
use libxfsr::units::Ino;
use libxfsr::volume::Volume;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

/// Directories inside each other; each holds a descriptor open.
const MAX_DEPTH: usize = 256;

fn beneath(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(dir, name, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, mode, resolve)
}

struct Dump<'s> {
    session: &'s Session,
    volume: &'s Volume,
    destination: OwnedFd,
    /// Where an inode with several names was written first.
    written: HashMap<Ino, Vec<u8>>,
    /// Directories that were written: each has one name, or the image is damaged or hostile.
    entered: HashSet<Ino>,
    /// Things that could not be restored.
    failed: u64,
    /// Stop at the first of them.
    strict: bool,
    control: &'s Control<'s>,
    /// Files and directories that were begun.
    begun: u64,
}

/// `rdump [-s] [path...] directory`.
pub(crate) fn command(s: &mut Session, a: &[Vec<u8>]) -> Outcome {
    let (strict, rest) = match a.split_first() {
        Some((o, rest)) if o == b"-s" => (true, rest),
        Some((o, _)) if o.starts_with(b"-") => return Err(format!("bad option for rdump: {}", escape(o))),
        _ => (false, a),
    };
    let Some((to, paths)) = rest.split_last() else { return Err("rdump [-s] [path...] directory".into()) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let destination = rustix::fs::openat(CWD, to.as_slice(), flags, Mode::empty())
        .map_err(|e| format!("destination {}: {e}", escape(to)))?;
    let mut sources = Vec::new();
    for p in paths {
        let name = p.rsplit(|b| *b == b'/').find(|c| !c.is_empty() && *c != b".").unwrap_or_default().to_vec();
        sources.push((find(s, p)?, name));
    }
    if sources.is_empty() {
        sources.push((s.current_inode()?.ino, Vec::new()));
    }
    let s = &*s;
    s.watched(|control| dump(s, control, destination, sources, strict))
}

fn dump(
    s: &Session,
    control: &Control<'_>,
    destination: OwnedFd,
    sources: Vec<(Ino, Vec<u8>)>,
    strict: bool,
) -> Outcome {
    let mut dump = Dump {
        session: s,
        volume: &s.volume,
        destination,
        written: HashMap::new(),
        entered: HashSet::new(),
        failed: 0,
        strict,
        control,
        begun: 0,
    };
    for (ino, name) in sources {
        if dump.stopped() {
            break;
        }
        dump.entered.clear();
        let inode = load(s, ino)?;
        let root = dump.destination.try_clone().map_err(|e| e.to_string())?;
        if inode.core.is_dir() && (name.is_empty() || ino == s.volume.geometry.root_ino) {
            if let Some(d) = &inode.damage {
                dump.fail(b".", d);
            }
            // The directory's own contents go into the destination, which takes its attributes.
            dump.children(&inode, root.as_fd(), b"", 0);
            if !dump.stopped() {
                dump.attributes(&inode, &root, b".");
            }
        } else {
            let name = if name.is_empty() { ino.to_string().into_bytes() } else { name };
            dump.entry(ino, root.as_fd(), b"", &name, 0);
        }
    }
    control.check().map_err(|e| format!("rdump: {e}: what was written is not complete"))?;
    match dump.failed {
        0 => Ok(()),
        n if strict => Err(format!("rdump: stopped at the first of the failures ({n} told)")),
        n => Err(format!("rdump: {n} things could not be restored")),
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

impl Dump<'_> {
    /// Tells what could not be restored.
    fn fail(&mut self, path: &[u8], what: impl std::fmt::Display) {
        self.failed += 1;
        complain!(self.session, "rdump: {}: {what}", shown(path));
    }

    fn stopped(&self) -> bool {
        self.strict && self.failed > 0 || self.control.check().is_err()
    }

    fn children(&mut self, dir: &Inode, to: BorrowedFd<'_>, path: &[u8], depth: usize) {
        if depth >= MAX_DEPTH {
            return self
                .fail(path, format_args!("more than {MAX_DEPTH} directories inside each other; dump it by its path"));
        }
        if !self.entered.insert(dir.ino) {
            return self.fail(path, format_args!("directory {} was written before: it has two names", dir.ino));
        }
        let mut names = Vec::new();
        let mut damage = Vec::new();
        let walked = libxfsr::dir::for_each(self.volume, dir, OnDamage::Keep, &mut |seen| {
            match seen {
                Ok((_, e)) => names.push((e.ino, e.name.to_vec())),
                Err(e) => damage.push(e.to_string()),
            }
            ControlFlow::Continue(())
        });
        damage.extend(walked.err().map(|e| e.to_string()));
        for d in damage {
            self.fail(path, d);
        }
        let mut used = HashSet::new();
        // The first two entries are the directory itself and the one above, wherever they claim to lead.
        for (i, (ino, name)) in names.into_iter().enumerate() {
            if self.stopped() {
                break;
            }
            match name.as_slice() {
                b"." | b".." if i < 2 => {}
                _ if !used.insert(name.clone()) => {
                    self.fail(
                        &join(path, &name),
                        format_args!("refused: the directory has this name twice; inode {ino}"),
                    );
                }
                _ => self.entry(ino, to, path, &name, depth),
            }
        }
    }

    fn entry(&mut self, ino: Ino, to: BorrowedFd<'_>, path: &[u8], name: &[u8], depth: usize) {
        let full = join(path, name);
        self.begun += 1;
        self.control.tell("files", self.begun, None);
        if !is_valid_name(name) || matches!(name, b"." | b"..") {
            return self.fail(&full, "refused: this cannot be the name of a file");
        }
        let inode = match Inode::read(self.volume, ino, OnDamage::Keep) {
            Ok(i) => i,
            Err(e) => return self.fail(&full, e),
        };
        if let Some(d) = &inode.damage {
            self.fail(&full, d);
        }
        if let Err(e) = self.create(&inode, to, &full, name, depth) {
            self.fail(&full, e);
        }
    }

    fn create(
        &mut self,
        inode: &Inode,
        to: BorrowedFd<'_>,
        full: &[u8],
        name: &[u8],
        depth: usize,
    ) -> Result<(), String> {
        let text = |e: rustix::io::Errno| e.to_string();
        let kind = inode.core.kind().ok_or_else(|| format!("inode {} is free or has no kind of file", inode.ino))?;
        let several = kind != FileKind::Directory && inode.core.nlink.get() > 1;
        if several
            && let Some(first) = self.written.get(&inode.ino)
            && self.link(first, to, name).is_ok()
        {
            return Ok(());
        }
        let private = Mode::RUSR | Mode::WUSR;
        match kind {
            FileKind::Directory => {
                match rustix::fs::mkdirat(to, name, private | Mode::XUSR) {
                    Err(rustix::io::Errno::EXIST) | Ok(()) => {}
                    Err(e) => return Err(e.to_string()),
                }
                let sub = beneath(to, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).map_err(text)?;
                self.children(inode, sub.as_fd(), full, depth + 1);
            }
            FileKind::Regular => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let file = beneath(to, name, flags, private).map_err(text)?;
                self.contents(inode, std::fs::File::from(file), full);
            }
            FileKind::Symlink => {
                let target = symlink_target(self.volume, inode).map_err(|e| e.to_string())?;
                rustix::fs::symlinkat(target.as_slice(), to, name).map_err(text)?;
            }
            FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {
                let file_type = match kind {
                    FileKind::Fifo => FileType::Fifo,
                    FileKind::Socket => FileType::Socket,
                    FileKind::CharDevice => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                let (major, minor) = device_numbers(fork_bytes(&inode.bytes, ForkKind::Data)).unwrap_or((0, 0));
                let device = match kind {
                    FileKind::CharDevice | FileKind::BlockDevice => rustix::fs::makedev(major, minor),
                    _ => 0,
                };
                rustix::fs::mknodat(to, name, file_type, private, device).map_err(text)?;
            }
        }
        if several {
            self.written.insert(inode.ino, full.to_vec());
        }
        if self.stopped() {
            return Ok(());
        }
        let made = beneath(to, name, OFlags::PATH, Mode::empty()).map_err(text)?;
        self.attributes(inode, &made, full);
        Ok(())
    }

    fn link(&self, first: &[u8], to: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
        let (parent, last) = match first.iter().rposition(|b| *b == b'/') {
            Some(i) => first.split_at(i),
            None => (&b"."[..], first),
        };
        let last = last.strip_prefix(b"/").unwrap_or(last);
        let parent = beneath(self.destination.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        rustix::fs::linkat(parent, last, to, name, AtFlags::empty())
    }

    /// Writes what has blocks; the rest stays a hole.
    fn contents(&mut self, inode: &Inode, file: std::fs::File, full: &[u8]) {
        let size = inode.size();
        if let Err(e) = file.set_len(size) {
            return self.fail(full, e);
        }
        let extents = match inode.extents(self.volume, ForkKind::Data) {
            Ok(e) => e,
            Err(e) => return self.fail(full, e),
        };
        let log = self.volume.geometry.block_log;
        let mut buf = vec![0; 1 << 20];
        let mut done = 0;
        for e in extents.iter().filter(|e| !e.unwritten) {
            // Behind the size, and what a corrupt map names twice, is not read.
            let byte = |block: u64| block.saturating_mul(1 << log).min(size);
            let (mut at, end) = (byte(e.offset).max(done), byte(e.offset.saturating_add(e.count)));
            while at < end {
                if let Err(e) = self.control.check() {
                    return self.fail(full, e);
                }
                self.control.tell("files", self.begun, None);
                let n = (end - at).min(buf.len() as u64) as usize;
                let part = buf.get_mut(..n).unwrap_or(&mut []);
                match read_at(self.volume, inode, at, part) {
                    Ok(_) => {
                        if let Err(e) = file.write_all_at(part, at) {
                            return self.fail(full, e);
                        }
                    }
                    Err(e) => self.fail(full, format_args!("{n} bytes at {at} are missing: {e}")),
                }
                at += n as u64;
            }
            done = done.max(end);
        }
    }

    /// Owner, mode, extended attributes, times: times last, since the others change them.
    fn attributes(&mut self, inode: &Inode, made: &OwnedFd, full: &[u8]) {
        let c = &inode.core;
        // Through /proc the attributes of anything can be set without opening it; the last component is our descriptor.
        let own = format!("/proc/self/fd/{}", made.as_raw_fd());
        let follow = AtFlags::empty();
        let symlink = c.is_symlink();
        let (uid, gid) = (Uid::from_raw(c.uid.get()), Gid::from_raw(c.gid.get()));
        if let Err(e) = rustix::fs::chownat(made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH) {
            self.fail(full, format_args!("owner {}:{}: {e}", c.uid, c.gid));
        }
        if !symlink
            && let Err(e) =
                rustix::fs::chmodat(CWD, own.as_str(), Mode::from_raw_mode(u32::from(c.mode.get() & 0o7777)), follow)
        {
            self.fail(full, format_args!("mode: {e}"));
        }
        let mut attrs = Vec::new();
        let mut damage = Vec::new();
        let walked = attr::for_each(self.volume, inode, OnDamage::Keep, &mut |a| {
            match a {
                Ok(a) => attrs.push(a),
                Err(e) => damage.push(e.to_string()),
            }
            ControlFlow::Continue(())
        });
        damage.extend(walked.err().map(|e| e.to_string()));
        for d in damage {
            self.fail(full, d);
        }
        for a in attrs {
            let (name, value) = match (a.acl_name(), a.linux_name()) {
                (Some(name), _) => (name.to_vec(), a.acl_value()),
                (None, Some(name)) => (name, Some(a.value)),
                // A parent pointer describes where the file was, not where it is now.
                (None, None) => continue,
            };
            let Some(value) = value else {
                self.fail(full, format_args!("{} is no list that Linux knows", escape(&name)));
                continue;
            };
            if let Err(e) = rustix::fs::setxattr(own.as_str(), name.as_slice(), &value, XattrFlags::empty()) {
                self.fail(full, format_args!("attribute {}: {e}", escape(&name)));
            }
        }
        let time = |t: libxfsr::format::inode::Timestamp| {
            let (s, n) = t.decode(c.bigtime());
            Timespec { tv_sec: s, tv_nsec: i64::from(n) }
        };
        let times = Timestamps { last_access: time(c.atime), last_modification: time(c.mtime) };
        let set = if symlink {
            rustix::fs::utimensat(made, "", &times, AtFlags::EMPTY_PATH)
        } else {
            rustix::fs::utimensat(CWD, own.as_str(), &times, follow)
        };
        if let Err(e) = set {
            self.fail(full, format_args!("times: {e}"));
        }
    }
}

/// A path in words that can be typed back, unless nobody would: of one that is longer than any system call takes, both ends.
fn shown(path: &[u8]) -> String {
    let (whole, most) = (escape_word(path), 4096);
    if whole.len() <= most {
        return whole;
    }
    let (length, end) = (whole.chars().count(), 200);
    let head: String = whole.chars().take(end).collect();
    let tail: String = whole.chars().skip(length - end).collect();
    format!("{head} [{} bytes left out] {tail}", whole.len() - head.len() - tail.len())
}
