//! How the tensors of a checkpoint differ from those of the model.

use std::fmt;
use std::path::PathBuf;

use burn::tensor::DType;
use safetensors::Dtype;

use super::base::is_head;
use super::error::download_again;
use crate::error::{shorten, shown};

/// Tensors of one kind that a message lists; the rest is counted.
const LISTED: usize = 10;

/// Similarity from which a name is offered in place of a missing one: 0 is unrelated, 1 the same.
const SIMILAR: f64 = 0.6;

/// Every tensor that kept a checkpoint from loading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WeightReport {
    /// The model folder.
    pub location: PathBuf,
    /// Tensors that the model needs and the checkpoint lacks.
    pub missing: Vec<Missing>,
    /// Tensors of the wrong shape.
    pub misshapen: Vec<Misshapen>,
    /// Tensors that the checkpoint holds and the model does not use.
    pub unused: Vec<String>,
    /// Tensors in a number format that cannot be read or held.
    pub unsupported: Vec<Unsupported>,
    /// Tensors that are larger than what the device holds in one piece
    /// ([`sparq_core::Error::TooLarge`]).
    pub too_large: Vec<sparq_core::Error>,
    /// Tensors whose content the file does not give.
    pub unreadable: Vec<Unreadable>,
    /// An index that lies beside the weight file and was not read, as transformers does not.
    pub unread_index: Option<PathBuf>,
    /// Tensors that hold NaN or infinity; complete only if there are no other problems, because
    /// otherwise no more weights are read.
    pub non_finite: Vec<NonFinite>,
}

/// A tensor that the checkpoint lacks.
#[derive(Debug, Clone, PartialEq)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// The unused tensor whose name is most like it, if any is.
    pub closest: Option<String>,
}

/// A tensor of the wrong shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Misshapen {
    /// Its name.
    pub name: String,
    /// Its axes in the checkpoint.
    pub found: Vec<usize>,
    /// Its axes in the model.
    pub expected: Vec<usize>,
}

/// A tensor whose number format cannot be read, or cannot be held by the device.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsupported {
    /// Its name.
    pub name: String,
    /// Its format in the checkpoint.
    pub stored: Dtype,
    /// The format that the model wants.
    pub wanted: DType,
    /// The device, if it is the one that cannot hold the wanted format.
    pub device: Option<String>,
}

/// A tensor whose content cannot be read: its file is damaged in the middle, or was cut while it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// Its name.
    pub name: String,
    /// What reading the file says.
    pub message: String,
}

/// A tensor that holds NaN or infinity.
#[derive(Debug, Clone, PartialEq)]
pub struct NonFinite {
    /// Its name.
    pub name: String,
    /// Position of the first such element, counted along the flattened tensor.
    pub element: usize,
    /// Its format in the checkpoint.
    pub stored: Dtype,
    /// The format that the model wants; numbers above its range become infinite.
    pub wanted: DType,
}

impl WeightReport {
    /// Whether there is no problem at all.
    pub fn is_empty(&self) -> bool {
        !self.has_mismatch()
            && self.unused.is_empty()
            && self.unreadable.is_empty()
            && self.non_finite.is_empty()
    }

    /// Whether a problem was seen that the headers alone show.
    pub(super) fn has_mismatch(&self) -> bool {
        !(self.missing.is_empty()
            && self.misshapen.is_empty()
            && self.unsupported.is_empty()
            && self.too_large.is_empty())
    }

    /// Finds a similar name for those missing tensors that the message will list.
    pub(super) fn suggest_names(&mut self) {
        for missing in self.missing.iter_mut().take(LISTED) {
            missing.closest = closest(&missing.name, &self.unused);
        }
    }

