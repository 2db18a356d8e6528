//! What a tree should be after a sequence of operations, and the operations, chosen by seed.

use libxfsr::Error;
use libxfsr::attr::change::How;
use libxfsr::engine::{Handle, New, Node as Special, Rename, SetAttr};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use xfsr_tests::corpus::{Entry, manifest};

/// One file of the model.
#[derive(Clone, Debug, Default)]
struct Node {
    kind: &'static str,
    mode: u16,
    links: u64,
    data: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    children: BTreeMap<Vec<u8>, usize>,
    parent: usize,
}

/// What the tree shows of a file, as far as the model knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    kind: String,
    mode: u32,
    links: u64,
    size: u64,
    target: Option<Vec<u8>>,
    sha256: Option<String>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl From<&Entry> for Seen {
    fn from(e: &Entry) -> Self {
        Self {
            kind: e.kind.clone(),
            mode: e.mode & 0o7777,
            links: e.nlink,
            size: if e.kind == "dir" { 0 } else { e.size },
            target: e.target.clone(),
            sha256: e.sha256.clone(),
            xattrs: e.xattrs.clone(),
        }
    }
}

/// A tree below one directory; one thread changes it.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    nodes: Vec<Node>,
}

fn name(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let n: u32 = rng.random_range(0..40);
    let long = [1, 1, 1, 20, 60, 100][rng.random_range(0..6)];
    let mut name = format!("n{n}-").into_bytes();
    name.resize(name.len().max(long), b'x');
    name
}

impl Model {
    pub(crate) fn new(mode: u16) -> Self {
        Self { nodes: vec![Node { kind: "dir", mode, links: 2, ..Node::default() }] }
    }

    /// All that is reachable, below `prefix`.
    pub(crate) fn seen(&self, prefix: &[u8]) -> BTreeMap<Vec<u8>, Seen> {
        let mut all = BTreeMap::new();
        let mut stack = vec![(0, prefix.to_vec())];
        while let Some((n, path)) = stack.pop() {
            let node = &self.nodes[n];
            for (name, child) in &node.children {
                stack.push((*child, [&path[..], b"/", name].concat()));
            }
            let file = node.kind == "file";
            let seen = Seen {
                kind: node.kind.into(),
                mode: node.mode.into(),
                links: node.links,
                size: if node.kind == "dir" { 0 } else { node.data.len() as u64 },
                target: (node.kind == "symlink").then(|| node.data.clone()),
                sha256: file.then(|| manifest::hex(&Sha256::digest(&node.data))),
                xattrs: node.xattrs.clone(),
            };
            all.insert(path, seen);
        }
        all
    }

    fn directories(&self) -> Vec<usize> {
        let mut all = Vec::new();
        // No deeper, so that paths stay shorter than Linux takes them.
        let mut stack = vec![(0, 0)];
        while let Some((n, depth)) = stack.pop() {
            all.push(n);
            let below = self.nodes[n].children.values().filter(|c| depth < 4 && self.nodes[**c].kind == "dir");
            stack.extend(below.map(|c| (*c, depth + 1)));
        }
        all.sort_unstable();
        all
    }

    fn handle(&self, root: &Handle, n: usize) -> Handle {
        let mut names = Vec::new();
        let mut at = n;
        while at != 0 {
            let parent = self.nodes[at].parent;
            let found = self.nodes[parent].children.iter().find(|(_, c)| **c == at);
            names.push(found.expect("a name in its parent").0.clone());
            at = parent;
        }
        names.iter().rev().fold(root.clone(), |h, name| h.lookup(name).expect("a directory of the model"))
    }

    fn is_below(&self, mut n: usize, other: usize) -> bool {
        loop {
            if n == other {
                return true;
            }
            if n == 0 {
                return false;
            }
            n = self.nodes[n].parent;
        }
    }

    fn put(&mut self, dir: usize, name: &[u8], n: usize) {
        if self.nodes[n].kind == "dir" {
            self.nodes[n].parent = dir;
            self.nodes[dir].links += 1;
        }
        self.nodes[dir].children.insert(name.to_vec(), n);
    }

    fn take(&mut self, dir: usize, name: &[u8]) -> Option<usize> {
        let n = self.nodes[dir].children.remove(name)?;
        if self.nodes[n].kind == "dir" {
            self.nodes[dir].links -= 1;
        }
        Some(n)
    }

