// SparQ step 1: approximate scores of all live positions.
//
// Grid (chunks of positions, KV heads, sequences). A thread scores 8 neighbouring positions, a
// bucket: for f16 and bf16 one 16-byte load per row of the transposed keys. Each row is read once
// for the whole group. Scores leave as keys: u32 in the order of the floats, 0 for positions that
// are not candidates (not live, or in the local window, which is kept anyway).

#ifndef SCORE_THREADS
#if IS_SHORT
#define SCORE_THREADS ATTEND_THREADS
#else
#define SCORE_THREADS 128
#endif
#endif
#ifndef SCORE_ROWS
#define SCORE_ROWS 16 // loads that a thread has in flight
#endif
constexpr int SCORE_WARPS = SCORE_THREADS / 32;
constexpr int BUCKET = 8;
// Positions of one block. Where α or the softmax is wanted, each block leaves the maximum and the sum
// of exponentials of every head, in units of log2.
constexpr int CHUNK = SCORE_THREADS * BUCKET;

struct ScoreArgs {
    const float* q;         // [batch, kv_heads, GROUP, HEAD_DIM]
    const scalar* k_t;      // [slots, kv_heads, HEAD_DIM, capacity]
    u32* keys;              // [batch, kv_heads, stride]
    u32* maxima;            // [batch, kv_heads, stride / BUCKET rounded up to 4]
    float2* stats;          // [batch, kv_heads, GROUP, chunks]
    float* approx;          // [batch, kv_heads, GROUP, HEAD_DIM]: the query as step 1 sees it, or null
    float* logits;          // [batch, kv_heads, GROUP, stride], for the softmax rule
    int capacity;
    int stride;             // positions, a multiple of BUCKET
    int chunks;
    int rank;
    int local_window;
    float softcap;          // 0 for none
    float factor;           // the layer's scale times √HEAD_DIM
};

// Bucket maxima per group: read four at a time.
__device__ __forceinline__ size_t maxima_stride(int stride) { return (stride / BUCKET + 3) / 4 * 4; }

// Chunks of a sequence; the first begins at the bucket of its first live position.
__device__ __forceinline__ int chunks_of(int2 span) {
    return (span.y - span.x / BUCKET * BUCKET + CHUNK - 1) / CHUNK;
}

// Scores that overflowed come first: attention over the chosen rows shows what they come to.
__device__ __forceinline__ u32 order_key(float x) {
    u32 bits = __float_as_uint(x + 0.f); // -0 and 0 are one score
    if ((bits & 0x7fffffffu) >= 0x7f800000u) return 0xffffffffu;
    return max(bits & 0x80000000u ? ~bits : bits | 0x80000000u, 1u);
}

// The keys of a bucket whose first position is `first`; returns the largest.
__device__ __forceinline__ u32 write_bucket(
    uint4* to, int first, const float (&score)[BUCKET], int2 span, int local_window) {
    int end = span.y - min(local_window, span.y - span.x);
    u32 key[BUCKET], top = 0;
#pragma unroll
    for (int e = 0; e < BUCKET; e++) {
        int p = first + e;
        key[e] = p >= span.x && p < end ? order_key(score[e]) : 0u;
        top = max(top, key[e]);
    }
    to[0] = make_uint4(key[0], key[1], key[2], key[3]);
    to[1] = make_uint4(key[4], key[5], key[6], key[7]);
    return top;
}

__device__ __forceinline__ void write_keys(
    const ScoreArgs& a, int group, int first, const float (&score)[BUCKET], int2 span) {
    uint4* to = (uint4*)(a.keys + (size_t)group * a.stride + first);
    a.maxima[group * maxima_stride(a.stride) + first / BUCKET] =
        write_bucket(to, first, score, span, a.local_window);
}

// The (maximum, sum of exponentials) of two sets.
__device__ __forceinline__ float2 join(float2 x, float2 y) {
    float top = fmaxf(x.x, y.x);
    float base = top > NEG_INF ? top : 0.f;
    return make_float2(top, x.y * exp2_fast(x.x - base) + y.y * exp2_fast(y.x - base));
}

