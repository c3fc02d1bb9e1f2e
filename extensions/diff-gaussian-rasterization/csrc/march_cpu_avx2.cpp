// Ray marching for x86-64 machines with AVX2 and FMA. Nothing here runs before the processor was asked.
#include "march_kernels.h"

#ifdef RASTER_X86
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#define RASTER_ISA 2

namespace gaussian_rasterization {
#include "march_kernels.inl"
}  // namespace gaussian_rasterization

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace gaussian_rasterization {
const MarchKernels march_avx2 = {march_scratch_bytes, march_forward, march_backward, march_add};
}  // namespace gaussian_rasterization
#endif
