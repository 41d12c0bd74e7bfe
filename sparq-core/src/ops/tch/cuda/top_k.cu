// SparQ step 2 and 3: the positions with the largest scores, attention over their rows, and the mean
// value in place of the rest.
//
// Every block finds the whole selection of its group by itself and attends over its share of it: cheaper
// than a launch of its own and a list in memory. It looks at the maxima of buckets, then at the buckets
// that can hold a winner: with a short list where scores are spread, else with a radix selection. The
// selection is exact, the same in every run, and prefers lower positions where scores are equal.

#ifndef MAX_SHARE
#define MAX_SHARE 1024 // selected rows that one block may attend over
#endif
constexpr int MAX_BUCKETS = 512; // that are searched in shared memory
constexpr int BINS = 2048;
// Buckets of which all keys are looked at: their maxima would be too few per thread to find a floor.
constexpr int DIRECT_BUCKETS = 1024;

struct __align__(16) Select {
    union {
        u32 histogram[BINS];
        Shortlist list;
    };
    u32 warp_count[2][ATTEND_WARPS];
    u32 digit, above, within;
    int bucket[MAX_BUCKETS];
    uint4 key[MAX_BUCKETS * BUCKET / 4];
};

__device__ __forceinline__ void clear_histogram(Select& s) {
    for (int i = threadIdx.x; i < BINS; i += ATTEND_THREADS) s.histogram[i] = 0;
    __syncthreads();
}

// The bin, counted from the highest, that holds item number `want` (1 is the first), how many items
// lie in higher bins, and how many in this one. Leaves the histogram clear.
__device__ __forceinline__ void find_bin(Select& s, u32 want) {
    constexpr int EACH = BINS / ATTEND_THREADS;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int top = BINS - 1 - threadIdx.x * EACH;
    u32 count[EACH], mine = 0;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        mine += count[j] = s.histogram[top - j];
        s.histogram[top - j] = 0;
    }
    u32 upto = mine;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
        u32 lower = __shfl_up_sync(FULL, upto, o);
        if (lane >= o) upto += lower;
    }
    if (lane == 31) s.warp_count[0][warp] = upto;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < ATTEND_WARPS; w++) upto += w < warp ? s.warp_count[0][w] : 0;
    u32 before = upto - mine;
    if (before < want && want <= upto) {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            if (before < want && want <= before + count[j]) {
                s.digit = top - j;
                s.above = before;
                s.within = count[j];
            }
            before += count[j];
        }
    }
    __syncthreads();
}

// Which keys to take: those above `threshold`, and the first `ties` of those equal to it.
struct Cut { u32 threshold; int ties; };

