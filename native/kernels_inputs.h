// Encodings of the input: look-ups in a multiresolution grid (Mueller et al. 2022,
// arXiv:2201.05989), sinusoids and blobs. Included after kernels_impl.h, in the ISA's
// namespace.
//
// Grid: indices and weights of the corners are computed for a register of rows at a time; then
// every row reads its 2^d entries, whose features lie side by side, as one small vector each. The
// next register's entries are prefetched meanwhile, which hides most of the latency of a table that
// is larger than the caches. Index arithmetic is exact and modulo 2^32, so every ISA and type
// agrees on it. A row's result depends on nothing but the row.

// F features as one vector, where there is one of that size.
template <class T, int F>
struct Features {
  typedef T Vector __attribute__((vector_size(F * sizeof(T)), aligned(sizeof(T)), may_alias));
  INLINE void clear(T* p) { *reinterpret_cast<Vector*>(p) = Vector{}; }
  // to = from + w * x
  INLINE void add(T* to, const T* from, T w, const T* x) {
    *reinterpret_cast<Vector*>(to) =
        *reinterpret_cast<const Vector*>(from) + w * *reinterpret_cast<const Vector*>(x);
  }
};
template <class T>
struct Features<T, 1> {
  INLINE void clear(T* p) { *p = 0; }
  INLINE void add(T* to, const T* from, T w, const T* x) { *to = *from + w * *x; }
};
template <class T>
struct Features<T, 3> {
  INLINE void clear(T* p) { p[0] = p[1] = p[2] = 0; }
  INLINE void add(T* to, const T* from, T w, const T* x) {
    for (int f = 0; f < 3; ++f) to[f] = from[f] + w * x[f];
  }
};

// Entries and weights of the 2^D corners around each row of one register, [corner][lane].
template <class T, int D>
struct Corners {
  static constexpr int C = 1 << D, L = kLanes<T>;
  static constexpr bool kUnrolled = false;
  typedef typename Lanes<T>::Word Word;
  alignas(64) Word entry[C * L];
  alignas(64) T weight[C * L];
  INLINE void put(Corners& to, int c, U<T> entry, V<T> weight) {
    *reinterpret_cast<U<T>*>(to.entry + c * L) = entry;
    store(to.weight + c * L, weight);
  }
  INLINE void put_pair(Corners& to, int c, const U<T>* entry, const V<T>* weight) {
    put(to, c, entry[0], weight[0]);
    put(to, c + 1, entry[1], weight[1]);
  }
};

// Of numbers from 0 to 2^21; NaN stays.
template <class T>
INLINE V<T> nearest_whole(V<T> x) {
  return (x + Lanes<T>::kMagic) - Lanes<T>::kMagic;
}

