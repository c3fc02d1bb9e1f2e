// Blending: a block per tile, a thread per pixel, the channels of one pass in registers.
#pragma once

#include "cuda_common.cuh"

namespace gaussian_rasterization {
namespace cuda {

// The tiles of one band of rows of tiles.
struct Tiles {
  Views views;
  int first;                           // row of tiles, among those of all views
  const int32_t* __restrict__ begins;  // (tiles + 1,) list of every tile
  const int32_t* __restrict__ list;    // (entries,) splats, front to back
  const Splat* __restrict__ splats;    // (N,)
  int channels;
  const float* __restrict__ features;    // (G, C) contiguous, or null
  const int32_t* __restrict__ labels;    // (G,), if features is null
  const float* __restrict__ background;  // (V, C)
};

// Images of all views, channels last: (V, H, W, C) and (V, H, W); `light` and `stop` may be null.
struct Images {
  float* __restrict__ features, * __restrict__ depth, * __restrict__ alpha, * __restrict__ light;
  int32_t* __restrict__ stop;
};

// Load list entries [base, base + n) of a tile, n <= BATCH, and which warps they may reach; every thread has a band and some
// entries. `meets` (WARP_BANDS, BATCH) has bits for the warps of a band, from left to right.
template <int BATCH>
__device__ __forceinline__ void load_entries(const Tiles& tiles, const Pixel& pixel, int64_t base, int n, Entry* entries,
                                             uint8_t* meets) {
  constexpr int STEP = THREADS / WARP_BANDS;
  static_assert(BATCH % 32 == 0 && STEP % 32 == 0, "a warp has one band");
  const int band = threadIdx.x / STEP, warp = threadIdx.x / 32;
  const int column = pixel.warp_column - warp % WARPS_ACROSS * WARP_WIDTH;
  const int row = pixel.warp_row - warp / WARPS_ACROSS * WARP_HEIGHT + band * WARP_HEIGHT;
  for (int k = threadIdx.x % STEP; k < n; k += STEP) {
    const Splat& s = tiles.splats[tiles.list[base + k]];
    if (band == 0) entries[k] = make_entry(s, tiles.labels);
    meets[band * BATCH + k] = (uint8_t)band_meets(s, column, row);
  }
}

// Entries [32 part, 32 part + 32) of a batch of n that the warp has to look at, as bits.
template <int BATCH>
__device__ __forceinline__ unsigned entries_of_warp(const uint8_t* meets, int part, int n) {
  const int warp = threadIdx.x / 32, k = part * 32 + threadIdx.x % 32;
  const unsigned bits = k < n ? meets[warp / WARPS_ACROSS * BATCH + k] : 0;
  return __ballot_sync(ALL, bits >> (warp % WARPS_ACROSS) & 1);
}

// Rows of features of loaded entries, padded with zeros: payload (n, N), channels [c0, channels).
template <int N>
__device__ __forceinline__ void load_payload(const Tiles& tiles, const Entry* entries, int n, int c0, float* payload) {
  for (int t = threadIdx.x; t < n * N; t += THREADS) {
    const int c = c0 + t % N;
    payload[t] = c < tiles.channels ? tiles.features[(int64_t)entries[t / N].source * tiles.channels + c] : 0.0f;
  }
}

// Write `width` channels of the pixels of a warp, one row of the rectangle after the other, next to each other. value(lane, c)
// may read what lane `lane` has put into shared memory in `stage(row)`.
template <typename Stage, typename Value>
__device__ __forceinline__ void write_rectangle(const Views& views, const Pixel& pixel, float* image, int channels, int c0,
                                                int width, const Stage& stage, const Value& value) {
  const int lane = threadIdx.x % 32, across = min(WARP_WIDTH, views.width - pixel.warp_column);
  for (int r = 0; r < WARP_HEIGHT; ++r) {
    stage(r);
    __syncwarp();
    const int y = pixel.warp_row + r;
    float* to = image + (((int64_t)pixel.view * views.height + y) * views.width + pixel.warp_column) * channels + c0;
    const int numbers = y < views.height ? across * width : 0;
    for (int t = lane; t < numbers; t += 32)
      to[(int64_t)(t / width) * channels + t % width] = value(r * WARP_WIDTH + t / width, t % width);
    __syncwarp();
  }
}

// Blend channels [c0, c0 + width), width <= N; depth, alpha and the state come with the first ones. Grid (tiles of the band).
// N = 0: labels, with (width, THREADS + 1) floats of dynamic shared memory for the sums.
template <int N>
__global__ void __launch_bounds__(THREADS, N > 24   ? 2
                                           : N > 12 ? 3
                                                    : 4) blend_kernel(Tiles tiles, Images out, int c0, int width) {
  constexpr int BATCH = 64, ROOM = N > 0 ? N : 1, SUM_STRIDE = THREADS + 1;  // odd: no two channels of a pixel in one bank
  __shared__ Entry entries[BATCH];
  __shared__ uint8_t meets[WARP_BANDS * BATCH];
  __shared__ __align__(16) float payload[BATCH * ROOM];
  extern __shared__ float label_sums[];
  const Views& views = tiles.views;
  const Pixel pixel(views, tiles.first);
  const int begin = tiles.begins[pixel.tile], count = tiles.begins[pixel.tile + 1] - begin;
  const Options& o = views.options;
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;

  float sums[ROOM], depth = 0.0f, light = 1.0f;
  int stop = INT_MAX;
  bool open = pixel.inside;
#pragma unroll
  for (int c = 0; c < ROOM; ++c) sums[c] = 0.0f;
  if constexpr (N == 0) {
    for (int c = 0; c < width; ++c) label_sums[c * SUM_STRIDE + thread] = 0.0f;  // read by this thread only
  }

  for (int base = 0; base < count; base += BATCH) {
    if (!__syncthreads_or(open)) break;  // also: everybody is done with the last batch
    const int n = min(BATCH, count - base);
    load_entries<BATCH>(tiles, pixel, (int64_t)begin + base, n, entries, meets);
    __syncthreads();
    if constexpr (N > 0) {
      load_payload<N>(tiles, entries, n, c0, payload);
      __syncthreads();
    }
    for (int part = 0; part < BATCH / 32; ++part) {
      unsigned rest = entries_of_warp<BATCH>(meets, part, n);
      for (; open && rest; rest &= rest - 1) {
        const int k = part * 32 + __ffs(rest) - 1;
        const Entry& e = entries[k];
        const float value = falloff(e, pixel.column, pixel.row, o.alpha_min);
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
          const int label = e.source - c0;
          if (label >= 0 && label < width) label_sums[label * SUM_STRIDE + thread] += weight;
        }
        light = after;
      }
      __syncwarp();
    }
  }

