//! Fields of a structure as lines: a path (`core.size`, `u3.bmx`) and what stands there. Tables of [`Def`] describe the fixed parts.

use libxfsr::units::FileBlock;
use std::fmt::Write as _;

use crate::location::Type;

/// Where a field leads, for `addr`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Link {
    /// Nowhere.
    #[default]
    None,
    /// A block of the AG.
    AgBlock(u64, Type),
    /// A block of the filesystem.
    FsBlock(u64, Type),
    /// An inode.
    Ino(u64),
    /// An inode of the AG.
    AgIno(u64),
    /// A block of the current inode's data fork.
    Data(FileBlock),
    /// A block of the current inode's attribute fork.
    Attr(FileBlock),
}

/// What the bits of a field are, to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// A big-endian number.
    Number,
    /// Bytes.
    Chars,
    /// A UUID.
    Uuid,
    /// A time that counts nanoseconds: its seconds, or what is left of one.
    BigTime { seconds: bool },
}

/// Where a field stands in its structure, in bits from the first, the highest of each byte first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) bit: usize,
    pub(crate) bits: usize,
    pub(crate) form: Form,
}

/// One number or string, ready to be shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) link: Link,
    pub(crate) null: bool,
    /// Where it stands; none where it is computed.
    pub(crate) span: Option<Span>,
}

impl Scalar {
    /// A number of `n` bytes at `at`.
    pub(crate) fn at(self, at: usize, n: usize) -> Self {
        self.of_bits(at * 8, n * 8)
    }
    /// A number of so many bits.
    pub(crate) fn of_bits(self, bit: usize, bits: usize) -> Self {
        self.spanning(bit, bits, Form::Number)
    }
    pub(crate) fn spanning(self, bit: usize, bits: usize, form: Form) -> Self {
        Self { span: Some(Span { bit, bits, form }), ..self }
    }
    /// Bytes that are a part of a structure.
    pub(crate) fn chars_in(self, whole: &[u8], part: &[u8]) -> Self {
        match place(whole, part) {
            Some(at) => self.spanning(at * 8, part.len() * 8, Form::Chars),
            None => self,
        }
    }
    /// As a part of a structure in which it stands so many bytes further behind.
    pub(crate) fn moved(mut self, bytes: usize) -> Self {
        if let Some(s) = &mut self.span {
            s.bit += bytes * 8;
        }
        self
    }
}

/// Where a slice begins in another that it was taken from.
pub(crate) fn place(whole: &[u8], part: &[u8]) -> Option<usize> {
    let at = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    (at + part.len() <= whole.len()).then_some(at)
}

/// What stands at a path.
#[derive(Clone, Debug)]
pub(crate) enum Leaf {
    /// One value.
    One(Scalar),
    /// Values side by side; `skip` leaves out those that are null.
    List { first: usize, items: Vec<Scalar>, skip: bool },
    /// Rows of values.
    Table { first: usize, columns: &'static [&'static str], rows: Vec<Vec<Scalar>> },
    /// A part that holds nothing.
    Empty,
}

/// A path and what stands there.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) path: String,
    pub(crate) leaf: Leaf,
}

/// How a field's bytes are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Show {
    /// Unsigned number of so many bytes.
    Dec(usize),
    /// Hexadecimal.
    Hex(usize),
    /// Octal.
    Oct(usize),
    /// A UUID.
    Uuid,
    /// The block's checksum, and whether it is right.
    Crc,
    /// Characters.
    Chars(usize),
    /// A block of the AG.
    AgBlock(Type),
    /// An inode of the filesystem; all ones is `null`.
    Ino,
    /// An inode of the AG; all ones is `null`.
    AgIno,
    /// A block of the filesystem; all ones is `null`.
    FsBlock(Type),
    /// Bits of a big-endian number of so many bytes, from a bit counted from the lowest.
    Bits(usize, u32, u32),
    /// Number of an inode's format, with its name.
    Format,
}