// The corners of a register of rows, two neighbours along the first axis at a time.
template <class T, int D, class Found>
INLINE void find_corners(const GridArgs<T>& a, int row, int derivative, Found& out) {
  constexpr int C = 1 << D, L = kLanes<T>;
  const T cells = static_cast<T>(a.resolution);
  const V<T> zero = {}, one = splat<T>(1);
  U<T> term[D][2];
  V<T> weight[D][2];
#pragma GCC unroll 3
  for (int d = 0; d < D; ++d) {
    const T* from = a.u + d * a.u_stride + row;
    V<T> u = zero;
    if (row + L <= a.rows)
      u = loadu(from);
    else
      for (int i = 0; row + i < a.rows; ++i) u[i] = from[i];
    V<T> position = clamp<T>(u, T(0), T(1)) * cells;
    if (a.nearest) position = nearest_whole<T>(position);
    const V<T> known = position == position ? position : zero;  // NaN: any cell, weights are NaN
    S<T> cell = __builtin_convertvector(known, S<T>);
    const S<T> last = S<T>{} + (a.resolution - 1);
    cell = cell > last ? last : cell;  // u = 1 belongs to the last cell
    const V<T> f = position - __builtin_convertvector(cell, V<T>);
    term[d][0] = reinterpret_cast<U<T>>(cell) * a.factor[d];
    term[d][1] = term[d][0] + a.factor[d];
    if (d == derivative) {
      V<T> slope = a.smooth ? T(6) * f * (one - f) : one;
      slope = slope * (a.nearest ? T(0) : cells * a.scale);
      slope = u < zero ? zero : u > one ? zero : slope;  // constant beyond the bounds
      slope = u == u ? slope : u;
      weight[d][0] = -slope;
      weight[d][1] = slope;
    } else {
      weight[d][1] = a.smooth ? f * f * (T(3) - T(2) * f) : f;
      weight[d][0] = one - weight[d][1];
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < C; c += 2) {
    U<T> entry[2];
    V<T> w[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      entry[i] = term[0][i];
      w[i] = weight[0][i];
#pragma GCC unroll 3
      for (int d = 1; d < D; ++d) {
        const U<T> t = term[d][c >> d & 1];
        entry[i] = a.hashed ? (entry[i] ^ t) : (entry[i] + t);
        w[i] *= weight[d][c >> d & 1];
      }
      entry[i] &= a.mask;
    }
    Found::put_pair(out, c, entry, w);
  }
}

// body(row, lane, corners) for every row. What lies beyond the second cache is prefetched kAhead
// registers early. Neighbours along the first axis mostly share a cache line, whether their entries
// count up or are hashed by its prime, 1; so small entries are asked for once a pair.
template <class Found, class T, int D, int F, class Body>
INLINE void each_row(const GridArgs<T>& args, int derivative, const T* table, Body body) {
  const GridArgs<T> a = args;  // a copy, which no store can alias
  constexpr int C = 1 << D, L = kLanes<T>, kAhead = 3, kRing = 4;
  constexpr int kStep = F * sizeof(T) <= 8 ? 2 : 1;
  Found ring[kRing];
  auto prepare = [&](int row) INLINE_LAMBDA {
    Found& found = ring[row / L % kRing];
    find_corners<T, D>(a, row, derivative, found);
    if (!a.prefetch) return;
    for (int c = 0; c < C; c += kStep)
      for (int i = 0; i < L; ++i)
        __builtin_prefetch(table + static_cast<size_t>(found.entry[c * L + i]) * F);
  };
  const int ahead = a.prefetch ? kAhead * L : 0;
  for (int row = 0; row < ahead && row < a.rows; row += L) prepare(row);
  for (int row = 0; row < a.rows; row += L) {
    if (row + ahead < a.rows) prepare(row + ahead);
    const Found& found = ring[row / L % kRing];
    if (Found::kUnrolled && row + L <= a.rows) {
#pragma GCC unroll 16
      for (int lane = 0; lane < (Found::kUnrolled ? L : 0); ++lane) body(row + lane, lane, found);
    } else {
      const int n = smaller(L, a.rows - row);
      for (int lane = 0; lane < n; ++lane) body(row + lane, lane, found);
    }
  }
}

#include "kernels_pairs.h"

template <class T, int D, int F>
void grid_forward_of(const GridArgs<T>& a, int derivative, const T* table, T* const* column,
                     ptrdiff_t stride) {
  constexpr int C = 1 << D, L = kLanes<T>;
  if constexpr (kPaired<T, F>) return pairs_forward<D>(a, derivative, table, column[0], stride);
  Features<T, F> features;
  each_row<Corners<T, D>, T, D, F>(
      a, derivative, table, [&](int row, int lane, const Corners<T, D>& corners) INLINE_LAMBDA {
        T sum[F];
        features.clear(sum);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
          const size_t entry = corners.entry[c * L + lane];
          features.add(sum, sum, corners.weight[c * L + lane], table + entry * F);
        }
        if constexpr (F == 3)  // may straddle two panels
          for (int f = 0; f < F; ++f) column[f][row * stride] = sum[f];
        else
          __builtin_memcpy(column[0] + row * stride, sum, sizeof(sum));
      });
}

