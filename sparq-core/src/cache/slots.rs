//! The sequences of a cache, one by one: what is said of a slot is said of no other.

use burn::tensor::Tensor;

use super::{LayerCache, memory::Axis};
use crate::{
    error::{Error, Result},
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
            self.k = k.map(|x| self.copied(x, from, to, len, Axis::Rows));
            self.v = v.map(|x| self.copied(x, from, to, len, Axis::Rows));
            self.k_t = k_t.map(|x| self.copied(x, from, to, len, Axis::Columns));
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
    fn copied(&self, x: Tensor<4>, from: usize, to: usize, len: usize, axis: Axis) -> Tensor<4> {
        let held = self.of_slot(x.clone(), from, axis);
        let x = x.into_dispatch();
        let part = axis.part(&x, &self.located(&AppendPlan::of_slot(to)));
        Tensor::from_dispatch(self.filled(x, part, held, len, axis))
    }
}
