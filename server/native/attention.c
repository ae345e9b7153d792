/* Attention over dense rows of keys and values: softmax(scale q K^T) V of each token over its sequence.
 *
 * Keys of a row and head lie in tiles of 8 positions, [context / 8][head_dim][8], so that scores of 8 positions
 * are the lanes of one vector and nothing is summed across lanes; values are [context][head_dim].
 *
 * A query's scores, its softmax and its output are each summed in an order that depends on its position alone:
 * a score over head_dim from zero, the softmax's sum in eight lanes over tiles, the output over positions. So one
 * token at a time, a chunk of a prompt, and a prompt after a cached prefix give the same bits. Lanes after the
 * query's position are computed and thrown away: what lies there, even NaN, reaches nothing.
 */
#include "kernels.h"

#include <math.h>
#include <string.h>

#define LANES 8
#define CHUNK 64
#define MOST_TOKENS 16
#define MOST_ROWS 4

void norm_heads(float *x, const float *weight, float eps, int64_t heads, int64_t width);

typedef struct {
    const float *queries;
    int64_t query_stride;
    const float *keys;
    const float *values;
    const int64_t *rows;
    const int64_t *positions;
    float *out;
    int64_t heads;
    int64_t kv_heads;
    int64_t head_dim;
    int64_t context;
    float scale;
} Problem;

/* Turns halves of a head: (a, b) to (a cos - b sin, b cos + a sin) (arXiv:2104.09864, section 3.4). */
INLINE_KERNEL void rotate_head(float *x, const float *cosines, const float *sines, int64_t half) {
    int64_t k = 0;
    for (; k + LANES <= half; k += LANES) {
        __m256 a = _mm256_loadu_ps(x + k), b = _mm256_loadu_ps(x + half + k);
        __m256 c = _mm256_loadu_ps(cosines + k), s = _mm256_loadu_ps(sines + k);
        _mm256_storeu_ps(x + k, _mm256_sub_ps(_mm256_mul_ps(a, c), _mm256_mul_ps(b, s)));
        _mm256_storeu_ps(x + half + k, _mm256_add_ps(_mm256_mul_ps(b, c), _mm256_mul_ps(a, s)));
    }
    for (; k < half; k++) {
        float a = x[k], b = x[half + k];
        x[k] = a * cosines[k] - b * sines[k];
        x[half + k] = b * cosines[k] + a * sines[k];
    }
}

/* Norms and rotates the queries and keys of a step in place, and puts keys and values into their rows.
 *
 * projected: [tokens][(heads + 2 kv_heads) * head_dim], queries, keys, values. query_norm, key_norm: [head_dim],
 * or NULL. cosines, sines: [tokens][head_dim / 2]. keys, values: see the top of this file, [rows][kv_heads] of
 * them. rows, positions: [tokens], the place of each token. Returns 0.
 */
EXPORT KERNEL int switchyard_place_heads(float *projected, const float *query_norm, const float *key_norm, float eps,
                                         const float *cosines, const float *sines, float *keys, float *values,
                                         const int64_t *rows, const int64_t *positions, int64_t tokens, int64_t heads,
                                         int64_t kv_heads, int64_t head_dim, int64_t context) {
    int64_t half = head_dim / 2;
    for (int64_t t = 0; t < tokens; t++) {
        float *query = projected + t * (heads + 2 * kv_heads) * head_dim;
        float *key = query + heads * head_dim, *value = key + kv_heads * head_dim;
        if (query_norm) norm_heads(query, query_norm, eps, heads, head_dim);
        if (key_norm) norm_heads(key, key_norm, eps, kv_heads, head_dim);
        for (int64_t h = 0; h < heads + kv_heads; h++)
            rotate_head(query + h * head_dim, cosines + t * half, sines + t * half, half);
        int64_t tile = positions[t] / LANES, lane = positions[t] % LANES;
        for (int64_t h = 0; h < kv_heads; h++) {
            int64_t row = (rows[t] * kv_heads + h) * context;
            float *to = keys + (row + tile * LANES) * head_dim + lane;
            for (int64_t d = 0; d < head_dim; d++) to[d * LANES] = key[h * head_dim + d];
            memcpy(values + (row + positions[t]) * head_dim, value + h * head_dim, (size_t)head_dim * sizeof(float));
        }
    }
    return 0;
}