template <class T, int D, int F>
void grid_scatter_of(const GridArgs<T>& a, int derivative, const T* const* g, ptrdiff_t stride,
                     T* table_gradient, uint8_t* touched) {
  constexpr int C = 1 << D, L = kLanes<T>;
  if constexpr (kPaired<T, F>)
    return pairs_scatter<D>(a, derivative, g[0], stride, table_gradient, touched);
  Features<T, F> features;
  auto scatter = [&](auto mark) INLINE_LAMBDA {
    each_row<Corners<T, D>, T, D, F>(
        a, derivative, table_gradient,
        [&](int row, int lane, const Corners<T, D>& corners) INLINE_LAMBDA {
          T mine[F];
          if constexpr (F == 3)
            for (int f = 0; f < F; ++f) mine[f] = g[f][row * stride];
          else
            __builtin_memcpy(mine, g[0] + row * stride, sizeof(mine));
#pragma GCC unroll 8
          for (int c = 0; c < C; ++c) {
            const size_t entry = corners.entry[c * L + lane];
            T* to = table_gradient + entry * F;
            features.add(to, to, corners.weight[c * L + lane], mine);
            mark(entry);
          }
        });
  };
  if (touched)
    scatter([&](size_t entry) INLINE_LAMBDA { touched[entry / kTableGroup] = 1; });
  else
    scatter([](size_t) INLINE_LAMBDA {});
}

template <class T, int D, int F>
void grid_input_of(const GridArgs<T>& a, const T* table, const T* const* g, ptrdiff_t stride,
                   T* grad_x) {
  constexpr int C = 1 << D, L = kLanes<T>;
  for (int row = 0; row < a.rows; row += L) {
    const int n = smaller(L, a.rows - row);
    Corners<T, D> corners;
    for (int d = 0; d < D; ++d) {
      find_corners<T, D>(a, row, d, corners);
      for (int lane = 0; lane < n; ++lane) {
        T sum = 0;
        for (int c = 0; c < C; ++c) {
          const T* entry = table + static_cast<size_t>(corners.entry[c * L + lane]) * F;
          T dot = 0;
          for (int f = 0; f < F; ++f) dot += g[f][(row + lane) * stride] * entry[f];
          sum += corners.weight[c * L + lane] * dot;
        }
        grad_x[(row + lane) * a.x_stride + d] += sum;
      }
    }
  }
}

// The kernels of every number of coordinates and features, by [d - 1][features - 1].
#define LAMINA_BY_SHAPE(kernel, args)                                        \
  static constexpr decltype(&kernel<T, 1, 1>) table_of[3][4] = {             \
      {kernel<T, 1, 1>, kernel<T, 1, 2>, kernel<T, 1, 3>, kernel<T, 1, 4>},  \
      {kernel<T, 2, 1>, kernel<T, 2, 2>, kernel<T, 2, 3>, kernel<T, 2, 4>},  \
      {kernel<T, 3, 1>, kernel<T, 3, 2>, kernel<T, 3, 3>, kernel<T, 3, 4>}}; \
  if (a.rows > 0) table_of[a.d - 1][a.features - 1] args

template <class T>
void grid_forward(const GridArgs<T>& a, int derivative, const T* table, T* const* column,
                  ptrdiff_t stride) {
  LAMINA_BY_SHAPE(grid_forward_of, (a, derivative, table, column, stride));
}
template <class T>
void grid_scatter(const GridArgs<T>& a, int derivative, const T* const* g, ptrdiff_t stride,
                  T* table_gradient, uint8_t* touched) {
  LAMINA_BY_SHAPE(grid_scatter_of, (a, derivative, g, stride, table_gradient, touched));
}
template <class T>
void grid_input(const GridArgs<T>& a, const T* table, const T* const* g, ptrdiff_t stride,
                T* grad_x) {
  LAMINA_BY_SHAPE(grid_input_of, (a, table, g, stride, grad_x));
}
#undef LAMINA_BY_SHAPE

// ----------------------------------------------------------------------------------------------
// sinusoids and blobs

