//! Suboptions: which there are, what values they take, where those go.

use crate::args::Args;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Every suboption by its option's letter. A name that ends in `=` needs a value; the others stand for `=1` alone.
const KNOWN: &[(char, &[&str])] = &[
    ('b', &["size="]),
    (
        'd',
        &[
            "name=",
            "file",
            "size=",
            "agcount=",
            "agsize=",
            "su=",
            "sw=",
            "sunit=",
            "swidth=",
            "noalign",
            "sectsize=",
            "unwritten=",
            "rtinherit",
            "cowextsize=",
            "extszinherit=",
            "projinherit=",
        ],
    ),
    ('i', &["size=", "perblock=", "maxpct=", "align", "attr=", "projid32bit", "sparse", "nrext64", "exchange"]),
    ('l', &["internal", "logdev=", "size=", "agnum=", "version=", "su=", "sunit=", "sectsize=", "lazy-count="]),
    ('m', &["crc", "finobt", "inobtcount", "bigtime", "reflink", "rmapbt", "metadir", "uuid="]),
    ('n', &["size=", "version=", "ftype", "parent"]),
    ('r', &["rtdev=", "size=", "extsize=", "noalign"]),
    ('s', &["size="]),
];

/// Other names that mkfs.xfs takes for the same thing.
fn canonical(letter: char, name: &str) -> &str {
    match (letter, name) {
        ('l', "name") | ('l', "device") => "logdev",
        ('r', "name") | ('r', "device") => "rtdev",
        (_, name) => name,
    }
}

/// The suboptions given, by letter and name.
#[derive(Debug, Default)]
pub(crate) struct Given(BTreeMap<(char, String), String>);

/// What the suffixes `b` and `s` stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Units {
    block: u64,
    sector: u64,
}

impl Units {
    pub(crate) fn new(given: &Given) -> Result<Self> {
        let plain = Self { block: 4096, sector: 512 };
        let sector = given.number('s', "size", &plain)?.or(given.number('d', "sectsize", &plain)?).unwrap_or(512);
        let block = given.number('b', "size", &Self { sector, ..plain })?.unwrap_or(4096);
        Ok(Self { block, sector })
    }
}

/// A number with one of mkfs.xfs's suffixes.
pub(crate) fn number(text: &str, units: &Units) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_alphanumeric()).map_or(text, |_| "");
    let (digits, radix) = match split.strip_prefix("0x").or_else(|| split.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None => (split, 10),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let (value, suffix) = digits.split_at_checked(end)?;
    let value = u64::from_str_radix(value, radix).ok()?;
    let factor = match suffix.to_ascii_lowercase().as_str() {
        "" => 1,
        "b" => units.block,
        "s" => units.sector,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        "e" => 1 << 60,
        _ => return None,
    };
    value.checked_mul(factor)
}

impl Given {
    /// Adds a comma-separated list.
    pub(crate) fn add_list(&mut self, letter: char, list: &str) -> Result<()> {
        for part in list.split(',') {
            let (name, value) = part.split_once('=').map_or((part, None), |(n, v)| (n, Some(v)));
            self.add(letter, name.trim(), value)?;
        }
        Ok(())
    }

    /// Adds one suboption.
    pub(crate) fn add(&mut self, letter: char, name: &str, value: Option<&str>) -> Result<()> {
        let name = canonical(letter, name);
        let known = KNOWN.iter().find(|k| k.0 == letter).map_or(&[][..], |k| k.1);
        let Some(spec) = known.iter().find(|s| s.trim_end_matches('=') == name) else {
            let names: Vec<_> = known.iter().map(|s| s.trim_end_matches('=')).collect();
            bail!("-{letter} {name} is not an option; -{letter} takes {}", names.join(", "));
        };
        let value = match value {
            Some(v) if !v.is_empty() => v,
            None if !spec.ends_with('=') => "1",
            _ => bail!("-{letter} {name} needs a value"),
        };
        if self.0.insert((letter, name.to_owned()), value.to_owned()).is_some() {
            bail!("-{letter} {name} is given twice");
        }
        Ok(())
    }

    fn text(&self, letter: char, name: &str) -> Option<&str> {
        self.0.get(&(letter, name.to_owned())).map(String::as_str)
    }

    fn number(&self, letter: char, name: &str, units: &Units) -> Result<Option<u64>> {
        let Some(text) = self.text(letter, name) else { return Ok(None) };
        number(text, units).map(Some).with_context(|| {
            format!("-{letter} {name}={text} is not possible: it must be a number, with a suffix s, b, k, m, g, t, p or e, below 16 EiB")
        })
    }

    fn small<T: TryFrom<u64>>(&self, letter: char, name: &str, units: &Units) -> Result<Option<T>> {
        let Some(n) = self.number(letter, name, units)? else { return Ok(None) };
        let most = (1u64 << (8 * size_of::<T>())) - 1;
        match T::try_from(n) {
            Ok(v) => Ok(Some(v)),
            Err(_) => bail!("-{letter} {name}={n} is not possible: it must be from 0 to {most}"),
        }
    }

