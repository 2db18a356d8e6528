//! Realtime sections: what the kernel wrote is clean, and each change of it is found, also those that xfs_repair -n does not see.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;

use libxfsr::cache::OnDamage;
use libxfsr::check::{self, Outcome};
use libxfsr::control::Control;
use libxfsr::error::ForkKind;
use libxfsr::format::btree::{BmbtRec, Extent};
use libxfsr::format::inode::{CORE_SIZE, seal_dinode};
use libxfsr::inode::Inode;
use libxfsr::units::{FsBlock, Ino, Lsn};
use libxfsr::volume::{self, Volume};
use xfsr_tests::corpus;
use xfsr_tests::oracle::{self, Devices};
use xfsr_tests::view::open;

fn checked(devices: &Devices) -> Option<Outcome> {
    let devices = volume::Devices { data: devices.data.clone(), log: None, realtime: devices.rt.clone() };
    // A superblock whose numbers are impossible cannot be opened; its copies then are.
    Volume::open(&devices).ok().map(|v| check::check(&v, &Control::none()).expect("a check"))
}

/// A writable copy of an image, which is put back after each change.
struct Bench {
    devices: Devices,
    pristine: File,
    copy: File,
    volume: Volume,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new(name: &str) -> Bench {
        let directory = tempfile::tempdir_in(corpus::directory()).expect("a directory");
        let devices = corpus::copy(name, directory.path());
        for path in [Some(&devices.data), devices.rt.as_ref()].into_iter().flatten() {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        }
        let pristine = File::open(corpus::image(name)).unwrap();
        let copy = OpenOptions::new().read(true).write(true).open(&devices.data).unwrap();
        Bench { volume: open(&devices), devices, pristine, copy, _directory: directory }
    }

    fn inode(&self, ino: u64) -> Inode {
        Inode::read(&self.volume, Ino(ino), OnDamage::Fail).expect("an inode")
    }

    /// Where a byte of a file of one extent lies on the data device.
    fn byte(&self, ino: u64, at: u64) -> u64 {
        let extents = self.inode(ino).extents(&self.volume, ForkKind::Data).expect("extents");
        self.volume.geometry.fsblock_to_daddr(FsBlock(extents[0].start)).expect("an address").bytes() + at
    }

    fn flip(&self, ino: u64, byte: u64, mask: u8) {
        let at = self.byte(ino, byte);
        let mut b = [0];
        self.copy.read_exact_at(&mut b, at).unwrap();
        self.copy.write_all_at(&[b[0] ^ mask], at).unwrap();
    }

    fn db(&self, commands: &[&str]) {
        oracle::xfs_db_write(&self.devices, commands).expect("xfs_db");
    }

    /// Changes the first extent of a file.
    fn remap(&self, ino: u64, change: impl Fn(&mut Extent)) {
        let mut inode = self.inode(ino);
        let mut extent = inode.extents(&self.volume, ForkKind::Data).expect("extents")[0];
        change(&mut extent);
        let record = BmbtRec::pack(&extent);
        inode.bytes[CORE_SIZE..CORE_SIZE + 8].copy_from_slice(&record.l0.to_bytes());
        inode.bytes[CORE_SIZE + 8..CORE_SIZE + 16].copy_from_slice(&record.l1.to_bytes());
        seal_dinode(&mut inode.bytes, Lsn(inode.core.lsn.get()));
        let at = self.volume.geometry.ino_to_offset(Ino(ino)).unwrap();
        self.copy.write_all_at(&inode.bytes, at).unwrap();
    }

    /// What was changed in the first MiB and around the inodes and the bitmap is taken back.
    fn restore(&self) {
        let mut buf = vec![0; 1 << 20];
        let length = self.pristine.metadata().unwrap().len();
        let mut old = vec![0; 1 << 20];
        for at in (0..length).step_by(1 << 20) {
            self.pristine.read_exact_at(&mut buf, at).unwrap();
            self.copy.read_exact_at(&mut old, at).unwrap();
            if buf != old {
                self.copy.write_all_at(&buf, at).unwrap();
            }
        }
    }
}

#[test]
fn nothing_is_found_in_what_the_kernel_wrote() {
    let Some(devices) = corpus::obtain("realtime") else { return };
    let outcome = checked(&devices).expect("a volume");
    assert!(outcome.findings.is_empty() && outcome.not_checked.is_empty(), "{outcome}");
    assert!(oracle::xfs_repair_n(&devices, &[]).unwrap().clean());
    // Without the device nobody can say so, and xfs_repair refuses.
    let alone = Devices { rt: None, ..devices };
    let outcome = checked(&alone).expect("a volume");
    assert_eq!(outcome.verdict(), check::Verdict::Incomplete, "{outcome}");
    assert!(
        outcome.findings.is_empty() && outcome.not_checked.iter().all(|n| n.what == "realtime device"),
        "{outcome}"
    );
    assert!(!oracle::xfs_repair_n(&alone, &[]).unwrap().clean());
}

