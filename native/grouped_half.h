// The state of grouped products in bfloat16, for grouped_half.cpp (many rows) and
// grouped_half_few.cpp (few).
#pragma once
#include "dispatch.h"
#include "grouped.h"
#include "grouped_plan.h"
#include "half.h"

namespace lamina {

class GroupedHalfPack {
 public:
  struct Layer {
    Aligned<Bf16> weight, gate;
    Aligned<float> bias, gate_bias;
  };
  std::vector<Layer> layers;
};

// As GroupedPass; `turned` are the rows again, as the weights' gradients want them: paired where
// they are few.
class GroupedHalfPass {
 public:
  struct Layer {
    Loan<Bf16> h, turned, slope, up;
  };
  Plan<float> plan;
  std::vector<Layer> layers;  // 0 is x
  Loan<float> out;
  explicit GroupedHalfPass(Plan<float> p) : plan(std::move(p)) {}
};

struct GroupedHalf::Shape {
  static constexpr int P = kHalfPanel;
  static constexpr int kBlockRows = 768;
  static constexpr int kChunk = 4;           // output panels of a task
  static constexpr int kGradientRows = 256;  // rows that a weight-gradient task reads at a time
  static constexpr int kGradientOut = 4, kGradientIn = 8;
  static int ceil_div(int a, int b) { return (a + b - 1) / b; }
  using Pass = GroupedHalfPass;
  GroupedSpec spec;
  const Kernels<float>* wide = current_kernels().f32;
  const HalfKernels* kernels = half_kernels();
  std::shared_ptr<Pool> pool = std::make_shared<Pool>();
  double flops_a_row = 0;
  int widest = 0;  // panels

  // What one thread works in.
  struct Desk {
    Loan<Bf16> tiles;   // kChunk packed panels of weights
    Loan<float> panel;  // three times kChunk panels of a block
    Loan<float> tile;   // gradient tiles
    std::vector<const Bf16*> pointers;
  };

  explicit Shape(const GroupedSpec& s) : spec(s) {
    int before = s.d_in;
    for (const GroupedLayer& l : s.layers) {
      flops_a_row += 2.0 * before * l.d_out * (l.gated ? 2 : 1);
      widest = std::max({widest, ceil_div(before, P), ceil_div(l.d_out, P)});
      before = l.d_out;
    }
  }
  const GroupedLayer& layer(int l) const { return spec.layers[l - 1]; }
  int depth() const { return static_cast<int>(spec.layers.size()); }
  int width(int l) const { return l == 0 ? spec.d_in : layer(l).d_out; }
  int panels(int l) const { return ceil_div(width(l), P); }
  bool keeps_slope(int l) const {
    const GroupedLayer& a = layer(l);
    return a.gated || (a.activation != kIdentity && a.activation != kRelu);
  }
  template <class E>
  Loan<E> matrix(int64_t places, int l) const {
    return Loan<E>(pool, places * panels(l) * P);
  }
  std::vector<Desk> desks(int count) const {
    std::vector<Desk> all(count);
    for (Desk& d : all) {
      d.tiles = Loan<Bf16>(pool, static_cast<size_t>(kChunk) * widest * kHalfTile);
      d.panel = Loan<float>(pool, size_t{3} * kChunk * kBlockRows * P);
      d.tile = Loan<float>(pool, static_cast<size_t>(kGradientOut * kGradientIn + 1) * kHalfTile);
      d.pointers.resize(widest);
    }
    return all;
  }
  std::vector<Loan<float>> scratch(int count, size_t n) const {
    std::vector<Loan<float>> all;
    for (int i = 0; i < count; ++i) all.emplace_back(pool, n);
    return all;
  }
  int threads(int64_t rows, double passes, int n_threads) const {
    return useful_threads(passes * flops_a_row * static_cast<double>(rows) / 2, n_threads);
  }
  // Fewer panels a task where there would be too few tasks to share; streams want to be long.
  static int chunk(int64_t n_blocks, int n_panels, int n_threads, bool streams) {
    if (streams && n_blocks > 0) {
      const int chunks = n_threads == 1 ? 1 : static_cast<int>((4 * n_threads - 1) / n_blocks) + 1;
      return ceil_div(n_panels, chunks);
    }
    int size = kChunk;
    while (size > 1 && n_blocks * ceil_div(n_panels, size) < 8 * n_threads) size /= 2;
    return size;
  }
  void each(int64_t n_tasks, int n_threads, const Poll& poll,
            const std::function<void(int64_t, int)>& body) const {
    each_task(n_tasks, n_threads, poll, body, kernels->enter, kernels->leave);
  }
  // A block of few rows takes the place of kHalfRows, of which only its own are touched.
  static bool few(const Block& b) { return b.rows <= kHalfFewRows; }
  static int height(const Block& b) { return half_rows(b.rows); }
  ptrdiff_t at(const Block& b, int l, int p, int64_t first_place = 0) const {
    return ((b.place - first_place) * panels(l) + static_cast<ptrdiff_t>(p) * height(b)) * P;
  }

