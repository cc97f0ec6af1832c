// Products in bfloat16: the one source for AVX-512-BF16 and AMX. Each including file brings the
// block product, all_blocks, and says whether `turned` is transposed (kTurnTransposes).
//
// A block is 32 x 32 float32 sums, kept as four 16 x 16 tiles [row half][column half]. What becomes
// of it (activation, rounding, the forms that later products want) is done in kHalfPieces pieces,
// so that AMX can do them between the products of the next block.

typedef uint16_t Half __attribute__((vector_size(64)));
typedef int16_t SignedHalf __attribute__((vector_size(64)));
// The same memory is read as 16-bit elements and as 32-bit pairs.
typedef uint16_t HalfInMemory __attribute__((vector_size(64), may_alias));
typedef float PairsInMemory __attribute__((vector_size(64), may_alias));

constexpr int kRowPieces = kHalfPieces - 2;  // four rows each; the last two transpose
constexpr ptrdiff_t kBlock = static_cast<ptrdiff_t>(kHalfRows) * kHalfPanel;

INLINE Half load_half(const Bf16* p) { return *reinterpret_cast<const HalfInMemory*>(p); }
INLINE void store_half(Bf16* p, Half a) { *reinterpret_cast<HalfInMemory*>(p) = a; }

// Columns 0..15 and 16..31 of one row, rounded to nearest even.
INLINE Half narrow_row(V<float> low, V<float> high) {
  return reinterpret_cast<Half>(
      _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(high), reinterpret_cast<__m512>(low)));
}
struct Wide {
  V<float> low, high;
};
INLINE Wide widen_row(Half a) {
  const Half zero = {};
  return {reinterpret_cast<V<float>>(
              __builtin_shufflevector(zero, a, 0, 32, 0, 33, 0, 34, 0, 35, 0, 36, 0, 37, 0, 38, 0,
                                      39, 0, 40, 0, 41, 0, 42, 0, 43, 0, 44, 0, 45, 0, 46, 0, 47)),
          reinterpret_cast<V<float>>(
              __builtin_shufflevector(zero, a, 0, 48, 0, 49, 0, 50, 0, 51, 0, 52, 0, 53, 0, 54, 0,
                                      55, 0, 56, 0, 57, 0, 58, 0, 59, 0, 60, 0, 61, 0, 62, 0, 63))};
}
struct Paired {
  Half low, high;  // columns 0..15 and 16..31, each a pair (row a, row b)
};
INLINE Paired pair_rows(Half a, Half b) {
  return {
      __builtin_shufflevector(a, b, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40,
                              9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47),
      __builtin_shufflevector(a, b, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
                              24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63)};
}
INLINE V<float> dot_pairs(V<float> sum, Half a, Half b) {
  return reinterpret_cast<V<float>>(_mm512_dpbf16_ps(
      reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
}
// A 16 x 16 square of 32-bit pairs: rows become columns.
INLINE void transpose_pairs(const Bf16* from, Bf16* to) {
  V<float> a[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = *reinterpret_cast<const PairsInMemory*>(from + i * 32);
  transpose_square<float>(a);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) *reinterpret_cast<PairsInMemory*>(to + i * 32) = a[i];
}

// Two rows (row, row + 1, row even within its block) of a block into the forms that are asked for.
// `pairs` collects a block's paired form until it can be transposed.
struct Forms {
  Bf16* y;       // this block's first row, or null
  Bf16* paired;  // this block, or null
  Bf16* turned;
  Bf16* pairs;
};
INLINE Paired put_rows(const Forms& f, int row, Half a, Half b) {
  if (f.y) {
    store_half(f.y + row * 32, a);
    store_half(f.y + row * 32 + 32, b);
  }
  const Paired p = pair_rows(a, b);
  if (f.paired) {
    store_half(f.paired + row * 16, p.low);
    store_half(f.paired + row * 16 + 512, p.high);
  }
  if (f.turned) {
    Bf16* to = kTurnTransposes ? f.pairs : f.turned;
    store_half(to + row * 16, p.low);
    store_half(to + row * 16 + 512, p.high);
  }
  return p;
}
// Pieces kRowPieces and kRowPieces + 1 of a block.
INLINE void turn_half(const Forms& f, int half) {
  if (kTurnTransposes && f.turned) transpose_pairs(f.pairs + half * 512, f.turned + half * 512);
}

// The four quarter rows of rows (row, row + 1) of a block of sums.
struct Rows2 {
  V<float> a0, a1, b0, b1;
};
INLINE Rows2 sums_of(const float* block, int row) {
  const float* p = block + (row >= 16 ? 512 : 0) + (row % 16) * 16;
  return {load(p), load(p + 256), load(p + 16), load(p + 272)};
}

template <int E>
INLINE void finish_rows(Rows2& z, const Bf16* side, int row, Half& a, Half& b) {
  if constexpr (E == kMulByD) {
    const Wide da = widen_row(load_half(side + row * 32)),
               db = widen_row(load_half(side + row * 32 + 32));
    z.a0 *= da.low, z.a1 *= da.high, z.b0 *= db.low, z.b1 *= db.high;
  }
  a = narrow_row(z.a0, z.a1);
  b = narrow_row(z.b0, z.b1);
  if constexpr (E == kMaskByH) {
    const SignedHalf ha = reinterpret_cast<SignedHalf>(load_half(side + row * 32)),
                     hb = reinterpret_cast<SignedHalf>(load_half(side + row * 32 + 32));
    const Half zero = {};
    a = ha > 0 ? a : zero;
    b = hb > 0 ? b : zero;
  }
}

constexpr uint16_t kOne = 0x3f80;

// -- layers
// ----------------------------------------------------------------------------------------

template <class T, int A, bool Slope>  // T is float
void forward_with(const HalfForward& a) {
  alignas(64) Bf16 pairs[kBlock];
  auto piece = [&](const float* sums, int p, int row0, int i) INLINE_LAMBDA {
    const ptrdiff_t at = p * a.stride + static_cast<ptrdiff_t>(row0) * 32;
    const Forms f{a.h + at, nullptr, a.turned ? a.turned + at : nullptr, pairs};
    if (i >= kRowPieces) return turn_half(f, i - kRowPieces);
#pragma GCC unroll 2
    for (int row = 4 * i; row < 4 * i + 4; row += 2) {
      const Rows2 z = sums_of(sums, row);
      const ValueAndSlope<T> a0 = activation<T, A>(z.a0), a1 = activation<T, A>(z.a1);
      const ValueAndSlope<T> b0 = activation<T, A>(z.b0), b1 = activation<T, A>(z.b1);
      put_rows(f, row, narrow_row(a0.h, a1.h), narrow_row(b0.h, b1.h));
      if constexpr (Slope) {
        store_half(a.slope + at + row * 32, narrow_row(a0.d, a1.d));
        store_half(a.slope + at + row * 32 + 32, narrow_row(b0.d, b1.d));
      }
    }
  };
  all_blocks(a, a.bias, piece);
}
using ForwardWith = void (*)(const HalfForward&);
template <int... A>
INLINE ForwardWith pick_forward(Activation a, bool slope, Sequence<A...>) {
  static constexpr ForwardWith with[] = {forward_with<float, A, true>...};
  static constexpr ForwardWith without[] = {forward_with<float, A, false>...};
  return slope ? with[a] : without[a];
}
void half_forward(const HalfForward& a) {
  pick_forward(a.activation, a.slope != nullptr,
               typename MakeSequence<kActivationCount>::type{})(a);
}

template <int E>
void backward_with(const HalfBackward& a) {
  const Half ones = Half{} + kOne;
  auto piece = [&](const float* sums, int p, int row0, int i) INLINE_LAMBDA {
    if (i >= kRowPieces) return;
    const ptrdiff_t at = p * a.stride + static_cast<ptrdiff_t>(row0) * 32;
    const Forms f{a.delta + at, a.paired + at, nullptr, nullptr};
    float* column_sums = a.column_sums + p * 32;
    V<float> low = load(column_sums), high = load(column_sums + 16);
#pragma GCC unroll 2
    for (int row = 4 * i; row < 4 * i + 4; row += 2) {
      Rows2 z = sums_of(sums, row);
      Half first, second;
      finish_rows<E>(z, E == kNone ? nullptr : a.side + at, row, first, second);
      const Paired pair = put_rows(f, row, first, second);
      low = dot_pairs(low, pair.low, ones);
      high = dot_pairs(high, pair.high, ones);
    }
    store(column_sums, low);
    store(column_sums + 16, high);
  };
  all_blocks(a, nullptr, piece);
}
void half_backward(const HalfBackward& a) {
  if (a.finish == kMulByD) return backward_with<kMulByD>(a);
  if (a.finish == kMaskByH) return backward_with<kMaskByH>(a);
  backward_with<kNone>(a);
}

void half_raw(const HalfRaw& a) {
  auto piece = [&](const float* sums, int p, int row0, int i) INLINE_LAMBDA {
    if (i >= kRowPieces) return;
    float* y = a.y + p * a.stride + static_cast<ptrdiff_t>(row0) * 32;
#pragma GCC unroll 2
    for (int row = 4 * i; row < 4 * i + 4; row += 2) {
      Rows2 z = sums_of(sums, row);
      float* to = y + row * 32;
      if (a.accumulate)
        z.a0 += load(to), z.a1 += load(to + 16), z.b0 += load(to + 32), z.b1 += load(to + 48);
      store(to, z.a0), store(to + 16, z.a1), store(to + 32, z.b0), store(to + 48, z.b1);
    }
  };
  all_blocks(a, a.bias, piece);
}

// -- conversions
// -----------------------------------------------------------------------------------

template <int E>
void narrow_with(const HalfNarrow& a) {
  alignas(64) Bf16 pairs[kBlock];
  const Half ones = Half{} + kOne;
  V<float> low = {}, high = {};
  auto row_of = [&](int r, int half) INLINE_LAMBDA {
    return r < a.rows ? load(a.x + static_cast<ptrdiff_t>(r) * 32 + half * 16) : V<float>{};
  };
  for (int row0 = 0; row0 < a.rows; row0 += kHalfRows) {
    const ptrdiff_t at = static_cast<ptrdiff_t>(row0) * 32;
    const Forms f{a.y ? a.y + at : nullptr, a.paired ? a.paired + at : nullptr,
                  a.turned ? a.turned + at : nullptr, pairs};
    for (int row = 0; row < kHalfRows; row += 2) {
      const int r = row0 + row;
      if (a.few && r >= a.rows) break;
      Rows2 z{row_of(r, 0), row_of(r, 1), row_of(r + 1, 0), row_of(r + 1, 1)};
      Half first, second;
      finish_rows<E>(z, E == kNone ? nullptr : a.side + at, row, first, second);
      if (E == kMulByD) {  // nothing times a slope that is not finite must stay nothing
        if (r >= a.rows) first = Half{};
        if (r + 1 >= a.rows) second = Half{};
      }
      const Paired pair = put_rows(f, row, first, second);
      low = dot_pairs(low, pair.low, ones);
      high = dot_pairs(high, pair.high, ones);
    }
    if (a.few) continue;
    turn_half(f, 0);
    turn_half(f, 1);
  }
  if (!a.column_sums) return;
  store(a.column_sums, load(a.column_sums) + low);
  store(a.column_sums + 16, load(a.column_sums + 16) + high);
}
void half_narrow(const HalfNarrow& a) {
  if (a.finish == kMulByD) return narrow_with<kMulByD>(a);
  if (a.finish == kMaskByH) return narrow_with<kMaskByH>(a);
  narrow_with<kNone>(a);
}

void half_widen(const Bf16* x, float* y, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i += 32) {
    const Wide w = widen_row(load_half(x + i));
    store(y + i, w.low);
    store(y + i + 16, w.high);
  }
}

void half_pack(const float* w, Bf16* paired, Bf16* paired_transpose) {
  alignas(64) Bf16 rows[kBlock];
  for (int k = 0; k < 32; k += 2) {
    const float* p = w + k * 32;
    const Half a = narrow_row(load(p), load(p + 16)), b = narrow_row(load(p + 32), load(p + 48));
    const Paired pair = pair_rows(a, b);
    store_half(paired + k * 16, pair.low);
    store_half(paired + k * 16 + 512, pair.high);
    store_half(rows + k * 32, a);
    store_half(rows + k * 32 + 32, b);
  }
  if (!paired_transpose) return;
  transpose_pairs(rows, paired_transpose);
  transpose_pairs(rows + 512, paired_transpose + 512);
}

void half_gather(const float* x, ptrdiff_t columns, const int32_t* index, int rows, Bf16* panels,
                 Bf16* turned, ptrdiff_t stride) {
  constexpr int kAhead = 8;
  alignas(64) Bf16 pairs[kBlock];
  auto row_of = [&](int r) { return x + (index ? index[r] : static_cast<ptrdiff_t>(r)) * columns; };
  for (int row0 = 0; row0 < rows; row0 += kHalfRows) {
    for (int i = 0; i < kHalfRows; ++i) {
      const int r = row0 + i;
      Bf16* to = panels + static_cast<ptrdiff_t>(r) * 32;
      if (index && r + kAhead < rows) {
        const char* next = reinterpret_cast<const char*>(row_of(r + kAhead));
        for (ptrdiff_t byte = 0; byte < columns * 4; byte += 64) __builtin_prefetch(next + byte);
      }
      if (r >= rows) {
        for (ptrdiff_t c = 0; c < columns; c += 32, to += stride) store_half(to, Half{});
        continue;
      }
      const float* from = row_of(r);
      ptrdiff_t c = 0;
      for (; c + 32 <= columns; c += 32, to += stride)
        store_half(to, narrow_row(loadu(from + c), loadu(from + c + 16)));
      if (c == columns) continue;
      const uint32_t valid = (1u << (columns - c)) - 1;
      store_half(to, narrow_row(reinterpret_cast<V<float>>(
                                    _mm512_maskz_loadu_ps(static_cast<__mmask16>(valid), from + c)),
                                reinterpret_cast<V<float>>(_mm512_maskz_loadu_ps(
                                    static_cast<__mmask16>(valid >> 16), from + c + 16))));
    }
    if (!turned) continue;
    for (ptrdiff_t c = 0, p = 0; c < columns; c += 32, ++p) {
      const ptrdiff_t at = p * stride + static_cast<ptrdiff_t>(row0) * 32;
      const Forms f{nullptr, nullptr, turned + at, pairs};
      for (int row = 0; row < kHalfRows; row += 2)
        put_rows(f, row, load_half(panels + at + row * 32), load_half(panels + at + row * 32 + 32));
      turn_half(f, 0);
      turn_half(f, 1);
    }
  }
}

#include "kernels_half_few.h"
