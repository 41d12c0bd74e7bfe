//! What step 1 takes from the queries: which components to read, and their weights.

/// Components of the queries of one KV head that step 1 reads, with their weights.
#[derive(Debug, Default)]
pub(super) struct Query {
    magnitudes: Vec<f32>,
    order: Vec<u32>,
    /// `i1`, in the order of memory: the `rank` components where `Σ|q|` over the group is largest.
    pub(super) components: Vec<u32>,
    /// `q[i1] / τ`, scaled, `[group, rank]`; or its sum over the group, `[1, rank]`.
    pub(super) weights: Vec<f32>,
}

impl Query {
    /// From `q: [group, head_dim]`; summed over the group unless each head's scores are wanted. `factor` is
    /// the layer's scale times √d.
    pub(super) fn prepare(&mut self, q: &[f32], head_dim: usize, rank: usize, factor: f32, per_head: bool) {
        self.choose(q, head_dim, rank);
        self.weights.clear();
        self.weights.resize(if per_head { q.len() / head_dim * rank } else { rank }, 0.0);
        for (head, row) in q.chunks_exact(head_dim).enumerate() {
            let kept: f32 = self.components.iter().map(|&c| row[c as usize].abs()).sum();
            let all = row.iter().map(|x| x.abs()).sum::<f32>().max(f32::MIN_POSITIVE);
            let tau = (head_dim as f32 * kept / all).max(1.0).sqrt();
            let first = if per_head { head * rank } else { 0 };
            for (weight, &c) in self.weights[first..].iter_mut().zip(&self.components) {
                *weight += row[c as usize] / tau * factor;
            }
        }
    }

    fn choose(&mut self, q: &[f32], head_dim: usize, rank: usize) {
        let Self { magnitudes, order, components, .. } = self;
        magnitudes.clear();
        magnitudes.resize(head_dim, 0.0);
        for row in q.chunks_exact(head_dim) {
            magnitudes.iter_mut().zip(row).for_each(|(sum, x)| *sum += x.abs());
        }
        order.clear();
        order.extend(0..head_dim as u32);
        if rank < head_dim {
            // Equal components rank by number: every backend chooses alike.
            let best = |&a: &u32, &b: &u32| {
                magnitudes[b as usize].total_cmp(&magnitudes[a as usize]).then(a.cmp(&b))
            };
            order.select_nth_unstable_by(rank - 1, best);
        }
        components.clear();
        components.extend_from_slice(&order[..rank]);
        components.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_picks_components_by_summed_magnitude() {
        let components = |q: &[f32]| {
            let mut query = Query::default();
            query.prepare(q, 2, 1, 1.0, false);
            query.components
        };
        // The authors' example: two KV heads with two query heads each.
        assert_eq!(components(&[1.0, 10.0, -20.0, 2.0]), [0]);
        assert_eq!(components(&[30.0, 3.0, 4.0, 40.0]), [1]);
        assert_eq!(components(&[-2.0, 2.0]), [0], "the lower one of equals");
    }

    #[test]
    fn a_zero_query_scores_all_positions_alike() {
        let mut query = Query::default();
        query.prepare(&[0.0; 4], 4, 2, 1.0, true);
        assert_eq!(query.weights, [0.0, 0.0]);
    }

    #[test]
    fn weights_of_a_group_add_up() {
        let q = [3.0, -1.0, 0.5, 0.0, 1.0, 2.0, 0.0, -8.0];
        let (mut each, mut sum) = (Query::default(), Query::default());
        each.prepare(&q, 4, 2, 1.0, true);
        sum.prepare(&q, 4, 2, 1.0, false);
        assert_eq!(each.components, [0, 3]);
        assert_eq!(sum.weights, [each.weights[0] + each.weights[2], each.weights[1] + each.weights[3]]);
    }
}
