//! Targets, geometry and cache: all that reading needs. A check opens a [`Volume`], never an engine.

mod devices;

use crate::cache::{BlockKey, BlockRead, BufCache, NoLog, OnDamage, TargetId, Want};
use crate::control::Control;
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::BlockType;
use crate::format::features::Features2;
use crate::format::superblock::{self, Superblock};
use crate::geometry::Geometry;
use crate::target::{Access, FileTarget, InUse, Target};
use crate::units::{AgBlock, AgNumber, Daddr, FsBlock, Ino};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zerocopy::FromBytes;

/// Where the parts of a filesystem are.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    /// Data device or image.
    pub data: PathBuf,
    /// External log.
    pub log: Option<PathBuf>,
    /// Realtime device.
    pub realtime: Option<PathBuf>,
}

impl Devices {
    /// Only a data device.
    pub fn data(path: impl AsRef<Path>) -> Self {
        Self { data: path.as_ref().to_owned(), ..Self::default() }
    }
}

/// A filesystem to read.
#[derive(Debug)]
pub struct Volume {
    /// Its numbers.
    pub geometry: Geometry,
    /// The superblock that they were taken from.
    pub superblock: Superblock,
    /// Which AG's superblock that was: 0 unless the primary is unusable.
    pub superblock_from: AgNumber,
    /// Its blocks.
    pub cache: Arc<BufCache>,
    /// The data device.
    pub data: TargetId,
    /// The log's device: the data device for an internal log; none where an external log was not given.
    pub log: Option<TargetId>,
    /// The realtime device.
    pub rt: Option<TargetId>,
    data_target: Arc<dyn Target>,
    in_use: Vec<(String, InUse)>,
}

/// Fewer bytes hold no superblock and no AG headers.
const MIN_LENGTH: u64 = 64 << 10;

/// Default cache size in bytes.
pub const DEFAULT_CACHE: usize = 32 << 20;

/// The superblock at that place. Its checksum is looked at before anything that it says: what a flipped bit says is not true.
fn read_superblock(target: &dyn Target, offset: u64) -> Result<(Superblock, Geometry)> {
    let mut sector = vec![0; 512];
    target.read_at(&mut sector, offset)?;
    let (sb, _) = Superblock::read_from_prefix(&sector).map_err(|_| Error::invalid("short superblock"))?;
    if sb.magicnum.get() != superblock::MAGIC {
        // This says which number it found.
        return Geometry::new(&sb).map(|g| (sb, g));
    }
    let size = usize::from(sb.sectsize.get());
    if size > sector.len() && size.is_power_of_two() && size <= superblock::MAX_SECTOR {
        sector = vec![0; size];
        target.read_at(&mut sector, offset)?;
    }
    let (found, expected) = (
        crate::format::stored_checksum(&sector, superblock::CRC_OFFSET),
        crate::format::checksum(&sector, superblock::CRC_OFFSET),
    );
    // A v4 superblock has no checksum, and does not claim to have one.
    let v4 = sb.version() == 4 && !sb.features().features2.contains(Features2::CRC);
    if found != expected && !v4 {
        return Err(Corruption::new("sb", "crc", Rule::Crc)
            .at_daddr(Daddr(offset / 512))
            .found(format_args!("{found:#010x}"))
            .expected(format_args!("{expected:#010x}"))
            .into());
    }
    Ok((sb, Geometry::new(&sb)?))
}

impl Volume {
    /// Opens devices or image files for reading.
    ///
    /// # Errors
    /// [`Error::Open`]; [`Error::NoFilesystem`] where no usable superblock is found; [`Error::Unsupported`] for v4 and for
    /// unknown incompatible features; [`Error::Invalid`] for a log or realtime device that the filesystem does not have, and for the
    /// log of another filesystem.
    ///
    /// # Examples
    /// ```no_run
    /// use libxfsr::volume::{Devices, Volume};
    /// let volume = Volume::open(&Devices::data("disk.img"))?;
    /// println!("{} blocks of {} bytes", volume.geometry.blocks, volume.geometry.block_size);
    /// # Ok::<(), libxfsr::Error>(())
    /// ```
    pub fn open(devices: &Devices) -> Result<Self> {
        Self::open_with(devices, &Control::none())
    }

