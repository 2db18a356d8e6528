//! Writing to the current structure: fields, checksums, random bits. In expert mode only, at once, past the journal.

use crate::bits::{get_bits, set_bit, set_bits};
use crate::field::{self, Form, Leaf, Line, Scalar, Span, select};
use crate::fields;
use crate::location::{Location, Type};
use crate::out::say;
use crate::session::{Outcome, Session, number};
use libxfsr::format::inode::{Timestamp, verify_dinode};
use libxfsr::format::{Context, identify, seal_checksum};
use libxfsr::text::escape;
use libxfsr::units::Daddr;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use zerocopy::big_endian::U64;

/// What happens to checksum and rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Care {
    /// The checksum is made right; what breaks a rule is refused.
    Full,
    /// The checksum is made right, whatever else is wrong.
    Checksum,
    /// The bytes as they are.
    None,
}

impl Care {
    /// Takes the options away from the arguments.
    fn take(a: &[String]) -> Result<(Self, &[String]), String> {
        match a.split_first() {
            Some((o, rest)) if o == "-c" => Ok((Self::None, rest)),
            Some((o, rest)) if o == "-d" => Ok((Self::Checksum, rest)),
            Some((o, _)) if o.starts_with('-') && o.len() == 2 => Err(format!("bad option {}", escape(o.as_bytes()))),
            _ => Ok((Self::Full, a)),
        }
    }
    fn tell(self, s: &Session, what: &str) {
        match self {
            Self::Full => {}
            Self::Checksum => say!(s, "Allowing {what} of corrupted data with good CRC"),
            Self::None => say!(s, "Allowing {what} of corrupted data and bad CRC"),
        }
    }
}

/// The bytes that a rule or a checksum speaks of, where the type has such.
fn broken(s: &Session, here: &Location, bytes: &[u8]) -> Option<String> {
    let at = Context::new(&s.volume.geometry, Daddr(here.byte() / 512));
    match (here.kind, here.ino) {
        (Type::Inode, Some(ino)) => verify_dinode(bytes, ino, &at).err().map(|c| c.to_string()),
        (Type::Data | Type::Text | Type::Inodata | Type::Log | Type::Dqblk, _) => None,
        _ => identify(&here.bytes).and_then(|kind| (kind.verify)(bytes, &at).err()).map(|c| c.to_string()),
    }
}

/// Writes the changed bytes of the current structure, and shows it anew.
fn put(s: &mut Session, mut bytes: Vec<u8>, care: Care) -> Outcome {
    let here = s.here()?;
    // An inode of an older version has none.
    let has_crc = here.kind != Type::Inode || bytes.get(4).is_some_and(|version| *version >= 3);
    let crc = here.kind.crc_offset(&bytes).filter(|_| care != Care::None && has_crc);
    if let Some(at) = crc {
        let length = here.kind.part(&bytes).len();
        seal_checksum(bytes.get_mut(..length).unwrap_or_default(), at);
    }
    if care == Care::Full
        && let Some(rule) = broken(s, here, &bytes)
        && broken(s, here, &here.bytes).as_ref() != Some(&rule)
    {
        return Err(format!("not written: {rule}; -d writes it all the same, -c with the old checksum too"));
    }
    let here = here.clone();
    s.write(&here, &bytes)?;
    if let Some(l) = &mut s.current {
        l.bytes = bytes;
    }
    Ok(())
}

/// The field that is named: the only one, with its place.
fn one_field(s: &Session, name: &str) -> Result<(Line, Span), String> {
    let here = s.here()?;
    let lines = fields::lines(&s.volume, here.kind, &here.bytes);
    let lines = lines.ok_or_else(|| format!("type {} has no fields", here.kind.name()))?;
    let chosen = select(&lines.0, name)?;
    let [line] = chosen.as_slice() else { return Err(format!("{name} is {} fields: name one", chosen.len())) };
    let scalar: Option<&Scalar> = match &line.leaf {
        Leaf::One(v) => Some(v),
        Leaf::List { items, .. } => items.first().filter(|_| items.len() == 1),
        _ => None,
    };
    let span = scalar.ok_or_else(|| format!("{name} is not one value"))?.span;
    Ok((line.clone(), span.ok_or_else(|| format!("{name} is computed from other fields and cannot be written"))?))
}

/// Shows a field as it is now; it may be gone with what it depended on.
fn show(s: &Session, path: &str) {
    let Ok(here) = s.here() else { return };
    let Some(lines) = fields::lines(&s.volume, here.kind, &here.bytes) else { return };
    let mut out = String::new();
    for line in select(&lines.0, path).unwrap_or_default() {
        line.render(&mut out);
    }
    s.out.text(&out);
}

