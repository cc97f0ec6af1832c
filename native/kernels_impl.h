// The one kernel source. Each kernels_<isa>.cpp sets the macros below, includes this file inside
// its own namespace and exports one KernelSet, so that the same text is compiled once an
// instruction set:
//   LAMINA_VBYTES  bytes of a vector register           LAMINA_KEEP(x)  keep x in one register (an
//   empty asm) LAMINA_MR      rows of the product's register tile  LAMINA_NV       its columns, in
//   registers
// Requires -ffp-contract=fast: every `acc += b * w` below must become one fused multiply-add.
//
// Each element of a product is one chain of fused multiply-adds over k in ascending order, whatever
// the tile it falls in: that is why a row's result does not depend, bit for bit, on its batch.

template <int... I>
struct Sequence {};
template <int N, int... I>
struct MakeSequence : MakeSequence<N - 1, N - 1, I...> {};
template <int... I>
struct MakeSequence<0, I...> {
  using type = Sequence<I...>;
};

INLINE int smaller(int a, int b) { return a < b ? a : b; }

// ----------------------------------------------------------------------------------------------
// lane shuffles
template <class T, int Step, int... I>
INLINE V<T> butterfly(V<T> x, Sequence<I...>) {
  return __builtin_shufflevector(x, x, (I ^ Step)...);
}
template <class T>
INLINE T horizontal_sum(V<T> x) {
  using Lane = typename MakeSequence<kLanes<T>>::type;
  if constexpr (kLanes<T> > 8) x = x + butterfly<T, 8>(x, Lane{});
  if constexpr (kLanes<T> > 4) x = x + butterfly<T, 4>(x, Lane{});
  if constexpr (kLanes<T> > 2) x = x + butterfly<T, 2>(x, Lane{});
  x = x + butterfly<T, 1>(x, Lane{});
  return x[0];
}
template <class T>
INLINE V<T> vmax(V<T> a, V<T> b) {
  return a > b ? a : b;
}
template <class T>
INLINE T horizontal_max(V<T> x) {
  using Lane = typename MakeSequence<kLanes<T>>::type;
  if constexpr (kLanes<T> > 8) x = vmax<T>(x, butterfly<T, 8>(x, Lane{}));
  if constexpr (kLanes<T> > 4) x = vmax<T>(x, butterfly<T, 4>(x, Lane{}));
  if constexpr (kLanes<T> > 2) x = vmax<T>(x, butterfly<T, 2>(x, Lane{}));
  x = vmax<T>(x, butterfly<T, 1>(x, Lane{}));
  return x[0];
}
template <class T, int... I>
INLINE V<T> interleave_low(V<T> a, V<T> b, Sequence<I...>) {
  constexpr int n = kLanes<T>;
  return __builtin_shufflevector(a, b, ((I & 1) * n + I / 2)...);
}
template <class T, int... I>
INLINE V<T> interleave_high(V<T> a, V<T> b, Sequence<I...>) {
  constexpr int n = kLanes<T>;
  return __builtin_shufflevector(a, b, ((I & 1) * n + I / 2 + n / 2)...);
}
// Sums of n registers into one: lane i of the result is the sum over a[i]. Every lane is added in
// the same tree.
template <class T>
INLINE V<T> transpose_sum(V<T>* a) {
  using Lane = typename MakeSequence<kLanes<T>>::type;
#pragma GCC unroll 4
  for (int half = kLanes<T> / 2; half >= 1; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) {
      a[i] = interleave_low<T>(a[i], a[i + half], Lane{}) +
             interleave_high<T>(a[i], a[i + half], Lane{});
    }
  }
  return a[0];
}

// log2(lanes) rounds of perfect shuffles transpose a square of registers in place.
template <class T>
INLINE void transpose_square(V<T>* a) {
  constexpr int n = kLanes<T>;
  using Lane = typename MakeSequence<n>::type;
#pragma GCC unroll 4
  for (int round = 1; round < n; round *= 2) {
    V<T> b[n];
#pragma GCC unroll 8
    for (int i = 0; i < n / 2; ++i) {
      b[2 * i] = interleave_low<T>(a[i], a[i + n / 2], Lane{});
      b[2 * i + 1] = interleave_high<T>(a[i], a[i + n / 2], Lane{});
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) a[i] = b[i];
  }
}

