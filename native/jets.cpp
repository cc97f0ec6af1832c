// Streams through the layers and back.
#include "jets.h"

#include <algorithm>

namespace lamina {
namespace {

// z, h and delta of a block's streams should stay in a second-level cache of 2 MiB, beside the
// weights of a layer; too few rows would leave the products short.
int rows_of_block(double bytes_a_row, int streams, int64_t most) {
  const double fit = 1572864.0 / bytes_a_row / streams;
  const double least = std::clamp(4096.0 / streams, 1.0, 16.0);
  const int rows = static_cast<int>(std::clamp(fit, least, 512.0));
  return static_cast<int>(std::clamp<int64_t>(most, 1, rows));
}

int function_of(Output output) {
  switch (output) {
    case kOutSigmoid:
      return kSigmoid;
    case kOutExp:
      return kExpUnit;
    case kOutStep:
      return kStep;
    default:
      return kIdentity;
  }
}

}  // namespace

template <class T>
Jets<T>::Jets(const Layout<T>& layout, int tangents, const T* c, int64_t most_rows,
              bool with_backward)
    : a(layout),
      n_tangents(tangents),
      streams(1 + tangents + (c != nullptr)),
      backward(with_backward),
      curvature(c),
      no_bias(static_cast<size_t>(P)),
      along(nullptr) {
  double columns = 0;
  for (int d : a.dims) columns += panels_of(d, P) * P;
  capacity = rows_of_block(columns * sizeof(T) * (backward ? 3 : 2), streams, most_rows);
  stride = (static_cast<ptrdiff_t>(capacity) * streams + 15) / 32 * 32 * P + 16 * P;
  const ptrdiff_t value = static_cast<ptrdiff_t>(capacity) * P;
  if (a.encoding) {
    raw = Aligned<T>(static_cast<size_t>(capacity) * a.d_in);
    scratch = Aligned<T>(static_cast<size_t>(panels_of(a.dims[0], P)) * value);
  }
  z.resize(a.depth + 1), delta.resize(a.depth + 1);
  d1.resize(a.depth + 1), d2.resize(a.depth + 1), d3.resize(a.depth + 1);
  for (int l = 0; l <= a.depth; ++l) {
    const size_t panels = static_cast<size_t>(panels_of(a.dims[l], P));
    h.emplace_back(panels * stride);
    if (backward) delta[l] = Aligned<T>(panels * stride);
    if (l == 0) continue;
    z[l] = Aligned<T>(panels * stride);
    if (!backward) continue;
    d1[l] = Aligned<T>(panels * value);
    if (n_tangents) d2[l] = Aligned<T>(panels * value);
    if (curvature) d3[l] = Aligned<T>(panels * value);
  }
}

template <class T>
JetArgs<T> Jets<T>::panel(int l, int p, int rows) {
  JetArgs<T> j{};
  j.function = l < a.depth ? a.layer(l).activation : function_of(a.output);
  j.n_tangents = n_tangents;
  j.count = static_cast<ptrdiff_t>(rows) * P;
  j.curvature = curvature;
  j.z = z[l].data() + p * stride;
  j.h = h[l].data() + p * stride;
  j.keep = backward;
  const ptrdiff_t slope = static_cast<ptrdiff_t>(p) * capacity * P;
  if (d1[l].size()) j.d1 = d1[l].data() + slope;
  if (d2[l].size()) j.d2 = d2[l].data() + slope;
  if (d3[l].size()) j.d3 = d3[l].data() + slope;
  if (backward) j.delta = delta[l].data() + p * stride;
  return j;
}

template <class T>
void Jets<T>::forward(Part<T>& part, int rows) {
  const ptrdiff_t count = static_cast<ptrdiff_t>(rows) * P;
  for (int l = 1; l <= a.depth; ++l) {
    const Layer<T>& layer = a.layer(l);
    // The value's rows, with the bias; then those of all other streams, without.
    for (int rest = 0; rest < (streams > 1 ? 2 : 1); ++rest) {
      const ptrdiff_t skip = rest ? count : 0;
      const int these = rest ? rows * (streams - 1) : rows;
      for (const Segment& s : layer.segments)
        for (int q = 0; q < s.n_panels; ++q)
          part.pointers[s.first_panel + q] = h[s.source].data() + q * stride + skip;
      if (layer.thin) {
        a.kernels->thin_forward(part.pointers.data(), layer.in_widths.data(), layer.in_panels,
                                layer.wt.data(), layer.transposed(1, 0), these, layer.d_out,
                                rest ? no_bias.data() : layer.bias.data(), z[l].data() + skip);
        continue;
      }
      GemmArgs<T> g{};
      g.x = part.pointers.data();
      g.widths = layer.in_widths.data();
      g.n_panels = layer.in_panels;
      g.rows = these;
      g.epilogue = kNone;
      for (int p = 0; p < layer.out_panels; ++p) {
        g.w = layer.w.data() + layer.tile(p, 0);
        g.columns = layer.out_widths[p];
        g.bias = rest ? nullptr : layer.bias.data() + p * P;
        g.y = z[l].data() + p * stride + skip;
        a.kernels->gemm(g);
      }
    }
    if (l == a.depth) return output_forward(rows);
    for (int p = 0; p < layer.out_panels; ++p) {
      a.kernels->jet_forward(panel(l, p, rows));
      if (layer.residual)
        a.kernels->add(h[l].data() + p * stride, h[l - 1].data() + p * stride, count * streams);
    }
  }
}

template <class T>
void Jets<T>::output_forward(int rows) {
  if (a.output == kOutSoftmax) return softmax_forward(rows);
  for (int p = 0; p < a.layer(a.depth).out_panels; ++p)
    a.kernels->jet_forward(panel(a.depth, p, rows));
}
template <class T>
void Jets<T>::output_backward(int rows, T* bias_gradient) {
  if (a.output == kOutSoftmax) return softmax_backward(rows, bias_gradient);
  for (int p = 0; p < a.layer(a.depth).out_panels; ++p) {
    JetArgs<T> j = panel(a.depth, p, rows);
    j.column_sums = bias_gradient + p * P;
    a.kernels->jet_backward(j);
  }
}

template <class T>
void Jets<T>::clear_seeds(int rows) {
  for (int p = 0; p < a.layer(a.depth).out_panels; ++p)
    std::fill_n(delta[a.depth].data() + p * stride, static_cast<ptrdiff_t>(rows) * streams * P,
                T(0));
}

template <class T>
void Jets<T>::backward_rows(Part<T>& part, int rows, bool input, bool gradients, bool accumulate) {
  const ptrdiff_t count = static_cast<ptrdiff_t>(rows) * P * streams;
  const int stacked = rows * streams;
  std::fill(part.started.begin(), part.started.end(), 0);
  for (int l = a.depth; l >= 1; --l) {
    const Layer<T>& layer = a.layer(l);
    T* bias = part.bias_gradient[l - 1].data();
    // From d loss / d h_l to d loss / d z_l; a residual passes the former on as well.
    const bool pass_on = layer.residual && (l > 1 || input);
    for (int p = 0; pass_on && p < layer.out_panels; ++p) {
      T* below = delta[l - 1].data() + p * stride;
      const T* from = delta[l].data() + p * stride;
      if (part.started[l - 1])
        a.kernels->add(below, from, count);
      else
        std::copy_n(from, count, below);
    }
    if (pass_on) part.started[l - 1] = 1;
    if (l == a.depth) output_backward(rows, bias);
    for (int p = 0; l < a.depth && p < layer.out_panels; ++p) {
      JetArgs<T> j = panel(l, p, rows);
      j.column_sums = bias + p * P;
      a.kernels->jet_backward(j);
    }
    auto kernel = layer.thin ? a.kernels->thin_gradient_tile : a.kernels->gradient_tile;
    for (const Segment& s : layer.segments) {
      for (int q = 0; gradients && q < s.n_panels; ++q)
        for (int p = 0; p < layer.out_panels; ++p)
          kernel(h[s.source].data() + q * stride, delta[l].data() + p * stride, stacked,
                 layer.in_widths[s.first_panel + q], layer.out_widths[p],
                 part.gradient[l - 1].data() + layer.tile(p, s.first_panel + q), accumulate);
      if (s.source == 0 && !input) continue;
      for (int p = 0; p < layer.out_panels; ++p) part.pointers[p] = delta[l].data() + p * stride;
      GemmArgs<T> g{};
      g.x = part.pointers.data();
      g.widths = layer.out_widths.data();
      g.n_panels = layer.out_panels;
      // By x itself only the value depends on it: its tangents are unit vectors.
      g.rows = s.source == 0 && !a.encoding ? rows : stacked;
      g.epilogue = kNone;
      g.accumulate = part.started[s.source];
      for (int q = 0; q < s.n_panels; ++q) {
        g.w = layer.wt.data() + layer.transposed(s.first_panel + q, 0);
        g.columns = layer.in_widths[s.first_panel + q];
        g.y = delta[s.source].data() + q * stride;
        a.kernels->gemm(g);
      }
      part.started[s.source] = 1;
    }
  }
}

template <class T>
void Jets<T>::copy_out(std::vector<Aligned<T>>& from, int l, int stream, int rows, T* out,
                       ptrdiff_t row_step, ptrdiff_t column_step) {
  for (int c = 0; c < a.dims[l]; c += P) {
    const T* source = at(from, l, stream, 0, rows, c);
    const int width = std::min(P, a.dims[l] - c);
    for (int r = 0; r < rows; ++r, source += P)
      for (int k = 0; k < width; ++k) out[r * row_step + (c + k) * column_step] = source[k];
  }
}

template struct Jets<float>;
template struct Jets<double>;

}  // namespace lamina
