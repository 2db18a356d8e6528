//! Files: lists, contents, maps, names.

use super::address::at_inode;
use crate::out::say;
use crate::session::{Outcome, Session, number};
use libxfsr::cache::OnDamage;
use libxfsr::dir::{self, resolve};
use libxfsr::error::ForkKind;
use libxfsr::format::dir::FileType;
use libxfsr::inode::{Inode, read_at, symlink_target};
use libxfsr::text::{escape, escape_word};
use libxfsr::units::{FsBlock, Ino};
use std::ops::ControlFlow;

fn text(e: libxfsr::Error) -> String {
    e.to_string()
}

/// The inode at a path: relative to the current inode where that is a directory, else to the root.
pub(crate) fn find(s: &Session, path: &[u8]) -> Result<Ino, String> {
    let here = s.current.as_ref().and_then(|l| l.ino.filter(|i| l.dir == Some(*i)));
    let from = here.unwrap_or(s.volume.geometry.root_ino);
    resolve(&s.volume, from, path).map_err(text)
}

pub(crate) fn load(s: &Session, ino: Ino) -> Result<Inode, String> {
    Inode::read(&s.volume, ino, OnDamage::Keep).map_err(text)
}

pub(crate) fn path(s: &mut Session, a: &[Vec<u8>]) -> Outcome {
    let [path] = a else { return Err("path takes one path".into()) };
    let to = at_inode(s, find(s, path)?)?;
    s.go(to);
    Ok(())
}

fn list(s: &Session, inode: &Inode) -> Outcome {
    let g = &s.volume.geometry;
    let mut failed = Vec::new();
    dir::for_each(&s.volume, inode, OnDamage::Keep, &mut |seen| {
        match seen {
            Ok((address, e)) => {
                let hash = libxfsr::format::dir::hash_name(g, e.name);
                let verdict = if libxfsr::format::dir::is_valid_name(e.name) { "good" } else { "corrupt" };
                say!(
                    s,
                    "{address:<10} {:<18} {:<14} {hash:#010x} {:>3} {} ({verdict})",
                    e.ino,
                    FileType::from_u8(e.ftype).unwrap_or(FileType::Unknown).name(),
                    e.name.len(),
                    escape_word(e.name)
                );
            }
            Err(e) => failed.push(e.to_string()),
        }
        ControlFlow::Continue(())
    })
    .map_err(text)?;
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\nxfsr-db: ")) }
}

pub(crate) fn ls(s: &mut Session, a: &[Vec<u8>]) -> Outcome {
    let (numbers, paths) = match a.split_first() {
        Some((o, rest)) if o == b"-i" => (true, rest),
        Some((o, _)) if o.starts_with(b"-") => return Err(format!("bad option for ls: {}", escape(o))),
        _ => (false, a),
    };
    let one = |ino: Ino| -> Outcome {
        if numbers {
            say!(s, "{ino}");
            return Ok(());
        }
        list(s, &load(s, ino)?)
    };
    if paths.is_empty() {
        return one(s.current_inode()?.ino);
    }
    let mut failed = Vec::new();
    for p in paths {
        if !numbers {
            say!(s, "{}:", escape_word(p));
        }
        if let Err(e) = find(s, p).and_then(&one) {
            failed.push(e);
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\nxfsr-db: ")) }
}

pub(crate) fn cat(s: &mut Session, a: &[Vec<u8>]) -> Outcome {
    let inodes: Vec<Ino> = if a.is_empty() {
        vec![s.current_inode()?.ino]
    } else {
        a.iter().map(|p| find(s, p)).collect::<Result<_, _>>()?
    };
    for ino in inodes {
        let inode = load(s, ino)?;
        if inode.core.is_symlink() {
            s.out.bytes(&symlink_target(&s.volume, &inode).map_err(text)?);
            continue;
        }
        if !inode.core.is_reg() {
            return Err(format!("inode {ino} is no regular file"));
        }
        let (mut buf, mut at) = (vec![0; 1 << 20], 0);
        while !s.out.broken() {
            match read_at(&s.volume, &inode, at, &mut buf).map_err(text)? {
                0 => break,
                n => {
                    s.out.bytes(buf.get(..n).unwrap_or(&buf));
                    at += n as u64;
                }
            }
        }
    }
    Ok(())
}

pub(crate) fn stat(s: &mut Session, a: &[Vec<u8>]) -> Outcome {
    let inodes: Vec<Ino> = if a.is_empty() {
        vec![s.current_inode()?.ino]
    } else {
        a.iter().map(|p| find(s, p)).collect::<Result<_, _>>()?
    };
    for ino in inodes {
        let inode = load(s, ino)?;
        let c = &inode.core;
        say!(s, "inode = {ino}");
        say!(s, "mode = 0{:o}", c.mode.get());
        say!(s, "uid = {}\ngid = {}\nnlink = {}\nprojid = {}", c.uid, c.gid, c.nlink, c.project());
        say!(s, "size = {}\nblocks = {}", c.size, c.nblocks.get() << s.volume.geometry.bb_shift());
        for (name, t) in [("atime", c.atime), ("mtime", c.mtime), ("ctime", c.ctime), ("btime", c.crtime)] {
            let (seconds, nanos) = t.decode(c.bigtime());
            say!(s, "{name} = {seconds}.{nanos:09}");
        }
        if c.is_symlink() {
            say!(s, "target = {}", escape_word(&symlink_target(&s.volume, &inode).map_err(text)?));
        }
        for attr in libxfsr::attr::list(&s.volume, &inode).map_err(text)? {
            match attr.parent() {
                Some((parent, generation)) => {
                    say!(s, "parent = {} in inode {parent}, generation {generation}", escape_word(&attr.name));
                }
                None => {
                    say!(
                        s,
                        "xattr = {}.{} ({} bytes)",
                        attr.flags.namespace(),
                        escape_word(&attr.name),
                        attr.value.len()
                    )
                }
            }
        }
        if let Some(d) = &inode.damage {
            return Err(d.to_string());
        }
    }
    Ok(())
}

/// `bmap [-ad] [block [len]]`.
pub(crate) fn bmap(s: &mut Session, a: &[String]) -> Outcome {
    let mut forks = Vec::new();
    let mut range = Vec::new();
    for o in a {
        match o.as_str() {
            "-d" => forks.push(ForkKind::Data),
            "-a" => forks.push(ForkKind::Attr),
            o if o.starts_with('-') => return Err(format!("bad option for bmap: {}", escape(o.as_bytes()))),
            n => range.push(number(n)?),
        }
    }
    if forks.is_empty() {
        forks = vec![ForkKind::Data, ForkKind::Attr];
    }
    let (from, to) = match range[..] {
        [] => (0, u64::MAX),
        [block] => (block, block.saturating_add(1)),
        [block, length] => (block, block.saturating_add(length)),
        _ => return Err("bmap [-ad] [block [len]]".into()),
    };
    let inode = s.current_inode()?;
    for fork in forks {
        let name = if fork == ForkKind::Data { "data" } else { "attr" };
        for e in inode.extents(&s.volume, fork).map_err(text)? {
            let (first, end) = (e.offset.max(from), e.offset.saturating_add(e.count).min(to));
            if first >= end {
                continue;
            }
            let start = e.start.saturating_add(first - e.offset);
            let (ag, b) = s.volume.geometry.split(FsBlock(start));
            let flag = u8::from(e.unwritten);
            say!(s, "{name} offset {first} startblock {start} ({ag}/{b}) count {} flag {flag}", end - first);
        }
    }
    Ok(())
}