// The cut that takes the `want` largest keys, or a few more, up to `most`, where that is found sooner.
// `keys(i)` gives four of them, for i in 0..n; a 0 is no candidate. A radix selection by digits of 11,
// 11 and 10 bits. The histogram is clear before and after.
template <class Keys>
__device__ __forceinline__ Cut find_cut(Keys keys, int n, u32 want, u32 most, Select& s) {
    u32 found = 0, known = 0, above = 0;
    for (int pass = 0; pass < 3; pass++) {
        int shift = pass == 0 ? 21 : pass == 1 ? 10 : 0;
        u32 mask = pass == 2 ? 1023 : 2047;
#pragma unroll 4
        for (int i = threadIdx.x; i < n; i += ATTEND_THREADS) {
            uint4 four = keys(i);
            u32 x[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (int j = 0; j < 4; j++)
                if (x[j] && (x[j] & known) == found) atomicAdd(&s.histogram[x[j] >> shift & mask], 1u);
        }
        __syncthreads();
        find_bin(s, want - above);
        found |= s.digit << shift;
        known |= mask << shift;
        if (above + s.above + s.within <= most) return Cut{max(found, 1u) - 1, 0};
        above += s.above;
    }
    return Cut{found, (int)(want - above)};
}

// Calls `out(rank, 4 · i + j)`, in order, for each key that the cut takes. Returns how many.
template <class Keys, class Out>
__device__ __forceinline__ int compact(Keys keys, int n, Cut cut, Select& s, Out out) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int part = (n + ATTEND_THREADS - 1) / ATTEND_THREADS * 32;
    int from = min(n, warp * part), to = min(n, from + part);
    int above = 0, equal = 0;
#pragma unroll 4
    for (int i = from + lane; i < to; i += 32) {
        uint4 four = keys(i);
        u32 x[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            above += x[j] > cut.threshold;
            equal += x[j] == cut.threshold;
        }
    }
#pragma unroll
    for (int o = 16; o > 0; o /= 2) {
        above += __shfl_xor_sync(FULL, above, o);
        equal += __shfl_xor_sync(FULL, equal, o);
    }
    if (lane == 0) {
        s.warp_count[0][warp] = above;
        s.warp_count[1][warp] = equal;
    }
    __syncthreads();
    int all_above = 0, all_equal = 0;
    above = equal = 0;
#pragma unroll
    for (int w = 0; w < ATTEND_WARPS; w++) {
        int x = s.warp_count[0][w], y = s.warp_count[1][w];
        if (w < warp) above += x, equal += y;
        all_above += x, all_equal += y;
    }
    u32 lower = (1u << lane) - 1;
#pragma unroll 2
    for (int i0 = from; i0 < to; i0 += 32) {
        int i = i0 + lane;
        uint4 four = i < to ? keys(i) : make_uint4(0, 0, 0, 0);
        u32 x[4] = {four.x, four.y, four.z, four.w};
        bool taken = false;
#pragma unroll
        for (int j = 0; j < 4; j++) taken |= x[j] > cut.threshold || (cut.ties > 0 && x[j] == cut.threshold);
        if (!__any_sync(FULL, taken)) continue;
        // This lane's ranks: what came before, then the lower lanes, then its own keys in order.
        int ups = above, ones = equal;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            u32 higher = __ballot_sync(FULL, i < to && x[j] > cut.threshold);
            u32 same = __ballot_sync(FULL, i < to && x[j] == cut.threshold);
            ups += __popc(higher & lower), ones += __popc(same & lower);
            above += __popc(higher), equal += __popc(same);
        }
        if (!taken) continue;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (x[j] > cut.threshold) out(ups++ + min(ones, cut.ties), 4 * i + j);
            if (x[j] == cut.threshold && ones++ < cut.ties) out(ups + ones - 1, 4 * i + j);
        }
    }
    __syncthreads();
    return all_above + min(all_equal, cut.ties);
}

// The maxima of the buckets `first..end` of a group, four at a time, for i in 0..n; 0 for other buckets.
struct BucketMaxima {
    const uint4* maxima;
    int first, end, from, n;

    __device__ __forceinline__ BucketMaxima(const u32* of_group, int first, int end)
        : maxima((const uint4*)of_group), first(first), end(end), from(first / 4), n((end + 3) / 4 - first / 4) {}

    __device__ __forceinline__ uint4 operator()(int i) const {
        uint4 x = maxima[from + i];
        int b = (from + i) * 4;
        if (b < first || b + 4 > end) {
            x.x = b >= first && b < end ? x.x : 0;
            x.y = b + 1 >= first && b + 1 < end ? x.y : 0;
            x.z = b + 2 >= first && b + 2 < end ? x.z : 0;
            x.w = b + 3 >= first && b + 3 < end ? x.w : 0;
        }
        return x;
    }
};

// The `want` best positions, in order, as `out(rank, position)`. False, and nothing, where too many
// may be among them.
template <class Out>
__device__ __forceinline__ bool select_from_list(
    const uint4* all, const BucketMaxima& maxima, int want, Select& s, Out out) {
    if (want > MOST_LISTED) return false;
    int first = maxima.first, buckets = maxima.end - first;
    if (buckets <= DIRECT_BUCKETS) {
        auto keys = [&](int i) { return all[i]; };
        u32 floor = find_floor(keys, buckets * 2, want, s.list);
        auto position = [&](int i) { return first * BUCKET + i; };
        return floor > 0 && rank_reaching(keys, buckets * 2, floor, position, want, s.list, out);
    }
    // At least `want` buckets reach the floor: so many keys do, and all that do lie in such buckets.
    u32 floor = find_floor(maxima, maxima.n, want, s.list);
    if (floor == 0) return false;
    each_reaching(maxima, maxima.n, floor, [&](int i, u32) {
        int at = atomicAdd(&s.list.buckets, 1);
        if (at < MAX_BUCKETS) s.bucket[at] = maxima.from * 4 + i - first;
    });
    int listed = s.list.buckets;
    if (listed > MAX_BUCKETS) return false;
    auto keys = [&](int i) { return all[s.bucket[i / 2] * 2 + i % 2]; };
    auto position = [&](int i) { return (first + s.bucket[i / BUCKET]) * BUCKET + i % BUCKET; };
    return rank_reaching(keys, listed * 2, floor, position, want, s.list, out);
}

