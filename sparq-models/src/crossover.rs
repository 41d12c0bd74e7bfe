//! The context length from which SparQ is faster than dense attention, measured where it runs.
//!
//! Below it a step's fixed costs outweigh the bytes that are not read. It depends on the device, the
//! dtype, the shape of the layer and the sizes of SparQ, so it is measured for each of them on first
//! use, which takes a second at most and a stated part of the memory, and kept in a file. [`settle`] does so
//! for a run: [`crate::session::Session`] calls it.

mod measure;
mod settle;

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sparq_core::{AttentionLayer, AttentionShape, Method, SparqConfig};

use crate::{attention::MethodSpec, error::Result};

pub use settle::{MEMORY, Verdict, settle};

/// How often, and how long in between, another process is waited for that writes the file.
const PATIENCE: (u32, Duration) = (50, Duration::from_millis(10));

/// Measured crossovers, in memory and in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Crossovers {
    file: Option<PathBuf>,
    known: BTreeMap<String, Entry>,
}

/// A crossover with what it was measured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    crossover: Crossover,
    /// The longest context that there was memory for.
    longest_tokens: usize,
}

/// One measured crossover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossover {
    /// SparQ is faster from this many tokens on: the value for [`SparqConfig::dense_below`].
    pub tokens: usize,
    /// The longest context that was measured.
    pub measured_tokens: usize,
    /// Whether `tokens` lies beyond what was measured, or was worked out from smaller sizes.
    pub estimated: bool,
}

impl Crossovers {
    /// Those of the user: `sparq-rs/crossover.json` in `XDG_CACHE_HOME`, or in `.cache` of the home
    /// folder. Without either, or where the file cannot be read, nothing is known yet.
    pub fn of_user() -> Self {
        let folder = |name: &str| env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        Self::new(cache.map(|cache| cache.join("sparq-rs").join("crossover.json")))
    }

    /// Those in `file`; in memory alone for `None`.
    pub fn new(file: Option<PathBuf>) -> Self {
        let known = file.as_deref().map(read).unwrap_or_default();
        Self { file, known }
    }

    /// The crossover of a layer, measured with at most `memory` bytes if it is not known. `None` where
    /// that is too little to measure anything; then nothing is kept.
    ///
    /// # Errors
    /// [`crate::Error::Core`] where a step does not run on the device.
    pub fn find(
        &mut self,
        layer: &AttentionLayer,
        config: &SparqConfig,
        device: &Device,
        dtype: DType,
        memory: u64,
    ) -> Result<Option<Crossover>> {
        let key = key(layer, config, device, dtype);
        let longest_tokens = measure::longest(layer, config, dtype, memory);
        // With more memory, what was worked out may be measured.
        let holds = |entry: &&Entry| !entry.crossover.estimated || longest_tokens <= entry.longest_tokens;
        if let Some(known) = self.known.get(&key).filter(holds) {
            return Ok(Some(known.crossover));
        }
        let Some(measured) = measure::measure(layer, config, device, dtype, memory)? else {
            return Ok(None);
        };
        let crossover = measured.crossover;
        // One length says nothing about others: on a machine that is busy now there is no time for more.
        if measured.is_sure {
            let entry = Entry { crossover, longest_tokens };
            self.known.insert(key.clone(), entry);
            // A cache that cannot be written costs a second next time and nothing else.
            drop(self.keep(key, entry));
        }
        Ok(Some(crossover))
    }

    /// Adds an entry to the file, beside those that others have written meanwhile. The file is moved into
    /// its place, so that it is whole at any time.
    fn keep(&self, key: String, measured: Entry) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        // Where folders have no locks, an entry may get lost, which costs a second next time.
        let lock = fs::File::open(folder);
        let (tries, pause) = PATIENCE;
        for _ in 0..tries {
            match lock.as_ref().map(fs::File::try_lock) {
                Ok(Err(fs::TryLockError::WouldBlock)) => thread::sleep(pause),
                _ => break,
            }
        }
        let mut known = read(file);
        known.insert(key, measured);
        let temporary = folder.join(format!("crossover.{}.tmp", std::process::id()));
        let write = || {
            let mut output = fs::File::create(&temporary)?;
            output.write_all(&serde_json::to_vec_pretty(&known)?)?;
            output.sync_all()?;
            fs::rename(&temporary, file)
        };
        write().inspect_err(|_| drop(fs::remove_file(&temporary)))
    }
}

/// The entries of a file that have the form of this version; older ones do not say what was measured.
fn read(file: &Path) -> BTreeMap<String, Entry> {
    let content = fs::read(file).ok();
    let entries: Option<BTreeMap<String, Value>> =
        content.and_then(|content| serde_json::from_slice(&content).ok());
    let entry = |(key, value)| Some((key, serde_json::from_value(value).ok()?));
    entries.into_iter().flatten().filter_map(entry).collect()
}

/// The name of the processor, as far as the system says it.
fn processor() -> String {
    let stated = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        stated.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    name.map_or(env::consts::ARCH, |(_, name)| name.trim()).to_owned()
}

/// Everything that the crossover depends on, but for the memory.
fn key(layer: &AttentionLayer, config: &SparqConfig, device: &Device, dtype: DType) -> String {
    let AttentionShape { heads, kv_heads, head_dim } = layer.shape;
    let method = MethodSpec::from(&Method::Sparq(SparqConfig { dense_below: 0, ..*config }));
    format!(
        "{} {} {} threads={} {} heads={heads}/{kv_heads} d={head_dim} {method} softcap={}",
        env!("CARGO_PKG_VERSION"),
        sparq_core::device::describe(device),
        processor(),
        rayon::current_num_threads(),
        dtype.name(),
        layer.softcap.is_some(),
    )
}

#[cfg(test)]
#[cfg(feature = "flex")]
mod tests;
