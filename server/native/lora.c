/* Adding the adapters' deltas to the output of one fused group, in place.

   y[t] = output_gain * (y[t] + sum over parts of scale * B (A x[t])) + offset

   for every row t that has an adapter. Rows come sorted by slot, each adapter is
   read once per block of rows, at its true rank, in the type of its file; sums
   are float32. Every number is summed in one order, whatever the number of rows:

     A x   eight partial sums over k in steps of 16, then a fixed tree;
     B h   one sum over the rank, ascending;

   so tiles of other shapes give the same bits. bfloat16 is widened by a shift
   (even elements) and a mask (odd ones), which deals 16 neighbours out to two
   registers; rows of x are dealt the same way first, sums of y are dealt back. */

#include "kernels.h"

#include <string.h>

#define STEP 16 /* elements that one load widens */
#define BLOCK_ROWS 16 /* rows of x that are prepared at a time */
#define AHEAD 4 /* a single row reads B so many tiles ahead, and A one tile: faster than memory brings them */
#define PANEL_ROWS 5 /* from so many rows on, a column block of B is widened once for all */

/* Sums live in registers only where these loops vanish early. */
#define UNROLLED _Pragma("GCC unroll 8")

enum element { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };

struct part {
    const char *b_t; /* [rank_stop - rank_start, out_stop - out_start] */
    float scale;
    int32_t element;
    int32_t rank_start, rank_stop, out_start, out_stop;
};

struct group {
    const char *a; /* [rank, in_features], or null */
    const float *output_gain, *offset; /* [out_features], or null */
    const struct part *parts;
    int32_t element, rank, part_count, out_features;
};

INLINE_KERNEL int64_t bytes_of(enum element type) { return type == FLOAT32 ? 4 : 2; }

/* 16 neighbours as float32: in order, or even and odd ones apart for bfloat16. */
INLINE_KERNEL void load16(enum element type, const char *p, __m256 *low, __m256 *high) {
    if (type == BFLOAT16) {
        __m256i both = _mm256_loadu_si256((const __m256i *)p);
        *low = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
        *high = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32((int)0xFFFF0000)));
    } else if (type == FLOAT16) {
        *low = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
        *high = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 16)));
    } else {
        *low = _mm256_loadu_ps((const float *)p);
        *high = _mm256_loadu_ps((const float *)(p + 32));
    }
}

/* Asks for memory that is read soon; addresses past the end do no harm. */
INLINE_KERNEL void prefetch(const char *from, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += CACHE_LINE) _mm_prefetch(from + at, _MM_HINT_T0);
}

/* In order to dealt, and back. */
INLINE_KERNEL void deal(__m256 *low, __m256 *high) {
    __m256 even = _mm256_shuffle_ps(*low, *high, 0x88), odd = _mm256_shuffle_ps(*low, *high, 0xDD);
    *low = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(even), 0xD8));
    *high = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(odd), 0xD8));
}

INLINE_KERNEL void undeal(__m256 *low, __m256 *high) {
    __m256 p = _mm256_unpacklo_ps(*low, *high), q = _mm256_unpackhi_ps(*low, *high);
    *low = _mm256_permute2f128_ps(p, q, 0x20);
    *high = _mm256_permute2f128_ps(p, q, 0x31);
}

/* One row of x, padded with zeros to whole steps, dealt for bfloat16. */
INLINE_KERNEL void prepare_row(enum element type, const float *x, int64_t width, float *out) {
    int64_t k = 0;
    for (; k < width; k += STEP) {
        __m256 low, high;
        if (k + STEP <= width) {
            load16(FLOAT32, (const char *)(x + k), &low, &high);
        } else {
            float last[STEP] = {0};
            memcpy(last, x + k, (size_t)(width - k) * sizeof *x);
            load16(FLOAT32, (const char *)last, &low, &high);
        }
        if (type == BFLOAT16) deal(&low, &high);
        _mm256_storeu_ps(out + k, low);
        _mm256_storeu_ps(out + k + 8, high);
    }
}

/* The sums of eight registers; each adds neighbours, then pairs, then halves. */
INLINE_KERNEL __m256 sums8(const __m256 v[8]) {
    __m256 left = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    __m256 right = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(left, right, 0x20), _mm256_permute2f128_ps(left, right, 0x31));
}

