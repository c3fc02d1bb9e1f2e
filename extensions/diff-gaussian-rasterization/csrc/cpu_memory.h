// Memory of the CPU backends: large pages, zeros, aligned scratch space.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gaussian_rasterization {

// Ask for large pages behind big fresh memory: faulting it in page by page can cost more than rendering into it.
inline void prefer_large_pages(void* memory, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = 2u << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) / page * page;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

inline at::Tensor empty_large(at::IntArrayRef sizes, const at::TensorOptions& options) {
  at::Tensor t = at::empty(sizes, options);
  prefer_large_pages(t.data_ptr(), t.nbytes());
  return t;
}

inline at::Tensor zeros_large(at::IntArrayRef sizes, const at::TensorOptions& options) {
  at::Tensor t = empty_large(sizes, options);
  // by one thread: several that fault in large pages at once wait for each other
  if (t.nbytes() > 0) std::memset(t.data_ptr(), 0, t.nbytes());
  return t;
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};

template <typename T>
std::unique_ptr<T[], Free> zeroed(int64_t count) {
  void* memory = std::calloc(std::max<int64_t>(count, 1), sizeof(T));
  TORCH_CHECK_WITH(OutOfMemoryError, memory, "rasterize: no memory for ", count * (int64_t)sizeof(T),
                   " bytes of gradient rows");
  prefer_large_pages(memory, count * sizeof(T));
  return std::unique_ptr<T[], Free>(static_cast<T*>(memory));
}

struct AlignedBuffer {
  explicit AlignedBuffer(size_t bytes) : memory(std::aligned_alloc(64, (bytes + 63) / 64 * 64)) {
    TORCH_CHECK_WITH(OutOfMemoryError, memory.get(), "gaussian_rasterization: no memory for ", bytes,
                     " bytes of scratch space");
  }
  std::unique_ptr<void, Free> memory;
};

}  // namespace gaussian_rasterization
