// CPU backend: the operators around the tile kernels.
//
// Jobs of some tiles side by side are the unit of work that threads take; nothing depends on which thread takes which. In the
// backward pass every (splat, job) pair owns one gradient row, written by the thread of the job, and the rows of a splat are
// then summed in a fixed order: no atomics, the same bits for any number of threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "cpu_jobs.h"

namespace gaussian_rasterization {

const Kernels& kernels() {
  static const Kernels* chosen = [] {
    const char* wish = std::getenv("GAUSSIAN_RASTERIZATION_SIMD");
#ifdef RASTER_X86
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool no512 = wish && std::strcmp(wish, "avx512") != 0;
    if (avx512 && !no512) return &kernels_avx512;
    if (avx2 && !(wish && std::strcmp(wish, "baseline") == 0)) return &kernels_avx2;
#else
    (void)wish;
#endif
    return &kernels_baseline;
  }();
  return *chosen;
}

namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> render(
    const Tensor& means, const Tensor& quats, const Tensor& scales, const Tensor& opacities, const Tensor& features_,
    const Tensor& viewmats_, const Tensor& Ks_, const Tensor& background_, const optional<Tensor>& mask_, int64_t width,
    int64_t height, double near, double dilation, double alpha_min, double alpha_max, double transmittance_min,
    double scale_modifier, bool offcentre, bool rect12, bool exact_cap, bool keep_state) {
  const Options options =
      options_of(near, dilation, alpha_min, alpha_max, transmittance_min, scale_modifier, offcentre, rect12, exact_cap);
  const Call call =
      check(means, quats, scales, opacities, features_, viewmats_, Ks_, background_, mask_, width, height, options, at::kCPU);
  check_labels(features_, call.channels);
  const Tensor features = features_.contiguous(), viewmats = viewmats_.contiguous(), Ks = Ks_.contiguous();
  const Tensor background = background_.contiguous();
  const optional<Tensor> mask = mask_ ? optional<Tensor>(mask_->contiguous()) : std::nullopt;
  const Scene scene(means, quats, scales, opacities);
  const int64_t views = call.views, pixels = width * height;

  const auto floats = means.options(), ints = means.options().dtype(at::kInt);
  Tensor image = empty_large({views, height, width, call.channels}, floats);
  Tensor depth = empty_large({views, height, width}, floats), alpha = empty_large({views, height, width}, floats);
  Tensor radii = at::empty({views, scene.count}, ints);
  Tensor light = empty_large({keep_state ? views : 0, height, width}, floats);
  Tensor stop = empty_large({keep_state ? views : 0, height, width}, ints);
  Tensor order = at::full({keep_state ? views : 0, scene.count}, -1, ints);
  const int64_t count_width = 2 + (height + TILE - 1) / TILE;
  Tensor counts = at::empty({keep_state ? views : 0, count_width}, ints.dtype(at::kLong));

  for (int64_t v = 0; v < views; ++v) {
    const Camera camera = camera_of(viewmats, Ks, v, call);
    const std::vector<Splat> splats =
        sort_by_depth(project_view(scene, camera, options, radii.mutable_data_ptr<int32_t>() + v * scene.count));
    const JobLists jobs = bin_jobs(splats, call.width, call.height);
    TileJob job = make_job(call, features, background, v);
    job.out_features = image.mutable_data_ptr<float>() + v * pixels * call.channels;
    job.out_depth = depth.mutable_data_ptr<float>() + v * pixels;
    job.out_alpha = alpha.mutable_data_ptr<float>() + v * pixels;
    if (keep_state) {
      job.out_light = light.mutable_data_ptr<float>() + v * pixels;
      job.out_stop = stop.mutable_data_ptr<int32_t>() + v * pixels;
      int32_t* ids = order.mutable_data_ptr<int32_t>() + v * scene.count;
      for (size_t i = 0; i < splats.size(); ++i) ids[i] = splats[i].id;
      int64_t* count = counts.mutable_data_ptr<int64_t>() + v * count_width;
      *count++ = (int64_t)splats.size(), *count++ = options.cull;
      for (int y = 0; y < jobs.down; ++y) *count++ = jobs.first[(y + 1) * jobs.across] - jobs.first[y * jobs.across];
    }
    for_each_tile(splats, jobs, 0, jobs.size(), job, mask_of(mask, v), kernels().forward);
  }
  return {image, depth, alpha, radii, light, stop, order, counts};
}

// The splats of the forward pass, from their ids in depth order.
std::vector<Splat> project_again(const Scene& scene, const Camera& camera, const Options& options, const int32_t* order) {
  int64_t count = 0;
  while (count < scene.count && order[count] >= 0) ++count;
  std::vector<Splat> splats(count);
  at::parallel_for(0, count, CHUNK, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int32_t id = order[i];
      int32_t radius;
      TORCH_CHECK_VALUE(
          id >= 0 && id < scene.count && project(camera, options, scene.shape(id), scene.opacities(id), splats[i], radius),
          "gaussian_rasterization: the saved state does not belong to these Gaussians");
      splats[i].id = id;
    }
  });
  return splats;
}