// The `want` best positions among the `candidates` (no fewer), in order: `out(rank, position)`.
template <class Out>
__device__ __forceinline__ void select_positions(
    const u32* keys, const u32* of_buckets, int2 span, int want, int candidates, Select& s, Out out) {
    int first = span.x / BUCKET, end = (span.y + BUCKET - 1) / BUCKET, buckets = end - first;
    const uint4* all = (const uint4*)keys + first * 2;
    BucketMaxima maxima(of_buckets, first, end);
    if (select_from_list(all, maxima, want, s, out)) return;
    __syncthreads();
    clear_histogram(s);
    int found = buckets;
    if (buckets <= MAX_BUCKETS) {
        for (int i = threadIdx.x; i < buckets; i += ATTEND_THREADS) s.bucket[i] = i;
    } else if (want < MAX_BUCKETS && want <= candidates / BUCKET) {
        // At least `want` buckets hold a candidate. So at least `want` candidates reach the bucket
        // maximum of rank `want`, and no bucket below it holds a winner.
        Cut cut = find_cut(maxima, maxima.n, want, min(2 * want + 32, MAX_BUCKETS), s);
        if (cut.ties > 0) cut = Cut{max(cut.threshold, 1u) - 1, 0}; // all that are equal
        found = compact(maxima, maxima.n, cut, s, [&](int rank, int i) {
            if (rank < MAX_BUCKETS) s.bucket[rank] = maxima.from * 4 + i - first;
        });
    }
    if (found <= MAX_BUCKETS) {
        __syncthreads();
        for (int i = threadIdx.x; i < found * 2; i += ATTEND_THREADS) s.key[i] = all[s.bucket[i / 2] * 2 + i % 2];
        __syncthreads();
        auto few = [&](int i) { return s.key[i]; };
        Cut cut = find_cut(few, found * 2, want, want, s);
        compact(few, found * 2, cut, s, [&](int rank, int i) {
            out(rank, (first + s.bucket[i / BUCKET]) * BUCKET + i % BUCKET);
        });
    } else {
        auto every = [&](int i) { return all[i]; };
        Cut cut = find_cut(every, buckets * 2, want, want, s);
        compact(every, buckets * 2, cut, s, [&](int rank, int i) { out(rank, first * BUCKET + i); });
    }
}

#if KERNEL == ATTEND_SELECTED || KERNEL == ATTEND_SELECTED_MASS || IS_SHORT
constexpr bool MASS = KERNEL == ATTEND_SELECTED_MASS || KERNEL == SPARQ_SHORT_MASS; // with α and, where it is on, the mean value

struct SelectArgs {
    const u32* keys;        // see ScoreArgs
    const u32* maxima;
    const float2* stats;
    const float* approx;
    const float* v_sum;     // [slots, kv_heads, HEAD_DIM]
    i64* positions;         // [batch, kv_heads, kept]
    float* masses;          // [batch, kv_heads, GROUP, 3]: α, the log-sum-exp of step 1 and of step 2
    int stride;
    int chunks;
    int kept;
    int local_window;
    int mean_value;
};

// Step 3 of a head: the attention over selected rows, for α with the mean value in place of the rest.
__device__ __forceinline__ float mixed(
    const SelectArgs& b, const Sums& all, float value, float2 total, size_t head, int c, int2 span,
    const float* mean) {
    float y = all.sum == 0.f ? 0.f : value / all.sum; // NaN stays NaN
    if (MASS) {
        if (c == 0) b.masses[head * 3 + 2] = log_sum(all.top, all.sum);
        float alpha = share_factor(all.approx_top, total.x) * all.approx_sum / total.y;
        alpha = total.y > 0.f ? fminf(alpha, 1.f) : 1.f;
        if (c == 0) {
            b.masses[head * 3] = alpha;
            b.masses[head * 3 + 1] = log_sum(total.x, total.y);
        }
        // Where a window leaves values out, their mean is not that of the live ones.
        if (b.mean_value && span.x == 0) y = alpha * y + (1.f - alpha) * mean[c];
    }
    return y;
}

