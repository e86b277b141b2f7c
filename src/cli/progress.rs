//! A bar on standard error for runs that take their time, where that is a terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A run that takes longer than this shows how far it is.
const PATIENCE: Duration = Duration::from_millis(700);

/// How far a run is.
#[derive(Clone)]
pub(super) struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    /// One of so many steps; the words say what is done in each.
    pub(super) fn new(steps: usize, words: &str) -> Self {
        let bar =
            ProgressBar::with_draw_target(u64::try_from(steps).ok(), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {words}"));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            bar,
            started: Instant::now(),
        }
    }

    /// One step more is done.
    pub(super) fn advance(&self) {
        self.bar.inc(1);
        self.show();
    }

    /// So many steps more are done, and so many more are known to come.
    pub(super) fn came(&self, done: usize, to_come: usize) {
        self.bar.inc(u64::try_from(done).unwrap_or_default());
        let to_come = u64::try_from(to_come).unwrap_or_default();
        self.bar
            .set_length(self.bar.position().saturating_add(to_come));
        self.show();
    }

    fn show(&self) {
        if self.bar.is_hidden()
            && std::io::stderr().is_terminal()
            && self.started.elapsed() > PATIENCE
        {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
