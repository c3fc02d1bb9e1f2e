// A loss between two renders, tile by tile: prediction, target, loss and gradient while the pixels are in cache. No image is
// written. The gradient of a pixel is known up to the factor of its view (weight over number of valid pixels), which the sums
// of a Gaussian get when the view is done.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <cmath>
#include <tuple>

#include "cpu_jobs.h"

namespace gaussian_rasterization {
namespace {

constexpr int PIXELS = TILE * TILE;
constexpr float KL_FACTOR = 10.0f, KL_FLOOR = 1e-8f;

enum Semantic : int64_t { NONE = 0, L1 = 1, KL_SOFTMAX = 2, KL_LOG = 3 };

struct LossOptions {
  int64_t semantic;
  bool depth;
  float min_depth;     // of the target, in metres; above it a pixel takes part in the depth loss
  int64_t free_class;  // pixels whose target is mostly this take no part; -1: all do
};

// Sums of errors over pixels and how many pixels there are: class image, depth image.
struct Sums {
  double error[2] = {0, 0};
  int64_t pixels[2] = {0, 0};
};

// Images of one tile, channels last, TILE pixels to a row, and what its blending needs.
struct TileImages {
  explicit TileImages(int channels)
      : memory(sizeof(float) * PIXELS * (3 * (int64_t)channels + 7)), scratch(kernels().scratch_bytes(channels)) {
    float* at = static_cast<float*>(memory.memory.get());
    const auto take = [&](int width) {
      float* from = at;
      at += PIXELS * width;
      return from;
    };
    pred = take(channels), target = take(channels), grad = take(channels);
    depth = take(1), alpha = take(1), light = take(1), target_depth = take(1), target_alpha = take(1), grad_depth = take(1);
    stop = reinterpret_cast<int32_t*>(take(1));
  }
  AlignedBuffer memory, scratch;
  float *pred, *target, *grad, *depth, *alpha, *light, *target_depth, *target_alpha, *grad_depth;
  int32_t* stop;
};

// Softmax of x into y; returns log of the sum of exponentials.
float softmax(const float* x, int n, float* y) {
  float most = x[0], sum = 0.0f;
  for (int c = 1; c < n; ++c) most = x[c] > most ? x[c] : most;
  for (int c = 0; c < n; ++c) sum += y[c] = std::exp(x[c] - most);
  for (int c = 0; c < n; ++c) y[c] /= sum;
  return most + std::log(sum);
}

// Kullback-Leibler divergence of one pixel, times KL_FACTOR, averaged over the channels; `room`: 2 n floats.
float divergence(const float* pred, const float* target, int n, bool softmaxes, float* grad, float* room) {
  const float factor = KL_FACTOR / n;
  float sum = 0.0f;
  if (softmaxes) {
    float *p = room, *t = room + n;
    const float pred_norm = softmax(pred, n, p), target_norm = softmax(target, n, t);
    for (int c = 0; c < n; ++c) sum += t[c] * ((target[c] - target_norm) - (pred[c] - pred_norm));
    for (int c = 0; c < n; ++c) grad[c] = factor * (p[c] - t[c]);
    return factor * sum;
  }
  for (int c = 0; c < n; ++c) {
    const float p = pred[c] > KL_FLOOR ? pred[c] : KL_FLOOR, t = target[c] > KL_FLOOR ? target[c] : KL_FLOOR;
    sum += t * (std::log(t) - std::log(p));
    grad[c] = pred[c] >= KL_FLOOR ? -factor * t / p : 0.0f;
  }
  return factor * sum;
}

// Errors of a tile whose images are filled in, and their derivatives.
Sums compare_tile(const TileJob& job, const LossOptions& o, TileImages& images, std::vector<float>& room) {
  Sums sums;
  const int channels = job.channels, across = std::min(TILE, job.width - job.x0), down = std::min(TILE, job.height - job.y0);
  bool counts[TILE];
  for (int y = 0; y < down; ++y) {
    const int64_t row = y * TILE;
    int taking_part = 0;
    for (int x = 0; x < across; ++x) {
      counts[x] = true;
      if (o.free_class >= 0) {
        const float* t = images.target + (row + x) * channels;
        counts[x] = std::max_element(t, t + channels) - t != o.free_class;
      }
      taking_part += counts[x];
    }
    if (o.semantic != NONE) {
      float* grad = images.grad + row * channels;
      const float *pred = images.pred + row * channels, *target = images.target + row * channels;
      sums.pixels[0] += taking_part;
      if (o.semantic == L1 && taking_part == across) {
        sums.error[0] += kernels().compare_l1(pred, target, across * channels, 1.0f / channels, grad) / channels;
      } else {
        for (int x = 0; x < across; ++x, pred += channels, target += channels, grad += channels) {
          if (!counts[x]) {
            std::fill(grad, grad + channels, 0.0f);
          } else if (o.semantic == L1) {
            sums.error[0] += kernels().compare_l1(pred, target, channels, 1.0f / channels, grad) / channels;
          } else {
            sums.error[0] += divergence(pred, target, channels, o.semantic == KL_SOFTMAX, grad, room.data());
          }
        }
      }
    }
    if (!o.depth) continue;
    for (int x = 0; x < across; ++x) {
      const float d = images.depth[row + x] - images.target_depth[row + x];
      const bool valid = counts[x] && images.target_depth[row + x] > o.min_depth;
      images.grad_depth[row + x] = !valid ? 0.0f : d < 0.0f ? -1.0f : d > 0.0f ? 1.0f : 0.0f;
      if (valid) sums.pixels[1] += 1, sums.error[1] += std::fabs(d);
    }
  }
  return sums;
}

// One of the two renders: what all views share.
struct Side {
  Side(const Call& call, const Tensor& means, const Tensor& quats, const Tensor& scales, const Tensor& opacities,
       const Tensor& features)
      : call(call), scene(means, quats, scales, opacities), features(features.contiguous()) {}
  Call call;
  Scene scene;
  Tensor features;
};

// One view of a side.
struct SideView {
  SideView(const Side& side, const Tensor& viewmats, const Tensor& Ks, const Tensor& background, int64_t v) {
    std::vector<int32_t> radii(side.scene.count);
    const Camera camera = camera_of(viewmats, Ks, v, side.call);
    splats = sort_by_depth(project_view(side.scene, camera, side.call.options, radii.data()));
    jobs = bin_jobs(splats, side.call.width, side.call.height);
    job = make_job(side.call, side.features, background, v);
    job.splats = splats.data();
  }
  void split(int64_t n, TileLists& lists) const {
    const int y = (int)(n / jobs.across), first = (int)(n % jobs.across) * TILES_PER_JOB;
    lists.split_job(splats, jobs.entries.data() + jobs.first[n], jobs.first[n + 1] - jobs.first[n], y, first,
                    std::min(TILES_PER_JOB, jobs.tiles_x - first));
  }
  std::vector<Splat> splats;
  JobLists jobs;
  TileJob job;
};

// Images of the target of one view, null if it is made of Gaussians.
struct GivenTarget {
  const float *features, *depth;
};

void copy_target(const GivenTarget& given, const TileJob& job, TileImages& images) {
  const int across = std::min(TILE, job.width - job.x0), down = std::min(TILE, job.height - job.y0);
  for (int y = 0; y < down; ++y) {
    const int64_t from = (int64_t)(job.y0 + y) * job.width + job.x0;
    std::copy_n(given.features + from * job.channels, across * job.channels, images.target + (int64_t)y * TILE * job.channels);
    if (given.depth) std::copy_n(given.depth + from, across, images.target_depth + y * TILE);
  }
}

// Prediction, target, loss and gradient rows for the jobs [begin, end) of a view; sums of every tile.
void run_tiles(const SideView& pred, const SideView& target, const GivenTarget& given, const bool* mask, const LossOptions& o,
               bool keep_grads, int64_t begin, int64_t end, std::vector<Sums>& sums) {
  for_each(end - begin, [&] {
    auto images = std::make_shared<TileImages>(pred.job.channels);
    auto pred_lists = std::make_shared<TileLists>(), target_lists = std::make_shared<TileLists>();
    return [&, images, pred_lists, target_lists, room = std::vector<float>(2 * pred.job.channels)](int64_t i) mutable {
      const int64_t n = begin + i;
      const int y = (int)(n / pred.jobs.across), x = (int)(n % pred.jobs.across), first = x * TILES_PER_JOB;
      pred.split(n, *pred_lists);
      if (!given.features) target.split(n, *target_lists);
      const auto tile_of = [&](const SideView& side, const TileLists& lists, int t) {
        TileJob job = side.job;
        job.list = lists.entries.data() + lists.first[t];
        job.count = (int)(lists.first[t + 1] - lists.first[t]);
        job.scratch = images->scratch.memory.get();
        job.job_x = x, job.job_y = y;
        job.x0 = (first + t) * TILE, job.y0 = y * TILE;
        job.pitch = TILE, job.origin = (int64_t)job.y0 * TILE + job.x0;
        return job;
      };
      for (int t = 0; t < std::min(TILES_PER_JOB, pred.jobs.tiles_x - first); ++t) {
        const int64_t tile = (int64_t)y * pred.jobs.tiles_x + first + t;
        if (mask && !mask[tile]) continue;
        TileJob job = tile_of(pred, *pred_lists, t);
        job.out_features = images->pred, job.out_depth = images->depth, job.out_alpha = images->alpha;
        job.out_light = images->light, job.out_stop = images->stop;
        kernels().forward(job);
        if (given.features) {
          copy_target(given, job, *images);
        } else {
          TileJob other = tile_of(target, *target_lists, t);
          other.out_features = images->target, other.out_depth = images->target_depth, other.out_alpha = images->target_alpha;
          kernels().forward(other);
        }
        sums[tile] = compare_tile(job, o, *images, room);
        if (!keep_grads || job.count == 0) continue;
        job.grad_features = o.semantic != NONE ? images->grad : nullptr;
        job.grad_depth = o.depth ? images->grad_depth : nullptr;
        job.light = images->light, job.stop = images->stop;
        kernels().backward_terms(job);
      }
    };
  });
}

// Add the rows of the jobs of rows [band, band_end) to the totals of the splats.
void add_rows(const std::vector<Splat>& splats, const TileJob& job, int band_end, std::vector<float>& totals) {
  const int64_t count = (int64_t)splats.size();
  for_each((count + CHUNK - 1) / CHUNK, [&] {
    return [&](int64_t chunk) {
      for (int64_t i = chunk * CHUNK; i < std::min(count, (chunk + 1) * CHUNK); ++i) {
        const float* row = job.row_data + splats[i].row * job.row_width;
        float* total = totals.data() + i * job.row_width;
        for (int64_t r = row_count(splats[i], job.first_band, band_end); r > 0; --r, row += job.row_width) {
          for (int c = 0; c < job.row_width; ++c) total[c] += row[c];
        }
      }
    };
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> render_loss(
    const Tensor& means, const Tensor& quats, const Tensor& scales, const Tensor& opacities, const Tensor& features,
    const Tensor& viewmats_, const Tensor& Ks_, const Tensor& background_, const optional<Tensor>& mask_, int64_t width,
    int64_t height, double near, double dilation, double alpha_min, double alpha_max, double transmittance_min,
    double scale_modifier, bool offcentre, bool rect12, bool exact_cap, const Tensor& target_means, const Tensor& target_quats,
    const Tensor& target_scales, const Tensor& target_opacities, const Tensor& target_features,
    const optional<Tensor>& target_image_, const optional<Tensor>& target_depth_, const Tensor& weights_, int64_t semantic,
    bool depth, double min_depth, int64_t free_class, bool keep_grads) {
  const Options options =
      options_of(near, dilation, alpha_min, alpha_max, transmittance_min, scale_modifier, offcentre, rect12, exact_cap);
  const Call call =
      check(means, quats, scales, opacities, features, viewmats_, Ks_, background_, mask_, width, height, options, at::kCPU);
  TORCH_CHECK_TYPE(features.scalar_type() == at::kFloat, "gaussian_rasterization: the prediction must have float32 features");
  const Call target_call = check(target_means, target_quats, target_scales, target_opacities, target_features, viewmats_, Ks_,
                                 background_, mask_, width, height, options, at::kCPU);
  check_labels(target_features, call.channels);
  TORCH_CHECK_VALUE(semantic >= NONE && semantic <= KL_LOG && (semantic != NONE || depth),
                    "gaussian_rasterization: no loss is wanted, or an unknown one: ", semantic);
  const int64_t views = call.views, pixels = width * height, count = means.size(0), channels = call.channels;
  const Tensor image = check_grad(target_image_, "target_image", 4, views * pixels * channels, at::kCPU);
  const Tensor target_depth = check_grad(target_depth_, "target_depth", 3, views * pixels, at::kCPU);
  TORCH_CHECK_VALUE(!image.defined() || !depth || target_depth.defined(), "gaussian_rasterization: target_depth is missing");
  const Tensor weights = check_image(weights_, "weights", 2, views * 2, at::kFloat, at::kCPU);
  const Tensor viewmats = viewmats_.contiguous(), Ks = Ks_.contiguous(), background = background_.contiguous();
  const optional<Tensor> mask = mask_ ? optional<Tensor>(mask_->contiguous()) : std::nullopt;
  const Side pred(call, means, quats, scales, opacities, features);
  const Side target(target_call, target_means, target_quats, target_scales, target_opacities, target_features);
  const LossOptions o = {semantic, depth, (float)min_depth, free_class};

  const auto floats = means.options();
  Tensor terms = at::zeros({2}, floats), view_means = at::zeros({views, 2}, floats);
  Tensor view_pixels = at::zeros({views, 2}, floats.dtype(at::kLong));
  Tensor grad_features = zeros_large({keep_grads && semantic != NONE ? count : 0, channels}, floats);
  Tensor grad_opacities = zeros_large({2, keep_grads ? count : 0}, floats);
  double totals_of_terms[2] = {0, 0};

  for (int64_t v = 0; v < views; ++v) {
    SideView a(pred, viewmats, Ks, background, v);
    const SideView b(target, viewmats, Ks, background, v);
    const GivenTarget given = {image.defined() ? image.const_data_ptr<float>() + v * pixels * channels : nullptr,
                               target_depth.defined() ? target_depth.const_data_ptr<float>() + v * pixels : nullptr};
    const JobLists& jobs = a.jobs;
    std::vector<Sums> sums((size_t)jobs.tiles_x * jobs.down);
    TileJob& job = a.job;
    job.need_features = true, job.row_width = (int)channels + 2;
    std::vector<float> totals(keep_grads ? a.splats.size() * job.row_width : 0);
    const int64_t budget = keep_grads ? row_bytes(ROW_BYTES) / (job.row_width * (int64_t)sizeof(float)) : INT64_MAX;
    for (int band = 0; band < jobs.down;) {
      int end = band + 1;
      const auto entries = [&](int to) { return jobs.first[to * jobs.across] - jobs.first[band * jobs.across]; };
      while (end < jobs.down && entries(end + 1) <= budget) ++end;
      int64_t rows = 0;
      for (Splat& s : a.splats) {
        s.row = rows;
        rows += row_count(s, band, end);
      }
      const auto data = zeroed<float>(keep_grads ? rows * job.row_width : 0);
      job.row_data = data.get(), job.first_band = band;
      run_tiles(a, b, given, mask_of(mask, v), o, keep_grads, (int64_t)band * jobs.across, (int64_t)end * jobs.across, sums);
      if (keep_grads) add_rows(a.splats, job, end, totals);
      band = end;
    }

    Sums all;
    for (const Sums& s : sums) {
      for (int k = 0; k < 2; ++k) all.error[k] += s.error[k], all.pixels[k] += s.pixels[k];
    }
    float factor[2];
    for (int k = 0; k < 2; ++k) {
      const double mean = all.error[k] / std::max<int64_t>(all.pixels[k], 1);
      const float weight = weights.const_data_ptr<float>()[2 * v + k];
      view_means.mutable_data_ptr<float>()[2 * v + k] = (float)mean;
      view_pixels.mutable_data_ptr<int64_t>()[2 * v + k] = all.pixels[k];
      totals_of_terms[k] += weight * mean;
      factor[k] = weight / (float)std::max<int64_t>(all.pixels[k], 1);
    }
    if (!keep_grads) continue;
    float* to_features = semantic != NONE ? grad_features.mutable_data_ptr<float>() : nullptr;
    float* to_opacities = grad_opacities.mutable_data_ptr<float>();
    at::parallel_for(0, (int64_t)a.splats.size(), CHUNK, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t id = a.splats[i].id;
        const float* total = totals.data() + i * job.row_width;
        for (int c = 0; to_features && c < channels; ++c) to_features[id * channels + c] += factor[0] * total[c];
        if (pred.scene.opacities(id) > 1.0f) continue;
        for (int k = 0; k < 2; ++k) to_opacities[k * count + id] += factor[k] * total[channels + k];
      }
    });
  }
  for (int k = 0; k < 2; ++k) terms.mutable_data_ptr<float>()[k] = (float)totals_of_terms[k];
  return {terms, view_means, view_pixels, grad_features, grad_opacities};
}

}  // namespace
}  // namespace gaussian_rasterization

TORCH_LIBRARY_IMPL(gaussian_rasterization, CPU, m) { m.impl("render_loss", &gaussian_rasterization::render_loss); }
