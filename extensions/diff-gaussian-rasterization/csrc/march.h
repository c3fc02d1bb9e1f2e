// Ray marching: what the operators of every backend share, and the arithmetic of one sample.
//
// Sample positions, contraction and the rule that skips close samples use one order of float32 operations without contraction
// of a * b + c on every backend and in the PyTorch reference, so that all of them look at the same samples.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "common.h"

namespace gaussian_rasterization {

enum MarchForm { NERF = 0, DVGO = 1, PROB = 2 };
enum MarchDistortion { NO_DISTORTION = 0, SAMPLE_WIDTH = 1, ONE_OVER_COUNT = 2, GIVEN_INTERVAL = 3 };

// The same number as INFINITE_STEP in march_settings.py; metres.
constexpr float INFINITE_STEP = 1e10f;

struct MarchOptions {
  int form;
  float unit;  // metres of one unit of t and of the points
  float shift, interval;
  bool infinite_step;
  float alpha_min, transmittance_min, weight_min;
  float background, min_spacing;  // of the contraction, in units; background 0: none
  bool contracted_depth;
  int distortion;
  float distortion_interval;
  bool weights;
};

// One volume.
struct MarchVolume {
  const float* density;   // (X, Y, Z)
  const float* features;  // (X, Y, Z, C)
  int size[3], channels;
  float scale[3], offset[3];  // index = point * scale + offset, voxel centres at whole numbers
};

// One ray.
struct MarchRay {
  const float *origin, *direction;
  const float* t;  // (S,) positions, or (S + 1,) edges
  int64_t t_step;
  int samples;
  bool edges;
};

// Where results of a ray go; in the backward pass their gradients, null where none came.
struct MarchValues {
  float *features, *depth, *alpha, *light, *distortion, *weights;
  int32_t* count;
};

struct MarchGrads {
  const float *features, *depth, *alpha, *light, *distortion, *weights;
};

// t / (1 + t)
RASTER_FN float contracted_distance(float t) {
  t = t > 0.0f ? t : 0.0f;
  return t / (1.0f + t);
}

RASTER_FN float distortion_interval(const MarchOptions& o, float start, float width, int count) {
  if (o.distortion == SAMPLE_WIDTH) return contracted_distance(start + width) - contracted_distance(start);
  return o.distortion == ONE_OVER_COUNT ? 1.0f / (float)(count > 1 ? count : 1) : o.distortion_interval;
}

// Sizes of a call after its checks.
struct MarchCall {
  MarchOptions options;
  int64_t batch, rays;
  int size[3], channels, samples;
  bool edges;
  int64_t voxels() const { return (int64_t)size[0] * size[1] * size[2]; }
};

#define MARCH_OPTIONS_DECLARED                                                                                              \
  int64_t form, double unit, double shift, double interval, bool infinite_step, double alpha_min, double transmittance_min, \
      double weight_min, double background, double min_spacing, bool contracted_depth, int64_t distortion,                  \
      double distortion_interval, bool weights
#define MARCH_OPTIONS                                                                                                 \
  MarchOptions {                                                                                                      \
    (int)form, (float)unit, (float)shift, (float)interval, infinite_step, (float)alpha_min, (float)transmittance_min, \
        (float)weight_min, (float)background, (float)min_spacing, contracted_depth, (int)distortion,                  \
        (float)distortion_interval, weights                                                                           \
  }

inline MarchCall check_march(const at::Tensor& density, const at::Tensor& features, const at::Tensor& origins,
                             const at::Tensor& directions, const at::Tensor& t, const at::Tensor& transform,
                             const MarchOptions& options, at::DeviceType device) {
  for (const at::Tensor* x : {&density, &features, &origins, &directions, &t, &transform}) {
    TORCH_CHECK_TYPE(x->scalar_type() == at::kFloat, "march: expected float32, got ", x->scalar_type());
    TORCH_CHECK_VALUE(x->device().type() == device && x->device() == density.device(), "march: expected ", device,
                      " tensors on one device, got ", x->device());
  }
  TORCH_CHECK_VALUE(density.dim() == 4 && density.size(1) > 0 && density.size(2) > 0 && density.size(3) > 0,
                    "march: density must be (B, X, Y, Z), got ", density.sizes());
  TORCH_CHECK_VALUE(features.dim() == 5 && features.sizes().slice(0, 4) == density.sizes(),
                    "march: features must be (B, X, Y, Z, C) to fit density, got ", features.sizes());
  TORCH_CHECK_VALUE(origins.dim() == 3 && origins.size(0) == density.size(0) && origins.size(2) == 3,
                    "march: origins must be (B, R, 3), got ", origins.sizes());
  TORCH_CHECK_VALUE(directions.sizes() == origins.sizes(), "march: directions must fit origins, got ", directions.sizes());
  const bool edges = t.dim() == 3;
  TORCH_CHECK_VALUE(
      edges ? t.size(0) == origins.size(0) && t.size(1) == origins.size(1) && t.size(2) > 1 : t.dim() == 1 && t.size(0) > 0,
      "march: t must be (S,) or (B, R, S + 1), got ", t.sizes());
  TORCH_CHECK_VALUE(t.size(-1) <= 1 << 20, "march: at most 1048576 samples, got ", t.size(-1));
  TORCH_CHECK_VALUE(transform.dim() == 2 && transform.size(0) == 2 && transform.size(1) == 3,
                    "march: transform must be (2, 3), got ", transform.sizes());
  TORCH_CHECK_VALUE(density.size(1) < INT32_MAX && density.size(2) < INT32_MAX && density.size(3) < INT32_MAX &&
                        density.size(1) * density.size(2) < INT32_MAX &&
                        density.size(1) * density.size(2) * density.size(3) < INT32_MAX,
                    "march: a grid of ", density.sizes(), " voxels is too large");
  TORCH_CHECK_VALUE(features.size(4) <= 65536, "march: at most 65536 channels, got ", features.size(4));
  TORCH_CHECK_VALUE(origins.size(1) < INT32_MAX, "march: too many rays: ", origins.size(1));
  TORCH_CHECK_VALUE(options.form >= NERF && options.form <= PROB && options.distortion >= NO_DISTORTION &&
                        options.distortion <= GIVEN_INTERVAL && options.unit > 0 && options.background >= 0,
                    "march: an option is out of range");
  return {options,
          origins.size(0),
          origins.size(1),
          {(int)density.size(1), (int)density.size(2), (int)density.size(3)},
          (int)features.size(4),
          (int)(t.size(-1) - edges),
          edges};
}

// A contiguous gradient of the right size, or an undefined tensor.
inline at::Tensor check_march_grad(const std::optional<at::Tensor>& t, const char* name, int64_t numel, at::Device device) {
  if (!t || !t->defined()) return at::Tensor();
  TORCH_CHECK_VALUE(t->device() == device && t->scalar_type() == at::kFloat && t->numel() == numel, "march: ", name,
                    " does not fit the rays: ", t->sizes(), " ", t->scalar_type());
  return t->contiguous();
}

}  // namespace gaussian_rasterization
