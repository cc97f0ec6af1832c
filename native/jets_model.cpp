// What a network's derivatives are asked for: values, Jacobian and curvature of the outputs,
// Hessian-vector products, and the gradient of any function of these.
#include <algorithm>

#include "jets.h"
#include "threads.h"

namespace lamina {
namespace {

// Directions that travel together: more would push the streams of a block out of the cache.
constexpr int kMostTangents = 16;

template <class T>
struct JetLane {
  Jets<T> jets;
  Part<T> part;
  Aligned<T> grad_x;     // of a block
  bool started = false;  // the part's weight gradient holds a sum
  JetLane(const Layout<T>& a, int n_tangents, const T* curvature, int64_t rows, bool backward,
          bool gradients)
      : jets(a, n_tangents, curvature, rows, backward),
        part(a, gradients),
        grad_x(static_cast<size_t>(jets.capacity) * a.d_in) {}
};

template <class T>
int threads_for(const Layout<T>& a, int64_t n, double passes, int n_threads) {
  const int useful = useful_threads(passes * a.flops_a_row * static_cast<double>(n), n_threads);
  return static_cast<int>(std::clamp<int64_t>(n, 1, useful));
}

// body(lane, first row, rows) over all blocks; threads claim them.
template <class T, class Body>
void over_blocks(std::vector<std::unique_ptr<JetLane<T>>>& lanes, int64_t n, const Poll& poll,
                 Body body) {
  Watch watch(poll);
  const int64_t block = lanes[0]->jets.capacity;
  std::atomic<int64_t> next{0};
  run_team(static_cast<int>(lanes.size()), [&](int thread) {
    for (int64_t row; (row = next.fetch_add(block)) < n && !watch.stopped();) {
      body(*lanes[thread], row, static_cast<int>(std::min(block, n - row)));
      if (thread == 0) watch.check();
    }
  });
  if (watch.stopped()) throw Interrupted();
}

// Numbers that are kept at once of rows whose gradient a table's owners walk then.
constexpr int64_t kWindow = 1 << 22;

// Forward and backward over all rows. seed(jets, first row, rows) writes d loss / d outputs and
// returns the loss of a block. Rows are shared out by parts, whose gradients are added in order; a
// table's gradient is gathered window by window.
template <class T, class Seed>
double sweep(Layout<T>& a, const T* x, int64_t n, int n_tangents, const T* curvature, T* grad,
             T* grad_x, int n_threads, const Poll& poll, Seed seed) {
  const bool backward = grad || grad_x;
  T* table = grad && a.n_table() > 0 ? grad + a.n_params - a.n_table() : nullptr;
  const bool input = grad_x || table;
  if (input && a.input_transposed_stale) a.transpose(true);
  const int parts = threads_for(a, n, 3.0 * (1 + n_tangents), n_threads);
  const int streams = 1 + n_tangents + (curvature != nullptr);
  const int64_t fit = std::max<int64_t>(kWindow / (streams * a.dims[0]), 1024);
  const int64_t window = table ? std::min(n, fit) : n;
  const int64_t share = (window + parts - 1) / parts;
  std::vector<std::unique_ptr<JetLane<T>>> lanes;
  for (int i = 0; i < parts; ++i)
    lanes.push_back(
        std::make_unique<JetLane<T>>(a, n_tangents, curvature, share, backward, grad != nullptr));
  KeptRows<T> kept;
  if (table) {
    kept = KeptRows<T>(*a.encoding, window, streams);
    std::fill_n(table, a.n_table(), T(0));
  }
  Watch watch(poll);
  int64_t first = 0, size = window;  // of the window at hand
  std::atomic<int> next{0};
  const auto pass = [&](int thread) {
    for (int part; (part = next.fetch_add(1)) < parts;) {
      Jets<T>& jets = lanes[part]->jets;
      Part<T>& own = lanes[part]->part;
      const int64_t begin = first + size * part / parts, end = first + size * (part + 1) / parts;
      for (int64_t row = begin; row < end && !watch.stopped(); row += jets.capacity) {
        const int rows = static_cast<int>(std::min<int64_t>(jets.capacity, end - row));
        jets.load(x + row * a.d_in, nullptr, rows, 0, nullptr);
        jets.forward(own, rows);
        own.loss += seed(jets, row, rows);
        if (backward) jets.backward_rows(own, rows, input, grad != nullptr, lanes[part]->started);
        lanes[part]->started = true;
        if (table) jets.keep(kept, rows, row - first);
        if (grad_x) jets.input_gradient(rows, grad_x + row * a.d_in);
        if (thread == 0) watch.check();
      }
    }
  };
  const auto scatter = [&](int) {
    for (int l; (l = next.fetch_add(1)) < a.encoding->n_levels();)
      a.encoding->scatter_streams(l, curvature, kept, static_cast<int>(size),
                                  table + a.encoding->level_offset(l), nullptr);
  };
  for (; first < n && !watch.stopped(); first += size) {
    size = std::min(window, n - first);
    next = 0;
    run_team(parts, pass);
    if (!table || watch.stopped()) continue;
    next = 0;
    run_team(parts, scatter);
  }
  if (watch.stopped()) throw Interrupted();
  double total = 0;
  for (int part = 0; part < parts; ++part) {
    Part<T>& own = lanes[part]->part;
    total += own.loss;
    if (!grad) continue;
    std::vector<const T*> w, bias;
    for (auto& g : own.gradient) w.push_back(g.data());
    for (auto& g : own.bias_gradient) bias.push_back(g.data());
    a.unpack(grad, w, bias, part > 0);
  }
  return total;
}

// One backward pass an output: d (stream of output o) / d x into out (n, d_out, d_in), where
// `along` (n, d_in) set means the derivatives of the tangents along it, else those of the values.
template <class T>
void reverse(Layout<T>& a, const T* x, const T* along, int64_t n, T* values, T* out, int n_threads,
             const Poll& poll) {
  const int d_out = a.dims.back(), d_in = a.d_in, tangents = along ? 1 : 0;
  if (a.input_transposed_stale) a.transpose(true);
  const int threads = threads_for(a, n, (1.0 + d_out) * (1 + tangents), n_threads);
  std::vector<std::unique_ptr<JetLane<T>>> lanes;
  for (int i = 0; i < threads; ++i)
    lanes.push_back(std::make_unique<JetLane<T>>(a, tangents, nullptr, (n + threads - 1) / threads,
                                                 true, false));
  over_blocks(lanes, n, poll, [&](JetLane<T>& lane, int64_t row, int rows) {
    Jets<T>& jets = lane.jets;
    jets.load(x + row * d_in, nullptr, rows, 0, along ? along + row * d_in : nullptr);
    jets.forward(lane.part, rows);
    if (values) jets.copy_out(jets.h, a.depth, 0, rows, values + row * d_out, d_out, 1);
    for (int k = 0; k < d_out; ++k) {
      jets.clear_seeds(rows);
      for (int r = 0; r < rows; ++r) *jets.at(jets.delta, a.depth, tangents, r, rows, k) = T(1);
      jets.backward_rows(lane.part, rows, true, false, false);
      jets.input_gradient(rows, lane.grad_x.data());
      for (int r = 0; r < rows; ++r)
        std::copy_n(lane.grad_x.data() + static_cast<ptrdiff_t>(r) * d_in, d_in,
                    out + ((row + r) * d_out + k) * d_in);
    }
  });
}

}  // namespace

template <class T>
void Model<T>::jet(const T* x, int64_t n, const T* coefficients, T* values, T* jacobian,
                   T* curvature, int n_threads, const Poll& poll) {
  Layout<T>& a = *layout_;
  const int d_out = a.dims.back(), d_in = a.d_in;
  if (n == 0) return;
  if (!curvature && jacobian && d_out < d_in)
    return reverse(a, x, static_cast<const T*>(nullptr), n, values, jacobian, n_threads, poll);
  const int most = std::min(d_in, kMostTangents);
  const int threads = threads_for(a, n, 1.0 + d_in, n_threads);
  const int64_t share = (n + threads - 1) / threads;
  const int64_t total = static_cast<int64_t>(n) * d_out;
  if (curvature) std::fill_n(curvature, total, T(0));
  // The operator is a sum over directions, so groups of them can pass one after the other.
  for (int first = 0; first < d_in; first += most) {
    const int count = std::min(most, d_in - first);
    std::vector<std::unique_ptr<JetLane<T>>> lanes;
    for (int i = 0; i < threads; ++i)
      lanes.push_back(std::make_unique<JetLane<T>>(
          a, count, curvature ? coefficients + first : nullptr, share, false, false));
    over_blocks(lanes, n, poll, [&](JetLane<T>& lane, int64_t row, int rows) {
      Jets<T>& jets = lane.jets;
      jets.load(x + row * d_in, nullptr, rows, first, nullptr);
      jets.forward(lane.part, rows);
      const int64_t at = row * d_out;
      if (values && first == 0) jets.copy_out(jets.h, a.depth, 0, rows, values + at, d_out, 1);
      for (int j = 0; jacobian && j < count; ++j)
        jets.copy_out(jets.h, a.depth, 1 + j, rows, jacobian + at * d_in + first + j,
                      static_cast<ptrdiff_t>(d_out) * d_in, d_in);
      if (!curvature) return;
      for (int r = 0; r < rows; ++r)
        for (int k = 0; k < d_out; ++k)
          curvature[at + static_cast<int64_t>(r) * d_out + k] +=
              *jets.at(jets.h, a.depth, 1 + count, r, rows, k);
    });
  }
}

template <class T>
void Model<T>::jet_backward(const T* x, int64_t n, const T* coefficients, const T* d_values,
                            const T* d_jacobian, const T* d_curvature, T* grad, T* grad_x,
                            int n_threads, const Poll& poll) {
  Layout<T>& a = *layout_;
  const int d_out = a.dims.back(), d_in = a.d_in;
  const int n_tangents = d_jacobian || d_curvature ? d_in : 0;
  sweep(a, x, n, n_tangents, d_curvature ? coefficients : nullptr, grad, grad_x, n_threads, poll,
        [&](Jets<T>& jets, int64_t row, int rows) {
          jets.clear_seeds(rows);
          for (int r = 0; r < rows; ++r)
            for (int k = 0; k < d_out; ++k) {
              const int64_t at = (row + r) * d_out + k;
              auto seed = [&](int s) -> T& { return *jets.at(jets.delta, a.depth, s, r, rows, k); };
              if (d_values) seed(0) = d_values[at];
              for (int j = 0; d_jacobian && j < d_in; ++j) seed(1 + j) = d_jacobian[at * d_in + j];
              if (d_curvature) seed(1 + d_in) = d_curvature[at];
            }
          return 0.0;
        });
}

template <class T>
void Model<T>::hessian_vector(const T* x, const T* v, int64_t n, T* out, int n_threads,
                              const Poll& poll) {
  if (n > 0) reverse(*layout_, x, v, n, static_cast<T*>(nullptr), out, n_threads, poll);
}

template <class T>
double Model<T>::evaluate_derivatives(const Rows<T>& rows, const LossSpec& spec, T* grad, T* grad_x,
                                      int n_threads, const Poll& poll) {
  Layout<T>& a = *layout_;
  const LossColumns<T> columns(a, spec, rows.output_weight);
  double weight = static_cast<double>(rows.n);
  if (rows.row_weight) {
    weight = 0;
    for (int64_t i = 0; i < rows.n; ++i) weight += static_cast<double>(rows.row_weight[i]);
  }
  const double scale = weight > 0 ? 1.0 / (weight * columns.divisor) : 0.0;
  return scale * sweep(a, rows.x, rows.n, a.d_in, static_cast<const T*>(nullptr), grad, grad_x,
                       n_threads, poll, [&](Jets<T>& jets, int64_t row, int count) {
                         return jet_loss(jets, count, spec, columns, rows, row, nullptr, scale,
                                         grad || grad_x);
                       });
}

#define LAMINA_INSTANTIATE(T)                                                                     \
  template void Model<T>::jet(const T*, int64_t, const T*, T*, T*, T*, int, const Poll&);         \
  template void Model<T>::jet_backward(const T*, int64_t, const T*, const T*, const T*, const T*, \
                                       T*, T*, int, const Poll&);                                 \
  template void Model<T>::hessian_vector(const T*, const T*, int64_t, T*, int, const Poll&);      \
  template double Model<T>::evaluate_derivatives(const Rows<T>&, const LossSpec&, T*, T*, int,    \
                                                 const Poll&);
LAMINA_INSTANTIATE(float)
LAMINA_INSTANTIATE(double)

}  // namespace lamina
