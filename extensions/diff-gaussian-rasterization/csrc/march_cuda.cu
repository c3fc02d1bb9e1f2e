// Ray marching on the GPU: the operators around the kernels of march_cuda.cuh. Same schemas and arithmetic as the CPU backend.
//
// A thread marches a ray and leaves its samples; a warp blends the features of a ray. In the backward pass the samples are
// sorted by cell, a warp adds up one cell, and cells that share no voxel are added at a time: no atomics, the same bits in
// every run. Rays are taken in chunks so that their samples stay within a budget; usually one chunk is all. The host never
// waits.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <cub/device/device_radix_sort.cuh>

#include <algorithm>
#include <tuple>

#include "march_cuda.cuh"
#include "operators.h"

namespace gaussian_rasterization {
namespace cuda {
namespace {

unsigned blocks_of(int64_t count, int per_block) { return (unsigned)((count + per_block - 1) / per_block); }

float* float_row(const Tensor& t, int64_t row, int64_t width) {
  return t.defined() && width ? t.mutable_data_ptr<float>() + row * width : nullptr;
}

const float* const_row(const Tensor& t, int64_t row, int64_t width) {
  return t.defined() && width ? t.const_data_ptr<float>() + row * width : nullptr;
}

// Contiguous inputs of one call.
struct MarchInputs {
  MarchInputs(const MarchCall& call, const Tensor& density, const Tensor& features, const Tensor& origins,
              const Tensor& directions, const Tensor& t, const Tensor& transform)
      : call(call),
        density(density.contiguous()),
        features(features.contiguous()),
        origins(origins.contiguous()),
        directions(directions.contiguous()),
        t(t),
        transform(transform.contiguous()),
        floats(density.options()),
        stream(c10::cuda::getCurrentCUDAStream()) {}

  DeviceVolume volume(int64_t b) const {
    return {density.const_data_ptr<float>() + b * call.voxels(),
            const_row(features, b * call.voxels(), call.channels),
            transform.const_data_ptr<float>(),
            {call.size[0], call.size[1], call.size[2]},
            call.channels};
  }

  DeviceRays rays(int64_t b, int64_t first, int64_t count) const {
    DeviceRays r;
    r.origins = origins.const_data_ptr<float>() + 3 * b * call.rays;
    r.directions = directions.const_data_ptr<float>() + 3 * b * call.rays;
    r.t = t.const_data_ptr<float>() + (call.edges ? b * t.stride(0) : 0);
    r.t_ray = call.edges ? t.stride(1) : 0, r.t_step = t.stride(-1);
    r.first = first, r.count = count, r.samples = call.samples, r.edges = call.edges;
    return r;
  }

  // Rays whose samples fit into the budget, at `numbers` of four bytes per sample.
  int64_t chunk(int numbers) const {
    const int64_t samples = std::max<int64_t>(1, row_bytes(1ll << 30) / (4 * (int64_t)numbers));
    return std::max<int64_t>(1, std::min({call.rays, samples / call.samples, (int64_t)INT32_MAX / call.samples}));
  }

