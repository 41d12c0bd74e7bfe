// New tokens into the cache: rows of K and V, columns of the transposed keys, the sum of values.
//
// Grid (tiles of tokens, KV heads, sequences). Tile 0 also adds up the values of all new tokens, in
// the order of the tokens and as the cache stores them: the sum is the same in every run, and however the
// tokens came.

constexpr int APPEND_THREADS = 256;
constexpr int TOKENS = 32; // per tile: columns leave in runs of that many

struct AppendArgs {
    const float* k_rows;  // [batch, kv_heads, width, HEAD_DIM], or null
    const float* v_rows;  // the same, or null
    scalar* k;            // [slots, kv_heads, capacity, HEAD_DIM], or null
    scalar* v;            // the same, or null
    scalar* k_t;          // [slots, kv_heads, HEAD_DIM, capacity], or null
    float* v_sum;         // [slots, kv_heads, HEAD_DIM], or null
    int width;
    int capacity;
};

#if KERNEL == APPEND
extern "C" __global__ void __launch_bounds__(APPEND_THREADS) append(AppendArgs a, Places places) {
    wait_for_previous();
    int4 place = places.of[blockIdx.z];
    int skip = place.x, take = place.y, at = place.z;
    int group = blockIdx.z * gridDim.y + blockIdx.y;
    int cache_group = place.w * gridDim.y + blockIdx.y;
    int first = blockIdx.x * TOKENS, count = min(TOKENS, take - first);
    size_t from = ((size_t)group * a.width + skip + first) * HEAD_DIM;
    size_t to = ((size_t)cache_group * a.capacity + at + first) * HEAD_DIM;
    for (int i = threadIdx.x; i < count * HEAD_DIM; i += APPEND_THREADS) {
        if (a.k) a.k[to + i] = cached(a.k_rows[from + i]);
        if (a.v) a.v[to + i] = cached(a.v_rows[from + i]);
    }
    if (a.k_t && count > 0) {
        scalar* columns = a.k_t + (size_t)cache_group * HEAD_DIM * a.capacity + at + first;
        if (count == 1) {
            for (int c = threadIdx.x; c < HEAD_DIM; c += APPEND_THREADS)
                columns[(size_t)c * a.capacity] = cached(a.k_rows[from + c]);
        } else {
            int t = threadIdx.x % TOKENS;
            for (int c = threadIdx.x / TOKENS; c < HEAD_DIM; c += APPEND_THREADS / TOKENS)
                if (t < count) columns[(size_t)c * a.capacity + t] = cached(a.k_rows[from + t * HEAD_DIM + c]);
        }
    }
    if (a.v_sum && blockIdx.x == 0 && take > 0) {
        const float* rows = a.v_rows + ((size_t)group * a.width + skip) * HEAD_DIM;
        float* sums = a.v_sum + (size_t)cache_group * HEAD_DIM;
        for (int c = threadIdx.x; c < HEAD_DIM; c += APPEND_THREADS) {
            float sum = sums[c];
#pragma unroll 8
            for (int t = 0; t < take; t++) sum += widen(cached(rows[(size_t)t * HEAD_DIM + c]));
            sums[c] = sum;
        }
    }
}
#endif
