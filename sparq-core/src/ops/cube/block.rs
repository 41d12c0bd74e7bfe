//! Sums over all units of a cube: between the units of a plane directly where the device can, the rest
//! through shared memory.
//!
//! All units of the cube must come to each of these. Loops are left to the driver to unroll: the
//! optimiser of `cubecl` takes time with the square of what a kernel spells out.

use cubecl::{cube, prelude::*};

/// A cube as these functions see it. Known when a kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Block {
    /// Units of the cube, a power of two, and at least [`RUN`].
    pub(super) units: usize,
    /// Neighbouring units that exchange values directly; 1 where none do.
    lanes: usize,
}

impl Block {
    /// A cube of `units`, of which `plane` neighbours exchange values directly.
    pub(super) const fn new(units: usize, plane: usize) -> Self {
        // One plane merges what all planes found.
        let lanes = if plane <= units && units <= plane * plane { plane } else { 1 };
        Self { units, lanes }
    }

    /// Neighbouring units that exchange values directly, a power of two.
    pub(super) const fn lanes(&self) -> usize {
        self.lanes
    }

    /// Elements that the shared buffer of these functions holds.
    pub(super) const fn scratch(&self) -> usize {
        self.units + self.units / RUN
    }

    const fn planes(&self) -> usize {
        self.units / self.lanes
    }
}

/// Values that one unit adds up in the first of the two rounds through shared memory.
const RUN: usize = 16;

/// The sum, or the maximum, of `value` over `width` neighbouring units, a power of two.
#[cube]
pub(super) fn across(value: f32, #[comptime] maximum: bool, #[comptime] width: usize) -> f32 {
    let mut total = value;
    #[unroll]
    for step in 0..comptime!(width.ilog2()) {
        let other = plane_shuffle_xor(total, comptime!(1u32 << step));
        total = if comptime!(maximum) { f32::max(total, other) } else { total + other };
    }
    total
}

/// As [`across`], of whole numbers.
#[cube]
pub(super) fn across_keys(value: u32, #[comptime] maximum: bool, #[comptime] width: usize) -> u32 {
    let mut total = value;
    #[unroll]
    for step in 0..comptime!(width.ilog2()) {
        let other = plane_shuffle_xor(total, comptime!(1u32 << step));
        total = if comptime!(maximum) { u32::max(total, other) } else { total + other };
    }
    total
}

/// The sum, or the maximum, of `value` over the cube.
#[cube]
pub(super) fn reduce(
    value: f32,
    scratch: &mut Shared<[f32]>,
    #[comptime] maximum: bool,
    #[comptime] block: Block,
) -> f32 {
    let unit = UNIT_POS as usize;
    let mut total = value;
    sync_cube();
    if comptime!(block.lanes > 1) {
        total = across(total, maximum, block.lanes);
        if unit % block.lanes == 0 {
            scratch[unit / block.lanes] = total;
        }
        sync_cube();
        total = across(scratch[unit % comptime!(block.planes())], maximum, comptime!(block.planes()));
    } else {
        let units = comptime!(block.units);
        let runs = comptime!(block.units / RUN);
        scratch[unit] = total;
        sync_cube();
        if unit < runs {
            let mut run = scratch[unit];
            for i in 1..RUN {
                let other = scratch[unit + i * runs];
                run = if comptime!(maximum) { f32::max(run, other) } else { run + other };
            }
            scratch[units + unit] = run;
        }
        sync_cube();
        total = scratch[units];
        for i in 1..runs {
            let other = scratch[units + i];
            total = if comptime!(maximum) { f32::max(total, other) } else { total + other };
        }
    }
    total
}

/// The largest `value` over the cube.
#[cube]
pub(super) fn largest(value: u32, scratch: &mut Shared<[u32]>, #[comptime] block: Block) -> u32 {
    let unit = UNIT_POS as usize;
    let mut total = value;
    sync_cube();
    if comptime!(block.lanes > 1) {
        total = across_keys(total, true, block.lanes);
        if unit % block.lanes == 0 {
            scratch[unit / block.lanes] = total;
        }
        sync_cube();
        total = across_keys(scratch[unit % comptime!(block.planes())], true, comptime!(block.planes()));
    } else {
        let units = comptime!(block.units);
        let runs = comptime!(block.units / RUN);
        scratch[unit] = total;
        sync_cube();
        if unit < runs {
            let mut run = scratch[unit];
            for i in 1..RUN {
                run = u32::max(run, scratch[unit + i * runs]);
            }
            scratch[units + unit] = run;
        }
        sync_cube();
        total = scratch[units];
        for i in 1..runs {
            total = u32::max(total, scratch[units + i]);
        }
    }
    total
}

/// The sum of `value` over the units before this one.
#[cube]
pub(super) fn sum_before(value: u32, scratch: &mut Shared<[u32]>, #[comptime] block: Block) -> u32 {
    let unit = UNIT_POS as usize;
    let mut before = 0u32;
    sync_cube();
    if comptime!(block.lanes > 1) {
        let lane = UNIT_POS % comptime!(block.lanes as u32);
        let mut total = value;
        #[unroll]
        for step in 0..comptime!(block.lanes.ilog2()) {
            // The upper half of each pair of runs comes after all of the lower half.
            let other = plane_shuffle_xor(total, comptime!(1u32 << step));
            before += select(lane & comptime!(1u32 << step) == 0u32, 0u32, other);
            total += other;
        }
        if lane == 0u32 {
            scratch[unit / block.lanes] = total;
        }
        sync_cube();
        let plane = unit % comptime!(block.planes());
        let earlier = select(plane < unit / block.lanes, scratch[plane], 0u32);
        before += across_keys(earlier, false, comptime!(block.planes()));
    } else {
        let units = comptime!(block.units);
        let runs = comptime!(block.units / RUN);
        scratch[unit] = value;
        sync_cube();
        if unit < runs {
            let mut run = 0u32;
            for i in 0..RUN {
                run += scratch[unit * RUN + i];
            }
            scratch[units + unit] = run;
        }
        sync_cube();
        let own = unit / RUN;
        for i in 0..runs {
            before += select(i < own, scratch[units + i], 0u32);
        }
        for i in 0..RUN {
            before += select(own * RUN + i < unit, scratch[own * RUN + i], 0u32);
        }
    }
    before
}