__device__ __forceinline__ float2 join_warp(float2 x) {
#pragma unroll
    for (int o = 16; o > 0; o /= 2)
        x = join(x, make_float2(__shfl_xor_sync(FULL, x.x, o), __shfl_xor_sync(FULL, x.y, o)));
    return x;
}

#if KERNEL == SCORE_SUM || KERNEL == SCORE_STATS || KERNEL == SCORE_HEADS || IS_SHORT
constexpr int VECS = BUCKET / EV;
constexpr bool PER_HEAD = KERNEL != SCORE_SUM && KERNEL != SPARQ_SHORT; // scores of each head, not only of their sum
constexpr int SCORED = PER_HEAD ? HEADS : 1;   // at a time
constexpr int TURNS = PER_HEAD ? TILES : 1;

struct ScoreRoom {
    float query[GROUP][HEAD_DIM];
    float weight[SCORED * TURNS][HEAD_DIM]; // by row
    u32 offset[HEAD_DIM];                   // of the row
    int channel[HEAD_DIM];                  // of the row
    uint4 magnitude[(HEAD_DIM + 3) / 4];    // Σ|q|, as bits: they order like the numbers, NaN included
    float inv_tau[GROUP];
    float2 stats[SCORE_WARPS][SCORED];
};

// The `rank` channels where the group's Σ|q| is largest (ties: the lower channel), with their weights:
// the components there over τ.
__device__ __forceinline__ void choose_rows(const ScoreArgs& a, int group, ScoreRoom& room) {
    const float* q = a.q + (size_t)group * GROUP * HEAD_DIM;
    u32* magnitude = (u32*)room.magnitude;
    for (int c = threadIdx.x; c < (HEAD_DIM + 3) / 4 * 4; c += SCORE_THREADS) {
        float sum = 0.f;
        if (c < HEAD_DIM) {
            float x[GROUP];
#pragma unroll
            for (int g = 0; g < GROUP; g++) x[g] = q[g * HEAD_DIM + c];
#pragma unroll
            for (int g = 0; g < GROUP; g++) {
                room.query[g][c] = x[g];
                sum += fabsf(x[g]);
            }
        }
        magnitude[c] = __float_as_uint(sum);
    }
    __syncthreads();
    constexpr int PARTS = HEAD_DIM * 2 <= SCORE_THREADS ? 2 : 1; // threads per channel, neighbours
    for (int i = threadIdx.x; i < HEAD_DIM * PARTS; i += SCORE_THREADS) {
        int c = i / PARTS;
        u32 mine = magnitude[c];
        int before = 0;
#pragma unroll 8
        for (int v = i % PARTS; v < (HEAD_DIM + 3) / 4; v += PARTS) {
            uint4 other = room.magnitude[v];
            before += other.x > mine || (other.x == mine && v * 4 < c);
            before += other.y > mine || (other.y == mine && v * 4 + 1 < c);
            before += other.z > mine || (other.z == mine && v * 4 + 2 < c);
            before += other.w > mine || (other.w == mine && v * 4 + 3 < c);
        }
        if (PARTS == 2) before += __shfl_xor_sync(__activemask(), before, 1);
        if (before < a.rank && i % PARTS == 0) {
            room.channel[before] = c;
            room.offset[before] = (u32)c * a.capacity;
        }
    }
    __syncthreads();
    int lane = threadIdx.x % 32;
    for (int g = threadIdx.x / 32; g < GROUP; g += SCORE_WARPS) {
        float all = 0.f, kept = 0.f;
        for (int c = lane; c < HEAD_DIM; c += 32) all += fabsf(room.query[g][c]);
        for (int j = lane; j < a.rank; j += 32) kept += fabsf(room.query[g][room.channel[j]]);
#pragma unroll
        for (int o = 16; o > 0; o /= 2) {
            all += __shfl_xor_sync(FULL, all, o);
            kept += __shfl_xor_sync(FULL, kept, o);
        }
        // Guards ‖q‖₁ = 0; τ² ≥ 1 for any other query.
        float tau2 = kept / fmaxf(all, 1.17549435e-38f) * HEAD_DIM;
        float inv_tau = rsqrtf(fmaxf(tau2, 1.f)) * a.factor;
        if (lane == 0) room.inv_tau[g] = inv_tau;
        if (PER_HEAD)
            for (int j = lane; j < a.rank; j += 32) room.weight[g][j] = room.query[g][room.channel[j]] * inv_tau;
    }
    __syncthreads();
    if (!PER_HEAD) {
        for (int j = threadIdx.x; j < a.rank; j += SCORE_THREADS) {
            float sum = 0.f;
#pragma unroll
            for (int g = 0; g < GROUP; g++) sum += room.query[g][room.channel[j]] * room.inv_tau[g];
            room.weight[0][j] = sum;
        }
        __syncthreads();
    } else if (a.approx && blockIdx.x == 0) {
        float* approx = a.approx + (size_t)group * GROUP * HEAD_DIM;
        for (int i = threadIdx.x; i < GROUP * HEAD_DIM; i += SCORE_THREADS) approx[i] = 0.f;
        __syncthreads();
        for (int i = threadIdx.x; i < GROUP * a.rank; i += SCORE_THREADS)
            approx[i / a.rank * HEAD_DIM + room.channel[i % a.rank]] = room.weight[i / a.rank][i % a.rank];
    }
}

