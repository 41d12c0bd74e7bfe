//! Going back, and what a cache keeps: forgetting tokens, marks to return to, copies of the keys.

use std::ops::Range;

use super::{CacheExtras, Kept, LayerCache};
use crate::{
    error::{Error, Result},
    k_t, ops,
    spans::{AppendPlan, NewTokens},
};

/// A point that a cache can go back to, as often as wanted: see [`LayerCache::rewind`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMark {
    lens: Vec<usize>,
}

impl LayerCache {
    /// Forgets what each sequence holds from position `len` on, and keeps the memory. Shorter
    /// sequences stay as they are.
    ///
    /// # Errors
    /// As [`LayerCache::truncate_sequence`].
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        self.cut(0..self.config.batch, len)
    }

    /// Forgets what one sequence holds from position `len` on, and keeps the memory: the cache is as if those
    /// tokens had never been there, to the bit. What it costs does not depend on what is left.
    ///
    /// # Errors
    /// [`Error::Slot`] for a sequence that is not there.
    pub fn truncate_sequence(&mut self, slot: usize, len: usize) -> Result<()> {
        self.check_slot(slot)?;
        self.cut(slot..slot + 1, len)
    }

    fn cut(&mut self, slots: Range<usize>, len: usize) -> Result<()> {
        let longer: Vec<usize> = slots.filter(|&slot| self.lens[slot] > len).collect();
        longer.iter().for_each(|&slot| self.lens[slot] = len);
        self.renew(&longer)
    }

    /// Makes what is kept of sequences that became shorter what it was when they had their lengths.
    pub(super) fn renew(&mut self, slots: &[usize]) -> Result<()> {
        slots.iter().for_each(|&slot| self.sums[slot].cut(self.lens[slot]));
        self.renew_last_codes(slots)?;
        match self.kept.mean_value {
            true => slots.iter().try_for_each(|&slot| self.renew_sum(slot)),
            false => Ok(()),
        }
    }

    /// Makes the codes of the last block of some sequences anew, after tokens went: its scales may be
    /// those of keys that are gone.
    fn renew_last_codes(&mut self, slots: &[usize]) -> Result<()> {
        if slots.is_empty() {
            return Ok(());
        }
        if let Some((codes, k)) = self.quantized.take().zip(self.k.clone()) {
            let rest: Vec<usize> = slots.iter().map(|&slot| self.lens[slot] % k_t::BLOCK).collect();
            let firsts: Vec<usize> = self.lens.iter().map(|held| held - held % k_t::BLOCK).collect();
            let plan = AppendPlan::new(&NewTokens::ragged(k_t::BLOCK, &rest)?.in_slots(slots)?, &firsts);
            self.quantized = Some(ops::append_quantized(codes, k, &self.located(&plan)));
        }
        Ok(())
    }

    /// The point that the cache is at.
    pub fn mark(&self) -> CacheMark {
        CacheMark { lens: self.lens.clone() }
    }

    /// Goes back to a mark of this cache and keeps only what `extras` ask for up to date from there on. What
    /// was there at the mark is there again, to the bit; the memory stays.
    ///
    /// # Errors
    /// [`Error::MissingInCache`] where tokens before the mark are gone, and as [`LayerCache::keep`].
    pub fn rewind(&mut self, mark: &CacheMark, extras: &[CacheExtras]) -> Result<()> {
        if self.lens.len() != mark.lens.len() || self.lens.iter().zip(&mark.lens).any(|(held, at)| held < at)
        {
            return Err(Error::MissingInCache { missing: "tokens before the mark" });
        }
        let longer =
            (0..self.lens.len()).filter(|&slot| self.lens[slot] > mark.lens[slot]).collect::<Vec<_>>();
        self.lens.clone_from(&mark.lens);
        self.renew(&longer)?;
        self.keep(extras)
    }

    /// Keeps what `extras` ask for up to date from now on, all of them together. What is not there yet is made
    /// from keys and values, the same, to the bit, as if it had been kept all along.
    ///
    /// # Errors
    /// [`Error::UnsupportedKt`] where the device cannot hold a form of the transposed keys, and
    /// [`Error::InvalidConfig`] for codes of different sizes at a time.
    pub fn keep(&mut self, extras: &[CacheExtras]) -> Result<()> {
        let kept = Kept::of(extras, &self.device)?;
        self.kept = kept;
        if kept.plain && self.k_t.is_none() {
            self.make_columns();
        }
        if let Some(bits) = kept.codes.filter(|bits| self.held_bits() != Some(*bits)) {
            self.make_codes(bits)?;
        }
        match kept.mean_value {
            true => (0..self.config.batch).try_for_each(|slot| self.renew_sum(slot)),
            false => Ok(()),
        }
    }

    /// Bits of the codes that are there.
    fn held_bits(&self) -> Option<usize> {
        let codes = self.quantized.as_ref()?;
        Some(k_t::bits(codes.words.shape().num_elements(), codes.scales.shape().num_elements()))
    }
}
