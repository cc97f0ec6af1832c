// Grouped products of few rows: weights are read once from their row-major form, as streams that
// the hardware fetches ahead, and never packed. Each element is the chain of gemm and
// gradient_tile: a row's bits are the same whichever of them made it. Included in the ISA's
// namespace after kernels_impl.h.

// A transpose as transpose_square's, but with shuffles that stay within 16 bytes where that pays.
template <class T>
INLINE void transpose_quick(V<T>* a) {
  if constexpr (kLanes<T> == 8 && sizeof(T) == 4) {
    V<T> b[8], c[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
      b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
      b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        c[i + 2 * j] = __builtin_shufflevector(b[i + j], b[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        c[i + 2 * j + 1] =
            __builtin_shufflevector(b[i + j], b[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      a[i] = __builtin_shufflevector(c[i], c[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
      a[i + 4] = __builtin_shufflevector(c[i], c[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
  } else {
    transpose_square<T>(a);
  }
}

template <class T>
INLINE V<T> finished(const StreamArgs<T>& a, V<T> y, ptrdiff_t at) {
  const V<T> zero = {};
  if (a.epilogue == kReluEpi) return y < zero ? zero : y;
  if (a.epilogue == kMaskByH) return load(a.side + at) > zero ? y : zero;
  if (a.epilogue == kMulByD) return y * load(a.side + at);
  return y;
}

// R rows from row0 on and NV registers of outputs from w's first row on: squares of w are
// transposed in registers.
template <class T, int R, int NV>
void turned_tile(const StreamArgs<T>& a, const T* w, const T* bias, ptrdiff_t offset, int row0) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  V<T> acc[R][NV];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = bias ? loadu(bias + v * L) : V<T>{};
  const T* x = a.x + static_cast<ptrdiff_t>(row0) * P;
  int k = 0;
  auto row = [&](int r, int i)
                 INLINE_LAMBDA { return splat<T>(x[(i / P) * a.x_stride + r * P + i % P]); };
  for (; k + L <= a.width; k += L)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      V<T> s[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) s[i] = loadu(w + (v * L + i) * a.ld + k);
      transpose_quick<T>(s);
      const T* here = x + (k / P) * a.x_stride + k % P;
#pragma GCC unroll 16
      for (int j = 0; j < L; ++j)
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) acc[r][v] += splat<T>(here[r * P + j]) * s[j];
    }
  for (; k < a.width; ++k)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      alignas(64) T column[L];
      for (int i = 0; i < L; ++i) column[i] = w[(v * L + i) * a.ld + k];
      const V<T> s = load(column);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[r][v] += row(r, k) * s;
    }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const ptrdiff_t at = offset + static_cast<ptrdiff_t>(row0 + r) * P + v * L;
      store(a.y + at, finished<T>(a, acc[r][v], at));
    }
}

// y = bias + x W^T, W (columns, width): columns is a multiple of kPanel. accumulate is not heeded.
template <class T>
void stream_turned(const StreamArgs<T>& a) {
  constexpr int P = kPanel<T>, L = kLanes<T>, W = P / L, NV = W < 2 ? W : 2;
  for (int c = 0; c < a.columns; c += NV * L) {
    const T* w = a.w + c * a.ld;
    const T* bias = a.bias ? a.bias + c : nullptr;
    const ptrdiff_t offset = (c / P) * a.y_stride + c % P;
    int row = 0;
    for (; row + 4 <= a.rows; row += 4) turned_tile<T, 4, NV>(a, w, bias, offset, row);
    if (row + 2 <= a.rows) turned_tile<T, 2, NV>(a, w, bias, offset, row), row += 2;
    if (row < a.rows) turned_tile<T, 1, NV>(a, w, bias, offset, row);
  }
}

// R rows from row0 on: y += x W, eight of W's rows at a time, which are as many streams.
template <class T, int R>
void straight_rows(const StreamArgs<T>& a, int row0) {
  constexpr int P = kPanel<T>, L = kLanes<T>, K = 8;
  for (int k0 = 0; k0 < a.width; k0 += K) {
    const T* x = a.x + (k0 / P) * a.x_stride + static_cast<ptrdiff_t>(row0) * P + k0 % P;
    const T* w = a.w + k0 * a.ld;
    const bool from_zero = k0 == 0 && !a.accumulate, ends = k0 + K >= a.width;
    const int n = smaller(K, a.width - k0);
    V<T> factor[K][R];
    for (int k = 0; k < n; ++k)
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) factor[k][r] = splat<T>(x[r * P + k]);
    auto step = [&](int c, auto&& weight) INLINE_LAMBDA {
      const ptrdiff_t at = (c / P) * a.y_stride + static_cast<ptrdiff_t>(row0) * P + c % P;
      V<T> acc[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[r] = from_zero ? V<T>{} : load(a.y + at + r * P);
      auto add = [&](int k) INLINE_LAMBDA {
        const V<T> b = weight(k);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) acc[r] += factor[k][r] * b;
      };
      if (n == K) {
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) add(k);
      } else {
        for (int k = 0; k < n; ++k) add(k);
      }
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
        store(a.y + at + r * P, ends ? finished<T>(a, acc[r], at + r * P) : acc[r]);
    };
    int c = 0;
    for (; c + L <= a.columns; c += L)
      step(c, [&](int k) INLINE_LAMBDA { return loadu(w + k * a.ld + c); });
    if (c < a.columns)
      step(c, [&](int k) INLINE_LAMBDA {
        alignas(64) T part[L] = {};
        for (int i = 0; c + i < a.columns; ++i) part[i] = w[k * a.ld + c + i];
        return load(part);
      });
  }
}

// y (+)= x W, W (width, columns). bias is not heeded.
template <class T>
void stream_straight(const StreamArgs<T>& a) {
  int row = 0;
  for (; row + 4 <= a.rows; row += 4) straight_rows<T, 4>(a, row);
  if (row + 2 <= a.rows) straight_rows<T, 2>(a, row), row += 2;
  if (row < a.rows) straight_rows<T, 1>(a, row);
}

// O rows of w from d's first column on: w[o][c] = sum over R rows of d[r][o] x[r][c].
template <class T, int R, int O>
void outer_rows(const T* d, const T* x, ptrdiff_t x_stride, int columns, T* w, ptrdiff_t ld) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  V<T> factor[R][O];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o) factor[r][o] = splat<T>(d[r * P + o]);
  for (int c = 0; c < columns; c += L) {
    const T* from = x + (c / P) * x_stride + c % P;
    V<T> acc[O];
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o) acc[o] = V<T>{};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V<T> xv = load(from + r * P);
#pragma GCC unroll 4
      for (int o = 0; o < O; ++o) acc[o] += factor[r][o] * xv;
    }
    if (c + L <= columns) {
#pragma GCC unroll 4
      for (int o = 0; o < O; ++o)
        *reinterpret_cast<typename Lanes<T>::Unaligned*>(w + o * ld + c) = acc[o];
    } else {
      for (int o = 0; o < O; ++o)
        for (int i = 0; c + i < columns; ++i) w[o * ld + c + i] = acc[o][i];
    }
  }
}
template <class T, int R>
void outer_panel(const T* d, const T* x, ptrdiff_t x_stride, int n_out, int columns, T* w) {
  int o = 0;
  for (; o + 4 <= n_out; o += 4)
    outer_rows<T, R, 4>(d + o, x, x_stride, columns, w + static_cast<ptrdiff_t>(o) * columns,
                        columns);
  for (; o < n_out; ++o)
    outer_rows<T, R, 1>(d + o, x, x_stride, columns, w + static_cast<ptrdiff_t>(o) * columns,
                        columns);
}
// n_out rows of a weight's gradient from 1 to kStreamRows rows: d one panel, x all of them; w
// (n_out, columns).
template <class T>
void stream_gradient(const T* d, const T* x, ptrdiff_t x_stride, int rows, int n_out, int columns,
                     T* w) {
  using Function = void (*)(const T*, const T*, ptrdiff_t, int, int, T*);
  static constexpr Function table[kStreamRows] = {
      outer_panel<T, 1>, outer_panel<T, 2>, outer_panel<T, 3>, outer_panel<T, 4>,
      outer_panel<T, 5>, outer_panel<T, 6>, outer_panel<T, 7>, outer_panel<T, 8>};
  table[rows - 1](d, x, x_stride, n_out, columns, w);
}
