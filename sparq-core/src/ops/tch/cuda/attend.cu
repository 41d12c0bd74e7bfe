// Attention over rows of K and V: over all live ones (dense decode), or over the rows that SparQ
// selected. Blocks split the rows; the last block to finish adds up what they found (no block ever
// waits for another).

#ifndef ATTEND_THREADS
#define ATTEND_THREADS 256
#endif
#ifndef ATTEND_ROWS
#define ATTEND_ROWS 4 // loads of K, and of V, that a thread has in flight
#endif
// Blocks per multiprocessor that registers must leave room for: more would spill.
#ifndef ATTEND_BLOCKS
#define ATTEND_BLOCKS (ATTEND_THREADS <= 256 && HEADS * VPL * EV <= 32 ? 2 : 1)
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
        // A score that overflowed, downwards too, makes the sum NaN: infinity times zero is no number.
        float x = soft_cap(score[u], softcap) * LOG2E;
        score[u] = live[u] ? x + x * 0.f : NEG_INF;
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

// `n` rows, row `i` of them at `row(i)`, shared out over the warps of the block. Values are on their way
// while scores are computed, and the next keys while values are added up. Head `h` of the tile counts those
// that `sees(h, i)` says.
template <bool MASS, class Row, class Sees>
__device__ __forceinline__ void attend_rows(
    const scalar* k, const scalar* v, Row row, int n, const Queries& exact, const Queries* approx,
    float softcap, Share<MASS>& share, Sees sees) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    constexpr int BATCH = ATTEND_ROWS * ROWS;
    int i0 = warp * BATCH;
    if (i0 >= n) return;
    auto load = [&](const scalar* from, int first, uint4 (&raw)[ATTEND_ROWS][VPL]) {
#pragma unroll
        for (int u = 0; u < ATTEND_ROWS; u++) {
            int i = min(first + u * ROWS + lane / LANES, n - 1);
            const scalar* at = from + (size_t)row(i) * HEAD_DIM;
#pragma unroll
            for (int w = 0; w < VPL; w++) raw[u][w] = load_row(at, lane % LANES + w * LANES);
        }
    };
    uint4 keys[ATTEND_ROWS][VPL], values[ATTEND_ROWS][VPL];
    load(k, i0, keys);
    for (;;) {
        load(v, i0, values);
        bool live[ATTEND_ROWS];
#pragma unroll
        for (int u = 0; u < ATTEND_ROWS; u++) live[u] = i0 + u * ROWS + lane / LANES < n;
        float weight[HEADS][ATTEND_ROWS];
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
#pragma unroll
            for (int u = 0; u < ATTEND_ROWS; u++) weight[h][u] = dot_lanes(keys[u], exact[h]);
            if (MASS) {
                float score[ATTEND_ROWS];
#pragma unroll
                for (int u = 0; u < ATTEND_ROWS; u++) score[u] = dot_lanes(keys[u], (*approx)[h]);
                online(score, live, softcap, share.of[h].approx_top, share.of[h].approx_sum);
            }
        }
        int own = i0 + lane / LANES;
        i0 += ATTEND_WARPS * BATCH;
        if (i0 < n) load(k, i0, keys);
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            bool seen[ATTEND_ROWS];
#pragma unroll
            for (int u = 0; u < ATTEND_ROWS; u++) seen[u] = live[u] && sees(h, own + u * ROWS);
            float factor = online(weight[h], seen, softcap, share.of[h].top, share.of[h].sum);
#pragma unroll
            for (int w = 0; w < VPL; w++)
#pragma unroll
                for (int e = 0; e < EV; e++) share.value[h][w][e] *= factor;
        }
#pragma unroll
        for (int u = 0; u < ATTEND_ROWS; u++) {
            if (!live[u]) continue; // a repeated row may be infinite, and 0 · ∞ is no number
#pragma unroll
            for (int w = 0; w < VPL; w++) {
                float x[EV];
                unpack(values[u][w], x);
#pragma unroll
                for (int h = 0; h < HEADS; h++) {
                    if (!sees(h, own + u * ROWS)) continue; // what another head sees may be no number
#pragma unroll
                    for (int e = 0; e < EV; e++)
                        share.value[h][w][e] = fmaf(weight[h][u], x[e], share.value[h][w][e]);
                }
            }
        }
        if (i0 >= n) break;
    }
}

// Room to add up what warps found: of several heads at a time, then over splits.
__host__ __device__ constexpr int at_least_1(int n) { return n < 1 ? 1 : n; }
constexpr int TOGETHER = largest_divisor(HEADS, at_least_1(24576 / (ATTEND_WARPS * PADDED_DIM * 4)));
constexpr int HELPERS = at_least_1(ATTEND_WARPS / HEADS); // warps per head that gather splits
union Merge {
    struct {
        Sums of[TOGETHER][ATTEND_WARPS];
        float value[TOGETHER][ATTEND_WARPS][PADDED_DIM];
    } warps;
    struct {
        Sums of[HEADS][HELPERS];
        float value[HEADS][HELPERS][PADDED_DIM];
    } splits;
};

