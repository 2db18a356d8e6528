//! The log as a list: transactions and items as xfs_logprint prints them, and damaged logs as far as they go.

use std::ops::ControlFlow;
use std::sync::Arc;

use libxfsr::control::Control;
use libxfsr::format::log::items::{BmapFlags, InodeFields, RmapFlags};
use libxfsr::journal;
use libxfsr::journal::listing::{
    self, Change, CrcState, Detail, Entry, ItemEntry, Options, Place, State, Totals, View,
};
use libxfsr::target::{Access, FileTarget, Overlay, Target};
use libxfsr::volume::{self, Volume};
use rand::{Rng as _, SeedableRng as _};
use xfsr_tests::corpus::{self, End, Recipe};
use xfsr_tests::oracle::{self, Devices};

fn open(devices: &Devices) -> Volume {
    let devices =
        volume::Devices { data: devices.data.clone(), log: devices.log.clone(), realtime: devices.rt.clone() };
    Volume::open(&devices).unwrap()
}

fn list(volume: &Volume, view: View) -> (Vec<Entry>, Totals) {
    let mut all = Vec::new();
    let options = Options { view, ..Options::default() };
    let totals = listing::list(volume, &options, &Control::none(), &mut |e| {
        all.push(e);
        ControlFlow::Continue(())
    })
    .unwrap();
    (all, totals)
}

fn dirty(wanted: impl Fn(&Recipe) -> bool) -> impl Iterator<Item = (&'static str, Devices)> {
    let all = corpus::selected().filter(move |r| r.end == End::Dirty && wanted(r));
    all.filter_map(|r| Some((r.name, corpus::obtain(r.name)?)))
}

/// An item as both programs can tell it: type, lengths of the regions, and what its fields say.
type Told = (String, Vec<usize>, String);

/// A transaction: its number, its regions, its items.
type Transaction = (u32, usize, Vec<Told>);

/// Runs xfs_logprint and cuts what it says of transactions: number, regions, items.
fn theirs(devices: &Devices) -> (Vec<Transaction>, String, bool) {
    let mut args: Vec<std::ffi::OsString> = vec!["-t".into(), "-i".into(), "-q".into()];
    if let Some(log) = &devices.log {
        args.extend(["-l".into(), log.into()]);
    }
    args.push(devices.data.clone().into());
    let out = std::process::Command::new("xfs_logprint").args(&args).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut all: Vec<Transaction> = Vec::new();
    let mut state = String::new();
    for line in text.lines() {
        let pairs = numbers(line);
        let value = |k: &str| pairs.iter().find(|p| p.0 == k).map(|p| p.1);
        if line.contains("log tail:") {
            state = line.trim().to_owned();
        } else if line.starts_with("TRANS:") {
            let tid = u32::try_from(value("tid").unwrap()).unwrap();
            all.push((tid, usize::try_from(value("#items").unwrap()).unwrap(), Vec::new()));
        } else if let (Some((name, _)), Some(_), true) = (line.split_once(':'), value("cnt"), line.contains(" total:"))
        {
            let lengths = pairs.iter().filter(|p| p.0 == "len").map(|p| p.1 as usize).collect();
            // It does not know the newest items.
            let name = match name.trim() {
                "" => "?",
                "INO" => "inode",
                "ICR" => "icreate",
                "DQ" => "dquot",
                name => name,
            };
            all.last_mut().unwrap().2.push((name.to_ascii_lowercase(), lengths, String::new()));
        } else if let Some((name, _, fields)) = all.last_mut().and_then(|t| t.2.last_mut()) {
            tell(name, fields, line, &pairs);
        }
    }
    // Items that it does not know may be its end; then what it printed last is cut off.
    let whole = out.status.success();
    if !whole {
        all.pop();
    }
    (all, state, whole)
}

/// All `key:number` and `key: number` of a line, which may be hexadecimal.
fn numbers(line: &str) -> Vec<(String, u64)> {
    let spaced = line.replace(':', ": ").replace(['(', ')', ','], " ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let number = |w: &str| match w.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => w.parse::<i64>().ok().map(i64::cast_unsigned).or_else(|| w.parse().ok()),
    };
    let pairs = words.windows(2).filter_map(|w| Some((w[0].strip_suffix(':')?.to_owned(), number(w[1])?)));
    pairs.collect()
}

