//! Which of transformers' tokenizer classes a model folder asks for, and what a class adds to its files.
//!
//! `AutoTokenizer` of transformers 5 goes by `tokenizer_class` and by `model_type`. A plain class takes
//! `tokenizer.json` as it is. The others have tokens for roles that no file mentions, and may set the tokens
//! around a text and the space before it.

use serde_json::{Value, json};
use tokenizers::PostProcessorWrapper;

use super::Inner;

/// A class, as far as it matters here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Class {
    /// One that adds nothing, as those do that nobody knows.
    #[default]
    Plain,
    Gpt2,
    GptNeoX,
    Qwen2,
    Gemma,
    Llama,
    CodeLlama,
}

/// What stands in a model's files about its class.
pub(super) struct Asked<'a> {
    /// `config.json`.
    pub(super) model: Option<&'a Value>,
    /// `tokenizer_config.json`.
    pub(super) config: Option<&'a Value>,
    /// Whether `tokenizer.json` is byte-level. Asked where it matters.
    pub(super) is_byte_level: &'a dyn Fn() -> bool,
}

impl Asked<'_> {
    /// The class that transformers takes.
    pub(super) fn class(&self) -> Class {
        let text = |json: Option<&Value>, name: &str| {
            json.and_then(|json| json.get(name)).and_then(Value::as_str).map(str::to_owned)
        };
        let own = text(self.config, "tokenizer_class");
        let of_model = text(self.model, "tokenizer_class").filter(|name| !name.is_empty());
        let stated = own.clone().filter(|name| !name.is_empty()).or(of_model.clone());
        let model_type = text(self.model, "model_type").unwrap_or_default();
        let registered = registered(&model_type);
        // Files of these families often name a wrong class.
        let is_distrusted = ["qwen2", "phi3"].contains(&model_type.as_str());
        let has_code = self.config.and_then(|config| config.get("auto_map")).is_some_and(|map| match map {
            Value::Object(map) => map.get("AutoTokenizer").is_some_and(|class| !class.is_null()),
            map => map.is_array(),
        });
        if let Some(stated) = stated.as_deref().filter(|_| !has_code) {
            let named = Class::named(stated);
            if named == Class::Llama && !is_distrusted && (self.is_byte_level)() {
                return Class::Plain;
            }
            match registered {
                Some(registered) if registered != named || named == Class::Plain => {
                    return match registered {
                        Class::Plain => Class::Plain,
                        registered if is_distrusted => registered,
                        _ => named,
                    };
                }
                _ => {}
            }
        }
        match own.or(of_model) {
            Some(name) => Class::named(&name),
            None => registered.unwrap_or_default(),
        }
    }
}

/// The class of a family, where transformers has one for it.
fn registered(model_type: &str) -> Option<Class> {
    Some(match model_type {
        "qwen2" | "qwen3" => Class::Qwen2,
        "gemma" | "gemma2" | "gemma3_text" => Class::Gemma,
        "gpt_neox" => Class::GptNeoX,
        "mistral" | "ministral" | "phi3" => Class::Plain,
        _ => return None,
    })
}

impl Class {
    fn named(name: &str) -> Self {
        match name.strip_suffix("Fast").unwrap_or(name) {
            "GPT2Tokenizer" => Self::Gpt2,
            "GPTNeoXTokenizer" => Self::GptNeoX,
            "Qwen2Tokenizer" => Self::Qwen2,
            "GemmaTokenizer" => Self::Gemma,
            "LlamaTokenizer" => Self::Llama,
            "CodeLlamaTokenizer" => Self::CodeLlama,
            _ => Self::Plain,
        }
    }

    /// Tokens of roles that no file mentions.
    pub(super) fn roles(self) -> &'static [(&'static str, &'static str)] {
        const END: &str = "<|endoftext|>";
        match self {
            Self::Plain => &[],
            Self::Gpt2 => &[("bos_token", END), ("eos_token", END), ("unk_token", END)],
            Self::GptNeoX => {
                &[("bos_token", END), ("eos_token", END), ("unk_token", END), ("pad_token", "<|padding|>")]
            }
            Self::Qwen2 => &[("eos_token", END), ("unk_token", END), ("pad_token", END)],
            Self::Gemma => &[
                ("bos_token", "<bos>"),
                ("eos_token", "<eos>"),
                ("unk_token", "<unk>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
            Self::Llama => &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")],
            Self::CodeLlama => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "<unk>"),
                ("prefix_token", "▁<PRE>"),
                ("middle_token", "▁<MID>"),
                ("suffix_token", "▁<SUF>"),
                ("eot_token", "▁<EOT>"),
                ("fill_token", "<FILL_ME>"),
            ],
        }
    }

    /// What `add_prefix_space` is where the file says nothing, for classes that read it: whether every text
    /// begins with a space.
    pub(super) fn prefix_space(self) -> Option<bool> {
        match self {
            Self::Gpt2 | Self::GptNeoX | Self::Qwen2 => Some(false),
            Self::Llama | Self::CodeLlama => Some(true),
            Self::Plain | Self::Gemma => None,
        }
    }

    /// Whether `add_prefix_space` may be null for its default.
    pub(super) fn prefix_space_is_optional(self) -> bool {
        !matches!(self, Self::Gpt2 | Self::GptNeoX)
    }

    /// Makes every text begin with a space, or none.
    ///
    /// # Errors
    /// Those of the library.
    pub(super) fn set_prefix_space(self, tokenizer: &mut Inner, on: bool) -> tokenizers::Result<()> {
        if let Self::Gpt2 | Self::GptNeoX | Self::Qwen2 = self {
            let changed = tokenizer.get_pre_tokenizer().and_then(|words| words.with_prefix_space(on));
            if let Some(words) = changed {
                tokenizer.with_pre_tokenizer(Some(words));
            }
        } else if !on {
            // The spaces of a SentencePiece model, without one before the text.
            let words =
                json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": false});
            let mut decoders = vec![
                json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
                json!({"type": "ByteFallback"}),
                json!({"type": "Fuse"}),
            ];
            if self == Self::CodeLlama {
                decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
            }
            tokenizer.with_normalizer(None::<super::Normal>)?;
            tokenizer.with_pre_tokenizer(Some(serde_json::from_value::<super::Words>(words)?));
            let decoder = json!({"type": "Sequence", "decoders": decoders});
            tokenizer.with_decoder(Some(serde_json::from_value::<super::Decode>(decoder)?));
        }
        Ok(())
    }

    /// Sets the tokens around a text where the class makes them itself: none, or `bos` before it.
    ///
    /// # Errors
    /// Those of the library.
    pub(super) fn set_frame(self, tokenizer: &mut Inner, bos: Option<&str>) -> tokenizers::Result<()> {
        let bos = match self {
            Self::GptNeoX => None,
            Self::CodeLlama => bos.and_then(|bos| Some((bos, tokenizer.token_to_id(bos)?))),
            _ => return Ok(()),
        };
        let frame = bos.map(|(bos, id)| {
            let token = json!({"SpecialToken": {"id": bos, "type_id": 0}});
            let text = json!({"Sequence": {"id": "A", "type_id": 0}});
            json!({
                "type": "TemplateProcessing", "single": [token, text],
                "pair": [token, text, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}}
            })
        });
        let frame = frame.map(serde_json::from_value::<PostProcessorWrapper>).transpose()?;
        tokenizer.with_post_processor(frame);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
