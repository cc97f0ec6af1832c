// The table of kernels for products in bfloat16 with float32 sums. Plain data only, as kernels.h.
//
// Memory layout: the panels of kernels.h with two bytes an element, so that a panel's row is one
// cache line and 16 rows are one AMX tile. Rows come in blocks of 32 (kHalfRows); rows past the
// last valid one are zero in every delta. Two further forms of a 32 x 32 block serve the products:
//   paired  [column half][row pair][column][2]: the right-hand side of a sum over rows;
//   turned  paired for AVX-512-BF16, its 16 x 16 transpose (one 32-bit pair an element) for AMX:
//           the left-hand side of the same sum.
// A weight tile is the paired form of W (rows k, columns n), its transposed copy that of W^T.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace lamina {

using Bf16 = uint16_t;  // the upper half of a float32's bits
inline constexpr int kHalfRows = 32;
inline constexpr int kHalfPanel = 32;
inline constexpr int kHalfPieces = 10;        // in which a block's sums become results
inline constexpr ptrdiff_t kHalfTile = 1024;  // elements of a weight tile

// Y = X W for all output panels of a layer (or of one source's share of a layer's input).
struct HalfProduct {
  const Bf16* const* x;  // n_panels pointers to [row][32]
  int n_panels;
  int rows;            // a multiple of kHalfRows
  int columns;         // valid columns of Y over all of its panels
  const Bf16* w;       // tiles [output panel][input panel]
  ptrdiff_t w_stride;  // elements from output panel to output panel
};

struct HalfForward : HalfProduct {
  const float* bias = nullptr;  // 32 a panel
  Activation activation = kIdentity;
  ptrdiff_t stride = 0;  // elements from panel to panel of what follows
  Bf16* h = nullptr;
  Bf16* slope = nullptr;   // phi'(z), or null
  Bf16* turned = nullptr;  // h for the next layer's weight gradient, or null
};

struct HalfBackward : HalfProduct {
  Epilogue finish = kNone;     // how the delta of the layer below follows from d loss / d h
  const Bf16* side = nullptr;  // its h or slope
  ptrdiff_t stride = 0;
  Bf16* delta = nullptr;
  Bf16* paired = nullptr;        // delta for the weight gradient
  float* column_sums = nullptr;  // 32 a panel, added to
};

struct HalfRaw : HalfProduct {
  const float* bias = nullptr;  // 32 a panel, or null (zero)
  ptrdiff_t stride = 0;
  float* y = nullptr;
  bool accumulate = false;  // start from y instead of bias
};

// A float32 panel on its way into bfloat16, with what else is wanted of it.
struct HalfNarrow {
  const float* x = nullptr;  // [row][32]
  int rows = 0;              // valid rows; those up to the next multiple of kHalfRows become zero
  Epilogue finish = kNone;
  const Bf16* side = nullptr;
  Bf16* y = nullptr;
  Bf16* paired = nullptr;  // each of these may be null
  Bf16* turned = nullptr;
  float* column_sums = nullptr;
  bool few = false;  // stop after the last pair of rows: what comes then is left as it is
};

// Products of at most kHalfFewRows rows: y = bias + x W^T, or x W.
inline constexpr int kHalfFewRows = 16;
struct HalfFew {
  const Bf16* x = nullptr;  // panels [row][32], x_stride apart; columns past the last are finite
  ptrdiff_t x_stride = 0;
  int width = 0;                // columns of x
  const Bf16* tiles = nullptr;  // few_packed: [output panel][input panel]
  const float* w = nullptr;     // the others: rows ld apart
  ptrdiff_t ld = 0;
  int rows = 0, columns = 0;    // of the result
  const float* bias = nullptr;  // columns values, or null (zero)
  float* y = nullptr;           // panels [row][32], y_stride apart, all columns of each written
  ptrdiff_t y_stride = 0;
};

struct HalfKernels {
  const char* name;
  void (*enter)();  // once a thread before its first product, and
  void (*leave)();  // after its last
  void (*forward)(const HalfForward&);
  void (*backward)(const HalfBackward&);
  void (*raw)(const HalfRaw&);
  // C[k][n] (+)= sum over rows of x[row][k] d[row][n]: one 32 x 32 tile in float32.
  void (*gradient_tile)(const Bf16* turned_x, const Bf16* paired_d, int rows, int k_columns,
                        int n_columns, float* c, bool accumulate);
  void (*narrow)(const HalfNarrow&);
  void (*widen)(const Bf16* x, float* y, ptrdiff_t count);
  // A float32 weight tile [k][n] to its paired form; wt, unless null, to that of its transpose.
  void (*pack)(const float* w, Bf16* paired, Bf16* paired_transpose);
  // The same from a row-major matrix, rows ld apart, zero outside n x k: a tile of W^T, of W.
  void (*pack_turned)(const float* w, ptrdiff_t ld, int n, int k, Bf16* tile);
  void (*pack_straight)(const float* w, ptrdiff_t ld, int k, int n, Bf16* tile);
  // Rows of a row-major matrix into panels and their turned form, as Kernels::gather; rows up to
  // the next multiple of kHalfRows become zero.
  void (*gather)(const float* x, ptrdiff_t columns, const int32_t* index, int rows, Bf16* panels,
                 Bf16* turned, ptrdiff_t stride);
  // Of few rows (kernels_half_few.h): y = bias + x W^T by packed tiles, by W (columns, width); x W
  // by W (width, columns).
  void (*few_packed)(const HalfFew&);
  void (*few_turned)(const HalfFew&);
  void (*few_straight)(const HalfFew&);
  // n_out rows of w (n_out, columns): sums over few rows of d[row][out] x[row][column], both
  // paired, x's panels one block apart; past: beside the caches.
  void (*few_gradient)(const Bf16* paired_d, const Bf16* paired_x, int rows, int n_out, int columns,
                       float* w, bool past);
  // Products in registers, so many rounds of them; returns the operations done (kernels_peak.h).
  double (*peak)(int64_t rounds);
};

#if defined(LAMINA_ISA_AVX512_BF16)
extern const HalfKernels kernels_avx512_bf16;
#endif
#if defined(LAMINA_ISA_AMX)
extern const HalfKernels kernels_amx;
#endif

}  // namespace lamina