    /// What stands before the name of every tensor that is missing.
    fn prefix(&self) -> Option<&str> {
        let first = self.missing.first()?;
        let mut prefixes = self.unused.iter().filter_map(|name| name.strip_suffix(first.name.as_str()));
        let prefix = prefixes.find(|prefix| prefix.ends_with('.'))?;
        let is_there = |missing: &Missing| {
            // An output layer may have another name.
            is_head(&missing.name)
                || self.unused.iter().any(|name| name.strip_prefix(prefix) == Some(missing.name.as_str()))
        };
        self.missing.iter().all(is_there).then_some(prefix)
    }

    /// The next step for the user.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = if let Some(first) = self.unsupported.first() {
            if self.unsupported.iter().any(|tensor| tensor.device.is_some()) {
                "try f32"
            } else if self.unsupported.iter().all(|tensor| tensor.stored == Dtype::F64) {
                "save the model in F32: F64 is not read"
            } else if is_code(first.stored) {
                "only these three formats are read: use a checkpoint that is not quantised"
            } else {
                "only these three formats are read: save the model in one of them"
            }
        } else if let (true, Some(error)) = (self.misshapen.is_empty(), self.too_large.first()) {
            return error.hint();
        } else if let (Some(index), true) =
            (&self.unread_index, self.has_mismatch() || !self.unused.is_empty())
        {
            return Some(format!(
                "`{}` lies beside the file that was read: if the shards are the model, take the single file away",
                index.display()
            ));
        } else if self.unused.iter().any(|name| name.ends_with(".attention.wq.weight")) {
            "these are names of Meta's or Mistral's own format: take the files that transformers reads"
        } else if self.unused.iter().any(|name| name.contains(".lora_")) {
            "these are the weights of an adapter (LoRA): merge it into its base model and save that"
        } else if let Some(prefix) = self.prefix() {
            return Some(format!(
                "the name of every tensor begins with `{}`, which the model does not have there (transformers \
                 would make the weights up): save the model with names without it",
                shorten(prefix)
            ));
        } else if !self.missing.is_empty() && self.missing.iter().all(|tensor| is_head(&tensor.name)) {
            "these are weights without an output layer, and config.json does not tie it to the embeddings: if the \
             model is tied, set \"tie_word_embeddings\": true there; else take the files of the whole model \
             (transformers would make the layer up)"
        } else if !self.misshapen.is_empty() {
            "config.json and the weights seem to come from different models"
        } else if !self.missing.is_empty() {
            return Some(format!(
                "config.json names another architecture than the weights have, or they are incomplete: {}",
                download_again(&self.location)
            ));
        } else if !self.unreadable.is_empty() {
            return Some(format!("the file is damaged: {}", download_again(&self.location)));
        } else if !self.unused.is_empty() {
            "config.json may name another architecture or fewer layers than the weights have"
        } else if self.non_finite.iter().any(NonFinite::is_overflow_likely) {
            "numbers above the range of f16 become infinite: try bf16 or f32"
        } else {
            return Some(format!(
                "the file is damaged, or its training diverged: {}",
                download_again(&self.location)
            ));
        };
        Some(hint.to_owned())
    }
}

/// Whether numbers in this format are codes that a scale belongs to.
fn is_code(dtype: Dtype) -> bool {
    !matches!(dtype, Dtype::F64 | Dtype::I64 | Dtype::U64 | Dtype::C64 | Dtype::BOOL)
}

impl NonFinite {
    /// Whether the number may be finite in the file, and infinite in the dtype that was asked for alone.
    pub fn is_overflow_likely(&self) -> bool {
        self.wanted == DType::F16 && self.stored != Dtype::F16
    }
}

impl fmt::Display for WeightReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the weights in `{}` do not fit the model:", self.location.display())?;
        list(f, &self.missing, "missing")?;
        list(f, &self.misshapen, "misshapen")?;
        list(f, &self.unsupported, "unsupported")?;
        list(f, &self.too_large, "too large")?;
        list(f, &self.unreadable, "unreadable")?;
        list(f, &self.non_finite, "not finite")?;
        list(f, &self.unused, "unused")
    }
}

