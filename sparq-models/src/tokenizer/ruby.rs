//! Regular expressions of `tokenizer.json` in the syntax that they are written in, Ruby's, put into that of the
//! matcher here.
//!
//! Both know the same signs, and mean other things by some: how often a piece repeats, what a line or a word
//! is, what a class holds. A pattern that means the same in both comes back as it is.

mod class;

/// Something read, or what is wrong with it.
type Read<T> = Result<T, String>;

/// How deep groups and classes nest at most.
const DEPTH: usize = 60;

/// What `\w` is, in a class.
const WORD: &str = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}";

/// What `\w` is besides where it stands alone.
const WORD_ALONE: &str = "²³¹¼½¾";

/// A break between lines of any kind.
const LINE_BREAK: &str = r"(?>\r\n|[\n\x0B\f\r\x{85}\x{2028}\x{2029}])";

/// The pattern for the matcher here that means what `pattern` means in Ruby's syntax.
///
/// # Errors
///
/// What there is no such pattern for; [`refusal`] makes a message of it.
pub(super) fn translate(pattern: &str) -> Read<String> {
    let mut reader = Reader { pattern: pattern.chars().collect(), at: 0, groups: 0, last: None };
    let text = reader.alternatives(Flags::default(), 0)?;
    match reader.peek() {
        None => Ok(text),
        Some(_) => Err("a `)` that closes no group".to_owned()),
    }
}

/// The message about a pattern that there is no other for.
pub(super) fn refusal(pattern: &str, error: &str) -> String {
    format!("pattern `{pattern}`: {error} is not built")
}

/// Options that change how a part of a pattern is read.
#[derive(Clone, Copy, Default)]
struct Flags {
    ignore_case: bool,
    /// Blanks and comments do not count.
    extended: bool,
}

/// A set of characters: `\p{L}`, `\w`, `[:alpha:]`.
struct Set {
    /// What stands for it in a class.
    items: String,
    /// Whether it is all that `items` is not.
    negated: bool,
    /// Whether it has every character's other case.
    is_caseless: bool,
}

impl Set {
    fn new(items: impl Into<String>, negated: bool) -> Self {
        Self { items: items.into(), negated, is_caseless: false }
    }

    fn caseless(self) -> Self {
        Self { is_caseless: true, ..self }
    }

    /// The set as an item of a class.
    fn in_class(&self) -> String {
        if self.negated { format!("[^{}]", self.items) } else { self.items.clone() }
    }

    /// The set alone.
    fn alone(&self, flags: Flags) -> String {
        let Self { items, negated, .. } = self;
        let is_one = items.starts_with('\\') && !items[1..].contains(['\\', '[']);
        let text = match negated {
            true => format!("[^{items}]"),
            false if is_one => items.clone(),
            false => format!("[{items}]"),
        };
        // Case is ignored in classes in brackets alone.
        if flags.ignore_case && !self.is_caseless { format!("(?-i:{text})") } else { text }
    }
}

/// What an escape stands for.
enum Escape {
    Char(char),
    Set(Set),
    Pattern(String),
}

/// How often something repeats.
struct Repeat {
    text: String,
    is_atomic: bool,
}

/// Whether an escape by this character means the same in both syntaxes.
fn keeps_escape(c: char) -> bool {
    matches!(c, 'n' | 'r' | 't' | 'f' | 'v') || c.is_ascii_punctuation() && !matches!(c, '<' | '>')
}

