//! Files with the bytes that they must have.

use libxfsr::Error;
use libxfsr::cache::OnDamage;
use libxfsr::error::ForkKind;
use libxfsr::format::btree::Extent;
use libxfsr::inode::data::ExchangeOptions;
use libxfsr::inode::{FileMut, Inode};
use libxfsr::units::Ino;
use libxfsr::volume::Volume;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use xfsr_tests::changing::{Changing, Commits, assert_clean, kernel_made_with};
use xfsr_tests::oracle::{Mount, xfs_io};

/// Largest size of a file.
const MOST: u64 = 600_000;

/// What free blocks are full of.
pub(crate) const STALE: u8 = 0xa7;

/// Files that the kernel wrote: empty, whole, with holes and unwritten blocks, with a size hint.
fn fill(root: &Path) {
    std::fs::write(root.join("stale"), vec![STALE; 40 << 20]).expect("a file");
    rustix::fs::sync();
    std::fs::remove_file(root.join("stale")).expect("removed");
    std::fs::write(root.join("file-0"), b"").expect("a file");
    let bytes: Vec<u8> = (0..200_001u32).map(|i| (i % 151) as u8).collect();
    std::fs::write(root.join("file-1"), &bytes).expect("a file");
    let file = std::fs::File::create(root.join("file-2")).expect("a file");
    for i in 0..60 {
        file.write_all_at(&[i as u8 + 1; 700], i * 5000).expect("written");
        file.sync_all().expect("on the device");
    }
    drop(file);
    xfs_io(&root.join("file-2"), &["falloc 100000 90000", "fzero 30000 9000"]).expect("xfs_io");
    let hinted = root.join("file-3");
    std::fs::write(&hinted, b"").expect("a file");
    xfs_io(&hinted, &["extsize 64k"]).expect("xfs_io");
    // Where the filesystem can, two files share blocks already.
    let shared = root.join("file-4");
    std::fs::write(&shared, b"").expect("a file");
    let from = root.join("file-1");
    drop(xfs_io(&shared, &[format!("reflink {}", from.display())]));
}

pub(crate) struct File {
    pub(crate) ino: Ino,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct World {
    changing: Option<Changing>,
    image: PathBuf,
    files: Vec<File>,
    rng: ChaCha8Rng,
    counts: BTreeMap<&'static str, usize>,
    clock: i64,
}

/// The files of the model with their contents.
pub(crate) fn files(volume: &Volume) -> Vec<File> {
    let root = Inode::read(volume, volume.geometry.root_ino, OnDamage::Fail).expect("the root");
    let mut files = Vec::new();
    for e in libxfsr::dir::entries(volume, &root).expect("entries") {
        if !e.name.starts_with(b"file-") {
            continue;
        }
        let inode = Inode::read(volume, e.ino, OnDamage::Fail).expect("an inode");
        let mut bytes = vec![0; inode.size() as usize];
        libxfsr::inode::read_at(volume, &inode, 0, &mut bytes).expect("read");
        files.push(File { ino: e.ino, name: String::from_utf8(e.name).expect("text"), bytes });
    }
    files
}

fn resize(bytes: &mut Vec<u8>, len: u64) {
    if bytes.len() < len as usize {
        bytes.resize(len as usize, 0);
    }
}

impl World {
    pub(crate) fn open(directory: &Path, mkfs: (&[&str], u32), seed: u64, commits: Commits) -> World {
        let image = kernel_made_with(directory, 300, mkfs, fill);
        let changing = Changing::open(&image, commits);
        let files = files(&changing.volume);
        assert_eq!(files.len(), 5);
        let rng = ChaCha8Rng::seed_from_u64(seed);
        World { changing: Some(changing), image, files, rng, counts: BTreeMap::new(), clock: 1_700_000_000 }
    }

    pub(crate) fn changing(&self) -> &Changing {
        self.changing.as_ref().expect("open")
    }

    pub(crate) fn told(&self) -> String {
        format!("{:?}", self.counts)
    }

    pub(crate) fn state(&self) -> Vec<(String, Vec<u8>)> {
        self.files.iter().map(|f| (f.name.clone(), f.bytes.clone())).collect()
    }