struct Gradients {
  Tensor means, quats, scales, opacities, features, viewmats;
};

// Sum the rows of every splat over the jobs of rows [band, band_end) and add them to the gradients of the inputs.
void collect(const Scene& scene, const Camera& camera, const Call& call, const std::vector<Splat>& splats, const float* rows,
             const TileJob& job, int band_end, Gradients& grads, float* grad_view) {
  const int64_t count = (int64_t)splats.size(), chunks = (count + CHUNK - 1) / CHUNK;
  const int channels = job.need_features ? call.channels : 0;
  std::vector<double> view_sums(chunks * 12, 0.0);
  float* to_features = job.need_features ? grads.features.mutable_data_ptr<float>() : nullptr;
  float* to_opacities = grads.opacities.mutable_data_ptr<float>();
  float *to_means = nullptr, *to_quats = nullptr, *to_scales = nullptr;
  if (job.need_geometry) {
    to_means = grads.means.mutable_data_ptr<float>();
    to_quats = grads.quats.mutable_data_ptr<float>();
    to_scales = grads.scales.mutable_data_ptr<float>();
  }
  for_each(chunks, [&] {
    std::vector<float> total(job.row_width);
    return [&, total](int64_t chunk) mutable {
      for (int64_t i = chunk * CHUNK; i < std::min(count, (chunk + 1) * CHUNK); ++i) {
        const Splat& s = splats[i];
        const int64_t n = row_count(s, job.first_band, band_end);
        if (n == 0) continue;
        std::fill(total.begin(), total.end(), 0.0f);
        const float* row = rows + s.row * job.row_width;
        for (int64_t r = 0; r < n; ++r, row += job.row_width) {
          for (int c = 0; c < job.row_width; ++c) total[c] += row[c];
        }
        for (int c = 0; c < channels; ++c) to_features[(int64_t)s.id * channels + c] += total[c];
        const float* t = total.data() + channels;
        if (scene.opacities(s.id) <= 1.0f) to_opacities[s.id] += t[0];
        if (!job.need_geometry) continue;
        const Moments moments = {t[0], t[2], t[3], t[4], t[5], t[6], t[1]};
        ShapeGrad g;
        project_backward(camera, call.options, scene.shape(s.id), s, moments, g);
        if (overflowed(moments, g)) continue;
        for (int j = 0; j < 3; ++j) to_means[3ll * s.id + j] += g.mean[j], to_scales[3ll * s.id + j] += g.scale[j];
        for (int j = 0; j < 4; ++j) to_quats[4ll * s.id + j] += g.quat[j];
        for (int j = 0; j < 12; ++j) view_sums[chunk * 12 + j] += g.view[j];
      }
    };
  });
  for (int j = 0; job.need_geometry && j < 12; ++j) {
    double sum = 0;
    for (int64_t c = 0; c < chunks; ++c) sum += view_sums[c * 12 + j];
    grad_view[j] += (float)sum;
  }
}

