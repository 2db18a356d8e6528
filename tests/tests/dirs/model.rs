//! Directories of names that lead to a few files, against maps of what must be in them.

use libxfsr::Error;
use libxfsr::cache::OnDamage;
use libxfsr::dir::{self, DirMut};
use libxfsr::error::ForkKind;
use libxfsr::format::da;
use libxfsr::format::dir::{DIR_ANY, FileType, LEAF1_MAGIC, leaf_start};
use libxfsr::format::inode::{Dinode, Format};
use libxfsr::geometry::Geometry;
use libxfsr::inode::Inode;
use libxfsr::txn::Transaction;
use libxfsr::units::Ino;
use libxfsr::volume::Volume;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use xfsr_tests::changing::{Changing, Commits, assert_clean};
use xfsr_tests::oracle::Mount;

/// What names lead to: files and links, which may have many names.
pub(crate) const TARGETS: [(&str, FileType); 3] =
    [("target-0", FileType::Regular), ("target-1", FileType::Regular), ("target-2", FileType::Symlink)];

/// The form of a directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Form {
    Short,
    Block,
    Leaf,
    Node,
    DeepNode,
}

/// Name as it counts, name as it is, and the number of its target.
pub(crate) type Names = BTreeMap<Vec<u8>, (Vec<u8>, usize)>;

pub(crate) struct World {
    pub(crate) changing: Changing,
    pub(crate) dirs: Vec<(String, Ino, Names)>,
    targets: Vec<Ino>,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) forms: BTreeSet<Form>,
    serial: u64,
}

/// Makes the targets, and directories with so many names each, as the kernel does it.
pub(crate) fn fill(root: &Path, directories: &[(&str, usize)]) {
    for (name, kind) in TARGETS {
        match kind {
            FileType::Symlink => std::os::unix::fs::symlink("nowhere", root.join(name)).expect("a link"),
            _ => std::fs::write(root.join(name), name).expect("a file"),
        }
    }
    for (name, count) in directories {
        let directory = root.join(name);
        std::fs::create_dir(&directory).expect("a directory");
        for n in 0..*count {
            let width = 1 + n * 7 % 60;
            std::fs::hard_link(root.join("target-0"), directory.join(format!("{n:0width$}"))).expect("a name");
        }
    }
}

fn fold(g: &Geometry, name: &[u8]) -> Vec<u8> {
    if g.features.ascii_ci() { name.iter().map(|b| da::fold_case(*b)).collect() } else { name.to_vec() }
}

fn names(volume: &Volume, ino: Ino) -> Vec<dir::DirEntry> {
    let inode = Inode::read(volume, ino, OnDamage::Fail).expect("an inode");
    let mut all = dir::entries(volume, &inode).expect("entries");
    all.retain(|e| e.name != b"." && e.name != b"..");
    all
}

/// The form that a directory has now.
pub(crate) fn form(volume: &Volume, ino: Ino) -> Form {
    let inode = Inode::read(volume, ino, OnDamage::Fail).expect("an inode");
    if inode.core.format(ForkKind::Data) == Some(Format::Local) {
        return Form::Short;
    }
    let index = dir::block(volume, &inode, leaf_start(&volume.geometry), &DIR_ANY, OnDamage::Fail).expect("an index");
    match index.map(|b| (da::magic_of(&b), da::Node::from_bytes(&b).map_or(0, |n| n.header.level.get()))) {
        None => Form::Block,
        Some((Some(LEAF1_MAGIC), _)) => Form::Leaf,
        Some((Some(da::NODE_MAGIC), level)) if level > 1 => Form::DeepNode,
        Some(_) => Form::Node,
    }
}

impl World {
    pub(crate) fn open(image: &Path, commits: Commits, seed: u64) -> World {
        World::around(Changing::open(image, commits), seed)
    }

    fn around(changing: Changing, seed: u64) -> World {
        let volume = changing.volume.clone();
        let root = names(&volume, volume.geometry.root_ino);
        let targets: Vec<Ino> = TARGETS
            .iter()
            .map(|(name, _)| root.iter().find(|e| e.name == name.as_bytes()).expect("a target").ino)
            .collect();
        let directories = root.iter().filter(|e| e.name.starts_with(b"dir-"));
        let dirs = directories.map(|e| {
            let target = |e: &dir::DirEntry| targets.iter().position(|t| *t == e.ino).expect("a target");
            let found = names(&volume, e.ino).into_iter();
            let found = found.map(|e| (fold(&volume.geometry, &e.name), (e.name.clone(), target(&e))));
            (String::from_utf8(e.name.clone()).expect("text"), e.ino, found.collect())
        });
        let dirs = dirs.collect();
        World { changing, dirs, targets, rng: ChaCha8Rng::seed_from_u64(seed), forms: BTreeSet::new(), serial: 0 }
    }

