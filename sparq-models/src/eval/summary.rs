//! Averages of results, as tables and charts show them.

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
    /// 0 at the beginning, 1 at the end.
    pub depth: f64,
    /// The mean score.
    pub score: f64,
    /// The mean score of dense attention.
    pub dense: f64,
}

impl TaskResults {
    /// Averages of method number `method` over all samples.
    pub fn average(&self, method: usize) -> Average {
        let mean = |value: &dyn Fn(&Outcome, &Outcome) -> f64| {
            let values =
                self.samples.iter().map(|sample| value(&sample.outcomes[method], &sample.outcomes[0]));
            values.sum::<f64>() / self.samples.len().max(1) as f64
        };
        Average {
            score: mean(&|own, _| own.score),
            nats_per_token: mean(&|own, _| own.nats_per_token),
            kl: mean(&|own, _| own.kl),
            top_1_agreement: mean(&|own, _| own.top_1_agreement),
            bytes: mean(&|own, dense| own.kv_bytes_per_token / dense.kv_bytes_per_token.max(1.0)),
        }
    }

    /// The mean score as a part of that of dense attention, where more is better, and the other way
    /// round where less is. `None` where dense attention scores nothing: no method can lose there.
    pub fn relative(&self, method: usize) -> Option<f64> {
        let (own, dense) = (self.average(method).score, self.average(0).score);
        let (part, whole) = if self.metric.higher_is_better() { (own, dense) } else { (dense, own) };
        (dense > 0.0 && whole > 0.0).then(|| part / whole)
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

    /// Mean scores by length and depth, where answers stand at stated depths of several contexts.
    pub fn cells(&self, method: usize) -> Vec<Cell> {
        let place = |sample: &SampleResult| sample.depth.map(|depth| (sample.length, depth));
        let mut places: Vec<(usize, f64)> = self.samples.iter().filter_map(place).collect();
        places.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        places.dedup();
        let cell = |&(length, depth): &(usize, f64)| {
            let here = |sample: &&SampleResult| place(sample) == Some((length, depth));
            let samples: Vec<&SampleResult> = self.samples.iter().filter(here).collect();
            let mean = |method: usize| {
                samples.iter().map(|sample| sample.outcomes[method].score).sum::<f64>() / samples.len() as f64
            };
            Cell { length, depth, score: mean(method), dense: mean(0) }
        };
        places.iter().map(cell).collect()
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
    /// Means over tasks of the relative score and of the divergence, and the part of dense bytes moved:
    /// what a chart of quality against traffic shows. The score is `None` where dense attention scores
    /// nothing anywhere.
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
