// Products in bfloat16 of few rows: weights are read once, packed or as float32 rows that are
// rounded on the way, and fetched ahead. Each sum is one chain over pairs of inputs in ascending
// order, as in the tiles of AVX-512-BF16. Included by kernels_half_impl.h, for AMX too: its tiles
// multiply sixteen rows, and take as long for one.

typedef int32_t PairBits __attribute__((aligned(2), may_alias));
INLINE Half splat_pair(const Bf16* p) {
  return reinterpret_cast<Half>(_mm512_set1_epi32(*reinterpret_cast<const PairBits*>(p)));
}
// The first `count` of 16 values, then zeros.
INLINE V<float> load_part(const float* p, int count) {
  if (count >= 16) return loadu(p);
  const uint32_t valid = count > 0 ? (1u << count) - 1 : 0;
  return reinterpret_cast<V<float>>(
      _mm512_maskz_loadu_ps(static_cast<__mmask16>(valid), count > 0 ? p : nullptr));
}
INLINE V<float> few_bias(const HalfFew& a, int column) {
  return a.bias ? load_part(a.bias + column, a.columns - column) : V<float>{};
}

// body(Rows<R>, row) for groups of at most eight of the rows, as equal as can be.
template <int R>
struct Rows {
  static constexpr int count = R;
};
template <class Body>
INLINE void in_groups(int rows, Body body) {
  const int groups = (rows + 7) / 8;
  for (int g = 0, row = 0; g < groups; ++g) {
    const int end = rows * (g + 1) / groups, n = end - row;
    if (n == 1) body(Rows<1>{}, row);
    if (n == 2) body(Rows<2>{}, row);
    if (n == 3) body(Rows<3>{}, row);
    if (n == 4) body(Rows<4>{}, row);
    if (n == 5) body(Rows<5>{}, row);
    if (n == 6) body(Rows<6>{}, row);
    if (n == 7) body(Rows<7>{}, row);
    if (n == 8) body(Rows<8>{}, row);
    row = end;
  }
}

// -- packed weights
// --------------------------------------------------------------------------------

// R rows from row0 on and N output panels from p on.
template <int R, int N>
void few_tiles(const HalfFew& a, int row0, int p) {
  constexpr ptrdiff_t kAhead = 2 * kHalfTile;
  constexpr int NV = 2 * N;
  const int n_panels = (a.width + 31) / 32;
  V<float> acc[R][NV];
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) {
    const V<float> start = few_bias(a, p * 32 + v * 16);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[r][v] = start;
  }
  const Bf16* w = a.tiles + static_cast<ptrdiff_t>(p) * n_panels * kHalfTile;
  for (int q = 0; q < n_panels; ++q, w += kHalfTile) {
    const Bf16* x = a.x + q * a.x_stride + static_cast<ptrdiff_t>(row0) * 32;
    for (int k = 0; k < 32; k += 2) {
      Half s[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        const Bf16* from = w + (v / 2) * n_panels * kHalfTile + k * 16 + (v % 2) * 512;
        s[v] = load_half(from);
        __builtin_prefetch(from + kAhead);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        Half pair = splat_pair(x + r * 32 + k);
        LAMINA_KEEP(pair);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[r][v] = dot_pairs(acc[r][v], pair, s[v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v)
      store(a.y + (p + v / 2) * a.y_stride + static_cast<ptrdiff_t>(row0 + r) * 32 + (v % 2) * 16,
            acc[r][v]);
}
// Fewer rows take more panels at once, so that enough sums are in flight.
void half_few_packed(const HalfFew& a) {
  const int n = (a.columns + 31) / 32;
  in_groups(a.rows, [&](auto group, int row0) INLINE_LAMBDA {
    constexpr int R = decltype(group)::count, N = R == 1 ? 4 : R <= 4 ? 2 : 1;
    int p = 0;
    for (; p + N <= n; p += N) few_tiles<R, N>(a, row0, p);
    for (; p < n; ++p) few_tiles<R, 1>(a, row0, p);
  });
}

// -- weights as they lie
// ---------------------------------------------------------------------------

// y[row][0..16) += J pairs of x[row] times as many of weights.
template <int J>
INLINE void add_pairs(const Bf16* x, const Half* s, float* y, int rows) {
  in_groups(rows, [&](auto group, int row0) INLINE_LAMBDA {
    constexpr int R = decltype(group)::count;
    const Bf16* from = x + row0 * 32;
    float* to = y + row0 * 32;
    V<float> acc[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[r] = load(to + r * 32);
#pragma GCC unroll 16
    for (int j = 0; j < J; ++j)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        acc[r] = dot_pairs(acc[r], splat_pair(from + r * 32 + 2 * j), s[j]);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) store(to + r * 32, acc[r]);
  });
}

// Rounds of transpose_square, as shuffles that stay within 16 bytes as long as they can. Written
// with vectors, since GCC 12 warns of its own headers' intrinsics.
INLINE V<float> interleave_words(V<float> a, V<float> b, bool high) {
  return high ? __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30,
                                        15, 31)
              : __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13,
                                        29);
}
INLINE V<float> interleave_pairs(V<float> a, V<float> b, bool high) {
  return high ? __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15,
                                        30, 31)
              : __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28,
                                        29);
}
INLINE V<float> every_other_four(V<float> a, V<float> b, bool odd) {
  return odd ? __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30,
                                       31)
             : __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26,
                                       27);
}
INLINE void transpose_halves(Half* s) {
  V<float> a[16], b[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    const V<float> even = reinterpret_cast<V<float>>(s[i]),
                   odd = reinterpret_cast<V<float>>(s[i + 1]);
    b[i] = interleave_words(even, odd, false);
    b[i + 1] = interleave_words(even, odd, true);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {  // a[i + c]: columns c, c + 4, … of rows i to i + 3
    a[i] = interleave_pairs(b[i], b[i + 2], false);
    a[i + 1] = interleave_pairs(b[i], b[i + 2], true);
    a[i + 2] = interleave_pairs(b[i + 1], b[i + 3], false);
    a[i + 3] = interleave_pairs(b[i + 1], b[i + 3], true);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c)
#pragma GCC unroll 2
    for (int odd = 0; odd < 2; ++odd) {
      const V<float> upper = every_other_four(a[c], a[c + 4], odd),
                     lower = every_other_four(a[c + 8], a[c + 12], odd);
      s[c + 4 * odd] = reinterpret_cast<Half>(every_other_four(upper, lower, false));
      s[c + 4 * odd + 8] = reinterpret_cast<Half>(every_other_four(upper, lower, true));
    }
}

// Pairs of 32 inputs (k valid) for sixteen outputs (n valid), from rows of W. Where that is all of
// them, what stands at `next` is fetched meanwhile: the hardware does not follow so many rows.
INLINE void turned_square(const float* w, ptrdiff_t ld, int n, int k, const float* next, Half* s) {
  if (n >= 16 && k >= 32) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      s[i] = narrow_row(loadu(w + i * ld), loadu(w + i * ld + 16));
      __builtin_prefetch(next + i * ld);
      __builtin_prefetch(next + i * ld + 16);
    }
  } else {
    for (int i = 0; i < 16; ++i)
      s[i] =
          i < n ? narrow_row(load_part(w + i * ld, k), load_part(w + i * ld + 16, k - 16)) : Half{};
  }
  transpose_halves(s);
}

