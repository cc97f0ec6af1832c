// Blocking. A product runs over blocks of rows of one expert, k-blocks of its inputs and chunks of
// its output panels: a k-block of x (half a megabyte) stays in the second-level cache while the
// chunk's weight tiles pass by, each read from memory once a block and packed on the way (a
// sixteenth of the arithmetic at 32 rows, nothing at 500). Chunks and blocks are the tasks that
// threads claim. Bits depend on none of these sizes but, for the weights' gradients, on kBlockRows.
#include "grouped.h"

#include "dispatch.h"
#include "grouped_plan.h"

namespace lamina {
namespace {

constexpr int kBlockRows = 504;     // 36 tiles of 14
constexpr int kBlockPanels = 8;     // panels of a k-block
constexpr int kChunk = 8;           // output panels of a task
constexpr int kGradientRows = 252;  // rows that a weight-gradient task reads at a time
constexpr int kGradientOut = 4, kGradientIn = 8;  // its panels of deltas and of inputs
constexpr size_t kWaveBytes = size_t{128} << 20;  // of activations that inference keeps at a time

template <class T>
const Kernels<T>* current() {
  if constexpr (sizeof(T) == 4)
    return current_kernels().f32;
  else
    return current_kernels().f64;
}

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// One term x W of a sum of products: x a block's panels, w one expert's matrix.
template <class T>
struct Term {
  const T* x;
  int width;     // columns of x
  const T* w;    // row-major; turned: (columns of the result, width), else the reverse
  ptrdiff_t ld;  // its columns
  bool turned;
  const T* packed;  // instead of w: tiles [output panel][panel of x]
};

}  // namespace

template <class T>
class GroupedPack {
 public:
  struct Layer {
    Aligned<T> weight, gate, bias, gate_bias;
  };
  std::vector<Layer> layers;
};

// Of layer l: h, and what multiplies d loss / d h to give the deltas: slope (plain), or slope and
// up (gated: dh / dg and dh / du). slope is empty where it is one, or relu's, read off h.
template <class T>
class GroupedPass {
 public:
  struct Layer {
    Loan<T> h, slope, up;
  };
  Plan<T> plan;
  Loan<T> x;
  std::vector<Layer> layers;
  explicit GroupedPass(Plan<T> p) : plan(std::move(p)) {}
};

template <class T>
struct Grouped<T>::Shape {
  static constexpr int P = kPanel<T>;
  static constexpr ptrdiff_t kTile = static_cast<ptrdiff_t>(P) * P;
  using Pass = GroupedPass<T>;

  GroupedSpec spec;
  const Kernels<T>* kernels = current<T>();
  std::shared_ptr<Pool> pool = std::make_shared<Pool>();
  double flops_a_row = 0;

  explicit Shape(const GroupedSpec& s) : spec(s) {
    int before = s.d_in;
    for (const GroupedLayer& l : s.layers) {
      flops_a_row += 2.0 * before * l.d_out * (l.gated ? 2 : 1);
      before = l.d_out;
    }
  }

  const GroupedLayer& layer(int l) const { return spec.layers[l - 1]; }
  int depth() const { return static_cast<int>(spec.layers.size()); }
  int width(int l) const { return l == 0 ? spec.d_in : layer(l).d_out; }
  int panels(int l) const { return ceil_div(width(l), P); }
  Loan<T> matrix(int64_t rows, int l) const { return Loan<T>(pool, rows * panels(l) * P); }
  bool keeps_slope(int l) const {
    const GroupedLayer& a = layer(l);
    return a.gated || (a.activation != kIdentity && a.activation != kRelu);
  }
  std::vector<Loan<T>> scratch(int count, size_t n) const {
    std::vector<Loan<T>> all;
    for (int i = 0; i < count; ++i) all.emplace_back(pool, n);
    return all;
  }
  // Panel p of a block in a matrix as wide as layer l whose first row is first_row.
  ptrdiff_t at(const Block& b, int l, int p, int64_t first_row = 0) const {
    return ((b.row - first_row) * panels(l) + static_cast<ptrdiff_t>(p) * b.rows) * P;
  }
  int threads(int64_t rows, double passes, int n_threads) const {
    return useful_threads(passes * flops_a_row * static_cast<double>(rows), n_threads);
  }
  // Fewer panels a task where there would be too few tasks to share; streams want to be long.
  static int chunk(int64_t n_blocks, int n_panels, int n_threads, bool streams) {
    if (streams) return ceil_div(n_panels, n_threads == 1 ? 1 : 2 * n_threads);
    int size = kChunk;
    while (size > 1 && n_blocks * ceil_div(n_panels, size) < 8 * n_threads) size /= 2;
    return n_threads == 1 ? kChunk : size;
  }

