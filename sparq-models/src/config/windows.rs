//! Which layers have a sliding window.

use super::fields::ConfigFields;
use crate::error::Result;

/// The window of each of `layers` layers: `window` where `layer_types` says `sliding_attention`, or
/// in files without that list where `is_sliding(i)` holds; `None` elsewhere.
///
/// # Errors
///
/// [`Error::Config`](crate::Error::Config) for a list of another length or with other names.
pub fn layer_windows(
    fields: &ConfigFields<'_>,
    layers: usize,
    window: Option<usize>,
    is_sliding: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>> {
    let Some(types) = fields.optional::<Vec<String>>("layer_types")? else {
        return Ok((0..layers).map(|i| window.filter(|_| is_sliding(i))).collect());
    };
    if types.len() != layers {
        let count = types.len();
        return Err(fields.error(format!("layer_types has {count} entries, num_hidden_layers is {layers}")));
    }
    let window_of = |name: &String| match name.as_str() {
        "sliding_attention" => Ok(window),
        "full_attention" => Ok(None),
        _ => Err(fields.error(format!(
            "layer_types: \"{name}\" is not supported (supported: full_attention, sliding_attention)"
        ))),
    };
    types.iter().map(window_of).collect()
}
