//! Configuration files: `[section]` lines and `name=value` lines.

use crate::values::Given;
use anyhow::{Context, Result, bail};

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

/// Reads the file that a `-c options=FILE` names.
pub(crate) fn read(list: &str, given: &mut Given) -> Result<()> {
    let Some(path) = list.strip_prefix("options=").filter(|p| !p.is_empty()) else {
        bail!("-c {list} is not possible: it must be options=FILE");
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("-c options={path}"))?;
    let mut section = None;
    for (n, line) in text.lines().enumerate() {
        let at = || format!("{path}, line {}", n + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line.starts_with(';') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            let found = SECTIONS.iter().find(|s| s.0 == name);
            section = Some(found.with_context(|| {
                let names: Vec<_> = SECTIONS.iter().map(|s| s.0).collect();
                format!("{}: [{name}] is no section; there are {}", at(), names.join(", "))
            })?);
            continue;
        }
        let Some((_, letter)) = section else {
            bail!("{}: an option must follow a [section]", at());
        };
        let (name, value) = line.split_once('=').with_context(|| format!("{}: {line} is not name=value", at()))?;
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        given.add(*letter, name.trim(), Some(value)).with_context(at)?;
    }
    Ok(())
}
