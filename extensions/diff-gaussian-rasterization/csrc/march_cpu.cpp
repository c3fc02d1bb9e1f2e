// Ray marching on the CPU: the operators around the kernels of march_kernels.inl.
//
// Rays are taken in an order that keeps neighbours together, whatever order they come in. Results of a ray depend on that ray
// alone. In the backward pass a group of rays leaves its entries (ray, voxel), sorted by regions of the grid; then every region
// is added up by one thread, group by group: no atomics, the same bits for any number of threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "cpu_lists.h"
#include "cpu_memory.h"
#include "march_kernels.h"

namespace gaussian_rasterization {

const Kernels& kernels();  // rasterize_cpu.cpp

namespace {

using at::Tensor;
using std::optional;

constexpr int64_t GROUP = 64;   // rays that a thread takes at a time
constexpr int64_t GROUPS = 32;  // whose entries are held together
constexpr int MAX_REGIONS = 1 << 12;

const MarchKernels& march_kernels() {
#ifdef RASTER_X86
  if (std::strcmp(kernels().name, "avx512") == 0) return march_avx512;
  if (std::strcmp(kernels().name, "avx2") == 0) return march_avx2;
#endif
  return march_baseline;
}

// Contiguous inputs of one call.
struct Inputs {
  Inputs(const MarchCall& call, const Tensor& density, const Tensor& features, const Tensor& origins, const Tensor& directions,
         const Tensor& t, const Tensor& transform)
      : call(call),
        density(density.contiguous()),
        features(features.contiguous()),
        origins(origins.contiguous()),
        directions(directions.contiguous()),
        t(t),
        transform(transform.contiguous()) {}

  MarchVolume volume(int64_t b) const {
    MarchVolume v;
    v.density = density.const_data_ptr<float>() + b * call.voxels();
    v.features = features.const_data_ptr<float>() + (call.channels ? b * call.voxels() * call.channels : 0);
    v.channels = call.channels;
    for (int a = 0; a < 3; ++a) {
      v.size[a] = call.size[a];
      v.scale[a] = transform.const_data_ptr<float>()[a], v.offset[a] = transform.const_data_ptr<float>()[3 + a];
    }
    return v;
  }

  MarchRay ray(int64_t b, int64_t r) const {
    const int64_t at = 3 * (b * call.rays + r);
    const float* place = t.const_data_ptr<float>();
    if (call.edges) place += b * t.stride(0) + r * t.stride(1);
    return {origins.const_data_ptr<float>() + at,
            directions.const_data_ptr<float>() + at,
            place,
            t.stride(-1),
            call.samples,
            call.edges};
  }

  MarchCall call;
  Tensor density, features, origins, directions, t, transform;
};

uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

// The rays of one volume in an order that follows from the rays alone: by cell of the origin and direction, then by their bits.
std::vector<int32_t> ray_order(const Inputs& in, int64_t b) {
  const MarchVolume v = in.volume(b);
  std::vector<std::pair<uint64_t, int32_t>> keys(in.call.rays);
  at::parallel_for(0, in.call.rays, 1 << 12, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const MarchRay ray = in.ray(b, r);
      const float* d = ray.direction;
      // 8 voxels of the origin, quadrant and slope of the direction seen from above, then its inclination
      uint64_t key = 0;
      for (int a = 0; a < 2; ++a) {
        const float cell = (ray.origin[a] * v.scale[a] + v.offset[a]) * 0.125f;
        key = key << 8 | (uint64_t)clampf(cell, 0.0f, 255.0f);
      }
      const float x = std::fabs(d[0]), y = std::fabs(d[1]), flat = x + y;
      const int quadrant = d[1] < 0 ? (d[0] < 0 ? 2 : 3) : (d[0] < 0 ? 1 : 0);
      const float turn = flat > 0 ? (quadrant & 1 ? x : y) / flat : 0.0f;
      const float up = flat + std::fabs(d[2]) > 0 ? d[2] / (flat + std::fabs(d[2])) : 0.0f;
      key = key << 2 | quadrant;
      key = key << 7 | (uint64_t)clampf(turn * 127.0f, 0.0f, 127.0f);
      key = key << 7 | (uint64_t)clampf(up * 64.0f + 64.0f, 0.0f, 127.0f);
      uint32_t hash = 0;
      for (int a = 0; a < 3; ++a)
        hash = (hash ^ bits_of(ray.origin[a])) * 0x9e3779b1u + (bits_of(d[a]) ^ hash >> 15) * 0x85ebca6bu;
      keys[r] = {key << 32 | hash, (int32_t)r};
    }
  });
  std::sort(keys.begin(), keys.end());
  std::vector<int32_t> order(in.call.rays);
  for (int64_t i = 0; i < in.call.rays; ++i) order[i] = keys[i].second;
  return order;
}

