//! Why a program failed, for people and for programs: a sentence on standard error, or with `--json` a document on standard output.

use super::{Manual, exit, interrupted, note, print_json};
use crate::error::{Corruption, Error};
use clap::FromArgMatches;
use serde::Serialize;
use std::fmt;
use std::process::ExitCode;

/// A failure: its kind for programs, and a sentence for people.
///
/// With `--json` it is printed as `{"error": {"kind": ..., "message": ..., "exit_status": ...}}`, with a `finding` where a broken rule of
/// the format is the reason. The kinds are `usage`, `open`, `io`, `no-filesystem`, `corrupt`, `unsupported`, `in-use`, `occupied`, `misaligned`,
/// `not-found`, `exists`, `not-a-directory`, `is-a-directory`, `not-empty`, `name-too-long`, `too-many-links`, `not-permitted`, `read-only`,
/// `no-space`, `interrupted`, `stopped` and `failed`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Failure {
    kind: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    finding: Option<Box<Corruption>>,
}

impl Failure {
    /// A failure of that kind.
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), finding: None }
    }
    /// The caller asked for something that cannot be.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new("usage", message)
    }
    /// Its kind, one of a list that may grow.
    pub fn kind(&self) -> &'static str {
        self.kind
    }
    /// Puts a few words in front of the sentence.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The exit status among those of the program.
    pub fn status(&self, codes: ExitCodes) -> u8 {
        match self.kind {
            "interrupted" => exit::INTERRUPTED,
            "usage" => codes.usage,
            _ => codes.failed,
        }
    }

    /// What stands in the document behind `error`: the failure and the exit status.
    pub fn document(&self, codes: ExitCodes) -> impl Serialize {
        #[derive(Serialize)]
        struct Inner<'a> {
            #[serde(flatten)]
            failure: &'a Failure,
            exit_status: u8,
        }
        Inner { failure: self, exit_status: self.status(codes) }
    }

    /// Tells of it and gives the exit status.
    pub fn report(&self, program: &str, json: bool, codes: ExitCodes) -> u8 {
        #[derive(Serialize)]
        struct Document<T> {
            error: T,
        }
        if !json || print_json(&Document { error: self.document(codes) }).is_err() {
            note(program, &self.message);
        }
        self.status(codes)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<&Error> for Failure {
    fn from(e: &Error) -> Self {
        let kind = match e {
            Error::Io { .. } => "io",
            Error::Open { .. } => "open",
            Error::Corrupt(_) => "corrupt",
            Error::NoFilesystem { .. } => "no-filesystem",
            Error::Unsupported(_) => "unsupported",
            Error::Invalid(_) | Error::MissingDevice { .. } => "usage",
            Error::Busy { .. } => "in-use",
            Error::NotFound(_) => "not-found",
            Error::Stopped if interrupted() => "interrupted",
            Error::NoSpace(_) => "no-space",
            Error::QuotaExceeded(_) => "quota-exceeded",
            Error::Exists(_) => "exists",
            Error::NotDirectory(_) => "not-a-directory",
            Error::IsDirectory(_) => "is-a-directory",
            Error::NotEmpty(_) => "not-empty",
            Error::NameTooLong(_) => "name-too-long",
            Error::TooManyLinks(_) => "too-many-links",
            Error::NotPermitted(_) => "not-permitted",
            Error::ReadOnly => "read-only",
            Error::Stopped => "stopped",
        };
        let finding = match e {
            Error::Corrupt(c) | Error::NoFilesystem { primary: c, .. } => Some(c.clone()),
            _ => None,
        };
        Self { kind, message: e.to_string(), finding }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::from(&e)
    }
}

/// The statuses by which a program tells that it failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExitCodes {
    /// Wrong usage.
    pub usage: u8,
    /// Anything else.
    pub failed: u8,
}

/// Whether the command line asks for JSON, for failures that come before it is understood.
pub fn wants_json() -> bool {
    std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json")
}

/// A clap error as its user meets it: help and version are printed and no failure; wrong usage is told as text or as JSON.
pub fn usage_error(program: &str, error: &clap::Error, codes: ExitCodes) -> u8 {
    if !error.use_stderr() || !wants_json() {
        let _ = error.print();
        return if error.use_stderr() { codes.usage } else { exit::OK };
    }
    let text = error.to_string();
    let sentence = text.lines().take_while(|l| !l.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ");
    Failure::usage(sentence.strip_prefix("error: ").unwrap_or(&sentence)).report(program, true, codes)
}

/// A program from its arguments to its exit status.
pub fn run<T: FromArgMatches>(
    manual: &Manual,
    codes: ExitCodes,
    work: impl FnOnce(&T) -> Result<u8, Failure>,
) -> ExitCode {
    let program = manual.command.get_name();
    let status = match manual.parse::<T>() {
        Ok(arguments) => work(&arguments).unwrap_or_else(|f| f.report(program, wants_json(), codes)),
        Err(e) => usage_error(program, &e, codes),
    };
    ExitCode::from(status)
}

#[cfg(test)]
mod tests {
    use super::{ExitCodes, Failure};
    use crate::error::{Corruption, Error, Rule};

    #[test]
    fn a_failure_has_its_kind_status_and_finding() {
        let codes = ExitCodes { usage: 8, failed: 4 };
        let f = Failure::from(Error::invalid("no"));
        assert_eq!((f.kind(), f.status(codes)), ("usage", 8));
        let f = Failure::from(Error::Corrupt(Corruption::new("agf", "length", Rule::Range)));
        assert_eq!((f.kind(), f.status(codes)), ("corrupt", 4));
        let v = serde_json::to_value(f.context("reading")).expect("JSON");
        assert_eq!(v["finding"]["structure"], "agf");
        assert!(v["message"].as_str().expect("a sentence").starts_with("reading: agf.length.range"), "{v}");
    }
}
