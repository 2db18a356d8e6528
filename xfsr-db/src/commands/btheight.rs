//! How high btrees get.

use crate::out::{complain, say};
use crate::session::{Outcome, Session, number};
use libxfsr::cli::{Units, parse_size};
use libxfsr::format::btree::{ALLOC, BMBT, INO, Layout, REFCOUNT, RMAP};
use libxfsr::text::escape;

/// A btree by the name that one gives: sizes, and the most levels that it has on any filesystem. Observed: xfs_db 6.1 names these heights, which
/// are those of the smallest blocks and the largest devices, format version 4 included.
const KINDS: &[(&str, Layout, u32)] = &[
    ("bnobt", ALLOC, 7),
    ("cntbt", ALLOC, 7),
    ("inobt", INO, 6),
    ("finobt", INO, 6),
    ("bmapbt", BMBT, 14),
    ("refcountbt", REFCOUNT, 6),
    ("rmapbt", RMAP, 9),
];

/// Headers of blocks: short pointers or long ones, with and without a checksum.
const HEADERS: &[(&str, usize)] = &[("short", 16), ("long", 24), ("shortcrc", 56), ("longcrc", 72)];

/// Blocks smaller than this are not looked at.
const MIN_BLOCK: u64 = 128;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Both,
    Best,
    Worst,
    Highest,
}

/// `btheight [-b blksz] [-n recs] [-w max|min|absmax] type...`.
pub(crate) fn btheight(s: &mut Session, a: &[String]) -> Outcome {
    let (mut block, mut records, mut which, mut names) =
        (u64::from(s.volume.geometry.block_size), 0, Which::Both, Vec::new());
    let mut rest = a.iter();
    while let Some(o) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{o} needs a value"));
        match o.as_str() {
            "-b" => block = parse_size(value()?, Units::default()).map_err(|e| format!("-b: {e}"))?,
            "-n" => records = number(value()?)?,
            "-w" => {
                which = match value()?.as_str() {
                    "max" => Which::Best,
                    "min" => Which::Worst,
                    "absmax" => Which::Highest,
                    w => return Err(format!("-w takes max, min or absmax, not {}", escape(w.as_bytes()))),
                }
            }
            o if o.starts_with('-') => return Err(format!("bad option for btheight: {}", escape(o.as_bytes()))),
            name => names.push(name),
        }
    }
    if names.is_empty() {
        return Err("btheight needs the type of a btree: help btheight".into());
    }
    if records == 0 && which != Which::Highest {
        return Err("btheight needs a number of records of at least 1 (-n)".into());
    }
    if !(MIN_BLOCK..=1 << 31).contains(&block) {
        return Err(format!("-b: a block has {MIN_BLOCK} bytes to 2 GiB, not {block}"));
    }
    let mut failed = 0;
    for name in names {
        let known = KINDS.iter().filter(|k| name == "all" || k.0 == name).map(|k| (k.0, k.1, Some(k.2)));
        let mut kinds: Vec<_> = known.collect();
        if kinds.is_empty() {
            match raw(name) {
                Ok(layout) => kinds.push((name, layout, None)),
                Err(e) => {
                    complain!(s, "{}: {e}", escape(name.as_bytes()));
                    failed += 1;
                }
            }
        }
        for (name, layout, highest) in kinds {
            if let Err(e) = report(s, name, &layout, highest, which, block, records) {
                complain!(s, "{}: {e}", escape(name.as_bytes()));
                failed += 1;
            }
        }
    }
    if failed == 0 { Ok(()) } else { Err(format!("btheight: {failed} btrees could not be computed")) }
}

/// Sizes written as `record:key:pointer:header`.
fn raw(text: &str) -> Result<Layout, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let &[record, key, pointer, header] = parts.as_slice() else {
        return Err("no type of btree, and not record:key:pointer:header".into());
    };
    let size = |what: &str, text: &str| match number(text)? {
        n @ 1..=0xffff_ffff => Ok(n as usize),
        n => Err(format!("{n} bytes in a {what}; at least 1 is needed")),
    };
    let header = HEADERS.iter().find(|h| h.0 == header).ok_or("the header is short, long, shortcrc or longcrc")?.1;
    Ok(Layout { header, record: size("record", record)?, key: size("key", key)?, pointer: size("pointer", pointer)? })
}

/// The levels of one btree whose blocks are full, or half full.
fn report(
    s: &Session,
    name: &str,
    layout: &Layout,
    highest: Option<u32>,
    which: Which,
    block: u64,
    records: u64,
) -> Outcome {
    if which == Which::Highest {
        let levels = highest.ok_or("the largest height is known of XFS's own btrees only")?;
        say!(s, "{name}: {levels}");
        return Ok(());
    }
    let size = usize::try_from(block).map_err(|e| e.to_string())?;
    let full = (layout.leaf_max(size) as u64, layout.node_max(size) as u64);
    for (this, case, (leaf, node)) in [(Which::Best, "best", full), (Which::Worst, "worst", (full.0 / 2, full.1 / 2))] {
        if which != Which::Both && which != this {
            continue;
        }
        if leaf == 0 || node < 2 {
            return Err(format!("{case} case: {leaf} records in a leaf and {node} in a node make no btree"));
        }
        say!(s, "{name}: {case} case per {block}-byte block: {leaf} records (leaf) / {node} keyptrs (node)");
        let (mut entries, mut total, mut level) = (records, 0u64, 0);
        loop {
            let blocks = entries.div_ceil(if level == 0 { leaf } else { node });
            say!(s, "level {level}: {entries} record{}, {blocks} block{}", plural(entries), plural(blocks));
            total = total.saturating_add(blocks);
            level += 1;
            if blocks == 1 {
                break;
            }
            entries = blocks;
        }
        say!(s, "{level} level{}, {total} block{} total", plural(level), plural(total));
    }
    Ok(())
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "s" }
}
