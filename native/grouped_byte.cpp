// Grouped products of bytes. A task takes a block of an expert's rows through a group of output
// columns, so that what one task makes of a hidden layer it can scale and round by itself.
#include <cmath>
#include <cstring>

#include "dispatch.h"
#include "grouped.h"
#include "grouped_plan.h"

namespace lamina {

class GroupedBytePack {
 public:
  struct Matrix {  // of all experts, panel by panel
    Aligned<int8_t> bytes;
    Aligned<int32_t> offset;
    Aligned<float> scale;  // [group][32], as offset
    Aligned<float> bias;   // 32; zero where there is none
  };
  struct Layer {
    Matrix weight, gate;
  };
  std::vector<Layer> layers;
};

struct GroupedByte::Shape {
  static constexpr int P = kBytePanel;
  static constexpr int kGroupPanels = kByteGroup / P;
  // Rows of a block: their bytes and a panel of weights stay in the first two caches, and a
  // group's panels of weights are read once a block.
  static constexpr int kBlockRows = 192;
  GroupedSpec spec;
  const Kernels<float>* wide = current_kernels().f32;
  const ByteKernels* kernels = &byte_kernels();
  std::shared_ptr<Pool> pool = std::make_shared<Pool>();
  double flops_a_row = 0;

  explicit Shape(const GroupedSpec& s) : spec(s) {
    int before = s.d_in;
    for (const GroupedLayer& l : s.layers) {
      flops_a_row += 2.0 * before * l.d_out * (l.gated ? 2 : 1);
      before = l.d_out;
    }
  }
  static int ceil_div(int a, int b) { return (a + b - 1) / b; }
  int depth() const { return static_cast<int>(spec.layers.size()); }
  const GroupedLayer& layer(int l) const { return spec.layers[l - 1]; }
  int width(int l) const { return l == 0 ? spec.d_in : layer(l).d_out; }
  int panels(int l) const { return ceil_div(width(l), P); }
  int groups(int l) const { return ceil_div(width(l), kByteGroup); }
  ptrdiff_t row_bytes(int l) const { return static_cast<ptrdiff_t>(ceil_div(width(l), 64)) * 64; }
  ptrdiff_t panel_bytes(int l) const {  // of weights that read layer l
    return static_cast<ptrdiff_t>(ceil_div(width(l), 4)) * 4 * P;
  }

  void pack_panel(const float* w, const float* bias, int l, int p, int8_t* bytes, int32_t* offset,
                  float* scale, float* b) const {
    const int d_in = width(l - 1), d_out = width(l);
    std::memset(bytes, 0, panel_bytes(l - 1));
    std::fill_n(offset, groups(l - 1) * P, 0);
    std::fill_n(scale, groups(l - 1) * P, 0.0f);
    std::fill_n(b, P, 0.0f);
    for (int j = 0; j < P && p * P + j < d_out; ++j) {
      const int n = p * P + j;
      if (bias) b[j] = bias[n];
      for (int g = 0; g < groups(l - 1); ++g) {
        const int begin = g * kByteGroup, end = std::min(d_in, begin + kByteGroup);
        const float* row = w + static_cast<ptrdiff_t>(n) * d_in;
        float most = 0;
        bool usable = true;
        for (int k = begin; k < end; ++k) {
          usable &= std::isfinite(row[k]);
          most = std::max(most, std::fabs(row[k]));
        }
        float& s = scale[g * P + j];
        if (!usable) s = std::nanf("");
        const float inverse = most > 0 ? 127.0f / most : 0.0f;
        if (!usable || !std::isfinite(inverse)) continue;
        s = most / 127.0f;
        for (int k = begin; k < end; ++k) {
          const auto v = static_cast<int8_t>(std::lrintf(row[k] * inverse));
          bytes[static_cast<ptrdiff_t>(k / 4) * 4 * P + 4 * j + k % 4] = v;
          offset[g * P + j] -= 128 * v;
        }
      }
    }
  }

