// Just enough of CUDA to run the kernels of this extension on a CPU, one block after the other, with a fibre per thread.
//
// Barriers, votes and shuffles switch fibres. Wrong synchronisation aborts: barriers in different lines, a thread that returned
// while others wait, empty grids, too much shared memory. Races between barriers are not seen.
#pragma once

#include <setjmp.h>
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
void stream_synchronize(cudaStream_t);
}  // namespace cuda
}  // namespace c10

namespace host {

enum State { RUNNING, AT_BARRIER, AT_WARP_BARRIER, RETURNED };

constexpr size_t STACK = 1 << 18, SHARED_LIMIT = 48 << 10;
constexpr unsigned MAX_THREADS = 1024;

// A fibre begins in a context of its own and is switched by jumps: unlike swapcontext these make no system call.
struct Fibre {
  ucontext_t context;
  jmp_buf place;
  bool begun;
  std::unique_ptr<char[]> stack;
  State state;
  int line;
  unsigned votes, shuffles;  // slots alternate: a lane may reach the next exchange before another has read this one
};

inline std::vector<Fibre> fibres;
inline jmp_buf scheduler;
inline long launches, waits;  // kernels and library calls launched, times that the host waited for the device
inline unsigned current, threads;
inline dim3 block, blocks;
inline std::function<void()> kernel;
inline char* dynamic;
inline double warp_slots[2][MAX_THREADS];
inline int block_slots[2][MAX_THREADS];

inline void fail(const char* what) {
  std::fprintf(stderr, "cuda_on_host: %s\n", what);
  std::abort();
}

inline void wait(State state, int line) {
  Fibre& mine = fibres[current];
  mine.state = state, mine.line = line;
  if (_setjmp(mine.place) == 0) _longjmp(scheduler, 1);
}

inline void enter() {
  kernel();
  wait(RETURNED, 0);
}

// Let the thread `current` run to its next barrier.
inline void resume() {
  Fibre& f = fibres[current];
  if (_setjmp(scheduler)) return;
  if (f.begun) _longjmp(f.place, 1);
  f.begun = true;
  setcontext(&f.context);
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
    f.state = RUNNING, f.votes = f.shuffles = 0, f.begun = false;
  }
  for (;;) {
    bool progress = false;
    for (unsigned t = 0; t < threads; ++t) {
      if (fibres[t].state != RUNNING) continue;
      current = t, progress = true;
      resume();
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
  ++launches;
  threads = size;
  if (fibres.size() < size) fibres.resize(size);
  kernel = body;
  blocks = grid;
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

inline unsigned ballot(bool mine, int line) {
  const unsigned slot = fibres[current].shuffles++ & 1;
  warp_slots[slot][current] = mine;
  wait(AT_WARP_BARRIER, line);
  const double* warp = warp_slots[slot] + current / 32 * 32;
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane) bits |= (unsigned)(warp[lane] != 0.0) << lane;
  return bits;
}

}  // namespace host

#define threadIdx (dim3(host::current, 0))
#define blockIdx (host::block)
#define gridDim (host::blocks)
#define __syncthreads() host::wait(host::AT_BARRIER, __LINE__)
#define __syncwarp() host::wait(host::AT_WARP_BARRIER, __LINE__)
#define __syncthreads_or(x) (host::vote(x, __LINE__) > 0)
#define __syncthreads_count(x) host::vote(x, __LINE__)
#define __shfl_xor_sync(mask, value, lanes) host::shuffle(value, lanes, __LINE__)
#define __any_sync(mask, x) (host::ballot(x, __LINE__) != 0)
#define __ballot_sync(mask, x) host::ballot(x, __LINE__)
#define __popc(x) __builtin_popcount(x)
#define __ffs(x) __builtin_ffs(x)
#define __clz(x) ((x) ? __builtin_clz(x) : 32)

inline void c10::cuda::stream_synchronize(cudaStream_t) { ++host::waits; }

// For tests: read and reset the counters of the library.
extern "C" __attribute__((used, visibility("default"))) inline void cuda_on_host_counts(long* launches, long* waits) {
  *launches = host::launches, *waits = host::waits;
  host::launches = host::waits = 0;
}

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
                        int count, int, int end_bit, cudaStream_t) {
    bytes = 1;
    if (!scratch) return;
    ++host::launches;
    const Key mask = (Key)(~0ull >> (64 - end_bit));
    std::vector<int64_t> order(count);
    for (int64_t i = 0; i < count; ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return (keys[a] & mask) < (keys[b] & mask); });
    for (int64_t i = 0; i < count; ++i) keys_out[i] = keys[order[i]], values_out[i] = values[order[i]];
  }
};

struct DeviceScan {
  template <typename T>
  static void InclusiveSum(void* scratch, size_t& bytes, const T* in, T* out, int count, cudaStream_t) {
    bytes = 1;
    if (!scratch) return;
    ++host::launches;
    T sum = 0;
    for (int i = 0; i < count; ++i) out[i] = sum += in[i];
  }
};

}  // namespace cub