    /// Does one operation to both, and compares what comes of it. Says what it did.
    pub(crate) fn step(&mut self, root: &Handle, rng: &mut ChaCha8Rng) -> String {
        let directories = self.directories();
        let d = directories[rng.random_range(0..directories.len())];
        let dir = self.handle(root, d);
        let name = name(rng);
        let there = self.nodes[d].children.get(&name).copied();
        let mode: u16 = rng.random_range(0..0o1000);
        let shown = libxfsr::text::escape(&name);
        match rng.random_range(0..100) {
            0..=27 => self.make(&dir, d, &name, mode, there, rng),
            28..=37 => {
                let is_dir = there.map(|n| self.nodes[n].kind == "dir");
                match (dir.unlink(&name), is_dir) {
                    (Ok(()), Some(false)) => {
                        let n = self.take(d, &name).expect("that was there");
                        self.nodes[n].links -= 1;
                    }
                    (Err(Error::NotFound(_)), None) | (Err(Error::IsDirectory(_)), Some(true)) => {}
                    other => panic!("unlink {shown}: {other:?}"),
                }
                format!("unlink {shown}")
            }
            38..=42 => {
                let node = there.map(|n| &self.nodes[n]);
                match (dir.rmdir(&name), node.map(|n| (n.kind == "dir", n.children.is_empty()))) {
                    (Ok(()), Some((true, true))) => drop(self.take(d, &name)),
                    (Err(Error::NotFound(_)), None)
                    | (Err(Error::NotDirectory(_)), Some((false, _)))
                    | (Err(Error::NotEmpty(_)), Some((true, false))) => {}
                    other => panic!("rmdir {shown}: {other:?}"),
                }
                format!("rmdir {shown}")
            }
            43..=57 => self.rename(root, (d, &dir, &name), &directories, rng),
            58..=63 => {
                let Some(n) = there else { return "nothing".into() };
                let to = directories[rng.random_range(0..directories.len())];
                let to_dir = self.handle(root, to);
                let new = self::name(rng);
                let file = dir.lookup(&name).expect("that is there");
                let taken = self.nodes[to].children.contains_key(&new);
                match (to_dir.link(&new, &file), self.nodes[n].kind == "dir", taken) {
                    (Ok(()), false, false) => {
                        self.nodes[n].links += 1;
                        self.put(to, &new, n);
                    }
                    (Err(Error::IsDirectory(_)), true, _) | (Err(Error::Exists(_)), false, true) => {}
                    other => panic!("link {shown}: {other:?}"),
                }
                format!("link {shown}")
            }
            64..=83 => {
                let Some(n) = there.filter(|n| self.nodes[*n].kind == "file") else { return "nothing".into() };
                let file = dir.lookup(&name).expect("that is there");
                self.contents(n, &file, rng)
            }
            84..=95 => {
                let Some(n) = there.filter(|n| matches!(self.nodes[*n].kind, "file" | "dir")) else {
                    return "nothing".into();
                };
                let file = dir.lookup(&name).expect("that is there");
                let attr = format!("user.a{}", rng.random_range(0..12)).into_bytes();
                if rng.random_range(0..3) > 0 {
                    let len = [3, 30, 300, 3000, 20_000][rng.random_range(0..5)];
                    let value = vec![rng.random::<u8>(); rng.random_range(0..len)];
                    file.set_xattr(&attr, &value, How::Upsert).expect("an attribute");
                    self.nodes[n].xattrs.insert(attr, value);
                } else {
                    match (file.remove_xattr(&attr), self.nodes[n].xattrs.remove(&attr)) {
                        (Ok(()), Some(_)) | (Err(Error::NotFound(_)), None) => {}
                        other => panic!("remove_xattr: {other:?}"),
                    }
                }
                format!("attribute of {shown}")
            }
            _ => {
                let Some(n) = there else { return "nothing".into() };
                let file = dir.lookup(&name).expect("that is there");
                if self.nodes[n].kind != "symlink" {
                    file.set_attr(&SetAttr { permissions: Some(mode), ..SetAttr::default() }).expect("permissions");
                    self.nodes[n].mode = mode;
                }
                format!("mode of {shown}")
            }
        }
    }

    fn make(
        &mut self,
        dir: &Handle,
        d: usize,
        name: &[u8],
        mode: u16,
        there: Option<usize>,
        rng: &mut ChaCha8Rng,
    ) -> String {
        let new = New::mode(mode);
        let (kind, data, made) = match rng.random_range(0..10) {
            0..=4 => ("file", Vec::new(), dir.create(name, &new)),
            5..=6 => ("dir", Vec::new(), dir.mkdir(name, &new)),
            7 => {
                let target = vec![b't'; rng.random_range(1..1000)];
                let made = dir.symlink(name, &target, &new);
                ("symlink", target, made)
            }
            8 => ("char", Vec::new(), dir.mknod(name, Special::Char(5, 300), &new)),
            _ => {
                let file = dir.tmpfile(&new).expect("a file without a name");
                let made = dir.link(name, &file).map(|()| file);
                ("file", Vec::new(), made)
            }
        };
        match (made, there) {
            (Ok(_), None) => {
                let links = if kind == "dir" { 2 } else { 1 };
                self.nodes.push(Node { kind, mode, links, data, parent: d, ..Node::default() });
                self.put(d, name, self.nodes.len() - 1);
            }
            (Err(Error::Exists(_)), Some(_)) => {}
            other => panic!("{kind} {}: {other:?}", libxfsr::text::escape(name)),
        }
        format!("{kind} {}", libxfsr::text::escape(name))
    }