impl std::error::Error for WeightReport {}

/// Writes the first problems of a kind, one on a line, and counts the others.
fn list<T: Problem>(f: &mut fmt::Formatter<'_>, problems: &[T], kind: &str) -> fmt::Result {
    for problem in problems.iter().take(LISTED) {
        f.write_str("\n  ")?;
        problem.describe(f)?;
    }
    match problems.len().saturating_sub(LISTED) {
        0 => Ok(()),
        more => write!(f, "\n  and {more} more {kind}"),
    }
}

/// One line of the message.
trait Problem {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl Problem for Missing {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tensor `{}` is missing", shorten(&self.name))?;
        match &self.closest {
            Some(closest) => write!(f, " (the file has `{}`)", shorten(closest)),
            None => Ok(()),
        }
    }
}

impl Problem for Misshapen {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, found) = (shorten(&self.name), shown(format_args!("{:?}", self.found)));
        write!(f, "tensor `{name}` has shape {found}, expected {:?}", self.expected)
    }
}

impl Problem for Unsupported {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stored, wanted, device, .. } = self;
        let name = shorten(&self.name);
        match device {
            Some(device) => {
                write!(f, "tensor `{name}` cannot be {} on {device}", wanted.name())
            }
            None => write!(f, "tensor `{name}` is stored as {stored}, not as F32, F16 or BF16"),
        }
    }
}

impl Problem for sparq_core::Error {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Problem for Unreadable {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tensor `{}` cannot be read: {}", shorten(&self.name), shorten(&self.message))
    }
}

impl Problem for NonFinite {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { element, stored, wanted, .. } = self;
        write!(
            f,
            "tensor `{}` holds NaN or infinity at element {element} (stored as {stored}, loaded as {})",
            shorten(&self.name),
            wanted.name()
        )
    }
}

impl Problem for String {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tensor `{}` is not used by the model", shorten(self))
    }
}

/// The candidate that is most like `name`, if any is like it at all.
fn closest(name: &str, candidates: &[String]) -> Option<String> {
    let similarity = |candidate: &str| {
        // A prefix too many or too few is the usual difference.
        if candidate.ends_with(name) || name.ends_with(candidate) {
            1.0
        } else {
            strsim::normalized_levenshtein(name, candidate)
        }
    };
    let scored = candidates.iter().map(|candidate| (similarity(candidate), candidate));
    let best = scored.max_by(|(left, _), (right, _)| left.total_cmp(right));
    best.filter(|&(score, _)| score >= SIMILAR).map(|(_, candidate)| candidate.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closest_name_must_be_similar() {
        let names = ["layers.0.self_attn.q_proj.weight", "layers.0.self_attn.k_proj.weight"];
        let names = names.map(str::to_owned);
        let find = |name| closest(name, &names);
        let q = find("model.layers.0.self_attn.q_proj.weight");
        assert_eq!(q.as_deref(), Some("layers.0.self_attn.q_proj.weight"));
        let k = find("layers.0.attn.k_proj.weight");
        assert_eq!(k.as_deref(), Some("layers.0.self_attn.k_proj.weight"));
        assert_eq!(find("lm_head.weight"), None);
        assert_eq!(closest("lm_head.weight", &[]), None);
    }

    #[test]
    fn long_lists_are_cut_with_a_count() {
        let missing = |i| Missing { name: format!("layer{i}"), closest: None };
        let report = WeightReport {
            location: "m".into(),
            missing: (0..25).map(missing).collect(),
            unused: vec!["extra".into()],
            ..WeightReport::default()
        };
        let text = report.to_string();
        assert!(text.starts_with("the weights in `m` do not fit the model:\n"), "{text}");
        assert!(text.contains("\n  tensor `layer9` is missing\n  and 15 more missing"), "{text}");
        assert!(!text.contains("layer10"), "{text}");
        assert!(text.ends_with("\n  tensor `extra` is not used by the model"), "{text}");
    }
}
