//! Which file of a model folder holds the weights: one list for folders and for the hub.

use std::path::Path;

use super::error::model_name;
use crate::error::list;

/// Tokenizers in forms that are not read.
pub(crate) const OTHER_TOKENIZERS: &[&str] = &[
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tiktoken.model",
    "tekken.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
];

/// Weight files in the order in which they are looked for: the first one that is there is read.
const KNOWN: &[(&str, Layout)] = &[
    ("model.safetensors", Layout::Single(Format::Safetensors)),
    ("model.safetensors.index.json", Layout::Sharded),
    ("pytorch_model.bin", Layout::Single(Format::Pytorch)),
    ("pytorch_model.bin.index.json", Layout::Sharded),
    ("pytorch_model.pt", Layout::Single(Format::Pytorch)),
    ("model.pt", Layout::Single(Format::Pytorch)),
    ("model.pth", Layout::Single(Format::Pytorch)),
];

/// How weights are spread over files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One file.
    Single(Format),
    /// The shards that an index names.
    Sharded,
}

/// How a weight file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Safetensors,
    Pytorch,
}

impl Format {
    /// The format of a file of this name, if it is one that is read.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
        if ends(&[".safetensors"]) {
            Some(Self::Safetensors)
        } else {
            ends(&[".bin", ".pt", ".pth"]).then_some(Self::Pytorch)
        }
    }
}

/// The names of weight files that are looked for, in order.
pub(super) fn known() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|&(name, _)| name)
}

/// The file to begin with among the files `names` of one folder.
///
/// # Errors
///
/// What is there instead of weights.
pub(crate) fn choose(names: &[String]) -> Result<(String, Layout), Lack> {
    let is_there = |wanted: &str| names.iter().any(|name| name == wanted);
    if let Some(&(name, layout)) = KNOWN.iter().find(|(name, _)| is_there(name)) {
        return Ok((name.to_owned(), layout));
    }
    let of_format = |format: Format| -> Vec<String> {
        let found = names.iter().filter(|name| Format::of(name) == Some(format) && kind(name).is_none());
        found.cloned().collect()
    };
    for (format, index) in [
        (Format::Safetensors, "model.safetensors.index.json"),
        (Format::Pytorch, "pytorch_model.bin.index.json"),
    ] {
        let mut found = of_format(format);
        found.sort_unstable();
        if found.iter().any(|name| is_part(name)) {
            return Err(Lack::NoIndex { index, found });
        }
        // Some repositories call their only weight file by another name.
        match found.len() {
            0 => {}
            1 => return Ok((found.remove(0), Layout::Single(format))),
            _ => return Err(Lack::Several { found }),
        }
    }
    Err(Lack::of(names))
}

/// Whether a name is that of one shard of several.
fn is_part(name: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    name.match_indices("-of-").any(|(at, _)| {
        let count = &name[at + 4..];
        let count = &count[..digits(count)];
        name[..at].ends_with(|last: char| last.is_ascii_digit())
            && !count.is_empty()
            && count.parse() != Ok(1)
    })
}

/// What is in a folder or a repository that has no weights to read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lack {
    /// Nothing that looks like weights.
    Nothing,
    /// Shards without the index that says which tensor is where.
    NoIndex {
        /// The index that is missing.
        index: &'static str,
        /// The shards.
        found: Vec<String>,
    },
    /// Several weight files under names that do not say which one to read.
    Several {
        /// Their names.
        found: Vec<String>,
    },
    /// Weights of another program, or parts of a model that are no weights.
    Other {
        /// What the first of them is.
        kind: Kind,
        /// Names of all files of that kind.
        found: Vec<String>,
    },
}

/// What a file is by its name, where it is no weight file of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Small changes to the weights of another model (PEFT, LoRA).
    Adapter,
    /// A model in the format of llama.cpp.
    Gguf,
    /// A model of MLX.
    Mlx,
    /// An ONNX model.
    Onnx,
    /// A model of TensorFlow.
    TensorFlow,
    /// A model of Flax.
    Flax,
    /// A model of OpenVINO.
    OpenVino,
    /// Meta's own files, with other names and another split of the tensors.
    Meta,
    /// What training keeps beside the weights.
    Training,
}

