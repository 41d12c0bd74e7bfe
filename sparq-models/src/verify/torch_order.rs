//! Which of several equal scores `torch.topk` keeps on a CPU.
//!
//! `ATen/native/TopKImpl.h` fills a queue of (value, index) pairs and compares values alone: for
//! `64 k ≤ n` it calls `std::partial_sort`, else `std::nth_element`. Both leave equal values in an
//! order that follows from the steps of libstdc++'s `bits/stl_algo.h` and `bits/stl_heap.h`, which
//! are repeated here one by one. NaN is left out: scores of a reference are finite.

type Pair = (f32, usize);

/// Indices of the `k` largest of `scores`, as PyTorch chooses them, in no particular order.
pub(super) fn topk(scores: &[f32], k: usize) -> Vec<usize> {
    let mut queue: Vec<Pair> = scores.iter().copied().zip(0..).collect();
    let k = k.min(queue.len());
    if k > 0 {
        match k * 64 <= queue.len() {
            true => heap_select(&mut queue, k),
            false => nth_element(&mut queue, k - 1),
        }
    }
    queue.truncate(k);
    queue.into_iter().map(|(_, index)| index).collect()
}

/// The comparison of `topk(largest=True)`.
fn before(x: Pair, y: Pair) -> bool {
    x.0 > y.0
}

/// `std::__introselect`.
fn nth_element(queue: &mut [Pair], nth: usize) {
    let (mut first, mut last) = (0, queue.len());
    let mut depth = 2 * queue.len().ilog2();
    while last - first > 3 {
        if depth == 0 {
            heap_select(&mut queue[first..last], nth + 1 - first);
            queue.swap(first, nth);
            return;
        }
        depth -= 1;
        let cut = first + partition(&mut queue[first..last]);
        match cut <= nth {
            true => first = cut,
            false => last = cut,
        }
    }
    insertion_sort(&mut queue[first..last]);
}

/// `std::__unguarded_partition_pivot`: the median of three to the front, the rest around it.
fn partition(queue: &mut [Pair]) -> usize {
    let (a, b, c) = (1, queue.len() / 2, queue.len() - 1);
    let [at_a, at_b, at_c] = [queue[a], queue[b], queue[c]];
    let median = if before(at_a, at_b) {
        if before(at_b, at_c) {
            b
        } else if before(at_a, at_c) {
            c
        } else {
            a
        }
    } else if before(at_a, at_c) {
        a
    } else if before(at_b, at_c) {
        c
    } else {
        b
    };
    queue.swap(0, median);
    let pivot = queue[0];
    let (mut first, mut last) = (1, queue.len());
    loop {
        while before(queue[first], pivot) {
            first += 1;
        }
        last -= 1;
        while before(pivot, queue[last]) {
            last -= 1;
        }
        if first >= last {
            return first;
        }
        queue.swap(first, last);
        first += 1;
    }
}

/// `std::__insertion_sort`.
fn insertion_sort(queue: &mut [Pair]) {
    for i in 1..queue.len() {
        let position = match before(queue[i], queue[0]) {
            true => 0,
            false => (0..i).rev().find(|&j| !before(queue[i], queue[j])).map_or(0, |j| j + 1),
        };
        queue[position..=i].rotate_right(1);
    }
}

/// `std::__heap_select`: the first `middle` places hold the best.
fn heap_select(queue: &mut [Pair], middle: usize) {
    for parent in (0..middle / 2).rev() {
        let value = queue[parent];
        adjust_heap(&mut queue[..middle], parent, value);
    }
    for i in middle..queue.len() {
        if before(queue[i], queue[0]) {
            let value = queue[i];
            queue[i] = queue[0];
            adjust_heap(&mut queue[..middle], 0, value);
        }
    }
}

/// `std::__adjust_heap`: the hole moves down to a leaf, then `value` moves up from there.
fn adjust_heap(heap: &mut [Pair], top: usize, value: Pair) {
    let len = heap.len();
    let (mut hole, mut child) = (top, top);
    while child < (len - 1) / 2 {
        child = 2 * (child + 1);
        if before(heap[child], heap[child - 1]) {
            child -= 1;
        }
        heap[hole] = heap[child];
        hole = child;
    }
    if len.is_multiple_of(2) && child == (len - 2) / 2 {
        child = 2 * child + 1;
        heap[hole] = heap[child];
        hole = child;
    }
    while hole > top && before(heap[(hole - 1) / 2], value) {
        heap[hole] = heap[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    heap[hole] = value;
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn equal_scores_are_chosen_as_pytorch_does() {
        let json = include_bytes!("../../../sparq-backend-tests/fixtures/pytorch/topk.json");
        let cases: Vec<Value> = serde_json::from_slice(json).unwrap();
        let numbers = |value: &Value| -> Vec<f64> {
            value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let mut with_ties = 0;
        for case in &cases {
            let scores: Vec<f32> = numbers(&case["scores"]).iter().map(|&x| x as f32).collect();
            let mut expected: Vec<usize> = numbers(&case["indices"]).iter().map(|&x| x as usize).collect();
            let mut chosen = topk(&scores, expected.len());
            let cut = chosen.iter().map(|&i| scores[i]).fold(f32::MAX, f32::min);
            let all = scores.iter().filter(|&&x| x == cut).count();
            let kept = chosen.iter().filter(|&&i| scores[i] == cut).count();
            with_ties += usize::from(kept < all);
            chosen.sort_unstable();
            expected.sort_unstable();
            assert_eq!(chosen, expected, "{} of {scores:?}", expected.len());
        }
        assert!(with_ties > 100, "{with_ties} of {} cases hold a tie at the cut", cases.len());
    }
}
