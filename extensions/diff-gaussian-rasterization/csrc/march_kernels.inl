// Forward and backward pass over one ray. Included by march_cpu_*.cpp with RASTER_ISA set.
//
// Only plain arithmetic, builtins and our own inline functions are used here, see cpu_kernels.inl.

namespace {

#include "simd.inl"

#include "march_vectors.inl"

#include "march_trace.inl"

// Runs of samples in one cell, and the voxels that the ray meets. Samples that do not count are passed by if `counted_only`.
FN int find_runs(const MarchVolume& v, const Scratch& s, int used, bool counted_only, const MarchRegions* regions,
                 int& voxels) {
  int runs = 0, met = 1;
  int32_t offset[8];
  for (int c = 0; c < 8; ++c) offset[c] = (c & 4 ? v.size[1] * v.size[2] : 0) + (c & 2 ? v.size[2] : 0) + (c & 1);
  int32_t x = -2, y = 0, z = 0;
  for (int i = 0; i < used; ++i) {
    if (!s.inside[i] || (counted_only && s.active[i] == 0.0f)) continue;
    if (runs && s.bx[i] == x && s.by[i] == y && s.bz[i] == z) {
      s.runs[runs - 1].end = i + 1;
      continue;
    }
    const int32_t dx = s.bx[i] - x, dy = s.by[i] - y, dz = s.bz[i] - z;
    const bool near = runs && dx >= -1 && dx <= 1 && dy >= -1 && dy <= 1 && dz >= -1 && dz <= 1;
    const int move = near ? (dx + 1) * 9 + (dy + 1) * 3 + dz + 1 : NO_MOVE;
    x = s.bx[i], y = s.by[i], z = s.bz[i];
    Run& run = s.runs[runs];
    const int32_t* old = s.runs[near ? runs - 1 : 0].ids;
    run.begin = i, run.end = i + 1;
    const int32_t base = (x * v.size[1] + y) * v.size[2] + z;
    if (near) {
      for (int c = 0; c < 8; ++c) run.ids[c] = old[MOVES.slot[move][c]];
    }
    const bool border = x < 0 || x >= v.size[0] - 1 || y < 0 || y >= v.size[1] - 1 || z < 0 || z >= v.size[2] - 1;
    for (int f = 0; f < MOVES.count[move]; ++f) {
      const int c = MOVES.fresh[move][f];
      const int32_t vx = x + (c >> 2), vy = y + (c >> 1 & 1), vz = z + (c & 1);
      if (border && (vx < 0 || vx >= v.size[0] || vy < 0 || vy >= v.size[1] || vz < 0 || vz >= v.size[2])) {
        run.ids[c] = 0;
        continue;
      }
      const int32_t voxel = base + offset[c];
      s.voxels[met] = voxel;
      if (regions) s.regions[met] = (vx >> regions->shift) * regions->across + (vy >> regions->shift);
      if (v.channels) {
        const float* row = v.features + (int64_t)voxel * v.channels;
        __builtin_prefetch(row), __builtin_prefetch(row + 16);
      }
      run.ids[c] = met++;
    }
    ++runs;
  }
  voxels = met;
  return runs;
}

// sums[c] = sum over voxels of coefficient * features[voxel, c], N vectors of channels of which the last one is `part`
template <int N>
FN void blend(const MarchVolume& v, const Scratch& s, int voxels, int first, const Part& part, float* out) {
  vf sums[N];
  UNROLL for (int k = 0; k < N; ++k)
    sums[k] = splat(0.0f);
  for (int i = 1; i < voxels; ++i) {
    const float* row = v.features + (int64_t)s.voxels[i] * v.channels + first;
    const vf a = splat(s.feature[i]);
    UNROLL for (int k = 0; k < N - 1; ++k)
      sums[k] = fma(a, load(row + k * LANES), sums[k]);
    sums[N - 1] = fma(a, load_part(row + (N - 1) * LANES, part), sums[N - 1]);
  }
  UNROLL for (int k = 0; k < N - 1; ++k)
    store(out + first + k * LANES, sums[k]);
  store_part(out + first + (N - 1) * LANES, part, sums[N - 1]);
}

// dot[voxel] += sum over channels of grad[c] * features[voxel, c]
template <int N>
FN void dots(const MarchVolume& v, const Scratch& s, int voxels, int first, const Part& part, const float* grad) {
  vf g[N];
  UNROLL for (int k = 0; k < N - 1; ++k)
    g[k] = load(grad + first + k * LANES);
  g[N - 1] = load_part(grad + first + (N - 1) * LANES, part);
  const auto product = [&](int i) __attribute__((always_inline)) {
    const float* row = v.features + (int64_t)s.voxels[i] * v.channels + first;
    vf sums = g[N - 1] * load_part(row + (N - 1) * LANES, part);
    UNROLL for (int k = 0; k < N - 1; ++k)
      sums = fma(g[k], load(row + k * LANES), sums);
    return sums;
  };
  int i = 1;
  for (; i + 4 <= voxels; i += 4) {
    float four[4];
    sum4(product(i), product(i + 1), product(i + 2), product(i + 3), four);
    for (int j = 0; j < 4; ++j) s.dot[i + j] += four[j];
  }
  for (; i < voxels; ++i) s.dot[i] += sum(product(i));
}

// gradient[voxel, c] += coefficient * upstream[ray, c]
template <int N>
FN void spread(const MarchEntry* entries, int64_t count, const float* upstream, int channels, int first, const Part& part,
               float* gradient) {
  for (int64_t i = 0; i < count; ++i) {
    const vf a = splat(entries[i].feature);
    const float* from = upstream + (int64_t)entries[i].ray * channels + first;
    float* to = gradient + (int64_t)entries[i].voxel * channels + first;
    UNROLL for (int k = 0; k < N - 1; ++k)
      store(to + k * LANES, fma(a, load(from + k * LANES), load(to + k * LANES)));
    from += (N - 1) * LANES, to += (N - 1) * LANES;
    store_part(to, part, fma(a, load_part(from, part), load_part(to, part)));
  }
}

// Call `use` with the number of vectors of every block of channels, as a constant.
#define FOR_CHANNEL_BLOCKS(channels, use)                                              \
  for (int first = 0; first < (channels); first += VECTORS * LANES) {                  \
    const int left = (channels) - first;                                               \
    const int vectors = left < VECTORS * LANES ? (left + LANES - 1) / LANES : VECTORS; \
    const int tail = left - (vectors - 1) * LANES;                                     \
    const Part part = part_of(tail < LANES ? tail : LANES);                            \
    switch (vectors) {                                                                 \
      case 1:                                                                          \
        use(1);                                                                        \
        break;                                                                         \
      case 2:                                                                          \
        use(2);                                                                        \
        break;                                                                         \
      case 3:                                                                          \
        use(3);                                                                        \
        break;                                                                         \
      case 4:                                                                          \
        use(4);                                                                        \
        break;                                                                         \
        BLOCKS_ABOVE_4(use)                                                            \
    }                                                                                  \
  }
#if RASTER_ISA == 512
#define BLOCKS_ABOVE_4(use) \
  case 5:                   \
    use(5);                 \
    break;                  \
  case 6:                   \
    use(6);                 \
    break;                  \
  case 7:                   \
    use(7);                 \
    break;                  \
  case 8:                   \
    use(8);                 \
    break;
#else
#define BLOCKS_ABOVE_4(use)
#endif

void march_forward(const MarchOptions& o, const MarchVolume& v, const MarchRay& ray, void* scratch, const MarchValues& out) {
  const Scratch s = carve(scratch, ray.samples);
  const Trace t = trace(o, v, ray, s, false);
  *out.depth = t.depth;
  *out.light = t.light;
  *out.alpha = o.form == PROB ? t.total : one_minus_exp(splat(t.total))[0];
  *out.count = t.count;
  if (out.weights) {
    for (int k = 0; k < ray.samples; ++k) out.weights[k] = 0.0f;
    for (int i = 0; i < t.used; ++i) out.weights[s.number[i]] = s.weight[i];
  }
  if (out.distortion) {
    double mass = 0, moment = 0, pairs = 0, self = 0;
    for (int i = 0; i < t.used; ++i) {
      const double w = s.weight[i], m = contracted_distance(s.u[i]);
      pairs += w * (m * mass - moment);
      mass += w, moment += w * m;
      const bool width = o.distortion == SAMPLE_WIDTH;
      self += w * w * (double)distortion_interval(o, width ? s.start[i] : 0.0f, width ? s.width[i] : 0.0f, t.count);
    }
    *out.distortion = (float)(2 * pairs + self / 3);
  }
  if (v.channels == 0) return;
  int voxels;
  const int runs = find_runs(v, s, t.used, true, nullptr, voxels);
  for (int i = 0; i < voxels; ++i) s.feature[i] = 0.0f;
  for (int r = 0; r < runs; ++r) {
    const Run& run = s.runs[r];
    v8 total = {};
    for (int i = run.begin; i < run.end; ++i) {
      if (s.active[i] != 0.0f && s.inside[i]) total += s.weight[i] * trilinear(s.x[i], s.y[i], s.z[i]);
    }
    for (int c = 0; c < 8; ++c) s.feature[run.ids[c]] += total[c];
  }
#define USE(N) blend<N>(v, s, voxels, first, part, out.features)
  FOR_CHANNEL_BLOCKS(v.channels, USE)
#undef USE
}

int march_backward(const MarchOptions& o, const MarchVolume& v, const MarchRay& ray, void* scratch, const MarchGrads& grads,
                   bool need_density, bool need_features, const MarchRegions& regions, int32_t number, MarchEntry* entries,
                   int32_t* entry_regions) {
  const Scratch s = carve(scratch, ray.samples);
  const Trace t = trace(o, v, ray, s, true);
  const bool features = v.channels > 0 && grads.features;
  need_features = need_features && features;
  int voxels;
  const int runs = find_runs(v, s, t.used, !need_density, &regions, voxels);

  if (need_density) {
    // gradient of every weight
    const float depth = grads.depth ? *grads.depth * o.unit : 0.0f;
    for (int i = 0; i < t.used; ++i) {
      s.grad[i] = depth * place_of(o, s, i) + (grads.weights ? grads.weights[s.number[i]] : 0.0f);
    }
    if (features) {
      for (int i = 0; i < voxels; ++i) s.dot[i] = 0.0f;
#define USE(N) dots<N>(v, s, voxels, first, part, grads.features)
      FOR_CHANNEL_BLOCKS(v.channels, USE)
#undef USE
      for (int r = 0; r < runs; ++r) {
        const Run& run = s.runs[r];
        v8 dot;
        for (int c = 0; c < 8; ++c) dot[c] = s.dot[run.ids[c]];
        for (int i = run.begin; i < run.end; ++i) {
          if (s.inside[i]) s.grad[i] += sum8(dot * trilinear(s.x[i], s.y[i], s.z[i]));
        }
      }
    }
    if (o.distortion && grads.distortion) {
      double mass = 0, moment = 0, all_mass = 0, all_moment = 0;
      for (int i = 0; i < t.used; ++i) all_mass += s.weight[i], all_moment += (double)s.weight[i] * contracted_distance(s.u[i]);
      for (int i = 0; i < t.used; ++i) {
        const double w = s.weight[i], m = contracted_distance(s.u[i]);
        const double before = m * mass - moment;
        mass += w, moment += w * m;
        const double behind = (all_moment - moment) - m * (all_mass - mass);
        const bool width = o.distortion == SAMPLE_WIDTH;
        const double q = distortion_interval(o, width ? s.start[i] : 0.0f, width ? s.width[i] : 0.0f, t.count);
        s.grad[i] += *grads.distortion * (float)(2 * (before + behind) + 2 * q * w / 3);
      }
    }
    // back to front: what lies behind a sample loses when its density grows
    const float of_light = (grads.light ? *grads.light : 0.0f) - (grads.alpha ? *grads.alpha : 0.0f);
    if (o.form == PROB) {
      int end = t.used;
      float lost = of_light;
      if (t.light <= 0.0f && t.used > 0) {  // the last sample fills up what is missing
        --end;
        lost = s.active[end] != 0.0f ? s.grad[end] : 0.0f;
        s.grad[end] = 0.0f;
      }
      for (int i = 0; i < end; ++i) s.grad[i] = s.slope[i] * ((s.active[i] != 0.0f ? s.grad[i] : 0.0f) - lost);
    } else {
      float behind = of_light * t.light;
      for (int i = t.used - 1; i >= 0; --i) {
        const float own = s.active[i] != 0.0f ? s.grad[i] : 0.0f;
        s.grad[i] = s.slope[i] * (s.light[i + 1] * own - behind);
        behind += s.weight[i] * own;
      }
    }
  }

  for (int i = 0; i < voxels; ++i) s.feature[i] = 0.0f, s.density[i] = 0.0f;
  for (int r = 0; r < runs; ++r) {
    const Run& run = s.runs[r];
    v8 feature = {}, density = {};
    for (int i = run.begin; i < run.end; ++i) {
      if (!s.inside[i]) continue;
      const v8 share = trilinear(s.x[i], s.y[i], s.z[i]);
      feature += s.weight[i] * share;
      if (need_density) density += s.grad[i] * share;
    }
    for (int c = 0; c < 8; ++c) s.feature[run.ids[c]] += feature[c], s.density[run.ids[c]] += density[c];
  }
  int count = 0;
  for (int i = 1; i < voxels; ++i) {
    const bool touched = (need_features && s.feature[i] != 0.0f) || s.density[i] != 0.0f;
    entries[count] = {s.voxels[i], number, s.feature[i], s.density[i]};
    entry_regions[count] = s.regions[i];
    count += touched;
  }
  return count;
}

void march_add(const MarchEntry* entries, int64_t count, const float* upstream, int channels, float* grad_density,
               float* grad_features) {
  if (grad_density) {
    for (int64_t i = 0; i < count; ++i) grad_density[entries[i].voxel] += entries[i].density;
  }
  if (!grad_features) return;
#define USE(N) spread<N>(entries, count, upstream, channels, first, part, grad_features)
  FOR_CHANNEL_BLOCKS(channels, USE)
#undef USE
}

}  // namespace