// Gradient of the background of one view: the light that is left times the gradient of the image.
void background_gradient(const float* grad, const float* light, int64_t pixels, int channels, float* out) {
  constexpr int64_t PIXELS = 1 << 14;
  const int64_t chunks = (pixels + PIXELS - 1) / PIXELS;
  std::vector<double> sums(chunks * channels, 0.0);
  for_each(chunks, [&] {
    return [&](int64_t chunk) {
      double* sum = sums.data() + chunk * channels;
      for (int64_t p = chunk * PIXELS; p < std::min(pixels, (chunk + 1) * PIXELS); ++p) {
        for (int c = 0; c < channels; ++c) sum[c] += (double)(light[p] * grad[p * channels + c]);
      }
    };
  });
  for (int c = 0; c < channels; ++c) {
    double total = 0;
    for (int64_t k = 0; k < chunks; ++k) total += sums[k * channels + c];
    out[c] = (float)total;
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> render_backward(
    const optional<Tensor>& grad_features_, const optional<Tensor>& grad_depth_, const optional<Tensor>& grad_alpha_,
    const Tensor& means, const Tensor& quats, const Tensor& scales, const Tensor& opacities, const Tensor& features_,
    const Tensor& viewmats_, const Tensor& Ks_, const Tensor& background_, const optional<Tensor>& mask_, int64_t width,
    int64_t height, double near, double dilation, double alpha_min, double alpha_max, double transmittance_min,
    double scale_modifier, bool offcentre, bool rect12, bool exact_cap, const Tensor& light_, const Tensor& stop_,
    const Tensor& order_, const Tensor& counts_, bool need_features, bool need_geometry, bool need_background) {
  Options options =
      options_of(near, dilation, alpha_min, alpha_max, transmittance_min, scale_modifier, offcentre, rect12, exact_cap);
  const int64_t count_width = 2 + (height + TILE - 1) / TILE;
  const Tensor counts = check_image(counts_, "counts", 2, viewmats_.size(0) * count_width, at::kLong, at::kCPU);
  options.cull = viewmats_.size(0) > 0 && counts.const_data_ptr<int64_t>()[1] != 0;
  const Call call =
      check(means, quats, scales, opacities, features_, viewmats_, Ks_, background_, mask_, width, height, options, at::kCPU);
  check_labels(features_, call.channels);
  const int64_t views = call.views, pixels = width * height, count = means.size(0);
  const Tensor grad_features = check_grad(grad_features_, "grad_features", 4, views * pixels * call.channels, at::kCPU);
  const Tensor grad_depth = check_grad(grad_depth_, "grad_depth", 3, views * pixels, at::kCPU);
  const Tensor grad_alpha = check_grad(grad_alpha_, "grad_alpha", 3, views * pixels, at::kCPU);
  const Tensor light = check_image(light_, "light", 3, views * pixels, at::kFloat, at::kCPU);
  const Tensor stop = check_image(stop_, "stop", 3, views * pixels, at::kInt, at::kCPU);
  const Tensor order = check_image(order_, "order", 2, views * count, at::kInt, at::kCPU);
  const Tensor features = features_.contiguous(), viewmats = viewmats_.contiguous(), Ks = Ks_.contiguous();
  const Tensor background = background_.contiguous();
  const optional<Tensor> mask = mask_ ? optional<Tensor>(mask_->contiguous()) : std::nullopt;
  const Scene scene(means, quats, scales, opacities);
  need_features = need_features && features.scalar_type() == at::kFloat;

  const auto floats = means.options();
  const int64_t geometry = need_geometry ? count : 0;
  Gradients grads = {zeros_large({geometry, 3}, floats),
                     zeros_large({geometry, 4}, floats),
                     zeros_large({geometry, 3}, floats),
                     zeros_large({count}, floats),
                     zeros_large({need_features ? count : 0, call.channels}, floats),
                     at::zeros({need_geometry ? views : 0, 4, 4}, floats)};
  Tensor grad_background = at::zeros({need_background ? views : 0, call.channels}, floats);

  for (int64_t v = 0; v < views; ++v) {
    const Camera camera = camera_of(viewmats, Ks, v, call);
    std::vector<Splat> splats = project_again(scene, camera, options, order.const_data_ptr<int32_t>() + v * count);
    const JobLists jobs = bin_jobs(splats, call.width, call.height);
    TileJob job = make_job(call, features, background, v);
    if (grad_features.defined()) job.grad_features = grad_features.const_data_ptr<float>() + v * pixels * call.channels;
    if (grad_depth.defined()) job.grad_depth = grad_depth.const_data_ptr<float>() + v * pixels;
    if (grad_alpha.defined()) job.grad_alpha = grad_alpha.const_data_ptr<float>() + v * pixels;
    job.light = light.const_data_ptr<float>() + v * pixels;
    job.stop = stop.const_data_ptr<int32_t>() + v * pixels;
    job.need_features = need_features, job.need_geometry = need_geometry;
    job.row_width = row_width(call.channels, need_features, need_geometry);

    // usually one pass; more if the rows of all jobs together would be too large
    const int64_t budget = row_bytes(ROW_BYTES) / (job.row_width * (int64_t)sizeof(float));
    for (int band = 0; band < jobs.down;) {
      int end = band + 1;
      const auto entries = [&](int to) { return jobs.first[to * jobs.across] - jobs.first[band * jobs.across]; };
      while (end < jobs.down && entries(end + 1) <= budget) ++end;
      int64_t rows = 0;
      for (Splat& s : splats) {
        s.row = rows;
        rows += row_count(s, band, end);
      }
      const auto data = zeroed<float>(rows * job.row_width);
      job.row_data = data.get();
      job.first_band = band;
      for_each_tile(splats, jobs, band * jobs.across, end * jobs.across, job, mask_of(mask, v), [](const TileJob& tile) {
        if (tile.count) kernels().backward(tile);
      });
      float* grad_view = need_geometry ? grads.viewmats.mutable_data_ptr<float>() + 16 * v : nullptr;
      collect(scene, camera, call, splats, data.get(), job, end, grads, grad_view);
      band = end;
    }
    if (need_background && grad_features.defined()) {
      background_gradient(job.grad_features, job.light, pixels, call.channels,
                          grad_background.mutable_data_ptr<float>() + v * call.channels);
    }
  }
  return {grads.means, grads.quats, grads.scales, grads.opacities, grads.features, grads.viewmats, grad_background};
}

}  // namespace
}  // namespace gaussian_rasterization

TORCH_LIBRARY_IMPL(gaussian_rasterization, CPU, m) {
  m.impl("render", &gaussian_rasterization::render);
  m.impl("render_backward", &gaussian_rasterization::render_backward);
}