    fn rename(
        &mut self,
        root: &Handle,
        (d, dir, name): (usize, &Handle, &[u8]),
        directories: &[usize],
        rng: &mut ChaCha8Rng,
    ) -> String {
        let to = directories[rng.random_range(0..directories.len())];
        let (to_dir, new) = (self.handle(root, to), self::name(rng));
        let how = [Rename::Replace, Rename::Replace, Rename::NoReplace, Rename::Exchange, Rename::Whiteout]
            [rng.random_range(0..5)];
        let what = format!("rename {how:?} {} to {}", libxfsr::text::escape(name), libxfsr::text::escape(&new));
        let (source, target) = (self.nodes[d].children.get(name).copied(), self.nodes[to].children.get(&new).copied());
        let done = dir.rename(name, &to_dir, &new, how);
        let is_dir = |m: &Self, n: usize| m.nodes[n].kind == "dir";
        let expected = match (source, target) {
            (None, _) => Err("NotFound"),
            (Some(s), Some(t)) if s == t => {
                if how == Rename::NoReplace {
                    Err("Exists")
                } else {
                    Ok(false)
                }
            }
            (Some(s), _) if is_dir(self, s) && self.is_below(to, s) => Err("Invalid"),
            (Some(_), Some(t)) if d != to && is_dir(self, t) && self.is_below(d, t) => {
                Err(if how == Rename::Exchange { "Invalid" } else { "NotEmpty" })
            }
            (Some(_), None) => {
                if how == Rename::Exchange {
                    Err("NotFound")
                } else {
                    Ok(true)
                }
            }
            (Some(_), Some(_)) if how == Rename::NoReplace => Err("Exists"),
            (Some(_), Some(_)) if how == Rename::Exchange => Ok(true),
            (Some(s), Some(t)) => match (is_dir(self, s), is_dir(self, t)) {
                (true, false) => Err("NotDirectory"),
                (false, true) => Err("IsDirectory"),
                (true, true) if !self.nodes[t].children.is_empty() => Err("NotEmpty"),
                _ => Ok(true),
            },
        };
        match (&done, expected) {
            (Ok(()), Ok(_)) => {}
            (Err(e), Err(kind)) if format!("{e:?}").starts_with(kind) => {}
            other => panic!("{what}: {other:?}"),
        }
        if expected != Ok(true) {
            return what;
        }
        let source = self.take(d, name).expect("the source");
        if how == Rename::Exchange {
            let target = self.take(to, &new).expect("the target");
            self.put(d, name, target);
            self.put(to, &new, source);
            return what;
        }
        if let Some(old) = self.take(to, &new) {
            self.nodes[old].links -= 1;
        }
        self.put(to, &new, source);
        if how == Rename::Whiteout {
            self.nodes.push(Node { kind: "char", mode: 0, links: 1, ..Node::default() });
            self.put(d, name, self.nodes.len() - 1);
        }
        what
    }

    fn contents(&mut self, n: usize, file: &Handle, rng: &mut ChaCha8Rng) -> String {
        let data = &mut self.nodes[n].data;
        let (at, len) = (rng.random_range(0..200_000usize), rng.random_range(1..60_000usize));
        match rng.random_range(0..6) {
            0..=2 => {
                let bytes = vec![rng.random::<u8>(); len];
                assert_eq!(file.write_at(&bytes, at as u64).expect("a write"), len);
                if data.len() < at + len {
                    data.resize(at + len, 0);
                }
                data[at..at + len].copy_from_slice(&bytes);
                format!("write {len} at {at}")
            }
            3 => {
                let bytes = vec![rng.random::<u8>(); len];
                assert_eq!(file.append(&bytes).expect("an append"), (data.len() as u64, len));
                data.extend(bytes);
                format!("append {len}")
            }
            4 => {
                file.truncate(at as u64).expect("a truncation");
                data.resize(at, 0);
                format!("truncate {at}")
            }
            _ => {
                file.punch(at as u64, len as u64).expect("a hole");
                let end = data.len().min(at + len);
                if at < end {
                    data[at..end].fill(0);
                }
                format!("punch {len} at {at}")
            }
        }
    }
}