    /// A range, often at the borders of blocks.
    fn range(&mut self) -> (u64, u64) {
        let block = u64::from(self.changing().volume.geometry.block_size);
        let aligned = self.rng.random_bool(0.3);
        let longest: u64 = if self.rng.random_bool(0.1) { 200_000 } else { 20_000 };
        let (at, len) = (self.rng.random_range(0..MOST), self.rng.random_range(1..longest));
        if aligned { (at / block * block, len.next_multiple_of(block)) } else { (at, len) }
    }

    /// Something is written, freed or moved.
    pub(crate) fn operation(&mut self) {
        match self.rng.random_range(0..10) {
            0..2 if self.changing().volume.geometry.features.reflink() => self.share(),
            2 if self.changing().volume.geometry.features.exchange_range() => self.exchange(),
            _ => self.operate(100),
        }
    }

    /// Files come to share blocks, or no longer do.
    pub(crate) fn share(&mut self) {
        let changing = self.changing.as_ref().expect("open");
        let (rng, block) = (&mut self.rng, u64::from(changing.volume.geometry.block_size));
        let (a, b) = (rng.random_range(0..self.files.len()), rng.random_range(0..self.files.len()));
        let lock = |n: usize| changing.scope.contents().lock(self.files[n].ino);
        self.clock += 1;
        if a == b || rng.random_bool(0.3) {
            let lock = lock(a);
            let file = FileMut::new(&changing.scope, &changing.space, &lock);
            let at = rng.random_range(0..MOST);
            if rng.random_bool(0.7) {
                file.unshare(at, rng.random_range(0..MOST)).expect("unshared");
                *self.counts.entry("unshare").or_default() += 1;
            } else {
                // Within one file.
                let bytes = &mut self.files[a].bytes;
                let blocks = bytes.len() as u64 / block;
                if blocks < 4 {
                    return;
                }
                let n = rng.random_range(1..=blocks / 4);
                let (from, to) =
                    (rng.random_range(0..blocks / 4) * block, (blocks / 2 + rng.random_range(0..blocks)) * block);
                file.clone_range(to, &file, from, n * block).expect("cloned");
                resize(bytes, to + n * block);
                bytes.copy_within(from as usize..(from + n * block) as usize, to as usize);
                *self.counts.entry("clone within").or_default() += 1;
            }
            return;
        }
        let locks = if self.files[a].ino < self.files[b].ino { [lock(a), lock(b)] } else { [lock(b), lock(a)] };
        let [first, second] = &locks;
        let (to, from) = if first.ino() == self.files[a].ino { (first, second) } else { (second, first) };
        let to = FileMut::new(&changing.scope, &changing.space, to).at(self.clock, 7);
        let from = FileMut::new(&changing.scope, &changing.space, from);
        let source = self.files[b].bytes.clone();
        let bytes = &mut self.files[a].bytes;
        let at = rng.random_range(0..MOST / block) * block;
        let there = rng.random_range(0..=source.len() as u64 / block) * block;
        let whole = (source.len() as u64 - there) / block * block;
        let mut len = if whole == 0 { 0 } else { rng.random_range(1..=whole / block) * block };
        if rng.random_bool(0.3) && at + (source.len() as u64 - there) >= bytes.len() as u64 {
            len = source.len() as u64 - there;
        }
        let part = &source[there as usize..(there + len) as usize];
        if rng.random_bool(0.25) && at + len <= bytes.len() as u64 {
            let same = &bytes[at as usize..(at + len) as usize] == part;
            assert_eq!(to.dedupe_range(at, &from, there, len).expect("compared"), same);
            *self.counts.entry(if same { "deduped" } else { "not equal" }).or_default() += 1;
            return;
        }
        to.clone_range(at, &from, there, len).expect("cloned");
        resize(bytes, at + len);
        bytes[at as usize..(at + len) as usize].copy_from_slice(part);
        *self.counts.entry("clone").or_default() += 1;
        if rng.random_bool(0.5) {
            assert!(to.dedupe_range(at, &from, there, len / block * block).expect("compared"));
            *self.counts.entry("deduped").or_default() += 1;
        }
    }

