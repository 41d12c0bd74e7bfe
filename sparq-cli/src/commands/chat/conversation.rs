//! The messages so far, and the commands.

mod answer;

use std::{
    io::{self, IsTerminal},
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::{Context, bail};
use signal_hook::{consts::SIGINT, flag};
use sparq_models::{
    attention::AttentionPlan,
    chat::{ChatFormat, Message, Role},
    config::GenerationConfig,
    generate::Stats,
    session::Session,
    text_model::TextModel,
};

use super::{
    command::{Command, HELP, unquoted},
    fit,
    input::{Input, Typed},
    transcript,
};
use crate::{
    args::{ChatArgs, ChatSettings, Settings, TokenLimit},
    output::{self, Progress, Sink, attention_in_words, counted, summary},
};

pub(super) use answer::AnswerLost;

/// Exit code of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// What to do after a line.
pub(super) enum Next {
    Line,
    End,
}

/// A conversation with a model.
pub(super) struct Conversation<'a> {
    model: &'a TextModel,
    session: Session<'a>,
    format: ChatFormat,
    args: &'a ChatArgs,
    settings: Settings,
    /// What the checkpoint recommends for sampling.
    defaults: GenerationConfig,
    messages: Vec<Message>,
    /// The oldest turns that a full context has no room for: the model does not see them.
    dropped: usize,
    /// How often the last message was answered anew.
    retries: u64,
    /// The last answer, how many tokens it might have had, and its attention as it was asked for.
    last: Option<(Stats, TokenLimit, AttentionPlan)>,
    load: Duration,
    /// True while Ctrl-C ends the program; an answer clears it, and stops when it is set.
    interrupted: Arc<AtomicBool>,
}

