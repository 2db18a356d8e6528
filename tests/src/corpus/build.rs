//! Makes one image: mkfs, features, mount, fill, unmount, manifest.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::fill::{Filler, Shape};
use super::recipes::{End, Recipe};
use super::{Files, directory, manifest};
use crate::oracle::{self, Devices, Mount};
use crate::{FileLock, copy_sparse, run};

pub(super) fn build(recipe: &Recipe, files: &Files) -> Result<()> {
    let directory = directory();
    fs::create_dir_all(&directory)?;
    let _lock = FileLock::take(&directory.join(format!("{}.lock", recipe.name)))?;
    if files.manifest.exists() {
        return Ok(());
    }
    let started = Instant::now();
    remove_others(&directory, recipe.name)?;
    let aside = tempfile::Builder::new().prefix(&format!(".{}-", recipe.name)).tempdir_in(&directory)?;
    let devices = empty_devices(recipe, aside.path())?;
    let listing = aside.path().join("manifest");
    let listed = if recipe.guest { Some(make_in_guest(recipe, &devices, aside.path())?) } else { None };
    if listed.is_none() {
        make(recipe, &devices)?;
    }
    let entries = match recipe.end {
        _ if listed.is_some() => listed.unwrap_or_default(),
        End::Dirty => {
            let mount = Mount::new(&devices, recipe.mount)?;
            super::crash::crash(recipe, mount.path(), shape(recipe, &devices.data)?)?;
            mount.unmount()?;
            let recovered = aside.path().join("recovered");
            fs::create_dir(&recovered)?;
            let again = copy_all(&devices, &recovered)?;
            Mount::new(&again, recipe.mount)?.unmount()?;
            let entries = walk(&again, "ro")?;
            fs::remove_dir_all(&recovered)?;
            entries
        }
        End::Orphans => {
            super::orphan::orphan(recipe, &devices, aside.path())?;
            walk(&devices, "ro,norecovery")?
        }
        End::Changed(change) => {
            super::change::change(recipe, change, &devices)?;
            walk(&devices, "ro")?
        }
        End::Clean => walk(&devices, "ro")?,
    };
    let mut text = std::io::BufWriter::new(File::create(&listing)?);
    manifest::write(&entries, &mut text)?;
    text.into_inner()?.sync_all()?;
    for (from, to) in [
        (Some(&devices.data), Some(&files.devices.data)),
        (devices.log.as_ref(), files.devices.log.as_ref()),
        (devices.rt.as_ref(), files.devices.rt.as_ref()),
        (Some(&listing), Some(&files.manifest)),
    ] {
        if let (Some(from), Some(to)) = (from, to) {
            // The log is mostly preallocated zeroes; a sparse copy does not have them.
            let thin = aside.path().join("thin");
            copy_sparse(from, &thin)?;
            fs::set_permissions(&thin, fs::Permissions::from_mode(0o444))?;
            fs::rename(thin, to)?;
        }
    }
    println!("corpus: {} made in {:.1} s", recipe.name, started.elapsed().as_secs_f64());
    Ok(())
}

