//! TriviaQA, reading comprehension on Wikipedia (Joshi et al., 2017), as the paper asks it: no
//! example, one page of 4000 to 8000 characters.

use std::{fs, path::Path};

use serde::Deserialize;

use super::{Maker, Sample, Turn, documents, squad::answer_tokens};
use crate::error::Result;

/// Characters that a page may have.
const PAGE: std::ops::RangeInclusive<usize> = 4000..=8000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    question: String,
    answer: Answer,
    #[serde(default)]
    entity_pages: Vec<Page>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    value: String,
    #[serde(default)]
    aliases: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    filename: String,
}

pub(super) fn make(maker: &Maker<'_>, file: Option<&Path>) -> Result<Vec<Sample>> {
    let path = documents::path("triviaqa", file)?;
    let File { data } = documents::json(path, "TriviaQA file")?;
    // The archive holds `qa/wikipedia-dev.json` and `evidence/wikipedia/PAGE.txt`.
    let folder = path.parent().unwrap_or(Path::new(""));
    let evidence = ["../evidence/wikipedia", "evidence/wikipedia"].map(|place| folder.join(place));
    let Some(evidence) = evidence.iter().find(|folder| folder.is_dir()) else {
        let message = "there is no folder `evidence/wikipedia` beside it or beside its folder";
        return Err(documents::bad(path, message));
    };
    let room = maker.room(maker.plan.longest());
    let mut samples = vec![];
    for index in maker.plan.order("triviaqa", data.len()) {
        if samples.len() == maker.plan.limit {
            break;
        }
        let entry = &data[index];
        for page in &entry.entity_pages {
            // Some pages of the list are missing in the published archive.
            let Ok(context) = fs::read_to_string(evidence.join(&page.filename)) else {
                continue;
            };
            let sample = sample(entry, context, maker);
            if PAGE.contains(&sample.context.chars().count()) && room.holds(&sample)? {
                samples.push(sample);
                break;
            }
        }
    }
    Ok(samples)
}

fn sample(entry: &Entry, context: String, maker: &Maker<'_>) -> Sample {
    let references = match entry.answer.aliases.is_empty() {
        true => vec![entry.answer.value.clone()],
        false => entry.answer.aliases.clone(),
    };
    let turn = Turn {
        question: format!("\nQuestion: {}\nAnswer:", entry.question),
        answer: format!(" {}", entry.answer.value),
        new_tokens: answer_tokens(maker, &references),
        references,
    };
    Sample { context, turns: vec![turn], length: maker.plan.longest(), depth: None }
}
