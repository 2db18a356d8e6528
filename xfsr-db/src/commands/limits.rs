//! What the geometry allows: log reservations, and the limits of times.

use crate::fields::inode::calendar;
use crate::out::say;
use crate::session::{Outcome, Session};
use libxfsr::format::inode::{BIGTIME_EPOCH, BIGTIME_MAX};
use libxfsr::format::quota::BIGTIME_SHIFT;
use libxfsr::journal::reservation::{Rules, largest, largest_by, reservations};
use libxfsr::text::escape;

/// `logres [-k]`: as xfs_db 6.1 computes it, with `-k` as today's kernels do.
pub(crate) fn logres(s: &mut Session, a: &[String]) -> Outcome {
    let linux = match a {
        [] => false,
        [o] if o == "-k" => true,
        [o, ..] => return Err(format!("bad option for logres: {}", escape(o.as_bytes()))),
    };
    let g = &s.volume.geometry;
    for (i, r) in reservations(g, if linux { Rules::Linux } else { Rules::Xfsprogs6_1 }).iter().enumerate() {
        let flags = if r.permanent { 0x4 } else { 0 };
        say!(s, "type {i} logres {} logcount {} flags {flags:#x}", r.bytes, r.rolls);
    }
    let (bytes, rolls) = if linux { largest(g) } else { largest_by(g, Rules::Oldest) };
    say!(s, "minlogsize logres {bytes} logcount {rolls}");
    Ok(())
}

/// `timelimit [--classic|--bigtime] [--pretty] [--compact]`.
pub(crate) fn timelimit(s: &mut Session, a: &[String]) -> Outcome {
    let (mut big, mut pretty, mut compact) = (s.volume.geometry.features.bigtime(), false, false);
    for o in a {
        match o.as_str() {
            "--classic" => big = false,
            "--bigtime" => big = true,
            // Of the two forms the last one counts.
            "--pretty" => (pretty, compact) = (true, false),
            "--compact" => (pretty, compact) = (false, true),
            o => return Err(format!("{}: bad option for timelimit", escape(o.as_bytes()))),
        }
    }
    // Quota timers with bigtime count units of four seconds; 0 means none.
    let unit = 1i64 << BIGTIME_SHIFT;
    let [last, first_timer, last_timer] =
        if big { [BIGTIME_MAX, unit, BIGTIME_MAX / unit * unit] } else { [i32::MAX.into(), 1, u32::MAX.into()] };
    // Grace periods are lengths, not times. Observed: xfs_db 6.1 calls both of their limits the least.
    let values = [
        ("time.min", -BIGTIME_EPOCH),
        ("time.max", last),
        ("dqtimer.min", first_timer),
        ("dqtimer.max", last_timer),
        ("dqgrace.min", 0),
        ("dqgrace.min", u32::MAX.into()),
    ];
    if compact {
        s.out.text(&values.map(|(_, v)| format!("{v} ")).concat());
        s.out.text("\n");
        return Ok(());
    }
    for (name, value) in values {
        let text = if pretty && !name.starts_with("dqgrace") { calendar(value) } else { value.to_string() };
        say!(s, "{name} = {text}");
    }
    Ok(())
}
