// Training. One step has two phases (Phases in threads.h), and two schedules share them.
//
// Row blocks: in the first phase every part takes a share of the batch, block by block, into its
// own weight gradient; in the second it adds up the gradients of a share of the tiles and steps.
//
// Split, for small batches of big networks: in the first phase every part runs forward and
// backward for a share of the rows and keeps the activations; in the second it forms the gradient
// of a share of the tiles over the whole batch and steps each while it is hot.
//
// A table of an encoding: the first phase looks up its share of the rows level by level and keeps
// h_0, in whose place d loss / d h_0 comes, block by block; in the second every level has one
// owner, who scatters all rows into it and steps it.
//
// Parts are logical: results depend on their number, never on which threads happened to run them.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <type_traits>

#include "dispatch.h"
#include "encoding.h"
#include "half.h"
#include "jets.h"
#include "order.h"
#include "threads.h"

namespace lamina {
namespace {

constexpr int kMostParts = 64;  // gradients added up at once
// Rows of x and delta that a tile's gradient streams at a time: 32 KiB, the first cache.
constexpr int kSplitChunk = 128;
constexpr int kHalfSplitChunk = 512;

}  // namespace

template <class T>
struct Run<T>::State {
  static constexpr int P = kPanel<T>;
  struct Item {
    int l, p, q;  // q < 0: the layer's bias
  };
  struct Moments {
    Aligned<T> m, v, bias_m, bias_v;
  };

  Layout<T>& a;
  RunSpec spec;
  int64_t step = 0;
  int n_parts;
  bool split;
  std::vector<Moments> moments;
  std::vector<Item> items;
  std::vector<size_t> share;  // items [share[i], share[i+1]) belong to part i
  std::vector<std::unique_ptr<Buffers<T>>>
      buffers;  // one a part, or one for all under the split schedule
  std::vector<std::unique_ptr<Jets<T>>> jets;  // in their place where derivatives are compared
  std::vector<std::unique_ptr<Part<T>>> parts;
  // In bfloat16 these stand in for the layout's weights and for `buffers`.
  std::unique_ptr<HalfLayout> half;
  std::vector<std::unique_ptr<HalfBuffers>> half_buffers;
  const bool table;  // the encoding learns
  KeptRows<T> kept;
  std::vector<LevelGradient<T>> level_gradients;  // one a part that owns levels
  Aligned<T> table_m, table_v;

  State(Layout<T>& layout, const RunSpec& s) : a(layout), spec(s), table(layout.n_table() > 0) {
    const int batch = spec.batch_size;
    const bool derivatives = compares_derivatives(spec.loss.loss);
    const double streams = derivatives ? 1 + a.d_in : 1;
    n_parts = std::min(useful_threads(3 * a.flops_a_row * batch * streams, spec.n_threads),
                       std::min(kMostParts, batch));
    double columns = 0;
    for (int d : a.dims) columns += d;
    split = !derivatives && !a.members &&
            columns * batch < static_cast<double>(a.n_params - a.n_table());
    for (int l = 1; l <= a.depth; ++l) {
      const Layer<T>& layer = a.layer(l);
      const size_t second = spec.optimizer == Optimizer::kAdam ? 1 : 0;
      moments.push_back({Aligned<T>(layer.w.size()), Aligned<T>(layer.w.size() * second),
                         Aligned<T>(layer.bias.size()), Aligned<T>(layer.bias.size() * second)});
      for (int p = 0; p < layer.out_panels; ++p)
        for (int q = 0; q < layer.in_panels; ++q) items.push_back({l, p, q});
      items.push_back({l, 0, -1});
    }
    for (int i = 0; i < n_parts; ++i) parts.push_back(std::make_unique<Part<T>>(a, !split));
    if constexpr (std::is_same_v<T, float>)
      if (spec.bfloat16) half = std::make_unique<HalfLayout>(a, *half_kernels(), true);
    const int fair = (batch + n_parts - 1) / n_parts;
    const int rows = split ? batch : std::min(block_rows(), half ? half_rows(fair) : fair);
    for (int i = 0; derivatives && i < n_parts; ++i)
      jets.push_back(std::make_unique<Jets<T>>(a, a.d_in, nullptr, fair, true));
    for (int i = 0; !derivatives && i < (split ? 1 : n_parts); ++i)
      if constexpr (std::is_same_v<T, float>) {
        if (half)
          half_buffers.push_back(std::make_unique<HalfBuffers>(a, rows, true));
        else
          buffers.push_back(std::make_unique<Buffers<T>>(a, rows, true));
      } else {
        buffers.push_back(std::make_unique<Buffers<T>>(a, rows, true));
      }
    divide();
    if (!table) return;
    kept = KeptRows<T>(*a.encoding, batch, derivatives ? 1 + a.d_in : 1);
    for (int i = 0; i < std::min(n_parts, a.encoding->n_levels()); ++i)
      level_gradients.emplace_back(*a.encoding);
    table_m = Aligned<T>(static_cast<size_t>(a.n_table()));
    if (spec.optimizer == Optimizer::kAdam) table_v = Aligned<T>(static_cast<size_t>(a.n_table()));
  }

