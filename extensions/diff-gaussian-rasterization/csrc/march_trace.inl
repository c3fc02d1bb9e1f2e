// Vectors of samples: positions, contraction, density, opacity and light along one ray. Included by march_kernels.inl.

// What happens to the window of eight voxels when a ray moves on by (dx, dy, dz): corner c takes over slot[c] of the old
// window, unless it is one of the `count` fresh ones.
constexpr int NO_MOVE = 27;  // to somewhere else: all are fresh
struct Moves {
  int8_t slot[28][8], fresh[28][8], count[28];
};

constexpr Moves make_moves() {
  Moves m = {};
  for (int move = 0; move < 28; ++move) {
    const int dx = move / 9 - 1, dy = move / 3 % 3 - 1, dz = move % 3 - 1;
    for (int c = 0; c < 8; ++c) {
      const int x = (c >> 2) + dx, y = (c >> 1 & 1) + dy, z = (c & 1) + dz;
      const bool shared = move != NO_MOVE && x >= 0 && x <= 1 && y >= 0 && y <= 1 && z >= 0 && z <= 1;
      m.slot[move][c] = (int8_t)(shared ? x * 4 + y * 2 + z : 0);
      if (!shared) m.fresh[move][m.count[move]++] = (int8_t)c;
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
        float steps[LANES];
        int32_t distant[LANES];
        store(steps, length);
        for (int l = 0; l < LANES; ++l) {
          moved += steps[l];
          const bool yes = moved > o.min_spacing;
          distant[l] = yes ? -1 : 0;
          moved = yes ? 0.0f : moved;
        }
        const vi far = load(distant);
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
  const int count = compress(s.u + kept, u, keep);
  compress(s.x + kept, x, keep), compress(s.y + kept, y, keep), compress(s.z + kept, z, keep);
  if (ray.edges) compress(s.start + kept, start, keep), compress(s.width + kept, width, keep);
  compress((float*)s.number + kept, (vf)(first + lane_numbers()), keep);
  return kept + count;
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
  vi count = {};
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

    // through memory: picking lanes of a vector one by one is slower
    float added[LANES], sums[LANES + 1];
    store(added, add);
    for (int l = 0; l < LANES; ++l) {
      sums[l] = before;
      before += added[l];
    }
    sums[LANES] = before;
    vf behind = load(sums), ahead = load(sums + 1);
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
    count -= counted;
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
  for (int l = 0; l < LANES; ++l) result.count += count[l];
  return result;
}

FN float place_of(const MarchOptions& o, const Scratch& s, int i) {
  return o.contracted_depth ? contracted_distance(s.u[i]) : s.u[i];
}