// ----------------------------------------------------------------------------------------------
// products acc lives in MR x NV registers; per k: NV weight loads, MR broadcasts, MR*NV
// multiply-adds.
template <class T, int MR, int NV>
void gemm_tile(const GemmArgs<T>& a, int row0, int v0) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  const ptrdiff_t offset = static_cast<ptrdiff_t>(row0) * P + v0 * L;
  V<T> acc[MR][NV];
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      acc[r][v] = a.accumulate ? load(a.y + offset + r * P + v * L)
                  : a.bias     ? load(a.bias + (v0 + v) * L)
                               : V<T>{};
    }
  const T* w_panel = a.w + v0 * L;
  for (int p = 0; p < a.n_panels; ++p, w_panel += P * P) {
    const T* x = a.x[p] + static_cast<ptrdiff_t>(row0) * P;
    const T* w = w_panel;
    const int width = a.widths[p];
    for (int k = 0; k < width; ++k, w += P) {
      V<T> b[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) b[v] = load(w + v * L);
#pragma GCC unroll 16
      for (int r = 0; r < MR; ++r) {
        V<T> xb = splat<T>(x[r * P + k]);
        if constexpr (NV > 1) LAMINA_KEEP(xb);  // one broadcast load, not one a multiply-add
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) acc[r][v] += xb * b[v];
      }
    }
  }
  V<T> sums[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) sums[v] = V<T>{};
  const V<T> zero = {};
  auto finish = [&](auto epilogue) INLINE_LAMBDA {
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        const ptrdiff_t at = offset + r * P + v * L;
        const V<T> y = epilogue(acc[r][v], at);
        sums[v] += y;
        store(a.y + at, y);
      }
  };
  switch (a.epilogue) {
    case kNone:
      finish([&](V<T> y, ptrdiff_t) INLINE_LAMBDA { return y; });
      break;
    case kReluEpi:
      finish([&](V<T> y, ptrdiff_t) INLINE_LAMBDA { return y < zero ? zero : y; });
      break;
    case kMaskByH:
      finish([&](V<T> y, ptrdiff_t at)
                 INLINE_LAMBDA { return load(a.side + at) > zero ? y : zero; });
      break;
    case kMulByD:
      finish([&](V<T> y, ptrdiff_t at) INLINE_LAMBDA { return y * load(a.side + at); });
      break;
  }
  if (a.column_sums) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      T* s = a.column_sums + (v0 + v) * L;
      store(s, load(s) + sums[v]);
    }
  }
}

template <class T>
using GemmTile = void (*)(const GemmArgs<T>&, int, int);
template <class T, int NV, int... I>
INLINE GemmTile<T> pick_gemm(int rows, Sequence<I...>) {
  static constexpr GemmTile<T> table[] = {gemm_tile<T, I + 1, NV>...};
  return table[rows - 1];
}

// Row tiles of near-equal height, so that no short tile is left over.
template <class T, int NV>
void gemm_columns(const GemmArgs<T>& a, int v0) {
  const int tiles = (a.rows + LAMINA_MR - 1) / LAMINA_MR;
  const int low = a.rows / tiles, extra = a.rows % tiles;
  for (int i = 0, row = 0; i < tiles; ++i) {
    const int height = low + (i < extra);
    pick_gemm<T, NV>(height, typename MakeSequence<LAMINA_MR>::type{})(a, row, v0);
    row += height;
  }
}

template <class T>
void gemm(const GemmArgs<T>& a) {
  if (a.rows == 0) return;
  int v = 0;
  const int registers = (a.columns + kLanes<T> - 1) / kLanes<T>;
  for (; v + LAMINA_NV <= registers; v += LAMINA_NV) gemm_columns<T, LAMINA_NV>(a, v);
  if constexpr (LAMINA_NV > 2) {
    if (v + 2 <= registers) {
      gemm_columns<T, 2>(a, v);
      v += 2;
    }
  }
  if (v < registers) gemm_columns<T, 1>(a, v);
}

// Few rows would leave gemm_tile with 2 sums a row: too few to hide the multiply-add's latency
// (four cycles, while one or two start in each). So several output panels go together: R rows times
// NP panels of sums, one broadcast a row, and each weight is loaded once. Each element is still one
// ascending chain over k that starts from its bias, as in gemm_tile.
template <class T, int R, int NP>
void few_tile(const GemmArgs<T>& a, int p0, ptrdiff_t y_stride) {
  constexpr int P = kPanel<T>, L = kLanes<T>, W = P / L;
  const ptrdiff_t w_stride = static_cast<ptrdiff_t>(a.n_panels) * P * P;
  V<T> acc[R][NP * W];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < NP * W; ++v) acc[r][v] = load(a.bias + p0 * P + v * L);
  const T* w_panel = a.w + p0 * w_stride;
  for (int q = 0; q < a.n_panels; ++q, w_panel += P * P) {
    const T* x = a.x[q];
    const T* w = w_panel;
    const int width = a.widths[q];
    for (int k = 0; k < width; ++k, w += P) {
      V<T> xb[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        xb[r] = splat<T>(x[r * P + k]);
        LAMINA_KEEP(xb[r]);
      }
#pragma GCC unroll 4
      for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
        for (int v = 0; v < W; ++v) {
          const V<T> b = load(w + p * w_stride + v * L);
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) acc[r][p * W + v] += xb[r] * b;
        }
    }
  }
  const V<T> zero = {};
  const bool relu = a.epilogue == kReluEpi;
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
      for (int v = 0; v < W; ++v) {
        const V<T> y = acc[r][p * W + v];
        store(a.y + (p0 + p) * y_stride + r * P + v * L, relu ? (y < zero ? zero : y) : y);
      }
}