    /// Files exchange ranges.
    pub(crate) fn exchange(&mut self) {
        let changing = self.changing.as_ref().expect("open");
        let (rng, block) = (&mut self.rng, u64::from(changing.volume.geometry.block_size));
        let a = rng.random_range(0..self.files.len());
        let b = (a + rng.random_range(1..self.files.len())) % self.files.len();
        let lock = |n: usize| changing.scope.contents().lock(self.files[n].ino);
        let locks = if self.files[a].ino < self.files[b].ino { [lock(a), lock(b)] } else { [lock(b), lock(a)] };
        let [first, second] = &locks;
        let (one, two) = if first.ino() == self.files[a].ino { (first, second) } else { (second, first) };
        let one = FileMut::new(&changing.scope, &changing.space, one);
        let two = FileMut::new(&changing.scope, &changing.space, two);
        let (x, y) = (self.files[a].bytes.clone(), self.files[b].bytes.clone());
        let at = rng.random_range(0..=x.len() as u64 / block) * block;
        let mut there = rng.random_range(0..=y.len() as u64 / block) * block;
        let to_end = rng.random_bool(0.5) && at <= y.len() as u64;
        if to_end {
            if there != at {
                let refused = one.exchange(at, &two, there, 0, &ExchangeOptions { to_end, ..Default::default() });
                assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
            }
            there = at;
        }
        let unchanged = rng.random_bool(0.3).then(|| two.freshness().expect("a sample"));
        let how = ExchangeOptions { to_end, unchanged, ..ExchangeOptions::default() };
        let (at_, there_) = (at as usize, there as usize);
        let (new_x, new_y, len) = if to_end {
            ([&x[..at_], &y[there_..]].concat(), [&y[..there_], &x[at_..]].concat(), 0)
        } else {
            let most = (x.len() as u64 - at).min(y.len() as u64 - there) / block;
            if most == 0 {
                return;
            }
            let len = (rng.random_range(1..=most) * block) as usize;
            let (mut new_x, mut new_y) = (x.clone(), y.clone());
            new_x[at_..at_ + len].copy_from_slice(&y[there_..there_ + len]);
            new_y[there_..there_ + len].copy_from_slice(&x[at_..at_ + len]);
            (new_x, new_y, len)
        };
        if rng.random_bool(0.1) {
            let old = two.freshness().expect("a sample");
            two.at(77, 7).write_at(0, &y[..y.len().min(10)]).expect("written");
            let how = ExchangeOptions { unchanged: Some(old), ..how };
            if !y.is_empty() {
                let refused = one.exchange(at, &two, there, len as u64, &how);
                assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
                *self.counts.entry("exchange refused").or_default() += 1;
            }
            return;
        }
        one.exchange(at, &two, there, len as u64, &how).expect("exchanged");
        (self.files[a].bytes, self.files[b].bytes) = (new_x, new_y);
        *self.counts.entry(if to_end { "exchange to the end" } else { "exchange" }).or_default() += 1;
    }

    /// The same, and no block moves in its file.
    pub(crate) fn operation_in_place(&mut self) {
        self.operate(82);
    }

