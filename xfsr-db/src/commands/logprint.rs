//! The log as a list: records and operations, or transactions and items.

use crate::out::say;
use crate::session::{Outcome, Session, number};
use libxfsr::error::Severity;
use libxfsr::journal::listing::{
    Change, Core, Detail, Entry, ItemEntry, LogEntry, Options, Quota, RecordEntry, Totals, View, list,
};
use libxfsr::text::escape;
use libxfsr::units::Lsn;
use std::fmt::Write as _;
use std::ops::ControlFlow;

/// What is shown of items beside a line.
#[derive(Default)]
struct Shown {
    buffers: bool,
    inodes: bool,
    quota: bool,
    bytes: bool,
}

/// `logprint [-bdeijoqt] [-s block]`.
pub(crate) fn logprint(s: &mut Session, a: &[String]) -> Outcome {
    let (mut transactions, mut records_only, mut end_early, mut json) = (false, false, false, false);
    let (mut from, mut shown) = (None, Shown::default());
    let mut rest = a.iter();
    while let Some(o) = rest.next() {
        let Some(letters) = o.strip_prefix('-').filter(|l| !l.is_empty()) else {
            return Err(format!("logprint takes options only, not {}", escape(o.as_bytes())));
        };
        for letter in letters.chars() {
            match letter {
                't' => transactions = true,
                'd' => records_only = true,
                'e' => end_early = true,
                'j' => json = true,
                'b' => shown.buffers = true,
                'i' => shown.inodes = true,
                'q' => shown.quota = true,
                'o' => shown.bytes = true,
                's' => from = Some(number(rest.next().ok_or("-s needs the block to start with")?)?),
                _ => return Err(format!("bad option for logprint: {}", escape(o.as_bytes()))),
            }
        }
    }
    if transactions && (from.is_some() || records_only) {
        return Err("-t shows transactions between tail and head: -s and -d are for records".into());
    }
    if !transactions && (shown.buffers || shown.inodes || shown.quota || shown.bytes) {
        return Err("-b, -i, -q and -o say more about items, which -t shows".into());
    }
    let options = Options {
        view: if transactions { View::Recovery } else { View::Blocks { from: from.unwrap_or(0) } },
        records: true,
        operations: !transactions && !records_only,
        items: transactions,
        bytes: shown.bytes,
    };
    let s = &*s;
    if json {
        s.out.text("{\"entries\":[");
    }
    let mut first = true;
    let listed = s.watched(|control| {
        // The log as it is on the disk, not as it is once it is recovered.
        list(s.as_is.as_ref().unwrap_or(&s.volume), &options, control, &mut |entry| {
            if json {
                let separator = if first { "\n" } else { ",\n" };
                first = false;
                let text = serde_json::to_string(&entry).unwrap_or_else(|_| "null".into());
                s.out.text(&format!("{separator}{text}"));
            } else {
                let mut text = String::new();
                render(&mut text, &entry, &shown, transactions);
                s.out.text(&text);
            }
            let ended =
                end_early && matches!(&entry, Entry::Finding { finding } if finding.severity > Severity::Warning);
            if ended || s.out.broken() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    });
    if json {
        let told = match &listed {
            Ok(totals) => format!("\"totals\":{}", serde_json::to_string(totals).unwrap_or_else(|_| "null".into())),
            Err(e) => format!("\"error\":{}", serde_json::to_string(&e.to_string()).unwrap_or_else(|_| "null".into())),
        };
        say!(s, "\n],{told}}}");
    }
    let totals = listed.map_err(|e| e.to_string())?;
    if !json {
        summary(s, &totals);
    }
    if totals.findings > 0 {
        return Err(format!("the log is damaged: {} findings", totals.findings));
    }
    Ok(())
}

fn summary(s: &Session, t: &Totals) {
    let items: Vec<String> = t.items.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    say!(
        s,
        "\nrecords {} (torn {}), operations {}, transactions {} (unfinished {}), intents pending {}",
        t.records,
        t.torn,
        t.operations,
        t.transactions,
        t.unfinished,
        t.pending
    );
    if !items.is_empty() {
        say!(s, "items: {}", items.join(", "));
    }
    if t.findings + t.warnings > 0 {
        say!(s, "findings {}, warnings {}", t.findings, t.warnings);
    }
}

fn lsn(l: Lsn) -> String {
    format!("{},{}", l.cycle(), l.block())
}

fn render(out: &mut String, entry: &Entry, shown: &Shown, transactions: bool) {
    let _ = match entry {
        Entry::Log(l) => log(out, l),
        Entry::Record(r) => record(out, r, transactions),
        Entry::Operation(o) => {
            let flags = o.flags.iter().fold(String::new(), |t, f| t + " " + f);
            let part = o.part.as_ref().map_or_else(String::new, |p| match p.regions {
                1 => format!(" ({})", p.of),
                n => format!(" ({} {} of {n})", p.of, p.region + 1),
            });
            writeln!(out, "  {} tid {:08x} {} length {}{flags}{part}", o.number, o.tid, o.client, o.length)
        }
        Entry::Gap(g) => writeln!(out, "no record in {} blocks from {}", g.blocks, g.block),
        Entry::Transaction(t) => writeln!(
            out,
            "transaction {:08x} start {} commit {} regions {}",
            t.tid,
            lsn(t.start),
            lsn(t.commit),
            t.regions
        ),
        Entry::Item(i) => item(out, i, shown),
        Entry::Pending(i) => {
            let _ = write!(out, "pending since {}:", lsn(i.lsn));
            item(out, i, shown)
        }
        Entry::Finding { finding } => {
            let word = if finding.severity == Severity::Warning { "warning" } else { "damage" };
            writeln!(out, "{word}: {finding}")
        }
        // Entries of a later library.
        other => writeln!(out, "{other:?}"),
    };
}

fn log(out: &mut String, l: &LogEntry) -> std::fmt::Result {
    let place = if l.internal { "internal log" } else { "external log" };
    writeln!(out, "{place} at daddr {}, {} blocks of 512 bytes", l.daddr, l.blocks)?;
    write!(out, "state {}", format!("{:?}", l.state).to_ascii_lowercase())?;
    if let Some(tail) = l.tail {
        write!(out, ", tail {}", lsn(tail))?;
    }
    if let Some(head) = l.head {
        write!(out, ", head {}", lsn(head))?;
    }
    match l.written {
        Some(w) if Some(w) != l.head => writeln!(out, ", written up to {}", lsn(w))?,
        _ => writeln!(out)?,
    }
    writeln!(out)
}

fn record(out: &mut String, r: &RecordEntry, transactions: bool) -> std::fmt::Result {
    let word = |w: &dyn std::fmt::Debug| format!("{w:?}").to_ascii_lowercase();
    write!(out, "record {} tail {}", lsn(r.lsn), lsn(r.tail))?;
    if let Some(p) = r.previous {
        write!(out, " previous {p}")?;
    }
    write!(out, " length {} operations {} crc {:08x} {}", r.length, r.operations, r.crc, word(&r.crc_state))?;
    if !transactions {
        write!(out, " version {} headers {} size {} format {}", r.version, r.header_blocks, r.size, r.format)?;
    }
    writeln!(out, " {}", word(&r.place))
}

fn flags(all: &[String]) -> String {
    if all.is_empty() { String::new() } else { format!(" flags {}", all.join(" ")) }
}

fn changes(all: &[Change]) -> String {
    let mut out = String::new();
    for c in all {
        let _ = write!(out, " [{} start {} blocks {}", c.operation, c.start, c.blocks);
        if let (Some(owner), Some(offset)) = (c.owner, c.offset) {
            let _ = write!(out, " owner {owner} offset {offset}");
        }
        let _ = write!(out, "{}]", flags(&c.flags));
    }
    out
}

fn item(out: &mut String, i: &ItemEntry, shown: &Shown) -> std::fmt::Result {
    write!(out, "  {}", i.kind)?;
    match &i.detail {
        Detail::Buffer { daddr, sectors, holds, flags: set, chunks } => {
            write!(out, " daddr {daddr} length {sectors} {holds}{}", flags(set))?;
            if shown.buffers {
                let chunks: Vec<String> = chunks.iter().map(|c| format!("{}+{}", c.first, c.count)).collect();
                write!(out, " chunks {}", chunks.join(" "))?;
            }
        }
        Detail::Inode { ino, fields, daddr, sectors, offset, data_bytes, attr_bytes, core: logged } => {
            write!(out, " {ino} fields {}", fields.join(" "))?;
            if *data_bytes > 0 {
                write!(out, " data {data_bytes}")?;
            }
            if *attr_bytes > 0 {
                write!(out, " attr {attr_bytes}")?;
            }
            if let (true, Some(c)) = (shown.inodes, logged) {
                write!(out, " daddr {daddr} length {sectors} offset {offset}")?;
                core(out, c)?;
            }
        }
        Detail::Dquot { id, daddr, length, offset, record } => {
            write!(out, " id {id} daddr {daddr} length {length} offset {offset}")?;
            if let (true, Some(q)) = (shown.quota, record) {
                quota(out, q)?;
            }
        }
        Detail::Quotaoff { flags } => write!(out, " flags {flags:#x}")?,
        Detail::Icreate { ag, agbno, count, inode_size, blocks, generation } => write!(
            out,
            " ag {ag} agbno {agbno} blocks {blocks} inodes {count} size {inode_size} generation {generation:#x}"
        )?,
        Detail::Free { id, extents } => {
            write!(out, " id {id:#x}")?;
            for e in extents {
                write!(out, " [start {} blocks {}]", e.start, e.blocks)?;
            }
        }
        Detail::Changes { id, changes: all } => write!(out, " id {id:#x}{}", changes(all))?,
        Detail::Attribute { id, ino, operation, name, new_name, value_bytes, flags: set, generation } => {
            write!(out, " id {id:#x} {operation} inode {ino}")?;
            if let Some(generation) = generation {
                write!(out, " generation {generation}")?;
            }
            write!(out, " name \"{name}\"")?;
            if let Some(new) = new_name {
                write!(out, " new name \"{new}\"")?;
            }
            write!(out, " value {value_bytes}{}", flags(set))?;
        }
        Detail::Exchange { id, ino1, ino2, startoff1, startoff2, blocks, flags: set, isize1, isize2, .. } => write!(
            out,
            " id {id:#x} inode {ino1} offset {startoff1} size {isize1} with inode {ino2} offset {startoff2} size {isize2} blocks {blocks}{}",
            flags(set)
        )?,
        Detail::Done { id } => write!(out, " id {id:#x}")?,
        Detail::Unknown {} => write!(out, " (cannot be read)")?,
        other => write!(out, " {other:?}")?,
    }
    let lengths: Vec<String> = i.regions.iter().map(usize::to_string).collect();
    writeln!(out, " regions {}", lengths.join("+"))?;
    for region in i.bytes.iter().flatten() {
        for (row, n) in region.chunks(32).zip(0u32..) {
            write!(out, "    {:04x}:", n * 32)?;
            for word in row.chunks(4) {
                out.push(' ');
                for b in word {
                    write!(out, "{b:02x}")?;
                }
            }
            out.push('\n');
        }
    }
    Ok(())
}

fn core(out: &mut String, c: &Core) -> std::fmt::Result {
    write!(
        out,
        "\n    mode 0{:o} version {} format {} uid {} gid {} nlink {}",
        c.mode, c.version, c.format, c.uid, c.gid, c.nlink
    )?;
    write!(out, " projid {} size {} nblocks {} extsize {}", c.projid, c.size, c.nblocks, c.extsize)?;
    write!(out, "\n    nextents {} anextents {} forkoff {} aformat {}", c.nextents, c.anextents, c.forkoff, c.aformat)?;
    write!(
        out,
        " flags {:#x} flags2 {:#x} cowextsize {} generation {}",
        c.flags, c.flags2, c.cowextsize, c.generation
    )?;
    write!(out, " changecount {}\n   ", c.changecount)?;
    for (name, (seconds, nanos)) in [("atime", c.atime), ("mtime", c.mtime), ("ctime", c.ctime), ("crtime", c.crtime)] {
        write!(out, " {name} {seconds}.{nanos:09}")?;
    }
    Ok(())
}

fn quota(out: &mut String, q: &Quota) -> std::fmt::Result {
    write!(
        out,
        "\n    kind {:#x} id {} bcount {} icount {} rtbcount {}",
        q.kind, q.id, q.bcount, q.icount, q.rtbcount
    )?;
    write!(out, " blk_hardlimit {} blk_softlimit {}", q.blk_hardlimit, q.blk_softlimit)?;
    write!(out, " ino_hardlimit {} ino_softlimit {}", q.ino_hardlimit, q.ino_softlimit)?;
    write!(out, " rtb_hardlimit {} rtb_softlimit {}", q.rtb_hardlimit, q.rtb_softlimit)?;
    write!(out, " itimer {} btimer {} rtbtimer {}", q.itimer, q.btimer, q.rtbtimer)
}