    /// A transaction that has the inodes which a name concerns.
    pub(crate) fn begin(&self, dir: Ino) -> Transaction<'_> {
        let g = &self.changing.volume.geometry;
        let mut t = self.changing.scope.begin(DirMut::reservation(g)).expect("room in the log");
        let mut inodes = self.targets.clone();
        inodes.push(dir);
        inodes.sort_unstable();
        inodes.into_iter().for_each(|ino| t.lock_inode(ino));
        t
    }

    fn link(t: &mut Transaction<'_>, ino: Ino, by: i32) {
        let core = Dinode::from_bytes_mut(t.inode_mut(ino).expect("an inode")).expect("a core");
        core.nlink.set(core.nlink.get().checked_add_signed(by).expect("a link count"));
    }

    /// A name of some length, or one whose hash others have as well.
    fn name(&mut self, long: f64) -> Vec<u8> {
        self.serial += 1;
        let serial = self.serial;
        match self.rng.random_range(0..100) {
            0..20 => {
                // Flipping the lowest bit of a byte and the highest of the next leaves the hash as it is.
                let mut name = format!("same-{:02}-aaaaaaaaaaaaaaaaaaaa", serial / 150 % 3).into_bytes();
                let from = name.len() - 20;
                let mask: u32 = self.rng.random_range(0..256);
                for bit in (0..8).filter(|b| mask & (1 << b) != 0) {
                    name[from + 2 * bit] ^= 1;
                    name[from + 2 * bit + 1] ^= 0x80;
                }
                name
            }
            20..24 => format!("{:x}", self.rng.random_range(0..256)).into_bytes(),
            24..30 => format!("Name-{}", self.rng.random_range(0..40)).into_bytes(),
            _ if self.rng.random_bool(long) => format!("{serial:x>255}").into_bytes(),
            _ => {
                let width = self.rng.random_range(1..40);
                format!("{serial:0width$}-{:x}", self.rng.random::<u16>()).into_bytes()
            }
        }
    }

    /// Adds a name that leads to the first target.
    pub(crate) fn add(&mut self, n: usize, name: &[u8]) {
        let (ino, space) = (self.dirs[n].1, self.changing.space.clone());
        let mut t = self.begin(ino);
        DirMut::new(&mut t, &space, ino).add(name, self.targets[0], TARGETS[0].1).expect("added");
        Self::link(&mut t, self.targets[0], 1);
        t.commit().expect("committed");
        self.dirs[n].2.insert(name.to_vec(), (name.to_vec(), 0));
    }

    /// One name is added, removed or led elsewhere; `add` of a hundred times added.
    pub(crate) fn operation(&mut self, n: usize, add: u32, long: f64) {
        self.try_operation(n, add, long).expect("space");
    }

    /// The same, where there may be no space for a name.
    pub(crate) fn try_operation(&mut self, n: usize, add: u32, long: f64) -> Result<(), Error> {
        let what = self.rng.random_range(0..100);
        let some = self.rng.random_range(0..usize::MAX);
        let target = self.rng.random_range(0..TARGETS.len());
        let name = self.name(long);
        let key = fold(&self.changing.volume.geometry, &name);
        let ino = self.dirs[n].1;
        let (space, kinds) = (self.changing.space.clone(), TARGETS.map(|t| t.1));
        let mut t = self.begin(ino);
        let mut d = DirMut::new(&mut t, &space, ino);
        let model = &self.dirs[n].2;
        let known = model.keys().nth(some % model.len().max(1)).cloned();
        if what < add || model.is_empty() {
            let found = d.add(&name, self.targets[target], kinds[target]);
            if model.contains_key(&key) {
                assert!(matches!(found, Err(Error::Exists(_))), "{found:?}");
                return Ok(());
            }
            if let Err(Error::NoSpace(_)) = found {
                return found;
            }
            found.expect("added");
            Self::link(&mut t, self.targets[target], 1);
            t.commit().expect("committed");
            self.dirs[n].2.insert(key, (name, target));
        } else if what % 7 == 0 {
            let (known, old) = (known.expect("a name"), model[&name_or(model, some)].1);
            let before = d.replace(&known, self.targets[target], kinds[target]).expect("replaced");
            assert_eq!((before.ino, before.ftype), (self.targets[old], kinds[old] as u8));
            assert_eq!(d.lookup(&known).expect("found").expect("there").ino, self.targets[target]);
            Self::link(&mut t, self.targets[old], -1);
            Self::link(&mut t, self.targets[target], 1);
            t.commit().expect("committed");
            self.dirs[n].2.get_mut(&known).expect("a name").1 = target;
        } else if what % 11 == 0 && !model.contains_key(&key) {
            assert!(matches!(d.remove(&name), Err(Error::NotFound(_))));
            assert!(matches!(d.replace(&name, ino, FileType::Directory), Err(Error::NotFound(_))));
            assert_eq!(d.lookup(&name).expect("looked up"), None);
        } else {
            let known = known.expect("a name");
            let gone = d.remove(&known).expect("removed");
            let target = model[&known].1;
            assert_eq!((gone.ino, gone.ftype), (self.targets[target], kinds[target] as u8));
            assert_eq!(d.lookup(&known).expect("looked up"), None);
            assert_eq!(d.is_empty().expect("read"), model.len() == 1);
            Self::link(&mut t, self.targets[target], -1);
            t.commit().expect("committed");
            self.dirs[n].2.remove(&known);
        }
        Ok(())
    }

    /// The directories are those of the model: as readers see them, and through a transaction.
    pub(crate) fn compare(&mut self) {
        for (name, ino, model) in &self.dirs {
            let seen: BTreeMap<Vec<u8>, Ino> =
                names(&self.changing.volume, *ino).into_iter().map(|e| (e.name, e.ino)).collect();
            let expected: BTreeMap<Vec<u8>, Ino> =
                model.values().map(|(name, target)| (name.clone(), self.targets[*target])).collect();
            assert!(seen == expected, "{name}: {} names, {} expected", seen.len(), expected.len());
            self.forms.insert(form(&self.changing.volume, *ino));
            let inode = Inode::read(&self.changing.volume, *ino, OnDamage::Fail).expect("an inode");
            let mut t = self.begin(*ino);
            let mut d = DirMut::new(&mut t, &self.changing.space, *ino);
            let mut count = 0;
            d.for_each(&mut |e| {
                count += usize::from(e.name != b"." && e.name != b"..");
                ControlFlow::Continue(())
            })
            .expect("read");
            assert_eq!(count, model.len());
            assert_eq!(d.parent().expect("a parent"), self.changing.volume.geometry.root_ino);
            for (name, target) in model.values().step_by(1 + model.len() / 50) {
                let found = d.lookup(name).expect("looked up").expect("a name");
                assert_eq!((found.ino, found.ftype), (self.targets[*target], TARGETS[*target].1 as u8));
                let read = dir::lookup(&self.changing.volume, &inode, name).expect("looked up");
                assert_eq!(read, Some(self.targets[*target]));
            }
        }
    }

    /// Removes names until a directory has so many.
    pub(crate) fn shrink(&mut self, n: usize, to: usize) {
        while self.dirs[n].2.len() > to {
            self.operation(n, 5, 0.0);
            if self.dirs[n].2.len().is_multiple_of(40) {
                let form = form(&self.changing.volume, self.dirs[n].1);
                self.forms.insert(form);
            }
        }
    }

    /// Names of all directories with what they lead to.
    pub(crate) fn state(&self) -> Vec<BTreeMap<Vec<u8>, u64>> {
        let names = |names: &Names| {
            names.values().map(|(name, target)| (name.clone(), self.targets[*target].0)).collect::<BTreeMap<_, _>>()
        };
        self.dirs.iter().map(|(_, _, model)| names(model)).collect()
    }

    /// The same as a mounted filesystem shows it.
    pub(crate) fn mounted(&self, root: &Path) -> Vec<BTreeMap<Vec<u8>, u64>> {
        self.dirs.iter().map(|(name, _, _)| listed(&root.join(name))).collect()
    }

    /// Everything is written; the judges look at it, the kernel lists the names, and removes and adds some.
    pub(crate) fn end(mut self, image: &Path) {
        self.compare();
        let (state, serial) = (self.state(), self.serial);
        let directories: Vec<String> = self.dirs.iter().map(|d| d.0.clone()).collect();
        self.changing.finish();
        assert_clean("changed", image);
        let mount = Mount::new(image, "").expect("a mount");
        for (name, model) in directories.iter().zip(&state) {
            let path = mount.path().join(name);
            let seen = listed(&path);
            assert!(seen == *model, "{name}: {} names, {} expected", seen.len(), model.len());
            for known in model.keys().step_by(3) {
                std::fs::remove_file(path.join(OsStr::from_bytes(known))).expect("removed");
            }
            for n in 0..60 {
                let new = path.join(format!("by-the-kernel-{serial}-{n:030}"));
                std::fs::hard_link(mount.path().join("target-0"), new).expect("a name");
            }
        }
        mount.unmount().expect("an unmount");
        assert_clean("used by the kernel", image);
    }
}

fn name_or(model: &Names, some: usize) -> Vec<u8> {
    model.keys().nth(some % model.len().max(1)).cloned().expect("a name")
}

fn listed(path: &Path) -> BTreeMap<Vec<u8>, u64> {
    use std::os::unix::fs::DirEntryExt;
    let entries = std::fs::read_dir(path).expect("a directory");
    entries.map(|e| e.expect("an entry")).map(|e| (e.file_name().into_vec(), e.ino())).collect()
}