    fn operate(&mut self, kinds: u32) {
        let (at, len) = self.range();
        let n = self.rng.random_range(0..self.files.len());
        let changing = self.changing.as_ref().expect("open");
        let lock = changing.scope.contents().lock(self.files[n].ino);
        self.clock += 1;
        let file = FileMut::new(&changing.scope, &changing.space, &lock).at(self.clock, 5);
        let block = u64::from(changing.volume.geometry.block_size);
        let (rng, bytes) = (&mut self.rng, &mut self.files[n].bytes);
        let size = bytes.len() as u64;
        let end = at + len;
        let inside = |bytes: &mut Vec<u8>, from: u64, to: u64| {
            let to = to.min(bytes.len() as u64);
            if from < to {
                bytes[from as usize..to as usize].fill(0);
            }
        };
        let what = match rng.random_range(0..kinds) {
            0..40 => {
                let data: Vec<u8> = (0..len).map(|_| rng.random_range(1..STALE)).collect();
                assert_eq!(file.write_at(at, &data).expect("written"), data.len());
                resize(bytes, end);
                bytes[at as usize..end as usize].copy_from_slice(&data);
                "write"
            }
            40..50 => {
                let to = if rng.random_bool(0.5) { rng.random_range(0..=size) } else { at };
                file.truncate(to).expect("truncated");
                bytes.resize(to as usize, 0);
                "truncate"
            }
            50..60 => {
                let keep = rng.random_bool(0.5);
                file.allocate(at, len, keep).expect("allocated");
                if !keep {
                    resize(bytes, end);
                }
                "allocate"
            }
            60..72 => {
                file.punch(at, len).expect("punched");
                inside(bytes, at, end);
                "punch"
            }
            72..82 => {
                let keep = rng.random_bool(0.5);
                file.zero(at, len, keep).expect("zeroed");
                inside(bytes, at, end);
                if !keep {
                    resize(bytes, end);
                }
                "zero"
            }
            82..91 => {
                let (at, len) = (at / block * block, len.next_multiple_of(block));
                let result = file.collapse(at, len);
                if at + len < size {
                    result.expect("collapsed");
                    bytes.drain(at as usize..(at + len) as usize);
                } else {
                    assert!(matches!(result, Err(Error::Invalid(_))));
                }
                "collapse"
            }
            _ => {
                let (at, len) = (at / block * block, len.next_multiple_of(block));
                if size + len > 2 * MOST {
                    return;
                }
                let result = file.insert(at, len);
                if at < size {
                    result.expect("inserted");
                    bytes.splice(at as usize..at as usize, vec![0; len as usize]);
                } else {
                    assert!(matches!(result, Err(Error::Invalid(_))));
                }
                "insert"
            }
        };
        *self.counts.entry(what).or_default() += 1;
        // What lies around it is looked at at once.
        let from = at.saturating_sub(5000);
        let mut found = vec![0xee; 10_000 + len as usize];
        let got = file.read_at(from, &mut found).expect("read");
        let model = bytes.get(from as usize..).unwrap_or(&[]);
        assert_eq!(got, model.len().min(found.len()), "{what} at {at}");
        if let Some(i) = (0..got).find(|i| found[*i] != model[*i]) {
            panic!("{what} of {len} at {at}: byte {} is {} and not {}", from as usize + i, found[i], model[i]);
        }
    }

    /// Of two files of which the first has holes and unwritten blocks, what is written in it changes places.
    pub(crate) fn exchange_written(&mut self) {
        let changing = self.changing.as_ref().expect("open");
        let block = changing.volume.geometry.block_size as usize;
        let (one, two) = (self.files[0].ino, self.files[1].ino);
        let locks = [changing.scope.contents().lock(one), changing.scope.contents().lock(two)];
        let [one, two] = locks.each_ref().map(|l| FileMut::new(&changing.scope, &changing.space, l));
        one.truncate(20 * block as u64).expect("a hole");
        one.allocate(12 * block as u64, 4 * block as u64, true).expect("unwritten blocks");
        one.write_at(3 * block as u64, &vec![5; 2 * block]).expect("written");
        one.write_at(13 * block as u64, &vec![6; block]).expect("written");
        let x =
            [vec![0; 3 * block], vec![5; 2 * block], vec![0; 8 * block], vec![6; block], vec![0; 6 * block]].concat();
        let y = self.files[1].bytes.clone();
        let how = ExchangeOptions { written: true, ..Default::default() };
        one.exchange(0, &two, 0, 20 * block as u64, &how).expect("exchanged");
        let (mut new_x, mut new_y) = (x.clone(), y.clone());
        for range in [3 * block..5 * block, 13 * block..14 * block] {
            new_x[range.clone()].copy_from_slice(&y[range.clone()]);
            new_y[range.clone()].copy_from_slice(&x[range]);
        }
        (self.files[0].bytes, self.files[1].bytes) = (new_x, new_y);
        let odd = one.exchange(0, &two, 0, 100, &how);
        assert!(matches!(odd, Err(Error::Invalid(_))), "{odd:?}");
        let itself = one.exchange(0, &one, 0, block as u64, &how);
        assert!(matches!(itself, Err(Error::Invalid(_))), "{itself:?}");
    }