  MarchCall call;
  Tensor density, features, origins, directions, t, transform;
  at::TensorOptions floats;
  cudaStream_t stream;
};

constexpr int FORWARD_NUMBERS = 4, STATE_NUMBERS = 10, BACKWARD_NUMBERS = STATE_NUMBERS + 1 + 4;

// Memory of the samples of `rays` rays; `state` for the backward pass.
struct SampleMemory {
  SampleMemory(const MarchInputs& in, int64_t rays, bool state)
      : floats(at::empty({(state ? STATE_NUMBERS : FORWARD_NUMBERS) * (int64_t)in.call.samples, rays}, in.floats)),
        used(at::empty({2, rays}, in.floats)) {
    const int64_t size = in.call.samples * rays;
    float* at = floats.mutable_data_ptr<float>();
    const auto part = [&](int i) { return at + i * size; };
    slots = {part(0), part(1), part(2), part(3), nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
    if (state) {
      slots.light = part(4), slots.slope = part(5), slots.u = part(6), slots.start = part(7), slots.width = part(8);
      slots.number = reinterpret_cast<int32_t*>(part(9));
    }
    slots.used = reinterpret_cast<int32_t*>(used.data_ptr());
    slots.last_light = used.mutable_data_ptr<float>() + rays;
  }
  Tensor floats, used;
  Slots slots;
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> march(const Tensor& density, const Tensor& features,
                                                                         const Tensor& origins, const Tensor& directions,
                                                                         const Tensor& t, const Tensor& transform,
                                                                         MARCH_OPTIONS_DECLARED) {
  const MarchOptions options = MARCH_OPTIONS;
  const MarchCall call = check_march(density, features, origins, directions, t, transform, options, at::kCUDA);
  const c10::cuda::CUDAGuard guard(density.device());
  const MarchInputs in(call, density, features, origins, directions, t, transform);
  const int64_t batch = call.batch, rays = call.rays, samples = call.samples;
  const int64_t distortions = options.distortion ? 1 : 0, kept = options.weights ? samples : 0;
  Tensor sums = at::empty({batch, rays, call.channels}, in.floats), depth = at::empty({batch, rays}, in.floats);
  Tensor alpha = at::empty({batch, rays}, in.floats), light = at::empty({batch, rays}, in.floats);
  Tensor spread = at::empty({batch, rays, distortions}, in.floats), shares = at::zeros({batch, rays, kept}, in.floats);
  Tensor count = at::empty({batch, rays}, in.floats.dtype(at::kInt));
  const int64_t chunk = call.channels ? in.chunk(FORWARD_NUMBERS) : rays;
  for (int64_t b = 0; b < batch; ++b) {
    const DeviceVolume volume = in.volume(b);
    for (int64_t first = 0; first < rays; first += chunk) {
      const int64_t n = std::min(chunk, rays - first), row = b * rays + first;
      const SampleMemory memory(in, call.channels ? n : 0, false);
      const Slots slots = call.channels ? memory.slots : Slots{};
      trace_kernel<<<blocks_of(n, THREADS), THREADS, 0, in.stream>>>(
          options, volume, in.rays(b, first, n), slots,
          MarchValues{nullptr, float_row(depth, row, 1), float_row(alpha, row, 1), float_row(light, row, 1),
                      float_row(spread, row, distortions), float_row(shares, row, kept),
                      count.mutable_data_ptr<int32_t>() + row});
      C10_CUDA_KERNEL_LAUNCH_CHECK();
      if (call.channels == 0) continue;
      gather_kernel<<<blocks_of(n, WARPS), THREADS, 0, in.stream>>>(volume, n, slots, float_row(sums, row, call.channels));
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    }
  }
  return {sums, depth, alpha, light, spread, shares, count};
}

std::tuple<Tensor, Tensor> march_backward(const optional<Tensor>& grad_features_, const optional<Tensor>& grad_depth_,
                                          const optional<Tensor>& grad_alpha_, const optional<Tensor>& grad_light_,
                                          const optional<Tensor>& grad_distortion_, const optional<Tensor>& grad_weights_,
                                          const Tensor& density, const Tensor& features, const Tensor& origins,
                                          const Tensor& directions, const Tensor& t, const Tensor& transform,
                                          MARCH_OPTIONS_DECLARED, bool need_density, bool need_features) {
  const MarchOptions options = MARCH_OPTIONS;
  const MarchCall call = check_march(density, features, origins, directions, t, transform, options, at::kCUDA);
  const c10::cuda::CUDAGuard guard(density.device());
  const MarchInputs in(call, density, features, origins, directions, t, transform);
  const int64_t batch = call.batch, rays = call.rays, samples = call.samples, channels = call.channels;
  const int64_t distortions = options.distortion ? 1 : 0, kept = options.weights ? samples : 0;
  const auto gradient = [&](const optional<Tensor>& grad, const char* name, int64_t width) {
    return check_march_grad(grad, name, batch * rays * width, density.device());
  };
  const Tensor grad_sums = gradient(grad_features_, "grad_features", channels);
  const Tensor grad_depth = gradient(grad_depth_, "grad_depth", 1), grad_alpha = gradient(grad_alpha_, "grad_alpha", 1);
  const Tensor grad_light = gradient(grad_light_, "grad_light", 1);
  const Tensor grad_spread = gradient(grad_distortion_, "grad_distortion", distortions);
  const Tensor grad_shares = gradient(grad_weights_, "grad_weights", kept);
  Tensor to_density = at::zeros(need_density ? density.sizes() : at::IntArrayRef({0}), in.floats);
  Tensor to_features = at::zeros(need_features ? features.sizes() : at::IntArrayRef({0}), in.floats);
  const bool any_features = need_features && grad_sums.defined() && channels > 0;
  if (!need_density && !any_features) return {to_density, to_features};

  const int64_t cells = (int64_t)(call.size[0] + 1) * (call.size[1] + 1) * (call.size[2] + 1);
  TORCH_CHECK_VALUE(cells < INT32_MAX, "march: a grid of ", density.sizes(), " voxels is too large for gradients");
  int bits = 1;  // of the numbers of cells and the one that means none
  while (cells >> bits) ++bits;
  const Tensor begins = at::empty({cells + 1}, in.floats.dtype(at::kInt));
  const int64_t chunk = in.chunk(BACKWARD_NUMBERS);
  for (int64_t b = 0; b < batch; ++b) {
    const DeviceVolume volume = in.volume(b);
    float* density_row = need_density ? float_row(to_density, b, call.voxels()) : nullptr;
    float* features_row = any_features ? float_row(to_features, b * call.voxels(), channels) : nullptr;
    for (int64_t first = 0; first < rays; first += chunk) {
      const int64_t n = std::min(chunk, rays - first), row = b * rays + first, entries = n * samples;
      const SampleMemory memory(in, n, true);
      const DeviceRays some = in.rays(b, first, n);
      const MarchGrads grads = {const_row(grad_sums, row, channels),
                                const_row(grad_depth, row, 1),
                                const_row(grad_alpha, row, 1),
                                const_row(grad_light, row, 1),
                                const_row(grad_spread, row, distortions),
                                const_row(grad_shares, row, kept)};
      trace_kernel<<<blocks_of(n, THREADS), THREADS, 0, in.stream>>>(options, volume, some, memory.slots, MarchValues{});
      C10_CUDA_KERNEL_LAUNCH_CHECK();
      const Tensor values = at::empty({entries}, in.floats), numbers = at::empty({4, entries}, in.floats.dtype(at::kInt));
      float* value = values.mutable_data_ptr<float>();
      int32_t* order = numbers.mutable_data_ptr<int32_t>();
      int32_t* sorted_order = order + entries;
      uint32_t* keys = reinterpret_cast<uint32_t*>(order + 2 * entries);
      uint32_t* sorted_keys = keys + entries;
      if (need_density) {
        value_kernel<<<blocks_of(entries, THREADS), THREADS, 0, in.stream>>>(options, volume, some, memory.slots, grads, value);
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      }
      if (need_density && grads.distortion && options.distortion) {
        distortion_kernel<<<blocks_of(n, THREADS), THREADS, 0, in.stream>>>(options, some, memory.slots, grads.distortion,
                                                                            value);
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      }
      suffix_kernel<<<blocks_of(n, THREADS), THREADS, 0, in.stream>>>(options, volume, some, memory.slots, grads, need_density,
                                                                      value, keys, order);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
      size_t bytes = 0;
      C10_CUDA_CHECK(
          cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, sorted_keys, order, sorted_order, entries, 0, bits, in.stream));
      const Tensor scratch = at::empty({(int64_t)bytes}, in.floats.dtype(at::kByte));
      C10_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(scratch.data_ptr(), bytes, keys, sorted_keys, order, sorted_order, entries,
                                                     0, bits, in.stream));
      int32_t* begin = begins.mutable_data_ptr<int32_t>();
      cell_begin_kernel<<<blocks_of(cells + 1, THREADS), THREADS, 0, in.stream>>>(sorted_keys, entries, cells, begin);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
      for (int parity = 0; parity < 8; ++parity) {
        int64_t count = 1;  // cells of this parity
        for (int a = 0; a < 3; ++a) count *= (call.size[a] + 2 - (parity >> (2 - a) & 1)) / 2;
        if (count == 0) continue;
        add_kernel<<<blocks_of(count, WARPS), THREADS, 0, in.stream>>>(volume, n, memory.slots, value, grads.features, begin,
                                                                       sorted_order, parity, density_row, features_row);
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      }
    }
  }
  return {to_density, to_features};
}

}  // namespace
}  // namespace cuda
}  // namespace gaussian_rasterization

TORCH_LIBRARY_IMPL(gaussian_rasterization, CUDA, m) {
  m.impl("march", &gaussian_rasterization::cuda::march);
  m.impl("march_backward", &gaussian_rasterization::cuda::march_backward);
}
