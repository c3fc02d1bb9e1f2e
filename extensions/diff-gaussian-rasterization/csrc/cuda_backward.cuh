// Backward pass. A block per tile walks its list back to front in batches and leaves one row of sums per entry; the rows of a
// splat, which lie next to each other, are then added in their order. No atomics on floats: the same bits every time.
#pragma once

#include "cuda_forward.cuh"

namespace gaussian_rasterization {
namespace cuda {

// Gradients of the images of one view (null where none came), its state, and the rows to fill.
struct Backward {
  const float *features, *depth, *alpha, *light;
  const int32_t* stop;
  float* rows;  // (entries, row_width), zero
  int row_width;
  bool need_features;
};

// N: channels that are in registers at a time; 0 for labels, and if no gradient of the features came.
template <int N, bool GEOMETRY>
__global__ void __launch_bounds__(THREADS, 2) blend_backward_kernel(Tiles tiles, Backward back) {
  constexpr int BATCH = 8, ROOM = N > 0 ? N : 1, SCALARS = GEOMETRY ? 7 : 1, PARTIALS = N > SCALARS ? N : SCALARS;
  __shared__ Entry entries[BATCH];
  __shared__ int32_t numbers[BATCH];
  __shared__ __align__(16) float payload[BATCH * ROOM];
  __shared__ float weights[BATCH][THREADS], slopes[BATCH][THREADS];  // a thread touches its own only
  __shared__ float partial[BATCH][WARPS][PARTIALS];
  __shared__ unsigned active[WARPS];  // entries of the batch that the warp sees
  __shared__ int last_stop;
  const View& view = tiles.view;
  const int tile = blockIdx.y * view.tiles_x + blockIdx.x;
  const int begin = tiles.begins[tile], count = tiles.begins[tile + 1] - begin;
  if (count == 0) return;  // the whole block
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int column = blockIdx.x * TILE + thread % TILE, row = (tiles.first + blockIdx.y) * TILE + thread / TILE;
  const bool inside = column < view.width && row < view.height;
  const int64_t pixel = inside ? (int64_t)row * view.width + column : 0;
  const Options& o = view.options;
  const int channels = tiles.channels, blocks = N > 0 ? (channels + ROOM - 1) / ROOM : 0;
  const float* image = back.features && inside ? back.features + pixel * channels : nullptr;
  const float depth = back.depth && inside ? back.depth[pixel] : 0.0f;

  // light: transmittance behind the current splat; behind: sum of weight * q behind it, background included
  float light = 1.0f, behind = 0.0f;
  int stop = 0;
  if (inside) {
    light = back.light[pixel];
    stop = min(back.stop[pixel], count);
    behind = back.alpha ? -back.alpha[pixel] : 0.0f;
    for (int c = 0; image && c < channels; ++c) behind = fmaf(image[c], tiles.background[c], behind);
    behind *= light;
  }
  float g[ROOM];
  const auto load_image = [&](int c0) {
#pragma unroll
    for (int c = 0; c < N; ++c) g[c] = image && c0 + c < channels ? image[c0 + c] : 0.0f;
  };
  if constexpr (N > 0) load_image(0);

  if (thread == 0) last_stop = 0;
  __syncthreads();
  atomicMax(&last_stop, stop);
  __syncthreads();
  const int last = last_stop;

  for (int base = (last - 1) / BATCH * BATCH; last > 0 && base >= 0; base -= BATCH) {
    const int n = min(BATCH, last - base);
    __syncthreads();  // everybody is done with the last batch
    if (thread < n) {
      numbers[thread] = tiles.list[begin + base + thread];
      entries[thread] = make_entry(tiles.splat((int64_t)begin + base + thread));
    }
    __syncthreads();

    unsigned mine = 0, seen = 0;  // entries that the pixel blended, that any pixel of the warp did
    for (int k = 0; k < n; ++k) {
      const float value = base + k < stop ? falloff(entries[k], column, row, o.alpha_min) : 0.0f;
      weights[k][thread] = value;
      float q = depth * entries[k].z;
      if constexpr (N == 0) {
        if (image && tiles.labels && value > 0.0f) q += image[tiles.labels[entries[k].id]];
      }
      slopes[k][thread] = q;
      if (value > 0.0f) mine |= 1u << k;
      if (__any_sync(ALL, value > 0.0f)) seen |= 1u << k;
    }
    if (lane == 0) active[warp] = seen;

    // products q of the gradient image with features and depth
    if constexpr (N > 0) {
      for (int block = 0; block < blocks; ++block) {
        const int c0 = block * N;
        if (block > 0) __syncthreads();
        for (int t = thread; t < n * N; t += THREADS) {
          const int c = c0 + t % N;
          payload[t] = c < channels ? tiles.features[(int64_t)entries[t / N].id * channels + c] : 0.0f;
        }
        __syncthreads();
        if (blocks > 1) load_image(c0);
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
    }

    // back to front: from the products to weights and to h = exp(power) dL/dalpha
    for (int k = n - 1; k >= 0; --k) {
      float weight = 0.0f, h = 0.0f;
      if (mine >> k & 1) {
        const float value = weights[k][thread], q = slopes[k][thread];
        const float raw = value * entries[k].opacity, alpha = fminf(raw, o.alpha_max), inverse = 1.0f / (1.0f - alpha);
        light *= inverse;
        weight = alpha * light;
        h = value * (light * q - behind * inverse);
        behind = fmaf(weight, q, behind);
        if (o.exact_cap && raw > o.alpha_max) h = 0.0f;
      }
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
          if (active[w] >> k & 1) sum += partial[k][w][c];
        }
        back.rows[(int64_t)numbers[k] * back.row_width + offset + c] = sum;
      }
      __syncthreads();
    };
    if constexpr (N > 0) {
      const int index = warp_sum_index<N>(lane);
      for (int block = 0; back.need_features && block < blocks; ++block) {
        if (blocks > 1) load_image(block * N);
        for (int k = 0; k < n; ++k) {
          if (!(seen >> k & 1)) continue;  // the same for all lanes
          const float weight = weights[k][thread];
          float values[N];
#pragma unroll
          for (int c = 0; c < N; ++c) values[c] = weight * g[c];
          warp_sum<N>(values);
          if (index >= 0) partial[k][warp][index] = values[0];
        }
        write(min(N, channels - block * N), N, block * N);
      }
      if (blocks > 1) load_image(0);
    }
    const int index = warp_sum_index<SCALARS>(lane);
    for (int k = 0; k < n; ++k) {
      if (!(seen >> k & 1)) continue;
      float values[SCALARS];
      const float h = slopes[k][thread];
      values[0] = h;
      if constexpr (GEOMETRY) {
        const float dy = entries[k].v - (float)row, across = (entries[k].u - entries[k].slope * dy) - (float)column;
        const float ht = h * across, hy = h * dy;
        values[1] = weights[k][thread] * depth;
        values[2] = ht, values[3] = hy;
        values[4] = ht * across, values[5] = ht * dy, values[6] = hy * dy;
      }
      warp_sum<SCALARS>(values);
      if (index >= 0) partial[k][warp][index] = values[0];
    }
    write(SCALARS, SCALARS, back.need_features ? channels : 0);
  }
}

// A warp per splat adds its rows: features and opacities go to the gradients, all scalars to `scalars` (count, 7).
__global__ void __launch_bounds__(THREADS)
    collect_kernel(Scene scene, const Splat* splats, int64_t count, const int64_t* ends, const float* rows, int row_width,
                   int channels, float* grad_features, float* grad_opacities, float* scalars) {
  const int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
  if (i >= count) return;
  const int64_t begin = i > 0 ? ends[i - 1] : 0, end = ends[i], id = splats[i].id;
  for (int c = threadIdx.x % 32; c < row_width; c += 32) {
    float total = 0.0f;
    for (int64_t r = begin; r < end; ++r) total += rows[r * row_width + c];
    if (c < channels) {
      if (begin < end) grad_features[id * channels + c] += total;
      continue;
    }
    if (c == channels && begin < end && scene.opacities(id) <= 1.0f) grad_opacities[id] += total;
    if (scalars) scalars[i * 7 + (c - channels)] = total;
  }
}

struct ShapeGrads {
  float *means, *quats, *scales;
};

// Chain rule of every splat; (blocks, 12) sums of the gradients of the view matrix.
__global__ void __launch_bounds__(THREADS) geometry_kernel(View view, Scene scene, const Splat* splats, int64_t count,
                                                           const float* scalars, ShapeGrads grads, double* view_sums) {
  __shared__ Camera camera;
  __shared__ double warp_sums[WARPS][12];
  if (threadIdx.x == 0) camera = view.camera();
  __syncthreads();
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  ShapeGrad g;
  bool good = false;
  if (i < count) {
    const Splat s = splats[i];
    const float* t = scalars + i * 7;
    const Moments moments = {t[0], t[2], t[3], t[4], t[5], t[6], t[1]};
    project_backward(camera, view.options, scene.shape(s.id), s, moments, g);
    good = !overflowed(moments, g);
    if (good) {
      for (int j = 0; j < 3; ++j) grads.means[3ll * s.id + j] += g.mean[j], grads.scales[3ll * s.id + j] += g.scale[j];
      for (int j = 0; j < 4; ++j) grads.quats[4ll * s.id + j] += g.quat[j];
    }
  }
#pragma unroll
  for (int j = 0; j < 12; ++j) {
    double sum = good ? (double)g.view[j] : 0.0;
    for (int offset = 16; offset; offset /= 2) sum += __shfl_xor_sync(ALL, sum, offset);
    if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32][j] = sum;
  }
  __syncthreads();
  if (threadIdx.x < 12) {
    double sum = 0.0;
    for (int w = 0; w < WARPS; ++w) sum += warp_sums[w][threadIdx.x];
    view_sums[(int64_t)blockIdx.x * 12 + threadIdx.x] = sum;
  }
}