__device__ __forceinline__ float share_factor(float top, float highest) {
    return top > NEG_INF ? exp2_fast(top - highest) : 0.f;
}

// Adds what lanes `distance` away found; `factor` brings this lane's values to the common maximum.
__device__ __forceinline__ void merge_lanes(float& top, float& sum, float& factor, int distance) {
    float highest = fmaxf(top, __shfl_xor_sync(FULL, top, distance));
    factor = share_factor(top, highest);
    sum *= factor;
    sum += __shfl_xor_sync(FULL, sum, distance);
    top = highest;
}

// Sums of N parts, and component `c` of their values, relative to the common maximum.
template <int N>
__device__ __forceinline__ Sums merge_parts(
    const Sums (&of)[N], const float (&value)[N][PADDED_DIM], int c, float& component) {
    Sums all = {NEG_INF, 0.f, NEG_INF, 0.f};
#pragma unroll
    for (int w = 0; w < N; w++) {
        all.top = fmaxf(all.top, of[w].top);
        all.approx_top = fmaxf(all.approx_top, of[w].approx_top);
    }
    component = 0.f;
#pragma unroll
    for (int w = 0; w < N; w++) {
        float factor = share_factor(of[w].top, all.top);
        all.sum += of[w].sum * factor;
        component += value[w][c] * factor;
        all.approx_sum += of[w].approx_sum * share_factor(of[w].approx_top, all.approx_top);
    }
    return all;
}

struct AttendArgs {
    const float* q;       // [batch, kv_heads, GROUP, HEAD_DIM]
    const scalar* k;      // [slots, kv_heads, capacity, HEAD_DIM]
    const scalar* v;
    float* out;           // [batch, kv_heads, GROUP, HEAD_DIM]
    float4* part_sums;    // [batch, kv_heads, GROUP, splits]
    float* part_values;   // [batch, kv_heads, GROUP, splits, HEAD_DIM]
    u32* done;            // [batch, kv_heads, TILES]: 0 before and after
    float* log_sums;      // [batch, kv_heads, GROUP] of `log_stride` floats each, or null
    int log_stride;
    int capacity;
    float softcap;        // 0 for none
    float scale;
    int window;           // for several queries of a sequence
};

// Log-sum-exp from maximum (in units of log2) and sum; NaN stays NaN.
__device__ __forceinline__ float log_sum(float top, float sum) {
    return sum == 0.f ? -1e30f : top * LN2 + logf(sum);
}