struct Reader {
    pattern: Vec<char>,
    at: usize,
    /// Groups that were opened so far and can be referred to.
    groups: usize,
    /// The letter before, where case is ignored.
    last: Option<char>,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.pattern.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += usize::from(next.is_some());
        next
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.pattern[self.at..].iter().copied().take(text.chars().count()).eq(text.chars());
        if found {
            self.at += text.chars().count();
        }
        found
    }

    fn text(&self, from: usize) -> String {
        self.pattern[from..self.at].iter().collect()
    }

    /// Skips what is not part of the pattern.
    fn skip(&mut self, flags: Flags) -> Read<()> {
        loop {
            if self.eat("(?#") {
                loop {
                    match self.next() {
                        Some('\\') => drop(self.next()),
                        Some(')') => break,
                        Some(_) => {}
                        None => return Err("a comment without an end".to_owned()),
                    }
                }
            } else if flags.extended && self.peek().is_some_and(char::is_whitespace) {
                self.at += 1;
            } else if flags.extended && self.eat("#") {
                while self.next().is_some_and(|next| next != '\n') {}
            } else {
                return Ok(());
            }
        }
    }

    /// Alternatives up to the end of their group.
    fn alternatives(&mut self, mut flags: Flags, depth: usize) -> Read<String> {
        if depth > DEPTH {
            return Err(format!("groups within groups, more than {DEPTH}"));
        }
        let mut text = String::new();
        let mut open = 0;
        loop {
            self.skip(flags)?;
            match self.peek() {
                None | Some(')') => break,
                Some('|') => {
                    self.at += 1;
                    self.last = None;
                    text.push('|');
                }
                Some('(') => {
                    let start = self.at;
                    match self.options(flags)? {
                        // The rest of the group, further alternatives included, has the options.
                        Some((inner, options, true)) => {
                            flags = inner;
                            if depth > 0 || start > 0 {
                                open += 1;
                                text += &format!("(?{options}:");
                            } else if !options.is_empty() {
                                text += &format!("(?{options})");
                            }
                        }
                        Some((inner, options, false)) => {
                            let group = format!("(?{options}:{})", self.group(inner, depth)?);
                            text += &self.repeated(group, flags)?;
                        }
                        None => {
                            let group = self.open()?;
                            let group = format!("{group}{})", self.group(flags, depth)?);
                            text += &self.repeated(group, flags)?;
                        }
                    }
                }
                Some(_) => {
                    let atom = self.atom(flags, depth)?;
                    text += &self.repeated(atom, flags)?;
                }
            }
        }
        text.extend(std::iter::repeat_n(')', open));
        Ok(text)
    }

    /// What is in a group, whose end is read.
    fn group(&mut self, flags: Flags, depth: usize) -> Read<String> {
        let text = self.alternatives(flags, depth + 1)?;
        if self.eat(")") { Ok(text) } else { Err("a group without an end".to_owned()) }
    }

    /// Reads `(?i)` or `(?i:`: the flags after it, the options in the syntax here, whether it ends at once.
    fn options(&mut self, mut flags: Flags) -> Read<Option<(Flags, String, bool)>> {
        let start = self.at;
        let (mut on, mut off, mut value) = (String::new(), String::new(), true);
        if !self.eat("(?") || !matches!(self.peek(), Some('i' | 'm' | 'x' | '-')) {
            self.at = start;
            return Ok(None);
        }
        loop {
            let letter = match self.next() {
                Some('-') => {
                    value = false;
                    continue;
                }
                Some('x') => {
                    flags.extended = value;
                    continue;
                }
                Some('i') => {
                    flags.ignore_case = value;
                    'i'
                }
                Some('m') => 's',
                Some(end @ (')' | ':')) => {
                    let off = if off.is_empty() { off } else { format!("-{off}") };
                    return Ok(Some((flags, on + &off, end == ')')));
                }
                _ => return Err(format!("the option `{}`", self.text(start))),
            };
            (if value { &mut on } else { &mut off }).push(letter);
        }
    }

    /// Reads the beginning of a group without options.
    fn open(&mut self) -> Read<String> {
        let start = self.at;
        for plain in ["(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"] {
            if self.eat(plain) {
                return Ok(plain.to_owned());
            }
        }
        let end = match (self.eat("(?<"), self.eat("(?'")) {
            (true, _) => '>',
            (_, true) => '\'',
            _ if self.eat("(?") || self.eat("(*") => {
                self.at += usize::from(self.peek().is_some());
                return Err(format!("the group `{}…`", self.text(start)));
            }
            _ => {
                self.at += 1;
                self.groups += 1;
                return Ok("(".to_owned());
            }
        };
        while let Some(next) = self.next() {
            if next == end {
                self.groups += 1;
                return Ok(self.text(start));
            }
        }
        Err("a name of a group without an end".to_owned())
    }

    /// One piece of a pattern that is no group.
    fn atom(&mut self, flags: Flags, depth: usize) -> Read<String> {
        let start = self.at;
        let last = self.last.take();
        let c = match self.next() {
            Some('^') => return Ok(r"(?:\A|(?<=\n)(?!\z))".to_owned()),
            Some('$') => return Ok("(?m:$)".to_owned()),
            Some('.') => return Ok(".".to_owned()),
            Some('[') => return self.class(flags, depth + 1),
            Some('*' | '+' | '?') => return Err("a repetition of nothing".to_owned()),
            Some('{') if self.interval(start)?.is_some() => return Err("a repetition of nothing".to_owned()),
            Some('\\') => match self.escape(false)? {
                Escape::Pattern(text) if flags.ignore_case && self.is_reference(start) => {
                    return Err(format!("`{text}` where case is ignored"));
                }
                Escape::Pattern(text) => return Ok(text),
                Escape::Set(set) => return Ok(set.alone(flags)),
                Escape::Char(c) => c,
            },
            Some(c) => c,
            None => return Ok(String::new()),
        };
        if flags.ignore_case {
            class::check_case(c)?;
            self.skip(flags)?;
            let at = self.at;
            let repeats = self.repeat()?.is_some();
            self.at = at;
            if !repeats {
                self.last = Some(c);
                class::check_pair(last, c)?;
            }
        }
        let is_escaped = self.pattern[start] == '\\';
        Ok(match self.pattern.get(start + 1) {
            Some(&letter) if is_escaped && keeps_escape(letter) => format!("\\{letter}"),
            _ if r"\.+*?()|[{^$".contains(c) => format!("\\{c}"),
            _ => c.to_string(),
        })
    }

    fn is_reference(&self, start: usize) -> bool {
        self.pattern.get(start + 1).is_some_and(|&c| c == 'k' || c.is_ascii_digit())
    }

    /// A piece with all the repetitions that follow it: `{1,3}+` is one of another.
    fn repeated(&mut self, piece: String, flags: Flags) -> Read<String> {
        let mut text = piece;
        let mut repeats = false;
        loop {
            let at = self.at;
            self.skip(flags)?;
            let Some(repeat) = self.repeat()? else {
                self.at = at;
                return Ok(text);
            };
            if repeats {
                text = format!("(?:{text})");
            }
            text = match repeat.is_atomic {
                true => format!("(?>{text}{})", repeat.text),
                false => text + &repeat.text,
            };
            repeats = true;
        }
    }

    fn repeat(&mut self) -> Read<Option<Repeat>> {
        let start = self.at;
        let (is_fixed, is_interval, is_atomic) = match self.peek() {
            Some('?' | '*' | '+') => {
                self.at += 1;
                (false, false, false)
            }
            Some('{') => match self.interval(start)? {
                None => return Ok(None),
                Some((low, high, end)) => {
                    self.at = end;
                    let is_fixed = high == Some(low) && !self.pattern[start..end].contains(&',');
                    match high {
                        Some(high) if high < low => {
                            let text = format!("{{{high},{low}}}");
                            return Ok(Some(Repeat { text, is_atomic: true }));
                        }
                        _ => (is_fixed, true, false),
                    }
                }
            },
            _ => return Ok(None),
        };
        let is_lazy = !is_fixed && self.eat("?");
        if !is_lazy && !is_interval {
            self.eat("+");
        }
        Ok(Some(Repeat { text: self.text(start), is_atomic }))
    }

    /// The bounds of the interval at `start`, and where it ends, if it is one.
    fn interval(&self, start: usize) -> Read<Option<(u32, Option<u32>, usize)>> {
        let mut at = start + 1;
        let number = |at: &mut usize| -> Read<Option<u32>> {
            let from = *at;
            while self.pattern.get(*at).is_some_and(char::is_ascii_digit) {
                *at += 1;
            }
            let digits: String = self.pattern[from..*at].iter().collect();
            match digits.is_empty() {
                true => Ok(None),
                false => match digits.parse() {
                    Ok(number) if number <= 100_000 => Ok(Some(number)),
                    _ => Err(format!("{digits} repetitions")),
                },
            }
        };
        let low = number(&mut at)?;
        let high = if self.pattern.get(at) == Some(&',') {
            at += 1;
            let high = number(&mut at)?;
            if low.is_none() && high.is_none() {
                return Ok(None);
            }
            high
        } else if low.is_some() {
            low
        } else {
            return Ok(None);
        };
        let is_closed = self.pattern.get(at) == Some(&'}');
        Ok(is_closed.then_some((low.unwrap_or(0), high, at + 1)))
    }

    /// What stands for the escape whose backslash is read.
    fn escape(&mut self, in_class: bool) -> Read<Escape> {
        let start = self.at - 1;
        let Some(c) = self.next() else {
            return Err("a backslash at the end".to_owned());
        };
        let set = |set| Ok(Escape::Set(set));
        let verbatim = |c: char| set(Set::new(format!("\\{c}"), false).caseless());
        let pattern = |text: &str| Ok(Escape::Pattern(text.to_owned()));
        match c {
            't' => Ok(Escape::Char('\t')),
            'n' => Ok(Escape::Char('\n')),
            'r' => Ok(Escape::Char('\r')),
            'f' => Ok(Escape::Char('\x0C')),
            'a' => Ok(Escape::Char('\x07')),
            'e' => Ok(Escape::Char('\x1B')),
            'v' => Ok(Escape::Char('\x0B')),
            'b' if in_class => Ok(Escape::Char('\x08')),
            'd' | 'D' | 's' | 'S' => verbatim(c),
            'w' | 'W' if in_class => set(Set::new(WORD, c == 'W')),
            'w' | 'W' => set(Set::new(format!("{WORD}{WORD_ALONE}"), c == 'W')),
            'h' | 'H' => set(Set::new("0-9A-Fa-f", c == 'H').caseless()),
            'p' | 'P' if self.eat("{") => self.property(c == 'P', in_class).map(Escape::Set),
            'x' | 'u' | 'o' | '0' => self.code(c).map(Escape::Char),
            'c' | 'C' | 'M' => Err(format!("`\\{c}`")),
            '1'..='7' if in_class => {
                self.at -= 1;
                self.code('0').map(Escape::Char)
            }
            _ if in_class => Ok(Escape::Char(c)),
            'b' | 'B' => {
                let word = format!("(?-i:[{WORD}{WORD_ALONE}])");
                let (a, b) = if c == 'b' { ("!", "=") } else { ("=", "!") };
                Ok(Escape::Pattern(format!("(?:(?<={word})(?{a}{word})|(?<!{word})(?{b}{word}))")))
            }
            'A' => pattern(r"\A"),
            'z' => pattern(r"\z"),
            'Z' => pattern(r"(?=\n?\z)"),
            'R' => pattern(LINE_BREAK),
            'N' => set(Set::new(r"\n", true).caseless()),
            'O' => pattern("(?s:.)"),
            'k' if matches!(self.peek(), Some('<' | '\'')) => {
                let end = if self.next() == Some('<') { '>' } else { '\'' };
                while self.next().is_some_and(|next| next != end) {}
                Ok(Escape::Pattern(self.text(start)))
            }
            '1'..='9' => {
                while self.peek().is_some_and(|next| next.is_ascii_digit()) {
                    self.at += 1;
                }
                let text = self.text(start);
                match text[1..].parse::<usize>() {
                    Ok(group) if group <= self.groups => Ok(Escape::Pattern(format!("(?:{text})"))),
                    _ => Err(format!("`{text}`")),
                }
            }
            'G' | 'K' | 'X' | 'y' | 'Y' | 'g' => Err(format!("`\\{c}`")),
            c => Ok(Escape::Char(c)),
        }
    }

    /// A character by its number: `\xHH`, `\x{H…}`, `\uHHHH`, `\o{O…}`, `\0OO`.
    fn code(&mut self, kind: char) -> Read<char> {
        let start = self.at;
        let in_braces = matches!(kind, 'x' | 'o') && self.eat("{");
        let (radix, most) = match kind {
            'x' => (16, if in_braces { 8 } else { 2 }),
            'u' => (16, 4),
            'o' if !in_braces => return Ok('o'),
            'o' => (8, 11),
            _ => (8, if self.pattern[start - 1] == '0' { 2 } else { 3 }),
        };
        let from = self.at;
        while self.at - from < most && self.peek().is_some_and(|c| c.is_digit(radix)) {
            self.at += 1;
        }
        let digits = self.text(from);
        let is_whole = match kind {
            'u' => digits.len() == 4,
            _ if in_braces => !digits.is_empty() && self.eat("}"),
            'x' => !digits.is_empty(),
            _ => true,
        };
        let digits = if digits.is_empty() { "0" } else { &digits };
        let code = u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
        // Without braces it is a byte of a character.
        let is_byte = !in_braces && kind != 'u';
        match code.filter(|&c| is_whole && (!is_byte || c.is_ascii())) {
            Some(c) => Ok(c),
            None => Err(format!("the character `\\{kind}{}`", self.text(start))),
        }
    }
}

#[cfg(test)]
mod tests;
