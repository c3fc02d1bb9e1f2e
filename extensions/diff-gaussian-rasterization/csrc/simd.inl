// Vectors of LANES floats on top of the vector extension of GCC and Clang. Included inside the namespace of one instruction
// set.

#if RASTER_ISA == 512
#define LANES 16
#elif RASTER_ISA == 2
#define LANES 8
#else
#define LANES 4
#endif

#define FN static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(4 * LANES), aligned(4 * LANES), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * LANES), aligned(4 * LANES), may_alias));

// Put before loops over the channels of a pass: only if they disappear can the channels stay in registers.
#define UNROLL _Pragma("GCC unroll 24")

FN vf splat(float x) { return x - vf{}; }  // x + 0 would have to keep the addition, for the sake of -0

FN vf fma(vf a, vf b, vf c) {  // a * b + c, fused where the machine can
#if RASTER_ISA == 512
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif RASTER_ISA == 2
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

FN vf select(vi mask, vf a, vf b) { return mask ? a : b; }

FN vf minimum(vf a, vf b) { return a < b ? a : b; }

FN bool any(vi mask) {
#if RASTER_ISA == 512
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif RASTER_ISA == 2
  return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#elif defined(__aarch64__)
  return vmaxvq_u32((uint32x4_t)mask) != 0;
#elif defined(__x86_64__)
  return _mm_movemask_epi8((__m128i)mask) != 0;
#else
  return (mask[0] | mask[1] | mask[2] | mask[3]) != 0;
#endif
}

FN bool any_below(vf x, vf bound, vf among) {  // in a lane where `among` is positive
#if RASTER_ISA == 512
  const __mmask16 below = _mm512_cmp_ps_mask((__m512)x, (__m512)bound, _CMP_LT_OQ);
  return _mm512_mask_cmp_ps_mask(below, (__m512)among, _mm512_setzero_ps(), _CMP_GT_OQ) != 0;
#else
  return any((x < bound) & (among > 0.0f));
#endif
}

FN int32_t largest(vi a) {
  int32_t best = a[0];
  for (int l = 1; l < LANES; ++l) best = a[l] > best ? a[l] : best;
  return best;
}

// 2^x of x <= 0 to 2e-7 relative; below -125 the result is that of -125
FN vf exp2_negative(vf x) {
  const vf lowest = splat(-125.0f), magic = splat(12582912.0f);
  x = x > lowest ? x : lowest;
  const vf shifted = x + magic;
  const vf r = x - (shifted - magic);  // in [-0.5, 0.5], exact
  vf p = splat(1.3264727e-3f);
  p = fma(p, r, splat(9.671513e-3f));
  p = fma(p, r, splat(5.5507336e-2f));
  p = fma(p, r, splat(2.4022242e-1f));
  p = fma(p, r, splat(6.93147e-1f));
  p = fma(p, r, splat(1.0f));
  return (vf)((vi)p + ((vi)shifted << 23));
}

#if RASTER_ISA == 512
FN __m256 fold(vf x) {
  return _mm256_add_ps(_mm512_castps512_ps256((__m512)x), _mm256_castpd_ps(_mm512_extractf64x4_pd((__m512d)x, 1)));
}
#elif RASTER_ISA == 2
FN __m256 fold(vf x) { return (__m256)x; }
#endif

// Lane sums of four vectors.
FN void sum4(vf a, vf b, vf c, vf d, float* out) {
#if RASTER_ISA == 512 || RASTER_ISA == 2
  const __m256 ab = _mm256_hadd_ps(fold(a), fold(b)), cd = _mm256_hadd_ps(fold(c), fold(d));
  const __m256 abcd = _mm256_hadd_ps(ab, cd);
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
#else
  const vf all[4] = {a, b, c, d};
  for (int i = 0; i < 4; ++i) out[i] = (all[i][0] + all[i][1]) + (all[i][2] + all[i][3]);
#endif
}

typedef float v4 __attribute__((vector_size(16), aligned(4), may_alias));

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, (__attribute__((vector_size(16))) int32_t){i, j, k, l})
#endif

// 4 x 4 floats, rows become columns.
FN void transpose4(const float* from, int64_t from_row, float* to, int64_t to_row) {
  const v4 a = *(const v4*)from, b = *(const v4*)(from + from_row);
  const v4 c = *(const v4*)(from + 2 * from_row), d = *(const v4*)(from + 3 * from_row);
  const v4 ab_low = SHUFFLE4(a, b, 0, 4, 1, 5), ab_high = SHUFFLE4(a, b, 2, 6, 3, 7);
  const v4 cd_low = SHUFFLE4(c, d, 0, 4, 1, 5), cd_high = SHUFFLE4(c, d, 2, 6, 3, 7);
  *(v4*)to = SHUFFLE4(ab_low, cd_low, 0, 1, 4, 5);
  *(v4*)(to + to_row) = SHUFFLE4(ab_low, cd_low, 2, 3, 6, 7);
  *(v4*)(to + 2 * to_row) = SHUFFLE4(ab_high, cd_high, 0, 1, 4, 5);
  *(v4*)(to + 3 * to_row) = SHUFFLE4(ab_high, cd_high, 2, 3, 6, 7);
}

// (rows, columns) -> (columns, rows), row lengths as told.
FN void transpose(const float* from, int rows, int columns, int64_t from_row, float* to, int64_t to_row) {
  int r = 0;
  for (; r + 4 <= rows; r += 4) {
    int c = 0;
    for (; c + 4 <= columns; c += 4) transpose4(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
    for (; c < columns; ++c) {
      for (int k = r; k < r + 4; ++k) to[c * to_row + k] = from[k * from_row + c];
    }
  }
  for (; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) to[c * to_row + r] = from[r * from_row + c];
  }
}
