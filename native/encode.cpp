// An encoding on its own: h_0 or one of its tangents, and the way back to the table. Networks go
// through passes.cpp; this is for those who put the pieces together themselves, and for measuring.
#include <algorithm>

#include "encoding.h"
#include "threads.h"

namespace lamina {
namespace {

constexpr int kBlock = 512;

// Grids: a window of rows is looked up level by level, then laid out by rows.
template <class T>
void encode_grid(const Encoding<T>& e, const T* x, int64_t n, int derivative, T* out, int threads,
                 Watch& watch) {
  const int64_t fair = std::max<int64_t>((n + threads - 1) / threads, kBlock);
  const int64_t window = std::min(fair, e.window_rows());
  std::vector<KeptRows<T>> scratch;
  for (int i = 0; i < threads; ++i) scratch.emplace_back(e, window);
  std::atomic<int64_t> next{0};
  run_team(threads, [&](int thread) {
    KeptRows<T>& kept = scratch[thread];
    for (int64_t row; (row = next.fetch_add(window)) < n && !watch.stopped();) {
      const int rows = static_cast<int>(std::min(window, n - row));
      e.locate(x + row * e.d_in(), nullptr, rows, kept, 0);
      e.look_up(derivative, kept, 0, rows);
      e.lay_out(kept, 0, rows, out + row * e.width(), e.width(), kPanel<T>);
      if (thread == 0) watch.check();
    }
  });
}

// Waves write panels.
template <class T>
void encode_wave(const Encoding<T>& e, const T* x, int64_t n, int derivative, T* out, int threads,
                 Watch& watch) {
  constexpr int P = kPanel<T>;
  constexpr ptrdiff_t stride = (kBlock + 16) * P;
  struct Scratch {
    Aligned<T> raw, panels;
  };
  std::vector<Scratch> scratch;
  for (int i = 0; i < threads; ++i)
    scratch.push_back({Aligned<T>(static_cast<size_t>(kBlock) * e.d_in()),
                       Aligned<T>(static_cast<size_t>(stride) * panels_of(e.width(), P))});
  std::atomic<int64_t> next{0};
  run_team(threads, [&](int thread) {
    Scratch& s = scratch[thread];
    for (int64_t row; (row = next.fetch_add(kBlock)) < n && !watch.stopped();) {
      const int rows = static_cast<int>(std::min<int64_t>(kBlock, n - row));
      e.load(x + row * e.d_in(), nullptr, rows, s.raw.data(), kBlock, 0);
      const Axes by = derivative < 0 ? Axes{} : Axes{}.along(derivative);
      e.derive(by, s.raw.data(), kBlock, 0, rows, s.panels.data(), stride);
      for (int r = 0; r < rows; ++r)
        for (int c = 0; c < e.width(); c += P)
          std::copy_n(s.panels.data() + c / P * stride + static_cast<ptrdiff_t>(r) * P,
                      std::min(P, e.width() - c), out + (row + r) * e.width() + c);
      if (thread == 0) watch.check();
    }
  });
}

}  // namespace

template <class T>
void Model<T>::encode(const T* x, int64_t n, int derivative, T* out, int n_threads,
                      const Poll& poll) const {
  const Encoding<T>& e = *layout_->encoding;
  const int threads = useful_threads(e.flops_a_row() * static_cast<double>(n), n_threads);
  Watch watch(poll);
  (e.grid() ? encode_grid<T> : encode_wave<T>)(e, x, n, derivative, out, threads, watch);
  if (watch.stopped()) throw Interrupted();
}

template <class T>
void Model<T>::encode_backward(const T* x, int64_t n, int derivative, const T* g, T* grad_table,
                               int n_threads, const Poll& poll) const {
  const Encoding<T>& e = *layout_->encoding;
  if (!e.grid()) return;
  const int threads = useful_threads(e.flops_a_row() * static_cast<double>(n), n_threads);
  const int64_t window = std::min(std::max<int64_t>(n, 1), 2 * e.window_rows());
  KeptRows<T> kept(e, window);
  Watch watch(poll);
  for (int64_t first = 0; (first == 0 || first < n) && !watch.stopped(); first += window) {
    const int64_t end = std::min(first + window, n);
    std::atomic<int64_t> next{first};
    run_team(threads, [&](int) {
      for (int64_t row; (row = next.fetch_add(kBlock)) < end;) {
        const int rows = static_cast<int>(std::min<int64_t>(kBlock, end - row));
        e.locate(x + row * e.d_in(), nullptr, rows, kept, row - first);
        e.keep(g + row * e.width(), e.width(), kPanel<T>, rows, kept, row - first);
      }
    });
    std::atomic<int> level{e.n_levels()};  // the largest, which are the last, first
    run_team(threads, [&](int thread) {
      for (int l; (l = level.fetch_sub(1) - 1) >= 0 && !watch.stopped();) {
        T* gradient = grad_table + e.level_offset(l);
        if (first == 0) std::fill_n(gradient, e.level_size(l), T(0));
        e.scatter(l, derivative, kept, static_cast<int>(end - first), gradient, nullptr);
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
