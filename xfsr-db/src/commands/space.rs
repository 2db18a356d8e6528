//! Histograms of free space.

use crate::out::say;
use crate::session::{Outcome, Session, number};
use libxfsr::btree::kinds::{Bno, Cnt};
use libxfsr::btree::{Cursor, Kind};
use libxfsr::cache::OnDamage;
use libxfsr::format::btree::AllocRec;
use libxfsr::space::{AgStore, AgTree};
use libxfsr::text::escape;
use libxfsr::units::AgNumber;

fn text(e: libxfsr::Error) -> String {
    e.to_string()
}

#[derive(Default)]
struct Buckets {
    starts: Vec<u64>,
    extents: Vec<u64>,
    blocks: Vec<u64>,
}

/// Reads all records of a tree of free extents.
fn walk<K: Kind<Record = AllocRec>>(
    s: &Session,
    ag: AgNumber,
    tree: AgTree,
    each: &mut dyn FnMut(u32, u32),
) -> Result<(), libxfsr::Error> {
    let store = AgStore::new(&s.volume, ag, tree, OnDamage::Fail)?;
    let Some(mut cursor) = Cursor::<K, _>::first(&store)? else { return Ok(()) };
    // Records cannot outnumber the AG's blocks: a chain that goes on longer is a loop.
    for _ in 0..=s.volume.geometry.ag_blocks(ag) {
        let Some(r) = cursor.record() else { break };
        each(r.startblock.get(), r.blockcount.get());
        if !cursor.advance()? {
            break;
        }
    }
    Ok(())
}

pub(crate) fn freesp(s: &mut Session, a: &[String]) -> Outcome {
    let (mut by_size, mut each, mut summary, mut align, mut ags) = (false, false, false, 1, Vec::new());
    let (mut factor, mut equal, mut starts) = (2, None, Vec::new());
    let mut rest = a.iter();
    while let Some(o) = rest.next() {
        let mut value = || number(rest.next().ok_or_else(|| format!("{o} needs a number"))?);
        match o.as_str() {
            "-b" => factor = 2,
            "-c" => by_size = true,
            "-d" => each = true,
            "-s" => summary = true,
            "-A" => align = value()?.max(1),
            "-a" => ags.push(AgNumber(u32::try_from(value()?).unwrap_or(u32::MAX))),
            "-e" => equal = Some(value()?),
            "-h" => starts.push(value()?),
            "-m" => factor = value()?,
            o => return Err(format!("bad option for freesp: {}", escape(o.as_bytes()))),
        }
    }
    let g = &s.volume.geometry;
    if factor < 2 || equal == Some(0) {
        return Err("-m needs a factor of at least 2, -e a size of at least 1".into());
    }
    if ags.is_empty() {
        ags = g.ags().collect();
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
    starts.sort_unstable();
    let n = starts.len();
    let mut b = Buckets { starts, extents: vec![0; n], blocks: vec![0; n] };
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
            let i = b.starts.partition_point(|s| *s <= u64::from(count)).saturating_sub(1);
            if let (Some(e), Some(n)) = (b.extents.get_mut(i), b.blocks.get_mut(i)) {
                *e += 1;
                *n += u64::from(count);
            }
        };
        if by_size {
            walk::<Cnt>(s, ag, AgTree::Cnt, &mut one).map_err(text)?;
        } else {
            walk::<Bno>(s, ag, AgTree::Bno, &mut one).map_err(text)?;
        }
    }
    let (extents, blocks) = (b.extents.iter().sum::<u64>(), b.blocks.iter().sum::<u64>());
    say!(s, "{:>7} {:>7} {:>7} {:>7} {:>6}", "from", "to", "extents", "blocks", "pct");
    for (i, from) in b.starts.iter().enumerate() {
        let (e, n) = (b.extents.get(i).copied().unwrap_or(0), b.blocks.get(i).copied().unwrap_or(0));
        if e > 0 {
            let to = b.starts.get(i + 1).map_or(u64::from(g.agblocks), |t| t - 1);
            say!(s, "{from:>7} {to:>7} {e:>7} {n:>7} {:>6.2}", n as f64 * 100.0 / blocks as f64);
        }
    }
    if summary {
        say!(s, "total free extents {extents}\ntotal free blocks {blocks}");
        say!(s, "average free extent size {}", blocks as f64 / extents as f64);
    }
    Ok(())
}
