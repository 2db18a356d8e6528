//! What a check amounts to, on images that the kernel wrote: devices that end too early or fail, superblocks that lie about their
//! size, unknown features, copies of the superblock.

use libxfsr::check::{self, Outcome, Verdict};
use libxfsr::control::Control;
use libxfsr::error::{Error, Severity};
use libxfsr::format::features::Version;
use libxfsr::format::superblock::{SUPERBLOCK, Superblock};
use libxfsr::geometry::Geometry;
use libxfsr::target::{Access, Fault, Faulty, FileTarget, On, Overlay, Target};
use libxfsr::units::{AgNumber, Lsn};
use libxfsr::volume::{DEFAULT_CACHE, Volume};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use xfsr_tests::{corpus, oracle};
use zerocopy::FromBytes as _;

/// A corpus image that is changed in memory.
struct Changed {
    target: Arc<Overlay>,
    geometry: Geometry,
}

impl Changed {
    fn of(name: &str) -> Option<Changed> {
        let image = corpus::obtain(name)?.data;
        let target = Arc::new(Overlay::new(Arc::new(FileTarget::open(&image, Access::Read).unwrap())).unwrap());
        let geometry = Volume::from_targets(target.clone(), None, None, 1 << 20).unwrap().geometry.clone();
        Some(Changed { target, geometry })
    }
    /// Changes the superblock of an AG; `seal` makes its checksum right.
    fn superblock(&self, ag: u32, seal: bool, change: impl FnOnce(&mut Superblock)) -> &Changed {
        let mut sector = vec![0; self.geometry.sector_size as usize];
        let at = self.geometry.header_daddr(AgNumber(ag), 0).bytes();
        self.target.read_at(&mut sector, at).unwrap();
        let (sb, _) = Superblock::mut_from_prefix(&mut sector).unwrap();
        let lsn = Lsn(sb.lsn.get());
        change(sb);
        if seal {
            (SUPERBLOCK.seal)(&mut sector, lsn);
        }
        self.target.write_at(&sector, at).unwrap();
        self
    }
    fn everywhere(&self, change: impl Fn(&mut Superblock)) -> &Changed {
        for ag in 0..self.geometry.ag_count {
            self.superblock(ag, true, &change);
        }
        self
    }
    fn volume(&self) -> libxfsr::Result<Volume> {
        Volume::from_targets(self.target.clone(), None, None, DEFAULT_CACHE)
    }
    fn check(&self) -> Outcome {
        check::check(&self.volume().unwrap(), &Control::none()).unwrap()
    }
}

fn codes(outcome: &Outcome) -> Vec<String> {
    outcome.findings.iter().map(|f| f.code()).collect()
}

#[test]
fn a_device_that_ends_too_early_is_damage() {
    if corpus::obtain("default").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let devices = corpus::copy("default", dir.path());
    let file = std::fs::OpenOptions::new().write(true).open(&devices.data).unwrap();
    let whole = file.metadata().unwrap().len();
    // Some blocks, then whole AGs.
    for cut in [8 << 20, whole / 2 + (8 << 20)] {
        file.set_len(whole - cut).unwrap();
        let volume = Volume::open(&libxfsr::volume::Devices::data(&devices.data)).unwrap();
        let outcome = check::check(&volume, &Control::none()).unwrap();
        assert_eq!(outcome.verdict(), Verdict::Damaged);
        let told = outcome.findings.iter().filter(|f| f.code() == "sb.dblocks.range").count();
        assert_eq!(told, 1, "{outcome}");
        // AGs behind the end are told of once, not one by one.
        let beyond = volume.ags().len() as u32;
        assert!(outcome.findings.iter().all(|f| f.at.ag.is_none_or(|ag| ag.0 < beyond)), "{outcome}");
        assert_ne!(oracle::xfs_repair_n(&devices, &[]).unwrap().code, 0);
    }
}

