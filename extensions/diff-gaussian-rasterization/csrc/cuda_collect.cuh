// From the rows of the entries to the gradients of the inputs. One launch per view: a Gaussian that several views see gets
// their shares in the order of the views.
#pragma once

#include "cuda_common.cuh"

namespace gaussian_rasterization {
namespace cuda {

constexpr int LONG = 512;  // rows of a splat that a whole block adds

// Add the rows of every splat, a warp each, in their order; those of a splat that has more than LONG are shared among the warps
// of the block. Grid (splats of the view / WARPS), THREADS. splats, ends: of the view, where `ends` counts the rows of all
// views and begins at `first`; rows: (entries, row_width). Features and opacities go to the gradients (G, C), (G,), all scalars
// to `scalars` (splats of the view, 7) if it is not null.
__global__ void __launch_bounds__(THREADS)
    collect_kernel(Scene scene, const Splat* __restrict__ splats, int64_t count, const int32_t* __restrict__ ends, bool first,
                   const float* __restrict__ rows, int row_width, int channels, float* __restrict__ grad_features,
                   float* __restrict__ grad_opacities, float* __restrict__ scalars) {
  __shared__ float partial[WARPS][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t base = (int64_t)blockIdx.x * WARPS;
  const auto begin_of = [&](int64_t i) { return (int64_t)(first && i == 0 ? 0 : ends[i - 1]); };
  const auto add = [&](int64_t i, int c, bool any, float total) {
    const int64_t id = splats[i].id;
    if (c < channels) {
      if (any) grad_features[id * channels + c] += total;
      return;
    }
    if (c == channels && any && scene.opacities(id) <= 1.0f) grad_opacities[id] += total;
    if (scalars) scalars[i * 7 + (c - channels)] = total;
  };
  const auto sum = [&](int64_t begin, int64_t end, int c) {
    float total = 0.0f;
    for (int64_t r = begin; r < end; ++r) total += rows[r * row_width + c];
    return total;
  };

  const int64_t mine = base + warp;
  if (mine < count) {
    const int64_t begin = begin_of(mine), end = ends[mine];
    for (int c = lane; end - begin <= LONG && c < row_width; c += 32) add(mine, c, begin < end, sum(begin, end, c));
  }
  for (int64_t i = base; i < min(base + WARPS, count); ++i) {  // the same for all threads
    const int64_t begin = begin_of(i), end = ends[i], share = (end - begin + WARPS - 1) / WARPS;
    if (end - begin <= LONG) continue;
    for (int c0 = 0; c0 < row_width; c0 += 32) {
      const int c = c0 + lane;
      const int64_t from = min(end, begin + warp * share);
      partial[warp][lane] = c < row_width ? sum(from, min(end, from + share), c) : 0.0f;
      __syncthreads();
      if (warp == 0 && c < row_width) {
        float total = 0.0f;
        for (int w = 0; w < WARPS; ++w) total += partial[w][lane];
        add(i, c, true, total);
      }
      __syncthreads();
    }
  }
}

struct ShapeGrads {
  float* __restrict__ means, * __restrict__ quats, * __restrict__ scales;
};

// Chain rule of every splat of view v. Grid (splats of the view / THREADS). splats: (count,), scalars: (count, 7), of the view;
// grads: (G, 3), (G, 4), (G, 3); view_sums: (blocks, 12) sums of the gradients of the view matrix.
__global__ void __launch_bounds__(THREADS)
    geometry_kernel(Views views, int v, Scene scene, const Splat* __restrict__ splats, int64_t count,
                    const float* __restrict__ scalars, ShapeGrads grads, double* __restrict__ view_sums) {
  __shared__ Camera camera;
  __shared__ double warp_sums[WARPS][12];
  if (threadIdx.x == 0) camera = views.camera(v);
  __syncthreads();
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  ShapeGrad g;
  bool good = false;
  if (i < count) {
    const Splat s = splats[i];
    const float* t = scalars + i * 7;
    const Moments moments = {t[0], t[2], t[3], t[4], t[5], t[6], t[1]};
    project_backward(camera, views.options, scene.shape(s.id), s, moments, g);
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

// One block of a warp for each of the 12 numbers. view_sums: (blocks, 12); grad_view: (4, 4), its first three rows are these.
__global__ void __launch_bounds__(384)
    view_sum_kernel(const double* __restrict__ view_sums, int64_t blocks, float* __restrict__ grad_view) {
  const int j = threadIdx.x / 32, lane = threadIdx.x % 32;
  double sum = 0.0;
  for (int64_t b = lane; b < blocks; b += 32) sum += view_sums[b * 12 + j];
  for (int offset = 16; offset; offset /= 2) sum += __shfl_xor_sync(ALL, sum, offset);
  if (lane == 0) grad_view[j] += (float)sum;
}

constexpr int64_t BACKGROUND_PIXELS = 4096;

// Sums of light times gradient over BACKGROUND_PIXELS pixels each. Grid (chunks, V).
// grad: (V, pixels, C); light: (V, pixels); sums: (V, chunks, C).
__global__ void __launch_bounds__(THREADS) background_kernel(const float* __restrict__ grad, const float* __restrict__ light,
                                                             int64_t pixels, int channels, double* __restrict__ sums) {
  __shared__ double partial[THREADS];
  const int64_t begin = blockIdx.x * BACKGROUND_PIXELS, end = min(pixels, begin + BACKGROUND_PIXELS);
  grad += (int64_t)blockIdx.y * pixels * channels, light += (int64_t)blockIdx.y * pixels;
  sums += ((int64_t)blockIdx.y * gridDim.x + blockIdx.x) * channels;
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
      sums[c0 + c] = sum;
    }
    __syncthreads();
  }
}

// Grid (C / THREADS, V). sums: (V, chunks, C); out: (V, C).
__global__ void __launch_bounds__(THREADS)
    background_sum_kernel(const double* __restrict__ sums, int64_t chunks, int channels, float* __restrict__ out) {
  const int c = blockIdx.x * THREADS + threadIdx.x;
  if (c >= channels) return;
  double total = 0.0;
  for (int64_t k = 0; k < chunks; ++k) total += sums[(blockIdx.y * chunks + k) * channels + c];
  out[(int64_t)blockIdx.y * channels + c] = (float)total;
}

}  // namespace cuda
}  // namespace gaussian_rasterization
