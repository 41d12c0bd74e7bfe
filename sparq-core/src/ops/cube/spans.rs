//! Live positions and places of new tokens, on the way to a kernel.
//!
//! Where all sequences are alike, which is the common case, there is one number that grows with every
//! token: the end of the live positions, or the place of the new ones. As a scalar of the launch it
//! would cost an upload in every step, since scalars travel in a buffer that is kept for launches with
//! the same ones. So it travels as an address: a buffer that counts from zero, the ruler, is bound from
//! that number on, and its first element says where it begins. Where a device binds buffers from some
//! addresses only, the rest is a scalar, of which there are few values.
//!
//! A ragged batch travels as a table in one small buffer, which is kept: the layers of a step ask for
//! the same tables one after the other. So do sequences that are not those of all slots in their order.
//! A row of the table says which slot the memory of its sequence lies in; everything else is counted by rows.

use std::{
    cell::RefCell,
    sync::{Mutex, PoisonError},
};

use burn_cubecl::{CubeDevice, tensor::CubeTensor};
use cubecl::{prelude::*, server::Handle};

use crate::spans::{Append, AppendPlan, Span, Spans};

/// Words per sequence that say what is live or new.
const WORDS: usize = 3;
/// Words of a sequence in a table: these, and its slot.
const ROW: usize = WORDS + 1;
/// Tables that are kept: of a step's appends, and of sequences that are decoded together.
const KEPT: usize = 8;
/// Elements that a ruler has at least.
const RULER: usize = 1 << 12;

/// One row of words per sequence: its own, or the same for all.
#[derive(Debug)]
pub(super) struct Table {
    /// All sequences are alike, and are those of the slots in their order: there is no table.
    pub(super) alike: bool,
    /// Scalars of the launch where the sequences are alike.
    words: [u32; WORDS],
    /// Where the ruler begins.
    from: usize,
    rows: Vec<u32>,
}

impl Table {
    /// Rows of words with the slot behind them. `growing` is the word that grows.
    fn new(like: &CubeTensor, rows: impl Iterator<Item = [usize; ROW]>, growing: usize) -> Self {
        let rows: Vec<[u32; ROW]> = rows.map(|row| row.map(|word| word as u32)).collect();
        let [first, second, third, _] = rows.first().copied().unwrap_or_default();
        let mut words = [first, second, third];
        let is_alike = |(b, row): (usize, &[u32; ROW])| row[..WORDS] == words && row[WORDS] as usize == b;
        if !rows.iter().enumerate().all(is_alike) {
            return Self { alike: false, words: [0; WORDS], from: 0, rows: rows.concat() };
        }
        let (from, grain) = (words[growing] as usize, grain(like));
        words[growing] = (from % grain) as u32;
        Self { alike: true, words, from: from - from % grain, rows: Vec::new() }
    }

    /// How many of each sequence's last positions are live, and where they end.
    pub(super) fn of_spans(like: &CubeTensor, spans: &Spans) -> Self {
        // Without a window the first word stays what it is.
        let reach = |span: &Span| if span.start == 0 { u32::MAX as usize } else { span.len() };
        let row = |span: &Span| [reach(span), span.end, 0, span.slot];
        Self::new(like, spans.as_slice().iter().map(row), 1)
    }

    /// Rows to skip, rows to take and the place of each sequence's new tokens.
    pub(super) fn of_plan(like: &CubeTensor, plan: &AppendPlan) -> Self {
        let row = |append: &Append| [append.skip, append.take, append.at, append.slot];
        Self::new(like, plan.as_slice().iter().map(row), 2)
    }

    /// Scalars of the launch.
    pub(super) fn words(&self) -> [u32; WORDS] {
        self.words
    }

    /// The ruler or the table, on the device of `like`.
    pub(super) fn argument(&self, like: &CubeTensor) -> BufferArg {
        match self.alike {
            true => buffer(ruler(like, self.from), 1),
            false => buffer(upload(like, &self.rows), self.rows.len()),
        }
    }
}

