//! Sums over all units of a cube, through shared memory: no plane operations needed.
//!
//! All units of the cube must come to each of these. Loops are left to the driver to unroll: the
//! optimiser of `cubecl` takes time with the square of what a kernel spells out.

use cubecl::{cube, prelude::*};

/// Elements that the shared buffer of these functions holds.
pub(super) const fn scratch(units: usize) -> usize {
    units + units / RUN
}

/// Values that one unit adds up in the first of the two rounds.
const RUN: usize = 16;

/// The sum, or the maximum, of `value` over the cube.
#[cube]
pub(super) fn reduce(
    value: f32,
    scratch: &mut Shared<[f32]>,
    #[comptime] maximum: bool,
    #[comptime] units: usize,
) -> f32 {
    let unit = UNIT_POS as usize;
    let runs = comptime!(units / RUN);
    sync_cube();
    scratch[unit] = value;
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
    let mut total = scratch[units];
    for i in 1..runs {
        let other = scratch[units + i];
        total = if comptime!(maximum) { f32::max(total, other) } else { total + other };
    }
    total
}

/// The sum of `value` over the units before this one.
#[cube]
pub(super) fn sum_before(value: u32, scratch: &mut Shared<[u32]>, #[comptime] units: usize) -> u32 {
    let unit = UNIT_POS as usize;
    let runs = comptime!(units / RUN);
    sync_cube();
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
    let mut before = 0u32;
    for i in 0..runs {
        before += select(i < own, scratch[units + i], 0u32);
    }
    for i in 0..RUN {
        before += select(own * RUN + i < unit, scratch[own * RUN + i], 0u32);
    }
    before
}
