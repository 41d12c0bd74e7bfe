//! ROUGE-L, as the Python package `rouge-score` computes it with `use_stemmer=True`.

use super::stem;

/// F measure of the longest common subsequence of words, stemmed, between 0 and 1.
pub fn rouge_l(reference: &str, output: &str) -> f64 {
    let (reference, output) = (words(reference), words(output));
    let common = longest_common_subsequence(&reference, &output) as f64;
    if common == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (common / output.len() as f64, common / reference.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

/// Runs of ASCII letters and digits in lower case; those longer than three are stemmed.
fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(|word| if word.len() > 3 { stem(word) } else { word.to_owned() }).collect()
}

fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    // One row of the table: row[j] is the length for what was seen of `a` and the first j of `b`.
    let mut row = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (j, other) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if word == other { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn by_hand() {
        // the cat sat | the cat did sit: "the cat" is common, P = 2/4, R = 2/3.
        assert!((rouge_l("The cat sat.", "the cat did sit") - 4.0 / 7.0).abs() < 1e-12);
        // Stems agree: "running" and "runs" are both "run".
        assert_eq!(rouge_l("running horses", "runs a horse"), 0.8);
        assert_eq!((rouge_l("", "words"), rouge_l("words", ""), rouge_l("a", "b")), (0.0, 0.0, 0.0));
    }

    #[derive(Deserialize)]
    struct Fixture {
        pairs: Vec<(String, String, f64)>,
    }

    #[test]
    fn the_python_package_agrees() {
        let fixture: Fixture =
            serde_json::from_str(include_str!("../../../tests/metrics/rouge.json")).unwrap();
        assert!(fixture.pairs.len() >= 30);
        for (reference, output, expected) in fixture.pairs {
            let found = rouge_l(&reference, &output);
            assert!((found - expected).abs() < 1e-9, "{found} for {reference:?} | {output:?}: {expected}");
        }
    }
}
