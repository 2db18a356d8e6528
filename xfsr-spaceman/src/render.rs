//! Answers as text, in the layouts of xfs_spaceman, xfs_io and xfs_db.

use libxfsr::spaceman::{Device, Frag, FreeSpace, Mapping, Owner};
use std::fmt::Write;

/// A number as C's `%g` shows it: six significant digits, no zeroes at the end.
fn general(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let exponent = value.abs().log10().floor() as i32;
    if !(-4..6).contains(&exponent) {
        let mantissa = format!("{:.5}", value / 10f64.powi(exponent));
        let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
        return format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    let text = format!("{value:.*}", (5 - exponent).max(0) as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// What `freesp` prints.
pub(crate) fn freesp(free: &FreeSpace, per_ag: bool, summary: bool) -> String {
    let mut out = String::new();
    let mut list = free.list.iter().peekable();
    if per_ag {
        let _ = writeln!(out, "{:>10} {:>10} {:>10}", "AG", "extents", "blocks");
    }
    for a in &free.ags {
        while let Some(e) = list.next_if(|e| e.ag == a.ag) {
            let ag = e.ag.map_or_else(|| "-1".to_owned(), |n| n.to_string());
            let _ = writeln!(out, "{ag:>8} {:>8} {:>8}", e.block, e.blocks);
        }
        if per_ag {
            let ag = a.ag.map_or_else(|| "rtdev".to_owned(), |n| n.to_string());
            let _ = writeln!(out, "{ag:>10} {:>10} {:>10}", a.extents, a.blocks);
        }
    }
    if !per_ag {
        let _ = writeln!(out, "{:>7} {:>7} {:>7} {:>7} {:>6}", "from", "to", "extents", "blocks", "pct");
        for b in free.bins.iter().filter(|b| b.extents > 0) {
            let percent = b.blocks as f64 * 100.0 / free.blocks as f64;
            let _ = writeln!(out, "{:>7} {:>7} {:>7} {:>7} {percent:>6.2}", b.from, b.to, b.extents, b.blocks);
        }
    }
    if summary {
        let average = general(free.average());
        let _ = writeln!(
            out,
            "total free extents {}\ntotal free blocks {}\naverage free extent size {average}",
            free.extents, free.blocks
        );
    }
    out
}

fn device(d: Device) -> &'static str {
    match d {
        Device::Data => "data",
        Device::Log => "log",
        Device::Realtime => "realtime",
    }
}

/// A line of `fsmap`; addresses, offsets and lengths in units of 512 bytes.
pub(crate) fn fsmap(number: u64, m: &Mapping) -> String {
    let (start, length) = (m.physical >> 9, m.length >> 9);
    let last = (start + length).saturating_sub(1);
    let mut out = format!("\t{number}: {} [{start}..{last}]: {}", device(m.device), m.owner.name());
    if matches!(m.owner, Owner::Inode(_)) {
        out.push_str(if m.attr_fork { " attr" } else { " data" });
        if m.extent_map {
            out.push_str(" extent map");
        } else {
            let first = m.offset >> 9;
            let _ = write!(out, " {first}..{}", first.saturating_add(length).saturating_sub(1));
        }
    }
    let _ = writeln!(out, " {length}");
    out
}

/// What `frag` prints.
pub(crate) fn frag(f: &Frag) -> String {
    let ideal = f.ideal.map_or_else(|| "unknown".to_owned(), |i| i.to_string());
    let mut out = format!("actual {}, ideal {ideal}, fragmentation factor {:.2}%\n", f.actual, f.factor());
    if f.ideal.is_none() {
        out.push_str("(the kernel does not tell where the attributes of links, sockets and devices are: one extent per fork taken as ideal)\n");
    }
    let _ = writeln!(out, "{} inodes, {} forks with {:.2} extents on average", f.inodes, f.forks, f.average());
    out
}

#[cfg(test)]
mod tests {
    use super::general;

    #[test]
    fn numbers_look_as_c_prints_them() {
        for (value, text) in [
            (5556.5, "5556.5"),
            (5_052.909_09, "5052.91"),
            (20467.0, "20467"),
            (0.0, "0"),
            (1.0, "1"),
            (1_234_567.0, "1.23457e+06"),
            (123_456.4, "123456"),
        ] {
            assert_eq!(general(value), text);
        }
    }
}
