// What every backend shares: constants, the camera, projection of one Gaussian and its derivative.
//
// Host code is compiled without contraction of a * b + c and CUDA code with -fmad=false where the depth is computed, because
// the depth key must have the same bits on every backend: ((m0 x + m1 y) + m2 z) + t in float32.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define RASTER_FN __host__ __device__ __forceinline__
#else
#define RASTER_FN inline
#endif

namespace gaussian_rasterization {

// The same numbers as in gaussian_rasterization/constants.py; a test compares the files.
constexpr float CLAMP_MARGIN = 0.3f;
constexpr float RADIUS_SIGMAS = 3.0f;
constexpr float RADIUS_FLOOR = 0.1f;
constexpr float Z_LIMIT = 1e15f;
constexpr int COMPAT_TILE = 12;
constexpr int MASK_TILE = 16;

// The alpha >= alpha_min ellipse is listed a little larger than it is; the test per pixel decides.
constexpr float EXTENT_FACTOR = 1.001f;
constexpr float EXTENT_MARGIN = 1e-3f;
constexpr int TILE = 16;

struct Options {
  float near, dilation, alpha_min, alpha_max, transmittance_min, scale_modifier;
  bool offcentre, rect12, exact_cap;
  bool cull;  // lists follow the ellipse alpha >= alpha_min; else, for measurements, the square around a full opacity
};

struct Camera {
  float rotation[9], translation[3];
  float fx, fy, cx, cy;
  float lo_x, hi_x, lo_y, hi_y;  // limits of x / z and y / z inside the Jacobian
  int width, height;
};

// A Gaussian as one view sees it. Lengths in pixels, integer coordinates at pixel centres.
struct alignas(64) Splat {
  float u, v, z, opacity;
  float inv_xx, slope, extent;  // drawn where inv_xx (dx - slope dy)^2 + dy^2 / cov_yy <= extent, about; < 0: not known
  float cov_xx, cov_xy, cov_yy;
  int32_t id;
  uint16_t x0, x1, y0, y1;  // pixel bounds, inclusive
  int32_t view;             // CUDA, where the splats of all views lie together
  int64_t row;              // CPU: first gradient row of the backward pass
};

struct Shape {
  float mean[3], quat[4], scale[3];
};

struct Footprint {
  float a, b;                // clamped x / z, y / z
  float row_x[3], row_y[3];  // rows of Jacobian times rotation, divided by focal / z
  float m_x[3], m_y[3];      // rows of Jacobian times rotation times axes
};

// 4x4 view matrix (row major, column vectors) and 3x3 intrinsics.
RASTER_FN Camera make_camera(const float* view, const float* K, int width, int height, bool offcentre) {
  Camera c;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) c.rotation[3 * i + j] = view[4 * i + j];
    c.translation[i] = view[4 * i + 3];
  }
  c.fx = K[0], c.fy = K[4], c.cx = K[2], c.cy = K[5];
  c.width = width, c.height = height;
  const float half_x = width / (2.0f * c.fx), half_y = height / (2.0f * c.fy);
  const float margin_x = CLAMP_MARGIN * half_x, margin_y = CLAMP_MARGIN * half_y;
  if (offcentre) {
    c.lo_x = -(c.cx / c.fx) - margin_x, c.hi_x = (width - c.cx) / c.fx + margin_x;
    c.lo_y = -(c.cy / c.fy) - margin_y, c.hi_y = (height - c.cy) / c.fy + margin_y;
  } else {
    c.lo_x = -(half_x + margin_x), c.hi_x = half_x + margin_x;
    c.lo_y = -(half_y + margin_y), c.hi_y = half_y + margin_y;
  }
  return c;
}

RASTER_FN float camera_row(const Camera& c, int i, const float* p) {
  const float* r = c.rotation + 3 * i;
#ifdef __CUDA_ARCH__
  return __fadd_rn(__fadd_rn(__fadd_rn(__fmul_rn(r[0], p[0]), __fmul_rn(r[1], p[1])), __fmul_rn(r[2], p[2])), c.translation[i]);
#else
  return ((r[0] * p[0] + r[1] * p[1]) + r[2] * p[2]) + c.translation[i];
#endif
}

RASTER_FN float clampf(float x, float lo, float hi) {
  x = x > lo ? x : lo;
  return x < hi ? x : hi;
}

// Rotation of a quaternion used as given: zero is the identity.
RASTER_FN void rotation_polynomial(const float* q, float* Q) {
  const float w = q[0], x = q[1], y = q[2], z = q[3];
  Q[0] = 1 - 2 * (y * y + z * z), Q[1] = 2 * (x * y - w * z), Q[2] = 2 * (x * z + w * y);
  Q[3] = 2 * (x * y + w * z), Q[4] = 1 - 2 * (x * x + z * z), Q[5] = 2 * (y * z - w * x);
  Q[6] = 2 * (x * z - w * y), Q[7] = 2 * (y * z + w * x), Q[8] = 1 - 2 * (x * x + y * y);
}

