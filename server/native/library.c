/* What a loader asks before it calls a kernel. */
#include "kernels.h"

/* Counts changes of the signatures: a library from older sources must not be called. */
#define INTERFACE 4

EXPORT int switchyard_interface(void) { return INTERFACE; }

/* Whether this processor has the instructions that the kernels are made of. */
EXPORT int switchyard_supported(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
