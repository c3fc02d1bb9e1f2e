// Kernels of the ray marcher. All are plain loops of independent threads or warps; sums are taken in a fixed order, without
// atomics.
#pragma once

#include "cuda_common.cuh"
#include "march.h"

namespace gaussian_rasterization {
namespace cuda {

// One volume on the device.
struct DeviceVolume {
  const float* density;    // (X, Y, Z)
  const float* features;   // (X, Y, Z, C)
  const float* transform;  // (2, 3): index = point * [0] + [1]
  int size[3], channels;
};

// Rays [first, first + count) of one volume.
struct DeviceRays {
  const float *origins, *directions;  // (R, 3)
  const float* t;                     // (S,), or edges with these steps
  int64_t t_ray, t_step;
  int64_t first, count;
  int samples;
  bool edges;
  __device__ __forceinline__ float place(int64_t ray, int k) const { return t[(first + ray) * t_ray + k * t_step]; }
};

// What a ray leaves for the kernels that follow, one number per used sample: slot = sample * rays + ray. Null if not wanted.
struct Slots {
  float *x, *y, *z;          // voxel index, not rounded
  float* weight;             // 0 where the sample does not count
  float *light, *slope;      // before the sample; derivative of optical depth or probability by the density
  float *u, *start, *width;  // position, interval
  int32_t* number;           // of the S samples; -1 - number where the sample does not count
  int32_t* used;             // (rays,) samples that were looked at
  float* last_light;         // (rays,)
};

// Cell of a voxel index and the weights of its corners, x slowest and z fastest; false outside.
struct Cell {
  int base[3];
  float fraction[3];
  __device__ __forceinline__ bool find(const DeviceVolume& v, float x, float y, float z) {
    const float g[3] = {x, y, z};
    for (int a = 0; a < 3; ++a) {
      if (!(g[a] > -1.0f && g[a] < (float)v.size[a])) return false;
      const float whole = floorf(g[a]);
      base[a] = (int)whole, fraction[a] = g[a] - whole;
    }
    return true;
  }
  // Voxel of corner c, or -1 outside.
  __device__ __forceinline__ int voxel(const DeviceVolume& v, int c) const {
    const int x = base[0] + (c >> 2), y = base[1] + (c >> 1 & 1), z = base[2] + (c & 1);
    const bool exists = x >= 0 && x < v.size[0] && y >= 0 && y < v.size[1] && z >= 0 && z < v.size[2];
    return exists ? (x * v.size[1] + y) * v.size[2] + z : -1;
  }
  __device__ __forceinline__ float share(int c) const {
    return (c & 4 ? fraction[0] : 1.0f - fraction[0]) * (c & 2 ? fraction[1] : 1.0f - fraction[1]) *
           (c & 1 ? fraction[2] : 1.0f - fraction[2]);
  }
};

__device__ __forceinline__ float step_length(float width, const MarchOptions& o) {
  const float longest = INFINITE_STEP / o.unit;
  return width > 0.0f ? (width < longest ? width : longest) : 0.0f;
}

// March one ray per thread. grid: ray; outputs (rays,), weights (rays, S), null where not wanted.
__global__ void __launch_bounds__(THREADS)
    trace_kernel(MarchOptions o, DeviceVolume v, DeviceRays rays, Slots slots, MarchValues out) {
  const int64_t ray = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (ray >= rays.count) return;
  const float* origin = rays.origins + 3 * (rays.first + ray);
  const float* direction = rays.directions + 3 * (rays.first + ray);
  const float* factor = v.transform;
  const float* offset = v.transform + 3;
  float moved = 0.0f, last_point[3] = {0.0f, 0.0f, 0.0f};
  float before = 0.0f, light = 1.0f, depth = 0.0f;
  double mass = 0, moment = 0, pairs = 0, self = 0;
  int used = 0, count = 0;
  bool open = true;

  // the sample that waits for the position of the next one
  bool pending = false;
  float u_before = 0.0f, u_pending = 0.0f, start = 0.0f, width = 0.0f, index[3] = {0.0f, 0.0f, 0.0f};
  int number = 0, kept = 0;

  const auto use_pending = [&]() {
    // light is what is left before this sample
    light = o.form == PROB ? 1.0f - (before < 1.0f ? before : before >= 1.0f ? 1.0f : before) : expf(-before);
    if (o.transmittance_min > 0.0f ? light < o.transmittance_min : o.form == PROB && light <= 0.0f) {
      open = false;
      return;
    }
    Cell cell;
    float value = 0.0f;
    if (cell.find(v, index[0], index[1], index[2])) {
      float corner[8];
      for (int c = 0; c < 8; ++c) {
        const int voxel = cell.voxel(v, c);
        corner[c] = voxel >= 0 ? v.density[voxel] : 0.0f;
      }
      for (int c = 0; c < 8; c += 2) corner[c] = fmaf(cell.fraction[2], corner[c + 1] - corner[c], corner[c]);
      for (int c = 0; c < 8; c += 4) corner[c] = fmaf(cell.fraction[1], corner[c + 2] - corner[c], corner[c]);
      value = fmaf(cell.fraction[0], corner[4] - corner[0], corner[0]);
    }
    float add, slope, alpha = 0.0f;
    if (o.form == NERF) {
      const float step = width * o.unit;
      add = (value < 0.0f ? 0.0f : value) * step;
      slope = value < 0.0f ? 0.0f : step;
    } else {
      const float y = o.form == DVGO ? value + o.shift : value;
      const float small = expf(-fabsf(y)), sigmoid = (y < 0.0f ? small : 1.0f) / (1.0f + small);
      add = o.form == DVGO ? o.interval * ((y < 0.0f ? 0.0f : y) + log1pf(small)) : sigmoid;
      slope = o.form == DVGO ? o.interval * sigmoid : sigmoid * ((y < 0.0f ? 1.0f : small) / (1.0f + small));
    }
    if (o.form != PROB) alpha = -expm1f(-add);
    const bool skipped = o.alpha_min > 0.0f && (o.form == PROB ? add : alpha) <= o.alpha_min;
    if (skipped) add = alpha = slope = 0.0f;
    const float after = before + add;
    float weight = light * alpha;
    if (o.form == PROB) weight = (after < 1.0f ? after : 1.0f) - (before < 1.0f ? before : 1.0f);
    const bool counted = !skipped && !(o.weight_min > 0.0f && weight <= o.weight_min);
    if (!counted) weight = 0.0f;
    const float u = u_pending, m = contracted_distance(u);
    if (counted) {
      ++count;
      depth += weight * (o.contracted_depth ? m : u);
      if (out.weights) out.weights[ray * rays.samples + number] = weight;
    }
    if (out.distortion) {
      pairs += weight * (m * mass - moment);
      mass += weight, moment += (double)weight * m;
      const float q = o.distortion == SAMPLE_WIDTH ? distortion_interval(o, start, width, 0) : 1.0f;
      self += (double)weight * weight * q;
    }
    const int64_t slot = used * rays.count + ray;
    if (slots.x) slots.x[slot] = index[0], slots.y[slot] = index[1], slots.z[slot] = index[2], slots.weight[slot] = weight;
    if (slots.light) {
      slots.light[slot] = light, slots.slope[slot] = slope, slots.u[slot] = u;
      slots.start[slot] = start, slots.width[slot] = width, slots.number[slot] = counted ? number : -1 - number;
    }
    before = after;
    ++used;
  };

  for (int k = 0; open && k < rays.samples; ++k) {
    float u, from = 0.0f, length = 0.0f;
    if (rays.edges) {
      from = rays.place(ray, k);
      const float end = rays.place(ray, k + 1);
      u = 0.5f * (from + end), length = step_length(end - from, o);
    } else {
      u = rays.place(ray, k);
    }
    float p[3];
    for (int a = 0; a < 3; ++a) p[a] = origin[a] + direction[a] * u;
    bool keep = true;
    if (o.background > 0.0f) {
      const float q = sqrtf(p[0] * p[0] + p[1] * p[1] + p[2] * p[2]);
      const bool inner = q <= 1.0f;
      if (q > 1.0f) {
        const float scale = ((1.0f + o.background) - o.background / q) / q;
        for (int a = 0; a < 3; ++a) p[a] = p[a] * scale;
      }
      if (o.min_spacing > 0.0f) {
        float d[3];
        for (int a = 0; a < 3; ++a) d[a] = p[a] - last_point[a], last_point[a] = p[a];
        moved += k ? sqrtf(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]) : 0.0f;
        const bool far = moved > o.min_spacing;
        moved = far ? 0.0f : moved;
        keep = inner || far;
      }
    }
    if (!keep) continue;
    if (pending) {
      if (!rays.edges) start = u_pending, width = step_length(u - u_pending, o);
      use_pending();
      u_before = u_pending;
    }
    pending = true, ++kept;
    u_pending = u, number = k;
    if (rays.edges) start = from, width = length;
    for (int a = 0; a < 3; ++a) index[a] = p[a] * factor[a] + offset[a];
  }
  if (open && pending) {
    if (!rays.edges) {
      start = u_pending;
      const bool infinite = o.infinite_step || rays.samples == 1;
      const float next = u_pending + (u_pending - (kept > 1 ? u_before : u_pending));
      width = infinite ? INFINITE_STEP / o.unit : step_length(next - u_pending, o);
    }
    use_pending();
  }
  if (o.form == PROB) before = before < 1.0f ? before : before >= 1.0f ? 1.0f : before;
  light = o.form == PROB ? 1.0f - before : expf(-before);
  if (slots.used) slots.used[ray] = used;
  if (slots.last_light) slots.last_light[ray] = light;
  if (!out.depth) return;
  out.depth[ray] = depth * o.unit;
  out.light[ray] = light;
  out.alpha[ray] = o.form == PROB ? before : -expm1f(-before);
  out.count[ray] = count;
  if (out.distortion) {
    if (o.distortion != SAMPLE_WIDTH) self *= distortion_interval(o, 0.0f, 0.0f, count);
    out.distortion[ray] = (float)(2 * pairs + self / 3);
  }
}

// features (rays, C) of one ray per warp, lanes are channels. grid: 8 rays.
__global__ void __launch_bounds__(THREADS) gather_kernel(DeviceVolume v, int64_t rays, Slots slots, float* features) {
  const int64_t ray = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
  if (ray >= rays) return;
  const int used = slots.used[ray];
  for (int channel = threadIdx.x % 32; channel < v.channels; channel += 32) {
    float sum = 0.0f;
    for (int k = 0; k < used; ++k) {
      const int64_t slot = k * rays + ray;
      const float weight = slots.weight[slot];
      Cell cell;
      if (weight == 0.0f || !cell.find(v, slots.x[slot], slots.y[slot], slots.z[slot])) continue;
      for (int c = 0; c < 8; ++c) {
        const int voxel = cell.voxel(v, c);
        if (voxel >= 0) sum = fmaf(weight * cell.share(c), v.features[(int64_t)voxel * v.channels + channel], sum);
      }
    }
    features[ray * v.channels + channel] = sum;
  }
}

// Gradient of every weight but for the distortion. grid: slot; grads of the rays of this chunk.
__global__ void __launch_bounds__(THREADS)
    value_kernel(MarchOptions o, DeviceVolume v, DeviceRays rays, Slots slots, MarchGrads grads, float* values) {
  const int64_t slot = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (slot >= rays.count * rays.samples) return;
  const int64_t ray = slot % rays.count;
  if (slot / rays.count >= slots.used[ray]) return;
  const int number = slots.number[slot];
  float value = 0.0f;
  if (number >= 0) {
    const float u = slots.u[slot];
    if (grads.depth) value += grads.depth[ray] * o.unit * (o.contracted_depth ? contracted_distance(u) : u);
    if (grads.weights) value += grads.weights[ray * rays.samples + number];
    Cell cell;
    if (grads.features && cell.find(v, slots.x[slot], slots.y[slot], slots.z[slot])) {
      const float* upstream = grads.features + ray * v.channels;
      for (int c = 0; c < 8; ++c) {
        const int voxel = cell.voxel(v, c);
        if (voxel < 0) continue;
        const float* row = v.features + (int64_t)voxel * v.channels;
        float dot = 0.0f;
        for (int channel = 0; channel < v.channels; ++channel) dot = fmaf(upstream[channel], row[channel], dot);
        value = fmaf(cell.share(c), dot, value);
      }
    }
  }
  values[slot] = value;
}

// Adds the gradient of the distortion to those of the weights. grid: ray. A kernel of its own: its divisions are calls, around
// which the kernel below would have to spill what it holds.
__global__ void __launch_bounds__(THREADS)
    distortion_kernel(MarchOptions o, DeviceRays rays, Slots slots, const float* grad, float* values) {
  const int64_t ray = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (ray >= rays.count) return;
  const int used = slots.used[ray];
  const auto at = [&](int k) { return k * rays.count + ray; };
  double all_mass = 0, all_moment = 0, mass = 0, moment = 0;
  int count = 0;
#pragma unroll 1
  for (int k = 0; k < used; ++k) {
    all_mass += slots.weight[at(k)], all_moment += (double)slots.weight[at(k)] * contracted_distance(slots.u[at(k)]);
    count += slots.number[at(k)] >= 0;
  }
#pragma unroll 1
  for (int k = 0; k < used; ++k) {
    const double w = slots.weight[at(k)], m = contracted_distance(slots.u[at(k)]), front = m * mass - moment;
    mass += w, moment += w * m;
    const double behind = (all_moment - moment) - m * (all_mass - mass);
    const double q = distortion_interval(o, slots.start[at(k)], slots.width[at(k)], count);
    if (slots.number[at(k)] >= 0) values[at(k)] += grad[ray] * (float)(2 * (front + behind) + 2 * q * w / 3);
  }
}

// From gradients of weights to gradients of the density at the samples, back to front. grid: ray. Also writes the key of every
// slot: number of its cell among (X + 1) (Y + 1) (Z + 1), or that count where there is nothing to add.
__global__ void __launch_bounds__(THREADS)
    suffix_kernel(MarchOptions o, DeviceVolume v, DeviceRays rays, Slots slots, MarchGrads grads, bool need_density,
                  float* values, uint32_t* keys, int32_t* order) {
  const int64_t ray = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (ray >= rays.count) return;
  const int used = slots.used[ray];
  const auto at = [&](int k) { return k * rays.count + ray; };
  if (need_density) {
    const float of_light = (grads.light ? grads.light[ray] : 0.0f) - (grads.alpha ? grads.alpha[ray] : 0.0f);
    const float last = slots.last_light[ray];
    if (o.form == PROB) {
      int end = used;
      float lost = of_light;
      if (last <= 0.0f && used > 0) {  // the last sample fills up what is missing
        --end;
        lost = values[at(end)], values[at(end)] = 0.0f;
      }
      for (int k = 0; k < end; ++k) values[at(k)] = slots.slope[at(k)] * (values[at(k)] - lost);
    } else {
      float behind = of_light * last, after = last;
      for (int k = used - 1; k >= 0; --k) {
        const float own = values[at(k)];
        values[at(k)] = slots.slope[at(k)] * (after * own - behind);
        behind += slots.weight[at(k)] * own;
        after = slots.light[at(k)];
      }
    }
  }
  const uint32_t none = (uint32_t)(v.size[0] + 1) * (v.size[1] + 1) * (v.size[2] + 1);
  for (int k = 0; k < rays.samples; ++k) {
    Cell cell;
    uint32_t key = none;
    if (k < used && cell.find(v, slots.x[at(k)], slots.y[at(k)], slots.z[at(k)]) &&
        (slots.weight[at(k)] != 0.0f || (need_density && values[at(k)] != 0.0f))) {
      key = ((uint32_t)(cell.base[0] + 1) * (v.size[1] + 1) + (cell.base[1] + 1)) * (v.size[2] + 1) + (cell.base[2] + 1);
    }
    keys[at(k)] = key, order[at(k)] = (int32_t)at(k);
  }
}

// Where the entries of every cell begin in the sorted keys, and the end. grid: cell.
__global__ void __launch_bounds__(THREADS)
    cell_begin_kernel(const uint32_t* keys, int64_t entries, int64_t cells, int32_t* begins) {
  const int64_t cell = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (cell > cells) return;
  int64_t low = 0, high = entries;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (keys[middle] < (uint32_t)cell)
      low = middle + 1;
    else
      high = middle;
  }
  begins[cell] = (int32_t)low;
}

