/* What a loader asks before it calls a kernel, and calls that were put together beforehand. */
#include "kernels.h"

/* Counts changes of the signatures: a library from older sources must not be called. */
#define INTERFACE 6

EXPORT int switchyard_interface(void) { return INTERFACE; }

/* Whether this processor has the instructions that the kernels are made of. */
EXPORT int switchyard_supported(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

/* By the numbers that library.py gives them. */
enum kernel { ADD_AND_NORM, ADD_LORA, ATTEND, COPY, DENSE_LINEAR, GATED_SILU, NF4_LINEAR, PLACE_HEADS, TRANSPOSE };

/* One call: the kernel, then its arguments in order. A pointer is its address, a float its bits. */
struct call {
    int64_t kernel, arguments[15];
};

static float float_of(int64_t bits) {
    union {
        int32_t bits;
        float number;
    } same = {(int32_t)bits};
    return same.number;
}

#define P(i) ((void *)(intptr_t)a[i])
#define I(i) ((int)a[i])

static int make(const struct call *call) {
    const int64_t *a = call->arguments;
    switch ((enum kernel)call->kernel) {
    case ADD_AND_NORM: return switchyard_add_and_norm(P(0), P(1), P(2), float_of(a[3]), P(4), a[5], a[6]);
    case ADD_LORA:
        return switchyard_add_lora(P(0), a[1], P(2), a[3], a[4], P(5), a[6], a[7], P(8), a[9], I(10));
    case ATTEND:
        return switchyard_attend(P(0), a[1], P(2), P(3), P(4), P(5), P(6), a[7], a[8], a[9], a[10], a[11],
                                 float_of(a[12]), I(13));
    case COPY: return switchyard_copy(P(0), a[1], P(2));
    case DENSE_LINEAR: return switchyard_dense_linear(P(0), P(1), P(2), P(3), a[4], a[5], a[6], I(7), I(8));
    case GATED_SILU: return switchyard_gated_silu(P(0), P(1), a[2], a[3], I(4));
    case NF4_LINEAR: return switchyard_nf4_linear(P(0), P(1), P(2), P(3), P(4), a[5], a[6], a[7], I(8));
    case PLACE_HEADS:
        return switchyard_place_heads(P(0), P(1), P(2), float_of(a[3]), P(4), P(5), P(6), P(7), P(8), P(9), a[10],
                                      a[11], a[12], a[13], a[14]);
    case TRANSPOSE: return switchyard_transpose(P(0), a[1], a[2], a[3], P(4));
    }
    return -1;
}

/* Makes the calls in order; returns 0, or the number of the first that failed, counted from 1. */
EXPORT int switchyard_run(const struct call *calls, int64_t count) {
    for (int64_t c = 0; c < count; c++)
        if (make(calls + c)) return (int)c + 1;
    return 0;
}