// Finishes a block: adds up its warps, and, in the last block of a head tile, all splits. Calls
// `write(head of the tile, component, sums, value)` with the value relative to `sums.top`.
template <bool MASS, class Write>
__device__ __forceinline__ void finish(
    const AttendArgs& a, Share<MASS>& share, Merge& merge, int group, int tile, Write write) {
    __shared__ bool last;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int splits = gridDim.x;
    size_t head0 = (size_t)group * GROUP + tile * HEADS;
#pragma unroll
    for (int h0 = 0; h0 < HEADS; h0 += TOGETHER) {
        __syncthreads(); // the room is free
#pragma unroll
        for (int t = 0; t < TOGETHER; t++) {
            Sums of = share.of[h0 + t];
            float(&value)[VPL][EV] = share.value[h0 + t];
#pragma unroll
            for (int o = LANES; o < 32; o *= 2) {
                float factor, unused;
                merge_lanes(of.top, of.sum, factor, o);
                if (MASS) merge_lanes(of.approx_top, of.approx_sum, unused, o);
#pragma unroll
                for (int w = 0; w < VPL; w++)
#pragma unroll
                    for (int e = 0; e < EV; e++) {
                        float x = value[w][e] * factor;
                        value[w][e] = x + __shfl_xor_sync(FULL, x, o);
                    }
            }
            if (lane < LANES) {
#pragma unroll
                for (int w = 0; w < VPL; w++)
#pragma unroll
                    for (int e = 0; e < EV; e++)
                        merge.warps.value[t][warp][(lane + w * LANES) * EV + e] = value[w][e];
            }
            if (lane == 0) merge.warps.of[t][warp] = of;
        }
        __syncthreads();
        for (int i = threadIdx.x; i < TOGETHER * HEAD_DIM; i += ATTEND_THREADS) {
            int t = i / HEAD_DIM, c = i % HEAD_DIM;
            float value;
            Sums all = merge_parts(merge.warps.of[t], merge.warps.value[t], c, value);
            if (splits == 1) {
                write(h0 + t, c, all, value);
            } else {
                size_t part = (head0 + h0 + t) * splits + blockIdx.x;
                a.part_values[part * HEAD_DIM + c] = value;
                if (c == 0) a.part_sums[part] = make_float4(all.top, all.sum, all.approx_top, all.approx_sum);
            }
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
    int helper = warp % HELPERS;
    for (int h = warp / HELPERS; h < HEADS; h += at_least_1(ATTEND_WARPS / HELPERS)) {
        const float4* part_sums = a.part_sums + (head0 + h) * splits;
        const float* part_values = a.part_values + (head0 + h) * splits * HEAD_DIM;
        Sums of = {NEG_INF, 0.f, NEG_INF, 0.f};
        for (int s = helper; s < splits; s += HELPERS) {
            float4 x = __ldcg(part_sums + s);
            of.top = fmaxf(of.top, x.x);
            of.approx_top = fmaxf(of.approx_top, x.z);
        }
        constexpr int PER_LANE = (HEAD_DIM + 31) / 32;
        float value[PER_LANE] = {};
#pragma unroll 8
        for (int s = helper; s < splits; s += HELPERS) {
            float4 x = __ldcg(part_sums + s);
            float factor = share_factor(x.x, of.top);
            of.sum += x.y * factor;
            of.approx_sum += x.w * share_factor(x.z, of.approx_top);
#pragma unroll
            for (int e = 0; e < PER_LANE; e++) {
                int c = lane + e * 32;
                if (c < HEAD_DIM) value[e] += __ldcg(part_values + (size_t)s * HEAD_DIM + c) * factor;
            }
        }
#pragma unroll
        for (int e = 0; e < PER_LANE; e++)
            if (lane + e * 32 < HEAD_DIM) merge.splits.value[h][helper][lane + e * 32] = value[e];
        if (lane == 0) merge.splits.of[h][helper] = of;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < HEADS * HEAD_DIM; i += ATTEND_THREADS) {
        int h = i / HEAD_DIM, c = i % HEAD_DIM;
        float value;
        Sums all = merge_parts(merge.splits.of[h], merge.splits.value[h], c, value);
        write(h, c, all, value);
    }
}

__device__ __forceinline__ void load_queries(const float* q, int tile, float scale, Queries& queries) {
    for (int i = threadIdx.x; i < HEADS * PADDED_DIM; i += ATTEND_THREADS) {
        int h = i / PADDED_DIM, c = i % PADDED_DIM;
        queries[h][c] = c < HEAD_DIM ? q[(tile * HEADS + h) * HEAD_DIM + c] * scale : 0.f;
    }
}

#if KERNEL == ATTEND_DENSE
// Dense decode. Grid (splits, KV heads · TILES, sequences). With several queries of a sequence those of one
// KV head lie side by side, [heads, WIDTH]: they are heads that do not all see the same rows.
extern "C" __global__ void __launch_bounds__(ATTEND_THREADS, ATTEND_BLOCKS)
#if WIDTH == 1
attend_dense(AttendArgs a, Spans spans) {
#else
attend_dense(AttendArgs a, Places places) {
#endif
    __shared__ __align__(16) Queries exact;
    __shared__ Merge merge;
    int tile = blockIdx.y % TILES, kv_head = blockIdx.y / TILES, kv_heads = gridDim.y / TILES;
    int group = blockIdx.z * kv_heads + kv_head;
#if WIDTH == 1
    int2 span = spans.of[blockIdx.z];
    int slot = spans.slot[blockIdx.z];
    auto sees = [](int, int) { return true; };
#else
    int4 place = places.of[blockIdx.z];
    int slot = place.w;
    int2 span = make_int2(max(place.z + 1 - a.window, 0), place.z + place.y);
    int from_here = 0;
    auto sees = [&](int h, int i) {
        int t = (tile * HEADS + h) % WIDTH - place.x;
        int end = place.z + t + 1, position = from_here + i;
        return t >= 0 && t < place.y && position < end && position >= end - a.window;
    };
#endif
    int each = (span.y - span.x + gridDim.x - 1) / gridDim.x;
    int first = span.x + blockIdx.x * each;
    int n = max(0, min(each, span.y - first));
#if WIDTH > 1
    from_here = first;
#endif

    wait_for_previous();
    load_queries(a.q + (size_t)group * GROUP * HEAD_DIM, tile, a.scale, exact);
    __syncthreads();
    Share<false> share;
    share.clear();
    size_t rows = (size_t)(slot * kv_heads + kv_head) * a.capacity + first;
    auto in_order = [](int i) { return i; };
    attend_rows<false>(
        a.k + rows * HEAD_DIM, a.v + rows * HEAD_DIM, in_order, n, exact, nullptr, a.softcap, share, sees);
    finish<false>(a, share, merge, group, tile, [&](int h, int c, const Sums& all, float value) {
        size_t head = (size_t)group * GROUP + tile * HEADS + h;
        a.out[head * HEAD_DIM + c] = all.sum == 0.f ? 0.f : value / all.sum; // NaN stays NaN
        if (c == 0) a.log_sums[head * a.log_stride] = log_sum(all.top, all.sum);
    });
}
#endif
