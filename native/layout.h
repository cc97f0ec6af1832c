// How a network lies in memory: packed weights, and the buffers a block of rows needs on its way
// through.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

#include "engine.h"
#include "threads.h"

namespace lamina {

template <class T>
class Encoding;  // encoding.h

// Cache-line aligned, zeroed, huge pages when large.
void* allocate(size_t bytes);
void release(void* p) noexcept;

template <class E>
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(size_t n) : n_(n), p_(n ? static_cast<E*>(allocate(n * sizeof(E))) : nullptr) {}
  Aligned(Aligned&& o) noexcept : n_(o.n_), p_(o.p_) { o.p_ = nullptr, o.n_ = 0; }
  Aligned& operator=(Aligned&& o) noexcept {
    std::swap(n_, o.n_);
    std::swap(p_, o.p_);
    return *this;
  }
  ~Aligned() { release(p_); }
  E* data() { return p_; }
  const E* data() const { return p_; }
  size_t size() const { return n_; }
  void zero() {
    if (n_) std::memset(static_cast<void*>(p_), 0, n_ * sizeof(E));
  }

 private:
  size_t n_ = 0;
  E* p_ = nullptr;
};

inline int panels_of(int columns, int panel) { return (columns + panel - 1) / panel; }

// One source h_j of a layer's input: its panels follow one another in the layer's weights.
struct Segment {
  int source, width, first_column, first_panel, n_panels;
};

template <class T>
struct Layer {
  static constexpr int P = kPanel<T>;
  static constexpr ptrdiff_t kTile = static_cast<ptrdiff_t>(P) * P;

  int d_out, fan_in, in_panels, out_panels;
  Activation activation;
  bool residual, thin;
  double dropout;
  std::vector<Segment> segments;
  std::vector<int> in_widths, out_widths;  // valid columns of each panel

  bool needs_slope;  // phi' must be stored: it cannot be read off h as relu's can
  bool alone =
      false;  // one reader and no residual: its delta is finished in the product that makes it
  Epilogue finish;  // how delta_l follows from d loss / d h_l

  Aligned<T> w, wt;
  // One shift a column. With k members: their k shifts, k output scales and k input scales.
  Aligned<T> bias;
  ptrdiff_t shift_of(int member) const { return static_cast<ptrdiff_t>(member) * out_panels * P; }
  ptrdiff_t scale_of(int member, int k) const { return shift_of(k + member); }
  ptrdiff_t input_scale_of(int member, int k) const {
    return shift_of(2 * k) + static_cast<ptrdiff_t>(member) * in_panels * P;
  }
  ptrdiff_t tile(int p, int q) const { return (static_cast<ptrdiff_t>(p) * in_panels + q) * kTile; }
  ptrdiff_t transposed(int q, int p) const {
    return (static_cast<ptrdiff_t>(q) * out_panels + p) * kTile;
  }
};

// Activations of up to `capacity` rows, [panel][row][kPanel] a layer.
template <class T>
struct Buffers {
  int capacity;
  ptrdiff_t stride;  // elements from panel to panel
  bool backward;
  std::vector<Aligned<T>> h;      // h[0..L-1]; h[L] holds z_L, then the output or delta_L
  std::vector<Aligned<T>> slope;  // phi'(z_l), empty where not needed
  std::vector<Aligned<T>>
      delta;  // d loss / d z_l (before its factor phi': d loss / d h_l); delta[L] is h[L]
  // With members, [panel][member][row][kPanel]: inputs u_l of the products (of layer l + 1), and
  // the products before scale and shift.
  std::vector<Aligned<T>> u, product;
  Aligned<T> y, row_weight;
  Aligned<int32_t> classes;
  Aligned<T> raw;  // coordinates, as the encoding reads them; empty without one

  Buffers(const Layout<T>& layout, int capacity, bool backward);
  explicit Buffers(int capacity);  // nothing allocated yet
  static ptrdiff_t stride_for(int capacity);
};

// What one logical part of a job owns: partial gradients and small scratch.
template <class T>
struct Part {
  std::vector<Aligned<T>> gradient;       // as Layer::w, empty under the split schedule
  std::vector<Aligned<T>> bias_gradient;  // as Layer::bias
  Aligned<T> tile;
  std::vector<const T*> pointers;
  std::vector<char> started;  // delta[l] of this block already holds a sum
  double loss = 0;
  double squares = 0;

  Part(const Layout<T>& layout, bool with_gradient);
  void clear_bias_gradients();
};

// Buffers with the part that works on them, lent out again and again.
template <class T>
struct Lane {
  Buffers<T> buffers;
  Part<T> part;
  Lane(const Layout<T>& layout, int capacity, bool backward)
      : buffers(layout, capacity, backward), part(layout, false) {}
};

// Dropout of one step; null outside training.
struct DropoutKey {
  uint64_t key;
  uint64_t of_layer(int l) const { return key + 0x9e3779b97f4a7c15ull * static_cast<uint64_t>(l); }
};

// A loss as the kernels want it: one weight and one parameter an output column.
template <class T>
struct LossColumns {
  Loss loss;
  T parameter;
  Aligned<T> weight, param;
  bool weighted;
  int repeat;      // output columns a target column (pinball levels), else 1
  double divisor;  // the mean runs over rows, and over outputs too unless the loss is cross-entropy

  LossColumns(const Layout<T>& layout, const LossSpec& spec, const T* output_weight);
};

