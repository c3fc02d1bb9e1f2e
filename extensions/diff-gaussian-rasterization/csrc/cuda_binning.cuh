// Projection, depth order and the lists of the tiles, of all views at once. Every kernel has blocks of THREADS.
#pragma once

#include "cuda_common.cuh"

namespace gaussian_rasterization {
namespace cuda {

enum Problem : unsigned long long { BAD_LABEL = 1, BAD_ORDER = 2 };

constexpr uint32_t HIDDEN = 0xffffffffu;  // depth key of a Gaussian that is not drawn
constexpr int FEW_TILES = 8;              // that a thread lists by itself

// What the host has to know: `problems` (1,), then for every view the number of its splats and the entries of its tile rows.
struct Summary {
  unsigned long long* problems;
  unsigned long long* counts;  // (V, 1 + tiles_y)
  int stride;
  __device__ __forceinline__ int64_t begin(int view) const {  // of the splats of a view among those of all
    int64_t sum = 0;
    for (int v = 0; v < view; ++v) sum += (int64_t)counts[(int64_t)v * stride];
    return sum;
  }
};

// Project all Gaussians of all views and count. Grid (G / THREADS, V); dynamic shared memory: a number per row of tiles.
// radii, keys: (V, G); keys: z as bits, or HIDDEN. block_counts: (V, G / THREADS), splats of every block. labels: (G,) or null.
__global__ void __launch_bounds__(THREADS)
    project_kernel(Views views, Scene scene, const int32_t* __restrict__ labels, int channels, int32_t* __restrict__ radii,
                   uint32_t* __restrict__ keys, int32_t* __restrict__ block_counts, Summary summary) {
  extern __shared__ unsigned row_counts[];
  __shared__ Camera camera;
  const int v = blockIdx.y;
  for (int y = threadIdx.x; y < views.tiles_y; y += THREADS) row_counts[y] = 0;
  if (threadIdx.x == 0) camera = views.camera(v);
  __syncthreads();

  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  bool drawn = false;
  if (i < scene.count) {
    Splat s;
    int32_t radius;
    drawn = project(camera, views.options, scene.shape(i), scene.opacities(i), s, radius);
    const int64_t at = v * scene.count + i;
    radii[at] = radius;
    keys[at] = drawn ? __float_as_uint(s.z) : HIDDEN;
    if (v == 0 && labels && !(labels[i] >= 0 && labels[i] < channels)) {
      atomicOr(summary.problems, (unsigned long long)BAD_LABEL);
    }
    if (drawn) {
      s.view = 0;  // rows of this view
      for_each_row(views, s, 0, views.tiles_y, [&](int row, int x0, int x1) {
        const int n = shown_tiles(views, v * views.tiles_y + row, x0, x1);
        if (n) atomicAdd(row_counts + row, (unsigned)n);
      });
    }
  }
  const int visible = __syncthreads_count(drawn);
  unsigned long long* counts = summary.counts + (int64_t)v * summary.stride;
  if (threadIdx.x == 0) {
    block_counts[(int64_t)v * gridDim.x + blockIdx.x] = visible;
    if (visible) atomicAdd(counts, (unsigned long long)visible);
  }
  for (int y = threadIdx.x; y < views.tiles_y; y += THREADS) {
    if (row_counts[y]) atomicAdd(counts + 1 + y, (unsigned long long)row_counts[y]);
  }
}

// The keys of what is drawn, without gaps, in the order of views and Gaussians. Grid (G / THREADS, V).
// keys: (V, G); block_ends: (V, G / THREADS), running sums of block_counts; packed, ids: (N,); packed: view and z, or z alone.
template <typename Key>
__global__ void __launch_bounds__(THREADS)
    pack_kernel(int64_t count, const uint32_t* __restrict__ keys, const int32_t* __restrict__ block_ends,
                Key* __restrict__ packed, int32_t* __restrict__ ids) {
  __shared__ int warp_counts[WARPS];
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, block = (int64_t)blockIdx.y * gridDim.x + blockIdx.x;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t key = i < count ? keys[blockIdx.y * count + i] : HIDDEN;
  const unsigned drawn = __ballot_sync(ALL, key != HIDDEN);
  if (lane == 0) warp_counts[warp] = __popc(drawn);
  __syncthreads();
  if (key == HIDDEN) return;
  int64_t at = (block > 0 ? block_ends[block - 1] : 0) + __popc(drawn & ((1u << lane) - 1));
  for (int w = 0; w < warp; ++w) at += warp_counts[w];
  packed[at] = sizeof(Key) > 4 ? (Key)((uint64_t)blockIdx.y << 32 | key) : (Key)key;
  ids[at] = (int32_t)i;
}

// The splats of all views in depth order, one view after the other. Grid (most splats of a view / THREADS, V).
// ids: of the Gaussians in depth order; view v has its own from v * id_stride on, or, with id_stride 0, from where its splats
// are. splats: (N,). order: (V, G) or null, gets the ids of every view; what is behind them stays.
__global__ void __launch_bounds__(THREADS)
    splat_kernel(Views views, Scene scene, const int32_t* __restrict__ ids, int64_t id_stride, Splat* __restrict__ splats,
                 int32_t* __restrict__ order, Summary summary) {
  __shared__ Camera camera;
  __shared__ int64_t begin;
  const int v = blockIdx.y;
  if (threadIdx.x == 0) camera = views.camera(v), begin = summary.begin(v);
  __syncthreads();
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= (int64_t)summary.counts[(int64_t)v * summary.stride]) return;
  const int32_t id = ids[(id_stride ? v * id_stride : begin) + i];
  Splat s;
  int32_t radius;
  const bool given = id >= 0 && id < scene.count;
  if (!given || !project(camera, views.options, scene.shape(id), scene.opacities(id), s, radius)) {
    atomicOr(summary.problems, (unsigned long long)BAD_ORDER);
    s.y0 = 0xffff, s.y1 = 0;  // no row of tiles
  }
  s.id = given ? id : 0, s.view = v, s.row = 0;
  splats[begin + i] = s;
  if (order) order[v * scene.count + i] = id;
}

// Tiles of every splat in the rows of tiles [first, end) of all views. Grid (N / THREADS). splats, counts: (N,).
__global__ void __launch_bounds__(THREADS) count_kernel(Views views, const Splat* __restrict__ splats, int64_t count, int first,
                                                        int end, int32_t* __restrict__ counts) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= count) return;
  int n = 0;
  for_each_row(views, splats[i], first, end, [&](int row, int x0, int x1) { n += shown_tiles(views, row, x0, x1); });
  counts[i] = n;
}