/// A number. xfs_logprint shows many with a sign.
fn shown(v: u64) -> String {
    let v = if v >> 32 == u64::from(u32::MAX) { v & u64::from(u32::MAX) } else { v };
    format!("{v:x} ")
}

/// Adds what a line of xfs_logprint says of an item.
fn tell(name: &str, fields: &mut String, line: &str, pairs: &[(String, u64)]) {
    let wanted: &[&str] = match name {
        "buf" if line.contains("start blkno") => &["blkno", "len", "size", "flags"],
        "inode" if line.contains("INODE:") => &["ino", "flags", "dsize"],
        "inode" if line.contains("mode:") => &["mode", "format"],
        "inode" if line.contains("nlink:") => &["uid", "gid", "nlink", "projid"],
        "inode" if line.contains("nblks:") => &["size", "nblks"],
        "inode" if line.contains("forkoff:") => &["forkoff", "flags", "gen"],
        "efi" | "efd" | "rui" | "rud" | "cui" | "cud" | "bui" | "bud" | "attri" | "attrd" => {
            &["id", "s", "l", "own", "off", "f", "value_len"]
        }
        "icreate" => &["#ag", "agbno", "len", "cnt", "isize", "gen"],
        "dquot" if line.contains("DQUOT:") => &["blkno", "boffset", "id"],
        _ => return,
    };
    if matches!(name, "attri") && !line.contains("id:") {
        return;
    }
    for (_, v) in pairs.iter().filter(|p| wanted.contains(&p.0.as_str())) {
        fields.push_str(&shown(*v));
    }
}

/// The same of an item of ours.
fn ours(item: &ItemEntry) -> Told {
    let hex = |all: &[u64]| all.iter().map(|v| shown(*v)).collect::<String>();
    let fields = match &item.detail {
        Detail::Buffer { daddr, sectors, holds, flags, chunks } => {
            let types = (0..32).find(|t| listing::buffer_name(*t) == *holds).unwrap_or(0);
            let bits = [("inode_buf", 1), ("cancel", 2), ("udquot", 4), ("pdquot", 8), ("gdquot", 16)];
            let low: u64 = bits.iter().filter(|b| flags.iter().any(|f| f == b.0)).map(|b| b.1).sum();
            // What is logged fits the regions behind the first.
            let logged: usize = item.regions.iter().skip(1).sum();
            assert_eq!(listing::chunk_bytes(chunks), logged, "{item:?}");
            let words = (item.regions[0] - 20) / 4;
            hex(&[daddr.cast_unsigned(), u64::from(*sectors), words as u64, u64::from(types) << 11 | low])
        }
        Detail::Inode { ino, fields, data_bytes, core, .. } => {
            let all = InodeFields::all().iter_names();
            let bits: u32 =
                all.filter(|(n, _)| fields.iter().any(|f| f.eq_ignore_ascii_case(n))).map(|(_, b)| b.bits()).sum();
            let c = core.as_ref().expect("a core");
            hex(&[
                *ino,
                bits.into(),
                (*data_bytes).into(),
                c.mode.into(),
                c.format.into(),
                c.uid.into(),
                c.gid.into(),
                c.nlink.into(),
            ]) + &hex(&[c.projid.into(), c.size, c.nblocks, c.forkoff.into(), c.flags.into(), c.generation.into()])
        }
        Detail::Dquot { id, daddr, offset, .. } => hex(&[daddr.cast_unsigned(), (*offset).into(), (*id).into()]),
        Detail::Icreate { ag, agbno, count, inode_size, blocks, generation } => {
            hex(&[*ag, *agbno, *blocks, *count, *inode_size, *generation].map(u64::from))
        }
        Detail::Free { id, extents } => {
            let extents = if item.kind == "efi" { &extents[..] } else { &[] };
            hex(&[*id]) + &extents.iter().map(|e| hex(&[e.start, e.blocks.into()])).collect::<String>()
        }
        Detail::Changes { id, changes } => {
            hex(&[*id]) + &changes.iter().map(|c| hex(&change(item.kind, c))).collect::<String>()
        }
        Detail::Done { id } => hex(&[*id]),
        Detail::Attribute { id, value_bytes, .. } => hex(&[u64::from(*value_bytes), *id]),
        _ => String::new(),
    };
    (item.kind.to_owned(), item.regions.clone(), fields)
}

