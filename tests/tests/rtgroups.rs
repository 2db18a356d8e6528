//! Realtime groups. No kernel that runs these tests mounts them: the images are made by the library's own mkfs, so what follows shows that
//! mkfs and check agree and that changes are found, not that either is right. (Linux 6.18 without realtime support accepts the superblock.)

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use libxfsr::cache::OnDamage;
use libxfsr::check::{self, Outcome};
use libxfsr::control::Control;
use libxfsr::dir;
use libxfsr::error::ForkKind;
use libxfsr::format::inode::seal_dinode;
use libxfsr::format::seal_checksum;
use libxfsr::format::superblock::{SUPERBLOCK, Superblock};
use libxfsr::inode::Inode;
use libxfsr::mkfs::{self, Options, write};
use libxfsr::target::{Access, FileTarget};
use libxfsr::units::{FsBlock, Ino, Lsn};
use libxfsr::volume::{Devices, Volume};
use zerocopy::FromBytes as _;

struct Image {
    devices: Devices,
    file: File,
    rt: File,
    volume: Volume,
    _directory: tempfile::TempDir,
}

impl Image {
    fn new(options: &Options, rt_size: u64) -> Image {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str, size: u64| -> PathBuf {
            let path = directory.path().join(name);
            File::create_new(&path).and_then(|f| f.set_len(size)).unwrap();
            path
        };
        let (data, rt) = (make("data", 400 << 20), make("rt", rt_size));
        let devices = mkfs::Devices { rt: Some(mkfs::Topology::plain(rt_size)), ..mkfs::Devices::file(400 << 20) };
        let plan = mkfs::plan(options, &devices).unwrap();
        let open = |p: &Path| FileTarget::open(p, Access::Write).unwrap();
        let (data_target, rt_target) = (open(&data), open(&rt));
        let targets = write::Targets { data: &data_target, log: None, rt: Some(&rt_target) };
        write::write(&plan, &targets, &write::WriteOptions::default(), &Control::none()).unwrap();
        drop((data_target, rt_target));
        let writable = |p: &Path| OpenOptions::new().read(true).write(true).open(p).unwrap();
        let (file, rt_file) = (writable(&data), writable(&rt));
        let devices = Devices { data, log: None, realtime: Some(rt) };
        let volume = Volume::open(&devices).unwrap();
        Image { devices, file, rt: rt_file, volume, _directory: directory }
    }

    fn check(&self) -> Outcome {
        check::check(&Volume::open(&self.devices).unwrap(), &Control::none()).unwrap()
    }

    fn ino(&self, path: &str) -> Ino {
        let root = Ino(self.volume.superblock.metadirino.get());
        dir::resolve(&self.volume, root, path.as_bytes()).unwrap()
    }

    /// Changes bytes of a file's first block, with the checksum right, and gives what is found then.
    fn in_block(&self, path: &str, change: impl Fn(&mut [u8])) -> Vec<String> {
        let inode = Inode::read(&self.volume, self.ino(path), OnDamage::Fail).unwrap();
        let start = inode.extents(&self.volume, ForkKind::Data).unwrap()[0].start;
        let at = self.volume.geometry.fsblock_to_daddr(FsBlock(start)).unwrap().bytes();
        self.changed(&self.file, at, self.volume.geometry.block_size as usize, |b| {
            change(b);
            seal_checksum(b, 4);
        })
    }

    /// The same for an inode.
    fn in_inode(&self, path: &str, change: impl Fn(&mut [u8])) -> Vec<String> {
        let at = self.volume.geometry.ino_to_offset(self.ino(path)).unwrap();
        self.changed(&self.file, at, self.volume.geometry.inode_size as usize, |b| {
            change(b);
            seal_dinode(b, Lsn(0));
        })
    }

    fn changed(&self, file: &File, at: u64, length: usize, change: impl Fn(&mut [u8])) -> Vec<String> {
        let mut old = vec![0; length];
        file.read_exact_at(&mut old, at).unwrap();
        let mut new = old.clone();
        change(&mut new);
        assert_ne!(old, new);
        file.write_all_at(&new, at).unwrap();
        let outcome = self.check();
        file.write_all_at(&old, at).unwrap();
        assert!(outcome.is_damaged(), "{outcome}");
        outcome.findings.iter().map(|f| f.code()).collect()
    }
}

fn options(rmapbt: bool, extsize: u64, block: u32) -> Options {
    let mut o = Options { block_size: Some(block), ..Options::default() };
    o.metadata.metadir = Some(true);
    o.metadata.rmapbt = Some(rmapbt);
    o.metadata.reflink = Some(rmapbt && extsize == u64::from(block));
    o.realtime.extsize = Some(extsize);
    o
}

