// The forward pass as users call it: a row at once, a few rows, or millions.
//
// Three schedules, of which none changes a row's arithmetic or its order, so that a row's bits do
// not depend on the choice:
//   alone   one block on the calling thread: work for which another would come too late
//   split   few rows through large weights: the threads share each layer's output panels, so that
//           each reads its part of the weights only, from its own cache
//   blocks  many rows: the threads claim blocks of them, and each block goes through all layers
#include <algorithm>

#include "layout.h"
#include "threads.h"

namespace lamina {
namespace {

// Rows up to which the weights' way from memory, or the short register tiles that blocks of few
// rows would leave, cost more than a barrier a layer (benchmarks/inference.py).
constexpr int64_t kSplitRows = 128;

template <class T>
struct Pass {
  const Layout<T>& layout;
  const T* x;
  T* out;

  // Output unit and copy, for rows [row0, row0 + rows) of the buffers, which are x's `first` on.
  void finish(Buffers<T>& b, int64_t first, int row0, int rows) const {
    const Layout<T>& a = layout;
    const int d_out = a.dims.back();
    T* y = b.h[a.depth].data() + static_cast<ptrdiff_t>(row0) * Layout<T>::P;
    a.kernels->output(a.output, y, b.stride, rows, d_out);
    copy_out(y, b.stride, rows, d_out, out + first * d_out);
  }
  void block(Lane<T>& lane, int64_t row, int rows) const {
    layout.load_rows(lane.buffers, x + row * layout.d_in, nullptr, 0, rows);
    layout.forward_rows(lane.buffers, lane.part, 0, rows, nullptr, 0);
    finish(lane.buffers, row, 0, rows);
  }

  void alone(int rows) const {
    FlushDenormals flush;
    auto lane = layout.borrow(rows, false);
    block(*lane, 0, rows);
    layout.give_back(std::move(lane));
  }

  // A phase a layer. A layer of fewer panels than threads, as the last one often is, shares out
  // the rows instead; the output unit wants whole rows, so it may need a phase of its own.
  void split(int rows, int threads, Watch& watch) const {
    const Layout<T>& a = layout;
    auto lanes = borrow_all(a, threads, rows, false);
    Buffers<T>& b = lanes[0]->buffers;
    auto by_panels = [&](int l) { return a.layer(l).out_panels >= threads; };
    const bool finish_apart = by_panels(a.depth);
    const int n_phases = a.depth + finish_apart;
    a.load_rows(b, x, nullptr, 0, rows);
    Phases phases(threads);
    run_team(threads, [&](int thread) {
      phases.work(
          thread,
          [&](int64_t phase, int i) {
            const int l = static_cast<int>(phase) + 1;
            if (thread == 0) watch.check();
            const bool panels = l <= a.depth && by_panels(l);
            const int64_t count = panels ? a.layer(l).out_panels : rows;
            const int begin = static_cast<int>(count * i / threads);
            const int end = static_cast<int>(count * (i + 1) / threads);
            if (begin == end) return;
            Part<T>& part = lanes[thread]->part;
            if (panels) return a.layer_rows(b, part, l, begin, end, 0, rows, nullptr, 0, nullptr);
            if (l <= a.depth)
              a.layer_rows(b, part, l, 0, a.layer(l).out_panels, begin, end - begin, nullptr, 0,
                           nullptr);
            if (l >= a.depth) finish(b, begin, begin, end - begin);
          },
          [&](int64_t phase) { return phase + 1 < n_phases && !watch.stopped(); });
    });
    return_all(a, lanes);
  }

  // Several blocks a thread, so that one that is slow or late delays the others by little.
  void blocks(int64_t n, int threads, Watch& watch) const {
    auto lanes = borrow_all(layout, threads, n, false);
    const int64_t capacity = lanes[0]->buffers.capacity;
    const int64_t fair = (n + 4 * threads - 1) / (4 * threads);
    const int64_t step = threads == 1 ? capacity : std::clamp<int64_t>(fair, 16, capacity);
    std::atomic<int64_t> next{0};
    run_team(threads, [&](int thread) {
      for (int64_t row; (row = next.fetch_add(step)) < n && !watch.stopped();) {
        block(*lanes[thread], row, static_cast<int>(std::min(step, n - row)));
        if (thread == 0) watch.check();
      }
    });
    return_all(layout, lanes);
  }
};

}  // namespace

template <class T>
void Model<T>::forward(const T* x, int64_t n, T* out, int n_threads, const Poll& poll) const {
  const Layout<T>& a = *layout_;
  const int threads = useful_threads(a.flops_a_row * static_cast<double>(n), n_threads);
  const Pass<T> pass{a, x, out};
  if (n == 0) return;
  if (a.members) return member_outputs(a, x, n, out, threads, poll);
  if (threads == 1 && n <= a.block_rows) return pass.alone(static_cast<int>(n));
  Watch watch(poll);
  if (threads > 1 && n <= std::min<int64_t>(kSplitRows, a.block_rows))
    pass.split(static_cast<int>(n), threads, watch);
  else
    pass.blocks(n, threads, watch);
  if (watch.stopped()) throw Interrupted();
}

template void Model<float>::forward(const float*, int64_t, float*, int, const Poll&) const;
template void Model<double>::forward(const double*, int64_t, double*, int, const Poll&) const;

}  // namespace lamina
