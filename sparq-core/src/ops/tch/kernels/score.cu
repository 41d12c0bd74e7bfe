// SparQ step 1: approximate scores of all live positions.
//
// Grid (chunks of positions, KV heads, sequences). A thread scores 8 neighbouring positions, a
// bucket: for f16 and bf16 one 16-byte load per row of the transposed keys. Each row is read once
// for the whole group. Scores leave as keys: u32 in the order of the floats, 0 for positions that
// are not candidates (not live, or in the local window, which is kept anyway).

#ifndef SCORE_THREADS
#define SCORE_THREADS 128
#endif
#ifndef SCORE_ROWS
#define SCORE_ROWS 8
#endif
constexpr int BUCKET = 8;
constexpr int VECS = BUCKET / EV;

// Kept beside the output where α or the softmax is wanted: maximum and sum of exponentials, in units
// of log2, per warp of the score kernel.
constexpr int STATS_SPAN = 32 * BUCKET;

__device__ __forceinline__ u32 order_key(float x) {
    u32 bits = __float_as_uint(x + 0.f); // -0 and 0 are one score
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

struct ScoreArgs {
    const float* q;         // [batch, kv_heads, GROUP, HEAD_DIM]
    const scalar* index;    // [batch, kv_heads, HEAD_DIM, capacity]
    u32* keys;              // [batch, kv_heads, stride]
    u32* maxima;            // [batch, kv_heads, stride / BUCKET]
    float2* stats;          // [batch, kv_heads, GROUP, stride / STATS_SPAN rounded up + 1]
    float* logits;          // [batch, kv_heads, GROUP, stride], for the softmax rule
    int capacity;
    int stride;             // positions, a multiple of BUCKET
    int stats_stride;
    int rank;
    int local_window;
    float softcap;          // 0 for none
};

__device__ __forceinline__ void write_keys(
    const ScoreArgs& a, int group, int first, const float (&score)[BUCKET], int2 span) {
    int end = span.y - min(a.local_window, span.y - span.x);
    u32 key[BUCKET], top = 0;
#pragma unroll
    for (int e = 0; e < BUCKET; e++) {
        int p = first + e;
        key[e] = p >= span.x && p < end ? order_key(score[e]) : 0u;
        top = max(top, key[e]);
    }
    uint4* to = (uint4*)(a.keys + (size_t)group * a.stride + first);
    to[0] = make_uint4(key[0], key[1], key[2], key[3]);
    to[1] = make_uint4(key[4], key[5], key[6], key[7]);
    a.maxima[((size_t)group * a.stride + first) / BUCKET] = top;
}

// STATS: scores of each head, not only of their sum. WRITE: of each head, and no keys.
template <bool STATS, bool WRITE, bool ALIGNED>
__device__ __forceinline__ void score(const ScoreArgs& a, const Spans& spans) {
    constexpr int N = STATS ? HEADS : 1;
    constexpr int TURNS = STATS ? TILES : 1;
    __shared__ Chosen chosen;
    __shared__ u32 offset[HEAD_DIM];
    __shared__ float weight[TURNS * N][HEAD_DIM];

    int2 span = spans.of[blockIdx.z];
    int base = span.x & ~(BUCKET - 1);
    int first = base + (blockIdx.x * SCORE_THREADS + threadIdx.x) * BUCKET;
    overlap_next();
    wait_for_previous();
    if (base + (int)(blockIdx.x * SCORE_THREADS * BUCKET) >= span.y) return;

    int group = blockIdx.z * gridDim.y + blockIdx.y;
    const float* q = a.q + (size_t)group * GROUP * HEAD_DIM;
    choose_channels(q, a.rank, chosen);
    for (int j = threadIdx.x; j < a.rank; j += SCORE_THREADS) {
        int c = chosen.channel[j];
        offset[j] = (u32)c * a.capacity;
        float sum = 0.f;
#pragma unroll
        for (int g = 0; g < GROUP; g++) {
            float w = q[g * HEAD_DIM + c] * chosen.inv_tau[g];
            if (STATS) weight[g][j] = w;
            sum += w;
        }
        if (!STATS) weight[0][j] = sum;
    }
    __syncthreads();

    const scalar* rows = a.index + (size_t)group * HEAD_DIM * a.capacity + first;
    bool mine = first < span.y;
    int count = span.y - first;
    float total[BUCKET] = {};
    for (int turn = 0; turn < TURNS; turn++) {
        float acc[N][BUCKET] = {};
        if (mine) {
            for (int j0 = 0; j0 < a.rank; j0 += SCORE_ROWS) {
                uint4 raw[SCORE_ROWS][VECS];
#pragma unroll
                for (int u = 0; u < SCORE_ROWS; u++) {
#pragma unroll
                    for (int v = 0; v < VECS; v++) {
                        raw[u][v] = make_uint4(0, 0, 0, 0);
                        if (j0 + u < a.rank) {
                            const scalar* from = rows + offset[j0 + u];
                            raw[u][v] = ALIGNED ? load_once(from + v * EV) : load_singly(from, v * EV, count);
                        }
                    }
                }
#pragma unroll
                for (int u = 0; u < SCORE_ROWS; u++) {
                    if (j0 + u < a.rank) {
#pragma unroll
                        for (int v = 0; v < VECS; v++) {
                            float x[EV];
                            unpack(raw[u][v], x);
#pragma unroll
                            for (int n = 0; n < N; n++) {
                                float w = weight[turn * N + n][j0 + u];
#pragma unroll
                                for (int e = 0; e < EV; e++)
                                    acc[n][v * EV + e] = fmaf(w, x[e], acc[n][v * EV + e]);
                            }
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int n = 0; n < N; n++) {
            if (STATS) {
                int head = group * GROUP + turn * N + n;
                if (WRITE && mine) {
                    float4* to = (float4*)(a.logits + (size_t)head * a.stride + first);
                    to[0] = make_float4(acc[n][0], acc[n][1], acc[n][2], acc[n][3]);
                    to[1] = make_float4(acc[n][4], acc[n][5], acc[n][6], acc[n][7]);
                }
                float capped[BUCKET], top = NEG_INF, sum = 0.f;
#pragma unroll
                for (int e = 0; e < BUCKET; e++) {
                    int p = first + e;
                    bool live = p >= span.x && p < span.y;
                    capped[e] = live ? soft_cap(acc[n][e], a.softcap) * LOG2E : NEG_INF;
                    top = fmaxf(top, capped[e]);
                }
#pragma unroll
                for (int o = 16; o > 0; o /= 2) top = fmaxf(top, __shfl_xor_sync(FULL, top, o));
                if (top > NEG_INF) {
#pragma unroll
                    for (int e = 0; e < BUCKET; e++) sum += exp2_fast(capped[e] - top);
                }
#pragma unroll
                for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(FULL, sum, o);
                if (threadIdx.x % 32 == 0 && mine)
                    a.stats[(size_t)head * a.stats_stride + (first - base) / STATS_SPAN] = make_float2(top, sum);
            }
#pragma unroll
            for (int e = 0; e < BUCKET; e++) total[e] += acc[n][e];
        }
    }
    if (!WRITE && mine) write_keys(a, group, first, total, span);
}

#define SCORE_KERNEL(name, stats, write)                                                     \
    extern "C" __global__ void __launch_bounds__(SCORE_THREADS) name(ScoreArgs a, Spans s) { \
        if (a.capacity % BUCKET == 0)                                                        \
            score<stats, write, true>(a, s);                                                 \
        else                                                                                 \
            score<stats, write, false>(a, s);                                                \
    }
#if KERNEL == SCORE_SUM
SCORE_KERNEL(score_sum, false, false)
#elif KERNEL == SCORE_STATS
SCORE_KERNEL(score_stats, true, false)
#elif KERNEL == SCORE_HEADS
SCORE_KERNEL(score_heads, true, true)
#endif

// Merges the (maximum, sum) pairs of one head, read by one warp; valid in all lanes.
__device__ __forceinline__ float2 merge_stats(const float2* stats, int count) {
    float top = NEG_INF, sum = 0.f;
    for (int i = threadIdx.x % 32; i < count; i += 32) {
        float2 x = stats[i];
        float higher = fmaxf(top, x.x);
        if (higher > NEG_INF) sum = sum * exp2_fast(top - higher) + x.y * exp2_fast(x.x - higher);
        top = higher;
    }
    float highest = top;
#pragma unroll
    for (int o = 16; o > 0; o /= 2) highest = fmaxf(highest, __shfl_xor_sync(FULL, highest, o));
    sum = highest > NEG_INF ? sum * exp2_fast(top - highest) : 0.f;
#pragma unroll
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(FULL, sum, o);
    return make_float2(highest, sum);
}

// Pairs that the score kernel wrote for a sequence.
__device__ __forceinline__ int stats_count(int2 span) {
    return (span.y - (span.x & ~(BUCKET - 1)) + STATS_SPAN - 1) / STATS_SPAN;
}

#if KERNEL == SUM_SOFTMAX
// The softmax rule of grouped queries: keys of Σ_g softmax(logits of g), once all of them are known.
extern "C" __global__ void __launch_bounds__(SCORE_THREADS) sum_softmax(ScoreArgs a, Spans spans) {
    __shared__ float2 whole[GROUP];
    int2 span = spans.of[blockIdx.z];
    int base = span.x & ~(BUCKET - 1);
    int first = base + (blockIdx.x * SCORE_THREADS + threadIdx.x) * BUCKET;
    overlap_next();
    wait_for_previous();
    if (base + (int)(blockIdx.x * SCORE_THREADS * BUCKET) >= span.y) return;
    int group = blockIdx.z * gridDim.y + blockIdx.y;
    for (int g = threadIdx.x / 32; g < GROUP; g += SCORE_THREADS / 32) {
        float2 x = merge_stats(a.stats + (size_t)(group * GROUP + g) * a.stats_stride, stats_count(span));
        if (threadIdx.x % 32 == 0) whole[g] = x;
    }
    __syncthreads();
    if (first >= span.y) return;
    float total[BUCKET] = {};
    for (int g = 0; g < GROUP; g++) {
        const float* from = a.logits + (size_t)(group * GROUP + g) * a.stride + first;
        float inverse = 1.f / whole[g].y;
#pragma unroll
        for (int e = 0; e < BUCKET; e++) {
            float x = soft_cap(from[e], a.softcap) * LOG2E - whole[g].x;
            total[e] += exp2_fast(x) * inverse;
        }
    }
    write_keys(a, group, first, total, span);
}
#endif
