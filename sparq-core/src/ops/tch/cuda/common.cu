// Shared by all kernels. The host defines, per module:
//   SCALAR    0 = f32, 1 = f16, 2 = bf16: storage of the cache
//   HEAD_DIM  components per head
//   GROUP     query heads per KV head
//   WIDTH     queries per sequence, which GROUP counts each for a head
//   KERNEL    the one kernel of this module: compiling only what runs keeps the first step short
// No header is included, so nothing of a CUDA toolkit is needed to compile this at run time.

#define APPEND 0
#define SCORE_SUM 1
#define SCORE_STATS 2
#define SCORE_HEADS 3
#define SUM_SOFTMAX 4
#define ATTEND_DENSE 5
#define ATTEND_SELECTED 6
#define ATTEND_SELECTED_MASS 7
#define SPARQ_SHORT 8
#define SPARQ_SHORT_MASS 9

// All steps in one kernel.
#define IS_SHORT (KERNEL == SPARQ_SHORT || KERNEL == SPARQ_SHORT_MASS)

typedef unsigned int u32;
typedef unsigned short u16;
typedef long long i64;

#define FULL 0xffffffffu
#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f
#define NEG_INF __int_as_float(0xff800000)

#if SCALAR == 0
typedef float scalar;
#else
typedef u16 scalar;
#endif

// Elements in 16 bytes, the widest load.
constexpr int EV = 16 / sizeof(scalar);
// Lanes that read one row of K or V together, 16 bytes each, VPL times.
__host__ __device__ constexpr int pow2_up(int n) { int p = 1; while (p < n) p *= 2; return p; }
constexpr int ROW_VECS = (HEAD_DIM + EV - 1) / EV;
constexpr int LANES = pow2_up(ROW_VECS) < 32 ? pow2_up(ROW_VECS) : 32;
constexpr int VPL = (ROW_VECS + LANES - 1) / LANES;
constexpr int ROWS = 32 / LANES; // rows that a warp reads with one instruction
constexpr int PADDED_DIM = LANES * VPL * EV;
constexpr bool WIDE_ROWS = HEAD_DIM % EV == 0;

// Query heads that a block holds at a time: accumulators of more would not fit in registers.
__host__ __device__ constexpr int largest_divisor(int n, int most) { int d = n < most ? n : most; while (n % d) d--; return d; }
constexpr int HEADS = largest_divisor(GROUP, 8);
constexpr int TILES = GROUP / HEADS;

// Sequences of one launch: their spans and slots travel as a parameter, without a copy to the device. A
// sequence counts as a row of the batch in queries and results, and as its slot in the cache.
#define MAX_BATCH 128
struct Spans { int2 of[MAX_BATCH]; int slot[MAX_BATCH]; };
struct Places { int4 of[MAX_BATCH]; }; // rows to skip, rows to take, position of the first, slot

__device__ __forceinline__ float widen(scalar x) {
#if SCALAR == 0
    return x;
#elif SCALAR == 1
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
#else
    return __uint_as_float((u32)x << 16);
#endif
}

__device__ __forceinline__ scalar narrow(float x) {
#if SCALAR == 0
    return x;
#elif SCALAR == 1
    u16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
#else
    u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (u16)((bits >> 16) | 0x40u); // NaN stays NaN
    return (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);                 // nearest, ties to even
#endif
}

// As the cache stores it: what is infinite there becomes NaN. A softmax would give a key of minus
// infinity no weight, and nobody would see that it overflowed.
__device__ __forceinline__ scalar cached(float x) {
    scalar y = narrow(x);
#if SCALAR == 0
    return y + y * 0.f;
#elif SCALAR == 1
    return (y & 0x7fffu) == 0x7c00u ? (u16)(y | 0x0200u) : y;
#else
    return (y & 0x7fffu) == 0x7f80u ? (u16)(y | 0x0040u) : y;
#endif
}

__device__ __forceinline__ void unpack_word(u32 word, float* out) {
#if SCALAR == 1
    u16 low, high;
    asm("mov.b32 {%0, %1}, %2;" : "=h"(low), "=h"(high) : "r"(word));
    out[0] = widen(low);
    out[1] = widen(high);
#elif SCALAR == 2
    out[0] = __uint_as_float(word << 16);
    out[1] = __uint_as_float(word & 0xffff0000u);
#endif
}

__device__ __forceinline__ void unpack(const uint4& raw, float (&out)[EV]) {
#if SCALAR == 0
    out[0] = __uint_as_float(raw.x);
    out[1] = __uint_as_float(raw.y);
    out[2] = __uint_as_float(raw.z);
    out[3] = __uint_as_float(raw.w);
#else
    unpack_word(raw.x, out);
    unpack_word(raw.y, out + 2);
    unpack_word(raw.z, out + 4);
    unpack_word(raw.w, out + 6);
#endif
}

// 16 bytes that nobody writes during the kernel and nobody reads again soon.
__device__ __forceinline__ uint4 load_once(const scalar* from) {
    uint4 raw;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
        : "l"(from));
    return raw;
}

// Elements `first..first + EV` of memory that is not aligned or ends before that; 0 past `count`.
__device__ __forceinline__ uint4 load_singly(const scalar* from, int first, int count) {
    scalar x[EV];
#pragma unroll
    for (int e = 0; e < EV; e++) x[e] = first + e < count ? from[first + e] : (scalar)0;
    uint4 raw;
#if SCALAR == 0
    raw = make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]), __float_as_uint(x[3]));
#else
    raw.x = x[0] | (u32)x[1] << 16;
    raw.y = x[2] | (u32)x[3] << 16;
    raw.z = x[4] | (u32)x[5] << 16;
    raw.w = x[6] | (u32)x[7] << 16;
#endif
    return raw;
}

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float soft_cap(float x, float cap) {
    return cap > 0.f ? cap * tanhf(x / cap) : x;
}

// Waits for the results of the kernel before, and lets the next kernel of the stream start its blocks:
// in this order, so that the next one can read what the one before this wrote without waiting. Both do
// nothing where the launch did not ask for the overlap.
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
