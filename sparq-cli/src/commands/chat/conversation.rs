//! The messages so far, the commands, and the answers.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use signal_hook::{consts::SIGINT, flag};
use sparq_models::{
    chat::{ChatFormat, Message, Role, plain},
    config::GenerationConfig,
    generate::{Event, Finish, GenerateOptions, Stats, TextModel},
    session::Session,
};

use crate::{
    args::{ChatArgs, ChatSettings, TokenLimit},
    crossover::{self, Known},
    output::{self, Progress, Sink, summary},
};

const HELP: &str = "\
/clear              forget the conversation, but for --system
/set NAME VALUE …   change a setting for the answers to come; /set alone lists them
/stats              figures of the last answer
/save FILE          write the conversation to a file: JSON for *.json, else text
/help               this
/bye                end (so does Ctrl-D); Ctrl-C stops an answer
//…                 a message that begins with a slash";

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
    settings: ChatSettings,
    /// What `/set` changed in them.
    set: Vec<String>,
    /// What the checkpoint recommends for sampling.
    defaults: GenerationConfig,
    messages: Vec<Message>,
    /// The last answer, and how many tokens it might have had.
    last: Option<(Stats, TokenLimit)>,
    /// Where the length below which it attended densely comes from.
    known: Known,
    load: Duration,
    /// True while Ctrl-C ends the program; an answer clears it, and stops when it is set.
    interrupted: Arc<AtomicBool>,
}

impl<'a> Conversation<'a> {
    /// An empty conversation, but for `--system`.
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
        let mut conversation = Self {
            model,
            session: Session::new(model, args.max_seq_len),
            format,
            args,
            settings: args.settings.clone(),
            set: vec![],
            defaults,
            messages: vec![],
            last: None,
            known: Known::default(),
            load,
            interrupted,
        };
        conversation.clear();
        Ok(conversation)
    }

    /// Acts on a line: a command, or a message to answer.
    pub(super) fn line(&mut self, line: &str, progress: &mut Progress) -> anyhow::Result<Next> {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            self.answer(line, progress)?;
            return Ok(Next::Line);
        };
        if command.starts_with('/') {
            self.answer(command, progress)?;
            return Ok(Next::Line);
        }
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            ["bye" | "exit" | "quit"] => return Ok(Next::End),
            ["clear"] => self.clear(),
            ["stats"] => output::say(self.stats()),
            ["help"] => output::say(HELP),
            ["set"] => output::say(format!("{}\n\nset: {}", ChatSettings::help(), self.set.join(" "))),
            ["set", ..] => {
                self.settings.set(&words[1..])?;
                self.set.push(words[1..].join(" "));
            }
            ["save", _, ..] => self.save(Path::new(command["save".len()..].trim()))?,
            ["save"] => bail!("/save needs the name of a file"),
            _ => bail!("there is no command `/{command}`; /help lists them"),
        }
        Ok(Next::Line)
    }

    fn clear(&mut self) {
        self.session.clear();
        self.last = None;
        let system = self.args.system.iter().map(|text| Message::new(Role::System, text));
        self.messages = system.collect();
    }

    /// Answers a message on standard output. A message that fails leaves the conversation as it was.
    fn answer(&mut self, text: &str, progress: &mut Progress) -> anyhow::Result<()> {
        self.messages.push(Message::new(Role::User, text));
        let answered = self.write_answer(progress);
        match &answered {
            Ok(answer) => self.messages.push(Message::new(Role::Assistant, answer.trim())),
            Err(_) => drop(self.messages.pop()),
        }
        answered.map(drop)
    }

    fn write_answer(&mut self, progress: &mut Progress) -> anyhow::Result<String> {
        let ids = self.format.encode(self.model.tokenizer(), &self.messages)?;
        let limit = self.settings.limit(&self.defaults, ids.len())?;
        let options = self.options(limit.tokens)?;
        let mut sink = Sink::open(None)?;
        let mut failure = None;
        let mut begun = false;
        self.interrupted.store(false, Ordering::Relaxed);
        let generation = self.session.generate(&ids, &options, &mut |event| {
            match event {
                Event::Prefill { done, total } => progress.prefill(done, total),
                Event::Text(text) => {
                    progress.clear();
                    let text = if begun { text } else { text.trim_start() };
                    begun |= !text.is_empty();
                    failure = sink.write(text).err();
                }
                Event::BeyondTrainedLength { tokens } => {
                    progress.clear();
                    output::beyond_trained_length(tokens);
                }
            }
            match failure.is_some() || self.interrupted.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        self.interrupted.store(true, Ordering::Relaxed);
        progress.clear();
        if let Some(error) = failure {
            return Err(error);
        }
        let generation = generation?;
        sink.finish()?;
        match generation.stats.finish {
            Finish::MaxNewTokens if self.settings.max_new_tokens.is_some() => {
                output::say(format!("(cut off at max-new-tokens = {})", limit.tokens));
            }
            Finish::MaxNewTokens => {
                output::say(format!("(cut off after {} tokens: {})", limit.tokens, limit.named));
            }
            Finish::MaxTime => output::say("(cut off at max_time of generation_config.json)"),
            Finish::MaxSeqLen => output::say("(the context is full; /clear begins anew)"),
            Finish::Cancelled => output::say("(stopped)"),
            Finish::Eos(_) | Finish::Stop(_) => {}
        }
        self.last = Some((generation.stats, limit));
        Ok(generation.text)
    }

    fn options(&mut self, max_new_tokens: usize) -> anyhow::Result<GenerateOptions> {
        let sampling = &self.settings.sampling;
        let mut stop = sampling.stops(&self.settings.stop, &self.defaults);
        stop.extend(self.format.stops());
        let is_demo = self.args.model.is_demo();
        let mut attention = self.settings.attention.resolve(is_demo)?;
        self.known = Known::default();
        if self.settings.attention.measures_crossover(is_demo) {
            let run_len = self.session.cached_tokens().len().saturating_add(max_new_tokens);
            let run_len = run_len.min(self.session.max_seq_len());
            (attention, self.known) =
                crossover::settle(attention, self.model.model(), self.model.dtype(), run_len)?;
        }
        Ok(GenerateOptions {
            attention,
            max_new_tokens,
            max_seq_len: None, // The session has its own.
            sampler: sampling.resolve(&self.defaults),
            stop,
            max_time: sampling.defaults(&self.defaults).max_time,
            ignore_eos: false,
        })
    }

    fn stats(&self) -> String {
        let Some((stats, limit)) = &self.last else {
            return "there is no answer yet".to_owned();
        };
        let cached = self.session.cached_tokens().len();
        let (device, dtype) = (&self.args.model.device, self.model.dtype());
        let figures = summary(stats, self.load, device, dtype, &self.known, limit);
        format!("{figures}\ncontext    {cached} of {} tokens", self.session.max_seq_len())
    }

    fn save(&self, path: &Path) -> anyhow::Result<()> {
        let text = match path.extension().is_some_and(|extension| extension == "json") {
            true => serde_json::to_string_pretty(&self.messages)? + "\n",
            false => plain(&self.messages),
        };
        output::write(path, &text)?;
        output::say(format!("saved {} messages to `{}`", self.messages.len(), path.display()));
        Ok(())
    }
}