fn change(kind: &str, c: &Change) -> Vec<u64> {
    let operations: &[&str] = match kind {
        "rui" => &["map", "mapshared", "unmap", "unmapshared", "convert", "convertshared", "alloc", "free"],
        "bui" => &["map", "unmap"],
        _ => &["increase", "decrease", "alloccow", "freecow"],
    };
    let mut bits = operations.iter().position(|o| *o == c.operation).expect("a known operation") as u64 + 1;
    for flag in &c.flags {
        let bit = match kind {
            "rui" => RmapFlags::from_name(&flag.to_ascii_uppercase()).map(|f| f.bits()),
            _ => BmapFlags::from_name(&flag.to_ascii_uppercase()).map(|f| f.bits()),
        };
        bits |= u64::from(bit.expect("a known flag"));
    }
    let mut all = vec![c.start, c.blocks.into()];
    all.extend(c.owner.map(i64::cast_unsigned));
    all.extend(c.offset);
    all.push(bits);
    all
}

#[test]
fn transactions_and_items_are_those_that_xfs_logprint_prints() {
    if oracle::require(&["xfs_logprint"]).is_none() {
        return;
    }
    for (name, devices) in dirty(|_| true) {
        let (entries, totals) = list(&open(&devices), View::Recovery);
        let (printed, state, whole) = theirs(&devices);
        let mut all: Vec<Transaction> = Vec::new();
        for e in &entries {
            match e {
                Entry::Log(l) => {
                    let (tail, head) = (l.tail.unwrap().block(), l.head.unwrap().block());
                    assert_eq!((l.state, l.written), (State::Dirty, l.head), "{name}");
                    assert_eq!(state, format!("log tail: {tail} head: {head} state: <DIRTY>"), "{name}");
                }
                Entry::Transaction(t) => all.push((t.tid, t.regions, Vec::new())),
                Entry::Item(i) => all.last_mut().unwrap().2.push(ours(i)),
                Entry::Record(r) => {
                    assert_eq!(
                        (r.whole, r.place, r.crc_state),
                        (true, Place::Active, CrcState::Right),
                        "{name}: {r:?}"
                    );
                }
                _ => {}
            }
        }
        assert_eq!((totals.findings, totals.warnings, totals.torn), (0, 0, 0), "{name}");
        let counted: u64 = totals.items.values().sum();
        assert!(counted > 1000 && totals.transactions == all.len() as u64, "{name}: {totals:?}");
        if whole {
            assert_eq!(all.len(), printed.len(), "{name}");
        } else {
            // xfs_logprint 6.1 was seen to crash on logs with exchanges, and on no other.
            let exchanges = entries.iter().any(|e| matches!(e, Entry::Item(i) if ours(i).0 == "xmi"));
            assert!(exchanges && all.len() > printed.len() && printed.len() > 20, "{name}: {} printed", printed.len());
        }
        let mut compared = 0;
        for (a, b) in all.iter().zip(&printed) {
            assert_eq!((a.0, a.1, a.2.len()), (b.0, b.1, b.2.len()), "{name}");
            for (mine, other) in a.2.iter().zip(&b.2) {
                assert_eq!(mine.1, other.1, "{name}: {mine:?} {other:?}");
                if other.0 == "?" {
                    assert!(matches!(mine.0.as_str(), "xmi" | "xmd"), "{name}: {mine:?}");
                } else {
                    assert_eq!((&mine.0, &mine.2), (&other.0, &other.2), "{name}");
                    compared += 1;
                }
            }
        }
        println!("{name}: {compared} items, {totals:?}");
        // What replay counts is counted here too.
        let summary = journal::read(&open(&devices), &Control::none()).unwrap();
        assert_eq!(
            (summary.records, summary.operations, summary.transactions, summary.unfinished, summary.pending),
            (totals.records, totals.operations, totals.transactions, totals.unfinished, totals.pending),
            "{name}"
        );
        let pending = entries.iter().filter(|e| matches!(e, Entry::Pending(_))).count();
        assert_eq!(pending as u64, totals.pending, "{name}");
    }
}

