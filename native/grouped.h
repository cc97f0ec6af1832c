// Grouped matrix products: a small network an expert, rows sorted by expert, one call for all of
// them (mixtures of experts; Shazeer et al. 2017, arXiv:1701.06538).
//
// A row of expert e goes through its layers l = 1..L:
//   plain:  h_l = phi(h_{l-1} W_l[e]^T + b_l[e])
//   gated:  h_l = phi(h_{l-1} G_l[e]^T + c_l[e]) * (h_{l-1} W_l[e]^T + b_l[e])
// One plain layer is a grouped linear map; (d_ff, phi), (d_model, identity) is the experts of a
// Transformer, and with the first of them gated that of today's (Shazeer 2020, arXiv:2002.05202).
// With a router, token t is sent to top_k experts and y_t = sum_k share[t][k] h_L of its k-th.
//
// Each element is one chain of multiply-adds over its inputs in ascending order and a token's
// shares are added in the order of k: a row's bits depend neither on the other rows nor on threads.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "engine.h"

namespace lamina {

struct GroupedLayer {
  int d_out;
  Activation activation;
  bool gated;
};
struct GroupedSpec {
  int n_experts, d_in;
  std::vector<GroupedLayer> layers;
  int d_out() const { return layers.back().d_out; }
};

// One layer's parameters, or with E = T* their gradients: weight (n_experts, d_out, d_in), bias
// (n_experts, d_out) or null; the gate's are null unless the layer is gated.
template <class E>
struct GroupedArrays {
  E weight, bias, gate, gate_bias;
};

// Which experts see which of the n rows of x.
template <class T>
struct Route {
  int64_t n;
  int top_k;
  const int32_t* expert;   // (n, top_k), or null: the rows come sorted, and
  const int64_t* offsets;  // (n_experts + 1,) says where each expert's begin; top_k is 1
  const T* share;          // (n, top_k), or null: every share is one
};

template <class T>
class GroupedPack;  // weights laid out for the forward pass
template <class T>
class GroupedPass;  // what a forward pass leaves for its backward pass

template <class T>
class Grouped {
 public:
  using Pack = GroupedPack<T>;
  using Pass = GroupedPass<T>;
  using Weights = std::vector<GroupedArrays<const T*>>;  // one a layer
  using Gradients = std::vector<GroupedArrays<T*>>;

  explicit Grouped(const GroupedSpec& spec);
  ~Grouped();
  const GroupedSpec& spec() const;

  std::shared_ptr<const GroupedPack<T>> pack(const Weights& weights, int n_threads) const;
  // out (n, d_out). Weights come packed, or as they are and are packed panel by panel on the way.
  void forward(const GroupedPack<T>& pack, const Route<T>& route, const T* x, T* out, int n_threads,
               const Poll& poll) const;
  std::shared_ptr<const GroupedPass<T>> forward(const Weights& weights, const Route<T>& route,
                                                const T* x, T* out, int n_threads,
                                                const Poll& poll) const;
  // Gradients are written, not added to; grad_x (n, d_in), grad_share (n, top_k) and any of
  // gradients' pointers may be null. An expert without rows gets zeros, or with keep_idle is left
  // as it is. The route's arrays are not needed any more.
  void backward(const GroupedPass<T>& pass, const Weights& weights, const T* grad_out, T* grad_x,
                T* grad_share, const Gradients& gradients, bool keep_idle, int n_threads,
                const Poll& poll) const;

 private:
  struct Shape;
  std::unique_ptr<Shape> shape_;
};

class GroupedHalfPack;
class GroupedHalfPass;

// The same with products in bfloat16 and sums in float32; half_kernels() must not be null. A row's
// bits still depend on nothing but the row; on AMX on one thing more, whether its expert sees more
// than kHalfFewRows rows: tiles take the pairs of a sum in another order than registers.
class GroupedHalf {
 public:
  using Pack = GroupedHalfPack;
  using Pass = GroupedHalfPass;
  using Weights = Grouped<float>::Weights;
  using Gradients = Grouped<float>::Gradients;

  explicit GroupedHalf(const GroupedSpec& spec);
  ~GroupedHalf();
  const GroupedSpec& spec() const;

  std::shared_ptr<const Pack> pack(const Weights& weights, int n_threads) const;
  void forward(const Pack& pack, const Route<float>& route, const float* x, float* out,
               int n_threads, const Poll& poll) const;
  std::shared_ptr<const Pass> forward(const Weights& weights, const Route<float>& route,
                                      const float* x, float* out, int n_threads,
                                      const Poll& poll) const;
  void backward(const Pass& pass, const Weights& weights, const float* grad_out, float* grad_x,
                float* grad_share, const Gradients& gradients, bool keep_idle, int n_threads,
                const Poll& poll) const;

 private:
  struct Shape;
  std::unique_ptr<Shape> shape_;
};

class GroupedBytePack;

// The forward pass alone with weights and rows of 8 bits, exact sums of their products and float32
// for everything else (kernels_byte.h says how they are scaled). Rows are scaled in groups of
// columns, in every layer anew. A row's bits depend on nothing but the row.
class GroupedByte {
 public:
  using Pack = GroupedBytePack;
  using Pass = void;  // none: it does not learn
  using Weights = Grouped<float>::Weights;

  explicit GroupedByte(const GroupedSpec& spec);
  ~GroupedByte();
  const GroupedSpec& spec() const;

  std::shared_ptr<const Pack> pack(const Weights& weights, int n_threads) const;
  void forward(const Pack& pack, const Route<float>& route, const float* x, float* out,
               int n_threads, const Poll& poll) const;

 private:
  struct Shape;
  std::unique_ptr<Shape> shape_;
};

}  // namespace lamina