// Scores of a thread's bucket for SCORED heads. `count`: elements left in a row that is not aligned.
template <bool ALIGNED>
__device__ __forceinline__ void score_bucket(
    const ScoreArgs& a, const ScoreRoom& room, const scalar* rows, int count, int turn,
    float (&acc)[SCORED][BUCKET]) {
    for (int j0 = 0; j0 < a.rank; j0 += SCORE_ROWS) {
        uint4 raw[SCORE_ROWS][VECS];
#pragma unroll
        for (int u = 0; u < SCORE_ROWS; u++)
#pragma unroll
            for (int v = 0; v < VECS; v++) {
                raw[u][v] = make_uint4(0, 0, 0, 0);
                if (j0 + u < a.rank) {
                    const scalar* from = rows + room.offset[j0 + u];
                    raw[u][v] = ALIGNED ? load_once(from + v * EV) : load_singly(from, v * EV, count);
                }
            }
#pragma unroll
        for (int u = 0; u < SCORE_ROWS; u++) {
            if (j0 + u >= a.rank) break;
#pragma unroll
            for (int v = 0; v < VECS; v++) {
                float x[EV];
                unpack(raw[u][v], x);
#pragma unroll
                for (int n = 0; n < SCORED; n++) {
                    float w = room.weight[turn * SCORED + n][j0 + u];
#pragma unroll
                    for (int e = 0; e < EV; e++) acc[n][v * EV + e] = fmaf(w, x[e], acc[n][v * EV + e]);
                }
            }
        }
    }
}

// Maximum and sum of exponentials of the live logits of a bucket whose first position is `first`.
__device__ __forceinline__ float2 bucket_stats(
    const float (&logits)[BUCKET], int first, int2 span, float softcap) {
    float capped[BUCKET];
    float2 stats = make_float2(NEG_INF, 0.f);
#pragma unroll
    for (int e = 0; e < BUCKET; e++) {
        int p = first + e;
        bool live = p >= span.x && p < span.y;
        capped[e] = live ? soft_cap(logits[e], softcap) * LOG2E : NEG_INF;
        stats.x = fmaxf(stats.x, capped[e]);
    }
    float base = stats.x > NEG_INF ? stats.x : 0.f;
#pragma unroll
    for (int e = 0; e < BUCKET; e++) stats.y += exp2_fast(capped[e] - base);
    return stats;
}