impl<'a> Conversation<'a> {
    /// An empty conversation, but for `--system`.
    ///
    /// # Errors
    /// For settings that cannot run.
    pub(super) fn new(
        model: &'a TextModel,
        format: ChatFormat,
        args: &'a ChatArgs,
        defaults: GenerationConfig,
        load: Duration,
    ) -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(true));
        // In this order: the first Ctrl-C of an answer sets the flag, the second finds it set.
        flag::register_conditional_shutdown(SIGINT, INTERRUPTED, Arc::clone(&interrupted))
            .and_then(|_| flag::register(SIGINT, Arc::clone(&interrupted)))
            .context("cannot listen for Ctrl-C")?;
        // As `/system ""`: none at all.
        let instructions = args.system.iter().filter(|text| !text.is_empty());
        let conversation = Self {
            model,
            session: Session::new(model, args.max_seq_len),
            format,
            args,
            settings: args.settings.clone(),
            defaults,
            messages: instructions.map(|text| Message::new(Role::System, text)).collect(),
            dropped: 0,
            retries: 0,
            last: None,
            load,
            interrupted,
        };
        conversation.check(&conversation.settings.values)?;
        conversation.notes().iter().for_each(|note| output::say(format!("note: {note}")));
        Ok(conversation)
    }

    /// Acts on what was typed: a command, or a message to answer. What fails leaves the conversation as it
    /// was.
    pub(super) fn act(
        &mut self,
        typed: &Typed,
        input: &mut Input,
        progress: &mut Progress,
    ) -> anyhow::Result<Next> {
        if typed.literal {
            self.ask(&typed.text, progress)?;
            return Ok(Next::Line);
        }
        let text = typed.text.trim();
        match text.strip_prefix('/') {
            None => self.ask(text, progress)?,
            Some(message) if message.starts_with('/') => self.ask(message, progress)?,
            Some(command) => match Command::parse(command)? {
                Command::Bye => return Ok(Next::End),
                Command::Retry => self.retry(progress)?,
                Command::System(text) => self.system(text, typed.block)?,
                Command::Undo => self.undo()?,
                Command::Clear => self.clear(),
                Command::Set(words) => self.set(&words)?,
                Command::Prompt(text) => self.show_prompt(text)?,
                Command::Stats => output::say(self.stats()?),
                Command::Save { file, force } => self.save(Path::new(file), force, input)?,
                Command::Load(file) => self.load(Path::new(file))?,
                Command::Help => output::say(HELP),
            },
        }
        Ok(Next::Line)
    }

    /// Other messages than before.
    fn replace(&mut self, messages: Vec<Message>) {
        self.messages = messages;
        (self.dropped, self.retries, self.last) = (0, 0, None);
    }

    /// Shows the instructions, or changes them to a text; one that was not typed as a `block` may stand
    /// in quotation marks.
    fn system(&mut self, text: &str, block: bool) -> anyhow::Result<()> {
        let current = self.messages.first().filter(|message| message.role == Role::System);
        if text.is_empty() && !block {
            match current {
                Some(message) => output::say(&message.content),
                None => output::say("there are no instructions; /system TEXT gives some"),
            }
            return Ok(());
        }
        let rest = self.messages.iter().skip(usize::from(current.is_some())).cloned();
        let text = if block { text } else { unquoted(text) };
        let new = (!text.is_empty()).then(|| Message::new(Role::System, text));
        let messages: Vec<Message> = new.into_iter().chain(rest).collect();
        // A template that refuses instructions does so with any message behind them.
        let mut probe = messages.clone();
        probe.extend((!self.ends_with(Role::User)).then(|| Message::new(Role::User, "?")));
        self.format.encode(self.model.tokenizer(), &probe)?;
        self.messages = messages;
        self.dropped = 0;
        self.confirm(if text.is_empty() { "the instructions are gone" } else { "the instructions are set" });
        Ok(())
    }

    fn undo(&mut self) -> anyhow::Result<()> {
        let asked = self.messages.iter().rposition(|message| message.role == Role::User);
        let asked = asked.context("there is nothing to take back")?;
        let mut messages = std::mem::take(&mut self.messages);
        let taken = messages.split_off(asked);
        self.replace(messages);
        output::say(format!("took back {}", counted(taken.len(), "message")));
        Ok(())
    }

    fn clear(&mut self) {
        self.session.clear();
        self.messages.retain(|message| message.role == Role::System);
        self.replace(self.messages.clone());
        self.confirm("the conversation is forgotten, but for the instructions");
    }

    /// Says what was done, to whoever sits at a terminal.
    fn confirm(&self, done: &str) {
        if io::stdin().is_terminal() {
            output::say(done);
        }
    }

    fn ends_with(&self, role: Role) -> bool {
        self.messages.last().is_some_and(|message| message.role == role)
    }

    /// Changes settings, or lists them for no words.
    fn set(&mut self, words: &[&str]) -> anyhow::Result<()> {
        if words.is_empty() {
            output::say(self.in_force()?);
            return Ok(());
        }
        let (settings, mut notes) = self.settings.with(words)?;
        self.check(&settings.values)?;
        let before = self.notes();
        self.settings = settings;
        notes.extend(self.notes().into_iter().filter(|note| !before.contains(note)));
        notes.iter().for_each(|note| output::say(format!("note: {note}")));
        Ok(())
    }

    /// What was set and what follows from it.
    fn in_force(&self) -> anyhow::Result<String> {
        let values = &self.settings.values;
        let stated = match self.settings.stated().join("\n           ") {
            none if none.is_empty() => "nothing".to_owned(),
            stated => stated,
        };
        let sampling = values.sampling.resolve(&self.defaults).in_words();
        let attention = attention_in_words(&values.attention.resolve(self.args.model.is_demo())?);
        let limit = match values.limit(&self.defaults, 0) {
            Ok(limit) => format!("{} tokens at most", limit.tokens),
            Err(error) => error.to_string(),
        };
        let names = Settings::names().join(", ");
        Ok(format!(
            "set        {stated}\nsampling   {sampling}\nattention  {attention}\nanswers    {limit}\n\n\
             settings: {names}\n/set NAME VALUE changes one, /set NAME default takes it back; \
             `sparq chat --help` says what they do"
        ))
    }

    /// What of the settings has no effect.
    fn notes(&self) -> Vec<String> {
        let values = &self.settings.values;
        let mut notes = values.attention.notes(self.model.model().attention_layers().len());
        notes.extend(values.sampling.without_effect(&self.defaults));
        notes
    }

    /// Whether the model can run with these settings.
    fn check(&self, settings: &ChatSettings) -> anyhow::Result<()> {
        settings.sampling.resolve(&self.defaults).validate()?;
        let attention = settings.attention.resolve(self.args.model.is_demo())?;
        let layers = self.model.model().attention_layers();
        for (method, layer) in attention.methods(&layers, self.session.max_seq_len())?.iter().zip(&layers) {
            method.for_layer(&layer.shape)?;
        }
        Ok(())
    }

    /// Shows what the model would see now, or with `text` as the next message.
    fn show_prompt(&self, text: &str) -> anyhow::Result<()> {
        let next = (!text.is_empty()).then(|| Message::new(Role::User, text));
        let messages: Vec<Message> = self.messages.iter().cloned().chain(next).collect();
        let prompt = self.prompt(&messages)?;
        let ids: Vec<String> = prompt.ids.iter().map(u32::to_string).collect();
        let text = self.format.render(&fit::without_oldest(&messages, prompt.dropped))?;
        output::say(format!("{text}\n\n{} tokens: {}", ids.len(), ids.join(" ")));
        Ok(())
    }

    fn stats(&self) -> anyhow::Result<String> {
        let Some((stats, limit, attention)) = &self.last else {
            return Ok("there is no answer yet".to_owned());
        };
        let prompt = self.prompt(&self.messages)?;
        let (device, dtype) = (&self.args.model.device, self.model.dtype());
        let figures = summary(stats, self.load, device, dtype, limit, attention);
        let dropped = match prompt.dropped {
            0 => String::new(),
            turns => format!("; {} dropped", oldest_turns(turns)),
        };
        let (used, context) = (prompt.ids.len(), self.session.max_seq_len());
        Ok(format!("{figures}\ncontext    {used} of {context} tokens{dropped}"))
    }

    fn save(&self, path: &Path, force: bool, input: &mut Input) -> anyhow::Result<()> {
        if Sink::replaces(path) && !force {
            let name = path.display();
            match input.confirm(&format!("`{name}` is there already; replace it?"))? {
                Some(true) => {}
                Some(false) => {
                    output::say("nothing was saved");
                    return Ok(());
                }
                None => bail!("`{name}` is there already; /save --force replaces it"),
            }
        }
        output::write(path, &transcript::write(&self.messages, path)?)?;
        let saved = counted(self.messages.len(), "message");
        output::say(format!("saved {saved} to `{}`", path.display()));
        Ok(())
    }

    fn load(&mut self, path: &Path) -> anyhow::Result<()> {
        let messages = transcript::read(path)?;
        if !messages.is_empty() {
            // A template that refuses the conversation does so at once.
            self.format.encode(self.model.tokenizer(), &messages)?;
        }
        self.replace(messages);
        let unanswered = if self.ends_with(Role::User) { "; /retry answers the last one" } else { "" };
        let loaded = counted(self.messages.len(), "message");
        output::say(format!("loaded {loaded} from `{}`{unanswered}", path.display()));
        Ok(())
    }
}

fn oldest_turns(turns: usize) -> String {
    match turns {
        1 => "the oldest turn is".to_owned(),
        turns => format!("the {turns} oldest turns are"),
    }
}
