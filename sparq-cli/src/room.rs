//! How much memory there is for a model, its cache, or a benchmark; asked before any of it is taken.

use std::fs;

use burn::tensor::{DType, Device};
use sparq_core::{
    KtFormat,
    device::{DeviceInfo, describe},
};
use sparq_models::{
    attention::AttentionPlan,
    checkpoint::Checkpoint,
    crossover::MEMORY,
    inspect::{Formats, Inspection},
};

use crate::{hint::Advice, output::bytes};

/// Tokens behind the prompt that a run takes memory for before it begins.
const RESERVED_TOKENS: usize = 4096;
/// The part of the free memory that measuring from where on SparQ is faster may take.
const MEASURING_PART: u64 = 4;

/// Bytes that `device` has free: those of the machine within the limits of this process for a processor,
/// all of its own for a GPU. `None` where it does not say.
pub(crate) fn free(device: &Device) -> Option<u64> {
    match describe(device).as_str() {
        "flex" | "ndarray" | "libtorch" => host(),
        _ => DeviceInfo::of(device).memory,
    }
}

/// An error where `needed` bytes, which `what` takes, are more than `device` has free.
pub(crate) fn require(device: &Device, needed: u128, what: &str, hint: &str) -> anyhow::Result<()> {
    match free(device) {
        Some(free) if needed > u128::from(free) => {
            let (needed, free) = (bytes(needed as f64), bytes(free as f64));
            Err(Advice::new(format!("{what} takes {needed} of memory, and {free} are free"), hint).into())
        }
        _ => Ok(()),
    }
}

/// What a model takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Need {
    weights: u128,
    /// Of the cache, for each token.
    per_token: u128,
    /// Of the cache, whatever its length.
    fixed: u128,
    /// The longest context that the model was made for, where it is stated.
    pub(crate) context: Option<usize>,
}

impl Need {
    /// What `checkpoint` takes in `dtype`, with the transposed keys that SparQ keeps where `kt_format` is
    /// stated. `None` where its configuration does not say, or says what cannot be true: loading it does.
    pub(crate) fn of(checkpoint: &Checkpoint, dtype: DType, kt_format: Option<KtFormat>) -> Option<Self> {
        let inspection = Inspection::new(checkpoint).ok()?;
        let sizes = &inspection.sizes;
        let shape = sizes.attention_shape()?;
        let wide = |size: usize| size as u128;
        let vector =
            wide(shape.kv_heads).checked_mul(wide(shape.head_dim))?.checked_mul(wide(sizes.layers?))?;
        let hidden = wide(sizes.hidden_size?);
        // The projections to keys and values alone; more than there is cannot be.
        let projections = vector.checked_mul(2)?.checked_mul(hidden)?;
        let is_made_up = inspection.tensors == 0;
        let weights = match is_made_up {
            true => {
                let field = |name: &str| u128::from(checkpoint.config_json()[name].as_u64().unwrap_or(0));
                let queries = wide(shape.heads).checked_mul(wide(shape.head_dim))?.checked_mul(2)?;
                let of_layer =
                    queries.checked_add(field("intermediate_size").checked_mul(3)?)?.checked_mul(hidden)?;
                let layers = of_layer.checked_mul(wide(sizes.layers?))?.checked_add(projections)?;
                let parameters = layers.checked_add(field("vocab_size").checked_mul(hidden)?)?;
                parameters.checked_mul(wide(dtype.size()))?
            }
            false if projections > u128::from(inspection.parameters) => return None,
            false => {
                let formats = Formats { dtype, weights: checkpoint.weight_format(), k_t: KtFormat::Cache };
                u128::from(inspection.memory(formats, 0).weight_bytes)
            }
        };
        let rows = vector.checked_mul(2 * wide(dtype.size()))?;
        let copy = match kt_format.map(KtFormat::bits) {
            None => 0,
            Some(None) => vector.checked_mul(wide(dtype.size()))?,
            Some(Some(bits)) => vector.checked_mul(wide(bits))? / 8,
        };
        let fixed = if kt_format.is_some() { vector.checked_mul(wide(DType::F32.size()))? } else { 0 };
        Some(Self { weights, per_token: rows.checked_add(copy)?, fixed, context: sizes.context_tokens })
    }

    /// An error where the weights and a cache of `tokens` tokens do not fit into `free` bytes.
    pub(crate) fn check(&self, free: Option<u64>, tokens: usize) -> anyhow::Result<()> {
        let (Some(free), tokens) = (free.map(u128::from), tokens as u128) else { return Ok(()) };
        let cache = self.fixed.saturating_add(self.per_token.saturating_mul(tokens));
        let needed = self.weights.saturating_add(cache);
        if needed <= free {
            return Ok(());
        }
        let left = free.saturating_sub(self.weights.saturating_add(self.fixed));
        let longest = left / self.per_token.max(1);
        let say = |count: u128| bytes(count as f64);
        let message = format!(
            "the model takes {} of memory, its weights {} and its KV cache for {tokens} tokens {}; {} are free, \
             and the longest context that fits is {longest} tokens",
            say(needed),
            say(self.weights),
            say(cache),
            say(free),
        );
        Err(Advice::new(message, match longest {
            0 => "--dtype bf16 or f16 and --weights int8 take less; so does a smaller model",
            _ => "shorten the prompt or ask for fewer tokens; --dtype bf16 or f16 and --weights int8 take less",
        })
        .into())
    }
}

