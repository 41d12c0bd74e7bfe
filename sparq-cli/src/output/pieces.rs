//! Tokens, one a line.

use sparq_models::tokenizer::{Piece, Tokenizer};

/// Ids and pieces. A piece is quoted, with escapes for what a terminal would not show.
pub(crate) fn pieces(pieces: &[Piece]) -> String {
    let width = pieces.iter().map(|piece| piece.id).max().unwrap_or_default().to_string().len();
    let line = |piece: &Piece| {
        let special = if piece.is_special { "  special" } else { "" };
        format!("{:>width$}  {:?}{special}\n", piece.id, piece.text)
    };
    pieces.iter().map(line).collect()
}

/// A prompt as the model sees it: its text with special tokens spelled out, and its tokens.
///
/// # Errors
///
/// Those of the tokenizer.
pub(crate) fn prompt(tokenizer: &Tokenizer, ids: &[u32]) -> sparq_models::Result<String> {
    let text = tokenizer.spell_out(ids)?;
    Ok(format!("prompt     {} tokens: {text:?}\n{}", ids.len(), pieces(&tokenizer.pieces(ids)?)))
}
