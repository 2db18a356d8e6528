//! What a kernel shows of an image: one entry per inode path, taken through a mount.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Files longer than this are not hashed.
pub const HASH_LIMIT: u64 = 1 << 28;

/// One name of one inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path below the root, without a leading slash; empty for the root itself.
    pub path: Vec<u8>,
    /// `file`, `dir`, `symlink`, `fifo`, `socket`, `char` or `block`.
    pub kind: String,
    /// Inode number.
    pub ino: u64,
    /// The whole mode, with the type.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of links.
    pub nlink: u64,
    /// Length in bytes.
    pub size: u64,
    /// Used 512-byte blocks, as stat tells.
    pub blocks: u64,
    /// Time of the last change of contents, in nanoseconds since 1970.
    pub mtime: i128,
    /// Time of the last change of the inode, in nanoseconds since 1970.
    pub ctime: i128,
    /// Major and minor number of a device node.
    pub rdev: Option<(u32, u32)>,
    /// Where a symbolic link points.
    pub target: Option<Vec<u8>>,
    /// SHA-256 of a regular file's contents, as hex; `None` where the file is longer than [`HASH_LIMIT`].
    pub sha256: Option<String>,
    /// All extended attributes that root sees, by name with namespace.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Entry {
    /// One line of JSON. Bytes that are not UTF-8 stand as hex in a key with the suffix `_hex`.
    pub fn to_json(&self) -> Value {
        let mut v = json!({
            "kind": self.kind, "ino": self.ino, "mode": self.mode, "uid": self.uid, "gid": self.gid, "nlink": self.nlink,
            "size": self.size, "blocks": self.blocks, "mtime": self.mtime.to_string(), "ctime": self.ctime.to_string(),
        });
        put(&mut v, "path", &self.path);
        if let Some((major, minor)) = self.rdev {
            v["rdev"] = json!([major, minor]);
        }
        if let Some(target) = &self.target {
            put(&mut v, "target", target);
        }
        if let Some(sum) = &self.sha256 {
            v["sha256"] = json!(sum);
        }
        if !self.xattrs.is_empty() {
            let all = self.xattrs.iter().map(|(name, value)| {
                let mut one = json!({ "value_hex": hex(value) });
                put(&mut one, "name", name);
                one
            });
            v["xattrs"] = all.collect();
        }
        v
    }

    /// Reads back what [`Entry::to_json`] made.
    pub fn from_json(v: &Value) -> Result<Entry> {
        let number = |key: &str| v[key].as_u64().with_context(|| format!("manifest: no number {key}"));
        let time = |key: &str| -> Result<i128> { Ok(v[key].as_str().context("manifest: no time")?.parse()?) };
        let mut xattrs = BTreeMap::new();
        for one in v["xattrs"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let name = get(one, "name").context("manifest: an attribute without name")?;
            xattrs.insert(name, get(one, "value").context("manifest: an attribute without value")?);
        }
        let rdev = v["rdev"].as_array().map(|r| (r[0].as_u64().unwrap_or(0) as u32, r[1].as_u64().unwrap_or(0) as u32));
        Ok(Entry {
            path: get(v, "path").context("manifest: no path")?,
            kind: v["kind"].as_str().unwrap_or_default().to_owned(),
            ino: number("ino")?,
            mode: number("mode")? as u32,
            uid: number("uid")? as u32,
            gid: number("gid")? as u32,
            nlink: number("nlink")?,
            size: number("size")?,
            blocks: number("blocks")?,
            mtime: time("mtime")?,
            ctime: time("ctime")?,
            rdev,
            target: get(v, "target"),
            sha256: v["sha256"].as_str().map(String::from),
            xattrs,
        })
    }
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn put(v: &mut Value, key: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(s) => v[key] = json!(s),
        Err(_) => v[format!("{key}_hex")] = json!(hex(bytes)),
    }
}

