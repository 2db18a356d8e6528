//! Fills a mounted filesystem so that every on-disk form occurs. Works through system calls on the mount, so it runs in the
//! guest too.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// One part of the contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Directories in short, block, leaf and node form, with holes.
    Directories,
    /// Directories whose extent map is a btree.
    FragmentedDirectories,
    /// A directory of this many entries.
    BigDirectory(u32),
    /// Files: empty, small, sparse, preallocated, unwritten, in many extents.
    Files,
    /// A file of this many extents.
    Extents(u32),
    /// Attributes in short, leaf, node, remote and btree form, all namespaces, ACLs.
    Attributes,
    /// Hard links by thousands, symbolic links, device nodes, FIFOs, sockets.
    Links,
    /// Odd names, owners, modes and times; project ids and inode flags.
    Odd,
    /// Files that share blocks, and copies that were written to after sharing.
    Reflink,
    /// This many single shared blocks.
    Shared(u32),
    /// Many inodes made and partly removed.
    Churn(u32),
    /// Inode chunks with holes, in a filesystem without room for whole ones.
    SparseInodes,
    /// Files with owners of all kinds, for quota.
    Owners,
    /// Realtime files: several extent sizes, holes, unwritten extents.
    Realtime,
    /// Names that ascii-ci folds.
    Cases,
}

/// What the filler must know of the filesystem.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Block size.
    pub block: u64,
    /// Directory block size.
    pub directory: u64,
    /// Inode size.
    pub inode: u64,
    /// Seed of all that is random.
    pub seed: u64,
}

/// Fills one filesystem.
#[derive(Debug)]
pub struct Filler {
    root: PathBuf,
    shape: Shape,
    rng: ChaCha8Rng,
}

impl Filler {
    /// A filler for the filesystem mounted at `root`.
    pub fn new(root: &Path, shape: Shape) -> Filler {
        Filler { root: root.to_path_buf(), shape, rng: ChaCha8Rng::seed_from_u64(shape.seed) }
    }

