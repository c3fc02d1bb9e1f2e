// From Gaussians to the lists of the tiles, on the host: project_views, read_counts, sort_by_depth, make_splats, bin_tiles. All
// views go through one sequence of launches, and the host waits for the device once, in read_counts.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include <algorithm>
#include <vector>

#include "cuda_binning.cuh"
#include "operators.h"

namespace gaussian_rasterization {
namespace cuda {

inline unsigned grid(int64_t count) { return (unsigned)((count + THREADS - 1) / THREADS); }

// Device memory of the current stream.
template <typename T>
struct Buffer {
  Buffer() = default;
  Buffer(int64_t count, const at::TensorOptions& options)
      : memory(at::empty({count * (int64_t)sizeof(T)}, options.dtype(at::kByte))) {}
  T* get() const { return memory.defined() ? reinterpret_cast<T*>(memory.data_ptr()) : nullptr; }
  Tensor memory;
};

inline Rows rows_of(const Tensor& t) { return {t.const_data_ptr<float>(), t.stride(0), t.dim() > 1 ? t.stride(1) : 0}; }

// What the steps of a call have in common.
struct Job {
  Job(const Call& call, const Tensor& means, const Tensor& quats, const Tensor& scales, const Tensor& opacities,
      const Tensor& features_, const Tensor& viewmats_, const Tensor& Ks_, const Tensor& background_,
      const optional<Tensor>& mask_)
      : call(call),
        scene{means.size(0), rows_of(means), rows_of(quats), rows_of(scales), rows_of(opacities)},
        features(features_.contiguous()),
        viewmats(viewmats_.contiguous()),
        Ks(Ks_.contiguous()),
        background(background_.contiguous()),
        mask(mask_ ? mask_->contiguous() : Tensor()),
        floats(means.options()),
        stream(c10::cuda::getCurrentCUDAStream()) {
    views.options = call.options;
    views.viewmats = viewmats.const_data_ptr<float>(), views.Ks = Ks.const_data_ptr<float>();
    views.mask = mask.defined() ? mask.const_data_ptr<bool>() : nullptr;
    views.count = (int)call.views, views.width = call.width, views.height = call.height;
    views.tiles_x = (call.width + TILE - 1) / TILE, views.tiles_y = (call.height + TILE - 1) / TILE;
    TORCH_CHECK_VALUE(
        call.views <= 65535 && call.views * views.tiles_x * views.tiles_y < INT32_MAX && call.views * scene.count < INT32_MAX,
        "gaussian_rasterization: ", call.views, " views of ", call.width, " x ", call.height, " pixels and ", scene.count,
        " Gaussians are too many for one call; split the views");
  }

  bool labelled() const { return features.scalar_type() == at::kInt; }
  const int32_t* labels() const { return labelled() ? features.const_data_ptr<int32_t>() : nullptr; }
  int64_t tile_rows() const { return (int64_t)views.count * views.tiles_y; }

  Call call;
  Views views;
  Scene scene;
  Tensor features, viewmats, Ks, background, mask;
  at::TensorOptions floats;
  cudaStream_t stream;
};

// Counts on the device, see Summary.
struct DeviceCounts {
  // zeros, to be counted
  explicit DeviceCounts(const Job& job)
      : memory(at::zeros({1 + job.call.views * (1 + job.views.tiles_y)}, job.floats.dtype(at::kLong))),
        stride(1 + job.views.tiles_y) {}
  // those of a forward pass, from its state
  DeviceCounts(const Job& job, const Tensor& state) : DeviceCounts(job) {
    Tensor host = at::empty(memory.sizes(), at::TensorOptions().dtype(at::kLong).pinned_memory(true));
    int64_t* to = host.mutable_data_ptr<int64_t>();
    *to++ = 0;
    for (int64_t v = 0; v < job.call.views; ++v, to += stride) {
      const int64_t* from = state.const_data_ptr<int64_t>() + v * (stride + 1);
      to[0] = from[0];
      std::copy(from + 2, from + 1 + stride, to + 1);
    }
    memory.copy_(host, /*non_blocking=*/true);
  }
  Summary summary() const {
    static_assert(sizeof(unsigned long long) == sizeof(int64_t), "counted as one and read as the other");
    auto* numbers = reinterpret_cast<unsigned long long*>(memory.data_ptr());
    return {numbers, numbers + 1, stride};
  }
  Tensor memory;
  int stride;
};

// What the host knows of the views. The state of the backward pass holds it as (V, 2 + tiles_y) numbers: splats of the view,
// whether lists were culled, entries of every row of tiles.
struct Counts {
  Counts(const int64_t* state, const Job& job, int64_t stride, int64_t skip) {
    for (int64_t v = 0; v < job.call.views; ++v) {
      const int64_t* view = state + v * stride;
      begins.push_back(splats);
      splats += view[0], most = std::max(most, view[0]);
      row_entries.insert(row_entries.end(), view + skip, view + skip + job.views.tiles_y);
    }
    begins.push_back(splats);
    for (int64_t n : row_entries) entries += n;
  }

