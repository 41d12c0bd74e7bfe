//! Averages of results, as tables and charts show them.

mod confidence;

use super::{
    metrics::Metric,
    results::{Outcome, Results, SampleResult, TaskResults},
};

/// Averages of one method over samples.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Average {
    /// The task's metric.
    pub score: f64,
    /// Negative log probability of an answer token, in nats.
    pub nats_per_token: f64,
    /// Divergence from dense attention per answer token, in nats.
    pub kl: f64,
    /// Part of the answer tokens with the same likeliest token as under dense attention.
    pub top_1_agreement: f64,
    /// Bytes moved as a part of what dense attention moved.
    pub bytes: f64,
}

/// A cell of the grid of lengths and depths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// Tokens.
    pub length: usize,
    /// 0 at the beginning, 1 at the end; `None` where answers do not stand in one place.
    pub depth: Option<f64>,
    /// The mean score.
    pub score: f64,
    /// Whether dense attention does the task, here and at this length as a whole.
    pub is_done: bool,
}

/// Cells of the largest grid that can be read.
const MOST_CELLS: usize = 100;

/// Averages over some samples of a task.
fn average<'a>(method: usize, samples: impl Iterator<Item = &'a SampleResult>) -> Average {
    let samples: Vec<&SampleResult> = samples.collect();
    let mean = |value: &dyn Fn(&Outcome, &Outcome) -> f64| {
        let values = samples.iter().map(|sample| value(&sample.outcomes[method], &sample.outcomes[0]));
        values.sum::<f64>() / samples.len().max(1) as f64
    };
    Average {
        score: mean(&|own, _| own.score),
        nats_per_token: mean(&|own, _| own.nats_per_token),
        kl: mean(&|own, _| own.kl),
        top_1_agreement: mean(&|own, _| own.top_1_agreement),
        bytes: mean(&|own, dense| own.kv_bytes_per_token / dense.kv_bytes_per_token.max(1.0)),
    }
}

/// Depths in order, none first.
fn depth_order(depth: Option<f64>) -> f64 {
    depth.unwrap_or(-1.0)
}

impl TaskResults {
    /// Averages of method number `method` over all samples.
    pub fn average(&self, method: usize) -> Average {
        average(method, self.samples.iter())
    }

    /// Lengths at which dense attention does the task: by [`Metric::floor`] of its mean score. No method
    /// can be judged at others.
    pub fn lengths_done(&self) -> Vec<usize> {
        let mut lengths: Vec<usize> = self.samples.iter().map(|sample| sample.length).collect();
        lengths.sort_unstable();
        lengths.dedup();
        lengths.retain(|&length| {
            let here = self.samples.iter().filter(|sample| sample.length == length);
            self.metric.is_done(average(0, here).score)
        });
        lengths
    }

    /// The mean score as a part of that of dense attention, where more is better, and the other way
    /// round where less is, over the lengths at which dense attention does the task. `None` where there
    /// is no such length.
    pub fn relative(&self, method: usize) -> Option<f64> {
        let lengths = self.lengths_done();
        let done = || self.samples.iter().filter(|sample| lengths.contains(&sample.length));
        let (own, dense) = (average(method, done()).score, average(0, done()).score);
        let (part, whole) = if self.metric.higher_is_better() { (own, dense) } else { (dense, own) };
        (!lengths.is_empty() && dense > 0.0 && whole > 0.0).then(|| part / whole)
    }

    /// Mean scores of the answers in turn, where samples have several.
    pub fn turns(&self, method: usize) -> Vec<f64> {
        let turns = |sample: &SampleResult| sample.outcomes[method].turns.len();
        let count = self.samples.iter().map(turns).min().unwrap_or(0);
        let mean = |turn: usize| {
            let scores = self.samples.iter().map(|sample| sample.outcomes[method].turns[turn]);
            scores.sum::<f64>() / self.samples.len() as f64
        };
        (0..count).map(mean).collect()
    }

    /// Mean scores by length and, where answers stand at stated ones, depth.
    pub fn cells(&self, method: usize) -> Vec<Cell> {
        let lengths = self.lengths_done();
        let place = |sample: &SampleResult| (sample.length, sample.depth);
        let mut places: Vec<(usize, Option<f64>)> = self.samples.iter().map(place).collect();
        places.sort_by(|a, b| a.0.cmp(&b.0).then(depth_order(a.1).total_cmp(&depth_order(b.1))));
        places.dedup();
        let cell = |&(length, depth): &(usize, Option<f64>)| {
            let here = || self.samples.iter().filter(|sample| place(sample) == (length, depth));
            let dense = average(0, here()).score;
            Cell {
                length,
                depth,
                score: average(method, here()).score,
                is_done: lengths.contains(&length) && self.metric.is_done(dense),
            }
        };
        places.iter().map(cell).collect()
    }

