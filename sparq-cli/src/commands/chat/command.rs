//! Lines that begin with a slash.

use anyhow::bail;

/// What `/help` shows.
pub(super) const HELP: &str = "\
/system [TEXT]         change the instructions for the whole conversation, or show them; \"\" takes them away
/retry                 answer the last message again
/undo                  take back the last message and its answer
/clear                 forget the conversation, but for the instructions
/set [NAME VALUE …]    change settings for the answers to come, or list them; a value with blanks in \"…\";
                       the value default takes a setting back
/prompt [TEXT]         what the model sees next, as text and token ids; with TEXT as if it was typed
/stats                 figures of the last answer, and how much of the context is used
/save [--force] FILE   write the conversation to a file: JSON for *.json, else text
/load FILE             go on with a conversation that /save wrote as JSON
/help, /?              this
/bye, /exit, /quit     end, as Ctrl-D does; Ctrl-C stops an answer
//…                    a message that begins with a slash
\"\"\"…\"\"\"              a message of several lines; so is one whose lines end in a backslash";

/// Names of the commands; those behind the first of a line are other names of it.
const NAMES: &[&[&str]] = &[
    &["system"],
    &["retry"],
    &["undo"],
    &["clear"],
    &["set"],
    &["prompt"],
    &["stats"],
    &["save"],
    &["load"],
    &["help", "?"],
    &["bye", "exit", "quit"],
];

/// A command and what is behind it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    System(&'a str),
    Retry,
    Undo,
    Clear,
    Set(Vec<&'a str>),
    Prompt(&'a str),
    Stats,
    Save { file: &'a str, force: bool },
    Load(&'a str),
    Help,
    Bye,
}

impl<'a> Command<'a> {
    /// Reads a command without its slash.
    ///
    /// # Errors
    /// For a name that there is not, with the nearest one, and for what a command does not take.
    pub(super) fn parse(text: &'a str) -> anyhow::Result<Self> {
        let (typed, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        let Some(names) = NAMES.iter().find(|names| names.contains(&typed)) else {
            match nearest(typed) {
                Some(name) => bail!("there is no command `/{typed}`; did you mean /{name}?"),
                None => bail!(
                    "there is no command `/{typed}`; /help lists them, and // begins a message with a slash"
                ),
            }
        };
        let name = names[0];
        let takes_text = ["system", "set", "prompt", "save", "load"].contains(&name);
        if !takes_text && !rest.is_empty() {
            bail!("/{name} takes nothing behind it");
        }
        Ok(match name {
            "system" => Self::System(rest),
            "retry" => Self::Retry,
            "undo" => Self::Undo,
            "clear" => Self::Clear,
            "set" => Self::Set(words(rest)),
            "prompt" => Self::Prompt(rest),
            "stats" => Self::Stats,
            "help" => Self::Help,
            "bye" => Self::Bye,
            _ => {
                let forced = (name == "save").then(|| without_force(rest)).flatten();
                let file = unquoted(forced.unwrap_or(rest));
                match (file, name) {
                    ("", _) => bail!("/{name} needs the name of a file"),
                    (file, "save") => Self::Save { file, force: forced.is_some() },
                    (file, _) => Self::Load(file),
                }
            }
        })
    }
}

/// A text without the pair of quotation marks around it.
pub(super) fn unquoted(text: &str) -> &str {
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.filter(|inner| !inner.contains('"')).unwrap_or(text)
}

/// The file of `--force FILE`; `None` for one without the flag.
fn without_force(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("--force")?;
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| rest.trim())
}

/// Words between blanks; one that begins with a quotation mark reaches to the next one.
fn words(text: &str) -> Vec<&str> {
    let mut words = vec![];
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let quoted = rest.strip_prefix('"').and_then(|inner| inner.split_once('"'));
        let (word, behind) = match quoted {
            Some(pair) => pair,
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word);
        rest = behind.trim_start();
    }
    words
}

/// The command that `typed` begins, or that is spelled most like it, if any is near.
fn nearest(typed: &str) -> Option<&'static str> {
    let typed = typed.to_lowercase();
    let names = || NAMES.iter().copied().flatten().copied().filter(|name| *name != "?");
    let near = names().map(|name| (strsim::damerau_levenshtein(name, &typed), name));
    // A name of three letters with two others in it is another name.
    let near = near.filter(|(edits, name)| edits * 3 <= name.len()).min().map(|(_, name)| name);
    near.or_else(|| names().find(|name| !typed.is_empty() && name.starts_with(&typed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_take_what_is_behind_them() {
        let parse = |text| Command::parse(text).unwrap();
        assert_eq!(parse("system  Be brief.\nBe kind. "), Command::System("Be brief.\nBe kind."));
        assert_eq!(parse("set top-p 0.9"), Command::Set(vec!["top-p", "0.9"]));
        assert_eq!(parse("set"), Command::Set(vec![]));
        assert_eq!(parse("exit"), Command::Bye);
        assert_eq!(parse("?"), Command::Help);
        assert_eq!(parse("save my talk.txt"), Command::Save { file: "my talk.txt", force: false });
        assert_eq!(parse("save --force my talk.txt"), Command::Save { file: "my talk.txt", force: true });
        assert_eq!(parse("save --forced"), Command::Save { file: "--forced", force: false });
        assert_eq!(parse("load a.json"), Command::Load("a.json"));
        assert_eq!(parse("load \"a b.json\""), Command::Load("a b.json"));
        assert_eq!(parse("save --force \"a.json\""), Command::Save { file: "a.json", force: true });
        assert_eq!(parse("save \"a\" \"b\""), Command::Save { file: "\"a\" \"b\"", force: false });
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("sav talk.json", "`/sav`; did you mean /save?"),
            ("Retyr", "did you mean /retry?"),
            ("quti", "did you mean /quit?"),
            ("sys", "did you mean /system?"),
            ("frobnicate", "there is no command `/frobnicate`; /help"),
            ("usr/bin is a folder", "there is no command `/usr/bin`; /help"),
            ("undo 2", "/undo takes nothing"),
            ("save", "needs the name of a file"),
            ("save --force", "needs the name of a file"),
            ("load ", "needs the name of a file"),
            ("load \"\"", "needs the name of a file"),
        ] {
            let error = Command::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn quotation_marks_hold_blanks() {
        assert_eq!(words("stop \"\nUser: \" top-k 5"), ["stop", "\nUser: ", "top-k", "5"]);
        assert_eq!(words("stop \"\""), ["stop", ""]);
        assert_eq!(words("stop \"open end"), ["stop", "\"open", "end"]);
        assert_eq!(words(" "), [""; 0]);
    }
}
