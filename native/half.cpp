#include "half.h"

#include <algorithm>

#include "encoding.h"

namespace lamina {
namespace {

// Layers whose activation is not all that follows the product: their h passes through float32.
bool has_more(const Layer<float>& layer) { return layer.residual || layer.dropout > 0; }

ptrdiff_t offset(int row0) { return static_cast<ptrdiff_t>(row0) * kHalfPanel; }

template <class E>
E* or_null(Aligned<E>& a, ptrdiff_t at) {
  return a.size() ? a.data() + at : nullptr;
}

// One pointer a panel; a network's layers have few, so that most need no allocation.
std::vector<const Bf16*>& pointers_of_thread() {
  thread_local std::vector<const Bf16*> pointers;
  return pointers;
}

}  // namespace

HalfBuffers::HalfBuffers(const Layout<float>& layout, int rows, bool backward)
    : capacity(half_rows(rows)), stride(Buffers<float>::stride_for(capacity)), wide(capacity) {
  const int depth = layout.depth;
  auto panels = [&](int l) {
    return static_cast<size_t>(stride) * panels_of(layout.dims[l], kHalfPanel);
  };
  for (auto* set : {&h, &slope, &delta, &turned, &paired}) set->resize(depth + 1);
  for (auto* set : {&wide.h, &wide.slope, &wide.delta}) set->resize(depth + 1);
  for (int l = 0; l < depth; ++l) {
    h[l] = Aligned<Bf16>(panels(l));
    if (backward) turned[l] = Aligned<Bf16>(panels(l));
    if (l == 0) continue;
    const Layer<float>& layer = layout.layer(l);
    const bool sloped = backward && layer.needs_slope;
    if (sloped) slope[l] = Aligned<Bf16>(panels(l));
    if (has_more(layer)) {
      wide.h[l] = Aligned<float>(panels(l));
      if (sloped) wide.slope[l] = Aligned<float>(panels(l));
    }
    if (backward && !layer.alone) wide.delta[l] = Aligned<float>(panels(l));
  }
  for (int l = 1; backward && l <= depth; ++l) {
    delta[l] = Aligned<Bf16>(panels(l));
    paired[l] = Aligned<Bf16>(panels(l));
  }
  wide.h[depth] = Aligned<float>(panels(depth));
  if (layout.encoding) {
    wide.raw = Aligned<float>(static_cast<size_t>(capacity) * layout.d_in);
    wide.h[0] = Aligned<float>(panels(0));
    if (backward && layout.n_table() > 0) wide.delta[0] = Aligned<float>(panels(0));
  }
  if (!backward) return;
  wide.y = Aligned<float>(panels(depth));
  wide.row_weight = Aligned<float>(capacity);
  wide.classes = Aligned<int32_t>(capacity);
}

HalfLayout::HalfLayout(Layout<float>& layout, const HalfKernels& kernels, bool backward)
    : a_(layout), kernels_(kernels), backward_(backward), table_(layout.n_table() > 0) {
  double bytes = (layout.encoding ? 12.0 : 4.0) * layout.dims[0];
  for (const Layer<float>& layer : layout.layers) {
    w_.emplace_back(layer.w.size());
    wt_.emplace_back(backward ? layer.w.size() : 0);
    bytes += (layer.needs_slope ? 10.0 : 8.0) * layer.d_out;
  }
  // h, its turned form, delta and its paired form of a block should stay in a 2 MiB second-level
  // cache; taller blocks load and store the sums of a weight gradient less often.
  const double rows = std::clamp(1572864.0 / bytes, 96.0, 512.0);
  block_rows_ = static_cast<int>(rows) / kHalfRows * kHalfRows;
}

void HalfLayout::pack_tile(int l, int p, int q) {
  const Layer<float>& layer = a_.layer(l);
  const bool below = backward_ && (table_ || q >= a_.first_hidden_panel(layer));
  kernels_.pack(layer.w.data() + layer.tile(p, q), w_[l - 1].data() + layer.tile(p, q),
                below ? wt_[l - 1].data() + layer.transposed(q, p) : nullptr);
}
void HalfLayout::pack() {
  for (int l = 1; l <= a_.depth; ++l)
    for (int p = 0; p < a_.layer(l).out_panels; ++p)
      for (int q = 0; q < a_.layer(l).in_panels; ++q) pack_tile(l, p, q);
}

void HalfLayout::load_rows(HalfBuffers& b, const float* x, const int32_t* index, int row0,
                           int rows) const {
  const ptrdiff_t at = offset(row0);
  if (!a_.encoding)
    return kernels_.gather(x, a_.d_in, index, rows, b.h[0].data() + at, or_null(b.turned[0], at),
                           b.stride);
  a_.load_rows(b.wide, x, index, row0, rows);
  for (int p = 0; p < panels_of(a_.dims[0], kHalfPanel); ++p) {
    const ptrdiff_t panel = p * b.stride + at;
    kernels_.narrow({b.wide.h[0].data() + panel, rows, kNone, nullptr, b.h[0].data() + panel,
                     nullptr, or_null(b.turned[0], panel), nullptr});
  }
}

void HalfLayout::forward_rows(HalfBuffers& b, int row0, int rows, const DropoutKey* dropout,
                              uint64_t first_row) const {
  const ptrdiff_t at = offset(row0);
  auto& x = pointers_of_thread();
  for (int l = 1; l <= a_.depth; ++l) {
    const Layer<float>& layer = a_.layer(l);
    x.clear();
    for (const Segment& s : layer.segments)
      for (int q = 0; q < s.n_panels; ++q) x.push_back(b.h[s.source].data() + q * b.stride + at);
    HalfProduct product{x.data(),    layer.in_panels,  half_rows(rows),
                        layer.d_out, w_[l - 1].data(), kHalfTile * layer.in_panels};
    if (l < a_.depth && !has_more(layer)) {
      HalfForward f{product};
      f.bias = layer.bias.data();
      f.activation = layer.activation;
      f.stride = b.stride;
      f.h = b.h[l].data() + at;
      f.slope = or_null(b.slope[l], at);
      f.turned = or_null(b.turned[l], at);
      kernels_.forward(f);
      continue;
    }
    HalfRaw f{product};
    f.bias = layer.bias.data();
    f.stride = b.stride;
    f.y = b.wide.h[l].data() + at;
    f.accumulate = false;
    kernels_.raw(f);
    if (l < a_.depth) finish_layer(b, l, row0, rows, dropout, first_row);
  }
}

// Activation, dropout and residual of z_l, which stands in wide.h[l].
void HalfLayout::finish_layer(HalfBuffers& b, int l, int row0, int rows, const DropoutKey* dropout,
                              uint64_t first_row) const {
  const Layer<float>& layer = a_.layer(l);
  const ptrdiff_t count = offset(half_rows(rows));
  thread_local std::vector<Aligned<float>> scratch(1);
  for (int p = 0; p < layer.out_panels; ++p) {
    const ptrdiff_t at = p * b.stride + offset(row0);
    float* h = b.wide.h[l].data() + at;
    float* slope = or_null(b.wide.slope[l], at);
    if (layer.activation != kIdentity || slope)
      a_.kernels->activate(layer.activation, h, slope, count);
    if (dropout && layer.dropout > 0)
      a_.kernels->dropout(h, slope, rows, first_row, static_cast<uint32_t>(p * kHalfPanel),
                          dropout->of_layer(l), layer.dropout);
    if (layer.residual) {
      if (scratch[0].size() < static_cast<size_t>(count))
        scratch[0] = Aligned<float>(static_cast<size_t>(count));
      kernels_.widen(b.h[l - 1].data() + at, scratch[0].data(), count);
      a_.kernels->add(h, scratch[0].data(), count);
    }
    kernels_.narrow(
        {h, rows, kNone, nullptr, b.h[l].data() + at, nullptr, or_null(b.turned[l], at), nullptr});
    if (slope)
      kernels_.narrow(
          {slope, rows, kNone, nullptr, b.slope[l].data() + at, nullptr, nullptr, nullptr});
  }
}

// delta_l from d loss / d h_l, which stands in wide.delta[l]; a residual passes the latter on.
void HalfLayout::finish_delta(HalfBuffers& b, Part<float>& part, int l, int row0, int rows) const {
  const Layer<float>& layer = a_.layer(l);
  const bool pass_on = layer.residual && (l > 1 || table_);
  const ptrdiff_t count = offset(half_rows(rows));
  for (int p = 0; p < layer.out_panels; ++p) {
    const ptrdiff_t at = p * b.stride + offset(row0);
    const float* sum = b.wide.delta[l].data() + at;
    if (pass_on) {
      float* below = b.wide.delta[l - 1].data() + at;
      if (part.started[l - 1])
        a_.kernels->add(below, sum, count);
      else
        std::copy_n(sum, count, below);
    }
    const Bf16* side = (layer.finish == kMulByD ? b.slope[l] : b.h[l]).data() + at;
    kernels_.narrow({sum, rows, layer.finish, side, b.delta[l].data() + at, b.paired[l].data() + at,
                     nullptr, part.bias_gradient[l - 1].data() + p * kHalfPanel});
  }
  if (pass_on) part.started[l - 1] = 1;
}

void HalfLayout::gradient_tile(const HalfBuffers& b, int l, int p, int q, int row0, int rows,
                               float* tile, bool accumulate) const {
  const Layer<float>& layer = a_.layer(l);
  const Segment* s = layer.segments.data();
  while (q >= s->first_panel + s->n_panels) ++s;
  kernels_.gradient_tile(
      b.turned[s->source].data() + (q - s->first_panel) * b.stride + offset(row0),
      b.paired[l].data() + p * b.stride + offset(row0), half_rows(rows), layer.in_widths[q],
      layer.out_widths[p], tile, accumulate);
}

// d loss / d z_L stands in wide.h[L].
void HalfLayout::backward_rows(HalfBuffers& b, Part<float>& part, int row0, int rows,
                               bool gradients, bool accumulate) const {
  const ptrdiff_t at = offset(row0);
  auto& d = pointers_of_thread();
  std::fill(part.started.begin(), part.started.end(), 0);
  for (int l = a_.depth; l >= 1; --l) {
    const Layer<float>& layer = a_.layer(l);
    if (l == a_.depth)
      for (int p = 0; p < layer.out_panels; ++p) {
        const ptrdiff_t panel = p * b.stride + at;
        kernels_.narrow({b.wide.h[l].data() + panel, rows, kNone, nullptr,
                         b.delta[l].data() + panel, b.paired[l].data() + panel, nullptr, nullptr});
      }
    else if (!layer.alone)
      finish_delta(b, part, l, row0, rows);
    if (gradients)
      for (int p = 0; p < layer.out_panels; ++p)
        for (int q = 0; q < layer.in_panels; ++q)
          gradient_tile(b, l, p, q, row0, rows, part.gradient[l - 1].data() + layer.tile(p, q),
                        accumulate);
    d.clear();
    for (int p = 0; p < layer.out_panels; ++p) d.push_back(b.delta[l].data() + p * b.stride + at);
    for (const Segment& s : layer.segments) {
      if (s.source == 0 && !table_) continue;
      const HalfProduct product{d.data(),
                                layer.out_panels,
                                half_rows(rows),
                                s.width,
                                wt_[l - 1].data() + layer.transposed(s.first_panel, 0),
                                kHalfTile * layer.out_panels};
      if (s.source > 0 && a_.layer(s.source).alone) {
        const Layer<float>& below = a_.layer(s.source);
        HalfBackward g{product};
        g.finish = below.finish;
        const Aligned<Bf16>& side = below.finish == kMulByD ? b.slope[s.source] : b.h[s.source];
        g.side = side.data() + at;
        g.stride = b.stride;
        g.delta = b.delta[s.source].data() + at;
        g.paired = b.paired[s.source].data() + at;
        g.column_sums = part.bias_gradient[s.source - 1].data();
        kernels_.backward(g);
      } else {
        HalfRaw g{product};
        g.bias = nullptr;
        g.stride = b.stride;
        g.y = b.wide.delta[s.source].data() + at;
        g.accumulate = part.started[s.source];
        kernels_.raw(g);
      }
      part.started[s.source] = 1;
    }
  }
}

}  // namespace lamina