/// Removes images of the same name with another key, where none was used for a day: another checkout may share the directory.
fn remove_others(directory: &Path, name: &str) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        // The key is twelve hex digits.
        let key = file.strip_prefix(name).and_then(|r| r.strip_prefix('-')).and_then(|r| r.split('.').next());
        let old = || -> Result<bool> {
            let m = fs::metadata(&path)?;
            let used = m.accessed()?.max(m.modified()?);
            Ok(used.elapsed().is_ok_and(|age| age > std::time::Duration::from_secs(86_400)))
        };
        if key.is_some_and(|k| k.len() == 12 && k.bytes().all(|b| b.is_ascii_hexdigit())) && old()? {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn empty_devices(recipe: &Recipe, directory: &Path) -> Result<Devices> {
    let make = |name: &str, mib: u64| -> Result<PathBuf> {
        let path = directory.join(name);
        File::create_new(&path)?.set_len(mib << 20)?;
        Ok(path)
    };
    Ok(Devices {
        data: make("data", recipe.size)?,
        log: if recipe.log > 0 { Some(make("log", recipe.log)?) } else { None },
        rt: if recipe.rt > 0 { Some(make("rt", recipe.rt)?) } else { None },
    })
}

fn copy_all(devices: &Devices, to: &Path) -> Result<Devices> {
    let one = |path: &Path| -> Result<PathBuf> {
        let target = to.join(path.file_name().unwrap_or_default());
        copy_sparse(path, &target)?;
        Ok(target)
    };
    Ok(Devices {
        data: one(&devices.data)?,
        log: devices.log.as_deref().map(one).transpose()?,
        rt: devices.rt.as_deref().map(one).transpose()?,
    })
}

/// mkfs, features, and the contents.
fn make(recipe: &Recipe, devices: &Devices) -> Result<()> {
    if recipe.metadir {
        make_metadir(&devices.data)?;
    } else {
        oracle::mkfs_xfs(recipe.mkfs, devices)?;
    }
    if recipe.incompat != 0 {
        set_incompat(&devices.data, recipe.incompat)?;
    }
    let shape = shape(recipe, &devices.data)?;
    let mount = Mount::new(devices, recipe.mount)?;
    let mut filler = Filler::new(mount.path(), shape);
    for part in recipe.parts {
        filler.part(*part)?;
    }
    mount.unmount()
}

/// A filesystem with a metadata directory tree, which mkfs.xfs 6.1 cannot make. What is proven by it, the kernel's use of it proves.
fn make_metadir(image: &Path) -> Result<()> {
    use libxfsr::mkfs::{self, write};
    let mut options = mkfs::Options::default();
    options.metadata.metadir = Some(true);
    options.metadata.rmapbt = Some(true);
    let target = libxfsr::target::FileTarget::open(image, libxfsr::target::Access::Write)?;
    let plan = mkfs::plan(&options, &mkfs::Devices::file(fs::metadata(image)?.len()))?;
    let targets = write::Targets { data: &target, log: None, rt: None };
    write::write(&plan, &targets, &write::WriteOptions::default(), &libxfsr::control::Control::none())?;
    Ok(())
}

/// As [`make`], with the guest's kernel; gives the manifest too, because this kernel may not mount the image at all.
fn make_in_guest(recipe: &Recipe, devices: &Devices, aside: &Path) -> Result<Vec<manifest::Entry>> {
    ensure!(recipe.end != End::Orphans && recipe.log == 0, "the guest makes images with an internal log only");
    let guest = oracle::Guest::find().context("no guest kernel")?;
    oracle::mkfs_xfs(recipe.mkfs, devices)?;
    let shape = shape(recipe, &devices.data)?;
    let program = guest_program()?;
    let mut options = vec![recipe.mount.to_owned()];
    if devices.rt.is_some() {
        options.push("rtdev=/dev/vdb".to_owned());
    }
    options.retain(|o| !o.is_empty());
    let options = options.join(",");
    let quota = if recipe.mount.contains("quota") {
        "xfs_quota -x -c 'limit -u bsoft=1m bhard=9m isoft=50 ihard=90 1001' -c 'limit -g bsoft=2m bhard=8m 500' \
         -c 'limit -p bhard=7m 101' -c 'timer -u -b 3days' \
         -c 'limit -u bsoft=4k bhard=64m isoft=2 ihard=900 1002' -c 'limit -g isoft=1 2500' -c 'limit -p bsoft=8k 102' /mnt\n"
    } else {
        ""
    };
    let mount = |options: &str| format!("mount -t xfs -o 'noatime,{options}' /dev/vda /mnt");
    let Shape { block, directory, inode, .. } = shape;
    let name = recipe.name;
    let (first, second) = (mount(&options), mount(&format!("ro,{options}")));
    let arguments = format!("{name} /mnt {block} {directory} {inode}");
    let fill = format!("set -e\n{first}\nxfsr-guest fill {arguments}\n{quota}");
    let list = format!("{second}\nxfsr-guest manifest /mnt");
    let run = |devices: &Devices, command: &str| -> Result<oracle::Verdict> {
        let disks = [Some(&devices.data), devices.rt.as_ref()].into_iter().flatten().map(PathBuf::as_path).collect();
        let job = oracle::GuestJob { disks, programs: vec![&program], timeout: 180, ..Default::default() };
        let verdict = guest.run(&job, command)?;
        let sound = verdict.clean() && !verdict.output.contains("[kernel]");
        ensure!(sound, "the guest: {}", verdict.output);
        Ok(verdict)
    };
    let verdict = if recipe.end == End::Dirty {
        run(devices, &format!("{fill}\nxfsr-guest crash {arguments}\numount /mnt"))?;
        let recovered = aside.join("recovered");
        fs::create_dir(&recovered)?;
        let again = copy_all(devices, &recovered)?;
        let verdict = run(&again, &format!("set -e\n{first}\numount /mnt\n{list}"))?;
        fs::remove_dir_all(&recovered)?;
        verdict
    } else {
        run(devices, &format!("{fill}\numount /mnt\n{list}"))?
    };
    manifest::parse(&verdict.output)
}

/// The program that runs in the guest, built by the cargo that runs this test.
fn guest_program() -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let target = crate::target_dir();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let (target_text, package) = (target.to_string_lossy(), ["-p", "xfsr-tests", "--bin", "xfsr-guest"]);
    let mut args = vec!["build", "--quiet", "--manifest-path", manifest, "--target-dir", &target_text];
    args.extend(package);
    run(&cargo, &args)?;
    Ok(target.join("debug/xfsr-guest"))
}

