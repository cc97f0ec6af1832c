// Products of bytes on AVX-512-VNNI: one instruction multiplies 64 pairs and adds them, in fours,
// to 16 sums. Register tiles of 6 rows x 32 columns: 12 whole sums, as many in float32, two weight
// loads and one broadcast.
#include "kernels_byte.h"
#include "registers_avx512.h"

namespace lamina {
namespace isa_avx512_vnni {
namespace {

constexpr int kTileRows = 6;

typedef int32_t Quad __attribute__((aligned(1), may_alias));
INLINE __m512i splat_quad(const uint8_t* p) {
  return _mm512_set1_epi32(*reinterpret_cast<const Quad*>(p));
}
INLINE int smaller(int a, int b) { return a < b ? a : b; }

// R rows. One or two of them would wait for their own sums (an instruction's result comes after
// four or five cycles): their quads go to Chains sums in turn, whose order does not matter.
template <int R, int Chains>
INLINE void tile(const ByteProduct& a, int row) {
  const uint8_t* x = a.x + row * a.x_stride;
  __m512 y[R][2];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h)
      y[r][h] = a.bias ? _mm512_loadu_ps(a.bias + 16 * h) : _mm512_setzero_ps();
  for (int g = 0; g * kByteGroup < a.width; ++g) {
    const int32_t* offset = a.offset + static_cast<ptrdiff_t>(g) * kBytePanel;
    __m512i sum[Chains][R][2];
#pragma GCC unroll 4
    for (int c = 0; c < Chains; ++c)
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h)
          sum[c][r][h] = c == 0 ? _mm512_loadu_si512(offset + 16 * h) : _mm512_setzero_si512();
    const int begin = g * kByteGroup, end = smaller(a.width, begin + kByteGroup);
    int k = begin;
    auto quad = [&](int at, int c) INLINE_LAMBDA {
      const int8_t* w = a.w + static_cast<ptrdiff_t>(at) * kBytePanel;
      const __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + 64);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        __m512i q = splat_quad(x + r * a.x_stride + at);
        LAMINA_KEEP(q);
        sum[c][r][0] = _mm512_dpbusd_epi32(sum[c][r][0], q, w0);
        sum[c][r][1] = _mm512_dpbusd_epi32(sum[c][r][1], q, w1);
      }
    };
    for (; k + 4 * (Chains - 1) < end; k += 4 * Chains)
#pragma GCC unroll 4
      for (int c = 0; c < Chains; ++c) quad(k + 4 * c, c);
    for (; k < end; k += 4) quad(k, 0);
    const float* scale = a.w_scale + static_cast<ptrdiff_t>(g) * kBytePanel;
    const __m512 s[2] = {_mm512_loadu_ps(scale), _mm512_loadu_ps(scale + 16)};
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const __m512 t = _mm512_set1_ps(a.scale[(row + r) * a.scale_stride + g]);
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        __m512i all = sum[0][r][h];
#pragma GCC unroll 4
        for (int c = 1; c < Chains; ++c) all = _mm512_add_epi32(all, sum[c][r][h]);
        y[r][h] = _mm512_fmadd_ps(_mm512_mul_ps(t, s[h]), _mm512_cvtepi32_ps(all), y[r][h]);
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h)
      _mm512_storeu_ps(a.y + static_cast<ptrdiff_t>(row + r) * kBytePanel + 16 * h, y[r][h]);
}

void multiply(const ByteProduct& a) {
  int row = 0;
  for (; row + kTileRows <= a.rows; row += kTileRows) tile<kTileRows, 1>(a, row);
  switch (a.rows - row) {
    case 1:
      return tile<1, 4>(a, row);
    case 2:
      return tile<2, 2>(a, row);
    case 3:
      return tile<3, 2>(a, row);
    case 4:
      return tile<4, 1>(a, row);
    case 5:
      return tile<5, 1>(a, row);
    default:
      return;
  }
}

void quantise(const ByteRows& a) {
  const int n = (a.columns + 15) / 16, padded = (a.columns + 63) / 64 * 4;
  const __m512 sign = _mm512_set1_ps(-0.0f);
  for (int r = 0; r < a.rows; ++r) {
    const float* x = a.x + (a.index ? a.index[r] : r) * a.row_stride;
    uint8_t* q = a.q + r * a.q_stride;
    __m512 v[kByteGroup / 16];
    __m512 largest = _mm512_setzero_ps(), poison = _mm512_setzero_ps();
    for (int i = 0; i < n; ++i) {
      const int left = a.columns - 16 * i;
      const __mmask16 valid = static_cast<__mmask16>(left >= 16 ? 0xffff : (1u << left) - 1);
      v[i] = _mm512_maskz_loadu_ps(valid, x + i / 2 * a.piece_stride + i % 2 * 16);
      largest = _mm512_max_ps(largest, _mm512_andnot_ps(sign, v[i]));
      poison = _mm512_fmadd_ps(v[i], _mm512_setzero_ps(), poison);
    }
    const float most = _mm512_reduce_max_ps(largest), spoilt = _mm512_reduce_add_ps(poison);
    const float inverse = most > 0 ? 127.0f / most : 0.0f;
    const bool usable = spoilt == 0 && inverse <= 3.4028234e38f;
    a.scale[r * a.scale_stride] = usable ? most / 127.0f : spoilt;
    const __m512 factor = _mm512_set1_ps(inverse);
    for (int i = 0; i < padded; ++i) {
      __m512i whole = _mm512_setzero_si512();
      if (usable && i < n) whole = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], factor));
      const __m128i bytes = _mm512_cvtepi32_epi8(whole);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16 * i),
                       _mm_xor_si128(bytes, _mm_set1_epi8(static_cast<char>(0x80))));
    }
  }
}

}  // namespace
}  // namespace isa_avx512_vnni

extern const ByteKernels kernels_avx512_vnni;
const ByteKernels kernels_avx512_vnni = {"avx512_vnni", isa_avx512_vnni::multiply,
                                         isa_avx512_vnni::quantise};

}  // namespace lamina
