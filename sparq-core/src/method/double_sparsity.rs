//! Double Sparsity (Yang et al., 2024): SparQ's first step with components that are chosen once.

use burn::tensor::{DType, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::{DecodeMethod, Decoded, Dense, Method, MethodKind, PromptChunk, Selection, check, parts};
use crate::{
    cache::{CacheExtras, CachedSequence},
    config::AttentionShape,
    error::{Error, Result},
    k_t::KtFormat,
    ops,
    spans::Append,
    transfer::Transfer,
};

/// Sizes of [`DoubleSparsity`], and the components of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoubleSparsityConfig {
    /// `r`: label channels, the key components that choose positions.
    pub rank: usize,
    /// `k`: positions that are read in full.
    pub top_k: usize,
    /// Most recent positions that are always read; 1, the current token, in most uses.
    pub local_window: usize,
    /// The components of each KV head, most important first, at least `rank` of them: the outcome of
    /// a calibration ([`ChannelStatistics`]). Empty: they are found from the prompt.
    #[serde(default)]
    pub channels: Vec<Vec<usize>>,
}

impl DoubleSparsityConfig {
    /// Channels from the prompt, no forced position but the current one.
    pub fn new(rank: usize, top_k: usize) -> Self {
        Self { rank, top_k, local_window: 1, channels: vec![] }
    }

    fn validate(&self, shape: &AttentionShape) -> Result<()> {
        check::local_window(self.local_window, self.top_k)?;
        if self.rank == 0 || self.rank > shape.head_dim {
            let reason = format!("it must lie between 1 and head_dim = {}", shape.head_dim);
            return check::refuse("rank", self.rank, reason);
        }
        if self.channels.is_empty() {
            return Ok(());
        }
        if self.channels.len() != shape.kv_heads {
            let reason = format!("there must be one list for each of {} KV heads", shape.kv_heads);
            return check::refuse("channels", format!("{} lists", self.channels.len()), reason);
        }
        for list in &self.channels {
            let mut sorted = list.clone();
            sorted.sort_unstable();
            sorted.dedup();
            if list.len() < self.rank
                || sorted.len() < list.len()
                || list.iter().any(|&c| c >= shape.head_dim)
            {
                let reason = format!(
                    "it must hold at least rank = {} different components below head_dim = {}",
                    self.rank, shape.head_dim
                );
                return check::refuse("channels", format!("{list:?}"), reason);
            }
        }
        Ok(())
    }
}

/// How much each component contributes to the scores, `|q_c · k_c|` of a token with itself, summed over
/// tokens and over the query heads of a KV head: the authors' first calibration rule.
#[derive(Debug, Clone, Default)]
pub struct ChannelStatistics {
    /// `[1, kv_heads, head_dim]`, f32.
    sum: Option<Tensor<3>>,
}

impl ChannelStatistics {
    /// Adds the tokens of a chunk of a prompt, whose keys the sequence holds already.
    ///
    /// # Errors
    /// [`Error::MissingInCache`] where it holds none.
    pub fn observe(&mut self, chunk: &PromptChunk<'_>, sequence: &CachedSequence<'_>) -> Result<()> {
        let AttentionShape { kv_heads, head_dim, .. } = sequence.layer().shape;
        let group = sequence.layer().shape.group();
        for Append { skip, take, at, .. } in
            chunk.plan().as_slice().iter().copied().filter(|append| append.take > 0)
        {
            let k = sequence.k()?.narrow(2, at, take).cast(DType::F32);
            let q = chunk.queries().narrow(2, skip, take).reshape([kv_heads, group, take, head_dim]);
            let q = q.abs().sum_dim(1).reshape([1, kv_heads, take, head_dim]);
            let added = (q * k.abs()).sum_dim(2).squeeze_dim(2);
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + added,
                None => added,
            });
        }
        Ok(())
    }

    /// The components of each KV head, most important first: what
    /// [`DoubleSparsityConfig::channels`] takes. Empty where nothing was observed.
    ///
    /// # Errors
    /// [`Error::ReadBack`] where the device fails.
    pub fn channels(&self) -> Result<Vec<Vec<usize>>> {
        let Some(sum) = &self.sum else {
            return Ok(vec![]);
        };
        let [_, _, head_dim] = sum.dims();
        let sums: Vec<f32> = sum.clone().sum_dim(0).into_data().try_to_vec().map_err(parts::read_back)?;
        let order = |head: &[f32]| {
            let mut order: Vec<usize> = (0..head_dim).collect();
            order.sort_by(|&a, &b| head[b].total_cmp(&head[a]));
            order
        };
        Ok(sums.chunks(head_dim).map(order).collect())
    }

    /// The `rank` most important components of each KV head, `[1, kv_heads, rank]`.
    fn best(&self, rank: usize) -> Result<Option<Tensor<3, Int>>> {
        self.sum.clone().map(|sum| parts::top(sum, rank)).transpose()
    }
}

