//! What a device allows, as it says itself, and the shape of the work that follows.

use burn::tensor::DType;
use cubecl::{client::Client, features::Plane};

use crate::ops::ran::{DEVICE, Reason, SHAPE};

/// Units that share one row of a cache, and how they do it. Known when a kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Team {
    /// Components per head.
    pub(super) head_dim: usize,
    /// Query heads that are served together, all of one KV head.
    pub(super) heads: usize,
    /// Components per load.
    pub(super) vector: usize,
    /// Units per team, a power of two.
    pub(super) lanes: usize,
    /// Teams per cube.
    pub(super) teams: usize,
    /// Neighbouring units that exchange values directly, a power of two; 1 where they do so through
    /// shared memory. A team lies within them.
    pub(super) plane: usize,
}

impl Team {
    /// Units per cube.
    pub(super) const fn units(&self) -> usize {
        self.lanes * self.teams
    }

    /// Units of a team exchange values directly.
    pub(super) const fn planes(&self) -> bool {
        self.plane > 1
    }

    /// Loads per row.
    pub(super) const fn vectors(&self) -> usize {
        self.head_dim / self.vector
    }

    /// Teams of a plane: what they found is added up without shared memory.
    pub(super) const fn neighbours(&self) -> usize {
        if self.plane <= self.lanes {
            1
        } else if self.plane / self.lanes < self.teams {
            self.plane / self.lanes
        } else {
            self.teams
        }
    }

    /// Rows of outputs that neighbours leave for one another.
    pub(super) const fn merged_rows(&self) -> usize {
        self.teams / self.neighbours()
    }

    /// Heads whose outputs merge at a time: as many as leave the room of one row per team.
    pub(super) const fn merged_heads(&self) -> usize {
        if self.neighbours() < self.heads { self.neighbours() } else { self.heads }
    }

    /// Elements of the shared buffer for the states of the teams, and what they come to.
    pub(super) const fn states(&self) -> usize {
        2 * self.heads * (self.teams + 1)
    }

    /// Loads per row and unit.
    pub(super) const fn per_lane(&self) -> usize {
        self.vectors().div_ceil(self.lanes)
    }
}

/// Query heads that one cube serves at a time: more would not fit into its registers.
const HEADS: usize = 8;
/// Floats of the queries, and of the outputs, that a unit holds where a lane may take two loads of a row.
const HELD: usize = 32;
/// Elements of the shared buffer in which the teams of a cube merge their outputs.
const MERGE: usize = 2048;
/// Teams whose states one unit merges.
const TEAMS: usize = 32;
/// Shared memory that every kernel can do with, in bytes.
const SHARED: usize = 16 * 1024;
/// Shared memory for cubes that choose by a short list, in bytes.
const SHARED_MEDIUM: usize = 24 * 1024;
/// Shared memory for cubes of [`LARGE`] units, in bytes.
const SHARED_LARGE: usize = 40 * 1024;
/// Units of the cubes that choose and attend where few of them run: they hide their own latency.
const LARGE: usize = 512;

/// Which cubes a kernel is launched with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cubes {
    /// Many, of [`Limits::units`]; of fewer where their units need many registers.
    Many,
    /// Few, of more units where the device and their registers take them.
    Few,
}

/// The parts of the device's properties that the kernels depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Units per cube: a power of two.
    pub(super) units: usize,
    /// Cubes along the second axis of a grid.
    pub(super) cubes_y: usize,
    /// Cubes that keep the device busy.
    pub(super) busy: usize,
    /// Cubes may take branches as a whole that the compiler cannot see to be taken so, with barriers in
    /// them: not in WGSL.
    pub(super) branches: bool,
    /// Shared memory of a cube, in bytes.
    pub(super) shared: usize,
    /// There is shared memory for lists of candidates.
    pub(super) lists: bool,
    /// As [`Team::plane`].
    pub(super) plane: usize,
    lanes: usize,
    large: bool,
    /// Elements of the widest vector that the device has. Wider ones are taken apart, and on wgpu
    /// (vectors of 4) eight halves then came back wrong.
    widest: usize,
}