fn get(v: &Value, key: &str) -> Option<Vec<u8>> {
    if let Some(s) = v[key].as_str() {
        return Some(s.as_bytes().to_vec());
    }
    let s = v[format!("{key}_hex")].as_str()?;
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(s.get(i..i + 2)?, 16).ok()).collect()
}

/// Walks a mounted filesystem, names in byte order.
pub fn walk(root: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut hashes = BTreeMap::new();
    let mut stack = vec![Vec::new()];
    while let Some(path) = stack.pop() {
        let full = if path.is_empty() { root.to_path_buf() } else { root.join(OsStr::from_bytes(&path)) };
        let entry = entry(&full, &path, &mut hashes).with_context(|| full.display().to_string())?;
        if entry.kind == "dir" {
            let mut names = Vec::new();
            for child in std::fs::read_dir(&full)? {
                names.push(child?.file_name().into_vec());
            }
            names.sort_unstable_by(|a, b| b.cmp(a));
            for name in names {
                let prefix = if path.is_empty() { Vec::new() } else { [&path[..], b"/"].concat() };
                stack.push([prefix, name].concat());
            }
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// Contents hash and attributes of inodes seen already, since thousands of names may share one.
type Seen = BTreeMap<u64, (Option<String>, BTreeMap<Vec<u8>, Vec<u8>>)>;

fn entry(full: &Path, path: &[u8], seen: &mut Seen) -> Result<Entry> {
    let m = std::fs::symlink_metadata(full)?;
    let t = m.file_type();
    let kind = match () {
        () if t.is_dir() => "dir",
        () if t.is_symlink() => "symlink",
        () if t.is_fifo() => "fifo",
        () if t.is_socket() => "socket",
        () if t.is_char_device() => "char",
        () if t.is_block_device() => "block",
        () if t.is_file() => "file",
        () => bail!("a file of no known type"),
    };
    let (sha256, xattrs) = match seen.get(&m.ino()) {
        Some(known) => known.clone(),
        None => {
            let sum = if t.is_file() && m.len() <= HASH_LIMIT { Some(hash(full)?) } else { None };
            let all = (sum, xattrs(full)?);
            if m.nlink() > 1 && !t.is_dir() {
                seen.insert(m.ino(), all.clone());
            }
            all
        }
    };
    let ns = |s: i64, n: i64| i128::from(s) * 1_000_000_000 + i128::from(n);
    let device = t.is_char_device() || t.is_block_device();
    Ok(Entry {
        path: path.to_vec(),
        kind: kind.to_owned(),
        ino: m.ino(),
        mode: m.mode(),
        uid: m.uid(),
        gid: m.gid(),
        nlink: m.nlink(),
        size: m.len(),
        blocks: m.blocks(),
        mtime: ns(m.mtime(), m.mtime_nsec()),
        ctime: ns(m.ctime(), m.ctime_nsec()),
        rdev: device.then(|| (rustix::fs::major(m.rdev()), rustix::fs::minor(m.rdev()))),
        target: if t.is_symlink() { Some(std::fs::read_link(full)?.into_os_string().into_vec()) } else { None },
        sha256,
        xattrs,
    })
}

fn hash(path: &Path) -> Result<String> {
    let mut sum = Sha256::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut sum)?;
    Ok(hex(&sum.finalize()))
}

fn xattrs(path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut list = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).context("list of attributes")?;
    for name in list[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0; 65536];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).context("value of an attribute")?;
        value.truncate(length);
        all.insert(name.to_vec(), value);
    }
    Ok(all)
}

/// The manifest as it is stored: one line of JSON per entry.
pub fn write(entries: &[Entry], to: &mut dyn std::io::Write) -> Result<()> {
    for entry in entries {
        serde_json::to_writer(&mut *to, &entry.to_json())?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads a stored manifest.
pub fn parse(text: &str) -> Result<Vec<Entry>> {
    text.lines().filter(|l| l.starts_with('{')).map(|l| Entry::from_json(&serde_json::from_str(l)?)).collect()
}