    /// Makes one part.
    pub fn part(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Directories => self.directories(),
            Part::FragmentedDirectories => self.fragmented_directories(),
            Part::BigDirectory(n) => self.big_directory(n),
            Part::Files => self.files(),
            Part::Extents(n) => self.extents(n),
            Part::Attributes => self.attributes(),
            Part::Links => self.links(),
            Part::Odd => self.odd(),
            Part::Reflink => self.reflink(),
            Part::Shared(n) => self.shared(n),
            Part::Churn(n) => self.churn(n),
            Part::SparseInodes => self.sparse_inodes(),
            Part::Owners => self.owners(),
            Part::Realtime => self.realtime(),
            Part::Cases => self.cases(),
        }
        .with_context(|| format!("filling {part:?}"))
    }

    fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        let mut data = vec![0; length as usize];
        self.rng.fill_bytes(&mut data);
        data
    }

    fn name(&mut self, number: usize, length: usize) -> String {
        let mut name = format!("{number:06}-");
        while name.len() < length {
            name.push(char::from(self.rng.random_range(b'a'..=b'z')));
        }
        name
    }

    /// `count` entries in a directory: mostly links to one file, because links are quick, and some of every other kind.
    fn entries(&mut self, dir: &Path, count: usize, length: usize) -> Result<Vec<PathBuf>> {
        let target = dir.join("t");
        fs::write(&target, b"target")?;
        let mut all = Vec::with_capacity(count);
        for i in 1..count {
            let path = dir.join(self.name(i, length));
            match i % 64 {
                10 => fs::write(&path, format!("{i}"))?,
                20 => symlink("t", &path)?,
                30 => fs::create_dir(&path)?,
                40 => node(&path, FileType::Fifo, 0)?,
                _ => fs::hard_link(&target, &path)?,
            }
            all.push(path);
        }
        Ok(all)
    }

    fn directories(&mut self) -> Result<()> {
        let base = self.dir("dirs")?;
        let block = self.shape.directory as usize;
        // Entries of 20-byte names take 32 bytes and 8 of hash, so these counts give a single block, a single leaf, a node.
        let forms = [("short", 4), ("block", block * 6 / 10 / 40), ("leaf", block * 3 / 40), ("node", block / 8 * 2)];
        fs::create_dir(base.join("empty"))?;
        for (form, count) in forms {
            let dir = base.join(form);
            fs::create_dir(&dir)?;
            self.entries(&dir, count, if form == "short" { 8 } else { 20 })?;
            // The same, then a run in the middle is removed, so that whole data blocks go, and then some single entries.
            let holes = base.join(format!("{form}-holes"));
            fs::create_dir(&holes)?;
            let all = self.entries(&holes, count, if form == "short" { 8 } else { 20 })?;
            let middle = all.len() / 4..all.len() * 3 / 4;
            for (i, path) in all.iter().enumerate() {
                if middle.contains(&i) || i % 5 == 3 {
                    remove(path)?;
                }
            }
        }
        // Once large and then almost emptied: blocks and leaves are given back.
        let shrunk = base.join("shrunk");
        fs::create_dir(&shrunk)?;
        for (i, path) in self.entries(&shrunk, block / 8 * 2, 30)?.iter().enumerate() {
            if i % 97 != 0 {
                remove(path)?;
            }
        }
        let mut deep = base.join("deep");
        for level in 0..40 {
            deep.push(format!("level-{level}"));
        }
        fs::create_dir_all(deep)?;
        Ok(())
    }

    fn fragmented_directories(&mut self) -> Result<()> {
        let base = self.dir("dirs-btree")?;
        // Two directories that grow in turn take blocks in turn, so their extents do not join.
        let (first, second, filler) = (base.join("first"), base.join("second-holes"), base.join("filler"));
        let inline = (self.shape.inline() / 16 + 3) as usize;
        let per_block = self.shape.directory as usize / 224;
        let target = base.join("target");
        fs::write(&target, b"linked very often")?;
        for dir in [&first, &second] {
            fs::create_dir(dir)?;
        }
        let mut all = Vec::new();
        let spacer = File::create(filler)?;
        for i in 0..(inline * 2 + 4) * per_block.max(1) {
            for dir in [&first, &second] {
                let path = dir.join(self.name(i, 200));
                fs::hard_link(&target, &path)?;
                if dir == &second {
                    all.push(path);
                }
            }
            if i % per_block.max(1) == 0 {
                // A block of somebody else's in between.
                let at = (i / per_block.max(1)) as u64 * 2 * self.shape.block;
                rustix::fs::fallocate(&spacer, FallocateFlags::empty(), at, self.shape.block)?;
            }
        }
        let middle = all.len() / 3..all.len() / 2;
        for path in &all[middle] {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    fn big_directory(&mut self, count: u32) -> Result<()> {
        let dir = self.dir("big")?;
        self.entries(&dir, count as usize, 24)?;
        Ok(())
    }

    fn files(&mut self) -> Result<()> {
        let dir = self.dir("files")?;
        let block = self.shape.block;
        for (name, length) in [
            ("empty", 0),
            ("one", 1),
            ("block", block),
            ("block+1", block + 1),
            ("block-1", block - 1),
            ("large", 777_777),
        ] {
            fs::write(dir.join(name), self.bytes(length))?;
        }
        let make = |name: &str| File::create_new(dir.join(name));
        let hole = make("only-hole")?;
        hole.set_len(10 * block + 5)?;
        let unwritten = make("unwritten")?;
        rustix::fs::fallocate(&unwritten, FallocateFlags::empty(), 0, 40 * block)?;
        unwritten.write_all_at(&self.bytes(block), 7 * block)?;
        let beyond = make("beyond-eof")?;
        beyond.write_all_at(&self.bytes(3 * block + 17), 0)?;
        rustix::fs::fallocate(&beyond, FallocateFlags::KEEP_SIZE, 0, 64 * block)?;
        let sparse = make("sparse")?;
        for i in 0..12 {
            sparse.write_all_at(&self.bytes(block * 3 / 2), i * 5 * block)?;
        }
        let truncated = make("truncated")?;
        truncated.write_all_at(&self.bytes(9 * block), 0)?;
        truncated.set_len(4 * block + 1)?;
        let far = make("far")?;
        far.write_all_at(b"far away", 1 << 42)?;
        let collapsed = make("collapsed")?;
        collapsed.write_all_at(&self.bytes(20 * block), 0)?;
        rustix::fs::fallocate(&collapsed, FallocateFlags::COLLAPSE_RANGE, 5 * block, 3 * block)?;
        rustix::fs::fallocate(&collapsed, FallocateFlags::INSERT_RANGE, 2 * block, 4 * block)?;
        rustix::fs::fallocate(&collapsed, FallocateFlags::ZERO_RANGE, 9 * block, 2 * block)?;
        // Just more extents than fit into the inode, written and unwritten in turn.
        self.extents_at(&dir.join("btree-small"), (self.shape.inline() / 16 + 20) as u32)
    }

    fn extents(&mut self, count: u32) -> Result<()> {
        let path = self.dir("files")?.join("btree-large");
        self.extents_at(&path, count)
    }

    /// A file of at least `count` extents: every other block of a preallocated range is punched out, and some are written.
    fn extents_at(&mut self, path: &Path, count: u32) -> Result<()> {
        let block = self.shape.block;
        let file = File::create_new(path)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, u64::from(count) * 2 * block)?;
        let written = self.bytes(block);
        for i in 0..u64::from(count) {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, punch, (2 * i + 1) * block, block)?;
            if i % 16 == 5 {
                file.write_all_at(&written, 2 * i * block)?;
            }
            if i % 1024 == 1023 {
                file.sync_all()?;
            }
        }
        file.sync_all()?;
        Ok(())
    }

    fn attributes(&mut self) -> Result<()> {
        let dir = self.dir("attrs")?;
        let block = self.shape.block as usize;
        let set = |path: &Path, name: &str, value: &[u8]| rustix::fs::lsetxattr(path, name, value, XattrFlags::empty());
        let plain = |name: &str| -> Result<PathBuf> {
            let path = dir.join(name);
            fs::write(&path, b"has attributes")?;
            Ok(path)
        };
        let short = plain("short")?;
        for (name, value) in
            [("user.a", &b"1"[..]), ("trusted.t", b"two"), ("security.s", b""), ("user.bin", &[0, 255, 10])]
        {
            set(&short, name, value)?;
        }
        // A leaf holds a block of names and values; more of them make a node; values near a block's size live outside.
        let each = 100.min(block / 24);
        let leaf = plain("leaf")?;
        for i in 0..block / 2 / (each + 32) {
            set(&leaf, &format!("user.leaf-{i:04}"), &self.bytes(each as u64))?;
        }
        let counted = (3 * block / (each + 32)).min(2500);
        let value = (3 * block / counted).max(each);
        let node = plain("node")?;
        for i in 0..counted {
            set(&node, &format!("user.node-{i:04}"), &self.bytes(value as u64))?;
        }
        for i in (0..counted).filter(|i| i % 3 == 1) {
            rustix::fs::lremovexattr(&node, format!("user.node-{i:04}"))?;
        }
        let remote = plain("remote")?;
        let mut lengths = vec![block - 100, block, block + 1, 3 * block + 7, 65536, 12345];
        lengths.retain(|l| (1..=65536).contains(l));
        for (i, length) in lengths.iter().enumerate() {
            let prefix = ["user", "trusted", "security"][i % 3];
            set(&remote, &format!("{prefix}.remote-{i}"), &self.bytes(*length as u64))?;
        }
        set(&remote, "user.removed", &self.bytes(5000))?;
        rustix::fs::lremovexattr(&remote, "user.removed")?;
        // Two files whose remote values are stored in turn: neither gets long extents.
        let (first, second) = (plain("btree")?, plain("btree-holes")?);
        let (count, length) = (70, (2 * block).clamp(3000, 60000) as u64);
        for i in 0..count {
            set(&first, &format!("user.value-{i:03}"), &self.bytes(length))?;
            set(&second, &format!("trusted.value-{i:03}"), &self.bytes(length))?;
        }
        for i in 10..20 {
            rustix::fs::lremovexattr(&second, format!("trusted.value-{i:03}"))?;
        }
        let long = plain("long-names")?;
        for i in 0..20 {
            set(&long, &format!("user.{i:02}{}", "n".repeat(248)), b"value")?;
        }
        let emptied = plain("emptied")?;
        for i in 0..30 {
            set(&emptied, &format!("user.gone-{i}"), &self.bytes(80))?;
        }
        for i in 0..30 {
            rustix::fs::lremovexattr(&emptied, format!("user.gone-{i}"))?;
        }
        let link = dir.join("link");
        symlink("short", &link)?;
        set(&link, "trusted.on-a-link", b"yes")?;
        set(&dir, "user.on-a-directory", &self.bytes(60))?;
        // Access control lists, in the kernel's own form: version 2, then tag, permissions and id of each entry.
        let acl = |ids: &[u32]| {
            let mut v = 2_u32.to_le_bytes().to_vec();
            let mut add = |tag: u16, id: u32| {
                v.extend(tag.to_le_bytes());
                v.extend(6_u16.to_le_bytes());
                v.extend(id.to_le_bytes());
            };
            add(1, u32::MAX);
            ids.iter().for_each(|id| add(2, *id));
            for tag in [4, 0x10, 0x20] {
                add(tag, u32::MAX);
            }
            v
        };
        let with_acl = plain("acl")?;
        set(&with_acl, "system.posix_acl_access", &acl(&[1000, 1001, 70000]))?;
        let acl_dir = dir.join("acl-dir");
        fs::create_dir(&acl_dir)?;
        set(&acl_dir, "system.posix_acl_default", &acl(&(2000..2020).collect::<Vec<_>>()))?;
        fs::write(acl_dir.join("inherits"), b"")?;
        Ok(())
    }

    fn links(&mut self) -> Result<()> {
        let dir = self.dir("links")?;
        let popular = dir.join("popular");
        fs::write(&popular, b"everybody's")?;
        for i in 0..3000 {
            fs::hard_link(&popular, dir.join(format!("l{i}")))?;
        }
        for length in [1, 10, 100, 335, 336, 337, 500, 800, 1000, 1023] {
            symlink("s".repeat(length), dir.join(format!("symlink-{length}")))?;
        }
        symlink(OsStr::from_bytes(b"\xff\xfe not utf-8"), dir.join("symlink-bytes"))?;
        symlink("../links/popular", dir.join("symlink-good"))?;
        node(&dir.join("null"), FileType::CharacterDevice, rustix::fs::makedev(1, 3))?;
        node(&dir.join("wide"), FileType::BlockDevice, rustix::fs::makedev(259, 70000))?;
        node(&dir.join("fifo"), FileType::Fifo, 0)?;
        node(&dir.join("socket"), FileType::Socket, 0)?;
        Ok(())
    }

    fn odd(&mut self) -> Result<()> {
        let dir = self.dir("odd")?;
        let long = [b'x'; 255];
        let names: [&[u8]; 11] = [
            &long,
            b"new\nline",
            b"\xff\xfe\x80bytes",
            b" ",
            b"-rf",
            b"\x1b[2Jescape",
            "na\u{ef}ve".as_bytes(),
            "nai\u{308}ve".as_bytes(),
            "\u{202e}txt.exe".as_bytes(),
            b"back\\slash",
            b"...",
        ];
        for name in names {
            fs::write(dir.join(OsStr::from_bytes(name)), name)?;
        }
        for (i, mode) in [0, 0o7777, 0o4755, 0o2711, 0o1666, 0o444].into_iter().enumerate() {
            let path = dir.join(format!("mode-{i}"));
            fs::write(&path, b"")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        for (i, (uid, gid)) in
            [(1, 2), (65534, 65535), (70_000, 4_000_000_000), (u32::MAX - 1, 0)].into_iter().enumerate()
        {
            let path = dir.join(format!("owner-{i}"));
            fs::write(&path, b"")?;
            std::os::unix::fs::lchown(&path, Some(uid), Some(gid))?;
        }
        // The first and the last second of both time formats, and around 1970. What does not fit is clamped by the kernel.
        let times = [i64::from(i32::MIN), -1, 0, 1, i64::from(i32::MAX), 1 << 31, 4_000_000_000, 16_299_260_424];
        for (i, seconds) in times.into_iter().enumerate() {
            let path = dir.join(format!("time-{i}"));
            fs::write(&path, b"")?;
            let stamp = |n| Timespec { tv_sec: seconds, tv_nsec: n };
            let times = Timestamps { last_access: stamp(1), last_modification: stamp(999_999_999) };
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let flags = dir.join("flags");
        fs::create_dir(&flags)?;
        for (name, commands) in [
            ("project", &["chproj 4242"][..]),
            ("large-project", &["chproj 4294967294"]),
            ("extsize", &["extsize 64k"]),
            ("nodump-noatime", &["chattr +d", "chattr +A"]),
            ("append", &["chattr +a"]),
            ("immutable", &["chattr +i"]),
        ] {
            let path = flags.join(name);
            fs::write(&path, b"")?;
            crate::oracle::xfs_io(&path, commands)?;
        }
        let inherits = flags.join("inherits");
        fs::create_dir(&inherits)?;
        crate::oracle::xfs_io(&inherits, &["chproj 77", "chattr +P", "extsize 128k"])?;
        fs::write(inherits.join("child"), self.bytes(1000))?;
        Ok(())
    }

    fn reflink(&mut self) -> Result<()> {
        let dir = self.dir("reflink")?;
        let block = self.shape.block;
        let original = dir.join("original");
        fs::write(&original, self.bytes(60 * block))?;
        File::open(&original)?.sync_all()?;
        let clone = |name: &str| -> Result<File> {
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(dir.join(name))?;
            rustix::fs::ioctl_ficlone(&file, &File::open(&original)?)?;
            Ok(file)
        };
        for i in 0..5 {
            clone(&format!("clone-{i}"))?;
        }
        let cowed = clone("cowed")?;
        for i in 0..8 {
            cowed.write_all_at(&self.bytes(block), i * 7 * block)?;
            cowed.sync_all()?;
        }
        let punched = clone("punched")?;
        for i in 0..5 {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&punched, punch, (i * 10 + 3) * block, 2 * block)?;
        }
        let unshared = clone("unshared")?;
        rustix::fs::fallocate(&unshared, FallocateFlags::UNSHARE_RANGE, 10 * block, 20 * block)?;
        let hinted = clone("hinted")?;
        crate::oracle::xfs_io(&dir.join("hinted"), &["cowextsize 256k"])?;
        hinted.write_all_at(&self.bytes(block), 30 * block)?;
        hinted.sync_all()?;
        // Shared with itself.
        let own = clone("with-itself")?;
        rustix::fs::ftruncate(&own, 120 * block)?;
        share(&own, 0, &own, 70 * block, 20 * block)?;
        Ok(())
    }

    /// Single blocks of one file, every other one, shared with a second file: as many refcount and rmap records.
    fn shared(&mut self, count: u32) -> Result<()> {
        let dir = self.dir("shared")?;
        let block = self.shape.block;
        let data = self.bytes(block);
        let source = OpenOptions::new().read(true).write(true).create_new(true).open(dir.join("source"))?;
        for i in 0..u64::from(count) * 2 {
            source.write_all_at(&data, i * block)?;
        }
        source.sync_all()?;
        let other = File::create_new(dir.join("other"))?;
        for i in 0..u64::from(count) {
            share(&source, 2 * i * block, &other, 3 * i * block, block)?;
            if i % 256 == 255 {
                other.sync_all()?;
            }
        }
        Ok(())
    }

    fn churn(&mut self, count: u32) -> Result<()> {
        let dir = self.dir("churn")?;
        for i in 0..count {
            File::create_new(dir.join(format!("f{i}")))?;
        }
        rustix::fs::syncfs(File::open(&dir)?)?;
        // Whole chunks go, and single inodes of others.
        for i in 0..count {
            if (count / 4..count / 2).contains(&i) || self.rng.random_range(0..4) == 0 {
                fs::remove_file(dir.join(format!("f{i}")))?;
            }
        }
        Ok(())
    }

    fn sparse_inodes(&mut self) -> Result<()> {
        let dir = self.dir("sparse")?;
        let block = self.shape.block;
        let chunk = 64 * self.shape.inode / block;
        // All free space into one file.
        let file = File::create_new(dir.join("ballast"))?;
        let length = self.all_space(&file)?;
        // Holes too short for a whole chunk, long enough for an aligned half, at all alignments.
        let (hole, stride) = ((chunk - 1) * block, (chunk + chunk / 2 + 1) * block);
        let end = length.min(4000 * stride);
        let punch = |from: u64, to: u64| -> Result<()> {
            for at in (from..to).step_by(stride as usize) {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&file, flags, at, hole)?;
            }
            file.sync_all()?;
            Ok(())
        };
        let middle = end / 2 / stride * stride;
        punch(0, middle)?;
        // What an AG reserves for its btrees is still free in one piece. A second file takes that, and leaves the AGs these holes.
        let second = File::create_new(dir.join("ballast-2"))?;
        self.all_space(&second)?;
        punch(middle, end)?;
        let files = dir.join("files");
        fs::create_dir(&files)?;
        // More than there are free inodes in whole chunks.
        let count = 6500;
        let mut made = 0;
        while made < count {
            match File::create_new(files.join(format!("{made}"))) {
                Ok(_) => made += 1,
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) => break,
                Err(e) => return Err(e.into()),
            }
        }
        for i in (0..made).step_by(3) {
            fs::remove_file(files.join(format!("{i}")))?;
        }
        // Most of the space is given back; the fragments at the front stay, so the free space trees are deep.
        file.set_len(end)?;
        fs::remove_file(dir.join("ballast-2"))?;
        file.sync_all()?;
        Ok(())
    }

    /// Preallocates all free space to a file, in steps that get smaller. Returns its length.
    fn all_space(&self, file: &File) -> Result<u64> {
        let (mut at, mut step) = (0, 32 << 20);
        while step >= self.shape.block {
            match rustix::fs::fallocate(file, FallocateFlags::empty(), at, step) {
                Ok(()) => at += step,
                Err(rustix::io::Errno::NOSPC) => step /= 2,
                Err(e) => return Err(e.into()),
            }
        }
        file.sync_all()?;
        Ok(at)
    }

    fn owners(&mut self) -> Result<()> {
        let dir = self.dir("owners")?;
        for (i, id) in [0, 1001, 1002, 5000, 65_000, 3_000_000_000].into_iter().enumerate() {
            for number in 0..5 + i as u64 {
                let path = dir.join(format!("{id}-{number}"));
                fs::write(&path, self.bytes(number * 3000))?;
                std::os::unix::fs::lchown(&path, Some(id), Some(id / 2))?;
            }
            let project = dir.join(format!("project-{i}"));
            fs::create_dir(&project)?;
            crate::oracle::xfs_io(&project, &[format!("chproj {}", 100 + i).as_str(), "chattr +P"])?;
            fs::write(project.join("counted"), self.bytes(20_000))?;
        }
        Ok(())
    }

    fn realtime(&mut self) -> Result<()> {
        let dir = self.dir("rt")?;
        crate::oracle::xfs_io(&dir, &["chattr +t"])?;
        let block = self.shape.block;
        for (i, length) in [0, 1, block, 10 * block + 3, 500_000, 3_000_000].into_iter().enumerate() {
            fs::write(dir.join(format!("file-{i}")), self.bytes(length))?;
        }
        let sparse = File::create_new(dir.join("sparse"))?;
        for i in 0..60 {
            sparse.write_all_at(&self.bytes(block), i * 300_000)?;
            sparse.sync_data()?;
        }
        let unwritten = File::create_new(dir.join("unwritten"))?;
        rustix::fs::fallocate(&unwritten, FallocateFlags::empty(), 0, 5 << 20)?;
        unwritten.write_all_at(&self.bytes(5 * block), 1 << 20)?;
        for i in 0..40 {
            fs::write(dir.join(format!("small-{i}")), self.bytes(9000))?;
        }
        for i in (0..40).step_by(3) {
            fs::remove_file(dir.join(format!("small-{i}")))?;
        }
        Ok(())
    }

    fn cases(&mut self) -> Result<()> {
        let dir = self.dir("cases")?;
        for name in ["lower", "UPPER", "MiXeD", "with space", "Zz[\\]^_", "na\u{ef}ve", "NA\u{cf}VE2"] {
            fs::write(dir.join(name), name)?;
            let other: String =
                name.chars().map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c }).collect();
            fs::metadata(dir.join(other)).context("the other case of a name")?;
        }
        let many = dir.join("Many");
        fs::create_dir(&many)?;
        for i in 0..2000 {
            fs::hard_link(dir.join("lower"), many.join(format!("Name-{i}-ABCdef")))?;
        }
        Ok(())
    }
}

impl Shape {
    /// Bytes of an inode's literal area: what a data fork may have when there are no attributes.
    fn inline(&self) -> u64 {
        self.inode - 176
    }
}

fn remove(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir(path)?
    } else {
        fs::remove_file(path)?
    }
    Ok(())
}

fn node(path: &Path, kind: FileType, device: u64) -> Result<()> {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device)?;
    Ok(())
}

/// Shares blocks: on XFS a copy of whole blocks within one filesystem clones them.
fn share(from: &File, at: u64, to: &File, to_at: u64, length: u64) -> Result<()> {
    let (mut from_at, mut to_at, end) = (at, to_at, at + length);
    while from_at < end {
        let rest = (end - from_at) as usize;
        let n = rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), rest)?;
        anyhow::ensure!(n > 0, "copy_file_range came to an end early");
    }
    Ok(())
}