// One warp for each of the 12 numbers, `blocks` sums of each; the first three rows of the matrix come first.
__global__ void __launch_bounds__(384) view_sum_kernel(const double* view_sums, int64_t blocks, float* grad_view) {
  const int j = threadIdx.x / 32, lane = threadIdx.x % 32;
  double sum = 0.0;
  for (int64_t b = lane; b < blocks; b += 32) sum += view_sums[b * 12 + j];
  for (int offset = 16; offset; offset /= 2) sum += __shfl_xor_sync(ALL, sum, offset);
  if (lane == 0) grad_view[j] += (float)sum;
}

constexpr int64_t BACKGROUND_PIXELS = 4096;

// (chunks, C) sums of light times gradient over BACKGROUND_PIXELS pixels each.
__global__ void __launch_bounds__(THREADS)
    background_kernel(const float* grad, const float* light, int64_t pixels, int channels, double* sums) {
  __shared__ double partial[THREADS];
  const int64_t begin = blockIdx.x * BACKGROUND_PIXELS, end = min(pixels, begin + BACKGROUND_PIXELS);
  for (int c0 = 0; c0 < channels; c0 += THREADS) {
    const int width = min(THREADS, channels - c0), groups = THREADS / width;
    const int c = threadIdx.x % width, group = threadIdx.x / width;
    double sum = 0.0;
    for (int64_t p = begin + group; group < groups && p < end; p += groups) {
      sum += (double)(light[p] * grad[p * channels + c0 + c]);
    }
    partial[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x < width) {
      for (int k = 1; k < groups; ++k) sum += partial[k * width + c];
      sums[(int64_t)blockIdx.x * channels + c0 + c] = sum;
    }
    __syncthreads();
  }
}

__global__ void __launch_bounds__(THREADS) background_sum_kernel(const double* sums, int64_t chunks, int channels, float* out) {
  const int c = blockIdx.x * THREADS + threadIdx.x;
  if (c >= channels) return;
  double total = 0.0;
  for (int64_t k = 0; k < chunks; ++k) total += sums[k * channels + c];
  out[c] = (float)total;
}

}  // namespace cuda
}  // namespace gaussian_rasterization