  // Last row of the band that begins with row `first`: as many rows as stay within `budget` entries, at least one.
  int band_end(int first, int64_t budget, int64_t& in_band) const {
    in_band = row_entries[first];
    int end = first + 1;
    for (; end < (int)row_entries.size() && in_band + row_entries[end] <= budget; ++end) in_band += row_entries[end];
    TORCH_CHECK_WITH(OutOfMemoryError, in_band < INT32_MAX, "gaussian_rasterization: ", in_band,
                     " pairs of Gaussian and tile in one row of tiles are too many");
    return end;
  }

  int64_t splats = 0, most = 0, entries = 0;  // of all views; most: of one view
  std::vector<int64_t> begins;                // (V + 1,) of the splats of every view
  std::vector<int64_t> row_entries;           // (V * tiles_y,)
};

// Wait for the device, the only time in a call, and read what it counted. Raises on what it found wrong.
inline Tensor read_counts(const Job& job, const DeviceCounts& device) {
  Tensor host = at::empty(device.memory.sizes(), at::TensorOptions().dtype(at::kLong).pinned_memory(true));
  host.copy_(device.memory, /*non_blocking=*/true);
  c10::cuda::stream_synchronize(job.stream);
  const int64_t problems = host.const_data_ptr<int64_t>()[0];
  TORCH_CHECK_VALUE(!(problems & BAD_LABEL), "gaussian_rasterization: a label is not in 0..", job.call.channels - 1);
  TORCH_CHECK_VALUE(!(problems & BAD_ORDER), "gaussian_rasterization: the saved state does not belong to these Gaussians");
  return host;
}

template <typename Key>
void sort_pairs(const Key* keys, Key* sorted_keys, const int32_t* values, int32_t* sorted_values, int64_t count, int bits,
                const Job& job) {
  size_t bytes = 0;
  C10_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, sorted_keys, values, sorted_values, (int)count, 0, bits,
                                                 job.stream));
  const Buffer<char> scratch((int64_t)bytes, job.floats);
  C10_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(scratch.get(), bytes, keys, sorted_keys, values, sorted_values, (int)count, 0,
                                                 bits, job.stream));
}

inline void running_sum(const int32_t* counts, int32_t* ends, int64_t count, const Job& job) {
  size_t bytes = 0;
  C10_CUDA_CHECK(cub::DeviceScan::InclusiveSum(nullptr, bytes, counts, ends, (int)count, job.stream));
  const Buffer<char> scratch((int64_t)bytes, job.floats);
  C10_CUDA_CHECK(cub::DeviceScan::InclusiveSum(scratch.get(), bytes, counts, ends, (int)count, job.stream));
}

inline int bits_of(int64_t largest) {
  int bits = 1;
  while (largest >> bits) ++bits;
  return bits;
}

struct Projected {
  Buffer<uint32_t> keys;       // (V, G)
  Buffer<int32_t> block_ends;  // (V, G / THREADS) running sums of the splats of every block
};

