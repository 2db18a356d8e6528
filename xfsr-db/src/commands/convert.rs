//! Arithmetic: addresses and hashes.

use crate::out::say;
use crate::session::{Outcome, Session, number};
use libxfsr::units::{AgBlock, AgIno, AgNumber, Daddr, FsBlock, Ino};

pub(crate) fn hash(s: &mut Session, a: &[Vec<u8>]) -> Outcome {
    let [name] = a else { return Err("hash takes one name".into()) };
    say!(s, "{:#x}", libxfsr::format::dir::hash_name(&s.volume.geometry, name));
    Ok(())
}

const KINDS: &[(&[&str], &str)] = &[
    (&["agblock", "agbno"], "agblock"),
    (&["agino", "aginode"], "agino"),
    (&["agnumber", "agno"], "agno"),
    (&["bboff", "daddroff"], "bboff"),
    (&["blkoff", "fsboff", "agboff"], "blkoff"),
    (&["byte", "fsbyte"], "byte"),
    (&["daddr", "bb"], "daddr"),
    (&["fsblock", "fsb", "fsbno"], "fsblock"),
    (&["ino", "inode"], "ino"),
    (&["inoidx", "offset"], "inoidx"),
    (&["inooff", "inodeoff"], "inooff"),
];

fn kind(name: &str) -> Result<&'static str, String> {
    let found = KINDS.iter().find(|k| k.0.contains(&name)).map(|k| k.1);
    found.ok_or_else(|| format!("unknown conversion type {}", libxfsr::text::escape(name.as_bytes())))
}

pub(crate) fn convert(s: &mut Session, a: &[String]) -> Outcome {
    let Some((to, given)) = a.split_last() else { return Err("convert type number [type number...] type".into()) };
    if given.is_empty() || !given.len().is_multiple_of(2) {
        return Err("convert type number [type number...] type".into());
    }
    let to = kind(to)?;
    let g = &s.volume.geometry;
    // Each part gives a number of bytes inside what the part before it names.
    let mut byte = 0u64;
    let mut seen: Vec<&str> = Vec::new();
    for pair in given.chunks_exact(2) {
        let [name, value] = pair else { continue };
        let (from, v) = (kind(name)?, number(value)?);
        if seen.contains(&from) {
            return Err(format!("{from} is given twice"));
        }
        let in_ag = |n: u64| u32::try_from(n).map_err(|_| format!("{from} {n} is too large"));
        let sub = !seen.is_empty();
        let ino_bytes = |n: u64| n.checked_mul(u64::from(g.inode_size));
        let add = match from {
            "agno" => {
                let ag = AgNumber(in_ag(v)?);
                (ag.0 < g.ag_count).then(|| g.agbno_to_daddr(ag, AgBlock(0)).bytes())
            }
            "agblock" => v.checked_mul(u64::from(g.block_size)).filter(|_| v < u64::from(g.agblocks)),
            "agino" => {
                let (b, i) = g.agino_to_block(AgIno(in_ag(v)?));
                ino_bytes(u64::from(i)).map(|o| (u64::from(b.0) << g.block_log) + o)
            }
            "ino" if !sub => g.ino_to_offset(Ino(v)),
            "fsblock" if !sub => g.fsblock_to_daddr(FsBlock(v)).map(Daddr::bytes),
            "daddr" if !sub => v.checked_mul(512),
            "byte" if !sub => Some(v),
            "inoidx" => ino_bytes(v).filter(|_| v < u64::from(g.inodes_per_block())),
            "blkoff" => Some(v).filter(|_| v < u64::from(g.block_size)),
            "inooff" => Some(v).filter(|_| v < u64::from(g.inode_size)),
            "bboff" => Some(v).filter(|_| v < 512),
            _ => return Err(format!("{from} does not fit behind {}", seen.join(", "))),
        };
        byte = add.and_then(|n| byte.checked_add(n)).ok_or_else(|| format!("{from} {v} is outside the filesystem"))?;
        seen.push(from);
    }
    if !seen.iter().any(|k| matches!(*k, "agno" | "ino" | "fsblock" | "daddr" | "byte"))
        && !matches!(to, "agblock" | "agino" | "blkoff" | "bboff" | "inoidx" | "inooff")
    {
        return Err(format!("{} alone does not make a {to}", seen.join(", ")));
    }
    let (ag, agbno) = g.daddr_to_ag(Daddr(byte / 512)).ok_or("the address is outside the filesystem")?;
    let in_block = byte & (u64::from(g.block_size) - 1);
    let index = in_block >> g.inode_log;
    let agino = AgIno(g.block_to_agino(agbno).0 + index as u32);
    let result = match to {
        "agno" => u64::from(ag.0),
        "agblock" => u64::from(agbno.0),
        "agino" => u64::from(agino.0),
        "ino" => g.join_ino(ag, agino).0,
        "fsblock" => g.join(ag, agbno).0,
        "daddr" => byte / 512,
        "byte" => byte,
        "blkoff" => in_block,
        "bboff" => byte % 512,
        "inoidx" => index,
        _ => byte & (u64::from(g.inode_size) - 1),
    };
    say!(s, "{result:#x} ({result})");
    Ok(())
}