/// Reads block, directory block and inode size from the superblock.
pub(super) fn shape(recipe: &Recipe, image: &Path) -> Result<Shape> {
    let sb = Superblock::read(image)?;
    let seed = recipe.name.bytes().fold(1, |a: u64, b| a.wrapping_mul(31).wrapping_add(u64::from(b)));
    let (block, dirblklog) = (u64::from(sb.u32(4)), sb.bytes[192]);
    Ok(Shape { block, directory: block << dirblklog, inode: u64::from(sb.u16(104)), seed })
}

/// The bytes of a primary superblock; offsets as the format has them.
pub(super) struct Superblock {
    pub(super) bytes: [u8; 512],
}

impl Superblock {
    pub(super) fn read(image: &Path) -> Result<Superblock> {
        let mut bytes = [0; 512];
        File::open(image)?.read_exact_at(&mut bytes, 0)?;
        ensure!(bytes.starts_with(b"XFSB"), "no superblock in {}", image.display());
        Ok(Superblock { bytes })
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        self.bytes[at..at + 2].iter().fold(0, |a, b| a << 8 | u16::from(*b))
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        self.bytes[at..at + 4].iter().fold(0, |a, b| a << 8 | u32::from(*b))
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) << 32 | u64::from(self.u32(at + 4))
    }
}

/// Sets incompatible feature bits in every superblock of an image that is fresh from mkfs.
pub(crate) fn set_incompat(image: &Path, bits: u32) -> Result<()> {
    let sb = Superblock::read(image)?;
    let ag_bytes = u64::from(sb.u32(84)) * u64::from(sb.u32(4));
    let file = OpenOptions::new().read(true).write(true).open(image)?;
    let mut sector = vec![0; usize::from(sb.u16(102))];
    for ag in 0..u64::from(sb.u32(88)) {
        file.read_exact_at(&mut sector, ag * ag_bytes)?;
        ensure!(sector.starts_with(b"XFSB"), "no superblock in AG {ag}");
        for (i, byte) in sector[216..220].iter_mut().enumerate() {
            *byte |= (bits >> (24 - 8 * i)) as u8;
        }
        libxfsr::format::seal_checksum(&mut sector, 224);
        file.write_all_at(&sector, ag * ag_bytes)?;
    }
    Ok(())
}

/// Lists an image through a mount.
fn walk(devices: &Devices, options: &str) -> Result<Vec<manifest::Entry>> {
    let mount = Mount::new(devices, options)?;
    let entries = manifest::walk(mount.path())?;
    mount.unmount()?;
    Ok(entries)
}
