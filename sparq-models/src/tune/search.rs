//! Searching for the least traffic that meets a target.

use sparq_core::{AttentionLayer, Method, SparqConfig};

use super::{Measurement, Probe};
use crate::error::Result;

/// What has to be met, on average over the decoded tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Mean divergence of the predictions from dense attention, in nats, at most this.
    Kl(f64),
    /// Retained attention mass at least this, over all layers on average.
    Mass(f64),
}

impl Target {
    /// Whether a measurement meets the target.
    pub fn is_met(self, found: &Measurement) -> bool {
        match self {
            Self::Kl(most) => found.kl <= most,
            Self::Mass(least) => found.mean_mass() >= least,
        }
    }
}

/// Sizes to try, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    /// `r`.
    pub ranks: Vec<usize>,
    /// `k`.
    pub top_ks: Vec<usize>,
}

impl Grid {
    /// Ranks from 4 up to the head size, numbers of positions from 16 up to half of the length, each
    /// twice the one before.
    pub fn for_model(layers: &[AttentionLayer], len: usize) -> Self {
        let head_dim = layers.iter().map(|layer| layer.shape.head_dim).min().unwrap_or(0);
        let doubled = |first: usize, last: usize| -> Vec<usize> {
            std::iter::successors(Some(first.min(last.max(1))), |n| Some(n * 2))
                .take_while(|&n| n <= last.max(1))
                .collect()
        };
        Self { ranks: doubled(4, head_dim), top_ks: doubled(16, len / 2) }
    }

    /// Ascending, each size once: what the search expects of sizes that a user states.
    pub fn sort(&mut self) {
        for sizes in [&mut self.ranks, &mut self.top_ks] {
            sizes.sort_unstable();
            sizes.dedup();
        }
    }
}

/// Sizes of one layer, as places in a [`Grid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GridPoint {
    /// Index into [`Grid::ranks`].
    pub rank: usize,
    /// Index into [`Grid::top_ks`].
    pub top_k: usize,
}

/// The same sizes in all layers, and what they did.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// `r`.
    pub rank: usize,
    /// `k`.
    pub top_k: usize,
    /// Their place in the grid.
    sizes: GridPoint,
    /// What was measured.
    pub found: Measurement,
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    /// All uniform settings that were tried, by traffic.
    pub points: Vec<Point>,
    /// One method per layer; `None` where no setting meets the target.
    pub best: Option<Best>,
}

/// The methods that move least and meet the target.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// One per layer.
    pub methods: Vec<Method>,
    /// What they did on the windows that were searched.
    pub found: Measurement,
    /// The same on the window that was held out, where there is one.
    pub held_out: Option<Measurement>,
    /// The best uniform setting, if it meets the target.
    pub uniform: Option<Point>,
}

/// What a search is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many uniform settings of so many.
    Uniform(usize, usize),
    /// So many steps of a search layer by layer, of so many at most.
    Layers(usize, usize),
}

/// The points that no other beats in both traffic and quality, by traffic.
pub fn frontier(points: &[Point], target: Target) -> Vec<&Point> {
    let loss = |point: &Point| match target {
        Target::Kl(_) => point.found.kl,
        Target::Mass(_) => 1.0 - point.found.mean_mass(),
    };
    let mut sorted: Vec<&Point> = points.iter().collect();
    sorted.sort_by(|a, b| {
        let by_traffic = a.found.traffic.ratio().total_cmp(&b.found.traffic.ratio());
        by_traffic.then(loss(a).total_cmp(&loss(b)))
    });
    let mut least = f64::INFINITY;
    sorted.retain(|point| {
        let better = loss(point) < least;
        least = least.min(loss(point));
        better
    });
    sorted
}

