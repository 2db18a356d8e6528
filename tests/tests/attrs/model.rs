//! Files of a kernel-written image with their attributes, as they should be.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use libxfsr::attr::{self, change};
use libxfsr::cache::OnDamage;
use libxfsr::dir;
use libxfsr::error::{Error, ForkKind};
use libxfsr::format::attr::AttrFlags;
use libxfsr::format::da;
use libxfsr::format::inode::Format;
use libxfsr::inode::Inode;
use libxfsr::units::{FileBlock, Ino};
use libxfsr::volume::Volume;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use xfsr_tests::changing::{Changing, Commits};

/// Namespace and name.
pub(crate) type Name = (AttrFlags, Vec<u8>);
pub(crate) type Attrs = BTreeMap<Name, Vec<u8>>;

/// What the kernel shows of files.
pub(crate) type State = BTreeMap<PathBuf, BTreeMap<Vec<u8>, Vec<u8>>>;

pub(crate) struct File {
    pub(crate) ino: Ino,
    pub(crate) path: PathBuf,
    pub(crate) attrs: Attrs,
    symlink: bool,
}

pub(crate) struct World {
    pub(crate) changing: Changing,
    pub(crate) files: Vec<File>,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) forms: BTreeSet<String>,
    operations: u64,
}

/// What an inode has; parent pointers are left out.
pub(crate) fn read(volume: &Volume, ino: Ino) -> Attrs {
    let inode = Inode::read(volume, ino, OnDamage::Fail).expect("an inode");
    let all = attr::list(volume, &inode).expect("its attributes");
    let all: Vec<_> = all.into_iter().filter(|a| !a.flags.contains(AttrFlags::PARENT)).collect();
    let count = all.len();
    let map: Attrs = all.into_iter().map(|a| ((a.flags, a.name), a.value)).collect();
    assert_eq!(map.len(), count, "one attribute twice in inode {ino}");
    map
}

/// How an inode holds its attributes.
fn form(volume: &Volume, ino: Ino) -> String {
    let inode = Inode::read(volume, ino, OnDamage::Fail).expect("an inode");
    match inode.core.format(ForkKind::Attr) {
        None => "none".into(),
        Some(Format::Local) => "short".into(),
        Some(format) => {
            let root = attr::block(volume, &inode, FileBlock(0), &libxfsr::format::attr::ATTR_ANY, OnDamage::Fail);
            let root = root.expect("a root");
            let level = da::Node::from_bytes(&root).map_or(0, |n| n.header.level.get());
            let form = if da::magic_of(&root) == Some(da::NODE_MAGIC) { format!("node{level}") } else { "leaf".into() };
            if format == Format::Btree { format!("{form}+btree") } else { form }
        }
    }
}