/// Tokens of a cache that a run takes before it begins: those of the prompt, and those to come up to a limit.
pub(crate) fn reserved(prompt: usize, new: usize, max_seq_len: Option<usize>) -> usize {
    let tokens = prompt.saturating_add(new.min(RESERVED_TOKENS));
    max_seq_len.map_or(tokens, |longest| tokens.min(longest))
}

/// The form of the transposed keys that a method keeps, where it keeps them.
pub(crate) fn kt_format_of(plan: &AttentionPlan) -> Option<KtFormat> {
    match plan {
        AttentionPlan::Method { spec, .. } => {
            spec.takes("kt").then(|| spec.keys.kt_format.unwrap_or_default())
        }
        AttentionPlan::Profile(_) => None,
    }
}

/// Bytes that such a measurement may take.
pub(crate) fn for_measuring(device: &Device) -> u64 {
    free(device).map_or(MEMORY, |free| free / MEASURING_PART)
}

/// Bytes that this process can still take: the least of what the machine, its control groups and its own
/// limit of addresses leave.
fn host() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let swap = system.free_swap();
    let machine = match system.available_memory() {
        0 => None,
        available => Some(available.saturating_add(swap)),
    };
    let groups = linux::control_groups().map(|free| free.saturating_add(swap));
    [machine, groups, linux::addresses()].into_iter().flatten().min()
}

#[cfg_attr(not(target_os = "linux"), allow(unused))]
mod linux {
    use std::path::{Path, PathBuf};

    use super::fs;

    /// What the control groups of this process leave, each within the one above it. Memory that only holds
    /// files counts as free: the system takes it back where it is needed.
    pub(super) fn control_groups() -> Option<u64> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let group = |line: &str| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
            let (root, names) = match controllers {
                "" => ("/sys/fs/cgroup", ["memory.max", "memory.current", "inactive_file", "active_file"]),
                _ if controllers.split(',').any(|name| name == "memory") => (
                    "/sys/fs/cgroup/memory",
                    [
                        "memory.limit_in_bytes",
                        "memory.usage_in_bytes",
                        "total_inactive_file",
                        "total_active_file",
                    ],
                ),
                _ => return None,
            };
            // In a container the path may be that outside of it: the root is what applies then.
            let folder = PathBuf::from(root).join(path);
            let above = folder.ancestors().take_while(|folder| folder.starts_with(root));
            above.filter_map(|folder| free_in(folder, names)).min()
        };
        groups.lines().filter_map(group).min()
    }

    fn free_in(folder: &Path, [limit, used, inactive, active]: [&str; 4]) -> Option<u64> {
        let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let number = |name: &str| text(name)?.trim().parse::<u64>().ok();
        let (limit, used) = (number(limit)?, number(used)?);
        let stat = text("memory.stat").unwrap_or_default();
        let of = |name: &str| {
            let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or(0)
        };
        let files = of(inactive).saturating_add(of(active));
        Some(limit.saturating_sub(used.saturating_sub(files)))
    }

    /// What `ulimit -v` leaves.
    pub(super) fn addresses() -> Option<u64> {
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
        let limit: u64 = limit.split_whitespace().next()?.parse().ok()?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let taken = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
        let taken: u64 = taken.split_whitespace().next()?.parse().ok()?;
        Some(limit.saturating_sub(taken.saturating_mul(1024)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_the_longest_context_that_does() {
        let need = Need { weights: 1000, per_token: 10, fixed: 5, context: None };
        assert!(need.check(Some(2005), 100).is_ok());
        let error = need.check(Some(2004), 100).unwrap_err();
        let message = error.to_string();
        for part in ["takes 2.0 kB", "weights 1.0 kB", "for 100 tokens 1.0 kB", "fits is 99 tokens"] {
            assert!(message.contains(part), "`{part}` in {message}");
        }
        assert!(crate::hint::hint(&error).unwrap().contains("fewer tokens"));
        assert!(need.check(Some(999), 1).unwrap_err().to_string().contains("fits is 0 tokens"));
    }

    #[test]
    fn the_embedded_model_needs_what_it_holds() {
        let checkpoint = crate::demo::checkpoint().unwrap();
        let need = |kt_format| Need::of(&checkpoint, DType::BF16, kt_format).unwrap();
        let memory = Inspection::new(&checkpoint).unwrap().memory(DType::BF16, 100);
        let (dense, sparq) = (memory.dense.unwrap(), memory.sparq.unwrap());
        for (need, expected) in [(need(None), dense), (need(Some(KtFormat::Cache)), sparq)] {
            assert_eq!(need.weights, u128::from(memory.weight_bytes));
            assert_eq!(need.fixed + 100 * need.per_token, u128::from(expected.cache_bytes));
        }
        assert_eq!(
            (reserved(10, 9999, None), reserved(10, 9999, Some(50)), reserved(10, 3, None)),
            (4106, 50, 13)
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_memory() {
        let free = host().unwrap();
        assert!(free > 1 << 20, "{free}");
        require(&Device::flex(), u128::from(free) * 1000, "this", "that").unwrap_err();
        require(&Device::flex(), 1, "this", "that").unwrap();
    }
}