    /// A filesystem without the feature: no bit is set silently.
    pub(crate) fn exchange_refused(&mut self) {
        let changing = self.changing.as_ref().expect("open");
        let locks = [0, 1].map(|n: usize| changing.scope.contents().lock(self.files[n].ino));
        let [one, two] = locks.each_ref().map(|l| FileMut::new(&changing.scope, &changing.space, l));
        let refused = one.exchange(0, &two, 0, 0, &ExchangeOptions { to_end: true, ..Default::default() });
        assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
        assert!(!changing.volume.geometry.features.exchange_range());
    }

    /// Takes all space but for so many blocks, in a file of its own.
    pub(crate) fn fill_up(&mut self, but: u64) {
        let changing = self.changing.as_ref().expect("open");
        let lock = changing.scope.contents().lock(self.files[0].ino);
        let file = FileMut::new(&changing.scope, &changing.space, &lock);
        file.truncate(0).expect("truncated");
        self.files[0].bytes.clear();
        let full = file.allocate(0, 400 << 20, true);
        assert!(matches!(full, Err(Error::NoSpace(_))), "{full:?}");
        let block = u64::from(changing.volume.geometry.block_size);
        // One here and one there.
        for n in 0..but {
            file.punch((1 << 20) + n * 9 * block, block).expect("punched");
        }
    }

    /// One change of one extent where there may be no space. True where there was none: then nothing has changed.
    pub(crate) fn tight(&mut self) -> bool {
        let n = self.rng.random_range(1..self.files.len());
        let block = u64::from(self.changing().volume.geometry.block_size);
        let at = self.rng.random_range(0..MOST / block) * block;
        let what = self.rng.random_range(0..4);
        let reflink = self.changing().volume.geometry.features.reflink();
        let other = 1 + n % (self.files.len() - 1);
        let source = self.files[other].bytes.clone();
        let there = self.rng.random_range(0..=source.len() as u64 / block) * block;
        let before = self.shape(n);
        let changing = self.changing.as_ref().expect("open");
        let free = changing.space.counters().free_blocks;
        let (a, b) = (self.files[n].ino, self.files[other].ino);
        let locks = [changing.scope.contents().lock(a.min(b)), changing.scope.contents().lock(a.max(b))];
        let [first, second] = &locks;
        let (lock, from) = if a < b { (first, second) } else { (second, first) };
        let file = FileMut::new(&changing.scope, &changing.space, lock);
        let from = FileMut::new(&changing.scope, &changing.space, from);
        let bytes = &mut self.files[n].bytes;
        let inside = bytes.len() as u64 >= at + block;
        let result = match what {
            0 if inside => file.write_at(at, &vec![3; block as usize]).map(drop),
            1 if inside => file.punch(at, block),
            3 if inside && reflink && source.len() as u64 >= there + block => {
                let result = file.clone_range(at, &from, there, block);
                if result.is_ok() {
                    bytes[at as usize..(at + block) as usize]
                        .copy_from_slice(&source[there as usize..(there + block) as usize]);
                }
                result
            }
            _ => file.allocate(at, block, true),
        };
        match result {
            Ok(()) => {
                if what < 2 && inside {
                    bytes[at as usize..(at + block) as usize].fill(if what == 0 { 3 } else { 0 });
                }
                false
            }
            Err(Error::NoSpace(_)) => {
                assert_eq!(changing.space.counters().free_blocks, free);
                drop(locks);
                // A clone marks both files first.
                assert!(self.shape(n).0 == before.0 && self.shape(n).1 == before.1);
                true
            }
            Err(e) => panic!("{e}"),
        }
    }

    fn shape(&self, n: usize) -> (Vec<Extent>, u64, u64) {
        let volume = &self.changing().volume;
        let inode = Inode::read(volume, self.files[n].ino, OnDamage::Fail).expect("an inode");
        let extents = inode.extents(volume, ForkKind::Data).expect("extents");
        (extents, inode.core.nblocks.get(), inode.core.changecount.get())
    }

