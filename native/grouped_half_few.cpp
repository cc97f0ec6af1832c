// Grouped products in bfloat16 of few rows: weights stream by, packed or as float32 rows, and whole
// ranges of panels are one call. Results are those of many rows, but where AMX multiplies those.
#include "grouped_half.h"

namespace lamina {

void GroupedHalf::Shape::few_gather(const Block& b, const Plan<float>& plan, const float* x,
                                    Bf16* h, Bf16* paired, Desk& desk) const {
  const bool identity = plan.token.empty();
  kernels->gather(identity ? x + b.row * spec.d_in : x, spec.d_in,
                  identity ? nullptr : plan.token.data() + b.row, b.rows, h, nullptr, kHalfTile);
  if (!paired) return;
  float* wide_rows = desk.panel.data();
  for (int p = 0; p < panels(0); ++p) {
    kernels->widen(h + p * kHalfTile, wide_rows, static_cast<ptrdiff_t>(b.rows) * P);
    narrow(b, wide_rows, kNone, nullptr, nullptr, paired + p * kHalfTile);
  }
}

void GroupedHalf::Shape::few_forward(const Block& b, int l, int p0, int p1, const Bf16* in,
                                     const Weights* raw, const GroupedHalfPack* packed,
                                     const FewPlaces& to, Desk& desk) const {
  const GroupedLayer& a = layer(l);
  const ptrdiff_t size = static_cast<ptrdiff_t>(b.rows) * P;
  const int d_in = width(l - 1);
  for (int p = p0; p < p1; p += kFewPanels) {
    const int n = std::min(kFewPanels, p1 - p);
    HalfFew f;
    f.x = in;
    f.x_stride = kHalfTile;
    f.width = d_in;
    f.rows = b.rows;
    f.columns = std::min(n * P, a.d_out - p * P);
    auto multiply = [&](bool gate, float* y, ptrdiff_t stride) {
      f.y = y;
      f.y_stride = stride;
      const float* bias;
      if (packed) {
        const auto& w = packed->layers[l - 1];
        f.tiles = (gate ? w.gate : w.weight).data() +
                  (static_cast<ptrdiff_t>(b.expert) * panels(l) + p) * panels(l - 1) * kHalfTile;
        bias = (gate ? w.gate_bias : w.bias).data();
      } else {
        const auto& w = (*raw)[l - 1];
        f.w = (gate ? w.gate : w.weight) +
              (static_cast<ptrdiff_t>(b.expert) * a.d_out + p * P) * d_in;
        f.ld = d_in;
        bias = gate ? w.gate_bias : w.bias;
      }
      f.bias = bias ? bias + static_cast<ptrdiff_t>(b.expert) * a.d_out + p * P : nullptr;
      (packed ? kernels->few_packed : kernels->few_turned)(f);
    };
    float* g = desk.panel.data();
    float* u = g + kBlockRows * P;
    float* h = to.out ? to.out + p * kHalfTile : u + kBlockRows * P;
    const ptrdiff_t stride = to.out ? kHalfTile : size;
    if (a.gated) {
      multiply(true, g, size);
      multiply(false, u, size);
    } else {
      multiply(false, h, stride);
    }
    for (int i = 0; i < n; ++i, g += size, u += size, h += stride) {
      if (a.gated)
        wide->gate(a.activation, g, u, h, to.slope != nullptr, size);
      else if (a.activation != kIdentity)
        wide->activate(a.activation, h, to.slope ? g : nullptr, size);
      const ptrdiff_t here = (p + i) * kHalfTile;
      if (to.slope) narrow(b, g, kNone, nullptr, to.slope + here, nullptr);
      if (to.up) narrow(b, u, kNone, nullptr, to.up + here, nullptr);
      if (to.h) narrow(b, h, kNone, nullptr, to.h + here, to.paired ? to.paired + here : nullptr);
    }
  }
}

// n panels of d loss / d h_(l-1) from p on, y_stride apart; n is at most kFewPanels.
void GroupedHalf::Shape::few_backward(const Block& b, int l, int p, int n, const Bf16* delta,
                                      const Bf16* gate, const GroupedArrays<const float*>& w,
                                      float* y, ptrdiff_t y_stride, Desk& desk) const {
  const ptrdiff_t size = static_cast<ptrdiff_t>(b.rows) * P;
  const int d_in = width(l - 1), d_out = width(l);
  HalfFew f;
  f.x_stride = kHalfTile;
  f.width = d_out;
  f.ld = d_in;
  f.rows = b.rows;
  f.columns = std::min(n * P, d_in - p * P);
  auto multiply = [&](const Bf16* x, const float* from, float* to, ptrdiff_t stride) {
    f.x = x;
    f.w = from + static_cast<ptrdiff_t>(b.expert) * d_out * d_in + p * P;
    f.y = to;
    f.y_stride = stride;
    kernels->few_straight(f);
  };
  multiply(delta, w.weight, y, y_stride);
  if (!layer(l).gated) return;
  float* of_gate = desk.panel.data() + kBlockRows * P;
  multiply(gate, w.gate, of_gate, size);
  for (int i = 0; i < n; ++i) wide->add(y + i * y_stride, of_gate + i * size, size);
}

// Panels [o0, o1) of the gradient by an expert's weight, all of its columns.
void GroupedHalf::Shape::few_gradient(const Block& b, int l, int o0, int o1,
                                      const Bf16* paired_delta, const Bf16* paired_input,
                                      float* weight, bool past) const {
  const int d_out = width(l), d_in = width(l - 1);
  for (int o = o0; o < o1; ++o)
    kernels->few_gradient(paired_delta + at(b, l, o), paired_input + at(b, l - 1, 0), b.rows,
                          std::min(P, d_out - o * P), d_in,
                          weight + (static_cast<ptrdiff_t>(b.expert) * d_out + o * P) * d_in, past);
}

}  // namespace lamina