  if (pixel.inside && c0 == 0) {
    out.depth[pixel.index] = depth;
    out.alpha[pixel.index] = 1.0f - light;
    if (out.light) out.light[pixel.index] = light, out.stop[pixel.index] = stop;
  }
  const float* background = tiles.background + (int64_t)pixel.view * tiles.channels + c0;
  if constexpr (N == 0) {
    for (int c = 0; c < width; ++c) {
      label_sums[c * SUM_STRIDE + thread] = fmaf(light, background[c], label_sums[c * SUM_STRIDE + thread]);
    }
    const auto stage = [](int) {};
    const auto value = [&](int from, int c) { return label_sums[c * SUM_STRIDE + warp * 32 + from]; };
    write_rectangle(views, pixel, out.features, tiles.channels, c0, width, stage, value);
  } else {
    __syncthreads();  // everybody is done with the payload
    static_assert(BATCH >= WARP_WIDTH * WARPS, "the payload has room for a row of pixels per warp");
    float* room = payload + warp * WARP_WIDTH * N;
    const auto stage = [&](int r) {
      if (lane / WARP_WIDTH != r) return;
#pragma unroll
      for (int c = 0; c < N; ++c) {
        if (c < width) room[lane % WARP_WIDTH * width + c] = fmaf(light, background[c], sums[c]);
      }
    };
    const auto value = [&](int from, int c) { return room[from % WARP_WIDTH * width + c]; };
    write_rectangle(views, pixel, out.features, tiles.channels, c0, width, stage, value);
  }
}

}  // namespace cuda
}  // namespace gaussian_rasterization