fn bad_value(value: &str) -> String {
    format!("unable to convert value '{}'", escape(value.as_bytes()))
}

/// A number of so many bits; negative ones and `null` (all ones) too.
fn value_of(text: &str, bits: usize) -> Result<u64, String> {
    let all = u64::MAX >> (64 - bits.clamp(1, 64));
    if text == "null" {
        return Ok(all);
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(d) => (true, d),
        None => (false, text),
    };
    let n = number(digits).map_err(|_| bad_value(text))?;
    if !negative {
        return if n <= all { Ok(n) } else { Err(format!("{} in a field of {bits} bits", bad_value(text))) };
    }
    if n > all / 2 + 1 {
        Err(format!("{} in a field of {bits} bits", bad_value(text)))
    } else {
        Ok(n.wrapping_neg() & all)
    }
}

/// Bytes: a string, with or without quotation marks, or `#` and hexadecimal digits.
fn bytes_of(text: &str) -> Result<Vec<u8>, String> {
    if let Some(digits) = text.strip_prefix('#') {
        let byte = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).ok().filter(|p| p.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        };
        return digits.as_bytes().chunks(2).map(|p| byte(p).ok_or_else(|| bad_value(text))).collect();
    }
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    Ok(inner.as_bytes().to_vec())
}

/// Puts what is written into the bytes.
fn store(bytes: &mut [u8], span: Span, text: &str) -> Outcome {
    let place = span.bit / 8..(span.bit + span.bits) / 8;
    match span.form {
        Form::Number => set_bits(bytes, span.bit, span.bits, value_of(text, span.bits)?),
        Form::Uuid => {
            let uuid = uuid::Uuid::parse_str(text).map_err(|_| bad_value(text))?;
            bytes.get_mut(place).ok_or("outside the structure")?.copy_from_slice(uuid.as_bytes());
        }
        Form::Chars => {
            let (value, room) = (bytes_of(text)?, span.bits / 8);
            if value.len() > room {
                return Err(format!("{} bytes in a field of {room}", value.len()));
            }
            let field = bytes.get_mut(place).ok_or("outside the structure")?;
            field.fill(0);
            field.iter_mut().zip(value).for_each(|(to, from)| *to = from);
        }
        Form::BigTime { seconds } => {
            let raw = get_bits(bytes, span.bit, 64).ok_or("outside the structure")?;
            let (old, nanos) = Timestamp(U64::new(raw)).decode(true);
            let new = if seconds {
                let value = value_of(text, 64)?.cast_signed();
                Timestamp::encode(value, nanos, true)
            } else {
                Timestamp::encode(old, u32::try_from(value_of(text, 32)?).unwrap_or(u32::MAX), true)
            };
            set_bits(bytes, span.bit, 64, new.ok_or_else(|| bad_value(text))?.0.get());
        }
    }
    Ok(())
}

const WRITE: &str = "write takes a field and a value; of type data: lshift|rshift|lrot|rrot [count] [start] [length], \
    sequence [from] [to] [start] [length], random [start] [length], fill number [start] [length]; of type text a string";

/// `write`.
pub(crate) fn write(s: &mut Session, a: &[String]) -> Outcome {
    s.writable()?;
    let (care, a) = Care::take(a)?;
    let here = s.here()?;
    let mut bytes = here.bytes.clone();
    match (here.kind, a) {
        (Type::Data, [verb, arguments @ ..]) => {
            shape(&mut bytes, verb, arguments)?;
            put(s, bytes, Care::None)
        }
        (Type::Text, [text]) => {
            let value = bytes_of(text)?;
            if value.len() > bytes.len() {
                return Err(format!("{} bytes at a position of {}", value.len(), bytes.len()));
            }
            bytes.iter_mut().zip(value).for_each(|(to, from)| *to = from);
            put(s, bytes, Care::None)
        }
        (Type::Data | Type::Text, _) | (_, [] | [_]) => Err(WRITE.into()),
        (_, [name, value]) => {
            let (line, span) = one_field(s, name)?;
            store(&mut bytes, span, value)?;
            care.tell(s, "write");
            put(s, bytes, care)?;
            show(s, &line.path);
            Ok(())
        }
        _ => Err("write takes one field and one value".into()),
    }
}