/* Scores of `rows` queries at `tiles` tiles of keys. */
INLINE_KERNEL void score_tiles(const int rows, const int tiles, const float *queries, const float *keys,
                               int64_t head_dim, float *scores, int64_t stride) {
    __m256 sum[MOST_ROWS][8];
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tiles; t++) sum[r][t] = _mm256_setzero_ps();
    for (int64_t d = 0; d < head_dim; d++) {
        __m256 key[8];
        for (int t = 0; t < tiles; t++) key[t] = _mm256_loadu_ps(keys + (t * head_dim + d) * LANES);
        for (int r = 0; r < rows; r++) {
            __m256 query = _mm256_broadcast_ss(queries + r * head_dim + d);
            for (int t = 0; t < tiles; t++) sum[r][t] = _mm256_fmadd_ps(key[t], query, sum[r][t]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tiles; t++) _mm256_storeu_ps(scores + r * stride + t * LANES, sum[r][t]);
}

INLINE_KERNEL void score_rows(const int rows, const int at_once, const float *queries, const float *keys,
                              int64_t tiles, int64_t head_dim, float *scores, int64_t stride) {
    int64_t t = 0;
    for (; t + at_once <= tiles; t += at_once)
        score_tiles(rows, at_once, queries, keys + t * head_dim * LANES, head_dim, scores + t * LANES, stride);
    for (; t < tiles; t++)
        score_tiles(rows, 1, queries, keys + t * head_dim * LANES, head_dim, scores + t * LANES, stride);
}

/* Scores of a token's query heads, all with the same keys; as many tiles at once as fill the pipeline. */
KERNEL static void score(int64_t rows, const float *queries, const float *keys, int64_t tiles, int64_t head_dim,
                         float *scores, int64_t stride) {
    if (rows == 1) score_rows(1, 8, queries, keys, tiles, head_dim, scores, stride);
    else if (rows == 2) score_rows(2, 4, queries, keys, tiles, head_dim, scores, stride);
    else if (rows == 3) score_rows(3, 3, queries, keys, tiles, head_dim, scores, stride);
    else score_rows(4, 2, queries, keys, tiles, head_dim, scores, stride);
}

/* Makes `count` scores weights, in place, that are not yet divided by their sum; returns the sum. */
KERNEL static float exponentiate(float *scores, int64_t count) {
    const float nothing = -INFINITY;
    int64_t whole = (count + LANES - 1) / LANES * LANES;
    for (int64_t j = count; j < whole; j++) scores[j] = nothing;
    __m256 most = _mm256_set1_ps(nothing), sum = _mm256_setzero_ps();
    for (int64_t j = 0; j < whole; j += LANES) most = _mm256_max_ps(_mm256_loadu_ps(scores + j), most);
    float lanes[LANES], highest = nothing;
    _mm256_storeu_ps(lanes, most);
    for (int lane = 0; lane < LANES; lane++) highest = lanes[lane] > highest ? lanes[lane] : highest;
    __m256 base = _mm256_set1_ps(highest);
    for (int64_t j = 0; j < whole; j += LANES) {
        __m256 own = _mm256_loadu_ps(scores + j);
        __m256 absent = _mm256_cmp_ps(own, _mm256_set1_ps(nothing), _CMP_EQ_OQ);
        __m256 weight = _mm256_andnot_ps(absent, exp_lanes(_mm256_sub_ps(own, base)));
        _mm256_storeu_ps(scores + j, weight);
        sum = _mm256_add_ps(sum, weight);
    }
    return sum_lanes(sum);
}

/* Adds `count` weighted values to the sums of `rows` query heads, 8 * vectors numbers of each. */
INLINE_KERNEL void add_values(const int rows, const int vectors, const float *weights, int64_t stride,
                              const float *values, int64_t count, int64_t head_dim, float *sums) {
    __m256 sum[MOST_ROWS][8];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = _mm256_loadu_ps(sums + r * head_dim + v * LANES);
    for (int64_t j = 0; j < count; j++) {
        __m256 value[8];
        for (int v = 0; v < vectors; v++) value[v] = _mm256_loadu_ps(values + j * head_dim + v * LANES);
        for (int r = 0; r < rows; r++) {
            __m256 weight = _mm256_broadcast_ss(weights + r * stride + j);
            for (int v = 0; v < vectors; v++) sum[r][v] = _mm256_fmadd_ps(value[v], weight, sum[r][v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) _mm256_storeu_ps(sums + r * head_dim + v * LANES, sum[r][v]);
}

INLINE_KERNEL void mix_rows(const int rows, const int at_once, const float *weights, int64_t stride,
                            const float *values, int64_t count, int64_t head_dim, float *sums) {
    int64_t d = 0;
    for (; d + at_once * LANES <= head_dim; d += at_once * LANES)
        add_values(rows, at_once, weights, stride, values + d, count, head_dim, sums + d);
    for (; d < head_dim; d += LANES) add_values(rows, 1, weights, stride, values + d, count, head_dim, sums + d);
}

KERNEL static void mix(int64_t rows, const float *weights, int64_t stride, const float *values, int64_t count,
                       int64_t head_dim, float *sums) {
    if (rows == 1) mix_rows(1, 8, weights, stride, values, count, head_dim, sums);
    else if (rows == 2) mix_rows(2, 4, weights, stride, values, count, head_dim, sums);
    else if (rows == 3) mix_rows(3, 2, weights, stride, values, count, head_dim, sums);
    else mix_rows(4, 2, weights, stride, values, count, head_dim, sums);
}

/* Up to MOST_TOKENS tokens of one row and one key-value head; keys and values pass in chunks that stay in the cache.
 *
 * own: [tokens][group][head_dim] queries; scores: [tokens][group][stride]; sums: [tokens][group][head_dim];
 * totals: [tokens][group].
 */
KERNEL static void attend_block(const Problem *p, const int64_t *positions, int64_t tokens, int64_t group,
                                const float *keys, const float *values, const float *own, float *scores,
                                int64_t stride, float *sums, float *totals) {
    int64_t width = p->head_dim, last = positions[tokens - 1];
    for (int64_t j = 0; j <= last; j += CHUNK)
        for (int64_t t = 0; t < tokens; t++) {
            int64_t tiles = (smaller(CHUNK, positions[t] + 1 - j) + LANES - 1) / LANES;
            for (int64_t r = 0, count; tiles > 0 && r < group; r += count) {
                count = even_share(group - r, MOST_ROWS);
                score(count, own + (t * group + r) * width, keys + j * width, tiles, width,
                      scores + (t * group + r) * stride + j, stride);
            }
        }
    for (int64_t q = 0; q < tokens * group; q++) totals[q] = exponentiate(scores + q * stride, positions[q / group] + 1);
    memset(sums, 0, (size_t)(tokens * group * width) * sizeof(float));
    for (int64_t j = 0; j <= last; j += CHUNK)
        for (int64_t t = 0; t < tokens; t++) {
            int64_t present = smaller(CHUNK, positions[t] + 1 - j);
            for (int64_t r = 0, count; present > 0 && r < group; r += count) {
                count = even_share(group - r, MOST_ROWS);
                mix(count, scores + (t * group + r) * stride + j, stride, values + j * width, present, width,
                    sums + (t * group + r) * width);
            }
        }
    for (int64_t q = 0; q < tokens * group; q++)
        for (int64_t d = 0; d < width; d++) sums[q * width + d] /= totals[q];
}

/* Tokens from `first` on that are neighbours in one row, at most MOST_TOKENS. */
static int64_t neighbours(const Problem *p, int64_t first, int64_t tokens) {
    int64_t t = first + 1;
    while (t < tokens && t - first < MOST_TOKENS && p->rows[t] == p->rows[first] &&
           p->positions[t] == p->positions[t - 1] + 1)
        t++;
    return t - first;
}

/* One block of tokens and one key-value head; `memory` holds queries, sums, totals and scores. */
static void attend_head(const Problem *p, int64_t first, int64_t tokens, int64_t head, float *memory, int64_t stride) {
    int64_t group = p->heads / p->kv_heads, width = p->head_dim, queries = tokens * group;
    float *own = memory, *sums = own + queries * width, *totals = sums + queries * width, *scores = totals + queries;
    for (int64_t t = 0; t < tokens; t++) {
        const float *from = p->queries + (first + t) * p->query_stride + head * group * width;
        for (int64_t k = 0; k < group * width; k++) own[t * group * width + k] = from[k] * p->scale;
    }
    int64_t start = (p->rows[first] * p->kv_heads + head) * p->context * width;
    attend_block(p, p->positions + first, tokens, group, p->keys + start, p->values + start, own, scores, stride, sums,
                 totals);
    for (int64_t t = 0; t < tokens; t++)
        memcpy(p->out + ((first + t) * p->heads + head * group) * width, sums + t * group * width,
               (size_t)(group * width) * sizeof(float));
}

/* out[tokens][heads * head_dim] = attention of each token over positions 0 to its own in its row.
 *
 * queries: [tokens][query_stride], the heads first in each. keys, values: see the top of this file; `context`
 * is a multiple of 8. rows, positions: [tokens]. head_dim: a multiple of 8. threads: at least 1.
 * Returns 0, or -1 when there is no memory.
 */
EXPORT int switchyard_attend(const float *queries, int64_t query_stride, const float *keys, const float *values,
                             const int64_t *rows, const int64_t *positions, float *out, int64_t tokens, int64_t heads,
                             int64_t kv_heads, int64_t head_dim, int64_t context, float scale, int threads) {
    Problem p = {queries, query_stride, keys, values, rows, positions, out, heads, kv_heads, head_dim, context, scale};
    int64_t blocks = 0, longest = 0, failed = 0;
    int64_t *firsts = scratch((tokens + 1) * (int64_t)sizeof(int64_t));
    if (!firsts) return -1;
    for (int64_t t = 0; t < tokens; t += neighbours(&p, t, tokens)) firsts[blocks++] = t;
    firsts[blocks] = tokens;
    for (int64_t t = 0; t < tokens; t++) longest = positions[t] > longest ? positions[t] : longest;
    int64_t stride = (longest / CHUNK + 1) * CHUNK, most = smaller(tokens, MOST_TOKENS);
    int64_t floats = most * (heads / kv_heads) * (2 * head_dim + 1 + stride);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *memory = scratch(floats * (int64_t)sizeof(float));
        if (!memory) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < blocks * kv_heads; item++) {
            int64_t block = item / kv_heads, first = firsts[block];
            if (memory) attend_head(&p, first, firsts[block + 1] - first, item % kv_heads, memory, stride);
        }
        free(memory);
    }
    free(firsts);
    return failed ? -1 : 0;
}
