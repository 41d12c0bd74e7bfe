//! Progress bars for long loads and prefills, on a terminal only.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

#[cfg(feature = "hub")]
use super::printable::cell;

/// At most one bar at a time.
pub(crate) struct Progress {
    hidden: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// No bars at all where `hidden`.
    pub(crate) fn new(hidden: bool) -> Self {
        Self { hidden, bar: None }
    }

    /// Bytes of weights.
    pub(crate) fn load(&mut self, done: u64, total: u64) {
        self.update("load   ", "{decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}", done, total);
    }

    /// Tokens of the prompt.
    pub(crate) fn prefill(&mut self, done: usize, total: usize) {
        self.update("prefill", "{pos}/{len} tokens", done as u64, total as u64);
    }

    /// Steps of a longer work, all of one kind.
    pub(crate) fn count(&mut self, name: &'static str, unit: &str, done: usize, total: usize) {
        let figures = format!("{{pos}}/{{len}} {unit} {{eta}}");
        self.update(name, &figures, done as u64, total as u64);
    }

    /// Tests that are done, each of its own length, while the next one runs.
    pub(crate) fn tests(&mut self, done: usize, total: usize) {
        self.update("bench  ", "{pos}/{len} tests", done as u64, total as u64);
    }

    /// Bytes of a file from the hub.
    #[cfg(feature = "hub")]
    pub(crate) fn download(&mut self, file: &str, done: u64, total: u64) {
        self.update(
            &cell(file),
            "{decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
            done,
            total,
        );
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn update(&mut self, name: &str, figures: &str, done: u64, total: u64) {
        if self.hidden {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            // Hidden by itself where standard error is not a terminal.
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template = format!("{{prefix}} [{{wide_bar}}] {figures}");
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.with_prefix(name.to_owned())
        });
        bar.set_position(done);
        if done >= total {
            self.clear();
        }
    }
}

/// The bars of an evaluation, with the time that is left.
pub(crate) struct EvalProgress {
    load: Progress,
    hidden: bool,
    bar: Option<ProgressBar>,
    /// What the journal held: the speed is that of this run.
    journalled: Option<usize>,
}

impl EvalProgress {
    /// No bars at all where `hidden`.
    pub(crate) fn new(hidden: bool) -> Self {
        Self { load: Progress::new(hidden), hidden, bar: None, journalled: None }
    }

    /// The bar of what comes before: fetching and loading the model.
    pub(crate) fn loading(&mut self) -> &mut Progress {
        &mut self.load
    }

    /// Samples times methods.
    pub(crate) fn update(&mut self, progress: sparq_models::eval::Progress) {
        if self.hidden {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let template = "{prefix:18} [{wide_bar}] {pos}/{len} answers, {eta_precise} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        bar.set_prefix(progress.task);
        bar.set_length(progress.total as u64);
        if progress.total > 0 && self.journalled.is_none() {
            self.journalled = Some(progress.done);
            bar.reset_eta();
        }
        bar.set_position(progress.done as u64);
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
