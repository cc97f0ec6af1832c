// What stands behind the last layer where derivatives are wanted: softmax, which couples outputs,
// and the losses that compare derivatives. A few numbers a row, so plain loops will do.
#include <cmath>

#include "jets.h"

namespace lamina {

// p = softmax(z). Along a direction with tangent t: g = t - p.t, dp = p g, and the second
// derivative is p (g^2 - p.g^2); the curvature sums those by c_j and adds p (u - p.u).
template <class T>
void Jets<T>::softmax_forward(int rows) {
  const int L = a.depth, d = d_out();
  for (int r = 0; r < rows; ++r) {
    auto in = [&](int s, int k) { return *at(z, L, s, r, rows, k); };
    auto out = [&](int s, int k) -> T& { return *at(h, L, s, r, rows, k); };
    T top = in(0, 0), sum = 0;
    for (int k = 1; k < d; ++k) top = in(0, k) > top ? in(0, k) : top;
    for (int k = 0; k < d; ++k) sum += out(0, k) = std::exp(in(0, k) - top);
    for (int k = 0; k < d; ++k) out(0, k) /= sum;
    const int last = n_tangents + 1;
    T mean = 0;
    for (int k = 0; curvature && k < d; ++k) mean += out(0, k) * in(last, k);
    for (int k = 0; curvature && k < d; ++k) out(last, k) = out(0, k) * (in(last, k) - mean);
    for (int j = 0; j < n_tangents; ++j) {
      T m = 0, square = 0;
      for (int k = 0; k < d; ++k) m += out(0, k) * in(1 + j, k);
      for (int k = 0; k < d; ++k) out(1 + j, k) = out(0, k) * (in(1 + j, k) - m);
      for (int k = 0; curvature && k < d; ++k) square += out(1 + j, k) * (in(1 + j, k) - m);
      for (int k = 0; curvature && k < d; ++k) {
        const T g = in(1 + j, k) - m;
        out(last, k) += curvature[j] * out(0, k) * (g * g - square);
      }
    }
  }
}

// The same lines backwards: dp gathers what p receives, b = p * delta q summed is beta.
template <class T>
void Jets<T>::softmax_backward(int rows, T* bias_gradient) {
  const int L = a.depth, d = d_out(), last = n_tangents + 1;
  std::vector<T> dp(d), dg(d);
  for (int r = 0; r < rows; ++r) {
    auto in = [&](int s, int k) { return *at(z, L, s, r, rows, k); };
    auto p = [&](int k) { return *at(h, L, 0, r, rows, k); };
    auto g = [&](int s, int k) -> T& { return *at(delta, L, s, r, rows, k); };
    T beta = 0, mean = 0;
    for (int k = 0; k < d; ++k) dp[k] = g(0, k);
    if (curvature) {
      for (int k = 0; k < d; ++k) beta += p(k) * g(last, k), mean += p(k) * in(last, k);
      for (int k = 0; k < d; ++k) dp[k] += g(last, k) * (in(last, k) - mean) - beta * in(last, k);
    }
    for (int j = 0; j < n_tangents; ++j) {
      T m = 0, square = 0, total = 0;
      for (int k = 0; k < d; ++k) m += p(k) * in(1 + j, k);
      for (int k = 0; curvature && k < d; ++k) {
        const T t = in(1 + j, k) - m;
        square += p(k) * t * t;
      }
      for (int k = 0; k < d; ++k) {
        const T t = in(1 + j, k) - m;
        dg[k] = p(k) * g(1 + j, k);
        dp[k] += g(1 + j, k) * t;
        if (curvature) {
          const T c = curvature[j];
          dg[k] += 2 * c * t * p(k) * (g(last, k) - beta);
          dp[k] += c * (g(last, k) * (t * t - square) - beta * t * t);
        }
        total += dg[k];
      }
      for (int k = 0; k < d; ++k) {
        dp[k] -= total * in(1 + j, k);
        g(1 + j, k) = dg[k] - p(k) * total;
      }
    }
    if (curvature)
      for (int k = 0; k < d; ++k) g(last, k) = p(k) * (g(last, k) - beta);
    T inner = 0;
    for (int k = 0; k < d; ++k) inner += p(k) * dp[k];
    for (int k = 0; k < d; ++k) bias_gradient[k] += g(0, k) = p(k) * (dp[k] - inner);
  }
}

namespace {

// value: r^2 or |r|; eikonal: (|grad f| - 1)^2; match: |grad f - given gradient|^2.
struct Terms {
  double eikonal, match;
  bool absolute;
};
Terms terms_of(const LossSpec& loss) {
  const std::vector<double>& p = loss.parameters;
  if (loss.loss == kEikonal) return {p[0], p[1], p[2] != 0};
  return {0, p[0], p[1] != 0};
}

}  // namespace

int64_t target_columns(const LossSpec& loss, int d_in, int d_out) {
  const bool gradients = loss.loss == kSobolev || terms_of(loss).match > 0;
  return static_cast<int64_t>(d_out) * (gradients ? 1 + d_in : 1);
}

template <class T>
double jet_loss(Jets<T>& jets, int rows, const LossSpec& spec, const LossColumns<T>& columns,
                const Rows<T>& target, int64_t first, const int32_t* index, double scale,
                bool gradient) {
  const int L = jets.a.depth, d = jets.d_out(), d_in = jets.a.d_in;
  const Terms terms = terms_of(spec);
  const T eikonal = static_cast<T>(terms.eikonal), match = static_cast<T>(terms.match);
  const int64_t width = target_columns(spec, d_in, d);
  const bool compare = width > d && match > 0;
  if (gradient) jets.clear_seeds(rows);
  double total = 0;
  for (int r = 0; r < rows; ++r) {
    const int64_t row = index ? index[r] : first + r;
    const T* y = target.values + row * width;
    const T row_weight = target.row_weight ? target.row_weight[row] : T(1);
    for (int k = 0; k < d; ++k) {
      const T weight = row_weight * columns.weight.data()[k];
      const T grad_scale = weight * static_cast<T>(scale);
      const T* f = jets.at(jets.h, L, 0, r, rows, k);
      T* g = gradient ? jets.at(jets.delta, L, 0, r, rows, k) : nullptr;
      const ptrdiff_t stream = static_cast<ptrdiff_t>(rows) * kPanel<T>;
      T loss = 0;
      if (y[k] == y[k]) {
        const T e = *f - y[k];
        loss = terms.absolute ? std::abs(e) : e * e;
        if (g) *g = grad_scale * (terms.absolute ? (e > 0) - (e < 0) : 2 * e);
      } else if (!(*f == *f)) {
        loss = *f;  // a prediction that is NaN is never right
      }
      T squares = 0;
      for (int j = 1; j <= d_in; ++j) squares += f[j * stream] * f[j * stream];
      const T norm = std::sqrt(squares);
      T pull = 0;  // d (|grad f| - 1)^2 / d f_j = 2 (1 - 1 / |grad f|) f_j, taken as 0 at 0
      if (eikonal > 0) {
        loss += eikonal * (norm - 1) * (norm - 1);
        pull = norm > 0 ? 2 * eikonal * (1 - 1 / norm) : T(0);
      }
      const T* given = compare ? y + d + static_cast<ptrdiff_t>(k) * d_in - 1 : nullptr;
      for (int j = 1; j <= d_in; ++j) {
        T slope = pull * f[j * stream];
        if (given && given[j] == given[j]) {
          const T e = f[j * stream] - given[j];
          loss += match * e * e;
          slope += 2 * match * e;
        }
        if (g) g[j * stream] = grad_scale * slope;
      }
      total += static_cast<double>(weight * loss);
    }
  }
  return total;
}

#define LAMINA_INSTANTIATE(T)                                                                     \
  template void Jets<T>::softmax_forward(int);                                                    \
  template void Jets<T>::softmax_backward(int, T*);                                               \
  template double jet_loss(Jets<T>&, int, const LossSpec&, const LossColumns<T>&, const Rows<T>&, \
                           int64_t, const int32_t*, double, bool);
LAMINA_INSTANTIATE(float)
LAMINA_INSTANTIATE(double)

}  // namespace lamina
