//! Answers.

use std::{fmt, ops::ControlFlow, sync::atomic::Ordering};

use anyhow::bail;
use sparq_models::{
    Error,
    chat::{ChatFormat, Message, Role},
    generate::{Event, Finish, GenerateOptions, Generation},
};

use super::{Conversation, oldest_turns};
use crate::{
    args::ContextFull,
    commands::chat::fit::{Fit, fit},
    hint::Advice,
    output::{self, Progress, Sink},
    room,
};

/// The answer could not be written: nobody reads the next one either.
#[derive(Debug)]
pub(in crate::commands::chat) struct AnswerLost;

impl fmt::Display for AnswerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is lost")
    }
}

impl Conversation<'_> {
    /// Answers a message on standard output. One that fails is not kept.
    pub(super) fn ask(&mut self, text: &str, progress: &mut Progress) -> anyhow::Result<()> {
        let retries = std::mem::take(&mut self.retries);
        self.messages.push(Message::new(Role::User, text));
        let answered = self.answer(progress);
        if answered.is_err() {
            self.messages.pop();
            self.retries = retries;
        }
        answered
    }

    /// Answers the last message anew. The old answer stays where that fails.
    pub(super) fn retry(&mut self, progress: &mut Progress) -> anyhow::Result<()> {
        let old = self.messages.pop_if(|message| message.role == Role::Assistant);
        if !self.ends_with(Role::User) {
            self.messages.extend(old);
            bail!("there is no message to answer");
        }
        if old.is_some() {
            self.retries += 1;
            if self.settings.values.sampling.resolve(&self.defaults).temperature == 0.0 {
                output::say(
                    "note: at temperature 0 an answer comes out as before; `/set temperature 0.7` lets it vary",
                );
            }
        }
        let answered = self.answer(progress);
        if answered.is_err() {
            self.messages.extend(old);
        }
        answered
    }

    /// What the model sees of `messages`.
    pub(super) fn prompt(&self, messages: &[Message]) -> sparq_models::Result<Fit> {
        let context = self.session.max_seq_len();
        let longest = match self.args.context_full {
            // With room for an answer.
            ContextFull::Drop => {
                let answer = self.settings.values.limit(&self.defaults, 0).map_or(0, |limit| limit.tokens);
                context - answer.min(context / 4).max(1).min(context)
            }
            ContextFull::Stop => usize::MAX,
        };
        fit(messages, self.dropped, longest, |messages| self.format.encode(self.model.tokenizer(), messages))
    }

    /// Writes an answer to the messages, and keeps it as the last one.
    fn answer(&mut self, progress: &mut Progress) -> anyhow::Result<()> {
        let prompt = self.prompt(&self.messages)?;
        let limit = self.settings.values.limit(&self.defaults, prompt.ids.len())?;
        let generation = self.write(&prompt, limit.tokens, progress)?;
        let content = self.content(&generation)?;
        self.messages.push(Message::new(Role::Assistant, content));
        let context = self.session.max_seq_len();
        match generation.stats.finish {
            Finish::MaxNewTokens if self.settings.values.max_new_tokens.is_some() => {
                output::say(format!("(cut off at max-new-tokens = {})", limit.tokens));
            }
            Finish::MaxNewTokens => {
                output::say(format!("(cut off after {} tokens: {})", limit.tokens, limit.named));
            }
            Finish::MaxTime => output::say("(cut off at max_time of generation_config.json)"),
            Finish::MaxSeqLen => {
                let next = match self.args.context_full {
                    ContextFull::Drop => "the next message drops the oldest turns",
                    ContextFull::Stop => "/undo and /clear make room",
                };
                output::say(format!("(cut off: the context of {context} tokens is full; {next})"));
            }
            Finish::Cancelled => output::say("(stopped)"),
            Finish::Eos(_) | Finish::Stop(_) => {}
        }
        let attention = self.settings.values.attention.resolve(self.args.model.is_demo())?;
        self.last = Some((generation.stats, limit, attention));
        Ok(())
    }

    fn write(
        &mut self,
        prompt: &Fit,
        max_new_tokens: usize,
        progress: &mut Progress,
    ) -> anyhow::Result<Generation> {
        let options = self.options(max_new_tokens)?;
        let mut sink = Sink::open(None)?;
        let mut failure = None;
        let mut begun = false;
        let dropped = std::mem::replace(&mut self.dropped, prompt.dropped);
        if prompt.dropped > dropped && prompt.ids.len() <= self.session.max_seq_len() {
            output::say(format!(
                "note: the context of {} tokens is full: {} dropped",
                self.session.max_seq_len(),
                oldest_turns(prompt.dropped)
            ));
        }
        self.interrupted.store(false, Ordering::Relaxed);
        let generation = self.session.generate(&prompt.ids, &options, &mut |event| {
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
            return Err(error.context(AnswerLost));
        }
        if generation.is_err() {
            self.dropped = dropped;
        }
        let generation = generation.map_err(|error| self.explain(error, prompt))?;
        sink.finish().map_err(|error| error.context(AnswerLost))?;
        Ok(generation)
    }

    /// What a prompt that is too long means in a conversation.
    fn explain(&self, error: Error, prompt: &Fit) -> anyhow::Error {
        let (what, hint) = match (&error, self.args.context_full) {
            (Error::PromptTooLong { .. }, ContextFull::Stop) if self.messages.len() > 1 => (
                "the context is full",
                "/undo and /clear make room; --context-full drop lets the oldest turns go",
            ),
            (Error::PromptTooLong { .. }, ContextFull::Drop) if prompt.dropped > 0 => (
                "the message does not fit into the context, even without the turns before it",
                "shorten it, or raise --max-seq-len if the model allows more",
            ),
            _ => return error.into(),
        };
        Advice::new(format!("{what}: {error}"), hint).into()
    }

    /// The answer as the model is to see it again: to the letter, but for the blank that would part it from
    /// a plain text before it.
    fn content(&self, generation: &Generation) -> anyhow::Result<String> {
        let text = generation.text.as_str();
        Ok(match &self.format {
            ChatFormat::Plain => text.trim(),
            ChatFormat::Template(_) => {
                let parted = !self.model.tokenizer().decode(&generation.tokens)?.starts_with(' ');
                text.strip_prefix(' ').filter(|_| parted).unwrap_or(text)
            }
        }
        .to_owned())
    }

    fn options(&self, max_new_tokens: usize) -> anyhow::Result<GenerateOptions> {
        let sampling = &self.settings.values.sampling;
        let mut stop = sampling.stops(&self.settings.values.stop, &self.defaults);
        stop.extend(self.format.stops());
        let attention = self.settings.values.attention.resolve(self.args.model.is_demo())?;
        let mut sampler = sampling.resolve(&self.defaults);
        // The same seed would draw the same answer again.
        sampler.seed = sampler.seed.wrapping_add(self.retries);
        Ok(GenerateOptions {
            attention,
            measuring_memory: room::for_measuring(self.model.model().device()),
            max_new_tokens,
            max_seq_len: None, // The session has its own.
            sampler,
            stop,
            max_time: sampling.defaults(&self.defaults).max_time,
            ignore_eos: false,
        })
    }
}
