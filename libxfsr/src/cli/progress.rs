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

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    bar: Option<ProgressBar>,
}

/// Takes what [`Control::progress`](crate::control::Control) tells and shows it.
#[derive(Debug)]
pub struct Reporter {
    mode: ProgressMode,
    start: Instant,
    state: Mutex<State>,
}

/// Work that is done before that says nothing.
const PATIENCE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(500);

impl Reporter {
    /// Starts the clock. Text is told only where standard error is a terminal.
    pub fn new(mode: ProgressMode) -> Self {
        let mode =
            if mode == ProgressMode::Text && !std::io::stderr().is_terminal() { ProgressMode::None } else { mode };
        Self { mode, start: Instant::now(), state: Mutex::new(State { last: None, bar: None }) }
    }

    /// Shows it, if it is time to.
    pub fn tell(&self, p: &Progress) {
        if self.mode == ProgressMode::None || self.start.elapsed() < PATIENCE {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|l| l.elapsed() < INTERVAL) {
            return;
        }
        state.last = Some(Instant::now());
        if self.mode == ProgressMode::Json {
            let _ = writeln!(std::io::stderr().lock(), "{}", line(p, self.start.elapsed()));
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
    use super::{Progress, line};
    use std::time::Duration;

    #[test]
    fn a_line_is_json() {
        let text = line(&Progress { phase: "inodes", done: 3, total: Some(9) }, Duration::from_millis(1500));
        let v: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((v["phase"].as_str(), v["done"].as_u64(), v["total"].as_u64()), (Some("inodes"), Some(3), Some(9)));
        assert_eq!(v["seconds"].as_f64(), Some(1.5));
    }
}
