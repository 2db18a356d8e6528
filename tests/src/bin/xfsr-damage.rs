//! The damage matrix: every field that xfs_db can reach, seven verbs, with a right and with a stale checksum, on the library's check
//! and on `xfs_repair -n`. An interrupted run goes on where it was.
//!
//! `xfsr-damage [--quiet-only | --fill] [--no-stale | --stale] [--workers N] [--only TEXT] [--valid] [--sample N] [--list FILE] all | IMAGE...`

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use xfsr_tests::corpus;
use xfsr_tests::damage::{self, Checksum, matrix};

/// The images of the whole matrix, and whether xfs_repair is asked of every case there.
const ALL: [(&str, bool); 13] = [
    ("default", true),
    ("rmap-1k", true),
    ("quota", false),
    ("realtime", false),
    ("ascii-ci", false),
    ("external-log", false),
    ("parent", false),
    ("b64k", false),
    ("b2k-i1k-n64k", false),
    ("uuid", false),
    ("grown", false),
    ("shrunk", false),
    ("restriped", false),
];

const USAGE: &str = "xfsr-damage [options] all | IMAGE...
  all            the whole matrix: xfs_repair is asked of every case of default and rmap-1k, elsewhere where the library finds nothing
  --quiet-only   ask xfs_repair only where the library finds nothing
  --minutes N    after N minutes ask xfs_repair only where the library finds nothing
  --fill         ask only xfs_db and xfs_repair, so that a later run costs the library's check alone
  --no-stale     without the cases whose checksum is left stale
  --stale        only those
  --workers N    copies worked on at the same time (2)
  --only TEXT    only structures whose name contains TEXT
  --valid        only the cases that set a number to another valid one
  --sample N     N cases of each image, drawn by XFSR_DAMAGE_SEED
  --list FILE    one line per case, separated by tabs: image, structure, commands, field, verb, checksum, xfs_repair, what it
                 said, whether found here, our verdict, ms, our codes";

fn main() -> Result<()> {
    let (mut ask, mut stale, mut workers) = (matrix::Ask::All, true, 2);
    let (mut only, mut list, mut images) = (String::new(), None, Vec::new());
    let (mut right, mut only_valid, mut sample) = (true, false, None);
    let seed = std::env::var("XFSR_DAMAGE_SEED").map_or(Ok(11), |s| s.parse()).context("XFSR_DAMAGE_SEED")?;
    let mut arguments = std::env::args().skip(1);
    while let Some(a) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{a} needs a value\n{USAGE}"));
        match a.as_str() {
            "--quiet-only" => ask = matrix::Ask::Quiet,
            "--minutes" => {
                let minutes: u64 = value()?.parse().context("--minutes")?;
                ask = matrix::Ask::Until(Instant::now() + Duration::from_secs(60 * minutes));
            }
            "--fill" => ask = matrix::Ask::Alone,
            "--no-stale" => stale = false,
            "--stale" => right = false,
            "--workers" => workers = value()?.parse().context("--workers")?,
            "--only" => only = value()?,
            "--valid" => only_valid = true,
            "--sample" => sample = Some(value()?.parse::<usize>().context("--sample")?),
            "--list" => list = Some(std::fs::File::create(value()?)?),
            "all" => {
                images.extend(ALL.map(|(image, each)| (image.to_owned(), if each { ask } else { matrix::Ask::Quiet })))
            }
            image if !image.starts_with('-') && corpus::all().iter().any(|r| r.name == image) => {
                images.push((image.to_owned(), ask));
            }
            other => bail!("{other}: no such option or image\n{USAGE}"),
        }
    }
    if images.is_empty() {
        bail!("{USAGE}");
    }
    println!("{}, library {}\n", matrix::versions()?, env!("CARGO_PKG_VERSION"));
    let mut missed = Vec::new();
    let (mut panics, mut slow) = (Vec::new(), 0);
    let (mut whole, mut sums) = (Vec::new(), Vec::new());
    for (image, ask) in &images {
        let Some(devices) = corpus::obtain(image) else { bail!("{image} cannot be made here") };
        let manifest = corpus::manifest(image);
        let mut places = damage::places(&devices, &manifest)?;
        let types = damage::types(&devices, &places)?;
        let none: Vec<&str> = types.iter().filter(|(_, n)| **n == 0).map(|(t, _)| t.as_str()).collect();
        println!("{image}: {} places; no place of type {}", places.len(), none.join(", "));
        places.retain(|p| p.structure.contains(&only));
        let mut cases = if right { damage::valid_cases_of(&devices, &manifest, &places)? } else { Vec::new() };
        if !only_valid {
            if right {
                cases.extend(damage::cases_of(&devices, &places)?);
            }
            if stale {
                cases.extend(damage::stale_cases_of(&devices, &places)?);
            }
        }
        if let Some(count) = sample {
            println!("{image}: {} of {} cases, drawn by seed {seed}", count.min(cases.len()), cases.len());
            cases = damage::sample(&cases, count.min(cases.len()), seed);
        }
        let (started, count) = (Instant::now(), cases.len());
        let tell = |done: usize| {
            if done.is_multiple_of(200) || done == count {
                let spent = started.elapsed();
                let left = spent.mul_f64((count - done) as f64 / done.max(1) as f64);
                eprintln!("{image}: {done} of {count} cases, {} s, about {} s left", spent.as_secs(), left.as_secs());
            }
        };
        let verdicts = matrix::run(image, &cases, *ask, workers, &tell)?;
        let rows = matrix::rows(&verdicts);
        println!("\n{}", matrix::table("structure", &rows));
        sums.extend(rows.last().map(|(_, sum)| (image.clone(), *sum)));
        for v in &verdicts {
            if v.is_missed() {
                missed.push(format!("{image}: {}", v.case));
            }
            if v.panicked {
                panics.push(format!("{image}: {}", v.case));
            }
            slow += usize::from(v.time > Duration::from_secs(2));
            if let Some(list) = &mut list {
                let stock = v.stock_damaged().map_or("-", |s| if s { "damaged" } else { "clean" });
                let checksum = if v.case.checksum == Checksum::Right { "right" } else { "stale" };
                let commands = v.case.place.commands.join("; ");
                let said = v.stock.as_ref().map(|s| s.said.join(" / ")).unwrap_or_default();
                let verb = format!("{}{}", v.case.verb, v.case.value.map(|n| format!(" {n}")).unwrap_or_default());
                let found = if v.ours { "found" } else { "not found" };
                writeln!(
                    list,
                    "{image}\t{}\t{commands}\t{}\t{verb}\t{checksum}\t{stock}\t{said}\t{found}\t{}\t{}\t{}",
                    v.case.place.structure,
                    v.case.field,
                    v.word,
                    v.time.as_millis(),
                    v.codes.join(" ")
                )?;
            }
        }
        whole.extend(verdicts);
    }
    if images.len() > 1 {
        println!("all images\n\n{}", matrix::table("structure", &matrix::rows(&whole)));
    }
    println!("{}", matrix::table("image", &sums));
    println!("{slow} checks took more than two seconds");
    for (what, cases) in [("found by xfs_repair -n alone", &missed), ("panics", &panics)] {
        if !cases.is_empty() {
            println!("{what}:");
        }
        for case in cases {
            println!("  {case}");
        }
    }
    if !missed.is_empty() || !panics.is_empty() {
        bail!("{} cases are missed, {} panic", missed.len(), panics.len());
    }
    Ok(())
}
