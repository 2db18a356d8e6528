//! Showing what stands at the current position, and the filesystem's geometry.

use super::edit;
use crate::field::{self, select};
use crate::fields;
use crate::location::Type;
use crate::out::say;
use crate::session::{Outcome, Session};
use std::fmt::Write as _;

pub(crate) fn print(s: &mut Session, a: &[String]) -> Outcome {
    let here = s.here()?;
    let mut out = String::new();
    let Some(lines) = fields::lines(&s.volume, here.kind, &here.bytes) else {
        if !a.is_empty() {
            return Err(format!("type {} has no fields", here.kind.name()));
        }
        match here.kind {
            // Its records are shown by what reads the whole log.
            Type::Log | Type::Inodata => return Err(format!("no print function for type {}", here.kind.name())),
            kind => dump(&mut out, &here.bytes, matches!(kind, Type::Text | Type::Rtbitmap | Type::Rtsummary)),
        }
        s.out.text(&out);
        return Ok(());
    };
    if a.is_empty() {
        lines.0.iter().for_each(|l| l.render(&mut out));
    }
    for expression in a {
        select(&lines.0, expression)?.iter().for_each(|l| l.render(&mut out));
    }
    s.out.text(&out);
    Ok(())
}

/// The bytes in hexadecimal: words, or single bytes with their characters.
fn dump(out: &mut String, bytes: &[u8], characters: bool) {
    let width = format!("{:x}", bytes.len().saturating_sub(1)).len().max(2);
    let (line, unit) = if characters { (16, 1) } else { (32, 4) };
    for (i, row) in bytes.chunks(line).enumerate() {
        let _ = write!(out, "{:0width$x}:", i * line);
        if characters {
            out.push(' ');
        }
        for word in row.chunks(unit) {
            out.push(' ');
            for b in word {
                let _ = write!(out, "{b:02x}");
            }
        }
        if characters {
            out.push_str("  ");
            // Observed: xfs_db 6.1 shows letters and digits only.
            out.extend(row.iter().map(|b| if b.is_ascii_alphanumeric() { char::from(*b) } else { '.' }));
        }
        out.push('\n');
    }
}

pub(crate) fn crc(s: &mut Session, a: &[String]) -> Outcome {
    match a.first().map(String::as_str) {
        None | Some("-v") => {}
        Some("-r") => return edit::crc(s, true),
        Some("-i") => return edit::crc(s, false),
        Some(o) => return Err(format!("bad option for crc: {}", libxfsr::text::escape(o.as_bytes()))),
    }
    let here = s.here()?;
    if here.kind.crc_offset(&here.bytes).is_some() {
        say!(s, "Verifying CRC:");
    }
    checksum(s)
}

/// The current structure's checksum.
pub(crate) fn checksum(s: &Session) -> Outcome {
    let here = s.here()?;
    let at = here.kind.crc_offset(&here.bytes);
    let at = at.ok_or_else(|| format!("current type ({}) is not a structure", here.kind.name()))?;
    let lines = fields::lines(&s.volume, here.kind, &here.bytes);
    let path = lines.and_then(|l| l.0.into_iter().map(|l| l.path).find(|p| p.ends_with("crc")));
    say!(s, "{} = {}", path.as_deref().unwrap_or("crc"), field::crc(here.kind.part(&here.bytes), at).text);
    Ok(())
}

