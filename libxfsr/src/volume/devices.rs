//! Whether the devices that were named are those that the filesystem has: a wrong one is the caller's mistake, no damage.

use super::read_superblock;
use crate::error::{Error, Result};
use crate::format::log::{HEADER_MAGIC, LOG_BLOCK, MAX_RECORD, RecordHeader};
use crate::format::superblock;
use crate::geometry::Geometry;
use crate::target::Target;
use crate::text::escape;
use zerocopy::FromBytes;

/// Bytes at the start of a log among which a record begins: none is longer, and its headers come on top.
const SEARCH: usize = MAX_RECORD as usize + 64 * LOG_BLOCK;

/// Refuses a log or realtime device that the filesystem does not have, and a log of another filesystem.
///
/// Where the superblock's own copy in the next AG says otherwise, the superblock is damaged: then nothing is refused here, and a check
/// tells of it.
pub(super) fn check(
    data: &dyn Target,
    g: &Geometry,
    log: Option<&dyn Target>,
    realtime: Option<&dyn Target>,
) -> Result<()> {
    let name = |t: &dyn Target| escape(t.name().as_bytes());
    if let Some(log) = log {
        if g.log_start.0 != 0 {
            if !is_confirmed(data, g, |copy| copy.log_start.0 != 0) {
                return Ok(());
            }
            return Err(Error::invalid(format!(
                "{} is named as the log, but the log of {} is internal: leave the log device out",
                name(log),
                name(data)
            )));
        }
        belongs(data, g, log)?;
    }
    if let Some(rt) = realtime {
        let says_none = |g: &Geometry| g.rt_blocks == 0 || g.rt_start != 0;
        if says_none(g) && is_confirmed(data, g, says_none) {
            let why = if g.rt_blocks == 0 { "has no realtime section" } else { "has its realtime section inside" };
            return Err(Error::invalid(format!(
                "{} is named as the realtime device, but {} {why}: leave the realtime device out",
                name(rt),
                name(data)
            )));
        }
    }
    Ok(())
}

/// Whether the superblock of AG 1 says the same, or says nothing.
fn is_confirmed(data: &dyn Target, g: &Geometry, says: impl Fn(&Geometry) -> bool) -> bool {
    let offset = u64::from(g.agblocks) << g.block_log;
    read_superblock(data, offset).map_or(true, |(_, copy)| says(&copy))
}

/// Refuses a log whose records carry the UUID of another filesystem, and what holds a filesystem.
fn belongs(data: &dyn Target, g: &Geometry, log: &dyn Target) -> Result<()> {
    let mut bytes = vec![0; log.len().min(SEARCH as u64) as usize];
    log.read_at(&mut bytes, 0)?;
    let refuse = |what: &str| {
        let (log, data) = (escape(log.name().as_bytes()), escape(data.name().as_bytes()));
        Err(Error::invalid(format!("{log} is named as the log of {data}, but holds {what}: name the right log device")))
    };
    // No record of a log begins with this number, and cycles do not get so high.
    if bytes.starts_with(&superblock::MAGIC.to_be_bytes()) {
        return refuse("a filesystem");
    }
    let headers = bytes.chunks_exact(LOG_BLOCK).filter_map(|b| RecordHeader::read_from_prefix(b).ok());
    let mut owners = headers.map(|(h, _)| h).filter(|h| h.magicno.get() == HEADER_MAGIC).map(|h| h.fs_uuid).peekable();
    let Some(first) = owners.peek().copied() else { return Ok(()) };
    // Some tools leave the UUID out. A single header with another one is damage.
    let foreign = owners.all(|u| u == first && u != g.uuid && u != [0; 16]);
    if foreign && is_confirmed(data, g, |copy| copy.uuid == g.uuid) {
        let show = |u: [u8; 16]| uuid::Uuid::from_bytes(u);
        return refuse(&format!("the log of another filesystem (UUID {}, not {})", show(first), show(g.uuid)));
    }
    Ok(())
}
