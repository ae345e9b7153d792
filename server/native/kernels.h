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

/* e^x of eight numbers: 2^n times a polynomial of degree 6 in the rest (Cephes, expf.c), within 2 units in the
 * last place for x in [-87.3, 88] and held at the ends outside; NaN stays NaN. */
INLINE_KERNEL __m256 exp_lanes(__m256 x) {
    x = _mm256_max_ps(_mm256_set1_ps(-87.3f), _mm256_min_ps(_mm256_set1_ps(88.0f), x));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));
    __m256i power = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(power, 23)));
}

/* An adapter as it lies in memory; see lora.c. */
struct group;

EXPORT int switchyard_add_and_norm(float *x, const float *added, const float *weight, float eps, float *y,
                                   int64_t rows, int64_t width);
EXPORT int switchyard_add_lora(float *y, int64_t y_stride, const float *x, int64_t x_stride, int64_t width,
                               const int32_t *index, int64_t row_count, int64_t pieces,
                               const struct group *const *table, int64_t slot_count, int threads);
EXPORT int switchyard_attend(const float *queries, int64_t query_stride, const float *keys, const float *values,
                             const int64_t *rows, const int64_t *positions, float *out, int64_t tokens, int64_t heads,
                             int64_t kv_heads, int64_t head_dim, int64_t context, float scale, int threads);
EXPORT int switchyard_copy(const void *from, int64_t bytes, void *to);
EXPORT int switchyard_dense_linear(const float *x, const void *weight, const float *bias, float *y, int64_t rows,
                                   int64_t outputs, int64_t inputs, int type, int threads);
EXPORT int switchyard_gated_silu(const float *gate_up, float *y, int64_t rows, int64_t width, int threads);
EXPORT int switchyard_nf4_linear(const float *x, const uint8_t *weight, const float *scales, const float *bias,
                                 float *y, int64_t rows, int64_t outputs, int64_t inputs, int threads);
EXPORT int switchyard_place_heads(float *projected, const float *query_norm, const float *key_norm, float eps,
                                  const float *cosines, const float *sines, float *keys, float *values,
                                  const int64_t *rows, const int64_t *positions, int64_t tokens, int64_t heads,
                                  int64_t kv_heads, int64_t head_dim, int64_t context);
EXPORT int switchyard_transpose(const char *from, int64_t rows, int64_t columns, int64_t size, char *to);

#endif
