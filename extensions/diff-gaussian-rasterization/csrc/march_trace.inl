// Vectors of samples: positions, contraction, density, opacity and light along one ray. Included by march_kernels.inl.

constexpr float LOG2_E = 1.44269504f;

typedef vf vfu __attribute__((aligned(4)));  // anywhere in memory
typedef vi viu __attribute__((aligned(4)));

#if RASTER_ISA == 512
constexpr int VECTORS = 8;  // of channels that stay in registers
#else
constexpr int VECTORS = 4;
#endif

FN vf load(const float* p) { return *(const vfu*)p; }
FN vi load(const int32_t* p) { return *(const viu*)p; }
FN void store(float* p, vf x) { *(vfu*)p = x; }
FN void store(int32_t* p, vi x) { *(viu*)p = x; }
FN vi splat(int32_t x) { return x - vi{}; }

FN vi lane_numbers() {
  vi lanes;
  for (int l = 0; l < LANES; ++l) lanes[l] = l;
  return lanes;
}

FN bool all(vi mask) { return !any(~mask); }

FN vf root(vf x) {
#if RASTER_ISA == 512
  return (vf)_mm512_sqrt_ps((__m512)x);
#elif RASTER_ISA == 2
  return (vf)_mm256_sqrt_ps((__m256)x);
#elif defined(__aarch64__)
  return (vf)vsqrtq_f32((float32x4_t)x);
#elif defined(__x86_64__)
  return (vf)_mm_sqrt_ps((__m128)x);
#else
  for (int l = 0; l < LANES; ++l) x[l] = __builtin_sqrtf(x[l]);
  return x;
#endif
}

// base[index] where the mask is set, else 0
FN vf gather(const float* base, vi index, vi mask) {
#if RASTER_ISA == 512
  const __mmask16 m = _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask);
  return (vf)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), m, (__m512i)index, base, 4);
#elif RASTER_ISA == 2
  return (vf)_mm256_mask_i32gather_ps(_mm256_setzero_ps(), base, (__m256i)index, (__m256)mask, 4);
#else
  vf result = {};
  for (int l = 0; l < LANES; ++l) {
    if (mask[l]) result[l] = base[index[l]];
  }
  return result;
#endif
}

// The first `width` of LANES floats; the rest is 0, or is left alone.
struct Part {
#if RASTER_ISA == 512
  __mmask16 mask;
#elif RASTER_ISA == 2
  __m256i mask;
#else
  int width;
#endif
};

FN Part part_of(int width) {
#if RASTER_ISA == 512
  return {(__mmask16)((1u << width) - 1)};
#elif RASTER_ISA == 2
  return {(__m256i)(lane_numbers() < splat(width))};
#else
  return {width};
#endif
}

FN vf load_part(const float* p, const Part& part) {
#if RASTER_ISA == 512
  return (vf)_mm512_maskz_loadu_ps(part.mask, p);
#elif RASTER_ISA == 2
  return (vf)_mm256_maskload_ps(p, part.mask);
#else
  vf x = {};
  for (int l = 0; l < part.width; ++l) x[l] = p[l];
  return x;
#endif
}

FN void store_part(float* p, const Part& part, vf x) {
#if RASTER_ISA == 512
  _mm512_mask_storeu_ps(p, part.mask, (__m512)x);
#elif RASTER_ISA == 2
  _mm256_maskstore_ps(p, part.mask, (__m256)x);
#else
  for (int l = 0; l < part.width; ++l) p[l] = x[l];
#endif
}

FN float sum(vf x) {
  float total = 0;
  for (int l = 0; l < LANES; ++l) total += x[l];
  return total;
}

// exp(-a) of a >= 0 to 1e-7 relative; from 87 on the result is that of 87. NaN stays.
FN vf exp_negative(vf a) {
  a = select(a > 87.0f, splat(87.0f), a);
  const vf magic = splat(12582912.0f), n = fma(a, splat(-LOG2_E), magic) - magic;
  const vf r = fma(n, splat(2.12194440e-4f), fma(n, splat(-0.693359375f), -a));  // in [-0.35, 0.35]
  vf p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p * r, r, r) + 1.0f;
  const vi exponent = __builtin_convertvector(select(n == n, n, splat(0.0f)), vi);
  return p * (vf)((exponent + 127) << 23);
}

