// The few positions among which the best lie, and their order: what a selection comes to where scores
// are spread, in place of a radix selection's passes.

constexpr int CANDIDATES = 512; // on a list
constexpr int TOPS = 256;       // largest keys of some threads each, and threads of those
constexpr int SHARED_BY = ATTEND_THREADS / TOPS;
// Of how many keys the floor can be found: fewer than there are largest ones.
constexpr int MOST_LISTED = TOPS * 3 / 4;

struct __align__(16) Shortlist {
    union {
        u32 top[TOPS];
        int best[TOPS]; // positions, in the order of their ranks
    };
    unsigned long long candidate[CANDIDATES + 2]; // key, and below it the position, the lower the larger
    u32 floor;
    int buckets, candidates;
};

// A key that at least `want` keys reach, and few more where the large ones are spread over threads: the
// largest that `want` of the threads' largest keys reach. 0 where there are fewer candidates than that.
// `keys(i)` gives four, for i in 0..n; a 0 is no candidate.
template <class Keys>
__device__ __forceinline__ u32 find_floor(Keys keys, int n, int want, Shortlist& s) {
    u32 mine = 0;
#pragma unroll 8
    for (int i = threadIdx.x; i < n; i += ATTEND_THREADS) {
        uint4 x = keys(i);
        mine = max(mine, max(max(x.x, x.y), max(x.z, x.w)));
    }
#pragma unroll
    for (int o = 1; o < SHARED_BY; o *= 2) mine = max(mine, __shfl_xor_sync(FULL, mine, o));
    if (threadIdx.x % SHARED_BY == 0) s.top[threadIdx.x / SHARED_BY] = mine;
    if (threadIdx.x == 0) s.floor = s.buckets = s.candidates = 0;
    __syncthreads();
    int reached = 0;
#pragma unroll 8
    for (int t = threadIdx.x % SHARED_BY; t < TOPS / 4; t += SHARED_BY) {
        uint4 x = ((const uint4*)s.top)[t];
        reached += (x.x >= mine) + (x.y >= mine) + (x.z >= mine) + (x.w >= mine);
    }
#pragma unroll
    for (int o = 1; o < SHARED_BY; o *= 2) reached += __shfl_xor_sync(FULL, reached, o);
    u32 floor = reached >= want ? mine : 0;
#pragma unroll
    for (int o = 16; o > 0; o /= 2) floor = max(floor, __shfl_xor_sync(FULL, floor, o));
    if (threadIdx.x % 32 == 0) atomicMax(&s.floor, floor);
    __syncthreads();
    return s.floor;
}

// Calls `out(4 · i + j, key)`, in no order, for each key that reaches `floor`.
template <class Keys, class Out>
__device__ __forceinline__ void each_reaching(Keys keys, int n, u32 floor, Out out) {
#pragma unroll 8
    for (int i = threadIdx.x; i < n; i += ATTEND_THREADS) {
        uint4 x = keys(i);
        if (x.x >= floor) out(4 * i, x.x);
        if (x.y >= floor) out(4 * i + 1, x.y);
        if (x.z >= floor) out(4 * i + 2, x.z);
        if (x.w >= floor) out(4 * i + 3, x.w);
    }
    __syncthreads();
}

// The `want` best of the keys, in the order of their positions, as `out(rank, position)`. At least `want`
// of them reach the floor. False, and nothing, where they are too many for a list.
template <class Keys, class Position, class Out>
__device__ __forceinline__ bool rank_reaching(
    Keys keys, int n, u32 floor, Position position, int want, Shortlist& s, Out out) {
    each_reaching(keys, n, floor, [&](int i, u32 key) {
        int at = atomicAdd(&s.candidates, 1);
        if (at < CANDIDATES) s.candidate[at] = (unsigned long long)key << 32 | (0xffffffffu - position(i));
    });
    int listed = s.candidates;
    if (listed > CANDIDATES) return false;
    // Both lists are read past their ends, for whole loads.
    if (threadIdx.x == 0) s.candidate[listed] = 0;
    if (threadIdx.x < 4) s.best[want + threadIdx.x] = 0x7fffffff;
    __syncthreads();
    for (int i = threadIdx.x; i < listed; i += ATTEND_THREADS) {
        unsigned long long mine = s.candidate[i];
        int better = 0;
#pragma unroll 8
        for (int t = 0; t < listed; t += 2) {
            ulonglong2 x = *(const ulonglong2*)&s.candidate[t];
            better += (x.x > mine) + (x.y > mine);
        }
        if (better < want) s.best[better] = 0xffffffffu - (u32)mine;
    }
    __syncthreads();
    if (threadIdx.x < want) {
        int mine = s.best[threadIdx.x], lower = 0;
#pragma unroll 8
        for (int t = 0; t < want; t += 4) {
            int4 x = *(const int4*)&s.best[t];
            lower += (x.x < mine) + (x.y < mine) + (x.z < mine) + (x.w < mine);
        }
        out(lower, mine);
    }
    __syncthreads();
    return true;
}
