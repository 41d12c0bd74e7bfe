//! What is checked at the door: nothing else may reach a kernel or its definition.

use burn::tensor::{DType, Tensor};

use super::{AttendParams, SparqParams};
use crate::{
    config::AttentionShape,
    error::{Error, Result},
};

/// Checks queries `[batch, heads, width, head_dim]` against the heads of a layer.
pub(crate) fn check_queries(q: &Tensor<4>, shape: AttentionShape, [batch, width]: [usize; 2]) -> Result<()> {
    check_shape("q", "[batch, heads, width, head_dim]", q, [batch, shape.heads, width, shape.head_dim])
}

/// Checks the tensors of an attention operation: nothing else may reach a kernel or its definition.
pub(super) fn check_attend(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>, params: &AttendParams) -> Result<()> {
    if q.dtype() != DType::F32 {
        return Err(Error::QueryDtype { found: q.dtype() });
    }
    let [_, heads, _, head_dim] = q.dims();
    let (batch, width) = (params.queries.as_slice().len(), params.queries.width());
    check_shape("q", "[batch, heads, width, head_dim]", q, [batch, heads, width, head_dim])?;
    let [slots, kv_heads, capacity, _] = k.dims();
    let cached = [slots, kv_heads, capacity, head_dim];
    let axes = "[slots, kv_heads, capacity, head_dim]";
    check_shape("k", axes, k, cached)?;
    let [_, _, _, value_dim] = v.dims();
    check_shape("v", "[slots, kv_heads, capacity, value_dim]", v, [slots, kv_heads, capacity, value_dim])?;
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return check_shape("k", axes, k, [slots, heads, capacity, head_dim]);
    }
    for (b, append) in params.queries.as_slice().iter().enumerate() {
        let place = params.place(b, capacity);
        let needed = append.at.saturating_add(append.take);
        if needed > place.capacity {
            return Err(Error::CacheFull { needed, max: place.capacity });
        }
        if place.first.saturating_add(place.capacity) > slots * capacity {
            return Err(Error::Slot { slot: append.slot, slots });
        }
    }
    Ok(())
}

pub(super) fn check_sparq(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>, params: &SparqParams) -> Result<()> {
    check_attend(q, k, v, &params.attend)?;
    let [batch, heads, _, head_dim] = q.dims();
    check_shape("q", "[batch, heads, 1, head_dim]", q, [batch, heads, 1, head_dim])
}

fn check_shape(
    tensor: &'static str,
    axes: &'static str,
    found: &Tensor<4>,
    expected: [usize; 4],
) -> Result<()> {
    match found.dims() == expected {
        true => Ok(()),
        false => {
            Err(Error::Shape { tensor, axes, found: found.dims().to_vec(), expected: expected.to_vec() })
        }
    }
}