pub(crate) fn info(s: &mut Session, _: &[String]) -> Outcome {
    let (g, sb) = (&s.volume.geometry, &s.volume.superblock);
    let f = &g.features;
    let bit = u8::from;
    let device = libxfsr::text::escape(s.device.as_os_str().as_encoded_bytes());
    say!(s, "meta-data={device:<22} isize={:<6} agcount={}, agsize={} blks", g.inode_size, g.ag_count, g.agblocks);
    say!(s, "         ={:<22} sectsz={:<5} attr=2, projid32bit=1", "", g.sector_size);
    say!(
        s,
        "         ={:<22} crc=1        finobt={}, sparse={}, rmapbt={}",
        "",
        bit(f.finobt()),
        bit(f.sparse_inodes()),
        bit(f.rmapbt())
    );
    say!(
        s,
        "         ={:<22} reflink={}    bigtime={} inobtcount={} nrext64={}",
        "",
        bit(f.reflink()),
        bit(f.bigtime()),
        bit(f.inobtcnt()),
        bit(f.nrext64())
    );
    say!(s, "data     ={:<22} bsize={:<6} blocks={}, imaxpct={}", "", g.block_size, g.blocks, g.max_inode_percent);
    say!(s, "         ={:<22} sunit={:<6} swidth={} blks", "", sb.unit, sb.width);
    say!(
        s,
        "naming   =version {:<14} bsize={:<6} ascii-ci={}, ftype={}",
        2,
        g.dir_block_size,
        bit(f.ascii_ci()),
        bit(f.ftype())
    );
    let given = s.volume.log.filter(|_| g.log_start.0 == 0).and_then(|log| s.volume.cache.target(log).ok());
    let log = match given {
        Some(log) => libxfsr::text::escape(log.name().as_bytes()),
        None if g.log_start.0 == 0 => "external".to_owned(),
        None => "internal log".to_owned(),
    };
    say!(s, "log      ={log:<22} bsize={:<6} blocks={}, version=2", g.block_size, g.log_blocks);
    say!(
        s,
        "         ={:<22} sectsz={:<5} sunit={} blks, lazy-count={}",
        "",
        g.log_sector_size,
        g.log_stripe_unit >> g.block_log,
        bit(f.lazy_count())
    );
    let rt = if g.rt_blocks > 0 { "external" } else { "none" };
    let extent = u64::from(g.rt_extent_size) << g.block_log;
    say!(s, "realtime ={rt:<22} extsz={extent:<6} blocks={}, rtextents={}", g.rt_blocks, g.rt_extents);
    Ok(())
}

/// `uuid`.
pub(crate) fn uuid(s: &mut Session, a: &[String]) -> Outcome {
    if let Some(new) = a.first() {
        return edit::uuid(s, new);
    }
    say!(s, "UUID = {}", field::uuid(&s.volume.superblock.uuid).text);
    Ok(())
}

/// `label`.
pub(crate) fn label(s: &mut Session, a: &[String]) -> Outcome {
    if let Some(new) = a.first() {
        return edit::label(s, new);
    }
    let name = &s.volume.superblock.fname;
    say!(s, "label = \"{}\"", libxfsr::text::escape(name.split(|b| *b == 0).next().unwrap_or_default()));
    Ok(())
}

pub(crate) fn version(s: &mut Session, a: &[String]) -> Outcome {
    if !a.is_empty() {
        return Err("changing features is not available yet".into());
    }
    let sb = &s.volume.superblock;
    let (v, f2) = (u32::from(sb.versionnum.get()), sb.features2.get());
    let (ro, inc) = (sb.features_ro_compat.get(), sb.features_incompat.get());
    const NAMES: &[(usize, u32, &str)] = &[
        (0, 0x20, "NLINK"),
        (0, 0x2000, "DIRV2"),
        (0, 0x10, "ATTR"),
        (0, 0x40, "QUOTA"),
        (0, 0x80, "ALIGN"),
        (0, 0x100, "DALIGN"),
        (0, 0x400, "LOGV2"),
        (0, 0x1000, "EXTFLG"),
        (0, 0x800, "SECTOR"),
        (0, 0x4000, "ASCII_CI"),
        (0, 0x8000, "MOREBITS"),
        (1, 0x8, "ATTR2"),
        (1, 0x2, "LAZYSBCOUNT"),
        (1, 0x80, "PROJID32BIT"),
        (1, 0x100, "CRC"),
        (3, 0x1, "FTYPE"),
        (2, 0x1, "FINOBT"),
        (3, 0x2, "SPARSE_INODES"),
        (3, 0x4, "META_UUID"),
        (2, 0x2, "RMAPBT"),
        (2, 0x4, "REFLINK"),
        (2, 0x8, "INOBTCNT"),
        (3, 0x8, "BIGTIME"),
        (3, 0x10, "NEEDSREPAIR"),
        (3, 0x20, "NREXT64"),
        (3, 0x40, "EXCHANGE"),
        (3, 0x80, "PARENT"),
        (3, 0x100, "METADIR"),
        (3, 0x200, "ZONED"),
        (3, 0x400, "ZONE_GAPS"),
    ];
    let words = [v, f2, ro, inc];
    let set = NAMES.iter().filter(|(w, bit, _)| words.get(*w).is_some_and(|v| v & bit != 0)).map(|n| n.2);
    let names: Vec<&str> = std::iter::once("V5").chain(set).collect();
    say!(s, "versionnum [{v:#x}+{f2:#x}] = {}", names.join(","));
    Ok(())
}
