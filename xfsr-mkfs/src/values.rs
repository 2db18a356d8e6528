//! Suboptions: which there are, what values they take, where those go.

use crate::args::Args;
use anyhow::{Context, Result, anyhow, bail};
use libxfsr::cli::{self as size, parse_number, parse_size};
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
    ('l', &["internal", "logdev=", "size=", "agnum=", "file", "version=", "su=", "sunit=", "sectsize=", "lazy-count"]),
    ('m', &["crc", "finobt", "inobtcount", "bigtime", "reflink", "rmapbt", "metadir", "uuid="]),
    ('n', &["size=", "version=", "ftype", "parent"]),
    ('r', &["rtdev=", "file", "size=", "extsize=", "noalign"]),
    ('s', &["size="]),
];

/// Other names that mkfs.xfs takes for the same thing.
fn canonical(letter: char, name: &str) -> &str {
    match (letter, name) {
        ('l', "name") => "logdev",
        ('r', "name") => "rtdev",
        ('s', "sectsize") => "size",
        (_, name) => name,
    }
}

/// The suboptions given, by letter and name.
#[derive(Debug, Default)]
pub(crate) struct Given(BTreeMap<(char, String), String>);

/// What the suffixes `b` and `s` stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Units {
    block: Option<u32>,
    sector: Option<u32>,
}

impl Units {
    pub(crate) fn new(given: &Given) -> Result<Self> {
        let plain = Self { block: None, sector: None };
        let sector = given.small('s', "size", &plain)?.or(given.small('d', "sectsize", &plain)?).unwrap_or(512);
        let block = given.small('b', "size", &plain)?.unwrap_or(4096);
        Ok(Self { block: Some(block), sector: Some(sector) })
    }
}

/// Options that take a number of bytes, and so a suffix.
const SIZES: &[(char, &str)] = &[
    ('b', "size"),
    ('d', "size"),
    ('d', "agsize"),
    ('d', "su"),
    ('d', "sectsize"),
    ('l', "size"),
    ('l', "su"),
    ('l', "sectsize"),
    ('n', "size"),
    ('r', "size"),
    ('r', "extsize"),
    ('s', "size"),
];

/// Options that cannot be given together, whatever their values.
const EXCLUSIVE: &[(Name, Name)] = &[
    (('d', "noalign"), ('d', "su")),
    (('d', "noalign"), ('d', "sw")),
    (('d', "noalign"), ('d', "sunit")),
    (('d', "noalign"), ('d', "swidth")),
    (('d', "sectsize"), ('s', "size")),
    (('l', "internal"), ('l', "logdev")),
    (('l', "internal"), ('l', "sectsize")),
];

type Name = (char, &'static str);

impl Given {
    /// Adds a comma-separated list.
    pub(crate) fn add_list(&mut self, letter: char, list: &str) -> Result<()> {
        // One comma may end the list.
        for part in list.strip_suffix(',').unwrap_or(list).split(',') {
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
        if !SIZES.contains(&(letter, name)) {
            let n = parse_number(text).map_err(|e| anyhow!("-{letter} {name}={text} is not possible: {e}"))?;
            return Ok(Some(n));
        }
        // A block and a sector have to be known before something can be told in them.
        let units = match (letter, name) {
            ('b' | 's', _) | ('d', "sectsize") => size::Units::default(),
            _ => size::Units { block: units.block, sector: units.sector },
        };
        parse_size(text, units).map(Some).map_err(|e| anyhow!("-{letter} {name}={text} is not possible: {e}"))
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
        let Some(text) = self.text(letter, name) else { return Ok(None) };
        match parse_number(text) {
            Ok(n @ 0..=1) => Ok(Some(n == 1)),
            _ => bail!("-{letter} {name}={text} is not possible: it must be 0 or 1"),
        }
    }

    /// An option that v5 has settled: one value is allowed.
    fn fixed(&self, letter: char, name: &str, only: u64, why: &str) -> Result<()> {
        match self.text(letter, name) {
            Some(v) if parse_number(v) != Ok(only) => {
                bail!("-{letter} {name}={v} is not possible: {why}, so only {only} is allowed")
            }
            _ => Ok(()),
        }
    }

    /// Puts everything into the library's options.
    pub(crate) fn apply(&self, units: &Units, args: &mut Args) -> Result<()> {
        for ((l, a), (m, b)) in EXCLUSIVE {
            if self.text(*l, a).is_some() && self.text(*m, b).is_some() {
                bail!("-{l} {a} and -{m} {b} exclude each other; give one of them");
            }
        }
        self.fixed('m', "crc", 1, "a filesystem without checksums is XFS v4, which this program does not make")?;
        self.fixed('d', "unwritten", 1, "unwritten extents are part of v5")?;
        self.fixed('i', "align", 1, "inodes are aligned in v5")?;
        self.fixed('i', "attr", 2, "v5 has attributes of version 2")?;
        self.fixed('i', "projid32bit", 1, "project ids have 32 bits in v5")?;
        self.fixed('l', "version", 2, "v5 has logs of version 2")?;
        self.fixed('l', "lazy-count", 1, "v5 has lazy counters")?;
        self.fixed('n', "ftype", 1, "directory entries carry the file type in v5")?;
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
        if self.flag('l', "internal")? == Some(false) {
            bail!("-l internal=0 is not possible: an external log needs -l logdev");
        }
        for (name, n) in [("su", l.su), ("sunit", l.sunit)] {
            if n == Some(0) {
                bail!(
                    "-l {name}=0 is not possible: a log has a stripe unit of at least a block, or -l {name} is left out"
                );
            }
        }
        args.log_file = self.flag('l', "file")?.unwrap_or(false);
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
            None => false,
            Some(v) if v.eq_ignore_ascii_case("ci") => true,
            Some(v) if parse_number(v) == Ok(2) => false,
            Some(v) => bail!("-n version={v} is not possible: it must be 2 or ci"),
        };
        let r = &mut o.realtime;
        r.size = self.number('r', "size", units)?;
        r.extsize = self.number('r', "extsize", units)?;
        r.noalign = self.flag('r', "noalign")?.unwrap_or(false);
        args.rt_file = self.flag('r', "file")?.unwrap_or(false);
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
