// The table of kernels for products of bytes with 32-bit sums. Plain data only, as kernels.h.
//
// A weight of column n is w = s_n v, v a signed byte. A row's inputs are cut into groups of
// kByteGroup columns, x = t q, q a signed byte and t one scale a row and group; bytes of rows are
// stored as q + 128, because VNNI multiplies unsigned with signed ones. So
//   y_n = b_n + s_n sum over groups g of t_g (sum over k in g of (q_k + 128) v_nk - 128 sum v_nk),
// whose inner sums are exact whole numbers, below 2^23: a row's bits are the same in every kernel
// but for the float32 sum over groups, which all of them take in ascending order.
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
  const float* w_scale;   // 32
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