    fn flag(&self, letter: char, name: &str) -> Result<Option<bool>> {
        match self.text(letter, name) {
            None => Ok(None),
            Some("0") => Ok(Some(false)),
            Some("1") => Ok(Some(true)),
            Some(v) => bail!("-{letter} {name}={v} is not possible: it must be 0 or 1"),
        }
    }

    /// An option that v5 has settled: one value is allowed.
    fn fixed(&self, letter: char, name: &str, only: &str, why: &str) -> Result<()> {
        match self.text(letter, name) {
            Some(v) if v != only => {
                bail!("-{letter} {name}={v} is not possible: {why}, so only {only} is allowed")
            }
            _ => Ok(()),
        }
    }

    /// Puts everything into the library's options.
    pub(crate) fn apply(&self, units: &Units, args: &mut Args) -> Result<()> {
        self.fixed('m', "crc", "1", "a filesystem without checksums is XFS v4, which this program does not make")?;
        self.fixed('d', "unwritten", "1", "unwritten extents are part of v5")?;
        self.fixed('i', "align", "1", "inodes are aligned in v5")?;
        self.fixed('i', "attr", "2", "v5 has attributes of version 2")?;
        self.fixed('i', "projid32bit", "1", "project ids have 32 bits in v5")?;
        self.fixed('l', "version", "2", "v5 has logs of version 2")?;
        self.fixed('l', "lazy-count", "1", "v5 has lazy counters")?;
        self.fixed('n', "ftype", "1", "directory entries carry the file type in v5")?;
        let o = &mut args.options;
        o.block_size = self.small('b', "size", units)?;
        o.sector_size = self.small('s', "size", units)?;
        args.device = self.text('d', "name").map(PathBuf::from);
        args.file = self.flag('d', "file")?.unwrap_or(false);
        let d = &mut o.data;
        d.size = self.number('d', "size", units)?;
        d.agcount = self.number('d', "agcount", units)?;
        d.agsize = self.number('d', "agsize", units)?;
        d.su = self.number('d', "su", units)?;
        d.sw = self.number('d', "sw", units)?;
        d.sunit = self.number('d', "sunit", units)?;
        d.swidth = self.number('d', "swidth", units)?;
        d.noalign = self.flag('d', "noalign")?.unwrap_or(false);
        d.sector_size = self.small('d', "sectsize", units)?;
        d.rtinherit = self.flag('d', "rtinherit")?.unwrap_or(false);
        d.cowextsize = self.small('d', "cowextsize", units)?;
        d.extszinherit = self.small('d', "extszinherit", units)?;
        d.projinherit = self.small('d', "projinherit", units)?;
        let i = &mut o.inode;
        i.size = self.small('i', "size", units)?;
        i.perblock = self.small('i', "perblock", units)?;
        i.maxpct = self.small('i', "maxpct", units)?;
        i.sparse = self.flag('i', "sparse")?;
        i.nrext64 = self.flag('i', "nrext64")?;
        i.exchange = self.flag('i', "exchange")?;
        let l = &mut o.log;
        l.size = self.number('l', "size", units)?;
        l.agnum = self.small('l', "agnum", units)?;
        l.su = self.number('l', "su", units)?;
        l.sunit = self.number('l', "sunit", units)?;
        l.sector_size = self.small('l', "sectsize", units)?;
        args.log_device = self.text('l', "logdev").map(PathBuf::from);
        match (self.flag('l', "internal")?, &args.log_device) {
            (Some(true), Some(p)) => bail!("-l internal=1 is not possible: -l logdev={} says otherwise", p.display()),
            (Some(false), None) => bail!("-l internal=0 is not possible: an external log needs -l logdev"),
            _ => {}
        }
        let m = &mut o.metadata;
        m.finobt = self.flag('m', "finobt")?;
        m.inobtcount = self.flag('m', "inobtcount")?;
        m.bigtime = self.flag('m', "bigtime")?;
        m.reflink = self.flag('m', "reflink")?;
        m.rmapbt = self.flag('m', "rmapbt")?;
        m.metadir = self.flag('m', "metadir")?;
        if let Some(text) = self.text('m', "uuid") {
            m.uuid = Some(parse_uuid(text).with_context(|| {
                format!(
                    "-m uuid={text} is not possible: it must be 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12"
                )
            })?);
        }
        let n = &mut o.naming;
        n.size = self.small('n', "size", units)?;
        n.parent = self.flag('n', "parent")?;
        n.ascii_ci = match self.text('n', "version") {
            None | Some("2") => false,
            Some("ci") => true,
            Some(v) => bail!("-n version={v} is not possible: it must be 2 or ci"),
        };
        let r = &mut o.realtime;
        r.size = self.number('r', "size", units)?;
        r.extsize = self.number('r', "extsize", units)?;
        r.noalign = self.flag('r', "noalign")?.unwrap_or(false);
        args.rt_device = self.text('r', "rtdev").map(PathBuf::from);
        Ok(())
    }
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<&str> = text.split('-').collect();
    if groups.iter().map(|g| g.len()).collect::<Vec<_>>() != [8, 4, 4, 4, 12] {
        return None;
    }
    let value = u128::from_str_radix(&groups.concat(), 16).ok()?;
    let mut out = [0; 16];
    for (n, b) in out.iter_mut().enumerate() {
        *b = (value >> (120 - 8 * n)) as u8;
    }
    Some(out)
}
