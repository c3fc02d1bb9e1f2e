// Projection, depth order and the lists of the tiles.
#pragma once

#include "cuda_common.cuh"

namespace gaussian_rasterization {
namespace cuda {

enum Problem : unsigned long long { BAD_LABEL = 1, BAD_ORDER = 2 };

// What the host has to know of a view; followed by the entries of every row of tiles.
struct Summary {
  unsigned long long visible, problems;
};

// Project all Gaussians of a view and count. In the forward pass `order` is null and (keys, values) become what sorting orders
// by (z, index), discarded ones last; the backward pass finds the Gaussians in `order` again.
__global__ void __launch_bounds__(THREADS)
    project_kernel(View view, Scene scene, const int32_t* order, const int32_t* labels, int channels, int32_t* radii,
                   uint32_t* keys, int32_t* values, Summary* summary, unsigned long long* row_entries) {
  extern __shared__ unsigned counts[];  // of the rows of tiles
  __shared__ Camera camera;
  for (int y = threadIdx.x; y < view.tiles_y; y += THREADS) counts[y] = 0;
  if (threadIdx.x == 0) camera = view.camera();
  __syncthreads();

  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  bool drawn = false;
  unsigned long long problems = 0;
  if (i < scene.count) {
    const int64_t id = order ? order[i] : i;
    const bool given = id >= 0 && id < scene.count;
    Splat s;
    int32_t radius = 0;
    if (given) drawn = project(camera, view.options, scene.shape(id), scene.opacities(id), s, radius);
    if (order) {
      if (id != -1 && !drawn) problems |= BAD_ORDER;
      if (id != -1 && i > 0 && order[i - 1] == -1) problems |= BAD_ORDER;
    } else {
      radii[i] = radius;
      keys[i] = drawn ? __float_as_uint(s.z) : 0xffffffffu;
      values[i] = (int32_t)i;
    }
    if (labels && !(labels[i] >= 0 && labels[i] < channels)) problems |= BAD_LABEL;
    if (drawn) for_each_tile(view, s, 0, view.tiles_y, [&](int tile) { atomicAdd(counts + tile / view.tiles_x, 1u); });
  }
  if (problems) atomicOr(&summary->problems, problems);
  const int visible = __syncthreads_count(drawn);
  if (threadIdx.x == 0 && visible) atomicAdd(&summary->visible, (unsigned long long)visible);
  for (int y = threadIdx.x; y < view.tiles_y; y += THREADS) {
    if (counts[y]) atomicAdd(row_entries + y, (unsigned long long)counts[y]);
  }
}

// The splats of the view in depth order.
__global__ void __launch_bounds__(THREADS)
    splat_kernel(View view, Scene scene, const int32_t* order, int64_t count, Splat* splats) {
  __shared__ Camera camera;
  if (threadIdx.x == 0) camera = view.camera();
  __syncthreads();
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= count) return;
  const int32_t id = order[i];
  Splat s;
  int32_t radius;
  if (!project(camera, view.options, scene.shape(id), scene.opacities(id), s, radius)) s.y0 = TILE, s.y1 = 0;  // no tile row
  s.id = id;
  s.row = 0;
  splats[i] = s;
}

// Ids behind the visible ones.
__global__ void __launch_bounds__(THREADS) clear_kernel(int32_t* order, int64_t begin, int64_t end) {
  const int64_t i = begin + (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i < end) order[i] = -1;
}

// Tiles of every splat in the band of tile rows [first, end).
__global__ void __launch_bounds__(THREADS)
    count_kernel(View view, const Splat* splats, int64_t count, int first, int end, int64_t* counts) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= count) return;
  int64_t n = 0;
  for_each_tile(view, splats[i], first, end, [&](int) { ++n; });
  counts[i] = n;
}

// The entries of every splat, in depth order: its tile within the band, and the splat; or, if `owners` is given, the number of
// the entry, whose splat is then in `owners`. `ends` has the end of the entries of every splat.
__global__ void __launch_bounds__(THREADS)
    emit_kernel(View view, const Splat* splats, int64_t count, int first, int end, const int64_t* ends, int64_t entries,
                uint32_t* tiles, int32_t* values, int32_t* owners) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= count) return;
  int64_t at = i > 0 ? ends[i - 1] : 0;
  for_each_tile(view, splats[i], first, end, [&](int tile) {
    if (at >= entries) return;
    tiles[at] = (uint32_t)(tile - first * view.tiles_x);
    values[at] = owners ? (int32_t)at : (int32_t)i;
    if (owners) owners[at] = (int32_t)i;
    ++at;
  });
}

// Where the list of every tile begins, from the sorted tiles of the entries; one more thread than entries.
__global__ void __launch_bounds__(THREADS) begin_kernel(const uint32_t* tiles, int64_t entries, int count, int32_t* begins) {
  const int64_t e = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (e > entries) return;
  const int last = e == 0 ? -1 : (int)tiles[e - 1], here = e == entries ? count : (int)tiles[e];
  for (int t = last + 1; t <= here; ++t) begins[t] = (int32_t)e;
}

}  // namespace cuda
}  // namespace gaussian_rasterization
