//! What a program does with an image: list a directory, copy a tree in, clone a file, extract one.
//!
//! ```text
//! files IMAGE ls PATH
//! files IMAGE put DIRECTORY PATH
//! files IMAGE clone FROM TO
//! files IMAGE get PATH FILE
//! ```

use libxfsr::engine::{Filesystem, Follow, Handle, New, Options};
use libxfsr::format::inode::FileKind;
use libxfsr::text::escape;
use libxfsr::volume::Devices;
use libxfsr::{Error, Result};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [image, "ls", path] => list(&Filesystem::open_read_only(&Devices::data(image), &Options::default())?, path),
        [image, "get", path, to] => {
            get(&Filesystem::open_read_only(&Devices::data(image), &Options::default())?, path, Path::new(to))
        }
        [image, "put", from, path] => changed(image, |fs| put(&directory(fs, path)?, Path::new(from))),
        [image, "clone", from, to] => changed(image, |fs| clone(fs, from, to)),
        _ => Err(Error::invalid("files IMAGE ls PATH | put DIRECTORY PATH | clone FROM TO | get PATH FILE")),
    }
}

/// Opens an image, which recovers it where that is needed, and closes it in the end.
fn changed(image: &str, act: impl FnOnce(&Filesystem) -> Result<()>) -> Result<()> {
    let fs = Filesystem::open(&Devices::data(image), &Options::default())?;
    act(&fs)?;
    fs.close()
}

fn directory(fs: &Filesystem, path: &str) -> Result<Handle> {
    fs.root().resolve(path.as_bytes(), Follow::Yes)
}

fn list(fs: &Filesystem, path: &str) -> Result<()> {
    let dir = directory(fs, path)?;
    for entry in dir.read_dir()? {
        let entry = entry?;
        let s = fs.inode(entry.ino, None)?.stat()?;
        println!(
            "{:>10} {:>4o} {:>5} {:>5} {:>12} {}",
            s.ino,
            s.permissions,
            s.uid,
            s.gid,
            s.size,
            escape(&entry.name)
        );
    }
    Ok(())
}

/// Copies a directory of the host into one of the image.
fn put(to: &Handle, from: &Path) -> Result<()> {
    let failed = |e| Error::open(from, e);
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, name) = (entry.path(), entry.file_name());
        let meta = entry.metadata().map_err(|e| Error::open(&path, e))?;
        let new = New::mode((meta.permissions().mode() & 0o7777) as u16);
        if meta.is_dir() {
            put(&to.mkdir(name.as_bytes(), &new)?, &path)?;
        } else if meta.is_symlink() {
            let target = std::fs::read_link(&path).map_err(|e| Error::open(&path, e))?;
            to.symlink(name.as_bytes(), target.as_os_str().as_bytes(), &new)?;
        } else if meta.is_file() {
            let file = to.create(name.as_bytes(), &new)?;
            let mut source = std::fs::File::open(&path).map_err(|e| Error::open(&path, e))?;
            let mut buf = vec![0; 1 << 20];
            loop {
                match source.read(&mut buf).map_err(|e| Error::open(&path, e))? {
                    0 => break,
                    n => drop(file.append(&buf[..n])?),
                }
            }
        }
    }
    Ok(())
}

/// The new file takes no space: it shares all blocks until one of both is written to.
fn clone(fs: &Filesystem, from: &str, to: &str) -> Result<()> {
    let source = fs.root().resolve(from.as_bytes(), Follow::Yes)?;
    let (dir, name) = to.rsplit_once('/').unwrap_or(("/", to));
    let file = directory(fs, dir)?.create(name.as_bytes(), &New::mode(source.stat()?.permissions))?;
    file.clone_of(&source)
}

fn get(fs: &Filesystem, path: &str, to: &Path) -> Result<()> {
    let file = fs.root().resolve(path.as_bytes(), Follow::Yes)?;
    if file.stat()?.kind != FileKind::Regular {
        return Err(Error::invalid(format!("{path} is no regular file")));
    }
    let mut out = std::fs::File::create(to).map_err(|e| Error::open(to, e))?;
    let (mut buf, mut at) = (vec![0; 1 << 20], 0);
    loop {
        match file.read_at(&mut buf, at)? {
            0 => return Ok(()),
            n => {
                out.write_all(&buf[..n]).map_err(|e| Error::open(to, e))?;
                at += n as u64;
            }
        }
    }
}
