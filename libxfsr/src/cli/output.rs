//! Printing. Bytes that come from a disk go through [`text::escape`](crate::text::escape) first.

use crate::error::Error;
use std::io::Write;

/// Exit codes that mean the same in every program that has none prescribed by its counterpart.
pub mod exit {
    /// Done.
    pub const OK: u8 = 0;
    /// The job failed: damage, an I/O error, a missing feature.
    pub const FAILED: u8 = 1;
    /// Wrong usage.
    pub const USAGE: u8 = 2;
    /// Ended by Ctrl-C.
    pub const INTERRUPTED: u8 = 130;
}

/// Writes to a stream and flushes it. A reader that went away is no error: nobody is left to tell.
fn write_to(out: &mut dyn Write, text: &[u8]) -> std::io::Result<()> {
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes an answer to standard output.
///
/// # Errors
/// When it cannot be written, a full disk for example; a reader that went away is no error.
pub fn print(text: &str) -> crate::Result<()> {
    write_to(&mut std::io::stdout().lock(), text.as_bytes()).map_err(|e| Error::open("standard output", e))
}

/// Writes a value as one document of JSON.
///
/// # Errors
/// When it cannot be serialised or written; a reader that went away is no error.
pub fn print_json_to(out: &mut dyn Write, value: &impl serde::Serialize) -> std::io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    write_to(out, &text)
}

/// Writes a value as JSON to standard output.
///
/// # Errors
/// As [`print_json_to`].
pub fn print_json(value: &impl serde::Serialize) -> std::io::Result<()> {
    print_json_to(&mut std::io::stdout().lock(), value)
}

/// Tells the user something on standard error.
pub fn note(program: &str, text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{program}: {text}");
}