  int block_rows() const { return half ? half->block_rows() : a.block_rows; }
  // Where part i's rows of a batch begin; blocks of bfloat16 rows are not cut.
  int first_row(int batch_rows, int64_t i) const {
    const auto row = static_cast<int>(batch_rows * i / n_parts);
    return half ? std::min(half_rows(row), batch_rows) : row;
  }

  // Contiguous shares of equal arithmetic.
  void divide() {
    auto cost = [&](const Item& i) {
      const Layer<T>& layer = a.layer(i.l);
      return i.q < 0 ? 1.0 * layer.out_panels
                     : 1.0 * layer.in_widths[i.q] * (layer.thin ? 4 : P) / 8;
    };
    double total = 0, seen = 0;
    for (const Item& i : items) total += cost(i);
    share.push_back(0);
    for (size_t i = 0; i < items.size(); ++i) {
      seen += cost(items[i]);
      while (static_cast<int>(share.size()) < n_parts &&
             seen >= total * static_cast<double>(share.size()) / n_parts)
        share.push_back(i + 1);
    }
    while (static_cast<int>(share.size()) <= n_parts) share.push_back(items.size());
  }

  // Phase 1 of one part: rows [begin, end) of the batch.
  void pass(int part, int64_t at_step, const EpochPlan<T>& plan, const LossColumns<T>& loss,
            const int32_t* order, int64_t first, int begin, int end, double scale, NextRows<T> next,
            Watch& watch, bool ask) {
    Part<T>& own = *parts[part];
    const DropoutKey key{
        splitmix(spec.seed ^ splitmix(static_cast<uint64_t>(at_step) + 0x5bd1e995u))};
    own.clear_bias_gradients();
    own.loss = 0;
    if (begin == end)
      for (auto& g : own.gradient) g.zero();
    if (!jets.empty())
      return pass_jets(own, *jets[part], plan, loss, order, first, begin, end, scale, watch, ask);
    const int slot = split ? 0 : part;
    const int capacity = half ? half_buffers[slot]->capacity : buffers[slot]->capacity;
    const int block = std::min(block_rows(), capacity);
    const int blocks = (end - begin + block - 1) / block;
    if (table) {
      const T* x = plan.rows.x + (order ? 0 : (first + begin) * a.d_in);
      a.encoding->locate(x, order ? order + begin : nullptr, end - begin, kept, begin);
      if (!half) a.encoding->look_up(-1, kept, begin, end - begin);
    }
    for (int i = 0, row = begin; i < blocks && !watch.stopped(); ++i) {
      int rows = (end - begin) / blocks + (i < (end - begin) % blocks);
      if (half) rows = std::min(half_rows((end - begin + blocks - 1) / blocks), end - row);
      const int at = split ? row : 0;
      const int32_t* index = order ? order + row : nullptr;
      const T* x = plan.rows.x + (order ? 0 : (first + row) * a.d_in);
      const auto at_row = static_cast<uint64_t>(row);
      int portions = 4 * (blocks - i);
      if constexpr (std::is_same_v<T, float>)
        if (half) {
          HalfBuffers& b = *half_buffers[slot];
          half->load_rows(b, x, index, at, rows);
          next.fetch(portions--);
          a.load_targets(b.wide, plan.rows, first + row, index, at, rows, loss.repeat);
          half->forward_rows(b, at, rows, &key, at_row);
          next.fetch(portions--);
          own.loss += a.loss_rows(b.wide, own, at, rows, loss, plan.rows, scale, true);
          next.fetch(portions--);
          half->backward_rows(b, own, at, rows, !split, i > 0);
          next.fetch(portions--);
          if (table)
            a.encoding->keep(b.wide.delta[0].data() + static_cast<ptrdiff_t>(at) * P, P, b.stride,
                             rows, kept, row);
        }
      if (!half) {
        Buffers<T>& b = *buffers[slot];
        const ptrdiff_t from = static_cast<ptrdiff_t>(at) * P;
        if (table)
          a.encoding->lay_out(kept, row, rows, b.h[0].data() + from, P, b.stride);
        else
          a.load_rows(b, x, index, at, rows);
        next.fetch(portions--);
        a.load_targets(b, plan.rows, first + row, index, at, rows, loss.repeat);
        a.forward_rows(b, own, at, rows, &key, at_row);
        next.fetch(portions--);
        own.loss += a.loss_rows(b, own, at, rows, loss, plan.rows, scale, true);
        next.fetch(portions--);
        a.backward_rows(b, own, at, rows, table, !split, i > 0);
        next.fetch(portions--);
        if (table) a.encoding->keep(b.delta[0].data() + from, P, b.stride, rows, kept, row);
      }
      row += rows;
      if (ask) watch.check();
    }
  }