// 1 - exp(-a) of a >= 0, small ones to full precision
FN vf one_minus_exp(vf a) {
  vf p = 1.0f - a * (1.0f / 8);
  p = 1.0f - a * (1.0f / 7) * p;
  p = 1.0f - a * (1.0f / 6) * p;
  p = 1.0f - a * (1.0f / 5) * p;
  p = 1.0f - a * (1.0f / 4) * p;
  p = 1.0f - a * (1.0f / 3) * p;
  p = 1.0f - a * (1.0f / 2) * p;
  return select(a < 0.5f, a * p, 1.0f - exp_negative(a));
}

// log(1 + z) of z in [0, 1]
FN vf log_one_plus(vf z) {
  const vf s = z / (2.0f + z), r = s * s;
  vf p = splat(1.0f / 13);
  p = fma(p, r, splat(1.0f / 11));
  p = fma(p, r, splat(1.0f / 9));
  p = fma(p, r, splat(1.0f / 7));
  p = fma(p, r, splat(1.0f / 5));
  p = fma(p, r, splat(1.0f / 3));
  p = fma(p, r, splat(1.0f));
  return 2.0f * s * p;
}

// Eight corners of a cell, x slowest and z fastest.
typedef float v8 __attribute__((vector_size(32), aligned(4), may_alias));

FN v8 trilinear(float x, float y, float z) {
  const v8 one_x = {1, 1, 1, 1, 0, 0, 0, 0}, sign_x = {-1, -1, -1, -1, 1, 1, 1, 1};
  const v8 one_y = {1, 1, 0, 0, 1, 1, 0, 0}, sign_y = {-1, -1, 1, 1, -1, -1, 1, 1};
  const v8 one_z = {1, 0, 1, 0, 1, 0, 1, 0}, sign_z = {-1, 1, -1, 1, -1, 1, -1, 1};
  return (one_x + sign_x * x) * (one_y + sign_y * y) * (one_z + sign_z * z);
}

FN float sum8(v8 x) {
#if RASTER_ISA == 512 || RASTER_ISA == 2
  const __m256 a = (__m256)x;
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
#else
  return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
#endif
}

// Slots of the old window of eight voxels that the new one takes over after a move by (dx, dy, dz), -1: a new voxel.
struct Moves {
  int8_t slot[27][8];
};

constexpr Moves make_moves() {
  Moves m = {};
  for (int dx = -1; dx <= 1; ++dx) {
    for (int dy = -1; dy <= 1; ++dy) {
      for (int dz = -1; dz <= 1; ++dz) {
        for (int c = 0; c < 8; ++c) {
          const int x = (c >> 2) + dx, y = (c >> 1 & 1) + dy, z = (c & 1) + dz;
          const bool shared = x >= 0 && x <= 1 && y >= 0 && y <= 1 && z >= 0 && z <= 1;
          m.slot[(dx + 1) * 9 + (dy + 1) * 3 + dz + 1][c] = (int8_t)(shared ? x * 4 + y * 2 + z : -1);
        }
      }
    }
  }
  return m;
}

constexpr Moves MOVES = make_moves();

// A run of neighbouring samples in one cell, and the voxels of its corners among those that the ray met; 0: outside the grid.
struct Run {
  int32_t begin, end;
  int32_t ids[8];
};

// Working memory of one ray, one number per sample unless it says more. Arrays have room for two vectors behind the end.
struct Scratch {
  float *cx, *cy, *cz;       // contracted candidates, behind the one before
  float *u, *start, *width;  // kept samples: position, and of edges begin and width
  float *x, *y, *z;          // voxel index, later the fraction of it
  int32_t *bx, *by, *bz;     // cell
  int32_t *inside, *number;  // whether the cell meets the grid; which of the S samples it is
  float *light, *weight;     // transmittance before the sample (one more: behind the last), weight
  float *slope, *active;     // derivative of optical depth or probability by the density; 1 where the sample counts
  float* grad;               // of the weight, later of the density
  Run* runs;
  int32_t *voxels, *regions;  // 8 per sample, and one: voxels that the ray met
  float *feature, *density, *dot;
};

