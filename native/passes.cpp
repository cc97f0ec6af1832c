// Forward, loss and backward over a block of rows; every buffer is indexed by the block's first
// row.
#include <algorithm>

#include "encoding.h"

namespace lamina {
namespace {

// Rows of a panel between a product and its activation's sweep: 7 KiB, four tiles of 14.
constexpr int kSweptRows = 56;

}  // namespace

template <class T>
void Layout<T>::load_rows(Buffers<T>& b, const T* x, const int32_t* index, int row0,
                          int rows) const {
  T* h = b.h[0].data() + static_cast<ptrdiff_t>(row0) * P;
  if (!encoding) return kernels->gather(x, d_in, index, rows, h, b.stride);
  encoding->load(x, index, rows, b.raw.data(), b.capacity, row0);
  encoding->forward(b.raw.data(), b.capacity, row0, rows, h, b.stride);
}

template <class T>
void Layout<T>::load_targets(Buffers<T>& b, const Rows<T>& r, int64_t first, const int32_t* index,
                             int row0, int rows, int repeat) const {
  auto source = [&](int i) { return index ? static_cast<int64_t>(index[i]) : first + i; };
  if (r.row_weight)
    for (int i = 0; i < rows; ++i) b.row_weight.data()[row0 + i] = r.row_weight[source(i)];
  if (r.classes) {
    for (int i = 0; i < rows; ++i) b.classes.data()[row0 + i] = r.classes[source(i)];
    return;
  }
  const int columns = dims.back() / repeat;
  T* y = b.y.data() + static_cast<ptrdiff_t>(row0) * P;
  if (repeat == 1)
    return kernels->gather(r.values + (index ? 0 : first * columns), columns, index, rows, y,
                           b.stride);
  for (int i = 0; i < rows; ++i) {
    const T* from = r.values + source(i) * columns;
    for (int c = 0; c < columns * repeat; ++c)
      y[c / P * b.stride + static_cast<ptrdiff_t>(i) * P + c % P] = from[c / repeat];
  }
}

// watch, when set, is called with (l, false) when h[l] holds z_l and with (l, true) when it holds
// h_l.
template <class T>
void Layout<T>::forward_rows(Buffers<T>& b, Part<T>& part, int row0, int rows,
                             const DropoutKey* dropout, uint64_t first_row,
                             const std::function<void(int, bool)>* watch) const {
  if (members) return member_forward(b, part, rows, dropout, first_row);
  for (int l = 1; l <= depth; ++l)
    layer_rows(b, part, l, 0, layer(l).out_panels, row0, rows, dropout, first_row, watch);
}

template <class T>
void Layout<T>::layer_rows(Buffers<T>& b, Part<T>& part, int l, int p0, int p1, int row0, int rows,
                           const DropoutKey* dropout, uint64_t first_row,
                           const std::function<void(int, bool)>* watch) const {
  const ptrdiff_t at = static_cast<ptrdiff_t>(row0) * P, count = static_cast<ptrdiff_t>(rows) * P;
  const Layer<T>& a = layer(l);
  for (const Segment& s : a.segments)
    for (int q = 0; q < s.n_panels; ++q)
      part.pointers[s.first_panel + q] = b.h[s.source].data() + q * b.stride + at;
  const bool dropped = dropout != nullptr && a.dropout > 0;
  const bool keep_slope = b.backward && a.needs_slope && l < depth;
  const bool fused = l < depth && !a.thin && !watch && a.activation == kRelu && !keep_slope;
  // An activation follows its product a few rows behind, while they are in the first-level cache.
  const bool swept = !a.thin && !watch && !fused && l < depth && rows > kernels->few_rows &&
                     (a.activation != kIdentity || keep_slope);
  T* h = b.h[l].data() + at;
  if (a.thin) {
    kernels->thin_forward(part.pointers.data(), a.in_widths.data(), a.in_panels, a.wt.data(),
                          a.transposed(1, 0), rows, a.d_out, a.bias.data(), h);
  } else {
    GemmArgs<T> g{};
    g.x = part.pointers.data();
    g.widths = a.in_widths.data();
    g.n_panels = a.in_panels;
    g.rows = rows;
    g.epilogue = fused ? kReluEpi : kNone;
    auto from = [&](int p) {
      g.w = a.w.data() + a.tile(p, 0);
      g.columns = a.out_widths[p];
      g.bias = a.bias.data() + p * P;
      g.y = h + p * b.stride;
    };
    if (rows <= kernels->few_rows) {
      from(p0);
      kernels->gemm_few(g, p1 - p0, b.stride);
    } else {
      auto shift = [&](ptrdiff_t by) {
        for (int q = 0; q < a.in_panels; ++q) part.pointers[q] += by * P;
      };
      const int step = swept ? kSweptRows : rows;
      for (int p = p0; p < p1; ++p) {
        from(p);
        for (int row = 0; row < rows; row += step, g.y += static_cast<ptrdiff_t>(step) * P) {
          g.rows = std::min(step, rows - row);
          kernels->gemm(g);
          if (!swept) continue;
          const ptrdiff_t here = static_cast<ptrdiff_t>(row0 + row) * P;
          kernels->activate(a.activation, g.y,
                            keep_slope ? b.slope[l].data() + p * b.stride + here : nullptr,
                            static_cast<ptrdiff_t>(g.rows) * P);
          shift(step);
        }
        if (swept) shift(-static_cast<ptrdiff_t>((rows + step - 1) / step) * step);
      }
    }
  }
  if (watch) (*watch)(l, false);
  if (l == depth) return;
  for (int p = p0; p < p1; ++p) {
    T* hp = h + p * b.stride;
    T* slope = keep_slope ? b.slope[l].data() + p * b.stride + at : nullptr;
    if (!fused && !swept && (a.activation != kIdentity || slope))
      kernels->activate(a.activation, hp, slope, count);
    if (dropped)
      kernels->dropout(hp, slope, rows, first_row, static_cast<uint32_t>(p * P),
                       dropout->of_layer(l), a.dropout);
    if (a.residual) kernels->add(hp, b.h[l - 1].data() + p * b.stride + at, count);
  }
  if (watch) (*watch)(l, true);
}

template <class T>
double Layout<T>::loss_rows(Buffers<T>& b, Part<T>& part, int row0, int rows,
                            const LossColumns<T>& loss, const Rows<T>& target, double scale,
                            bool gradient) const {
  const ptrdiff_t at = static_cast<ptrdiff_t>(row0) * P;
  LossArgs<T> a{};
  a.loss = loss.loss;
  a.output = output;
  a.rows = rows;
  a.columns = dims.back();
  a.z = b.h[depth].data() + at;
  a.z_stride = b.stride;
  a.y = target.classes ? nullptr : b.y.data() + at;
  a.y_stride = b.stride;
  a.classes = target.classes ? b.classes.data() + row0 : nullptr;
  a.row_weight = target.row_weight ? b.row_weight.data() + row0 : nullptr;
  a.column_weight = loss.weight.data();
  a.column_weighted = loss.weighted;
  a.column_param = loss.param.data();
  a.parameter = loss.parameter;
  a.scale = static_cast<T>(scale);
  a.want_gradient = gradient;
  a.bias_gradient = part.bias_gradient[depth - 1].data();
  if (!members) return kernels->loss(a);
  double total = 0;
  for (int i = 0; i < members; ++i) {
    a.z = b.h[depth].data() + static_cast<ptrdiff_t>(i) * rows * P;
    a.bias_gradient = part.bias_gradient[depth - 1].data() + layer(depth).shift_of(i);
    total += kernels->loss(a);
  }
  return total;
}

template <class T>
void Layout<T>::gradient_tile(const Buffers<T>& b, int l, int p, int q, int row0, int rows, T* tile,
                              bool accumulate) const {
  const Layer<T>& a = layer(l);
  const Segment* s = a.segments.data();
  while (q >= s->first_panel + s->n_panels) ++s;
  const ptrdiff_t at = static_cast<ptrdiff_t>(row0) * P;
  const T* x = b.h[s->source].data() + (q - s->first_panel) * b.stride + at;
  const T* d = (l == depth ? b.h[l] : b.delta[l]).data() + p * b.stride + at;
  auto kernel = a.thin ? kernels->thin_gradient_tile : kernels->gradient_tile;
  kernel(x, d, rows, a.in_widths[q], a.out_widths[p], tile, accumulate);
}

// delta_L stands in h[L]. For l = L..1: weight gradient, then each source's share of d loss / d h.
template <class T>
void Layout<T>::backward_rows(Buffers<T>& b, Part<T>& part, int row0, int rows, bool input,
                              bool gradients, bool accumulate) const {
  if (members) return member_backward(b, part, rows, gradients, accumulate);
  const ptrdiff_t at = static_cast<ptrdiff_t>(row0) * P, count = static_cast<ptrdiff_t>(rows) * P;
  if (input && b.delta[0].size() == 0) b.delta[0] = Aligned<T>(b.h[0].size());
  std::fill(part.started.begin(), part.started.end(), 0);
  for (int l = depth; l >= 1; --l) {
    const Layer<T>& a = layer(l);
    T* delta = (l == depth ? b.h[l] : b.delta[l]).data() + at;
    if (l < depth && !a.alone) {
      const T* side = (a.finish == kMulByD ? b.slope[l] : b.h[l]).data() + at;
      const bool pass_on =
          a.residual && (l > 1 || input);  // h_l = phi + h_{l-1}: d loss / d h_l goes there too
      T* below = pass_on ? b.delta[l - 1].data() + at : nullptr;
      for (int p = 0; p < a.out_panels; ++p) {
        T* dp = delta + p * b.stride;
        if (pass_on && part.started[l - 1]) kernels->add(below + p * b.stride, dp, count);
        if (pass_on && !part.started[l - 1])
          std::memcpy(below + p * b.stride, dp, count * sizeof(T));
        kernels->finish_delta(dp, a.finish, side + p * b.stride, rows,
                              part.bias_gradient[l - 1].data() + p * P);
      }
      if (pass_on) part.started[l - 1] = 1;
    }
    if (gradients)
      for (int p = 0; p < a.out_panels; ++p)
        for (int q = 0; q < a.in_panels; ++q)
          gradient_tile(b, l, p, q, row0, rows, part.gradient[l - 1].data() + a.tile(p, q),
                        accumulate);
    for (int p = 0; p < a.out_panels; ++p) part.pointers[p] = delta + p * b.stride;
    for (const Segment& s : a.segments) {
      if (s.source == 0 && !input) continue;
      const bool fused = s.source > 0 && layer(s.source).alone;
      GemmArgs<T> g{};
      g.x = part.pointers.data();
      g.widths = a.out_widths.data();
      g.n_panels = a.out_panels;
      g.rows = rows;
      g.accumulate = part.started[s.source];
      g.epilogue = fused ? layer(s.source).finish : kNone;
      for (int q = 0; q < s.n_panels; ++q) {
        const ptrdiff_t panel = q * b.stride + at;
        g.w = a.wt.data() + a.transposed(s.first_panel + q, 0);
        g.columns = a.in_widths[s.first_panel + q];
        g.y = b.delta[s.source].data() + panel;
        if (fused) {
          g.side = (g.epilogue == kMulByD ? b.slope[s.source] : b.h[s.source]).data();
          g.side = g.side ? g.side + panel : nullptr;
          g.column_sums = part.bias_gradient[s.source - 1].data() + q * P;
        }
        kernels->gemm(g);
      }
      part.started[s.source] = 1;
    }
  }
}

template void Layout<float>::load_rows(Buffers<float>&, const float*, const int32_t*, int,
                                       int) const;
template void Layout<double>::load_rows(Buffers<double>&, const double*, const int32_t*, int,
                                        int) const;
#define LAMINA_INSTANTIATE(T)                                                                      \
  template void Layout<T>::load_targets(Buffers<T>&, const Rows<T>&, int64_t, const int32_t*, int, \
                                        int, int) const;                                           \
  template void Layout<T>::forward_rows(Buffers<T>&, Part<T>&, int, int, const DropoutKey*,        \
                                        uint64_t, const std::function<void(int, bool)>*) const;    \
  template void Layout<T>::layer_rows(Buffers<T>&, Part<T>&, int, int, int, int, int,              \
                                      const DropoutKey*, uint64_t,                                 \
                                      const std::function<void(int, bool)>*) const;                \
  template double Layout<T>::loss_rows(Buffers<T>&, Part<T>&, int, int, const LossColumns<T>&,     \
                                       const Rows<T>&, double, bool) const;                        \
  template void Layout<T>::backward_rows(Buffers<T>&, Part<T>&, int, int, bool, bool, bool) const; \
  template void Layout<T>::gradient_tile(const Buffers<T>&, int, int, int, int, int, T*, bool)     \
      const;
LAMINA_INSTANTIATE(float)
LAMINA_INSTANTIATE(double)

}  // namespace lamina