  // The same where the loss compares derivatives of the outputs as well.
  void pass_jets(Part<T>& own, Jets<T>& j, const EpochPlan<T>& plan, const LossColumns<T>& loss,
                 const int32_t* order, int64_t first, int begin, int end, double scale,
                 Watch& watch, bool ask) {
    const int blocks = (end - begin + j.capacity - 1) / j.capacity;
    for (int i = 0, row = begin; i < blocks && !watch.stopped(); ++i) {
      const int rows = (end - begin) / blocks + (i < (end - begin) % blocks);
      const int32_t* index = order ? order + row : nullptr;
      j.load(plan.rows.x + (order ? 0 : (first + row) * a.d_in), index, rows, 0, nullptr);
      j.forward(own, rows);
      own.loss += jet_loss(j, rows, spec.loss, loss, plan.rows, first + row, index, scale, true);
      j.backward_rows(own, rows, table, true, i > 0);
      if (table) j.keep(kept, rows, row);
      row += rows;
      if (ask) watch.check();
    }
  }

  StepCoefficients coefficients(int64_t at_step, double lr, double l2) const {
    StepCoefficients c{};
    c.lr = lr;
    c.beta_1 = spec.beta_1;
    c.decay = lr * spec.weight_decay;
    c.l2 = l2;
    c.nesterov = spec.nesterov;
    if (spec.optimizer == Optimizer::kAdam) {
      const double t = static_cast<double>(at_step + 1);
      const double first = 1 - std::pow(spec.beta_1, t), second = 1 - std::pow(spec.beta_2, t);
      c.lr = lr / first;
      c.beta_2 = spec.beta_2;
      c.second = 1 / second;
      c.epsilon = spec.epsilon_hat ? spec.epsilon / std::sqrt(second) : spec.epsilon;
    }
    return c;
  }

  // Phase 2 of one part: its share of the tiles.
  void update(int part, int batch_rows, const StepCoefficients& weights) {
    auto kernel = spec.optimizer == Optimizer::kAdam ? a.kernels->adam : a.kernels->sgd;
    StepCoefficients biases = weights;
    biases.decay = biases.l2 = 0;
    Part<T>& own = *parts[part];
    own.squares = 0;
    if (table)
      for (int l = part; l < a.encoding->n_levels(); l += n_parts)
        a.encoding->update(l, kept, batch_rows, level_gradients[part], table_m.data(),
                           table_v.data(), biases, spec.optimizer == Optimizer::kAdam);
    const T* gradients[kMostParts];
    for (size_t i = share[part]; i < share[part + 1]; ++i) {
      const auto [l, p, q] = items[i];
      Layer<T>& layer = a.layer(l);
      Moments& m = moments[l - 1];
      const int n = n_parts;
      if (q < 0) {
        for (int k = 0; k < n; ++k) gradients[k] = parts[k]->bias_gradient[l - 1].data();
        kernel({layer.bias.data(), m.bias_m.data(), m.bias_v.data(), gradients, n,
                static_cast<int>(layer.bias.size()) / P, P},
               biases);
        continue;
      }
      const ptrdiff_t at = layer.tile(p, q);
      int n_gradients = n;
      if (split) {
        if (layer.thin)
          own.tile.zero();  // thin kernels fill their columns only, the step reads whole registers
        tile_gradient(l, p, q, batch_rows, own.tile.data());
        gradients[0] = own.tile.data();
        n_gradients = 1;
      } else {
        for (int k = 0; k < n; ++k) gradients[k] = parts[k]->gradient[l - 1].data() + at;
      }
      T* v = m.v.size() ? m.v.data() + at : nullptr;
      own.squares += kernel({layer.w.data() + at, m.m.data() + at, v, gradients, n_gradients,
                             layer.in_widths[q], layer.out_widths[p]},
                            weights);
      if (half)
        half->pack_tile(l, p, q);
      else if (table || layer.thin || q >= a.first_hidden_panel(layer))
        a.kernels->transpose_tile(layer.w.data() + at, layer.wt.data() + layer.transposed(q, p),
                                  layer.in_widths[q], layer.out_widths[p]);
    }
  }

