// CUDA backend: the operators around the kernels. Same schemas, state and arithmetic as the CPU backend.
//
// Views are rendered one after the other on the current stream. The host waits for the device once per view and pass, to learn
// how many splats and entries there are. Rows of tiles are grouped into bands so that lists and gradient rows stay within a
// budget; usually one band is all.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include <algorithm>
#include <tuple>
#include <vector>

#include "cuda_backward.cuh"
#include "cuda_binning.cuh"
#include "cuda_forward.cuh"
#include "operators.h"

namespace gaussian_rasterization {
namespace cuda {
namespace {

unsigned grid(int64_t count) { return (unsigned)((count + THREADS - 1) / THREADS); }

template <typename T>
const T* optional_pointer(const Tensor& t, int64_t offset) {
  return t.defined() ? t.const_data_ptr<T>() + offset : nullptr;
}

// Device memory of the current stream.
template <typename T>
struct Buffer {
  Buffer() = default;
  Buffer(int64_t count, const at::TensorOptions& options)
      : memory(at::empty({count * (int64_t)sizeof(T)}, options.dtype(at::kByte))) {}
  T* get() const { return reinterpret_cast<T*>(memory.data_ptr()); }
  Tensor memory;
};

// What a call has in common for all views.
struct Job {
  Job(const Call& call, const Tensor& means, const Tensor& quats, const Tensor& scales, const Tensor& opacities,
      const Tensor& features_, const Tensor& viewmats_, const Tensor& Ks_, const Tensor& background_,
      const optional<Tensor>& mask_)
      : call(call),
        scene{means.size(0), rows(means), rows(quats), rows(scales), rows(opacities)},
        features(features_.contiguous()),
        viewmats(viewmats_.contiguous()),
        Ks(Ks_.contiguous()),
        background(background_.contiguous()),
        mask(mask_ ? mask_->contiguous() : Tensor()),
        options(means.options()),
        stream(c10::cuda::getCurrentCUDAStream()) {}

  static Rows rows(const Tensor& t) { return {t.const_data_ptr<float>(), t.stride(0), t.dim() > 1 ? t.stride(1) : 0}; }

  View view(int64_t v) const {
    View view;
    view.options = call.options;
    view.viewmat = viewmats.const_data_ptr<float>() + 16 * v;
    view.K = Ks.const_data_ptr<float>() + 9 * v;
    view.width = call.width, view.height = call.height;
    view.tiles_x = (call.width + TILE - 1) / TILE, view.tiles_y = (call.height + TILE - 1) / TILE;
    view.mask = optional_pointer<bool>(mask, v * view.tiles_x * view.tiles_y);
    return view;
  }

  bool labelled() const { return features.scalar_type() == at::kInt; }
  const int32_t* labels() const { return labelled() ? features.const_data_ptr<int32_t>() : nullptr; }

