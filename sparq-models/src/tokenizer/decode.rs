//! The decoder of a `tokenizer.json`, with regular expressions as they are meant there.

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use tokenizers::{Decoder, DecoderWrapper};

use super::ruby;

/// One of the library's decoders.
pub(super) struct Decode(pub(super) DecoderWrapper);

impl<'de> Deserialize<'de> for Decode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut json = Value::deserialize(deserializer)?;
        let fail = |error: String| de::Error::custom(format!("field `decoder`: {error}"));
        translate(&mut json).map_err(fail)?;
        DecoderWrapper::deserialize(&json).map(Self).map_err(|error| fail(error.to_string()))
    }
}

impl Decoder for Decode {
    fn decode_chain(&self, tokens: Vec<String>) -> tokenizers::Result<Vec<String>> {
        self.0.decode_chain(tokens)
    }
}

/// Puts all regular expressions into the library's syntax.
fn translate(json: &mut Value) -> Result<(), String> {
    if let Some(Value::String(pattern)) = json.pointer_mut("/pattern/Regex") {
        *pattern = ruby::translate(pattern).map_err(|error| ruby::refusal(pattern, &error))?;
    }
    json.get_mut("decoders").and_then(Value::as_array_mut).into_iter().flatten().try_for_each(translate)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns_are_as_in_ruby() {
        let replace = |regex| json!({"type": "Replace", "pattern": {"Regex": regex}, "content": "_"});
        let decoder = |regex| json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, replace(regex)]});
        let decode: Decode = serde_json::from_value(decoder("^b|[[:alpha:]]$")).unwrap();
        let text = decode.decode_chain(vec!["a\n".to_owned(), "bc\u{e9}".to_owned()]).unwrap();
        assert_eq!(text.concat(), "_\n_c_");
        let error = serde_json::from_value::<Decode>(decoder(r"\X")).err().unwrap().to_string();
        assert_eq!(error, r"field `decoder`: pattern `\X`: `\X` is not built");
    }
}