  // The optimiser's step on one whole gradient, packed as the weights are; that of the table is
  // zero afterwards.
  void apply(const std::vector<T*>& gradient, const std::vector<T*>& bias, T* of_table,
             const StepCoefficients& weights) {
    FlushDenormals flush;
    auto kernel = spec.optimizer == Optimizer::kAdam ? a.kernels->adam : a.kernels->sgd;
    StepCoefficients biases = weights;
    biases.decay = biases.l2 = 0;
    for (int l = 1; l <= a.depth; ++l) {
      Layer<T>& layer = a.layer(l);
      Moments& m = moments[l - 1];
      for (int p = 0; p < layer.out_panels; ++p)
        for (int q = 0; q < layer.in_panels; ++q) {
          const ptrdiff_t at = layer.tile(p, q);
          const T* g = gradient[l - 1] + at;
          kernel({layer.w.data() + at, m.m.data() + at, m.v.size() ? m.v.data() + at : nullptr, &g,
                  1, layer.in_widths[q], layer.out_widths[p]},
                 weights);
        }
      const T* g = bias[l - 1];
      kernel({layer.bias.data(), m.bias_m.data(), m.bias_v.data(), &g, 1, layer.out_panels, P},
             biases);
    }
    for (int l = 0; table && l < a.encoding->n_levels(); ++l)
      a.encoding->step(l, of_table + a.encoding->level_offset(l), nullptr, table_m.data(),
                       table_v.data(), biases, spec.optimizer == Optimizer::kAdam);
    a.transpose(table);
  }

  // One tile's gradient over the whole batch.
  void tile_gradient(int l, int p, int q, int batch_rows, T* tile) const {
    const int chunk = half ? kHalfSplitChunk : kSplitChunk;
    for (int row = 0; row < batch_rows; row += chunk) {
      const int rows = std::min(chunk, batch_rows - row);
      if constexpr (std::is_same_v<T, float>)
        if (half) half->gradient_tile(*half_buffers[0], l, p, q, row, rows, tile, row > 0);
      if (!half) a.gradient_tile(*buffers[0], l, p, q, row, rows, tile, row > 0);
    }
  }
};

template <class T>
Run<T>::Run(Model<T>& model, const RunSpec& spec)
    : state_(std::make_unique<State>(model.layout(), spec)) {}
template <class T>
Run<T>::~Run() = default;

// One call's epochs: which rows a step takes, what a phase does, and what follows it.
template <class T>
struct Run<T>::Epochs {
  struct Batch {
    int64_t epoch, index, first;
    int rows;
    double weight;  // of its rows
    double scale;   // of its gradients
  };

  State& s;
  const EpochPlan<T>& plan;
  const int64_t n, batch_size, n_batches, first_step;
  const bool ordered;
  const LossColumns<T> loss;
  const std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();
  Watch& watch;
  std::vector<int32_t> order;
  std::vector<double> weight;  // of each batch of this epoch
  double epoch_loss = 0;
  int64_t done = 0;