    /// Many threads change files of their own at once, and some share blocks with what nobody changes.
    pub(crate) fn threads(&mut self, operations: usize) {
        let changing = self.changing.as_ref().expect("open");
        changing.scope.locks().check_order();
        let last = self.files.len() - 1;
        let (of_all, own) = self.files.split_last_mut().expect("files");
        let model = of_all.bytes.clone();
        let block = u64::from(changing.volume.geometry.block_size);
        let reflink = changing.volume.geometry.features.reflink();
        let seed = self.rng.random_range(0..u64::MAX);
        std::thread::scope(|s| {
            for (n, f) in own.iter_mut().enumerate() {
                let (model, of_all) = (&model, of_all.ino);
                s.spawn(move || {
                    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ n as u64);
                    for _ in 0..operations {
                        let at = rng.random_range(0..MOST / block) * block;
                        let len: u64 = rng.random_range(1..40_000);
                        if reflink && rng.random_bool(0.2) && model.len() as u64 > block {
                            // Its number is the greatest.
                            let lock = changing.scope.contents().lock(f.ino);
                            let other = changing.scope.contents().lock(of_all);
                            let file = FileMut::new(&changing.scope, &changing.space, &lock);
                            let from = FileMut::new(&changing.scope, &changing.space, &other);
                            let len = (model.len() as u64).min(len) / block * block;
                            file.clone_range(at, &from, 0, len).expect("cloned");
                            resize(&mut f.bytes, at + len);
                            f.bytes[at as usize..(at + len) as usize].copy_from_slice(&model[..len as usize]);
                            continue;
                        }
                        let lock = changing.scope.contents().lock(f.ino);
                        let file = FileMut::new(&changing.scope, &changing.space, &lock).at(5, 5);
                        if rng.random_bool(0.2) {
                            file.truncate(at).expect("truncated");
                            f.bytes.resize(at as usize, 0);
                            continue;
                        }
                        let data = vec![rng.random_range(1..STALE); len as usize];
                        file.write_at(at, &data).expect("written");
                        resize(&mut f.bytes, at + len);
                        f.bytes[at as usize..(at + len) as usize].copy_from_slice(&data);
                    }
                });
            }
        });
        assert!(self.files[last].bytes == model);
    }

    /// All contents are those of the model.
    pub(crate) fn compare(&self) {
        let changing = self.changing();
        for f in &self.files {
            let inode = Inode::read(&changing.volume, f.ino, OnDamage::Fail).expect("an inode");
            assert_eq!(inode.size(), f.bytes.len() as u64);
            let mut bytes = vec![0; f.bytes.len()];
            libxfsr::inode::read_at(&changing.volume, &inode, 0, &mut bytes).expect("read");
            assert!(bytes == f.bytes, "{}", f.name);
        }
    }

    /// Everything is written; the judges look at it, and the kernel reads the same.
    pub(crate) fn end(mut self) {
        self.compare();
        let changing = self.changing();
        let lock = changing.scope.contents().lock(self.files[0].ino);
        FileMut::new(&changing.scope, &changing.space, &lock).truncate(0).expect("truncated");
        drop(lock);
        self.files[0].bytes.clear();
        let image = self.image.clone();
        self.changing.take().expect("open").finish();
        assert_clean("changed", &image);
        let mount = Mount::new(&image, "").expect("a mount");
        for f in &self.files {
            let path = mount.path().join(&f.name);
            assert!(std::fs::read(&path).expect("read") == f.bytes, "{}: the kernel reads something else", f.name);
            let file = std::fs::OpenOptions::new().write(true).open(&path).expect("a file");
            file.set_len(f.bytes.len() as u64 + 100_000).expect("longer");
            let now = std::fs::read(&path).expect("read");
            assert!(now[f.bytes.len()..].iter().all(|b| *b == 0), "{}: what lies behind the end", f.name);
            file.write_all_at(&[9; 30_000], 1000).expect("written");
        }
        mount.unmount().expect("an unmount");
        assert_clean("used by the kernel", &image);
    }
}
