//! Comparing an output with short references.

/// What is stripped from both ends of an answer.
fn is_margin(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '_' | '.' | ',')
}

/// An answer in lower case, without white space and punctuation around it and without a leading
/// article (the published evaluation of SparQ attention).
pub fn normalise(answer: &str) -> String {
    let lower = answer.to_lowercase();
    let text = lower.trim_start_matches(is_margin);
    let article = ["the ", "a ", "an "].into_iter().find_map(|article| text.strip_prefix(article));
    article.unwrap_or(text).trim_end_matches(is_margin).to_owned()
}

/// Whether the normalised `output` starts with one of the normalised `answers`. Answers that are
/// empty once normalised do not count.
pub fn starts_with_answer(output: &str, answers: &[String]) -> bool {
    let output = normalise(output);
    answers
        .iter()
        .map(|answer| normalise(answer))
        .any(|answer| !answer.is_empty() && output.starts_with(&answer))
}

/// RULER's `string_match_all`: the part of the references that occur in the output, in any case.
pub fn string_match_all(output: &str, references: &[String]) -> f64 {
    let output = output.to_lowercase();
    let found = references.iter().filter(|reference| output.contains(&reference.to_lowercase())).count();
    match references.len() {
        0 => 0.0,
        count => found as f64 / count as f64,
    }
}

/// Characters that `output` and `reference` share before the first difference, white space in front
/// left out (the paper's repetition task). An output that ends early counts as far as it goes.
pub fn repetition_length(output: &str, reference: &str) -> usize {
    let (output, reference) = (output.trim_start(), reference.trim_start());
    output.chars().zip(reference.chars()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn answers_lose_case_margins_and_one_article() {
        assert_eq!(normalise(" \"The Denver Broncos.\"\n"), "denver broncos");
        assert_eq!(normalise("An apple, a pear"), "apple, a pear");
        assert_eq!(normalise("a the thing"), "the thing");
        assert_eq!(normalise("Another"), "another");
        assert_eq!(normalise(" .,"), "");
    }

    #[test]
    fn an_output_may_go_on_after_the_answer() {
        let answers = strings(&["the Broncos", "..."]);
        assert!(starts_with_answer(" Broncos, who had won\nQuestion:", &answers));
        assert!(!starts_with_answer(" Denver Broncos", &answers));
        assert!(!starts_with_answer("", &strings(&["..."])), "an empty answer never matches");
    }

    #[test]
    fn ruler_counts_references_anywhere() {
        let references = strings(&["1234567", "Alpha"]);
        assert_eq!(string_match_all(" are 1234567 and ALPHA.", &references), 1.0);
        assert_eq!(string_match_all("1234567", &references), 0.5);
        assert_eq!(string_match_all("none", &references), 0.0);
        assert_eq!(string_match_all("none", &[]), 0.0);
    }

    #[test]
    fn repetition_ends_at_the_first_difference() {
        assert_eq!(repetition_length("\n to be or not", "to be, or not"), 5);
        assert_eq!(repetition_length("to be", "to be, or not"), 5);
        assert_eq!(repetition_length("to be, or not to be", "to be, or not"), 13);
        assert_eq!(repetition_length("né", "née"), 2, "characters, not bytes");
    }
}