// Panels at once: as many sums as the register tile of gemm has, and no more than four streams of
// weights.
template <class T, int R>
constexpr int panels_at_once() {
  constexpr int n = LAMINA_MR * LAMINA_NV / (R * (kPanel<T> / kLanes<T>));
  return n > 4 ? 4 : n;
}
template <class T>
constexpr int few_rows() {
  return panels_at_once<T, 4>() ? 4 : panels_at_once<T, 3>() ? 3 : panels_at_once<T, 2>() ? 2 : 1;
}
template <class T, int R>
void few_panels(const GemmArgs<T>& a, int n_out, ptrdiff_t y_stride) {
  constexpr int NP = panels_at_once<T, R>();
  if constexpr (NP >= 1) {
    int p = 0;
    for (; p + NP <= n_out; p += NP) few_tile<T, R, NP>(a, p, y_stride);
    if constexpr (NP > 2) {
      if (p + 2 <= n_out) {
        few_tile<T, R, 2>(a, p, y_stride);
        p += 2;
      }
    }
    for (; p < n_out; ++p) few_tile<T, R, 1>(a, p, y_stride);
  }
}
template <class T>
void gemm_few(const GemmArgs<T>& a, int n_out, ptrdiff_t y_stride) {
  switch (a.rows) {
    case 1:
      return few_panels<T, 1>(a, n_out, y_stride);
    case 2:
      return few_panels<T, 2>(a, n_out, y_stride);
    case 3:
      return few_panels<T, 3>(a, n_out, y_stride);
    case 4:
      return few_panels<T, 4>(a, n_out, y_stride);
  }
}

