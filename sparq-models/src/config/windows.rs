//! Which layers have a sliding window.

use super::fields::{ConfigFields, brief};
use crate::error::Result;

/// The window of each layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerWindows {
    layers: usize,
    /// Tokens that a sliding layer attends to.
    window: Option<usize>,
    sliding: Sliding,
}

/// Which layers slide, where no list says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sliding {
    /// None of them.
    None,
    /// All of them.
    All,
    /// Those from this one on.
    From(usize),
    /// All but every so many-th.
    AllBut(usize),
    /// Those that are marked.
    Listed(Vec<bool>),
}

impl LayerWindows {
    /// Every layer has the same one, or none.
    pub fn all(layers: usize, window: Option<usize>) -> Self {
        Self { layers, window, sliding: if window.is_some() { Sliding::All } else { Sliding::None } }
    }

    /// The windows of `layers` layers: `window` where `layer_types` says `sliding_attention`, or in files
    /// without that list where `rule` says so.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a list of another length or with other names, and
    /// for layers that slide without a window.
    pub fn read(
        fields: &ConfigFields<'_>,
        layers: usize,
        window: Option<usize>,
        rule: Sliding,
    ) -> Result<Self> {
        let listed = fields.optional::<Vec<String>>("layer_types")?;
        let windows = match &listed {
            None => Self { layers, window, sliding: rule },
            Some(types) => Self { layers, window, sliding: list(fields, layers, types)? },
        };
        match window {
            None if windows.layer_types().any(|layer_type| layer_type == "sliding_attention") => {
                let who = if listed.is_some() { "layer_types names" } else { "this architecture has" };
                Err(fields.error(format!(
                    "{who} layers of type sliding_attention, and there is no window: sliding_window is null or \
                     switched off"
                )))
            }
            _ => Ok(windows),
        }
    }

    /// Tokens that layer `index` attends to, where it has a window.
    pub fn window(&self, index: usize) -> Option<usize> {
        self.window.filter(|_| self.is_sliding(index))
    }

    /// Whether layer `index` is of the type `sliding_attention`.
    pub fn is_sliding(&self, index: usize) -> bool {
        match &self.sliding {
            Sliding::None => false,
            Sliding::All => true,
            Sliding::From(first) => index >= *first,
            Sliding::AllBut(every) => !(index + 1).is_multiple_of(*every),
            Sliding::Listed(list) => list.get(index).copied().unwrap_or(false),
        }
    }

    /// The types of layers that there are, `full_attention` first.
    pub fn layer_types(&self) -> impl Iterator<Item = &'static str> {
        let (full, sliding) = match &self.sliding {
            Sliding::None => (true, false),
            Sliding::All => (false, true),
            Sliding::From(first) => (*first > 0, *first < self.layers),
            Sliding::AllBut(every) => (self.layers >= *every, *every > 1),
            Sliding::Listed(list) => (list.contains(&false), list.contains(&true)),
        };
        let types = [("full_attention", full), ("sliding_attention", sliding)];
        types.into_iter().filter_map(|(layer_type, is_there)| is_there.then_some(layer_type))
    }

    /// The window of the layers that have one.
    pub fn tokens(&self) -> Option<usize> {
        self.window.filter(|_| self.layer_types().any(|layer_type| layer_type == "sliding_attention"))
    }
}

/// Which layers the list calls sliding.
fn list(fields: &ConfigFields<'_>, layers: usize, types: &[String]) -> Result<Sliding> {
    if types.len() != layers {
        let count = types.len();
        return Err(fields.error(format!("layer_types has {count} entries, num_hidden_layers is {layers}")));
    }
    let is_sliding = |name: &String| match name.as_str() {
        "sliding_attention" => Ok(true),
        // The older name.
        "full_attention" | "attention" => Ok(false),
        _ => Err(fields.error(format!(
            "layer_types: {} is not supported (supported: full_attention, sliding_attention)",
            brief(&name.as_str().into())
        ))),
    };
    Ok(Sliding::Listed(types.iter().map(is_sliding).collect::<Result<_>>()?))
}