  Epochs(State& state, const EpochPlan<T>& p, Watch& w)
      : s(state),
        plan(p),
        n(p.rows.n),
        batch_size(state.spec.batch_size),
        n_batches((n + batch_size - 1) / batch_size),
        first_step(state.step),
        ordered(p.order || p.shuffle || p.subset),
        loss(state.a, state.spec.loss, p.rows.output_weight),
        watch(w),
        order(ordered ? static_cast<size_t>(n) : 0),
        weight(static_cast<size_t>(n_batches)) {}

  void prepare(int64_t epoch) {
    constexpr int64_t kAhead = 32;  // rows, whose weights are under way from memory
    if (plan.order)
      for (int64_t i = 0; i < n; ++i) order[i] = static_cast<int32_t>(plan.order[epoch * n + i]);
    else if (plan.shuffle)
      shuffled(order.data(), n, s.spec.seed, plan.first_epoch + epoch);
    else
      std::iota(order.begin(), order.end(), 0);
    if (plan.subset)
      for (int32_t& i : order) i = plan.subset[i];
    for (int64_t k = 0; k < n_batches; ++k) {
      const int64_t first = k * batch_size, end = std::min(n, first + batch_size);
      weight[k] = static_cast<double>(end - first);
      if (!plan.rows.row_weight) continue;
      weight[k] = 0;
      for (int64_t i = first; i < end; ++i) {
        if (ordered) __builtin_prefetch(&plan.rows.row_weight[order[std::min(n - 1, i + kAhead)]]);
        weight[k] += static_cast<double>(plan.rows.row_weight[ordered ? order[i] : i]);
      }
    }
  }

  Batch batch_of(int64_t step) const {
    const int64_t epoch = step / n_batches, i = step % n_batches, first = i * batch_size;
    const int rows = static_cast<int>(std::min(batch_size, n - first));
    return {epoch, i, first, rows, weight[i], weight[i] > 0 ? 1 / (weight[i] * loss.divisor) : 0.0};
  }
  double l2_of(const Batch& b) const {
    if (!s.spec.l2_per_row) return s.spec.l2;
    return b.weight > 0 ? s.spec.l2 / b.weight : 0.0;
  }

  // Phase 2k is the pass of step k of this call, phase 2k + 1 its update.
  void work(int64_t phase, int part, bool ask) {
    const int64_t k = phase / 2;
    const Batch b = batch_of(k);
    if (phase % 2 == 1) {
      const double lr = plan.lr[b.epoch * n_batches + b.index];
      return s.update(part, b.rows, s.coefficients(first_step + k, lr, l2_of(b)));
    }
    const int begin = s.first_row(b.rows, part), end = s.first_row(b.rows, part + 1);
    s.pass(part, first_step + k, plan, loss, ordered ? order.data() + b.first : nullptr, b.first,
           begin, end, b.scale, next_rows(b, part), watch, ask);
  }

  // What this part will read after batch b; rows that come as they lie the processor foresees.
  NextRows<T> next_rows(const Batch& b, int part) const {
    const int64_t first = b.first + b.rows;
    const auto rows = static_cast<int>(ordered ? std::min(batch_size, n - first) : 0);
    const int begin = s.first_row(rows, part), end = s.first_row(rows, part + 1);
    return {s.a, plan.rows, loss.repeat, rows ? order.data() + first + begin : nullptr,
            end - begin};
  }

