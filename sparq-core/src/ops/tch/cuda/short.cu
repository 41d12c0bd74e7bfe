// All steps of SparQ in one kernel, for few groups of few positions: there, a step costs its launches and
// the latency of each, not what it reads. A block takes a whole group, so nothing goes through memory
// between the steps.
//
// For groups of up to HEADS heads, and spans of up to MAX_BUCKETS buckets.

#if IS_SHORT
constexpr int MAX_KEPT = 256; // positions to select

// Grid (1, KV heads, sequences).
__device__ __forceinline__ void run_short(
    const ScoreArgs& c, const AttendArgs& a, const SelectArgs& b, const Spans& spans) {
    __shared__ ScoreRoom scoring;
    __shared__ __align__(16) Queries exact;
    __shared__ __align__(16) float approx_room[MASS ? HEADS * PADDED_DIM : 1];
    __shared__ float mean[MASS ? HEAD_DIM : 1];
    __shared__ float2 whole[MASS ? HEADS : 1];
    __shared__ union {
        Select select;
        Merge merge;
    } room;
    __shared__ int rows[MAX_KEPT];
    Select& s = room.select;

    int group = blockIdx.z * gridDim.y + blockIdx.y;
    int cache_group = spans.slot[blockIdx.z] * gridDim.y + blockIdx.y;
    int2 span = spans.of[blockIdx.z];
    int live = span.y - span.x;
    int kept = min(b.kept, live);
    size_t heads = (size_t)group * GROUP;
    wait_for_previous();
    load_queries(a.q + heads * HEAD_DIM, 0, a.scale, exact);
    choose_rows(c, group, scoring);
    Queries* approx = (Queries*)approx_room;
    if (MASS) {
        for (int i = threadIdx.x; i < HEADS * PADDED_DIM; i += ATTEND_THREADS) approx_room[i] = 0.f;
        for (int i = threadIdx.x; i < HEAD_DIM; i += ATTEND_THREADS)
            mean[i] = b.v_sum[(size_t)cache_group * HEAD_DIM + i] / max(live, 1);
        __syncthreads();
        for (int i = threadIdx.x; i < HEADS * c.rank; i += ATTEND_THREADS)
            approx_room[i / c.rank * PADDED_DIM + scoring.channel[i % c.rank]] =
                scoring.weight[i / c.rank][i % c.rank];
    }

    // Step 1: keys of all buckets, in shared memory.
    int first = span.x / BUCKET, buckets = (span.y + BUCKET - 1) / BUCKET - first;
    const scalar* k_t = c.k_t + (size_t)cache_group * HEAD_DIM * c.capacity;
    float2 stats[SCORED];
#pragma unroll
    for (int n = 0; n < SCORED; n++) stats[n] = make_float2(NEG_INF, 0.f);
    for (int i = threadIdx.x; i < buckets; i += ATTEND_THREADS) {
        int p = (first + i) * BUCKET;
        float acc[SCORED][BUCKET] = {}, total[BUCKET] = {};
        if (c.capacity % BUCKET == 0)
            score_bucket<true>(c, scoring, k_t + p, 0, 0, acc);
        else
            score_bucket<false>(c, scoring, k_t + p, span.y - p, 0, acc);
#pragma unroll
        for (int n = 0; n < SCORED; n++) {
            if (MASS) stats[n] = join(stats[n], bucket_stats(acc[n], p, span, c.softcap));
#pragma unroll
            for (int e = 0; e < BUCKET; e++) total[e] += acc[n][e];
        }
        write_bucket(s.key + i * 2, p, total, span, c.local_window);
    }
    if (MASS) {
#pragma unroll
        for (int n = 0; n < SCORED; n++) {
            float2 x = join_warp(stats[n]);
            if (threadIdx.x % 32 == 0) scoring.stats[threadIdx.x / 32][n] = x;
        }
    }
    __syncthreads();
    if (MASS && threadIdx.x < SCORED) {
        float2 x = scoring.stats[0][threadIdx.x];
        for (int w = 1; w < SCORE_WARPS; w++) x = join(x, scoring.stats[w][threadIdx.x]);
        whole[threadIdx.x] = x;
    }

    // Step 2.
    i64* positions = b.positions + (size_t)group * b.kept;
    auto keep = [&](int rank, int position) {
        positions[rank] = position;
        rows[rank] = position;
    };
    int forced = kept == live ? kept : min(b.local_window, kept);
    int want = kept - forced;
    if (want > 0) {
        auto keys = [&](int i) { return s.key[i]; };
        auto position = [&](int i) { return first * BUCKET + i; };
        u32 floor = want <= MOST_LISTED ? find_floor(keys, buckets * 2, want, s.list) : 0;
        if (floor == 0 || !rank_reaching(keys, buckets * 2, floor, position, want, s.list, keep)) {
            __syncthreads();
            clear_histogram(s);
            Cut cut = find_cut(keys, buckets * 2, want, want, s);
            compact(keys, buckets * 2, cut, s, [&](int rank, int i) { keep(rank, position(i)); });
        }
    }
    for (int i = threadIdx.x; i < forced; i += ATTEND_THREADS) keep(want + i, span.y - forced + i);
    for (int i = kept + threadIdx.x; i < b.kept; i += ATTEND_THREADS) positions[i] = -1;
    __syncthreads();

    // Step 3.
    Share<MASS> share;
    share.clear();
    size_t base = (size_t)cache_group * a.capacity * HEAD_DIM;
    auto chosen = [&](int i) { return rows[i]; };
    attend_rows<MASS>(a.k + base, a.v + base, chosen, kept, exact, approx, a.softcap, share,
        [](int, int) { return true; });
    finish<MASS>(a, share, room.merge, group, 0, [&](int h, int i, const Sums& all, float value) {
        float2 total = MASS ? whole[h] : make_float2(0.f, 0.f);
        a.out[(heads + h) * HEAD_DIM + i] = mixed(b, all, value, total, heads + h, i, span, mean);
    });
}

#if KERNEL == SPARQ_SHORT
extern "C" __global__ void __launch_bounds__(ATTEND_THREADS, 1)
sparq_short(ScoreArgs c, AttendArgs a, SelectArgs b, Spans s) { run_short(c, a, b, s); }
#else
extern "C" __global__ void __launch_bounds__(ATTEND_THREADS, 1)
sparq_short_mass(ScoreArgs c, AttendArgs a, SelectArgs b, Spans s) { run_short(c, a, b, s); }
#endif
#endif
