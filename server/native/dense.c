/* y = x W^T + bias, with W in rows of float32, bfloat16 or float16, which is widened on its way to the registers.
 *
 * An output is summed in eight lanes over runs of 16 inputs, then over the lanes
 * in one tree. bfloat16 is widened by a shift and by a mask, which takes the even
 * inputs of a run first and then the odd ones; the rows of x are copied in that order.
 */
#include "kernels.h"

#include <string.h>

#define RUN 16
#define PANEL_ROWS 64
#define MOST_ROWS 4

enum { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };

typedef struct {
    const char *weight;
    const float *bias;
    int64_t outputs;
    int64_t inputs;
    int64_t whole; /* inputs, rounded up to whole runs */
    int type;
    int threads;
} Problem;

INLINE_KERNEL int64_t bytes_of(const int type) { return type == FLOAT32 ? 4 : 2; }

/* Eight of a run of 16 weights: the first or second half in the order of the panel. */
INLINE_KERNEL __m256 widen(const int type, const char *run, int half) {
    if (type == FLOAT32) return _mm256_loadu_ps((const float *)run + 8 * half);
    if (type == FLOAT16) return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)run + half));
    __m256i pairs = _mm256_loadu_si256((const __m256i *)run);
    if (half) return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000u)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
}

/* One run of 16 inputs, of `rows` rows and `outputs` weight rows that are `step` bytes apart. */
INLINE_KERNEL void add_run(const int type, const int rows, const int outputs, const float *x, int64_t x_stride,
                           const char *weight, int64_t step, __m256 sum[MOST_ROWS][8]) {
    for (int half = 0; half < 2; half++) {
        __m256 w[8];
        for (int n = 0; n < outputs; n++) w[n] = widen(type, weight + n * step, half);
        for (int r = 0; r < rows; r++) {
            __m256 input = _mm256_loadu_ps(x + r * x_stride + 8 * half);
            for (int n = 0; n < outputs; n++) sum[r][n] = _mm256_fmadd_ps(w[n], input, sum[r][n]);
        }
    }
}

INLINE_KERNEL void multiply(const int type, const int rows, const int outputs, const Problem *p, const float *panel,
                            int64_t first, float *y) {
    const int64_t step = p->inputs * bytes_of(type);
    const char *weight = p->weight + first * step;
    int64_t full = p->inputs / RUN * RUN;
    __m256 sum[MOST_ROWS][8];
    for (int r = 0; r < rows; r++)
        for (int n = 0; n < outputs; n++) sum[r][n] = _mm256_setzero_ps();
    for (int64_t k = 0; k < full; k += RUN)
        add_run(type, rows, outputs, panel + k, p->whole, weight + k * bytes_of(type), step, sum);
    if (full < p->inputs) {
        char last[8][RUN * sizeof(float)] = {{0}};
        for (int n = 0; n < outputs; n++)
            memcpy(last[n], weight + n * step + full * bytes_of(type), (size_t)((p->inputs - full) * bytes_of(type)));
        add_run(type, rows, outputs, panel + full, p->whole, last[0], (int64_t)sizeof last[0], sum);
    }
    for (int r = 0; r < rows; r++)
        for (int n = 0; n < outputs; n++)
            y[r * p->outputs + first + n] = sum_lanes(sum[r][n]) + (p->bias ? p->bias[first + n] : 0.0f);
}

/* How many outputs at a time fill the registers. */
static int64_t outputs_at_once(int64_t rows) { return rows == 1 ? 8 : rows == 2 ? 6 : rows == 3 ? 4 : 3; }