// y = bias + x W^T, W (columns, width): squares of 16 outputs by 32 inputs are rounded and
// transposed in registers; a later square of theirs, or of the next sixteen, is fetched.
void half_few_turned(const HalfFew& a) {
  constexpr int kAhead = 128;
  const int end = (a.columns + 31) / 32 * 32;
  for (int o = 0; o < end; o += 16) {
    float* y = a.y + (o / 32) * a.y_stride + o % 32;
    const V<float> start = few_bias(a, o);
    for (int r = 0; r < a.rows; ++r) store(y + r * 32, start);
    if (o >= a.columns) continue;
    const float* w = a.w + o * a.ld;
    for (int k = 0; k < a.width; k += 32) {
      const int ahead = k + kAhead;
      const float* next = ahead < a.width ? w + ahead : w + 16 * a.ld + ahead - a.width;
      Half s[16];
      turned_square(w + k, a.ld, a.columns - o, a.width - k, next, s);
      add_pairs<16>(a.x + (k / 32) * a.x_stride, s, y, a.rows);
    }
  }
}

// A tile of W^T: n outputs by k inputs, zero outside.
void half_pack_turned(const float* w, ptrdiff_t ld, int n, int k, Bf16* tile) {
  for (int half = 0; half < 2; ++half, w += 16 * ld, n -= 16) {
    Half s[16];
    turned_square(w, ld, n, k, w + 64, s);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) store_half(tile + half * 512 + i * 32, s[i]);
  }
}

