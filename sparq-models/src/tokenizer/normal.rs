//! The normalizer of a `tokenizer.json`, with regular expressions as they are meant there, and checked for a
//! size that the library reserves memory by.

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper};

use super::words::WordPattern;

/// One of the library's normalizers.
pub(super) enum Normal {
    /// One after the other.
    Sequence(Vec<Normal>),
    /// What a regular expression matches becomes another text.
    Replace { pattern: WordPattern, content: String },
    /// One without a regular expression.
    Other(NormalizerWrapper),
}

impl Normal {
    fn from_json(json: &Value) -> Result<Self, String> {
        let regex = json.pointer("/pattern/Regex").and_then(Value::as_str);
        match (json["type"].as_str(), regex, json["normalizers"].as_array()) {
            (Some("Sequence"), _, Some(parts)) => {
                Ok(Self::Sequence(parts.iter().map(Self::from_json).collect::<Result<_, _>>()?))
            }
            (Some("Replace"), Some(regex), _) => match json["content"].as_str() {
                Some(content) => {
                    Ok(Self::Replace { pattern: WordPattern::from_ruby(regex)?, content: content.to_owned() })
                }
                None => Err("`Replace` without a text in `content`".to_owned()),
            },
            _ => NormalizerWrapper::deserialize(json).map(Self::Other).map_err(|error| error.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for Normal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        check(&json)
            .and_then(|()| Self::from_json(&json))
            .map_err(|error| de::Error::custom(format!("field `normalizer`: {error}")))
    }
}

impl Normalizer for Normal {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        match self {
            Self::Sequence(parts) => parts.iter().try_for_each(|part| part.normalize(text)),
            Self::Replace { pattern, content } => text.replace(pattern, content),
            Self::Other(other) => other.normalize(text),
        }
    }
}

/// Compares the size that a table of replacements states with the bytes that are there.
fn check(json: &Value) -> Result<(), String> {
    if let Some(table) = json.get("precompiled_charsmap").and_then(Value::as_str) {
        let bytes = table.len() * 3 / 4;
        if let Some(stated) = leading_u32(table).filter(|&stated| stated as usize > bytes) {
            return Err(format!("`precompiled_charsmap` has {bytes} bytes and states {stated}"));
        }
    }
    json.get("normalizers").and_then(Value::as_array).into_iter().flatten().try_for_each(check)
}

/// The first four bytes of a text in base64, the lowest first.
fn leading_u32(base64: &str) -> Option<u32> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Option<Vec<u8>> = base64.bytes().take(6).map(digit).collect();
    let bits = digits.filter(|digits| digits.len() == 6)?;
    let bits = bits.into_iter().fold(0u64, |bits, digit| bits << 6 | u64::from(digit));
    Some(((bits >> 4) as u32).swap_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_are_read_from_base64() {
        assert_eq!(leading_u32("AQAAAAA="), Some(1));
        assert_eq!(leading_u32("ALQCAACEAAA"), Some(0x2B400));
        assert_eq!(leading_u32("/////w=="), Some(u32::MAX));
        assert_eq!((leading_u32(""), leading_u32("AQA"), leading_u32("....AAAA")), (None, None, None));
    }

    #[test]
    fn a_table_larger_than_its_bytes_is_refused() {
        let table = |base64| json!({"type": "Precompiled", "precompiled_charsmap": base64});
        assert!(check(&table("AAAAAAAA")).is_ok());
        let nested = json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, table("AAQAAAAA")]});
        assert_eq!(check(&nested).unwrap_err(), "`precompiled_charsmap` has 6 bytes and states 1024");
        assert!(serde_json::from_value::<Normal>(nested).is_err());
        assert!(serde_json::from_value::<Normal>(json!({"type": "NFC"})).is_ok());
    }
}
