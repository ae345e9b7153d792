/* y = x W^T + bias, with W in NF4 (arXiv:2305.14314, section 3 and appendix E).
 *
 * W lies in tiles of 32 outputs. For two neighbouring inputs k and k + 1 a tile
 * has 32 bytes: the high nibbles are the codes of its outputs at k, the low ones
 * those at k + 1. The outputs are permuted within the tile so that the lookup
 * below leaves them in order. The scales of a tile are [K / 64][32] float32.
 *
 * An output is summed over its blocks of 64 inputs: within a block one
 * multiply-add per input, in order, from zero; then one multiply-add with the
 * scale of the block. Few rows take the codes from registers, many from an
 * unpacked block in the first-level cache; the order is the same.
 */
#include "kernels.h"

#include <string.h>

#define TILE 32
#define BLOCK 64
#define MOST_DIRECT_ROWS 2
#define MOST_ROWS 6
#define PANEL_ROWS 48

/* The sixteen codes of NF4 as float32 bits, one byte of each per table, twice for both lanes. */
typedef struct {
    __m256i plane[4];
} Codes;

/* What is the same for all rows and tiles; see `switchyard_nf4_linear`. */
typedef struct {
    const uint8_t *weight;
    const float *scales;
    const float *bias;
    int64_t outputs;
    int64_t inputs;
    int threads;
    Codes codes;
} Problem;

static const float NF4[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
    -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
    0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f,
};

KERNEL static Codes load_codes(void) {
    uint8_t planes[4][16];
    Codes codes;
    for (int code = 0; code < 16; code++) {
        uint32_t bits;
        memcpy(&bits, &NF4[code], sizeof bits);
        for (int plane = 0; plane < 4; plane++) planes[plane][code] = (uint8_t)(bits >> (8 * plane));
    }
    for (int plane = 0; plane < 4; plane++)
        codes.plane[plane] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)planes[plane]));
    return codes;
}

/* 32 nibbles, one per byte, to 32 float32 in output order. */
INLINE_KERNEL void look_up(const Codes *codes, __m256i nibbles, __m256 out[4]) {
    __m256i b0 = _mm256_shuffle_epi8(codes->plane[0], nibbles);
    __m256i b1 = _mm256_shuffle_epi8(codes->plane[1], nibbles);
    __m256i b2 = _mm256_shuffle_epi8(codes->plane[2], nibbles);
    __m256i b3 = _mm256_shuffle_epi8(codes->plane[3], nibbles);
    __m256i low_a = _mm256_unpacklo_epi8(b0, b1), low_b = _mm256_unpackhi_epi8(b0, b1);
    __m256i high_a = _mm256_unpacklo_epi8(b2, b3), high_b = _mm256_unpackhi_epi8(b2, b3);
    out[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low_a, high_a));
    out[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low_a, high_a));
    out[2] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low_b, high_b));
    out[3] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low_b, high_b));
}

INLINE_KERNEL __m256i nibbles_of(__m256i bytes, int second) {
    __m256i mask = _mm256_set1_epi8(0x0f);
    return _mm256_and_si256(second ? bytes : _mm256_srli_epi16(bytes, 4), mask);
}

