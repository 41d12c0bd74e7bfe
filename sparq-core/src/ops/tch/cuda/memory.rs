//! Torch's memory as kernels see it: addresses of checked tensors, and room between launches.
//!
//! A tensor is checked whole and its part is an offset: a view would cost as much as a launch.

use std::sync::{MutexGuard, PoisonError};

use tch::{Kind, Tensor};

use super::driver::{Failure, Gpu};

/// Sequences of one launch: their spans travel with the launch, without a copy to the device.
pub(super) const SEQUENCES: usize = 128;

/// The sequences of a batch that one launch works on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sequences {
    /// The first of them.
    pub(super) first: usize,
    /// How many they are.
    pub(super) count: usize,
    /// Sequences of the batch.
    batch: usize,
}

impl Sequences {
    /// A batch in launches of at most [`SEQUENCES`].
    pub(super) fn of(batch: usize) -> impl Iterator<Item = Self> {
        let launch = move |first| Self { first, count: SEQUENCES.min(batch - first), batch };
        (0..batch).step_by(SEQUENCES).map(launch)
    }

    /// Their entries.
    pub(super) fn slice<'a, T>(&self, entries: &'a [T]) -> &'a [T] {
        &entries[self.first..self.first + self.count]
    }
}

/// Address of elements that a kernel reads or writes in order; 0 for none.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(super) struct Address(u64);

impl Address {
    /// No memory.
    pub(super) const NONE: Self = Self(0);

    /// All of `tensor`, which must hold `numel` elements of `kind` in order.
    pub(super) fn whole(
        gpu: &Gpu,
        what: &str,
        tensor: &Tensor,
        kind: Kind,
        numel: usize,
    ) -> Result<Self, Failure> {
        let found = (tensor.device(), tensor.kind(), tensor.numel());
        if found != (gpu.device, kind, numel) || !tensor.is_contiguous() {
            return Err(format!("{what} is {found:?}, not {numel} of {kind:?} in order"));
        }
        Self(tensor.data_ptr() as u64).aligned(what)
    }

    fn aligned(self, what: &str) -> Result<Self, Failure> {
        match self.0.is_multiple_of(16) {
            true => Ok(self),
            false => Err(format!("{what} is not aligned to 16 bytes")),
        }
    }

    /// [`Address::whole`] where there is a tensor.
    pub(super) fn whole_of_any(
        gpu: &Gpu,
        what: &str,
        tensor: Option<&Tensor>,
        kind: Kind,
        numel: usize,
    ) -> Result<Self, Failure> {
        tensor.map_or(Ok(Self::NONE), |tensor| Self::whole(gpu, what, tensor, kind, numel))
    }

    /// The `sequences` of `tensor`, which must hold `each` elements of `kind` for every sequence of the
    /// batch.
    pub(super) fn of(
        gpu: &Gpu,
        what: &str,
        tensor: &Tensor,
        kind: Kind,
        each: usize,
        sequences: Sequences,
    ) -> Result<Self, Failure> {
        let Self(start) = Self::whole(gpu, what, tensor, kind, each * sequences.batch)?;
        Self(start + (sequences.first * each * kind.elt_size_in_bytes()) as u64).aligned(what)
    }

    /// [`Address::of`] where there is a tensor.
    pub(super) fn of_any(
        gpu: &Gpu,
        what: &str,
        tensor: Option<&Tensor>,
        kind: Kind,
        each: usize,
        sequences: Sequences,
    ) -> Result<Self, Failure> {
        tensor.map_or(Ok(Self::NONE), |tensor| Self::of(gpu, what, tensor, kind, each, sequences))
    }

    /// The counters of `gpu`.
    pub(super) fn of_counters(gpu: &Gpu) -> Self {
        Self(gpu.counters.data_ptr() as u64)
    }
}

/// The device's memory for what a step leaves between its launches. Held until the last of them is
/// queued: the stream then keeps the next step's writes behind this one's reads.
#[derive(Debug)]
pub(super) struct Scratch<'a> {
    memory: MutexGuard<'a, Tensor>,
    bytes: usize,
    used: usize,
}

impl<'a> Scratch<'a> {
    /// Room for parts of so many bytes.
    pub(super) fn new(gpu: &'a Gpu, parts: impl IntoIterator<Item = usize>) -> Self {
        let bytes: usize = parts.into_iter().map(|bytes| bytes.next_multiple_of(256)).sum();
        let mut memory = gpu.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.numel() < bytes {
            // With a margin, so that a cache that grows by tokens asks rarely. The old memory goes back to
            // torch's allocator, which hands it out to later work of the stream.
            *memory = Tensor::empty([(bytes + bytes / 2) as i64], (Kind::Uint8, gpu.device));
        }
        Self { memory, bytes, used: 0 }
    }

    /// The next `bytes`, aligned; [`Address::NONE`] for none.
    pub(super) fn take(&mut self, bytes: usize) -> Result<Address, Failure> {
        if bytes == 0 {
            return Ok(Address::NONE);
        }
        let at = self.used;
        self.used += bytes.next_multiple_of(256);
        match self.used <= self.bytes {
            true => Ok(Address(self.memory.data_ptr() as u64 + at as u64)),
            false => Err("scratch memory is too small".into()),
        }
    }
}