// Project all Gaussians into all views; fills `radii` (V, G) and counts.
inline Projected project_views(const Job& job, int32_t* radii, const DeviceCounts& counts) {
  const unsigned blocks = grid(job.scene.count);
  const int64_t numbers = (int64_t)blocks * job.call.views;
  Projected out = {Buffer<uint32_t>(job.scene.count * job.call.views, job.floats), Buffer<int32_t>(numbers, job.floats)};
  const Buffer<int32_t> block_counts(numbers, job.floats);
  project_kernel<<<dim3(blocks, (unsigned)job.call.views), THREADS, job.views.tiles_y * sizeof(unsigned), job.stream>>>(
      job.views, job.scene, job.labels(), job.call.channels, radii, out.keys.get(), block_counts.get(), counts.summary());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  running_sum(block_counts.get(), out.block_ends.get(), numbers, job);
  return out;
}

template <typename Key>
Buffer<int32_t> sort_packed(const Job& job, const Projected& projected, int64_t count, int bits) {
  const Buffer<Key> keys(count, job.floats), sorted_keys(count, job.floats);
  const Buffer<int32_t> ids(count, job.floats);
  Buffer<int32_t> sorted(count, job.floats);
  pack_kernel<<<dim3(grid(job.scene.count), (unsigned)job.call.views), THREADS, 0, job.stream>>>(
      job.scene.count, projected.keys.get(), projected.block_ends.get(), keys.get(), ids.get());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  sort_pairs(keys.get(), sorted_keys.get(), ids.get(), sorted.get(), count, bits, job);
  return sorted;
}

// Ids of the visible Gaussians, one view after the other, each by (z, index).
inline Buffer<int32_t> sort_by_depth(const Job& job, const Projected& projected, const Counts& counts) {
  if (job.call.views == 1) return sort_packed<uint32_t>(job, projected, counts.splats, 32);
  return sort_packed<uint64_t>(job, projected, counts.splats, 32 + bits_of(job.call.views - 1));
}

// The splats of all views from ids in depth order, see splat_kernel.
inline void make_splats(const Job& job, const Counts& counts, const int32_t* ids, int64_t id_stride, Splat* splats,
                        int32_t* order, const DeviceCounts& device) {
  splat_kernel<<<dim3(grid(counts.most), (unsigned)job.call.views), THREADS, 0, job.stream>>>(
      job.views, job.scene, ids, id_stride, splats, order, device.summary());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// The lists of the tiles in rows [first, end) of all views, in memory that is the caller's.
struct Lists {
  int first, end;
  int64_t entries;
  int32_t* begins;   // (tiles + 1,)
  int32_t* list;     // (entries,) splats, front to back
  int32_t* numbers;  // (entries,) in the order of `list`: the number of an entry among those of its splat, or null
  int32_t* ends;     // (N,) of the numbers of every splat
};

inline void bin_tiles(const Job& job, const Splat* splats, int64_t count, const Lists& lists) {
  const int tiles = (lists.end - lists.first) * job.views.tiles_x;
  {
    const Buffer<int32_t> counts(count, job.floats);
    count_kernel<<<grid(count), THREADS, 0, job.stream>>>(job.views, splats, count, lists.first, lists.end, counts.get());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    running_sum(counts.get(), lists.ends, count, job);
  }
  const int64_t entries = lists.entries;
  const Buffer<uint32_t> keys(entries, job.floats), sorted(entries, job.floats);
  const Buffer<int32_t> values(entries, job.floats), owners(lists.numbers ? entries : 0, job.floats);
  emit_kernel<<<grid(count), THREADS, 0, job.stream>>>(job.views, splats, count, lists.first, lists.end, lists.ends, entries,
                                                       keys.get(), values.get(), lists.numbers ? owners.get() : nullptr);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  sort_pairs(keys.get(), sorted.get(), values.get(), lists.numbers ? lists.numbers : lists.list, entries, bits_of(tiles - 1),
             job);
  begin_kernel<<<grid(tiles + 1), THREADS, 0, job.stream>>>(sorted.get(), entries, tiles, lists.begins);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  if (lists.numbers) {
    owner_kernel<<<grid(entries), THREADS, 0, job.stream>>>(lists.numbers, owners.get(), entries, lists.list);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
}

}  // namespace cuda
}  // namespace gaussian_rasterization