/// Elements between the addresses from which the device of `like` binds a buffer.
fn grain(like: &CubeTensor) -> usize {
    let client = &like.client;
    match client.name() {
        // These take addresses, not bindings.
        "cuda" | "wgpu<spirv>" => 1,
        _ => (client.properties().memory.alignment as usize).div_ceil(size_of::<u32>()).max(1),
    }
}

thread_local! {
    /// The rulers of the devices, and their lengths. A thread has its own: work that shares a buffer between
    /// threads is brought into order first.
    static RULERS: RefCell<Vec<(CubeDevice, Handle, usize)>> = const { RefCell::new(Vec::new()) };
}

/// The ruler of the device of `like`, from element `from` on.
fn ruler(like: &CubeTensor, from: usize) -> Handle {
    let (handle, len) = RULERS.with_borrow_mut(|rulers| {
        if let Some((_, handle, len)) =
            rulers.iter().find(|(device, _, len)| *device == like.device && from < *len)
        {
            return (handle.clone(), *len);
        }
        let len = (from + 1).next_power_of_two().max(RULER);
        let counts: Vec<u32> = (0..len as u32).collect();
        let handle = like.client.create_from_slice(bytemuck::cast_slice(&counts));
        rulers.retain(|(device, ..)| *device != like.device);
        rulers.push((like.device.clone(), handle.clone(), len));
        (handle, len)
    });
    // One element: what is left of a buffer is among the words of a launch too, which must not change.
    let bytes = |elements: usize| (elements * size_of::<u32>()) as u64;
    handle.offset_start(bytes(from)).offset_end(bytes(len - from - 1))
}

/// A buffer argument over a whole handle that holds `len` elements.
#[allow(unsafe_code)]
pub(super) fn buffer(handle: Handle, len: usize) -> BufferArg {
    // SAFETY: the kernels here never ask a buffer for its length, and stay within the sizes that
    // their launch functions allocate.
    unsafe { BufferArg::from_raw_parts(handle, len) }
}

/// The last tables that were uploaded, and where to.
static LAST: Mutex<Vec<(Vec<u32>, CubeDevice, Handle)>> = Mutex::new(Vec::new());

fn upload(like: &CubeTensor, rows: &[u32]) -> Handle {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((.., handle)) = last.iter().find(|(words, on, _)| words == rows && *on == like.device) {
        return handle.clone();
    }
    let handle = like.client.create_from_slice(bytemuck::cast_slice(rows));
    if last.len() == KEPT {
        last.remove(0);
    }
    last.push((rows.to_vec(), like.device.clone(), handle.clone()));
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
        value = table[b * ROW + word];
    }
    value
}

/// As [`word`], of the one that grows.
#[cube]
pub(super) fn growing(
    table: &[u32],
    b: usize,
    shared: u32,
    #[comptime] word: usize,
    #[comptime] alike: bool,
) -> u32 {
    let mut value = shared;
    if comptime!(alike) {
        value += table[0];
    } else {
        value = table[b * ROW + word];
    }
    value
}

/// Start and end of the live positions of sequence `b`.
#[cube]
pub(super) fn span(table: &[u32], b: usize, reach: u32, end: u32, #[comptime] alike: bool) -> (u32, u32) {
    let reach = word(table, b, reach, 0usize, alike);
    let end = growing(table, b, end, 1usize, alike);
    (end - u32::min(reach, end), end)
}

/// The KV head of the cache where that of a row lies: with its slot, of `kv_heads` each.
#[cube]
pub(super) fn cached_head(table: &[u32], kv_head: u32, kv_heads: u32, #[comptime] alike: bool) -> u32 {
    let mut cached = kv_head;
    if comptime!(!alike) {
        let slot = table[(kv_head / kv_heads) as usize * ROW + WORDS];
        cached = slot * kv_heads + kv_head % kv_heads;
    }
    cached
}