RASTER_FN void footprint(const Camera& c, const Shape& g, float modifier, const float* p, Footprint& f) {
  const float inv = 1.0f / p[2];
  f.a = clampf(p[0] / p[2], c.lo_x, c.hi_x);
  f.b = clampf(p[1] / p[2], c.lo_y, c.hi_y);
  const float* R = c.rotation;
  for (int i = 0; i < 3; ++i) {
    f.row_x[i] = R[i] - f.a * R[6 + i];
    f.row_y[i] = R[3 + i] - f.b * R[6 + i];
  }
  const float sx = c.fx * inv, sy = c.fy * inv;
  const float s[3] = {modifier * g.scale[0], modifier * g.scale[1], modifier * g.scale[2]};
  if (g.quat[1] == 0 && g.quat[2] == 0 && g.quat[3] == 0) {  // identity, whatever w is
    for (int j = 0; j < 3; ++j) f.m_x[j] = sx * f.row_x[j] * s[j], f.m_y[j] = sy * f.row_y[j] * s[j];
    return;
  }
  float Q[9];
  rotation_polynomial(g.quat, Q);
  for (int j = 0; j < 3; ++j) {
    f.m_x[j] = sx * (f.row_x[0] * Q[j] + f.row_x[1] * Q[3 + j] + f.row_x[2] * Q[6 + j]) * s[j];
    f.m_y[j] = sy * (f.row_y[0] * Q[j] + f.row_y[1] * Q[3 + j] + f.row_y[2] * Q[6 + j]) * s[j];
  }
}