  // Packs output panels [p0, p1) of x W^T (turned) or of x W: rows of w are ld columns apart.
  const Bf16* pack_panels(const float* w, ptrdiff_t ld, bool turned, int p0, int p1, int k_width,
                          int columns, Bf16* to) const {
    Bf16* tile = to;
    for (int p = p0; p < p1; ++p)
      for (int q = 0; q * P < k_width; ++q, tile += kHalfTile) {
        const int n = std::min(P, columns - p * P), k = std::min(P, k_width - q * P);
        if (turned)
          kernels->pack_turned(w + static_cast<ptrdiff_t>(p) * P * ld + q * P, ld, n, k, tile);
        else
          kernels->pack_straight(w + static_cast<ptrdiff_t>(q) * P * ld + p * P, ld, k, n, tile);
      }
    return to;
  }
  // Output panels of one product: more than one where its rows, of layer l, leave the second-level
  // cache.
  static int together(const Block& b, int n_panels) {
    constexpr ptrdiff_t kMost = 640 << 10;
    return static_cast<ptrdiff_t>(height(b)) * n_panels * P * 2 > kMost ? kChunk : 1;
  }
  HalfProduct product(const Block& b, const Bf16* x, int l, int columns, const Bf16* w,
                      Desk& desk) const {
    for (int q = 0; q < panels(l); ++q) desk.pointers[q] = x + at(b, l, q) - at(b, l, 0);
    return {desk.pointers.data(), panels(l), height(b), columns, w, panels(l) * kHalfTile};
  }
  void narrow(const Block& b, const float* x, Epilogue finish, const Bf16* side, Bf16* y,
              Bf16* paired) const {
    HalfNarrow a;
    a.x = x;
    a.rows = b.rows;
    a.finish = finish;
    a.side = side;
    a.y = y;
    a.paired = paired;
    a.few = few(b);
    kernels->narrow(a);
  }

  // Rows that pass all layers together: some 4 MiB of activations, or one block.
  int64_t wave_rows() const {
    constexpr int64_t kWaveBytes = 4 << 20;
    int64_t row_bytes = 0;
    for (int l = 0; l < depth(); ++l) row_bytes += int64_t{2} * P * panels(l);
    return std::max<int64_t>(kBlockRows, kWaveBytes / row_bytes);
  }
  double gradient_bytes(const Plan<float>& plan) const {
    int busy = 0;
    for (int e = 0; e < spec.n_experts; ++e) busy += !plan.idle(e);
    return 2 * flops_a_row * busy;  // four bytes a weight, which costs two operations a row
  }

  void forward(Pass& pass, bool keep, const Weights* raw, const GroupedHalfPack* packed,
               const float* x, const float* share, float* out, int n_threads,
               const Poll& poll) const;
  void backward(const Pass& pass, const Weights& weights, const float* grad_out, float* grad_x,
                float* grad_share, const Gradients& gradients, bool keep_idle, int n_threads,
                const Poll& poll) const;
  void weight_gradient(const Plan<float>& plan, int expert, int l, int o0, int i0,
                       const Bf16* paired_delta, const Bf16* turned_input, float* weight,
                       float* tiles, bool past) const;
  void combine(const Plan<float>& plan, const float* rows, int l, const float* share, float* out,
               int n_threads, const Poll& poll) const;

  // Of few rows (grouped_half_few.cpp).
  static constexpr int kFewPanels = kBlockRows / kHalfFewRows;  // of a desk's panels
  struct FewPlaces {
    Bf16 *h, *slope, *up, *paired;  // a block's first panel, or null
    float* out;                     // the last layer's result, else null
  };
  void few_gather(const Block& b, const Plan<float>& plan, const float* x, Bf16* h, Bf16* paired,
                  Desk& desk) const;
  void few_forward(const Block& b, int l, int p0, int p1, const Bf16* in, const Weights* raw,
                   const GroupedHalfPack* packed, const FewPlaces& to, Desk& desk) const;
  void few_backward(const Block& b, int l, int p, int n, const Bf16* delta, const Bf16* gate,
                    const GroupedArrays<const float*>& w, float* y, ptrdiff_t y_stride,
                    Desk& desk) const;
  void few_gradient(const Block& b, int l, int o0, int o1, const Bf16* paired_delta,
                    const Bf16* paired_input, float* weight, bool past) const;
};

}  // namespace lamina