FN size_t padded(int64_t count) { return (size_t)(count + 2 * LANES + 15) / 16 * 16; }

FN Scratch carve(void* memory, int samples) {
  const size_t one = padded(samples), eight = padded(8 * (int64_t)samples + 1);
  float* at = (float*)memory;
  const auto next = [&](size_t count) {
    float* here = at;
    at += count;
    return here;
  };
  Scratch s;
  for (float** a :
       {&s.cx, &s.cy, &s.cz, &s.u, &s.start, &s.width, &s.x, &s.y, &s.z, &s.light, &s.weight, &s.slope, &s.active, &s.grad}) {
    *a = next(one);
  }
  for (int32_t** a : {&s.bx, &s.by, &s.bz, &s.inside, &s.number}) *a = (int32_t*)next(one);
  s.runs = (Run*)next(one * (sizeof(Run) / sizeof(float)));
  for (int32_t** a : {&s.voxels, &s.regions}) *a = (int32_t*)next(eight);
  for (float** a : {&s.feature, &s.density, &s.dot}) *a = next(eight);
  return s;
}

size_t march_scratch_bytes(int samples) {
  const size_t one = padded(samples), eight = padded(8 * (int64_t)samples + 1);
  return sizeof(float) * (one * (19 + sizeof(Run) / sizeof(float)) + 5 * eight);
}

struct Trace {
  int used;     // samples that were looked at
  float total;  // optical depth, or probability
  float depth;  // sum of weight * position
  int32_t count;
  float light;  // behind the last sample
};

// A step length that is not finite would make opacities that are not, even in empty space.
FN vf step_length(vf width, const MarchOptions& o) {
  const vf longest = splat(INFINITE_STEP / o.unit);
  return select(width > 0.0f, minimum(width, longest), splat(0.0f));
}

// Look at candidates [first, first + LANES): contract them, keep those that are not too close. Returns the new number of kept
// samples; `moved` is the running sum of contracted step lengths.
FN int keep_candidates(const MarchOptions& o, const MarchVolume& v, const MarchRay& ray, const Scratch& s, int first, int kept,
                       float& moved) {
  vf u, start = {}, width = {};
  const int room = ray.samples - first;
  if (ray.edges) {
    vf end = {};
    for (int l = 0; l < LANES && l < room; ++l) {
      start[l] = ray.t[(first + l) * ray.t_step], end[l] = ray.t[(first + l + 1) * ray.t_step];
    }
    u = 0.5f * (start + end);
    width = step_length(end - start, o);
  } else if (room >= LANES && ray.t_step == 1) {
    u = load(ray.t + first);
  } else {
    u = splat(0.0f);
    for (int l = 0; l < LANES && l < room; ++l) u[l] = ray.t[(first + l) * ray.t_step];
  }
  vf x = ray.origin[0] + ray.direction[0] * u;
  vf y = ray.origin[1] + ray.direction[1] * u;
  vf z = ray.origin[2] + ray.direction[2] * u;
  const vi valid = lane_numbers() < splat(room);
  vi keep = valid;
  if (o.background > 0.0f) {
    const vf square = x * x + y * y + z * z;
    vi inner = square <= 1.0f;
    if (any(~inner)) {
      const vf q = root(square);
      inner = q <= 1.0f;
      const vf scale = ((1.0f + o.background) - o.background / q) / q;
      const vi outer = q > 1.0f;
      x = select(outer, x * scale, x), y = select(outer, y * scale, y), z = select(outer, z * scale, z);
    }
    if (o.min_spacing > 0.0f) {
      // a vector is stored behind the last point of the one before
      store(s.cx + 1, x), store(s.cy + 1, y), store(s.cz + 1, z);
      const vf dx = x - load(s.cx), dy = y - load(s.cy), dz = z - load(s.cz);
      vf length = root(dx * dx + dy * dy + dz * dz);
      s.cx[0] = x[LANES - 1], s.cy[0] = y[LANES - 1], s.cz[0] = z[LANES - 1];
      if (first == 0) length[0] = 0.0f;
      const vi wide = length > o.min_spacing;
      if (all(wide)) {  // the sum restarts at every step
        moved = 0.0f;
      } else {
        vi far = {};
        for (int l = 0; l < LANES; ++l) {
          moved += length[l];
          const bool yes = moved > o.min_spacing;
          far[l] = yes ? -1 : 0;
          moved = yes ? 0.0f : moved;
        }
        keep = valid & (inner | far);
      }
    }
  }
  x = x * v.scale[0] + v.offset[0], y = y * v.scale[1] + v.offset[1], z = z * v.scale[2] + v.offset[2];
  if (all(keep)) {
    store(s.u + kept, u), store(s.x + kept, x), store(s.y + kept, y), store(s.z + kept, z);
    if (ray.edges) store(s.start + kept, start), store(s.width + kept, width);
    store(s.number + kept, first + lane_numbers());
    return kept + LANES;
  }
  for (int l = 0; l < LANES; ++l) {
    if (!keep[l]) continue;
    s.u[kept] = u[l], s.x[kept] = x[l], s.y[kept] = y[l], s.z[kept] = z[l];
    if (ray.edges) s.start[kept] = start[l], s.width[kept] = width[l];
    s.number[kept++] = first + l;
  }
  return kept;
}