    /// As [`Volume::open`], steered: looking for a superblock where the primary is unusable may take long.
    ///
    /// # Errors
    /// As [`Volume::open`]; [`Error::Stopped`].
    pub fn open_with(devices: &Devices, control: &Control<'_>) -> Result<Self> {
        let mut in_use = Vec::new();
        let mut open = |p: &PathBuf| -> Result<Arc<dyn Target>> {
            let target = FileTarget::open(p, Access::Read)?;
            in_use.extend(target.in_use().map(|by| (target.name().to_owned(), by.clone())));
            Ok(Arc::new(target))
        };
        let data = open(&devices.data)?;
        let log = devices.log.as_ref().map(&mut open).transpose()?;
        let rt = devices.realtime.as_ref().map(&mut open).transpose()?;
        let mut volume = Self::from_targets_with(data, log, rt, DEFAULT_CACHE, control)?;
        volume.in_use = in_use;
        Ok(volume)
    }

    /// From targets of any kind, with a cache of `budget` bytes.
    ///
    /// # Errors
    /// As [`Volume::open`].
    pub fn from_targets(
        data: Arc<dyn Target>,
        log: Option<Arc<dyn Target>>,
        rt: Option<Arc<dyn Target>>,
        budget: usize,
    ) -> Result<Self> {
        Self::from_targets_with(data, log, rt, budget, &Control::none())
    }

    /// As [`Volume::from_targets`], steered.
    ///
    /// # Errors
    /// As [`Volume::from_targets`]; [`Error::Stopped`].
    pub fn from_targets_with(
        data: Arc<dyn Target>,
        log: Option<Arc<dyn Target>>,
        rt: Option<Arc<dyn Target>>,
        budget: usize,
        control: &Control<'_>,
    ) -> Result<Self> {
        if data.len() < MIN_LENGTH {
            let primary = Corruption::new("sb", "block", Rule::Truncated)
                .found(format_args!("a target of {} bytes", data.len()))
                .expected(format_args!("at least {MIN_LENGTH}"));
            return Err(Error::NoFilesystem { target: data.name().into(), primary });
        }
        let (superblock_from, superblock, geometry) = match read_superblock(&*data, 0) {
            Ok((sb, g)) => (AgNumber(0), sb, g),
            Err(e @ Error::Unsupported(_)) => return Err(e),
            Err(primary) => Self::find_secondary(&*data, control)?.ok_or_else(|| match primary {
                Error::Corrupt(primary) => Error::NoFilesystem { target: data.name().into(), primary },
                other => other,
            })?,
        };
        devices::check(&*data, &geometry, log.as_deref(), rt.as_deref())?;
        let cache = Arc::new(BufCache::new(budget));
        let data_id = cache.attach(data.clone(), Arc::new(NoLog))?;
        let place = |other: Option<Arc<dyn Target>>, internal: bool| match other {
            _ if internal => Ok(Some(data_id)),
            Some(t) => cache.attach(t, Arc::new(NoLog)).map(Some),
            None => Ok(None),
        };
        let log = place(log, geometry.log_start.0 != 0)?;
        let rt = place(rt, geometry.rt_start != 0)?;
        Ok(Self {
            geometry,
            superblock,
            superblock_from,
            cache,
            data: data_id,
            log,
            rt,
            data_target: data,
            in_use: Vec::new(),
        })
    }

