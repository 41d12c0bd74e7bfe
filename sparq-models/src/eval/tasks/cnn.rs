//! CNN/DailyMail (See et al., 2017), as the paper asks it: articles of 4000 to 8000 characters.

use std::path::Path;

use serde::Deserialize;

use super::{Maker, Sample, Turn, documents};
use crate::error::Result;

/// Characters that an article may have.
const ARTICLE: std::ops::RangeInclusive<usize> = 4000..=8000;
/// The most tokens of a summary.
const MOST_TOKENS: usize = 128;

#[derive(Deserialize)]
struct Row {
    article: String,
    highlights: String,
}

pub(super) fn make(maker: &Maker<'_>, file: Option<&Path>) -> Result<Vec<Sample>> {
    let rows = rows(documents::path("cnn-dailymail", file)?)?;
    let room = maker.room(maker.plan.longest());
    let mut samples = vec![];
    for index in maker.plan.order("cnn-dailymail", rows.len()) {
        if samples.len() == maker.plan.limit {
            break;
        }
        let row = &rows[index];
        if !ARTICLE.contains(&row.article.chars().count()) {
            continue;
        }
        let answer = format!(" {}", row.highlights);
        let tokens = maker.model.tokenizer().encode(&answer, false)?.len();
        let turn = Turn {
            question: "\nSummary:".to_owned(),
            answer,
            references: vec![row.highlights.clone()],
            new_tokens: tokens.min(MOST_TOKENS),
        };
        let context = format!("Article: {}", row.article);
        let sample = Sample { context, turns: vec![turn], length: maker.plan.longest(), depth: None };
        if room.holds(&sample)? {
            samples.push(sample);
        }
    }
    Ok(samples)
}

/// The rows of a CSV file with a header, or of a file with one JSON object per line.
fn rows(path: &Path) -> Result<Vec<Row>> {
    let text = documents::read(path)?;
    let bad = |error: &dyn std::fmt::Display| {
        documents::bad(path, &format!("a row needs `article` and `highlights`: {error}"))
    };
    if path.extension().is_none_or(|extension| extension != "csv") {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        return lines.map(|line| serde_json::from_str(line).map_err(|error| bad(&error))).collect();
    }
    let mut records = records(&text).into_iter();
    let header = records.next().unwrap_or_default();
    let column = |name: &str| {
        header.iter().position(|column| column == name).ok_or_else(|| bad(&format!("no column `{name}`")))
    };
    let (article, highlights) = (column("article")?, column("highlights")?);
    let row = |(number, mut record): (usize, Vec<String>)| {
        let mut take = |at: usize| {
            record
                .get_mut(at)
                .map(std::mem::take)
                .ok_or_else(|| bad(&format!("record {} is short", number + 2)))
        };
        Ok(Row { article: take(article)?, highlights: take(highlights)? })
    };
    records.enumerate().map(row).collect()
}

/// The fields of every record of a CSV text.
fn records(text: &str) -> Vec<Vec<String>> {
    let mut reader = csv_core::Reader::new();
    let mut records = vec![];
    let mut record = vec![];
    let mut field = vec![];
    let mut rest = text.as_bytes();
    let mut piece = [0; 4096];
    loop {
        let (found, read, written) = reader.read_field(rest, &mut piece);
        rest = &rest[read..];
        field.extend_from_slice(&piece[..written]);
        match found {
            // The end of the input is told by an empty one.
            csv_core::ReadFieldResult::InputEmpty | csv_core::ReadFieldResult::OutputFull => {}
            csv_core::ReadFieldResult::Field { record_end } => {
                record.push(String::from_utf8_lossy(&std::mem::take(&mut field)).into_owned());
                if record_end {
                    records.push(std::mem::take(&mut record));
                }
            }
            csv_core::ReadFieldResult::End => return records,
        }
    }
}