  GroupedBytePack::Matrix pack(const float* w, const float* bias, int l, int n_threads) const {
    GroupedBytePack::Matrix m;
    if (!w) return m;
    const int out = panels(l), in_groups = groups(l - 1);
    const size_t count = static_cast<size_t>(spec.n_experts) * out;
    m.bytes = Aligned<int8_t>(count * panel_bytes(l - 1));
    m.offset = Aligned<int32_t>(count * in_groups * P);
    m.scale = Aligned<float>(count * in_groups * P);
    m.bias = Aligned<float>(count * P);
    each_task(static_cast<int64_t>(count), n_threads, Poll(), [&](int64_t task, int) {
      const int64_t expert = task / out;
      pack_panel(w + expert * width(l) * width(l - 1), bias ? bias + expert * width(l) : nullptr, l,
                 static_cast<int>(task % out), m.bytes.data() + task * panel_bytes(l - 1),
                 m.offset.data() + task * in_groups * P, m.scale.data() + task * in_groups * P,
                 m.bias.data() + task * P);
    });
    return m;
  }

  // Rows of one layer as bytes, and their scales.
  struct Bytes {
    Loan<uint8_t> q;
    Loan<float> scale;
  };
  Bytes bytes(int64_t rows, int l) const {
    return {Loan<uint8_t>(pool, rows * row_bytes(l)), Loan<float>(pool, rows * groups(l))};
  }
  ByteRows into(Bytes& b, int64_t row, int rows, int l, int group) const {
    ByteRows a{};
    a.rows = rows;
    a.columns = std::min(kByteGroup, width(l) - group * kByteGroup);
    a.q = b.q.data() + row * row_bytes(l) + static_cast<ptrdiff_t>(group) * kByteGroup;
    a.q_stride = row_bytes(l);
    a.scale = b.scale.data() + row * groups(l) + group;
    a.scale_stride = groups(l);
    return a;
  }

  void multiply(const Bytes& in, const Block& b, int64_t row, int l, int p,
                const GroupedBytePack::Matrix& m, float* y) const {
    const int64_t panel = static_cast<int64_t>(b.expert) * panels(l) + p;
    ByteProduct a;
    a.x = in.q.data() + row * row_bytes(l - 1);
    a.x_stride = row_bytes(l - 1);
    a.scale = in.scale.data() + row * groups(l - 1);
    a.scale_stride = groups(l - 1);
    a.rows = b.rows;
    a.width = width(l - 1);
    a.w = m.bytes.data() + panel * panel_bytes(l - 1);
    a.offset = m.offset.data() + panel * groups(l - 1) * P;
    a.w_scale = m.scale.data() + panel * groups(l - 1) * P;
    a.bias = m.bias.data() + panel * P;
    a.y = y;
    kernels->multiply(a);
  }

