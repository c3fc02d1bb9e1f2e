// Forward and backward pass over one tile. Included by cpu_kernels_*.cpp with RASTER_ISA set.
//
// Only plain arithmetic, builtins and our own inline functions are used here: an inline function of the standard library
// compiled for AVX-512 could be the copy that the linker keeps for everybody.

namespace {

#include "simd.inl"

constexpr int STRIPS_PER_ROW = TILE / LANES;
constexpr int STRIPS = TILE * STRIPS_PER_ROW;
// accumulators that fit into registers next to the working set
constexpr int CHANNELS_PER_PASS = LANES == 16 ? 20 : 10;
constexpr int PART = 8;  // splats of a strip between two looks at whether its pixels have stopped

constexpr float LOG2_E = 1.44269504f;

struct Entry {
  float u, v, slope, a, c, opacity, x0, x1;  // a = -inv_xx / (2 ln 2), c = -1 / (2 ln 2 cov_yy)
  uint64_t strips;                           // strips of the tile that it may touch
};

struct Batch {
  Entry entries[BATCH];
  int32_t labels[BATCH];
  float depth[BATCH];
  int size;
  const float* payload;  // (size, C + 1): features and z
};

FN uint64_t strip_mask(const Splat& s, int tile_x, int tile_y) {
  const int lo = s.y0 > tile_y ? s.y0 - tile_y : 0, hi = s.y1 - tile_y < TILE - 1 ? s.y1 - tile_y : TILE - 1;
  if (lo > hi) return 0;
  const int left = s.x0 > tile_x ? (s.x0 - tile_x) / LANES : 0, end = s.x1 - tile_x < TILE - 1 ? s.x1 - tile_x : TILE - 1;
  const int right = end / LANES;
  if (end < 0 || left > right) return 0;
  const uint64_t row = ((2ull << right) - 1) & ~((1ull << left) - 1);
  uint64_t mask = 0;
  for (int r = lo; r <= hi; ++r) mask |= row << (r * STRIPS_PER_ROW);
  return mask;
}

// Collect what the loops need of list entries [first, first + size).
static void gather(const TileJob& job, int first, int size, float* payload, Batch& batch) {
  batch.size = size;
  batch.payload = payload;
  for (int k = 0; k < size; ++k) {
    if (first + k + 8 < job.count && job.features) {
      __builtin_prefetch(job.features + (int64_t)job.splats[job.list[first + k + 8]].id * job.channels);
    }
    const Splat& s = job.splats[job.list[first + k]];
    Entry& e = batch.entries[k];
    e.u = s.u, e.v = s.v, e.opacity = s.opacity;
    e.slope = s.slope, e.a = -0.5f * LOG2_E * s.inv_xx, e.c = -0.5f * LOG2_E / s.cov_yy;
    e.x0 = s.x0, e.x1 = s.x1;
    e.strips = strip_mask(s, job.x0, job.y0);
    batch.depth[k] = s.z;
    if (job.features) {
      const float* row = job.features + (int64_t)s.id * job.channels;
      float* to = payload + k * (job.channels + 1);
      for (int c = 0; c < job.channels; ++c) to[c] = row[c];
      to[job.channels] = s.z;
    } else {
      batch.labels[k] = job.labels[s.id];
    }
  }
}

FN int pick(const Batch& batch, int strip, int32_t* index) {
  int n = 0;
  for (int k = 0; k < batch.size; ++k) {
    index[n] = k;
    n += (batch.entries[k].strips >> strip) & 1;
  }
  return n;
}

// exp(power) of the picked entries at the pixels of a strip, 0 where the pair is skipped.
template <bool COMPAT>
FN void falloff(const Batch& batch, const int32_t* index, int n, vf column, float row, const Options& o, vf* out) {
  for (int j = 0; j < n; ++j) {
    const Entry& e = batch.entries[index[j]];
    const float dy = e.v - row;
    const vf t = splat(e.u - e.slope * dy) - column;
    const vf value = exp2_negative(fma(t * t, splat(e.a), splat(e.c * dy * dy)));
    vf kept = select(value * e.opacity >= o.alpha_min, value, vf{});
    if (COMPAT) {
      kept = select(column >= e.x0, kept, vf{});
      kept = select(column <= e.x1, kept, vf{});
    }
    out[j] = kept;
  }
}

static void falloff_any(const Batch& batch, const int32_t* index, int n, vf column, float row, const Options& o, vf* out) {
  if (o.rect12) {
    falloff<true>(batch, index, n, column, row, o, out);
  } else {
    falloff<false>(batch, index, n, column, row, o, out);
  }
}

FN vf lane_columns(int x0) {
  vf column;
  for (int l = 0; l < LANES; ++l) column[l] = (float)(x0 + l);
  return column;
}

struct Strip {
  vf live;   // transmittance, 0 once the pixel has stopped
  vf light;  // transmittance of stopped pixels
  vi stop;
};

// Weights alpha T of the picked entries, front to back. Returns how many there are before all pixels have stopped. With LABELS
// the weights are added up here, where the chain of products leaves the processor time for it; without, they are left in
// `weight`.
template <bool LABELS>
static int transmit(const Batch& batch, const int32_t* index, int n, const vf* value, int first, const Options& o, Strip& strip,
                    vf* weight, vf* sums, int channels) {
  vf live = strip.live, depth = LABELS ? sums[channels] : vf{};
  const vf least = splat(o.transmittance_min), cap = splat(o.alpha_max);
  int j = 0;
  for (; j < n; ++j) {
    const int k = index[j];
    const vf alpha = minimum(value[j] * batch.entries[k].opacity, cap);
    const vf after = live * (1.0f - alpha);
    vf w = alpha * live, next = after;
    if (any_below(after, least, live)) {  // rare: a pixel stops once, and its transmittance is 0 from then on
      const vi stops = after < least, newly = stops & (live > 0.0f);
      strip.light = select(newly, live, strip.light);
      strip.stop = newly ? (vi{} + (first + k)) : strip.stop;
      w = select(stops, vf{}, w), next = select(stops, vf{}, after);
      if (!any(next > 0.0f)) {
        live = next;
        break;
      }
    }
    live = next;
    if (LABELS) {
      sums[batch.labels[k]] += w;
      depth = fma(w, splat(batch.depth[k]), depth);
    } else {
      weight[j] = w;
    }
  }
  strip.live = live;
  if (LABELS) sums[channels] = depth;
  return j;
}

// sums[c] += sum_j weight[j] * payload[index[j]][c] for the channels of one pass, held in registers.
template <int N>
static void accumulate(const float* payload, int stride, const int32_t* index, int n, const vf* weight, vf* sums) {
  vf total[N];
  UNROLL for (int c = 0; c < N; ++c)
    total[c] = sums[c];
  for (int j = 0; j < n; ++j) {
    const float* row = payload + index[j] * stride;
    const vf w = weight[j];
    UNROLL for (int c = 0; c < N; ++c)
      total[c] = fma(w, splat(row[c]), total[c]);
  }
  UNROLL for (int c = 0; c < N; ++c)
    sums[c] = total[c];
}

// product[j] += sum_c image[c] * payload[index[j]][c]
template <int N>
static void project_rows(const float* payload, int stride, const int32_t* index, int n, const vf* image, bool add,
                         vf* product) {
  vf g[N];
  UNROLL for (int c = 0; c < N; ++c)
    g[c] = image[c];
  for (int j = 0; j < n; ++j) {
    const float* row = payload + index[j] * stride;
    vf even = add ? product[j] : vf{}, odd = vf{};
    UNROLL for (int c = 0; c + 1 < N; c += 2) {
      even = fma(g[c], splat(row[c]), even);
      odd = fma(g[c + 1], splat(row[c + 1]), odd);
    }
    if (N % 2) even = fma(g[N - 1], splat(row[N - 1]), even);
    product[j] = even + odd;
  }
}

// out[c] += sum over the strips in `mask` and their lanes of weight[strip] * image[strip][c]
template <int N>
static void reduce_rows(uint64_t mask, const vf* weight, const vf* image, int stride, float* out) {
  constexpr int PADDED = (N + 3) / 4 * 4;
  vf total[PADDED];
  UNROLL for (int c = 0; c < PADDED; ++c)
    total[c] = vf{};
  for (; mask; mask &= mask - 1) {
    const int s = __builtin_ctzll(mask);
    const vf w = weight[s];
    const vf* g = image + s * stride;
    UNROLL for (int c = 0; c < N; ++c)
      total[c] = fma(w, g[c], total[c]);
  }
  float sums[PADDED];
  UNROLL for (int c = 0; c < PADDED; c += 4)
    sum4(total[c], total[c + 1], total[c + 2], total[c + 3], sums + c);
  UNROLL for (int c = 0; c < N; ++c)
    out[c] += sums[c];
}

// RASTER_CALL(width) in passes of at most CHANNELS_PER_PASS channels that cover `channels`, as even as possible; a pass begins
// at `at`.
#define RASTER_CASE(N) \
  case N:              \
    RASTER_CALL(N);    \
    break;
#define RASTER_PASSES(channels)                                                                                             \
  for (int passes = ((channels) + CHANNELS_PER_PASS - 1) / CHANNELS_PER_PASS, p = 0, at = 0; p < passes; ++p) {             \
    const int width = ((channels) - at + passes - p - 1) / (passes - p);                                                    \
    switch (width) {                                                                                                        \
      RASTER_CASE(1)                                                                                                        \
      RASTER_CASE(2)                                                                                                        \
      RASTER_CASE(3)                                                                                                        \
      RASTER_CASE(4) RASTER_CASE(5) RASTER_CASE(6) RASTER_CASE(7) RASTER_CASE(8) RASTER_CASE(9) RASTER_CASE(10) RASTER_WIDE \
    }                                                                                                                       \
    at += width;                                                                                                            \
  }
#if RASTER_ISA == 512
#define RASTER_WIDE \
  RASTER_CASE(11)   \
  RASTER_CASE(12)   \
  RASTER_CASE(13)   \
  RASTER_CASE(14) RASTER_CASE(15) RASTER_CASE(16) RASTER_CASE(17) RASTER_CASE(18) RASTER_CASE(19) RASTER_CASE(20)
#else
#define RASTER_WIDE
#endif

// Scratch memory of a tile: sums or gradient image, payload, strips, panels.
struct Scratch {
  vf* image;  // (STRIPS, C + 1)
  Strip* strips;
  vf* weights;       // (BATCH, STRIPS)
  vf* slopes;        // (BATCH, STRIPS)
  vf* depth_slopes;  // (BATCH, STRIPS), where class image and depth image are apart
  float* payload;
};

FN size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

static size_t scratch_bytes(int channels) {
  return rounded(sizeof(vf) * STRIPS * (channels + 1)) + rounded(sizeof(Strip) * STRIPS) +
         3 * rounded(sizeof(vf) * BATCH * STRIPS) + rounded(sizeof(float) * BATCH * (channels + 1));
}

FN Scratch carve(void* memory, int channels) {
  char* at = (char*)memory;
  Scratch s;
  s.image = (vf*)at, at += rounded(sizeof(vf) * STRIPS * (channels + 1));
  s.strips = (Strip*)at, at += rounded(sizeof(Strip) * STRIPS);
  s.weights = (vf*)at, at += rounded(sizeof(vf) * BATCH * STRIPS);
  s.slopes = (vf*)at, at += rounded(sizeof(vf) * BATCH * STRIPS);
  s.depth_slopes = (vf*)at, at += rounded(sizeof(vf) * BATCH * STRIPS);
  s.payload = (float*)at;
  return s;
}

FN int lanes_inside(const TileJob& job, int strip) {  // pixels of the strip that are in the image
  const int y = job.y0 + strip / STRIPS_PER_ROW, x = job.x0 + strip % STRIPS_PER_ROW * LANES;
  if (y >= job.height || x >= job.width) return 0;
  return job.width - x < LANES ? job.width - x : LANES;
}

FN int64_t first_pixel(const TileJob& job, int strip) {
  return (int64_t)(job.y0 + strip / STRIPS_PER_ROW) * job.pitch + job.x0 + strip % STRIPS_PER_ROW * LANES - job.origin;
}

static void paint_background(const TileJob& job) {
  for (int s = 0; s < STRIPS; ++s) {
    const int inside = lanes_inside(job, s);
    if (!inside) continue;
    const int64_t pixel = first_pixel(job, s);
    for (int64_t p = pixel; p < pixel + inside; ++p) {
      for (int c = 0; c < job.channels; ++c) job.out_features[p * job.channels + c] = job.background[c];
      job.out_depth[p] = 0.0f, job.out_alpha[p] = 0.0f;
      if (job.out_light) job.out_light[p] = 1.0f, job.out_stop[p] = 0;
    }
  }
}

static void forward(const TileJob& job) {
  if (job.count == 0) return paint_background(job);
  const Scratch scratch = carve(job.scratch, job.channels);
  const int channels = job.channels, payload_size = channels + 1;
  const Options& o = *job.options;
  for (int i = 0; i < STRIPS * payload_size; ++i) scratch.image[i] = vf{};
  int open = 0;
  for (int s = 0; s < STRIPS; ++s) {
    Strip& strip = scratch.strips[s];
    const int inside = lanes_inside(job, s);
    strip.light = vf{};
    strip.stop = vi{} + 0x7fffffff;
    for (int l = 0; l < LANES; ++l) strip.live[l] = l < inside ? 1.0f : 0.0f;
    open += inside > 0;
  }

  Batch batch;
  int32_t index[BATCH + 1];
  vf value[PART], weight[BATCH];
  for (int first = 0; first < job.count && open; first += BATCH) {
    gather(job, first, job.count - first < BATCH ? job.count - first : BATCH, scratch.payload, batch);
    open = 0;
    for (int s = 0; s < STRIPS; ++s) {
      Strip& strip = scratch.strips[s];
      if (!any(strip.live > 0.0f)) continue;
      const int picked = pick(batch, s, index);
      const vf column = lane_columns(job.x0 + s % STRIPS_PER_ROW * LANES);
      const float row = (float)(job.y0 + s / STRIPS_PER_ROW);
      vf* sums = scratch.image + s * payload_size;
      int n = 0;
      for (int done = 0; done < picked; done += PART) {  // in parts, for pixels that stop early
        const int part = picked - done < PART ? picked - done : PART;
        const int32_t* some = index + done;
        falloff_any(batch, some, part, column, row, o, value);
        const int drawn = job.features
                              ? transmit<false>(batch, some, part, value, first, o, strip, weight + done, sums, channels)
                              : transmit<true>(batch, some, part, value, first, o, strip, weight + done, sums, channels);
        n += drawn;
        if (drawn < part) break;
      }
      open += any(strip.live > 0.0f);
      if (job.features) {
#define RASTER_CALL(N) accumulate<N>(scratch.payload + at, payload_size, index, n, weight, sums + at)
        RASTER_PASSES(payload_size)
#undef RASTER_CALL
      }
    }
  }

  for (int s = 0; s < STRIPS; ++s) {
    const int inside = lanes_inside(job, s);
    if (!inside) continue;
    const Strip& strip = scratch.strips[s];
    const vf light = select(strip.live > 0.0f, strip.live, strip.light);
    vf* sums = scratch.image + s * payload_size;
    for (int c = 0; c < channels; ++c) sums[c] = fma(light, splat(job.background[c]), sums[c]);
    const int64_t pixel = first_pixel(job, s);
    const float* from = (const float*)sums;
    float* to = job.out_features + pixel * channels;
    transpose(from, channels, inside, LANES, to, channels);
    for (int l = 0; l < inside; ++l) {
      job.out_depth[pixel + l] = from[channels * LANES + l];
      job.out_alpha[pixel + l] = 1.0f - light[l];
    }
    if (job.out_light) {
      for (int l = 0; l < inside; ++l) job.out_light[pixel + l] = light[l], job.out_stop[pixel + l] = strip.stop[l];
    }
  }
}

struct BackStrip {
  vf light;   // transmittance behind the current splat
  vf behind;  // sum of weight * q behind it, background included
};

// Back to front: from the products q to weights and to h = exp(power) dL/dalpha. With TERMS also to that of the depth image
// alone, whose products are grad_depth times z.
template <bool TERMS>
static void untransmit(const Batch& batch, const int32_t* index, int n, const vf* value, const vf* product, int first,
                       const Options& o, vi stop, vf& light_io, vf& behind_io, vf* weights, vf* slopes, vf grad_depth,
                       vf& depth_behind_io, vf* depth_slopes) {
  vf light = light_io, behind = behind_io, depth_behind = depth_behind_io;
  const vf cap = splat(o.alpha_max);
  for (int j = n - 1; j >= 0; --j) {
    const int k = index[j];
    const vi live = (vi{} + (first + k)) < stop;
    const vf raw = value[j] * batch.entries[k].opacity;
    const vf alpha = select(live, minimum(raw, cap), vf{});
    const vf inverse = 1.0f / (1.0f - alpha);
    light = light * inverse;
    const vf weight = alpha * light;
    const vf slope = light * product[j] - behind * inverse;
    behind = fma(weight, product[j], behind);
    vf h = select(live, value[j] * slope, vf{});
    if (o.exact_cap) h = select(raw > cap, vf{}, h);
    weights[k * STRIPS] = weight;
    slopes[k * STRIPS] = h;
    if (TERMS) {
      const vf q = grad_depth * splat(batch.depth[k]);
      const vf depth_slope = light * q - depth_behind * inverse;
      depth_behind = fma(weight, q, depth_behind);
      vf depth_h = select(live, value[j] * depth_slope, vf{});
      if (o.exact_cap) depth_h = select(raw > cap, vf{}, depth_h);
      depth_slopes[k * STRIPS] = depth_h;
    }
  }
  light_io = light, behind_io = behind, depth_behind_io = depth_behind;
}

// TERMS: see Kernels::backward_terms; features are given, geometry is not wanted.
template <bool TERMS>
static void backward(const TileJob& job) {
  const Scratch scratch = carve(job.scratch, job.channels);
  const int channels = job.channels, payload_size = channels + 1;
  const Options& o = *job.options;

  // the gradient image by strips; the state of the forward pass
  int last = 0;
  int32_t ends[STRIPS] = {};  // position in the list at which the last pixel of the strip stopped
  vf depth_behind[STRIPS] = {};
  for (int s = 0; s < STRIPS; ++s) {
    const int inside = lanes_inside(job, s);
    vf* image = scratch.image + s * payload_size;
    for (int c = 0; c < payload_size; ++c) image[c] = vf{};
    Strip& strip = scratch.strips[s];
    strip.live = splat(1.0f), strip.light = vf{}, strip.stop = vi{};
    if (!inside) continue;
    const int64_t pixel = first_pixel(job, s);
    float* to = (float*)image;
    vf alpha{};
    if (job.grad_features) transpose(job.grad_features + pixel * channels, inside, channels, channels, to, LANES);
    for (int l = 0; l < inside; ++l) {
      if (job.grad_depth) to[channels * LANES + l] = job.grad_depth[pixel + l];
      if (job.grad_alpha) alpha[l] = job.grad_alpha[pixel + l];
      strip.live[l] = job.light[pixel + l];
      strip.stop[l] = job.stop[pixel + l];
    }
    vf behind = -alpha;
    for (int c = 0; c < channels; ++c) behind = fma(image[c], splat(job.background[c]), behind);
    strip.light = strip.live * behind;
    ends[s] = largest(strip.stop);
    last = ends[s] > last ? ends[s] : last;
  }
  if (last > job.count) last = job.count;

  Batch batch;
  int32_t index[BATCH + 1];
  vf value[BATCH], product[BATCH];
  for (int first = (last - 1) / BATCH * BATCH; last > 0 && first >= 0; first -= BATCH) {
    gather(job, first, last - first < BATCH ? last - first : BATCH, scratch.payload, batch);
    uint64_t touched[BATCH];
    for (int k = 0; k < batch.size; ++k) touched[k] = 0;
    for (int s = 0; s < STRIPS; ++s) {
      Strip& strip = scratch.strips[s];
      if (ends[s] <= first) continue;
      int n = pick(batch, s, index);
      while (n && first + index[n - 1] >= ends[s]) --n;
      if (!n) continue;
      const vf column = lane_columns(job.x0 + s % STRIPS_PER_ROW * LANES);
      falloff_any(batch, index, n, column, (float)(job.y0 + s / STRIPS_PER_ROW), o, value);
      const vf* image = scratch.image + s * payload_size;
      if (job.features) {
        const int products = TERMS ? channels : payload_size;
#define RASTER_CALL(N) project_rows<N>(scratch.payload + at, payload_size, index, n, image + at, at > 0, product)
        RASTER_PASSES(products)
#undef RASTER_CALL
      } else {
        for (int j = 0; j < n; ++j) {
          product[j] = fma(image[channels], splat(batch.depth[index[j]]), image[batch.labels[index[j]]]);
        }
      }
      untransmit<TERMS>(batch, index, n, value, product, first, o, strip.stop, strip.live, strip.light, scratch.weights + s,
                        scratch.slopes + s, image[channels], depth_behind[s], scratch.depth_slopes + s);
      for (int j = 0; j < n; ++j) touched[index[j]] |= 1ull << s;
    }

    for (int k = 0; k < batch.size; ++k) {
      const uint64_t mask = touched[k];
      if (!mask) continue;
      float* row = job.row_data + gradient_row(job.splats[job.list[first + k]], job) * job.row_width;
      const vf* weights = scratch.weights + k * STRIPS;
      if (job.need_features) {
#define RASTER_CALL(N) reduce_rows<N>(mask, weights, scratch.image + at, payload_size, row + at)
        RASTER_PASSES(channels)
#undef RASTER_CALL
        row += channels;
      }
      const vf* slopes = scratch.slopes + k * STRIPS;
      vf h{}, z{}, t{}, y{}, tt{}, ty{}, yy{};
      if (TERMS) {
        const vf* depth_slopes = scratch.depth_slopes + k * STRIPS;
        for (uint64_t m = mask; m; m &= m - 1) {
          const int s = __builtin_ctzll(m);
          h += slopes[s], z += depth_slopes[s];
        }
      } else if (!job.need_geometry) {
        for (uint64_t m = mask; m; m &= m - 1) h += slopes[__builtin_ctzll(m)];
      } else {
        const Entry& e = batch.entries[k];
        for (uint64_t m = mask; m; m &= m - 1) {
          const int s = __builtin_ctzll(m);
          const float dy = e.v - (float)(job.y0 + s / STRIPS_PER_ROW);
          const vf across = splat(e.u - e.slope * dy) - lane_columns(job.x0 + s % STRIPS_PER_ROW * LANES);
          const vf ht = slopes[s] * across, hy = slopes[s] * dy;
          h += slopes[s], t += ht, y += hy;
          tt = fma(ht, across, tt), ty = fma(ht, splat(dy), ty), yy = fma(hy, splat(dy), yy);
          z = fma(weights[s], scratch.image[s * payload_size + channels], z);
        }
      }
      float sums[8];
      sum4(h, z, t, y, sums);
      if (job.need_geometry) sum4(tt, ty, yy, vf{}, sums + 4);
      for (int i = 0; i < (TERMS ? 2 : job.need_geometry ? 7 : 1); ++i) row[i] += sums[i];
    }
  }
}

static float compare_l1(const float* pred, const float* target, int count, float slope, float* grad) {
  vf total{};
  int i = 0;
  for (; i + LANES <= count; i += LANES) {
    vf a, b;
    __builtin_memcpy(&a, pred + i, sizeof(vf));
    __builtin_memcpy(&b, target + i, sizeof(vf));
    const vf d = a - b;
    const vi below = d < 0.0f;
    const vf g = select(below, splat(-slope), select(d > 0.0f, splat(slope), vf{}));
    __builtin_memcpy(grad + i, &g, sizeof(vf));
    total += select(below, -d, d);
  }
  float sum = 0.0f;
  for (int l = 0; l < LANES; ++l) sum += total[l];
  for (; i < count; ++i) {
    const float d = pred[i] - target[i];
    grad[i] = d < 0.0f ? -slope : d > 0.0f ? slope : 0.0f;
    sum += d < 0.0f ? -d : d;
  }
  return sum;
}

}  // namespace