  // Alone between two phases; returns whether there is another.
  bool follow(int64_t phase) {
    const Batch b = batch_of(phase / 2);
    if (phase % 2 == 0) {
      if (watch.stopped()) return false;
      double sum = 0;
      for (auto& p : s.parts) sum += p->loss;
      epoch_loss += s.spec.value_scale * sum * b.scale * b.rows;
      return true;
    }
    ++s.step;
    for (auto& p : s.parts) epoch_loss += 0.5 * l2_of(b) * b.rows * p->squares;
    return b.index + 1 < n_batches || end_epoch(b.epoch);
  }
  bool end_epoch(int64_t epoch) {
    const double mean = epoch_loss / static_cast<double>(n);
    plan.losses[epoch] = mean;
    epoch_loss = 0;
    if (!std::isfinite(mean)) return false;
    ++done;
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - started;
    if (epoch + 1 == plan.n_epochs || elapsed.count() > plan.deadline) return false;
    prepare(epoch + 1);
    return true;
  }
};

template <class T>
struct Run<T>::Call::Parts {
  State& state;
  EpochPlan<T> plan;
  Epochs epochs;
  Phases phases;
  Parts(State& s, const EpochPlan<T>& p, Watch& watch)
      : state(s), plan(p), epochs(s, plan, watch), phases(s.n_parts) {
    epochs.prepare(0);
    if (s.half) s.half->pack();
  }
};
template <class T>
Run<T>::Call::Call(Run& run, const EpochPlan<T>& plan, Watch& watch)
    : parts_(std::make_unique<Parts>(*run.state_, plan, watch)) {}
template <class T>
Run<T>::Call::~Call() = default;
template <class T>
void Run<T>::Call::work(int thread) {
  Epochs& e = parts_->epochs;
  const HalfThread tiles(parts_->state.half.get());
  parts_->phases.work(
      thread, [&](int64_t phase, int part) { e.work(phase, part, thread == 0); },
      [&](int64_t phase) { return e.follow(phase); });
}
template <class T>
int64_t Run<T>::Call::end() {
  State& s = parts_->state;
  if (s.half)
    s.a.transpose(true);  // the float32 copies were left as they stood
  else
    s.a.input_transposed_stale = true;
  ++s.a.version;
  return parts_->epochs.done;
}

template <class T>
int64_t Run<T>::epochs(const EpochPlan<T>& plan, const Poll& poll) {
  if (plan.rows.n == 0 || plan.n_epochs == 0) return 0;
  Watch watch(poll);
  Call call(*this, plan, watch);
  run_team(n_parts(), [&](int thread) { call.work(thread); });
  const int64_t done = call.end();
  if (watch.stopped()) throw Interrupted();
  return done;
}

template <class T>
int Run<T>::n_parts() const {
  return state_->n_parts;
}

template <class T>
void Run<T>::apply(const T* gradient, double lr) {
  State& s = *state_;
  std::vector<Aligned<T>> packed, packed_bias;
  std::vector<T*> w, bias;
  for (Layer<T>& layer : s.a.layers) {
    packed.emplace_back(layer.w.size()), packed_bias.emplace_back(layer.bias.size());
    w.push_back(packed.back().data()), bias.push_back(packed_bias.back().data());
  }
  s.a.pack(gradient, w, bias);
  Aligned<T> of_table(static_cast<size_t>(s.a.n_table()));
  std::copy_n(gradient + s.a.n_params - s.a.n_table(), s.a.n_table(), of_table.data());
  s.apply(w, bias, of_table.data(), s.coefficients(s.step, lr, s.spec.l2));
  ++s.step;
  s.a.input_transposed_stale = !s.table;
  ++s.a.version;
}

template <class T>
int64_t Run<T>::step() const {
  return state_->step;
}
template <class T>
void Run<T>::get_state(T* m, T* v) const {
  std::vector<const T*> w, b, w2, b2;
  for (const auto& x : state_->moments) {
    w.push_back(x.m.data()), b.push_back(x.bias_m.data());
    w2.push_back(x.v.data()), b2.push_back(x.bias_v.data());
  }
  state_->a.unpack(m, w, b, false);
  if (state_->spec.optimizer == Optimizer::kAdam)
    state_->a.unpack(v, w2, b2, false);
  else
    std::fill(v, v + state_->a.n_params, T(0));
  const Aligned<T>&table_m = state_->table_m, &table_v = state_->table_v;
  const int64_t table = state_->a.n_params - state_->a.n_table();
  std::copy_n(table_m.data(), table_m.size(), m + table);
  std::copy_n(table_v.data(), table_v.size(), v + table);
}
template <class T>
void Run<T>::set_state(const T* m, const T* v, int64_t step) {
  std::vector<T*> w, b, w2, b2;
  for (auto& x : state_->moments) {
    w.push_back(x.m.data()), b.push_back(x.bias_m.data());
    w2.push_back(x.v.data()), b2.push_back(x.bias_v.data());
  }
  state_->a.pack(m, w, b);
  if (state_->spec.optimizer == Optimizer::kAdam) state_->a.pack(v, w2, b2);
  const int64_t table = state_->a.n_params - state_->a.n_table();
  std::copy_n(m + table, state_->table_m.size(), state_->table_m.data());
  std::copy_n(v + table, state_->table_v.size(), state_->table_v.data());
  state_->step = step;
}

template class Run<float>;
template class Run<double>;

}  // namespace lamina
