// Inner loops for x86-64 machines with AVX2 and FMA. Nothing here runs before the processor was asked.
#include "cpu_kernels.h"

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
#include "cpu_kernels.inl"
}  // namespace gaussian_rasterization

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace gaussian_rasterization {
const Kernels kernels_avx2 = {"avx2", scratch_bytes, forward, backward<false>, backward<true>, compare_l1};
}  // namespace gaussian_rasterization
#endif
