//! SQuAD v1.1 (Rajpurkar et al., 2016), as the paper asks it: one example, eight paragraphs.

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::{Maker, Sample, Turn, choose, documents, shuffle};
use crate::error::Result;

/// Other paragraphs beside the one that is asked about.
const CONFUSION: usize = 7;
/// Tokens beyond the longest answer, and the most in all.
const SPARE_TOKENS: usize = 5;
const MOST_TOKENS: usize = 30;

#[derive(Deserialize)]
struct File {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    title: String,
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    question: String,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    text: String,
}

/// A question with its place.
struct Row<'a> {
    paragraph: usize,
    question: &'a Question,
}

pub(super) fn make(maker: &Maker<'_>, file: Option<&Path>) -> Result<Vec<Sample>> {
    let path = documents::path("squad", file)?;
    let File { data } = documents::json(path, "SQuAD v1.1 file")?;
    // Every paragraph with its article's title.
    let mut paragraphs: Vec<(String, &Paragraph)> = vec![];
    for article in &data {
        let title = article.title.replace('_', " ");
        paragraphs.extend(article.paragraphs.iter().map(|paragraph| (title.clone(), paragraph)));
    }
    let mut rows = vec![];
    for (number, (_, paragraph)) in paragraphs.iter().enumerate() {
        let answered = paragraph.qas.iter().filter(|question| !question.answers.is_empty());
        rows.extend(answered.map(|question| Row { paragraph: number, question }));
    }
    let mut samples = vec![];
    for (number, index) in maker.plan.order("squad", rows.len()).into_iter().enumerate() {
        if samples.len() == maker.plan.limit {
            break;
        }
        // A model with a short context gets fewer paragraphs.
        let room = maker.room(maker.plan.longest());
        let build = |confusion| {
            sample(&paragraphs, &rows, index, confusion, maker, &mut maker.plan.rng("squad", number))
        };
        samples.extend(room.largest(0, CONFUSION, build)?);
    }
    Ok(samples)
}

fn sample(
    paragraphs: &[(String, &Paragraph)],
    rows: &[Row<'_>],
    index: usize,
    confusion: usize,
    maker: &Maker<'_>,
    rng: &mut ChaCha8Rng,
) -> Sample {
    let row = &rows[index];
    let background = |(title, paragraph): &(String, &Paragraph)| {
        format!("Title: {title}. Background: {}", paragraph.context)
    };
    let (title, own) = &paragraphs[row.paragraph];
    // The example comes from the same paragraph where that has another question.
    let others: Vec<&Question> = own
        .qas
        .iter()
        .filter(|other| !std::ptr::eq(*other, row.question) && !other.answers.is_empty())
        .collect();
    let example = match others.is_empty() {
        true => choose(rows, rng).question,
        false => *choose(&others, rng),
    };
    let mut texts = vec![background(&paragraphs[row.paragraph])];
    texts.extend((0..confusion).map(|_| background(choose(paragraphs, rng))));
    shuffle(&mut texts, rng);
    let place = texts.iter().position(|text| *text == background(&paragraphs[row.paragraph]));
    let depth = place.map(|place| place as f64 / (texts.len().max(2) - 1) as f64);
    let shortest = |question: &Question| -> String {
        let answers = question.answers.iter().map(|answer| answer.text.as_str());
        answers.min_by_key(|answer| answer.chars().count()).unwrap_or_default().to_owned()
    };
    let context = format!(
        "{}\nFrom what you've just read about {title}, please answer the following questions.\nQuestion: {}\n\
         Answer: {}",
        texts.join("\n"),
        example.question,
        shortest(example),
    );
    let references: Vec<String> = row.question.answers.iter().map(|answer| answer.text.clone()).collect();
    let turn = Turn {
        question: format!("\nQuestion: {}\nAnswer:", row.question.question),
        answer: format!(" {}", shortest(row.question)),
        new_tokens: answer_tokens(maker, &references),
        references,
    };
    Sample { context, turns: vec![turn], length: maker.plan.longest(), depth }
}

/// Tokens to generate for a short answer.
pub(super) fn answer_tokens(maker: &Maker<'_>, references: &[String]) -> usize {
    let tokenizer = maker.model.tokenizer();
    let count = |answer: &String| tokenizer.encode(answer, false).map_or(0, |ids| ids.len());
    let longest = references.iter().map(count).max().unwrap_or(0);
    MOST_TOKENS.min(SPARE_TOKENS + longest)
}
