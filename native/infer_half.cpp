// The forward pass in bfloat16: threads claim blocks of rows, each of which goes through all layers
// at once. Products come in blocks of 32 rows, so that a single row pays for 32.
#include <algorithm>
#include <atomic>

#include "dispatch.h"
#include "half.h"
#include "threads.h"

namespace lamina {

// Weights as last packed, and buffers that are lent out again and again.
struct HalfForwardState {
  ForkSafeMutex mutex;
  uint64_t version = 0;
  std::unique_ptr<HalfLayout> weights;
  std::vector<std::unique_ptr<HalfBuffers>> spare;

  const HalfLayout& packed(Layout<float>& layout) {
    std::lock_guard<ForkSafeMutex> lock(mutex);
    const HalfKernels& kernels = *half_kernels();
    if (!weights || &weights->kernels() != &kernels)
      weights = std::make_unique<HalfLayout>(layout, kernels, false), version = layout.version - 1;
    if (version != layout.version) weights->pack(), version = layout.version;
    return *weights;
  }
  std::unique_ptr<HalfBuffers> borrow(const Layout<float>& layout, int rows) {
    {
      std::lock_guard<ForkSafeMutex> lock(mutex);
      for (auto& b : spare)
        if (b->capacity == half_rows(rows)) {
          std::swap(b, spare.back());
          auto found = std::move(spare.back());
          spare.pop_back();
          return found;
        }
    }
    return std::make_unique<HalfBuffers>(layout, rows, false);
  }
  void give_back(std::unique_ptr<HalfBuffers> buffers) {
    std::lock_guard<ForkSafeMutex> lock(mutex);
    if (spare.size() < 8) spare.push_back(std::move(buffers));
  }
};

void forward_half(Layout<float>& a, const float* x, int64_t n, float* out, int n_threads,
                  const Poll& poll) {
  if (n == 0) return;
  {
    std::lock_guard<ForkSafeMutex> lock(a.spare_mutex);
    if (!a.half) a.half = std::make_shared<HalfForwardState>();
  }
  HalfForwardState& state = *a.half;
  const HalfLayout& half = state.packed(a);
  const int d_out = a.dims.back();
  const int threads = useful_threads(a.flops_a_row * static_cast<double>(n) / 2, n_threads);
  const int64_t fair = threads == 1 ? n : (n + 4 * threads - 1) / (4 * threads);
  const int block = half_rows(static_cast<int>(std::min<int64_t>(fair, half.block_rows())));
  std::vector<std::unique_ptr<HalfBuffers>> buffers;
  for (int i = 0; i < threads; ++i) buffers.push_back(state.borrow(a, block));
  Watch watch(poll);
  std::atomic<int64_t> next{0};
  run_team(threads, [&](int thread) {
    const HalfThread tiles(&half);
    HalfBuffers& b = *buffers[thread];
    for (int64_t row; (row = next.fetch_add(block)) < n && !watch.stopped();) {
      const int rows = static_cast<int>(std::min<int64_t>(block, n - row));
      half.load_rows(b, x + row * a.d_in, nullptr, 0, rows);
      half.forward_rows(b, 0, rows, nullptr, 0);
      float* y = b.wide.h[a.depth].data();
      a.kernels->output(a.output, y, b.stride, rows, d_out);
      copy_out(y, b.stride, rows, d_out, out + row * d_out);
      if (thread == 0) watch.check();
    }
  });
  for (auto& b : buffers) state.give_back(std::move(b));
  if (watch.stopped()) throw Interrupted();
}

}  // namespace lamina