/// Searches the grid, then, where `layer_by_layer` is set, one layer at a time. The last of several
/// windows is held out: nothing is chosen by it.
///
/// # Errors
/// [`crate::Error::Core`] for sizes that do not fit the model, errors of the model.
pub fn tune(
    probe: &Probe<'_>,
    grid: &Grid,
    target: Target,
    layer_by_layer: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Tuned> {
    let search = Search { probe, grid, target, layers: probe.model().attention_layers() };
    let points = search.uniform(progress)?;
    let cheapest = points.iter().find(|point| target.is_met(&point.found)).cloned();
    let found = match (layer_by_layer, target) {
        (false, _) => cheapest.as_ref().map(|point| (search.same(point.sizes), point.found.clone())),
        (true, Target::Mass(least)) => search.by_mass(&points, least, progress)?,
        (true, Target::Kl(_)) => match &cheapest {
            Some(point) => Some(search.by_divergence(point, progress)?),
            None => None,
        },
    };
    let best = match found {
        None => None,
        Some((choices, found)) => {
            let methods = search.methods(&choices);
            let held_out = match search.held_out() {
                Some(window) => Some(probe.measure(&methods, window..window + 1)?),
                None => None,
            };
            Some(Best { methods, found, held_out, uniform: cheapest })
        }
    };
    Ok(Tuned { points, best })
}

struct Search<'p, 'm> {
    probe: &'p Probe<'m>,
    grid: &'p Grid,
    target: Target,
    layers: Vec<AttentionLayer>,
}

impl Search<'_, '_> {
    fn same(&self, sizes: GridPoint) -> Vec<GridPoint> {
        vec![sizes; self.layers.len()]
    }

    fn methods(&self, choices: &[GridPoint]) -> Vec<Method> {
        let method = |(sizes, layer): (&GridPoint, &AttentionLayer)| {
            let (rank, top_k) = (self.grid.ranks[sizes.rank], self.grid.top_ks[sizes.top_k]);
            Method::Sparq(SparqConfig::new(&layer.shape, rank, top_k))
        };
        choices.iter().zip(&self.layers).map(method).collect()
    }

    /// The window that is held out.
    fn held_out(&self) -> Option<usize> {
        self.probe.windows().checked_sub(1).filter(|&last| last > 0)
    }

    fn measure(&self, choices: &[GridPoint]) -> Result<Measurement> {
        let windows = 0..self.held_out().unwrap_or(self.probe.windows());
        self.probe.measure(&self.methods(choices), windows)
    }

    /// All uniform settings, by traffic.
    fn uniform(&self, progress: &mut dyn FnMut(Progress)) -> Result<Vec<Point>> {
        let total = self.grid.ranks.len() * self.grid.top_ks.len();
        let mut points = vec![];
        for (i, &rank) in self.grid.ranks.iter().enumerate() {
            for (j, &top_k) in self.grid.top_ks.iter().enumerate() {
                let sizes = GridPoint { rank: i, top_k: j };
                points.push(Point { rank, top_k, sizes, found: self.measure(&self.same(sizes))? });
                progress(Progress::Uniform(points.len(), total));
            }
        }
        points.sort_by(|a, b| a.found.traffic.ratio().total_cmp(&b.found.traffic.ratio()));
        Ok(points)
    }

    /// For each layer the cheapest setting with which it retains the mass: a layer's mass depends little
    /// on what the others do, so the uniform measurements say it. A layer that needs more than the grid
    /// has (attention without a focus, as first layers have it) takes the uniform setting. `None` where
    /// no uniform setting meets the target.
    fn by_mass(
        &self,
        points: &[Point],
        least: f64,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<(Vec<GridPoint>, Measurement)>> {
        let Some(uniform) = points.iter().find(|point| self.target.is_met(&point.found)) else {
            return Ok(None);
        };
        let of_layer = |layer: usize| {
            let cheapest = points.iter().find(|point| point.found.mass[layer] >= least);
            cheapest.unwrap_or(uniform).sizes
        };
        let choices: Vec<GridPoint> = (0..self.layers.len()).map(of_layer).collect();
        progress(Progress::Layers(0, 1));
        let found = self.measure(&choices)?;
        progress(Progress::Layers(1, 1));
        // The others do have some influence, and layers with a focus may pay for those without on
        // average: the uniform setting stands where it is better.
        let is_better = self.target.is_met(&found) && bytes(&found) <= bytes(&uniform.found);
        Ok(Some(if is_better { (choices, found) } else { (self.same(uniform.sizes), uniform.found.clone()) }))
    }

    /// Makes single layers cheaper, the step with the least divergence for the bytes it saves first, for
    /// as long as the target holds.
    fn by_divergence(
        &self,
        start: &Point,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Vec<GridPoint>, Measurement)> {
        let mut best = (self.same(start.sizes), start.found.clone());
        // What each step does alone; steps of different layers add up, nearly.
        let mut steps = vec![];
        let total = 2 * self.layers.len();
        for layer in 0..self.layers.len() {
            for cheaper in cheaper(start.sizes) {
                let mut choices = best.0.clone();
                choices[layer] = cheaper;
                let found = self.measure(&choices)?;
                let saved = bytes(&start.found) - bytes(&found);
                if saved > 0.0 {
                    steps.push(((found.kl - start.found.kl) / saved, layer, cheaper));
                }
                progress(Progress::Layers(steps.len().min(total), total));
            }
        }
        steps.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut changed = vec![false; self.layers.len()];
        let mut misses = 0;
        for (_, layer, cheaper) in steps {
            if changed[layer] || misses == MISSES {
                continue;
            }
            let mut choices = best.0.clone();
            choices[layer] = cheaper;
            let found = self.measure(&choices)?;
            match self.target.is_met(&found) {
                true => {
                    changed[layer] = true;
                    best = (choices, found);
                }
                false => misses += 1,
            }
        }
        progress(Progress::Layers(total, total));
        Ok(best)
    }
}

/// Steps that may miss the target before the search ends.
const MISSES: usize = 3;

/// The settings one step cheaper.
fn cheaper(sizes: GridPoint) -> impl Iterator<Item = GridPoint> {
    let rank = sizes.rank.checked_sub(1).map(|rank| GridPoint { rank, ..sizes });
    let top_k = sizes.top_k.checked_sub(1).map(|top_k| GridPoint { top_k, ..sizes });
    rank.into_iter().chain(top_k)
}

fn bytes(found: &Measurement) -> f64 {
    found.traffic.moved.total().bytes as f64
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
