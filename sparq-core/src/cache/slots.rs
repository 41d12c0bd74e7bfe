//! The sequences of a cache, one by one: what is said of a slot is said of no other.

use burn::{backend::Dispatch, tensor::Tensor};

use super::LayerCache;
use crate::{
    error::{Error, Result},
    ops::oracle::Part,
    spans::AppendPlan,
};

impl LayerCache {
    /// Checks that there is a slot of this number.
    pub(crate) fn check_slot(&self, slot: usize) -> Result<()> {
        match slot < self.config.batch {
            true => Ok(()),
            false => Err(Error::Slot { slot, slots: self.config.batch }),
        }
    }

    /// Forgets what a slot holds; its memory goes to others that grow, or back.
    ///
    /// # Errors
    /// [`Error::Slot`] for a slot that is not there, and those of moving the others.
    pub fn release(&mut self, slot: usize) -> Result<()> {
        self.truncate_sequence(slot, 0)?;
        self.give_back()
    }

    /// Makes slot `to` hold the first `len` tokens of slot `from`, in the place of what it held: keys, values
    /// and what is kept beside them, to the bit.
    ///
    /// # Errors
    /// [`Error::Slot`] for a slot that is not there, [`Error::Tokens`] where `from` has fewer tokens,
    /// and those of [`LayerCache::reserve_slot`].
    pub fn copy(&mut self, from: usize, to: usize, len: usize) -> Result<()> {
        self.check_slot(from)?;
        self.check_slot(to)?;
        if len > self.lens[from] {
            return Err(Error::Tokens { slot: from, held: self.lens[from], asked: len });
        }
        if from == to {
            return self.truncate_sequence(to, len);
        }
        // What it held does not have to move.
        self.lens[to] = 0;
        self.reserve_slot(to, len)?;
        if len > 0 {
            let [k, v, k_t] = [self.k.take(), self.v.take(), self.k_t.take()];
            self.k = k.map(|x| self.copied(x, from, to, len, false));
            self.v = v.map(|x| self.copied(x, from, to, len, false));
            self.k_t = k_t.map(|x| self.copied(x, from, to, len, true));
        }
        self.lens[to] = len;
        self.sums[to] = self.sums[from].before(len);
        if let Some(bits) = self.kept.codes {
            // Of all slots: copies are rare, and codes a function of the keys.
            self.make_codes(bits)?;
        }
        self.renew(&[to])
    }

    /// `x` with the first `len` positions of one slot copied to another.
    fn copied(&self, x: Tensor<4>, from: usize, to: usize, len: usize, is_columns: bool) -> Tensor<4> {
        let of = |slot: usize, x: &_| {
            let plan = self.located(&AppendPlan::of_slot(slot));
            if is_columns { Part::of_columns(x, &plan, 0) } else { Part::of_rows(x, &plan, 0) }
        };
        let x = x.into_dispatch();
        let (source, target) = (of(from, &x), of(to, &x));
        let [_, kv_heads, rows, columns] = target.shape();
        let live = match is_columns {
            true => [0..1, 0..kv_heads, 0..rows, 0..len],
            false => [0..1, 0..kv_heads, 0..len, 0..columns],
        };
        let held = Tensor::<4>::from_dispatch(source.get::<Dispatch>(x.clone())).slice(live.clone());
        let filled =
            Tensor::<4>::zeros(target.shape(), (&self.device, self.config.dtype)).slice_assign(live, held);
        Tensor::from_dispatch(target.set::<Dispatch>(x, filled.into_dispatch()))
    }
}