INLINE_KERNEL void multiply_rows(const int type, const Problem *p, const float *panel, int64_t rows, int64_t first,
                                 int64_t outputs, float *y) {
    if (outputs == outputs_at_once(rows)) {
        if (rows == 1) multiply(type, 1, 8, p, panel, first, y);
        else if (rows == 2) multiply(type, 2, 6, p, panel, first, y);
        else if (rows == 3) multiply(type, 3, 4, p, panel, first, y);
        else multiply(type, 4, 3, p, panel, first, y);
        return;
    }
    for (int64_t n = first; n < first + outputs; n++) {
        if (rows == 1) multiply(type, 1, 1, p, panel, n, y);
        else if (rows == 2) multiply(type, 2, 1, p, panel, n, y);
        else if (rows == 3) multiply(type, 3, 1, p, panel, n, y);
        else multiply(type, 4, 1, p, panel, n, y);
    }
}

KERNEL static void multiply_float32(const Problem *p, const float *x, int64_t rows, int64_t first, int64_t n, float *y) {
    multiply_rows(FLOAT32, p, x, rows, first, n, y);
}

KERNEL static void multiply_bfloat16(const Problem *p, const float *x, int64_t rows, int64_t first, int64_t n, float *y) {
    multiply_rows(BFLOAT16, p, x, rows, first, n, y);
}

KERNEL static void multiply_float16(const Problem *p, const float *x, int64_t rows, int64_t first, int64_t n, float *y) {
    multiply_rows(FLOAT16, p, x, rows, first, n, y);
}

/* Copies rows to [rows][whole], each run in the order in which its weights are widened; the end is zero. */
static void order_rows(const Problem *p, const float *x, int64_t rows, float *panel) {
    for (int64_t r = 0; r < rows; r++) {
        const float *from = x + r * p->inputs;
        float *to = panel + r * p->whole;
        memset(to + p->whole - RUN, 0, RUN * sizeof(float));
        if (p->type != BFLOAT16) {
            memcpy(to, from, (size_t)p->inputs * sizeof(float));
            continue;
        }
        for (int64_t k = 0; k < p->inputs; k++) to[k / RUN * RUN + k % 2 * 8 + k % RUN / 2] = from[k];
    }
}

/* At most PANEL_ROWS rows against all outputs: a few weight rows stay in the cache while the rows pass. */
static void multiply_panel(const Problem *p, const float *panel, int64_t rows, float *y) {
    int64_t width = outputs_at_once(smaller(rows, MOST_ROWS));
    int64_t blocks = (p->outputs + width - 1) / width;
#pragma omp parallel for schedule(static) num_threads(p->threads) if (p->threads > 1)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t first = b * width, outputs = smaller(width, p->outputs - first);
        for (int64_t r = 0; r < rows;) {
            int64_t count = even_share(rows - r, MOST_ROWS);
            const float *own = panel + r * p->whole;
            float *to = y + r * p->outputs;
            if (p->type == FLOAT32) multiply_float32(p, own, count, first, outputs, to);
            else if (p->type == BFLOAT16) multiply_bfloat16(p, own, count, first, outputs, to);
            else multiply_float16(p, own, count, first, outputs, to);
            r += count;
        }
    }
}

/* y[rows][outputs] = x[rows][inputs] W^T + bias.
 *
 * weight: [outputs][inputs] of `type`: 0 float32, 1 bfloat16, 2 float16. bias: [outputs], or NULL.
 * threads: at least 1. Returns 0, or -1 when there is no memory.
 */
EXPORT int switchyard_dense_linear(const float *x, const void *weight, const float *bias, float *y, int64_t rows,
                                   int64_t outputs, int64_t inputs, int type, int threads) {
    Problem problem = {weight, bias, outputs, inputs, (inputs + RUN - 1) / RUN * RUN, type, threads};
    float *panel = scratch(smaller(rows, PANEL_ROWS) * problem.whole * (int64_t)sizeof(float));
    if (!panel) return -1;
    for (int64_t r = 0; r < rows;) {
        int64_t count = even_share(rows - r, PANEL_ROWS);
        order_rows(&problem, x + r * inputs, count, panel);
        multiply_panel(&problem, panel, count, y + r * outputs);
        r += count;
    }
    free(panel);
    return 0;
}
