// Derivatives of outputs with respect to inputs: forward mode, and reverse mode over it.
//
// A block of rows travels as streams stacked on one another: the value, then one tangent
// t_j = dh/dx_j a direction, then, where asked for, the curvature q = sum_j c_j d^2h/dx_j^2 (for
// c_j = 1 the Laplacian, as in Li et al. 2023, arXiv:2307.08214). A layer's weights act on every
// stream alike, as one product over all their rows (only the value gets the bias); streams meet
// at the activation alone:
//
//   h = phi(z),  t_j(h) = phi' t_j(z),  q(h) = phi' q(z) + phi'' sum_j c_j t_j(z)^2
//
// and come back, g_j and b being the deltas of t_j(h) and q(h), as
//
//   delta t_j(z) = phi' g_j + 2 phi'' b c_j t_j(z),  delta q(z) = phi' b
//   delta z = phi' delta h + phi'' (sum_j t_j g_j + b q(z)) + phi''' b sum_j c_j t_j(z)^2
//
// A weight's gradient is the product of h and delta z over the stacked rows of all streams.
//
// With an encoding the streams begin as h_0 and its own derivatives (jets_input.cpp); what comes
// back to each of them goes on to the table, and to x.
#pragma once
#include "encoding.h"
#include "layout.h"

namespace lamina {

inline bool compares_derivatives(Loss loss) { return loss == kEikonal || loss == kSobolev; }

template <class T>
struct Jets {
  static constexpr int P = kPanel<T>;
  const Layout<T>& a;
  const int n_tangents, streams;
  const bool backward;
  const T* const curvature;  // c_j, one a tangent, or null
  int capacity;              // rows of a block
  ptrdiff_t stride;          // elements from panel to panel
  // [panel][stream][row][kPanel]: z_l and h_l (h[0] = x, h[L] = outputs), d loss / d of either.
  std::vector<Aligned<T>> z, h, delta;
  std::vector<Aligned<T>> d1, d2, d3;  // phi', phi'', phi''' of the value's rows
  Aligned<T> no_bias;
  Aligned<T> raw;      // coordinates, as the encoding reads them
  Aligned<T> scratch;  // panels of one derivative of h_0
  const T* along;      // of the block at hand, or null

  Jets(const Layout<T>& layout, int n_tangents, const T* curvature, int64_t most_rows,
       bool backward);

  // The input stage: h_0 and its derivatives along unit vectors first, first + 1, ... or, where
  // `along` (rows, d_in) is given, along one vector a row.
  void load(const T* x, const int32_t* index, int rows, int first, const T* along);
  // Afterwards: d loss / d x (rows, d_in), where `input` was set; with a table, d loss by the
  // streams of h_0 into rows [to, to + rows) of `kept`.
  void input_gradient(int rows, T* grad_x);
  void keep(KeptRows<T>& kept, int rows, int64_t to) const;
  void forward(Part<T>& part, int rows);
  // delta[L] holds d loss / d outputs; afterwards delta[0] holds d loss / d h_0 where `input` is
  // set, of the value alone unless x is encoded. Weight gradients go to the part.
  void clear_seeds(int rows);
  void backward_rows(Part<T>& part, int rows, bool input, bool gradients, bool accumulate);

  T* at(std::vector<Aligned<T>>& streams_of, int l, int stream, int row, int rows, int column) {
    return streams_of[l].data() + column / P * stride +
           (static_cast<ptrdiff_t>(stream) * rows + row) * P + column % P;
  }
  // (rows, d) of one stream into out[row * row_step + column * column_step].
  void copy_out(std::vector<Aligned<T>>& from, int l, int stream, int rows, T* out,
                ptrdiff_t row_step, ptrdiff_t column_step);
  int d_out() const { return a.dims.back(); }

 private:
  int loaded_rows_ = -1;  // unit vectors that stand in h[0]
  int first_ = 0;         // the first tangent's direction
  // Stream s of h_0 is the sum over its terms of weight, times along[j] of the row where j >= 0,
  // times a derivative.
  struct Term {
    Axes by;
    T weight;
    int j;
  };
  std::vector<Term> terms(int stream) const;
  void encode(const T* x, const int32_t* index, int rows);
  void derive(const Axes& by, int rows, T* panels, ptrdiff_t panel_stride) const;
  void output_forward(int rows);
  void output_backward(int rows, T* bias_gradient);
  void softmax_forward(int rows);
  void softmax_backward(int rows, T* bias_gradient);
  JetArgs<T> panel(int l, int p, int rows);
};

// Targets a row: d_out values, then d_out * d_in derivatives where the loss compares them.
int64_t target_columns(const LossSpec& loss, int d_in, int d_out);

// The loss of a block, unscaled; its derivatives by the outputs' streams go to delta[L]. A target
// that is NaN is unknown and has no term. Row i is row index[i] of the target, or first + i.
template <class T>
double jet_loss(Jets<T>& jets, int rows, const LossSpec& spec, const LossColumns<T>& columns,
                const Rows<T>& target, int64_t first, const int32_t* index, double scale,
                bool gradient);

}  // namespace lamina
