/* Norms, and the gate of the MLP: small row-wise work that would cost more in calls than in arithmetic. */
#include "kernels.h"

#include <math.h>
#include <string.h>

/* Sum of squares: four vectors of lanes over runs of 32 numbers, a rest one vector at a time, then one tree. */
INLINE_KERNEL float sum_squares(const float *x, int64_t width) {
    __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    int64_t k = 0;
    for (; k + 32 <= width; k += 32)
        for (int v = 0; v < 4; v++) {
            __m256 part = _mm256_loadu_ps(x + k + 8 * v);
            sum[v] = _mm256_fmadd_ps(part, part, sum[v]);
        }
    for (; k + 8 <= width; k += 8) {
        __m256 part = _mm256_loadu_ps(x + k);
        sum[0] = _mm256_fmadd_ps(part, part, sum[0]);
    }
    float total = sum_lanes(_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
    for (; k < width; k++) total += x[k] * x[k];
    return total;
}

/* y = weight * x / sqrt(mean(x^2) + eps) (arXiv:1910.07467, eq. 4); y may be x. */
INLINE_KERNEL void norm_row(const float *x, const float *weight, float eps, int64_t width, float *y) {
    float factor = 1.0f / sqrtf(sum_squares(x, width) / (float)width + eps);
    __m256 factors = _mm256_set1_ps(factor);
    int64_t k = 0;
    for (; k + 8 <= width; k += 8)
        _mm256_storeu_ps(y + k, _mm256_mul_ps(_mm256_loadu_ps(weight + k),
                                              _mm256_mul_ps(_mm256_loadu_ps(x + k), factors)));
    for (; k < width; k++) y[k] = weight[k] * (x[k] * factor);
}

/* Adds `added` to x in place, unless it is NULL, and writes the norm of each row to y.
 *
 * x, added, y: [rows][width]; weight: [width]. Returns 0.
 */
EXPORT KERNEL int switchyard_add_and_norm(float *x, const float *added, const float *weight, float eps, float *y,
                                          int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; r++) {
        float *row = x + r * width;
        for (int64_t k = 0; added && k < width; k++) row[k] += added[r * width + k];
        norm_row(row, weight, eps, width, y + r * width);
    }
    return 0;
}

/* Norms `heads` heads of `width` numbers at `x`, in place; for queries and keys that are normed. */
KERNEL void norm_heads(float *x, const float *weight, float eps, int64_t heads, int64_t width) {
    for (int64_t h = 0; h < heads; h++) norm_row(x + h * width, weight, eps, width, x + h * width);
}

/* y = gate / (1 + e^-gate) * up, of rows that hold gate and up side by side.
 *
 * gate_up: [rows][2 * width]; y: [rows][width]; threads: at least 1. Returns 0.
 */
EXPORT KERNEL int switchyard_gated_silu(const float *gate_up, float *y, int64_t rows, int64_t width, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t r = 0; r < rows; r++) {
        const float *gate = gate_up + 2 * r * width, *up = gate + width;
        for (int64_t k = 0; k < width; k += 8) {
            int64_t count = smaller(8, width - k);
            float own[3][8] = {{0}};
            const float *g = gate + k, *u = up + k;
            float *to = y + r * width + k;
            if (count < 8) {
                memcpy(own[0], g, (size_t)count * sizeof(float));
                memcpy(own[1], u, (size_t)count * sizeof(float));
                g = own[0], u = own[1], to = own[2];
            }
            __m256 x = _mm256_loadu_ps(g);
            __m256 below = _mm256_add_ps(_mm256_set1_ps(1.0f), exp_lanes(_mm256_sub_ps(_mm256_setzero_ps(), x)));
            _mm256_storeu_ps(to, _mm256_mul_ps(_mm256_div_ps(x, below), _mm256_loadu_ps(u)));
            if (count < 8) memcpy(y + r * width + k, own[2], (size_t)count * sizeof(float));
        }
    }
    return 0;
}
