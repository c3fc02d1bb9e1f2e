// Ray marching for any machine: four lanes (SSE2 on x86-64, NEON on aarch64, scalar code elsewhere).
#include "march_kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__x86_64__)
#include <immintrin.h>
#endif

#define RASTER_ISA 0

namespace gaussian_rasterization {
#include "march_kernels.inl"

const MarchKernels march_baseline = {march_scratch_bytes, march_forward, march_backward, march_add};
}  // namespace gaussian_rasterization
