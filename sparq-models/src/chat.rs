//! Conversations: messages, and how they become a prompt.

use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::Checkpoint,
    error::Result,
    tokenizer::{ChatTemplate, TemplateOptions, Tokenizer},
};

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the whole conversation; not every model knows them.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The role as plain text names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "System",
            Self::User => "User",
            Self::Assistant => "Assistant",
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// How a conversation becomes a prompt.
#[derive(Debug)]
pub enum ChatFormat {
    /// By the model's template, which spells out every special token.
    Template(Box<ChatTemplate>),
    /// As lines that begin with `System:`, `User:` and `Assistant:`, for models without a template.
    Plain,
}

impl ChatFormat {
    /// The checkpoint's template; [`ChatFormat::Plain`] where it has none.
    ///
    /// # Errors
    /// [`crate::Error::Template`], [`crate::Error::File`] and [`crate::Error::Config`] for files that
    /// are damaged.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        Ok(Self::with(checkpoint, &TemplateOptions::default())?.0)
    }

    /// The template that `options` choose, and the options that have no effect as it does not read them.
    ///
    /// # Errors
    /// Those of [`of`](Self::of).
    pub fn with(checkpoint: &Checkpoint, options: &TemplateOptions) -> Result<(Self, Vec<String>)> {
        Ok(match checkpoint.tokenizer_config()?.chat_template(options)? {
            Some((template, unread)) => (Self::Template(Box::new(template)), unread),
            None => (Self::Plain, options.names()),
        })
    }

    /// The conversation as one text, up to where the next answer begins.
    ///
    /// # Errors
    /// [`crate::Error::Template`] where the template refuses the conversation.
    pub fn render(&self, messages: &[Message]) -> Result<String> {
        match self {
            Self::Template(template) => template.render(messages, true),
            Self::Plain => Ok(plain(messages) + Role::Assistant.name() + ":"),
        }
    }

    /// Token ids of [`ChatFormat::render`]. A text from a template gets no special tokens beyond its own; a
    /// plain one gets those that the tokenizer puts around texts.
    ///
    /// # Errors
    /// Those of [`ChatFormat::render`], and [`crate::Error::Tokenizer`].
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
        tokenizer.encode(&self.render(messages)?, matches!(self, Self::Plain))
    }

    /// Texts that end an answer beside the model's end-of-text tokens.
    pub fn stops(&self) -> Vec<String> {
        match self {
            Self::Template(_) => vec![],
            Self::Plain => vec![format!("\n{}:", Role::User.name())],
        }
    }
}

/// A conversation as lines: `Role: content`.
pub fn plain(messages: &[Message]) -> String {
    messages.iter().map(|message| format!("{}: {}\n", message.role.name(), message.content.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_as_lines() {
        let messages = [
            Message::new(Role::System, "Be brief."),
            Message::new(Role::User, " Hello!\n"),
            Message::new(Role::Assistant, " Hi."),
        ];
        assert_eq!(plain(&messages), "System: Be brief.\nUser: Hello!\nAssistant: Hi.\n");
        assert_eq!(ChatFormat::Plain.stops(), ["\nUser:"]);
    }
}
