//! A scratch copy of an image, on which xfs_db and xfs_repair work.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{Case, Checksum, Patch};
use crate::corpus;
use crate::oracle::{self, Devices};

/// Where scratch copies lie: `XFSR_SCRATCH_DIR`, which should be memory, else beside the corpus, so that blocks can be shared.
///
/// # Errors
/// Where it cannot be made.
pub fn scratch() -> Result<PathBuf> {
    let directory =
        std::env::var_os("XFSR_SCRATCH_DIR").map_or_else(|| corpus::directory().join("scratch"), PathBuf::from);
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// A private copy of an image on which cases are tried one after the other. One per thread.
#[derive(Debug)]
pub struct Workbench {
    devices: Devices,
    pub(super) pristine: File,
    working: File,
    pub(super) data: Vec<(u64, u64)>,
    _directory: tempfile::TempDir,
}

impl Workbench {
    /// Copies a corpus image.
    pub fn new(name: &str) -> Result<Workbench> {
        let directory = tempfile::Builder::new().prefix(".workbench-").tempdir_in(scratch()?)?;
        let devices = corpus::copy(name, directory.path());
        for path in [Some(&devices.data), devices.log.as_ref(), devices.rt.as_ref()].into_iter().flatten() {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        }
        let pristine = File::open(corpus::image(name))?;
        let working = OpenOptions::new().read(true).write(true).open(&devices.data)?;
        let data = data_ranges(&pristine)?;
        Ok(Workbench { devices, pristine, working, data, _directory: directory })
    }

    /// The files of the copy.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The copy's data device.
    pub fn file(&self) -> &File {
        &self.working
    }

    /// What a case changes; the copy is as before afterwards. An empty patch where xfs_db changes nothing, or has no such verb
    /// for a field of that type.
    pub fn patch(&self, case: &Case) -> Result<Patch> {
        let flag = if case.checksum == Checksum::Right { "-d" } else { "-c" };
        let fuzz = match case.value {
            Some(value) => format!("write {flag} {} {value}", case.field),
            None => format!("fuzz {flag} {} {}", case.field, case.verb),
        };
        let mut commands = case.place.commands.clone();
        commands.extend([fuzz, "addr".to_owned()]);
        let text = oracle::xfs_db_write(&self.devices, &commands).with_context(|| case.to_string())?;
        let patch = Patch::difference(&self.pristine, &self.working, &self.ranges(&text))?;
        patch.undo(&self.working)?;
        Ok(patch)
    }

    /// Where xfs_db can have written: its buffer, of which a block may have several; where it says neither, all data.
    fn ranges(&self, address: &str) -> Vec<(u64, u64)> {
        let line = |begin: &str| address.lines().find_map(|l| l.trim().strip_prefix(begin));
        let range =
            |daddr: &str, count: &str| Some((daddr.parse::<u64>().ok()? * 512, count.parse::<u64>().ok()? * 512));
        let ranges = || match line("block map") {
            Some(map) => {
                map.split_whitespace().map(|part| part.split_once(':').and_then(|(d, n)| range(d, n))).collect()
            }
            None => {
                let (daddr, rest) = line("buffer block ")?.split_once(' ')?;
                Some(vec![range(daddr, rest.rsplit_once(", ")?.1.split(' ').next()?)?])
            }
        };
        ranges().unwrap_or_else(|| self.data.clone())
    }

    /// Whether the copy holds what the image holds.
    pub fn is_pristine(&self) -> Result<bool> {
        Ok(Patch::difference(&self.pristine, &self.working, &data_ranges(&self.working)?)?.is_empty())
    }

    /// Puts back everything that differs from the pristine image, whoever wrote it.
    pub fn restore(&self) -> Result<()> {
        Patch::difference(&self.pristine, &self.working, &data_ranges(&self.working)?)?.undo(&self.working)
    }
}

/// The ranges of a file that are not holes, as offset and length.
pub(super) fn data_ranges(file: &File) -> Result<Vec<(u64, u64)>> {
    use rustix::fs::SeekFrom;
    let (mut all, mut at) = (Vec::new(), 0);
    loop {
        match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => {
                at = rustix::fs::seek(file, SeekFrom::Hole(start))?;
                all.push((start, at - start));
            }
            Err(rustix::io::Errno::NXIO) => return Ok(all),
            Err(e) => return Err(e.into()),
        }
    }
}
