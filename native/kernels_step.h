// Optimiser steps, tile transposition, row gathering and this ISA's table. Included last, in the
// ISA's namespace.

#include "kernels_peak.h"

template <class T>
INLINE V<T> total_gradient(const StepArgs<T>& a, ptrdiff_t at) {
  V<T> g = load(a.gradients[0] + at);
  for (int i = 1; i < a.n_gradients; ++i) g += load(a.gradients[i] + at);
  return g;
}

// Kingma & Ba 2014 (arXiv:1412.6980), decoupled decay as Loshchilov & Hutter 2017
// (arXiv:1711.05101).
template <class T>
double adam(const StepArgs<T>& a, const StepCoefficients& c) {
  const T b1 = static_cast<T>(c.beta_1), b2 = static_cast<T>(c.beta_2);
  const T one_b1 = static_cast<T>(1 - c.beta_1), one_b2 = static_cast<T>(1 - c.beta_2);
  const T lr = static_cast<T>(c.lr), second = static_cast<T>(c.second),
          epsilon = static_cast<T>(c.epsilon);
  const T keep = static_cast<T>(1 - c.decay), l2 = static_cast<T>(c.l2);
  V<T> squares = {};
  for (int r = 0; r < a.rows; ++r)
    for (int n = 0; n < a.columns; n += kLanes<T>) {
      const ptrdiff_t at = static_cast<ptrdiff_t>(r) * kPanel<T> + n;
      V<T> w = load(a.w + at);
      V<T> g = total_gradient(a, at);
      if (l2 != T(0)) {
        squares += w * w;
        g += l2 * w;
      }
      const V<T> m = b1 * load(a.m + at) + one_b1 * g;
      const V<T> v = b2 * load(a.v + at) + one_b2 * g * g;
      store(a.m + at, m);
      store(a.v + at, v);
      store(a.w + at, keep * w - lr * m * inverse_root_plus(v * second, epsilon));
    }
  return l2 != T(0) ? static_cast<double>(horizontal_sum<T>(squares)) : 0.0;
}

// Velocity form (Sutskever et al. 2013): v = momentum v - lr g; w += v, or momentum v - lr g under
// Nesterov.
template <class T>
double sgd(const StepArgs<T>& a, const StepCoefficients& c) {
  const T momentum = static_cast<T>(c.beta_1), lr = static_cast<T>(c.lr);
  const T keep = static_cast<T>(1 - c.decay), l2 = static_cast<T>(c.l2);
  V<T> squares = {};
  for (int r = 0; r < a.rows; ++r)
    for (int n = 0; n < a.columns; n += kLanes<T>) {
      const ptrdiff_t at = static_cast<ptrdiff_t>(r) * kPanel<T> + n;
      V<T> w = load(a.w + at);
      V<T> g = total_gradient(a, at);
      if (l2 != T(0)) {
        squares += w * w;
        g += l2 * w;
      }
      const V<T> v = momentum * load(a.m + at) - lr * g;
      store(a.m + at, v);
      store(a.w + at, keep * w + (c.nesterov ? momentum * v - lr * g : v));
    }
  return l2 != T(0) ? static_cast<double>(horizontal_sum<T>(squares)) : 0.0;
}

template <class T>
void transpose_tile(const T* w, T* wt, int k_rows, int n_columns) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  for (int k = 0; k < k_rows; k += L)
    for (int n = 0; n < n_columns; n += L) {
      V<T> a[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) a[i] = load(w + (k + i) * P + n);
      transpose_square<T>(a);
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) store(wt + (n + i) * P + k, a[i]);
    }
}