#[test]
fn absurd_numbers_of_groups_cost_nothing_and_can_be_interrupted() {
    let Some(image) = Changed::of("default") else { return };
    let agblocks = u64::from(image.geometry.agblocks);
    image.superblock(0, true, |sb| {
        sb.agcount.set(u32::MAX);
        sb.dblocks.set(u64::from(u32::MAX) * agblocks);
    });
    let started = Instant::now();
    let outcome = image.check();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(outcome.verdict(), Verdict::Damaged);
    assert!(codes(&outcome).contains(&"sb.dblocks.range".to_owned()), "{outcome}");
    assert_eq!(outcome.counts.ags, u64::from(image.geometry.ag_count));
    // Already between two copies of the superblock somebody asks whether to stop.
    let asked = AtomicU64::new(0);
    let stop = || asked.fetch_add(1, Ordering::Relaxed) > 0;
    let control = Control { stop: &stop, ..Control::none() };
    let volume = image.volume().unwrap();
    assert!(matches!(check::check(&volume, &control), Err(Error::Stopped)));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn unknown_features_are_no_damage_and_not_clean() {
    let Some(image) = Changed::of("default") else { return };
    image.everywhere(|sb| sb.features_ro_compat.set(sb.features_ro_compat.get() | 0x80));
    let outcome = image.check();
    assert_eq!((outcome.verdict(), outcome.findings.len()), (Verdict::Incomplete, 0), "{outcome}");
    assert!(outcome.to_string().contains("ro_compat bits 0x80"), "{outcome}");
    // The features that nobody may ignore are refused, if the checksum says that they are meant.
    image.everywhere(|sb| sb.features_incompat.set(sb.features_incompat.get() | 1 << 31));
    assert!(matches!(image.volume(), Err(Error::Unsupported(_) | Error::NoFilesystem { .. })));
}

#[test]
fn unknown_items_of_a_log_matter_while_it_is_dirty() {
    let unknown = |sb: &mut Superblock| sb.features_log_incompat.set(sb.features_log_incompat.get() | 0x80);
    let Some(image) = Changed::of("dirty") else { return };
    let parts = |o: &Outcome| o.not_checked.iter().filter(|p| p.why.contains("log_incompat bits 0x80")).count();
    let before = image.check();
    assert_eq!((before.verdict(), parts(&before)), (Verdict::DirtyLog, 0), "{before}");
    image.everywhere(unknown);
    let outcome = image.check();
    assert_eq!((outcome.verdict(), parts(&outcome)), (Verdict::DirtyLog, 1), "{outcome}");
    assert_eq!(outcome.findings.len(), before.findings.len(), "{outcome}");
    // Nothing of a clean log is replayed.
    let Some(image) = Changed::of("default") else { return };
    let outcome = image.everywhere(unknown).check();
    assert_eq!((outcome.verdict(), outcome.findings.len()), (Verdict::Clean, 0), "{outcome}");
}

#[test]
fn a_flipped_bit_is_not_believed() {
    let Some(image) = Changed::of("default") else { return };
    type Flip = fn(&mut Superblock);
    let flips: [(&str, Flip); 3] = [
        ("v4", |sb| sb.versionnum.set(sb.versionnum.get() ^ 1)),
        ("incompat", |sb| sb.features_incompat.set(sb.features_incompat.get() ^ 1 << 31)),
        ("sectsize", |sb| sb.sectsize.set(sb.sectsize.get() ^ 1 << 10)),
    ];
    for (what, flip) in flips {
        image.superblock(0, false, flip);
        let outcome = image.check();
        let all = codes(&outcome);
        assert_eq!(outcome.verdict(), Verdict::Damaged, "{what}");
        for code in ["sb.primary.unreadable", "sb.crc.crc"] {
            assert!(all.iter().any(|c| c == code), "{what}: {all:?}");
        }
        image.superblock(0, false, flip);
    }
    assert_eq!(image.check().verdict(), Verdict::Clean);
}

#[test]
fn copies_of_the_superblock_may_lag_behind_where_the_kernel_lets_them() {
    let Some(image) = Changed::of("default") else { return };
    // As a mount with sunit= and swidth=, or with quota after growfs, leaves them.
    image.superblock(0, true, |sb| {
        sb.unit.set(16);
        sb.width.set(32);
        sb.imax_pct = 10;
    });
    image.superblock(1, true, |sb| {
        sb.versionnum.set(sb.versionnum.get() | Version::QUOTA.bits());
        sb.qflags.set(0x7);
    });
    let outcome = image.check();
    assert_eq!(outcome.verdict(), Verdict::Clean, "{outcome}");
    assert!(outcome.findings.iter().all(|f| f.severity == Severity::Preen), "{outcome}");
    let copies = u64::from(image.geometry.ag_count) - 1;
    assert_eq!(outcome.count(Severity::Preen), 3 * copies, "{outcome}");
    for code in ["sb.unit.mismatch", "sb.width.mismatch", "sb.imax_pct.mismatch"] {
        assert_eq!(codes(&outcome).iter().filter(|c| *c == code).count() as u64, copies, "{outcome}");
    }
    // What must be the same is named.
    image.superblock(2, true, |sb| sb.logsunit.set(4096));
    let outcome = image.check();
    assert_eq!(outcome.verdict(), Verdict::Damaged);
    let bad: Vec<_> = outcome.findings.iter().filter(|f| f.severity == Severity::Corrupt).collect();
    assert!(bad.len() == 1 && bad[0].code() == "sb.logsunit.mismatch" && bad[0].at.ag == Some(AgNumber(2)), "{bad:?}");
}

/// The bytes behind the fields that a filesystem has, in the primary and in a copy; without metadata directories the fields for them
/// are such bytes too. xfs_repair says so as well, and of no field by name.
#[test]
fn what_is_unused_in_a_superblock_is_zero() {
    if corpus::obtain("default").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let devices = corpus::copy("default", dir.path());
    let target: Arc<dyn Target> = Arc::new(FileTarget::open(&devices.data, Access::Write).unwrap());
    let geometry = Volume::from_targets(target.clone(), None, None, 1 << 20).unwrap().geometry.clone();
    for ag in [0, 1] {
        let daddr = geometry.header_daddr(AgNumber(ag), 0).bytes();
        let mut whole = vec![0; geometry.sector_size as usize];
        target.read_at(&mut whole, daddr).unwrap();
        let lsn = (SUPERBLOCK.lsn)(&whole).unwrap();
        for byte in [264, 271, 272, 280, 303, 304, whole.len() - 1] {
            let mut sector = whole.clone();
            sector[byte] = 0x5a;
            (SUPERBLOCK.seal)(&mut sector, lsn);
            target.write_at(&sector, daddr).unwrap();
            let volume = Volume::from_targets(target.clone(), None, None, DEFAULT_CACHE).unwrap();
            let outcome = check::check(&volume, &Control::none()).unwrap();
            assert_eq!(outcome.verdict(), Verdict::Damaged, "byte {byte} of AG {ag}");
            assert_eq!(codes(&outcome), ["sb.unused.range"], "byte {byte} of AG {ag}: {outcome}");
            assert_eq!(outcome.findings[0].at.ag, Some(AgNumber(ag)));
            assert_eq!(oracle::xfs_repair_n(&devices, &[]).unwrap().code, 1, "byte {byte} of AG {ag}");
        }
        target.write_at(&whole, daddr).unwrap();
    }
    let volume = Volume::from_targets(target, None, None, DEFAULT_CACHE).unwrap();
    assert_eq!(check::check(&volume, &Control::none()).unwrap().verdict(), Verdict::Clean);
}

#[test]
fn copies_that_the_log_may_explain_are_no_damage() {
    let Some(image) = Changed::of("dirty") else { return };
    image.superblock(1, true, |sb| sb.dblocks.set(sb.dblocks.get() - 1));
    image.superblock(2, false, |sb| sb.uuid[0] ^= 1);
    let outcome = image.check();
    assert_eq!(outcome.verdict(), Verdict::DirtyLog, "{outcome}");
    assert_eq!(outcome.count(Severity::Warning), 2, "{outcome}");
    // No log changes where the log is.
    image.superblock(2, true, |sb| sb.logblocks.set(sb.logblocks.get() - 1));
    assert_eq!(image.check().verdict(), Verdict::Damaged);
    image.superblock(2, true, |sb| sb.logblocks.set(sb.logblocks.get() + 1));
    assert_eq!(image.check().verdict(), Verdict::DirtyLog);
    image.superblock(0, true, |sb| sb.shared_vn = 1);
    assert_eq!(image.check().verdict(), Verdict::Damaged);
}

#[test]
fn a_device_that_fails_is_not_a_damaged_filesystem() {
    let Some(image) = Changed::of("default") else { return };
    let g = &image.geometry;
    let outcome_of = |from: u64, to: u64| {
        let faulty = Faulty::new(image.target.clone());
        let volume = |t| Volume::from_targets(t, None, None, DEFAULT_CACHE).unwrap();
        faulty.add_range(On::Read, from, to, Fault::Error);
        check::check(&volume(Arc::new(faulty)), &Control::none()).unwrap()
    };
    // An AG's free space header; the inodes of the root directory and of its neighbours.
    let agf = g.header_daddr(AgNumber(1), 1).bytes();
    let root = g.ino_to_offset(g.root_ino).unwrap();
    for (what, from, length) in [("agf", agf, 1), ("inodes", root, 8 * u64::from(g.inode_size))] {
        let outcome = outcome_of(from, from + length);
        assert_eq!(outcome.verdict(), Verdict::Incomplete, "{what}: {outcome}");
        assert!(outcome.totals.incomplete > 0 && outcome.totals.corrupt == 0, "{what}: {outcome}");
        let json = serde_json::to_value(&outcome).unwrap();
        assert_eq!(json["verdict"], "incomplete");
    }
}

#[test]
fn a_wrong_flag_does_not_hide_what_lies_below() {
    let Some(image) = Changed::of("default") else { return };
    let g = &image.geometry;
    let root = g.ino_to_offset(g.root_ino).unwrap();
    let before = image.check().counts;
    let mut bytes = vec![0; g.inode_size as usize];
    image.target.read_at(&mut bytes, root).unwrap();
    let core = libxfsr::format::inode::Dinode::from_bytes_mut(&mut bytes).unwrap();
    core.flags.set(core.flags.get() | 1 << 15);
    libxfsr::format::seal_checksum(&mut bytes, libxfsr::format::inode::CRC_OFFSET);
    image.target.write_at(&bytes, root).unwrap();
    let outcome = image.check();
    assert_eq!(codes(&outcome), ["inode.flags.flags"], "{outcome}");
    assert_eq!(outcome.counts, before);
}

#[test]
fn logs_that_linux_does_not_mount_are_told() {
    let Some(image) = Changed::of("default") else { return };
    // Observed: Linux 6.18 refuses the superblock of the first, and to mount the second, which xfs_repair calls clean.
    image.everywhere(|sb| sb.logblocks.set(600));
    let outcome = image.check();
    let told = outcome.findings.iter().find(|f| f.code() == "sb.logblocks.range");
    assert_eq!(told.map(|f| f.severity), Some(Severity::Warning), "{outcome}");
    image.everywhere(|sb| sb.logblocks.set(1 << 20));
    assert!(matches!(image.volume(), Err(Error::NoFilesystem { .. } | Error::Corrupt(_))));
}