impl World {
    /// The files of a directory of an image, and the directory itself.
    pub(crate) fn open(image: &Path, directory: &str, commits: Commits, seed: u64) -> World {
        let changing = Changing::open(image, commits);
        let volume = &changing.volume;
        let mut ino = volume.geometry.root_ino;
        for part in directory.split('/').filter(|p| !p.is_empty()) {
            let inode = Inode::read(volume, ino, OnDamage::Fail).expect("a directory");
            ino = dir::lookup(volume, &inode, part.as_bytes()).expect("a lookup").expect("the directory");
        }
        let inode = Inode::read(volume, ino, OnDamage::Fail).expect("a directory");
        let mut files = Vec::new();
        for e in dir::entries(volume, &inode).expect("entries").into_iter().filter(|e| e.name != b"..") {
            let core = Inode::read(volume, e.ino, OnDamage::Fail).expect("an inode").core;
            let path = Path::new(directory).join(std::ffi::OsStr::from_bytes(&e.name));
            files.push(File { ino: e.ino, path, attrs: read(volume, e.ino), symlink: core.is_symlink() });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let rng = ChaCha8Rng::seed_from_u64(seed);
        World { changing, files, rng, forms: BTreeSet::new(), operations: 0 }
    }

    /// A name, now and then one of many with the same hash.
    fn name(&mut self, symlink: bool) -> Name {
        let rng = &mut self.rng;
        let spaces = [AttrFlags::empty(), AttrFlags::ROOT, AttrFlags::SECURE];
        let flags = if symlink { AttrFlags::ROOT } else { *spaces.choose(rng).expect("one") };
        let n: u16 = rng.random_range(0..120);
        let name = match rng.random_range(0..4) {
            // A bit of one character counts for the hash as much as the highest of the next.
            0 => (0..7).flat_map(|i| if n >> i & 1 == 1 { [b'`', 0xc1] } else { [b'a', b'A'] }).collect(),
            1 => format!("{n:03}{}", "long".repeat(usize::from(n) / 2)).into_bytes(),
            _ => format!("attribute-{n}").into_bytes(),
        };
        (flags, name)
    }

    fn value(&mut self) -> Vec<u8> {
        let block = self.changing.volume.geometry.block_size as usize;
        let rng = &mut self.rng;
        let length = match rng.random_range(0..100) {
            0..10 => 0,
            10..50 => rng.random_range(1..40),
            50..75 => rng.random_range(1..300),
            75..85 => rng.random_range(block / 2..block),
            85..95 => rng.random_range(1..block * 4),
            95..97 => 65536,
            _ => rng.random_range(1..=65536),
        };
        let mut value = vec![0; length.min(65536)];
        rng.fill(&mut value[..]);
        value
    }

    /// An attribute of a file is set or removed, or an attempt at what cannot be is refused.
    pub(crate) fn operation(&mut self, n: usize, grow: bool) {
        self.operations += 1;
        let (ino, symlink) = (self.files[n].ino, self.files[n].symlink);
        let own = ["SGI_ACL_FILE", "SGI_ACL_DEFAULT"];
        let present: Vec<Name> =
            self.files[n].attrs.keys().filter(|k| !own.iter().any(|o| o.as_bytes() == k.1)).cloned().collect();
        let chosen = if self.rng.random_bool(0.6) { present.choose(&mut self.rng).cloned() } else { None };
        let add = self.rng.random_bool(if grow { 0.8 } else { 0.2 });
        let name = match chosen.filter(|_| !add || !grow) {
            Some(name) => name,
            None => self.name(symlink),
        };
        let value = self.value();
        let exists = self.files[n].attrs.contains_key(&name);
        let how = *[change::How::Upsert, change::How::Upsert, change::How::Create, change::How::Replace]
            .choose(&mut self.rng)
            .expect("one");
        let cancel = self.rng.random_range(0..25) == 0;
        let Changing { volume, scope, space, .. } = &self.changing;
        let old = self.files[n].attrs.get(&name).map_or(0, Vec::len);
        let room = change::reservation(&volume.geometry, old.max(value.len()) as u32);
        let mut t = scope.begin(room).expect("room in the log");
        let key = (name.0, &name.1[..]);
        assert_eq!(change::get(&mut t, space, ino, key).expect("a lookup"), self.files[n].attrs.get(&name).cloned());
        let done = if add {
            match change::set(&mut t, space, ino, key, &value, how) {
                Ok(there) => {
                    assert_eq!(there, exists);
                    true
                }
                Err(Error::Exists(_)) => {
                    assert!(exists && how == change::How::Create);
                    false
                }
                Err(Error::NotFound(_)) => {
                    assert!(!exists && how == change::How::Replace);
                    false
                }
                Err(e) => panic!("{e}"),
            }
        } else {
            match change::remove(&mut t, space, ino, key) {
                Ok(()) => {
                    assert!(exists);
                    true
                }
                Err(Error::NotFound(_)) => {
                    assert!(!exists);
                    false
                }
                Err(e) => panic!("{e}"),
            }
        };
        if !done || cancel {
            drop(t);
            return;
        }
        if self.operations.is_multiple_of(50) {
            let mut expected = self.files[n].attrs.clone();
            if add {
                expected.insert(name.clone(), value.clone())
            } else {
                expected.remove(&name)
            };
            let seen = change::list(&mut t, space, ino).expect("a list");
            let seen: Attrs = seen
                .into_iter()
                .filter(|a| !a.flags.contains(AttrFlags::PARENT))
                .map(|a| ((a.flags, a.name), a.value))
                .collect();
            assert!(seen == expected, "what the transaction sees");
        }
        t.commit().expect("committed");
        if add {
            self.files[n].attrs.insert(name, value);
        } else {
            self.files[n].attrs.remove(&name);
        }
        self.forms.insert(form(&self.changing.volume, ino));
    }

    /// An attribute is set or removed by a step of a chain, which a crash may find pending.
    pub(crate) fn deferred(&mut self, n: usize) {
        let (ino, symlink) = (self.files[n].ino, self.files[n].symlink);
        let (name, value, add) = (self.name(symlink), self.value(), self.rng.random_bool(0.7));
        let Changing { volume, scope, space, .. } = &self.changing;
        let g = &volume.geometry;
        let mut t = scope.begin(change::reservation(g, 0)).expect("room in the log");
        let key = (name.0, &name.1[..]);
        let step = if add {
            change::Change::set(space, g, ino, key, &value)
        } else {
            change::Change::remove(space, g, ino, key)
        };
        t.defer(step.expect("an attribute")).expect("a filesystem that may log changes of attributes");
        t.commit().expect("committed");
        if add {
            self.files[n].attrs.insert(name, value);
        } else {
            self.files[n].attrs.remove(&name);
        }
    }

    /// What all files have, in short.
    pub(crate) fn digest(&self) -> Vec<u64> {
        self.files.iter().map(|f| digest(&linux(&f.attrs))).collect()
    }

    /// That all files have what they should have.
    pub(crate) fn compare(&self) {
        for f in &self.files {
            let found = read(&self.changing.volume, f.ino);
            assert!(found == f.attrs, "{}: other attributes", f.path.display());
        }
    }

    /// What all files have.
    pub(crate) fn state(&self) -> State {
        self.files.iter().map(|f| (f.path.clone(), linux(&f.attrs))).collect()
    }
}

pub(crate) fn digest(attrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    attrs.hash(&mut hasher);
    hasher.finish()
}

/// As Linux names them.
pub(crate) fn linux(attrs: &Attrs) -> BTreeMap<Vec<u8>, Vec<u8>> {
    attrs.iter().map(|((flags, name), v)| ([flags.namespace().as_bytes(), b".", name].concat(), v.clone())).collect()
}

/// What the kernel says that a file has. Access control lists it shows a second time in a form of its own.
pub(crate) fn kernel(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).expect("a list");
    let names = list[..length].split(|b| *b == 0).filter(|n| !n.is_empty() && !n.starts_with(b"system."));
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("a value");
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}