/// A field: its name, its offset, how it is shown.
pub(crate) type Def = (&'static str, usize, Show);

/// Big-endian number of `n` bytes.
pub(crate) fn number(bytes: &[u8], at: usize, n: usize) -> Option<u64> {
    let end = at.checked_add(n)?;
    Some(bytes.get(at..end)?.iter().fold(0, |v, b| v << 8 | u64::from(*b)))
}

fn ones(n: usize) -> u64 {
    u64::MAX >> (64 - 8 * n.clamp(1, 8))
}

/// Hexadecimal; zero stands alone.
pub(crate) fn hex(v: u64) -> Scalar {
    plain(if v == 0 { "0".to_owned() } else { format!("{v:#x}") })
}

/// A number.
pub(crate) fn dec(v: u64) -> Scalar {
    plain(v.to_string())
}

/// A ready text.
pub(crate) fn plain(text: String) -> Scalar {
    Scalar { text, ..Scalar::default() }
}

/// A number that leads somewhere; `null` for all ones of `n` bytes.
pub(crate) fn link(v: u64, n: usize, link: Link) -> Scalar {
    if v == ones(n) {
        Scalar { text: "null".into(), null: true, ..Scalar::default() }
    } else {
        Scalar { link, ..dec(v) }
    }
}

/// Characters between quotes; what is no printable ASCII stands escaped, so that it cannot steer a terminal.
pub(crate) fn chars(bytes: &[u8]) -> Scalar {
    let mut out = String::from("\"");
    for &b in bytes {
        match b {
            b'"' | b'\\' | b'\'' | b'?' => {
                out.push('\\');
                out.push(char::from(b));
            }
            // Observed: xfs_db 6.1 letters these seven in order, not as C does.
            7..=13 => {
                out.push('\\');
                out.push(char::from(b'a' + (b - 7)));
            }
            0x20..=0x7e => out.push(char::from(b)),
            _ => {
                let _ = write!(out, "\\{b:03o}");
            }
        }
    }
    out.push('"');
    plain(out)
}

/// A UUID.
pub(crate) fn uuid(b: &[u8]) -> Scalar {
    let mut out = String::new();
    for (i, b) in b.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let _ = write!(out, "{b:02x}");
    }
    plain(out)
}

/// A checksum at `at` of `bytes`.
pub(crate) fn crc(bytes: &[u8], at: usize) -> Scalar {
    let (stored, right) = (libxfsr::format::stored_checksum(bytes, at), libxfsr::format::checksum(bytes, at));
    let verdict = if stored == right { "correct" } else { "bad" };
    // Stored little-endian, but xfs_db shows the bytes in the order in which they lie.
    plain(format!("{} ({verdict})", hex(u64::from(stored.swap_bytes())).text))
}

impl Show {
    /// Bits of a field at `at`, and what they are.
    fn span(self, at: usize) -> Span {
        let (bytes, form) = match self {
            Self::Dec(n) | Self::Hex(n) | Self::Oct(n) => (n, Form::Number),
            Self::Uuid => (16, Form::Uuid),
            Self::Chars(n) => (n, Form::Chars),
            Self::Crc | Self::AgBlock(_) | Self::AgIno => (4, Form::Number),
            Self::Ino | Self::FsBlock(_) => (8, Form::Number),
            Self::Format => (1, Form::Number),
            Self::Bits(n, shift, width) => {
                let bit = (at + n) * 8 - (shift + width) as usize;
                return Span { bit, bits: width as usize, form: Form::Number };
            }
        };
        Span { bit: at * 8, bits: bytes * 8, form }
    }

    fn scalar(self, bytes: &[u8], at: usize) -> Option<Scalar> {
        let shown = match self {
            Self::Dec(n) => dec(number(bytes, at, n)?),
            Self::Hex(n) => hex(number(bytes, at, n)?),
            Self::Oct(n) => plain(match number(bytes, at, n)? {
                0 => "0".into(),
                v => format!("0{v:o}"),
            }),
            Self::Uuid => uuid(bytes.get(at..at.checked_add(16)?)?),
            Self::Crc => {
                bytes.get(at..at.checked_add(4)?)?;
                crc(bytes, at)
            }
            Self::Chars(n) => chars(bytes.get(at..at.checked_add(n)?)?),
            Self::AgBlock(t) => {
                let v = number(bytes, at, 4)?;
                link(v, 4, Link::AgBlock(v, t))
            }
            Self::Ino => {
                let v = number(bytes, at, 8)?;
                link(v, 8, Link::Ino(v))
            }
            Self::AgIno => {
                let v = number(bytes, at, 4)?;
                link(v, 4, Link::AgIno(v))
            }
            Self::FsBlock(t) => {
                let v = number(bytes, at, 8)?;
                link(v, 8, Link::FsBlock(v, t))
            }
            Self::Bits(n, shift, width) => dec(number(bytes, at, n)? >> shift & ((1 << width) - 1)),
            Self::Format => {
                let v = number(bytes, at, 1)?;
                let names = ["dev", "local", "extents", "btree", "uuid", "rmap"];
                match usize::try_from(v).ok().and_then(|i| names.get(i)) {
                    Some(n) => plain(format!("{v} ({n})")),
                    None => dec(v),
                }
            }
        };
        Some(Scalar { span: Some(self.span(at)), ..shown })
    }
}

