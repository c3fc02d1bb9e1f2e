// Just enough of CUDA to run the kernels of this extension on a CPU, one block after the other, with a fibre per thread.
//
// Barriers, votes and shuffles switch fibres. Wrong synchronisation aborts: barriers in different lines, a thread that returned
// while others wait, empty grids, too much shared memory. Races between barriers are not seen.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define C10_CUDA_CHECK(x) x
#define C10_CUDA_KERNEL_LAUNCH_CHECK()

using std::max;
using std::min;

struct alignas(16) float4 {
  float x, y, z, w;
};

struct dim3 {
  dim3(unsigned x = 1, unsigned y = 1) : x(x), y(y) {}
  unsigned x, y;
};

typedef void* cudaStream_t;

namespace c10 {
namespace cuda {
struct CUDAGuard {
  template <typename Device>
  explicit CUDAGuard(const Device&) {}
  ~CUDAGuard() {}
};
inline cudaStream_t getCurrentCUDAStream() { return nullptr; }
}  // namespace cuda
}  // namespace c10

namespace host {

enum State { RUNNING, AT_BARRIER, AT_WARP_BARRIER, RETURNED };

constexpr size_t STACK = 1 << 18, SHARED_LIMIT = 48 << 10;
constexpr unsigned MAX_THREADS = 1024;

struct Fibre {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  State state;
  int line;
  unsigned votes, shuffles;  // slots alternate: a lane may reach the next exchange before another has read this one
};

inline std::vector<Fibre> fibres;
inline ucontext_t scheduler;
inline unsigned current, threads;
inline dim3 block;
inline std::function<void()> kernel;
inline char* dynamic;
inline double warp_slots[2][MAX_THREADS];
inline int block_slots[2][MAX_THREADS];

inline void fail(const char* what) {
  std::fprintf(stderr, "cuda_on_host: %s\n", what);
  std::abort();
}

inline void wait(State state, int line) {
  fibres[current].state = state, fibres[current].line = line;
  swapcontext(&fibres[current].context, &scheduler);
}

inline void enter() {
  kernel();
  wait(RETURNED, 0);
}

// Let the threads [begin, end) go on if all of them wait at the same barrier.
inline bool release(unsigned begin, unsigned end, State barrier) {
  for (unsigned t = begin; t < end; ++t) {
    if (fibres[t].state != barrier) return false;
    if (fibres[t].line != fibres[begin].line) fail("threads wait at different barriers");
  }
  for (unsigned t = begin; t < end; ++t) fibres[t].state = RUNNING;
  return true;
}

inline void run_block() {
  for (unsigned t = 0; t < threads; ++t) {
    Fibre& f = fibres[t];
    if (!f.stack) f.stack.reset(new char[STACK]);
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get(), f.context.uc_stack.ss_size = STACK, f.context.uc_link = nullptr;
    makecontext(&f.context, enter, 0);
    f.state = RUNNING, f.votes = f.shuffles = 0;
  }
  for (;;) {
    bool progress = false;
    for (unsigned t = 0; t < threads; ++t) {
      if (fibres[t].state != RUNNING) continue;
      current = t, progress = true;
      swapcontext(&scheduler, &fibres[t].context);
    }
    unsigned returned = 0, waiting = 0;
    for (unsigned t = 0; t < threads; ++t) returned += fibres[t].state == RETURNED, waiting += fibres[t].state == AT_BARRIER;
    if (returned == threads) return;
    if (returned && waiting) fail("a thread returned while others wait at a barrier");
    for (unsigned w = 0; w < threads; w += 32) progress |= release(w, w + 32, AT_WARP_BARRIER);
    progress |= release(0, threads, AT_BARRIER);
    if (!progress) fail("deadlock");
  }
}

template <typename Kernel>
void launch(dim3 grid, unsigned size, size_t shared, cudaStream_t, Kernel body) {
  if (!grid.x || !grid.y || grid.y > 65535 || !size || size > MAX_THREADS || size % 32) fail("bad launch");
  if (shared > SHARED_LIMIT) fail("too much shared memory");
  threads = size;
  if (fibres.size() < size) fibres.resize(size);
  kernel = body;
  std::vector<double> memory(shared / sizeof(double) + 1);
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = 0; x < grid.x; ++x) {
      std::memset(memory.data(), 0xff, memory.size() * sizeof(double));
      dynamic = reinterpret_cast<char*>(memory.data()), block.x = x, block.y = y;
      run_block();
    }
  }
}

inline int vote(bool mine, int line) {
  const unsigned slot = fibres[current].votes++ & 1;
  block_slots[slot][current] = mine;
  wait(AT_BARRIER, line);
  return std::count(block_slots[slot], block_slots[slot] + threads, 1);
}

// Every type that is exchanged fits into a double.
template <typename T>
T shuffle(T value, int mask, int line) {
  const unsigned slot = fibres[current].shuffles++ & 1;
  warp_slots[slot][current] = value;
  wait(AT_WARP_BARRIER, line);
  return (T)warp_slots[slot][current ^ mask];
}

inline bool any(bool mine, int line) {
  const unsigned slot = fibres[current].shuffles++ & 1;
  warp_slots[slot][current] = mine;
  wait(AT_WARP_BARRIER, line);
  const double* warp = warp_slots[slot] + current / 32 * 32;
  return std::count(warp, warp + 32, 1.0) > 0;
}

}  // namespace host

#define threadIdx (dim3(host::current, 0))
#define blockIdx (host::block)
#define __syncthreads() host::wait(host::AT_BARRIER, __LINE__)
#define __syncwarp() host::wait(host::AT_WARP_BARRIER, __LINE__)
#define __syncthreads_or(x) (host::vote(x, __LINE__) > 0)
#define __syncthreads_count(x) host::vote(x, __LINE__)
#define __shfl_xor_sync(mask, value, lanes) host::shuffle(value, lanes, __LINE__)
#define __any_sync(mask, x) host::any(x, __LINE__)

template <typename T>
void atomicAdd(T* to, T value) {
  *to += value;
}
template <typename T>
void atomicOr(T* to, T value) {
  *to |= value;
}
template <typename T>
void atomicMax(T* to, T value) {
  *to = std::max(*to, value);
}

inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}

namespace cub {

struct DeviceRadixSort {
  template <typename Key, typename Value>
  static void SortPairs(void* scratch, size_t& bytes, const Key* keys, Key* keys_out, const Value* values, Value* values_out,
                        int64_t count, int, int end_bit, cudaStream_t) {
    bytes = 1;
    if (!scratch) return;
    const Key mask = (Key)((1ull << end_bit) - 1);
    std::vector<int64_t> order(count);
    for (int64_t i = 0; i < count; ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return (keys[a] & mask) < (keys[b] & mask); });
    for (int64_t i = 0; i < count; ++i) keys_out[i] = keys[order[i]], values_out[i] = values[order[i]];
  }
};

struct DeviceScan {
  static void InclusiveSum(void* scratch, size_t& bytes, const int64_t* in, int64_t* out, int64_t count, cudaStream_t) {
    bytes = 1;
    for (int64_t i = 0, sum = 0; scratch && i < count; ++i) out[i] = sum += in[i];
  }
};

}  // namespace cub