    /// Looks for a secondary superblock where the damaged primary's numbers, or the usual AG sizes, would put it.
    fn find_secondary(data: &dyn Target, control: &Control<'_>) -> Result<Option<(AgNumber, Superblock, Geometry)>> {
        let mut sector = [0; 512];
        let mut offsets = Vec::new();
        if data.read_at(&mut sector, 0).is_ok()
            && let Ok((sb, _)) = Superblock::read_from_prefix(&sector)
        {
            let bytes = u64::from(sb.agblocks.get()).checked_mul(u64::from(sb.blocksize.get()));
            offsets.extend(bytes.filter(|b| *b > 0));
        }
        offsets.extend((1..=16u64).map(|n| (data.len() / n) & !0xfff));
        offsets.extend((24..=40).map(|s| 1u64 << s));
        offsets.retain(|o| *o > 0 && o.saturating_add(512) <= data.len());
        let consistent = |offset: u64| {
            let (sb, g) = read_superblock(data, offset).ok()?;
            let ag_bytes = u64::from(g.agblocks) << g.block_log;
            let ag = u32::try_from(offset / ag_bytes).ok()?;
            (offset.is_multiple_of(ag_bytes) && ag < g.ag_count).then_some((AgNumber(ag), sb, g))
        };
        match offsets.iter().find_map(|o| consistent(*o)) {
            None => Self::scan_for_superblock(data, control, consistent),
            found => Ok(found),
        }
    }

    /// Last resort: look at every place where an AG of the smallest blocks could begin, over the first TiB, passing over holes.
    fn scan_for_superblock<T>(
        data: &dyn Target,
        control: &Control<'_>,
        accept: impl Fn(u64) -> Option<T>,
    ) -> Result<Option<T>> {
        const STEP: u64 = 1024;
        let mut chunk = vec![0; 1 << 20];
        let end = data.len().min(1 << 40);
        let mut offset = STEP;
        loop {
            offset = offset.max(data.next_data(offset) / STEP * STEP);
            let n = end.saturating_sub(offset).min(chunk.len() as u64);
            control.check()?;
            control.tell("looking for a superblock", offset.min(end), Some(end));
            let Some(buf) = chunk.get_mut(..n as usize).filter(|b| !b.is_empty()) else { return Ok(None) };
            if data.read_at(buf, offset).is_ok() {
                let places = buf.chunks(STEP as usize).zip(0..).filter(|(b, _)| b.starts_with(b"XFSB"));
                for (_, i) in places {
                    if let Some(found) = accept(offset + i * STEP) {
                        return Ok(Some(found));
                    }
                }
            }
            offset += n;
        }
    }

    /// AGs whose headers lie on the data device: all, unless the device is shorter than the superblock says. Their number is
    /// bounded by the device's length, that of [`Geometry::ags`] only by what the superblock claims.
    pub fn ags(&self) -> impl DoubleEndedIterator<Item = AgNumber> + ExactSizeIterator + use<> {
        let g = &self.geometry;
        let headers = 4 * u64::from(g.sector_size);
        let ag_bytes = u64::from(g.agblocks) << g.block_log;
        let begun = self.data_target.len().checked_sub(headers).map_or(0, |l| l / ag_bytes.max(1) + 1);
        (0..u32::try_from(begun).unwrap_or(u32::MAX).min(g.ag_count)).map(AgNumber)
    }

    /// What is wrong where the data device is shorter than the filesystem: it was cut off, or is another device.
    pub fn shortfall(&self) -> Option<Box<Corruption>> {
        let (g, has) = (&self.geometry, self.data_target.len());
        let needs = u128::from(g.blocks) << g.block_log;
        if u128::from(has) >= needs {
            return None;
        }
        let c = Corruption::new("sb", "dblocks", Rule::Range).in_ag(self.superblock_from, None);
        let gone = g.ag_count as usize - self.ags().len();
        let groups =
            if gone == 0 { String::new() } else { format!(", and {gone} of {} AGs lie behind its end", g.ag_count) };
        let c = c.found(format_args!("{} blocks, {needs} bytes{groups}", g.blocks));
        Some(c.expected(format_args!("at most the device's {has} bytes")))
    }

    /// Those of its devices that were in use when they were opened, mounted or otherwise, by name: what is read may then be
    /// inconsistent.
    pub fn in_use(&self) -> &[(String, InUse)] {
        &self.in_use
    }

    /// The data device, to read without the cache: file contents and inode clusters.
    pub fn data_target(&self) -> &dyn Target {
        &*self.data_target
    }