  void forward(const GroupedBytePack& pack, const Plan<float>& plan, const float* x,
               const float* share, float* out, int n_threads, const Poll& poll) const {
    const int L = depth();
    const int team = useful_threads(flops_a_row * static_cast<double>(plan.n_rows) / 2, n_threads);
    const int64_t n_blocks = static_cast<int64_t>(plan.blocks.size());
    const size_t panel_rows = static_cast<size_t>(plan.tallest()) * P;
    std::vector<Loan<float>> desk;  // a group's sums, and their gate's and product
    for (int i = 0; i < team; ++i) desk.emplace_back(pool, 3 * kGroupPanels * panel_rows);
    Loan<float> result(pool, plan.n_places * panels(L) * P);
    Bytes in = bytes(plan.n_places, 0);
    each_task(n_blocks, team, poll, [&](int64_t task, int) {
      const Block& b = plan.blocks[task];
      for (int g = 0; g < groups(0); ++g) {
        ByteRows a = into(in, b.place, b.rows, 0, g);
        a.x = x + static_cast<ptrdiff_t>(g) * kByteGroup;
        a.row_stride = spec.d_in;
        a.piece_stride = P;
        if (plan.token.empty())
          a.x += b.row * spec.d_in;
        else
          a.index = plan.token.data() + b.row;
        kernels->quantise(a);
      }
    });
    for (int l = 1; l <= L; ++l) {
      const GroupedLayer& a = layer(l);
      const auto& w = pack.layers[l - 1];
      const bool last = l == L;
      // The last layer's panels need not stay together.
      const int size = last && n_blocks * groups(l) < 4 * team ? 1 : kGroupPanels;
      const int chunks = ceil_div(panels(l), size);
      Bytes next;
      if (!last) next = bytes(plan.n_places, l);
      each_task(n_blocks * chunks, team, poll, [&](int64_t task, int thread) {
        const Block& b = plan.blocks[task / chunks];
        const int p0 = static_cast<int>(task % chunks) * size;
        const int p1 = std::min(p0 + size, panels(l));
        const ptrdiff_t stride = static_cast<ptrdiff_t>(b.rows) * P;
        float* g = desk[thread].data();
        float* u = g + kGroupPanels * stride;
        float* h = last ? result.data() + (b.place * panels(l) + p0 * int64_t{b.rows}) * P
                        : u + kGroupPanels * stride;
        for (int p = p0; p < p1; ++p) {
          const ptrdiff_t here = (p - p0) * stride;
          multiply(in, b, b.place, l, p, w.weight, (a.gated ? u : h) + here);
          if (a.gated) multiply(in, b, b.place, l, p, w.gate, g + here);
        }
        if (a.gated)
          wide->gate(a.activation, g, u, h, false, (p1 - p0) * stride);
        else if (a.activation != kIdentity)
          wide->activate(a.activation, h, nullptr, (p1 - p0) * stride);
        if (last) return;
        ByteRows r = into(next, b.place, b.rows, l, p0 / kGroupPanels);
        r.x = h;
        r.row_stride = P;
        r.piece_stride = stride;
        kernels->quantise(r);
      });
      if (!last) in = std::move(next);
    }
    combine(plan, result.data(), share, out, team, poll);
  }

  void combine(const Plan<float>& plan, const float* rows, const float* share, float* out,
               int n_threads, const Poll& poll) const {
    constexpr int64_t kTokens = 64;
    const int k = plan.top_k, columns = spec.d_out(), out_panels = panels(depth());
    each_task((plan.n + kTokens - 1) / kTokens, n_threads, poll, [&](int64_t task, int) {
      std::vector<const float*> from(k);
      std::vector<ptrdiff_t> strides(k);
      const int64_t end = std::min(plan.n, (task + 1) * kTokens);
      for (int64_t t = task * kTokens; t < end; ++t) {
        for (int j = 0; j < k; ++j) {
          const int64_t r = plan.sorted_row(t * k + j);
          const Block& b = plan.blocks[plan.block_of[r]];
          from[j] = rows + (b.place * out_panels + (r - b.row)) * P;
          strides[j] = static_cast<ptrdiff_t>(b.rows) * P;
        }
        wide->combine(from.data(), strides.data(), share ? share + t * k : nullptr, k, columns,
                      out + t * columns);
      }
    });
  }
};

GroupedByte::GroupedByte(const GroupedSpec& spec) : shape_(std::make_unique<Shape>(spec)) {}
GroupedByte::~GroupedByte() = default;
const GroupedSpec& GroupedByte::spec() const { return shape_->spec; }

std::shared_ptr<const GroupedBytePack> GroupedByte::pack(const Weights& weights,
                                                         int n_threads) const {
  auto pack = std::make_shared<GroupedBytePack>();
  for (int l = 1; l <= shape_->depth(); ++l) {
    const auto& w = weights[l - 1];
    pack->layers.push_back({shape_->pack(w.weight, w.bias, l, n_threads),
                            shape_->pack(w.gate, w.gate_bias, l, n_threads)});
  }
  return pack;
}
void GroupedByte::forward(const Pack& pack, const Route<float>& route, const float* x, float* out,
                          int n_threads, const Poll& poll) const {
  const Plan<float> plan(route, spec().n_experts, Shape::kBlockRows, 1);
  shape_->forward(pack, plan, x, route.share, out, n_threads, poll);
}

}  // namespace lamina
