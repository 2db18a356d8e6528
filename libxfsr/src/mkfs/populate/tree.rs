//! Copying a directory tree in. The source is walked by open directories and names, links not followed: what changes it meanwhile cannot lead out of it,
//! and no path is too long. In the order of names, so that the same tree makes the same image.

use super::Filling;
use crate::attr::change::How;
use crate::engine::{Handle, New, Node, SetAttr, Time};
use crate::error::{Error, Result};
use crate::text::escape;
use crate::units::Ino;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes of contents that are read at once.
const PIECE: usize = 4 << 20;

/// A directory whose names are being copied.
struct Open {
    source: OwnedFd,
    stat: Stat,
    target: Handle,
    /// In order.
    names: std::vec::IntoIter<CString>,
    /// Bytes of the path that lead here.
    path: usize,
}

struct Copying<'f, 'a> {
    f: &'f mut Filling<'a>,
    /// Where files with more than one name went: by device and number.
    links: HashMap<(u64, u64), Ino>,
    buf: Vec<u8>,
    path: Vec<u8>,
}

/// Why something was left out; what concerns the target ends all.
enum Failure {
    Source(String),
    Target(Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Target(e)
    }
}

fn source(what: &'static str) -> impl Fn(Errno) -> Failure {
    move |e| Failure::Source(format!("{what}: {}", std::io::Error::from(e)))
}

type Attempt<T> = std::result::Result<T, Failure>;

/// Copies what is in a directory into the root, and what the directory is itself.
pub(super) fn copy(f: &mut Filling<'_>, from: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(from, flags, Mode::empty()).map_err(|e| Error::open(from, e))?;
    let root = f.fs.root();
    let path = from.as_os_str().as_bytes().to_vec();
    let mut c = Copying { f, links: HashMap::new(), buf: vec![0; PIECE], path };
    let first = match c.open(top, root) {
        Ok(open) => open,
        Err(Failure::Source(why)) => return Err(Error::open(from, std::io::Error::other(why))),
        Err(Failure::Target(e)) => return Err(e),
    };
    let mut stack = vec![first];
    while let Some(open) = stack.last_mut() {
        c.path.truncate(open.path);
        let Some(name) = open.names.next() else {
            let attempt = c.finish_directory(open);
            stack.pop();
            c.told(attempt)?;
            continue;
        };
        c.path.push(b'/');
        c.path.extend(name.to_bytes());
        let attempt = c.file(open, &name);
        if let Some(Some(below)) = c.told(attempt)? {
            stack.push(below);
        }
    }
    Ok(())
}

impl Copying<'_, '_> {
    /// What cannot be copied is told, and the rest goes on.
    fn told<T>(&mut self, attempt: Attempt<T>) -> Result<Option<T>> {
        match attempt {
            Ok(done) => Ok(Some(done)),
            Err(Failure::Source(why)) => {
                let path = self.path.clone();
                self.f.skip(&path, why);
                Ok(None)
            }
            Err(Failure::Target(e)) => Err(e),
        }
    }

