// Attention over rows of K and V: over all live ones (dense decode), or over the rows that SparQ
// selected. Blocks split the rows; the last block to finish merges what they found (no block ever
// waits for another).

#ifndef ATTEND_THREADS
#define ATTEND_THREADS 256
#endif
#ifndef ATTEND_ROWS
#define ATTEND_ROWS 4 // loads of K, and of V, that a thread has in flight
#endif
#ifndef ATTEND_BLOCKS
#define ATTEND_BLOCKS 1 // blocks per multiprocessor that registers must leave room for
#endif
constexpr int ATTEND_WARPS = ATTEND_THREADS / 32;

// What softmax over some rows comes to, for one head: maximum and sum in units of log2, and the sum
// of values weighted relative to that maximum. The second pair is of the approximate scores.
struct Sums { float top, sum, approx_top, approx_sum; };

// A thread's share: HEADS heads, the elements of V that its lane reads.
template <bool MASS>
struct Share {
    Sums of[HEADS];
    float value[HEADS][VPL][EV];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            of[h] = Sums{NEG_INF, 0.f, NEG_INF, 0.f};
#pragma unroll
            for (int v = 0; v < VPL; v++)
#pragma unroll
                for (int e = 0; e < EV; e++) value[h][v][e] = 0.f;
        }
    }
};

__device__ __forceinline__ uint4 load_row(const scalar* row, int vec) {
    if (vec >= ROW_VECS) return make_uint4(0, 0, 0, 0);
    if (WIDE_ROWS) return load_once(row + vec * EV);
    return load_singly(row, vec * EV, HEAD_DIM);
}

// Queries as the block's threads read them: zero past HEAD_DIM.
typedef float Queries[HEADS][PADDED_DIM];

__device__ __forceinline__ float dot_lanes(const uint4 (&raw)[VPL], const float* query) {
    float sum = 0.f;
#pragma unroll
    for (int v = 0; v < VPL; v++) {
        float x[EV];
        unpack(raw[v], x);
        const float4* q = (const float4*)(query + (threadIdx.x % LANES + v * LANES) * EV);
#pragma unroll
        for (int e = 0; e < EV; e += 4) {
            float4 y = q[e / 4];
            sum = fmaf(x[e], y.x, sum);
            sum = fmaf(x[e + 1], y.y, sum);
            sum = fmaf(x[e + 2], y.z, sum);
            sum = fmaf(x[e + 3], y.w, sum);
        }
    }
#pragma unroll
    for (int o = LANES / 2; o > 0; o /= 2) sum += __shfl_xor_sync(FULL, sum, o);
    return sum;
}

// Scores of one batch of rows into the running softmax of one head: weights relative to the new
// maximum, and the factor for what was summed before.
__device__ __forceinline__ float online(
    float (&score)[ATTEND_ROWS], const bool (&live)[ATTEND_ROWS], float softcap, float& top, float& sum) {
    float highest = top;
#pragma unroll
    for (int u = 0; u < ATTEND_ROWS; u++) {
        score[u] = live[u] ? soft_cap(score[u], softcap) * LOG2E : NEG_INF;
        highest = fmaxf(highest, score[u]);
    }
    float base = highest > NEG_INF ? highest : 0.f;
    float factor = exp2_fast(top - base);
    top = highest;
    sum *= factor;
#pragma unroll
    for (int u = 0; u < ATTEND_ROWS; u++) {
        score[u] = exp2_fast(score[u] - base);
        sum += score[u];
    }
    return factor;
}

// `n` rows, row `i` of them at `row(i)`, shared out over the warps of the block.
template <bool MASS, class Row>
__device__ __forceinline__ void attend_rows(
    const scalar* k, const scalar* v, Row row, int n, const Queries& exact, const Queries* approx,
    float softcap, Share<MASS>& share) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int vec = lane % LANES;
    constexpr int BATCH = ATTEND_ROWS * ROWS;
    for (int i0 = warp * BATCH; i0 < n; i0 += ATTEND_WARPS * BATCH) {
        uint4 keys[ATTEND_ROWS][VPL], values[ATTEND_ROWS][VPL];
        bool live[ATTEND_ROWS];
        size_t at[ATTEND_ROWS];
#pragma unroll
        for (int u = 0; u < ATTEND_ROWS; u++) {
            int i = i0 + u * ROWS + lane / LANES;
            live[u] = i < n;
            at[u] = (size_t)row(live[u] ? i : n - 1) * HEAD_DIM;
        }
#pragma unroll
        for (int u = 0; u < ATTEND_ROWS; u++)
#pragma unroll
            for (int w = 0; w < VPL; w++) keys[u][w] = load_row(k + at[u], vec + w * LANES);
#pragma unroll
        for (int u = 0; u < ATTEND_ROWS; u++)
#pragma unroll
            for (int w = 0; w < VPL; w++) values[u][w] = load_row(v + at[u], vec + w * LANES);

        float weight[HEADS][ATTEND_ROWS];
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
#pragma unroll
            for (int u = 0; u < ATTEND_ROWS; u++) weight[h][u] = dot_lanes(keys[u], exact[h]);
            Sums& of = share.of[h];
            float factor = online(weight[h], live, softcap, of.top, of.sum);
#pragma unroll
            for (int w = 0; w < VPL; w++)
#pragma unroll
                for (int e = 0; e < EV; e++) share.value[h][w][e] *= factor;
            if (MASS) {
                float score[ATTEND_ROWS];
#pragma unroll
                for (int u = 0; u < ATTEND_ROWS; u++) score[u] = dot_lanes(keys[u], (*approx)[h]);
                online(score, live, softcap, of.approx_top, of.approx_sum);
            }
        }
