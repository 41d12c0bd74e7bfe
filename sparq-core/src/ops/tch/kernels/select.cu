// SparQ step 2 and 3: the positions with the largest scores, attention over their rows, and the mean
// value in place of the rest.
//
// Every block finds the whole selection of its group by itself (a radix selection over the maxima of
// buckets, then over the buckets that can hold a winner) and attends over its share of it: cheaper
// than a launch of its own and a list in memory. The selection is exact, the same in every run, and
// prefers lower positions where scores are equal.

#ifndef MAX_SHARE
#define MAX_SHARE 1024 // selected rows that one block may attend over
#endif
constexpr int MAX_BUCKETS = 512; // that are searched in shared memory
constexpr int BINS = 2048;

struct Select {
    u32 histogram[BINS];
    u32 warp_count[2][ATTEND_WARPS];
    u32 digit, above;
    int bucket[MAX_BUCKETS];
    u32 key[MAX_BUCKETS * BUCKET];
};

// The bin, counted from the highest, that holds item number `want` (1 is the first), and how many
// items lie in higher bins.
__device__ __forceinline__ void find_bin(Select& s, u32 want) {
    constexpr int EACH = BINS / ATTEND_THREADS;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int top = BINS - 1 - threadIdx.x * EACH;
    u32 count[EACH], mine = 0;
#pragma unroll
    for (int j = 0; j < EACH; j++) mine += count[j] = s.histogram[top - j];
    u32 upto = mine;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
        u32 lower = __shfl_up_sync(FULL, upto, o);
        if (lane >= o) upto += lower;
    }
    if (lane == 31) s.warp_count[0][warp] = upto;
    __syncthreads();
    for (int w = 0; w < warp; w++) upto += s.warp_count[0][w];
    u32 before = upto - mine;
    if (before < want && want <= upto) {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            if (before < want && want <= before + count[j]) {
                s.digit = top - j;
                s.above = before;
            }
            before += count[j];
        }
    }
    __syncthreads();
}

// Number `want` (1 is the largest) of the keys `key(0..n)`, by its first `passes` digits of 11, 11 and
// 10 bits, the rest 0. `above`: how many keys have larger digits.
template <class Key>
__device__ __forceinline__ u32 nth_key(Key key, int n, u32 want, int passes, Select& s, u32& above) {
    u32 found = 0, known = 0;
    above = 0;
    for (int pass = 0; pass < passes; pass++) {
        int shift = pass == 0 ? 21 : pass == 1 ? 10 : 0;
        u32 mask = pass == 2 ? 1023 : 2047;
        for (int i = threadIdx.x; i < BINS; i += ATTEND_THREADS) s.histogram[i] = 0;
        __syncthreads();
#pragma unroll 4
        for (int i = threadIdx.x; i < n; i += ATTEND_THREADS) {
            u32 x = key(i);
            if ((x & known) == found) atomicAdd(&s.histogram[x >> shift & mask], 1u);
        }
        __syncthreads();
        find_bin(s, want - above);
        found |= s.digit << shift;
        known |= mask << shift;
        above += s.above;
        __syncthreads();
    }
    return found;
}

// Calls `out(rank, i)` for each i in 0..n, in order, whose key is above `threshold` or is one of the
// first `ties` equal to it. Returns how many there are.
template <class Key, class Out>
__device__ __forceinline__ int compact(Key key, int n, u32 threshold, int ties, Select& s, Out out) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int part = (n + ATTEND_THREADS - 1) / ATTEND_THREADS * 32;
    int from = min(n, warp * part), to = min(n, from + part);
    int above = 0, equal = 0;
