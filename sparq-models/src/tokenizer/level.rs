//! Bytes as the vocabularies of the byte level spell them: one character for each.

/// The text of a token that may hold parts of characters, which are written as `<0xF0>`. `None` for a
/// token with characters that stand for no byte.
pub(super) fn spelled(token: &str) -> Option<String> {
    let bytes: Vec<u8> = token.chars().map(byte).collect::<Option<_>>()?;
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text += chunk.valid();
        chunk.invalid().iter().for_each(|byte| text += &format!("<0x{byte:02X}>"));
    }
    Some(text)
}

/// The byte that a character stands for: itself, or one of those that cannot be seen, numbered from 256 on.
fn byte(character: char) -> Option<u8> {
    let is_seen = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u8::try_from(u32::from(character)) {
        Ok(byte) => is_seen(byte).then_some(byte),
        Err(_) => {
            let number = u32::from(character).checked_sub(256)?;
            (0..=u8::MAX).filter(|&byte| !is_seen(byte)).nth(number as usize)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_characters_are_written_as_bytes() {
        // As GPT-2 spells the bytes of an emoji, of a blank, and the last one without a sign of its own.
        assert_eq!(spelled("\u{f0}\u{141}\u{13a}\u{122}").unwrap(), "😀");
        assert_eq!(spelled("\u{120}\u{f0}\u{141}").unwrap(), " <0xF0><0x9F>");
        assert_eq!(spelled("\u{138}").unwrap(), "<0x96>");
        assert_eq!(spelled("\u{143}a").unwrap(), "<0xAD>a");
        assert_eq!((spelled("\u{144}"), spelled("▁")), (None, None));
    }
}
