// Visible splats of a view in depth order, and the lists of jobs and tiles. Lists are made in two steps so that memory stays
// bounded: the sorted splats are counted into jobs of TILES_PER_JOB x 1 tiles, and a job splits its list into tiles just before
// it is rendered.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>
#include <vector>

#include "cpu_kernels.h"

namespace gaussian_rasterization {

constexpr int64_t CHUNK = 4096;  // Gaussians that are projected or counted together

// Run work(i) for every i in [0, count): whichever thread is free takes the next.
template <typename Work>
void for_each(int64_t count, const Work& make_worker) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), count);
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      auto work = make_worker();
      for (int64_t i = next++; i < count; i = next++) work(i);
    }
  });
}

// Rows of a (G, k) tensor that may be expanded or strided.
struct Rows {
  explicit Rows(const at::Tensor& t)
      : data(t.const_data_ptr<float>()), row(t.stride(0)), column(t.dim() > 1 ? t.stride(1) : 0) {}
  float operator()(int64_t i, int j = 0) const { return data[i * row + j * column]; }
  const float* data;
  int64_t row, column;
};

struct Scene {
  Scene(const at::Tensor& means, const at::Tensor& quats, const at::Tensor& scales, const at::Tensor& opacities)
      : count(means.size(0)), means(means), quats(quats), scales(scales), opacities(opacities) {}
  Shape shape(int64_t i) const {
    Shape g;
    for (int j = 0; j < 3; ++j) g.mean[j] = means(i, j), g.scale[j] = scales(i, j);
    for (int j = 0; j < 4; ++j) g.quat[j] = quats(i, j);
    return g;
  }
  int64_t count;
  Rows means, quats, scales, opacities;
};

// The splats that a view sees, in chunks of CHUNK Gaussians; fills `radii` (G,).
inline std::vector<std::vector<Splat>> project_view(const Scene& scene, const Camera& camera, const Options& options,
                                                    int32_t* radii) {
  std::vector<std::vector<Splat>> found((scene.count + CHUNK - 1) / CHUNK);
  for_each((int64_t)found.size(), [&] {
    return [&](int64_t chunk) {
      std::vector<Splat>& list = found[chunk];
      for (int64_t i = chunk * CHUNK; i < std::min(scene.count, (chunk + 1) * CHUNK); ++i) {
        Splat s;
        if (!project(camera, options, scene.shape(i), scene.opacities(i), s, radii[i])) continue;
        s.id = (int32_t)i;
        list.push_back(s);
      }
    };
  });
  return found;
}

// The splats of a view by (z, index).
inline std::vector<Splat> sort_by_depth(const std::vector<std::vector<Splat>>& found) {
  const int64_t chunks = (int64_t)found.size();
  std::vector<int64_t> first(chunks + 1, 0);
  for (int64_t c = 0; c < chunks; ++c) first[c + 1] = first[c] + (int64_t)found[c].size();
  const int64_t count = first[chunks];

  // stable radix sort; positive floats order like their bits
  struct Key {
    uint32_t z, chunk, index;
  };
  std::vector<Key> keys(count), other(count);
  constexpr int BITS = 11, BINS = 1 << BITS;
  std::vector<int64_t> histogram(3 * BINS, 0);
  for (int64_t c = 0, n = 0; c < chunks; ++c) {
    for (size_t i = 0; i < found[c].size(); ++i, ++n) {
      uint32_t z;
      std::memcpy(&z, &found[c][i].z, 4);
      keys[n] = {z, (uint32_t)c, (uint32_t)i};
      for (int pass = 0; pass < 3; ++pass) ++histogram[pass * BINS + (z >> (pass * BITS) & (BINS - 1))];
    }
  }
  for (int pass = 0; pass < 3; ++pass) {
    int64_t* bins = histogram.data() + pass * BINS;
    int64_t sum = 0;
    for (int b = 0; b < BINS; ++b) sum += std::exchange(bins[b], sum);
    for (const Key& key : keys) other[bins[key.z >> (pass * BITS) & (BINS - 1)]++] = key;
    keys.swap(other);
  }

  std::vector<Splat> splats(count);
  at::parallel_for(0, count, CHUNK, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) splats[i] = found[keys[i].chunk][keys[i].index];
  });
  return splats;
}