// The entries of every splat, row by row: its tile within the band [first, end), and the splat; or, if `owners` is given, the
// number of the entry, whose splat is then in `owners`. Grid (N / THREADS).
// splats, ends: (N,), ends: running sums of the counts. tiles, values, owners: (entries,).
//
// Splats that lie behind each other go to different warps, since the nearest ones meet the most tiles, and a splat of many
// tiles is listed by its whole warp.
__global__ void __launch_bounds__(THREADS, 4)
    emit_kernel(Views views, const Splat* __restrict__ splats, int64_t count, int first, int end,
                const int32_t* __restrict__ ends, int64_t entries, uint32_t* __restrict__ tiles, int32_t* __restrict__ values,
                int32_t* __restrict__ owners) {
  const int64_t warps = (int64_t)gridDim.x * WARPS, warp = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int64_t mine = lane * warps + warp;
  const auto write = [&](int64_t at, int row, int x, int64_t i) {
    if (at >= entries) return;
    tiles[at] = (uint32_t)((row - first) * views.tiles_x + x);
    values[at] = owners ? (int32_t)at : (int32_t)i;
    if (owners) owners[at] = (int32_t)i;
  };
  int64_t at = 0;
  int n = 0;
  if (mine < count) at = mine > 0 ? ends[mine - 1] : 0, n = (int)(ends[mine] - at);
  if (n > 0 && n <= FEW_TILES) {
    for_each_row(views, splats[mine], first, end, [&](int row, int x0, int x1) {
      for (int x = x0; x <= x1; ++x) {
        if (shown(views, row, x)) write(at++, row, x, mine);
      }
    });
  }
  for (unsigned rest = __ballot_sync(ALL, n > FEW_TILES); rest; rest &= rest - 1) {
    const int64_t i = (__ffs(rest) - 1) * warps + warp;
    int64_t next = i > 0 ? ends[i - 1] : 0;
    for_each_row(views, splats[i], first, end, [&](int row, int x0, int x1) {  // the same for all lanes
      for (int left = x0; left <= x1; left += 32) {
        const int x = left + lane;
        const bool listed = x <= x1 && shown(views, row, x);
        const unsigned all = __ballot_sync(ALL, listed);
        if (listed) write(next + __popc(all & ((1u << lane) - 1)), row, x, i);
        next += __popc(all);
      }
    });
  }
}

// Where the list of every tile begins. Grid ((tiles + 1) / THREADS). sorted: (entries,) tiles of the entries; begins: (tiles +
// 1,).
__global__ void __launch_bounds__(THREADS)
    begin_kernel(const uint32_t* __restrict__ sorted, int64_t entries, int tiles, int32_t* __restrict__ begins) {
  const int64_t tile = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (tile > tiles) return;
  int64_t lo = 0, hi = entries;
  while (lo < hi) {
    const int64_t middle = (lo + hi) / 2;
    if (sorted[middle] < tile) {
      lo = middle + 1;
    } else {
      hi = middle;
    }
  }
  begins[tile] = (int32_t)lo;
}

// The splats of sorted entries. Grid (entries / THREADS); all (entries,).
__global__ void __launch_bounds__(THREADS) owner_kernel(const int32_t* __restrict__ numbers, const int32_t* __restrict__ owners,
                                                        int64_t entries, int32_t* __restrict__ list) {
  const int64_t e = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (e < entries) list[e] = owners[numbers[e]];
}

}  // namespace cuda
}  // namespace gaussian_rasterization