// Rows k and k + 1 of W, 16 columns of each, as pairs.
INLINE Half pair_of_rows(V<float> a, V<float> b) {
  const Half both = narrow_row(a, b);
  return __builtin_shufflevector(both, both, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
                                 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

// A tile of W: k inputs by n outputs, zero outside.
void half_pack_straight(const float* w, ptrdiff_t ld, int k, int n, Bf16* tile) {
  for (int i = 0; i < 32; i += 2, w += 2 * ld)
    for (int half = 0; half < 2; ++half) {
      const float* from = w + half * 16;
      const int valid = n - half * 16;
      store_half(tile + half * 512 + i * 16,
                 pair_of_rows(load_part(from, i < k ? valid : 0),
                              load_part(from + ld, i + 1 < k ? valid : 0)));
    }
}

// y = x W, W (width, columns): sixteen of W's rows at a time over a strip of columns whose sums
// stay in the first cache. bias is not heeded.
void half_few_straight(const HalfFew& a) {
  constexpr int kStrip = 256, K = 16;
  const int end = (a.columns + 31) / 32 * 32;
  for (int c0 = 0; c0 < end; c0 += kStrip) {
    const int c1 = smaller(c0 + kStrip, end);
    for (int c = c0; c < c1; c += 32)
      for (int r = 0; r < a.rows; ++r) {
        float* y = a.y + (c / 32) * a.y_stride + r * 32;
        store(y, V<float>{}), store(y + 16, V<float>{});
      }
    for (int k = 0; k < a.width; k += K) {
      const Bf16* x = a.x + (k / 32) * a.x_stride + k % 32;
      const float* w = a.w + k * a.ld;
      for (int c = c0; c < smaller(c1, a.columns); c += 16) {
        Half s[K / 2];
        if (k + K <= a.width && c + 16 <= a.columns) {
#pragma GCC unroll 8
          for (int j = 0; j < K / 2; ++j) {
            const float* from = w + 2 * j * a.ld + c;
            s[j] = pair_of_rows(loadu(from), loadu(from + a.ld));
            __builtin_prefetch(from + K * a.ld);
            __builtin_prefetch(from + (K + 1) * a.ld);
          }
        } else {
          for (int j = 0; j < K / 2; ++j) {
            const float* from = w + 2 * j * a.ld + c;
            const int left = a.width - k - 2 * j, n = a.columns - c;
            s[j] = pair_of_rows(load_part(from, left > 0 ? n : 0),
                                load_part(from + a.ld, left > 1 ? n : 0));
          }
        }
        add_pairs<K / 2>(x, s, a.y + (c / 32) * a.y_stride + c % 32, a.rows);
      }
    }
  }
}

// -- the gradient by weights
// -----------------------------------------------------------------------

// 64 bytes past the caches, which would read the line before they write it. A matrix is aligned to
// its elements only, but what follows fills the line up.
INLINE void store_past(float* to, V<float> a) {
  _mm_stream_ps(to, __builtin_shufflevector(a, a, 0, 1, 2, 3));
  _mm_stream_ps(to + 4, __builtin_shufflevector(a, a, 4, 5, 6, 7));
  _mm_stream_ps(to + 8, __builtin_shufflevector(a, a, 8, 9, 10, 11));
  _mm_stream_ps(to + 12, __builtin_shufflevector(a, a, 12, 13, 14, 15));
}

// O rows of w from paired_d's first column on, R pairs of rows.
template <int R, int O, bool Past>
void few_outer(const Bf16* d, const Bf16* x, int columns, float* w) {
  Half factor[R][O];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o) factor[r][o] = splat_pair(d + r * 32 + o * 2);
  for (int c = 0; c < columns; c += 16, x += 512) {
    V<float> acc[O];
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o) acc[o] = V<float>{};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Half pairs = load_half(x + r * 32);
#pragma GCC unroll 4
      for (int o = 0; o < O; ++o) acc[o] = dot_pairs(acc[o], pairs, factor[r][o]);
    }
    if (c + 16 <= columns) {
#pragma GCC unroll 4
      for (int o = 0; o < O; ++o) {
        float* to = w + static_cast<ptrdiff_t>(o) * columns + c;
        if constexpr (Past)
          store_past(to, acc[o]);
        else
          *reinterpret_cast<Lanes<float>::Unaligned*>(to) = acc[o];
      }
    } else {
      const auto valid = static_cast<__mmask16>((1u << (columns - c)) - 1);
      for (int o = 0; o < O; ++o)
        _mm512_mask_storeu_ps(w + static_cast<ptrdiff_t>(o) * columns + c, valid,
                              reinterpret_cast<__m512>(acc[o]));
    }
  }
}
template <bool Past>
INLINE void few_gradient(const Bf16* d, const Bf16* x, int rows, int n_out, int columns, float* w) {
  in_groups((rows + 1) / 2, [&](auto group, int) INLINE_LAMBDA {
    constexpr int R = decltype(group)::count, O = R <= 4 ? 4 : 2;
    int o = 0;
    auto at = [&](int i) { return d + (i / 16) * 512 + (i % 16) * 2; };
    for (; o + O <= n_out; o += O)
      few_outer<R, O, Past>(at(o), x, columns, w + static_cast<ptrdiff_t>(o) * columns);
    for (; o < n_out; ++o)
      few_outer<R, 1, Past>(at(o), x, columns, w + static_cast<ptrdiff_t>(o) * columns);
  });
}
void half_few_gradient(const Bf16* d, const Bf16* x, int rows, int n_out, int columns, float* w,
                       bool past) {
  static_assert(kHalfFewRows <= 16);  // one group of pairs
  const bool fits = columns % 4 == 0 && reinterpret_cast<uintptr_t>(w) % 16 == 0;
  if (!past || !fits) return few_gradient<false>(d, x, rows, n_out, columns, w);
  few_gradient<true>(d, x, rows, n_out, columns, w);
  _mm_sfence();
}
