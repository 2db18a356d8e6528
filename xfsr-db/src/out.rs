//! Where a session writes: standard output and standard error, or what a test gives it.

use libxfsr::cli::Reporter;
use std::cell::{Cell, RefCell};
use std::fmt::Arguments;
use std::io::{BufWriter, Write};
use std::sync::Arc;

/// Two writers. Writing never panics: who closes the pipe has seen enough.
pub(crate) struct Out {
    out: RefCell<Box<dyn Write>>,
    err: RefCell<Box<dyn Write>>,
    broken: Cell<bool>,
    lost: Cell<bool>,
    /// What stands before each complaint.
    name: String,
    /// Shows the progress of what runs.
    reporter: RefCell<Option<Arc<Reporter>>>,
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Out").field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl Out {
    pub(crate) fn new(name: &str, out: Box<dyn Write>, err: Box<dyn Write>) -> Self {
        Self {
            out: RefCell::new(out),
            err: RefCell::new(err),
            broken: Cell::new(false),
            lost: Cell::new(false),
            name: libxfsr::text::escape(name.as_bytes()).to_string(),
            reporter: RefCell::new(None),
        }
    }

    /// This process's own.
    pub(crate) fn standard(name: &str) -> Self {
        Self::new(name, Box::new(BufWriter::with_capacity(1 << 16, std::io::stdout())), Box::new(std::io::stderr()))
    }

    /// From now on a line of progress is taken away before others are written.
    pub(crate) fn watch(&self, reporter: Option<Arc<Reporter>>) {
        if let Some(before) = self.reporter.replace(reporter) {
            before.clear();
        }
    }

    fn clear(&self) {
        if let Some(reporter) = &*self.reporter.borrow() {
            reporter.clear();
        }
    }

    /// A reader that went away is no error; anything else is told once.
    fn note<T>(&self, r: std::io::Result<T>) {
        if let Err(e) = r
            && !self.broken.replace(true)
            && e.kind() != std::io::ErrorKind::BrokenPipe
        {
            self.lost.set(true);
            let _ = writeln!(self.err.borrow_mut(), "{}: standard output: {e}", self.name);
        }
    }

    pub(crate) fn line(&self, text: Arguments<'_>) {
        self.clear();
        self.note(writeln!(self.out.borrow_mut(), "{text}"));
    }
    pub(crate) fn text(&self, text: &str) {
        self.bytes(text.as_bytes());
    }
    pub(crate) fn bytes(&self, bytes: &[u8]) {
        self.note(self.out.borrow_mut().write_all(bytes));
    }
    /// A line for standard error, behind what was written so far.
    pub(crate) fn complain(&self, text: Arguments<'_>) {
        self.clear();
        self.flush();
        let _ = writeln!(self.err.borrow_mut(), "{}: {text}", self.name);
    }
    pub(crate) fn flush(&self) {
        self.note(self.out.borrow_mut().flush());
    }
    /// Whether something that was written is lost.
    pub(crate) fn lost(&self) -> bool {
        self.lost.get()
    }
    /// Whether standard output takes nothing any more.
    pub(crate) fn broken(&self) -> bool {
        self.broken.get()
    }
}

/// A line on a session's standard output.
macro_rules! say {
    ($s:expr, $($t:tt)*) => { $s.out.line(format_args!($($t)*)) };
}
/// A line on a session's standard error.
macro_rules! complain {
    ($s:expr, $($t:tt)*) => { $s.out.complain(format_args!($($t)*)) };
}
pub(crate) use {complain, say};