/// Changes data as a whole.
fn shape(bytes: &mut [u8], verb: &str, a: &[String]) -> Outcome {
    let get = |i: usize, or: usize| match a.get(i) {
        Some(n) => number(n).map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        None => Ok(or),
    };
    // How many arguments come before start and length.
    let before = match verb {
        "lshift" | "rshift" | "lrot" | "rrot" => 1,
        "sequence" => 2,
        "random" => 0,
        "fill" if !a.is_empty() => 1,
        _ => return Err(WRITE.into()),
    };
    if a.len() > before + 2 {
        return Err(WRITE.into());
    }
    let start = get(before, 0)?.min(bytes.len());
    let length = get(before + 1, bytes.len())?.min(bytes.len() - start);
    let part = bytes.get_mut(start..start + length).ok_or("outside the position")?;
    let by = get(0, 1)?;
    match verb {
        "lshift" | "rshift" => {
            let n = by.min(part.len());
            if verb == "lshift" {
                part.rotate_left(n);
                part.iter_mut().rev().take(n).for_each(|b| *b = 0);
            } else {
                part.rotate_right(n);
                part.iter_mut().take(n).for_each(|b| *b = 0);
            }
        }
        "lrot" if !part.is_empty() => part.rotate_left(by % part.len()),
        "rrot" if !part.is_empty() => part.rotate_right(by % part.len()),
        "sequence" => {
            let (from, to) = (get(0, 0)? & 0xff, get(1, 255)? & 0xff);
            if from > to {
                return Err(format!("a sequence from {from} to {to}"));
            }
            part.iter_mut().zip((from..=to).cycle()).for_each(|(b, v)| *b = v.to_le_bytes()[0]);
        }
        "random" => part.iter_mut().for_each(|b| *b = rand::random()),
        "fill" => part.fill(by.to_le_bytes()[0]),
        _ => {}
    }
    Ok(())
}

const FUZZ: &str = "fuzz takes a field and one of zeroes, ones, firstbit, middlebit, lastbit, add, sub, random";
/// What `add` adds to numbers of more than eight bits, and to those of eight; observed.
const SMALL: [u64; 2] = [2017, 137];

/// `fuzz`.
pub(crate) fn fuzz(s: &mut Session, a: &[String]) -> Outcome {
    s.writable()?;
    let (care, a) = Care::take(a)?;
    let [name, verb] = a else { return Err(FUZZ.into()) };
    let mut bytes = s.here()?.bytes.clone();
    let (line, span) = one_field(s, name)?;
    let end = span.bit + span.bits;
    let flip = |bytes: &mut [u8], at: usize| {
        let on = get_bits(bytes, at, 1) == Some(1);
        set_bit(bytes, at, !on);
    };
    match verb.as_str() {
        "zeroes" => (span.bit..end).for_each(|i| set_bit(&mut bytes, i, false)),
        "ones" => (span.bit..end).for_each(|i| set_bit(&mut bytes, i, true)),
        "firstbit" => flip(&mut bytes, span.bit),
        "middlebit" => flip(&mut bytes, span.bit + span.bits / 2),
        "lastbit" => flip(&mut bytes, end.saturating_sub(1)),
        "add" | "sub" if span.bits <= 64 && !matches!(span.form, Form::Chars | Form::Uuid) => {
            let old = get_bits(&bytes, span.bit, span.bits).ok_or("outside the structure")?;
            let by = SMALL[usize::from(span.bits == 8)];
            let new = if verb == "add" { old.wrapping_add(by) } else { old.wrapping_sub(by) };
            set_bits(&mut bytes, span.bit, span.bits, new);
        }
        "random" => (span.bit..end).for_each(|i| set_bit(&mut bytes, i, rand::random())),
        "add" | "sub" => return Err(format!("{} is no number", line.path)),
        other => return Err(format!("unknown fuzz command '{}': {FUZZ}", escape(other.as_bytes()))),
    }
    care.tell(s, "fuzz");
    put(s, bytes, care)?;
    show(s, &line.path);
    Ok(())
}

/// `crc -i` and `crc -r`.
pub(crate) fn crc(s: &mut Session, right: bool) -> Outcome {
    s.writable()?;
    let here = s.here()?;
    let at = here.kind.crc_offset(&here.bytes);
    let at = at.ok_or_else(|| format!("current type ({}) is not a structure", here.kind.name()))?;
    let mut bytes = here.bytes.clone();
    if !right {
        let stored = field::number(&bytes, at, 4).ok_or("outside the structure")?;
        // Observed: the bytes as a big-endian number and one more, stored the other way round.
        set_bits(&mut bytes, at * 8, 32, u64::from((stored as u32).wrapping_add(1).swap_bytes()));
    }
    say!(s, "{}", if right { "Recalculating CRC:" } else { "Invalidating CRC:" });
    put(s, bytes, if right { Care::Checksum } else { Care::None })?;
    super::show::checksum(s)
}

