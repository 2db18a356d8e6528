//! Fragmentation of files: extents that they have, and the fewest that they would need.

use crate::out::{complain, say};
use crate::session::{Outcome, Session};
use libxfsr::control::Control;
use libxfsr::error::ForkKind;
use libxfsr::format::inode::{Dinode, MetaType};
use libxfsr::inode::scan;
use libxfsr::spaceman::FragCounter;
use libxfsr::text::escape;
use libxfsr::units::Ino;
use std::ops::ControlFlow;

/// What to count; nothing named means everything.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Wanted {
    attributes: bool,
    directories: bool,
    files: bool,
    links: bool,
    quota: bool,
    realtime_control: bool,
    realtime: bool,
}

/// `frag [-adflqRrv]`.
pub(crate) fn frag(s: &mut Session, a: &[String]) -> Outcome {
    let (mut w, mut verbose) = (Wanted::default(), false);
    for o in a {
        let letters = o.strip_prefix('-').filter(|l| !l.is_empty());
        for c in letters.ok_or_else(|| format!("frag takes no {}", escape(o.as_bytes())))?.chars() {
            match c {
                'a' => w.attributes = true,
                'd' => w.directories = true,
                'f' => w.files = true,
                'l' => w.links = true,
                'q' => w.quota = true,
                'R' => w.realtime_control = true,
                'r' => w.realtime = true,
                'v' => verbose = true,
                c => return Err(format!("bad option for frag: -{}", escape(c.to_string().as_bytes()))),
            }
        }
    }
    if w == Wanted::default() {
        w = Wanted {
            attributes: true,
            directories: true,
            files: true,
            links: true,
            quota: true,
            realtime_control: true,
            realtime: true,
        };
    }
    let mut total = FragCounter::default();
    let mut failed = 0u64;
    let mut each = |seen: scan::Seen<'_>, control: &Control<'_>| {
        let counted = seen.and_then(|(ino, bytes)| count(s, control, w, ino, bytes));
        match counted {
            Ok(Some((ino, c))) => {
                if verbose {
                    say!(s, "inode {ino} actual {} ideal {}", c.actual, c.ideal);
                }
                total.actual += c.actual;
                total.ideal += c.ideal;
            }
            Ok(None) => {}
            Err(libxfsr::Error::Stopped) => return ControlFlow::Break(()),
            Err(e) => {
                complain!(s, "frag: {e}");
                failed += 1;
            }
        }
        ControlFlow::Continue(())
    };
    s.watched(|control| {
        scan::for_each_used(&s.volume, control, &mut |seen| each(seen, control))?;
        // One inode with many extents may have been left early.
        control.check()
    })
    .map_err(|e| e.to_string())?;
    let percent = if total.actual == 0 {
        0.0
    } else {
        total.actual.saturating_sub(total.ideal) as f64 * 100.0 / total.actual as f64
    };
    say!(s, "actual {}, ideal {}, fragmentation factor {percent:.2}%", total.actual, total.ideal);
    // Observed: xfs_db writes these two lines in every case, and "-nan" where nothing has an extent.
    let average = if total.ideal == 0 { 0.0 } else { total.actual as f64 / total.ideal as f64 };
    say!(s, "Note, this number is largely meaningless.");
    say!(s, "Files on this filesystem average {average:.2} extents per file");
    if failed == 0 { Ok(()) } else { Err(format!("frag: {failed} inodes or parts could not be read")) }
}

/// The extents of an inode that are wanted; none where nothing of it is.
fn count(
    s: &Session,
    control: &Control<'_>,
    w: Wanted,
    ino: Ino,
    bytes: &[u8],
) -> Result<Option<(Ino, FragCounter)>, libxfsr::Error> {
    let Some(core) = Dinode::from_bytes(bytes) else { return Ok(None) };
    let metadata = s.volume.superblock.metadata_kind(ino);
    let data = if core.is_dir() {
        w.directories
    } else if core.is_symlink() {
        w.links
    } else if matches!(metadata, Some(MetaType::RtBitmap | MetaType::RtSummary)) {
        w.realtime_control
    } else if metadata.is_some() {
        w.quota
    } else if core.is_reg() {
        if core.is_realtime() { w.realtime } else { w.files }
    } else {
        false
    };
    let attributes = w.attributes && core.has_attr_fork();
    if !data && !attributes {
        return Ok(None);
    }
    let mut counter = FragCounter::default();
    for (kind, wanted) in [(ForkKind::Data, data), (ForkKind::Attr, attributes)] {
        if wanted {
            counter.fork(&s.volume, (ino, bytes), kind, control)?;
        }
    }
    Ok(Some((ino, counter)))
}