/// Scores all positions by `rank` fixed components of the keys, summed over the group's heads, and
/// attends exactly to the `top_k` best.
#[derive(Debug)]
pub struct DoubleSparsity {
    config: DoubleSparsityConfig,
    statistics: ChannelStatistics,
    /// `[1, kv_heads, rank]`; `None` until they are needed.
    channels: Option<Tensor<3, Int>>,
}

impl DoubleSparsity {
    /// # Errors
    /// [`Error::InvalidConfig`] for sizes out of range, and channels that do not fit the layer.
    pub fn new(config: DoubleSparsityConfig, shape: &AttentionShape) -> Result<Self> {
        config.validate(shape)?;
        Ok(Self { config, statistics: ChannelStatistics::default(), channels: None })
    }

    /// The channels in use: those of the configuration, else of the prompt.
    fn channels(&mut self, sequence: &CachedSequence<'_>) -> Result<Tensor<3, Int>> {
        if let Some(channels) = &self.channels {
            return Ok(channels.clone());
        }
        let rank = self.config.rank;
        let channels = if self.config.channels.is_empty() {
            let missing = "a prompt to find label channels from, and the configuration has none";
            self.statistics.best(rank)?.ok_or(Error::MissingInCache { missing })?
        } else {
            let lists = self.config.channels.iter();
            let values: Vec<i64> = lists.flat_map(|list| list[..rank].iter().map(|&c| c as i64)).collect();
            let kv_heads = self.config.channels.len();
            parts::ints(values, [1, kv_heads, rank], &sequence.k()?.device())
        };
        self.channels = Some(channels.clone());
        Ok(channels)
    }

    fn transfer(&self, sequence: &CachedSequence<'_>) -> Transfer {
        let spans = sequence.spans();
        let kept = parts::kept(&spans, self.config.top_k);
        let scored = parts::live(&spans) * sequence.layer().shape.kv_heads * self.config.rank;
        Transfer {
            k_t: sequence.kt_part(scored, KtFormat::Cache),
            ..parts::rows_transfer(sequence, kept, kept)
        }
    }
}

impl DecodeMethod for DoubleSparsity {
    fn name(&self) -> &'static str {
        MethodKind::DoubleSparsity.name()
    }

    fn cache_extras(&self) -> CacheExtras {
        CacheExtras { k_t: true, ..CacheExtras::default() }
    }

    fn observe_prefill(&mut self, chunk: &PromptChunk<'_>, sequence: &CachedSequence<'_>) -> Result<()> {
        if self.config.channels.is_empty() {
            self.statistics.observe(chunk, sequence)?;
            self.channels = None;
        }
        Ok(())
    }

    fn resume(&self, method: &Method) -> Option<Box<dyn DecodeMethod>> {
        match method {
            Method::DoubleSparsity(config) if config.channels == self.config.channels => {
                let statistics = self.statistics.clone();
                Some(Box::new(Self { config: config.clone(), statistics, channels: None }))
            }
            _ => None,
        }
    }

    fn truncate(&mut self, sequence: &CachedSequence<'_>) -> Result<()> {
        // What each token added to the statistics is not recorded.
        if self.config.channels.is_empty() {
            if !sequence.is_empty() {
                return Err(Error::CannotGoBack { method: self.name() });
            }
            self.statistics = ChannelStatistics::default();
            self.channels = None;
        }
        Ok(())
    }

    fn fork(&self) -> Option<Box<dyn DecodeMethod>> {
        self.resume(&Method::DoubleSparsity(self.config.clone()))
    }

    fn decode(&mut self, q: Tensor<4>, sequence: &CachedSequence<'_>) -> Result<Decoded> {
        let spans = sequence.spans();
        if spans.max_len() <= self.config.top_k {
            return Dense.decode(q, sequence);
        }
        ops::check_queries(&q, sequence.layer().shape, [1, 1])?;
        let shape = sequence.layer().shape;
        let channels = self.channels(sequence)?;
        let [batch, kv_heads, rank] = channels.dims();
        let q = parts::grouped(q, &shape);
        let wide = channels.clone().unsqueeze_dim::<4>(2).expand([batch, kv_heads, shape.group(), rank]);
        let labels = parts::kt_rows(sequence, &channels)?; // [batch, kv_heads, rank, len]
        let scores = q.clone().gather(3, wide).matmul(labels);
        let scores = parts::mask_dead(scores, &spans);
        let every = scores.clone();
        let scores = parts::sum_group(scores);
        let scores = parts::force_last(scores, &spans, self.config.local_window);
        let attended = parts::attend(q, sequence, parts::top(scores, self.config.top_k)?)?;
        Ok(Decoded {
            output: parts::unless_overflowed(attended.output, every),
            transfer: self.transfer(sequence),
            selection: Some(Selection {
                positions: attended.positions,
                masses: None,
                weights: Some(parts::by_head(attended.weights)),
            }),
        })
    }
}