__device__ __forceinline__ void score(const ScoreArgs& a, const Spans& spans) {
    __shared__ ScoreRoom room;
    int2 span = spans.of[blockIdx.z];
    int first = span.x / BUCKET * BUCKET + (blockIdx.x * SCORE_THREADS + threadIdx.x) * BUCKET;
    wait_for_previous();
    if ((int)blockIdx.x >= chunks_of(span)) return;
    int group = blockIdx.z * gridDim.y + blockIdx.y;
    choose_rows(a, group, room);

    int cache_group = spans.slot[blockIdx.z] * gridDim.y + blockIdx.y;
    const scalar* rows = a.k_t + (size_t)cache_group * HEAD_DIM * a.capacity + first;
    bool mine = first < span.y;
    float total[BUCKET] = {};
    for (int turn = 0; turn < TURNS; turn++) {
        float acc[SCORED][BUCKET] = {};
        if (mine) {
            if (a.capacity % BUCKET == 0)
                score_bucket<true>(a, room, rows, 0, turn, acc);
            else
                score_bucket<false>(a, room, rows, span.y - first, turn, acc);
        }
#pragma unroll
        for (int n = 0; n < SCORED; n++) {
            if (PER_HEAD) {
                if (KERNEL == SCORE_HEADS && mine) {
                    size_t head = (size_t)group * GROUP + turn * SCORED + n;
                    float4* to = (float4*)(a.logits + head * a.stride + first);
                    to[0] = make_float4(acc[n][0], acc[n][1], acc[n][2], acc[n][3]);
                    to[1] = make_float4(acc[n][4], acc[n][5], acc[n][6], acc[n][7]);
                }
                float2 stats = join_warp(bucket_stats(acc[n], first, span, a.softcap));
                if (threadIdx.x % 32 == 0) room.stats[threadIdx.x / 32][n] = stats;
            }
#pragma unroll
            for (int e = 0; e < BUCKET; e++) total[e] += acc[n][e];
        }
        if (PER_HEAD) {
            __syncthreads();
            int n = threadIdx.x;
            if (n < SCORED) {
                float2 stats = room.stats[0][n];
                for (int w = 1; w < SCORE_WARPS; w++) stats = join(stats, room.stats[w][n]);
                size_t head = (size_t)group * GROUP + turn * SCORED + n;
                a.stats[head * a.chunks + blockIdx.x] = stats;
            }
            if (TURNS > 1) __syncthreads();
        }
    }
    if (KERNEL != SCORE_HEADS && mine) write_keys(a, group, first, total, span);
}

#if KERNEL == SCORE_SUM
extern "C" __global__ void __launch_bounds__(SCORE_THREADS) score_sum(ScoreArgs a, Spans s) { score(a, s); }
#elif KERNEL == SCORE_STATS
extern "C" __global__ void __launch_bounds__(SCORE_THREADS) score_stats(ScoreArgs a, Spans s) { score(a, s); }
#elif KERNEL == SCORE_HEADS
extern "C" __global__ void __launch_bounds__(SCORE_THREADS) score_heads(ScoreArgs a, Spans s) { score(a, s); }
#endif
#endif

// What all chunks of one head come to, read by one warp; valid in all lanes.
__device__ __forceinline__ float2 whole_stats(const float2* stats, int chunks, int head, int2 span) {
    stats += (size_t)head * chunks;
    float2 all = make_float2(NEG_INF, 0.f);
    for (int i = threadIdx.x % 32; i < chunks_of(span); i += 32) all = join(all, stats[i]);
    return join_warp(all);
}

#if KERNEL == SUM_SOFTMAX
// The softmax rule of grouped queries: keys of Σ_g softmax(logits of g), once all of them are known.
extern "C" __global__ void __launch_bounds__(SCORE_THREADS) sum_softmax(ScoreArgs a, Spans spans) {
    __shared__ float2 whole[GROUP];
    int2 span = spans.of[blockIdx.z];
    int first = span.x / BUCKET * BUCKET + (blockIdx.x * SCORE_THREADS + threadIdx.x) * BUCKET;
    wait_for_previous();
    if ((int)blockIdx.x >= chunks_of(span)) return;
    int group = blockIdx.z * gridDim.y + blockIdx.y;
    for (int g = threadIdx.x / 32; g < GROUP; g += SCORE_WARPS) {
        float2 x = whole_stats(a.stats, a.chunks, group * GROUP + g, span);
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