type Change<'a> = (&'a str, &'a str, Box<dyn Fn(&Bench) + 'a>);

#[test]
fn every_change_of_bitmap_summary_and_counters_is_found() {
    if corpus::obtain("realtime").is_none() {
        return;
    }
    let bench = Bench::new("realtime");
    let (bitmap, summary) = (bench.volume.superblock.rbmino.get(), bench.volume.superblock.rsumino.get());
    let on_rt = |path: &str| {
        let entry = corpus::manifest("realtime").into_iter().find(|e| e.path == path.as_bytes()).expect("a file");
        (entry.ino, bench.inode(entry.ino).extents(&bench.volume, ForkKind::Data).expect("extents")[0])
    };
    let ((one, first), (other, second)) = (on_rt("rt/file-4"), on_rt("rt/small-1"));
    let size = u64::from(bench.volume.geometry.rt_extent_size);
    let rtx = first.start / size;
    let field = |inode: u64, text: &'static str| {
        move |b: &Bench| b.db(&[&format!("inode {inode}"), &format!("write -d {text}")])
    };
    let sb = |text: &'static str| move |b: &Bench| b.db(&["sb 0", &format!("write -d {text}")]);
    let changes: Vec<Change<'_>> = vec![
        (
            "a used extent marked free",
            "rtbitmap.bits.doubly-owned",
            Box::new(move |b| b.flip(bitmap, rtx / 8, 1 << (rtx % 8))),
        ),
        ("free extents marked in use", "rtbitmap.bits.unowned", Box::new(move |b| b.flip(bitmap, 3100 / 8, 0x18))),
        ("bits behind the end", "rtbitmap.bits.extra", Box::new(move |b| b.flip(bitmap, 3500 / 8, 0x18))),
        ("a counter of the summary", "rtsummary.counter.count", Box::new(move |b| b.flip(summary, 4 * 3, 1))),
        ("a word behind the summary", "rtsummary.counter.count", Box::new(move |b| b.flip(summary, 4000, 1))),
        ("frextents", "fscounters.frextents.count", Box::new(sb("frextents 7"))),
        ("rbmblocks", "sb.rbmblocks.mismatch", Box::new(sb("rbmblocks 2"))),
        ("rextslog", "sb.", Box::new(sb("rextslog 5"))),
        ("rextsize", "sb.", Box::new(sb("rextsize 8"))),
        ("rextents", "sb.", Box::new(sb("rextents 3000"))),
        ("rblocks beyond the device", "sb.", Box::new(sb("rblocks 99999999"))),
        ("size of the bitmap", "rtbitmap.size.mismatch", Box::new(field(bitmap, "core.size 8192"))),
        ("size of the summary", "rtsummary.size.mismatch", Box::new(field(summary, "core.size 1024"))),
        ("no NEWRTBM", "rtbitmap.newrtbm.flags", Box::new(field(bitmap, "core.newrtbm 0"))),
        ("a bitmap on the realtime device", "", Box::new(field(bitmap, "core.realtime 1"))),
        ("a summary that is a directory", "", Box::new(field(summary, "core.mode 040755"))),
        ("rbmino leads elsewhere", "", Box::new(sb("rbmino 131"))),
        ("rsumino leads nowhere", "", Box::new(sb("rsumino 77"))),
        (
            "two files own an extent",
            "rtblock.owner.doubly-owned",
            Box::new(move |b| b.remap(one, |e| e.start = second.start)),
        ),
        ("part of an extent", "rtblock.startblock.range", Box::new(move |b| b.remap(other, |e| e.start += 1))),
        ("behind the device", "bmap.startblock.range", Box::new(move |b| b.remap(other, |e| e.start = 51_200))),
    ];
    println!("{:34} {:>10} {:>6}", "change", "xfs_repair", "here");
    let mut missed = Vec::new();
    for (what, code, change) in &changes {
        change(&bench);
        let stock = oracle::xfs_repair_n(&bench.devices, &[]).unwrap().code;
        let outcome = checked(&bench.devices);
        bench.restore();
        let ours = outcome.as_ref().is_none_or(Outcome::is_damaged);
        println!("{what:34} {stock:>10} {:>6}", u8::from(ours));
        let codes: Vec<String> = outcome.iter().flat_map(|o| o.findings.iter().map(|f| f.code())).collect();
        if !codes.iter().any(|c| c.starts_with(code)) || (stock != 0 && !ours) {
            missed.push(format!("{what}: {codes:?}"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
    let again = checked(&bench.devices).expect("a volume");
    assert!(again.findings.is_empty(), "a change was not taken back: {again}");
}
