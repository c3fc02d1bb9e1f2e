"""What the machine can do at best: fused multiply-adds and memory copies, measured with a few lines of C or with cuBLAS."""

import ctypes
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

SOURCE = r"""
#include <string.h>
#include <time.h>
#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
typedef float v __attribute__((vector_size(BYTES)));
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
volatile float sink;

/* twelve independent chains hide the latency of a fused multiply-add; returns flop per second */
double fma_rate(long rounds) {
  v a[12], x, y;
  x = (v){} + 0.999f, y = (v){} + 1e-3f;
  for (int i = 0; i < 12; ++i) a[i] = y * (float)i;
  const double start = now();
  for (long r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) a[i] = a[i] * x + y;
  }
  const double seconds = now() - start;
  v total = a[0];
  for (int i = 1; i < 12; ++i) total += a[i];
  for (int l = 0; l < BYTES / 4; ++l) sink += total[l];
  return rounds * 12.0 * 2 * (BYTES / 4) / seconds;
}

/* bytes read plus bytes written per second */
double copy_rate(char* to, const char* from, long bytes, int times) {
  memcpy(to, from, bytes);
  const double start = now();
  for (int i = 0; i < times; ++i) { memcpy(to, from, bytes); sink += to[i]; }
  return 2.0 * bytes * times / (now() - start);
}
"""


def cpu_peak(threads: int, compiler: str = 'cc') -> dict:
    """Best of three: ``fma_gflops`` (float32) and ``copy_gbps`` (read plus write) of so many threads together."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / 'peak.c', Path(folder) / 'peak.so'
        source.write_text(SOURCE)
        flags = ['-O3', '-march=native', '-ffp-contract=fast', '-shared', '-fPIC']
        subprocess.run([compiler, *flags, str(source), '-o', str(library)], check=True)
        code = ctypes.CDLL(str(library))
    code.fma_rate.restype = code.copy_rate.restype = ctypes.c_double
    code.fma_rate.argtypes = [ctypes.c_long]
    code.copy_rate.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_int]
    size = 256 << 20
    buffers = [(torch.ones(size // 4), torch.ones(size // 4)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:  # calls through ctypes run without the lock of the interpreter

        def best(work):
            return max(sum(pool.map(work, range(threads))) for _ in range(3)) / 1e9

        return dict(
            fma_gflops=best(lambda _: code.fma_rate(30_000_000)),
            copy_gbps=best(lambda i: code.copy_rate(buffers[i][0].data_ptr(), buffers[i][1].data_ptr(), size, 6)),
        )


def cuda_peak() -> dict:
    """The same of the current GPU: float32 matrix products without TF32, and device-to-device copies."""
    torch.backends.cuda.matmul.allow_tf32 = False
    a, b = (torch.randn(8192, 8192, device='cuda') for _ in range(2))
    x, y = (torch.ones(1 << 29, device='cuda') for _ in range(2))

    def seconds(work):
        times = []
        for _ in range(8):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            work()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return min(times[2:])

    return dict(
        fma_gflops=2 * 8192**3 / seconds(lambda: torch.mm(a, b)) / 1e9,
        copy_gbps=2 * 4 * x.numel() / seconds(lambda: y.copy_(x)) / 1e9,
    )
