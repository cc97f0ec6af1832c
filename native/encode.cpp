// An encoding on its own: h_0 or one of its tangents, and the way back to the table. Networks go
// through passes.cpp; this is for those who put the pieces together themselves, and for measuring.
#include <algorithm>

#include "encoding.h"
#include "threads.h"

namespace lamina {
namespace {

constexpr int kBlock = 512;
constexpr int64_t kWindow = 65536;  // rows kept at once on the way back

// One thread's coordinates and panels of a block.
template <class T>
struct Scratch {
  ptrdiff_t stride = (kBlock + 16) * kPanel<T>;
  Aligned<T> raw, panels;
  explicit Scratch(const Encoding<T>& e)
      : raw(static_cast<size_t>(kBlock) * e.d_in()),
        panels(static_cast<size_t>(stride) * panels_of(e.width(), kPanel<T>)) {}
};

template <class T>
std::vector<Scratch<T>> scratch_for(const Encoding<T>& e, int threads) {
  std::vector<Scratch<T>> scratch;
  for (int i = 0; i < threads; ++i) scratch.emplace_back(e);
  return scratch;
}

}  // namespace

template <class T>
void Model<T>::encode(const T* x, int64_t n, int derivative, T* out, int n_threads,
                      const Poll& poll) const {
  constexpr int P = kPanel<T>;
  const Encoding<T>& e = *layout_->encoding;
  const int threads = useful_threads(e.flops_a_row() * static_cast<double>(n), n_threads);
  auto scratch = scratch_for(e, threads);
  Watch watch(poll);
  std::atomic<int64_t> next{0};
  run_team(threads, [&](int thread) {
    Scratch<T>& s = scratch[thread];
    for (int64_t row; (row = next.fetch_add(kBlock)) < n && !watch.stopped();) {
      const int rows = static_cast<int>(std::min<int64_t>(kBlock, n - row));
      e.load(x + row * e.d_in(), nullptr, rows, s.raw.data(), kBlock, 0);
      if (derivative < 0)
        e.forward(s.raw.data(), kBlock, 0, rows, s.panels.data(), s.stride);
      else
        e.tangent(derivative, s.raw.data(), kBlock, 0, rows, s.panels.data(), s.stride);
      for (int r = 0; r < rows; ++r)
        for (int c = 0; c < e.width(); c += P)
          std::copy_n(s.panels.data() + c / P * s.stride + static_cast<ptrdiff_t>(r) * P,
                      std::min(P, e.width() - c), out + (row + r) * e.width() + c);
      if (thread == 0) watch.check();
    }
  });
  if (watch.stopped()) throw Interrupted();
}

template <class T>
void Model<T>::encode_backward(const T* x, int64_t n, int derivative, const T* g, T* grad_table,
                               int n_threads, const Poll& poll) const {
  const Encoding<T>& e = *layout_->encoding;
  const int threads = useful_threads(e.flops_a_row() * static_cast<double>(n), n_threads);
  auto scratch = scratch_for(e, threads);
  KeptRows<T> kept(e, std::min(n, kWindow));
  std::fill_n(grad_table, e.n_params(), T(0));
  Watch watch(poll);
  for (int64_t first = 0; first < n && !watch.stopped(); first += kWindow) {
    const int64_t end = std::min(first + kWindow, n);
    std::atomic<int64_t> next{first};
    run_team(threads, [&](int thread) {
      Scratch<T>& s = scratch[thread];
      for (int64_t row; (row = next.fetch_add(kBlock)) < end;) {
        const int rows = static_cast<int>(std::min<int64_t>(kBlock, end - row));
        e.load(x + row * e.d_in(), nullptr, rows, s.raw.data(), kBlock, 0);
        layout_->kernels->gather(g + row * e.width(), e.width(), nullptr, rows, s.panels.data(),
                                 s.stride);
        e.keep(s.raw.data(), kBlock, 0, rows, s.panels.data(), s.stride, kept, row - first);
      }
    });
    std::atomic<int> level{0};
    run_team(threads, [&](int thread) {
      for (int l; (l = level.fetch_add(1)) < e.n_levels() && !watch.stopped();) {
        e.scatter(l, derivative, kept, static_cast<int>(end - first),
                  grad_table + e.level_offset(l), nullptr);
        if (thread == 0) watch.check();
      }
    });
  }
  if (watch.stopped()) throw Interrupted();
}

template void Model<float>::encode(const float*, int64_t, int, float*, int, const Poll&) const;
template void Model<double>::encode(const double*, int64_t, int, double*, int, const Poll&) const;
template void Model<float>::encode_backward(const float*, int64_t, int, const float*, float*, int,
                                            const Poll&) const;
template void Model<double>::encode_backward(const double*, int64_t, int, const double*, double*,
                                             int, const Poll&) const;

}  // namespace lamina