/// What a file is by its name: what is neither weights nor known is nothing.
pub(super) fn kind(name: &str) -> Option<Kind> {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if begins(&["adapter_model.", "adapter_config.", "pytorch_lora_weights."]) {
        Some(Kind::Adapter)
    } else if ends(&[".gguf", ".ggml"]) || begins(&["ggml-"]) {
        Some(Kind::Gguf)
    } else if ends(&[".npz"]) {
        Some(Kind::Mlx)
    } else if begins(&["openvino_"]) {
        Some(Kind::OpenVino)
    } else if ends(&[".onnx", ".onnx_data", ".ort"]) {
        Some(Kind::Onnx)
    } else if ends(&[".h5", ".keras", ".tflite", ".pb"]) || begins(&["model.ckpt"]) {
        Some(Kind::TensorFlow)
    } else if ends(&[".msgpack"]) {
        Some(Kind::Flax)
    } else if begins(&["consolidated."]) && ends(&[".pth"]) {
        Some(Kind::Meta)
    } else if begins(&["training_args.", "optimizer.", "scheduler.", "scaler.", "rng_state", "random_states"])
    {
        Some(Kind::Training)
    } else {
        None
    }
}

impl Lack {
    /// What the files `names` are, of which none is a weight file to read.
    fn of(names: &[String]) -> Self {
        const IN_ORDER: [Kind; 9] = [
            Kind::Adapter,
            Kind::Gguf,
            Kind::Mlx,
            Kind::Meta,
            Kind::Onnx,
            Kind::TensorFlow,
            Kind::Flax,
            Kind::OpenVino,
            Kind::Training,
        ];
        let of_kind = |wanted: Kind| {
            let found =
                names.iter().filter(|name| kind(name.rsplit('/').next().unwrap_or(name)) == Some(wanted));
            let mut found: Vec<String> = found.cloned().collect();
            found.sort_unstable();
            (!found.is_empty()).then_some(Self::Other { kind: wanted, found })
        };
        IN_ORDER.into_iter().find_map(of_kind).unwrap_or(Self::Nothing)
    }

    /// What was looked for, and what is there.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Nothing => format!("looked for {}", known().collect::<Vec<_>>().join(", ")),
            Self::NoIndex { index, found } => {
                format!("there are shards without their index {index} ({})", list(found))
            }
            Self::Several { found } => format!("none of {} is called as weights are", list(found)),
            Self::Other { kind, found } => format!("{} ({})", kind.describe(), list(found)),
        }
    }

    /// What to do about it; `folder` is where it is, for a model that is here already.
    pub(crate) fn hint(&self, folder: Option<&Path>) -> String {
        let pull = folder.and_then(model_name).map(|name| format!("`sparq pull {name}`"));
        match self {
            Self::Nothing => match pull {
                Some(pull) => format!("fetch them: {pull}"),
                None => "the weights are model.safetensors, or shards with model.safetensors.index.json: download \
                         them as well"
                    .to_owned(),
            },
            Self::NoIndex { index, .. } => match pull {
                Some(pull) => format!("fetch {index}: {pull}"),
                None => format!("download {index} as well"),
            },
            Self::Several { .. } => {
                "rename the one that holds the weights to model.safetensors (or pytorch_model.bin)".to_owned()
            }
            Self::Other { kind, .. } => kind.hint().to_owned(),
        }
    }
}

