// What the CUDA kernels share: one view on the device, entries of a tile, the falloff of a pair, fixed-order sums of a warp.
//
// This code is compiled with -fmad=false, so that a Gaussian is projected to the same bits by every kernel and by the CPU
// backend; the inner loops ask for fused products by name.
#pragma once

#include <climits>

#include "common.h"

namespace gaussian_rasterization {
namespace cuda {

constexpr int THREADS = 256;  // of every block; a pixel each where a block renders a tile
constexpr int WARPS = THREADS / 32;
constexpr int MAX_BLOCK = 32;  // channels that a thread holds in registers
constexpr unsigned ALL = 0xffffffffu;
static_assert(THREADS == TILE * TILE, "a thread per pixel of a tile");

// Rows of a (G, k) tensor that may be expanded or strided.
struct Rows {
  const float* data;
  int64_t row, column;
  __device__ __forceinline__ float operator()(int64_t i, int j = 0) const { return data[i * row + j * column]; }
};

struct Scene {
  int64_t count;
  Rows means, quats, scales, opacities;
  __device__ __forceinline__ Shape shape(int64_t i) const {
    Shape g;
    for (int j = 0; j < 3; ++j) g.mean[j] = means(i, j), g.scale[j] = scales(i, j);
    for (int j = 0; j < 4; ++j) g.quat[j] = quats(i, j);
    return g;
  }
};

// One view. The camera is made from its matrices by every block: reading them on the host would wait for the device.
struct View {
  Options options;
  const float *viewmat, *K;
  const bool* mask;  // (tiles_y, tiles_x), or null
  int width, height, tiles_x, tiles_y;
  __device__ __forceinline__ Camera camera() const { return make_camera(viewmat, K, width, height, options.offcentre); }
};

// Call use(tile) for the tiles of a splat in tile rows [first, end), row by row, left to right.
template <typename Use>
__device__ __forceinline__ void for_each_tile(const View& view, const Splat& s, int first, int end, const Use& use) {
  const int y0 = max(s.y0 / TILE, first), y1 = min(s.y1 / TILE, end - 1);
  for (int y = y0; y <= y1; ++y) {
    int x0, x1;
    tile_span(s, y, 0, view.tiles_x - 1, x0, x1);
    for (int x = x0; x <= x1; ++x) {
      const int tile = y * view.tiles_x + x;
      if (!view.mask || view.mask[tile]) use(tile);
    }
  }
}

// A splat of a tile's list as the pixels need it.
struct alignas(16) Entry {
  float u, v, slope, a, c;  // a = -log2(e) inv_xx / 2, c = -log2(e) / (2 cov_yy)
  float opacity, z;
  int32_t id;
  int32_t x0, x1, y0, y1;
};

__device__ __forceinline__ Entry make_entry(const Splat& s) {
  constexpr float HALF_LOG2E = 0.72134752f;
  return {s.u, s.v, s.slope, -HALF_LOG2E * s.inv_xx, -HALF_LOG2E / s.cov_yy, s.opacity, s.z, s.id, s.x0, s.x1, s.y0, s.y1};
}

// exp(power) at a pixel, 0 where the pair is skipped.
__device__ __forceinline__ float falloff(const Entry& e, int column, int row, float alpha_min) {
  if (column < e.x0 || column > e.x1 || row < e.y0 || row > e.y1) return 0.0f;
  const float dy = e.v - (float)row;
  const float t = (e.u - e.slope * dy) - (float)column;
  const float value = exp2f(fmaf(t * t, e.a, e.c * dy * dy));
  return value * e.opacity >= alpha_min ? value : 0.0f;
}

// Sum V values over the lanes of a warp in a fixed order. Every step halves the values that a lane has to carry: it keeps one
// half, and gives the other to the lane that keeps that. Afterwards the total of value warp_sum_index<V>() is in values[0].
template <int V, int OFFSET = 16>
__device__ __forceinline__ void warp_sum(float* values) {
  constexpr int HALF = (V + 1) / 2;
  const bool upper = (threadIdx.x & OFFSET) != 0;
#pragma unroll
  for (int i = 0; i < HALF; ++i) {
    if (i + HALF < V) {
      const float keep = upper ? values[i + HALF] : values[i], give = upper ? values[i] : values[i + HALF];
      values[i] = keep + __shfl_xor_sync(ALL, give, OFFSET);
    } else {
      values[i] += __shfl_xor_sync(ALL, values[i], OFFSET);
    }
  }
  if constexpr (OFFSET > 1) warp_sum<HALF, OFFSET / 2>(values);
}

// Which of the V totals a lane has, -1 if another lane has the same.
template <int V, int OFFSET = 16>
RASTER_FN int warp_sum_index(int lane) {
  constexpr int HALF = (V + 1) / 2;
  int index = 0;
  if constexpr (OFFSET > 1) index = warp_sum_index<HALF, OFFSET / 2>(lane);
  if (index >= 0 && (lane & OFFSET)) index += HALF;
  return index < V ? index : -1;
}

}  // namespace cuda
}  // namespace gaussian_rasterization
