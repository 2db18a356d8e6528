//! Configuration files: `[section]` lines, and `name=value` or `name: value` lines. `#` and `;` begin a comment; within a line `;`
//! does after a blank. A byte order mark and ends of lines of other systems are passed over.

use crate::values::Given;
use anyhow::{Context, Result, bail};
use libxfsr::cli::read_file;

/// Bytes of a file of options.
const LONGEST: u64 = 1 << 20;
const LONGEST_LINE: usize = 1000;

/// Section names and the options that they stand for.
const SECTIONS: &[(&str, char)] = &[
    ("block", 'b'),
    ("data", 'd'),
    ("inode", 'i'),
    ("log", 'l'),
    ("metadata", 'm'),
    ("naming", 'n'),
    ("realtime", 'r'),
    ("sector", 's'),
];

/// The line up to a `;` that follows a blank.
fn without_comment(line: &str) -> &str {
    let begins = |(i, _): &(usize, &str)| line.get(..*i).is_some_and(|before| before.ends_with([' ', '\t']));
    line.match_indices(';').find(begins).map_or(line, |(i, _)| line.get(..i).unwrap_or(line))
}

/// Reads the file that a `-c options=FILE` names.
pub(crate) fn read(list: &str, given: &mut Given) -> Result<()> {
    let Some(path) = list.strip_prefix("options=").filter(|p| !p.is_empty()) else {
        bail!("-c {list} is not possible: it must be options=FILE");
    };
    let bytes = read_file(path, LONGEST).with_context(|| format!("-c options={path}"))?;
    let text = String::from_utf8(bytes).ok().with_context(|| format!("-c options={path}: it is not UTF-8 text"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (mut section, mut had_option) = (None, false);
    for (n, line) in text.lines().enumerate() {
        let at = || format!("{path}, line {}", n + 1);
        // What is refused is quoted: it shall neither fill nor steer a terminal.
        if line.len() > LONGEST_LINE || line.contains(|c: char| c.is_control() && c != '\t') {
            bail!("{}: neither control characters nor lines longer than {LONGEST_LINE} bytes are options", at());
        }
        let indented = line.starts_with([' ', '\t']);
        let line = without_comment(line).trim();
        if line.is_empty() || line.starts_with('#') || line.starts_with(';') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            let found = SECTIONS.iter().find(|s| s.0 == name);
            section = Some(found.with_context(|| {
                let names: Vec<_> = SECTIONS.iter().map(|s| s.0).collect();
                format!("{}: [{name}] is no section; there are {}", at(), names.join(", "))
            })?);
            had_option = false;
            continue;
        }
        let Some((_, letter)) = section else {
            bail!("{}: an option must follow a [section]", at());
        };
        if indented && had_option {
            bail!("{}: {line} begins with blanks, which would continue the value of the line before", at());
        }
        had_option = true;
        let (name, value) =
            line.split_once(['=', ':']).with_context(|| format!("{}: {line} is not name=value", at()))?;
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        given.add(*letter, name.trim(), Some(value)).with_context(at)?;
    }
    Ok(())
}