    fn open(&mut self, dir: OwnedFd, target: Handle) -> Attempt<Open> {
        let stat = rustix::fs::fstat(&dir).map_err(source("its state cannot be read"))?;
        let mut names = Vec::new();
        let list = rustix::fs::Dir::read_from(&dir).map_err(source("the directory cannot be read"))?;
        for entry in list {
            let entry = entry.map_err(source("the directory cannot be read to its end"))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable();
        Ok(Open { source: dir, stat, target, names: names.into_iter(), path: self.path.len() })
    }

    /// Copies one name; a directory is given back, to be gone into.
    fn file(&mut self, open: &Open, name: &CStr) -> Attempt<Option<Open>> {
        let stat = rustix::fs::statat(&open.source, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(source("its state cannot be read"))?;
        let (to, disk_name) = (&open.target, name.to_bytes());
        let key = (stat.st_dev, stat.st_ino);
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory
            && stat.st_nlink > 1
            && let Some(ino) = self.links.get(&key)
        {
            let first = self.f.fs.inode(*ino, None)?;
            to.link(disk_name, &first)?;
            self.f.count()?;
            return Ok(None);
        }
        let new = New { permissions: (stat.st_mode & 0o7777) as u16, uid: stat.st_uid, gid: stat.st_gid };
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let mut fd = None;
        let made = match kind {
            FileType::Directory | FileType::RegularFile => {
                // Opened first: what cannot be read is not made.
                let directory = kind == FileType::Directory;
                let extra = if directory { OFlags::DIRECTORY } else { OFlags::NONBLOCK };
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | extra;
                let opened = rustix::fs::openat(&open.source, name, flags, Mode::empty())
                    .map_err(source("it cannot be read"))?;
                let now = rustix::fs::fstat(&opened).map_err(source("its state cannot be read"))?;
                if (now.st_dev, now.st_ino) != key {
                    return Err(Failure::Source("it was replaced while it was copied".into()));
                }
                if directory {
                    let made = to.mkdir(disk_name, &new)?;
                    self.f.count()?;
                    return self.open(opened, made).map(Some);
                }
                let made = to.create(disk_name, &new)?;
                fd = Some(opened);
                made
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&open.source, name, Vec::new())
                    .map_err(source("the link cannot be read"))?;
                if target.to_bytes().len() >= 1024 {
                    return Err(Failure::Source("XFS has no links with targets of more than 1023 bytes".into()));
                }
                to.symlink(disk_name, target.to_bytes(), &new)?
            }
            FileType::Fifo => to.mknod(disk_name, Node::Fifo, &new)?,
            FileType::Socket => to.mknod(disk_name, Node::Socket, &new)?,
            FileType::CharacterDevice => to.mknod(disk_name, Node::Char(device.0, device.1), &new)?,
            FileType::BlockDevice => to.mknod(disk_name, Node::Block(device.0, device.1), &new)?,
            FileType::Unknown => return Err(Failure::Source("it is of no kind that XFS has".into())),
        };
        self.f.count()?;
        if stat.st_nlink > 1 {
            self.links.insert(key, made.ino());
        }
        // Whatever is wrong with the contents, the rest of the file is as it should be.
        let mut attempt = Ok(());
        if let Some(fd) = &fd {
            attempt = self.contents(fd, &stat, &made);
            let attributes = self.xattrs(fd, &made);
            self.told(attributes)?;
        } else {
            self.told_xattrs_of_path(open, name, kind, &made)?;
        }
        self.finish(&stat, &made)?;
        attempt.map(|()| None)
    }

    /// Attributes of what cannot be opened: by its path below an open directory.
    fn told_xattrs_of_path(&mut self, open: &Open, name: &CStr, kind: FileType, to: &Handle) -> Result<()> {
        use std::os::fd::AsRawFd;
        let dir = open.source.as_raw_fd();
        let path = [format!("/proc/self/fd/{dir}/").as_bytes(), name.to_bytes()].concat();
        let Ok(path) = CString::new(path) else { return Ok(()) };
        let list = |buf: &mut [u8]| rustix::fs::llistxattr(&path, buf);
        let get = |name: &CStr, buf: &mut [u8]| rustix::fs::lgetxattr(&path, name, buf);
        let attempt = self.copy_xattrs(&list, &get, to);
        // Some filesystems have none of links and devices.
        if kind == FileType::RegularFile || !matches!(attempt, Err(Failure::Source(_))) {
            self.told(attempt)?;
        }
        Ok(())
    }

    fn xattrs(&mut self, fd: &OwnedFd, to: &Handle) -> Attempt<()> {
        let list = |buf: &mut [u8]| rustix::fs::flistxattr(fd, buf);
        let get = |name: &CStr, buf: &mut [u8]| rustix::fs::fgetxattr(fd, name, buf);
        self.copy_xattrs(&list, &get, to)
    }

    fn copy_xattrs(
        &mut self,
        list: &dyn Fn(&mut [u8]) -> rustix::io::Result<usize>,
        get: &dyn Fn(&CStr, &mut [u8]) -> rustix::io::Result<usize>,
        to: &Handle,
    ) -> Attempt<()> {
        const LONGEST: usize = 65536;
        let mut names = vec![0; LONGEST];
        let length = match list(&mut names) {
            Ok(n) => n,
            Err(Errno::NOTSUP) => return Ok(()),
            Err(e) => return Err(source("its attributes cannot be listed")(e)),
        };
        names.truncate(length);
        let mut all: Vec<&[u8]> = names.split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
        all.sort_unstable();
        for name in all {
            let Ok(c_name) = CString::new(name) else { continue };
            let shown = escape(name);
            let known = [&b"user."[..], b"trusted.", b"security.", b"system.posix_acl_"];
            if !known.iter().any(|prefix| name.starts_with(prefix)) {
                let path = self.path.clone();
                self.f.skip(&path, format!("attribute {shown}: XFS keeps none of that namespace"));
                continue;
            }
            let mut value = vec![0; LONGEST];
            match get(&c_name, &mut value) {
                Ok(n) => value.truncate(n),
                Err(e) => {
                    let path = self.path.clone();
                    self.f.skip(&path, format!("attribute {shown}: {}", std::io::Error::from(e)));
                    continue;
                }
            }
            to.set_xattr(name, &value, How::Upsert)?;
        }
        Ok(())
    }

    /// Contents without their holes.
    fn contents(&mut self, from: &OwnedFd, stat: &Stat, to: &Handle) -> Attempt<()> {
        let unreadable = source("its contents cannot be read");
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let (mut at, mut written) = (0, 0);
        while at < size {
            let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
                Ok(data) => data.min(size),
                Err(Errno::NXIO) => break,
                // No such question there: all of it is contents.
                Err(_) => at,
            };
            let end = rustix::fs::seek(from, SeekFrom::Hole(data)).map_or(size, |hole| hole.min(size)).max(data);
            at = data;
            while at < end {
                let want = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                let Some(piece) = self.buf.get_mut(..want) else { break };
                let n = rustix::io::pread(from.as_fd(), piece, at).map_err(&unreadable)?;
                if n == 0 {
                    to.truncate(at)?;
                    return Err(Failure::Source(format!("it became shorter while it was copied: {at} bytes")));
                }
                let piece = self.buf.get(..n).unwrap_or(&[]);
                let mut done = 0;
                while let Some(rest) = piece.get(done..).filter(|r| !r.is_empty()) {
                    let more = to.write_at(rest, at + done as u64)?;
                    if more == 0 {
                        return Err(Error::NoSpace("contents do not fit".into()).into());
                    }
                    done += more;
                }
                self.f.done.bytes += n as u64;
                at += n as u64;
                written = at;
            }
        }
        if written < size {
            to.truncate(size)?;
        }
        Ok(())
    }

    /// Owner, permissions and times, at last: what was done before has changed them.
    fn finish(&mut self, stat: &Stat, to: &Handle) -> Result<()> {
        let time = |seconds: i64, nanos: u64| Time { seconds, nanos: u32::try_from(nanos).unwrap_or(0) };
        let mtime = time(stat.st_mtime, stat.st_mtime_nsec);
        // Reading changes the time of access: with a fixed time it must not count.
        let atime = self.f.options.now.map_or(time(stat.st_atime, stat.st_atime_nsec), |_| mtime);
        let set = SetAttr {
            permissions: Some((stat.st_mode & 0o7777) as u16),
            uid: Some(stat.st_uid),
            gid: Some(stat.st_gid),
            atime: Some(atime),
            mtime: Some(mtime),
            ..SetAttr::default()
        };
        self.f.attributes(to, set)
    }

    fn finish_directory(&mut self, open: &Open) -> Attempt<()> {
        let attributes = self.xattrs(&open.source, &open.target);
        self.told(attributes)?;
        self.finish(&open.stat, &open.target)?;
        Ok(())
    }
}