#[test]
fn the_whole_log_has_what_recovery_sees_and_more() {
    for (name, devices) in dirty(|r| ["dirty", "dirty-stripes"].contains(&r.name)) {
        let volume = open(&devices);
        let (part, _) = list(&volume, View::Recovery);
        let (whole, totals) = list(&volume, View::Blocks { from: 0 });
        let records = |all: &[Entry], active: bool| {
            let found = all.iter().filter_map(|e| if let Entry::Record(r) = e { Some(r) } else { None });
            let mut lsns: Vec<_> = found.filter(|r| !active || r.place == Place::Active).map(|r| r.lsn).collect();
            lsns.sort_unstable();
            lsns
        };
        assert_eq!(records(&part, true), records(&whole, true), "{name}");
        assert!(
            records(&whole, false).len() > records(&part, false).len() && totals.findings == 0,
            "{name}: {totals:?}"
        );
        // From a record on, and from a block that does not exist.
        let from = records(&part, true)[5].block();
        let (rest, _) = list(&volume, View::Blocks { from: from.into() });
        let first = rest.iter().find_map(|e| if let Entry::Record(r) = e { Some(r.lsn.block()) } else { None });
        assert_eq!(first, Some(from), "{name}");
        let options = Options { view: View::Blocks { from: 1 << 40 }, ..Options::default() };
        let error = listing::list(&volume, &options, &Control::none(), &mut |_| ControlFlow::Continue(()));
        assert!(matches!(error, Err(libxfsr::Error::Invalid(_))), "{name}: {error:?}");
    }
}

#[test]
fn a_clean_log_is_its_unmount_record() {
    let Some(devices) = corpus::obtain("default") else { return };
    let (entries, totals) = list(&open(&devices), View::Recovery);
    assert!(matches!(&entries[0], Entry::Log(l) if l.state == State::Clean), "{entries:?}");
    assert_eq!((totals.records, totals.operations, totals.transactions), (1, 1, 0));
    assert!(matches!(&entries[2], Entry::Operation(o) if o.flags == ["unmount"] && o.client == "log"), "{entries:?}");
}

/// A view of an image that changes only in memory.
fn scratch(devices: &Devices) -> (Volume, Arc<dyn Target>) {
    let lower = Arc::new(FileTarget::open(&devices.data, Access::Read).unwrap());
    let data: Arc<dyn Target> = Arc::new(Overlay::new(lower).unwrap());
    (Volume::from_targets(data.clone(), None, None, volume::DEFAULT_CACHE).unwrap(), data)
}

#[test]
fn a_damaged_log_is_listed_as_far_as_it_goes() {
    let Some(devices) = corpus::obtain("dirty") else { return };
    let (volume, target) = scratch(&devices);
    let (before, sound) = list(&volume, View::Recovery);
    let lsns: Vec<_> =
        before.iter().filter_map(|e| if let Entry::Record(r) = e { Some(r.lsn) } else { None }).collect();
    let start = volume.geometry.fsblock_to_daddr(volume.geometry.log_start).unwrap().bytes();
    // A byte of a record in the middle: that record is told, and all others are listed.
    let at = start + u64::from(lsns[lsns.len() / 2].block()) * 512 + 900;
    let mut byte = [0];
    target.read_at(&mut byte, at).unwrap();
    target.write_at(&[byte[0] ^ 1], at).unwrap();
    let (entries, totals) = list(&volume, View::Recovery);
    assert_eq!((totals.records, totals.findings), (sound.records, 1), "{totals:?}");
    assert!(totals.transactions < sound.transactions && totals.transactions + 10 > sound.transactions, "{totals:?}");
    let wrong = entries.iter().filter(|e| matches!(e, Entry::Record(r) if !r.whole && r.crc_state == CrcState::Wrong));
    assert_eq!(wrong.count(), 1);
    target.write_at(&byte, at).unwrap();
    // The newest record half written: a warning, as recovery leaves it out.
    let at = start + u64::from(lsns[lsns.len() - 1].block()) * 512 + 700;
    target.read_at(&mut byte, at).unwrap();
    target.write_at(&[byte[0] ^ 1], at).unwrap();
    let (entries, totals) = list(&volume, View::Recovery);
    assert_eq!((totals.records, totals.findings, totals.warnings, totals.torn), (sound.records, 0, 1, 1), "{totals:?}");
    assert!(matches!(&entries[0], Entry::Log(l) if l.state == State::Dirty && l.head != l.written), "{:?}", entries[0]);
    target.write_at(&byte, at).unwrap();
    // A header's magic: the blocks without a record are told.
    let at = start + u64::from(lsns[3].block()) * 512;
    target.write_at(&[0, 0, 0, 1], at).unwrap();
    let (entries, totals) = list(&volume, View::Recovery);
    assert_eq!((totals.records, totals.findings), (sound.records - 1, 1), "{totals:?}");
    assert!(entries.iter().any(|e| matches!(e, Entry::Gap(g) if g.block == u64::from(lsns[3].block()))));
}

