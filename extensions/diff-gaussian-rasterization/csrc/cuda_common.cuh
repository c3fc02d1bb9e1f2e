// What the CUDA kernels share: the views on the device, entries of a tile, the falloff of a pair, fixed-order sums of a warp.
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
constexpr int CHANNELS_PER_PASS = 32;  // that a thread holds in registers
constexpr unsigned ALL = 0xffffffffu;
static_assert(THREADS == TILE * TILE, "a thread per pixel of a tile");

// Inside a tile a warp has a rectangle of WARP_WIDTH x WARP_HEIGHT pixels: squarer than rows, so that it meets fewer splats.
constexpr int WARP_WIDTH = 8, WARP_HEIGHT = 4, WARPS_ACROSS = TILE / WARP_WIDTH, WARP_BANDS = TILE / WARP_HEIGHT;
static_assert(WARP_WIDTH * WARP_HEIGHT == 32 && WARPS_ACROSS * WARP_BANDS == WARPS, "warps cover the tile");

// Rows of a (G, k) tensor that may be expanded or strided.
struct Rows {
  const float* __restrict__ data;
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

// All views of a call; their tiles are numbered one view after the other, row by row. A camera is made from its matrices by
// every block: reading them on the host would wait for the device.
struct Views {
  Options options;
  const float* __restrict__ viewmats;  // (V, 4, 4)
  const float* __restrict__ Ks;        // (V, 3, 3)
  const bool* __restrict__ mask;       // (V, tiles_y, tiles_x), or null
  int count, width, height, tiles_x, tiles_y;
  __device__ __forceinline__ Camera camera(int v) const {
    return make_camera(viewmats + 16ll * v, Ks + 9ll * v, width, height, options.offcentre);
  }
};

// Call use(row, x0, x1) for the rows of tiles that a splat meets, of those in [first, end) among the rows of all views; it may
// meet tiles x0 .. x1 of the row, x1 < x0 if none.
template <typename Use>
__device__ __forceinline__ void for_each_row(const Views& views, const Splat& s, int first, int end, const Use& use) {
  const int base = s.view * views.tiles_y;
  const int y0 = max(s.y0 / TILE, first - base), y1 = min(s.y1 / TILE, end - 1 - base);
  for (int y = y0; y <= y1; ++y) {
    int x0, x1;
    tile_span(s, y, 0, views.tiles_x - 1, x0, x1);
    use(base + y, x0, x1);
  }
}

__device__ __forceinline__ bool shown(const Views& views, int row, int x) {
  return !views.mask || views.mask[(int64_t)row * views.tiles_x + x];
}

// Tiles x0 .. x1 of a row that are switched on.
__device__ __forceinline__ int shown_tiles(const Views& views, int row, int x0, int x1) {
  if (!views.mask) return max(x1 - x0 + 1, 0);
  int n = 0;
  for (int x = x0; x <= x1; ++x) n += shown(views, row, x);
  return n;
}

// The tile of a block and the pixel of a thread.
struct Pixel {
  int view, tile, warp_column, warp_row;  // warp_column, warp_row: first pixel of the warp's rectangle
  int column, row;
  bool inside;
  int64_t index;  // among the pixels of all views; 0 outside the image
  // first: row of tiles (of all views) of the first block
  __device__ __forceinline__ Pixel(const Views& views, int first) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, across = blockIdx.x % views.tiles_x;
    const int down = first + blockIdx.x / views.tiles_x;
    view = down / views.tiles_y, tile = blockIdx.x;
    warp_column = across * TILE + warp % WARPS_ACROSS * WARP_WIDTH;
    warp_row = down % views.tiles_y * TILE + warp / WARPS_ACROSS * WARP_HEIGHT;
    column = warp_column + lane % WARP_WIDTH, row = warp_row + lane / WARP_WIDTH;
    inside = column < views.width && row < views.height;
    index = inside ? ((int64_t)view * views.height + row) * views.width + column : 0;
  }
};

// A splat of a tile's list as the pixels need it.
struct alignas(16) Entry {
  float u, v, slope, a, c;  // a = -log2(e) inv_xx / 2, c = -log2(e) / (2 cov_yy)
  float opacity, z;
  int32_t source;  // row of the features, or the label
  int32_t x0, x1, y0, y1;
};

__device__ __forceinline__ Entry make_entry(const Splat& s, const int32_t* labels) {
  constexpr float HALF_LOG2E = 0.72134752f;
  return {
      s.u,  s.v,  s.slope, -HALF_LOG2E * s.inv_xx, -HALF_LOG2E / s.cov_yy, s.opacity, s.z, labels ? labels[s.id] : s.id, s.x0,
      s.x1, s.y0, s.y1};
}

// Which of the WARPS_ACROSS rectangles side by side in one band of a tile a splat may reach, as bits. No pixel of another one
// has alpha >= alpha_min, so a warp need not look at it.
__device__ __forceinline__ unsigned band_meets(const Splat& s, int column, int row) {
  if (s.y1 < row || s.y0 >= row + WARP_HEIGHT) return 0;
  int lo = s.x0, hi = s.x1;
  if (s.extent >= 0.0f) {
    int left, right;
    band_span(s, row, WARP_HEIGHT, left, right);
    lo = max(lo, left), hi = min(hi, right);
  }
  unsigned bits = 0;
  for (int w = 0; w < WARPS_ACROSS; ++w) {
    const int x = column + w * WARP_WIDTH;
    if (lo < x + WARP_WIDTH && hi >= x && lo <= hi) bits |= 1u << w;
  }
  return bits;
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
