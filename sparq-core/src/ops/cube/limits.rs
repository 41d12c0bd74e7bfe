//! What a device allows, as it says itself, and the shape of the work that follows.

use burn::tensor::DType;
use cubecl::{client::Client, features::Plane};

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
    /// Units of a team exchange values directly; without this, through shared memory.
    pub(super) planes: bool,
}

impl Team {
    /// Units per cube.
    pub(super) const fn units(&self) -> usize {
        self.lanes * self.teams
    }

    /// Loads per row.
    pub(super) const fn vectors(&self) -> usize {
        self.head_dim / self.vector
    }

    /// Loads per row and unit.
    pub(super) const fn per_lane(&self) -> usize {
        self.vectors().div_ceil(self.lanes)
    }
}

/// Query heads that one cube serves at a time: more would not fit into its registers.
const HEADS: usize = 8;
/// Elements of the shared buffer in which the teams of a cube merge their outputs.
const MERGE: usize = 2048;
/// Teams whose states one unit merges.
const TEAMS: usize = 32;
/// Shared memory that the largest kernel uses, in bytes.
const SHARED: usize = 16 * 1024;

/// The parts of the device's properties that the kernels depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Units per cube: a power of two.
    pub(super) units: usize,
    /// Cubes along the second axis of a grid.
    pub(super) cubes_y: usize,
    /// Cubes that keep the device busy.
    pub(super) busy: usize,
    lanes: usize,
    planes: bool,
    /// Elements of the widest vector that the device has. Wider ones are taken apart, and on wgpu
    /// (vectors of 4) eight halves then came back wrong.
    widest: usize,
}

impl Limits {
    /// The limits of `client`'s device; `None` where it is too small for kernels that bind `buffers`.
    pub(super) fn new(client: &Client, buffers: u32) -> Option<Self> {
        let properties = client.properties();
        let hardware = &properties.hardware;
        let units = hardware.max_units_per_cube.min(hardware.max_cube_dim.0).min(256);
        if units < 64 || hardware.max_bindings < buffers || hardware.max_shared_memory_size < SHARED {
            return None;
        }
        let planes = properties.features.plane.contains(Plane::Ops) && hardware.plane_size_min > 1;
        // Without planes every sum over a team is a barrier: few lanes, long rows per lane.
        let lanes = if planes { hardware.plane_size_min.min(32) as usize } else { 8 };
        Some(Self {
            units: 1 << units.ilog2(),
            cubes_y: hardware.max_cube_count.1 as usize,
            // Eight cubes for each of the multiprocessors; of a large GPU where the device is silent.
            busy: hardware.num_streaming_multiprocessors.unwrap_or(132) as usize * 8,
            lanes: 1 << lanes.ilog2(),
            planes,
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
    pub(super) fn team(&self, head_dim: usize, group: usize, dtype: DType) -> Option<Team> {
        let heads = (1..=HEADS.min(group)).rev().find(|heads| group.is_multiple_of(*heads))?;
        let vector = self.vector(head_dim, dtype);
        let vectors = head_dim / vector;
        let lanes = self.lanes.min(vectors.next_power_of_two());
        let teams = (self.units / lanes).min(MERGE / head_dim.next_power_of_two()).clamp(1, TEAMS);
        let team = Team { head_dim, heads, vector, lanes, teams, planes: self.planes };
        // More would not stay in registers: such heads go to the oracle.
        (head_dim <= 512 && team.per_lane() * vector * heads <= 256 && team.units() >= 16).then_some(team)
    }

    /// The teams for dot products of rows of `len` elements with `tokens` others.
    pub(super) fn row_team(&self, len: usize, tokens: usize, dtype: DType) -> Team {
        let (vector, lanes) = (self.vector(len, dtype), self.lanes);
        let teams = (self.units / lanes).clamp(1, TEAMS);
        Team { head_dim: len, heads: tokens, vector, lanes, teams, planes: self.planes }
    }
}
