//! The Porter stemmer with the extensions of NLTK, which `rouge-score` uses.
//!
//! The Snowball crates carry Porter's second stemmer ("English"), which gives other stems.
//! M. F. Porter, "An algorithm for suffix stripping", 1980; NLTK's `PorterStemmer` in its default
//! mode.

/// Words that the rules would get wrong, and their stems.
const IRREGULAR: &[(&str, &str)] = &[
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

const STEP_2: &[(&str, &str)] = &[
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];

const STEP_3: &[(&str, &str)] = &[
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

const STEP_4: &[&str] = &[
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism",
    "ate", "iti", "ous", "ive", "ize",
];

/// The stem of a word in lower case.
pub fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(irregular, _)| *irregular == word) {
        return (*stem).to_owned();
    }
    if word.chars().count() <= 2 {
        return word.to_owned();
    }
    let word = step_1b(step_1a(word.to_owned()));
    let word = step_2(step_1c(word));
    let word = replace_first(word, STEP_3, |stem| measure(stem) > 0);
    step_5(step_4(word))
}

/// For each character whether it is a consonant. `y` is one unless it follows one.
fn consonants(word: &str) -> Vec<bool> {
    let mut flags: Vec<bool> = vec![];
    for c in word.chars() {
        let consonant = match c {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            'y' => flags.last().is_none_or(|&before| !before),
            _ => true,
        };
        flags.push(consonant);
    }
    flags
}

/// Porter's measure: how often a vowel is followed by a consonant.
fn measure(stem: &str) -> usize {
    consonants(stem).windows(2).filter(|pair| !pair[0] && pair[1]).count()
}

fn has_vowel(stem: &str) -> bool {
    consonants(stem).contains(&false)
}

fn ends_double_consonant(word: &str) -> bool {
    let mut last = word.chars().rev();
    last.next() == last.next() && !word.is_empty() && consonants(word).last() == Some(&true)
}

/// Consonant, vowel, consonant other than w, x and y; or just vowel and consonant.
fn ends_cvc(word: &str) -> bool {
    match consonants(word)[..] {
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        [false, true] => true,
        _ => false,
    }
}

/// Replaces the first suffix of the list that the word has, where the rest meets the condition.
fn replace_first(word: String, rules: &[(&str, &str)], condition: impl Fn(&str) -> bool) -> String {
    let found = rules.iter().find_map(|(suffix, new)| Some((word.strip_suffix(suffix)?, new)));
    match found {
        Some((stem, new)) if condition(stem) => format!("{stem}{new}"),
        _ => word,
    }
}

fn step_1a(word: String) -> String {
    match word.strip_suffix("ies") {
        Some(stem) if stem.chars().count() == 1 => format!("{stem}ie"),
        _ => replace_first(word, &[("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")], |_| true),
    }
}

fn step_1b(word: String) -> String {
    if let Some(stem) = word.strip_suffix("ied") {
        return format!("{stem}{}", if stem.chars().count() == 1 { "ie" } else { "i" });
    }
    if let Some(stem) = word.strip_suffix("eed") {
        return if measure(stem) > 0 { format!("{stem}ee") } else { word };
    }
    let found =
        ["ed", "ing"].iter().find_map(|suffix| word.strip_suffix(suffix).filter(|stem| has_vowel(stem)));
    let Some(stem) = found else {
        return word;
    };
    if ["at", "bl", "iz"].iter().any(|end| stem.ends_with(end)) {
        return format!("{stem}e");
    }
    if ends_double_consonant(stem) {
        // All but the last character, unless it is one that doubles for good.
        let single = &stem[..stem.len() - stem.chars().next_back().map_or(0, char::len_utf8)];
        return if stem.ends_with(['l', 's', 'z']) { stem.to_owned() } else { single.to_owned() };
    }
    match measure(stem) == 1 && ends_cvc(stem) {
        true => format!("{stem}e"),
        false => stem.to_owned(),
    }
}

fn step_1c(word: String) -> String {
    let condition = |stem: &str| stem.chars().count() > 1 && consonants(stem).last() == Some(&true);
    replace_first(word, &[("y", "i")], condition)
}

fn step_2(word: String) -> String {
    if let Some(stem) = word.strip_suffix("alli").filter(|stem| measure(stem) > 0) {
        return step_2(format!("{stem}al"));
    }
    if STEP_2.iter().any(|(suffix, _)| word.ends_with(suffix)) {
        return replace_first(word, STEP_2, |stem| measure(stem) > 0);
    }
    // The l counts for the measure, so that "geologi" loses its end like "archaeologi".
    match word.strip_suffix("ogi") {
        Some(stem) if stem.ends_with('l') && measure(stem) > 0 => format!("{stem}og"),
        _ => word,
    }
}

fn step_4(word: String) -> String {
    let found = STEP_4.iter().find_map(|suffix| Some((*suffix, word.strip_suffix(suffix)?)));
    match found {
        Some(("ion", stem)) if !stem.ends_with(['s', 't']) => word,
        Some((_, stem)) if measure(stem) > 1 => stem.to_owned(),
        _ => word,
    }
}

fn step_5(word: String) -> String {
    let word = match word.strip_suffix('e') {
        Some(stem) if measure(stem) > 1 || (measure(stem) == 1 && !ends_cvc(stem)) => stem.to_owned(),
        _ => word,
    };
    match word.strip_suffix('l') {
        Some(stem) if stem.ends_with('l') && measure(stem) > 1 => stem.to_owned(),
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_paper_and_of_nltk() {
        for (word, expected) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("dies", "die"),
            ("agreed", "agre"),
            ("plastered", "plaster"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("happy", "happi"),
            ("enjoy", "enjoy"),
            ("relational", "relat"),
            ("radically", "radic"),
            ("geology", "geolog"),
            ("controlling", "control"),
            ("succeed", "succeed"),
            ("is", "is"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    #[test]
    fn nltk_agrees() {
        let text = include_str!("../../../tests/metrics/stems.txt");
        let mut count = 0;
        for line in text.lines() {
            let (word, expected) = line.split_once(' ').unwrap();
            assert_eq!(stem(word), expected, "{word}");
            count += 1;
        }
        assert!(count > 1000, "{count} words");
    }
}
