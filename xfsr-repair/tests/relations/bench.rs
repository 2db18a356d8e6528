//! A private copy of an image, changed inode by inode and block by block with all checksums made right again.

use libxfsr::dir;
use libxfsr::error::ForkKind;
use libxfsr::format::attr::ATTR_ANY;
use libxfsr::format::dir::DIR_ANY;
use libxfsr::format::inode::{Dinode, Format, fork_bytes_mut, seal_dinode};
use libxfsr::inode::{Inode, file};
use libxfsr::units::{FileBlock, Ino, Lsn};
use libxfsr::volume::{self, Volume};
use serde_json::Value;
use std::ffi::OsString;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use xfsr_tests::corpus;
use xfsr_tests::oracle::{self, Devices, Mount, Verdict};

pub(crate) struct Bench {
    pub(crate) devices: Devices,
    _directory: tempfile::TempDir,
}

/// A finding: its code, its path or nothing, and what was found and expected.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) code: String,
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Bench {
    /// A copy of a corpus image; none where it cannot be made here.
    pub(crate) fn of(image: &str) -> Option<Self> {
        corpus::obtain(image)?;
        let directory = tempfile::tempdir().unwrap();
        let devices = corpus::copy(image, directory.path());
        Some(Self { devices, _directory: directory })
    }

    /// A new filesystem that `fill` puts something into.
    pub(crate) fn filled(fill: impl FnOnce(&Path)) -> Option<Self> {
        Self::made(&[], fill)
    }

    /// The same, with options of mkfs.xfs.
    pub(crate) fn made(options: &[&str], fill: impl FnOnce(&Path)) -> Option<Self> {
        oracle::require(oracle::MOUNT)?;
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(300 << 20).unwrap();
        let devices = Devices::from(&image);
        oracle::mkfs_xfs(options, &devices).unwrap();
        let mount = Mount::new(&devices, "").unwrap();
        fill(mount.path());
        mount.unmount().unwrap();
        Some(Self { devices, _directory: directory })
    }

    pub(crate) fn volume(&self) -> Volume {
        let d = &self.devices;
        let devices = volume::Devices { data: d.data.clone(), log: d.log.clone(), realtime: d.rt.clone() };
        Volume::open(&devices).unwrap()
    }

    pub(crate) fn find(&self, path: &str) -> Ino {
        let volume = self.volume();
        dir::resolve(&volume, volume.geometry.root_ino, path.as_bytes()).unwrap()
    }

    pub(crate) fn inode(&self, ino: Ino) -> Inode {
        Inode::read(&self.volume(), ino, libxfsr::cache::OnDamage::Keep).unwrap()
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        let file = std::fs::OpenOptions::new().write(true).open(&self.devices.data).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }

    /// Changes an inode.
    pub(crate) fn edit_inode(&self, ino: Ino, change: impl FnOnce(&mut [u8])) {
        let volume = self.volume();
        let mut bytes = volume.inode_bytes(ino).unwrap();
        let lsn = Lsn(Dinode::from_bytes(&bytes).unwrap().lsn.get());
        change(&mut bytes);
        seal_dinode(&mut bytes, lsn);
        self.write(volume.geometry.ino_to_offset(ino).unwrap(), &bytes);
    }

    /// Replaces bytes in an inode's fork or in its directory or attribute blocks: names where they first stand, attributes
    /// everywhere, because space that is no longer used may hold copies.
    pub(crate) fn replace(&self, ino: Ino, kind: ForkKind, old: &[u8], new: &[u8]) {
        let volume = self.volume();
        let inode = self.inode(ino);
        let mut done = false;
        let mut put = |bytes: &mut [u8]| {
            let mut changed = false;
            while let Some(at) =
                bytes.windows(old.len()).position(|w| w == old).filter(|_| kind == ForkKind::Attr || !done)
            {
                bytes[at..at + new.len()].copy_from_slice(new);
                (changed, done) = (true, true);
            }
            changed
        };
        if inode.core.format(kind) == Some(Format::Local) {
            self.edit_inode(ino, |bytes| {
                assert!(put(fork_bytes_mut(bytes, kind)), "inode {ino} does not hold {old:?}")
            });
            return;
        }
        let (step, seal) = match kind {
            ForkKind::Data => (1 << volume.geometry.dir_block_log, DIR_ANY.seal),
            ForkKind::Attr => (1, ATTR_ANY.seal),
        };
        for extent in inode.extents(&volume, kind).unwrap() {
            for at in (extent.offset..extent.offset + extent.count).step_by(step as usize) {
                let pieces = file::map_blocks(&volume, &inode, kind, FileBlock(at), step).unwrap().unwrap();
                let mut bytes = Vec::new();
                for (daddr, sectors) in &pieces {
                    let mut piece = vec![0; *sectors as usize * 512];
                    volume.data_target().read_at(&mut piece, daddr.bytes()).unwrap();
                    bytes.extend(piece);
                }
                if put(&mut bytes) {
                    seal(&mut bytes, Lsn(1));
                    let mut from = 0;
                    for (daddr, sectors) in &pieces {
                        let to = from + *sectors as usize * 512;
                        self.write(daddr.bytes(), &bytes[from..to]);
                        from = to;
                    }
                }
            }
        }
        assert!(done, "inode {ino} does not hold {old:?}");
    }

    pub(crate) fn db(&self, commands: &[&str]) {
        oracle::xfs_db_write(&self.devices, commands).unwrap();
    }

    pub(crate) fn check(&self, extra: &[&str]) -> Verdict {
        let mut args: Vec<OsString> = ["-n"].iter().chain(extra).map(OsString::from).collect();
        args.extend(self.devices.arguments());
        args.push(self.devices.data.clone().into());
        oracle::verdict(env!("CARGO_BIN_EXE_xfsr-repair"), &args).unwrap()
    }

    /// What the check finds; its exit status must fit.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let v = self.check(&["--json"]);
        let report: Value = serde_json::from_str(&v.output).unwrap();
        let all = report["findings"].as_array().unwrap();
        let damaged = all.iter().any(|f| ["corrupt", "cross-reference"].contains(&f["severity"].as_str().unwrap()));
        assert_eq!(v.code, i32::from(damaged), "{}", v.output);
        let word = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let finding = |f: &Value| Finding {
            code: format!("{}.{}.{}", word(&f["structure"]), word(&f["field"]), word(&f["rule"])),
            path: word(&f["at"]["path"]),
            text: format!("{} / {}", word(&f["found"]), word(&f["expected"])),
        };
        all.iter().map(finding).collect()
    }

    /// Whether the stock tool calls it damaged.
    pub(crate) fn stock_is_damaged(&self) -> bool {
        !oracle::xfs_repair_n(&self.devices, &[]).unwrap().clean()
    }
}
