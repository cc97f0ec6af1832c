// What a network does outside training beside the forward pass (infer.cpp): parameters in and out,
// trace, loss and gradients.
#include <algorithm>

#include "encoding.h"
#include "jets.h"
#include "threads.h"

namespace lamina {
namespace {

// Rows whose gradient a table's owners walk at once.
constexpr int64_t kWindow = 65536;

// body(first row, rows) over [begin, end) in blocks; stops early when asked to.
template <class F>
void in_blocks(int64_t begin, int64_t end, int block, Watch& watch, bool ask, F body) {
  for (int64_t row = begin; row < end && !watch.stopped(); row += block) {
    body(row, static_cast<int>(std::min<int64_t>(block, end - row)));
    if (ask) watch.check();
  }
}

}  // namespace

template <class T>
Model<T>::Model(const Spec& spec) : layout_(std::make_unique<Layout<T>>(spec)) {}
template <class T>
Model<T>::~Model() = default;
template <class T>
int64_t Model<T>::n_params() const {
  return layout_->n_params;
}
template <class T>
double Model<T>::flops_a_row() const {
  return layout_->flops_a_row;
}

template <class T>
int64_t Model<T>::n_table() const {
  return layout_->n_table();
}

template <class T>
void Model<T>::set_parameters(const T* theta) {
  std::vector<T*> w, bias;
  for (auto& l : layout_->layers) w.push_back(l.w.data()), bias.push_back(l.bias.data());
  layout_->pack(theta, w, bias);
  if (const int64_t table = layout_->n_table())
    std::copy_n(theta + layout_->n_params - table, table, layout_->encoding->table());
  layout_->transpose(true);
  ++layout_->version;
}
template <class T>
void Model<T>::get_parameters(T* theta) const {
  std::vector<const T*> w, bias;
  for (const auto& l : layout_->layers) w.push_back(l.w.data()), bias.push_back(l.bias.data());
  layout_->unpack(theta, w, bias, false);
  if (const int64_t table = layout_->n_table())
    std::copy_n(layout_->encoding->table(), table, theta + layout_->n_params - table);
}

template <class T>
void Model<T>::trace(const T* x, int64_t n, const std::vector<T*>& z, const std::vector<T*>& h,
                     const Poll& poll) const {
  const Layout<T>& a = *layout_;
  auto lane = a.borrow(n, false);
  Buffers<T>& b = lane->buffers;
  Watch watch(poll);
  FlushDenormals flush;
  in_blocks(0, n, b.capacity, watch, true, [&](int64_t row, int rows) {
    auto keep = [&](int l, T* out) {
      copy_out(b.h[l].data(), b.stride, rows, a.dims[l], out + row * a.dims[l]);
    };
    const std::function<void(int, bool)> seen = [&](int l, bool after) {
      keep(l, (after ? h : z)[l - 1]);
    };
    a.load_rows(b, x + row * a.d_in, nullptr, 0, rows);
    a.forward_rows(b, lane->part, 0, rows, nullptr, 0, &seen);
    a.kernels->output(a.output, b.h[a.depth].data(), b.stride, rows, a.dims.back());
    keep(a.depth, h[a.depth - 1]);
  });
  a.give_back(std::move(lane));
  if (watch.stopped()) throw Interrupted();
}

template <class T>
double Model<T>::evaluate(const Rows<T>& rows, const LossSpec& spec, T* grad, T* grad_x,
                          int n_threads, const Poll& poll) {
  Layout<T>& a = *layout_;
  if (compares_derivatives(spec.loss))
    return evaluate_derivatives(rows, spec, grad, grad_x, n_threads, poll);
  if ((grad_x || (grad && a.n_table() > 0)) && a.input_transposed_stale) a.transpose(true);
  const bool backward = grad || grad_x;
  const int parts = useful_threads(3 * a.flops_a_row * static_cast<double>(rows.n), n_threads);
  const LossColumns<T> loss(a, spec, rows.output_weight);
  double weight = static_cast<double>(rows.n);
  if (rows.row_weight) {
    weight = 0;
    for (int64_t i = 0; i < rows.n; ++i) weight += static_cast<double>(rows.row_weight[i]);
  }
  const double scale = weight > 0 ? 1.0 / (weight * loss.divisor) : 0.0;
  auto lanes = borrow_all(a, parts, rows.n, true);
  for (auto& lane : lanes) {
    lane->part.clear_bias_gradients();
    lane->part.loss = 0;
    if (grad && lane->part.gradient[0].size() == 0)
      for (int l = 1; l <= a.depth; ++l)
        lane->part.gradient[l - 1] = Aligned<T>(a.layer(l).w.size());
  }
  Watch watch(poll);
  // A table's gradient is gathered window by window of the rows; nothing else keeps rows.
  T* table = grad && a.n_table() > 0 ? grad + a.n_params - a.n_table() : nullptr;
  const int64_t window = table ? std::min(rows.n, kWindow) : rows.n;
  KeptRows<T> kept;
  if (table) {
    kept = KeptRows<T>(*a.encoding, window);
    std::fill_n(table, a.n_table(), T(0));
  }
  std::vector<char> started(parts, 0);  // the part's weight gradient holds a sum
  int64_t first = 0, size = window;     // of the window at hand
  std::atomic<int> next{0};
  const auto pass = [&](int thread) {
    for (int part; (part = next.fetch_add(1)) < parts;) {
      Lane<T>& lane = *lanes[part];
      Buffers<T>& b = lane.buffers;
      const int64_t begin = first + size * part / parts, end = first + size * (part + 1) / parts;
      if (table) {
        const int count = static_cast<int>(end - begin);
        a.encoding->locate(rows.x + begin * a.d_in, nullptr, count, kept, begin - first);
        a.encoding->look_up(-1, kept, begin - first, count);
      }
      in_blocks(begin, end, b.capacity, watch, thread == 0, [&](int64_t row, int count) {
        if (table)
          a.encoding->lay_out(kept, row - first, count, b.h[0].data(), kPanel<T>, b.stride);
        else
          a.load_rows(b, rows.x + row * a.d_in, nullptr, 0, count);
        a.load_targets(b, rows, row, nullptr, 0, count, loss.repeat);
        a.forward_rows(b, lane.part, 0, count, nullptr, 0);
        lane.part.loss += a.loss_rows(b, lane.part, 0, count, loss, rows, scale, backward);
        if (backward)
          a.backward_rows(b, lane.part, 0, count, grad_x || table, grad != nullptr, started[part]);
        started[part] = 1;
        const T* delta = b.delta[0].data();
        if (table) a.encoding->keep(delta, kPanel<T>, b.stride, count, kept, row - first);
        if (grad_x && a.encoding)
          a.encoding->input_gradient(table ? kept.u.data() : b.raw.data(),
                                     table ? static_cast<int>(kept.capacity) : b.capacity,
                                     table ? static_cast<int>(row - first) : 0, count, delta,
                                     b.stride, grad_x + row * a.d_in);
        else if (grad_x)
          copy_out(delta, b.stride, count, a.d_in, grad_x + row * a.d_in);
      });
    }
  };
  const auto scatter = [&](int) {
    for (int l; (l = next.fetch_add(1)) < a.encoding->n_levels();)
      a.encoding->scatter(l, -1, kept, static_cast<int>(size), table + a.encoding->level_offset(l),
                          nullptr);
  };
  for (; first < rows.n && !watch.stopped(); first += size) {
    size = std::min(window, rows.n - first);
    next = 0;
    run_team(parts, pass);
    if (!table || watch.stopped()) continue;
    next = 0;
    run_team(parts, scatter);
  }
  double total = 0;
  for (int part = 0; part < parts; ++part) {
    Part<T>& p = lanes[part]->part;
    total += p.loss;
    if (!grad || watch.stopped()) continue;
    if (!started[part])
      for (auto& g : p.gradient) g.zero();
    std::vector<const T*> w, bias;
    for (auto& g : p.gradient) w.push_back(g.data());
    for (auto& g : p.bias_gradient) bias.push_back(g.data());
    a.unpack(grad, w, bias, part > 0);
  }
  return_all(a, lanes);
  if (watch.stopped()) throw Interrupted();
  return total * scale;
}

template class Model<float>;
template class Model<double>;

}  // namespace lamina