  // Panels [p0, p1) of y = bias + sum of the terms, through the epilogue.
  void product(const Block& b, const Term<T>* terms, int n_terms, int columns, int p0, int p1,
               const T* bias, T* y, Epilogue epilogue, const T* side, T* tiles) const {
    int begin = p0;
    if (b.rows <= kStreamRows && !terms[0].packed)
      begin = stream(b, terms, n_terms, columns, p0, p1, bias, y, epilogue, side);
    if (begin < p1) by_tiles(b, terms, n_terms, columns, begin, p1, bias, y, epilogue, side, tiles);
  }
  // The same for few rows, but for a turned term's last panel where it ends early: returns the
  // first panel that is left to do.
  int stream(const Block& b, const Term<T>* terms, int n_terms, int columns, int p0, int p1,
             const T* bias, T* y, Epilogue epilogue, const T* side) const {
    const ptrdiff_t stride = static_cast<ptrdiff_t>(b.rows) * P;
    const bool turned = terms[0].turned;
    const int end = turned ? std::min(p1, columns / P) : p1;
    if (end <= p0) return p0;
    for (int i = 0; i < n_terms; ++i) {
      const Term<T>& t = terms[i];
      StreamArgs<T> s{};
      s.x = t.x;
      s.x_stride = s.y_stride = stride;
      s.width = t.width;
      s.w = t.w + static_cast<ptrdiff_t>(p0) * P * (turned ? t.ld : 1);
      s.ld = t.ld;
      s.rows = b.rows;
      s.columns = std::min(end * P, columns) - p0 * P;
      s.bias = bias ? bias + p0 * P : nullptr;
      s.y = y + p0 * stride;
      s.accumulate = i > 0;
      s.epilogue = i == n_terms - 1 ? epilogue : kNone;
      s.side = side ? side + p0 * stride : nullptr;
      (turned ? kernels->stream_turned : kernels->stream_straight)(s);
    }
    return end;
  }
  void by_tiles(const Block& b, const Term<T>* terms, int n_terms, int columns, int p0, int p1,
                const T* bias, T* y, Epilogue epilogue, const T* side, T* tiles) const {
    const T* pointers[kBlockPanels];
    int widths[kBlockPanels];
    alignas(64) T padded[P];
    const ptrdiff_t stride = static_cast<ptrdiff_t>(b.rows) * P;
    for (int i = 0; i < n_terms; ++i) {
      const Term<T>& t = terms[i];
      const int n_panels = ceil_div(t.width, P);
      for (int q0 = 0; q0 < n_panels; q0 += kBlockPanels) {
        const int q1 = std::min(q0 + kBlockPanels, n_panels);
        const bool first = i == 0 && q0 == 0, last = i == n_terms - 1 && q1 == n_panels;
        for (int q = q0; q < q1; ++q) {
          pointers[q - q0] = t.x + q * stride;
          widths[q - q0] = std::min(P, t.width - q * P);
        }
        for (int p = p0; p < p1; ++p) {
          GemmArgs<T> g{};
          g.x = pointers;
          g.widths = widths;
          g.n_panels = q1 - q0;
          g.rows = b.rows;
          g.columns = std::min(P, columns - p * P);
          g.w = t.packed ? t.packed + (static_cast<ptrdiff_t>(p) * n_panels + q0) * kTile : tiles;
          if (!t.packed)
            for (int q = q0; q < q1; ++q) load(t, p, q, widths[q - q0], g.columns, tiles, q - q0);
          if (first && bias) {
            std::fill(std::copy_n(bias + p * P, g.columns, padded), padded + P, T(0));
            g.bias = padded;
          }
          g.y = y + p * stride;
          g.accumulate = !first;
          g.epilogue = last ? epilogue : kNone;
          g.side = side ? side + p * stride : nullptr;
          kernels->gemm(g);
        }
      }
    }
  }
  void load(const Term<T>& t, int p, int q, int k, int columns, T* tiles, int place) const {
    const ptrdiff_t row = static_cast<ptrdiff_t>(t.turned ? p : q) * P;
    const ptrdiff_t column = static_cast<ptrdiff_t>(t.turned ? q : p) * P;
    const T* from = t.w + row * t.ld + column;
    if (t.turned)
      kernels->load_tile_turned(from, t.ld, columns, k, tiles + place * kTile);
    else
      kernels->load_tile(from, t.ld, k, columns, tiles + place * kTile);
  }