/* rows * ranks = 8 elements of A x. Ranks past the last repeat it and are not stored. */
INLINE_KERNEL void shrink_tile(enum element type, int rows, int ranks, const char *a, int32_t first, int32_t rank,
                        int64_t width, const float *x, int64_t x_stride, float *shrunk) {
    int64_t size = bytes_of(type), whole = width / STEP * STEP;
    const char *own[8];
    __m256 sum[8], low, high;
    UNROLLED for (int j = 0; j < ranks; j++) own[j] = a + (first + j < rank ? first + j : rank - 1) * width * size;
    UNROLLED for (int i = 0; i < 8; i++) sum[i] = _mm256_setzero_ps();
    for (int64_t k = 0; k < whole; k += STEP) {
        if (rows == 1) prefetch(own[0] + ranks * (width + k) * size, ranks * STEP * size);
        UNROLLED for (int j = 0; j < ranks; j++) {
            load16(type, own[j] + k * size, &low, &high);
            UNROLLED for (int t = 0; t < rows; t++) {
                const float *at = x + t * x_stride + k;
                sum[t * ranks + j] = _mm256_fmadd_ps(low, _mm256_loadu_ps(at), sum[t * ranks + j]);
                sum[t * ranks + j] = _mm256_fmadd_ps(high, _mm256_loadu_ps(at + 8), sum[t * ranks + j]);
            }
        }
    }
    if (whole < width) {
        UNROLLED for (int j = 0; j < ranks; j++) {
            char last[STEP * sizeof(float)] = {0};
            memcpy(last, own[j] + whole * size, (size_t)((width - whole) * size));
            load16(type, last, &low, &high);
            UNROLLED for (int t = 0; t < rows; t++) {
                const float *at = x + t * x_stride + whole;
                sum[t * ranks + j] = _mm256_fmadd_ps(low, _mm256_loadu_ps(at), sum[t * ranks + j]);
                sum[t * ranks + j] = _mm256_fmadd_ps(high, _mm256_loadu_ps(at + 8), sum[t * ranks + j]);
            }
        }
    }
    float result[8];
    _mm256_storeu_ps(result, sums8(sum));
    for (int t = 0; t < rows; t++)
        for (int j = 0; j < ranks && first + j < rank; j++) shrunk[(int64_t)t * rank + first + j] = result[t * ranks + j];
}

/* shrunk[t] = A x[t] for `rows` prepared rows. */
INLINE_KERNEL void shrink_as(enum element type, const struct group *group, int64_t width, const float *x, int64_t x_stride,
                      int rows, float *shrunk) {
    const char *a = group->a;
    int32_t rank = group->rank;
    int t = 0;
    for (; t + 4 <= rows; t += 4)
        for (int32_t j = 0; j < rank; j += 2)
            shrink_tile(type, 4, 2, a, j, rank, width, x + t * x_stride, x_stride, shrunk + (int64_t)t * rank);
    for (; t + 2 <= rows; t += 2)
        for (int32_t j = 0; j < rank; j += 4)
            shrink_tile(type, 2, 4, a, j, rank, width, x + t * x_stride, x_stride, shrunk + (int64_t)t * rank);
    for (; t < rows; t++)
        for (int32_t j = 0; j < rank; j += 8)
            shrink_tile(type, 1, 8, a, j, rank, width, x + t * x_stride, x_stride, shrunk + (int64_t)t * rank);
}

/* y[t][0..count) += B h[t] for 1, 2 or 4 rows and 64, 32 or 16 columns; `count` below that only with 16. */
INLINE_KERNEL void expand_tile(enum element type, int dealt, int rows, int blocks, const char *b, int64_t b_stride,
                        int32_t rank, const float *shrunk, int64_t shrunk_stride, float *const *y, int64_t count) {
    __m256 sum[8];
    UNROLLED for (int i = 0; i < 8; i++) sum[i] = _mm256_setzero_ps();
    for (int32_t j = 0; j < rank; j++) {
        if (rows == 1 && blocks == 4)
            prefetch(b + j * b_stride + AHEAD * blocks * STEP * bytes_of(type), blocks * STEP * bytes_of(type));
        UNROLLED for (int c = 0; c < blocks; c++) {
            __m256 low, high;
            load16(type, b + j * b_stride + c * STEP * bytes_of(type), &low, &high);
            UNROLLED for (int t = 0; t < rows; t++) {
                __m256 factor = _mm256_broadcast_ss(shrunk + t * shrunk_stride + j);
                int at = 2 * (t * blocks + c);
                sum[at] = _mm256_fmadd_ps(low, factor, sum[at]);
                sum[at + 1] = _mm256_fmadd_ps(high, factor, sum[at + 1]);
            }
        }
    }
    UNROLLED for (int t = 0; t < rows; t++) {
        UNROLLED for (int c = 0; c < blocks; c++) {
            __m256 low = sum[2 * (t * blocks + c)], high = sum[2 * (t * blocks + c) + 1];
            float *to = y[t] + c * STEP;
            if (dealt) undeal(&low, &high);
            if (count >= (int64_t)blocks * STEP) {
                _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), low));
                _mm256_storeu_ps(to + 8, _mm256_add_ps(_mm256_loadu_ps(to + 8), high));
            } else {
                float delta[STEP];
                _mm256_storeu_ps(delta, low);
                _mm256_storeu_ps(delta + 8, high);
                for (int64_t i = 0; i < count; i++) to[i] += delta[i];
            }
        }
    }
}