RASTER_FN float dot3(const float* a, const float* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

// Pixels of the 12-pixel tiles [x0, x1) that meet centre +- radius; false if there are none.
RASTER_FN bool compat_range(float centre, float radius, int size, float& lo, float& hi) {
  const float tile = COMPAT_TILE, count = (size + COMPAT_TILE - 1) / COMPAT_TILE;
  lo = clampf(truncf((centre - radius) / tile), 0, count) * tile;
  hi = clampf(truncf((centre + radius + (tile - 1)) / tile), 0, count) * tile;
  return lo < hi;
}

// Project one Gaussian. Returns whether any pixel can be drawn; `radius` is 0 if the Gaussian is discarded.
RASTER_FN bool project(const Camera& c, const Options& o, const Shape& g, float opacity, Splat& s, int32_t& radius) {
  radius = 0;
  // one sum tells whether anything is not finite: inf and NaN survive addition (inf - inf is NaN) and products with zero
  float probe = opacity * 0.0f;
  for (int i = 0; i < 3; ++i) probe += g.mean[i] * 0.0f + g.scale[i] * 0.0f;
  for (int i = 0; i < 4; ++i) probe += g.quat[i] * 0.0f;
  if (!(probe == 0.0f)) return false;
  const float z = camera_row(c, 2, g.mean);
  if (!(z > o.near && z < Z_LIMIT)) return false;
  const float p[3] = {camera_row(c, 0, g.mean), camera_row(c, 1, g.mean), z};
  Footprint f;
  footprint(c, g, o.scale_modifier, p, f);
  const float xx = dot3(f.m_x, f.m_x), xy = dot3(f.m_x, f.m_y), yy = dot3(f.m_y, f.m_y);
  const float cross[3] = {f.m_x[1] * f.m_y[2] - f.m_x[2] * f.m_y[1], f.m_x[2] * f.m_y[0] - f.m_x[0] * f.m_y[2],
                          f.m_x[0] * f.m_y[1] - f.m_x[1] * f.m_y[0]};
  // Lagrange: |m_x|^2 |m_y|^2 - (m_x m_y)^2 as a sum of squares keeps the digits of thin ellipses
  const float A = xx + o.dilation, D = yy + o.dilation;
  const float det = dot3(cross, cross) + o.dilation * (xx + D);
  s.u = c.fx * (p[0] / z) + c.cx - 0.5f;
  s.v = c.fy * (p[1] / z) + c.cy - 0.5f;
  s.z = z;
  s.opacity = opacity < 1.0f ? opacity : 1.0f;
  s.cov_xx = A, s.cov_xy = xy, s.cov_yy = D;
  s.inv_xx = D / det, s.slope = xy / D;
  const float mid = 0.5f * (A + D), half = 0.5f * (A - D), root = half * half + xy * xy;
  const float longest = mid + sqrtf(root > RADIUS_FLOOR ? root : RADIUS_FLOOR), r = ceilf(RADIUS_SIGMAS * sqrtf(longest));
  probe = (s.u * 0.0f + s.v * 0.0f + z * 0.0f) + (s.inv_xx * 0.0f + s.slope * 0.0f + 1.0f / D * 0.0f) +
          (A * 0.0f + xy * 0.0f + D * 0.0f) + r * 0.0f;
  if (!(probe == 0.0f)) return false;

  float x_lo = 0, x_hi = c.width, y_lo = 0, y_hi = c.height;
  if (o.rect12 && !(compat_range(s.u, r, c.width, x_lo, x_hi) & compat_range(s.v, r, c.height, y_lo, y_hi))) return false;
  radius = (int32_t)(r < 2147483392.0f ? r : 2147483392.0f);
  if (o.cull && !(s.opacity >= o.alpha_min)) return false;
  s.extent = 2.0f * logf((o.cull ? s.opacity : 1.0f) / o.alpha_min) * EXTENT_FACTOR + EXTENT_MARGIN;
  const float half_x = sqrtf(s.extent * (o.cull ? A : longest)), half_y = sqrtf(s.extent * (o.cull ? D : longest));
  if (!o.cull) s.extent = -1.0f;
  const float x0 = clampf(ceilf(s.u - half_x), x_lo, 65535.0f), x1 = clampf(floorf(s.u + half_x), -1.0f, x_hi - 1);
  const float y0 = clampf(ceilf(s.v - half_y), y_lo, 65535.0f), y1 = clampf(floorf(s.v + half_y), -1.0f, y_hi - 1);
  const float x_end = x1 < c.width - 1 ? x1 : c.width - 1, y_end = y1 < c.height - 1 ? y1 : c.height - 1;
  if (!(x0 <= x_end && y0 <= y_end)) return false;
  s.x0 = (uint16_t)x0, s.x1 = (uint16_t)x_end, s.y0 = (uint16_t)y0, s.y1 = (uint16_t)y_end;
  return true;
}

// The pixel columns [lo, hi] that the ellipse meets in `rows` pixel rows from `first` on, exactly up to the margin of `extent`
// (>= 0): in a horizontal band an ellipse is widest at its extreme point, or at the edge of the band that is nearest to it.
RASTER_FN void band_span(const Splat& s, int first, int rows, int& lo, int& hi) {
  const float top = (float)first - s.v, bottom = top + (rows - 1), inner = 1.0f / s.inv_xx;
  const float at = s.cov_xy * sqrtf(s.extent / s.cov_xx);
  float reach[2];
  for (int side = 0; side < 2; ++side) {
    const float sign = side ? 1.0f : -1.0f, dy = clampf(sign * at, top, bottom);
    const float room = s.extent - dy * dy / s.cov_yy;
    reach[side] = s.u + s.slope * dy + sign * (sqrtf(inner * (room < 0.0f ? 0.0f : room)) * 1.0001f + 0.01f);
  }
  lo = (int)clampf(floorf(reach[0]), 0.0f, 65535.0f), hi = (int)clampf(ceilf(reach[1]), -1.0f, 65535.0f);
}

// Tiles [x0, x1] of tile row y, within [first, last], that the ellipse meets.
RASTER_FN void tile_span(const Splat& s, int y, int first, int last, int& x0, int& x1) {
  if (s.extent < 0.0f) {
    x0 = s.x0 / TILE > first ? s.x0 / TILE : first;
    x1 = s.x1 / TILE < last ? s.x1 / TILE : last;
    return;
  }
  int lo, hi;
  band_span(s, y * TILE, TILE, lo, hi);
  const int left = (lo > s.x0 ? lo : s.x0) / TILE, end = hi < s.x1 ? hi : s.x1, right = end < 0 ? -1 : end / TILE;
  x0 = left > first ? left : first;
  x1 = right < last ? right : last;
}

// What the image says about one splat: sums over its pixels of h = exp(power) dL/dalpha times 1, t, y, t^2, t y, y^2 with y =
// dy and t = dx - slope dy, and dL/dz from the depth image. In these coordinates power = -(inv_xx t^2 + y^2 / cov_yy) / 2, free
// of cancellation.
struct Moments {
  float h, t, y, tt, ty, yy, z;
};

struct ShapeGrad {
  float mean[3], quat[4], scale[3];
  float view[12];  // rows 0..2 of the view matrix
};

// Chain rule from the moments to the Gaussian and the camera; overwrites `out`.
RASTER_FN void project_backward(const Camera& c, const Options& o, const Shape& g, const Splat& s, const Moments& m,
                                ShapeGrad& out) {
  const float w = s.opacity;
  const float k = s.inv_xx, slope = s.slope, inv_yy = 1.0f / s.cov_yy;
  const float du = -w * k * m.t, dv = -w * (inv_yy * m.y - k * slope * m.t);
  // inv_xx = 1 / (A - B^2 / D), slope = B / D
  const float dk = 0.5f * w * m.tt * k * k, dslope = w * k * m.ty * inv_yy;
  const float dA = dk, dB = dslope - 2.0f * slope * dk, dD = slope * (slope * dk - dslope) + 0.5f * w * m.yy * inv_yy * inv_yy;

  const float p[3] = {camera_row(c, 0, g.mean), camera_row(c, 1, g.mean), s.z};
  Footprint f;
  footprint(c, g, o.scale_modifier, p, f);
  float Q[9];
  rotation_polynomial(g.quat, Q);
  const float inv = 1.0f / s.z, sx = c.fx * inv, sy = c.fy * inv;
  float row_x[3] = {0, 0, 0}, row_y[3] = {0, 0, 0}, dQ[9];  // gradients of sx row_x and sy row_y
  for (int j = 0; j < 3; ++j) {
    const float dx = 2 * dA * f.m_x[j] + dB * f.m_y[j], dy = 2 * dD * f.m_y[j] + dB * f.m_x[j];
    const float scale = o.scale_modifier * g.scale[j];
    float ds = 0;
    for (int i = 0; i < 3; ++i) {
      const float axis = Q[3 * i + j] * scale;
      row_x[i] += dx * axis, row_y[i] += dy * axis;
      const float dM = sx * f.row_x[i] * dx + sy * f.row_y[i] * dy;
      ds += Q[3 * i + j] * dM;
      dQ[3 * i + j] = scale * dM;
    }
    out.scale[j] = o.scale_modifier * ds;
  }
  const float qw = g.quat[0], qx = g.quat[1], qy = g.quat[2], qz = g.quat[3];
  out.quat[0] = 2 * (qx * (dQ[7] - dQ[5]) + qy * (dQ[2] - dQ[6]) + qz * (dQ[3] - dQ[1]));
  out.quat[1] = 2 * (qy * (dQ[1] + dQ[3]) + qz * (dQ[2] + dQ[6]) + qw * (dQ[7] - dQ[5])) - 4 * qx * (dQ[4] + dQ[8]);
  out.quat[2] = 2 * (qx * (dQ[1] + dQ[3]) + qz * (dQ[5] + dQ[7]) + qw * (dQ[2] - dQ[6])) - 4 * qy * (dQ[0] + dQ[8]);
  out.quat[3] = 2 * (qx * (dQ[2] + dQ[6]) + qy * (dQ[5] + dQ[7]) + qw * (dQ[3] - dQ[1])) - 4 * qz * (dQ[0] + dQ[4]);

  const float* R = c.rotation;
  const float da = -sx * dot3(row_x, R + 6), db = -sy * dot3(row_y, R + 6);
  float dp[3] = {du * sx, dv * sy, m.z};
  dp[2] -= inv * (du * sx * p[0] + dv * sy * p[1]);
  dp[2] -= inv * (sx * dot3(row_x, f.row_x) + sy * dot3(row_y, f.row_y));
  const float tan_x = p[0] / p[2], tan_y = p[1] / p[2];
  if (f.a == tan_x) {
    dp[0] += da * inv, dp[2] -= da * tan_x * inv;
  } else if (o.rect12) {  // the original: a z is a constant
    dp[2] -= da * f.a * inv;
  }
  if (f.b == tan_y) {
    dp[1] += db * inv, dp[2] -= db * tan_y * inv;
  } else if (o.rect12) {
    dp[2] -= db * f.b * inv;
  }
  for (int j = 0; j < 3; ++j) {
    out.mean[j] = R[j] * dp[0] + R[3 + j] * dp[1] + R[6 + j] * dp[2];
    out.view[j] = dp[0] * g.mean[j] + sx * row_x[j];
    out.view[4 + j] = dp[1] * g.mean[j] + sy * row_y[j];
    out.view[8 + j] = dp[2] * g.mean[j] - sx * f.a * row_x[j] - sy * f.b * row_y[j];
    out.view[4 * j + 3] = dp[j];
  }
}

// A shape near the limits of float32 can be drawn although its derivatives overflow; these count as zero. What comes from a
// non-finite gradient of the image shows in h and passes.
RASTER_FN bool overflowed(const Moments& m, const ShapeGrad& g) {
  float probe = 0;
  for (int i = 0; i < 3; ++i) probe += g.mean[i] * 0.0f + g.scale[i] * 0.0f;
  for (int i = 0; i < 4; ++i) probe += g.quat[i] * 0.0f;
  for (int i = 0; i < 12; ++i) probe += g.view[i] * 0.0f;
  return !(probe == 0.0f) && m.h * 0.0f == 0.0f;
}

}  // namespace gaussian_rasterization
