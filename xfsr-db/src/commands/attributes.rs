//! Extended attributes of the current inode: shown, set and removed.

use super::address::at_inode;
use crate::out::say;
use crate::session::{Outcome, Session, number};
use libxfsr::attr::change::{self, How};
use libxfsr::attr::{self, Attr};
use libxfsr::format::attr::{AttrFlags, MAX_VALUE, NAMESPACE};
use libxfsr::text::{escape, escape_word};

/// What these commands take.
#[derive(Debug, Default)]
struct Arguments {
    /// None where no option says it.
    namespace: Option<AttrFlags>,
    how: How,
    length: Option<usize>,
    words: Vec<Vec<u8>>,
}

/// Reads options out of those that a command has, and as many words as it takes.
fn arguments(
    command: &str,
    all: &[Vec<u8>],
    options: &str,
    words: std::ops::RangeInclusive<usize>,
) -> Result<Arguments, String> {
    let mut found = Arguments::default();
    let mut rest = all.iter();
    let mut only_words = false;
    while let Some(word) = rest.next() {
        let option = match word.as_slice() {
            b"--" if !only_words => {
                only_words = true;
                continue;
            }
            [b'-', option] if !only_words && found.words.is_empty() => char::from(*option),
            [b'-', _, ..] if !only_words && found.words.is_empty() => '?',
            _ => {
                found.words.push(word.clone());
                continue;
            }
        };
        if !options.contains(option) {
            return Err(format!("bad option for {command}: {}", escape(word)));
        }
        let space = match option {
            'r' => AttrFlags::ROOT,
            's' => AttrFlags::SECURE,
            'p' => AttrFlags::PARENT,
            'u' => AttrFlags::empty(),
            'C' | 'R' => {
                let how = if option == 'C' { How::Create } else { How::Replace };
                if found.how != How::Upsert && found.how != how {
                    return Err(format!("{command}: -C and -R exclude each other"));
                }
                found.how = how;
                continue;
            }
            _ => {
                let value = rest.next().ok_or_else(|| format!("{command}: -v needs a length"))?;
                let value = std::str::from_utf8(value).map_err(|_| format!("{command}: -v needs a length"))?;
                let length = number(value)?;
                if length > u64::from(MAX_VALUE) {
                    return Err(format!("{command}: -v {length}: at most {MAX_VALUE} bytes"));
                }
                found.length = Some(length as usize);
                continue;
            }
        };
        if found.namespace.is_some_and(|n| n != space) {
            return Err(format!("{command}: one namespace only"));
        }
        found.namespace = Some(space);
    }
    if !words.contains(&found.words.len()) {
        let wanted = if *words.end() == 0 { "no name" } else { "one name" };
        return Err(format!("{command} takes {wanted}"));
    }
    Ok(found)
}

fn all(s: &Session) -> Result<Vec<Attr>, String> {
    let inode = s.current_inode()?;
    attr::list(&s.volume, &inode).map_err(|e| e.to_string())
}

/// Of those flags that name a namespace.
fn of(a: &Attr, namespace: AttrFlags) -> bool {
    a.flags & NAMESPACE == namespace
}

pub(crate) fn attr_list(s: &mut Session, a: &[Vec<u8>]) -> Outcome {
    let wanted = arguments("attr_list", a, "rsup", 0..=0)?;
    for a in all(s)?.into_iter().filter(|a| wanted.namespace.is_none_or(|n| of(a, n))) {
        match a.parent() {
            Some((parent, generation)) => {
                say!(s, "parent.{} (inode {parent}, generation {generation})", escape_word(&a.name));
            }
            None => say!(s, "{}.{} ({} bytes)", a.flags.namespace(), escape_word(&a.name), a.value.len()),
        }
    }
    Ok(())
}

pub(crate) fn attr_get(s: &mut Session, a: &[Vec<u8>]) -> Outcome {
    let wanted = arguments("attr_get", a, "rsup", 1..=1)?;
    let (namespace, name) = (wanted.namespace.unwrap_or_default(), wanted.words.into_iter().next().unwrap_or_default());
    let mut found = 0;
    for a in all(s)?.into_iter().filter(|a| of(a, namespace) && a.name == name) {
        match a.parent() {
            Some((parent, generation)) => say!(s, "inode {parent}, generation {generation}"),
            None => say!(s, "{}", escape_word(&a.value)),
        }
        found += 1;
    }
    if found == 0 { Err(format!("no attribute {}.{}", namespace.namespace(), escape_word(&name))) } else { Ok(()) }
}

pub(crate) fn attr_set(s: &mut Session, a: &[Vec<u8>]) -> Outcome {
    let wanted = arguments("attr_set", a, "rsuCRv", 1..=2)?;
    let mut words = wanted.words.into_iter();
    let (name, value) = (words.next().unwrap_or_default(), words.next());
    let value = match (value, wanted.length) {
        (Some(_), Some(_)) => return Err("attr_set: a value, or its length (-v), not both".into()),
        (Some(value), None) => value,
        (None, length) => vec![b'v'; length.unwrap_or(0)],
    };
    let (ino, key) = (s.inode_in_use()?, (wanted.namespace.unwrap_or_default(), &name[..]));
    s.change(|scope, space| {
        let room = u32::try_from(value.len()).unwrap_or(MAX_VALUE);
        let mut t = scope.begin(change::reservation(&scope.volume().geometry, room))?;
        change::set(&mut t, space, ino, key, &value, wanted.how)?;
        t.commit().map(|_| ())
    })
    .map_err(|e| format!("attr_set {}: {e}", escape_word(&name)))?;
    let to = at_inode(s, ino)?;
    s.go(to);
    Ok(())
}

pub(crate) fn attr_remove(s: &mut Session, a: &[Vec<u8>]) -> Outcome {
    let wanted = arguments("attr_remove", a, "rsu", 1..=1)?;
    let name = wanted.words.into_iter().next().unwrap_or_default();
    let (ino, key) = (s.inode_in_use()?, (wanted.namespace.unwrap_or_default(), &name[..]));
    s.change(|scope, space| {
        let mut t = scope.begin(change::reservation(&scope.volume().geometry, MAX_VALUE))?;
        change::remove(&mut t, space, ino, key)?;
        t.commit().map(|_| ())
    })
    .map_err(|e| format!("attr_remove {}: {e}", escape_word(&name)))?;
    let to = at_inode(s, ino)?;
    s.go(to);
    Ok(())
}
