// Inner loops for any machine: four lanes (SSE2 on x86-64, NEON on aarch64, scalar code elsewhere).
#include "cpu_kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__x86_64__)
#include <immintrin.h>
#endif

#define RASTER_ISA 0

namespace gaussian_rasterization {
#include "cpu_kernels.inl"

const Kernels kernels_baseline = {"baseline", scratch_bytes, forward, backward<false>, backward<true>, compare_l1};
}  // namespace gaussian_rasterization