template <class T>
void gather(const T* x, ptrdiff_t columns, const int32_t* index, int rows, T* panels,
            ptrdiff_t stride) {
  constexpr int P = kPanel<T>, L = kLanes<T>, kAhead = 8, kChunk = 16 / sizeof(T);
  const ptrdiff_t full = columns / P * P;
  for (int r = 0; r < rows; ++r) {
    if (index && r + kAhead < rows) {
      const char* next = reinterpret_cast<const char*>(x + index[r + kAhead] * columns);
      for (ptrdiff_t byte = 0; byte < columns * static_cast<ptrdiff_t>(sizeof(T)); byte += 64)
        __builtin_prefetch(next + byte);
    }
    const T* from = x + (index ? index[r] : static_cast<ptrdiff_t>(r)) * columns;
    T* to = panels + static_cast<ptrdiff_t>(r) * P;
    ptrdiff_t c = 0;
    for (; c < full; c += P, to += stride) {
#pragma GCC unroll 8
      for (int v = 0; v < P; v += L) store(to + v, loadu(from + c + v));
    }
    if (c == columns) continue;
    int v = 0;
    for (; c + L <= columns; c += L, v += L) store(to + v, loadu(from + c));
    for (int pad = v; pad < P; pad += L) store(to + pad, V<T>{});
    for (; c + kChunk <= columns; c += kChunk, v += kChunk)
      __builtin_memcpy(to + v, from + c, kChunk * sizeof(T));
    for (; c < columns; ++c, ++v) to[v] = from[c];
  }
}

// Vector mathematics for tests, in the order of tests/native/test_vector_math.py.
template <class T>
void map(int function, const T* x, T* y, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i += kLanes<T>) {
    const V<T> a = load(x + i);
    V<T> b = a;
    switch (function) {
      case 0:
        b = vexp<T>(a);
        break;
      case 1:
        b = vexpm1<T>(a);
        break;
      case 2:
        b = vlog<T>(a);
        break;
      case 3:
        b = vlog1p_unit<T>(a);
        break;
      case 4:
        b = vsigmoid<T>(a);
        break;
      case 5:
        b = vtanh<T>(a);
        break;
      case 6:
        b = vsoftplus<T>(a);
        break;
      case 7:
        b = vnormal<T>(a).cdf;
        break;
      case 8:
        b = vsincos<T>(a).sin;
        break;
      case 9:
        b = vsincos<T>(a).cos;
        break;
      case 10:
        b = inverse_root_plus(a, T(0));
        break;
      case 11:
        b = vexp_wide<T>(a);
        break;
    }
    store(y + i, b);
  }
}

#include "kernels_grouped.h"
#include "kernels_stream.h"

// What members add to shared products (members.cpp): y = x * scale + shift, column by column.
template <class T>
void affine(const T* x, const T* scale, const T* shift, int rows, T* y) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  for (int r = 0; r < rows; ++r, x += P, y += P)
#pragma GCC unroll 8
    for (int v = 0; v < P; v += L) {
      const V<T> scaled = load(x + v) * load(scale + v);
      store(y + v, shift ? scaled + load(shift + v) : scaled);
    }
}
// Its way back: sums += sum over rows of d * x; d *= scale.
template <class T>
void affine_back(T* d, const T* x, const T* scale, int rows, T* sums) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  for (int v = 0; v < P; v += L) {
    const V<T> factor = load(scale + v);
    V<T> sum = load(sums + v);
    for (int r = 0; r < rows; ++r) {
      const ptrdiff_t at = static_cast<ptrdiff_t>(r) * P + v;
      const V<T> delta = load(d + at);
      sum += delta * load(x + at);
      store(d + at, delta * factor);
    }
    store(sums + v, sum);
  }
}

template <class T>
constexpr Kernels<T> table() {
  return {gemm<T>,
          few_rows<T>(),
          gemm_few<T>,
          gradient_tile<T>,
          kLanes<T> < 4 ? kLanes<T> : 4,
          thin_forward<T>,
          thin_gradient_tile<T>,
          activate<T>,
          add<T>,
          finish_delta<T>,
          dropout<T>,
          loss_kernel<T>,
          output_unit<T>,
          transpose_tile<T>,
          adam<T>,
          sgd<T>,
          gather<T>,
          map<T>,
          peak<T>,
          load_tile<T>,
          load_tile_turned<T>,
          stream_turned<T>,
          stream_straight<T>,
          stream_gradient<T>,
          gate<T>,
          multiply<T>,
          column_sums<T>,
          weigh_rows<T>,
          combine<T>,
          grid_forward<T>,
          grid_scatter<T>,
          grid_input<T>,
          wave_forward<T>,
          wave_input<T>,
          table_adam<T>,
          table_sgd<T>,
          jet_forward<T>,
          jet_backward<T>,
          affine<T>,
          affine_back<T>};
}
const Kernels<float> table_f32 = table<float>();
const Kernels<double> table_f64 = table<double>();
