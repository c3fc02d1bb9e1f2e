// Inner loops for x86-64 machines with AVX-512 F, BW, DQ and VL. Nothing here runs before the processor was asked.
#include "cpu_kernels.h"

#ifdef RASTER_X86
#include <immintrin.h>

#if !defined(__clang__)  // GCC 12 warns about its own _mm256_undefined_pd
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif

#define RASTER_ISA 512

namespace gaussian_rasterization {
#include "cpu_kernels.inl"
}  // namespace gaussian_rasterization

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace gaussian_rasterization {
const Kernels kernels_avx512 = {"avx512", scratch_bytes, forward, backward<false>, backward<true>, compare_l1};
}  // namespace gaussian_rasterization
#endif
