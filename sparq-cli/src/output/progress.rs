//! Progress bars for long loads and prefills, on a terminal only.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
        self.update("load   ", "{bytes}/{total_bytes} {bytes_per_sec}", done, total);
    }

    /// Tokens of the prompt.
    pub(crate) fn prefill(&mut self, done: usize, total: usize) {
        self.update("prefill", "{pos}/{len} tokens {per_sec}", done as u64, total as u64);
    }

    /// Bytes of a file from the hub.
    #[cfg(feature = "hub")]
    pub(crate) fn download(&mut self, file: &str, done: u64, total: u64) {
        self.update(file, "{bytes}/{total_bytes} {bytes_per_sec} {eta}", done, total);
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
