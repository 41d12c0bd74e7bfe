//! Live positions and places of new tokens, on the way to a kernel.
//!
//! Where all sequences are alike, which is the common case, they travel as scalars of the launch and
//! cost nothing. A ragged batch travels as a table in one small buffer, which is kept: the layers of
//! a step ask for the same table one after the other.

use std::sync::Mutex;

use burn_cubecl::{CubeDevice, tensor::CubeTensor};
use cubecl::{prelude::*, server::Handle};

use crate::spans::{AppendPlan, Spans};

/// Words of a table that a kernel reads per sequence.
pub(super) const WORDS: usize = 3;

/// One row of words per sequence: its own, or the same for all.
#[derive(Debug)]
pub(super) struct Table {
    /// The row of all sequences, where they are alike.
    pub(super) shared: Option<[u32; WORDS]>,
    rows: Vec<u32>,
}

impl Table {
    fn new(rows: impl Iterator<Item = [usize; WORDS]>) -> Self {
        let rows: Vec<[u32; WORDS]> = rows.map(|row| row.map(|word| word as u32)).collect();
        let first = rows.first().copied().unwrap_or_default();
        Self { shared: rows.iter().all(|row| *row == first).then_some(first), rows: rows.concat() }
    }

    /// Start and end of each sequence's live positions.
    pub(super) fn of_spans(spans: &Spans) -> Self {
        Self::new(spans.as_slice().iter().map(|span| [span.start, span.end, 0]))
    }

    /// Rows to skip, rows to take and the place of each sequence's new tokens.
    pub(super) fn of_plan(plan: &AppendPlan) -> Self {
        Self::new(plan.as_slice().iter().map(|append| [append.skip, append.take, append.at]))
    }

    /// The words that are alike, zero where they are not.
    pub(super) fn words(&self) -> [u32; WORDS] {
        self.shared.unwrap_or_default()
    }

    /// The table on the device of `like`; where it is not read, `like` itself stands in for it.
    pub(super) fn argument(&self, like: &CubeTensor) -> BufferArg {
        match self.shared {
            Some(_) => like.clone().into_buffer_arg(),
            None => buffer(upload(like, &self.rows), self.rows.len()),
        }
    }
}

/// A buffer argument over a whole handle that holds `len` elements.
#[allow(unsafe_code)]
pub(super) fn buffer(handle: Handle, len: usize) -> BufferArg {
    // SAFETY: the kernels here never ask a buffer for its length, and stay within the sizes that
    // their launch functions allocate.
    unsafe { BufferArg::from_raw_parts(handle, len) }
}

/// The last table that was uploaded, and where to.
static LAST: Mutex<Option<(Vec<u32>, CubeDevice, Handle)>> = Mutex::new(None);

fn upload(like: &CubeTensor, rows: &[u32]) -> Handle {
    let mut last = LAST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((words, on, handle)) = &*last
        && words == rows
        && *on == like.device
    {
        return handle.clone();
    }
    let handle = like.client.create_from_slice(bytemuck::cast_slice(rows));
    *last = Some((rows.to_vec(), like.device.clone(), handle.clone()));
    handle
}

/// Word `word` of sequence `b`: from the table, or of all sequences.
#[cube]
pub(super) fn word(
    table: &[u32],
    b: usize,
    shared: u32,
    #[comptime] word: usize,
    #[comptime] alike: bool,
) -> u32 {
    let mut value = shared;
    if comptime!(!alike) {
        value = table[b * WORDS + word];
    }
    value
}