// t - 2 round(t / 2) in [-1, 1], exactly, for every t: sin(pi t) has no other argument. Numbers
// past kWhole are even; rounding by kMagic is exact below it only after a first, coarse reduction.
template <class T>
INLINE V<T> wrap_period(V<T> t) {
  constexpr T kMagic = Lanes<T>::kMagic, kCoarse = 8192;
  constexpr T kWhole = sizeof(T) == 4 ? T(16777216) : T(9007199254740992);
  V<T> n = (t * (T(1) / kCoarse) + kMagic) - kMagic;
  V<T> r = t - n * kCoarse;
  n = (r * T(0.5) + kMagic) - kMagic;
  r = r - n * T(2);
  return vabs<T>(t) < kWhole ? r : t - t;  // infinity and NaN: NaN
}

template <class T>
struct WaveValue {
  V<T> value, slope;
};
template <class T>
INLINE WaveValue<T> wave_at(Wave wave, V<T> t, V<T> offset) {
  constexpr T kPi = T(3.14159265358979323846);
  if (wave == kSinusoid) {
    // The quarter turn of a cosine is added after wrapping, where it costs no accuracy.
    const SinCos<T> s = vsincos<T>((wrap_period<T>(t) + offset) * kPi);
    return {s.sin, s.cos * kPi};
  }
  const Normal<T> left = vnormal<T>(t + offset), right = vnormal<T>(t + offset + T(1));
  return {right.cdf - left.cdf, right.pdf - left.pdf};
}

// a_c . x of a register of columns.
template <class T>
INLINE V<T> wave_argument(const WaveArgs<T>& a, const T* x, int c) {
  constexpr int L = kLanes<T>;
  if (a.axis) {
    V<T> mine = {};
    for (int i = 0; i < L; ++i) mine[i] = x[a.axis[c + i]];
    return mine * load(a.a + c);
  }
  V<T> sum = {};
  for (int d = 0; d < a.d; ++d) sum += splat<T>(x[d]) * load(a.a + d * a.columns + c);
  return sum;
}
// d argument / d x_d of a register of columns.
template <class T>
INLINE V<T> wave_factor(const WaveArgs<T>& a, int d, int c) {
  if (!a.axis) return load(a.a + d * a.columns + c);
  V<T> factor = load(a.a + c);
  for (int i = 0; i < kLanes<T>; ++i)
    if (a.axis[c + i] != d) factor[i] = 0;
  return factor;
}

// f''(t) or f'''(t).
template <class T>
INLINE V<T> wave_higher(Wave wave, int order, V<T> t, V<T> offset) {
  if (wave == kSinusoid) {
    constexpr T kPiSquared = T(9.8696044010893586188);
    const WaveValue<T> f = wave_at<T>(wave, t, offset);
    return (order == 2 ? f.value : f.slope) * -kPiSquared;
  }
  const V<T> left = t + offset, right = left + T(1);
  const V<T> p = vnormal<T>(left).pdf, q = vnormal<T>(right).pdf;
  return order == 2 ? left * p - right * q : (right * right - T(1)) * q - (left * left - T(1)) * p;
}

template <class T>
void wave_forward(const WaveArgs<T>& a, int order, const int* axes, T* panels, ptrdiff_t stride) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  for (int row = 0; row < a.rows; ++row) {
    const T* x = a.x + static_cast<ptrdiff_t>(row) * a.d;
    T* to = panels + static_cast<ptrdiff_t>(row) * P;
    for (int c = 0; c < a.columns; c += L) {
      const V<T> t = wave_argument(a, x, c), offset = load(a.offset + c);
      V<T> h;
      if (order < 2) {
        const WaveValue<T> f = wave_at<T>(a.wave, t, offset);
        h = order == 0 ? f.value : f.slope;
      } else {
        h = wave_higher<T>(a.wave, order, t, offset);
      }
      for (int i = 0; i < order; ++i) h *= wave_factor(a, axes[i], c);
      store(to + c / P * stride + c % P, h);
    }
    for (int c = 0; c < a.n_copied; ++c)
      to[c / P * stride + c % P] = order == 0 ? x[c] : static_cast<T>(order == 1 && c == axes[0]);
  }
}

