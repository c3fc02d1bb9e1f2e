// What the operators of the CPU backend share on the host: the settings of a tile, and the walk over the tiles of a
// view.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "cpu_lists.h"
#include "cpu_memory.h"
#include "operators.h"

namespace gaussian_rasterization {

const Kernels& kernels();  // the best that this machine can run, rasterize_cpu.cpp

// Labels index sums of the tiles.
inline void check_labels(const Tensor& labels, int channels) {
  for (int64_t i = 0; labels.scalar_type() == at::kInt && i < labels.size(0); ++i) {
    const int32_t label = labels.const_data_ptr<int32_t>()[i * labels.stride(0)];
    TORCH_CHECK_VALUE(label >= 0 && label < channels, "gaussian_rasterization: label ", label, " is not in 0..", channels - 1);
  }
}

static_assert(TILE == MASK_TILE, "tile_mask switches tiles");

constexpr int64_t ROW_BYTES = 1ll << 30;  // of gradient rows held at a time, unless the environment says otherwise

// What the tile jobs of view v have in common.
inline TileJob make_job(const Call& call, const Tensor& features, const Tensor& background, int64_t v) {
  TileJob job;
  std::memset(&job, 0, sizeof(job));
  job.width = call.width, job.height = call.height, job.channels = call.channels;
  job.options = &call.options;
  if (features.scalar_type() == at::kInt) {
    job.labels = features.const_data_ptr<int32_t>();
  } else {
    job.features = features.const_data_ptr<float>();
  }
  job.background = background.const_data_ptr<float>() + v * call.channels;
  job.pitch = call.width;
  return job;
}

inline Camera camera_of(const Tensor& viewmats, const Tensor& Ks, int64_t v, const Call& call) {
  return make_camera(viewmats.const_data_ptr<float>() + 16 * v, Ks.const_data_ptr<float>() + 9 * v, call.width, call.height,
                     call.options.offcentre);
}

// Render(job) for the tiles of jobs [begin, end), lists filled in. `mask` (tiles of the view) empties the lists of
// switched-off tiles.
template <typename Render>
void for_each_tile(const std::vector<Splat>& splats, const JobLists& jobs, int64_t begin, int64_t end, const TileJob& common,
                   const bool* mask, const Render& render) {
  for_each(end - begin, [&] {
    auto lists = std::make_shared<TileLists>();
    auto scratch = std::make_shared<AlignedBuffer>(kernels().scratch_bytes(common.channels));
    return [&, lists, scratch](int64_t i) {
      const int64_t n = begin + i;
      const int y = (int)(n / jobs.across), x = (int)(n % jobs.across), first = x * TILES_PER_JOB;
      const int tiles = std::min(TILES_PER_JOB, jobs.tiles_x - first);
      lists->split_job(splats, jobs.entries.data() + jobs.first[n], jobs.first[n + 1] - jobs.first[n], y, first, tiles);
      TileJob job = common;
      job.splats = splats.data();
      job.scratch = scratch->memory.get();
      job.job_x = x, job.job_y = y;
      for (int t = 0; t < tiles; ++t) {
        const bool shown = !mask || mask[(int64_t)y * jobs.tiles_x + first + t];
        job.list = lists->entries.data() + lists->first[t];
        job.count = shown ? (int)(lists->first[t + 1] - lists->first[t]) : 0;
        job.x0 = (first + t) * TILE, job.y0 = y * TILE;
        render(job);
      }
    };
  });
}

inline const bool* mask_of(const optional<Tensor>& mask, int64_t v) {
  return mask ? mask->const_data_ptr<bool>() + v * mask->size(1) * mask->size(2) : nullptr;
}

}  // namespace gaussian_rasterization