#if !IS_SHORT
// Grid (splits, KV heads · TILES, sequences).
__device__ __forceinline__ void run_selected(const AttendArgs& a, const SelectArgs& b, const Spans& spans) {
    __shared__ __align__(16) Queries exact;
    __shared__ __align__(16) float approx_room[MASS ? HEADS * PADDED_DIM : 1];
    __shared__ float mean[MASS ? HEAD_DIM : 1];
    __shared__ float2 whole[MASS ? HEADS : 1];
    __shared__ union {
        Select select;
        Merge merge;
    } room;
    __shared__ int rows[MAX_SHARE];

    int tile = blockIdx.y % TILES, kv_head = blockIdx.y / TILES, kv_heads = gridDim.y / TILES;
    int group = blockIdx.z * kv_heads + kv_head;
    int cache_group = spans.slot[blockIdx.z] * kv_heads + kv_head;
    int2 span = spans.of[blockIdx.z];
    int live = span.y - span.x;
    int kept = min(b.kept, live);
    int each = (kept + gridDim.x - 1) / gridDim.x;
    int first = blockIdx.x * each;
    int n = max(0, min(each, kept - first));

    // The kernel before this one is a score kernel. When it lets this one start, what came before it
    // is complete, the queries among it.
    size_t heads = (size_t)group * GROUP;
    load_queries(a.q + heads * HEAD_DIM, tile, a.scale, exact);
    wait_for_previous();
    __syncthreads();
    Queries* approx = (Queries*)approx_room;
    if (MASS) {
        load_queries(b.approx + heads * HEAD_DIM, tile, 1.f, *approx);
        for (int c = threadIdx.x; c < HEAD_DIM; c += ATTEND_THREADS)
            mean[c] = b.v_sum[(size_t)cache_group * HEAD_DIM + c] / max(live, 1);
        for (int h = threadIdx.x / 32; h < HEADS; h += ATTEND_WARPS) {
            float2 x = whole_stats(b.stats, b.chunks, heads + tile * HEADS + h, span);
            if (threadIdx.x % 32 == 0) whole[h] = x;
        }
    }

    bool writes = blockIdx.x == 0 && tile == 0;
    i64* positions = b.positions + (size_t)group * b.kept;
    auto keep = [&](int rank, int position) {
        if (writes) positions[rank] = position;
        if (rank >= first && rank < first + n) rows[rank - first] = position;
    };
    int forced = kept == live ? kept : min(b.local_window, kept);
    int want = kept - forced;
    if (want > 0) {
        const u32* keys = b.keys + (size_t)group * b.stride;
        const u32* maxima = b.maxima + group * maxima_stride(b.stride);
        select_positions(keys, maxima, span, want, live - forced, room.select, keep);
    }
    for (int i = threadIdx.x; i < forced; i += ATTEND_THREADS) keep(want + i, span.y - forced + i);
    if (writes)
        for (int i = kept + threadIdx.x; i < b.kept; i += ATTEND_THREADS) positions[i] = -1;
    __syncthreads();

    Share<MASS> share;
    share.clear();
    size_t base = (size_t)cache_group * a.capacity * HEAD_DIM;
    auto chosen = [&](int i) { return rows[i]; };
    attend_rows<MASS>(a.k + base, a.v + base, chosen, n, exact, approx, a.softcap, share,
        [](int, int) { return true; });
    finish<MASS>(a, share, room.merge, group, tile, [&](int h, int c, const Sums& all, float value) {
        size_t head = heads + tile * HEADS + h;
        float2 total = MASS ? whole[h] : make_float2(0.f, 0.f);
        a.out[head * HEAD_DIM + c] = mixed(b, all, value, total, head, c, span, mean);
    });
}
#endif

#if KERNEL == ATTEND_SELECTED
extern "C" __global__ void __launch_bounds__(ATTEND_THREADS, ATTEND_BLOCKS)
attend_selected(AttendArgs a, SelectArgs b, Spans s) { run_selected(a, b, s); }
#elif KERNEL == ATTEND_SELECTED_MASS
extern "C" __global__ void __launch_bounds__(ATTEND_THREADS, ATTEND_BLOCKS)
attend_selected_mass(AttendArgs a, SelectArgs b, Spans s) { run_selected(a, b, s); }
#endif
#endif
