//! Sequences that do not lie in the order of a batch: one after another, each in tensors of its own.

use burn::{
    backend::{
        Backend, TensorMetadata,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::Shape,
};

use super::{dims, narrow, reshape, slice};
use crate::{
    k_t::BLOCK,
    spans::{AppendPlan, Place},
};

/// What holds the elements of a sequence in a tensor of a cache: `[1, kv_heads, ...]`, of so many elements per
/// position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    start: usize,
    shape: [usize; 4],
}

impl Part {
    /// In `x`, keys or values `[_, kv_heads, capacity, head_dim]`.
    pub(crate) fn of_rows(x: &impl TensorMetadata, plan: &AppendPlan, b: usize) -> Self {
        let [_, kv_heads, capacity, head_dim] = dims(x);
        let Place { first, capacity } = plan.place(b, capacity);
        Self { start: first * kv_heads * head_dim, shape: [1, kv_heads, capacity, head_dim] }
    }

    /// In `x`, transposed keys `[_, kv_heads, head_dim, capacity]`.
    pub(crate) fn of_columns(x: &impl TensorMetadata, plan: &AppendPlan, b: usize) -> Self {
        let [_, kv_heads, head_dim, capacity] = dims(x);
        let Place { first, capacity } = plan.place(b, capacity);
        Self { start: first * kv_heads * head_dim, shape: [1, kv_heads, head_dim, capacity] }
    }

    /// In `x`, words or scales `[_, kv_heads, head_dim, n]`, where `blocks` blocks of positions have `n` elements.
    pub(crate) fn of_codes(x: &impl TensorMetadata, blocks: usize, plan: &AppendPlan, b: usize) -> Self {
        let [_, kv_heads, head_dim, count] = dims(x);
        let Place { first, capacity } = plan.place(b, blocks * BLOCK);
        let elements = |positions: usize| positions / BLOCK * count / blocks.max(1);
        Self {
            start: elements(first) * kv_heads * head_dim,
            shape: [1, kv_heads, head_dim, elements(capacity)],
        }
    }

    /// Its axes: `[1, kv_heads, ...]`.
    pub(crate) fn shape(self) -> [usize; 4] {
        self.shape
    }

    fn len(self) -> usize {
        self.shape.iter().product()
    }

    /// The part of a float tensor.
    pub(crate) fn get<B: Backend>(self, x: FloatTensor<B>) -> FloatTensor<B> {
        let flat = reshape::<B, 1>(x.clone(), [x.shape().num_elements()]);
        reshape::<B, 4>(narrow::<B>(flat, 0, self.start, self.len()), self.shape)
    }

    /// Puts another in its place.
    pub(crate) fn set<B: Backend>(self, x: FloatTensor<B>, part: FloatTensor<B>) -> FloatTensor<B> {
        let shape = x.shape();
        let flat = reshape::<B, 1>(x, [shape.num_elements()]);
        let part = reshape::<B, 1>(part, [self.len()]);
        B::float_reshape(B::float_slice_assign(flat, &[slice(self.start, self.len())], part), shape)
    }

    /// The part of an integer tensor.
    pub(crate) fn get_int<B: Backend>(self, x: IntTensor<B>) -> IntTensor<B> {
        let flat = B::int_reshape(x.clone(), Shape::new([x.shape().num_elements()]));
        B::int_reshape(B::int_slice(flat, &[slice(self.start, self.len())]), Shape::new(self.shape))
    }

    /// Puts another in its place.
    pub(crate) fn set_int<B: Backend>(self, x: IntTensor<B>, part: IntTensor<B>) -> IntTensor<B> {
        let shape = x.shape();
        let flat = B::int_reshape(x, Shape::new([shape.num_elements()]));
        let part = B::int_reshape(part, Shape::new([self.len()]));
        B::int_reshape(B::int_slice_assign(flat, &[slice(self.start, self.len())], part), shape)
    }
}

/// Row `b` along the first axis.
pub(super) fn row<B: Backend>(x: &FloatTensor<B>, b: usize) -> FloatTensor<B> {
    narrow::<B>(x.clone(), 0, b, 1)
}

/// Rows along the first axis.
pub(super) fn together<B: Backend>(rows: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    B::float_cat(rows, 0)
}