#[test]
fn a_log_of_a_big_endian_machine_is_listed_without_its_items() {
    let Some(devices) = corpus::obtain("dirty") else { return };
    let (volume, target) = scratch(&devices);
    let (before, sound) = list(&volume, View::Recovery);
    let start = volume.geometry.fsblock_to_daddr(volume.geometry.log_start).unwrap().bytes();
    for e in &before {
        if let Entry::Record(r) = e {
            let at = start + u64::from(r.lsn.block()) * 512;
            let mut block = vec![0; 512 + r.length as usize];
            target.read_at(&mut block, at).unwrap();
            let (header, data) = block.split_at_mut(512);
            header[303] = 2;
            libxfsr::format::log::seal_record(header, data);
            target.write_at(&block, at).unwrap();
        }
    }
    let (entries, totals) = list(&volume, View::Blocks { from: 0 });
    let foreign = entries.iter().filter(|e| matches!(e, Entry::Record(r) if r.format == 2 && r.whole));
    assert_eq!(foreign.count() as u64, sound.records);
    assert!(totals.operations >= sound.operations && totals.findings + totals.warnings >= sound.records, "{totals:?}");
    let (_, totals) = list(&volume, View::Recovery);
    assert!(totals.transactions == 0 && totals.findings > 0 && totals.pending == 0, "{totals:?}");
}

#[test]
fn noise_in_a_log_is_no_panic_and_no_endless_list() {
    let Some(devices) = corpus::obtain("dirty") else { return };
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let mut findings = 0;
    for round in 0..40 {
        let (volume, target) = scratch(&devices);
        let start = volume.geometry.fsblock_to_daddr(volume.geometry.log_start).unwrap().bytes();
        let length = u64::from(volume.geometry.log_blocks) * u64::from(volume.geometry.block_size);
        let (_, sound) = list(&volume, View::Recovery);
        for _ in 0..1 << (round % 10) {
            // Where the records are; whole blocks, words of headers, single bytes.
            let block = rng.random_range(0..16_000) * 512;
            let (at, size) = match round % 4 {
                0 => (block, 512),
                1 => (block, 4),
                2 => (block + 4 * rng.random_range(0..82), 4),
                _ => (block + rng.random_range(0..512), 1),
            };
            let mut bytes = vec![0; size];
            rng.fill(&mut bytes[..]);
            target.write_at(&bytes, start + at % length).unwrap();
        }
        if round % 8 == 7 {
            // Records copied over each other.
            let mut bytes = vec![0; 64 << 10];
            target.read_at(&mut bytes, start + 512 * rng.random_range(0..10_000)).unwrap();
            target.write_at(&bytes, start + 512 * rng.random_range(0..10_000)).unwrap();
        }
        for view in [View::Recovery, View::Blocks { from: 0 }] {
            let (entries, totals) = list(&volume, view);
            findings += totals.findings + totals.warnings;
            assert!(entries.len() as u64 <= 400_000, "{round}: {totals:?}");
            if view == View::Recovery {
                assert!(totals.transactions <= 2 * sound.transactions + 1, "{round}: {totals:?}");
            }
            for e in &entries {
                assert!(serde_json::to_string(e).is_ok());
            }
        }
    }
    assert!(findings > 100, "{findings}");
}

#[test]
fn who_has_heard_enough_ends_the_list() {
    let Some(devices) = corpus::obtain("dirty") else { return };
    let volume = open(&devices);
    let mut left = 100;
    let totals = listing::list(&volume, &Options::default(), &Control::none(), &mut |_| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert!(left == 0 && totals.operations < 100);
    let stop = || true;
    let stopped = Control { stop: &stop, ..Control::none() };
    let error = listing::list(&volume, &Options::default(), &stopped, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(error, Err(libxfsr::Error::Stopped)), "{error:?}");
}