  Call call;
  Scene scene;
  Tensor features, viewmats, Ks, background, mask;
  at::TensorOptions options;
  cudaStream_t stream;
};

void sort_pairs(const uint32_t* keys, uint32_t* sorted_keys, const int32_t* values, int32_t* sorted_values, int64_t count,
                int bits, const Job& job) {
  size_t bytes = 0;
  C10_CUDA_CHECK(
      cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, sorted_keys, values, sorted_values, count, 0, bits, job.stream));
  const Buffer<char> scratch((int64_t)bytes, job.options);
  C10_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(scratch.get(), bytes, keys, sorted_keys, values, sorted_values, count, 0, bits,
                                                 job.stream));
}

// The splats of one view in depth order.
struct Splats {
  // Forward: fills `radii` and `order` (G,). Backward: `radii` is null and `order` is read.
  Splats(const Job& job, const View& view, int32_t* radii, int32_t* order) : row_entries(view.tiles_y, 0) {
    const int64_t total = job.scene.count;
    if (total == 0) return;
    static_assert(sizeof(Summary) == 2 * sizeof(int64_t), "read as two numbers");
    const Tensor summary = at::zeros({2 + view.tiles_y}, job.options.dtype(at::kLong));
    auto* numbers = reinterpret_cast<unsigned long long*>(summary.data_ptr());
    Buffer<uint32_t> keys;
    Buffer<int32_t> values;
    if (radii) keys = Buffer<uint32_t>(total, job.options), values = Buffer<int32_t>(total, job.options);
    project_kernel<<<grid(total), THREADS, view.tiles_y * sizeof(unsigned), job.stream>>>(
        view, job.scene, radii ? nullptr : order, job.labels(), job.call.channels, radii, radii ? keys.get() : nullptr,
        radii ? values.get() : nullptr, reinterpret_cast<Summary*>(numbers), numbers + 2);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    if (radii) {
      const Buffer<uint32_t> sorted(total, job.options);
      sort_pairs(keys.get(), sorted.get(), values.get(), order, total, 32, job);
    }
    const Tensor host = summary.cpu();
    const int64_t* known = host.const_data_ptr<int64_t>();
    TORCH_CHECK_VALUE(!(known[1] & BAD_LABEL), "gaussian_rasterization: a label is not in 0..", job.call.channels - 1);
    TORCH_CHECK_VALUE(!(known[1] & BAD_ORDER), "gaussian_rasterization: the saved state does not belong to these Gaussians");
    count = known[0];
    std::copy(known + 2, known + 2 + view.tiles_y, row_entries.begin());
    if (radii && count < total) {
      clear_kernel<<<grid(total - count), THREADS, 0, job.stream>>>(order, count, total);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    }
    if (count == 0) return;
    data = Buffer<Splat>(count, job.options);
    splat_kernel<<<grid(count), THREADS, 0, job.stream>>>(view, job.scene, order, count, data.get());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

  // Last row of the band that begins with row `first`: as many rows as stay within `budget` entries, at least one.
  int band_end(int first, int64_t budget, int64_t& entries) const {
    entries = row_entries[first];
    int end = first + 1;
    for (; end < (int)row_entries.size() && entries + row_entries[end] <= budget; ++end) entries += row_entries[end];
    TORCH_CHECK_WITH(OutOfMemoryError, entries < INT32_MAX, "gaussian_rasterization: ", entries,
                     " pairs of Gaussian and tile in one row of tiles are too many");
    return end;
  }

  int64_t count = 0;
  std::vector<int64_t> row_entries;
  Buffer<Splat> data;
};

// The lists of the tiles in rows [first, end).
struct Lists {
  Lists(const Job& job, const View& view, const Splats& splats, int first, int end, int64_t entries, bool numbered)
      : entries(entries) {
    const int count = (end - first) * view.tiles_x;
    if (entries == 0) {
      begins.memory = at::zeros({(count + 1) * (int64_t)sizeof(int32_t)}, job.options.dtype(at::kByte));
      return;
    }
    begins = Buffer<int32_t>(count + 1, job.options);
    ends = Buffer<int64_t>(splats.count, job.options);
    {
      const Buffer<int64_t> counts(splats.count, job.options);
      count_kernel<<<grid(splats.count), THREADS, 0, job.stream>>>(view, splats.data.get(), splats.count, first, end,
                                                                   counts.get());
      C10_CUDA_KERNEL_LAUNCH_CHECK();
      size_t bytes = 0;
      C10_CUDA_CHECK(cub::DeviceScan::InclusiveSum(nullptr, bytes, counts.get(), ends.get(), splats.count, job.stream));
      const Buffer<char> scratch((int64_t)bytes, job.options);
      C10_CUDA_CHECK(cub::DeviceScan::InclusiveSum(scratch.get(), bytes, counts.get(), ends.get(), splats.count, job.stream));
    }
    const Buffer<uint32_t> tiles(entries, job.options), sorted(entries, job.options);
    const Buffer<int32_t> values(entries, job.options);
    list = Buffer<int32_t>(entries, job.options);
    if (numbered) owners = Buffer<int32_t>(entries, job.options);
    emit_kernel<<<grid(splats.count), THREADS, 0, job.stream>>>(view, splats.data.get(), splats.count, first, end, ends.get(),
                                                                entries, tiles.get(), values.get(),
                                                                numbered ? owners.get() : nullptr);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    int bits = 1;  // of tile numbers
    while ((count - 1) >> bits) ++bits;
    sort_pairs(tiles.get(), sorted.get(), values.get(), list.get(), entries, bits, job);
    begin_kernel<<<grid(entries + 1), THREADS, 0, job.stream>>>(sorted.get(), entries, count, begins.get());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

  Tiles tiles(const Job& job, const View& view, const Splats& splats, int64_t v, int first) const {
    Tiles tiles;
    tiles.view = view;
    tiles.first = first;
    tiles.begins = begins.get();
    tiles.list = entries ? list.get() : nullptr;
    tiles.owners = owners.memory.defined() ? owners.get() : nullptr;
    tiles.splats = entries ? splats.data.get() : nullptr;
    tiles.channels = job.call.channels;
    tiles.labels = job.labels();
    tiles.features = job.labelled() ? nullptr : job.features.const_data_ptr<float>();
    tiles.background = job.background.const_data_ptr<float>() + v * job.call.channels;
    return tiles;
  }

  int64_t entries;
  Buffer<int32_t> begins, list, owners;
  Buffer<int64_t> ends;  // of the entries of every splat, numbered in depth order
};

// Channels of a block: as even as possible, at most MAX_BLOCK.
int block_width(int channels) {
  const int blocks = (channels + MAX_BLOCK - 1) / MAX_BLOCK;
  return (channels + blocks - 1) / blocks;
}

using BlendKernel = void (*)(Tiles, Images, int, int);
using BlendBackwardKernel = void (*)(Tiles, Backward);
constexpr int KERNELS = MAX_BLOCK / 4 + 1;  // for 0, 4, 8 .. channels

BlendKernel blend_of(int width) {
  static const BlendKernel kernels[KERNELS] = {blend_kernel<0>,  blend_kernel<4>,  blend_kernel<8>,
                                               blend_kernel<12>, blend_kernel<16>, blend_kernel<20>,
                                               blend_kernel<24>, blend_kernel<28>, blend_kernel<32>};
  return kernels[(width + 3) / 4];
}

template <bool GEOMETRY>
BlendBackwardKernel blend_backward_of(int width) {
  static const BlendBackwardKernel kernels[KERNELS] = {
      blend_backward_kernel<0, GEOMETRY>,  blend_backward_kernel<4, GEOMETRY>,  blend_backward_kernel<8, GEOMETRY>,
      blend_backward_kernel<12, GEOMETRY>, blend_backward_kernel<16, GEOMETRY>, blend_backward_kernel<20, GEOMETRY>,
      blend_backward_kernel<24, GEOMETRY>, blend_backward_kernel<28, GEOMETRY>, blend_backward_kernel<32, GEOMETRY>};
  return kernels[(width + 3) / 4];
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> render(
    const Tensor& means, const Tensor& quats, const Tensor& scales, const Tensor& opacities, const Tensor& features,
    const Tensor& viewmats, const Tensor& Ks, const Tensor& background, const optional<Tensor>& mask, int64_t width,
    int64_t height, double near, double dilation, double alpha_min, double alpha_max, double transmittance_min,
    double scale_modifier, bool offcentre, bool rect12, bool exact_cap, bool keep_state) {
  const Options options =
      options_of(near, dilation, alpha_min, alpha_max, transmittance_min, scale_modifier, offcentre, rect12, exact_cap);
  const Call call =
      check(means, quats, scales, opacities, features, viewmats, Ks, background, mask, width, height, options, at::kCUDA);
  const c10::cuda::CUDAGuard guard(means.device());
  const Job job(call, means, quats, scales, opacities, features, viewmats, Ks, background, mask);
  const int64_t views = call.views, pixels = width * height, count = job.scene.count;

  const auto floats = job.options, ints = job.options.dtype(at::kInt);
  Tensor image = at::empty({views, height, width, call.channels}, floats);
  Tensor depth = at::empty({views, height, width}, floats), alpha = at::empty({views, height, width}, floats);
  Tensor radii = at::empty({views, count}, ints);
  Tensor light = at::empty({keep_state ? views : 0, height, width}, floats);
  Tensor stop = at::empty({keep_state ? views : 0, height, width}, ints);
  Tensor order = at::empty({keep_state ? views : 0, count}, ints);
  const Tensor one_order = keep_state ? Tensor() : at::empty({count}, ints);

  constexpr int64_t ENTRY_BYTES = 4 * sizeof(int32_t);
  const int64_t budget = row_bytes() / ENTRY_BYTES;
  const int block = block_width(call.channels);
  for (int64_t v = 0; v < views; ++v) {
    const View view = job.view(v);
    int32_t* ids = keep_state ? order.mutable_data_ptr<int32_t>() + v * count : one_order.mutable_data_ptr<int32_t>();
    const Splats splats(job, view, radii.mutable_data_ptr<int32_t>() + v * count, ids);
    Images out = {image.mutable_data_ptr<float>() + v * pixels * call.channels, depth.mutable_data_ptr<float>() + v * pixels,
                  alpha.mutable_data_ptr<float>() + v * pixels, nullptr, nullptr};
    if (keep_state) {
      out.light = light.mutable_data_ptr<float>() + v * pixels, out.stop = stop.mutable_data_ptr<int32_t>() + v * pixels;
    }
    for (int first = 0, end; first < view.tiles_y; first = end) {
      int64_t entries;
      end = splats.band_end(first, budget, entries);
      const Lists lists(job, view, splats, first, end, entries, false);
      const Tiles tiles = lists.tiles(job, view, splats, v, first);
      for (int c0 = 0; c0 < call.channels; c0 += block) {
        const int size = std::min(block, call.channels - c0);
        const size_t sums = job.labelled() ? size * THREADS * sizeof(float) : 0;
        blend_of(job.labelled() ? 0 : size)<<<dim3(view.tiles_x, end - first), THREADS, sums, job.stream>>>(tiles, out, c0,
                                                                                                            size);
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      }
    }
  }
  return {image, depth, alpha, radii, light, stop, order};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> render_backward(
    const optional<Tensor>& grad_features_, const optional<Tensor>& grad_depth_, const optional<Tensor>& grad_alpha_,
    const Tensor& means, const Tensor& quats, const Tensor& scales, const Tensor& opacities, const Tensor& features,
    const Tensor& viewmats, const Tensor& Ks, const Tensor& background, const optional<Tensor>& mask, int64_t width,
    int64_t height, double near, double dilation, double alpha_min, double alpha_max, double transmittance_min,
    double scale_modifier, bool offcentre, bool rect12, bool exact_cap, const Tensor& light_, const Tensor& stop_,
    const Tensor& order_, bool need_features, bool need_geometry, bool need_background) {
  const Options options =
      options_of(near, dilation, alpha_min, alpha_max, transmittance_min, scale_modifier, offcentre, rect12, exact_cap);
  const Call call =
      check(means, quats, scales, opacities, features, viewmats, Ks, background, mask, width, height, options, at::kCUDA);
  const c10::cuda::CUDAGuard guard(means.device());
  const Job job(call, means, quats, scales, opacities, features, viewmats, Ks, background, mask);
  const int64_t views = call.views, pixels = width * height, count = job.scene.count, channels = call.channels;
  const at::Device device = means.device();
  const Tensor grad_features = check_grad(grad_features_, "grad_features", 4, views * pixels * channels, device);
  const Tensor grad_depth = check_grad(grad_depth_, "grad_depth", 3, views * pixels, device);
  const Tensor grad_alpha = check_grad(grad_alpha_, "grad_alpha", 3, views * pixels, device);
  const Tensor light = check_image(light_, "light", 3, views * pixels, at::kFloat, device);
  const Tensor stop = check_image(stop_, "stop", 3, views * pixels, at::kInt, device);
  const Tensor order = check_image(order_, "order", 2, views * count, at::kInt, device);
  need_features = need_features && !job.labelled();

  const auto floats = job.options;
  const int64_t shaped = need_geometry ? count : 0;
  Tensor to_means = at::zeros({shaped, 3}, floats), to_quats = at::zeros({shaped, 4}, floats);
  Tensor to_scales = at::zeros({shaped, 3}, floats), to_opacities = at::zeros({count}, floats);
  Tensor to_features = at::zeros({need_features ? count : 0, channels}, floats);
  Tensor to_viewmats = at::zeros({need_geometry ? views : 0, 4, 4}, floats);
  Tensor to_background = at::zeros({need_background ? views : 0, channels}, floats);
  const ShapeGrads shape_grads = {to_means.mutable_data_ptr<float>(), to_quats.mutable_data_ptr<float>(),
                                  to_scales.mutable_data_ptr<float>()};

  // without a gradient of the image no feature gets one
  const bool feature_rows = need_features && grad_features.defined();
  const int row = row_width(call.channels, feature_rows, need_geometry);
  const int64_t budget = row_bytes() / ((5 + row) * (int64_t)sizeof(float));
  const int registers = job.labelled() || !grad_features.defined() ? 0 : block_width(call.channels);
  const BlendBackwardKernel kernel = need_geometry ? blend_backward_of<true>(registers) : blend_backward_of<false>(registers);
  for (int64_t v = 0; v < views; ++v) {
    const View view = job.view(v);
    // read only: there are no radii to fill
    const Splats splats(job, view, nullptr, const_cast<int32_t*>(order.const_data_ptr<int32_t>()) + v * count);
    Backward back;
    back.features = optional_pointer<float>(grad_features, v * pixels * channels);
    back.depth = optional_pointer<float>(grad_depth, v * pixels);
    back.alpha = optional_pointer<float>(grad_alpha, v * pixels);
    back.light = light.const_data_ptr<float>() + v * pixels;
    back.stop = stop.const_data_ptr<int32_t>() + v * pixels;
    back.row_width = row, back.need_features = feature_rows;
    for (int first = 0, end; first < view.tiles_y; first = end) {
      int64_t entries;
      end = splats.band_end(first, budget, entries);
      if (entries == 0) continue;
      const Lists lists(job, view, splats, first, end, entries, true);
      const Tensor rows = at::zeros({entries, row}, floats);
      back.rows = rows.mutable_data_ptr<float>();
      kernel<<<dim3(view.tiles_x, end - first), THREADS, 0, job.stream>>>(lists.tiles(job, view, splats, v, first), back);
      C10_CUDA_KERNEL_LAUNCH_CHECK();

      const Buffer<float> scalars(need_geometry ? splats.count * 7 : 0, floats);
      collect_kernel<<<(unsigned)((splats.count + WARPS - 1) / WARPS), THREADS, 0, job.stream>>>(
          job.scene, splats.data.get(), splats.count, lists.ends.get(), back.rows, row, feature_rows ? call.channels : 0,
          to_features.mutable_data_ptr<float>(), to_opacities.mutable_data_ptr<float>(),
          need_geometry ? scalars.get() : nullptr);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
      if (!need_geometry) continue;
      const int64_t blocks = grid(splats.count);
      const Buffer<double> sums(blocks * 12, floats);
      geometry_kernel<<<(unsigned)blocks, THREADS, 0, job.stream>>>(view, job.scene, splats.data.get(), splats.count,
                                                                    scalars.get(), shape_grads, sums.get());
      C10_CUDA_KERNEL_LAUNCH_CHECK();
      view_sum_kernel<<<1, 12 * 32, 0, job.stream>>>(sums.get(), blocks, to_viewmats.mutable_data_ptr<float>() + 16 * v);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    }
    if (need_background && grad_features.defined()) {
      const int64_t chunks = (pixels + BACKGROUND_PIXELS - 1) / BACKGROUND_PIXELS;
      const Buffer<double> sums(chunks * channels, floats);
      background_kernel<<<(unsigned)chunks, THREADS, 0, job.stream>>>(back.features, back.light, pixels, call.channels,
                                                                      sums.get());
      C10_CUDA_KERNEL_LAUNCH_CHECK();
      background_sum_kernel<<<grid(channels), THREADS, 0, job.stream>>>(sums.get(), chunks, call.channels,
                                                                        to_background.mutable_data_ptr<float>() + v * channels);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    }
  }
  return {to_means, to_quats, to_scales, to_opacities, to_features, to_viewmats, to_background};
}

}  // namespace
}  // namespace cuda
}  // namespace gaussian_rasterization

TORCH_LIBRARY_IMPL(gaussian_rasterization, CUDA, m) {
  m.impl("render", &gaussian_rasterization::cuda::render);
  m.impl("render_backward", &gaussian_rasterization::cuda::render_backward);
}
