// What the operators of every backend do before they compute: checks of their arguments and the memory budget.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <cstdlib>
#include <optional>

#include "common.h"

namespace gaussian_rasterization {

using at::Tensor;
using std::optional;

// Bytes of gradient rows (CUDA: and lists) held at a time, if a single row of tiles needs no more.
inline int64_t row_bytes(int64_t usual) {
  const char* wish = std::getenv("GAUSSIAN_RASTERIZATION_ROW_BYTES");
  const int64_t bytes = wish ? std::atoll(wish) : 0;
  return bytes > 0 ? bytes : usual;
}

// GAUSSIAN_RASTERIZATION_CULL=0 shows in benchmarks what culling saves; the images are the same. Read in the forward pass only:
// stops are positions in its lists, so the backward pass has to make the same ones.
inline bool culling() {
  const char* wish = std::getenv("GAUSSIAN_RASTERIZATION_CULL");
  return !(wish && wish[0] == '0');
}

// The options in the order of the schema.
inline Options options_of(double near, double dilation, double alpha_min, double alpha_max, double transmittance_min,
                          double scale_modifier, bool offcentre, bool rect12, bool exact_cap) {
  return {(float)near,           (float)dilation, (float)alpha_min, (float)alpha_max, (float)transmittance_min,
          (float)scale_modifier, offcentre,       rect12,           exact_cap,        culling()};
}

struct Call {
  Options options;
  int width, height, channels;
  int64_t views;
};

inline Call check(const Tensor& means, const Tensor& quats, const Tensor& scales, const Tensor& opacities,
                  const Tensor& features, const Tensor& viewmats, const Tensor& Ks, const Tensor& background,
                  const optional<Tensor>& tile_mask, int64_t width, int64_t height, const Options& options,
                  at::DeviceType device) {
  const int64_t count = means.size(0), views = viewmats.size(0);
  const auto check_device = [&](const Tensor& t) {
    TORCH_CHECK_VALUE(t.device().type() == device && t.device() == means.device(), "gaussian_rasterization: expected ", device,
                      " tensors on one device, got ", t.device());
  };
  for (const Tensor* t : {&means, &quats, &scales, &opacities, &viewmats, &Ks, &background}) {
    TORCH_CHECK_TYPE(t->scalar_type() == at::kFloat, "gaussian_rasterization: expected float32, got ", t->scalar_type());
    check_device(*t);
  }
  TORCH_CHECK_VALUE(means.dim() == 2 && means.size(1) == 3, "gaussian_rasterization: means must be (G, 3), got ",
                    means.sizes());
  TORCH_CHECK_VALUE(quats.dim() == 2 && quats.size(0) == count && quats.size(1) == 4,
                    "gaussian_rasterization: quats must be (G, 4), got ", quats.sizes());
  TORCH_CHECK_VALUE(scales.dim() == 2 && scales.size(0) == count && scales.size(1) == 3,
                    "gaussian_rasterization: scales must be (G, 3), got ", scales.sizes());
  TORCH_CHECK_VALUE(opacities.dim() == 1 && opacities.size(0) == count, "gaussian_rasterization: opacities must be (G,), got ",
                    opacities.sizes());
  TORCH_CHECK_VALUE(viewmats.dim() == 3 && viewmats.size(1) == 4 && viewmats.size(2) == 4 && views > 0,
                    "gaussian_rasterization: viewmats must be (V, 4, 4), got ", viewmats.sizes());
  TORCH_CHECK_VALUE(Ks.dim() == 3 && Ks.size(0) == views && Ks.size(1) == 3 && Ks.size(2) == 3,
                    "gaussian_rasterization: Ks must be (V, 3, 3), got ", Ks.sizes());
  TORCH_CHECK_VALUE(background.dim() == 2 && background.size(0) == views && background.size(1) > 0,
                    "gaussian_rasterization: background must be (V, C), got ", background.sizes());
  const int64_t channels = background.size(1);
  check_device(features);
  if (features.scalar_type() == at::kInt) {
    TORCH_CHECK_VALUE(features.dim() == 1 && features.size(0) == count, "gaussian_rasterization: labels must be (G,), got ",
                      features.sizes());
  } else {
    TORCH_CHECK_TYPE(features.scalar_type() == at::kFloat, "gaussian_rasterization: features must be float32 or int32, got ",
                     features.scalar_type());
    TORCH_CHECK_VALUE(features.dim() == 2 && features.size(0) == count && features.size(1) == channels,
                      "gaussian_rasterization: features must be (G, ", channels, "), got ", features.sizes());
  }
  TORCH_CHECK_VALUE(count < INT32_MAX, "gaussian_rasterization: too many Gaussians: ", count);
  TORCH_CHECK_VALUE(width > 0 && height > 0 && width <= 32768 && height <= 32768, "gaussian_rasterization: image size ", width,
                    " x ", height, " is not in 1..32768");
  TORCH_CHECK_VALUE(channels <= 65536, "gaussian_rasterization: at most 65536 channels, got ", channels);
  if (tile_mask) {
    TORCH_CHECK_VALUE(tile_mask->device() == means.device() && tile_mask->scalar_type() == at::kBool && tile_mask->dim() == 3 &&
                          tile_mask->size(0) == views && tile_mask->size(1) == (height + MASK_TILE - 1) / MASK_TILE &&
                          tile_mask->size(2) == (width + MASK_TILE - 1) / MASK_TILE,
                      "gaussian_rasterization: tile_mask must be bool (V, ceil(H / 16), ceil(W / 16)), got ",
                      tile_mask->sizes());
  }
  return {options, (int)width, (int)height, (int)channels, views};
}

// A contiguous image or saved state of the right size.
inline Tensor check_image(const Tensor& t, const char* name, int64_t dims, int64_t numel, at::ScalarType type,
                          at::Device device) {
  TORCH_CHECK_VALUE(t.device() == device && t.scalar_type() == type && t.dim() == dims && t.numel() == numel,
                    "gaussian_rasterization: ", name, " does not fit the image: ", t.sizes(), " ", t.scalar_type());
  return t.contiguous();
}

inline Tensor check_grad(const optional<Tensor>& t, const char* name, int64_t dims, int64_t numel, at::Device device) {
  return t ? check_image(*t, name, dims, numel, at::kFloat, device) : Tensor();
}

// Layout of a gradient row: C feature gradients (if needed), h, and with geometry: z, t, y, tt, ty, yy (see Moments).
inline int row_width(int channels, bool need_features, bool need_geometry) {
  return (need_features ? channels : 0) + 1 + (need_geometry ? 6 : 0);
}

}  // namespace gaussian_rasterization
