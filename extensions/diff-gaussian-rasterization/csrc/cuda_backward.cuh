// Backward pass over the tiles. A block per tile walks its list back to front in batches and leaves one row of sums per entry;
// the rows of a splat, which lie next to each other, are then added in their order (cuda_collect.cuh). No atomics on floats:
// the same bits every time.
#pragma once

#include "cuda_forward.cuh"

namespace gaussian_rasterization {
namespace cuda {

// Gradients of the images of all views (null where none came), their state, and the rows to fill.
struct Backward {
  const float* __restrict__ features, * __restrict__ depth, * __restrict__ alpha;  // (V, H, W, C), (V, H, W), (V, H, W)
  const float* __restrict__ light;                                                 // (V, H, W)
  const int32_t* __restrict__ stop;                                                // (V, H, W)
  const int32_t* __restrict__ numbers;  // (entries,) in the order of the lists: the row of an entry
  float* __restrict__ rows;             // (entries, row_width); the kernels write every number of it
  int row_width;
  bool need_features;
};

// What a pixel knows while it goes through its list from the back.
struct Walk {
  float light;   // transmittance behind the current splat
  float behind;  // sum of weight * q behind it, background included; q = gradient of the image times features and depth
  int stop;

  // From exp(power) and q of the next splat to its weight and to h = exp(power) dL/dalpha.
  __device__ __forceinline__ void step(const Options& o, float value, float opacity, float q, float& weight, float& h) {
    const float raw = value * opacity, alpha = fminf(raw, o.alpha_max), inverse = 1.0f / (1.0f - alpha);
    light *= inverse;
    weight = alpha * light;
    h = o.exact_cap && raw > o.alpha_max ? 0.0f : value * (light * q - behind * inverse);
    behind = fmaf(weight, q, behind);
  }
};

// h and, with GEOMETRY, the moments of a pair in the order of a gradient row: h, z, t, y, tt, ty, yy.
template <bool GEOMETRY>
__device__ __forceinline__ void moments_of_pair(const Entry& e, const Pixel& pixel, float h, float weight, float depth,
                                                float* values) {
  values[0] = h;
  if constexpr (GEOMETRY) {
    const float dy = e.v - (float)pixel.row, across = (e.u - e.slope * dy) - (float)pixel.column;
    const float ht = h * across, hy = h * dy;
    values[1] = weight * depth;
    values[2] = ht, values[3] = hy;
    values[4] = ht * across, values[5] = ht * dy, values[6] = hy * dy;
  }
}

// The last stop of all pixels of a tile; `shared` is one number.
__device__ __forceinline__ int last_stop(int stop, int* shared) {
  if (threadIdx.x == 0) *shared = 0;
  __syncthreads();
  atomicMax(shared, stop);
  __syncthreads();
  return *shared;
}

// Rows of entries [last, count) of a tile, behind which no pixel looks.
__device__ __forceinline__ void clear_rows(const Backward& back, int64_t begin, int last, int count) {
  const int64_t numbers = (int64_t)(count - last) * back.row_width;
  for (int64_t t = threadIdx.x; t < numbers; t += THREADS) {
    back.rows[(int64_t)back.numbers[begin + last + t / back.row_width] * back.row_width + t % back.row_width] = 0.0f;
  }
}

// All channels at once: N >= channels, or N = 0 for labels and if no gradient of the features came. A warp goes through the
// entries it may reach by itself and leaves its sums in shared memory; the block adds the warps in their order.
// Grid (tiles of the band).
template <int N, bool GEOMETRY>
__global__ void __launch_bounds__(THREADS, N > 24 ? 2 : 3) blend_backward_kernel(Tiles tiles, Backward back) {
  constexpr int BATCH = 32, ROOM = N > 0 ? N : 1, SCALARS = GEOMETRY ? 7 : 1, SUMS = N + SCALARS;
  __shared__ Entry entries[BATCH];
  __shared__ uint8_t meets[WARP_BANDS * BATCH];
  __shared__ int32_t numbers[BATCH];
  __shared__ __align__(16) float payload[BATCH * ROOM];
  __shared__ float partial[BATCH][WARPS][SUMS];
  __shared__ unsigned seen_by[WARPS];  // entries of the batch that a pixel of the warp blended
  __shared__ int shared_stop;
  const Views& views = tiles.views;
  const Pixel pixel(views, tiles.first);
  const int begin = tiles.begins[pixel.tile], count = tiles.begins[pixel.tile + 1] - begin;
  if (count == 0) return;  // the whole block
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, channels = tiles.channels;
  const Options& o = views.options;
  const float* image = back.features && pixel.inside ? back.features + pixel.index * channels : nullptr;
  const float* background = tiles.background + (int64_t)pixel.view * channels;
  const float depth = back.depth && pixel.inside ? back.depth[pixel.index] : 0.0f;

  Walk walk = {1.0f, 0.0f, 0};
  float g[ROOM];
#pragma unroll
  for (int c = 0; c < N; ++c) g[c] = image && c < channels ? image[c] : 0.0f;
  if (pixel.inside) {
    walk.light = back.light[pixel.index];
    walk.stop = min(back.stop[pixel.index], count);
    walk.behind = back.alpha ? -back.alpha[pixel.index] : 0.0f;
    if constexpr (N > 0) {
#pragma unroll
      for (int c = 0; c < N; ++c) {
        if (c < channels) walk.behind = fmaf(g[c], background[c], walk.behind);
      }
    } else {
      for (int c = 0; image && c < channels; ++c) walk.behind = fmaf(image[c], background[c], walk.behind);
    }
    walk.behind *= walk.light;
  }
  const int last = last_stop(walk.stop, &shared_stop);
  clear_rows(back, begin, last, count);

  const int feature_sums = N > 0 && back.need_features ? N : 0, offset = back.need_features ? channels : 0;
  const int feature_index = N > 0 ? warp_sum_index<ROOM>(lane) : -1, scalar_index = warp_sum_index<SCALARS>(lane);
  for (int base = (last - 1) / BATCH * BATCH; last > 0 && base >= 0; base -= BATCH) {
    const int n = min(BATCH, last - base);
    __syncthreads();  // everybody is done with the last batch
    if (thread < n) numbers[thread] = back.numbers[begin + base + thread];
    load_entries<BATCH>(tiles, pixel, (int64_t)begin + base, n, entries, meets);
    __syncthreads();
    if constexpr (N > 0) {
      load_payload<N>(tiles, entries, n, 0, payload);
      __syncthreads();
    }

    unsigned seen = 0;
    for (unsigned rest = entries_of_warp<BATCH>(meets, 0, n); rest;) {  // back to front
      const int k = 31 - __clz(rest);
      rest &= ~(1u << k);
      const Entry& e = entries[k];
      const float value = base + k < walk.stop ? falloff(e, pixel.column, pixel.row, o.alpha_min) : 0.0f;
      if (!__any_sync(ALL, value > 0.0f)) continue;
      seen |= 1u << k;
      float weight = 0.0f, h = 0.0f;
      if (value > 0.0f) {
        float even = depth * e.z, odd = 0.0f;
        if constexpr (N > 0) {
          const float4* from = reinterpret_cast<const float4*>(payload + k * N);
#pragma unroll
          for (int c = 0; c < N / 4; ++c) {
            const float4 f = from[c];
            even = fmaf(g[4 * c], f.x, even), odd = fmaf(g[4 * c + 1], f.y, odd);
            even = fmaf(g[4 * c + 2], f.z, even), odd = fmaf(g[4 * c + 3], f.w, odd);
          }
        } else {
          if (image && tiles.labels) even += image[e.source];
        }
        walk.step(o, value, e.opacity, even + odd, weight, h);
      }
      if constexpr (N > 0) {
        if (feature_sums) {  // the same for all threads
          float values[N];
#pragma unroll
          for (int c = 0; c < N; ++c) values[c] = weight * g[c];
          warp_sum<N>(values);
          if (feature_index >= 0) partial[k][warp][feature_index] = values[0];
        }
      }
      float values[SCALARS];
      moments_of_pair<GEOMETRY>(e, pixel, h, weight, depth, values);
      warp_sum<SCALARS>(values);
      if (scalar_index >= 0) partial[k][warp][N + scalar_index] = values[0];
    }
    if (lane == 0) seen_by[warp] = seen;
    __syncthreads();

    // sums over the warps in their order
    for (int t = thread; t < n * back.row_width; t += THREADS) {
      const int k = t / back.row_width, c = t % back.row_width, from = c < offset ? c : c - offset + N;
      float sum = 0.0f;
      for (int w = 0; w < WARPS; ++w) {
        if (seen_by[w] >> k & 1) sum += partial[k][w][from];
      }
      back.rows[(int64_t)numbers[k] * back.row_width + c] = sum;
    }
  }
}

// More channels than fit into registers at once: N of them at a time, in batches whose weights stay in shared memory between
// the passes. Grid (tiles of the band).
template <int N, bool GEOMETRY>
__global__ void __launch_bounds__(THREADS, 2) blend_backward_wide_kernel(Tiles tiles, Backward back) {
  constexpr int BATCH = 8, SCALARS = GEOMETRY ? 7 : 1, PARTIALS = N > SCALARS ? N : SCALARS;
  __shared__ Entry entries[BATCH];
  __shared__ int32_t numbers[BATCH];
  __shared__ __align__(16) float payload[BATCH * N];
  __shared__ float weights[BATCH][THREADS], slopes[BATCH][THREADS];  // a thread touches its own only
  __shared__ float partial[BATCH][WARPS][PARTIALS];
  __shared__ unsigned seen_by[WARPS];
  __shared__ int shared_stop;
  const Views& views = tiles.views;
  const Pixel pixel(views, tiles.first);
  const int begin = tiles.begins[pixel.tile], count = tiles.begins[pixel.tile + 1] - begin;
  if (count == 0) return;  // the whole block
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const Options& o = views.options;
  const int channels = tiles.channels, passes = (channels + N - 1) / N;
  const float* image = back.features && pixel.inside ? back.features + pixel.index * channels : nullptr;
  const float* background = tiles.background + (int64_t)pixel.view * channels;
  const float depth = back.depth && pixel.inside ? back.depth[pixel.index] : 0.0f;

  Walk walk = {1.0f, 0.0f, 0};
  if (pixel.inside) {
    walk.light = back.light[pixel.index];
    walk.stop = min(back.stop[pixel.index], count);
    walk.behind = back.alpha ? -back.alpha[pixel.index] : 0.0f;
    for (int c = 0; image && c < channels; ++c) walk.behind = fmaf(image[c], background[c], walk.behind);
    walk.behind *= walk.light;
  }
  float g[N];
  const auto load_image = [&](int c0) {
#pragma unroll
    for (int c = 0; c < N; ++c) g[c] = image && c0 + c < channels ? image[c0 + c] : 0.0f;
  };
  const int last = last_stop(walk.stop, &shared_stop);
  clear_rows(back, begin, last, count);

  for (int base = (last - 1) / BATCH * BATCH; last > 0 && base >= 0; base -= BATCH) {
    const int n = min(BATCH, last - base);
    __syncthreads();  // everybody is done with the last batch
    if (thread < n) {
      numbers[thread] = back.numbers[begin + base + thread];
      entries[thread] = make_entry(tiles.splats[tiles.list[begin + base + thread]], nullptr);
    }
    __syncthreads();

    unsigned mine = 0, seen = 0;  // entries that the pixel blended, that any pixel of the warp did
    for (int k = 0; k < n; ++k) {
      const float value = base + k < walk.stop ? falloff(entries[k], pixel.column, pixel.row, o.alpha_min) : 0.0f;
      weights[k][thread] = value;
      slopes[k][thread] = depth * entries[k].z;
      if (value > 0.0f) mine |= 1u << k;
      if (__any_sync(ALL, value > 0.0f)) seen |= 1u << k;
    }
    if (lane == 0) seen_by[warp] = seen;

    // products q of the gradient image with features and depth
    for (int pass = 0; pass < passes; ++pass) {
      if (pass > 0) __syncthreads();
      load_payload<N>(tiles, entries, n, pass * N, payload);
      __syncthreads();
      load_image(pass * N);
      for (int k = 0; k < n; ++k) {
        if (!(mine >> k & 1)) continue;
        const float4* from = reinterpret_cast<const float4*>(payload + k * N);
        float even = slopes[k][thread], odd = 0.0f;
#pragma unroll
        for (int c = 0; c < N / 4; ++c) {
          const float4 f = from[c];
          even = fmaf(g[4 * c], f.x, even), odd = fmaf(g[4 * c + 1], f.y, odd);
          even = fmaf(g[4 * c + 2], f.z, even), odd = fmaf(g[4 * c + 3], f.w, odd);
        }
        slopes[k][thread] = even + odd;
      }
    }

    for (int k = n - 1; k >= 0; --k) {  // back to front
      float weight = 0.0f, h = 0.0f;
      if (mine >> k & 1) walk.step(o, weights[k][thread], entries[k].opacity, slopes[k][thread], weight, h);
      weights[k][thread] = weight;
      slopes[k][thread] = h;
    }

    // sums over the tile: lanes by shuffles, then the warps in their order
    const auto write = [&](int width, int stride, int offset) {
      __syncthreads();
      for (int t = thread; t < n * stride; t += THREADS) {
        const int k = t / stride, c = t % stride;
        if (c >= width) continue;
        float sum = 0.0f;
        for (int w = 0; w < WARPS; ++w) {
          if (seen_by[w] >> k & 1) sum += partial[k][w][c];
        }
        back.rows[(int64_t)numbers[k] * back.row_width + offset + c] = sum;
      }
      __syncthreads();
    };
    const int index = warp_sum_index<N>(lane);
    for (int pass = 0; back.need_features && pass < passes; ++pass) {
      load_image(pass * N);
      for (int k = 0; k < n; ++k) {
        if (!(seen >> k & 1)) continue;  // the same for all lanes
        const float weight = weights[k][thread];
        float values[N];
#pragma unroll
        for (int c = 0; c < N; ++c) values[c] = weight * g[c];
        warp_sum<N>(values);
        if (index >= 0) partial[k][warp][index] = values[0];
      }
      write(min(N, channels - pass * N), N, pass * N);
    }
    const int scalar_index = warp_sum_index<SCALARS>(lane);
    for (int k = 0; k < n; ++k) {
      if (!(seen >> k & 1)) continue;
      float values[SCALARS];
      moments_of_pair<GEOMETRY>(entries[k], pixel, slopes[k][thread], weights[k][thread], depth, values);
      warp_sum<SCALARS>(values);
      if (scalar_index >= 0) partial[k][warp][scalar_index] = values[0];
    }
    write(SCALARS, SCALARS, back.need_features ? channels : 0);
  }
}

}  // namespace cuda
}  // namespace gaussian_rasterization
