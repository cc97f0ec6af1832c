// The table of kernels for products of bytes with 32-bit sums. Plain data only, as kernels.h.
//
// Inputs are cut into groups of kByteGroup. In group g a weight of output n is w = s_ng v, and an
// input of a row x = t_g q, v and q signed bytes; bytes of rows are stored as q + 128, because VNNI
// multiplies unsigned with signed ones. So
//   y_n = b_n + sum over groups g of t_g s_ng (sum over k in g of (q_k + 128) v_nk - 128 sum v_nk),
// whose inner sums are exact whole numbers, below 2^23; all kernels add the outer one in float32 in
// ascending order, from b_n on, each term by one fused multiply-add of the rounded t_g s_ng.
//
// Memory layout: weights as panels of 32 columns, [quad of inputs][32 columns][4]; rows of bytes
// x_stride apart, which holds the width rounded up to 64. Quads past the width are zero in weights.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace lamina {

inline constexpr int kByteGroup = 128;
inline constexpr int kBytePanel = 32;

// y [row][32] of one output panel.
struct ByteProduct {
  const uint8_t* x;
  ptrdiff_t x_stride;
  const float* scale;  // [row][group], scale_stride apart
  ptrdiff_t scale_stride;
  int rows, width;        // width: inputs
  const int8_t* w;        // one panel
  const int32_t* offset;  // [group][32]: -128 times the sum of v
  const float* w_scale;   // [group][32]
  const float* bias;      // 32, or null (zero)
  float* y;
};

// One group of columns of some rows: at x + r row_stride, in pieces of 32 that lie piece_stride
// apart. t = max |x| / 127 and q = x / t to the nearest, ties to even; a group with NaN or
// infinity gets t = NaN. Bytes past the columns are 128 (zero) up to the next multiple of 64.
struct ByteRows {
  const float* x;
  ptrdiff_t row_stride, piece_stride;
  const int32_t* index;  // of rows in x, or null: 0, 1, …
  int rows, columns;     // columns <= kByteGroup
  uint8_t* q;
  ptrdiff_t q_stride;
  float* scale;
  ptrdiff_t scale_stride;
};

struct ByteKernels {
  const char* name;
  void (*multiply)(const ByteProduct&);
  void (*quantise)(const ByteRows&);
};

extern const ByteKernels kernels_byte_plain;
#if defined(LAMINA_ISA_AVX512_VNNI)
extern const ByteKernels kernels_avx512_vnni;
#endif

}  // namespace lamina