/// Collects the lines of a structure.
#[derive(Debug, Default)]
pub(crate) struct Lines(pub(crate) Vec<Line>);

impl Lines {
    /// A value.
    pub(crate) fn one(&mut self, path: impl Into<String>, s: Scalar) {
        self.0.push(Line { path: path.into(), leaf: Leaf::One(s) });
    }
    /// The fields of a table; those that lie outside the bytes are left out.
    pub(crate) fn table(&mut self, prefix: &str, bytes: &[u8], defs: &[Def]) {
        for (name, at, show) in defs {
            if let Some(s) = show.scalar(bytes, *at) {
                self.one(format!("{prefix}{name}"), s);
            }
        }
    }
    /// Values side by side.
    pub(crate) fn list(&mut self, path: &str, first: usize, items: Vec<Scalar>, skip: bool) {
        if !items.is_empty() {
            self.0.push(Line { path: path.into(), leaf: Leaf::List { first, items, skip } });
        }
    }
    /// Rows.
    pub(crate) fn rows(&mut self, path: &str, first: usize, columns: &'static [&'static str], rows: Vec<Vec<Scalar>>) {
        if !rows.is_empty() {
            self.0.push(Line { path: path.into(), leaf: Leaf::Table { first, columns, rows } });
        }
    }
    /// Says that the lines from there on were made of a part of the structure which begins so many bytes behind its start.
    pub(crate) fn move_from(&mut self, line: usize, bytes: usize) {
        let cells = self.0.iter_mut().skip(line).flat_map(|l| match &mut l.leaf {
            Leaf::One(s) => std::slice::from_mut(s).iter_mut().collect(),
            Leaf::List { items, .. } => items.iter_mut().collect(),
            Leaf::Table { rows, .. } => rows.iter_mut().flatten().collect(),
            Leaf::Empty => Vec::new(),
        });
        cells.for_each(|s| *s = std::mem::take(s).moved(bytes));
    }
    /// A part that holds nothing.
    pub(crate) fn empty(&mut self, path: &str) {
        self.0.push(Line { path: path.into(), leaf: Leaf::Empty });
    }
}

fn span(first: usize, n: usize) -> String {
    if n == 1 { format!("[{first}]") } else { format!("[{first}-{}]", first + n.saturating_sub(1)) }
}

impl Line {
    /// As `print` shows it; ends with a line end.
    pub(crate) fn render(&self, out: &mut String) {
        let path = &self.path;
        let _ = match &self.leaf {
            Leaf::One(s) => writeln!(out, "{path} = {}", s.text),
            Leaf::Empty => writeln!(out, "{path} = (empty)"),
            Leaf::List { first, items, .. } if items.len() == 1 => {
                writeln!(out, "{path}[{first}] = {}", items.first().map_or("", |s| s.text.as_str()))
            }
            Leaf::List { first, items, skip } => {
                let shown: Vec<String> = items
                    .iter()
                    .enumerate()
                    .filter(|(_, s)| !(*skip && s.null))
                    .map(|(i, s)| format!("{}:{}", first + i, s.text))
                    .collect();
                writeln!(out, "{path}{} = {}", span(*first, items.len()), shown.join(" "))
            }
            Leaf::Table { first, columns, rows } => {
                let shown: Vec<String> = rows
                    .iter()
                    .enumerate()
                    .map(|(i, r)| {
                        let cells: Vec<&str> = r.iter().map(|s| s.text.as_str()).collect();
                        format!("{}:[{}]", first + i, cells.join(","))
                    })
                    .collect();
                let (head, body) = (columns.join(","), shown.join(" \n"));
                writeln!(out, "{path}{} = [{head}] \n{body}", span(*first, rows.len()))
            }
        };
    }
}

/// A name, and the first and last index behind it.
type Component<'a> = (&'a str, Option<(usize, usize)>);

