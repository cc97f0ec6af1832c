// Grouped products in bfloat16: rows, weights, activations and deltas are rounded to it, sums,
// biases, gradients and what leaves the last layer are float32. The blocks are taller than in
// float32, since narrowing a weight costs more beside products that cost less; a task packs one
// output panel at a time, or a few where its block's rows leave the second-level cache, and passes
// all of those rows.
#include "grouped_half.h"

#include <cstring>

namespace lamina {
namespace {

// Gradients of more bytes than that would push each other out of the caches: they go past them.
constexpr double kPastBytes = 16 << 20;

}  // namespace

void GroupedHalf::Shape::forward(Pass& pass, bool keep, const Weights* raw,
                                 const GroupedHalfPack* packed, const float* x, const float* share,
                                 float* out, int n_threads, const Poll& poll) const {
  const Plan<float>& plan = pass.plan;
  const int L = depth(), team = threads(plan.n_rows, 1, n_threads);
  auto desk = desks(team);
  // Rows go through all layers in waves, so that a layer finds in a cache what the one before it
  // left. Inference keeps one wave's rows, and the last layer's of all.
  const int64_t most = wave_rows();
  const int64_t wave = keep ? plan.n_places : std::min(plan.n_places, most + kBlockRows);
  pass.layers.clear();
  for (int l = 0; l <= L; ++l) {
    Pass::Layer s;
    const bool masked = l == L && layer(l).activation == kRelu && !layer(l).gated;
    if (l < L || (keep && masked)) s.h = matrix<Bf16>(wave, l);
    if (keep && l < L) s.turned = matrix<Bf16>(wave, l);
    if (keep && l > 0 && keeps_slope(l)) s.slope = matrix<Bf16>(wave, l);
    if (keep && l > 0 && layer(l).gated) s.up = matrix<Bf16>(wave, l);
    pass.layers.push_back(std::move(s));
  }
  pass.out = matrix<float>(plan.n_places, L);
  const bool streams = plan.tallest() <= kHalfFewRows;
  const int n_blocks = static_cast<int>(plan.blocks.size());
  for (int b0 = 0, b1; b0 < n_blocks; b0 = b1) {
    const int64_t begin = plan.blocks[b0].place, place0 = keep ? 0 : begin;
    for (b1 = b0 + 1; b1 < n_blocks && plan.blocks[b1].place - begin < most;) ++b1;
    each(b1 - b0, team, poll, [&](int64_t task, int thread) {
      const Block& b = plan.blocks[b0 + task];
      const bool identity = plan.token.empty();
      const ptrdiff_t here = at(b, 0, 0, place0);
      if (few(b))
        return few_gather(b, plan, x, pass.layers[0].h.data() + here,
                          keep ? pass.layers[0].turned.data() + here : nullptr, desk[thread]);
      kernels->gather(identity ? x + b.row * spec.d_in : x, spec.d_in,
                      identity ? nullptr : plan.token.data() + b.row, b.rows,
                      pass.layers[0].h.data() + here,
                      keep ? pass.layers[0].turned.data() + here : nullptr,
                      static_cast<ptrdiff_t>(height(b)) * P);
    });
    for (int l = 1; l <= L; ++l) {
      const GroupedLayer& a = layer(l);
      const int size = chunk(b1 - b0, panels(l), team, streams), chunks = ceil_div(panels(l), size);
      const int d_in = width(l - 1);
      auto& state = pass.layers[l];
      each(static_cast<int64_t>(b1 - b0) * chunks, team, poll, [&](int64_t task, int thread) {
        const Block& b = plan.blocks[b0 + task / chunks];
        Desk& mine = desk[thread];
        const Bf16* in = pass.layers[l - 1].h.data() + at(b, l - 1, 0, place0);
        const ptrdiff_t stride = static_cast<ptrdiff_t>(height(b)) * P;
        const int p0 = static_cast<int>(task % chunks) * size;
        const int p1 = std::min(p0 + size, panels(l));
        if (few(b)) {
          const ptrdiff_t first = at(b, l, 0, place0);
          auto place = [&](Loan<Bf16>& m) { return m.data() ? m.data() + first : nullptr; };
          const FewPlaces to{place(state.h), place(state.slope), place(state.up),
                             place(state.turned), l == L ? pass.out.data() + at(b, L, 0) : nullptr};
          return few_forward(b, l, p0, p1, in, raw, packed, to, mine);
        }
        alignas(64) float bias[kChunk * P];
        auto weights = [&](bool gate, int p, int count) {
          const float* from = nullptr;
          const Bf16* tiles;
          if (packed) {
            const auto& w = packed->layers[l - 1];
            from = (gate ? w.gate_bias : w.bias).data();
            tiles = (gate ? w.gate : w.weight).data() +
                    (static_cast<ptrdiff_t>(b.expert) * panels(l) + p) * panels(l - 1) * kHalfTile;
          } else {
            const auto& w = (*raw)[l - 1];
            from = gate ? w.gate_bias : w.bias;
            tiles = pack_panels(
                (gate ? w.gate : w.weight) + static_cast<ptrdiff_t>(b.expert) * a.d_out * d_in,
                d_in, true, p, p + count, d_in, a.d_out, mine.tiles.data());
          }
          std::fill(bias, bias + kChunk * P, 0.0f);
          const int n = std::min(count * P, a.d_out - p * P);
          if (from) std::copy_n(from + static_cast<ptrdiff_t>(b.expert) * a.d_out + p * P, n, bias);
          return product(b, in, l - 1, n, tiles, mine);
        };
        const int most = together(b, panels(l - 1));
        for (int p = p0, count; p < p1; p += count) {
          count = std::min(most, p1 - p);
          const ptrdiff_t here = at(b, l, p, place0);
          auto place = [&](Loan<Bf16>& m) { return m.data() ? m.data() + here : nullptr; };
          if (l < L && !a.gated) {
            HalfForward f{weights(false, p, count)};
            f.bias = bias;
            f.activation = a.activation;
            f.stride = stride;
            f.h = place(state.h);
            f.slope = place(state.slope);
            f.turned = place(state.turned);
            kernels->forward(f);
            continue;
          }
          float* g = mine.panel.data();
          float* u = g + count * stride;
          float* h = l == L ? pass.out.data() + at(b, l, p) : u + count * stride;
          auto sums = [&](bool gate, float* y) {
            HalfRaw r{weights(gate, p, count)};
            r.bias = bias;
            r.stride = stride;
            r.y = y;
            kernels->raw(r);
          };
          if (a.gated) {
            sums(true, g);
            sums(false, u);
            wide->gate(a.activation, g, u, h, keep, count * stride);
          } else {
            sums(false, h);
            if (a.activation != kIdentity)
              wide->activate(a.activation, h, state.slope.data() ? g : nullptr, count * stride);
          }
          HalfNarrow n;
          n.rows = b.rows;
          auto round = [&](const float* from, Bf16* y, Bf16* turned) {
            n.y = y, n.turned = turned;
            if (!y && !turned) return;
            for (n.x = from; n.x < from + count * stride; n.x += stride) {
              kernels->narrow(n);
              if (y) n.y += stride;
              if (turned) n.turned += stride;
            }
          };
          round(g, place(state.slope), nullptr);
          round(u, place(state.up), nullptr);
          round(h, place(state.h), place(state.turned));
        }
      });
    }
  }
  combine(plan, pass.out.data(), L, share, out, team, poll);
}

void GroupedHalf::Shape::combine(const Plan<float>& plan, const float* rows, int l,
                                 const float* share, float* out, int n_threads,
                                 const Poll& poll) const {
  constexpr int64_t kTokens = 64;
  const int k = plan.top_k, columns = width(l);
  each_task((plan.n + kTokens - 1) / kTokens, n_threads, poll, [&](int64_t task, int) {
    std::vector<const float*> from(k);
    std::vector<ptrdiff_t> strides(k);
    const int64_t end = std::min(plan.n, (task + 1) * kTokens);
    for (int64_t t = task * kTokens; t < end; ++t) {
      for (int j = 0; j < k; ++j) {
        const int64_t r = plan.sorted_row(t * k + j);
        const Block& b = plan.blocks[plan.block_of[r]];
        from[j] = rows + at(b, l, 0) + (r - b.row) * P;
        strides[j] = static_cast<ptrdiff_t>(height(b)) * P;
      }
      wide->combine(from.data(), strides.data(), share ? share + t * k : nullptr, k, columns,
                    out + t * columns);
    }
  });
}

// As in float32; the tiles come out as [input][output] and are transposed on the way out.
void GroupedHalf::Shape::weight_gradient(const Plan<float>& plan, int expert, int l, int o0, int i0,
                                         const Bf16* paired_delta, const Bf16* turned_input,
                                         float* weight, float* tiles, bool past) const {
  const int o1 = std::min(o0 + kGradientOut, panels(l));
  if (!plan.idle(expert) && few(plan.blocks[plan.first_block[expert]])) {
    if (i0 == 0)
      few_gradient(plan.blocks[plan.first_block[expert]], l, o0, o1, paired_delta, turned_input,
                   weight, past);
    return;
  }
  const int i1 = std::min(i0 + kGradientIn, panels(l - 1));
  const int d_out = width(l), d_in = width(l - 1);
  bool started = false;
  for (int i = plan.first_block[expert]; i < plan.first_block[expert + 1]; ++i) {
    const Block& b = plan.blocks[i];
    for (int r = 0; r < height(b); r += kGradientRows, started = true) {
      const int rows = std::min(kGradientRows, height(b) - r);
      float* tile = tiles;
      for (int o = o0; o < o1; ++o)
        for (int q = i0; q < i1; ++q, tile += kHalfTile)
          kernels->gradient_tile(turned_input + at(b, l - 1, q) + static_cast<ptrdiff_t>(r) * P,
                                 paired_delta + at(b, l, o) + static_cast<ptrdiff_t>(r) * P, rows,
                                 std::min(P, d_in - q * P), std::min(P, d_out - o * P), tile,
                                 started);
    }
  }
  float* turned = tiles + kGradientOut * kGradientIn * kHalfTile;
  for (int o = o0; o < o1; ++o)
    for (int q = i0; q < i1; ++q, tiles += kHalfTile) {
      const int n = std::min(P, d_out - o * P), k = std::min(P, d_in - q * P);
      if (started) wide->transpose_tile(tiles, turned, P, P);
      for (int j = 0; j < n; ++j) {
        float* to = weight + (static_cast<ptrdiff_t>(expert) * d_out + o * P + j) * d_in + q * P;
        if (started)
          std::memcpy(to, turned + j * P, k * sizeof(float));
        else
          std::fill_n(to, k, 0.0f);
      }
    }
}

void GroupedHalf::Shape::backward(const Pass& pass, const Weights& weights, const float* grad_out,
                                  float* grad_x, float* grad_share, const Gradients& gradients,
                                  bool keep_idle, int n_threads, const Poll& poll) const {
  const Plan<float>& plan = pass.plan;
  const int L = depth(), team = threads(plan.n_rows, 2, n_threads);
  const int64_t n_blocks = static_cast<int64_t>(plan.blocks.size());
  auto desk = desks(team);
  // Deltas of a layer's product and of its gate's; column sums of each by block.
  struct Delta {
    Loan<Bf16> rows, paired;
    Loan<float> sums;
  };
  std::vector<Delta> delta(L + 1), gate(L + 1);
  auto make = [&](int l) {
    Delta d{matrix<Bf16>(plan.n_places, l), matrix<Bf16>(plan.n_places, l),
            matrix<float>(n_blocks, l)};
    std::fill_n(d.sums.data(), n_blocks * panels(l) * P, 0.0f);
    return d;
  };
  for (int l = 1; l <= L; ++l) {
    delta[l] = make(l);
    if (layer(l).gated) gate[l] = make(l);
  }
  Loan<float> delta_x;
  if (grad_x) delta_x = matrix<float>(plan.n_places, 0);
  // From one panel of d loss / d h_l to the deltas.
  auto split = [&](const Block& b, int64_t block, int l, int p, const float* dh) {
    const ptrdiff_t here = at(b, l, p);
    const auto& state = pass.layers[l];
    const bool gated = layer(l).gated;
    auto put = [&](Delta& d, Epilogue finish, const Loan<Bf16>& side) {
      HalfNarrow a;
      a.x = dh;
      a.rows = b.rows;
      a.finish = finish;
      a.side = finish == kNone ? nullptr : side.data() + here;
      a.y = d.rows.data() + here;
      a.paired = d.paired.data() + here;
      a.few = few(b);
      a.column_sums = d.sums.data() + (block * panels(l) + p) * P;
      kernels->narrow(a);
    };
    if (gated) {
      put(gate[l], kMulByD, state.slope);
      put(delta[l], kMulByD, state.up);
    } else if (layer(l).activation == kRelu) {
      put(delta[l], kMaskByH, state.h);
    } else {
      put(delta[l], keeps_slope(l) ? kMulByD : kNone, state.slope);
    }
  };
  auto blocks_of_rows = scratch(team, static_cast<size_t>(kBlockRows) * panels(L) * P);
  const bool streams = plan.tallest() <= kHalfFewRows;
  const bool past = gradient_bytes(plan) > kPastBytes;
  // In waves, as forward, but of whole experts.
  const int64_t most_rows = wave_rows();
  for (int e0 = 0, e1; e0 < spec.n_experts; e0 = e1) {
    const int b0 = plan.first_block[e0];
    const auto place = [&](int e) {
      const int i = plan.first_block[e];
      return i < n_blocks ? plan.blocks[i].place : plan.n_places;
    };
    for (e1 = e0 + 1; e1 < spec.n_experts && place(e1) - place(e0) < most_rows;) ++e1;
    const int b1 = plan.first_block[e1];
    each(b1 - b0, team, poll, [&](int64_t task, int thread) {
      const int block = b0 + static_cast<int>(task);
      const Block& b = plan.blocks[block];
      const bool identity = plan.token.empty();
      const ptrdiff_t stride = static_cast<ptrdiff_t>(height(b)) * P;
      float* d = blocks_of_rows[thread].data();
      wide->gather(identity ? grad_out + b.row * width(L) : grad_out, width(L),
                   identity ? nullptr : plan.token.data() + b.row, b.rows, d, stride);
      std::vector<float> dots(grad_share ? b.rows : 0);
      wide->weigh_rows(d, grad_share ? pass.out.data() + at(b, L, 0) : nullptr,
                       plan.share.empty() ? nullptr : plan.share.data() + b.row, b.rows, width(L),
                       stride, dots.data());
      for (size_t r = 0; r < dots.size(); ++r)
        grad_share[identity ? b.row + r : plan.slot[b.row + r]] = dots[r];
      for (int p = 0; p < panels(L); ++p) split(b, block, L, p, d + p * stride);
    });
    for (int l = L; l >= 1; --l) {
      const GroupedLayer& a = layer(l);
      const int d_in = width(l - 1);
      const ptrdiff_t matrix_size = static_cast<ptrdiff_t>(a.d_out) * d_in;
      const int size = chunk(b1 - b0, panels(l - 1), team, streams),
                chunks = ceil_div(panels(l - 1), size);
      const int64_t products = l > 1 || grad_x ? static_cast<int64_t>(b1 - b0) * chunks : 0;
      const GroupedArrays<float*>& g = gradients[l - 1];
      const int in_parts = ceil_div(panels(l - 1), kGradientIn);
      const int parts = ceil_div(panels(l), kGradientOut) * in_parts;
      const int upper = g.weight ? 1 : 0, gated = g.gate ? 1 : 0;
      const int64_t sums = static_cast<int64_t>(e1 - e0) * (upper + gated) * parts;
      each(products + sums, team, poll, [&](int64_t task, int thread) {
        Desk& mine = desk[thread];
        if (task >= products) {
          task -= products;
          const int part = static_cast<int>(task % parts);
          const int expert = e0 + static_cast<int>(task / parts % (e1 - e0));
          const bool of_gate = gated && (!upper || task / parts >= e1 - e0);
          if (keep_idle && plan.idle(expert)) return;
          weight_gradient(plan, expert, l, part / in_parts * kGradientOut,
                          part % in_parts * kGradientIn, (of_gate ? gate : delta)[l].paired.data(),
                          pass.layers[l - 1].turned.data(), of_gate ? g.gate : g.weight,
                          mine.tile.data(), past);
          return;
        }
        const int block = b0 + static_cast<int>(task / chunks);
        const Block& b = plan.blocks[block];
        const int p0 = static_cast<int>(task % chunks) * size;
        const int p1 = std::min(p0 + size, panels(l - 1));
        if (few(b)) {
          const ptrdiff_t here = at(b, l, 0);
          const ptrdiff_t stride = l == 1 ? kHalfTile : static_cast<ptrdiff_t>(b.rows) * P;
          for (int p = p0; p < p1; p += kFewPanels) {
            const int n = std::min(kFewPanels, p1 - p);
            float* y = l == 1 ? delta_x.data() + at(b, 0, p) : mine.panel.data();
            few_backward(b, l, p, n, delta[l].rows.data() + here,
                         a.gated ? gate[l].rows.data() + here : nullptr, weights[l - 1], y, stride,
                         mine);
            if (l > 1)
              for (int i = 0; i < n; ++i) split(b, block, l - 1, p + i, y + i * stride);
          }
          return;
        }
        const ptrdiff_t stride = static_cast<ptrdiff_t>(height(b)) * P;
        const int most = together(b, panels(l));
        for (int p = p0, count; p < p1; p += count) {
          count = std::min(most, p1 - p);
          float* y = l == 1 ? delta_x.data() + at(b, 0, p) : mine.panel.data();
          for (int term = 0; term < (a.gated ? 2 : 1); ++term) {
            const float* w = term ? weights[l - 1].gate : weights[l - 1].weight;
            const Bf16* tiles = pack_panels(w + b.expert * matrix_size, d_in, false, p, p + count,
                                            a.d_out, d_in, mine.tiles.data());
            HalfRaw r{product(b, (term ? gate : delta)[l].rows.data() + at(b, l, 0), l,
                              std::min(count * P, d_in - p * P), tiles, mine)};
            r.stride = stride;
            r.y = y;
            r.accumulate = term == 1;
            kernels->raw(r);
          }
          if (l > 1)
            for (int i = 0; i < count; ++i) split(b, block, l - 1, p + i, y + i * stride);
        }
      });
    }
  }
  for (int l = 1; l <= L; ++l) {
    const GroupedArrays<float*>& g = gradients[l - 1];
    const int d_out = width(l);
    auto add_up = [&](const Delta& d, float* bias) {
      if (!bias) return;
      for (int e = 0; e < spec.n_experts; ++e) {
        if (keep_idle && plan.idle(e)) continue;
        for (int c = 0; c < d_out; ++c) {
          float sum = 0;
          for (int i = plan.first_block[e]; i < plan.first_block[e + 1]; ++i)
            sum += d.sums.data()[static_cast<ptrdiff_t>(i) * panels(l) * P + c];
          bias[static_cast<ptrdiff_t>(e) * d_out + c] = sum;
        }
      }
    };
    add_up(delta[l], g.bias);
    if (layer(l).gated) add_up(gate[l], g.gate_bias);
  }
  if (grad_x) combine(plan, delta_x.data(), 0, nullptr, grad_x, team, poll);
}

GroupedHalf::GroupedHalf(const GroupedSpec& spec) : shape_(std::make_unique<Shape>(spec)) {}
GroupedHalf::~GroupedHalf() = default;
const GroupedSpec& GroupedHalf::spec() const { return shape_->spec; }

std::shared_ptr<const GroupedHalfPack> GroupedHalf::pack(const Weights& weights,
                                                         int n_threads) const {
  const Shape& s = *shape_;
  auto pack = std::make_shared<GroupedHalfPack>();
  const int n_experts = s.spec.n_experts;
  for (int l = 1; l <= s.depth(); ++l) {
    const int d_out = s.width(l), d_in = s.width(l - 1), in = s.panels(l - 1), out = s.panels(l);
    auto tiles = [&](const float* w) {
      Aligned<Bf16> packed(w ? static_cast<size_t>(n_experts) * out * in * kHalfTile : 0);
      if (!w) return packed;
      s.each(static_cast<int64_t>(n_experts) * out, n_threads, Poll(), [&](int64_t task, int) {
        const int p = static_cast<int>(task % out);
        s.pack_panels(w + task / out * d_out * d_in, d_in, true, p, p + 1, d_in, d_out,
                      packed.data() + task * in * kHalfTile);
      });
      return packed;
    };
    auto copy = [&](const float* b) {
      Aligned<float> bias(b ? static_cast<size_t>(n_experts) * d_out : 0);
      if (b) std::copy_n(b, bias.size(), bias.data());
      return bias;
    };
    const auto& w = weights[l - 1];
    pack->layers.push_back({tiles(w.weight), tiles(w.gate), copy(w.bias), copy(w.gate_bias)});
  }
  return pack;
}
void GroupedHalf::forward(const Pack& pack, const Route<float>& route, const float* x, float* out,
                          int n_threads, const Poll& poll) const {
  GroupedHalfPass pass(Plan<float>(route, spec().n_experts, Shape::kBlockRows, kHalfRows));
  shape_->forward(pass, false, nullptr, &pack, x, route.share, out, n_threads, poll);
}
std::shared_ptr<const GroupedHalfPass> GroupedHalf::forward(const Weights& weights,
                                                            const Route<float>& route,
                                                            const float* x, float* out,
                                                            int n_threads, const Poll& poll) const {
  auto pass = std::make_shared<GroupedHalfPass>(
      Plan<float>(route, spec().n_experts, Shape::kBlockRows, kHalfRows));
  shape_->forward(*pass, true, &weights, nullptr, x, route.share, out, n_threads, poll);
  return pass;
}
void GroupedHalf::backward(const Pass& pass, const Weights& weights, const float* grad_out,
                           float* grad_x, float* grad_share, const Gradients& gradients,
                           bool keep_idle, int n_threads, const Poll& poll) const {
  shape_->backward(pass, weights, grad_out, grad_x, grad_share, gradients, keep_idle, n_threads,
                   poll);
}

}  // namespace lamina