/* One or two rows times one tile; the codes never leave the registers. */
INLINE_KERNEL void direct_tile(const int rows, const Problem *p, const float *x, const uint8_t *tile,
                               const float *scales, float *out) {
    int64_t inputs = p->inputs;
    Codes codes = p->codes;
    __m256 total[MOST_DIRECT_ROWS][4];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 4; v++) total[r][v] = _mm256_setzero_ps();
    for (int64_t k = 0; k < inputs; k += BLOCK) {
        __m256 sum[MOST_DIRECT_ROWS][4];
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < 4; v++) sum[r][v] = _mm256_setzero_ps();
        for (int pair = 0; pair < BLOCK / 2; pair++) {
            __m256i bytes = _mm256_loadu_si256((const __m256i *)(tile + (k / 2 + pair) * TILE));
            for (int second = 0; second < 2; second++) {
                __m256 w[4];
                look_up(&codes, nibbles_of(bytes, second), w);
                for (int r = 0; r < rows; r++) {
                    __m256 input = _mm256_broadcast_ss(x + r * inputs + k + 2 * pair + second);
                    for (int v = 0; v < 4; v++) sum[r][v] = _mm256_fmadd_ps(w[v], input, sum[r][v]);
                }
            }
        }
        for (int v = 0; v < 4; v++) {
            __m256 scale = _mm256_loadu_ps(scales + k / BLOCK * TILE + 8 * v);
            for (int r = 0; r < rows; r++) total[r][v] = _mm256_fmadd_ps(sum[r][v], scale, total[r][v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 4; v++) _mm256_storeu_ps(out + r * TILE + 8 * v, total[r][v]);
}

KERNEL static void direct_rows(int64_t rows, const Problem *p, const float *x, const uint8_t *tile,
                               const float *scales, float *out) {
    if (rows == 1) direct_tile(1, p, x, tile, scales, out);
    else direct_tile(2, p, x, tile, scales, out);
}

/* One block of a tile, unpacked: [64][32] float32. */
KERNEL static void unpack_block(const Codes *codes, const uint8_t *bytes, float *unpacked) {
    for (int pair = 0; pair < BLOCK / 2; pair++) {
        __m256i both = _mm256_loadu_si256((const __m256i *)(bytes + pair * TILE));
        for (int second = 0; second < 2; second++) {
            __m256 w[4];
            look_up(codes, nibbles_of(both, second), w);
            for (int v = 0; v < 4; v++) _mm256_store_ps(unpacked + (2 * pair + second) * TILE + 8 * v, w[v]);
        }
    }
}

/* `rows` rows times `vectors` * 8 outputs of an unpacked block, added to the totals. */
INLINE_KERNEL void multiply_block(const int rows, const int vectors, const float *x, const float *unpacked,
                                  const float *scales, float *totals) {
    __m256 sum[MOST_ROWS][4];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = _mm256_setzero_ps();
    for (int k = 0; k < BLOCK; k++) {
        __m256 w[4];
        for (int v = 0; v < vectors; v++) w[v] = _mm256_load_ps(unpacked + k * TILE + 8 * v);
        for (int r = 0; r < rows; r++) {
            __m256 input = _mm256_broadcast_ss(x + r * BLOCK + k);
            for (int v = 0; v < vectors; v++) sum[r][v] = _mm256_fmadd_ps(w[v], input, sum[r][v]);
        }
    }
    for (int v = 0; v < vectors; v++) {
        __m256 scale = _mm256_loadu_ps(scales + 8 * v);
        for (int r = 0; r < rows; r++) {
            float *total = totals + r * TILE + 8 * v;
            _mm256_store_ps(total, _mm256_fmadd_ps(sum[r][v], scale, _mm256_load_ps(total)));
        }
    }
}

/* Three rows or fewer fill the pipeline with all 32 outputs, more with 16 at a time. */
KERNEL static void multiply_rows(int64_t rows, const float *x, const float *unpacked, const float *scales,
                                 float *totals) {
    if (rows <= 3) {
        if (rows == 1) multiply_block(1, 4, x, unpacked, scales, totals);
        else if (rows == 2) multiply_block(2, 4, x, unpacked, scales, totals);
        else multiply_block(3, 4, x, unpacked, scales, totals);
        return;
    }
    for (int half = 0; half < TILE; half += TILE / 2) {
        if (rows == 4) multiply_block(4, 2, x, unpacked + half, scales + half, totals + half);
        else if (rows == 5) multiply_block(5, 2, x, unpacked + half, scales + half, totals + half);
        else multiply_block(6, 2, x, unpacked + half, scales + half, totals + half);
    }
}

/* Copies rows to [K / 64][rows][64], so that a block of them is one run of memory. */
static void gather_panel(const float *x, int64_t inputs, int64_t rows, float *panel) {
    for (int64_t k = 0; k < inputs; k += BLOCK)
        for (int64_t r = 0; r < rows; r++)
            memcpy(panel + k * rows + r * BLOCK, x + r * inputs + k, BLOCK * sizeof(float));
}

KERNEL static void panel_tile(int64_t rows, const Problem *p, const float *panel, const uint8_t *tile,
                              const float *scales, float *unpacked, float *totals) {
    memset(totals, 0, (size_t)(rows * TILE) * sizeof(float));
    for (int64_t k = 0; k < p->inputs; k += BLOCK) {
        unpack_block(&p->codes, tile + k / 2 * TILE, unpacked);
        for (int64_t r = 0; r < rows;) {
            int64_t count = even_share(rows - r, MOST_ROWS);
            multiply_rows(count, panel + k * rows + r * BLOCK, unpacked, scales + k / BLOCK * TILE, totals + r * TILE);
            r += count;
        }
    }
}

/* Writes the totals of a tile, [rows][32], to their places; the last tile may be cut. */
KERNEL static void store_tile(const float *totals, int64_t rows, const float *bias, int64_t columns, float *y,
                              int64_t y_stride) {
    _Alignas(CACHE_LINE) float added[TILE] = {0};
    if (bias) memcpy(added, bias, (size_t)columns * sizeof(float));
    for (int64_t r = 0; r < rows; r++) {
        _Alignas(CACHE_LINE) float row[TILE];
        for (int n = 0; n < TILE; n += 8)
            _mm256_store_ps(row + n, _mm256_add_ps(_mm256_load_ps(totals + r * TILE + n), _mm256_load_ps(added + n)));
        memcpy(y + r * y_stride, row, (size_t)columns * sizeof(float));
    }
}

/* At most PANEL_ROWS rows against all tiles; `panel` is NULL where they are few enough to go directly. */
static void multiply_panel(const Problem *p, const float *x, const float *panel, float *y, int64_t rows) {
    int64_t tiles = (p->outputs + TILE - 1) / TILE;
#pragma omp parallel for schedule(static) num_threads(p->threads) if (p->threads > 1)
    for (int64_t t = 0; t < tiles; t++) {
        _Alignas(CACHE_LINE) float unpacked[BLOCK * TILE], totals[PANEL_ROWS * TILE];
        const uint8_t *tile = p->weight + t * p->inputs / 2 * TILE;
        const float *scales = p->scales + t * (p->inputs / BLOCK) * TILE;
        if (panel) panel_tile(rows, p, panel, tile, scales, unpacked, totals);
        else direct_rows(rows, p, x, tile, scales, totals);
        store_tile(totals, rows, p->bias ? p->bias + t * TILE : NULL, smaller(TILE, p->outputs - t * TILE),
                   y + t * TILE, p->outputs);
    }
}

/* y[rows][outputs] = x[rows][inputs] W^T + bias.
 *
 * inputs: a multiple of 64. weight, scales: see the top of this file; the last tile is padded.
 * bias: [outputs], or NULL. threads: at least 1. Returns 0, or -1 when there is no memory.
 */
EXPORT int switchyard_nf4_linear(const float *x, const uint8_t *weight, const float *scales, const float *bias,
                                 float *y, int64_t rows, int64_t outputs, int64_t inputs, int threads) {
    Problem problem = {weight, scales, bias, outputs, inputs, threads, load_codes()};
    float *panel = NULL;
    if (rows > MOST_DIRECT_ROWS) {
        panel = scratch(smaller(rows, PANEL_ROWS) * inputs * (int64_t)sizeof(float));
        if (!panel) return -1;
    }
    for (int64_t r = 0; r < rows;) {
        int64_t count = even_share(rows - r, PANEL_ROWS);
        if (panel) gather_panel(x + r * inputs, inputs, count, panel);
        multiply_panel(&problem, x + r * inputs, panel, y + r * outputs, count);
        r += count;
    }
    free(panel);
    return 0;
}