#pragma unroll 4
    for (int i0 = from; i0 < to; i0 += 32) {
        int i = i0 + lane;
        u32 x = i < to ? key(i) : 0;
        above += __popc(__ballot_sync(FULL, i < to && x > threshold));
        equal += __popc(__ballot_sync(FULL, i < to && x == threshold));
    }
    if (lane == 0) {
        s.warp_count[0][warp] = above;
        s.warp_count[1][warp] = equal;
    }
    __syncthreads();
    int all_above = 0, all_equal = 0;
    above = equal = 0;
    for (int w = 0; w < ATTEND_WARPS; w++) {
        int x = s.warp_count[0][w], y = s.warp_count[1][w];
        if (w < warp) above += x, equal += y;
        all_above += x, all_equal += y;
    }
    u32 below = (1u << lane) - 1;
    for (int i0 = from; i0 < to; i0 += 32) {
        int i = i0 + lane;
        u32 x = i < to ? key(i) : 0;
        u32 higher = __ballot_sync(FULL, i < to && x > threshold);
        u32 same = __ballot_sync(FULL, i < to && x == threshold);
        if ((higher | same) == 0) continue;
        int ups = above + __popc(higher & below), ones = equal + __popc(same & below);
        if (higher >> lane & 1) out(ups + min(ones, ties), i);
        if ((same >> lane & 1) && ones < ties) out(ups + ones, i);
        above += __popc(higher);
        equal += __popc(same);
    }
    __syncthreads();
    return all_above + min(all_equal, ties);
}

// The `want` best positions among the candidates, in order: `out(rank, position)`.
template <class Out>
__device__ __forceinline__ void select_positions(
    const u32* keys, const u32* maxima, int2 span, int want, Select& s, Out out) {
    int first = span.x / BUCKET, buckets = (span.y + BUCKET - 1) / BUCKET - first;
    keys += first * BUCKET;
    maxima += first;
    int found = MAX_BUCKETS + 1;
    u32 above;
    if (want < MAX_BUCKETS && want < buckets) {
        // At least `want` candidates reach the bucket maximum of rank `want`, so none below it wins.
        auto bucket_max = [&](int i) { return maxima[i]; };
        u32 least = max(nth_key(bucket_max, buckets, want, 2, s, above), 1u);
        found = compact(bucket_max, buckets, least - 1, 0, s, [&](int rank, int i) {
            if (rank < MAX_BUCKETS) s.bucket[rank] = i;
        });
    }
    if (found <= MAX_BUCKETS) {
        for (int i = threadIdx.x; i < found * BUCKET; i += ATTEND_THREADS)
            s.key[i] = keys[s.bucket[i / BUCKET] * BUCKET + i % BUCKET];
        __syncthreads();
        auto key = [&](int i) { return s.key[i]; };
        u32 least = nth_key(key, found * BUCKET, want, 3, s, above);
        compact(key, found * BUCKET, least, want - above, s, [&](int rank, int i) {
            out(rank, (first + s.bucket[i / BUCKET]) * BUCKET + i % BUCKET);
        });
    } else {
        auto key = [&](int i) { return keys[i]; };
        u32 least = nth_key(key, buckets * BUCKET, want, 3, s, above);
        compact(key, buckets * BUCKET, least, want - above, s,
            [&](int rank, int i) { out(rank, first * BUCKET + i); });
    }
}

struct SelectArgs {
    const u32* keys;        // see ScoreArgs
    const u32* maxima;
    const float2* stats;
    const float* v_sum;     // [batch, kv_heads, HEAD_DIM]
    i64* positions;         // [batch, kv_heads, kept]
    float* mass;            // [batch, kv_heads, GROUP]
    int stride;
    int stats_stride;
    int rank;
    int kept;
    int local_window;
    int mean_value;
};