template <typename T>
T* at_row(const Tensor& t, int64_t row, int64_t width) {
  return t.defined() && width ? t.mutable_data_ptr<T>() + row * width : nullptr;
}

const float* at_row(const Tensor& t, int64_t row, int64_t width) {
  return t.defined() && width ? t.const_data_ptr<float>() + row * width : nullptr;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> march(const Tensor& density, const Tensor& features,
                                                                         const Tensor& origins, const Tensor& directions,
                                                                         const Tensor& t, const Tensor& transform,
                                                                         MARCH_OPTIONS_DECLARED) {
  const MarchOptions options = MARCH_OPTIONS;
  const MarchCall call = check_march(density, features, origins, directions, t, transform, options, at::kCPU);
  const Inputs in(call, density, features, origins, directions, t, transform);
  const auto floats = density.options();
  const int64_t batch = call.batch, rays = call.rays, samples = call.samples;
  const int64_t distortions = options.distortion ? 1 : 0, kept = options.weights ? samples : 0;
  Tensor sums = at::empty({batch, rays, call.channels}, floats), depth = at::empty({batch, rays}, floats);
  Tensor alpha = at::empty({batch, rays}, floats), light = at::empty({batch, rays}, floats);
  Tensor spread = at::empty({batch, rays, distortions}, floats), shares = empty_large({batch, rays, kept}, floats);
  Tensor count = at::empty({batch, rays}, floats.dtype(at::kInt));
  for (int64_t b = 0; b < batch; ++b) {
    const MarchVolume volume = in.volume(b);
    const std::vector<int32_t> order = ray_order(in, b);
    for_each((rays + GROUP - 1) / GROUP, [&] {
      auto scratch = std::make_shared<AlignedBuffer>(march_kernels().scratch_bytes((int)samples));
      return [&, scratch](int64_t group) {
        for (int64_t i = group * GROUP; i < std::min(rays, (group + 1) * GROUP); ++i) {
          const int64_t row = b * rays + order[i];
          march_kernels().forward(
              options, volume, in.ray(b, order[i]), scratch->memory.get(),
              {at_row<float>(sums, row, call.channels), at_row<float>(depth, row, 1), at_row<float>(alpha, row, 1),
               at_row<float>(light, row, 1), at_row<float>(spread, row, distortions), at_row<float>(shares, row, kept),
               at_row<int32_t>(count, row, 1)});
        }
      };
    });
  }
  return {sums, depth, alpha, light, spread, shares, count};
}

MarchRegions make_regions(const MarchCall& call) {
  MarchRegions regions = {2, 0, 0};
  int64_t count;
  do {
    ++regions.shift;
    regions.across = ((call.size[1] - 1) >> regions.shift) + 1;
    count = (int64_t)regions.across * (((call.size[0] - 1) >> regions.shift) + 1);
  } while (count > MAX_REGIONS);
  regions.count = (int)count;
  return regions;
}

// The entries of one group of rays, sorted by region and in the order of the rays.
struct GroupEntries {
  std::vector<MarchEntry> entries;
  std::vector<int64_t> first;  // of every region, and the end
};

// Unsorted entries of a group; memory grows without being cleared.
struct RawEntries {
  void make_room(int64_t more) {
    if (count + more <= capacity) return;
    capacity = std::max(2 * capacity, count + more);
    std::unique_ptr<MarchEntry[]> larger(new MarchEntry[capacity]);
    std::unique_ptr<int32_t[]> larger_regions(new int32_t[capacity]);
    std::copy(entries.get(), entries.get() + count, larger.get());
    std::copy(regions.get(), regions.get() + count, larger_regions.get());
    entries = std::move(larger), regions = std::move(larger_regions);
  }
  int64_t count = 0, capacity = 0;
  std::unique_ptr<MarchEntry[]> entries;
  std::unique_ptr<int32_t[]> regions;
};

void sort_entries(const RawEntries& raw, int regions, GroupEntries& group) {
  group.first.assign(regions + 1, 0);
  for (int64_t i = 0; i < raw.count; ++i) ++group.first[raw.regions[i] + 1];
  for (int r = 0; r < regions; ++r) group.first[r + 1] += group.first[r];
  group.entries.resize(raw.count);
  for (int64_t i = 0; i < raw.count; ++i) group.entries[group.first[raw.regions[i]]++] = raw.entries[i];
  for (int r = regions; r > 0; --r) group.first[r] = group.first[r - 1];
  group.first[0] = 0;
}

std::tuple<Tensor, Tensor> march_backward(const optional<Tensor>& grad_features_, const optional<Tensor>& grad_depth_,
                                          const optional<Tensor>& grad_alpha_, const optional<Tensor>& grad_light_,
                                          const optional<Tensor>& grad_distortion_, const optional<Tensor>& grad_weights_,
                                          const Tensor& density, const Tensor& features, const Tensor& origins,
                                          const Tensor& directions, const Tensor& t, const Tensor& transform,
                                          MARCH_OPTIONS_DECLARED, bool need_density, bool need_features) {
  const MarchOptions options = MARCH_OPTIONS;
  const MarchCall call = check_march(density, features, origins, directions, t, transform, options, at::kCPU);
  const Inputs in(call, density, features, origins, directions, t, transform);
  const int64_t batch = call.batch, rays = call.rays, samples = call.samples, channels = call.channels;
  const int64_t distortions = options.distortion ? 1 : 0, kept = options.weights ? samples : 0;
  const auto gradient = [&](const optional<Tensor>& grad, const char* name, int64_t width) {
    return check_march_grad(grad, name, batch * rays * width, at::kCPU);
  };
  const Tensor grad_sums = gradient(grad_features_, "grad_features", channels);
  const Tensor grad_depth = gradient(grad_depth_, "grad_depth", 1), grad_alpha = gradient(grad_alpha_, "grad_alpha", 1);
  const Tensor grad_light = gradient(grad_light_, "grad_light", 1);
  const Tensor grad_spread = gradient(grad_distortion_, "grad_distortion", distortions);
  const Tensor grad_shares = gradient(grad_weights_, "grad_weights", kept);
  const auto floats = density.options();
  Tensor to_density = need_density ? zeros_large(density.sizes(), floats) : at::empty({0}, floats);
  Tensor to_features = need_features ? zeros_large(features.sizes(), floats) : at::empty({0}, floats);
  const bool any_features = need_features && grad_sums.defined() && channels > 0;
  if (!need_density && !any_features) return {to_density, to_features};

  const MarchRegions regions = make_regions(call);
  std::vector<GroupEntries> groups(GROUPS);
  for (int64_t b = 0; b < batch; ++b) {
    const MarchVolume volume = in.volume(b);
    const std::vector<int32_t> order = ray_order(in, b);
    float* density_row = need_density ? to_density.mutable_data_ptr<float>() + b * call.voxels() : nullptr;
    float* features_row = any_features ? to_features.mutable_data_ptr<float>() + b * call.voxels() * channels : nullptr;
    const float* upstream = at_row(grad_sums, b * rays, channels);
    for (int64_t begin = 0; begin < rays; begin += GROUP * GROUPS) {
      const int64_t count = std::min(GROUPS, (rays - begin + GROUP - 1) / GROUP);
      for_each(count, [&] {
        auto scratch = std::make_shared<AlignedBuffer>(march_kernels().scratch_bytes((int)samples));
        auto raw = std::make_shared<RawEntries>();
        return [&, scratch, raw](int64_t group) {
          raw->count = 0;
          const int64_t first = begin + group * GROUP;
          for (int64_t i = first; i < std::min(rays, first + GROUP); ++i) {
            const int64_t row = b * rays + order[i];
            raw->make_room(march_entries((int)samples));
            raw->count += march_kernels().backward(
                options, volume, in.ray(b, order[i]), scratch->memory.get(),
                {at_row(grad_sums, row, channels), at_row(grad_depth, row, 1), at_row(grad_alpha, row, 1),
                 at_row(grad_light, row, 1), at_row(grad_spread, row, distortions), at_row(grad_shares, row, kept)},
                need_density, any_features, regions, order[i], raw->entries.get() + raw->count,
                raw->regions.get() + raw->count);
          }
          sort_entries(*raw, regions.count, groups[group]);
        };
      });
      for_each(regions.count, [&] {
        return [&](int64_t region) {
          for (int64_t g = 0; g < count; ++g) {
            const int64_t from = groups[g].first[region], to = groups[g].first[region + 1];
            if (from == to) continue;
            march_kernels().add(groups[g].entries.data() + from, to - from, upstream, (int)channels, density_row, features_row);
          }
        };
      });
    }
  }
  return {to_density, to_features};
}

}  // namespace
}  // namespace gaussian_rasterization

TORCH_LIBRARY_IMPL(gaussian_rasterization, CPU, m) {
  m.impl("march", &gaussian_rasterization::march);
  m.impl("march_backward", &gaussian_rasterization::march_backward);
}
