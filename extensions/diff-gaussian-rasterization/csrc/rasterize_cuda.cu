// CUDA backend: the operators around the kernels. Same schemas and arithmetic as the CPU backend.
//
// All views of a call go through one sequence of launches on the current stream; the host waits for the device once, to learn
// how many splats and entries there are. Rows of tiles, of all views one after the other, are grouped into bands so that lists
// and gradient rows stay within a budget; usually one band is all. Then the forward pass leaves splats and lists for the
// backward pass, which waits for nothing.
#include <ATen/ops/full.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <tuple>

#include "cuda_backward.cuh"
#include "cuda_collect.cuh"
#include "cuda_forward.cuh"
#include "cuda_lists.cuh"

namespace gaussian_rasterization {
namespace cuda {
namespace {

// Bytes of lists and gradient rows held at a time, unless the environment says otherwise.
constexpr int64_t ROW_BYTES = 4ll << 30;
constexpr int64_t ENTRY_BYTES = 6 * sizeof(int32_t);  // of a list while it is made

template <typename T>
const T* optional_pointer(const Tensor& t) {
  return t.defined() ? t.const_data_ptr<T>() : nullptr;
}

// Where splats and lists lie behind `order` (V, G) in its storage, in numbers of four bytes.
struct Layout {
  Layout(const Job& job, const Counts& counts)
      : splats((job.call.views * job.scene.count + 15) / 16 * 16),  // aligned like a Splat
        ends(splats + counts.splats * (int64_t)(sizeof(Splat) / sizeof(int32_t))),
        begins(ends + counts.splats),
        list(begins + job.tile_rows() * job.views.tiles_x + 1),
        numbers(list + counts.entries),
        size(numbers + counts.entries) {}
  Lists lists(int32_t* memory, const Job& job, const Counts& counts) const {
    return {0, (int)job.tile_rows(), counts.entries, memory + begins, memory + list, memory + numbers, memory + ends};
  }
  int64_t splats, ends, begins, list, numbers, size;
};

// Whether one band is all in both passes, so that it is worth keeping the lists.
bool fits(const Job& job, const Counts& counts, int64_t budget) {
  const int64_t row = (5 + row_width(job.call.channels, !job.labelled(), true)) * (int64_t)sizeof(float);
  return counts.entries * std::max(row, ENTRY_BYTES) <= budget && counts.entries < INT32_MAX;
}

Tiles tiles_of(const Job& job, const Lists& lists, const Splat* splats) {
  Tiles tiles;
  tiles.views = job.views;
  tiles.first = lists.first;
  tiles.begins = lists.begins, tiles.list = lists.list, tiles.splats = splats;
  tiles.channels = job.call.channels;
  tiles.labels = job.labels();
  tiles.features = job.labelled() ? nullptr : job.features.const_data_ptr<float>();
  tiles.background = job.background.const_data_ptr<float>();
  return tiles;
}

// Lists of one band in memory of their own; the tensors keep it alive.
struct BandMemory {
  BandMemory(const Job& job, int64_t splats, int first, int end, int64_t entries, bool numbered)
      : begins((int64_t)(end - first) * job.views.tiles_x + 1, job.floats),
        list(entries, job.floats),
        numbers(numbered ? entries : 0, job.floats),
        ends(splats, job.floats),
        lists{first, end, entries, begins.get(), list.get(), numbered ? numbers.get() : nullptr, ends.get()} {
    if (entries == 0) begins.memory.zero_();
  }
  Buffer<int32_t> begins, list, numbers, ends;
  Lists lists;
};

// Channels of a pass: as even as possible, at most CHANNELS_PER_PASS.
int pass_width(int channels) {
  const int passes = (channels + CHANNELS_PER_PASS - 1) / CHANNELS_PER_PASS;
  return (channels + passes - 1) / passes;
}

using BlendKernel = void (*)(Tiles, Images, int, int);
using BlendBackwardKernel = void (*)(Tiles, Backward);
constexpr int KERNELS = CHANNELS_PER_PASS / 4 + 1;  // for 0, 4, 8 .. channels

BlendKernel blend_of(int width) {
  static const BlendKernel kernels[KERNELS] = {blend_kernel<0>,  blend_kernel<4>,  blend_kernel<8>,
                                               blend_kernel<12>, blend_kernel<16>, blend_kernel<20>,
                                               blend_kernel<24>, blend_kernel<28>, blend_kernel<32>};
  return kernels[(width + 3) / 4];
}

template <bool GEOMETRY>
BlendBackwardKernel blend_backward_of(int width, bool one_pass) {
  static const BlendBackwardKernel kernels[KERNELS] = {
      blend_backward_kernel<0, GEOMETRY>,  blend_backward_kernel<4, GEOMETRY>,  blend_backward_kernel<8, GEOMETRY>,
      blend_backward_kernel<12, GEOMETRY>, blend_backward_kernel<16, GEOMETRY>, blend_backward_kernel<20, GEOMETRY>,
      blend_backward_kernel<24, GEOMETRY>, blend_backward_kernel<28, GEOMETRY>, blend_backward_kernel<32, GEOMETRY>};
  // two passes and more have more than CHANNELS_PER_PASS / 2 channels each
  static const BlendBackwardKernel wide[] = {blend_backward_wide_kernel<20, GEOMETRY>, blend_backward_wide_kernel<24, GEOMETRY>,
                                             blend_backward_wide_kernel<28, GEOMETRY>,
                                             blend_backward_wide_kernel<32, GEOMETRY>};
  return one_pass ? kernels[(width + 3) / 4] : wide[(width + 3) / 4 - 5];
}

// Blend the tiles of a band, all channels.
void blend(const Job& job, const Lists& lists, const Splat* splats, const Images& out) {
  const Tiles tiles = tiles_of(job, lists, splats);
  const int channels = job.call.channels, step = pass_width(channels);
  const unsigned blocks = (unsigned)((lists.end - lists.first) * job.views.tiles_x);
  for (int c0 = 0; c0 < channels; c0 += step) {
    const int width = std::min(step, channels - c0);
    const size_t sums = job.labelled() ? width * (THREADS + 1) * sizeof(float) : 0;
    blend_of(job.labelled() ? 0 : width)<<<blocks, THREADS, sums, job.stream>>>(tiles, out, c0, width);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
}

using State = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

State render(const Tensor& means, const Tensor& quats, const Tensor& scales, const Tensor& opacities, const Tensor& features,
             const Tensor& viewmats, const Tensor& Ks, const Tensor& background, const optional<Tensor>& mask, int64_t width,
             int64_t height, double near, double dilation, double alpha_min, double alpha_max, double transmittance_min,
             double scale_modifier, bool offcentre, bool rect12, bool exact_cap, bool keep_state) {
  const Options options =
      options_of(near, dilation, alpha_min, alpha_max, transmittance_min, scale_modifier, offcentre, rect12, exact_cap);
  const Call call =
      check(means, quats, scales, opacities, features, viewmats, Ks, background, mask, width, height, options, at::kCUDA);
  const c10::cuda::CUDAGuard guard(means.device());
  const Job job(call, means, quats, scales, opacities, features, viewmats, Ks, background, mask);
  const int64_t views = call.views, count = job.scene.count, kept = keep_state ? views : 0;

  const auto floats = job.floats, ints = job.floats.dtype(at::kInt);
  Tensor image = at::empty({views, height, width, call.channels}, floats);
  Tensor depth = at::empty({views, height, width}, floats), alpha = at::empty({views, height, width}, floats);
  Tensor radii = at::empty({views, count}, ints);
  Tensor light = at::empty({kept, height, width}, floats), stop = at::empty({kept, height, width}, ints);
  Tensor state = at::empty({kept, 2 + job.views.tiles_y}, at::TensorOptions().dtype(at::kLong));
  Images out = {image.mutable_data_ptr<float>(), depth.mutable_data_ptr<float>(), alpha.mutable_data_ptr<float>(), nullptr,
                nullptr};
  if (keep_state) out.light = light.mutable_data_ptr<float>(), out.stop = stop.mutable_data_ptr<int32_t>();

  const DeviceCounts device(job);
  Tensor host = at::zeros(device.memory.sizes(), at::TensorOptions().dtype(at::kLong));
  Projected projected;
  if (count > 0) {
    projected = project_views(job, radii.mutable_data_ptr<int32_t>(), device);
    host = read_counts(job, device);
  }
  const Counts counts(host.const_data_ptr<int64_t>() + 1, job, 1 + job.views.tiles_y, 1);
  for (int64_t v = 0; v < kept; ++v) {
    const int64_t* from = host.const_data_ptr<int64_t>() + 1 + v * (1 + job.views.tiles_y);
    int64_t* to = state.mutable_data_ptr<int64_t>() + v * (2 + job.views.tiles_y);
    to[0] = from[0], to[1] = options.cull;
    std::copy(from + 1, from + 1 + job.views.tiles_y, to + 2);
  }

  const int64_t budget = row_bytes(ROW_BYTES);
  const Layout layout(job, counts);
  const bool keep_lists = keep_state && counts.splats > 0 && fits(job, counts, budget);
  Tensor memory = at::empty({keep_lists ? layout.size : kept * count}, ints);
  Tensor order = memory.narrow(0, 0, kept * count).view({kept, count});
  Buffer<Splat> own_splats;
  Splat* splats = nullptr;
  if (keep_state) order.fill_(-1);
  if (counts.splats > 0) {
    if (!keep_lists) own_splats = Buffer<Splat>(counts.splats, floats);
    splats = keep_lists ? reinterpret_cast<Splat*>(memory.mutable_data_ptr<int32_t>() + layout.splats) : own_splats.get();
    const Buffer<int32_t> ids = sort_by_depth(job, projected, counts);
    make_splats(job, counts, ids.get(), 0, splats, keep_state ? order.mutable_data_ptr<int32_t>() : nullptr, device);
  }
  if (keep_lists) {
    const Lists lists = layout.lists(memory.mutable_data_ptr<int32_t>(), job, counts);
    if (lists.entries > 0) {
      bin_tiles(job, splats, counts.splats, lists);
    } else {
      memory.narrow(0, layout.begins, layout.list - layout.begins).zero_();
    }
    blend(job, lists, splats, out);
    return {image, depth, alpha, radii, light, stop, order, state};
  }
  for (int first = 0, end; first < job.tile_rows(); first = end) {
    int64_t entries;
    end = counts.band_end(first, budget / ENTRY_BYTES, entries);
    const BandMemory band(job, counts.splats, first, end, entries, false);
    if (entries > 0) bin_tiles(job, splats, counts.splats, band.lists);
    blend(job, band.lists, splats, out);
  }
  return {image, depth, alpha, radii, light, stop, order, state};
}

struct Gradients {
  Tensor means, quats, scales, opacities, features, viewmats;
};

// Add the rows of a band to the gradients of the inputs.
void collect(const Job& job, const Counts& counts, const Splat* splats, const Lists& lists, const Backward& back,
             Gradients& grads) {
  const bool geometry = grads.viewmats.size(0) > 0;
  const ShapeGrads shapes = {grads.means.mutable_data_ptr<float>(), grads.quats.mutable_data_ptr<float>(),
                             grads.scales.mutable_data_ptr<float>()};
  for (int64_t v = 0; v < job.call.views; ++v) {
    const int64_t begin = counts.begins[v], count = counts.begins[v + 1] - begin;
    if (count == 0 || lists.first >= (v + 1) * job.views.tiles_y || lists.end <= v * job.views.tiles_y) continue;
    const Buffer<float> scalars(geometry ? count * 7 : 0, job.floats);
    collect_kernel<<<(unsigned)((count + WARPS - 1) / WARPS), THREADS, 0, job.stream>>>(
        job.scene, splats + begin, count, lists.ends + begin, begin == 0, back.rows, back.row_width,
        back.need_features ? job.call.channels : 0, grads.features.mutable_data_ptr<float>(),
        grads.opacities.mutable_data_ptr<float>(), geometry ? scalars.get() : nullptr);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    if (!geometry) continue;
    const int64_t blocks = grid(count);
    const Buffer<double> sums(blocks * 12, job.floats);
    geometry_kernel<<<(unsigned)blocks, THREADS, 0, job.stream>>>(job.views, (int)v, job.scene, splats + begin, count,
                                                                  scalars.get(), shapes, sums.get());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    view_sum_kernel<<<1, 12 * 32, 0, job.stream>>>(sums.get(), blocks, grads.viewmats.mutable_data_ptr<float>() + 16 * v);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
}

// Gradient of the backgrounds: the light that is left times the gradient of the image.
void background_gradient(const Job& job, const Backward& back, float* out) {
  const int64_t pixels = (int64_t)job.call.width * job.call.height, channels = job.call.channels, views = job.call.views;
  const int64_t chunks = (pixels + BACKGROUND_PIXELS - 1) / BACKGROUND_PIXELS;
  const Buffer<double> sums(views * chunks * channels, job.floats);
  background_kernel<<<dim3((unsigned)chunks, (unsigned)views), THREADS, 0, job.stream>>>(back.features, back.light, pixels,
                                                                                         (int)channels, sums.get());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  background_sum_kernel<<<dim3(grid(channels), (unsigned)views), THREADS, 0, job.stream>>>(sums.get(), chunks, (int)channels,
                                                                                           out);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> render_backward(
    const optional<Tensor>& grad_features_, const optional<Tensor>& grad_depth_, const optional<Tensor>& grad_alpha_,
    const Tensor& means, const Tensor& quats, const Tensor& scales, const Tensor& opacities, const Tensor& features,
    const Tensor& viewmats, const Tensor& Ks, const Tensor& background, const optional<Tensor>& mask, int64_t width,
    int64_t height, double near, double dilation, double alpha_min, double alpha_max, double transmittance_min,
    double scale_modifier, bool offcentre, bool rect12, bool exact_cap, const Tensor& light_, const Tensor& stop_,
    const Tensor& order_, const Tensor& counts_, bool need_features, bool need_geometry, bool need_background) {
  Options options =
      options_of(near, dilation, alpha_min, alpha_max, transmittance_min, scale_modifier, offcentre, rect12, exact_cap);
  const int64_t views = viewmats.size(0), tiles_y = (height + TILE - 1) / TILE;
  const Tensor state = check_image(counts_, "counts", 2, views * (2 + tiles_y), at::kLong, at::kCPU);
  options.cull = views > 0 && state.const_data_ptr<int64_t>()[1] != 0;
  const Call call =
      check(means, quats, scales, opacities, features, viewmats, Ks, background, mask, width, height, options, at::kCUDA);
  const c10::cuda::CUDAGuard guard(means.device());
  const Job job(call, means, quats, scales, opacities, features, viewmats, Ks, background, mask);
  const int64_t pixels = width * height, count = job.scene.count, channels = call.channels;
  const at::Device device = means.device();
  const Tensor grad_features = check_grad(grad_features_, "grad_features", 4, views * pixels * channels, device);
  const Tensor grad_depth = check_grad(grad_depth_, "grad_depth", 3, views * pixels, device);
  const Tensor grad_alpha = check_grad(grad_alpha_, "grad_alpha", 3, views * pixels, device);
  const Tensor light = check_image(light_, "light", 3, views * pixels, at::kFloat, device);
  const Tensor stop = check_image(stop_, "stop", 3, views * pixels, at::kInt, device);
  const Tensor order = check_image(order_, "order", 2, views * count, at::kInt, device);
  need_features = need_features && !job.labelled();

  const auto floats = job.floats;
  const int64_t shaped = need_geometry ? count : 0;
  Gradients grads = {at::zeros({shaped, 3}, floats),
                     at::zeros({shaped, 4}, floats),
                     at::zeros({shaped, 3}, floats),
                     at::zeros({count}, floats),
                     at::zeros({need_features ? count : 0, channels}, floats),
                     at::zeros({need_geometry ? views : 0, 4, 4}, floats)};
  Tensor to_background = at::zeros({need_background ? views : 0, channels}, floats);

  // without a gradient of the image no feature gets one
  const bool feature_rows = need_features && grad_features.defined();
  Backward back;
  back.features = optional_pointer<float>(grad_features);
  back.depth = optional_pointer<float>(grad_depth);
  back.alpha = optional_pointer<float>(grad_alpha);
  back.light = light.const_data_ptr<float>();
  back.stop = stop.const_data_ptr<int32_t>();
  back.row_width = row_width(call.channels, feature_rows, need_geometry), back.need_features = feature_rows;
  const int registers = job.labelled() || !grad_features.defined() ? 0 : pass_width(call.channels);
  const bool one_pass = registers == 0 || channels <= CHANNELS_PER_PASS;
  const BlendBackwardKernel kernel =
      need_geometry ? blend_backward_of<true>(registers, one_pass) : blend_backward_of<false>(registers, one_pass);
  const Counts counts(state.const_data_ptr<int64_t>(), job, 2 + tiles_y, 2);
  const auto run = [&](const Lists& lists, const Splat* splats) {
    const Buffer<float> rows(lists.entries * back.row_width, floats);
    back.rows = rows.get(), back.numbers = lists.numbers;
    kernel<<<(unsigned)((lists.end - lists.first) * job.views.tiles_x), THREADS, 0, job.stream>>>(tiles_of(job, lists, splats),
                                                                                                  back);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    collect(job, counts, splats, lists, back, grads);
  };

  const int64_t budget = row_bytes(ROW_BYTES);
  const Layout layout(job, counts);
  // whoever copied `order`, to save memory or on its way through a file, has lost what lay behind it
  const bool kept = counts.splats > 0 && fits(job, counts, budget) && order.storage_offset() == 0 &&
                    (int64_t)order.storage().nbytes() == layout.size * (int64_t)sizeof(int32_t);
  if (kept && counts.entries > 0) {
    int32_t* memory = static_cast<int32_t*>(order.storage().mutable_data());
    run(layout.lists(memory, job, counts), reinterpret_cast<const Splat*>(memory + layout.splats));
  } else if (counts.entries > 0) {
    const DeviceCounts device_counts(job, state);
    const Buffer<Splat> splats(counts.splats, floats);
    make_splats(job, counts, order.const_data_ptr<int32_t>(), count, splats.get(), nullptr, device_counts);
    read_counts(job, device_counts);  // raises if the ids are not those of these Gaussians
    const int64_t entry_bytes = std::max<int64_t>((5 + back.row_width) * sizeof(float), ENTRY_BYTES);
    for (int first = 0, end; first < job.tile_rows(); first = end) {
      int64_t entries;
      end = counts.band_end(first, budget / entry_bytes, entries);
      if (entries == 0) continue;
      const BandMemory band(job, counts.splats, first, end, entries, true);
      bin_tiles(job, splats.get(), counts.splats, band.lists);
      run(band.lists, splats.get());
    }
  }
  if (need_background && grad_features.defined()) background_gradient(job, back, to_background.mutable_data_ptr<float>());
  return {grads.means, grads.quats, grads.scales, grads.opacities, grads.features, grads.viewmats, to_background};
}

}  // namespace
}  // namespace cuda
}  // namespace gaussian_rasterization

TORCH_LIBRARY_IMPL(gaussian_rasterization, CUDA, m) {
  m.impl("render", &gaussian_rasterization::cuda::render);
  m.impl("render_backward", &gaussian_rasterization::cuda::render_backward);
}
