// Vectors of floats for ray marching: memory, functions, corners of a cell. Included by march_kernels.inl after simd.inl.

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

// Store the lanes in the mask next to each other; may write a whole vector. Returns their number.
FN int compress(float* to, vf x, vi mask) {
#if RASTER_ISA == 512
  const __mmask16 m = _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask);
  store(to, (vf)_mm512_maskz_compress_ps(m, (__m512)x));
  return __builtin_popcount(m);
#else
  float lanes[LANES];
  int32_t chosen[LANES];
  store(lanes, x), store(chosen, mask);
  int count = 0;
  for (int l = 0; l < LANES; ++l) {
    to[count] = lanes[l];
    count -= chosen[l];
  }
  return count;
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
