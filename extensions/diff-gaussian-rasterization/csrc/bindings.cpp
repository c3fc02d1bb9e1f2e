// Operator schemas. Kernels register themselves per device; no Python header is used, so one library serves several Python
// versions.
#include <string>

#include <torch/library.h>
#include <torch/version.h>

#include "cpu_kernels.h"

#ifndef RASTER_COMPILER
#define RASTER_COMPILER "unknown"
#endif
#ifndef RASTER_CUDA_ARCHS
#define RASTER_CUDA_ARCHS ""
#endif
#ifndef RASTER_CUDA_OBSTACLE
#define RASTER_CUDA_OBSTACLE ""
#endif

namespace gaussian_rasterization {

const Kernels& kernels();  // rasterize_cpu.cpp

std::string build_info() {
  std::string text = std::string("compiler=") + RASTER_COMPILER + ";simd=" + kernels().name;
  const std::string archs = RASTER_CUDA_ARCHS;
  if (!archs.empty()) text += ";cuda_archs=" + archs;
  const std::string obstacle = RASTER_CUDA_OBSTACLE;
  if (!obstacle.empty()) text += ";cuda_obstacle=" + obstacle;
  return text;
}

}  // namespace gaussian_rasterization

#define CAMERAS_AND_OPTIONS                                                                                               \
  "Tensor viewmats, Tensor Ks, Tensor background, Tensor? tile_mask, int width, int height, float near, float dilation, " \
  "float alpha_min, float alpha_max, float transmittance_min, float scale_modifier, bool offcentre, bool rect12, bool "   \
  "exact_cap"

#define RAYS_AND_OPTIONS                                                                                                    \
  "Tensor origins, Tensor directions, Tensor t, Tensor transform, int form, float unit, float shift, float interval, bool " \
  "infinite_step, float alpha_min, float transmittance_min, float weight_min, float background, float min_spacing, bool "   \
  "contracted_depth, int distortion, float distortion_interval, bool weights"

// On CUDA the host waits for counts, which a graph cannot record; older PyTorch has no word for it.
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 9)
#define WAITS {at::Tag::cudagraph_unsafe}
#else
#define WAITS \
  {           \
  }
#endif

TORCH_LIBRARY(gaussian_rasterization, m) {
  // features: (G, C) float32 or (G,) int32 labels. Returns features, depth, alpha, radii and the state of the backward pass,
  // which is empty unless keep_state: light (V, H, W), stop (V, H, W) int32, order (V, G) int32 (ids by depth, -1 behind them),
  // and counts (V, 2 + ceil(H / 16)) int64 on the CPU: visible Gaussians, whether lists were culled, entries of every row of
  // tiles. The storage of `order` may hold more: CUDA puts its lists behind it, and makes them again where a copy has lost
  // them.
  m.def("render(Tensor means, Tensor quats, Tensor scales, Tensor opacities, Tensor features, " CAMERAS_AND_OPTIONS
        ", bool keep_state) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
        WAITS);
  // Returns the gradients of means, quats, scales, opacities, features, viewmats, background; empty where not needed. Opacities
  // come with features or geometry at no cost, so they have no switch.
  m.def(
      "render_backward(Tensor? grad_features, Tensor? grad_depth, Tensor? grad_alpha, Tensor means, Tensor quats, Tensor "
      "scales, "
      "Tensor opacities, Tensor features, " CAMERAS_AND_OPTIONS
      ", Tensor light, Tensor stop, Tensor order, Tensor counts, bool need_features, bool need_geometry, bool "
      "need_background) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
      WAITS);
  // Returns features (B, R, C), depth, alpha, transmittance (B, R), distortion (B, R, 0 or 1), weights (B, R, S or 0), count.
  m.def("march(Tensor density, Tensor features, " RAYS_AND_OPTIONS
        ") -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  // Returns the gradients of density and features, empty where not needed.
  m.def(
      "march_backward(Tensor? grad_features, Tensor? grad_depth, Tensor? grad_alpha, Tensor? grad_light, Tensor? "
      "grad_distortion, Tensor? grad_weights, Tensor density, Tensor features, " RAYS_AND_OPTIONS
      ", bool need_density, bool need_features) -> (Tensor, Tensor)");
  // Losses between the render of a prediction and that of other Gaussians (or given images). semantic: 0 none, 1 L1, 2 and 3
  // Kullback-Leibler divergence of the softmax of class images, of themselves; weights (V, 2). Returns the sum over the views
  // of weight times mean error (2,): class images, depth images; the means and the valid pixels of the views (V, 2); and, with
  // keep_grads, derivatives of the first: features (G, C), opacities (2, G), of either loss.
  m.def(
      "render_loss(Tensor means, Tensor quats, Tensor scales, Tensor opacities, Tensor features, " CAMERAS_AND_OPTIONS
      ", Tensor target_means, Tensor target_quats, Tensor target_scales, Tensor target_opacities, Tensor target_features, "
      "Tensor? target_image, Tensor? target_depth, Tensor weights, int semantic, bool depth, float min_depth, int free_class, "
      "bool keep_grads) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("build_info() -> str", &gaussian_rasterization::build_info);
}
