// What grouped products need beside the dense kernels: weight tiles read straight from a row-major
// matrix, gates, and rows on their way to and from the experts. Included in the ISA's namespace
// after kernels_step.h's helpers.

// tile[i][j] = w[i * ld + j], zero outside rows x columns.
template <class T>
void load_tile(const T* w, ptrdiff_t ld, int rows, int columns, T* tile) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  if (columns == P) {
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
      for (int v = 0; v < P; v += L) store(tile + i * P + v, loadu(w + i * ld + v));
  } else {
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < P; ++j) tile[i * P + j] = j < columns ? w[i * ld + j] : T(0);
  }
  for (int i = rows * P; i < P * P; i += L) store(tile + i, V<T>{});
}

// tile[j][i] = w[i * ld + j], zero outside. The tile that follows in w's rows is fetched meanwhile:
// 32 streams are more than the hardware's prefetcher keeps apart.
template <class T>
void load_tile_turned(const T* w, ptrdiff_t ld, int rows, int columns, T* tile) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  if (rows != P || columns != P) {
    alignas(64) T straight[P * P];
    load_tile(w, ld, rows, columns, straight);
    transpose_tile(straight, tile, P, P);
    return;
  }
  for (int i = 0; i < P; i += L)
    for (int j = 0; j < P; j += L) {
      V<T> a[L];
#pragma GCC unroll 16
      for (int r = 0; r < L; ++r) {
        a[r] = loadu(w + (i + r) * ld + j);
        __builtin_prefetch(w + (i + r) * ld + j + P);
      }
      transpose_square<T>(a);
#pragma GCC unroll 16
      for (int r = 0; r < L; ++r) store(tile + (j + r) * P + i, a[r]);
    }
}

// h = phi(g) u over count elements. With keep, g becomes dh/dg = u phi'(g) and u becomes dh/du =
// phi(g).
template <class T, int A>
void gate_all(T* g, T* u, T* h, bool keep, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i += kLanes<T>) {
    const V<T> up = load(u + i);
    const ValueAndSlope<T> a = activation<T, A>(load(g + i));
    store(h + i, a.h * up);
    if (keep) {
      store(g + i, a.d * up);
      store(u + i, a.h);
    }
  }
}
template <class T, int... A>
INLINE void gate_any(Activation a, T* g, T* u, T* h, bool keep, ptrdiff_t count, Sequence<A...>) {
  using Function = void (*)(T*, T*, T*, bool, ptrdiff_t);
  static constexpr Function table[] = {gate_all<T, A>...};
  table[a](g, u, h, keep, count);
}
template <class T>
void gate(Activation a, T* g, T* u, T* h, bool keep, ptrdiff_t count) {
  gate_any<T>(a, g, u, h, keep, count, typename MakeSequence<kActivationCount>::type{});
}

template <class T>
void multiply(T* y, const T* a, const T* b, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i += kLanes<T>) store(y + i, load(a + i) * load(b + i));
}

template <class T>
void column_sums(const T* y, int rows, T* sums) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  for (int v = 0; v < P; v += L) {
    V<T> sum = load(sums + v);
    for (int r = 0; r < rows; ++r) sum += load(y + static_cast<ptrdiff_t>(r) * P + v);
    store(sums + v, sum);
  }
}

// dots[r] = y_r . o_r unless o is null; then y_r *= share[r] unless share is null.
template <class T>
void weigh_rows(T* y, const T* o, const T* share, int rows, int columns, ptrdiff_t stride,
                T* dots) {
  for (int r = 0; r < rows; ++r, y += kPanel<T>) {
    V<T> sum = {};
    each_register(y, stride, columns, [&](int c, T* at) INLINE_LAMBDA {
      const V<T> g = load(at);
      if (o)
        sum += valid_lanes<T>(g * load(o + (c / kPanel<T>)*stride +
                                       static_cast<ptrdiff_t>(r) * kPanel<T> + c % kPanel<T>),
                              columns - c, T(0));
      if (share) store(at, g * share[r]);
    });
    if (o) dots[r] = horizontal_sum<T>(sum);
  }
}

// out[c] = sum over k of share[k] times row k, whose panels are strides[k] apart; share may be null
// (one).
template <class T>
void combine(const T* const* rows, const ptrdiff_t* strides, const T* share, int top_k, int columns,
             T* out) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  for (int c = 0; c < columns; c += L) {
    V<T> sum = {};
    for (int k = 0; k < top_k; ++k) {
      const V<T> y = load(rows[k] + (c / P) * strides[k] + c % P);
      if (k == 0)
        sum = share ? y * share[0] : y;
      else
        sum += share ? y * share[k] : y;
    }
    if (c + L <= columns) {
      *reinterpret_cast<typename Lanes<T>::Unaligned*>(out + c) = sum;
    } else {
      for (int i = 0; c + i < columns; ++i) out[c + i] = sum[i];
    }
  }
}