#pragma unroll
        for (int u = 0; u < ATTEND_ROWS; u++) {
            if (!live[u]) continue; // what the last row repeats may be infinite: 0 · ∞
#pragma unroll
            for (int w = 0; w < VPL; w++) {
                float x[EV];
                unpack(values[u][w], x);
#pragma unroll
                for (int h = 0; h < HEADS; h++)
#pragma unroll
                    for (int e = 0; e < EV; e++)
                        share.value[h][w][e] = fmaf(weight[h][u], x[e], share.value[h][w][e]);
            }
        }
    }
}

// One head's sums of several warps, and room to add them up.
struct Merge {
    Sums of[ATTEND_WARPS];
    float value[ATTEND_WARPS][PADDED_DIM];
};

__device__ __forceinline__ float share_factor(float top, float highest) {
    return top > NEG_INF ? exp2_fast(top - highest) : 0.f;
}

// Adds one lane group's sums to another's; `x` and `value` end up relative to the common maximum.
__device__ __forceinline__ void merge_pair(float& top, float& sum, float& factor, int distance) {
    float highest = fmaxf(top, __shfl_xor_sync(FULL, top, distance));
    factor = share_factor(top, highest);
    sum *= factor;
    sum += __shfl_xor_sync(FULL, sum, distance);
    top = highest;
}

// The warps' sums in `merge`, added up. Every thread gets the sums; thread c < HEAD_DIM element c (the
// threads above that further elements, with `c` as the caller's loop says).
__device__ __forceinline__ Sums merged_sums(const Merge& merge) {
    Sums all = {NEG_INF, 0.f, NEG_INF, 0.f};
#pragma unroll
    for (int w = 0; w < ATTEND_WARPS; w++) {
        all.top = fmaxf(all.top, merge.of[w].top);
        all.approx_top = fmaxf(all.approx_top, merge.of[w].approx_top);
    }
#pragma unroll
    for (int w = 0; w < ATTEND_WARPS; w++) {
        all.sum += merge.of[w].sum * share_factor(merge.of[w].top, all.top);
        all.approx_sum += merge.of[w].approx_sum * share_factor(merge.of[w].approx_top, all.approx_top);
    }
    return all;
}

__device__ __forceinline__ float merged_value(const Merge& merge, float highest, int c) {
    float sum = 0.f;
#pragma unroll
    for (int w = 0; w < ATTEND_WARPS; w++) sum += merge.value[w][c] * share_factor(merge.of[w].top, highest);
    return sum;
}

struct AttendArgs {
    const float* q;       // [batch, kv_heads, GROUP, HEAD_DIM]
    const scalar* k;      // [batch, kv_heads, capacity, HEAD_DIM]
    const scalar* v;
    float* out;           // [batch, kv_heads, GROUP, HEAD_DIM]
    float4* part_sums;    // [batch, kv_heads, GROUP, splits]
    float* part_values;   // [batch, kv_heads, GROUP, splits, HEAD_DIM]
    u32* done;            // [batch, kv_heads, TILES]: 0 before and after
    int capacity;
    float softcap;        // 0 for none
};