const TRASH: &str = "blocktrash -z [-o [+]offset] [-n count] [-x min] [-y max] [-s seed] [-0|-1|-2|-3]";

/// `blocktrash`, of the current position.
pub(crate) fn blocktrash(s: &mut Session, a: &[String]) -> Outcome {
    s.writable()?;
    let (mut here, mut count, mut least, mut most, mut mode) = (false, 1, 1, 1024, 2);
    let mut offset: Option<(bool, u64)> = None;
    let mut random = ChaCha8Rng::seed_from_u64(rand::random());
    let mut words = a.iter();
    while let Some(option) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{option} takes a value: {TRASH}"));
        match option.as_str() {
            "-z" => here = true,
            "-n" => count = number(value()?)?,
            "-x" => least = number(value()?)?.max(1),
            "-y" => most = number(value()?)?,
            "-s" => random = ChaCha8Rng::seed_from_u64(number(value()?)?),
            "-o" => {
                let text = value()?;
                let rest = text.strip_prefix('+');
                offset = Some((rest.is_some(), number(rest.unwrap_or(text))?));
            }
            "-0" | "-1" | "-2" | "-3" => mode = option.as_bytes().last().map_or(2, |b| b - b'0'),
            other => return Err(format!("bad option {}: {TRASH}", escape(other.as_bytes()))),
        }
    }
    if !here {
        return Err(format!("only the current position can be trashed: {TRASH}"));
    }
    if least > most {
        return Err(format!("at least {least} and at most {most} bits"));
    }
    let mut bytes = s.here()?.bytes.clone();
    let all = bytes.len() as u64 * 8;
    for _ in 0..count {
        let length = random.random_range(least..=most).min(all);
        let first = match offset {
            Some((false, at)) => at.min(all - length),
            Some((true, at)) => random.random_range(at.min(all - length)..=all - length),
            None => random.random_range(0..=all - length),
        };
        for bit in first..first + length {
            let bit = usize::try_from(bit).unwrap_or(usize::MAX);
            let old = get_bits(&bytes, bit, 1) == Some(1);
            let new = match mode {
                0 => false,
                1 => true,
                2 => !old,
                _ => random.random(),
            };
            set_bit(&mut bytes, bit, new);
        }
        let mode = ["cleared", "set", "inverted", "randomized"].get(usize::from(mode)).copied().unwrap_or_default();
        let here = s.here()?;
        let byte = first / 8;
        say!(
            s,
            "blocktrash: daddr {} type {}: {length} bits {mode} from byte {byte} bit {}",
            here.daddr,
            here.kind.name(),
            first % 8
        );
    }
    put(s, bytes, Care::None)
}

/// `label` with an argument.
pub(crate) fn label(s: &mut Session, text: &str) -> Outcome {
    let label = if text == "--" { b"" } else { text.as_bytes() };
    let unusable = s.with_volume(|v, _| libxfsr::engine::identity::set_label(v, label))?;
    say!(s, "writing all SBs");
    tell_unusable(s, unusable);
    say!(s, "new label = \"{}\"", escape(label));
    Ok(())
}

/// `uuid` with an argument.
pub(crate) fn uuid(s: &mut Session, text: &str) -> Outcome {
    use libxfsr::engine::identity::{NewUuid, set_uuid};
    let new = match text {
        "generate" => NewUuid::Set(uuid::Uuid::new_v4().into_bytes()),
        "restore" => NewUuid::Restore,
        "rewrite" => NewUuid::Rewrite,
        "nil" => NewUuid::Set([0; 16]),
        text => NewUuid::Set(uuid::Uuid::parse_str(text).map_err(|_| "invalid UUID")?.into_bytes()),
    };
    let (uuid, unusable) = s.with_volume(|v, control| set_uuid(v, new, control))?;
    say!(s, "writing all SBs and the log's last record");
    tell_unusable(s, unusable);
    say!(s, "new UUID = {}", field::uuid(&uuid).text);
    Ok(())
}

fn tell_unusable(s: &Session, n: u32) {
    if n > 0 {
        say!(s, "{n} copies of the superblock cannot be used and were left as they are");
    }
}
