//! What can go wrong in an evaluation.

use std::path::PathBuf;

/// An error of tasks, journals and results.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// No task has this name.
    #[error("there is no task `{name}`")]
    UnknownTask {
        /// What was asked for.
        name: String,
        /// The task whose name is closest.
        closest: Option<String>,
    },

    /// A task reads a file and none was given.
    #[error("task `{task}` reads a file: {form}")]
    NeedsFile {
        /// The task.
        task: String,
        /// The form of the file.
        form: String,
    },

    /// A task was given a file that it does not read.
    #[error("task `{task}` makes its own text and reads no file")]
    NeedsNoFile {
        /// The task.
        task: String,
    },

    /// A file does not hold what its task expects.
    #[error("`{}`: {message}", path.display())]
    TaskFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },

    /// A context is too short for the task, even without filler.
    #[error("task `{task}` needs at least {needed} tokens, and a length of {tokens} was asked for")]
    Room {
        /// The task.
        task: String,
        /// What question, answer and needles take.
        needed: usize,
        /// The length.
        tokens: usize,
    },

    /// A setting has no meaning.
    #[error("{setting} is {value}: {reason}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What was asked for.
        value: String,
        /// What it must be.
        reason: String,
    },

    /// The journal beside the output belongs to a run with other settings.
    #[error("`{}` was left by a run with other settings ({difference})", path.display())]
    OtherJournal {
        /// The journal.
        path: PathBuf,
        /// The first difference.
        difference: String,
    },

    /// The output holds the results of a run with other settings.
    #[error("`{}` holds the results of a run with other settings ({difference})", path.display())]
    OtherResults {
        /// The file.
        path: PathBuf,
        /// What differs.
        difference: String,
    },

    /// A file of results cannot be read.
    #[error("`{}` holds no results of `sparq eval`: {message}", path.display())]
    Results {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

impl EvalError {
    /// The next step that a user can take, where there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownTask { closest: Some(closest), .. } => {
                format!("did you mean `{closest}`?")
            }
            Self::UnknownTask { closest: None, .. } => return None,
            Self::NeedsFile { task, .. } => format!("name it as `{task}=FILE`"),
            Self::NeedsNoFile { task } => format!("write just `{task}`"),
            Self::Room { .. } => "ask for longer contexts".into(),
            Self::OtherJournal { path, .. } => format!(
                "repeat that run's options to resume it, or delete `{}` to start again",
                path.display()
            ),
            Self::OtherResults { .. } => "write to another file, remove this one, or replace it".into(),
            Self::TaskFile { .. } | Self::Setting { .. } | Self::Results { .. } => {
                return None;
            }
        })
    }
}
