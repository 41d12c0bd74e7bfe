use sparq_core::{AttentionShape, Traffic, Transfer, transfer::Part};

use super::*;

fn found(of_dense: usize, kl: f64, mass: f64) -> Measurement {
    let part = |elements| Transfer { k: Part::new(elements, 1), ..Transfer::default() };
    let mut traffic = Traffic::default();
    traffic.record(part(of_dense), part(100));
    Measurement { kl, agreement: 1.0, mass: vec![mass], traffic }
}

#[test]
fn the_frontier_is_what_no_other_beats() {
    let point = |rank, of_dense, kl, mass| Point {
        rank,
        top_k: 1,
        sizes: GridPoint { rank: 0, top_k: 0 },
        found: found(of_dense, kl, mass),
    };
    let points = [
        point(1, 50, 0.1, 0.9),
        point(2, 20, 0.3, 0.5),
        point(3, 30, 0.4, 0.8),
        point(4, 20, 0.2, 0.4),
        point(5, 60, 0.1, 0.95),
    ];
    let ranks = |target| frontier(&points, target).iter().map(|point| point.rank).collect::<Vec<_>>();
    assert_eq!(ranks(Target::Kl(0.1)), [4, 1]);
    assert_eq!(ranks(Target::Mass(0.9)), [2, 3, 1, 5]);
}

#[test]
fn targets_are_met_from_their_own_side() {
    let found = found(10, 0.2, 0.8);
    assert!(Target::Kl(0.2).is_met(&found) && !Target::Kl(0.19).is_met(&found));
    assert!(Target::Mass(0.8).is_met(&found) && !Target::Mass(0.81).is_met(&found));
    assert!(!Target::Kl(1.0).is_met(&Measurement { kl: f64::NAN, ..found }));
}

#[test]
fn the_grid_doubles() {
    let layer = AttentionShape { heads: 2, kv_heads: 1, head_dim: 64 }.into();
    let grid = Grid::for_model(&[layer], 500);
    assert_eq!(grid.ranks, [4, 8, 16, 32, 64]);
    assert_eq!(grid.top_ks, [16, 32, 64, 128]);
    let small = AttentionShape { heads: 1, kv_heads: 1, head_dim: 2 }.into();
    let grid = Grid::for_model(&[small], 10);
    assert_eq!((grid.ranks, grid.top_ks), (vec![2], vec![5]));
}