impl Limits {
    /// The limits of `client`'s device; the reason where it is too small for kernels that bind `buffers`.
    pub(super) fn new(client: &Client, buffers: u32) -> Result<Self, Reason> {
        let properties = client.properties();
        let hardware = &properties.hardware;
        let shared = hardware.max_shared_memory_size;
        let units = hardware.max_units_per_cube.min(hardware.max_cube_dim.0).min(256);
        if units < 64 || hardware.max_bindings < buffers || shared < SHARED {
            return Err(DEVICE);
        }
        let features = properties.features.plane;
        let planes = features.contains(Plane::Ops) && hardware.plane_size_min > 1;
        // Without planes every sum over a team is a barrier: few lanes, long rows per lane.
        let lanes = if planes { hardware.plane_size_min.min(32) as usize } else { 8 };
        let lanes = 1 << lanes.ilog2();
        let most = hardware.max_units_per_cube.min(hardware.max_cube_dim.0) as usize;
        Ok(Self {
            units: 1 << units.ilog2(),
            cubes_y: hardware.max_cube_count.1 as usize,
            // Eight cubes for each of the multiprocessors; of a large GPU where the device is silent.
            busy: hardware.num_streaming_multiprocessors.unwrap_or(132) as usize * 8,
            branches: features.contains(Plane::NonUniformControlFlow),
            plane: if planes { lanes } else { 1 },
            lanes,
            large: planes && most >= LARGE && shared >= SHARED_LARGE,
            shared,
            lists: shared >= SHARED_MEDIUM,
            widest: 1 << hardware.max_vector_size.max(1).ilog2(),
        })
    }

    /// Elements per load of rows of `len` elements: 16 bytes where the device's vectors and the rows'
    /// starts allow it.
    pub(super) fn vector(&self, len: usize, dtype: DType) -> usize {
        let mut vector = (16 / dtype.size()).min(self.widest);
        while !len.is_multiple_of(vector) {
            vector /= 2;
        }
        vector
    }

    /// The teams for rows of `head_dim` components and `group` query heads.
    pub(super) fn team(
        &self,
        head_dim: usize,
        group: usize,
        dtype: DType,
        cubes: Cubes,
    ) -> Result<Team, Reason> {
        let heads = (1..=HEADS.min(group)).rev().find(|heads| group.is_multiple_of(*heads)).ok_or(SHAPE)?;
        let vector = self.vector(head_dim, dtype);
        let vectors = head_dim / vector;
        // Two loads of a row per lane, where the registers take them, are twice as many on their way, and
        // half as many exchanges.
        let per_lane = if 2 * vector * heads <= HELD { 2 } else { 1 };
        let lanes = self.lanes.min(vectors.next_power_of_two().div_ceil(per_lane));
        let light = per_lane * vector * heads <= HELD / 2;
        let (units, merge) = match cubes {
            Cubes::Few if light && self.large => (LARGE, 2 * MERGE),
            // So many registers per unit leave a multiprocessor room for three such cubes, not for two of 256.
            Cubes::Many if !light && self.plane > 1 => (self.units.min(128), MERGE),
            _ => (self.units, MERGE),
        };
        let teams = (units / lanes).min(merge / head_dim.next_power_of_two()).clamp(1, TEAMS);
        let team = Team { head_dim, heads, vector, lanes, teams, plane: self.plane };
        // More would not stay in registers: such heads go to the oracle.
        (head_dim <= 512 && team.per_lane() * vector * heads <= 256 && team.units() >= team.vectors().max(16))
            .then_some(team)
            .ok_or(SHAPE)
    }

    /// The teams for dot products of rows of `len` elements with `tokens` others.
    pub(super) fn row_team(&self, len: usize, tokens: usize, dtype: DType) -> Team {
        let (vector, lanes) = (self.vector(len, dtype), self.lanes);
        let teams = (self.units / lanes).clamp(1, TEAMS);
        Team { head_dim: len, heads: tokens, vector, lanes, teams, plane: self.plane }
    }
}
