// Products in bfloat16 on AVX-512-BF16: one instruction multiplies 32 pairs and adds them in
// float32. Register tiles of 8 rows x 32 columns: 16 sums, two weight loads, one broadcast.
#include "kernels_half.h"
#include "registers_avx512.h"

namespace lamina {
namespace isa_avx512_bf16 {
namespace {
#include "vmath.h"
constexpr bool kTurnTransposes = false;
#include "kernels_half_blocks.h"
#include "kernels_impl.h"
#include "kernels_pointwise.h"

constexpr int kTileRows = 8;

typedef int32_t PairOfBits __attribute__((aligned(2), may_alias));
INLINE __m512bh broadcast_pair(const void* p) {
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(*static_cast<const PairOfBits*>(p)));
}
INLINE __m512bh load_pairs(const Bf16* p) {
  return reinterpret_cast<__m512bh>(_mm512_load_si512(p));
}

// Sums of rows [row, row + 8) and 16 * Halves columns into a block's tiles.
template <int Halves>
INLINE void eight_rows(const HalfProduct& a, const Bf16* w, const float* bias, int row,
                       float* sums) {
  __m512 acc[kTileRows][Halves];
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 2
    for (int h = 0; h < Halves; ++h)
      acc[r][h] = bias ? _mm512_load_ps(bias + h * 16) : _mm512_setzero_ps();
  for (int panel = 0; panel < a.n_panels; ++panel, w += kHalfTile) {
    const Bf16* x = a.x[panel] + static_cast<ptrdiff_t>(row) * 32;
    // The next eight rows: half a kilobyte a panel is too short for the hardware to see a stream.
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) __builtin_prefetch(x + (kTileRows + r) * 32);
    for (int k = 0; k < 32; k += 2) {
      __m512bh wk[Halves];
#pragma GCC unroll 2
      for (int h = 0; h < Halves; ++h) wk[h] = load_pairs(w + k * 16 + h * 512);
#pragma GCC unroll 8
      for (int r = 0; r < kTileRows; ++r) {
        __m512bh pair = broadcast_pair(x + r * 32 + k);
        if constexpr (Halves > 1) LAMINA_KEEP(pair);
#pragma GCC unroll 2
        for (int h = 0; h < Halves; ++h) acc[r][h] = _mm512_dpbf16_ps(acc[r][h], pair, wk[h]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 2
    for (int h = 0; h < Halves; ++h) _mm512_store_ps(sums + r * 16 + h * 256, acc[r][h]);
}

template <class Piece>
INLINE void all_blocks(const HalfProduct& a, const float* bias, Piece piece) {
  alignas(64) float sums[1024] = {};
  each_block(a, [&](int p, int row0) INLINE_LAMBDA {
    const bool narrow = a.columns - p * 32 <= 16;
    const Bf16* w = a.w + p * a.w_stride;
    const float* from = bias ? bias + p * 32 : nullptr;
    if (narrow)
      for (int i = 0; i < 1024; i += 512)
        for (int j = 256; j < 512; ++j) sums[i + j] = 0;
    for (int row = 0; row < kHalfRows; row += kTileRows) {
      float* to = sums + (row >= 16 ? 512 : 0) + (row % 16) * 16;
      narrow ? eight_rows<1>(a, w, from, row0 + row, to)
             : eight_rows<2>(a, w, from, row0 + row, to);
    }
    for (int i = 0; i < kHalfPieces; ++i) piece(sums, p, row0, i);
  });
}

#include "kernels_half_impl.h"

// Eight rows of the gradient tile stay in registers while the pairs of rows stream by.
template <int Halves>
void gradient_columns(const Bf16* x, const Bf16* d, int rows, int k_columns, float* c,
                      bool accumulate) {
  for (int k0 = 0; k0 < k_columns; k0 += kTileRows) {
    __m512 acc[kTileRows][Halves];
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 2
      for (int h = 0; h < Halves; ++h)
        acc[r][h] = accumulate ? _mm512_load_ps(c + (k0 + r) * 32 + h * 16) : _mm512_setzero_ps();
    const Bf16* xp = x + (k0 / 16) * 512 + (k0 % 16) * 2;
    const Bf16* dp = d;
    for (int block = 0; block < rows; block += kHalfRows, xp += kBlock, dp += kBlock)
      for (int pair = 0; pair < kHalfRows / 2; ++pair) {
        __m512bh dk[Halves];
#pragma GCC unroll 2
        for (int h = 0; h < Halves; ++h) dk[h] = load_pairs(dp + pair * 32 + h * 512);
#pragma GCC unroll 8
        for (int r = 0; r < kTileRows; ++r) {
          __m512bh xb = broadcast_pair(xp + pair * 32 + r * 2);
          if constexpr (Halves > 1) LAMINA_KEEP(xb);
#pragma GCC unroll 2
          for (int h = 0; h < Halves; ++h) acc[r][h] = _mm512_dpbf16_ps(acc[r][h], xb, dk[h]);
        }
      }
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 2
      for (int h = 0; h < Halves; ++h) _mm512_store_ps(c + (k0 + r) * 32 + h * 16, acc[r][h]);
  }
}
void half_gradient_tile(const Bf16* x, const Bf16* d, int rows, int k_columns, int n_columns,
                        float* c, bool accumulate) {
  (n_columns > 16 ? gradient_columns<2> : gradient_columns<1>)(x, d, rows, k_columns, c,
                                                               accumulate);
}

void nothing() {}

// Twelve sums in registers, as kernels_peak.h.
double half_peak(int64_t rounds) {
  constexpr int kSums = 12;
  __m512 sums[kSums];
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) {
    sums[i] = _mm512_setzero_ps();
    LAMINA_KEEP(sums[i]);  // twelve equal chains would be computed as one
  }
  __m512bh x = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80));
  asm("" : "+v"(x));
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], x, x);
  }
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) asm volatile("" : : "v"(sums[i]));
  return 2.0 * 32 * kSums * static_cast<double>(rounds);
}

}  // namespace
}  // namespace isa_avx512_bf16

extern const HalfKernels kernels_avx512_bf16;
const HalfKernels kernels_avx512_bf16 = {"avx512_bf16",
                                         isa_avx512_bf16::nothing,
                                         isa_avx512_bf16::nothing,
                                         isa_avx512_bf16::half_forward,
                                         isa_avx512_bf16::half_backward,
                                         isa_avx512_bf16::half_raw,
                                         isa_avx512_bf16::half_gradient_tile,
                                         isa_avx512_bf16::half_narrow,
                                         isa_avx512_bf16::half_widen,
                                         isa_avx512_bf16::half_pack,
                                         isa_avx512_bf16::half_pack_turned,
                                         isa_avx512_bf16::half_pack_straight,
                                         isa_avx512_bf16::half_gather,
                                         isa_avx512_bf16::half_few_packed,
                                         isa_avx512_bf16::half_few_turned,
                                         isa_avx512_bf16::half_few_straight,
                                         isa_avx512_bf16::half_few_gradient,
                                         isa_avx512_bf16::half_peak};
}  // namespace lamina