// Finishes a block: merges its warps, and, in the last block of a head tile, all splits. `write(head
// in the tile, sums)` gets the factor for the values and what to add: see its two callers.
template <bool MASS, class Finish>
__device__ __forceinline__ void finish(
    const AttendArgs& a, Share<MASS>& share, Merge& merge, int group, int tile, int split, int splits,
    bool& last, Finish write) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int head0 = group * GROUP + tile * HEADS;
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        Sums of = share.of[h];
#pragma unroll
        for (int o = LANES; o < 32; o *= 2) {
            float factor, unused;
            merge_pair(of.top, of.sum, factor, o);
            if (MASS) merge_pair(of.approx_top, of.approx_sum, unused, o);
#pragma unroll
            for (int w = 0; w < VPL; w++)
#pragma unroll
                for (int e = 0; e < EV; e++) {
                    float x = share.value[h][w][e] * factor;
                    share.value[h][w][e] = x + __shfl_xor_sync(FULL, x, o);
                }
        }
        __syncthreads(); // the head before is read
        if (lane < LANES) {
#pragma unroll
            for (int w = 0; w < VPL; w++)
#pragma unroll
                for (int e = 0; e < EV; e++)
                    merge.value[warp][(lane + w * LANES) * EV + e] = share.value[h][w][e];
        }
        if (lane == 0) merge.of[warp] = of;
        __syncthreads();
        Sums all = merged_sums(merge);
        int head = head0 + h;
        if (splits == 1) {
            write(h, all, merge);
        } else {
            size_t part = (size_t)head * splits + split;
            for (int c = threadIdx.x; c < HEAD_DIM; c += ATTEND_THREADS)
                a.part_values[part * HEAD_DIM + c] = merged_value(merge, all.top, c);
            if (threadIdx.x == 0)
                a.part_sums[part] = make_float4(all.top, all.sum, all.approx_top, all.approx_sum);
        }
    }
    if (splits == 1) return;

    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        u32* done = a.done + group * TILES + tile;
        last = atomicAdd(done, 1) == (u32)splits - 1;
        if (last) *done = 0;
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
    for (int h = 0; h < HEADS; h++) {
        int head = head0 + h;
        Sums of = {NEG_INF, 0.f, NEG_INF, 0.f};
        for (int s = warp; s < splits; s += ATTEND_WARPS) {
            float4 x = __ldcg(a.part_sums + (size_t)head * splits + s);
            of.top = fmaxf(of.top, x.x);
            of.approx_top = fmaxf(of.approx_top, x.z);
        }
        constexpr int PER_LANE = (HEAD_DIM + 31) / 32;
        float value[PER_LANE] = {};
#pragma unroll 4
        for (int s = warp; s < splits; s += ATTEND_WARPS) {
            size_t part = (size_t)head * splits + s;
            float4 x = __ldcg(a.part_sums + part);
            float factor = share_factor(x.x, of.top);
            of.sum += x.y * factor;
            of.approx_sum += x.w * share_factor(x.z, of.approx_top);
#pragma unroll
            for (int e = 0; e < PER_LANE; e++) {
                int c = lane + e * 32;
                if (c < HEAD_DIM) value[e] += __ldcg(a.part_values + part * HEAD_DIM + c) * factor;
            }
        }
        __syncthreads();
#pragma unroll
        for (int e = 0; e < PER_LANE; e++)
            if (lane + e * 32 < HEAD_DIM) merge.value[warp][lane + e * 32] = value[e];
        if (lane == 0) merge.of[warp] = of;
        __syncthreads();
        write(h, merged_sums(merge), merge);
    }
}

__device__ __forceinline__ void load_queries(const float* q, int tile, Queries& queries) {
    for (int i = threadIdx.x; i < HEADS * PADDED_DIM; i += ATTEND_THREADS) {
        int h = i / PADDED_DIM, c = i % PADDED_DIM;
        queries[h][c] = c < HEAD_DIM ? q[(tile * HEADS + h) * HEAD_DIM + c] * rsqrtf((float)HEAD_DIM) : 0.f;
    }
}

#if KERNEL == ATTEND_DENSE
// Dense decode. Grid (splits, KV heads · TILES, sequences).
extern "C" __global__ void __launch_bounds__(ATTEND_THREADS, ATTEND_BLOCKS)
attend_dense(AttendArgs a, Spans spans) {
    __shared__ __align__(16) Queries exact;
    __shared__ Merge merge;
    __shared__ bool last;
    int tile = blockIdx.y % TILES;
    int group = blockIdx.z * (gridDim.y / TILES) + blockIdx.y / TILES;
    int2 span = spans.of[blockIdx.z];
    int splits = gridDim.x, split = blockIdx.x;
    int each = (span.y - span.x + splits - 1) / splits;
    int first = span.x + split * each;
    int n = max(0, min(each, span.y - first));

    overlap_next();
    wait_for_previous();
    load_queries(a.q + (size_t)group * GROUP * HEAD_DIM, tile, exact);
    __syncthreads();
    Share<false> share;
    share.clear();
    size_t rows = (size_t)group * a.capacity + first;
    attend_rows<false>(
        a.k + rows * HEAD_DIM, a.v + rows * HEAD_DIM, [](int i) { return i; }, n, exact, nullptr, a.softcap, share);
    finish<false>(a, share, merge, group, tile, split, splits, last,
        [&](int h, const Sums& all, const Merge& merge) {
            size_t head = (size_t)group * GROUP + tile * HEADS + h;
            float inverse = all.sum > 0.f ? 1.f / all.sum : 0.f;
            for (int c = threadIdx.x; c < HEAD_DIM; c += ATTEND_THREADS)
                a.out[head * HEAD_DIM + c] = merged_value(merge, all.top, c) * inverse;
        });
}
#endif
