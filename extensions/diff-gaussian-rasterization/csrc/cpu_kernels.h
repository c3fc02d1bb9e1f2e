// The inner loops of the CPU backend, compiled once per instruction set and chosen when the library is first used.
//
// A tile is 16 x 16 pixels, cut into strips: one vector of neighbouring pixels of one row. All tiles of a view blend their list
// of splats strip by strip, front to back; the backward pass walks the same lists back to front.
#pragma once

#include "common.h"

namespace gaussian_rasterization {

constexpr int TILES_PER_JOB = 16;  // side by side: the unit of work that a thread takes
constexpr int BATCH = 32;          // splats whose data a tile keeps in cache at a time

// One tile of one view. Images are channels-last.
struct TileJob {
  const Splat* splats;  // of the view, sorted by (z, index)
  const int32_t* list;  // splats of the tile, front to back
  int count;            // length of the list
  int x0, y0, width, height;
  int pitch;       // images and state: pixel (x, y) of the view is number y * pitch + x - origin
  int64_t origin;  // 0 where they are those of the view
  const Options* options;
  int channels;
  const float* features;    // (G, C), or null
  const int32_t* labels;    // (G,), if features is null
  const float* background;  // (C,)
  void* scratch;            // scratch_bytes(C), aligned to 64

  // forward: outputs of the view; backward: gradients of them, null where none came
  float* out_features;
  float* out_depth;
  float* out_alpha;
  const float* grad_features;
  const float* grad_depth;
  const float* grad_alpha;
  // state of the view for the backward pass: final transmittance, and position in the list at which the pixel stopped. Written
  // by the forward pass (null where nobody wants it), read by the backward pass.
  float* out_light;
  int32_t* out_stop;
  const float* light;
  const int32_t* stop;

  // backward only: gradient rows, `row_width` floats each, one per splat and job, see gradient_row
  float* row_data;
  int row_width, job_x, job_y, first_band;
  bool need_features, need_geometry;
};

inline __attribute__((always_inline)) int64_t jobs_across(const Splat& s) {
  return s.x1 / (TILE * TILES_PER_JOB) - s.x0 / (TILE * TILES_PER_JOB) + 1;
}

// Gradient rows of a splat in the rows of jobs [first_band, end).
inline int64_t row_count(const Splat& s, int first_band, int end) {
  const int first = s.y0 / TILE > first_band ? s.y0 / TILE : first_band, last = s.y1 / TILE < end - 1 ? s.y1 / TILE : end - 1;
  return last < first ? 0 : (last - first + 1) * jobs_across(s);
}

inline __attribute__((always_inline)) int64_t gradient_row(const Splat& s, const TileJob& job) {
  const int first = s.y0 / TILE > job.first_band ? s.y0 / TILE : job.first_band;
  return s.row + (job.job_y - first) * jobs_across(s) + (job.job_x - s.x0 / (TILE * TILES_PER_JOB));
}

struct Kernels {
  const char* name;
  size_t (*scratch_bytes)(int channels);
  void (*forward)(const TileJob&);
  void (*backward)(const TileJob&);
  // As backward, for features and opacities, but class image and depth image belong to two losses: a gradient row has C feature
  // gradients, h of the class image and h of the depth image.
  void (*backward_terms)(const TileJob&);
  // Sum of |pred - target| over `count` numbers; `grad` gets the derivatives, +-slope.
  float (*compare_l1)(const float* pred, const float* target, int count, float slope, float* grad);
};

extern const Kernels kernels_baseline;
#if defined(__x86_64__) || defined(_M_X64)
#define RASTER_X86 1
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

}  // namespace gaussian_rasterization