/* All rows for one block of 16 columns, whose B lies in `b`. */
INLINE_KERNEL void expand_columns(enum element type, int dealt, const char *b, int64_t b_stride, int32_t rank, int rows,
                           const float *shrunk, int64_t shrunk_stride, float *const *y, int64_t column,
                           int64_t count) {
    float *at[4];
    int t = 0;
    for (; t + 4 <= rows; t += 4) {
        for (int i = 0; i < 4; i++) at[i] = y[t + i] + column;
        expand_tile(type, dealt, 4, 1, b, b_stride, rank, shrunk + t * shrunk_stride, shrunk_stride, at, count);
    }
    for (; t < rows; t++) {
        at[0] = y[t] + column;
        expand_tile(type, dealt, 1, 1, b, b_stride, rank, shrunk + t * shrunk_stride, shrunk_stride, at, count);
    }
}

/* One projection: y[t][out_start..out_stop) += scale * B h[t]; `panel` takes rank * 16 numbers. */
INLINE_KERNEL void expand_as(enum element type, const struct part *part, int rows, const float *shrunk,
                      int64_t shrunk_stride, float *const *y, float *panel) {
    int32_t rank = part->rank_stop - part->rank_start;
    int64_t size = bytes_of(type), width = part->out_stop - part->out_start, stride = width * size, n = 0;
    int dealt = type == BFLOAT16;
    if (rows == 1) {
        for (; n + 64 <= width; n += 64) {
            float *at[1] = {y[0] + part->out_start + n};
            expand_tile(type, dealt, 1, 4, part->b_t + n * size, stride, rank, shrunk, shrunk_stride, at, 64);
        }
    } else if (rows == 2) {
        for (; n + 32 <= width; n += 32) {
            float *at[2] = {y[0] + part->out_start + n, y[1] + part->out_start + n};
            expand_tile(type, dealt, 2, 2, part->b_t + n * size, stride, rank, shrunk, shrunk_stride, at, 32);
        }
    }
    for (; n < width; n += STEP) {
        int64_t count = width - n < STEP ? width - n : STEP;
        if (rows < PANEL_ROWS && count == STEP) {
            expand_columns(type, dealt, part->b_t + n * size, stride, rank, rows, shrunk, shrunk_stride, y,
                           part->out_start + n, count);
            continue;
        }
        for (int32_t j = 0; j < rank; j++) {
            const char *from = part->b_t + j * stride + n * size;
            char last[STEP * sizeof(float)] = {0};
            __m256 low, high;
            if (count < STEP) from = memcpy(last, from, (size_t)(count * size));
            load16(type, from, &low, &high);
            _mm256_storeu_ps(panel + j * STEP, low);
            _mm256_storeu_ps(panel + j * STEP + 8, high);
        }
        expand_columns(FLOAT32, dealt, (const char *)panel, STEP * sizeof(float), rank, rows, shrunk, shrunk_stride,
                       y, part->out_start + n, count);
    }
}

KERNEL static void shrink(const struct group *group, int64_t width, const float *x, int64_t x_stride, int rows,
                   float *shrunk) {
    if (group->element == BFLOAT16) shrink_as(BFLOAT16, group, width, x, x_stride, rows, shrunk);
    else if (group->element == FLOAT16) shrink_as(FLOAT16, group, width, x, x_stride, rows, shrunk);
    else shrink_as(FLOAT32, group, width, x, x_stride, rows, shrunk);
}

KERNEL static void expand(const struct part *part, int rows, float *shrunk, int64_t stride, float *const *y, float *panel) {
    shrunk += part->rank_start;
    for (int t = 0; t < rows; t++)
        for (int32_t j = 0; j < part->rank_stop - part->rank_start; j++) shrunk[t * stride + j] *= part->scale;
    if (part->element == BFLOAT16) expand_as(BFLOAT16, part, rows, shrunk, stride, y, panel);
    else if (part->element == FLOAT16) expand_as(FLOAT16, part, rows, shrunk, stride, y, panel);
    else expand_as(FLOAT32, part, rows, shrunk, stride, y, panel);
}