template <class T>
void wave_input(const WaveArgs<T>& a, const T* g, ptrdiff_t stride, T* grad_x) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  for (int row = 0; row < a.rows; ++row) {
    const T* x = a.x + static_cast<ptrdiff_t>(row) * a.d;
    const T* from = g + static_cast<ptrdiff_t>(row) * P;
    T* to = grad_x + static_cast<ptrdiff_t>(row) * a.d;
    for (int c = 0; c < a.n_copied; ++c) to[c] += from[c / P * stride + c % P];
    for (int c = 0; c < a.columns; c += L) {
      // Factors of copied and of padding columns are zero.
      const WaveValue<T> f = wave_at<T>(a.wave, wave_argument(a, x, c), load(a.offset + c));
      const V<T> y = f.slope * load(from + c / P * stride + c % P);
      if (a.axis) {
        const V<T> share = y * load(a.a + c);
        for (int i = 0; i < L; ++i) to[a.axis[c + i]] += share[i];
      } else {
        for (int d = 0; d < a.d; ++d) to[d] += horizontal_sum<T>(y * load(a.a + d * a.columns + c));
      }
    }
  }
}

// ----------------------------------------------------------------------------------------------
// steps on a table

// body(first element) for every register of the groups that were touched.
template <class T, class Body>
INLINE void each_touched(const TableStepArgs<T>& a, Body body) {
  const ptrdiff_t size = static_cast<ptrdiff_t>(kTableGroup) * a.features;
  for (ptrdiff_t group = 0; group < a.n_groups; ++group) {
    if (a.touched) {
      if (group + 8 <= a.n_groups) {
        uint64_t eight;
        __builtin_memcpy(&eight, a.touched + group, 8);
        if (eight == 0) {
          group += 7;
          continue;
        }
      }
      if (!a.touched[group]) continue;
      a.touched[group] = 0;
    }
    for (ptrdiff_t i = group * size; i < (group + 1) * size; i += kLanes<T>) body(i);
  }
}

// Adam where the gradient is not exactly zero: the rest keep value and moments (Mueller et al.
// 2022, section 4).
template <class T>
void table_adam(const TableStepArgs<T>& a, const StepCoefficients& c) {
  const T b1 = static_cast<T>(c.beta_1), b2 = static_cast<T>(c.beta_2);
  const T one_b1 = static_cast<T>(1 - c.beta_1), one_b2 = static_cast<T>(1 - c.beta_2);
  const T lr = static_cast<T>(c.lr), second = static_cast<T>(c.second),
          epsilon = static_cast<T>(c.epsilon);
  each_touched<T>(a, [&](ptrdiff_t i) INLINE_LAMBDA {
    const V<T> zero = {}, g = load(a.gradient + i);
    const V<T> w = load(a.w + i), m_old = load(a.m + i), v_old = load(a.v + i);
    const V<T> m = g == zero ? m_old : b1 * m_old + one_b1 * g;
    const V<T> v = g == zero ? v_old : b2 * v_old + one_b2 * g * g;
    store(a.m + i, m);
    store(a.v + i, v);
    store(a.w + i, g == zero ? w : w - lr * m * inverse_root_plus(v * second, epsilon));
    store(a.gradient + i, zero);
  });
}

template <class T>
void table_sgd(const TableStepArgs<T>& a, const StepCoefficients& c) {
  const T momentum = static_cast<T>(c.beta_1), lr = static_cast<T>(c.lr);
  each_touched<T>(a, [&](ptrdiff_t i) INLINE_LAMBDA {
    const V<T> g = load(a.gradient + i);
    V<T> v = -lr * g;
    if (a.m) {
      v = momentum * load(a.m + i) - lr * g;
      store(a.m + i, v);
      if (c.nesterov) v = momentum * v - lr * g;
    }
    store(a.w + i, load(a.w + i) + v);
    store(a.gradient + i, V<T>{});
  });
}
