//! Ending a text at a stop string while it is streamed.

use std::ops::Range;

/// Watches streamed text for the first stop string.
///
/// Text is emitted as soon as it cannot be part of a stop string any more. How the text is split
/// into pieces makes no difference to what is emitted in all.
///
/// ```
/// use sparq_models::stop::StopStrings;
///
/// let mut stop = StopStrings::new(vec!["\nUser:".to_owned()]);
/// assert_eq!(stop.push("Hello.\nUs").text, "Hello.");
/// let step = stop.push("er: and you?");
/// assert!(step.stopped && step.text.is_empty());
/// ```
#[derive(Debug, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Text that may be the start of a stop string.
    held: String,
    /// Parts of `held` that are compared and not emitted.
    hidden: Vec<Range<usize>>,
    /// The stop string that was reached.
    reached: Option<usize>,
}

/// What to do after a piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopStep {
    /// Text to emit; may be empty.
    pub text: String,
    /// Whether a stop string was reached, which is itself not emitted.
    pub stopped: bool,
}

impl StopStrings {
    /// Stops at the first of `stops` that the text completes. Empty strings are left out.
    pub fn new(stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, held: String::new(), hidden: vec![], reached: None }
    }

    /// The stop string that was reached, if one was.
    pub fn reached(&self) -> Option<&str> {
        self.stops.get(self.reached?).map(String::as_str)
    }

    /// Whether there is nothing to stop at.
    pub fn is_empty(&self) -> bool {
        self.stops.is_empty()
    }

    /// Whether a stop string holds the whole of `spelling`: that of a token without text, to be handed to
    /// [`StopStrings::push_hidden`] where the token comes up.
    pub fn watches(&self, spelling: &str) -> bool {
        self.stops.iter().any(|stop| stop.contains(spelling))
    }

    /// Takes the next piece of text. After a stop, further pieces are dropped.
    pub fn push(&mut self, piece: &str) -> StopStep {
        if self.reached.is_some() {
            return StopStep { text: String::new(), stopped: true };
        }
        self.held.push_str(piece);
        let text = match self.first_stop() {
            Some((start, stop)) => {
                self.reached = Some(stop);
                let text = self.take(start);
                self.held.clear();
                self.hidden.clear();
                text
            }
            None => self.take(self.safe_length()),
        };
        StopStep { text, stopped: self.reached.is_some() }
    }

    /// Takes the spelling of a token that has no text: it counts for stop strings and is not emitted.
    pub fn push_hidden(&mut self, spelling: &str) -> StopStep {
        let start = self.held.len();
        self.hidden.push(start..start + spelling.len());
        self.push(spelling)
    }

    /// Ends the text and returns what was held back.
    pub fn finish(mut self) -> String {
        self.take(self.held.len())
    }

    /// Takes what is held up to `end`, and returns what of it is not hidden.
    fn take(&mut self, end: usize) -> String {
        let tail = self.held.split_off(end);
        let taken = std::mem::replace(&mut self.held, tail);
        let mut text = String::with_capacity(taken.len());
        let mut from = 0;
        for range in &self.hidden {
            text.push_str(&taken[from..range.start.min(end)]);
            from = range.end.min(end);
        }
        text.push_str(&taken[from..]);
        for range in &mut self.hidden {
            *range = range.start.saturating_sub(end)..range.end.saturating_sub(end);
        }
        self.hidden.retain(|range| !range.is_empty());
        text
    }

    /// Where the stop string starts that is complete first, and which it is; of several that end together,
    /// the longest.
    ///
    /// Going by the end makes the result independent of how the text is split: a stop string is
    /// acted upon with its last byte, whatever a longer one that began earlier might become.
    fn first_stop(&self) -> Option<(usize, usize)> {
        let found = self.stops.iter().enumerate().filter_map(|(index, stop)| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, index))
        });
        found.min().map(|(_, start, index)| (start, index))
    }

    /// Length of the held text up to the longest tail that may grow into a stop string.
    fn safe_length(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        // A tail of the full length would be a match, so it is shorter.
        let from = (self.held.len() + 1).saturating_sub(longest);
        let may_stop = |start: &usize| {
            self.held.get(*start..).is_some_and(|tail| self.stops.iter().any(|stop| stop.starts_with(tail)))
        };
        (from..self.held.len()).find(may_stop).unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that is emitted for a text in these pieces, and whether it stopped.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut stop = StopStrings::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut text = String::new();
        let mut stopped = false;
        for piece in pieces {
            let step = stop.push(piece);
            assert!(!stopped || (step.stopped && step.text.is_empty()));
            text += &step.text;
            stopped = step.stopped;
        }
        text += &stop.finish();
        (text, stopped)
    }

    #[test]
    fn spellings_of_special_tokens_count_and_are_not_emitted() {
        let mut stop = StopStrings::new(vec!["<|end|>".into(), "b<|sep|>\n".into()]);
        assert!(stop.watches("<|end|>") && stop.watches("<|sep|>") && !stop.watches("<|pad|>"));
        assert_eq!(stop.push("ab").text, "a");
        assert_eq!(stop.push_hidden("<|sep|>").text, "");
        // Not a stop: what was hidden is dropped, the text around it comes.
        assert_eq!(stop.push(" c").text, "b c");
        assert_eq!(stop.push("b").text, "");
        assert_eq!(stop.push_hidden("<|sep|>").text, "");
        assert_eq!(stop.clone().finish(), "b");
        let step = stop.clone().push("\nd");
        assert!(step.stopped && step.text.is_empty());
        let step = stop.push_hidden("<|end|>");
        assert_eq!((step.text.as_str(), stop.reached()), ("b", Some("<|end|>")));
    }

    #[test]
    fn without_stops_everything_passes_at_once() {
        let mut stop = StopStrings::new(vec![String::new()]);
        let step = stop.push("text");
        assert_eq!(step, StopStep { text: "text".to_owned(), stopped: false });
        assert_eq!(stop.finish(), "");
    }

    #[test]
    fn holds_back_no_more_than_may_become_a_stop() {
        let mut stop = StopStrings::new(vec!["abc".to_owned()]);
        assert_eq!(stop.push("xab").text, "x");
        assert_eq!(stop.push("abab").text, "abab");
        assert_eq!(stop.push("d").text, "abd");
        assert_eq!(stop.push("ab").text, "");
        assert_eq!(stop.finish(), "ab");
    }

    #[test]
    fn the_stop_string_and_what_follows_are_dropped() {
        assert_eq!(run(&["END"], &["one EN", "D two", "three"]), ("one ".to_owned(), true));
        assert_eq!(run(&["END"], &["END"]), (String::new(), true));
        assert_eq!(run(&["é", "日本"], &["x日", "本y"]), ("x".to_owned(), true));
        assert_eq!(run(&["日本"], &["x日", "曜"]), ("x日曜".to_owned(), false));
    }

    #[test]
    fn the_stop_that_is_complete_first_wins() {
        assert_eq!(run(&["abcd", "bc"], &["abcd"]), ("a".to_owned(), true));
        assert_eq!(run(&["bc", "abc"], &["abcd"]), (String::new(), true));
    }

    #[test]
    fn any_split_gives_the_same_result() {
        let texts = ["aababcabd", "abababcab", "日a本日本aé", "", "aaaaaa", "xyzabx"];
        let stops: [&[&str]; 6] =
            [&["abc"], &["aab", "ba"], &["日本", "aé"], &["abcd", "bc", "x"], &["aaaaaaa"], &[]];
        for text in texts {
            for stops in stops {
                let whole = run(stops, &[text]);
                let characters: Vec<usize> = text.char_indices().map(|(at, _)| at).skip(1).collect();
                // Every subset of the positions between characters is a split.
                for split in 0..1_u32 << characters.len() {
                    let mut pieces = Vec::new();
                    let mut start = 0;
                    for (bit, &at) in characters.iter().enumerate() {
                        if (split >> bit) & 1 == 1 {
                            pieces.push(&text[start..at]);
                            start = at;
                        }
                    }
                    pieces.push(&text[start..]);
                    assert_eq!(run(stops, &pieces), whole, "{text} as {pieces:?}, stops {stops:?}");
                }
            }
        }
    }
}
