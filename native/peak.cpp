// How many operations a second this machine can do at best: loops of independent multiply-adds
// that touch registers only, on as many threads as asked for.
#include <algorithm>
#include <atomic>
#include <chrono>

#include "dispatch.h"
#include "engine.h"
#include "kernels_half.h"
#include "threads.h"

namespace lamina {
namespace {

constexpr int64_t kRounds = 2000;  // some 20 us between two looks at the clock

template <class Loop>
double rate(int n_threads, double seconds, Loop loop) {
  using Clock = std::chrono::steady_clock;
  const auto began = Clock::now();
  const auto since = [&] { return std::chrono::duration<double>(Clock::now() - began).count(); };
  std::atomic<int64_t> operations{0};
  run_team(n_threads, [&](int) {
    int64_t own = 0;
    do own += static_cast<int64_t>(loop());
    while (since() < seconds);
    operations.fetch_add(own);
  });
  return static_cast<double>(operations.load()) / since();
}

}  // namespace

double peak_flops(Peak kind, int n_threads, double seconds) {
  const KernelSet& set = current_kernels();
  if (kind == Peak::kFloat32)
    return rate(n_threads, seconds, [&] {
      alignas(64) float sink[32];
      return set.f32->peak(kRounds, sink);
    });
  if (kind == Peak::kFloat64)
    return rate(n_threads, seconds, [&] {
      alignas(64) double sink[16];
      return set.f64->peak(kRounds, sink);
    });
  const HalfKernels* half = half_kernels();
  if (half == nullptr) return 0;
  return rate(n_threads, seconds, [&] {
    half->enter();
    const double done = half->peak(kRounds);
    half->leave();
    return done;
  });
}

}  // namespace lamina