// Cells, fractions and trilinear density of samples [at, at + LANES), of which `valid` exist.
FN vf look_up(const MarchVolume& v, const Scratch& s, int at, vi valid) {
  vf g[3] = {load(s.x + at), load(s.y + at), load(s.z + at)};
  vi inside = valid, base[3], low[3], high[3];
  for (int a = 0; a < 3; ++a) inside &= (g[a] > -1.0f) & (g[a] < (float)v.size[a]);
  store(s.inside + at, inside);
  if (!any(inside)) return splat(0.0f);
  for (int a = 0; a < 3; ++a) {
    g[a] = select(inside, g[a], splat(0.0f));
    base[a] = __builtin_convertvector(g[a], vi);
    vf whole = __builtin_convertvector(base[a], vf);
    base[a] += whole > g[a];  // -1 where it is
    whole = __builtin_convertvector(base[a], vf);
    g[a] -= whole;
    low[a] = base[a] >= 0, high[a] = base[a] < splat(v.size[a] - 1);
  }
  store(s.bx + at, base[0]), store(s.by + at, base[1]), store(s.bz + at, base[2]);
  store(s.x + at, g[0]), store(s.y + at, g[1]), store(s.z + at, g[2]);
  const int32_t step_x = v.size[1] * v.size[2], step_y = v.size[2];
  const vi index = (base[0] * v.size[1] + base[1]) * v.size[2] + base[2];
  vf corner[8];
  UNROLL for (int c = 0; c < 8; ++c) {
    const vi mask = inside & (c & 4 ? high[0] : low[0]) & (c & 2 ? high[1] : low[1]) & (c & 1 ? high[2] : low[2]);
    corner[c] = gather(v.density, index + ((c & 4 ? step_x : 0) + (c & 2 ? step_y : 0) + (c & 1)), mask);
  }
  UNROLL for (int c = 0; c < 8; c += 2)
    corner[c] = fma(g[2], corner[c + 1] - corner[c], corner[c]);
  UNROLL for (int c = 0; c < 8; c += 4)
    corner[c] = fma(g[1], corner[c + 2] - corner[c], corner[c]);
  return fma(g[0], corner[4] - corner[0], corner[0]);
}