// Asks the caller's poll now and then; only the calling thread does, the others read the answer.
class Watch {
 public:
  explicit Watch(const Poll& poll) : poll_(poll), last_(Clock::now()) {}
  void check() {
    const auto now = Clock::now();
    if (stopped() || now - last_ < std::chrono::milliseconds(50)) return;
    last_ = now;
    if (poll_ && poll_()) stop_.store(true, std::memory_order_relaxed);
  }
  bool stopped() const { return stop_.load(std::memory_order_relaxed); }

 private:
  using Clock = std::chrono::steady_clock;
  const Poll& poll_;
  Clock::time_point last_;
  std::atomic<bool> stop_{false};
};

// Threads worth waking for so much arithmetic: waking costs microseconds.
inline int useful_threads(double flops, int n_threads) {
  constexpr double kFlopsAThread = 5e5;
  return std::max(1, std::min(n_threads, static_cast<int>(std::min(flops / kFlopsAThread, 1e6))));
}

struct HalfForwardState;  // infer_half.cpp

// Model::forward with members: out (n_members, n, d_out); members.cpp.
template <class T>
void member_outputs(const Layout<T>& a, const T* x, int64_t n, T* out, int n_threads,
                    const Poll& poll);

template <class T>
struct Layout {
  static constexpr int P = kPanel<T>;
  const Kernels<T>* kernels;
  int d_in, depth;               // depth = L
  std::vector<int> dims;         // d_0, d_1, ..., d_L; d_0 = d_in unless x is encoded
  std::vector<Layer<T>> layers;  // layers[l-1]
  Output output;
  std::unique_ptr<Encoding<T>> encoding;  // h_0 = x when null
  int members;                            // that share the weights; 0: a plain network
  int64_t n_params;                       // the encoding's table, which ends theta, included
  int block_rows;                         // rows that travel together and stay in cache
  double flops_a_row;
  bool input_transposed_stale = false;
  uint64_t version = 1;                    // of the parameters: raised whenever they change
  std::shared_ptr<HalfForwardState> half;  // infer_half.cpp

  mutable ForkSafeMutex spare_mutex;
  mutable std::vector<std::unique_ptr<Lane<T>>> spare;

  explicit Layout(const Spec& spec);
  ~Layout();
  int64_t n_table() const;  // trainable numbers of the encoding
  Layer<T>& layer(int l) { return layers[l - 1]; }
  const Layer<T>& layer(int l) const { return layers[l - 1]; }

  std::unique_ptr<Lane<T>> borrow(int64_t rows, bool backward) const;
  void give_back(std::unique_ptr<Lane<T>> lane) const;

  // Flat theta layout <-> any array packed as the weights (parameters, moments, gradients).
  void pack(const T* theta, const std::vector<T*>& w, const std::vector<T*>& bias) const;
  void unpack(T* theta, const std::vector<const T*>& w, const std::vector<const T*>& bias,
              bool add) const;
  void transpose(bool input_too);
  // Panels of x, when they come first, need no transposed copy while training.
  int first_hidden_panel(const Layer<T>& layer) const;

  // The passes over rows [row0, row0 + rows) of the buffers.
  void load_rows(Buffers<T>& b, const T* x, const int32_t* index, int row0, int rows) const;
  void load_targets(Buffers<T>& b, const Rows<T>& r, int64_t first, const int32_t* index, int row0,
                    int rows, int repeat) const;
  void forward_rows(Buffers<T>& b, Part<T>& part, int row0, int rows, const DropoutKey* dropout,
                    uint64_t first_row,
                    const std::function<void(int, bool)>* watch = nullptr) const;
  // Output panels [p0, p1) of layer l only.
  void layer_rows(Buffers<T>& b, Part<T>& part, int l, int p0, int p1, int row0, int rows,
                  const DropoutKey* dropout, uint64_t first_row,
                  const std::function<void(int, bool)>* watch) const;
  double loss_rows(Buffers<T>& b, Part<T>& part, int row0, int rows, const LossColumns<T>& loss,
                   const Rows<T>& target, double scale, bool gradient) const;
  void backward_rows(Buffers<T>& b, Part<T>& part, int row0, int rows, bool input, bool gradients,
                     bool accumulate) const;
  // The same with members, in members.cpp; row0 is 0.
  void member_forward(Buffers<T>& b, Part<T>& part, int rows, const DropoutKey* dropout,
                      uint64_t first_row) const;
  void member_backward(Buffers<T>& b, Part<T>& part, int rows, bool gradients,
                       bool accumulate) const;
  void gradient_tile(const Buffers<T>& b, int l, int p, int q, int row0, int rows, T* tile,
                     bool accumulate) const;
};

// Rows of panels into a row-major matrix.
template <class T>
void copy_out(const T* panels, ptrdiff_t stride, int rows, int columns, T* out) {
  constexpr int P = kPanel<T>;
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; c += P)
      std::copy_n(panels + c / P * stride + static_cast<ptrdiff_t>(r) * P, std::min(P, columns - c),
                  out + static_cast<ptrdiff_t>(r) * columns + c);
}

// One lane a thread.
template <class T>
std::vector<std::unique_ptr<Lane<T>>> borrow_all(const Layout<T>& a, int count, int64_t rows,
                                                 bool backward) {
  std::vector<std::unique_ptr<Lane<T>>> lanes;
  for (int i = 0; i < count; ++i) lanes.push_back(a.borrow(rows, backward));
  return lanes;
}
template <class T>
void return_all(const Layout<T>& a, std::vector<std::unique_ptr<Lane<T>>>& lanes) {
  for (auto& lane : lanes) a.give_back(std::move(lane));
}

}  // namespace lamina