  Plan<T> plan(const Route<T>& route) const {
    return Plan<T>(route, spec.n_experts, kBlockRows, 1);
  }
  void forward(Pass& pass, bool keep, const Weights* raw, const GroupedPack<T>* packed, const T* x,
               const T* share, T* out, int n_threads, const Poll& poll) const;
  void backward(const Pass& pass, const Weights& weights, const T* grad_out, T* grad_x,
                T* grad_share, const Gradients& gradients, bool keep_idle, int n_threads,
                const Poll& poll) const;
  void weight_gradient(const Plan<T>& plan, int expert, int l, int o0, int i0, const T* delta,
                       const T* input, T* weight, T* bias, T* tiles) const;
  void few_gradient(const Plan<T>& plan, int expert, int l, int o0, int o1, const T* delta,
                    const T* input, T* weight, T* bias) const;
  void combine(const Plan<T>& plan, const T* rows, int l, const T* share, T* out, int n_threads,
               const Poll& poll) const;
};

template <class T>
void Grouped<T>::Shape::forward(Pass& pass, bool keep, const Weights* raw,
                                const GroupedPack<T>* packed, const T* x, const T* share, T* out,
                                int n_threads, const Poll& poll) const {
  const Plan<T>& plan = pass.plan;
  const int L = depth(), team = threads(plan.n_rows, 1, n_threads);
  const auto tiles = scratch(team, kBlockPanels * kTile);
  // Inference goes through the sorted rows in waves, so that only the last layer's rows add up.
  size_t row_bytes = 0;
  for (int l = 0; l < L; ++l) row_bytes += static_cast<size_t>(panels(l)) * 128;
  const int64_t most =
      keep ? plan.n_rows
           : std::max<int64_t>(kBlockRows, static_cast<int64_t>(kWaveBytes / row_bytes));
  const int64_t wave_rows = std::min(plan.n_rows, most + kBlockRows);
  pass.x = matrix(wave_rows, 0);
  pass.layers.clear();
  std::vector<Loan<T>> gates;  // without keep: the gates of one task
  for (int l = 1; l <= L; ++l) {
    typename Pass::Layer s;
    s.h = matrix(l == L ? plan.n_rows : wave_rows, l);
    if (keep && keeps_slope(l)) s.slope = matrix(plan.n_rows, l);
    if (keep && layer(l).gated) s.up = matrix(plan.n_rows, l);
    pass.layers.push_back(std::move(s));
    if (!keep && layer(l).gated && gates.empty())
      gates = scratch(team, static_cast<size_t>(kChunk) * kBlockRows * P);
  }
  const int n_blocks = static_cast<int>(plan.blocks.size());
  const bool few = plan.tallest() <= kStreamRows;
  for (int b0 = 0, b1; b0 < n_blocks; b0 = b1) {
    const int64_t row0 = plan.blocks[b0].row;
    for (b1 = b0 + 1; b1 < n_blocks && plan.blocks[b1].row - row0 < most;) ++b1;
    each_task(b1 - b0, team, poll, [&](int64_t task, int) {
      const Block& b = plan.blocks[b0 + task];
      const T* from = plan.token.empty() ? x + b.row * spec.d_in : x;
      kernels->gather(from, spec.d_in, plan.token.empty() ? nullptr : plan.token.data() + b.row,
                      b.rows, pass.x.data() + at(b, 0, 0, row0),
                      static_cast<ptrdiff_t>(b.rows) * P);
    });
    for (int l = 1; l <= L; ++l) {
      const GroupedLayer& a = layer(l);
      const int size = chunk(b1 - b0, panels(l), team, raw && few),
                chunks = ceil_div(panels(l), size);
      const int64_t out_row0 = l == L ? 0 : row0, slope_row0 = keep ? 0 : row0;
      auto& state = pass.layers[l - 1];
      const T* in = l == 1 ? pass.x.data() : pass.layers[l - 2].h.data();
      each_task(static_cast<int64_t>(b1 - b0) * chunks, team, poll, [&](int64_t task, int thread) {
        const Block& b = plan.blocks[b0 + task / chunks];
        const int p0 = static_cast<int>(task % chunks) * size;
        const int p1 = std::min(p0 + size, panels(l));
        const ptrdiff_t count = static_cast<ptrdiff_t>(b.rows) * P;
        const ptrdiff_t matrix_size = static_cast<ptrdiff_t>(a.d_out) * width(l - 1);
        auto multiply = [&](bool gate, T* y, Epilogue epilogue) {
          Term<T> t{in + at(b, l - 1, 0, row0), width(l - 1), nullptr, width(l - 1), true, nullptr};
          const T* bias;
          if (packed) {
            const auto& w = packed->layers[l - 1];
            t.packed =
                (gate ? w.gate : w.weight).data() + b.expert * kTile * panels(l) * panels(l - 1);
            bias = (gate ? w.gate_bias : w.bias).data();
          } else {
            const auto& w = (*raw)[l - 1];
            t.w = (gate ? w.gate : w.weight) + b.expert * matrix_size;
            bias = gate ? w.gate_bias : w.bias;
          }
          if (bias) bias += static_cast<ptrdiff_t>(b.expert) * a.d_out;
          product(b, &t, 1, a.d_out, p0, p1, bias, y, epilogue, nullptr,
                  const_cast<T*>(tiles[thread].data()));
        };
        T* h = state.h.data() + at(b, l, 0, out_row0);
        T* slope = keep && keeps_slope(l) ? state.slope.data() + at(b, l, 0, slope_row0) : nullptr;
        if (a.gated) {
          T* up = keep ? state.up.data() + at(b, l, 0, slope_row0) : h;
          T* g = keep ? slope : gates[thread].data() - p0 * count;
          multiply(true, g, kNone);
          multiply(false, up, kNone);
          for (int p = p0; p < p1; ++p)
            kernels->gate(a.activation, g + p * count, up + p * count, h + p * count, keep, count);
          return;
        }
        const bool relu = a.activation == kRelu;
        multiply(false, h, relu ? kReluEpi : kNone);
        if (!relu && a.activation != kIdentity)
          for (int p = p0; p < p1; ++p)
            kernels->activate(a.activation, h + p * count, slope ? slope + p * count : nullptr,
                              count);
      });
    }
  }
  combine(plan, pass.layers[L - 1].h.data(), L, share, out, team, poll);
}

// out[t] = sum over k of share[t][k] times the row that its k-th expert made.
template <class T>
void Grouped<T>::Shape::combine(const Plan<T>& plan, const T* rows, int l, const T* share, T* out,
                                int n_threads, const Poll& poll) const {
  constexpr int64_t kTokens = 64;
  const int k = plan.top_k, columns = width(l);
  each_task((plan.n + kTokens - 1) / kTokens, n_threads, poll, [&](int64_t task, int) {
    std::vector<const T*> from(k);
    std::vector<ptrdiff_t> strides(k);
    const int64_t end = std::min(plan.n, (task + 1) * kTokens);
    for (int64_t t = task * kTokens; t < end; ++t) {
      for (int j = 0; j < k; ++j) {
        const int64_t r = plan.sorted_row(t * k + j);
        const Block& b = plan.blocks[plan.block_of[r]];
        from[j] = rows + at(b, l, 0) + (r - b.row) * P;
        strides[j] = static_cast<ptrdiff_t>(b.rows) * P;
      }
      kernels->combine(from.data(), strides.data(), share ? share + t * k : nullptr, k, columns,
                       out + t * columns);
    }
  });
}

// Panels [o0, o1) of the gradients by an expert's weight, all its columns, and bias, of few rows.
template <class T>
void Grouped<T>::Shape::few_gradient(const Plan<T>& plan, int expert, int l, int o0, int o1,
                                     const T* delta, const T* input, T* weight, T* bias) const {
  const int d_out = width(l), d_in = width(l - 1);
  const Block& b = plan.blocks[plan.first_block[expert]];
  for (int o = o0; o < o1; ++o) {
    const T* d = delta + at(b, l, o);
    const int n = std::min(P, d_out - o * P);
    const ptrdiff_t to = static_cast<ptrdiff_t>(expert) * d_out + o * P;
    if (bias) {
      alignas(64) T sums[P] = {};
      kernels->column_sums(d, b.rows, sums);
      std::copy_n(sums, n, bias + to);
    }
    if (weight)
      kernels->stream_gradient(d, input + at(b, l - 1, 0), static_cast<ptrdiff_t>(b.rows) * P,
                               b.rows, n, d_in, weight + to * d_in);
  }
}

// Panels [o0, o0 + kGradientOut) x [i0, i0 + kGradientIn) of one expert's weight gradient, and with
// i0 = 0 those panels of its bias gradient. Tiles stay in the second-level cache while rows pass.
template <class T>
void Grouped<T>::Shape::weight_gradient(const Plan<T>& plan, int expert, int l, int o0, int i0,
                                        const T* delta, const T* input, T* weight, T* bias,
                                        T* tiles) const {
  const int o1 = std::min(o0 + kGradientOut, panels(l));
  const int i1 = std::min(i0 + kGradientIn, panels(l - 1));
  const int d_out = width(l), d_in = width(l - 1);
  if (plan.offsets[expert + 1] - plan.offsets[expert] <= kStreamRows && !plan.idle(expert)) {
    if (i0 == 0) few_gradient(plan, expert, l, o0, o1, delta, input, weight, bias);
    return;
  }
  alignas(64) T sums[kGradientOut * P] = {};
  bool started = false;
  for (int i = plan.first_block[expert]; i < plan.first_block[expert + 1]; ++i) {
    const Block& b = plan.blocks[i];
    for (int r = 0; r < b.rows; r += kGradientRows, started = true) {
      const int rows = std::min(kGradientRows, b.rows - r);
      T* tile = tiles;
      for (int o = o0; o < o1; ++o) {
        const T* d = delta + at(b, l, o) + static_cast<ptrdiff_t>(r) * P;
        if (bias && i0 == 0) kernels->column_sums(d, rows, sums + (o - o0) * P);
        if (!weight) continue;
        for (int q = i0; q < i1; ++q, tile += kTile)
          kernels->gradient_tile(d, input + at(b, l - 1, q) + static_cast<ptrdiff_t>(r) * P, rows,
                                 std::min(P, d_out - o * P), std::min(P, d_in - q * P), tile,
                                 started);
      }
    }
  }
  const int columns = std::min(d_in, i1 * P) - i0 * P;
  for (int o = o0; o < o1; ++o) {
    const int n = std::min(P, d_out - o * P);
    if (bias && i0 == 0)
      std::copy_n(sums + (o - o0) * P, n, bias + static_cast<ptrdiff_t>(expert) * d_out + o * P);
    if (!weight) continue;
    const T* tile = tiles + (o - o0) * (i1 - i0) * kTile;
    for (int j = 0; j < n; ++j) {
      T* to = weight + (static_cast<ptrdiff_t>(expert) * d_out + o * P + j) * d_in + i0 * P;
      if (!started)
        std::fill_n(to, columns, T(0));
      else
        for (int c = 0; c < columns; c += P)
          std::memcpy(to + c, tile + c / P * kTile + j * P, std::min(P, columns - c) * sizeof(T));
    }
  }
}

template <class T>
void Grouped<T>::Shape::backward(const Pass& pass, const Weights& weights, const T* grad_out,
                                 T* grad_x, T* grad_share, const Gradients& gradients,
                                 bool keep_idle, int n_threads, const Poll& poll) const {
  const Plan<T>& plan = pass.plan;
  const int L = depth(), team = threads(plan.n_rows, 2, n_threads);
  const auto tiles = scratch(team, std::max(kBlockPanels, kGradientOut * kGradientIn) * kTile);
  // delta[l] is d loss / d z_l; of a gated layer for the upper product, and gate[l] for the gate's.
  std::vector<Loan<T>> delta(L + 1), gate(L + 1);
  for (int l = 1; l <= L; ++l) {
    delta[l] = matrix(plan.n_rows, l);
    if (layer(l).gated) gate[l] = matrix(plan.n_rows, l);
  }
  if (grad_x) delta[0] = matrix(plan.n_rows, 0);
  // From d loss / d h_l in delta[l] to the deltas.
  auto split = [&](const Block& b, int l, int p) {
    const ptrdiff_t count = static_cast<ptrdiff_t>(b.rows) * P, here = at(b, l, p);
    const auto& state = pass.layers[l - 1];
    T* d = delta[l].data() + here;
    if (layer(l).gated) {
      kernels->multiply(gate[l].data() + here, d, state.slope.data() + here, count);
      kernels->multiply(d, d, state.up.data() + here, count);
    } else if (layer(l).activation == kRelu) {
      kernels->finish_delta(d, kMaskByH, state.h.data() + here, b.rows, nullptr);
    } else if (keeps_slope(l)) {
      kernels->multiply(d, d, state.slope.data() + here, count);
    }
  };
  each_task(static_cast<int64_t>(plan.blocks.size()), team, poll, [&](int64_t task, int) {
    const Block& b = plan.blocks[task];
    const bool identity = plan.token.empty();
    const ptrdiff_t stride = static_cast<ptrdiff_t>(b.rows) * P;
    T* d = delta[L].data() + at(b, L, 0);
    kernels->gather(identity ? grad_out + b.row * width(L) : grad_out, width(L),
                    identity ? nullptr : plan.token.data() + b.row, b.rows, d, stride);
    std::vector<T> dots(grad_share ? b.rows : 0);
    kernels->weigh_rows(d, grad_share ? pass.layers[L - 1].h.data() + at(b, L, 0) : nullptr,
                        plan.share.empty() ? nullptr : plan.share.data() + b.row, b.rows, width(L),
                        stride, dots.data());
    for (size_t r = 0; r < dots.size(); ++r)
      grad_share[identity ? b.row + r : plan.slot[b.row + r]] = dots[r];
    for (int p = 0; p < panels(L); ++p) split(b, L, p);
  });
  const int64_t n_blocks = static_cast<int64_t>(plan.blocks.size());
  const bool few = plan.tallest() <= kStreamRows;
  for (int l = L; l >= 1; --l) {
    const GroupedLayer& a = layer(l);
    const ptrdiff_t matrix_size = static_cast<ptrdiff_t>(a.d_out) * width(l - 1);
    const int size = chunk(n_blocks, panels(l - 1), team, few),
              chunks = ceil_div(panels(l - 1), size);
    const int64_t products = l > 1 || grad_x ? n_blocks * chunks : 0;
    const GroupedArrays<T*>& g = gradients[l - 1];
    const int out_parts = ceil_div(panels(l), kGradientOut);
    const int in_parts = ceil_div(panels(l - 1), kGradientIn), parts = out_parts * in_parts;
    const int upper = g.weight || g.bias ? 1 : 0, gated = g.gate || g.gate_bias ? 1 : 0;
    const int64_t sums = static_cast<int64_t>(spec.n_experts) * (upper + gated) * parts;
    each_task(products + sums, team, poll, [&](int64_t task, int thread) {
      T* space = const_cast<T*>(tiles[thread].data());
      if (task >= products) {
        task -= products;
        const int part = static_cast<int>(task % parts);
        const int expert = static_cast<int>(task / parts % spec.n_experts);
        const bool of_gate = gated && (!upper || task / parts >= spec.n_experts);
        if (keep_idle && plan.idle(expert)) return;
        weight_gradient(plan, expert, l, part / in_parts * kGradientOut,
                        part % in_parts * kGradientIn, (of_gate ? gate : delta)[l].data(),
                        l == 1 ? pass.x.data() : pass.layers[l - 2].h.data(),
                        of_gate ? g.gate : g.weight, of_gate ? g.gate_bias : g.bias, space);
        return;
      }
      const Block& b = plan.blocks[task / chunks];
      const int p0 = static_cast<int>(task % chunks) * size;
      const int p1 = std::min(p0 + size, panels(l - 1));
      const auto& w = weights[l - 1];
      const Term<T> terms[2] = {
          {delta[l].data() + at(b, l, 0), a.d_out, w.weight + b.expert * matrix_size, width(l - 1),
           false, nullptr},
          {a.gated ? gate[l].data() + at(b, l, 0) : nullptr, a.d_out,
           a.gated ? w.gate + b.expert * matrix_size : nullptr, width(l - 1), false, nullptr}};
      T* y = delta[l - 1].data() + at(b, l - 1, 0);
      Epilogue epilogue = kNone;
      const T* side = nullptr;
      const bool below = l > 1, fused = below && !layer(l - 1).gated;
      if (fused && layer(l - 1).activation == kRelu) {
        epilogue = kMaskByH;
        side = pass.layers[l - 2].h.data() + at(b, l - 1, 0);
      } else if (fused && keeps_slope(l - 1)) {
        epilogue = kMulByD;
        side = pass.layers[l - 2].slope.data() + at(b, l - 1, 0);
      }
      product(b, terms, a.gated ? 2 : 1, width(l - 1), p0, p1, nullptr, y, epilogue, side, space);
      if (below && !fused)
        for (int p = p0; p < p1; ++p) split(b, l - 1, p);
    });
  }
  if (grad_x) combine(plan, delta[0].data(), 0, nullptr, grad_x, team, poll);
}

template <class T>
Grouped<T>::Grouped(const GroupedSpec& spec) : shape_(std::make_unique<Shape>(spec)) {}
template <class T>
Grouped<T>::~Grouped() = default;
template <class T>
const GroupedSpec& Grouped<T>::spec() const {
  return shape_->spec;
}

template <class T>
std::shared_ptr<const GroupedPack<T>> Grouped<T>::pack(const Weights& weights,
                                                       int n_threads) const {
  const Shape& s = *shape_;
  auto pack = std::make_shared<GroupedPack<T>>();
  const int n_experts = s.spec.n_experts;
  for (int l = 1; l <= s.depth(); ++l) {
    const int d_out = s.width(l), d_in = s.width(l - 1), in = s.panels(l - 1), out = s.panels(l);
    auto tiles = [&](const T* w) {
      Aligned<T> packed(w ? static_cast<size_t>(n_experts) * out * in * Shape::kTile : 0);
      if (!w) return packed;
      each_task(static_cast<int64_t>(n_experts) * out, n_threads, Poll(), [&](int64_t task, int) {
        const int p = static_cast<int>(task % out);
        const T* from = w + (task / out * d_out + p * Shape::P) * d_in;
        for (int q = 0; q < in; ++q)
          s.kernels->load_tile_turned(from + q * Shape::P, d_in,
                                      std::min(Shape::P, d_out - p * Shape::P),
                                      std::min(Shape::P, d_in - q * Shape::P),
                                      packed.data() + (task * in + q) * Shape::kTile);
      });
      return packed;
    };
    auto copy = [&](const T* b) {
      Aligned<T> bias(b ? static_cast<size_t>(n_experts) * d_out : 0);
      if (b) std::copy_n(b, bias.size(), bias.data());
      return bias;
    };
    const auto& w = weights[l - 1];
    pack->layers.push_back({tiles(w.weight), tiles(w.gate), copy(w.bias), copy(w.gate_bias)});
  }
  return pack;
}

template <class T>
void Grouped<T>::forward(const GroupedPack<T>& pack, const Route<T>& route, const T* x, T* out,
                         int n_threads, const Poll& poll) const {
  GroupedPass<T> pass(shape_->plan(route));
  shape_->forward(pass, false, nullptr, &pack, x, route.share, out, n_threads, poll);
}
template <class T>
std::shared_ptr<const GroupedPass<T>> Grouped<T>::forward(const Weights& weights,
                                                          const Route<T>& route, const T* x, T* out,
                                                          int n_threads, const Poll& poll) const {
  auto pass = std::make_shared<GroupedPass<T>>(shape_->plan(route));
  shape_->forward(*pass, true, &weights, nullptr, x, route.share, out, n_threads, poll);
  return pass;
}
template <class T>
void Grouped<T>::backward(const GroupedPass<T>& pass, const Weights& weights, const T* grad_out,
                          T* grad_x, T* grad_share, const Gradients& gradients, bool keep_idle,
                          int n_threads, const Poll& poll) const {
  shape_->backward(pass, weights, grad_out, grad_x, grad_share, gradients, keep_idle, n_threads,
                   poll);
}

template class Grouped<float>;
template class Grouped<double>;

}  // namespace lamina
