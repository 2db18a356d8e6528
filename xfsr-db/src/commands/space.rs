//! Histograms of free space.

use crate::out::say;
use crate::session::{Outcome, Session, number};
use libxfsr::btree::kinds::{Bno, Cnt};
use libxfsr::btree::walk;
use libxfsr::cache::OnDamage;
use libxfsr::control::Control;
use libxfsr::error::{Corruption, Rule};
use libxfsr::format::ag::{AGF, AGFL, Agf, agfl_slots};
use libxfsr::format::btree::AllocRec;
use libxfsr::space::{AgStore, AgTree};
use libxfsr::spaceman::{Bins, FreeSpace};
use libxfsr::text::escape;
use libxfsr::units::AgNumber;
use std::ops::ControlFlow;
use zerocopy::FromBytes as _;

fn text(e: libxfsr::Error) -> String {
    e.to_string()
}

/// Blocks on an AG's free list.
pub(crate) fn free_list(s: &Session, ag: AgNumber) -> Result<Vec<u32>, libxfsr::Error> {
    let header = s.volume.ag_header(ag, 1, &AGF, OnDamage::Fail)?;
    let list = s.volume.ag_header(ag, 3, &AGFL, OnDamage::Fail)?;
    let slots = agfl_slots(&list);
    let Ok((agf, _)) = Agf::read_from_prefix(&header) else { return Ok(Vec::new()) };
    let (first, count) = (agf.flfirst.get() as usize, agf.flcount.get() as usize);
    if slots.is_empty() || first >= slots.len() || count > slots.len() {
        let c = Corruption::new("agf", "flfirst", Rule::Range).in_ag(ag, None);
        return Err(c
            .found(format_args!("{count} from {first}"))
            .expected(format_args!("{} slots", slots.len()))
            .into());
    }
    // The list is a ring.
    Ok(slots.iter().cycle().skip(first).take(count).map(|s| s.get()).collect())
}

/// A number as printf's `%g` writes it.
fn general(v: f64) -> String {
    if !v.is_finite() || v == 0.0 {
        return "0".into();
    }
    let exponential = format!("{v:.5e}");
    let (digits, exponent) = exponential.split_once('e').unwrap_or((&exponential, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let short = |s: &str| {
        if s.contains('.') { s.trim_end_matches('0').trim_end_matches('.').to_owned() } else { s.to_owned() }
    };
    if (-4..6).contains(&exponent) {
        short(&format!("{v:.*}", usize::try_from(5 - exponent).unwrap_or(0)))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", short(digits), exponent.unsigned_abs())
    }
}

/// Reads all free extents of an AG from one of its two trees.
fn trees(s: &Session, ag: AgNumber, by_size: bool, each: &mut dyn FnMut(u32, u32)) -> Result<(), libxfsr::Error> {
    let tree = if by_size { AgTree::Cnt } else { AgTree::Bno };
    let store = AgStore::new(&s.volume, ag, tree, OnDamage::Fail)?;
    let mut one = |r: &AllocRec| {
        each(r.startblock.get(), r.blockcount.get());
        Ok(ControlFlow::Continue(()))
    };
    if by_size {
        walk::<Cnt, _>(&store, &Control::none(), &mut one)
    } else {
        walk::<Bno, _>(&store, &Control::none(), &mut one)
    }
}

pub(crate) fn freesp(s: &mut Session, a: &[String]) -> Outcome {
    let (mut by_size, mut each, mut summary, mut align, mut ags) = (false, false, false, 1, Vec::new());
    let (mut factor, mut equal, mut starts) = (None, None, Vec::new());
    let mut rest = a.iter();
    while let Some(o) = rest.next() {
        let mut value = || number(rest.next().ok_or_else(|| format!("{o} needs a number"))?);
        match o.as_str() {
            "-b" => factor = Some(2),
            "-c" => by_size = true,
            "-d" => each = true,
            "-s" => summary = true,
            "-A" => align = value()?.max(1),
            "-a" => ags.push(AgNumber(u32::try_from(value()?).unwrap_or(u32::MAX))),
            "-e" => equal = Some(value()?),
            "-h" => starts.push(value()?),
            "-m" => factor = Some(value()?),
            o => return Err(format!("bad option for freesp: {}", escape(o.as_bytes()))),
        }
    }
    if usize::from(factor.is_some()) + usize::from(equal.is_some()) + usize::from(!starts.is_empty()) > 1 {
        return Err("-b, -e, -h and -m exclude one another".into());
    }
    let factor = factor.unwrap_or(2);
    let g = &s.volume.geometry;
    if factor < 2 || equal == Some(0) {
        return Err("-m needs a factor of at least 2, -e a size of at least 1".into());
    }
    if ags.is_empty() {
        ags = s.volume.ags().collect();
    }
    if let Some(ag) = ags.iter().find(|ag| ag.0 >= g.ag_count) {
        return Err(format!("there is no AG {ag}"));
    }
    if starts.is_empty() {
        let mut at = 1;
        while at < u64::from(g.agblocks) && starts.len() < 1 << 20 {
            starts.push(at);
            at = equal.map_or_else(|| at.saturating_mul(factor), |e| at.saturating_add(e));
        }
    }
    // A bin that starts behind the largest extent stays empty, as one from 0 would.
    let largest = u64::from(g.agblocks);
    let starts = starts.into_iter().filter(|s| (1..=largest).contains(s));
    let mut found = FreeSpace::new(Bins::From(starts.collect()).empty(largest).map_err(text)?);
    if each {
        say!(s, "{:>8} {:>8} {:>8}", "agno", "agbno", "len");
    }
    for ag in ags {
        let mut one = |start: u32, count: u32| {
            if !u64::from(start).is_multiple_of(align) {
                return;
            }
            if each {
                say!(s, "{ag:>8} {start:>8} {count:>8}");
            }
            found.add(count.into());
        };
        // The free list's blocks are free too, though no tree has them.
        free_list(s, ag).map_err(text)?.into_iter().for_each(|b| one(b, 1));
        trees(s, ag, by_size, &mut one).map_err(text)?;
    }
    say!(s, "{:>7} {:>7} {:>7} {:>7} {:>6}", "from", "to", "extents", "blocks", "pct");
    for b in found.bins.iter().filter(|b| b.extents > 0) {
        let share = b.blocks as f64 * 100.0 / found.blocks as f64;
        say!(s, "{:>7} {:>7} {:>7} {:>7} {share:>6.2}", b.from, b.to, b.extents, b.blocks);
    }
    if summary {
        say!(s, "total free extents {}\ntotal free blocks {}", found.extents, found.blocks);
        say!(s, "average free extent size {}", general(found.average()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::general;

    #[test]
    fn numbers_have_six_digits() {
        let numbers = [8.180_668, 10.0, 100_000.0, 1_234_567.0, 0.000_012_345_6, 0.25, 0.0];
        assert_eq!(numbers.map(general), ["8.18067", "10", "100000", "1.23457e+06", "1.23456e-05", "0.25", "0"]);
    }
}