// Grid (splits, KV heads · TILES, sequences). MASS: with α and, where it is on, the mean value.
template <bool MASS>
__device__ __forceinline__ void run_selected(const AttendArgs& a, const SelectArgs& b, const Spans& spans) {
    __shared__ __align__(16) Queries exact;
    __shared__ __align__(16) float approx_room[MASS ? HEADS * PADDED_DIM : 1];
    __shared__ union {
        Select select;
        Chosen chosen;
        Merge merge;
    } room;
    __shared__ int chosen_rows[MAX_SHARE];
    __shared__ bool last;

    int tile = blockIdx.y % TILES;
    int group = blockIdx.z * (gridDim.y / TILES) + blockIdx.y / TILES;
    int2 span = spans.of[blockIdx.z];
    int splits = gridDim.x, split = blockIdx.x;
    int live = span.y - span.x;
    int kept = min(b.kept, live);
    int each = (kept + splits - 1) / splits;
    int first = split * each;
    int n = max(0, min(each, kept - first));

    overlap_next();
    wait_for_previous();
    const float* q = a.q + (size_t)group * GROUP * HEAD_DIM;
    load_queries(q, tile, exact);
    Queries* approx = (Queries*)approx_room;
    if (MASS) {
        choose_channels(q, b.rank, room.chosen);
        for (int i = threadIdx.x; i < HEADS * PADDED_DIM; i += ATTEND_THREADS) approx_room[i] = 0.f;
        __syncthreads();
        for (int i = threadIdx.x; i < HEADS * b.rank; i += ATTEND_THREADS) {
            int h = i / b.rank, c = room.chosen.channel[i % b.rank], head = tile * HEADS + h;
            (*approx)[h][c] = q[head * HEAD_DIM + c] * room.chosen.inv_tau[head];
        }
        __syncthreads();
    }

    bool writes = split == 0 && tile == 0;
    i64* positions = b.positions + (size_t)group * b.kept;
    auto keep = [&](int rank, int position) {
        if (writes) positions[rank] = position;
        if (rank >= first && rank < first + n) chosen_rows[rank - first] = position;
    };
    int forced = kept == live ? kept : min(b.local_window, kept);
    int want = kept - forced;
    if (want > 0) {
        size_t at = (size_t)group * b.stride;
        select_positions(b.keys + at, b.maxima + at / BUCKET, span, want, room.select, keep);
    }
    for (int i = threadIdx.x; i < forced; i += ATTEND_THREADS) keep(want + i, span.y - forced + i);
    if (writes)
        for (int i = kept + threadIdx.x; i < b.kept; i += ATTEND_THREADS) positions[i] = -1;
    __syncthreads();

    Share<MASS> share;
    share.clear();
    size_t rows = (size_t)group * a.capacity;
    attend_rows<MASS>(
        a.k + rows * HEAD_DIM, a.v + rows * HEAD_DIM, [&](int i) { return chosen_rows[i]; }, n, exact, approx,
        a.softcap, share);
    __syncthreads(); // room.select is free again
    finish<MASS>(a, share, room.merge, group, tile, split, splits, last,
        [&](int h, const Sums& all, const Merge& merge) {
            int head = group * GROUP + tile * HEADS + h;
            float alpha = 1.f;
            if (MASS) {
                float2 whole = merge_stats(b.stats + (size_t)head * b.stats_stride, stats_count(span));
                alpha = share_factor(all.approx_top, whole.x) * all.approx_sum / whole.y;
                alpha = whole.y > 0.f ? fminf(alpha, 1.f) : 1.f;
                if (threadIdx.x == 0) b.mass[head] = alpha;
            }
            float inverse = all.sum > 0.f ? 1.f / all.sum : 0.f;
            // Where a window leaves values out, their mean is not that of the live ones.
            bool mix = MASS && b.mean_value && span.x == 0;
            for (int c = threadIdx.x; c < HEAD_DIM; c += ATTEND_THREADS) {
                float y = merged_value(merge, all.top, c) * inverse;
                if (mix) {
                    float mean = b.v_sum[(size_t)group * HEAD_DIM + c] / max(live, 1);
                    y = alpha * y + (1.f - alpha) * mean;
                }
                a.out[(size_t)head * HEAD_DIM + c] = y;
            }
        });
}

#define SELECT_KERNEL(name, mass)                                                \
    extern "C" __global__ void __launch_bounds__(ATTEND_THREADS, ATTEND_BLOCKS)  \
    name(AttendArgs a, SelectArgs b, Spans s) { run_selected<mass>(a, b, s); }
#if KERNEL == ATTEND_SELECTED
SELECT_KERNEL(attend_selected, false)
#elif KERNEL == ATTEND_SELECTED_MASS
SELECT_KERNEL(attend_selected_mass, true)
#endif