KERNEL static void gain_and_offset(const struct group *group, float *y) {
    for (int32_t n = 0; group->output_gain && n < group->out_features; n++) y[n] *= group->output_gain[n];
    for (int32_t n = 0; group->offset && n < group->out_features; n++) y[n] += group->offset[n];
}

/* Room for one block of rows, kept from call to call: fresh pages would cost more than the arithmetic. */
static float *block_memory(int64_t floats) {
    static __thread float *memory;
    static __thread int64_t held;
    if (floats > held) {
        free(memory);
        memory = scratch(floats * (int64_t)sizeof *memory);
        held = memory ? floats : 0;
    }
    return memory;
}

/* Up to BLOCK_ROWS rows of one slot. */
KERNEL static int add_block(const struct group *group, const int32_t *rows, int count, const float *x, int64_t x_stride,
                     int64_t width, float *y, int64_t y_stride) {
    int64_t padded = (width + STEP - 1) / STEP * STEP;
    float *own_y[BLOCK_ROWS];
    for (int t = 0; t < count; t++) own_y[t] = y + rows[t] * y_stride;
    if (group->a) {
        float *prepared = block_memory(BLOCK_ROWS * (padded + group->rank) + (int64_t)STEP * group->rank);
        if (!prepared) return -1;
        float *shrunk = prepared + BLOCK_ROWS * padded, *panel = shrunk + (int64_t)BLOCK_ROWS * group->rank;
        for (int t = 0; t < count; t++) {
            const float *from = x + rows[t] * x_stride;
            if (group->element == BFLOAT16) prepare_row(BFLOAT16, from, width, prepared + t * padded);
            else prepare_row(FLOAT32, from, width, prepared + t * padded);
        }
        shrink(group, width, prepared, padded, count, shrunk);
        for (int32_t p = 0; p < group->part_count; p++)
            expand(group->parts + p, count, shrunk, group->rank, own_y, panel);
    }
    for (int t = 0; t < count; t++) gain_and_offset(group, own_y[t]);
    return 0;
}

/* index: rows by piece, then pieces + 1 offsets into them, then the slot of each piece. Returns 0, or -1 when there is
   no memory. */
EXPORT int switchyard_add_lora(float *y, int64_t y_stride, const float *x, int64_t x_stride, int64_t width,
                               const int32_t *index, int64_t row_count, int64_t pieces,
                               const struct group *const *table, int64_t slot_count, int threads) {
    const int32_t *offsets = index + row_count, *slots = offsets + pieces + 1;
    int failed = 0;
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(| : failed) if (threads > 1 && pieces > 1)
    for (int64_t p = 0; p < pieces; p++) {
        const struct group *group = slots[p] < slot_count ? table[slots[p]] : NULL;
        for (int64_t first = offsets[p]; group && first < offsets[p + 1]; first += BLOCK_ROWS) {
            int count = (int)smaller(offsets[p + 1] - first, BLOCK_ROWS);
            failed |= add_block(group, index + first, count, x, x_stride, width, y, y_stride);
        }
    }
    return failed;
}

/* to[j][i] = from[i][j] for elements of 2 or 4 bytes; strips of rows, so that both sides stay in the cache. */
INLINE_KERNEL void transpose_as(int64_t size, const char *from, int64_t rows, int64_t columns, char *to) {
    for (int64_t first = 0; first < rows; first += 32) {
        int64_t stop = first + smaller(rows - first, 32);
        for (int64_t j = 0; j < columns; j++)
            for (int64_t i = first; i < stop; i++)
                memcpy(to + (j * rows + i) * size, from + (i * columns + j) * size, (size_t)size);
    }
}

/* Returns 0. */
KERNEL static int transpose(const char *from, int64_t rows, int64_t columns, int64_t size, char *to) {
    if (size == 2) transpose_as(2, from, rows, columns, to);
    else transpose_as(4, from, rows, columns, to);
    return 0;
}

EXPORT int switchyard_copy(const void *from, int64_t bytes, void *to) {
    memcpy(to, from, (size_t)bytes);
    return 0;
}

EXPORT int switchyard_transpose(const char *from, int64_t rows, int64_t columns, int64_t size, char *to) {
    return transpose(from, rows, columns, size, to);
}
