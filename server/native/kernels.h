/* What the kernels share: how they are compiled, and their scratch memory.
 *
 * Every kernel sums each number of its result in one order, which depends on
 * the shapes of one row and on nothing else: not on how many rows there are,
 * on how they are blocked, or on the number of threads. Fused multiply-adds are
 * written out, and the library is compiled with -ffp-contract=off, so that the
 * compiler does not make others where it likes.
 */
#ifndef SWITCHYARD_KERNELS_H
#define SWITCHYARD_KERNELS_H

#if !defined(__x86_64__)
#error "these kernels are for x86-64; the torch path is used elsewhere"
#endif

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>

/* Per function, not for the whole library: code outside runs before the check of the processor. */
#define KERNEL __attribute__((target("avx2,fma,f16c")))
#define INLINE_KERNEL static inline __attribute__((always_inline, target("avx2,fma,f16c")))
#define EXPORT __attribute__((visibility("default")))

#define CACHE_LINE 64

/* Aligned scratch memory, or NULL. */
static inline void *scratch(int64_t bytes) {
    int64_t whole = (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    return aligned_alloc(CACHE_LINE, (size_t)(whole > 0 ? whole : CACHE_LINE));
}

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* How many rows the next block takes of `left`, at most `most`: even blocks, no thin last one. */
static inline int64_t even_share(int64_t left, int64_t most) {
    int64_t blocks = (left + most - 1) / most;
    return (left + blocks - 1) / blocks;
}

/* Sum of the eight lanes, in one fixed tree. */
INLINE_KERNEL float sum_lanes(__m256 v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

#endif