/// A name with an optional index range: `list[0-3]`.
fn component(part: &str) -> Result<Component<'_>, String> {
    let Some((name, rest)) = part.split_once('[') else { return Ok((part, None)) };
    let bad = || format!("bad syntax in field name {part}");
    let range = rest.strip_suffix(']').ok_or_else(bad)?;
    let (a, b) = range.split_once('-').unwrap_or((range, range));
    let number = |s: &str| s.trim().parse::<usize>().map_err(|_| bad());
    let (a, b) = (number(a)?, number(b)?);
    if b < a || b - a > 1 << 20 { Err(bad()) } else { Ok((name, Some((a, b)))) }
}

/// The lines that a field expression such as `u3.bmx[0-1].startblock` names.
pub(crate) fn select(lines: &[Line], expression: &str) -> Result<Vec<Line>, String> {
    let parts: Vec<_> = expression.split('.').map(component).collect::<Result<_, _>>()?;
    let mut prefixes = vec![String::new()];
    for (depth, (name, range)) in parts.iter().enumerate() {
        let with_name: Vec<String> =
            prefixes.iter().map(|p| if p.is_empty() { (*name).to_owned() } else { format!("{p}.{name}") }).collect();
        // A list or a table takes the rest of the expression itself.
        if let Some(line) = lines.iter().find(|l| with_name.first() == Some(&l.path)) {
            return within(line, *range, parts.get(depth + 1..).unwrap_or(&[]));
        }
        prefixes = match range {
            None => with_name.clone(),
            Some((a, b)) => with_name.iter().flat_map(|p| (*a..=*b).map(move |i| format!("{p}[{i}]"))).collect(),
        };
        let known = |p: &String| {
            lines.iter().any(|l| l.path.strip_prefix(p.as_str()).is_some_and(|r| r.starts_with(['.', '['])))
        };
        if !prefixes.iter().any(known) {
            return Err(match range {
                Some((a, _)) if with_name.iter().any(known) => format!("index {a} for field {name} out of range"),
                _ => format!("field {name} not found"),
            });
        }
    }
    let chosen =
        |l: &&Line| prefixes.iter().any(|p| l.path.strip_prefix(p.as_str()).is_some_and(|r| r.starts_with(['.', '['])));
    Ok(lines.iter().filter(chosen).cloned().collect())
}

fn within(
    line: &Line,
    range: Option<(usize, usize)>,
    rest: &[(&str, Option<(usize, usize)>)],
) -> Result<Vec<Line>, String> {
    let unknown = |name: &str| format!("field {name} not found");
    let (first, count) = match &line.leaf {
        Leaf::List { first, items, .. } => (*first, items.len()),
        Leaf::Table { first, rows, .. } => (*first, rows.len()),
        _ => {
            return match (range, rest.first()) {
                (None, None) => Ok(vec![line.clone()]),
                (_, Some((name, _))) => Err(unknown(name)),
                _ => Err(format!("{} is no array", line.path)),
            };
        }
    };
    let last = first + count.saturating_sub(1);
    let (a, b) = range.unwrap_or((first, last));
    if a < first || b > last {
        return Err(format!(
            "index {} for field {} out of range {first}-{last}",
            if a < first { a } else { b },
            line.path
        ));
    }
    let (from, to) = (a - first, b - first + 1);
    match &line.leaf {
        Leaf::List { items, .. } if rest.is_empty() => {
            let items = items.get(from..to).unwrap_or(&[]);
            if let ([s], Some(_)) = (items, range) {
                return Ok(vec![Line { path: format!("{}[{a}]", line.path), leaf: Leaf::One(s.clone()) }]);
            }
            let leaf = Leaf::List { first: a, items: items.to_vec(), skip: range.is_none() && skips(line) };
            Ok(vec![Line { path: line.path.clone(), leaf }])
        }
        Leaf::Table { columns, rows, .. } => {
            let rows = rows.get(from..to).unwrap_or(&[]);
            let Some((name, _)) = rest.first() else {
                let leaf = Leaf::Table { first: a, columns, rows: rows.to_vec() };
                return Ok(vec![Line { path: line.path.clone(), leaf }]);
            };
            let column = columns.iter().position(|c| c == name).ok_or_else(|| unknown(name))?;
            let cells = rows.iter().enumerate().filter_map(|(i, r)| Some((a + i, r.get(column)?)));
            Ok(cells
                .map(|(i, s)| Line { path: format!("{}[{i}].{name}", line.path), leaf: Leaf::One(s.clone()) })
                .collect())
        }
        _ => Err(unknown(rest.first().map_or("", |r| r.0))),
    }
}

fn skips(line: &Line) -> bool {
    matches!(line.leaf, Leaf::List { skip: true, .. })
}
