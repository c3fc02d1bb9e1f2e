// Blending: a block per tile, a thread per pixel, a block of channels in registers.
#pragma once

#include "cuda_common.cuh"

namespace gaussian_rasterization {
namespace cuda {

// The tiles of one band of a view.
struct Tiles {
  View view;
  int first;              // row of tiles
  const int32_t* begins;  // (tiles + 1,) list of every tile
  const int32_t* list;    // splats, or numbers of entries if `owners` is given
  const int32_t* owners;
  const Splat* splats;
  int channels;
  const float* features;  // (G, C) contiguous, or null
  const int32_t* labels;  // (G,), if features is null
  const float* background;
  __device__ __forceinline__ const Splat& splat(int64_t entry) const {
    return splats[owners ? owners[list[entry]] : list[entry]];
  }
};

// Images of one view, channels last; `light` and `stop` may be null.
struct Images {
  float *features, *depth, *alpha, *light;
  int32_t* stop;
};

// Blend channels [c0, c0 + width), width <= N; depth, alpha and the state come with the first ones. N = 0: labels, with width *
// THREADS floats of shared memory for the sums.
template <int N>
__global__ void __launch_bounds__(THREADS, N > 24 ? 2 : 3) blend_kernel(Tiles tiles, Images out, int c0, int width) {
  constexpr int BATCH = 64, ROOM = N > 0 ? N : 1;
  __shared__ Entry entries[BATCH];
  __shared__ __align__(16) float payload[BATCH * ROOM];
  extern __shared__ float label_sums[];  // (width, THREADS)
  const View& view = tiles.view;
  const int tile = blockIdx.y * view.tiles_x + blockIdx.x;
  const int begin = tiles.begins[tile], count = tiles.begins[tile + 1] - begin;
  const int column = blockIdx.x * TILE + threadIdx.x % TILE, row = (tiles.first + blockIdx.y) * TILE + threadIdx.x / TILE;
  const bool inside = column < view.width && row < view.height;
  const Options& o = view.options;

  float sums[ROOM], depth = 0.0f, light = 1.0f;
  int stop = INT_MAX;
  bool open = inside;
#pragma unroll
  for (int c = 0; c < ROOM; ++c) sums[c] = 0.0f;
  if constexpr (N == 0) {
    for (int c = 0; c < width; ++c) label_sums[c * THREADS + threadIdx.x] = 0.0f;  // read by this thread only
  }

  for (int base = 0; base < count; base += BATCH) {
    if (!__syncthreads_or(open)) break;  // also: everybody is done with the last batch
    const int n = min(BATCH, count - base);
    if (threadIdx.x < n) entries[threadIdx.x] = make_entry(tiles.splat((int64_t)begin + base + threadIdx.x));
    __syncthreads();
    if constexpr (N > 0) {
      for (int t = threadIdx.x; t < n * N; t += THREADS) {
        const int c = t % N;
        payload[t] = c < width ? tiles.features[(int64_t)entries[t / N].id * tiles.channels + c0 + c] : 0.0f;
      }
      __syncthreads();
    }
    for (int k = 0; open && k < n; ++k) {
      const Entry& e = entries[k];
      const float value = falloff(e, column, row, o.alpha_min);
      if (value == 0.0f) continue;
      const float alpha = fminf(value * e.opacity, o.alpha_max);
      const float after = light * (1.0f - alpha);
      if (after < o.transmittance_min) {
        stop = base + k;
        open = false;
        break;
      }
      const float weight = alpha * light;
      depth = fmaf(weight, e.z, depth);
      if constexpr (N > 0) {
        const float4* from = reinterpret_cast<const float4*>(payload + k * N);
#pragma unroll
        for (int c = 0; c < N / 4; ++c) {
          const float4 f = from[c];
          sums[4 * c] = fmaf(weight, f.x, sums[4 * c]);
          sums[4 * c + 1] = fmaf(weight, f.y, sums[4 * c + 1]);
          sums[4 * c + 2] = fmaf(weight, f.z, sums[4 * c + 2]);
          sums[4 * c + 3] = fmaf(weight, f.w, sums[4 * c + 3]);
        }
      } else {
        const int label = tiles.labels[e.id] - c0;
        if (label >= 0 && label < width) label_sums[label * THREADS + threadIdx.x] += weight;
      }
      light = after;
    }
  }

  const int64_t pixel = (int64_t)row * view.width + column;
  if (inside && c0 == 0) {
    out.depth[pixel] = depth;
    out.alpha[pixel] = 1.0f - light;
    if (out.light) out.light[pixel] = light, out.stop[pixel] = stop;
  }
  if constexpr (N == 0) {
    if (!inside) return;
    for (int c = 0; c < width; ++c) {
      out.features[pixel * tiles.channels + c0 + c] =
          fmaf(light, tiles.background[c0 + c], label_sums[c * THREADS + threadIdx.x]);
    }
  } else {
    // eight neighbouring pixels at a time through shared memory, so that a warp writes next to each other
    __syncthreads();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float* stage = payload + warp * 8 * N;
    static_assert(BATCH >= 8 * WARPS, "the payload has room for eight pixels per warp");
    for (int part = 0; part < 4; ++part) {
      if (lane / 8 == part) {
#pragma unroll
        for (int c = 0; c < N; ++c) {
          if (c < width) stage[lane % 8 * width + c] = fmaf(light, tiles.background[c0 + c], sums[c]);
        }
      }
      __syncwarp();
      // lanes 8 part .. 8 part + 7 are one row of pixels, a warp has two rows of sixteen
      const int y = (tiles.first + blockIdx.y) * TILE + warp * 2 + part / 2, x = blockIdx.x * TILE + part % 2 * 8;
      const int pixels = y < view.height ? min(8, view.width - x) : 0;
      float* to = out.features + ((int64_t)y * view.width + x) * tiles.channels + c0;
      for (int t = lane; t < pixels * width; t += 32) to[(int64_t)(t / width) * tiles.channels + t % width] = stage[t];
      __syncwarp();
    }
  }
}

}  // namespace cuda
}  // namespace gaussian_rasterization