// March one ray: fills u, start, width, cells, fractions, light, weight, active and, if wanted, slope of the samples.
FN Trace trace(const MarchOptions& o, const MarchVolume& v, const MarchRay& ray, const Scratch& s, bool want_slope) {
  Trace result = {0, 0.0f, 0.0f, 0, 1.0f};
  int next = 0, kept = 0, done = 0;
  float moved = 0.0f, before = 0.0f;  // optical depth or probability so far
  vf depth = {};
  s.cx[0] = s.cy[0] = s.cz[0] = 0.0f;
  bool open = true;
  while (open) {
    while (next < ray.samples && kept < done + LANES + 1) {
      kept = keep_candidates(o, v, ray, s, next, kept, moved);
      next += LANES;
    }
    const bool last = next >= ray.samples;
    const int ready = last ? kept - done : LANES, n = ready < LANES ? ready : LANES;
    if (n <= 0) break;
    const vi lanes = lane_numbers(), valid = lanes < splat(n);
    const vf value = look_up(v, s, done, valid);
    const vf u = load(s.u + done);
    if (!ray.edges && (o.form == NERF || o.distortion == SAMPLE_WIDTH)) {
      if (last && done + n == kept) {  // the last sample repeats the step before it
        const float before_last = kept > 1 ? s.u[kept - 2] : s.u[kept - 1];
        const bool infinite = o.infinite_step || ray.samples == 1;
        s.u[kept] = infinite ? __builtin_inff() : s.u[kept - 1] + (s.u[kept - 1] - before_last);
      }
      store(s.start + done, u), store(s.width + done, step_length(load(s.u + done + 1) - u, o));
    }

    // what the samples add to the optical depth or the probability
    vf add, slope, alpha = {};
    if (o.form == NERF) {
      const vf step = load(s.width + done) * o.unit;
      add = select(value < 0.0f, splat(0.0f), value) * step;
      slope = select(value < 0.0f, splat(0.0f), step);
    } else {
      const vf y = o.form == DVGO ? value + o.shift : value;
      const vf small = exp_negative(select(y < 0.0f, -y, y));
      const vf sigmoid = select(y < 0.0f, small, splat(1.0f)) / (1.0f + small);
      if (o.form == DVGO) {
        add = o.interval * (select(y < 0.0f, splat(0.0f), y) + log_one_plus(small));
        slope = o.interval * sigmoid;
      } else {
        add = sigmoid;
        slope = sigmoid * select(y < 0.0f, splat(1.0f), small) / (1.0f + small);
      }
    }
    vi used = valid;
    if (o.form != PROB) alpha = one_minus_exp(add);
    if (o.alpha_min > 0.0f) used &= ~((o.form == PROB ? add : alpha) <= o.alpha_min);
    add = select(used, add, splat(0.0f));
    alpha = select(used, alpha, splat(0.0f));

    vf behind, ahead;
    for (int l = 0; l < LANES; ++l) {
      behind[l] = before;
      before += add[l];
      ahead[l] = before;
    }
    vf light, weight;
    if (o.form == PROB) {
      behind = minimum(behind, splat(1.0f)), ahead = minimum(ahead, splat(1.0f));
      light = 1.0f - behind;
      weight = ahead - behind;
    } else {
      light = exp_negative(behind);
      weight = light * alpha;
    }
    // the ray has ended before the first sample that finds too little light
    const bool ends = o.transmittance_min > 0.0f || o.form == PROB;
    int used_here = n;
    if (ends) {
      const vi dark = valid & (o.transmittance_min > 0.0f ? light < o.transmittance_min : light <= 0.0f);
      if (any(dark)) {
        used_here = 0;
        while (!dark[used_here]) ++used_here;
        open = false;
        used &= lanes < splat(used_here);
        result.light = light[used_here];
        result.total = behind[used_here];
      }
    }
    vi counted = used;
    if (o.weight_min > 0.0f) counted &= ~(weight <= o.weight_min);
    weight = select(counted, weight, splat(0.0f));
    store(s.light + done, light);
    store(s.weight + done, weight);
    store(s.active + done, select(counted, splat(1.0f), splat(0.0f)));
    if (want_slope) store(s.slope + done, select(used, slope, splat(0.0f)));
    vf place = u;
    if (o.contracted_depth) {
      place = select(u > 0.0f, u, splat(0.0f));
      place = place / (1.0f + place);
    }
    depth += select(counted, weight * place, splat(0.0f));
    for (int l = 0; l < used_here; ++l) result.count -= counted[l];
    done += used_here;
    if (open) result.total = before;
  }
  if (open) {
    if (o.form == PROB) {
      result.total = result.total < 1.0f ? result.total : result.total >= 1.0f ? 1.0f : result.total;
      result.light = 1.0f - result.total;
    } else {
      result.light = exp_negative(splat(result.total))[0];
    }
  }
  s.light[done] = result.light;
  result.used = done;
  result.depth = sum(depth) * o.unit;
  return result;
}

FN float place_of(const MarchOptions& o, const Scratch& s, int i) {
  return o.contracted_depth ? contracted_distance(s.u[i]) : s.u[i];
}