// The jobs of one view, TILES_PER_JOB tiles side by side each, and the splats of every job, front to back.
struct JobLists {
  int64_t size() const { return (int64_t)across * down; }

  int tiles_x, across, down;
  std::vector<int64_t> first;    // (jobs + 1,) where the entries of a job begin
  std::vector<int32_t> entries;  // splats
};

inline JobLists bin_jobs(const std::vector<Splat>& splats, int width, int height) {
  JobLists lists;
  lists.tiles_x = (width + TILE - 1) / TILE, lists.down = (height + TILE - 1) / TILE;
  lists.across = (lists.tiles_x + TILES_PER_JOB - 1) / TILES_PER_JOB;
  const int64_t count = (int64_t)splats.size(), jobs = lists.size(), chunks = (count + CHUNK - 1) / CHUNK;
  std::vector<int64_t> counts(chunks * jobs, 0);
  const auto visit = [&](int64_t chunk, const auto& use) {
    for (int64_t i = chunk * CHUNK; i < std::min(count, (chunk + 1) * CHUNK); ++i) {
      const Splat& s = splats[i];
      for (int y = s.y0 / TILE; y <= s.y1 / TILE; ++y) {
        for (int x = s.x0 / (TILE * TILES_PER_JOB); x <= s.x1 / (TILE * TILES_PER_JOB); ++x) {
          use(counts[chunk * jobs + y * lists.across + x], i);
        }
      }
    }
  };
  for_each(chunks, [&] { return [&](int64_t chunk) { visit(chunk, [](int64_t& n, int64_t) { ++n; }); }; });
  lists.first.assign(jobs + 1, 0);
  int64_t sum = 0;
  for (int64_t j = 0; j < jobs; ++j) {
    lists.first[j] = sum;
    for (int64_t c = 0; c < chunks; ++c) sum += std::exchange(counts[c * jobs + j], sum);
  }
  lists.first[jobs] = sum;
  lists.entries.resize(sum);
  for_each(chunks, [&] {
    return [&](int64_t chunk) { visit(chunk, [&](int64_t& at, int64_t i) { lists.entries[at++] = (int32_t)i; }); };
  });
  return lists;
}

// Lists of the tiles of one job.
struct TileLists {
  void split_job(const std::vector<Splat>& splats, const int32_t* list, int64_t count, int y, int first_tile, int tiles) {
    spans.resize(count);
    int64_t counts[TILES_PER_JOB + 1] = {};
    for (int64_t i = 0; i < count; ++i) {
      int x0, x1;
      tile_span(splats[list[i]], y, first_tile, first_tile + tiles - 1, x0, x1);
      if (x0 > x1) x0 = first_tile, x1 = first_tile - 1;  // not in this job; the bounds may be far outside
      spans[i] = {(int8_t)(x0 - first_tile), (int8_t)(x1 - first_tile)};
      for (int x = spans[i].first; x <= spans[i].second; ++x) ++counts[x + 1];
    }
    for (int t = 0; t < TILES_PER_JOB; ++t) counts[t + 1] += counts[t];
    std::memcpy(first, counts, sizeof(first));
    entries.resize(counts[TILES_PER_JOB]);
    for (int64_t i = 0; i < count; ++i) {
      for (int x = spans[i].first; x <= spans[i].second; ++x) entries[counts[x]++] = list[i];
    }
  }

  int64_t first[TILES_PER_JOB + 1];
  std::vector<std::pair<int8_t, int8_t>> spans;
  std::vector<int32_t> entries;
};

}  // namespace gaussian_rasterization