// Add the entries of one cell per warp to its eight voxels. Cells of one parity (0..7) touch no voxel in common, so eight
// launches after each other need no atomics. grid: 8 cells of the parity.
__global__ void __launch_bounds__(THREADS)
    add_kernel(DeviceVolume v, int64_t rays, Slots slots, const float* values, const float* upstream, const int32_t* begins,
               const int32_t* order, int parity, float* grad_density, float* grad_features) {
  const int px = parity >> 2, py = parity >> 1 & 1, pz = parity & 1;
  const int ny = (v.size[1] + 2 - py) / 2, nz = (v.size[2] + 2 - pz) / 2, nx = (v.size[0] + 2 - px) / 2;
  const int64_t which = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
  if (which >= (int64_t)nx * ny * nz) return;
  const int x = 2 * (int)(which / ((int64_t)ny * nz)) + px, y = 2 * (int)(which / nz % ny) + py, z = 2 * (int)(which % nz) + pz;
  const int64_t number = ((int64_t)x * (v.size[1] + 1) + y) * (v.size[2] + 1) + z;
  const int begin = begins[number], end = begins[number + 1];
  if (begin == end) return;
  const int lane = threadIdx.x % 32;
  Cell cell;
  cell.base[0] = x - 1, cell.base[1] = y - 1, cell.base[2] = z - 1;
  const auto look_at = [&](int entry) {
    const int slot = order[entry];
    cell.fraction[0] = slots.x[slot] - (float)cell.base[0];
    cell.fraction[1] = slots.y[slot] - (float)cell.base[1];
    cell.fraction[2] = slots.z[slot] - (float)cell.base[2];
    return slot;
  };
  if (grad_density) {
    float sums[8] = {};
    for (int entry = begin + lane; entry < end; entry += 32) {
      const int slot = look_at(entry);
      for (int c = 0; c < 8; ++c) sums[c] = fmaf(values[slot], cell.share(c), sums[c]);
    }
    warp_sum<8>(sums);
    const int corner = warp_sum_index<8>(lane), voxel = corner >= 0 ? cell.voxel(v, corner) : -1;
    if (voxel >= 0) grad_density[voxel] += sums[0];
  }
  if (!grad_features) return;
  for (int channel = lane; channel < v.channels; channel += 32) {
    float sums[8] = {};
    for (int entry = begin; entry < end; ++entry) {
      const int slot = look_at(entry);
      const float grad = slots.weight[slot] * upstream[slot % rays * v.channels + channel];
      for (int c = 0; c < 8; ++c) sums[c] = fmaf(grad, cell.share(c), sums[c]);
    }
    for (int c = 0; c < 8; ++c) {
      const int voxel = cell.voxel(v, c);
      if (voxel >= 0) grad_features[(int64_t)voxel * v.channels + channel] += sums[c];
    }
  }
}

}  // namespace cuda
}  // namespace gaussian_rasterization