impl Kind {
    fn describe(self) -> &'static str {
        match self {
            Self::Adapter => "there is an adapter (LoRA, PEFT), which changes the weights of another model",
            Self::Gguf => "there is a GGUF file, which is not read",
            Self::Mlx => "there are weights of MLX, which are not read",
            Self::Onnx => "there is an ONNX model, which is not read",
            Self::TensorFlow => "there are weights of TensorFlow, which are not read",
            Self::Flax => "there are weights of Flax, which are not read",
            Self::OpenVino => "there is a model of OpenVINO, which is not read",
            Self::Meta => "there are files in Meta's own layout, which is not read",
            Self::Training => "there is what training keeps beside the weights",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Adapter => {
                "merge it into its base model and save that: `PeftModel.from_pretrained(…).merge_and_unload()\
                 .save_pretrained(FOLDER)`"
            }
            Self::Flax | Self::TensorFlow => {
                "take the model's safetensors or PyTorch files; transformers 4 converts, with from_flax=True or \
                 from_tf=True and save_pretrained"
            }
            Self::Training => "download model.safetensors as well",
            Self::Meta => "take the files of the model's repository for transformers (often named -hf)",
            Self::Gguf | Self::Mlx | Self::Onnx | Self::OpenVino => {
                "take the original model, with safetensors files: its page names it as the base model"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(names: &[&str]) -> Result<(String, Layout), Lack> {
        choose(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn safetensors_are_preferred_and_copies_are_left() {
        const SINGLE: Layout = Layout::Single(Format::Safetensors);
        let chosen = |names: &[&str]| choice(names).unwrap();
        let is = |name: &str, layout| (name.to_owned(), layout);
        assert_eq!(chosen(&["pytorch_model.bin", "model.safetensors"]), is("model.safetensors", SINGLE));
        let sharded =
            ["consolidated.safetensors", "model-1-of-2.safetensors", "model.safetensors.index.json"];
        let index = "model.safetensors.index.json";
        assert_eq!(chosen(&sharded), is(index, Layout::Sharded));
        let pytorch = Layout::Single(Format::Pytorch);
        assert_eq!(chosen(&["flax_model.msgpack", "pytorch_model.bin"]), is("pytorch_model.bin", pytorch));
        assert_eq!(
            chosen(&["model.fp16.safetensors", "pytorch_model.bin"]),
            is("pytorch_model.bin", pytorch)
        );
    }

    #[test]
    fn the_only_weight_file_may_have_any_name() {
        for name in [
            "weights.safetensors",
            "consolidated.safetensors",
            "model-00001-of-00001.safetensors",
            "best-of-all.bin",
        ] {
            let others =
                ["adapter_model.safetensors", "optimizer.bin", "training_args.bin", "rng_state_0.pth"];
            let (chosen, layout) = choice(&[&others[..], &[name]].concat()).unwrap();
            assert_eq!((chosen.as_str(), layout), (name, Layout::Single(Format::of(name).unwrap())));
        }
    }

    #[test]
    fn what_is_there_instead_is_named() {
        for (names, message, hint) in [
            (&["config.json"][..], "looked for model.safetensors", "download them"),
            (
                &["m-1-of-2.safetensors", "m-2-of-2.safetensors"],
                "without their index model.safetensors.index.json",
                "as well",
            ),
            (
                &["m-1-of-2.bin", "training_args.bin"],
                "pytorch_model.bin.index.json (m-1-of-2.bin)",
                "as well",
            ),
            (&["a.safetensors", "b.safetensors"], "none of a.safetensors, b.safetensors", "rename the one"),
            (&["adapter_config.json", "adapter_model.safetensors", "optimizer.pt"], "adapter", "merge it"),
            (&["x.Q4_K_M.gguf"], "GGUF", "original model"),
            (&["weights.npz"], "MLX", "original model"),
            (&["onnx/model.onnx"], "ONNX", "original model"),
            (&["tf_model.h5"], "TensorFlow", "from_tf"),
            (&["flax_model.msgpack"], "Flax", "from_flax"),
            (&["openvino_model.bin", "openvino_model.xml"], "OpenVINO", "original model"),
            (&["consolidated.00.pth", "params.json"], "Meta", "-hf"),
            (&["training_args.bin"], "training", "model.safetensors"),
            (&["optimizer.bin"], "training", "model.safetensors"),
        ] {
            let lack = choice(names).unwrap_err();
            assert!(lack.describe().contains(message), "{names:?}: {}", lack.describe());
            assert!(lack.hint(None).contains(hint), "{names:?}: {}", lack.hint(None));
        }
    }
}
