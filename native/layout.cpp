#include "layout.h"

#include <algorithm>

#include "dispatch.h"
#include "encoding.h"

namespace lamina {

namespace {

template <class T>
const Kernels<T>* kernels_of(const KernelSet& set) {
  if constexpr (sizeof(T) == 4)
    return set.f32;
  else
    return set.f64;
}

std::vector<int> panel_widths(int columns, int panel) {
  std::vector<int> widths;
  for (int c = 0; c < columns; c += panel) widths.push_back(std::min(panel, columns - c));
  return widths;
}

}  // namespace

template <class T>
Layout<T>::Layout(const Spec& spec)
    : kernels(kernels_of<T>(current_kernels())),
      d_in(spec.d_in),
      depth(static_cast<int>(spec.layers.size())),
      output(spec.output),
      members(spec.n_members),
      n_params(0),
      flops_a_row(0) {
  if (spec.encoding.kind != EncodingKind::kNone) {
    encoding = std::make_unique<Encoding<T>>(spec.encoding, d_in, kernels);
    flops_a_row = encoding->flops_a_row();
  }
  dims.push_back(encoding ? encoding->width() : d_in);
  std::vector<int> readers(depth + 1, 0);
  double columns = dims[0];
  for (int l = 1; l <= depth; ++l) {
    const LayerSpec& s = spec.layers[l - 1];
    Layer<T> layer;
    layer.d_out = s.d_out;
    layer.activation = s.activation;
    layer.residual = s.residual;
    layer.dropout = s.dropout;
    layer.fan_in = layer.in_panels = 0;
    for (int source : s.sources) {
      const int width = dims[source], n_panels = panels_of(width, P);
      layer.segments.push_back({source, width, layer.fan_in, layer.in_panels, n_panels});
      layer.fan_in += width;
      layer.in_panels += n_panels;
      for (int w : panel_widths(width, P)) layer.in_widths.push_back(w);
      ++readers[source];
    }
    if (s.residual) ++readers[l - 1];
    layer.out_panels = panels_of(s.d_out, P);
    layer.out_widths = panel_widths(s.d_out, P);
    layer.thin = s.d_out <= kernels->thin_limit;
    const bool relu = s.activation == kRelu, linear = s.activation == kIdentity;
    layer.needs_slope = s.dropout > 0 || (relu ? s.residual : !linear);
    layer.finish = layer.needs_slope ? kMulByD : relu ? kMaskByH : kNone;
    const ptrdiff_t size = Layer<T>::kTile * layer.in_panels * layer.out_panels;
    layer.w = Aligned<T>(size);
    layer.wt = Aligned<T>(size);
    const int64_t k = members;
    const int64_t vectors = k ? k * (2 * layer.out_panels + layer.in_panels) : layer.out_panels;
    layer.bias = Aligned<T>(static_cast<size_t>(vectors) * P);
    n_params += static_cast<int64_t>(layer.fan_in) * s.d_out;
    n_params += k ? k * (2 * s.d_out + layer.fan_in) : s.d_out;
    flops_a_row += 2.0 * layer.fan_in * s.d_out;
    columns += 2.0 * s.d_out;
    dims.push_back(s.d_out);
    layers.push_back(std::move(layer));
  }
  n_params += n_table();
  for (int l = 1; l <= depth; ++l) layer(l).alone = readers[l] == 1 && !layer(l).residual;
  // Activations and deltas of a block should sit in half of a 2 MiB second-level cache.
  const double rows = 1048576.0 / (columns * sizeof(T));
  block_rows = static_cast<int>(std::clamp(rows, 64.0, 512.0)) / 16 * 16;
  if (members) {
    block_rows = std::max(1, block_rows / members);
    flops_a_row *= members;
  }
}

// Panels 4 KiB apart modulo the cache's way size would share cache sets: keep them half a way off
// one another.
template <class T>
ptrdiff_t Buffers<T>::stride_for(int capacity) {
  return static_cast<ptrdiff_t>((capacity + 15) / 32 * 32 + 16) * kPanel<T>;
}
template <class T>
Buffers<T>::Buffers(int rows) : capacity(rows), stride(stride_for(rows)), backward(true) {}
template <class T>
Layout<T>::~Layout() = default;
template <class T>
int64_t Layout<T>::n_table() const {
  return encoding ? encoding->n_params() : 0;
}

template <class T>
Buffers<T>::Buffers(const Layout<T>& layout, int rows, bool with_backward)
    : capacity(rows),
      stride(stride_for(rows * std::max(1, layout.members))),
      backward(with_backward) {
  auto make = [&](int columns) {
    return Aligned<T>(static_cast<size_t>(stride) * panels_of(columns, kPanel<T>));
  };
  for (int columns : layout.dims) h.push_back(make(columns));
  if (layout.encoding) raw = Aligned<T>(static_cast<size_t>(rows) * layout.d_in);
  if (layout.members) {
    product.resize(1);
    for (int l = 1; l <= layout.depth; ++l) {
      u.push_back(make(layout.dims[l - 1]));
      product.push_back(make(layout.dims[l]));
    }
  }
  slope.resize(layout.depth + 1);
  delta.resize(layout.depth + 1);
  if (!backward) return;
  if (layout.n_table() > 0 || layout.members) delta[0] = make(layout.dims[0]);
  for (int l = 1; l < layout.depth; ++l) {
    if (layout.layer(l).needs_slope) slope[l] = make(layout.dims[l]);
    delta[l] = make(layout.dims[l]);
  }
  y = make(layout.dims.back());
  row_weight = Aligned<T>(rows);
  classes = Aligned<int32_t>(rows);
}

template <class T>
Part<T>::Part(const Layout<T>& layout, bool with_gradient)
    : tile(Layer<T>::kTile), started(layout.depth + 1, 0) {
  gradient.resize(layout.depth);
  size_t most = 0;
  for (int l = 1; l <= layout.depth; ++l) {
    const Layer<T>& layer = layout.layer(l);
    if (with_gradient) gradient[l - 1] = Aligned<T>(layer.w.size());
    bias_gradient.emplace_back(layer.bias.size());
    most = std::max<size_t>(most, std::max(layer.in_panels, layer.out_panels));
  }
  pointers.resize(most);
}
template <class T>
void Part<T>::clear_bias_gradients() {
  for (auto& b : bias_gradient) b.zero();
}

template <class T>
std::unique_ptr<Lane<T>> Layout<T>::borrow(int64_t rows, bool backward) const {
  const int capacity = rows <= 16 && !members ? 16 : block_rows;
  {
    std::lock_guard lock(spare_mutex);
    for (auto& b : spare)
      if (b->buffers.capacity == capacity && b->buffers.backward == backward) {
        std::swap(b, spare.back());
        auto found = std::move(spare.back());
        spare.pop_back();
        return found;
      }
  }
  return std::make_unique<Lane<T>>(*this, capacity, backward);
}
template <class T>
void Layout<T>::give_back(std::unique_ptr<Lane<T>> lane) const {
  std::lock_guard lock(spare_mutex);
  if (spare.size() < 8) spare.push_back(std::move(lane));
}

// body(place in bias, width) for a layer's vectors in the order of theta: the bias; with members
// all input scales, output scales and biases.
template <class T, class F>
static void for_vectors(const Layer<T>& a, int k, F body) {
  if (k == 0) return body(0, a.d_out);
  for (int i = 0; i < k; ++i) body(a.input_scale_of(i, k), a.fan_in);
  for (int i = 0; i < k; ++i) body(a.scale_of(i, k), a.d_out);
  for (int i = 0; i < k; ++i) body(a.shift_of(i), a.d_out);
}

template <class T>
void Layout<T>::pack(const T* theta, const std::vector<T*>& w, const std::vector<T*>& bias) const {
  for (int l = 1; l <= depth; ++l) {
    const Layer<T>& a = layer(l);
    for (const Segment& s : a.segments)
      for (int p = 0; p < a.out_panels; ++p)
        for (int q = 0; q < s.n_panels; ++q) {
          T* tile = w[l - 1] + a.tile(p, s.first_panel + q);
          const int width = a.in_widths[s.first_panel + q];
          for (int n = 0; n < a.out_widths[p]; ++n) {
            const T* row =
                theta + static_cast<ptrdiff_t>(p * P + n) * a.fan_in + s.first_column + q * P;
            for (int k = 0; k < width; ++k) tile[k * P + n] = row[k];
          }
        }
    theta += static_cast<ptrdiff_t>(a.d_out) * a.fan_in;
    for_vectors(a, members, [&](ptrdiff_t at, int width) {
      std::copy(theta, theta + width, bias[l - 1] + at);
      theta += width;
    });
  }
}
template <class T>
void Layout<T>::unpack(T* theta, const std::vector<const T*>& w, const std::vector<const T*>& bias,
                       bool add) const {
  for (int l = 1; l <= depth; ++l) {
    const Layer<T>& a = layer(l);
    for (const Segment& s : a.segments)
      for (int p = 0; p < a.out_panels; ++p)
        for (int q = 0; q < s.n_panels; ++q) {
          const T* tile = w[l - 1] + a.tile(p, s.first_panel + q);
          const int width = a.in_widths[s.first_panel + q];
          for (int n = 0; n < a.out_widths[p]; ++n) {
            T* row = theta + static_cast<ptrdiff_t>(p * P + n) * a.fan_in + s.first_column + q * P;
            for (int k = 0; k < width; ++k)
              row[k] = add ? row[k] + tile[k * P + n] : tile[k * P + n];
          }
        }
    theta += static_cast<ptrdiff_t>(a.d_out) * a.fan_in;
    for_vectors(a, members, [&](ptrdiff_t at, int width) {
      const T* from = bias[l - 1] + at;
      for (int n = 0; n < width; ++n) theta[n] = add ? theta[n] + from[n] : from[n];
      theta += width;
    });
  }
}
template <class T>
void Layout<T>::transpose(bool input_too) {
  for (Layer<T>& a : layers)
    for (const Segment& s : a.segments) {
      if (s.source == 0 && !input_too && !a.thin) continue;
      for (int q = s.first_panel; q < s.first_panel + s.n_panels; ++q)
        for (int p = 0; p < a.out_panels; ++p)
          kernels->transpose_tile(a.w.data() + a.tile(p, q), a.wt.data() + a.transposed(q, p),
                                  a.in_widths[q], a.out_widths[p]);
    }
  if (input_too) input_transposed_stale = false;
}

template <class T>
int Layout<T>::first_hidden_panel(const Layer<T>& layer) const {
  if (members) return 0;  // the gradient of the first input scales goes through it
  const Segment& s = layer.segments.front();
  return s.source == 0 ? s.n_panels : 0;
}

template <class T>
LossColumns<T>::LossColumns(const Layout<T>& layout, const LossSpec& spec, const T* output_weight)
    : loss(spec.loss), parameter(0), weighted(output_weight != nullptr), repeat(1) {
  const int columns = layout.dims.back();
  const size_t padded = static_cast<size_t>(panels_of(columns, kPanel<T>)) * kPanel<T>;
  weight = Aligned<T>(padded);
  for (int c = 0; c < columns; ++c) weight.data()[c] = output_weight ? output_weight[c] : T(1);
  if (loss == kPinball) {
    repeat = static_cast<int>(spec.parameters.size());
    param = Aligned<T>(padded);
    for (int c = 0; c < columns; ++c) param.data()[c] = static_cast<T>(spec.parameters[c % repeat]);
  } else if (!spec.parameters.empty()) {
    parameter = static_cast<T>(spec.parameters[0]);
  }
  divisor = loss == kCrossEntropy ? 1.0 : static_cast<double>(columns);
  divisor *= std::max(1, layout.members);  // the mean over members of each one's own loss
}

template struct LossColumns<float>;
template struct LossColumns<double>;
template struct Layout<float>;
template struct Layout<double>;
template struct Buffers<float>;
template struct Buffers<double>;
template struct Part<float>;
template struct Part<double>;

}  // namespace lamina