    /// Whether answers stand at stated depths of several samples each length, so that a grid of lengths
    /// and depths says something.
    pub fn is_grid(&self) -> bool {
        let cells = self.cells(0);
        let depths = cells.iter().filter(|cell| cell.depth.is_some() && cell.length == cells[0].length);
        self.metric.is_fraction() && depths.count() > 1 && cells.len() <= MOST_CELLS
    }

    /// Attention mass that a method retained, by layer and head; empty where it was not measured.
    pub fn mass(&self, method: usize) -> Vec<Vec<f64>> {
        let of = |sample: &'_ SampleResult| sample.outcomes[method].mass.clone();
        let all: Vec<Vec<Vec<f64>>> = self.samples.iter().map(of).filter(|mass| !mass.is_empty()).collect();
        let Some(first) = all.first() else { return vec![] };
        let mean = |layer: usize, head: usize| {
            all.iter().map(|mass| mass[layer][head]).sum::<f64>() / all.len() as f64
        };
        let heads =
            |(layer, heads): (usize, &Vec<f64>)| (0..heads.len()).map(|head| mean(layer, head)).collect();
        first.iter().enumerate().map(heads).collect()
    }
}

impl Results {
    /// The part of dense bytes moved, and means over tasks of the relative score and of the divergence:
    /// what a chart of quality against traffic shows. The score is over the tasks that dense attention
    /// does, `None` where there is none.
    pub fn overall(&self, method: usize) -> (f64, Option<f64>, f64) {
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let relative: Vec<f64> = self.tasks.iter().filter_map(|task| task.relative(method)).collect();
        let averages: Vec<Average> = self.tasks.iter().map(|task| task.average(method)).collect();
        (
            mean(averages.iter().map(|average| average.bytes).collect()),
            (!relative.is_empty()).then(|| mean(relative)),
            mean(averages.iter().map(|average| average.kl).collect()),
        )
    }

    /// Number of tasks that dense attention does, at some length at least.
    pub fn tasks_done(&self) -> usize {
        self.tasks.iter().filter(|task| task.relative(0).is_some()).count()
    }

    /// The task on which a method keeps the least of dense attention's score, and how much.
    pub fn worst_score(&self, method: usize) -> Option<(&str, f64)> {
        let relative =
            self.tasks.iter().filter_map(|task| Some((task.task.as_str(), task.relative(method)?)));
        relative.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The task on which a method is furthest from dense attention, and the divergence in nats.
    pub fn worst_kl(&self, method: usize) -> Option<(&str, f64)> {
        let kl = self.tasks.iter().map(|task| (task.task.as_str(), task.average(method).kl));
        kl.max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Names of the methods other than dense attention, each once, in order.
    pub fn method_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = vec![];
        for method in &self.settings.methods[1..] {
            if !names.contains(&method.name.as_str()) {
                names.push(&method.name);
            }
        }
        names
    }

    /// Compressions, each once, ascending.
    pub fn compressions(&self) -> Vec<f64> {
        let mut all: Vec<f64> =
            self.settings.methods.iter().filter_map(|method| method.compression).collect();
        all.sort_by(f64::total_cmp);
        all.dedup();
        all
    }

    /// The numbers of all sizes of a method.
    pub fn sizes(&self, name: &str) -> Vec<usize> {
        let methods = self.settings.methods.iter().enumerate();
        methods.filter(|(_, method)| method.name == name).map(|(number, _)| number).collect()
    }

    /// The number of a method at a compression; its own size where it states one.
    pub fn find(&self, name: &str, compression: f64) -> Option<usize> {
        let fits = |&number: &usize| {
            let own = self.settings.methods[number].compression;
            own.is_none_or(|own| own == compression)
        };
        self.sizes(name).into_iter().find(fits)
    }
}

impl Metric {
    /// A score as tables show it: percent for parts of one.
    pub fn format(self, score: f64) -> String {
        match self.is_fraction() {
            true => format!("{:.1}", 100.0 * score),
            false if score >= 100.0 => format!("{score:.0}"),
            false => format!("{score:.3}"),
        }
    }
}

#[cfg(test)]
mod tests;
