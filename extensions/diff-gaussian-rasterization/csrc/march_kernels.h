// The inner loops of ray marching on the CPU, compiled once per instruction set.
//
// A ray is traced in vectors of neighbouring samples: positions, contraction, density, opacity, light. Features are not looked
// up per sample: neighbouring samples share voxels, so a ray first gathers one coefficient per voxel that it meets, and only
// then touches the channels of that voxel, once. The backward pass does the same and leaves one entry per ray and voxel.
#pragma once

#include "cpu_kernels.h"
#include "march.h"

namespace gaussian_rasterization {

// What a ray adds to the gradients of one voxel: `feature` times its gradient of the features, and `density`.
struct MarchEntry {
  int32_t voxel, ray;
  float feature, density;
};

inline int64_t march_entries(int samples) { return 8 * (int64_t)samples; }

// Columns of voxels whose gradients are added up by one thread at a time.
struct MarchRegions {
  int shift, across, count;  // region of a voxel: (x >> shift) * across + (y >> shift)
};

struct MarchKernels {
  size_t (*scratch_bytes)(int samples);
  void (*forward)(const MarchOptions&, const MarchVolume&, const MarchRay&, void* scratch, const MarchValues&);
  // Writes the entries of a ray and the region of each, at most march_entries(samples); returns how many.
  int (*backward)(const MarchOptions&, const MarchVolume&, const MarchRay&, void* scratch, const MarchGrads&, bool need_density,
                  bool need_features, const MarchRegions&, int32_t ray, MarchEntry* entries, int32_t* regions);
  // Add entries to the gradients; `upstream` (R, C), either gradient may be null.
  void (*add)(const MarchEntry* entries, int64_t count, const float* upstream, int channels, float* grad_density,
              float* grad_features);
};

extern const MarchKernels march_baseline;
#ifdef RASTER_X86
extern const MarchKernels march_avx2;
extern const MarchKernels march_avx512;
#endif

}  // namespace gaussian_rasterization