#[test]
fn mkfs_and_check_agree() {
    for (o, rt) in [
        (options(true, 16384, 4096), 300 << 20),
        (options(false, 4096, 4096), (1 << 40) + 12_345_344),
        (options(true, 4096, 1024), (300 << 20) + 8192),
        (options(true, 4096, 4096), 300 << 20),
        (options(true, 28672, 4096), 200 << 20),
    ] {
        let image = Image::new(&o, rt);
        let outcome = image.check();
        assert!(outcome.findings.is_empty() && outcome.not_checked.is_empty(), "{outcome}");
        assert_eq!(image.volume.geometry.rt_groups, 4);
    }
}

#[test]
fn changes_are_found() {
    let image = Image::new(&options(true, 4096, 4096), 300 << 20);
    let has = |codes: Vec<String>, code: &str| assert!(codes.iter().any(|c| c == code), "{code}: {codes:?}");
    // Words begin behind a header of 48 bytes; they are big-endian.
    has(image.in_block("rtgroups/1.bitmap", |b| b[48 + 3] &= !4), "rtbitmap.bits.unowned");
    has(image.in_block("rtgroups/0.bitmap", |b| b[48 + 3] |= 1), "rtbitmap.bits.doubly-owned");
    has(image.in_block("rtgroups/3.bitmap", |b| b[4095] |= 1), "rtbitmap.bits.extra");
    has(image.in_block("rtgroups/2.bitmap", |b| b[15] ^= 1), "rtbitmap.owner.owner");
    has(image.in_block("rtgroups/2.bitmap", |b| b[0] = 0), "rtbitmap.magic.magic");
    has(image.in_block("rtgroups/2.summary", |b| b[48 + 7] += 1), "rtsummary.counter.count");
    has(image.in_inode("rtgroups/2.summary", |b| b[6..8].copy_from_slice(&[0, 5])), "metapath.metatype.mismatch");
    // Root of a tree in the inode: level, records; the first record is that of the realtime superblock.
    has(image.in_inode("rtgroups/0.rmap", |b| b[179] = 0), "rtrmapbt.recs.missing");
    has(image.in_inode("rtgroups/0.rmap", |b| b[187] = 5), "rtrmapbt.recs.extra");
    has(image.in_inode("rtgroups/0.rmap", |b| b[180] = 0x70), "rtrmapbt.recs.range");
    has(image.in_inode("rtgroups/1.rmap", |b| b[177] = 20), "inode.level.range");
    has(
        image.in_inode("rtgroups/1.refcount", |b| {
            b[179] = 1;
            b[180..192].copy_from_slice(&[0, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0, 2]);
        }),
        "rtrefcountbt.recs.extra",
    );
    // Two records that could be one.
    has(
        image.in_inode("rtgroups/1.refcount", |b| {
            b[179] = 2;
            b[180..204].copy_from_slice(&[0, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 12, 0, 0, 0, 4, 0, 0, 0, 2]);
        }),
        "rtrefcountbt.recs.unmerged",
    );
    // A staging extent owns its blocks.
    let staging = image.in_inode("rtgroups/1.refcount", |b| {
        b[179] = 1;
        b[180..192].copy_from_slice(&[0x80, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0, 1]);
    });
    has(staging.clone(), "rtbitmap.bits.doubly-owned");
    has(staging, "rtrmapbt.recs.missing");
    has(image.in_inode("rtgroups", |b| b[185] = b'x'), "metapath.file.missing");
    has(image.changed(&image.rt, 0, 512, |b| b[20] ^= 1), "rgsuper.crc.crc");
    let sb = |at: usize, value: u8| {
        image.changed(&image.file, 0, 512, |b| {
            b[at] = value;
            seal_checksum(b, 224);
        })
    };
    has(sb(275, 9), "sb.rgcount.mismatch");
    has(sb(280, 9), "sb.rgblklog.mismatch");
    has(sb(159, 9), "fscounters.frextents.count");
    assert!(image.check().findings.is_empty());
}

#[test]
fn absurd_numbers_of_groups_cost_nothing() {
    let image = Image::new(&options(true, 4096, 4096), 300 << 20);
    let started = std::time::Instant::now();
    let codes = image.changed(&image.file, 0, 512, |b| {
        let (sb, _) = Superblock::mut_from_prefix(b).unwrap();
        let lsn = Lsn(sb.lsn.get());
        let groups = u32::MAX;
        (sb.rblocks, sb.rextents) = (u64::from(groups).into(), u64::from(groups).into());
        (sb.rgcount, sb.rgextents, sb.rextsize) = (groups.into(), 1.into(), 1.into());
        (sb.rgblklog, sb.rextslog, sb.rbmblocks) = (0, 31, 1.into());
        (SUPERBLOCK.seal)(b, lsn);
    });
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(codes.iter().any(|c| c == "metapath.file.missing"), "{codes:?}");
}