// KR x NV registers of the gradient tile stay put while the rows stream by.
template <class T, int KR, int NV>
void gradient_rows(const T* x, const T* d, int rows, T* c, bool accumulate) {
  constexpr int P = kPanel<T>, L = kLanes<T>;
  V<T> acc[KR][NV];
#pragma GCC unroll 16
  for (int r = 0; r < KR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = accumulate ? load(c + r * P + v * L) : V<T>{};
  for (int m = 0; m < rows; ++m, x += P, d += P) {
    V<T> b[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) b[v] = load(d + v * L);
#pragma GCC unroll 16
    for (int r = 0; r < KR; ++r) {
      V<T> xb = splat<T>(x[r]);
      if constexpr (NV > 1) LAMINA_KEEP(xb);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] += xb * b[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < KR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) store(c + r * P + v * L, acc[r][v]);
}
template <class T>
using GradientRows = void (*)(const T*, const T*, int, T*, bool);
template <class T, int NV, int... I>
INLINE GradientRows<T> pick_gradient(int k_rows, Sequence<I...>) {
  static constexpr GradientRows<T> table[] = {gradient_rows<T, I + 1, NV>...};
  return table[k_rows - 1];
}
template <class T, int NV>
void gradient_columns(const T* x, const T* d, int rows, int k_columns, T* c, bool accumulate) {
  const int tiles = (k_columns + LAMINA_MR - 1) / LAMINA_MR;
  const int low = k_columns / tiles, extra = k_columns % tiles;
  for (int i = 0, k = 0; i < tiles; ++i) {
    const int height = low + (i < extra);
    pick_gradient<T, NV>(height, typename MakeSequence<LAMINA_MR>::type{})(
        x + k, d, rows, c + k * kPanel<T>, accumulate);
    k += height;
  }
}
template <class T>
void gradient_tile(const T* x, const T* d, int rows, int k_columns, int n_columns, T* c,
                   bool accumulate) {
  constexpr int L = kLanes<T>;
  const int registers = (n_columns + L - 1) / L;
  int v = 0;
  for (; v + LAMINA_NV <= registers; v += LAMINA_NV)
    gradient_columns<T, LAMINA_NV>(x, d + v * L, rows, k_columns, c + v * L, accumulate);
  for (; v < registers; ++v)
    gradient_columns<T, 1>(x, d + v * L, rows, k_columns, c + v * L, accumulate);
}

// Thin heads: padded tiles would waste all but `columns` lanes, so each output is a dot product
// along the row. R rows times N outputs fill one register file of accumulators, which transpose_sum
// folds into one register.
template <class T, int N>
void thin_forward_n(const T* const* x, const int* widths, int n_panels, const T* wt,
                    ptrdiff_t wt_stride, int rows, const T* bias, T* y) {
  constexpr int P = kPanel<T>, L = kLanes<T>, R = L / N > 0 ? L / N : 1;
  static_assert(R * N <= L, "one register must hold a group's results");
  if (rows == 1 && R > 1) {  // horizontal_sum's tree is transpose_sum's
    V<T> acc[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) acc[n] = V<T>{};
    for (int p = 0; p < n_panels; ++p)
      for (int k = 0; k < widths[p]; k += L) {
        const V<T> xv = load(x[p] + k);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) acc[n] += xv * load(wt + p * wt_stride + n * P + k);
      }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) y[n] = horizontal_sum<T>(acc[n]) + bias[n];
    return;
  }
  for (int row0 = 0; row0 < rows; row0 += R) {
    const int group = smaller(R, rows - row0);
    V<T> acc[L];
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) acc[i] = V<T>{};
    for (int p = 0; p < n_panels; ++p) {
      const T* xp = x[p] + static_cast<ptrdiff_t>(row0) * P;
      const T* wp = wt + p * wt_stride;
      for (int k = 0; k < widths[p]; k += L) {
        V<T> w[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) w[n] = load(wp + n * P + k);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const V<T> xv =
              load(xp + smaller(r, group - 1) * P + k);  // past the end: the last row again
#pragma GCC unroll 4
          for (int n = 0; n < N; ++n) acc[r * N + n] += xv * w[n];
        }
      }
    }
    alignas(64) T sums[L];
    store(sums, transpose_sum<T>(acc));
    for (int r = 0; r < group; ++r)
      for (int n = 0; n < N; ++n)
        y[static_cast<ptrdiff_t>(row0 + r) * P + n] = sums[r * N + n] + bias[n];
  }
}
template <class T>
void thin_forward(const T* const* x, const int* widths, int n_panels, const T* wt,
                  ptrdiff_t wt_stride, int rows, int columns, const T* bias, T* y) {
  auto run = [&](auto kernel) { kernel(x, widths, n_panels, wt, wt_stride, rows, bias, y); };
  if (columns == 1) return run(thin_forward_n<T, 1>);
  if constexpr (kLanes<T> >= 2)
    if (columns == 2) return run(thin_forward_n<T, 2>);
  if constexpr (kLanes<T> >= 4) {
    if (columns == 3) return run(thin_forward_n<T, 3>);
    if (columns == 4) return run(thin_forward_n<T, 4>);
  }
}

template <class T, int N>
void thin_gradient_n(const T* x, const T* d, int rows, int k_columns, T* c, bool accumulate) {
  constexpr int P = kPanel<T>, L = kLanes<T>, K = 2;  // K registers of x at a time
  for (int k0 = 0; k0 < k_columns; k0 += K * L) {
    V<T> acc[N][K];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
      for (int v = 0; v < K; ++v) acc[n][v] = V<T>{};
    const T* xp = x + k0;
    const T* dp = d;
    for (int m = 0; m < rows; ++m, xp += P, dp += P) {
#pragma GCC unroll 4
      for (int v = 0; v < K; ++v) {
        const V<T> xv = load(xp + v * L);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) acc[n][v] += splat<T>(dp[n]) * xv;
      }
    }
    for (int n = 0; n < N; ++n)
      for (int v = 0; v < K; ++v)
        for (int i = 0; i < L && k0 + v * L + i < k_columns; ++i) {
          T& out = c[(k0 + v * L + i) * P + n];
          out = accumulate ? out + acc[n][v][i] : acc[n][v][i];
        }
  }
}
template <class T>
void thin_gradient_tile(const T* x, const T* d, int rows, int k_columns, int n_columns, T* c,
                        bool accumulate) {
  switch (n_columns) {
    case 1:
      return thin_gradient_n<T, 1>(x, d, rows, k_columns, c, accumulate);
    case 2:
      return thin_gradient_n<T, 2>(x, d, rows, k_columns, c, accumulate);
    case 3:
      return thin_gradient_n<T, 3>(x, d, rows, k_columns, c, accumulate);
    default:
      return thin_gradient_n<T, 4>(x, d, rows, k_columns, c, accumulate);
  }
}
