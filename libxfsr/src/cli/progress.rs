//! Progress on standard error, once work lasts longer than a second.

use crate::control::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum ProgressMode {
    /// A line that is redrawn, where standard error is a terminal
    #[default]
    Text,
    /// One JSON object a line, twice a second
    Json,
    /// Nothing
    None,
}

/// How it is done here and now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Bar,
    Lines,
    Json,
    Nothing,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    bar: Option<ProgressBar>,
}

/// Takes what [`Control::progress`](crate::control::Control) tells and shows it.
#[derive(Debug)]
pub struct Reporter {
    form: Form,
    interval: Duration,
    start: Instant,
    state: Mutex<State>,
}

/// Work that is done before that says nothing.
const PATIENCE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(500);

impl Reporter {
    /// Starts the clock. Text is told only where standard error is a terminal.
    pub fn new(mode: ProgressMode) -> Self {
        Self::every(mode, None)
    }

    /// As [`Reporter::new`]. Where the caller names an interval, text is told as lines where standard error is no terminal.
    pub fn every(mode: ProgressMode, interval: Option<Duration>) -> Self {
        let form = match mode {
            ProgressMode::None => Form::Nothing,
            ProgressMode::Json => Form::Json,
            ProgressMode::Text if std::io::stderr().is_terminal() => Form::Bar,
            ProgressMode::Text if interval.is_some() => Form::Lines,
            ProgressMode::Text => Form::Nothing,
        };
        let interval = interval.unwrap_or(INTERVAL);
        Self { form, interval, start: Instant::now(), state: Mutex::new(State { last: None, bar: None }) }
    }

    /// Shows it, if it is time to.
    pub fn tell(&self, p: &Progress) {
        if self.form == Form::Nothing || self.start.elapsed() < PATIENCE.max(self.interval) {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|l| l.elapsed() < self.interval) {
            return;
        }
        state.last = Some(Instant::now());
        let text = match self.form {
            Form::Json => Some(line(p, self.start.elapsed())),
            Form::Lines => Some(sentence(p, self.start.elapsed())),
            Form::Bar | Form::Nothing => None,
        };
        if let Some(text) = text {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
            return;
        }
        let bar = state.bar.get_or_insert_with(|| ProgressBar::with_draw_target(p.total, ProgressDrawTarget::stderr()));
        let template = if p.total.is_some() { "{msg} {wide_bar} {percent}% {eta}" } else { "{msg} {pos} {spinner}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if let Some(total) = p.total {
            bar.set_length(total);
        }
        bar.set_message(p.phase);
        bar.set_position(p.done);
    }

    /// Takes the line away, before an answer is printed.
    pub fn clear(&self) {
        if let Some(bar) = self.state.lock().unwrap_or_else(PoisonError::into_inner).bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.clear();
    }
}

fn sentence(p: &Progress, elapsed: Duration) -> String {
    let total = p.total.map_or(String::new(), |t| format!(" of {t}"));
    format!("{}: {}{total} after {} s", p.phase, p.done, elapsed.as_secs())
}

fn line(p: &Progress, elapsed: Duration) -> String {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        progress: &'a Progress,
        seconds: f64,
    }
    serde_json::to_string(&Line { progress: p, seconds: elapsed.as_secs_f64() }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Progress, line, sentence};
    use std::time::Duration;

    #[test]
    fn a_line_is_json() {
        let text = line(&Progress { phase: "inodes", done: 3, total: Some(9) }, Duration::from_millis(1500));
        let v: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((v["phase"].as_str(), v["done"].as_u64(), v["total"].as_u64()), (Some("inodes"), Some(3), Some(9)));
        assert_eq!(v["seconds"].as_f64(), Some(1.5));
        let p = Progress { phase: "inodes", done: 3, total: None };
        assert_eq!(sentence(&p, Duration::from_secs(7)), "inodes: 3 after 7 s");
    }
}