    /// Header sector `n` of an AG: 0 superblock, 1 AGF, 2 AGI, 3 AGFL.
    ///
    /// # Errors
    /// As [`BufCache::read`].
    pub fn ag_header(&self, ag: AgNumber, n: u32, kind: &'static BlockType, damage: OnDamage) -> Result<BlockRead> {
        let key = BlockKey::one(self.data, self.geometry.header_daddr(ag, n), self.geometry.sector_size / 512);
        self.cache.read(&key, &Want::new(kind, damage), &self.geometry)
    }

    /// One block of an AG.
    ///
    /// # Errors
    /// As [`BufCache::read`]; [`Error::Corrupt`] where the block does not exist.
    pub fn ag_block(&self, ag: AgNumber, agbno: AgBlock, want: &Want) -> Result<BlockRead> {
        if !self.geometry.is_valid_agbno(ag, agbno) {
            return Err(Corruption::new(want.kind.name, "pointer", Rule::Range).in_ag(ag, Some(agbno)).into());
        }
        let daddr = self.geometry.agbno_to_daddr(ag, agbno);
        let key = BlockKey::one(self.data, daddr, self.geometry.block_size / 512);
        self.cache.read(&key, want, &self.geometry)
    }

    /// Tells that these blocks will be read soon; numbers that cannot be are passed over.
    pub fn readahead(&self, blocks: impl Iterator<Item = (AgNumber, AgBlock)>) {
        let valid = blocks.filter(|(ag, b)| self.geometry.is_valid_agbno(*ag, *b));
        let sectors = self.geometry.block_size / 512;
        let keys: Vec<BlockKey> =
            valid.map(|(ag, b)| BlockKey::one(self.data, self.geometry.agbno_to_daddr(ag, b), sectors)).collect();
        self.cache.readahead(&keys);
    }

    /// One filesystem block.
    ///
    /// # Errors
    /// As [`Volume::ag_block`].
    pub fn block(&self, fsb: FsBlock, want: &Want) -> Result<BlockRead> {
        let (ag, agbno) = self.geometry.split(fsb);
        self.ag_block(ag, agbno, want)
    }

    /// The cluster of an inode in the cache, and the inode's place in it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a number that cannot exist.
    pub fn inode_cluster(&self, ino: Ino) -> Result<(BlockKey, usize)> {
        let place = self.geometry.ino_to_cluster(ino);
        let (daddr, sectors, at) = place.ok_or_else(|| Error::NotFound(format!("inode {ino}")))?;
        Ok((BlockKey::one(self.data, daddr, sectors), at))
    }

    /// The bytes of one inode, unverified: from the cache where something changed them, else from the device.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a number that cannot exist; [`Error::Io`].
    pub fn inode_bytes(&self, ino: Ino) -> Result<Vec<u8>> {
        let (key, at) = self.inode_cluster(ino)?;
        let mut bytes = vec![0; self.geometry.inode_size as usize];
        if !self.cache.peek(&key, at, &mut bytes) {
            self.data_target.read_at(&mut bytes, key.daddr().bytes().saturating_add(at as u64))?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::Volume;
    use crate::Error;
    use crate::control::Control;
    use crate::target::{Target, Xfile};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn look(target: Arc<Xfile>, stop: &(dyn Fn() -> bool + Sync)) -> (u64, Error) {
        let steps = AtomicU64::new(0);
        let tell = |_: &crate::control::Progress| {
            steps.fetch_add(1, Ordering::Relaxed);
        };
        let control = Control { stop, progress: Some(&tell), ..Control::none() };
        let e = Volume::from_targets_with(target, None, None, 1 << 20, &control).expect_err("no superblock is there");
        (steps.into_inner(), e)
    }

    #[test]
    fn looking_for_a_superblock_passes_over_holes_and_can_be_stopped() {
        let target = Arc::new(Xfile::new("sparse").unwrap());
        target.set_len(1 << 39).unwrap();
        target.write_at(b"XFSB but nothing else", 3 << 37).unwrap();
        let (steps, e) = look(target.clone(), &|| false);
        assert!(matches!(e, Error::NoFilesystem { .. }), "{e}");
        assert!(steps < 10, "{steps} steps");
        let (steps, e) = look(target, &|| true);
        assert!(matches!(e, Error::Stopped), "{e}");
        assert_eq!(steps, 0);
    }
}
